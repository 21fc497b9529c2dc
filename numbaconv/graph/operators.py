"""The few operators besides convolution that we run ourselves; all others are left to the onnx reference.

Each is here for a reason, and each is plain NumPy:

- BatchNormalization: before opset 14 the reference normalises by the batch's own statistics, wrong in inference.
- AveragePool, MaxPool: the reference walks windows one by one in Python, seconds where a pass for each tap takes
  milliseconds.
- Resize, nearest and linear: the reference multiplies by a matrix of coefficients, or (in older releases) recurses over
  every output element; a gather along each axis does the same.

A case that a function here does not cover (training, ceil_mode, cubic, ...) falls back to the reference.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx

from numbaconv.errors import ShapeError
from numbaconv.graph.reference import ReferenceKernel
from numbaconv.graph.window import Window, plain_attributes

Operator = Callable[..., np.ndarray | None]


class OwnKernel:
    """A node that one of the functions below runs; where that returns None, the reference runs the call."""

    problem: str | None = None

    def __init__(self, node: onnx.NodeProto, operator: Operator, reference: ReferenceKernel):
        self.inputs = tuple(node.input)
        self.algorithm = "numpy"
        self._operator = operator
        self._reference = reference

    def __call__(self, *values: np.ndarray | None) -> Sequence[np.ndarray]:
        result = self._operator(*values)
        self.algorithm = "numpy" if result is not None else self._reference.algorithm
        return self._reference(*values) if result is None else (result,)


def own_kernel(node: onnx.NodeProto, opset: int, reference: ReferenceKernel) -> OwnKernel | ReferenceKernel:
    """Our kernel for a node of the default domain where we have one that covers it, else `reference`."""
    make = _OPERATORS.get(node.op_type)
    if make is None or len(node.output) > 1:
        return reference
    operator = make(plain_attributes(node), opset)
    return reference if operator is None else OwnKernel(node, operator, reference)


def batch_normalization(attributes: Mapping[str, object], opset: int) -> Operator | None:
    """Scale and shift of each channel by the stored statistics."""
    if opset < 9 or attributes.get("training_mode", 0):
        return None
    epsilon = np.float64(attributes.get("epsilon", 1e-5))

    def run(x, scale, bias, mean, var):
        gain = scale / np.sqrt(var + epsilon)
        shape = (-1,) + (1,) * (x.ndim - 2)
        y = x * gain.astype(x.dtype).reshape(shape)
        y += (bias - mean * gain).astype(x.dtype).reshape(shape)
        return y

    return run


def max_pool(attributes: Mapping[str, object], opset: int) -> Operator | None:
    """Largest element of each window; padding never wins."""
    if attributes.get("ceil_mode", 0) or attributes.get("storage_order", 0):
        return None
    window = Window.read(attributes, tuple(attributes["kernel_shape"]))

    def run(x):
        lowest = -np.inf if np.issubdtype(x.dtype, np.floating) else np.iinfo(x.dtype).min
        return _over_taps(np.maximum, x, window, lowest)

    return run


def average_pool(attributes: Mapping[str, object], opset: int) -> Operator | None:
    """Mean of each window; padding counts only where count_include_pad says so."""
    if attributes.get("ceil_mode", 0):
        return None
    window = Window.read(attributes, tuple(attributes["kernel_shape"]))
    everywhere = attributes.get("count_include_pad", 0)

    def run(x):
        counted = np.ones((1, 1) + x.shape[2:], x.dtype)
        counts = np.prod(window.kernel) if everywhere else _over_taps(np.add, counted, window, 0)
        return (_over_taps(np.add, x, window, 0) / counts).astype(x.dtype, copy=False)

    return run


def _over_taps(combine: np.ufunc, x: np.ndarray, window: Window, fill: float) -> np.ndarray:
    """Combine the taps of every window: one pass over the strided input for each."""
    sizes = x.shape[2:]
    pads = window.conv_pads(sizes)
    padded = np.pad(x, ((0, 0), (0, 0), *pads), constant_values=fill) if any(map(any, pads)) else x
    counts = [
        (before + size + after - extent) // stride + 1
        for (before, after), size, extent, stride in zip(pads, sizes, window.extents, window.strides)
    ]
    if min(counts) < 1:
        raise ShapeError(f"windows that span {window.extents} do not fit into {sizes} with pads {pads}")
    result = None
    for tap in itertools.product(*map(range, window.kernel)):
        starts = [t * dilation for t, dilation in zip(tap, window.dilations)]
        view = padded[(..., *(slice(a, a + s * (n - 1) + 1, s) for a, s, n in zip(starts, window.strides, counts)))]
        result = view.copy() if result is None else combine(result, view, out=result)
    return result


#: Where output element i lies in the input, given the scale, the input size and the output size.
_COORDINATES = {
    "half_pixel": lambda i, scale, size, out: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, size, out: (i + 0.5) / scale - 0.5 if out > 1 else i * 0.0,
    "asymmetric": lambda i, scale, size, out: i / scale,
    "align_corners": lambda i, scale, size, out: i * (size - 1) / (out - 1) if out > 1 else i * 0.0,
}

_ROUNDING = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


def resize(attributes: Mapping[str, object], opset: int) -> Operator | None:
    """Sampling by the nearest element, or linearly between two, along one axis after the other."""
    mode = attributes.get("mode", "nearest")
    coordinates = _COORDINATES.get(attributes.get("coordinate_transformation_mode", "half_pixel"))
    rounding = _ROUNDING.get(attributes.get("nearest_mode", "round_prefer_floor"))
    special = ("axes", "antialias", "exclude_outside")
    stretched = attributes.get("keep_aspect_ratio_policy", "stretch") == "stretch"
    if opset < 11 or mode not in ("nearest", "linear") or coordinates is None or rounding is None:
        return None
    if not stretched or any(attributes.get(name) for name in special):
        return None

    def run(x, roi=None, scales=None, sizes=None):
        if mode == "linear" and not np.issubdtype(x.dtype, np.floating):
            return None
        if sizes is not None and sizes.size:
            outs = [int(out) for out in sizes]
            scales = [out / size for out, size in zip(outs, x.shape)]
        else:
            outs = [int(np.floor(size * scale)) for size, scale in zip(x.shape, scales)]
        if len(outs) != x.ndim:
            raise ShapeError(f"scales or sizes have {len(outs)} entries, x of shape {x.shape} needs {x.ndim}")
        y = x
        # The last axis first: the gathers along the others then move whole rows.
        for axis in reversed(range(x.ndim)):
            size, out, scale = x.shape[axis], outs[axis], float(scales[axis])
            if size == out and scale == 1:
                continue
            at = coordinates(np.arange(out), scale, size, out)
            if mode == "nearest":
                y = y.take(np.clip(rounding(at), 0, size - 1).astype(np.intp), axis)
            else:
                y = _between(y, np.clip(at, 0, size - 1), axis)
        return y

    return run


def _between(x: np.ndarray, at: np.ndarray, axis: int) -> np.ndarray:
    """Linear interpolation of `x` at fractional positions along one axis."""
    left = np.floor(at).astype(np.intp)
    right = np.minimum(left + 1, x.shape[axis] - 1)
    share = (at - left).astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    y = x.take(left, axis)
    y += share * (x.take(right, axis) - y)
    return y


_OPERATORS = {
    "AveragePool": average_pool,
    "BatchNormalization": batch_normalization,
    "MaxPool": max_pool,
    "Resize": resize,
}
