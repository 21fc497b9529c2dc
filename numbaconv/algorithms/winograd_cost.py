"""What Winograd takes: products, transforms, and the wait for weights.

    cycles = positions x (tiles of the core, of one tap a slice, + calls CALL)
           + tiles x (slices x (rounds TILE + vectors of channels x (operations / FMA + MOVED positions ...)))     in and out
           + blocks x positions x what weights from the L2 (FROM_L2) take longer than the products of the first row of tiles
           + WAITED (`cost.far_cycles`), and what a block writes and reads beyond the L2
           + blocks x WRITTEN x vectors of kernels, where these are transformed on the way

Operations and what moving takes are those of the matrices (`winograd_form`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify
from math import inf

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.winograd_blocks import Blocks, Grid, columns_together, dilations, slots
from numbaconv.algorithms.winograd_form import Form, kind_of, least_form
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import MR, VECTOR_BYTES
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem

#: Cycles to call the core, and to find the pixels of a tile; measured, as all that follow are.
_CALL, TILE = 30.0, 88.0
#: How much longer it takes where the phases of a stride make long rows of few tiles.
_STRIDED = 1.05
#: How much longer transforms take where vectors of channels cross cache lines.
_APART = 2.0
#: The part of the weights' transfer from beyond the L2 that nothing hides.
_WAITED = 0.46
#: Bytes a cycle from the L2, at least, and for each that comes from beyond it.
_FROM_L2, _NEARER = 9.0, 0.9
#: How much longer than bytes that stream what a block takes beyond half of the L2 is on its way, both ways together; estimated from
#: 512 channels at 28 x 28 and an L2 of 1 MiB.
_SPILLED = 8.0
#: The part of the transfer from memory that nothing hides, of transformed kernels that no cache keeps.
_FROM_MEMORY = 0.3
#: Cycles to write a vector of one position of kernels to the L2, which hide the arithmetic and that taps come from memory.
_WRITTEN = 7.0


def moving(machine: Machine, groups: int = 1) -> float:
    """How many times as long as where they were measured transforms take, which are loads and stores above all.

    Those of groups wait for parts of pixels, which takes as long on either machine that they were measured on.
    """
    return cost.copying(machine.rates) if groups == 1 else 1.0


@dataclass(slots=True)
class Common:
    """What all sizes of F of one problem have in common.

    Slices of a volume, and channels, that are summed up; panels of a group, bytes of its columns for one element of K, and cycles
    that those of all K take from the L2; bytes of the tensors; how many panels of products are made together at most, and vectors
    of channels that are transformed then, in and out; how much longer transforms take where channels lie `apart` from vectors, and
    on this machine, and all of it with strides.
    """

    slices: float
    k: int
    panels: cost.Panels
    column_bytes: int
    fetched: float
    tensors: int
    columns: int
    vectors: tuple[int, int]
    apart: float
    moving: float
    strided: float


def common(g: dict[str, int], machine: Machine) -> Common:
    """Those of the geometry of a `Grid`."""
    phases, groups, size, rates = g["stride_h"] * g["stride_w"], g["groups"], g["itemsize"], machine.rates
    slices, k, width, nearer = _slices_summed(g), phases * g["c_in"], g["c_out"] * size, _NEARER * rates.far_bytes
    # whole vectors, of which the last panel may have one only
    column_bytes = -(-width // VECTOR_BYTES) * VECTOR_BYTES
    fetched = slices * k * column_bytes / (nearer if nearer > _FROM_L2 else _FROM_L2)
    # the channels of a group need not begin with a vector
    apart = _APART if groups > 1 and (width % VECTOR_BYTES or g["c_in"] * size % VECTOR_BYTES) else 1.0
    strided = _STRIDED if phases > 1 else 1.0
    panels, columns = cost.panels_of(g["c_out"], size, machine.isa), columns_together(g)
    vectors = _vectors(g, k, columns, machine)
    tensors = g["n"] * (g["in_pixels"] * g["x_pixel"] + g["out_pixels"] * g["out_pixel"])
    slow = moving(machine, groups)
    return Common(slices, k, panels, column_bytes, fetched, tensors, columns, vectors, apart, slow, strided)


def near_cycles(grid: Grid, blocks: Blocks, common: Common, machine: Machine) -> float:
    """The core's tiles of one tap, position by position, a call each; finding the pixels of each tile; and transforms."""
    g, form, tiles, column_block, kernel_block = grid.g, grid.form, grid.tiles, blocks.column_block, blocks.kernel_block
    slices, k, panels, fetched, apart = common.slices, common.k, common.panels, common.fetched, common.apart
    lines, groups, d_out = blocks.blocks * blocks.chunks, g["groups"], g["d_out"]
    row_tiles = lines * -(-blocks.rows * blocks.slices // MR)
    height = tiles * d_out / row_tiles if row_tiles else 0.0
    all_panels = groups * g["panels_per_group"]
    column_blocks = -(-all_panels // column_block)
    calls = lines * (groups if groups > column_blocks else column_blocks)
    if kernel_block:
        # calls that the channels of a panel take
        pieces = k // g["c_in"] * -(-g["c_in"] // kernel_block)
        calls, products = lines * all_panels * pieces, lines * all_panels * panels.width * g["k_d"] * k * _WRITTEN
        row = pieces * cost.panels_cycles(slices * k / pieces, height, panels, slices, machine.rates)
    else:
        products, row = 0.0, cost.panels_cycles(slices * k, height, panels, slices, machine.rates)
    products += row_tiles * groups * row
    if fetched > row:
        # a block's first row of tiles waits for weights from the L2, where it is too low to hide them
        products += lines * groups * (fetched - row)
    vectors_in, vectors_out = common.vectors
    # groups are transformed block by block, a whole pixel only once
    found = TILE * column_blocks
    moved = d_out * (found + vectors_out * form.output_cycles * apart)
    moved += _slices_transformed(g, blocks) * ((found if groups > 1 else TILE) + vectors_in * form.input_cycles * apart)
    return (form.positions * (products + calls * _CALL) + tiles * moved * common.moving) * common.strided


def far_cycles(grid: Grid, blocks: Blocks, common: Common, machine: Machine) -> float:
    """Blocks of tiles are outside: weights that do not fit the L2 come once each, partly while others are multiplied.

    What a block takes beyond half of the L2 is written and read beyond it.
    """
    g, k, tensors, kernel_block = grid.g, common.k, common.tensors, blocks.kernel_block
    positions, lines, rate = grid.form.positions, blocks.blocks * blocks.chunks, machine.rates.far_bytes
    nbytes = g["groups"] * (g["window"] * g["c_in"] if kernel_block else g["k_d"] * k * positions) * common.column_bytes
    block = positions * (blocks.data_position + blocks.product_position)
    cycles, near, half = 0.0, tensors + block + nbytes, machine.l2 // 2
    if near > half:
        moved = tensors + cost.fetched_bytes(nbytes, lines, machine)
        cycles = _WAITED * cost.waiting_cycles(near, moved, machine)
    if block > half:
        cycles += lines * -(-k // blocks.k_block) * _SPILLED * (block - half) / rate
    if not machine.weights_kept and not kernel_block:
        cycles += _FROM_MEMORY * cost.BEYOND_L3 * nbytes / rate
    return cycles


def least_seconds(problem: ConvProblem, machine: Machine) -> float:
    """Products and transforms of as many tiles as outputs fill, each as few as of any size, of all sizes."""
    g, rates, least = fields_of(problem), machine.rates, least_form(kind_of(problem))
    if not least:
        return inf
    multiplied, stored, transformed_in, transformed_out, tiles = least
    lanes, groups, c_in, n = TARGETS[machine.isa].lanes(g["itemsize"]), g["groups"], g["c_in"], g["n"]
    vectors_out, summed = groups * g["c_out"] / lanes, _slices_summed(g)
    phases = g["stride_h"] * g["stride_w"]
    pixel = (
        multiplied * summed * phases * c_in * vectors_out / cost.FMA
        + stored * groups * g["panels_per_group"] * (rates.row + rates.tap * summed)
        + moving(machine, groups)
        * (transformed_in * phases * groups * c_in / lanes + transformed_out * vectors_out + tiles * 2 * TILE)
    )
    # a slice of the output takes at least one of the input
    slices_moved = g["d_in"] if g["d_in"] < g["d_out"] else g["d_out"]
    return n * slices_moved * g["h_out"] * g["w_out"] * pixel / rates.clock


def least_cycles(
    g: dict[str, int], forms: Sequence[Form], common: Common, machine: Machine, transformed: bool
) -> list[tuple[float, int, Form, int]]:
    """Lower bounds of these forms as a heap, each with its m and the bytes of its weights, for which it does not wait
    (`least_wait`): register tiles as high as can be, and one block of tiles; for kernels that are all `transformed` before.
    """
    k, rates, groups, count = common.k, machine.rates, g["groups"], g["panels_per_group"]
    every, slow = groups * common.strided, common.moving * common.strided
    # of a position and a tile: products, and what comes once for all that is summed up; the wait for weights
    multiplied = every * common.slices * (common.panels.multiply * k + rates.tap * count)
    stored, fetching = every * count * rates.row * (1 + 1 / MR), every * common.fetched
    weight_bytes = groups * common.column_bytes * (g["k_d"] * k if transformed else g["window"] * g["c_in"])
    columns, (vectors_in, vectors_out) = common.columns, common.vectors
    # a single group may be multiplied by all columns at once
    found = slow * 2 * TILE * (-(-groups * count // columns) if groups > 1 else 1)
    inwards, outwards = slow * common.apart * vectors_in, slow * common.apart * vectors_out
    # a slice of the output takes at least one of the input
    flat = g["d_out"] == 1
    images = g["n"] if flat else g["n"] * min(g["d_in"], g["d_out"])
    (dilation_h, dilation_w), h_out, w_out = dilations(g), g["h_out"], g["w_out"]
    bounds = []
    for form in forms:
        positions, row, wait = form.positions, multiplied + stored, fetching
        if form.pieces > 1:
            row, wait = form.pieces * multiplied + stored, form.pieces * fetching
        tiles_h, tiles_w = -(-h_out // (dilation_h * form.m_h)), -(-w_out // (dilation_w * form.m_w))
        tiles = images * dilation_h * tiles_h * dilation_w * tiles_w
        moved = found + inwards * form.input_cycles + outwards * form.output_cycles
        cycles, first = tiles * (positions * row + moved), row * (tiles if flat and tiles < MR else MR)
        if wait > first > 0:
            cycles += positions * (wait - first)
        nbytes = weight_bytes * positions * form.pieces if transformed else weight_bytes
        bounds.append((cycles, form.m, form, nbytes))
    heapify(bounds)
    return bounds


def least_wait(weight_bytes: int, common: Common, machine: Machine) -> float:
    """A lower bound of what comes from beyond the L2."""
    near = common.tensors + weight_bytes
    if 2 * near <= machine.l2:
        return 0.0
    moved = common.tensors + cost.fetched_bytes(weight_bytes, 1, machine)
    return _WAITED * cost.waiting_cycles(near, moved, machine)


def _slices_summed(g: dict[str, int]) -> float:
    return g["k_d"] if g["k_d"] == 1 or g["padding_mode"] else cost.slices_met(g)


def _slices_transformed(g: dict[str, int], blocks: Blocks) -> int:
    """Input slices that are transformed for a tile, those that neighbouring blocks do not share more than once."""
    if g["d_in"] == blocks.chunks == 1:
        return 1
    if blocks.keeps and blocks.chunks > 1:
        return min(slots(g, g["d_out"]), g["d_in"])
    return min(blocks.under, g["d_in"]) * blocks.chunks


def _vectors(g: dict[str, int], k: int, column_block: int, machine: Machine) -> tuple[int, int]:
    """Vectors of channels that are transformed, of the input and of the output; those of a block of columns fill whole ones."""
    lanes, groups, c_out = TARGETS[machine.isa].vector_bytes // g["itemsize"], g["groups"], g["c_out"]
    if groups == 1:
        return -(-k // lanes), -(-c_out // lanes)
    # groups in a block that holds some of them in whole, or the one that it is a part of
    together = max(1, column_block // g["panels_per_group"])
    vectors_out = -(-groups * c_out // lanes) if together > 1 else groups * -(-c_out // lanes)
    return -(-groups // together) * -(-together * g["c_in"] // lanes), vectors_out
