"""Strassen's transforms of a block of pairs of pixels, there and back; Winograd's loops multiply in between.

Pairs are neighbouring pixels of one image's result, numbered over all images.  The channels of `CONV` are what products sum: taps
by half of the input's, `own_channels` each; `hop_h` and `hop` are the strides, since the products know of none.
"""

from __future__ import annotations

import functools

import numba
import numpy as np
from numba import types

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import itemsize, put
from numbaconv.codegen.records import block_record, conv_record
from numbaconv.codegen.strassen import strassen_input, strassen_output
from numbaconv.loops.tables import source


@njit
def result_pixels(conv, table, base, pixel, pair, image, outside):
    """Put where the halves of a pair's pixels lie in an output-shaped tensor of `pixel` bytes a pixel into a table."""
    for i in range(2):
        number = 2 * pair + i
        at, other = outside, outside
        if number < conv.out_pixels:
            line, column = divmod(number, conv.w_out)
            at = base + (image * conv.image_step + line * conv.line_step + column * conv.column_step) * pixel
            other = at + conv.half_step
        put(table, 2 * i, at)
        put(table, 2 * i + 1, other)


@njit
def input_pixel(conv, table, x, pixel, tap):
    """Put where the halves of what a tap (row, column) of a pixel (line, column) of the result reads lie into a table."""
    (line, column), (down, right) = pixel, tap
    at, other = conv.zeros, conv.zeros
    if line < conv.h_out:
        h = source(conv.padding_mode, line * conv.hop_h + down * conv.dilation_h - conv.pad_top, conv.h_in)
        w = source(conv.padding_mode, column * conv.hop + right * conv.dilation_w - conv.pad_left, conv.w_in)
        if h >= 0 and w >= 0:
            at = x + (h * conv.w_in + w) * conv.x_pixel
            other = at + conv.own_channels * conv.itemsize
    put(table, 0, at)
    put(table, 1, other)


def _input(block_address, alpha, beta):
    """Sums and differences of what a block's pixels read."""
    block = block_record(block_address)
    conv = conv_record(block.conv)
    size, own = itemsize(alpha), conv.own_channels
    end = block.channel + block.channels
    for i in range(block.count):
        image, pair = divmod(block.first + i, conv.tiles_w)
        first, second = divmod(2 * pair, conv.w_out), divmod(2 * pair + 1, conv.w_out)
        data = block.data + i * conv.data_pitch
        begin = block.channel
        while begin < end:
            number, channel = divmod(begin, own)
            tap = divmod(number, conv.k_w)
            stop = min(begin + own - channel, end)
            x = block.x + image * conv.x_image + channel * size
            input_pixel(conv, block.table, x, first, tap)
            input_pixel(conv, block.table + 16, x, second, tap)
            strassen_input(0, block.table, data, conv.data_position, stop - begin, alpha)
            data += (stop - begin) * size
            begin = stop


def _output(block_address, alpha, beta):
    """A block's pixels of the result."""
    block = block_record(block_address)
    conv = conv_record(block.conv)
    no_residual = np.int64(block.residual == 0)
    bias = conv.bias + block.channel * itemsize(alpha)
    for i in range(block.count):
        image, pair = divmod(block.first + i, conv.tiles_w)
        result_pixels(conv, block.table, block.out, conv.out_pixel, pair, image, block.spare)
        if no_residual == 0:
            result_pixels(conv, block.residual_table, block.residual, conv.residual_pixel, pair, image, conv.zeros)
        strassen_output(
            block.products + i * conv.product_pitch, conv.product_position,
            0, block.table, 0, block.residual_table, no_residual,
            bias, conv.c_out * conv.itemsize, block.channels, conv.activation, alpha, beta,
        )  # fmt: skip


_TRANSFORMS = {
    "input_transform": NativeFunction(_input, "strassen_input"),
    "output_transform": NativeFunction(_output, "strassen_output"),
}


@functools.cache
def strassen_addresses(np_dtype) -> dict[str, int]:
    """Entry points of both, by the field of the `CONV` record that holds them."""
    scalar = numba.from_dtype(np_dtype)
    signature = types.void(types.intp, scalar, scalar)
    return {field: function.address(signature) for field, function in _TRANSFORMS.items()}
