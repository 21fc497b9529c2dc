"""The core: column panels by register tiles, driven by a tile list; and what makes such lists.

The core is compiled once an element type and called through its address, so drivers hold loops only and compile fast.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import types

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_core, fence, get, itemsize, prefetch, put
from numbaconv.codegen.records import call_record
from numbaconv.codegen.target import target
from numbaconv.codegen.tile import FOLLOWING, TILE, dense_tiles
from numbaconv.epilogue import KINDS

MR, NV, WIDE_ROWS = target().rows, target().vectors, target().wide_rows
VECTOR_BYTES = target().vector_bytes
#: Bytes of one row of a packed panel.
PANEL_ROW = NV * VECTOR_BYTES

#: An activation number that the tiles do not know: values are stored as they are.
RAW = len(KINDS)

#: A tap: byte offset of its weights in the panel, then one byte offset a row (negative: a row of zeros).
TAP = 1 + MR


#: Two panels at once take a third less loads a multiply-add, but no prefetching: where weights may come from beyond the L2, they
#: need so many tiles to share the cost of fetching them, and may take so many bytes that the L2 keeps them meanwhile.
PAIR_TILES, PAIR_BYTES = 12, 1 << 20
#: Rows of A of so many bytes stay in the L1 while panels pass by.
BLOCK_BYTES = 1 << 14
#: `tiles_outside` where rows of C are so long, and so far apart, that each tile writes all of its own before the next one.
ONE_BY_ONE = 2
#: Cold weights of so many bytes are asked for before they are read, even if the L2 keeps them from tile to tile.
FAR_BYTES = 1 << 19


@njit
def fetch_rows(call, tile, piece, pieces, nbytes):
    """Ask for a piece of the rows of a tile of one tap: they lie apart in memory, which no hardware sees coming."""
    rows, a, taps = get(tile, 1), call.a + get(tile, 2), get(tile, 3)
    for row in range(piece * rows // pieces, (piece + 1) * rows // pieces):
        prefetch(a + get(taps, 1 + row), nbytes)


@njit
def alike(tiles, count):
    """How many tiles at the start of a list of so many are as high as the first one."""
    height, n = get(tiles, 1), 1
    while n < count and get(tiles + n * 8 * TILE, 1) == height:
        n += 1
    return n


def core(call_address, alpha, beta):
    """Column panels by tiles, as the `CALL` record at an address tells."""
    call = call_record(call_address)
    size = itemsize(alpha)
    lanes = VECTOR_BYTES // size
    # weights stay in the L2
    kept = call.tiles_outside != 0 or (call.tile_count >= PAIR_TILES and 2 * call.panel_bytes <= PAIR_BYTES)
    together = 2 if WIDE_ROWS > 0 and kept else 1
    panels = (call.columns + NV * lanes - 1) // (NV * lanes)
    far = not kept or (call.cold != 0 and call.tiles_outside == 0 and panels * call.panel_bytes > FAR_BYTES)
    span = together * NV * lanes
    # Panels outside keep their part of B in the L1 or L2 while all tiles pass by.  Where all of B fits there anyway, they only
    # stay for as many tiles as the L1 holds: these read their rows of A from there and write their rows of C in one go.
    block = max(np.int64(1), call.tile_count)
    if call.tiles_outside != 0:
        block = max(np.int64(1), BLOCK_BYTES // (MR * get(call.tiles, 4) * call.k * size + 1))
    if call.tiles_outside == ONE_BY_ONE:
        block = np.int64(1)
    for first_tile in range(0, call.tile_count, block):
        last_tile = min(first_tile + block, call.tile_count)
        for first in range(0, call.columns, span):
            width = min(together * NV, (call.columns - first + lanes - 1) // lanes)
            panel = call.panels + first // (NV * lanes) * call.panel_bytes
            after = panel + together * call.panel_bytes if first + span < call.columns else call.following
            number, turn = first_tile, 0
            while number < last_tile:
                record = call.tiles + number * 8 * TILE
                height, taps = get(record, 1), get(record, 4)
                fetch = call.fetch != 0 and first == 0 and number + 1 < call.tile_count
                # the first tiles ask for parts of the weights that come next
                asking = far and after != 0 and turn < FOLLOWING
                count = np.int64(1) if fetch or asking else alike(record, last_tile - number)
                # The tallest tiles are narrow, so wide ones take their rows in pieces.
                pieces = 2 if width > NV and height > WIDE_ROWS else 1
                for piece in range(pieces):
                    above, below = (piece * height) >> (pieces - 1), ((piece + 1) * height) >> (pieces - 1)
                    if fetch:
                        fetch_rows(call, record + 8 * TILE, piece, pieces, call.k * size)
                    following = 0
                    if asking and turn < FOLLOWING:
                        following = after - panel + turn * (together * call.k * taps * PANEL_ROW // FOLLOWING)
                    turn += 1
                    dense_tiles(
                        MR,
                        NV,
                        WIDE_ROWS,
                        below - above,
                        width,
                        int(far),
                        call_address,
                        record,
                        count,
                        above,
                        first,
                        panel,
                        following,
                        alpha,
                        beta,
                    )
                number += count
    if call.streamed != 0:
        fence()


gemm_core = NativeFunction(core, "gemm")


@functools.cache
def core_address(function: NativeFunction, np_dtype) -> int:
    """Entry point of a core for float32 or float64."""
    scalar = numba.from_dtype(np_dtype)
    return function.address(types.void(types.intp, scalar, scalar))


@njit
def tile_start(conv, tile):
    """First output pixel, within its image, of tile number `tile`: lines are cut into tiles of even height, higher ones first."""
    line, part = divmod(tile, conv.tiles_per_line)
    height, higher = divmod(conv.line, conv.tiles_per_line)
    return line * conv.line + part * height + min(part, higher)


@njit
def affine_tiles(conv, tiles, first, count, pitch, taps):
    """Tile list of `count` tiles from number `first`, whose rows lie `pitch` bytes apart and share one tap record."""
    origin = start = tile_start(conv, first)
    for i in range(count):
        stop = tile_start(conv, first + i + 1)
        put(tiles, 0, start)
        put(tiles, 1, stop - start)
        put(tiles, 2, (start - origin) * pitch)
        put(tiles, 3, taps)
        put(tiles, 4, 1)
        tiles += 8 * TILE
        start = stop


@njit
def run_panels(conv, call_address, group, first, last, k_first, complete, out_image, residual_image, alpha, beta):
    """Columns of panels `first`..`last` of one group, for the tiles, A and K already in the call record.

    Where K comes in several pieces, `k_first` is where this one starts and only the last is `complete` (not 0): sums so far wait
    in `out` and come back as the residual.
    """
    call = call_record(call_address)
    row = NV * (VECTOR_BYTES // conv.itemsize)
    column = (group * conv.c_out + first * row) * conv.itemsize
    number = group * conv.panels_per_group + first
    call.zeros = conv.zeros
    call.panels = conv.panels + number * conv.panel_bytes + k_first * PANEL_ROW
    call.panel_bytes = conv.panel_bytes
    call.cold = conv.cold
    call.following = 0
    if group * conv.panels_per_group + last < conv.groups * conv.panels_per_group:
        call.following = call.panels + (last - first) * conv.panel_bytes
    call.columns = min(conv.c_out, last * row) - first * row
    call.c = out_image + column
    call.c_pitch = conv.out_pixel
    call.c_step = conv.out_step
    call.streamed = int(conv.streamed != 0 and (call.c | call.c_pitch) % VECTOR_BYTES == 0)
    call.far_results = conv.far_results
    if k_first > 0:
        call.residual = call.c
        call.residual_pitch = conv.out_pixel
    else:
        call.residual = 0 if residual_image == 0 else residual_image + column
        call.residual_pitch = conv.residual_pixel
    call.bias = conv.bias + number * PANEL_ROW if complete != 0 else conv.zeros
    call.tiles_outside = conv.tiles_outside
    call.fetch = conv.fetch
    call.activation = conv.activation if complete != 0 else RAW
    call_core(conv.core, call_address, alpha, beta)
