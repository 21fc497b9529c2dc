"""Convolution as a function of arrays: everything is checked, planned and run in one call."""

from __future__ import annotations

import numpy as np

from numbaconv.arguments import operand
from numbaconv.layers import Conv2d


def conv2d(
    x,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    padding_mode="zeros",
    layout="channels_first",
    activation=None,
    residual=None,
    algorithm="auto",
    accuracy=None,
    out=None,
) -> np.ndarray:
    """Two-dimensional cross-correlation, as in PyTorch and ONNX: ``activation(conv(x, weight) + bias + residual)``.

    Parameters
    ----------
    x : array, (n, c_in, h, w) or (n, h, w, c_in) as `layout` says, or without n
        float32 or float64; all arrays have one dtype.
    weight : array, (c_out, c_in / groups, k_h, k_w)
        Whatever the layout.
    bias : array, (c_out,), optional
    stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, accuracy
        See `Conv2d`.
    residual : array of the result's shape, optional
        Added before the activation.
    out : ndarray of the result's shape, optional
        Where the result goes; it must not overlap `x`.

    Returns
    -------
    ndarray
        (n, c_out, h_out, w_out) or (n, h_out, w_out, c_out), with
        ``h_out = floor((h + before + after - dilation * (k_h - 1) - 1) / stride) + 1``.

    Raises
    ------
    ShapeError, DTypeError, UnsupportedError, ConvError
        See `Conv2d`.

    Notes
    -----
    Weights are packed in every call; a layer that runs more than once should be a `Conv2d`.
    """
    x = operand("x", x)
    weight = operand("weight", weight, x.dtype)
    layer = Conv2d(
        weight,
        bias,
        stride,
        padding,
        dilation,
        groups,
        padding_mode=padding_mode,
        layout=layout,
        activation=activation,
        algorithm=algorithm,
        accuracy=accuracy,
    )
    return layer(x, residual=residual, out=out)
