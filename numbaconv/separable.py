"""Spatially separable layers: kernels of low rank as a convolution down the columns and one along the rows.

The weights of a group, as a matrix of (c_in, k_h) by (c_out, k_w), are cut off after R singular values (Jaderberg et al. 2014,
"Speeding up Convolutional Neural Networks with Low Rank Expansions"): R (c_in k_h + c_out k_w) products instead of
c_in c_out k_h k_w.  What is cut off is an error relative to the result that is known beforehand.
"""

from __future__ import annotations

import dataclasses
import threading
from math import sqrt
from typing import NamedTuple

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.base import Plan
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.dispatch.select import best, make_plan
from numbaconv.epilogue import IDENTITY, Epilogue
from numbaconv.errors import ConvError, UnsupportedError
from numbaconv.problem import ConvProblem

#: What rounding of the weights leaves of each singular value that should be zero, in units of rounding.
_ROUNDING = 4.0
#: The part of the accuracy that cutting off may use up; the rest is for what the algorithms of both passes round.
_SHARE = 0.5


def choice(separable):
    """`separable`, if it is True, False or "auto"."""
    if isinstance(separable, bool) or (isinstance(separable, str) and separable == "auto"):
        return separable
    raise ConvError(f"separable={separable!r} is unknown; it must be True, False or 'auto'")


class _Factors(NamedTuple):
    """Weights down the columns, (groups R, c_in / groups, k_h, 1), and along the rows, (c_out, R, 1, k_w)."""

    rank: int
    down: Weights
    across: Weights


class Separation:
    """A layer's weights as a product, as exact as a call asks for; kept once for each rank."""

    def __init__(self, weights: Weights):
        self._weights = weights
        self._lock = threading.Lock()
        self._parts: tuple | None = None
        self._factors: dict[int, _Factors] = {}

    def plan(
        self, problem: ConvProblem, epilogue: Epilogue, name: str, accuracy: Accuracy, must: bool
    ) -> SeparablePlan | None:
        """Two plans where both together are estimated to take less than one, or where they `must` be; else None.

        Raises
        ------
        UnsupportedError
            If they must be, and the rank of the kernels is too high or there are not two axes.
        """
        if len(problem.kernel) != 2 or 1 in problem.kernel:
            return _refused(must, problem, "the kernel has not two axes of several taps")
        if accuracy.local and not must:
            return None
        highest = min(self._weights.c_in * problem.kernel[0], self._weights.c_out * problem.kernel[1])
        rounding = _ROUNDING * sqrt(highest) * float(np.finfo(problem.np_dtype).eps)
        found = self._within(max(_SHARE * accuracy.rms, rounding))
        if found is None or found == highest:
            return _refused(must, problem, f"the kernels have the full rank {highest}")
        down, across = _passes(problem, found)
        between = Epilogue(False, False, IDENTITY)
        if not must:
            on = calibrated_machine()
            one, *two = (
                best(p, e, on, accuracy).cost.seconds
                for p, e in ((problem, epilogue), (down, between), (across, epilogue))
            )
            if sum(two) >= one:
                return None
        factors = self._of(found)
        return SeparablePlan(
            problem,
            make_plan(down, between, factors.down, name, accuracy),
            make_plan(across, epilogue, factors.across, name, accuracy),
        )

    def _decomposed(self) -> tuple:
        """Singular vectors and values of each group, in float64."""
        with self._lock:
            if self._parts is None:
                weight, _ = self._weights.unpacked()
                c_out, c_in, k_h, k_w = weight.shape
                groups = self._weights.groups
                matrices = weight.reshape(groups, c_out // groups, c_in, k_h, k_w).transpose(0, 2, 3, 1, 4)
                matrices = matrices.reshape(groups, c_in * k_h, -1).astype(np.float64)
                if np.isfinite(matrices).all():
                    self._parts = np.linalg.svd(matrices, full_matrices=False)
                else:
                    self._parts = None, np.full((groups, 1), np.nan), None
            return self._parts

    def _within(self, error: float) -> int | None:
        """The least rank whose relative root mean square error is within a bound; None of weights that are not finite."""
        energy = (self._decomposed()[1] ** 2).sum(0)
        if not np.isfinite(energy).all():
            return None
        left = np.append(np.cumsum(energy[::-1])[::-1], 0.0)
        return next(number for number in range(1, len(left)) if sqrt(left[number]) <= error * sqrt(left[0]))

    def _of(self, number: int) -> _Factors:
        left, values, right = self._decomposed()
        with self._lock:
            if number not in self._factors:
                c_out, c_in, k_h, k_w = self._weights.shape
                groups, dtype = self._weights.groups, self._weights.dtype
                # both factors get the root of each value, so that neither is out of the other's range
                root = np.sqrt(values[:, :number])
                down = (left[..., :number] * root[:, None]).transpose(0, 2, 1).reshape(-1, c_in, k_h, 1)
                across = (right[:, :number] * root[..., None]).reshape(groups, number, c_out // groups, k_w)
                across = across.transpose(0, 2, 1, 3).reshape(c_out, number, 1, k_w)
                self._factors[number] = _Factors(
                    number,
                    Weights(down.astype(dtype), None, groups),
                    Weights(across.astype(dtype), self._weights.bias, groups),
                )
            return self._factors[number]


def _refused(must: bool, problem: ConvProblem, reason: str) -> None:
    if must:
        raise UnsupportedError(f"separable=True cannot do {problem}: {reason}")


def _passes(problem: ConvProblem, number: int) -> tuple[ConvProblem, ConvProblem]:
    """The problems of both passes: down to `number` channels a group, and across from them."""
    (k_h, k_w), (s_h, s_w), (d_h, d_w), (rows, columns) = (
        problem.kernel, problem.stride, problem.dilation, problem.padding,
    )  # fmt: skip
    channels, none = problem.groups * number, (0, 0)
    down = dataclasses.replace(
        problem, c_out=channels, kernel=(k_h, 1), stride=(s_h, 1), dilation=(d_h, 1), padding=(rows, none), bias=False
    )
    across = dataclasses.replace(
        problem, c_in=channels, spatial=(problem.out_spatial[0], problem.spatial[1]), kernel=(1, k_w), stride=(1, s_w),
        dilation=(1, d_w), padding=(none, columns),
    )  # fmt: skip
    return down, across


class SeparablePlan:
    """Runs one pass after the other; bias, residual and activation belong to the last."""

    workspace_bytes = plan_bytes = 0

    def __init__(self, problem: ConvProblem, down: Plan, across: Plan):
        self.problem = problem
        self.algorithm = f"{down.algorithm}, {across.algorithm}"
        self._down, self._across = down, across

    def scratch_bytes(self, threads: int) -> int:
        """None: both plans take their own."""
        return 0

    def run(
        self,
        x: np.ndarray,
        out: np.ndarray,
        residual: np.ndarray | None = None,
        workspace: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Compute into `out`; see `Plan.run`."""
        between = np.empty(self._down.problem.output_shape, x.dtype)
        self._down.run(x, between, threads=threads)
        self._across.run(between, out, residual, threads=threads)
