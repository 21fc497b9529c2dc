"""Batched transposition of matrices: channels-first to channels-last and back, at the ends of a network."""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import itemsize
from numbaconv.codegen.records import TRANSPOSE, transpose_record
from numbaconv.codegen.target import target
from numbaconv.codegen.transpose import transpose_block
from numbaconv.codegen.weave import STREAMS, unweave, weave
from numbaconv.loops.shares import Shares, share_address
from numbaconv.loops.walk import share
from numbaconv.machine import machine

VECTOR_BYTES = target().vector_bytes
#: Vectors of a row that are transposed before those of other rows, where matrices come from beyond the L2: a line of each of many
#: rows is waited for, while lines that follow one another are fetched ahead.
_TOGETHER = 4
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
def transpose_far_strips(source, source_pitch, destination, destination_pitch, rows, first, last, columns, like):
    """Columns `first`..`last` of a matrix from beyond the L2: a few lines of each row, which are fetched ahead, at a time."""
    size = itemsize(like)
    lanes = VECTOR_BYTES // size
    for start in range(0, rows, lanes):
        row = max(0, min(start, rows - lanes))
        block, to = source + row * source_pitch, destination + row * size
        for column in range(first, last, lanes):
            transpose_strip(block, source_pitch, to, destination_pitch, min(lanes, rows), column, columns, like)


def transpose_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of matrices, rows of `x` that become columns of `out`, cut along their longer axis."""
    t = transpose_record(record)
    size = itemsize(alpha)
    lanes = VECTOR_BYTES // size
    apart = t.columns <= STREAMS and t.x_row == t.columns * size
    strips = ((t.rows if apart else t.columns) + lanes - 1) // lanes
    first, last = share(t.n * strips, part, rows * columns)
    # few rows that become pixels without gaps are woven by shuffles, as far as whole vectors of them reach
    woven = t.columns // lanes if t.rows <= STREAMS and t.out_row == t.rows * size else 0
    while first < last:
        image, number = divmod(first, strips)
        end = min(number + last - first, strips)
        source, destination = x + image * t.x_image, out + image * t.out_image
        first += end - number
        if apart:
            # and pixels of few channels are taken apart in the same way
            begin = number * lanes
            count = min(end * lanes, t.rows) - begin
            unweave(destination + begin * size, t.out_row, source + begin * t.x_row, t.columns, count, alpha)
            continue
        if number < min(end, woven):
            begin, number = number, min(end, woven)
            weave(destination, source, t.x_row, t.rows, begin * lanes * t.rows, number * lanes * t.rows, alpha)
        if t.together > 1:
            for strip in range(number, end, t.together):
                stop = min(strip + t.together, end) * lanes
                transpose_far_strips(
                    source, t.x_row, destination, t.out_row, t.rows, strip * lanes, stop, t.columns, alpha
                )
            continue
        for strip in range(number, end):
            transpose_strip(source, t.x_row, destination, t.out_row, t.rows, strip * lanes, t.columns, alpha)


transpose_share = NativeFunction(transpose_part, "transpose_share")


class Transposition:
    """`n` matrices of (rows, columns) elements to be transposed.

    Pitches are in elements, from row to row and from matrix to matrix; by default nothing lies between them.
    """

    def __init__(
        self,
        n: int,
        rows: int,
        columns: int,
        np_dtype,
        x_pitch: int = 0,
        out_pitch: int = 0,
        x_image: int = 0,
        out_image: int = 0,
    ):
        dtype = np.dtype(np_dtype)
        x_row, out_row = x_pitch or columns, out_pitch or rows
        pitches = x_row, x_image or rows * x_row, out_row, out_image or columns * out_row
        nbytes = n * rows * columns * dtype.itemsize
        together = _TOGETHER if nbytes > machine().l2 else 1
        self._record = np.array((n, rows, columns, *(pitch * dtype.itemsize for pitch in pitches), together), TRANSPOSE)
        self._function, self._zero = share_address(transpose_share, dtype), dtype.type(0)
        cut = rows if columns <= STREAMS and (x_pitch or columns) == columns else columns
        self._strips = n * -(-cut * dtype.itemsize // VECTOR_BYTES)
        self._alone = nbytes < _WORTH_THREADS

    def shares(self, threads: int) -> Shares:
        """The work cut for so many threads."""
        parts = 1 if self._alone else min(threads, max(self._strips, 1))
        return Shares(self._function, parts, 1, self._record.ctypes.data, 0, self._zero, self._zero, self._record)
