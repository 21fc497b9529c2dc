"""Depthwise convolution: every channel has its own kernel, and lanes are channels.  Wins wherever it applies.

Tile lists are those of the indirect algorithm, with one table for all tiles away from padding; the tiles multiply rows of
the input and weights lane by lane.  The bound is two loads a cycle: each multiplication reads its own vector.
"""

from __future__ import annotations

from numbaconv.algorithms.geometry import interior_taps, row_lines, table_bytes, tile_block, tile_list_bytes
from numbaconv.algorithms.indirect import buffer_too_large, indirection
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.loops.gemm import PANEL_ROW


class Depthwise(TiledAlgorithm):
    """To the loops it is one group of `c_out` columns and a K of one."""

    name = "depthwise"
    operation = "depthwise"

    def unsupported(self, problem, epilogue, machine):
        if problem.groups != problem.c_in or problem.groups == 1:
            return "groups have more than one input channel"
        if problem.c_out != problem.c_in:
            return "channel multipliers are not built yet"
        return super().unsupported(problem, epilogue, machine) or buffer_too_large(self, problem, machine)

    def cut(self, g, machine):
        lines = row_lines(g)
        tiles = lines["lines"] * lines["tiles_per_line"]
        channels = g["groups"] * g["c_out"]
        panels = -(-channels * g["itemsize"] // PANEL_ROW)
        fields = lines | {
            "groups": 1,
            "c_in": 1,
            "c_out": channels,
            "panels_per_group": panels,
            "panel_bytes": g["k_h"] * g["k_w"] * PANEL_ROW,
            "tile_block": tile_block(g | lines, machine, tables=False),
            "column_block": panels,
            "tiles_outside": 1,
            "depthwise": 1,
        }
        return Cut(fields, 0, tile_list_bytes(tiles) + (tiles + 1) * table_bytes(g))

    def operands(self, weights, g):
        panels, bias = weights.depthwise
        return {"panels": panels, "bias": bias}

    def tables(self, g, cut):
        return indirection(g, interior_taps(g))

    def extra_cycles(self, problem, g, machine):
        """Nothing: tables of the border are few and stay in the L2."""
        return 0.0
