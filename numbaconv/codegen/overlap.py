"""Vector operations of the overlap-add: sums of shifted runs with their epilogue, and rows woven from interleaved streams."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import activate
from numbaconv.codegen.records import record_at
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, counted_loop, i64, load_i64, offset

#: A transposed convolution as the loops see it.  Channels are those of one group, pitches and addresses are in bytes; what
#: starts with `at_` is an offset into a thread's workspace.
OVERLAP = np.dtype(
    [
        (name, np.int64)
        for name in (
            "n h_in w_in c_in h_out w_out c_out groups k_h k_w stride_h stride_w dilation_h dilation_w pad_top pad_left reach_h "
            "reach_w itemsize x_image x_channel x_row x_pixel out_image out_channel out_row out_pixel weight weight_pitch tap "
            "bias zeros activation core blocks_h blocks_w chunks at_tiles at_runs at_panels at_columns at_sums column_pitch "
            "sum_pitch"
        ).split()
    ]
)

#: A run: byte offset of its element number 0, and the first element that exists and the one after the last.
RUN = 3
#: The most streams that `weave` interleaves by shuffles; more are transposed.
STREAMS = 4


overlap_record = record_at(OVERLAP)


def _lanes_between(v: Vectors, begin, end):
    """Mask of the lanes from `begin` to below `end`, 64-bit integers that may be negative or too large."""
    return v.builder.and_(v.first_lanes(end), v.builder.not_(v.first_lanes(begin)))


@intrinsic
def sum_runs(typingctx, destination, runs, number, base, count, bias, code, alpha, beta):
    """destination[i] = activation(bias + the sum of all runs' elements number i), for i in range(count).

    `runs` is the address of `number` records that hold `RUN` int64 each, relative to `base`; elements outside a run count as
    zero and are not read.  The destination has room for whole vectors.
    """

    def codegen(context, builder, signature, arguments):
        destination, runs, number, base, count, bias, code, alpha, beta = arguments
        size = signature.args[-1].bitwidth // 8
        v = Vectors(builder, size, target().lanes(size), target().fma)
        to, table, origin = (builder.inttoptr(value, BYTES) for value in (destination, runs, base))
        first = v.splat(v.load_scalar(builder.inttoptr(bias, BYTES)))

        def sums(finish):
            def body(i, _):
                at = builder.mul(i, i64(size))

                def add(run, carried):
                    record = offset(builder, table, builder.mul(run, i64(8 * RUN)))
                    source = offset(builder, origin, builder.add(load_i64(builder, record), at))
                    begin, end = (builder.sub(load_i64(builder, record, field), i) for field in (1, 2))
                    mask = _lanes_between(v, begin, end)
                    return [builder.fadd(carried[0], v.masked_load(source, mask))]

                (value,) = counted_loop(builder, i64(0), number, 1, [first], add, "runs")
                v.store(finish(value), offset(builder, to, at))
                return []

            counted_loop(builder, i64(0), count, v.lanes, [], body, "sums")

        low, high = v.splat(alpha), v.splat(beta)
        with builder.if_else(builder.icmp_signed("==", code, i64(0))) as (clamp, other):
            with clamp:
                sums(lambda value: v.minimum(high, v.maximum(low, value)))
            with other:
                sums(lambda value: activate(v, value, code, alpha, beta))
        return context.get_dummy_value()

    return types.void(*[types.intp] * 7, alpha, beta), codegen


def _woven(v: Vectors, vectors: list, number: int):
    """Vector `number` of the sequence that takes one element from each of `vectors` in turn."""
    streams = len(vectors)
    places = [divmod(number * v.lanes + lane, streams) for lane in range(v.lanes)]
    value = vectors[0]
    for stream in range(1, streams):
        # the first shuffle puts stream 0 into place, too
        mask = [
            v.lanes + element if owner == stream else element if stream == 1 and owner == 0 else lane
            for lane, (element, owner) in enumerate(places)
        ]
        value = v.builder.shuffle_vector(value, vectors[stream], ir.Constant(ir.VectorType(I32, v.lanes), mask))
    return value


def _emit_weave(module, like: Vectors, streams: int) -> ir.Function:
    """void(destination, source, pitch, begin, end) for a fixed number of streams."""
    name = f"numbaconv_weave{streams}_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTES, BYTES, I64, I64, I64]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    destination, source, pitch, begin, end = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)

    def body(first, _):
        # `first` counts elements of the destination, of which each stream gives its share
        at = offset(b, source, b.mul(b.udiv(first, i64(streams)), i64(v.itemsize)))
        vectors = [v.load(offset(b, at, b.mul(pitch, i64(stream)))) for stream in range(streams)]
        for number in range(streams):
            here = b.add(first, i64(number * v.lanes))
            mask = _lanes_between(v, b.sub(begin, here), b.sub(end, here))
            v.masked_store(_woven(v, vectors, number), offset(b, destination, b.mul(here, i64(v.itemsize))), mask)
        return []

    counted_loop(b, i64(0), end, streams * v.lanes, [], body, "weave")
    b.ret_void()
    return function


@intrinsic
def weave(typingctx, destination, source, pitch, streams, begin, end, like):
    """destination[j * streams + s] = element j of stream s, for the elements of the destination from `begin` to below `end`.

    At most `STREAMS` streams, `pitch` bytes apart and readable in whole vectors; `like` has the element's type.
    """

    def codegen(context, builder, signature, arguments):
        destination, source, pitch, streams, begin, end, _ = arguments
        size = like.bitwidth // 8
        v = Vectors(builder, size, target().lanes(size))
        converted = [builder.inttoptr(destination, BYTES), builder.inttoptr(source, BYTES), pitch, begin, end]
        done = builder.append_basic_block("weave.done")
        switch = builder.switch(streams, done)
        for number in range(1, STREAMS + 1):
            block = builder.append_basic_block(f"weave.{number}")
            switch.add_case(i64(number), block)
            with builder.goto_block(block):
                builder.call(_emit_weave(builder.module, v, number), converted)
                builder.branch(done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(destination, source, pitch, streams, begin, end, like), codegen
