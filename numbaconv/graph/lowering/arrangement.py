"""Padding, repeating and rearranging, as copies between views: what is copied is decided by strides alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.errors import ShapeError
from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.shapes import known, reshaped
from numbaconv.graph.operators.arrangement import cropped, depth_to_space, pad_widths, space_to_depth
from numbaconv.graph.tensors import Tensor, channels_last, row_major
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers


def _computed(value: Value) -> bool:
    return isinstance(value, Tensor) and value.dtype in FLOATS and value.view.size > 0


@lowers("DepthToSpace", "SpaceToDepth")
def _blocks(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """A view in six axes, transposed, and copied as the result lies."""
    (x,) = operands
    if not isinstance(x, Tensor):
        return None
    if len(x.shape) != 4:
        raise ShapeError(f"x has shape {x.shape}, {node.op} needs four axes")
    arrange = depth_to_space if node.op == "DepthToSpace" else space_to_depth
    apart, order, result = arrange(node, x.shape)
    if x.dtype in FLOATS and node.attributes.get("mode", "DCR") == "CRD" and node.op == "DepthToSpace":
        # the channels of one result pixel are brought together first: small matrices to be transposed
        n, each, b, _, h, w = apart
        pixels = trace.temporary(x.shape, x.dtype, channels_last)
        source = reshaped(trace, trace.pixels(x), (n, each, b * b, h, w))
        target = reshaped(trace, pixels, (n, b * b, each, h, w))
        trace.copy(source.with_view(source.view.transpose(0, 2, 1, 3, 4)), target)
        x, apart, order = pixels, (n, b, b, each, h, w), (0, 3, 4, 1, 5, 2)
    elif x.dtype in FLOATS:
        # whole runs of channels move then
        x = trace.pixels(x)
    source = reshaped(trace, x, apart)
    source = source.with_view(source.view.transpose(order))
    out = trace.new(node.outputs[0], result, x.dtype, channels_last if x.pitch() is not None else row_major)
    # axes of the result taken apart again, which is a view whatever their order is
    target = reshaped(trace, out, source.shape)
    trace.copy(source, target)
    return [out]


@lowers("Expand")
def _expand(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, shape = operands
    if not _computed(x) or not known(shape):
        return None
    wanted = tuple(int(size) for size in shape)
    try:
        result = np.broadcast_shapes(x.shape, wanted)
    except ValueError as error:
        raise ShapeError(f"x of shape {x.shape} cannot be expanded to {wanted}") from error
    return [_copied(trace, node.outputs[0], x.with_view(np.broadcast_to(x.view, result)))]


@lowers("Tile")
def _tile(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, *rest = operands
    if not _computed(x) or trace.graph.opset < 6 or not known(rest[0]):
        return None
    repeats = [int(count) for count in rest[0]]
    if len(repeats) != len(x.shape):
        raise ShapeError(f"repeats has {len(repeats)} entries, x of shape {x.shape} needs {len(x.shape)}")
    out = trace.new(node.outputs[0], [n * size for n, size in zip(repeats, x.shape)], x.dtype)
    # (repeats, own) for each axis of the result
    pairs = [length for pair in zip(repeats, x.shape) for length in pair]
    target = reshaped(trace, out, pairs)
    source = x.with_view(np.broadcast_to(np.expand_dims(x.view, tuple(range(0, 2 * len(repeats), 2))), pairs))
    trace.copy(source, target)
    return [out]


def _copied(trace: Trace, name: str, source: Tensor) -> Tensor:
    out = trace.new(name, source.shape, source.dtype)
    trace.copy(source, out)
    return out


@lowers("Pad")
def _pad(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """x in the middle of the result, then the border of one axis after the other from what is there already."""
    x, pads, value, axes = (*operands, None, None, None)[:4]
    opset, mode = trace.graph.opset, node.attributes.get("mode", "constant")
    if opset < 11:
        pads = np.asarray(node.attributes.get("pads", node.attributes.get("paddings")))
        value = np.asarray(node.attributes.get("value", 0.0))
    if not _computed(x) or not all(known(operand) for operand in (pads, value, axes)):
        return None
    widths = pad_widths(len(x.shape), pads, axes)
    x = x.with_view(x.view[cropped(widths)])
    widths = [(max(before, 0), max(after, 0)) for before, after in widths]
    # the border repeats what is there only once
    reach = {"reflect": 1, "wrap": 0}.get(mode)
    if not x.view.size or (
        reach is not None and any(max(width) > size - reach for width, size in zip(widths, x.shape) if any(width))
    ):
        return None
    shape = [before + size + after for (before, after), size in zip(widths, x.shape)]
    out = trace.new(node.outputs[0], shape, x.dtype, channels_last if _is_channels_last(x) else row_major)
    inner = [slice(before, before + size) for (before, _), size in zip(widths, x.shape)]
    trace.copy(x, out.with_view(out.view[tuple(inner)]))
    for axis, ((before, after), size) in enumerate(zip(widths, x.shape)):
        for width, target, source in (
            (before, slice(0, before), _SOURCES[mode][0](before, size, before)),
            (after, slice(before + size, None), _SOURCES[mode][1](before, size, after)),
        ):
            if not width:
                continue
            border = out.view[(*inner[:axis], target, *inner[axis + 1 :])]
            if source is None:
                fill = np.zeros((), x.dtype) if value is None else np.asarray(value, x.dtype).reshape(())
                constant = Tensor.constant(fill)
                trace.copy(constant.with_view(np.broadcast_to(constant.view, border.shape)), out.with_view(border))
                continue
            origin = out.view[(*inner[:axis], source, *inner[axis + 1 :])]
            trace.copy(out.with_view(np.broadcast_to(origin, border.shape)), out.with_view(border))
        inner[axis] = slice(None)
    return [out]


def _is_channels_last(x: Tensor) -> bool:
    return len(x.shape) > 2 and x.pitch() is not None


def _backwards(first: int, count: int) -> slice:
    """`count` elements from number `first` down."""
    end = first - count
    return slice(first, None if end < 0 else end, -1)


#: By mode, where the border before an axis and that behind it come from: of (elements before, size, width of the border), a slice
#: of the result, or None for a constant.
_SOURCES = {
    "constant": (lambda b, n, w: None, lambda b, n, w: None),
    "edge": (lambda b, n, w: slice(b, b + 1), lambda b, n, w: slice(b + n - 1, b + n)),
    "reflect": (lambda b, n, w: _backwards(b + w, w), lambda b, n, w: _backwards(b + n - 2, w)),
    "wrap": (lambda b, n, w: slice(b + n - w, b + n), lambda b, n, w: slice(b, b + w)),
}


@lowers("Gather")
def _gather(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """One element along an axis is a view."""
    x, indices = operands
    axis = node.attributes.get("axis", 0)
    if not isinstance(x, Tensor) or not isinstance(indices, np.ndarray) or indices.size != 1:
        return None
    if not -x.shape[axis] <= indices.item() < x.shape[axis]:
        raise ShapeError(f"index {indices.item()} does not lie in axis {axis} of x, which has shape {x.shape}")
    axis %= len(x.shape)
    number = indices.item() % x.shape[axis]
    view = x.view[(slice(None),) * axis + (slice(number, number + 1),)]
    if indices.ndim == 1:
        return [x.with_view(view)]
    places = (*range(axis), *range(axis + indices.ndim, len(x.shape) - 1 + indices.ndim))
    missing = tuple(place for place in range(len(x.shape) - 1 + indices.ndim) if place not in places)
    return [x.with_view(np.expand_dims(np.squeeze(view, axis), missing))]
