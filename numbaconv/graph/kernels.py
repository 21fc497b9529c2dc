"""What runs one node in Python: a NumPy function of ours, else the `onnx` package's reference operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from numbaconv.graph.ir import Node
from numbaconv.graph.operators import NumpyKernel, covered, numpy_kernel
from numbaconv.graph.reference import ReferenceKernel

Kernel = NumpyKernel | ReferenceKernel


def make_kernel(node: Node, opsets: Mapping[str, int], operands: Sequence[object] = ()) -> Kernel:
    """The kernel of a node for operands of these types.

    Raises
    ------
    ModelError
        Nothing can run the node.
    """
    own = numpy_kernel(node, opsets.get("", 1)) if covered(operands) else None
    return own or ReferenceKernel(node, opsets)
