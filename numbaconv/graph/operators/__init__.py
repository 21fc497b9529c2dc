"""Operators as NumPy functions, a file a family: what has no compiled lowering, and constants of any kind."""

from numbaconv.graph.operators import (  # noqa: F401
    arithmetic,
    arrangement,
    gather,
    logic,
    normalization,
    pools,
    products,
    quantization,
    reductions,
    resize,
    sorting,
)
from numbaconv.graph.operators.registry import NumpyKernel, covered, numpy_kernel

__all__ = ["NumpyKernel", "covered", "numpy_kernel"]
