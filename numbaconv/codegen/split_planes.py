"""Planes as the right operand of matrix tiles: rows of channels in pairs, element after element, in high and low parts.

A row of a plane is one of the block, with zeros where positions lie beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.halves import LANES, halves, store_parts
from numbaconv.codegen.split import Seen, scaled
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, branch_to, counted_loop, i64, load_i64, offset

#: Pixels from position to position that the function below has code for.
HOPS = (1, 2)

#: What an element of K is in a table of them: the address of its first position, and bounds of its rows and positions.
SOURCE = 5

# to, low, pair, row, x_row, pairs, rows, count, scale, and where elements are found: a table, or x, plane, channels and bounds
_COMMON = [BYTES, I64, I64, I64, I64, I64, I64, I64, BYTES]
_CHANNELS = [*_COMMON, BYTES, *[I64] * 6]
_TABLE = [*_COMMON, BYTES]


def _loaders(v: Vectors, hop: int, before, stop) -> tuple[Callable, Callable]:
    """How the vectors of 16 positions are loaded, by address and number of the first pixel: all of them, or with zeros in front of
    position `before` and from `stop` on, where nothing is read.
    """
    b = v.builder
    # pixels between positions are read, but none behind the last one
    first, end = b.mul(before, i64(hop)), b.sub(b.mul(stop, i64(hop)), i64(hop - 1))

    def inside(place, pixel):
        outside, within = (v.first_lanes(b.sub(bound, i64(pixel))) for bound in (first, end))
        return v.masked_load(place, b.and_(within, b.not_(outside)))

    return lambda place, _: v.load(place), inside


def _load(v: Vectors, hop: int, elements: list[tuple], position) -> list[list]:
    """The `hop` vectors of 16 positions of each element, an address and bounds; masks are only made where they are needed."""
    b = v.builder
    at, end = b.mul(position, i64(hop * v.itemsize)), b.add(position, i64(LANES + hop - 1))
    limits = [b.icmp_signed("<=", before, position) for _, before, _ in elements]
    limits += [b.icmp_signed("<=", end, stop) for *_, stop in elements]
    ways = []
    with b.if_else(functools.reduce(b.and_, limits)) as branches:
        for number, branch in enumerate(branches):
            with branch:
                found = []
                for x, *bounds in elements:
                    load = _loaders(v, hop, *(b.sub(bound, position) for bound in bounds))[number]
                    place = offset(b, x, at)
                    found += [load(offset(b, place, i64(n * v.nbytes)), n * v.lanes) for n in range(hop)]
                ways.append((found, b.block))
    vectors = []
    for pair in zip(*(found for found, _ in ways)):
        phi = b.phi(v.type)
        for value, (_, block) in zip(pair, ways):
            phi.add_incoming(value, block)
        vectors.append(phi)
    return [vectors[i : i + hop] for i in range(0, len(vectors), hop)]


def _pixels(v: Vectors, vectors: list):
    """Those of the positions themselves."""
    if len(vectors) == 1:
        return vectors[0]
    return v.builder.shuffle_vector(*vectors, ir.Constant(ir.VectorType(I32, v.lanes), [2 * n for n in range(v.lanes)]))


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
    """void(to, low, pair, row, x_row, pairs, rows, count, scale, ...): see `split_planes` and `split_patches`."""
    name = f"f32_split_{kind}_{hop}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), arguments), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to, low, pair, row, x_row, pairs, rows, count, scale, *where = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, LANES)
    bring = scaled(v, v.splat(v.load_scalar(scale)))
    source = (_channels if kind == "planes" else _tabled)(b, *where)

    # elements of patches are met again and again
    seen = Seen(v, scale, wanted=kind == "planes")

    def one_pair(number, places):
        to, *found = places
        first = b.mul(number, i64(2))
        (x, bounds), (x_next, bounds_next) = source(first), source(b.add(first, i64(1)))

        def one_row(number, places):
            here, x, x_next, *found = places
            elements = []
            for at, (top, bottom, before, stop) in ((x, bounds), (x_next, bounds_next)):
                inside = b.and_(b.icmp_signed(">=", number, top), b.icmp_signed("<", number, bottom))
                # outside of it memory that is mapped, of which nothing is read
                elements.append((b.select(inside, at, to), before, b.select(inside, stop, i64(0))))

            def one_vector(position, found):
                loaded = _load(v, hop, elements, position)
                pixels = [bring(_pixels(v, vectors)) for vectors in loaded]
                place = offset(b, here, b.mul(position, i64(v.itemsize)))
                for parts, at in zip(halves().split(v, *pixels, True), (place, offset(b, place, low))):
                    store_parts(b, parts, at)
                return seen.updated(found, *sum(loaded, []))

            found = counted_loop(b, i64(0), count, LANES, found, one_vector, "vector")
            return [offset(b, here, row), offset(b, x, x_row), offset(b, x_next, x_row), *found]

        _, _, _, *found = counted_loop(b, i64(0), rows, 1, [to, x, x_next, *found], one_row, "row")
        return [offset(b, to, pair), *found]

    _, *found = counted_loop(b, i64(0), pairs, 1, [to, *seen.start()], one_pair, "pair")
    seen.keep(found)
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
    typingctx, to, low, pair, row, x_row, pairs, rows, count, scale, x, plane, channels, top, bottom, before, stop, hop
):
    """`pairs` pairs of channels, `pair` bytes apart: `rows` rows of `count` positions, `row` bytes apart; low parts `low` bytes on.

    Of position p of a row the first channel is at `x` + its number times `x_row` + p `hop` elements, channels are `plane` bytes
    apart.  Rows outside of `top`..`bottom`, and positions outside of `before`..`stop`, are zeros.  What follows the last position
    of a row, up to a whole vector, is overwritten.  Where halves are scaled, all numbers are multiplied by the float32 at `scale`,
    and the largest ones kept; see `codegen.split.split_pixels`.
    """

    def codegen(context, builder, signature, arguments):
        _call(builder, "planes", _CHANNELS, arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 17), codegen


@intrinsic
def split_patches(typingctx, to, low, pair, row, x_row, pairs, rows, count, scale, table, hop):
    """The same for pairs of the elements in a table, which has `SOURCE` integers for each: x, top, bottom, before and stop."""

    def codegen(context, builder, signature, arguments):
        _call(builder, "patches", _TABLE, arguments)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 11), codegen
