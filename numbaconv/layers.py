"""Convolutions with their weights packed once: what a network holds, and what `functional` is made of."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.base import CompiledPlan, Plan
from numbaconv.algorithms.tiled import address
from numbaconv.algorithms.weights import Weights
from numbaconv.arguments import NAMES, contiguous, operand, plain, result_array, shaped
from numbaconv.dispatch.select import make_plan
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.errors import ConvError, ShapeError, UnsupportedError
from numbaconv.loops.launch import usable_threads
from numbaconv.options import options
from numbaconv.problem import ConvProblem
from numbaconv.workspace import scratch

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class _Planned:
    """A plan with what a call checks against; `compiled` where it runs on addresses."""

    plan: Plan
    x_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    residual: bool
    accuracy: Accuracy
    compiled: bool


class Conv2d:
    """A 2-D convolution layer: ``activation(conv(x, weight) + bias + residual)``.

    Parameters
    ----------
    weight : array, (c_out, c_in / groups, k_h, k_w)
        float32 or float64, whatever `layout` says; copied and packed here.
    bias : array, (c_out,), optional
        The same dtype.
    stride, dilation : int or pair of int
        At least 1; rows first.
    padding : int, pair of int, pair of (before, after), or word
        Zeros around the image; "valid" is none, "same" gives ceil(size / stride) outputs with the odd element after, "full" is
        dilation * (kernel - 1) on every side.
    groups : int
        Divides c_in and c_out.
    padding_mode : str
        Only "zeros" is built.
    layout : {"channels_first", "channels_last"}
        Of `x`, `residual` and the result: (n, c, h, w) or (n, h, w, c).
    activation : None, str or tuple
        "relu", "relu6", "silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "gelu", ("clip", lo, hi) or
        ("leaky_relu", slope).
    algorithm : str
        "auto", or the name of one algorithm, which then runs or raises.
    accuracy : float, "strict" or None
        The largest root mean square error, relative to that of the result, that an algorithm may be expected to make; "strict" adds
        products directly and keeps every NaN and infinity in its place; None is what `set_accuracy` says at the call.

    Raises
    ------
    ShapeError
        If a shape, stride, dilation or group count breaks a rule.
    DTypeError
        If an array is neither float32 nor float64, or dtypes are mixed.
    UnsupportedError
        If the algorithm asked for cannot do the problem; at the call, since that knows the image's size.
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
    ):
        weight = operand("weight", weight)
        if weight.ndim != 4:
            raise ShapeError(f"weight has shape {weight.shape}; it must have 4 axes: (c_out, c_in / groups, k_h, k_w)")
        if 0 in weight.shape:
            raise ShapeError(f"weight has shape {weight.shape}; no axis may be empty")
        if bias is not None:
            bias = shaped("bias", operand("bias", bias, weight.dtype, "weight"), weight.shape[:1], "c_out of weight")
        if not isinstance(padding_mode, str) or padding_mode not in PADDING_MODES:
            raise ConvError(
                f"padding_mode={padding_mode!r} is unknown; it must be one of {', '.join(map(repr, PADDING_MODES))}"
            )
        if padding_mode != "zeros":
            raise UnsupportedError(f"padding_mode={padding_mode!r} is not built yet; only 'zeros' is")
        self.dtype, self.layout, self.algorithm = np.dtype(weight.dtype.type), layout, algorithm
        self.activation = Activation.of(activation)
        self.accuracy = None if accuracy is None else Accuracy.of(accuracy)
        self._geometry = {
            "stride": stride,
            "padding": padding,
            "dilation": dilation,
            "groups": groups,
            "layout": layout,
        }
        self._check_without_image(weight.shape, bias is not None)
        self._weights = Weights(contiguous(weight), None if bias is None else contiguous(bias), int(groups))
        self._planned: OrderedDict[tuple, _Planned] = OrderedDict()
        self._lock = threading.Lock()
        self._last: _Planned | None = None

    def _check_without_image(self, shape: tuple[int, ...], bias: bool) -> None:
        """Raise at once for what no image could mend, by posing the problem of an image as large as the kernel."""
        groups = self._geometry["groups"]
        channels = shape[1] * groups if isinstance(groups, (int, np.integer)) and groups > 0 else shape[1]
        probe = dict(self._geometry, dilation=1)
        spatial = shape[2:]
        image = (1, channels, *spatial) if self.layout == "channels_first" else (1, *spatial, channels)
        ConvProblem.of(image, shape, **probe, dtype=NAMES[self.dtype], bias=bias)
        ConvProblem.of(image, shape[:2] + (1, 1), **dict(self._geometry, padding=0), dtype=NAMES[self.dtype], bias=bias)

    def __reduce__(self):
        # plans hold addresses, so a copy in another process packs and plans afresh
        weight, bias = self._weights.unpacked()
        keywords = dict(self._geometry, activation=self.activation, algorithm=self.algorithm, accuracy=self.accuracy)
        return functools.partial(Conv2d, **keywords), (weight, bias)

    def problem(self, x_shape: tuple[int, ...]) -> ConvProblem:
        """The problem that a batched input of this shape poses."""
        return ConvProblem.of(
            x_shape, self._weights.shape, **self._geometry, dtype=NAMES[self.dtype], bias=self._weights.bias is not None
        )

    def plan(self, x_shape: tuple[int, ...], residual: bool = False) -> Plan:
        """The plan that runs for a batched input of this shape; ``plan.algorithm`` is the name of its algorithm."""
        return self._find(tuple(x_shape), residual).plan

    def __call__(self, x, *, residual=None, out=None) -> np.ndarray:
        """Convolve `x`.

        Parameters
        ----------
        x : array, (n, c_in, h, w) or (n, h, w, c_in) as `layout` says, or without n
            The dtype of the weights.
        residual : array of the result's shape, optional
            Added before the activation.
        out : ndarray of the result's shape, optional
            Where the result goes; it may be `residual` itself but must not overlap `x`.  With a contiguous `out` and operands
            that need no copy, a warm call allocates no array memory.

        Returns
        -------
        ndarray
            `out`, or a new contiguous array.
        """
        if out is not None and self._run_again(x, residual, out):
            return out
        x = operand("x", x, self.dtype, "weight")
        batched = x.ndim != 3
        if not batched:
            x = x[None]
        elif x.ndim != 4:
            raise ShapeError(f"x has shape {x.shape}; it must have 4 axes, or 3 without a batch")
        found = self._find(x.shape, residual is not None)
        shape = found.output_shape if batched else found.output_shape[1:]
        if residual is not None:
            residual = shaped("residual", operand("residual", residual, self.dtype, "weight"), shape, "the result")
        if out is None:
            result = target = np.empty(shape, self.dtype)
        else:
            result = result_array(out, shape, self.dtype, {"x": x, "residual": residual})
            target = result if plain(result) else np.empty(shape, self.dtype)
        # only now, when nothing can be refused any more, is memory taken for copies
        x = contiguous(x)
        residual = None if residual is None else contiguous(residual)
        if batched:
            found.plan.run(x, target, residual)
        else:
            found.plan.run(x, target[None], None if residual is None else residual[None])
        if target is not result:
            result[...] = target
        return result

    def _run_again(self, x, residual, out) -> bool:
        """Run the plan used last, if these arrays plainly are what it takes; whatever else they are is found out elsewhere."""
        last, dtype = self._last, self.dtype
        if last is None or last.residual is (residual is None) or last.accuracy is not Accuracy.of(self.accuracy):
            return False
        arrays = [(x, last.x_shape), (out, last.output_shape)]
        if residual is not None:
            arrays.append((residual, last.output_shape))
        for array, shape in arrays:
            if type(array) is not np.ndarray or array.dtype is not dtype or array.shape != shape:
                return False
            flags = array.flags
            if not (flags.c_contiguous and flags.aligned):
                return False
        at, to = address(x), address(out)
        apart = to >= at + x.nbytes or at >= to + out.nbytes
        added = 0 if residual is None else address(residual)
        if not (apart and out.flags.writeable and (added in (0, to) or abs(added - to) >= out.nbytes)):
            return False
        threads = usable_threads()
        last.plan.run_at(at, to, added, scratch(last.plan.scratch_bytes(threads)), threads)
        return True

    def _find(self, x_shape: tuple[int, ...], residual: bool) -> _Planned:
        accuracy = Accuracy.of(self.accuracy)
        key = x_shape, residual, accuracy
        with self._lock:
            found = self._planned.get(key)
            if found is not None:
                self._planned.move_to_end(key)
                self._last = found if found.compiled else None
                return found
        problem = self.problem(x_shape)
        epilogue = Epilogue(problem.bias, residual, self.activation)
        plan = make_plan(problem, epilogue, self._weights, self.algorithm, accuracy)
        found = _Planned(plan, x_shape, problem.output_shape, residual, accuracy, isinstance(plan, CompiledPlan))
        with self._lock:
            self._planned[key] = found
            self._last = found if found.compiled else None
            while len(self._planned) > options().plan_cache:
                self._planned.popitem(last=False)
        return found
