"""Comparisons, logic, bits, choices, and conversions between element types."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import helper

from numbaconv.graph.ir import Node
from numbaconv.graph.operators.arithmetic import broadcast_as
from numbaconv.graph.operators.registry import Function, computes, makes

_FUNCTIONS: dict[str, Callable] = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "Not": np.logical_not,
    "IsNaN": np.isnan,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "BitwiseNot": np.bitwise_not,
}


@makes(*_FUNCTIONS)
def _elementwise(node: Node, opset: int) -> Function:
    return broadcast_as(node, opset, _FUNCTIONS[node.op])


@makes("BitShift")
def _shift(node: Node, opset: int) -> Function:
    return np.left_shift if node.attributes["direction"] == "LEFT" else np.right_shift


@makes("IsInf")
def _infinite(node: Node, opset: int) -> Function:
    negative, positive = node.attributes.get("detect_negative", 1), node.attributes.get("detect_positive", 1)

    def run(x):
        return np.isinf(x) & ((x < 0) & bool(negative) | (x > 0) & bool(positive))

    return run


@computes("Where")
def _where(condition, x, y):
    return np.where(condition, x, y)


@makes("Cast")
def _cast(node: Node, opset: int) -> Function | None:
    dtype = helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    # strings and the small floats follow rules of their own
    if dtype.kind not in "biufc":
        return None
    return lambda x: x.astype(dtype)


@computes("CastLike")
def _cast_like(x, like):
    return x.astype(like.dtype)
