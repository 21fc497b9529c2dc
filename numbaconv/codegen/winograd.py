"""Winograd's transforms as straight-line vector code: one tile at a time, a vector of channels at a time.

Pixels are reached through tables of byte offsets, so the same code serves padding (zeros stand outside), dilation, strides
and tiles that hang over the edge of the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import activate
from numbaconv.codegen.cook_toom import transforms
from numbaconv.codegen.linear import Program, program
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I64, NAMES, Vectors, counted_loop, i64, load_i64, offset


@dataclass(frozen=True)
class TransformSpec:
    """F(m_h, r_h) down and F(m_w, r_w) across, for one element type and instruction set."""

    m_h: int
    r_h: int
    m_w: int
    r_w: int
    itemsize: int
    #: whether each second result is one of other channels
    halves: ClassVar[bool] = False

    def name(self, direction: str) -> str:
        """Symbol such as `f32_winograd_input_4x4_3x3_avx512`."""
        size = f"{self.m_h}x{self.m_w}_{self.r_h}x{self.r_w}"
        return f"{NAMES[self.itemsize]}_winograd_{direction}_{size}_{target().isa}"

    def inputs(self, direction: str) -> int:
        """How many values go in."""
        down, across = self._programs(direction)
        return down.inputs * across.inputs

    def emit(self, v: Vectors, direction: str, load: Callable) -> list:
        """Values of `down` X `across`^T, row by row; `load(number)` reads X, and both matrices are straight-line programs."""
        down, across = self._programs(direction)
        columns = [
            down.emit(v, [load(i * across.inputs + j) for i in range(down.inputs)]) for j in range(across.inputs)
        ]
        return [value for row in zip(*columns) for value in across.emit(v, list(row))]

    def _programs(self, direction: str) -> tuple[Program, Program]:
        sizes = (self.m_h, self.r_h), (self.m_w, self.r_w)
        return tuple(program(getattr(transforms(m, r), direction)) for m, r in sizes)


def _function(module, name: str, arguments: list):
    """A new internal function with its entry block, or None where the module has it already."""
    if name in module.globals:
        return None
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function


def emit_forward(module, spec, direction: str):
    """void(pixels, table, data, pitch, channels): the transform of one tile of the "input", or of the taps of a "kernel".

    Value number i of the tile lies `table[i]` bytes from `pixels`; position p of the result goes to `data + p pitch`.
    """
    name = spec.name(direction)
    function = _function(module, name, [BYTES, BYTES, BYTES, I64, I64])
    if function is None:
        return module.globals[name]
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = _vectors(b, spec.itemsize)
    pixels, table, data, pitch, channels = function.args

    def some_channels(channel, mask):
        here, to = (offset(b, pointer, b.mul(channel, i64(v.itemsize))) for pointer in (pixels, data))

        def load(number):
            at = offset(b, here, load_i64(b, table, number))
            return v.load(at) if mask is None else v.masked_load(at, mask)

        for value in spec.emit(v, direction, load):
            v.store(value, to) if mask is None else v.masked_store(value, to, mask)
            to = offset(b, to, pitch)

    whole = b.and_(channels, i64(-v.lanes))
    _each(b, i64(0), whole, v.lanes, lambda channel: some_channels(channel, None))
    _each(b, whole, channels, v.lanes, lambda channel: some_channels(channel, v.first_lanes(b.sub(channels, channel))))
    b.ret_void()
    return function


def emit_output(module, spec):
    """void(products, pitch, out, table, residual, table, no residual, bias, apart, channels, code, alpha, beta).

    One tile's results.  Position p is read at `products + p pitch`, whole vectors at a time; value number i of the result goes
    `table[i]` bytes from `out`.  Bias, residual (unless there is none) and activation are applied before it is stored; of a spec of
    `halves` the bias of each second value lies so many bytes `apart` from that of the first.
    """
    name = spec.name("output")
    scalar = ir.FloatType() if spec.itemsize == 4 else ir.DoubleType()
    function = _function(module, name, [BYTES, I64, *[BYTES] * 4, I64, BYTES, *[I64] * 3, scalar, scalar])
    if function is None:
        return module.globals[name]
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = _vectors(b, spec.itemsize)
    products, pitch, out, out_table, residual, residual_table, no_residual, bias, apart, channels, code, alpha, beta = (
        function.args
    )
    no_residual = b.icmp_signed("!=", no_residual, i64(0))

    def some_channels(channel, finish):
        at = b.mul(channel, i64(v.itemsize))
        rows = [offset(b, products, at)]
        for _ in range(spec.inputs("output") - 1):
            rows.append(offset(b, rows[-1], pitch))
        added = [v.load(offset(b, bias, at))] * 2
        if spec.halves:
            added[1] = v.load(offset(b, offset(b, bias, apart), at))
        to, extra = offset(b, out, at), offset(b, residual, at)
        for number, value in enumerate(spec.emit(v, "output", lambda number: v.load(rows[number]))):
            finish(
                b.fadd(value, added[number % 2]),
                lambda number=number: offset(b, to, load_i64(b, out_table, number)),
                lambda number=number: offset(b, extra, load_i64(b, residual_table, number)),
            )

    def clamped(with_residual: bool):
        low, high = v.splat(alpha), v.splat(beta)

        def finish(value, to, extra):
            if with_residual:
                value = b.fadd(value, v.load(extra()))
            v.store(v.minimum(high, v.maximum(low, value)), to())

        return lambda channel: some_channels(channel, finish)

    def any_activation(channel):
        mask = v.first_lanes(b.sub(channels, channel))
        # without a residual no lane is read, whatever its pointers are
        read = b.select(no_residual, ir.Constant(v.mask_type, [0] * v.lanes), mask)

        def finish(value, to, extra):
            value = b.fadd(value, v.masked_load(extra(), read))
            v.masked_store(activate(v, value, code, alpha, beta), to(), mask)

        some_channels(channel, finish)

    # whole vectors with a clamp (which includes no activation and the ReLUs) take straight code, the rest goes under a mask
    whole = b.select(b.icmp_signed("==", code, i64(0)), b.and_(channels, i64(-v.lanes)), i64(0))
    with b.if_else(no_residual) as (plain, added):
        with plain:
            _each(b, i64(0), whole, v.lanes, clamped(False))
        with added:
            _each(b, i64(0), whole, v.lanes, clamped(True))
    _each(b, whole, channels, v.lanes, any_activation)
    b.ret_void()
    return function


def _each(builder, start, stop, step: int, body) -> None:
    """`for channel in range(start, stop, step): body(channel)`."""

    def one(channel, _):
        body(channel)
        return []

    counted_loop(builder, start, stop, step, [], one, "channels")


def _vectors(builder, size: int) -> Vectors:
    return Vectors(builder, size, target().lanes(size), target().fma)


def forward(spec_of: Callable, direction: str, sizes: tuple, like):
    """Signature and code of an intrinsic of `sizes` (literals), pixels, table, data, pitch, channels and what their type is."""

    def codegen(context, builder, signature, arguments):
        pixels, table, data, pitch, channels = arguments[len(sizes) : -1]
        pointers = [builder.inttoptr(value, BYTES) for value in (pixels, table, data)]
        function = emit_forward(builder.module, spec_of(sizes, like), direction)
        builder.call(function, [*pointers, pitch, channels])
        return context.get_dummy_value()

    return types.void(*sizes, *[types.intp] * 5, like), codegen


def back(spec_of: Callable, sizes: tuple, like):
    """The same of `sizes` and the arguments of `emit_output`."""

    def codegen(context, builder, signature, arguments):
        function = emit_output(builder.module, spec_of(sizes, like))
        converted = [
            builder.inttoptr(value, BYTES) if argument.type == BYTES else value
            for value, argument in zip(arguments[len(sizes) :], function.args)
        ]
        builder.call(function, converted)
        return context.get_dummy_value()

    return types.void(*sizes, *[types.intp] * 11, like, like), codegen


def _spec(literals, like) -> TransformSpec:
    return TransformSpec(*(literal.literal_value for literal in literals), like.bitwidth // 8)


@intrinsic(prefer_literal=True)
def input_transform(typingctx, m_h, r_h, m_w, r_w, pixels, table, data, pitch, channels, like):
    """Transform one tile of the input, BT d B; F's sizes are literals, see `emit_forward` for the rest."""
    return forward(_spec, "input", (m_h, r_h, m_w, r_w), like)


@intrinsic(prefer_literal=True)
def kernel_transform(typingctx, m_h, r_h, m_w, r_w, taps, table, data, pitch, columns, like):
    """Transform as many kernels as there are columns, which lie side by side, G g GT; see `input_transform`."""
    return forward(_spec, "kernel", (m_h, r_h, m_w, r_w), like)


@intrinsic(prefer_literal=True)
def output_transform(
    typingctx,
    m_h,
    r_h,
    m_w,
    r_w,
    products,
    pitch,
    out,
    table,
    residual,
    residual_table,
    no_residual,
    bias,
    apart,
    channels,
    code,
    alpha,
    beta,
):
    """Transform one tile of products into pixels of the result, AT M A; F's sizes are literals, see `emit_output` for the rest."""
    return back(_spec, (m_h, r_h, m_w, r_w), alpha)
