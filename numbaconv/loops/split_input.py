"""A block of the input in two halves, as matrix tiles read it: lines of a slice, for each slice that the kernel meets.

See `loops.split` for its two forms.
"""

from __future__ import annotations

from numbaconv.codegen.amx import DEPTH, ROW_BYTES
from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import clear
from numbaconv.codegen.scales import INVERSE
from numbaconv.codegen.split import split_each_pixel, split_pixels
from numbaconv.codegen.split_groups import WIDTHS, split_groups
from numbaconv.loops.scales import line_after


@njit
def fill_stretch(conv, to, count, first, hop, size, x, x_step, channels, scale, like):
    """Split `count` positions from number `first` of an axis on, every `hop`-th; those outside of its `size` are zeros.

    `scale` is the address of the scale of all, or of the inverse of each one's.
    """
    before = min(max((-first + hop - 1) // hop, 0), count)
    stop = min(max((size - first + hop - 1) // hop, before), count)
    for block in range((channels + DEPTH - 1) // DEPTH):
        for part in range(2):
            here = to + block * conv.block_pitch + part * conv.low
            clear(here, before * ROW_BYTES // 4, like)
            clear(here + stop * ROW_BYTES, (count - stop) * ROW_BYTES // 4, like)
    at = x + (first + before * hop) * x_step
    to += before * ROW_BYTES
    pixels = stop - before
    if conv.scale_step == 0:
        split_pixels(to, ROW_BYTES, conv.low, conv.block_pitch, at, hop * x_step, pixels, channels, scale)
        return
    clear(scale, before, like)
    clear(scale + stop * conv.scale_step, count - stop, like)
    scale += before * conv.scale_step
    split_each_pixel(to, ROW_BYTES, conv.low, conv.block_pitch, at, hop * x_step, pixels, channels, scale, conv.unit)


@njit
def fill_wide(conv, to, image, d, line, lines, channels, scale, like):
    """The lines under `lines` output lines from number `line` on, for a slice of the input that is inside if `d` >= 0."""
    rows = lines + conv.reach_h
    for phase_h in range(conv.phases_h):
        first = line * conv.stride_h + phase_h - conv.pad_top
        here = to + phase_h * conv.phases * conv.phase_pitch
        plane = image + d * conv.h_in * conv.w_in * conv.x_pixel
        if conv.positions == 1:
            # a column of each phase
            for phase in range(conv.phases):
                w = phase - conv.pad_left
                size = conv.h_in if d >= 0 and 0 <= w < conv.w_in else 0
                fill_stretch(
                    conv,
                    here + phase * conv.phase_pitch,
                    rows,
                    first,
                    conv.stride_h,
                    size,
                    plane + w * conv.x_pixel,
                    conv.w_in * conv.x_pixel,
                    channels,
                    scale,
                    like,
                )
            continue
        for row in range(rows):
            h = first + row * conv.stride_h
            inside = d >= 0 and 0 <= h < conv.h_in
            # the last line ends with the zeros that it would share with the next one
            count = conv.positions + (conv.shared if row == rows - 1 else 0)
            for phase in range(conv.phases):
                fill_stretch(
                    conv,
                    here + phase * conv.phase_pitch + row * conv.row_pitch,
                    count,
                    phase - conv.pad_left,
                    conv.stride_w,
                    conv.w_in if inside else 0,
                    plane + h * conv.w_in * conv.x_pixel,
                    conv.x_pixel,
                    channels,
                    scale + row * conv.positions * conv.scale_step,
                    like,
                )


@njit
def clear_between(conv, line, begin, end, members, like):
    """Zeros in both halves of a line, from one byte to another or a few more, for each of so many groups."""
    for member in range(members):
        for part in range(2):
            clear(line + member * conv.member_pitch + part * conv.low + begin, (end - begin + 3) // 4, like)


@njit
def split_line(conv, to, x, pixels, members, scale):
    """Split so many pixels of a line, of each of some groups."""
    pixel = conv.c_in * 2
    if conv.x_pixel == 2 * pixel:
        split_pixels(to, 0, conv.low, ROW_BYTES, x, 0, 1, pixels * conv.c_in, scale)
        return
    if conv.c_in in WIDTHS:
        split_groups(to, conv.member_pitch, conv.low, x, conv.x_pixel, pixels, conv.c_in, members, scale)
        return
    for member in range(members):
        here, source = to + member * conv.member_pitch, x + member * conv.c_in * conv.itemsize
        split_pixels(here, pixel, conv.low, ROW_BYTES, source, conv.x_pixel, pixels, conv.c_in, scale)


@njit
def fill_narrow(conv, to, image, d, line, lines, members, scale, like):
    """The same with all channels of a line's pixels one after another, for each of so many groups."""
    rows = lines + conv.reach_h
    # only what counts for the scale: the last taps read on, and large numbers would be infinite
    below = min(line_after(conv, line + lines), conv.h_in)
    pixel, first = conv.c_in * 2, conv.pad_left
    # none of them where all kernels end before
    count = max(min(conv.met_last, conv.row_pitch // pixel - first), 0)
    for phase_h in range(conv.phases_h):
        for row in range(rows):
            h = (line + row) * conv.stride_h + phase_h - conv.pad_top
            here = to + phase_h * conv.phase_pitch + row * conv.row_pitch
            before, after = first * pixel, (first + count) * pixel
            if d < 0 or h < 0 or h >= below or count == 0:
                clear_between(conv, here, 0, conv.row_pitch, members, like)
                continue
            # what splitting writes beyond the last pixel, zeros or the next line's pixels will cover
            clear_between(conv, here, 0, before, members, like)
            source = image + (d * conv.h_in + h) * conv.w_in * conv.x_pixel
            split_line(conv, here + before, source, count, members, scale)
            clear_between(conv, here, after, conv.row_pitch, members, like)
        # what the last taps read beyond their weights has to be numbers
        end = phase_h * conv.phase_pitch + rows * conv.row_pitch
        clear_between(conv, to, end, end + conv.shared * conv.position_bytes + ROW_BYTES, members, like)


@njit
def inverses_of(conv, block, unit):
    """Where the inverses of the scales of a slice of a block lie, after the scale of all."""
    return block + unit * conv.unit_pitch + conv.scales + INVERSE


@njit
def fill_block(conv, block, x, unit, row, lines, channels, members, like):
    """The lines under `lines` output lines from number `row` of a slice, in all slices that the kernel meets, for some groups."""
    image, d_out = divmod(unit, conv.d_out)
    scale = block + conv.scales
    if conv.scale_step > 0:
        scale = inverses_of(conv, block, 0)
    for k_d in range(conv.k_d):
        d = d_out * conv.stride_d - conv.pad_front + k_d * conv.dilation_d
        d = d if d < conv.d_in else -1
        to = block + k_d * conv.strip_pitch
        if conv.block_pitch > 0:
            fill_wide(conv, to, x + image * conv.x_image, d, row, lines, channels, scale, like)
        else:
            fill_narrow(conv, to, x + image * conv.x_image, d, row, lines, members, scale, like)


@njit
def fill_units(conv, block, x, unit, units, row, lines, group, members, chunk, like):
    """The same of a chunk of the channels of groups from number `group` on, for `units` slices from number `unit` on."""
    first = chunk * conv.chunk
    source, channels = x + (group * conv.c_in + first) * conv.itemsize, min(conv.chunk, conv.c_in - first)
    for i in range(units):
        fill_block(conv, block + i * conv.unit_pitch, source, unit + i, row, lines, channels, members, like)
