"""Winograd: transform a block of tiles, multiply position by position on the GEMM core, transform back.

A block's transformed pixels (positions, tiles, channels) and products (positions, tiles, columns) stay in the L2.  Tiles are
numbered over all images; where the kernel is dilated they come in `dilation` interleaved sets, and where it is strided each of the
stride's phases is a set of channels of its own.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import types

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import (
    BLOCK,
    block_record,
    call_core,
    call_record,
    conv_record,
    infinity,
    itemsize,
    put,
)
from numbaconv.codegen.winograd import input_transform, output_transform
from numbaconv.loops.gemm import MR, NV, PANEL_ROW, TILE, VECTOR_BYTES
from numbaconv.loops.tables import source
from numbaconv.loops.walk import CALL_BYTES, share

#: What a thread's workspace starts with: a call record and a block record.
HEADER = CALL_BYTES + BLOCK.itemsize


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
def input_pixels(conv, block, image, h, w):
    """(base, table) of a tile whose first input pixel is (h, w); beyond the image stands what the padding mode says."""
    step_h, step_w = conv.stride_h * conv.dilation_h, conv.stride_w * conv.dilation_w
    here = block.x + image * conv.x_image + block.channel * conv.itemsize
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
def output_pixels(conv, base, pixel, table, interior, outside, image, h, w):
    """(base, table) of a tile of an output-shaped tensor with `pixel` bytes a pixel; `outside` stands for pixels beyond it."""
    here = base + image * conv.h_out * conv.w_out * pixel
    if h + (conv.m_h - 1) * conv.dilation_h < conv.h_out and w + (conv.m_w - 1) * conv.dilation_w < conv.w_out:
        return here + (h * conv.w_out + w) * pixel, interior
    for i in range(conv.m_h):
        row = h + i * conv.dilation_h
        for j in range(conv.m_w):
            column = w + j * conv.dilation_w
            at = outside
            if row < conv.h_out and column < conv.w_out:
                at = here + (row * conv.w_out + column) * pixel
            put(table, i * conv.m_w + j, at)
    return 0, table


def _input(m_h: int, r_h: int, m_w: int, r_w: int):
    """The function that transforms a block's pixels; the sizes of F are constants of the compiled code."""

    def transform(block_address, alpha, beta):
        block = block_record(block_address)
        conv = conv_record(block.conv)
        size = itemsize(alpha)
        for i in range(block.count):
            image, h_out, w_out = tile_corner(conv, block.first + i)
            h, w = h_out * conv.stride_h - conv.pad_top, w_out * conv.stride_w - conv.pad_left
            data = block.data + i * conv.data_pitch
            # Phases of the stride follow one another as sets of channels.
            for phase in range(conv.stride_h * conv.stride_w):
                down, across = divmod(phase, conv.stride_w)
                pixels, table = input_pixels(conv, block, image, h + down, w + across)
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
        for i in range(block.count):
            image, h, w = tile_corner(conv, block.first + i)
            # interleaved sets are of unequal size, so that some tiles lie wholly beyond the result
            if h >= conv.h_out or w >= conv.w_out:
                continue
            out, table = output_pixels(
                conv, block.out, conv.out_pixel, block.table, conv.output_table, block.spare, image, h, w
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
                    h,
                    w,
                )
            output_transform(
                m_h, r_h, m_w, r_w,
                block.products + i * conv.product_pitch, conv.product_position,
                out, table, added, residual_table, no_residual,
                bias, block.channels, conv.activation, alpha, beta,
            )  # fmt: skip

    return transform


@functools.cache
def _transforms(m_h: int, r_h: int, m_w: int, r_w: int) -> tuple[NativeFunction, NativeFunction]:
    sizes = m_h, r_h, m_w, r_w
    name = f"{m_h}x{m_w}_{r_h}x{r_w}"
    return NativeFunction(_input(*sizes), f"winograd_input_{name}"), NativeFunction(
        _output(*sizes), f"winograd_output_{name}"
    )


def transform_addresses(m_h: int, r_h: int, m_w: int, r_w: int, np_dtype) -> tuple[int, int]:
    """Entry points of the input's and the output's transform for F(m_h, r_h) by F(m_w, r_w)."""
    scalar = numba.from_dtype(np_dtype)
    signature = types.void(types.intp, scalar, scalar)
    first, second = _transforms(m_h, r_h, m_w, r_w)
    return first.address(signature), second.address(signature)


@njit
def row_tiles(tiles, rows, pitch, taps):
    """Tile list of `rows` rows, `pitch` bytes apart, in tiles of even height that share one tap record; returns its length."""
    count = (rows + MR - 1) // MR
    for i in range(count):
        first, last = share(rows, i, count)
        put(tiles, 0, first)
        put(tiles, 1, last - first)
        put(tiles, 2, first * pitch)
        put(tiles, 3, taps)
        put(tiles, 4, 1)
        tiles += 8 * TILE
    return count


@njit
def first_channel(conv, column):
    """The output channel that panel number `column`, counted over all groups, starts with."""
    group, panel = divmod(column, conv.panels_per_group)
    return group * conv.c_out + panel * NV * (VECTOR_BYTES // conv.itemsize)


@njit
def multiply(conv, workspace, first, last, k_first, k_last, like):
    """Products of panels `first`..`last`, counted over all groups: one call of the core a position and group."""
    call, block = call_record(workspace), block_record(workspace + CALL_BYTES)
    lanes = VECTOR_BYTES // conv.itemsize
    positions = conv.n_h * conv.n_w
    start = first_channel(conv, first)
    first_group, last_group = first // conv.panels_per_group, (last - 1) // conv.panels_per_group
    call.k = k_last - k_first
    for position in range(positions):
        for group in range(first_group, last_group + 1):
            before = group * conv.panels_per_group
            panel, stop = max(first - before, 0), min(last - before, conv.panels_per_group)
            columns = min(stop * NV * lanes, conv.c_out) - panel * NV * lanes
            # rows of products have room up to a whole vector, unless another group follows
            call.columns = (columns + lanes - 1) // lanes * lanes if first_group == last_group else columns
            call.a = block.data + position * conv.data_position + (group - first_group) * conv.c_in * conv.itemsize
            number = (group * positions + position) * conv.panels_per_group + panel
            call.panels = conv.panels + number * conv.panel_bytes + k_first * PANEL_ROW
            column = group * conv.c_out + panel * NV * lanes - start
            call.c = block.products + position * conv.product_position + column * conv.itemsize
            call.residual = 0 if k_first == 0 else call.c
            call_core(conv.core, workspace, -infinity(like), infinity(like))


@njit
def winograd_block(conv, workspace, first_column, last_column, x, out, residual, alpha, beta):
    """All columns of a share for the tiles in the block record."""
    block = block_record(workspace + CALL_BYTES)
    k = conv.stride_h * conv.stride_w * conv.c_in
    transformed = -1
    # Column blocks: their products stay in the L2 until they are transformed.
    for column in range(first_column, last_column, conv.column_block):
        last = min(column + conv.column_block, last_column)
        first_group, last_group = column // conv.panels_per_group, (last - 1) // conv.panels_per_group
        # Blocks of K where not all channels fit the workspace; sums so far are the next one's residual.
        for k_first in range(0, k, conv.k_block):
            k_last = min(k, k_first + conv.k_block)
            block.channel = first_group * conv.c_in + k_first
            block.channels = (last_group - first_group + 1) * conv.c_in
            if conv.k_block < k:
                block.channels = k_last - k_first
            if transformed != block.channel:
                transformed = block.channel
                block.x = x
                call_core(conv.input_transform, workspace + CALL_BYTES, alpha, beta)
            multiply(conv, workspace, column, last, k_first, k_last, alpha)
        block.channel = first_channel(conv, column)
        end = min(first_channel(conv, last - 1) + NV * (VECTOR_BYTES // conv.itemsize), (last_group + 1) * conv.c_out)
        block.channels = end - block.channel
        block.out = out + block.channel * conv.itemsize
        block.residual = 0 if residual == 0 else residual + block.channel * conv.itemsize
        call_core(conv.output_transform, workspace + CALL_BYTES, alpha, beta)


def winograd_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: call, block, tile list, tables, spare pixel, transformed pixels, products."""
    conv = conv_record(conv_address)
    call, block = call_record(workspace), block_record(workspace + CALL_BYTES)
    positions, pixels = conv.n_h * conv.n_w, conv.m_h * conv.m_w
    block.conv = conv_address
    call.tiles = workspace + HEADER
    block.table = call.tiles + ((conv.tile_block + MR - 1) // MR) * 8 * TILE
    block.residual_table = block.table + 8 * positions
    block.spare = block.residual_table + 8 * pixels
    block.data = workspace + conv.data_offset
    block.products = block.data + positions * conv.data_position
    call.zeros = call.bias = conv.zeros
    call.panel_bytes = conv.panel_bytes
    call.c_pitch = call.residual_pitch = conv.product_pitch
    call.activation = 0
    call.tiles_outside = conv.tiles_outside
    call.streamed = call.fetch = 0
    first_block, last_block = share(conv.lines, part // column_parts, row_parts)
    first_column, last_column = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    total = conv.n * conv.tiles_h * conv.tiles_w
    for number in range(first_block, last_block):
        block.first, end = share(total, number, conv.lines)
        block.count = end - block.first
        call.tile_count = row_tiles(call.tiles, block.count, conv.data_pitch, conv.taps)
        winograd_block(conv, workspace, first_column, last_column, x, out, residual, alpha, beta)


winograd_share = NativeFunction(winograd_part, "winograd_share")
