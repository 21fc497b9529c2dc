"""A problem says what a convolution is: its sizes, its cost and its name."""

import pickle
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from numbaconv.errors import ConvError, DTypeError, ShapeError
from numbaconv.problem import ConvProblem
from numbaconv.values import found_once

RESNET = "n1c64h56w56o64k3p1"


@st.composite
def problems(draw):
    axes = draw(st.integers(1, 3))

    def per_axis(values):
        # Equal values on all axes have a form of their own, so they must be common.
        return draw(st.one_of(values.map(lambda v: (v,) * axes), st.tuples(*[values] * axes)))

    groups = draw(st.integers(1, 4))
    kernel, dilation = per_axis(st.integers(1, 5)), per_axis(st.integers(1, 3))
    padding = per_axis(
        st.one_of(st.integers(0, 3).map(lambda p: (p, p)), st.tuples(st.integers(0, 3), st.integers(0, 3)))
    )
    spatial = per_axis(st.integers(1, 30))
    for s, k, d, p in zip(spatial, kernel, dilation, padding, strict=True):
        assume(d * (k - 1) + 1 <= s + sum(p))
    return ConvProblem(
        draw(st.integers(0, 9)), groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 9)), spatial, kernel,
        per_axis(st.integers(1, 3)), dilation, padding, groups, draw(st.sampled_from(["f32", "f64"])),
        draw(st.sampled_from(["channels_first", "channels_last"])), draw(st.booleans()),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_short_form_parses_back_to_the_same_problem(problem):
    again = ConvProblem.parse(str(problem))
    assert again == problem
    assert hash(again) == hash(problem)
    assert str(again) == str(problem)


@settings(max_examples=50, deadline=None)
@given(problems())
def test_a_pickled_problem_is_the_same_key(problem):
    again = pickle.loads(pickle.dumps(problem))
    assert {problem: 1}[again] == 1


def test_tokens_come_in_any_order():
    assert ConvProblem.parse("k3p1w56o64h56c64n1") == ConvProblem.parse(RESNET)


@pytest.mark.parametrize(
    "text",
    [
        "c64h56w56o64k3p1", "n0c1w9o1k3", "n2c3w9o4kw3", "c3d4h5w6o2kd1kh2kw3", "c8h9w9o8k3s2g4f64clbias",
        "c8h9w9o8k3ph1_2pw3", "c8h9w9o8k3p1_2dil2", "c8h9w9o8k3sh2sw1dilh1dilw2",
    ],
)  # fmt: skip
def test_every_kind_of_token_is_read(text):
    problem = ConvProblem.parse(text)
    assert ConvProblem.parse(str(problem)) == problem


def test_the_short_form_leaves_out_what_is_usual():
    assert str(ConvProblem.parse("n1c64h56w56o64kh3kw3s1p1_1dil1g1f32cf")) == "c64h56w56o64k3p1"
    assert str(ConvProblem.parse("n2c8h9w9o8k3ph1_2g2clbias")) == "n2c8h9w9o8k3ph1_2g2clbias"


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("c3h5w5o4k3x7", "'x7'"),  # unknown letter
        ("c3h5w5o4k", "'k'"),  # no number
        ("c3h5w5o4k-3", "'k-3'"),
        ("c3h5w5o4k3 ", "' '"),
        ("c3c4h5w5o4k3", "'c4'"),  # repeated
        ("c3h5w5o4k3kh3", "'kh'"),  # one axis besides all axes
        ("c3h5w5o4kd3kh3kw3", "'kd'"),  # an axis that is absent
        ("c3h5w5o4k3dild2", "'dild'"),
        ("c3h5w5o4kh3", "'kw'"),  # an axis without kernel
        ("c3h5w5o4", "'kh'"),
        ("h5w5o4k3", "'c'"),
        ("c3h5w5k3", "'o'"),
        ("c3o4k3", "()"),  # no axis at all
        ("c3h5o4k3", "('h',)"),
        ("c3h5_6w5o4k3", "'h5_6'"),  # only paddings are pairs
        ("c3h5w5o4k3f32f64", "'f64'"),
        ("c3h5w99999999999999999999o4k3", "'w99999999999999999999'"),
        ("", "''"),
    ],
)
def test_a_text_that_is_no_problem_is_refused_and_the_bad_part_quoted(text, quoted):
    with pytest.raises(ConvError) as caught:
        ConvProblem.parse(text)
    assert quoted in str(caught.value)


def test_only_text_is_parsed():
    with pytest.raises(ConvError, match="str"):
        ConvProblem.parse(3)


def test_output_size_follows_from_stride_padding_and_dilation():
    problem = ConvProblem.parse("n2c3h11w10o4kh3kw2sh2sw3ph1_2pw0dilh2dilw1")
    # (11 + 3 - 5) // 2 + 1 and (10 - 2) // 3 + 1
    assert problem.out_spatial == (5, 3)
    assert problem.output_shape == (2, 4, 5, 3)


def test_layout_moves_the_channels_and_leaves_the_weights():
    first, last = ConvProblem.parse("n2c6h5w7o4k3g2"), ConvProblem.parse("n2c6h5w7o4k3g2cl")
    assert (first.input_shape, first.output_shape) == ((2, 6, 5, 7), (2, 4, 3, 5))
    assert (last.input_shape, last.output_shape) == ((2, 5, 7, 6), (2, 3, 5, 4))
    assert first.weight_shape == last.weight_shape == (4, 3, 3, 3)


def test_work_and_traffic_of_a_known_layer():
    problem = ConvProblem.parse(RESNET + "bias")
    assert problem.taps == 9
    assert problem.macs == 56 * 56 * 64 * 64 * 9
    assert problem.flops == 2 * problem.macs
    assert problem.parameters == 64 * 64 * 9 + 64
    assert problem.bytes == 4 * (2 * 64 * 56 * 56 + problem.parameters)
    assert problem.arithmetic_intensity == problem.flops / problem.bytes
    assert ConvProblem.parse(RESNET + "f64").itemsize == 8
    assert ConvProblem.parse(RESNET).np_dtype == np.float32


def test_groups_divide_the_work():
    assert ConvProblem.parse(RESNET + "g64").macs * 64 == ConvProblem.parse(RESNET).macs


def test_an_empty_batch_is_a_problem_without_work():
    problem = ConvProblem.parse("n0c3h5w5o4k3")
    assert (problem.output_shape, problem.flops) == ((0, 4, 3, 3), 0)


def make(**changes):
    arguments = {
        "n": 1,
        "c_in": 4,
        "c_out": 6,
        "spatial": (8, 8),
        "kernel": (3, 3),
        "stride": (1, 1),
        "dilation": (1, 1),
        "padding": ((0, 0), (0, 0)),
    }
    return ConvProblem(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"n": -1}, ["n=-1", "at least 0"]),
        ({"c_in": 0}, ["c_in=0", "at least 1"]),
        ({"c_out": 0}, ["c_out=0"]),
        ({"groups": 0}, ["groups=0"]),
        ({"groups": 3}, ["groups=3", "c_in=4", "divide"]),
        ({"groups": 4}, ["groups=4", "c_out=6", "divide"]),
        ({"spatial": ()}, ["spatial=()", "1, 2 or 3"]),
        ({"spatial": (1, 2, 3, 4)}, ["4 axes"]),
        ({"spatial": (0, 8)}, ["spatial=0"]),
        ({"kernel": (3,)}, ["kernel=(3,)", "2"]),
        ({"stride": (1, 0)}, ["stride=0", "at least 1"]),
        ({"dilation": (0, 1)}, ["dilation=0"]),
        ({"stride": (2**31, 1)}, ["stride", "2**31"]),
        ({"padding": ((0, 0),)}, ["padding", "2"]),
        ({"padding": ((0, -1), (0, 0))}, ["padding=-1", "at least 0"]),
        ({"padding": ((0, 1, 2), (0, 0))}, ["padding", "before and after"]),
        ({"kernel": (9, 3)}, ["kernel=9", "the input has 8"]),
        ({"dilation": (4, 1)}, ["dilation=4", "spans 9", "fit"]),
        ({"c_in": 4.0}, ["c_in=4.0", "float"]),
        ({"n": True}, ["n=True", "bool"]),
        ({"stride": "11"}, ["stride='11'"]),
        ({"layout": "NHWC"}, ["layout='NHWC'", "channels_last"]),
        ({"bias": np.zeros(6)}, ["bias", "True or False"]),
        ({"c_in": 2**40, "spatial": (2**20, 2**10)}, ["input", "2**63"]),
        ({"n": 0, "c_in": 2**40, "spatial": (2**20, 2**10)}, ["input", "2**63"]),
        ({"padding": ((2**62, 0), (0, 0)), "stride": (2**30, 1)}, ["input", "2**63"]),
        ({"c_out": 6 * 2**58}, ["output", "2**63"]),
        ({"c_in": 2**30, "c_out": 2**30, "spatial": (3, 3)}, ["weight", "2**63"]),
    ],
)
def test_a_problem_that_breaks_a_rule_is_refused_with_values_and_rule(changes, words):
    with pytest.raises(ShapeError) as caught:
        make(**changes)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("dtype", ["f16", np.float32, None, ["f32"]])
def test_other_element_types_are_refused(dtype):
    with pytest.raises(DTypeError, match="f32, f64"):
        make(dtype=dtype)


def test_numpy_integers_are_integers():
    problem = make(n=np.int32(1), spatial=np.array([8, 8]), padding=np.zeros((2, 2), int), bias=np.bool_(False))
    assert problem == make()
    assert hash(problem) == hash(make())
    assert {type(value) for value in (*problem.spatial, problem.n, *problem.padding[0])} == {int}
    assert type(problem.bias) is bool


X, W = (1, 4, 9, 8), (6, 4, 3, 2)


def test_arguments_may_be_one_for_all_axes_or_one_an_axis():
    assert ConvProblem.of(X, W, stride=2, padding=1, dilation=2) == ConvProblem.of(
        X, W, stride=(2, 2), padding=[1, 1], dilation=np.array([2, 2])
    )
    assert ConvProblem.of(X, W, padding=(1, (0, 2))).padding == ((1, 1), (0, 2))
    assert ConvProblem.of((1, 4, 9), (6, 4, 3), padding=((1, 2),)).padding == ((1, 2),)


def test_channels_last_reads_the_channels_at_the_end():
    assert str(ConvProblem.of((2, 9, 8, 4), W, layout="channels_last", dtype="f64", bias=True)) == (
        "n2c4h9w8o6kh3kw2f64clbias"
    )


def test_valid_padding_is_none():
    assert ConvProblem.of(X, W, padding="valid") == ConvProblem.of(X, W)


@pytest.mark.parametrize("size", range(1, 12))
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_padding_gives_size_over_stride_outputs(size, stride, kernel):
    problem = ConvProblem.of((1, 1, size), (1, 1, kernel), stride=stride, dilation=2, padding="same")
    ((before, after),) = problem.padding
    assert problem.out_spatial == (-(-size // stride),)
    assert after - before in (0, 1)


def test_full_padding_lets_every_element_meet_every_tap():
    problem = ConvProblem.of(X, W, padding="full", dilation=(2, 1))
    assert problem.padding == ((4, 4), (1, 1))
    assert problem.out_spatial == (9 + 4, 8 + 1)


def test_causal_padding_lies_before_and_keeps_the_length():
    problem = ConvProblem.of((1, 1, 9), (1, 1, 3), padding="causal", dilation=2)
    assert problem.padding == ((4, 0),)
    assert problem.out_spatial == (9,)
    with pytest.raises(ShapeError, match="1-D"):
        ConvProblem.of(X, W, padding="causal")


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "arguments", "words"),
    [
        (X, (6, 3, 3, 2), {}, ["weight.shape[1]=3", "4 channels"]),
        (X, W, {"groups": 2}, ["weight.shape[1]=4", "groups=2"]),
        (X[1:], W, {}, ["x.shape", "3", "4"]),
        (X, (6, 4), {}, ["weight.shape=(6, 4)", "3, 4 or 5"]),
        (X, W, {"stride": (1, 1, 1)}, ["stride=(1, 1, 1)", "2"]),
        (X, W, {"stride": 1.5}, ["stride=1.5", "float"]),
        (X, W, {"dilation": True}, ["dilation=True", "bool"]),
        (X, W, {"padding": 1.0}, ["padding=1.0", "float"]),
        (X, W, {"padding": "reflect"}, ["'reflect'", "same"]),
        (X, W, {"padding": (1, 2, 3)}, ["padding=(1, 2, 3)", "2"]),
        ((1, 4, 9), (6, 4, 3), {"padding": (1, 2)}, ["padding=(1, 2)", "pair"]),
        (X, W, {"layout": "NCHW"}, ["layout='NCHW'"]),
        (4, W, {}, ["x.shape=4", "sequence"]),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(x_shape, weight_shape, arguments, words):
    with pytest.raises(ShapeError) as caught:
        ConvProblem.of(x_shape, weight_shape, **arguments)
    for word in words:
        assert word in str(caught.value)


def test_what_is_found_once_is_found_when_it_is_asked_for():
    calls = []

    @dataclass(frozen=True)
    class Square:
        side: int

        @found_once
        def area(self):
            """Its area."""
            calls.append(self)
            return self.side**2

    one, two = Square(3), Square(4)
    assert not calls and Square.area.__doc__ == "Its area."
    assert [one.area, two.area, one.area, two.area] == [9, 16, 9, 16] and calls == [one, two]
    # what is found is no field: equal, replaced and pickled values are as before
    assert one == Square(3) and hash(one) == hash(Square(3)) and replace(one, side=5).area == 25


@pytest.mark.skipif(
    not (3, 11) <= sys.version_info < (3, 13), reason="other versions read attributes alike in both cases"
)
def test_nothing_makes_the_dictionary_of_values_that_are_read_all_the_time(python):
    """Attributes take several times as long from then on, for as long as the object lives.

    An object refers to its values one by one, or to the dictionary that holds them.
    """
    done = python("""
        import gc
        from dataclasses import replace
        from numbaconv.machine import machine
        from numbaconv.problem import ConvProblem

        # more than a dozen of each that were read in no way yet
        values = [ConvProblem.parse("c64h56w56o64k3p1") for _ in range(40)] + [replace(machine()) for _ in range(40)]
        for value in values:
            hash(value)
            if isinstance(value, ConvProblem):
                assert value.out_spatial == (56, 56) and value.taps == 9 and value.itemsize == 4
        print(all(len(gc.get_referents(value)) >= len(value.__dataclass_fields__) for value in values))
    """)
    assert done.stdout.split() == ["True"]
