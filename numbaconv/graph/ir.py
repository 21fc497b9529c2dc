"""A model as a small typed graph: what the passes rewrite, and what a program is made from.

Nodes are values in an order in which they can run.  Operators keep their ONNX names and attributes; those that passes make are

- `Conv`, `ConvTranspose` (x, weight, bias, residual) with an attribute `activation`: an epilogue that the tiles apply;
- `Dense` (x, weight, bias, residual), a matrix product over the last axis of x with a constant weight (c_out, c_in);
- `Product` (a, b, addend) with attributes `alpha` and `activation`: alpha a b + addend of computed operands, and what follows it;
  one that was a Gemm has its attributes `transA` and `transB`;
- `Activation` (x), one of the tiles' activations on its own.

Normalisations and arithmetic may have the attribute `activation`, too.

An operand that is left out has the empty name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper, inliner, shape_inference

from numbaconv.errors import ModelError
from numbaconv.graph import model as models
from numbaconv.graph.subgraphs import captured_names

#: Elements of an integer constant up to which it may be a shape, and takes part in the inference of shapes.
_SHAPE_ELEMENTS = 1024


@dataclass(frozen=True)
class Node:
    """One operator; `source` is what the file says, None for a node that a pass made."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, object] = field(default_factory=dict)
    name: str = ""
    domain: str = ""
    source: onnx.NodeProto | None = None
    #: values of the graph around that subgraphs read
    captured: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What messages call the node."""
        return f"node {self.name!r} ({self.op})"

    @property
    def reads(self) -> tuple[str, ...]:
        """All values that the node needs."""
        return tuple(name for name in (*self.inputs, *self.captured) if name)

    def operand(self, index: int) -> str:
        """The name of an operand, empty where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def proto(self) -> onnx.NodeProto:
        """The node as ONNX, with its present operands and without its activation."""
        if self.source is None:
            attributes = {name: value for name, value in self.attributes.items() if name != "activation"}
            return helper.make_node(self.op, self.inputs, self.outputs, self.name, domain=self.domain, **attributes)
        proto = onnx.NodeProto()
        proto.CopyFrom(self.source)
        del proto.input[:], proto.output[:]
        proto.input.extend(self.inputs)
        proto.output.extend(self.outputs)
        return proto


@dataclass(frozen=True)
class Type:
    """What is known of a value before it is computed: element type, and a shape of numbers, names and None, or None."""

    dtype: np.dtype | None = None
    shape: tuple[int | str | None, ...] | None = None

    @property
    def rank(self) -> int | None:
        """The number of axes, where it is known."""
        return None if self.shape is None else len(self.shape)


@dataclass(frozen=True)
class Graph:
    """Inputs, outputs, the nodes in between, and the constants that they read."""

    inputs: tuple[models.Value, ...]
    outputs: tuple[models.Value, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    types: Mapping[str, Type]
    opsets: Mapping[str, int]

    @property
    def opset(self) -> int:
        """Version of the default domain."""
        return self.opsets[""]

    def type(self, name: str) -> Type:
        """What is known of a value."""
        constant = self.constants.get(name)
        return self.types.get(name, Type()) if constant is None else Type(constant.dtype, constant.shape)

    def users(self) -> dict[str, list[Node]]:
        """The nodes that read each value."""
        users = defaultdict(list)
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                users[name].append(node)
        return users

    def producers(self) -> dict[str, Node]:
        """The node that computes each value."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def output_names(self) -> set[str]:
        """Values that the caller asks for: they have to exist under their name."""
        return {value.name for value in self.outputs}

    def with_nodes(self, nodes: Iterable[Node], constants: Mapping[str, np.ndarray] | None = None) -> Graph:
        """The same graph with other nodes, in any order, and further constants."""
        merged = {**self.constants, **(constants or {})}
        known = {value.name for value in self.inputs} | set(merged)
        return replace(self, nodes=ordered(tuple(nodes), known), constants=merged)


def ordered(nodes: tuple[Node, ...], known: set[str]) -> tuple[Node, ...]:
    """Nodes in an order in which each runs after those that it reads from; as they come, where that is one.

    Raises
    ------
    ModelError
        Nodes read from each other in a circle, or one reads a value that nothing computes.
    """
    producers = {name: i for i, node in enumerate(nodes) for name in node.outputs if name}
    for node in nodes:
        for name in node.reads:
            if name not in known and name not in producers:
                raise ModelError(
                    f"{node.label} reads {name!r}, which is neither an input nor a constant, and which no node computes"
                )
    seen, sorted_already = set(known), True
    for node in nodes:
        sorted_already &= seen.issuperset(node.reads)
        seen.update(node.outputs)
    if sorted_already:
        return nodes
    sorter = TopologicalSorter(
        {i: {producers[name] for name in node.reads if name not in known} for i, node in enumerate(nodes)}
    )
    try:
        return tuple(nodes[i] for i in sorter.static_order())
    except CycleError as error:
        around = " -> ".join(nodes[i].label for i in error.args[1])
        raise ModelError(f"the graph has a cycle: {around}") from error


def read_graph(model: onnx.ModelProto) -> Graph:
    """The graph of a model, its own functions inlined.

    Raises
    ------
    ModelError
        The opset is unknown, a node reads what nothing computes, nodes form a cycle, or an output is never computed.
    """
    opsets = _opsets(model)
    if model.functions:
        try:
            model = inliner.inline_local_functions(model)
        except Exception as error:
            raise ModelError(f"the functions of the model cannot be inlined: {error}") from error
    graph = model.graph
    if graph.sparse_initializer:
        raise ModelError("the model stores sparse initialisers, which are not supported")
    constants = {tensor.name: models.constant(tensor) for tensor in graph.initializer}
    inputs = tuple(models.describe(info) for info in graph.input if info.name not in constants)
    outputs = tuple(models.describe(info) for info in graph.output)
    known = {value.name for value in inputs} | set(constants)
    nodes = ordered(tuple(_node(proto) for proto in graph.node), known)
    computed = known.union(*(node.outputs for node in nodes))
    if missing := [value.name for value in outputs if value.name not in computed]:
        raise ModelError(f"output {missing[0]!r} is produced by no node")
    return Graph(inputs, outputs, nodes, constants, _types(model, constants), opsets)


class Branch(NamedTuple):
    """A graph inside a node: it reads values of the one around it by their names, which its own do not repeat."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    outputs: tuple[str, ...]

    @classmethod
    def read(cls, graph: onnx.GraphProto) -> Branch:
        """The branch of an If."""
        constants = {tensor.name: models.constant(tensor) for tensor in graph.initializer}
        return cls(tuple(map(_node, graph.node)), constants, tuple(value.name for value in graph.output))


def _node(part: onnx.NodeProto) -> Node:
    # a part of a message keeps all of it alive, weights included
    proto = onnx.NodeProto()
    proto.CopyFrom(part)
    values = {a.name: helper.get_attribute_value(a) for a in proto.attribute if not a.ref_attr_name}
    return Node(
        op=proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes={name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()},
        name=proto.name or next(filter(None, proto.output), ""),
        # "ai.onnx" is the long name of the default domain
        domain="" if proto.domain == "ai.onnx" else proto.domain,
        source=proto,
        captured=captured_names(proto),
    )


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    # a model older than opsets has version 1
    opsets = {"": 1}
    opsets.update(("" if entry.domain == "ai.onnx" else entry.domain, entry.version) for entry in model.opset_import)
    newest = onnx.defs.onnx_opset_version()
    if not 1 <= opsets[""] <= newest:
        raise ModelError(f"the model uses opset {opsets['']}, onnx {onnx.__version__} knows opsets 1 to {newest}")
    return opsets


def _types(model: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> dict[str, Type]:
    """Inferred types of all values.  Large constants take part as types alone, which saves copying them."""
    stripped = onnx.ModelProto()
    stripped.ir_version = model.ir_version
    stripped.opset_import.extend(model.opset_import)
    imported = {entry.domain for entry in model.opset_import}
    unknown = {node.domain for node in model.graph.node} - imported - {"", "ai.onnx"}
    stripped.opset_import.extend(helper.make_opsetid(domain, 1) for domain in unknown)
    graph = stripped.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(info for info in model.graph.input if info.name not in constants)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    for tensor in model.graph.initializer:
        if constants[tensor.name].size <= _SHAPE_ELEMENTS and constants[tensor.name].dtype.kind in "iu":
            graph.initializer.append(tensor)
        else:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    try:
        graph = shape_inference.infer_shapes(stripped, data_prop=True).graph
    except shape_inference.InferenceError as error:
        raise ModelError(f"the model contradicts itself: {error}") from error
    described = (models.describe(info) for info in (*graph.input, *graph.value_info, *graph.output))
    return {value.name: Type(value.dtype, tuple(value.shape) if value.ranked else None) for value in described}
