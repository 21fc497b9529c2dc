"""Judges from outside: ONNX Runtime and SciPy compute the same; and what is not finite stays where it belongs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from scipy.signal import correlate2d
from strategies import (
    FAST,
    NON_FINITE,
    Operands,
    able,
    assert_close,
    first,
    kinds,
    make_operands,
    normals,
    operands,
    pairs,
    problems,
    whole_numbers,
)

import numbaconv as nc
from numbaconv.problem import ConvProblem
from numbaconv.reference import reference_conv

# --- ONNX Runtime -------------------------------------------------------------------------------------------------


def by_onnxruntime(x, weight, bias=None, **attributes):
    """The result of a model of one Conv node."""
    names = ["x", "weight", "bias"][: 2 + (bias is not None)]
    graph = helper.make_graph(
        [helper.make_node("Conv", names, ["y"], **attributes)],
        "judge",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in zip(names, (4, 4, 1))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, dict(zip(names, (x, weight, bias))))[0]


@given(operands(problems().filter(lambda p: p.n and p.dtype == "f32"), fill=normals, activations=(None,)))
@settings(max_examples=80)
def test_onnx_runtime_agrees(given_):
    p = given_.problem
    (top, bottom), (left, right) = p.padding
    judged = by_onnxruntime(
        first(given_.x, p.layout),
        given_.weight,
        given_.bias,
        strides=p.stride,
        pads=(top, left, bottom, right),
        dilations=p.dilation,
        group=p.groups,
    )
    for name in ("auto", *able(p, FAST)):
        assert_close(first(given_.conv(name, residual=None), p.layout), judged, given_)


@pytest.mark.parametrize("word, auto_pad", (("same", "SAME_UPPER"), ("valid", "VALID")))
@pytest.mark.parametrize("stride", (1, 2, 3))
@pytest.mark.parametrize("kernel", ((3, 3), (2, 4), (5, 1)))
@pytest.mark.parametrize("size", ((7, 9), (8, 8)))
def test_padding_words_are_those_of_onnx(word, auto_pad, stride, kernel, size, rng):
    x, weight = whole_numbers(rng, (2, 3, *size), np.float32), whole_numbers(rng, (5, 3, *kernel), np.float32)
    judged = by_onnxruntime(x, weight, auto_pad=auto_pad, strides=(stride, stride))
    np.testing.assert_array_equal(nc.conv2d(x, weight, padding=word, stride=stride), judged)


# --- SciPy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ("valid", "same", "full"))
@pytest.mark.parametrize("kernel", ((1, 1), (3, 3), (5, 3), (1, 7)))
def test_scipy_correlates_alike(kernel, mode, rng):
    x, weight = whole_numbers(rng, (1, 4, 9, 11), np.float64), whole_numbers(rng, (6, 2, *kernel), np.float64)
    # two groups of two input and three output channels
    judged = [sum(correlate2d(x[0, 2 * (o // 3) + c], weight[o, c], mode) for c in range(2)) for o in range(6)]
    for name in able(ConvProblem.of(x.shape, weight.shape, padding=mode, groups=2, dtype="f64")):
        np.testing.assert_array_equal(nc.conv2d(x, weight, padding=mode, groups=2, algorithm=name)[0], judged)


@given(problems().filter(lambda p: p.n), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_scipy_agrees_on_dilated_and_strided_kernels(problem, seed):
    assume(problem.macs < 300_000)
    given_ = make_operands(problem, whole_numbers, seed, bias=False)
    p = given_.problem
    x = np.pad(first(given_.x, p.layout).astype(np.float64), [(0, 0), (0, 0), *p.padding])
    spread = np.zeros((*given_.weight.shape[:2], *p.extent))
    spread[:, :, :: p.dilation[0], :: p.dilation[1]] = given_.weight
    group_in, group_out = p.c_in // p.groups, p.c_out // p.groups
    image, o = p.n - 1, p.c_out - 1
    judged = sum(
        correlate2d(x[image, o // group_out * group_in + c], spread[o, c], "valid")[:: p.stride[0], :: p.stride[1]]
        for c in range(group_in)
    )
    np.testing.assert_array_equal(first(given_.conv(), p.layout)[image, o], judged)


# --- NaN and infinity ---------------------------------------------------------------------------------------------

SEEN = ("c5h9w11o7k3p1", "c18h6w7o35k3p2s2", "c21h5w5o21k3p1g3", "c3h4w4o17k1p1", "c7h3w3o33k1", "c600h5w5o40k1")


@pytest.mark.parametrize("value", NON_FINITE)
@pytest.mark.parametrize("problem, name", pairs(*SEEN, layouts=("cf", "cl")))
def test_one_value_that_is_not_finite_touches_only_the_outputs_that_see_it(problem, name, value):
    given_ = make_operands(problem, normals)
    for position in (0, given_.x.size // 2, given_.x.size - 1):
        x = given_.x.copy()
        x.reshape(-1)[position] = value
        one = Operands(problem, x, given_.weight, activation="relu")
        np.testing.assert_array_equal(kinds(one.conv(name)), kinds(one.oracle()))


@given(problems().filter(lambda p: p.n and not p.bias), st.sampled_from(NON_FINITE), st.integers(0, 2**32 - 1))
def test_a_weight_that_is_not_finite_may_meet_padding_or_not(p, value, seed):
    # Libraries differ: PyTorch skips padding where oneDNN computes, and multiplies it elsewhere.  So what is NaN for
    # the oracle, which skips it, must be NaN, and nothing may be that zeros around the image would not make NaN.
    given_ = make_operands(p, normals, seed)
    given_.weight.reshape(-1)[seed % given_.weight.size] = value
    around = [(0, 0), (0, 0), *p.padding] if p.layout == "channels_first" else [(0, 0), *p.padding, (0, 0)]
    x = np.pad(given_.x, around)
    options = {"stride": p.stride, "dilation": p.dilation, "groups": p.groups, "layout": p.layout, "dtype": p.dtype}
    least = np.isnan(given_.oracle())
    most = np.isnan(reference_conv(ConvProblem.of(x.shape, p.weight_shape, **options), x, given_.weight))
    for name in able(p, FAST):
        found = np.isnan(given_.conv(name))
        assert np.all(found >= least) and np.all(found <= most), name


def test_activations_keep_nan_and_follow_infinity():
    x = np.array([np.nan, np.inf, -np.inf], np.float32).reshape(1, 1, 1, 3)
    one = np.ones((1, 1, 1, 1), np.float32)
    for activation, limits in {
        None: (np.inf, -np.inf),
        "relu": (np.inf, 0),
        "relu6": (6, 0),
        "sigmoid": (1, 0),
        "hardsigmoid": (1, 0),
        "tanh": (1, -1),
    }.items():
        y = nc.conv2d(x, one, activation=activation).reshape(-1)
        np.testing.assert_array_equal(y, np.array([np.nan, *limits], np.float32))
