"""Functions that make a layer and call it once: what the docstrings of all of them say of their arrays, said once."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc
from typing import TypeVar

import numpy as np

from numbaconv.arguments import operand

Function = TypeVar("Function", bound=Callable[..., np.ndarray])

_PARAGRAPHS = {
    "x": """x : array, (n, c_in, {sizes}) or (n, {sizes}, c_in) as `layout` says, or without n
    float32 or float64; all arrays have one dtype.""",
    "residual": """residual : array of the result's shape, optional
    Added before the activation.""",
    "out": """out : ndarray of the result's shape, optional
    Where the result goes; it must not overlap `x`.""",
}


def described(layer: type, words: str = "") -> Callable[[Function], Function]:
    """Fill in the docstring of a function: {x}, {residual} and {out}, the {layer}, its {sizes} and {kernel}, and {words}."""
    axes = "dhw"[-layer.axes :]
    known = {"layer": layer.__name__, "words": words, "sizes": ", ".join(axes)}
    known |= {"kernel": ", ".join(f"k_{axis}" for axis in axes)}
    known |= {name: text.format(**known) for name, text in _PARAGRAPHS.items()}

    def fill(function: Function) -> Function:
        if function.__doc__ is not None:  # python -OO drops it
            function.__doc__ = cleandoc(function.__doc__).format(**known)
        return function

    return fill


def run_once(layer: type, x, weight, *settings, residual, out, **options) -> np.ndarray:
    """Make a layer and call it."""
    x = operand("x", x)
    return layer(operand("weight", weight, x.dtype), *settings, **options)(x, residual=residual, out=out)
