"""The family of algorithms that make tile lists for the GEMM core: what they share, from cost to running.

A member says how it cuts a problem (`cut`), which tables the plan keeps (`tables`), what it costs beyond the GEMM
(`extra_cycles`) and which loop nests run it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.addressed import AddressedPlan, Pitches
from numbaconv.algorithms.base import Cost, DirectSums
from numbaconv.algorithms.geometry import geometry, record, results, shared_fields
from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.jit import NativeFunction
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import PANEL_ROW, core_address, gemm_core
from numbaconv.loops.in_place import in_place_share
from numbaconv.loops.shares import Shares, even_grid, run_shares, share_address
from numbaconv.loops.walk import CALL_BYTES
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded

#: Seconds on one thread from which work is shared out: to start a second thread and to meet it takes 2 to 4 us.
_SHARED = 16e-6
#: Weights of more than so many times the input's bytes are shared out rather than the input.
_MUCH = 4


class Cut(NamedTuple):
    """How a problem is cut: fields of the `CONV` record, workspace a thread and memory of the plan's tables, in bytes."""

    fields: dict[str, int]
    workspace_bytes: int
    plan_bytes: int = 0


class Operand(NamedTuple):
    """How a loop nest packs weights that are computed: a function, and where in what it makes panels and their `unit` lie.

    One that is `staged` takes room for unsplit panels in its workspace.
    """

    packer: NativeFunction
    head: int = 0
    unit: int = 0
    staged: bool = False


class TiledAlgorithm(DirectSums):
    """Base of the tile family; `share` is the loop nest that computes a share of the work."""

    name: str
    #: what a thread's workspace starts with
    head_bytes = CALL_BYTES
    share = in_place_share
    #: whether its loops read and write channels-first tensors
    reads_planes = False
    #: for algorithms that multiply computed matrices, too
    operand: Operand | None = None

    def core(self, dtype: np.dtype) -> int:
        """Address of the compiled core that the loop nests call."""
        return core_address(gemm_core, dtype)

    def cut(self, g: dict[str, int], machine: Machine) -> Cut:
        """Choose lines, tiles and blocks for a geometry; pure."""
        raise NotImplementedError

    def loop_fields(self, g: dict[str, int], machine: Machine) -> dict[str, int]:
        """Fields of the `CONV` record that no cost follows from; `g` holds the cut, too."""
        return {}

    def tables(self, g: dict[str, int], cut: Cut) -> dict[str, np.ndarray]:
        """Arrays that the plan keeps, by the field of the `CONV` record that holds their address."""
        raise NotImplementedError

    def operands(self, weights: Weights, g: dict[str, int]) -> dict[str, np.ndarray]:
        """The packed weights, by the field of the `CONV` record that holds their address."""
        return {"panels": weights.panels, "bias": weights.packed_bias}

    def functions(self, g: dict[str, int], np_dtype: np.dtype) -> dict[str, int]:
        """Entry points of compiled functions that the loops call, by the field of the `CONV` record that holds them."""
        return {"core": self.core(np_dtype)}

    def shares(self, g: dict[str, int]) -> tuple[int, int]:
        """Rows and columns of work that threads may share out: tiles of all images, panels of all groups."""
        return g["n"] * g["lines"] * g["tiles_per_line"], g["groups"] * g["panels_per_group"]

    def zeros(self, g: dict[str, int]) -> int:
        """Bytes of zeros that stand for padding, and for the bias of sums that are not complete yet."""
        return max(g["c_in"] * g["itemsize"], g["panels_per_group"] * PANEL_ROW)

    def gemm_cycles(self, g: dict[str, int], machine: Machine) -> float:
        """Cycles of the GEMM core; `g` holds the cut, too."""
        return cost.gemm_cycles(g, machine)

    def shared_cycles(self, problem: ConvProblem, g: dict[str, int], machine: Machine) -> float:
        """Cycles by which a plan is judged to be worth a second thread; `g` holds the cut, too."""
        return self.gemm_cycles(g, machine)

    def far_cycles(self, g: dict[str, int], machine: Machine) -> float:
        """Cycles that wait for operands from beyond the L2; column blocks are outside, so that x comes once each.

        A panel that does not fit it comes again for each tile.
        """
        panels = g["groups"] * g["panels_per_group"]
        weights = cost.weights_read(g, panels)
        waits = cost.far_cycles(g, machine, weights, -(-panels // g["column_block"]), 1, streams=True)
        if g["panel_bytes"] <= machine.l2:
            return waits
        # after the first, each tile reads what it meets of them once more
        met = panels * g["panel_bytes"] * cost.taps_met(g, g["line"] / g["tiles_per_line"]) / g["window"]
        return waits + (cost.tile_count(g) - 1) * cost.IN_ORDER * met / machine.rates.far_bytes

    def extra_cycles(self, problem: ConvProblem, g: dict[str, int], machine: Machine) -> float:
        """What the algorithm costs beyond the GEMM core; `g` holds the cut, too."""
        raise NotImplementedError

    def least_extra(self, least: cost.LeastWork, machine: Machine) -> float:
        """A lower bound of `extra_cycles`, and of how `far_cycles` differs from that of others."""
        return 0.0

    def unsupported(self, problem: ConvProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """Why this algorithm refuses, or None."""
        return None

    def least_seconds(self, problem: ConvProblem, machine: Machine) -> float:
        """What the core cannot do without, and the algorithm's own."""
        least = cost.least_work(problem, machine)
        return (least.core + least.far + self.least_extra(least, machine)) / machine.rates.clock

    def estimate(self, problem: ConvProblem, machine: Machine) -> Cost:
        """Cycles of the GEMM core, of operands that come from beyond the L2, and the algorithm's own."""
        g, cut, cycles = self._near(problem, machine)
        seconds = (cycles + self.far_cycles(g, machine)) / machine.rates.clock
        return Cost(seconds, self.head_bytes + cut.workspace_bytes, cut.plan_bytes)

    def near_cycles(self, problem: ConvProblem, machine: Machine) -> float:
        """What the same would take if all operands were in the L2."""
        return self._near(problem, machine)[2]

    def _near(self, problem: ConvProblem, machine: Machine) -> tuple[dict[str, int], Cut, float]:
        g = shared_fields(problem, self.reads_planes)
        cut = self.cut(g, machine)
        g = g | cut.fields
        return g, cut, self.gemm_cycles(g, machine) + self.extra_cycles(problem, g, machine)

    def plan(self, problem: ConvProblem, weights: Weights, epilogue: Epilogue, machine: Machine) -> TiledPlan:
        """Pack the weights, unless another plan has, and build tables."""
        return TiledPlan(self, problem, weights, epilogue, machine)


class TiledPlan(AddressedPlan):
    """Plan of a `TiledAlgorithm`."""

    def __init__(
        self, algorithm: TiledAlgorithm, problem: ConvProblem, weights: Weights, epilogue: Epilogue, machine: Machine
    ):
        self.algorithm, self.problem, self.epilogue = algorithm.name, problem, epilogue
        self._algorithm, self._weights, self._machine = algorithm, weights, machine
        # the type of these two scalars selects the element type of the compiled loops
        scalar, activation = problem.np_dtype.type, epilogue.activation
        self._alpha, self._beta = scalar(activation.alpha), scalar(activation.beta)
        # channels-first planes have none
        self.gaps = not algorithm.reads_planes
        self._variants: dict[Pitches, _Variant] = {}
        default = self._default = self._variant((problem.c_in, problem.c_out, problem.c_out))
        self._rows, self._columns = default.shares
        self.workspace_bytes, self.plan_bytes = default.workspace_bytes, default.plan_bytes

    def scratch_bytes(self, threads: int, pitches: Pitches | None = None) -> int:
        """Bytes of workspace that `run` needs on so many threads."""
        return self._variant(pitches).workspace_bytes * threads

    def run_at(
        self, x: int, out: int, residual: int, workspace: int, threads: int, pitches: Pitches | None = None
    ) -> None:
        """As `run`, on addresses."""
        if self._rows:
            run_shares(self._shares(self._variant(pitches), threads), x, out, residual, workspace)

    def shares(self, threads: int, pitches: Pitches | None = None) -> Shares:
        """The work cut for so many threads, for tensors whose pixels lie so many elements apart (x, out, residual)."""
        return self._shares(self._variant(pitches), threads)

    def _shares(self, variant: _Variant, threads: int) -> Shares:
        shares = variant.launches.get(threads)
        if shares is None:
            together = threads if variant.seconds >= _SHARED else 1
            shares = variant.launches[threads] = Shares(
                variant.function,
                *even_grid(self._rows, self._columns, together, variant.far_weights),
                variant.address,
                variant.workspace_bytes,
                self._alpha,
                self._beta,
                variant,
            )
        return shares

    def _variant(self, pitches: Pitches | None) -> _Variant:
        if pitches is None:
            return self._default
        variant = self._variants.get(pitches)
        if variant is None:
            variant = self._variants[pitches] = _Variant(self, pitches)
        return variant


class _Variant:
    """The record and tables of a plan for one set of pixel pitches; nearly every plan has just one."""

    def __init__(self, plan: TiledPlan, pitches: Pitches):
        weights, problem = plan._weights, plan.problem
        g = geometry(problem, pitches, plan._algorithm.reads_planes)
        cut = plan._algorithm.cut(g, plan._machine)
        g |= results(g, plan._machine) | cut.fields
        self.seconds = plan._algorithm.shared_cycles(problem, g, plan._machine) / plan._machine.rates.clock
        g |= plan._algorithm.loop_fields(g, plan._machine)
        self.tables = plan._algorithm.tables(g, cut) | plan._algorithm.operands(weights, g)
        self.tables["zeros"] = np.zeros(plan._algorithm.zeros(g), np.uint8)
        g |= plan._algorithm.functions(g, problem.np_dtype)
        g["activation"] = plan.epilogue.activation.code
        g["cold"] = int(not plan._machine.weights_kept)
        self.record = record(g | {name: table.ctypes.data for name, table in self.tables.items()})
        self.address = self.record.ctypes.data
        self.function = share_address(plan._algorithm.share, problem.np_dtype)
        self.launches: dict[int, Shares] = {}
        self.shares = plan._algorithm.shares(g)
        # no thread's L2 keeps them beside what else it holds, and the input is little next to them
        nbytes = self.tables["panels"].nbytes if "panels" in self.tables else 0
        self.far_weights = nbytes > max(plan._machine.l2 // 2, _MUCH * g["n"] * g["x_image"])
        self.workspace_bytes = rounded(plan._algorithm.head_bytes + cut.workspace_bytes)
        self.plan_bytes = cut.plan_bytes
