"""The parts of the cost model that all tile algorithms share.

    seconds = cycles / clock
    cycles  = sum over tiles and panels: K max(m v / FMA, (m + v) / LOADS, LATENCY) + (m + 1) row + m taps tap    the core
            + PARTIAL m, for panels that end inside a vector                                                stores
            + STREAM (rows of A that the core reads for the first time) / far                              from the L2
            + MISSED (x passes + out + weights passes) / far                                  from beyond the L2
            + what the algorithm adds (tables, packing)

m rows and v vectors a tile; K = taps x channels of a group, where taps that a tile skips, because they lie in padding, do
not count.  x, out and weights are bytes; the share of them that is missed grows from nothing, where all three take half of
the L2, to all, where they take one and a half; whichever of x and weights does not fit half of the L2 comes once a block
of the other.  A cycle is the time of `FMA` multiply-adds of a tile with its operands in the L1.

`clock`, `row`, `tap`, `far`, `copy` and the rates of transposition are the machine's (`machine.Rates`): measured once, or
assumed.  The constants below are fitted to measurements (`bench.fit`), but for `FMA`, `LOADS` and `LATENCY`, which are those of
current x86 cores, and `PARTIAL` and `SEGMENT`, which are estimated from single problems.
"""

from __future__ import annotations

from functools import lru_cache

from numbaconv.codegen.target import TARGETS
from numbaconv.machine import Machine, Rates

#: Fused multiply-adds and loads a cycle, and cycles from one multiply-add to the next on the same accumulator.
FMA, LOADS, LATENCY = 2.0, 2.0, 4.0
#: Parts of the time of a transfer, at the rate from beyond the L2, that the multiply-adds do not hide: from the L2, from beyond.
STREAM, MISSED = 0.35, 0.75
#: Bytes of weights that find room in the L3 beside what other cores and tenants keep there, assumed, and how much longer
#: those take that do not: measured with 16 to 300 MiB.
L3_SHARE, BEYOND_L3 = 12 << 20, 2.7
#: Storing one row of a tile that ends inside a vector, which takes a loop.
PARTIAL = 12.0
#: Starting one patch, one tap of a row of pixels, and one copy of a run of its elements; one entry of a tap table.
PATCH, SEGMENT, COPY, ENTRY = 20.0, 60.0, 7.5, 4.5
#: One record of a tile list that is made while running.
LISTED = 55.0
#: Padding this much smaller than the image is not looked at: few taps lie in it.
_LITTLE_PADDING = 16


def tile_cycles(k: float, height: float, width: int, taps: float, rates: Rates) -> float:
    """Cycles of one tile of `height` rows and `width` vectors over K elements in so many taps."""
    step = max(height * width / FMA, (height + width) / LOADS, LATENCY)
    return k * step + rates.row * (height + 1) + rates.tap * taps * height


def gemm_cycles(g: dict[str, int], machine: Machine) -> float:
    """Cycles of the GEMM core for a geometry with its cut."""
    target = TARGETS[machine.isa]
    lanes = target.lanes(g["itemsize"])
    height = g["line"] / g["tiles_per_line"]
    met = taps_met(g, height)
    k = met * g["c_in"]
    # a tap may be a whole kernel row, or all of a packed patch
    taps = max(k / g["k_block"], 1.0)
    full, rest = divmod(g["c_out"], target.vectors * lanes)
    cycles = full * tile_cycles(k, height, target.vectors, taps, machine.rates)
    if rest:
        cycles += tile_cycles(k, height, -(-rest // lanes), taps, machine.rates)
        if rest % lanes:
            cycles += PARTIAL * height
    return tile_count(g) * g["groups"] * (cycles + STREAM * first_reads(g, height) / machine.rates.far_bytes)


def first_reads(g: dict[str, int], height: float) -> float:
    """Bytes of A that a tile finds in the L2 at best: each once, where tiles go outside, or once a panel."""
    columns = g["k_w"] * min(height * g["stride_w"] / g["k_w"] + 1, height)
    panels = 1 if g["tiles_outside"] else g["panels_per_group"]
    return panels * g["k_d"] * g["k_h"] * columns * g["c_in"] * g["itemsize"]


def tile_count(g: dict[str, int]) -> int:
    """Tiles of all images."""
    return g["n"] * g["lines"] * g["tiles_per_line"]


def far_cycles(g: dict[str, int], machine: Machine, weight_bytes: int, input_passes: int, weight_passes: int) -> float:
    """Cycles that wait for what comes from beyond the L2; operands larger than half of it come once a pass."""
    x = g["n"] * g["in_pixels"] * g["x_pixel"]
    out = g["n"] * g["out_pixels"] * g["out_pixel"]
    half = machine.l2 / 2
    missed = min((x + out + weight_bytes - half) / machine.l2, 1.0)
    if missed <= 0:
        return 0.0
    moved = out + x * (input_passes if x > half else 1)
    fetched = weight_bytes * (weight_passes if weight_bytes > half else 1)
    if weight_bytes > L3_SHARE:
        fetched *= BEYOND_L3
    return MISSED * missed * (moved + fetched) / machine.rates.far_bytes


def packing_cycles(g: dict[str, int], runs: int, rates: Rates, run: float = COPY) -> float:
    """Cycles to copy the patches of all output pixels, each in `runs` runs of neighbouring elements that cost `run` to start."""
    nbytes = g["window"] * g["c_in"] * g["itemsize"]
    return g["n"] * g["out_pixels"] * g["groups"] * (PATCH + runs * run + nbytes / rates.copy_bytes)


def taps_met(g: dict[str, int], height: float) -> float:
    """Taps of an average tile of `height` neighbouring pixels that do not lie wholly in padding."""
    padding = g["pad_front"] + g["pad_top"] + g["pad_left"]
    if g["padding_mode"] or _LITTLE_PADDING * padding < g["d_out"] + g["h_out"] + g["w_out"] - 1:
        return g["window"]
    # a tile of an image cut as one line runs on into the next row
    rows = 1.0 if g["lines"] > 1 else 1.0 + (height - 1) / g["w_out"]
    return (
        met(g["d_in"], g["d_out"], g["k_d"], g["stride_d"], g["dilation_d"], g["pad_front"], 1.0)
        * met(g["h_in"], g["h_out"], g["k_h"], g["stride_h"], g["dilation_h"], g["pad_top"], rows)
        * met(g["w_in"], g["w_out"], g["k_w"], g["stride_w"], g["dilation_w"], g["pad_left"], height)
    )


@lru_cache(maxsize=256)
def met(size: int, out: int, kernel: int, stride: int, dilation: int, before: int, span: float) -> float:
    """Taps of one axis that an average stretch of `span` outputs meets inside of `size` elements."""
    met = 0.0
    for first in range(-before, kernel * dilation - before, dilation):
        inside = min((size - 1 - first) // stride, out - 1) - max(-(first // stride), 0) + 1
        if inside > 0:
            met += min((inside + span - 1) / out, 1.0)
    return met
