"""The channels-first side of products of float32 in three of their halves: weights are rows of matrix tiles, pixels their columns.

Wins over transposing the tensors around the other side on 1x1 kernels, first layers and large images; see `loops.split_planes`.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.matrix_tiles import (
    ASKED_WEIGHTS,
    INPUT_PART,
    LINE,
    SPLIT,
    TILE,
    MatrixTiles,
    blocks_of,
    fetching_cycles,
    lines_of_block,
    met_columns,
    positions_of_line,
    products_hide_operands,
    turned_lines,
)
from numbaconv.algorithms.split_panels import SplitRows
from numbaconv.algorithms.tiled import Cut
from numbaconv.codegen.amx import COLUMNS, DEPTH, PAIRS, ROW_BYTES, ROWS, STEP_BYTES
from numbaconv.codegen.memory import LINE as CACHE_LINE
from numbaconv.codegen.scales import SCALE_BYTES
from numbaconv.codegen.split_planes import HOPS
from numbaconv.loops.split_planes import SOURCE_BYTES, split_planes_share
from numbaconv.machine import Machine
from numbaconv.workspace import rounded

#: Bytes of a pair of channels of one position.
_PAIR_BYTES = 4
#: How much longer products take whose operands lie across cache lines; measured.
_SPLIT_LINES = 1.22
#: How much longer it takes to split pixels that are picked out of two vectors; measured.
_STRIDED = 1.4


class SplitPlanes(MatrixTiles):
    """Blocks are lines of a slice; where rows meet neither one another nor padding, pixels are lines.

    Where channels do not fill registers, K is cut into elements of patches instead of channels of taps.
    """

    share = split_planes_share
    reads_planes = True
    layouts = ("channels_first",)

    def variant(self, problem):
        return "planes"

    def unsupported(self, problem, epilogue, machine):
        if problem.layout != "channels_first":
            return "planes are those of channels-first tensors"
        if problem.stride[-1] not in HOPS:
            return f"no vector follows strides of {problem.stride[-1]}"
        return super().unsupported(problem, epilogue, machine)

    def cut(self, g, machine):
        registers = -(-g["c_out"] // ROWS)
        turned = turned_lines(g, planes=True)
        fields = turned | _by_channels(g | turned if turned else g)
        if _patch_steps(g) < fields["steps"]:
            patches = _by_patches(g)
            if _patches_win(g | patches, g | fields, registers, machine):
                fields = patches
        g = g | fields
        row_pitch, reach, positions = g["positions"] * _PAIR_BYTES, g["reach_h"], g["positions"]
        # the last row ends with zeros that it would share with the next one, and with a whole vector
        last_row = rounded(row_pitch + g["shared"] * _PAIR_BYTES)
        phases, pairs = g["phases_h"] * g["phases"], PAIRS * -(-g["k_block"] // DEPTH)
        slices = 1 if _has_patches(g) else g["k_d"]
        strips = 2 * slices * pairs * phases
        room = machine.l2 // INPUT_PART
        lines = lines_of_block(g["line"], reach, strips * row_pitch, strips * (last_row + ROW_BYTES), room, machine)
        if positions == 1:
            # tiles are full, and rows of results as aligned as their planes
            lines = min(rounded(lines), g["line"])
        phase_pitch = max(lines + reach - 1, 0) * row_pitch + last_row
        # an odd number of cache lines, so that the rows of a register lie in different sets of the L1
        pair_pitch = (-(-phases * phase_pitch // ROW_BYTES) | 1) * ROW_BYTES
        low = slices * pairs * pair_pitch
        # registers reach beyond the last position
        scales = rounded(2 * low + 2 * COLUMNS * _PAIR_BYTES)
        unit_pitch = rounded(scales + SCALE_BYTES)
        units = 1
        if lines == g["line"]:
            units = max(1, min(room // unit_pitch, g["n"] * g["d_out"]))
        fields |= {
            "line_block": lines,
            "unit_block": units,
            "unit_pitch": unit_pitch,
            "position_bytes": _PAIR_BYTES,
            "row_pitch": row_pitch,
            "phase_pitch": phase_pitch,
            "pair_pitch": pair_pitch,
            "block_pitch": PAIRS * pair_pitch,
            "strip_pitch": pairs * pair_pitch,
            "low": low,
            "scales": scales,
            "scaled": int(self.halves.scaled),
            "tile_height": -(-g["c_out"] // registers),
            "panels_per_group": -(-registers // 2),
            "panel_bytes": g["steps"] * STEP_BYTES,
            "image_step": g["groups"] * g["c_out"] * g["out_pixels"],
        }
        table = g["steps"] * DEPTH * SOURCE_BYTES if _has_patches(g) else 0
        return Cut(fields, units * unit_pitch + table, g["steps"] * 8 + ROW_BYTES)

    def loop_fields(self, g, machine):
        """What a scale depends on, and whether splitting meets all numbers that count, and hardly any more than once."""
        guessed = g["groups"] == 1 and not _has_patches(g) and not g["positions"] == g["k_h"] == 1 < g["stride_h"]
        return met_columns(g) | {"guessed": int(g["scaled"] and guessed)}

    def tables(self, g, cut):
        g = g | cut.fields
        if _has_patches(g):
            taps = np.arange(g["steps"], dtype=np.int64) * g["block_pitch"]
        else:
            d, h, w = np.ix_(*(np.arange(g[f"k_{a}"], dtype=np.int64) for a in "dhw"))
            (down, phase_h), (across, phase) = (
                np.divmod(tap * g[f"dilation_{a}"], g[f"stride_{a}"]) for tap, a in ((h, "h"), (w, "w"))
            )
            places = (phase_h * g["phases"] + phase) * g["phase_pitch"] + down * g["row_pitch"] + across * _PAIR_BYTES
            # all taps of a block of channels, whose lines of pixels stay in the L1 from tap to tap, then of the next one
            blocks = np.arange(-(-g["c_in"] // DEPTH))[:, None] * g["block_pitch"]
            taps = (blocks + (d * g["strip_pitch"] + places).reshape(-1)).reshape(-1)
        return {"taps": taps, "tables": self.configuration(g)}

    def operands(self, weights, g):
        rows = SplitRows(g["tile_height"], _has_patches(g), self.halves)
        return self.packed(weights.form(rows)) | {"bias": weights.flat_bias}

    def gemm_cycles(self, g, machine):
        """Products of registers or their operands, and what each tile and line costs besides."""
        positions, panels = (g["line_block"] - 1) * g["positions"] + g["w_out"], g["panels_per_group"]
        registers, halves = -(-positions // COLUMNS), -(-g["c_out"] // g["tile_height"])
        products = registers * _product_cycles(g, halves, machine)
        patches = _has_patches(g)
        reach = 0 if patches else (g["k_w"] - 1) * g["dilation_w"] // g["stride_w"]
        if not products_hide_operands(halves, reach):
            strips = g["steps"]
            if not patches:
                strips = g["k_d"] * g["k_h"] * min(g["phases"], g["k_w"]) * -(-g["c_in"] // DEPTH)
            products = max(products, fetching_cycles(g, registers, halves, strips, reach))
        lines = g["line_block"] if g["positions"] > 1 else 0
        finished = -(-registers // 2) * TILE + lines * LINE
        return blocks_of(g) * g["groups"] * (products + panels * finished)

    def extra_cycles(self, problem, g, machine):
        """Splitting whole vectors, of strided channels picked out of two."""
        lines = g["line_block"] + g["reach_h"]
        line = COLUMNS * -(-g["positions"] // COLUMNS) if g["positions"] > 1 else 1
        strided = _STRIDED if g["stride_w"] > 1 else 1.0
        return blocks_of(g) * g["groups"] * lines * line * _split_blocks(g) * SPLIT * strided

    def far_cycles(self, g, machine):
        """Weights come again with each block, unless they stay; they are asked for ahead.  Rows of planes are not."""
        x, out = g["n"] * g["in_pixels"] * g["x_pixel"], g["n"] * g["out_pixels"] * g["out_pixel"]
        weights = g["groups"] * g["panels_per_group"] * g["panel_bytes"]
        near = x + out + weights
        if near <= machine.l2 / 2:
            return 0.0
        blocks = ceil(g["n"] * g["d_out"] / g["unit_block"]) * -(-g["line"] // g["line_block"])
        moved = x + out + ASKED_WEIGHTS * cost.fetched_bytes(weights, blocks, machine)
        if x > machine.l2 / 2 and g["positions"] > 1:
            moved += _row_bytes(g)
        return cost.waiting_cycles(near, moved, machine)

    def least_seconds(self, problem, machine):
        """Full registers of pixels, nothing lost; tiles are finished, and pixels split once."""
        g, rates = fields_of(problem), machine.rates
        c_out, steps = g["c_out"], _patch_steps(g)
        registers = -(-c_out // ROWS)
        products = 3 * steps * rates.matrix * (c_out + registers) / (ROWS + 1)
        pixel = (products + registers * TILE / 4) / COLUMNS + SPLIT * g["c_in"] / DEPTH
        return g["n"] * g["out_pixels"] * g["groups"] * pixel / rates.clock


def _by_channels(g: dict[str, int]) -> dict[str, int]:
    """A tap is a distance, and a step 32 channels of one."""
    positions, shared = positions_of_line(g)
    return {
        "line": g["h_out"],
        "reach_h": (g["k_h"] - 1) * g["dilation_h"] // g["stride_h"],
        "phases_h": g["stride_h"] if g["k_h"] > 1 else 1,
        "phases": g["stride_w"] if g["k_w"] > 1 else 1,
        "positions": positions,
        "shared": shared,
        "steps": g["window"] * -(-g["c_in"] // DEPTH),
    }


def _by_patches(g: dict[str, int]) -> dict[str, int]:
    """A step is 32 elements of a patch, and positions are output pixels."""
    return {
        "line": g["h_out"], "reach_h": 0, "phases_h": 1, "phases": 1, "positions": g["w_out"], "shared": 0,
        "steps": _patch_steps(g), "k_block": g["window"] * g["c_in"],
    }  # fmt: skip


def _patch_steps(g: dict[str, int]) -> int:
    return -(-g["window"] * g["c_in"] // DEPTH)


def _has_patches(g: dict[str, int]) -> bool:
    return g["k_block"] > g["c_in"]


def _split_blocks(g: dict[str, int]) -> int:
    """Blocks of 32 channels or elements that are split for each position: again for each slice of the kernel."""
    if _has_patches(g):
        return g["steps"]
    return g["k_d"] * g["phases_h"] * g["phases"] * -(-g["c_in"] // DEPTH)


def _row_bytes(g: dict[str, int]) -> float:
    """Bytes of the cache lines of the rows of planes that blocks read, some of which neighbours read again."""
    rows = g["phases_h"] * (g["line_block"] + g["reach_h"]) * g["k_d"] * g["groups"] * g["c_in"]
    return blocks_of(g) * rows * -(-g["w_in"] * g["itemsize"] // CACHE_LINE) * CACHE_LINE


def _patches_win(patches: dict[str, int], channels: dict[str, int], registers: int, machine: Machine) -> bool:
    """Whether products and splitting take less for a position."""
    by_patches, by_channels = (
        _product_cycles(g, registers, machine) / COLUMNS + SPLIT * _split_blocks(g) for g in (patches, channels)
    )
    return by_patches < by_channels


def _product_cycles(g: dict[str, int], registers: int, machine: Machine) -> float:
    """All products for 16 positions; more where taps are distances, so that each row of a register lies in two cache lines."""
    split = 1.0 if g["window"] == 1 or _has_patches(g) else _SPLIT_LINES
    rows = -(-g["c_out"] // registers)
    return 3 * registers * g["steps"] * machine.rates.matrix * (rows + 1) / (ROWS + 1) * split
