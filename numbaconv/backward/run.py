"""Gradients of checked, contiguous, batched arrays, for convolutions and for transposed ones; see `functions` for what users call.

Weights are new in each call, so only algorithms that add products directly are asked: transforming the weights would cost more than
it saves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.addressed import address
from numbaconv.algorithms.weights import Weights
from numbaconv.backward.problems import adjoint, forward
from numbaconv.backward.products import products_of
from numbaconv.dispatch.select import make_plan
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import VECTOR_BYTES
from numbaconv.loops.launch import usable_threads
from numbaconv.machine import machine
from numbaconv.problem import ConvProblem
from numbaconv.transposed.layers import ways
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.weights import TransposedWeights
from numbaconv.workspace import scratch

_DIRECT = Accuracy(0.0)


class ConvolutionGradients:
    """Of the convolution that a problem poses."""

    def __init__(self, problem: ConvProblem):
        self._problem = problem

    def input(self, grad_output: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The transposed convolution of the gradient of the result."""
        p = self._problem
        weights = TransposedWeights(weight, None, p.groups)
        plan = make_plan(adjoint(p), Epilogue(), weights, accuracy=_DIRECT, algorithms=ways(_DIRECT))
        result = np.empty(p.input_shape, p.np_dtype)
        plan.run(grad_output, result)
        return result

    def weight(self, grad_output: np.ndarray, x: np.ndarray) -> np.ndarray:
        """The products of pixels that meet, summed."""
        p = self._problem
        if not p.n:
            return np.zeros(p.weight_shape, p.np_dtype)
        together = _clustered(p)
        dense = replace(p, groups=p.groups // together)
        products = products_of(dense, machine())
        threads = usable_threads()
        result = np.empty(dense.weight_shape, p.np_dtype)
        workspace = scratch(products.scratch_bytes(threads))
        products.run_at(address(x), address(grad_output), address(result), workspace, threads)
        if together == 1:
            return result
        # of a cluster, every group's own block is kept
        blocks = result.reshape(dense.groups, together, p.c_out // p.groups, together, *p.weight_shape[1:])
        own = np.arange(together)
        return blocks[:, own, :, own].swapaxes(0, 1).reshape(p.weight_shape)


class TransposedGradients:
    """Of the transposed convolution that a problem poses: those of its adjoint, the operands' roles exchanged."""

    def __init__(self, problem: TransposedProblem):
        self._adjoint = forward(problem)

    def input(self, grad_output: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """The convolution of the gradient of the result."""
        p = self._adjoint
        plan = make_plan(p, Epilogue(), Weights(weight, None, p.groups), accuracy=_DIRECT)
        result = np.empty(p.output_shape, p.np_dtype)
        plan.run(self._reached(grad_output), result)
        return result

    def weight(self, grad_output: np.ndarray, x: np.ndarray) -> np.ndarray:
        """As of a convolution whose result is `x`."""
        return ConvolutionGradients(self._adjoint).weight(x, self._reached(grad_output))

    def _reached(self, grad_output: np.ndarray) -> np.ndarray:
        """What of the result any tap reached, contiguous."""
        p = self._adjoint
        if grad_output.shape == p.input_shape:
            return grad_output
        kept = tuple(slice(size) for size in p.spatial)
        index = (..., *kept) if p.layout == "channels_first" else (slice(None), *kept)
        return np.ascontiguousarray(grad_output[index])


def _clustered(p: ConvProblem) -> int:
    """How many narrow groups are multiplied as one, so that their outputs fill a vector whose lanes would be idle otherwise."""
    lanes = VECTOR_BYTES // p.itemsize
    most = max(1, lanes // (p.c_out // p.groups))
    return max(together for together in range(1, most + 1) if p.groups % together == 0)


def bias_gradient(grad_output: np.ndarray, layout: str) -> np.ndarray:
    """The sum over batch and pixels."""
    channels = 1 if layout == "channels_first" else grad_output.ndim - 1
    return grad_output.sum(axis=tuple(axis for axis in range(grad_output.ndim) if axis != channels))
