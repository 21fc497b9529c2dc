"""Means and squared deviations of columns, and runs that are scaled, shifted and activated: normalisation over pixels."""

from __future__ import annotations

from collections.abc import Callable

from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import activate
from numbaconv.codegen.reduce import pointer, vectors_like
from numbaconv.codegen.vector import counted_loop, i64, offset

#: Vectors that are summed side by side, so that their latencies overlap: columns where there are as many, else rows.
_SIDE_BY_SIDE = 4


@intrinsic
def column_moments(typingctx, mean, deviation, x, pitch, rows, count, like):
    """Of `count` columns of `rows` rows, `pitch` bytes apart: their means, and the sums of squared distances from these."""

    def codegen(context, builder, signature, arguments):
        mean, deviation, x, pitch, rows, count, _ = arguments
        v = vectors_like(builder, like)
        heights = builder.sitofp(rows, v.scalar)

        def columns(first, width: int, tall: int, load: Callable, store: Callable):
            """`width` vectors of columns from number `first`, by `tall` rows at a time."""
            at_first = builder.mul(first, i64(v.itemsize))
            places = [i64(number * v.nbytes) for number in range(width)]

            def over_rows(take: Callable):
                def body(i, carried, height):
                    sums = list(carried)
                    for row in range(height):
                        here = offset(builder, pointer(builder, x), at_first)
                        here = offset(builder, here, builder.mul(builder.add(i, i64(row)), pitch))
                        for j, place in enumerate(places):
                            k = row * width + j
                            sums[k] = take(j, sums[k], load(offset(builder, here, place)))
                    return sums

                whole = builder.and_(rows, i64(-tall))
                start = [v.constant(0)] * (width * tall)
                sums = counted_loop(builder, i64(0), whole, tall, start, lambda i, c: body(i, c, tall), "rows")
                sums = counted_loop(builder, whole, rows, 1, sums, lambda i, c: body(i, c, 1), "row")
                totals = sums[:width]
                for k in range(width, width * tall):
                    totals[k % width] = builder.fadd(totals[k % width], sums[k])
                return totals

            def squared(j, total, value):
                distance = builder.fsub(value, means[j])
                return v.fma(distance, distance, total)

            means = [
                builder.fdiv(total, v.splat(heights))
                for total in over_rows(lambda j, total, value: builder.fadd(total, value))
            ]
            for target, values in ((mean, means), (deviation, over_rows(squared))):
                for place, value in zip(places, values):
                    store(value, offset(builder, offset(builder, pointer(builder, target), at_first), place))

        def wide(first, _):
            columns(first, _SIDE_BY_SIDE, 1, v.load, v.store)
            return []

        def narrow(first, _):
            mask = v.first_lanes(builder.sub(count, first))
            columns(
                first,
                1,
                _SIDE_BY_SIDE,
                lambda at: v.masked_load(at, mask),
                lambda value, at: v.masked_store(value, at, mask),
            )
            return []

        block = _SIDE_BY_SIDE * v.lanes
        in_blocks = builder.and_(count, i64(-block))
        counted_loop(builder, i64(0), in_blocks, block, [], wide, "wide")
        counted_loop(builder, in_blocks, count, v.lanes, [], narrow, "narrow")
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 6, like), codegen


@intrinsic
def run_scaled(typingctx, out, x, gain, bias, count, code, alpha, beta):
    """out = activation(x gain + bias) for `count` elements, each with a gain and a bias of its own."""

    def codegen(context, builder, signature, arguments):
        out, x, gain, bias, count, code, alpha, beta = arguments
        v = vectors_like(builder, signature.args[-1])
        to, *sources = (pointer(builder, address) for address in (out, x, gain, bias))
        low, high = v.splat(alpha), v.splat(beta)

        def walk(finish: Callable):
            def body(load, store):
                def step(i, _):
                    at = builder.mul(i, i64(v.itemsize))
                    store(
                        finish(v.fma(*(load(offset(builder, source, at)) for source in sources))),
                        offset(builder, to, at),
                    )
                    return []

                return step

            whole = builder.and_(count, i64(-v.lanes))
            mask = v.first_lanes(builder.sub(count, whole))
            counted_loop(builder, i64(0), whole, v.lanes, [], body(v.load, v.store), "scaled")
            masked = body(lambda at: v.masked_load(at, mask), lambda value, at: v.masked_store(value, at, mask))
            counted_loop(builder, whole, count, v.lanes, [], masked, "scaled.tail")

        with builder.if_else(builder.icmp_signed("==", code, i64(0))) as (clamp, other):
            with clamp:
                walk(lambda value: v.minimum(high, v.maximum(low, value)))
            with other:
                walk(lambda value: activate(v, value, code, alpha, beta))
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 6, alpha, beta), codegen
