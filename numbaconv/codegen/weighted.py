"""A weighted sum of rows of memory, vectors of channels at a time: interpolation between pixels, neighbours in a graph."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I64, Vectors, counted_loop, i64, load_i64, offset

#: Vectors of one pass over the entries: as many sums as hide the latency of a multiply-add.
_TOGETHER = 4


def _emit(module, like: Vectors) -> ir.Function:
    """void(destination, base, pitch, indices, weights, entries, channels)."""
    name = f"numbaconv_weighted_rows_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    kind = ir.FunctionType(ir.VoidType(), [BYTES, BYTES, I64, BYTES, BYTES, I64, I64])
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    destination, base, pitch, indices, weights, entries, channels = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes, like.fused)

    def sums(load, count):
        """Sums of all entries over `count` vectors that `load(row, j)` reads."""

        def entry(e, carried):
            index = load_i64(b, offset(b, indices, b.mul(e, i64(8))))
            row = offset(b, base, b.mul(index, pitch))
            weight = v.splat(v.load_scalar(offset(b, weights, b.mul(e, i64(v.itemsize)))))
            return [v.fma(weight, load(row, j), total) for j, total in enumerate(carried)]

        return counted_loop(b, i64(0), entries, 1, [v.constant(0.0)] * count, entry, "entry")

    def many(channel, _):
        at = b.mul(channel, i64(v.itemsize))
        places = [b.add(at, i64(j * v.nbytes)) for j in range(_TOGETHER)]
        totals = sums(lambda row, j: v.load(offset(b, row, places[j])), _TOGETHER)
        for place, total in zip(places, totals):
            v.store(total, offset(b, destination, place))
        return []

    def one(channel, _):
        at, mask = b.mul(channel, i64(v.itemsize)), v.first_lanes(b.sub(channels, channel))
        (total,) = sums(lambda row, j: v.masked_load(offset(b, row, at), mask), 1)
        v.masked_store(total, offset(b, destination, at), mask)
        return []

    whole = b.and_(channels, i64(-_TOGETHER * v.lanes))
    counted_loop(b, i64(0), whole, _TOGETHER * v.lanes, [], many, "many")
    counted_loop(b, whole, channels, v.lanes, [], one, "one")
    b.ret_void()
    return function


@intrinsic
def weighted_rows(typingctx, destination, base, pitch, indices, weights, entries, channels, like):
    """Write `channels` sums over entries e of weights[e] * row[e] in the order of e; row e lies at base + indices[e] * pitch bytes.

    `indices` and `weights` are addresses of 64-bit integers and of scalars of the type of `like`; no entries give zeros.
    """

    def codegen(context, builder, signature, arguments):
        destination, base, pitch, indices, weights, entries, channels, _ = arguments
        size = like.bitwidth // 8
        v = Vectors(builder, size, target().lanes(size), target().fma)
        to, origin, numbers, factors = (
            builder.inttoptr(value, BYTES) for value in (destination, base, indices, weights)
        )
        builder.call(_emit(builder.module, v), [to, origin, pitch, numbers, factors, entries, channels])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7, like), codegen
