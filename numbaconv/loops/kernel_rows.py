"""The loop nest for few channels: a tap is a whole kernel row, whose pixels follow one another in memory.

Tiles read the input where it lies as long as a block of them touches no padding.  Under any other block lies a strip: a copy of
the rows that it reads, with what stands beyond their ends, so that no tile ever sees padding and all share one tap table.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import clear, put
from numbaconv.codegen.records import call_record, conv_record
from numbaconv.loops.gemm import TILE
from numbaconv.loops.patches import pack_row
from numbaconv.loops.tables import first_tap, source
from numbaconv.loops.walk import CALL_BYTES, image_of, run_columns, share


@njit
def block_of_lines(conv, tile, stop):
    """Tiles from number `tile` of an image to `stop` that form one block: whole lines of one slice, or a stretch of one line."""
    line, part = divmod(tile, conv.tiles_per_line)
    lines = 1 if part > 0 else conv.h_out - line % conv.h_out
    return min(lines * conv.tiles_per_line - part, conv.tile_block, stop - tile)


@njit
def fill_strip(conv, strip, image, d, h, w, rows, columns, like):
    """Copy `rows` rows of `columns` pixels from the input position (d, h, w) on, for each slice of the kernel."""
    for k_d in range(conv.k_d):
        d_in = source(conv.padding_mode, d + k_d * conv.dilation_d, conv.d_in)
        to = strip + k_d * conv.strip_pitch
        for row in range(rows):
            h_in = source(conv.padding_mode, h + row, conv.h_in)
            if d_in >= 0 and h_in >= 0:
                line = image + (d_in * conv.h_in + h_in) * conv.w_in * conv.x_pixel
                pack_row(conv, to, line, w, columns, like)
            else:
                clear(to, columns * conv.c_in, like)
            to += conv.row_pitch


@njit
def tiles_over(conv, tiles, first, count, begin, row, pixel, taps):
    """Tile list of `count` tiles from number `first`; A begins at column `begin` of the first one's line.

    Input rows lie `row` bytes apart, columns `pixel`.
    """
    line, part = divmod(first, conv.tiles_per_line)
    start, a = part * conv.line // conv.tiles_per_line, 0
    for _ in range(count):
        part += 1
        stop = part * conv.line // conv.tiles_per_line
        put(tiles, 0, line * conv.line + start)
        put(tiles, 1, stop - start)
        put(tiles, 2, a + (start - begin) * conv.stride_w * pixel)
        put(tiles, 3, taps)
        put(tiles, 4, conv.k_d * conv.k_h)
        tiles += 8 * TILE
        start = stop
        if part == conv.tiles_per_line:
            line, part, start = line + 1, 0, 0
            a += conv.stride_h * row


@njit
def lines_of_block(conv, call, number, count, image, room, like):
    """Put the tile list of a block into the call record and return the address of its A: the input, or a strip."""
    line, part = divmod(number, conv.tiles_per_line)
    last, last_part = divmod(number + count - 1, conv.tiles_per_line)
    begin, end = 0, conv.line
    if last == line:
        begin, end = part * conv.line // conv.tiles_per_line, (last_part + 1) * conv.line // conv.tiles_per_line
    d, h, w = first_tap(conv, line * conv.line + begin)
    rows = (last - line) * conv.stride_h + (conv.k_h - 1) * conv.dilation_h + 1
    columns = (end - begin - 1) * conv.stride_w + conv.k_w
    call.tiles = room
    pixel = conv.c_in * conv.itemsize
    inside = d >= 0 and h >= 0 and w >= 0 and h + rows <= conv.h_in and w + columns <= conv.w_in
    if inside and d + (conv.k_d - 1) * conv.dilation_d < conv.d_in and pixel == conv.x_pixel:
        tiles_over(conv, room, number, count, begin, conv.w_in * pixel, pixel, conv.taps)
        return image + ((d * conv.h_in + h) * conv.w_in + w) * pixel
    tiles_over(conv, room, number, count, begin, conv.row_pitch, pixel, conv.tables)
    strip = room + conv.tile_block * 8 * TILE
    fill_strip(conv, strip, image, d, h, w, rows, columns, like)
    return strip


def kernel_rows_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record, the tile list of a block, a strip."""
    conv = conv_record(conv_address)
    call = call_record(workspace)
    per_image = conv.lines * conv.tiles_per_line
    tile, last_tile = share(conv.n * per_image, part // column_parts, row_parts)
    first_column, last_column = share(conv.panels_per_group, part % column_parts, column_parts)
    call.k = conv.k_block
    while tile < last_tile:
        image, number = divmod(tile, per_image)
        count = block_of_lines(conv, number, min(number + last_tile - tile, per_image))
        a = lines_of_block(conv, call, number, count, x + image * conv.x_image, workspace + CALL_BYTES, alpha)
        call.tile_count = count
        run_columns(
            conv,
            workspace,
            first_column,
            last_column,
            a,
            image_of(conv, out, image, conv.out_pixel),
            image_of(conv, residual, image, conv.residual_pixel),
            alpha,
            beta,
        )
        tile += count


kernel_rows_share = NativeFunction(kernel_rows_part, "kernel_rows_share")
