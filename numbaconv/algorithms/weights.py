"""Weights in the forms that tiles read.

`panels` are B of the GEMM core: (groups, panels, taps, c_in / groups, NR), zero beyond the last column.  `rows` are its A, for
channels-first tensors: a row for each output channel, (c_in / groups, taps) and the bias, in rows that do not collide in the L1.
Algorithms with a form of their own keep it here through `form`; those of the sliding tiles are `pack_columns`, panels whose columns
belong to as many groups as they like, and `pack_turned`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cached_property
from math import prod

import numpy as np

from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.packing import pack_panels
from numbaconv.workspace import aligned, rounded


def row_pitch(nbytes: int) -> int:
    """Pitch of packed rows of so many bytes: whole cache lines, never a multiple of 1 KiB, which would collide in the L1."""
    pitch = rounded(nbytes)
    return pitch + 64 if pitch % 1024 == 0 else pitch


class Weights:
    """One layer's weights and bias, packed once in each form that its plans need, and shared by the plans of all shapes.

    Parameters
    ----------
    weight : ndarray
        (c_out, c_in / groups, *kernel), float32 or float64.
    bias : ndarray or None
        (c_out,), the same dtype.
    groups : int
        Divides c_out.
    own : bool
        Whether nobody else writes to `weight`, so that it need not be copied.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, groups: int, own: bool = False):
        self.shape, self.dtype, self.groups = weight.shape, weight.dtype, groups
        self.c_out, self.c_in = weight.shape[0] // groups, weight.shape[1]
        self.taps = prod(weight.shape[2:])
        self.columns = PANEL_ROW // weight.itemsize
        self.panels_per_group = -(-self.c_out // self.columns)
        self.bias = None if bias is None else bias.copy()
        self._lock = threading.Lock()
        # only until a packed form holds the same numbers
        self._given: np.ndarray | None = weight if own else weight.copy(order="K")
        self._panels: np.ndarray | None = None
        self._forms: dict[object, np.ndarray] = {}
        self._rows: np.ndarray | None = None

    @property
    def panels(self) -> np.ndarray:
        """(groups, panels, taps, c_in / groups, NR)."""
        with self._lock:
            if self._panels is None:
                self._panels = self._pack_panels(self._weight())
                self._given = None
            return self._panels

    @property
    def rows(self) -> np.ndarray:
        """(c_out, pitch): the weights of a channel, its bias, and room up to the pitch."""
        with self._lock:
            if self._rows is None:
                self._rows = self._pack_rows(self._weight())
                self._given = None
            return self._rows

    def form(self, pack: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """What `pack(weight, groups)` makes of the weights; kept under `pack`, which has to be hashable."""
        with self._lock:
            if pack not in self._forms:
                self._forms[pack] = pack(self._weight(), self.groups)
            return self._forms[pack]

    @cached_property
    def flat_bias(self) -> np.ndarray:
        """(c_out up to a whole panel): the bias, zero where there is none and beyond the last channel."""
        return self._padded_bias(1, -(-self.shape[0] // self.columns))

    @cached_property
    def packed_bias(self) -> np.ndarray:
        """(groups, panels NR): the bias as wide as the panels, zero where there is none."""
        return self._padded_bias(self.groups, self.panels_per_group)

    def _padded_bias(self, groups: int, panels: int) -> np.ndarray:
        padded = np.zeros((groups, panels * self.columns), self.dtype)
        if self.bias is not None:
            padded[:, : self.shape[0] // groups] = self.bias.reshape(groups, -1)
        return padded

    def _pack_panels(self, weight: np.ndarray) -> np.ndarray:
        shape = (self.groups, self.panels_per_group, self.taps, self.c_in, self.columns)
        packed = aligned(prod(shape) * weight.itemsize).view(weight.dtype).reshape(shape)
        self._fill_panels(packed, weight)
        return packed

    def _fill_panels(self, packed: np.ndarray, weight: np.ndarray) -> None:
        pack_panels(packed, weight.reshape(self.groups, self.c_out, self.c_in, self.taps))

    def _pack_rows(self, weight: np.ndarray) -> np.ndarray:
        c_out, k = weight.shape[0], self.c_in * self.taps
        pitch = row_pitch((k + 1) * weight.itemsize)
        packed = aligned(c_out * pitch).view(weight.dtype).reshape(c_out, -1)
        packed[:, k] = 0 if self.bias is None else self.bias
        packed[:, k + 1 :] = 0
        self._fill_rows(packed, weight)
        return packed

    def _fill_rows(self, packed: np.ndarray, weight: np.ndarray) -> None:
        k = self.c_in * self.taps
        packed[:, :k] = weight.reshape(-1, k)

    def replace(self, weight: np.ndarray) -> None:
        """Put other numbers into every form, where the plans made so far find them; none of those may be running."""
        with self._lock:
            if self._given is not None:
                self._given = weight.copy()
            if self._panels is not None:
                self._fill_panels(self._panels, weight)
            if self._rows is not None:
                self._fill_rows(self._rows, weight)
            for pack, form in self._forms.items():
                form[...] = pack(weight, self.groups)

    def release(self) -> None:
        """Forget the weights as they were given: whoever calls this knows that no further form will be asked for."""
        with self._lock:
            self._given = None

    def unpacked(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias as they were given."""
        with self._lock:
            return self._weight(), self.bias

    def _weight(self) -> np.ndarray:
        if self._given is not None:
            return self._given
        if self._rows is not None:
            return np.ascontiguousarray(self._rows[:, : self.c_in * self.taps]).reshape(self.shape)
        columns = self._panels.transpose(0, 1, 4, 3, 2).reshape(self.groups, -1, self.c_in, self.taps)
        return np.ascontiguousarray(columns[:, : self.c_out]).reshape(self.shape)


def side_by_side(weight: np.ndarray, groups: int, outputs: int, stride: int) -> np.ndarray:
    """The kernels of so many neighbouring outputs as channels of one, (groups outputs c_out / groups, ..., wider kernel): each lies
    `stride` elements further than the one before, between zeros."""
    c_out, *rows, k_w = weight.shape
    wide = np.zeros((groups, outputs, c_out // groups, *rows, (outputs - 1) * stride + k_w), weight.dtype)
    for number in range(outputs):
        wide[:, number, ..., number * stride : number * stride + k_w] = weight.reshape(groups, -1, *rows, k_w)
    return wide.reshape(outputs * c_out, *wide.shape[3:])


def pack_columns(weight: np.ndarray, groups: int) -> np.ndarray:
    """(panels, taps, c_in / groups, NR): all output channels side by side, whatever groups they belong to."""
    c_out, c_in = weight.shape[:2]
    taps, columns = prod(weight.shape[2:]), PANEL_ROW // weight.itemsize
    panels = -(-c_out // columns)
    shape = (panels, taps, c_in, columns)
    packed = aligned(prod(shape) * weight.itemsize).view(weight.dtype).reshape(shape)
    padded = np.zeros((panels * columns, c_in, taps), weight.dtype)
    padded[:c_out] = weight.reshape(c_out, c_in, taps)
    packed[...] = padded.reshape(panels, columns, c_in, taps).transpose(0, 3, 2, 1)
    return packed


def pack_turned(weight: np.ndarray, groups: int) -> np.ndarray:
    """As `pack_columns`, for sums whose lanes are turned within their group before each pass over the taps.

    In pass number p of c lane l holds the sum of output (l - c + 1 + p) mod c of its group, and adds to it what input l gives.
    """
    c = weight.shape[1]
    lane, turn = np.ogrid[:c, :c]
    grouped = weight.reshape(groups, c, *weight.shape[1:])
    return pack_columns(grouped[:, (lane - c + 1 + turn) % c, lane].reshape(weight.shape), groups)
