"""Deformable convolution as a blocked im2col: patches are sampled where the offsets say, and multiplied on the dense tiles."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from numbaconv.algorithms.im2col import PackedPatches
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.tiled import TiledPlan
from numbaconv.codegen.records import SAMPLES
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.ndarrays import address
from numbaconv.loops.sampling import deformed
from numbaconv.problem import ConvProblem
from numbaconv.workspace import scratch

#: Cycles to find the neighbours of one tap, and times that their sum takes what a copy would.
_FIND, _NEIGHBOURS = 60.0, 4.0


class Deformable(PackedPatches):
    """Its plans, for channels-last pixels, run on the address of a `SAMPLES` record in the place of the input's."""

    name = "deformable"
    packer = deformed

    def extra_cycles(self, problem, g, machine):
        """Sampling: four neighbours of each tap."""
        taps = g["n"] * g["h_out"] * g["w_out"] * g["groups"] * g["k_h"] * g["k_w"]
        return taps * (_FIND + _NEIGHBOURS * g["c_in"] * g["itemsize"] / machine.rates.copy_bytes)


class DeformablePlan:
    """A plan for either layout that is given offsets and a mask at each run; immutable, as all plans are."""

    def __init__(self, inner: TiledPlan, problem: ConvProblem):
        self.algorithm, self.problem = inner.algorithm, problem
        self._inner, self._epilogue = inner, inner.epilogue

    def run(self, x, offset, mask, offset_groups: int, out, residual=None) -> None:
        """Compute into `out`; all arrays are contiguous and batched, in the problem's layout."""
        bound = _Bound(self._inner, self._samples(offset, mask, offset_groups))
        plan = ChannelsFirst(bound, self.problem) if self.problem.layout == "channels_first" else bound
        threads = usable_threads()
        addresses = (0 if array is None else address(array) for array in (x, out, residual))
        plan.run_at(*addresses, scratch(plan.scratch_bytes(threads)), threads)

    def _samples(self, offset, mask, offset_groups: int) -> np.ndarray:
        """The `SAMPLES` record without x."""
        size, pixels = self.problem.itemsize, prod(self.problem.out_spatial)
        samples = np.zeros((), SAMPLES)
        samples["group_channels"] = self.problem.c_in // offset_groups
        for name, array, channels in (("offset", offset, 2 * offset_groups), ("mask", mask, offset_groups)):
            if array is not None:
                channels *= self.problem.taps
                first = self.problem.layout == "channels_first"
                samples[name], samples[f"{name}_image"] = address(array), channels * pixels * size
                samples[f"{name}_pixel"] = size if first else channels * size
                samples[f"{name}_channel"] = pixels * size if first else size
        return samples


@dataclass(frozen=True)
class _Bound:
    """A channels-last plan with the offsets of one call, which is what `ChannelsFirst` goes around."""

    plan: TiledPlan
    samples: np.ndarray

    def __getattr__(self, name):
        return getattr(self.plan, name)

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """Compute for pixels at address `x`."""
        self.samples["x"] = x
        self.plan.run_at(self.samples.ctypes.data, out, residual, workspace, threads)
