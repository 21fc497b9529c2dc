"""What convolution is, whichever algorithm computes it: linear, the same everywhere, and blind to the future where it is causal."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import FAST, able, make_operands, operands, problems, whole_numbers

import numbaconv as nc
from numbaconv.problem import ConvProblem

AXES = st.integers(1, 3)
_LINEAR = AXES.flatmap(lambda axes: operands(problems(axes=axes), activations=(None,)))
FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}


def convolved(problem, x, weight, name="auto"):
    """x with weight, as the problem says, without bias."""
    p = problem
    return FUNCTIONS[len(p.kernel)](
        x, weight, None, p.stride, p.padding, p.dilation, p.groups, layout=p.layout, algorithm=name
    )


def each(problem):
    """Algorithms that do a problem without bias."""
    return able(dataclasses.replace(problem, bias=False), FAST)


@given(_LINEAR, st.integers(0, 999))
@settings(max_examples=15)
def test_convolution_is_linear_in_the_input_and_in_the_weights(given_, seed):
    p, rng = given_.problem, np.random.default_rng(seed)
    x, weight = (whole_numbers(rng, shape, p.np_dtype) for shape in (p.input_shape, p.weight_shape))
    for name in each(p):
        y = convolved(p, given_.x, given_.weight, name)
        in_x = convolved(p, 3 * given_.x - 2 * x, given_.weight, name)
        np.testing.assert_array_equal(in_x, 3 * y - 2 * convolved(p, x, given_.weight, name))
        in_weight = convolved(p, given_.x, 3 * given_.weight - 2 * weight, name)
        np.testing.assert_array_equal(in_weight, 3 * y - 2 * convolved(p, given_.x, weight, name))


@given(_LINEAR, st.data())
@settings(max_examples=15)
def test_moving_the_input_by_a_stride_moves_the_output_by_one(given_, data):
    p = given_.problem
    axis = data.draw(st.integers(0, len(p.kernel) - 1))
    steps = data.draw(st.integers(1, 3))
    place = axis + (2 if p.layout == "channels_first" else 1)
    # so much more padding before is the same picture further on
    before, after = p.padding[axis]
    moved = list(p.padding)
    moved[axis] = before + steps * p.stride[axis], after
    further = dataclasses.replace(p, padding=tuple(moved), bias=False)
    zeros = list(given_.x.shape)
    zeros[place] = steps * p.stride[axis]
    shifted = np.concatenate([np.zeros(zeros, given_.x.dtype), given_.x], place)
    wider = dataclasses.replace(p, spatial=shifted.shape[place - axis :][: len(p.kernel)], bias=False)
    expected = convolved(p, given_.x, given_.weight)
    for problem, x in ((further, given_.x), (wider, shifted)):
        for name in each(problem):
            y = convolved(problem, x, given_.weight, name)
            np.testing.assert_array_equal(np.split(y, [steps], place)[1], expected)


@given(_LINEAR)
@settings(max_examples=15)
def test_groups_are_blocks_on_the_diagonal_of_one_dense_kernel(given_):
    p = given_.problem
    c_in, c_out = p.c_in // p.groups, p.c_out // p.groups
    dense = np.zeros((p.c_out, p.c_in, *p.kernel), p.np_dtype)
    for group in range(p.groups):
        rows = slice(group * c_out, (group + 1) * c_out)
        dense[rows, group * c_in : (group + 1) * c_in] = given_.weight[rows]
    expected = convolved(dataclasses.replace(p, groups=1), given_.x, dense)
    for name in each(p):
        np.testing.assert_array_equal(convolved(p, given_.x, given_.weight, name), expected)


@pytest.mark.parametrize("dilation", (1, 3))
@pytest.mark.parametrize("groups", (1, 4))
def test_the_future_changes_nothing_that_is_past(dilation, groups):
    given_ = make_operands(ConvProblem.parse(f"n2c8w90o12k5g{groups}p{4 * dilation}_0dil{dilation}"), whole_numbers)
    changed = given_.x.copy()
    changed[..., 40:] += 1
    for name in each(given_.problem):
        options = {"padding": "causal", "dilation": dilation, "groups": groups, "algorithm": name}
        y, other = (nc.conv1d(x, given_.weight, **options) for x in (given_.x, changed))
        np.testing.assert_array_equal(other[..., :40], y[..., :40])
        assert (other[..., 40] != y[..., 40]).any()
