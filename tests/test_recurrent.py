"""LSTM and GRU as compiled steps, against the onnx package's reference in double precision."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")

from graphs import F32, F64, model_of, node, random  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from numbaconv.graph import InferenceSession, SessionOptions  # noqa: E402

GATES = {"LSTM": 4, "GRU": 3}
STEPS, C_IN = 5, 6


def layer(op, directions, hidden, n, *, bias=True, initial=True):
    """Constant operands of a layer by name, and how a node lists them."""
    rows = GATES[op] * hidden
    constants = {"w": random(directions, rows, C_IN, seed=1), "r": random(directions, rows, hidden, seed=2)}
    names = ["x", "w", "r", "b" if bias else "-", "-"]
    if bias:
        constants["b"] = random(directions, 2 * rows, seed=3)
    for name in ("h", "c")[: (2 if op == "LSTM" else 1) if initial else 0]:
        constants[name] = random(directions, n, hidden, seed=4)
        names.append(name)
    return constants, " ".join(names)


def attributes(op, direction, hidden):
    usual = {"direction": direction, "hidden_size": hidden}
    return usual | {"linear_before_reset": 1} if op == "GRU" else usual


def check(model, x, tolerance=1e-12, compiled=True):
    """All outputs are those of the reference, to the last bit the same on one thread and on two."""
    results = [InferenceSession(model.SerializeToString(), SessionOptions(t)).run(None, {"x": x}) for t in (1, 2)]
    for one, two, expected in zip(*results, ReferenceEvaluator(model).run(None, {"x": x}), strict=True):
        assert np.array_equal(one, two), "bits depend on threads"
        np.testing.assert_allclose(one, expected, rtol=tolerance, atol=tolerance)
    session = InferenceSession(model.SerializeToString())
    session.run(None, {"x": x})
    assert ("onnx reference" not in {record.algorithm for record in session.report()}) is compiled


@pytest.mark.parametrize("hidden, n", [(3, 1), (16, 2), (21, 3)])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
def test_all_results_and_the_last_ones(op, direction, hidden, n):
    constants, names = layer(op, 1 + (direction == "bidirectional"), hidden, n)
    step = node(op, names, "y last", **attributes(op, direction, hidden))
    model = model_of(step, x=(STEPS, n, C_IN), outputs=("y", "last"), **constants)
    check(model, random(STEPS, n, C_IN))


@pytest.mark.parametrize("op", GATES)
def test_results_are_written_as_the_transpose_behind_them_wants_them(op):
    """The directions of a sequence side by side, with neither bias nor initial states, in single precision."""
    constants, names = layer(op, 2, 10, 3, bias=False, initial=False)
    steps = (
        node(op, names, "r0", **attributes(op, "bidirectional", 10)), node("Transpose", "r0", "t", perm=(0, 2, 1, 3)),
        node("Reshape", "t shape", "s"), node("Abs", "s"),
    )  # fmt: skip
    constants = {name: array.astype(np.float32) for name, array in constants.items()}
    model = model_of(*steps, x=(STEPS, 3, C_IN), kind=F32, shape=np.array([STEPS, 3, 20]), **constants)
    x = random(STEPS, 3, C_IN, dtype=np.float32)
    check(model, x, 1e-5)
    session = InferenceSession(model.SerializeToString())
    session.run(None, {"x": x})
    assert [record.op for record in session.report()] == ["Dense", op, "Abs"]


UNUSUAL = {
    "another activation": ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}, "y"),
    "the reset gate before the product": ("GRU", {"linear_before_reset": 0}, "y"),
    "the last state": ("LSTM", {}, "h0 - y"),
}


@pytest.mark.parametrize("case", UNUSUAL)
def test_what_few_models_ask_for_stays_with_the_reference(case):
    op, more, outputs = UNUSUAL[case]
    constants, names = layer(op, 1, 4, 2)
    step = node(op, names, **attributes(op, "forward", 4) | more)
    del step.output[:]
    step.output.extend("" if name == "-" else name for name in outputs.split())
    check(model_of(step, x=(STEPS, 2, C_IN), kind=F64, **constants), random(STEPS, 2, C_IN), compiled=False)
