"""Channels-first tensors around a channels-last plan: one blocked transposition each way, through the workspace."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from math import prod

from numbaconv.algorithms.addressed import AddressedPlan
from numbaconv.algorithms.base import Cost, Plan
from numbaconv.algorithms.cost import BEYOND_L3, L3_SHARE
from numbaconv.codegen.target import TARGETS
from numbaconv.codegen.weave import STREAMS
from numbaconv.epilogue import Epilogue
from numbaconv.loops.shares import run_shares
from numbaconv.loops.transpose import Transposition
from numbaconv.machine import Machine
from numbaconv.memo import said_last_of_two
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded

#: Cycles to call one transposition and to start its loops; measured on tensors of 20 to 400 KB.
_CALL = 8000.0


def around(cost: Cost, problem: ConvProblem, epilogue: Epilogue, machine: Machine) -> Cost:
    """What a channels-last plan of that cost takes for channels-first tensors."""
    moved, nbytes = transposing(epilogue.residual)(problem, machine)
    return Cost(cost.seconds + moved, cost.workspace_bytes, cost.plan_bytes, nbytes)


@cache
def transposing(residual: bool) -> Callable[[ConvProblem, Machine], tuple[float, int]]:
    """A function of seconds to transpose the tensors, with or without a residual, and bytes of the transposes."""
    # all algorithms around which tensors are transposed ask for the same
    return said_last_of_two(partial(_transposing, residual))


def _transposing(residual: bool, problem: ConvProblem, machine: Machine) -> tuple[float, int]:
    """Each tensor is read once and written once."""
    rates, size, c_in, c_out = machine.rates, problem.itemsize, problem.c_in, problem.c_out
    x_pixels, out_pixels = prod(problem.spatial), prod(problem.out_spatial)
    x_differs, out_differs = _differ(c_in, x_pixels), _differ(c_out, out_pixels)
    results = (2 if residual else 1) if out_differs else 0
    x_pixels *= problem.n * size * x_differs
    out_pixels *= problem.n * size * results
    nbytes, lanes = x_pixels * c_in + out_pixels * c_out, TARGETS[machine.isa].vector_bytes // size
    moved = x_pixels * _moved(c_in, lanes) + out_pixels * _moved(c_out, lanes)
    # tensors and transposes must all stay in the L2, since the algorithm uses both sides between
    rate = rates.transpose_bytes if 3 * nbytes <= machine.l2 else rates.transpose_far_bytes
    if nbytes > L3_SHARE:
        # the L3 keeps a part until it is read
        rate /= BEYOND_L3 - (BEYOND_L3 - 1) * L3_SHARE / nbytes
    return (2 * moved / rate + _CALL * (x_differs + results)) / rates.clock, nbytes


def _moved(channels: int, lanes: int) -> int:
    """Channels that a pixel takes the time of: few are woven, and a block of fewer than lanes takes no less than of so many."""
    return channels if channels <= STREAMS or channels >= lanes else lanes


def _differ(channels: int, pixels: int) -> bool:
    """Whether the layouts differ in memory: not for one channel, nor for one pixel."""
    return channels > 1 and pixels > 1


class ChannelsFirst(AddressedPlan):
    """A plan for contiguous (n, c, *spatial) arrays made of a plan for (n, *spatial, c) ones."""

    def __init__(self, inner: Plan, problem: ConvProblem):
        self.inner, self.problem, self.epilogue = inner, problem, inner.epilogue
        self.algorithm, self.plan_bytes = inner.algorithm, inner.plan_bytes
        self.workspace_bytes = inner.workspace_bytes
        pixels, out_pixels = prod(problem.spatial), prod(problem.out_spatial)
        self._inward = Transposition(problem.n, problem.c_in, pixels, problem.np_dtype)
        self._inward_residual = Transposition(problem.n, problem.c_out, out_pixels, problem.np_dtype)
        self._outward = Transposition(problem.n, out_pixels, problem.c_out, problem.np_dtype)
        size = problem.n * problem.itemsize
        # 0 where nothing is to be transposed
        self._x_bytes, self._out_bytes = (
            rounded(size * problem.c_in * pixels) * _differ(problem.c_in, pixels),
            rounded(size * problem.c_out * out_pixels) * _differ(problem.c_out, out_pixels),
        )
        self._staging = self._x_bytes + self._out_bytes * (2 if inner.epilogue.residual else 1)

    def scratch_bytes(self, threads: int) -> int:
        """Bytes for the transposed tensors and the inner plan's workspace."""
        return self._staging + self.inner.scratch_bytes(threads)

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses."""
        inner_x, inner_out, inner_residual = x, out, residual
        if self._x_bytes:
            inner_x = workspace
            run_shares(self._inward.shares(threads), x, inner_x, 0, 0)
        if self._out_bytes:
            inner_out = workspace + self._x_bytes
            if residual:
                inner_residual = inner_out + self._out_bytes
                run_shares(self._inward_residual.shares(threads), residual, inner_residual, 0, 0)
        self.inner.run_at(inner_x, inner_out, inner_residual, workspace + self._staging, threads)
        if self._out_bytes:
            run_shares(self._outward.shares(threads), inner_out, out, 0, 0)
