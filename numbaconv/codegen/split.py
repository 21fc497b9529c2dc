"""Float32 as the sum of two bfloat16: high parts and low parts, as the matrix tiles of `codegen.amx` read them.

The high part is rounded to the nearest with 8 bits, halves away from zero; the low part is what is left, rounded to the nearest
even one.  Together they miss x by 2^-17 of it at most.  A NaN stays one; infinity leaves a NaN behind.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.amx import DEPTH
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, counted_loop, i64, offset

#: Float32 of a vector: half the words of one.
LANES = 16


class _BFloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def __str__(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash(_BFloat)


_HALVES = ir.VectorType(_BFloat(), 2 * LANES)
_WORDS = ir.VectorType(ir.IntType(16), 2 * LANES)


def _parts(v: Vectors, x):
    """High and low part of a vector, both still float32; of the high one the lower half is zero already."""
    b = v.builder
    bits = b.add(b.bitcast(x, v.integer), v.integers(1 << 15))
    high = b.bitcast(b.and_(bits, v.integers(-(1 << 16))), v.type)
    return high, b.fsub(x, high)


def _narrowed(v: Vectors, x, y):
    """Two vectors as one of 32 words, those of x first."""
    # the instruction's first operand becomes the upper half
    return v.builder.bitcast(v.call("llvm.x86.avx512bf16.cvtne2ps2bf16.512", _HALVES, y, x), _WORDS)


def _split(v: Vectors, first, second):
    """High and low parts of two vectors, the first one's below the second's: two vectors of 32 words."""
    (high, low), (second_high, second_low) = _parts(v, first), _parts(v, second)
    return _narrowed(v, high, second_high), _narrowed(v, low, second_low)


def split_pairs(v: Vectors, first, second):
    """The same with an element of the second vector after each one of the first: what the right operand has for rows."""
    b = v.builder
    (high, low), (second_high, second_low) = _parts(v, first), _parts(v, second)
    # the words of high parts are there already, and are only pushed together
    below, above = b.lshr(b.bitcast(high, v.integer), v.integers(16)), b.bitcast(second_high, v.integer)
    order = [number for lane in range(LANES) for number in (lane, LANES + lane)]
    words = _narrowed(v, low, second_low)
    return b.bitcast(b.or_(below, above), _WORDS), b.shuffle_vector(
        words, words, ir.Constant(ir.VectorType(I32, 2 * LANES), order)
    )


def store_words(b, words, pointer) -> None:
    """Write what `split_pairs` returns, aligned to words only."""
    b.store(words, b.bitcast(pointer, _WORDS.as_pointer()), align=2)


def _emit_pixels(module) -> ir.Function:
    """void(to, to_step, low, block, x, x_step, pixels, channels): see `split_pixels`."""
    name = "f32_split_pixels"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTES, I64, I64, I64, BYTES, I64, I64, I64]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to, to_step, low, block, x, x_step, pixels, channels = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, LANES)
    whole = b.and_(channels, i64(-DEPTH))
    rest = b.sub(channels, whole)

    def one_pixel(_, places):
        def put(high, low_part, to):
            store_words(b, high, to)
            store_words(b, low_part, offset(b, to, low))

        def one_block(_, places):
            to, x = places
            put(*_split(v, v.load(x), v.load(offset(b, x, i64(v.nbytes)))), to)
            return [offset(b, to, block), offset(b, x, i64(2 * v.nbytes))]

        start = list(places)
        end, tail = counted_loop(b, i64(0), whole, DEPTH, start, one_block, "block")
        with b.if_then(b.icmp_signed(">", rest, i64(0))):
            first = v.masked_load(tail, v.first_lanes(rest))
            second = v.masked_load(offset(b, tail, i64(v.nbytes)), v.first_lanes(b.sub(rest, i64(v.lanes))))
            put(*_split(v, first, second), end)
        return [offset(b, start[0], to_step), offset(b, start[1], x_step)]

    counted_loop(b, i64(0), pixels, 1, [to, x], one_pixel, "pixel")
    b.ret_void()
    return function


@intrinsic
def split_pixels(typingctx, to, to_step, low, block, x, x_step, pixels, channels):
    """High parts of pixels `x_step` bytes apart, to `to_step` bytes apart; blocks of `DEPTH` channels lie `block` bytes apart.

    Low parts lie `low` bytes after them.  The last block is filled up with zeros.
    """

    def codegen(context, builder, signature, arguments):
        to, to_step, low, block, x, x_step, pixels, channels = arguments
        to, x = (builder.inttoptr(p, BYTES) for p in (to, x))
        builder.call(_emit_pixels(builder.module), [to, to_step, low, block, x, x_step, pixels, channels])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 8), codegen


@intrinsic
def split_pair(typingctx, to, low, first, second):
    """A row of a tile register of the right operand: element after element of two rows of 16 float32, their low parts `low` bytes
    after it.
    """

    def codegen(context, builder, signature, arguments):
        to, low, first, second = arguments
        v = Vectors(builder, 4, LANES)
        parts = split_pairs(v, *(v.load(builder.inttoptr(p, BYTES)) for p in (first, second)))
        for words, at in zip(parts, (to, builder.add(to, low))):
            store_words(builder, words, builder.inttoptr(at, BYTES))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen
