"""Positions of largest and smallest elements."""

from __future__ import annotations

import numpy as np

from numbaconv.errors import ShapeError
from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, makes


@makes("ArgMax", "ArgMin")
def _position(node: Node, opset: int) -> Function:
    find = np.argmax if node.op == "ArgMax" else np.argmin
    axis, keepdims = node.attributes.get("axis", 0), bool(node.attributes.get("keepdims", 1))
    last = node.attributes.get("select_last_index", 0)

    def run(x):
        if last:
            return x.shape[axis] - 1 - find(np.flip(x, axis), axis, keepdims=keepdims)
        return find(x, axis, keepdims=keepdims)

    return run


@makes("TopK")
def _top(node: Node, opset: int) -> Function:
    axis, largest = node.attributes.get("axis", -1), node.attributes.get("largest", 1)

    def run(x, k=None):
        count = int(node.attributes["k"] if opset < 10 else k.item())
        if not 0 <= count <= x.shape[axis]:
            raise ShapeError(f"k={count} elements are not among the {x.shape[axis]} of axis {axis}")
        # of equal elements the first one wins, so the order is stable from either end
        if largest:
            order = x.shape[axis] - 1 - np.flip(np.argsort(np.flip(x, axis), axis, kind="stable"), axis)
        else:
            order = np.argsort(x, axis, kind="stable")
        index = order.take(np.arange(count), axis)
        return np.take_along_axis(x, index, axis), index.astype(np.int64)

    return run
