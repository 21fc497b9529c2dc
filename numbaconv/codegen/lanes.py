"""How the lanes of a sliding tile meet the channels of their group: lanes are output channels of as many groups as there are.

Where input and output channels of narrow groups are the same lanes, lanes multiply their own pixels, once for each channel of a
group, and before each pass the sums are turned by one lane within their groups: so each input channel meets each output channel,
and what is permuted are a tile's sums instead of all pixels of all taps.  A vector that belongs to one wide group reads one
element for all lanes, and one that belongs to two groups one of two elements.  So these read the input in place; a strip that is
expanded before (`codegen.expand`) serves the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from numbaconv.codegen.expand import EXPANSION, SECOND
from numbaconv.codegen.records import SLIDE
from numbaconv.codegen.vector import I32, Vectors, i64, load_i64, offset

#: How many channels wide groups are whose sums are turned.
TURNED = {"depthwise": 1, "turned2": 2, "turned4": 4, "turned8": 8}
#: Those that read the elements of their groups through a table of expansions, one for each vector; and all that add up over the
#: channels of a group at one place after the other.
TABLED = ("broadcast", "blended")
CHANNELS = (*TABLED, "strip")
#: The operations of all sliding tiles.
SLIDING = (*TURNED, *CHANNELS)


def field(v: Vectors, record, name: str):
    """An integer of the `SLIDE` record at a pointer."""
    return load_i64(v.builder, record, SLIDE.names.index(name))


def pixels_of(v: Vectors, operation: str, vectors: int, record, expansion) -> Callable:
    """A function of a channel's number that returns a function of a pixel's address: the tile's vectors of that pixel.

    `expansion` points at the records of those of `TABLED`.
    """
    b = v.builder

    def whole(at):
        return lambda pixel: [v.load(offset(b, offset(b, pixel, at), i64(j * v.nbytes))) for j in range(vectors)]

    if operation == "strip":
        plane = field(v, record, "plane")
        return lambda channel: whole(b.mul(channel, plane))
    if operation not in TABLED:
        return lambda _: whole(i64(0))
    tables = [offset(b, expansion, i64(j * (8 * EXPANSION + v.nbytes))) for j in range(vectors)]
    firsts = [load_i64(b, table) for table in tables]

    def elements(channel, starts):
        at = b.mul(channel, i64(v.itemsize))
        ends = [b.add(start, at) for start in starts]
        return lambda pixel: [v.splat(v.load_scalar(offset(b, pixel, end))) for end in ends]

    if operation == "broadcast":
        return lambda channel: elements(channel, firsts)
    seconds = [b.add(first, load_i64(b, table, SECOND)) for first, table in zip(firsts, tables)]
    distances = [v.load_integers(offset(b, table, i64(8 * EXPANSION))) for table in tables]
    others = [b.icmp_signed("!=", distance, v.integers(0)) for distance in distances]

    def blends(channel):
        near, far = elements(channel, firsts), elements(channel, seconds)
        return lambda pixel: [b.select(*lanes) for lanes in zip(others, far(pixel), near(pixel))]

    return blends


def turn(v: Vectors, value, group: int):
    """Each lane takes the value of the next one of its group, the last one that of the first."""
    lanes = [lane - lane % group + (lane + 1) % group for lane in range(v.lanes)]
    return v.builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, v.lanes), lanes))
