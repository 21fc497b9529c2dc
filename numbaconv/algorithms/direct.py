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
from numbaconv.algorithms.kernel_rows import KernelRows
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import MR
from numbaconv.loops.tables import CORNERS


class Direct(TiledAlgorithm):
    """Tap tables are built while running, for tiles at the border only; taps wholly in padding are skipped.

    With few channels a tap is a whole kernel row (`algorithms.kernel_rows`).
    """

    name = KernelRows.name
    floors = (cost.least_seconds, cost.least_core_seconds)

    _rows = KernelRows()

    def estimate(self, problem, machine):
        if self._rows.applies(problem):
            return self._rows.estimate(problem, machine)
        return super().estimate(problem, machine)

    def plan(self, problem, weights, epilogue, machine):
        if self._rows.applies(problem):
            return self._rows.plan(problem, weights, epilogue, machine)
        return super().plan(problem, weights, epilogue, machine)

    def least_seconds(self, problem, machine):
        if self._rows.applies(problem):
            return self._rows.least_seconds(problem, machine)
        return super().least_seconds(problem, machine)

    def cut(self, g, machine):
        lines = row_lines(g)
        block = tile_block(g | lines, machine, tables=True)
        fields = lines | {"tile_block": block, **column_blocks(g, machine)}
        return Cut(fields, tile_list_bytes(block) + CORNERS + block * table_bytes(g), table_bytes(g))

    def tables(self, g, cut):
        return {"taps": interior_taps(g)}

    def least_extra(self, least, machine):
        """The tile list."""
        return least.pixels / MR * cost.LISTED

    def extra_cycles(self, problem, g, machine):
        """The tile list, and a table for every tile that touches padding or spans two rows: for each column block."""
        parts = g["tiles_per_line"]
        interior = 0.0
        if g["line"] == g["w_out"]:
            # padding after is taken to be what it is before
            padded_parts = 2 if g["pad_left"] else 0
            interior = max(0, parts - padded_parts) / parts
            for size, before, stride in (("d_out", "pad_front", "stride_d"), ("h_out", "pad_top", "stride_h")):
                interior *= max(0, g[size] - 2 * -(-g[before] // g[stride])) / g[size]
        entries = problem.taps * TARGETS[machine.isa].rows
        once = cost.tile_count(g) * (cost.LISTED + (1 - interior) * entries * cost.ENTRY)
        return once * -(-g["groups"] * g["panels_per_group"] // g["column_block"])
