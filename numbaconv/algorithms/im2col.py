"""im2col, a block at a time: patches are packed into rows and multiplied from there; never the whole patch matrix.

Wins with few input channels, where a patch is a few long runs instead of many short taps.
"""

from __future__ import annotations

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import (
    WORKSPACE_LIMIT,
    affine_tap,
    column_blocks,
    image_lines,
    row_block,
    tile_list_bytes,
)
from numbaconv.algorithms.planes import Planes
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.codegen.jit import NativeFunction
from numbaconv.loops.gemm import MR, core_address
from numbaconv.loops.im2col import HEADER, copies, im2col_share
from numbaconv.problem import LAYOUTS


class PackedPatches(TiledAlgorithm):
    """At most 1 MiB of patches a thread; a patch that is too long is cut along K.  `packer` is what fills the rows."""

    head_bytes = HEADER
    share = im2col_share
    packer: NativeFunction

    def functions(self, g, np_dtype):
        return super().functions(g, np_dtype) | {"packer": core_address(self.packer, np_dtype)}

    def cut(self, g, machine):
        lines = image_lines(g)
        k = g["window"] * g["c_in"]
        k_block = min(k, (WORKSPACE_LIMIT // 2) // MR // g["itemsize"])
        pitch = row_pitch(k_block * g["itemsize"])
        block = row_block(lines, machine, pitch)
        fields = lines | {
            "tile_block": block,
            **column_blocks(g, machine),
            "k_block": k_block,
            "patch_pitch": pitch,
        }
        return Cut(fields, tile_list_bytes(block) + block * MR * pitch, 8 * (1 + MR))

    def tables(self, g, cut):
        return {"taps": affine_tap(g["patch_pitch"])}

    def far_cycles(self, g, machine):
        """Blocks of tiles are outside: weights come once each."""
        weight_bytes = g["groups"] * g["panels_per_group"] * g["panel_bytes"]
        return cost.far_cycles(g, machine, weight_bytes, 1, -(-cost.tile_count(g) // g["tile_block"]), streams=True)


class Im2col(PackedPatches):
    """Patches are copies of the input."""

    name = Planes.name
    packer = copies
    layouts = LAYOUTS

    _planes = Planes()

    def native(self, problem):
        """Both layouts, but for channels-first patches too long for the workspace."""
        return problem.layout == "channels_last" or self._planes.native(problem)

    def estimate(self, problem, machine):
        if self._planes.native(problem):
            return self._planes.estimate(problem, machine)
        return super().estimate(problem, machine)

    def plan(self, problem, weights, epilogue, machine):
        if self._planes.native(problem):
            return self._planes.plan(problem, weights, epilogue, machine)
        return super().plan(problem, weights, epilogue, machine)

    def least_seconds(self, problem, machine):
        if self._planes.native(problem):
            return self._planes.least_seconds(problem, machine)
        return super().least_seconds(problem, machine)

    def least_extra(self, least, machine):
        """All of it."""
        return self._packing_cycles(least.g, machine)

    def extra_cycles(self, problem, g, machine):
        """Packing: kernel rows in one run where their taps are neighbours in memory, tap by tap elsewhere."""
        return self._packing_cycles(g, machine)

    def _packing_cycles(self, g, machine):
        if g["dilation_w"] == 1 and g["groups"] == 1:
            return cost.packing_cycles(g, g["k_d"] * g["k_h"], machine.rates)
        return cost.packing_cycles(g, g["window"], machine.rates, cost.SEGMENT)
