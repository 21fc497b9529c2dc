"""Arithmetic on elements of any type, trigonometry, and activations outside of float32 and float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, makes

_FUNCTIONS: dict[str, Callable] = {
    **{
        name: getattr(np, function)
        for name, function in {
            "Add": "add",
            "Sub": "subtract",
            "Mul": "multiply",
            "Neg": "negative",
            "Abs": "absolute",
            "Sqrt": "sqrt",
            "Reciprocal": "reciprocal",
            "Exp": "exp",
            "Log": "log",
            "Floor": "floor",
            "Ceil": "ceil",
            "Round": "rint",
            "Sign": "sign",
            "Sin": "sin",
            "Cos": "cos",
            "Tan": "tan",
            "Asin": "arcsin",
            "Acos": "arccos",
            "Atan": "arctan",
            "Sinh": "sinh",
            "Cosh": "cosh",
            "Tanh": "tanh",
            "Asinh": "arcsinh",
            "Acosh": "arccosh",
            "Atanh": "arctanh",
        }.items()
    },
    "Relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Softplus": lambda x: np.logaddexp(x.dtype.type(0), x),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "HardSwish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "Mish": lambda x: x * np.tanh(np.logaddexp(x.dtype.type(0), x)),
    "Erf": lambda x: _erf(x),
    "PRelu": lambda x, slope: np.where(x < 0, slope * x, x),
    "Identity": lambda x: x,
}

_erf_of_one = np.frompyfunc(math.erf, 1, 1)
_SQRT_HALF = math.sqrt(0.5)


def _erf(x: np.ndarray) -> np.ndarray:
    return np.asarray(_erf_of_one(x), x.dtype)


def broadcast_as(node: Node, opset: int, function: Callable) -> Callable:
    """The function of two operands of which, before opset 7, the second one starts at an axis of the first."""
    slopes = node.op == "PRelu"
    if opset >= 7 or not (node.attributes.get("broadcast") or slopes):
        return function

    def run(a, b):
        axis = node.attributes.get("axis", 1 if slopes and b.size > 1 else a.ndim - b.ndim)
        return function(a, b.reshape(b.shape + (1,) * (a.ndim - b.ndim - axis)))

    return run


def _same_type(function: Callable) -> Function:
    """The function with results of its first operand's type."""
    return lambda x, *rest: np.asarray(function(x, *rest)).astype(x.dtype, copy=False)


@makes(*_FUNCTIONS)
def _elementwise(node: Node, opset: int) -> Function | None:
    return _same_type(broadcast_as(node, opset, _FUNCTIONS[node.op]))


@makes("Div")
def _divide(node: Node, opset: int) -> Function | None:
    def run(a, b):
        if a.dtype.kind == "f":
            return np.divide(a, b)
        # integers are cut off towards zero
        quotient = np.floor_divide(a, b)
        inexact = (a % b != 0) & ((a < 0) != (b < 0))
        return (quotient + inexact).astype(a.dtype)

    return broadcast_as(node, opset, run)


@makes("Pow")
def _power(node: Node, opset: int) -> Function | None:
    return _same_type(broadcast_as(node, opset, np.power))


@makes("Mod")
def _modulo(node: Node, opset: int) -> Function:
    return np.fmod if node.attributes.get("fmod", 0) else np.mod


def _variadic(combine: Callable) -> Callable[[Node, int], Function]:
    def make(node: Node, opset: int) -> Function:
        def run(first, *rest):
            total = first
            for operand in rest:
                total = combine(total, operand)
            return total.copy() if total is first else total

        return run

    return make


for _op, _combine in (("Max", np.maximum), ("Min", np.minimum), ("Sum", np.add)):
    makes(_op)(_variadic(_combine))


@makes("Mean")
def _mean(node: Node, opset: int) -> Function:
    return lambda *operands: (sum(operands[1:], operands[0]) / len(operands)).astype(operands[0].dtype)


@makes("Clip")
def _clip(node: Node, opset: int) -> Function:
    bounds = node.attributes.get("min"), node.attributes.get("max")

    def run(x, low=None, high=None):
        low, high = bounds if opset < 11 else (low, high)
        y = x if low is None else np.maximum(x, np.asarray(low, x.dtype))
        return (
            y.copy() if y is x and high is None else (y if high is None else np.minimum(y, np.asarray(high, x.dtype)))
        )

    return run


#: Activations with numbers: the function of x and the attributes, whose usual values follow.
_WITH_NUMBERS: dict[str, tuple[Callable, dict[str, float]]] = {
    "LeakyRelu": (lambda x, alpha: np.where(x < 0, alpha * x, x), {"alpha": 0.01}),
    "HardSigmoid": (lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1), {"alpha": 0.2, "beta": 0.5}),
    "Elu": (lambda x, alpha: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x), {"alpha": 1.0}),
    "Celu": (lambda x, alpha: np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha)), {"alpha": 1.0}),
    "Selu": (
        lambda x, alpha, gamma: gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0))),
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    ),
    "ThresholdedRelu": (lambda x, alpha: np.where(x > alpha, x, 0), {"alpha": 1.0}),
    "Shrink": (
        lambda x, bias, lambd: np.where(x < -lambd, x + bias, np.where(x > lambd, x - bias, 0)),
        {"bias": 0.0, "lambd": 0.5},
    ),
    "Swish": (lambda x, alpha: x / (1 + np.exp(-alpha * x)), {"alpha": 1.0}),
}


@makes(*_WITH_NUMBERS)
def _with_numbers(node: Node, opset: int) -> Function:
    function, usual = _WITH_NUMBERS[node.op]
    numbers = {name: node.attributes.get(name, value) for name, value in usual.items()}
    return _same_type(lambda x: function(x, **numbers))


@makes("Gelu")
def _gelu(node: Node, opset: int) -> Function:
    if node.attributes.get("approximate", "none") == "tanh":
        root = math.sqrt(2 / math.pi)
        return _same_type(lambda x: 0.5 * x * (1 + np.tanh(root * (x + 0.044715 * x**3))))
    return _same_type(lambda x: 0.5 * x * (1 + _erf(x * _SQRT_HALF)))
