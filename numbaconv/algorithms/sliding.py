"""What the algorithms on depthwise tiles share: lanes are output channels, and runs of taps slide over neighbouring pixels.

    cycles = lines x tiles across x panels: (START + runs RUN_START + max(K m v / FMA, K LATENCY))
           + what comes from beyond the L2 (`cost.far_cycles`)
           + what the algorithm adds (expanding the input)

K = taps that meet the input at all x channels of a group, m pixels and v vectors a tile.
"""

from __future__ import annotations

from math import gcd

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.tiled import TiledAlgorithm
from numbaconv.codegen.expand import COPY, TOGETHER, permutes
from numbaconv.codegen.sliding import RUN
from numbaconv.codegen.target import TARGETS, target
from numbaconv.loops.gemm import NV, PANEL_ROW, core_address
from numbaconv.loops.grouped import grouped_share
from numbaconv.loops.sliding import PIXELS, SLIDE_BYTES, sliding_core
from numbaconv.machine import Machine
from numbaconv.workspace import ALIGNMENT

#: Starting a tile and storing it; starting a run of taps.
START, RUN_START = 120.0, 12.0
#: Columns from position to position beyond which at most one of them meets any image.
_FAR = 1 << 40
#: The part of the L2 that the lines under a block may take, in all slices of the kernel.
_BLOCK_PART = 2


class SlidingAlgorithm(TiledAlgorithm):
    """To the loops all groups are one: `c_out` columns, and `c_in` channels that each of them reads."""

    head_bytes = SLIDE_BYTES
    padding_modes = False
    share = grouped_share

    def core(self, dtype):
        return core_address(sliding_core, dtype)

    def operands(self, weights, g):
        panels, bias = weights.columns_apart
        return {"panels": panels, "bias": bias}

    def tables(self, g, cut):
        return {"tables": expansions(g, target().isa)}

    def shares(self, g):
        return g["n"] * g["d_out"] * g["h_out"], g["panels_per_group"]

    def zeros(self, g):
        return g["panels_per_group"] * PANEL_ROW

    def far_cycles(self, g, machine):
        """Images follow one another: weights come once each."""
        return cost.far_cycles(g, machine, cost.weights_read(g, g["panels_per_group"]), 1, g["n"])

    def least_seconds(self, problem, machine):
        """Tiles as wide as they can be, whose runs begin with every tap that a pixel meets in the first column of the kernel."""
        least = cost.least_work(problem, machine)
        g, target = least.g, TARGETS[machine.isa]
        vectors = g["groups"] * g["c_out"] * g["itemsize"] / target.vector_bytes
        k = cost.slices_met(g) * cost.rows_met(g) * cost.columns_met(g) * g["c_in"]
        pixel = (START + RUN_START * k / g["k_w"]) / target.vectors / target.pixels + k / cost.FMA
        cycles = g["n"] * g["out_pixels"] * vectors * pixel + cost.far_cycles(g, machine, 0, 1, 1)
        return (cycles + self.least_extra(least, machine)) / machine.rates.clock

    def gemm_cycles(self, g, machine):
        target = TARGETS[machine.isa]
        vectors = -(-g["c_out"] * g["itemsize"] // target.vector_bytes)
        tiles = -(-g["w_out"] // (g["out_step"] * target.pixels)) * g["out_step"] if g["w_out"] else 0
        height = g["w_out"] / max(tiles, 1)
        rows = cost.slices_met(g) * cost.rows_met(g)
        taps = min(g["k_w"], cost.columns_met(g) + max(height - 1, 0))
        k = rows * taps * g["c_in"]
        runs = rows * g["c_in"] * g["phases"]
        panels = [(vectors // target.vectors, target.vectors), (vectors % target.vectors, 1)]
        cycles = sum(
            count * (START + runs * RUN_START + max(k * height * width / cost.FMA, k * cost.LATENCY))
            for count, width in panels
        )
        return g["n"] * g["d_out"] * g["h_out"] * tiles * cycles


def sliding_fields(g: dict[str, int], machine: Machine, tiles: int) -> dict[str, int]:
    """Fields of the `CONV` record that take stride and dilation of the columns apart; see `loops.sliding`.

    Up to `tiles` tiles of a signal follow one another in a stretch; of an image, whose lines do, it has one.
    """
    common = gcd(g["stride_w"], g["dilation_w"])
    hop = g["stride_w"] // common
    columns = g["groups"] * g["c_out"]
    return {
        "groups": 1,
        "group_out": g["c_out"],
        "c_out": columns,
        "panels_per_group": -(-columns * g["itemsize"] // PANEL_ROW),
        "panel_bytes": g["window"] * g["c_in"] * PANEL_ROW,
        "hop": hop,
        "phases": min(hop, g["k_w"]),
        "step": min(hop * g["dilation_w"], _FAR),
        "stretch": PIXELS * (tiles if _is_signal(g) else 1),
        "out_step": g["dilation_w"] // common,
        "lines": g["d_out"] * g["h_out"],
        "line": g["w_out"],
        "tiles_per_line": 1,
        "line_block": line_block(g, machine),
    }


def _is_signal(g: dict[str, int]) -> bool:
    """Whether all outputs of an image are one row that one row of the input makes."""
    return g["d_out"] * g["h_out"] * g["k_d"] * g["k_h"] == 1 and g["pad_front"] == g["pad_top"] == 0


def line_block(g: dict[str, int], machine: Machine) -> int:
    """Lines of a block that is walked slice by slice and column by column.

    What the kernel's slices have under it stays in the L2 meanwhile, so that each input slice comes from beyond it once, and its
    rows lie in so few pages that walking down misses no entry of the TLB.  Strips of images would repeat rows from block to block.
    """
    if g["d_out"] == g["d_in"] == 1 and g["c_in"] > 1:
        return max(g["h_out"], 1)
    rows = machine.l2 // _BLOCK_PART // (min(g["k_d"], g["d_in"]) * g["w_in"] * g["x_pixel"])
    lines = max(1, (rows - (g["k_h"] - 1) * g["dilation_h"] - 1) // g["stride_h"] + 1)
    return -(-g["h_out"] // -(-g["h_out"] // lines))


def strip_fields(g: dict[str, int], machine: Machine, tiles: int, room: int) -> tuple[dict[str, int], int]:
    """Fields of the `CONV` record for strips under `tiles` tiles, of `room` bytes if they can, and all their bytes."""
    parts = -(-tiles // g["out_step"])
    outputs = parts * g["stretch"] * g["out_step"]
    width = (outputs - 1) * g["stride_w"] + (g["k_w"] - 1) * g["dilation_w"] + 1
    reach = (g["stretch"] - 1) * g["out_step"] * g["stride_w"]
    row = min(width, g["w_in"] + 2 * reach) * g["k_d"] * g["c_in"] * PANEL_ROW
    under = (g["k_h"] - 1) * g["dilation_h"] + 1

    def lines(nbytes):
        return max(1, min((nbytes // row - under) // g["stride_h"] + 1, g["h_out"]))

    def rows(count):
        return min(g["h_in"], (count - 1) * g["stride_h"] + under)

    walk = lines(machine.l1 // 2)
    if walk > 1 or under * tiles * run_bytes(g) > room:
        strip = lines(room)
        fields = {"strip_lines": strip, "walk_lines": walk, "ring": rows(strip), "turns": 0}
    else:
        # a ring of rows stays in the L1, while new rows of a long strip would come from the L2 before they are written
        fields = {"strip_lines": max(g["h_out"], 1), "walk_lines": 1, "ring": under, "turns": under}
    nbytes = max(fields["turns"], 1) * tiles * run_bytes(g) + min(fields["ring"], g["h_in"]) * row + ALIGNMENT
    return fields | {"tile_block": tiles}, nbytes


def run_bytes(g: dict[str, int]) -> int:
    """Bytes of the run records of one tile."""
    return g["k_d"] * g["k_h"] * g["c_in"] * g["phases"] * 8 * RUN


def expansions(g: dict[str, int], isa: str) -> np.ndarray:
    """How each vector of output channels finds the channels of its groups: `EXPANSION` records with indices."""
    size, width = g["itemsize"], PANEL_ROW // NV // g["itemsize"]
    group_in, group_out = g["c_in"], g["group_out"]
    channels = np.arange(g["panels_per_group"] * NV * width).reshape(-1, width)
    # lanes beyond the last channel read what it reads
    start = np.minimum(channels, g["c_out"] - 1) // group_out * group_in
    first = start[:, :1]
    spread = start[:, -1] - start[:, 0]
    together = np.where(spread + TOGETHER <= 2 * width, TOGETHER, spread < 2 * width) * permutes(isa, size)
    if group_in == group_out == 1:
        together = np.full_like(together, COPY)
    head = np.stack([first[:, 0] * size, g["c_out"] // group_out * group_in - first[:, 0], together], 1)
    index = (start - first).astype(f"i{size}")
    return np.concatenate([head.astype(np.int64).view(np.uint8), index.view(np.uint8)], 1)
