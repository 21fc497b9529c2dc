"""Reduce* on any element type, sums along an axis, and softmax of small floats."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, makes


def _log_sum_exp(x, axis, keepdims):
    top = np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    # infinite tops stay out of the difference, which would be NaN
    finite = np.where(np.isfinite(top), top, 0)
    total = np.log(np.sum(np.exp(x - finite), axis=axis, keepdims=True)) + finite
    return total if keepdims else np.squeeze(total, axis)


def _with_start(function: Callable, start: Callable) -> Callable:
    """A largest or smallest element, which an empty axis has none of."""
    return lambda x, axis, keepdims: function(x, axis=axis, keepdims=keepdims, initial=start(x.dtype))


def _lowest(dtype: np.dtype):
    return -np.inf if dtype.kind == "f" else False if dtype.kind == "b" else np.iinfo(dtype).min


def _highest(dtype: np.dtype):
    return np.inf if dtype.kind == "f" else True if dtype.kind == "b" else np.iinfo(dtype).max


_FUNCTIONS: dict[str, Callable] = {
    "ReduceSum": np.sum,
    "ReduceMean": np.mean,
    "ReduceMax": _with_start(np.max, _lowest),
    "ReduceMin": _with_start(np.min, _highest),
    "ReduceProd": np.prod,
    "ReduceL1": lambda x, axis, keepdims: np.sum(np.abs(x), axis=axis, keepdims=keepdims),
    "ReduceL2": lambda x, axis, keepdims: np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims)),
    "ReduceSumSquare": lambda x, axis, keepdims: np.sum(np.square(x), axis=axis, keepdims=keepdims),
    "ReduceLogSum": lambda x, axis, keepdims: np.log(np.sum(x, axis=axis, keepdims=keepdims)),
    "ReduceLogSumExp": _log_sum_exp,
}


@makes(*_FUNCTIONS)
def _reduce(node: Node, opset: int) -> Function:
    function, keepdims = _FUNCTIONS[node.op], bool(node.attributes.get("keepdims", 1))
    declared = node.attributes.get("axes")
    nothing = node.attributes.get("noop_with_empty_axes", 0)
    as_operand = opset >= (13 if node.op == "ReduceSum" else 18)

    def run(x, given=None):
        axes = given if as_operand else declared
        axes = () if axes is None else tuple(int(axis) for axis in axes)
        if not axes and not nothing:
            axes = tuple(range(x.ndim))
        return np.asarray(function(x, axis=axes, keepdims=keepdims)).astype(x.dtype, copy=False)

    return run


def _softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _log_softmax(x, axis):
    y = x - x.max(axis, keepdims=True)
    return y - np.log(np.exp(y).sum(axis, keepdims=True))


def _hardmax(x, axis):
    y = np.zeros_like(x)
    np.put_along_axis(y, np.expand_dims(x.argmax(axis), axis), 1, axis)
    return y


_ALONG = {"Softmax": _softmax, "LogSoftmax": _log_softmax, "Hardmax": _hardmax}


@makes(*_ALONG)
def _along_axis(node: Node, opset: int) -> Function:
    function, old = _ALONG[node.op], opset < 13
    axis = node.attributes.get("axis", 1 if old else -1)

    def run(x):
        if not old:
            return function(x, axis)
        rows = int(np.prod(x.shape[: axis % max(x.ndim, 1)]))
        return function(x.reshape(rows, -1), 1).reshape(x.shape)

    return run


_ACCUMULATIONS = {"CumSum": np.cumsum, "CumProd": np.cumprod}


@makes(*_ACCUMULATIONS)
def _accumulate(node: Node, opset: int) -> Function:
    function, neutral = _ACCUMULATIONS[node.op], 0 if node.op == "CumSum" else 1
    reverse, exclusive = node.attributes.get("reverse", 0), node.attributes.get("exclusive", 0)

    def run(x, axis):
        axis = int(axis.item())
        x = np.flip(x, axis) if reverse else x
        y = function(x, axis, dtype=x.dtype)
        if exclusive:
            y = np.roll(y, 1, axis)
            y[(slice(None),) * (axis % x.ndim) + (slice(0, 1),)] = neutral
        return np.flip(y, axis) if reverse else y

    return run
