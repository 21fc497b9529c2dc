"""Batched transposition of matrices: channels-first to channels-last and back, at the ends of a network."""

from __future__ import annotations

import numpy as np
from numba import prange

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import itemsize
from numbaconv.codegen.target import target
from numbaconv.codegen.transpose import transpose_block
from numbaconv.loops.launch import run_parallel
from numbaconv.loops.walk import share

VECTOR_BYTES = target().vector_bytes
#: Bytes below which a second thread costs more than it saves.
_WORTH_THREADS = 1 << 16


@njit
def transpose_strip(source, source_pitch, destination, destination_pitch, rows, first, columns, like):
    """Columns from number `first` of a matrix, as many as a vector holds: rows, `source_pitch` bytes apart, become columns.

    Blocks at the end overlap the ones before instead of being cut.
    """
    size = itemsize(like)
    lanes = VECTOR_BYTES // size
    column = max(0, min(first, columns - lanes))
    # Rows inside: what is written then follows on in memory.
    for start in range(0, rows, lanes):
        row = max(0, min(start, rows - lanes))
        transpose_block(
            source + row * source_pitch + column * size,
            source_pitch,
            destination + column * destination_pitch + row * size,
            destination_pitch,
            rows - row,
            columns - column,
            like,
        )


@njit
def transpose_part(part, parts, source, destination, n, rows, columns, like):
    """One share of `n` matrices (rows, columns) -> (columns, rows), cut along their columns."""
    size = itemsize(like)
    lanes = VECTOR_BYTES // size
    strips = (columns + lanes - 1) // lanes
    first, last = share(n * strips, part, parts)
    for strip in range(first, last):
        image, number = divmod(strip, strips)
        matrix = image * rows * columns * size
        transpose_strip(
            source + matrix,
            columns * size,
            destination + matrix,
            rows * size,
            rows,
            number * lanes,
            columns,
            like,
        )


@njit(parallel=True)
def transpose_parallel(parts, source, destination, n, rows, columns, like):
    """All shares at once."""
    for part in prange(parts):
        transpose_part(np.int64(part), parts, source, destination, n, rows, columns, like)


def transpose(source: int, destination: int, n: int, rows: int, columns: int, like, threads: int) -> None:
    """Write the transposes of `n` contiguous (rows, columns) matrices; addresses must not overlap.  `like` is a scalar."""
    if threads == 1 or n * rows * columns * like.itemsize < _WORTH_THREADS:
        transpose_part(0, 1, source, destination, n, rows, columns, like)
    else:
        run_parallel(transpose_parallel, threads, threads, source, destination, n, rows, columns, like)
