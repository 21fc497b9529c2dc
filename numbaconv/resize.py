"""Resize-convolution: enlarge an image, then convolve it; mostly without ever making the large image.

Odena et al., "Deconvolution and Checkerboard Artifacts" (2016), recommend it in the place of transposed convolution.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from math import isfinite
from numbers import Real

import numpy as np

from numbaconv.algorithms.base import Plan
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.resized import (
    AxisFold,
    EnlargedPlan,
    FoldedPlan,
    Resize,
    Sampled,
    enlarging_cost,
    folded_kernels,
    interleaving_cost,
)
from numbaconv.algorithms.weights import Weights
from numbaconv.arguments import operand
from numbaconv.described import described
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.dispatch.select import best, make_plan
from numbaconv.epilogue import Epilogue
from numbaconv.errors import ConvError, ShapeError, UnsupportedError
from numbaconv.layers import ConvLayer
from numbaconv.problem import ConvProblem

MODES = ("nearest", "bilinear")
WAYS = ("auto", "sampled", "enlarged", "folded")


class ResizeConv2d(ConvLayer):
    """An image enlarged and convolved: ``activation(conv(resize(x, scale), weight) + bias)``.

    Parameters
    ----------
    weight : array, (c_out, c_in / groups, k_h, k_w)
        float32 or float64, whatever `layout` says; copied and packed here.
    bias : array, (c_out,), optional
        The same dtype.
    scale : number or pair of numbers
        Above 0; rows first.  The image has ``floor(size * scale)`` rows and columns before it is convolved.
    stride, padding, dilation, groups
        Of the convolution, as for `Conv2d`; zeros stand around the enlarged image.
    mode : {"nearest", "bilinear"}
        As ``torch.nn.functional.interpolate`` does with ``scale_factor`` and, for "bilinear", ``align_corners=False``.
    layout : {"channels_first", "channels_last"}
        Of `x` and the result.
    activation : None, str or tuple
        As for `Conv2d`.
    algorithm : {"auto", "sampled", "enlarged", "folded"}
        Sample the image while patches of the large one are packed; or make the large one in the workspace; or fold the
        enlargement into a smaller kernel for each phase of the result, which needs mode "nearest", whole scales and stride 1.
        "auto" is what is estimated to be the fastest.

    Raises
    ------
    ShapeError
        If a shape, stride, dilation or group count breaks a rule.
    DTypeError
        If an array is neither float32 nor float64, or dtypes are mixed.
    ConvError
        If the scale is not above 0, or another argument is unknown.
    UnsupportedError
        If the algorithm asked for cannot do it; a residual is not added either.

    Notes
    -----
    Bilinear kernels are not folded: for a 3x3 kernel and a scale of 2 each phase would have 3x3 taps, as many as there are
    without, and other sums at the borders.
    """

    axes = 2

    def __init__(
        self,
        weight,
        bias=None,
        scale=2,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        *,
        mode="nearest",
        layout="channels_first",
        activation=None,
        algorithm="auto",
    ):
        super().__init__(
            weight, bias, stride, padding, dilation, groups, layout=layout, activation=activation, algorithm=algorithm
        )
        if not isinstance(mode, str) or mode not in MODES:
            raise ConvError(f"mode={mode!r} is unknown; it must be one of {', '.join(map(repr, MODES))}")
        if not isinstance(algorithm, str) or algorithm not in WAYS:
            raise ConvError(f"algorithm={algorithm!r} is unknown; it must be one of {', '.join(map(repr, WAYS))}")
        self.scale, self.mode = _scales(scale), mode
        self._folded: dict[tuple[AxisFold, AxisFold], list[Weights]] = {}

    def __reduce__(self):
        # plans hold addresses, so a copy in another process packs and plans afresh
        keywords = {name: self._geometry[name] for name in ("stride", "padding", "dilation", "groups", "layout")}
        keywords |= {"scale": self.scale, "mode": self.mode, "activation": self.activation, "algorithm": self.algorithm}
        return functools.partial(ResizeConv2d, **keywords), self._weights.unpacked()

    def problem(self, x_shape: tuple[int, ...]) -> ConvProblem:
        """The problem that a batched input of this shape poses once it is enlarged."""
        rows = 2 if self.layout == "channels_first" else 1
        shape = list(x_shape)
        for axis, scale in enumerate(self.scale, rows):
            shape[axis] = int(shape[axis] * scale)
        return super().problem(tuple(shape))

    def _make_plan(self, x_shape, residual, accuracy):
        if residual:
            raise UnsupportedError("residual is given; a resize-convolution adds none")
        problem = self.problem(x_shape)
        spatial = x_shape[2:] if self.layout == "channels_first" else x_shape[1:3]
        plan = self._plan_last(dataclasses.replace(problem, layout="channels_last"), spatial, accuracy)
        if self.layout == "channels_first":
            plan = ChannelsFirst(plan, _with_ends(problem, spatial))
        return plan, problem.output_shape

    def _plan_last(self, problem: ConvProblem, spatial: tuple[int, int], accuracy) -> Plan:
        """The best plan for channels-last tensors, or the one asked for."""
        ways = self._ways(problem, Resize(tuple(spatial), self.scale, self.mode), accuracy)
        if self.algorithm in ways:
            return ways[self.algorithm][1]()
        if self.algorithm != WAYS[0]:
            raise UnsupportedError(f"algorithm={self.algorithm!r} cannot do this: {self._not_folded(problem)}")
        return min(ways.values(), key=lambda way: way[0])[1]()

    def _ways(self, problem: ConvProblem, resize: Resize, accuracy) -> dict[str, tuple[float, Callable[[], Plan]]]:
        """Estimated seconds of each way to run, and what makes its plan."""
        machine, epilogue = calibrated_machine(), Epilogue(problem.bias, False, self.activation)

        def seconds(p):
            return best(p, epilogue, machine, accuracy).cost.seconds

        sampled = Sampled(resize)
        ways = {
            "sampled": (
                sampled.estimate(problem, machine).seconds,
                lambda: sampled.plan(problem, self._weights, epilogue, machine),
            ),
            "enlarged": (
                enlarging_cost(problem, resize, machine).seconds + seconds(problem),
                lambda: EnlargedPlan(make_plan(problem, epilogue, self._weights, accuracy=accuracy), problem, resize),
            ),
        }
        if self._not_folded(problem) is None:
            axes = zip(self.scale, problem.kernel, problem.dilation, problem.padding)
            folds = tuple(AxisFold.of(int(scale), *axis) for scale, *axis in axes)
            scale = tuple(fold.scale for fold in folds)
            phases = [_phase(problem, resize.spatial, folds, phase) for phase in np.ndindex(*scale)]

            def folded():
                packed = zip(phases, self._fold(folds))
                plans = [make_plan(phase, epilogue, weights, accuracy=accuracy) for phase, weights in packed]
                return FoldedPlan(plans, problem, scale)

            ways["folded"] = sum(map(seconds, phases)) + interleaving_cost(problem, machine).seconds, folded
        return ways

    def _not_folded(self, problem: ConvProblem) -> str | None:
        """Why the kernel is not folded, or None."""
        if self.mode != MODES[0]:
            return "bilinear kernels are not folded"
        if problem.stride != (1, 1):
            return "the stride is not 1"
        return None if all(scale == int(scale) for scale in self.scale) else "the scale is not a whole number"

    def _fold(self, folds: tuple[AxisFold, AxisFold]) -> list[Weights]:
        """The packed kernels of all phases, made once."""
        with self._lock:
            if folds not in self._folded:
                weight, bias = self._weights.unpacked()
                kernels = (kernel for _, kernel in folded_kernels(weight, *folds))
                self._folded[folds] = [Weights(kernel, bias, self._weights.groups) for kernel in kernels]
            return self._folded[folds]


def _scales(scale) -> tuple[float, float]:
    """One or two numbers as a pair."""
    pair = tuple(scale) if isinstance(scale, (tuple, list, np.ndarray)) else (scale, scale)
    if len(pair) != 2:
        raise ShapeError(f"scale={scale!r} has {len(pair)} entries where 2 are needed, one an axis")
    for value in pair:
        if not isinstance(value, Real) or isinstance(value, bool) or not (isfinite(value) and 0 < value < 2**31):
            raise ConvError(f"scale={scale!r} must be made of numbers above 0 and below 2**31")
    return tuple(float(value) for value in pair)


def _phase(problem: ConvProblem, spatial, folds: tuple[AxisFold, AxisFold], phase: tuple[int, int]) -> ConvProblem:
    """The problem of one phase of the result, on the image as it is."""
    kernel, padding = (
        tuple(getattr(fold, name)[number] for fold, number in zip(folds, phase)) for name in ("kernel", "padding")
    )
    return dataclasses.replace(problem, spatial=tuple(spatial), kernel=kernel, padding=padding, dilation=(1, 1))


def _with_ends(problem: ConvProblem, spatial: tuple[int, int]) -> ConvProblem:
    """A problem with the same result, on an image of size `spatial`: what transposes both ends has to know."""
    change = [(out - size) for size, out in zip(spatial, problem.out_spatial)]
    return dataclasses.replace(
        problem,
        spatial=tuple(spatial),
        kernel=tuple(1 + max(-more, 0) for more in change),
        padding=tuple((0, max(more, 0)) for more in change),
        stride=(1, 1),
        dilation=(1, 1),
    )


@described(ResizeConv2d)
def resize_conv2d(
    x,
    weight,
    bias=None,
    scale=2,
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    mode="nearest",
    layout="channels_first",
    activation=None,
    algorithm="auto",
    out=None,
) -> np.ndarray:
    """Enlarge an image, then convolve it: ``activation(conv2d(resize(x, scale), weight) + bias)``.

    Parameters
    ----------
    {x}
    weight, bias, scale, stride, padding, dilation, groups, mode, layout, activation, algorithm
        See `ResizeConv2d`.
    {out}

    Returns
    -------
    ndarray
        As `conv2d` gives it for an image of ``floor(h * scale)`` rows and ``floor(w * scale)`` columns.

    Raises
    ------
    ShapeError, DTypeError, ConvError, UnsupportedError
        See `ResizeConv2d`.
    """
    x = operand("x", x)
    layer = ResizeConv2d(
        operand("weight", weight, x.dtype), bias, scale, stride, padding, dilation, groups,
        mode=mode, layout=layout, activation=activation, algorithm=algorithm,
    )  # fmt: skip
    return layer(x, out=out)
