"""Pixels of several narrow groups, each split into its own high and low parts: so many pixels as a vector has groups at a time."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.halves import LANES, halves, store_one
from numbaconv.codegen.split import Seen, scaled
from numbaconv.codegen.transpose import transposed
from numbaconv.codegen.vector import BYTES, I64, Vectors, branch_to, counted_loop, i64, offset

#: Channels of the groups that are split together; groups of a vector, and as many pixels of one are a vector, too.
WIDTHS = 8, 4
TOGETHER = tuple(LANES // channels for channels in WIDTHS)


def _emit(module, together: int) -> ir.Function:
    """void(to, apart, low, x, x_step, pixels, groups, scale): see `split_groups`."""
    name = f"f32_split_{together}_groups"
    if (existing := module.globals.get(name)) is not None:
        return existing
    arguments = [BYTES, I64, I64, BYTES, I64, I64, I64, BYTES]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to, apart, low, x, x_step, pixels, groups, scale = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, LANES)
    bring, seen = scaled(v, v.splat(v.load_scalar(scale))), Seen(v, scale)
    whole = b.and_(pixels, i64(-together))
    rest = b.sub(pixels, whole)

    def one_vector(first, carried):
        """Of all pixels, those of the groups from number `first` on that are a vector together, or fewer groups."""
        to, x, *found = carried
        left = b.sub(groups, first)
        lanes = b.mul(left, i64(LANES // together))

        def some_pixels(masks):
            def body(_, carried):
                to, x, *found = carried
                loaded = [v.masked_load(offset(b, x, b.mul(x_step, i64(n))), mask) for n, mask in enumerate(masks)]
                of_groups = transposed(v, [bring(pixel) for pixel in loaded])
                for number in range(0, together, 2):
                    pair = halves().split(v, *of_groups[number : number + 2], False)
                    for parts, part in zip(pair, (to, offset(b, to, low))):
                        for one in range(2):
                            with b.if_then(b.icmp_signed(">", left, i64(number + one)), likely=True):
                                store_one(b, parts, one, offset(b, part, b.mul(apart, i64(number + one))))
                steps = i64(2 * LANES), b.mul(x_step, i64(together))
                return [*(offset(b, place, step) for place, step in zip((to, x), steps)), *seen.updated(found, *loaded)]

            return body

        every = [v.first_lanes(lanes)] * together
        carried = counted_loop(b, i64(0), whole, together, [to, x, *found], some_pixels(every), "pixels")
        some = [v.first_lanes(b.select(b.icmp_signed(">", rest, i64(n)), lanes, i64(0))) for n in range(together)]
        _, _, *found = counted_loop(b, i64(0), rest, together, carried, some_pixels(some), "rest")
        steps = b.mul(apart, i64(together)), i64(4 * LANES)
        return [*(offset(b, place, step) for place, step in zip((to, x), steps)), *found]

    _, _, *found = counted_loop(b, i64(0), groups, together, [to, x, *seen.start()], one_vector, "vector")
    seen.keep(found)
    b.ret_void()
    return function


@intrinsic
def split_groups(typingctx, to, apart, low, x, x_step, pixels, channels, groups, scale):
    """High parts of pixels `x_step` bytes apart, of each of some neighbouring groups, whose channels are one of `WIDTHS`: one pixel
    after another, those of the next group `apart` bytes further.

    Low parts lie `low` bytes after them; what fills up the last 32 bytes is zeros.  The scale is that of
    `codegen.split.split_pixels`.
    """

    def codegen(context, builder, signature, arguments):
        to, apart, low, x, x_step, pixels, channels, groups, scale = arguments
        to, x, scale = (builder.inttoptr(p, BYTES) for p in (to, x, scale))
        operands = [to, apart, low, x, x_step, pixels, groups, scale]

        def case(together):
            return lambda: builder.call(_emit(builder.module, together), operands)

        number = builder.zext(builder.icmp_signed("!=", channels, i64(WIDTHS[0])), I64)
        branch_to(builder, number, [case(together) for together in TOGETHER])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), codegen
