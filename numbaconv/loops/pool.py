"""Pools over channels-last pixels: windows in up to three dimensions, cut off where they leave the input."""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.records import pool_record
from numbaconv.codegen.reduce import reduce_along
from numbaconv.loops.walk import share


@njit
def taps_inside(start, taps, dilation, low, high):
    """The first tap of a window that lies in low..high, and how many do."""
    first = max(0, (low - start + dilation - 1) // dilation)
    last = min(taps, (high - start + dilation - 1) // dilation)
    return first, max(0, last - first)


@njit
def counted(start, taps, dilation, size, end, padded):
    """How many taps of a window count in a mean."""
    if padded:
        # the window starts in the padding before at the earliest, but may end behind that after
        return taps_inside(start, taps, dilation, start, size + end)[1]
    return taps_inside(start, taps, dilation, 0, size)[1]


def pool_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of output rows."""
    p = pool_record(record)
    first, last = share(p.n * p.out_d * p.out_h, part, rows * columns)
    x_row = p.size_w * p.x_pixel
    x_plane = p.size_h * x_row
    to = out + first * p.out_w * p.out_pixel
    for row in range(first, last):
        rest, h = divmod(row, p.out_h)
        n, d = divmod(rest, p.out_d)
        top, left = d * p.stride_d - p.pad_d, h * p.stride_h - p.pad_h
        d_first, d_taps = taps_inside(top, p.k_d, p.dilation_d, 0, p.size_d)
        h_first, h_taps = taps_inside(left, p.k_h, p.dilation_h, 0, p.size_h)
        lines = counted(top, p.k_d, p.dilation_d, p.size_d, p.end_d, p.padded) * counted(
            left, p.k_h, p.dilation_h, p.size_h, p.end_h, p.padded
        )
        source = x + (n * p.size_d + top + d_first * p.dilation_d) * x_plane + (left + h_first * p.dilation_h) * x_row
        for w in range(p.out_w):
            start = w * p.stride_w - p.pad_w
            w_first, w_taps = taps_inside(start, p.k_w, p.dilation_w, 0, p.size_w)
            divisor = type(alpha)(1)
            if p.mean:
                divisor = type(alpha)(lines * counted(start, p.k_w, p.dilation_w, p.size_w, p.end_w, p.padded))
            reduce_along(
                p.operation,
                to,
                source + (start + w_first * p.dilation_w) * p.x_pixel,
                d_taps,
                p.dilation_d * x_plane,
                h_taps,
                p.dilation_h * x_row,
                w_taps,
                p.dilation_w * p.x_pixel,
                p.channels,
                divisor,
            )
            to += p.out_pixel


pool_share = NativeFunction(pool_part, "pool_share")
