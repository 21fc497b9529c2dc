"""Processes that are stopped unless it is their turn, and rounds that go over all of them.

A process for each runtime, because every runtime brings a thread pool, and the threads of a pool spin for a while after their
work.  A time is the median over rounds of each round's median.  Rounds are interleaved: a slow spell of the machine falls on all
runtimes alike instead of on the one that happened to run.  So does a slow core: one may have a neighbour on its other hardware
thread, so that in each round all runtimes run on the same cores, one for each thread that works.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import statistics
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

REPLY_TIMEOUT = 300.0
#: Set by people to tune one library; inherited, they would change what others measure.
DROPPED_VARIABLES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
#: Where workers find this package, however it was found here.
_ROOT = Path(__file__).resolve().parents[2]

Key = TypeVar("Key", bound=Hashable)


class WorkerError(Exception):
    """The worker died, hung, or answered with a failure."""


class AbsentError(WorkerError):
    """The runtime is not installed here."""


@dataclass
class Timing:
    """The median seconds of each round, or the reason why there are none."""

    rounds: list[float] = field(default_factory=list)
    refusal: str | None = None

    @property
    def seconds(self) -> float | None:
        """The median of the rounds."""
        return statistics.median(self.rounds) if self.rounds else None


class Worker:
    """A process that `serving.serve` runs in.  It is running only inside `turn`.

    Parameters
    ----------
    name : str
        The runtime, as messages call it.
    command : sequence of str
        What starts the process.
    threads : int
        Threads of the libraries in it.

    Raises
    ------
    AbsentError
        The runtime is not installed.
    WorkerError
        The process ended before it was ready.
    """

    def __init__(self, name: str, command: Sequence[str], threads: int):
        self.name, self.command, self.threads = name, list(command), threads
        self._spent: dict[int, float] = {}
        self.start()

    def start(self) -> None:
        """Start the process, wait until it is ready, and stop it."""
        environment = {key: value for key, value in os.environ.items() if key not in DROPPED_VARIABLES}
        environment |= {key: str(self.threads) for key in THREAD_VARIABLES}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH")]))
        self.complaints = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        # A session of its own makes a process group of its own, which SIGSTOP then stops as a whole.
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.complaints,
            env=environment,
            text=True,
            start_new_session=True,
        )
        try:
            hello = self._receive()
            if "absent" in hello:
                raise AbsentError(hello["absent"])
        except WorkerError:
            self.close()
            raise
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
        """Send one request in a turn of its own.  A worker that died or hung is replaced before WorkerError is raised."""
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

    def settle(self, cores: Sequence[int]) -> None:
        """Let all threads of the process run on these cores only, where the system can be told so.

        The threads that have worked most since the last time get one core each, as they would on an idle machine: where other
        programs run, too, two threads that spin may stay on one core for as long as a turn lasts.
        """
        if not hasattr(os, "sched_setaffinity"):
            return
        seconds = self._thread_seconds()
        worked = {thread: spent - self._spent.get(thread, 0) for thread, spent in seconds.items()}
        self._spent = seconds
        busiest = sorted(worked, key=worked.get, reverse=True)[: len(cores)]
        own = {thread: [core] for thread, core in zip(busiest, cores)}
        for thread in seconds:
            # a thread may end meanwhile
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread, own.get(thread, cores))

    def _thread_seconds(self) -> dict[int, float]:
        """What each thread of the process has run for."""
        seconds = {}
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                nanoseconds, *_ = (thread / "schedstat").read_text().split()
                seconds[int(thread.name)] = int(nanoseconds) / 1e9
        return seconds

    def time(self, what: str, min_time: float) -> list[float]:
        """Seconds of each call of what is prepared."""
        return self.request(time=what, min_time=min_time)["seconds"]

    def close(self) -> None:
        """End the process."""
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
def workers(starts: Mapping[Key, Callable[[], Worker]]) -> Iterator[tuple[dict[Key, Worker], dict[Key, str]]]:
    """Start workers; yields those that run and, for those that do not, the reason.  All end with the block."""
    running, absent = {}, {}
    try:
        for key, start in starts.items():
            try:
                running[key] = start()
            except WorkerError as reason:
                absent[key] = str(reason)
        yield running, absent
    finally:
        for worker in running.values():
            worker.close()


def cores_of(number: int, threads: int) -> list[int]:
    """The cores of round `number`, as many as there are threads; other rounds have others."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return [cores[(number * threads + i) % len(cores)] for i in range(min(threads, len(cores)))]


def take_turns(
    running: Mapping[Key, Worker],
    results: Mapping[Key, Timing],
    what: str,
    rounds: int,
    min_time: float,
    on_round: Callable[[int], object] = lambda number: None,
) -> None:
    """Time what is prepared in all workers that did not refuse it, `rounds` interleaved rounds of `min_time` seconds each."""
    order = deque(key for key, result in results.items() if result.refusal is None)
    for number in range(rounds):
        on_round(number)
        for key in list(order):
            worker = running[key]
            cores = cores_of(number, worker.threads)
            try:
                worker.settle(cores)
                if number == 0 and worker.threads > 1:
                    # shows which threads work
                    worker.time(what, 0.0)
                    worker.settle(cores)
                seconds = worker.time(what, min_time)
            except WorkerError as error:
                results[key].refusal = f"failed: {error}"
                order.remove(key)
                continue
            results[key].rounds.append(statistics.median(seconds))
        # Nobody is always the one who runs after the same neighbour's heat.
        order.rotate(1)
