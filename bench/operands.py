"""Operands for one problem, the same in every runtime, and the result that each runtime is checked against.

The oracle (`oracles.py`) is NumPy in float64, so no runtime that is measured judges another.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np

from bench import oracles
from numbaconv.problem import ConvProblem

RELATIVE_TOLERANCE = 1e-3
CACHE_LINE = 64


class WrongResultError(AssertionError):
    """A runtime's result is not the convolution; its time would mean nothing."""


@dataclass(frozen=True)
class Operands:
    """Channels-first float32 arrays, and what is to come out.

    convolution   x (n, c_in, *spatial), weight (c_out, c_in/groups, *kernel), bias (c_out,)
    transposed    x as the convolution's result, bias (c_in,)
    gradients     x as for the convolution, and the gradient of its result; expected are those of x, weight and bias
    convolve      x (*spatial) and weight (*kernel)
    """

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    grad_out: np.ndarray
    expected: np.ndarray | tuple[np.ndarray, ...]

    def check(self, result: np.ndarray | tuple[np.ndarray, ...]) -> float:
        """Largest error over the RMS of the result (channels-first); raises WrongResultError beyond the tolerance."""
        if isinstance(self.expected, tuple):
            return max(map(_error, result, self.expected))
        return _error(result, self.expected)


def _error(result: np.ndarray, expected: np.ndarray) -> float:
    if result.shape != expected.shape:
        raise WrongResultError(f"the result has shape {result.shape}, the convolution {expected.shape}")
    rms = math.sqrt(np.mean(np.square(expected)))
    error = np.abs(result - expected)
    if not np.all(error <= RELATIVE_TOLERANCE * (np.abs(expected) + rms)):
        raise WrongResultError(f"largest error {error.max():.3g} where the result's RMS is {rms:.3g}")
    return float(error.max() / rms)


def make_operands(operation: str, problem: ConvProblem) -> Operands:
    """Normally distributed operands from a seed that depends on the problem alone, scaled for an output of RMS 1.

    A bias is always there: inference folds batch normalisation into one.
    """
    rng = np.random.default_rng(zlib.crc32(str(problem).encode()))
    depth = problem.c_in // problem.groups
    x = rng.standard_normal((problem.n, problem.c_in, *problem.spatial), np.float32)
    weight = rng.standard_normal((problem.c_out, depth, *problem.kernel), np.float32)
    weight /= np.float32(math.sqrt(depth * math.prod(problem.kernel)))
    bias = rng.standard_normal(problem.c_out, np.float32)
    grad_out = rng.standard_normal((problem.n, problem.c_out, *problem.out_spatial), np.float32)
    if operation == "transposed":
        x, bias = grad_out, rng.standard_normal(problem.c_in, np.float32)
        expected = oracles.transposed(problem, x, weight, bias)
    elif operation == "gradients":
        expected = oracles.gradients(problem, x, weight, grad_out)
    elif operation == "convolve":
        x, weight = x[0, 0], weight[0, 0]
        expected = oracles.convolve(problem, x, weight)
    else:
        expected = oracles.convolution(problem, x, weight, bias)
    return Operands(*map(aligned, (x, weight, bias, grad_out)), expected)


def aligned(array: np.ndarray) -> np.ndarray:
    """A contiguous copy that starts on a cache line.

    Runtimes that allocate their own tensors align them; NumPy's arrays are 16 bytes off a page, and the split vector
    stores would be charged to whoever is handed one.
    """
    raw = np.empty(array.nbytes + CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % CACHE_LINE
    copy = raw[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
