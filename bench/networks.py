"""Compare whole networks with the other runtimes, over several models and numbers of threads.

python -m bench.networks mobilenet_v2.onnx resnet50.onnx --threads 1 2 --float64 --markdown out.md --json out.json
"""

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.compare import processor
from bench.report import geometric_mean
from numbaconv.cli import runtimes
from numbaconv.cli.benchmark import parse_shape, remarks
from numbaconv.cli.networks import NetworkResult, chosen_peers, measure
from numbaconv.errors import ConvError

MEBIBYTE = 1 << 20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.networks", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", default="all", help="all, none, or names with commas between them")
    parser.add_argument(
        "--shape", action="append", default=[], help="name=1x3x224x224, in all models with such an input"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--min-time", type=float, default=0.2, help="seconds that a runtime gets in each round")
    parser.add_argument("--float64", action="store_true", help="compare with an evaluation in double precision, too")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file instead of printing them")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    try:
        peers, shapes = chosen_peers(args.peers), dict(map(parse_shape, args.shape))
        results = [
            measure(model, peers, args.threads, shapes, args.rounds, args.min_time, args.float64, _say(model.stem))
            for model in args.models
        ]
    except (ConvError, FileNotFoundError) as error:
        sys.exit(str(error))
    text = markdown(results, [runtimes.OURS, *peers])
    if args.markdown:
        args.markdown.write_text(text)
    else:
        print(text, end="")
    if args.json:
        machine = {"processor": processor(), "system": platform.platform(), "python": platform.python_version()}
        document = {"machine": machine, "networks": [result.as_json() for result in results]}
        args.json.write_text(json.dumps(document, indent=1))


def markdown(results: Sequence[NetworkResult], names: Sequence[str]) -> str:
    """A table of times for each number of threads, then one of memory, loading and differences."""
    lines = []
    for threads in results[0].threads:
        ratios = [result.ratio(result.fastest_peer(threads), threads) for result in results]
        head = [f"{threads} thread{'s' * (threads > 1)}, ms", *names, "best peer / ours"]
        rows = [
            [Path(result.model).stem, *(_milliseconds(result, name, threads) for name in names), _cell(ratio, ".2f")]
            for result, ratio in zip(results, ratios)
        ]
        rows.append(["geometric mean", *[""] * len(names), _cell(geometric_mean(ratios), ".2f")])
        lines += [*_table(head, rows), ""]
    judged = [f"difference from {runtimes.JUDGE}", "top-1", "difference from float64"]
    rows = [_properties(result, name) for result in results for name in names if name in result.versions]
    lines += [*_table(["network", "runtime", "load + first result, s", "peak, MiB", *judged], rows), ""]
    bare = max(result.bare_bytes for result in results) / MEBIBYTE
    versions = ", ".join(f"{name} {version}" for name, version in results[0].versions.items())
    lines.append(f"A bare interpreter with Numba takes {bare:.0f} MiB. Versions: {versions}.")
    lines += [f"{Path(result.model).stem}: {line}" for result in results for line in remarks(result)]
    return "\n".join(lines) + "\n"


def _milliseconds(result: NetworkResult, name: str, threads: int) -> str:
    measurement = result.measurements.get((name, threads))
    return _cell(measurement and measurement.seconds, ".2f", 1e-3)


def _properties(result: NetworkResult, name: str) -> list[str]:
    """The worst of all numbers of threads."""
    worst = result.worst(name)
    return [
        Path(result.model).stem,
        name,
        _cell(worst.load_seconds, ".2f"),
        _cell(worst.peak_bytes, ".0f", MEBIBYTE),
        _cell(worst.difference, ".1e"),
        _cell(worst.top1, ".0%"),
        _cell(worst.difference_float64, ".1e"),
    ]


def _cell(value: float | None, form: str, unit: float = 1) -> str:
    return "-" if value is None else format(value / unit, form)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]


def _say(label: str):
    return lambda text: print(f"{label}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
