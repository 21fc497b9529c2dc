"""Softmax and the normalisations, by rows of neighbouring elements where they run along such, else composed of reductions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.epilogue import IDENTITY, Activation
from numbaconv.errors import ShapeError
from numbaconv.graph import rows, scaling
from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.elementwise import activate, combine, unary
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
    if not _computed(x) or not constant or training or not node.attributes.get("spatial", 1) or len(x.shape) < 2:
        return None
    channels = x.shape[1]
    if any(value.shape != (channels,) for value in statistics):
        shapes = [value.shape for value in statistics]
        raise ShapeError(
            f"scale, bias, mean and variance have shapes {shapes}, x of shape {x.shape} needs ({channels},)"
        )
    scale, bias, mean, variance = (value.astype(np.float64) for value in statistics)
    gain = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    return [scaling.scale(trace, x, gain, bias - mean * gain, node.outputs[0], _activation(node))]


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
        return [rows.normalize(trace, x, axes, name, epsilon, scale, bias)]
    normal = rows.normalize(trace, x, axes, "", epsilon)
    return [
        combine(trace, "multiply", normal, scale, name) if bias is None else _gained(trace, normal, scale, bias, name)
    ]


def _gained(trace: Trace, x: Tensor, scale: Value, bias: Value, name: str) -> Tensor:
    return combine(trace, "add", combine(trace, "multiply", x, scale, ""), bias, name)


def _activation(node: Node) -> Activation:
    return node.attributes.get("activation", IDENTITY)


def _standardized(trace: Trace, node: Node, x: Tensor, groups: int, scale: Value, bias: Value) -> Tensor:
    """x with mean 0 and variance 1 over pixels and groups of channels, with the scale and bias of each channel, activated."""
    epsilon, name, activation = node.attributes.get("epsilon", 1e-5), node.outputs[0], _activation(node)
    if isinstance(scale, np.ndarray) and isinstance(bias, np.ndarray):
        return scaling.standardize(trace, x, groups, epsilon, name, scale, bias, activation)
    normal = scaling.standardize(trace, x, groups, epsilon, "")
    along_channels = (-1, *(1,) * (len(x.shape) - 2))
    scale, bias = (reshaped(trace, value, along_channels) for value in (scale, bias))
    if activation.is_identity:
        return _gained(trace, normal, scale, bias, name)
    return activate(trace, _gained(trace, normal, scale, bias, ""), activation, name)


@lowers("InstanceNormalization")
def _instance_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, scale, bias = operands
    if not _computed(x) or len(x.shape) < 3:
        return None
    for name, value in (("scale", scale), ("bias", bias)):
        if value.shape != (x.shape[1],):
            raise ShapeError(f"{name} has shape {value.shape}, x of shape {x.shape} needs ({x.shape[1]},)")
    return [_standardized(trace, node, x, x.shape[1], scale, bias)]


@lowers("GroupNormalization")
def _group_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, scale, bias = operands
    groups = node.attributes["num_groups"]
    if not _computed(x) or len(x.shape) < 3:
        return None
    channels = x.shape[1]
    if groups < 1 or channels % groups:
        raise ShapeError(f"num_groups {groups} does not divide the {channels} channels of x")
    # since opset 21 scale and bias are those of channels, before those of groups
    per_channel = trace.graph.opset >= 21
    if any(value.shape != (channels if per_channel else groups,) for value in (scale, bias)):
        raise ShapeError(
            f"scale and bias have shapes {scale.shape} and {bias.shape} for {channels} channels in {groups} groups"
        )
    if not per_channel:
        scale, bias = (_repeated(trace, value, channels // groups) for value in (scale, bias))
    return [_standardized(trace, node, x, groups, scale, bias)]


def _repeated(trace: Trace, value: Value, times: int) -> Value:
    """Each number of a vector so many times."""
    if isinstance(value, np.ndarray):
        return np.repeat(value, times)
    ones = np.ones((1, times), value.dtype)
    return reshaped(trace, combine(trace, "multiply", reshaped(trace, value, (-1, 1)), ones, ""), (-1,))


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


@lowers("LpNormalization")
def _lp_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    p = node.attributes.get("p", 2)
    if not _computed(x) or not x.shape or p not in (1, 2):
        return None
    axes = [axis_of(node, len(x.shape), -1)]
    norm = rows.reduce(trace, "sum_of_magnitudes" if p == 1 else "sum_of_squares", x, axes, "")
    norm = norm if p == 1 else unary(trace, "sqrt", norm, "")
    # a norm of zero is that of zeros, which stay
    least = np.asarray(np.finfo(x.dtype).tiny)
    return [combine(trace, "divide", x, combine(trace, "maximum", norm, least, ""), node.outputs[0])]


@lowers("LRN")
def _local_response_normalization(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    size, alpha, beta, bias = (
        node.attributes.get(name, usual)
        for name, usual in (("size", 0), ("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    # the logarithm is that of a positive number
    if not _computed(x) or len(x.shape) < 2 or size < 1 or bias <= 0 or alpha < 0:
        return None
    return [rows.local_response(trace, x, node.outputs[0], size, alpha / size, bias, -beta)]
