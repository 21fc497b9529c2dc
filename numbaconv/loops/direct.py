"""Direct convolution: tiles read the input in place; only tiles at the border have tap tables built, a block at a time."""

from __future__ import annotations

import numpy as np
from numba import prange

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import call_record, conv_record
from numbaconv.loops.gemm import TILE
from numbaconv.loops.tables import CORNERS, tap_tiles
from numbaconv.loops.walk import CALL_BYTES, block_length, image_of, run_columns, share


@njit
def direct_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record, the tile list of a block, scratch, tap tables."""
    conv = conv_record(conv_address)
    call = call_record(workspace)
    tiles = workspace + CALL_BYTES
    corners = tiles + conv.tile_block * 8 * TILE
    tables = corners + CORNERS
    per_image = conv.lines * conv.tiles_per_line
    first_tile, last_tile = share(conv.n * per_image, part // column_parts, row_parts)
    first_column, last_column = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    call.k = conv.c_in
    call.tiles = tiles
    # Column blocks outside: their weights stay in the L2 while all tiles pass by.
    for column in range(first_column, last_column, conv.column_block):
        tile = first_tile
        while tile < last_tile:
            count = block_length(conv, tile, last_tile)
            image = tile // per_image
            tap_tiles(conv, tiles, tile % per_image, count, tables, corners)
            call.tile_count = count
            run_columns(
                conv,
                workspace,
                column,
                min(column + conv.column_block, last_column),
                x + image * conv.x_image,
                image_of(conv, out, image, conv.out_pixel),
                image_of(conv, residual, image, conv.residual_pixel),
                alpha,
                beta,
            )
            tile += count


@njit(parallel=True)
def direct_parallel(row_parts, column_parts, conv_address, x, out, residual, workspace, pitch, alpha, beta):
    """All parts at once; each has `pitch` bytes of the workspace."""
    for part in prange(row_parts * column_parts):
        direct_part(
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
