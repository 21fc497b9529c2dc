"""PyTorch agrees: on sums, on activations, on "same", and on where NaN and infinity end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import (
    FAST,
    NON_FINITE,
    able,
    assert_close,
    every_kind,
    first,
    kinds,
    normals,
    operands,
    problems,
    whole_numbers,
)

import numbaconv as nc

torch = pytest.importorskip("torch")
torch.set_num_threads(1)  # on two threads the first tanh of a process is at times good to five digits only


CONV = {1: torch.nn.functional.conv1d, 2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}


def by_torch(given_):
    """PyTorch's channels-first result; uneven padding and all but zeros is done before, since its convolutions have none."""
    p = given_.problem
    x = torch.from_numpy(first(given_.x, p.layout))
    even = [min(ends) if p.padding_mode == "zeros" else 0 for ends in p.padding]
    # the last axis first
    rest = [end - inside for ends, inside in zip(p.padding[::-1], even[::-1]) for end in ends]
    x = torch.nn.functional.pad(x, rest, "constant" if p.padding_mode == "zeros" else p.padding_mode)
    bias = None if given_.bias is None else torch.from_numpy(given_.bias)
    y = CONV[len(p.kernel)](x, torch.from_numpy(given_.weight), bias, p.stride, even, p.dilation, p.groups)
    return y.numpy()


@given(operands(every_kind().filter(lambda p: p.n), fill=normals, activations=(None,)))
def test_pytorch_agrees(given_):
    p = given_.problem
    judged = by_torch(given_)
    for name in ("auto", *able(p, FAST)):
        y = first(given_.conv(name, residual=None), p.layout)
        assert_close(y, judged, given_)


@pytest.mark.parametrize(
    "activation, judge",
    (
        ("relu", torch.nn.functional.relu),
        ("relu6", torch.nn.functional.relu6),
        ("silu", torch.nn.functional.silu),
        ("hardswish", torch.nn.functional.hardswish),
        ("sigmoid", torch.sigmoid),
        ("hardsigmoid", torch.nn.functional.hardsigmoid),
        ("tanh", torch.tanh),
        ("gelu", torch.nn.functional.gelu),
        (("clip", -1.5, 0.5), lambda y: torch.clamp(y, -1.5, 0.5)),
        (("leaky_relu", 0.1), lambda y: torch.nn.functional.leaky_relu(y, 0.1)),
    ),
    ids=lambda value: getattr(value, "__name__", str(value)),  # no addresses: workers compare names
)
@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_activations_are_those_of_pytorch(activation, judge, dtype):
    x = np.linspace(-30, 30, 60001, dtype=dtype).reshape(1, 1, 1, -1)
    y = nc.conv2d(x, np.ones((1, 1, 1, 1), dtype), activation=activation)
    judged = judge(torch.from_numpy(x).double()).numpy()
    # PyTorch's gelu is only as good as 1 + erf, which cancels: hence the second term
    tolerance = np.finfo(dtype).eps * (16 * np.abs(judged) + 4 * np.maximum(1, np.abs(x)))
    worst = np.argmax(np.abs(y - judged) / tolerance)
    assert np.all(np.abs(y - judged) <= tolerance), f"{y.flat[worst]}, not {judged.flat[worst]}, at {x.flat[worst]}"


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("size", ((7, 9), (8, 8), (5, 12)))
@pytest.mark.parametrize("kernel, dilation", (((3, 3), 1), ((2, 4), 1), ((4, 3), 2), ((1, 6), 1)))
def test_same_is_pytorchs_same(size, kernel, dilation, rng):
    x, weight = whole_numbers(rng, (2, 3, *size), np.float32), whole_numbers(rng, (5, 3, *kernel), np.float32)
    judged = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, weight)), padding="same", dilation=dilation)
    np.testing.assert_array_equal(nc.conv2d(x, weight, padding="same", dilation=dilation), judged.numpy())


@st.composite
def poisoned(draw):
    """A problem of which some elements of x are not finite."""
    given_ = draw(operands(problems().filter(lambda p: p.n), fill=normals, activations=(None,)))
    flat = given_.x.reshape(-1)
    for position in draw(st.lists(st.integers(0, flat.size - 1), min_size=1, max_size=6)):
        flat[position] = draw(st.sampled_from(NON_FINITE))
    return given_


@given(poisoned())
def test_what_is_not_finite_in_x_ends_where_pytorch_puts_it(given_):
    p = given_.problem
    expected = kinds(by_torch(given_))
    for name in ("auto", *able(p, FAST)):
        y = first(given_.conv(name, residual=None), p.layout)
        np.testing.assert_array_equal(kinds(y), expected, err_msg=name)
