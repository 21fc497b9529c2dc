"""Reading and writing elements at indices."""

from __future__ import annotations

import numpy as np

from numbaconv.errors import ModelError
from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, computes, makes


def checked(indices: np.ndarray, size: int) -> np.ndarray:
    """Indices along an axis of that length, negative ones counted from its end.

    Raises
    ------
    ModelError
        One of them lies outside of the axis.
    """
    if indices.size and (indices.min() < -size or indices.max() >= size):
        raise ModelError(f"indices from {indices.min()} to {indices.max()} do not lie in an axis of {size} elements")
    return indices


@makes("Gather")
def _gather(node: Node, opset: int) -> Function:
    axis = node.attributes.get("axis", 0)
    return lambda x, indices: np.take(x, checked(indices, x.shape[axis]), axis)


def _along(x: np.ndarray, indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """Index arrays of all axes: those along `axis` are given, the others are their own."""
    grid = list(np.indices(indices.shape, sparse=True))
    grid[axis] = checked(indices, x.shape[axis])
    return tuple(grid)


@makes("GatherElements")
def _gather_elements(node: Node, opset: int) -> Function:
    axis = node.attributes.get("axis", 0)
    return lambda x, indices: x[_along(x, indices, axis)]


def _nd(x: np.ndarray, indices: np.ndarray, batch: int = 0) -> tuple[np.ndarray, ...]:
    """Index arrays for tuples along the last axis of `indices`, behind `batch` axes that both have."""
    shared = np.indices(indices.shape[:-1], sparse=True)[:batch]
    given = [checked(indices[..., i], x.shape[batch + i]) for i in range(indices.shape[-1])]
    return (*shared, *given)


@makes("GatherND")
def _gather_nd(node: Node, opset: int) -> Function:
    batch = node.attributes.get("batch_dims", 0)
    return lambda x, indices: x[_nd(x, indices, batch)]


#: What becomes of an element and its update.
_REDUCTIONS = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}


def _update(x: np.ndarray, where: tuple[np.ndarray, ...], updates: np.ndarray, reduction: str) -> np.ndarray:
    y = x.copy()
    if reduction in _REDUCTIONS:
        _REDUCTIONS[reduction].at(y, where, updates)
    else:
        y[where] = updates
    return y


@makes("Scatter", "ScatterElements")
def _scatter_elements(node: Node, opset: int) -> Function:
    axis, reduction = node.attributes.get("axis", 0), node.attributes.get("reduction", "none")
    return lambda x, indices, updates: _update(x, _along(x, indices, axis), updates, reduction)


@makes("ScatterND")
def _scatter_nd(node: Node, opset: int) -> Function:
    reduction = node.attributes.get("reduction", "none")
    return lambda x, indices, updates: _update(x, _nd(x, indices), updates, reduction)


@makes("OneHot")
def _one_hot(node: Node, opset: int) -> Function:
    axis = node.attributes.get("axis", -1)

    def run(indices, depth, values):
        depth = int(depth.item())
        indices = np.expand_dims(np.where(indices < 0, indices + depth, indices), axis)
        shape = [1] * indices.ndim
        shape[axis] = depth
        return np.where(indices == np.arange(depth).reshape(shape), values[1], values[0])

    return run


@computes("NonZero")
def _non_zero(x):
    # a scalar has one element and no axes
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)[: max(x.ndim, 1)]


@makes("Compress")
def _compress(node: Node, opset: int) -> Function:
    axis = node.attributes.get("axis")
    return lambda x, condition: np.compress(condition, x, axis)
