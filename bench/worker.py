"""One runtime in a process of its own, told what to do by JSON lines on stdin.

    python -m bench.worker --runtime torch_cl --threads 1

On start it says {"ready": version} or {"absent": reason}. Then, one reply a request:

    {"prepare": line of a suite}           {"flops": count, "error": relative, "once": seconds} or {"unsupported": reason}
    {"time": the same, "min_time": 0.05}   {"seconds": [one a call]}

and {"failed": message} for whatever goes wrong. A process each, because every runtime brings a thread pool, and the
threads of a pool spin for a while after their work.
"""

import argparse
import time

from bench import peers
from bench.operands import make_operands
from bench.suites import flops, parse
from numbaconv.cli.serving import sample, serve


class Server:
    """Holds the one problem that is prepared."""

    def __init__(self, name: str, threads: int):
        self.threads = threads
        self.module, self.variant, self.algorithm = peers.load(name)
        self.version = self.module.version()
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
        operation, problem = parse(text)
        # The peak has no operands, hence nothing to check, and is the same beside any operation.
        at_peak = self.module.__name__ == "bench.peak"
        prepare = self.module.prepare if at_peak else getattr(self.module, operation, None)
        if prepare is None:
            return {"unsupported": f"no such operation: {operation}"}
        self.operands = None if at_peak else make_operands(operation, problem)
        try:
            self.prepared = prepare(problem, self.operands, self.threads, self.variant, self.algorithm)
        except peers.UnsupportedProblemError as reason:
            return {"unsupported": str(reason)}
        start = time.perf_counter()
        self.prepared.call()
        once = time.perf_counter() - start
        self.text = text
        return {"flops": self.prepared.flops or flops(operation, problem), "error": self.check(), "once": once}

    def check(self) -> float:
        """The error of the last result. Asked for after timing too: a buffer freed too early spoils later calls only."""
        return self.operands.check(self.prepared.result()) if self.prepared.result else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    serve(lambda: Server(args.runtime, args.threads))


if __name__ == "__main__":
    main()
