"""The epilogue of a linear map takes what comes after it: first a sum with another tensor, then an activation."""

from __future__ import annotations

from dataclasses import replace

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.linear import Linear
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def fuse_epilogues(graph: Graph) -> Graph:
    """The graph with residuals as fourth operand and activations as attribute of Conv, ConvTranspose and Dense."""
    return rewrite(graph, _residual, _activation)


def _residual(draft: Draft, node: Node) -> Edit | None:
    """A sum of two tensors, at least one of which is a linear map so far without activation.

    Shapes may still turn out to differ, where one is broadcast; who runs the node then adds apart.
    """
    if node.op not in ("Add", "Sum") or len(node.inputs) != 2 or node.attributes:
        return None
    first, second = node.inputs
    if any(draft.constant(name) is not None for name in node.inputs) or known_to_differ(
        draft, *node.inputs, *node.outputs
    ):
        return None
    open_maps = [
        (linear, residual)
        for name, residual in ((first, second), (second, first))
        if draft.sole_user(name) is node
        and (linear := Linear.read(draft, draft.producer(name)))
        and linear.node.op != "ConvTranspose"
        and not linear.residual
        and linear.activation.is_identity
    ]
    if not open_maps:
        return None
    # the later one: the other tensor is there by then
    linear, residual = max(open_maps, key=lambda found: draft.position(found[0].node))
    x, weight, bias = (linear.node.operand(index) for index in range(3))
    fused = replace(linear.node, inputs=(x, weight, bias, residual), outputs=node.outputs, source=None)
    return Edit.fuse([linear.node, node], fused)


def known_to_differ(draft: Draft, *names: str) -> bool:
    """Whether two of these values have different shapes, by what is known of them."""
    shapes = [shape for name in names if (shape := draft.type(name).shape) is not None]
    if len({len(shape) for shape in shapes}) > 1:
        return True
    return any(len({size for size in sizes if isinstance(size, int)}) > 1 for sizes in zip(*shapes))


def _activation(draft: Draft, node: Node) -> Edit | None:
    if node.op != "Activation" or draft.sole_user(node.inputs[0]) is not node:
        return None
    linear = Linear.read(draft, draft.producer(node.inputs[0]))
    if linear is None or not linear.activation.is_identity:
        return None
    attributes = {**linear.node.attributes, "activation": node.attributes["activation"]}
    return Edit.fuse(
        [linear.node, node], replace(linear.node, outputs=node.outputs, attributes=attributes, source=None)
    )
