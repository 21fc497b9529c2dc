"""Transposed convolution as one GEMM over the pixels of the input, whose products each output pixel then gathers and adds.

Every weight is read once, in the order of memory, whatever the stride, so it wins where weights outgrow the caches and images
are small: the first layers of generators, which read tens of megabytes for a few pixels.  Larger images would write and read more
products than their result is; a single pixel's products are the result, which phases write at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.addressed import AddressedPlan
from numbaconv.algorithms.base import Cost, DirectSums
from numbaconv.algorithms.cost import in_order_cycles
from numbaconv.codegen.records import NEIGHBOURS
from numbaconv.dispatch.select import best_compiled, make_plan
from numbaconv.epilogue import Epilogue
from numbaconv.loops.ndarrays import address
from numbaconv.loops.neighbours import neighbours_share
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.transposed.problem import TransposedProblem
from numbaconv.transposed.weights import TransposedWeights
from numbaconv.workspace import rounded, view

#: The most pairs of an output pixel and a tap.
MOST_PAIRS = 1 << 18
#: Seconds to start adding, besides the products' plan.
_LAUNCH = 12e-6


@dataclass(frozen=True)
class Gather(DirectSums):
    """The way of products of whole pixels, which keep to the budget of rounding errors that is given here."""

    accuracy: Accuracy
    name = "gather"

    def unsupported(self, problem: TransposedProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this way is refused, or None."""
        if problem.groups > 1:
            return "groups are not multiplied apart"
        pairs = max(problem.n, 1) * prod(problem.out_spatial) * problem.taps
        if pairs > MOST_PAIRS:
            return f"more than {MOST_PAIRS} pairs of an output pixel and a tap"
        return None

    def estimate(self, problem: TransposedProblem, machine: Machine) -> Cost:
        """Products, weights from beyond the L2, and products that are written, read and added."""
        inner = _products(problem)
        candidate = best_compiled(inner, Epilogue(), machine, self.accuracy)
        algorithm, cost = candidate.algorithm, candidate.cost
        weights = prod(inner.weight_shape) * problem.itemsize
        staging = prod(inner.output_shape) * problem.itemsize
        added = len(_met(problem)[1]) * problem.c_out * problem.itemsize
        moved = (staging + added) / (
            machine.rates.copy_bytes if staging <= machine.l2 // 2 else machine.rates.far_bytes
        )
        cycles = algorithm.near_cycles(inner, machine) + in_order_cycles(weights, machine) + moved
        return replace(cost, seconds=_LAUNCH + cycles / machine.rates.clock, staging_bytes=staging)

    def plan(
        self, problem: TransposedProblem, weights: TransposedWeights, epilogue: Epilogue, machine: Machine
    ) -> _Plan:
        """Pack the weights, unless another plan has."""
        return _Plan(problem, weights, epilogue, self.accuracy)


def _products(p: TransposedProblem) -> ConvProblem:
    """Each pixel times all taps of all output channels; an empty batch is posed as one image."""
    pixels = (max(p.n, 1) * prod(p.spatial),)
    return ConvProblem(1, p.c_in, p.taps * p.c_out, pixels, (1,), (1,), (1,), ((0, 0),), 1, p.dtype, "channels_last")


@lru_cache(maxsize=64)
def _met(p: TransposedProblem) -> tuple[np.ndarray, np.ndarray]:
    """(starts, rows): the rows of products, (pixel, tap), that each output pixel is the sum of, and a last one for the bias."""
    met, rows = np.ones((1, 1), bool), np.zeros((1, 1), np.int64)
    pixels = np.zeros((1, 1), np.int64)
    for size, out, kernel, stride, dilation, (before, _) in zip(
        p.spatial, p.out_spatial, p.kernel, p.stride, p.dilation, p.padding
    ):
        reach = np.arange(out)[:, None] + before - np.arange(kernel) * dilation
        at, rest = np.divmod(reach, stride)
        inside = (rest == 0) & (at >= 0) & (at < size)
        met = np.kron(met, np.ones((out, kernel), bool)) & np.tile(inside, met.shape)
        pixels = np.repeat(np.repeat(pixels * size, out, 0), kernel, 1) + np.tile(at, pixels.shape)
        rows = np.repeat(rows * kernel, kernel, 1) + np.tile(np.arange(kernel), rows.shape)
    image = np.arange(p.n)[:, None, None] * prod(p.spatial)
    met = np.concatenate([np.tile(met, (p.n, 1)), np.ones((p.n * len(met), 1), bool)], 1)
    rows = ((image + pixels) * p.taps + rows).reshape(-1, p.taps)
    bias = np.full((len(rows), 1), p.n * prod(p.spatial) * p.taps)
    starts = np.concatenate([[0], np.cumsum(met.sum(1))])
    return starts, np.concatenate([rows, bias], 1)[met]


class _Plan(AddressedPlan):
    """A pointwise plan for the products, and the table by which they are added up."""

    algorithm = Gather.name

    def __init__(self, problem: TransposedProblem, weights: TransposedWeights, epilogue: Epilogue, accuracy: Accuracy):
        self.problem, self.epilogue = problem, epilogue
        self._inner = make_plan(_products(problem), Epilogue(), weights.taps_apart, accuracy=accuracy)
        self._bias = weights.bias
        self._starts, self._rows = _met(problem)
        self._ones = np.ones(len(self._rows), problem.np_dtype)
        tables = map(address, (self._starts, self._rows, self._ones))
        self._record = np.array((len(self._starts) - 1, *tables, problem.c_out), NEIGHBOURS)
        self._function = share_address(neighbours_share, problem.np_dtype)
        self._row = problem.c_out * problem.itemsize
        self._products = problem.n * prod(problem.spatial) * problem.taps
        self._staging = rounded((self._products + 1) * self._row)
        self.workspace_bytes = self._inner.workspace_bytes
        self.plan_bytes = sum(table.nbytes for table in (self._starts, self._rows, self._ones))

    def scratch_bytes(self, threads: int) -> int:
        """Bytes for the products and the inner plan's workspace."""
        return self._staging + self._inner.scratch_bytes(threads)

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses."""
        p, outputs = self.problem, len(self._starts) - 1
        if not outputs:
            return
        self._inner.run_at(x, workspace, 0, workspace + self._staging, threads)
        view(workspace + self._products * self._row, self._bias.shape, p.np_dtype)[...] = self._bias
        zero = p.np_dtype.type(0)
        work = Shares(self._function, min(threads, outputs), 1, self._record.ctypes.data, 0, zero, zero, self._record)
        run_shares(work, workspace, out, 0, 0)
        result = view(out, p.output_shape, p.np_dtype)
        if residual:
            result += view(residual, p.output_shape, p.np_dtype)
        if not self.epilogue.activation.is_identity:
            result[...] = self.epilogue.activation.apply(result)
