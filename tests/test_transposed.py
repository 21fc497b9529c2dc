"""Transposed convolution: against its definition as a scatter, as the adjoint of the convolution, and against PyTorch."""

import dataclasses
import functools
import pickle
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numbaconv as nc
from numbaconv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from numbaconv.accuracy import Accuracy
from numbaconv.codegen.halves import halves_of
from numbaconv.dispatch import select
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.machine import machine
from numbaconv.problem import LAYOUTS
from numbaconv.reference import reference_conv
from numbaconv.transposed import subpixel
from numbaconv.transposed.weights import TransposedWeights

RNG = np.random.default_rng(3)
#: This machine, and one whose caches hold next to nothing, so that small images are cut into many blocks.
REAL = machine()
TINY = dataclasses.replace(REAL, l2=1 << 12)
LAYERS = ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
FUNCTIONS = nc.conv_transpose1d, nc.conv_transpose2d, nc.conv_transpose3d
#: Sums of products, whatever becomes of NaN and infinity.
DIRECT = Accuracy(0.0)
WAYS = "ordinary", "phases", "overlap_add", "separate", "gather"


def integers(shape, dtype=np.float32):
    """Small whole numbers, whose sums are exact in any order."""
    return RNG.integers(-4, 5, shape).astype(dtype)


def scatter(x, weight, bias, stride, padding, output_padding, groups, dilation):
    """Every input element adds its multiple of the kernel to the output; then the borders are cut off.  Channels first."""
    n, c_in, *spatial = x.shape
    _, c_out, *kernel = weight.shape
    extents = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    full = np.zeros(
        (n, groups * c_out, *((i - 1) * s + e + o for i, s, e, o in zip(spatial, stride, extents, output_padding)))
    )
    for group in range(groups):
        inputs = slice(group * (c_in // groups), (group + 1) * (c_in // groups))
        target = full[:, group * c_out : (group + 1) * c_out]
        for tap in np.ndindex(*kernel):
            met = (slice(k * d, k * d + (i - 1) * s + 1, s) for k, d, i, s in zip(tap, dilation, spatial, stride))
            products = np.einsum("nc...,co->no...", x[:, inputs], weight[(inputs, slice(None), *tap)])
            target[(slice(None), slice(None), *met)] += products
    kept = (slice(before, size - after) for (before, after), size in zip(padding, full.shape[2:]))
    full = full[(slice(None), slice(None), *kept)]
    return (full if bias is None else full + bias.reshape(-1, *(1,) * len(kernel))).astype(x.dtype)


def to_layout(array, layout):
    return array if layout == "channels_first" else np.ascontiguousarray(np.moveaxis(array, 1, -1))


def from_layout(array, layout):
    return array if layout == "channels_first" else np.moveaxis(array, -1, 1)


@st.composite
def geometries(draw, axes=None):
    """Arguments of `scatter` behind the arrays, and the shapes of x and weight."""
    axes = axes or draw(st.sampled_from((1, 2, 2, 3)))

    def sizes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    groups = draw(st.sampled_from((1, 1, 2, 3)))
    c_in, c_out = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    kernel, stride, dilation = sizes(1, 5 if axes < 3 else 3), sizes(1, draw(st.sampled_from((1, 4)))), sizes(1, 3)
    output_padding = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
    spatial = sizes(1, (40, 9, 5)[axes - 1])
    padding = []
    for size, s, k, d, o in zip(spatial, stride, kernel, dilation, output_padding):
        most = (size - 1) * s + d * (k - 1) + o
        before = draw(st.integers(0, min(most, 9)))
        padding.append((before, draw(st.integers(0, min(most - before, 9)))))
    shapes = (draw(st.integers(0, 2)), c_in * groups, *spatial), (c_in * groups, c_out, *kernel)
    return shapes, (stride, tuple(padding), output_padding, groups, dilation)


@settings(max_examples=200, deadline=None)
@given(
    geometries(),
    st.sampled_from(LAYOUTS),
    st.sampled_from((np.float32, np.float64)),
    st.booleans(),
    st.booleans(),
    st.sampled_from((None, "relu", ("leaky_relu", 0.25))),
    st.booleans(),
)
def test_every_input_element_adds_its_multiple_of_the_kernel(geometry, layout, dtype, bias, residual, activation, tiny):
    (x_shape, weight_shape), arguments = geometry
    x, weight = integers(x_shape, dtype), integers(weight_shape, dtype)
    bias = integers(weight_shape[1] * arguments[-2], dtype) if bias else None
    expected = scatter(x, weight, bias, *arguments)
    added = integers(expected.shape, dtype) if residual else None
    expected = Activation.of(activation).apply(expected if added is None else expected + added)
    call = {"residual": None if added is None else to_layout(added, layout)}
    make = functools.partial(
        LAYERS[x.ndim - 3], weight, bias, *arguments, layout=layout, activation=activation, accuracy=DIRECT
    )
    with mock.patch.object(select, "calibrated_machine", lambda: TINY if tiny else REAL):
        done = [
            row.algorithm
            for row in make()
            .explain(x.shape if layout == "channels_first" else to_layout(x, layout).shape, residual)
            .rows
            if row.reason is None
        ]
        assert "phases" in done
        for algorithm in done:
            y = make(algorithm=algorithm)(to_layout(x, layout), **call)
            assert y.dtype == dtype
            np.testing.assert_array_equal(from_layout(y, layout), expected, err_msg=algorithm)


@settings(max_examples=60, deadline=None)
@given(geometries())
def test_it_is_the_adjoint_of_the_convolution(geometry):
    (y_shape, weight_shape), (stride, padding, _, groups, dilation) = geometry
    y, weight = integers(y_shape, np.float64), integers(weight_shape, np.float64)
    back = LAYERS[y.ndim - 3](weight, None, stride, padding, 0, groups, dilation)
    try:
        image = back(y)
    except nc.ShapeError:  # only the output padding left an element
        return
    x = integers(image.shape, np.float64)
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "dtype": "f64"}
    convolved = reference_conv(nc.ConvProblem.of(x.shape, weight.shape, **window), x, weight)
    assert (convolved * y).sum() == (x * image).sum()


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize(
    "x_shape, weight_shape, stride, padding, dilation",
    [
        ((1, 24, 40, 160), (24, 24, 2, 2), (2, 2), (0, 0), (1, 1)),
        ((1, 24, 40, 320), (24, 1, 2, 2), (2, 2), (0, 0), (1, 1)),
        ((2, 16, 33, 20), (16, 8, 4, 4), (2, 2), (1, 1), (1, 1)),
        ((1, 64, 1, 30000), (64, 3, 1, 16), (1, 8), (0, 4), (1, 1)),
        ((1, 3, 50, 60), (3, 5, 3, 3), (1, 1), (0, 0), (12, 12)),
        ((1, 130, 6, 7), (130, 70, 3, 2), (3, 7), (0, 1), (1, 1)),
        ((1, 2, 3, 2), (2, 2, 1, 1), (1, 3000), (0, 0), (1, 1)),
    ],
)
def test_shapes_of_real_layers_that_take_several_blocks(x_shape, weight_shape, stride, padding, dilation, layout):
    x, weight, bias = integers(x_shape), integers(weight_shape), integers(weight_shape[1])
    pairs = tuple((p, p) for p in padding)
    expected = scatter(x, weight, bias, stride, pairs, (0, 0), 1, dilation)
    for algorithm in ("phases", "overlap_add"):
        layer = ConvTranspose2d(weight, bias, stride, padding, 0, 1, dilation, layout=layout, algorithm=algorithm)
        np.testing.assert_array_equal(from_layout(layer(to_layout(x, layout)), layout), expected, err_msg=algorithm)


def test_outputs_of_a_single_element_read_no_weights_but_their_own():
    weight, x = integers((5, 40, 4, 4)), integers((1, 5, 1, 1))
    layer = ConvTranspose2d(weight, None, algorithm="phases", layout="channels_last")
    plan = layer._find((1, 1, 1, 5), False).plan
    tiles = plan._default.tables["tiles"]
    assert len(tiles) == 16 and set(tiles[:, 1]) == set(tiles[:, 4]) == {1}
    expected = scatter(x, weight, None, (1, 1), ((0, 0),) * 2, (0, 0), 1, (1, 1))
    np.testing.assert_array_equal(from_layout(layer(to_layout(x, "channels_last")), "channels_last"), expected)


@settings(max_examples=40, deadline=None)
@given(geometries())
def test_torch_agrees(geometry):
    torch = pytest.importorskip("torch")
    (x_shape, weight_shape), (stride, padding, output_padding, groups, dilation) = geometry
    padding = tuple(min(pair) for pair in padding)
    x, weight = integers(x_shape), integers(weight_shape)
    bias = integers(weight_shape[1] * groups)
    arguments = stride, padding, output_padding, groups, dilation
    name = f"conv_transpose{x.ndim - 2}d"
    theirs = getattr(torch.nn.functional, name)(*map(torch.from_numpy, (x, weight, bias)), *arguments)
    np.testing.assert_array_equal(getattr(nc, name)(x, weight, bias, *arguments), theirs.numpy())


@pytest.mark.parametrize("activation", ["relu6", "silu", "hardswish", "sigmoid", "tanh", "gelu", ("clip", -1.0, 2.0)])
def test_activations_ride_in_the_sums(activation):
    x, weight = RNG.standard_normal((1, 5, 6, 7)), RNG.standard_normal((5, 3, 3, 3))
    plain = ConvTranspose2d(weight, None, 2)(x)
    y = ConvTranspose2d(weight, None, 2, activation=activation)(x)
    np.testing.assert_allclose(y, Activation.of(activation).apply(plain), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("algorithm", WAYS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_neither_threads_nor_batch_nor_blocks_change_a_bit(layout, algorithm, monkeypatch):
    x = RNG.standard_normal((3, 20, 13, 17)).astype(np.float32)
    weight = RNG.standard_normal((20, 7, 5, 4)).astype(np.float32)
    stride, groups = 1 if algorithm == "ordinary" else 2, 4 if algorithm == "separate" else 1
    make = functools.partial(
        ConvTranspose2d, weight, None, stride, 1, stride - 1, groups, (2, 1), algorithm=algorithm, accuracy=DIRECT
    )
    with nc.num_threads(1):
        expected = make()(x)
    # where not even a panel of weights fits the L2, ordinary convolution takes another algorithm
    small = dataclasses.replace(REAL, l2=52 << 10) if algorithm == "ordinary" else TINY
    for on in (REAL, small):
        monkeypatch.setattr(select, "calibrated_machine", lambda on=on: on)
        layer = make(layout=layout)
        for threads in (1, 2):
            with nc.num_threads(threads):
                np.testing.assert_array_equal(from_layout(layer(to_layout(x, layout)), layout), expected)
                np.testing.assert_array_equal(from_layout(layer(to_layout(x[1:2], layout)), layout), expected[1:2])


@pytest.mark.parametrize(
    "x_shape, weight_shape, products",
    [
        ((1, 64, 5, 7), (64, 32, 2, 2), 1),
        ((2, 32, 4, 9), (32, 16, 2, 6), 1),
        ((2, 32, 3, 5), (32, 16, 3, 2), 3),
        ((3, 32, 1, 1), (32, 32, 1, 3), 1),
        ((2, 96, 11), (96, 32, 4), 1),
        ((2, 32, 3, 4, 5), (32, 16, 2, 2, 2), 2),
        ((1, 32, 2, 3, 3), (32, 32, 1, 2, 1), 1),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_blocks_of_the_kernels_size_are_one_product_each(x_shape, weight_shape, products, layout, dtype, monkeypatch):
    """Strassen's, which is exact on whole numbers; its bits depend neither on threads nor on the batch nor on blocks."""
    x, weight = integers(x_shape, dtype), integers(weight_shape, dtype)
    bias, stride, none = integers(weight_shape[1], dtype), weight_shape[2:], (0,) * (x.ndim - 2)
    make = functools.partial(LAYERS[x.ndim - 3], layout=layout, algorithm="subpixel", accuracy=1e-3)
    arguments = stride, tuple((0, 0) for _ in none), none, 1, (1,) * len(none)
    plain = scatter(x, weight, bias, *arguments)
    residual = integers(plain.shape, dtype)
    for on in (REAL, TINY):
        monkeypatch.setattr(select, "calibrated_machine", lambda on=on: on)
        layer, clipped = make(weight, bias, stride), make(weight, bias, stride, activation="relu")
        assert len(subpixel._parts(layer.problem(to_layout(x, layout).shape))) == products
        for threads in (1, 2):
            with nc.num_threads(threads):
                np.testing.assert_array_equal(from_layout(layer(to_layout(x, layout)), layout), plain)
                y = clipped(to_layout(x, layout), residual=to_layout(residual, layout))
                np.testing.assert_array_equal(from_layout(y, layout), np.maximum(plain + residual, 0))
        rough = RNG.standard_normal(x.shape).astype(dtype)
        every, last = (from_layout(layer(to_layout(part, layout)), layout) for part in (rough, rough[-1:]))
        assert every[-1:].tobytes() == last.tobytes()


@pytest.mark.parametrize(
    "weight_shape, stride, options, reason",
    (
        ((64, 32, 2, 2), 2, {"padding": 1}, "not blocks of the kernel's size"),
        ((64, 32, 2, 2), 3, {}, "not blocks of the kernel's size"),
        ((64, 32, 2, 2), 2, {"output_padding": 1}, "not blocks of the kernel's size"),
        ((64, 32, 2, 2), 2, {"dilation": 2}, "not blocks of the kernel's size"),
        ((64, 32, 2, 2), 2, {"groups": 2}, "groups"),
        ((64, 32, 5, 2), (5, 2), {}, "more than 4 products"),
        ((64, 3, 2, 2), 2, {}, "not whole vectors"),
        ((64, 32, 2, 2), 2, {"accuracy": "strict"}, "spreads NaN"),
    ),
)
def test_products_of_blocks_say_why_not(weight_shape, stride, options, reason):
    layer = ConvTranspose2d(np.ones(weight_shape, np.float32), None, stride, layout="channels_last", **options)
    (row,) = (row for row in layer.explain((1, 9, 9, 64)).rows if row.algorithm == "subpixel")
    assert reason in row.reason


def test_new_weights_reach_every_product():
    weight, other = (integers((32, 16, 3, 2)) for _ in range(2))
    weights = TransposedWeights(weight, integers((16,)), 1)
    layer = ConvTranspose2d(weight, None, (3, 2), layout="channels_last")
    p = dataclasses.replace(layer.problem((1, 4, 5, 32)), bias=True)
    plan = subpixel.Subpixel(Accuracy(1e-3)).plan(p, weights, Epilogue(True), REAL)
    x, y = integers((1, 4, 5, 32)), np.empty(p.output_shape, np.float32)
    for now in (weight, other):
        weights.replace(now)
        plan.run(x, y, None)
        expected = scatter(from_layout(x, p.layout), now, weights.bias, p.stride, p.padding, (0, 0), 1, (1, 1))
        np.testing.assert_array_equal(from_layout(y, p.layout), expected)


@pytest.mark.parametrize(
    "x_shape, weight_shape, stride, padding",
    [
        ((2, 20, 9, 11), (20, 35, 4, 5), 2, (1, 2)),
        ((2, 16, 7, 6), (16, 32, 6, 6), 3, ((0, 4), (7, 1))),
        ((1, 24, 80), (24, 16, 16), 8, 4),
        ((2, 8, 300), (8, 8, 60), 2, 3),
        ((2, 8, 5, 6, 7), (8, 20, 3, 4, 5), 2, (1, 0, 2)),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_remainder_may_be_transformed(x_shape, weight_shape, stride, padding, layout):
    x, weight = (RNG.standard_normal(shape) for shape in (x_shape, weight_shape))
    make = functools.partial(LAYERS[x.ndim - 3], weight, integers(weight_shape[1], np.float64), stride, padding)
    residual = RNG.standard_normal(make().output_shape(x_shape))
    call = {"residual": to_layout(residual, layout)}
    made = make(layout=layout, activation="relu", algorithm="separate", accuracy=1e-4)
    assert "winograd" in str(made.explain(to_layout(x, layout).shape))
    expected = make(activation="relu", algorithm="phases")(x, residual=residual)
    y = from_layout(made(to_layout(x, layout), **call), layout)
    np.testing.assert_allclose(y, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.skipif(halves_of(machine()) is None, reason="the machine has no matrix tiles")
@pytest.mark.parametrize(
    "x_shape, weight_shape, stride, padding",
    [
        ((2, 64, 9, 11), (64, 70, 3, 3), 2, 1),
        # remainders whose kernels start inside of the input
        ((2, 40, 9, 11), (40, 70, 5, 6), (2, 3), ((4, 0), (5, 1))),
        ((2, 64, 60), (64, 40, 9), 3, ((4, 2),)),
        ((1, 40, 4, 5, 6), (40, 40, 3, 3, 3), 2, 1),
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_remainder_may_run_on_matrix_tiles(x_shape, weight_shape, stride, padding, layout):
    x, weight, bias = 100 * integers(x_shape), integers(weight_shape), integers(weight_shape[1])
    make = functools.partial(LAYERS[x.ndim - 3], weight, bias, stride, padding, activation="relu")
    residual = integers(make().output_shape(x_shape))
    made = make(layout=layout, algorithm="separate", accuracy=1e-5)
    assert f"separate {halves_of(machine()).name}x3" in str(made.explain(to_layout(x, layout).shape))
    y = from_layout(made(to_layout(x, layout), residual=to_layout(residual, layout)), layout)
    np.testing.assert_array_equal(y, make(algorithm="phases")(x, residual=residual))


def test_a_missing_number_stays_where_its_taps_reach():
    x, weight = np.ones((1, 1, 5, 5), np.float32), np.ones((1, 1, 2, 2), np.float32)
    x[0, 0, 2, 3] = np.nan
    y = ConvTranspose2d(weight, None, 2, activation="relu")(x)
    assert np.isnan(y[0, 0, 4:6, 6:8]).all() and np.isnan(y).sum() == 4


def test_batches_may_be_empty_or_left_out():
    layer = ConvTranspose2d(integers((3, 2, 2, 2)), None, 2)
    assert layer(integers((0, 3, 4, 5))).shape == (0, 2, 8, 10)
    x = integers((1, 3, 4, 5))
    np.testing.assert_array_equal(layer(x[0]), layer(x)[0])


def test_results_go_where_they_are_asked_for():
    layer = ConvTranspose2d(integers((3, 2, 3, 3)), None, 2)
    x = integers((2, 3, 4, 5))
    expected = layer(x)
    out = np.full(expected.shape, np.nan, np.float32)
    assert layer(x, out=out) is out
    np.testing.assert_array_equal(out, expected)
    wide = np.full((*expected.shape[:3], 2 * expected.shape[3]), np.nan, np.float32)
    layer(x, out=wide[..., ::2])
    np.testing.assert_array_equal(wide[..., ::2], expected)
    assert np.isnan(wide[..., 1::2]).all()


def test_inputs_of_any_stride_and_byte_order_are_taken():
    layer = ConvTranspose2d(integers((3, 2, 3, 3)), None, 2)
    x = integers((2, 3, 4, 5))
    for same in (np.asfortranarray(x), x.astype(">f4"), np.repeat(x, 2, axis=3)[..., ::2]):
        np.testing.assert_array_equal(layer(same), layer(x))


def test_a_layer_survives_pickling():
    layer = ConvTranspose2d(
        integers((6, 2, 3, 2)), integers(4), (2, 3), 1, 1, 2, 2, activation="relu", algorithm="phases"
    )
    x = integers((1, 6, 5, 4))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(layer))(x), layer(x))


WEIGHT = np.ones((4, 2, 3, 3), np.float32)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"weight": WEIGHT[0]}, r"4 axes: \(c_in, c_out / groups, k_h, k_w\)"),
        ({"weight": WEIGHT[:, :0]}, r"no axis may be empty"),
        ({"stride": 0}, r"stride=0 .* at least 1"),
        ({"stride": (1, 2, 3)}, r"stride"),
        ({"dilation": 1.5}, r"dilation=1.5"),
        ({"padding": -1}, r"padding=-1"),
        ({"padding": "same"}, r"padding='same' is a word"),
        ({"output_padding": 2, "stride": 2}, r"output_padding=2 .* stride=2 and dilation=1"),
        ({"output_padding": (0, 1)}, r"output_padding=1 on axis 1"),
        ({"output_padding": -1}, r"output_padding=-1"),
        ({"output_padding": 0.5}, r"output_padding=0.5"),
        ({"output_padding": (0, 0, 0)}, r"3 entries"),
        ({"groups": 3}, r"groups=3 does not divide c_in=4"),
        ({"groups": 0}, r"groups=0"),
        ({"groups": True}, r"groups=True"),
        ({"bias": np.ones(3, np.float32)}, r"bias has shape \(3,\).*\(2,\)"),
        ({"bias": np.ones(2, np.float32), "groups": 2}, r"bias has shape \(2,\).*\(4,\)"),
        ({"layout": "nchw"}, r"layout='nchw'"),
    ],
)
def test_arguments_that_break_a_rule_are_named(arguments, message):
    with pytest.raises(nc.ShapeError, match=message):
        ConvTranspose2d(**({"weight": WEIGHT} | arguments))


@pytest.mark.parametrize(
    "shape, arguments, message",
    [
        ((1, 3, 5, 5), {}, r"x has 3 channels, but weight has c_in=4"),
        ((4, 5), {}, r"x has shape \(4, 5\)"),
        ((1, 4, 0, 5), {}, r"only the batch may be empty"),
        ((1, 4, 1, 1), {"padding": (1, 2)}, r"x has 1 elements on axis 1.*output of -1"),
        ((1, 4, 2, 2), {"stride": 2**31 - 1, "dilation": 2**31 - 1}, r"2\*\*63"),
    ],
)
def test_inputs_that_break_a_rule_are_named(shape, arguments, message):
    with pytest.raises(nc.ShapeError, match=message):
        ConvTranspose2d(WEIGHT, **arguments)(np.ones(shape, np.float32))


@pytest.mark.parametrize(
    "algorithm, message",
    [
        ("auto", "ordinary: the stride is not 1; phases: more than 4096 remainders"),
        ("phases", "cannot do transposed .* more than 4096 remainders"),
        ("overlap_add", "twice the output's width"),
    ],
)
def test_a_stride_far_beyond_the_result_is_refused(algorithm, message):
    layer = ConvTranspose2d(WEIGHT, None, (1, 2**30), ((0, 0), (2**29 - 9000, 2**29 - 9000)), algorithm=algorithm)
    with pytest.raises(nc.UnsupportedError, match=message):
        layer(np.ones((1, 4, 2, 2), np.float32))


def test_a_result_too_large_to_be_listed_is_added_up():
    layer = ConvTranspose2d(np.ones((1, 1, 1, 1), np.float32), None, 4000, layout="channels_last")
    rows = {row.algorithm: row for row in layer.explain((1, 4000, 4000, 1)).rows}
    assert "tile list" in rows["phases"].reason
    assert rows["overlap_add"].chosen


def test_the_ways_are_explained():
    explanation = ConvTranspose2d(np.ones((64, 64, 4, 4), np.float32), None, 2, 1, layout="channels_last").explain(
        (1, 64, 64, 64)
    )
    assert [row.algorithm for row in explanation.rows if row.chosen] == ["phases"]
    assert "the stride is not 1" in str(explanation)
    ordinary = ConvTranspose2d(np.ones((64, 64, 3, 3)), None, 1, 1, accuracy=2e-6).explain((1, 64, 64, 64))
    assert ordinary.rows[0].label == "ordinary winograd"


def test_a_way_that_is_unknown_is_refused():
    with pytest.raises(nc.ConvError, match="algorithm='direct' is unknown; it must be 'auto', 'ordinary'"):
        ConvTranspose2d(WEIGHT, algorithm="direct")(np.ones((1, 4, 5, 5), np.float32))


def test_element_types_are_not_mixed():
    with pytest.raises(nc.DTypeError, match="int64"):
        ConvTranspose2d(WEIGHT.astype(np.int64))
    with pytest.raises(nc.DTypeError, match="bias has dtype float64"):
        ConvTranspose2d(WEIGHT, np.ones(2))
    layer = ConvTranspose2d(WEIGHT)
    x = np.ones((1, 4, 5, 5), np.float32)
    with pytest.raises(nc.DTypeError, match="x has dtype float64"):
        layer(x.astype(np.float64))
    with pytest.raises(nc.ShapeError, match="out has shape"):
        layer(x, out=np.empty((1, 2, 5, 5), np.float32))
    with pytest.raises(nc.ConvError, match="shares memory"):
        layer(x, out=np.lib.stride_tricks.as_strided(x, (1, 2, 7, 7), (0, 4, 4, 4)))
