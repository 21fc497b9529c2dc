"""Gemm and MatMul by a constant matrix become `Dense`, which has the epilogue of a convolution."""

from __future__ import annotations

import numpy as np

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.match import FLOATS
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def make_dense(graph: Graph) -> Graph:
    """The graph with `Dense` (x, weight (c_out, c_in), bias) for matrix products over the last axis of x."""
    return rewrite(graph, _rule)


def _rule(draft: Draft, node: Node) -> Edit | None:
    matrix = draft.constant(node.operand(1)) if node.op in ("Gemm", "MatMul") else None
    if matrix is None or matrix.ndim != 2 or matrix.dtype not in FLOATS or draft.constant(node.inputs[0]) is not None:
        return None
    # MatMul is a Gemm without attributes
    return None if node.attributes.get("transA", 0) else _gemm(draft, node, matrix)


def _gemm(draft: Draft, node: Node, matrix: np.ndarray) -> Edit | None:
    alpha, beta = (matrix.dtype.type(node.attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    weight = matrix if node.attributes.get("transB", 0) else matrix.T
    if alpha != 1:
        weight = weight * alpha
    addend = draft.constant(node.operand(2))
    if addend is None:
        # an addend that is computed has no place in the weights
        return _dense(draft, node, weight, addend=node.operand(2)) if beta == 1 or not node.operand(2) else None
    # a number, or one for each channel, with or without an axis for the rows
    if addend.shape not in [(), *((*rows, n) for n in (1, len(weight)) for rows in ((), (1,)))]:
        return None
    return _dense(draft, node, weight, np.broadcast_to(addend.ravel() * beta, len(weight)))


def _dense(draft: Draft, node: Node, weight: np.ndarray, bias: np.ndarray | None = None, addend: str = "") -> Edit:
    (y,) = node.outputs
    constants = {draft.fresh(f"{y}.weight"): np.ascontiguousarray(weight)}
    if bias is not None:
        constants[draft.fresh(f"{y}.bias")] = np.ascontiguousarray(bias)
    inputs = (node.inputs[0], *constants)
    if not addend:
        return Edit.fuse([node], Node("Dense", inputs, (y,), name=node.name), constants=constants)
    product = draft.fresh(f"{y}.product")
    dense = Node("Dense", inputs, (product,), name=node.name)
    add = Node("Add", (product, addend), (y,), name=f"{node.name}.add")
    return Edit.fuse([node], dense, add, constants=constants)
