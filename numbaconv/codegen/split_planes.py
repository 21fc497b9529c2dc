"""Planes as the right operand of matrix tiles: rows of channels in pairs, element after element, in high and low parts.

A row of a plane is one of the block, with zeros where positions lie beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.split import LANES, split_pairs, store_words
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, branch_to, counted_loop, i64, load_i64, offset

#: Pixels from position to position that the function below has code for.
HOPS = (1, 2)

#: What an element of K is in a table of them: the address of its first position, and bounds of its rows and positions.
SOURCE = 5

# to, low, pair, row, x_row, pairs, rows, count, and where elements are found: a table, or x, plane, channels and bounds
_COMMON = [BYTES, I64, I64, I64, I64, I64, I64, I64]
_CHANNELS = [*_COMMON, BYTES, *[I64] * 6]
_TABLE = [*_COMMON, BYTES]


def _load(v: Vectors, hop: int, at, load: Callable):
    """The pixels of 16 positions, of `hop` vectors: each is what `load` gives for its address and the number of its first pixel."""
    vectors = [load(offset(v.builder, at, i64(n * v.nbytes)), n * v.lanes) for n in range(hop)]
    if hop == 1:
        return vectors[0]
    return v.builder.shuffle_vector(*vectors, ir.Constant(ir.VectorType(I32, v.lanes), [2 * n for n in range(v.lanes)]))


def _load_inside(v: Vectors, hop: int, at, before, stop):
    """The same with zeros in front of position `before` and from `stop` on; nothing is read there."""
    b = v.builder
    # pixels between positions are read, but none behind the last one
    first, end = b.mul(before, i64(hop)), b.sub(b.mul(stop, i64(hop)), i64(hop - 1))

    def load(place, pixel):
        outside, inside = (v.first_lanes(b.sub(bound, i64(pixel))) for bound in (first, end))
        return v.masked_load(place, b.and_(inside, b.not_(outside)))

    return _load(v, hop, at, load)


def _channels(b, x, plane, channels, *bounds):
    """A function of a channel's number: its address, and bounds that all of them share."""
    last = b.sub(channels, i64(1))

    def source(channel):
        # channels beyond the last one meet weights of zero: any number that the output meets anyway will do
        return offset(b, x, b.mul(b.select(b.icmp_signed("<", channel, last), channel, last), plane)), bounds

    return source


def _tabled(b, table):
    """The same for elements of a table."""

    def source(element):
        first = b.mul(element, i64(SOURCE))
        address, *bounds = (load_i64(b, offset(b, table, b.mul(b.add(first, i64(n)), i64(8)))) for n in range(SOURCE))
        return b.inttoptr(address, BYTES), bounds

    return source


def _emit(module, kind: str, arguments: list, hop: int) -> ir.Function:
    """void(to, low, pair, row, x_row, pairs, rows, count, ...): see `split_planes` and `split_patches`."""
    name = f"f32_split_{kind}_{hop}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to, low, pair, row, x_row, pairs, rows, count, *where = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, LANES)
    source = (_channels if kind == "planes" else _tabled)(b, *where)

    def one_pair(number, places):
        first = b.mul(number, i64(2))
        (x, bounds), (x_next, bounds_next) = source(first), source(b.add(first, i64(1)))

        def one_row(number, places):
            here, *sources = places
            elements = []
            for x, (top, bottom, before, stop) in zip(sources, (bounds, bounds_next)):
                inside = b.and_(b.icmp_signed(">=", number, top), b.icmp_signed("<", number, bottom))
                # outside of it memory that is mapped, of which nothing is read
                elements.append((b.select(inside, x, to), before, b.select(inside, stop, i64(0))))

            def one_vector(position, _):
                at = b.mul(position, i64(hop * v.itemsize))
                place = offset(b, here, b.mul(position, i64(v.itemsize)))
                end = b.add(position, i64(LANES + hop - 1))
                limits = [b.icmp_signed("<=", before, position) for _, before, _ in elements]
                limits += [b.icmp_signed("<=", end, stop) for *_, stop in elements]

                def put(loaded):
                    for words, part in zip(split_pairs(v, *loaded), (place, offset(b, place, low))):
                        store_words(b, words, part)

                with b.if_else(functools.reduce(b.and_, limits)) as (whole, partial):
                    with whole:
                        put([_load(v, hop, offset(b, x, at), lambda place, _: v.load(place)) for x, *_ in elements])
                    with partial:
                        bounds = [[b.sub(bound, position) for bound in bounds] for _, *bounds in elements]
                        put([_load_inside(v, hop, offset(b, x, at), *pair) for (x, *_), pair in zip(elements, bounds)])
                return []

            counted_loop(b, i64(0), count, LANES, [], one_vector, "vector")
            return [offset(b, place, step) for place, step in zip(places, (row, x_row, x_row))]

        counted_loop(b, i64(0), rows, 1, [*places, x, x_next], one_row, "row")
        return [offset(b, *places, pair)]

    counted_loop(b, i64(0), pairs, 1, [to], one_pair, "pair")
    b.ret_void()
    return function


def _call(builder, kind: str, expected: list, arguments) -> None:
    """Call the function for a hop."""
    *operands, hop = arguments
    operands = [builder.inttoptr(x, t) if t is BYTES else x for x, t in zip(operands, expected)]

    def case(hop):
        return lambda: builder.call(_emit(builder.module, kind, expected, hop), operands)

    branch_to(builder, builder.sub(hop, i64(HOPS[0])), [case(hop) for hop in HOPS])


@intrinsic
def split_planes(
    typingctx, to, low, pair, row, x_row, pairs, rows, count, x, plane, channels, top, bottom, before, stop, hop
):
    """`pairs` pairs of channels, `pair` bytes apart: `rows` rows of `count` positions, `row` bytes apart; low parts `low` bytes on.

    Of position p of a row the first channel is at `x` + its number times `x_row` + p `hop` elements, channels are `plane` bytes
    apart.  Rows outside of `top`..`bottom`, and positions outside of `before`..`stop`, are zeros.  What follows the last position
    of a row, up to a whole vector, is overwritten.
    """

    def codegen(context, builder, signature, arguments):
        _call(builder, "planes", _CHANNELS, arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 16), codegen


@intrinsic
def split_patches(typingctx, to, low, pair, row, x_row, pairs, rows, count, table, hop):
    """The same for pairs of the elements in a table, which has `SOURCE` integers for each: x, top, bottom, before and stop."""

    def codegen(context, builder, signature, arguments):
        _call(builder, "patches", _TABLE, arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), codegen
