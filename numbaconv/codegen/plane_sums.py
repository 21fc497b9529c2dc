"""Weighted sums of planes, a stretch of pixels at a time: sums wait in the L1 while one plane after the other passes."""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.stored import StoredTile
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I64, Vectors, branch_to, counted_loop, i64, offset

#: Planes that are added to the sums at once, and vectors of each at once.
TOGETHER, VECTORS = 4, 2
#: Vectors that are finished at once: sums have room for so many.
FINISHED = 4


class _Row(NamedTuple):
    """What `StoredTile` asks of a tile."""

    rows: int = 1
    vectors: int = FINISHED
    tall: bool = True


def _emit_add(module, like: Vectors, planes: int) -> ir.Function:
    """void(sums, their pitch, x, plane, weights, their pitch, bias, start, rows, pixels): see `add_planes`."""
    name = f"numbaconv_add_{planes}_planes_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(
        module, ir.FunctionType(ir.VoidType(), [BYTES, I64, BYTES, I64, BYTES, I64, I64, I64, I64, I64]), name
    )
    function.linkage = "internal"
    function.attributes.add("noinline")
    sums, sums_pitch, x, plane, weights, weights_pitch, bias, start, rows, pixels = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes, like.fused)
    starts = b.icmp_signed("!=", start, i64(0))

    def pixels_at(vectors, load):
        def body(pixel, _):
            at = b.mul(pixel, i64(v.itemsize))
            places = [b.add(at, i64(j * v.nbytes)) for j in range(vectors)]
            values = [
                [load(offset(b, x, b.add(b.mul(plane, i64(p)), place)), pixel) for place in places]
                for p in range(planes)
            ]

            def one_row(_, carried):
                row, factors = carried
                first = v.splat(v.load_scalar(offset(b, factors, bias)))
                so_far = [b.select(starts, first, v.load(offset(b, row, place))) for place in places]
                for p, plane_values in enumerate(values):
                    factor = v.splat(v.load_scalar(offset(b, factors, i64(p * v.itemsize))))
                    so_far = [v.fma(factor, value, one) for value, one in zip(plane_values, so_far)]
                for place, one in zip(places, so_far):
                    v.store(one, offset(b, row, place))
                return [offset(b, row, sums_pitch), offset(b, factors, weights_pitch)]

            counted_loop(b, i64(0), rows, 1, [sums, weights], one_row, "row")
            return []

        return body

    whole = b.and_(pixels, i64(-VECTORS * v.lanes))
    counted_loop(b, i64(0), whole, VECTORS * v.lanes, [], pixels_at(VECTORS, lambda at, _: v.load(at)), "pixels")

    def part(at, pixel):
        return v.masked_load(at, v.first_lanes(b.sub(pixels, pixel)))

    counted_loop(b, whole, pixels, v.lanes, [], pixels_at(1, part), "rest")
    b.ret_void()
    return function


def _vectors(builder, size: int) -> Vectors:
    return Vectors(builder, size, target().lanes(size), target().fma)


@intrinsic
def add_planes(typingctx, count, sums, sums_pitch, x, plane, weights, weights_pitch, bias, start, rows, pixels, like):
    """Add `count` planes, 1 or `TOGETHER`, times a weight of each row to `rows` rows of sums; addresses and pitches are in bytes.

    Weights of a row are neighbours.  Where it is the `start`, sums are what is `bias` bytes after a row's first weight.  Rows of
    sums have room for whole vectors.
    """

    def codegen(context, builder, signature, arguments):
        number, *rest, _ = arguments
        v = _vectors(builder, like.bitwidth // 8)
        pointers = {0, 2, 4}
        operands = [builder.inttoptr(x, BYTES) if i in pointers else x for i, x in enumerate(rest)]

        def case(planes):
            return lambda: builder.call(_emit_add(builder.module, v, planes), operands)

        several = builder.zext(builder.icmp_signed(">", number, i64(1)), I64)
        branch_to(builder, several, [case(1), case(TOGETHER)])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 11, like), codegen


def _emit_finish(module, like: Vectors) -> ir.Function:
    """void(sums, C, streamed, residual, pixels, activation)."""
    name = f"numbaconv_finish_plane_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    kind = [BYTES, BYTES, I64, BYTES, I64, I64, like.scalar, like.scalar]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kind), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    sums, c, streamed, residual, pixels, *activation = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)
    none = b.icmp_unsigned("==", b.ptrtoint(residual, I64), i64(0))

    def vectors(pixel, _):
        at = b.mul(pixel, i64(v.itemsize))
        values = [v.load(offset(b, sums, b.add(at, i64(j * v.nbytes)))) for j in range(FINISHED)]
        origin = b.select(none, ir.Constant(BYTES, None), offset(b, residual, at))
        place = offset(b, c, at), i64(0), streamed, origin, i64(0)
        StoredTile(v, _Row(), *place, b.sub(pixels, pixel), *activation).store(values)
        return []

    counted_loop(b, i64(0), pixels, FINISHED * v.lanes, [], vectors, "vectors")
    b.ret_void()
    return function


@intrinsic
def finish_plane(typingctx, sums, c, streamed, residual, pixels, code, alpha, beta):
    """Store `pixels` sums, which have room for `FINISHED` vectors, with residual and activation; addresses are integers."""

    def codegen(context, builder, signature, arguments):
        sums, c, streamed, residual, *rest = arguments
        v = _vectors(builder, alpha.bitwidth // 8)
        sums, c, residual = (builder.inttoptr(p, BYTES) for p in (sums, c, residual))
        builder.call(_emit_finish(builder.module, v), [sums, c, streamed, residual, *rest])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6, alpha, beta), codegen
