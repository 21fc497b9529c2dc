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
from numbaconv.machine import Machine


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
        block = tile_block(g, lines, machine, tables=True)
        fields = lines | {"tile_block": block, **column_blocks(g, machine)}
        return Cut(fields, tile_list_bytes(block) + CORNERS + block * table_bytes(g), table_bytes(g))

    def tables(self, g, cut):
        return {"taps": interior_taps(g)}

    def least_extra(self, least, machine):
        """The same for one block of columns, of the fewest tiles."""
        g = least.g
        return least.pixels / MR * _listing_cycles(g, row_lines(g), machine)

    def extra_cycles(self, problem, g, machine):
        """The tile list, for each column block."""
        blocks = -(-g["groups"] * g["panels_per_group"] // g["column_block"])
        return blocks * cost.tile_count(g) * _listing_cycles(g, g, machine)


def _listing_cycles(g: dict[str, int], lines: dict[str, int], machine: Machine) -> float:
    """Cycles to list a tile, with a table where it touches padding or spans two rows."""
    inside = 0.0
    if lines["line"] == g["w_out"]:
        # padding after is taken to be what it is before
        parts, padded_parts = lines["tiles_per_line"], 2 if g["pad_left"] else 0
        inside = max(0, parts - padded_parts) / parts
        if inside:
            inside *= _inside(g["d_out"], g["pad_front"], g["stride_d"])
            inside *= _inside(g["h_out"], g["pad_top"], g["stride_h"])
    return cost.LISTED + (1 - inside) * g["window"] * TARGETS[machine.isa].rows * cost.ENTRY


def _inside(out: int, before: int, stride: int) -> float:
    """The part of the outputs of an axis that meet no padding."""
    return max(0, out - 2 * -(-before // stride)) / out
