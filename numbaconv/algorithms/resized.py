"""Convolution of an enlarged image, in three ways.

Sampled: the large image is never made, its pixels are found while patches are packed.  Wins where patches are few, as with strides.
Enlarged: it is made, in the workspace, for the algorithm that suits it best.  Wins where that saves multiplications.
Folded: with the nearest pixel and a whole factor s, neighbouring taps meet the same pixel of the small image, so that each of the
s x s phases of the result is a convolution of the small image with fewer taps, sums of the kernel's.  Phases are then interleaved.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.addressed import AddressedPlan
from numbaconv.algorithms.base import Cost, Plan
from numbaconv.algorithms.im2col import PackedPatches
from numbaconv.algorithms.tiled import TiledPlan
from numbaconv.codegen.records import ENLARGE, PHASES, SPARE
from numbaconv.loops.enlarge import PLACE_BYTES, enlarge_share, enlarged
from numbaconv.loops.phases import interleave_share
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded

#: Cycles to find the pixels of one sample, and times that a sum of them takes what a copy would: one or four of them.
_FIND, _NEIGHBOURS = 40.0, {"nearest": 1.0, "bilinear": 4.0}


def places(size: int, enlarged: int, scale: float, mode: str) -> np.ndarray:
    """What each position of an enlarged axis takes of `size` elements: first, second, share of the second."""
    table = np.zeros((enlarged, PLACE_BYTES // 8), np.int64)
    position = np.arange(enlarged)
    if mode == "nearest":
        table[:, 0] = table[:, 1] = np.minimum(np.floor(position / scale).astype(np.int64), size - 1)
        return table
    # centres of pixels lie half a pixel from the borders
    at = np.maximum((position + 0.5) / scale - 0.5, 0.0)
    table[:, 0] = np.minimum(at.astype(np.int64), size - 1)
    table[:, 1] = np.minimum(table[:, 0] + 1, size - 1)
    table.view(np.float64)[:, 2] = at - np.floor(at)
    return table


@dataclass(frozen=True)
class Resize:
    """An image of size `spatial` that is enlarged."""

    spatial: tuple[int, int]
    scale: tuple[float, float]
    mode: str

    def places(self, sizes: tuple[int, int]) -> np.ndarray:
        """The tables of rows and columns of an image enlarged to these sizes."""
        axes = zip(self.spatial, sizes, self.scale)
        return np.concatenate([places(*axis, self.mode) for axis in axes])

    def cycles(self, samples: int, nbytes: int, machine: Machine) -> float:
        """Cycles of so many samples of so many bytes."""
        return samples * (_FIND + _NEIGHBOURS[self.mode] * nbytes / machine.rates.copy_bytes)


@dataclass(frozen=True)
class Sampled(PackedPatches):
    """Problems are those of the enlarged image, channels-last."""

    resize: Resize

    name = "sampled"
    packer = enlarged

    def tables(self, g, cut):
        head = np.zeros((1, PLACE_BYTES // 8), np.int64)
        head[0, :2] = self.resize.spatial
        found = self.resize.places((g["h_in"], g["w_in"]))
        return super().tables(g, cut) | {"tables": np.concatenate([head, found])}

    def extra_cycles(self, problem, g, machine):
        """Sampling, tap by tap."""
        taps = g["n"] * g["h_out"] * g["w_out"] * g["groups"] * g["k_h"] * g["k_w"]
        return self.resize.cycles(taps, g["c_in"] * g["itemsize"], machine)


def enlarging_cost(p: ConvProblem, resize: Resize, machine: Machine) -> Cost:
    """What making the large image of a problem costs."""
    pixels, nbytes = p.n * prod(p.spatial), p.c_in * p.itemsize
    far = pixels * nbytes / machine.rates.far_bytes if pixels * nbytes > machine.l2 // 2 else 0.0
    return Cost((resize.cycles(pixels, nbytes, machine) + far) / machine.rates.clock, SPARE)


class EnlargedPlan(AddressedPlan):
    """The large image made in the workspace, and a plan for it; channels-last."""

    algorithm = "enlarged"

    def __init__(self, plan: Plan, problem: ConvProblem, resize: Resize):
        self.problem, self.epilogue, self._plan = problem, plan.epilogue, plan
        places = resize.places(problem.spatial)
        record = np.array(
            (problem.n, *resize.spatial, problem.c_in, *problem.spatial, places.ctypes.data), ENLARGE
        )  # fmt: skip
        self._keep, self._record = (record, places), record.ctypes.data
        self._function, self._zero = share_address(enlarge_share, problem.np_dtype), problem.np_dtype.type(0)
        self._image_bytes = rounded(prod(problem.input_shape) * problem.itemsize)
        self.workspace_bytes, self.plan_bytes = plan.workspace_bytes, plan.plan_bytes + places.nbytes

    def scratch_bytes(self, threads: int) -> int:
        """Bytes for the large image, and then for what convolves it."""
        return self._image_bytes + max(self._plan.scratch_bytes(threads), SPARE * threads)

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """Compute into `out`, on addresses."""
        rows = min(threads, self.problem.n * self.problem.spatial[0])
        if rows:
            shares = Shares(self._function, rows, 1, self._record, SPARE, self._zero, self._zero, self._keep)
            inner = workspace + self._image_bytes
            run_shares(shares, x, workspace, 0, inner)
            self._plan.run_at(workspace, out, residual, inner, threads)


@dataclass(frozen=True)
class AxisFold:
    """One axis of the kernel, folded for enlargement by `scale`: for each phase, which tap of its own each tap falls on."""

    scale: int
    taps: tuple[tuple[int, ...], ...]
    kernel: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, scale: int, k: int, dilation: int, padding: tuple[int, int]) -> AxisFold:
        """Fold for stride 1; all phases have equally many outputs, of which the last ones may lie beyond the result."""
        before, after = padding
        taps = [[(phase + tap * dilation - before) // scale for tap in range(k)] for phase in range(scale)]
        # outputs of a phase, more than the image has elements; no phase needs fewer than its taps make of the image, so that
        # none has a padding below zero after it
        more = -(-(before + after - dilation * (k - 1)) // scale)
        return cls(
            scale,
            tuple(tuple(at - met[0] for at in met) for met in taps),
            tuple(met[-1] - met[0] + 1 for met in taps),
            tuple((-met[0], more + met[-1]) for met in taps),
        )


def folded_kernels(weight: np.ndarray, rows: AxisFold, columns: AxisFold):
    """((row phase, column phase), kernel) of all phases: taps that meet the same pixel are added."""
    for down in range(rows.scale):
        for across in range(columns.scale):
            kernel = np.zeros((*weight.shape[:2], rows.kernel[down], columns.kernel[across]), np.float64)
            for k_h, to_h in enumerate(rows.taps[down]):
                for k_w, to_w in enumerate(columns.taps[across]):
                    kernel[:, :, to_h, to_w] += weight[:, :, k_h, k_w]
            yield (down, across), kernel.astype(weight.dtype)


def interleaving_cost(p: ConvProblem, machine: Machine) -> Cost:
    """What interleaving the phases of a result costs: it is read and written once more."""
    nbytes = prod(p.output_shape) * p.itemsize
    rate = machine.rates.far_bytes if 2 * nbytes > machine.l2 else machine.rates.copy_bytes
    return Cost((2 * nbytes / rate + cost.PATCH * p.n * prod(p.out_spatial)) / machine.rates.clock, 0)


class FoldedPlan(AddressedPlan):
    """Plan of all phases, for channels-last tensors: `plans` are those of the phases in row-major order."""

    algorithm = "folded"

    def __init__(self, plans: list[TiledPlan], problem: ConvProblem, scale: tuple[int, int]):
        self.problem, self.epilogue, self.plan_bytes = problem, plans[0].epilogue, sum(p.plan_bytes for p in plans)
        self._plans, phase = plans, plans[0].problem
        self._pixel, down_across = problem.c_out * problem.itemsize, prod(scale)
        self._pitches = (problem.c_in, problem.c_out * down_across, problem.c_out * down_across)
        self._between = rounded(prod(phase.output_shape) * down_across * problem.itemsize)
        self._record = np.array((phase.n, *phase.out_spatial, *scale, self._pixel, *problem.out_spatial), PHASES)
        self._function, self._zero = share_address(interleave_share, problem.np_dtype), problem.np_dtype.type(0)
        self.workspace_bytes = max(plan.shares(1, self._pitches).pitch for plan in plans)

    def scratch_bytes(self, threads: int) -> int:
        """Bytes for the phases and the workspace of what computes them."""
        return self._between + self.workspace_bytes * threads

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """Compute into `out`, on addresses; there is no residual."""
        if not self.problem.n:
            return
        inner = workspace + self._between
        for number, plan in enumerate(self._plans):
            run_shares(plan.shares(threads, self._pitches), x, workspace + number * self._pixel, 0, inner)
        rows = min(threads, self.problem.n * self.problem.out_spatial[0])
        address = self._record.ctypes.data
        shares = Shares(self._function, rows, 1, address, 0, self._zero, self._zero, self._record)
        run_shares(shares, workspace, out, 0, 0)
