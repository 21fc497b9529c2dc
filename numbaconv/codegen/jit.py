"""Compile our functions lazily and keep their machine code on disk, without touching anybody else's.

Numba's own cache looks only at the file of the cached function, so an edit to a code generator in another file would leave
stale machine code behind; and it fails at import where no folder is writable.  Here the folder is keyed by a digest
of everything that decides the code, and a missing folder only means that nothing is kept.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite
import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    NullCache,
    _CacheLocator,
    _SourceFileBackedLocatorMixin,
)
from numba.core.ccallback import CFunc
from numba.core.runtime import rtsys
from numba.misc.appdirs import AppDirs

from numbaconv.codegen.linked import LinkedFunction
from numbaconv.options import options

logger = logging.getLogger("numbaconv")

_PACKAGE = Path(__file__).resolve().parent.parent
#: Everything whose text decides the machine code.
_SOURCES = ("codegen", "loops", "reference.py", "epilogue.py", "machine.py", "options.py")


@functools.cache
def source_digest() -> str:
    """Digest of the sources that generate code, of Numba, llvmlite and of the ISA asked for."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {options().isa}".encode())
    for source in _SOURCES:
        path = _PACKAGE / source
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def cache_folder() -> str | None:
    """The folder that holds our machine code, or None where none can be written."""
    root = options().cache_dir or AppDirs(appname="numbaconv", appauthor=False).user_cache_dir
    folder = os.path.join(root, source_digest())
    try:
        os.makedirs(folder, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        logger.warning("compiled kernels are not kept for the next process: %s (set NUMBACONV_CACHE_DIR)", error)
        return None
    return folder


class _Locator(_SourceFileBackedLocatorMixin, _CacheLocator):
    """Puts every function of ours into `cache_folder()`, whatever NUMBA_CACHE_DIR says to others."""

    def __init__(self, function, file):
        self._py_file = file
        self._lineno = function.__code__.co_firstlineno

    def get_cache_path(self):
        return cache_folder()


class _CacheImpl(CompileResultCacheImpl):
    _locator_classes = [_Locator]


# --- telling that a compilation runs -----------------------------------------------------------------------------

_listeners: list[Callable[[str, float | None], None]] = []
_started: dict[str, float] = {}
_SLOW = 2.0  # seconds of compiling after which a quiet process says why it is slow


@contextlib.contextmanager
def on_compile(callback: Callable[[str, float | None], None]) -> Iterator[None]:
    """Call `callback(name, None)` when a kernel starts to compile and `callback(name, seconds)` when it is done."""
    _listeners.append(callback)
    try:
        yield
    finally:
        _listeners.remove(callback)


@functools.cache
def _announce_once() -> None:
    kept = cache_folder()
    where = f"kept in {kept}" if kept else "repeated in every process, for want of a writable folder"
    logger.warning("compiling kernels for this machine; this takes some seconds once and is %s", where)


def _begin(name: str) -> None:
    if not _listeners and not _started:
        timer = threading.Timer(_SLOW, _announce_once)
        timer.daemon = True
        timer.start()
        _begin.timer = timer
    _started[name] = time.perf_counter()
    for callback in _listeners:
        callback(name, None)


def _end(name: str) -> None:
    seconds = time.perf_counter() - _started.pop(name, time.perf_counter())
    if not _started and (timer := getattr(_begin, "timer", None)):
        timer.cancel()
    for callback in _listeners:
        callback(name, seconds)


class _Announced:
    """Mixed into a cache: a miss is the start of a compilation, a save is its end."""

    def load_overload(self, sig, target_context):
        found = super().load_overload(sig, target_context)
        if found is None:
            _begin(self.name)
        return found

    def save_overload(self, sig, data):
        try:
            super().save_overload(sig, data)
        finally:
            _end(self.name)


class _ReadyCache(FunctionCache):
    """Loads what was compiled without making ready to compile, which takes Numba half a second and imports SciPy's BLAS."""

    _impl_class = _CacheImpl

    def load_overload(self, sig, target_context):
        # all that finished machine code needs
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)


class _DiskCache(_Announced, _ReadyCache):
    pass


class _NoCache(_Announced, NullCache):
    def __init__(self, name):
        self.name = name


def _attach_cache(compiled, function, name: str) -> None:
    """Give one dispatcher or C function its cache.  The folder is looked for at the first compilation, not at import."""
    compiled._cache = _LazyCache(compiled, function, name)


class _LazyCache(NullCache):
    """Stands in until the first compilation, so that importing the package touches no file."""

    def __init__(self, owner, function, name):
        self._owner, self._function, self._name = owner, function, name

    def _resolve(self):
        if cache_folder():
            cache = _DiskCache(self._function)
            cache.name = self._name
        else:
            cache = _NoCache(self._name)
        self._owner._cache = cache
        return cache

    def load_overload(self, sig, target_context):
        return self._resolve().load_overload(sig, target_context)


# --- decorators ----------------------------------------------------------------------------------------------------

#: Loops release the GIL, and division by zero follows IEEE like NumPy's.
_COMMON = {"nogil": True, "error_model": "numpy"}


def njit(function=None, *, entry: bool = False, parallel: bool = False):
    """A function for compiled callers or, as an `entry` or if `parallel`, for Python: `numba.njit` with our cache."""
    if function is None:
        return functools.partial(njit, entry=entry, parallel=parallel)
    name = function.__name__
    if not (entry or parallel):
        linked = LinkedFunction(function, **_COMMON)
        linked._cache = _NoCache(name)
        return linked
    dispatcher = numba.njit(parallel=parallel, **_COMMON)(function)
    _attach_cache(dispatcher, function, name)
    return dispatcher


def entry_point(function, arguments):
    """The C function of an `entry` for arguments of exactly these types, compiled at the first request.

    Calling it takes 0.25 us less than having Numba look at the types of the arguments first.
    """
    return function.compile(arguments)


class NativeFunction:
    """A function compiled once a signature to plain machine code, called through its address.

    What it holds is not compiled again into each caller, which is what linking a jitted callee would do.
    """

    def __init__(self, function, name: str):
        self._function, self._name = function, name
        self._compiled: dict[object, CFunc] = {}
        self._lock = threading.Lock()

    def compiled(self, signature) -> CFunc:
        """The compiled form for a Numba signature."""
        with self._lock:
            if signature not in self._compiled:
                cfunc = CFunc(self._function, (signature.args, signature.return_type), {}, dict(_COMMON, nopython=True))
                _attach_cache(cfunc, self._function, self._name)
                cfunc.compile()
                self._compiled[signature] = cfunc
            return self._compiled[signature]

    def address(self, signature) -> int:
        """Entry point for a Numba signature; compiled at the first request."""
        return self.compiled(signature).address
