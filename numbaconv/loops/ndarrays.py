"""NumPy's arrays as they are found at `id(array)`: asking two of them for their addresses takes as long as a small layer.

Behind the head that all Python objects have, whose last word is the object's type, NumPy's stable binary interface puts the
address of the data, the number of axes, the addresses of shape and strides, the owner of the memory, the dtype and flags.
"""

from __future__ import annotations

import ctypes
from math import prod

import numpy as np

from numbaconv.codegen.jit import njit
from numbaconv.codegen.memory import get

_HEAD = object.__basicsize__ // 8
_TYPE, _DATA, _AXES, _SHAPE, _DTYPE, _FLAGS = _HEAD - 1, _HEAD, _HEAD + 1, _HEAD + 2, _HEAD + 5, _HEAD + 6
#: The number of axes and the flags are 32 bits wide.
_INTEGER = (1 << 32) - 1
#: Flags of arrays that lie without gaps in the order of their axes, and that may be written, too.
_READ = np.int64(0x0001 | 0x0100)
_WRITE = np.int64(_READ | 0x0400)
#: Words of what is expected that come before the shapes.
_SHAPES = 6


_integer_at = ctypes.c_size_t.from_address


def address(array: np.ndarray) -> int:
    """Address of an array's first element; `__array_interface__` takes 1 us to make."""
    return _integer_at(id(array) + 8 * _DATA).value


def expected(dtype: np.dtype, x_shape: tuple[int, ...], out_shape: tuple[int, ...]) -> np.ndarray:
    """What `operands_at` holds arrays against: contiguous ones of exactly this dtype object and these shapes."""
    sizes = [dtype.itemsize * prod(shape) for shape in (x_shape, out_shape)]
    axes = [len(x_shape), len(out_shape)]
    return np.array([id(np.ndarray), id(dtype), *sizes, *axes, *x_shape, *out_shape], np.int64)


@njit
def _is_expected(array, expected, axes, shape, flags):
    """Whether the object at `array` is an array of as many axes as the shape at `shape`."""
    if get(array, _TYPE) != get(expected, 0):
        return False
    if (
        get(array, _DTYPE) != get(expected, 1)
        or get(array, _FLAGS) & flags != flags
        or get(array, _AXES) & _INTEGER != axes
    ):
        return False
    for axis in range(axes):
        if get(get(array, _SHAPE), axis) != get(shape, axis):
            return False
    return True


@njit(entry=True)
def operands_at(expected, x, out, residual):
    """Addresses of the data of the objects at `x`, `out` and `residual`, which may be 0; zeros if they are not what is expected.

    `out` may be the residual itself, but overlap nothing else.
    """
    nothing = np.int64(0), np.int64(0), np.int64(0)
    x_size, out_size, x_axes, out_axes = get(expected, 2), get(expected, 3), get(expected, 4), get(expected, 5)
    x_shape = expected + 8 * _SHAPES
    out_shape = x_shape + 8 * x_axes
    if not _is_expected(x, expected, x_axes, x_shape, _READ):
        return nothing
    if not _is_expected(out, expected, out_axes, out_shape, _WRITE):
        return nothing
    at, to, added = get(x, _DATA), get(out, _DATA), np.int64(0)
    if to < at + x_size and at < to + out_size:
        return nothing
    if residual != 0:
        if not _is_expected(residual, expected, out_axes, out_shape, _READ):
            return nothing
        added = get(residual, _DATA)
        if added != to and abs(added - to) < out_size:
            return nothing
    return at, to, added
