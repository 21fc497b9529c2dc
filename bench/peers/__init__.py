"""The runtimes that can be measured, one module each.

A runtime's module is imported only inside its own worker process. It offers

    version() -> str
    prepare(problem, operands, threads, variant, algorithm) -> Prepared

where everything that a network does once (packing, compiling, allocating) happens in `prepare`, and `Prepared.call`
is what a network repeats.
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
    """A name in tables: which module, which of its variants, and which layout the caller's operands have."""

    module: str
    variant: str
    layout: str


RUNTIMES = {
    "numbaconv_cl": Runtime("numbaconv", "channels_last", "channels_last"),
    "numbaconv_cf": Runtime("numbaconv", "channels_first", "channels_first"),
    "torch_cf": Runtime("torch", "channels_first", "channels_first"),
    "torch_cl": Runtime("torch", "channels_last", "channels_last"),
    "torch_packed": Runtime("torch", "packed", "channels_last"),
    "torch_mkldnn": Runtime("torch", "mkldnn", "blocked"),
    "onnxruntime": Runtime("onnxruntime", "all", "channels_first"),
    "onnxruntime_nchw": Runtime("onnxruntime", "extended", "channels_first"),
    "openvino_cf": Runtime("openvino", "channels_first", "channels_first"),
    "openvino_cl": Runtime("openvino", "channels_last", "channels_last"),
    "ncnn": Runtime("ncnn", "default", "channels_first"),
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
