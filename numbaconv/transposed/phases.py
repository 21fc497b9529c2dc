"""Transposed convolution split by the remainders of the stride into ordinary convolutions, all of them in one tile list.

A tile holds neighbouring outputs of one remainder, which lie a stride apart in the result, and its table lists the taps that
they meet: every sum is one accumulator, nothing is added in memory, no tap is multiplied with zeros that the stride inserts, and
the weights are packed as those of an ordinary convolution are.  Wins with enough output channels to fill vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.base import Cost, DirectSums
from numbaconv.algorithms.geometry import column_blocks, tile_list_bytes
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm, TiledPlan
from numbaconv.codegen.target import TARGETS
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import MR, PANEL_ROW, TAP, TILE
from numbaconv.machine import Machine
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.remainders import Line, Rows
from numbaconv.transposed.weights import TransposedWeights

#: The most that tap tables and tile list of a plan may take.
BUFFER_LIMIT = 64 << 20
#: More remainders than this would make lists of single outputs.
MANY_REMAINDERS = 4096
#: The part of the L2 that the pixels which a block reads may take.
_INPUT_PART = 4


class Phases(DirectSums):
    """The way of tile lists; each problem has an algorithm of the tile family of its own."""

    name = "phases"

    def unsupported(self, problem: TransposedProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this way is refused, or None."""
        if max(map(min, zip(problem.stride, problem.out_spatial))) > MANY_REMAINDERS:
            return f"more than {MANY_REMAINDERS} remainders of the stride"
        # before any list is made, its length: each output row has at least one tile
        *rows, line = problem.out_spatial
        tiles = prod(rows) * max(-(-line // MR), min(problem.stride[-1], line))
        if tile_list_bytes(tiles) > BUFFER_LIMIT:
            return f"its tile list would take more than {BUFFER_LIMIT >> 20} MiB"
        nbytes = _split(problem).plan_bytes
        return (
            None
            if nbytes <= BUFFER_LIMIT
            else f"its buffer would take {nbytes >> 20} MiB, more than {BUFFER_LIMIT >> 20}"
        )

    def estimate(self, problem: TransposedProblem, machine: Machine) -> Cost:
        """What running would cost; pure."""
        return _split(problem).estimate(_folded(problem), machine)

    def plan(
        self, problem: TransposedProblem, weights: TransposedWeights, epilogue: Epilogue, machine: Machine
    ) -> TiledPlan:
        """Pack the weights, unless another plan has, and list the tiles."""
        return TiledPlan(_split(problem), _folded(problem), weights.swapped, epilogue, machine)


@dataclass(frozen=True)
class _Image:
    """What loops over pixels need of a problem: all axes but the last are folded into rows."""

    n: int
    c_in: int
    c_out: int
    spatial: tuple[int, int]
    out_spatial: tuple[int, int]
    kernel: tuple[int, int]
    groups: int
    np_dtype: np.dtype
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    padding: tuple[tuple[int, int], ...] = ((0, 0), (0, 0))
    padding_mode: str = "zeros"

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return prod(self.kernel)

    @property
    def itemsize(self) -> int:
        """Bytes an element."""
        return self.np_dtype.itemsize


def _folded(p: TransposedProblem) -> _Image:
    sizes = ((prod(axes[:-1]), axes[-1]) for axes in (p.spatial, p.out_spatial, p.kernel))
    return _Image(p.n, p.c_in, p.c_out, *sizes, p.groups, p.np_dtype)


class _Split(TiledAlgorithm):
    """The tile family's way with one problem."""

    name = Phases.name

    def __init__(self, problem: TransposedProblem):
        self._problem = problem
        self._rows, self._line = Rows.of(problem), Line.of(problem)
        #: taps of each tile's table, by pattern of its row and of its line
        self._counts = np.outer(
            [len(pattern) for pattern in self._rows.patterns], [len(taps) for _, taps, _ in self._line.patterns]
        )
        met = int(self._counts[self._rows.pattern[:, None], self._line.pattern].sum())
        #: whether each tap's weights are read by one tile, as those of a single pixel are
        self._read_once = problem.n * met <= problem.taps

    @property
    def plan_bytes(self) -> int:
        """Bytes of tile list and tables."""
        return tile_list_bytes(self._tiles) + int(self._counts.sum()) * 8 * TAP

    @property
    def _tiles(self) -> int:
        return len(self._rows.out) * len(self._line.out)

    def cut(self, g, machine):
        read = max(MR * g["x_pixel"] // prod(self._problem.stride), 1)
        fields = {
            "lines": 1, "line": g["h_out"] * g["w_out"], "tiles_per_line": self._tiles,
            "tile_block": max(1, min(machine.l2 // _INPUT_PART // read, self._tiles)),
            "out_step": self._problem.stride[-1],
            **column_blocks(g, machine),
        }  # fmt: skip
        return Cut(fields, 0, self.plan_bytes)

    def tables(self, g, cut):
        """The tile list of one image and its tap tables, of which tiles of one pattern share one."""
        rows, line, counts = self._rows, self._line, self._counts
        taps = np.empty((int(counts.sum()), TAP), np.int64)
        starts = (np.cumsum(counts) - counts.ravel()).reshape(counts.shape)
        for i, row in enumerate(rows.patterns):
            for j, pattern in enumerate(line.patterns):
                records = taps[starts[i, j] : starts[i, j] + counts[i, j]]
                records[...] = self._records(g, row, *pattern).reshape(-1, TAP)
        tiles = np.empty((len(rows.out), len(line.out), TILE), np.int64)
        own = rows.pattern[:, None], line.pattern
        tiles[..., 0] = rows.out[:, None] * g["w_out"] + line.out
        tiles[..., 1] = line.height
        tiles[..., 2] = (rows.base[:, None] * g["w_in"] + line.base) * g["x_pixel"]
        tiles[..., 3] = taps.ctypes.data + starts[own] * 8 * TAP
        tiles[..., 4] = counts[own]
        tiles = tiles.reshape(-1, TILE)
        if g["column_block"] == 1:
            # a panel alone takes its part of the L2, so that it would come anew for each row of the input
            tiles = tiles[self._by_remainder()]
        return {"tiles": tiles, "taps": taps}

    def _by_remainder(self) -> np.ndarray:
        """The order of tiles in which those that read the same weights follow one another."""
        p = self._problem
        outputs = np.unravel_index(self._rows.out, p.out_spatial[:-1]) if len(p.out_spatial) > 1 else ()
        rows = np.zeros_like(self._rows.out)
        for output, step in zip(outputs, p.stride):
            rows = rows * step + output % step
        line = self._line.out % p.stride[-1]
        return np.argsort((rows[:, None] * p.stride[-1] + line).ravel(), kind="stable")

    def _records(self, g, row: np.ndarray, height: int, met: np.ndarray, base: int | None) -> np.ndarray:
        """Tap records of one pattern, (rows of the kernel, taps of a row, TAP)."""
        records = np.empty((len(row), len(met), TAP), np.int64)
        records[..., 0] = (row[:, :1] * g["k_w"] + met[:, 0]) * g["c_in"] * PANEL_ROW
        position = met[:, 1:] + np.arange(MR)
        records[..., 1:] = (row[:, 1, None, None] * g["w_in"] + position) * g["x_pixel"]
        if base is not None:
            outside = (base + position < 0) | (base + position >= g["w_in"])
            records[..., 1:][:, outside] = -1
        return records

    def gemm_cycles(self, g, machine):
        """Rows and tiles of a line are independent, so that sums over both are products."""
        target, rates = TARGETS[machine.isa], machine.rates
        lanes = target.lanes(g["itemsize"])
        height, lines = self._line.height, len(self._rows.out)
        line_taps = np.array([len(taps) for _, taps, _ in self._line.patterns])[self._line.pattern]
        row_taps = sum(len(self._rows.patterns[number]) for number in self._rows.pattern)
        full, rest = divmod(g["c_out"], target.vectors * lanes)
        cycles = 0.0
        for count, width in ((full, target.vectors), (1, -(-rest // lanes))) if rest else ((full, target.vectors),):
            step = np.maximum(np.maximum(height * width / cost.FMA, (height + width) / cost.LOADS), cost.LATENCY)
            sums = row_taps * float((line_taps * (step * g["c_in"] + rates.tap * height)).sum())
            cycles += count * (sums + lines * rates.row * float((height + 1).sum()))
        if rest % lanes:
            cycles += lines * cost.PARTIAL * float(height.sum())
        return g["n"] * g["groups"] * cycles

    def far_cycles(self, g, machine):
        """Each remainder reads weights of its own, and all its tiles follow one another where a panel outgrows the L2."""
        panels = g["groups"] * g["panels_per_group"]
        if self._read_once:
            return cost.far_cycles(g, machine, 0, 1, 1) + cost.in_order_cycles(panels * g["panel_bytes"], machine)
        return cost.far_cycles(g, machine, panels * g["panel_bytes"], -(-panels // g["column_block"]), 1)

    def extra_cycles(self, problem, g, machine):
        """Reading tile list and tables."""
        return g["n"] * g["groups"] * self.plan_bytes / machine.rates.copy_bytes


@lru_cache(maxsize=64)  # asked for by each step from refusal to plan
def _split(problem: TransposedProblem) -> _Split:
    return _Split(problem)
