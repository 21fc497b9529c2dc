"""Resize and Upsample of any axes and element types."""

from __future__ import annotations

from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, makes
from numbaconv.graph.resampling import operands_of, resample, tables


@makes("Resize", "Upsample")
def _resize(node: Node, opset: int) -> Function:
    def run(x, *rest):
        where = operands_of(node.op, node.attributes, opset, rest)
        return resample(x, *tables(node.op, node.attributes, opset, x.shape, *where))

    return run
