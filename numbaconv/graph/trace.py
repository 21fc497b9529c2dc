"""From a graph and the shapes of one call to instructions: what each value is, where it lies, and what computes it.

A value is an array where it is known already (constants, shapes and what follows from them), else a tensor.  Each node is
lowered by the function that is registered for its operator; what none covers becomes a host step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import as_strided

from numbaconv.errors import ConvError
from numbaconv.graph import strided
from numbaconv.graph.instructions import Compiled, Host, Instruction
from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.tensors import Place, Tensor, channels_last, dense_strides, row_major
from numbaconv.machine import Machine

Value = Tensor | np.ndarray | None
#: Lowers a node: returns its outputs, or None where it does not cover the case.
Lowering = Callable[["Trace", Node, Sequence[Value]], "Sequence[Value] | None"]

#: Element types that compiled instructions work on.
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))

LOWERINGS: dict[str, Lowering] = {}


#: Copies that one copy of too many axes may be taken apart into.
_PIECES = 16

#: Looks at a node when a model is loaded and raises what is wrong with it whatever the shapes will be.
Check = Callable[[Graph, Node], None]
CHECKS: dict[str, Check] = {}


def lowers(*ops: str) -> Callable[[Lowering], Lowering]:
    """Register a function for operators of the default domain."""

    def register(function: Lowering) -> Lowering:
        for op in ops:
            LOWERINGS[op] = function
        return function

    return register


class Store:
    """What the programs of one session share: the machine as their plans see it, and objects made when first asked for.

    `final` says that there will be one program only, so that weights need not be kept when they are packed.
    """

    def __init__(self, machine: Machine) -> None:
        self.machine, self.final = machine, False
        self._kept: dict[object, object] = {}
        self._lock = threading.RLock()

    def get(self, key: object, make: Callable[[], object]):
        """What `make` gave for this key."""
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]


@dataclass(frozen=True)
class Slice:
    """Where a value goes that a Concat joins: into its result, from this channel on."""

    whole: str
    start: int


@dataclass
class Trace:
    """One walk over the nodes of a graph; `fallback` lowers what no registered function does.

    `stopped` is the number of the first node whose results have shapes that only its operands' values tell; the walk ends there.
    """

    graph: Graph
    store: Store
    fallback: Lowering
    values: dict[str, Value]
    slices: Mapping[str, Slice] = field(default_factory=dict)
    #: shapes of the results of Concat nodes that have slices
    wholes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    instructions: list[Instruction] = field(default_factory=list)
    stopped: int | None = None

    def __post_init__(self) -> None:
        self.outputs = self.graph.output_names()
        self.users = self.graph.users()
        self.node = Node("", (), ())
        self._wholes: dict[str, Tensor] = {}
        self._copies: dict[tuple, Tensor] = {}

    # --- making tensors -----------------------------------------------------------------------------------------

    def new(
        self, name: str, shape: Sequence[int], dtype: np.dtype, order: Callable[[int], tuple[int, ...]] = row_major
    ) -> Tensor:
        """Memory for a value: a slice of the Concat that joins it, the caller's output where that is laid out alike, or its own."""
        shape = tuple(int(size) for size in shape)
        axes = order(len(shape))
        if name in self.slices and axes == channels_last(len(shape)):
            place = self.slices[name]
            whole = self.whole(place.whole, dtype)
            return whole.with_view(whole.view[:, place.start : place.start + shape[1]])
        tensor = Tensor.dense(shape, dtype, axes)
        if name in self.outputs and tensor.is_dense(row_major(len(shape))):
            tensor.buffer.place, tensor.buffer.name = Place.OUTPUT, name
        return tensor

    def order_read(self, name: str) -> Callable[[int], tuple[int, ...]]:
        """The order in memory of a row-major value: that in which a Transpose wants its axes that alone reads it."""
        users = self.users.get(name, ())
        if name not in self.outputs and len(users) == 1 and users[0].op == "Transpose":
            order = tuple(users[0].attributes.get("perm", ()))
            return lambda rank: order if len(order) == rank and order[-1] == rank - 1 else row_major(rank)
        return row_major

    def whole(self, name: str, dtype: np.dtype) -> Tensor:
        """The result of a Concat, made when the first of its operands is."""
        if name not in self._wholes:
            shape = self.wholes[name]
            self._wholes[name] = self.new(name, shape, dtype, channels_last)
        return self._wholes[name]

    def temporary(self, shape: Sequence[int], dtype: np.dtype, order: Callable[[int], tuple[int, ...]]) -> Tensor:
        """Memory that no value of the graph names."""
        return self.new("", shape, dtype, order)

    def emit(self, instruction: Instruction) -> None:
        """Add an instruction, unless it has nothing to compute."""
        if any(output.view.size for output in instruction.outputs):
            self.instructions.append(instruction)

    # --- operands as instructions want them -----------------------------------------------------------------------

    def tensor(self, value: Value) -> Tensor:
        """A value as a tensor."""
        return value if isinstance(value, Tensor) else Tensor.constant(value)

    def ordered(self, value: Value, order: Callable[[int], tuple[int, ...]]) -> Tensor:
        """A value without gaps in that order of axes: itself, or a copy."""
        if isinstance(value, np.ndarray):
            return Tensor.constant(value, order(value.ndim))
        axes = order(len(value.shape))
        if value.is_dense(axes):
            # strides of axes of length one mean nothing, but whoever reads them should find the usual ones
            strides = dense_strides(value.shape, value.dtype.itemsize, axes)
            return value.with_view(as_strided(value.view, value.shape, strides))
        # several instructions may want the same one
        key = value.buffer, value.start, value.shape, value.view.strides, axes
        if key not in self._copies:
            self._copies[key] = self.temporary(value.shape, value.dtype, order)
            self.copy(value, self._copies[key])
        return self._copies[key]

    def pixels(self, value: Value) -> Tensor:
        """A value of three axes or more as channels-last pixels a fixed pitch apart: itself, or a copy."""
        tensor = self.tensor(value)
        return self.ordered(value, channels_last) if tensor.pitch() is None else tensor

    def copy(self, source: Tensor, to: Tensor) -> None:
        """Emit what copies a tensor into another of its shape, however both lie in memory."""
        work = strided.copy(source, to) if to.dtype in FLOATS else None
        axis = min((a for a, size in enumerate(to.shape) if size > 1), key=lambda a: to.shape[a], default=0)
        if work is None and to.dtype in FLOATS and to.shape[axis] <= _PIECES:
            # more loops than a copy has: one axis is taken apart
            for i in range(to.shape[axis]):
                where = (slice(None),) * axis + (i,)
                self.copy(source.with_view(source.view[where]), to.with_view(to.view[where]))
        elif work is None:
            self.emit(Host("Copy", self.node.label, (source,), (to,), lambda array: (array,)))
        else:
            self.emit(Compiled("Copy", self.node.label, (source,), to, work))

    # --- the walk ----------------------------------------------------------------------------------------------------

    def run(self) -> Trace:
        """Lower all nodes."""
        for number, node in enumerate(self.graph.nodes):
            if not self.lower(node):
                self.stopped = number
                return self
        return self

    def lower(self, node: Node) -> bool:
        """Lower a node; False where its results have shapes that only its operands' values tell."""
        self.node = node
        operands = [self.values[name] if name else None for name in node.inputs]
        lowering = None if node.domain else LOWERINGS.get(node.op)
        try:
            results = lowering(self, node, operands) if lowering else None
            results = self.fallback(self, node, operands) if results is None else results
        except ConvError as error:
            raise type(error)(f"{node.label}: {error}") from error
        if results is None:
            return False
        self.values.update((name, result) for name, result in zip(node.outputs, results) if name)
        return True

    def deliver(self, names: Sequence[str]) -> None:
        """See that the values of these names lie in the caller's memory, row-major."""
        for name in names:
            value = self.values[name]
            if isinstance(value, np.ndarray) or (value.buffer.place is Place.OUTPUT and value.buffer.name == name):
                continue
            self.node = Node("Output", (name,), (name,), name=name)
            output = Tensor.dense(value.shape, value.dtype, row_major(len(value.shape)), place=Place.OUTPUT, name=name)
            self.copy(value, output)
            self.values[name] = output
