"""Workers of `bench.worker`, and rounds of one convolution over all of them; how they take turns is `numbaconv.cli.workers`."""

import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

from bench import peers
from numbaconv.cli import workers as processes
from numbaconv.cli.workers import Timing, Worker, WorkerError, take_turns

#: A peer that is so many times as slow as the fastest is not timed, if a call of it takes so many seconds.
HOPELESS, PATIENCE = 20.0, 0.2


@dataclass
class Measurement(Timing):
    """One runtime on one problem; `once` is what its first call took."""

    flops: int = 0
    error: float = 0.0
    once: float = 0.0

    @property
    def gflops(self) -> float | None:
        return self.flops / self.seconds / 1e9 if self.rounds else None


def start(name: str, threads: int) -> Worker:
    """A worker for a runtime. Raises AbsentError where it is not installed."""
    command = [sys.executable, "-m", "bench.worker", "--runtime", name, "--threads", str(threads)]
    return Worker(name, command, threads)


def workers(names: list[str], threads: int) -> AbstractContextManager[tuple[dict[str, Worker], dict[str, str]]]:
    """Start a worker for each name; yields (workers, {absent name: reason}) and ends them afterwards."""
    return processes.workers({name: partial(start, name, threads) for name in names})


def prepare(worker: Worker, text: str) -> Measurement:
    """Pack, compile, run once and check; a refusal or a failure is recorded in the measurement."""
    try:
        answer = worker.request(prepare=text)
    except WorkerError as error:
        return Measurement(refusal=f"failed: {error}")
    if "unsupported" in answer:
        return Measurement(refusal=answer["unsupported"])
    return Measurement(**answer)


def measure(running: dict[str, Worker], text: str, rounds: int, min_time: float) -> dict[str, Measurement]:
    """Time one problem in every runtime, `rounds` interleaved rounds of `min_time` seconds each."""
    results = {name: prepare(worker, text) for name, worker in running.items()}
    able = [
        result
        for name, result in results.items()
        if result.refusal is None and name != peers.PEAK and not peers.is_ours(name)
    ]
    fastest = min((result.once for result in able), default=0.0)
    for result in able:
        if result.once > max(HOPELESS * fastest, PATIENCE):
            result.refusal = f"a call takes {result.once:.1f} s, {result.once / fastest:.0f} times the fastest one's"
    take_turns(running, results, text, rounds, min_time)
    return results
