"""Neighbouring outputs side by side in a vector: the convolution of few output channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import PIECEWISE_LINEAR, every_kind, make_operands, operands, whole_numbers

import numbaconv as nc
from numbaconv.accuracy import STRICT, Accuracy
from numbaconv.algorithms.abreast import Abreast
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.select import rank
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import VECTOR_BYTES
from numbaconv.machine import machine
from numbaconv.problem import LAYOUTS, ConvProblem

ABREAST = Abreast()
USUAL = 1e-5


def refuses(problem, epilogue=None) -> str | None:
    return ABREAST.unsupported(problem, epilogue or Epilogue(), machine())


def result(given_, on=None, *, x=None, out=None, threads=1) -> np.ndarray:
    """What outputs side by side give, on a machine, into an array."""
    p = given_.problem
    plan = ABREAST.plan(p, Weights(given_.weight, given_.bias, p.groups), given_.epilogue, on or machine())
    plan = plan if ABREAST.native(p) else ChannelsFirst(plan, p)
    out = np.full(p.output_shape, np.nan, p.np_dtype) if out is None else out
    plan.run(given_.x if x is None else x, out, given_.residual, threads=threads)
    return out


#: Of every number of axes and both element types, with so few output channels that they leave room in any vector.
TEXTS = (
    "c3h9w8o1k3p1bias", "n2c5h7w24o2k3p1s2bias", "c1d5h6w32o1k3p1bias", "c8d4h5w12o2k3p1bias", "c70h6w20o2k5p2reflectbias",
    "c32h6w20o2k1bias", "c1w96o1k9p4bias", "c6h7w18o1kh1kw3pw1f64", "c2h14w56o1k7s2p3f64bias",
    "n2c4d3h6w16o2kd3kh1kw2pd1pw1_0replicate",
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", TEXTS)
def test_outputs_abreast_equal_the_oracle(text, layout):
    problem = replace(ConvProblem.parse(text), layout=layout)
    given_ = make_operands(problem, whole_numbers, residual=True, activation="relu")
    assert refuses(problem) is None
    # a small L2 has several strips, and parts of a line
    for on in (machine(), replace(machine(), l2=8 << 10)):
        np.testing.assert_array_equal(result(given_, on, threads=2), given_.oracle())


def fitting(problem: ConvProblem) -> ConvProblem:
    """A problem made one that outputs side by side can do: few output channels, in rows of an even number of outputs."""
    c_in, c_out, dilation = problem.c_in // problem.groups, 1 + problem.c_out % 4, (*problem.dilation[:-1], 1)
    problem = replace(problem, c_in=c_in, c_out=c_out, groups=1, dilation=dilation)
    *spatial, width = problem.spatial
    return replace(problem, spatial=(*spatial, width + problem.out_spatial[-1] % 2 * problem.stride[-1]))


@given(operands(every_kind().map(fitting).filter(lambda problem: refuses(problem) is None)))
@settings(max_examples=30)
def test_outputs_abreast_equal_the_oracle_on_whole_numbers(given_):
    np.testing.assert_array_equal(result(given_), given_.oracle())


@given(st.sampled_from(PIECEWISE_LINEAR), st.integers(0, 3))
@settings(max_examples=8)
def test_pixels_with_gaps_between_them_stand_alone(activation, gap):
    problem = ConvProblem.parse("c3h7w16o2k3p1clbias")
    given_ = make_operands(problem, whole_numbers, activation=activation)
    out = np.full((*problem.output_shape[:-1], 2 + gap), np.nan, np.float32)
    np.testing.assert_array_equal(result(given_, out=out[..., :2])[..., :2], given_.oracle())
    assert np.isnan(out[..., 2:]).all()


def test_new_weights_reach_the_outputs_side_by_side():
    problem = ConvProblem.parse("c2h6w16o2k3p1cl")
    first, second = (make_operands(problem, whole_numbers, seed) for seed in (1, 2))
    weights = Weights(first.weight, None, 1)
    plan = ABREAST.plan(problem, weights, first.epilogue, machine())
    weights.replace(second.weight)
    out = np.empty(problem.output_shape, np.float32)
    plan.run(second.x, out)
    np.testing.assert_array_equal(out, second.oracle())


@pytest.mark.parametrize(
    "text, reason",
    [
        ("c3h9w16o9k3p1", "no number of neighbouring outputs"),
        ("c3h9w17o1k3p1", "no number of neighbouring outputs"),
        ("c3h9w16o1k3p2dil2", "do not follow one another"),
        ("c4h9w16o2k3p1g2", "no number of neighbouring outputs"),
    ],
)
def test_reasons(text, reason):
    assert reason in refuses(ConvProblem.parse(text))


def test_they_are_chosen_where_they_save_time_and_nan_may_spread():
    problem = ConvProblem.parse("c1d64h64w64o1k3p1cl")
    # matrix tiles do the same in less
    without = replace(machine(), features="")
    assert isinstance(rank(problem, Epilogue(), without, Accuracy.of(USUAL))[0].algorithm, Abreast)
    found = next(row for row in rank(problem, Epilogue(), machine(), STRICT) if isinstance(row.algorithm, Abreast))
    assert found.reason == "spreads NaN and infinity beyond their place"
    assert f"abreast {VECTOR_BYTES // 4} outputs" in str(nc.explain(problem, accuracy=USUAL))


def test_direct_sums_by_name_keep_every_nan_in_its_place():
    x, weight = np.ones((1, 1, 64, 64), np.float32), np.ones((1, 1, 3, 3), np.float32)
    x[0, 0, 5, 7] = np.nan
    y = nc.conv2d(x, weight, padding=1, algorithm="direct", accuracy=USUAL)
    assert np.isnan(y).sum() == np.isnan(y[0, 0, 4:7, 6:9]).sum() == 9
