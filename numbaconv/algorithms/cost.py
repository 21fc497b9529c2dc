"""The parts of the cost model that all tile algorithms share.

    seconds = cycles / clock
    cycles  = sum over tiles and panels: K max(m v / FMA, (m + v) / LOADS, LATENCY) + (m + 1) row + m taps tap    the core
            + PARTIAL m, for panels that end inside a vector                                                stores
            + STREAM (rows of A that the core reads for the first time) / far                              from the L2
      (COLLIDING times that where a tile's rows share sets of the L1)
            + MISSED (x passes + out + weights passes) / far                                  from beyond the L2
            + what the algorithm adds (tables, packing)

m rows and v vectors a tile; K = taps x channels of a group, where taps that a tile skips, because they lie in padding, do
not count.  x, out and weights are bytes; the share of them that is missed grows from nothing, where all three take half of
the L2, with what an algorithm keeps there beside them, to all, where they take one and a half; whichever of x and weights does
not fit half of the L2 comes once a block of the other, and a panel larger than the L2 IN_ORDER again for each tile.  Results
that are written past the caches count STREAMED times.  A cycle is the time of `FMA` multiply-adds of a tile with its operands in
the L1.

`least_work` is the same for tiles as few and as high as can be, whose operands come once each: a lower bound for all
algorithms of the family, found once, by which selection leaves out those that cannot win.

`clock`, `row`, `tap`, `far`, `copy` and the rates of transposition are the machine's (`machine.Rates`): measured once, or
assumed.  The constants below are fitted to measurements (`bench.fit`), but for `FMA`, `LOADS` and `LATENCY`, which are those of
current x86 cores, and `SEGMENT`, which is estimated from single problems.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

from numbaconv.algorithms.geometry import fields_of, past_caches, rows_collide, weights_stay
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import MR, VECTOR_BYTES
from numbaconv.machine import Machine, Rates
from numbaconv.problem import ConvProblem

#: Fused multiply-adds and loads a cycle, and cycles from one multiply-add to the next on the same accumulator.
FMA, LOADS, LATENCY = 2.0, 2.0, 4.0
#: Parts of the time of a transfer, at the rate from beyond the L2, that the multiply-adds do not hide: from the L2, from beyond.
STREAM, MISSED = 0.35, 0.75
#: How many times as long rows take to come from the L2 that evict one another from the L1; measured with 8 ways.
COLLIDING = 4.0
#: Bytes of weights, or of tensors on their way into another layout, that find room in the L3 beside what other cores and tenants
#: keep there, assumed, and how much longer those take that do not: measured with 16 to 300 MiB.
L3_SHARE, BEYOND_L3 = 12 << 20, 2.7
#: The part of the wait for results that is left where they are written past the caches; measured with 13 to 87 MB.
STREAMED = 0.5
#: The part of the wait for operands from beyond the L2 that is left where rows are asked for ahead; measured.
FETCHED = 0.6
#: The same where weights are read once and in the order of memory; measured with 33 MB.
IN_ORDER = 0.35
#: Storing one row of a tile that ends inside a vector, under a mask.
PARTIAL = 2.0
#: Less than any tile takes to store a vector besides what `row` says.
STORED = 3.0
#: Starting one patch, one tap of a row of pixels, and one copy of a run of its elements; one entry of a tap table.  The first three
#: are those of a machine that copies so many bytes a cycle inside the L2 (see `copying`).
PATCH, SEGMENT, COPY, ENTRY = 20.0, 40.0, 7.5, 10.0
_COPIED = 15.0
#: One record of a tile list that is made while running.
LISTED = 4.0
#: Padding this much smaller than the image is not looked at: few taps lie in it.
_LITTLE_PADDING = 16


def tile_cycles(k: float, height: float, width: int, taps: float, rates: Rates) -> float:
    """Cycles of one tile of `height` rows and `width` vectors over K elements in so many taps."""
    step = max(height * width / FMA, (height + width) / LOADS, LATENCY)
    return k * step + rates.row * (height + 1) + rates.tap * taps * height


def panels_cycles(k: float, height: float, columns: int, taps: float, itemsize: int, machine: Machine) -> float:
    """Cycles of tiles of `height` rows side by side, whose panels have so many columns together."""
    target = TARGETS[machine.isa]
    lanes = target.vector_bytes // itemsize
    full, rest = divmod(columns, target.vectors * lanes)
    cycles = full * tile_cycles(k, height, target.vectors, taps, machine.rates) if full else 0.0
    return cycles + tile_cycles(k, height, -(-rest // lanes), taps, machine.rates) if rest else cycles


def gemm_cycles(g: dict[str, int], machine: Machine) -> float:
    """Cycles of the GEMM core for a geometry with its cut."""
    height = g["line"] / g["tiles_per_line"]
    k = taps_met(g, height) * g["c_in"]
    # a tap may be a whole kernel row, or all of a packed patch
    cycles = panels_cycles(k, height, g["c_out"], max(k / g["k_block"], 1.0), g["itemsize"], machine)
    cycles += _partial(g, machine) * height
    stream = STREAM * first_reads(g, height) / machine.rates.far_bytes
    # patches that are packed have a pitch that does not
    if g.get("patch_pitch", 0) in (0, g["x_pixel"]) and rows_collide(g, machine, ceil(height)):
        stream *= COLLIDING
    return tile_count(g) * g["groups"] * (cycles + stream)


def _partial(g: dict[str, int], machine: Machine) -> float:
    """What storing a row costs more where panels end inside a vector."""
    return PARTIAL if g["c_out"] % TARGETS[machine.isa].lanes(g["itemsize"]) else 0.0


def least_seconds(problem: ConvProblem, machine: Machine) -> float:
    """The multiply-adds of a direct sum, without those in padding, and stores of whole vectors; tensors from beyond the L2."""
    g, target, rates = fields_of(problem, None, False), TARGETS[machine.isa], machine.rates
    taps = _padded_taps_met(g, 1.0, 1.0, 1.0) if much_padding(g) else g["window"]
    vectors = g["n"] * g["out_pixels"] * g["groups"] * g["c_out"] / target.lanes(g["itemsize"])
    cycles = vectors * (g["c_in"] * taps / FMA + min(rates.row / target.vectors, STORED))
    return (cycles + FETCHED * far_cycles(g, machine, 0, 1, 1, streams=True)) / rates.clock


class LeastWork(NamedTuple):
    """What no cut of a problem for the core goes below.

    Cycles an output pixel and group, for all columns: to `multiply` by one element of K, and to be `stored`; lower bounds of
    `gemm_cycles`, and of `far_cycles` with the weights that are read.
    """

    g: dict[str, int]
    pixels: int
    multiply: float
    stored: float
    core: float
    far: float


@lru_cache(maxsize=16)  # all algorithms ask for the same
def least_work(problem: ConvProblem, machine: Machine) -> LeastWork:
    """The cycles of a tile are convex in its height, so that the fewest tiles take the least; a tap is met by the fewest of them
    where each is one pixel high.
    """
    g, rates = fields_of(problem, None, False), machine.rates
    pixels, panels, k_w = g["n"] * g["out_pixels"], g["panels_per_group"], g["k_w"]
    tiles = -(-pixels // MR)
    stored = panels * rates.row * (1 + 1 / MR)
    multiply = panels_cycles(1.0, MR, g["c_out"], 0.0, g["itemsize"], machine) / MR - stored
    met = _padded_taps_met(g, 1.0, 1.0, 1.0) if much_padding(g) else g["window"]
    pixel = met * g["c_in"] * multiply + panels * (rates.row + rates.tap) + _partial(g, machine)
    times = 1 if weights_stay(g, machine) else panels
    reads = times * g["k_d"] * g["k_h"] * min(pixels * g["stride_w"] + tiles * k_w, pixels * k_w) * g["c_in"]
    core = pixels * pixel + tiles * panels * rates.row + STREAM * reads * g["itemsize"] / rates.far_bytes
    far = far_cycles(g, machine, weights_read(g, g["groups"] * panels), 1, 1, streams=True)
    return LeastWork(g, pixels, multiply, stored, g["groups"] * core, far)


def least_core_seconds(problem: ConvProblem, machine: Machine) -> float:
    """What no algorithm on tiles of the core goes below."""
    least = least_work(problem, machine)
    return (least.core + FETCHED * least.far) / machine.rates.clock


def first_reads(g: dict[str, int], height: float) -> float:
    """Bytes of A that a tile finds in the L2 at best: each once, where tiles go outside, or once a panel."""
    columns = g["k_w"] * min(height * g["stride_w"] / g["k_w"] + 1, height)
    panels = 1 if g["tiles_outside"] else g["panels_per_group"]
    return panels * g["k_d"] * g["k_h"] * columns * g["c_in"] * g["itemsize"]


def tile_count(g: dict[str, int]) -> int:
    """Tiles of all images."""
    return g["n"] * g["lines"] * g["tiles_per_line"]


def far_cycles(
    g: dict[str, int],
    machine: Machine,
    weight_bytes: int,
    input_passes: int,
    weight_passes: float,
    beside: float = 0,
    streams: bool = False,
) -> float:
    """Cycles that wait for what comes from beyond the L2; operands larger than half of it come once a pass.

    `beside` are bytes of the workspace that take room in the L2, too; `streams` tells that results that are
    too large for the caches are written past them, where vectors are aligned.
    """
    x = g["n"] * g["in_pixels"] * g["x_pixel"]
    out = g["n"] * g["out_pixels"] * g["out_pixel"]
    near = x + out + beside + weight_bytes
    if near <= machine.l2 / 2:
        return 0.0
    moved = out * STREAMED if streams and past_caches(out) and g["out_pixel"] % VECTOR_BYTES == 0 else out
    moved += x * (input_passes if x > machine.l2 / 2 else 1)
    if weight_bytes:
        moved += fetched_bytes(weight_bytes, weight_passes, machine)
    return waiting_cycles(near, moved, machine)


def fetched_bytes(weight_bytes: int, passes: float, machine: Machine) -> float:
    """Bytes of weights that come in so many passes, as many as take the same time from the L3."""
    fetched = weight_bytes * (passes if weight_bytes > machine.l2 / 2 else 1)
    return fetched * BEYOND_L3 if weight_bytes > L3_SHARE else fetched


def in_order_cycles(weight_bytes: int, machine: Machine) -> float:
    """Cycles that wait for weights which are read once, in the order of memory."""
    if weight_bytes <= machine.l2 / 2:
        return 0.0
    return IN_ORDER * fetched_bytes(weight_bytes, 1, machine) / machine.rates.far_bytes


def waiting_cycles(near: float, moved: float, machine: Machine) -> float:
    """Cycles that wait for so many bytes that are moved, of operands and a workspace that take `near` bytes of room."""
    beyond = near - machine.l2 / 2
    return MISSED * min(beyond / machine.l2, 1.0) * moved / machine.rates.far_bytes if beyond > 0 else 0.0


def packing_cycles(g: dict[str, int], runs: int, rates: Rates, run: float = COPY) -> float:
    """Cycles to copy the patches of all output pixels, each in `runs` runs of neighbouring elements that cost `run` to start."""
    nbytes = g["window"] * g["c_in"] * g["itemsize"]
    started = copying(rates) * (PATCH + runs * run)
    return g["n"] * g["out_pixels"] * g["groups"] * (started + nbytes / rates.copy_bytes)


def copying(rates: Rates) -> float:
    """How many times as long as where they were measured takes what is loads, stores and addresses: as long as copies do.

    A cycle is that of two multiply-adds of a vector, and machines differ in what else they do meanwhile.
    """
    return _COPIED / rates.copy_bytes


def taps_met(g: dict[str, int], height: float) -> float:
    """Taps of an average tile of `height` neighbouring pixels that do not lie wholly in padding."""
    if not much_padding(g):
        return g["window"]
    # a tile of an image cut as one line runs on into the next row
    rows = 1.0 if g["lines"] > 1 else 1.0 + (height - 1) / g["w_out"]
    return _padded_taps_met(g, 1.0, rows, height)


def weights_read(g: dict[str, int], panels: int) -> float:
    """Bytes of so many packed panels that are read at all: those of taps that do not lie in padding for every output."""
    nbytes = panels * g["panel_bytes"]
    if not much_padding(g):
        return nbytes
    return nbytes * _padded_taps_met(g, g["d_out"], g["h_out"], g["w_out"]) / g["window"]


def much_padding(g: dict[str, int]) -> bool:
    """Whether so many taps lie in padding that they are worth counting."""
    padding = g["pad_front"] + g["pad_top"] + g["pad_left"]
    if not padding or g["padding_mode"]:
        return False
    return _LITTLE_PADDING * padding >= g["d_out"] + g["h_out"] + g["w_out"] - 1


def _padded_taps_met(g: dict[str, int], slices: float, rows: float, columns: float) -> float:
    return slices_met(g, slices) * rows_met(g, rows) * columns_met(g, columns)


def slices_met(g: dict[str, int], span: float = 1.0) -> float:
    """Slices of the kernel that `span` neighbouring outputs meet."""
    if g["k_d"] == g["d_out"] == 1 and not g["pad_front"]:
        return 1.0
    return met(g["d_in"], g["d_out"], g["k_d"], g["stride_d"], g["dilation_d"], g["pad_front"], span)


def rows_met(g: dict[str, int], span: float = 1.0) -> float:
    """Rows of the kernel that `span` neighbouring outputs meet."""
    if g["k_h"] == 1 and not g["pad_top"] and (g["h_out"] - 1) * g["stride_h"] < g["h_in"]:
        return 1.0
    return met(g["h_in"], g["h_out"], g["k_h"], g["stride_h"], g["dilation_h"], g["pad_top"], span)


def columns_met(g: dict[str, int], span: float = 1.0) -> float:
    """Columns of the kernel that `span` neighbouring outputs meet."""
    if g["k_w"] == 1 and not g["pad_left"] and (g["w_out"] - 1) * g["stride_w"] < g["w_in"]:
        return 1.0
    return met(g["w_in"], g["w_out"], g["k_w"], g["stride_w"], g["dilation_w"], g["pad_left"], span)


@lru_cache(maxsize=256)
def met(size: int, out: int, kernel: int, stride: int, dilation: int, before: int, span: float) -> float:
    """Taps of one axis that an average stretch of `span` outputs meets inside of `size` elements."""
    met = 0.0
    for first in range(-before, kernel * dilation - before, dilation):
        # outputs from whose places this tap reaches beyond either end
        after, ahead = out - 1 - (size - 1 - first) // stride, -(first // stride)
        inside = out - (after if after > 0 else 0) - (ahead if ahead > 0 else 0)
        if inside > 0:
            met += (inside + span - 1) / out if inside + span - 1 <= out else 1.0
    return met
