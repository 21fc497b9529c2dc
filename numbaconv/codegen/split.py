"""Float32 as the sum of two bfloat16: high parts and low parts, as the matrix tiles of `codegen.amx` read them.

The high part is rounded to the nearest with 8 bits, halves away from zero; the low part is what is left, rounded to the nearest
even one.  Together they miss x by 2^-17 of it at most.  A NaN stays one; infinity leaves a NaN behind.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.amx import DEPTH, ROW_BYTES
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, counted_loop, i64, offset

_LANES = 16


class _BFloat(ir.types.Type):
    """LLVM's bfloat, which llvmlite does not name."""

    def __str__(self):
        return "bfloat"

    def __eq__(self, other):
        return isinstance(other, _BFloat)

    def __hash__(self):
        return hash(_BFloat)


_HALVES = ir.VectorType(_BFloat(), 2 * _LANES)
_WORDS = ir.VectorType(ir.IntType(16), 2 * _LANES)


def _split(v: Vectors, first, second):
    """High and low parts of two vectors, the first one's below the second's: two vectors of 32 words."""
    b = v.builder

    def rounded(x):
        bits = b.add(b.bitcast(x, v.integer), v.integers(1 << 15))
        return b.bitcast(b.and_(bits, v.integers(-(1 << 16))), v.type)

    def halves(x, y):
        # the instruction's first operand becomes the upper half
        return b.bitcast(v.call("llvm.x86.avx512bf16.cvtne2ps2bf16.512", _HALVES, y, x), _WORDS)

    high = [rounded(x) for x in (first, second)]
    low = [b.fsub(x, h) for x, h in zip((first, second), high)]
    return halves(*high), halves(*low)


def _store(b, words, pointer) -> None:
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
    v = Vectors(b, 4, _LANES)
    whole = b.and_(channels, i64(-DEPTH))
    rest = b.sub(channels, whole)

    def one_pixel(_, places):
        def put(high, low_part, to):
            _store(b, high, to)
            _store(b, low_part, offset(b, to, low))

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
        v = Vectors(builder, 4, _LANES)
        order = [number for lane in range(_LANES) for number in (lane, _LANES + lane)]
        mask = ir.Constant(ir.VectorType(I32, 2 * _LANES), order)
        parts = _split(v, *(v.load(builder.inttoptr(p, BYTES)) for p in (first, second)))
        for words, at in zip(parts, (to, builder.add(to, low))):
            _store(builder, builder.shuffle_vector(words, words, mask), builder.inttoptr(at, BYTES))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 4), codegen


#: Bytes that a block of one pixel's channels takes in either part.
BLOCK_BYTES = ROW_BYTES
