"""`demo`: PP-OCRv4 reads a page through RapidOCR's own pipeline, once on ONNX Runtime and once on our session.

RapidOCR keeps one session for each of its three models.  Ours is put in its place in a second pipeline, and nothing
else is touched; what the pipelines feed is recorded, so that both runtimes are then compared on the very same inputs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from numbaconv import options
from numbaconv.cli.output import console, print_json, progress, table
from numbaconv.errors import ConvError
from numbaconv.graph import InferenceSession, SessionOptions

#: For each model: its section in RapidOCR's configuration, the part of the pipeline and the attribute with the session.
_MODELS = {
    "detection": ("Det", "text_det", "infer"),
    "orientation": ("Cls", "text_cls", "infer"),
    "recognition": ("Rec", "text_rec", "session"),
}

# Idle threads of either runtime spin for a moment after a run; the pause keeps them out of the other's time.
_PAUSE = 0.05


@dataclass(frozen=True)
class Comparison:
    """One model on the inputs that the pipeline fed: times in seconds, medians over several rounds."""

    model: str
    inputs: int
    numbaconv: float
    onnxruntime: float
    max_difference: float
    layers: dict[str, int]


class Recorder:
    """A session that remembers what it was fed."""

    def __init__(self, session):
        self.session = session
        self.feeds: list[dict[str, np.ndarray]] = []

    def run(self, output_names, feed, run_options=None):
        self.feeds.append(feed)
        return self.session.run(output_names, feed, run_options)

    def __getattr__(self, name: str):
        return getattr(self.session, name)


def demo(image: Path | None, threads: int | None, repeat: int, as_json: bool) -> None:
    """Read `image`, compare with ONNX Runtime, and print both."""
    with options.num_threads(options.get_num_threads() if threads is None else threads):
        threads = options.get_num_threads()
        make_pipeline, model_paths = _rapidocr(threads)
        picture = _page() if image is None else _read_picture(image)
        with progress("reading with ONNX Runtime"):
            theirs = make_pipeline()
            recorded = _put(theirs, {name: Recorder(_session(theirs, name)) for name in _MODELS})
            expected = _texts(theirs, picture)
        with progress("reading with numbaconv"):
            ours = make_pipeline()
            settings = SessionOptions(intra_op_num_threads=threads)
            own = _put(ours, {name: InferenceSession(path, settings) for name, path in model_paths.items()})
            texts = _texts(ours, picture)
        with progress("comparing"):
            comparisons = [
                _compare(name, own[name], recorded[name].session, recorded[name].feeds, repeat) for name in _MODELS
            ]
    if as_json:
        print_json(
            {
                "image": "page" if image is None else str(image),
                "threads": threads,
                "text": texts,
                "identical": texts == expected,
                "models": [asdict(comparison) for comparison in comparisons],
            }
        )
        return
    _print(texts, expected, comparisons, threads, repeat)


def _rapidocr(threads: int) -> tuple[Callable, dict[str, str]]:
    """A function that makes a pipeline, and the paths of its models."""
    try:
        import rapidocr_onnxruntime.main as rapidocr
        from rapidocr_onnxruntime.utils import read_yaml, update_model_path
    except ImportError as error:
        if sys.version_info >= (3, 13):
            raise ConvError(
                "the demo needs rapidocr-onnxruntime, which has no wheel for Python 3.13 and later; "
                "run it with Python 3.12 and: pip install 'numbaconv[demo]'"
            ) from error
        raise ConvError(f"the demo needs its models ({error}): pip install 'numbaconv[demo]'") from error
    config = update_model_path(read_yaml(rapidocr.DEFAULT_CFG_PATH))
    paths = {name: config[section]["model_path"] for name, (section, _, _) in _MODELS.items()}
    return lambda: rapidocr.RapidOCR(intra_op_num_threads=threads), paths


def _session(pipeline, name: str):
    _, part, attribute = _MODELS[name]
    return getattr(getattr(pipeline, part), attribute).session


def _put(pipeline, sessions: dict) -> dict:
    for name, session in sessions.items():
        _, part, attribute = _MODELS[name]
        getattr(getattr(pipeline, part), attribute).session = session
    return sessions


def _page() -> np.ndarray:
    try:
        from skimage import data
    except ImportError as error:
        raise ConvError("the demo's page comes with scikit-image: pip install 'numbaconv[demo]'") from error
    return np.repeat(data.page()[..., np.newaxis], 3, axis=2)


def _read_picture(path: Path) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        picture = Image.open(path).convert("RGB")
    except UnidentifiedImageError as error:
        raise ConvError(f"{path} is no picture that Pillow can read") from error
    return np.ascontiguousarray(np.asarray(picture)[..., ::-1])  # RapidOCR takes arrays as BGR


def _texts(pipeline, picture: np.ndarray) -> list[str]:
    lines, _ = pipeline(picture)
    return [text for _, text, _ in lines or []]


def _compare(name: str, ours: InferenceSession, theirs, feeds: list[dict], repeat: int) -> Comparison:
    """Both runtimes on the same inputs: the largest difference, then times in turn."""
    difference = 0.0
    for feed in feeds:
        for own, other in zip(ours.run(None, feed), theirs.run(None, feed)):
            difference = max(difference, float(np.abs(own - other).max(initial=0)))
    times = {session: [] for session in (ours, theirs)}
    for _ in range(repeat if feeds else 0):
        for session, seconds in times.items():
            time.sleep(_PAUSE)
            start = time.perf_counter()
            for feed in feeds:
                session.run(None, feed)
            seconds.append(time.perf_counter() - start)
    own, other = (median(seconds) if seconds else 0.0 for seconds in times.values())
    return Comparison(name, len(feeds), own, other, difference, ours.layers_by_algorithm())


def _print(texts: list[str], expected: list[str], comparisons: list[Comparison], threads: int, repeat: int) -> None:
    for text in texts or ["(no text found)"]:
        console.print(text, markup=False, highlight=False)
    title = f"Milliseconds on {threads} thread{'s' if threads > 1 else ''}, median of {repeat}"
    times = table(title, "model", "inputs", "numbaconv", "onnxruntime", "ratio", "largest difference")
    algorithms = list(dict.fromkeys(algorithm for c in comparisons for algorithm in c.layers))
    layers = table("Layers by algorithm", "model", *algorithms)
    for c in comparisons:
        ratio = f"{c.numbaconv / c.onnxruntime:.2f}" if c.onnxruntime else "-"
        own, other = f"{c.numbaconv * 1e3:.1f}", f"{c.onnxruntime * 1e3:.1f}"
        times.add_row(c.model, str(c.inputs), own, other, ratio, f"{c.max_difference:.1e}")
        layers.add_row(c.model, *(str(c.layers.get(algorithm, "-")) for algorithm in algorithms))
    console.print()
    console.print(times)
    console.print(layers)
    if texts == expected:
        console.print("The text is identical to what ONNX Runtime reads.")
    else:
        console.print("ONNX Runtime reads different text:", *expected, sep="\n", markup=False, highlight=False)
