"""Linear quantisation to and from integers of 8 and 16 bits."""

from __future__ import annotations

import numpy as np
from onnx import helper

from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, computes, makes


def _spread(value: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """A scale or zero of a tensor, of an axis, or of blocks of `block` elements along it, for each element."""
    if value.ndim == 0 or value.size == 1:
        return value.reshape(())
    if block:
        return np.repeat(value, block, axis)[tuple(slice(size) for size in shape)]
    return value.reshape([-1 if i == axis % len(shape) else 1 for i in range(len(shape))])


def _layout(node: Node) -> tuple[int, int]:
    return node.attributes.get("axis", 1), node.attributes.get("block_size", 0)


def quantized(x: np.ndarray, dtype: np.dtype, zero: np.ndarray | int = 0) -> np.ndarray:
    """Scaled values rounded to even, moved by `zero`, and cut off at the ends of an integer type."""
    info = np.iinfo(dtype)
    return np.clip(np.rint(x) + zero, info.min, info.max).astype(dtype)


@makes("QuantizeLinear")
def _quantize(node: Node, opset: int) -> Function | None:
    wanted = node.attributes.get("output_dtype", 0)
    dtype = helper.tensor_dtype_to_np_dtype(wanted) if wanted else np.dtype(np.uint8)
    if dtype.kind not in "iu" or node.attributes.get("precision", 0):
        return None
    axis, block = _layout(node)

    def run(x, scale, zero=None):
        kind = dtype if zero is None else zero.dtype
        scaled = x / _spread(scale, x.shape, axis, block).astype(x.dtype)
        origin = 0 if zero is None else _spread(zero, x.shape, axis, block).astype(np.float32)
        return quantized(scaled, kind, origin)

    return run


@makes("DequantizeLinear")
def _dequantize(node: Node, opset: int) -> Function | None:
    if node.attributes.get("output_dtype", 0):
        return None
    axis, block = _layout(node)

    def run(x, scale, zero=None):
        origin = 0 if zero is None else _spread(zero, x.shape, axis, block).astype(np.float32)
        return ((x.astype(np.float32) - origin) * _spread(scale, x.shape, axis, block)).astype(scale.dtype)

    return run


@computes("DynamicQuantizeLinear")
def _dynamic(x):
    low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
    scale = np.float32((high - low) / np.float32(255)) if high > low else np.float32(1 / 255)
    zero = np.clip(np.rint(-low / scale), 0, 255)
    return quantized(x / scale, np.dtype(np.uint8), zero), np.asarray(scale), np.asarray(zero, np.uint8)
