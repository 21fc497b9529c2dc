"""Random inputs for a model, where its speed matters and not what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from numbaconv.errors import ModelError

if TYPE_CHECKING:
    from numbaconv.graph.model import Value


def random_feed(
    inputs: Sequence[Value], shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Standard normal numbers for every input.

    Parameters
    ----------
    inputs : sequence of Value
        What a model declares.
    shapes : mapping of str to sequence of int, optional
        Shapes of inputs by name; others have what is declared, with 1 for every free dimension.
    seed : int
        Of the random numbers.

    Raises
    ------
    ModelError
        A shape is given for an unknown input, or an input has neither a declared shape nor a given one.
    ShapeError
        A shape contradicts what is declared.
    """
    shapes = shapes or {}
    for name in shapes:
        if name not in {value.name for value in inputs}:
            known = [value.name for value in inputs]
            raise ModelError(f"the model has no input {name!r} to give a shape to; its inputs are {known}")
    rng = np.random.default_rng(seed)
    feed = {}
    for value in inputs:
        if value.dtype is None or not (value.ranked or value.name in shapes):
            raise ModelError(f"input {value.name!r} ({value.type}) has no declared shape; feed an array for it")
        shape = shapes.get(value.name) or [size if isinstance(size, int) else 1 for size in value.shape]
        value.check(np.empty(shape, value.dtype))
        feed[value.name] = rng.standard_normal(shape).astype(value.dtype)
    return feed
