"""What algorithms share that transform tiles of the input, multiply position by position and transform back: how tiles are cut
into blocks whose transformed pixels and products stay in the L2, and what that costs.
"""

from __future__ import annotations

from math import sqrt
from typing import Protocol

import numpy as np

from numbaconv.algorithms import winograd_cost
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.algorithms.winograd_blocks import (
    FAR_COLUMNS,
    FAR_ROOM,
    L2_PART,
    L2_PART_ON_THE_WAY,
    ROWS,
    SPLIT,
    WORKSPACE_LIMIT,
    columns_together,
    cut_slices,
    in_large_blocks,
    kernel_block,
    odd_lines,
    split_bytes,
)
from numbaconv.loops.gemm import MR, PANEL_ROW, TAP, TILE, VECTOR_BYTES
from numbaconv.loops.winograd import HEADER, winograd_share
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded

#: Where all weights take less than this part of the L2, they stay there from block to block.
_WEIGHT_PART = 2


class TileForm(Protocol):
    """What the cost of transforms follows from: products of a tile, and cycles a vector of channels takes in and out."""

    positions: int
    input_cycles: float
    output_cycles: float


#: What differs between problems, in stated errors.
_SAFETY = 1.25


def rounding(problem: ConvProblem, k: float, amplification: float) -> float:
    """Root mean square error of sums of `k` products that transforms amplify, for independent operands around zero.

        SAFETY eps / 2 (0.7 + 0.3 sqrt(k)) amplification

    The two constants are fitted to k from 4 to 1024.
    """
    return _SAFETY * float(np.finfo(problem.np_dtype).eps) / 2 * (0.7 + 0.3 * sqrt(k)) * amplification


def pixel_tables(g: dict[str, int]) -> dict[str, np.ndarray]:
    """Distances of the pixels of a tile from its first one, by field of the `CONV` record; `g` holds the sizes of F, too."""
    step_h, step_w = g["stride_h"] * g["dilation_h"], g["stride_w"] * g["dilation_w"]
    outputs = _offsets(g["m_h"], g["dilation_h"] * g["line_step"], g["m_w"], g["dilation_w"] * g["column_step"])
    return {
        "input_table": _offsets(g["n_h"], step_h * g["w_in"], g["n_w"], step_w) * g["x_pixel"],
        "output_table": outputs * g["out_pixel"],
        "residual_table": outputs * g["residual_pixel"],
    }


class Transformed(TiledAlgorithm):
    """Base of the algorithms whose loops are those of `loops.winograd`."""

    share = winograd_share
    head_bytes = HEADER
    #: a NaN or infinity reaches all outputs of the tiles that read it
    local = False
    workspace_limit = WORKSPACE_LIMIT
    #: whether blocks are larger than the L2 where kernels come from memory for each of them
    may_be_far = True
    #: the part of the L2 that a block aims at
    l2_part = L2_PART

    def tiles(self, g: dict[str, int]) -> dict[str, int]:
        """Outputs (`m`) and positions (`n`) of a tile and the number of tiles, along both axes."""
        raise NotImplementedError

    def form_of(self, g: dict[str, int]) -> TileForm:
        """What the cost of a tile follows from."""
        raise NotImplementedError

    def blocks(self, g: dict[str, int], machine: Machine, transformed: bool = True) -> Cut:
        """Cut tiles into blocks, for kernels that are `transformed` already or on the way; pure."""
        fields = self.tiles(g)
        if fields["tile_step"]:
            g = g | fields
        positions = fields["n_h"] * fields["n_w"]
        k = g["stride_h"] * g["stride_w"] * g["c_in"]
        panels = g["groups"] * g["panels_per_group"]
        column_block, k_block = columns_together(g), k
        far = transformed and self.may_be_far and in_large_blocks(g, positions, k)
        if far:
            column_block = min(FAR_COLUMNS, panels)
        elif positions * split_bytes(g, k) > SPLIT:
            # all columns at once, so that each block of channels is transformed once
            column_block = panels
            most = max(1, SPLIT // (positions * ROWS * g["itemsize"]))
            k_block = -(-k // -(-k // most))
        # a block may begin within one group and end within another
        groups = min(g["groups"], (column_block + g["panels_per_group"] - 2) // g["panels_per_group"] + 1)
        channels = k_block if g["groups"] == 1 else groups * g["c_in"]
        data_pitch = row_pitch(channels * g["itemsize"])
        product_pitch = row_pitch(column_block * PANEL_ROW)
        total = g["n"] * fields["tiles_h"] * fields["tiles_w"]
        room = FAR_ROOM if far else int((self.l2_part if transformed else L2_PART_ON_THE_WAY) * machine.l2)
        chunks, slices, slots, rows = cut_slices(g, room // positions, data_pitch, product_pitch)
        if far:
            # threads share columns
            blocks = -(-total // rows)
        else:
            blocks = -(-total // max(-(-ROWS // slices), rows if slices > 1 else rows // MR * MR))
            # an even number is easy to share
            blocks += blocks > 1 and blocks % 2
        rows = -(-total // max(blocks, 1))
        tile_list = (g["k_d"] * TAP + slices * -(-rows // MR) * TILE + positions + fields["m_h"] * fields["m_w"]) * 8
        head = HEADER + tile_list + column_block * PANEL_ROW
        fields |= {
            "lines": blocks * chunks,
            "chunks": chunks,
            "block_slices": slices,
            # a block that transforms all channels at once leaves its slices to the next one
            "keeps": int(g["groups"] == 1 and k_block == k),
            "tile_block": rows,
            "column_block": column_block,
            "k_block": k_block,
            "panel_bytes": g["k_d"] * k * PANEL_ROW,
            "kernel_block": 0,
            # weights that stay in the L2 need no prefetching, so that tiles may span two panels
            "tiles_outside": int(panels * positions * g["k_d"] * k * PANEL_ROW < machine.l2 // _WEIGHT_PART),
            "data_offset": rounded(head),
            "data_pitch": data_pitch,
            "data_position": odd_lines(slots * rows * data_pitch),
            "product_pitch": product_pitch,
            "product_position": odd_lines(slices * rows * product_pitch),
        }
        end = fields["data_offset"] + positions * (fields["data_position"] + fields["product_position"]) + VECTOR_BYTES
        if not transformed:
            block = kernel_block(g["k_d"], positions, min(k_block, g["c_in"]), machine.l2)
            fields |= block | {"panel_bytes": g["window"] * g["c_in"] * PANEL_ROW, "kernel_offset": rounded(end)}
            # products of a panel follow its transform
            fields["tiles_outside"] = 0
            end = rounded(end) + positions * fields["kernel_position"]
        return Cut(fields, end - HEADER, 8 * (positions + 2 * fields["m_h"] * fields["m_w"]))

    def shares(self, g):
        """Blocks of tiles, panels of all groups."""
        return g["lines"], g["groups"] * g["panels_per_group"]

    def zeros(self, g):
        """What stands for pixels outside of the input and of the residual, for taps that a phase or a piece lacks, and for the
        core's bias.
        """
        return max(g["data_pitch"], g["product_pitch"], g["kernel_block"] * PANEL_ROW)

    def gemm_cycles(self, g, machine):
        """Products and transforms."""
        return winograd_cost.gemm_cycles(g, self.form_of(g), machine)

    def far_cycles(self, g, machine):
        """Weights, and what a block takes beyond half of the L2."""
        return winograd_cost.far_cycles(g, self.form_of(g), machine)

    def extra_cycles(self, problem, g, machine):
        """Nothing."""
        return 0.0


def _offsets(rows: int, row_step: int, columns: int, column_step: int) -> np.ndarray:
    """Distances in pixels of a grid from its first pixel, row by row."""
    grid = np.arange(rows)[:, None] * row_step + np.arange(columns) * column_step
    return np.ascontiguousarray(grid.reshape(-1), np.int64)
