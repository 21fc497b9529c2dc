"""Gradients of checked, contiguous, batched arrays, for convolutions and for transposed ones; see `functions` for what users call.

Weights are new in each call, so only algorithms that pack them in passing are asked: transforming them would cost more time than it
saves.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import REPACKED
from numbaconv.algorithms.weights import Weights
from numbaconv.backward import lanewise
from numbaconv.backward.lanewise import LanewiseProducts
from numbaconv.backward.problems import adjoint, forward
from numbaconv.backward.products import Products
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.dispatch.reuse import PlanPool
from numbaconv.dispatch.select import make_plan
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import VECTOR_BYTES
from numbaconv.machine import Machine, machine
from numbaconv.problem import ConvProblem
from numbaconv.transposed.layers import ways
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.weights import TransposedWeights

#: Problems whose plans are kept for the next step of a training.
_KEPT, _KEPT_BYTES = 64, 64 << 20


class ConvolutionGradients:
    """Of the convolution that a problem poses."""

    def __init__(self, problem: ConvProblem):
        self._problem = problem

    def input(self, grad_output: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The transposed convolution of the gradient of the result."""
        p = self._problem
        result = np.empty(p.input_shape, p.np_dtype)
        _adjoint_plans(p, calibrated_machine(), Accuracy.of(None)).run(weight, grad_output, result)
        return result

    def weight_and_bias(self, grad_output: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The products of pixels that meet, summed, and the pixels of `grad_output` alone."""
        p = self._problem
        if not p.n:
            return np.zeros(p.weight_shape, p.np_dtype), np.zeros(p.c_out, p.np_dtype)
        return products_of(p, machine()).gradients(x, grad_output)


class TransposedGradients:
    """Of the transposed convolution that a problem poses: those of its adjoint, the operands' roles exchanged."""

    def __init__(self, problem: TransposedProblem):
        self._adjoint = forward(problem)

    def input(self, grad_output: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The convolution of the gradient of the result."""
        p = self._adjoint
        result = np.empty(p.output_shape, p.np_dtype)
        _forward_plans(p, calibrated_machine(), Accuracy.of(None)).run(weight, self._reached(grad_output), result)
        return result

    def weight_and_bias(self, grad_output: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The former as of a convolution whose result is `x`; the latter is the sum over batch and pixels."""
        weight, _ = ConvolutionGradients(self._adjoint).weight_and_bias(x, self._reached(grad_output))
        channels = 1 if self._adjoint.layout == "channels_first" else grad_output.ndim - 1
        return weight, grad_output.sum(axis=tuple(axis for axis in range(grad_output.ndim) if axis != channels))

    def _reached(self, grad_output: np.ndarray) -> np.ndarray:
        """What of the result any tap reached, contiguous."""
        p = self._adjoint
        if grad_output.shape == p.input_shape:
            return grad_output
        kept = tuple(slice(size) for size in p.spatial)
        index = (..., *kept) if p.layout == "channels_first" else (slice(None), *kept)
        return np.ascontiguousarray(grad_output[index])


@lru_cache(maxsize=_KEPT)
def _adjoint_plans(problem: ConvProblem, on: Machine, accuracy: Accuracy) -> PlanPool:
    """Plans for the gradient of the input of a convolution."""

    def make(weight):
        weights = TransposedWeights(weight, None, problem.groups, own=True)
        return weights, make_plan(
            adjoint(problem), Epilogue(), weights, accuracy=accuracy, algorithms=ways(accuracy, repacked=True)
        )

    return PlanPool(make, _KEPT_BYTES)


@lru_cache(maxsize=_KEPT)
def _forward_plans(problem: ConvProblem, on: Machine, accuracy: Accuracy) -> PlanPool:
    """Plans for the gradient of the input of a transposed convolution, to which `problem` is adjoint."""

    def make(weight):
        weights = Weights(weight, None, problem.groups, own=True)
        return weights, make_plan(problem, Epilogue(), weights, accuracy=accuracy, algorithms=REPACKED)

    return PlanPool(make, _KEPT_BYTES)


@lru_cache(maxsize=_KEPT)
def products_of(problem: ConvProblem, on: Machine) -> Products | LanewiseProducts:
    """The plan for the gradient of a problem's weights, which calls of the same shapes share."""
    together = _clustered(problem)
    if lanewise.wins(problem, together):
        return LanewiseProducts(problem, on)
    return Products(problem, together, on)


def _clustered(p: ConvProblem) -> int:
    """How many narrow groups dense tiles multiply as one, so that their outputs fill a vector."""
    lanes = VECTOR_BYTES // p.itemsize
    most = max(1, lanes // (p.c_out // p.groups))
    return max(together for together in range(1, most + 1) if p.groups % together == 0)
