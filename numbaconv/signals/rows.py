"""Signals convolved directly: neighbouring samples are the lanes of a vector and rows of vectors those of a plane's tile.

    cycles = signals x (blocks of rows: ROW + vectors copied COPY
                        + tiles x (START + runs RUN_START + max(k m / FMA, k LATENCY, loads LOAD)))
           + what comes from beyond the L2 (`cost.waiting_cycles`)

k taps in min(k, lanes) runs; m rows a tile, which loads m + t - 1 vectors for the t taps of a run.
"""

from __future__ import annotations

import functools

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.strips import COPY, LOAD, ROW, RUN_START, START
from numbaconv.codegen.records import SIGNAL
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.epilogue import IDENTITY
from numbaconv.loops.gemm import TILE, VECTOR_BYTES, core_address
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.ndarrays import address
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.loops.signals import signals_share
from numbaconv.loops.sliding import CHUNK
from numbaconv.loops.strips import PLANE_BYTES, ROWS, strips_core
from numbaconv.machine import Machine
from numbaconv.workspace import rounded, scratch

#: Rows of a block: full tiles, whose strip takes a third of the L1.
_BLOCK = 18 * ROWS
#: Work of fewer seconds is done before a second thread has woken up, or long before where other programs keep it waiting.
SHARED = 1e-4


class Rows:
    """`n` signals of `size` samples by kernels of `k` taps: `count` results each, from `start` of the full convolution on."""

    def __init__(self, n: int, size: int, k: int, start: int, count: int, dtype: np.dtype):
        lanes = VECTOR_BYTES // dtype.itemsize
        rows = -(-count // lanes)
        block = min(rows, _BLOCK)
        blocks = -(-rows // block)
        listed = rounded(PLANE_BYTES + -(-block // ROWS) * 8 * TILE)
        self._runs = np.array([_run(first, k, lanes, dtype.itemsize) for first in range(min(k, lanes))], np.int64)
        self._zero = np.zeros(1, dtype)
        self._record = np.zeros(1, SIGNAL)
        self._record[0] = (
            n, size, k, start, rows, block, listed, core_address(strips_core, dtype), self._runs.ctypes.data,
            len(self._runs), self._zero.ctypes.data, IDENTITY.code,
        )  # fmt: skip
        self.dtype, self.shape = dtype, (n, rows * lanes)
        self.seconds = _seconds(n, size, k, rows, blocks, lanes, dtype.itemsize, calibrated_machine())
        self._parts = n * blocks if self.seconds >= SHARED else 1
        self._nbytes = rounded(listed + (block * lanes + k) * dtype.itemsize)
        self._alone = self._shares(1)

    def run(self, x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        """Convolve contiguous (n, size) with (k,); the results, and behind each what fills its last row."""
        threads = min(usable_threads(), self._parts)
        work = self._alone if threads == 1 else self._shares(threads)
        out = np.empty(self.shape, self.dtype)
        run_shares(work, address(x), address(out), address(kernel), scratch(threads * self._nbytes))
        return out

    def _shares(self, threads: int) -> Shares:
        bounds = map(self.dtype.type, (IDENTITY.alpha, IDENTITY.beta))
        function = share_address(signals_share, self.dtype)
        return Shares(function, threads, 1, self._record.ctypes.data, self._nbytes, *bounds, self)


@functools.lru_cache(maxsize=256)
def rows_of(n: int, size: int, k: int, start: int, count: int, dtype: np.dtype) -> Rows:
    """The `Rows` of these sizes."""
    return Rows(n, size, k, start, count, dtype)


def _run(first: int, k: int, lanes: int, itemsize: int) -> tuple[int, ...]:
    """The record of the taps `first`, `first + lanes`, ..., counted from the last one of the kernel; see `codegen.sliding.RUN`."""
    taps = -(-(k - first) // lanes)
    return first * itemsize, -first * itemsize, taps, taps // CHUNK * CHUNK, 0, 0


def _seconds(n, size, k, rows, blocks, lanes, itemsize, machine: Machine) -> float:
    """The estimate on one thread."""
    tiles = blocks * -(-rows // (blocks * ROWS))
    height, runs = rows / tiles, min(k, lanes)
    loads = runs * (height - 1) + k
    tile = START + runs * RUN_START + max(k * height / cost.FMA, k * cost.LATENCY, loads * LOAD)
    copied = blocks * ROW + (rows + blocks * k / lanes) * COPY
    moved = n * (size + rows * lanes) * itemsize
    cycles = n * (tiles * tile + copied) + cost.waiting_cycles(moved, moved, machine)
    return cycles / machine.rates.clock
