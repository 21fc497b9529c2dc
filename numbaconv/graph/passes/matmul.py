"""Gemm and MatMul of computed operands become `Product`, which takes the arithmetic around it: factors, a sum, an activation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.match import is_float, scalar_operand
from numbaconv.graph.passes.residual import known_to_differ
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def fuse_matrix_products(graph: Graph) -> Graph:
    """The graph with `Product` for matrix products that are no `Dense`, and what these compute in passing in its attributes."""
    return rewrite(graph, _product, _factor_before, _factor_after, _addend, _activation)


def _product(draft: Draft, node: Node) -> Edit | None:
    if node.op not in ("MatMul", "Gemm") or not is_float(draft, node.outputs[0]):
        return None
    if all(draft.constant(name) is not None for name in node.inputs[:2]):
        return None
    a, b, addend = (node.operand(index) for index in range(3))
    attributes, constants = {"alpha": 1.0}, {}
    if node.op == "Gemm":
        attributes = {"alpha": node.attributes.get("alpha", 1.0)}
        attributes |= {name: node.attributes.get(name, 0) for name in ("transA", "transB")}
        beta, constant = node.attributes.get("beta", 1.0), draft.constant(addend)
        if beta == 0:
            addend = ""
        elif constant is not None and beta != 1:
            addend = draft.fresh(f"{node.outputs[0]}.addend")
            constants[addend] = (constant * beta).astype(constant.dtype)
        elif addend and beta != 1:
            return None
    product = Node("Product", (a, b, addend) if addend else (a, b), node.outputs, attributes, node.name)
    return Edit.fuse([node], product, constants=constants)


def _with(product: Node, *, outputs: tuple[str, ...] = (), inputs: tuple[str, ...] = (), **attributes) -> Node:
    """The product with other operands, results or attributes."""
    return replace(
        product,
        inputs=inputs or product.inputs,
        outputs=outputs or product.outputs,
        attributes={**product.attributes, **attributes},
    )


def _is_open(product: Node | None) -> bool:
    """Whether a node is a product that nothing is added to yet."""
    return product is not None and product.op == "Product" and not product.operand(2) and not _activated(product)


def _activated(product: Node) -> bool:
    return "activation" in product.attributes


def _factor(draft: Draft, node: Node | None) -> tuple[str, float] | None:
    """What a node multiplies by a number that leaves its shape as it is, and the number."""
    if node is None or node.op not in ("Mul", "Div") or (found := scalar_operand(draft, node)) is None:
        return None
    value, number, second = found
    if node.op == "Mul":
        return (value, number) if np.isfinite(number) else None
    return (value, 1 / number) if second and number and np.isfinite(1 / number) else None


def _factor_before(draft: Draft, node: Node) -> Edit | None:
    if node.op != "Product":
        return None
    for index in range(2):
        name = node.inputs[index]
        scale = draft.producer(name)
        if draft.sole_user(name) is node and (found := _factor(draft, scale)):
            inputs = tuple(found[0] if i == index else operand for i, operand in enumerate(node.inputs))
            return Edit.fuse([scale, node], _with(node, inputs=inputs, alpha=node.attributes["alpha"] * found[1]))
    return None


def _factor_after(draft: Draft, node: Node) -> Edit | None:
    if not _is_open(node) or (user := draft.sole_user(node.outputs[0])) is None:
        return None
    found = _factor(draft, user)
    if found is None:
        return None
    return Edit.fuse([node, user], _with(node, outputs=user.outputs, alpha=node.attributes["alpha"] * found[1]))


def _addend(draft: Draft, node: Node) -> Edit | None:
    """A sum with another tensor, which may be broadcast; where that turns out to be the larger one, it is added apart."""
    if node.op != "Add" or node.attributes:
        return None
    for name, addend in (node.inputs, node.inputs[::-1]):
        product = draft.producer(name)
        if draft.sole_user(name) is node and _is_open(product) and not known_to_differ(draft, name, *node.outputs):
            return Edit.fuse(
                [product, node], _with(product, inputs=(*product.inputs[:2], addend), outputs=node.outputs)
            )
    return None


def _activation(draft: Draft, node: Node) -> Edit | None:
    if node.op != "Activation" or draft.sole_user(node.inputs[0]) is not node:
        return None
    product = draft.producer(node.inputs[0])
    if product is None or product.op != "Product" or _activated(product):
        return None
    return Edit.fuse([product, node], _with(product, outputs=node.outputs, activation=node.attributes["activation"]))
