"""Operands for one problem, the same in every runtime, and the result that each runtime is checked against.

The oracle is NumPy in float64, so no runtime that is measured judges another.
"""

import math
import zlib
from dataclasses import dataclass

import numpy as np

from numbaconv.problem import ConvProblem

RELATIVE_TOLERANCE = 1e-3
CACHE_LINE = 64


class WrongResultError(AssertionError):
    """A runtime's result is not the convolution; its time would mean nothing."""


@dataclass(frozen=True)
class Operands:
    """Channels-first float32 arrays: x (n, c_in, *spatial), weight (c_out, c_in/groups, *kernel), bias (c_out,)."""

    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray
    expected: np.ndarray

    def check(self, result: np.ndarray) -> float:
        """Largest error over the RMS of the result (channels-first); raises WrongResultError beyond the tolerance."""
        if result.shape != self.expected.shape:
            raise WrongResultError(f"the result has shape {result.shape}, the convolution {self.expected.shape}")
        rms = math.sqrt(np.mean(np.square(self.expected)))
        error = np.abs(result - self.expected)
        if not np.all(error <= RELATIVE_TOLERANCE * (np.abs(self.expected) + rms)):
            raise WrongResultError(f"largest error {error.max():.3g} where the result's RMS is {rms:.3g}")
        return float(error.max() / rms)


def make_operands(problem: ConvProblem) -> Operands:
    """Normally distributed operands from a seed that depends on the problem alone, scaled for an output of RMS 1.

    A bias is always there: inference folds batch normalisation into one.
    """
    rng = np.random.default_rng(zlib.crc32(str(problem).encode()))
    depth = problem.c_in // problem.groups
    x = rng.standard_normal((problem.n, problem.c_in, *problem.spatial), np.float32)
    weight = rng.standard_normal((problem.c_out, depth, *problem.kernel), np.float32)
    weight /= np.float32(math.sqrt(depth * math.prod(problem.kernel)))
    bias = rng.standard_normal(problem.c_out, np.float32)
    return Operands(aligned(x), aligned(weight), aligned(bias), convolve(problem, x, weight, bias))


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


def convolve(problem: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The convolution as a sum over kernel taps of strided slices times matrices, in float64, channels-first."""
    g, n = problem.groups, problem.n
    padded = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *problem.padding])
    # One matrix a tap: (taps, groups, c_out/groups, c_in/groups).
    taps = np.moveaxis(weight.astype(np.float64).reshape(g, problem.c_out // g, problem.c_in // g, -1), -1, 0)
    sizes = problem.out_spatial
    y = np.zeros((n, g, problem.c_out // g, math.prod(sizes)))
    for matrix, tap in zip(taps, np.ndindex(*problem.kernel)):
        window = tuple(
            slice(t * dilation, t * dilation + (size - 1) * stride + 1, stride)
            for t, dilation, size, stride in zip(tap, problem.dilation, sizes, problem.stride)
        )
        y += matrix @ padded[(..., *window)].reshape(n, g, problem.c_in // g, -1)
    return y.reshape(n, problem.c_out, *sizes) + bias.astype(np.float64).reshape(-1, *[1] * len(sizes))
