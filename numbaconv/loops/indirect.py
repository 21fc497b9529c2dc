"""Indirect convolution: the tile list of an image is made once a shape and kept; a call only walks it (Dukhan 2019)."""

from __future__ import annotations

import numpy as np
from numba import prange

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import call_record, conv_record
from numbaconv.loops.gemm import TILE
from numbaconv.loops.walk import block_length, image_of, run_columns, share


@njit
def indirect_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record."""
    conv = conv_record(conv_address)
    call = call_record(workspace)
    per_image = conv.lines * conv.tiles_per_line
    first_tile, last_tile = share(conv.n * per_image, part // column_parts, row_parts)
    first_column, last_column = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    call.k = conv.c_in
    for column in range(first_column, last_column, conv.column_block):
        tile = first_tile
        while tile < last_tile:
            count = block_length(conv, tile, last_tile)
            image = tile // per_image
            call.tiles = conv.tiles + tile % per_image * 8 * TILE
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
def indirect_parallel(row_parts, column_parts, conv_address, x, out, residual, workspace, pitch, alpha, beta):
    """All parts at once; each has `pitch` bytes of the workspace."""
    for part in prange(row_parts * column_parts):
        indirect_part(
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
