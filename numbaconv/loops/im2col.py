"""im2col, blocked: the patches of one block of tiles are packed into rows of the workspace and multiplied from there.

What fills the rows is the packer that the `CONV` record names: copies of the input here, samples of it in `loops.sampling`.
Where one patch is too long for the workspace, its K is cut and the partial sums ride through `out` as a residual.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import call_core
from numbaconv.codegen.records import PACK, SPARE, call_record, conv_record, pack_record
from numbaconv.loops.gemm import TILE, affine_tiles, run_panels
from numbaconv.loops.patches import pack_tiles
from numbaconv.loops.walk import CALL_BYTES, block_length, image_of, share

#: What a thread's workspace starts with: a call record, a record for the packer and its spare bytes.
SPARE_AT = CALL_BYTES + PACK.itemsize
HEADER = SPARE_AT + SPARE


def _copies(address, alpha, beta):
    """Pack patches of the input itself."""
    pack = pack_record(address)
    conv = conv_record(pack.conv)
    image = pack.x + pack.image * conv.x_image + pack.group * conv.c_in * conv.itemsize
    pack_tiles(conv, pack.to, image, pack.first, pack.count, pack.k_first, pack.k_last, alpha)


copies = NativeFunction(_copies, "im2col_copies")


def im2col_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: the header, the tile list of a block, the patches of a block."""
    conv = conv_record(conv_address)
    call, pack = call_record(workspace), pack_record(workspace + CALL_BYTES)
    tiles = workspace + HEADER
    patches = tiles + conv.tile_block * 8 * TILE
    per_image = conv.lines * conv.tiles_per_line
    k = conv.window * conv.c_in
    first_tile, last_tile = share(conv.n * per_image, part // column_parts, row_parts)
    first_column, last_column = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    call.tiles = tiles
    call.a = patches
    pack.conv = conv_address
    pack.x = x
    pack.to = patches
    pack.spare = workspace + SPARE_AT
    tile = first_tile
    while tile < last_tile:
        count = block_length(conv, tile, last_tile)
        image, number = divmod(tile, per_image)
        affine_tiles(conv, tiles, number, count, conv.patch_pitch, conv.taps)
        call.tile_count = count
        pack.image = image
        pack.first = number
        pack.count = count
        for group in range(first_column // conv.panels_per_group, (last_column - 1) // conv.panels_per_group + 1):
            before = group * conv.panels_per_group
            pack.group = group
            for k_first in range(0, k, conv.k_block):
                k_last = min(k, k_first + conv.k_block)
                pack.k_first = k_first
                pack.k_last = k_last
                call_core(conv.packer, workspace + CALL_BYTES, alpha, beta)
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
