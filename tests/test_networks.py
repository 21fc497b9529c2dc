"""Networks as programs: where tensors lie, what is shared, what changes from shape to shape, and what never does."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from numbaconv.dispatch import fusion  # noqa: E402
from numbaconv.errors import ConvError, ModelError  # noqa: E402
from numbaconv.graph import InferenceSession, SessionOptions, instructions  # noqa: E402
from numbaconv.graph.instructions import Compiled  # noqa: E402
from numbaconv.graph.memory import plan_arena  # noqa: E402
from numbaconv.graph.tensors import Tensor, row_major  # noqa: E402

F64 = TensorProto.DOUBLE


def random(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def model_of(nodes, inputs, outputs, opset=17, **constants):
    """A model in double precision; nodes are (op, inputs, output, attributes)."""
    protos = [helper.make_node(op, ins.split(), out.split(), **attributes) for op, ins, out, attributes in nodes]
    graph = helper.make_graph(
        protos,
        "tested",
        [helper.make_tensor_value_info(name, F64, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, F64, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def ran(session):
    """The instructions of the last run."""
    return [i for part, _ in session._trail for i in part]


def check(model, feed, runs=2):
    """The session agrees with the reference, each time; returns it."""
    session = InferenceSession(model.SerializeToString())
    expected = ReferenceEvaluator(model).run(None, feed)
    for _ in range(runs):
        for result, wanted in zip(session.run(None, feed), expected, strict=True):
            assert result.shape == wanted.shape
            np.testing.assert_allclose(result, wanted, rtol=1e-9, atol=1e-9)
    return session


# --- where tensors lie ---------------------------------------------------------------------------------------------

CONV = {"pads": [1, 1, 1, 1]}


def test_producers_write_into_slices_of_a_concat():
    nodes = [
        ("Conv", "x a", "p", CONV),
        ("Conv", "x b", "q", CONV),
        ("Concat", "p q", "both", {"axis": 1}),
        ("Conv", "both c", "r", CONV),
        ("Concat", "both r", "all", {"axis": 1}),
        ("Conv", "all d", "y", CONV),
    ]
    weights = {"a": random(3, 2, 3, 3), "b": random(5, 2, 3, 3), "c": random(4, 8, 3, 3), "d": random(2, 12, 3, 3)}
    session = check(model_of(nodes, {"x": [2, 2, 6, 7]}, ["y"], **weights), {"x": random(2, 2, 6, 7)})
    # the input and the output change their layout; nothing else is copied
    assert [i.op for i in ran(session)] == ["Copy", "Conv", "Conv", "Conv", "Conv", "Copy"]


def test_an_operand_that_is_joined_twice_is_copied_once():
    nodes = [
        ("Conv", "x a", "p", CONV),
        ("Concat", "p p", "twice", {"axis": 1}),
        ("Conv", "twice b", "y", CONV),
    ]
    model = model_of(nodes, {"x": [1, 2, 5, 5]}, ["y"], a=random(3, 2, 3, 3), b=random(2, 6, 3, 3))
    session = check(model, {"x": random(1, 2, 5, 5)})
    assert [i.op for i in ran(session)] == ["Copy", "Conv", "Copy", "Conv", "Copy"]


def test_what_nobody_reads_later_is_overwritten():
    nodes = [("Conv", "x a", "p", CONV), ("Neg", "p", "q", {}), ("Abs", "q", "r", {}), ("Conv", "r a", "y", CONV)]
    session = check(model_of(nodes, {"x": [1, 2, 9, 9]}, ["y"], a=random(2, 2, 3, 3)), {"x": random(1, 2, 9, 9)})
    compiled = [i for i in ran(session) if isinstance(i, Compiled)]
    buffers = {t.buffer.root() for i in compiled for t in (*i.inputs, i.output) if t.buffer.place.name == "ARENA"}
    # the copy of x, and one buffer for p, q and r; the result has its own
    assert len(buffers) == 3


def test_what_is_read_later_is_not_overwritten():
    nodes = [("Conv", "x a", "p", CONV), ("Neg", "p", "q", {}), ("Add", "p q", "r", {}), ("Conv", "r a", "y", CONV)]
    check(model_of(nodes, {"x": [1, 2, 9, 9]}, ["y"], a=random(2, 2, 3, 3)), {"x": random(1, 2, 9, 9)})


def test_a_convolution_does_not_overwrite_what_it_reads_beside_its_residual():
    nodes = [
        ("Conv", "x a", "p", CONV),
        ("Conv", "p a", "q", CONV),
        ("Add", "q p", "r", {}),
        ("Conv", "r a", "y", CONV),
    ]
    session = check(model_of(nodes, {"x": [1, 2, 9, 9]}, ["y"], a=random(2, 2, 3, 3)), {"x": random(1, 2, 9, 9)})
    assert "Conv+Add" in [i.op for i in ran(session)]


def test_buffers_that_live_at_once_do_not_overlap():
    nodes = [("Conv", "x a", f"p{i}", CONV) for i in range(4)]
    nodes += [("Mul", "p0 p3", "s", {}), ("Mul", "p1 p2", "t", {}), ("Sub", "s t", "y", {})]
    model = model_of(nodes, {"x": [1, 2, 6, 6]}, ["y"], a=random(2, 2, 3, 3))
    session = check(model, {"x": random(1, 2, 6, 6)})
    instructions = ran(session)
    arena = plan_arena(instructions)
    lives = {}
    for number, i in enumerate(instructions):
        for tensor in (*i.inputs, *i.outputs):
            lives.setdefault(tensor.buffer.root(), []).append(number)
    placed = [(b, arena.offsets[b]) for b in lives if b in arena.offsets]
    for one, at in placed:
        for other, start in placed:
            together = min(lives[one]) <= max(lives[other]) and min(lives[other]) <= max(lives[one])
            if one is not other and together:
                assert at + one.nbytes <= start or start + other.nbytes <= at


def test_changes_of_shape_move_nothing():
    nodes = [
        ("Transpose", "x", "t", {"perm": [0, 2, 3, 1]}),
        ("Transpose", "t", "u", {"perm": [0, 3, 1, 2]}),
        ("Split", "u", "p q", {"axis": 1}),
        ("Conv", "p a", "r", CONV),
        ("Conv", "q a", "s", CONV),
        ("Add", "r s", "sum", {}),
        ("Unsqueeze", "sum axes", "y", {}),
    ]
    model = model_of(nodes, {"x": [1, 4, 6, 6]}, ["y"], a=random(3, 2, 3, 3), axes=np.array([0]))
    session = check(model, {"x": random(1, 4, 6, 6)})
    assert {i.op for i in ran(session)} <= {"Copy", "Conv", "Conv+Add"}


# --- shapes from run to run ------------------------------------------------------------------------------------------


def test_programs_of_all_shapes_share_the_packed_weights():
    model = model_of([("Conv", "x a", "y", CONV)], {"x": ["n", 2, None, "w"]}, ["y"], a=random(3, 2, 3, 3))
    session = InferenceSession(model.SerializeToString())
    for shape in [(1, 2, 5, 6), (2, 2, 9, 4), (0, 2, 5, 6), (1, 2, 5, 6)]:
        x = random(*shape)
        (y,) = session.run(None, {"x": x})
        expected = ReferenceEvaluator(model).run(None, {"x": x})[0] if x.size else np.zeros((0, 3, 5, 6))
        np.testing.assert_allclose(y, expected, atol=1e-9)
    (node,) = session._executable.graph.nodes
    assert node.attributes["weights"].shape == (3, 2, 3, 3) and not session._executable.graph.constants


def test_shapes_that_follow_from_data_split_the_program():
    nodes = [
        ("Conv", "x a", "p", CONV),
        ("Reshape", "p flat", "line", {}),
        ("Greater", "line zero", "positive", {}),
        ("Compress", "line positive", "kept", {"axis": 0}),
        ("Neg", "kept", "negative", {}),
        ("ReduceSum", "negative", "y", {"keepdims": 0}),
    ]
    model = model_of(
        nodes, {"x": [1, 2, 5, 5]}, ["y", "negative"], a=random(3, 2, 3, 3), flat=np.array([-1]), zero=np.array(0.0)
    )
    session = check(model, {"x": random(1, 2, 5, 5)})
    assert "Compress" in [i.op for i in ran(session)]
    check(model, {"x": random(1, 2, 5, 5, seed=1)})


def test_a_shape_may_be_fed():
    model = model_of([("Reshape", "x shape", "y", {})], {"x": [2, 6]}, ["y"])
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    session = InferenceSession(model.SerializeToString())
    x = random(2, 6)
    for shape in ([3, 4], [4, 3], [-1, 2]):
        np.testing.assert_array_equal(session.run(None, {"x": x, "shape": np.array(shape)})[0], x.reshape(shape))


# --- epilogues and fusion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 3, 6, 6), (1, 3, 1, 1), (1, 1, 6, 6), (3, 1, 1), (2, 3, 6, 6)])
def test_a_residual_of_another_shape_is_added_apart(shape):
    nodes = [("Conv", "x a", "p", CONV), ("Add", "p r", "s", {}), ("Relu", "s", "y", {})]
    rank = len(shape)
    model = model_of(nodes, {"x": [1, 2, 6, 6], "r": [None] * rank}, ["y"], a=random(3, 2, 3, 3))
    check(model, {"x": random(1, 2, 6, 6), "r": random(*shape)})


@pytest.mark.parametrize("close", [0.0, 1e9], ids=["steps", "strips"])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_inverted_residual_gives_the_same_strip_by_strip(close, stride, monkeypatch):
    monkeypatch.setattr(fusion, "_CLOSE", close)
    nodes = [
        ("Conv", "x a", "p", {}),
        ("Clip", "p low high", "p6", {}),
        ("Conv", "p6 b", "q", CONV | {"group": 12, "strides": [stride, stride]}),
        ("Relu", "q", "q0", {}),
        ("Conv", "q0 c", "r", {}),
    ]
    nodes += [("Add", "r x", "y", {})] if stride == 1 else [("Relu", "r", "y", {})]
    weights = {"a": random(12, 4, 1, 1), "b": random(12, 1, 3, 3), "c": random(4, 12, 1, 1)}
    model = model_of(nodes, {"x": [2, 4, 11, 9]}, ["y"], low=np.array(0.0), high=np.array(2.0), **weights)
    session = check(model, {"x": random(2, 4, 11, 9)})
    assert ("strips" in {i.algorithm for i in ran(session)}) is (close > 0)


# --- any graph -----------------------------------------------------------------------------------------------------------


@st.composite
def graphs(draw):
    """A model of a dozen nodes on small images, with values that are used any number of times."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shapes = {"x": (draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(3, 6)), draw(st.integers(3, 6)))}
    nodes, constants = [], {}

    def add(op, ins, shape, **attributes):
        name = f"v{len(nodes)}"
        nodes.append((op, ins, name, attributes))
        shapes[name] = shape

    for number in range(draw(st.integers(3, 12))):
        a = draw(st.sampled_from(sorted(shapes)))
        n, c, h, w = shapes[a]
        same = [b for b in sorted(shapes) if shapes[b] == shapes[a]]
        fitting = [b for b in sorted(shapes) if shapes[b][0] == n and shapes[b][2:] == (h, w)]
        kind = draw(
            st.sampled_from(
                ["conv", "depthwise", "add", "join", "scale", "relu", "transpose", "slice", "pool", "shuffle"]
            )
        )
        if kind == "conv":
            c_out = draw(st.integers(1, 5))
            constants[f"w{number}"] = rng.standard_normal((c_out, c, 3, 3)) / 3
            add("Conv", f"{a} w{number}", (n, c_out, h, w), pads=[1, 1, 1, 1])
        elif kind == "depthwise":
            constants[f"w{number}"] = rng.standard_normal((c, 1, 3, 3)) / 3
            add("Conv", f"{a} w{number}", (n, c, h, w), pads=[1, 1, 1, 1], group=c)
        elif kind == "add":
            add(draw(st.sampled_from(["Add", "Sub", "Mul"])), f"{a} {draw(st.sampled_from(same))}", (n, c, h, w))
        elif kind == "join":
            others = draw(st.lists(st.sampled_from(fitting), min_size=1, max_size=2))
            total = c + sum(shapes[b][1] for b in others)
            if total <= 12:
                add("Concat", " ".join([a, *others]), (n, total, h, w), axis=1)
        elif kind == "scale":
            constants[f"k{number}"] = rng.standard_normal(
                draw(st.sampled_from([(1, c, 1, 1), (c, 1, 1), (1,), (h, w), (n, 1, h, 1)]))
            )
            add("Mul", f"{a} k{number}", (n, c, h, w))
        elif kind == "relu":
            add(draw(st.sampled_from(["Relu", "Neg", "Sigmoid", "Abs"])), a, (n, c, h, w))
        elif kind == "transpose":
            add("Transpose", a, (n, c, w, h), perm=[0, 1, 3, 2])
        elif kind == "slice" and c > 1:
            constants[f"s{number}"], constants[f"e{number}"] = np.array([1]), np.array([c])
            constants[f"a{number}"] = np.array([1])
            add("Slice", f"{a} s{number} e{number} a{number}", (n, c - 1, h, w))
        elif kind == "pool":
            add("MaxPool", a, (n, c, h, w), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif kind == "shuffle":
            constants[f"s{number}"] = np.array([n, h, c, w])
            add("Reshape", f"{a} s{number}", (n, h, c, w))
    names = sorted(set(shapes) - {"x"}) or ["x"]
    outputs = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True)) if nodes else []
    if not outputs:
        add("Neg", "x", shapes["x"])
        outputs = [nodes[-1][2]]
    return model_of(nodes, {"x": shapes["x"]}, outputs, **constants), shapes["x"]


@settings(max_examples=120, deadline=None)
@given(graphs(), st.integers(1, 2))
def test_any_graph_agrees_with_the_reference(drawn, threads):
    model, shape = drawn
    feed = {"x": random(*shape)}
    session = InferenceSession(model.SerializeToString(), SessionOptions(threads))
    expected = ReferenceEvaluator(model).run(None, feed)
    for _ in range(2):
        for result, wanted in zip(session.run(None, feed), expected, strict=True):
            np.testing.assert_allclose(result, wanted, rtol=1e-8, atol=1e-8)


# --- what cannot run -------------------------------------------------------------------------------------------------------


def test_a_cycle_is_named():
    nodes = [("Add", "x b", "a", {}), ("Relu", "a", "b", {})]
    with pytest.raises(ModelError, match="cycle"):
        InferenceSession(model_of(nodes, {"x": [2]}, ["b"]).SerializeToString())


def test_nodes_may_come_in_any_order():
    nodes = [("Neg", "a", "y", {}), ("Relu", "x", "a", {})]
    session = InferenceSession(model_of(nodes, {"x": [2]}, ["y"]).SerializeToString())
    assert session.run(None, {"x": np.array([-1.0, 2.0])})[0].tolist() == [0, -2]


@pytest.mark.parametrize("op, shape", [("Conv", (3, 2, 3, 3)), ("ConvTranspose", (2, 3, 3, 3)), ("MatMul", (6, 4))])
def test_weights_that_are_no_numbers_are_refused(op, shape):
    weight = random(*shape)
    weight.flat[3] = np.nan
    with pytest.raises(ModelError, match="'w'.*NaN"):
        InferenceSession(model_of([(op, "x w", "y", {})], {"x": [1, 2, 6, 6]}, ["y"], w=weight).SerializeToString())


def test_a_run_that_fails_leaves_the_session_usable():
    model = model_of([("Conv", "x a", "y", {})], {"x": [None, 2, None, None]}, ["y"], a=random(3, 2, 3, 3))
    session = InferenceSession(model.SerializeToString())
    with pytest.raises(ConvError):
        session.run(None, {"x": random(1, 2, 2, 2)})
    assert session.run(None, {"x": random(1, 2, 5, 5)})[0].shape == (1, 3, 3, 3)


# --- threads --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seconds, elements, shared", ((1e-6, 10, False), (1e-3, 10, True), (None, 10, False), (None, 1 << 20, True))
)
def test_steps_that_end_before_other_threads_have_started_are_not_shared_out(seconds, elements, shared, monkeypatch):
    monkeypatch.setattr(instructions, "_SHARED", 20e-6)
    tensor = Tensor.dense((elements,), np.float32, row_major(1))
    step = Compiled("Relu", "a step", (tensor,), tensor, None, seconds=seconds)
    assert step.worth(2) == 1 + shared
