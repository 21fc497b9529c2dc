"""Reductions of vectors: element by element over several steps in memory, or across one run of neighbouring elements.

The reductions are one table, as the operations on elements are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.elementwise import largest, smallest
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I32, Vectors, branch_to, counted_loop, i64, offset

#: Vectors that are reduced side by side, so that their latencies overlap.
_SIDE_BY_SIDE = 4


class Reduction(NamedTuple):
    """Where it starts, how an element is taken in, and how two partial results become one."""

    neutral: float
    take: Callable
    merge: Callable


def _add(v: Vectors, a, b):
    return v.builder.fadd(a, b)


def _multiply(v: Vectors, a, b):
    return v.builder.fmul(a, b)


REDUCTIONS = {
    "sum": Reduction(0.0, _add, _add),
    "maximum": Reduction(-math.inf, largest, largest),
    "minimum": Reduction(math.inf, smallest, smallest),
    "sum_of_magnitudes": Reduction(0.0, lambda v, total, x: _add(v, total, v.intrinsic("fabs", x)), _add),
    "sum_of_squares": Reduction(0.0, lambda v, total, x: v.fma(x, x, total), _add),
    "product": Reduction(1.0, _multiply, _multiply),
}
#: A reduction's number is its place here.
NUMBERS = {name: number for number, name in enumerate(REDUCTIONS)}


def vectors_like(builder, like) -> Vectors:
    """The machine's vectors of the type of a Numba float."""
    size = like.bitwidth // 8
    return Vectors(builder, size, target().lanes(size), target().fma)


def pointer(builder, address):
    """An address as LLVM wants it."""
    return builder.inttoptr(address, BYTES)


def folded(v: Vectors, merge: Callable, vector):
    """All lanes of a vector merged, in every lane."""
    half = v.lanes // 2
    while half:
        turned = [(lane + half) % v.lanes for lane in range(v.lanes)]
        other = v.builder.shuffle_vector(vector, vector, ir.Constant(ir.VectorType(I32, v.lanes), turned))
        vector, half = merge(v, vector, other), half // 2
    return vector


def reduced_run(v: Vectors, reduction: Reduction, start, total, origin, count, prepare: Callable = lambda x: x):
    """`total` after `count` elements at a pointer have been taken in, its lanes still apart; partial results start at `start`."""
    builder = v.builder
    block = _SIDE_BY_SIDE * v.lanes

    def vector(i, number: int = 0):
        return offset(builder, origin, builder.mul(builder.add(i, i64(number * v.lanes)), i64(v.itemsize)))

    def blocks(i, partial):
        return [reduction.take(v, p, prepare(v.load(vector(i, j)))) for j, p in enumerate(partial)]

    in_blocks, in_vectors = builder.and_(count, i64(-block)), builder.and_(count, i64(-v.lanes))
    partial = counted_loop(builder, i64(0), in_blocks, block, [start] * _SIDE_BY_SIDE, blocks, "run.blocks")
    for part in partial:
        total = reduction.merge(v, total, part)

    def singles(i, carried):
        return [reduction.take(v, carried[0], prepare(v.load(vector(i))))]

    (total,) = counted_loop(builder, in_blocks, in_vectors, v.lanes, [total], singles, "run.vectors")

    def tail(i, carried):
        mask = v.first_lanes(builder.sub(count, i))
        taken = reduction.take(v, carried[0], prepare(v.masked_load(vector(i), mask)))
        return [builder.select(mask, taken, carried[0])]

    (total,) = counted_loop(builder, in_vectors, count, v.lanes, [total], tail, "run.tail")
    return total


@intrinsic
def reduce_across(typingctx, operation, out, x, n_0, x_0, n_1, x_1, count, divisor):
    """One element: all of `n_0` x `n_1` runs of `count` elements reduced, divided by `divisor`."""

    def codegen(context, builder, signature, arguments):
        operation, out, x, n_0, x_0, n_1, x_1, count, divisor = arguments
        v = vectors_like(builder, signature.args[-1])

        def emit(reduction: Reduction):
            neutral = v.constant(reduction.neutral)

            def outer(i, totals):
                def inner(j, carried):
                    at = builder.add(x, builder.add(builder.mul(i, x_0), builder.mul(j, x_1)))
                    return [reduced_run(v, reduction, neutral, carried[0], pointer(builder, at), count)]

                return counted_loop(builder, i64(0), n_1, 1, totals, inner, "inner")

            (total,) = counted_loop(builder, i64(0), n_0, 1, [neutral], outer, "outer")
            result = builder.fdiv(folded(v, reduction.merge, total), v.splat(divisor))
            first = builder.extract_element(result, ir.Constant(I32, 0))
            builder.store(first, builder.inttoptr(out, v.scalar.as_pointer()), align=v.itemsize)

        branch_to(builder, operation, [lambda r=r: emit(r) for r in REDUCTIONS.values()])
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 8, divisor), codegen


@intrinsic
def reduce_along(typingctx, operation, out, x, n_0, x_0, n_1, x_1, n_2, x_2, count, divisor):
    """out[j] = reduction over three loops of x[..., j], divided by `divisor`; the innermost loop has partial results of its own."""

    def codegen(context, builder, signature, arguments):
        operation, out, x, n_0, x_0, n_1, x_1, n_2, x_2, count, divisor = arguments
        v = vectors_like(builder, signature.args[-1])
        divisors = v.splat(divisor)
        block = _SIDE_BY_SIDE * v.lanes

        def columns(reduction: Reduction, first, load: list[Callable], store: list[Callable]):
            start = [v.constant(reduction.neutral)] * len(load)
            origin = builder.add(x, builder.mul(first, i64(v.itemsize)))

            def loop(count, pitch, base, totals, inner, name):
                def body(i, carried):
                    return inner(builder.add(base, builder.mul(i, pitch)), carried)

                return counted_loop(builder, i64(0), count, 1, totals, body, name)

            def take(at, carried):
                here = pointer(builder, at)
                return [reduction.take(v, total, get(here)) for total, get in zip(carried, load)]

            def row(at, carried):
                partial = loop(n_2, x_2, at, start, take, "n_2")
                return [reduction.merge(v, total, part) for total, part in zip(carried, partial)]

            def plane(at, carried):
                return loop(n_1, x_1, at, carried, row, "n_1")

            totals = loop(n_0, x_0, origin, start, plane, "n_0")
            to = offset(builder, pointer(builder, out), builder.mul(first, i64(v.itemsize)))
            for total, put in zip(totals, store):
                put(builder.fdiv(total, divisors), to)

        def emit(reduction: Reduction):
            def whole(first, _):
                places = [i64(number * v.nbytes) for number in range(_SIDE_BY_SIDE)]
                load = [lambda at, place=place: v.load(offset(builder, at, place)) for place in places]
                store = [lambda y, at, place=place: v.store(y, offset(builder, at, place)) for place in places]
                columns(reduction, first, load, store)
                return []

            def rest(first, _):
                mask = v.first_lanes(builder.sub(count, first))
                load = [lambda at: v.masked_load(at, mask)]
                columns(reduction, first, load, [lambda y, at: v.masked_store(y, at, mask)])
                return []

            in_blocks = builder.and_(count, i64(-block))
            counted_loop(builder, i64(0), in_blocks, block, [], whole, "blocks")
            counted_loop(builder, in_blocks, count, v.lanes, [], rest, "rest")

        branch_to(builder, operation, [lambda r=r: emit(r) for r in REDUCTIONS.values()])
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 10, divisor), codegen
