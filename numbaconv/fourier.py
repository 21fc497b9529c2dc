"""Fast Fourier transforms: SciPy's, which takes threads and several lines at once, where it is installed, else NumPy's.

Transforms are not generated here; this module names what is needed of them, how long they should be, and what they cost.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from itertools import product
from math import log2, prod

import numpy as np

from numbaconv.machine import Machine

#: Cycles for one element of a float32 transform each time its length doubles, with several lines at once; measured with SciPy on
#: the machine whose rates are assumed.
BUTTERFLY = 0.45
#: How much longer one line alone takes than each of `LANES` lines at once.
ALONE, LANES = 2.2, 4
#: NumPy's transforms take one line at a time; measured.
_NUMPY = 2.0
#: Fewer elements are not worth a second thread.
_SHARED = 1 << 20
#: Where rows are filled up to so many times their number, those of zeros are left out.
_EMPTY = 1.5


@functools.cache
def _has_scipy() -> bool:
    """Whether SciPy is installed; importing it takes longer than an estimate may."""
    return importlib.util.find_spec("scipy") is not None


@functools.cache
def _scipy():
    """SciPy's module of transforms, or None where it is not installed."""
    try:
        import scipy.fft as module
    except ImportError:
        return None
    return module


def forward(x: np.ndarray, lengths: Sequence[int], axes: Sequence[int], threads: int = 1) -> np.ndarray:
    """Spectrum along `axes`, each filled up with zeros to its length; of real `x` half of the last one."""
    name, (lengths, axes) = "rfftn" if x.dtype.kind == "f" else "fftn", _longer(lengths, axes)
    if prod(lengths[:-1]) < _EMPTY * prod(x.shape[axis] for axis in axes[:-1]):
        return _transform(name, x, lengths, axes, threads)
    rows = _transform(name, x, lengths[-1:], axes[-1:], threads)
    return _transform("fftn", rows, lengths[:-1], axes[:-1], threads, overwrite=True)


def inverse(
    spectrum: np.ndarray,
    lengths: Sequence[int],
    axes: Sequence[int],
    real: bool,
    threads: int = 1,
    kept: tuple[slice, ...] = (),
) -> np.ndarray:
    """What `forward` was given; `spectrum` may be overwritten.

    Of axes before the last one that is transformed only what is `kept` goes on to that one.
    """
    name, (lengths, axes) = "irfftn" if real else "ifftn", _longer(lengths, axes)
    if kept and len(axes) > 1:
        spectrum = _transform("ifftn", spectrum, lengths[:-1], axes[:-1], threads, overwrite=True)
        lengths, axes = lengths[-1:], axes[-1:]
    return _transform(name, spectrum[kept], lengths, axes, threads, overwrite=True)


def _transform(
    name: str, x: np.ndarray, lengths: Sequence[int], axes: Sequence[int], threads: int, overwrite: bool = False
) -> np.ndarray:
    """One of `scipy.fft`'s or `numpy.fft`'s functions, in the precision of `x`."""
    if (scipy := _scipy()) is not None:
        workers = _workers(x.shape, lengths, threads)
        return getattr(scipy, name)(x, lengths, axes, overwrite_x=overwrite, workers=workers)
    # before version 2 NumPy computes in double precision
    part = np.zeros((), x.dtype).real.dtype
    wanted = part if name == "irfftn" else np.result_type(part, np.complex64)
    return getattr(np.fft, name)(x, lengths, axes).astype(wanted, copy=False)


def _longer(lengths: Sequence[int], axes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Without axes of one element, which would be copied for nothing; the last one stays, since it is halved."""
    *others, last = zip(lengths, axes)
    return tuple(zip(*(pair for pair in others if pair[0] > 1), last))


def _workers(shape: Sequence[int], lengths: Sequence[int], threads: int) -> int:
    return threads if prod(shape) >= _SHARED else 1


@functools.cache
def _good_lengths(limit: int) -> tuple[int, ...]:
    """All products of 2, 3 and 5 up to `limit`, which transforms are fast at."""
    found = {1}
    for factor in (2, 3, 5):
        for number in sorted(found):
            while (number := number * factor) <= limit:
                found.add(number)
    return tuple(sorted(found))


def good_length(least: int) -> int:
    """The smallest even product of 2, 3 and 5 of at least `least`; or 1."""
    if least == 1:
        return 1
    limit = 2
    while limit < least:
        limit *= 2
    return next(2 * half for half in _good_lengths(limit // 2) if 2 * half >= least)


def cycles(lengths: Sequence[int], lines: int, itemsize: int, on: Machine) -> float:
    """Cycles of `lines` real transforms of these lengths, one way.

    elements BUTTERFLY (itemsize / 4) log2(elements of one)
        x ALONE, falling to 1 where LANES lines go side by side
        x fourier (1 + fourier_far log2(1 + working set / L2))          the machine's rates
    """
    far = 1 + on.rates.fourier_far * doublings(lengths, itemsize, on.l2)
    return on.rates.fourier * far * near_cycles(lengths, lines, itemsize)


def near_cycles(lengths: Sequence[int], lines: int, itemsize: int) -> float:
    """What transforms are assumed to take in the L2."""
    elements = prod(lengths)
    side_by_side = min(lines * prod(lengths[:-1]), LANES)
    alone = ALONE - (ALONE - 1) * (side_by_side - 1) / (LANES - 1)
    slow = 1.0 if _has_scipy() else _NUMPY
    return slow * lines * elements * BUTTERFLY * itemsize / 4 * log2(max(elements, 2)) * alone


def doublings(lengths: Sequence[int], itemsize: int, l2: int) -> float:
    """How far beyond the L2 a block and its spectrum lie, or the lines that go side by side."""
    working_set = max(2 * prod(lengths), LANES * lengths[-1]) * itemsize
    return log2(1 + working_set / l2)


@functools.lru_cache(maxsize=1024)
def block_lengths(
    outputs: tuple[int, ...],
    kernel: tuple[int, ...],
    whole: tuple[int, ...],
    itemsize: int,
    on: Machine,
    extra: float,
    alone: float = 1.0,
) -> tuple[int, ...]:
    """Lengths of the transforms with which overlapping blocks of input take the least time.

    A block of length L yields L - k + 1 outputs of each axis, or all of them from `whole` on; `extra` cycles an element are what
    else is done to a block.  A single block counts so many times as much when it stands `alone`.
    """

    def time(lengths):
        blocks = block_count(outputs, kernel, whole, lengths)
        one = 2 * cycles(lengths, 1, itemsize, on) + extra * on.rates.fourier * prod(lengths)
        # the kernel is one more, transformed one way
        all_of_them = blocks * one / _together(blocks, lengths) + cycles(lengths, 1, itemsize, on)
        return all_of_them * alone if blocks == 1 else all_of_them

    return min(product(*(_lengths(k, good_length(one)) for k, one in zip(kernel, whole))), key=time)


def block_count(outputs, kernel, whole, lengths) -> int:
    """Blocks of all axes."""
    return prod(
        1 if length >= one else -(-out // (length - k + 1))
        for out, k, one, length in zip(outputs, kernel, whole, lengths)
    )


def _together(blocks: int, lengths: tuple[int, ...]) -> float:
    """How much faster signals cut into several blocks are, which are transformed side by side."""
    if len(lengths) > 1:
        return 1.0
    return ALONE / (ALONE - (ALONE - 1) * (min(blocks, LANES) - 1) / (LANES - 1))


def _lengths(kernel: int, whole: int) -> list[int]:
    """Lengths worth considering along one axis: powers of two from twice the kernel on, half as much again, and the whole."""
    found, length = {whole}, 2
    while length < whole:
        found |= {candidate for candidate in (length, length * 3 // 2) if 2 * kernel <= candidate < whole}
        length *= 2
    return sorted(found)
