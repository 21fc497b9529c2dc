"""One runtime in a process of its own, told what to do by JSON lines on stdin.

    python -m bench.worker --runtime torch_cl --threads 1

On start it says {"ready": version} or {"absent": reason}. Then, one reply a request:

    {"prepare": problem}                   {"flops": count, "error": relative} or {"unsupported": reason}
    {"time": problem, "min_time": 0.05}    {"seconds": [one a call]}

and {"failed": message} for whatever goes wrong. A process each, because every runtime brings a thread pool, and the
threads of a pool spin for a while after their work.
"""

import argparse
import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable

from bench import peers
from bench.operands import make_operands
from numbaconv.problem import ConvProblem

MIN_CALLS = 5
WARM_UP_SHARE = 0.2
PR_SET_PDEATHSIG = 1


def sample(call: Callable[[], object], min_time: float) -> list[float]:
    """Seconds of each call, for `min_time` seconds and at least MIN_CALLS calls, after a warm-up.

    The warm-up brings operands back into the cache and the core back to the clock frequency of wide vectors: the
    process was stopped while the others ran.
    """
    gc.disable()
    clock, seconds = time.perf_counter, []
    start = clock()
    while True:
        call()
        if clock() - start > WARM_UP_SHARE * min_time:
            break
    start = clock()
    while len(seconds) < MIN_CALLS or clock() - start < min_time:
        before = clock()
        call()
        seconds.append(clock() - before)
    gc.enable()
    return seconds


class Server:
    """Holds the one problem that is prepared."""

    def __init__(self, name: str, threads: int):
        self.threads = threads
        self.module, self.variant, self.algorithm = peers.load(name)
        self.text, self.prepared, self.operands = None, None, None

    def answer(self, request: dict) -> dict:
        if "prepare" in request:
            return self.prepare(request["prepare"])
        if request["time"] != self.text:
            return {"failed": f"{request['time']} is not prepared"}
        seconds = sample(self.prepared.call, request["min_time"])
        self.check()
        return {"seconds": seconds}

    def prepare(self, text: str) -> dict:
        self.text, self.prepared, self.operands = None, None, None
        problem = ConvProblem.parse(text)
        # The peak has no operands, hence nothing to check.
        self.operands = None if self.module.__name__ == "bench.peak" else make_operands(problem)
        try:
            self.prepared = self.module.prepare(problem, self.operands, self.threads, self.variant, self.algorithm)
        except peers.UnsupportedProblemError as reason:
            return {"unsupported": str(reason)}
        self.prepared.call()
        self.text = text
        return {"flops": self.prepared.flops or problem.flops, "error": self.check()}

    def check(self) -> float:
        """The error of the last result. Asked for after timing too: a buffer freed too early spoils later calls only."""
        return self.operands.check(self.prepared.result()) if self.prepared.result else 0.0


def _die_with_parent() -> None:
    """A stopped process does not notice that its parent is gone; on Linux the kernel can be asked to end it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    _die_with_parent()

    # Libraries print to stdout; replies go to a copy of it, everything else to stderr.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(message: dict) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        server = Server(args.runtime, args.threads)
    except (ImportError, OSError) as error:
        reply({"absent": f"{type(error).__name__}: {error}"})
        return
    reply({"ready": server.module.version()})
    for line in sys.stdin:
        try:
            reply(server.answer(json.loads(line)))
        except Exception as error:  # noqa: BLE001 - a peer may raise anything, and the harness goes on without it
            reply({"failed": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
