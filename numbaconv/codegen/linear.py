"""Straight-line programs for products with a constant matrix: few operations, common sub-expressions computed once.

Rows that differ only in the signs of some entries, as those of interpolation points +p and -p do, share their equal and their
opposite halves; so do columns.  Every operation is numbered by its value, so that nothing is computed twice.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction

from numbaconv.codegen.cook_toom import Matrix


@dataclass(frozen=True)
class Program:
    """`operations` define value number `inputs + i`; entries are ("add" | "sub", a, b), ("mul", constant, a) or
    ("fma", constant, a, b) for constant * a + b.  `outputs` are value numbers, None for a row of zeros.
    """

    inputs: int
    operations: tuple[tuple, ...]
    outputs: tuple[int | None, ...]

    def emit(self, v, values: list) -> list:
        """Emit the program on vectors; returns the outputs."""
        b = v.builder
        values = list(values)
        for name, *operands in self.operations:
            if name in ("add", "sub"):
                x, y = (values[i] for i in operands)
                values.append(b.fadd(x, y) if name == "add" else b.fsub(x, y))
                continue
            constant = v.constant(float(operands[0]))
            x = values[operands[1]]
            values.append(b.fmul(constant, x) if name == "mul" else v.fma(constant, x, values[operands[2]]))
        return [v.constant(0.0) if i is None else values[i] for i in self.outputs]


class _Builder:
    """Collects operations; the same operation on the same values is the same value."""

    def __init__(self, inputs: int):
        self.inputs = inputs
        self.numbers: dict[tuple, int] = {}

    def _number(self, operation: tuple) -> int:
        return self.numbers.setdefault(operation, self.inputs + len(self.numbers))

    def add(self, a: int, b: int) -> int:
        return self._number(("add", min(a, b), max(a, b)))

    def sub(self, a: int, b: int) -> int:
        return self._number(("sub", a, b))

    def add_multiple(self, constant: Fraction, a: int, b: int) -> int:
        """constant * a + b."""
        if constant == 1:
            return self.add(a, b)
        return self.sub(b, a) if constant == -1 else self._number(("fma", constant, a, b))

    def combination(self, terms: dict[int, Fraction]) -> tuple[int, Fraction] | None:
        """The sum of constant * value: a value and the factor that is still to be applied; None for an empty sum."""
        if not terms:
            return None
        # the last term leads: interpolation polynomials are monic there
        lead = max(terms)
        factor = terms[lead]
        total = lead
        for value in sorted(terms, reverse=True)[1:]:
            total = self.add_multiple(terms[value] / factor, value, total)
        return total, factor

    def scaled(self, value: int, factor: Fraction) -> int:
        return value if factor == 1 else self._number(("mul", factor, value))


@functools.cache
def program(matrix: Matrix) -> Program:
    """The program that multiplies a vector by `matrix`."""
    builder = _Builder(len(matrix[0]))
    rows = _paired_columns(builder, [{j: x for j, x in enumerate(row) if x} for row in matrix])
    outputs: list[int | None] = [None] * len(rows)
    left = list(range(len(rows)))
    while left:
        i = left.pop(0)
        twin = next((k for k in left if _twins(rows[i], rows[k])), None)
        if twin is not None:
            left.remove(twin)
            outputs[i], outputs[twin] = _row_pair(builder, rows[i], rows[twin])
        elif (found := builder.combination(rows[i])) is not None:
            outputs[i] = builder.scaled(*found)
    return Program(len(matrix[0]), tuple(builder.numbers), tuple(outputs))


def _twins(one: dict[int, Fraction], other: dict[int, Fraction]) -> bool:
    """Whether two rows differ in some signs only, so that both halves are there to be shared."""
    same = one.keys() == other.keys() and all(abs(one[j]) == abs(other[j]) for j in one)
    return same and 0 < sum(one[j] == other[j] for j in one) < len(one)


def _row_pair(builder: _Builder, one: dict[int, Fraction], other: dict[int, Fraction]) -> tuple[int, int]:
    """Both rows from the half that they have in common and the half of opposite signs."""
    common, factor = builder.combination({j: x for j, x in one.items() if other[j] == x})
    common = builder.scaled(common, factor)
    opposite, factor = builder.combination({j: x for j, x in one.items() if other[j] != x})
    return builder.add_multiple(factor, opposite, common), builder.add_multiple(-factor, opposite, common)


def _paired_columns(builder: _Builder, rows: list[dict[int, Fraction]]) -> list[dict[int, Fraction]]:
    """Replace two columns that differ in some signs only by their sum and their difference."""
    columns = sorted({j for row in rows for j in row})
    while columns:
        j = columns.pop(0)
        for k in columns:
            one = {i: row[j] for i, row in enumerate(rows) if j in row}
            other = {i: row[k] for i, row in enumerate(rows) if k in row}
            if _twins(one, other):
                columns.remove(k)
                total, difference = builder.add(j, k), builder.sub(j, k)
                for i in one:
                    x, y = rows[i].pop(j), rows[i].pop(k)
                    rows[i][total if x == y else difference] = x
                break
    return rows
