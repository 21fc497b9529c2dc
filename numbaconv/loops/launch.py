"""How compiled drivers are entered: one thread without the parallel layer, several with it, and never where that would abort.

OpenMP costs 0.6 us a region, the workqueue 16 us; the workqueue aborts the process when two threads enter it at once,
and GNU OpenMP aborts a forked child at its first region.  Its threads spin while they wait, and would do so for 13 ms: where other
programs run, too, each region then waits for a thread that cannot run since another one spins.
"""

from __future__ import annotations

import functools
import os
import threading

import numba

from numbaconv.options import get_num_threads

#: How often OpenMP's threads look for work before they sleep, some 45 ns apart: a thread that sleeps takes longer to wake than a
#: network's steps do, so that it has to be more than a thread waits for the slowest of them.
#: Who has set one of these variables has chosen.
SPINS = "20000"
_SPIN_VARIABLES = "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"
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
def start_threads() -> None:
    """Start Numba's threads: OpenMP's before TBB's and the workqueue's, unless the user or another library has chosen already."""
    if list(numba.config.THREADING_LAYER_PRIORITY) == ["tbb", "omp", "workqueue"]:
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
    bounded = not any(name in os.environ for name in _SPIN_VARIABLES)
    if bounded:
        # read once, when the library is loaded; programs that this one starts choose for themselves
        os.environ[_SPIN_VARIABLES[0]] = SPINS
    try:
        numba.set_num_threads(numba.get_num_threads())
    finally:
        if bounded:
            os.environ.pop(_SPIN_VARIABLES[0], None)


def threading_layer() -> str | None:
    """The parallel layer in use, or None before the first parallel region of the process."""
    try:
        return numba.threading_layer()
    except ValueError:
        return None


def start_threading_layer() -> str:
    """Start Numba's threads now, instead of at the first parallel region, and name their layer."""
    start_threads()
    return numba.threading_layer()


def run_parallel(driver, threads: int, *arguments) -> None:
    """Call a parallel driver on so many threads; one caller at a time where the layer is not known to be thread-safe."""
    start_threads()
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
