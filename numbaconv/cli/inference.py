"""`run`: one model, inputs from files, outputs as a table, as classes and as files."""

from __future__ import annotations

import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from numbaconv import options
from numbaconv.cli.output import console, print_json, print_wide, progress, table
from numbaconv.cli.pictures import Preparation, load_picture
from numbaconv.errors import ConvError, ModelError
from numbaconv.graph import InferenceSession, SessionOptions
from numbaconv.graph.report import COLUMNS, TEXT_COLUMNS, ProgramReport

_TOP = 5


@dataclass(frozen=True)
class Wanted:
    """What is shown besides outputs and time.

    `top` classes of a classifier, with the names in the file `labels`; a profile of the steps as a table, a page or a chart.
    """

    top: int | None = None
    labels: Path | None = None
    profile: bool = False
    profile_html: Path | None = None
    profile_png: Path | None = None

    @property
    def classes(self) -> int:
        """How many classes to show; 0 where none are asked for."""
        return self.top or (_TOP if self.labels else 0)

    @property
    def any_profile(self) -> bool:
        """Whether steps are to be timed."""
        return self.profile or bool(self.profile_html or self.profile_png)


def run(
    model: Path,
    inputs: list[str],
    image: Path | None,
    preparation: Preparation,
    output_dir: Path | None,
    threads: int | None,
    repeat: int,
    wanted: Wanted,
    as_json: bool,
) -> None:
    """Run `model` on the files in `inputs` ("name=file"), or on the picture `image`, and print what came out."""
    labels = wanted.labels and _read_labels(wanted.labels)
    with options.num_threads(options.get_num_threads() if threads is None else threads):
        with progress(f"loading {model.name}"):
            session = InferenceSession(model, SessionOptions())
            feed = read_feed(session, [*inputs, *_as_input(session, image)], preparation)
        with progress(f"running {model.name}"):
            outputs = session.run(None, feed)  # compiles, so it is not timed
            seconds = [_timed(session, feed) for _ in range(repeat)]
            layers = session.layers_by_algorithm()
            report = session.explain(feed) if wanted.any_profile else None
    named = {value.name: output for value, output in zip(session.get_outputs(), outputs)}
    classes = best_classes(named, wanted.classes, labels) if wanted.classes else []
    _write(named, output_dir, report, wanted)
    described = [{"name": name, **_describe(output)} for name, output in named.items()]
    if as_json:
        document = {"model": str(model), "seconds": median(seconds), "outputs": described, "layers": layers}
        document |= {"top": classes} if wanted.classes else {}
        print_json(document | ({"profile": [asdict(row) for row in report.rows]} if report else {}))
        return
    rows = table(f"{model.name}: {median(seconds) * 1e3:.2f} ms, median of {repeat}", "output", *list(described[0])[1:])
    for output in described:
        rows.add_row(*(f"{value:.6g}" if isinstance(value, float) else str(value) for value in output.values()))
    console.print(rows)
    if classes:
        _print_classes(classes)
    if wanted.profile:
        _print_profile(report)
    console.print("layers:", ", ".join(f"{count} {name}" for name, count in layers.items()) or "no convolution")


def best_classes(outputs: dict[str, np.ndarray], count: int, labels: list[str] | None) -> list[dict[str, object]]:
    """Index, score and label of the highest scores of the first output that has one for each class.

    Raises
    ------
    ConvError
        There is no output of shape (1, n) or (1, n, 1, 1), or not as many labels as scores.
    """
    tables = [
        a for a in map(np.asarray, outputs.values()) if a.ndim > 1 and a.shape[0] == 1 and a.size == a.shape[1] > 1
    ]
    if not tables:
        shapes = {name: list(np.shape(array)) for name, array in outputs.items()}
        raise ConvError(f"no output has the shape (1, n) of class scores; the outputs are {shapes}")
    scores = tables[0].ravel()
    if labels is not None and len(labels) != scores.size:
        raise ConvError(f"--labels has {len(labels)} lines, but there are {scores.size} classes")
    order = np.argsort(-scores, kind="stable")[:count]
    return [{"index": int(i), "score": float(scores[i]), "label": labels[i] if labels else None} for i in order]


def read_feed(
    session: InferenceSession, inputs: list[str], preparation: Preparation | None = None
) -> dict[str, np.ndarray]:
    """Arrays for the inputs of a session from "name=file" arguments."""
    known = {value.name: value for value in session.get_inputs()}
    feed = {}
    for given in inputs:
        name, equals, file = given.partition("=")
        if not equals or not file:
            raise ConvError(f"--input {given!r} is not of the form name=file; the model's inputs are {list(known)}")
        if name not in known:
            raise ModelError(f"the model has no input {name!r}; its inputs are {list(known)}")
        path = Path(file)
        is_array = path.suffix == ".npy"
        feed[name] = _load_array(path) if is_array else load_picture(path, known[name].shape, preparation)
    return feed


def _as_input(session: InferenceSession, image: Path | None) -> list[str]:
    if image is None:
        return []
    names = [value.name for value in session.get_inputs()]
    if len(names) != 1:
        raise ConvError(f"--image is for models with one input; give --input name=file for each of {names}")
    return [f"{names[0]}={image}"]


def _read_labels(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").rstrip().splitlines()
    except UnicodeDecodeError as error:
        raise ConvError(f"{path} is no text in UTF-8: {error}") from error


def _write(named: dict[str, np.ndarray], folder: Path | None, report: ProgramReport | None, wanted: Wanted) -> None:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, output in named.items():
            # Names such as "/layer/Conv_output_0" must not lead out of the folder.
            np.save(folder / (re.sub(r"[^\w.-]", "_", name) + ".npy"), output)
    if wanted.profile_html:
        report.to_html(wanted.profile_html)
    if wanted.profile_png:
        report.to_png(wanted.profile_png)


def _print_classes(classes: list[dict[str, object]]) -> None:
    labelled = classes[0]["label"] is not None
    rows = table("classes", "index", "score", *(["label"] if labelled else []))
    for entry in classes:
        rows.add_row(str(entry["index"]), f"{entry['score']:.6g}", *([entry["label"]] if labelled else []))
    console.print(rows, markup=False)


def _print_profile(report: ProgramReport) -> None:
    rows = table(report.headline, *COLUMNS)
    for column in rows.columns:
        column.justify = "left" if column.header in TEXT_COLUMNS else "right"
    for row in report.rows:
        rows.add_row(*row.cells())
    print_wide(rows)


def _load_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConvError(f"{path} is damaged or is no .npy file: {error}") from error


def _timed(session: InferenceSession, feed: dict[str, np.ndarray]) -> float:
    start = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - start


def _describe(output) -> dict[str, object]:
    array = np.asarray(output)
    facts = {"shape": str(list(array.shape)), "dtype": str(array.dtype)}
    if array.size and np.issubdtype(array.dtype, np.number):
        facts |= {name: float(getattr(array, name)()) for name in ("min", "max", "mean")}
    return facts
