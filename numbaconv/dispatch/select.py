"""Rank the algorithms for a problem, or find the best one, and make its plan.  Pure functions of problem, epilogue and machine.

Estimates take some microseconds each, and a new shape waits for its choice.  So `best` begins with what whole families of
algorithms cannot go below (`floors`), asks those of a family that may win for a quick lower bound of their own (`least_seconds`),
and for estimates in the order of these bounds, until no other can be better by more than a tie (`cost.TIE`).
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop
from math import inf

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import ALGORITHMS, layout, padded
from numbaconv.algorithms.base import Algorithm, Cost, Family, Floor, Plan, inaccurate
from numbaconv.algorithms.cost import TIE
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.epilogue import Epilogue
from numbaconv.errors import ConvError, UnsupportedError
from numbaconv.machine import Machine
from numbaconv.memo import said_last_of_two
from numbaconv.problem import ConvProblem


@dataclass(slots=True)
class Candidate:
    """An algorithm with either its cost or the reason why it refuses."""

    algorithm: Algorithm
    cost: Cost | None
    reason: str | None

    def label(self, problem: ConvProblem) -> str:
        """The algorithm's name, and which of its forms it takes."""
        return " ".join(filter(None, (self.algorithm.name, self.algorithm.variant(problem))))


def rank(
    problem: ConvProblem,
    epilogue: Epilogue,
    on: Machine,
    accuracy: Accuracy,
    algorithms: tuple[Algorithm, ...] = ALGORITHMS,
) -> tuple[Candidate, ...]:
    """All algorithms, the cheapest first, those that refuse last; equals keep the order of preference."""
    candidates = [_candidate(algorithm, problem, epilogue, on, accuracy) for algorithm in algorithms]
    return tuple(sorted(candidates, key=_order))


@functools.lru_cache(maxsize=4096)
def best(
    problem: ConvProblem,
    epilogue: Epilogue,
    on: Machine,
    accuracy: Accuracy,
    algorithms: tuple[Algorithm, ...] = ALGORITHMS,
) -> Candidate:
    """A candidate as good as the first of `rank`, but for a tie, found with as few estimates as need be."""
    # what those add that only do with channels last
    moving = layout.transposing(epilogue.residual)(problem, on)[0] if problem.layout == "channels_first" else 0.0
    as_it_is = problem.padding_mode == "zeros"
    parts, left, found, least = _parts(algorithms, on)(accuracy.local, problem.grouping, problem.layout), [], None, inf
    while True:
        for part in parts:
            algorithm, least_seconds, posed = part.algorithm, part.least_seconds, problem
            if algorithm is not None:
                if not as_it_is:
                    posed = padded.posed_to(algorithm, problem)
                if algorithm.unsupported(posed, epilogue, on) is not None:
                    continue
            bound = least_seconds(posed, on) + (moving if part.moved else 0.0)
            if bound < least:
                left.append((bound, part.place, part))
        heapify(left)
        # what has the lowest bound is looked at more closely, unless that is no lower than what was found
        bound, _, part = heappop(left) if left else (inf, 0, None)
        if bound >= least:
            return found or rank(problem, epilogue, on, accuracy, algorithms)[0]
        parts, leaf = part.parts, part
        if parts:
            leaf = part.sizes and part.sizes.get(part.leader(problem, on))
        if leaf:
            # the other sizes are looked at only if the one that leads is refused
            posed = problem if as_it_is else padded.posed_to(leaf.algorithm, problem)
            candidate = _priced(leaf.algorithm, posed, problem, epilogue, on, accuracy)
            if candidate.cost:
                parts, seconds = (), candidate.cost.seconds * (1 - TIE)
                if seconds < least:
                    found, least = candidate, seconds


@dataclass(slots=True)  # as fast to read as can be
class _Part:
    """An algorithm, or a family of those that share a lower bound: families that share a nearer one, or themselves.

    `place` is its own in the order of preference, or that of the first.  Around those that are `moved`, tensors with channels first
    are transposed.  `sizes` are the members by their `m` of which a `leader` is known.
    """

    place: int
    least_seconds: Floor
    moved: bool
    algorithm: Algorithm | None
    parts: tuple[_Part, ...]
    leader: Callable[[ConvProblem, Machine], int | None] | None = None
    sizes: dict[int, _Part] | None = None


@said_last_of_two  # to hash so many algorithms takes as long as some of their bounds do
@functools.lru_cache(maxsize=16)
def _parts(algorithms: tuple[Algorithm, ...], on: Machine) -> Callable[[bool, str, str], tuple[_Part, ...]]:
    """A function that says which of these are available and may do a grouping in a layout, or which of them are `local`."""

    @functools.cache
    def parts(local: bool, grouping: str, layout: str) -> tuple[_Part, ...]:
        able = [
            algorithm
            for algorithm in algorithms
            if grouping in algorithm.groupings
            and (layout in algorithm.layouts or "channels_last" in algorithm.layouts)
            and (algorithm.local or not local)
            and not algorithm.unavailable(on)
        ]
        return _sharing(list(enumerate(able)), 0)

    return parts


def _sharing(numbered: list[tuple[int, Algorithm]], depth: int) -> tuple[_Part, ...]:
    """Families of algorithms with these places, which share so many floors, by the next one; alone who has no other."""
    sharing = defaultdict(list)
    for place, algorithm in numbered:
        sharing[algorithm.floors[depth] if depth < len(algorithm.floors) else place].append((place, algorithm))
    parts = []
    for floor, members in sharing.items():
        place, algorithm = members[0]
        if callable(floor):
            nearer, leader = _sharing(members, depth + 1), None
            if isinstance(floor, Family):
                floor, leader = floor
            sizes = leader and {part.algorithm.m: part for part in nearer}
            parts.append(_Part(place, floor, all(_moved(a) for _, a in members), None, nearer, leader, sizes))
        else:
            parts.append(_Part(place, algorithm.least_seconds, _moved(algorithm), algorithm, ()))
    return tuple(parts)


def _moved(algorithm: Algorithm) -> bool:
    return "channels_first" not in algorithm.layouts


def _candidate(
    algorithm: Algorithm, problem: ConvProblem, epilogue: Epilogue, on: Machine, accuracy: Accuracy
) -> Candidate:
    posed = padded.posed_to(algorithm, problem)
    if reason := algorithm.unsupported(posed, epilogue, on):
        return Candidate(algorithm, None, reason)
    return _priced(algorithm, posed, problem, epilogue, on, accuracy)


def _priced(
    algorithm: Algorithm, posed: ConvProblem, problem: ConvProblem, epilogue: Epilogue, on: Machine, accuracy: Accuracy
) -> Candidate:
    """The candidate that an algorithm is which can do the problem as it is `posed` to it."""
    if reason := inaccurate(algorithm, posed, accuracy):
        return Candidate(algorithm, None, reason)
    cost = algorithm.estimate(posed, on)
    if reason := algorithm.too_large(cost):
        return Candidate(algorithm, None, reason)
    if not algorithm.native(posed):
        cost = layout.around(cost, posed, epilogue, on)
    if posed is not problem:
        cost = padded.around(cost, problem, on)
    return Candidate(algorithm, cost, None)


def _order(candidate: Candidate) -> tuple[bool, float]:
    """Those that refuse come last."""
    return candidate.cost is None, candidate.cost.seconds if candidate.cost else 0.0


def choose(
    problem: ConvProblem,
    epilogue: Epilogue,
    name: str = "auto",
    accuracy: Accuracy | None = None,
    algorithms: tuple[Algorithm, ...] = ALGORITHMS,
) -> Algorithm:
    """The algorithm of that name, or the cheapest one.

    Raises
    ------
    UnsupportedError
        If the algorithm asked for refuses the problem or is not exact enough; another one is never taken silently.  Also if all
        of them refuse, where none of `algorithms` does everything.
    ConvError
        If there is no such name.
    """
    asked = problem, epilogue, calibrated_machine(), Accuracy.of(accuracy)
    if isinstance(name, str):
        if name == "auto":
            candidate = best(*asked, algorithms)
            if candidate.reason:
                reasons = "; ".join(
                    f"{refused.algorithm.name}: {refused.reason}" for refused in rank(*asked, algorithms)
                )
                raise UnsupportedError(f"{problem} is not built: {reasons}")
            return candidate.algorithm
        # variants of one algorithm share its name
        if named := tuple(algorithm for algorithm in algorithms if algorithm.name == name):
            candidate = best(*asked, named)
            if candidate.reason:
                raise UnsupportedError(f"algorithm={name!r} cannot do {problem}: {candidate.reason}")
            return candidate.algorithm
    names = ", ".join(dict.fromkeys(repr(algorithm.name) for algorithm in algorithms))
    raise ConvError(f"algorithm={name!r} is unknown; it must be 'auto', {names}")


_COMPILED = tuple(algorithm for algorithm in ALGORITHMS if algorithm.compiled)


def best_compiled(problem: ConvProblem, epilogue: Epilogue, on: Machine, accuracy: Accuracy | None = None) -> Candidate:
    """The algorithm of compiled loops that is expected to be fastest on a machine, with its cost."""
    return best(problem, epilogue, on, Accuracy.of(accuracy), _COMPILED)


def make_plan(
    problem: ConvProblem,
    epilogue: Epilogue,
    weights: Weights,
    name: str = "auto",
    accuracy: Accuracy | None = None,
    algorithms: tuple[Algorithm, ...] = ALGORITHMS,
) -> Plan:
    """A plan for tensors in the problem's own layout."""
    algorithm = choose(problem, epilogue, name, accuracy, algorithms)
    posed = padded.posed_to(algorithm, problem)
    plan = algorithm.plan(posed, weights, epilogue, calibrated_machine())
    if not algorithm.native(posed):
        plan = layout.ChannelsFirst(plan, posed)
    return plan if posed is problem else padded.PaddedCopy(plan, problem)
