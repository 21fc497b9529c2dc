"""The record of weights that are packed into panels."""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.records import record_at

#: Columns and channels are those of a group, steps from one to the next in bytes; `k` is the number of channels.
PACKING = np.dtype(
    [
        (name, np.int64)
        for name in "groups panels columns k taps group_step column_step k_step tap_step itemsize".split()
    ]
)


packing_record = record_at(PACKING)
