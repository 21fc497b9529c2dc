"""A padded copy of the input in front of a plan that pads with zeros only: reflected, repeated or from the other end."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.addressed import AddressedPlan, Pitches
from numbaconv.algorithms.base import Algorithm, Cost
from numbaconv.algorithms.geometry import geometry, record
from numbaconv.loops.padding import padding_share
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded

#: Bytes below which a second thread costs more than it saves.
_WORTH_THREADS = 1 << 16


def posed_to(algorithm: Algorithm, problem: ConvProblem) -> ConvProblem:
    """The problem as an algorithm is given it: padded already, unless it can do that or there is nothing but zeros to add."""
    if algorithm.padding_modes or problem.padding_mode == "zeros":
        return problem
    return replace(problem, spatial=problem.padded, padding=((0, 0),) * len(problem.spatial), padding_mode="zeros")


def around(inner: Cost, problem: ConvProblem, machine: Machine) -> Cost:
    """What a plan of that cost takes with the copy in front of it."""
    g = _rows(problem, problem.c_in)
    cycles = cost.packing_cycles(g, 1 + sum(problem.padding[-1]), machine.rates)
    nbytes = _copy_bytes(problem)
    if 2 * nbytes > machine.l2:
        cycles += nbytes / machine.rates.far_bytes
    seconds = inner.seconds + cycles / machine.rates.clock
    return replace(inner, seconds=seconds, staging_bytes=inner.staging_bytes + nbytes)


class PaddedCopy(AddressedPlan):
    """A plan for a problem made of one for its padded input."""

    def __init__(self, inner: AddressedPlan, problem: ConvProblem):
        self.inner, self.problem, self.epilogue = inner, problem, inner.epilogue
        self.algorithm, self.plan_bytes = inner.algorithm, inner.plan_bytes
        self.workspace_bytes, self.gaps = inner.workspace_bytes, inner.gaps
        self._bytes = rounded(_copy_bytes(problem))
        self._function, self._zero = share_address(padding_share, problem.np_dtype), problem.np_dtype.type(0)
        self._records: dict[int, np.ndarray] = {}
        self._record(problem.c_in)

    def scratch_bytes(self, threads: int, pitches: Pitches | None = None) -> int:
        """Bytes for the copy and the inner plan's workspace."""
        return self._bytes + self.inner.scratch_bytes(threads, *self._inner_pitches(pitches))

    def run_at(
        self, x: int, out: int, residual: int, workspace: int, threads: int, pitches: Pitches | None = None
    ) -> None:
        """As `run`, on addresses."""
        self._copy(x, workspace, pitches[0] if pitches else self.problem.c_in, threads)
        inner = workspace + self._bytes
        self.inner.run_at(workspace, out, residual, inner, threads, *self._inner_pitches(pitches))

    def _inner_pitches(self, pitches: Pitches | None) -> tuple[Pitches, ...]:
        """The copy has no gaps."""
        return ((self.problem.c_in, *pitches[1:]),) if pitches else ()

    def _copy(self, x: int, to: int, pitch: int, threads: int) -> None:
        conv = self._record(pitch)
        parts = 1 if self._bytes < _WORTH_THREADS else min(threads, max(int(conv["n"] * conv["out_pixels"]), 1))
        work = Shares(self._function, parts, 1, conv.ctypes.data, 0, self._zero, self._zero, conv)
        run_shares(work, x, to, 0, 0)

    def _record(self, pitch: int) -> np.ndarray:
        if pitch not in self._records:
            self._records[pitch] = record(_rows(self.problem, pitch))
        return self._records[pitch]


def _copy_bytes(problem: ConvProblem) -> int:
    return problem.n * problem.c_in * prod(problem.padded) * problem.itemsize


def _rows(problem: ConvProblem, pitch: int) -> dict[str, int]:
    """Fields of the `CONV` record whose patches are the padded rows; pixels of the input lie `pitch` elements apart."""
    n, c_in = problem.n, problem.c_in
    if problem.layout == "channels_first":
        # each plane is an image of one channel
        n, c_in, pitch = n * c_in, 1, 1
    ones = (1,) * len(problem.spatial)
    kernel = (*ones[1:], problem.padded[-1])
    rows = replace(
        problem, n=n, c_in=c_in, c_out=1, groups=1, kernel=kernel, stride=ones, dilation=ones, layout="channels_last"
    )
    return geometry(rows, (pitch, 1, 1)) | {"patch_pitch": problem.padded[-1] * c_in * problem.itemsize}
