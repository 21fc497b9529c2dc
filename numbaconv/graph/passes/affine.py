"""One step of arithmetic with constants, read as a scale and a shift for each channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from numbaconv.graph.ir import Node
from numbaconv.graph.passes.match import constant_operand
from numbaconv.graph.passes.rewrite import Draft


@dataclass(frozen=True)
class Affine:
    """``scale * value + shift``, in double precision: one number, or one for each channel."""

    value: str
    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def read(cls, draft: Draft, node: Node, *, channels: int, axis: int, rank: int) -> Affine | None:
        """What a node does to a value of at least `rank` axes, of which `axis`, counted from the end, has the channels.

        None where it is another operator, or its constants differ along other axes or are not finite.
        """
        if node.op == "BatchNormalization":
            affine = _batch_norm(draft, node, channels, axis)
        else:
            affine = _arithmetic(draft, node, channels, axis, rank)
        if affine is None or not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()):
            return None
        return affine

    @property
    def is_shift(self) -> bool:
        """Whether nothing is scaled."""
        return bool((self.scale == 1).all())

    def then(self, after: Affine) -> Affine:
        """This step, and another one after it."""
        return Affine(self.value, self.scale * after.scale, self.shift * after.scale + after.shift)


_ZERO, _ONE = np.zeros(1), np.ones(1)


def _arithmetic(draft: Draft, node: Node, channels: int, axis: int, rank: int) -> Affine | None:
    if node.op not in ("Mul", "Div", "Add", "Sub") or (found := constant_operand(draft, node)) is None:
        return None
    value, constant, second = found
    numbers = _per_channel(constant, channels, axis, rank)
    if numbers is None:
        return None
    if node.op == "Mul":
        return Affine(value, numbers, _ZERO)
    if node.op == "Add":
        return Affine(value, _ONE, numbers)
    if node.op == "Sub":
        return Affine(value, _ONE, -numbers) if second else Affine(value, -_ONE, numbers)
    with np.errstate(divide="ignore"):
        return Affine(value, 1 / numbers, _ZERO) if second else None


def _per_channel(constant: np.ndarray, channels: int, axis: int, rank: int) -> np.ndarray | None:
    """The numbers of a constant that, broadcast against a value, differs from channel to channel only."""
    if constant.ndim > rank:
        return None
    others = list(constant.shape)
    along = others.pop(axis) if constant.ndim >= -axis else 1
    if along not in (1, channels) or any(size != 1 for size in others):
        return None
    return constant.reshape(-1).astype(np.float64)


def _batch_norm(draft: Draft, node: Node, channels: int, axis: int) -> Affine | None:
    # its channels lie along the second axis, which is the last one of matrices only
    if not _is_inference(draft, node) or (axis == -1 and draft.type(node.outputs[0]).rank != 2):
        return None
    parameters = [draft.constant(name) for name in node.inputs[1:5]]
    if len(parameters) != 4 or any(p is None or p.shape != (channels,) for p in parameters):
        return None
    gain, bias, mean, variance = (parameter.astype(np.float64) for parameter in parameters)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = gain / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
        return Affine(node.inputs[0], scale, bias - mean * scale)


def _is_inference(draft: Draft, node: Node) -> bool:
    """Training has been spelled as an attribute, as further outputs, and as the lack of an attribute."""
    attributes = node.attributes
    if any(node.outputs[1:]) or attributes.get("training_mode", 0):
        return False
    return draft.opset >= 7 or bool(attributes.get("is_test", 0))
