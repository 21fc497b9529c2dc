"""Few streams that lie interleaved in memory, as pixels of few channels do: woven, taken apart, and their softmax, by shuffles."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import exp
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, counted_loop, i64, lanes_between, offset

#: The most streams that are worth shuffles; more are transposed.
STREAMS = 4


def _gathered(v: Vectors, vectors: list, places: list[tuple[int, int]]):
    """One vector whose lanes are elements of `vectors`: (which of them, lane) for each."""
    value = vectors[0]
    for number in range(1, len(vectors)):
        # the first shuffle puts what comes from vector 0 into place, too
        mask = [
            v.lanes + element if owner == number else element if number == 1 and owner == 0 else lane
            for lane, (owner, element) in enumerate(places)
        ]
        value = v.builder.shuffle_vector(value, vectors[number], ir.Constant(ir.VectorType(I32, v.lanes), mask))
    return value


def _woven(v: Vectors, streams: list) -> list:
    """Vectors of the sequence that takes one element from each stream in turn."""
    places = [divmod(number, len(streams)) for number in range(len(streams) * v.lanes)]
    places = [(owner, element) for element, owner in places]
    return [_gathered(v, streams, places[i : i + v.lanes]) for i in range(0, len(places), v.lanes)]


def _unwoven(v: Vectors, vectors: list) -> list:
    """The streams that such a sequence was woven from."""
    count = len(vectors)
    return [
        _gathered(v, vectors, [divmod(lane * count + stream, v.lanes) for lane in range(v.lanes)])
        for stream in range(count)
    ]


def _function(module, like: Vectors, name: str, arguments: int) -> tuple[ir.Function, Vectors] | None:
    """A new function of pointers to two operands and further integers, and vectors to fill it; None if the module has it."""
    if name in module.globals:
        return None
    kind = ir.FunctionType(ir.VoidType(), [BYTES, BYTES, *[I64] * arguments])
    function = ir.Function(module, kind, name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    return function, Vectors(ir.IRBuilder(function.append_basic_block("entry")), like.itemsize, like.lanes, like.fused)


def _of_streams(builder, streams, operation: str, emit: Callable, v: Vectors, operands: list) -> None:
    """Call the function that `emit(function, vectors, number)` fills for the number of streams, of 1 to `STREAMS`."""
    done = builder.append_basic_block("streams.done")
    switch = builder.switch(streams, done)
    for number in range(1, STREAMS + 1):
        name = f"numbaconv_{operation}{number}_{v.suffix}"
        made = _function(builder.module, v, name, len(operands) - 2)
        if made is not None:
            function, vectors = made
            emit(function, vectors, number)
            vectors.builder.ret_void()
        block = builder.append_basic_block(f"streams.{number}")
        switch.add_case(i64(number), block)
        with builder.goto_block(block):
            builder.call(builder.module.globals[name], operands)
            builder.branch(done)
    builder.position_at_end(done)


def _vectors(builder, like) -> Vectors:
    size = like.bitwidth // 8
    return Vectors(builder, size, target().lanes(size), target().fma)


def _pointers(builder, *addresses) -> list:
    return [builder.inttoptr(address, BYTES) for address in addresses]


def _emit_weave(function: ir.Function, v: Vectors, streams: int) -> None:
    destination, source, pitch, begin, end = function.args
    b = v.builder

    def body(first, _):
        # `first` counts elements of the destination, of which each stream gives its share
        at = offset(b, source, b.mul(b.udiv(first, i64(streams)), i64(v.itemsize)))
        vectors = [v.load(offset(b, at, b.mul(pitch, i64(stream)))) for stream in range(streams)]
        for number, value in enumerate(_woven(v, vectors)):
            here = b.add(first, i64(number * v.lanes))
            mask = lanes_between(v, b.sub(begin, here), b.sub(end, here))
            v.masked_store(value, offset(b, destination, b.mul(here, i64(v.itemsize))), mask)
        return []

    counted_loop(b, i64(0), end, streams * v.lanes, [], body, "weave")


@intrinsic
def weave(typingctx, destination, source, pitch, streams, begin, end, like):
    """destination[j * streams + s] = element j of stream s, for the elements of the destination from `begin` to below `end`.

    At most `STREAMS` streams, `pitch` bytes apart and readable in whole vectors; `like` has the element's type.
    """

    def codegen(context, builder, signature, arguments):
        destination, source, pitch, streams, begin, end, _ = arguments
        operands = [*_pointers(builder, destination, source), pitch, begin, end]
        _of_streams(builder, streams, "weave", _emit_weave, _vectors(builder, like), operands)
        return context.get_dummy_value()

    return types.void(destination, source, pitch, streams, begin, end, like), codegen


class _Place:
    """Streams in memory, from element `first` on: woven, or apart where their pitch is not 0."""

    def __init__(self, v: Vectors, base, pitch, streams: int, first, left):
        self._v, self._pitch, self._streams = v, pitch, streams
        b = v.builder
        self._woven = b.icmp_signed("==", pitch, i64(0))
        element, pixel = i64(v.itemsize), i64(streams * v.itemsize)
        self._base = offset(b, base, b.mul(first, b.select(self._woven, pixel, element)))
        self._left = left

    def _places(self, woven: bool):
        """For each vector, where it lies and which of its lanes exist."""
        v, b = self._v, self._v.builder
        for number in range(self._streams):
            if woven:
                left = b.sub(b.mul(self._left, i64(self._streams)), i64(number * v.lanes))
                yield offset(b, self._base, i64(number * v.nbytes)), v.first_lanes(left)
            else:
                yield offset(b, self._base, b.mul(self._pitch, i64(number))), v.first_lanes(self._left)

    def load(self) -> list:
        """A vector of each stream."""
        b, ways = self._v.builder, []
        with b.if_else(self._woven) as (together, apart):
            for way, woven in ((together, True), (apart, False)):
                with way:
                    vectors = [self._v.masked_load(*place) for place in self._places(woven)]
                    ways.append((_unwoven(self._v, vectors) if woven else vectors, b.block))
        phis = [b.phi(self._v.type) for _ in range(self._streams)]
        for vectors, block in ways:
            for phi, vector in zip(phis, vectors):
                phi.add_incoming(vector, block)
        return phis

    def store(self, streams: list) -> None:
        """Write a vector of each stream."""
        with self._v.builder.if_else(self._woven) as (together, apart):
            for way, woven in ((together, True), (apart, False)):
                with way:
                    values = _woven(self._v, streams) if woven else streams
                    for value, place in zip(values, self._places(woven)):
                        self._v.masked_store(value, *place)


def _walk(function: ir.Function, v: Vectors, streams: int, change: Callable[[list], list]) -> None:
    """destination = change(source), a vector of each stream at a time."""
    destination, source, to_pitch, from_pitch, count = function.args
    b = v.builder

    def body(first, _):
        left = b.sub(count, first)
        vectors = _Place(v, source, from_pitch, streams, first, left).load()
        _Place(v, destination, to_pitch, streams, first, left).store(change(vectors))
        return []

    counted_loop(b, i64(0), count, v.lanes, [], body, "streams")


@intrinsic
def unweave(typingctx, destination, pitch, source, streams, count, like):
    """Element j of stream s = source[j * streams + s] for j in range(count), at most `STREAMS` streams `pitch` bytes apart."""

    def codegen(context, builder, signature, arguments):
        destination, pitch, source, streams, count, _ = arguments

        def emit(function, v, number):
            _walk(function, v, number, lambda vectors: vectors)

        operands = [*_pointers(builder, destination, source), pitch, i64(0), count]
        _of_streams(builder, streams, "unweave", emit, _vectors(builder, like), operands)
        return context.get_dummy_value()

    return types.void(destination, pitch, source, streams, count, like), codegen


def _softmax(v: Vectors, streams: list) -> list:
    b = v.builder
    top = streams[0]
    for stream in streams[1:]:
        top = v.maximum(top, stream)
    # a NaN that the maximum missed is in the sum
    powers = [exp(v, b.fsub(stream, top)) for stream in streams]
    total = powers[0]
    for power in powers[1:]:
        total = b.fadd(total, power)
    inverse = b.fdiv(v.constant(1), total)
    return [b.fmul(power, inverse) for power in powers]


@intrinsic
def softmax_of_streams(typingctx, out, out_pitch, x, x_pitch, streams, count, like):
    """Softmax over at most `STREAMS` streams of `count` elements, `x_pitch` and `out_pitch` bytes apart; 0 where they lie woven."""

    def codegen(context, builder, signature, arguments):
        out, out_pitch, x, x_pitch, streams, count, _ = arguments

        def emit(function, v, number):
            _walk(function, v, number, lambda vectors: _softmax(v, vectors))

        operands = [*_pointers(builder, out, x), out_pitch, x_pitch, count]
        _of_streams(builder, streams, "softmax", emit, _vectors(builder, like), operands)
        return context.get_dummy_value()

    return types.void(out, out_pitch, x, x_pitch, streams, count, like), codegen
