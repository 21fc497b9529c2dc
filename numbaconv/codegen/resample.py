"""Weighted sums of pixels along three axes, whose taps and weights come from tables."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.reduce import pointer, vectors_like
from numbaconv.codegen.vector import counted_loop, i64, load_i64, offset

#: Vectors of a pixel that are summed side by side.
_SIDE_BY_SIDE = 4


@intrinsic
def resample_pixel(
    typingctx, out, x, taps_0, at_0, weight_0, taps_1, at_1, weight_1, taps_2, at_2, weight_2, count, like
):
    """out[j] = sum over three lists of taps of the product of their weights times x[the sum of their offsets + j]."""

    def codegen(context, builder, signature, arguments):
        out, x, *lists, count, _ = arguments
        axes = [lists[3 * axis : 3 * axis + 3] for axis in range(3)]
        v = vectors_like(builder, signature.args[-1])
        block = _SIDE_BY_SIDE * v.lanes

        def tap(axis: int, i):
            _, at, weight = axes[axis]
            place = load_i64(builder, offset(builder, pointer(builder, at), builder.mul(i, i64(8))))
            share = v.load_scalar(offset(builder, pointer(builder, weight), builder.mul(i, i64(v.itemsize))))
            return place, share

        def columns(first, loads, stores):
            def walk(axis: int, base, weight, totals):
                def body(i, carried):
                    place, own = tap(axis, i)
                    here = builder.add(base, place)
                    both = own if weight is None else builder.fmul(weight, own)
                    if axis < 2:
                        return walk(axis + 1, here, both, carried)
                    factor, source = v.splat(both), pointer(builder, here)
                    return [v.fma(factor, load(source), total) for load, total in zip(loads, carried)]

                return counted_loop(builder, i64(0), axes[axis][0], 1, totals, body, f"taps.{axis}")

            start = builder.mul(first, i64(v.itemsize))
            # -0 is neutral to addition: +0 would turn a sum of -0 into +0
            totals = walk(0, builder.add(x, start), None, [v.constant(-0.0)] * len(loads))
            for store, total in zip(stores, totals):
                store(total, offset(builder, pointer(builder, out), start))

        def whole(first, _):
            places = [i64(number * v.nbytes) for number in range(_SIDE_BY_SIDE)]
            columns(
                first,
                [lambda at, place=place: v.load(offset(builder, at, place)) for place in places],
                [lambda y, at, place=place: v.store(y, offset(builder, at, place)) for place in places],
            )
            return []

        def rest(first, _):
            mask = v.first_lanes(builder.sub(count, first))
            columns(first, [lambda at: v.masked_load(at, mask)], [lambda y, at: v.masked_store(y, at, mask)])
            return []

        in_blocks = builder.and_(count, i64(-block))
        counted_loop(builder, i64(0), in_blocks, block, [], whole, "blocks")
        counted_loop(builder, in_blocks, count, v.lanes, [], rest, "rest")
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 12, like), codegen
