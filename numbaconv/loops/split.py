"""The loop nest of matrix tiles: a block of the input is split into high and low parts, once for all taps, and multiplied.

Positions of a block follow one another: line after line of output pixels and of what lies between the lines, so that 16 of them are
16 rows of memory for every tap, wherever lines end.  What lies between lines is computed and dropped.  Zeros at the end of one line
are those at the start of the next.  Strides are taken apart into phases, so that neighbours stay neighbours.

Where a block of all channels and a panel would not stay in the L2, as with many channels of a dilated kernel, channels come in
chunks, and the sums of all tiles are carried from one to the next.

    wide: channels in blocks of 32, a position is 64 bytes: block by block, phase by phase, line by line
    narrow: a position is all channels of `phases` pixels, and a tap a stretch of 32 elements of a kernel row

Narrow positions lie askew to cache lines, where a register takes twice as long to load.  Where few elements make a patch, those of
a tile are put side by side first, and steps go through patches instead of kernel rows.

Where output channels are few, a position stands for several neighbouring `outputs`, whose channels fill the columns of a register
together: the weights of each lie a pixel further.  Groups whose channels share cache lines are computed in gangs, tile by tile;
where as many of them as there are outputs fill a vector, their sums wait for one another and are stored together.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.amx import ROWS, STEP_BYTES, SUMS_BYTES, configure, matrix_tile, release
from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import LINE
from numbaconv.codegen.patches import gather_patches
from numbaconv.codegen.records import conv_record
from numbaconv.codegen.rows_of_sums import store_rows, store_woven
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.scales import first_block, right_guess, scale_block
from numbaconv.loops.split_input import fill_units, inverses_of
from numbaconv.loops.walk import share


@njit
def finish_tile(conv, sums, scales, position, count, out, residual, bias, columns, alpha, beta):
    """Sums of `count` positions from number `position` on go to the output pixels among them."""
    out_line, out_step = conv.line_step * conv.out_pixel, conv.column_step * conv.out_pixel
    origin_line, origin_step = conv.line_step * conv.residual_pixel, conv.column_step * conv.residual_pixel
    line, column = divmod(position, conv.positions)
    width, outputs = conv.row_pixels, conv.outputs
    if conv.positions == 1:
        # each position is a line
        column, width, out_step, origin_step = 0, count, out_line, origin_line
    while count > 0:
        # the last position of a line may have fewer pixels
        pixels = min(outputs * count, width - outputs * column)
        if pixels > 0:
            c = out + line * out_line + outputs * column * out_step
            origin = 0 if residual == 0 else residual + line * origin_line + outputs * column * origin_step
            streamed = int(conv.streamed != 0 and (c | out_step) % VECTOR_BYTES == 0)
            scaled = sums, pixels, scales, conv.scale_step
            places = c, out_step, streamed, bias, origin, origin_step, columns, outputs
            if conv.woven != 0:
                store_woven(*scaled, *places, conv.activation, alpha, beta)
            else:
                store_rows(*scaled, *places, conv.activation, alpha, beta)
        skipped = conv.positions - column
        sums += skipped * PANEL_ROW
        scales += skipped * conv.scale_step
        count -= skipped if conv.positions > 1 else count
        line += 1
        column = 0


@njit
def lines_a_tap(nbytes, taps):
    """Cache lines to ask for with each of so many taps, for all of `nbytes` to come."""
    return (nbytes + LINE * taps - 1) // (LINE * max(taps, 1))


@njit
def output_of(conv, base, unit, row, pixel):
    """Address of the first output pixel of a line of a slice, number `unit` of those of all images; 0 stays 0 (no residual)."""
    image, d_out = divmod(unit, conv.d_out)
    place = image * conv.image_step + d_out * conv.slice_step + row * conv.line_step
    return 0 if base == 0 else base + place * pixel


@njit
def met(first, last, stride, dilation, before, taps, size):
    """Taps of an axis, first and beyond the last, that any of the outputs `first`..`last` meets inside of `size` elements."""
    start = (before - last * stride + dilation - 1) // dilation
    stop = (size - 1 + before - first * stride) // dilation + 1
    start = min(max(start, 0), taps)
    return start, min(max(stop, start), taps)


@njit
def steps_met(conv, unit, row, position, count):
    """Steps, first and beyond the last, that `count` positions of a block meet: the others read zeros only.

    Of slices where the kernel has several, else of rows; patches are multiplied as a whole.
    """
    if conv.patch_pitch > 0:
        return 0, conv.steps
    if conv.k_d > 1:
        d_out = unit % conv.d_out
        start, stop = met(d_out, d_out, conv.stride_d, conv.dilation_d, conv.pad_front, conv.k_d, conv.d_in)
        each = conv.steps // conv.k_d
    else:
        first, last = row + position // conv.positions, row + (position + count - 1) // conv.positions
        start, stop = met(first, last, conv.stride_h, conv.dilation_h, conv.pad_top, conv.k_h, conv.h_in)
        each = conv.steps // conv.k_h
    return start * each, stop * each


@njit
def left_operand(conv, block, unit, position, count):
    """Where `count` positions of a slice of a block from number `position` on are rows for a tile, how far apart they and their low
    parts lie: in the block, or behind it as patches.
    """
    a = block + unit * conv.unit_pitch + position * conv.position_bytes
    if conv.patch_pitch == 0:
        return a, conv.position_bytes, conv.low
    patches, to_low = block + conv.unit_block * conv.unit_pitch, conv.registers * ROWS * conv.patch_pitch
    gather_patches(
        patches,
        conv.patch_pitch,
        to_low,
        a,
        conv.position_bytes,
        conv.low,
        conv.taps + 8 * conv.steps,
        conv.steps,
        count,
        conv.patches_together,
    )
    return patches, conv.patch_pitch, to_low


@njit
def sums_of_group(sums, number):
    """Where sums of a group wait that are stored together with those of others: two side by side."""
    return sums + number // 2 * SUMS_BYTES + number % 2 * (PANEL_ROW // 2)


@njit
def multiply(
    conv, sums, block, units, row, lines, group, chunk, first, last, coming, coming_bytes, out, residual, alpha, beta
):
    """Panels `first`..`last` of a group by all positions of a block: `lines` lines from number `row` of slices `units`.

    The sums of each tile are complete with the last chunk of channels; between chunks they stay `sums_pitch` bytes apart.
    What comes from beyond the L2 is asked for before it is needed: by the first tiles of a set of panels the next panel, by the
    others the next set, or what is `coming` after this block, or else the lines of results that the next tiles write.
    """
    height, together = conv.tile_height, conv.registers
    positions = (lines - 1) * conv.positions + conv.w_out
    registers = (positions + height - 1) // height
    first_unit, last_unit = units
    tiles_of_unit = (registers + together - 1) // together
    tiles = (last_unit - first_unit) * tiles_of_unit
    number = group * conv.panels_per_group
    # each has chunk after chunk
    panels = conv.panels + chunk * conv.steps * STEP_BYTES
    for begin in range(first, last, conv.column_block):
        end = min(begin + conv.column_block, last)
        taps = (end - begin) * conv.steps
        ask, ask_bytes = coming, coming_bytes
        if end < last:
            ask = panels + (number + end) * conv.panel_bytes
            ask_bytes = min(conv.column_block, last - end) * conv.steps * STEP_BYTES
        # lines that are written past the caches come from nowhere
        results = ask_bytes == 0 and conv.far_results != 0 and conv.streamed == 0
        asked = lines_a_tap(ask_bytes, (tiles - 1) * taps)
        if results:
            asked = lines_a_tap(together * height * conv.outputs * conv.out_pixel, taps)
        for tile in range(tiles):
            unit, register = divmod(tile, tiles_of_unit)
            register *= together
            position = register * height
            rows = min(registers - register, together)
            count = min(rows * height, positions - position)
            step_first, step_last = steps_met(conv, first_unit + unit, row, position, count)
            a, row_step, low = left_operand(conv, block, unit, position, count)
            scales = inverses_of(conv, block, unit) + position * conv.scale_step
            c = output_of(conv, out, first_unit + unit, row, conv.out_pixel)
            origin = output_of(conv, residual, first_unit + unit, row, conv.residual_pixel)
            if results:
                line, column = divmod(position + together * height, conv.positions)
                ask = c + (line * conv.line_step + column * conv.outputs * conv.column_step) * conv.out_pixel
            for panel in range(begin, end):
                columns = min(conv.gang * conv.c_out - panel * conv.panel_step, conv.panel_step)
                weights = panels + (number + panel) * conv.panel_bytes
                own = sums + (tile * (last - first) + panel - first) * conv.sums_pitch
                if conv.woven != 0:
                    own = sums_of_group(sums, panel)
                this, ahead = ask, asked if tile > 0 or results else 0
                ask += ahead * conv.steps * LINE
                if tile == 0 and panel + 1 < end:
                    this, ahead = weights + conv.panel_bytes, STEP_BYTES // LINE
                matrix_tile(
                    rows,
                    (conv.outputs * columns + ROWS - 1) // ROWS,
                    a + panel * conv.member_pitch,
                    height * row_step,
                    row_step,
                    low,
                    conv.taps + 8 * step_first,
                    step_last - step_first,
                    weights + step_first * STEP_BYTES,
                    own,
                    height,
                    this,
                    ahead,
                    chunk,
                )
                if chunk + 1 < conv.chunks or conv.woven != 0:
                    continue
                column = (group * conv.c_out + panel * conv.panel_step) * conv.itemsize
                finish_tile(
                    conv,
                    own,
                    scales,
                    position,
                    count,
                    c + column,
                    0 if origin == 0 else origin + column,
                    conv.bias + (number + panel) * PANEL_ROW,
                    columns,
                    alpha,
                    beta,
                )
            if conv.woven == 0:
                continue
            for panel in range(begin, end, conv.outputs):
                column = (group + panel) * conv.c_out * conv.itemsize
                finish_tile(
                    conv,
                    sums_of_group(sums, panel),
                    scales,
                    position,
                    count,
                    c + column,
                    0 if origin == 0 else origin + column,
                    conv.bias + column,
                    min(end - panel, conv.outputs) * conv.c_out,
                    alpha,
                    beta,
                )


@njit
def coming_lines(conv, image, row, lines, stop):
    """Address and bytes of the input that the block after this one reads for the first time, or nothing."""
    following = min(conv.line_block, min(conv.line, stop) - row - lines)
    if conv.fetch == 0 or following <= 0 or conv.k_d > 1:
        return 0, 0
    line = conv.w_in * conv.x_pixel
    first = (row + lines - 1) * conv.stride_h - conv.pad_top + (conv.k_h - 1) * conv.dilation_h + 1
    first = min(max(first, 0), conv.h_in)
    return image + first * line, min(following * conv.stride_h, conv.h_in - first) * line


def split_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share: lines of all images, panels of all groups.  Workspace: the sums of a tile, a block in two parts."""
    conv = conv_record(conv_address)
    block = workspace + SUMS_BYTES
    # those that are carried from chunk to chunk, or of several groups, lie behind the block
    sums = workspace if conv.sums_pitch + conv.woven == 0 else block + conv.unit_block * conv.unit_pitch
    line, last_line = share(conv.n * conv.d_out * conv.line, part // column_parts, row_parts)
    panels = conv.groups * conv.panels_per_group
    first, last = share((panels + conv.gang - 1) // conv.gang, part % column_parts, column_parts)
    first, last = first * conv.gang, min(last * conv.gang, panels)
    configure(conv.tables)
    known = np.int64(-1), np.int64(0)
    while line < last_line:
        unit, units, row, lines, known = first_block(conv, block, x, line, last_line, known)
        coming, nbytes = coming_lines(conv, x + unit // conv.d_out * conv.x_image, row, lines, row + last_line - line)
        for group in range(first // conv.panels_per_group, (last - 1) // conv.panels_per_group + 1, conv.gang):
            before = group * conv.panels_per_group
            # those that are computed together have a panel each
            members = min(conv.gang, last - group) if conv.gang > 1 else 1
            chunk, guessed = np.int64(0), conv.guessed != 0
            while chunk < conv.chunks:
                fill_units(conv, block, x, unit, units, row, lines, group, members, chunk, alpha)
                if guessed and chunk + 1 == conv.chunks:
                    # all numbers have been met
                    guessed = False
                    if not right_guess(conv, block, x, unit, units, row, lines, known):
                        units, lines, known = scale_block(conv, block, x, unit, units, row, lines, known)
                        chunk = np.int64(0)
                        continue
                multiply(
                    conv,
                    sums,
                    block,
                    (unit, unit + units),
                    row,
                    lines,
                    group,
                    chunk,
                    max(first - before, 0),
                    min(last - before, members * conv.panels_per_group),
                    coming,
                    nbytes,
                    out,
                    residual,
                    alpha,
                    beta,
                )
                chunk += 1
        line += units * lines
    release()


split_share = NativeFunction(split_part, "split_share")
