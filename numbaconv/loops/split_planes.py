"""The loop nest of matrix tiles for channels-first tensors: weights are the rows of a tile, neighbouring pixels its columns.

Nothing is transposed.  Positions of a block follow one another as in `loops.split`, so that 16 of them are a vector for every tap,
wherever lines end.  A row of sums is a stretch of an output plane.  Panels are outside, so that their weights come from beyond the
L2 once a block.

    channels: in blocks of 32, pair by pair, phase by phase, line by line; a tap is a distance
    patches: elements of a patch, pair by pair, line by line of output pixels, for channels too few to fill registers
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.amx import COLUMNS, DEPTH, PAIRS, SUMS_BYTES, configure, matrix_tile_of_planes, release
from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import LINE, put
from numbaconv.codegen.records import conv_record
from numbaconv.codegen.rows_of_sums import store_planes
from numbaconv.codegen.split_planes import HOPS, SOURCE, split_patches, split_planes
from numbaconv.loops.gemm import VECTOR_BYTES
from numbaconv.loops.scales import first_block, right_guess, scale_block
from numbaconv.loops.split import lines_a_tap, output_of
from numbaconv.loops.split_input import inverses_of
from numbaconv.loops.walk import share

#: Bytes of an element of the table of patches.
SOURCE_BYTES = 8 * SOURCE


@njit
def inside(first, hop, size, count):
    """Bounds of those of `count` places from number `first` of an axis on, every `hop`-th, that lie inside of its `size`."""
    before = min(max((-first + hop - 1) // hop, 0), count)
    return before, min(max((size - first + hop - 1) // hop, before), count)


@njit
def fill_planes(conv, to, slice_, line, lines, scale):
    """The lines under `lines` output lines from number `line` on, for the slice of the input at an address; 0 is one of padding."""
    rows = lines + conv.reach_h
    size, plane = conv.itemsize, conv.in_pixels * conv.itemsize
    pairs = (conv.c_in + DEPTH - 1) // DEPTH * PAIRS
    for phase_h in range(conv.phases_h):
        h = line * conv.stride_h + phase_h - conv.pad_top
        top, bottom = inside(h, conv.stride_h, conv.h_in, rows)
        for phase in range(conv.phases):
            here = to + (phase_h * conv.phases + phase) * conv.phase_pitch
            w, hop = phase - conv.pad_left, conv.stride_w
            row_pitch, x_row = conv.row_pitch, conv.stride_h * conv.w_in * size
            row_count, count = rows, conv.positions + conv.shared
            before, stop = inside(w, hop, conv.w_in, count)
            first = slice_ + (h * conv.w_in + w) * size
            if conv.positions == conv.w_in == conv.k_w == 1 and conv.pad_left == 0 and conv.stride_h in HOPS:
                # each line is a pixel, and all of them are one row
                hop, count, before, stop = conv.stride_h, rows, top, bottom
                row_count, top, bottom = 1, 0, 1
            if slice_ == 0:
                bottom = top
            split_planes(
                here,
                conv.low,
                conv.pair_pitch,
                row_pitch,
                x_row,
                pairs,
                row_count,
                count,
                scale,
                first,
                plane,
                conv.c_in,
                top,
                bottom,
                before,
                stop,
                hop,
            )


@njit
def fill_patches(conv, to, table, x, d_out, line, lines, scale):
    """All elements of the patches of `lines` output lines from number `line` of a slice on, in the order of the weights."""
    size, hop, element = conv.itemsize, conv.stride_w, table
    plane = conv.in_pixels * size
    pairs = conv.steps * PAIRS
    for number in range(2 * pairs):
        # elements beyond the last one meet weights of zero
        channel, tap = divmod(min(number, conv.k_block - 1), conv.window)
        kernel_line, k_w = divmod(tap, conv.k_w)
        k_d, k_h = divmod(kernel_line, conv.k_h)
        d = d_out * conv.stride_d - conv.pad_front + k_d * conv.dilation_d
        h = line * conv.stride_h - conv.pad_top + k_h * conv.dilation_h
        w = k_w * conv.dilation_w - conv.pad_left
        top, bottom = inside(h, conv.stride_h, conv.h_in, lines)
        before, stop = inside(w, hop, conv.w_in, conv.w_out)
        put(element, 0, x + channel * plane + ((d * conv.h_in + h) * conv.w_in + w) * size)
        put(element, 1, top)
        put(element, 2, bottom if 0 <= d < conv.d_in else top)
        put(element, 3, before)
        put(element, 4, stop)
        element += SOURCE_BYTES
    x_row = conv.stride_h * conv.w_in * size
    split_patches(to, conv.low, conv.pair_pitch, conv.row_pitch, x_row, pairs, lines, conv.w_out, scale, table, hop)


@njit
def finish_planes(conv, sums, scales, position, count, channels, out, residual, bias, alpha, beta):
    """Sums of `channels` output channels and `count` positions from number `position` on go to the output pixels among them."""
    size, plane = conv.itemsize, conv.out_pixels * conv.itemsize
    line, column = divmod(position, conv.positions)
    # where a line is one pixel, lines are neighbours
    width = conv.w_out if conv.positions > 1 else column + count
    while count > 0:
        run = min(count, width - column)
        if run > 0:
            at = (line * conv.line_step + column) * size
            c, origin = out + at, 0 if residual == 0 else residual + at
            streamed = int(conv.streamed != 0 and (c | plane) % VECTOR_BYTES == 0)
            store_planes(
                sums,
                channels,
                scales,
                conv.scale_step,
                c,
                plane,
                streamed,
                bias,
                origin,
                plane,
                run,
                np.int64(1),
                conv.activation,
                alpha,
                beta,
            )
        skipped = conv.positions - column if conv.positions > 1 else count
        sums += skipped * size
        count -= skipped
        line += 1
        column = 0


@njit
def multiply_planes(conv, sums, block, units, row, lines, group, first, last, out, residual, alpha, beta):
    """Panels `first`..`last` of a group by all positions of a block: `lines` lines from number `row` of slices `units`.

    While one panel is multiplied, the next one's weights are asked for.
    """
    height, size = conv.tile_height, conv.itemsize
    plane = conv.out_pixels * size
    positions = (lines - 1) * conv.positions + conv.w_out
    registers = (positions + COLUMNS - 1) // COLUMNS
    first_unit, last_unit = units
    asked = lines_a_tap(conv.panel_bytes, (last_unit - first_unit) * ((registers + 1) // 2) * conv.steps)
    for panel in range(first, last):
        channel = panel * 2 * height
        channels = min(conv.c_out - channel, 2 * height)
        weights = conv.panels + (group * conv.panels_per_group + panel) * conv.panel_bytes
        ask, count = weights + conv.panel_bytes, asked if panel + 1 < last else 0
        bias = conv.bias + (group * conv.c_out + channel) * size
        at = (group * conv.c_out + channel) * plane
        for unit in range(first_unit, last_unit):
            c = output_of(conv, out, unit, row, size) + at
            origin = output_of(conv, residual, unit, row, size)
            x = block + (unit - first_unit) * conv.unit_pitch
            scales = inverses_of(conv, block, unit - first_unit)
            for register in range(0, registers, 2):
                position = register * COLUMNS
                matrix_tile_of_planes(
                    (channels + height - 1) // height,
                    min(registers - register, 2),
                    x,
                    COLUMNS * conv.position_bytes,
                    conv.pair_pitch,
                    conv.low,
                    conv.taps,
                    conv.steps,
                    weights,
                    sums,
                    height,
                    ask,
                    count,
                    np.int64(0),
                )
                x += 2 * COLUMNS * conv.position_bytes
                ask += count * conv.steps * LINE
                finish_planes(
                    conv,
                    sums,
                    scales,
                    position,
                    min(2 * COLUMNS, positions - position),
                    channels,
                    c,
                    0 if origin == 0 else origin + at,
                    bias,
                    alpha,
                    beta,
                )


@njit
def fill_planes_block(conv, block, table, x, unit, row, lines):
    """The lines under `lines` output lines from number `row` of a slice, in all slices that the kernel meets."""
    image, d_out = divmod(unit, conv.d_out)
    slice_ = conv.h_in * conv.w_in * conv.itemsize
    x += image * conv.groups * conv.c_in * conv.in_pixels * conv.itemsize
    if conv.k_block > conv.c_in:
        fill_patches(conv, block, table, x, d_out, row, lines, block + conv.scales)
        return
    for k_d in range(conv.k_d):
        d = d_out * conv.stride_d - conv.pad_front + k_d * conv.dilation_d
        to, slice_at = block + k_d * conv.strip_pitch, x + d * slice_ if 0 <= d < conv.d_in else 0
        fill_planes(conv, to, slice_at, row, lines, block + conv.scales)


@njit
def fill_planes_units(conv, block, table, x, unit, units, row, lines, group):
    """The same of a group's channels for `units` slices from number `unit` on."""
    for i in range(units):
        source = x + group * conv.c_in * conv.in_pixels * conv.itemsize
        fill_planes_block(conv, block + i * conv.unit_pitch, table, source, unit + i, row, lines)


def split_planes_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share: lines of all images, panels of all groups.  Workspace: the sums of a tile, a block in two parts."""
    conv = conv_record(conv_address)
    block = workspace + SUMS_BYTES
    table = block + conv.unit_block * conv.unit_pitch
    line, last_line = share(conv.n * conv.d_out * conv.line, part // column_parts, row_parts)
    first, last = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    configure(conv.tables)
    known = np.int64(-1), np.int64(0)
    while line < last_line:
        unit, units, row, lines, known = first_block(conv, block, x, line, last_line, known)
        for group in range(first // conv.panels_per_group, (last - 1) // conv.panels_per_group + 1):
            before = group * conv.panels_per_group
            fill_planes_units(conv, block, table, x, unit, units, row, lines, group)
            if conv.guessed != 0 and not right_guess(conv, block, x, unit, units, row, lines, known):
                units, lines, known = scale_block(conv, block, x, unit, units, row, lines, known)
                fill_planes_units(conv, block, table, x, unit, units, row, lines, group)
            multiply_planes(
                conv,
                workspace,
                block,
                (unit, unit + units),
                row,
                lines,
                group,
                max(first - before, 0),
                min(last - before, conv.panels_per_group),
                out,
                residual,
                alpha,
                beta,
            )
        line += units * lines
    release()


split_planes_share = NativeFunction(split_planes_part, "split_planes_share")
