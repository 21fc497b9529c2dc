"""The arithmetic of convolutions: the worked examples of Dumoulin and Visin, figures by hand, and what really runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import numbaconv as nc
from numbaconv.arithmetic import (
    ReceptiveField,
    checkerboard,
    effective_kernel,
    gridding,
    im2col_bytes,
    output_size,
    parameters,
    receptive_field,
    separable_ratio,
    summary,
    transposed_output_size,
)
from numbaconv.problem import ConvProblem
from numbaconv.reference import reference_conv

LAYERS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2)), min_size=1, max_size=4
)


@pytest.mark.parametrize(
    "size, kernel, stride, padding, dilation, expected",
    [
        (4, 3, 1, 0, 1, 2),  # figure 2.1
        (5, 4, 1, 2, 1, 6),  # 2.2
        (5, 3, 1, 1, 1, 5),  # 2.3: half padding
        (5, 3, 1, 2, 1, 7),  # 2.4: full padding
        (5, 3, 2, 0, 1, 2),  # 2.5
        (5, 3, 2, 1, 1, 3),  # 2.6
        (6, 3, 2, 1, 1, 3),  # 2.7: as many as with 5
        (7, 3, 1, 0, 2, 3),  # 5.1
        (5, 3, 1, "same", 1, 5),
        (5, 3, 1, "full", 1, 7),
        (5, 3, 1, (2, 0), 1, 5),
    ],
)
def test_output_sizes_of_dumoulin_and_visin(size, kernel, stride, padding, dilation, expected):
    assert output_size(size, kernel, stride, padding, dilation) == expected


@pytest.mark.parametrize(
    "size, kernel, stride, padding, output_padding, expected",
    [
        (2, 3, 1, 0, 0, 4),  # figure 4.1
        (6, 4, 1, 2, 0, 5),  # 4.2
        (5, 3, 1, 1, 0, 5),  # 4.3
        (7, 3, 1, 2, 0, 5),  # 4.4
        (2, 3, 2, 0, 0, 5),  # 4.5
        (3, 3, 2, 1, 0, 5),  # 4.6
        (3, 3, 2, 1, 1, 6),  # 4.7
    ],
)
def test_transposed_sizes_of_dumoulin_and_visin(size, kernel, stride, padding, output_padding, expected):
    assert transposed_output_size(size, kernel, stride, padding, output_padding=output_padding) == expected
    # a convolution with the same numbers leads back
    assert output_size(expected, kernel, stride, padding) == size


def test_figures_by_hand():
    problem = ConvProblem.parse("c128h56w56o256k3p1")
    assert problem.macs == 56 * 56 * 256 * 128 * 9 == 924_844_032
    assert parameters(128, 64, (3, 3)) == 73_792
    assert parameters(128, 64, (3, 3), bias=False) == 73_728
    assert parameters(64, 64, (3, 3), groups=64, bias=False) == 576
    assert im2col_bytes(problem) == 56 * 56 * 128 * 9 * 4
    assert separable_ratio(256, (3, 3)) == pytest.approx(1 / 256 + 1 / 9)
    assert effective_kernel(3, 2) == 5


def test_the_ratio_is_that_of_the_layers_counted():
    full = ConvProblem.parse("c128h56w56o256k3p1")
    depthwise, pointwise = ConvProblem.parse("c128h56w56o128k3p1g128"), ConvProblem.parse("c128h56w56o256k1")
    assert (depthwise.macs + pointwise.macs) / full.macs == pytest.approx(separable_ratio(256, (3, 3)))


def test_receptive_fields_of_known_stacks():
    assert receptive_field([]) == ReceptiveField(1, 1, 0)
    assert receptive_field([(3, 1, 1, 1)] * 2) == ReceptiveField(5, 1, -2)
    # AlexNet up to its last pooling, by Araujo et al. 2019
    alexnet = [(11, 4), (3, 2), (5, 1, 1, 2), (3, 2), (3, 1, 1, 1), (3, 1, 1, 1), (3, 1, 1, 1), (3, 2)]
    field = receptive_field(alexnet)
    assert (field.size, field.jump) == (195, 32)
    # ten layers of WaveNet
    assert receptive_field([(2, 1, 2**i) for i in range(10)]).size == 1024
    assert receptive_field([(3, 2, 1, 1)]).center == 0


@given(LAYERS)
@settings(max_examples=40)
def test_an_output_sees_its_receptive_field_less_its_holes_and_nothing_else(layers):
    field = receptive_field(layers)
    size = field.size + field.jump
    assume(size < 200)
    # one input at a time, through ones as weights, shows what the first outputs see
    y = np.eye(size, dtype=np.float32)[:, None]
    for kernel, stride, dilation, _ in layers:
        problem = ConvProblem.of(y.shape, (1, 1, kernel), stride=stride, dilation=dilation)
        y = reference_conv(problem, y, np.ones((1, 1, kernel), np.float32))
    assert y.shape[-1] == 2
    holes = set(gridding(layers))
    for output in range(2):
        seen = {place - output * field.jump for place in np.flatnonzero(y[:, 0, output])}
        assert seen == set(range(field.size)) - holes


@pytest.mark.parametrize(
    "dilations, free",
    (((1, 2, 5), True), ((1, 2, 4, 8), True), ((2, 2, 2), False), ((1, 2, 9), False), ((2, 4, 8), False)),
)
def test_gridding_of_known_stacks(dilations, free):
    assert (not gridding([(3, 1, dilation) for dilation in dilations])) == free


@pytest.mark.parametrize("kernel, stride, dilation", ((4, 2, 1), (3, 2, 1), (5, 3, 1), (6, 3, 1), (4, 2, 2), (1, 3, 1)))
def test_even_input_is_checkered_where_taps_meet_unevenly(kernel, stride, dilation):
    counts = checkerboard(kernel, stride, dilation)
    y = np.zeros(9 * stride + dilation * kernel)
    for position in range(9):
        y[position * stride + dilation * np.arange(kernel)] += 1
    middle = y[dilation * kernel : dilation * kernel + stride]
    assert sorted(counts) == sorted(middle) and sum(counts) == kernel
    if dilation == 1:
        assert (len(set(counts)) == 1) == (kernel % stride == 0)


def test_a_summary_holds_what_the_problem_says():
    problem = ConvProblem.parse("n2c4h9w8o6k3s2dil2biasf64")
    found = summary(str(problem))
    assert found.output == problem.out_spatial and found.effective_kernel == (5, 5)
    for name in ("parameters", "macs", "flops", "bytes", "arithmetic_intensity"):
        assert getattr(found, name) == getattr(problem, name)
    assert found.separable_ratio == pytest.approx(1 / 6 + 1 / 9)
    assert summary("c4h9w8o4k3g4").separable_ratio is None
    assert found.im2col_bytes == im2col_bytes(problem)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: output_size(2, 3), r"kernel=3 with dilation=1 spans 3.*the input has 2"),
        (lambda: output_size(5, 3, 0), r"stride=0"),
        (lambda: output_size(5, 3, padding="most"), r"padding='most'"),
        (lambda: transposed_output_size(3, 3, 2, output_padding=2), r"output_padding=2.*stride=2"),
        (lambda: transposed_output_size(1, 1, padding=1), r"padding=1 leaves -1 outputs"),
        (lambda: effective_kernel(0), r"kernel=0"),
        (lambda: receptive_field([(3, 1, 1, 0, 1)]), r"layer \(3, 1, 1, 0, 1\)"),
        (lambda: receptive_field(["3"]), r"kernel='3'"),
        (lambda: gridding([(3, 0)]), r"stride=0"),
        (lambda: checkerboard(3, -1), r"stride=-1"),
        (lambda: parameters(3, 4, (3, 3), groups=2), r"groups=2 does not divide c_in=3"),
        (lambda: separable_ratio(0, (3, 3)), r"c_out=0"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(call, message):
    with pytest.raises(nc.ShapeError, match=message):
        call()
