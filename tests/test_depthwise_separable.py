"""Convolutions fused strip by strip: the same bits as one after the other, whatever the strips, and a choice with reasons."""

from __future__ import annotations

import dataclasses
import pickle
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import bits, normals, problems, whole_numbers

import numbaconv as nc
from numbaconv.accuracy import STRICT
from numbaconv.algorithms.bottleneck import Bottleneck, BottleneckPlan, Stage
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch import fusion
from numbaconv.epilogue import IDENTITY, Activation
from numbaconv.machine import machine
from numbaconv.problem import ConvProblem
from numbaconv.reference import reference_conv

REAL = machine()
#: A machine whose L2 holds a few rows of small images, so that these are cut into many strips.
TINY = dataclasses.replace(REAL, l2=1 << 13)
RELU6 = Activation.of("relu6")


@st.composite
def blocks(draw, expanded):
    """Problems of a block: a depthwise one as any, a 1x1 after it, and one before it where the block is `expanded`."""
    p = draw(problems(depthwise=True).filter(lambda p: p.macs < 200_000))
    if not expanded:
        multiplier = draw(st.sampled_from((1, 1, 2, 3)))
        p = dataclasses.replace(p, c_out=p.c_in * multiplier)
    c_out, c_in = draw(st.integers(1, 40)), draw(st.integers(1, 20))
    around = {"kernel": (1, 1), "stride": (1, 1), "dilation": (1, 1), "padding": ((0, 0), (0, 0)), "groups": 1}
    project = dataclasses.replace(p, c_in=p.c_out, c_out=c_out, spatial=p.out_spatial, **around)
    expand = dataclasses.replace(p, c_in=c_in, c_out=p.c_in, **around) if expanded else None
    return expand, p, project


def operands(chain, fill, seed):
    """x, and weight and bias of each problem; small enough for relu6 to leave something."""
    rng = np.random.default_rng(seed)
    x = fill(rng, chain[0].input_shape, chain[0].np_dtype)
    pairs = [
        (fill(rng, p.weight_shape, p.np_dtype), fill(rng, (p.c_out,), p.np_dtype) if p.bias else None) for p in chain
    ]
    return x, pairs


def by_reference(chain, x, pairs, activations, residual=None):
    """One convolution after the other, by definition."""
    for p, (weight, bias), activation in zip(chain, pairs, activations):
        x = reference_conv(p, x, weight, bias, residual if p is chain[-1] else None, activation)
    return x


@given(blocks(expanded=False), st.sampled_from(("strips", "steps")), st.sampled_from((REAL, TINY)), st.integers(0, 99))
@settings(max_examples=40)
def test_both_ways_equal_the_two_steps_on_whole_numbers(block, way, on, seed):
    _, depthwise, pointwise = block
    x, pairs = operands((depthwise, pointwise), whole_numbers, seed)
    (weight, bias), (pointwise_weight, pointwise_bias) = pairs
    residual = whole_numbers(np.random.default_rng(seed), pointwise.output_shape, x.dtype) if seed % 2 else None
    with mock.patch.object(fusion, "calibrated_machine", lambda: on):
        y = nc.depthwise_separable_conv2d(
            x, weight, pointwise_weight, bias, pointwise_bias, depthwise.stride, depthwise.padding, depthwise.dilation,
            multiplier=depthwise.c_out // depthwise.c_in, layout=depthwise.layout, depthwise_activation="relu6",
            activation=("leaky_relu", 0.25), residual=residual, algorithm=way,
        )  # fmt: skip
    judged = by_reference((depthwise, pointwise), x, pairs, (RELU6, Activation.of(("leaky_relu", 0.25))), residual)
    np.testing.assert_array_equal(y, judged)


@given(blocks(expanded=True), st.booleans(), st.sampled_from((REAL, TINY)), st.integers(0, 99))
@settings(max_examples=40)
def test_inverted_residuals_equal_the_three_steps_on_whole_numbers(block, with_residual, on, seed):
    chain = [dataclasses.replace(p, layout="channels_last") for p in block]
    x, pairs = operands(chain, whole_numbers, seed)
    activations = RELU6, Activation.of("relu"), IDENTITY
    residual = whole_numbers(np.random.default_rng(seed), chain[-1].output_shape, x.dtype) if with_residual else None
    stages = [
        Stage(p, Weights(weight, bias, p.groups), activation)
        for p, (weight, bias), activation in zip(chain, pairs, activations)
    ]
    assert Bottleneck(*chain, STRICT).unsupported(on) is None
    plan = BottleneckPlan(*stages, residual is not None, on, STRICT)
    judged = by_reference(chain, x, pairs, activations, residual)
    for threads in (1, 2):
        out = np.full(chain[-1].output_shape, np.nan, x.dtype)
        plan.run(x, out, residual, threads=threads)
        np.testing.assert_array_equal(out, judged)


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_bits_are_those_of_channels_last_steps_for_any_threads_strips_and_batch(layout, dtype, rng):
    x = normals(rng, (3, 21, 22, 40), dtype)
    weights = [normals(rng, shape, dtype) for shape in ((40, 1, 3, 3), (24, 40, 1, 1), (40,), (24,))]
    call = {"stride": 2, "padding": 1, "depthwise_activation": "silu", "activation": "relu6"}
    with nc.num_threads(1):
        judged = nc.depthwise_separable_conv2d(x, *weights, **call, layout="channels_last", algorithm="steps")
    if layout == "channels_first":
        x, judged = (np.ascontiguousarray(np.moveaxis(array, -1, 1)) for array in (x, judged))
    call |= {"layout": layout, "algorithm": "strips"}
    layer = nc.DepthwiseSeparableConv2d(*weights, **call)
    results = [layer(x), pickle.loads(pickle.dumps(layer))(x)]
    with mock.patch.object(fusion, "calibrated_machine", lambda: TINY):
        results.append(nc.depthwise_separable_conv2d(x, *weights, **call))
    with nc.num_threads(1):
        results.append(layer(x))
    assert {bits(y) for y in results} == {bits(judged)}
    assert bits(layer(x[2])) == bits(judged[2])


def test_strips_are_more_where_the_cache_is_small_and_enough_for_all_threads():
    depthwise, project = ConvProblem.parse("c64h40w40o64k3p1g64cl"), ConvProblem.parse("c64h40w40o8k1cl")
    block = Bottleneck(None, depthwise, project, STRICT)
    assert block.strips(TINY) == 40 and block.strips(dataclasses.replace(TINY, l2=1 << 30)) == 1
    weights = [Weights(np.zeros(p.weight_shape, "f4"), None, p.groups) for p in (depthwise, project)]
    plan = BottleneckPlan(None, Stage(depthwise, weights[0]), Stage(project, weights[1]), False, REAL, STRICT)
    assert plan.shares(7).rows == 7 and plan.shares(100).rows == 40
    assert plan.workspace_bytes < REAL.l2 // 2


def test_explain_tells_estimates_and_reasons():
    layer = nc.DepthwiseSeparableConv2d(np.ones((96, 1, 3, 3), "f4"), np.ones((24, 96, 1, 1), "f4"), padding=1)
    told = layer.explain((1, 96, 112, 112))
    assert {way.name for way in told.ways} == set(fusion.WAYS) and all(way.seconds > 0 for way in told.ways)
    assert str(told).count(" us") == 2 and "c96h112w112o96k3p1g96" in str(told)
    dense = ConvProblem.parse("c8h9w9o8k3p1cl")
    project = ConvProblem.parse("c8h9w9o8k1cl")
    epilogue = nc.layers.Epilogue()
    assert "is not depthwise" in str(fusion.weigh((dense, project), epilogue))
    depthwise = ConvProblem.parse("c8h9w9o8k3p1g8cl")
    assert "not dense 1x1" in str(fusion.weigh((depthwise, dense), epilogue))
    signal, on_signal = ConvProblem.parse("c8w9o8k3p1g8cl"), ConvProblem.parse("c8w9o8k1cl")
    assert "two spatial axes" in str(fusion.weigh((signal, on_signal), epilogue))
    mirrored = dataclasses.replace(depthwise, padding_mode="reflect")
    assert "other strips" in str(fusion.weigh((mirrored, project), epilogue))
    assert "do not take" in str(fusion.weigh((depthwise, ConvProblem.parse("c8h7w9o8k1cl")), epilogue))


def test_large_images_between_which_the_l2_is_too_small_are_fused_and_run_again_without_allocating():
    layer = nc.DepthwiseSeparableConv2d(
        np.ones((32, 1, 3, 3), "f4"), np.ones((16, 32, 1, 1), "f4"), padding=1, layout="channels_last"
    )
    shape = (1, 112, 112, 32)
    assert layer.plan(shape).algorithm == "strips"
    x, out = np.ones(shape, "f4"), np.empty((1, 112, 112, 16), "f4")
    assert layer(x, out=out) is out and layer._run_again(x, None, out)
    assert out[0, 5, 5, 3] == 9 * 32 and out[0, 0, 0, 0] == 4 * 32


DEPTHWISE, POINTWISE, X = np.ones((6, 1, 3, 3), "f4"), np.ones((5, 6, 1, 1), "f4"), np.ones((2, 6, 8, 9), "f4")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X[:, :5]}, nc.ShapeError, r"x has 5 channels"),
        ({"x": X[0, 0]}, nc.ShapeError, r"x has shape \(8, 9\)"),
        ({"x": X.astype("f8")}, nc.DTypeError, r"depthwise_weight has dtype float32, but x has float64"),
        ({"depthwise_weight": DEPTHWISE[0]}, nc.ShapeError, r"weight has shape \(1, 3, 3\)"),
        ({"depthwise_weight": np.ones((6, 2, 3, 3), "f4")}, nc.ShapeError, r"weight.*shape"),
        ({"pointwise_weight": POINTWISE[:, :5]}, nc.ShapeError, r"pointwise_weight has shape \(5, 5, 1, 1\)"),
        ({"pointwise_weight": POINTWISE[:0]}, nc.ShapeError, r"pointwise_weight has shape \(0, 6, 1, 1\)"),
        ({"pointwise_weight": np.ones((5, 6, 3, 3), "f4")}, nc.ShapeError, r"must be \(c_out, 6, 1, 1\)"),
        ({"pointwise_weight": POINTWISE.astype("f8")}, nc.DTypeError, r"pointwise_weight has dtype float64"),
        ({"depthwise_bias": np.ones(5, "f4")}, nc.ShapeError, r"depthwise_bias has shape \(5,\)"),
        ({"pointwise_bias": np.ones(6, "f4")}, nc.ShapeError, r"pointwise_bias has shape \(6,\)"),
        ({"multiplier": 4}, nc.ShapeError, r"multiplier=4"),
        ({"multiplier": 0}, nc.ShapeError, r"multiplier=0"),
        ({"multiplier": "1"}, nc.ShapeError, r"multiplier='1'"),
        ({"multiplier": True}, nc.ShapeError, r"multiplier=True"),
        ({"stride": 0}, nc.ShapeError, r"stride=0"),
        ({"layout": "NHWC"}, nc.ShapeError, r"layout='NHWC'"),
        ({"algorithm": "both"}, nc.ConvError, r"algorithm='both' is unknown.*'strips', 'steps'"),
        ({"activation": "swash"}, nc.ConvError, r"activation='swash'"),
        ({"depthwise_activation": "swash"}, nc.ConvError, r"activation='swash'"),
        ({"residual": X}, nc.ShapeError, r"residual has shape"),
        ({"out": X}, nc.ShapeError, r"out has shape"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    call = {"x": X, "depthwise_weight": DEPTHWISE, "pointwise_weight": POINTWISE} | change
    with pytest.raises(error, match=message):
        nc.depthwise_separable_conv2d(**call)
