"""Transposed convolution in one pass: columns of a block of input pixels by the GEMM core, then their overlap-add.

In the coordinates u = output + padding, input pixel i and tap k meet at u = i * stride + k * dilation.  With u = j * stride + r
that is i = j - k * dilation // stride for the taps with k * dilation % stride = r, so a tap's share of all outputs with one
remainder r is a contiguous run of columns: sums run along pixels, whatever the number of channels.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_core, clear, copy, get, infinity, put
from numbaconv.codegen.overlap import RUN, overlap_record, sum_runs
from numbaconv.codegen.records import call_record
from numbaconv.codegen.transpose import transpose_block
from numbaconv.codegen.weave import STREAMS, weave
from numbaconv.loops.gemm import MR, PANEL_ROW, TILE, VECTOR_BYTES
from numbaconv.loops.walk import share


@njit
def pack_pixels(t, to, source, pixels, like):
    """All channels of neighbouring pixels as columns of a panel, whose rows are channels."""
    if t.x_pixel == t.itemsize:
        for channel in range(t.c_in):
            copy(to + channel * PANEL_ROW, source + channel * t.x_channel, pixels, like)
        return
    lanes = VECTOR_BYTES // t.itemsize
    for pixel in range(0, pixels, lanes):
        for channel in range(0, t.c_in, lanes):
            transpose_block(
                source + pixel * t.x_pixel + channel * t.itemsize,
                t.x_pixel,
                to + channel * PANEL_ROW + pixel * t.itemsize,
                PANEL_ROW,
                min(lanes, pixels - pixel),
                min(lanes, t.c_in - channel),
                like,
            )


@njit
def pack_window(t, to, x, h_first, h_last, w_first, w_last, like):
    """The pixels of a window of the input as packed panels, the last one filled up with zeros; returns their number."""
    rows, width = h_last - h_first, w_last - w_first
    if width == t.w_in:
        # rows of whole images follow one another
        rows, width = min(rows, 1), rows * width
    pixels = rows * width
    panel_columns, panel_bytes = PANEL_ROW // t.itemsize, t.c_in * PANEL_ROW
    if pixels % panel_columns != 0:
        clear(to + pixels // panel_columns * panel_bytes, t.c_in * panel_columns, like)
    # Rows outside, as they lie in memory; each is cut where a panel ends.
    for row in range(rows):
        source = x + (h_first + row) * t.x_row + w_first * t.x_pixel
        pixel, end = row * width, (row + 1) * width
        while pixel < end:
            panel, column = divmod(pixel, panel_columns)
            count = min(panel_columns - column, end - pixel)
            pack_pixels(t, to + panel * panel_bytes + column * t.itemsize, source, count, like)
            source += count * t.x_pixel
            pixel += count
    return pixels


@njit
def multiply(t, workspace, weight, rows, pixels, like):
    """columns[row, pixel] = sum over channels of weight[row, channel] * panels[channel, pixel], as the GEMM core's C."""
    tiles = (rows + MR - 1) // MR
    tile = workspace + t.at_tiles
    # Rows are cut evenly, so that no tile is low.
    for i in range(tiles):
        start = i * rows // tiles
        put(tile, 0, start)
        put(tile, 1, (i + 1) * rows // tiles - start)
        put(tile, 2, start * t.weight_pitch)
        put(tile, 3, t.tap)
        put(tile, 4, 1)
        tile += 8 * TILE
    panel_columns = PANEL_ROW // t.itemsize
    call = call_record(workspace)
    call.a = weight
    call.zeros = t.zeros
    call.tiles = workspace + t.at_tiles
    call.tile_count = tiles
    call.tiles_outside = call.streamed = call.far_results = call.fetch = 0
    call.k = t.c_in
    call.panels = workspace + t.at_panels
    call.panel_bytes = t.c_in * PANEL_ROW
    call.following = call.cold = 0
    call.c = workspace + t.at_columns
    call.c_pitch = t.column_pitch
    call.c_step = 1
    # whole panels take the tiles' fast path
    call.columns = (pixels + panel_columns - 1) // panel_columns * panel_columns
    call.bias = t.zeros
    call.residual = 0
    call.residual_pitch = 0
    call.activation = 0
    call_core(t.core, workspace, -infinity(like), infinity(like))


@njit
def list_runs(t, starts, h, j_first, h_first, h_last, w_first, w_last):
    """The runs that meet in output row `h` (in u), grouped by remainder along the width.

    Behind `starts` lie one number a remainder, that of its first run, their total, and then the runs themselves.
    """
    runs = starts + 8 * (t.stride_w + 1)
    width = w_last - w_first
    row, remainder = divmod(h, t.stride_h)
    number = 0
    for r in range(t.stride_w):
        put(starts, r, number)
        # Taps in row-major order: the order of every sum.
        for k_h in range(t.k_h):
            shift_h, remainder_h = divmod(k_h * t.dilation_h, t.stride_h)
            h_in = row - shift_h
            if remainder_h != remainder or h_in < h_first or h_in >= h_last:
                continue
            for k_w in range(t.k_w):
                shift_w, remainder_w = divmod(k_w * t.dilation_w, t.stride_w)
                if remainder_w == r:
                    begin = w_first + shift_w - j_first
                    pixel = (h_in - h_first) * width - begin
                    put(runs, 0, (k_h * t.k_w + k_w) * t.column_pitch + pixel * t.itemsize)
                    put(runs, 1, begin)
                    put(runs, 2, begin + width)
                    runs += 8 * RUN
                    number += 1
    put(starts, t.stride_w, number)


@njit
def write_streams(destination, pitch, source, source_pitch, streams, begin, end, size, like):
    """Write the streams' elements number j side by side, `pitch` bytes after those of j - 1: elements `begin` to `end` of all."""
    if streams <= STREAMS and pitch == streams * size:
        weave(destination, source, source_pitch, streams, begin, end, like)
        return
    lanes = VECTOR_BYTES // size
    j = begin // streams
    # Elements outside: what is written then follows on in memory.  The first and the last may lack streams.
    while j * streams < end:
        first, last = max(begin - j * streams, 0), min(end - j * streams, streams)
        count = max(min(lanes, end // streams - j), 1) if first == 0 and last == streams else 1
        for stream in range(first, last, lanes):
            transpose_block(
                source + stream * source_pitch + j * size,
                source_pitch,
                destination + j * pitch + stream * size,
                pitch,
                min(lanes, last - stream),
                count,
                like,
            )
        j += count


@njit
def write_row(t, out, sums, channels, begin, end, like):
    """Store the sums of one row and some channels; `out` is the address of u = 0 relative to the sums, for the first channel."""
    if channels * t.itemsize == t.out_pixel:
        write_streams(
            out, t.stride_w * t.out_pixel, sums, t.sum_pitch, t.stride_w * channels, begin * channels, end * channels,
            t.itemsize, like,
        )  # fmt: skip
        return
    # Remainders outside: the pixels of one lie `stride` apart, and other channels in between.
    for r in range(t.stride_w):
        first, last = (begin - r + t.stride_w - 1) // t.stride_w, (end - r + t.stride_w - 1) // t.stride_w
        write_streams(
            out + r * t.out_pixel, t.stride_w * t.out_pixel, sums + r * channels * t.sum_pitch, t.sum_pitch, channels,
            first * channels, last * channels, t.itemsize, like,
        )  # fmt: skip


@njit
def add_columns(t, workspace, out, bias, channels, h_begin, h_end, j_first, j_last, window, alpha, beta):
    """Output rows `h_begin` to `h_end` (in u) of `channels` channels for the elements `j_first` to `j_last` of every remainder."""
    starts, columns, sums = workspace + t.at_runs, workspace + t.at_columns, workspace + t.at_sums
    runs = starts + 8 * (t.stride_w + 1)
    channel_columns = t.k_h * t.k_w * t.column_pitch
    begin = max(t.pad_left - j_first * t.stride_w, 0)
    end = min(t.pad_left + t.w_out - j_first * t.stride_w, (j_last - j_first) * t.stride_w)
    # pixels lie side by side where there is one channel, so each channel is written alone
    together = 1 if t.out_pixel == t.itemsize else channels
    for h in range(h_begin, h_end):
        list_runs(t, starts, h, j_first, *window)
        row = out + (h - t.pad_top) * t.out_row + (j_first * t.stride_w - t.pad_left) * t.out_pixel
        # Channels inside: they share the list of runs.
        for first in range(0, channels, together):
            for c in range(together):
                base = columns + (first + c) * channel_columns
                for r in range(t.stride_w):
                    number = get(starts, r)
                    sum_runs(
                        sums + (r * together + c) * t.sum_pitch,
                        runs + number * 8 * RUN,
                        get(starts, r + 1) - number,
                        base,
                        j_last - j_first,
                        bias + (first + c) * t.itemsize,
                        t.activation,
                        alpha,
                        beta,
                    )
            write_row(t, row + first * t.out_channel, sums, together, begin, end, alpha)


def overlap_part(part, rows, columns, address, x, out, residual, workspace, alpha, beta):
    """One thread's share of the images, blocks, groups and chunks of channels.

    Workspace: a call record, tiles, runs, packed panels, columns, sums.
    """
    t = overlap_record(address)
    taps = t.k_h * t.k_w
    j_first, j_last = t.pad_left // t.stride_w, (t.pad_left + t.w_out + t.stride_w - 1) // t.stride_w
    i_first, i_last = t.pad_top // t.stride_h, (t.pad_top + t.h_out + t.stride_h - 1) // t.stride_h
    first, last = share(t.n * t.blocks_h * t.blocks_w * t.groups * t.chunks, part, rows * columns)
    packed, pixels = np.int64(-1), np.int64(0)
    # Chunks of channels innermost: they share the packed pixels.
    for item in range(first, last):
        block, chunk = divmod(item, t.chunks)
        rest, group = divmod(block, t.groups)
        rest, block_w = divmod(rest, t.blocks_w)
        image, block_h = divmod(rest, t.blocks_h)
        c_first, c_last = share(t.c_out, chunk, t.chunks)
        h_begin, h_end = share(i_last - i_first, block_h, t.blocks_h)
        j_begin, j_end = share(j_last - j_first, block_w, t.blocks_w)
        h_begin, h_end, j_begin, j_end = h_begin + i_first, h_end + i_first, j_begin + j_first, j_end + j_first
        h_0, w_0 = max(h_begin - t.reach_h, 0), max(j_begin - t.reach_w, 0)
        window = h_0, max(min(h_end, t.h_in), h_0), w_0, max(min(j_end, t.w_in), w_0)
        if block != packed:
            origin = x + image * t.x_image + group * t.c_in * t.x_channel
            pixels = pack_window(t, workspace + t.at_panels, origin, *window, alpha)
            packed = block
        channel = group * t.c_out + c_first
        multiply(t, workspace, t.weight + channel * taps * t.weight_pitch, (c_last - c_first) * taps, pixels, alpha)
        add_columns(
            t,
            workspace,
            out + image * t.out_image + channel * t.out_channel,
            t.bias + channel * t.itemsize,
            c_last - c_first,
            max(h_begin * t.stride_h, t.pad_top),
            min(h_end * t.stride_h, t.pad_top + t.h_out),
            j_begin,
            j_end,
            window,
            alpha,
            beta,
        )


overlap_share = NativeFunction(overlap_part, "overlap_add_share")
