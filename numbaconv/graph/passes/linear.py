"""Conv, ConvTranspose and Dense as one thing: a linear map with constant weights, whose channels can be scaled and shifted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from numbaconv.epilogue import IDENTITY, Activation
from numbaconv.graph.ir import Node
from numbaconv.graph.passes.match import FLOATS, least_rank
from numbaconv.graph.passes.rewrite import Draft

#: Axes that the weights of a convolution may have: one to three spatial ones.
_CONVOLUTION_RANKS = (3, 4, 5)


@dataclass(frozen=True)
class Linear:
    """A node with the values of its weight and bias."""

    node: Node
    weight: np.ndarray
    bias: np.ndarray | None
    #: axes of the result that are known to be there
    rank: int

    @classmethod
    def read(cls, draft: Draft, node: Node | None) -> Linear | None:
        """The node as a linear map; None where it is another operator, or computes what we have no tiles for."""
        if node is None or node.op not in ("Conv", "ConvTranspose", "Dense"):
            return None
        weight, bias = draft.constant(node.operand(1)), draft.constant(node.operand(2))
        if weight is None or weight.dtype not in FLOATS or (node.operand(2) and bias is None):
            return None
        if node.op == "Dense":
            return cls(node, weight, bias, max(1, least_rank(draft, node.inputs[0])))
        return cls(node, weight, bias, weight.ndim) if weight.ndim in _CONVOLUTION_RANKS else None

    @property
    def groups(self) -> int:
        """Groups of channels that do not mix."""
        return self.node.attributes.get("group", 1)

    @property
    def channel_axis(self) -> int:
        """The axis of channels in input and result, counted from the end."""
        return -1 if self.node.op == "Dense" else 1 - self.rank

    @property
    def c_in(self) -> int:
        """Channels of the input."""
        return self.weight.shape[0] if self._transposed else self.weight.shape[1] * self.groups

    @property
    def c_out(self) -> int:
        """Channels of the result."""
        return self.weight.shape[1] * self.groups if self._transposed else self.weight.shape[0]

    @property
    def activation(self) -> Activation:
        """What is applied to the sum."""
        return self.node.attributes.get("activation", IDENTITY)

    @property
    def residual(self) -> str:
        """The name of what is added to the result, empty where nothing is."""
        return self.node.operand(3)

    @property
    def is_padded(self) -> bool:
        """Whether zeros may be read beside the input."""
        attributes = self.node.attributes
        return any(attributes.get("pads", ())) or attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")

    @property
    def _transposed(self) -> bool:
        return self.node.op == "ConvTranspose"

    def scaled(self, *, c_out: np.ndarray | None = None, c_in: np.ndarray | None = None) -> np.ndarray:
        """The weights times a number for each channel of the result, or of the input."""
        # (groups, first, second, *kernel): the first axis is the result's, and the input's of a transposed convolution
        rows, columns = len(self.weight) // self.groups, self.weight.shape[1]
        numbers, first = (c_in, self._transposed) if c_out is None else (c_out, not self._transposed)
        numbers = np.broadcast_to(numbers, self.c_in if c_out is None else self.c_out)
        numbers = numbers.reshape(self.groups, *((rows, 1) if first else (1, columns)), *(1,) * (self.weight.ndim - 2))
        scaled = np.empty_like(self.weight, order="C")
        split = (self.groups, rows, *self.weight.shape[1:])
        # the product of two rounded numbers: a float64 product of all weights would take four times as long
        np.multiply(self.weight.reshape(split), numbers.astype(self.weight.dtype), out=scaled.reshape(split))
        return scaled

    def response(self, x: np.ndarray) -> np.ndarray:
        """The sum of each channel of the result for an input that is the number `x` of its channel everywhere."""
        taps = self.weight.reshape(self.groups, self.c_out // self.groups, self.weight.shape[1], -1)
        taps = taps.sum(axis=-1, dtype=np.float64)
        x = np.broadcast_to(x, self.c_in).reshape(self.groups, self.weight.shape[1], 1)
        return (taps @ x).reshape(self.c_out)

    def replaced(
        self,
        draft: Draft,
        *,
        x: str = "",
        y: str = "",
        weight: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ) -> tuple[Node, dict[str, np.ndarray]]:
        """The node with other operands, and the constants that it then needs."""
        constants, names = {}, list(self.node.inputs) + [""] * (3 - len(self.node.inputs))
        y = y or self.node.outputs[0]
        for index, kind, array in ((1, "weight", weight), (2, "bias", bias)):
            if array is not None:
                names[index] = draft.fresh(f"{y}.{kind}")
                constants[names[index]] = array.astype(self.weight.dtype, copy=False)
        names[0] = x or names[0]
        while not names[-1]:
            names.pop()
        return replace(self.node, inputs=tuple(names), outputs=(y,), source=None), constants
