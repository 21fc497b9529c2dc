"""What Winograd takes: products, transforms, and the wait for weights.

    cycles = positions x (tiles of the core, of one tap a slice, + calls CALL)
           + tiles x (slices x (rounds TILE + vectors of channels x (operations / FMA + MOVED positions ...)))     in and out
           + blocks x positions x what weights from the L2 (FROM_L2) take longer than the products of the first row of tiles
           + WAITED (`cost.far_cycles`), and what a block writes and reads beyond the L2
           + blocks x WRITTEN x vectors of kernels, where these are transformed on the way

Operations and what moving takes are those of the matrices (`winograd_form`).
"""

from __future__ import annotations

from functools import lru_cache
from math import inf

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.winograd_blocks import (
    FAR_COLUMNS,
    FAR_ROOM,
    L2_PART,
    L2_PART_ON_THE_WAY,
    ROWS,
    SPLIT,
    columns_together,
    dilations,
    far_row_bytes,
    in_large_blocks,
    slots,
    split_bytes,
)
from numbaconv.algorithms.winograd_form import Form, known_forms, least_form
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import MR, PANEL_ROW, VECTOR_BYTES
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
#: The part of the largest block that blocks of even size and number are at the least.
_EVEN = 0.4


def moving(machine: Machine, groups: int = 1) -> float:
    """How many times as long as where they were measured transforms take, which are loads and stores above all.

    Those of groups wait for parts of pixels, which takes as long on either machine that they were measured on.
    """
    return cost.copying(machine.rates) if groups == 1 else 1.0


def gemm_cycles(g: dict[str, int], sizes: Form, machine: Machine) -> float:
    """The core's tiles of one tap, position by position, a call each; finding the pixels of each tile; and transforms."""
    tiles = g["n"] * g["tiles_h"] * g["tiles_w"]
    row_tiles = g["lines"] * -(-g["tile_block"] * g["block_slices"] // MR)
    height = tiles * g["d_out"] / max(row_tiles, 1)
    column_blocks = -(-g["groups"] * g["panels_per_group"] // g["column_block"])
    products = row_tiles * g["groups"] * _products(g, height, machine)
    products += g["lines"] * g["groups"] * _fetching(g, height, machine)
    calls = g["lines"] * max(g["groups"], column_blocks)
    if g["kernel_block"]:
        panels = g["groups"] * g["panels_per_group"]
        calls = g["lines"] * panels * _pieces(g)
        vectors = panels * TARGETS[machine.isa].vectors * g["k_d"] * g["stride_h"] * g["stride_w"] * g["c_in"]
        products += g["lines"] * vectors * _WRITTEN
    # groups are transformed block by block, a whole pixel only once
    rounds = column_blocks if g["groups"] > 1 else 1, column_blocks
    slices = _slices_transformed(g), g["d_out"]
    each = zip(slices, rounds, _vectors(g, g["column_block"], machine), (sizes.input_cycles, sizes.output_cycles))
    apart = _apart(g)
    moved = sum(count * (TILE * times + vectors * one * apart) for count, times, vectors, one in each)
    return (sizes.positions * (products + calls * _CALL) + tiles * moved * moving(machine, g["groups"])) * _strided(g)


def far_cycles(g: dict[str, int], sizes: Form, machine: Machine) -> float:
    """Blocks of tiles are outside: weights that do not fit the L2 come once each, partly while others are multiplied.

    What a block takes beyond half of the L2 is written and read beyond it.
    """
    copies = 1 if g["kernel_block"] else sizes.positions
    nbytes = copies * g["groups"] * g["panel_bytes"] * _column_bytes(g) // PANEL_ROW
    block = sizes.positions * (g["data_position"] + g["product_position"])
    rounds = g["lines"] * -(-g["stride_h"] * g["stride_w"] * g["c_in"] // g["k_block"])
    spilled = rounds * _SPILLED * max(block - machine.l2 // 2, 0) / machine.rates.far_bytes
    cycles = spilled + _WAITED * cost.far_cycles(g, machine, nbytes, 1, g["lines"], block)
    if not machine.weights_kept and not g["kernel_block"]:
        cycles += _FROM_MEMORY * cost.BEYOND_L3 * nbytes / machine.rates.far_bytes
    return cycles


def least_seconds(problem: ConvProblem, machine: Machine) -> float:
    """Products and transforms of as many tiles as outputs fill, each as few as of any size; tensors from beyond the L2."""
    g, rates = fields_of(problem, None, False), machine.rates
    least = least_form((g["k_h"], g["k_w"]), (g["stride_h"], g["stride_w"]))
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
    tensors = n * (g["in_pixels"] * g["x_pixel"] + g["out_pixels"] * g["out_pixel"])
    far = _WAITED * cost.waiting_cycles(tensors, tensors, machine)
    return (n * min(g["d_in"], g["d_out"]) * g["h_out"] * g["w_out"] * pixel + far) / rates.clock


def least_of_all(problem: ConvProblem, machine: Machine) -> float:
    """The same as near as `least_cycles` comes."""
    if problem.c_in == problem.groups > 1:
        return least_seconds(problem, machine)
    return min(least_cycles(problem, machine).values(), default=inf) / machine.rates.clock


@lru_cache(maxsize=16)
def least_cycles(problem: ConvProblem, machine: Machine) -> dict[int, float]:
    """A lower bound of the cycles by m; all sizes share most of it."""
    work = cost.least_work(problem, machine)
    g, summed, groups, stored = work.g, _slices_summed(work.g), work.g["groups"], work.stored
    kernel, stride = (g["k_h"], g["k_w"]), (g["stride_h"], g["stride_w"])
    phases, panels = stride[0] * stride[1], g["panels_per_group"]
    k, columns = phases * g["c_in"], columns_together(g)
    multiplied = summed * (work.multiply * k + machine.rates.tap * panels)
    columns_read = _column_bytes(g)
    weight_bytes = groups * g["panel_bytes"] * columns_read // PANEL_ROW * phases // (kernel[0] * kernel[1])
    column_blocks, tile_bytes = -(-groups * panels // columns), k * g["itemsize"] + columns * PANEL_ROW
    most, fetching = split_bytes(g, k), summed * k * columns_read / _from_l2(machine)
    room, tensors = L2_PART * machine.l2, g["n"] * (g["in_pixels"] * g["x_pixel"] + g["out_pixels"] * g["out_pixel"])
    h_out, w_out, (dilation_h, dilation_w), flat = g["h_out"], g["w_out"], dilations(g), g["d_out"] == 1
    # a slice of the output takes at least one of the input
    images = g["n"] * min(g["d_in"], g["d_out"])
    vectors_in, vectors_out = _vectors(g, columns, machine)
    apart, strided, slow = _apart(g), _strided(g), moving(machine, groups)
    if not machine.weights_kept:
        # blocks may be larger, and kernels may come as they are
        room = L2_PART_ON_THE_WAY * machine.l2
        weight_bytes = groups * g["panel_bytes"] * columns_read // PANEL_ROW
    found = {}
    for m, m_h, m_w, positions, pieces, input_cycles, output_cycles in known_forms(kernel, stride):
        across = -(-w_out // (dilation_w * m_w))
        tiles = images * dilation_h * -(-h_out // (dilation_h * m_h)) * dilation_w * across
        rounds, row_bytes = column_blocks, positions * tile_bytes
        far_row = far_row_bytes(g, positions, k)
        large = pieces == 1 and in_large_blocks(g, positions, k)
        rows = FAR_ROOM / far_row if large else 0.0
        if large and machine.weights_kept:
            rounds, row_bytes = -(-panels // FAR_COLUMNS), far_row
        else:
            if positions * most > SPLIT:
                rounds, row_bytes = 1, SPLIT / ROWS
            rows = max(rows, ROWS, room / row_bytes)
        blocks, beside = min(tiles, 1), 0
        if tiles and flat and (pieces == 1 or across == 1):
            blocks = max(1.0, tiles / rows)
            beside = _EVEN * row_bytes * tiles / blocks if machine.weights_kept else 0
        moved = apart * (vectors_in * input_cycles + vectors_out * output_cycles)
        moved += TILE * (rounds + (rounds if groups > 1 else 1))
        row, first_rows = pieces * multiplied + stored, min(tiles, MR) if flat else MR
        products = groups * (tiles * row + blocks * max(pieces * fetching - row * first_rows, 0.0))
        products += blocks * max(groups, rounds) * _CALL
        fetched = positions * pieces * weight_bytes if machine.weights_kept else weight_bytes
        passed = cost.fetched_bytes(fetched, blocks, machine)
        waited = cost.waiting_cycles(tensors + beside + fetched, tensors + passed, machine)
        found[m] = (positions * products + tiles * moved * slow) * strided + _WAITED * waited
    return found


def _products(g: dict[str, int], height: float, machine: Machine) -> float:
    """Cycles of the core's tiles of `height` rows at one position."""
    taps, pieces = _slices_summed(g), _pieces(g)
    k = taps * g["stride_h"] * g["stride_w"] * g["c_in"] / pieces
    return pieces * cost.panels_cycles(k, height, g["c_out"], taps, g["itemsize"], machine)


def _pieces(g: dict[str, int]) -> int:
    """Calls that the channels of a panel take, whose kernels are transformed on the way."""
    return g["stride_h"] * g["stride_w"] * -(-g["c_in"] // g["kernel_block"]) if g["kernel_block"] else 1


def _fetching(g: dict[str, int], height: float, machine: Machine) -> float:
    """Cycles that a block's first row of tiles at one position waits for weights from the L2, where it is too low to hide them."""
    k = _slices_summed(g) * g["stride_h"] * g["stride_w"] * g["c_in"]
    fetched = k * _column_bytes(g) / _from_l2(machine)
    return max(fetched - _products(g, height, machine), 0.0)


def _column_bytes(g: dict[str, int]) -> int:
    """Bytes that are read of a group's columns for one element of K: whole vectors, of which the last panel may have one only."""
    return -(-g["c_out"] * g["itemsize"] // VECTOR_BYTES) * VECTOR_BYTES


def _from_l2(machine: Machine) -> float:
    return max(_FROM_L2, _NEARER * machine.rates.far_bytes)


def _slices_summed(g: dict[str, int]) -> float:
    return g["k_d"] if g["padding_mode"] or g["k_d"] == 1 else cost.slices_met(g)


def _slices_transformed(g: dict[str, int]) -> int:
    """Input slices that are transformed for a tile, those that neighbouring blocks do not share more than once."""
    if g["keeps"]:
        return min(slots(g, g["d_out"]), g["d_in"])
    return min(slots(g, g["block_slices"]), g["d_in"]) * g["chunks"]


def _vectors(g: dict[str, int], column_block: int, machine: Machine) -> tuple[int, int]:
    """Vectors of channels that are transformed, of the input and of the output; those of a block of columns fill whole ones."""
    lanes = TARGETS[machine.isa].lanes(g["itemsize"])
    groups, c_out = g["groups"], g["c_out"]
    if groups == 1:
        return -(-g["stride_h"] * g["stride_w"] * g["c_in"] // lanes), -(-c_out // lanes)
    # groups in a block that holds some of them in whole, or the one that it is a part of
    together = max(1, column_block // g["panels_per_group"])
    vectors_out = -(-groups * c_out // lanes) if together > 1 else groups * -(-c_out // lanes)
    return -(-groups // together) * -(-together * g["c_in"] // lanes), vectors_out


def _apart(g: dict[str, int]) -> float:
    """How much longer transforms take where the channels of a group do not begin with a vector."""
    lines = g["c_in"] * g["itemsize"] % VECTOR_BYTES or g["c_out"] * g["itemsize"] % VECTOR_BYTES
    return _APART if g["groups"] > 1 and lines else 1.0


def _strided(g: dict[str, int]) -> float:
    return _STRIDED if g["stride_h"] * g["stride_w"] > 1 else 1.0
