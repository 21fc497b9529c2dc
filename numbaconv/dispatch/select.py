"""Rank the algorithms for a problem, and make the winner's plan.  A pure function of problem, epilogue and machine."""

from __future__ import annotations

import functools
from typing import NamedTuple

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import ALGORITHMS, layout, padded
from numbaconv.algorithms.base import Algorithm, Cost, Plan
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.epilogue import Epilogue
from numbaconv.errors import ConvError, UnsupportedError
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem


class Candidate(NamedTuple):
    """An algorithm with either its cost or the reason why it refuses."""

    algorithm: Algorithm
    cost: Cost | None
    reason: str | None

    def label(self, problem: ConvProblem) -> str:
        """The algorithm's name, and which of its forms it takes."""
        return " ".join(filter(None, (self.algorithm.name, self.algorithm.variant(problem))))


@functools.lru_cache(maxsize=4096)
def rank(
    problem: ConvProblem,
    epilogue: Epilogue,
    on: Machine,
    accuracy: Accuracy,
    algorithms: tuple[Algorithm, ...] = ALGORITHMS,
) -> tuple[Candidate, ...]:
    """All algorithms, the cheapest first, those that refuse last; ties keep the order of preference."""
    candidates = []
    for algorithm in algorithms:
        posed = padded.posed_to(algorithm, problem)
        reason = algorithm.unsupported(posed, epilogue, on) or _inaccurate(algorithm, posed, accuracy)
        cost = None if reason else algorithm.estimate(posed, on)
        if cost and not algorithm.native(posed):
            cost = layout.around(cost, posed, epilogue, on)
        if cost and posed is not problem:
            cost = padded.around(cost, problem, on)
        candidates.append(Candidate(algorithm, cost, reason))
    return tuple(sorted(candidates, key=lambda c: (c.cost is None, c.cost.seconds if c.cost else 0.0)))


def _inaccurate(algorithm: Algorithm, problem: ConvProblem, accuracy: Accuracy) -> str | None:
    """Why an algorithm is not exact enough, or None."""
    if accuracy.local and not algorithm.local:
        return "spreads NaN and infinity beyond their place"
    error = algorithm.rms_error(problem)
    return f"its expected error of {error:.1e} exceeds {accuracy.rms:.1e}" if error > accuracy.rms else None


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
    candidates = rank(problem, epilogue, calibrated_machine(), Accuracy.of(accuracy), algorithms)
    if isinstance(name, str):
        if name == "auto":
            if candidates[0].reason:
                reasons = "; ".join(f"{candidate.algorithm.name}: {candidate.reason}" for candidate in candidates)
                raise UnsupportedError(f"{problem} is not built: {reasons}")
            return candidates[0].algorithm
        # variants of one algorithm share its name; the first one is the best, or they all refuse
        for candidate in candidates:
            if candidate.algorithm.name == name:
                if candidate.reason:
                    raise UnsupportedError(f"algorithm={name!r} cannot do {problem}: {candidate.reason}")
                return candidate.algorithm
    names = ", ".join(dict.fromkeys(repr(algorithm.name) for algorithm in algorithms))
    raise ConvError(f"algorithm={name!r} is unknown; it must be 'auto', {names}")


_COMPILED = tuple(algorithm for algorithm in ALGORITHMS if algorithm.compiled)


def best_compiled(problem: ConvProblem, epilogue: Epilogue, accuracy: Accuracy | None = None) -> Candidate:
    """The algorithm of compiled loops that is expected to be fastest, with its cost."""
    return rank(problem, epilogue, calibrated_machine(), Accuracy.of(accuracy), _COMPILED)[0]


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
