"""A layer's weights in the forms that the ways of computing a transposed convolution read, each made when first asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from math import prod

import numpy as np

from numbaconv.algorithms.weights import Weights, row_pitch
from numbaconv.workspace import aligned


class TransposedWeights:
    """Weights ``(c_in, c_out / groups, *kernel)`` and bias, copied unless they are the caller's `own`.

    `swapped` are those of an ordinary convolution with the taps as they are, `flipped` with the taps in reverse, which makes the
    transposed convolution of stride 1 an ordinary one; `part` are some of the taps.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, groups: int, own: bool = False):
        self.shape, self.dtype, self.groups = weight.shape, weight.dtype, groups
        self.swapped = Weights(swap_channels(weight, groups), bias, groups, own)
        self._lock = threading.Lock()
        #: weights made of the swapped ones, each with what makes them
        self._made: dict[object, tuple[Callable[[np.ndarray], np.ndarray], Weights]] = {}

    @property
    def flipped(self) -> Weights:
        """Weights of the ordinary convolution that stride 1 amounts to."""
        axes = tuple(range(2, len(self.shape)))
        return self._make("flipped", lambda weight: np.flip(weight, axes), self.swapped.bias)

    def part(self, taps: tuple[tuple[int, ...], ...]) -> Weights:
        """Weights of the ordinary convolution with these taps of each axis."""
        index = (slice(None), slice(None), *np.ix_(*taps))
        return self._make(taps, lambda weight: weight[index], self.swapped.bias)

    @property
    def taps_apart(self) -> Weights:
        """Of one group, weights of the 1x1 convolution that has an output channel for each (tap, output channel), without bias."""
        return self._make("taps apart", _taps_apart, None)

    def side_by_side(self, taps: tuple[tuple[int, ...], ...]) -> Weights:
        """Of one group, the same for these taps of each axis, as images have it and with bias."""
        index = (slice(None), slice(None), *np.ix_(*taps))
        bias = self.swapped.bias
        bias = None if bias is None else np.tile(bias, prod(map(len, taps)))
        return self._make(("side by side", taps), lambda weight: _taps_apart(weight[index])[..., None], bias)

    def _make(self, key, make: Callable[[np.ndarray], np.ndarray], bias: np.ndarray | None) -> Weights:
        with self._lock:
            if key not in self._made:
                weight, _ = self.swapped.unpacked()
                self._made[key] = make, Weights(make(weight), bias, self.groups, own=True)
            return self._made[key][1]

    @property
    def rows(self) -> np.ndarray:
        """Rows of a GEMM's A; see `pack_rows`."""
        return self.swapped.form(pack_rows)

    @cached_property
    def bias(self) -> np.ndarray:
        """(c_out,), zero where there is none."""
        c_out = self.swapped.shape[0]
        return np.zeros(c_out, self.dtype) if self.swapped.bias is None else self.swapped.bias

    def unpacked(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias as they were given."""
        weight, bias = self.swapped.unpacked()
        return np.ascontiguousarray(swap_channels(weight, self.groups)), bias

    def replace(self, weight: np.ndarray) -> None:
        """Put other numbers into every form; see `Weights.replace`."""
        swapped = swap_channels(weight, self.groups)
        self.swapped.replace(swapped)
        for make, weights in self._made.values():
            weights.replace(make(swapped))

    def release(self) -> None:
        """Forget the weights as they were given; see `Weights.release`."""
        for weights in (self.swapped, *(weights for _, weights in self._made.values())):
            weights.release()


def swap_channels(weight: np.ndarray, groups: int) -> np.ndarray:
    """(groups a, b, *kernel) as (groups b, a, *kernel), group by group; of one group it is a view."""
    outer, inner, *kernel = weight.shape
    swapped = weight.reshape(groups, outer // groups, inner, *kernel).swapaxes(1, 2)
    return swapped.reshape(groups * inner, outer // groups, *kernel)


def _taps_apart(weight: np.ndarray) -> np.ndarray:
    """(c_out, c_in, *kernel) as (taps c_out, c_in, 1)."""
    c_out, c_in = weight.shape[:2]
    return weight.reshape(c_out, c_in, -1).transpose(2, 0, 1).reshape(-1, c_in, 1)


def pack_rows(weight: np.ndarray, groups: int) -> np.ndarray:
    """(c_out, c_in / groups, *kernel) as (c_out, taps, c_in / groups), with a pitch at which rows do not collide in the L1."""
    c_out, c_in = weight.shape[:2]
    rows = weight.reshape(c_out, c_in, -1).transpose(0, 2, 1)
    nbytes = c_in * weight.itemsize
    pitch = row_pitch(nbytes) if nbytes % 1024 == 0 else nbytes
    packed = aligned(prod(rows.shape[:2]) * pitch).view(weight.dtype).reshape(*rows.shape[:2], -1)
    packed[..., :c_in] = rows
    return packed
