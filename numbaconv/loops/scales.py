"""Which power of two the numbers of a block are multiplied by, for halves that have a range: so that no sum depends on blocks.

Numbers below 2^11 keep their 22 bits, or an error of 2^-29, with the usual scale.  A larger one, or an image of less than 2^-4 all
over, takes its lines to another range, of which each spans a factor of 2^13.  So the scale of an output line is a function of the
lines under it and of the image, and a block ends where the scale changes, which hardly ever happens.

To look at all numbers first costs nearly as much as to split them, so that a scale is guessed where splitting meets them all.

Kernels of one pixel have a scale for each, and need none of this: see `codegen.split.split_each_pixel`.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import njit
from numbaconv.codegen.scales import BIAS, END, LEAST, MOST, START, USUAL, largest_exponent, met_exponent, put_scale

#: What another range spans, as exponents.
_SPAN = 13
#: Lines of one pixel are looked at so many at a time.
_PIXELS = 64


@njit
def exponent_that_fills(largest):
    """The exponent of the scale that brings numbers up to so large an exponent just below 2^15."""
    return min(max(2 * BIAS + 14 - largest, LEAST), MOST)


@njit
def piece_lines(conv):
    """Input lines that count together."""
    return _PIXELS if conv.positions == 1 else 1


@njit
def image_at(conv, x, image):
    """The address of an image.  Here as below, only blocks of channels-first tensors have a pitch of pairs."""
    return x + image * (
        conv.groups * conv.c_in * conv.in_pixels * conv.itemsize if conv.pair_pitch > 0 else conv.x_image
    )


@njit
def largest_of_columns(conv, at, count):
    """The exponent of the largest of `count` neighbouring pixels from an address on, in the channels of all groups."""
    channels = conv.groups * conv.c_in
    if conv.pair_pitch > 0:
        return largest_exponent(at, conv.in_pixels * conv.itemsize, channels, count)
    if conv.x_pixel == channels * conv.itemsize:
        return largest_exponent(at, 0, 1, count * channels)
    return largest_exponent(at, conv.x_pixel, count, channels)


@njit
def largest_of_lines(conv, image, d, first, last):
    """The same in the columns of lines `first`..`last` of a slice that the kernel meets."""
    if d < 0 or d >= conv.d_in or conv.met_last <= conv.met_first:
        return 0
    pixel, columns = conv.itemsize if conv.pair_pitch > 0 else conv.x_pixel, conv.met_last - conv.met_first
    at = image + ((d * conv.h_in + first) * conv.w_in + conv.met_first) * pixel
    if columns == conv.w_in:
        return largest_of_columns(conv, at, max(last - first, 0) * columns)
    largest = 0
    for _ in range(first, last):
        largest = max(largest, largest_of_columns(conv, at, columns))
        at += conv.w_in * pixel
    return largest


@njit
def largest_met(conv, image, d_out, first, last):
    """The same in all slices that the kernel meets."""
    largest = 0
    for k_d in range(conv.k_d):
        d = d_out * conv.stride_d - conv.pad_front + k_d * conv.dilation_d
        largest = max(largest, largest_of_lines(conv, image, d, first, last))
    return largest


@njit
def largest_of_image(conv, image):
    """The same in a whole image, or in its first pixels, if they are in the usual range."""
    largest = 0
    for first in range(0, conv.in_pixels, _PIXELS):
        at = image + first * (conv.itemsize if conv.pair_pitch > 0 else conv.x_pixel)
        largest = max(largest, largest_of_columns(conv, at, min(_PIXELS, conv.in_pixels - first)))
        if largest >= START:
            return largest
    return largest


@njit
def line_after(conv, last):
    """The input line after those that output lines before number `last` meet."""
    return (last - 1) * conv.stride_h - conv.pad_top + (conv.k_h - 1) * conv.dilation_h + 1


@njit
def pieces_under(conv, each, first, last):
    """Pieces of `each` input lines, first and beyond the last, that output lines `first`..`last` meet."""
    top = min(max(first * conv.stride_h - conv.pad_top, 0), conv.h_in)
    bottom = min(max(line_after(conv, last), top), conv.h_in)
    return top // each, (bottom + each - 1) // each


@njit
def range_of(largest):
    """The number of the range that an exponent is in: 0 for the usual one and below."""
    return max(largest - END + _SPAN, 0) // _SPAN


@njit
def lines_of_a_range(conv, image, d_out, row, lines, each):
    """How many of these output lines read numbers of the same range as the first one, and the number of that range.

    A line whose pieces are of several has the largest, and is alone.
    """
    first, last = pieces_under(conv, each, row, row + 1)
    number, same = 0, True
    for piece in range(first, last):
        h = piece * each
        found = range_of(largest_met(conv, image, d_out, h, min(h + each, conv.h_in)))
        same = same and (piece == first or found == number)
        number = max(number, found)
    count = 1
    while same and count < lines:
        _, end = pieces_under(conv, each, row + count, row + count + 1)
        for piece in range(last, end):
            h = piece * each
            if range_of(largest_met(conv, image, d_out, h, min(h + each, conv.h_in))) != number:
                return count, number
        last = max(last, end)
        count += 1
    return count, number


@njit
def scale_lines(conv, x, unit, row, lines, known):
    """For how many of some lines of a slice one scale is right, from the first one on, and its exponent.

    Then come an image of small numbers and the exponent of its scale, as far as one is known, like the two in `known`.
    """
    image, d_out = divmod(unit, conv.d_out)
    address = image_at(conv, x, image)
    each = piece_lines(conv)
    first, last = pieces_under(conv, each, row, row + lines)
    largest = largest_met(conv, address, d_out, first * each, min(last * each, conv.h_in))
    if largest >= END:
        lines, number = lines_of_a_range(conv, address, d_out, row, lines, each)
        return lines, max(USUAL - _SPAN * number, LEAST), known
    if largest >= START:
        return lines, USUAL, known
    if known[0] != image:
        largest = largest_of_image(conv, address)
        ranges = 0 if largest >= START else (START - 1 - largest) // _SPAN + 1
        known = image, min(USUAL + _SPAN * ranges, MOST)
    return lines, known[1], known


@njit
def scale_block(conv, block, x, unit, units, row, lines, known):
    """Write the scales of a block, and return how many of its slices and lines they are for, and `known`."""
    for i in range(units):
        same, exponent, known = scale_lines(conv, x, unit + i, row, lines, known)
        if same < lines and i > 0:
            return i, lines, known
        put_scale(block + i * conv.unit_pitch + conv.scales, exponent, conv.unit)
        if same < lines:
            return 1, same, known
    return units, lines, known


@njit
def first_block(conv, block, x, line, last_line, known):
    """The block of a share that starts with line number `line` of all slices: slices, the first and how many, and lines; `known`.

    Small slices share the weights that come for one of them.  Where scales are `guessed`, those are written, else the right ones.
    """
    unit, row = divmod(line, conv.line)
    lines = min(conv.line_block, conv.line - row, last_line - line)
    units = min(conv.unit_block, (last_line - line) // lines) if lines == conv.line else 1
    if conv.scaled > conv.guessed:
        units, lines, known = scale_block(conv, block, x, unit, units, row, lines, known)
    elif conv.scale_step == 0:
        for i in range(units):
            exponent = guess(conv, unit + i, known) if conv.guessed != 0 else BIAS
            put_scale(block + i * conv.unit_pitch + conv.scales, exponent, conv.unit)
    return unit, units, row, lines, known


@njit
def guess(conv, unit, known):
    """The exponent of the scale that is tried for a slice."""
    return known[1] if known[0] == unit // conv.d_out else USUAL


@njit
def right_guess(conv, block, x, unit, units, row, lines, known):
    """Whether guesses are right for the numbers that were met when a block was split, and for those that count with them."""
    each = piece_lines(conv)
    for i in range(units):
        largest = met_exponent(block + i * conv.unit_pitch + conv.scales)
        if each > 1:
            image, d_out = divmod(unit + i, conv.d_out)
            address = image_at(conv, x, image)
            first, last = pieces_under(conv, np.int64(1), row, row + lines)
            before, end = first // each * each, min((last + each - 1) // each * each, conv.h_in)
            largest = max(largest, largest_met(conv, address, d_out, before, first))
            largest = max(largest, largest_met(conv, address, d_out, last, end))
        usual = START <= largest < END
        small = largest < START and known[0] == (unit + i) // conv.d_out
        if not small and (not usual or guess(conv, unit + i, known) != USUAL):
            return False
    return True
