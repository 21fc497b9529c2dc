"""Signals, images and volumes convolved directly, on the engine's tiles; each becomes a problem that these are good at.

A signal has one channel, which fills no vector.  It is therefore cut into rows of as many outputs as a vector or a panel has
lanes: out[row, j] = sum over m of x[row lanes + m] B[m, j], a strided convolution with one output channel a lane, whose weights
B[m, j] = taps[m - j] hold the kernel once a lane, moved along.  Its input is read in place, and k taps cost as many as
k + lanes - 1.  An image is a plane, whose neighbouring pixels are lanes already; a volume is a sum over planes.
"""

from __future__ import annotations

import functools
from math import prod

import numpy as np

from numbaconv.accuracy import STRICT
from numbaconv.algorithms.weights import Weights
from numbaconv.arguments import NAMES
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.dispatch.reuse import PlanPool
from numbaconv.dispatch.select import best, make_plan
from numbaconv.epilogue import IDENTITY, Epilogue
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.launch import usable_threads
from numbaconv.problem import ConvProblem
from numbaconv.signals.separable import rank_one

#: Kernels of rank one are looked for where images take so many seconds, which singular values do not.
_LONG = 2e-4
#: Work of fewer seconds is done before a second thread has woken up, or long before where other programs keep it waiting.
_SHARED = 1e-4
#: Plans with more weights are not kept: to pack them is little beside what they do.
_KEPT_BYTES = 1 << 20


def convolve(x: np.ndarray, kernel: np.ndarray, start: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The stretch of the full convolution of (n, *spatial) with one kernel of one to three axes that begins at `start`.

    Both are float32 or both float64, or complex with such parts; (n, *shape).
    """
    if kernel.dtype.kind == "c":
        return _sum_of_parts(
            convolve(x, kernel.real.copy(), start, shape), convolve(x, kernel.imag.copy(), start, shape)
        )
    if x.dtype.kind == "c":
        parts = convolve(np.concatenate([x.real, x.imag]), kernel, start, shape)
        y = np.empty((len(x), *shape), x.dtype)
        y.real, y.imag = parts[: len(x)], parts[len(x) :]
        return y
    if kernel.ndim == 3:
        return _volumes(x, kernel, start, shape)
    if kernel.ndim == 2:
        return _images(x, kernel, start, shape)
    return _run(_signal(len(x), x.shape[1], len(kernel), *start, *shape, NAMES[x.dtype]), x, kernel)[:, : shape[0]]


def seconds(x: np.ndarray, kernel: np.ndarray, start: tuple[int, ...], shape: tuple[int, ...]) -> float:
    """Estimated time of `convolve` on one thread."""
    parts = [2 if array.dtype.kind == "c" else 1 for array in (x, kernel)]
    return parts[1] * _real_seconds(parts[0] * len(x), x.shape[1:], kernel.real, start, shape)


def _real_seconds(n, spatial, kernel, start, shape) -> float:
    name = NAMES[kernel.dtype]
    if kernel.ndim == 3:
        sizes = zip(spatial[1:], kernel.shape[1:], start[1:], shape[1:])
        return n * len(kernel) * _image(shape[0], *_flat(sizes), name, residual=True).seconds
    if kernel.ndim == 2 and len(kernel) > 1:
        ways = _ways(n, spatial, kernel, start, shape)
        return sum(prepared.seconds for prepared, _ in ways)
    return _signal(n * prod(spatial[:-1]), spatial[-1], kernel.shape[-1], start[-1], shape[-1], name).seconds


def _flat(axes) -> list[int]:
    return [number for axis in axes for number in axis]


def _sum_of_parts(real: np.ndarray, imaginary: np.ndarray) -> np.ndarray:
    """real + i imaginary, where both may be complex; no product with i is taken, which would spread NaN."""
    y = np.empty(real.shape, np.result_type(real, np.complex64))
    if real.dtype.kind == "c":
        y.real, y.imag = real.real - imaginary.imag, real.imag + imaginary.real
    else:
        y.real, y.imag = real, imaginary
    return y


def _images(x, kernel, start, shape) -> np.ndarray:
    if len(kernel) == 1:
        # rows are signals
        return convolve(x.reshape(-1, x.shape[2]), kernel[0], start[1:], shape[1:]).reshape(len(x), *shape)
    *first, (last, taps) = _ways(len(x), x.shape[1:], kernel, start, shape)
    for across, row in first:
        rows = _run(across, x.reshape(-1, x.shape[2]), row)[:, : shape[1]]
        x = np.ascontiguousarray(rows).reshape(len(x), x.shape[1], shape[1])
    return _run(last, x, taps)


def _ways(n, spatial, kernel, start, shape) -> list[tuple[Prepared, np.ndarray]]:
    """The image convolution at once; or, with a kernel of rank one, its row along the rows of the image and its column down,
    where that is estimated to take less.
    """
    name = NAMES[kernel.dtype]
    whole = _image(n, *_flat(zip(spatial, kernel.shape, start, shape)), name)
    if kernel.shape[1] > 1 and whole.seconds >= _LONG and (factors := rank_one(kernel)) is not None:
        column, row = factors
        across = _signal(n * spatial[0], spatial[1], len(row), start[1], shape[1], name)
        down = _image(n, spatial[0], len(column), start[0], shape[0], shape[1], 1, 0, shape[1], name)
        if across.seconds + down.seconds < whole.seconds:
            return [(across, row), (down, column[:, None])]
    return [(whole, kernel)]


def _volumes(x, kernel, start, shape) -> np.ndarray:
    """One image convolution for each plane of the kernel, all planes of the volume at once; sums are taken up as residuals."""
    depth, k = x.shape[1], kernel.shape[0]
    before = k - 1 - start[0]
    planes = np.zeros((len(x), shape[0] + k - 1, *x.shape[2:]), x.dtype)
    planes[:, before : before + depth] = x[:, : shape[0] + k - 1 - before]
    sizes = _flat(zip(x.shape[2:], kernel.shape[1:], start[1:], shape[1:]))
    prepared = _image(shape[0], *sizes, NAMES[x.dtype], residual=True)
    y = np.zeros((len(x), *shape), x.dtype)
    for number in range(len(x)):
        for plane in range(k):
            part = planes[number, plane : plane + shape[0]]
            _run(prepared, part, kernel[k - 1 - plane], y[number].reshape(shape[0], *shape[1:]))
    return y


class Prepared:
    """What convolutions of one shape share: the problem, its estimate, and plans that wait for the numbers of a kernel."""

    def __init__(self, problem: ConvProblem, residual: bool):
        self.problem = problem
        self._epilogue = Epilogue(False, residual, IDENTITY)
        self.seconds = best(problem, self._epilogue, calibrated_machine(), STRICT).cost.seconds
        self._plans = PlanPool(self._make, _KEPT_BYTES)

    def run(
        self, kernel: np.ndarray, x: np.ndarray, out: np.ndarray, residual: np.ndarray | None, threads: int
    ) -> None:
        """Convolve with the numbers of a kernel; see `Plan.run`."""
        self._plans.run(kernel, x, out, residual, threads)

    def _make(self, kernel: np.ndarray) -> tuple:
        weights = Weights(kernel, None, 1)
        return weights, make_plan(self.problem, self._epilogue, weights, accuracy=STRICT)


def _run(prepared: Prepared, x: np.ndarray, kernel: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Convolve (n, *spatial) with a kernel of as many axes; added to `out` where the problem has a residual."""
    problem = prepared.problem
    lanes = problem.c_out
    weight = _moved_along(kernel, lanes) if kernel.ndim == 1 else kernel[None, None, ::-1, ::-1]
    residual = out
    threads = usable_threads() if prepared.seconds >= _SHARED else 1
    if out is None:
        out = np.empty((problem.n, *problem.out_spatial[:-1], problem.out_spatial[-1] * lanes), x.dtype)
    y = out.reshape(problem.output_shape)
    prepared.run(weight, x.reshape(problem.input_shape), y, None if residual is None else y, threads)
    return out


def _moved_along(kernel: np.ndarray, lanes: int) -> np.ndarray:
    """(lanes, 1, k + lanes - 1): the taps of a signal's kernel, once a lane, each a place further along; a view."""
    k, step = len(kernel), kernel.itemsize
    padded = np.zeros(k + 2 * (lanes - 1), kernel.dtype)
    padded[lanes - 1 : lanes - 1 + k] = kernel[::-1]
    return np.ndarray((lanes, 1, k + lanes - 1), kernel.dtype, padded, (lanes - 1) * step, (-step, 0, step))


@functools.lru_cache(maxsize=64)
def _signal(n: int, size: int, k: int, start: int, count: int, dtype: str) -> Prepared:
    """Signals in rows of a vector or of a panel, whichever is estimated to take less."""
    itemsize = 8 if dtype == "f64" else 4
    choices = []
    for lanes in (VECTOR_BYTES // itemsize, PANEL_ROW // itemsize):
        rows = -(-count // lanes)
        padding = k - 1 - start, start + rows * lanes - size
        problem = ConvProblem(
            n, 1, lanes, (size,), (k + lanes - 1,), (lanes,), (1,), (padding,), 1, dtype, "channels_last"
        )
        choices.append(Prepared(problem, False))
    return min(choices, key=lambda prepared: prepared.seconds)


@functools.lru_cache(maxsize=64)
def _image(
    n, height, k_h, start_h, count_h, width, k_w, start_w, count_w, dtype: str, *, residual: bool = False
) -> Prepared:
    """Images as planes of one channel."""
    axes = (height, k_h, start_h, count_h), (width, k_w, start_w, count_w)
    padding = tuple((k - 1 - start, start + count - size) for size, k, start, count in axes)
    problem = ConvProblem(n, 1, 1, (height, width), (k_h, k_w), (1, 1), (1, 1), padding, 1, dtype, "channels_first")
    return Prepared(problem, residual)
