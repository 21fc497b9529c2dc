"""The oracle is judged by hand-made cases, by SciPy and by PyTorch before it judges anything."""

import numpy as np
import pytest
from scipy.signal import correlate

from numbaconv.epilogue import Activation
from numbaconv.errors import ConvError, DTypeError, ShapeError
from numbaconv.problem import ConvProblem
from numbaconv.reference import reference_conv

RNG = np.random.default_rng(1)


def integers(shape, dtype):
    """Small whole numbers, whose sums are exact in any order."""
    return RNG.integers(-4, 5, shape).astype(dtype)


def operands(problem):
    return integers(problem.input_shape, problem.np_dtype), integers(problem.weight_shape, problem.np_dtype)


def test_a_moving_sum_by_hand():
    x, weight = np.array([[[1, 2, 3, 4]]], np.float32), np.array([[[1, 10]]], np.float32)
    y = reference_conv(ConvProblem.of(x.shape, weight.shape), x, weight)
    np.testing.assert_array_equal(y, [[[21, 32, 43]]])


def test_padding_stride_and_dilation_by_hand():
    x, weight = np.array([[[1, 2, 3, 4]]], np.float64), np.array([[[1, 10]]], np.float64)
    # Padded: 0 1 2 3 4 0 0; taps two apart, every second position.
    problem = ConvProblem.of(x.shape, weight.shape, stride=2, padding=((1, 2),), dilation=2, dtype="f64")
    np.testing.assert_array_equal(reference_conv(problem, x, weight), [[[20, 42, 4]]])


def test_a_kernel_of_one_element_copies():
    x = integers((2, 1, 3, 4, 5), np.float32)
    problem = ConvProblem.of(x.shape, (1, 1, 1, 1, 1))
    np.testing.assert_array_equal(reference_conv(problem, x, np.ones((1, 1, 1, 1, 1), np.float32)), x)


@pytest.mark.parametrize("mode", ["valid", "same", "full"])
@pytest.mark.parametrize("shape", [(9,), (7, 8), (5, 6, 4)])
def test_one_channel_is_scipy_correlation(shape, mode):
    x, weight = integers(shape, np.float64), integers((3,) * len(shape), np.float64)
    problem = ConvProblem.of((1, 1, *shape), (1, 1, *weight.shape), padding=mode, dtype="f64")
    y = reference_conv(problem, x[None, None], weight[None, None])
    np.testing.assert_array_equal(y[0, 0], correlate(x, weight, mode, method="direct"))


@pytest.mark.parametrize(
    "text",
    [
        "n2c4w11o6k3p1", "n2c4w11o6k3s2p2dil2g2f64", "n2c4h9w8o6k3p1", "n2c4h9w8o6kh3kw2sh1sw2ph0pw1dilh2dilw1g2",
        "n1c6h9w8o6k3p1g6f64", "n2c4d5h6w7o6k3p1", "n1c4d5h6w7o6kd1kh3kw2s2pd0ph1pw2dild1dilh2dilw1g2",
    ],
)  # fmt: skip
def test_the_oracle_agrees_with_torch_in_either_layout(text):
    torch = pytest.importorskip("torch")
    problem = ConvProblem.parse(text)
    x, weight = operands(problem)
    bias = integers(problem.c_out, problem.np_dtype)
    theirs = (torch.conv1d, torch.conv2d, torch.conv3d)[len(problem.spatial) - 1]
    padding = tuple(before for before, _ in problem.padding)
    expected = theirs(
        *map(torch.from_numpy, (x, weight, bias)), problem.stride, padding, problem.dilation, problem.groups
    ).numpy()
    np.testing.assert_array_equal(reference_conv(problem, x, weight, bias), expected)
    last = ConvProblem.parse(text + "cl")
    y = reference_conv(last, np.moveaxis(x, 1, -1), weight, bias)
    assert y.flags.c_contiguous
    np.testing.assert_array_equal(y, np.moveaxis(expected, 1, -1))


def test_uneven_padding_is_a_window_of_even_padding():
    even, uneven = ConvProblem.parse("n1c2h5w6o3k3p2"), ConvProblem.parse("n1c2h5w6o3k3ph2_0pw1_2")
    x, weight = operands(even)
    np.testing.assert_array_equal(reference_conv(uneven, x, weight), reference_conv(even, x, weight)[:, :, :-2, 1:])


def test_groups_are_separate_convolutions_side_by_side():
    problem = ConvProblem.parse("n2c4h5w5o6k3g2")
    x, weight = operands(problem)
    part = ConvProblem.parse("n2c2h5w5o3k3")
    halves = [reference_conv(part, x[:, 2 * g : 2 * g + 2], weight[3 * g : 3 * g + 3]) for g in range(2)]
    np.testing.assert_array_equal(reference_conv(problem, x, weight), np.concatenate(halves, axis=1))


def test_an_empty_batch_gives_an_empty_result():
    problem = ConvProblem.parse("n0c2h5w5o3k3clbias")
    x, weight = operands(problem)
    y = reference_conv(problem, x, weight, np.zeros(3, np.float32), activation="gelu")
    assert (y.shape, y.dtype) == ((0, 3, 3, 3), np.float32)


def test_taps_on_padding_are_skipped_not_multiplied():
    x, weight = np.ones((1, 1, 1), np.float32), np.array([[[np.inf, 2, np.nan]]], np.float32)
    problem = ConvProblem.of(x.shape, weight.shape, padding=1)
    assert reference_conv(problem, x, weight) == 2


def test_an_output_that_sees_only_padding_is_its_bias():
    x, weight = np.ones((1, 1, 1), np.float32), np.ones((1, 1, 1), np.float32)
    problem = ConvProblem.of(x.shape, weight.shape, padding=1, bias=True)
    np.testing.assert_array_equal(reference_conv(problem, x, weight, np.array([7], np.float32)), [[[7, 8, 7]]])


def test_sums_are_taken_in_the_type_that_is_asked_for():
    # 2**24 + 1 is not a float32, so single-precision sums lose each of the ones.
    x, weight = np.array([[[2**24], [1], [1]]], np.float32), np.ones((1, 3, 1), np.float32)
    problem = ConvProblem.of(x.shape, weight.shape)
    single = reference_conv(problem, x, weight)
    double = reference_conv(problem, x, weight, accumulate="f64")
    assert (single.dtype, single.item()) == (np.float32, 2**24)
    assert (double.dtype, double.item()) == (np.float64, 2**24 + 2)


def test_products_too_are_taken_in_the_type_that_is_asked_for():
    x = weight = np.full((1, 1, 1), 1 + 2**-20, np.float32)
    y = reference_conv(ConvProblem.of(x.shape, weight.shape), x, weight, accumulate="f64")
    assert y.item() == (1 + 2**-20) ** 2


def test_residual_is_added_before_the_activation():
    problem = ConvProblem.parse("n1c2h4w4o3k3clbias")
    x, weight = operands(problem)
    bias, residual = integers(3, np.float32), integers(problem.output_shape, np.float32)
    plain = reference_conv(problem, x, weight, bias)
    for activation in ("relu", Activation.of("relu")):
        y = reference_conv(problem, x, weight, bias, residual, activation)
        np.testing.assert_array_equal(y, np.maximum(plain + residual, 0))


def test_operands_that_do_not_fit_the_problem_are_refused():
    problem = ConvProblem.parse("n1c2h4w4o3k3bias")
    x, weight = operands(problem)
    bias = np.zeros(3, np.float32)
    with pytest.raises(ShapeError, match="bias was not given"):
        reference_conv(problem, x, weight)
    with pytest.raises(ShapeError, match=r"x has the shape \(2, 4, 4\)"):
        reference_conv(problem, x[0], weight, bias)
    with pytest.raises(ShapeError, match="residual"):
        reference_conv(problem, x, weight, bias, x)
    with pytest.raises(DTypeError, match="weight has the dtype float64"):
        reference_conv(problem, x, weight.astype(np.float64), bias)
    with pytest.raises(ConvError, match="accumulate='f16'"):
        reference_conv(problem, x, weight, bias, accumulate="f16")
