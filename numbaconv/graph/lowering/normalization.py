"""Softmax and the normalisations, by rows of neighbouring elements where they run along such, else composed of reductions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.errors import ShapeError
from numbaconv.graph import rows
from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.elementwise import combine, unary
from numbaconv.graph.lowering.shapes import reshaped
from numbaconv.graph.tensors import Tensor
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers


def _computed(value: Value) -> bool:
    return isinstance(value, Tensor) and value.dtype in FLOATS and value.view.size > 0


def axis_of(node: Node, rank: int, usual: int) -> int:
    """The attribute `axis`, counted from the first; `usual` where it is left out."""
    axis = node.attributes.get("axis", usual)
    if not -rank <= axis < max(rank, 1):
        raise ShapeError(f"axis {axis} is not among the {rank} axes of x")
    return axis % rank if rank else 0


@lowers("Softmax", "LogSoftmax")
def _softmax(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    if not _computed(x) or not x.shape:
        return None
    old = trace.graph.opset < 13
    axis = axis_of(node, len(x.shape), 1 if old else -1)
    # old opsets take all axes from this one on together
    axes = range(axis, len(x.shape)) if old else [axis]
    return [rows.softmax(trace, x, axes, node.outputs[0], node.op == "LogSoftmax")]


@lowers("BatchNormalization")
def _batch_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """Scale and shift of each channel by the stored statistics."""
    x, *statistics = operands
    constant = all(isinstance(value, np.ndarray) for value in statistics)
    training = node.attributes.get("training_mode", 0) or (
        trace.graph.opset < 7 and not node.attributes.get("is_test", 0)
    )
    if not _computed(x) or not constant or training or not node.attributes.get("spatial", 1):
        return None
    channels = x.shape[1] if len(x.shape) > 1 else 1
    if any(value.shape != (channels,) for value in statistics):
        shapes = [value.shape for value in statistics]
        raise ShapeError(
            f"scale, bias, mean and variance have shapes {shapes}, x of shape {x.shape} needs ({channels},)"
        )
    scale, bias, mean, variance = (value.astype(np.float64) for value in statistics)
    gain = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    axes = [1] if len(x.shape) > 1 else []
    return [rows.normalize(trace, x, axes, node.outputs[0], gain, bias - mean * gain)]


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    return len(shape) <= len(to) and all(own in (1, wanted) for own, wanted in zip(shape[::-1], to[::-1]))


@lowers("LayerNormalization")
def _layer_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, scale, bias = (*operands, None)[:3]
    if not _computed(x) or len(list(filter(None, node.outputs))) > 1:
        return None
    axes = range(axis_of(node, len(x.shape), -1), len(x.shape))
    shape = x.shape[axes[0] :]
    for name, value in (("scale", scale), ("bias", bias)):
        if value is not None and not _broadcasts(value.shape, shape):
            raise ShapeError(f"{name} has shape {value.shape}, which does not broadcast to the axes {shape} of x")
    name, epsilon = node.outputs[0], node.attributes.get("epsilon", 1e-5)
    if isinstance(scale, np.ndarray) and (bias is None or isinstance(bias, np.ndarray)):
        return [rows.normalize(trace, x, axes, name, scale, bias, epsilon)]
    normal = rows.normalize(trace, x, axes, "", epsilon=epsilon)
    return [
        combine(trace, "multiply", normal, scale, name) if bias is None else _gained(trace, normal, scale, bias, name)
    ]


def standardized(trace: Trace, x: Tensor, axes: Sequence[int], epsilon: float, name: str) -> Tensor:
    """x with mean 0 and variance 1 over some axes."""
    mean = rows.reduce(trace, "sum", x, axes, "", mean=True)
    centered = combine(trace, "subtract", x, mean, "")
    variance = rows.reduce(trace, "sum_of_squares", centered, axes, "", mean=True)
    return combine(trace, "multiply", centered, unary(trace, "inverse_root", variance, "", epsilon), name)


def _gained(trace: Trace, x: Tensor, scale: Value, bias: Value, name: str) -> Tensor:
    return combine(trace, "add", combine(trace, "multiply", x, scale, ""), bias, name)


def _channels(trace: Trace, value: Value, rank: int) -> Value:
    """A value of one axis along the channels of tensors of that rank."""
    return reshaped(trace, value, (-1, *(1,) * (rank - 2)))


@lowers("InstanceNormalization")
def _instance_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, scale, bias = operands
    if not _computed(x) or len(x.shape) < 3:
        return None
    rank, epsilon = len(x.shape), node.attributes.get("epsilon", 1e-5)
    for name, value in (("scale", scale), ("bias", bias)):
        if value.shape != (x.shape[1],):
            raise ShapeError(f"{name} has shape {value.shape}, x of shape {x.shape} needs ({x.shape[1]},)")
    normal = standardized(trace, x, range(2, rank), epsilon, "")
    scale, bias = (_channels(trace, value, rank) for value in (scale, bias))
    return [_gained(trace, normal, scale, bias, node.outputs[0])]


@lowers("GroupNormalization")
def _group_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, scale, bias = operands
    groups = node.attributes["num_groups"]
    if not _computed(x) or len(x.shape) < 3:
        return None
    if groups < 1 or x.shape[1] % groups:
        raise ShapeError(f"num_groups {groups} does not divide the {x.shape[1]} channels of x")
    n, channels, *spatial = x.shape
    each = channels // groups
    # since opset 21 scale and bias are those of channels, before those of groups
    per_channel = trace.graph.opset >= 21
    if any(value.shape != (channels if per_channel else groups,) for value in (scale, bias)):
        raise ShapeError(
            f"scale and bias have shapes {scale.shape} and {bias.shape} for {channels} channels in {groups} groups"
        )
    grouped = reshaped(trace, x, (n, groups, each, *spatial))
    rank = len(grouped.shape)
    normal = standardized(trace, grouped, range(2, rank), node.attributes.get("epsilon", 1e-5), "")
    shape = (groups, each if per_channel else 1, *(1,) * len(spatial))
    scale, bias = (reshaped(trace, value, shape) for value in (scale, bias))
    result = reshaped(trace, _gained(trace, normal, scale, bias, ""), x.shape)
    return [result]


@lowers("MeanVarianceNormalization")
def _mean_variance_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    if not _computed(x):
        return None
    axes = [axis % len(x.shape) for axis in node.attributes.get("axes", (0, 2, 3))]
    # the operator's definition adds this to the standard deviation
    mean = rows.reduce(trace, "sum", x, axes, "", mean=True)
    centered = combine(trace, "subtract", x, mean, "")
    deviation = unary(trace, "sqrt", rows.reduce(trace, "sum_of_squares", centered, axes, "", mean=True), "")
    epsilon = np.asarray(1e-9, x.dtype)
    return [combine(trace, "divide", centered, combine(trace, "add", deviation, epsilon, ""), node.outputs[0])]
