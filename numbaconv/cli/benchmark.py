"""`bench`: one network here and in other runtimes, as a table or as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from numbaconv.cli import runtimes
from numbaconv.cli.networks import NetworkResult, chosen_peers, is_wrong, measure
from numbaconv.cli.output import console, notes, print_json, print_wide, table
from numbaconv.errors import ConvError
from numbaconv.options import get_num_threads

_MEBIBYTE = 1 << 20


def bench(
    model: Path,
    peers: str,
    threads: Sequence[int],
    shapes: Sequence[str],
    rounds: int,
    min_time: float,
    float64: bool,
    as_json: bool,
) -> None:
    """Measure `model` and print what came out."""
    result = measure(
        model,
        chosen_peers(peers),
        threads or [1, get_num_threads()],
        dict(parse_shape(text) for text in shapes),
        rounds,
        min_time,
        float64,
        lambda text: notes.print(text, style="dim", highlight=False),
    )
    if as_json:
        print_json(result.as_json())
    else:
        _print(result, rounds)


def parse_shape(text: str) -> tuple[str, list[int]]:
    """The name and the shape in "name=1x3x224x224".

    Raises
    ------
    ConvError
        The text has another form.
    """
    name, equals, sizes = text.rpartition("=")
    if not name or not equals or not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sizes):
        raise ConvError(f"--shape {text!r} is not of the form name=1x3x224x224")
    return name, [int(size) for size in sizes.split("x")]


def _print(result: NetworkResult, rounds: int) -> None:
    fed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in result.shapes.items())
    heads = [head for at in result.threads for head in (f"{at} thread{'s' * (at > 1)}, ms", "over ours")]
    times = table(f"{result.model} ({fed}): medians of {rounds} rounds", "", *heads)
    judged = (f"from {runtimes.JUDGE}", "top-1", "from float64")
    others = table(
        "Worst over all threads; load with first result; differences over largest magnitude",
        "",
        "load, s",
        "peak, MiB",
        *judged,
    )
    for name in result.versions:
        style = "bold green" if name == runtimes.OURS else ""
        times.add_row(name, *(cell for at in result.threads for cell in _times(result, name, at)), style=style)
        worst = result.worst(name)
        others.add_row(
            name,
            _number(worst.load_seconds, ".2f"),
            _number(worst.peak_bytes, ".0f", _MEBIBYTE),
            _number(worst.difference, ".1e"),
            _number(worst.top1, ".0%"),
            _number(worst.difference_float64, ".1e"),
            style=style,
        )
    times.add_section()
    best = {at: result.fastest_peer(at) for at in result.threads}
    pairs = [(best[at] or "-", _number(result.ratio(best[at], at), ".2f")) for at in result.threads]
    times.add_row("best peer", *(cell for pair in pairs for cell in pair))
    others.add_section()
    others.add_row("bare Numba", "", _number(result.bare_bytes, ".0f", _MEBIBYTE))
    print_wide(times)
    print_wide(others)
    for line in remarks(result):
        console.print(line, markup=False, highlight=False)


def remarks(result: NetworkResult) -> list[str]:
    """Why cells of a table are empty, and which results are wrong."""
    lines = {f"{name} is absent: {reason}": None for name, reason in result.absent.items()}
    for (name, at), measurement in result.measurements.items():
        if measurement.refusal is not None:
            lines[f"{name}, {measurement.refusal}"] = None
        elif is_wrong(measurement):
            lines[f"{name} with {at} threads gives another result than {runtimes.JUDGE} and does not count"] = None
    if result.refused_float64 is not None:
        lines[f"no float64 evaluation: {result.refused_float64}"] = None
    return list(lines)


def _times(result: NetworkResult, name: str, threads: int) -> tuple[str, str]:
    measurement = result.measurements.get((name, threads))
    if measurement is None or measurement.seconds is None:
        return "-", "-"
    return _number(measurement.seconds * 1e3, ".2f"), _number(result.ratio(name, threads), ".2f")


def _number(value: float | None, form: str, unit: int = 1) -> str:
    return "-" if value is None else format(value / unit, form)
