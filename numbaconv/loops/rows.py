"""Softmax and normalisation of rows of neighbouring elements: several passes over a row while it is in the L1."""

from __future__ import annotations

import math

import numpy as np

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import clear, element, itemsize, put, put_element
from numbaconv.codegen.records import classes_record, response_record, rows_record
from numbaconv.codegen.rows import (
    run_affine,
    run_bound,
    run_deviation,
    run_exponentials,
    run_maximum,
    run_position,
    run_response,
    run_squares,
    run_sum,
)
from numbaconv.codegen.weave import softmax_of_streams
from numbaconv.loops.gemm import VECTOR_BYTES
from numbaconv.loops.walk import share

#: Bytes of short rows whose exponentials are taken at once: they stay in the L1.
_BLOCK = 8192


@njit
def softmax_of_short(source, to, rows, count, one):
    """Softmax of `rows` rows of `count` elements, one after another: only exponentials are worth vectors, which span rows."""
    size = itemsize(one)
    row = count * size
    for at in range(0, rows * row, row):
        top = element(source + at, one)
        for i in range(at + size, at + row, size):
            top = max(top, element(source + i, one))
        for i in range(at, at + row, size):
            put_element(to + i, element(source + i, one) - top)
    run_exponentials(to, to, rows * count, type(one)(0))
    for at in range(0, rows * row, row):
        total = element(to + at, one)
        for i in range(at + size, at + row, size):
            total += element(to + i, one)
        for i in range(at, at + row, size):
            put_element(to + i, element(to + i, one) / total)


def softmax_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of rows: exponentials divided by their sum, or the logarithm of that."""
    r = rows_record(record)
    zero, one = type(alpha)(0), type(alpha)(1)
    first, last = share(r.rows, part, rows * columns)
    nbytes = r.count * itemsize(alpha)
    if nbytes < VECTOR_BYTES and r.x_row == nbytes and r.out_row == nbytes and not r.logarithm:
        block = _BLOCK // nbytes
        for row in range(first, last, block):
            softmax_of_short(x + row * nbytes, out + row * nbytes, min(block, last - row), r.count, one)
        return
    for row in range(first, last):
        source, to = x + row * r.x_row, out + row * r.out_row
        # where one is NaN, so are all exponentials' shares
        top = run_bound(source, r.count, alpha)
        # the result may take the place of x, which the logarithm still needs: its exponentials go to the workspace
        total = run_exponentials(workspace if r.logarithm else to, source, r.count, top)
        if r.logarithm:
            run_affine(to, source, 0, 0, r.count, top, one, -type(alpha)(math.log(total)))
        else:
            run_affine(to, to, 0, 0, r.count, zero, one / total, zero)


def softmax_of_few_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of pixels: softmax over their few classes."""
    c = classes_record(record)
    size = itemsize(alpha)
    lanes = VECTOR_BYTES // size
    strips = (c.pixels + lanes - 1) // lanes
    x_pixel, out_pixel = size if c.x_class else c.classes * size, size if c.out_class else c.classes * size
    first, last = share(c.images * strips, part, rows * columns)
    while first < last:
        image, strip = divmod(first, strips)
        end = min(strip + last - first, strips)
        pixel, first = strip * lanes, first + end - strip
        count = min(end * lanes, c.pixels) - pixel
        source, to = x + image * c.x_image + pixel * x_pixel, out + image * c.out_image + pixel * out_pixel
        softmax_of_streams(to, c.out_class, source, c.x_class, c.classes, count, alpha)


def position_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of rows: the number of the largest element, the first NaN if there is one."""
    r = rows_record(record)
    first, last = share(r.rows, part, rows * columns)
    for row in range(first, last):
        source = x + row * r.x_row
        put(out + row * r.out_row, np.int64(0), run_position(source, r.count, run_maximum(source, r.count, alpha)))


def normalize_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of rows: brought to mean 0 and variance 1 (plus `alpha`), then times gain plus bias."""
    r = rows_record(record)
    zero, one = type(alpha)(0), type(alpha)(1)
    first, last = share(r.rows, part, rows * columns)
    count = type(alpha)(r.count)
    for row in range(first, last):
        source = x + row * r.x_row
        center = run_sum(source, r.count, alpha) / count
        scale = one / type(alpha)(math.sqrt(run_deviation(source, r.count, center) / count + alpha))
        run_affine(out + row * r.out_row, source, r.gain, r.bias, r.count, center, scale, zero)


def response_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of rows: each element times a power, `alpha`, of what the squares around it tell.

    The workspace holds the squares of a row, between the zeros that its ends meet.
    """
    r = response_record(record)
    size = itemsize(alpha)
    before = (r.size - 1) // 2
    squares = workspace + before * size
    clear(workspace, r.count + r.size, alpha)
    scale, bias = type(alpha)(r.scale), type(alpha)(r.bias)
    first, last = share(r.rows, part, rows * columns)
    for row in range(first, last):
        source = x + row * r.x_row
        run_squares(squares, source, r.count, alpha)
        run_response(out + row * r.out_row, source, workspace, r.count, r.size, scale, bias, alpha)


position_share = NativeFunction(position_part, "position_share")
softmax_share = NativeFunction(softmax_part, "softmax_share")
softmax_of_few_share = NativeFunction(softmax_of_few_part, "softmax_of_few_share")
normalize_share = NativeFunction(normalize_part, "normalize_share")
response_share = NativeFunction(response_part, "local_response_share")
