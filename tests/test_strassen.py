"""Strassen: the identity that it rests on, exact whole numbers, errors within the stated bound, and where it is chosen."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from strategies import PIECEWISE_LINEAR, TRANSCENDENTAL, bits, make_operands, normals, whole_numbers

import numbaconv as nc
from numbaconv.accuracy import DEFAULT, STRICT
from numbaconv.algorithms import ALGORITHMS, winograd_cost
from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.strassen import INPUT, KERNEL, OUTPUT
from numbaconv.codegen.target import target
from numbaconv.dispatch.select import rank
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.machine import Rates, machine
from numbaconv.problem import LAYOUTS, ConvProblem

STRASSEN = next(algorithm for algorithm in ALGORITHMS if algorithm.name == "strassen")
PLAIN = Epilogue(False, False, Activation.of(None))
#: One pixel, one pair, odd numbers of pixels in each image, several column blocks, K in pieces, blocks of many pairs, strides.
CORNERS = (
    "c64h1w1o64k1", "c64h1w2o64k1bias", "n3c96h3w3o32k1", "n0c64h4w4o64k1", "c128h2w5o576k1bias", "n2c64h5w7o96k1s2bias",
    "n2c128h9w8o64k1sh3sw2", "c6400h1w3o64k1", "n2c64h40w41o64k1", "n3c64w17o64k1", "n2c64d3h2w3o64k1bias", "c64h7w5o64k1p0_0f64",
    # taps, in padding and beyond it, apart, in pieces that begin within a tap
    "n2c64h6w7o64k3p1bias", "c96h9w8o64k3p1s2", "n2c64h5w9o64kh2kw3ph1_0pw3_2dilw2", "c1024h5w3o64k3p1s2", "c64w21o64k5p2s2",
    "n2c64h5w6o64k3p2reflect", "c64h4w6o64k3p1s2circular", "c64h2w2o32k3p4",
)  # fmt: skip


def run(given_, threads=1, **on):
    p = given_.problem
    plan = STRASSEN.plan(p, Weights(given_.weight, given_.bias, 1), given_.epilogue, replace(machine(), **on))
    plan = plan if STRASSEN.native(p) else ChannelsFirst(plan, p)
    out = np.full(p.output_shape, np.nan, p.np_dtype)
    plan.run(given_.x, out, given_.residual, threads=min(threads, numba.config.NUMBA_NUM_THREADS))
    return out


def test_seven_products_make_the_product_of_two_matrices():
    """Each product of the result's blocks, and no other, in the sum over products."""
    for i, row in enumerate(OUTPUT):
        for a in range(4):
            for b in range(4):
                found = sum(c * INPUT[p][a] * KERNEL[p][b] for p, c in enumerate(row))
                wanted = a // 2 == i // 2 and b % 2 == i % 2 and a % 2 == b // 2
                assert found == Fraction(wanted)


@st.composite
def whole_halves(draw) -> ConvProblem:
    """Problems whose halves of channels are whole vectors."""
    dtype = draw(st.sampled_from(("f32", "f64")))
    halves = 2 * target().lanes(4 if dtype == "f32" else 8)
    c_in, c_out = (halves * draw(st.integers(1, 3)) for _ in range(2))
    axes = draw(st.integers(1, 2))
    kernel, stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(axes)) for most in (3, 3, 2))
    padding = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(axes))
    spatial = tuple(d * (k - 1) + draw(st.integers(1, 9)) for k, d in zip(kernel, dilation))
    return ConvProblem(
        draw(st.integers(0, 3)), c_in, c_out, spatial, kernel, stride, dilation, padding,
        dtype=dtype, layout=draw(st.sampled_from(LAYOUTS)), bias=draw(st.booleans()),
    )  # fmt: skip


@given(
    problem=whole_halves(),
    seed=st.integers(0, 2**32 - 1),
    residual=st.booleans(),
    activation=st.sampled_from(PIECEWISE_LINEAR),
)
@examples(max_examples=60, deadline=None)
def test_whole_numbers_are_exact(problem, seed, residual, activation):
    given_ = make_operands(problem, whole_numbers, seed, residual=residual, activation=activation)
    assert STRASSEN.unsupported(problem, given_.epilogue, machine()) is None
    np.testing.assert_array_equal(run(given_), given_.oracle())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", CORNERS)
def test_corners_are_exact_and_do_not_depend_on_threads_or_caches(text, layout):
    problem = replace(ConvProblem.parse(text), layout=layout)
    given_ = make_operands(problem, whole_numbers, residual=True, activation="relu")
    np.testing.assert_array_equal(run(given_), given_.oracle())
    given_ = make_operands(problem, normals)
    assert bits(run(given_)) == bits(run(given_, 2)) == bits(run(given_, l2=64 << 10)) == bits(run(given_, l2=64 << 20))


@pytest.mark.parametrize("activation", TRANSCENDENTAL)
def test_other_activations_are_those_of_direct_sums(activation):
    given_ = make_operands(ConvProblem.parse("c64h3w5o64k1cl"), normals, residual=True, activation=activation)
    np.testing.assert_allclose(run(given_), given_.oracle(), rtol=1e-4, atol=2e-5)


def test_an_image_has_the_same_bits_wherever_it_stands_in_a_batch():
    given_ = make_operands(ConvProblem.parse("n3c64h5w5o64k1cl"), normals)
    alone = replace(given_, problem=replace(given_.problem, n=1), x=given_.x[2:])
    assert bits(run(given_)[2:]) == bits(run(alone))


@pytest.mark.parametrize("c_in", (64, 256, 1024, 4096))
@pytest.mark.parametrize("dtype", ("f32", "f64"))
def test_the_stated_error_is_a_bound_and_not_a_loose_one(c_in, dtype):
    """A 1x1 kernel; one of more taps is the same on as many channels as it has taps."""
    problem = ConvProblem.parse(f"c{c_in}h16w16o64k1cl{dtype}")
    given_ = make_operands(problem, normals, 1)
    wide = np.longdouble if dtype == "f64" else np.float64
    exact = given_.x.reshape(-1, c_in).astype(wide) @ given_.weight.reshape(64, c_in).T.astype(wide)
    taps = ConvProblem.parse(f"c64h16w16o64k4cl{dtype}")
    assert STRASSEN.rms_error(taps) == STRASSEN.rms_error(ConvProblem.parse(f"c1024h16w16o64k1cl{dtype}"))
    error = np.sqrt(np.mean((run(given_).reshape(-1, 64) - exact) ** 2) / np.mean(exact**2))
    assert 0.3 * STRASSEN.rms_error(problem) < error <= STRASSEN.rms_error(problem)


def test_a_nan_reaches_its_pair_of_pixels_and_no_other():
    given_ = make_operands(ConvProblem.parse("n2c64h3w3o64k1cl"), normals)
    given_.x[1, 1, 1, 5] = np.nan
    met = np.isnan(run(given_)).any(axis=-1).reshape(2, 9)
    # pixels 4 and 5 of the second image
    assert met.tolist() == [[False] * 9, [False] * 4 + [True] * 2 + [False] * 3]


#: Rates as those of a Zen 4 and its caches.
HERE = replace(machine(), l1=32 << 10, l2=1 << 20, l3=32 << 20, rates=Rates(1.8e9, 2.3, 0.33, 30.0, 29.0))


def test_a_single_block_counts_what_both_threads_prepare():
    def beside(text):
        grid = STRASSEN.grid(geometry(ConvProblem.parse(text)))
        asked = grid, STRASSEN.blocks(grid, HERE), winograd_cost.common(grid.g, HERE), HERE
        return asked[1].blocks, STRASSEN.products(*asked) - winograd_cost.near_cycles(*asked)

    (one, more), (two, nothing) = beside("c512h7w7o512k1cl"), beside("c512h28w28o512k1cl")
    assert one == 1 < two and nothing == 0.0
    # both halves of the channels of 25 pairs
    assert more > 25 * 512 / target().lanes(4)


def test_direct_sums_are_taken_in_doubt():
    problem = ConvProblem.parse("c256h14w14o256k1cl")
    grid = STRASSEN.grid(geometry(problem))
    asked = grid, STRASSEN.blocks(grid, HERE), winograd_cost.common(grid.g, HERE), HERE
    cycles = STRASSEN.products(*asked) + winograd_cost.far_cycles(*asked)
    assert STRASSEN.estimate(problem, HERE).seconds == pytest.approx(1.04 * cycles / HERE.rates.clock)


def names(text, accuracy=DEFAULT):
    """Algorithms that can do it, the best first."""
    ranked = rank(ConvProblem.parse(text), PLAIN, HERE, accuracy)
    return [candidate.algorithm.name for candidate in ranked if candidate.cost and not candidate.reason]


@pytest.mark.parametrize(
    "text, wins",
    (
        ("c1024h14w14o1024k1cl", True),
        ("c1024h28w28o1024k1s2cl", True),
        ("c64h56w56o64k1cl", False),
        ("c64h14w14o64k3p1s2cl", False),
    ),
)
def test_it_comes_before_direct_sums_where_channels_are_many(text, wins):
    order = names(text)
    assert all((order.index("strassen") < order.index(name)) == wins for name in ("direct", "indirect", "im2col"))


def test_the_strict_accuracy_and_small_budgets_refuse_it():
    text = "c1024h14w14o1024k1cl"
    assert "strassen" in names(text) and "strassen" not in names(text, STRICT)
    assert "strassen" not in names(text, replace(DEFAULT, rms=1e-7))


@pytest.mark.parametrize(
    "text, why",
    (
        ("c64h8w8o64k1g2cl", "groups"),
        ("c64d8h8w8o64k1s2cl", "slices"),
        ("c60h8w8o64k1cl", "vectors"),
        ("c64h8w8o70k1cl", "vectors"),
    ),
)
def test_what_it_refuses(text, why):
    assert why in STRASSEN.unsupported(ConvProblem.parse(text), PLAIN, machine())
    given_ = make_operands(ConvProblem.parse(text), whole_numbers)
    with pytest.raises(nc.UnsupportedError, match=why):
        given_.conv("strassen")
