"""Strassen's product of 2 x 2 blocks with 7 multiplications, as straight-line vector code over pairs of pixels.

A pair of pixels with two halves of their channels is a 2 x 2 matrix of vectors, and so is what comes of it (V. Strassen, Gaussian
elimination is not optimal, 1969): C = A B with C = OUTPUT ((INPUT A) * (KERNEL B)), blocks row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from numba.extending import intrinsic

from numbaconv.codegen.cook_toom import Matrix
from numbaconv.codegen.linear import program
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import NAMES, Vectors
from numbaconv.codegen.winograd import back, forward


def _matrix(*rows: str) -> Matrix:
    """Rows of +, - and 0."""
    return tuple(tuple(Fraction({"+": 1, "-": -1, "0": 0}[sign]) for sign in row) for row in rows)


#: Products by blocks 11, 12, 21, 22 of the left and of the right matrix, and blocks of the result by products.
INPUT = _matrix("+00+", "00++", "+000", "000+", "++00", "-0+0", "0+0-")
KERNEL = _matrix("+00+", "+000", "0+0-", "-0+0", "000+", "++00", "00++")
OUTPUT = _matrix("+00+-0+", "00+0+00", "0+0+000", "+-+00+0")
PRODUCTS = len(INPUT)


@dataclass(frozen=True)
class StrassenSpec:
    """The transforms for one element type; see `codegen.winograd.TransformSpec`."""

    itemsize: int
    #: each second result is one of the second half of the channels
    halves: ClassVar[bool] = True

    def name(self, direction: str) -> str:
        """Symbol such as `f32_strassen_input_avx512`."""
        return f"{NAMES[self.itemsize]}_strassen_{direction}_{target().isa}"

    def inputs(self, direction: str) -> int:
        """How many values go in."""
        return self._program(direction).inputs

    def emit(self, v: Vectors, direction: str, load: Callable) -> list:
        """The values that come out."""
        steps = self._program(direction)
        return steps.emit(v, [load(number) for number in range(steps.inputs)])

    def _program(self, direction: str):
        return program({"input": INPUT, "output": OUTPUT}[direction])


def _spec(literals, like) -> StrassenSpec:
    return StrassenSpec(like.bitwidth // 8)


@intrinsic
def strassen_input(typingctx, pixels, table, data, pitch, channels, like):
    """Transform a pair of pixels; the table tells where the first one's two halves lie, and the second one's."""
    return forward(_spec, "input", (), like)


@intrinsic
def strassen_output(
    typingctx,
    products,
    pitch,
    out,
    table,
    residual,
    residual_table,
    no_residual,
    bias,
    apart,
    channels,
    code,
    alpha,
    beta,
):
    """Transform the products of a pair back; see `codegen.winograd.emit_output`."""
    return back(_spec, (), alpha)
