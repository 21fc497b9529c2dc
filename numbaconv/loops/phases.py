"""Phases of an image interleaved: what makes one large image of many small ones that were computed apart."""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import copy, itemsize
from numbaconv.codegen.records import phases_record
from numbaconv.loops.walk import share


def interleave_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of the rows of the result; its last ones and their last pixels may be left out."""
    p = phases_record(record)
    first, last = share(p.n * p.h_out, part, rows * columns)
    for number in range(first, last):
        image, row = divmod(number, p.h_out)
        h, down = divmod(row, p.down)
        source = x + ((image * p.h + h) * p.w * p.down + down) * p.across * p.pixel
        to = out + number * p.w_out * p.pixel
        # All phases of a pixel are neighbours on either side.
        for w_out in range(0, p.w_out, p.across):
            copy(to, source, min(p.across, p.w_out - w_out) * p.pixel // itemsize(alpha), alpha)
            to += p.across * p.pixel
            source += p.down * p.across * p.pixel


interleave_share = NativeFunction(interleave_part, "interleave_share")
