"""Scratch memory that calls share: one growing buffer a thread, so that a warm call allocates nothing."""

from __future__ import annotations

import threading
from math import prod

import numpy as np

ALIGNMENT = 64
#: Bytes of a result from which on its alignment pays.
_LARGE = 16 << 10

_buffers = threading.local()


def rounded(nbytes: int) -> int:
    """`nbytes` up to whole cache lines."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def aligned(nbytes: int) -> np.ndarray:
    """`nbytes` fresh bytes that start at a multiple of 64."""
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes]


def fresh(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A new array for results.  A large one starts with a cache line: vectors that span two take twice as long to store."""
    nbytes = prod(shape) * np.dtype(dtype).itemsize
    if nbytes < _LARGE:
        return np.empty(shape, dtype)
    return aligned(nbytes).view(dtype).reshape(shape)


def scratch(nbytes: int) -> int:
    """Address of at least `nbytes` bytes, aligned to 64, that belong to this thread until its next call of `scratch`."""
    if nbytes > getattr(_buffers, "size", -1):
        _buffers.size = -1
        _buffers.array = aligned(nbytes)
        _buffers.address = _buffers.array.ctypes.data
        _buffers.size = nbytes
    return _buffers.address


class _Memory:
    """What NumPy makes an array of."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype):
        self.__array_interface__ = {"data": (address, False), "shape": shape, "typestr": dtype.str, "version": 3}


def view(address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The memory at an address as an array; it must outlive the array."""
    return np.asarray(_Memory(address, shape, dtype))
