"""Every knob that the environment has, read once, and the number of threads.

No other module reads the environment.  A wrong value raises when it is first needed, not at import, so that
a slip in a shell profile cannot keep a program from starting.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from operator import index
from pathlib import Path

import numba

from numbaconv.errors import ConvError

ISAS: tuple[str, ...] = ("avx512", "avx2", "neon", "generic")


@dataclass(frozen=True)
class Options:
    """What the environment asks for.

    Parameters
    ----------
    isa : str, optional
        ``NUMBACONV_ISA``, one of `ISAS`: generate code for narrower vectors than the target has.  Default: the
        target's own.
    cache_dir : Path, optional
        ``NUMBACONV_CACHE_DIR``: the folder of compiled code and of measurements.  Default: the user's cache folder.
    num_threads : int, optional
        ``NUMBACONV_NUM_THREADS``: threads until `set_num_threads` says otherwise.  Default: the usable cores.
    plan_cache : int
        ``NUMBACONV_PLAN_CACHE``: for how many input shapes a layer keeps its plans before the one that was used least
        recently goes.  Default 32.
    accuracy : float or "strict", optional
        ``NUMBACONV_ACCURACY``: how exact results must be until `set_accuracy` says otherwise.  Default: 1e-5.
    calibrate : bool
        ``NUMBACONV_CALIBRATE``, 0 or 1: whether the cost model reckons with this machine's measured speed, see
        `dispatch.calibration`.  Default 1; 0 makes the choice of algorithms the same on all machines of a kind.
    """

    isa: str | None = None
    cache_dir: Path | None = None
    num_threads: int | None = None
    plan_cache: int = 32
    accuracy: float | str | None = None
    calibrate: bool = True

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Options:
        """The options in `environ`; an empty value counts as absent.

        Raises
        ------
        ConvError
            If a value is not one that its variable may have.
        """
        isa = environ.get("NUMBACONV_ISA") or None
        if isa is not None and isa not in ISAS:
            raise ConvError(f"NUMBACONV_ISA={isa!r} is unknown; it must be one of {', '.join(ISAS)}")
        folder = environ.get("NUMBACONV_CACHE_DIR")
        threads = _positive(environ, "NUMBACONV_NUM_THREADS")
        if threads is not None:
            threads = _thread_count("NUMBACONV_NUM_THREADS", threads)
        plans = _positive(environ, "NUMBACONV_PLAN_CACHE") or cls.plan_cache
        calibrate = environ.get("NUMBACONV_CALIBRATE") or "1"
        if calibrate not in ("0", "1"):
            raise ConvError(f"NUMBACONV_CALIBRATE={calibrate!r} must be 0 or 1")
        return cls(
            isa, Path(folder).expanduser() if folder else None, threads, plans, _accuracy(environ), calibrate == "1"
        )


@lru_cache(maxsize=1)
def options() -> Options:
    """The options of this process, read from the environment at the first call."""
    return Options.read(os.environ)


# A context's own count wins over the process's.  New threads start with an empty context, so one thread's
# `with num_threads(...)` is never seen by another.
_process_threads: int | None = None
_context_threads: ContextVar[int | None] = ContextVar("numbaconv_threads", default=None)


def get_num_threads() -> int:
    """How many threads the next convolution of this thread may use, at least 1."""
    return _context_threads.get() or _process_threads or _default_threads()


def set_num_threads(n: int) -> None:
    """Let convolutions of this process use up to `n` threads, except inside ``with num_threads(...)``.

    Raises
    ------
    ConvError
        If `n` is not an integer from 1 to the number of threads that Numba was started with.
    """
    global _process_threads
    _process_threads = _thread_count("n", n)


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Let convolutions inside the ``with`` block, on this thread only, use up to `n` threads; blocks nest.

    Raises
    ------
    ConvError
        As `set_num_threads` does.
    """
    token = _context_threads.set(_thread_count("n", n))
    try:
        yield
    finally:
        _context_threads.reset(token)


@lru_cache(maxsize=1)  # asked for in every call, and neither the environment nor the machine changes
def _default_threads() -> int:
    wanted = options().num_threads
    if wanted is not None:
        return wanted
    # `machine` reads its ISA override from this module, so it can be imported only once this one is complete.
    from numbaconv.machine import machine

    return min(machine().usable_cores, numba.config.NUMBA_NUM_THREADS)


def _thread_count(name: str, n) -> int:
    try:
        if isinstance(n, bool):
            raise TypeError
        count = index(n)
    except TypeError:
        raise ConvError(f"{name}={n!r} is a {type(n).__name__}; the number of threads must be an integer") from None
    if count < 1:
        raise ConvError(f"{name}={count} is below 1; at least one thread computes")
    limit = numba.config.NUMBA_NUM_THREADS
    if count > limit:
        raise ConvError(
            f"{name}={count} exceeds numba.config.NUMBA_NUM_THREADS={limit}, the most threads that Numba starts; "
            "set the environment variable NUMBA_NUM_THREADS to raise it"
        )
    return count


def _accuracy(environ: Mapping[str, str]) -> float | str | None:
    text = environ.get("NUMBACONV_ACCURACY")
    if not text or text == "strict":
        return text or None
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ConvError(f"NUMBACONV_ACCURACY={text!r} must be a positive number or 'strict'")
    return number


def _positive(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ConvError(f"{name}={text!r} must be an integer of at least 1")
    return number
