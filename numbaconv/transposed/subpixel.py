"""Transposed convolution whose kernel is as large as its stride: taps do not overlap, so it is a 1x1 convolution to all of them.

Products of a pixel are the block of the result that it becomes (W. Shi et al., Real-time single image and video super-resolution
using an efficient sub-pixel convolutional neural network, 2016), and are written there.  The product is Strassen's, whose halves
of the channels are the two lines of such a block, or halves of one line: as a product of all multiplications it would be that of
`phases`.  Wins where channels are enough for Strassen's algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.base import Cost, DirectSums
from numbaconv.algorithms.cost import in_order_cycles
from numbaconv.algorithms.strassen import Strassen
from numbaconv.algorithms.tiled import TiledPlan
from numbaconv.dispatch.select import Candidate, best
from numbaconv.epilogue import Epilogue
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.spaced import InTurn, Spaced
from numbaconv.transposed.weights import TransposedWeights

#: More parts than this would each read the whole input.
_MOST_PARTS = 4


@dataclass(frozen=True)
class Subpixel(DirectSums):
    """The way of one product for blocks of the result, which keeps to the budget of rounding errors that is given here."""

    accuracy: Accuracy
    name = "subpixel"

    def unsupported(self, problem: TransposedProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this way is refused, or None."""
        p = problem
        if p.groups > 1:
            return "groups are not multiplied apart"
        if p.kernel != p.stride or p.extent != p.kernel or any(map(sum, p.padding)) or any(p.output_padding):
            return "the result is not blocks of the kernel's size, one a pixel"
        if len(_parts(p)) > _MOST_PARTS:
            return f"more than {_MOST_PARTS} products for lines of blocks"
        return self._best(p, epilogue, machine).reason

    def estimate(self, problem: TransposedProblem, machine: Machine) -> Cost:
        """All parts, one after the other: products, weights from beyond the L2, which blocks of pixels read again and again and
        so find in the L3, and pixels and results.
        """
        part, parts = _product(problem), len(_parts(problem))
        cost = self._best(problem, Epilogue(problem.bias), machine).cost
        weights, *moved = (prod(s) * part.itemsize for s in (part.weight_shape, part.input_shape, part.output_shape))
        cycles = _algorithm(problem.kernel, problem.spatial).near_cycles(part, machine)
        cycles += in_order_cycles(weights, machine)
        cycles += sum(moved) / machine.rates.far_bytes if sum(moved) > machine.l2 // 2 else 0.0
        return replace(cost, seconds=parts * cycles / machine.rates.clock, plan_bytes=parts * cost.plan_bytes)

    def plan(
        self, problem: TransposedProblem, weights: TransposedWeights, epilogue: Epilogue, machine: Machine
    ) -> InTurn:
        """Pack the weights, unless another plan has."""
        algorithm, inner = _algorithm(problem.kernel, problem.spatial), _product(problem)
        plans = [
            (part.first, TiledPlan(algorithm, inner, weights.side_by_side(part.taps), epilogue, machine))
            for part in _parts(problem)
        ]
        return InTurn(self.name, problem, epilogue, problem.n, plans)

    def _best(self, problem: TransposedProblem, epilogue: Epilogue, on: Machine) -> Candidate:
        return best(_product(problem), epilogue, on, self.accuracy, (_algorithm(problem.kernel, problem.spatial),))


class _Part(NamedTuple):
    """One product: the taps of each axis that it makes, and the pixel of the result that its first block begins with."""

    taps: tuple[tuple[int, ...], ...]
    first: int


def _together(kernel: tuple[int, ...]) -> int:
    """Lines of a block that are halves of the channels of one product."""
    return 2 if kernel[-2:-1] == (2,) else 1


@lru_cache(maxsize=64)
def _parts(p: TransposedProblem) -> tuple[_Part, ...]:
    """A product for each line of a block, or for both lines of a slice."""
    together, k_w = _together(p.kernel), p.kernel[-1]
    lines = [tuple((tap,) for tap in range(k)) for k in p.kernel[:-1]]
    if together > 1:
        lines[-1] = ((0, 1),)
    sizes = p.out_spatial
    return tuple(
        _Part((*taps, tuple(range(k_w))), sum(tap[0] * prod(sizes[axis + 1 :]) for axis, tap in enumerate(taps)))
        for taps in product(*lines)
    )


def _product(p: TransposedProblem) -> ConvProblem:
    """What each part computes; slices of a volume are images."""
    n, spatial = p.n * prod(p.spatial[:-2]), p.spatial[-2:]
    ones, none = (1,) * len(spatial), ((0, 0),) * len(spatial)
    c_out = _together(p.kernel) * p.kernel[-1] * p.c_out
    return ConvProblem(n, p.c_in, c_out, spatial, ones, ones, ones, none, 1, p.dtype, "channels_last")


class _Blocks(Spaced, Strassen):
    """Strassen's algorithm on images of `spatial` pixels, each of which becomes a block: its pixels are lines of blocks."""

    def __init__(self, kernel: tuple[int, ...], spatial: tuple[int, ...]):
        self._together, self._columns = _together(kernel), spatial[-1]
        line = prod(kernel[-2:-1]) * spatial[-1]
        super().__init__((prod(kernel[:-2]) * line * prod(spatial[-2:-1]), 0, line, 1))

    def cut(self, g, machine):
        """As ever; a pixel is a line of a block, and the second half of the channels may be the next one."""
        cut = super().cut(g, machine)
        pixel = g["c_out"] // self._together * g["itemsize"]
        half = {"half_step": self._columns * pixel} if self._together > 1 else {}
        return cut._replace(fields=cut.fields | {"out_pixel": pixel, "residual_pixel": pixel} | half)


@lru_cache(maxsize=64)  # candidates are kept by these very objects
def _algorithm(kernel: tuple[int, ...], spatial: tuple[int, ...]) -> _Blocks:
    return _Blocks(kernel, spatial)
