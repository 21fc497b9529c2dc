"""What softmax and the normalisations do to one run of neighbouring elements, as vectors."""

from __future__ import annotations

import math

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import exp, log
from numbaconv.codegen.reduce import REDUCTIONS, Reduction, folded, pointer, reduced_run, vectors_like
from numbaconv.codegen.vector import I1, I32, I64, Vectors, counted_loop, i64, offset


def _first_lane(v, vector):
    return v.builder.extract_element(vector, ir.Constant(I32, 0))


@intrinsic
def run_maximum(typingctx, x, count, like):
    """The largest of `count` elements, NaN if one of them is."""

    def codegen(context, builder, signature, arguments):
        x, count, like = arguments
        v, reduction = vectors_like(builder, signature.args[-1]), REDUCTIONS["maximum"]
        start = v.constant(reduction.neutral)
        total = reduced_run(v, reduction, start, start, pointer(builder, x), count)
        return _first_lane(v, folded(v, reduction.merge, total))

    return like(types.intp, types.intp, like), codegen


@intrinsic
def run_bound(typingctx, x, count, like):
    """The largest of `count` elements, any number if one is NaN: a third of the instructions of `run_maximum`."""

    def codegen(context, builder, signature, arguments):
        x, count, like = arguments
        v = vectors_like(builder, signature.args[-1])
        reduction = Reduction(-math.inf, Vectors.maximum, Vectors.maximum)
        start = v.constant(reduction.neutral)
        total = reduced_run(v, reduction, start, start, pointer(builder, x), count)
        return _first_lane(v, folded(v, reduction.merge, total))

    return like(types.intp, types.intp, like), codegen


@intrinsic
def run_position(typingctx, x, count, value):
    """The number of the first of `count` elements that is `value` or NaN; one of them is."""

    def codegen(context, builder, signature, arguments):
        x, count, value = arguments
        v = vectors_like(builder, signature.args[-1])
        values, source, bits = v.splat(value), pointer(builder, x), ir.IntType(v.lanes)

        def body(i, carried):
            mask = v.first_lanes(builder.sub(count, i))
            vector = v.masked_load(offset(builder, source, builder.mul(i, i64(v.itemsize))), mask)
            same = builder.fcmp_ordered("==", vector, values)
            hits = builder.and_(mask, builder.or_(same, builder.fcmp_unordered("uno", vector, vector)))
            number = builder.zext(builder.bitcast(hits, bits), I64)
            found = builder.add(i, builder.cttz(number, ir.Constant(I1, 0)))
            nearer = builder.and_(
                builder.icmp_signed("!=", number, i64(0)), builder.icmp_signed("<", found, carried[0])
            )
            return [builder.select(nearer, found, carried[0])]

        return counted_loop(builder, i64(0), count, v.lanes, [count], body, "position")[0]

    return types.intp(types.intp, types.intp, value), codegen


@intrinsic
def run_sum(typingctx, x, count, like):
    """The sum of `count` elements."""

    def codegen(context, builder, signature, arguments):
        x, count, like = arguments
        v, reduction = vectors_like(builder, signature.args[-1]), REDUCTIONS["sum"]
        start = v.constant(0)
        total = reduced_run(v, reduction, start, start, pointer(builder, x), count)
        return _first_lane(v, folded(v, reduction.merge, total))

    return like(types.intp, types.intp, like), codegen


@intrinsic
def run_deviation(typingctx, x, count, center):
    """The sum of the squared distances of `count` elements from `center`."""

    def codegen(context, builder, signature, arguments):
        x, count, center = arguments
        v, reduction = vectors_like(builder, signature.args[-1]), REDUCTIONS["sum_of_squares"]
        start, centers = v.constant(0), v.splat(center)

        def distance(value):
            return builder.fsub(value, centers)

        total = reduced_run(v, reduction, start, start, pointer(builder, x), count, distance)
        return _first_lane(v, folded(v, reduction.merge, total))

    return center(types.intp, types.intp, center), codegen


def each_vector(v: Vectors, count, carried, emit, name: str) -> list:
    """`carried = emit(load, store, mask, carried)` for whole vectors of a run, without a mask, then for what is left under one.

    `load(pointer)` and `store(vector, pointer)` take pointers to the starts of runs.
    """
    builder = v.builder
    whole = builder.and_(count, i64(-v.lanes))

    def vector(i, carried):
        at = builder.mul(i, i64(v.itemsize))

        def load(start):
            return v.load(offset(builder, start, at))

        def store(value, start):
            v.store(value, offset(builder, start, at))

        return emit(load, store, None, carried)

    def rest(i, carried):
        at, mask = builder.mul(i, i64(v.itemsize)), v.first_lanes(builder.sub(count, i))

        def load(start):
            return v.masked_load(offset(builder, start, at), mask)

        def store(value, start):
            v.masked_store(value, offset(builder, start, at), mask)

        return emit(load, store, mask, carried)

    carried = counted_loop(builder, i64(0), whole, v.lanes, carried, vector, name)
    return counted_loop(builder, whole, count, v.lanes, carried, rest, f"{name}.rest")


@intrinsic
def run_exponentials(typingctx, out, x, count, center):
    """out = exp(x - center) for `count` elements; returns their sum."""

    def codegen(context, builder, signature, arguments):
        out, x, count, center = arguments
        v = vectors_like(builder, signature.args[-1])
        centers, source, to = v.splat(center), pointer(builder, x), pointer(builder, out)

        def emit(load, store, mask, carried):
            y = exp(v, builder.fsub(load(source), centers))
            store(y, to)
            total = builder.fadd(carried[0], y)
            return [total if mask is None else builder.select(mask, total, carried[0])]

        (total,) = each_vector(v, count, [v.constant(0)], emit, "exponentials")
        return _first_lane(v, folded(v, REDUCTIONS["sum"].merge, total))

    return center(types.intp, types.intp, types.intp, center), codegen


@intrinsic
def run_affine(typingctx, out, x, gain, bias, count, center, scale, shift):
    """out = ((x - center) scale + shift) gain + bias for `count` elements; `gain` and `bias` are addresses, or both 0."""

    def codegen(context, builder, signature, arguments):
        out, x, gain, bias, count, center, scale, shift = arguments
        v = vectors_like(builder, signature.args[-1])
        centers, scales, shifts = (v.splat(value) for value in (center, scale, shift))
        source, to, gains, biases = (pointer(builder, address) for address in (x, out, gain, bias))

        def plain(load, store, mask, carried):
            store(v.fma(builder.fsub(load(source), centers), scales, shifts), to)
            return []

        def gained(load, store, mask, carried):
            y = v.fma(builder.fsub(load(source), centers), scales, shifts)
            store(v.fma(y, load(gains), load(biases)), to)
            return []

        with builder.if_else(builder.icmp_signed("==", gain, i64(0))) as (without, with_gain):
            with without:
                each_vector(v, count, [], plain, "affine")
            with with_gain:
                each_vector(v, count, [], gained, "gained")
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 5, center, scale, shift), codegen


@intrinsic
def run_squares(typingctx, out, x, count, like):
    """out = x^2 for `count` elements."""

    def codegen(context, builder, signature, arguments):
        out, x, count, _ = arguments
        v = vectors_like(builder, like)
        source, to = pointer(builder, x), pointer(builder, out)

        def emit(load, store, mask, carried):
            value = load(source)
            store(builder.fmul(value, value), to)
            return []

        each_vector(v, count, [], emit, "squares")
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 3, like), codegen


@intrinsic
def run_response(typingctx, out, x, squares, count, size, scale, bias, power):
    """out[i] = x[i] (bias + scale (squares[i] + ... + squares[i + size - 1]))^power for `count` elements."""

    def codegen(context, builder, signature, arguments):
        out, x, squares, count, size, scale, bias, power = arguments
        v = vectors_like(builder, power_type)
        scales, biases, powers = (v.splat(value) for value in (scale, bias, power))
        source, to, start = (pointer(builder, address) for address in (x, out, squares))

        def emit(load, store, mask, carried):
            def add(number, total):
                return [builder.fadd(total[0], load(offset(builder, start, builder.mul(number, i64(v.itemsize)))))]

            (total,) = counted_loop(builder, i64(0), size, 1, [v.constant(0)], add, "window")
            exponent = builder.fmul(powers, log(v, v.fma(total, scales, biases)))
            store(builder.fmul(load(source), exp(v, exponent)), to)
            return []

        each_vector(v, count, [], emit, "response")
        return context.get_dummy_value()

    power_type = power
    return types.void(*(types.intp,) * 5, scale, bias, power), codegen
