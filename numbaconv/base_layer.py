"""What every layer shares: operands that are checked once a call, and plans that are kept for the shapes used last."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.base import CompiledPlan, LoopNestPlan, Plan
from numbaconv.arguments import contiguous, operand, plain, result_array, shaped
from numbaconv.errors import ShapeError
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.ndarrays import expected
from numbaconv.loops.shares import on_arrays, run_on_arrays
from numbaconv.options import options
from numbaconv.workspace import fresh, scratch

_KERNEL = ("k_d", "k_h", "k_w")


class Planned:
    """A plan with what a call checks against: `expected` of operands where it runs on addresses, else None."""

    def __init__(self, plan: Plan, output_shape: tuple[int, ...], residual: bool, accuracy: Accuracy, expected):
        self.plan, self.output_shape = plan, output_shape
        self.residual, self.accuracy = residual, accuracy
        self.expected: np.ndarray | None = expected
        self._ready: dict[int, Ready] = {}

    def ready(self, threads: int) -> Ready:
        """Made when it is first asked for; `expected` must be there."""
        found = self._ready.get(threads)
        if found is None:
            plan, at = self.plan, self.expected.ctypes.data
            # a plan that is one loop nest, and has anything to do, is run with the check of its operands
            if isinstance(plan, LoopNestPlan) and 0 not in self.output_shape and plan.shares(1).rows > 0:
                work = plan.shares(threads)
                run = on_arrays(work, at)
            else:
                work, run = None, partial(run_on_arrays, partial(plan.run_at, threads=threads), at)
            found = self._ready[threads] = Ready(run, plan.scratch_bytes(threads), work)
        return found


class Ready(NamedTuple):
    """A plan made ready for so many threads: `run(x, out, residual, workspace)` looks at the objects at three addresses, and says
    whether they are the arrays that it is for; bytes of workspace; and what `run` holds the address of.
    """

    run: Callable[[int, int, int, int], bool]
    nbytes: int
    owner: object


class BaseLayer:
    """A layer over `axes` spatial axes; a subclass says what plan runs for a shape (`_make_plan`).

    A layer may be called by several threads at once.  Plans are kept for the shapes used last, as many as
    ``NUMBACONV_PLAN_CACHE`` says.
    """

    axes: int

    def __init__(self, dtype: np.dtype, accuracy=None):
        self.dtype = np.dtype(dtype.type)
        self.accuracy = None if accuracy is None else Accuracy.of(accuracy)
        self._planned: OrderedDict[tuple, Planned] = OrderedDict()
        self._lock = threading.Lock()
        self._last: Planned | None = None

    def _make_plan(self, x_shape: tuple[int, ...], residual: bool, accuracy: Accuracy) -> tuple[Plan, tuple[int, ...]]:
        """The plan for a batched input of this shape, and the shape of its result."""
        raise NotImplementedError

    @classmethod
    def _checked_weight(cls, weight, channels: str) -> np.ndarray:
        """`weight` as an array with two axes of `channels` and one a spatial axis, none of them empty."""
        weight = operand("weight", weight)
        if weight.ndim != cls.axes + 2:
            form = ", ".join((channels, *_KERNEL[-cls.axes :]))
            raise ShapeError(f"weight has shape {weight.shape}; it must have {cls.axes + 2} axes: ({form})")
        if 0 in weight.shape:
            raise ShapeError(f"weight has shape {weight.shape}; no axis may be empty")
        return weight

    def plan(self, x_shape: tuple[int, ...], residual: bool = False) -> Plan:
        """The plan that runs for a batched input of this shape; ``plan.algorithm`` is the name of its algorithm."""
        return self._find(tuple(x_shape), residual).plan

    def __call__(self, x, *, residual=None, out=None) -> np.ndarray:
        """Convolve `x`.

        Parameters
        ----------
        x : array, (n, c_in, *spatial) or (n, *spatial, c_in) as `layout` says, or without n
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

        Raises
        ------
        ShapeError, DTypeError
            If an array has another shape or dtype than the layer or the result asks for.
        """
        if out is not None and self._run_again(x, residual, out):
            return out
        x = operand("x", x, self.dtype, "weight")
        batched = x.ndim != self.axes + 1
        if not batched:
            x = x[None]
        elif x.ndim != self.axes + 2:
            raise ShapeError(
                f"x has shape {x.shape}; it must have {self.axes + 2} axes, or {self.axes + 1} without a batch"
            )
        found = self._find(x.shape, residual is not None)
        shape = found.output_shape if batched else found.output_shape[1:]
        if residual is not None:
            residual = shaped("residual", operand("residual", residual, self.dtype, "weight"), shape, "the result")
        if out is None:
            result = target = fresh(shape, self.dtype)
        else:
            result = result_array(out, shape, self.dtype, {"x": x, "residual": residual})
            target = result if plain(result) else fresh(shape, self.dtype)
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
        last = self._last
        if last is None or last.residual is (residual is None) or last.accuracy is not Accuracy.of(self.accuracy):
            return False
        run, nbytes, _ = last.ready(usable_threads())
        return run(id(x), id(out), 0 if residual is None else id(residual), scratch(nbytes))

    def _find(self, x_shape: tuple[int, ...], residual: bool) -> Planned:
        accuracy = Accuracy.of(self.accuracy)
        key = x_shape, residual, accuracy
        with self._lock:
            found = self._planned.get(key)
            if found is not None:
                self._planned.move_to_end(key)
                self._last = None if found.expected is None else found
                return found
        plan, output_shape = self._make_plan(x_shape, residual, accuracy)
        operands = expected(self.dtype, x_shape, output_shape) if isinstance(plan, CompiledPlan) else None
        found = Planned(plan, output_shape, residual, accuracy, operands)
        with self._lock:
            self._planned[key] = found
            self._last = None if found.expected is None else found
            while len(self._planned) > options().plan_cache:
                self._planned.popitem(last=False)
        return found
