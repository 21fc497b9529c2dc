"""Direct convolution of few channels: a kernel row is one tap, and what touches padding is read from padded copies of its rows.

Wins on first layers, whose taps of one to four channels would each be too short for themselves.
"""

from __future__ import annotations

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import WORKSPACE_LIMIT, column_blocks, fields_of, run_taps, tile_list_bytes
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.loops.gemm import MR, TAP
from numbaconv.loops.kernel_rows import kernel_rows_share

#: The most channels of a pixel for which a whole kernel row is a tap: more are long enough by themselves.
_FEW_CHANNELS = 16
#: The part of the L2 that a strip may take.
_STRIP_PART = 4
#: Cycles to copy a row of a strip, besides its bytes; to list a tile.
_ROW, _LISTED = 40.0, 25.0


class KernelRows(TiledAlgorithm):
    """Blocks are as many lines of a slice as the strip under them has room for, or part of a line that is longer."""

    name = "direct"
    share = kernel_rows_share

    def applies(self, problem) -> bool:
        """Whether the pixels under a kernel row follow one another, and are so few elements that joining them pays."""
        g = fields_of(problem)
        return g["c_in"] <= _FEW_CHANNELS and rows_are_taps(g)

    def cut(self, g, machine):
        parts = -(-g["w_out"] // MR)
        room = min(WORKSPACE_LIMIT // 2, machine.l2 // _STRIP_PART)
        lines, tiles = g["h_out"], parts
        while lines > 1 and _strip(g, g["w_out"], lines)[1] > room:
            lines = -(-lines // 2)
        while tiles > 1 and _strip(g, min(g["w_out"], tiles * MR), lines)[1] > room:
            tiles = -(-tiles // 2)
        pitch, nbytes = _strip(g, min(g["w_out"], tiles * MR), lines)
        fields = {
            "lines": g["d_out"] * g["h_out"], "line": g["w_out"], "tiles_per_line": parts, "tile_block": lines * tiles,
            "k_block": g["k_w"] * g["c_in"], "row_pitch": pitch, "strip_pitch": nbytes // g["k_d"],
            **column_blocks(g, machine), "strip_lines": lines,
        }  # fmt: skip
        return Cut(fields, tile_list_bytes(lines * tiles) + nbytes, 2 * g["k_d"] * g["k_h"] * 8 * TAP)

    def tables(self, g, cut):
        in_place = g["w_in"] * g["x_pixel"]
        return {
            "taps": run_taps(g, in_place, g["h_in"] * in_place * g["dilation_d"]),
            "tables": run_taps(g, g["row_pitch"], g["strip_pitch"]),
        }

    def gemm_cycles(self, g, machine):
        """All taps of all tiles, those in padding, too."""
        return super().gemm_cycles(g | dict.fromkeys(("pad_front", "pad_top", "pad_left"), 0), machine)

    def least_extra(self, least, machine):
        """The tile list."""
        return least.pixels / MR * _LISTED * cost.copying(machine.rates)

    def extra_cycles(self, problem, g, machine):
        """The tile list; strips, in which neighbours repeat the rows that their kernels share."""
        slow = cost.copying(machine.rates)
        cycles = cost.tile_count(g) * _LISTED * slow
        if any(before or after for before, after in problem.padding):
            rows = g["k_d"] * (
                g["stride_h"] + ((g["k_h"] - 1) * g["dilation_h"] + 1 - g["stride_h"]) / g["strip_lines"]
            )
            cycles += g["n"] * g["lines"] * rows * (_ROW * slow + g["row_pitch"] / machine.rates.copy_bytes)
        return cycles


def rows_are_taps(g) -> bool:
    """Whether the pixels under a kernel row follow one another, and the strip under one tile fits the workspace."""
    together = g["groups"] == g["dilation_w"] == 1 and g["k_w"] > 1
    return together and _strip(g, MR, 1)[1] <= WORKSPACE_LIMIT // 2


def _strip(g, outputs: int, lines: int) -> tuple[int, int]:
    """Bytes from row to row, and all bytes, of the strip under `lines` lines of so many outputs."""
    pitch = row_pitch(((outputs - 1) * g["stride_w"] + g["k_w"]) * g["c_in"] * g["itemsize"])
    return pitch, g["k_d"] * ((lines - 1) * g["stride_h"] + (g["k_h"] - 1) * g["dilation_h"] + 1) * pitch
