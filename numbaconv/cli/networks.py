"""One network in every runtime and at every number of threads, in one run: times, memory, and how far results differ."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from numbaconv.cli import runtimes
from numbaconv.cli.workers import Timing, Worker, WorkerError, take_turns, workers
from numbaconv.errors import ConvError
from numbaconv.graph.feeds import random_feed

#: A runtime whose outputs differ by more, relative to the largest magnitude, has computed something else.
WRONG = 1e-2
_SERVING = Path(__file__).with_name("serving.py")

Key = tuple[str, int]


@dataclass
class Measurement(Timing):
    """One runtime at one number of threads.

    `load_seconds` include the first result; differences are relative to the largest magnitude of the output they are held
    against, and `top1` is the share of rows with the same largest score.
    """

    load_seconds: float | None = None
    peak_bytes: int | None = None
    difference: float | None = None
    top1: float | None = None
    difference_float64: float | None = None


@dataclass
class NetworkResult:
    """All measurements of one network, by runtime and number of threads."""

    model: str
    shapes: dict[str, list[int]]
    threads: list[int]
    measurements: dict[Key, Measurement]
    versions: dict[str, str]
    absent: dict[str, str]
    bare_bytes: int | None = None
    refused_float64: str | None = None

    def fastest_peer(self, threads: int) -> str | None:
        """The fastest runtime besides ours that gave the right result."""
        timed = {
            name: m.seconds
            for (name, at), m in self.measurements.items()
            if at == threads and name != runtimes.OURS and m.seconds is not None and not is_wrong(m)
        }
        return min(timed, key=timed.get, default=None)

    def ratio(self, name: str | None, threads: int) -> float | None:
        """A runtime's time over ours; above 1 we are faster."""
        ours, other = self.measurements.get((runtimes.OURS, threads)), self.measurements.get((name, threads))
        return other.seconds / ours.seconds if ours and other and ours.seconds and other.seconds else None

    def worst(self, name: str) -> Measurement:
        """What a runtime needs at most and how exact it is at least, over all numbers of threads."""
        measured = [m for (runtime, _), m in self.measurements.items() if runtime == name]

        def most(field: str, choose: Callable = max) -> float | None:
            return choose((value for m in measured if (value := getattr(m, field)) is not None), default=None)

        return Measurement(
            load_seconds=most("load_seconds"),
            peak_bytes=most("peak_bytes"),
            difference=most("difference"),
            top1=most("top1", min),
            difference_float64=most("difference_float64"),
        )

    def as_json(self) -> dict:
        """Everything that was measured."""
        return {
            "model": self.model,
            "shapes": self.shapes,
            "versions": self.versions,
            "absent": self.absent,
            "bare_interpreter_bytes": self.bare_bytes,
            "float64_refused": self.refused_float64,
            "threads": {
                str(threads): {
                    "best_peer": self.fastest_peer(threads),
                    "best_peer_over_ours": self.ratio(self.fastest_peer(threads), threads),
                    "runtimes": {
                        name: {"seconds": m.seconds, "over_ours": self.ratio(name, threads), **vars(m)}
                        for (name, at), m in self.measurements.items()
                        if at == threads
                    },
                }
                for threads in self.threads
            },
        }


def is_wrong(measurement: Measurement) -> bool:
    """Whether the result is another than the judge's, so that its time means nothing."""
    return measurement.difference is not None and not measurement.difference <= WRONG


def chosen_peers(text: str) -> list[str]:
    """The peers that "all", "none" or a list with commas names.

    Raises
    ------
    ConvError
        There is no peer of that name.
    """
    if text in ("all", "none"):
        return list(runtimes.PEERS) if text == "all" else []
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in runtimes.PEERS:
            raise ConvError(f"there is no peer {name!r}; known are {', '.join(runtimes.PEERS)}, all and none")
    return list(dict.fromkeys(names))


def measure(
    model: Path,
    peers: Sequence[str],
    threads: Sequence[int],
    shapes: Mapping[str, Sequence[int]] | None = None,
    rounds: int = 7,
    min_time: float = 0.2,
    float64: bool = False,
    say: Callable[[str], object] = lambda text: None,
) -> NetworkResult:
    """Load one network everywhere, time it in interleaved rounds, and compare the results of the last runs.

    Parameters
    ----------
    model : path
        An ONNX file.
    peers : sequence of str
        Names from `runtimes.PEERS`.
    threads : sequence of int
        Each runtime runs once for each of these.
    shapes : mapping of str to sequence of int, optional
        See `random_feed`.
    rounds, min_time : int, float
        Rounds, and seconds that a runtime gets in each.
    float64 : bool
        Evaluate the network in double precision too.
    say : callable
        Told what is being done.

    Raises
    ------
    FileNotFoundError, ConvError
        The model is not there or cannot be run, or a shape does not fit.
    """
    from numbaconv.graph import ir
    from numbaconv.graph.model import read_model

    threads = list(dict.fromkeys(threads))
    if min(threads, default=0) < 1:
        raise ConvError(f"threads={threads}: each must be 1 or more")
    feed = random_feed(ir.read_graph(read_model(model)).inputs, shapes)
    names = [runtimes.OURS, *peers]
    with TemporaryDirectory() as folder:
        np.savez(_feed(folder), *feed.values())
        task = _Task(str(Path(model).resolve()), list(feed), folder)
        say("compiling what is not in the cache")
        _warm(task, threads[0])
        starts = {(name, at): partial(_start, name, at) for at in threads for name in names}
        with workers(starts) as (running, absent):
            results = {}
            for (name, at), worker in running.items():
                say(f"loading {name}, {at} thread{'s' * (at > 1)}")
                results[name, at] = task.load(worker)
            take_turns(running, results, task.model, rounds, min_time, lambda i: say(f"round {i + 1} of {rounds}"))
            outputs = {key: task.finish(worker, results[key]) for key, worker in running.items()}
            versions = {name: worker.version for (name, _), worker in running.items()}
        result = NetworkResult(
            model=Path(model).name,
            shapes={name: list(array.shape) for name, array in feed.items()},
            threads=threads,
            measurements=results,
            versions=versions,
            absent={name: reason for (name, _), reason in absent.items()},
            bare_bytes=_bare_bytes(task),
        )
        _compare(result, outputs, "difference", next((outputs.get((runtimes.JUDGE, at)) for at in threads), None))
        if float64:
            say("evaluating in double precision")
            exact, result.refused_float64 = _evaluate_float64(task)
            _compare(result, outputs, "difference_float64", exact)
    return result


@dataclass(frozen=True)
class _Task:
    """What all workers are told to load."""

    model: str
    inputs: list[str]
    folder: str

    def load(self, worker: Worker) -> Measurement:
        try:
            answer = worker.request(load=self.model, names=self.inputs, feed=_feed(self.folder), folder=self.folder)
        except WorkerError as error:
            return Measurement(refusal=f"failed: {error}")
        return Measurement(refusal=answer.get("unsupported"), load_seconds=answer.get("load_seconds"))

    def finish(self, worker: Worker, measurement: Measurement) -> list[np.ndarray] | None:
        if measurement.refusal is not None:
            return None
        file = str(Path(self.folder, "outputs.npz"))
        try:
            measurement.peak_bytes = worker.request(finish=file)["peak_bytes"]
        except WorkerError as error:
            measurement.refusal = f"failed: {error}"
            return None
        with np.load(file) as arrays:
            return list(arrays.values())


def _feed(folder: str) -> str:
    return str(Path(folder, "feed.npz"))


def _start(name: str, threads: int) -> Worker:
    return Worker(name, [sys.executable, str(_SERVING), "--runtime", name, "--threads", str(threads)], threads)


def _warm(task: _Task, threads: int) -> None:
    """A process of ours that fills the cache of kernels, so that those that are measured find it warm."""
    with workers({runtimes.OURS: partial(_start, runtimes.OURS, threads)}) as (running, _):
        refusal = task.load(running[runtimes.OURS]).refusal
    if refusal is not None:
        raise ConvError(f"the network does not run: {refusal.removeprefix('failed: ')}")


def _bare_bytes(task: _Task) -> int:
    with workers({runtimes.BARE: partial(_start, runtimes.BARE, 1)}) as (running, _):
        measurement = Measurement()
        task.finish(running[runtimes.BARE], measurement)
        return measurement.peak_bytes


def _evaluate_float64(task: _Task) -> tuple[list[np.ndarray] | None, str | None]:
    """The outputs, or the reason why there are none."""
    with workers({runtimes.FLOAT64: partial(_start, runtimes.FLOAT64, 1)}) as (running, _):
        measurement = task.load(running[runtimes.FLOAT64])
        return task.finish(running[runtimes.FLOAT64], measurement), measurement.refusal


def _compare(result: NetworkResult, outputs: Mapping[Key, list | None], name: str, judge: list | None) -> None:
    for key, own in outputs.items():
        if own is not None and judge is not None:
            measurement = result.measurements[key]
            setattr(measurement, name, difference(own, judge))
            if name == "difference":
                measurement.top1 = top1_agreement(own, judge)


def difference(outputs: Sequence[np.ndarray], judge: Sequence[np.ndarray]) -> float:
    """The largest difference of any output over its largest magnitude; infinite where outputs are of other sizes."""
    if [a.size for a in outputs] != [b.size for b in judge]:
        return float("inf")
    largest = 0.0
    for own, other in zip(outputs, judge):
        own, other = own.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        scale = np.abs(other).max(initial=0.0) or 1.0
        # a NaN is a difference like any other, and must not be lost by max()
        largest = float(np.maximum(largest, np.abs(own - other).max(initial=0.0) / scale))
    return largest


def top1_agreement(outputs: Sequence[np.ndarray], judge: Sequence[np.ndarray]) -> float | None:
    """The share of rows of the first output with the same largest element; None where that is not a table of scores."""
    if not outputs or judge[0].ndim != 2 or judge[0].shape[1] < 2 or outputs[0].size != judge[0].size:
        return None
    return float(np.mean(outputs[0].reshape(judge[0].shape).argmax(1) == judge[0].argmax(1)))
