"""Convolutions with their weights packed once: what a network holds, and what `functional` is made of."""

from __future__ import annotations

import functools

import numpy as np

from numbaconv.algorithms.weights import Weights
from numbaconv.arguments import NAMES, contiguous, operand, shaped
from numbaconv.base_layer import BaseLayer
from numbaconv.dispatch.select import make_plan
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.problem import ConvProblem
from numbaconv.separable import Separation
from numbaconv.separable import choice as separability


class ConvLayer(BaseLayer):
    """A convolution layer: ``activation(conv(x, weight) + bias + residual)``.

    Parameters
    ----------
    weight : array, (c_out, c_in / groups, *kernel)
        float32 or float64, whatever `layout` says; copied and packed here.
    bias : array, (c_out,), optional
        The same dtype.
    stride, dilation : int, or one int an axis
        At least 1, in the order of the axes: depth, rows, columns.
    padding : int, or an int or pair (before, after) an axis, or word
        Elements around the input; "valid" is none, "same" gives ceil(size / stride) outputs with the odd element after, "full" is
        dilation * (kernel - 1) on every side, and "causal", for signals only, all of that before.
    groups : int
        Divides c_in and c_out.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What stands around the input: zeros, its mirror image about the outermost elements (less padding than the input has
        elements), these elements repeated, or its other end (at most as much padding as the input has elements).
    layout : {"channels_first", "channels_last"}
        Of `x`, `residual` and the result: (n, c, *spatial) or (n, *spatial, c).
    activation : None, str or tuple
        "relu", "relu6", "silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "gelu", ("clip", lo, hi) or
        ("leaky_relu", slope).
    algorithm : str
        "auto", or the name of one algorithm, which then runs or raises.
    accuracy : float, "strict" or None
        The largest root mean square error, relative to that of the result, that an algorithm may be expected to make; "strict" adds
        products directly and keeps every NaN and infinity in its place; None is what `set_accuracy` says at the call.
    separable : bool or "auto"
        Whether kernels of low rank, of images, run as a convolution down the columns and one along the rows: "auto" where that is
        within the accuracy and estimated to take less time, True always, with `algorithm` for both.

    Raises
    ------
    ShapeError
        If a shape, stride, dilation, group count or padding breaks a rule.
    DTypeError
        If an array is neither float32 nor float64, or dtypes are mixed.
    UnsupportedError
        If the algorithm asked for cannot do the problem; at the call, since that knows the input's size.  If `separable` is True,
        and the kernels have full rank or other than two axes.
    ConvError
        If another argument is unknown.

    Notes
    -----
    A layer may be called by several threads at once.  Plans are kept for the shapes used last, as many as
    ``NUMBACONV_PLAN_CACHE`` says.
    """

    def __init__(
        self,
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
        algorithm="auto",
        accuracy=None,
        separable=False,
    ):
        weight = self._checked_weight(weight, "c_out, c_in / groups")
        if bias is not None:
            bias = shaped("bias", operand("bias", bias, weight.dtype, "weight"), weight.shape[:1], "c_out of weight")
        super().__init__(weight.dtype, accuracy)
        self.layout, self.algorithm, self.separable = layout, algorithm, separability(separable)
        self.activation = Activation.of(activation)
        self._geometry = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "layout": layout,
            "padding_mode": padding_mode,
        }
        self._check_without_input(weight.shape, bias is not None)
        self._weights = Weights(contiguous(weight), None if bias is None else contiguous(bias), int(groups))
        self._separation = Separation(self._weights) if self.separable else None

    def _check_without_input(self, shape: tuple[int, ...], bias: bool) -> None:
        """Raise at once for what no input could mend, by posing the problem of an input as large as the kernel."""
        groups = self._geometry["groups"]
        channels = shape[1] * groups if isinstance(groups, (int, np.integer)) and groups > 0 else shape[1]
        spatial = shape[2:]
        x_shape = (1, channels, *spatial) if self.layout == "channels_first" else (1, *spatial, channels)
        known = {"dtype": NAMES[self.dtype], "bias": bias}
        # what is too much to mirror of this input is not of a larger one
        ConvProblem.of(x_shape, shape, **dict(self._geometry, dilation=1, padding_mode="zeros"), **known)
        ConvProblem.of(x_shape, shape[:2] + (1,) * self.axes, **dict(self._geometry, padding=0), **known)

    def __reduce__(self):
        # plans hold addresses, so a copy in another process packs and plans afresh
        weight, bias = self._weights.unpacked()
        chosen = {"algorithm": self.algorithm, "accuracy": self.accuracy, "separable": self.separable}
        keywords = dict(self._geometry, activation=self.activation, **chosen)
        return functools.partial(type(self), **keywords), (weight, bias)

    def problem(self, x_shape: tuple[int, ...]) -> ConvProblem:
        """The problem that a batched input of this shape poses."""
        return ConvProblem.of(
            x_shape, self._weights.shape, **self._geometry, dtype=NAMES[self.dtype], bias=self._weights.bias is not None
        )

    def _make_plan(self, x_shape, residual, accuracy):
        problem = self.problem(x_shape)
        epilogue = Epilogue(problem.bias, residual, self.activation)
        plan = None
        if self._separation is not None:
            plan = self._separation.plan(problem, epilogue, self.algorithm, accuracy, self.separable is True)
        if plan is None:
            plan = make_plan(problem, epilogue, self._weights, self.algorithm, accuracy)
        return plan, problem.output_shape


class Conv1d(ConvLayer):
    """A convolution layer over signals, with the arguments of `ConvLayer`: weight (c_out, c_in / groups, k_w)."""

    axes = 1


class Conv2d(ConvLayer):
    """A convolution layer over images, with the arguments of `ConvLayer`: weight (c_out, c_in / groups, k_h, k_w)."""

    axes = 2


class Conv3d(ConvLayer):
    """A convolution layer over volumes, with the arguments of `ConvLayer`: weight (c_out, c_in / groups, k_d, k_h, k_w)."""

    axes = 3
