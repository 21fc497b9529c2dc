"""`explain`: what the choice of an algorithm rests on.  `info`: what everything runs on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform

import numba

from numbaconv import options
from numbaconv.cli.output import console, print_json, table
from numbaconv.codegen.jit import cache_folder
from numbaconv.dispatch import explain as explaining
from numbaconv.machine import machine
from numbaconv.problem import ConvProblem

_ROW = ("algorithm", "reason", "seconds", "workspace_bytes", "chosen")
_PACKAGES = ("numbaconv", "numpy", "numba", "llvmlite", "onnx", "onnxruntime")


def explain(text: str, as_json: bool) -> None:
    """Print the table of `numbaconv.explain` for a problem's short form."""
    problem = ConvProblem.parse(text)
    explanation = explaining.explain(problem)
    if as_json:
        rows = [{name: getattr(row, name) for name in _ROW} for row in explanation.rows]
        print_json({"problem": str(problem), "algorithms": rows})
    else:
        console.print(str(explanation), markup=False, highlight=False, soft_wrap=True)


def info(as_json: bool) -> None:
    """Print versions, the machine, threads and the cache folder."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "machine": dataclasses.asdict(machine()),
        "threads": options.get_num_threads(),
        "threading_layer": _threading_layer(),
        "cache_folder": cache_folder() and str(cache_folder()),
    }
    if as_json:
        print_json(facts)
        return
    rows = table("numbaconv", "", "")
    for name, value in facts.items():
        entries = value.items() if isinstance(value, dict) else [(name.replace("_", " "), value)]
        for entry, shown in entries:
            rows.add_row(entry, "-" if shown is None else str(shown))
        rows.add_section()
    console.print(rows, markup=False)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _threading_layer() -> str:
    # Numba decides when the first parallel region runs; starting its threads makes it decide now.
    try:
        numba.np.ufunc.parallel._launch_threads()
        return numba.threading_layer()
    except (AttributeError, ImportError, ValueError) as error:
        return f"none ({error})"
