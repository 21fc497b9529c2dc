"""Tap tables: where each row of a register tile finds its channels, for each tap of the kernel.  Padding becomes a row
of zeros, or the pixel that it repeats.

The indirect algorithm builds them once a shape (Dukhan, "The Indirect Convolution Algorithm", 2019), the direct one
only for tiles that touch padding or span two rows.
"""

from __future__ import annotations

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import get, put
from numbaconv.codegen.records import conv_record
from numbaconv.loops.gemm import MR, PANEL_ROW, TAP, TILE, tile_start
from numbaconv.problem import PADDING_MODES

#: Bytes of scratch that `tap_table` needs: the input position of each row's first tap.
CORNERS = 24 * MR

ZEROS, REFLECT, CIRCULAR = (PADDING_MODES.index(mode) for mode in ("zeros", "reflect", "circular"))


@njit
def source(mode, at, size):
    """Where along an axis of `size` elements position `at` takes its value from; -1 where it is a zero.

    Beyond the padding that a problem may have, the nearest element is as good as any.
    """
    if 0 <= at < size:
        return at
    if mode == ZEROS:
        return -1
    if mode == REFLECT:
        at = -at if at < 0 else 2 * (size - 1) - at
    elif mode == CIRCULAR:
        at = at + size if at < 0 else at - size
    return min(max(at, 0), size - 1)


@njit
def first_tap(conv, pixel):
    """(slice, row, column) of the first tap of an output pixel, counted within its image."""
    line, w_out = divmod(pixel, conv.w_out)
    d_out, h_out = divmod(line, conv.h_out)
    return (
        d_out * conv.stride_d - conv.pad_front,
        h_out * conv.stride_h - conv.pad_top,
        w_out * conv.stride_w - conv.pad_left,
    )


@njit
def tap_table(conv, table, start, height, corners):
    """Tap records of the tile of output pixels `start`..`start + height`; returns how many taps it has.

    Offsets count from the image.  Taps that read zeros for every row are left out.
    """
    for i in range(height):
        d, h, w = first_tap(conv, start + i)
        put(corners, 3 * i, d)
        put(corners, 3 * i + 1, h)
        put(corners, 3 * i + 2, w)
    taps = 0
    for tap in range(conv.window):
        row, k_w = divmod(tap, conv.k_w)
        k_d, k_h = divmod(row, conv.k_h)
        inside = False
        for i in range(height):
            d = source(conv.padding_mode, get(corners, 3 * i) + k_d * conv.dilation_d, conv.d_in)
            h = source(conv.padding_mode, get(corners, 3 * i + 1) + k_h * conv.dilation_h, conv.h_in)
            w = source(conv.padding_mode, get(corners, 3 * i + 2) + k_w * conv.dilation_w, conv.w_in)
            at = -1
            if d >= 0 and h >= 0 and w >= 0:
                at = ((d * conv.h_in + h) * conv.w_in + w) * conv.x_pixel
                inside = True
            put(table, 1 + i, at)
        if inside:
            put(table, 0, tap * conv.c_in * PANEL_ROW)
            table += 8 * TAP
            taps += 1
    return taps


@njit
def interior(conv, start, height):
    """Byte offset of the first tap of a tile that lies in one row and touches no padding; -1 for any other tile."""
    d, h, w = first_tap(conv, start)
    d_end = d + (conv.k_d - 1) * conv.dilation_d
    h_end = h + (conv.k_h - 1) * conv.dilation_h
    w_end = w + (height - 1) * conv.stride_w + (conv.k_w - 1) * conv.dilation_w
    inside = d >= 0 and h >= 0 and w >= 0 and d_end < conv.d_in and h_end < conv.h_in and w_end < conv.w_in
    if inside and start % conv.w_out + height <= conv.w_out:
        return ((d * conv.h_in + h) * conv.w_in + w) * conv.x_pixel
    return -1


@njit
def tap_tiles(conv, tiles, first, count, tables, corners):
    """Tile list of `count` tiles from number `first`: interior ones share `conv.taps`, the others get tables of their own."""
    for i in range(first, first + count):
        start = tile_start(conv, i)
        height = tile_start(conv, i + 1) - start
        base, taps, n_taps = interior(conv, start, height), conv.taps, conv.window
        if base < 0 or conv.taps == 0:
            base, taps = 0, tables
            n_taps = tap_table(conv, tables, start, height, corners)
            tables += conv.window * 8 * TAP
        put(tiles, 0, start)
        put(tiles, 1, height)
        put(tiles, 2, base)
        put(tiles, 3, taps)
        put(tiles, 4, n_taps)
        tiles += 8 * TILE


@njit(entry=True)
def build_indirection(conv_address, tiles, tables, corners):
    """The whole tile list of one image, every tile with a table of its own."""
    conv = conv_record(conv_address)
    tap_tiles(conv, tiles, 0, conv.lines * conv.tiles_per_line, tables, corners)
