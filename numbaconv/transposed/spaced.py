"""What ways share that compute a result in parts, each with its outputs apart in it: loops that know, and the plan of all parts."""

from __future__ import annotations

from math import prod

from numbaconv.algorithms.addressed import AddressedPlan
from numbaconv.algorithms.tiled import TiledPlan
from numbaconv.epilogue import Epilogue
from numbaconv.transposed.problem import TransposedProblem


class Spaced:
    """Mixed into an algorithm: pixels of its result lie `steps` apart from image to image, slice to slice, line to line and column
    to column.
    """

    def __init__(self, steps: tuple[int, int, int, int], *arguments):
        super().__init__(*arguments)
        self._steps = steps

    def cut(self, g, machine):
        """As ever, and where outputs lie."""
        steps = dict(zip(("image_step", "slice_step", "line_step", "column_step"), self._steps))
        cut = super().cut(g | steps, machine)
        return cut._replace(fields=steps | cut.fields)


class InTurn(AddressedPlan):
    """Plans of all parts, each with the pixel of the result that it begins with, which take turns `n` images at a time."""

    def __init__(
        self, name: str, problem: TransposedProblem, epilogue: Epilogue, n: int, plans: list[tuple[int, TiledPlan]]
    ):
        self.algorithm, self.problem, self.epilogue = name, problem, epilogue
        self._plans = plans
        self.workspace_bytes = max(plan.workspace_bytes for _, plan in plans)
        self.plan_bytes = sum(plan.plan_bytes for _, plan in plans)
        self._rounds = problem.n // max(n, 1)
        self._pixel = problem.c_out * problem.itemsize
        self._x_bytes = n * prod(problem.spatial) * problem.c_in * problem.itemsize
        self._out_bytes = n * prod(problem.out_spatial) * self._pixel

    def scratch_bytes(self, threads: int) -> int:
        """Bytes of workspace that `run` needs on so many threads."""
        return self.workspace_bytes * threads

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses."""
        for number in range(self._rounds):
            at = number * self._out_bytes
            for first, plan in self._plans:
                to = at + first * self._pixel
                plan.run_at(x + number * self._x_bytes, out + to, residual + to if residual else 0, workspace, threads)
