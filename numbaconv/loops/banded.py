"""The loop nest of banded matrices: each channel's plane is split into halves, and multiplied by the rows of its kernel.

    images: rows of a tile are output lines, K is a stretch of an input line, columns are neighbouring output pixels
    signals: rows are stretches of 16 results one after the other

A plane has a scale of its own, which brings its largest number just below 2^15.  Weights come as they are, and become pairs of
neighbours, with the zeros beside them, next to the plane.  Channels-last pixels are transposed to planes and back, some channels at
a time.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.amx import ROW_BYTES, SUMS_BYTES, TALL, configure, release
from numbaconv.codegen.bands import band_tile, pair_rows
from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import clear, copy, get
from numbaconv.codegen.records import conv_record
from numbaconv.codegen.rows_of_sums import store_rows
from numbaconv.codegen.scales import BIAS, INVERSE, largest_exponent, put_scale
from numbaconv.codegen.split import split_pixels
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.scales import exponent_that_fills
from numbaconv.loops.transpose import transpose_strip
from numbaconv.loops.walk import share

#: Channels that one thread computes at least.
TOGETHER = 16
#: A stretch of output columns: its taps' address and how many, registers, the first column, and how many.
BAND = 5


@njit
def fill_plane(conv, to, plane):
    """Split a plane; what lies around its lines is zero already."""
    scale, exponent = to + conv.scales, np.int64(BIAS)
    if conv.scaled != 0:
        exponent = exponent_that_fills(largest_exponent(plane, 0, 1, conv.in_pixels))
    put_scale(scale, exponent, conv.unit)
    to += conv.data_offset
    for _ in range(conv.h_in):
        split_pixels(to, 0, conv.low, ROW_BYTES, plane, 0, 1, conv.w_in, scale)
        to += conv.row_pitch
        plane += conv.w_in * conv.itemsize


@njit
def fill_bands(conv, to, weights, like):
    """The rows of a kernel as pairs: those of all neighbours, or for a stride of two as they are packed."""
    to += conv.band_first
    rows, step = 2 * conv.k_h, conv.panel_bytes // (2 * conv.k_h)
    if conv.stride_w == 1:
        pair_rows(to, conv.band_low, weights, step, rows, conv.band_pairs)
        return
    for _ in range(rows):
        copy(to, weights, conv.band_pairs, like)
        to += conv.band_low
        weights += step


@njit
def finish_band(conv, sums, scale, row, rows, column, width, out, residual, bias, alpha, beta):
    """Sums of some rows from number `row` on go to `width` columns of a plane."""
    size = conv.itemsize
    while rows > 0:
        at = row * conv.out_row + column * size
        # the last row of a signal is shorter
        count, columns = rows, min(width, conv.out_pixels - at // size)
        if columns == width and conv.line > 1:
            count = min(rows, (conv.out_pixels * size - at - width * size) // conv.out_row + 1)
        store_rows(
            sums,
            count,
            scale + INVERSE,
            0,
            out + at,
            conv.out_row,
            0,
            bias,
            0 if residual == 0 else residual + at,
            conv.out_row,
            columns,
            1,
            conv.activation,
            alpha,
            beta,
        )
        sums += count * PANEL_ROW
        row += count
        rows -= count


@njit
def convolve_planes(conv, channel, count, x, out, residual, workspace, alpha, beta):
    """Planes of `count` channels from number `channel` on; workspace: sums of a tile, split planes."""
    block = workspace + SUMS_BYTES
    height, plane, out_plane = conv.tile_height, conv.in_pixels * conv.itemsize, conv.out_pixels * conv.itemsize
    for first in range(0, count, conv.gang):
        gang = min(conv.gang, count - first)
        for member in range(gang):
            to, number = block + member * conv.member_pitch, first + member
            fill_plane(conv, to, x + number * plane)
            fill_bands(conv, to + conv.bands_offset, conv.panels + (channel + number) * conv.panel_bytes, alpha)
        # fewer than all have a tile each
        abreast = gang if gang == TALL else 1
        for band in range(conv.band_count):
            entry = conv.bands + 8 * BAND * band
            taps, n_taps, columns = get(entry, 0), get(entry, 1), get(entry, 2)
            for begin in range(0, gang, abreast):
                for row in range(0, conv.line, conv.registers * height):
                    rows = min(conv.line - row, conv.registers * height)
                    a = block + begin * conv.member_pitch
                    band_tile(
                        (rows + height - 1) // height,
                        columns,
                        abreast,
                        a + row * conv.position_bytes,
                        conv.member_pitch if abreast > 1 else height * conv.position_bytes,
                        conv.position_bytes,
                        conv.low,
                        taps,
                        n_taps,
                        a + conv.bands_offset,
                        conv.member_pitch,
                        conv.band_step,
                        conv.band_low,
                        workspace,
                        height,
                    )
                    for member in range(abreast):
                        number = first + begin + member
                        finish_band(
                            conv,
                            workspace + member * height * PANEL_ROW,
                            a + member * conv.member_pitch + conv.scales,
                            row,
                            rows,
                            get(entry, 3),
                            get(entry, 4),
                            out + number * out_plane,
                            0 if residual == 0 else residual + number * out_plane,
                            conv.bias + (channel + number) * PANEL_ROW,
                            alpha,
                            beta,
                        )


@njit
def start_tiles(conv, workspace, alpha):
    """Give registers their shapes, and planes and kernels the zeros around them."""
    configure(conv.tables)
    clear(workspace + SUMS_BYTES, conv.gang * conv.member_pitch // conv.itemsize, alpha)


def banded_planes_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share of images and channels of channels-first tensors."""
    conv = conv_record(conv_address)
    first_image, last_image = share(conv.n, part // column_parts, row_parts)
    first, last = share((conv.groups + TOGETHER - 1) // TOGETHER, part % column_parts, column_parts)
    first, last = first * TOGETHER, min(last * TOGETHER, conv.groups)
    start_tiles(conv, workspace, alpha)
    for image in range(first_image, last_image):
        number = image * conv.groups + first
        convolve_planes(
            conv,
            first,
            last - first,
            x + number * conv.in_pixels * conv.itemsize,
            out + number * conv.out_pixels * conv.itemsize,
            0 if residual == 0 else residual + number * conv.out_pixels * conv.itemsize,
            workspace,
            alpha,
            beta,
        )
    release()


@njit
def to_planes(pixels, pitch, planes, count, channels, like):
    """Transpose channels of pixels `pitch` bytes apart to contiguous planes."""
    transpose_strip(pixels, pitch, planes, count * 4, count, np.int64(0), channels, like)


def banded_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """The same of channels-last tensors.  Workspace: that of planes, then planes of x, of the residual and of results."""
    conv = conv_record(conv_address)
    size = conv.itemsize
    pixels, out_pixels = conv.in_pixels, conv.out_pixels
    x_planes = workspace + conv.inner_bytes
    residual_planes = x_planes + TOGETHER * pixels * size
    out_planes = residual_planes + TOGETHER * out_pixels * size
    first_image, last_image = share(conv.n, part // column_parts, row_parts)
    first, last = share((conv.groups + TOGETHER - 1) // TOGETHER, part % column_parts, column_parts)
    start_tiles(conv, workspace, alpha)
    for image in range(first_image, last_image):
        for number in range(first, last):
            channel = number * TOGETHER
            channels, at = min(TOGETHER, conv.groups - channel), channel * size
            to_planes(x + image * conv.x_image + at, conv.x_pixel, x_planes, pixels, channels, alpha)
            inner_residual = 0
            if residual != 0:
                source = residual + image * out_pixels * conv.residual_pixel + at
                to_planes(source, conv.residual_pixel, residual_planes, out_pixels, channels, alpha)
                inner_residual = residual_planes
            convolve_planes(conv, channel, channels, x_planes, out_planes, inner_residual, workspace, alpha, beta)
            result = out + image * out_pixels * conv.out_pixel + at
            for pixel in range(0, out_pixels, VECTOR_BYTES // size):
                transpose_strip(
                    out_planes, out_pixels * size, result, conv.out_pixel, channels, pixel, out_pixels, alpha
                )
    release()


banded_planes_share = NativeFunction(banded_planes_part, "banded_planes_share")
banded_share = NativeFunction(banded_part, "banded_share")
