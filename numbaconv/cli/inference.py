"""`run`: one model, inputs from files, outputs as a table and as files."""

from __future__ import annotations

import re
import time
from pathlib import Path
from statistics import median

import numpy as np

from numbaconv import options
from numbaconv.cli.output import console, print_json, progress, table
from numbaconv.errors import ConvError, ModelError
from numbaconv.graph import InferenceSession, SessionOptions


def run(
    model: Path, inputs: list[str], output_dir: Path | None, threads: int | None, repeat: int, as_json: bool
) -> None:
    """Run `model` on the files in `inputs` ("name=file") and print what came out."""
    with options.num_threads(options.get_num_threads() if threads is None else threads):
        with progress(f"loading {model.name}"):
            session = InferenceSession(model, SessionOptions())
            feed = read_feed(session, inputs)
        with progress(f"running {model.name}"):
            outputs = session.run(None, feed)  # compiles, so it is not timed
            seconds = [_timed(session, feed) for _ in range(repeat)]
    named = {value.name: output for value, output in zip(session.get_outputs(), outputs)}
    if output_dir is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
        for name, output in named.items():
            # Names such as "/layer/Conv_output_0" must not lead out of the folder.
            np.save(output_dir / (re.sub(r"[^\w.-]", "_", name) + ".npy"), output)
    described = [{"name": name, **_describe(output)} for name, output in named.items()]
    layers = session.layers_by_algorithm()
    if as_json:
        print_json({"model": str(model), "seconds": median(seconds), "outputs": described, "layers": layers})
        return
    rows = table(f"{model.name}: {median(seconds) * 1e3:.2f} ms, median of {repeat}", "output", *list(described[0])[1:])
    for output in described:
        rows.add_row(*(f"{value:.6g}" if isinstance(value, float) else str(value) for value in output.values()))
    console.print(rows)
    console.print("layers:", ", ".join(f"{count} {name}" for name, count in layers.items()) or "no convolution")


def read_feed(session: InferenceSession, inputs: list[str]) -> dict[str, np.ndarray]:
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
        feed[name] = _load_array(path) if path.suffix == ".npy" else load_picture(path, known[name].shape)
    return feed


def _load_array(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ConvError(f"{path} is damaged or is no .npy file: {error}") from error


def load_picture(path: Path, shape: list[int | str | None]) -> np.ndarray:
    """A picture as an input of shape (1, channels, height, width), f32 between 0 and 1.

    Raises
    ------
    ConvError
        Pillow is missing or cannot read the file, or the input is not a batch of gray or RGB images.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ConvError("pictures are read with Pillow: pip install 'numbaconv[cli]'") from error
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ConvError(f"{path}: an input of shape {shape} takes no picture; it must be (n, 1 or 3, height, width)")
    try:
        picture = Image.open(path).convert("L" if shape[1] == 1 else "RGB")
    except UnidentifiedImageError as error:
        raise ConvError(f"{path} is no picture that Pillow can read") from error
    height, width = (fixed if isinstance(fixed, int) else own for fixed, own in zip(shape[2:], picture.size[::-1]))
    pixels = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR), np.float32) / 255
    channels_last = pixels.reshape(height, width, shape[1])
    return np.ascontiguousarray(channels_last.transpose(2, 0, 1))[np.newaxis]


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
