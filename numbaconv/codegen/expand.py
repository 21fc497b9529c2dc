"""Spread the channels of narrow groups over lanes: lane j of a vector gets the channel of its own group.

One or two loads and a permutation for each vector; groups that lie wider apart are gathered lane by lane.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, counted_loop, i64, load_i64, offset

#: An expansion, for one vector of output channels: byte offset of the first channel, channels from there to the end of the
#: pixel, how many channels of a group may be taken from the same two loads (0: gather, `COPY`: copy), and in bytes the largest
#: distance of a lane's first channel from there.  Then each lane's distance in channels, as integers of the element's size.
EXPANSION = 4
#: Number of the largest distance.
SECOND = 3
#: Channels of a group that are taken from the same loads.
TOGETHER = 4
#: In the place of that number: every lane's channel is its own, and vectors are just copied.
COPY = -1


def permutes(isa: str, itemsize: int) -> bool:
    """Whether lanes of two vectors can be permuted by a vector of indices."""
    return isa == "avx512" or (isa == "avx2" and itemsize == 4)


def _permuted(v: Vectors, isa: str, low, high, index):
    if isa == "avx512":
        kind = {4: "ps", 8: "pd"}[v.itemsize]
        return v.call(f"llvm.x86.avx512.vpermi2var.{kind}.512", v.type, low, index, high)
    taken = [v.call("llvm.x86.avx2.permps", v.type, part, index) for part in (low, high)]
    return v.builder.select(v.builder.icmp_signed("<", index, v.integers(v.lanes)), *taken)


def _emit(module, like: Vectors, isa: str) -> ir.Function:
    """void(destination, source, rows, their two steps, pixels, their two steps, plane, channels, expansion)."""
    name = f"numbaconv_expand_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTES, BYTES, *[I64] * 8, BYTES]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to_first, from_first, rows, source_row, destination_row, *numbers, expansion = function.args
    pixels, source_step, destination_step, plane, channels = numbers
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)
    from_first = offset(b, from_first, load_i64(b, expansion))
    rest, together = load_i64(b, expansion, 1), load_i64(b, expansion, 2)
    table = offset(b, expansion, i64(8 * EXPANSION))

    def places(row, channel):
        source, destination = (
            offset(b, from_first, b.mul(row, source_row)),
            offset(b, to_first, b.mul(row, destination_row)),
        )
        return offset(b, source, b.mul(channel, i64(v.itemsize))), offset(b, destination, b.mul(channel, plane))

    def permute(row, count):
        index = v.load_integers(table)
        indices = [b.add(index, v.integers(i)) for i in range(count)]

        def body(channel, _):
            origin, to = places(row, channel)
            left = b.sub(rest, channel)
            masks = v.first_lanes(left), v.first_lanes(b.sub(left, i64(v.lanes)))

            def pixel(_, carried):
                origin, to = carried
                low = v.masked_load(origin, masks[0])
                high = v.masked_load(offset(b, origin, i64(v.nbytes)), masks[1])
                for i in range(count):
                    v.store(_permuted(v, isa, low, high, indices[i]), offset(b, to, b.mul(plane, i64(i))))
                return [offset(b, origin, source_step), offset(b, to, destination_step)]

            counted_loop(b, i64(0), pixels, 1, [origin, to], pixel, "pixel")
            return []

        return body

    def copy(row, channel):
        mask = v.first_lanes(rest)

        def pixel(_, carried):
            origin, to = carried
            v.store(v.masked_load(origin, mask), to)
            return [offset(b, origin, source_step), offset(b, to, destination_step)]

        counted_loop(b, i64(0), pixels, 1, [*places(row, channel)], pixel, "pixel")
        return []

    def gather(row, channel):
        origin, to = places(row, channel)

        def pixel(_, carried):
            origin, to = carried
            value = v.constant(0)
            for lane in range(v.lanes):
                slot = b.bitcast(offset(b, table, i64(lane * v.itemsize)), v.integer.element.as_pointer())
                distance = b.zext(b.load(slot, align=v.itemsize), I64) if v.itemsize < 8 else b.load(slot, align=8)
                element = v.load_scalar(offset(b, origin, b.mul(distance, i64(v.itemsize))))
                value = b.insert_element(value, element, ir.Constant(I32, lane))
            v.store(value, to)
            return [offset(b, origin, source_step), offset(b, to, destination_step)]

        counted_loop(b, i64(0), pixels, 1, [origin, to], pixel, "pixel")
        return []

    copied = b.select(b.icmp_signed("==", together, i64(COPY)), channels, i64(0))
    gathered, paired = channels, channels
    if permutes(isa, v.itemsize):
        gathered = b.select(b.icmp_signed("==", together, i64(0)), channels, copied)
        paired = b.select(b.icmp_signed("==", together, i64(TOGETHER)), b.and_(channels, i64(-TOGETHER)), gathered)

    def one_row(row, _):
        counted_loop(b, i64(0), copied, 1, [], lambda channel, _: copy(row, channel), "copy")
        counted_loop(b, copied, gathered, 1, [], lambda channel, _: gather(row, channel), "gather")
        if permutes(isa, v.itemsize):
            counted_loop(b, gathered, paired, TOGETHER, [], permute(row, TOGETHER), "together")
            counted_loop(b, paired, channels, 1, [], permute(row, 1), "single")
        return []

    counted_loop(b, i64(0), rows, 1, [], one_row, "row")
    b.ret_void()
    return function


@intrinsic
def expand(
    typingctx,
    destination,
    source,
    rows,
    source_row,
    destination_row,
    pixels,
    source_step,
    destination_step,
    plane,
    channels,
    expansion,
    like,
):
    """Write one vector for each of `pixels` pixels of `rows` rows and of a group's `channels`, as an `EXPANSION` record tells.

    Rows and pixels lie `source_row` and `source_step` bytes apart and are written `destination_row` and `destination_step` apart,
    channels `plane` bytes apart.
    """

    def codegen(context, builder, signature, arguments):
        destination, source, *numbers, expansion, _ = arguments
        size = like.bitwidth // 8
        v = Vectors(builder, size, target().lanes(size))
        pointers = [builder.inttoptr(value, BYTES) for value in (destination, source, expansion)]
        builder.call(_emit(builder.module, v, target().isa), [*pointers[:2], *numbers, pointers[2]])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 11, like), codegen
