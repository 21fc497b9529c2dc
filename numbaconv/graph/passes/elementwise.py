"""Operators beside linear maps apply the activation that follows them before they write: one pass over memory less."""

from __future__ import annotations

from dataclasses import replace

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.match import is_float
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite

#: Operators that any activation follows, and those that bounds alone do.
_NORMALIZATIONS = ("BatchNormalization", "GroupNormalization", "InstanceNormalization")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")


def fuse_activations(graph: Graph) -> Graph:
    """The graph with activations as attributes of normalisations, and of arithmetic where they are bounds.

    Other passes take such nodes for what they were, so this one comes after them.
    """
    return rewrite(graph, _activation)


def _activation(draft: Draft, node: Node) -> Edit | None:
    if node.op != "Activation" or draft.sole_user(node.inputs[0]) is not node or not is_float(draft, node.inputs[0]):
        return None
    before, activation = draft.producer(node.inputs[0]), node.attributes["activation"]
    if before is None or "activation" in before.attributes or any(before.outputs[1:]):
        return None
    if before.op not in _NORMALIZATIONS and not (before.op in _ARITHMETIC and activation.kind == "clip"):
        return None
    fused = replace(before, outputs=node.outputs, attributes={**before.attributes, "activation": activation})
    return Edit.fuse([before, node], fused)
