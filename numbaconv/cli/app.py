"""The commands and their options; what they do is in one module each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from numbaconv.cli import demo as demonstration
from numbaconv.cli import describe, inference
from numbaconv.cli.output import reports_errors

app = typer.Typer(
    help="Convolutions on the CPU, compiled by Numba.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Threads = Annotated[int | None, typer.Option(help="Threads to use; all usable cores where it is left out.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


@app.command()
@reports_errors
def demo(
    image: Annotated[Path | None, typer.Option(help="A picture with text; a scanned page by default.")] = None,
    threads: Threads = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed runs of each model.")] = 5,
    json: Json = False,
) -> None:
    """Read the text in a picture with PP-OCRv4, and compare time and results with ONNX Runtime."""
    demonstration.demo(image, threads, repeat, json)


@app.command()
@reports_errors
def run(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            help="name=file, once an input. A .npy file is fed as it is; a picture becomes RGB (or gray) "
            "between 0 and 1, resized where the model fixes height and width.",
        ),
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Write each output as a .npy file into this folder.")] = None,
    threads: Threads = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 1,
    json: Json = False,
) -> None:
    """Run an ONNX model and show its outputs, its time and the algorithms that ran."""
    inference.run(model, inputs or [], output_dir, threads, repeat, json)


@app.command()
@reports_errors
def explain(
    problem: Annotated[str, typer.Argument(help='A convolution, such as "n1c64h56w56o64k3p1".')],
    json: Json = False,
) -> None:
    """Show for every algorithm why it refuses a convolution, or what it is estimated to cost."""
    describe.explain(problem, json)


@app.command()
@reports_errors
def info(json: Json = False) -> None:
    """Show versions, the machine as numbaconv sees it, threads and the folder of compiled kernels."""
    describe.info(json)
