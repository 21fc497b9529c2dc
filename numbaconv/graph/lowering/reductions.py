"""Reduce* of floats by compiled loops; element types and corner cases that these do not cover stay with NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.errors import ShapeError
from numbaconv.graph import rows
from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.elementwise import unary
from numbaconv.graph.lowering.normalization import axis_of
from numbaconv.graph.tensors import Tensor
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers

_REDUCTIONS = {
    "ReduceSum": "sum",
    "ReduceMean": "sum",
    "ReduceMax": "maximum",
    "ReduceMin": "minimum",
    "ReduceProd": "product",
    "ReduceL1": "sum_of_magnitudes",
    "ReduceL2": "sum_of_squares",
    "ReduceSumSquare": "sum_of_squares",
}


def reduced_axes(node: Node, operands: Sequence[Value], opset: int, rank: int) -> tuple[int, ...] | None:
    """The axes of a reduction, an attribute in old opsets and an operand later; None where they are not known yet."""
    axes = node.attributes.get("axes")
    if opset >= (13 if node.op == "ReduceSum" else 18):
        axes = operands[1] if len(operands) > 1 else None
        if isinstance(axes, Tensor):
            return None
    if axes is None or not len(axes):
        return () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    if any(not -rank <= axis < rank for axis in axes):
        raise ShapeError(f"axes {[int(axis) for axis in axes]} are not all among the {rank} axes of x")
    return tuple(sorted({int(axis) % rank for axis in np.asarray(axes)}))


@lowers(*_REDUCTIONS)
def _reduce(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x = operands[0]
    if not isinstance(x, Tensor) or x.dtype not in FLOATS or not x.view.size:
        return None
    axes = reduced_axes(node, operands, trace.graph.opset, len(x.shape))
    if not axes:
        return None
    root = node.op == "ReduceL2"
    result = rows.reduce(
        trace,
        _REDUCTIONS[node.op],
        x,
        axes,
        "" if root else node.outputs[0],
        mean=node.op == "ReduceMean",
        keepdims=bool(node.attributes.get("keepdims", 1)),
    )
    return [unary(trace, "sqrt", result, node.outputs[0]) if root else result]


@lowers("ArgMax")
def _position(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    first = not node.attributes.get("select_last_index", 0)
    if not first or not isinstance(x, Tensor) or x.dtype not in FLOATS or not x.view.size or not x.shape:
        return None
    axis = axis_of(node, len(x.shape), 0)
    found = rows.position(trace, x, axis, node.outputs[0], bool(node.attributes.get("keepdims", 1)))
    return None if found is None else [found]
