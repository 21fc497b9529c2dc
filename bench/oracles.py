"""What the benchmarks' operations should give: NumPy in float64, sums over kernel taps of matrix products."""

import math
from collections.abc import Iterator

import numpy as np

from numbaconv.problem import ConvProblem


def convolution(problem: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The convolution with its bias, channels-first."""
    padded, matrices = _padded(problem, x), _matrices(problem, weight)
    y = np.zeros((problem.n, problem.groups, problem.c_out // problem.groups, math.prod(problem.out_spatial)))
    for matrix, window in zip(matrices, _windows(problem)):
        y += matrix @ _columns(problem, padded[window])
    return y.reshape(problem.n, problem.c_out, *problem.out_spatial) + _along_channels(problem, bias)


def transposed(problem: ConvProblem, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """The adjoint of the convolution, on an `x` of its result's shape, and a bias."""
    padded, columns = _padded(problem, np.zeros((problem.n, problem.c_in, *problem.spatial))), _columns(problem, x)
    for matrix, window in zip(_matrices(problem, weight), _windows(problem)):
        padded[window] += (matrix.swapaxes(1, 2) @ columns).reshape(padded[window].shape)
    inside = tuple(slice(before, before + size) for (before, _), size in zip(problem.padding, problem.spatial))
    return padded[(..., *inside)] + _along_channels(problem, bias)


def gradients(problem: ConvProblem, x: np.ndarray, weight: np.ndarray, grad_out: np.ndarray) -> tuple[np.ndarray, ...]:
    """The gradients of input, weight and bias where that of the result is `grad_out`."""
    grad_x = transposed(problem, grad_out, weight, np.zeros(problem.c_in))
    padded, columns = _padded(problem, x), _columns(problem, grad_out.astype(np.float64))
    taps = [(columns @ _columns(problem, padded[window]).swapaxes(2, 3)).sum(0) for window in _windows(problem)]
    grad_weight = np.stack(taps, -1).reshape(problem.c_out, problem.c_in // problem.groups, *problem.kernel)
    return grad_x, grad_weight, columns.sum((0, 3)).reshape(-1)


def convolve(problem: ConvProblem, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """True convolution of one channel by FFT: the outputs that the padding of `problem` tells, from the full result."""
    full = [size + kernel - 1 for size, kernel in zip(x.shape, weight.shape)]
    axes = range(x.ndim)
    spectrum = np.fft.rfftn(x.astype(np.float64), full, axes) * np.fft.rfftn(weight.astype(np.float64), full, axes)
    kept = (
        slice(kernel - 1 - before, kernel - 1 - before + size)
        for kernel, (before, _), size in zip(problem.kernel, problem.padding, problem.out_spatial)
    )
    return np.fft.irfftn(spectrum, full, axes)[tuple(kept)]


def _padded(problem: ConvProblem, x: np.ndarray) -> np.ndarray:
    return np.pad(x.astype(np.float64), [(0, 0), (0, 0), *problem.padding])


def _along_channels(problem: ConvProblem, bias: np.ndarray) -> np.ndarray:
    return bias.astype(np.float64).reshape(-1, *[1] * len(problem.spatial))


def _columns(problem: ConvProblem, pixels: np.ndarray) -> np.ndarray:
    """Pixels side by side, a matrix an image and group: (n, groups, channels/groups, pixels)."""
    return pixels.reshape(problem.n, problem.groups, pixels.shape[1] // problem.groups, -1)


def _matrices(problem: ConvProblem, weight: np.ndarray) -> np.ndarray:
    """One matrix a tap and group: (taps, groups, c_out/groups, c_in/groups)."""
    g = problem.groups
    return np.moveaxis(weight.astype(np.float64).reshape(g, problem.c_out // g, problem.c_in // g, -1), -1, 0)


def _windows(problem: ConvProblem) -> Iterator[tuple]:
    """What each tap meets of the padded input."""
    for tap in np.ndindex(*problem.kernel):
        slices = (
            slice(t * dilation, t * dilation + (size - 1) * stride + 1, stride)
            for t, dilation, size, stride in zip(tap, problem.dilation, problem.out_spatial, problem.stride)
        )
        yield (..., *slices)
