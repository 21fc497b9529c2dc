"""Powers of two that bring numbers into the range of float16, and how large numbers are, which these depend on.

Exponents are biased as those of float32: that of a number in 2^e..2^(e+1) is e + 127.
"""

from __future__ import annotations

import functools

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.halves import LANES, halves
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, counted_loop, i64, offset

#: Bits of the mantissa, and the exponent of 1.
_MANTISSA, BIAS = 23, 127
#: Exponents of powers of two whose inverse is a normal number, too.
LEAST, MOST = 1, 253
#: The exponent of the usual scale; where the range of numbers that it is for starts and ends.
USUAL, START, END = BIAS + 4, BIAS - 4, BIAS + 11
#: Of what a scale has behind it: where its inverse lies, and the largest magnitudes that were multiplied by it; bytes of them all.
INVERSE, MAGNITUDES, SCALE_BYTES = 4, 64, 128
#: The largest finite number.
_MAX = 3.4028234663852886e38


def usual(v: Vectors, magnitudes):
    """Whether the usual scale is for the largest of some magnitudes."""
    b = v.builder
    bits = b.bitcast(magnitudes, v.integer)
    reaches_start, reaches_end = (
        b.icmp_signed("!=", b.bitcast(mask, ir.IntType(v.lanes)), ir.Constant(ir.IntType(v.lanes), 0))
        for mask in (b.icmp_unsigned(">=", bits, v.integers(bound << _MANTISSA)) for bound in (START, END))
    )
    return b.and_(reaches_start, b.not_(reaches_end))


def filling(v: Vectors, magnitudes, unit):
    """In all lanes, the power of two that brings the largest of some magnitudes just below 2^15, and its inverse times `unit`."""
    b = v.builder
    largest = b.bitcast(magnitudes, v.integer)
    distance = v.lanes
    while distance > 1:
        distance //= 2
        order = ir.Constant(ir.VectorType(I32, v.lanes), [lane ^ distance for lane in range(v.lanes)])
        largest = _larger(v, largest, b.shuffle_vector(largest, largest, order))
    exponent = b.sub(v.integers(2 * BIAS + 14), b.lshr(largest, v.integers(_MANTISSA)))
    exponent = v.call(f"llvm.umin.v{v.lanes}i32", v.integer, exponent, v.integers(MOST))
    return _scale_and_inverse(v, exponent, unit)


def _scale_and_inverse(v: Vectors, exponent, unit):
    """The powers of two with these exponents, and their inverses times `unit`: finite, so that zeros stay zero."""
    b = v.builder
    scale, back = (
        b.bitcast(b.shl(e, v.integers(_MANTISSA)), v.type) for e in (exponent, b.sub(v.integers(2 * BIAS), exponent))
    )
    return scale, v.minimum(v.constant(_MAX), b.fmul(back, unit))


def _larger(v: Vectors, x, y):
    return v.call(f"llvm.umax.v{v.lanes}i32", v.integer, x, y)


def _emit_largest(module) -> ir.Function:
    """i32(x, step, rows, count): see `largest_exponent`."""
    name = "f32_largest_exponent"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(I32, [BYTES, I64, I64, I64]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    x, step, rows, count = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, LANES)
    chains = 4
    whole = b.and_(count, i64(-chains * LANES))

    def one_row(_, carried):
        x, *found = carried

        def vectors(i, found):
            at = offset(b, x, b.mul(i, i64(v.itemsize)))
            return [larger(m, v.load(offset(b, at, i64(n * v.nbytes)))) for n, m in enumerate(found)]

        def rest(i, found):
            at, mask = offset(b, x, b.mul(i, i64(v.itemsize))), v.first_lanes(b.sub(count, i))
            return [larger(found[0], v.masked_load(at, mask))]

        found = counted_loop(b, i64(0), whole, chains * LANES, found, vectors, "vectors")
        found[:1] = counted_loop(b, whole, count, LANES, found[:1], rest, "rest")
        return [offset(b, x, step), *found]

    def larger(found, x):
        # the sign goes; exponents of all ones run over, so that what is not finite passes for less than zero
        bits = b.bitcast(x, v.integer)
        return _larger(v, found, b.add(b.add(bits, bits), v.integers(1 << (_MANTISSA + 1))))

    _, *found = counted_loop(b, i64(0), rows, 1, [x, *[v.integers(0)] * chains], one_row, "row")
    largest = v.call(
        f"llvm.vector.reduce.umax.v{LANES}i32", I32, functools.reduce(functools.partial(_larger, v), found)
    )
    exponent = b.sub(b.lshr(largest, ir.Constant(I32, _MANTISSA + 1)), ir.Constant(I32, 1))
    b.ret(b.select(b.icmp_signed("<", exponent, ir.Constant(I32, 0)), ir.Constant(I32, 0), exponent))
    return function


@intrinsic
def largest_exponent(typingctx, x, step, rows, count):
    """The exponent of the largest of `rows` x `count` float32, rows `step` bytes apart; what is not finite counts for nothing."""

    def codegen(context, builder, signature, arguments):
        x, *rest = arguments
        found = builder.call(_emit_largest(builder.module), [builder.inttoptr(x, BYTES), *rest])
        return builder.zext(found, I64)

    return types.intp(*[types.intp] * 4), codegen


@intrinsic
def halves_have_a_range(typingctx):
    """Whether the halves of this machine's matrix tiles need scales at all; a constant of the compiled code."""

    def codegen(context, builder, signature, arguments):
        return context.get_constant(types.boolean, halves().scaled)

    return types.boolean(), codegen


@intrinsic
def put_scale(typingctx, at, exponent, unit):
    """Write the power of two with an exponent, and behind it its inverse times the float32 at address `unit`, and no magnitudes."""

    def codegen(context, builder, signature, arguments):
        at, exponent, unit = arguments
        v, at = Vectors(builder, 4, LANES), builder.inttoptr(at, BYTES)
        unit = v.splat(v.load_scalar(builder.inttoptr(unit, BYTES)))
        pair = _scale_and_inverse(v, v.splat(builder.trunc(exponent, I32)), unit)
        for values, place in zip(pair, (at, offset(builder, at, i64(INVERSE)))):
            first = builder.extract_element(values, ir.Constant(I32, 0))
            builder.store(first, builder.bitcast(place, v.scalar.as_pointer()), align=v.itemsize)
        v.store(v.constant(0), offset(builder, at, i64(MAGNITUDES)))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 3), codegen


@intrinsic
def met_exponent(typingctx, scale):
    """The exponent of the largest magnitude behind the scale at an address, 255 where one is not finite."""

    def codegen(context, builder, signature, arguments):
        v = Vectors(builder, 4, LANES)
        place = offset(builder, builder.inttoptr(arguments[0], BYTES), i64(MAGNITUDES))
        largest = v.call(f"llvm.vector.reduce.umax.v{LANES}i32", I32, v.load_integers(place))
        return builder.zext(builder.lshr(largest, ir.Constant(I32, _MANTISSA)), I64)

    return types.intp(types.intp), codegen
