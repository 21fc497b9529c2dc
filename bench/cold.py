"""What the first result costs: functions compiled, machine code kept, and seconds, for a new cache folder and for the next process.

python -m bench.cold c64h56w56o64k3p1cl c64h56w56o64k3p1cl:direct resnet50.onnx

A problem string may name an algorithm after a colon; a file is a network, whose symbolic sizes are 1.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.report import show


def first_result(what: str, threads: int) -> dict[str, float]:
    """Run in a process of its own: functions that were compiled, and seconds from the first call to its result."""
    import numpy as np

    import numbaconv as nc
    from numbaconv.codegen.jit import on_compile

    nc.set_num_threads(threads)
    compiled: list[str] = []
    begin = time.perf_counter()
    with on_compile(lambda name, seconds: compiled.append(name) if seconds is None else None):
        if Path(what).suffix == ".onnx":
            session = nc.InferenceSession(what)
            first = session.get_inputs()[0]
            shape = [size if isinstance(size, int) else 1 for size in first.shape]
            session.run(None, {first.name: np.zeros(shape, np.float32)})
        else:
            text, _, algorithm = what.partition(":")
            p = nc.ConvProblem.parse(text)
            layer = {1: nc.Conv1d, 2: nc.Conv2d, 3: nc.Conv3d}[len(p.spatial)]
            settings = {"stride": p.stride, "padding": p.padding, "dilation": p.dilation, "groups": p.groups}
            weight, x = np.ones(p.weight_shape, p.np_dtype), np.ones(p.input_shape, p.np_dtype)
            layer(weight, **settings, layout=p.layout, algorithm=algorithm or "auto")(x)
    return {"functions": len(compiled), "seconds": time.perf_counter() - begin}


def measured(what: str, threads: int, folder: str) -> dict[str, float]:
    """`first_result` in a new process, and what lies in its cache folder afterwards."""
    command = [sys.executable, "-m", "bench.cold", what, "--threads", str(threads), "--here"]
    environment = dict(os.environ, NUMBACONV_CACHE_DIR=folder)
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    kept = [file.stat().st_size for file in Path(folder).rglob("*.nbc")]
    return json.loads(done.stdout) | {"kept": len(kept), "bytes": sum(kept)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cold", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="+", help="problem strings, and ONNX files")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--here", action="store_true", help="measure the first one in this process, and print JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(first_result(args.what[0], args.threads)))
        return
    rows = []
    for what in args.what:
        with tempfile.TemporaryDirectory() as folder:
            cold, warm = (measured(what, args.threads, folder) for _ in range(2))
        kept = f"{cold['kept']:.0f}, {cold['bytes'] / 2**20:.1f}"
        rows.append(
            [
                what,
                f"{cold['functions']:.0f}",
                kept,
                f"{cold['seconds']:.1f}",
                f"{warm['functions']:.0f}",
                f"{warm['seconds']:.2f}",
            ]
        )
    header = ["first call", "functions", "kept, MiB", "new folder, s", "compiled again", "next process, s"]
    show(f"{args.threads} thread(s)", header, rows)


if __name__ == "__main__":
    main()
