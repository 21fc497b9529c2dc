"""The public edge: every array is checked here once, before an address is taken of it.

What can be accepted is accepted: byte-swapped, misaligned, strided and Fortran-ordered operands are copied once.
"""

from __future__ import annotations

import numpy as np

from numbaconv.errors import ConvError, DTypeError, ShapeError

NAMES = {np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}


def operand(name: str, value, dtype: np.dtype | None = None, leader: str = "x") -> np.ndarray:
    """`value` as an array of float32 or float64, not copied yet; `leader` has `dtype`, which it must share."""
    try:
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ConvError(f"{name} is a {type(value).__name__} that is no array: {error}") from error
    native = array.dtype.newbyteorder("=")
    if native not in NAMES:
        raise DTypeError(f"{name} has dtype {array.dtype}; it must be float32 or float64")
    if dtype is not None and native != dtype.newbyteorder("="):
        raise DTypeError(f"{name} has dtype {array.dtype}, but {leader} has {dtype}; all operands must have one dtype")
    return array if type(array) is np.ndarray else array.view(np.ndarray)


def plain(array: np.ndarray) -> bool:
    """Whether an array's elements follow one another, aligned and in native order."""
    return array.flags.c_contiguous and array.flags.aligned and array.dtype.isnative


def contiguous(array: np.ndarray) -> np.ndarray:
    """`array`, or its one copy where its memory is not plain; to be called when all shapes have been checked."""
    # np.ascontiguousarray would keep misaligned memory as it is
    return array if plain(array) else np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)


def shaped(name: str, array: np.ndarray, shape: tuple[int, ...], of: str) -> np.ndarray:
    """`array`, if it has exactly that shape."""
    if array.shape != shape:
        raise ShapeError(f"{name} has shape {array.shape}, but {of} has {shape}; they must be equal")
    return array


def result_array(out, shape: tuple[int, ...], dtype: np.dtype, inputs: dict[str, np.ndarray | None]) -> np.ndarray:
    """`out`, if a result of that shape and dtype can be written into it without touching an input.

    The residual may be `out` itself: every element is read before it is written.
    """
    if not isinstance(out, np.ndarray):
        raise ConvError(f"out is a {type(out).__name__}; it must be a NumPy array")
    if out.dtype.newbyteorder("=") != dtype:
        raise DTypeError(f"out has dtype {out.dtype}, but the result has {dtype}; they must be equal")
    shaped("out", out, shape, "the result")
    if not out.flags.writeable:
        raise ConvError(f"out of shape {out.shape} is read-only; the result is written into it")
    for name, array in inputs.items():
        if array is not None and _overlap(out, array) and not (name == "residual" and _same(out, array)):
            raise ConvError(f"out shares memory with {name}; they must not overlap")
    return out


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides and a.shape == b.shape


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=100_000)
    except np.exceptions.TooHardError:
        return True
