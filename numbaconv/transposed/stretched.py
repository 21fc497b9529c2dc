"""Transposed convolution with zeros put between the elements of its input, which leaves one of stride 1.

It multiplies with these zeros, so it takes the product of the strides times the work.  Wins with narrow groups, where that is next
to nothing, while tiles of the other ways would use a lane or two of a vector.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from numbaconv.algorithms.addressed import address
from numbaconv.algorithms.base import Cost, DirectSums, Plan
from numbaconv.epilogue import Epilogue
from numbaconv.loops.launch import usable_threads
from numbaconv.machine import Machine
from numbaconv.transposed.ordinary import Ordinary
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.weights import TransposedWeights
from numbaconv.workspace import rounded, scratch, view

#: The most output channels of a group that leave most lanes of a vector idle elsewhere.
_NARROW = 8
#: More work than this many times what there is to do is not worth an estimate.
_MOST_WORK = 64


@dataclass(frozen=True)
class Stretched(DirectSums):
    """The way of zeros in between, with what computes the rest."""

    ordinary: Ordinary
    name = "stretched"
    # a zero that stands between elements makes a NaN of an infinite weight
    local = False
    compiled = False

    def variant(self, problem: TransposedProblem) -> str:
        """The algorithm of the convolution of stride 1."""
        return "" if max(problem.stride) == 1 else self.ordinary.variant(_stretched(problem))

    def native(self, problem: TransposedProblem) -> bool:
        """Both layouts."""
        return True

    def unsupported(self, problem: TransposedProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this way is refused, or None."""
        if max(problem.stride) == 1:
            return "the stride is 1"
        if problem.c_out // problem.groups > _NARROW:
            return f"groups of more than {_NARROW} output channels fill the vectors of other ways"
        if prod(problem.stride) > _MOST_WORK:
            return f"it would do {prod(problem.stride)} times the work"
        return self.ordinary.unsupported(_stretched(problem), epilogue, machine)

    def estimate(self, problem: TransposedProblem, machine: Machine) -> Cost:
        """The convolution of stride 1, and zeros that are written and read with the input."""
        stretched = _stretched(problem)
        cost, nbytes = self.ordinary.estimate(stretched, machine), _bytes(stretched)
        rate = machine.rates.copy_bytes if nbytes <= machine.l2 else machine.rates.far_bytes
        seconds = cost.seconds + 2 * nbytes / rate / machine.rates.clock
        return cost._replace(seconds=seconds, staging_bytes=cost.staging_bytes + rounded(nbytes))

    def plan(
        self, problem: TransposedProblem, weights: TransposedWeights, epilogue: Epilogue, machine: Machine
    ) -> Plan:
        """Pack the weights, unless another plan has."""
        stretched = _stretched(problem)
        return _Plan(problem, stretched, self.ordinary.plan(stretched, weights, epilogue, machine))


class _Plan:
    """A plan made of one for the stretched input."""

    algorithm = Stretched.name

    def __init__(self, problem: TransposedProblem, stretched: TransposedProblem, inner: Plan):
        self.inner, self.problem, self._stretched = inner, problem, stretched
        self.workspace_bytes = inner.workspace_bytes
        self._bytes = rounded(_bytes(stretched))
        between = tuple(slice(None, None, step) for step in problem.stride)
        self._elements = (..., *between) if problem.layout == "channels_first" else (slice(None), *between)

    def scratch_bytes(self, threads: int) -> int:
        """Bytes for the stretched input and the inner plan's workspace."""
        return self._bytes + self.inner.scratch_bytes(threads)

    def run(self, x, out, residual=None, workspace=None, threads=None) -> None:
        """Compute into `out`; all arrays are contiguous."""
        threads = threads or usable_threads()
        if workspace is None:
            workspace = scratch(self.scratch_bytes(threads))
        addresses = (0 if array is None else address(array) for array in (x, out, residual))
        self.run_at(*addresses, workspace, threads)

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses."""
        dtype = self.problem.np_dtype
        stretched = view(workspace, self._stretched.input_shape, dtype)
        stretched[...] = 0
        stretched[self._elements] = view(x, self.problem.input_shape, dtype)
        self.inner.run_at(workspace, out, residual, workspace + self._bytes, threads)


def _stretched(p: TransposedProblem) -> TransposedProblem:
    """The same result from an input whose elements lie a stride apart."""
    sizes = tuple((size - 1) * step + 1 for size, step in zip(p.spatial, p.stride))
    return replace(p, spatial=sizes, stride=(1,) * len(sizes))


def _bytes(stretched: TransposedProblem) -> int:
    return prod(stretched.input_shape) * stretched.itemsize
