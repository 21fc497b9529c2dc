"""The commands and their options; what they do is in one module each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from numbaconv.cli import benchmark, describe, inference
from numbaconv.cli import demo as demonstration
from numbaconv.cli.output import reports_errors
from numbaconv.cli.pictures import Preparation

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
            help="name=file, once an input. A .npy file is fed as it is; a picture becomes RGB (or gray), "
            "resized where the model fixes height and width.",
        ),
    ] = None,
    image: Annotated[Path | None, typer.Option(help="A picture for the only input.")] = None,
    mean: Annotated[
        str, typer.Option(help="Subtracted from pixels of 0 to 255; one number, or one a channel: 1,2,3.")
    ] = "0",
    std: Annotated[str, typer.Option(help="Divides what is left, likewise.")] = "255",
    crop: Annotated[
        float | None,
        typer.Option(help="The share of the picture's centre to keep, in the input's proportions, such as 0.875."),
    ] = None,
    top: Annotated[int | None, typer.Option(min=1, help="Show so many classes with the highest scores.")] = None,
    labels: Annotated[Path | None, typer.Option(help="A text file with the name of a class in each line.")] = None,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show every step with its algorithm and its time.")
    ] = False,
    profile_html: Annotated[Path | None, typer.Option(help="Write that as a page.")] = None,
    profile_png: Annotated[Path | None, typer.Option(help="Write that as a chart; needs matplotlib.")] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Write each output as a .npy file into this folder.")] = None,
    threads: Threads = None,
    repeat: Annotated[int, typer.Option(min=1, help="Timed runs.")] = 1,
    json: Json = False,
) -> None:
    """Run an ONNX model and show its outputs, its time and the algorithms that ran."""
    wanted = inference.Wanted(top, labels, profile, profile_html, profile_png)
    preparation = Preparation.parse(mean, std, crop)
    inference.run(model, inputs or [], image, preparation, output_dir, threads, repeat, wanted, json)


@app.command()
@reports_errors
def bench(
    model: Annotated[Path, typer.Option(help="An ONNX file.")],
    peers: Annotated[
        str, typer.Option(help="all, none, or some of onnxruntime,openvino,ncnn; those not installed are left out.")
    ] = "all",
    threads: Annotated[
        list[int] | None,
        typer.Option(help="A number of threads, as often as wanted; by default 1 and all usable cores."),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(help="name=1x3x224x224 for an input; free dimensions are 1 where it is left out."),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Interleaved rounds, of which the median counts.")] = 7,
    min_time: Annotated[float, typer.Option(min=0, help="Seconds that each runtime gets in a round.")] = 0.2,
    float64: Annotated[
        bool, typer.Option("--float64", help="Compare with an evaluation in double precision too.")
    ] = False,
    json: Json = False,
) -> None:
    """Compare a network's time, memory and results with those of other runtimes, each in a process of its own."""
    benchmark.bench(model, peers, threads or [], shape or [], rounds, min_time, float64, json)


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
