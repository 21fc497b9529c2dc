"""Workers that are stopped unless it is their turn, and rounds that go over all of them.

A time is the median over rounds of each round's median. Rounds are interleaved: a slow spell of the machine falls on
all runtimes alike instead of on the one that happened to run.
"""

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

REPLY_TIMEOUT = 300.0
# Set by people to tune one library; inherited, they would change what others measure.
DROPPED_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerError(Exception):
    """The worker died, hung, or answered with a failure."""


class AbsentError(WorkerError):
    """The runtime is not installed here."""


@dataclass
class Measurement:
    """One runtime on one problem: the median seconds of each round, or the reason why there are none."""

    flops: int = 0
    error: float = 0.0
    rounds: list[float] = field(default_factory=list)
    refusal: str | None = None

    @property
    def seconds(self) -> float | None:
        return statistics.median(self.rounds) if self.rounds else None

    @property
    def gflops(self) -> float | None:
        return self.flops / self.seconds / 1e9 if self.rounds else None


class Worker:
    """A process of `bench.worker`. It is running only inside `turn`."""

    def __init__(self, name: str, threads: int):
        """Raises AbsentError where the runtime is not installed."""
        self.name, self.threads = name, threads
        self.start()

    def start(self) -> None:
        environment = {key: value for key, value in os.environ.items() if key not in DROPPED_VARIABLES}
        environment |= {key: str(self.threads) for key in THREAD_VARIABLES}
        command = [sys.executable, "-m", "bench.worker", "--runtime", self.name, "--threads", str(self.threads)]
        self.complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        # A session of its own makes a process group of its own, which SIGSTOP then stops as a whole.
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            env=environment,
            text=True,
            start_new_session=True,
        )
        hello = self._receive()
        if "absent" in hello:
            self.close()
            raise AbsentError(hello["absent"])
        self.version = hello["ready"]
        self._signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wake the worker's process group for the length of the block."""
        self._signal(signal.SIGCONT)
        try:
            yield
        finally:
            self._signal(signal.SIGSTOP)

    def request(self, **message) -> dict:
        """Send one request in a turn of its own. A worker that died or hung is replaced before WorkerError is raised."""
        try:
            with self.turn():
                print(json.dumps(message), file=self.process.stdin, flush=True)
                answer = self._receive()
        except (OSError, ValueError, WorkerError) as error:
            self.close()
            self.start()
            raise WorkerError(str(error)) from error
        if "failed" in answer:
            raise WorkerError(answer["failed"])
        return answer

    def prepare(self, text: str) -> Measurement:
        """Pack, compile, run once and check; a refusal or a failure is recorded in the measurement."""
        try:
            answer = self.request(prepare=text)
        except WorkerError as error:
            return Measurement(refusal=f"failed: {error}")
        if "unsupported" in answer:
            return Measurement(refusal=answer["unsupported"])
        return Measurement(answer["flops"], answer["error"])

    def time(self, text: str, min_time: float) -> list[float]:
        """Seconds of each call of the prepared problem."""
        return self.request(time=text, min_time=min_time)["seconds"]

    def close(self) -> None:
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        self.complaints.close()

    def _receive(self) -> dict:
        # One reply a request, so nothing is left in the buffer that select() cannot see.
        if not select.select([self.process.stdout], [], [], REPLY_TIMEOUT)[0]:
            raise WorkerError(f"{self.name}: no answer within {REPLY_TIMEOUT:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.complaints.seek(0)
            last = self.complaints.read().strip().splitlines()[-1:] or ["without a word"]
            raise WorkerError(f"{self.name}: the worker ended: {last[0]}")
        return json.loads(line)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


@contextlib.contextmanager
def workers(names: list[str], threads: int) -> Iterator[tuple[dict[str, Worker], dict[str, str]]]:
    """Start a worker for each name; yields (workers, {absent name: reason}) and ends them afterwards."""
    running, absent = {}, {}
    try:
        for name in names:
            try:
                running[name] = Worker(name, threads)
            except (AbsentError, WorkerError) as reason:
                absent[name] = str(reason)
        yield running, absent
    finally:
        for worker in running.values():
            worker.close()


def measure(running: dict[str, Worker], text: str, rounds: int, min_time: float) -> dict[str, Measurement]:
    """Time one problem in every runtime, `rounds` interleaved rounds of `min_time` seconds each."""
    results = {name: worker.prepare(text) for name, worker in running.items()}
    order = deque(name for name, result in results.items() if result.refusal is None)
    for _ in range(rounds):
        for name in list(order):
            try:
                seconds = running[name].time(text, min_time)
            except WorkerError as error:
                results[name].refusal = f"failed: {error}"
                order.remove(name)
                continue
            results[name].rounds.append(statistics.median(seconds))
        # Nobody is always the one who runs after the same neighbour's heat.
        order.rotate(1)
    return results
