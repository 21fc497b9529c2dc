"""The inside of a worker: one runtime in a process of its own, told what to do by JSON lines on stdin.

    python numbaconv/cli/serving.py --runtime openvino --threads 1

On start it says {"ready": version} or {"absent": reason}.  Then, one reply a request:

    {"load": model, "names": inputs, "feed": file, "folder": folder}    {"load_seconds": s} or {"unsupported": reason}
    {"time": model, "min_time": 0.05}                                   {"seconds": [one a call]}
    {"finish": file}                                                    {"peak_bytes": n}, and the outputs in the file

and {"failed": message} for whatever goes wrong.  This file is started by its path and imports nothing of the package: a peer's
process holds neither Numba nor us, and what it is measured to take is its own.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

MIN_CALLS = 5
WARM_UP_SHARE = 0.2
PR_SET_PDEATHSIG = 1
_HERE = Path(__file__).resolve().parent


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


def serve(start: Callable[[], object]) -> None:
    """Answer requests until stdin ends; `start` makes what answers them: an object with `version` and `answer(request)`."""
    _die_with_parent()
    # Libraries print to stdout; replies go to a copy of it, everything else to stderr.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def reply(message: dict) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        server = start()
    except (ImportError, OSError) as error:
        reply({"absent": f"{type(error).__name__}: {error}"})
        return
    reply({"ready": server.version})
    for line in sys.stdin:
        try:
            reply(server.answer(json.loads(line)))
        except Exception as error:  # noqa: BLE001 - a peer may raise anything, and the others go on without it
            reply({"failed": f"{type(error).__name__}: {error}"})


def peak_bytes() -> int:
    """The most memory that this process has had resident.

    Linux keeps `ru_maxrss` across exec, so that of a small child is its parent's; its high-water mark is not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


class NetworkServer:
    """Holds one runtime, which is a file of `runtimes`, and one network."""

    def __init__(self, runtime: str, threads: int):
        self.threads = threads
        self.runtime = runpy.run_path(str(_HERE / "runtimes" / f"{runtime}.py"))
        self.version = self.runtime["version"]()
        self.model, self.feed, self.call, self.outputs = None, {}, None, list

    def answer(self, request: dict) -> dict:
        """The reply to one request."""
        if "load" in request:
            return self.load(request["load"], request["names"], request["feed"], request["folder"])
        if "finish" in request:
            return self.finish(request["finish"])
        if request["time"] != self.model:
            return {"failed": f"{request['time']} is not loaded"}
        return {"seconds": sample(self.call, request["min_time"])}

    def load(self, model: str, names: list[str], feed: str, folder: str) -> dict:
        """Convert the model if the runtime needs that, then load it and run it once on the clock."""
        with np.load(feed) as arrays:
            # some runtimes know it by its address alone
            self.feed = dict(zip(names, arrays.values()))
        try:
            if "convert" in self.runtime:
                self.runtime["convert"](model, self.feed, folder)
            began = time.perf_counter()
            self.call, self.outputs = self.runtime["load"](model, self.feed, folder, self.threads)
            self.call()
            seconds = time.perf_counter() - began
        except NotImplementedError as reason:
            return {"unsupported": str(reason)}
        self.model = model
        return {"load_seconds": seconds}

    def finish(self, file: str) -> dict:
        """Read the peak before the results of the last call are written, which takes memory of its own."""
        peak = peak_bytes()
        np.savez(file, *self.outputs())
        return {"peak_bytes": peak}


def _die_with_parent() -> None:
    """A stopped process does not notice that its parent is gone; on Linux the kernel can be asked to end it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Serve one runtime."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runtime", required=True)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    # Python looks for modules next to the file that it is given, where ours would be taken for others'.
    sys.path[:] = [entry for entry in sys.path if entry != str(_HERE)]
    serve(lambda: NetworkServer(arguments.runtime, arguments.threads))


if __name__ == "__main__":
    main()
