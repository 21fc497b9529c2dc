"""Tensors as loops: reductions over axes, and rows of neighbouring elements that softmax and normalisations work on."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from numbaconv.codegen.records import CLASSES, REDUCE, RESPONSE, ROWS
from numbaconv.codegen.reduce import NUMBERS
from numbaconv.codegen.target import target
from numbaconv.codegen.weave import STREAMS
from numbaconv.graph.instructions import Compiled, Work
from numbaconv.graph.strided import WORTH_THREADS, Axis, merged_axes
from numbaconv.graph.tensors import Tensor, memory_order
from numbaconv.graph.trace import Trace
from numbaconv.loops.reduce import reduce_share
from numbaconv.loops.rows import normalize_share, position_share, response_share, softmax_of_few_share, softmax_share
from numbaconv.loops.shares import Shares, share_address
from numbaconv.workspace import rounded

#: Loops that a reduction has around its runs.
_LOOPS = 3
#: Elements of a run that one thread takes at least.
_CHUNK = 64
_ONCE = Axis(1, 0, (0,))


def without(view: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    """The first elements along some axes, which vanish."""
    return view[tuple(0 if axis in axes else slice(None) for axis in range(view.ndim))]


def others(rank: int, axes: Sequence[int]) -> tuple[int, ...]:
    """The axes that are not among these."""
    return tuple(axis for axis in range(rank) if axis not in axes)


# --- reductions ----------------------------------------------------------------------------------------------------


def reduce(
    trace: Trace,
    operation: str,
    x: Tensor,
    axes: Sequence[int],
    name: str,
    *,
    mean: bool = False,
    keepdims: bool = True,
) -> Tensor:
    """Emit a reduction of x, which has elements, over some axes; a mean divides by their number."""
    if _loops(x, axes) is None:
        x = trace.ordered(x, lambda rank: (*others(rank, axes), *axes))
    out, kept = _result(trace, x, axes, name, x.dtype, keepdims)
    divisor = prod(x.shape[axis] for axis in axes) if mean else 1
    work = _reduction(operation, x, kept, axes, divisor)
    trace.emit(Compiled(trace.node.op, trace.node.name, (x,), out, work))
    return out


def _result(
    trace: Trace, x: Tensor, axes: Sequence[int], name: str, dtype: np.dtype, keepdims: bool
) -> tuple[Tensor, np.ndarray]:
    """Memory for what is left of x without some axes, in the order in which it lies, and its view without them."""
    order = memory_order(x.view)
    shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
    if keepdims:
        out = trace.new(name, shape, dtype, lambda rank: order)
        return out, without(out.view, axes)
    places = {axis: place for place, axis in enumerate(others(len(x.shape), axes))}
    shape = tuple(x.shape[axis] for axis in places)
    out = trace.new(name, shape, dtype, lambda rank: tuple(places[axis] for axis in order if axis in places))
    return out, out.view


def _loops(x: Tensor, axes: Sequence[int]) -> tuple[list[Axis], list[Axis], Axis, bool] | None:
    """Loops over what stays and over what is reduced, the run, and whether that is reduced, too; None where they are too many."""
    size = x.dtype.itemsize
    kept, reduced = (
        merged_axes(view, [view]) for view in (without(x.view, axes), without(x.view, others(len(x.shape), axes)))
    )
    if reduced and reduced[-1].out == size:
        run, across = reduced.pop(), True
    elif kept and kept[-1].out == size:
        run, across = kept.pop(), False
    elif not kept and not reduced:
        run, across = Axis(1, size, (size,)), False
    else:
        return None
    if len(kept) > _LOOPS or len(reduced) > _LOOPS - across:
        return None
    return kept, reduced, run, across


def _reduction(operation: str, x: Tensor, kept_out: np.ndarray, axes: Sequence[int], divisor: int) -> Work:
    _, reduced, run, across = _loops(x, axes)
    kept = merged_axes(kept_out, [without(x.view, axes)])
    if not across and kept:
        kept.pop()
    record = np.zeros((), REDUCE)
    record["operation"], record["across"], record["divisor"] = NUMBERS[operation], across, divisor
    record["count"] = record["chunk"] = run.size
    results = prod(axis.size for axis in kept)
    if not across and results < 4:
        record["chunk"] = -(-run.size // (4 * _CHUNK)) * _CHUNK
    for i, axis in enumerate([_ONCE] * (_LOOPS - len(kept)) + kept):
        record[f"m_{i}"], record[f"out_m_{i}"], record[f"x_m_{i}"] = axis.size, axis.out, axis.operands[0]
    # a run that is reduced has two loops around it
    missing = _LOOPS - across - len(reduced)
    for i, axis in enumerate([_ONCE] * missing + reduced):
        record[f"n_{i}"], record[f"x_n_{i}"] = axis.size, axis.out
    pieces = results * -(-run.size // int(record["chunk"]))
    zero = x.dtype.type(0)

    def work(threads: int) -> Shares:
        parts = 1 if x.view.size < WORTH_THREADS else max(1, min(threads, pieces))
        return Shares(share_address(reduce_share, x.dtype), parts, 1, record.ctypes.data, 0, zero, zero, record)

    return work


# --- rows -----------------------------------------------------------------------------------------------------------


def _rows(x: np.ndarray, out: np.ndarray, axes: Sequence[int]) -> tuple[int, int, int] | None:
    """How many rows over these axes there are, and bytes from row to row of both; None where they do not lie like that."""
    outer = merged_axes(without(out, axes), [without(x, axes)])
    run = merged_axes(without(out, others(x.ndim, axes)), [without(x, others(x.ndim, axes))])
    contiguous = not run or (len(run) == 1 and run[0].out == run[0].operands[0] == x.itemsize)
    if len(outer) > 1 or not contiguous:
        return None
    axis = outer[0] if outer else _ONCE
    return axis.size, axis.operands[0], axis.out


def _by_rows(trace: Trace, x: Tensor, axes: Sequence[int], name: str, work_of) -> Tensor:
    """Emit work on rows over these axes, which are copied where they are not contiguous."""
    axes = tuple(axis for axis in memory_order(x.view) if axis in axes)
    order = (*(axis for axis in memory_order(x.view) if axis not in axes), *axes)
    if _rows(x.view, x.view, axes) is None:
        x = trace.ordered(x, lambda rank: order)
    out = trace.new(name, x.shape, x.dtype, lambda rank: order)
    target = out
    if _rows(x.view, out.view, axes) is None:
        target = trace.temporary(x.shape, x.dtype, lambda rank: order)
    record = np.zeros((), ROWS)
    record["rows"], record["x_row"], record["out_row"] = _rows(x.view, target.view, axes)
    record["count"] = prod(x.shape[axis] for axis in axes)
    work = work_of(record, axes)
    trace.emit(Compiled(trace.node.op, trace.node.name, (x,), target, work, in_place=(0,)))
    if target is not out:
        trace.copy(target, out)
    return out


def softmax(trace: Trace, x: Tensor, axes: Sequence[int], name: str, logarithm: bool) -> Tensor:
    """Emit exponentials divided by their sum over some axes, or the logarithms of that."""
    if not logarithm and (few := _softmax_of_few(trace, x, axes, name)):
        return few

    def work_of(record: np.ndarray, axes: Sequence[int]) -> Work:
        record["logarithm"] = logarithm
        pitch = rounded(int(record["count"]) * x.dtype.itemsize) if logarithm else 0
        zero = x.dtype.type(0)
        return _work(softmax_share, x, record, pitch, zero, record)

    return _by_rows(trace, x, axes, name, work_of)


def _softmax_of_few(trace: Trace, x: Tensor, axes: Sequence[int], name: str) -> Tensor | None:
    """Softmax over one axis of few classes, which are neighbours or lie in planes; None for other operands.

    A result that the caller asked for is written in the order that it has to lie in.
    """
    if len(axes) != 1 or not 1 < x.shape[axes[0]] <= STREAMS:
        return None
    (axis,), size = axes, x.dtype.itemsize
    order = range(len(x.shape)) if name in trace.outputs else memory_order(x.view)
    out = trace.new(name, x.shape, x.dtype, lambda rank: tuple(order))
    *images, pixels = merged_axes(without(out.view, axes), [without(x.view, axes)]) or [_ONCE]
    record = np.zeros((), CLASSES)
    record["classes"], record["pixels"] = x.shape[axis], pixels.size
    for operand, view, step in (("out", out.view, pixels.out), ("x", x.view, pixels.operands[0])):
        woven = view.strides[axis] == size and step == x.shape[axis] * size
        if len(images) > 1 or not (woven or step == size):
            return None
        record[f"{operand}_class"] = 0 if woven else view.strides[axis]
    image = images[0] if images else _ONCE
    record["images"], record["x_image"], record["out_image"] = image.size, image.operands[0], image.out
    zero = x.dtype.type(0)

    def work(threads: int) -> Shares:
        strips = -(-x.view.size // x.shape[axis] // target().lanes(size))
        parts = 1 if x.view.size < WORTH_THREADS else max(1, min(threads, strips))
        address = record.ctypes.data
        return Shares(share_address(softmax_of_few_share, x.dtype), parts, 1, address, 0, zero, zero, record)

    trace.emit(Compiled(trace.node.op, trace.node.name, (x,), out, work, in_place=(0,)))
    return out


def position(trace: Trace, x: Tensor, axis: int, name: str, keepdims: bool) -> Tensor | None:
    """Emit the number of the largest element along an axis, the first of equal ones; None where results cannot lie as rows do."""
    if _rows(x.view, x.view, (axis,)) is None:
        x = trace.ordered(x, lambda rank: (*(other for other in memory_order(x.view) if other != axis), axis))
    out, kept = _result(trace, x, (axis,), name, np.dtype(np.int64), keepdims)
    rows = merged_axes(kept, [without(x.view, (axis,))]) or [_ONCE]
    if len(rows) > 1:
        return None
    record = np.zeros((), ROWS)
    record["rows"], record["count"] = rows[0].size, x.shape[axis]
    record["x_row"], record["out_row"] = rows[0].operands[0], rows[0].out
    work = _work(position_share, x, record, 0, x.dtype.type(0), record)
    trace.emit(Compiled(trace.node.op, trace.node.name, (x,), out, work))
    return out


def normalize(
    trace: Trace,
    x: Tensor,
    axes: Sequence[int],
    name: str,
    epsilon: float,
    gain: np.ndarray | None = None,
    bias: np.ndarray | None = None,
) -> Tensor:
    """Emit rows over some axes, of mean 0 and variance 1, times gain plus bias of a row's shape."""

    def work_of(record: np.ndarray, order: Sequence[int]) -> Work:
        kept = [record]
        if gain is not None or bias is not None:
            shape = tuple(x.shape[axis] for axis in axes)
            # as the axes of a row lie in memory
            places = tuple(list(axes).index(axis) for axis in order)
            for field, array, value in (("gain", gain, 1), ("bias", bias, 0)):
                full = np.full(shape, value, x.dtype) if array is None else np.broadcast_to(array, shape)
                kept.append(np.ascontiguousarray(full.transpose(places), x.dtype))
                record[field] = kept[-1].ctypes.data
        return _work(normalize_share, x, record, 0, x.dtype.type(epsilon), kept)

    return _by_rows(trace, x, axes, name, work_of)


def local_response(trace: Trace, x: Tensor, name: str, size: int, scale: float, bias: float, power: float) -> Tensor:
    """Emit x (bias + scale sum)^power, where the sum is that of the squares of `size` channels around an element."""

    def work_of(record: np.ndarray, axes: Sequence[int]) -> Work:
        response = np.zeros((), RESPONSE)
        for field in ("rows", "count", "x_row", "out_row"):
            response[field] = record[field]
        response["size"], response["scale"], response["bias"] = size, scale, bias
        pitch = rounded((int(record["count"]) + size) * x.dtype.itemsize)
        return _work(response_share, x, response, pitch, x.dtype.type(power), response)

    return _by_rows(trace, x, (1,), name, work_of)


def _work(function, x: Tensor, record: np.ndarray, pitch: int, alpha: np.floating, owner: object) -> Work:
    def work(threads: int) -> Shares:
        parts = 1 if x.view.size < WORTH_THREADS else max(1, min(threads, int(record["rows"])))
        return Shares(share_address(function, x.dtype), parts, 1, record.ctypes.data, pitch, alpha, alpha, owner)

    return work
