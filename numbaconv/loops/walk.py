"""How the output is shared out and walked: parts for threads, column blocks that fit the L2, blocks of tiles of one image."""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import get, put
from numbaconv.codegen.records import CALL, CONV, call_record
from numbaconv.loops.gemm import run_panels

#: A thread's workspace starts with its call record.
CALL_BYTES = CALL.itemsize
#: A loop nest that fills in what another one is to do hands it a copy of its record.
RECORD_BYTES = CONV.itemsize
_FIELDS = RECORD_BYTES // 8


@njit
def copy_record(source, to):
    """Copy a `CONV` record."""
    for i in range(_FIELDS):
        put(to, i, get(source, i))


@njit
def share(total, part, parts):
    """Bounds of part number `part` when `total` things are cut into `parts` contiguous, even parts."""
    return part * total // parts, (part + 1) * total // parts


@njit
def block_length(conv, tile, stop):
    """Tiles from number `tile` that form one block: they stay inside one image and inside the share that ends at `stop`."""
    tiles = conv.lines * conv.tiles_per_line
    return min(stop - tile, tiles - tile % tiles, conv.tile_block)


@njit
def run_columns(conv, call_address, first, last, x_image, out_image, residual_image, alpha, beta):
    """Panels `first`..`last`, counted over all groups, for the tiles already in the call record; A is the input itself."""
    call = call_record(call_address)
    for group in range(first // conv.panels_per_group, (last - 1) // conv.panels_per_group + 1):
        before = group * conv.panels_per_group
        call.a = x_image + group * conv.c_in * conv.itemsize
        run_panels(
            conv,
            call_address,
            group,
            max(first - before, 0),
            min(last - before, conv.panels_per_group),
            np.int64(0),
            np.int64(1),
            out_image,
            residual_image,
            alpha,
            beta,
        )


@njit
def image_of(conv, base, image, pixel):
    """Address of an image of an output-shaped tensor whose pixels lie `pixel` bytes apart; 0 stays 0 (no residual)."""
    return 0 if base == 0 else base + image * conv.out_pixels * pixel
