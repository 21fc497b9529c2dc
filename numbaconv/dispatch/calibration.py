"""How fast this machine is at what the cost model counts: measured once, kept in the cache folder, assumed where that fails.

The measurement takes 0.2 s besides compiling, when the first algorithm is chosen, never at import.  Whichever process writes
the file first decides for all: results depend in their last bits on the algorithm, so a machine must keep its rates.  Where no
folder can be written, or with ``NUMBACONV_CALIBRATE=0``, rates are assumed, since rates that are measured anew in each process
would differ.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from math import inf, isqrt, prod
from pathlib import Path

import numpy as np

from numbaconv import fourier
from numbaconv.algorithms.split import Split
from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.halves import KINDS
from numbaconv.codegen.jit import cache_folder
from numbaconv.codegen.records import CALL
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import MR, NV, PANEL_ROW, TAP, TILE, core_address, gemm_core
from numbaconv.loops.probe import repeat_core
from numbaconv.loops.shares import run_shares
from numbaconv.loops.transpose import Transposition
from numbaconv.machine import Machine, Rates, machine
from numbaconv.options import options
from numbaconv.problem import ConvProblem
from numbaconv.workspace import aligned

logger = logging.getLogger("numbaconv")

#: Seconds of one sample, and samples a quantity.
_SAMPLE, _ROUNDS = 5e-4, 20
#: A rate may differ from the assumed one by this factor; beyond, the measurement must have been disturbed.
_TRUSTED = 3.0
_F32 = np.float32
_SIZE, _ZERO = 4, _F32(0)
#: What matrix registers are timed with: a layer that the L2 holds.
_PRODUCTS = ConvProblem.parse("c128h16w16o128k3p1cl")
_lock = threading.Lock()


def calibrated_machine() -> Machine:
    """This machine with its measured rates."""
    with _lock:
        return _calibrated()


@functools.cache
def _calibrated() -> Machine:
    on = machine()
    folder = cache_folder() if options().calibrate else None
    return replace(on, rates=kept_rates(Path(folder), on)) if folder else on


def kept_rates(folder: Path, on: Machine) -> Rates:
    """The rates in the folder's file for such a machine; measured and written where there is none.

    A file that cannot be read or written is named in a warning, and rates are assumed.
    """
    key = hashlib.sha256(repr(replace(on, affinity=0, cores=0, quota=None)).encode()).hexdigest()[:16]
    file = folder / f"rates-{key}.json"
    try:
        if not file.exists():
            _write_first(file, json.dumps(asdict(measured_rates(on)), indent=1))
        found = json.loads(file.read_text())
        return Rates(**{field.name: float(found[field.name]) for field in fields(Rates)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("the speed of this machine is assumed, not measured: %s", error)
        return Rates()


def _write_first(file: Path, text: str) -> None:
    """Write a whole file, unless another process has done so meanwhile."""
    handle, draft = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "w") as stream:
            stream.write(text)
        try:
            os.link(draft, file)
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(draft, file)
    finally:
        if os.path.exists(draft):
            os.remove(draft)


def measured_rates(on: Machine) -> Rates:
    """Time tiles, copies and transpositions, all interleaved, and solve for the rates."""
    k, short = 256, 32
    near, far = on.l2 // 4, min(4 * on.l2, max(on.l3 // 2, 2 * on.l2))
    panels, tiles = max(1, far // (k * PANEL_ROW)), max(1, near // (2 * MR * PANEL_ROW))
    calls = {
        "long": _core(MR, 1, k),
        "short": _core(MR, 1, short, tiles=tiles),
        "taps": _core(MR, short, 1, tiles=tiles),
        "low": _core(2, 1, k, panels=panels),
        "copy": _copy(near),
        "transpose": _transposition(near),
        "transpose_far": _transposition(on.l2),  # with its transpose it takes twice the L2
        "fourier": _transform(near_image := _image(on.l2 // 32)),
        "fourier_far": _transform(far_image := _image(on.l2 // 2)),
    }
    able = (matrices for matrices in map(Split, KINDS) if matrices.unsupported(_PRODUCTS, Epilogue(), on) is None)
    if matrices := next(able, None):
        calls["matrix"] = _products(matrices, on)
    rounds = _rounds(calls)
    # in one round the core has one clock frequency, so what is compared is a round's own times; other work only slows down
    share = {name: np.quantile([found[name] / found["long"] for found in rounds], 0.25) for name in rounds[0]}
    # a step of K takes a full tile this many cycles
    step, one, tap = MR * NV / 2, share["short"] / tiles, share["taps"] / tiles
    start = step * (one * k - short) / (1 - one)
    long = k * step + start
    measured = {
        "clock": long / min(found["long"] for found in rounds),
        "row": start / (MR + 1),
        "tap": (tap - one) * long / ((short - 1) * MR),
        "far_bytes": panels * k * PANEL_ROW / (share["low"] * long),
        "copy_bytes": near / (share["copy"] * long),
        "transpose_bytes": 2 * near / (share["transpose"] * long),
        "transpose_far_bytes": 2 * on.l2 / (share["transpose_far"] * long),
    }
    near_by, far_by = (
        share[name] * long / fourier.near_cycles(image, 1, _SIZE)
        for name, image in (("fourier", near_image), ("fourier_far", far_image))
    )
    measured |= _fourier_rates(near_by, far_by, *(fourier.doublings(i, _SIZE, on.l2) for i in (near_image, far_image)))
    if matrices:
        # the unit has a clock of its own, so that a round says nothing
        fastest = min(found["matrix"] for found in rounds) * measured["clock"]
        measured["matrix"] = _matrix_cycles(matrices, fastest, replace(on, rates=Rates(clock=1.0)))
    return Rates(**{name: _trusted(value, getattr(Rates, name)) for name, value in measured.items()})


def _trusted(value: float, assumed: float) -> float:
    """Two digits of a measured rate, no further from the assumed one than is credible."""
    return float(f"{min(max(value, assumed / _TRUSTED), assumed * _TRUSTED):.2g}")


def _rounds(calls: dict[str, Callable[[int], object]]) -> list[dict[str, float]]:
    """Seconds of every call in rounds that go over all of them; each call takes the number of its repetitions."""
    times = {}
    for name, call in calls.items():
        call(1)  # compiles
        times[name] = 1
        # the first calls bring operands to where they stay, and the core to the clock frequency of wide vectors
        while _seconds(call, times[name]) * times[name] < _SAMPLE:
            times[name] *= 2
    return [{name: _seconds(call, times[name]) for name, call in calls.items()} for _ in range(_ROUNDS)]


def _seconds(call: Callable[[int], object], times: int) -> float:
    start = time.perf_counter()
    call(times)
    return (time.perf_counter() - start) / times


def _zeros(nbytes: int) -> np.ndarray:
    """Zeros that are in memory of their own: pages that nobody wrote to are all the same one."""
    array = aligned(nbytes)
    array[:] = 0
    return array


def _core(height: int, taps: int, k: int, *, tiles: int = 1, panels: int = 1) -> Callable[[int], object]:
    """So many tiles of `height` rows by so many panels, of `taps` taps with `k` channels each."""
    row = taps * k * _SIZE + 64  # rows a multiple of 4 KiB apart would share a set of the L1
    panel = taps * k * PANEL_ROW
    records = np.zeros((taps, TAP), np.int64)
    records[:, 0] = np.arange(taps) * k * PANEL_ROW
    records[:, 1:] = np.arange(taps)[:, None] * k * _SIZE + np.arange(MR) * row
    tile_list = np.zeros((tiles, TILE), np.int64)
    tile_list[:, 0] = np.arange(tiles) * height
    tile_list[:, 1:] = height, 0, records.ctypes.data, taps
    tile_list[:, 2] = np.arange(tiles) * MR * row
    arrays = {
        "a": _zeros(tiles * MR * row),
        "zeros": _zeros(row),
        "panels": _zeros(panels * panel),
        "bias": _zeros(panels * PANEL_ROW),
        "c": _zeros(tiles * height * panels * PANEL_ROW),
        "tiles": tile_list,
    }
    sizes = {
        "tile_count": tiles, "k": k, "panel_bytes": panel,
        "c_pitch": panels * PANEL_ROW, "c_step": 1, "columns": panels * PANEL_ROW // _SIZE,
    }  # fmt: skip
    call = np.zeros((), CALL)
    for name, value in (sizes | {name: array.ctypes.data for name, array in arrays.items()}).items():
        call[name] = value
    core = core_address(gemm_core, np.dtype(_F32))

    def run(times: int, keep=(arrays, records)) -> None:
        repeat_core(core, call.ctypes.data, times, _ZERO)

    return run


def _copy(nbytes: int) -> Callable[[int], object]:
    """A copy of so many bytes."""
    source, destination = _zeros(nbytes), _zeros(nbytes)

    def run(times: int) -> None:
        for _ in range(times):
            np.copyto(destination, source)

    return run


def _image(elements: int) -> tuple[int, int]:
    """Lengths of a square image of about so many elements that is transformed fast."""
    return (fourier.good_length(isqrt(elements)),) * 2


def _transform(lengths: tuple[int, int]) -> Callable[[int], object]:
    """The Fourier transform of an image."""
    image = np.random.default_rng(0).standard_normal(lengths, _F32)

    def run(times: int) -> None:
        for _ in range(times):
            fourier.forward(image, lengths, (0, 1))

    return run


def _fourier_rates(near: float, far: float, near_doublings: float, far_doublings: float) -> dict[str, float]:
    """The two rates with which both transforms take as many times the cycles reckoned in the L2 as they do."""
    ratio = far / near
    room = far_doublings - ratio * near_doublings
    slope = _trusted((ratio - 1) / room if room > 0 else inf, Rates.fourier_far)
    return {"fourier": near / (1 + slope * near_doublings), "fourier_far": slope}


def _products(matrices: Split, on: Machine) -> Callable[[int], object]:
    """A convolution of matrix tiles, on operands like those of a layer: the unit is limited by power, which zeros take none of."""
    rng, p = np.random.default_rng(0), _PRODUCTS
    x, weight = (rng.standard_normal(shape, _F32) for shape in (p.input_shape, p.weight_shape))
    out = _zeros(prod(p.output_shape) * _SIZE).view(_F32).reshape(p.output_shape)
    plan = matrices.plan(p, Weights(weight, None, p.groups), Epilogue(), on)

    def run(times: int) -> None:
        for _ in range(times):
            plan.run(x, out, threads=1)

    return run


def _matrix_cycles(matrices: Split, measured: float, on: Machine) -> float:
    """Cycles of a product of registers, if all else that is estimated of the convolution is right."""
    without, one = (matrices.near_cycles(_PRODUCTS, replace(on, rates=replace(on.rates, matrix=m))) for m in (0.0, 1.0))
    return (measured - without) / (one - without)


def _transposition(nbytes: int) -> Callable[[int], object]:
    """The transposition of a matrix of so many bytes, with as many columns as a layer in the middle of a network has pixels."""
    source, destination = _zeros(nbytes), _zeros(nbytes)
    columns = 28 * 28
    matrix = Transposition(1, nbytes // _SIZE // columns, columns, np.float32)
    shares = matrix.shares(1)

    def run(times: int) -> None:
        for _ in range(times):
            run_shares(shares, source.ctypes.data, destination.ctypes.data, 0, 0)

    return run
