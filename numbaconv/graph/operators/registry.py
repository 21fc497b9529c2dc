"""The table of operators that are NumPy functions: each maker looks at a node once and gives the function that runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from numbaconv.graph.ir import Node

#: Takes operands (None where one is left out) and returns an array, or a tuple of one for each output.
Function = Callable[..., "np.ndarray | tuple[np.ndarray | None, ...]"]
#: Gives the function of a node in an opset, None where it does not cover the case.
Maker = Callable[[Node, int], "Function | None"]

MAKERS: dict[str, Maker] = {}


def makes(*ops: str) -> Callable[[Maker], Maker]:
    """Register a maker for operators of the default domain."""

    def register(maker: Maker) -> Maker:
        for op in ops:
            MAKERS[op] = maker
        return maker

    return register


def computes(*ops: str) -> Callable[[Function], Function]:
    """Register a function for operators whose attributes say nothing."""

    def register(function: Function) -> Function:
        for op in ops:
            MAKERS[op] = lambda node, opset: function
        return function

    return register


class NumpyKernel:
    """A node that is run by a NumPy function; returns the outputs that have a name."""

    algorithm = "numpy"

    def __init__(self, node: Node, function: Function):
        self._wanted = [bool(name) for name in node.outputs]
        self._function = function

    def __call__(self, *values: np.ndarray | None) -> list[np.ndarray]:
        results = self._function(*values)
        if not isinstance(results, tuple):
            results = (results,)
        return [np.asarray(result) for result, wanted in zip(results, self._wanted) if wanted]


def numpy_kernel(node: Node, opset: int) -> NumpyKernel | None:
    """What runs a node with NumPy, or None where nothing here covers it."""
    maker = None if node.domain else MAKERS.get(node.op)
    function = maker(node, opset) if maker else None
    return NumpyKernel(node, function) if function else None


def covered(values: Sequence[object]) -> bool:
    """Whether all operands have element types of NumPy's own."""
    return all(value is None or (hasattr(value, "dtype") and value.dtype.kind in "biufc") for value in values)
