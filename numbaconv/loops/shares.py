"""Shares of work: the one signature that all loop nests have, and what runs their shares on one thread or on several.

    share(part, rows, columns, record, x, out, residual, workspace, alpha, beta)

computes share number `part` of `rows` x `columns`: `record` is the address of what it works on, `x`, `out` and `residual` are
addresses of operands, `workspace` that of memory of its own; the type of the two numbers selects the element type.  Each is
compiled
once an element type and called through its address, so that one parallel loop serves them all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numba
import numpy as np
from numba import prange, types

from numbaconv.codegen.jit import NativeFunction, entry_point, njit
from numbaconv.codegen.memory import call_share
from numbaconv.codegen.records import STEP, step_record
from numbaconv.loops.launch import run_parallel, start_threads
from numbaconv.loops.ndarrays import operands_at

_STEP_BYTES = STEP.itemsize


class Shares(NamedTuple):
    """Work that is ready to run but for its operands; `pitch` bytes of workspace for each of `rows` x `columns` shares.

    `owner` is what the record lies in: it lives as long as this does.
    """

    function: int
    rows: int
    columns: int
    record: int
    pitch: int
    alpha: np.floating
    beta: np.floating
    owner: object


#: Shares that differ by one part in so many are as good as even.
_EVEN = 128


def even_grid(rows: int, columns: int, threads: int, apart: bool = False) -> tuple[int, int]:
    """Shares of `rows` by shares of `columns` of some work, at most `threads`, of which the largest is smallest.

    Ties, and what is one part in `_EVEN` from one, go to more shares of rows: those of columns prepare the same input again.  Or to
    more of columns, where those are what comes from `apart`: shares of rows would read all of it each.
    """
    largest = {parts: -(-rows // parts) * -(-columns // (threads // parts)) for parts in range(1, threads + 1)}
    least = min(largest.values())
    parts = (min if apart else max)(parts for parts, size in largest.items() if _EVEN * (size - least) <= least)
    return min(parts, rows), min(threads // parts, columns)


@functools.cache  # asked for by every plan, and Numba looks its signatures up slowly
def share_address(function: NativeFunction, np_dtype) -> int:
    """Entry point of a loop nest for float32 or float64."""
    scalar = numba.from_dtype(np_dtype)
    return function.address(types.void(*(types.intp,) * 8, scalar, scalar))


@njit(entry=True)
def _alone(function, record, alpha, beta, x, out, residual, workspace):
    """All the work as one share."""
    call_share(function, 0, 1, 1, record, x, out, residual, workspace, alpha, beta)


@njit(entry=True)
def _alone_on_arrays(expected, function, record, alpha, beta, x, out, residual, workspace):
    """The same on objects that are looked at first; whether they are what is expected."""
    at, to, added = operands_at(expected, x, out, residual)
    if to != 0:
        call_share(function, 0, 1, 1, record, at, to, added, workspace, alpha, beta)
    return to != 0


@njit(parallel=True)
def _together(function, record, alpha, beta, rows, columns, pitch, x, out, residual, workspace):
    """All shares at once; each has `pitch` bytes of the workspace."""
    for part in prange(rows * columns):
        own = workspace + part * pitch
        # Numba counts parallel loops unsigned
        call_share(function, np.int64(part), rows, columns, record, x, out, residual, own, alpha, beta)


@njit
def _step_alone(step, like):
    """A step that is one share."""
    call_share(
        step.function,
        0,
        1,
        1,
        step.record,
        step.x,
        step.out,
        step.residual,
        step.workspace,
        type(like)(step.alpha),
        type(like)(step.beta),
    )


@njit(entry=True)
def _steps_alone(steps, count, like):
    """Step after step of a program for one thread."""
    for i in range(count):
        _step_alone(step_record(steps + i * _STEP_BYTES), like)


@njit(entry=True)
def _steps_together(steps, count, like):
    """Step after step of a program for several threads."""
    for i in range(count):
        step = step_record(steps + i * _STEP_BYTES)
        if step.rows * step.columns == 1:
            _step_alone(step, like)
        else:
            _together(
                step.function,
                step.record,
                type(like)(step.alpha),
                type(like)(step.beta),
                step.rows,
                step.columns,
                step.pitch,
                step.x,
                step.out,
                step.residual,
                step.workspace,
            )


@functools.cache  # looked for in every call
def _entry(function, before: int, behind: int, scalar: type[np.floating]):
    """The entry point of one of the above for float32 or float64: integers before and behind its two numbers."""
    bounds = (numba.from_dtype(np.dtype(scalar)),) * 2
    return entry_point(function, (*(types.intp,) * before, *bounds, *(types.intp,) * behind))


@functools.cache
def _shared_out(scalar: type[np.floating]):
    """The same of `_together`; getting it ready starts Numba's threads, unless they have been started as they should be."""
    start_threads()
    return _entry(_together, 2, 7, scalar)


def run_shares(work: Shares, x: int, out: int, residual: int, workspace: int) -> None:
    """Run one piece of work on the addresses of its operands."""
    function, rows, columns, record, pitch, alpha, beta, _ = work
    threads = rows * columns
    if threads == 1:
        _entry(_alone, 2, 4, type(alpha))(function, record, alpha, beta, x, out, residual, workspace)
    else:
        arguments = function, record, alpha, beta, rows, columns, pitch, x, out, residual, workspace
        run_parallel(_shared_out(type(alpha)), threads, *arguments)


def on_arrays(work: Shares, expected: int) -> Callable[[int, int, int, int], bool]:
    """What runs one piece of work, given the addresses of three objects (`x`, `out`, a residual or 0) and of a workspace, if these
    are the arrays that are `expected`, the address of what `loops.ndarrays` says; it says whether they are.
    """
    if work.rows * work.columns == 1:
        alone = _entry(_alone_on_arrays, 3, 4, type(work.alpha))
        return partial(alone, expected, work.function, work.record, work.alpha, work.beta)
    return partial(run_on_arrays, partial(run_shares, work), expected)


def run_on_arrays(run: Callable, expected: int, x: int, out: int, residual: int, workspace: int) -> bool:
    """The same by `run(x, out, residual, workspace)`, which takes the addresses of operands."""
    at, to, added = operands_at(expected, x, out, residual)
    if to:
        run(at, to, added, workspace)
    return to != 0


def run_steps(steps: int, count: int, like: np.floating, threads: int) -> None:
    """Run `count` records of `STEP` at an address, which were made for that many threads; `like` has the program's element type."""
    if threads == 1:
        _steps_alone(steps, count, like)
    else:
        run_parallel(_steps_together, threads, steps, count, like)
