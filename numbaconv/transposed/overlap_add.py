"""Transposed convolution as a GEMM on the engine's register tiles and an overlap-add in the cache.

One block of input pixels at a time becomes columns, c_out * k_h * k_w numbers a pixel, which are added where they overlap and
written once.  The GEMM takes 2 c_in c_out k_h k_w operations a pixel.  What has to move is the input and the output,
c_in + c_out * stride**2 numbers a pixel, since columns stay in the L2.  Wins with few output channels: lanes are pixels, in either
layout, so a text detector's layers (24 channels, 2x2, stride 2) fill vectors all the same.
"""

from __future__ import annotations

from math import prod

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.addressed import AddressedPlan
from numbaconv.algorithms.base import Cost, DirectSums
from numbaconv.algorithms.geometry import affine_tap
from numbaconv.algorithms.weights import row_pitch
from numbaconv.codegen.overlap import OVERLAP, RUN
from numbaconv.codegen.target import TARGETS
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.loops.gemm import MR, PANEL_ROW, TILE, VECTOR_BYTES, core_address, gemm_core
from numbaconv.loops.overlap_add import overlap_share
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.loops.walk import CALL_BYTES
from numbaconv.machine import Machine
from numbaconv.problem import LAYOUTS
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.weights import TransposedWeights
from numbaconv.workspace import rounded

#: Rows of weights whose columns are made at once, as long as that leaves one channel.
_CHUNK_ROWS = 8 * MR
#: The part of the L2 that packed pixels and columns may take where blocks share no input, and where they do: larger blocks
#: compute fewer columns twice, smaller ones give more threads work.
_APART, _SHARING = 8, 2
#: How many times that part one row of blocks may take before rows are cut, too, as those of long signals are.
_WIDE = 8
#: Cycles of one sum: to start it, to start one of its runs, a vector of a run, a vector that is written, and an element that is
#: written alone, since its neighbours in memory are of another chunk of channels.  Measured.
_SUM, _RUN_START, _ADD, _WRITE, _SCATTER = 40.0, 12.0, 1.0, 3.0, 20.0
#: Strides up to here may pass the output's width; each remainder has its own sums.
MANY_REMAINDERS = 4096


class OverlapAdd(DirectSums):
    """The way of columns; images only, a signal being one of height 1."""

    name = "overlap_add"
    layouts = LAYOUTS

    def unsupported(self, problem: TransposedProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this way is refused, or None."""
        if len(problem.spatial) == 3:
            return "planes of a volume are not added"
        if epilogue.residual:
            return "a residual is not added"
        if problem.stride[-1] > max(MANY_REMAINDERS, 2 * problem.out_spatial[-1]):
            return f"a stride of more than {MANY_REMAINDERS} and twice the output's width"
        return None

    def estimate(self, problem: TransposedProblem, machine: Machine) -> Cost:
        """What running would cost; pure."""
        f = _fields(problem, machine)
        return Cost(_cycles(f, machine) / machine.rates.clock, _workspace(f)[1])

    def plan(self, problem: TransposedProblem, weights: TransposedWeights, epilogue: Epilogue, machine: Machine):
        """Pack the weights, unless another plan has."""
        return _Plan(problem, weights, epilogue.activation, machine)


class _Plan(AddressedPlan):
    """A problem made ready; immutable."""

    algorithm = OverlapAdd.name

    def __init__(self, problem: TransposedProblem, weights: TransposedWeights, activation: Activation, on: Machine):
        fields = _fields(problem, on)
        workspace, self.workspace_bytes = _workspace(fields)
        self._weight, self._bias = weights.rows, weights.bias
        fields |= workspace
        fields["weight_pitch"] = self._weight.strides[1]
        # a row of zeros stands for the bias of columns
        self._zeros = np.zeros(fields["column_pitch"], np.uint8)
        self._tap = affine_tap(fields["weight_pitch"])
        fields |= {
            "weight": self._weight.ctypes.data,
            "tap": self._tap.ctypes.data,
            "bias": self._bias.ctypes.data,
            "zeros": self._zeros.ctypes.data,
            "activation": activation.code,
            "core": core_address(gemm_core, problem.np_dtype),
        }
        self._record = np.zeros((), OVERLAP)
        for name in OVERLAP.names:
            self._record[name] = fields[name]
        self._address = self._record.ctypes.data
        self._items = _items(fields)
        # the type of these scalars selects the element type of the compiled loops
        scalar = problem.np_dtype.type
        self._scalars = scalar(activation.alpha), scalar(activation.beta)
        self._function = share_address(overlap_share, problem.np_dtype)

    def scratch_bytes(self, threads: int) -> int:
        """Bytes of workspace that `run` needs on so many threads."""
        return self.workspace_bytes * threads

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses; there is no residual."""
        if self._items:
            run_shares(self.shares(threads), x, out, 0, workspace)

    def shares(self, threads: int, pitches: tuple[int, int, int] | None = None) -> Shares:
        """The work cut for so many threads; tensors have no gaps, whatever `pitches` say."""
        parts = min(threads, self._items)
        return Shares(self._function, parts, 1, self._address, self.workspace_bytes, *self._scalars, self)


def _fields(problem: TransposedProblem, machine: Machine) -> dict[str, int]:
    """Fields of the `OVERLAP` record that follow from the problem, and how it is cut."""
    sizes = _sizes(problem)
    return sizes | _blocks(sizes, machine)


def _items(f: dict[str, int]) -> int:
    """Pieces of work that threads may share out."""
    return f["n"] * prod(f[name] for name in ("blocks_h", "blocks_w", "groups", "chunks"))


def _sizes(p: TransposedProblem) -> dict[str, int]:
    """Fields of the `OVERLAP` record that follow from the shapes alone; channels are those of one group."""

    def two(values, filler=1):
        # a signal is an image of height 1
        return (filler,) * (2 - len(values)) + tuple(values)

    spatial, out_spatial, (k_h, k_w) = two(p.spatial), two(p.out_spatial), two(p.kernel)
    (pad_top, _), (pad_left, _) = two(p.padding, (0, 0))
    # a single row meets no other: then the stride means nothing
    stride_h, stride_w = (step if size > 1 else 1 for size, step in zip(spatial, two(p.stride)))
    dilation_h, dilation_w = two(p.dilation)
    fields = {
        "n": p.n,
        "h_in": spatial[0],
        "w_in": spatial[1],
        "c_in": p.c_in // p.groups,
        "h_out": out_spatial[0],
        "w_out": out_spatial[1],
        "c_out": p.c_out // p.groups,
        "groups": p.groups,
        "k_h": k_h,
        "k_w": k_w,
        "stride_h": stride_h,
        "stride_w": stride_w,
        "dilation_h": dilation_h,
        "dilation_w": dilation_w,
        "pad_top": pad_top,
        "pad_left": pad_left,
        "reach_h": dilation_h * (k_h - 1) // stride_h,
        "reach_w": dilation_w * (k_w - 1) // stride_w,
        "itemsize": p.itemsize,
    }
    for name, channels, (h, w) in (("x", p.c_in, spatial), ("out", p.c_out, out_spatial)):
        # one channel lies the same way in both layouts
        first = p.layout == "channels_first" or channels == 1
        fields |= {
            f"{name}_image": channels * h * w * p.itemsize,
            f"{name}_channel": (h * w if first else 1) * p.itemsize,
            f"{name}_row": (w if first else w * channels) * p.itemsize,
            f"{name}_pixel": (1 if first else channels) * p.itemsize,
        }
    return fields


def _phases(f: dict[str, int]) -> tuple[int, int]:
    """Outputs with one remainder by the stride, rows and columns."""
    return tuple(
        -(-(f[pad] + f[out]) // f[stride]) - f[pad] // f[stride]
        for pad, out, stride in (("pad_top", "h_out", "stride_h"), ("pad_left", "w_out", "stride_w"))
    )


def _blocks(f: dict[str, int], on: Machine) -> dict[str, int]:
    """How many blocks the rows and columns and how many chunks the channels are cut into; pure, whatever the threads."""
    rows, columns = _phases(f)
    taps = f["k_h"] * f["k_w"]
    chunk = min(max(_CHUNK_ROWS // taps, 1), f["c_out"])
    part = _SHARING if f["reach_h"] else _APART
    pixel_bytes = (f["c_in"] + chunk * taps) * f["itemsize"]
    pixels = max(on.l2 // part // pixel_bytes, PANEL_ROW // f["itemsize"])
    # a block that is lower than twice its reach would compute most columns again
    height, width = max(pixels // f["w_in"] - f["reach_h"], 2 * f["reach_h"], 1), columns
    if f["w_in"] * (f["reach_h"] + 1) > _WIDE * pixels:
        height = max(2 * f["reach_h"], 1)
        room = pixels // (height + f["reach_h"])
        width = max(room - f["reach_w"], 2 * f["reach_w"], VECTOR_BYTES // f["itemsize"])
    return {
        "blocks_h": -(-rows // height),
        "blocks_w": -(-columns // width),
        "chunks": -(-f["c_out"] // chunk),
    }


def _workspace(f: dict[str, int]) -> tuple[dict[str, int], int]:
    """Offsets and pitches of a thread's workspace, and its size, for the largest block and chunk."""
    taps, chunk = f["k_h"] * f["k_w"], -(-f["c_out"] // f["chunks"])
    rows, columns = (-(-total // f[name]) for total, name in zip(_phases(f), ("blocks_h", "blocks_w")))
    pixels = min(rows + f["reach_h"], f["h_in"]) * min(columns + f["reach_w"], f["w_in"])
    panels = -(-pixels * f["itemsize"] // PANEL_ROW)
    fields = {
        "column_pitch": row_pitch(panels * PANEL_ROW),
        "sum_pitch": row_pitch(columns * f["itemsize"]),
    }
    together = 1 if f["out_pixel"] == f["itemsize"] else chunk
    at = CALL_BYTES
    for name, nbytes in (
        ("at_tiles", -(-chunk * taps // MR) * 8 * TILE),
        ("at_runs", 8 * (f["stride_w"] + 1 + taps * RUN)),
        ("at_panels", panels * f["c_in"] * PANEL_ROW),
        ("at_columns", chunk * taps * fields["column_pitch"]),
        ("at_sums", together * f["stride_w"] * fields["sum_pitch"]),
    ):
        at = rounded(at)
        fields[name] = at
        at += nbytes
    return fields, rounded(at)


def _cycles(f: dict[str, int], machine: Machine) -> float:
    """Columns by the GEMM core, their sums, and the pixels packed once for each block."""
    target, rates, size = TARGETS[machine.isa], machine.rates, f["itemsize"]
    lanes = target.lanes(size)
    rows, columns = (-(-total // f[name]) for total, name in zip(_phases(f), ("blocks_h", "blocks_w")))
    pixels = min(rows + f["reach_h"], f["h_in"]) * min(columns + f["reach_w"], f["w_in"])
    taps, chunk = f["k_h"] * f["k_w"], -(-f["c_out"] // f["chunks"])
    tiles = -(-chunk * taps // target.rows)
    panels = -(-pixels // target.columns(size))
    tile = cost.tile_cycles(f["c_in"], chunk * taps / tiles, target.vectors, 1, rates)
    items = _items(f)
    products = items * tiles * panels * tile
    # a sum reads each column once and is written once
    row_sums = f["n"] * f["groups"] * f["c_out"] * f["h_out"] * min(f["stride_w"], f["w_out"])
    met = taps / (f["stride_h"] * f["stride_w"])
    vectors = -(-(f["w_out"] // f["stride_w"] + 1) // lanes)
    scattered = lanes * _SCATTER if f["chunks"] > 1 and f["out_pixel"] > size else _WRITE
    sums = row_sums * (_SUM + met * (_RUN_START + vectors * _ADD) + vectors * scattered)
    packed = items / f["chunks"] * pixels * f["c_in"] * size / rates.transpose_bytes
    weights = f["groups"] * f["c_out"] * taps * f["c_in"] * size
    far = cost.MISSED * weights * (cost.BEYOND_L3 if weights > cost.L3_SHARE else 1.0) / rates.far_bytes
    return products + sums + packed + (far if weights > machine.l2 // 2 else 0.0)
