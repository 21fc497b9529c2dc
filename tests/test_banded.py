"""Kernels that one channel has to itself on matrix tiles: banded matrices read from the kernel's rows, planes split one by one."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    NON_FINITE,
    PIECEWISE_LINEAR,
    TRANSCENDENTAL,
    bits,
    every_kind,
    guarded,
    make_operands,
    normals,
    operands,
    problems,
    whole_numbers,
)
from test_split import HALVES, assert_within_bound, both_parts, every_layout, parsed, relative_error, run

import numbaconv as nc
from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.banded import Banded, BandedPlanes
from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.padded import PaddedCopy, posed_to
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.select import best, rank
from numbaconv.epilogue import Epilogue
from numbaconv.machine import machine
from numbaconv.problem import LAYOUTS, ConvProblem

PIXELS, PLANES = Banded(HALVES), BandedPlanes(HALVES)
REFUSED = PIXELS.unsupported(ConvProblem.parse("c8h9w9o8k3g8cl"), Epilogue(), machine())
pytestmark = pytest.mark.skipif(REFUSED is not None, reason=f"these run on matrix tiles, but {REFUSED}")

THREADS = numba.config.NUMBA_NUM_THREADS
#: Registers of rows and of columns that share a stretch or do not, and members side by side; what does not fill any of them.
CORNERS = (
    # one register of rows: four channels together, and what is left of them
    "c16h7w7o16k13p6g16", "n2c18h14w14o18k27p13g18", "c5h9w15o5k3p1g5", "c3h16w40o3k5p2g3", "c4h5w33o4k7p3s2g4",
    # two: pairs of columns, alone where they read too much
    "c17h28w28o17k29p14g17", "c2h20w64o2k5p2g2", "n2c33h31w33o33k13p6g33", "c3h17w47o3k31p15g3", "c4h40w50o4k9p4s2g4",
    # three and four, and several tiles of them
    "c3h40w56o3k31p15g3", "c2h56w19o2k9p4g2", "c2h70w21o2k5p2g2", "c2h130w5o2k3p1g2", "c1h64w65o1k11p5g1",
    # more padding than the kernel reaches, on either side; kernels beyond the input; no padding
    "c3h6w5o3k3p9g3", "c3h6w20o3k5p0_9g3", "c3h20w6o3k5p9_0g3", "c2h9w40o2k5p40g2", "c3h18w19o3k7g3", "c2h17w3o2k3ph1pw18g2",
    # dilation, rows and columns that differ
    "c3h20w21o3k5p8dil4g3", "c3h20w37o3kh1kw31ph0pw15g3", "c3h33w9o3kh31kw1ph15pw0g3", "c3h20w21o3kh3kw9ph2pw8dilh2dilw2g3",
    "c3h33w34o3kh5kw7sh3sw1ph2pw3g3", "c3h33w34o3kh5kw7sh1sw2ph2pw4g3", "c4h21w50o4k8p3_4s2g4",
    # signals: shorter than a register, of many, longer ones than the kernel's reach and shorter
    "n2c5w20o5k31p15g5", "c18w500o18k31p15g18", "c3w1000o3k75p37g3", "c3w90o3k87p86dil2g3", "c2w300o2k9p4s2g2", "c2w40o2k60p31g2",
    "c2w4000o2k17p16_0g2", "c3w257o3k5p0g3", "c4w33o4k8p3s2g4",
    # modes
    "c3h18w19o3k7p3g3reflect", "c3h18w19o3k7p3g3circular", "n0c3h18w19o3k7p3g3",
)  # fmt: skip


#: Slices that are images of their own, where other channels do not lie between them.
SLICES = "n2c3d3h18w19o3kd1kh7kw7pd0ph3pw3g3"


def algorithm_of(problem):
    return PLANES if problem.layout == "channels_first" else PIXELS


def plan_of(given_):
    p, algorithm = given_.problem, algorithm_of(given_.problem)
    posed = posed_to(algorithm, p)
    plan = algorithm.plan(posed, Weights(given_.weight, given_.bias, p.groups), given_.epilogue, machine())
    return plan if posed is p else PaddedCopy(plan, p)


def can(problem):
    return algorithm_of(problem).unsupported(posed_to(algorithm_of(problem), problem), Epilogue(), machine()) is None


def depthwise():
    """Problems that it does, large kernels among them."""
    kinds = st.one_of(every_kind(depthwise=True), problems(depthwise=True, kernels=st.integers(8, 31)))
    return kinds.map(lambda p: replace(p, dtype="f32")).filter(can)


@given(operands(depthwise()), st.sampled_from(("x", "weight")), st.integers(1, min(THREADS, 2)))
@settings(max_examples=150)
def test_they_equal_the_oracle_on_whole_numbers(given_, large, threads):
    given_ = both_parts(given_, large)
    np.testing.assert_array_equal(run(plan_of(given_), given_, threads), given_.oracle(), strict=True)


@every_layout
@pytest.mark.parametrize("text", CORNERS)
def test_corners_equal_the_oracle(text, layout):
    whole = make_operands(parsed(text, layout), whole_numbers, bias=True, residual=True, activation="relu")
    assert can(whole.problem) or whole.problem.n == 0
    for large in ("x", "weight"):
        given_ = both_parts(whole, large)
        np.testing.assert_array_equal(run(plan_of(given_), given_), given_.oracle(), strict=True)


def test_slices_are_images_where_other_channels_do_not_lie_between_them():
    given_ = make_operands(parsed(SLICES), whole_numbers, bias=True, residual=True, activation="relu")
    np.testing.assert_array_equal(run(plan_of(given_), given_), given_.oracle())
    assert not can(parsed(SLICES, "channels_first"))


def test_the_corners_are_cut_in_every_way():
    cuts = [PIXELS.cut(geometry(parsed(text)), machine()).fields for text in CORNERS]
    assert {cut["gang"] for cut in cuts} == {1, 4} and {cut["registers"] for cut in cuts} == {2, 4}
    assert {-(-cut["line"] // 16) for cut in cuts} >= {1, 2, 3, 4, 5}


@given(operands(depthwise(), normals, PIECEWISE_LINEAR + TRANSCENDENTAL))
@settings(max_examples=50)
def test_errors_are_those_of_two_halves_an_operand(given_):
    assert_within_bound(run(plan_of(given_), given_), given_)


@every_layout
@pytest.mark.parametrize("x_scale, weight_scale", ((1, 1), (1e30, 1e-30), (1e-30, 1e3), (1e-15, 1e-15)))
def test_the_stated_error_is_a_bound(x_scale, weight_scale, layout):
    given_ = make_operands(parsed("c8h28w28o8k13p6g8", layout), normals)
    given_ = replace(given_, x=given_.x * np.float32(x_scale), weight=given_.weight * np.float32(weight_scale))
    assert relative_error(run(plan_of(given_), given_), given_.oracle(accumulate="f64")) <= HALVES.error


def test_planes_have_scales_of_their_own():
    given_ = make_operands(parsed("c8h20w20o8k9p4g8"), normals)
    x = given_.x * np.float32(10.0) ** np.arange(-16, 16, 4, dtype=np.float32)
    given_ = replace(given_, x=x)
    y, exact = run(plan_of(given_), given_), given_.oracle(accumulate="f64")
    for channel in range(8):
        assert relative_error(y[..., channel], exact[..., channel]) <= HALVES.error


@every_layout
@pytest.mark.parametrize("value", NON_FINITE)
def test_what_is_not_finite_reaches_all_outputs_that_direct_sums_spoil(value, layout):
    given_ = make_operands(parsed("n2c5h20w37o5k7p3g5", layout), normals, bias=True)
    x, weight = given_.x.copy(), given_.weight.copy()
    x[(0, 3, 5, 30) if layout == "channels_first" else (0, 5, 30, 3)] = value
    weight[2, 0, 1, 1] = value
    for changed in ({"x": x}, {"weight": weight}):
        spoiled = replace(given_, **changed)
        y, direct = run(plan_of(spoiled), spoiled), spoiled.oracle()
        hit = ~np.isfinite(direct)
        assert np.isnan(y[hit]).all() and 0 < hit.sum() < hit.size
        # no other channel and no other image
        spread = np.isnan(y).any(axis=(2, 3) if layout == "channels_first" else (1, 2))
        assert spread.sum() == (1 if "x" in changed else 2)


@every_layout
@pytest.mark.parametrize("text", ("n3c37h14w15o37k9p4g37", "n3c20h40w33o20k13p6g20", "n3c33w200o33k31p15g33"))
def test_neither_threads_nor_the_batch_change_a_bit(text, layout):
    given_ = make_operands(parsed(text, layout), normals, bias=True, residual=True, activation="silu")
    one = run(plan_of(given_), given_)
    for threads in range(2, THREADS + 1):
        assert bits(run(plan_of(given_), given_, threads)) == bits(one)
    alone = replace(
        given_, problem=replace(given_.problem, n=1), x=given_.x[1:2].copy(), residual=given_.residual[1:2].copy()
    )
    assert bits(run(plan_of(alone), alone)) == bits(one[1:2])


def test_pixels_may_lie_apart_and_nothing_is_written_between_them():
    given_ = make_operands(parsed("n2c19h15w20o19k9p4g19"), normals, residual=True)
    plan, p = plan_of(given_), given_.problem
    wide_x, wide_r = (np.full((*a.shape[:-1], p.c_in + 9), np.nan, np.float32) for a in (given_.x, given_.residual))
    wide_x[..., 4:-5], wide_r[..., 5:-4] = given_.x, given_.residual
    wide_out = np.full((*p.output_shape[:-1], p.c_out + 7), 777, np.float32)
    plan.run(wide_x[..., 4:-5], wide_out[..., 3:-4], wide_r[..., 5:-4], threads=1)
    np.testing.assert_array_equal(wide_out[..., 3:-4], run(plan, given_))
    assert np.all(wide_out[..., :3] == 777) and np.all(wide_out[..., -4:] == 777)


@every_layout
def test_new_weights_reach_the_tiles(layout):
    first, second = (make_operands(parsed("c5h20w20o5k9p4g5", layout), whole_numbers, seed) for seed in (1, 2))
    weights = Weights(first.weight, None, 5)
    plan = algorithm_of(first.problem).plan(first.problem, weights, first.epilogue, machine())
    np.testing.assert_array_equal(run(plan, first), first.oracle())
    weights.replace(second.weight)
    np.testing.assert_array_equal(run(plan, second), second.oracle())


def test_nothing_is_read_or_written_beside_tensors_and_workspace(python):
    assert int(python(guarded("test_banded", "[()]")).stdout) > 100


@pytest.mark.parametrize(
    "text, reason",
    (
        ("c8h20w20o8k9p4g4", "kernels to themselves"),
        ("c8h20w20o16k9p4g8", "kernels to themselves"),
        ("c8h30w30o8k9p4s3g8", "strides of 3"),
        ("c8d3h20w20o8k3p1g8", "several slices"),
    ),
)
def test_what_it_refuses(text, reason):
    assert reason in PIXELS.unsupported(parsed(text), Epilogue(), machine())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_kernels_run_on_it_by_default(layout):
    problem = parsed("c128h56w56o128k31p15g128", layout)
    candidates = rank(problem, Epilogue(), machine(), Accuracy.of(1e-5))
    costs = {c.algorithm.name: c.cost.seconds for c in reversed(candidates) if c.cost is not None}
    # channels-last, where it transposes around itself, Winograd down the columns takes as long
    assert costs[PIXELS.name] <= (1.0 if layout == "channels_first" else 1.1) * min(costs.values())
    assert costs[PIXELS.name] < costs["depthwise"]
    assert best(problem, Epilogue(), machine(), Accuracy.of("strict")).algorithm.name != PIXELS.name
    small = parsed("c128h56w56o128k3p1g128", layout)
    assert best(small, Epilogue(), machine(), Accuracy.of(1e-5)).algorithm.name != PIXELS.name


def test_a_layer_says_what_it_runs():
    rng = np.random.default_rng(0)
    weight = normals(rng, (8, 1, 13, 13), np.float32)
    layer = nc.Conv2d(weight, padding=6, groups=8, algorithm=PIXELS.name, accuracy=1e-5)
    x = normals(rng, (1, 8, 28, 28), np.float32)
    layer(x)
    problem = parsed("c8h28w28o8k13p6g8", "channels_first")
    assert layer.plan(x.shape).algorithm == PIXELS.name and f"{PIXELS.name} planes" in str(nc.explain(problem))
