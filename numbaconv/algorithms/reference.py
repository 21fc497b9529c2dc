"""The oracle behind the interface of every algorithm: never fast, never wrong, chosen only when nothing else applies."""

from __future__ import annotations

from numbaconv.algorithms.base import Cost, DirectSums
from numbaconv.problem import LAYOUTS
from numbaconv.reference import reference_conv

#: Seconds for a call and for one multiplication.  Far too many on purpose: it is for problems that all others refuse.
_CALL, _SECONDS = 1e-2, 1e-6


class Reference(DirectSums):
    """Seven scalar loops."""

    name = "reference"
    compiled = False
    layouts = LAYOUTS
    groupings = ()

    def unsupported(self, problem, epilogue, machine):
        """It does everything."""
        return

    def estimate(self, problem, machine):
        """More than any other."""
        return Cost(_CALL + problem.macs * _SECONDS, 0)

    def plan(self, problem, weights, epilogue, machine):
        """Nothing to prepare."""
        return ReferencePlan(problem, weights, epilogue)


class ReferencePlan:
    """Runs the oracle and copies its result."""

    algorithm = Reference.name
    workspace_bytes = plan_bytes = 0

    def __init__(self, problem, weights, epilogue):
        self.problem, self.epilogue, self._weights = problem, epilogue, weights

    def scratch_bytes(self, threads):
        """None: the oracle allocates what it needs."""
        return 0

    def run(self, x, out, residual=None, workspace=None, threads=None):
        """Compute into `out`; see `Plan.run`."""
        weight, bias = self._weights.unpacked()
        out[...] = reference_conv(self.problem, x, weight, bias, residual, self.epilogue.activation)
