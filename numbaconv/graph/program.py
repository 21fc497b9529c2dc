"""From a graph to a list of steps: constants are evaluated once, and values are freed after their last use."""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import onnx

from numbaconv.errors import ConvError, ModelError
from numbaconv.graph import model as models
from numbaconv.graph.convolution import ConvolutionKernel, runs_on_layers
from numbaconv.graph.operators import own_kernel
from numbaconv.graph.reference import ReferenceKernel, build_functions, captured_names

#: Operators that must run anew each time although all their inputs are constant.
_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)


class Kernel(Protocol):
    """What runs one node."""

    inputs: Sequence[str]  # names of the values that a call takes; "" where an optional one is left out
    algorithm: str | None  # what the last call ran
    problem: str | None  # the convolution that the last call computed

    def __call__(self, *values: np.ndarray | None) -> Sequence[np.ndarray]: ...


@dataclass(frozen=True)
class Step:
    """One node with the values that die once it has run."""

    name: str
    op: str
    kernel: Kernel
    outputs: tuple[str, ...]
    frees: tuple[str, ...] = ()

    def run(self, values: dict[str, np.ndarray | None]) -> None:
        """Compute the outputs into `values`; an error names the node."""
        try:
            results = self.kernel(*[values[name] for name in self.kernel.inputs])
        except ConvError as error:
            raise type(error)(f"node {self.name!r} ({self.op}): {error}") from error
        except MemoryError:
            raise
        except Exception as error:
            raise ModelError(f"node {self.name!r} ({self.op}) failed: {type(error).__name__}: {error}") from error
        values.update(zip(self.outputs, results))


@dataclass(frozen=True)
class Program:
    """A planned model: what it takes and gives, and the steps in between."""

    inputs: tuple[models.Value, ...]
    outputs: tuple[models.Value, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, np.ndarray] = field(repr=False)

    def run(
        self,
        feed: Mapping[str, np.ndarray],
        wanted: Sequence[str],
        seconds: MutableSequence[float] | None = None,
    ) -> list[np.ndarray]:
        """Run every step; `seconds`, where it is given, receives the time of each."""
        values: dict[str, np.ndarray | None] = {"": None, **self.constants, **feed}
        for step in self.steps:
            start = time.perf_counter()
            # Reference operators such as Sigmoid overflow on the way to results that are right.
            with np.errstate(all="ignore"):
                step.run(values)
            for name in step.frees:
                values.pop(name, None)
            if seconds is not None:
                seconds.append(time.perf_counter() - start)
        held = {id(value) for value in (*self.constants.values(), *feed.values())}
        return [_owned(values[name], held) for name in wanted]


def _owned(value, held: set[int]):
    """A result that the caller may keep and change: no view, and neither a constant of the model nor an input."""
    if not isinstance(value, np.ndarray) or (id(value) not in held and value.base is None):
        return value
    return np.array(value, order="C")


def plan(model: onnx.ModelProto) -> Program:
    """Turn a model into a program.

    Raises
    ------
    ModelError
        A node reads a value that nothing produces, or an operator cannot be run.
    """
    graph = model.graph
    opsets = _opsets(model)
    functions = build_functions(model)
    if graph.sparse_initializer:
        raise ModelError("the model stores sparse initialisers, which are not supported")
    stored = {tensor.name: models.constant(tensor) for tensor in graph.initializer}
    inputs = tuple(models.describe(info) for info in graph.input if info.name not in stored)
    outputs = tuple(models.describe(info) for info in graph.output)
    values: dict[str, np.ndarray | None] = {"": None, **stored}
    known = {value.name for value in inputs} | set(values)
    steps: list[Step] = []
    for node in _needed_nodes(graph):
        _check_inputs(node, known)
        known.update(node.output)
        step = _step(node, opsets, functions, values)
        if _is_constant(node, step, values):
            step.run(values)
            for name in step.outputs:
                if isinstance(values[name], np.ndarray):
                    values[name].setflags(write=False)
        else:
            steps.append(step)
    names = [value.name for value in outputs]
    if missing := [name for name in names if name not in known]:
        raise ModelError(f"output {missing[0]!r} is produced by no node")
    steps = _with_frees(steps, keep={*names, *values})
    used = {name for step in steps for name in step.kernel.inputs} | set(names)
    return Program(inputs, outputs, tuple(steps), {k: v for k, v in values.items() if k and k in used})


def _opsets(model: onnx.ModelProto) -> dict[str, int]:
    # "ai.onnx" is the long name of the default domain; a model older than opsets has version 1.
    opsets = {"": 1}
    opsets.update(("" if entry.domain == "ai.onnx" else entry.domain, entry.version) for entry in model.opset_import)
    newest = onnx.defs.onnx_opset_version()
    if opsets[""] > newest:
        raise ModelError(f"the model uses opset {opsets['']}, onnx {onnx.__version__} knows opsets up to {newest}")
    return opsets


def _needed_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes on which an output depends, in the order of the file."""
    needed = {value.name for value in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input, captured_names(node))
            nodes.append(node)
    return nodes[::-1]


def _check_inputs(node: onnx.NodeProto, known: set[str]) -> None:
    for name in (*node.input, *captured_names(node)):
        if name not in known:
            raise ModelError(
                f"node {node.name!r} ({node.op_type}) reads {name!r}, which is neither an input nor computed before it"
            )


def _step(node: onnx.NodeProto, opsets, functions, values) -> Step:
    if node.domain == "ai.onnx":
        node.domain = ""
    # Reference operators list only the outputs that have a name; an operator of our own has one output.
    outputs = tuple(name for name in node.output if name)
    try:
        kernel = _kernel(node, opsets, functions, values)
    except ConvError as error:
        raise type(error)(f"node {node.name!r} ({node.op_type}): {error}") from error
    return Step(node.name or outputs[0], node.op_type, kernel, outputs)


def _kernel(node: onnx.NodeProto, opsets, functions, values) -> Kernel:
    reference = ReferenceKernel(node, opsets, functions)
    if node.domain:
        return reference
    if node.op_type not in ("Conv", "ConvTranspose"):
        return own_kernel(node, opsets[""], reference)
    operands = [values.get(name) for name in node.input[1:]]
    if any(name not in values for name in node.input[1:]):
        return ConvolutionKernel(node, reference)
    return ConvolutionKernel(node, reference, *operands) if runs_on_layers(operands[0]) else reference


def _is_constant(node: onnx.NodeProto, step: Step, values) -> bool:
    if node.op_type in _RANDOM or any(a.HasField("g") or a.graphs for a in node.attribute):
        return False
    return not node.domain and all(name in values for name in step.kernel.inputs)


def _with_frees(steps: Sequence[Step], keep: set[str]) -> list[Step]:
    """Attach to each step the values that no later step reads."""
    alive = set(keep)
    planned = []
    for step in reversed(steps):
        touched = dict.fromkeys((*step.kernel.inputs, *step.outputs))
        frees = tuple(name for name in touched if name not in alive)
        alive.update(touched)
        planned.append(Step(step.name, step.op, step.kernel, step.outputs, frees))
    return planned[::-1]
