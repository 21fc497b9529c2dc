"""The runtimes that can be measured, one module each.

A runtime's module is imported only inside its own worker process. It offers

    version() -> str
    convolution(problem, operands, threads, variant, algorithm) -> Prepared

and functions like it for other operations of `suites.OPERATIONS`. Everything that a network does once (packing, compiling,
allocating) happens there, and `Prepared.call` is what a network repeats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType

import numpy as np


class UnsupportedProblemError(Exception):
    """This runtime has no such convolution; the cell in the table stays empty."""


@dataclass(frozen=True)
class Prepared:
    """A convolution ready to be timed: `call` runs it, `result` is the last result, channels-first.

    `keep` holds what the runtime knows by address alone and would otherwise be freed with `prepare`'s locals.
    `flops` is set only where a call does other work than the problem's own.
    """

    call: Callable[[], object]
    result: Callable[[], np.ndarray] | None
    keep: tuple = ()
    flops: int | None = None


@dataclass(frozen=True)
class Runtime:
    """A name in tables: which module, which of its variants, which layout the caller's operands have, and what it can do."""

    module: str
    variant: str
    layout: str
    operations: tuple[str, ...] = ("convolution",)


_LAYERS = ("convolution", "transposed")
_TRAINING = (*_LAYERS, "gradients")
# Signals of one channel have no layout: they count as channels-first.
_ALL = (*_TRAINING, "convolve")
RUNTIMES = {
    "numbaconv_cl": Runtime("numbaconv", "channels_last", "channels_last", _TRAINING),
    "numbaconv_cf": Runtime("numbaconv", "channels_first", "channels_first", _ALL),
    "torch_cf": Runtime("torch", "channels_first", "channels_first", _TRAINING),
    "torch_cl": Runtime("torch", "channels_last", "channels_last", _TRAINING),
    "torch_packed": Runtime("torch", "packed", "channels_last", _LAYERS),
    "torch_mkldnn": Runtime("torch", "mkldnn", "blocked"),
    "onnxruntime": Runtime("onnxruntime", "all", "channels_first", _LAYERS),
    "onnxruntime_nchw": Runtime("onnxruntime", "extended", "channels_first"),
    "openvino_cf": Runtime("openvino", "channels_first", "channels_first", _LAYERS),
    "openvino_cl": Runtime("openvino", "channels_last", "channels_last", _LAYERS),
    "ncnn": Runtime("ncnn", "default", "channels_first", _LAYERS),
    "jax_cf": Runtime("jax", "channels_first", "channels_first", _ALL),
    "jax_cl": Runtime("jax", "channels_last", "channels_last", _TRAINING),
    "jax_fft": Runtime("jax", "fft", "channels_first", ("convolve",)),
    "scipy_direct": Runtime("scipy", "direct", "channels_first", ("convolve",)),
    "scipy_convolve2d": Runtime("scipy", "convolve2d", "channels_first", ("convolve",)),
    "scipy_fft": Runtime("scipy", "fftconvolve", "channels_first", ("convolve",)),
    "scipy_oa": Runtime("scipy", "oaconvolve", "channels_first", ("convolve",)),
}
PEAK = "peak"


def is_ours(name: str) -> bool:
    return name.startswith("numbaconv")


def lookup(name: str) -> tuple[Runtime, str | None]:
    """The runtime of a name, and the algorithm it forces: `numbaconv_cl:direct`. Raises KeyError for an unknown name."""
    base, _, algorithm = name.partition(":")
    if algorithm and not is_ours(base):
        raise KeyError(f"{name}: only numbaconv takes an algorithm")
    return RUNTIMES[base], algorithm or None


def load(name: str) -> tuple[ModuleType, str, str | None]:
    """Import the module behind `name`: (module, variant, algorithm). Raises ImportError where it is not installed."""
    if name == PEAK:
        return import_module("bench.peak"), "", None
    runtime, algorithm = lookup(name)
    return import_module(f"bench.peers.{runtime.module}"), runtime.variant, algorithm


def output_padding(problem) -> tuple[int, ...]:
    """Elements at the end of each axis that the adjoint of the convolution has besides those that its result's size tells."""
    return tuple(
        (size + sum(ends) - extent) % stride
        for size, ends, extent, stride in zip(problem.spatial, problem.padding, problem.extent, problem.stride)
    )


def even_padding(problem) -> list[int]:
    """One padding value an axis. Raises UnsupportedProblemError where two are needed."""
    if any(before != after for before, after in problem.padding):
        raise UnsupportedProblemError("one padding value an axis")
    return [before for before, _ in problem.padding]


def convolve_mode(problem) -> str:
    """What scipy.signal calls the padding: "full" or "same"."""
    return "full" if problem.padding == tuple((size - 1, size - 1) for size in problem.kernel) else "same"
