"""Resize-convolution equals its two steps, in all ways; pixels and channels that change places come back."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import bits, normals, whole_numbers

import numbaconv as nc
from numbaconv.resize import WAYS

LAYOUTS = ("channels_first", "channels_last")
F32 = np.float32


def along(array, axis, scale, mode):
    """One axis enlarged: the pixel that a position falls into, or both around it, in float64."""
    size = array.shape[axis]
    position = np.arange(int(size * scale))
    if mode == "nearest":
        return array.take(np.minimum(np.floor(position / scale).astype(int), size - 1), axis)
    at = np.clip((position + 0.5) / scale - 0.5, 0, size - 1)
    first = np.floor(at).astype(int)
    share = (at - first).reshape([-1 if i == axis else 1 for i in range(array.ndim)])
    return array.take(first, axis) * (1 - share) + array.take(np.minimum(first + 1, size - 1), axis) * share


def enlarged(x, scale, mode):
    """A channels-first image enlarged by definition."""
    return along(along(x.astype(np.float64), 2, scale[0], mode), 3, scale[1], mode).astype(x.dtype)


def to_layout(array, layout):
    return array if layout == "channels_first" else np.ascontiguousarray(np.moveaxis(array, 1, -1))


@st.composite
def cases(draw):
    """Arguments of `resize_conv2d` for an image of 7 x 9 whose kernel fits."""
    mode = draw(st.sampled_from(("nearest", "nearest", "bilinear")))
    # fractions of bilinear shares are powers of two
    factors = (1, 2, 3, 4, 1.5, 2.75, 0.6) if mode == "nearest" else (1, 2, 4, 0.5)
    scale = draw(st.sampled_from(factors)), draw(st.sampled_from(factors))
    kernel = tuple(draw(st.integers(1, min(5, int(size * factor)))) for size, factor in zip((7, 9), scale))
    dilation = tuple(
        draw(st.integers(1, max(1, min(3, (int(size * factor) - 1) // max(k - 1, 1)))))
        for size, factor, k in zip((7, 9), scale, kernel)
    )
    padding = tuple((draw(st.integers(0, 4)), draw(st.integers(0, 4))) for _ in range(2))
    stride = draw(st.sampled_from((1, 1, 1, 2, (3, 1))))
    groups = draw(st.sampled_from((1, 1, 2, 6)))
    return scale, stride, padding, dilation, groups, mode, kernel


@given(cases(), st.sampled_from(WAYS), st.sampled_from(LAYOUTS), st.sampled_from(("f4", "f8")), st.integers(0, 99))
@settings(max_examples=50)
def test_every_way_equals_enlarging_and_convolving_on_whole_numbers(case, way, layout, dtype, seed):
    *arguments, mode, kernel = case
    scale, stride, padding, dilation, groups = arguments
    rng = np.random.default_rng(seed)
    x, weight = whole_numbers(rng, (2, 6, 7, 9), dtype), whole_numbers(rng, (12, 6 // groups, *kernel), dtype)
    bias = whole_numbers(rng, (12,), dtype)
    call = {"layout": layout, "mode": mode, "activation": "relu", "algorithm": way}
    folds = mode == "nearest" and stride == 1 and all(factor == int(factor) for factor in scale)
    if way == "folded" and not folds:
        with pytest.raises(nc.UnsupportedError, match="not folded|stride is not 1|not a whole number"):
            nc.resize_conv2d(to_layout(x, layout), weight, bias, *arguments, **call)
        return
    y = nc.resize_conv2d(to_layout(x, layout), weight, bias, *arguments, **call)
    large = enlarged(x, scale, mode)
    judged = nc.conv2d(large, weight, bias, stride, padding, dilation, groups, activation="relu", algorithm="reference")
    np.testing.assert_array_equal(y, to_layout(judged, layout))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("scale", [2, 3, 1.5, 2.3, 0.7, (3, 1.25)])
def test_pytorch_enlarges_the_same_way(mode, scale, rng):
    torch = pytest.importorskip("torch")
    x = normals(rng, (1, 2, 11, 13), "f8")
    pair = scale if isinstance(scale, tuple) else (scale, scale)
    options = {} if mode == "nearest" else {"align_corners": False}
    judged = torch.nn.functional.interpolate(torch.from_numpy(x), scale_factor=pair, mode=mode, **options).numpy()
    delta = np.eye(2)[:, :, None, None]
    np.testing.assert_allclose(nc.resize_conv2d(x, delta, scale=scale, mode=mode), judged, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", ["sampled", "enlarged", "folded"])
def test_bits_depend_neither_on_threads_nor_on_the_batch(way, rng):
    x, weight = normals(rng, (3, 9, 10, 20), "f4"), normals(rng, (18, 20, 3, 3), "f4")
    layer = nc.ResizeConv2d(weight, scale=2, padding=1, layout="channels_last", algorithm=way)
    assert layer.plan(x.shape).algorithm == way
    with nc.num_threads(1):
        alone = layer(x)
    out = np.empty_like(alone)
    with nc.num_threads(2):
        assert layer(x, out=out) is out
    again = pickle.loads(pickle.dumps(layer))(x)
    assert bits(alone) == bits(out) == bits(again) and bits(layer(x[2])) == bits(alone[2])


@pytest.mark.parametrize("way", ["sampled", "enlarged", "folded"])
@pytest.mark.parametrize(("scale", "k", "padding"), [(2, 3, 1), (3, 1, 0), (3, 2, 0), (2, 4, (0, 3))])
def test_a_nan_stays_where_its_pixel_goes(way, scale, k, padding, rng):
    x, weight = whole_numbers(rng, (1, 3, 7, 8), "f4"), whole_numbers(rng, (2, 3, k, k), "f4")
    padding = ((padding, padding) if isinstance(padding, int) else padding,) * 2
    for at in ((3, 4), (0, 7), (6, 0)):
        holed = x.copy()
        holed[0, 1][at] = np.nan
        y = nc.resize_conv2d(holed, weight, scale=scale, padding=padding, algorithm=way)
        judged = nc.conv2d(enlarged(holed, (scale, scale), "nearest"), weight, padding=padding, algorithm="reference")
        np.testing.assert_array_equal(y, judged)


def test_an_empty_batch_stays_empty():
    weight = np.ones((3, 4, 3, 3), F32)
    for way in WAYS:
        assert nc.resize_conv2d(np.ones((0, 4, 5, 5), F32), weight, algorithm=way).shape == (0, 3, 8, 8)


X, WEIGHT = np.ones((2, 6, 7, 8), F32), np.ones((4, 6, 3, 3), F32)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": X[:, :5]}, nc.ShapeError, r"x has 5 channels"),
        ({"x": X[0, 0]}, nc.ShapeError, r"x has shape \(7, 8\)"),
        ({"x": X.astype("f8")}, nc.DTypeError, r"weight has dtype float32"),
        ({"weight": WEIGHT[0]}, nc.ShapeError, r"weight has shape"),
        ({"bias": np.ones(3, F32)}, nc.ShapeError, r"bias has shape"),
        ({"scale": 0}, nc.ConvError, r"scale=0 must be made of numbers above 0"),
        ({"scale": -2}, nc.ConvError, r"scale=-2"),
        ({"scale": np.nan}, nc.ConvError, r"scale=nan"),
        ({"scale": np.inf}, nc.ConvError, r"scale=inf"),
        ({"scale": 1e300}, nc.ConvError, r"scale=1e\+300"),
        ({"scale": "2"}, nc.ConvError, r"scale='2'"),
        ({"scale": True}, nc.ConvError, r"scale=True"),
        ({"scale": (2, 2, 2)}, nc.ShapeError, r"scale=.* has 3 entries"),
        ({"scale": 0.1}, nc.ShapeError, r"spatial=0"),
        ({"scale": 0.3}, nc.ShapeError, r"kernel=3"),
        ({"mode": "cubic"}, nc.ConvError, r"mode='cubic' is unknown"),
        ({"algorithm": "both"}, nc.ConvError, r"algorithm='both' is unknown"),
        ({"groups": 4}, nc.ShapeError, r"groups=4"),
        ({"stride": 0}, nc.ShapeError, r"stride=0"),
        ({"layout": "NHWC"}, nc.ShapeError, r"layout='NHWC'"),
        ({"activation": "swash"}, nc.ConvError, r"activation='swash'"),
        ({"out": X}, nc.ShapeError, r"out has shape"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        nc.resize_conv2d(**({"x": X, "weight": WEIGHT} | change))


def test_a_residual_is_refused():
    with pytest.raises(nc.UnsupportedError, match="residual"):
        nc.ResizeConv2d(WEIGHT, padding=1)(X, residual=np.ones((2, 4, 14, 16), F32))


# --- pixels and channels that change places ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pixels_are_where_the_definition_puts_them(layout, factor):
    x = np.arange(2 * 5 * factor**2 * 3 * 4).reshape(2, 5 * factor**2, 3, 4)
    y = nc.pixel_shuffle(to_layout(x, layout), factor, layout=layout)
    last = np.moveaxis(x, 1, -1)
    judged = np.zeros((2, 5, 3 * factor, 4 * factor), x.dtype)
    for c, a, b in np.ndindex(5, factor, factor):
        judged[:, c, a::factor, b::factor] = last[..., (c * factor + a) * factor + b]
    np.testing.assert_array_equal(y, to_layout(judged, layout))
    np.testing.assert_array_equal(nc.pixel_unshuffle(y, factor, layout=layout), to_layout(x, layout))
    np.testing.assert_array_equal(nc.pixel_shuffle(to_layout(x, layout)[0], factor, layout=layout), y[0])
    assert y.flags.c_contiguous


def test_pytorch_shuffles_alike(rng):
    torch = pytest.importorskip("torch")
    x = normals(rng, (2, 12, 4, 6), "f4")
    tensor = torch.from_numpy(x)
    np.testing.assert_array_equal(nc.pixel_shuffle(x, 2), torch.nn.functional.pixel_shuffle(tensor, 2))
    np.testing.assert_array_equal(nc.pixel_unshuffle(x, 2), torch.nn.functional.pixel_unshuffle(tensor, 2))
    np.testing.assert_array_equal(nc.channel_shuffle(x, 3), torch.nn.functional.channel_shuffle(tensor, 3))


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_shuffled_channels_come_back_and_lie_alike_in_both_layouts(groups, rng):
    x = normals(rng, (2, 6, 3, 5), "f8")
    y = nc.channel_shuffle(x, groups)
    np.testing.assert_array_equal(nc.channel_shuffle(y, 6 // groups), x)
    last = nc.channel_shuffle(to_layout(x, "channels_last"), groups, layout="channels_last")
    np.testing.assert_array_equal(last, to_layout(y, "channels_last"))


def test_a_sub_pixel_convolution_equals_a_nearest_resize_with_repeated_kernels(rng):
    """A convolution with the same kernel for all phases, shuffled, is the image convolved and then enlarged."""
    x, weight = whole_numbers(rng, (1, 4, 6, 6), "f4"), whole_numbers(rng, (3, 4, 3, 3), "f4")
    y = nc.pixel_shuffle(nc.conv2d(x, np.repeat(weight, 4, 0), padding=1), 2)
    small = nc.conv2d(x, weight, padding=1)
    np.testing.assert_array_equal(y, nc.resize_conv2d(small, np.eye(3, dtype="f4")[:, :, None, None]))


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (nc.pixel_shuffle, (np.ones((1, 6, 3, 3)), 2), r"6 channels; factor\*\*2=4 must divide them"),
        (nc.pixel_shuffle, (np.ones((1, 8, 3, 3)), 0), r"factor=0"),
        (nc.pixel_shuffle, (np.ones((1, 8, 3, 3)), 2.0), r"factor=2\.0 is a float"),
        (nc.pixel_shuffle, (np.ones((8, 3)), 2), r"x has shape \(8, 3\)"),
        (nc.pixel_unshuffle, (np.ones((1, 2, 3, 4)), 2), r"3 rows; factor=2"),
        (nc.pixel_unshuffle, (np.ones((1, 2, 4, 3)), 2), r"3 columns; factor=2"),
        (nc.channel_shuffle, (np.ones((1, 6, 3, 3)), 4), r"6 channels; groups=4"),
        (nc.channel_shuffle, (np.ones((6, 3)), 2), r"x has shape \(6, 3\)"),
        (nc.channel_shuffle, (np.ones((1, 6, 3)), True), r"groups=True is a bool"),
    ],
)
def test_what_cannot_change_places_is_refused(function, arguments, message):
    with pytest.raises(nc.ShapeError, match=message):
        function(*arguments)
    with pytest.raises(nc.ShapeError, match="layout='NHWC'"):
        function(*arguments, layout="NHWC")
