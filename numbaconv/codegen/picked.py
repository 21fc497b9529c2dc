"""Neighbouring output pixels of several taps and channels picked from planes: every s-th column, up to a panel's row of them.

Which lanes are loaded and stored is the same for all taps and channels, and found once.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.strip import one_by_one
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, branch_to, counted_loop, i64, offset

#: Steps from column to column that whole vectors are picked by; pixels further apart come one by one.
STEPS = 5


def _every(v: Vectors, loaded: list):
    """Every n-th lane of n vectors, from the first one on."""
    step, value = len(loaded), loaded[0]
    for number in range(1, step):
        lanes = []
        for lane in range(v.lanes):
            vector, at = divmod(lane * step, v.lanes)
            before = at if number == 1 else lane
            lanes.append(before if vector < number else v.lanes + at)
        index = ir.Constant(ir.VectorType(I32, v.lanes), lanes)
        value = v.builder.shuffle_vector(value, loaded[number], index)
    return value


def _in_vectors(v: Vectors, vectors: int, step: int, count):
    """Copies the columns of one tap and channel in whole vectors; nothing beyond the last one is touched."""
    b = v.builder
    reach = b.add(b.mul(b.sub(count, i64(1)), i64(step)), i64(1))

    def mask(elements, number: int):
        return v.first_lanes(b.sub(elements, i64(number * v.lanes)))

    read = [mask(reach, number) for number in range(vectors * step)]
    written = [mask(count, number) for number in range(vectors)]

    def copy(to, source):
        for j in range(vectors):
            with b.if_then(b.icmp_signed(">", count, i64(j * v.lanes))):
                numbers = range(j * step, (j + 1) * step)
                loaded = [v.masked_load(offset(b, source, i64(n * v.nbytes)), read[n]) for n in numbers]
                v.masked_store(_every(v, loaded), offset(b, to, i64(j * v.nbytes)), written[j])

    return copy


def _emit(module, like: Vectors, vectors: int) -> ir.Function:
    """void(destination, its pitches of channels, lines and taps, source, its pitches, channels, lines, taps, columns, step)."""
    name = f"numbaconv_pick_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    kind = ir.FunctionType(ir.VoidType(), [BYTES, *[I64] * 3, BYTES, *[I64] * 8])
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to, *to_pitches, source = function.args[:5]
    *source_pitches, channels, lines, taps, count, step = function.args[5:]
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)

    def each(number: int, body):
        """`body(places)` for all of one kind, which lie a pitch apart: channels, lines, taps."""
        name, times = (("channel", channels), ("line", lines), ("tap", taps))[number]

        def one(_, places):
            body(places)
            return [offset(b, places[0], to_pitches[number]), offset(b, places[1], source_pitches[number])]

        return lambda places: counted_loop(b, i64(0), times, 1, places, one, name)

    def all_rows(copy):
        each(0, each(1, each(2, lambda places: copy(*places))))([to, source])

    def picked(number: int):
        return lambda: all_rows(_in_vectors(v, vectors, number, count))

    others = b.icmp_unsigned(">", step, i64(STEPS))
    case = b.select(others, i64(0), step)
    branch_to(b, case, [lambda: all_rows(one_by_one(v, count, step)), *(picked(n + 1) for n in range(STEPS))])
    b.ret_void()
    return function


@intrinsic(prefer_literal=True)
def pick(
    typingctx,
    vectors,
    destination,
    destination_channel,
    destination_line,
    destination_tap,
    source,
    source_channel,
    source_line,
    source_tap,
    channels,
    lines,
    taps,
    count,
    step,
    like,
):
    """Copy `count` columns, `step` columns apart, of each of `channels` x `lines` x `taps` to neighbouring places.

    Pitches are bytes from channel to channel, from line to line, and from tap to tap.  There are from one column to as many as
    `vectors` vectors hold, a literal.
    """
    signature = types.void(vectors, *[types.intp] * 13, like)

    def codegen(context, builder, signature, arguments):
        _, destination, *to_pitches, source = arguments[:6]
        size = like.bitwidth // 8
        v = Vectors(builder, size, target().lanes(size))
        pointers = [builder.inttoptr(value, BYTES) for value in (destination, source)]
        function = _emit(builder.module, v, vectors.literal_value)
        builder.call(function, [pointers[0], *to_pitches, pointers[1], *arguments[6:-1]])
        return context.get_dummy_value()

    return signature, codegen
