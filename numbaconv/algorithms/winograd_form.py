"""Which F(m, r) a kernel gets down and across, or why it gets none, and what follows from their matrices alone.

All of it depends on the kernel and its stride, so it is found once a kernel and not once a shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf, prod

from numbaconv.algorithms.cost import FMA
from numbaconv.algorithms.geometry import folded
from numbaconv.codegen.cook_toom import MAX_POINTS, amplification, transforms
from numbaconv.codegen.linear import program
from numbaconv.memo import said_last
from numbaconv.problem import ConvProblem

#: Cycles to move a vector to one position from the input, and from one position to the output; measured.
_MOVED_IN, _MOVED_OUT = 6.0, 5.8
#: Positions that do not fit the registers and the L1 together take longer: so many take twice as long.
_TWICE = 65


#: The m of F(m, r) that there are.
SIZES = (2, 3, 4, 5, 6)


@dataclass(frozen=True, slots=True)
class Form:
    """`sizes` are (m, r) down and across; kernel rows that are too wide are cut into `pieces` of m taps, which are added up.

    A tile has `m_h` outputs down and `m_w` across, the larger of which is `m`, `outputs` in all, and so many `positions` of inputs,
    and products.  Whether there are points for these sizes is `known`; if so, to transform a vector of channels of its input, and
    of its products back, takes so many cycles.
    """

    sizes: tuple[tuple[int, int], tuple[int, int]]
    pieces: int
    m: int
    m_h: int
    m_w: int
    outputs: int
    positions: int
    known: bool
    input_cycles: float
    output_cycles: float

    @property
    def amplification(self) -> float:
        """By how much rounding errors of the products grow."""
        return _amplification(self.sizes)


@lru_cache(maxsize=512)  # takes milliseconds, and whoever prices a form need not ask
def _amplification(sizes: tuple[tuple[int, int], ...]) -> float:
    return prod(amplification(m, r) for m, r in sizes)


@lru_cache(maxsize=512)
def tiles_of(sizes: tuple[tuple[int, int], tuple[int, int]], pieces: int = 1) -> Form:
    """The form of these (m, r) down and across."""
    (m_h, r_h), (m_w, r_w) = sizes
    positions, known = (m_h + r_h - 1) * (m_w + r_w - 1), max(m + r - 1 for m, r in sizes) <= MAX_POINTS
    cycles = (
        _cycles(sizes, direction, positions, moved) if known else inf
        for direction, moved in (("input", _MOVED_IN), ("output", _MOVED_OUT))
    )
    return Form(sizes, pieces, max(m_h, m_w), m_h, m_w, m_h * m_w, positions, known, *cycles)


def _cycles(sizes: tuple[tuple[int, int], ...], direction: str, positions: int, moved: float) -> float:
    """operations / FMA + moved positions (1 + (positions / TWICE)^2)"""
    down, across = (program(getattr(transforms(m, r), direction)) for m, r in sizes)
    operations = len(down.operations) * across.inputs + len(across.operations) * len(down.outputs)
    return operations / FMA + moved * positions * (1 + (positions / _TWICE) ** 2)


@lru_cache(maxsize=512)
def form_of(m: int, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Form:
    """F(m, r) of the last two axes, with r the taps a phase of the stride has.

    An axis without taps to save keeps one output a tile.
    """
    down, across = _taps(kernel, stride)
    pieces = 1
    if m + across - 1 > MAX_POINTS:
        pieces, across = -(-across // m), m
    return tiles_of(tuple((m if r > 1 else 1, r) for r in (down, across)), pieces)


def _taps(kernel: tuple[int, ...], stride: tuple[int, ...]) -> tuple[int, int]:
    """Taps down and across that a phase of the stride has; a signal has height 1."""
    return ((1,) + tuple(-(-k // s) for k, s in zip(kernel, stride)))[-2:]


#: What the sizes of a problem follow from: kernel, stride, dilation, and whether there are groups.  Where nothing is strided, the
#: dilation does not matter and is left out.
Kind = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]
_UNIT = {(1,), (1, 1), (1, 1, 1)}


@said_last
def kind_of(problem: ConvProblem) -> Kind:
    """That of a problem of as few axes as it has in memory."""
    problem = folded(problem)
    stride = problem.stride
    return problem.kernel, stride, stride if stride in _UNIT else problem.dilation, problem.groups > 1


@lru_cache(maxsize=256)
def forms_of(kind: Kind) -> tuple[Form, ...]:
    """All sizes that kernels like this get."""
    kernel, stride, _, _ = kind
    return tuple(form_of(m, kernel, stride) for m in SIZES if not refusal(m, kind))


@lru_cache(maxsize=256)
def least_form(kind: Kind) -> tuple[float, ...]:
    """The least of all sizes of each for an output: products, positions, cycles of the input and of the output, and tiles.

    Nothing where there is no size.
    """
    return tuple(
        min(each)
        for each in zip(
            *(
                (f.positions * f.pieces / o, f.positions / o, f.input_cycles / o, f.output_cycles / o, 1 / o)
                for f in forms_of(kind)
                for o in (f.outputs,)
            )
        )
    )


@lru_cache(maxsize=1024)
def refusal(m: int, kind: Kind) -> str | None:
    """Why kernels like this get no F(m, r), or None."""
    kernel, stride, dilation, grouped = kind
    # slices of a volume are added up, not transformed
    if max(kernel[-2:]) == 1:
        return "a 1x1 kernel has no taps to save"
    if any(s > 1 and d > 1 for s, d in zip(stride[-2:], dilation[-2:])):
        return "strided and dilated along one axis"
    if grouped and max(stride[-2:]) > 1:
        return "grouped and strided"
    if max(_taps(kernel, stride)) == 1:
        return "the phases of the stride have one tap each"
    found = form_of(m, kernel, stride)
    if not found.known:
        return f"F({m}, {max(r for _, r in found.sizes)}) needs more than {MAX_POINTS} points"
    if found.pieces > 1 and len(kernel) > 2:
        return f"rows need more than {MAX_POINTS} points, and those of volumes are not cut into pieces"
    return None
