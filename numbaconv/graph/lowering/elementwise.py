"""Arithmetic and activations on elements, by the generated operations; other element types and rare functions stay with NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from numbaconv.epilogue import IDENTITY, Activation
from numbaconv.errors import ShapeError
from numbaconv.graph import strided
from numbaconv.graph.instructions import Compiled, Host, fused_name
from numbaconv.graph.ir import Node
from numbaconv.graph.tensors import Tensor, channels_last, memory_order
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers

_BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "PRelu": "prelu"}
#: Exponents that are worth multiplying for.
_LARGEST_POWER = 4
_VARIADIC = {"Max": "maximum", "Min": "minimum", "Sum": "add"}
_UNARY = {
    "Neg": "negative",
    "Abs": "absolute",
    "Sqrt": "sqrt",
    "Reciprocal": "reciprocal",
    "Exp": "exp",
    "Log": "log",
    "Floor": "floor",
    "Ceil": "ceil",
    "Round": "round",
}


def _order_of(tensor: Tensor) -> Callable[[int], tuple[int, ...]]:
    """The order of axes in which a result lies best: that of the operand, whatever gaps it has."""
    order = memory_order(tensor.view)
    # an axis of length one may stand anywhere; where it can, the usual order is kept
    if len(tensor.shape) > 2 and (tensor.pitch() is not None or tensor.is_dense(channels_last(len(tensor.shape)))):
        order = channels_last(len(tensor.shape))
    return lambda rank: order


def broadcast_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what two operands make element by element.

    Raises
    ------
    ShapeError
        They contradict each other.
    """
    try:
        return np.broadcast_shapes(a, b)
    except ValueError as error:
        raise ShapeError(f"operands of shapes {a} and {b} cannot be broadcast to one shape") from error


def unary(trace: Trace, operation: str, x: Tensor, name: str, alpha: float = 0.0, beta: float = 0.0) -> Tensor:
    """Emit a function of one operand."""
    out = trace.new(name, x.shape, x.dtype, _order_of(x))
    work = strided.elementwise(operation, out, [x], alpha, beta)
    if work is None:
        return unary(trace, operation, trace.ordered(x, lambda rank: tuple(range(rank))), name, alpha, beta)
    trace.emit(Compiled(trace.node.op, trace.node.name, (x,), out, work, in_place=(0,)))
    return out


def activate(trace: Trace, x: Tensor, activation: Activation, name: str) -> Tensor:
    """Emit an activation."""
    return unary(trace, activation.kind, x, name, activation.alpha, activation.beta)


def combine(trace: Trace, operation: str, a: Value, b: Value, name: str, clip: Activation = IDENTITY) -> Tensor:
    """Emit a function of two operands, which are broadcast, clamped to the bounds of `clip`."""
    shape = broadcast_shape(a.shape, b.shape)
    # the result lies as the larger operand does, and constants are laid out to match
    first, second = (trace.tensor(value) for value in (a, b))
    leader = max((v for v in (first, second) if v.shape == shape), key=_computed, default=None)
    if leader is None:
        leader = first if len(first.shape) >= len(second.shape) else second
    order = _order_of(leader) if len(leader.shape) == len(shape) else channels_last
    axes = order(len(shape))
    operands = [_aligned(trace, value, axes) for value in (a, b)]
    out = trace.new(name, shape, operands[0].dtype, lambda rank: axes)
    work = strided.elementwise(operation, out, operands, clip.alpha, clip.beta)
    if work is None:
        operands = [trace.ordered(operand, lambda rank: tuple(range(rank))) for operand in operands]
        out = trace.new(name, shape, operands[0].dtype)
        work = strided.elementwise(operation, out, operands, clip.alpha, clip.beta)
    in_place = tuple(i for i, operand in enumerate(operands) if operand.shape == shape)
    op = fused_name(trace.node.op, None, clip)
    trace.emit(Compiled(op, trace.node.name, tuple(operands), out, work, in_place=in_place))
    return out


def _computed(tensor: Tensor) -> tuple[bool, int]:
    return tensor.buffer.array is None, tensor.view.size


def _aligned(trace: Trace, value: Value, axes: tuple[int, ...]) -> Tensor:
    """An operand whose own axes lie in the order of the result's; large ones that do not are copied."""
    missing = len(axes) - len(value.shape)
    own = tuple(axis - missing for axis in axes if axis >= missing)
    if isinstance(value, np.ndarray):
        return Tensor.constant(value, own)
    real = [axis for axis in own if value.shape[axis] > 1]
    strides = [abs(value.view.strides[axis]) for axis in real]
    if strides == sorted(strides, reverse=True):
        return value
    return trace.ordered(value, lambda rank: own)


def _floats(*values: Value) -> bool:
    return all(value.dtype in FLOATS for value in values)


@lowers("Activation")
def _activation(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    return [activate(trace, trace.tensor(operands[0]), node.attributes["activation"], node.outputs[0])]


@lowers(*_UNARY)
def _unary(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    if isinstance(x, np.ndarray) or not _floats(x):
        return None
    return [unary(trace, _UNARY[node.op], x, node.outputs[0])]


@lowers(*_BINARY)
def _binary(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    a, b = operands
    if not _computed_floats(a, b) or (trace.graph.opset < 7 and a.shape != b.shape):
        return None
    bounds = node.attributes.get("activation", IDENTITY)
    return [combine(trace, _BINARY[node.op], a, b, node.outputs[0], bounds)]


@lowers(*_VARIADIC)
def _variadic(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    if len(operands) < 2 or not _computed_floats(*operands):
        return None
    total = operands[0]
    for operand in operands[1:-1]:
        total = combine(trace, _VARIADIC[node.op], total, operand, "")
    return [combine(trace, _VARIADIC[node.op], total, operands[-1], node.outputs[0])]


def _computed_floats(*values: Value) -> bool:
    return _floats(*values) and any(isinstance(value, Tensor) for value in values)


def _power_of(trace: Trace, x: Tensor, quarters: int, name: str) -> Tensor:
    """Emit x to so many quarters, as a product of x, its square root and the root of that."""
    if quarters < 0:
        return unary(trace, "reciprocal", _power_of(trace, x, -quarters, ""), name)
    whole, rest = divmod(quarters, 4)
    factors, root = [x] * whole, x
    for part in (2, 1):
        if rest:
            last = not factors and rest == part
            root = unary(trace, "sqrt", root, name if last else "")
        if rest >= part:
            factors, rest = [*factors, root], rest - part
    total = factors[0]
    for number, factor in enumerate(factors[1:], 2):
        total = combine(trace, "multiply", total, factor, name if number == len(factors) else "")
    return total if len(factors) > 1 or quarters < 4 else unary(trace, "affine", x, name, 1.0)


@lowers("Pow")
def _power(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """Powers that are products of few roots; others are NumPy's."""
    x, exponent = operands
    if not isinstance(x, Tensor) or not _floats(x):
        return None
    known = isinstance(exponent, np.ndarray) and exponent.size == 1 and exponent.ndim <= len(x.shape)
    if known and 1 <= abs(4 * exponent.item()) <= 4 * _LARGEST_POWER and 4 * exponent.item() % 1 == 0:
        return [_power_of(trace, x, int(4 * exponent.item()), node.outputs[0])]
    shape = broadcast_shape(x.shape, exponent.shape)
    out = trace.new(node.outputs[0], shape, x.dtype)
    trace.emit(
        Host(node.op, node.name, (x, exponent), (out,), lambda x, e: (np.power(x, e).astype(x.dtype, copy=False),))
    )
    return [out]
