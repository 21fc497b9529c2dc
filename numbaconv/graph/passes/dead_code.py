"""Nodes on which no output depends, and constants that nothing reads, are dropped; with the constants goes their memory."""

from __future__ import annotations

from dataclasses import replace

from numbaconv.graph.ir import Graph


def remove_dead_code(graph: Graph) -> Graph:
    """The graph without what no output needs."""
    needed, nodes = graph.output_names(), []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            needed.update(node.reads)
            nodes.append(node)
    constants = {name: array for name, array in graph.constants.items() if name in needed}
    if len(nodes) == len(graph.nodes) and len(constants) == len(graph.constants):
        return graph
    return replace(graph, nodes=tuple(reversed(nodes)), constants=constants)
