"""How compiled drivers are entered: one thread without the parallel layer, several with it, and never where that would abort.

OpenMP costs 0.6 us a region, the workqueue 16 us; the workqueue aborts the process when two threads enter it at once,
and GNU OpenMP aborts a forked child at its first region.
"""

from __future__ import annotations

import functools
import os
import threading

import numba

from numbaconv.options import get_num_threads

_forked = False
_entry = threading.RLock()


def _after_fork() -> None:
    global _forked, _entry
    _forked = True
    _entry = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def usable_threads() -> int:
    """How many threads the caller wants and may have: one in a forked child, whose parent's pool is gone."""
    return 1 if _forked else get_num_threads()


@functools.cache
def _prefer_openmp() -> None:
    """Ask for OpenMP before TBB and the workqueue, unless the user or another library has chosen already."""
    if list(numba.config.THREADING_LAYER_PRIORITY) == ["tbb", "omp", "workqueue"]:
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]


def threading_layer() -> str | None:
    """The parallel layer in use, or None before the first parallel region of the process."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None


def start_threading_layer() -> str:
    """Start Numba's threads now, instead of at the first parallel region, and name their layer."""
    _prefer_openmp()
    numba.set_num_threads(numba.get_num_threads())
    return numba.threading_layer()


def run_parallel(driver, threads: int, *arguments) -> None:
    """Call a parallel driver on so many threads; one caller at a time where the layer is not known to be thread-safe."""
    _prefer_openmp()
    if threading_layer() in ("omp", "tbb"):
        _run(driver, threads, arguments)
    else:
        with _entry:
            _run(driver, threads, arguments)


def _run(driver, threads: int, arguments) -> None:
    # the mask belongs to the calling thread, whose other Numba code must find it as it was
    before = numba.get_num_threads()
    if before == threads:
        driver(*arguments)
        return
    numba.set_num_threads(threads)
    try:
        driver(*arguments)
    finally:
        numba.set_num_threads(before)
