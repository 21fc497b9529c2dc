"""Scales and shifts of channels go into the weights and bias of the linear map before them, or of the one after them.

That covers BatchNormalization, the same spelled out in arithmetic, and a bias that is added by a node of its own.
"""

from __future__ import annotations

import numpy as np

from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.passes.affine import Affine
from numbaconv.graph.passes.linear import Linear
from numbaconv.graph.passes.rewrite import Draft, Edit, rewrite


def fold_batch_norms(graph: Graph) -> Graph:
    """The graph without scales and shifts beside linear maps; those elsewhere stay."""
    return rewrite(graph, _fold_after, _fold_before)


def _fold_after(draft: Draft, node: Node) -> Edit | None:
    """All steps that follow a linear map at once: its weights are rounded once."""
    linear = Linear.read(draft, node)
    if linear is None or not linear.activation.is_identity:
        return None
    geometry = {"channels": linear.c_out, "axis": linear.channel_axis, "rank": linear.rank}
    total, steps, y = None, [], node.outputs[0]
    while (user := draft.sole_user(y)) and (step := Affine.read(draft, user, **geometry)):
        # a shift may be added before or after the residual, a scale may not
        if step.value != y or (linear.residual and not step.is_shift):
            break
        total = step if total is None else total.then(step)
        steps.append(user)
        y = user.outputs[0]
    if total is None:
        return None
    bias = np.zeros(linear.c_out) if linear.bias is None else linear.bias
    weight = None if total.is_shift else linear.scaled(c_out=total.scale)
    folded, constants = linear.replaced(draft, y=y, weight=weight, bias=bias * total.scale + total.shift)
    return Edit.fuse([node, *steps], folded, constants=constants)


def _fold_before(draft: Draft, node: Node) -> Edit | None:
    """One step before a linear map; a shift reaches the padding as well, which has to stay zero."""
    linear = Linear.read(draft, node)
    before = draft.producer(node.inputs[0]) if linear else None
    if before is None or draft.sole_user(node.inputs[0]) is not node:
        return None
    step = Affine.read(draft, before, channels=linear.c_in, axis=linear.channel_axis, rank=linear.rank)
    if step is None or (step.shift.any() and (linear.is_padded or node.op == "ConvTranspose")):
        return None
    weight = None if step.is_shift else linear.scaled(c_in=step.scale)
    bias = None
    if step.shift.any():
        bias = linear.response(step.shift) + (0 if linear.bias is None else linear.bias)
    folded, constants = linear.replaced(draft, x=step.value, weight=weight, bias=bias)
    return Edit.fuse([before, node], folded, constants=constants)
