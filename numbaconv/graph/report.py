"""What a network does, step by step: shapes, algorithms, estimated and measured times, as a table, a page or a chart."""

from __future__ import annotations

import html
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numbaconv.errors import ConvError
from numbaconv.graph.instructions import Instruction

#: Heads of what `StepRow.cells` gives.
COLUMNS = ("op", "output", "algorithm", "estimate", "measured", "GFLOP/s", "share", "node")
#: Those that are no numbers.
TEXT_COLUMNS = ("op", "output", "algorithm", "node")


@dataclass(frozen=True)
class StepRow:
    """One step: what it computes, by which algorithm, and seconds on the threads that it ran on.

    `estimate` is the cost model's, for one thread; convolutions alone have one.
    """

    op: str
    node: str
    shape: tuple[int, ...]
    problem: str | None
    algorithm: str
    estimate: float | None
    seconds: float | None
    flops: float
    share: float | None

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of the columns."""
        rate = f"{self.flops / self.seconds / 1e9:.1f}" if self.seconds and self.flops else ""
        return (
            self.op,
            self.problem or "x".join(map(str, self.shape)),
            self.algorithm,
            "" if self.estimate is None else f"{self.estimate * 1e6:.1f} us",
            "" if self.seconds is None else f"{self.seconds * 1e6:.1f} us",
            rate,
            "" if self.share is None else f"{self.share:.1%}",
            self.node,
        )


@dataclass(frozen=True)
class ProgramReport:
    """The program of one set of input shapes; prints as a table."""

    title: str
    rows: tuple[StepRow, ...]

    @classmethod
    def of(cls, title: str, instructions: Sequence[Instruction], seconds: Sequence[float] | None) -> ProgramReport:
        """Of instructions and their times."""
        total = sum(seconds) if seconds else None
        rows = []
        for number, i in enumerate(instructions):
            own = seconds[number] if seconds else None
            shape = i.outputs[0].shape if i.outputs else ()
            share = own / total if total else None
            rows.append(StepRow(i.op, i.label, shape, i.problem, i.algorithm, i.seconds, own, i.flops, share))
        return cls(title, tuple(rows))

    @property
    def seconds(self) -> float | None:
        """The sum of all steps."""
        return None if any(row.seconds is None for row in self.rows) else sum(row.seconds for row in self.rows)

    def __str__(self) -> str:
        lines = [COLUMNS, *(row.cells() for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
        left = {i for i, name in enumerate(COLUMNS) if name in TEXT_COLUMNS}
        text = [
            "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths))).rstrip()
            for line in lines
        ]
        return "\n".join([self.headline, *text])

    @property
    def headline(self) -> str:
        """The title, the number of steps and their time."""
        total = self.seconds
        return f"{self.title}: {len(self.rows)} steps" + ("" if total is None else f", {total * 1e3:.3f} ms")

    def to_html(self, path: str | os.PathLike) -> None:
        """Write the table as a page of its own, with a bar for each step's share of the time."""
        most = max((row.share or 0.0 for row in self.rows), default=0.0) or 1.0
        head = "".join(f"<th>{html.escape(name)}</th>" for name in (*COLUMNS, ""))
        body = []
        for row in self.rows:
            # fused convolutions one below the other, so that the bars stay on the page
            cells = "".join(f"<td>{html.escape(cell).replace(' &gt; ', ' &gt;<br>')}</td>" for cell in row.cells())
            bar = f'<td><div style="width:{160 * (row.share or 0.0) / most:.1f}px"></div></td>'
            body.append(f"<tr>{cells}{bar}</tr>")
        Path(path).write_text(
            "<!doctype html><html><head><meta charset='utf-8'>"
            f"<title>{html.escape(self.title)}</title><style>"
            "body{font:13px sans-serif;margin:24px;color:#222}table{border-collapse:collapse}"
            "th{text-align:left;border-bottom:1px solid #999;padding:3px 10px;position:sticky;top:0;background:#fff}"
            "td{padding:2px 10px;white-space:nowrap;font-variant-numeric:tabular-nums}tr:nth-child(even){background:#f4f6f8}"
            ":is(th,td):nth-child(n+4):nth-child(-n+7){text-align:right}td div{height:10px;background:#3a6ea5}</style></head>"
            f"<body><h1>{html.escape(self.headline)}</h1><table><tr>{head}</tr>{''.join(body)}</table></body></html>",
            encoding="utf-8",
        )

    def to_png(self, path: str | os.PathLike) -> None:
        """Write a chart of the measured and estimated time of each step; needs matplotlib.

        Raises
        ------
        ConvError
            matplotlib is missing.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ConvError("charts are drawn with matplotlib: pip install matplotlib") from error
        steps = list(enumerate(self.rows))
        figure = Figure(figsize=(11, 1.4 + 0.17 * len(steps)), layout="constrained")
        axes = figure.subplots()
        for number, algorithm in enumerate(dict.fromkeys(row.algorithm for row in self.rows)):
            own = [(place, (row.seconds or 0.0) * 1e6) for place, row in steps if row.algorithm == algorithm]
            axes.barh(*zip(*own), color=f"C{number}", label=algorithm)
        estimated = [(row.estimate * 1e6, place) for place, row in steps if row.estimate is not None]
        if estimated:
            axes.plot(*zip(*estimated), "k|", markersize=9, label="estimate, one thread")
        axes.set_yticks(
            range(len(steps)), [f"{row.op}  {'x'.join(map(str, row.shape))}" for row in self.rows], fontsize=6
        )
        axes.invert_yaxis()  # the first step is on top
        axes.set_xlabel("microseconds")
        axes.set_title(self.headline)
        axes.margins(y=0.01)
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=8)
        figure.savefig(path, dpi=110)
