"""pytest-benchmark cases: every layer of the suites in every runtime.

    pytest bench/ --benchmark-only --benchmark-group-by=param:text -k "resnet50 and k3p1"

Calls are timed inside the runtime's worker process, and pytest-benchmark is given those times: it reads a clock that
each replayed call advances by what the worker measured. Compare runtimes with `bench.compare`, whose rounds are
interleaved; these cases are for following one runtime over time.
"""

import statistics
from collections.abc import Callable

import pytest

from bench import harness, peers, suites
from numbaconv.cli.workers import Worker, WorkerError

MAX_ROUNDS = 10_000


class ReplayedClock:
    """A timer for pytest-benchmark that shows the sum of the times replayed so far."""

    def __init__(self):
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def replay(self, seconds: list[float]) -> Callable[[], None]:
        """A call that takes as long, by this clock, as the next of `seconds`."""
        remaining = iter(seconds)

        def call() -> None:
            self.now += next(remaining)

        return call


clock = ReplayedClock()


def replayed_time() -> float:
    """Seconds on the module's clock."""
    return clock()


def pytest_generate_tests(metafunc):
    config = metafunc.config
    layers = [layer for suite in config.getoption("--conv-suite") for layer in suites.load(suite)]
    cases = [
        pytest.param(layer.text, name, id=f"{layer.suite}-{layer.text}-{name}")
        for layer in layers
        for name in peers.RUNTIMES
    ]
    metafunc.parametrize(("text", "runtime"), cases)


@pytest.fixture(scope="session")
def pool(pytestconfig):
    """name -> worker, or the reason why there is none; started when first asked for."""
    threads, started = pytestconfig.getoption("--conv-threads"), {}

    def get(name: str) -> Worker:
        if name not in started:
            try:
                started[name] = harness.start(name, threads)
            except WorkerError as reason:
                started[name] = reason
        if isinstance(started[name], WorkerError):
            pytest.skip(f"{name}: {started[name]}")
        return started[name]

    yield get
    for worker in started.values():
        if isinstance(worker, Worker):
            worker.close()


@pytest.mark.benchmark(timer=replayed_time, warmup=False)
def test_convolution(benchmark, pool, pytestconfig, text, runtime):
    """The runtime computes the right result, at the time that is recorded."""
    min_time = pytestconfig.getoption("--conv-min-time")
    worker, peak_worker = pool(runtime), pool(peers.PEAK)
    measurement, peak = harness.prepare(worker, text), harness.prepare(peak_worker, text)
    if measurement.refusal and not measurement.refusal.startswith("failed"):
        pytest.skip(measurement.refusal)
    assert measurement.refusal is None

    # The peak is taken on both sides of the convolution, so that a change of clock frequency shows.
    peak.rounds.append(statistics.median(peak_worker.time(text, min_time / 4)))
    seconds = worker.time(text, min_time)[:MAX_ROUNDS]
    peak.rounds.append(statistics.median(peak_worker.time(text, min_time / 4)))
    measurement.rounds.append(statistics.median(seconds))

    benchmark.pedantic(clock.replay(seconds), rounds=len(seconds))
    benchmark.extra_info |= {
        "gflops": round(measurement.gflops, 1),
        "percent_of_peak": round(100 * measurement.gflops / peak.gflops, 1),
        "kind": suites.Layer("", "", text).kind,
        "error": measurement.error,
        "version": worker.version,
    }
