"""Nodes that give back what they are given: named so, or made so by the values of their constants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx.helper import tensor_dtype_to_np_dtype

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.match import integers, scalar_operand
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def remove_identities(graph: Graph) -> Graph:
    """The graph without nodes that change neither values nor shape; one between an input and an output stays."""
    return rewrite(graph, _rule)


def _rule(draft: Draft, node: Node) -> Edit | None:
    unchanged = _UNCHANGED.get(node.op)
    name = unchanged(draft, node) if unchanged else None
    return draft.without(node, name) if name else None


def _always(draft: Draft, node: Node) -> str | None:
    return node.inputs[0]


def _of_one(draft: Draft, node: Node) -> str | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


def _dropout(draft: Draft, node: Node) -> str | None:
    """Dropout outside of training."""
    if draft.opset < 7:
        return node.inputs[0] if node.attributes.get("is_test", 0) else None
    training = draft.constant(node.operand(2))
    inference = not node.operand(2) or (training is not None and not training.any())
    return node.inputs[0] if inference else None


def _cast(draft: Draft, node: Node) -> str | None:
    """Cast to the type that the value has; `to` is the name of a type before opset 6."""
    to, dtype = node.attributes.get("to"), draft.type(node.inputs[0]).dtype
    same = isinstance(to, int) and dtype is not None and np.dtype(tensor_dtype_to_np_dtype(to)) == dtype
    return node.inputs[0] if same else None


def _neutral(number: float, *, second: bool = False) -> Callable[[Draft, Node], str | None]:
    """Arithmetic with its neutral element, on either side or as the second operand only."""

    def unchanged(draft: Draft, node: Node) -> str | None:
        found = scalar_operand(draft, node)
        if found is None or found[1] != number or (second and not found[2]):
            return None
        return found[0]

    return unchanged


def _pad(draft: Draft, node: Node) -> str | None:
    """Pad by nothing."""
    pads = node.attributes.get("pads", node.attributes.get("paddings"))
    if pads is None:
        pads = integers(draft.constant(node.operand(1)))
    return node.inputs[0] if pads is not None and not any(pads) else None


def _reshape(draft: Draft, node: Node) -> str | None:
    """A change of shape that changes nothing: all sizes but one are known to stay, and so the last does."""
    before, after = draft.type(node.inputs[0]).shape, draft.type(node.outputs[0]).shape
    if before is None or after is None or len(before) != len(after):
        return None
    open_sizes = [(old, new) for old, new in zip(before, after) if old != new or not isinstance(old, int)]
    if len(open_sizes) > 1 or any(isinstance(old, int) and isinstance(new, int) for old, new in open_sizes):
        return None
    # with no elements the sizes that are known say nothing about the last
    return node.inputs[0] if not open_sizes or 0 not in before else None


_UNCHANGED: dict[str, Callable[[Draft, Node], str | None]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Concat": _of_one,
    "Sum": _of_one,
    "Max": _of_one,
    "Min": _of_one,
    "Mean": _of_one,
    "Add": _neutral(0),
    "Sub": _neutral(0, second=True),
    "Mul": _neutral(1),
    "Div": _neutral(1, second=True),
    "Pad": _pad,
    "Reshape": _reshape,
    "Flatten": _reshape,
}
