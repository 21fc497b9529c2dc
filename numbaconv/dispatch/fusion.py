"""Whether convolutions around a depthwise one run fused, strip by strip, or one after the other; and the plan of either way."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import prod

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.addressed import AddressedPlan
from numbaconv.algorithms.base import Plan
from numbaconv.algorithms.bottleneck import Bottleneck, BottleneckPlan, Stage
from numbaconv.algorithms.layout import ChannelsFirst, around
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.dispatch.select import best, make_plan
from numbaconv.epilogue import Epilogue
from numbaconv.errors import ConvError, UnsupportedError
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded

STRIPS, STEPS = WAYS = ("strips", "steps")
#: Where estimates are as close as this, strips are faster: measured on the blocks of MobileNet and MobileNetV2.
_CLOSE = 1.05


@dataclass(frozen=True)
class Way:
    """One way to run: why it refuses, or its estimate in seconds on one thread."""

    name: str
    reason: str | None
    seconds: float | None


@dataclass(frozen=True)
class Fusion:
    """The ways to run some convolutions in a row, the best one first; prints as a table."""

    problems: tuple[ConvProblem, ...]
    ways: tuple[Way, ...]

    def __str__(self) -> str:
        lines = [" -> ".join(map(str, self.problems))]
        for mark, way in zip("* ", self.ways):
            lines.append(f"{mark} {way.name:<22}{way.reason or f'{way.seconds * 1e6:>11.1f} us'}")
        return "\n".join(lines)


def weigh(problems: tuple[ConvProblem, ...], epilogue: Epilogue, accuracy: Accuracy | None = None) -> Fusion:
    """Rank strips and steps for problems of one layout: an expansion or none, a depthwise convolution, a projection.

    `epilogue` is that of the last one.
    """
    machine, accuracy = calibrated_machine(), Accuracy.of(accuracy)
    steps = sum(best(p, _epilogue(p, epilogue, p is problems[-1]), machine, accuracy).cost.seconds for p in problems)
    fused = _bottleneck(problems, accuracy)
    reason, seconds = fused.unsupported(machine), None
    if reason is None:
        cost, layout = fused.estimate(machine), problems[0].layout
        if layout == "channels_first":
            cost = around(cost, fused.whole(layout), epilogue, machine)
        seconds = cost.seconds
    strips = Way(STRIPS, reason, seconds)
    ways = strips, Way(STEPS, None, steps)
    return Fusion(problems, ways if reason is None and seconds < _CLOSE * steps else ways[::-1])


def _epilogue(p: ConvProblem, last: Epilogue, is_last: bool) -> Epilogue:
    return dataclasses.replace(last, bias=p.bias) if is_last else Epilogue(p.bias)


def _bottleneck(problems: tuple[ConvProblem, ...], accuracy: Accuracy) -> Bottleneck:
    inner = [dataclasses.replace(p, layout="channels_last") for p in problems]
    return Bottleneck(*([None] * (3 - len(inner))), *inner, accuracy)


def make_fused_plan(
    stages: tuple[Stage, ...],
    residual: bool,
    way: str = "auto",
    accuracy: Accuracy | None = None,
    machine: Machine | None = None,
) -> Plan:
    """A plan for tensors in the layout of the stages' problems; the machine is by default this one.

    Raises
    ------
    UnsupportedError
        If the way asked for refuses.
    ConvError
        If there is no such way.
    """
    problems, accuracy = tuple(stage.problem for stage in stages), Accuracy.of(accuracy)
    last = stages[-1]
    fusion = weigh(problems, Epilogue(last.problem.bias, residual, last.activation), accuracy)
    if way == "auto":
        way = fusion.ways[0].name
    elif not isinstance(way, str) or way not in WAYS:
        raise ConvError(f"algorithm={way!r} is unknown; it must be 'auto', {', '.join(map(repr, WAYS))}")
    if reason := next(w.reason for w in fusion.ways if w.name == way):
        raise UnsupportedError(f"algorithm={way!r} cannot do {' -> '.join(map(str, problems))}: {reason}")
    if way == STEPS:
        return StepsPlan(stages, residual, accuracy)
    inner = [stage._replace(problem=dataclasses.replace(stage.problem, layout="channels_last")) for stage in stages]
    plan = BottleneckPlan(*([None] * (3 - len(inner))), *inner, residual, machine or calibrated_machine(), accuracy)
    layout = problems[0].layout
    return plan if layout == "channels_last" else ChannelsFirst(plan, _bottleneck(problems, accuracy).whole(layout))


class StepsPlan(AddressedPlan):
    """Plans that run one after the other, with what lies between them in the workspace."""

    algorithm = STEPS

    def __init__(self, stages: tuple[Stage, ...], residual: bool, accuracy: Accuracy | None):
        last = Epilogue(stages[-1].problem.bias, residual, stages[-1].activation)
        epilogues = [Epilogue(stage.problem.bias, False, stage.activation) for stage in stages[:-1]] + [last]
        self._plans = [
            make_plan(stage.problem, epilogue, stage.weights, accuracy=accuracy)
            for stage, epilogue in zip(stages, epilogues)
        ]
        self._between = [rounded(prod(s.problem.output_shape) * s.problem.itemsize) for s in stages[:-1]]
        self.epilogue, self.plan_bytes = last, sum(plan.plan_bytes for plan in self._plans)
        self.workspace_bytes = max(plan.workspace_bytes for plan in self._plans)

    def scratch_bytes(self, threads: int) -> int:
        """Bytes of workspace that `run` needs on so many threads."""
        return sum(self._between) + max(plan.scratch_bytes(threads) for plan in self._plans)

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses."""
        inner = workspace + sum(self._between)
        for plan, nbytes in zip(self._plans, self._between):
            plan.run_at(x, workspace, 0, inner, threads)
            x, workspace = workspace, workspace + nbytes
        self._plans[-1].run_at(x, out, residual, inner, threads)
