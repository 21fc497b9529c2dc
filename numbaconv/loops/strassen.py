"""Strassen's transforms of a block of pairs of pixels, there and back; Winograd's loops multiply in between.

Pairs are neighbouring pixels of one image, numbered over all images.  The channels of `CONV` are half of the convolution's; `hop_h`
and `hop` are its strides, since the products know of none.
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


@njit
def result_pixels(conv, table, base, pixel, pair, image, outside):
    """Put where the halves of a pair's pixels lie in an output-shaped tensor of `pixel` bytes a pixel into a table."""
    for i in range(2):
        number = 2 * pair + i
        at, other = outside, outside
        if number < conv.out_pixels:
            line, column = divmod(number, conv.w_out)
            at = base + (image * conv.image_step + line * conv.line_step + column * conv.column_step) * pixel
            other = at + conv.c_out * conv.itemsize
        put(table, 2 * i, at)
        put(table, 2 * i + 1, other)


def _input(block_address, alpha, beta):
    """Sums and differences of a block's pixels."""
    block = block_record(block_address)
    conv = conv_record(block.conv)
    x = block.x + block.channel * itemsize(alpha)
    for i in range(block.count):
        image, pair = divmod(block.first + i, conv.tiles_w)
        for j in range(2):
            number = 2 * pair + j
            at, other = conv.zeros, conv.zeros
            if number < conv.out_pixels:
                line, column = divmod(number, conv.w_out)
                at = x + image * conv.x_image + (line * conv.hop_h * conv.w_in + column * conv.hop) * conv.x_pixel
                other = at + conv.c_in * conv.itemsize
            put(block.table, 2 * j, at)
            put(block.table, 2 * j + 1, other)
        data = block.data + i * conv.data_pitch
        strassen_input(0, block.table, data, conv.data_position, block.channels, alpha)


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
