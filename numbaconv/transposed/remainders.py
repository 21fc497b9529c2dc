"""How a result's axis is taken apart by the stride: outputs with one remainder are an ordinary convolution of stride 1.

With u = output + padding, output o meets tap k where (u - k * dilation) is a multiple of the stride, at input
(u - k * dilation) / stride.  For output number j of a remainder that is j plus a shift that the tap alone decides.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from numbaconv.loops.gemm import MR
from numbaconv.transposed.problem import TransposedProblem


class Remainder(NamedTuple):
    """One remainder of an axis: its outputs are `first`, `first + stride`, ..., and `taps` are pairs (tap, shift)."""

    first: int
    count: int
    taps: tuple[tuple[int, int], ...]

    @property
    def lowest(self) -> int:
        """The least shift."""
        return min((shift for _, shift in self.taps), default=0)

    def met(self, begin: int, end: int, size: int) -> tuple[tuple[int, int], ...]:
        """The taps of outputs number `begin` to below `end` that meet any of `size` input elements."""
        return tuple((tap, shift) for tap, shift in self.taps if begin + shift < size and end + shift > 0)


@lru_cache(maxsize=256)
def remainders(out: int, kernel: int, stride: int, dilation: int, before: int) -> tuple[Remainder, ...]:
    """The remainders of an axis that have an output, in the order of their first one."""
    taps: dict[int, list[tuple[int, int]]] = {}
    for tap in range(kernel):
        taps.setdefault(tap * dilation % stride, []).append((tap, tap * dilation))
    found = []
    for first in range(min(stride, out)):
        u = first + before
        shifts = tuple((tap, (u - reach) // stride) for tap, reach in taps.get(u % stride, ()))
        found.append(Remainder(first, -(-(out - first) // stride), shifts))
    return tuple(found)


def remainders_of(problem: TransposedProblem, axis: int) -> tuple[Remainder, ...]:
    """The remainders of one axis of a problem."""
    sizes = problem.out_spatial, problem.kernel, problem.stride, problem.dilation
    return remainders(*(values[axis] for values in sizes), problem.padding[axis][0])


class Rows(NamedTuple):
    """Rows of outputs, in the order of the input rows that they read: row of the result, first row of the input, pattern.

    A pattern is an array of pairs: which row of the kernel, and how many rows of the input behind the first.
    """

    out: np.ndarray
    base: np.ndarray
    pattern: np.ndarray
    patterns: list[np.ndarray]

    @classmethod
    def of(cls, problem: TransposedProblem) -> Rows:
        """The rows along all axes but the last; where there are none, one row."""
        rows = cls(*(np.zeros(1, np.int64) for _ in range(3)), [np.zeros((1, 2), np.int64)])
        for axis in range(len(problem.spatial) - 1):
            rows = rows._times(problem, axis)
        order = np.argsort(rows.base, kind="stable")
        return cls(rows.out[order], rows.base[order], rows.pattern[order], rows.patterns)

    def _times(self, problem: TransposedProblem, axis: int) -> Rows:
        """These rows with each output of one axis more."""
        size, kernel, out = problem.spatial[axis], problem.kernel[axis], problem.out_spatial[axis]
        numbers: dict[tuple, int] = {}
        lines = np.empty((out, 3), np.int64)
        for remainder in remainders_of(problem, axis):
            for j in range(remainder.count):
                met = tuple((tap, shift - remainder.lowest) for tap, shift in remainder.met(j, j + 1, size))
                number = numbers.setdefault(met, len(numbers))
                output = remainder.first + j * problem.stride[axis]
                lines[output] = output, j + remainder.lowest, number
        patterns = [
            (before[:, None] * (kernel, size) + _pairs(met)).reshape(-1, 2)
            for before in self.patterns
            for met in numbers
        ]
        return Rows(
            (self.out[:, None] * out + lines[:, 0]).ravel(),
            (self.base[:, None] * size + lines[:, 1]).ravel(),
            (self.pattern[:, None] * len(numbers) + lines[:, 2]).ravel(),
            patterns,
        )


class Line(NamedTuple):
    """Tiles along the last axis: first output, outputs, first input element, pattern.

    A pattern is a height, an array of pairs (tap, elements of the input behind the first), and where the first lies, or None
    where no row of the tile leaves the input.
    """

    out: np.ndarray
    height: np.ndarray
    base: np.ndarray
    pattern: np.ndarray
    patterns: list[tuple[int, np.ndarray, int | None]]

    @classmethod
    def of(cls, problem: TransposedProblem) -> Line:
        """Outputs of each remainder cut into tiles of even height."""
        size, step = problem.spatial[-1], problem.stride[-1]
        columns, patterns = [], []
        for remainder in remainders_of(problem, -1):
            # neighbouring outputs of a single element share no tap
            parts = remainder.count if size == 1 else -(-remainder.count // MR)
            starts = np.arange(parts + 1) * remainder.count // parts
            height, base = np.diff(starts), starts[:-1] + remainder.lowest
            highest = max((shift for _, shift in remainder.taps), default=0)
            interior = (base >= 0) & (starts[1:] - 1 + highest < size)
            number = np.empty(parts, np.int64)
            for rows in np.unique(height[interior]):
                number[interior & (height == rows)] = len(patterns)
                patterns.append((int(rows), _pairs(remainder.taps) - (0, remainder.lowest), None))
            for tile in np.flatnonzero(~interior):
                number[tile] = len(patterns)
                met = _pairs(remainder.met(starts[tile], starts[tile + 1], size)) - (0, remainder.lowest)
                patterns.append((int(height[tile]), met, int(base[tile])))
            columns.append((remainder.first + starts[:-1] * step, height, base, number))
        return cls(*map(np.concatenate, zip(*columns)), patterns)


def _pairs(taps) -> np.ndarray:
    """Pairs of integers as an array, if there are none, too."""
    return np.array(taps, np.int64).reshape(-1, 2)
