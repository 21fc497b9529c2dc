"""Operators without a lowering: steps in Python, by NumPy where we have a function for it, else by the `onnx` package's reference.

A step needs to know the shapes of its results before it runs; the `onnx` package infers them from the operands' types and from the
values that are known.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

from numbaconv.errors import ConvError, ModelError
from numbaconv.graph.instructions import Host
from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.kernels import Kernel, make_kernel
from numbaconv.graph.operators import covered
from numbaconv.graph.reference import ReferenceKernel
from numbaconv.graph.tensors import Tensor, memory_order, row_major
from numbaconv.graph.trace import CHECKS, LOWERINGS, Store, Trace, Value

logger = logging.getLogger("numbaconv")

#: Operators that must run anew each time although all their inputs are constant.
RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


@cache
def _warn(op: str, domain: str) -> None:
    """Say, once a process, that an operator is run slowly."""
    name = f"{domain}.{op}" if domain else op
    logger.warning("operator %s is run by the onnx package's reference implementation, which is slow", name)


def kernel(store: Store, node: Node, opsets: Mapping[str, int], operands: Sequence[object] = ()) -> Kernel:
    """What runs a node on operands of these types, made once a session."""
    own = covered(operands)
    # the node is kept with its kernel, so that no other one can be found under its identity
    return store.get(("evaluator", id(node), own), lambda: (node, make_kernel(node, opsets, operands)))[1]


def check(graph: Graph, store: Store) -> None:
    """Raise for nodes that can never run: operators that nobody knows, attributes that contradict each other."""
    for node in graph.nodes:
        lowered = not node.domain and node.op in LOWERINGS
        try:
            if not lowered:
                kernel(store, node, graph.opsets)
            if node.op in CHECKS and not node.domain:
                CHECKS[node.op](graph, node)
        except ConvError as error:
            raise type(error)(f"{node.label}: {error}") from error


def lower(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """The node as a host step, or its results if all operands are known; None if the shapes of its results are not known yet."""
    operands = [*operands, *(trace.values[name] for name in node.captured)]
    if any(isinstance(operand, Opaque) for operand in operands):
        return None
    subgraphs = any(isinstance(value, onnx.GraphProto) for value in node.attributes.values())
    known = all(operand is None or isinstance(operand, np.ndarray) for operand in operands)
    if known and node.op not in RANDOM and not subgraphs:
        return evaluate(node, kernel(trace.store, node, trace.graph.opsets, operands), operands)
    outputs = None if subgraphs else _result_types(trace, node, operands)
    if outputs is None:
        return None
    run = kernel(trace.store, node, trace.graph.opsets, operands)
    results = [
        trace.new(name, shape, dtype, _order_for(shape, operands))
        for name, (shape, dtype) in zip(filter(None, node.outputs), outputs)
    ]
    trace.emit(Host(node.op, node.name, tuple(operands), tuple(results), announced(node, run), algorithm=run.algorithm))
    return _at_outputs(node, results)


def _at_outputs(node: Node, results: Iterable) -> list:
    """Results of the outputs that have a name, each at its place; None at the others."""
    made = iter(results)
    return [next(made) if name else None for name in node.outputs]


def announced(node: Node, run: Kernel) -> Kernel:
    """The kernel, after a warning if it is a slow one."""
    if isinstance(run, ReferenceKernel):
        _warn(node.op, node.domain)
    return run


def _order_for(shape: tuple[int, ...], operands: Sequence[Value]) -> Callable[[int], tuple[int, ...]]:
    """The order of axes in which NumPy lays out a result: that of an operand of its shape."""
    for operand in operands:
        if isinstance(operand, Tensor) and operand.shape == shape:
            order = memory_order(operand.view)
            return lambda rank: order
    return row_major


class Opaque:
    """A value that is no array, such as a sequence: only reference operators take it, one at a time."""

    def __init__(self, value: object):
        self.value = value


def evaluate(node: Node, run: Kernel, operands: Sequence[object]) -> list[np.ndarray]:
    """The results of a node for these operands, now; errors name the node."""
    try:
        with np.errstate(all="ignore"):
            results = run(*operands)
    except ConvError as error:
        raise type(error)(f"{node.label}: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise ModelError(f"{node.label} failed: {type(error).__name__}: {error}") from error
    return _at_outputs(node, results)


def _result_types(trace: Trace, node: Node, operands: Sequence[Value]) -> list[tuple[tuple[int, ...], np.dtype]] | None:
    """Shape and element type of each result that has a name, or None if one of them depends on values that are not known."""
    try:
        schema = onnx.defs.get_schema(node.op, trace.graph.opsets.get(node.domain, 1), node.domain)
    except onnx.defs.SchemaError:
        return None
    types, data = {}, {}
    for name, operand in zip(node.inputs, operands):
        if operand is None:
            continue
        types[name] = helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(operand.dtype), operand.shape)
        if isinstance(operand, np.ndarray):
            data[name] = numpy_helper.from_array(operand, name)
    try:
        inferred = shape_inference.infer_node_outputs(
            schema,
            node.proto(),
            types,
            data,
            opset_imports=[helper.make_opsetid(domain, version) for domain, version in trace.graph.opsets.items()],
        )
    except (shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{node.label}: {error}") from error
    outputs = []
    for name in filter(None, node.outputs):
        kind = inferred.get(name)
        if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
            return None
        dimensions = kind.tensor_type.shape.dim
        if not all(d.HasField("dim_value") for d in dimensions):
            return None
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
        outputs.append((tuple(d.dim_value for d in dimensions), dtype))
    return outputs
