"""Normalisation over the pixels of channels-last images: moments of pieces of an image, then one pass that scales and shifts.

A piece stays in the L1 while its mean and then its squared deviations are summed, so that x is read from memory once for both.
Pieces are merged in double precision, after Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing
sample variances" (1979); what they are depends on the shape alone, so that threads change no bit.
"""

from __future__ import annotations

import math

import numpy as np

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import element, itemsize, put_element
from numbaconv.codegen.moments import column_moments, run_scaled
from numbaconv.codegen.records import scaling_record
from numbaconv.loops.elementwise import repeat
from numbaconv.loops.walk import share


@njit
def piece_size(s, piece):
    """Rows of a piece of an image, and pixels of each."""
    first = piece * s.chunk
    return (min(s.chunk, s.rows - first), s.joined) if first < s.rows else (np.int64(1), s.pixels - s.rows * s.joined)


def moments_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of pieces: the means of their columns, then the sums of squared distances from these."""
    s = scaling_record(record)
    width = s.joined * s.channels
    first, last = share(s.images * s.pieces, part, rows * columns)
    for number in range(first, last):
        image, piece = divmod(number, s.pieces)
        height, joined = piece_size(s, piece)
        pixel = image * s.pixels + min(piece * s.chunk, s.rows) * s.joined
        means = out + image * s.moments + 2 * piece * width * itemsize(alpha)
        column_moments(
            means,
            means + width * itemsize(alpha),
            x + pixel * s.x_pixel,
            s.joined * s.x_pixel,
            height,
            joined * s.channels,
            alpha,
        )


@njit
def merged_moments(s, moments, channel, like):
    """Mean and variance of the group of channels from `channel` on, of one image's pieces."""
    size = itemsize(like)
    width = s.joined * s.channels * size
    total = 0.0
    for piece in range(s.pieces):
        height, joined = piece_size(s, piece)
        means = moments + 2 * piece * width + channel * size
        of_piece = 0.0
        for pixel in range(joined):
            for c in range(s.each):
                of_piece += np.float64(element(means + (pixel * s.channels + c) * size, like))
        total += height * of_piece
    count = s.pixels * s.each
    center = total / count
    spread = 0.0
    for piece in range(s.pieces):
        height, joined = piece_size(s, piece)
        means = moments + 2 * piece * width + channel * size
        for pixel in range(joined):
            for c in range(s.each):
                at = means + (pixel * s.channels + c) * size
                distance = np.float64(element(at, like)) - center
                spread += np.float64(element(at + width, like)) + height * distance * distance
    return center, spread / count


@njit
def scale_of_channels(s, gains, biases, moments, like):
    """What each channel of an image is multiplied with, and what is added then."""
    size = itemsize(like)
    for channel in range(0, s.channels, s.each):
        center, scale = 0.0, 1.0
        if s.pieces:
            center, variance = merged_moments(s, moments, channel, like)
            scale = 1 / math.sqrt(variance + s.epsilon)
        for at in range(channel * size, (channel + s.each) * size, size):
            gain = scale * np.float64(element(s.gain + at, like)) if s.gain else scale
            bias = np.float64(element(s.bias + at, like)) if s.bias else 0.0
            put_element(gains + at, type(like)(gain))
            put_element(biases + at, type(like)(bias - center * gain))


def scale_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of runs of pixels; `residual` is the address of the moments."""
    s = scaling_record(record)
    gains, biases = workspace, workspace + s.run * s.channels * itemsize(alpha)
    runs = (s.pixels + s.run - 1) // s.run
    first, last = share(s.images * runs, part, rows * columns)
    while first < last:
        image, run = divmod(first, runs)
        end = min(run + last - first, runs)
        first += end - run
        scale_of_channels(s, gains, biases, residual + image * s.moments, alpha)
        repeat(gains, s.channels, s.run, alpha)
        repeat(biases, s.channels, s.run, alpha)
        for pixel in range(run * s.run, end * s.run, s.run):
            count = min(s.run, s.pixels - pixel) * s.channels
            at = image * s.pixels + pixel
            run_scaled(out + at * s.out_pixel, x + at * s.x_pixel, gains, biases, count, s.activation, alpha, beta)


moments_share = NativeFunction(moments_part, "moments_share")
scale_share = NativeFunction(scale_part, "scale_share")
