"""This project: weights packed once, the result written into a buffer of the caller's."""

import numpy as np

import numbaconv as nc
from bench.operands import aligned
from bench.peers import Prepared, UnsupportedProblemError


def version() -> str:
    return getattr(nc, "__version__", "source tree")


def prepare(problem, operands, threads, variant, algorithm) -> Prepared:
    nc.set_num_threads(threads)
    last = variant == "channels_last"
    to_layout = (lambda a: np.moveaxis(a, 1, -1)) if last else (lambda a: a)
    try:
        layer = getattr(nc, f"Conv{len(problem.kernel)}d")(
            operands.weight,
            operands.bias,
            stride=problem.stride,
            padding=problem.padding,
            dilation=problem.dilation,
            groups=problem.groups,
            layout=variant,
            algorithm=algorithm or "auto",
        )
        x = aligned(to_layout(operands.x))
        out = aligned(np.zeros_like(to_layout(operands.expected), dtype=np.float32))
        layer(x, out=out)
    except nc.UnsupportedError as reason:
        raise UnsupportedProblemError(str(reason)) from reason
    return Prepared(lambda: layer(x, out=out), lambda: np.moveaxis(out, -1, 1) if last else out)
