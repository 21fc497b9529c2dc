"""Why an algorithm is chosen: every candidate with its estimate, or with the reason why it refuses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import ALGORITHMS
from numbaconv.algorithms.base import Algorithm
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.dispatch.select import Candidate, best, rank
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.problem import ConvProblem


@dataclass(frozen=True)
class Row:
    """One algorithm: why it refuses, or its estimate on one thread and its memory as in `algorithms.base.Cost`."""

    algorithm: str
    #: of an algorithm that comes in several, such as "F(4x4, 3x3)"; else empty
    variant: str
    reason: str | None
    seconds: float | None
    workspace_bytes: int | None
    plan_bytes: int | None
    staging_bytes: int | None
    chosen: bool

    @property
    def label(self) -> str:
        """Name and variant."""
        return f"{self.algorithm} {self.variant}".rstrip()


@dataclass(frozen=True)
class Explanation:
    """What `explain` found; prints as a table."""

    problem: ConvProblem
    rows: tuple[Row, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.problem}: {self.problem.flops / 1e6:.1f} MFLOP, {self.problem.arithmetic_intensity:.1f} FLOP a byte",
            f"  {'algorithm':<22}{'estimate':>14}{'workspace':>12}{'staging':>12}{'tables':>12}",
        ]
        for row in self.rows:
            mark = "*" if row.chosen else " "
            if row.reason:
                lines.append(f"{mark} {row.label:<22}{row.reason}")
                continue
            memory = (row.workspace_bytes, row.staging_bytes, row.plan_bytes)
            sizes = "".join(f"{nbytes / 1024:>8.0f} KiB" for nbytes in memory)
            lines.append(f"{mark} {row.label:<22}{row.seconds * 1e6:>11.1f} us{sizes}")
        return "\n".join(lines)


def explain(problem: ConvProblem | str, activation=None, residual: bool = False, accuracy=None) -> Explanation:
    """Rank every algorithm for a problem, without running any.

    Parameters
    ----------
    problem : ConvProblem or str
        A string is parsed, such as "n1c64h56w56o64k3p1".
    activation
        As in `conv2d`.
    residual : bool
        Whether a residual is added.
    accuracy : float, "strict" or None
        As in `Conv2d`.

    Returns
    -------
    Explanation
        One row an algorithm, the cheapest first: the estimate on one thread and the workspace, or the reason why it refuses.  The
        one that is chosen is marked: it need not be the first, if that is ahead by no more than 4 %.

    Raises
    ------
    ConvError
        If the string is not a problem, or another argument is unknown.
    """
    if not isinstance(problem, ConvProblem):
        problem = ConvProblem.parse(problem)
    return explained(problem, Epilogue(problem.bias, residual, Activation.of(activation)), Accuracy.of(accuracy))


def explained(
    problem: ConvProblem, epilogue: Epilogue, accuracy: Accuracy, algorithms: tuple[Algorithm, ...] = ALGORITHMS
) -> Explanation:
    """The ranking of some algorithms for a problem on this machine, of which the one that is taken is marked."""
    asked = problem, epilogue, calibrated_machine(), accuracy, algorithms
    return Explanation(problem, tuple(rows_of(problem, rank(*asked), best(*asked).algorithm)))


def rows_of(problem: ConvProblem, candidates: Iterable[Candidate], chosen: Algorithm) -> list[Row]:
    """One row a candidate of a ranking, of which this one is chosen unless it refuses, too."""
    rows = []
    for candidate in candidates:
        cost = candidate.cost
        numbers = (None,) * 4
        if cost:
            numbers = cost.seconds, cost.workspace_bytes, cost.plan_bytes, cost.staging_bytes
        variant = candidate.algorithm.variant(problem)
        rows.append(
            Row(
                candidate.algorithm.name,
                variant,
                candidate.reason,
                *numbers,
                chosen=cost is not None and candidate.algorithm is chosen,
            )
        )
    return rows
