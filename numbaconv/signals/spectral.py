"""Signals convolved as products of spectra, block by block, so that what is transformed stays in the cache (overlap-save).

A block of n inputs convolved around in a circle of n yields n - k + 1 outputs of the straight convolution.  Blocks along the last
axis are transformed side by side, which is faster than one long transform.  What threads share are parts of the result, each
transformed, multiplied and transformed back by one of them: threads within a transform gain next to nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from numbaconv import fourier
from numbaconv.machine import Machine

#: Cycles an element to multiply spectra, and to bring blocks in and out; for a block, what NumPy's and SciPy's calls take: as
#: many times more or less as transforms do.
_MOVED, _BLOCK = 3.0, 100_000.0
#: Fewer results are not worth starting threads, each of which allocates its blocks anew: 512 x 512 by 63 x 63 takes 2.7 ms on one
#: where the pages of an earlier block are at hand, and 3.4 on two.
_SHARED = 1 << 19
#: From so many results on several blocks are taken where one is expected to take a little less time: no threads can share that one.
#: Measured with 800 x 800 by 100 x 100: two blocks take half of its time on two threads, and no more than it does on one.
_ALONE = 1.15


def convolve(
    x: np.ndarray, kernel: np.ndarray, start: tuple[int, ...], shape: tuple[int, ...], on: Machine, threads: int
) -> np.ndarray:
    """The stretch of the full convolution of (n, *spatial) with (n, *kernel) or (1, *kernel) that begins at `start`."""
    real = x.dtype.kind == kernel.dtype.kind == "f"
    if not real:
        x, kernel = (array.astype(np.result_type(array, np.complex64), copy=False) for array in (x, kernel))
    k = kernel.shape[1:]
    whole = _whole(x.shape[1:], k, start, shape)
    lengths = _lengths(shape, k, whole, x.itemsize, on)
    # an axis for the blocks that are transformed side by side stands before the last one
    axes = (*range(1, len(k)), len(k) + 1)
    spectrum = fourier.forward(np.expand_dims(kernel, -2), lengths, axes, threads)
    steps = [
        count if length >= one else length - taps + 1 for count, one, length, taps in zip(shape, whole, lengths, k)
    ]
    # all outputs come from one block that begins with the input, or each block begins with what its first output reads
    single = steps[-1] == shape[-1]
    begin, skipped = (0, start[-1]) if single else (start[-1] - k[-1] + 1, k[-1] - 1)
    together = max(fourier.LANES, on.l2 // (4 * lengths[-1] * x.itemsize)) if len(k) == 1 else 1
    batch = max(1, on.l2 // (2 * prod(lengths) * x.itemsize))
    corners = product(*(range(0, count, step) for count, step in zip(shape[:-1], steps)))
    parts = list(product(range(0, len(x), batch), corners, range(0, shape[-1], together * steps[-1])))
    y = np.empty((len(x), *shape), x.dtype)
    helpers = min(threads, len(parts)) if y.size >= _SHARED else 1
    workers = threads if helpers == 1 else 1

    def run(part: tuple[int, tuple[int, ...], int]) -> None:
        """A batch of signals from number `first` on; of each some blocks, from `block` on, of the rows from `corner` on."""
        first, corner, block = part
        images = slice(first, first + batch)
        own = spectrum if len(kernel) == 1 else spectrum[images]
        read, write, drop = _leading(corner, start, steps, k, x.shape[1:], shape)
        source, target = x[(images, *read)], y[(images, *write)]
        count = min(together, -(-(shape[-1] - block) // steps[-1]))
        windows = source[..., None, :] if single else _windows(source, begin + block, count, steps[-1], lengths[-1])
        spectra = fourier.forward(windows, lengths, axes, workers)
        spectra *= own
        blocks = fourier.inverse(spectra, lengths, axes, real, workers, (slice(None), *drop))
        for number in range(count):
            at = block + number * steps[-1]
            stop = min(at + steps[-1], shape[-1])
            target[..., at:stop] = blocks[..., number, skipped : skipped + stop - at]

    if helpers == 1:
        for part in parts:
            run(part)
    else:
        # transforms let others run
        with ThreadPoolExecutor(helpers) as pool:
            list(pool.map(run, parts))
    return y


def seconds(n: int, spatial: tuple[int, ...], kernel, start, shape, itemsize: int, on: Machine) -> float:
    """Estimated time on one thread; `itemsize` is that of the operands, complex ones included."""
    whole = _whole(spatial, kernel, start, shape)
    lengths = _lengths(shape, kernel, whole, itemsize, on)
    blocks = fourier.block_count(shape, kernel, whole, lengths)
    side_by_side = n * (min(blocks, fourier.LANES) if len(kernel) == 1 else 1)
    one = 2 * fourier.cycles(lengths, side_by_side, itemsize, on) / side_by_side
    one += on.rates.fourier * _MOVED * prod(lengths)
    # the kernel is one more, transformed one way
    return (on.rates.fourier * _BLOCK + n * blocks * one + one / 2) / on.rates.clock


def _whole(spatial, kernel, start, shape) -> tuple[int, ...]:
    """Lengths from which on one block yields all outputs: what wraps around reaches only those before the first."""
    sizes = zip(spatial, kernel, start, shape)
    return tuple(max(n + k - 1 - first, first + count) for n, k, first, count in sizes)


def _lengths(shape, kernel, whole, itemsize: int, on: Machine) -> tuple[int, ...]:
    alone = _ALONE if prod(shape) >= _SHARED else 1.0
    return fourier.block_lengths(tuple(shape), tuple(kernel), whole, itemsize, on, _MOVED, alone)


def _leading(corner, start, steps, kernel, spatial, shape) -> tuple[list[slice], list[slice], list[slice]]:
    """Along all axes but the last: what a block reads, which outputs it makes, and where these are in its transform.

    Inputs before the first are not filled in but left away, so that the outputs move up.
    """
    read, write, drop = [], [], []
    for at, first, step, k, size, count in zip(corner, start, steps, kernel, spatial[:-1], shape[:-1]):
        stop = min(at + step, count)
        low = max(0, first + at - k + 1)
        read.append(slice(low, min(size, first + stop)))
        write.append(slice(at, stop))
        drop.append(slice(first + at - low, first + stop - low))
    return read, write, drop


def _windows(x: np.ndarray, first: int, count: int, step: int, length: int) -> np.ndarray:
    """(..., count, length): stretches of the last axis, `step` apart from `first` on, with zeros beyond both ends."""
    size, stop = x.shape[-1], first + (count - 1) * step + length
    if first < 0 or stop > size:
        padded = np.zeros((*x.shape[:-1], stop - first), x.dtype)
        padded[..., max(-first, 0) : size - first] = x[..., max(first, 0) : min(stop, size)]
        x, first = padded, 0
    strides = *x.strides[:-1], step * x.strides[-1], x.strides[-1]
    return as_strided(x[..., first:], (*x.shape[:-1], count, length), strides, writeable=False)
