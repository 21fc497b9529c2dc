"""Activations of all names become `Activation`, whose numbers are in the normal form that the tiles know."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from numbaconv.epilogue import Activation
from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.match import is_float, scalar, scalar_operand
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite

_LARGEST = float(np.finfo(np.float32).max)


def name_activations(graph: Graph) -> Graph:
    """The graph with `Activation` for each node that is one; bounds that follow each other become one pair."""
    return rewrite(graph, _rule, _merge_bounds)


def _rule(draft: Draft, node: Node) -> Edit | None:
    read = _ACTIVATIONS.get(node.op)
    activation = read(draft, node) if read and is_float(draft, node.outputs[0]) else None
    # of Max and Min either operand may be the constant
    x = next((name for name in node.inputs if draft.constant(name) is None), "")
    if activation is None or not x:
        return None
    return Edit.fuse([node], activation_node(node, x, activation))


def activation_node(node: Node, x: str, activation: Activation) -> Node:
    """A node that gives what `node` gives, by an activation of `x`."""
    return Node("Activation", (x,), node.outputs, {"activation": activation}, node.name)


def _merge_bounds(draft: Draft, node: Node) -> Edit | None:
    """Bounds [a, b], then [c, d], are [a, b] each brought into [c, d]."""
    before = draft.producer(node.inputs[0]) if node.op == "Activation" else None
    if before is None or before.op != "Activation":
        return None
    outer, inner = node.attributes["activation"], before.attributes["activation"]
    if outer.kind != "clip" or inner.kind != "clip":
        return None
    low, high = (min(max(bound, outer.alpha), outer.beta) for bound in (inner.alpha, inner.beta))
    return Edit.fuse([node], activation_node(node, before.inputs[0], Activation("clip", low, high)))


def _clip(low: float | None, high: float | None) -> Activation | None:
    if low is None or high is None or not low <= high:  # crossed or NaN
        return None
    return Activation("clip", low, high)


def _clip_node(draft: Draft, node: Node) -> Activation | None:
    if draft.opset < 11:
        # attributes default to the largest single-precision numbers, operands to no bound
        return _clip(*(node.attributes.get(name, sign * _LARGEST) for name, sign in (("min", -1), ("max", 1))))
    bounds = ((1, -math.inf), (2, math.inf))
    return _clip(*(scalar(draft.constant(node.operand(i))) if node.operand(i) else free for i, free in bounds))


def _bound(*, lower: bool) -> Callable[[Draft, Node], Activation | None]:
    def read(draft: Draft, node: Node) -> Activation | None:
        found = scalar_operand(draft, node)
        if found is None:
            return None
        return _clip(found[1], math.inf) if lower else _clip(-math.inf, found[1])

    return read


def _leaky_relu(slope: float | None) -> Activation | None:
    return Activation("leaky_relu", slope) if slope is not None and math.isfinite(slope) else None


def _hardsigmoid(draft: Draft, node: Node) -> Activation | None:
    numbers = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return Activation("hardsigmoid", *numbers) if all(map(math.isfinite, numbers)) else None


def _gelu(draft: Draft, node: Node) -> Activation | None:
    return Activation("gelu") if node.attributes.get("approximate", "none") == "none" else None


#: Operators that are activations, and how each is read; what depends on computed numbers is none.
_ACTIVATIONS: dict[str, Callable[[Draft, Node], Activation | None]] = {
    "Relu": lambda draft, node: Activation.of("relu"),
    "Clip": _clip_node,
    "Max": _bound(lower=True),
    "Min": _bound(lower=False),
    "LeakyRelu": lambda draft, node: _leaky_relu(node.attributes.get("alpha", 0.01)),
    "PRelu": lambda draft, node: _leaky_relu(scalar(draft.constant(node.inputs[1]))),
    "Sigmoid": lambda draft, node: Activation.of("sigmoid"),
    "HardSigmoid": _hardsigmoid,
    "HardSwish": lambda draft, node: Activation.of("hardswish"),
    "Tanh": lambda draft, node: Activation.of("tanh"),
    "Gelu": _gelu,
    "Mish": lambda draft, node: Activation("mish"),
}
