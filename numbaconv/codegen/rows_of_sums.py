"""Sums that wait in memory, row by row: they are scaled, meet bias, residual and activation, and go to their place."""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.stored import StoredTile
from numbaconv.codegen.vector import BYTES, I64, NAMES, Vectors, branch_to, counted_loop, i64, offset

#: Rows that go together, and vectors of a row of sums.
_TOGETHER, _VECTORS = 4, 2


class _Shape(NamedTuple):
    """What `StoredTile` asks of a tile."""

    rows: int
    vectors: int
    tall: bool = True


def _emit(module, like: Vectors, vectors: int, planes: bool) -> ir.Function:
    """void(sums, rows, scales, their step, C, its pitch, streamed, bias, residual, its pitch, columns, activation)."""
    name = f"{NAMES[like.itemsize]}_{'planes' if planes else 'rows'}_{vectors}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    integers = [BYTES, I64, BYTES, I64, BYTES, I64, I64, BYTES, BYTES, I64, I64, I64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [*integers, like.scalar, like.scalar]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    (
        sums, rows, scales, scale_step, c, c_pitch, streamed, bias, residual, residual_pitch, columns, *activation
    ) = function.args  # fmt: skip
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)
    none = b.icmp_unsigned("==", b.ptrtoint(residual, I64), i64(0))
    start = [] if planes else [v.load(offset(b, bias, i64(j * v.nbytes))) for j in range(vectors)]

    def bias_of(row):
        """What the vectors of a row start with."""
        if not planes:
            return start
        return [v.splat(v.load_scalar(offset(b, bias, b.mul(row, i64(v.itemsize)))))] * vectors

    def scale_of(row):
        return v.splat(v.load_scalar(offset(b, scales, b.mul(row, scale_step))))

    def rows_together(count):
        def body(first, places):
            sums, c, residual = places
            factors = [scale_of(b.add(first, i64(i))) for i in range(count)]
            values = [
                v.fma(v.load(offset(b, sums, i64((i * _VECTORS + j) * v.nbytes))), factors[i], value)
                for i in range(count)
                for j, value in enumerate(bias_of(b.add(first, i64(i))))
            ]
            origin = b.select(none, ir.Constant(BYTES, None), residual)
            tile = StoredTile(
                v, _Shape(count, vectors), c, c_pitch, streamed, origin, residual_pitch, columns, *activation
            )
            tile.store(values)
            steps = i64(_VECTORS * v.nbytes), c_pitch, residual_pitch
            return [offset(b, place, b.mul(i64(count), step)) for place, step in zip(places, steps)]

        return body

    whole = b.and_(rows, i64(-_TOGETHER))
    places = counted_loop(b, i64(0), whole, _TOGETHER, [sums, c, residual], rows_together(_TOGETHER), "rows")
    counted_loop(b, whole, rows, 1, places, rows_together(1), "row")
    b.ret_void()
    return function


def _call(builder, size: int, arguments, planes: bool) -> None:
    """Call the function for as many vectors as the columns take."""
    v = Vectors(builder, size, 64 // size)
    sums, rows, scales, scale_step, c, c_pitch, streamed, bias, residual, *rest = arguments
    sums, scales, c, bias, residual = (builder.inttoptr(p, BYTES) for p in (sums, scales, c, bias, residual))

    def case(vectors):
        def call():
            function = _emit(builder.module, v, vectors, planes)
            builder.call(function, [sums, rows, scales, scale_step, c, c_pitch, streamed, bias, residual, *rest])

        return call

    number = builder.zext(builder.icmp_signed(">", rest[1], i64(v.lanes)), I64)
    branch_to(builder, number, [case(vectors) for vectors in (1, _VECTORS)])


def _stored(alpha, beta, planes: bool):
    """Signature and code of the functions below."""

    def codegen(context, builder, signature, arguments):
        _call(builder, alpha.bitwidth // 8, arguments, planes)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 12, alpha, beta), codegen


@intrinsic
def store_rows(
    typingctx,
    sums,
    rows,
    scales,
    scale_step,
    c,
    c_pitch,
    streamed,
    bias,
    residual,
    residual_pitch,
    columns,
    code,
    alpha,
    beta,
):
    """Finish `rows` rows of sums, two vectors apart, of which `columns` elements go to rows of C; addresses are integers.

    Each is multiplied by its scale, which lie `scale_step` bytes apart.
    """

    return _stored(alpha, beta, planes=False)


@intrinsic
def store_planes(
    typingctx,
    sums,
    rows,
    scales,
    scale_step,
    c,
    c_pitch,
    streamed,
    bias,
    residual,
    residual_pitch,
    columns,
    code,
    alpha,
    beta,
):
    """The same with an element of the bias for each row: rows are channels, columns their pixels."""

    return _stored(alpha, beta, planes=True)
