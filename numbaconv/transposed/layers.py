"""Transposed convolutions with their weights packed once, and the choice between the ways to compute them."""

from __future__ import annotations

import functools

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.base import Algorithm, Plan
from numbaconv.arguments import NAMES, contiguous, operand, shaped
from numbaconv.base_layer import BaseLayer
from numbaconv.dispatch.explain import Explanation, explained
from numbaconv.dispatch.select import make_plan
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.transposed.gather import Gather
from numbaconv.transposed.ordinary import Ordinary
from numbaconv.transposed.overlap_add import OverlapAdd
from numbaconv.transposed.phases import Phases
from numbaconv.transposed.problem import Geometry, TransposedProblem
from numbaconv.transposed.separate import Separate
from numbaconv.transposed.subpixel import Subpixel
from numbaconv.transposed.weights import TransposedWeights

_PHASES, _OVERLAP_ADD = Phases(), OverlapAdd()


@functools.lru_cache(maxsize=16)
def ways(accuracy: Accuracy, repacked: bool = False) -> tuple[Algorithm, ...]:
    """The ways to compute a transposed convolution, in the order of preference among equals; `repacked` are those for weights that
    are new in each call.
    """
    own = Ordinary(accuracy, repacked), _PHASES, _OVERLAP_ADD, Separate(accuracy, repacked)
    return own if repacked else (*own, Gather(accuracy), Subpixel(accuracy))


class ConvTransposeLayer(BaseLayer):
    """A transposed convolution layer, the adjoint of a convolution: ``activation(conv_transpose(x, weight) + bias + residual)``.

    Parameters
    ----------
    weight : array, (c_in, c_out / groups, *kernel)
        float32 or float64, whatever `layout` says; copied and packed here.
    bias : array, (c_out,), optional
        The same dtype.
    stride, dilation : int, or one int an axis
        At least 1, in the order of the axes: depth, rows, columns.
    padding : int, or an int or pair (before, after) an axis
        Elements that the result lacks on each side: the padding of the convolution that this one is the adjoint of.
    output_padding : int, or one int an axis
        Elements more at the end, since several sizes of input give a convolution's result the same size; smaller than stride
        or dilation.
    groups : int
        Divides c_in.
    layout : {"channels_first", "channels_last"}
        Of `x`, `residual` and the result: (n, c, *spatial) or (n, *spatial, c).
    activation : None, str or tuple
        As for `Conv2d`.
    algorithm : str
        "auto", or one of the ways to compute it, which then runs or raises: "ordinary" (stride 1: a convolution with the kernel
        reversed), "phases" (each remainder of the stride is a convolution), "overlap_add" (columns by a GEMM, added where they
        overlap), "separate" (each remainder of the stride is a convolution by an algorithm of its own), "gather" (products of
        whole pixels, which the result's pixels add up) or "subpixel" (kernels as large as the stride: Strassen's product, whose
        results are the blocks that pixels become).
    accuracy : float, "strict" or None
        As for `Conv2d`; "phases" and "overlap_add" make the rounding errors of direct sums whatever it is.

    Raises
    ------
    ShapeError
        If a shape, stride, dilation, padding or group count breaks a rule; also if no element of the result is left, at the
        call.
    UnsupportedError
        At the call, if the way asked for cannot do it.
    DTypeError
        If an array is neither float32 nor float64, or dtypes are mixed.
    ConvError
        If another argument is unknown.

    Notes
    -----
    ``size_out = (size - 1) * stride - before - after + dilation * (kernel - 1) + 1 + output_padding`` along each axis.  Each
    element of the result adds its taps in an order that is always the same, in one thread: its bits depend neither on the number
    of threads nor on the position in the batch.  Phases and overlap-add follow Dumoulin and Visin, "A guide to convolution
    arithmetic for deep learning" (2016), chapter 4.
    """

    def __init__(
        self,
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
        algorithm="auto",
        accuracy=None,
    ):
        weight = self._checked_weight(weight, "c_in, c_out / groups")
        super().__init__(weight.dtype, accuracy)
        self.layout, self.algorithm = layout, algorithm
        self.activation = Activation.of(activation)
        self._geometry = Geometry.of(weight.shape, stride, padding, output_padding, dilation, groups, layout)
        if bias is not None:
            shape = (self._geometry.c_out,)
            bias = shaped("bias", operand("bias", bias, weight.dtype, "weight"), shape, "c_out of weight and groups")
        bias = None if bias is None else contiguous(bias)
        self._weights = TransposedWeights(contiguous(weight), bias, self._geometry.groups)

    def __reduce__(self):
        # plans hold addresses, so a copy in another process packs and plans afresh
        g = self._geometry
        keywords = {"layout": g.layout, "activation": self.activation, "algorithm": self.algorithm}
        keywords["accuracy"] = self.accuracy
        arguments = g.stride, g.padding, g.output_padding, g.groups, g.dilation
        return functools.partial(type(self), **keywords), (*self._weights.unpacked(), *arguments)

    def problem(self, x_shape: tuple[int, ...]) -> TransposedProblem:
        """The problem that a batched input of this shape poses."""
        return self._geometry.problem(x_shape, NAMES[self.dtype], self._weights.swapped.bias is not None)

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the result for a batched input of this shape."""
        return self.problem(x_shape).output_shape

    def explain(self, x_shape: tuple[int, ...], residual: bool = False) -> Explanation:
        """Every way with its estimate or with the reason why it refuses, for a batched input of this shape; prints as a table."""
        problem, accuracy = self.problem(x_shape), Accuracy.of(self.accuracy)
        return explained(problem, self._epilogue(residual), accuracy, ways(accuracy))

    def _epilogue(self, residual: bool) -> Epilogue:
        return Epilogue(self._weights.swapped.bias is not None, residual, self.activation)

    def _make_plan(self, x_shape, residual, accuracy) -> tuple[Plan, tuple[int, ...]]:
        problem = self.problem(x_shape)
        epilogue = self._epilogue(residual)
        plan = make_plan(problem, epilogue, self._weights, self.algorithm, accuracy, ways(accuracy))
        return plan, problem.output_shape


class ConvTranspose1d(ConvTransposeLayer):
    """A transposed convolution of signals, with the arguments of `ConvTransposeLayer`: weight (c_in, c_out / groups, k_w)."""

    axes = 1


class ConvTranspose2d(ConvTransposeLayer):
    """A transposed convolution of images, with the arguments of `ConvTransposeLayer`: weight (c_in, c_out / groups, k_h, k_w)."""

    axes = 2


class ConvTranspose3d(ConvTransposeLayer):
    """A transposed convolution of volumes, with the arguments of `ConvTransposeLayer`.

    Its weight is (c_in, c_out / groups, k_d, k_h, k_w).
    """

    axes = 3
