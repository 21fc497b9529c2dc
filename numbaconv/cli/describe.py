"""`explain`: what the choice of an algorithm rests on.  `info`: what everything runs on."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform

from numbaconv import __version__, arithmetic, options
from numbaconv.cli.output import console, print_json, table
from numbaconv.codegen.jit import cache_folder
from numbaconv.dispatch import explain as explaining
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.loops.launch import start_threading_layer
from numbaconv.problem import ConvProblem

_PACKAGES = ("numpy", "numba", "llvmlite", "onnx", "onnxruntime")


def explain(text: str, as_json: bool) -> None:
    """Print a problem's arithmetic and the table of `numbaconv.explain`, for its short form."""
    problem = ConvProblem.parse(text)
    explanation = explaining.explain(problem)
    facts = arithmetic.summary(problem)
    if as_json:
        rows = [dataclasses.asdict(row) for row in explanation.rows]
        print_json({"problem": str(problem), "arithmetic": dataclasses.asdict(facts), "algorithms": rows})
        return
    numbers = table("arithmetic", "", "")
    for name, value in _worded(facts).items():
        numbers.add_row(name, value)
    console.print(numbers)
    title = f"{problem}: {problem.flops / 1e6:.1f} MFLOP, {problem.arithmetic_intensity:.1f} FLOP a byte"
    rows = table(title, "algorithm", "estimate", "workspace", "staging", "tables")
    for row in explanation.rows:
        if row.reason:
            rows.add_row("  " + row.label, row.reason, style="dim")
        else:
            memory = (row.workspace_bytes, row.staging_bytes, row.plan_bytes)
            sizes = (f"{nbytes / 1024:.0f} KiB" for nbytes in memory)
            mark, style = ("* ", "bold green") if row.chosen else ("  ", "")
            rows.add_row(mark + row.label, f"{row.seconds * 1e6:.1f} us", *sizes, style=style)
    console.print(rows)


def _worded(facts: arithmetic.Summary) -> dict[str, str]:
    """The numbers of a problem, with their units."""
    words = {
        "output": " x ".join(map(str, facts.output)),
        "effective kernel": " x ".join(map(str, facts.effective_kernel)),
        "parameters": f"{facts.parameters:,}",
        "MACs": f"{facts.macs / 1e6:,.3f} M",
        "FLOPs": f"{facts.flops / 1e6:,.3f} M",
        "least traffic": f"{facts.bytes / 1024:,.0f} KiB",
        "FLOPs a byte": f"{facts.arithmetic_intensity:.1f}",
        "whole im2col matrix": f"{facts.im2col_bytes / 1024:,.0f} KiB",
    }
    if facts.separable_ratio is not None:
        words["depthwise separable instead"] = f"{facts.separable_ratio:.3f} of the MACs"
    return words


def info(as_json: bool) -> None:
    """Print versions, the machine, threads and the cache folder."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": {"numbaconv": __version__, **{name: _version(name) for name in _PACKAGES}},
        "machine": dataclasses.asdict(calibrated_machine()),
        "threads": options.get_num_threads(),
        "threading_layer": start_threading_layer(),
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
