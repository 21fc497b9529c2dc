"""Rows of a plane copied into a strip, or every second or s-th column of them, so that tiles read neighbouring elements."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, counted_loop, i64, offset


def _neighbours(v: Vectors, count, rest):
    """Copies a row of neighbouring columns: whole vectors, then `rest` columns under a mask."""
    b = v.builder
    whole, mask = b.sub(count, rest), v.first_lanes(rest)
    end = b.mul(whole, i64(v.itemsize))

    def copy(to, origin):
        def vector(i, _):
            at = b.mul(i, i64(v.itemsize))
            v.store(v.load(offset(b, origin, at)), offset(b, to, at))
            return []

        counted_loop(b, i64(0), whole, v.lanes, [], vector, "vector")
        with b.if_then(b.icmp_signed(">", rest, i64(0))):
            v.masked_store(v.masked_load(offset(b, origin, end), mask), offset(b, to, end), mask)

    return copy


def _halves(v: Vectors, count, rest):
    """Copies every second column of a row, taken from two vectors by a shuffle; nothing beyond the last one is read."""
    b = v.builder
    even = ir.Constant(ir.VectorType(I32, v.lanes), [2 * lane for lane in range(v.lanes)])
    # the last columns always go under masks, since they end with the first of a pair
    rest = b.select(b.icmp_signed("==", rest, i64(0)), i64(v.lanes), rest)
    whole, mask = b.sub(count, rest), v.first_lanes(rest)
    reach = b.sub(b.mul(rest, i64(2)), i64(1))
    low_mask, high_mask = v.first_lanes(reach), v.first_lanes(b.sub(reach, i64(v.lanes)))
    end = b.mul(whole, i64(v.itemsize))

    def copy(to, origin):
        def vector(i, _):
            at = b.mul(i, i64(v.itemsize))
            source = offset(b, origin, b.mul(at, i64(2)))
            pair = v.load(source), v.load(offset(b, source, i64(v.nbytes)))
            v.store(b.shuffle_vector(*pair, even), offset(b, to, at))
            return []

        counted_loop(b, i64(0), whole, v.lanes, [], vector, "pair")
        source = offset(b, origin, b.mul(end, i64(2)))
        low, high = v.masked_load(source, low_mask), v.masked_load(offset(b, source, i64(v.nbytes)), high_mask)
        v.masked_store(b.shuffle_vector(low, high, even), offset(b, to, end), mask)

    return copy


def one_by_one(v: Vectors, count, step):
    """Copies columns of a row one by one."""
    b = v.builder

    def copy(to, origin):
        def element(i, _):
            at = b.mul(i, i64(v.itemsize))
            slot = b.bitcast(offset(b, to, at), v.scalar.as_pointer())
            b.store(v.load_scalar(offset(b, origin, b.mul(at, step))), slot, align=v.itemsize)
            return []

        counted_loop(b, i64(0), count, 1, [], element, "element")

    return copy


def _emit(module, like: Vectors) -> ir.Function:
    """void(destination, its pitch, source, its pitch, rows, columns, column step)."""
    name = f"numbaconv_copy_rows_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTES, I64, BYTES, *[I64] * 4]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    destination, destination_pitch, source, source_pitch, rows, count, step = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)

    def all_rows(copy_row):
        def row(_, pointers):
            copy_row(*pointers)
            return [offset(b, pointers[0], destination_pitch), offset(b, pointers[1], source_pitch)]

        counted_loop(b, i64(0), rows, 1, [destination, source], row, "row")
        b.ret_void()

    some, none = function.append_basic_block("some"), function.append_basic_block("none")
    b.cbranch(b.icmp_signed(">", count, i64(0)), some, none)
    b.position_at_end(none)
    b.ret_void()
    b.position_at_end(some)
    rest = b.and_(count, i64(v.lanes - 1))
    other, neighbours = function.append_basic_block("other"), function.append_basic_block("neighbours")
    halves, scattered = function.append_basic_block("halves"), function.append_basic_block("scattered")
    b.cbranch(b.icmp_signed("==", step, i64(1)), neighbours, other)
    b.position_at_end(other)
    b.cbranch(b.icmp_signed("==", step, i64(2)), halves, scattered)
    b.position_at_end(neighbours)
    all_rows(_neighbours(v, count, rest))
    b.position_at_end(halves)
    all_rows(_halves(v, count, rest))
    b.position_at_end(scattered)
    all_rows(one_by_one(v, count, step))
    return function


@intrinsic
def copy_rows(typingctx, destination, destination_pitch, source, source_pitch, rows, count, step, like):
    """Copy `count` columns, `step` columns apart, of `rows` rows to neighbouring places; pitches are bytes from row to row."""

    def codegen(context, builder, signature, arguments):
        destination, destination_pitch, source, *rest = arguments[:-1]
        size = like.bitwidth // 8
        v = Vectors(builder, size, target().lanes(size))
        pointers = [builder.inttoptr(value, BYTES) for value in (destination, source)]
        builder.call(_emit(builder.module, v), [pointers[0], destination_pitch, pointers[1], *rest])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7, like), codegen
