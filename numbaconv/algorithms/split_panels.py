"""Weights as operands of matrix tiles: high and low parts in bfloat16, K in runs that zeros fill up to whole steps.

Right operands have elements of K in pairs, (groups, panels, steps, 2 parts, 2 halves, 16 pairs, 16 columns, 2); left ones rows of
32 elements, (groups, panels, steps, 2 parts, 2 halves, 16 rows, 32).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.amx import COLUMNS, DEPTH, STEP_BYTES
from numbaconv.loops.split_panels import pack_split, pack_split_rows
from numbaconv.workspace import aligned


@dataclass(frozen=True)
class SplitPanels:
    """Packs runs of so many elements of K: the channels of a tap, or the elements of a kernel row."""

    run: int

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        panels = Weights(weight, None, groups, own=True).panels
        k = panels.shape[2] * panels.shape[3]
        steps = k // self.run * -(-self.run // DEPTH)
        shape = (*panels.shape[:2], steps, 4 * DEPTH * COLUMNS)
        packed = aligned(panels.shape[0] * panels.shape[1] * steps * STEP_BYTES).view(np.uint16).reshape(shape)
        spare = np.zeros(2 * COLUMNS, np.float32)
        pack_split(
            packed.ctypes.data, panels.ctypes.data, panels.shape[0] * panels.shape[1], k, self.run, spare.ctypes.data
        )
        return packed


@dataclass(frozen=True)
class SplitRows:
    """Packs the channels of each tap, or all elements of `patches`, for registers of `height` output channels, two a panel."""

    height: int
    patches: bool

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        rows = weight.reshape(weight.shape[0], *((-1, 1) if self.patches else (weight.shape[1], -1)))
        rows = np.ascontiguousarray(rows.transpose(0, 2, 1))
        c_out, (taps, run) = weight.shape[0] // groups, rows.shape[1:]
        panels, steps = -(-c_out // (2 * self.height)), taps * -(-run // DEPTH)
        packed = aligned(groups * panels * steps * STEP_BYTES)
        packed[:] = 0
        pack_split_rows(packed.ctypes.data, rows.ctypes.data, groups, c_out, self.height, taps, run)
        return packed.view(np.uint16).reshape(groups, panels, steps, 2, 2, -1, DEPTH)
