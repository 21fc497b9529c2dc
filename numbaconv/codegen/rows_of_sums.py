"""Sums that wait in memory, row by row: they are scaled, meet bias, residual and activation, and go to their place."""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.amx import SUMS_BYTES
from numbaconv.codegen.stored import StoredTile
from numbaconv.codegen.transpose import transposed
from numbaconv.codegen.vector import BYTES, I64, NAMES, Vectors, branch_to, counted_loop, i64, offset

#: Rows that go together, and vectors of a row of sums.
_TOGETHER, _VECTORS = 4, 2
#: Outputs that groups of 8 and of 4 channels have side by side, which are as many groups as a vector of channels has.
WOVEN = 2, 4


class _Shape(NamedTuple):
    """What `StoredTile` asks of a tile."""

    rows: int
    vectors: int
    tall: bool = True


def _emit(module, like: Vectors, vectors: int, kind: str) -> ir.Function:
    """void(sums, rows, scales, their step, C, its pitch, streamed, bias, residual, its pitch, columns, outputs, activation).

    Kinds are "rows", "planes", "beside" and "woven"; of the last one, `vectors` are those of as many groups.
    """
    name = f"{NAMES[like.itemsize]}_{kind}_{vectors}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    integers = [BYTES, I64, BYTES, I64, BYTES, I64, I64, BYTES, BYTES, I64, I64, I64, I64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [*integers, like.scalar, like.scalar]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    (
        sums, pixels, scales, scale_step, c, c_pitch, streamed, bias, residual, residual_pitch, columns, outputs, *activation
    ) = function.args  # fmt: skip
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)
    none, null = b.icmp_unsigned("==", b.ptrtoint(residual, I64), i64(0)), ir.Constant(BYTES, None)
    columns_of_bias = {"planes": 0, "woven": 1}.get(kind, vectors)
    start = [v.load(offset(b, bias, i64(j * v.nbytes))) for j in range(columns_of_bias)]
    pitches = c_pitch, residual_pitch

    def bias_of(row):
        """What the vectors of a row start with."""
        if kind != "planes":
            return start
        return [v.splat(v.load_scalar(offset(b, bias, b.mul(row, i64(v.itemsize)))))] * vectors

    def scale_of(row):
        return v.splat(v.load_scalar(offset(b, scales, b.mul(row, scale_step))))

    def store(values, count, c, residual):
        origin = b.select(none, null, residual)
        shape = _Shape(count, len(values) // count)
        tile = StoredTile(v, shape, c, c_pitch, streamed, origin, residual_pitch, columns, *activation)
        tile.store(values)

    def store_pixels(values, count, c, residual, pixels):
        """Each of some pixels takes the lanes behind those of the one before, of all rows."""

        def one_pixel(_, carried):
            c, residual, first = carried
            last, back = b.add(first, columns), b.neg(b.mul(first, i64(v.itemsize)))
            origin = b.select(none, null, offset(b, residual, back))
            row = b.mul(outputs, c_pitch), i64(0), origin, b.mul(outputs, residual_pitch)
            StoredTile(v, _Shape(count, 1), offset(b, c, back), *row, last, *activation, first).store(values)
            return [offset(b, c, c_pitch), offset(b, residual, residual_pitch), last]

        counted_loop(b, i64(0), pixels, 1, [c, residual, i64(0)], one_pixel, "pixel")

    def woven(first, row):
        """Pixel after pixel of a row, which has so many of each group, in all channels of the groups."""
        pairs = [divmod(group, _VECTORS) for group in range(vectors)]
        sums = [offset(b, first, i64(pair * SUMS_BYTES + which * v.nbytes)) for pair, which in pairs]
        return [v.fma(pixel, scale_of(row), *start) for pixel in transposed(v, [v.load(at) for at in sums])]

    def woven_rows(count, pixels=None):
        """`count` rows, or of one no more than so many pixels."""

        def body(first, places):
            sums, c, residual = places
            rows = range(count)
            values = [p for i in rows for p in woven(offset(b, sums, i64(i * 2 * v.nbytes)), b.add(first, i64(i)))]
            if pixels is None:
                store(values, count * vectors, c, residual)
            else:
                for number, value in enumerate(values[:-1]):
                    with b.if_then(b.icmp_signed(">", pixels, i64(number))):
                        at = (
                            offset(b, place, b.mul(i64(number), pitch)) for place, pitch in zip((c, residual), pitches)
                        )
                        store([value], 1, *at)
            steps = i64(_VECTORS * v.nbytes), *(b.mul(i64(vectors), pitch) for pitch in pitches)
            return [offset(b, place, b.mul(i64(count), step)) for place, step in zip(places, steps)]

        return body

    def rows_together(count, pixels=outputs):
        def body(first, places):
            sums, c, residual = places
            factors = [scale_of(b.add(first, i64(i))) for i in range(count)]
            values = [
                v.fma(v.load(offset(b, sums, i64((i * _VECTORS + j) * v.nbytes))), factors[i], value)
                for i in range(count)
                for j, value in enumerate(bias_of(b.add(first, i64(i))))
            ]
            steps = pitches
            if kind == "beside":
                store_pixels(values, count, c, residual, pixels)
                steps = [b.mul(outputs, pitch) for pitch in pitches]
            else:
                store(values, count, c, residual)
            steps = i64(_VECTORS * v.nbytes), *steps
            return [offset(b, place, b.mul(i64(count), step)) for place, step in zip(places, steps)]

        return body

    several = kind in ("beside", "woven")
    each = i64(vectors) if kind == "woven" else outputs
    rows, rest = (b.udiv(pixels, each), b.urem(pixels, each)) if several else (pixels, i64(0))
    together, body = (_TOGETHER // vectors, woven_rows) if kind == "woven" else (_TOGETHER, rows_together)
    whole = b.and_(rows, i64(-together))
    places = counted_loop(b, i64(0), whole, together, [sums, c, residual], body(together), "rows")
    places = counted_loop(b, whole, rows, 1, places, body(1), "row")
    if several:
        # the last row has fewer pixels
        last = b.add(rows, b.zext(b.icmp_unsigned("!=", rest, i64(0)), I64))
        counted_loop(b, rows, last, 1, places, body(1, rest), "last")
    b.ret_void()
    return function


def _call(builder, size: int, arguments, kind: str) -> None:
    """Call the function for as many vectors as the columns take, for folded ones or for as many groups as outputs."""
    v = Vectors(builder, size, 64 // size)
    sums, rows, scales, scale_step, c, c_pitch, streamed, bias, residual, residual_pitch, columns, outputs, *rest = (
        arguments
    )
    sums, scales, c, bias, residual = (builder.inttoptr(p, BYTES) for p in (sums, scales, c, bias, residual))
    operands = [
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
        outputs,
        *rest,
    ]

    def case(vectors, kind):
        def call():
            builder.call(_emit(builder.module, v, vectors, kind), operands)

        return call

    if kind == "woven":
        number = builder.zext(builder.icmp_signed(">", outputs, i64(WOVEN[0])), I64)
        cases = [case(outputs, kind) for outputs in WOVEN]
    else:
        number = builder.zext(builder.icmp_signed(">", columns, i64(v.lanes)), I64)
        cases = [case(vectors, kind) for vectors in (1, _VECTORS)]
    if kind == "rows":
        number = builder.select(builder.icmp_signed(">", outputs, i64(1)), i64(len(cases)), number)
        cases.append(case(1, "beside"))
    branch_to(builder, number, cases)


def _stored(alpha, beta, kind: str):
    """Signature and code of the functions below."""

    def codegen(context, builder, signature, arguments):
        _call(builder, alpha.bitwidth // 8, arguments, kind)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 13, alpha, beta), codegen


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
    outputs,
    code,
    alpha,
    beta,
):
    """Finish `rows` rows of C, of `columns` elements each, from sums two vectors apart; addresses are integers.

    Each is multiplied by its scale, which lie `scale_step` bytes apart.  Where `outputs` is not 1, so many rows of C lie one after
    the other in one of sums, and share its scale.
    """

    return _stored(alpha, beta, "rows")


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
    outputs,
    code,
    alpha,
    beta,
):
    """The same with an element of the bias for each row: rows are channels, columns their pixels."""

    return _stored(alpha, beta, "planes")


@intrinsic
def store_woven(
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
    outputs,
    code,
    alpha,
    beta,
):
    """The same of as many groups as there are `outputs`, one of `WOVEN`, whose channels lie side by side in C and fill a vector.

    Sums of every other group lie a vector behind those of the one before, those of the next two `SUMS_BYTES` further.
    """

    return _stored(alpha, beta, "woven")
