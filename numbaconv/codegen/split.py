"""Pixels and weights split into high and low parts, as the matrix tiles of `codegen.amx` read them."""

from __future__ import annotations

import functools

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.amx import DEPTH, ROW_BYTES
from numbaconv.codegen.halves import LANES, halves, store_one, store_parts
from numbaconv.codegen.scales import BIAS, MAGNITUDES, USUAL, filling, usual
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, counted_loop, i64, offset


def scaled(v: Vectors, scale):
    """A function that brings vectors into the range of halves that have one."""
    if not halves().scaled:
        return lambda x: x
    return lambda x: v.builder.fmul(x, scale)


class Seen:
    """The largest magnitudes that a function met, carried by its loops, where halves are scaled: they come after the scale.

    `wanted` is false where nobody asks for them.
    """

    def __init__(self, v: Vectors, scale, wanted: bool = True):
        self.v, self.wanted = v, wanted and halves().scaled
        self.place = offset(v.builder, scale, i64(MAGNITUDES))

    def start(self) -> list:
        """What the outermost loop carries first."""
        return [self.v.constant(0)] if self.wanted else []

    def updated(self, found: list, *vectors) -> list:
        """The same after some more numbers."""
        return [functools.reduce(self.v.larger_magnitude, vectors, one) for one in found]

    def keep(self, found: list) -> None:
        """Write it, if functions before this one met no larger ones."""
        for one in found:
            self.v.store(self.v.larger_magnitude(one, self.v.load(self.place)), self.place)


def _emit_pixels(module, each: bool) -> ir.Function:
    """void(to, to_step, low, block, x, x_step, pixels, channels, scale, unit): see `split_pixels` and `split_each_pixel`."""
    name = f"f32_split_{'each_pixel' if each else 'pixels'}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    arguments = [BYTES, I64, I64, I64, BYTES, I64, I64, I64, BYTES, BYTES]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to, to_step, low, block, x, x_step, pixels, channels, scales, unit = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, LANES)
    whole = b.and_(channels, i64(-DEPTH))
    rest = b.sub(channels, whole)
    masks = v.first_lanes(rest), v.first_lanes(b.sub(rest, i64(LANES)))

    def tail(place):
        return [v.masked_load(offset(b, place, i64(n * v.nbytes)), mask) for n, mask in enumerate(masks)]

    def split_pixel(to, x, bring, seen, found):
        def put(first, second, to):
            for parts, at in zip(halves().split(v, bring(first), bring(second), False), (to, offset(b, to, low))):
                store_parts(b, parts, at)

        def one_block(_, carried):
            to, x, *found = carried
            first, second = v.load(x), v.load(offset(b, x, i64(v.nbytes)))
            put(first, second, to)
            return [offset(b, to, block), offset(b, x, i64(2 * v.nbytes)), *seen.updated(found, first, second)]

        def last_block(_, carried):
            to, x, *found = carried
            first, second = tail(x)
            put(first, second, to)
            return [to, x, *seen.updated(found, first, second)]

        carried = counted_loop(b, i64(0), whole, DEPTH, [to, x, *found], one_block, "block")
        _, _, *found = counted_loop(b, i64(0), rest, DEPTH, carried, last_block, "last")
        return found

    def small_pixel(_, places):
        to, x, *found = places
        loaded = v.masked_load(x, masks[0])
        for parts, at in zip(halves().split(v, common(loaded), v.constant(0), False), (to, offset(b, to, low))):
            store_one(b, parts, 0, at)
        return [offset(b, to, to_step), offset(b, x, x_step), *seen.updated(found, loaded)]

    def one_pixel(_, places):
        to, x, *found = places
        return [offset(b, to, to_step), offset(b, x, x_step), *split_pixel(to, x, common, seen, found)]

    def one_pixel_alone(_, places):
        to, x, inverses = places
        (found,) = split_pixel(to, x, bring_usual, seen, seen.start())
        store_inverse(back, inverses)
        with b.if_then(b.not_(usual(v, found)), likely=False):
            scale, own_back = filling(v, found, unit)
            store_inverse(own_back, inverses)
            split_pixel(to, x, scaled(v, scale), unseen, [])
        return [offset(b, to, to_step), offset(b, x, x_step), offset(b, inverses, i64(v.itemsize))]

    def store_inverse(back, place):
        b.store(b.extract_element(back, ir.Constant(I32, 0)), b.bitcast(place, v.scalar.as_pointer()), align=v.itemsize)

    seen, unseen = Seen(v, scales), Seen(v, scales, False)
    if each:
        unit = v.splat(v.load_scalar(unit))
        factor = 2.0 ** (USUAL - BIAS)
        bring_usual, back = scaled(v, v.constant(factor)), b.fmul(unit, v.constant(1 / factor))
        counted_loop(b, i64(0), pixels, 1, [to, x, scales], one_pixel_alone, "pixel")
    else:
        common = scaled(v, v.splat(v.load_scalar(scales)))
        # where pixels lie closer than a block, what fills up one is written by the next
        close = b.icmp_signed("<", to_step, i64(ROW_BYTES))
        small = b.select(b.and_(close, b.icmp_signed("<=", channels, i64(LANES))), pixels, i64(0))
        carried = counted_loop(b, i64(0), small, 1, [to, x, *seen.start()], small_pixel, "small")
        _, _, *found = counted_loop(b, small, pixels, 1, carried, one_pixel, "pixel")
        seen.keep(found)
    b.ret_void()
    return function


def _call(builder, arguments, each: bool) -> None:
    to, to_step, low, block, x, x_step, pixels, channels, scales, unit = arguments
    to, x, scales, unit = (builder.inttoptr(p, BYTES) for p in (to, x, scales, unit))
    operands = [to, to_step, low, block, x, x_step, pixels, channels, scales, unit]
    builder.call(_emit_pixels(builder.module, each), operands)


@intrinsic
def split_pixels(typingctx, to, to_step, low, block, x, x_step, pixels, channels, scale):
    """High parts of pixels `x_step` bytes apart, to `to_step` bytes apart; blocks of `DEPTH` channels lie `block` bytes apart.

    Low parts lie `low` bytes after them.  The last block is filled up with zeros, those of up to 16 channels that lie closer than a
    block to half of one.  Where halves are scaled, all numbers are
    multiplied by the float32 at address `scale`, `MAGNITUDES` bytes after which the largest ones are kept.
    """

    def codegen(context, builder, signature, arguments):
        _call(builder, [*arguments, arguments[-1]], each=False)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), codegen


@intrinsic
def split_each_pixel(typingctx, to, to_step, low, block, x, x_step, pixels, channels, inverses, unit):
    """The same with a scale for each pixel: the usual one, or what fills the range; see `loops.scales`.

    Their inverses, times the one at `unit`, go to `inverses`.
    """

    def codegen(context, builder, signature, arguments):
        # halves without a range are never asked for it
        _call(builder, arguments, each=halves().scaled)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), codegen


@intrinsic
def split_pair(typingctx, to, low, first, second, scale):
    """A row of a tile register of the right operand: element after element of two rows of 16 float32, their low parts `low` bytes
    after it.
    """

    def codegen(context, builder, signature, arguments):
        to, low, first, second, scale = arguments
        v = Vectors(builder, 4, LANES)
        bring = scaled(v, v.splat(v.load_scalar(builder.inttoptr(scale, BYTES))))
        rows = (bring(v.load(builder.inttoptr(p, BYTES))) for p in (first, second))
        for parts, at in zip(halves().split(v, *rows, True), (to, builder.add(to, low))):
            store_parts(builder, parts, builder.inttoptr(at, BYTES))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), codegen
