"""Products of float32 in three of their halves for kernels that one channel has to itself: rows of a kernel as banded matrices.

A matrix tile multiplies 16 x 16 results by 32 elements in 16 cycles, of which a kernel row of k fills k of 32: from some 11 taps in
a row on, three such products take less than multiply-adds do.  See `codegen.bands` for the operand, `loops.banded` for the loops.

    cycles = 3 matrix (m + 1) / 17 taps                               products: of registers of m rows, for each tap of a band
             (or LATENCY of each, where fewer than four sums wait for one another)
           + TILE tiles + STORED vectors of results                    sums that are finished
           + SPLIT vectors of x + LINE lines                           planes that are split
           + TRANSPOSE vectors of pixels                               channels-last tensors
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import shared_fields
from numbaconv.algorithms.matrix_tiles import MatrixTiles
from numbaconv.algorithms.split_panels import UNIT_BYTES, form_of
from numbaconv.algorithms.tiled import Cut
from numbaconv.codegen.amx import COLUMNS, DEPTH, PAIRS, ROW_BYTES, ROWS, TALL
from numbaconv.codegen.bands import PAIR_BYTES, TAP_BYTES
from numbaconv.codegen.halves import Halves
from numbaconv.codegen.scales import SCALE_BYTES
from numbaconv.loops.banded import BAND, TOGETHER, banded_planes_share, banded_share
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.split_panels import split_run
from numbaconv.workspace import rounded

#: Cycles between two products for the same sums.
_LATENCY = 52.0
#: Cycles of starting and finishing a tile; of a vector of results, of one of x, of a line that is split; to transpose a vector of
#: pixels.  Fitted.
_TILE, _STORED, _SPLIT, _LINE, _TRANSPOSE = 150.0, 4.0, 5.0, 40.0, 6.0
#: How much longer products take none of whose operands is shared.
_ALONE = 1.3
#: Strides along which every column of the right operand is the one before, moved by whole pairs.
_STRIDES = 1, 2


class Band(NamedTuple):
    """A stretch of output columns: the first one, how many, their registers; which elements of an input line they are made of, and
    the number of the kernel's element at which the first of these meets the first column."""

    column: int
    width: int
    registers: int
    start: int
    steps: int
    base: int


class Banded(MatrixTiles):
    """Channels are units of work, so that their weights come once each."""

    share = banded_share
    groupings = ("single", "channelwise")

    def __init__(self, halves: Halves):
        super().__init__(halves)
        self.name = f"{self.name}_banded"

    def variant(self, problem):
        return ""

    def unsupported(self, problem, epilogue, machine):
        if problem.groups != problem.c_in or problem.c_out != problem.c_in:
            return "channels do not have kernels to themselves"
        if problem.stride[-1] not in _STRIDES:
            return f"bands do not move by strides of {problem.stride[-1]}"
        if min(min(ends) for ends in problem.padding) < 0:
            return "its padding takes pixels away"
        g = self._fields(problem)
        if g["k_d"] > 1 or g["d_in"] > 1:
            return "the kernel has several slices"
        if self.reads_planes != (problem.layout == "channels_first"):
            return "planes are those of channels-first tensors, and pixels of channels-last ones"
        return super().unsupported(problem, epilogue, machine)

    def _fields(self, problem):
        return shared_fields(problem, self.reads_planes)

    def cut(self, g, machine):
        signal, stride, size = _is_signal(g), g["stride_w"], g["itemsize"]
        rows, registers = _rows(g), _registers(g)
        height = -(-rows // max(registers, 1)) or 1
        bands = tuple(_bands(g))
        first, last = _reach(g, bands)
        width = (last - first) // stride + 1
        if signal:
            row_pitch, step, offset = 0, 2 * COLUMNS * stride, 2 * g["pad_left"]
            extent = (registers * height - 1) * step + bands[0].steps * ROW_BYTES
            extent = max(extent, offset + 2 * g["w_in"])
        else:
            row_pitch = ROW_BYTES * -(-g["w_in"] // DEPTH)
            step, offset = g["stride_h"] * row_pitch, g["pad_top"] * row_pitch
            lines = (registers * height - 1) * g["stride_h"] + (g["k_h"] - 1) * g["dilation_h"] + 1
            extent = max(lines, g["pad_top"] + g["h_in"]) * row_pitch
        low = rounded(extent + ROW_BYTES)
        scales = 2 * low
        bands_offset = scales + SCALE_BYTES
        member_pitch = rounded(bands_offset + 2 * g["k_h"] * width * PAIR_BYTES + ROW_BYTES)
        form = _Packed(_reach_of(g), stride, last, self.halves)
        gang = TALL if registers == 1 else 1
        planes = 0 if self.reads_planes else TOGETHER * size * (g["in_pixels"] + 2 * g["out_pixels"]) + 2 * ROW_BYTES
        inner = rounded(gang * member_pitch)
        taps = sum(band.steps for band in bands) * len(_rows_met(g))
        fields = {
            "line": rows,
            "tile_height": height,
            "registers": 2 if any(band.registers == 2 for band in bands) else TALL,
            "row_pitch": row_pitch,
            "position_bytes": step,
            "data_offset": offset,
            "low": low,
            "scales": scales,
            "scaled": int(self.halves.scaled),
            "member_pitch": member_pitch,
            "gang": gang,
            "inner_bytes": rounded(self.head_bytes + inner),
            "band_count": len(bands),
            "band_step": -2 * PAIR_BYTES // stride,
            "band_low": width * PAIR_BYTES,
            "band_first": (last - form.begin) // stride * PAIR_BYTES,
            "band_pairs": form.pairs,
            "bands_offset": bands_offset,
            "panel_bytes": 2 * g["k_h"] * form.row_bytes,
            "out_row": COLUMNS * size if signal else g["w_out"] * size,
        }
        return Cut(fields, inner + planes, taps * TAP_BYTES + len(bands) * 8 * BAND)

    def tables(self, g, cut):
        g = g | cut.fields
        bands = tuple(_bands(g))
        _, last = _reach(g, bands)
        lines = np.array(_rows_met(g), np.int64)[:, None, None]
        each = []
        for band in bands:
            step = np.arange(band.steps, dtype=np.int64)[:, None]
            left = lines * g["dilation_h"] * g["row_pitch"] + 2 * band.start + step * ROW_BYTES
            right = (last - band.base - step * DEPTH) // g["stride_w"] * PAIR_BYTES + lines * 2 * g["band_low"]
            each.append(np.concatenate([left, right], axis=2).reshape(-1, 2))
        taps = np.ascontiguousarray(np.concatenate(each))
        entries = np.empty((len(bands), BAND), np.int64)
        address = taps.ctypes.data
        for entry, band, own in zip(entries, bands, each):
            entry[:] = address, len(own), band.registers, band.column, band.width
            address += own.nbytes
        return {"taps": taps, "bands": entries, "tables": self.configuration(g)}

    def operands(self, weights, g):
        _, last = _reach(g, tuple(_bands(g)))
        form = _Packed(_reach_of(g), g["stride_w"], last, self.halves, g["dilation_w"])
        bias = np.repeat(weights.flat_bias[0, : g["groups"], None], PANEL_ROW // g["itemsize"], axis=1)
        return self.packed(weights.form(form)) | {"bias": bias}

    def shares(self, g):
        """Images, and channels together."""
        return g["n"], -(-g["groups"] // TOGETHER)

    def gemm_cycles(self, g, machine):
        """Products, where fewer than four sums wait for each other, and what tiles and vectors of results cost besides."""
        registers, lines = _registers(g), len(_rows_met(g))
        product = machine.rates.matrix * (g["tile_height"] + 1) / (ROWS + 1)
        cycles = 0.0
        for band in _bands(g):
            taps = 3 * band.steps * lines
            sums = registers * band.registers
            tiles = -(-registers // g["registers"])
            # those of the last tile may be fewer than four
            products = _ALONE * sums * product if g["gang"] > 1 else max(sums * product, tiles * _LATENCY)
            cycles += taps * products + tiles * _TILE + _STORED * g["line"] * -(-band.width // COLUMNS)
        return g["n"] * g["groups"] * cycles

    def extra_cycles(self, problem, g, machine):
        """Planes are looked at and split, and channels-last ones transposed both ways."""
        vectors = -(-g["w_in"] // COLUMNS) * g["h_in"]
        plane = _SPLIT * vectors + _LINE * g["h_in"]
        if not self.reads_planes:
            plane += _TRANSPOSE * (g["in_pixels"] + g["out_pixels"]) / COLUMNS
        return g["n"] * g["groups"] * plane

    def far_cycles(self, g, machine):
        """Each operand comes once."""
        x, out = g["n"] * g["in_pixels"] * g["x_pixel"], g["n"] * g["out_pixels"] * g["out_pixel"]
        near = x + out + g["groups"] * g["panel_bytes"]
        return cost.waiting_cycles(near, near, machine) if near > machine.l2 / 2 else 0.0

    def least_seconds(self, problem, machine):
        """Full registers, each of which meets as many elements as the kernel has, or the line, and planes that are split."""
        g = self._fields(problem)
        taps = -(-min(g["k_w"], g["w_in"]) // DEPTH) * len(_rows_met(g))
        pixel = 3 * taps * machine.rates.matrix / (ROWS * COLUMNS) + _STORED / COLUMNS
        cycles = g["n"] * g["groups"] * g["out_pixels"] * pixel / 2
        return (cycles + self.extra_cycles(problem, g, machine)) / machine.rates.clock


class BandedPlanes(Banded):
    """The same on channels-first tensors, in place."""

    share = banded_planes_share
    reads_planes = True
    layouts = ("channels_first",)

    def variant(self, problem):
        return "planes"


@dataclass(frozen=True)
class _Packed:
    """Packs each row of a kernel of so many elements, zeros between dilated ones: high parts, then low ones, the last one first.

    With a stride of two, pairs of neighbours, with every second of which one begins, as `last` does.
    """

    reach: int
    stride: int
    last: int
    halves: Halves
    dilation: int = 1

    @property
    def begin(self) -> int:
        """The last element of the kernel with which a pair begins."""
        return self.reach - 1 - (self.last - self.reach + 1) % self.stride

    @property
    def pairs(self) -> int:
        """How many pairs have an element of the kernel, which the first one may end with."""
        return (self.begin + 1) // self.stride + 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of either part."""
        return 2 * (self.reach + 2) if self.stride == 1 else PAIR_BYTES * self.pairs

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        channels, _, *rows, k_w = weight.shape
        shape = channels, int(np.prod(rows))
        # a zero on either side
        spread = np.zeros((*shape, DEPTH * -(-(self.reach + 2) // DEPTH)), np.float32)
        spread[..., 1 : self.reach + 1 : self.dilation] = weight.reshape(*shape, k_w)
        form, scale = form_of(weight, self.halves, 2 * channels * shape[1] * self.row_bytes + ROW_BYTES)
        parts = np.empty((2, *spread.shape), np.uint16)
        split_run(parts.ctypes.data, parts[0].nbytes, spread.ctypes.data, spread.size, scale.ctypes.data)
        if self.stride == 1:
            packed = parts[..., self.reach + 1 :: -1]
        else:
            begins = np.arange(self.begin, -2, -self.stride) + 1
            packed = np.stack([parts[..., begins], parts[..., begins + 1]], axis=-1).reshape(*parts.shape[:-1], -1)
        packed = np.ascontiguousarray(packed.transpose(1, 2, 0, 3)).reshape(-1).view(np.uint8)
        to = form[UNIT_BYTES:]
        to[: packed.size], to[packed.size :] = packed, 0
        return form


def _is_signal(g: dict[str, int]) -> bool:
    """Whether there is one line only."""
    return g["h_in"] == g["k_h"] == g["h_out"] == 1 and g["pad_top"] == 0


def _rows(g: dict[str, int]) -> int:
    """Rows of the left operand: output lines, or stretches of a signal's results."""
    return -(-g["w_out"] // COLUMNS) if _is_signal(g) else g["h_out"]


def _registers(g: dict[str, int]) -> int:
    """Registers of rows."""
    return -(-_rows(g) // ROWS)


def _bands(g: dict[str, int]) -> Iterator[Band]:
    """Stretches of output columns: of a register, or of two that read the same stretch of an input line."""
    stride, reach, pad = g["stride_w"], _reach_of(g), g["pad_left"]
    if _is_signal(g):
        yield Band(0, COLUMNS, 1, 0, -(-((COLUMNS - 1) * stride + reach) // DEPTH), 0)
        return
    pitch, w_out = DEPTH * -(-g["w_in"] // DEPTH), g["w_out"]

    def band(column, columns):
        last = min(column + columns * COLUMNS, w_out) - 1
        # pairs begin with even elements
        begin = max(column * stride - pad, 0) & -2
        end = min(last * stride - pad + reach, g["w_in"])
        steps = max(-(-(end - begin) // DEPTH), 0)
        start = max(min(begin, pitch - DEPTH * steps), 0)
        return Band(column, last + 1 - column, columns, start, steps, start + pad - column * stride)

    column = 0
    while column < w_out:
        one = band(column, 1)
        if _registers(g) == 2 and column + COLUMNS < w_out:
            both, other = band(column, 2), band(column + COLUMNS, 1)
            if both.steps <= max(one.steps, other.steps):
                one = both
        yield one
        column += one.registers * COLUMNS


def _reach_of(g: dict[str, int]) -> int:
    """Elements that a row of the kernel reaches over."""
    return (g["k_w"] - 1) * g["dilation_w"] + 1


def _reach(g: dict[str, int], bands: tuple[Band, ...]) -> tuple[int, int]:
    """The first and the last element with which a pair begins that any tile reads or the kernel's row has: whole strides apart."""
    stride = g["stride_w"]
    last = max(band.base + DEPTH * max(band.steps - 1, 0) for band in bands) + 2 * (PAIRS - 1)
    last += max(-(-(_reach_of(g) - 1 - last) // stride), 0) * stride
    first = min(-1, *(band.base - stride * (COLUMNS * band.registers - 1) for band in bands))
    return last - -(-(last - first) // stride) * stride, last


def _rows_met(g: dict[str, int]) -> list[int]:
    """Rows of the kernel that any output line meets inside of the image."""
    last = (g["h_out"] - 1) * g["stride_h"]
    starts = ((row, row * g["dilation_h"] - g["pad_top"]) for row in range(g["k_h"]))
    return [row for row, start in starts if start < g["h_in"] and start + last >= 0]
