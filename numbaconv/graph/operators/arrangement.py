"""Making, repeating, padding and rearranging arrays."""

from __future__ import annotations

import numpy as np
from onnx import helper, numpy_helper

from numbaconv.errors import ShapeError
from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, computes, makes


@makes("Concat")
def _concat(node: Node, opset: int) -> Function:
    axis = node.attributes.get("axis", 1)
    return lambda *operands: np.concatenate(operands, axis)


@computes("Expand")
def _expand(x, shape):
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(size) for size in shape))).copy()


@makes("Tile")
def _tile(node: Node, opset: int) -> Function | None:
    return None if opset < 6 else lambda x, repeats: np.tile(x, repeats)


@computes("Range")
def _range(start, limit, delta):
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@makes("ConstantOfShape")
def _constant_of_shape(node: Node, opset: int) -> Function:
    value = node.attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value)
    return lambda shape: np.full([int(size) for size in shape], fill.item(), fill.dtype)


@makes("EyeLike")
def _eye_like(node: Node, opset: int) -> Function:
    kind, k = node.attributes.get("dtype"), node.attributes.get("k", 0)
    return lambda x: np.eye(*x.shape, k, dtype=x.dtype if kind is None else helper.tensor_dtype_to_np_dtype(kind))


def pad_widths(rank: int, pads, axes=None) -> list[tuple[int, int]]:
    """Elements before and behind each axis; ONNX lists all starts, then all ends."""
    axes = range(rank) if axes is None else [int(axis) % rank for axis in axes]
    if len(pads) != 2 * len(axes):
        raise ShapeError(f"pads has {len(pads)} entries where {2 * len(axes)} are needed")
    widths = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        widths[axis] = int(pads[i]), int(pads[len(axes) + i])
    return widths


def cropped(widths: list[tuple[int, int]]) -> tuple[slice, ...]:
    """What negative pads leave."""
    return tuple(slice(max(-before, 0), min(after, 0) or None) for before, after in widths)


@makes("Pad")
def _pad(node: Node, opset: int) -> Function:
    mode = node.attributes.get("mode", "constant")

    def run(x, pads=None, value=None, axes=None):
        if opset < 11:
            pads = node.attributes.get("pads", node.attributes.get("paddings"))
            value = node.attributes.get("value", 0.0)
        widths = pad_widths(x.ndim, pads, axes)
        x = x[cropped(widths)]
        widths = [(max(before, 0), max(after, 0)) for before, after in widths]
        if mode != "constant":
            return np.pad(x, widths, mode)
        return np.pad(x, widths, constant_values=0 if value is None else np.asarray(value, x.dtype).item())

    return run


def depth_to_space(node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A shape to take apart, the order of its axes, and the shape of the result."""
    n, c, h, w = shape
    b = node.attributes["blocksize"]
    if c % (b * b):
        raise ShapeError(f"blocksize {b} needs a multiple of {b * b} channels, x has shape {shape}")
    result = n, c // (b * b), h * b, w * b
    if node.attributes.get("mode", "DCR") == "DCR":
        return (n, b, b, c // (b * b), h, w), (0, 3, 4, 1, 5, 2), result
    return (n, c // (b * b), b, b, h, w), (0, 1, 4, 2, 5, 3), result


def space_to_depth(node: Node, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """As above, the other way round."""
    n, c, h, w = shape
    b = node.attributes["blocksize"]
    if h % b or w % b:
        raise ShapeError(f"blocksize {b} does not divide the image of x, which has shape {shape}")
    if node.attributes.get("mode", "DCR") == "CRD":
        return (n, c, h // b, b, w // b, b), (0, 1, 3, 5, 2, 4), (n, c * b * b, h // b, w // b)
    return (n, c, h // b, b, w // b, b), (0, 3, 5, 1, 2, 4), (n, c * b * b, h // b, w // b)


@makes("DepthToSpace", "SpaceToDepth")
def _blocks(node: Node, opset: int) -> Function:
    arrange = depth_to_space if node.op == "DepthToSpace" else space_to_depth

    def run(x):
        apart, order, result = arrange(node, x.shape)
        return x.reshape(apart).transpose(order).reshape(result)

    return run


@makes("Trilu")
def _triangle(node: Node, opset: int) -> Function:
    take = np.triu if node.attributes.get("upper", 1) else np.tril
    return lambda x, k=None: take(x, 0 if k is None else int(k.item()))


@makes("ReverseSequence")
def _reverse_sequence(node: Node, opset: int) -> Function:
    batch, time = node.attributes.get("batch_axis", 1), node.attributes.get("time_axis", 0)

    def run(x, lengths):
        y = x.copy()
        source, to = (np.moveaxis(array, (batch, time), (0, 1)) for array in (x, y))
        for i, length in enumerate(lengths):
            to[i, :length] = source[i, :length][::-1]
        return y

    return run


@makes("CenterCropPad")
def _center_crop_pad(node: Node, opset: int) -> Function:
    def run(x, shape):
        axes = node.attributes.get("axes") or range(x.ndim)
        for axis, wanted in zip(axes, (int(size) for size in shape)):
            missing = wanted - x.shape[axis]
            # the odd element is cut off at, or added to, the end
            before = missing // 2 if missing > 0 else -(-missing // 2)
            widths = [(0, 0)] * x.ndim
            widths[axis] = before, missing - before
            x = np.pad(x[cropped(widths)], [(max(a, 0), max(b, 0)) for a, b in widths])
        return x

    return run
