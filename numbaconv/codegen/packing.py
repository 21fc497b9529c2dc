"""What packs a matrix into panels: the record of the matrix, and rows that zeros fill up."""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.records import record_at
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, Vectors, counted_loop, i64, offset

#: Columns and channels are those of a group, steps from one to the next in bytes; `k` is the number of channels.  Of a group's
#: panels, `panels` from number `first` on are packed.
PACKING = np.dtype(
    [
        (name, np.int64)
        for name in "groups first panels columns k taps group_step column_step k_step tap_step itemsize".split()
    ]
)


packing_record = record_at(PACKING)


@intrinsic
def pack_rows(typingctx, to, to_step, source, source_step, rows, columns, like):
    """Copy rows of up to a vector of elements, so many bytes apart; zeros follow each up to a whole vector."""

    def codegen(context, builder, signature, arguments):
        to, to_step, source, source_step, rows, columns, _ = arguments
        size = like.bitwidth // 8
        v = Vectors(builder, size, target().lanes(size))
        mask = v.first_lanes(columns)

        def body(i, places):
            to, source = places
            v.store(v.masked_load(source, mask), to)
            return [offset(builder, to, to_step), offset(builder, source, source_step)]

        places = [builder.inttoptr(address, BYTES) for address in (to, source)]
        counted_loop(builder, i64(0), rows, 1, places, body, "rows")
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6, like), codegen
