"""Packing of input patches into rows: for im2col, for rows that collide in the L1, for taps that are whole kernel rows."""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import clear, copy, put
from numbaconv.loops.gemm import TILE, tile_start
from numbaconv.loops.tables import interior


@njit
def pack_tap(conv, to, image, h, w, channel, channels, like):
    """`channels` channels from number `channel` of the input pixel (h, w), or zeros where that is padding."""
    if 0 <= h < conv.h_in and 0 <= w < conv.w_in:
        copy(to, image + (h * conv.w_in + w) * conv.x_pixel + channel * conv.itemsize, channels, like)
    else:
        clear(to, channels, like)


@njit
def pack_kernel_row(conv, to, row, w, like):
    """All taps of one kernel row where they are neighbours in memory: zeros, one copy, zeros."""
    size = conv.c_in * conv.itemsize
    before = min(max(-w, 0), conv.k_w)
    after = min(max(w + conv.k_w - conv.w_in, 0), conv.k_w - before)
    inside = conv.k_w - before - after
    if before > 0:
        clear(to, before * conv.c_in, like)
    if inside > 0:
        copy(to + before * size, row + (w + before) * size, inside * conv.c_in, like)
    if after > 0:
        clear(to + (before + inside) * size, after * conv.c_in, like)


@njit
def pack_patch(conv, to, image, h, w, k_first, k_last, like):
    """Elements `k_first`..`k_last` of the patch whose first tap is at (h, w), taps outside, channels inside."""
    c_in, size = conv.c_in, conv.itemsize
    whole_rows = k_first == 0 and k_last == conv.k_h * conv.k_w * c_in and conv.dilation_w == 1
    if whole_rows and conv.x_pixel == c_in * size:
        for k_h in range(conv.k_h):
            h_in = h + k_h * conv.dilation_h
            if 0 <= h_in < conv.h_in:
                pack_kernel_row(conv, to, image + h_in * conv.w_in * conv.x_pixel, w, like)
            else:
                clear(to, conv.k_w * c_in, like)
            to += conv.k_w * c_in * size
        return
    k = k_first
    while k < k_last:
        tap, channel = divmod(k, c_in)
        channels = min(c_in - channel, k_last - k)
        k_h, k_w = divmod(tap, conv.k_w)
        pack_tap(conv, to, image, h + k_h * conv.dilation_h, w + k_w * conv.dilation_w, channel, channels, like)
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
        h_out, w_out = divmod(pixel, conv.w_out)
        pack_patch(
            conv,
            to,
            image,
            h_out * conv.stride_h - conv.pad_top,
            w_out * conv.stride_w - conv.pad_left,
            k_first,
            k_last,
            like,
        )
        to += conv.patch_pitch


@njit
def run_tiles(conv, tiles, first, count, patches, image, like):
    """Tile list whose taps are whole kernel rows, which are runs of the input: `conv.taps` where tiles touch no padding.

    The other tiles' patches are packed, and `conv.tables` has the taps of such rows.
    """
    for i in range(first, first + count):
        start, stop = tile_start(conv, i), tile_start(conv, i + 1)
        base, taps = interior(conv, start, stop - start), conv.taps
        if base < 0:
            pack_pixels(conv, patches, image, start, stop, np.int64(0), conv.k_h * conv.k_block, like)
            base, taps = patches - image, conv.tables
            patches += (stop - start) * conv.patch_pitch
        put(tiles, 0, start)
        put(tiles, 1, stop - start)
        put(tiles, 2, base)
        put(tiles, 3, taps)
        put(tiles, 4, conv.k_h)
        tiles += 8 * TILE
