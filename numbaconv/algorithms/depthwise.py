"""Depthwise convolution: every channel has its own kernel.  Wins wherever it applies.

Channels-last, lanes are channels: tiles read the input in place, those of wide kernels that touch padding at the sides a copy of
what lies under them; kernel rows and pixels in padding are skipped.  The bound is the multiply-adds of large kernels, and
the bytes moved of small ones.  Channels-first, lanes are pixels where rows fill vectors (`algorithms.strips`); small images are
transposed a panel of channels at a time.
"""

from __future__ import annotations

from functools import lru_cache
from operator import itemgetter

from numbaconv.algorithms.geometry import WORKSPACE_LIMIT, shared_fields
from numbaconv.algorithms.sliding import TILES, SlidingAlgorithm, cut_in_place, sliding_fields
from numbaconv.algorithms.strips import Strips
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.by_panel import by_panel_share
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.sliding import SLIDE_BYTES
from numbaconv.problem import LAYOUTS, ConvProblem
from numbaconv.workspace import rounded

#: Cycles to transpose one vector of a panel; measured with images of 7 x 7 and 14 x 14.
_TRANSPOSE = 6.0


class DepthwisePanels(SlidingAlgorithm):
    """Blocks of channels are so narrow that the kernel's rows, one tile wide, stay in the L1 on the way down."""

    name = Strips.name

    def operation(self, g):
        return self.name

    def cut(self, g, machine):
        return cut_in_place(g, machine, sliding_fields(g, machine, TILES, in_pieces=True))

    def extra_cycles(self, problem, g, machine):
        """Nothing."""
        return 0.0


class _PanelsOfPlanes(DepthwisePanels):
    """The same on channels-first tensors, around which a panel is transposed while it stays in the L2."""

    share = by_panel_share
    reads_planes = True
    layouts = ("channels_first",)

    def native(self, problem):
        """Channels-first, where a panel of input, residual and output fits the workspace."""
        return (
            problem.layout == "channels_first"
            and _block_bytes(shared_fields(problem, planes=True)) <= WORKSPACE_LIMIT // 2
        )

    def cut(self, g, machine):
        cut = super().cut(g | {"x_pixel": PANEL_ROW}, machine)
        inner = rounded(SLIDE_BYTES + cut.workspace_bytes)
        fields = {
            "images": g["n"], "n": 1, "x_pixel": PANEL_ROW, "out_pixel": PANEL_ROW, "residual_pixel": PANEL_ROW,
            "inner_bytes": inner, "column_block": 1, "fetch": 0,
            # pixels of the workspace have room for whole vectors
            "x_image": g["in_pixels"] * PANEL_ROW + VECTOR_BYTES,
        }  # fmt: skip
        return Cut(cut.fields | fields, inner + _block_bytes(g))

    def shares(self, g):
        return g["images"], g["panels_per_group"]

    def gemm_cycles(self, g, machine):
        return g["images"] * super().gemm_cycles(g, machine)

    def extra_cycles(self, problem, g, machine):
        """Transposing, in whole vectors of pixels and channels."""
        lanes = TARGETS[machine.isa].lanes(g["itemsize"])
        vectors = -(-g["in_pixels"] // lanes) + -(-g["out_pixels"] // lanes)
        return _TRANSPOSE * g["images"] * -(-g["c_out"] // lanes) * lanes * vectors


def _block_bytes(g: dict[str, int]) -> int:
    """Bytes of a panel's input, residual and output."""
    return (g["in_pixels"] + 2 * g["out_pixels"]) * PANEL_ROW


_WAYS = Strips(), _PanelsOfPlanes()


@lru_cache(maxsize=16)  # asked for again and again while a problem is ranked
def _channels_first_ways(problem: ConvProblem) -> tuple[TiledAlgorithm, ...]:
    """Those that can do a problem without transposing all of it."""
    return tuple(way for way in _WAYS if way.native(problem))


class Depthwise(DepthwisePanels):
    """Channels-last as it is; of the ways for channels-first the one that is estimated to take less."""

    groupings = ("single", "channelwise")
    floors = ()
    layouts = LAYOUTS

    def native(self, problem):
        return problem.layout == "channels_last" or bool(_channels_first_ways(problem))

    def unsupported(self, problem, epilogue, machine):
        if problem.groups != problem.c_in:
            return "groups have more than one input channel"
        if problem.c_out != problem.c_in:
            return "groups have more than one output channel"
        return super().unsupported(problem, epilogue, machine)

    def least_seconds(self, problem, machine):
        """It nearly always wins, so that an estimate is due in any case."""
        return 0.0

    def _ways(self, problem, machine):
        """(cost, way) of each way for channels-first tensors that there is."""
        return [(way.estimate(problem, machine), way) for way in _channels_first_ways(problem)]

    def estimate(self, problem, machine):
        costs = [cost for cost, _ in self._ways(problem, machine)]
        return min(costs, default=None) or super().estimate(problem, machine)

    def plan(self, problem, weights, epilogue, machine):
        _, way = min(self._ways(problem, machine), default=(None, super()), key=itemgetter(0))
        return way.plan(problem, weights, epilogue, machine)
