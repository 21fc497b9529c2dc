"""Compare numbaconv with the other runtimes on the layers of a network.

python -m bench.compare --suite resnet50 --threads 1 2 --kinds 1x1 3x3 --rounds 7 --json out.json
"""

import argparse
import contextlib
import json
import platform
import sys
from pathlib import Path

from bench import harness, peers, report, suites

UNREST_WORTH_SAYING = 0.15


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__.splitlines()[0])
    parser.add_argument("--suite", nargs="+", default=["resnet50"], choices=suites.names())
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--kinds", nargs="+", default=(), choices=[k.name for k in suites.KINDS], help="only these")
    parser.add_argument("--filter", default="", help="regular expression on the problem string and the layer's name")
    parser.add_argument("--batch", type=int, help="images, instead of what the suite says")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--min-time", type=float, default=0.05, help="seconds that a runtime gets in each round")
    everything = list(peers.RUNTIMES)
    parser.add_argument("--runtimes", nargs="+", default=everything, help="`numbaconv_cl:direct` forces an algorithm")
    parser.add_argument("--without", nargs="+", default=[], help="leave out runtimes or whole families, e.g. torch")
    parser.add_argument("--unit", default="us", choices=("us", "gflops"), help="of the runtimes' columns")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    args = parser.parse_args()
    try:
        args.runtimes = [name for name in args.runtimes if not {name, peers.lookup(name)[0].module} & set(args.without)]
    except KeyError as error:
        parser.error(f"unknown runtime {error}; known: {', '.join(peers.RUNTIMES)}")
    return args


def main() -> None:
    args = parse_args()
    layers = [layer for suite in args.suite for layer in suites.load(suite, args.filter, args.kinds, args.batch)]
    if not layers:
        sys.exit("no layer matches")
    results, versions = [], {}
    wanted = {layer.operation for layer in layers}
    runtimes = [name for name in args.runtimes if wanted & {*peers.lookup(name)[0].operations}]
    for threads in args.threads:
        with harness.workers([peers.PEAK, *runtimes], threads) as (running, absent):
            versions |= {name: worker.version for name, worker in running.items()}
            for name, reason in absent.items():
                print(f"absent: {name} ({reason})")
            at_these_threads = []
            # what was measured before somebody lost patience is shown
            with contextlib.suppress(KeyboardInterrupt):
                for number, layer in enumerate(layers, 1):
                    print(
                        f"\r{threads} thread(s), layer {number} of {len(layers)} ", end="", file=sys.stderr, flush=True
                    )
                    measurements = harness.measure(running, layer.text, args.rounds, args.min_time)
                    at_these_threads.append(report.Result(layer, threads, measurements))
        print(file=sys.stderr)
        if at_these_threads:
            show(at_these_threads, list(running), args.unit)
        results += at_these_threads
    if args.json:
        machine = {"processor": processor(), "system": platform.platform(), "python": platform.python_version()}
        document = {"machine": machine, "versions": versions, "results": report.as_json(results)}
        args.json.write_text(json.dumps(document, indent=1))


def show(results: list[report.Result], names: list[str], unit: str) -> None:
    """Both tables, and why cells are marked as failed."""
    threads = f"{results[0].threads} thread{'s' * (results[0].threads > 1)}"
    columns = "us" if unit == "us" else "GFLOP/s"
    report.show(f"{threads}; runtimes in {columns}", *report.layer_table(results, names, unit))
    if any(map(peers.is_ours, names)):
        report.show(f"{threads}; best peer's time over ours", *report.mean_table(results, names))
    if report.unrest(results) > UNREST_WORTH_SAYING:
        print(f"the FMA peak fell by up to {report.unrest(results):.0%}: the machine had other work, or slowed down")
    for result in results:
        for name, measurement in result.measurements.items():
            if (measurement.refusal or "").startswith("failed"):
                print(f"{name} on {result.layer.text}: {measurement.refusal}")


def processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


if __name__ == "__main__":
    main()
