"""The record of weights that are packed into panels."""

from __future__ import annotations

import numpy as np
from numba import from_dtype
from numba.extending import intrinsic

#: Columns and channels are those of a group, steps from one to the next in bytes; `k` is the number of channels.
PACKING = np.dtype(
    [
        (name, np.int64)
        for name in "groups panels columns k taps group_step column_step k_step tap_step itemsize".split()
    ]
)


@intrinsic
def packing_record(typingctx, address):
    """The `PACKING` record at an address."""
    result = from_dtype(PACKING)

    def codegen(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(result))

    return result(address), codegen
