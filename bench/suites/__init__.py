"""Shape files as data, and the kinds that results are grouped by.

A suite is a text file beside this module: one problem string a line, `# name` after it, and lines that hold a
comment only are skipped. Adding a network means adding a file.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from numbaconv.problem import ConvProblem

FOLDER = Path(__file__).parent
KINDS = ("1x1", "3x3", "other", "strided", "first", "depthwise", "grouped", "dilated")


@dataclass(frozen=True)
class Layer:
    """One line of a suite; `text` identifies the problem everywhere: test id, worker protocol, result files."""

    suite: str
    name: str
    text: str

    @property
    def problem(self) -> ConvProblem:
        return ConvProblem.parse(self.text)

    @property
    def kind(self) -> str:
        return kind_of(self.problem)


def names() -> list[str]:
    """Every suite that has a file."""
    return sorted(path.stem for path in FOLDER.glob("*.txt"))


def load(suite: str, pattern: str = "", kinds: tuple[str, ...] = ()) -> list[Layer]:
    """The layers of `suite` whose problem string or name matches the regular expression, of these kinds (all if empty)."""
    layers = []
    for line in (FOLDER / f"{suite}.txt").read_text().splitlines():
        text, _, name = (part.strip() for part in line.partition("#"))
        if text:
            layers.append(Layer(suite, name or text, text))
    return [
        layer
        for layer in layers
        if re.search(pattern, f"{layer.text} {layer.name}") and (not kinds or layer.kind in kinds)
    ]


def kind_of(problem: ConvProblem) -> str:
    """The one group that a problem counts in; the property that decides which algorithms apply is asked for first."""
    if problem.groups > 1:
        return "depthwise" if problem.groups == problem.c_in else "grouped"
    if any(d > 1 for d in problem.dilation):
        return "dilated"
    if problem.c_in <= 4:
        return "first"
    if any(s > 1 for s in problem.stride):
        return "strided"
    if all(k == 1 for k in problem.kernel):
        return "1x1"
    return "3x3" if problem.kernel == (3, 3) else "other"
