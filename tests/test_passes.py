"""Graph passes on graphs of any kind: constants, identities, changes of shape, common and dead nodes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnx")

from graphs import CONV, F32, F64, I64, NUMBERS, STATISTICS, WEIGHT, model_of, node, only, ops, optimised, random  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from numbaconv.graph.ir import read_graph  # noqa: E402
from numbaconv.graph.passes import PASSES, optimise  # noqa: E402

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


def test_folded_weights_are_values_that_nobody_can_change():
    graph = optimise(read_graph(model_of(CONV, node("Mul", "c k"), w=WEIGHT, k=2.0)))
    assert not any(array.flags.writeable for array in graph.constants.values())


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


def test_a_batch_norm_of_constants_is_left_to_those_who_know_its_old_forms():
    model = model_of(node("BatchNormalization", "w s b m v"), w=WEIGHT, opset=9, **STATISTICS)
    assert ops(optimise(read_graph(model))) == ["BatchNormalization"]


def test_a_constant_of_a_shape_has_that_shape():
    filled = node("ConstantOfShape", "shape", "1", value=numpy_helper.from_array(np.array([2.0])))
    graph = optimised(model_of(filled, node("Add", "x 1"), shape=np.array([6, 5])))
    assert graph.constants["1"].shape == (6, 5)


def test_random_numbers_are_drawn_anew_each_time():
    assert ops(optimise(read_graph(model_of(node("RandomNormal", "", shape=[3]))))) == ["RandomNormal"]
    assert ops(optimise(read_graph(model_of(node("Bernoulli", "a"), a=[0.5])))) == ["Bernoulli"]


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile"])
def test_a_constant_does_not_grow_beyond_measure(op):
    operands = {"ConstantOfShape": "shape", "Expand": "a shape", "Tile": "a shape"}
    model = model_of(node(op, operands[op]), shape=np.array([5000, 5000]), a=np.ones((1, 1)))
    assert ops(optimise(read_graph(model))) == [op]
    # a shape that only its computation tells
    model = model_of(
        node("Neg", "minus", "shape"), node(op, operands[op]), minus=np.array([-5000, -5000]), a=np.ones((1, 1))
    )
    assert ops(optimise(read_graph(model))) == [op]


def test_a_constant_that_cannot_be_computed_is_refused_by_the_name_of_its_node():
    broken = helper.make_node("Gather", ["a", "i"], ["y"], name="broken")
    with pytest.raises(ValueError, match="broken.*Gather"):
        optimise(read_graph(model_of(broken, a=[1.0], i=np.array([7]))))


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
    "a sum with one": node("Add", "x one", "1"),
    "a product with zero": node("Mul", "x zero", "1"),
    "Pad by what is computed": node("Pad", "x computed", "1"),
    "Dropout in training": node("Dropout", "x zero yes", "1"),
    "Reshape to another shape": node("Reshape", "x other", "1"),
    "Reshape to another rank": node("Reshape", "x flat", "1"),
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
    "yes": np.array(True),
    "other": np.array([4, 2, 6, -1]),
    "flat": np.array([2, 4, -1]),
    "zeros": np.zeros((1, 1, 1, 1, 1)),
}


@pytest.mark.parametrize("case", UNCHANGED)
def test_nodes_that_change_nothing_disappear(case):
    step, opset = UNCHANGED[case]
    assert ops(optimised(model_of(step, node("Neg", "1"), opset=opset, **NUMBERS, **SHAPES))) == ["Neg"]


@pytest.mark.parametrize("case", KEPT)
def test_nodes_that_change_something_stay(case):
    outputs = ("y", "mask") if "mask" in case else ("y",)
    model = model_of(KEPT[case], node("Neg", "1"), outputs=outputs, **NUMBERS, **SHAPES)
    if "computed" in KEPT[case].input:
        pads = helper.make_tensor_value_info("computed", I64, (8,))
        model.graph.input.append(pads)
        assert ops(optimise(read_graph(model))) == ["Pad", "Neg"]
    else:
        assert ops(optimised(model)) == [KEPT[case].op_type, "Neg"]


def test_a_reshape_of_open_sizes_goes_where_no_more_than_one_is_open():
    for shape, left in (
        ([0, 4, -1, 5], ["Reshape", "Neg"]),
        ([0, -1, 6, 5], ["Neg"]),
        ([4, -1, 6, 5], ["Reshape", "Neg"]),
    ):
        x = ("n", 4, "h", 5) if shape[2] < 0 else ("n", 4, 6, 5)
        model = model_of(node("Reshape", "x s", "1"), node("Neg", "1"), x=x, s=np.array(shape))
        assert ops(optimise(read_graph(model))) == left


def test_before_opset_7_dropout_tells_training_by_an_attribute():
    for is_test, left in ((0, ["Dropout", "Neg"]), (1, ["Neg"])):
        model = model_of(node("Dropout", "x", "1", is_test=is_test), node("Neg", "1"), opset=6)
        assert ops(optimise(read_graph(model))) == left
    assert ops(optimise(read_graph(model_of(node("Dropout", "x", "1"), node("Neg", "1"), opset=7)))) == ["Neg"]


def test_strings_are_cast_to_numbers():
    model = model_of(node("Cast", "x", "1", to=F64), node("Neg", "1"), kind=TensorProto.STRING)
    assert ops(optimise(read_graph(model))) == ["Cast", "Neg"]


RANKS = {
    "a convolution has that of its weight": (node("Conv", "x w", "c"), (4, 4, 3, 3), (1, 1, 1, 1), True),
    "but no more": (node("Conv", "x w", "c"), (4, 4, 3, 3), (1, 1, 1, 1, 1), False),
    "a product with a matrix has one axis": (node("MatMul", "x w", "c"), (5, 4), (1,), True),
    "but maybe no second": (node("MatMul", "x w", "c"), (5, 4), (1, 1), False),
    "a sum has those of its constant": (node("Add", "x w", "c"), (4, 5), (1, 1), True),
    "of other values nothing is known": (node("Abs", "x", "c"), (), (1,), False),
    "nor of an input": (node("Abs", "x", "c"), (), (1,), False),
}


@pytest.mark.parametrize("case", RANKS)
def test_without_a_type_a_rank_is_known_from_what_computes_the_value(case):
    first, weight, ones, unchanged = RANKS[case]
    one = node("Mul", "x k" if "input" in case else "c k", "1")
    # the caller reads the first result as well, which keeps the product from going into the weights
    model = model_of(first, one, node("Neg", "1"), w=random(*weight), k=np.ones(ones), outputs=("y", "c"))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert ("Mul" not in ops(optimise(read_graph(model)))) == unchanged


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


def test_three_nodes_of_which_the_caller_reads_the_second_are_one():
    nodes = node("Neg", "x", "1"), node("Neg", "x"), node("Neg", "x", "2"), node("Concat", "1 2", "z", axis=0)
    assert ops(optimised(model_of(*nodes, outputs=("y", "z")))) == ["Neg", "Concat"]


def test_random_numbers_are_not_shared():
    nodes = node("RandomNormalLike", "x", "1"), node("RandomNormalLike", "x", "2"), node("Sub", "1 2")
    assert len(optimise(read_graph(model_of(*nodes))).nodes) == 3


def test_what_no_output_needs_is_dropped_with_its_constants():
    graph = optimised(model_of(node("Neg", "x"), node("Conv", "x w", "1"), node("Relu", "1", "2"), w=WEIGHT))
    assert ops(graph) == ["Neg"] and not graph.constants
