"""Indirect convolution: the addresses of all taps of all tiles are looked up in a buffer that the plan keeps.

Wins on small images, where padding touches nearly every tile.  Dukhan, "The Indirect Convolution Algorithm" (2019).
"""

from __future__ import annotations

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import (
    column_blocks,
    image_lines,
    reaches_far,
    record,
    row_lines,
    table_bytes,
    tile_block,
    tile_list_bytes,
)
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.loops.gemm import MR, TAP, TILE
from numbaconv.loops.tables import CORNERS, build_indirection
from numbaconv.machine import Machine

#: The largest indirection buffer that a plan may keep.
BUFFER_LIMIT = 64 << 20


class Indirect(TiledAlgorithm):
    """One tap table for each tile of one image, built once a shape."""

    name = "indirect"
    floors = (cost.least_seconds, cost.least_core_seconds)
    plan_limit = BUFFER_LIMIT

    def cut(self, g, machine):
        lines = row_lines(g) if reaches_far(g) else image_lines(g)
        tiles = lines["lines"] * lines["tiles_per_line"]
        fields = lines | {
            "tile_block": tile_block(g, lines, machine, tables=False),
            **column_blocks(g, machine),
        }
        return Cut(fields, 0, tile_list_bytes(tiles) + tiles * table_bytes(g))

    def tables(self, g, cut):
        return indirection(g)

    def least_extra(self, least, machine):
        """The same of the fewest tiles."""
        return _reading_cycles(least.g, least.pixels / MR, machine)

    def extra_cycles(self, problem, g, machine):
        """Reading the buffer from the L2, once a tile and group."""
        return _reading_cycles(g, cost.tile_count(g), machine)


def _reading_cycles(g: dict[str, int], tiles: float, machine: Machine) -> float:
    return tiles * g["groups"] * table_bytes(g) / machine.rates.copy_bytes


def indirection(g: dict[str, int], interior: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The tile list of one image and its tap tables; tiles that touch no padding share the table `interior`, if there is one."""
    tiles = g["lines"] * g["tiles_per_line"]
    arrays = {
        "tiles": np.empty((tiles, TILE), np.int64),
        "tables": np.empty((tiles, g["window"], TAP), np.int64),
    }
    if interior is not None:
        arrays["taps"] = interior
    corners = np.empty(CORNERS, np.uint8)
    conv = record(g | {name: array.ctypes.data for name, array in arrays.items()})
    build_indirection(conv.ctypes.data, arrays["tiles"].ctypes.data, arrays["tables"].ctypes.data, corners.ctypes.data)
    return arrays
