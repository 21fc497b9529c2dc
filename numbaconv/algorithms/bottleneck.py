"""A depthwise convolution with a 1x1 after it, and perhaps one before, fused: strips of rows go through all of them in the L2.

This is the depthwise separable convolution of MobileNet (Howard et al., 2017) and the inverted residual of MobileNetV2 (Sandler et
al., 2018).  Wins where what lies between the convolutions is larger than the L2; where images are small there is nothing to save,
and narrow strips fill tiles badly.

    cycles = strips x (each convolution of one strip with its operands in the L2 + rows that are moved)
           + what comes from beyond the L2 (`cost.far_cycles`): x, the result, and weights, once a strip where they do not stay
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import cost
from numbaconv.algorithms.addressed import AddressedPlan
from numbaconv.algorithms.base import Cost, inaccurate
from numbaconv.algorithms.depthwise import Depthwise
from numbaconv.algorithms.geometry import geometry, results
from numbaconv.algorithms.grouped import Grouped
from numbaconv.algorithms.pointwise import Pointwise
from numbaconv.algorithms.sliding import SlidingAlgorithm
from numbaconv.algorithms.split import Split
from numbaconv.algorithms.tiled import TiledAlgorithm
from numbaconv.algorithms.weights import Weights, row_pitch
from numbaconv.codegen.halves import KINDS
from numbaconv.codegen.records import BOTTLENECK
from numbaconv.epilogue import IDENTITY, Activation, Epilogue
from numbaconv.loops.bottleneck import bottleneck_share
from numbaconv.loops.ndarrays import address
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.loops.walk import RECORD_BYTES
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import ALIGNMENT, rounded

#: The part of the L2 that a strip's results may take.
_PART = 4

_DENSE: tuple[TiledAlgorithm, ...] = (Pointwise(), *map(Split, KINDS))
_SLIDING: tuple[SlidingAlgorithm, ...] = (Depthwise(), Grouped())


class Stage(NamedTuple):
    """One of the convolutions with what belongs to it."""

    problem: ConvProblem
    weights: Weights
    activation: Activation = IDENTITY


@dataclass(frozen=True)
class Bottleneck:
    """The problems of the two or three convolutions, each on what the one before it makes; all channels-last."""

    expand: ConvProblem | None
    depthwise: ConvProblem
    project: ConvProblem
    accuracy: Accuracy

    @property
    def problems(self) -> tuple[ConvProblem, ...]:
        """Those that there are, in their order."""
        return tuple(p for p in (self.expand, self.depthwise, self.project) if p is not None)

    def whole(self, layout: str) -> ConvProblem:
        """A problem with the input and the output of all of them together."""
        return dataclasses.replace(
            self.depthwise, c_in=self.problems[0].c_in, c_out=self.project.c_out, groups=1, layout=layout, bias=False
        )

    def sliding(self, machine: Machine) -> SlidingAlgorithm | None:
        """The algorithm of the depthwise convolution; its shares are rows, as strips are."""
        return next((a for a in _SLIDING if _does(a, self.depthwise, machine)), None)

    def dense(self, problem: ConvProblem, machine: Machine) -> TiledAlgorithm:
        """The algorithm of a 1x1 convolution whose operands are in the L2."""
        able = [
            a
            for a in _DENSE
            if a.unsupported(problem, Epilogue(), machine) is None and inaccurate(a, problem, self.accuracy) is None
        ]
        return min(able, key=lambda algorithm: algorithm.near_cycles(problem, machine))

    def unsupported(self, machine: Machine) -> str | None:
        """Why these convolutions are not fused, or None."""
        if len(self.depthwise.spatial) != 2:
            return "there are not two spatial axes"
        if self.depthwise.padding_mode != "zeros":
            return "rows that stand for padding may lie in other strips"
        if self.sliding(machine) is None:
            return "the middle convolution is not depthwise"
        for p in (self.expand, self.project):
            if p and (p.taps > 1 or p.groups > 1 or p.stride != (1, 1) or p.padding != ((0, 0), (0, 0))):
                return "the convolutions around the depthwise one are not dense 1x1 of stride 1"
        for before, after in zip(self.problems, self.problems[1:]):
            if before.output_shape != after.input_shape or before.dtype != after.dtype:
                return "the convolutions do not take what the ones before them make"
        return None

    def strips(self, machine: Machine) -> int:
        """How many strips an image is cut into at least, for their results to fit the L2."""
        p, h_out = self.depthwise, self.depthwise.out_spatial[0]
        row = p.c_out * p.out_spatial[1] * p.itemsize
        halo = 0
        if self.expand:
            expanded = p.c_in * p.spatial[1] * p.itemsize
            row += p.stride[0] * expanded
            halo = max(p.extent[0] - p.stride[0], 0) * expanded
        return -(-h_out // min(max((machine.l2 // _PART - halo) // row, 1), h_out))

    def strip(self, machine: Machine) -> Bottleneck:
        """The problems of the tallest strip."""
        p = self.depthwise
        h_out = -(-p.out_spatial[0] // self.strips(machine))
        h_in = min((h_out - 1) * p.stride[0] + p.extent[0], p.spatial[0])
        # padding that makes just so many rows of so many; where the image starts and ends is for the whole problem to say
        padding = ((0, max((h_out - 1) * p.stride[0] + p.extent[0] - h_in, 0)), p.padding[1])
        expand = self.expand and dataclasses.replace(self.expand, n=1, spatial=(h_in, p.spatial[1]))
        depthwise = dataclasses.replace(p, n=1, spatial=(h_in, p.spatial[1]), padding=padding)
        project = dataclasses.replace(self.project, n=1, spatial=depthwise.out_spatial)
        return Bottleneck(expand, depthwise, project, self.accuracy)

    def estimate(self, machine: Machine) -> Cost:
        """What running would cost on channels-last tensors; pure."""
        strip, strips = self.strip(machine), self.depthwise.n * self.strips(machine)
        p, sliding = self.depthwise, self.sliding(machine)
        cycles = strips * (sliding.near_cycles(strip.depthwise, machine) + self._dense_cycles(strip.project, machine))
        if self.expand:
            # each row is expanded once, and moved if the next strip needs it again
            rows = p.n * p.spatial[0] / strip.expand.spatial[0]
            moved = max(p.extent[0] - p.stride[0], 0) * p.spatial[1] * p.c_in * p.itemsize
            cycles += rows * self._dense_cycles(strip.expand, machine) + strips * moved / machine.rates.copy_bytes
        far = sum(self._far_cycles(p, machine, strips) for p in self.problems)
        between = sum(prod(p.output_shape) * p.itemsize for p in strip.problems[:-1])
        inner = sliding.estimate(strip.depthwise, machine).workspace_bytes
        return Cost((cycles + far) / machine.rates.clock, inner + between)

    def _dense_cycles(self, problem: ConvProblem, machine: Machine) -> float:
        return self.dense(problem, machine).near_cycles(problem, machine)

    def _far_cycles(self, p: ConvProblem, machine: Machine, strips: int) -> float:
        """What one of them waits for from beyond the L2: weights, and what none of the others makes or takes."""
        first, last = p is self.problems[0], p is self.project
        g = geometry(p)
        g |= {"x_pixel": g["x_pixel"] * first, "out_pixel": g["out_pixel"] * last}
        return cost.far_cycles(g, machine, p.parameters * p.itemsize, 1, strips)


def _does(algorithm: SlidingAlgorithm, problem: ConvProblem, machine: Machine) -> bool:
    reason = algorithm.unsupported(problem, Epilogue(), machine)
    return reason is None and algorithm.too_large(algorithm.estimate(problem, machine)) is None


class BottleneckPlan(AddressedPlan):
    """Plan of a `Bottleneck` for channels-last tensors, with a residual of the result's shape if there is to be one."""

    algorithm = "strips"

    def __init__(
        self,
        expand: Stage | None,
        depthwise: Stage,
        project: Stage,
        residual: bool,
        machine: Machine,
        accuracy: Accuracy,
    ):
        whole = self._whole = Bottleneck(expand and expand.problem, depthwise.problem, project.problem, accuracy)
        strip = whole.strip(machine)
        self.problem = whole.whole("channels_last")
        self.epilogue = Epilogue(project.problem.bias, residual, project.activation)
        p = depthwise.problem
        # rows of pixels that would collide in the L1 get a wider pitch here, where it costs nothing
        deep = row_pitch(p.c_out * p.itemsize) // p.itemsize if p.c_out * p.itemsize % 1024 == 0 else p.c_out
        stages = {"expand": expand, "depthwise": depthwise, "project": project}
        pitches = {
            "expand": expand and (expand.problem.c_in, p.c_in, p.c_in),
            "depthwise": (p.c_in, deep, deep),
            "project": (deep, project.problem.c_out, project.problem.c_out),
        }
        problems = {"expand": strip.expand, "depthwise": p, "project": strip.project}
        scalars = np.zeros((3, 2), p.np_dtype)
        fields, inner, keep = {}, 0, [scalars]
        for i, (name, stage) in enumerate(stages.items()):
            if stage is None:
                continue
            algorithm = whole.sliding(machine) if name == "depthwise" else whole.dense(problems[name], machine)
            epilogue = Epilogue(stage.problem.bias, residual and name == "project", stage.activation)
            shares = algorithm.plan(problems[name], stage.weights, epilogue, machine).shares(1, pitches[name])
            fields |= {f"{name}_function": shares.function, name: shares.record}
            scalars[i] = shares.alpha, shares.beta
            inner = max(inner, shares.pitch)
            keep.append(shares)
        itemsize, (h_in, w_in), (h_out, w_out) = p.itemsize, p.spatial, p.out_spatial
        fields |= {
            "n": p.n,
            "strips": whole.strips(machine),
            "h_in": h_in,
            "h_out": h_out,
            "w_in": w_in,
            "w_out": w_out,
            "stride_h": p.stride[0],
            "pad_top": p.padding[0][0],
            "extent_h": p.extent[0],
            "x_row": w_in * self.problem.c_in * itemsize,
            "x_image": h_in * w_in * self.problem.c_in * itemsize,
            "scalars": address(scalars),
            "expanded_row": w_in * p.c_in * itemsize,
            "deep_row": w_out * deep * itemsize,
            "out_row": w_out * self.problem.c_out * itemsize,
            "residual_row": w_out * self.problem.c_out * itemsize,
        }
        fields |= results(geometry(self.problem), machine)
        at = 0
        for name, nbytes in (
            ("at_expand", RECORD_BYTES),
            ("at_project", RECORD_BYTES),
            ("at_inner", inner),
            ("at_deep", strip.project.spatial[0] * fields["deep_row"]),
            ("at_expanded", strip.depthwise.spatial[0] * fields["expanded_row"] if expand else 0),
        ):
            fields[name] = at
            # tiles may read a whole vector where a row ends
            at += rounded(nbytes) + ALIGNMENT
        self.workspace_bytes, self.plan_bytes = at, 0
        record = np.zeros((), BOTTLENECK)
        for name, value in fields.items():
            record[name] = value
        self._record, self._keep = record, keep
        self._function, self._zero = share_address(bottleneck_share, p.np_dtype), p.np_dtype.type(0)
        self._shares: dict[int, Shares] = {}

    def shares(self, threads: int) -> Shares:
        """The work cut for so many threads, each of which gets at least one strip where there are rows enough."""
        shares = self._shares.get(threads)
        if shares is None:
            record, images = self._record.copy(), self.problem.n
            record["strips"] = self._even_strips(int(record["strips"]), threads)
            rows = min(threads, images * int(record["strips"]))
            shares = self._shares[threads] = Shares(
                self._function, rows, 1, record.ctypes.data, self.workspace_bytes, self._zero, self._zero,
                (record, self._keep),
            )  # fmt: skip
        return shares

    def _even_strips(self, least: int, threads: int) -> int:
        """Strips of an image, so many at least, that leave each thread with as many as the others, if rows are enough."""
        images, rows = self.problem.n, int(self._record["h_out"])
        least = max(least, min(-(-threads // images), rows))
        choices = range(least, max(least, min(least + threads, rows)) + 1)
        return next((strips for strips in choices if images * strips % threads == 0), least)

    def scratch_bytes(self, threads: int) -> int:
        """Bytes of workspace that `run` needs on so many threads."""
        return self.workspace_bytes * threads

    def run_at(self, x: int, out: int, residual: int, workspace: int, threads: int) -> None:
        """As `run`, on addresses."""
        if self.problem.n:
            run_shares(self.shares(threads), x, out, residual, workspace)
