"""Transposed convolution as a function of arrays: everything is checked, planned and run in one call."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from numbaconv.described import described, run_once
from numbaconv.transposed.layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeLayer


def _function_of(layer: type[ConvTransposeLayer], name: str, words: str) -> Callable[..., np.ndarray]:
    """The function that makes a layer and calls it once."""

    @described(layer, words)
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
        {x}
        weight : array, (c_in, c_out / groups, {kernel})
            Whatever the layout.
        bias : array, (c_out,), optional
        stride, padding, output_padding, groups, dilation, layout, activation, algorithm, accuracy
            See `{layer}`.
        {residual}
        {out}

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
        return run_once(
            layer,
            x,
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
            residual=residual,
            out=out,
        )

    convolve.__name__ = convolve.__qualname__ = name
    return convolve


conv_transpose1d = _function_of(ConvTranspose1d, "conv_transpose1d", "One-dimensional")
conv_transpose2d = _function_of(ConvTranspose2d, "conv_transpose2d", "Two-dimensional")
conv_transpose3d = _function_of(ConvTranspose3d, "conv_transpose3d", "Three-dimensional")
