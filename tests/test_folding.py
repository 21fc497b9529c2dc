"""Arithmetic with constants and padding go into weights, bias and attributes of the nodes beside them, where that is exact."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("onnx")

from graphs import CONV, F16, F32, STATISTICS, WEIGHT, model_of, node, only, ops, optimised, random, run  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

from numbaconv.graph.ir import read_graph  # noqa: E402
from numbaconv.graph.passes import optimise  # noqa: E402

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


def test_batch_norm_after_a_matrix_product_of_higher_rank_is_over_another_axis():
    nodes = node("MatMul", "x w", "c"), node("BatchNormalization", "c s b m v")
    assert ops(optimised(model_of(*nodes, x=(3, 4, 5), w=random(5, 4), **STATISTICS))) == [
        "Dense",
        "BatchNormalization",
    ]
    # nothing but a product is known of the result of a reshape by a computed shape
    nodes = node("Shape", "r", "1"), node("Reshape", "x 1", "2"), node("MatMul", "2 w", "c"), nodes[1]
    model = model_of(*nodes, x=(3, 4, 5), inputs={"r": ("a", "b", 5)}, w=random(5, 4), **STATISTICS)
    model.graph.input[1].type.tensor_type.ClearField("shape")
    assert ops(optimise(read_graph(model)))[-2:] == ["Dense", "BatchNormalization"]


def test_batch_norm_in_single_precision_rounds_scale_and_product():
    statistics = {name: array.astype(np.float32) for name, array in STATISTICS.items()}
    weight = WEIGHT.astype(np.float32)
    model = model_of(CONV, node("BatchNormalization", "c s b m v"), kind=F32, w=weight, **statistics)
    graph = optimised(model, tolerance=1e-4)
    scale = statistics["s"].astype(np.float64) / np.sqrt(statistics["v"].astype(np.float64) + 1e-5)
    exact = weight.astype(np.float64) * scale.reshape(4, 1, 1, 1)
    np.testing.assert_allclose(graph.constants[only(graph).inputs[1]], exact, rtol=2**-23)


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
    "a power": ("Pow", np.array(2.0)),
    "division by zero": ("Div", np.array([1.0, 0.0, 1.0, 1.0]).reshape(4, 1, 1)),
    "a shift that is not finite": ("Add", np.array(np.inf)),
    "a scale that is not finite": ("Mul", np.array(np.inf)),
}


@pytest.mark.parametrize("case", NOT_CHANNELS)
def test_arithmetic_that_is_no_scale_or_shift_of_channels_stays(case):
    op, constant = NOT_CHANNELS[case]
    assert ops(optimised(model_of(CONV, node(op, "c k"), w=WEIGHT, k=constant))) == ["Conv", op]


def test_a_scale_after_an_activation_stays():
    nodes = CONV, node("Relu", "c", "1"), node("Mul", "1 k")
    assert ops(optimised(model_of(*nodes, w=WEIGHT, k=-2.0))) == ["Conv", "Mul"]


def test_one_channel_that_becomes_many_is_no_scale_of_channels():
    model = model_of(CONV, node("Mul", "c k"), w=random(1, 4, 3, 3), k=random(5, 1, 1))
    assert ops(optimised(model)) == ["Conv", "Mul"]


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


def test_batch_norm_by_computed_statistics_stays():
    statistics = {name: array for name, array in STATISTICS.items() if name != "m"}
    model = model_of(CONV, node("BatchNormalization", "c s b m v"), w=WEIGHT, inputs={"m": (4,)}, **statistics)
    assert ops(optimised(model)) == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize(
    ("outputs", "opset", "attributes"),
    [("y", 14, {"training_mode": 1}), ("y om ov", 13, {})],
    ids=["attribute", "outputs"],
)
def test_batch_norm_in_training_is_left_alone(outputs, opset, attributes):
    norm = node("BatchNormalization", "c s b m v", outputs, **attributes)
    model = model_of(CONV, norm, w=WEIGHT, opset=opset, outputs=tuple(outputs.split()), **STATISTICS)
    assert ops(optimise(read_graph(model))) == ["Conv", "BatchNormalization"]


def test_batch_norm_of_images_of_unknown_size_folds():
    model = model_of(CONV, node("BatchNormalization", "c s b m v"), w=WEIGHT, opset=7, **STATISTICS)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert ops(optimise(read_graph(model))) == ["Conv"]


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
    nodes = node("Gemm", "x w k", "c", broadcast=1), node("Add", "c b", axis=0, broadcast=1)
    model = model_of(*nodes, x=(3, 5), w=random(5, 3), k=random(3), b=random(3), opset=6)
    assert ops(optimise(read_graph(model))) == ["Dense", "Add"]


def test_half_precision_and_weights_that_are_computed_are_left_to_others():
    halves = {name: array.astype(np.float16) for name, array in STATISTICS.items()}
    norm = node("BatchNormalization", "c s b m v")
    graph = optimised(model_of(CONV, norm, kind=F16, w=WEIGHT.astype(np.float16), **halves), tolerance=0.1)
    assert ops(graph) == ["Conv", "BatchNormalization"]
    graph = optimised(model_of(CONV, norm, inputs={"w": WEIGHT.shape}, **STATISTICS))
    assert ops(graph) == ["Conv", "BatchNormalization"]


def test_a_convolution_with_a_computed_bias_is_left_alone():
    nodes = node("Conv", "x w k", "c"), node("BatchNormalization", "c s b m v")
    graph = optimised(model_of(*nodes, w=WEIGHT, inputs={"k": (4,)}, **STATISTICS))
    assert ops(graph) == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_a_scale_and_a_shift_before_an_unpadded_convolution_go_into_it(groups):
    nodes = node("Mul", "x s", "1"), node("Add", "1 b", "2"), node("Conv", "2 w k", group=groups)
    constants = {"s": random(4, 1, 1), "b": random(1, 4, 1, 1), "w": random(8, 4 // groups, 3, 2), "k": random(8)}
    assert ops(optimised(model_of(*nodes, **constants))) == ["Conv"]


def test_a_shift_before_a_padded_convolution_stays_and_a_scale_goes():
    padded = node("Conv", "1 w", pads=[1, 1, 1, 1])
    assert ops(optimised(model_of(node("Add", "x b", "1"), padded, b=2.0, w=WEIGHT))) == ["Add", "Conv"]
    assert ops(optimised(model_of(node("Mul", "x s", "1"), padded, s=random(4, 1, 1), w=WEIGHT))) == ["Conv"]
    same = node("Conv", "1 w", auto_pad="SAME_UPPER")
    assert ops(optimised(model_of(node("Add", "x b", "1"), same, b=2.0, w=WEIGHT))) == ["Add", "Conv"]


@pytest.mark.parametrize("shape", [(), (4, 1, 1)], ids=str)
def test_a_scale_goes_into_a_padded_convolution_past_a_shift_that_stays(shape):
    nodes = node("Mul", "x s", "1"), node("Sub", "1 b", "2"), node("Conv", "2 w", pads=[1, 1, 1, 1], group=2)
    constants = {"s": random(*shape), "b": random(*shape, seed=1), "w": random(4, 2, 3, 3)}
    assert ops(optimised(model_of(*nodes, **constants))) == ["Add", "Conv"]
    constants["s"] = np.zeros(shape)
    assert ops(optimised(model_of(*nodes, **constants))) == ["Mul", "Sub", "Conv"]


def test_only_a_bare_scale_goes_past_only_a_bare_shift():
    norm, padded = ("BatchNormalization", "{} s b m v"), node("Conv", "2 w", pads=[1, 1, 1, 1])
    for nodes in (
        [node(norm[0], norm[1].format("x"), "1"), node("Add", "1 k", "2")],
        [node("Mul", "x k", "1"), node(norm[0], norm[1].format("1"), "2")],
    ):
        graph = optimised(model_of(*nodes, padded, w=WEIGHT, k=2.0, **STATISTICS))
        assert ops(graph) == [*(step.op_type for step in nodes), "Conv"]


def test_a_scale_whose_result_something_else_reads_does_not_go_past_a_shift():
    nodes = (
        node("Mul", "x s", "1"),
        node("Add", "1 b", "2"),
        node("Conv", "2 w", pads=[1, 1, 1, 1]),
        node("Neg", "1", "n"),
    )
    graph = optimised(model_of(*nodes, s=2.0, b=3.0, w=WEIGHT, outputs=("y", "n")))
    assert sorted(ops(graph)) == ["Add", "Conv", "Mul", "Neg"]


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


OTHER_PADDING = {
    "a pool that takes the largest": (node("Pad", "x p", "1"), node("MaxPool", "1", kernel_shape=[4, 4]), 17),
    "more than a window": (node("Pad", "x p", "1"), node("AveragePool", "1", kernel_shape=[3, 3]), 17),
    "axes by number": (node("Pad", "x q - a", "1"), node("Conv", "1 w"), 18),
    "computed pads": (node("Pad", "x r", "1"), node("Conv", "1 w"), 17),
}


@pytest.mark.parametrize("case", OTHER_PADDING)
def test_padding_that_means_something_else_stays(case):
    *nodes, opset = OTHER_PADDING[case]
    constants = {"p": np.array(PADS), "q": np.array(PADS), "a": np.arange(4), "w": WEIGHT}
    model = model_of(*nodes, opset=opset, **constants)
    model.graph.input.append(helper.make_tensor_value_info("r", TensorProto.INT64, (8,)))
    assert ops(optimise(read_graph(model))) == ["Pad", nodes[1].op_type]


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
def test_other_matrices_are_packed_in_each_run(case):
    step, x, weight = NOT_DENSE[case]
    assert only(optimised(model_of(step, x=x, w=weight, k=random(3, 1)))).op == "Product"
