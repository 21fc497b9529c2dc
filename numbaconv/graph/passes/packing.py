"""Constant weights move from the graph into the nodes that read them, as objects that pack them in the forms that plans ask for.

Programs of all shapes then share what is packed, and the weights as they came in the file need not be kept.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from numbaconv.algorithms.weights import Weights
from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.linear import Linear
from numbaconv.graph.passes.rewrite import Draft


def pack_weights(graph: Graph) -> Graph:
    """The graph whose Conv and Dense nodes, alone or as stages of a Bottleneck, have an attribute `weights` instead of operands."""
    draft = Draft(graph)
    nodes = tuple(_packed(draft, node) for node in graph.nodes)
    read = {name for node in nodes for name in node.reads} | graph.output_names()
    return replace(graph, nodes=nodes, constants={k: v for k, v in graph.constants.items() if k in read})


def _packed(draft: Draft, node: Node) -> Node:
    if node.domain:
        return node
    if node.op == "Bottleneck":
        stages = tuple(_packed(draft, stage) for stage in node.attributes["stages"])
        return replace(
            node,
            inputs=tuple(dict.fromkeys(name for name in (stages[0].inputs[0], stages[-1].operand(3)) if name)),
            attributes={"stages": stages},
        )
    linear = Linear.read(draft, node) if node.op in ("Conv", "Dense") else None
    if linear is None:
        return node
    weight = linear.weight[..., None] if node.op == "Dense" else linear.weight
    # constants of a graph are never written
    weights = Weights(weight, linear.bias, linear.groups, own=True)
    return replace(
        node, inputs=(node.inputs[0], "", "", node.operand(3)), attributes={**node.attributes, "weights": weights}
    )


def weight_bytes(graph: Graph) -> int:
    """Bytes of all packed weights, as they came."""
    nodes = (stage for node in graph.nodes for stage in node.attributes.get("stages", (node,)))
    held = (node.attributes["weights"] for node in nodes if "weights" in node.attributes)
    return sum(prod(weights.shape) * weights.dtype.itemsize for weights in held)
