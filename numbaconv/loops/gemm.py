"""The core: column panels by register tiles, driven by a tile list; and what makes such lists.

The core is compiled once an element type and called through its address, so drivers hold loops only and compile fast.
"""

from __future__ import annotations

import functools

import numba
from numba import types

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_core, call_record, fence, get, itemsize, prefetch, put
from numbaconv.codegen.target import target
from numbaconv.codegen.tile import FOLLOWING, OPERATIONS, tile
from numbaconv.epilogue import KINDS

MR, NV, WIDE_ROWS = target().rows, target().vectors, target().wide_rows
VECTOR_BYTES = target().vector_bytes
#: Bytes of one row of a packed panel.
PANEL_ROW = NV * VECTOR_BYTES

#: An activation number that the tiles do not know: values are stored as they are.
RAW = len(KINDS)

#: A tile: first row of C, height, byte offset of its A, address of its tap records, number of taps.
TILE = 5
#: A tap: byte offset of its weights in the panel, then one byte offset a row (negative: a row of zeros).
TAP = 1 + MR


#: Number of the dense tiles' operation, a constant of the compiled function.
GEMM = OPERATIONS.index("gemm")
#: Two panels at once take a third less loads a multiply-add, but no prefetching: where weights may come from beyond the L2, they
#: need so many tiles to share the cost of fetching them, and may take so many bytes that the L2 keeps them meanwhile.
PAIR_TILES, PAIR_BYTES = 12, 1 << 20
#: Cold weights of so many bytes are asked for before they are read, even if the L2 keeps them from tile to tile.
FAR_BYTES = 1 << 19


@njit
def fetch_rows(a, taps, first, last, nbytes):
    """Ask for rows `first`..`last` of a tile of one tap: they lie apart in memory, which no hardware sees coming."""
    for row in range(first, last):
        prefetch(a + get(taps, 1 + row), nbytes)


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
    spans = (call.columns + span - 1) // span
    # Panels outside keep their part of B in the L1 or L2 while all tiles pass by.  Where all of B fits there anyway,
    # tiles outside are better: each reads its rows of A from the L1 and writes its rows of C in one go.
    outer, inner = (call.tile_count, spans) if call.tiles_outside != 0 else (spans, call.tile_count)
    for i in range(outer):
        for j in range(inner):
            number, part = (i, j) if call.tiles_outside != 0 else (j, i)
            record = call.tiles + number * 8 * TILE
            first = part * span
            columns = call.columns - first
            width = min(together * NV, (columns + lanes - 1) // lanes)
            height = get(record, 1)
            a = call.a + get(record, 2)
            pieces = 2 if width > NV and height > WIDE_ROWS else 1
            # The tallest tiles are narrow, so wide ones take their rows in pieces.
            for piece in range(pieces):
                above = piece * height // pieces
                row = get(record, 0) + above * call.c_step
                if call.fetch != 0 and number + 1 < call.tile_count and (i == 0 or call.tiles_outside != 0):
                    parts = spans * pieces if call.tiles_outside != 0 else pieces
                    now = part * pieces + piece if call.tiles_outside != 0 else piece
                    following = record + 8 * TILE
                    rows = get(following, 1)
                    fetch_rows(
                        call.a + get(following, 2),
                        get(following, 3),
                        now * rows // parts,
                        (now + 1) * rows // parts,
                        call.k * size,
                    )
                residual = 0
                if call.residual != 0:
                    residual = call.residual + row * call.residual_pitch + first * size
                panel = call.panels + part * together * call.panel_bytes
                # the part of the weights that come next which this tile asks for
                following = 0
                turn = number * pieces + piece
                if far and turn < FOLLOWING:
                    after = panel + together * call.panel_bytes if part + 1 < spans else call.following
                    nbytes = together * call.k * get(record, 4) * PANEL_ROW
                    following = 0 if after == 0 else after - panel + turn * (nbytes // FOLLOWING)
                tile(
                    GEMM,
                    MR,
                    NV,
                    WIDE_ROWS,
                    (piece + 1) * height // pieces - above,
                    width,
                    int(far),
                    a,
                    call.zeros,
                    get(record, 3),
                    get(record, 4),
                    above,
                    call.k,
                    panel,
                    call.panel_bytes,
                    following,
                    call.c + row * call.c_pitch + first * size,
                    call.c_step * call.c_pitch,
                    call.streamed,
                    call.bias + first * size,
                    residual,
                    call.c_step * call.residual_pitch,
                    columns,
                    call.activation,
                    alpha,
                    beta,
                )
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
    """First output pixel, within its image, of tile number `tile`: lines are cut into tiles of even height."""
    line, part = divmod(tile, conv.tiles_per_line)
    return line * conv.line + part * conv.line // conv.tiles_per_line


@njit
def affine_tiles(conv, tiles, first, count, pitch, taps):
    """Tile list of `count` tiles from number `first`, whose rows lie `pitch` bytes apart and share one tap record."""
    origin = tile_start(conv, first)
    for i in range(count):
        start = tile_start(conv, first + i)
        put(tiles, 0, start)
        put(tiles, 1, tile_start(conv, first + i + 1) - start)
        put(tiles, 2, (start - origin) * pitch)
        put(tiles, 3, taps)
        put(tiles, 4, 1)
        tiles += 8 * TILE


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
