"""What the graphs inside a node (the branches of If, the bodies of Loop and Scan) read from the graph around them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx


def captured_names(node: onnx.NodeProto) -> tuple[str, ...]:
    """Values of the surrounding graph that the subgraphs of a node (If, Loop, Scan) read, each once."""
    return tuple(dict.fromkeys(name for graph in _subgraphs(node) for name in _free_names(graph)))


def _subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def _free_names(graph: onnx.GraphProto) -> Iterator[str]:
    known = {value.name for value in (*graph.input, *graph.initializer)} | {""}
    for node in graph.node:
        yield from (name for name in (*node.input, *captured_names(node)) if name not in known)
        known.update(node.output)
    yield from (value.name for value in graph.output if value.name not in known)
