"""Tensors of a program before they have an address: a buffer, and how the tensor lies in it.

The view is a NumPy array over memory that does not exist, so that NumPy itself says how a transposition, a slice or a reshape
changes shape, strides and start.  Nothing ever reads through it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from numbaconv.loops.ndarrays import address


class Place(Enum):
    """Who owns the memory of a buffer."""

    ARENA = "arena"
    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"


@dataclass(eq=False)
class Buffer:
    """Memory for one or more tensors; `array` holds a constant, `name` that of an input or output."""

    nbytes: int
    place: Place = Place.ARENA
    name: str = ""
    array: np.ndarray | None = None
    #: the buffer that this one shares its memory with, since an instruction overwrites its operand
    shared: Buffer | None = None

    def root(self) -> Buffer:
        """The buffer that stands for all that share memory."""
        buffer = self
        while buffer.shared is not None:
            buffer = buffer.shared
        return buffer


_ORIGIN = np.zeros(16, np.uint8)
_ORIGIN_ADDRESS = _ORIGIN.ctypes.data


@dataclass(frozen=True, eq=False)
class Tensor:
    """An array in a buffer; `view` has its shape, strides and, from the origin of ghosts, its start."""

    buffer: Buffer
    view: np.ndarray = field(repr=False)

    @classmethod
    def dense(cls, shape: tuple[int, ...], dtype: np.dtype, order: tuple[int, ...], **buffer) -> Tensor:
        """A new tensor without gaps whose axes lie in memory in this order, the outermost first."""
        dtype = np.dtype(dtype)
        strides = dense_strides(shape, dtype.itemsize, order)
        return cls(Buffer(prod(shape) * dtype.itemsize, **buffer), ghost(shape, dtype, strides))

    @classmethod
    def constant(cls, array: np.ndarray, order: tuple[int, ...] | None = None) -> Tensor:
        """An array whose values are known, laid out in this order of axes; it is kept alive by the tensor."""
        order = row_major(array.ndim) if order is None else order
        memory = np.ascontiguousarray(array.transpose(order))
        strides = dense_strides(array.shape, array.dtype.itemsize, order)
        return cls(Buffer(memory.nbytes, Place.CONSTANT, array=memory), ghost(array.shape, array.dtype, strides))

    @property
    def shape(self) -> tuple[int, ...]:
        """Its axes in ONNX's order."""
        return self.view.shape

    @property
    def dtype(self) -> np.dtype:
        """Its element type."""
        return self.view.dtype

    @property
    def start(self) -> int:
        """Bytes from the start of the buffer."""
        return address(self.view) - _ORIGIN_ADDRESS

    def with_view(self, view: np.ndarray) -> Tensor:
        """Another view of the same memory."""
        return Tensor(self.buffer, view)

    def pitch(self) -> int | None:
        """Elements from pixel to pixel, where the tensor is channels-last with pixels that follow at one distance; else None."""
        n, c, *spatial = self.shape
        size, strides = self.dtype.itemsize, self.view.strides
        if c > 1 and strides[1] != size:
            return None
        axes = [(size_, strides[axis]) for axis, size_ in ((0, n), *enumerate(spatial, 2)) if size_ > 1]
        pitch = axes[-1][1] if axes else c * size
        expected = pitch
        for length, stride in reversed(axes):
            if stride != expected:
                return None
            expected *= length
        return pitch // size if pitch % size == 0 and pitch >= c * size else None

    def is_dense(self, order: tuple[int, ...]) -> bool:
        """Whether its axes lie in memory in this order without gaps."""
        expected = dense_strides(self.shape, self.dtype.itemsize, order)
        return all(size <= 1 or own == wanted for size, own, wanted in zip(self.shape, self.view.strides, expected))

    def same_memory(self, other: Tensor) -> bool:
        """Whether both are the very same elements."""
        return (
            self.buffer.root() is other.buffer.root()
            and self.start == other.start
            and self.shape == other.shape
            and all(n <= 1 or a == b for n, a, b in zip(self.shape, self.view.strides, other.view.strides))
        )


def ghost(shape: tuple[int, ...], dtype: np.dtype, strides: tuple[int, ...]) -> np.ndarray:
    """An array of that shape over memory that must not be touched."""
    return as_strided(_ORIGIN[: dtype.itemsize].view(dtype), shape, strides)


def row_major(rank: int) -> tuple[int, ...]:
    """The order of axes in which ONNX's tensors come."""
    return tuple(range(rank))


def channels_last(rank: int) -> tuple[int, ...]:
    """The order of axes in which convolutions read and write; row-major below three axes."""
    return (0, *range(2, rank), 1) if rank > 2 else row_major(rank)


def dense_strides(shape: tuple[int, ...], itemsize: int, order: tuple[int, ...]) -> tuple[int, ...]:
    """Strides in bytes of an array without gaps whose axes lie in this order."""
    strides, step = [0] * len(shape), itemsize
    for axis in reversed(order):
        strides[axis] = step
        step *= max(shape[axis], 1)
    return tuple(strides)


def memory_order(view: np.ndarray) -> tuple[int, ...]:
    """Axes from the largest stride to the smallest; ties stay as they are."""
    return tuple(sorted(range(view.ndim), key=lambda axis: (-abs(view.strides[axis]), axis)))


def reshape_view(view: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """The view in another shape, or None where that would take a copy."""
    try:
        if _RESHAPE_REFUSES:
            return np.reshape(view, shape, copy=False)
        alias = view[...]
        alias.shape = shape
        return alias
    except (ValueError, AttributeError):
        return None


#: NumPy can be asked to refuse copies from 2.1 on; before, only setting a shape does.
_RESHAPE_REFUSES = np.lib.NumpyVersion(np.__version__) >= "2.1.0"
