"""Depthwise convolution: every channel has its own kernel, and lanes are channels.  Wins wherever it applies.

Tiles read the input in place, those that touch padding at the sides a zero-padded copy of what lies under them; kernel rows
and columns wholly in padding are skipped.  The bound is the multiply-adds of large kernels, and the bytes moved of small ones.
"""

from __future__ import annotations

from numbaconv.algorithms.sliding import SlidingAlgorithm, sliding_fields, strip_fields
from numbaconv.algorithms.strips import Strips
from numbaconv.algorithms.tiled import Cut
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.sliding import PIXELS


class Depthwise(SlidingAlgorithm):
    """Blocks of channels are so narrow that the kernel's rows, one tile wide, stay in the L1 on the way down."""

    name = Strips.name

    _strips = Strips()

    def native(self, problem):
        return super().native(problem) or self._strips.native(problem)

    def estimate(self, problem, machine):
        if self._strips.native(problem):
            return self._strips.estimate(problem, machine)
        return super().estimate(problem, machine)

    def plan(self, problem, weights, epilogue, machine):
        if self._strips.native(problem):
            return self._strips.plan(problem, weights, epilogue, machine)
        return super().plan(problem, weights, epilogue, machine)

    def unsupported(self, problem, epilogue, machine):
        if problem.groups != problem.c_in or problem.groups == 1:
            return "groups have more than one input channel"
        if problem.c_out != problem.c_in:
            return "groups have more than one output channel"
        return super().unsupported(problem, epilogue, machine)

    def cut(self, g, machine):
        fields = sliding_fields(g, g["itemsize"])
        strip, nbytes = strip_fields(g | fields, machine, 1, machine.l1 // 2)
        width = min(g["w_in"], (PIXELS * fields["out_step"] - 1) * g["stride_w"] + (g["k_w"] - 1) * g["dilation_w"] + 1)
        under = width * min(g["k_h"], g["h_in"]) * PANEL_ROW
        fields |= strip | {
            "column_block": max(1, min(machine.l1 // 2 // under, fields["panels_per_group"])),
            "depthwise": 1,
        }
        return Cut(fields, nbytes)

    def extra_cycles(self, problem, g, machine):
        """Nothing."""
        return 0.0
