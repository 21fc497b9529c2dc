"""Patterns that are spelled out get names, and epilogues take what follows a linear map."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

pytest.importorskip("onnx")

from graphs import (  # noqa: E402
    CONV,
    F16,
    F32,
    F64,
    I64,
    IMAGE,
    NUMBERS,
    WEIGHT,
    activation_of,
    model_of,
    node,
    only,
    ops,
    optimised,
    random,
)

from numbaconv.epilogue import Activation  # noqa: E402
from numbaconv.graph.ir import read_graph  # noqa: E402
from numbaconv.graph.passes import optimise  # noqa: E402
from numbaconv.graph.passes.activations import name_activations  # noqa: E402

# Activations

SINGLE_MAX = float(np.finfo(np.float32).max)
SINGLE = {
    "Relu": (node("Relu", "x"), 17, Activation.of("relu")),
    "Clip by operands": (node("Clip", "x low high"), 17, Activation("clip", -0.5, 2)),
    "Clip with one bound": (node("Clip", "x - high"), 17, Activation("clip", -math.inf, 2)),
    "Clip since opset 11": (node("Clip", "x low high"), 11, Activation("clip", -0.5, 2)),
    "Clip to one number": (node("Clip", "x high high"), 17, Activation("clip", 2, 2)),
    "Clip by one attribute": (node("Clip", "x", max=2.0), 10, Activation("clip", -SINGLE_MAX, 2)),
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
    "Mish": (node("Mish", "x"), 18, Activation("mish")),
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
    "x * tanh(softplus(x))": ([("Softplus", "x", "s"), ("Tanh", "s", "g"), ("Mul", "x g", "y")], "mish"),
    "tanh(softplus(x)) * x": ([("Softplus", "x", "s"), ("Tanh", "s", "g"), ("Mul", "g x", "y")], "mish"),
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


@pytest.mark.parametrize("spelling", PRODUCTS)
@pytest.mark.parametrize("kind", [F32, F64], ids=["f32", "f64"])
def test_activations_may_be_spelled_out(spelling, kind):
    steps, name = PRODUCTS[spelling]
    nodes = [node(*step) for step in steps]
    # the reference computes erf in single precision, whatever it is given
    tolerance = 2e-6 if kind == F32 or name == "gelu" else 1e-12
    activation = activation_of(optimised(model_of(*nodes, kind=kind, **NUMBERS), tolerance=tolerance))
    expected = Activation("mish") if name == "mish" else Activation.of(name)
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
    "softplus of something else": [("Softplus", "three", "s"), ("Tanh", "s", "g"), ("Mul", "x g", "y")],
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


def test_bounds_and_other_activations_that_follow_each_other_stay_two():
    relu, other = node("Relu", "1"), node("LeakyRelu", "x", "1", alpha=0.5)
    assert ops(optimised(model_of(other, relu))) == ["Activation"] * 2
    relu, other = node("Clip", "x low high", "1"), node("Tanh", "1")
    assert ops(optimised(model_of(relu, other, low=-1.0, high=0.5))) == ["Activation"] * 2


NOT_AN_ACTIVATION = {
    "integers": (node("Relu", "x"), I64, 17),
    "half precision": (node("Sigmoid", "x"), F16, 17),
    "the tanh form of GELU": (node("Gelu", "x", approximate="tanh"), F64, 20),
    "crossed bounds": (node("Clip", "x two one"), F64, 17),
    "an infinite slope": (node("LeakyRelu", "x", alpha=math.inf), F64, 17),
    "an infinite factor": (node("HardSigmoid", "x", alpha=math.inf), F64, 17),
    "a slope for each channel": (node("PRelu", "x slopes"), F64, 17),
    "the largest of three": (node("Max", "x one two"), F64, 17),
    "a bound for each column": (node("Max", "x columns"), F64, 17),
}


@pytest.mark.parametrize("case", NOT_AN_ACTIVATION)
def test_what_the_tiles_do_not_compute_keeps_its_operator(case):
    step, kind, opset = NOT_AN_ACTIVATION[case]
    constants = {"one": 1, "two": 2, "slopes": np.ones((4, 1, 1)), "columns": np.arange(5.0)}
    used = {name: constants[name] for name in step.input if name in constants}
    assert only(optimised(model_of(step, kind=kind, opset=opset, **used), tolerance=1e-2)).op == step.op_type


@pytest.mark.parametrize("bounds", ["low", "- low", "zero low", "low zero"])
def test_computed_bounds_are_no_activation(bounds):
    model = model_of(node("Clip", f"x {bounds}"), inputs={"low": ()}, zero=0.0)
    assert only(optimise(read_graph(model))).op == "Clip"


def test_an_activation_of_a_constant_is_not_one_of_nothing():
    graph = read_graph(model_of(node("Relu", "zero"), zero=0.0))
    assert name_activations(graph) is graph


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
    "a mean that loses its axis": [node("ReduceMean", "x", "1", axes=[-1], keepdims=0), *norm_nodes([-1])[1:]],
    "the mean of something else": [node("Neg", "x", "0"), *norm_nodes([-1], n1=("ReduceMean", "0", "1"))],
    "a quotient of two": norm_nodes([-1], n8=("Div", "7 s", "8")),
    "a cube": norm_nodes([-1], n3=("Pow", "2 e", "3")),
    "another mean": norm_nodes([-1], n2=("Sub", "1 x", "2")),
    "another quotient": norm_nodes([-1], n7=("Div", "x 6", "7")),
}


@pytest.mark.parametrize("case", NO_NORM)
def test_what_is_no_layer_norm_stays_arithmetic(case):
    model = model_of(*NO_NORM[case], x=(5, 5, 5), two=2.0, e=3.0, s=random(5), b=random(5))
    assert "LayerNormalization" not in ops(optimised(model))


@pytest.mark.parametrize("shape", [(1,), (5, 5), (1, 1)], ids=str)
def test_a_scale_of_another_shape_than_the_normalised_axes_is_none_of_a_layer_norm(shape):
    model = model_of(*norm_nodes([-1]), x=(2, 5, 5), two=2.0, e=1e-3, s=random(*shape), b=random(5))
    assert "LayerNormalization" not in ops(optimised(model))


def test_since_opset_18_the_axes_of_a_mean_are_an_operand():
    steps = [
        node("ReduceMean", f"{s.input[0]} axes", *s.output) if s.op_type == "ReduceMean" else s
        for s in norm_nodes([-1])
    ]
    model = model_of(*steps, opset=18, axes=np.array([-1]), two=2.0, e=1e-3, s=random(5), b=random(5))
    assert only(optimised(model)).op == "LayerNormalization"


@pytest.mark.parametrize(("axis", "named"), [(-1, True), (3, False)])
def test_without_a_rank_only_axes_counted_from_the_end_are_known_to_be_the_last(axis, named):
    model = model_of(*norm_nodes([axis]), two=2.0, e=1e-3, s=random(5), b=random(5))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert ("LayerNormalization" in ops(optimise(read_graph(model)))) == named


def test_a_layer_norm_that_has_a_bias_or_another_reader_takes_no_further_one():
    norm, add = node("LayerNormalization", "x s s", "1", axis=-1), node("Add", "1 s")
    assert ops(optimise(read_graph(model_of(norm, add, s=random(5))))) == ["LayerNormalization", "Add"]
    norm = node("LayerNormalization", "x s", "1", axis=-1)
    graph = optimise(read_graph(model_of(norm, add, node("Neg", "1", "n"), s=random(5), outputs=("y", "n"))))
    assert sorted(ops(graph)) == ["Add", "LayerNormalization", "Neg"]


def test_a_bias_of_another_shape_is_added_to_a_layer_norm():
    model = model_of(*norm_nodes([-1]), x=(2, 5, 5), two=2.0, e=1e-3, s=random(5), b=random(5, 5))
    assert ops(optimised(model)) == ["LayerNormalization", "Add"]


def test_the_layer_norm_of_half_precision_stays_arithmetic():
    constants = {"two": 2.0, "e": 1e-3, "s": random(5, dtype=np.float16), "b": random(5, dtype=np.float16)}
    graph = optimised(model_of(*norm_nodes([-1]), x=(2, 5, 5), kind=F16, **constants), tolerance=0.05)
    assert "LayerNormalization" not in ops(graph)


def test_a_layer_norm_whose_variance_is_asked_for_stays_arithmetic():
    model = model_of(*norm_nodes([-1]), two=2.0, e=1e-3, s=random(5), b=random(5), outputs=("y", "4"))
    assert "LayerNormalization" not in ops(optimised(model))
