"""Sums over the neighbours of each node of a graph: a sparse matrix in rows (CSR) times a dense one, rows of channels at a time."""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import get, itemsize
from numbaconv.codegen.records import neighbours_record
from numbaconv.codegen.weighted import weighted_rows


@njit
def row_at(starts, rows, work):
    """The first row before which there are at least `work` entries and rows together, which grow strictly from row to row."""
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if get(starts, middle) + middle < work:
            low = middle + 1
        else:
            high = middle
    return low


def neighbours_part(part, row_parts, column_parts, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of rows, so cut that all shares have about equally many entries."""
    n, parts = neighbours_record(record), row_parts * column_parts
    size = itemsize(alpha)
    pitch = n.channels * size
    total = get(n.starts, n.rows) + n.rows
    first, last = row_at(n.starts, n.rows, part * total // parts), row_at(n.starts, n.rows, (part + 1) * total // parts)
    for row in range(first, last):
        start = get(n.starts, row)
        weighted_rows(
            out + row * pitch,
            x,
            pitch,
            n.indices + start * 8,
            n.weights + start * size,
            get(n.starts, row + 1) - start,
            n.channels,
            alpha,
        )


neighbours_share = NativeFunction(neighbours_part, "neighbours_share")
