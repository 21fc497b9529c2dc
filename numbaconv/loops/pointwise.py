"""1x1 convolution: a GEMM on the pixels where they lie, or on packed copies of rows that would collide in the L1."""

from __future__ import annotations

import numpy as np
from numba import prange

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import call_record, conv_record
from numbaconv.loops.gemm import TILE, affine_tiles, tile_start
from numbaconv.loops.patches import pack_tiles
from numbaconv.loops.tables import CORNERS, tap_tiles
from numbaconv.loops.walk import CALL_BYTES, block_length, image_of, run_columns, share


@njit
def rows_of_block(conv, tiles, number, count, image, scratch, like):
    """Make the tile list of a block and return the address of its A.

    `conv.patch_pitch` tells how: 0 for pixels that are strided or padded, the input's pitch for rows in place, any other
    pitch for packed rows.
    """
    if conv.patch_pitch == 0:
        tap_tiles(conv, tiles, number, count, scratch + CORNERS, scratch)
        return image
    affine_tiles(conv, tiles, number, count, conv.patch_pitch, conv.taps)
    if conv.patch_pitch == conv.x_pixel:
        return image + tile_start(conv, number) * conv.x_pixel
    pack_tiles(conv, scratch, image, number, count, np.int64(0), conv.groups * conv.c_in, like)
    return scratch


@njit
def pointwise_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record, the tile list of a block, packed rows or tap tables."""
    conv = conv_record(conv_address)
    call = call_record(workspace)
    tiles = workspace + CALL_BYTES
    scratch = tiles + conv.tile_block * 8 * TILE
    per_image = conv.lines * conv.tiles_per_line
    first_tile, last_tile = share(conv.n * per_image, part // column_parts, row_parts)
    first_column, last_column = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    call.k = conv.c_in
    call.tiles = tiles
    for column in range(first_column, last_column, conv.column_block):
        tile = first_tile
        while tile < last_tile:
            count = block_length(conv, tile, last_tile)
            image, number = divmod(tile, per_image)
            a = rows_of_block(conv, tiles, number, count, x + image * conv.x_image, scratch, alpha)
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


@njit(parallel=True)
def pointwise_parallel(row_parts, column_parts, conv_address, x, out, residual, workspace, pitch, alpha, beta):
    """All parts at once; each has `pitch` bytes of the workspace."""
    for part in prange(row_parts * column_parts):
        pointwise_part(
            np.int64(part),
            row_parts,
            column_parts,
            conv_address,
            x,
            out,
            residual,
            workspace + part * pitch,
            alpha,
            beta,
        )
