"""Transposed convolution of stride 1: an ordinary one with the kernel reversed, by whichever algorithm is best at that."""

from __future__ import annotations

from dataclasses import dataclass

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import ALGORITHMS, REPACKED
from numbaconv.algorithms.base import Algorithm, Cost, DirectSums, Plan
from numbaconv.dispatch.select import Candidate, best, make_plan
from numbaconv.epilogue import Epilogue
from numbaconv.machine import Machine, machine
from numbaconv.problem import LAYOUTS, ConvProblem
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.weights import TransposedWeights


@dataclass(frozen=True)
class Ordinary(DirectSums):
    """The way of the engine's own algorithms, all of which keep to the budget of rounding errors that is given here.

    With `repacked`, only those are asked whose weights may be new in each call.
    """

    accuracy: Accuracy
    repacked: bool = False
    name = "ordinary"
    #: where a tensor has to be transposed, the estimate knows it
    layouts = LAYOUTS

    def variant(self, problem: TransposedProblem) -> str:
        """The algorithm that is chosen for an epilogue without a residual, or nothing."""
        epilogue = Epilogue(problem.bias)
        if self.unsupported(problem, epilogue, machine()):
            return ""
        return self._best(problem, epilogue, machine()).algorithm.name

    def unsupported(self, problem: TransposedProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this way is refused, or None."""
        if max(problem.spatial) == 1:
            return "a single input element meets no other"
        if any(step > 1 and size > 1 for step, size in zip(problem.stride, problem.spatial)):
            return "the stride is not 1"
        if any(min(pair) < 0 for pair in _padding(problem)):
            return "the padding is wider than the kernel"
        return self._best(problem, epilogue, machine).reason

    def estimate(self, problem: TransposedProblem, machine: Machine) -> Cost:
        """What running would cost; pure."""
        return self._best(problem, Epilogue(problem.bias), machine).cost

    def plan(
        self, problem: TransposedProblem, weights: TransposedWeights, epilogue: Epilogue, machine: Machine
    ) -> Plan:
        """Pack the weights, unless another plan has."""
        return make_plan(
            _convolution(problem), epilogue, weights.flipped, accuracy=self.accuracy, algorithms=self._algorithms
        )

    def _best(self, problem: TransposedProblem, epilogue: Epilogue, machine: Machine) -> Candidate:
        return best(_convolution(problem), epilogue, machine, self.accuracy, self._algorithms)

    @property
    def _algorithms(self) -> tuple[Algorithm, ...]:
        return REPACKED if self.repacked else ALGORITHMS


def _padding(p: TransposedProblem) -> tuple[tuple[int, int], ...]:
    """Of the ordinary convolution: what the kernel reaches beyond the part of its results that is kept."""
    axes = zip(p.extent, p.padding, p.output_padding)
    return tuple((extent - 1 - before, extent - 1 - after + more) for extent, (before, after), more in axes)


def _convolution(p: TransposedProblem) -> ConvProblem:
    return ConvProblem(
        p.n, p.c_in, p.c_out, p.spatial, p.kernel, (1,) * len(p.kernel), p.dilation, _padding(p), p.groups, p.dtype,
        p.layout, p.bias,
    )  # fmt: skip
