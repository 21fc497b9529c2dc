"""Compiled work on elements of strided tensors: axes are merged where all operands allow it, and walked as the result lies.

A copy between orders of axes is a batch of matrix transpositions where one axis is contiguous on either side.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from numbaconv.codegen.elementwise import OPERATIONS
from numbaconv.codegen.records import ELEMENTWISE
from numbaconv.epilogue import IDENTITY
from numbaconv.graph.instructions import Work
from numbaconv.graph.tensors import Tensor, memory_order
from numbaconv.loops.elementwise import elementwise_share
from numbaconv.loops.shares import Shares, share_address
from numbaconv.loops.transpose import Transposition

#: Elements below which a second thread costs more than it saves.
WORTH_THREADS = 1 << 14
#: Bytes of a row below which rows are joined, and of rows then.
_SHORT, _LONG = 512, 4096
#: Axes that the loops walk: blocks in three, rows, elements.
_AXES = 5


class Axis(NamedTuple):
    """One loop: its length, and the bytes from step to step of the result and of each operand."""

    size: int
    out: int
    operands: tuple[int, ...]


def merged_axes(out: np.ndarray, operands: Sequence[np.ndarray]) -> list[Axis]:
    """Loops over views of one shape, the outermost of the result first; axes of length one vanish."""
    axes: list[Axis] = []
    for i in memory_order(out):
        axis = Axis(out.shape[i], out.strides[i], tuple(view.strides[i] for view in operands))
        if axis.size == 1:
            continue
        if axes:
            last = axes[-1]
            follows = last.out == axis.size * axis.out and all(
                outer == axis.size * inner for outer, inner in zip(last.operands, axis.operands)
            )
            if follows:
                axes[-1] = Axis(last.size * axis.size, axis.out, axis.operands)
                continue
        axes.append(axis)
    return axes


def elementwise(operation: str, out: Tensor, operands: Sequence[Tensor], alpha: float, beta: float) -> Work | None:
    """Work of one of the generated operations on one or two operands, which are broadcast; None where it takes too many loops.

    Functions of two operands clamp their result between `alpha` and `beta`.
    """
    views = [np.broadcast_to(operand.view, out.shape) for operand in operands]
    axes = merged_axes(out.view, views)
    size = out.dtype.itemsize
    # neighbouring elements of the result, of operands that are neighbours, too, or the same
    if not axes or axes[-1].out != size or any(step not in (0, size) for step in axes[-1].operands):
        axes.append(Axis(1, size, (size,) * len(views)))
    if len(axes) > _AXES:
        return None
    count = axes.pop()
    *blocks, rows = [Axis(1, 0, (0,) * len(views))] * (_AXES - 1 - len(axes)) + axes
    record = np.zeros((), ELEMENTWISE)
    record["operation"] = OPERATIONS.index(operation)
    record["rows"], record["count"], record["out_row"] = rows.size, count.size, rows.out
    for name, pitch, step in zip("ab", rows.operands, count.operands):
        record[f"{name}_row"], record[f"{name}_step"] = pitch, step
    for i, block in enumerate(blocks):
        record[f"n_{i}"], record[f"out_{i}"] = block.size, block.out
        for name, pitch in zip("ab", block.operands):
            record[f"{name}_{i}"] = pitch
    joined = record["joined"] = _joined(rows, count, size)
    lengths = prod(block.size for block in blocks), rows.size, count.size
    # the outermost loop that is long enough to be cut evenly
    split = record["split"] = next((i for i, length in enumerate(lengths) if length >= 8), int(np.argmax(lengths)))
    scalar = out.dtype.type
    alpha, beta = scalar(alpha), scalar(beta)

    def work(threads: int) -> Shares:
        parts = 1 if out.view.size < WORTH_THREADS else max(1, min(threads, lengths[split]))
        function = share_address(elementwise_share, out.dtype)
        pitch = 2 * joined * count.size * size if joined > 1 else 0
        return Shares(function, parts, 1, record.ctypes.data, pitch, alpha, beta, record)

    return work


def _joined(rows: Axis, count: Axis, size: int) -> int:
    """How many short rows are worth taking at a time: those without gaps, of operands whose rows follow or are the same one."""
    row = count.size * size
    alike = all(step == size and pitch in (0, row) for step, pitch in zip(count.operands, rows.operands))
    if not alike or rows.out != row or not 0 < row < _SHORT:
        return 1
    # as long as many are left: copies have to be made first
    return max(1, min(_LONG // row, rows.size // 16))


def copy(source: Tensor, to: Tensor) -> Work | None:
    """Work that copies a tensor into another one of its shape; None where it takes too many loops."""
    return _transposition(source, to) or elementwise("clip", to, [source], IDENTITY.alpha, IDENTITY.beta)


def _transposition(source: Tensor, to: Tensor) -> Work | None:
    """The copy as matrices to be transposed, or None where it is none or needs more than one loop around them."""
    size = to.dtype.itemsize
    axes = merged_axes(to.view, [source.view])
    if not axes or axes[-1].out != size or axes[-1].operands == (size,):
        return None
    *others, inner = axes
    column = next((axis for axis in others if axis.operands == (size,)), None)
    if column is None or len(others) > 2 or min(inner.operands[0], column.out) < size:
        return None
    images = next((axis for axis in others if axis is not column), Axis(1, 0, (0,)))
    pitches = inner.operands[0], column.out, images.operands[0], images.out
    made: list[Transposition] = []

    def work(threads: int) -> Shares:
        if not made:
            elements = (pitch // size for pitch in pitches)
            made.append(Transposition(images.size, inner.size, column.size, to.dtype, *elements))
        return made[0].shares(threads)

    return work
