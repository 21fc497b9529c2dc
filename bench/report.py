"""Tables from measurements: one line a layer, then geometric means and the worst layer by kind, beside what is wanted."""

import statistics
import sys
from dataclasses import dataclass

from bench import peers
from bench.harness import Measurement
from bench.suites import CHANNELS_FIRST, KINDS, Kind, Layer

try:
    import rich
    import rich.table
except ImportError:
    rich = None


@dataclass(frozen=True)
class Result:
    """Every runtime's measurement of one layer at one number of threads."""

    layer: Layer
    threads: int
    measurements: dict[str, Measurement]

    def fastest(self, ours: bool, layout: str | None = None) -> tuple[str, Measurement] | None:
        """The fastest of ours or of the peers, of those that take operands in `layout` where one is given."""
        timed = [
            (name, measurement)
            for name, measurement in self.measurements.items()
            if measurement.rounds
            and name != peers.PEAK
            and peers.is_ours(name) == ours
            and layout in (None, peers.lookup(name)[0].layout)
        ]
        return min(timed, key=lambda pair: pair[1].seconds, default=None)

    def speedup(self, layout: str | None = None) -> float | None:
        """The best peer's time over our best time; above 1 we are faster."""
        ours, peer = self.fastest(True, layout), self.fastest(False, layout)
        return peer[1].seconds / ours[1].seconds if ours and peer else None

    def speedup_over(self, name: str) -> float | None:
        """One peer's time over our best time."""
        ours, peer = self.fastest(True), self.measurements.get(name)
        return peer.seconds / ours[1].seconds if ours and peer and peer.rounds else None

    @property
    def peak(self) -> float | None:
        """The FMA peak of the same rounds, GFLOP/s."""
        measurement = self.measurements.get(peers.PEAK)
        return measurement.gflops if measurement else None


def layer_table(results: list[Result], names: list[str], unit: str) -> tuple[list[str], list[list[str]]]:
    """(header, rows): ours, its rate and share of the FMA peak, every runtime in `unit`, and the ratios to the best peer."""
    shown = [name for name in names if name != peers.PEAK]
    header = ["layer", "kind", "ours", "GFLOP/s", "% peak", *shown, "FMA peak", "best peer", "ratio", "ratio cf"]
    rows = []
    for result in results:
        ours, peer = result.fastest(True), result.fastest(False)
        rows.append(
            [
                f"{result.layer.name}  {result.layer.text}",
                result.layer.kind,
                ours[0].removeprefix("numbaconv_") if ours else "-",
                _number(ours and ours[1].gflops),
                _number(ours and result.peak and 100 * ours[1].gflops / result.peak),
                *(_cell(result.measurements.get(name), unit) for name in shown),
                _number(result.peak),
                peer[0] if peer else "-",
                _ratio(result.speedup()),
                _ratio(result.speedup("channels_first")),
            ]
        )
    return header, rows


def mean_table(results: list[Result], names: list[str]) -> tuple[list[str], list[list[str]]]:
    """(header, rows): peer time over our time, in geometric mean and on the worst layer, a row a kind, then all layers.

    "wanted" is the figure that the column before it should reach.  The last columns are means over single peers.
    """
    others = [name for name in names if name != peers.PEAK and not peers.is_ours(name)]
    header = ["kind", "layers", "mean", "wanted", "worst", "wanted", "worst layer", *others]
    rows = []
    for kind in KINDS:
        group = [result for result in results if result.layer.kind == kind.name]
        if group:
            rows.append([*_summary(kind.title, group, kind=kind), *_over_each(others, group)])
    rows.append([*_summary("all of them, our better layout", results), *_over_each(others, results)])
    rows.append([*_summary(CHANNELS_FIRST.title, results, "channels_first", CHANNELS_FIRST), *["-"] * len(others)])
    return header, rows


def _summary(title: str, group: list[Result], layout: str | None = None, kind: Kind | None = None) -> list[str]:
    """One row of `mean_table`: speedups over the best peer among operands in `layout`, and what is wanted of this kind."""
    timed = [(speedup, result.layer.text) for result in group if (speedup := result.speedup(layout)) is not None]
    worst, text = min(timed, default=(None, "-"))
    mean = geometric_mean([speedup for speedup, _ in timed])
    wanted_mean, wanted_worst = (kind.mean, kind.worst) if kind else (None, None)
    return [title, str(len(timed)), _ratio(mean), _ratio(wanted_mean), _ratio(worst), _ratio(wanted_worst), text]


def _over_each(others: list[str], group: list[Result]) -> list[str]:
    return [_ratio(geometric_mean([result.speedup_over(name) for result in group])) for name in others]


def unrest(results: list[Result]) -> float:
    """How far the FMA peak fell from its best within the run, as a share: other work on the machine, or throttling."""
    peaks = [result.peak for result in results if result.peak]
    return 1 - min(peaks) / max(peaks) if peaks else 0.0


def geometric_mean(values: list[float | None]) -> float | None:
    """Over the values that are there."""
    present = [value for value in values if value is not None]
    return statistics.geometric_mean(present) if present else None


def show(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table: with rich on a terminal, where it is installed, else as text that survives a pipe."""
    print(f"\n{title}")
    if rich and sys.stdout.isatty():
        table = rich.table.Table(header_style="bold")
        for i, name in enumerate(header):
            table.add_column(name, justify="right" if i else "left")
        for row in rows:
            table.add_row(*row)
        rich.print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    for row in [header, ["-" * width for width in widths], *rows]:
        cells = (cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths)))
        print("  ".join(cells).rstrip())


def as_json(results: list[Result]) -> list[dict]:
    """Everything that was measured, medians of every round included."""
    return [
        {
            "suite": result.layer.suite,
            "name": result.layer.name,
            "problem": result.layer.text,
            "kind": result.layer.kind,
            "threads": result.threads,
            "flops": result.layer.flops,
            "peak_gflops": result.peak,
            "speedup": result.speedup(),
            "speedup_channels_first": result.speedup("channels_first"),
            "runtimes": {
                name: {
                    "seconds": measurement.seconds,
                    "gflops": measurement.gflops,
                    "rounds": measurement.rounds,
                    "error": measurement.error,
                    "refusal": measurement.refusal,
                }
                for name, measurement in result.measurements.items()
            },
        }
        for result in results
    ]


def _cell(measurement: Measurement | None, unit: str) -> str:
    if measurement is None or not measurement.rounds:
        failed = measurement is not None and (measurement.refusal or "").startswith("failed")
        return "failed" if failed else "-"
    return _number(measurement.gflops if unit == "gflops" else measurement.seconds * 1e6)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
