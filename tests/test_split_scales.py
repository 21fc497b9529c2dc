"""Scales of halves that have a range: results keep their accuracy whatever the numbers' size, and depend on no block."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import bits, every_kind, make_operands, normals
from test_split import (  # noqa: F401
    CHUNKED,
    CHUNKS,
    HALVES,
    MACHINES,
    THREADS,
    every_layout,
    parsed,
    plan_of,
    pytestmark,
    run,
)

from numbaconv.reference import reference_conv

needs_scales = pytest.mark.skipif(not HALVES.scaled, reason=f"{HALVES.name} has the range of float32")
#: Exponents around those where a range ends, and far away.
EXPONENTS = (-120, -60, -31, -18, -17, -5, -4, 0, 4, 10, 11, 12, 23, 24, 40, 90)


def scaled(given_, exponents):
    """The input times powers of two."""
    return replace(given_, x=given_.x * np.exp2(np.asarray(exponents, np.float64)).astype(np.float32))


def spatial_shape(p, shape):
    """A shape of pixels, (n, *spatial), so that it goes together with the tensor."""
    return shape[:1] + shape[1:] + (1,) if p.layout == "channels_last" else shape[:1] + (1,) + shape[1:]


def assert_accurate(y, given_):
    """Within a part of what the largest numbers of the lines under the kernel could sum up to, or of all where lines are pixels."""
    p = given_.problem
    plain = replace(given_, residual=None, activation=None)
    exact = reference_conv(replace(p, bias=False), plain.x, plain.weight, accumulate="f64")
    axis = tuple(i for i in range(y.ndim) if i not in (0, 1 if p.layout == "channels_last" else 2) or i and p.taps == 1)
    along = np.abs(plain.x).max(axis=axis, keepdims=True)
    size = reference_conv(replace(p, bias=False), np.broadcast_to(along, plain.x.shape).copy(), np.abs(plain.weight))
    assert np.all(np.abs(y - exact) <= 2e-6 * size)


@st.composite
def problems_of_ranges(draw):
    """Operands whose pixels, lines or images are of any size, and some of whose pixels are larger still."""
    problem = replace(draw(every_kind()), dtype="f32", padding_mode="zeros", bias=False)
    given_ = make_operands(problem, normals, draw(st.integers(0, 99)))
    pixels = (problem.n, *problem.spatial)
    kept = draw(st.sampled_from((0, 1, 2, len(pixels))))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    chosen = draw(st.lists(st.sampled_from(EXPONENTS), min_size=1, max_size=3))
    exponents = rng.choice(chosen, pixels[:kept] + (1,) * (len(pixels) - kept)) + np.zeros(pixels, int)
    exponents[rng.random(pixels) < draw(st.sampled_from((0, 0.05)))] += 14
    return scaled(given_, exponents.reshape(spatial_shape(problem, pixels)))


@needs_scales
@given(problems_of_ranges())
@settings(max_examples=150)
def test_no_bit_depends_on_blocks_threads_or_the_place_in_a_batch(given_):
    one = run(plan_of(given_), given_)
    assert np.isfinite(one).all()
    for on in MACHINES[1:]:
        for threads in range(1, THREADS + 1):
            assert bits(run(plan_of(given_, on), given_, threads)) == bits(one)
    turned = replace(given_, x=given_.x[::-1].copy())
    assert bits(run(plan_of(turned), turned)) == bits(one[::-1])


BESIDE = (
    "c3h9w12o20k5s2p2", "c3h9w12o20k3s2", "c3h13w12o20k3s3", "c33h9w12o20k3s2", "c40h9w10o33k3p1", "c33h9w10o33k1s2",
    "n2c40d3h5w6o9k3p1", "c3w300o20k5p2", "c40w200o33k3p1", "c40w200o33k1s2", "c6h6w7o8k2s3", "c33h9w12o20kh3kw1sh1sw2ph1pw0",
)  # fmt: skip


@needs_scales
@every_layout
@pytest.mark.parametrize("text", BESIDE)
def test_numbers_that_an_output_does_not_meet_leave_it_alone(text, layout):
    """But for signals and kernels of one pixel, whose pixels have neighbours: there no bit may depend on blocks."""
    given_ = make_operands(replace(parsed(text, layout), bias=False), normals)
    p = given_.problem
    # the first axis of the image, and the last one; where the last pixel that an output meets lies
    for axis in {0, len(p.spatial) - 1}:
        place = axis + (1 if layout == "channels_last" else 2)
        outputs = np.arange(p.out_spatial[axis])
        ends = outputs * p.stride[axis] - p.padding[axis][0] + p.extent[axis]
        clean = run(plan_of(given_), given_)
        shape = [1] * given_.x.ndim
        shape[place] = -1
        numbers, step = np.arange(p.spatial[axis]), 1 + p.spatial[axis] // 20
        for first, are_large in [
            (n, are(numbers, n)) for n in numbers[1::step] for are in (np.equal, np.greater_equal)
        ]:
            large = scaled(given_, np.where(are_large, 90, 0).reshape(shape))
            results = [run(plan_of(large, on), large) for on in MACHINES]
            assert np.isfinite(results[0]).all() and len({bits(y) for y in results}) == 1
            before = np.take(results[0], outputs[ends <= first], place)
            if axis == 0 and len(p.spatial) == 2 and p.taps > 1:
                assert bits(before) == bits(np.take(clean, outputs[ends <= first], place))


@needs_scales
@pytest.mark.parametrize("text", CHUNKED)
@pytest.mark.parametrize("exponent", (-40, -12, 14, 60))
def test_chunks_of_channels_share_a_scale(text, exponent):
    """Whichever of them shows that the usual one is wrong."""
    given_ = make_operands(replace(parsed(text), bias=False), normals)
    for loud in (slice(0, 1), slice(-1, None), slice(None)):
        exponents = np.full(given_.problem.c_in, min(exponent, 0))
        exponents[loud] = exponent
        large = scaled(given_, exponents)
        assert_accurate(run(plan_of(large, CHUNKS), large), large)


TEXTS = "n2c40h9w10o33k3p1", "c3h9w30o20k5s2p2", "n2c40h9w10o33k1", "c40h9w10o33k1s2", "n2c48h9w10o96k3p1g3"


@needs_scales
@every_layout
@pytest.mark.parametrize("text", TEXTS)
def test_lines_of_any_size_keep_their_accuracy(text, layout):
    given_ = make_operands(replace(parsed(text, layout), bias=False), normals)
    p, rng = given_.problem, np.random.default_rng(1)
    for _ in range(8):
        lines = rng.choice(EXPONENTS, (p.n, p.spatial[0], 1))
        # an image of small numbers only has a scale for all of it
        lines[:, 0] = 0
        large = scaled(given_, np.maximum(lines, 0).reshape(spatial_shape(p, lines.shape)))
        for on in MACHINES:
            assert_accurate(run(plan_of(large, on), large), large)


@needs_scales
@every_layout
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("text", ("n2c40h9w10o33k3p1", "n2c40h9w10o33k1", "c3w300o20k5p2", "c33w300o20k1s2"))
def test_images_of_any_size_keep_their_accuracy(text, exponent, layout):
    given_ = make_operands(replace(parsed(text, layout), bias=False), normals)
    given_ = scaled(given_, exponent)
    exact = given_.oracle(accumulate="f64").astype(np.float64)
    y = run(plan_of(given_), given_)
    assert np.sqrt(np.mean(((y - exact) / 2.0**exponent) ** 2) / np.mean((exact / 2.0**exponent) ** 2)) <= HALVES.error


@needs_scales
@every_layout
@pytest.mark.parametrize("text", ("c40h9w10o33k3p1", "c40h9w10o33k1", "c3h9w10o33k5p2", "c40w200o33k3p1"))
@pytest.mark.parametrize("value", (np.inf, -np.inf, np.nan))
def test_numbers_beside_one_that_is_not_finite_keep_their_scale(text, value, layout):
    given_ = make_operands(parsed(text, layout), normals)
    for exponent in (-30, 0, 30):
        clean = scaled(given_, exponent)
        x = clean.x.copy()
        x[(..., 5) if layout == "channels_first" else (..., 5, slice(None, 2))] = value
        spoiled = replace(clean, x=x)
        for on in MACHINES:
            y = run(plan_of(spoiled, on), spoiled)
            kept = np.isfinite(y)
            assert kept.any() and bits(y[kept]) == bits(run(plan_of(clean, on), clean)[kept])


@needs_scales
@every_layout
@pytest.mark.parametrize("text", ("c40h9w10o33k3p1", "c40h9w10o33k1"))
def test_weights_of_any_size_keep_their_accuracy(text, layout):
    given_ = make_operands(parsed(text, layout), normals)
    for exponent in EXPONENTS:
        weighted = replace(given_, weight=given_.weight * np.float32(2.0**exponent))
        exact = weighted.oracle(accumulate="f64").astype(np.float64)
        y = run(plan_of(weighted), weighted)
        assert np.sqrt(np.mean((y - exact) ** 2)) <= HALVES.error * np.sqrt(np.mean(exact**2))
    # results beyond float32 are infinite, and those of nothing are zero
    large = replace(given_, x=given_.x * np.float32(2.0**100), weight=given_.weight * np.float32(2.0**100))
    large.x[:] = np.abs(large.x)
    large.weight[:] = np.abs(large.weight)
    large.weight[5] = 0
    y = run(plan_of(large), large)
    channel = y[:, 5] if layout == "channels_first" else y[..., 5]
    assert np.all(channel == 0) and np.isinf(y).sum() == y.size - channel.size
