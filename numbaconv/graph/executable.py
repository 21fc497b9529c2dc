"""A graph with its programs: one for each set of input shapes, kept for those used last.

Where the shape of a result depends on data, the program ends; the node in question is run on its operands, and what remains is a
graph of its own, whose programs are found when the shapes are known.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from numbaconv.graph import host, lowering  # noqa: F401 - lowering registers itself
from numbaconv.graph.instructions import Host, Instruction
from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.model import Value
from numbaconv.graph.program import Program
from numbaconv.graph.slices import plan_slices
from numbaconv.graph.tensors import Place, Tensor, row_major
from numbaconv.graph.trace import Store, Trace
from numbaconv.options import options

#: Elements up to which an integer that is fed may be a shape, which a program then takes as known.
_SHAPE_ELEMENTS = 32

Trail = MutableSequence["tuple[Sequence[Instruction], list[float] | None]"]


@dataclass(frozen=True)
class _Planned:
    """The program of a graph up to a node, and that node with the graph behind it; both are None where it is complete."""

    program: Program
    node: Node | None = None
    rest: Executable | None = None


class Executable:
    """A graph that can be run for inputs of any shapes."""

    def __init__(self, graph: Graph, store: Store):
        self.graph, self._store = graph, store
        self._planned: OrderedDict[tuple, _Planned] = OrderedDict()
        self._rests: dict[int, Executable] = {}
        self._lock = threading.RLock()

    def prepare(self) -> None:
        """Make the only program now if all inputs have fixed shapes, so that what is wrong shows when a model is loaded.

        No other will be made, so that weights need not be kept as they came.
        """
        declared = self.graph.inputs
        if all(
            v.ranked and v.dtype is not None and v.dtype.kind == "f" and all(isinstance(n, int) for n in v.shape)
            for v in declared
        ):
            planned = self.plan({v.name: np.empty(v.shape, v.dtype) for v in declared})
            self._store.final = planned.node is None
            planned.program.bind()

    def run(
        self, feed: Mapping[str, np.ndarray], out: Mapping[str, np.ndarray], trail: Trail, timed: bool
    ) -> dict[str, np.ndarray]:
        """All outputs by name; see `Program.run`.  `trail` receives the instructions that ran and their seconds."""
        planned = self.plan(feed)
        seconds = [] if timed else None
        results = planned.program.run(feed, out, seconds)
        trail.append((planned.program.instructions, seconds))
        if planned.node is None:
            return results
        values = {"": None, **feed, **results}
        operands = [
            values.get(name, self.graph.constants.get(name)) for name in (*planned.node.inputs, *planned.node.captured)
        ]
        operands = [o.value if isinstance(o, host.Opaque) else o for o in operands]
        run = host.announced(planned.node, host.kernel(self._store, planned.node, self.graph.opsets, operands))
        began = time.perf_counter()
        made = host.evaluate(planned.node, run, operands)
        seconds = [time.perf_counter() - began] if timed else None
        values |= {name: _handed(value) for name, value in zip(planned.node.outputs, made)}
        trail.append(((Host(planned.node.op, planned.node.name, (), (), run, algorithm=run.algorithm),), seconds))
        rest = planned.rest
        return rest.run({value.name: values[value.name] for value in rest.graph.inputs}, out, trail, timed)

    def plan(self, feed: Mapping[str, np.ndarray]) -> _Planned:
        """The program for inputs like these, made at the first request."""
        key = tuple(_kind(feed[value.name]) for value in self.graph.inputs)
        with self._lock:
            planned = self._planned.get(key)
            if planned is None:
                planned = self._planned[key] = self._make(feed)
                while len(self._planned) > options().plan_cache:
                    self._planned.popitem(last=False)
            else:
                self._planned.move_to_end(key)
            return planned

    def _make(self, feed: Mapping[str, np.ndarray]) -> _Planned:
        trace = self._trace(self.graph, feed)
        if trace.stopped is None:
            return _Planned(_program(trace, self.graph))
        number = trace.stopped
        head, node, rest = cut(self.graph, number)
        if number not in self._rests:
            self._rests[number] = Executable(rest, self._store)
        return _Planned(_program(self._trace(head, feed), head), node, self._rests[number])

    def _trace(self, graph: Graph, feed: Mapping[str, np.ndarray]) -> Trace:
        values = {**graph.constants}
        for value in graph.inputs:
            array = feed[value.name]
            if isinstance(array, np.ndarray):
                values[value.name] = (
                    array.copy()
                    if _is_shape(array)
                    else Tensor.dense(
                        array.shape, array.dtype, row_major(array.ndim), place=Place.INPUT, name=value.name
                    )
                )
            else:
                values[value.name] = array
        trace = Trace(graph, self._store, host.lower, dict(values)).run()
        slices, wholes = plan_slices(trace)
        return Trace(graph, self._store, host.lower, values, slices, wholes).run() if slices else trace


def _program(trace: Trace, graph: Graph) -> Program:
    names = [value.name for value in graph.outputs]
    trace.deliver(names)
    return Program(trace.instructions, {name: trace.values[name] for name in names})


def _is_shape(array: np.ndarray) -> bool:
    return array.dtype.kind in "iub" and array.size <= _SHAPE_ELEMENTS


def _kind(value) -> tuple:
    """What a program depends on: shape and type, and the values of what may be a shape."""
    if not isinstance(value, np.ndarray):
        return (type(value).__name__,)
    return value.shape, value.dtype.str, value.tobytes() if _is_shape(value) else None


def _handed(value):
    """A result of a reference operator as an array that programs take, or wrapped if it is none."""
    if isinstance(value, (np.ndarray, np.generic)) and np.asarray(value).dtype.kind in "biufc":
        return np.ascontiguousarray(value).reshape(np.shape(value))
    return value if value is None else host.Opaque(value)


def cut(graph: Graph, number: int) -> tuple[Graph, Node, Graph]:
    """The graph before a node, the node, and the graph behind it, which takes what it needs from both."""
    node, after = graph.nodes[number], graph.nodes[number + 1 :]
    needed = dict.fromkeys(chain(*(later.reads for later in after), (value.name for value in graph.outputs)))
    read = dict.fromkeys((*node.reads, *needed))
    before = {name for earlier in graph.nodes[:number] for name in earlier.outputs if name}
    inputs = {value.name for value in graph.inputs}
    head = replace(graph, nodes=graph.nodes[:number], outputs=_values(name for name in read if name in before))
    from_here = before | inputs | set(node.outputs)
    rest = replace(graph, nodes=after, inputs=_values(name for name in needed if name in from_here))
    return head, node, rest


def _values(names) -> tuple[Value, ...]:
    return tuple(Value(name, "", [], ranked=False) for name in names)
