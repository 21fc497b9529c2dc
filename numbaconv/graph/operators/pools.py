"""Pools that give indices, of powers, of other element types, and back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, makes
from numbaconv.graph.window import Pads, Window, per_axis, pooled


def _padded(x: np.ndarray, window: Window, pads: Pads, counts: Sequence[int], fill) -> np.ndarray:
    """x in the middle of its padding, and of what windows reach behind that."""
    widths = [(0, 0), (0, 0)]
    for (before, after), size, extent, stride, count in zip(pads, x.shape[2:], window.extents, window.strides, counts):
        widths.append((before, max(after, (count - 1) * stride + extent - size - before)))
    return np.pad(x, widths, constant_values=fill)


def _taps(padded: np.ndarray, window: Window, counts: Sequence[int]) -> Iterator[np.ndarray]:
    """What each tap of the window sees, a view of (n, c, *counts)."""
    for tap in itertools.product(*map(range, window.kernel)):
        starts = [t * dilation for t, dilation in zip(tap, window.dilations)]
        where = [slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, window.strides, counts)]
        yield padded[(slice(None), slice(None), *where)]


@makes("MaxPool")
def _max_pool(node: Node, opset: int) -> Function:
    column_major = node.attributes.get("storage_order", 0)

    def run(x):
        window, pads, counts = pooled(node, x.shape)
        lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        sizes = x.shape[2:]
        numbers = np.arange(np.prod(sizes), dtype=np.int64)
        numbers = numbers.reshape(sizes[::-1]).T if column_major else numbers.reshape(sizes)
        images = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * len(sizes)) * numbers.size
        values = _taps(_padded(x, window, pads, counts, lowest), window, counts)
        places = _taps(_padded(numbers[None, None], window, pads, counts, -1), window, counts)
        best = where = None
        for value, place in zip(values, places):
            place = np.broadcast_to(place, value.shape)
            if best is None:
                best, where = value.copy(), place.copy()
                continue
            better = (value > best) | ((where < 0) & (place >= 0)) | (np.isnan(value) & ~np.isnan(best))
            np.copyto(best, value, where=better)
            np.copyto(where, place, where=better)
        return best, where + images

    return run


@makes("AveragePool", "LpPool")
def _sum_pool(node: Node, opset: int) -> Function:
    mean = node.op == "AveragePool"
    everywhere, p = node.attributes.get("count_include_pad", 0), node.attributes.get("p", 2)

    def run(x):
        window, pads, counts = pooled(node, x.shape)
        terms = x if mean else np.abs(x) ** p
        total = sum(_taps(_padded(terms, window, pads, counts, 0), window, counts))
        if not mean:
            return (total ** (1 / p)).astype(x.dtype)
        ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
        if everywhere:
            ones = np.pad(ones, [(0, 0), (0, 0), *pads], constant_values=1)
            counted = _padded(ones, window, ((0, 0),) * len(pads), counts, 0)
        else:
            counted = _padded(ones, window, pads, counts, 0)
        return (total / sum(_taps(counted, window, counts))).astype(x.dtype)

    return run


@makes("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def _global_pool(node: Node, opset: int) -> Function:
    p = node.attributes.get("p", 2)

    def run(x):
        axes = tuple(range(2, x.ndim))
        if node.op == "GlobalMaxPool":
            return x.max(axes, keepdims=True)
        if node.op == "GlobalAveragePool":
            return x.mean(axes, keepdims=True).astype(x.dtype)
        return ((np.abs(x) ** p).sum(axes, keepdims=True) ** (1 / p)).astype(x.dtype)

    return run


@makes("MaxUnpool")
def _max_unpool(node: Node, opset: int) -> Function:
    kernel = node.attributes["kernel_shape"]
    strides = per_axis(node.attributes, "strides", len(kernel), 1)
    pads = per_axis(node.attributes, "pads", 2 * len(kernel), 0)

    def run(x, indices, shape=None):
        # indices count in the shape that the pool came from, whatever shape is asked for
        ends = zip(x.shape[2:], strides, pads, pads[len(kernel) :], kernel)
        y = np.zeros((*x.shape[:2], *((size - 1) * stride - a - b + k for size, stride, a, b, k in ends)), x.dtype)
        y.reshape(-1)[indices.reshape(-1)] = x.reshape(-1)
        if shape is None:
            return y
        whole = np.zeros([int(size) for size in shape], x.dtype)
        whole[tuple(map(slice, y.shape))] = y
        return whole

    return run
