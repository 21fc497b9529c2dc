"""The channels-first side of im2col: weights are the rows of the GEMM, panels of packed pixels its columns.

Wins where transposing the tensors would cost more than packing: on images, and on 1x1 kernels above all.
"""

from __future__ import annotations

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import WORKSPACE_LIMIT, affine_tap, fields_of, tile_list_bytes
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.codegen.picked import STEPS
from numbaconv.loops.gemm import MR, NV, PAIR_TILES, PANEL_ROW, TILE, VECTOR_BYTES
from numbaconv.loops.planes import BESIDE, planes_share
from numbaconv.machine import Machine
from numbaconv.memo import said_last
from numbaconv.problem import ConvProblem

#: Part of the L2 for the panels of a block, and for weights to be walked inside, where these are more than a few tiles: the core
#: takes panels that few tiles share for ones that come from beyond the L2, but these were just packed.
_PANEL_PART, _WEIGHT_PART = 4, 4


class Planes(TiledAlgorithm):
    """Panels of pixels are the unit of work; the tiles of all output channels are one list."""

    name = "im2col"
    share = planes_share
    reads_planes = True
    layouts = ("channels_first",)

    def native(self, problem):
        """Channels-first, where one panel fits the workspace."""
        return _fits(problem)

    def cut(self, g, machine):
        k = g["window"] * g["c_in"] + 1
        pixels, width = g["out_pixels"], PANEL_ROW // g["itemsize"]
        panels = -(-pixels // width)
        pitch = row_pitch(k * g["itemsize"])
        room = min(WORKSPACE_LIMIT, machine.l2 // _PANEL_PART)
        block = max(1, min(panels, room // (k * PANEL_ROW)))
        tiles = -(-g["c_out"] // MR)
        outside = tiles < PAIR_TILES or g["c_out"] * pitch > machine.l2 // _WEIGHT_PART
        fields = {
            "lines": 1, "line": pixels, "tiles_per_line": panels, "tile_block": block, "column_block": tiles,
            "k_block": k, "patch_pitch": pitch, "tiles_outside": int(outside),
        }  # fmt: skip
        return Cut(fields, block * k * PANEL_ROW, tile_list_bytes(fields["column_block"]) + 8 * (1 + MR))

    def tables(self, g, cut):
        taps = affine_tap(g["patch_pitch"])
        tiles = g["column_block"]
        starts = np.arange(tiles + 1) * g["c_out"] // tiles
        tile_list = np.empty((tiles, TILE), np.int64)
        tile_list[:, 0], tile_list[:, 1] = starts[:-1], np.diff(starts)
        tile_list[:, 2] = starts[:-1] * g["patch_pitch"]
        tile_list[:, 3], tile_list[:, 4] = taps.ctypes.data, 1
        return {"tiles": tile_list, "taps": taps}

    def operands(self, weights, g):
        return {"panels": weights.rows}

    def shares(self, g):
        """Panels of all images and groups, tiles of a group's output channels."""
        return g["n"] * g["groups"] * g["tiles_per_line"], g["column_block"]

    def zeros(self, g):
        """The bias rides in the weights; what the core adds is zero, a block wide."""
        return g["tile_block"] * PANEL_ROW

    def gemm_cycles(self, g, machine):
        """Rows are output channels here, columns pixels."""
        tiles = g["column_block"]
        panels = cost.panels_of(g["line"], g["itemsize"], machine.isa)
        cycles = cost.panels_cycles(g["k_block"], g["c_out"] / tiles, panels, 1.0, machine.rates)
        return g["n"] * g["groups"] * tiles * cycles

    def least_seconds(self, problem, machine):
        """Multiplications of whole panels, and packing them."""
        g = fields_of(problem)
        panels = g["n"] * g["groups"] * g["out_pixels"] * g["itemsize"] / PANEL_ROW
        k = g["window"] * g["c_in"]
        cycles = k * NV / cost.FMA * g["c_out"] + _packing_cycles(g, k, machine)
        return panels * cycles / machine.rates.clock

    def far_cycles(self, g, machine):
        """Every tap reads x once, and every block of panels the weights."""
        blocks = g["n"] * g["groups"] * -(-g["tiles_per_line"] // g["tile_block"])
        aligned = g["out_pixels"] * g["itemsize"] % VECTOR_BYTES == 0
        return cost.far_cycles(g, machine, g["groups"] * g["c_out"] * g["patch_pitch"], 1, blocks, streams=aligned)

    def extra_cycles(self, problem, g, machine):
        """Packing: a run for each row of the image that a panel crosses, for each tap and channel."""
        return g["n"] * g["groups"] * g["tiles_per_line"] * _packing_cycles(g, g["k_block"], machine)


@said_last  # asked for again and again while a problem is ranked
def _fits(problem: ConvProblem) -> bool:
    """Whether it is channels-first, and one panel fits the workspace."""
    k = problem.taps * problem.c_in // problem.groups + 1
    return problem.layout == "channels_first" and k * PANEL_ROW <= WORKSPACE_LIMIT


def _packing_cycles(g: dict[str, int], k: int, machine: Machine) -> float:
    """Cycles to pack a panel of so many rows."""
    copied = PANEL_ROW / machine.rates.copy_bytes
    slow = cost.copying(machine.rates)
    if g["window"] == g["stride_w"] == 1:
        return k * (cost.COPY * slow + copied)
    pixels = min(PANEL_ROW // g["itemsize"], g["out_pixels"])
    runs = min(1 + pixels / g["w_out"], g["d_out"] * g["h_out"])
    # neighbours are picked by shuffles, pixels further apart one by one
    picked = pixels if g["stride_w"] > STEPS else 0
    reach = (g["w_out"] - 1) * g["stride_w"] + (g["k_w"] - 1) * g["dilation_w"]
    left = -(-g["pad_left"] // g["stride_w"])
    right = -(-max(reach - g["pad_left"] - g["w_in"] + 1, 0) // g["stride_w"])
    if max(left, right) * g["c_in"] > BESIDE:
        # runs that meet the sides are packed tap by tap
        by_tap = min(1.0, 2 * pixels / g["w_out"])
        calls = runs * (by_tap * g["window"] + (1 - by_tap) * g["k_d"])
    else:
        # pixels at the sides one by one: the taps inside of each line of the kernel, and those beside
        calls = runs * g["k_d"] + pixels / g["w_out"] * (left + right) * g["k_d"] * g["k_h"]
    return k * ((runs * cost.COPY + picked) * slow + copied) + calls * cost.SEGMENT * slow
