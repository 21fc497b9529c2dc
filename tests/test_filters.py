"""Named filters for pictures: SciPy's numbers, in documented units, and pictures that stay pictures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import numbaconv as nc
from numbaconv import filters

F32, F64, U8 = np.float32, np.float64, np.uint8
MODES = ("reflect", "mirror", "nearest", "wrap", "constant")
every_mode = pytest.mark.parametrize("mode", MODES)
every_picture = pytest.mark.parametrize("shape", ((17, 23), (30, 41, 3), (1, 9), (5, 1, 4)))
SOBEL = np.outer((-1, 0, 1), (0.25, 0.5, 0.25))
PREWITT = np.outer((-1, 0, 1), (1 / 3, 1 / 3, 1 / 3))


def strength(x, kernel, **options):
    """Of edges of all directions, as skimage has it."""
    return np.hypot(ndimage.correlate(x, kernel, **options), ndimage.correlate(x, kernel.T, **options)) / np.sqrt(2)


#: What each filter is by SciPy's, on float64, along the first two axes.
BY_SCIPY = {
    "sobel 0": (lambda x, **o: filters.sobel(x, 0, **o), lambda x, **o: ndimage.correlate(x, SOBEL, **o)),
    "sobel 1": (lambda x, **o: filters.sobel(x, 1, **o), lambda x, **o: ndimage.correlate(x, SOBEL.T, **o)),
    "prewitt 0": (lambda x, **o: filters.prewitt(x, 0, **o), lambda x, **o: ndimage.correlate(x, PREWITT, **o)),
    "prewitt 1": (lambda x, **o: filters.prewitt(x, 1, **o), lambda x, **o: ndimage.correlate(x, PREWITT.T, **o)),
    "sobel": (filters.sobel, lambda x, **o: strength(x, SOBEL, **o)),
    "prewitt": (filters.prewitt, lambda x, **o: strength(x, PREWITT, **o)),
    "laplacian": (filters.laplacian, ndimage.laplace),
    "laplacian of eight": (
        lambda x, **o: filters.laplacian(x, diagonals=True, **o),
        lambda x, **o: ndimage.correlate(x, np.ones((3, 3)) - 9 * np.pad([[1]], 1), **o),
    ),
    "gaussian": (filters.gaussian, lambda x, **o: ndimage.gaussian_filter(x, 1.0, **o)),
    "gaussian of two widths": (
        lambda x, **o: filters.gaussian(x, (0.7, 2.5), truncate=3, **o),
        lambda x, **o: ndimage.gaussian_filter(x, (0.7, 2.5), truncate=3, **o),
    ),
    "box": (filters.box, lambda x, **o: ndimage.uniform_filter(x, 3, **o)),
    "box, even": (lambda x, **o: filters.box(x, (4, 7), **o), lambda x, **o: ndimage.uniform_filter(x, (4, 7), **o)),
    "sharpen": (lambda x, **o: filters.sharpen(x, 0.5, **o), lambda x, **o: x - 0.5 * ndimage.laplace(x, **o)),
    "emboss": (filters.emboss, lambda x, **o: ndimage.correlate(x, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2.0]]), **o)),
}  # fmt: skip
every_filter = pytest.mark.parametrize("name", BY_SCIPY)


def judged(name, x, **options):
    """SciPy's result, channel by channel."""
    judge = BY_SCIPY[name][1]
    if x.ndim == 2:
        return judge(x, **options)
    return np.stack([judge(x[..., c], **options) for c in range(x.shape[2])], -1)


@every_filter
@every_mode
@every_picture
def test_numbers_are_scipys(name, mode, shape, rng):
    options = {"mode": mode} | ({"cval": 1.5} if mode == "constant" else {})
    x = rng.standard_normal(shape)
    for dtype, tolerance in ((F32, 1e-5), (F64, 1e-13)):
        given_ = x.astype(dtype)
        y = BY_SCIPY[name][0](given_, **options)
        assert y.shape == shape and y.dtype == dtype
        np.testing.assert_allclose(y, judged(name, given_.astype(F64), **options), rtol=0, atol=40 * tolerance)


@every_filter
def test_photographs_stay_photographs(name, rng):
    x = rng.integers(0, 256, (40, 50, 3), U8)
    y, exact = BY_SCIPY[name][0](x), judged(name, x.astype(F64))
    signed = name in ("sobel 0", "sobel 1", "prewitt 0", "prewitt 1", "laplacian", "laplacian of eight")
    assert y.shape == x.shape and y.dtype == (F32 if signed else U8)
    if signed:
        np.testing.assert_allclose(y, exact, rtol=0, atol=1e-3)
    else:
        # halves may be rounded either way
        assert np.abs(y - np.clip(exact, 0, 255)).max() <= 0.501


@every_filter
@pytest.mark.parametrize("dtype", (U8, np.int16, np.uint64, F32))
def test_even_areas_have_no_edges_and_stay_as_they_are_else(name, dtype):
    x = np.full((12, 14), 100, dtype)
    flat = name.split()[0] in ("sobel", "prewitt", "laplacian", "laplacian of eight")
    np.testing.assert_allclose(BY_SCIPY[name][0](x), 0 if flat else 100, atol=1e-4)


@pytest.mark.parametrize("axis", (0, 1))
def test_edges_are_fractions_of_what_ndimage_calls_them(axis, rng):
    x = rng.standard_normal((30, 40))
    np.testing.assert_allclose(4 * filters.sobel(x, axis), ndimage.sobel(x, axis), atol=1e-12)
    np.testing.assert_allclose(3 * filters.prewitt(x, axis), ndimage.prewitt(x, axis), atol=1e-12)


def test_the_strength_of_edges_stays_within_the_range_of_the_picture():
    x = np.zeros((20, 20), U8)
    x[10:, 10:] = 255
    y = filters.sobel(x)
    assert y.dtype == U8 and 128 < y.max() <= 255
    assert filters.sobel(x, 0).max() == 255  # a step from black to white


def test_integers_end_at_their_limits():
    x = np.zeros((9, 9), U8)
    x[4, 4] = 255
    y = filters.sharpen(x)
    assert y[4, 4] == 255 and y[3, 4] == 0
    large = np.full((4, 4), np.iinfo(np.int64).max)
    assert (filters.box(large) >= 2**63 - 2048).all()


def test_a_wide_blur_is_two_passes(monkeypatch, rng):
    from numbaconv.signals import direct

    ways = []
    original = direct._ways
    monkeypatch.setattr(direct, "_ways", lambda *arguments: ways.append(original(*arguments)) or ways[-1])
    x = rng.standard_normal((400, 500)).astype(F32)
    np.testing.assert_allclose(filters.gaussian(x, 5), ndimage.gaussian_filter(x, 5), atol=1e-5)
    assert [len(way) for way in ways] == [2]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: filters.sobel(np.ones(5)), nc.ShapeError, r"image has shape \(5,\)"),
        (lambda: filters.box(np.ones((0, 4))), nc.ShapeError, r"image has shape \(0, 4\)"),
        (lambda: filters.gaussian(np.ones((4, 4), complex)), nc.DTypeError, r"image has dtype complex128"),
        (lambda: filters.laplacian(np.ones((4, 4), bool)), nc.DTypeError, r"image has dtype bool"),
        (lambda: filters.sobel(np.ones((4, 4)), 2), nc.ConvError, r"axis=2"),
        (lambda: filters.sobel(np.ones((4, 4)), mode="symm"), nc.ConvError, r"mode='symm'.*'reflect'"),
        (lambda: filters.emboss(np.ones((4, 4)), mode="constant", cval=np.nan), nc.ConvError, r"cval=nan"),
        (lambda: filters.gaussian(np.ones((4, 4)), 0), nc.ConvError, r"sigma=0 must be above 0"),
        (lambda: filters.gaussian(np.ones((4, 4)), (1, 2, 3)), nc.ConvError, r"sigma=\(1, 2, 3\)"),
        (lambda: filters.gaussian(np.ones((4, 4)), truncate=-1), nc.ConvError, r"truncate=-1"),
        (lambda: filters.box(np.ones((4, 4)), 0), nc.ConvError, r"size=0"),
        (lambda: filters.box(np.ones((4, 4)), 2.5), nc.ConvError, r"size=2.5"),
        (lambda: filters.sharpen(np.ones((4, 4)), "much"), nc.ConvError, r"amount='much'"),
    ],
)
def test_what_no_filter_can_mean_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
