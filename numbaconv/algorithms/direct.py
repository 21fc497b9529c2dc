"""Direct convolution: tiles read the input where it lies.  Wins on large images, and needs next to no memory."""

from __future__ import annotations

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import (
    column_blocks,
    interior_taps,
    row_lines,
    table_bytes,
    tile_block,
    tile_list_bytes,
)
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.tables import CORNERS


class Direct(TiledAlgorithm):
    """Tap tables are built while running, for tiles at the border only; taps wholly in padding are skipped."""

    name = "direct"

    def cut(self, g, machine):
        lines = row_lines(g)
        block = tile_block(g | lines, machine, tables=True)
        fields = lines | {"tile_block": block, **column_blocks(g, machine)}
        return Cut(fields, tile_list_bytes(block) + CORNERS + block * table_bytes(g), table_bytes(g))

    def tables(self, g, cut):
        return {"taps": interior_taps(g)}

    def extra_cycles(self, problem, g, machine):
        """The tile list, and a table for every tile that touches padding or spans two rows."""
        rows, parts = g["h_out"], g["tiles_per_line"]
        interior = 0.0
        if g["lines"] == rows:
            # padding after is taken to be what it is before
            padded_rows, padded_parts = 2 * -(-g["pad_top"] // g["stride_h"]), 2 if g["pad_left"] else 0
            interior = max(0, rows - padded_rows) / rows * max(0, parts - padded_parts) / parts
        entries = problem.taps * TARGETS[machine.isa].rows
        return cost.tile_count(g) * (cost.LISTED + (1 - interior) * entries * cost.ENTRY)
