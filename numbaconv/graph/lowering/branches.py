"""If whose condition is known when a program is made, as it is where it asks for shapes: the branch's nodes take its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.graph.ir import Branch, Node
from numbaconv.graph.trace import Trace, Value, lowers


@lowers("If")
def _branch(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (condition,) = operands
    if not isinstance(condition, np.ndarray) or condition.size != 1:
        return None
    name = "then_branch" if condition.item() else "else_branch"
    # the node is kept with it, so that no other one can be found under its identity
    _, branch = trace.store.get((name, id(node)), lambda: (node, Branch.read(node.attributes[name])))
    before = len(trace.instructions)
    trace.values.update(branch.constants)
    for inner in branch.nodes:
        if not trace.lower(inner):
            # a shape inside depends on data: the node is run as a whole
            del trace.instructions[before:]
            trace.node = node
            return None
    return [trace.values[name] for name in branch.outputs]
