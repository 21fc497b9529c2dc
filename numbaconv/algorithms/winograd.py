"""Winograd convolution: F(m, r) down and across, 2 to 5 times fewer multiplications than the definition asks for.

Wins on kernels of 3 and more taps with enough channels, unless the transformed weights are too large for the time that the
image takes.  Weights that come from memory may come as they are, a fraction of the bytes, and be transformed on the way, which
pays with few blocks of tiles.  A dilated kernel is an ordinary one on interleaved sets of pixels; a strided one is the sum of
ordinary ones over the phases of its stride, that of a volume the sum over its slices, and a wide one that over pieces of m taps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush
from math import inf

from numbaconv.algorithms import cost, winograd_cost
from numbaconv.algorithms.base import Family
from numbaconv.algorithms.geometry import fields_of, folded
from numbaconv.algorithms.transformed import Transformed, pixel_tables, rounding
from numbaconv.algorithms.winograd_blocks import L2_PART, WORKSPACE_LIMIT, Blocks, Grid, cut_tiles, dilations
from numbaconv.algorithms.winograd_form import Form, form_of, forms_of, kind_of, refusal
from numbaconv.algorithms.winograd_kernels import TransformedKernels
from numbaconv.loops.transforms import transform_address
from numbaconv.loops.winograd import HEADER
from numbaconv.machine import Machine
from numbaconv.memo import said_last_of_two
from numbaconv.problem import ConvProblem


class Winograd(Transformed):
    """F(m x m, r x r), with r the taps a phase of the stride has; an axis without taps to save keeps one output a tile."""

    name = "winograd"
    # of channels one by one nothing is summed: to store the products takes longer than other algorithms do in all
    groupings = ("dense", "groups")

    def __init__(self, m: int, forms: tuple[bool, ...] = (True, False)):
        """`forms` of the weights are chosen from: kernels that are transformed when they are packed (True), or as they are."""
        self.m, self._forms, self._sizes = m, forms, _sizes(forms)
        # kernels as they are may be new in each call
        self.repacked = True not in forms
        self.floors = (winograd_cost.least_seconds, _least_of_all(forms))

    def variant(self, problem):
        """The sizes of F."""
        problem = folded(problem)
        outputs, taps = (
            "x".join(map(str, sizes)) for sizes in zip(*form_of(self.m, problem.kernel, problem.stride).sizes)
        )
        return f"F({outputs}, {taps})"

    def rms_error(self, problem):
        """`transformed.rounding` of a sum of K products, amplified down and across."""
        g, problem = fields_of(problem), folded(problem)
        form = form_of(self.m, problem.kernel, problem.stride)
        k = g["k_d"] * g["stride_h"] * g["stride_w"] * g["c_in"] * form.pieces
        return rounding(problem, k, form.amplification)

    def unsupported(self, problem, epilogue, machine):
        return refusal(self.m, kind_of(problem))

    def grid(self, g):
        form = form_of(self.m, (g["k_h"], g["k_w"]), (g["stride_h"], g["stride_w"]))
        return _grid(g, form)

    def blocks(self, grid, machine):
        forms = _looked_at(self._forms, machine)
        if len(forms) == 1:
            return _cut(grid, machine, *forms)
        return _cheapest(grid, winograd_cost.common(grid.g, machine), machine, forms)[0]

    def tile_fields(self, grid):
        g, sizes = grid.g, grid.form
        (m_h, r_h), (m_w, r_w) = sizes.sizes
        dilation_h, dilation_w = dilations(g)
        return {
            "m_h": m_h, "n_h": m_h + r_h - 1, "dilation_h": dilation_h,
            "m_w": m_w, "n_w": m_w + r_w - 1, "dilation_w": dilation_w,
            # where the tiles of a line are slices, each is as far from the next one as a piece of the kernel is
            "tile_step": m_w * dilation_w if sizes.pieces > 1 else 0,
        }  # fmt: skip

    def tables(self, g, cut):
        return pixel_tables(g)

    def operands(self, weights, g):
        if g["kernel_block"]:
            return {"panels": weights.panels, "bias": weights.flat_bias}
        k_d, pieces = (1, g["k_d"]) if g["tile_step"] else (g["k_d"], 1)
        pack = TransformedKernels(g["m_h"], g["m_w"], g["stride_h"], g["stride_w"], (k_d, g["k_h"], g["k_w"]), pieces)
        return {"panels": weights.form(pack), "bias": weights.flat_bias}

    def functions(self, g, np_dtype):
        r_h, r_w = g["n_h"] - g["m_h"] + 1, g["n_w"] - g["m_w"] + 1
        sizes = g["m_h"], r_h, g["m_w"], r_w
        directions = ("input", "kernel", "output") if g["kernel_block"] else ("input", "output")
        return super().functions(g, np_dtype) | {
            f"{direction}_transform": transform_address(direction, sizes, np_dtype) for direction in directions
        }

    def least_seconds(self, problem, machine):
        """Where that is known already what `estimate` says, but for a tie."""
        return self._sizes(problem, machine).least[self.m] / machine.rates.clock

    def estimate(self, problem, machine):
        if found := self._sizes(problem, machine).cut.get(self.m):
            return self.cost_of(*found, machine)
        return super().estimate(problem, machine)


@dataclass(slots=True)
class _Sizes:
    """The m that leads, if there is any, and what no size takes less than; by m, what its cycles are not below, and grid, blocks
    and cycles of those that were cut.
    """

    leader: int | None
    least_of_all: float
    least: dict[int, float]
    cut: dict[int, tuple[Grid, Blocks, float]]


@cache
def _sizes(forms: tuple[bool, ...]) -> Callable[[ConvProblem, Machine], _Sizes]:
    """A function that looks at all sizes together, with kernels in these forms."""

    @said_last_of_two  # each size asks for the same
    def sizes(problem: ConvProblem, machine: Machine) -> _Sizes:
        """Bounds of all, and estimates in their order until no other can take less, but for a tie."""
        g, known = fields_of(problem), forms_of(kind_of(problem))
        common, leader, found, cut = winograd_cost.common(g, machine), None, inf, {}
        looked_at = _looked_at(forms, machine)
        left = winograd_cost.least_cycles(g, known, common, machine, looked_at == (True,))
        least = {m: bound for bound, m, _, _ in left}
        while left and left[0][0] < found:
            bound, m, form, weight_bytes = heappop(left)
            if weight_bytes:
                # found for those only that may be the next
                least[m] = bound + winograd_cost.least_wait(weight_bytes, common, machine)
                heappush(left, (least[m], m, form, 0))
                continue
            grid = _grid(g, form)
            own = common if grid.g is g else winograd_cost.common(grid.g, machine)
            blocks, cycles = _cheapest(grid, own, machine, looked_at)
            cut[m], least[m] = (grid, blocks, cycles), (1 - cost.TIE) * cycles
            if least[m] < found:
                leader, found = m, least[m]
        return _Sizes(leader, found, least, cut)

    return sizes


@cache
def _least_of_all(forms: tuple[bool, ...]) -> Family:
    """The floor of all sizes, with kernels in these forms."""
    sizes = _sizes(forms)

    def least_seconds(problem: ConvProblem, machine: Machine) -> float:
        return sizes(problem, machine).least_of_all / machine.rates.clock

    def leader(problem: ConvProblem, machine: Machine) -> int | None:
        return sizes(problem, machine).leader

    return Family(least_seconds, leader)


def _grid(g: dict[str, int], form: Form) -> Grid:
    """Those across are in sets that dilation interleaves; those of a line are slices where kernel rows are cut into pieces."""
    dilation_h, sets = dilations(g)
    tiles_h, across = dilation_h * -(-g["h_out"] // (dilation_h * form.m_h)), -(-g["w_out"] // (sets * form.m_w))
    if form.pieces == 1:
        across *= sets
        return Grid(g, form, g["n"] * tiles_h * across, tiles_h, across)
    pieces = {"k_d": form.pieces, "d_out": across, "d_in": across + form.pieces - 1}
    return Grid(g | pieces, form, g["n"] * tiles_h * sets, tiles_h, sets, pieces)


def _cut(grid: Grid, machine: Machine, transformed: bool) -> Blocks:
    return cut_tiles(grid, machine, L2_PART, may_be_far=True, transformed=transformed)


def _cheapest(
    grid: Grid, common: winograd_cost.Common, machine: Machine, forms: tuple[bool, ...]
) -> tuple[Blocks, float]:
    """The blocks, for weights in one of these forms, that take least, of those whose workspace is allowed, and their cycles."""
    priced = []
    for transformed in forms:
        blocks = _cut(grid, machine, transformed)
        cycles = winograd_cost.near_cycles(grid, blocks, common, machine)
        cycles += winograd_cost.far_cycles(grid, blocks, common, machine)
        priced.append((blocks, cycles))
    if len(priced) == 1:
        return priced[0]
    return min(priced, key=lambda cut: (HEADER + cut[0].workspace_bytes(grid) > WORKSPACE_LIMIT, cut[1]))


def _looked_at(forms: tuple[bool, ...], machine: Machine) -> tuple[bool, ...]:
    """Those of these forms of weights that may win: from a cache, all positions come faster than they can be transformed."""
    return forms[:1] if machine.weights_kept else forms
