"""LSTM and GRU: what the input gives to all gates is one matrix product; the steps are a loop nest of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from numbaconv.algorithms.weights import Weights
from numbaconv.arguments import NAMES
from numbaconv.codegen.records import CONV, RECURRENT
from numbaconv.dispatch.select import best_compiled
from numbaconv.epilogue import Epilogue
from numbaconv.graph.instructions import Compiled, Work
from numbaconv.graph.ir import Node
from numbaconv.graph.tensors import Tensor, row_major
from numbaconv.graph.trace import FLOATS, LOWERINGS, Trace, Value, lowers
from numbaconv.loops.recurrent import recurrent_share
from numbaconv.loops.shares import Shares, share_address
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded

#: Activations of the gates where a node does not say any, for one direction.
_USUAL = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
_GATES = {"LSTM": 4, "GRU": 3}


class _Layer(NamedTuple):
    """Weights of the input for all directions, (directions gates hidden, c_in, 1), and of the results for each."""

    given: Weights
    recurrent: tuple[Weights, ...]


@lowers("LSTM", "GRU")
def _recurrent(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, w, r, b, lengths, initial, state, peepholes = (*operands, *(None,) * 8)[:8]
    known = all(value is None or isinstance(value, np.ndarray) for value in operands[1:])
    if not (isinstance(x, Tensor) and known and x.dtype in FLOATS and x.view.size and len(x.shape) == 3):
        return None
    steps, n, _ = x.shape
    directions, _, hidden = r.shape
    read = [bool(name) and (name in trace.users or name in trace.outputs) for name in (*node.outputs, "", "")[:3]]
    if not _is_usual(node, trace, directions) or peepholes is not None or read[2]:
        return None
    if lengths is not None and (np.asarray(lengths) != steps).any():
        return None
    layer = trace.store.get(("recurrent", node.outputs), lambda: _layer(node.op, w, r, b))
    gates = Node("Dense", ("", "", "", ""), (f"{node.name}.gates",), {"weights": layer.given}, node.name)
    (given,) = LOWERINGS["Dense"](trace, gates, (x, None, None, None))
    y = trace.new(node.outputs[0], (steps, directions, n, hidden), x.dtype, trace.order_read(node.outputs[0]))
    backward = 0 if node.attributes.get("direction", "forward") == "reverse" else 1
    starts = [np.zeros((directions, n, hidden), x.dtype) if v is None else v for v in (initial, state)]
    if node.op == "GRU":
        # its state is its last result
        starts[1] = starts[0]
    work = _work(trace, node.op, layer, given, y, backward, *starts)
    flops = 2.0 * steps * n * layer.recurrent[0].shape[0] * hidden * directions
    trace.emit(Compiled(node.op, node.name, (given,), y, work, flops=flops))
    return [y, _last(trace, node, y, backward) if read[1] else None, None][: len(node.outputs)]


def _is_usual(node: Node, trace: Trace, directions: int) -> bool:
    """Whether the node is what frameworks export."""
    attributes = node.attributes
    activations = [str(kind).title() for kind in _decoded(attributes.get("activations", _USUAL[node.op] * directions))]
    plain = not any(
        attributes.get(name) for name in ("activation_alpha", "activation_beta", "clip", "input_forget", "layout")
    )
    resets = node.op == "LSTM" or attributes.get("linear_before_reset", 0) == 1
    return plain and resets and trace.graph.opset >= 7 and activations == _USUAL[node.op] * directions


def _decoded(kinds: Sequence[str | bytes]) -> list[str]:
    return [kind.decode() if isinstance(kind, bytes) else kind for kind in kinds]


def _layer(op: str, w: np.ndarray, r: np.ndarray, b: np.ndarray | None) -> _Layer:
    directions, rows, hidden = r.shape
    b = np.zeros((directions, 2 * rows), w.dtype) if b is None else b
    of_x, of_h = b[:, :rows], b[:, rows:]
    if op == "LSTM":
        # sums have one bias; the reset gate of a GRU comes between
        of_x, of_h = of_x + of_h, np.zeros_like(of_h)
    given = Weights(w.reshape(directions * rows, -1, 1), of_x.reshape(-1), 1)
    return _Layer(given, tuple(Weights(r[d][..., None], of_h[d], 1) for d in range(directions)))


def _work(
    trace: Trace,
    op: str,
    layer: _Layer,
    given: Tensor,
    y: Tensor,
    backward: int,
    initial: np.ndarray,
    state: np.ndarray,
) -> Work:
    steps, directions, n, hidden = y.shape
    size, dtype, rows = y.dtype.itemsize, y.dtype, layer.recurrent[0].shape[0]
    problem = ConvProblem.of((1, n, hidden), (rows, hidden, 1), dtype=NAMES[dtype], bias=True, layout="channels_last")
    out_step, out_direction, out_row, _ = y.view.strides
    made: list[Shares] = []

    def make() -> Shares:
        algorithm = best_compiled(problem, Epilogue(True), trace.store.machine).algorithm
        ones = [
            algorithm.plan(problem, weights, Epilogue(True), trace.store.machine).shares(
                1, (out_row // size, rows, rows)
            )
            for weights in layer.recurrent
        ]
        convolutions = np.array([one.owner.record for one in ones], CONV)
        starts = np.zeros((directions, n, out_row // size), dtype)
        starts[..., :hidden] = initial
        states = np.ascontiguousarray(state, dtype)
        at_gates = rounded(n * hidden * size)
        at_inner = at_gates + rounded(n * rows * size)
        x_step, x_row = n * directions * rows * size, directions * rows * size
        fields = {
            "lstm": op == "LSTM", "steps": steps, "directions": directions, "backward": backward, "n": n, "hidden": hidden,
            "gates": _GATES[op], "function": ones[0].function, "conv": convolutions.ctypes.data, "conv_step": CONV.itemsize,
            "initial": starts.ctypes.data, "initial_state": states.ctypes.data, "x_step": x_step,
            "x_direction": rows * size, "x_row": x_row, "out_step": out_step, "out_direction": out_direction,
            "out_row": out_row, "at_gates": at_gates, "at_inner": at_inner,
        }  # fmt: skip
        record = np.zeros((), RECURRENT)
        for name, value in fields.items():
            record[name] = value
        keep, one = (record, ones, convolutions, starts, states), ones[0]
        address = share_address(recurrent_share, dtype)
        return Shares(address, 1, 1, record.ctypes.data, at_inner + one.pitch, one.alpha, one.beta, keep)

    def work(threads: int) -> Shares:
        if not made:
            made.append(make())
        return made[0]._replace(rows=min(threads, directions))

    return work


def _last(trace: Trace, node: Node, y: Tensor, backward: int) -> Tensor:
    """The result of the last step of each direction."""
    steps, directions, n, hidden = y.shape
    out = trace.new(node.outputs[1], (directions, n, hidden), y.dtype, row_major)
    for number in range(directions):
        step = 0 if number >= backward else steps - 1
        trace.copy(y.with_view(y.view[step, number]), out.with_view(out.view[number]))
    return out
