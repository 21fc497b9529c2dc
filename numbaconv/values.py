"""What frozen values that key plans have in common: a hash that is computed once, and the shapes of a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod
from operator import attrgetter

import numpy as np

#: How channels are summed up: one channel alone, all of them, those of each group, or each with itself.
GROUPINGS: tuple[str, ...] = ("single", "dense", "groups", "channelwise")
DTYPES: dict[str, type] = {"f32": np.float32, "f64": np.float64}
_EPS = {name: float(np.finfo(kind).eps) for name, kind in DTYPES.items()}


class found_once:  # noqa: N801 - a decorator
    """An attribute that is found when it is first asked for, as with `functools.cached_property`, but kept without making the
    instance's ``__dict__``: once that is made, Python 3.11 and 3.12 take five times as long to read any attribute of the instance.

    These versions make it for a name that none of the first dozen instances of a class had, too: what is read all the time is asked
    for where an instance is made.
    """

    def __init__(self, find: Callable):
        self._find, self.__doc__ = find, find.__doc__

    def __set_name__(self, owner: type, name: str):
        self._name = name

    def __get__(self, instance: object, owner: type | None = None):
        if instance is None:
            return self
        found = self._find(instance)
        object.__setattr__(instance, self._name, found)  # the way into a frozen dataclass
        return found


class HashedOnce:
    """Base of frozen dataclasses that are keys of dictionaries in every call; they have to name its ``__hash__`` as their own.

    The hash depends on the process (strings are salted), hence pickling goes through the constructor and leaves it behind.
    """

    def __post_init__(self):
        object.__setattr__(self, "_hash", None)  # a name that all instances have; see `found_once`

    def __hash__(self) -> int:
        known = self._hash
        if known is None:
            known = hash(self._values)
            object.__setattr__(self, "_hash", known)
        return known

    def __reduce__(self):
        return type(self), self._values

    @property
    def _values(self) -> tuple:
        return _getter(type(self))(self)


@cache
def _getter(kind: type) -> Callable[[object], tuple]:
    """Takes all fields of a frozen value at once."""
    return attrgetter(*kind.__dataclass_fields__)


class Batched(HashedOnce):
    """Base of problems: `n` images of `spatial` sizes with `c_in` channels, which become `out_spatial` with `c_out`."""

    n: int
    c_in: int
    c_out: int
    groups: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    dtype: str
    layout: str
    out_spatial: tuple[int, ...]

    def __post_init__(self):
        super().__post_init__()
        for name in ("taps", "itemsize", "out_spatial"):
            getattr(self, name)  # see `found_once`

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input in its layout, batch included."""
        return self._shape(self.c_in, self.spatial)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output in its layout, batch included."""
        return self._shape(self.c_out, self.out_spatial)

    @found_once
    def taps(self) -> int:
        """Kernel positions: the product of `kernel`."""
        return prod(self.kernel)

    @property
    def grouping(self) -> str:
        """Which of `GROUPINGS` it is; several kernels for each channel count as groups."""
        if self.groups == 1:
            return "single" if self.c_in == self.c_out == 1 else "dense"
        return "channelwise" if self.c_in == self.c_out == self.groups else "groups"

    @property
    def np_dtype(self) -> np.dtype:
        """The element type as NumPy names it."""
        return np.dtype(DTYPES[self.dtype])

    @found_once
    def itemsize(self) -> int:
        """Bytes an element."""
        return self.np_dtype.itemsize

    @property
    def eps(self) -> float:
        """Distance from 1 to the next element of the type."""
        return _EPS[self.dtype]

    def _shape(self, channels: int, spatial: tuple[int, ...]) -> tuple[int, ...]:
        if self.layout == "channels_first":
            return (self.n, channels, *spatial)
        return (self.n, *spatial, channels)
