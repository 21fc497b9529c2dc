"""Rank the algorithms for a problem, or find the best one, and make its plan.  Pure functions of problem, epilogue and machine.

Estimates take some microseconds each, and a new shape waits for its choice.  So `best` begins with what whole families of
algorithms cannot go below (`floor`), asks those of a family that may win for a quick lower bound of their own (`least_seconds`),
and for estimates in the order of these bounds, until no other can be better.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from math import inf
from typing import NamedTuple

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import ALGORITHMS, layout, padded
from numbaconv.algorithms.base import Algorithm, Cost, Floor, Plan, inaccurate
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.epilogue import Epilogue
from numbaconv.errors import ConvError, UnsupportedError
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem

#: Bounds are sums in another order than estimates, which must not let one pass the other.
_ROUNDED = 1 - 1e-12


class Candidate(NamedTuple):
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
    """All algorithms, the cheapest first, those that refuse last; ties keep the order of preference."""
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
    """The first candidate of `rank`, found with as few estimates as need be."""
    chosen = inf, 0, None
    floors = []
    for floor, members in _families(algorithms):
        least = floor(problem, on)
        if not any(algorithm.native(problem) for _, algorithm in members):
            least += layout.transposing(problem, epilogue, on)[0]
        floors.append((least * _ROUNDED, members))
    for floor, members in sorted(floors):
        if floor > chosen[0]:
            break
        # alone, an algorithm has no other bound
        bounds = _bounds(members, problem, epilogue, on, accuracy) if len(members) > 1 else ((floor, members[0][0]),)
        for least, place in bounds:
            if least > chosen[0]:
                break
            candidate = _candidate(algorithms[place], problem, epilogue, on, accuracy)
            if candidate.cost and (candidate.cost.seconds, place) < chosen[:2]:
                chosen = candidate.cost.seconds, place, candidate
    return chosen[2] or rank(problem, epilogue, on, accuracy, algorithms)[0]


@functools.lru_cache(maxsize=64)
def _families(algorithms: tuple[Algorithm, ...]) -> tuple[tuple[Floor, tuple[tuple[int, Algorithm], ...]], ...]:
    """The bounds that algorithms share, each with those that do and their places, the last one first."""
    sharing = defaultdict(list)
    for place, algorithm in reversed(tuple(enumerate(algorithms))):
        sharing[algorithm.floor].append((place, algorithm))
    return tuple((floor, tuple(members)) for floor, members in sharing.items())


def _bounds(
    members: tuple[tuple[int, Algorithm], ...],
    problem: ConvProblem,
    epilogue: Epilogue,
    on: Machine,
    accuracy: Accuracy,
) -> list[tuple[float, int]]:
    """Lower bounds of algorithms that may do the problem, each with the algorithm's place, the least first."""
    found = []
    for place, algorithm in members:
        if accuracy.local and not algorithm.local:
            continue
        posed = padded.posed_to(algorithm, problem)
        if algorithm.unsupported(posed, epilogue, on) is None:
            least = algorithm.least_seconds(posed, on)
            if not algorithm.native(posed):
                least += layout.transposing(problem, epilogue, on)[0]
            found.append((least * _ROUNDED, place))
    return sorted(found)


def _candidate(
    algorithm: Algorithm, problem: ConvProblem, epilogue: Epilogue, on: Machine, accuracy: Accuracy
) -> Candidate:
    posed = padded.posed_to(algorithm, problem)
    if reason := algorithm.unsupported(posed, epilogue, on) or inaccurate(algorithm, posed, accuracy):
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
