"""Float32 as the sum of two numbers of half its width, a high part and what that leaves: the operands of matrix tiles.

    fp16    11 bits each: together they miss x by 2^-23 of it, where both are in the range of float16
    bf16    8 bits each: 2^-17, in the range of float32

Float16 ends at 65504 and 2^-24, so that numbers are brought there by powers of two; see `codegen.scales`.  A NaN stays one;
infinity leaves a NaN behind.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llvmlite import ir

from numbaconv.codegen.vector import I32, Vectors, i64, offset
from numbaconv.machine import Machine, machine

#: Float32 of a vector: half the words of one.
LANES = 16

#: Element after element of two vectors.
_PAIRS = [number for lane in range(LANES) for number in (lane, LANES + lane)]


class _BFloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def __str__(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash(_BFloat)


_BFLOATS, _FLOAT16S = ir.VectorType(_BFloat(), 2 * LANES), ir.VectorType(ir.HalfType(), LANES)
#: The halves of two vectors of float32.
WORDS = ir.VectorType(ir.IntType(16), 2 * LANES)


def _order(numbers: Sequence[int]) -> ir.Constant:
    return ir.Constant(ir.VectorType(I32, len(numbers)), list(numbers))


def _rounded(v: Vectors, x):
    """A vector rounded to 8 bits, halves away from zero, and what is left of it, both float32."""
    b = v.builder
    bits = b.add(b.bitcast(x, v.integer), v.integers(1 << 15))
    high = b.bitcast(b.and_(bits, v.integers(-(1 << 16))), v.type)
    return high, b.fsub(x, high)


def _narrowed(v: Vectors, x, y):
    """Two vectors as one of 32 bfloat16, those of x first, rounded to the nearest even ones."""
    # the instruction's first operand becomes the upper half
    return v.builder.bitcast(v.call("llvm.x86.avx512bf16.cvtne2ps2bf16.512", _BFLOATS, y, x), WORDS)


def _bfloat16s(v: Vectors, x, y, paired: bool):
    b = v.builder
    (high, low), (high_y, low_y) = _rounded(v, x), _rounded(v, y)
    if not paired:
        return (_narrowed(v, high, high_y),), (_narrowed(v, low, low_y),)
    # the words of high parts are there already, and are only pushed together
    below, above = b.lshr(b.bitcast(high, v.integer), v.integers(16)), b.bitcast(high_y, v.integer)
    words = _narrowed(v, low, low_y)
    return (b.bitcast(b.or_(below, above), WORDS),), (b.shuffle_vector(words, words, _order(_PAIRS)),)


def _float16s(v: Vectors, x, y, paired: bool):
    b = v.builder
    # float32 change places at half the price of their halves
    given = [b.shuffle_vector(x, y, _order(part)) for part in (_PAIRS[:LANES], _PAIRS[LANES:])] if paired else (x, y)
    highs = tuple(b.fptrunc(value, _FLOAT16S) for value in given)
    lows = tuple(b.fptrunc(b.fsub(value, b.fpext(high, v.type)), _FLOAT16S) for value, high in zip(given, highs))
    return highs, lows


@dataclass(frozen=True)
class Halves:
    """One kind of them: LLVM's names of the product of tiles and of the features that it takes; whether numbers have to be brought
    into their range; what a result misses, as the root mean square relative to that of the result.

    `split(v, x, y, paired)` gives high and low parts of two vectors, each as one or two vectors for `store_parts`: those of x
    first, or element after element.
    """

    name: str
    product: str
    features: tuple[str, ...]
    scaled: bool
    error: float
    split: Callable[[Vectors, ir.Value, ir.Value, bool], tuple[tuple[ir.Value, ...], tuple[ir.Value, ...]]]


FLOAT16 = Halves("fp16", "llvm.x86.tdpfp16ps", ("amx-tile", "amx-fp16"), True, 3e-7, _float16s)
BFLOAT16 = Halves("bf16", "llvm.x86.tdpbf16ps", ("amx-tile", "amx-bf16", "avx512bf16"), False, 5.5e-6, _bfloat16s)
#: The preferred ones first: both are as fast.
KINDS = FLOAT16, BFLOAT16


def halves_of(on: Machine) -> Halves | None:
    """Those that a machine's matrix tiles multiply, the preferred ones where there is a choice."""
    return next((kind for kind in KINDS if all(map(on.has, kind.features))), None)


@functools.cache
def halves() -> Halves:
    """Those of the machine that Numba generates code for, which has to have matrix tiles."""
    return halves_of(machine())


def store_parts(b, parts: tuple, pointer) -> None:
    """Write the vectors of high or of low parts one after another, aligned to words only."""
    nbytes = 2 * 2 * LANES // len(parts)
    for number, part in enumerate(parts):
        at = offset(b, pointer, i64(number * nbytes))
        b.store(part, b.bitcast(at, part.type.as_pointer()), align=2)


def store_one(b, parts: tuple, number: int, pointer) -> None:
    """Write the halves of one of two vectors that were split, element after element, aligned to words only."""
    if len(parts) > 1:
        one = parts[number]
    else:
        one = b.shuffle_vector(*parts, *parts, _order(range(number * LANES, (number + 1) * LANES)))
    b.store(one, b.bitcast(pointer, one.type.as_pointer()), align=2)
