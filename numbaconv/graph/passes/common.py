"""A value that is computed twice in the same way is computed once."""

from __future__ import annotations

from collections import defaultdict

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.constants import is_pure
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def merge_common_nodes(graph: Graph) -> Graph:
    """The graph with one node for all those that have the same operator, operands and attributes."""
    seen: dict[tuple, list[Node]] = defaultdict(list)

    def rule(draft: Draft, node: Node) -> Edit | None:
        if not is_pure(node):
            return None
        # operands of earlier nodes are in their final form when a sweep comes to their readers
        alike = seen[node.op, node.inputs]
        for other in alike:
            # one that took the name of an output since is another node
            if draft.producer(other.outputs[0]) is other and other.attributes == node.attributes:
                return draft.without(node, other.outputs[0])
        alike.append(node)
        return None

    return rewrite(graph, rule)
