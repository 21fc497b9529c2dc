"""The gradient of the weights of narrow groups, depthwise ones above all: lanes are output channels, K is all pixels.

    C[(c, tap), o] = sum over pixels of  x[channel c of the group of o, pixel moved by the tap] * y[pixel, o]

x is spread into a strip, a panel of output channels and a block of pixels at a time: for each pixel and channel of a group a vector
whose lane j is that channel of the group of output channel j, with zeros where the kernel reaches into padding.  A tap then is a
distance within the strip, whatever the kernel, stride and dilation.  Blocks of a segment are summed one after the other;
the segments follow from shapes alone and are added up at the end, so threads change no bit.  The row behind those of C holds
the sums of y itself, the gradient of the bias.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.expand import expand
from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.lanewise import add_lanewise
from numbaconv.codegen.memory import clear, get
from numbaconv.codegen.records import gradient_record
from numbaconv.loops.gemm import MR, NV, PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.gradient import add_sums, pack_lines
from numbaconv.loops.grouped import EXPANSION_BYTES
from numbaconv.loops.strips import under
from numbaconv.loops.transpose import transpose_strip
from numbaconv.loops.walk import share


@njit
def clear_around(g, strip, rows, above, met, width, before, inside, like):
    """Write zeros to the rows and columns of one plane of a strip that lie outside of x."""
    pixel = PANEL_ROW // g.itemsize
    for row in range(rows):
        to = strip + row * g.row_pitch
        if row < above or row >= above + met:
            clear(to, width * pixel, like)
            continue
        clear(to, before * pixel, like)
        after = before + inside
        clear(to + after * PANEL_ROW, (width - after) * pixel, like)


@njit
def spread(g, workspace, to, source, rows, pixels, vector, vectors, like):
    """Pixels of neighbouring rows of x from address `source` on, spread over the lanes of some vectors of output channels."""
    lanes = VECTOR_BYTES // g.itemsize
    for number in range(vectors):
        record = g.expansions + (vector + number) * EXPANSION_BYTES
        here = to + number * VECTOR_BYTES
        if g.staged == 0:
            expand(
                here, source, rows, g.w_in * g.x_pixel, g.row_pitch, pixels, g.x_pixel, PANEL_ROW, g.plane_pitch, g.c_in,
                record, like,
            )  # fmt: skip
            continue
        # Planes: the channels of the vector are turned into pixels first, a row at a time.
        first = get(record, 0)
        channels = min(g.staged, get(record, 1))
        staging = workspace + g.at_staging
        plane = source + first // g.itemsize * g.x_channel
        for row in range(rows):
            for column in range(0, pixels, lanes):
                transpose_strip(plane, g.x_channel, staging, g.staged * g.itemsize, channels, column, pixels, like)
            expand(
                here + row * g.row_pitch, staging - first, 1, 0, 0, pixels, g.staged * g.itemsize, PANEL_ROW,
                g.plane_pitch, g.c_in, record, like,
            )  # fmt: skip
            plane += g.w_in * g.itemsize


@njit
def fill_strip(g, workspace, x, slab, first_line, lines, first_column, columns, vector, vectors, like):
    """What a block of one slice of y meets of x, for some vectors of output channels."""
    image, depth_out = divmod(slab, g.d_out)
    rows = (lines - 1) * g.stride_h + (g.k_h - 1) * g.dilation_h + 1
    width = (columns - 1) * g.stride_w + (g.k_w - 1) * g.dilation_w + 1
    top, left = first_line * g.stride_h - g.pad_top, first_column * g.stride_w - g.pad_left
    above, met = under(top, np.int64(1), g.h_in, rows)
    before, inside = under(left, np.int64(1), g.w_in, width)
    for k_d in range(g.k_d):
        depth = depth_out * g.stride_d - g.pad_front + k_d * g.dilation_d
        # a slice outside of x has no row inside
        skipped, found = (above, met) if 0 <= depth < g.d_in else (rows, np.int64(0))
        to = workspace + g.at_planes + k_d * g.depth_pitch
        for channel in range(g.c_in):
            clear_around(g, to + channel * g.plane_pitch, rows, skipped, found, width, before, inside, like)
        source = x + image * g.x_image + ((depth * g.h_in + top + skipped) * g.w_in + left + before) * g.x_pixel
        to += skipped * g.row_pitch + before * PANEL_ROW
        spread(g, workspace, to, source, found, inside, vector, vectors, like)


@njit
def add_block(g, workspace, x, y, c, slab, first_line, lines, first_column, columns, vector, vectors, like):
    """Add the products of a block of one slice of y and some vectors of output channels to C."""
    lanes = VECTOR_BYTES // g.itemsize
    channel = vector * lanes
    channels = min(vectors * lanes, g.c_out - channel)
    fill_strip(g, workspace, x, slab, first_line, lines, first_column, columns, vector, vectors, like)
    image, depth = divmod(slab, g.d_out)
    pixel = (depth * g.h_out + first_line) * g.w_out + first_column
    source = y + image * g.y_image + pixel * g.y_pixel + channel * g.y_channel
    y_line, y_pixel = g.w_out * g.y_pixel, g.y_pixel
    if g.in_place == 0:
        packed = workspace + g.at_panels
        y_line, y_pixel = columns * PANEL_ROW, PANEL_ROW
        for line in range(lines):
            pack_lines(g, packed + line * y_line, source + line * g.w_out * g.y_pixel, columns, channels, like)
        source = packed
    add_sums(g, c + g.at_sums + channel * g.itemsize, source, y_line, y_pixel, lines, columns, channels, like)
    rows = g.c_in * g.k_d * g.k_h * g.k_w
    tiles = (rows + MR - 1) // MR
    for number in range(tiles):
        row, end = share(rows, number, tiles)
        add_lanewise(
            MR, NV, end - row, vectors, c + (row * g.c_out + channel) * g.itemsize, g.c_out * g.itemsize, channels,
            workspace + g.at_planes, g.taps + 8 * row, g.stride_h * g.row_pitch, g.stride_w * PANEL_ROW,
            source, y_line, y_pixel, lines, columns, like,
        )  # fmt: skip


def lanewise_part(part, row_parts, column_parts, record, x, y, c, workspace, alpha, beta):
    """One thread's share of segments and vectors of output channels.  Workspace: packed y, a row of x, a strip.

    C has room for the products of every segment.
    """
    g = gradient_record(record)
    first_segment, last_segment = share(g.segments, part // column_parts, row_parts)
    first_vector, last_vector = share(g.vectors, part % column_parts, column_parts)
    per_slab = g.blocks_h * g.blocks_w
    lanes = VECTOR_BYTES // g.itemsize
    # the last row is that of the sums of y
    rows = g.c_in * g.k_d * g.k_h * g.k_w + 1
    for segment in range(first_segment, last_segment):
        products = c + segment * rows * g.c_out * g.itemsize
        column = first_vector * lanes
        for row in range(rows):
            to = products + (row * g.c_out + column) * g.itemsize
            clear(to, min(last_vector * lanes, g.c_out) - column, alpha)
        first_block, last_block = share(g.n * g.d_out * per_slab, segment, g.segments)
        # Panels inside: what a block reads of x and y stays in the L2 while they pass by.
        for block in range(first_block, last_block):
            slab, rest = divmod(block, per_slab)
            line, line_end = share(g.h_out, rest // g.blocks_w, g.blocks_h)
            first, end = share(g.w_out, rest % g.blocks_w, g.blocks_w)
            for vector in range(first_vector, last_vector, NV):
                add_block(
                    g, workspace, x, y, products, slab, line, line_end - line, first, end - first, vector,
                    min(NV, last_vector - vector), alpha,
                )  # fmt: skip


lanewise_share = NativeFunction(lanewise_part, "lanewise_gradient_share")
