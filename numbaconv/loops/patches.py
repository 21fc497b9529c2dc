"""Packing of input patches into rows: for im2col, for rows that collide in the L1, for padded copies."""

from __future__ import annotations

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import clear, copy
from numbaconv.loops.gemm import tile_start
from numbaconv.loops.tables import ZEROS, first_tap, source


@njit
def pack_tap(conv, to, image, d, h, w, channel, channels, like):
    """`channels` channels from number `channel` of what stands at the input position (d, h, w)."""
    d = source(conv.padding_mode, d, conv.d_in)
    h = source(conv.padding_mode, h, conv.h_in)
    w = source(conv.padding_mode, w, conv.w_in)
    if d >= 0 and h >= 0 and w >= 0:
        pixel = (d * conv.h_in + h) * conv.w_in + w
        copy(to, image + pixel * conv.x_pixel + channel * conv.itemsize, channels, like)
    else:
        clear(to, channels, like)


@njit
def pack_columns(conv, to, row, first, last, like):
    """What stands in the columns `first`..`last` of an input row and beyond it, column by column."""
    for w in range(first, last):
        w_in = source(conv.padding_mode, w, conv.w_in)
        if w_in >= 0:
            copy(to, row + w_in * conv.x_pixel, conv.c_in, like)
        else:
            clear(to, conv.c_in, like)
        to += conv.c_in * conv.itemsize


@njit
def pack_padding(conv, to, row, first, last, like):
    """What stands in the columns `first`..`last` beyond an input row."""
    if conv.padding_mode == ZEROS:
        clear(to, (last - first) * conv.c_in, like)
    else:
        pack_columns(conv, to, row, first, last, like)


@njit
def pack_row(conv, to, row, w, columns, like):
    """`columns` columns of an input row from number `w` on: padding, one copy where they are neighbours in memory, padding."""
    size = conv.c_in * conv.itemsize
    before = min(max(-w, 0), columns)
    after = min(max(w + columns - conv.w_in, 0), columns - before)
    inside = columns - before - after
    if before > 0:
        pack_padding(conv, to, row, w, w + before, like)
    if inside > 0 and conv.x_pixel == size:
        copy(to + before * size, row + (w + before) * size, inside * conv.c_in, like)
    elif inside > 0:
        pack_columns(conv, to + before * size, row, w + before, w + before + inside, like)
    if after > 0:
        pack_padding(conv, to + (before + inside) * size, row, w + before + inside, w + columns, like)


@njit
def pack_patch(conv, to, image, d, h, w, k_first, k_last, like):
    """Elements `k_first`..`k_last` of the patch whose first tap is at (d, h, w), taps outside, channels inside."""
    c_in, size = conv.c_in, conv.itemsize
    whole_rows = k_first == 0 and k_last == conv.window * c_in and conv.dilation_w == 1
    if whole_rows and conv.x_pixel == c_in * size:
        for row in range(conv.k_d * conv.k_h):
            k_d, k_h = divmod(row, conv.k_h)
            d_in = source(conv.padding_mode, d + k_d * conv.dilation_d, conv.d_in)
            h_in = source(conv.padding_mode, h + k_h * conv.dilation_h, conv.h_in)
            if d_in >= 0 and h_in >= 0:
                line = image + (d_in * conv.h_in + h_in) * conv.w_in * conv.x_pixel
                pack_row(conv, to, line, w, conv.k_w, like)
            else:
                clear(to, conv.k_w * c_in, like)
            to += conv.k_w * c_in * size
        return
    k = k_first
    while k < k_last:
        tap, channel = divmod(k, c_in)
        channels = min(c_in - channel, k_last - k)
        row, k_w = divmod(tap, conv.k_w)
        k_d, k_h = divmod(row, conv.k_h)
        pack_tap(
            conv,
            to,
            image,
            d + k_d * conv.dilation_d,
            h + k_h * conv.dilation_h,
            w + k_w * conv.dilation_w,
            channel,
            channels,
            like,
        )
        to += channels * size
        k += channels


@njit
def pack_tiles(conv, to, image, first, count, k_first, k_last, like):
    """Patches of all output pixels of `count` tiles from number `first`, one row each, `conv.patch_pitch` bytes apart."""
    pack_pixels(conv, to, image, tile_start(conv, first), tile_start(conv, first + count), k_first, k_last, like)


@njit
def pack_pixels(conv, to, image, start, stop, k_first, k_last, like):
    """Patches of the output pixels `start`..`stop`."""
    for pixel in range(start, stop):
        d, h, w = first_tap(conv, pixel)
        pack_patch(conv, to, image, d, h, w, k_first, k_last, like)
        to += conv.patch_pitch
