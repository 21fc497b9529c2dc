"""The transforms of Winograd: where the pixels of a tile lie, and the functions that take a block of tiles there and back.

Tiles are numbered over all images; where the kernel is dilated they come in `dilation` interleaved sets, and where it is strided
each of the stride's phases is a set of channels of its own.  Pixels are reached through tables of addresses, which is all that
there is to padding, dilation and edges.  Where a kernel is too wide for any F, the tiles of a line take the place of slices.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import types

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import itemsize, put
from numbaconv.codegen.records import block_record, conv_record
from numbaconv.codegen.winograd import input_transform, kernel_transform, output_transform
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.tables import source


@njit
def slots_of(conv, slices):
    """How many input slices lie under so many neighbouring output slices."""
    return (slices - 1) * conv.stride_d + (conv.k_d - 1) * conv.dilation_d + 1


@njit
def first_pixel(number, tiles, m, dilation):
    """First output row (or column) of tile row `number` of `tiles`, which are `dilation` interleaved sets."""
    offset, inside = divmod(number, tiles // dilation)
    return offset + inside * m * dilation


@njit
def tile_corner(conv, number):
    """(image, first output row, first output column) of a tile."""
    image, rest = divmod(number, conv.tiles_h * conv.tiles_w)
    row, column = divmod(rest, conv.tiles_w)
    return (
        image,
        first_pixel(row, conv.tiles_h, conv.m_h, conv.dilation_h),
        first_pixel(column, conv.tiles_w, conv.m_w, conv.dilation_w),
    )


@njit
def input_pixels(conv, block, image, d, h, w):
    """(base, table) of a tile whose first input pixel is (h, w) of slice d; beyond it stands what the padding mode says."""
    step_h, step_w = conv.stride_h * conv.dilation_h, conv.stride_w * conv.dilation_w
    here = block.x + image * conv.x_image + d * conv.h_in * conv.w_in * conv.x_pixel + block.channel * conv.itemsize
    h_end, w_end = h + (conv.n_h - 1) * step_h, w + (conv.n_w - 1) * step_w
    if h >= 0 and w >= 0 and h_end < conv.h_in and w_end < conv.w_in:
        return here + (h * conv.w_in + w) * conv.x_pixel, conv.input_table
    for i in range(conv.n_h):
        row = source(conv.padding_mode, h + i * step_h, conv.h_in)
        for j in range(conv.n_w):
            column = source(conv.padding_mode, w + j * step_w, conv.w_in)
            at = conv.zeros
            if row >= 0 and column >= 0:
                at = here + (row * conv.w_in + column) * conv.x_pixel
            put(block.table, i * conv.n_w + j, at)
    return 0, block.table


@njit
def output_pixels(conv, base, pixel, table, interior, outside, image, d, h, w):
    """(base, table) of a tile of an output-shaped tensor with `pixel` bytes a pixel; `outside` stands for pixels beyond it."""
    here = base + (image * conv.image_step + d * conv.slice_step) * pixel
    if h + (conv.m_h - 1) * conv.dilation_h < conv.h_out and w + (conv.m_w - 1) * conv.dilation_w < conv.w_out:
        return here + (h * conv.line_step + w * conv.column_step) * pixel, interior
    for i in range(conv.m_h):
        row = h + i * conv.dilation_h
        for j in range(conv.m_w):
            column = w + j * conv.dilation_w
            at = outside
            if row < conv.h_out and column < conv.w_out:
                at = here + (row * conv.line_step + column * conv.column_step) * pixel
            put(table, i * conv.m_w + j, at)
    return 0, table


def _input(m_h: int, r_h: int, m_w: int, r_w: int):
    """The function that transforms a block's pixels; the sizes of F are constants of the compiled code.

    Slices that are padding with zeros are left as they are, since no product reads them.
    """

    def transform(block_address, alpha, beta):
        block = block_record(block_address)
        conv = conv_record(block.conv)
        size = itemsize(alpha)
        for slot in range(block.first_slot, slots_of(conv, block.slices)):
            d = source(conv.padding_mode, block.slice * conv.stride_d - conv.pad_front + slot, conv.d_in)
            if d < 0:
                continue
            across = (block.slice + slot) * conv.tile_step * conv.stride_w
            if conv.tile_step != 0:
                d = 0
            for i in range(block.count):
                image, h_out, w_out = tile_corner(conv, block.first + i)
                h, w = h_out * conv.stride_h - conv.pad_top, w_out * conv.stride_w - conv.pad_left + across
                data = block.data + (slot * block.count + i) * conv.data_pitch
                # Phases of the stride follow one another as sets of channels.
                for phase in range(conv.stride_h * conv.stride_w):
                    down, right = divmod(phase, conv.stride_w)
                    pixels, table = input_pixels(conv, block, image, d, h + down, w + right)
                    input_transform(m_h, r_h, m_w, r_w, pixels, table, data, conv.data_position, block.channels, alpha)
                    data += conv.c_in * size

    return transform


def _output(m_h: int, r_h: int, m_w: int, r_w: int):
    """The function that transforms a block's products and finishes the pixels of the result."""

    def transform(block_address, alpha, beta):
        block = block_record(block_address)
        conv = conv_record(block.conv)
        size = itemsize(alpha)
        residual, no_residual = block.residual, np.int64(block.residual == 0)
        bias = conv.bias + block.channel * size
        for row in range(block.slices * block.count):
            image, h, w = tile_corner(conv, block.first + row % block.count)
            d = block.slice + row // block.count
            if conv.tile_step != 0:
                w += d * conv.tile_step
                d = 0
            # interleaved sets are of unequal size, so that some tiles lie wholly beyond the result
            if h >= conv.h_out or w >= conv.w_out:
                continue
            out, table = output_pixels(
                conv, block.out, conv.out_pixel, block.table, conv.output_table, block.spare, image, d, h, w
            )
            added, residual_table = residual, conv.residual_table
            if no_residual == 0:
                added, residual_table = output_pixels(
                    conv,
                    residual,
                    conv.residual_pixel,
                    block.residual_table,
                    conv.residual_table,
                    conv.zeros,
                    image,
                    d,
                    h,
                    w,
                )
            output_transform(
                m_h, r_h, m_w, r_w,
                block.products + row * conv.product_pitch, conv.product_position,
                out, table, added, residual_table, no_residual,
                bias, 0, block.channels, conv.activation, alpha, beta,
            )  # fmt: skip

    return transform


def _kernel(m_h: int, r_h: int, m_w: int, r_w: int):
    """The function that transforms a panel's kernels for some channels of a phase: (positions, slices, channels, NR)."""

    def transform(block_address, alpha, beta):
        block = block_record(block_address)
        conv = conv_record(block.conv)
        down, right = divmod(block.phase, conv.stride_w)
        nbytes = conv.c_in * PANEL_ROW
        # What is summed are slices, or pieces of rows.
        for tap in range(conv.k_d):
            piece = 0 if conv.tile_step == 0 else tap
            for i in range(r_h):
                row = i * conv.stride_h + down
                for j in range(r_w):
                    column = (piece * r_w + j) * conv.stride_w + right
                    at = conv.zeros
                    if row < conv.k_h and column < conv.k_w:
                        at = block.taps + (((tap - piece) * conv.k_h + row) * conv.k_w + column) * nbytes
                    put(block.table, i * r_w + j, at)
            kernels = block.kernels + tap * conv.kernel_block * PANEL_ROW
            count = block.count_k * (PANEL_ROW // itemsize(alpha))
            kernel_transform(m_h, r_h, m_w, r_w, 0, block.table, kernels, conv.kernel_position, count, alpha)

    return transform


@functools.cache
def _transforms(m_h: int, r_h: int, m_w: int, r_w: int) -> dict[str, NativeFunction]:
    sizes = m_h, r_h, m_w, r_w
    makers = {"input": _input, "kernel": _kernel, "output": _output}
    return {
        direction: NativeFunction(make(*sizes), f"winograd_{direction}_{m_h}x{m_w}_{r_h}x{r_w}")
        for direction, make in makers.items()
    }


def transform_address(direction: str, sizes: tuple[int, int, int, int], np_dtype) -> int:
    """Entry point of the "input"'s, the "kernel"'s or the "output"'s transform for F(m_h, r_h) by F(m_w, r_w)."""
    scalar = numba.from_dtype(np_dtype)
    return _transforms(*sizes)[direction].address(types.void(types.intp, scalar, scalar))
