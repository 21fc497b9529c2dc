"""Winograd down tall depthwise kernels: within the stated error of the oracle, the same bits anywhere, and where it is chosen."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from strategies import (
    PIECEWISE_LINEAR,
    TRANSCENDENTAL,
    assert_rounded,
    bits,
    guarded,
    make_operands,
    normals,
)

import numbaconv as nc
from numbaconv.accuracy import DEFAULT, STRICT
from numbaconv.algorithms import ALGORITHMS
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.weights import Weights
from numbaconv.algorithms.winograd_depthwise import least_of_sizes
from numbaconv.dispatch.select import rank
from numbaconv.epilogue import Epilogue
from numbaconv.machine import Rates, machine
from numbaconv.problem import LAYOUTS, ConvProblem

SIZES = {algorithm.m: algorithm for algorithm in ALGORITHMS if algorithm.name == "winograd_depthwise"}
#: Rates as those of a Zen 4 and its caches.
HERE = replace(
    machine(),
    isa="avx512",
    features="",
    l1=32 << 10,
    l2=1 << 20,
    l3=32 << 20,
    rates=Rates(1.8e9, 2.6, 0.33, 30.0, 28.0),
)
#: One row, fewer rows than a tile, padding wider than tiles and than the kernel, chunks of a few rows, columns that are strided,
#: dilated or one, channels that fill no vector, several panels, images, an image of a volume.
CORNERS = (
    "c8h1w1o8k11p5g8", "n3c20h3w5o20kh12kw3ph6pw1g20", "n2c33h30w9o33kh13kw5ph6pw2g33", "c70h17w8o70kh31kw4ph15pw2g70",
    "c5h9w7o5kh11kw1ph20_3pw0g5", "n2c17h200w40o17kh11kw3ph5pw1g17", "c9h40w21o9k13p6sh1sw2g9", "c6h23w30o6k11p5dilh1dilw3g6",
    "n0c8h20w9o8k11p5g8", "c12h16w19o12k16g12", "n2c40h14w14o40k27p13g40", "c8h25w9o8k11p5g8f64", "c35h12w70o35kh15kw15ph7_0pw3g35",
    "c12d1h14w9o12kd1kh11kw3pd0ph5pw1g12",
)  # fmt: skip


#: Layers as large as those that it is for, whose bounds are near.
LAYERS = tuple(map(ConvProblem.parse, ("c256h28w28o256k31p15g256cl", "c64h112w112o64k15p7g64cl")))


def plan_of(given_, m=4, **on):
    p = given_.problem
    weights = Weights(given_.weight, given_.bias, p.groups)
    plan = SIZES[m].plan(p, weights, given_.epilogue, replace(machine(), **on))
    return plan if SIZES[m].native(p) else ChannelsFirst(plan, p)


def run(given_, m, threads=1, **on):
    out = np.full(given_.problem.output_shape, np.nan, given_.problem.np_dtype)
    plan_of(given_, m, **on).run(given_.x, out, given_.residual, threads=min(threads, numba.config.NUMBA_NUM_THREADS))
    return out


def assert_equal(out, expected, err_msg):
    """Whole numbers up to rounding errors of sums of some hundred products."""
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=2e-2, err_msg=err_msg)


@st.composite
def tall_kernels(draw) -> ConvProblem:
    """Depthwise problems with three pieces and more."""
    kernel = draw(st.integers(11, 24)), draw(st.integers(1, 9))
    stride, dilation = (1, draw(st.integers(1, 3))), (1, draw(st.integers(1, 3)))
    padding = tuple((draw(st.integers(0, 30)), draw(st.integers(0, 30))) for _ in range(2))
    least = (d * (k - 1) + 1 - sum(ends) for k, d, ends in zip(kernel, dilation, padding))
    spatial = tuple(max(size, 1) + draw(st.integers(0, 15)) for size in least)
    channels = draw(st.integers(1, 40))
    return ConvProblem(
        draw(st.integers(0, 2)), channels, channels, spatial, kernel, stride, dilation, padding, channels,
        draw(st.sampled_from(("f32", "f32", "f64"))), draw(st.sampled_from(LAYOUTS)), draw(st.booleans()),
    )  # fmt: skip


@given(problem=st.one_of(tall_kernels(), st.sampled_from(LAYERS)))
@examples(max_examples=100, deadline=None)
def test_no_estimate_is_below_its_bound(problem):
    for on in (machine(), HERE):
        for algorithm in SIZES.values():
            assert least_of_sizes(problem, on) <= algorithm.least_seconds(problem, on)
            assert algorithm.least_seconds(problem, on) <= algorithm.estimate(problem, on).seconds


@pytest.mark.parametrize("m", SIZES)
@given(problem=tall_kernels(), data=st.data())
@examples(max_examples=40, deadline=None)
def test_every_size_is_within_its_bound_of_the_oracle(m, problem, data):
    seed, residual = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.booleans())
    activation = data.draw(st.sampled_from(PIECEWISE_LINEAR + TRANSCENDENTAL))
    given_ = make_operands(problem, normals, seed, residual=residual, activation=activation)
    assert SIZES[m].unsupported(problem, given_.epilogue, machine()) is None
    assert_rounded(run(given_, m), given_, SIZES[m].rms_error(problem))


@pytest.mark.parametrize("m", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("text", CORNERS)
def test_corners_are_within_their_bound_and_do_not_depend_on_threads(text, layout, m):
    problem = replace(ConvProblem.parse(text), layout=layout)
    given_ = make_operands(problem, normals, bias=True, residual=True, activation="relu")
    one = run(given_, m)
    assert_rounded(one, given_, SIZES[m].rms_error(problem))
    assert bits(run(given_, m, 2)) == bits(one)


def test_chunks_change_no_bit(monkeypatch):
    given_ = make_operands(ConvProblem.parse("n2c40h61w9o40kh17kw3ph8pw1g40cl"), normals, residual=True)
    one = {m: run(given_, m) for m in SIZES}
    for room in (1, 40_000, 90_000):
        monkeypatch.setattr("numbaconv.algorithms.winograd_depthwise._ROOM", room)
        for m in SIZES:
            assert SIZES[m].estimate(given_.problem, machine()).workspace_bytes < 200_000
            assert bits(run(given_, m)) == bits(run(given_, m, 2)) == bits(one[m])


def test_an_image_has_the_same_bits_wherever_it_stands_in_a_batch():
    given_ = make_operands(ConvProblem.parse("n3c20h20w9o20k11p5g20cl"), normals)
    alone = replace(given_, problem=replace(given_.problem, n=1), x=given_.x[2:])
    for m in SIZES:
        assert bits(run(given_, m)[2:]) == bits(run(alone, m))


def test_pixels_may_lie_apart():
    given_ = make_operands(ConvProblem.parse("n2c20h20w9o20k11p5g20cl"), normals, residual=True)
    p = given_.problem
    x, out, residual = (np.full((*given_.x.shape[:-1], pitch), np.nan, "f4") for pitch in (33, 37, 29))
    x[..., :20], residual[..., 5:25] = given_.x, given_.residual
    for m in SIZES:
        SIZES[m].plan(p, Weights(given_.weight, None, 20), given_.epilogue, machine()).run(
            x[..., :20], out[..., 7:27], residual[..., 5:25]
        )
        np.testing.assert_array_equal(out[..., 7:27], run(given_, m))
        assert np.isnan(out[..., :7]).all() and np.isnan(out[..., 27:]).all()


def test_nothing_is_read_or_written_outside_of_the_operands(python):
    assert int(python(guarded("test_winograd_depthwise", "[(4,), (5,)]")).stdout) > 80


def test_new_weights_are_found():
    given_ = make_operands(ConvProblem.parse("c20h20w9o20k11p5g20cl"), normals)
    weights = Weights(given_.weight, None, 20)
    plan, out = SIZES[4].plan(given_.problem, weights, given_.epilogue, machine()), np.empty_like(given_.x)
    changed = replace(given_, weight=normals(np.random.default_rng(5), given_.weight.shape, np.float32))
    weights.replace(changed.weight)
    plan.run(given_.x, out)
    assert bits(out) == bits(run(changed, 4))


@pytest.mark.parametrize(
    "text", ("c16h48w48o16k31p15g16cl", "c16h40w40o16k13p6g16cl", "c16h40w40o16kh11kw5ph5pw2g16clf64")
)
def test_the_stated_error_is_a_bound_and_not_a_loose_one(text):
    problem = ConvProblem.parse(text)
    # away from padding, where sums have fewer products
    given_ = make_operands(replace(problem, padding=((0, 0), (0, 0))), normals)
    wide = np.longdouble if problem.dtype == "f64" else np.float64
    windows = np.lib.stride_tricks.sliding_window_view(given_.x.astype(wide), problem.kernel, (1, 2))
    exact = np.einsum("nhwcij,cij->nhwc", windows, given_.weight[:, 0].astype(wide))
    for m, algorithm in SIZES.items():
        error = np.sqrt(np.mean((run(given_, m) - exact) ** 2) / np.mean(exact**2))
        assert 0.3 * algorithm.rms_error(problem) < error <= algorithm.rms_error(problem)


def test_a_nan_reaches_rows_of_neighbouring_tiles_and_no_other_channel_or_column():
    given_ = make_operands(ConvProblem.parse("c4h60w40o4k11p5g4cl"), normals)
    given_.x[0, 30, 20, 1] = np.nan
    for m in SIZES:
        met = np.isnan(run(given_, m))[0]
        assert not met[..., [0, 2, 3]].any()
        rows, columns = np.nonzero(met[..., 1])
        assert met[25:36, 15:26, 1].all()
        assert rows.min() > 25 - 2 * m and rows.max() < 36 + 2 * m and (columns.min(), columns.max()) == (15, 25)


@pytest.mark.parametrize(
    "text, why",
    (
        ("c8h30w30o16k13g8", "one channel"),
        ("c8h30w30o8k13g4", "one channel"),
        ("c8h30w30o8k13sh2sw1g8", "strided"),
        ("c8h40w30o8k13dilh2dilw1g8", "dilated"),
        ("c8h30w31o8kh7kw31g8", "pieces"),
        ("c8w30o8k13g8", "images"),
        ("c8d30h30w30o8k13g8", "images"),
    ),
)
def test_it_says_why_it_refuses(text, why):
    for algorithm in SIZES.values():
        assert why in algorithm.unsupported(ConvProblem.parse(text), Epilogue(), machine())


@pytest.mark.parametrize(
    "text, wins",
    (
        ("c256h28w28o256k31p15g256", True),
        ("c128h56w56o128k31p15g128", True),
        ("c64h112w112o64k15p7g64", True),
        ("c512h14w14o512k31p15g512", False),
        ("c192h28w28o192k7p3g192", False),
        ("c384h14w14o384k9p4g384", False),
    ),
)
def test_it_comes_first_where_kernels_are_large_and_images_have_rows_enough(text, wins):
    def first(accuracy):
        ranked = rank(ConvProblem.parse(text + "cl"), Epilogue(), HERE, accuracy)
        return next(candidate.algorithm.name for candidate in ranked if candidate.cost)

    assert (first(DEFAULT) == "winograd_depthwise") == wins
    assert first(STRICT) == "depthwise"


def test_other_padding_is_copied_around_the_input():
    problem = ConvProblem.parse("c8h30w9o8kh13kw3ph6pw1g8cl")
    given_ = make_operands(problem, normals)
    call = partial(given_.conv, padding_mode="reflect", accuracy=1e-5)
    np.testing.assert_allclose(call("winograd_depthwise"), call("depthwise"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "text, able",
    (
        ("c8w40o8k13p6g8", False),
        ("c8h20w9o8k11p5g8", True),
        ("c8d40h3w3o8kd13kh1kw1pd6ph0pw0g8", True),
        ("c8d3h9w9o8k3p1g8", False),
    ),
)
def test_it_is_explained_for_every_number_of_axes(text, able):
    """A signal has one row, and an axis along which a volume's kernel has one tap is none."""
    problem = ConvProblem.parse(text + "cl")
    rows = [row for row in nc.explain(problem, accuracy=1e-5).rows if row.algorithm == "winograd_depthwise"]
    assert len(rows) == len(SIZES) and any(row.reason is None for row in rows) == able
