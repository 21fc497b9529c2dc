"""What every algorithm is: a reason to refuse, a cost, and a plan that runs.

Adding one is a file of its own and a line in `algorithms/__init__.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import cost
from numbaconv.algorithms.addressed import Pitches
from numbaconv.algorithms.weights import Weights
from numbaconv.epilogue import Epilogue
from numbaconv.loops.shares import Shares
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.values import GROUPINGS


@dataclass(slots=True, order=True)  # the quickest first
class Cost:
    """An estimate: seconds on one thread, and memory in bytes.

    `workspace_bytes` are those of one thread, `plan_bytes` what the plan keeps besides the weights, `staging_bytes` what all
    threads share for transposed tensors.
    """

    seconds: float
    workspace_bytes: int
    plan_bytes: int = 0
    staging_bytes: int = 0


class Plan(Protocol):
    """A problem made ready to run; immutable, and safe to share between threads."""

    algorithm: str
    #: bytes of workspace a thread
    workspace_bytes: int

    def scratch_bytes(self, threads: int) -> int:
        """Bytes of workspace that `run` needs on so many threads."""

    def run(
        self,
        x: np.ndarray,
        out: np.ndarray,
        residual: np.ndarray | None = None,
        workspace: int | None = None,
        threads: int | None = None,
    ) -> None:
        """Compute into `out`.

        Channels-last arrays may have pixels a fixed pitch apart, channels-first ones are contiguous.  `workspace` is the
        address of `scratch_bytes(threads)` bytes; without it the calling thread's own scratch is used.  `threads` is by
        default what `get_num_threads` says.
        """


@runtime_checkable
class CompiledPlan(Plan, Protocol):
    """A plan that can be run on the addresses of contiguous arrays, which saves looking at them."""

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`; `residual` is 0 where there is none."""


@runtime_checkable
class LoopNestPlan(CompiledPlan, Protocol):
    """A plan that is one loop nest: what a step of a network's program and a part of another nest have to be."""

    def shares(self, threads: int, pitches: Pitches | None = None) -> Shares:
        """The work cut for so many threads, for tensors whose pixels lie so many elements apart (x, out, residual)."""


#: A lower bound in seconds of a problem on a machine.
Floor = Callable[[ConvProblem, Machine], float]


class Family(NamedTuple):
    """A floor of the sizes of one algorithm: `leader` says the `m` of one that does the problem and that no other is ahead of, or
    None.
    """

    floor: Floor
    leader: Callable[[ConvProblem, Machine], int | None]

    def __call__(self, problem: ConvProblem, machine: Machine) -> float:
        return self.floor(problem, machine)


class Algorithm(Protocol):
    """One way to compute a convolution."""

    name: str
    #: whether a NaN or infinity reaches only the outputs whose sums it is part of
    local: bool
    #: whether it pads other than with zeros itself; others are given a copy that is padded already (`padded.PaddedCopy`)
    padding_modes: bool
    #: whether plans are compiled loops alone, which the program of a network may hold
    compiled: bool
    #: whether its weights are packed in passing; transforming those that are new in each call would take longer than it saves
    repacked: bool
    #: the layouts that its plans may read and write; around others they are wrapped in `layout.ChannelsFirst`
    layouts: tuple[str, ...]
    #: for which of `values.GROUPINGS` it may be the fastest; for none, if it is for what all others refuse
    groupings: tuple[str, ...]
    #: what none of the algorithms goes below that share these functions, the quickest first
    floors: tuple[Floor, ...]

    def variant(self, problem: ConvProblem) -> str:
        """Which of several forms of the algorithm this one is, or nothing."""

    def rms_error(self, problem: ConvProblem) -> float:
        """Bound of the root mean square error over that of the result; 0 where products are added directly."""

    def native(self, problem: ConvProblem) -> bool:
        """Whether those for this problem read and write its layout, which has to be one of `layouts`."""

    def unavailable(self, machine: Machine) -> str | None:
        """Why this algorithm refuses every problem on a machine, or None."""

    def unsupported(self, problem: ConvProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this algorithm refuses, in a short phrase, or None."""

    def least_seconds(self, problem: ConvProblem, machine: Machine) -> float:
        """A lower bound of what `estimate` says, for problems that are not `unsupported`; the quicker to find the better."""

    def estimate(self, problem: ConvProblem, machine: Machine) -> Cost:
        """What running would cost; pure."""

    def too_large(self, cost: Cost) -> str | None:
        """Why what it would cost is too much memory, or None."""

    def plan(self, problem: ConvProblem, weights: Weights, epilogue: Epilogue, machine: Machine) -> Plan:
        """Pack weights and build tables, once."""


def inaccurate(algorithm: Algorithm, problem: ConvProblem, accuracy: Accuracy) -> str | None:
    """Why an algorithm is not exact enough, or None."""
    if accuracy.local and not algorithm.local:
        return "spreads NaN and infinity beyond their place"
    error = algorithm.rms_error(problem)
    return f"its expected error of {error:.1e} exceeds {accuracy.rms:.1e}" if error > accuracy.rms else None


class DirectSums:
    """What holds for algorithms that come in one form and add the products of the definition."""

    local = True
    padding_modes = True
    compiled = True
    repacked = True
    layouts = ("channels_last",)
    groupings = GROUPINGS
    floors = (cost.least_seconds,)
    #: bytes of workspace a thread and of tables beyond which the algorithm refuses
    workspace_limit = plan_limit = inf

    def variant(self, problem: ConvProblem) -> str:
        """There is one form only."""
        return ""

    def native(self, problem: ConvProblem) -> bool:
        """Whether plans read and write the problem's layout themselves."""
        return problem.layout in self.layouts

    def unavailable(self, machine: Machine) -> str | None:
        """Every machine has vectors."""
        return None

    def rms_error(self, problem: ConvProblem) -> float:
        """The sums that all others are compared with."""
        return 0.0

    def least_seconds(self, problem: ConvProblem, machine: Machine) -> float:
        """Nothing is known without an estimate."""
        return 0.0

    def too_large(self, cost: Cost) -> str | None:
        """Why what it would cost is too much memory, or None."""
        if cost.workspace_bytes > self.workspace_limit:
            return f"its workspace would take {cost.workspace_bytes >> 10} KiB, more than {self.workspace_limit >> 10}"
        if cost.plan_bytes > self.plan_limit:
            return f"its tables would take {cost.plan_bytes >> 20} MiB, more than {self.plan_limit >> 20}"
        return None
