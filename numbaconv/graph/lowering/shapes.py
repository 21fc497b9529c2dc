"""Operators that move no data: values of shape arithmetic, and views wherever strides allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.errors import ShapeError
from numbaconv.graph.ir import Node
from numbaconv.graph.tensors import Tensor, channels_last, reshape_view, row_major
from numbaconv.graph.trace import Trace, Value, lowers


def _view(value: Value, change) -> Value:
    """The same change of an array or of the view of a tensor."""
    return change(value) if isinstance(value, np.ndarray) else value.with_view(change(value.view))


def reshaped(trace: Trace, value: Value, shape: Sequence[int]) -> Value:
    """The elements in another shape: a view where strides allow, else a view of a row-major copy."""
    shape = tuple(int(size) for size in shape)
    if isinstance(value, np.ndarray):
        return value.reshape(shape)
    view = reshape_view(value.view, shape)
    if view is None:
        value = trace.ordered(value, row_major)
        view = reshape_view(value.view, shape)
    return value.with_view(view)


def known(value: Value) -> bool:
    """Whether an operand that says what a shape is can be read now."""
    return value is None or isinstance(value, np.ndarray)


@lowers("Shape")
def _shape(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    (x,) = operands
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return [np.array(x.shape[slice(start, end)], np.int64)]


@lowers("Size")
def _size(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    return [np.array(np.prod(operands[0].shape, dtype=np.int64))]


@lowers("Identity")
def _identity(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    return list(operands)


@lowers("Dropout")
def _dropout(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    training = operands[2] if len(operands) > 2 else None
    if len(list(filter(None, node.outputs))) > 1 or not known(training) or (training is not None and training.any()):
        return None
    return [operands[0]]


@lowers("Reshape")
def _reshape(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, *rest = operands
    wanted = np.asarray(node.attributes["shape"]) if trace.graph.opset < 5 else rest[0]
    if not isinstance(wanted, np.ndarray):
        return None
    shape = [int(size) for size in wanted]
    if not node.attributes.get("allowzero", 0):
        if any(size == 0 and axis >= len(x.shape) for axis, size in enumerate(shape)):
            raise ShapeError(f"shape {shape} copies an axis that x of shape {x.shape} does not have")
        shape = [x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    total, fixed = int(np.prod(x.shape)), int(np.prod([size for size in shape if size != -1]))
    if (
        shape.count(-1) > 1
        or any(size < -1 for size in shape)
        or (total != fixed if -1 not in shape else (fixed == 0 or total % fixed))
    ):
        raise ShapeError(f"x of shape {x.shape} cannot take the shape {shape}")
    return [reshaped(trace, x, [total // fixed if size == -1 else size for size in shape])]


@lowers("Flatten")
def _flatten(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    (x,) = operands
    axis = node.attributes.get("axis", 1)
    axis += len(x.shape) if axis < 0 else 0
    return [reshaped(trace, x, (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))))]


def _axes(node: Node, operands: Sequence[Value], since: int, opset: int) -> np.ndarray | None:
    """Axes that are an attribute in old opsets and an operand later; None where they are left out."""
    if opset < since:
        axes = node.attributes.get("axes")
        return None if axes is None else np.asarray(axes)
    axes = operands[1] if len(operands) > 1 else None
    # some exporters write a single axis as a scalar
    return axes.reshape(-1) if isinstance(axes, np.ndarray) else axes


@lowers("Squeeze")
def _squeeze(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x = operands[0]
    axes = _axes(node, operands, 13, trace.graph.opset)
    if not known(axes):
        return None
    rank = len(x.shape)
    axes = [i for i, n in enumerate(x.shape) if n == 1] if axes is None else [int(a) % rank for a in axes]
    if any(x.shape[axis] != 1 for axis in axes):
        raise ShapeError(f"x has shape {x.shape}, of which axes {axes} are not all of length one")
    return [_view(x, lambda view: np.squeeze(view, tuple(axes)))]


@lowers("Unsqueeze")
def _unsqueeze(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x = operands[0]
    axes = _axes(node, operands, 13, trace.graph.opset)
    if not known(axes):
        return None
    return [_view(x, lambda view: np.expand_dims(view, tuple(int(a) for a in axes)))]


@lowers("Transpose")
def _transpose(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    (x,) = operands
    order = node.attributes.get("perm") or tuple(reversed(range(len(x.shape))))
    if sorted(order) != list(range(len(x.shape))):
        raise ShapeError(f"perm {list(order)} is no permutation of the axes of x, which has shape {x.shape}")
    return [_view(x, lambda view: view.transpose(order))]


@lowers("Slice")
def _slice(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x = operands[0]
    if trace.graph.opset < 10:
        starts, ends = (np.asarray(node.attributes[name]) for name in ("starts", "ends"))
        axes, steps = node.attributes.get("axes", range(len(starts))), None
        axes = np.asarray(axes)
    else:
        starts, ends, axes, steps = (*operands[1:], None, None)[:4]
    if not all(known(value) for value in (starts, ends, axes, steps)):
        return None
    axes = range(len(starts)) if axes is None else [int(a) for a in axes]
    steps = [1] * len(starts) if steps is None else [int(s) for s in steps]
    where = [slice(None)] * len(x.shape)
    for axis, start, end, step in zip(axes, starts, ends, steps):
        size = x.shape[axis]
        # ONNX clamps where Python would count from the end again
        start, end = (int(v) + size if v < 0 else int(v) for v in (start, end))
        low, high = (0, size) if step > 0 else (0, size - 1)
        start = min(max(start, low), high)
        end = min(max(end, 0), size) if step > 0 else max(min(end, size - 1), -1)
        where[axis] = slice(start, None if end < 0 else end, step)
    return [_view(x, lambda view: view[tuple(where)])]


@lowers("Split")
def _split(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x = operands[0]
    axis = node.attributes.get("axis", 0)
    sizes = node.attributes.get("split") if trace.graph.opset < 13 else (operands[1] if len(operands) > 1 else None)
    if not (sizes is None or isinstance(sizes, (list, tuple, np.ndarray))):
        return None
    total, parts = x.shape[axis], len(node.outputs)
    if sizes is None:
        each = -(-total // parts)
        sizes = [min(each, total - each * i) for i in range(parts)]
    if sum(sizes) != total or len(sizes) != parts:
        raise ShapeError(f"split {list(sizes)} does not add up to the {total} elements of axis {axis} in {parts} parts")
    ends = np.cumsum(sizes)
    where = [slice(None)] * len(x.shape)
    results = []
    for start, end in zip((0, *ends), ends):
        where[axis] = slice(int(start), int(end))
        results.append(_view(x, lambda view, at=tuple(where): view[at]))
    return results


@lowers("Concat")
def concat(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """Operands that were written into their slice stay there, the others are copied."""
    if all(isinstance(operand, np.ndarray) for operand in operands):
        return None
    shapes = [operand.shape for operand in operands]
    rank = len(shapes[0])
    axis = node.attributes.get("axis", 1) % rank
    if any(len(s) != rank or s[:axis] + s[axis + 1 :] != shapes[0][:axis] + shapes[0][axis + 1 :] for s in shapes):
        raise ShapeError(f"operands of shapes {shapes} differ in more than axis {axis}")
    name, dtype = node.outputs[0], operands[0].dtype
    if name in trace.wholes:
        whole = trace.whole(name, dtype)
    else:
        shape = (*shapes[0][:axis], sum(s[axis] for s in shapes), *shapes[0][axis + 1 :])
        computed = [operand for operand in operands if isinstance(operand, Tensor)]
        last = rank > 2 and all(
            operand.is_dense(channels_last(rank)) or operand.pitch() is not None for operand in computed
        )
        whole = trace.new(name, shape, dtype, channels_last if last else row_major)
    start = 0
    where = [slice(None)] * rank
    for operand in map(trace.tensor, operands):
        where[axis] = slice(start, start + operand.shape[axis])
        part = whole.with_view(whole.view[tuple(where)])
        if operand.view.size and not part.same_memory(operand):
            trace.copy(operand, part)
        start += operand.shape[axis]
    return [whole]
