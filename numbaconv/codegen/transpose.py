"""Transposition of a block of `lanes` x `lanes` elements in registers, for changes between channels-first and channels-last, and
of larger pieces of vectors.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, i64, offset


def _interleave(v: Vectors, a, b, width: int):
    """Exchange the blocks of `width` lanes of two rows that lie off the diagonal: one step of a recursive transposition."""
    low, high = [], []
    for lane in range(v.lanes):
        upper = (lane // width) % 2
        low.append(lane if not upper else v.lanes + lane - width)
        high.append(lane + width if not upper else v.lanes + lane)
    mask = ir.VectorType(I32, v.lanes)
    return v.builder.shuffle_vector(a, b, ir.Constant(mask, low)), v.builder.shuffle_vector(
        a, b, ir.Constant(mask, high)
    )


def transposed(v: Vectors, vectors: list) -> list:
    """Vector i of the result has piece i of each of some vectors: a power of two of them, each of as many pieces."""
    rows, apart = list(vectors), len(vectors) // 2
    while apart:
        for i in range(len(rows)):
            if not i & apart:
                rows[i], rows[i + apart] = _interleave(v, rows[i], rows[i + apart], apart * v.lanes // len(rows))
        apart //= 2
    return rows


def _emit(module, like: Vectors, partial: bool) -> ir.Function:
    """void(source, pitch, destination, pitch, rows, columns); a partial block touches no memory beyond its bounds."""
    name = f"numbaconv_transpose_{'partial_' if partial else ''}{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTES, I64, BYTES, I64, I64, I64]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    source, source_pitch, destination, destination_pitch, rows, columns = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)

    def lanes_of(row: int, height, width):
        inside = b.select(b.icmp_signed("<", i64(row), height), width, i64(0))
        return v.first_lanes(inside)

    loaded = []
    for row in range(v.lanes):
        at = offset(b, source, b.mul(source_pitch, i64(row)))
        loaded.append(v.masked_load(at, lanes_of(row, rows, columns)) if partial else v.load(at))
    for row, value in enumerate(transposed(v, loaded)):
        at = offset(b, destination, b.mul(destination_pitch, i64(row)))
        if partial:
            v.masked_store(value, at, lanes_of(row, columns, rows))
        else:
            v.store(value, at)
    b.ret_void()
    return function


@intrinsic
def transpose_block(typingctx, source, source_pitch, destination, destination_pitch, rows, columns, like):
    """Transpose up to `lanes` x `lanes` elements of the type of `like`; pitches are bytes from row to row."""

    def codegen(context, builder, signature, arguments):
        source, source_pitch, destination, destination_pitch, rows, columns, _ = arguments
        size = like.bitwidth // 8
        v = Vectors(builder, size, target().lanes(size))
        converted = [
            builder.inttoptr(source, BYTES),
            source_pitch,
            builder.inttoptr(destination, BYTES),
            destination_pitch,
            rows,
            columns,
        ]
        full = builder.and_(
            builder.icmp_signed(">=", rows, i64(v.lanes)), builder.icmp_signed(">=", columns, i64(v.lanes))
        )
        with builder.if_else(full) as (whole, part):
            with whole:
                builder.call(_emit(builder.module, v, False), converted)
            with part:
                builder.call(_emit(builder.module, v, True), converted)
        return context.get_dummy_value()

    return types.void(source, source_pitch, destination, destination_pitch, rows, columns, like), codegen
