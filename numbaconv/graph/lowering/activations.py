"""Activations that the tiles do not know, as operations on elements."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.elementwise import unary
from numbaconv.graph.tensors import Tensor
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers

_SELU = 1.67326319217681884765625, 1.05070102214813232421875

#: An operation on elements and its two numbers.
_OPERATIONS: dict[str, Callable[[Mapping[str, object]], tuple[str, float, float]]] = {
    "Elu": lambda a: ("elu", a.get("alpha", 1.0), 1.0),
    "Selu": lambda a: ("elu", a.get("alpha", _SELU[0]), a.get("gamma", _SELU[1])),
    "Celu": lambda a: ("celu", a.get("alpha", 1.0), 1 / a.get("alpha", 1.0)),
    "Erf": lambda a: ("erf", 0.0, 0.0),
    "Softplus": lambda a: ("softplus", 0.0, 0.0),
    "Softsign": lambda a: ("softsign", 0.0, 0.0),
    "ThresholdedRelu": lambda a: ("thresholded_relu", a.get("alpha", 1.0), 0.0),
}


@lowers(*_OPERATIONS)
def _operation(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    if not isinstance(x, Tensor) or x.dtype not in FLOATS:
        return None
    operation, alpha, beta = _OPERATIONS[node.op](node.attributes)
    return [unary(trace, operation, x, node.outputs[0], alpha, beta)]
