"""Kernels of low rank as two passes: the same result within the accuracy asked for, and never more than that."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_operands, normals, problems, whole_numbers

import numbaconv as nc
from numbaconv.accuracy import DEFAULT, STRICT
from numbaconv.problem import LAYOUTS, ConvProblem
from numbaconv.separable import SeparablePlan, Separation

F32 = np.float32


def of_rank(rng, problem, number, fill=whole_numbers):
    """Weights of a rank, a group."""
    c_out, c_in, k_h, k_w = problem.weight_shape
    dtype, groups = problem.np_dtype, problem.groups
    down, across = (
        fill(rng, (groups, number, c_in, k_h), dtype),
        fill(rng, (groups, c_out // groups, number, k_w), dtype),
    )
    return np.einsum("grci,gorj->gocij", down, across).reshape(problem.weight_shape)


def plan_of(layer, x):
    """The plan that a layer made for an input."""
    layer(x)
    (planned,) = layer._planned.values()
    return planned.plan


@given(problems().filter(lambda p: p.n and 1 not in p.kernel), st.integers(0, 999), st.sampled_from((None, "relu")))
@settings(max_examples=25)
def test_two_passes_compute_the_same(problem, seed, activation):
    given_ = make_operands(problem, normals, seed, residual=True, activation=activation)
    weight = of_rank(np.random.default_rng(seed), problem, 1)
    if (
        not weight.any()
        or min(weight.shape[1] * problem.kernel[0], weight.shape[0] // problem.groups * problem.kernel[1]) < 2
    ):
        return
    arguments = given_.x, weight, given_.bias, problem.stride, problem.padding, problem.dilation, problem.groups
    options = {"layout": problem.layout, "activation": activation, "residual": given_.residual, "accuracy": "strict"}
    y, expected = (nc.conv2d(*arguments, **options, separable=how) for how in (True, False))
    scale = np.abs(expected).max() + np.abs(weight).sum()
    assert np.abs(y - expected).max() <= 40 * np.finfo(y.dtype).eps * scale


@pytest.mark.parametrize("layout", LAYOUTS)
def test_low_rank_is_found_and_pays(layout, rng):
    problem = ConvProblem.parse("c32h60w64o32k9p4" + {"channels_first": "cf", "channels_last": "cl"}[layout])
    x = normals(rng, problem.input_shape, F32)
    low, high = of_rank(rng, problem, 6, normals), normals(rng, problem.weight_shape, F32)
    layer = nc.Conv2d(low, padding=4, layout=layout, separable="auto", accuracy=1e-5)
    plan = plan_of(layer, x)
    assert isinstance(plan, SeparablePlan) and plan._down.problem.c_out == 6
    expected = nc.conv2d(x.astype(np.float64), low.astype(np.float64), padding=4, layout=layout)
    assert np.sqrt(np.mean((layer(x) - expected) ** 2)) <= 1e-5 * np.sqrt(np.mean(expected**2))
    assert not isinstance(
        plan_of(nc.Conv2d(high, padding=4, layout=layout, separable="auto", accuracy=1e-5), x), SeparablePlan
    )
    # one pass of so little is not worth two
    few = of_rank(rng, ConvProblem.parse("c8h9w9o8k3"), 11, normals)
    small = nc.Conv2d(few, layout="channels_last", separable="auto", accuracy=1e-5)
    assert not isinstance(plan_of(small, np.ones((1, 9, 9, 8), F32)), SeparablePlan)


def test_the_accuracy_decides_how_much_is_cut_off(rng):
    problem = ConvProblem.parse("c16h40w40o16k7p3")
    weight = of_rank(rng, problem, 3, normals) + 1e-3 * of_rank(rng, problem, 20, normals)
    x = normals(rng, problem.input_shape, F32)
    expected = nc.conv2d(x, weight, padding=3)
    ranks = {}
    for accuracy in (1e-1, 1e-3, 1e-5):
        layer = nc.Conv2d(weight, padding=3, separable=True, accuracy=accuracy)
        ranks[accuracy] = plan_of(layer, x)._down.problem.c_out
        error = np.sqrt(np.mean((layer(x) - expected) ** 2) / np.mean(expected**2))
        assert error <= accuracy
    assert ranks[1e-1] == 3 < ranks[1e-3] <= ranks[1e-5] == 23


def test_depthwise_kernels_are_columns_and_rows_of_their_own(rng):
    problem = ConvProblem.parse("c12h30w30o12k9p4g12")
    weight, x = of_rank(rng, problem, 1), whole_numbers(rng, problem.input_shape, F32)
    plan = plan_of(nc.Conv2d(weight, padding=4, groups=12, separable=True), x)
    assert plan._down.problem.groups == plan._across.problem.groups == 12
    np.testing.assert_allclose(
        nc.conv2d(x, weight, padding=4, groups=12, separable=True),
        nc.conv2d(x, weight, padding=4, groups=12),
        atol=2e-3,
    )


def test_strict_results_are_never_separated_unasked(rng):
    problem = ConvProblem.parse("c32h60w64o32k9p4")
    x, weight = normals(rng, problem.input_shape, F32), of_rank(rng, problem, 2, normals)
    np.testing.assert_array_equal(
        nc.conv2d(x, weight, padding=4, separable="auto", accuracy="strict"),
        nc.conv2d(x, weight, padding=4, accuracy="strict"),
    )
    assert DEFAULT.rms and not STRICT.rms


@pytest.mark.parametrize(
    "weight", (np.arange(9.0).reshape(1, 1, 3, 3) ** 2, np.full((1, 1, 3, 3), np.nan), np.ones((4, 4, 1, 5)))
)
def test_what_cannot_be_separated_is_refused_or_left_as_it_is(weight):
    x = np.ones((1, weight.shape[1], 8, 8))
    with pytest.raises(nc.UnsupportedError, match="separable=True cannot do"):
        nc.conv2d(x, weight, separable=True)
    np.testing.assert_array_equal(nc.conv2d(x, weight, separable="auto"), nc.conv2d(x, weight))


def test_weights_are_decomposed_once(monkeypatch, rng):
    calls = []
    original = np.linalg.svd
    monkeypatch.setattr(
        np.linalg, "svd", lambda *arguments, **options: calls.append(1) or original(*arguments, **options)
    )
    layer = nc.Conv2d(of_rank(rng, ConvProblem.parse("c4h9w9o4k3"), 1), separable=True)
    for size in (9, 10, 9):
        layer(np.ones((1, 4, size, size), F32))
    assert calls == [1]


def test_a_layer_is_pickled_with_its_choice(rng):
    layer = nc.Conv2d(of_rank(rng, ConvProblem.parse("c4h9w9o4k3"), 1), np.ones(4, F32), separable=True)
    x = whole_numbers(rng, (1, 4, 9, 9), F32)
    again = pickle.loads(pickle.dumps(layer))
    assert again.separable is True
    np.testing.assert_array_equal(again(x), layer(x))


@pytest.mark.parametrize("separable", (1, None, "yes", 0.5))
def test_other_choices_are_refused(separable):
    with pytest.raises(nc.ConvError, match="separable="):
        nc.Conv2d(np.ones((1, 1, 3, 3)), separable=separable)


def test_zero_weights_have_rank_one():
    layer = nc.Conv2d(np.zeros((4, 4, 3, 3), F32), np.ones(4, F32), separable=True)
    np.testing.assert_array_equal(layer(np.ones((1, 4, 8, 8), F32)), 1)
    assert Separation(layer._weights)._within(1e-3) == 1
