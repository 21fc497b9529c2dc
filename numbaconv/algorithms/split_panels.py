"""Weights as operands of matrix tiles: their halves, K in runs that zeros fill up to whole steps.

Right operands have elements of K in pairs, (groups, panels, steps, 2 parts, 2 halves, 16 pairs, 16 columns, 2); left ones rows of
32 elements, (groups, panels, steps, 2 parts, 2 halves, 16 rows, 32).  The `UNIT_BYTES` before them hold the inverse of the power
of two that all weights are multiplied by.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import frexp

import numpy as np

from numbaconv.algorithms.weights import Weights, side_by_side
from numbaconv.codegen.amx import COLUMNS, DEPTH, STEP_BYTES
from numbaconv.codegen.halves import Halves
from numbaconv.codegen.scales import SCALE_BYTES
from numbaconv.loops.split_panels import pack_split, pack_split_rows
from numbaconv.workspace import ALIGNMENT, aligned

UNIT_BYTES = ALIGNMENT
#: Powers of two that have an inverse among the normal numbers.
_LEAST, _MOST = -126, 126


@dataclass(frozen=True)
class SplitPanels:
    """Packs runs of so many elements of K, the channels of a tap or the elements of a kernel row, chunk by chunk.

    Columns are the channels of so many neighbouring `outputs`, `stride` taps apart.
    """

    run: int
    chunk: int
    halves: Halves
    outputs: int = 1
    stride: int = 1

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        if self.outputs > 1:
            weight = side_by_side(weight, groups, self.outputs, self.stride)
        panels = Weights(weight, None, groups, own=True).panels
        count, k = panels.shape[0] * panels.shape[1], panels.shape[2] * panels.shape[3]
        form, scale = form_of(panels, self.halves, count * (k // self.run) * -(-self.run // DEPTH) * STEP_BYTES)
        spare = np.zeros(2 * COLUMNS, np.float32)
        to = form[UNIT_BYTES:]
        runs = self.run, self.chunk
        pack_split(to.ctypes.data, panels.ctypes.data, count, k, *runs, spare.ctypes.data, scale.ctypes.data)
        return form


@dataclass(frozen=True)
class SplitRows:
    """Packs the channels of each tap, or all elements of `patches`, for registers of `height` output channels, two a panel."""

    height: int
    patches: bool
    halves: Halves

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        rows = weight.reshape(weight.shape[0], *((-1, 1) if self.patches else (weight.shape[1], -1)))
        rows = np.ascontiguousarray(rows.transpose(0, 2, 1))
        c_out, (taps, run) = weight.shape[0] // groups, rows.shape[1:]
        panels, steps = -(-c_out // (2 * self.height)), taps * -(-run // DEPTH)
        form, scale = form_of(rows, self.halves, groups * panels * steps * STEP_BYTES)
        to = form[UNIT_BYTES:]
        to[:] = 0
        pack_split_rows(to.ctypes.data, rows.ctypes.data, groups, c_out, self.height, taps, run, scale.ctypes.data)
        return form


def form_of(weights: np.ndarray, halves: Halves, nbytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Room for so many bytes behind the inverse of a scale, which brings all finite weights just below 2^15, and that scale.

    The weights are looked at as they lie in memory: turned ones as they came take five times as long.
    """
    form = aligned(UNIT_BYTES + nbytes)
    power = 0
    if halves.scaled:
        _, exponent = frexp(_largest(weights))
        power = min(max(15 - exponent, _LEAST), _MOST)
    form[:UNIT_BYTES].view(np.float32)[:] = 2.0**-power
    # splitting writes behind it what it meets
    scale = np.zeros(SCALE_BYTES // 4, np.float32)
    scale[0] = 2.0**power
    return form, scale


def _largest(weights: np.ndarray) -> float:
    """The magnitude of the largest finite number."""
    largest = max(weights.max(initial=0), -weights.min(initial=0))
    if not np.isfinite(largest):
        finite = weights[np.isfinite(weights)]
        largest = max(finite.max(initial=0), -finite.min(initial=0))
    return float(largest)
