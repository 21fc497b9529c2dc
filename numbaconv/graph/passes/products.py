"""Activations that are spelled out as products: SiLU, Mish, hard-swish, hard-sigmoid and GELU.

A product is read as one number times factors, whatever the order of its multiplications and divisions; so each activation is
described once, not in each of its spellings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from numbaconv.epilogue import Activation
from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.activations import activation_node
from numbaconv.graph.passes.match import constant_operand, is_float, least_rank, scalar, scalar_operand
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite

#: Multiplications and divisions in the longest spelling.
_LONGEST = 4


def name_products(graph: Graph) -> Graph:
    """The graph with `Activation` in place of arithmetic that amounts to one."""
    return rewrite(graph, _rule)


@dataclass(frozen=True)
class Product:
    """A number times values, and the nodes that compute it."""

    number: float
    factors: tuple[str, ...]
    nodes: tuple[Node, ...]


def _rule(draft: Draft, node: Node) -> Edit | None:
    if node.op not in ("Mul", "Div") or node.attributes or not is_float(draft, node.outputs[0]):
        return None
    product = _product(draft, node)
    if product is None:
        return None
    if len(product.factors) == 1:
        orders = (("", *product.factors),)
    else:
        orders = (product.factors, product.factors[::-1])
    for x, factor in orders:
        for read in (_gated, _hard, _gelu):
            found = read(draft, product, x, factor)
            if found is None:
                continue
            argument, activation, inner = found
            nodes = (*product.nodes, *inner)
            if draft.closed(nodes, node):
                return Edit.fuse(nodes, activation_node(node, argument, activation))
    return None


def _product(draft: Draft, root: Node) -> Product | None:
    """The product that ends in `root`: at most two factors, and numbers that leave their shape as it is."""
    number, rank, factors, nodes = 1.0, 0, [], [root]
    for node in nodes:
        if len(nodes) > _LONGEST or len(factors) > 2 or node.attributes:
            return None
        found = constant_operand(draft, node)
        if found is not None:
            value, constant, second = found
            divides = node.op == "Div"
            if (by := scalar(constant)) is None or (divides and (not second or by == 0)):
                return None
            number, rank = number / by if divides else number * by, max(rank, constant.ndim)
            operands = (value,)
        elif node.op == "Mul":
            operands = node.inputs
        else:
            return None
        for name in operands:
            producer = draft.producer(name)
            if producer is not None and producer.op in ("Mul", "Div") and draft.sole_user(name) is node:
                nodes.append(producer)
            else:
                factors.append(name)
    if not 1 <= len(factors) <= 2 or rank > max(least_rank(draft, name) for name in factors):
        return None
    return Product(number, tuple(factors), tuple(nodes))


Found = tuple[str, Activation, tuple[Node, ...]]


def _gated(draft: Draft, product: Product, x: str, factor: str) -> Found | None:
    """``x * sigmoid(x)``, ``x * hardsigmoid(x)`` and ``x * tanh(softplus(x))``."""
    gate = draft.producer(factor)
    if product.number != 1 or gate is None or gate.op != "Activation":
        return None
    activation, inner = gate.attributes["activation"], draft.producer(gate.inputs[0])
    if activation.kind == "tanh" and inner is not None and inner.op == "Softplus" and inner.inputs[0] == x:
        return x, Activation("mish"), (gate, inner)
    if gate.inputs[0] != x:
        return None
    if activation.kind == "sigmoid":
        return x, Activation("silu"), (gate,)
    if activation.kind == "hardsigmoid":
        return x, Activation("hardswish", activation.alpha, activation.beta), (gate,)
    return None


def _hard(draft: Draft, product: Product, x: str, factor: str) -> Found | None:
    """``clip(x + b, 0, c) / c``, alone or times x."""
    clip = draft.producer(factor)
    if clip is None or clip.op != "Activation":
        return None
    bounds, add = clip.attributes["activation"], draft.producer(clip.inputs[0])
    if bounds.kind != "clip" or bounds.alpha != 0 or not 0 < bounds.beta < math.inf or add is None or add.op != "Add":
        return None
    found = scalar_operand(draft, add)
    if found is None or x not in ("", found[0]) or not _close(product.number * bounds.beta, 1):
        return None
    kind = "hardswish" if x else "hardsigmoid"
    return found[0], Activation(kind, product.number, product.number * found[1]), (clip, add)


def _gelu(draft: Draft, product: Product, x: str, factor: str) -> Found | None:
    """``x * (1 + erf(x / sqrt(2))) / 2``."""
    add = draft.producer(factor)
    if not x or not _close(product.number, 0.5) or add is None or add.op != "Add":
        return None
    found = scalar_operand(draft, add)
    erf = draft.producer(found[0]) if found else None
    scale = draft.producer(erf.inputs[0]) if erf is not None and erf.op == "Erf" else None
    if scale is None or scale.op not in ("Mul", "Div") or found[1] != 1:
        return None
    by = scalar_operand(draft, scale)
    if by is None or by[0] != x or not _close(by[1], math.sqrt(0.5 if scale.op == "Mul" else 2)):
        return None
    return (x, Activation("gelu"), (add, erf, scale)) if by[2] or scale.op == "Mul" else None


def _close(a: float, b: float) -> bool:
    """Whether two numbers are the same but for rounding to single precision."""
    return math.isclose(a, b, rel_tol=1e-6)
