"""Winograd for depthwise kernels of many rows: F(m, m) down the columns, piece by piece of the kernel.

There are no channels to sum over, by which transforms pay elsewhere, but each transformed pixel meets all pieces and columns of the
kernel.  31 rows are 8 pieces of 4, whose products take 7 / 16 of the multiplications.  Wins from some 13 x 13 taps on.

    cycles = inner + tiles of x (TILE + vectors input) + tiles of the result (TILE + vectors output)
           + kernels / KERNELS, where they come from beyond the L2, + what x and the result wait for (`cost.far_cycles`)

`inner` is the depthwise convolution of transformed pixels; `input` and `output` are those of `winograd_form`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, prod
from operator import itemgetter

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.depthwise import DepthwisePanels
from numbaconv.algorithms.geometry import fields_of, folded, geometry
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm, TiledPlan
from numbaconv.algorithms.transformed import pixel_tables, rounding
from numbaconv.algorithms.weights import Weights, pack_columns
from numbaconv.algorithms.winograd_blocks import WORKSPACE_LIMIT
from numbaconv.algorithms.winograd_cost import TILE, moving
from numbaconv.algorithms.winograd_form import Form, tiles_of
from numbaconv.algorithms.winograd_kernels import kernel_matrix
from numbaconv.codegen.target import TARGETS
from numbaconv.epilogue import IDENTITY, Epilogue
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.transforms import transform_address
from numbaconv.loops.winograd_depthwise import HEADER, winograd_depthwise_share
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.values import DTYPES
from numbaconv.workspace import rounded

#: The m of F(m, m) that there are, and how many pieces a kernel has at the least: F(3, 3) never won.
DEPTHWISE_SIZES = (4, 5)
_FEWEST_PIECES = 3
#: Bytes a cycle of kernels from beyond the L2, which few rows of tiles share; measured with 14 to 56 rows of 64 to 512 channels.
_KERNELS = 9.0
#: Bytes of transformed pixels and products that a chunk aims at.
_ROOM = 3 * WORKSPACE_LIMIT // 4


def least_of_sizes(problem: ConvProblem, machine: Machine) -> float:
    """Nothing is known of kernels that any size does; those are few."""
    if problem.groups == problem.c_in and _rows(folded(problem)) > (_FEWEST_PIECES - 1) * DEPTHWISE_SIZES[0]:
        return 0.0
    return inf


def _rows(problem: ConvProblem) -> int:
    """Rows of the kernel; that of a signal has one."""
    return ((1,) + problem.kernel)[-2]


class WinogradDepthwise(TiledAlgorithm):
    """Channels-last tensors; rows of the kernel neither strided nor dilated, its columns as they like."""

    name = "winograd_depthwise"
    local = False
    padding_modes = False
    repacked = False
    groupings = ("single", "channelwise")
    floors = (least_of_sizes,)
    head_bytes = HEADER
    share = winograd_depthwise_share
    workspace_limit = WORKSPACE_LIMIT

    def __init__(self, m: int):
        self.m = m

    @property
    def form(self) -> Form:
        """Down the columns only."""
        return tiles_of(((self.m, self.m), (1, 1)))

    def variant(self, problem):
        """The size of F and how many pieces."""
        return f"F({self.m}, {self.m}) x {-(-_rows(folded(problem)) // self.m)}"

    def rms_error(self, problem):
        """`transformed.rounding` of the sum over pieces and columns, amplified down."""
        rows, columns = folded(problem).kernel
        return rounding(problem, -(-rows // self.m) * columns, self.form.amplification)

    def unsupported(self, problem, epilogue, machine):
        if not problem.groups == problem.c_in == problem.c_out:
            return "groups have more than one channel"
        problem = folded(problem)
        if len(problem.spatial) != 2:
            return "the kernel is not one of images"
        if problem.stride[0] > 1 or problem.dilation[0] > 1:
            return "the kernel's rows are strided or dilated"
        if min(min(ends) for ends in problem.padding) < 0:
            return "its padding takes pixels away"
        if problem.kernel[0] <= (_FEWEST_PIECES - 1) * self.m:
            return f"the kernel has fewer than {_FEWEST_PIECES} pieces of {self.m} rows"
        return super().unsupported(problem, epilogue, machine)

    def cut(self, g, machine):
        m, positions = self.m, self.form.positions
        inner = _inner(g, m)
        (h_in, w_in), (h_out, w_out), pieces = inner.spatial, inner.out_spatial, inner.kernel[0]
        # an odd number of lines, so that pixels fall into different sets of the L1
        pitch = positions * PANEL_ROW + VECTOR_BYTES
        chunks = 1
        if (h_in * w_in + h_out * w_out) * pitch > _ROOM:
            # as many rows as fit with those that pieces reach beyond them
            fit = (_ROOM // pitch - (pieces - 1) * w_in) // (w_in + w_out)
            chunks = -(-h_out // max(fit, 1))
        rows = -(-h_out // chunks)
        data = min(rows + pieces - 1, h_in) * w_in * pitch
        sliding = _Positions(m).cut(geometry(inner, (pitch // g["itemsize"],) * 3), machine)
        inner_bytes = rounded(HEADER + 8 * (positions + 2 * m) + PANEL_ROW)
        data_offset = rounded(inner_bytes + _Positions.head_bytes + sliding.workspace_bytes)
        fields = {
            "tiles_h": h_out, "tiles_w": w_out, "panels_per_group": -(-g["groups"] * g["itemsize"] // PANEL_ROW),
            "chunks": chunks, "inner_bytes": inner_bytes, "data_offset": data_offset, "product_offset": data_offset + data,
            "data_pitch": pitch, "data_position": PANEL_ROW, "product_pitch": pitch, "product_position": PANEL_ROW,
        }  # fmt: skip
        end = fields["product_offset"] + rows * w_out * pitch + VECTOR_BYTES
        return Cut(fields, end - HEADER, 8 * (positions + 2 * m))

    def shares(self, g):
        return g["n"] * g["chunks"], g["panels_per_group"]

    def loop_fields(self, g, machine):
        """Tiles are columns of one pixel each, whatever the inner convolution makes of its columns."""
        return {
            "m_h": self.m, "n_h": self.form.positions, "m_w": 1, "n_w": 1, "dilation_w": 1, "stride_w": 1, "tile_step": 0,
        }  # fmt: skip

    def tables(self, g, cut):
        return pixel_tables(g)

    def operands(self, weights, g):
        return {"bias": weights.flat_bias}

    def functions(self, g, np_dtype):
        sizes = self.m, self.m, 1, 1
        return {
            f"{direction}_transform": transform_address(direction, sizes, np_dtype) for direction in ("input", "output")
        }

    def zeros(self, g):
        """What stands for pixels outside of the input and of the residual."""
        return PANEL_ROW

    def gemm_cycles(self, g, machine):
        """The inner convolution and the transforms."""
        inner = _inner(g, self.m)
        vectors = -(-g["groups"] * g["itemsize"] // VECTOR_BYTES)
        found = TILE * g["panels_per_group"]
        # neighbouring chunks transform the tiles that they share twice
        shared = (g["chunks"] - 1) * (inner.kernel[0] - 1) * g["w_in"]
        moved = (prod(inner.spatial) + shared) * (found + vectors * self.form.input_cycles)
        moved += prod(inner.out_spatial) * (found + vectors * self.form.output_cycles)
        return g["n"] * (_Positions(self.m).near_cycles(inner, machine) + moved * moving(machine))

    def extra_cycles(self, problem, g, machine):
        """Nothing."""
        return 0.0

    def far_cycles(self, g, machine):
        """Kernels come once a chunk."""
        nbytes = g["panels_per_group"] * self.form.positions * _inner(g, self.m).taps * PANEL_ROW
        kernels = g["n"] * g["chunks"] * nbytes / _KERNELS if nbytes > machine.l2 // 2 else 0.0
        return kernels + cost.far_cycles(g, machine, 0, 1, 1)

    def least_seconds(self, problem, machine):
        """As many products as there are pairs of rows of the result and of the kernel, m^2 of which share theirs; the way back."""
        g = fields_of(problem)
        products = self.form.positions / self.m**2 * cost.rows_met(g) * cost.columns_met(g) / cost.FMA
        pixel = products + moving(machine) * self.form.output_cycles / self.m
        vectors = g["groups"] * g["itemsize"] / TARGETS[machine.isa].vector_bytes
        return g["n"] * g["out_pixels"] * vectors * pixel / machine.rates.clock

    def plan(self, problem, weights, epilogue, machine):
        return TiledPlan(_WithInner(self.m, problem, weights, machine), problem, weights, epilogue, machine)


class _WithInner(WinogradDepthwise):
    """The same with the plan of the inner convolution."""

    def __init__(self, m: int, problem: ConvProblem, weights: Weights, machine: Machine):
        super().__init__(m)
        inner = _inner(fields_of(problem), m)
        self._plan = TiledPlan(_Positions(m), inner, weights, Epilogue(False, False, IDENTITY), machine)

    def functions(self, g, np_dtype):
        shares = self._plan.shares(1, (g["data_pitch"] // g["itemsize"],) * 3)
        return super().functions(g, np_dtype) | {"inner": shares.record, "inner_function": shares.function}


class _Positions(DepthwisePanels):
    """The inner convolution: positions of a panel of channels, panel after panel, are channels."""

    def __init__(self, m: int):
        self.m = m

    def operands(self, weights, g):
        bias = np.zeros(g["c_out"], weights.dtype)
        return {"panels": weights.form(_Pieces(self.m)), "bias": bias}


@dataclass(frozen=True)
class _Pieces:
    """Packs kernels for F(m, m) down their columns: G w of each piece, computed in float64 and rounded once."""

    m: int

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        *_, rows, columns = weight.shape
        width, pieces = PANEL_ROW // weight.itemsize, -(-rows // self.m)
        panels = -(-len(weight) // width)
        padded = np.zeros((panels * width, pieces * self.m, columns))
        padded[: len(weight), :rows] = weight.reshape(-1, rows, columns)
        # (panel, position, channel, piece, column)
        packed = np.einsum(
            "ij,pcqjw->picqw", kernel_matrix(self.m, self.m), padded.reshape(panels, width, pieces, self.m, columns)
        )
        return pack_columns(packed.reshape(-1, 1, pieces, columns).astype(weight.dtype), groups)


def _inner(g: dict[str, int], m: int) -> ConvProblem:
    """The depthwise convolution of an image's positions: rows are tiles of m, of which those are left out that lie in padding."""
    return _inner_problem(m, *_INNER_FIELDS(g))


#: What the inner convolution follows from.
_INNER_FIELDS = itemgetter(
    "itemsize",
    "groups",
    "h_in",
    "w_in",
    "h_out",
    "w_out",
    "k_h",
    "k_w",
    "stride_w",
    "dilation_w",
    "pad_top",
    "pad_left",
)


@lru_cache(maxsize=16)  # each part of an estimate asks for it
def _inner_problem(
    m, itemsize, groups, h_in, w_in, h_out, w_out, k_h, k_w, stride_w, dilation_w, pad_top, pad_left
) -> ConvProblem:
    positions, tiles, pieces = 2 * m - 1, -(-h_out // m), -(-k_h // m)
    # the first tile of the input that reaches the image, and the last one that begins in it and that outputs need
    first = max(-((2 * m - 2 - pad_top) // m), 0)
    last = min((h_in - 1 + pad_top) // m, tiles + pieces - 2)
    size = last + 1 - first
    right = (w_out - 1) * stride_w + (k_w - 1) * dilation_w + 1 - pad_left - w_in
    channels = -(-groups * itemsize // PANEL_ROW) * positions * PANEL_ROW // itemsize
    return ConvProblem(
        n=1,
        c_in=channels,
        c_out=channels,
        spatial=(size, w_in),
        kernel=(pieces, k_w),
        stride=(1, stride_w),
        dilation=(1, dilation_w),
        padding=((first, tiles + pieces - 1 - first - size), (pad_left, max(right, 0))),
        groups=channels,
        dtype=next(name for name, kind in DTYPES.items() if np.dtype(kind).itemsize == itemsize),
        layout="channels_last",
    )
