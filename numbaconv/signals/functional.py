"""Convolution and correlation of signals, images and volumes, with the names and results of `scipy.signal`."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Sequence
from operator import index

import numpy as np

from numbaconv.arguments import NAMES
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.errors import ShapeError, UnsupportedError
from numbaconv.loops.launch import usable_threads
from numbaconv.signals import direct, spectral
from numbaconv.signals.operands import (
    BOUNDARIES,
    METHODS,
    MODES,
    Pair,
    array_of,
    extended,
    fill_of,
    one_of,
    pair,
    same_axes,
    span,
    stretch,
)

#: So few products NumPy's loop has added before a compiled one would be entered; and so few a compiled one before it is known
#: which of all the ways would take the least.
_FEWEST_PRODUCTS, _FEW_PRODUCTS = 1 << 11, 1 << 20
#: Axes that direct sums have tiles for.
_DIRECT_AXES = 3


def convolve(in1, in2, mode="full", method="auto", *, boundary="fill", fillvalue=0) -> np.ndarray:
    """Convolve two arrays: ``y[i] = sum over j of in1[j] in2[i - j]``, the kernel flipped, as in `scipy.signal.convolve`.

    Parameters
    ----------
    in1, in2 : array
        Signals, images, volumes or arrays of more axes, equally many; booleans, integers, floats or complex numbers.
    mode : {"full", "same", "valid"}
        All of it; the middle, of the shape of `in1`; or only what needs nothing beyond the edges, for which one operand must be as
        large as the other along every axis.
    method : {"auto", "direct", "fft"}
        "direct" adds products on register tiles; "fft" multiplies spectra, block by block; "auto" is what `choose_method` says.
    boundary : {"fill", "wrap", "symm"}
        How `in1` goes on beyond its edges: with `fillvalue`, around in a circle, or mirrored, the outermost element twice.
    fillvalue : number

    Returns
    -------
    ndarray
        In the type that NumPy gives to ``in1 * in2``.  Integers are exact, or refused: sums are taken in floats.

    Raises
    ------
    ShapeError
        If an operand is empty, or shapes do not go together.
    DTypeError
        If an operand holds no numbers or ones of more than 64 bits a part, or integers whose sums may exceed 2**53.
    UnsupportedError
        If a direct sum of more than three axes is asked for.
    ConvError
        If a word is unknown, or `fillvalue` stands beside another boundary.

    Notes
    -----
    Direct sums of kernels of rank one, which their singular values tell, are taken along rows and then down columns, where that is
    estimated to take less.  "fft" rounds as spectra do, and spreads NaN and infinity over the block that they are in.

    Examples
    --------
    >>> convolve([1.0, 2.0, 3.0], [0.0, 1.0, 0.5])
    array([0. , 1. , 2.5, 4. , 1.5])
    """
    in1, in2 = array_of("in1", in1), array_of("in2", in2)
    one_of("method", method, METHODS)
    one_of("mode", mode, MODES)
    one_of("boundary", boundary, BOUNDARIES)
    if boundary == "fill" and fill_of(boundary, fillvalue, in1) == 0:
        if method != "fft" and _short(in1, in2):
            return _convolve_short(in1, in2, mode)
        given = pair(in1[None], in2[None], mode)
    else:
        given = extended(in1[None], in2[None], mode, boundary, fill_of(boundary, fillvalue, in1))
    return _run(given, method)[0]


def correlate(in1, in2, mode="full", method="auto", *, boundary="fill", fillvalue=0) -> np.ndarray:
    """Cross-correlate two arrays: convolution with `in2` flipped along every axis and conjugated, as in `scipy.signal.correlate`.

    Parameters, result and errors are those of `convolve`.
    """
    in2 = array_of("in2", in2)
    return convolve(
        in1, in2[(slice(None, None, -1),) * in2.ndim].conj(), mode, method, boundary=boundary, fillvalue=fillvalue
    )


def fft_convolve(in1, in2, mode="full", axes=None) -> np.ndarray:
    """Convolve two arrays through their spectra, as in `scipy.signal.fftconvolve`.

    Parameters
    ----------
    in1, in2 : array
        As in `convolve`.
    mode : {"full", "same", "valid"}
    axes : int or sequence of int, optional
        Axes to convolve over, all by default; along the others both arrays have one size, or one of them a single element.

    Returns
    -------
    ndarray
        As `convolve` gives it.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        As `convolve` does; `ShapeError` also for axes that are not there, or sizes that do not go together.
    """
    in1, in2 = array_of("in1", in1), array_of("in2", in2)
    one_of("mode", mode, MODES)
    if axes is None:
        return _run(pair(in1[None], in2[None], mode), "fft")[0]
    return _along(in1, in2, mode, axes)


def oaconvolve(in1, in2, mode="full", axes=None) -> np.ndarray:
    """Convolve a long signal with a short one block by block, in bounded memory, as in `scipy.signal.oaconvolve`.

    Parameters, result and errors are those of `fft_convolve`, which cuts arrays into blocks wherever that pays.
    """
    return fft_convolve(in1, in2, mode, axes)


def choose_method(in1, in2, mode="full", measure=False):
    """The method by which `convolve` takes less time, as in `scipy.signal.choose_conv_method`.

    Parameters
    ----------
    in1, in2, mode
        As in `convolve`.
    measure : bool
        Time both instead of estimating them.

    Returns
    -------
    str or (str, dict)
        "direct" or "fft"; with `measure` also the seconds that both took.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        As `convolve` does.
    """
    in1, in2 = array_of("in1", in1), array_of("in2", in2)
    given = pair(in1[None], in2[None], one_of("mode", mode, MODES))
    if not measure:
        return _choose(given)
    seconds = {}
    for method in METHODS[1:]:
        if method == "direct" and len(given.shape) > _DIRECT_AXES:
            seconds[method] = float("inf")
            continue
        _run(given, method)  # compiles
        begin = time.perf_counter()
        _run(given, method)
        seconds[method] = time.perf_counter() - begin
    return min(seconds, key=seconds.get), seconds


def fir_filter(x, taps, axis=-1) -> np.ndarray:
    """Filter signals with a finite impulse response, causally: ``y[t] = sum over j of taps[j] x[t - j]``, with zeros before x.

    What `scipy.signal.lfilter` gives for a denominator of one.  Recursive filters are not here: see `scipy.signal.lfilter` and
    `scipy.signal.sosfilt`.

    Parameters
    ----------
    x : array
        Signals along `axis`.
    taps : array, (k,)
    axis : int

    Returns
    -------
    ndarray
        Of the shape of `x`.

    Raises
    ------
    ShapeError
        If `taps` has not one axis, `x` has no such axis, or either is empty.
    DTypeError
        As `convolve` does.
    """
    x, taps = array_of("x", x), array_of("taps", taps)
    if taps.ndim != 1:
        raise ShapeError(f"taps has shape {taps.shape}; it must have one axis")
    (axis,) = _axes(axis, x.ndim)
    lines = np.moveaxis(x, axis, -1)
    shape = lines.shape
    return np.moveaxis(
        filtered(lines.reshape(-1, shape[-1]), taps, (0,), shape[-1:], METHODS[0]).reshape(shape), -1, axis
    )


def filtered(x: np.ndarray, kernel: np.ndarray, start: Sequence[int], shape: Sequence[int], method: str) -> np.ndarray:
    """The stretch of each of (n, *spatial) convolved with one kernel that begins at `start`; (n, *shape)."""
    return _run(stretch(x, kernel[None], start, shape), method)


def _short(in1: np.ndarray, in2: np.ndarray) -> bool:
    """Whether both are signals of one real type, and so short that no time is left to look at anything else."""
    return (
        in1.ndim == in2.ndim == 1
        and in1.size * in2.size <= _FEW_PRODUCTS
        and in1.dtype is in2.dtype
        and in1.dtype in NAMES
    )


def _convolve_short(in1: np.ndarray, in2: np.ndarray, mode: str) -> np.ndarray:
    start, count = span(in1.size, in2.size, mode)
    if in1.size * in2.size <= _FEWEST_PRODUCTS:
        return np.convolve(in1, in2)[start : start + count]
    x, kernel = (in1, in2) if in1.size >= in2.size else (in2, in1)
    return direct.convolve(np.ascontiguousarray(x)[None], np.ascontiguousarray(kernel), (start,), (count,))[0]


def _run(given: Pair, method: str) -> np.ndarray:
    """(n, *shape), in the type of the result."""
    x, kernel = given.x, given.kernel
    if method == "auto":
        method = _choose(given)
    if method == "fft":
        y = spectral.convolve(x, kernel, given.start, given.shape, calibrated_machine(), usable_threads())
    elif len(given.shape) > _DIRECT_AXES:
        raise UnsupportedError(
            f"method='direct' with {len(given.shape)} axes; direct sums are for up to {_DIRECT_AXES}, 'fft' for any number"
        )
    else:
        y = direct.convolve(x, kernel[0], given.start, given.shape)
    return given.finish(y)


def _choose(given: Pair) -> str:
    """The method that is estimated to take less; integers are exact in direct sums only."""
    x, kernel = given.x, given.kernel
    if len(given.shape) > _DIRECT_AXES:
        return "fft"
    if given.dtype.kind in "biu":
        return "direct"
    itemsize = max(x.itemsize, kernel.itemsize)
    spectra = _spectral_seconds(len(x), x.shape[1:], kernel.shape[1:], given.start, given.shape, itemsize)
    return "direct" if direct.seconds(x, kernel[0], given.start, given.shape) <= spectra else "fft"


@functools.lru_cache(maxsize=256)
def _spectral_seconds(*sizes) -> float:
    return spectral.seconds(*sizes, calibrated_machine())


def _axes(axes, ndim: int) -> tuple[int, ...]:
    """Axes as numbers from zero on, each once, in order."""
    try:
        found = tuple(index(axis) for axis in (axes if isinstance(axes, Iterable) else (axes,)))
    except TypeError:
        raise ShapeError(f"axes={axes!r} must be an integer or integers") from None
    numbers = sorted(axis + ndim if axis < 0 else axis for axis in found)
    if not numbers or len(set(numbers)) < len(numbers) or not 0 <= numbers[0] <= numbers[-1] < ndim:
        raise ShapeError(f"axes={axes!r} of an array of {ndim} axes; they must be some of its axes, each once")
    return tuple(numbers)


def _along(in1, in2, mode: str, axes) -> np.ndarray:
    """Convolution along some axes; the others are broadcast."""
    same_axes(in1.shape, in2.shape)
    axes = _axes(axes, in1.ndim)
    others = tuple(axis for axis in range(in1.ndim) if axis not in axes)
    for axis in others:
        sizes = in1.shape[axis], in2.shape[axis]
        if sizes[0] != sizes[1] and 1 not in sizes:
            raise ShapeError(
                f"in1 has shape {in1.shape}, in2 has shape {in2.shape}; along axis {axis}, which is not convolved over, sizes "
                "must be equal or one of them one"
            )
    batch = tuple(max(in1.shape[axis], in2.shape[axis]) for axis in others)

    def lines(array):
        """All axes that are not convolved over as one, the others after it."""
        kept = tuple(array.shape[axis] for axis in axes)
        return np.broadcast_to(array.transpose(others + axes), batch + kept).reshape(-1, *kept)

    y = _run(pair(lines(in1), lines(in2), mode), "fft")
    return y.reshape(batch + y.shape[1:]).transpose(np.argsort(others + axes))
