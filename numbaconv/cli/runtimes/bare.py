"""An interpreter with Numba imported, which every process of ours takes before it does anything."""

import numba


def version() -> str:
    """Of numba."""
    return numba.__version__


def load(model, feed, folder, threads):
    """Nothing is run here."""
    raise NotImplementedError("this process only shows what Numba takes")
