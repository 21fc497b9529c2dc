"""The parts of the cost model that all tile algorithms share.

    seconds = cycles / CLOCK
    cycles  = sum over tiles and panels: max(K m v / FMA, K LATENCY) + START + TAP taps
            + bytes of weights / L3_BYTES, once, or once a block of tiles where they do not fit half of the L2
            + what the algorithm adds (tables, packing)

m rows and v vectors a tile, K = taps x channels of a group.  All constants are assumed, in cycles of a current core; only
ratios between algorithms matter here.
"""

from __future__ import annotations

from numbaconv.codegen.target import TARGETS
from numbaconv.machine import Machine

CLOCK = 3e9
#: Fused multiply-adds a cycle, and cycles from one to the next on the same accumulator.
FMA, LATENCY = 2.0, 4.0
#: Starting a tile and storing it; starting a tap of a tile.
START, TAP = 120.0, 15.0
#: Bytes a cycle from the L3, and copied from the L2.
L3_BYTES, COPY_BYTES = 10.0, 16.0
#: Starting one copy of a run of channels; one entry of a tap table.
COPY, ENTRY = 12.0, 3.0


def tile_cycles(k: int, height: float, width: int, taps: int) -> float:
    """Cycles of one tile of `height` rows and `width` vectors over K elements in so many taps."""
    return max(k * height * width / FMA, k * LATENCY) + START + TAP * taps


def gemm_cycles(g: dict[str, int], machine: Machine) -> float:
    """Cycles of the GEMM core for a geometry with its cut."""
    target = TARGETS[machine.isa]
    lanes = target.lanes(g["itemsize"])
    height = g["line"] / g["tiles_per_line"]
    k = g["k_h"] * g["k_w"] * g["c_in"]
    full, rest = divmod(g["c_out"], target.vectors * lanes)
    panels = [(full, target.vectors), (1 if rest else 0, -(-rest // lanes))]
    cycles = sum(count * tile_cycles(k, height, width, -(-k // g["k_block"])) for count, width in panels)
    return tile_count(g) * g["groups"] * cycles


def tile_count(g: dict[str, int]) -> int:
    """Tiles of all images."""
    return g["n"] * g["lines"] * g["tiles_per_line"]


def weight_cycles(g: dict[str, int], machine: Machine, blocks: int) -> float:
    """Cycles to bring the weights from beyond the L2."""
    nbytes = g["groups"] * g["panels_per_group"] * g["panel_bytes"]
    return nbytes / L3_BYTES * (blocks if nbytes > machine.l2 / 2 else 1)


def packing_cycles(g: dict[str, int], runs: int) -> float:
    """Cycles to copy the patches of all output pixels, each in `runs` runs of neighbouring elements."""
    nbytes = g["k_h"] * g["k_w"] * g["c_in"] * g["itemsize"]
    return g["n"] * g["h_out"] * g["w_out"] * g["groups"] * (nbytes / COPY_BYTES + runs * COPY)
