"""Direct convolution: tiles read the input where it lies.  Wins on large images, and needs next to no memory."""

from __future__ import annotations

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import (
    WORKSPACE_LIMIT,
    column_blocks,
    interior_taps,
    row_block,
    row_lines,
    run_taps,
    table_bytes,
    tile_block,
    tile_list_bytes,
)
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import MR, TAP
from numbaconv.loops.tables import CORNERS

#: The most channels of a pixel for which a whole kernel row is a tap: more are long enough by themselves.
_FEW_CHANNELS = 16


class Direct(TiledAlgorithm):
    """Tap tables are built while running, for tiles at the border only; taps wholly in padding are skipped.

    With few channels a tap is a whole kernel row, whose pixels follow one another in memory; border tiles are packed.
    """

    name = "direct"

    def cut(self, g, machine):
        lines = row_lines(g)
        if _row_is_tap(g):
            k_block = g["k_w"] * g["c_in"]
            pitch = row_pitch(g["window"] * g["c_in"] * g["itemsize"])
            block = min(tile_block(g | lines, machine, tables=False), row_block(g | lines, machine, pitch))
            fields = lines | column_blocks(g, machine) | {"tile_block": block, "k_block": k_block, "patch_pitch": pitch}
            return Cut(fields, tile_list_bytes(block) + block * MR * pitch, 2 * g["k_d"] * g["k_h"] * 8 * TAP)
        block = tile_block(g | lines, machine, tables=True)
        fields = lines | {"tile_block": block, **column_blocks(g, machine)}
        return Cut(fields, tile_list_bytes(block) + CORNERS + block * table_bytes(g), table_bytes(g))

    def tables(self, g, cut):
        if g["k_block"] > g["c_in"]:
            return {"taps": run_taps(g, False), "tables": run_taps(g, True)}
        return {"taps": interior_taps(g)}

    def least_extra(self, least, machine):
        """The tile list."""
        return least.pixels / MR * cost.LISTED

    def extra_cycles(self, problem, g, machine):
        """The tile list, and a table, or packing, for every tile that touches padding or spans two rows: for each column block."""
        parts = g["tiles_per_line"]
        interior = 0.0
        if g["line"] == g["w_out"]:
            # padding after is taken to be what it is before
            padded_parts = 2 if g["pad_left"] else 0
            interior = max(0, parts - padded_parts) / parts
            for size, before, stride in (("d_out", "pad_front", "stride_d"), ("h_out", "pad_top", "stride_h")):
                interior *= max(0, g[size] - 2 * -(-g[before] // g[stride])) / g[size]
        once = cost.tile_count(g) * cost.LISTED
        if g["k_block"] > g["c_in"]:
            once += (1 - interior) * cost.packing_cycles(g, g["k_d"] * g["k_h"], machine.rates)
        else:
            entries = problem.taps * TARGETS[machine.isa].rows
            once += cost.tile_count(g) * (1 - interior) * entries * cost.ENTRY
        return once * -(-g["groups"] * g["panels_per_group"] // g["column_block"])


def _row_is_tap(g) -> bool:
    """Whether the pixels under a kernel row follow one another without gaps, and are so few elements that joining them pays."""
    together = g["groups"] == g["dilation_w"] == 1 and g["x_pixel"] == g["c_in"] * g["itemsize"]
    tile_of_patches = MR * g["window"] * g["x_pixel"]
    return together and g["k_w"] > 1 and g["c_in"] <= _FEW_CHANNELS and tile_of_patches <= WORKSPACE_LIMIT // 2
