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
that are written past the caches count STREAMED times, those that tiles ask for ASKED times.  A cycle is the time of `FMA`
multiply-adds of a tile with its operands in the L1.

`least_work` is the same for tiles as few and as high as can be, whose operands come once each: a lower bound for all
algorithms of the family, found once, by which selection leaves out those that cannot win.

`clock`, `row`, `tap`, `far`, `copy` and the rates of transposition are the machine's (`machine.Rates`): measured once, or
assumed.  The constants below are fitted to measurements (`bench.fit`), but for `FMA`, `LOADS` and `LATENCY`, which are those of
current x86 cores, and `SEGMENT`, which is estimated from single problems.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from numbaconv.algorithms.geometry import fields_of, results, rows_collide, weights_stay
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import MR, VECTOR_BYTES
from numbaconv.machine import Machine, Rates
from numbaconv.memo import said_last, said_last_of_two
from numbaconv.problem import ConvProblem

#: Estimates that differ by no more than this part are as good as equal: selection looks at no other algorithm for less.
TIE = 0.04
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
#: The same where tiles ask for their lines before they sum up; measured with 4 to 6 MB.
ASKED = 0.6
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


@dataclass(slots=True)  # as fast to read as can be
class Panels:
    """So many panels that are full, vectors of one of them and of another that is not, if there is one; whether that ends inside a
    vector; and cycles of one element of K an output pixel, for all columns, in tiles as high as can be.
    """

    full: int
    width: int
    rest: int
    partial: bool
    multiply: float


@lru_cache(maxsize=1024)
def panels_of(columns: int, itemsize: int, isa: str) -> Panels:
    """The panels of so many columns together."""
    target = TARGETS[isa]
    lanes = target.lanes(itemsize)
    full, rest = divmod(columns, target.vectors * lanes)
    vectors = -(-rest // lanes)
    multiply = (full * _step(MR, target.vectors) + (_step(MR, vectors) if rest else 0.0)) / MR
    return Panels(full, target.vectors, vectors, columns % lanes > 0, multiply)


def panels_cycles(k: float, height: float, panels: Panels, taps: float, rates: Rates) -> float:
    """Cycles of tiles of `height` rows side by side, over K elements in so many taps."""
    stored = rates.row * (height + 1) + rates.tap * taps * height
    cycles = panels.full * (k * _step(height, panels.width) + stored) if panels.full else 0.0
    return cycles + k * _step(height, panels.rest) + stored if panels.rest else cycles


def tile_cycles(k: float, height: float, width: int, taps: float, rates: Rates) -> float:
    """Cycles of one tile of `height` rows and `width` vectors over K elements in so many taps."""
    return k * _step(height, width) + rates.row * (height + 1) + rates.tap * taps * height


def _step(height: float, width: int) -> float:
    """Cycles of a tile of `height` rows and `width` vectors for one element of K."""
    # conditions take a fraction of the time that a call of `max` does
    multiplied, loaded = height * width / FMA, (height + width) / LOADS
    step = multiplied if multiplied > loaded else loaded
    return step if step > LATENCY else LATENCY


def gemm_cycles(g: dict[str, int], machine: Machine) -> float:
    """Cycles of the GEMM core for a geometry with its cut."""
    height = g["line"] / g["tiles_per_line"]
    k = taps_met(g, height) * g["c_in"]
    # a tap may be a whole kernel row, or all of a packed patch
    taps, panels = k / g["k_block"], panels_of(g["c_out"], g["itemsize"], machine.isa)
    cycles = panels_cycles(k, height, panels, taps if taps > 1.0 else 1.0, machine.rates)
    if panels.partial:
        # rows that end inside a vector are stored under a mask
        cycles += PARTIAL * height
    stream = STREAM * first_reads(g, height) / machine.rates.far_bytes
    # patches that are packed have a pitch that does not
    if g.get("patch_pitch", 0) in (0, g["x_pixel"]) and rows_collide(g, machine, ceil(height)):
        stream *= COLLIDING
    return tile_count(g) * g["groups"] * (cycles + stream)


def least_seconds(problem: ConvProblem, machine: Machine) -> float:
    """The multiply-adds of a direct sum, without those in padding, and stores of whole vectors.

    Tiles of one group have either its channels as lanes, or its pixels, of which a panel takes a wait for its own sums.
    """
    g, target, rates = fields_of(problem), TARGETS[machine.isa], machine.rates
    lanes, c_out, stored = target.vector_bytes // g["itemsize"], g["c_out"], rates.row / target.vectors
    vectors, k = c_out / lanes, g["c_in"] * _taps_met(problem)
    multiplied = vectors / FMA
    if g["groups"] > 1:
        multiplied = max(multiplied, min(-(-c_out // lanes) / FMA, LATENCY / target.vectors / lanes))
    pixel = k * multiplied + vectors * (stored if stored < STORED else STORED)
    return g["n"] * g["out_pixels"] * g["groups"] * pixel / rates.clock


@dataclass(slots=True)
class LeastWork:
    """What no cut of a problem for the core goes below: output pixels, and lower bounds of `gemm_cycles`, and of `far_cycles` with
    the weights that are read.
    """

    g: dict[str, int]
    pixels: int
    core: float
    far: float


@said_last_of_two  # all algorithms ask for the same
def least_work(problem: ConvProblem, machine: Machine) -> LeastWork:
    """The cycles of a tile are convex in its height, so that the fewest tiles take the least; a tap is met by the fewest of them
    where each is one pixel high.
    """
    g, rates = fields_of(problem), machine.rates
    pixels, count, c_in, k_w = g["n"] * g["out_pixels"], g["panels_per_group"], g["c_in"], g["k_w"]
    panels, tiles = panels_of(g["c_out"], g["itemsize"], machine.isa), -(-pixels // MR)
    pixel = _taps_met(problem) * c_in * panels.multiply + count * (rates.row + rates.tap)
    if panels.partial:
        pixel += PARTIAL
    columns = pixels * g["stride_w"] + tiles * k_w
    reads = g["k_d"] * g["k_h"] * c_in * (columns if columns < pixels * k_w else pixels * k_w)
    if not weights_stay(g, machine):
        reads *= count
    core = pixels * pixel + tiles * count * rates.row + STREAM * reads * g["itemsize"] / rates.far_bytes
    far = far_cycles(g, machine, weights_read(g, g["groups"] * count), 1, 1, streams=True)
    return LeastWork(g, pixels, g["groups"] * core, far)


def least_core_seconds(problem: ConvProblem, machine: Machine) -> float:
    """What no algorithm on tiles of the core goes below."""
    least = least_work(problem, machine)
    return (least.core + FETCHED * least.far) / machine.rates.clock


def first_reads(g: dict[str, int], height: float) -> float:
    """Bytes of A that a tile finds in the L2 at best: each once, where tiles go outside, or once a panel."""
    columns = height * g["stride_w"] / g["k_w"] + 1
    columns = g["k_w"] * (columns if columns < height else height)
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
    too large for the caches are written past them, where vectors are aligned, and others beyond the L2 are asked for.
    """
    n, half = g["n"], machine.l2 / 2
    x, out = n * g["in_pixels"] * g["x_pixel"], n * g["out_pixels"] * g["out_pixel"]
    near = x + out + beside + weight_bytes
    if near <= half:
        return 0.0
    moved = x * input_passes if x > half else x
    moved += out * _waiting_part(g, machine) if streams else out
    if weight_bytes:
        moved += fetched_bytes(weight_bytes, weight_passes, machine)
    return waiting_cycles(near, moved, machine)


def _waiting_part(g: dict[str, int], machine: Machine) -> float:
    """The part of the wait for results that the core leaves."""
    written = results(g, machine)
    if written["streamed"]:
        return STREAMED if g["out_pixel"] % VECTOR_BYTES == 0 else 1.0
    return ASKED if written["far_results"] else 1.0


def fetched_bytes(weight_bytes: int, passes: float, machine: Machine) -> float:
    """Bytes of weights that come in so many passes, as many as take the same time from the L3."""
    if 2 * weight_bytes <= machine.l2:
        return weight_bytes
    return weight_bytes * passes * (BEYOND_L3 if weight_bytes > L3_SHARE else 1.0)


def in_order_cycles(weight_bytes: int, machine: Machine) -> float:
    """Cycles that wait for weights which are read once, in the order of memory."""
    if 2 * weight_bytes <= machine.l2:
        return 0.0
    return IN_ORDER * fetched_bytes(weight_bytes, 1, machine) / machine.rates.far_bytes


def waiting_cycles(near: float, moved: float, machine: Machine) -> float:
    """Cycles that wait for so many bytes that are moved, of operands and a workspace that take `near` bytes of room."""
    missed = near / machine.l2 - 0.5
    if missed <= 0.0:
        return 0.0
    return MISSED * (missed if missed < 1.0 else 1.0) * moved / machine.rates.far_bytes


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


@said_last  # whole families ask for it
def _taps_met(problem: ConvProblem) -> float:
    """Taps of an average pixel that do not lie in padding."""
    g = fields_of(problem)
    return _padded_taps_met(g, 1.0, 1.0, 1.0) if much_padding(g) else g["window"]


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
    padding = g["pad_top"] + g["pad_left"] + g["pad_front"]
    if not padding or g["padding_mode"]:
        return False
    return _LITTLE_PADDING * padding >= g["h_out"] + g["w_out"] + g["d_out"] - 1


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
