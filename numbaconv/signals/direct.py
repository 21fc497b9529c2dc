"""Signals, images and volumes convolved directly, on the engine's tiles.

A signal is rows of vectors (`rows`), an image a plane of one channel, and a volume a sum over planes.  A complex operand is two
real ones.
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
from numbaconv.loops.launch import usable_threads
from numbaconv.problem import ConvProblem
from numbaconv.signals.rows import SHARED, Rows, rows_of
from numbaconv.signals.separable import rank_one

#: Kernels of rank one are looked for where images take so many seconds, which singular values do not.
_LONG = 2e-4
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
    return rows_of(len(x), x.shape[1], len(kernel), *start, *shape, x.dtype).run(x, kernel)[:, : shape[0]]


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
    return rows_of(n * prod(spatial[:-1]), spatial[-1], kernel.shape[-1], start[-1], shape[-1], kernel.dtype).seconds


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
        rows = across.run(x.reshape(-1, x.shape[2]), row)[:, : shape[1]]
        x = np.ascontiguousarray(rows).reshape(len(x), x.shape[1], shape[1])
    return _run(last, x, taps)


def _ways(n, spatial, kernel, start, shape) -> list[tuple[Prepared | Rows, np.ndarray]]:
    """The image convolution at once; or, with a kernel of rank one, its row along the rows of the image and its column down,
    where that is estimated to take less.
    """
    name = NAMES[kernel.dtype]
    whole = _image(n, *_flat(zip(spatial, kernel.shape, start, shape)), name)
    if kernel.shape[1] > 1 and whole.seconds >= _LONG and (factors := rank_one(kernel)) is not None:
        column, row = factors
        across = rows_of(n * spatial[0], spatial[1], len(row), start[1], shape[1], kernel.dtype)
        down = _image(n, spatial[0], len(column), start[0], shape[0], shape[1], 1, 0, shape[1], name)
        if across.seconds + down.seconds < whole.seconds:
            return [(across, np.ascontiguousarray(row)), (down, column[:, None])]
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
    """Convolve (n, height, width) with a kernel; added to `out` where the problem has a residual."""
    problem = prepared.problem
    weight = kernel[None, None, ::-1, ::-1]
    residual = out
    threads = usable_threads() if prepared.seconds >= SHARED else 1
    if out is None:
        out = np.empty((problem.n, *problem.out_spatial), x.dtype)
    y = out.reshape(problem.output_shape)
    prepared.run(weight, x.reshape(problem.input_shape), y, None if residual is None else y, threads)
    return out


@functools.lru_cache(maxsize=64)
def _image(
    n, height, k_h, start_h, count_h, width, k_w, start_w, count_w, dtype: str, *, residual: bool = False
) -> Prepared:
    """Images as planes of one channel."""
    axes = (height, k_h, start_h, count_h), (width, k_w, start_w, count_w)
    padding = tuple((k - 1 - start, start + count - size) for size, k, start, count in axes)
    problem = ConvProblem(n, 1, 1, (height, width), (k_h, k_w), (1, 1), (1, 1), padding, 1, dtype, "channels_first")
    return Prepared(problem, residual)
