"""Activations on a vector of accumulators, as one LLVM function that switches on the activation's code.

Exponentials are our own: a polynomial on [-ln2/2, ln2/2] and a power of two, to about one unit in the last place, since a
call into the C library would go lane by lane and spill every register.
"""

from __future__ import annotations

import math

import numpy as np
from llvmlite import ir

from numbaconv.codegen.vector import I64, Vectors
from numbaconv.epilogue import KINDS

#: itemsize -> (degree of the polynomial, smallest and largest useful argument of exp, mantissa bits, exponent bias)
_EXP = {4: (6, -104.0, 89.0, 23, 127), 8: (11, -746.0, 710.0, 52, 1023)}
#: itemsize -> degree of the fit of erfcx; beyond _ERF_END erfc is zero or next to it
_ERF_DEGREE = {4: 12, 8: 30}
_ERF_END = {4: 10.0, 8: 26.0}
_ERF_SHIFT = 3.75
_SQRT_HALF = math.sqrt(0.5)


def activate(v: Vectors, value, code, alpha, beta):
    """Apply activation number `code` (an i64) with its two scalars; emits the function at its first use in a module."""
    module = v.builder.module
    name = f"numbaconv_activate_{v.suffix}"
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(v.type, [v.type, I64, v.scalar, v.scalar]), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        _emit(function, v)
    return v.builder.call(function, [value, code, alpha, beta])


def _emit(function, like: Vectors) -> None:
    x, code, alpha, beta = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(builder, like.itemsize, like.lanes, like.fused)
    alpha, beta = v.splat(alpha), v.splat(beta)
    unknown = function.append_basic_block("unknown")
    switch = builder.switch(code, unknown)
    ir.IRBuilder(unknown).ret(x)
    for number, kind in enumerate(KINDS):
        block = function.append_basic_block(kind)
        switch.add_case(ir.Constant(I64, number), block)
        builder.position_at_end(block)
        builder.ret(ACTIVATIONS[kind](v, x, alpha, beta))


def _clip(v, x, low, high):
    return v.minimum(high, v.maximum(low, x))


def _leaky_relu(v, x, slope, _):
    return v.builder.select(v.builder.fcmp_ordered("<", x, v.constant(0)), v.builder.fmul(x, slope), x)


def _hardsigmoid(v, x, alpha, beta):
    return _clip(v, v.fma(x, alpha, beta), v.constant(0), v.constant(1))


def _hardswish(v, x, alpha, beta):
    return v.builder.fmul(x, _hardsigmoid(v, x, alpha, beta))


def _sigmoid(v, x, *_):
    return v.builder.fdiv(v.constant(1), _one_plus_exp_minus(v, x))


def _silu(v, x, *_):
    return v.builder.fdiv(x, _one_plus_exp_minus(v, x))


def _one_plus_exp_minus(v, x):
    return v.builder.fadd(v.constant(1), exp(v, v.builder.fsub(v.constant(-0.0), x)))


def _tanh(v, x, *_):
    """tanh|x| = -e / (2 + e) with e = expm1(-2|x|), which keeps its precision near zero."""
    b = v.builder
    e = expm1(v, b.fmul(v.intrinsic("fabs", x), v.constant(-2)))
    magnitude = b.fdiv(b.fsub(v.constant(-0.0), e), b.fadd(v.constant(2), e))
    return v.intrinsic("copysign", magnitude, x)


def _gelu(v, x, *_):
    """x (1 + erf(x / sqrt 2)) / 2, which is x erfc(|x| / sqrt 2) / 2 for negative x: nothing cancels."""
    b = v.builder
    complement = erfc_abs(v, b.fmul(x, v.constant(_SQRT_HALF)))
    negative = b.fcmp_ordered("<", x, v.constant(0))
    return b.fmul(b.fmul(v.constant(0.5), x), b.select(negative, complement, b.fsub(v.constant(2), complement)))


def _mish(v: Vectors, x, *_):
    """x tanh(log(1 + e)) = x n / (n + 2) with e = exp(x), n = e (e + 2); beyond 20 that is x."""
    b = v.builder
    e = exp(v, v.minimum(v.constant(20), x))
    n = b.fmul(e, b.fadd(e, v.constant(2)))
    return b.fmul(x, b.fdiv(n, b.fadd(n, v.constant(2))))


#: Functions of one vector and two numbers, in the order of `KINDS`.
ACTIVATIONS = {
    "clip": _clip,
    "leaky_relu": _leaky_relu,
    "sigmoid": _sigmoid,
    "silu": _silu,
    "tanh": _tanh,
    "gelu": _gelu,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "mish": _mish,
}


def _reduced(v: Vectors, x):
    """x = n ln2 + r; returns expm1(r) / r, r, and n as a vector of whole numbers."""
    _, low, high, _, _ = _EXP[v.itemsize]
    b = v.builder
    x = _clip(v, x, v.constant(low), v.constant(high))
    n = v.intrinsic("rint", b.fmul(x, v.constant(1 / math.log(2))))
    first, second = _ln2_parts(v.itemsize)
    r = v.fma(n, v.constant(-second), v.fma(n, v.constant(-first), x))
    return _polynomial(v, (1, *_exp_fit(v.itemsize)), r), r, n


def _polynomial(v: Vectors, coefficients, x):
    """The sum of these numbers times powers of x, the zeroth first."""
    *rest, last = coefficients
    total = v.constant(last)
    for coefficient in rest[::-1]:
        total = v.fma(total, x, v.constant(coefficient))
    return total


def _exp_fit(itemsize: int) -> np.ndarray:
    """Coefficients of (expm1(r) / r - 1) / r where r is at most ln2/2."""
    half, degree = math.log(2) / 2, _EXP[itemsize][0] - 2

    def target(r):
        return sum(r**power / math.factorial(power + 2) for power in range(20))

    return _fit(target, degree, [-half, half])


def _fit(target, degree: int, domain) -> np.ndarray:
    """Coefficients of a polynomial that interpolates a function on a domain at Chebyshev's points."""
    fit = np.polynomial.Chebyshev.interpolate(target, degree, domain=domain)
    return fit.convert(kind=np.polynomial.Polynomial, domain=[-1, 1], window=[-1, 1]).coef


def _ln2_parts(itemsize: int) -> tuple[float, float]:
    """ln2 as a sum of two numbers, the first of which has few enough bits that its product with an exponent is exact."""
    unit = 2.0 ** (15 if itemsize == 4 else 33)
    first = math.floor(math.log(2) * unit) / unit
    return first, math.log(2) - first if itemsize == 4 else _LN2_TAIL


def _ln2_tail() -> float:
    """ln2 minus its first 33 bits behind the point, from the series sum 1 / (k 2^k) in exact arithmetic."""
    from fractions import Fraction

    ln2 = sum(Fraction(1, k * 2**k) for k in range(1, 130))
    return float(ln2 - Fraction(math.floor(math.log(2) * 2**33), 2**33))


_LN2_TAIL = _ln2_tail()


def _power_of_two(v: Vectors, n):
    """2**n for whole n inside the normal range."""
    _, _, _, bits, bias = _EXP[v.itemsize]
    b = v.builder
    integer = b.fptosi(n, v.integer)
    return b.bitcast(b.shl(b.add(integer, v.integers(bias)), v.integers(bits)), v.type)


def _halves(v: Vectors, n):
    """2**n as two factors, so that n may pass the range of the exponent: results overflow to infinity or fade to zero."""
    half = v.intrinsic("floor", v.builder.fmul(n, v.constant(0.5)))
    return _power_of_two(v, half), _power_of_two(v, v.builder.fsub(n, half))


def exp(v: Vectors, x):
    """e**x, to infinity and to zero at the ends of the range; NaN stays."""
    b = v.builder
    quotient, r, n = _reduced(v, x)
    mantissa = v.fma(quotient, r, v.constant(1))
    if v.scales:
        return v.times_power_of_two(mantissa, n)
    first, second = _halves(v, n)
    return b.fmul(b.fmul(mantissa, first), second)


def expm1(v: Vectors, x):
    """e**x - 1 for x <= 0, precise near zero; NaN stays."""
    b = v.builder
    quotient, r, n = _reduced(v, x)
    if v.scales:
        scale = v.times_power_of_two(v.constant(1), n)
    else:
        scale = b.fmul(*_halves(v, n))
    return v.fma(b.fmul(quotient, r), scale, b.fsub(scale, v.constant(1)))


def log1p(v: Vectors, x):
    """log(1 + x) for x from sqrt(1/2) - 1 to 1: 2 artanh(s) with s = x / (2 + x), which is at most 1/3, a series in s^2.

    Its first term is 2 s = x - s x, so that x itself is rounded once.
    """
    b = v.builder
    s = b.fdiv(x, b.fadd(v.constant(2), x))
    terms = {4: 8, 8: 18}[v.itemsize]
    square = b.fmul(s, s)
    series = _polynomial(v, [2 / (2 * number + 1) for number in range(1, terms)], square)
    return b.fsub(x, b.fmul(s, b.fsub(x, b.fmul(series, square))))


def log(v: Vectors, x):
    """The natural logarithm: x = m 2**n with m from sqrt(1/2) to sqrt(2).  Minus infinity for zero, NaN for what is less."""
    b = v.builder
    _, _, _, bits, bias = _EXP[v.itemsize]
    zero, root_half = v.constant(0), v.integers(int(np.array(_SQRT_HALF, f"f{v.itemsize}").view(f"i{v.itemsize}")))
    # numbers without a leading one are brought among the others
    lift = 8 * v.itemsize
    tiny = b.fcmp_ordered("<", x, v.constant(2.0 ** (1 - bias)))
    lifted = b.select(tiny, b.fmul(x, v.constant(2.0**lift)), x)
    distance = b.sub(b.bitcast(lifted, v.integer), root_half)
    n = b.sitofp(b.ashr(distance, v.integers(bits)), v.type)
    n = b.fsub(n, b.select(tiny, v.constant(lift), zero))
    mantissa = b.add(b.and_(distance, v.integers((1 << bits) - 1)), root_half)
    y = log1p(v, b.fsub(b.bitcast(mantissa, v.type), v.constant(1)))
    first, second = _ln2_parts(v.itemsize)
    y = v.fma(n, v.constant(first), v.fma(n, v.constant(second), y))
    y = b.select(b.fcmp_ordered("==", x, v.constant(math.inf)), x, y)
    y = b.select(b.fcmp_ordered("==", x, zero), v.constant(-math.inf), y)
    return b.select(b.fcmp_unordered("ult", x, zero), v.constant(math.nan), y)


def erfc_abs(v: Vectors, x):
    """1 - erf(|x|), zero where that is below the element's precision.

    erfc(a) = exp(-a^2) P(t) / (1 + 2a) with t = (a - K) / (a + K), after Shepherd and Laframboise, "Chebyshev approximation
    of (1 + 2x) exp(x^2) erfc x in 0 <= x < inf" (1981); the fit is made here rather than copied from a table.
    """
    b = v.builder
    far = v.intrinsic("fabs", x)
    a = v.minimum(v.constant(_ERF_END[v.itemsize]), far)
    t = b.fdiv(b.fsub(a, v.constant(_ERF_SHIFT)), b.fadd(a, v.constant(_ERF_SHIFT)))
    polynomial = _polynomial(v, _erfcx_fit(v.itemsize), t)
    decay = exp(v, b.fsub(v.constant(-0.0), b.fmul(far, far)))
    return b.fdiv(b.fmul(polynomial, decay), v.fma(v.constant(2), a, v.constant(1)))


def _erfcx_fit(itemsize: int) -> np.ndarray:
    """Monomial coefficients of P(t) on the part of [-1, 1] that arguments up to the end of erf reach."""
    end = (_ERF_END[itemsize] - _ERF_SHIFT) / (_ERF_END[itemsize] + _ERF_SHIFT)

    def target(t):
        a = _ERF_SHIFT * (1 + t) / (1 - t)
        return np.array([(1 + 2 * s) * math.exp(s * s) * math.erfc(s) for s in np.atleast_1d(a)])

    return _fit(target, _ERF_DEGREE[itemsize], [-1, end])
