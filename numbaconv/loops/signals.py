"""Signals of one channel on the tiles of planes: rows of a vector each, one after another, and a strip that the taps slide over.

Sample i of the result stands in row i / lanes.  Tap t reads t samples further on than the first one, and t + lanes samples further
is the same tap of the next row: taps a vector apart are a run that slides down the rows, and there are as many runs as lanes.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import call_core, clear, copy, itemsize, put
from numbaconv.codegen.records import plane_record, signal_record
from numbaconv.loops.gemm import TILE, VECTOR_BYTES
from numbaconv.loops.strips import PLANE_BYTES, ROWS
from numbaconv.loops.walk import share


def signals_part(part, row_parts, column_parts, record, x, out, kernel, workspace, alpha, beta):
    """One thread's share of blocks of rows.  Workspace: a call record, the tiles of a block, a strip.

    `kernel` is the address of the taps, which are read from the last to the first.
    """
    signal = signal_record(record)
    call = plane_record(workspace)
    size = itemsize(alpha)
    lanes = VECTOR_BYTES // size
    strip = workspace + signal.strip
    call.position = VECTOR_BYTES
    call.weight = -VECTOR_BYTES
    call.tiles = workspace + PLANE_BYTES
    call.weights = kernel + (signal.k - 1) * size
    call.bias = signal.zero
    call.c_pitch = VECTOR_BYTES
    call.columns = lanes
    call.residual = 0
    call.activation = signal.activation
    blocks = (signal.rows + signal.block - 1) // signal.block
    first, last = share(signal.n * blocks, part, row_parts * column_parts)
    # Blocks of rows, whose strip stays in the L1.
    for number in range(first, last):
        line, block = divmod(number, blocks)
        row = block * signal.block
        rows = min(signal.block, signal.rows - row)
        # What the kernel reaches of the signal, with zeros before it and behind it.
        begin = signal.start + row * lanes - (signal.k - 1)
        count = rows * lanes + signal.k - 1
        before = min(max(-begin, 0), count)
        inside = max(min(signal.size - max(begin, 0), count - before), 0)
        clear(strip, before, alpha)
        copy(strip + before * size, x + (line * signal.size + begin + before) * size, inside, alpha)
        clear(strip + (before + inside) * size, count - before - inside, alpha)
        # Tiles down the rows, evenly high.
        call.a = strip
        call.c = out + (line * signal.rows + row) * VECTOR_BYTES
        call.tile_count = (rows + ROWS - 1) // ROWS
        for tile in range(call.tile_count):
            at, end = tile * rows // call.tile_count, (tile + 1) * rows // call.tile_count
            listed = call.tiles + tile * 8 * TILE
            put(listed, 0, at)
            put(listed, 1, end - at)
            put(listed, 2, at * VECTOR_BYTES)
            put(listed, 3, signal.runs)
            put(listed, 4, signal.run_count)
        call_core(signal.core, workspace, alpha, beta)


signals_share = NativeFunction(signals_part, "signals_share")
