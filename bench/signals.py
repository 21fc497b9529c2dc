"""Compare `convolve` with every method of scipy.signal, from 64 samples by 8 to images of 4096 x 4096 by 129 x 129.

python -m bench.signals --threads 1 2
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.fft
from scipy import signal

import numbaconv as nc

#: Shapes of signals and kernels; signals are convolved in mode "full", images in mode "same".
CASES = [
    *(((n,), (k,)) for n, k in ((64, 8), (256, 16), (1024, 32), (4096, 64), (1 << 14, 8), (1 << 14, 128), (1 << 14, 2048))),
    *(((1 << 17,), (k,)) for k in (32, 512, 4096)),
    *(((1 << 20,), (k,)) for k in (8, 64, 1024, 1 << 13, 1 << 16)),
    *(((n, n), (k, k)) for n, k in ((64, 3), (256, 5), (512, 3), (512, 7), (512, 15), (512, 63), (1024, 31))),
    *(((4096, 4096), (k, k)) for k in (3, 9, 31, 129)),
]  # fmt: skip
#: Products beyond which SciPy's direct sums are not waited for: its transforms are faster long before.
_PATIENCE = 2e7, 1e8
#: Seconds that each contender gets.
_SECONDS = 0.6


def contenders(f: np.ndarray, g: np.ndarray, mode: str) -> dict[str, Callable[[], np.ndarray]]:
    """Ours first."""
    made = {
        "numbaconv": lambda: nc.convolve(f, g, mode),
        "fftconvolve": lambda: signal.fftconvolve(f, g, mode),
        "oaconvolve": lambda: signal.oaconvolve(f, g, mode),
    }
    products = f.size * g.size
    if products <= _PATIENCE[f.ndim == 1]:
        made["direct"] = lambda: signal.convolve(f, g, mode, "direct")
        if f.ndim == 2:
            made["convolve2d"] = lambda: signal.convolve2d(f, g, mode)
    return made


def measure(made: dict[str, Callable[[], np.ndarray]]) -> dict[str, float]:
    """Median seconds of each, in rounds that go over all of them."""
    expected = made["fftconvolve"]()
    assert np.abs(made["numbaconv"]() - expected).max() <= 1e-4 * np.abs(expected).max()
    times = {name: [] for name in made}
    begin = time.perf_counter()
    while len(times["numbaconv"]) < 3 or time.perf_counter() - begin < _SECONDS * len(made):
        for name, call in made.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.signals", description=__doc__.splitlines()[0])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64", "complex64", "complex128"))
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    for threads in args.threads:
        ratios = []
        for shape, kernel in CASES:
            f, g = (rng.standard_normal(size).astype(args.dtype) for size in (shape, kernel))
            mode = "full" if f.ndim == 1 else "same"
            with nc.num_threads(threads), scipy.fft.set_workers(threads):
                ours, *peers = (found := measure(contenders(f, g, mode))).values()
                method = nc.choose_method(f, g, mode)
            best = min(peers)
            ratios.append(best / ours)
            peer = next(name for name, seconds in found.items() if seconds == best)
            sizes = " * ".join("x".join(map(str, size)) for size in (shape, kernel))
            print(
                f"{threads}  {sizes:24} {method:7}{ours * 1e6:12.1f} us  {peer:12}{best * 1e6:12.1f} us {best / ours:8.2f}"
            )
        mean = math.exp(statistics.fmean(map(math.log, ratios)))
        print(f"{threads} thread(s): geometric mean {mean:.2f}, least {min(ratios):.2f}")


if __name__ == "__main__":
    main()
