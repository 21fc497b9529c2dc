"""Operations element by element on one or two operands, each vector read and written once.

The operations are one table.  A block is `rows` rows of `count` neighbouring elements; operands have a pitch of their own from row
to row, and a row of an operand may be one element for all.
"""

from __future__ import annotations

from collections.abc import Callable

from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import ACTIVATIONS, erfc_abs, exp, expm1, log, log1p
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, Vectors, branch_to, counted_loop, i64, offset


def _either_nan(v: Vectors, chosen, a, b):
    """NaN where one of the operands is."""
    nan = v.builder.fcmp_unordered("uno", a, b)
    return v.builder.select(nan, v.builder.fadd(a, b), chosen)


def largest(v: Vectors, a, b):
    """The larger one, NaN where one of them is."""
    return _either_nan(v, v.maximum(a, b), a, b)


def smallest(v: Vectors, a, b):
    """The smaller one, NaN where one of them is."""
    return _either_nan(v, v.minimum(a, b), a, b)


def _negative(v: Vectors, x):
    return v.builder.fcmp_ordered("<", x, v.constant(0))


def _elu(v: Vectors, x, alpha, beta):
    """beta (alpha (exp(x) - 1)) below zero, beta x above."""
    b = v.builder
    below = b.fmul(alpha, expm1(v, v.minimum(v.constant(0), x)))
    return b.fmul(beta, b.select(_negative(v, x), below, x))


def _celu(v: Vectors, x, alpha, inverse):
    b = v.builder
    below = b.fmul(alpha, expm1(v, b.fmul(v.minimum(v.constant(0), x), inverse)))
    return b.select(_negative(v, x), below, x)


def _erf(v: Vectors, x, *_):
    return v.intrinsic("copysign", v.builder.fsub(v.constant(1), erfc_abs(v, x)), x)


def _softplus(v: Vectors, x, *_):
    """max(x, 0) + log(1 + exp(-|x|))."""
    b = v.builder
    e = exp(v, b.fsub(v.constant(-0.0), v.intrinsic("fabs", x)))
    return b.fadd(log1p(v, e), v.maximum(v.constant(0), x))


def _softsign(v: Vectors, x, *_):
    return v.builder.fdiv(x, v.builder.fadd(v.constant(1), v.intrinsic("fabs", x)))


def _thresholded_relu(v: Vectors, x, alpha, _):
    """x above alpha, else zero; NaN stays."""
    return v.builder.select(v.builder.fcmp_ordered("<=", x, alpha), v.constant(0), x)


def _prelu(v: Vectors, a, b):
    return v.builder.select(v.builder.fcmp_ordered("<", a, v.constant(0)), v.builder.fmul(a, b), a)


#: Functions of one vector and the two numbers of an activation.
UNARY: dict[str, Callable] = {
    **ACTIVATIONS,
    "negative": lambda v, x, *_: v.builder.fsub(v.constant(-0.0), x),
    "absolute": lambda v, x, *_: v.intrinsic("fabs", x),
    "sqrt": lambda v, x, *_: v.intrinsic("sqrt", x),
    "reciprocal": lambda v, x, *_: v.builder.fdiv(v.constant(1), x),
    "exp": lambda v, x, *_: exp(v, x),
    "log": lambda v, x, *_: log(v, x),
    "floor": lambda v, x, *_: v.intrinsic("floor", x),
    "ceil": lambda v, x, *_: v.intrinsic("ceil", x),
    "inverse_root": lambda v, x, alpha, _: v.builder.fdiv(v.constant(1), v.intrinsic("sqrt", v.builder.fadd(x, alpha))),
    "elu": _elu,
    "celu": _celu,
    "erf": _erf,
    "softplus": _softplus,
    "softsign": _softsign,
    "thresholded_relu": _thresholded_relu,
    "round": lambda v, x, *_: v.intrinsic("rint", x),
    "affine": lambda v, x, alpha, beta: v.fma(x, alpha, beta),
}
#: Functions of two vectors, clamped between the two numbers.
BINARY: dict[str, Callable] = {
    "add": lambda v, a, b: v.builder.fadd(a, b),
    "subtract": lambda v, a, b: v.builder.fsub(a, b),
    "multiply": lambda v, a, b: v.builder.fmul(a, b),
    "divide": lambda v, a, b: v.builder.fdiv(a, b),
    "maximum": largest,
    "minimum": smallest,
    "prelu": _prelu,
}
#: An operation's number is its place here.
OPERATIONS = (*UNARY, *BINARY)


@intrinsic
def elementwise_block(typingctx, operation, out, out_row, a, a_row, a_step, b, b_row, b_step, rows, count, alpha, beta):
    """out[i, j] = operation(a[i, j], b[i, j]); pitches from row to row in bytes, a step of 0 repeats a row's first element.

    `operation` is a number in `OPERATIONS`; functions of one operand do not read `b`.
    """

    def codegen(context, builder, signature, arguments):
        operation, out, out_row, a, a_row, a_step, b, b_row, b_step, rows, count, alpha, beta = arguments
        size = signature.args[-1].bitwidth // 8
        v = Vectors(builder, size, target().lanes(size), target().fma)
        alpha, beta = v.splat(alpha), v.splat(beta)
        whole = builder.and_(count, i64(-v.lanes))
        rest = builder.sub(count, whole)
        mask = v.first_lanes(rest)
        # a repeated element waits here as a vector
        slots = [builder.bitcast(_slot(builder, v), BYTES) for _ in range(2)]

        def operand(address, pitch, step, slot, row):
            """Where an operand's row starts, and the bytes from vector to vector."""
            here = offset(builder, builder.inttoptr(address, BYTES), builder.mul(row, pitch))
            repeated = builder.icmp_signed("==", step, i64(0))
            with builder.if_then(repeated):
                v.store(v.splat(v.load_scalar(here)), slot)
            return builder.select(repeated, slot, here), builder.select(repeated, i64(0), i64(size))

        def emit(function, operands: int):
            def row_body(row, _):
                to = offset(builder, builder.inttoptr(out, BYTES), builder.mul(row, out_row))
                sources = [operand(a, a_row, a_step, slots[0], row)]
                if operands == 2:
                    sources.append(operand(b, b_row, b_step, slots[1], row))

                def apply(values):
                    if operands == 1:
                        return function(v, values[0], alpha, beta)
                    return v.minimum(beta, v.maximum(alpha, function(v, *values)))

                def body(i, _):
                    values = [v.load(offset(builder, at, builder.mul(i, step))) for at, step in sources]
                    v.store(apply(values), offset(builder, to, builder.mul(i, i64(size))))
                    return []

                counted_loop(builder, i64(0), whole, v.lanes, [], body, "vectors")
                with builder.if_then(builder.icmp_signed(">", rest, i64(0))):
                    values = [
                        v.masked_load(offset(builder, at, builder.mul(whole, step)), mask) for at, step in sources
                    ]
                    v.masked_store(apply(values), offset(builder, to, builder.mul(whole, i64(size))), mask)
                return []

            counted_loop(builder, i64(0), rows, 1, [], row_body, "rows")

        cases = [(function, 1) for function in UNARY.values()] + [(function, 2) for function in BINARY.values()]
        branch_to(builder, operation, [lambda case=case: emit(*case) for case in cases])
        return context.get_dummy_value()

    integers = (types.intp,) * 11
    return types.void(*integers, alpha, beta), codegen


def _slot(builder, v: Vectors):
    with builder.goto_entry_block():
        slot = builder.alloca(v.type)
    slot.align = v.nbytes
    return slot
