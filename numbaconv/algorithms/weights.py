"""Weights in the packed form that every tile reads: `(groups, panels, taps, c_in / groups, NR)`, zero beyond the last column."""

from __future__ import annotations

from math import prod

import numpy as np

from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.workspace import aligned


class Weights:
    """One layer's weights and bias, packed once and shared by the plans of all its shapes.

    Parameters
    ----------
    weight : ndarray
        (c_out, c_in / groups, *kernel), float32 or float64; it is copied.
    bias : ndarray or None
        (c_out,), the same dtype.
    groups : int
        Divides c_out.
    """

    def __init__(self, weight: np.ndarray, bias: np.ndarray | None, groups: int):
        self.shape, self.dtype, self.groups, self.has_bias = weight.shape, weight.dtype, groups, bias is not None
        self.c_out, self.c_in = weight.shape[0] // groups, weight.shape[1]
        self.taps = prod(weight.shape[2:])
        self.columns = PANEL_ROW // weight.itemsize
        self.panels_per_group = -(-self.c_out // self.columns)
        self.panels = self._pack(weight)
        self.packed_bias = np.zeros((groups, self.panels_per_group * self.columns), self.dtype)
        if bias is not None:
            self.packed_bias[:, : self.c_out] = bias.reshape(groups, self.c_out)

    def _pack(self, weight: np.ndarray) -> np.ndarray:
        shape = (self.groups, self.panels_per_group, self.taps, self.c_in, self.columns)
        packed = aligned(prod(shape) * weight.itemsize).view(weight.dtype).reshape(shape)
        source = weight.reshape(self.groups, self.c_out, self.c_in, self.taps)
        for panel in range(self.panels_per_group):
            part = source[:, panel * self.columns : (panel + 1) * self.columns]
            packed[:, panel, :, :, : part.shape[1]] = part.transpose(0, 3, 2, 1)
            packed[:, panel, :, :, part.shape[1] :] = 0
        return packed

    def unpacked(self) -> tuple[np.ndarray, np.ndarray | None]:
        """Weight and bias as they were given."""
        columns = self.panels.transpose(0, 1, 4, 3, 2).reshape(self.groups, -1, self.c_in, self.taps)
        weight = np.ascontiguousarray(columns[:, : self.c_out]).reshape(self.shape)
        return weight, self.packed_bias[:, : self.c_out].reshape(-1) if self.has_bias else None
