"""Changes of shape and of the order of axes, one after the other: only what they come to together is done."""

from __future__ import annotations

from dataclasses import replace

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.match import integers
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite

#: Operators that keep the elements in their order.
_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
_INVERSE = {"Squeeze": "Unsqueeze", "Unsqueeze": "Squeeze"}


def merge_transposes(graph: Graph) -> Graph:
    """The graph with chains of Transpose, of Reshape, and of Squeeze and Unsqueeze as one node or none."""
    return rewrite(graph, _transpose, _reshape, _squeeze)


def _permutation(draft: Draft, node: Node) -> tuple[int, ...] | None:
    rank = draft.type(node.inputs[0]).rank
    perm = node.attributes.get("perm")
    if perm is None:
        return None if rank is None else tuple(reversed(range(rank)))
    return tuple(perm)


def _transpose(draft: Draft, node: Node) -> Edit | None:
    if node.op != "Transpose" or (outer := _permutation(draft, node)) is None:
        return None
    if outer == tuple(range(len(outer))):
        return draft.without(node, node.inputs[0])
    before = draft.producer(node.inputs[0])
    if before is None or before.op != "Transpose" or (inner := _permutation(draft, before)) is None:
        return None
    perm = [inner[axis] for axis in outer]
    if perm == sorted(perm) and (edit := draft.without(node, before.inputs[0])):
        return edit
    return Edit.fuse([node], replace(node, inputs=before.inputs, attributes={"perm": perm}, source=None))


def _reshape(draft: Draft, node: Node) -> Edit | None:
    """A shape without zeros, which would be copied from the operand, is the same whatever the shape before it."""
    if node.op != "Reshape" or (before := draft.producer(node.inputs[0])) is None or before.op not in _RESHAPING:
        return None
    shape = integers(draft.constant(node.operand(1)))
    if shape is None or 0 in shape:
        return None
    return Edit.fuse([node], replace(node, inputs=(before.inputs[0], node.inputs[1])))


def _axes(draft: Draft, node: Node) -> list[int] | None:
    axes = node.attributes.get("axes") or integers(draft.constant(node.operand(1)))
    return None if axes is None else sorted(axes)


def _squeeze(draft: Draft, node: Node) -> Edit | None:
    """Axes are counted in the larger of the two shapes, so a pair cancels where its lists are the same."""
    if node.op not in _INVERSE:
        return None
    before = draft.producer(node.inputs[0])
    if before is None or before.op != _INVERSE[node.op]:
        return None
    axes = _axes(draft, node)
    return draft.without(node, before.inputs[0]) if axes and axes == _axes(draft, before) else None
