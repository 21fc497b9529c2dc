"""Strassen's algorithm: 7 products of half as many pixels, channels and columns instead of 8.

Wins where Winograd has no taps to save, in 1x1 and strided kernels, and channels are enough to pay for sums before and after the
products: from 256 or so on.  What a pair of pixels reads, with two halves of its channels, is a tile of Winograd's loops, which
transform blocks of them, multiply position by position, and transform back.  Sums are those of one level.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import folded
from numbaconv.algorithms.transformed import Transformed, rounding
from numbaconv.algorithms.winograd_blocks import Grid, cut_tiles
from numbaconv.algorithms.winograd_cost import moving
from numbaconv.codegen.linear import program
from numbaconv.codegen.strassen import INPUT, KERNEL, OUTPUT, PRODUCTS
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.strassen import strassen_addresses
from numbaconv.workspace import aligned

#: Root mean square of the products that make up a result, over that of the result: sqrt((6 + 2 + 2 + 6) / 4).
_AMPLIFICATION = 2.0
#: Blocks aim at this part of the L2: fewer ones, to each of which 1.75 times the weights come, are level in quiet minutes, and
#: ahead where others fill the L3.
_L2_PART = 0.6
#: Cycles to load or store a vector on the way in, and on the way out, where `winograd_cost.moving` is 1.
_MOVED_IN, _MOVED_OUT = 4.0, 4.8
#: How much it has to save: where estimates tied with those of direct sums it took 1.05 times as long, 1.5 times at worst.
_MARGIN = 1.04


class Strassen(Transformed):
    """One level, over pairs of neighbouring pixels and halves of the channels."""

    name = "strassen"
    repacked = False
    groupings = ("dense",)
    floors = ()

    def rms_error(self, problem):
        """`transformed.rounding` of sums of K / 2 products, which are `AMPLIFICATION` times as large as what becomes of them."""
        return rounding(problem, problem.c_in * prod(problem.kernel) / 2, _AMPLIFICATION)

    def unsupported(self, problem, epilogue, machine):
        if problem.groups > 1:
            return "groups are multiplied one by one"
        halves = 2 * VECTOR_BYTES // problem.itemsize
        if problem.c_in % halves or problem.c_out % halves:
            return "halves of the channels are not whole vectors"
        if len(folded(problem).spatial) > 2:
            return "taps of slices are not paired"
        return None

    def grid(self, g):
        """Pairs of pixels of each image; products are of halves, and know of no strides."""
        c_in, c_out = g["c_in"] // 2, g["c_out"] // 2
        halves = {
            "c_in": g["k_h"] * g["k_w"] * c_in, "own_channels": c_in,
            "c_out": c_out, "panels_per_group": -(-c_out * g["itemsize"] // PANEL_ROW),
            "stride_h": 1, "stride_w": 1, "hop_h": g["stride_h"], "hop": g["stride_w"],
        }  # fmt: skip
        pairs = -(-g["out_pixels"] // 2)
        return Grid(g | halves, _FORM, g["n"] * pairs, 1, pairs, halves)

    def blocks(self, grid, machine):
        # blocks as large as the workspace take 0.9 to 1.2 times as long, whatever the weights are
        return cut_tiles(grid, machine, _L2_PART, may_be_far=False)

    def tile_fields(self, grid):
        half_step = grid.g["c_out"] * grid.g["itemsize"]
        return {"half_step": half_step, "m_h": 2, "m_w": 2, "n_h": PRODUCTS, "n_w": 1, "tile_step": 0}

    def tables(self, g, cut):
        return {}

    def operands(self, weights, g):
        return {"panels": weights.form(_kernels), "bias": weights.flat_bias}

    def functions(self, g, np_dtype):
        return super().functions(g, np_dtype) | strassen_addresses(np_dtype)

    def products(self, grid, blocks, common, machine):
        """A single block is shared out by columns, for which each thread prepares all pixels: it counts as if there were two."""
        cycles = super().products(grid, blocks, common, machine)
        if blocks.blocks > 1:
            return cycles
        vectors = -(-grid.g["c_in"] // TARGETS[machine.isa].lanes(grid.g["itemsize"]))
        return cycles + grid.tiles * vectors * _FORM.input_cycles * moving(machine)

    def cost_of(self, grid, blocks, cycles, machine):
        """Sums in the order of the definition are to be preferred to it in doubt."""
        return super().cost_of(grid, blocks, _MARGIN * cycles, machine)

    def least_seconds(self, problem, machine):
        """The multiplications, and what moves each pair there and back."""
        lanes = TARGETS[machine.isa].lanes(problem.itemsize)
        pixels, k = problem.n * prod(problem.out_spatial), prod(problem.kernel) * problem.c_in
        multiplied = PRODUCTS / 8 * k * problem.c_out / cost.FMA
        moved = (k * _FORM.input_cycles + problem.c_out * _FORM.output_cycles) / 4
        return pixels / lanes * (multiplied + moved * moving(machine)) / machine.rates.clock


@dataclass(frozen=True)
class _Form:
    """See `winograd_blocks.TileForm`."""

    positions: int = PRODUCTS
    outputs: int = 4
    input_cycles: float = len(program(INPUT).operations) / cost.FMA + _MOVED_IN * (4 + PRODUCTS)
    output_cycles: float = len(program(OUTPUT).operations) / cost.FMA + _MOVED_OUT * (4 + PRODUCTS)


_FORM = _Form()


def _kernels(weight: np.ndarray, groups: int) -> np.ndarray:
    """(positions, panels, taps c_in / 2, NR): sums and differences of quarters of the weights, each rounded once."""
    c_out, c_in = weight.shape[0] // 2, weight.shape[1] // 2
    columns = PANEL_ROW // weight.itemsize
    panels = -(-c_out // columns)
    k = prod(weight.shape[2:]) * c_in
    packed = aligned(PRODUCTS * panels * k * PANEL_ROW).view(weight.dtype).reshape(PRODUCTS, panels, k, columns)
    quarters = weight.reshape(2, c_out, 2, c_in, -1).transpose(2, 0, 4, 3, 1).reshape(4, k, c_out)
    padded = np.zeros((k, panels * columns), weight.dtype)
    for position, signs in enumerate(KERNEL):
        padded[:, :c_out] = sum(int(sign) * quarter for sign, quarter in zip(signs, quarters) if sign)
        packed[position] = padded.reshape(k, panels, columns).transpose(1, 0, 2)
    return packed
