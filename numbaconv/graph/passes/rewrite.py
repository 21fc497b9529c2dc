"""How a pass changes a graph: a rule looks at one node after the other and says what takes its place.

A rule reads a `Draft` and returns an `Edit`, or None where it does not apply; it changes nothing itself.  Who computes
and who reads each value stays known from edit to edit, so a pass is one sweep over the nodes however much it finds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from numbaconv.graph.ir import Graph, Node, Type


@dataclass(frozen=True)
class Edit:
    """Groups of nodes, each with what is put in its place, and the constants that the new nodes read.

    New nodes stand where the last node of their group stood, so what they read is computed before them.
    """

    swaps: tuple[tuple[tuple[Node, ...], tuple[Node, ...]], ...]
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def fuse(cls, nodes: Iterable[Node], *fused: Node, constants: Mapping[str, np.ndarray] | None = None) -> Edit:
        """Other nodes in place of one group."""
        return cls(((tuple(nodes), fused),), constants or {})


Rule = Callable[["Draft", Node], "Edit | None"]


class Draft:
    """A graph while rules rewrite it."""

    def __init__(self, graph: Graph):
        self.opset = graph.opset
        self._graph = graph
        self._kept = graph.output_names()
        self._constants = dict(graph.constants)
        self._added: dict[str, np.ndarray] = {}
        self._changed = False
        self._slots: list[list[Node]] = []
        self._producers: dict[str, Node] = {}
        # nodes are compared by identity: their attributes may be anything
        self._users: dict[str, dict[int, Node]] = defaultdict(dict)
        self._slot: dict[int, int] = {}
        for slot, node in enumerate(graph.nodes):
            self._slots.append([])
            self._insert(node, slot)

    def type(self, name: str) -> Type:
        """What is known of a value."""
        constant = self._constants.get(name)
        return self._graph.types.get(name, Type()) if constant is None else Type(constant.dtype, constant.shape)

    def constant(self, name: str) -> np.ndarray | None:
        """The value of a constant; None for any other value and for an operand that is left out."""
        return self._constants.get(name)

    def producer(self, name: str) -> Node | None:
        """The node of the default domain that computes a value."""
        node = self._producers.get(name)
        return None if node is None or node.domain else node

    def position(self, node: Node) -> int:
        """Where a node stands in the order of the graph."""
        return self._slot[id(node)]

    def users(self, name: str) -> tuple[Node, ...]:
        """The nodes that read a value."""
        return tuple(self._users[name].values()) if name in self._users else ()

    def sole_user(self, name: str) -> Node | None:
        """The node of the default domain that alone needs a value, and reads it once."""
        users = self._users.get(name, ())
        if len(users) != 1 or name in self._kept:
            return None
        (user,) = users.values()
        return None if user.domain or user.reads.count(name) != 1 else user

    def closed(self, nodes: Iterable[Node], result: Node) -> bool:
        """Whether nothing but `result` among these nodes is needed outside of them."""
        inside = {id(node) for node in nodes} | {id(result)}
        return all(
            name not in self._kept and inside.issuperset(self._users.get(name, ()))
            for node in nodes
            if node is not result
            for name in node.outputs
            if name
        )

    def fresh(self, hint: str) -> str:
        """A name that no value has."""
        name, count = hint, 1
        while name in self._constants or name in self._producers or name in self._graph.types:
            name, count = f"{hint}.{count}", count + 1
        return name

    def without(self, node: Node, name: str) -> Edit | None:
        """Drop a node whose first output equals the value `name`; None where a name that others rely on would be lost."""
        (gone, *rest), value = node.outputs, name
        if any(other in self._kept or other in self._users for other in rest if other):
            return None
        swaps = [((node,), ())]
        if gone in self._kept:
            # the output keeps its name: what computes `name` computes it from now on
            producer = self._producers.get(name)
            if producer is None or name in self._kept:
                return None
            value, old = gone, name
            outputs = tuple(gone if output == name else output for output in producer.outputs)
            swaps.append(((producer,), (replace(producer, outputs=outputs),)))
        else:
            old = gone
        readers = [user for user in self.users(old) if user is not node]
        if any(old in user.captured for user in readers):
            return None
        for user in readers:
            inputs = tuple(value if operand == old else operand for operand in user.inputs)
            swaps.append(((user,), (replace(user, inputs=inputs),)))
        return Edit(tuple(swaps))

    def apply(self, edit: Edit) -> None:
        """Carry out an edit."""
        self._changed = True
        for array in edit.constants.values():
            array.setflags(write=False)
        self._constants.update(edit.constants)
        self._added.update(edit.constants)
        for old, new in edit.swaps:
            slot = max(self._slot[id(node)] for node in old)
            for node in old:
                self._remove(node)
            for node in new:
                self._insert(node, slot)

    def sweep(self, rule: Rule) -> None:
        """Apply a rule to each node, and again to what it leaves there."""
        for slot in self._slots:
            while edit := next(filter(None, (rule(self, node) for node in slot if not node.domain)), None):
                self.apply(edit)

    def finished(self) -> Graph:
        """The rewritten graph; the one that it was made from where nothing changed."""
        if not self._changed:
            return self._graph
        return self._graph.with_nodes((node for slot in self._slots for node in slot), self._added)

    def _insert(self, node: Node, slot: int) -> None:
        self._slots[slot].append(node)
        self._slot[id(node)] = slot
        self._producers.update((name, node) for name in node.outputs if name)
        for name in node.reads:
            self._users[name][id(node)] = node

    def _remove(self, node: Node) -> None:
        slot = self._slots[self._slot.pop(id(node))]
        slot[:] = [other for other in slot if other is not node]
        for name in node.outputs:
            if self._producers.get(name) is node:
                del self._producers[name]
        for name in dict.fromkeys(node.reads):
            del self._users[name][id(node)]
            if not self._users[name]:
                del self._users[name]


def rewrite(graph: Graph, *rules: Rule) -> Graph:
    """The graph after one sweep of each rule."""
    draft = Draft(graph)
    for rule in rules:
        draft.sweep(rule)
    return draft.finished()
