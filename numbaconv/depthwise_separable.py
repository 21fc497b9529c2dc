"""Depthwise separable convolution: a depthwise one and a 1x1, fused so that what lies between them never leaves the cache.

Howard et al., "MobileNets" (2017).
"""

from __future__ import annotations

import functools

import numpy as np

from numbaconv.algorithms.bottleneck import Stage
from numbaconv.algorithms.weights import Weights
from numbaconv.arguments import NAMES, contiguous, operand, shaped
from numbaconv.base_layer import BaseLayer
from numbaconv.described import described
from numbaconv.dispatch.fusion import Fusion, make_fused_plan, weigh
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.errors import ShapeError
from numbaconv.problem import ConvProblem


class DepthwiseSeparableConv2d(BaseLayer):
    """A depthwise convolution followed by a 1x1 one, each with bias and activation; the second one also adds a residual.

    Parameters
    ----------
    depthwise_weight : array, (c_in * multiplier, 1, k_h, k_w)
        float32 or float64, whatever `layout` says; copied and packed here.
    pointwise_weight : array, (c_out, c_in * multiplier, 1, 1)
        The same dtype.
    depthwise_bias, pointwise_bias : array, (c_in * multiplier,) and (c_out,), optional
        The same dtype.
    stride, padding, dilation
        Of the depthwise convolution, as for `Conv2d`.
    multiplier : int
        Depthwise kernels of each input channel.
    layout : {"channels_first", "channels_last"}
        Of `x`, `residual` and the result.
    depthwise_activation, activation
        After the depthwise convolution, and after the 1x1 one and the residual; as for `Conv2d`.
    algorithm : {"auto", "strips", "steps"}
        Both convolutions in turns on strips of rows, or one after the other; "auto" is the one that is estimated to be faster,
        as `explain` tells.

    Raises
    ------
    ShapeError
        If a shape, stride or dilation breaks a rule.
    DTypeError
        If an array is neither float32 nor float64, or dtypes are mixed.
    ConvError
        If another argument is unknown.
    """

    axes = 2

    def __init__(
        self,
        depthwise_weight,
        pointwise_weight,
        depthwise_bias=None,
        pointwise_bias=None,
        stride=1,
        padding=0,
        dilation=1,
        *,
        multiplier=1,
        layout="channels_first",
        depthwise_activation=None,
        activation=None,
        algorithm="auto",
    ):
        depthwise = self._checked_weight(depthwise_weight, "c_in * multiplier, 1")
        pointwise = operand("pointwise_weight", pointwise_weight, depthwise.dtype, "depthwise_weight")
        if pointwise.ndim != 4 or 0 in pointwise.shape or pointwise.shape[1:] != (depthwise.shape[0], 1, 1):
            raise ShapeError(
                f"pointwise_weight has shape {pointwise.shape}; it must be (c_out, {depthwise.shape[0]}, 1, 1), with as many "
                "input channels as depthwise_weight has output channels"
            )
        super().__init__(depthwise.dtype)
        self.layout, self.algorithm, self.multiplier = layout, algorithm, multiplier
        self.depthwise_activation, self.activation = Activation.of(depthwise_activation), Activation.of(activation)
        self._window = {"stride": stride, "padding": padding, "dilation": dilation}
        channels = depthwise.shape[0]
        groups = channels // multiplier if isinstance(multiplier, (int, np.integer)) and multiplier > 0 else 0
        if groups * multiplier != channels or isinstance(multiplier, bool):
            raise ShapeError(
                f"multiplier={multiplier!r} must be an integer of at least 1 that divides the {channels} output channels of "
                f"depthwise_weight of shape {depthwise.shape}"
            )
        self._stages = []
        for name, weight, bias, inner_groups in (
            ("depthwise_bias", depthwise, depthwise_bias, groups),
            ("pointwise_bias", pointwise, pointwise_bias, 1),
        ):
            if bias is not None:
                bias = operand(name, bias, weight.dtype, "depthwise_weight")
                bias = contiguous(shaped(name, bias, weight.shape[:1], "the output channels of its weight"))
            self._stages.append(Weights(contiguous(weight), bias, inner_groups))
        # what no image could mend is refused at once: the 1x1 kernel fits any
        pixel = (1, groups, 1, 1) if layout == "channels_first" else (1, 1, 1, groups)
        ConvProblem.of(pixel, depthwise.shape[:2] + (1, 1), groups=groups, layout=layout, **self._window)

    def __reduce__(self):
        # plans hold addresses, so a copy in another process packs and plans afresh
        (depthwise, depthwise_bias), (pointwise, pointwise_bias) = (weights.unpacked() for weights in self._stages)
        keywords = dict(
            self._window,
            multiplier=self.multiplier,
            layout=self.layout,
            depthwise_activation=self.depthwise_activation,
            activation=self.activation,
            algorithm=self.algorithm,
        )
        arguments = depthwise, pointwise, depthwise_bias, pointwise_bias
        return functools.partial(DepthwiseSeparableConv2d, **keywords), arguments

    def problems(self, x_shape: tuple[int, ...]) -> tuple[ConvProblem, ConvProblem]:
        """The two problems that a batched input of this shape poses."""
        depthwise, pointwise = self._stages
        known = {"layout": self.layout, "dtype": NAMES[self.dtype]}
        first = ConvProblem.of(
            x_shape, depthwise.shape, **self._window, groups=depthwise.groups, bias=depthwise.bias is not None, **known
        )
        return first, ConvProblem.of(first.output_shape, pointwise.shape, bias=pointwise.bias is not None, **known)

    def explain(self, x_shape: tuple[int, ...], residual: bool = False) -> Fusion:
        """Whether a batched input of this shape runs in strips or in steps, with estimates or the reason; prints as a table."""
        problems = self.problems(tuple(x_shape))
        return weigh(problems, Epilogue(problems[-1].bias, residual, self.activation), self.accuracy)

    def _make_plan(self, x_shape, residual, accuracy):
        problems = self.problems(x_shape)
        activations = self.depthwise_activation, self.activation
        stages = tuple(Stage(*stage) for stage in zip(problems, self._stages, activations))
        return make_fused_plan(stages, residual, self.algorithm, accuracy), problems[-1].output_shape


@described(DepthwiseSeparableConv2d)
def depthwise_separable_conv2d(
    x,
    depthwise_weight,
    pointwise_weight,
    depthwise_bias=None,
    pointwise_bias=None,
    stride=1,
    padding=0,
    dilation=1,
    *,
    multiplier=1,
    layout="channels_first",
    depthwise_activation=None,
    activation=None,
    residual=None,
    algorithm="auto",
    out=None,
) -> np.ndarray:
    """A depthwise convolution followed by a 1x1 one, as `conv2d` twice would compute them.

    Parameters
    ----------
    {x}
    depthwise_weight, pointwise_weight, depthwise_bias, pointwise_bias, stride, padding, dilation, multiplier, layout, \
depthwise_activation, activation, algorithm
        See `DepthwiseSeparableConv2d`.
    {residual}
    {out}

    Returns
    -------
    ndarray
        (n, c_out, h_out, w_out) or (n, h_out, w_out, c_out), sizes as for `conv2d`.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        See `DepthwiseSeparableConv2d`.
    """
    x = operand("x", x)
    layer = DepthwiseSeparableConv2d(
        operand("depthwise_weight", depthwise_weight, x.dtype),
        pointwise_weight,
        depthwise_bias,
        pointwise_bias,
        stride,
        padding,
        dilation,
        multiplier=multiplier,
        layout=layout,
        depthwise_activation=depthwise_activation,
        activation=activation,
        algorithm=algorithm,
    )
    return layer(x, residual=residual, out=out)
