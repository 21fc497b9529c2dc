"""Weights as the right operands of matrix tiles: high and low parts in bfloat16, elements of K in pairs.

(groups, panels, steps, 2 parts, 2 halves, 16 pairs, 16 columns, 2), where K comes in runs that zeros fill up to whole steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.amx import COLUMNS, DEPTH, STEP_BYTES
from numbaconv.loops.split_panels import pack_split
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
