"""Graph passes: what each makes of a small graph, that the graph still computes the same, and what must be left alone."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from numbaconv.epilogue import Activation  # noqa: E402
from numbaconv.graph.ir import Node, read_graph  # noqa: E402
from numbaconv.graph.passes import PASSES, optimise  # noqa: E402
from numbaconv.graph.reference import ReferenceKernel  # noqa: E402

F32, F64, F16, I64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64
IMAGE = (2, 4, 6, 5)


def node(op, inputs, outputs="y", **attributes):
    """A node whose operands are written with spaces between them, "-" for one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def random(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def model_of(*nodes, x=IMAGE, kind=F64, opset=17, outputs=("y",), inputs=None, **constants):
    """A model that reads `x` (and further `inputs`, names to shapes) and constants given by name.

    Lists and numbers become constants of the type of `x` as they are; arrays keep theirs.
    """
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    arrays = {k: v if isinstance(v, np.ndarray) else np.array(v, dtype) for k, v in constants.items()}
    shapes = {"x": x, **(inputs or {})}
    graph = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(graph, feed):
    """The outputs of a graph, by the reference operators and, for what passes make, by their definitions."""
    values = {"": None, **graph.constants, **feed}
    for step in graph.nodes:
        operands = [values[name] for name in step.inputs]
        if step.op in ("Conv", "ConvTranspose"):
            results = [epilogue(step, operands, convolve(step, graph.opsets, *operands[:3]))]
        elif step.op == "Dense":
            y = operands[0] @ operands[1].T
            results = [epilogue(step, operands, y if len(operands) < 3 or operands[2] is None else y + operands[2])]
        elif step.op == "Activation":
            results = [step.attributes["activation"].apply(operands[0])]
        elif step.op == "LayerNormalization":
            results = [layer_norm(*operands, **step.attributes)]
        else:
            results = ReferenceKernel(step, graph.opsets)(*(values[name] for name in (*step.inputs, *step.captured)))
        values.update(zip(filter(None, step.outputs), results))
    return [values[value.name] for value in graph.outputs]


def convolve(step, opsets, x, weight, bias=None):
    """Group after group, since the reference's transposed convolution knows only one."""
    attributes = {k: v for k, v in step.attributes.items() if k not in ("activation", "group")}
    kernel = ReferenceKernel(Node(step.op, ("x", "w"), ("y",), attributes), opsets)
    groups = step.attributes.get("group", 1)
    parts = zip(np.split(x, groups, axis=1), np.split(weight, groups))
    y = np.concatenate([kernel(*part)[0] for part in parts], axis=1)
    return y if bias is None else y + bias.reshape(-1, *(1,) * (x.ndim - 2))


def epilogue(step, operands, y):
    if len(operands) > 3:
        y = y + operands[3]
    activation = step.attributes.get("activation")
    return y if activation is None else activation.apply(y)


def layer_norm(x, scale, bias=0.0, *, axis, epsilon):
    axes = tuple(range(axis, 0))
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon) * scale + bias


def optimised(model, *, x=None, tolerance=1e-12, judge=None):
    """The graph after all passes; it computes what the model does, by the reference or another judge, under the same names."""
    feed = {}
    for seed, info in enumerate(model.graph.input):
        kind = info.type.tensor_type
        shape = [d.dim_value or 3 for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feed[info.name] = (random(*shape, seed=seed + 1) * 3).astype(dtype)
    if x is not None:
        feed["x"] = x
    before = read_graph(model)
    graph = optimise(before)
    with np.errstate(all="ignore"):
        wanted = judge(before, feed) if judge else ReferenceEvaluator(model).run(None, feed)
        results = run(graph, feed)
    assert [value.name for value in graph.outputs] == [value.name for value in before.outputs]
    for result, expected in zip(results, wanted, strict=True):
        assert result.shape == expected.shape and result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    return graph


def ops(graph):
    return [step.op for step in graph.nodes]


def only(graph):
    """The one node that is left."""
    assert len(graph.nodes) == 1, ops(graph)
    return graph.nodes[0]


def activation_of(graph):
    return only(graph).attributes["activation"]


WEIGHT = random(4, 4, 3, 3)
CONV = node("Conv", "x w", "c", pads=[1, 1, 1, 1])
STATISTICS = {"s": random(4), "b": random(4, seed=1), "m": random(4, seed=2), "v": np.abs(random(4, seed=3))}


# Rewriting as such


def test_a_graph_that_has_nothing_to_rewrite_stays_the_same_object():
    graph = read_graph(model_of(node("Conv", "x w"), w=WEIGHT))
    assert optimise(graph) is graph
    assert all(rewritten(graph) is graph for rewritten in PASSES)


def test_passes_leave_the_graph_they_are_given_as_it_was():
    graph = read_graph(model_of(CONV, node("Relu", "c"), w=WEIGHT))
    nodes, weight = graph.nodes, graph.constants["w"].copy()
    optimise(graph)
    assert graph.nodes is nodes and ops(graph) == ["Conv", "Relu"]
    np.testing.assert_array_equal(graph.constants["w"], weight)


def test_nodes_of_other_domains_are_left_alone():
    foreign = helper.make_node("Relu", ["c"], ["y"], domain="custom")
    model = model_of(CONV, foreign, w=WEIGHT)
    model.opset_import.append(helper.make_opsetid("custom", 1))
    assert ops(optimise(read_graph(model))) == ["Conv", "Relu"]


def test_a_value_that_a_subgraph_reads_is_not_fused_away():
    inner = helper.make_graph([node("Neg", "c", "n")], "inner", [], [helper.make_tensor_value_info("n", F64, None)])
    choice = helper.make_node("If", ["p"], ["z"], then_branch=inner, else_branch=inner)
    model = model_of(CONV, node("Relu", "c"), choice, w=WEIGHT, p=np.array(True), outputs=("y", "z"))
    assert ops(optimised(model)).count("Activation") == 1


# Constants


@pytest.mark.parametrize(
    ("attribute", "expected"),
    [
        ({"value": numpy_helper.from_array(np.array([1.0, 2.0]))}, np.array([1.0, 2.0])),
        ({"value_float": 2.0}, np.float32(2)),
        ({"value_floats": [1.0, 2.0]}, np.array([1, 2], np.float32)),
        ({"value_int": 3}, np.int64(3)),
        ({"value_ints": [3, 4]}, np.array([3, 4])),
        ({"value_string": "a"}, np.array("a")),
    ],
)
def test_every_form_of_constant_becomes_a_value_that_nobody_can_change(attribute, expected):
    graph = optimise(read_graph(model_of(node("Constant", "", **attribute))))
    assert not graph.nodes
    assert graph.constants["y"].dtype == np.asarray(expected).dtype
    np.testing.assert_array_equal(graph.constants["y"], expected)
    assert not graph.constants["y"].flags.writeable


def test_nodes_that_read_constants_alone_are_computed_when_the_model_is_loaded():
    nodes = node("Neg", "a", "n"), node("Clip", "n - high", "k"), node("Add", "x k")
    graph = optimised(model_of(*nodes, a=random(1, 4, 1, 1), high=0.5))
    assert ops(graph) == ["Add"] and list(graph.constants) == ["k"]


def test_the_shape_of_a_value_is_a_constant_where_all_of_it_is_known():
    assert not optimised(model_of(node("Shape", "x"))).nodes
    assert not optimised(model_of(node("Shape", "x", start=1, end=-1))).nodes
    assert not optimised(model_of(node("Size", "x"))).nodes
    assert ops(optimised(model_of(node("Shape", "x"), x=("n", 4, 6, 5)))) == ["Shape"]


def test_random_numbers_are_drawn_anew_each_time():
    assert ops(optimise(read_graph(model_of(node("RandomNormal", "", shape=[3]))))) == ["RandomNormal"]
    assert ops(optimise(read_graph(model_of(node("Bernoulli", "a"), a=[0.5])))) == ["Bernoulli"]


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile"])
def test_a_constant_does_not_grow_beyond_measure(op):
    operands = {"ConstantOfShape": "shape", "Expand": "a shape", "Tile": "a shape"}
    model = model_of(node(op, operands[op]), shape=np.array([5000, 5000]), a=np.ones((1, 1)))
    graph = optimise(read_graph(model))
    assert ops(graph) == [op]


def test_a_constant_that_cannot_be_computed_is_refused_by_the_name_of_its_node():
    broken = helper.make_node("Gather", ["a", "i"], ["y"], name="broken")
    with pytest.raises(ValueError, match="broken.*Gather"):
        optimise(read_graph(model_of(broken, a=[1.0], i=np.array([7]))))


# Scales and shifts


def test_batch_norm_goes_into_the_convolution_before_it():
    graph = optimised(model_of(CONV, node("BatchNormalization", "c s b m v"), w=WEIGHT, **STATISTICS))
    assert only(graph).op == "Conv" and len(graph.constants) == 2


@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 2, 3, 2), (4, 2, 2, 3, 2)], ids=["1-D", "2-D", "3-D"])
def test_batch_norm_folds_into_groups_in_one_to_three_dimensions(shape):
    x = (2, 4, *(6, 5, 4)[: len(shape) - 2])
    nodes = node("Conv", "x w k", "c", group=2), node("BatchNormalization", "c s b m v")
    assert ops(optimised(model_of(*nodes, x=x, w=random(*shape), k=random(4), **STATISTICS))) == ["Conv"]


@pytest.mark.parametrize("groups", [1, 2])
def test_batch_norm_folds_into_a_transposed_convolution(groups):
    nodes = node("ConvTranspose", "x w", "c", group=groups, strides=[2, 2]), node("BatchNormalization", "c s b m v")
    model = model_of(*nodes, w=random(4, 4 // groups, 3, 3), **STATISTICS)
    assert ops(optimised(model, judge=run)) == ["ConvTranspose"]


def test_batch_norm_folds_into_a_matrix_product():
    nodes = node("Gemm", "x w k", "c", transB=1), node("BatchNormalization", "c s b m v")
    assert ops(optimised(model_of(*nodes, x=(3, 5), w=random(4, 5), k=random(4), **STATISTICS))) == ["Dense"]


def test_batch_norm_in_single_precision_is_rounded_once():
    statistics = {name: array.astype(np.float32) for name, array in STATISTICS.items()}
    weight = WEIGHT.astype(np.float32)
    model = model_of(CONV, node("BatchNormalization", "c s b m v"), kind=F32, w=weight, **statistics)
    graph = optimised(model, tolerance=1e-4)
    scale = statistics["s"].astype(np.float64) / np.sqrt(statistics["v"].astype(np.float64) + 1e-5)
    exact = weight.astype(np.float64) * scale.reshape(4, 1, 1, 1)
    np.testing.assert_array_equal(graph.constants[only(graph).inputs[1]], exact.astype(np.float32))


SPELLINGS = {
    "(c - m) / v * s + b": [("Sub", "c m", "1"), ("Div", "1 v", "2"), ("Mul", "s 2", "3"), ("Add", "b 3", "y")],
    "scale, then shift": [("Mul", "c s", "1"), ("Add", "1 b", "y")],
    "shift, then scale": [("Add", "c b", "1"), ("Mul", "1 s", "y")],
    "m - c": [("Sub", "m c", "1"), ("Div", "1 v", "y")],
    "a bias alone": [("Add", "b c", "y")],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1,), (), (1, 1, 1, 1)], ids=str)
def test_batch_norm_may_be_spelled_out(spelling, shape):
    statistics = {name: array[: math.prod(shape)].reshape(shape) for name, array in STATISTICS.items()}
    nodes = [node(*step) for step in SPELLINGS[spelling]]
    assert ops(optimised(model_of(CONV, *nodes, w=WEIGHT, **statistics))) == ["Conv"]


NOT_CHANNELS = {
    "numbers for each column": ("Add", random(5)),
    "numbers for each image": ("Mul", random(2, 1, 1, 1)),
    "numbers for each pixel": ("Add", random(1, 4, 6, 5)),
    "a constant of higher rank": ("Mul", random(1, 1, 4, 1, 1)),
    "division by zero": ("Div", np.array([1.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1)),
    "a scale that is not finite": ("Mul", np.array(np.inf)),
}


@pytest.mark.parametrize("case", NOT_CHANNELS)
def test_arithmetic_that_is_no_scale_or_shift_of_channels_stays(case):
    op, constant = NOT_CHANNELS[case]
    assert ops(optimised(model_of(CONV, node(op, "c k"), w=WEIGHT, k=constant))) == ["Conv", op]


def test_a_constant_divided_by_a_value_is_no_scale():
    assert ops(optimised(model_of(CONV, node("Div", "k c"), w=WEIGHT, k=2.0))) == ["Conv", "Div"]


def test_a_convolution_that_something_else_reads_keeps_its_batch_norm():
    norm = node("BatchNormalization", "c s b m v")
    assert ops(optimised(model_of(CONV, norm, w=WEIGHT, outputs=("y", "c"), **STATISTICS))) == [
        "Conv",
        "BatchNormalization",
    ]
    nodes = CONV, norm, node("Neg", "c", "n")
    assert "BatchNormalization" in ops(optimised(model_of(*nodes, w=WEIGHT, outputs=("y", "n"), **STATISTICS)))


def test_batch_norm_in_training_is_left_alone():
    norm = node("BatchNormalization", "c s b m v", "y om ov", training_mode=1)
    assert "BatchNormalization" in ops(optimise(read_graph(model_of(CONV, norm, w=WEIGHT, **STATISTICS))))


def test_batch_norm_before_opset_7_tells_training_by_an_attribute():
    for is_test, left in ((0, ["Conv", "BatchNormalization"]), (1, ["Conv"])):
        norm = node("BatchNormalization", "c s b m v", is_test=is_test)
        assert ops(optimise(read_graph(model_of(CONV, norm, w=WEIGHT, opset=6, **STATISTICS)))) == left


def test_batch_norm_of_single_elements_stays():
    statistics = {name: np.ones((4, 6, 5)) for name in STATISTICS}
    norm = node("BatchNormalization", "c s b m v", spatial=0)
    graph = optimise(read_graph(model_of(CONV, norm, w=WEIGHT, opset=7, **statistics)))
    assert ops(graph) == ["Conv", "BatchNormalization"]


def test_broadcasting_by_an_attribute_is_not_taken_for_that_of_today():
    add = node("Add", "c b", axis=1, broadcast=1)
    assert ops(optimise(read_graph(model_of(CONV, add, w=WEIGHT, b=random(4), opset=6)))) == ["Conv", "Add"]


def test_half_precision_and_weights_that_are_computed_are_left_to_others():
    halves = {name: array.astype(np.float16) for name, array in STATISTICS.items()}
    norm = node("BatchNormalization", "c s b m v")
    graph = optimised(model_of(CONV, norm, kind=F16, w=WEIGHT.astype(np.float16), **halves), tolerance=0.1)
    assert ops(graph) == ["Conv", "BatchNormalization"]
    graph = optimised(model_of(CONV, norm, inputs={"w": WEIGHT.shape}, **STATISTICS))
    assert ops(graph) == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_scale_and_a_shift_before_an_unpadded_convolution_go_into_it(groups):
    nodes = node("Mul", "x s", "1"), node("Add", "1 b", "2"), node("Conv", "2 w", group=groups)
    constants = {"s": random(4, 1, 1), "b": random(1, 4, 1, 1), "w": random(8, 4 // groups, 3, 2)}
    assert ops(optimised(model_of(*nodes, **constants))) == ["Conv"]


def test_a_shift_before_a_padded_convolution_stays_and_a_scale_goes():
    padded = node("Conv", "1 w", pads=[1, 1, 1, 1])
    assert ops(optimised(model_of(node("Add", "x b", "1"), padded, b=2.0, w=WEIGHT))) == ["Add", "Conv"]
    assert ops(optimised(model_of(node("Mul", "x s", "1"), padded, s=random(4, 1, 1), w=WEIGHT))) == ["Conv"]
    same = node("Conv", "1 w", auto_pad="SAME_UPPER")
    assert ops(optimised(model_of(node("Add", "x b", "1"), same, b=2.0, w=WEIGHT))) == ["Add", "Conv"]


@pytest.mark.parametrize("groups", [1, 2])
def test_a_scale_before_a_transposed_convolution_goes_into_it_and_a_shift_stays(groups):
    conv = node("ConvTranspose", "1 w", strides=[2, 2], group=groups)
    constants = {"w": random(4, 3, 3, 3), "s": random(4, 1, 1)}
    assert ops(optimised(model_of(node("Mul", "x s", "1"), conv, **constants), judge=run)) == ["ConvTranspose"]
    assert ops(optimised(model_of(node("Add", "x s", "1"), conv, **constants), judge=run)) == ["Add", "ConvTranspose"]


def test_a_scale_and_a_shift_before_a_matrix_product_go_into_it():
    nodes = node("Mul", "x s", "1"), node("Add", "1 b", "2"), node("MatMul", "2 w")
    constants = {"s": random(5), "b": random(1, 5), "w": random(5, 4)}
    assert ops(optimised(model_of(*nodes, x=(2, 3, 5), **constants))) == ["Dense"]


# Padding


def test_zeros_around_an_image_become_padding_of_the_convolution():
    pads = np.array([0, 0, 0, 1, 0, 0, 2, 3])
    graph = optimised(model_of(node("Pad", "x p", "1"), node("Conv", "1 w", pads=[1, 1, 1, 1]), p=pads, w=WEIGHT))
    assert only(graph).attributes["pads"] == [1, 2, 3, 4]
    graph = optimised(
        model_of(node("Pad", "x p z", "1"), node("Conv", "1 w", auto_pad="VALID"), p=pads, z=0.0, w=WEIGHT)
    )
    assert only(graph).attributes["pads"] == [0, 1, 2, 3]


def test_before_opset_11_pads_are_attributes():
    pad = node("Pad", "x", "1", pads=[0, 0, 0, 1, 0, 0, 2, 3])
    assert ops(optimised(model_of(pad, node("Conv", "1 w"), w=WEIGHT, opset=10))) == ["Conv"]
    pad = node("Pad", "x", "1", pads=[0, 0, 0, 1, 0, 0, 2, 3], value=1.0)
    assert ops(optimised(model_of(pad, node("Conv", "1 w"), w=WEIGHT, opset=10))) == ["Pad", "Conv"]


PADS = [0, 0, 0, 1, 0, 0, 2, 3]
NOT_ZEROS_AROUND = {
    "another number": (PADS, 1.0, {}, {}),
    "another mode": (PADS, 0.0, {"mode": "edge"}, {}),
    "a channel more": ([0, 1, 0, 0, 0, 0, 0, 0], 0.0, {}, {"kernel": (4, 5, 3, 3)}),
    "a convolution that pads by the size of what it reads": (PADS, 0.0, {}, {"auto_pad": "SAME_UPPER"}),
}


@pytest.mark.parametrize("case", NOT_ZEROS_AROUND)
def test_padding_that_a_convolution_cannot_imply_stays(case):
    pads, fill, mode, conv = NOT_ZEROS_AROUND[case]
    weight = random(*conv.pop("kernel", (4, 4, 3, 3)))
    nodes = node("Pad", "x p z", "1", **mode), node("Conv", "1 w", **conv)
    assert ops(optimised(model_of(*nodes, p=np.array(pads), z=fill, w=weight))) == ["Pad", "Conv"]


def test_a_crop_is_no_padding():
    model = model_of(node("Pad", "x p", "1"), node("Conv", "1 w"), p=np.array([0, 0, 0, -1, 0, 0, 1, 0]), w=WEIGHT)
    assert ops(optimise(read_graph(model))) == ["Pad", "Conv"]


def test_padding_that_something_else_reads_stays():
    nodes = node("Pad", "x p", "1"), node("Conv", "1 w"), node("Neg", "1", "n")
    graph = optimised(model_of(*nodes, p=np.array(PADS), w=WEIGHT, outputs=("y", "n")))
    assert sorted(ops(graph)) == ["Conv", "Neg", "Pad"]


@pytest.mark.parametrize(("include", "own", "folds"), [(0, 0, True), (1, 1, True), (1, 0, True), (0, 1, False)])
def test_zeros_before_an_average_pool_count_as_elements(include, own, folds):
    pool = node("AveragePool", "1", kernel_shape=[4, 4], pads=[own] * 4, count_include_pad=include)
    pads = np.array([0, 0, 1, 0, 0, 0, 2, 1])
    graph = optimised(model_of(node("Pad", "x p", "1"), pool, p=pads))
    assert ops(graph) == (["AveragePool"] if folds else ["Pad", "AveragePool"])


# Activations

SINGLE = {
    "Relu": (node("Relu", "x"), 17, Activation.of("relu")),
    "Clip by operands": (node("Clip", "x low high"), 17, Activation("clip", -0.5, 2)),
    "Clip with one bound": (node("Clip", "x - high"), 17, Activation("clip", -math.inf, 2)),
    "Clip by attributes": (node("Clip", "x", min=-0.5, max=2.0), 10, Activation("clip", -0.5, 2)),
    "Max": (node("Max", "low x"), 17, Activation("clip", -0.5, math.inf)),
    "Min": (node("Min", "x high"), 17, Activation("clip", -math.inf, 2)),
    "LeakyRelu": (node("LeakyRelu", "x", alpha=0.25), 17, Activation("leaky_relu", 0.25)),
    "PRelu with one slope": (node("PRelu", "x high"), 17, Activation("leaky_relu", 2)),
    "HardSigmoid": (node("HardSigmoid", "x", alpha=0.25), 17, Activation("hardsigmoid", 0.25, 0.5)),
    "HardSwish": (node("HardSwish", "x"), 17, Activation.of("hardswish")),
    "Sigmoid": (node("Sigmoid", "x"), 17, Activation.of("sigmoid")),
    "Tanh": (node("Tanh", "x"), 17, Activation.of("tanh")),
    "Gelu": (node("Gelu", "x"), 20, Activation.of("gelu")),
}
SPECIAL = np.array([[-np.inf, -3.0, -1.0, -0.0, 0.0, 0.5, 3.0, 7.0, np.inf, np.nan]])


@pytest.mark.parametrize("case", SINGLE)
def test_activations_of_all_names_are_one_operator(case):
    step, opset, activation = SINGLE[case]
    model = model_of(step, opset=opset, low=-0.5, high=2.0)
    assert activation_of(optimised(model, tolerance=1e-7)) == activation
    special = model_of(step, x=(1, 10), opset=opset, low=-0.5, high=2.0)
    # the reference reads attributes in single precision
    optimised(special, x=SPECIAL, tolerance=1e-7)


PRODUCTS = {
    "x * sigmoid(x)": ([("Sigmoid", "x", "g"), ("Mul", "x g", "y")], "silu"),
    "sigmoid(x) * x": ([("Sigmoid", "x", "g"), ("Mul", "g x", "y")], "silu"),
    "x * sigmoid(1 * x)": ([("Mul", "x one", "1"), ("Sigmoid", "1", "g"), ("Mul", "x g", "y")], "silu"),
    "clip(x + 3, 0, 6) / 6": (
        [("Add", "x three", "1"), ("Clip", "1 zero six", "2"), ("Div", "2 six", "y")],
        "hardsigmoid",
    ),
    "1/6 * clip(3 + x, 0, 6)": (
        [("Add", "three x", "1"), ("Clip", "1 zero six", "2"), ("Mul", "sixth 2", "y")],
        "hardsigmoid",
    ),
    "x * clip(x + 3, 0, 6) / 6": (
        [("Add", "x three", "1"), ("Clip", "1 zero six", "2"), ("Mul", "x 2", "3"), ("Div", "3 six", "y")],
        "hardswish",
    ),
    "clip(x + 3, 0, 6) * x * 1/6": (
        [("Add", "x three", "1"), ("Clip", "1 zero six", "2"), ("Mul", "2 x", "3"), ("Mul", "3 sixth", "y")],
        "hardswish",
    ),
    "x * (clip(x + 3, 0, 6) / 6)": (
        [("Add", "x three", "1"), ("Clip", "1 zero six", "2"), ("Div", "2 six", "3"), ("Mul", "x 3", "y")],
        "hardswish",
    ),
    "x / 6 * min(relu(x + 3), 6)": (
        [
            ("Add", "x three", "1"),
            ("Relu", "1", "2"),
            ("Min", "2 six", "3"),
            ("Div", "x six", "4"),
            ("Mul", "4 3", "y"),
        ],
        "hardswish",
    ),
    "0.5 * (x * (1 + erf(x / sqrt(2))))": (
        [("Div", "x root", "1"), ("Erf", "1", "2"), ("Add", "2 one", "3"), ("Mul", "x 3", "4"), ("Mul", "half 4", "y")],
        "gelu",
    ),
    "(0.5 * x) * (erf(x * sqrt(1/2)) + 1)": (
        [
            ("Mul", "x unroot", "1"),
            ("Erf", "1", "2"),
            ("Add", "one 2", "3"),
            ("Mul", "half x", "4"),
            ("Mul", "4 3", "y"),
        ],
        "gelu",
    ),
    "x * (0.5 * (1 + erf(x / sqrt(2))))": (
        [("Div", "x root", "1"), ("Erf", "1", "2"), ("Add", "2 one", "3"), ("Mul", "3 half", "4"), ("Mul", "x 4", "y")],
        "gelu",
    ),
}
NUMBERS = {
    "zero": 0.0,
    "one": 1.0,
    "three": 3.0,
    "six": 6.0,
    "sixth": 1 / 6,
    "half": 0.5,
    "root": 2**0.5,
    "unroot": 0.5**0.5,
}


@pytest.mark.parametrize("spelling", PRODUCTS)
@pytest.mark.parametrize("kind", [F32, F64], ids=["f32", "f64"])
def test_activations_may_be_spelled_out(spelling, kind):
    steps, name = PRODUCTS[spelling]
    nodes = [node(*step) for step in steps]
    # the reference computes erf in single precision, whatever it is given
    tolerance = 2e-6 if kind == F32 or name == "gelu" else 1e-12
    activation = activation_of(optimised(model_of(*nodes, kind=kind, **NUMBERS), tolerance=tolerance))
    expected = Activation.of(name)
    assert activation.kind == expected.kind
    assert activation.alpha == pytest.approx(expected.alpha) and activation.beta == pytest.approx(expected.beta)


def test_a_hard_swish_of_infinity_and_nan_is_what_its_spelling_gives():
    nodes = [node(*step) for step in PRODUCTS["x * clip(x + 3, 0, 6) / 6"][0]]
    assert activation_of(optimised(model_of(*nodes, x=(1, 10), **NUMBERS), x=SPECIAL)).kind == "hardswish"


NO_ACTIVATION = {
    "a gate of something else": [("Neg", "x", "n"), ("Sigmoid", "n", "g"), ("Mul", "x g", "y")],
    "another bound": [
        ("Add", "x three", "1"),
        ("Clip", "1 zero three", "2"),
        ("Mul", "x 2", "3"),
        ("Div", "3 six", "y"),
    ],
    "a lower bound": [("Add", "x three", "1"), ("Clip", "1 one six", "2"), ("Mul", "x 2", "3"), ("Div", "3 six", "y")],
    "six over it": [("Add", "x three", "1"), ("Clip", "1 zero six", "2"), ("Div", "six 2", "y")],
    "another number before erf": [
        ("Div", "x three", "1"),
        ("Erf", "1", "2"),
        ("Add", "2 one", "3"),
        ("Mul", "x 3", "4"),
        ("Mul", "half 4", "y"),
    ],
    "the square of a gate": [("Sigmoid", "x", "g"), ("Mul", "g g", "y")],
}


@pytest.mark.parametrize("case", NO_ACTIVATION)
def test_products_that_resemble_an_activation_stay(case):
    nodes = [node(*step) for step in NO_ACTIVATION[case]]
    graph = optimised(model_of(*nodes, **NUMBERS))
    assert {step.attributes["activation"].kind for step in graph.nodes if step.op == "Activation"} <= {
        "sigmoid",
        "clip",
    }
    assert "Mul" in ops(graph) or "Div" in ops(graph)


def test_a_gate_that_something_else_reads_stays():
    nodes = node("Sigmoid", "x", "g"), node("Mul", "x g")
    assert ops(optimised(model_of(*nodes, outputs=("y", "g")))) == ["Activation", "Mul"]


def test_a_number_that_adds_an_axis_is_no_number():
    nodes = node("Sigmoid", "x", "g"), node("Mul", "x g", "1"), node("Mul", "1 k")
    assert ops(optimised(model_of(*nodes, x=(3,), k=np.ones((1, 1))))) == ["Activation", "Mul"]


def test_bounds_that_follow_each_other_are_one_pair():
    for bounds, pair in (((-1, 1), (0.0, 1.0)), ((-3, -2), (-2.0, -2.0)), ((0.5, 8), (0.5, 6.0))):
        nodes = node("Relu", "x", "1"), node("Clip", "1 - high", "2"), node("Clip", "2 low top")
        graph = optimised(model_of(*nodes, high=6.0, low=float(bounds[0]), top=float(bounds[1])))
        assert activation_of(graph) == Activation("clip", *pair)


NOT_AN_ACTIVATION = {
    "integers": (node("Relu", "x"), I64, 17),
    "half precision": (node("Sigmoid", "x"), F16, 17),
    "the tanh form of GELU": (node("Gelu", "x", approximate="tanh"), F64, 20),
    "crossed bounds": (node("Clip", "x two one"), F64, 17),
    "a slope for each channel": (node("PRelu", "x slopes"), F64, 17),
    "a bound for each column": (node("Max", "x columns"), F64, 17),
}


@pytest.mark.parametrize("case", NOT_AN_ACTIVATION)
def test_what_the_tiles_do_not_compute_keeps_its_operator(case):
    step, kind, opset = NOT_AN_ACTIVATION[case]
    constants = {"one": 1, "two": 2, "slopes": np.ones((4, 1, 1)), "columns": np.arange(5.0)}
    used = {name: constants[name] for name in step.input if name in constants}
    assert only(optimised(model_of(step, kind=kind, opset=opset, **used), tolerance=1e-2)).op == step.op_type


def test_computed_bounds_are_no_activation():
    model = model_of(node("Clip", "x low"), inputs={"low": ()})
    assert only(optimise(read_graph(model))).op == "Clip"


# Epilogues


@pytest.mark.parametrize(
    ("first", "constants"),
    [
        (CONV, {"w": WEIGHT}),
        (node("ConvTranspose", "x w", "c"), {"w": random(4, 3, 2, 2)}),
        (node("MatMul", "x w", "c"), {"w": random(5, 7)}),
    ],
    ids=["Conv", "ConvTranspose", "MatMul"],
)
def test_an_activation_goes_into_the_linear_map_before_it(first, constants):
    graph = optimised(model_of(first, node("LeakyRelu", "c", alpha=0.5), **constants))
    assert activation_of(graph) == Activation("leaky_relu", 0.5)


def test_bias_residual_and_activation_go_into_one_convolution_in_this_order():
    nodes = CONV, node("Add", "c b", "1"), node("Add", "x 1", "2"), node("Relu", "2")
    conv = only(optimised(model_of(*nodes, w=WEIGHT, b=random(4, 1, 1))))
    assert conv.inputs[0] == conv.inputs[3] == "x" and conv.attributes["activation"] == Activation.of("relu")


def test_a_bias_after_the_residual_is_still_a_bias_and_a_scale_is_none():
    nodes = CONV, node("Add", "c x", "1"), node("Add", "1 b", "2")
    assert ops(optimised(model_of(*nodes, node("Relu", "2"), w=WEIGHT, b=random(4, 1, 1)))) == ["Conv"]
    assert ops(optimised(model_of(*nodes, node("Mul", "2 k"), w=WEIGHT, b=random(4, 1, 1), k=2.0))) == ["Conv", "Mul"]


def test_of_two_convolutions_the_later_one_adds():
    nodes = CONV, node("Conv", "c v", "d"), node("Conv", "x u", "e"), node("Sum", "e d")
    graph = optimised(model_of(*nodes, w=WEIGHT, v=random(4, 4, 1, 1), u=random(4, 4, 1, 1)))
    assert ops(graph) == ["Conv"] * 3 and [len(step.inputs) for step in graph.nodes] == [2, 2, 4]
    assert graph.nodes[-1].inputs[:2] == ("x", "u")


def test_a_sum_of_a_matrix_product_and_a_tensor_is_one_node():
    nodes = node("MatMul", "x w", "1"), node("Add", "1 b", "2"), node("Add", "r 2")
    graph = optimised(model_of(*nodes, x=("n", 5), inputs={"r": (None, None)}, w=random(5, 3), b=random(3)))
    assert only(graph).op == "Dense" and only(graph).inputs[3] == "r"


NO_RESIDUAL = {
    "an activation before the sum": [CONV, node("Relu", "c", "1"), node("Add", "1 x")],
    "shapes that differ": [CONV, node("GlobalAveragePool", "x", "1"), node("Add", "c 1")],
    "ranks that differ": [CONV, node("ReduceMean", "x", "1", axes=[0], keepdims=0), node("Add", "c 1")],
    "a constant image": [CONV, node("Add", "c image")],
    "the result added to itself": [CONV, node("Add", "c c")],
    "a transposed convolution": [node("ConvTranspose", "x w", "c", pads=[1, 1, 1, 1]), node("Add", "c x")],
}


@pytest.mark.parametrize("case", NO_RESIDUAL)
def test_sums_that_no_epilogue_computes_stay(case):
    nodes = NO_RESIDUAL[case]
    assert "Add" in ops(optimised(model_of(*nodes, w=WEIGHT, image=random(*IMAGE))))


def test_what_the_caller_or_another_node_reads_is_not_fused_away():
    for extra, outputs in (((), ("y", "c")), ((node("Neg", "c", "n"),), ("y", "n"))):
        graph = optimised(model_of(CONV, node("Relu", "c"), *extra, w=WEIGHT, outputs=outputs))
        assert "Activation" in ops(graph)
        graph = optimised(model_of(CONV, node("Add", "c x"), *extra, w=WEIGHT, outputs=outputs))
        assert "Add" in ops(graph)


def test_only_one_activation_and_one_residual_go_into_a_convolution():
    graph = optimised(model_of(CONV, node("Sigmoid", "c", "1"), node("Tanh", "1"), w=WEIGHT))
    assert ops(graph) == ["Conv", "Activation"]
    graph = optimised(model_of(CONV, node("Add", "c x", "1"), node("Add", "1 x"), w=WEIGHT))
    assert ops(graph) == ["Conv", "Add"]


# Matrix products


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("bias", [None, (), (1,), (4,), (1, 4)], ids=str)
def test_gemm_with_a_constant_matrix_is_dense(alpha, transposed, bias):
    gemm = node("Gemm", "x w" if bias is None else "x w k", transB=transposed, alpha=alpha, beta=0.25)
    weight = random(4, 5) if transposed else random(5, 4)
    constants = {} if bias is None else {"k": random(*bias)}
    graph = optimised(model_of(gemm, x=("n", 5), w=weight, **constants))
    dense = only(graph)
    assert dense.op == "Dense" and graph.constants[dense.inputs[1]].shape == (4, 5)
    assert graph.constants[dense.inputs[1]].flags.c_contiguous
    assert bias is None or graph.constants[dense.inputs[2]].shape == (4,)


def test_weights_that_lie_right_are_not_copied():
    graph = read_graph(model_of(node("Gemm", "x w", transB=1), x=("n", 5), w=random(4, 5)))
    weight = graph.constants["w"]
    (dense,) = (rewritten := optimise(graph)).nodes
    assert np.shares_memory(rewritten.constants[dense.inputs[1]], weight)


def test_an_addend_that_is_computed_is_the_residual_of_a_gemm():
    gemm = node("Gemm", "x w k", transB=1)
    graph = optimised(model_of(gemm, x=(2, 5), inputs={"k": (2, 4)}, w=random(4, 5)))
    assert only(graph).inputs[3] == "k"
    graph = optimised(model_of(gemm, x=(2, 5), inputs={"k": (4,)}, w=random(4, 5)))
    assert ops(graph) == ["Dense", "Add"]


NOT_DENSE = {
    "a transposed input": (node("Gemm", "x w", transA=1), (4, 2), random(4, 3)),
    "an addend for each row": (node("Gemm", "x w k"), (3, 4), random(4, 3)),
    "a stack of matrices": (node("MatMul", "x w"), (3, 2, 4), random(3, 4, 5)),
    "a vector": (node("MatMul", "x w"), (3, 4), random(4)),
    "the constant first": (node("MatMul", "w x"), (4, 3), random(5, 4)),
}


@pytest.mark.parametrize("case", NOT_DENSE)
def test_other_matrix_products_stay(case):
    step, x, weight = NOT_DENSE[case]
    assert only(optimised(model_of(step, x=x, w=weight, k=random(3, 1)))).op == step.op_type


# Layer normalisation

NORM = [
    ("ReduceMean", "x", "1"),
    ("Sub", "x 1", "2"),
    ("Pow", "2 two", "3"),
    ("ReduceMean", "3", "4"),
    ("Add", "4 e", "5"),
    ("Sqrt", "5", "6"),
    ("Div", "2 6", "7"),
    ("Mul", "7 s", "8"),
    ("Add", "b 8", "y"),
]


def norm_nodes(axes, *, second=None, steps=NORM, **changed):
    means = itertools.chain([axes], itertools.repeat(second or axes))
    return [
        node(*changed.get(f"n{i}", step), **({"axes": next(means)} if step[0] == "ReduceMean" else {}))
        for i, step in enumerate(steps, 1)
    ]


@pytest.mark.parametrize("axes", [[-1], [3], [-2, -1], [2, 3]], ids=str)
@pytest.mark.parametrize("square", [("Pow", "2 two", "3"), ("Mul", "2 2", "3")], ids=["pow", "mul"])
def test_layer_norm_may_be_spelled_out(axes, square):
    shape = IMAGE[-len(axes) :]
    model = model_of(*norm_nodes(axes, n3=square), two=2.0, e=1e-3, s=random(*shape), b=random(*shape))
    norm = only(optimised(model))
    assert norm.op == "LayerNormalization"
    assert norm.attributes == {"axis": -len(axes), "epsilon": 1e-3}


NO_NORM = {
    "axes that are not the last": norm_nodes([1]),
    "different axes": norm_nodes([-1], second=[-2]),
    "a cube": norm_nodes([-1], n3=("Pow", "2 e", "3")),
    "another mean": norm_nodes([-1], n2=("Sub", "1 x", "2")),
    "another quotient": norm_nodes([-1], n7=("Div", "x 6", "7")),
}


@pytest.mark.parametrize("case", NO_NORM)
def test_what_is_no_layer_norm_stays_arithmetic(case):
    model = model_of(*NO_NORM[case], x=(2, 5, 5), two=2.0, e=3.0, s=random(5), b=random(5))
    assert "LayerNormalization" not in ops(optimised(model))


def test_a_layer_norm_whose_variance_is_asked_for_stays_arithmetic():
    model = model_of(*norm_nodes([-1]), two=2.0, e=1e-3, s=random(5), b=random(5), outputs=("y", "4"))
    assert "LayerNormalization" not in ops(optimised(model))


# Identities, changes of shape, common and dead nodes

UNCHANGED = {
    "Identity": (node("Identity", "x", "1"), 17),
    "Dropout in inference": (node("Dropout", "x", "1"), 17),
    "Dropout with an unused mask": (node("Dropout", "x half no", "1 mask"), 17),
    "Cast to the same type": (node("Cast", "x", "1", to=F64), 17),
    "a sum with zero": (node("Add", "zero x", "1"), 17),
    "a difference to zero": (node("Sub", "x zero", "1"), 17),
    "a product with one": (node("Mul", "x one", "1"), 17),
    "a quotient by one": (node("Div", "x one", "1"), 17),
    "Concat of one": (node("Concat", "x", "1", axis=1), 17),
    "Pad by nothing": (node("Pad", "x none", "1"), 17),
    "Transpose to the same order": (node("Transpose", "x", "1", perm=[0, 1, 2, 3]), 17),
    "Reshape to the same shape": (node("Reshape", "x same", "1"), 17),
}
KEPT = {
    "Cast to another type": node("Cast", "x", "1", to=F32),
    "zero minus a value": node("Sub", "zero x", "1"),
    "one over a value": node("Div", "one x", "1"),
    "zeros that add an axis": node("Add", "x zeros", "1"),
    "Dropout whose mask is an output": node("Dropout", "x", "1 mask"),
    "Pad by something": node("Pad", "x some", "1"),
    "Transpose to another order": node("Transpose", "x", "1", perm=[0, 1, 3, 2]),
}
SHAPES = {
    "none": np.zeros(8, int),
    "some": np.arange(8) % 2,
    "same": np.array([0, -1, 6, 5]),
    "no": np.array(False),
    "zeros": np.zeros((1, 1, 1, 1, 1)),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_nodes_that_change_nothing_disappear(case):
    step, opset = UNCHANGED[case]
    assert ops(optimised(model_of(step, node("Neg", "1"), opset=opset, **NUMBERS, **SHAPES))) == ["Neg"]


@pytest.mark.parametrize("case", KEPT)
def test_nodes_that_change_something_stay(case):
    outputs = ("y", "mask") if "mask" in case else ("y",)
    graph = optimised(model_of(KEPT[case], node("Neg", "1"), outputs=outputs, **NUMBERS, **SHAPES))
    assert ops(graph) == [KEPT[case].op_type, "Neg"]


def test_integers_too_are_left_as_they_are_by_zero_and_one():
    nodes = node("Add", "x zero", "1"), node("Mul", "1 one", "2"), node("Neg", "2")
    assert ops(optimised(model_of(*nodes, kind=I64, zero=0, one=1))) == ["Neg"]


def test_outputs_keep_their_names_when_an_identity_gives_them():
    assert ops(optimised(model_of(node("Neg", "x", "1"), node("Identity", "1")))) == ["Neg"]
    nodes = node("Neg", "x", "1"), node("Abs", "1", "2"), node("Identity", "1")
    assert sorted(ops(optimised(model_of(*nodes, outputs=("2", "y"))))) == ["Abs", "Neg"]
    assert ops(optimised(model_of(node("Identity", "x")))) == ["Identity"]
    nodes = node("Neg", "x", "1"), node("Identity", "1")
    assert ops(optimised(model_of(*nodes, outputs=("1", "y")))) == ["Neg", "Identity"]


def test_transposes_that_follow_each_other_are_one_or_none():
    there, back = node("Transpose", "x", "1", perm=[0, 2, 3, 1]), node("Transpose", "1", "2", perm=[0, 3, 1, 2])
    assert ops(optimised(model_of(there, back, node("Neg", "2")))) == ["Neg"]
    graph = optimised(model_of(there, node("Transpose", "1", "2", perm=[1, 0, 2, 3]), node("Transpose", "2")))
    assert only(graph).attributes["perm"] == [1, 3, 0, 2]


def test_a_transpose_that_is_read_stays_when_its_inverse_goes():
    there, back = node("Transpose", "x", "1", perm=[0, 2, 3, 1]), node("Transpose", "1", "2", perm=[0, 3, 1, 2])
    graph = optimised(model_of(there, back, node("Neg", "2"), outputs=("y", "1")))
    assert sorted(ops(graph)) == ["Neg", "Transpose"]


def test_of_reshapes_the_last_one_counts():
    nodes = node("Flatten", "x", "1"), node("Reshape", "1 a", "2"), node("Reshape", "2 b")
    graph = optimised(model_of(*nodes, x=("n", 4, 6, 5), a=np.array([0, 12, 10]), b=np.array([-1, 30])))
    assert ops(graph) == ["Reshape"] and only(graph).inputs == ("x", "b")
    graph = optimised(model_of(*nodes, x=("n", 4, 6, 5), a=np.array([0, 12, 10]), b=np.array([0, -1])))
    assert len(graph.nodes) > 1  # the zero stands for a size of what is reshaped


def test_squeeze_and_unsqueeze_cancel_where_their_axes_agree():
    for axes, left in ((np.array([2]), ["Neg"]), (np.array([3]), ["Unsqueeze", "Squeeze", "Neg"])):
        nodes = node("Unsqueeze", "x two", "1"), node("Squeeze", "1 axes", "2"), node("Neg", "2")
        graph = optimised(model_of(*nodes, x=(2, 3, 1, 4), two=np.array([2]), axes=axes))
        assert ops(graph) == left
    nodes = node("Squeeze", "x", "1", axes=[2]), node("Unsqueeze", "1", "2", axes=[2]), node("Neg", "2")
    assert ops(optimised(model_of(*nodes, x=(2, "k", 1, 4), opset=12))) == ["Neg"]


def test_what_is_computed_twice_is_computed_once():
    nodes = node("Transpose", "x", "1", perm=[1, 0, 2, 3]), node("Transpose", "x", "2", perm=[1, 0, 2, 3])
    graph = optimised(model_of(*nodes, node("Neg", "1", "3"), node("Neg", "2", "4"), node("Concat", "3 4", axis=0)))
    assert ops(graph) == ["Transpose", "Neg", "Concat"]
    other = node("Transpose", "x", "2", perm=[0, 1, 3, 2])
    assert len(optimised(model_of(nodes[0], other, outputs=("1", "2"))).nodes) == 2


def test_random_numbers_are_not_shared():
    nodes = node("RandomNormalLike", "x", "1"), node("RandomNormalLike", "x", "2"), node("Sub", "1 2")
    assert len(optimise(read_graph(model_of(*nodes))).nodes) == 3


def test_what_no_output_needs_is_dropped_with_its_constants():
    graph = optimised(model_of(node("Neg", "x"), node("Conv", "x w", "1"), node("Relu", "1", "2"), w=WEIGHT))
    assert ops(graph) == ["Neg"] and not graph.constants
