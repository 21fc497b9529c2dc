"""What runs one node in Python: a NumPy function of ours, else the `onnx` package's reference operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from numbaconv.epilogue import Activation
from numbaconv.graph.ir import Node
from numbaconv.graph.operators import NumpyKernel, covered, numpy_kernel
from numbaconv.graph.reference import ReferenceKernel


class ActivatedKernel:
    """A kernel of one result, and the activation that the node applies to it."""

    def __init__(self, kernel: NumpyKernel | ReferenceKernel, activation: Activation):
        self.algorithm, self._kernel, self._activation = kernel.algorithm, kernel, activation

    def __call__(self, *values: np.ndarray | None) -> list[np.ndarray]:
        (result,) = self._kernel(*values)
        return [self._activation.apply(result)]


Kernel = NumpyKernel | ReferenceKernel | ActivatedKernel


def make_kernel(node: Node, opsets: Mapping[str, int], operands: Sequence[object] = ()) -> Kernel:
    """The kernel of a node for operands of these types.

    Raises
    ------
    ModelError
        Nothing can run the node.
    """
    own = numpy_kernel(node, opsets.get("", 1)) if covered(operands) else None
    made = own or ReferenceKernel(node, opsets)
    activation = node.attributes.get("activation")
    return made if activation is None else ActivatedKernel(made, activation)
