"""Concat without copies: what a first walk found out about shapes says which values a second one writes into slices."""

from __future__ import annotations

from numbaconv.graph.tensors import Place, Tensor, channels_last
from numbaconv.graph.trace import FLOATS, Slice, Trace


def plan_slices(trace: Trace) -> tuple[dict[str, Slice], dict[str, tuple[int, ...]]]:
    """Slices by value, and the shapes of the results that they are slices of.

    Only values that have channels-last memory of their own qualify, each for one Concat: the others are copied there.
    """
    slices: dict[str, Slice] = {}
    wholes: dict[str, tuple[int, ...]] = {}
    constants = trace.graph.constants
    for node in trace.graph.nodes[: trace.stopped]:
        if node.op != "Concat" or node.domain:
            continue
        (name,) = node.outputs
        result = trace.values[name]
        if not isinstance(result, Tensor) or len(result.shape) < 3 or result.dtype not in FLOATS:
            continue
        if node.attributes.get("axis", 1) % len(result.shape) != 1 or not result.is_dense(
            channels_last(len(result.shape))
        ):
            continue
        start, placed = 0, {}
        for operand in node.inputs:
            value = trace.values[operand]
            free = operand not in slices and operand not in placed and operand not in trace.outputs
            if free and operand not in constants and _owns_memory(value):
                placed[operand] = Slice(name, start)
            start += value.shape[1]
        if placed:
            slices |= placed
            wholes[name] = result.shape
    return slices, wholes


def _owns_memory(value) -> bool:
    """Whether a tensor fills a buffer of its own, so that it may be made elsewhere."""
    return (
        isinstance(value, Tensor)
        and value.buffer.place is Place.ARENA
        and value.buffer.nbytes == value.view.nbytes
        and value.is_dense(channels_last(len(value.shape)))
    )
