"""Winograd's minimal filtering by the Cook-Toom construction: F(m, r) for any m and r, in exact arithmetic.

y = AT [(G w) * (BT d)] gives m outputs of an r-tap correlation from n = m + r - 1 inputs and n multiplications.  Both sides are
polynomials that are evaluated at n points, multiplied there, and interpolated (Winograd, "Arithmetic Complexity of
Computations", 1980; Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from math import sqrt

#: Positive halves of the finite points for n points in all; zero is always there, infinity where n is even.  Those of
#: smallest `amplification`, which predicts the error measured, among fractions that binary floating point holds exactly
#: (`python -m bench.winograd_points`).
_HALVES = {
    3: "1",
    4: "1",
    5: "3/4 5/2",
    6: "5/8 3/2",
    7: "1/2 5/4 3",
    8: "1/2 1 2",
    9: "1/2 7/8 3/2 4",
    10: "3/8 7/8 5/4 5/2",
}
#: The largest n whose points are known.
MAX_POINTS = max(_HALVES)

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Transforms:
    """The matrices of one F(m, r): `output` is AT (m x n), `kernel` is G (n x r), `input` is BT (n x n)."""

    m: int
    r: int
    output: Matrix
    kernel: Matrix
    input: Matrix


def points(n: int) -> tuple[Fraction, ...]:
    """The finite points for n in all: zero and pairs of either sign; without infinity, which even n have besides."""
    halves = [Fraction(half) for half in _HALVES[n].split()]
    return (Fraction(0), *(sign * half for half in halves for sign in (1, -1)))


@functools.cache
def transforms(m: int, r: int) -> Transforms:
    """The matrices of F(m, r); with one tap or one output there is nothing to save, and they are the identity or a sum."""
    if m == 1 or r == 1:
        return _trivial(m, r)
    return construct(m, r, points(m + r - 1))


@functools.cache
def amplification(m: int, r: int) -> float:
    """By how much F(m, r) amplifies the rounding errors of its products, relative to the size of the result."""
    return amplification_of(transforms(m, r))


def amplification_of(t: Transforms) -> float:
    """For inputs and taps that are independent, of variance one: the root of the outputs' error over their variance.

    Product p has variance |G_p|^2 |BT_p|^2, output i sums AT_ip^2 of them, and r is what its own variance is.
    """
    size = [float(sum(x * x for x in g) * sum(x * x for x in d)) for g, d in zip(t.kernel, t.input)]
    return sqrt(sum(float(a * a) * s for row in t.output for a, s in zip(row, size)) / (t.m * t.r))


def _trivial(m: int, r: int) -> Transforms:
    """F(1, r) multiplies each input once and adds; F(m, 1) scales m inputs."""
    n = m + r - 1
    identity = tuple(tuple(Fraction(int(i == j)) for j in range(n)) for i in range(n))
    ones = (Fraction(1),)
    return Transforms(m, r, identity if r == 1 else (ones * n,), (ones,) * n if r == 1 else identity, identity)


def construct(m: int, r: int, finite: tuple[Fraction, ...]) -> Transforms:
    """The matrices for these finite points; one fewer than m + r - 1 means that infinity is the last point."""
    n = m + r - 1
    infinity = len(finite) == n - 1
    if len(set(finite)) != len(finite) or len(finite) not in (n, n - 1):
        raise ValueError(f"F({m}, {r}) needs {n} different points, infinity included, not {finite}")
    output, kernel, data = [], [], []
    for point in finite:
        others = [q for q in finite if q != point]
        norm = Fraction(1)
        for q in others:
            norm *= point - q
        kernel.append(tuple(point**k / norm for k in range(r)))
        data.append(_polynomial(others, n))
        output.append([point**i for i in range(m)])
    if infinity:
        kernel.append((Fraction(0),) * (r - 1) + (Fraction(1),))
        data.append(_polynomial(finite, n))
        output.append([Fraction(int(i == m - 1)) for i in range(m)])
    return Transforms(m, r, tuple(zip(*output)), tuple(kernel), tuple(data))


def _polynomial(roots, n: int) -> tuple[Fraction, ...]:
    """Coefficients of the product of (x - root), the constant first, filled up to n."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [a - root * b for a, b in zip(shifted, [*coefficients, Fraction(0)])]
    return tuple(coefficients) + (Fraction(0),) * (n - len(coefficients))
