"""Normalisations whose statistics are asked for, that are rare, or whose operands are no floats of ours."""

from __future__ import annotations

import numpy as np

from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, makes


def along_channels(values: np.ndarray, rank: int) -> np.ndarray:
    """A vector along axis 1 of arrays of that rank."""
    return values.reshape(-1, *(1,) * (rank - 2)) if rank > 1 else values


@makes("BatchNormalization")
def _batch_normalization(node: Node, opset: int) -> Function | None:
    epsilon, momentum = node.attributes.get("epsilon", 1e-5), node.attributes.get("momentum", 0.9)
    training = node.attributes.get("training_mode", 0)
    if not node.attributes.get("spatial", 1) or (opset < 7 and not node.attributes.get("is_test", 0)):
        return None
    if opset < 14 and len(list(filter(None, node.outputs))) > 1:
        return None

    def run(x, scale, bias, mean, variance):
        statistics = ()
        if training:
            axes = tuple(axis for axis in range(x.ndim) if axis != 1)
            own = x.mean(axes), x.var(axes)
            statistics = tuple(
                (old * momentum + new * (1 - momentum)).astype(old.dtype) for old, new in zip((mean, variance), own)
            )
            mean, variance = own
        gain = scale / np.sqrt(variance + epsilon)
        y = (x - along_channels(mean, x.ndim)) * along_channels(gain, x.ndim) + along_channels(bias, x.ndim)
        return (y.astype(x.dtype), *statistics)

    return run


@makes("LayerNormalization", "RMSNormalization")
def _layer_normalization(node: Node, opset: int) -> Function:
    first, epsilon = node.attributes.get("axis", -1), node.attributes.get("epsilon", 1e-5)
    centered = node.op == "LayerNormalization"
    single = node.attributes.get("stash_type", 1) == 1

    def run(x, scale, bias=None):
        axes = tuple(range(first % x.ndim, x.ndim))
        wide = x.astype(np.float32) if single and x.dtype.itemsize < 4 else x
        mean = wide.mean(axes, keepdims=True) if centered else wide.dtype.type(0)
        inverse = 1 / np.sqrt(np.square(wide - mean).mean(axes, keepdims=True) + wide.dtype.type(epsilon))
        y = (wide - mean) * inverse * scale
        y = (y if bias is None else y + bias).astype(x.dtype)
        return (y, mean, inverse) if centered else y

    return run


@makes("InstanceNormalization", "GroupNormalization")
def _group_normalization(node: Node, opset: int) -> Function:
    epsilon, groups = node.attributes.get("epsilon", 1e-5), node.attributes.get("num_groups")

    def run(x, scale, bias):
        count = x.shape[1] if groups is None else groups
        grouped = x.reshape(x.shape[0], count, -1)
        mean, variance = grouped.mean(2, keepdims=True), grouped.var(2, keepdims=True)
        y = ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
        each = x.shape[1] // len(scale)
        scale, bias = (along_channels(np.repeat(value, each), x.ndim) for value in (scale, bias))
        return (y * scale + bias).astype(x.dtype)

    return run


@makes("LRN")
def _local_response(node: Node, opset: int) -> Function:
    size = node.attributes["size"]
    alpha, beta = node.attributes.get("alpha", 1e-4), node.attributes.get("beta", 0.75)
    bias = node.attributes.get("bias", 1.0)

    def run(x):
        before, after = (size - 1) // 2, size // 2
        squares = np.zeros((x.shape[0], x.shape[1] + size - 1, *x.shape[2:]), x.dtype)
        np.square(x, out=squares[:, before : before + x.shape[1]])
        total = sum(squares[:, i : i + x.shape[1]] for i in range(before + after + 1))
        return x / np.power(bias + alpha / size * total, beta, dtype=x.dtype)

    return run


@makes("LpNormalization")
def _lp_normalization(node: Node, opset: int) -> Function:
    axis, p = node.attributes.get("axis", -1), node.attributes.get("p", 2)

    def run(x):
        norm = np.linalg.norm(x, p, axis, keepdims=True).astype(x.dtype)
        return np.divide(x, norm, out=np.zeros_like(x), where=norm != 0)

    return run


@makes("MeanVarianceNormalization")
def _mean_variance(node: Node, opset: int) -> Function:
    axes = tuple(node.attributes.get("axes", (0, 2, 3)))
    return lambda x: ((x - x.mean(axes, keepdims=True)) / (x.std(axes, keepdims=True) + x.dtype.type(1e-9))).astype(
        x.dtype
    )
