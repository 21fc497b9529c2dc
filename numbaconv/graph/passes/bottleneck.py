"""A depthwise convolution with the 1x1 convolutions around it is one node, so that a program may run all of them strip by strip.

Whether that pays depends on the size of the image, which only the program knows; it can still run the stages one after the other.
"""

from __future__ import annotations

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.linear import Linear
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def group_bottlenecks(graph: Graph) -> Graph:
    """The graph with `Bottleneck` nodes, whose attribute `stages` holds two or three Conv nodes.

    Epilogues must be fused before: a node reads the operands of all of its stages, and of the last one's residual.
    """
    return rewrite(graph, _group)


def _group(draft: Draft, node: Node) -> Edit | None:
    if not _is_pointwise(draft, node):
        return None
    depthwise = _stage_before(draft, node)
    if depthwise is None or not _is_depthwise(draft, depthwise):
        return None
    stages = [depthwise, node]
    expand = _stage_before(draft, depthwise)
    if expand is not None and _is_pointwise(draft, expand) and not expand.operand(3):
        stages.insert(0, expand)
    inside = {stage.outputs[0] for stage in stages}
    operands = dict.fromkeys(name for stage in stages for name in stage.reads if name not in inside)
    inputs = (stages[0].inputs[0], *(name for name in operands if name != stages[0].inputs[0]))
    fused = Node("Bottleneck", inputs, node.outputs, {"stages": tuple(stages)}, node.name)
    return Edit.fuse(stages, fused)


def _stage_before(draft: Draft, node: Node) -> Node | None:
    """The convolution that alone feeds this one."""
    name = node.inputs[0]
    producer = draft.producer(name)
    return producer if producer is not None and producer.op == "Conv" and draft.sole_user(name) is node else None


def _is_pointwise(draft: Draft, node: Node) -> bool:
    linear = Linear.read(draft, node) if node.op == "Conv" else None
    if linear is None or linear.weight.shape[2:] != (1, 1) or linear.groups > 1 or linear.is_padded:
        return False
    return all(step == 1 for step in node.attributes.get("strides", ()))


def _is_depthwise(draft: Draft, node: Node) -> bool:
    linear = Linear.read(draft, node)
    if linear is None or linear.weight.ndim != 4 or linear.residual:
        return False
    return 1 < linear.groups == linear.c_in == linear.c_out
