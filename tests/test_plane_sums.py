"""Weighted sums of planes: 1x1 kernels to few channels of channels-first tensors, a stretch of each plane after the other."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
from strategies import PIECEWISE_LINEAR, TRANSCENDENTAL, bits, guarded, make_operands, normals, whole_numbers

from numbaconv.accuracy import STRICT, Accuracy
from numbaconv.algorithms import tiled
from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.plane_sums import PlaneSums
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.select import best
from numbaconv.epilogue import Epilogue
from numbaconv.machine import machine
from numbaconv.problem import ConvProblem
from numbaconv.reference import reference_conv
from numbaconv.workspace import aligned

SUMS = PlaneSums()
#: A machine whose L1 holds sums of a block of vectors only, so that images have many stretches.
SMALL = replace(machine(), l1=1 << 10)
THREADS = numba.config.NUMBA_NUM_THREADS
#: Planes that are and are not four at a time, pixels about whole vectors, groups, batches, volumes and signals.
CORNERS = (
    "c1h1w1o1k1", "c4h4w4o1k1", "c5h3w5o3k1", "c7h8w8o8k1", "c8h1w63o2k1", "n2c9h5w13o5k1", "n3c12h20w33o6k1g3", "c3w257o2k1",
    "n2c6d3h10w11o4k1g2", "c9h10w11o16k1", "c16h40w50o3k1", "c9h7w19o4k1f64", "n2c10h11w12o6k1g2f64", "n0c4h5w6o2k1",
)  # fmt: skip


OWN_LAYOUTS = ("channels_first",)


def plan_of(given_, on=None):
    """The plan for a problem on a machine."""
    weights = Weights(given_.weight, given_.bias, given_.problem.groups)
    return SUMS.plan(given_.problem, weights, given_.epilogue, on or machine())


def run(plan, given_, threads=1):
    out = np.full(given_.problem.output_shape, np.nan, given_.x.dtype)
    plan.run(given_.x, out, given_.residual, threads=threads)
    return out


@pytest.mark.parametrize("text", CORNERS)
@pytest.mark.parametrize("extras", (True, False))
def test_corners_equal_the_oracle(text, extras):
    activation = "relu" if extras else None
    given_ = make_operands(ConvProblem.parse(text), whole_numbers, bias=extras, residual=extras, activation=activation)
    for on in (machine(), SMALL):
        for threads in range(1, THREADS + 1):
            np.testing.assert_array_equal(run(plan_of(given_, on), given_, threads), given_.oracle(), strict=True)


def test_small_caches_cut_images_into_stretches():
    g = geometry(ConvProblem.parse("c16h40w50o3k1"))
    whole, cut = (SUMS.cut(g, on).fields["tiles_per_line"] for on in (machine(), SMALL))
    assert whole < cut


@pytest.mark.parametrize("activation", PIECEWISE_LINEAR + TRANSCENDENTAL, ids=str)
def test_every_activation_follows_bias_and_residual(activation):
    given_ = make_operands(
        ConvProblem.parse("c5h6w17o3k1"), whole_numbers, bias=True, residual=True, activation=activation
    )
    linear = reference_conv(given_.problem, given_.x, given_.weight, given_.bias, given_.residual)
    tolerance = 0 if activation in PIECEWISE_LINEAR else 8 * np.finfo(np.float32).eps * np.maximum(1, np.abs(linear))
    assert np.all(np.abs(run(plan_of(given_), given_) - given_.oracle(accumulate="f64")) <= tolerance)


def test_results_may_be_written_past_the_caches(monkeypatch):
    monkeypatch.setattr(tiled, "results", lambda g, machine: {"streamed": 1})
    given_ = make_operands(ConvProblem.parse("c6h16w24o3k1"), whole_numbers, bias=True)
    plan, expected = plan_of(given_), given_.oracle()
    for beside in (0, 4):
        out = aligned(expected.nbytes + 64)[beside : beside + expected.nbytes].view(np.float32).reshape(expected.shape)
        plan.run(given_.x, out, threads=1)
        np.testing.assert_array_equal(out, expected)


def test_neither_threads_nor_stretches_nor_the_batch_change_a_bit():
    given_ = make_operands(ConvProblem.parse("n3c21h30w41o5k1"), normals, bias=True, residual=True, activation="silu")
    one = run(plan_of(given_), given_)
    for on in (machine(), SMALL):
        for threads in range(1, THREADS + 1):
            assert bits(run(plan_of(given_, on), given_, threads)) == bits(one)
    alone = replace(
        given_, problem=replace(given_.problem, n=1), x=given_.x[1:2].copy(), residual=given_.residual[1:2].copy()
    )
    assert bits(run(plan_of(alone), alone)) == bits(one[1:2])


def test_a_nan_stays_at_its_pixel():
    given_ = make_operands(ConvProblem.parse("c6h9w11o3k1"), normals)
    x = given_.x.copy()
    x[0, 2, 4, 5] = np.nan
    y = run(plan_of(given_), replace(given_, x=x))
    assert np.isnan(y[0, :, 4, 5]).all() and np.isnan(y).sum() == 3


def test_new_weights_reach_the_sums():
    first, second = (make_operands(ConvProblem.parse("c6h9w11o3k1"), whole_numbers, seed) for seed in (1, 2))
    weights = Weights(first.weight, None, 1)
    plan = SUMS.plan(first.problem, weights, first.epilogue, machine())
    np.testing.assert_array_equal(run(plan, first), first.oracle())
    weights.replace(second.weight)
    np.testing.assert_array_equal(run(plan, second), second.oracle())


def test_nothing_is_read_or_written_beside_tensors_and_workspace(python):
    assert int(python(guarded("test_plane_sums", "[(machine(),), (SMALL,)]")).stdout) > 30


@pytest.mark.parametrize(
    "text, reason",
    (
        ("c8h9w9o4k1cl", "channels-first"),
        ("c8h9w9o4k3", "at their place alone"),
        ("c8h9w9o4k1s2", "at their place alone"),
        ("c8h9w9o4k1p1", "at their place alone"),
        ("c8h9w9o4k1p1_0s2", "at their place alone"),
        ("c8h9w9o17k1", "more than 16"),
    ),
)
def test_what_it_refuses(text, reason):
    assert reason in SUMS.unsupported(ConvProblem.parse(text), Epilogue(), machine())


@pytest.mark.parametrize("accuracy", (1e-5, STRICT))
def test_heads_of_large_images_run_on_it_by_default(accuracy):
    problem = ConvProblem.parse("c64h388w388o2k1")
    assert best(problem, Epilogue(), machine(), Accuracy.of(accuracy)).algorithm.name == SUMS.name
