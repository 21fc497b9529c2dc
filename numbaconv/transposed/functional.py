"""Transposed convolution as a function of arrays: everything is checked, planned and run in one call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numbaconv.arguments import operand
from numbaconv.transposed.layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeLayer


def _function_of(layer: type[ConvTransposeLayer], name: str, words: str) -> Callable[..., np.ndarray]:
    """The function that makes a layer and calls it once."""

    def convolve(
        x,
        weight,
        bias=None,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        dilation=1,
        *,
        layout="channels_first",
        activation=None,
        residual=None,
        algorithm="auto",
        accuracy=None,
        out=None,
    ) -> np.ndarray:
        """{words} transposed convolution, as in PyTorch and ONNX: ``activation(conv_transpose(x, weight) + bias + residual)``.

        Parameters
        ----------
        x : array, (n, c_in, {sizes}) or (n, {sizes}, c_in) as `layout` says, or without n
            float32 or float64; all arrays have one dtype.
        weight : array, (c_in, c_out / groups, {kernel})
            Whatever the layout.
        bias : array, (c_out,), optional
        stride, padding, output_padding, groups, dilation, layout, activation, algorithm, accuracy
            See `{layer}`.
        residual : array of the result's shape, optional
            Added before the activation.
        out : ndarray of the result's shape, optional
            Where the result goes; it must not overlap `x`.

        Returns
        -------
        ndarray
            (n, c_out, *spatial) or (n, *spatial, c_out), each axis of which has
            ``(size - 1) * stride - before - after + dilation * (kernel - 1) + 1 + output_padding`` elements.

        Raises
        ------
        ShapeError, DTypeError, UnsupportedError, ConvError
            See `{layer}`.

        Notes
        -----
        Weights are packed in every call; what runs more than once should be a `{layer}`.
        """
        x = operand("x", x)
        weight = operand("weight", weight, x.dtype)
        made = layer(
            weight,
            bias,
            stride,
            padding,
            output_padding,
            groups,
            dilation,
            layout=layout,
            activation=activation,
            algorithm=algorithm,
            accuracy=accuracy,
        )
        return made(x, residual=residual, out=out)

    convolve.__name__ = convolve.__qualname__ = name
    if convolve.__doc__ is not None:  # python -OO drops it
        convolve.__doc__ = convolve.__doc__.format(
            words=words,
            sizes=", ".join("dhw"[-layer.axes :]),
            kernel=", ".join(f"k_{axis}" for axis in "dhw"[-layer.axes :]),
            layer=layer.__name__,
        )
    return convolve


conv_transpose1d = _function_of(ConvTranspose1d, "conv_transpose1d", "One-dimensional")
conv_transpose2d = _function_of(ConvTranspose2d, "conv_transpose2d", "Two-dimensional")
conv_transpose3d = _function_of(ConvTranspose3d, "conv_transpose3d", "Three-dimensional")
