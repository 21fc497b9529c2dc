"""Vector operations of the overlap-add: sums of shifted runs with their epilogue."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import activate
from numbaconv.codegen.records import record_at
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, Vectors, counted_loop, i64, lanes_between, load_i64, offset

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

overlap_record = record_at(OVERLAP)


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
                    mask = lanes_between(v, begin, end)
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
