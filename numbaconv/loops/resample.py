"""Resampling of channels-last pixels: each output pixel is a weighted sum of input pixels, or a copy of one."""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import copy, get, itemsize
from numbaconv.codegen.records import resample_record
from numbaconv.codegen.resample import resample_pixel
from numbaconv.loops.walk import share


def resample_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of output rows."""
    r = resample_record(record)
    size = itemsize(alpha)
    first, last = share(r.n * r.out_d * r.out_h, part, rows * columns)
    copied = r.taps_d * r.taps_h * r.taps_w == 1
    to = out + first * r.out_w * r.out_pixel
    for row in range(first, last):
        rest, h = divmod(row, r.out_h)
        n, d = divmod(rest, r.out_d)
        image = x + n * r.x_image
        at_d, at_h = d * r.taps_d, h * r.taps_h
        for w in range(r.out_w):
            at_w = w * r.taps_w
            if copied:
                copy(to, image + get(r.at_d, at_d) + get(r.at_h, at_h) + get(r.at_w, at_w), r.channels, alpha)
            else:
                resample_pixel(
                    to,
                    image,
                    r.taps_d,
                    r.at_d + at_d * 8,
                    r.weight_d + at_d * size,
                    r.taps_h,
                    r.at_h + at_h * 8,
                    r.weight_h + at_h * size,
                    r.taps_w,
                    r.at_w + at_w * 8,
                    r.weight_w + at_w * size,
                    r.channels,
                    alpha,
                )
            to += r.out_pixel


resample_share = NativeFunction(resample_part, "resample_share")
