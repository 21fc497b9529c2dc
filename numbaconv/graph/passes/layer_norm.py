"""LayerNormalization that is spelled out in means and arithmetic becomes one node."""

from __future__ import annotations

import math
from dataclasses import replace

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.match import constant_operand, integers, is_float, scalar_operand
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def name_layer_norms(graph: Graph) -> Graph:
    """The graph with LayerNormalization for ``(x - mean) / sqrt(variance + epsilon) * scale + bias`` over the last axes."""
    return rewrite(graph, _normalise, _add_bias)


def _normalise(draft: Draft, node: Node) -> Edit | None:
    """The product with the scale, where its other factor is a normalised value."""
    if node.op != "Mul" or not is_float(draft, node.outputs[0]) or (found := constant_operand(draft, node)) is None:
        return None
    quotient, scale, _ = found
    div = _producer(draft, quotient, "Div")
    root = _producer(draft, div.inputs[1], "Sqrt") if div else None
    add = _producer(draft, root.inputs[0], "Add") if root else None
    regularised = scalar_operand(draft, add) if add else None
    variance = _producer(draft, regularised[0], "ReduceMean") if regularised else None
    square = _producer(draft, variance.inputs[0], "Pow", "Mul") if variance else None
    centred = _squared(draft, square) if square else None
    sub = _producer(draft, centred, "Sub") if centred == (div.inputs[0] if div else "") else None
    mean = _producer(draft, sub.inputs[1], "ReduceMean") if sub else None
    if mean is None or mean.inputs[0] != sub.inputs[0]:
        return None
    x, epsilon = sub.inputs[0], regularised[1]
    axis = _first_axis(draft, mean)
    if axis is None or axis != _first_axis(draft, variance) or not 0 <= epsilon < math.inf:
        return None
    shape = draft.type(x).shape
    if scale.ndim != -axis or scale.size < 2 or (shape is not None and shape[axis:] != scale.shape):
        return None
    nodes = (mean, sub, square, variance, add, root, div, node)
    if not draft.closed(nodes, node):
        return None
    (scale_name,) = (name for name in node.inputs if name != quotient)
    attributes = {"axis": axis, "epsilon": epsilon}
    return Edit.fuse(nodes, Node("LayerNormalization", (x, scale_name), node.outputs, attributes, node.name))


def _producer(draft: Draft, name: str, *ops: str) -> Node | None:
    node = draft.producer(name)
    return node if node is not None and node.op in ops else None


def _squared(draft: Draft, node: Node) -> str | None:
    """What a node multiplies by itself."""
    if node.op == "Mul":
        return node.inputs[0] if node.inputs[0] == node.inputs[1] else None
    found = scalar_operand(draft, node)
    return found[0] if found and found[1] == 2 and found[2] else None


def _first_axis(draft: Draft, node: Node) -> int | None:
    """The first of the last axes, counted from the end, where a mean is over exactly these and keeps them."""
    axes = node.attributes.get("axes") or integers(draft.constant(node.operand(1)))
    rank = draft.type(node.inputs[0]).rank
    if not axes or not node.attributes.get("keepdims", 1) or (rank is None and max(axes) >= 0):
        return None
    counted = sorted(axis if axis < 0 else axis - rank for axis in axes)
    return counted[0] if counted == list(range(-len(counted), 0)) else None


def _add_bias(draft: Draft, node: Node) -> Edit | None:
    """A constant of the scale's shape that is added to a normalised value."""
    found = constant_operand(draft, node) if node.op == "Add" else None
    norm = _producer(draft, found[0], "LayerNormalization") if found else None
    if norm is None or len(norm.inputs) != 2 or draft.sole_user(found[0]) is not node:
        return None
    scale = draft.constant(norm.inputs[1])
    if scale is None or scale.shape != found[1].shape or any(norm.outputs[1:]):
        return None
    (bias,) = (name for name in node.inputs if name != found[0])
    return Edit.fuse([norm, node], replace(norm, inputs=(*norm.inputs, bias), outputs=node.outputs, source=None))
