"""What can be computed when the model is loaded is computed then: nodes that read constants alone, and shapes that are known."""

from __future__ import annotations

import math

import numpy as np

from numbaconv.graph import model as models
from numbaconv.graph.host import RANDOM, evaluate
from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.kernels import make_kernel
from numbaconv.graph.passes.match import integers
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite

#: Bytes up to which a result may be larger than what it is computed from.
_LARGEST = 64 << 20


def fold_constants(graph: Graph) -> Graph:
    """The graph with constants in place of nodes that compute the same in every run.

    Raises
    ------
    ModelError
        Such a node cannot be computed.
    """

    def rule(draft: Draft, node: Node) -> Edit | None:
        values = _values(draft, node, graph.opsets)
        return None if values is None else Edit.fuse([node], constants=values)

    return rewrite(graph, rule)


def _values(draft: Draft, node: Node, opsets) -> dict[str, np.ndarray] | None:
    if node.op == "Constant" and (array := _literal(node)) is not None:
        return {node.outputs[0]: array}
    if node.op in ("Shape", "Size") and (array := _shape(draft, node)) is not None:
        return {node.outputs[0]: array}
    operands = [draft.constant(name) for name in node.inputs if name]
    if not is_pure(node) or any(operand is None for operand in operands):
        return None
    if node.op == "BatchNormalization":  # which the reference computes from the batch's own statistics before opset 14
        return None
    if _bytes(draft, node) > max(_LARGEST, sum(operand.nbytes for operand in operands)):
        return None
    return _evaluate(draft, node, opsets)


def _literal(node: Node) -> np.ndarray | None:
    """The value of a Constant node; None for strings and sparse tensors, which the reference reads."""
    for name, value in node.attributes.items():
        if name == "value":
            return models.constant(value)
        if name in ("value_float", "value_floats"):
            return np.array(value, np.float32)
        if name in ("value_int", "value_ints"):
            return np.array(value, np.int64)
    return None


def _shape(draft: Draft, node: Node) -> np.ndarray | None:
    shape = draft.type(node.inputs[0]).shape
    if shape is None or not all(isinstance(size, int) for size in shape):
        return None
    if node.op == "Size":
        return np.array(math.prod(shape), np.int64)
    return np.array(shape[node.attributes.get("start", 0) : node.attributes.get("end")], np.int64)


def is_pure(node: Node) -> bool:
    """Whether a node gives the same for the same operands, and its attributes say all there is to know of it."""
    subgraphs = node.source is not None and any(a.HasField("g") or a.graphs for a in node.source.attribute)
    return node.op not in RANDOM and not subgraphs


def _bytes(draft: Draft, node: Node) -> int:
    """Bytes of all outputs as far as they are known before they are computed."""
    total = 0
    for name in filter(None, node.outputs):
        shape, dtype = draft.type(name).shape, draft.type(name).dtype
        if shape is not None and all(isinstance(size, int) for size in shape):
            elements = math.prod(shape)
        elif node.op == "ConstantOfShape":
            elements = math.prod(integers(draft.constant(node.inputs[0])) or ())
        elif node.op == "Expand":
            # a dimension of 1 keeps the operand's size, which the bound allows for
            elements = math.prod(integers(draft.constant(node.inputs[1])) or ())
        elif node.op == "Tile":
            elements = draft.constant(node.inputs[0]).size * math.prod(integers(draft.constant(node.inputs[1])) or ())
        else:
            continue
        total += elements * (8 if dtype is None else dtype.itemsize)
    return total


def _evaluate(draft: Draft, node: Node, opsets) -> dict[str, np.ndarray] | None:
    operands = [draft.constant(name) for name in node.inputs]
    results = evaluate(node, make_kernel(node, opsets, operands), operands)
    arrays = {name: np.asarray(a) if isinstance(a, np.generic) else a for name, a in zip(node.outputs, results) if name}
    # a sequence is no constant of a graph
    return arrays if all(isinstance(array, np.ndarray) for array in arrays.values()) else None
