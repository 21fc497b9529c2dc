"""Transposed convolution remainder by remainder: each is a convolution of stride 1 by an algorithm that is good at it.

Outputs with one remainder by the stride meet the same taps, at neighbouring elements of the input, and lie a stride apart in the
result, as the loops are told.  Wins in groups of fewer channels than a vector has lanes, which depthwise tiles fill, and where
remainders have taps enough for Winograd, which saves more than reading the input once a remainder costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import gcd, prod
from typing import ClassVar

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.base import Algorithm, Cost, DirectSums
from numbaconv.algorithms.cost import MISSED, fetched_bytes
from numbaconv.algorithms.depthwise import Depthwise
from numbaconv.algorithms.grouped import Grouped
from numbaconv.algorithms.split import Split
from numbaconv.algorithms.tiled import TiledPlan
from numbaconv.algorithms.winograd import Winograd
from numbaconv.codegen.halves import KINDS
from numbaconv.dispatch.select import Candidate, best
from numbaconv.epilogue import Epilogue
from numbaconv.machine import Machine, machine
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.remainders import Remainder, remainders_of
from numbaconv.transposed.spaced import InTurn, Spaced
from numbaconv.transposed.weights import TransposedWeights
from numbaconv.values import Batched, found_once

#: More remainders than this would be as many launches.
MOST_REMAINDERS = 64
#: The part of the L2 that the images may take which all remainders read in turn.
_INPUT_PART = 2
#: Seconds to start one of the plans, its first tiles included; measured with 4 and 64 remainders of 21 channels.
_LAUNCH = 20e-6
#: Outputs of the Winograd tiles that are asked.
_SIZES = 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Separate(DirectSums):
    """The way of one plan a remainder, all of which keep to the budget of rounding errors that is given here."""

    accuracy: Accuracy
    #: whether weights may be new in each call
    repacked: bool = False
    name = "separate"

    def variant(self, problem: TransposedProblem) -> str:
        """The algorithm of the remainder with the most taps, or nothing."""
        if self.unsupported(problem, Epilogue(problem.bias), machine()):
            return ""
        part = max(_parts(problem, machine()), key=lambda part: part.taps)
        return self._best(part, Epilogue(problem.bias), machine()).label(part)

    def unsupported(self, problem: TransposedProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this way is refused, or None."""
        if max(problem.stride) == 1:
            return "the stride is 1"
        if prod(map(min, zip(problem.stride, problem.out_spatial))) > MOST_REMAINDERS:
            return f"more than {MOST_REMAINDERS} remainders of the stride"
        reasons = (self._best(part, epilogue, machine).reason for part in _parts(problem, machine))
        return next(filter(None, reasons), None)

    def estimate(self, problem: TransposedProblem, machine: Machine) -> Cost:
        """All remainders of all images, one after the other, each of which drives the others' weights from the L3."""
        parts = _parts(problem, machine)
        costs = [self._best(part, Epilogue(problem.bias), machine).cost for part in parts]
        rounds = problem.n // max(parts[0].n, 1)
        apart = [prod(part.kernel) * part.c_in * part.c_out // part.groups * part.itemsize for part in parts]
        driven_out = fetched_bytes(sum(apart), 1, machine) - sum(fetched_bytes(nbytes, 1, machine) for nbytes in apart)
        far = MISSED * max(driven_out, 0.0) / machine.rates.far_bytes / machine.rates.clock
        seconds = rounds * (far + sum(_LAUNCH + cost.seconds for cost in costs))
        return Cost(seconds, max(cost.workspace_bytes for cost in costs), sum(cost.plan_bytes for cost in costs))

    def plan(
        self, problem: TransposedProblem, weights: TransposedWeights, epilogue: Epilogue, machine: Machine
    ) -> InTurn:
        """Pack the weights, unless another plan has."""
        parts, plans = _parts(problem, machine), []
        for part in parts:
            algorithm = self._best(part, epilogue, machine).algorithm
            plan = TiledPlan(algorithm, part, weights.part(part.taps_met), epilogue, machine)
            plans.append((part.first, plan))
        return InTurn(self.name, problem, epilogue, parts[0].n, plans)

    def _best(self, part: _Part, epilogue: Epilogue, on: Machine) -> Candidate:
        return best(part, epilogue, on, self.accuracy, _algorithms(part.steps, self.repacked))


@dataclass(frozen=True)
class _Part(Batched):
    """The outputs of one remainder an axis, as a convolution of stride 1 whose padding may be negative."""

    n: int
    c_in: int
    c_out: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int
    dtype: str
    #: for each axis the taps of the transposed convolution's kernel, in the order of this one
    taps_met: tuple[tuple[int, ...], ...]
    #: pixels of the result from image to image, slice to slice, line to line, column to column, and before the first one
    steps: tuple[int, int, int, int]
    first: int

    layout: ClassVar[str] = "channels_last"
    padding_mode: ClassVar[str] = "zeros"

    __hash__ = Batched.__hash__

    @found_once
    def stride(self) -> tuple[int, ...]:
        """1 along each axis."""
        return (1,) * len(self.kernel)

    @found_once
    def out_spatial(self) -> tuple[int, ...]:
        """Outputs of the remainder, an axis."""
        axes = zip(self.spatial, self.padding, self.kernel, self.dilation)
        return tuple(size + sum(ends) - d * (k - 1) for size, ends, k, d in axes)


@lru_cache(maxsize=64)  # asked for by each step from refusal to plan
def _parts(p: TransposedProblem, machine: Machine) -> tuple[_Part, ...]:
    """The convolutions of all remainders, for so many images that the L2 keeps them from one to the next."""
    image = prod(p.spatial) * p.c_in * p.itemsize
    most = max(1, machine.l2 // _INPUT_PART // image)
    n = max((size for size in range(1, min(p.n, most) + 1) if p.n % size == 0), default=0)
    pitches = [prod(p.out_spatial[axis + 1 :]) for axis in range(len(p.spatial))]
    steps = [prod(p.out_spatial), *([0] * (3 - len(pitches))), *map(prod, zip(p.stride, pitches))]
    parts = []
    for chosen in product(*(remainders_of(p, axis) for axis in range(len(p.spatial)))):
        axes = [_axis(p, axis, remainder) for axis, remainder in enumerate(chosen)]
        taps, dilation, padding = zip(*axes)
        first = sum(remainder.first * pitch for remainder, pitch in zip(chosen, pitches))
        parts.append(
            _Part(
                n,
                p.c_in,
                p.c_out,
                p.spatial,
                tuple(map(len, taps)),
                dilation,
                padding,
                p.groups,
                p.dtype,
                taps,
                tuple(steps),
                first,
            )  # fmt: skip
        )
    return tuple(parts)


def _axis(p: TransposedProblem, axis: int, remainder: Remainder) -> tuple[tuple[int, ...], int, tuple[int, int]]:
    """(taps, dilation, padding) of a remainder's convolution along one axis."""
    size, step, dilation = p.spatial[axis], p.stride[axis], p.dilation[axis]
    # where no tap is met, one that lies behind the input
    met = sorted(remainder.taps, key=lambda pair: pair[1]) or [(0, size)]
    taps, shifts = zip(*met)
    apart = dilation // gcd(step, dilation)
    before = -shifts[0]
    after = remainder.count - size - before + apart * (len(taps) - 1)
    return taps, apart, (before, after)


@lru_cache(maxsize=64)  # candidates are kept by these very objects
def _algorithms(steps: tuple[int, int, int, int], repacked: bool) -> tuple[Algorithm, ...]:
    every = (
        _SpacedDepthwise(steps),
        _SpacedGrouped(steps),
        *(_SpacedWinograd(steps, m) for m in _SIZES),
        *(_SpacedSplit(steps, halves) for halves in KINDS),
    )
    return tuple(algorithm for algorithm in every if algorithm.repacked) if repacked else every


class _SpacedDepthwise(Spaced, Depthwise):
    pass


class _SpacedGrouped(Spaced, Grouped):
    pass


class _SpacedWinograd(Spaced, Winograd):
    pass


class _SpacedSplit(Spaced, Split):
    pass
