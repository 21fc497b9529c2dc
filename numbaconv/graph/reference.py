"""Operators without an implementation of our own are run by the `onnx` package's reference evaluator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper

from numbaconv.errors import ModelError
from numbaconv.graph.ir import Node


class ReferenceKernel:
    """One node, run by the reference operator of its opset.

    Parameters
    ----------
    node : Node
    opsets : mapping of domain to version

    Raises
    ------
    ModelError
        The operator is not known in this opset, or its attributes are not.
    """

    algorithm = "onnx reference"

    def __init__(self, node: Node, opsets: Mapping[str, int]):
        # most networks need no reference operator, and importing them takes a while
        from onnx.reference import ReferenceEvaluator

        self._names = (*node.inputs, *node.captured)
        # Outputs are declared without types: the evaluator then finds the types of values while it runs.
        outputs = [onnx.ValueInfoProto(name=name) for name in node.outputs if name]
        graph = helper.make_graph([node.proto()], node.name or node.op, [], outputs)
        try:
            self._evaluator = ReferenceEvaluator(graph, opsets=dict(opsets))
        except Exception as error:
            opset = opsets.get(node.domain, "not imported by the model")
            reason = " ".join(str(error).split())[:160]
            raise ModelError(
                f"operator {node.op!r} (domain {node.domain!r}, opset {opset}) cannot be run: {reason}"
            ) from error

    def __call__(self, *values: np.ndarray | None) -> list[np.ndarray]:
        return self._evaluator.run(None, dict(zip(self._names, values)))
