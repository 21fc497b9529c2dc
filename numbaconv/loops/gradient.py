"""The gradient of a convolution's weights as a GEMM: rows are (input channel, tap), columns output channels, K is all pixels.

    C[(c, tap), o] = sum over lines of y and pixels of a line of  x[c, pixel moved by the tap] * y[pixel, o]

B is y in panels.  A is x in planes of a block of lines, with zeros around them and the stride along a line taken apart into phases,
so that whatever the tap, the pixels that meet a line of y follow one another: a line is a tap of the GEMM core, and its K the
width of y.  Blocks of lines are summed one after the other in C, in an order that depends on shapes alone.  The sums of y
itself, the gradient of the bias, are taken from its panels, `at_sums` bytes behind C.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.lanewise import add_lanewise
from numbaconv.codegen.memory import call_core, clear, copy, infinity, put
from numbaconv.codegen.records import call_record, gradient_record
from numbaconv.codegen.strip import copy_rows
from numbaconv.codegen.transpose import transpose_block
from numbaconv.loops.gemm import MR, NV, PANEL_ROW, TILE, VECTOR_BYTES
from numbaconv.loops.strips import under
from numbaconv.loops.walk import share


@njit
def pack_lines(g, to, source, pixels, channels, like):
    """`channels` channels of neighbouring pixels of y as rows of a panel."""
    if g.y_channel == g.itemsize:
        for pixel in range(pixels):
            copy(to + pixel * PANEL_ROW, source + pixel * g.y_pixel, channels, like)
        return
    lanes = VECTOR_BYTES // g.itemsize
    for channel in range(0, channels, lanes):
        for pixel in range(0, pixels, lanes):
            transpose_block(
                source + channel * g.y_channel + pixel * g.itemsize,
                g.y_channel,
                to + pixel * PANEL_ROW + channel * g.itemsize,
                PANEL_ROW,
                min(lanes, channels - channel),
                min(lanes, pixels - pixel),
                like,
            )


@njit
def pack_panels(g, to, y, slab, slabs, first_line, lines, first_column, last_column, like):
    """Columns `first_column` to `last_column` of a block as panels, slab after slab."""
    width = PANEL_ROW // g.itemsize
    pixels = lines * g.w_out
    for column in range(first_column, last_column, width):
        channels = min(width, last_column - column)
        if channels < width:
            clear(to, slabs * pixels * width, like)
        for i in range(slabs):
            image, depth = divmod(slab + i, g.d_out)
            pixel = (depth * g.h_out + first_line) * g.w_out
            source = y + image * g.y_image + column * g.y_channel + pixel * g.y_pixel
            pack_lines(g, to + i * pixels * PANEL_ROW, source, pixels, channels, like)
        to += g.panel_bytes


@njit
def pack_rows(g, to, source, rows, channels, like):
    """Neighbouring rows of all channels of a chunk, each row as its phases; columns outside of x stay as they are."""
    size = g.itemsize
    lanes = VECTOR_BYTES // size
    for phase in range(g.phases):
        left = phase - g.pad_left
        skipped, columns = under(left, g.stride_w, g.w_in, g.positions)
        here = to + phase * g.phase_pitch + skipped * size
        origin = source + (left + skipped * g.stride_w) * g.x_pixel
        if g.x_pixel == size:
            for channel in range(channels):
                copy_rows(
                    here + channel * g.plane_pitch,
                    g.row_pitch,
                    origin + channel * g.x_channel,
                    g.w_in * g.x_pixel,
                    rows,
                    columns,
                    g.stride_w,
                    like,
                )
            continue
        # Channels inside: what is read then follows on in memory.
        for row in range(rows):
            for column in range(0, columns, lanes):
                for channel in range(0, channels, lanes):
                    transpose_block(
                        origin + (row * g.w_in + column * g.stride_w) * g.x_pixel + channel * size,
                        g.stride_w * g.x_pixel,
                        here + row * g.row_pitch + column * size + channel * g.plane_pitch,
                        g.plane_pitch,
                        min(lanes, columns - column),
                        min(lanes, channels - channel),
                        like,
                    )


@njit
def pack_planes(g, to, x, slab, slabs, first_line, lines, channels, like):
    """What `lines` lines of some slabs meet of x, for the channels from address `x` on."""
    rows = (lines - 1) * g.stride_h + (g.k_h - 1) * g.dilation_h + 1
    top = first_line * g.stride_h - g.pad_top
    before, inside = under(top, np.int64(1), g.h_in, rows)
    for i in range(slabs):
        image, depth_out = divmod(slab + i, g.d_out)
        for k_d in range(g.k_d):
            depth = depth_out * g.stride_d - g.pad_front + k_d * g.dilation_d
            # a slice outside of x has no row inside
            skipped, met = (before, inside) if 0 <= depth < g.d_in else (rows, np.int64(0))
            here = to + i * g.chunk * g.plane_pitch + k_d * g.depth_pitch
            row = g.row_pitch // g.itemsize
            for channel in range(channels):
                plane = here + channel * g.plane_pitch
                if skipped > 0:
                    clear(plane, skipped * row, like)
                if skipped + met < rows:
                    clear(plane + (skipped + met) * g.row_pitch, (rows - skipped - met) * row, like)
            if met > 0:
                source = x + image * g.x_image + ((depth * g.h_in + top + skipped) * g.w_in) * g.x_pixel
                pack_rows(g, here + skipped * g.row_pitch, source, met, channels, like)


@njit
def list_tiles(g, tiles, channels, taps):
    """Tiles of the rows of so many channels, whose tables start with `taps` records of a line; returns their number."""
    window = g.k_d * g.k_h * g.k_w
    rows = channels * window
    for first in range(0, rows, MR):
        channel, tap = divmod(first, window)
        put(tiles, 0, first)
        put(tiles, 1, min(MR, rows - first))
        put(tiles, 2, channel * g.plane_pitch)
        put(tiles, 3, g.taps + first // MR % g.patterns * g.pattern_bytes)
        put(tiles, 4, taps)
        tiles += 8 * TILE
    return (rows + MR - 1) // MR


@njit
def add_block(g, workspace, c, columns, channels, taps, fresh, like):
    """Add the products of a packed block to C, or write them where C is `fresh`."""
    call = call_record(workspace)
    call.a = workspace + g.at_planes
    call.zeros = call.bias = g.zeros
    call.tiles = workspace + g.at_tiles
    call.tile_count = list_tiles(g, call.tiles, channels, taps)
    call.tiles_outside = call.streamed = call.far_results = call.fetch = 0
    call.k = g.w_out
    call.panels = workspace + g.at_panels
    call.panel_bytes = g.panel_bytes
    call.following = call.cold = 0
    call.columns = columns
    call.c = c
    call.c_pitch = call.residual_pitch = g.c_out * g.itemsize
    call.c_step = 1
    call.residual = 0 if fresh != 0 else c
    call.activation = 0
    call_core(g.core, workspace, -infinity(like), infinity(like))


@njit
def add_sums(g, to, y, y_line, y_pixel, lines, pixels, channels, like):
    """Add pixels of up to a panel of y to their channels' sums, the gradient of the bias."""
    lanes = VECTOR_BYTES // g.itemsize
    vectors = (channels + lanes - 1) // lanes
    add_lanewise(1, NV, 1, vectors, to, 0, channels, g.ones, g.zeros, 0, 0, y, y_line, y_pixel, lines, pixels, like)


@njit
def add_panels(g, to, panels, first_column, last_column, pixels, fresh, like):
    """As `add_sums`, for the packed columns of a block; `fresh` sums start from nothing."""
    width = PANEL_ROW // g.itemsize
    if fresh != 0:
        clear(to + first_column * g.itemsize, last_column - first_column, like)
    for column in range(first_column, last_column, width):
        channels = min(width, last_column - column)
        add_sums(
            g, to + column * g.itemsize, panels, np.int64(0), np.int64(PANEL_ROW), np.int64(1), pixels, channels, like
        )
        panels += g.panel_bytes


def gradient_part(part, row_parts, column_parts, record, x, y, c, workspace, alpha, beta):
    """One thread's share of channels of x and panels of y.  Workspace: a call record, tiles, panels and planes of a block."""
    g = gradient_record(record)
    width = PANEL_ROW // g.itemsize
    window = g.k_d * g.k_h * g.k_w
    first_channel, last_channel = share(g.groups * g.c_in, part // column_parts, row_parts)
    first_panel, last_panel = share(g.panels, part % column_parts, column_parts)
    first_column, last_column = first_panel * width, min(last_panel * width, g.c_out)
    planes = workspace + g.at_planes
    clear(planes, g.slices * g.chunk * g.plane_pitch // g.itemsize, alpha)
    # Blocks of lines, of several slabs where all lines of one fit: they share what is packed.
    for group in range(first_channel // g.c_in, (last_channel + g.c_in - 1) // g.c_in):
        begin, end = max(first_channel, group * g.c_in), min(last_channel, (group + 1) * g.c_in)
        fresh = np.int64(1)
        for slab in range(0, g.n * g.d_out, g.slices):
            slabs = min(g.slices, g.n * g.d_out - slab)
            for line in range(0, g.h_out, g.lines):
                lines = min(g.lines, g.h_out - line)
                column = group * g.c_out
                pack_panels(
                    g,
                    workspace + g.at_panels,
                    y,
                    slab,
                    slabs,
                    line,
                    lines,
                    column + first_column,
                    column + last_column,
                    alpha,
                )
                if begin == group * g.c_in:
                    add_panels(
                        g,
                        c + g.at_sums,
                        workspace + g.at_panels,
                        column + first_column,
                        column + last_column,
                        slabs * lines * g.w_out,
                        fresh,
                        alpha,
                    )
                # Chunks of channels: their planes stay in the L2 while the panels pass by.
                for channel in range(begin, end, g.chunk):
                    channels = min(g.chunk, end - channel)
                    pack_planes(g, planes, x + channel * g.x_channel, slab, slabs, line, lines, channels, alpha)
                    add_block(
                        g,
                        workspace,
                        c + (channel * window * g.c_out + first_column) * g.itemsize,
                        last_column - first_column,
                        channels,
                        slabs * lines,
                        fresh,
                        alpha,
                    )
                fresh = np.int64(0)


gradient_share = NativeFunction(gradient_part, "gradient_share")
