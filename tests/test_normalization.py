"""Normalisations and the activations behind them, against the definition in double precision."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")

from graphs import F32, F64, model_of, node, ops, optimised, random  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

from numbaconv.epilogue import Activation  # noqa: E402
from numbaconv.graph import InferenceSession, SessionOptions  # noqa: E402
from numbaconv.graph.ir import read_graph  # noqa: E402
from numbaconv.graph.passes import optimise  # noqa: E402

few = settings(max_examples=15)
KINDS = {F32: np.float32, F64: np.float64}
#: The activation that follows, if one does, and its definition.
ACTIVATIONS = {
    None: lambda y: y,
    "Relu": lambda y: np.maximum(y, 0),
    "Sigmoid": lambda y: 1 / (1 + np.exp(-y)),
}
#: ONNX's order of axes behind a Transpose of channels-last memory.
LAST = {3: (0, 2, 1), 4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}


def outputs(model, feed):
    """The result on one thread, which is that on two to the last bit, and the operators that ran."""
    results = []
    for threads in (1, 2):
        session = InferenceSession(model.SerializeToString(), SessionOptions(threads))
        results.append(session.run(None, feed)[0])
    assert np.array_equal(*results, equal_nan=True), "bits depend on threads"
    assert not {record.algorithm for record in session.report()} & {"numpy", "onnx reference"}
    return results[0], [record.op for record in session.report()]


def chain(steps, activation, last, rank):
    """The nodes from x to y: a Transpose where x lies channels-last, the steps, an activation."""
    nodes, name = [], "x"
    if last:
        nodes.append(node("Transpose", "x", "moved", perm=LAST[rank]))
        name = "moved"
    op, operands, attributes = steps
    nodes.append(node(op, f"{name} {operands}", "n" if activation else "y", **attributes))
    return nodes + ([node(activation, "n")] if activation else [])


def standardized(x, groups, epsilon=1e-5):
    wide = x.astype(np.float64).reshape(x.shape[0], groups, -1)
    centered = wide - wide.mean(2, keepdims=True)
    return (centered / np.sqrt((centered**2).mean(2, keepdims=True) + epsilon)).reshape(x.shape)


def along(values, rank):
    return values.astype(np.float64).reshape(-1, *(1,) * (rank - 2))


@few
@given(
    st.sampled_from([(1, 1), (3, 3), (4, 2), (8, 8), (12, 3), (16, 16), (17, 1), (40, 40), (131, 131), (80, 5)]),
    st.sampled_from([(1,), (5,), (260,), (7, 9), (37, 41), (3, 5, 4)]),
    st.sampled_from(list(KINDS)),
    st.sampled_from(list(ACTIVATIONS)),
    st.booleans(),
)
def test_images_have_mean_0_and_variance_1_in_each_group_of_channels(groups, sizes, kind, activation, last):
    channels, count = groups
    dtype = KINDS[kind]
    x = (random(2, channels, *sizes) * 3 + 100).astype(dtype)
    scale, bias = random(channels, seed=1).astype(dtype), random(channels, seed=2).astype(dtype)
    if count == channels:
        step = "InstanceNormalization", "scale bias", {}
    else:
        step = "GroupNormalization", "scale bias", {"num_groups": count}
    fed = np.ascontiguousarray(np.moveaxis(x, 1, -1)) if last else x
    nodes = chain(step, activation, last, x.ndim)
    y, ran = outputs(model_of(*nodes, x=fed.shape, kind=kind, opset=21, scale=scale, bias=bias), {"x": fed})
    expected = standardized(x, count) * along(scale, x.ndim) + along(bias, x.ndim)
    # the mean is 33 deviations from zero, and so are rounding errors; a single element has none
    tolerance = 200 * np.finfo(dtype).eps / (math.sqrt(1e-5) if np.prod(sizes) * channels == count else 1)
    np.testing.assert_allclose(y, ACTIVATIONS[activation](expected), rtol=tolerance, atol=tolerance)
    assert "Activation" not in ran


def test_a_mean_far_from_zero_costs_the_digits_that_it_takes_and_no_more():
    x = (random(1, 8, 64, 64) + 1e4).astype(np.float32)
    one, zero = np.ones(8, np.float32), np.zeros(8, np.float32)
    model = model_of(node("InstanceNormalization", "x s b"), x=x.shape, kind=F32, s=one, b=zero)
    y, _ = outputs(model, {"x": x})
    # half a unit in the last place of the mean, for the mean and for the shift
    np.testing.assert_allclose(y, standardized(x, 8), rtol=0, atol=1.5e4 * np.finfo(np.float32).eps)


def test_nan_stays_in_its_image_and_group():
    x = random(2, 6, 9, 7).astype(np.float32)
    x[1, 3, 8, 6] = np.nan
    one, zero = np.ones(6, np.float32), np.zeros(6, np.float32)
    model = model_of(
        node("GroupNormalization", "x s b", "n", num_groups=3), node("Relu", "n"),
        x=x.shape, kind=F32, opset=21, s=one, b=zero,
    )  # fmt: skip
    y, _ = outputs(model, {"x": x})
    expected = np.zeros(x.shape, bool)
    expected[1, 2:4] = True
    assert np.array_equal(np.isnan(y), expected)


@pytest.mark.parametrize("opset", [18, 21])
def test_computed_scales_and_biases(opset):
    """Before opset 21 those of group normalisation are one for each group."""
    x, count = random(2, 6, 5, 4).astype(np.float32), 2 if opset == 18 else 6
    scale, bias = random(count, seed=1).astype(np.float32), random(count, seed=2).astype(np.float32)
    model = model_of(
        node("GroupNormalization", "x s b", "n", num_groups=2), node("Relu", "n"),
        x=x.shape, kind=F32, opset=opset, inputs={"s": scale.shape, "b": bias.shape},
    )  # fmt: skip
    y, ran = outputs(model, {"x": x, "s": scale, "b": bias})
    scale, bias = (np.repeat(value, 6 // count) for value in (scale, bias))
    expected = np.maximum(standardized(x, 2) * along(scale, 4) + along(bias, 4), 0)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@few
@given(
    st.sampled_from([1, 3, 8, 16, 33, 131]),
    st.sampled_from([(), (9,), (7, 9), (37, 41)]),
    st.sampled_from(list(ACTIVATIONS)),
)
def test_stored_statistics_scale_and_shift_in_one_pass(channels, sizes, activation):
    x = random(2, channels, *sizes)
    scale, bias, mean = (random(channels, seed=seed) for seed in (1, 2, 3))
    variance = np.abs(random(channels, seed=4)) + 0.5
    nodes = chain(("BatchNormalization", "s b m v", {}), activation, False, x.ndim)
    y, ran = outputs(model_of(*nodes, x=x.shape, s=scale, b=bias, m=mean, v=variance), {"x": x})
    rank = max(x.ndim, 2)
    gain = along(scale, rank) / np.sqrt(along(variance, rank) + 1e-5)
    expected = (x - along(mean, rank)) * gain + along(bias, rank)
    np.testing.assert_allclose(y, ACTIVATIONS[activation](expected), rtol=1e-12, atol=1e-12)
    assert "Activation" not in ran


def test_pixels_with_gaps_between_them():
    """What a network of dense blocks normalises is a slice of the next Concat."""
    x = random(2, 8, 6, 5)
    statistics = {"s": random(12, seed=2), "b": random(12, seed=3), "m": random(12, seed=4), "v": np.ones(12)}
    kernels = {"u": random(8, 8, 1, 1, seed=1), "w": random(4, 8, 1, 1, seed=5), "z": random(4, 12, 1, 1, seed=6)}
    model = model_of(
        node("Conv", "x u", "c"), node("Conv", "c w", "d"), node("Concat", "c d", "j", axis=1),
        node("BatchNormalization", "j s b m v", "n"), node("Relu", "n", "r"),
        node("InstanceNormalization", "j s b", "i"), node("Add", "r i", "t"), node("Conv", "t z", "e"),
        node("Concat", "j e", axis=1), x=x.shape, **statistics, **kernels,
    )  # fmt: skip
    y, _ = outputs(model, {"x": x})
    np.testing.assert_allclose(y, *ReferenceEvaluator(model).run(None, {"x": x}), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_bounds_ride_in_arithmetic(op):
    nodes = [node(op, "x z", "s"), node("Clip", "s low high")]
    model = model_of(*nodes, inputs={"z": (1, 4, 1, 5)}, low=-0.25, high=0.5)
    assert ops(optimised(model)) == [op]
    x, z = random(2, 4, 6, 5), random(1, 4, 1, 5, seed=1)
    y, ran = outputs(model, {"x": x, "z": z})
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[op]
    assert np.array_equal(y, np.clip(function(x, z), -0.25, 0.5))


def test_other_activations_follow_arithmetic_as_they_are():
    model = model_of(node("Add", "x z", "s"), node("Sigmoid", "s"), inputs={"z": (2, 4, 6, 5)})
    assert ops(optimised(model)) == ["Add", "Activation"]


def test_a_sum_that_others_read_keeps_its_own_value():
    model = model_of(node("Add", "x z", "s"), node("Relu", "s"), inputs={"z": (2, 4, 6, 5)}, outputs=("s", "y"))
    assert sorted(ops(optimised(model))) == ["Activation", "Add"]


def test_an_activation_rides_in_what_numpy_computes():
    """Shapes are known when a program is made, and arithmetic on them is done there."""
    model = model_of(
        node("Shape", "x", "i"), node("Cast", "i", "s", to=F64), node("Sub", "s five", "d"), node("Relu", "d"),
        x=(None, "c", None), five=5.0,
    )  # fmt: skip
    assert "Activation" not in ops(optimise(read_graph(model)))
    session = InferenceSession(model.SerializeToString())
    assert session.run(None, {"x": random(3, 9, 6)})[0].tolist() == [0.0, 4.0, 1.0]


def test_the_activation_of_a_normalisation_is_kept_in_the_graph():
    model = model_of(node("InstanceNormalization", "x s b", "n"), node("Relu", "n"), s=random(4), b=random(4, seed=1))
    (step,) = optimised(model).nodes
    assert step.op == "InstanceNormalization" and step.attributes["activation"] == Activation.of("relu")
