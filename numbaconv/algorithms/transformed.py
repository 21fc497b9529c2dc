"""What algorithms share that transform tiles of the input, multiply position by position and transform back: how tiles are cut
into blocks whose transformed pixels and products stay in the L2, and what that costs.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from numbaconv.algorithms import winograd_cost
from numbaconv.algorithms.base import Cost
from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.winograd_blocks import WORKSPACE_LIMIT, Blocks, Grid, TileForm
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.winograd import HEADER, winograd_share
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem

#: Where all weights take less than this part of the L2, they stay there from block to block.
_WEIGHT_PART = 2


#: What differs between problems, in stated errors.
_SAFETY = 1.25


def rounding(problem: ConvProblem, k: float, amplification: float) -> float:
    """Root mean square error of sums of `k` products that transforms amplify, for independent operands around zero.

        SAFETY eps / 2 (0.7 + 0.3 sqrt(k)) amplification

    The two constants are fitted to k from 4 to 1024.
    """
    return _SAFETY * problem.eps / 2 * (0.7 + 0.3 * sqrt(k)) * amplification


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

    def grid(self, g: dict[str, int]) -> Grid:
        """The tiles of a problem's geometry."""
        raise NotImplementedError

    def blocks(self, grid: Grid, machine: Machine) -> Blocks:
        """How they are cut; pure."""
        raise NotImplementedError

    def tile_fields(self, grid: Grid) -> dict[str, int]:
        """Fields of the `CONV` record: outputs (`m`) and positions (`n`) of a tile along both axes."""
        raise NotImplementedError

    def cut(self, g, machine):
        grid = self.grid(g)
        blocks, g, form = self.blocks(grid, machine), grid.g, grid.form
        k, panels = g["stride_h"] * g["stride_w"] * g["c_in"], g["groups"] * g["panels_per_group"]
        panel_bytes = g["k_d"] * k * PANEL_ROW
        fields = {**grid.changed, **self.tile_fields(grid)} | {
            "tiles_h": grid.tiles_h,
            "tiles_w": grid.tiles_w,
            "lines": blocks.blocks * blocks.chunks,
            "chunks": blocks.chunks,
            "block_slices": blocks.slices,
            "keeps": int(blocks.keeps),
            "tile_block": blocks.rows,
            "column_block": blocks.column_block,
            "k_block": blocks.k_block,
            "panel_bytes": panel_bytes,
            "kernel_block": blocks.kernel_block,
            # weights that stay in the L2 need no prefetching, so that tiles may span two panels
            "tiles_outside": int(panels * form.positions * panel_bytes < machine.l2 // _WEIGHT_PART),
            "data_offset": blocks.data_offset(grid),
            "data_pitch": blocks.data_pitch,
            "data_position": blocks.data_position,
            "product_pitch": blocks.product_pitch,
            "product_position": blocks.product_position,
        }
        if blocks.kernel_block:
            # products of a panel follow its transform
            fields |= {
                "panel_bytes": g["window"] * g["c_in"] * PANEL_ROW, "tiles_outside": 0,
                "kernel_position": blocks.kernel_position, "kernel_offset": blocks.kernel_offset(grid),
            }  # fmt: skip
        return Cut(fields, blocks.workspace_bytes(grid), _table_bytes(form))

    def shares(self, g):
        """Blocks of tiles, panels of all groups."""
        return g["lines"], g["groups"] * g["panels_per_group"]

    def zeros(self, g):
        """What stands for pixels outside of the input and of the residual, for taps that a phase or a piece lacks, and for the
        core's bias.
        """
        return max(g["data_pitch"], g["product_pitch"], g["kernel_block"] * PANEL_ROW)

    def estimate(self, problem, machine):
        """Products, transforms, and what comes from beyond the L2: no field of a record is needed for them."""
        grid = self.grid(fields_of(problem))
        blocks, common = self.blocks(grid, machine), winograd_cost.common(grid.g, machine)
        cycles = self.products(grid, blocks, common, machine)
        return self.cost_of(grid, blocks, cycles + winograd_cost.far_cycles(grid, blocks, common, machine), machine)

    def cost_of(self, grid: Grid, blocks: Blocks, cycles: float, machine: Machine) -> Cost:
        """What a grid costs that takes so many cycles in these blocks."""
        workspace = self.head_bytes + blocks.workspace_bytes(grid)
        return Cost(cycles / machine.rates.clock, workspace, _table_bytes(grid.form))

    def near_cycles(self, problem, machine):
        """What the same would take if all operands were in the L2."""
        grid = self.grid(fields_of(problem))
        return self.products(grid, self.blocks(grid, machine), winograd_cost.common(grid.g, machine), machine)

    def shared_cycles(self, problem, g, machine):
        return self.near_cycles(problem, machine)

    def products(self, grid: Grid, blocks: Blocks, common: winograd_cost.Common, machine: Machine) -> float:
        """Cycles of products and transforms."""
        return winograd_cost.near_cycles(grid, blocks, common, machine)


def _table_bytes(form: TileForm) -> int:
    """Bytes of the tables that a plan keeps, `pixel_tables` and the positions of a block."""
    return 8 * (form.positions + 2 * form.outputs)


def _offsets(rows: int, row_step: int, columns: int, column_step: int) -> np.ndarray:
    """Distances in pixels of a grid from its first pixel, row by row."""
    grid = np.arange(rows)[:, None] * row_step + np.arange(columns) * column_step
    return np.ascontiguousarray(grid.reshape(-1), np.int64)
