"""Gradients: against PyTorch's, as adjoints of the convolution, and against finite differences."""

import dataclasses
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import numbaconv as nc
from numbaconv.algorithms import REPACKED
from numbaconv.backward import run
from numbaconv.backward.lanewise import LanewiseProducts
from numbaconv.backward.products import Products
from numbaconv.backward.run import products_of
from numbaconv.machine import machine
from numbaconv.problem import LAYOUTS
from numbaconv.reference import reference_conv
from numbaconv.transposed import ordinary

RNG = np.random.default_rng(4)
REAL = machine()
TINY = dataclasses.replace(REAL, l2=1 << 12)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Results do not depend on threads, and PyTorch has a pool of its own."""
    with nc.num_threads(1):
        yield


@pytest.fixture(autouse=True)
def exact_sums():
    """Sums of products alone, which whole numbers make exact."""
    before = nc.get_accuracy()
    nc.set_accuracy("strict")
    yield
    nc.set_accuracy(before)


def integers(shape, dtype=np.float64):
    """Small whole numbers, whose sums are exact in any order."""
    return RNG.integers(-3, 4, shape).astype(dtype)


def to_layout(array, layout):
    return array if layout == "channels_first" else np.ascontiguousarray(np.moveaxis(array, 1, -1))


def from_layout(array, layout):
    return array if layout == "channels_first" else np.moveaxis(array, -1, 1)


@st.composite
def convolutions(draw):
    """Shapes of x and weight and a window, channels-first."""
    axes = draw(st.sampled_from((1, 2, 2, 3)))

    def sizes(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(axes))

    plain = draw(st.sampled_from((False, False, False, True)))
    kernel, stride, dilation = (
        (1,) * axes if plain else sizes(1, 5 if axes < 3 else 3),
        sizes(1, 1 if plain else 3),
        sizes(1, 2),
    )
    padding = tuple(
        (draw(st.integers(0, 0 if plain else 3)), draw(st.integers(0, 0 if plain else 3))) for _ in range(axes)
    )
    spatial = tuple(
        max(1, d * (k - 1) + 1 - sum(ends)) + draw(st.integers(0, (500, 20, 5)[axes - 1]))
        for k, d, ends in zip(kernel, dilation, padding)
    )
    groups = draw(st.sampled_from((1, 1, 2, 3, 8, 20)))
    c_in, c_out = draw(st.integers(1, 30 // groups)), draw(st.integers(1, 80 // groups))
    x_shape = draw(st.integers(0, 3)), groups * c_in, *spatial
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return x_shape, (groups * c_out, c_in, *kernel), window


def torch_gradients(x, weight, grad_output, window, function, **more):
    """PyTorch's gradients; paddings are taken to be symmetric."""
    torch = pytest.importorskip("torch")
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, weight)]
    bias = torch.zeros(grad_output.shape[1], dtype=tensors[0].dtype, requires_grad=True)
    padding = tuple(before for before, _ in window["padding"])
    result = getattr(torch.nn.functional, function)(*tensors, bias, **(window | {"padding": padding}), **more)
    result.backward(torch.from_numpy(grad_output))
    return [tensor.grad.numpy() for tensor in (*tensors, bias)]


def symmetric(window):
    return window | {"padding": tuple((min(ends),) * 2 for ends in window["padding"])}


@settings(max_examples=60, deadline=None)
@given(convolutions(), st.sampled_from(LAYOUTS), st.sampled_from((np.float32, np.float64)), st.booleans())
def test_torch_has_the_same_gradients(convolution, layout, dtype, tiny):
    x_shape, weight_shape, window = convolution
    window = symmetric(window)
    try:
        out_shape = nc.ConvProblem.of(x_shape, weight_shape, **window).output_shape
    except nc.ShapeError:  # the padding that symmetry took away was needed
        return
    x, weight, grad_output = (integers(shape, dtype) for shape in (x_shape, weight_shape, out_shape))
    expected = torch_gradients(x, weight, grad_output, window, f"conv{len(x_shape) - 2}d")
    backward = getattr(nc, f"conv{len(x_shape) - 2}d_backward")
    with mock.patch.object(run, "machine", lambda: TINY if tiny else REAL):
        mine = backward(to_layout(grad_output, layout), to_layout(x, layout), weight, **window, layout=layout)
    for name, ours, theirs in zip(("x", "weight", "bias"), (from_layout(mine[0], layout), *mine[1:]), expected):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(convolutions(), st.sampled_from(LAYOUTS), st.data())
def test_torch_has_the_same_gradients_of_transposed_convolutions(convolution, layout, data):
    x_shape, weight_shape, window = convolution
    window = symmetric(window)
    weight_shape = (x_shape[1], weight_shape[0] // window["groups"], *weight_shape[2:])
    output_padding = tuple(
        data.draw(st.integers(0, max(s, d) - 1)) for s, d in zip(window["stride"], window["dilation"])
    )
    axes = len(x_shape) - 2
    function, backward = f"conv_transpose{axes}d", getattr(nc, f"conv_transpose{axes}d_backward")
    x, weight = integers(x_shape), integers(weight_shape)
    try:
        out_shape = getattr(nc, function)(x, weight, **window, output_padding=output_padding).shape
    except nc.ShapeError:  # nothing is left of the result
        return
    grad_output = integers(out_shape)
    expected = torch_gradients(x, weight, grad_output, window, function, output_padding=output_padding)
    mine = backward(
        to_layout(grad_output, layout), to_layout(x, layout), weight, **window, output_padding=output_padding,
        layout=layout,
    )  # fmt: skip
    for name, ours, theirs in zip(("x", "weight", "bias"), (from_layout(mine[0], layout), *mine[1:]), expected):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@settings(max_examples=40, deadline=None)
@given(convolutions())
def test_gradients_are_adjoint_to_the_convolution_in_each_operand(convolution):
    x_shape, weight_shape, window = convolution
    problem = nc.ConvProblem.of(x_shape, weight_shape, **window, dtype="f64")
    x, weight, y = (integers(shape) for shape in (x_shape, weight_shape, problem.output_shape))
    product = (reference_conv(problem, x, weight) * y).sum()
    assert (nc.grad_input(y, weight, x_shape, **window) * x).sum() == product
    assert (nc.grad_weight(y, x, weight_shape, **window) * weight).sum() == product


@pytest.mark.parametrize(
    "function, x_shape, weight_shape, window",
    [
        ("conv2d", (2, 4, 7, 6), (6, 2, 3, 2), {"stride": (2, 1), "padding": 1, "dilation": (1, 2), "groups": 2}),
        (
            "conv_transpose2d",
            (2, 4, 5, 4),
            (4, 3, 3, 2),
            {"stride": (2, 3), "padding": 1, "output_padding": 1, "groups": 2},
        ),
    ],
)
def test_finite_differences_agree(function, x_shape, weight_shape, window):
    x, weight = RNG.standard_normal(x_shape), RNG.standard_normal(weight_shape)
    convolve, backward = getattr(nc, function), getattr(nc, f"{function}_backward")
    # of half the sum of squares, whose gradient with respect to the result is the result
    result = convolve(x, weight, None, **window)
    gradients = backward(result, x, weight, **window)
    step = 1e-5
    for operand, gradient in zip((x, weight), gradients):
        for _ in range(12):
            at = tuple(RNG.integers(0, size) for size in operand.shape)
            values = []
            for change in (step, -2 * step, step):
                operand[at] += change
                values.append((convolve(x, weight, None, **window) ** 2).sum() / 2)
            assert gradient[at] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6, abs=1e-6)
    np.testing.assert_allclose(gradients[2], result.sum(axis=(0, 2, 3)), rtol=1e-12)


def test_kernels_that_are_new_in_each_call_are_transformed_on_the_way(monkeypatch):
    """By Winograd, which no budget excludes but that of exact sums."""
    winograd = tuple(algorithm for algorithm in REPACKED if algorithm.name == "winograd")
    assert winograd and all(algorithm.repacked for algorithm in REPACKED)
    monkeypatch.setattr(ordinary, "REPACKED", winograd)
    nc.set_accuracy(1e-5)
    run._adjoint_plans.cache_clear()
    for _ in range(2):
        weight, y = RNG.standard_normal((40, 24, 3, 3), np.float32), RNG.standard_normal((2, 40, 21, 18), np.float32)
        expected = nc.grad_input(y.astype(float), weight.astype(float), (2, 24, 21, 18), padding=1)
        error = nc.grad_input(y, weight, (2, 24, 21, 18), padding=1) - expected
        assert 0 < np.sqrt((error**2).mean() / (expected**2).mean()) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "weight_shape, window", [((70, 20, 3, 3), {}), ((70, 2, 3, 3), {"groups": 10}), ((20, 1, 3, 3), {"groups": 20})]
)
def test_threads_change_no_bit_of_a_gradient(layout, weight_shape, window):
    x = RNG.standard_normal((3, 20, 23, 19)).astype(np.float32)
    window = window | {"stride": 2, "padding": 1}
    y = RNG.standard_normal(nc.ConvProblem.of(x.shape, weight_shape, **window).output_shape).astype(np.float32)
    x, y = to_layout(x, layout), to_layout(y, layout)
    found = []
    for threads in (1, 2):
        with nc.num_threads(threads):
            found.append(nc.grad_weight(y, x, weight_shape, **window, layout=layout))
    np.testing.assert_array_equal(*found)


def test_a_batch_may_be_left_out():
    x, weight = integers((3, 8, 9)), integers((5, 3, 3, 3))
    y = integers((5, 6, 7))
    alone = nc.conv2d_backward(y, x, weight)
    together = nc.conv2d_backward(y[None], x[None], weight)
    assert alone[0].shape == x.shape
    for ours, theirs in zip(alone, together):
        np.testing.assert_array_equal(ours.ravel(), theirs.ravel())


def test_operands_of_any_stride_and_byte_order_are_taken():
    x, weight, y = integers((2, 3, 8, 9)), integers((5, 3, 3, 3)), integers((2, 5, 6, 7))
    expected = nc.conv2d_backward(y, x, weight)
    changed = nc.conv2d_backward(y.astype(">f8"), np.asfortranarray(x), np.repeat(weight, 2, axis=3)[..., ::2])
    for ours, theirs in zip(changed, expected):
        np.testing.assert_array_equal(ours, theirs)


def test_plans_of_weight_gradients_are_shared():
    problem = nc.ConvProblem.parse("c8h9w9o8k3p1")
    assert products_of(problem, REAL) is products_of(problem, REAL)


@pytest.mark.parametrize(
    "problem, kind",
    [
        ("c64h9w9o64k3p1g64", LanewiseProducts),
        ("c32w900o64k9g32", LanewiseProducts),
        ("c64h9w9o64k3p1g16", LanewiseProducts),
        ("c64h9w9o64k1g16", Products),
        ("c64h9w9o64k3p1", Products),
        ("c2h3000w3000o2k3g2dil1300", Products),
    ],
)
def test_narrow_groups_are_multiplied_lane_by_lane_unless_that_takes_longer_or_too_much_memory(problem, kind):
    assert isinstance(products_of(nc.ConvProblem.parse(problem), REAL), kind)


X, WEIGHT, Y = np.ones((1, 4, 6, 6), np.float32), np.ones((8, 4, 3, 3), np.float32), np.ones((1, 8, 4, 4), np.float32)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: nc.conv2d_backward(Y[:, :, 1:], X, WEIGHT), nc.ShapeError, r"grad_output has shape \(1, 8, 3, 4\)"),
        (lambda: nc.conv2d_backward(Y[0], X, WEIGHT), nc.ShapeError, r"grad_output has shape \(8, 4, 4\)"),
        (lambda: nc.conv2d_backward(Y, X[0], WEIGHT), nc.ShapeError, r"grad_output has shape \(1, 8, 4, 4\)"),
        (lambda: nc.conv2d_backward(Y, X[:, :3], WEIGHT), nc.ShapeError, "x has 3 channels"),
        (lambda: nc.conv2d_backward(Y, X, WEIGHT[0]), nc.ShapeError, "weight has shape .* 4 axes"),
        (lambda: nc.conv1d_backward(Y, X, WEIGHT), nc.ShapeError, "weight has shape .* 3 axes"),
        (lambda: nc.conv2d_backward(Y, X, WEIGHT, groups=3), nc.ShapeError, "groups=3"),
        (lambda: nc.conv2d_backward(Y, X, WEIGHT, stride=0), nc.ShapeError, "stride=0"),
        (lambda: nc.conv2d_backward(Y, X, WEIGHT, layout="nchw"), nc.ShapeError, "layout='nchw'"),
        (
            lambda: nc.conv2d_backward(Y.astype(np.float64), X, WEIGHT),
            nc.DTypeError,
            "x has dtype float32, but grad_output",
        ),
        (lambda: nc.conv2d_backward(Y, X, WEIGHT.astype(int)), nc.DTypeError, "weight has dtype int64"),
        (lambda: nc.grad_input(Y, WEIGHT, (1, 4, 7, 7)), nc.ShapeError, "grad_output has shape"),
        (lambda: nc.grad_input(Y, WEIGHT, 5), nc.ShapeError, "x_shape=5 is a int"),
        (lambda: nc.grad_input(Y, WEIGHT, (1, 4, 6.5, 6)), nc.ShapeError, "x_shape=6.5"),
        (
            lambda: nc.grad_input(Y, WEIGHT, X.shape, output_padding=1),
            nc.ShapeError,
            "for transposed convolutions only",
        ),
        (lambda: nc.grad_weight(Y, X, (8, 4)), nc.ShapeError, r"weight has shape \(8, 4\)"),
        (lambda: nc.grad_weight(Y, X, (8, 4, 0, 3)), nc.ShapeError, "weight_shape=0"),
        (lambda: nc.grad_weight(Y, X, (8, 4, 3, 3), dilation=9), nc.ShapeError, "dilation=9"),
        (
            lambda: nc.conv_transpose2d_backward(Y, X, WEIGHT[:4], stride=2, output_padding=2),
            nc.ShapeError,
            "output_padding=2",
        ),
        (lambda: nc.conv_transpose2d_backward(Y, X, WEIGHT), nc.ShapeError, "x has 4 channels, but weight has c_in=8"),
        (lambda: nc.conv_transpose2d_backward(Y, X, WEIGHT[:4]), nc.ShapeError, "grad_output has shape"),
    ],
)
def test_what_contradicts_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
