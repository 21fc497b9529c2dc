"""Winograd's transforms as straight-line vector code: one tile at a time, a vector of channels at a time.

Pixels are reached through tables of byte offsets, so the same code serves padding (zeros stand outside), dilation, strides
and tiles that hang over the edge of the result.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import activate
from numbaconv.codegen.cook_toom import transforms
from numbaconv.codegen.linear import program
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

    def name(self, direction: str) -> str:
        """Symbol such as `f32_winograd_input_4x4_3x3_avx512`."""
        size = f"{self.m_h}x{self.m_w}_{self.r_h}x{self.r_w}"
        return f"{NAMES[self.itemsize]}_winograd_{direction}_{size}_{target().isa}"


def _function(module, name: str, arguments: list):
    """A new internal function with its entry block, or None where the module has it already."""
    if name in module.globals:
        return None
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function


def _two_dimensional(v: Vectors, down, across, load) -> list[list]:
    """Rows of `down` X `across`^T, where `load(i, j)` reads X and both matrices are straight-line programs."""
    columns = [down.emit(v, [load(i, j) for i in range(down.inputs)]) for j in range(across.inputs)]
    return [across.emit(v, list(row)) for row in zip(*columns)]


def emit_forward(module, spec: TransformSpec, direction: str):
    """void(pixels, table, data, pitch, channels): BT d B of one tile of the "input", or G g GT of the taps of a "kernel".

    Pixel (i, j) of the tile lies `table[i columns + j]` bytes from `pixels`; position p of the result goes to `data + p pitch`.
    """
    name = spec.name(direction)
    function = _function(module, name, [BYTES, BYTES, BYTES, I64, I64])
    if function is None:
        return module.globals[name]
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = _vectors(b, spec.itemsize)
    pixels, table, data, pitch, channels = function.args
    down, across = (
        program(getattr(transforms(m, r), direction)) for m, r in ((spec.m_h, spec.r_h), (spec.m_w, spec.r_w))
    )

    def some_channels(channel, mask):
        here, to = (offset(b, pointer, b.mul(channel, i64(v.itemsize))) for pointer in (pixels, data))

        def load(i, j):
            at = offset(b, here, load_i64(b, table, i * across.inputs + j))
            return v.load(at) if mask is None else v.masked_load(at, mask)

        for row in _two_dimensional(v, down, across, load):
            for value in row:
                v.store(value, to) if mask is None else v.masked_store(value, to, mask)
                to = offset(b, to, pitch)

    whole = b.and_(channels, i64(-v.lanes))
    _each(b, i64(0), whole, v.lanes, lambda channel: some_channels(channel, None))
    _each(b, whole, channels, v.lanes, lambda channel: some_channels(channel, v.first_lanes(b.sub(channels, channel))))
    b.ret_void()
    return function


def emit_output(module, spec: TransformSpec):
    """void(products, pitch, out, table, residual, table, no residual, bias, channels, code, alpha, beta): AT M A of one tile.

    Position p is read at `products + p pitch`, whole vectors at a time; pixel (i, j) of the result goes `table[i m_w + j]`
    bytes from `out`.  Bias, residual (unless there is none) and activation are applied before it is stored.
    """
    name = spec.name("output")
    scalar = ir.FloatType() if spec.itemsize == 4 else ir.DoubleType()
    function = _function(module, name, [BYTES, I64, BYTES, BYTES, BYTES, BYTES, I64, BYTES, I64, I64, scalar, scalar])
    if function is None:
        return module.globals[name]
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = _vectors(b, spec.itemsize)
    products, pitch, out, out_table, residual, residual_table, no_residual, bias, channels, code, alpha, beta = (
        function.args
    )
    down, across = (program(transforms(m, r).output) for m, r in ((spec.m_h, spec.r_h), (spec.m_w, spec.r_w)))
    no_residual = b.icmp_signed("!=", no_residual, i64(0))

    def some_channels(channel, finish):
        at = b.mul(channel, i64(v.itemsize))
        rows = [offset(b, products, at)]
        for _ in range(down.inputs * across.inputs - 1):
            rows.append(offset(b, rows[-1], pitch))
        added = v.load(offset(b, bias, at))
        to, extra = offset(b, out, at), offset(b, residual, at)
        tile = _two_dimensional(v, down, across, lambda i, j: v.load(rows[i * across.inputs + j]))
        for i, row in enumerate(tile):
            for j, value in enumerate(row):
                number = i * spec.m_w + j
                finish(
                    b.fadd(value, added),
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


def _spec(literals, like) -> TransformSpec:
    return TransformSpec(*(literal.literal_value for literal in literals), like.bitwidth // 8)


def _forward(direction: str, sizes, like):
    spec = _spec(sizes, like)

    def codegen(context, builder, signature, arguments):
        pixels, table, data, pitch, channels = arguments[4:9]
        pointers = [builder.inttoptr(value, BYTES) for value in (pixels, table, data)]
        builder.call(emit_forward(builder.module, spec, direction), [*pointers, pitch, channels])
        return context.get_dummy_value()

    return types.void(*sizes, *[types.intp] * 5, like), codegen


@intrinsic(prefer_literal=True)
def input_transform(typingctx, m_h, r_h, m_w, r_w, pixels, table, data, pitch, channels, like):
    """Transform one tile of the input; F's sizes are literals, see `emit_forward` for the rest."""
    return _forward("input", (m_h, r_h, m_w, r_w), like)


@intrinsic(prefer_literal=True)
def kernel_transform(typingctx, m_h, r_h, m_w, r_w, taps, table, data, pitch, columns, like):
    """Transform as many kernels as there are columns, which lie side by side; see `input_transform`."""
    return _forward("kernel", (m_h, r_h, m_w, r_w), like)


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
    channels,
    code,
    alpha,
    beta,
):
    """Transform one tile of products into pixels of the result; F's sizes are literals, see `emit_output` for the rest."""
    spec = _spec((m_h, r_h, m_w, r_w), alpha)

    def codegen(context, builder, signature, arguments):
        function = emit_output(builder.module, spec)
        converted = [
            builder.inttoptr(value, BYTES) if argument.type == BYTES else value
            for value, argument in zip(arguments[4:], function.args)
        ]
        builder.call(function, converted)
        return context.get_dummy_value()

    return types.void(m_h, r_h, m_w, r_w, *[types.intp] * 10, alpha, beta), codegen
