"""Convolution as a function of arrays: everything is checked, planned and run in one call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numbaconv.described import described, run_once
from numbaconv.layers import Conv1d, Conv2d, Conv3d, ConvLayer


def _function_of(layer: type[ConvLayer], words: str) -> Callable[..., np.ndarray]:
    """The function that makes a layer and calls it once."""

    @described(layer, words)
    def convolve(
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
        separable=False,
        out=None,
    ) -> np.ndarray:
        """{words} cross-correlation, as in PyTorch and ONNX: ``activation(conv(x, weight) + bias + residual)``.

        Parameters
        ----------
        {x}
        weight : array, (c_out, c_in / groups, {kernel})
            Whatever the layout.
        bias : array, (c_out,), optional
        stride, padding, dilation, groups, padding_mode, layout, activation, algorithm, accuracy, separable
            See `ConvLayer`.
        {residual}
        {out}

        Returns
        -------
        ndarray
            (n, c_out, *spatial) or (n, *spatial, c_out), each axis of which has
            ``floor((size + before + after - dilation * (kernel - 1) - 1) / stride) + 1`` elements.

        Raises
        ------
        ShapeError, DTypeError, UnsupportedError, ConvError
            See `ConvLayer`.

        Notes
        -----
        Weights are packed in every call; a layer that runs more than once should be a `{layer}`.
        """
        return run_once(
            layer,
            x,
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
            separable=separable,
            residual=residual,
            out=out,
        )

    convolve.__name__ = convolve.__qualname__ = layer.__name__.lower()
    return convolve


conv1d = _function_of(Conv1d, "One-dimensional")
conv2d = _function_of(Conv2d, "Two-dimensional")
conv3d = _function_of(Conv3d, "Three-dimensional")
