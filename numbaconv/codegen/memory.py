"""Raw memory for loop nests: integers at addresses, vector copies, calls through an address.

Loops pass addresses as integers, so that every caller shares one compiled signature whatever its arrays look like.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I64, Vectors, counted_loop, i64, offset

#: Bytes of a cache line.
LINE = 64


@intrinsic
def infinity(typingctx, like):
    """Infinity in the type of `like`."""

    def codegen(context, builder, signature, arguments):
        return ir.Constant(context.get_value_type(like), float("inf"))

    return like(like), codegen


@intrinsic
def itemsize(typingctx, like):
    """Bytes of one element of the type of `like`."""
    return types.intp(like), lambda context, builder, signature, arguments: i64(like.bitwidth // 8)


@intrinsic
def call_core(typingctx, function, call, alpha, beta):
    """Call the compiled core at address `function` with the address of a `CALL` record and the activation's scalars."""

    def codegen(context, builder, signature, arguments):
        function, call, alpha, beta = arguments
        kind = ir.FunctionType(ir.VoidType(), [I64, alpha.type, beta.type])
        builder.call(builder.inttoptr(function, kind.as_pointer()), [call, alpha, beta])
        return context.get_dummy_value()

    return types.void(function, call, alpha, beta), codegen


@intrinsic
def call_share(typingctx, function, part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """Call the function at address `function` for share number `part` of `rows` x `columns`; see `loops.shares`."""

    def codegen(context, builder, signature, arguments):
        function, *rest = arguments
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in rest])
        builder.call(builder.inttoptr(function, kind.as_pointer()), rest)
        return context.get_dummy_value()

    integers = (types.intp,) * 9
    return types.void(*integers, alpha, beta), codegen


def _vectors(builder, like) -> Vectors:
    size = like.bitwidth // 8
    return Vectors(builder, size, target().lanes(size), target().fma)


@intrinsic
def copy(typingctx, destination, source, count, like):
    """Copy `count` elements of the type of `like`: whole vectors, then one masked vector instead of a scalar tail."""

    def codegen(context, builder, signature, arguments):
        destination, source, count, _ = arguments
        v = _vectors(builder, like)
        to, origin = builder.inttoptr(destination, BYTES), builder.inttoptr(source, BYTES)
        whole = builder.and_(count, i64(-v.lanes))

        def body(i, _):
            at = builder.mul(i, i64(v.itemsize))
            v.store(v.load(offset(builder, origin, at)), offset(builder, to, at))
            return []

        counted_loop(builder, i64(0), whole, v.lanes, [], body, "copy")
        rest = builder.sub(count, whole)
        with builder.if_then(builder.icmp_signed(">", rest, i64(0))):
            at, mask = builder.mul(whole, i64(v.itemsize)), v.first_lanes(rest)
            v.masked_store(v.masked_load(offset(builder, origin, at), mask), offset(builder, to, at), mask)
        return context.get_dummy_value()

    return types.void(destination, source, count, like), codegen


def _fill(typingctx, destination, count, like, value: float):
    def codegen(context, builder, signature, arguments):
        destination, count, _ = arguments
        v = _vectors(builder, like)
        to = builder.inttoptr(destination, BYTES)

        def body(i, _):
            here, mask = offset(builder, to, builder.mul(i, i64(v.itemsize))), v.first_lanes(builder.sub(count, i))
            v.masked_store(v.constant(value), here, mask)
            return []

        counted_loop(builder, i64(0), count, v.lanes, [], body, "fill")
        return context.get_dummy_value()

    return types.void(destination, count, like), codegen


@intrinsic
def clear(typingctx, destination, count, like):
    """Write `count` zeros of the type of `like`."""
    return _fill(typingctx, destination, count, like, 0.0)


@intrinsic
def fill_ones(typingctx, destination, count, like):
    """Write `count` ones of the type of `like`."""
    return _fill(typingctx, destination, count, like, 1.0)


@intrinsic
def fence(typingctx):
    """Make all stores so far visible to other threads, streamed ones, too."""

    def codegen(context, builder, signature, arguments):
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def prefetch(typingctx, address, count):
    """Ask for the cache lines of `count` bytes at an address."""

    def codegen(context, builder, signature, arguments):
        address, count = arguments
        v = Vectors(builder, 4, target().lanes(4))

        def body(at, _):
            v.prefetch(builder.inttoptr(builder.add(address, at), BYTES))
            return []

        counted_loop(builder, i64(0), count, LINE, [], body, "prefetch")
        return context.get_dummy_value()

    return types.void(address, count), codegen


@intrinsic
def load_lines(typingctx, address, count):
    """Load from each cache line of `count` bytes at an address, in the order of memory, so that hardware asks for what follows."""

    def codegen(context, builder, signature, arguments):
        address, count = arguments

        def body(at, _):
            # an ordered load is not removed for want of a reader
            byte = builder.inttoptr(builder.add(address, at), ir.IntType(8).as_pointer())
            builder.load_atomic(byte, "monotonic", 1)
            return []

        counted_loop(builder, i64(0), count, LINE, [], body, "load_lines")
        return context.get_dummy_value()

    return types.void(address, count), codegen


@intrinsic
def get(typingctx, address, index):
    """The 64-bit integer number `index` at an address."""

    def codegen(context, builder, signature, arguments):
        address, index = arguments
        return builder.load(_slot(builder, address, index), align=8)

    return types.intp(address, index), codegen


@intrinsic
def put(typingctx, address, index, value):
    """Write the 64-bit integer number `index` at an address."""

    def codegen(context, builder, signature, arguments):
        address, index, value = arguments
        builder.store(value, _slot(builder, address, index), align=8)
        return context.get_dummy_value()

    return types.void(address, index, types.intp), codegen


@intrinsic
def element(typingctx, address, like):
    """The scalar of the type of `like` at an address."""

    def codegen(context, builder, signature, arguments):
        return builder.load(_scalar(context, builder, arguments[0], like), align=like.bitwidth // 8)

    return like(address, like), codegen


@intrinsic
def put_element(typingctx, address, value):
    """Write a scalar at an address."""

    def codegen(context, builder, signature, arguments):
        builder.store(arguments[1], _scalar(context, builder, arguments[0], value), align=value.bitwidth // 8)
        return context.get_dummy_value()

    return types.void(address, value), codegen


def _scalar(context, builder, address, like):
    return builder.inttoptr(address, context.get_value_type(like).as_pointer())


def _slot(builder, address, index):
    return builder.inttoptr(builder.add(address, builder.mul(index, i64(8))), I64.as_pointer())
