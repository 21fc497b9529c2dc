"""Shape files as data, and the kinds that results are grouped by.

A suite is a text file beside this module: one problem string a line, `# name` after it, and lines that hold a
comment only are skipped. Adding a network means adding a file. A line may begin with what is done with the convolution
that the problem string tells: `transposed n1c64h56w56o64k2s2` is its adjoint, from its result's shape to its input's.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from numbaconv.problem import ConvProblem

FOLDER = Path(__file__).parent
#: The most input channels a group of a "narrow" layer.
NARROW = 8
#: What can be done with a problem: its sums, its adjoint, all three gradients, or scipy.signal's `convolve` of its one channel.
#: To each the multiply-adds that it takes over those of the convolution.
OPERATIONS = {"convolution": 1, "transposed": 1, "gradients": 2, "convolve": 1}


@dataclass(frozen=True)
class Kind:
    """A group of layers, and the peer's time over ours that it should have: in geometric mean, and on its worst layer."""

    name: str
    title: str
    mean: float
    worst: float


KINDS = (
    Kind("3x3", "dense 3x3, stride 1", 1.25, 1.0),
    Kind("1x1", "1x1", 1.10, 0.95),
    Kind("strided", "strided and first layers", 1.10, 0.95),
    Kind("other", "dilated, 5x5, 1x7, 7x1", 1.30, 0.95),
    Kind("depthwise", "depthwise", 1.70, 1.2),
    Kind("narrow", "grouped, up to 8 channels a group", 2.0, 1.2),
    Kind("grouped", "grouped, wider, and grouped 1x1", 1.2, 1.0),
    Kind("1-D", "signals", 1.5, 1.0),
    Kind("3-D", "volumes", 1.3, 1.0),
    Kind("transposed", "transposed", 1.3, 1.0),
    Kind("gradients", "gradients", 1.0, 0.8),
    Kind("convolve", "one channel by one kernel", 1.5, 0.9),
)
#: Every layer, where operands and result are channels-first.
CHANNELS_FIRST = Kind("cf", "all of them, channels-first in and out", 1.15, 0.85)


@dataclass(frozen=True)
class Layer:
    """One line of a suite; `text` identifies the problem everywhere: test id, worker protocol, result files."""

    suite: str
    name: str
    text: str

    @property
    def prefix(self) -> str:
        """What stands before the problem string."""
        return self.text[: self.text.rfind(" ") + 1]

    @property
    def operation(self) -> str:
        return parse(self.text)[0]

    @property
    def problem(self) -> ConvProblem:
        return parse(self.text)[1]

    @property
    def flops(self) -> int:
        return flops(*parse(self.text))

    @property
    def kind(self) -> str:
        return kind_of(self.problem) if self.operation == "convolution" else self.operation


def parse(text: str) -> tuple[str, ConvProblem]:
    """The operation and the problem of a line of a suite."""
    operation, _, problem = text.rpartition(" ")
    return operation or "convolution", ConvProblem.parse(problem)


def flops(operation: str, problem: ConvProblem) -> int:
    """Operations as they are defined, 2 for a multiply-add, whatever a runtime does instead."""
    return OPERATIONS[operation] * problem.flops


def names() -> list[str]:
    """Every suite that has a file."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def load(suite: str, pattern: str = "", kinds: Collection[str] = (), batch: int | None = None) -> list[Layer]:
    """The layers of `suite` whose problem string or name matches the regular expression, of these kinds (all if empty).

    With `batch`, so many images instead of those that the file says.
    """
    layers = []
    for line in (FOLDER / f"{suite}.txt").read_text().splitlines():
        text, _, name = (part.strip() for part in line.partition("#"))
        if text:
            layers.append(Layer(suite, name or text, text))
    if batch is not None:
        layers = [replace(layer, text=f"{layer.prefix}{replace(layer.problem, n=batch)}") for layer in layers]
    return [
        layer
        for layer in layers
        if re.search(pattern, f"{layer.text} {layer.name}") and (not kinds or layer.kind in kinds)
    ]


def kind_of(problem: ConvProblem) -> str:
    """The name of the one kind that a problem counts in; the property that decides which algorithms apply is asked for first.

    Signals and volumes are a kind each.
    """
    axes = len(problem.spatial)
    if axes != 2:
        return f"{axes}-D"
    if problem.groups > 1:
        if problem.groups == problem.c_in:
            return "depthwise"
        return "narrow" if problem.taps > 1 and problem.c_in // problem.groups <= NARROW else "grouped"
    if any(d > 1 for d in problem.dilation):
        return "other"
    if problem.c_in <= 4 or any(s > 1 for s in problem.stride):
        return "strided"
    if problem.taps == 1:
        return "1x1"
    return "3x3" if problem.kernel == (3, 3) else "other"
