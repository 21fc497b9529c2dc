"""An epilogue adds bias, then the residual, then bends the sum; it never invents or loses a NaN."""

import math

import numpy as np
import pytest

from numbaconv.epilogue import IDENTITY, KINDS, Activation, Epilogue
from numbaconv.errors import ConvError

SPECS = [
    None, "relu", "relu6", "silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "gelu",
    ("clip", -1.0, 2.0), ("leaky_relu", 0.1),
]  # fmt: skip
VALUES = np.concatenate([np.linspace(-9, 9, 181), [-1e4, -100.0, -0.0, 100.0, 1e4]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_activations_agree_with_torch(spec, dtype):
    torch = pytest.importorskip("torch")
    f = torch.nn.functional
    theirs = {
        None: lambda t: t, "relu": f.relu, "relu6": f.relu6, "silu": f.silu, "hardswish": f.hardswish,
        "sigmoid": torch.sigmoid, "hardsigmoid": f.hardsigmoid, "tanh": torch.tanh, "gelu": f.gelu,
        ("clip", -1.0, 2.0): lambda t: torch.clamp(t, -1, 2), ("leaky_relu", 0.1): lambda t: f.leaky_relu(t, 0.1),
    }[spec]  # fmt: skip
    # Judged in f64: torch's f32 gelu cancels for negative arguments.
    expected = theirs(torch.from_numpy(VALUES)).numpy()
    y = Activation.of(spec).apply(VALUES.astype(dtype))
    assert y.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(y, expected, rtol=16 * eps, atol=16 * eps)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_nan_passes_through_every_activation(spec):
    assert np.isnan(Activation.of(spec).apply(np.array([np.nan], np.float32)))[0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_large_arguments_reach_the_limit_without_overflow(spec):
    low, high = Activation.of(spec).apply(np.array([-3e38, 3e38], np.float32))
    assert np.isfinite([low, high]).all()
    if spec in ("sigmoid", "silu", "gelu", "hardswish", "hardsigmoid", "relu", "relu6"):
        assert low == 0


def test_no_activation_relu_and_relu6_are_clamps():
    assert Activation.of(None) == IDENTITY == Activation("clip", -math.inf, math.inf)
    assert Activation.of("relu") == Activation.of(("clip", 0, math.inf))
    assert Activation.of("relu6") == Activation.of(("clip", np.float32(0), 6))
    assert IDENTITY.is_identity and not Activation.of("relu").is_identity


def test_a_slope_is_alpha_and_hard_sigmoids_carry_their_line():
    assert Activation.of(("leaky_relu", 0.2)).alpha == 0.2
    assert (Activation.of("hardsigmoid").alpha, Activation.of("hardsigmoid").beta) == (1 / 6, 0.5)
    onnx = Activation("hardsigmoid", 0.2, 0.5).apply(np.array([-3.0, 0.0, 1.0, 3.0]))
    np.testing.assert_allclose(onnx, [0, 0.5, 0.7, 1])


def test_codes_are_positions_in_the_list_of_kinds():
    assert [Activation(kind).code for kind in KINDS] == list(range(len(KINDS)))
    assert Activation.of("gelu").code == KINDS.index("gelu")


def test_an_activation_is_read_as_itself():
    assert Activation.of(Activation.of("silu")) == Activation.of("silu")


@pytest.mark.parametrize(
    "spec",
    [
        "Relu", "clip", 3, (), ("clip",), ("clip", 1), ("leaky_relu", 1, 2), ("relu",), ("clip", 2, 1),
        ("clip", math.nan, 1), ("clip", 0, math.nan), ("clip", "0", 1), ("clip", None, 1), ("leaky_relu", math.nan),
        ("leaky_relu", math.inf), ["gelu", 1], np.zeros(3),
    ],
    ids=str,
)  # fmt: skip
def test_anything_else_is_refused(spec):
    with pytest.raises(ConvError, match="activation"):
        Activation.of(spec)


def test_a_refusal_lists_what_is_allowed():
    with pytest.raises(ConvError, match=r"'relu6'.*'gelu'.*\('clip', lo, hi\)"):
        Activation.of("mish")


def test_bias_comes_before_residual_and_activation_last():
    y, bias = np.full((1, 2, 3), -5.0, np.float32), np.array([1, 4], np.float32)
    residual = np.full_like(y, 2)
    result = Epilogue(bias=True, residual=True, activation=Activation.of("relu")).apply(y, bias, residual)
    np.testing.assert_array_equal(result, [[[0, 0, 0], [1, 1, 1]]])
    assert y[0, 0, 0] == -5


def test_sums_are_rounded_from_left_to_right():
    one = np.ones((1, 1, 1), np.float32)
    tiny = np.float32(2**-24)
    # 1 + 2**-24 rounds to 1 twice; 2**-24 + 2**-24 first would have been kept.
    assert Epilogue(bias=True, residual=True).apply(one, np.array([tiny]), one * tiny) == 1


def test_bias_follows_the_channels_of_the_layout():
    bias = np.arange(2, dtype=np.float64)
    first = Epilogue(bias=True).apply(np.zeros((1, 2, 3, 3)), bias)
    last = Epilogue(bias=True).apply(np.zeros((1, 3, 3, 2)), bias, layout="channels_last")
    np.testing.assert_array_equal(first, np.moveaxis(last, -1, 1))
    assert first[0, 1].min() == 1


def test_operands_must_match_the_epilogue():
    y = np.zeros((1, 2, 3))
    with pytest.raises(ConvError, match="bias=True, but bias was not given"):
        Epilogue(bias=True).apply(y)
    with pytest.raises(ConvError, match="residual=False, but residual was given"):
        Epilogue().apply(y, residual=y)
