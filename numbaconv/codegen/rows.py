"""What softmax and the normalisations do to one run of neighbouring elements, as vectors."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import exp
from numbaconv.codegen.reduce import REDUCTIONS, folded, pointer, reduced_run, vectors_like
from numbaconv.codegen.vector import I1, I32, I64, counted_loop, i64, offset


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


@intrinsic
def run_exponentials(typingctx, out, x, count, center):
    """out = exp(x - center) for `count` elements; returns their sum."""

    def codegen(context, builder, signature, arguments):
        out, x, count, center = arguments
        v = vectors_like(builder, signature.args[-1])
        centers, source, to = v.splat(center), pointer(builder, x), pointer(builder, out)

        def vectors(i, carried):
            at = builder.mul(i, i64(v.itemsize))
            y = exp(v, builder.fsub(v.load(offset(builder, source, at)), centers))
            v.store(y, offset(builder, to, at))
            return [builder.fadd(carried[0], y)]

        def tail(i, carried):
            mask = v.first_lanes(builder.sub(count, i))
            at = builder.mul(i, i64(v.itemsize))
            y = exp(v, builder.fsub(v.masked_load(offset(builder, source, at), mask), centers))
            v.masked_store(y, offset(builder, to, at), mask)
            return [builder.select(mask, builder.fadd(carried[0], y), carried[0])]

        whole = builder.and_(count, i64(-v.lanes))
        total = counted_loop(builder, i64(0), whole, v.lanes, [v.constant(0)], vectors, "exponentials")
        (total,) = counted_loop(builder, whole, count, v.lanes, total, tail, "exponentials.tail")
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

        def walk(finish, name):
            def body(i, _):
                mask = v.first_lanes(builder.sub(count, i))
                at = builder.mul(i, i64(v.itemsize))
                y = v.fma(builder.fsub(v.masked_load(offset(builder, source, at), mask), centers), scales, shifts)
                v.masked_store(finish(y, at, mask), offset(builder, to, at), mask)
                return []

            counted_loop(builder, i64(0), count, v.lanes, [], body, name)

        def with_gain(y, at, mask):
            return v.fma(
                y, v.masked_load(offset(builder, gains, at), mask), v.masked_load(offset(builder, biases, at), mask)
            )

        with builder.if_else(builder.icmp_signed("==", gain, i64(0))) as (plain, gained):
            with plain:
                walk(lambda y, at, mask: y, "affine")
            with gained:
                walk(with_gain, "gained")
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 5, center, scale, shift), codegen
