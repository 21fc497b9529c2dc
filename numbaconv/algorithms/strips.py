"""The channels-first side of depthwise convolution: lanes are neighbouring pixels, and planes are padded strip by strip.

Nothing is transposed.  Wins where rows fill vectors; small kernels are bound by filling strips and by unaligned loads.

    cycles = planes x (rows copied ROW + vectors copied COPY
                       + tiles x (START + runs RUN_START + max(K m v / FMA, K LATENCY, loads LOAD)))
           + what comes from beyond the L2 (`cost.far_cycles`)

K = taps that meet the input, m rows and v vectors a tile.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import WORKSPACE_LIMIT, shared_fields, tile_list_bytes
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.codegen.sliding import RUN
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import NV, TILE, VECTOR_BYTES, core_address
from numbaconv.loops.sliding import CHUNK
from numbaconv.loops.strips import PLANE_BYTES, ROWS, WIDE_ROWS, strips_core, strips_share
from numbaconv.workspace import rounded

#: The part of the L1 for strips, and the most planes whose strips are filled at once.
_STRIP_PART, _PLANES = 2, 8
#: Cycles to copy a row, and each of its vectors; to load one vector of pixels; to start a tile, a run of taps.
ROW, COPY, LOAD, START, RUN_START = 4.0, 2.0, 1.0, 60.0, 4.0


class Strips(TiledAlgorithm):
    """Tiles are a few rows high; all kernel columns of a phase of kernel rows are runs down the rows of a strip."""

    name = "depthwise"
    head_bytes = PLANE_BYTES
    share = strips_share
    reads_planes = True
    layouts = ("channels_first",)

    def core(self, dtype):
        return core_address(strips_core, dtype)

    def operands(self, weights, g):
        return {"panels": weights.rows}

    def native(self, problem):
        """Channels-first images, where the strip under one row of tiles fits the workspace."""
        if problem.layout != "channels_first":
            return False
        g = shared_fields(problem, planes=True)
        if g["d_in"] > 1 or g["d_out"] > 1:
            return False
        return strip_bytes(phase_fields(g), ROWS) <= WORKSPACE_LIMIT // 2

    def cut(self, g, machine):
        fields = phase_fields(g)
        one_vector = g["w_out"] * g["itemsize"] <= VECTOR_BYTES
        tiles = -(-g["h_out"] // (ROWS if one_vector else WIDE_ROWS))
        longest = -(-g["h_out"] // tiles)
        room = machine.l1 // _STRIP_PART
        block = tiles
        while block > 1 and strip_bytes(fields, block * longest) > room:
            block -= 1
        nbytes = strip_bytes(fields, min(block * longest, g["h_out"]))
        strips = max(1, min(_PLANES, room // nbytes))
        weights = row_pitch((g["k_h"] * g["k_w"] + 1) * g["itemsize"])
        fields |= {
            "lines": tiles, "tile_block": block, "tiles_per_line": -(-tiles // block), "strips": strips,
            "rows_pitch": nbytes // fields["phases_h"], "strip_pitch": nbytes,
            "patch_pitch": weights, "panel_bytes": weights,
        }  # fmt: skip
        # vectors at the end of the last strip's last row reach beyond it
        workspace = strips * nbytes + NV * VECTOR_BYTES
        runs = g["k_h"] * g["k_w"] * 8 * RUN
        return Cut(fields, workspace, tile_list_bytes(tiles) + runs * tiles)

    def tables(self, g, cut):
        tiles, block = g["lines"], g["tile_block"]
        starts = np.arange(tiles + 1) * g["h_out"] // tiles
        made: dict[tuple, tuple[int, int]] = {}
        records: list[np.ndarray] = []
        tile_list = np.empty((tiles, TILE), np.int64)
        for number, (row, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist())):
            meeting = _meeting(g, row, end)
            if meeting not in made:
                runs = _runs(g, meeting)
                made[meeting] = sum(map(len, records)), len(runs)
                records.append(runs)
            begin, count = made[meeting]
            first = starts[number - number % block]
            tile_list[number] = row, end - row, (row - first) * g["row_pitch"], begin, count
        runs = np.concatenate(records)
        tile_list[:, 3] = runs.ctypes.data + tile_list[:, 3] * 8 * RUN
        return {"tiles": tile_list, "taps": runs}

    def shares(self, g):
        """Planes, strips of a plane."""
        return g["n"] * g["groups"], g["tiles_per_line"]

    def zeros(self, g):
        """None: strips hold the padding, rows of weights the bias."""
        return 0

    def gemm_cycles(self, g, machine):
        lanes = TARGETS[machine.isa].lanes(g["itemsize"])
        height = g["h_out"] / g["lines"]
        # rows and columns of the kernel that meet the input at all
        rows = min(g["k_h"], (g["h_in"] + height - 2) / g["dilation_h"] + 1)
        columns = min(g["k_w"], (g["w_in"] + g["w_out"] - 2) // g["dilation_w"] + 1)
        taps = rows * columns
        runs = columns * g["phases_h"] if _apart(g["stride_h"], g["dilation_h"]) == 1 else taps
        loads = LOAD * (runs * (height - 1) + taps)
        vectors = -(-g["w_out"] // lanes)
        widths = (vectors // NV, NV), (vectors % NV, 1)
        tile = sum(
            count * (START + runs * RUN_START + max(taps * height * width / cost.FMA, taps * cost.LATENCY, loads * width))
            for count, width in widths
            if count
        )  # fmt: skip
        return g["n"] * g["groups"] * g["lines"] * tile

    def far_cycles(self, g, machine):
        """Planes are read and written once; their weights are a few elements each."""
        return cost.far_cycles(g | {"x_pixel": g["groups"] * g["itemsize"]}, machine, 0, 1, 1)

    def extra_cycles(self, problem, g, machine):
        """Filling strips, in which neighbours repeat the rows that their kernels share."""
        rows = g["phases_h"] * (g["h_out"] + g["tiles_per_line"] * g["reach_h"])
        lanes = TARGETS[machine.isa].lanes(g["itemsize"]) if g["stride_w"] < 3 else 1
        return g["n"] * g["groups"] * rows * g["phases"] * (ROW + COPY * -(-g["positions"] // lanes))


def phase_fields(g: dict[str, int]) -> dict[str, int]:
    """Fields of the `CONV` record that take stride and dilation apart along both axes, and the pitches of a strip."""
    hop_h, reach_h = _reach(g["k_h"], g["stride_h"], g["dilation_h"])
    hop, reach = _reach(g["k_w"], g["stride_w"], g["dilation_w"])
    phases = min(hop, g["k_w"])
    positions = g["w_out"] + reach
    phase_pitch = rounded(positions * g["itemsize"])
    return {
        "phases_h": min(hop_h, g["k_h"]), "hop_h": hop_h, "reach_h": reach_h,
        "phases": phases, "hop": hop, "positions": positions,
        "phase_pitch": phase_pitch, "row_pitch": row_pitch(phases * phase_pitch),
    }  # fmt: skip


def _apart(stride: int, dilation: int) -> int:
    """Positions from one tap of a phase to the next along one axis."""
    return dilation // gcd(stride, dilation)


def _reach(kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Along one axis: taps from one of a phase to its next, and how many positions beyond the outputs they reach."""
    hop = stride // gcd(stride, dilation)
    return hop, (kernel - 1) // hop * _apart(stride, dilation)


def strip_bytes(fields: dict[str, int], lines: int) -> int:
    """Bytes of the strip under so many output rows, for what `phase_fields` found."""
    return fields["phases_h"] * (lines + fields["reach_h"]) * fields["row_pitch"]


def _meets(g: dict[str, int], axis: str, phase: int, first: int, last: int, taps: int) -> tuple[int, int]:
    """Which of a phase's taps, first and beyond the last, meet the input at any of the outputs `first`..`last`."""
    stride, size = g[f"stride_{axis}"], g[f"{axis}_in"]
    apart = _apart(stride, g[f"dilation_{axis}"])
    start = phase * g[f"dilation_{axis}"] - g["pad_top" if axis == "h" else "pad_left"]
    # positions that are inside of the input
    low, high = -(start // stride), (size - 1 - start) // stride
    begin = max(0, -(-(low - last + 1) // apart))
    return begin, max(begin, min(taps, (high - first) // apart + 1))


def _meeting(g: dict[str, int], first: int, last: int) -> tuple:
    """The taps of each phase of kernel rows that meet the input from output rows `first`..`last`."""
    taps = (-(-(g["k_h"] - phase) // g["hop_h"]) for phase in range(g["phases_h"]))
    return tuple(_meets(g, "h", phase, first, last, count) for phase, count in enumerate(taps))


def _runs(g: dict[str, int], meeting: tuple) -> np.ndarray:
    """Run records of a tile whose first row is the strip's first; see `loops.strips`."""
    size = g["itemsize"]
    apart_h, apart_w = (_apart(g[f"stride_{axis}"], g[f"dilation_{axis}"]) for axis in "hw")
    records = []
    for k_w in range(g["k_w"]):
        number, phase_w = divmod(k_w, g["hop"])
        begin, end = _meets(g, "w", phase_w, 0, g["w_out"], number + 1)
        if not begin <= number < end:
            continue
        column = phase_w * g["phase_pitch"] + number * apart_w * size
        for phase_h, (first, last) in enumerate(meeting):
            # taps that do not slide are runs of their own
            length = last - first if apart_h == 1 else 1
            for tap in range(first, last, max(length, 1)):
                offset = phase_h * g["rows_pitch"] + tap * apart_h * g["row_pitch"] + column
                weight = ((phase_h + tap * g["hop_h"]) * g["k_w"] + k_w) * size
                # all positions are inside of the strip
                records.append((offset, weight, length, length // CHUNK * CHUNK, 0, 0))
    return np.array(records, np.int64).reshape(-1, RUN)
