"""im2col, blocked: the patches of one block of tiles are packed into rows of the workspace and multiplied from there.

Where one patch is too long for the workspace, its K is cut and the partial sums ride through `out` as a residual.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import call_record, conv_record
from numbaconv.loops.gemm import TILE, affine_tiles, run_panels
from numbaconv.loops.patches import pack_tiles
from numbaconv.loops.walk import CALL_BYTES, block_length, image_of, share


def im2col_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record, the tile list of a block, the patches of a block."""
    conv = conv_record(conv_address)
    call = call_record(workspace)
    tiles = workspace + CALL_BYTES
    patches = tiles + conv.tile_block * 8 * TILE
    per_image = conv.lines * conv.tiles_per_line
    k = conv.window * conv.c_in
    first_tile, last_tile = share(conv.n * per_image, part // column_parts, row_parts)
    first_column, last_column = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    call.tiles = tiles
    call.a = patches
    tile = first_tile
    while tile < last_tile:
        count = block_length(conv, tile, last_tile)
        image, number = divmod(tile, per_image)
        affine_tiles(conv, tiles, number, count, conv.patch_pitch, conv.taps)
        call.tile_count = count
        for group in range(first_column // conv.panels_per_group, (last_column - 1) // conv.panels_per_group + 1):
            before = group * conv.panels_per_group
            for k_first in range(0, k, conv.k_block):
                k_last = min(k, k_first + conv.k_block)
                pack_tiles(
                    conv,
                    patches,
                    x + image * conv.x_image + group * conv.c_in * conv.itemsize,
                    number,
                    count,
                    k_first,
                    k_last,
                    alpha,
                )
                call.k = k_last - k_first
                run_panels(
                    conv,
                    workspace,
                    group,
                    max(first_column - before, 0),
                    min(last_column - before, conv.panels_per_group),
                    k_first,
                    np.int64(k_last == k),
                    image_of(conv, out, image, conv.out_pixel),
                    image_of(conv, residual, image, conv.residual_pixel),
                    alpha,
                    beta,
                )
        tile += count


im2col_share = NativeFunction(im2col_part, "im2col_share")
