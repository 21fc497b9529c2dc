"""Batches of products of matrices as loops: which products share a matrix B, and how far apart operands lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

#: What a product reads and writes, in the order of the strides below.
A, B, C, ADDEND = range(4)
#: Loops over matrices B, and over matrices A that meet the same one.
_DISTINCT, _ALIKE = 2, 1


class _Axis(NamedTuple):
    """One axis of a batch: its length, and the bytes from step to step of A, B, C and what is added."""

    size: int
    steps: tuple[int, ...]


class Batch(NamedTuple):
    """Products of (m, k) and (k, n) matrices: bytes from row to row of A, C and what is added, and loops around one product.

    `loops` are the fields of a `MATMUL` record.
    """

    m: int
    rows: tuple[int, int, int]
    loops: dict[str, int]

    @property
    def matrices(self) -> int:
        """Matrices B."""
        return self.loops["distinct_0"] * self.loops["distinct_1"]

    @property
    def products(self) -> int:
        """How many products there are."""
        return self.matrices * self.loops["alike"]


def batch_of(views: Sequence[np.ndarray]) -> Batch | None:
    """A batch from views of A (..., m, k), B (..., k, n), C (..., m, n) and what is added to it, all broadcast; None if it takes
    too many loops.
    """
    *shape, m, _ = views[C].shape
    rows = tuple(views[operand].strides[-2] for operand in (A, C, ADDEND))
    axes = [_Axis(size, tuple(view.strides[axis] for view in views)) for axis, size in enumerate(shape) if size > 1]
    axes.sort(key=lambda axis: -abs(axis.steps[C]))
    distinct, alike = (_merged([axis for axis in axes if bool(axis.steps[B]) is moves]) for moves in (True, False))
    if alike:
        # rows of neighbouring matrices A that follow one another are those of one matrix
        size, (a, _, c, addend) = alike[-1]
        if m == 1 or (a, c, addend) == tuple(m * row for row in rows):
            m, rows = size * m, (a, c, addend) if m == 1 else rows
            alike.pop()
    if len(distinct) > _DISTINCT or len(alike) > _ALIKE:
        return None
    once = _Axis(1, (0,) * len(views))
    axes = [*([once] * (_DISTINCT - len(distinct)) + distinct), *(alike or [once])]
    loops = {}
    for place, (size, steps) in zip(("distinct_0", "distinct_1", "alike"), axes):
        loops[place] = size
        for name, step in zip(("a", "b", "c", "residual"), steps):
            if (name, place) != ("b", "alike"):
                loops[f"{name}_{place.removeprefix('distinct_')}"] = step
    return Batch(m, rows, loops)


def _merged(axes: Sequence[_Axis]) -> list[_Axis]:
    """The same loops, with those joined that follow one another in all operands; the outermost of C comes first."""
    joined: list[_Axis] = []
    for axis in axes:
        if joined and all(outer == axis.size * inner for outer, inner in zip(joined[-1].steps, axis.steps)):
            axis = _Axis(joined.pop().size * axis.size, axis.steps)
        joined.append(axis)
    return joined
