"""Tap tables: where each row of a register tile finds its channels, for each tap of the kernel; padding becomes a row of zeros.

The indirect algorithm builds them once a shape (Dukhan, "The Indirect Convolution Algorithm", 2019), the direct one
only for tiles that touch padding or span two rows.
"""

from __future__ import annotations

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import conv_record, get, put
from numbaconv.loops.gemm import MR, PANEL_ROW, TAP, TILE, tile_start

#: Bytes of scratch that `tap_table` needs: the input position of each row's first tap.
CORNERS = 16 * MR


@njit
def tap_table(conv, table, start, height, corners):
    """Tap records of the tile of output pixels `start`..`start + height`; returns how many taps it has.

    Offsets count from the image.  Taps that lie in padding for every row are left out.
    """
    for i in range(height):
        h_out, w_out = divmod(start + i, conv.w_out)
        put(corners, 2 * i, h_out * conv.stride_h - conv.pad_top)
        put(corners, 2 * i + 1, w_out * conv.stride_w - conv.pad_left)
    taps = 0
    for k_h in range(conv.k_h):
        for k_w in range(conv.k_w):
            inside = False
            for i in range(height):
                h = get(corners, 2 * i) + k_h * conv.dilation_h
                w = get(corners, 2 * i + 1) + k_w * conv.dilation_w
                at = -1
                if 0 <= h < conv.h_in and 0 <= w < conv.w_in:
                    at = (h * conv.w_in + w) * conv.x_pixel
                    inside = True
                put(table, 1 + i, at)
            if inside:
                put(table, 0, (k_h * conv.k_w + k_w) * conv.c_in * PANEL_ROW)
                table += 8 * TAP
                taps += 1
    return taps


@njit
def interior(conv, start, height):
    """Byte offset of the first tap of a tile that lies in one row and touches no padding; -1 for any other tile."""
    h_out, w_out = divmod(start, conv.w_out)
    h, w = h_out * conv.stride_h - conv.pad_top, w_out * conv.stride_w - conv.pad_left
    h_end = h + (conv.k_h - 1) * conv.dilation_h
    w_end = w + (height - 1) * conv.stride_w + (conv.k_w - 1) * conv.dilation_w
    if w_out + height <= conv.w_out and h >= 0 and w >= 0 and h_end < conv.h_in and w_end < conv.w_in:
        return (h * conv.w_in + w) * conv.x_pixel
    return -1


@njit
def tap_tiles(conv, tiles, first, count, tables, corners):
    """Tile list of `count` tiles from number `first`: interior ones share `conv.taps`, the others get tables of their own."""
    for i in range(first, first + count):
        start = tile_start(conv, i)
        height = tile_start(conv, i + 1) - start
        base, taps, n_taps = interior(conv, start, height), conv.taps, conv.k_h * conv.k_w
        if base < 0 or conv.taps == 0:
            base, taps = 0, tables
            n_taps = tap_table(conv, tables, start, height, corners)
            tables += conv.k_h * conv.k_w * 8 * TAP
        put(tiles, 0, start)
        put(tiles, 1, height)
        put(tiles, 2, base)
        put(tiles, 3, taps)
        put(tiles, 4, n_taps)
        tiles += 8 * TILE


@njit
def build_indirection(conv_address, tiles, tables, corners):
    """The whole tile list of one image, every tile with a table of its own."""
    conv = conv_record(conv_address)
    tap_tiles(conv, tiles, 0, conv.lines * conv.tiles_per_line, tables, corners)
