"""The loop nest of all algorithms whose tiles read channels-last pixels where they lie: pointwise, direct, indirect, depthwise.

They differ in where a block's tile list comes from, which the fields of the `CONV` record tell.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.records import call_record, conv_record
from numbaconv.loops.gemm import TILE, affine_tiles, tile_start
from numbaconv.loops.patches import pack_tiles
from numbaconv.loops.tables import CORNERS, tap_tiles
from numbaconv.loops.walk import CALL_BYTES, block_length, image_of, run_columns, share


@njit
def tiles_of_block(conv, call, number, count, image, room, like):
    """Put the tile list of a block into the call record and return the address of its A.

    `conv.tiles` is a list that the plan keeps, or 0.  Else `conv.patch_pitch` tells: 0 for a list with tap tables, made in the
    workspace from `room` on; the input's own pitch for rows in place; any other pitch for rows that are packed first.
    """
    if conv.tiles != 0:
        call.tiles = conv.tiles + number * 8 * TILE
        return image
    call.tiles = room
    rest = room + conv.tile_block * 8 * TILE
    if conv.patch_pitch == 0:
        tap_tiles(conv, room, number, count, rest + CORNERS, rest)
        return image
    affine_tiles(conv, room, number, count, conv.patch_pitch, conv.taps)
    if conv.patch_pitch == conv.x_pixel:
        return image + tile_start(conv, number) * conv.x_pixel
    pack_tiles(conv, rest, image, number, count, np.int64(0), conv.c_in, like)
    return rest


def in_place_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record, then whatever `tiles_of_block` makes there."""
    conv = conv_record(conv_address)
    call = call_record(workspace)
    per_image = conv.lines * conv.tiles_per_line
    first_tile, last_tile = share(conv.n * per_image, part // column_parts, row_parts)
    first_column, last_column = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    call.k = conv.k_block
    # Column blocks outside: their weights stay in the L2 while all tiles pass by.
    for column in range(first_column, last_column, conv.column_block):
        tile = first_tile
        # Blocks of tiles inside: the pixels that they read stay in the L2 while the panels pass by.
        while tile < last_tile:
            count = block_length(conv, tile, last_tile)
            image, number = divmod(tile, per_image)
            a = tiles_of_block(conv, call, number, count, x + image * conv.x_image, workspace + CALL_BYTES, alpha)
            call.tile_count = count
            run_columns(
                conv,
                workspace,
                column,
                min(column + conv.column_block, last_column),
                a,
                image_of(conv, out, image, conv.out_pixel),
                image_of(conv, residual, image, conv.residual_pixel),
                alpha,
                beta,
            )
            tile += count


in_place_share = NativeFunction(in_place_part, "in_place_share")
