"""scipy.signal's convolutions of one channel: direct sums, those of images, and both ways through spectra."""

import scipy
import scipy.fft
from scipy import signal

from bench.peers import Prepared, UnsupportedProblemError, convolve_mode

CONVOLVE = {
    "direct": lambda x, kernel, mode: signal.convolve(x, kernel, mode, "direct"),
    "convolve2d": signal.convolve2d,
    "fftconvolve": signal.fftconvolve,
    "oaconvolve": signal.oaconvolve,
}
# Products beyond which direct sums of signals and of images are not waited for: transforms are faster long before.
PATIENCE = {1: 1e8, 2: 2e7}


def version() -> str:
    return scipy.__version__


def convolve(problem, operands, threads, variant, algorithm) -> Prepared:
    axes, products = len(problem.spatial), operands.x.size * operands.weight.size
    if variant == "convolve2d" and axes != 2:
        raise UnsupportedProblemError("convolve2d is for images")
    if variant in ("direct", "convolve2d") and products > PATIENCE[axes]:
        raise UnsupportedProblemError("direct sums take too long")
    # Entered for the life of the worker: a `with` around every call would be timed.
    scipy.fft.set_workers(threads).__enter__()
    function, mode = CONVOLVE[variant], convolve_mode(problem)

    def call():
        return function(operands.x, operands.weight, mode)

    return Prepared(call, call)
