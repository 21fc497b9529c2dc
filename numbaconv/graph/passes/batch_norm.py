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
    return rewrite(graph, _fold_after, _fold_before, _fold_scale_past_shift)


def _fold_after(draft: Draft, node: Node) -> Edit | None:
    """All steps that follow a linear map at once: its weights are rounded once."""
    linear = Linear.read(draft, node)
    if linear is None or not linear.activation.is_identity:
        return None
    geometry = {"channels": linear.c_out, "axis": linear.channel_axis, "rank": linear.rank}
    total, steps, y = None, [], node.outputs[0]
    while (user := draft.sole_user(y)) and (step := Affine.read(draft, user, **geometry)):
        # a shift may be added before or after the residual, a scale may not
        if linear.residual and not step.is_shift:
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


def _step_before(draft: Draft, linear: Linear, x: str, reader: Node) -> tuple[Node, Affine] | None:
    """What computes `x` for `reader` alone, where that scales or shifts the channels of a linear map's input."""
    node = draft.producer(x)
    if node is None or draft.sole_user(x) is not reader:
        return None
    step = Affine.read(draft, node, channels=linear.c_in, axis=linear.channel_axis, rank=linear.rank)
    return None if step is None else (node, step)


def _fold_before(draft: Draft, node: Node) -> Edit | None:
    """One step before a linear map; a shift reaches the padding as well, which has to stay zero."""
    linear = Linear.read(draft, node)
    found = _step_before(draft, linear, node.inputs[0], node) if linear else None
    if found is None:
        return None
    before, step = found
    shifts = step.shift.any()
    if shifts and (linear.is_padded or node.op == "ConvTranspose"):
        return None
    weight = None if step.is_shift else linear.scaled(c_in=step.scale)
    bias = linear.response(step.shift) + (0 if linear.bias is None else linear.bias) if shifts else None
    folded, constants = linear.replaced(draft, x=step.value, weight=weight, bias=bias)
    return Edit.fuse([before, node], folded, constants=constants)


def _fold_scale_past_shift(draft: Draft, node: Node) -> Edit | None:
    """A scale goes into the weights although a shift that has to stay comes after it: ``s * x + b = s * (x + b / s)``."""
    linear = Linear.read(draft, node)
    second = _step_before(draft, linear, node.inputs[0], node) if linear else None
    first = _step_before(draft, linear, second[1].value, second[0]) if second and second[1].is_shift else None
    if first is None or first[1].shift.any():
        return None
    (add, shift), (mul, scale) = second, first
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        numbers = (shift.shift / scale.scale).astype(linear.weight.dtype)
    if not np.isfinite(numbers).all():
        return None
    (y,) = add.outputs
    shifted = draft.fresh(f"{y}.shifted")
    name = draft.fresh(f"{y}.shift")
    folded, constants = linear.replaced(draft, x=shifted, weight=linear.scaled(c_in=scale.scale))
    constants[name] = numbers.reshape(-1, *(1,) * (-linear.channel_axis - 1))
    sum_first = Node("Add", (scale.value, name), (shifted,), name=add.name)
    return Edit(((((mul, add), (sum_first,)), ((node,), (folded,)))), constants)
