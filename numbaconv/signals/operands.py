"""What signals are convolved with what: operands are checked here once, and every mode becomes a stretch of the full result."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from numbers import Number
from typing import NamedTuple

import numpy as np

from numbaconv.errors import ConvError, DTypeError, ShapeError

MODES = ("full", "valid", "same")
METHODS = ("auto", "direct", "fft")
#: How an array goes on beyond its edges, in the words of SciPy's `convolve2d`, and NumPy's word for it.
BOUNDARIES = {"fill": "constant", "wrap": "wrap", "symm": "symmetric"}

#: Whole numbers below these are exact in single and double precision.
_EXACT = {np.dtype(np.float32): 2**24, np.dtype(np.float64): 2**53}


class Pair(NamedTuple):
    """Signals, kernels no larger than them, and which stretch of their full convolution is asked for.

    Parameters
    ----------
    x, kernel : ndarray
        (n, *spatial) and (n, *kernel), or (1, *kernel) for all signals; float32, float64, complex64 or complex128 of one precision.
    start, shape : tuple of int
        First element of the result within the full convolution, and how many there are, an axis.
    dtype : dtype
        Of the result.
    """

    x: np.ndarray
    kernel: np.ndarray
    start: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype

    def finish(self, y: np.ndarray) -> np.ndarray:
        """The result in its own type: whole numbers are rounded and wrap around, as integers do."""
        if y.dtype == self.dtype:
            return y
        if self.dtype.kind == "b":
            return np.abs(y) > 0.5
        return np.rint(y).astype(np.int64).astype(self.dtype) if self.dtype.kind in "iu" else y.astype(self.dtype)


def one_of(name: str, value, allowed) -> str:
    """`value`, if it is one of the words allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ConvError(f"{name}={value!r} is unknown; it must be one of {', '.join(map(repr, allowed))}")
    return value


def array_of(name: str, value, *, real: bool = False) -> np.ndarray:
    """`value` as an array of numbers, not empty, of one axis at the least."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ConvError(f"{name} is a {type(value).__name__} that is no array: {error}") from error
    kinds = "biuf" if real else "biufc"
    if array.dtype.kind not in kinds or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        rule = "booleans, integers or floats" if real else "booleans, integers, floats or complex numbers"
        raise DTypeError(f"{name} has dtype {array.dtype}; it must hold {rule} of at most 64 bits a part")
    if array.ndim == 0 or array.size == 0:
        raise ShapeError(f"{name} has shape {array.shape}; it must have an axis and no axis may be empty")
    return array


def pair(in1: np.ndarray, in2: np.ndarray, mode: str) -> Pair:
    """(n, *spatial) and (n, *kernel), either way round, convolved with zeros beyond the edges.

    Raises
    ------
    ShapeError
        If the operands have different numbers of axes, or in mode "valid" neither holds the other.
    """
    shape1, shape2 = in1.shape[1:], in2.shape[1:]
    same_axes(shape1, shape2)
    if mode == "valid":
        larger = [a >= b for a, b in zip(shape1, shape2)]
        if not all(larger) and any(a > b for a, b in zip(shape1, shape2)):
            raise ShapeError(
                f"in1 has shape {shape1}, in2 has shape {shape2}; in mode 'valid' one must be at least as large as the other "
                "along every axis"
            )
    x, kernel = (in1, in2) if prod(shape1) >= prod(shape2) else (in2, in1)
    start, shape = zip(*(span(a, b, mode) for a, b in zip(shape1, shape2)))
    return stretch(x, kernel, start, shape)


def span(size1: int, size2: int, mode: str) -> tuple[int, int]:
    """Along one axis: the first element of the result within the full convolution, and how many there are."""
    if mode == "full":
        return 0, size1 + size2 - 1
    if mode == "same":
        return (size2 - 1) // 2, size1
    less, more = min(size1, size2), max(size1, size2)
    return less - 1, more - less + 1


def same_axes(shape1: tuple[int, ...], shape2: tuple[int, ...]) -> None:
    """Raise unless both operands have as many axes."""
    if len(shape1) != len(shape2):
        raise ShapeError(f"in1 has shape {shape1}, in2 has shape {shape2}; both must have the same number of axes")


def stretch(x: np.ndarray, kernel: np.ndarray, start: Sequence[int], shape: Sequence[int]) -> Pair:
    """A stretch of the full convolution: operands in the precision that it takes, without what no result depends on."""
    dtype = np.result_type(x, kernel)
    work = _precision(x, kernel, dtype)
    read, moved = [slice(None)], []
    for n, k, first, count in zip(x.shape[1:], kernel.shape[1:], start, shape):
        # elements before and behind are beyond the kernel's reach
        low = max(0, first - k + 1)
        read.append(slice(low, min(n, first + count)))
        moved.append(first - low)
    return Pair(_as(x[tuple(read)], work), _as(kernel, work), tuple(moved), tuple(shape), dtype)


def extended(in1: np.ndarray, in2: np.ndarray, mode: str, boundary: str, fillvalue) -> Pair:
    """As `pair`, with an extension of `in1` beyond its edges; `in2` stays the kernel."""
    same_axes(in1.shape[1:], in2.shape[1:])
    margins = [(0, 0)]
    for k in in2.shape[1:]:
        margins.append({"full": (k - 1, k - 1), "same": (k - 1 - (k - 1) // 2, (k - 1) // 2), "valid": (0, 0)}[mode])
    options = {"constant_values": fillvalue} if boundary == "fill" else {}
    return pair(np.pad(in1, margins, BOUNDARIES[boundary], **options), in2, "valid")


def fill_of(boundary: str, fillvalue, like: np.ndarray):
    """`fillvalue`, if it is a number that an array extended so can hold.

    Raises
    ------
    ConvError
        If it is no number, or stands beside a boundary that is not filled.
    DTypeError
        If it is complex and the array is not.
    """
    if not isinstance(fillvalue, (Number, np.generic)) or isinstance(fillvalue, (bool, np.bool_)):
        raise ConvError(f"fillvalue={fillvalue!r} is a {type(fillvalue).__name__}; it must be a number")
    if fillvalue != 0 and boundary != "fill":
        raise ConvError(f"fillvalue={fillvalue!r} with boundary={boundary!r}; only boundary='fill' takes a value")
    if isinstance(fillvalue, (complex, np.complexfloating)) and like.dtype.kind != "c":
        raise DTypeError(f"fillvalue={fillvalue!r} is complex, but in1 has dtype {like.dtype}")
    return fillvalue


def _precision(x: np.ndarray, kernel: np.ndarray, dtype: np.dtype) -> np.dtype:
    """float32 or float64, of which both the operands and the result are made."""
    if dtype.kind in "fc":
        return np.dtype(np.float32 if dtype.itemsize <= (8 if dtype.kind == "c" else 4) else np.float64)
    # each sum has so many products at the most
    bound = prod(kernel.shape[1:]) * _largest(x) * _largest(kernel)
    for precision, limit in _EXACT.items():
        if bound < limit:
            return precision
    raise DTypeError(
        f"sums of in1 ({x.dtype}) times in2 ({kernel.dtype}) may reach {bound}, and floats hold whole numbers exactly "
        "below 2**53 only; pass floats where rounding is allowed"
    )


def _largest(array: np.ndarray) -> int:
    """The largest magnitude among integers, with room for those whose negative does not exist."""
    return max(int(array.max()), -int(array.min()))


def _as(array: np.ndarray, precision: np.dtype) -> np.ndarray:
    """Contiguous, in native order."""
    wanted = np.result_type(precision, np.complex64) if array.dtype.kind == "c" else precision
    return np.ascontiguousarray(array, wanted)
