"""A padded copy of a tensor, for loops that know no padding but zeros."""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.records import conv_record
from numbaconv.loops.patches import pack_pixels
from numbaconv.loops.walk import share


def padding_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share of rows.  A padded row is the patch of a kernel as wide as it is, which has one position a row."""
    conv = conv_record(conv_address)
    first, last = share(conv.n * conv.out_pixels, part, row_parts * column_parts)
    # Rows of one image at a time.
    while first < last:
        image, row = divmod(first, conv.out_pixels)
        stop = min(conv.out_pixels, row + last - first)
        to = out + first * conv.patch_pitch
        pack_pixels(conv, to, x + image * conv.x_image, row, stop, np.int64(0), conv.window * conv.c_in, alpha)
        first += stop - row


padding_share = NativeFunction(padding_part, "padding_share")
