"""Convolution in groups narrower than a vector, and depthwise convolution with a channel multiplier.

Lanes are neighbouring output channels of several groups; the input is expanded once so that each lane finds the channels of
its own group, which all taps share.  Wins where a dense tile would leave most of its lanes empty.
"""

from __future__ import annotations

from functools import lru_cache
from math import gcd

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import WORKSPACE_LIMIT
from numbaconv.algorithms.sliding import (
    CHANNEL,
    TILES,
    SlidingAlgorithm,
    cut_in_place,
    sliding_fields,
    stretch,
)
from numbaconv.algorithms.sliding_blocks import strip_fields
from numbaconv.algorithms.tiled import Cut
from numbaconv.codegen.lanes import CHANNELS, TABLED, TURNED
from numbaconv.loops.gemm import NV, PANEL_ROW
from numbaconv.loops.sliding import PIXELS

#: Cycles to expand one vector; measured, as the cost of a run is, on grouped layers of ResNeXt, RegNet and ShuffleNet.
EXPAND = 4.0
#: How much longer tiles take whose strip does not fit this part of the L2; measured with 48 channels a group and 128 taps.
_BEYOND, _NEAR_PART = 2.0, 4
#: The operation for groups of so many channels that are all lanes of one vector.
_TURNED = {group: operation for operation, group in TURNED.items() if group > 1}


class Grouped(SlidingAlgorithm):
    """Strips a few tiles wide, one panel of output channels at a time."""

    name = "grouped"
    groupings = ("groups", "channelwise")
    floors = ()
    workspace_limit = WORKSPACE_LIMIT

    def unsupported(self, problem, epilogue, machine):
        if problem.groups == 1:
            return "there is one group only"
        return super().unsupported(problem, epilogue, machine)

    def operation(self, g):
        return _operation(g["c_in"], g["group_out"], g["itemsize"])

    def cut(self, g, machine):
        fields = sliding_fields(g, machine, TILES)
        operation = self.operation(g | fields)
        if operation in TURNED:
            return cut_in_place(g, machine, fields)
        if operation in TABLED:
            return cut_in_place(g, machine, fields | {"bordered": 1})
        under = min(g["k_h"], g["h_in"]) * g["k_d"] * g["c_in"] * PANEL_ROW
        columns = max(1, machine.l1 // 2 // under - (g["k_w"] - 1) * g["dilation_w"])
        out_step = fields["out_step"]
        tiles = max(1, columns // (PIXELS * out_step * g["stride_w"]))
        fields |= {"stretch": stretch(g, fields["pixels"], tiles), "column_block": 4, "strip_channels": g["c_in"]}
        across = out_step * -(-g["w_out"] // (out_step * fields["stretch"]))
        wanted = out_step * max(1, tiles * PIXELS // fields["stretch"])
        strip, nbytes = strip_fields(g | fields, machine, max(1, min(wanted, across)), WORKSPACE_LIMIT // 2)
        return Cut(fields | strip, nbytes)

    def gemm_cycles(self, g, machine):
        """Those of all sliding tiles, but longer where the strip under one tile is not near."""
        cycles = super().gemm_cycles(g, machine)
        if "read_in_place" in g:
            return cycles
        width = (PIXELS - 1) * g["stride_w"] + (g["k_w"] - 1) * g["dilation_w"] + 1
        strip = width * g["k_d"] * min(g["k_h"], g["h_in"]) * g["c_in"] * PANEL_ROW
        return cycles * (_BEYOND if strip > machine.l2 // _NEAR_PART else 1.0)

    def least_channels(self, g, rows):
        return CHANNEL * rows * g["c_in"] if _operation(g["c_in"], g["c_out"], g["itemsize"]) in CHANNELS else 0.0

    def least_beside(self, g):
        """Expanding."""
        return _expanding_cycles(g) if _operation(g["c_in"], g["c_out"], g["itemsize"]) == "strip" else 0.0

    def extra_cycles(self, problem, g, machine):
        """Expanding each pixel under a panel's tiles, for each vector, channel of a group and slice of the kernel; tiles overlap
        at their sides."""
        return 0.0 if "read_in_place" in g else _expanding_cycles(g)


@lru_cache(maxsize=256)
def _operation(group_in: int, group_out: int, itemsize: int) -> str:
    """Which tiles compute groups of so many channels."""
    width = PANEL_ROW // NV // itemsize
    aligned = gcd(width, group_out)
    # groups that a vector of output channels belongs to, at most
    groups = 1 + -(-(width - aligned) // group_out)
    if group_in == group_out == aligned < width and group_in in _TURNED:
        return _TURNED[group_in]
    return {1: "broadcast", 2: "blended"}.get(groups, "strip")


def _expanding_cycles(g: dict[str, int]) -> float:
    vectors = -(-g["groups"] * g["c_out"] * g["itemsize"] * NV // PANEL_ROW)
    slices = g["d_out"] * cost.slices_met(g)
    return EXPAND * vectors * g["n"] * slices * g["h_in"] * g["w_in"] * g["c_in"]
