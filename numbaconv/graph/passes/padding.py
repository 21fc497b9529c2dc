"""Zeros around an image become padding of the convolution or pool that reads them."""

from __future__ import annotations

from dataclasses import replace

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.match import integers, scalar
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def fold_padding(graph: Graph) -> Graph:
    """The graph without Pad nodes whose zeros the next node can imply."""
    return rewrite(graph, _rule)


def _rule(draft: Draft, node: Node) -> Edit | None:
    if node.op not in ("Conv", "AveragePool"):
        return None
    pad = draft.producer(node.inputs[0])
    if pad is None or pad.op != "Pad" or draft.sole_user(node.inputs[0]) is not node:
        return None
    if (added := _spatial_zeros(draft, pad)) is None:
        return None
    own = node.attributes.get("auto_pad", "NOTSET")
    pads = node.attributes.get("pads", [0] * len(added)) if own == "NOTSET" else [0] * len(added)
    if own not in ("NOTSET", "VALID") or len(pads) != len(added):
        return None
    changed = {"pads": [a + b for a, b in zip(pads, added)], "auto_pad": "NOTSET"}
    if node.op == "AveragePool":
        # zeros of a Pad count as elements, so those of the pool itself have to
        if node.attributes.get("ceil_mode", 0) or (any(pads) and not node.attributes.get("count_include_pad", 0)):
            return None
        if draft.opset < 7 or any(p >= k for p, k in zip(changed["pads"], node.attributes["kernel_shape"] * 2)):
            return None
        changed["count_include_pad"] = 1
    inputs = (pad.inputs[0], *node.inputs[1:])
    return Edit.fuse([pad, node], replace(node, inputs=inputs, attributes={**node.attributes, **changed}, source=None))


def _spatial_zeros(draft: Draft, pad: Node) -> list[int] | None:
    """The pads of a node that adds zeros around images, all starts, then all ends; None for any other."""
    attributes = pad.attributes
    if attributes.get("mode", "constant") != "constant" or pad.operand(3):
        return None
    if draft.opset < 11:
        pads, fill = attributes.get("pads", attributes.get("paddings")), attributes.get("value", 0.0)
    else:
        pads = integers(draft.constant(pad.operand(1)))
        fill = scalar(draft.constant(pad.operand(2))) if pad.operand(2) else 0.0
    if pads is None or fill != 0 or min(pads, default=0) < 0:
        return None
    rank = len(pads) // 2
    starts, ends = list(pads[:rank]), list(pads[rank:])
    return starts[2:] + ends[2:] if rank > 2 and not any(starts[:2] + ends[:2]) else None
