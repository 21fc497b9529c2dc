"""The questions that patterns ask about a value or an operand."""

from __future__ import annotations

import numpy as np

from numbaconv.graph.ir import Node
from numbaconv.graph.passes.rewrite import Draft

#: Element types that convolutions, matrix products and activations are compiled for.
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

#: Operators whose result has the rank of their largest operand.
_BROADCASTING = ("Add", "Sub", "Mul", "Div")


def is_float(draft: Draft, name: str) -> bool:
    """Whether a value is known to have an element type that we compile for."""
    return draft.type(name).dtype in FLOATS


def scalar(array: np.ndarray | None) -> float | None:
    """The number in a constant of one element."""
    return float(array.item()) if array is not None and array.size == 1 and array.dtype.kind in "fiu" else None


def integers(array: np.ndarray | None) -> tuple[int, ...] | None:
    """The elements of a constant list of integers."""
    return tuple(array.ravel().tolist()) if array is not None and array.dtype.kind in "iu" else None


def constant_operand(draft: Draft, node: Node) -> tuple[str, np.ndarray, bool] | None:
    """Of a binary operator with one constant operand: the other operand, the constant, and whether the constant comes second.

    Nodes with attributes are from before opset 7, when broadcasting had other rules.
    """
    if len(node.inputs) != 2 or node.attributes:
        return None
    first, second = map(draft.constant, node.inputs)
    if (first is None) == (second is None):
        return None
    return (node.inputs[0], second, True) if first is None else (node.inputs[1], first, False)


def least_rank(draft: Draft, name: str) -> int:
    """Axes that a value has at least; where its type is not known, as far as the node that computes it tells."""
    rank, node = draft.type(name).rank, draft.producer(name)
    if rank is not None or node is None:
        return rank or 0
    if node.op in _BROADCASTING:
        return max(0 if (c := draft.constant(operand)) is None else c.ndim for operand in node.inputs)
    weight = draft.constant(node.operand(1))
    if node.op in ("Conv", "ConvTranspose") and weight is not None:
        return weight.ndim
    return 1 if node.op in ("Dense", "MatMul", "Gemm") and weight is not None and weight.ndim == 2 else 0


def scalar_operand(draft: Draft, node: Node) -> tuple[str, float, bool] | None:
    """`constant_operand` where the constant is a number that leaves the shape of the other operand as it is."""
    found = constant_operand(draft, node)
    if found is None or (number := scalar(found[1])) is None or found[1].ndim > least_rank(draft, found[0]):
        return None
    return found[0], number, found[2]
