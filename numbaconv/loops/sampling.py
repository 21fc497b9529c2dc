"""Packers whose patches are no copies of the input but samples between its pixels, weighted sums of up to four neighbours."""

from __future__ import annotations

from math import floor, nan

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import element, itemsize, put, put_element
from numbaconv.codegen.records import conv_record, pack_record, samples_record
from numbaconv.codegen.weighted import weighted_rows
from numbaconv.loops.gemm import tile_start

#: Bytes of the pixel numbers of four neighbours; their weights follow.
NUMBERS = 32


@njit
def add_pixel(spare, entries, pixel, weight, like):
    """One more entry for a pixel by its number, unless its weight is zero; returns how many entries there are."""
    if weight == 0.0:
        return entries
    put(spare, entries, pixel)
    put_element(spare + NUMBERS + entries * itemsize(like), type(like)(weight))
    return entries + 1


@njit
def add_neighbour(conv, spare, entries, h, w, weight, like):
    """One more entry for the pixel (h, w), unless it lies outside; returns how many entries there are."""
    if not (0 <= h < conv.h_in and 0 <= w < conv.w_in):
        return entries
    return add_pixel(spare, entries, h * conv.w_in + w, weight, like)


@njit
def bilinear(conv, spare, h, w, scale, like):
    """Pixel numbers and weights of the neighbours of (h, w), beyond the borders of which stand zeros; returns how many there are.

    What is not a number is at no place: one neighbour then has a weight that is not a number either.
    """
    if not (h == h and w == w and scale == scale):
        return add_neighbour(conv, spare, 0, 0, 0, nan, like)
    if not (-1.0 < h < conv.h_in and -1.0 < w < conv.w_in):
        return 0
    top, left = int(floor(h)), int(floor(w))
    down, right = h - top, w - left
    entries = add_neighbour(conv, spare, 0, top, left, scale * (1.0 - down) * (1.0 - right), like)
    entries = add_neighbour(conv, spare, entries, top, left + 1, scale * (1.0 - down) * right, like)
    entries = add_neighbour(conv, spare, entries, top + 1, left, scale * down * (1.0 - right), like)
    return add_neighbour(conv, spare, entries, top + 1, left + 1, scale * down * right, like)


@njit
def sample_tap(conv, samples, spare, image, pixel, tap, number, like):
    """Neighbours of what tap `tap` of an output pixel reads for offset group `number`; returns how many there are."""
    h_out, w_out = divmod(pixel, conv.w_out)
    k_h, k_w = divmod(tap, conv.k_w)
    channel = number * conv.k_h * conv.k_w + tap
    offset = samples.offset + image * samples.offset_image + pixel * samples.offset_pixel
    # rows and columns alternate
    offset += 2 * channel * samples.offset_channel
    h = h_out * conv.stride_h - conv.pad_top + k_h * conv.dilation_h + element(offset, like)
    w = w_out * conv.stride_w - conv.pad_left + k_w * conv.dilation_w + element(offset + samples.offset_channel, like)
    scale = 1.0
    if samples.mask != 0:
        mask = samples.mask + image * samples.mask_image + pixel * samples.mask_pixel
        scale = float(element(mask + channel * samples.mask_channel, like))
    return bilinear(conv, spare, h, w, scale, like)


def _deformed(address, alpha, beta):
    """Pack patches whose taps lie where the offsets say; the plan was given the address of a `SAMPLES` record."""
    pack = pack_record(address)
    conv, samples = conv_record(pack.conv), samples_record(pack.x)
    to = pack.to
    first_channel = pack.group * conv.c_in
    for pixel in range(tile_start(conv, pack.first), tile_start(conv, pack.first + pack.count)):
        row, k = to, pack.k_first
        # Runs of channels that have the tap and the offset group in common.
        while k < pack.k_last:
            tap, inside = divmod(k, conv.c_in)
            number, used = divmod(first_channel + inside, samples.group_channels)
            channels = min(conv.c_in - inside, pack.k_last - k, samples.group_channels - used)
            weighted_rows(
                row,
                samples.x + pack.image * conv.x_image + (first_channel + inside) * conv.itemsize,
                conv.x_pixel,
                pack.spare,
                pack.spare + NUMBERS,
                sample_tap(conv, samples, pack.spare, pack.image, pixel, tap, number, alpha),
                channels,
                alpha,
            )
            row += channels * conv.itemsize
            k += channels
        to += conv.patch_pitch


deformed = NativeFunction(_deformed, "deformable_samples")
