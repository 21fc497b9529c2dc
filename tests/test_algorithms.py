"""Every algorithm computes the same convolution: that of the oracle, bit for bit where sums are exact."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from strategies import (
    FAST,
    NAMES,
    PIECEWISE_LINEAR,
    TRANSCENDENTAL,
    Operands,
    able,
    bits,
    every_kind,
    first,
    make_operands,
    normals,
    operands,
    pairs,
    problems,
    whole_numbers,
)

import numbaconv as nc
from numbaconv.algorithms import ALGORITHMS, geometry
from numbaconv.dispatch.select import choose
from numbaconv.epilogue import Epilogue
from numbaconv.loops.ndarrays import address
from numbaconv.loops.shares import run_shares
from numbaconv.loops.transpose import Transposition
from numbaconv.machine import machine
from numbaconv.problem import LAYOUTS, PADDING_MODES, ConvProblem
from numbaconv.reference import reference_conv

THREADS = numba.config.NUMBA_NUM_THREADS  # the most that this process may ask for
#: What an algorithm is for, where that is rare among all problems.
SUITED = {
    "pointwise": every_kind(kernels=st.just(1)),
    "depthwise": st.one_of(every_kind(depthwise=True), problems(depthwise=True, kernels=st.integers(8, 31))),
    "grouped": st.one_of(
        every_kind(narrow=True), problems(narrow=True, kernels=st.integers(1, 3)), every_kind(depthwise=True)
    ),
}
#: Each output pixel is made of the one at its place.
SUITED["plane_sums"] = every_kind(kernels=st.just(1)).map(
    lambda p: replace(p, layout="channels_first", stride=(1,) * len(p.spatial), padding=((0, 0),) * len(p.spatial))
)
#: Problems whose output sees padding only, at least in part, or whose sizes lie at the edge of something.
CORNERS = (
    "c3h1w1o5k1p2",
    "c3h2w2o5k3p9s4",
    "c5h4w4o7k3p8dil8",
    "c4h3w5o6kh7kw1ph6_0pw0_6",
    "c2h2w3o3k2p0_9s3",
    "c17h9w1o33kh3kw1ph1pw0",
    "c17h1w9o33kh1kw3ph0pw1",
    "n3c6h5w5o9k3p1g3s2",
    "c8h6w6o8k3p1g8",
    "c24h19w21o24k5p2g24",
    "c40h9w33o40k3s3p1dil2g40",
    "c40h9w9o120k3p1g40",
    "c44h17w20o44k3p1g4",
    "c64h20w18o64k3p1g8",
    "c64h20w18o32k3s2p1g8",
    "c30h40w5o75k3p1g15f64",
    "c48h7w9o12k1g3",
    "c130h4w5o26k2g13",
    "c1h9w9o1k7p3",
    "c70h3w3o70k3p1",
    "n2c512h3w3o20k1",
    "n2c512h4w4o20k1s2",
    "n2c512h3w3o20k1p1_0",
    "n2c512h5w5o36k1g4",
    "c3h14w53o40k3p1f64",
    "n0c3h5w5o4k3p1",
    # planes: rows of one pixel, kernels wider than the image, many phases, more than one strip, rows at the edge of a vector
    "c3h9w1o3k3p1g3",
    "c5h4w3o5k9p4g5",
    "n2c3h11w40o3k5p2s3g3",
    "c4h30w23o4k5p3_0s4dil2g4",
    "c3h13w37o3k3p6dil5s2g3",
    "c2h190w130o2k3p1g2",
    "c2h121w120o2kh7kw2p1_0sh2sw1g2",
    "n3c35h7w7o35k3p1g35s2",
    "c18h17w16o18k3p1g18f64",
    "c5h15w33o5k3p0_2s2g5",
    # signals: longer than a tile, kernels of speech and of dilated stacks
    "c5w61o7k41p20",
    "n2c16w50o33k2p4_0dil4",
    "c20w77o20k9p4g20s2",
    "c18w500o36k11p3_8s3g18f64",
    "c35w420o35k3p5dil3s2g35",
    "c24w230o24k29p40g6",
    # volumes: slices and rows that are images of their own, padding on every side, slices that meet padding only
    "c5d4h5w6o7k3p1",
    "c3d6h8w9o17k3p1s2",
    "n2c17d3h4w5o9kd1kh3kw3pd0ph1pw1",
    "n2c17d5h4w5o9kd3kh1kw1pd1ph0pw0",
    "c9d3h4w15o8kd1kh1kw3pd0ph0pw1",
    "c6d4h4w4o5k1s2p1",
    "c7d3h3w4o6k2p3dil2",
    "c34d4h5w6o34k3p1g34",
    "c12d4h9w7o24kd3kh3kw3pd2_0ph1pw1sd2sh1sw1g6",
    "c20d3h20w14o20k3p1dild2dilh1dilw1g20f64",
)  # fmt: skip
#: What stands around the input where that is not zero: on one side only, as far as it may reach, at strides and dilations.
MODES = (
    "c5h6w9o7k3p1reflect", "c18h5w6o9k5p4_2s2reflect", "c3h9w40o17k3p2dil2replicate", "c6h2w3o6k7p9g6replicate",
    "c17h6w5o9k1p2s2circular", "c40h5w17o40k3p1g40circular", "c5w23o6k9p8_0dil2circular", "c8w30o8k5p4g8reflect",
    "c4d3h4w5o5k3p1reflect", "n2c6d3h4w5o6k3p1g6replicate", "c9d2h3w4o6kd1kh3kw3pd0ph2pw2g3circular",
)  # fmt: skip


def done_by(name):
    """Problems that an algorithm does."""
    return SUITED.get(name, problems()).filter(lambda problem: name in able(problem))


def same(y, expected):
    np.testing.assert_array_equal(y, expected, strict=True)


# --- equality with the oracle ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60)
def test_every_algorithm_equals_the_oracle_on_whole_numbers(name, data):
    given_ = data.draw(operands(done_by(name)))
    same(given_.conv(name), given_.oracle())


@given(operands(every_kind()))
@settings(max_examples=40)
def test_the_chosen_algorithm_equals_the_oracle_on_whole_numbers(given_):
    same(given_.conv(), given_.oracle())


@given(operands(problems(axes=1, modes=PADDING_MODES)))
@settings(max_examples=40)
def test_a_signal_is_convolved_as_an_image_of_height_one(given_):
    p = given_.problem
    rows = -2 if p.layout == "channels_first" else -3
    x, residual = (None if a is None else np.expand_dims(a, rows) for a in (given_.x, given_.residual))
    for name in able(p, FAST):
        y = nc.conv2d(
            x, given_.weight[:, :, None], given_.bias, (1, *p.stride), (0, *p.padding), (1, *p.dilation), p.groups,
            padding_mode=p.padding_mode, layout=p.layout, activation=given_.activation, residual=residual, algorithm=name,
        )  # fmt: skip
        same(np.squeeze(y, rows), given_.conv(name))


@pytest.mark.parametrize("problem, name", pairs(*CORNERS, *MODES, names=NAMES, layouts=("cf", "cl")))
def test_corners_equal_the_oracle(problem, name):
    given_ = make_operands(problem, whole_numbers, bias=True, residual=True, activation="relu")
    same(given_.conv(name), given_.oracle())


@given(operands(fill=whole_numbers, activations=TRANSCENDENTAL))
@settings(max_examples=60)
def test_curved_activations_are_within_eight_units_of_the_last_place(given_):
    # whole numbers reach the activation without error, so what differs is the activation's own rounding:
    # 8 eps of the larger of one and the argument
    expected = given_.oracle(accumulate="f64")
    linear = reference_conv(given_.problem, given_.x, given_.weight, given_.bias, given_.residual)
    tolerance = 8 * np.finfo(given_.x.dtype).eps * np.maximum(1, np.abs(linear))
    for name in able(given_.problem, FAST):
        assert np.all(np.abs(given_.conv(name) - expected) <= tolerance), name


@given(operands(fill=normals, activations=(None,)))
@settings(max_examples=60)
def test_rounding_errors_are_those_of_one_sum(given_):
    p = given_.problem
    exact = given_.oracle(accumulate="f64") if p.dtype == "f32" else given_.oracle()
    size = reference_conv(
        p, *(None if a is None else np.abs(a) for a in (given_.x, given_.weight, given_.bias, given_.residual))
    )
    terms = p.taps * p.c_in // p.groups + 2
    tolerance = (2 + np.sqrt(terms)) * np.finfo(p.np_dtype).eps * size
    for name in able(p, FAST):
        assert np.all(np.abs(given_.conv(name) - exact) <= tolerance), name


@given(operands(every_kind()))
@settings(max_examples=40)
def test_one_image_needs_no_batch_axis(given_):
    assume(given_.problem.n > 0)
    x, residual = given_.x[0], None if given_.residual is None else given_.residual[0]
    y = given_.layer()(x, residual=residual)
    same(y, given_.oracle()[0])


@given(operands(every_kind()), st.sampled_from(FAST))
@settings(max_examples=50)
def test_the_layouts_hold_the_same_numbers(given_, name):
    p = given_.problem
    assume(name in able(p))
    other = LAYOUTS[1 - LAYOUTS.index(p.layout)]

    def turned(array):
        source, target = (1, -1) if p.layout == "channels_first" else (-1, 1)
        return None if array is None else np.moveaxis(array, source, target)

    there = Operands(
        replace(p, layout=other),
        turned(given_.x),
        given_.weight,
        given_.bias,
        turned(given_.residual),
        given_.activation,
    )
    y = there.conv(name)
    same(y, np.ascontiguousarray(turned(given_.conv(name))))


# --- what convolution means, without an oracle -----------------------------------------------------------------


@pytest.mark.parametrize("name", FAST)
@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=15)
def test_dilation_by_d_equals_a_kernel_with_zeros_between_taps(name, seed, data):
    given_ = make_operands(data.draw(done_by(name)), whole_numbers, seed)
    p = given_.problem
    spread = np.zeros((*given_.weight.shape[:2], *p.extent), p.np_dtype)
    spread[(..., *(slice(None, None, step) for step in p.dilation))] = given_.weight
    y = replace(given_, weight=spread).conv(dilation=1)
    same(y, given_.conv(name))


@given(operands(every_kind(), activations=(None,)))
@settings(max_examples=30)
def test_stride_keeps_every_sth_output_of_the_dense_convolution(given_):
    p = given_.problem
    dense = given_.conv(stride=1, residual=None)
    steps = tuple(slice(None, None, step) for step in p.stride)
    kept = dense[(..., *steps)] if p.layout == "channels_first" else dense[(slice(None), *steps)]
    same(given_.conv(residual=None), np.ascontiguousarray(kept))


@given(operands(every_kind(), activations=(None,)), st.sampled_from(FAST))
@settings(max_examples=40)
def test_padding_equals_what_numpy_puts_around_the_input(given_, name):
    p = given_.problem
    assume(name in able(p))
    around = [(0, 0), *p.padding] if p.layout == "channels_last" else [(0, 0), (0, 0), *p.padding]
    around += [(0, 0)] * (given_.x.ndim - len(around))
    mode = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[p.padding_mode]
    padded = replace(given_, x=np.pad(given_.x, around, mode))
    same(padded.conv(name, padding=0, padding_mode="zeros"), given_.conv(name))


@given(operands(every_kind().filter(lambda p: p.groups > 1), activations=(None,)), st.sampled_from(FAST))
@settings(max_examples=30)
def test_groups_are_convolutions_side_by_side(given_, name):
    p = given_.problem
    assume(name in able(p))
    axis = 1 if p.layout == "channels_first" else -1
    images = np.split(given_.x, p.groups, axis)
    weights = np.split(given_.weight, p.groups)
    alone = [replace(given_, x=x, weight=w, bias=None) for x, w in zip(images, weights, strict=True)]
    parts = [part.conv(groups=1, residual=None) for part in alone]
    same(replace(given_, bias=None).conv(name, residual=None), np.concatenate(parts, axis))


def test_a_kernel_that_is_one_at_its_centre_copies_the_image(rng):
    x = normals(rng, (2, 5, 9, 11), np.float32)
    weight = np.zeros((5, 5, 3, 3), np.float32)
    weight[range(5), range(5), 1, 1] = 1
    for name in able(ConvProblem.of(x.shape, weight.shape, padding=1), FAST):
        same(nc.conv2d(x, weight, padding=1, algorithm=name), x)


@pytest.mark.parametrize("activation", PIECEWISE_LINEAR + TRANSCENDENTAL, ids=str)
def test_bias_and_residual_are_added_before_the_activation(activation, rng):
    x, weight = whole_numbers(rng, (1, 4, 6, 6), np.float64), whole_numbers(rng, (21, 4, 3, 3), np.float64)
    bias, residual = whole_numbers(rng, (21,), np.float64), whole_numbers(rng, (1, 21, 4, 4), np.float64)
    before = nc.conv2d(x, weight) + bias[:, None, None] + residual
    y = nc.conv2d(x, weight, bias, residual=residual, activation=activation)
    expected = nc.conv2d(before, np.eye(21)[:, :, None, None], activation=activation)
    same(y, expected)


# --- the same bits, always --------------------------------------------------------------------------------------


@given(
    operands(every_kind(), fill=normals, activations=PIECEWISE_LINEAR + TRANSCENDENTAL),
    st.integers(min(2, THREADS), THREADS),
)
@settings(max_examples=50)
def test_the_number_of_threads_changes_no_bit(given_, threads):
    for name in ("auto", *able(given_.problem, FAST)):
        layer = given_.layer(name)
        with nc.num_threads(1):
            one = layer(given_.x, residual=given_.residual)
        with nc.num_threads(threads):
            assert bits(layer(given_.x, residual=given_.residual)) == bits(one), name


def test_the_number_of_threads_changes_no_bit_of_larger_images(python):
    done = python(
        """
        import numbaconv as nc
        from numbaconv.problem import ConvProblem
        from strategies import FAST, able, bits, make_operands, normals, whole_numbers

        for text in ("n2c40h40w37o70k1", "n2c40h40w37o70k3p1s2", "c8h60w60o8k3p1g2", "c300h7w7o200k1", "c9h9w9o3k5f64"):
            for problem in map(ConvProblem.parse, (text, text + "cl")):
                given = make_operands(problem, normals, residual=True, activation="silu")
                for name in ("auto", *able(problem, FAST)):
                    layer, results = given.layer(name), set()
                    for threads in (1, 2, 3, 5, 7):
                        with nc.num_threads(threads):
                            results.add(bits(layer(given.x, residual=given.residual)))
                    assert len(results) == 1, (text, name)
        print("equal")
        """,
        NUMBA_NUM_THREADS="7",
    )
    assert done.stdout == "equal\n"


def test_more_threads_than_work_are_left_idle(python):
    done = python(
        """
        import numpy as np
        import numbaconv as nc
        from numbaconv.problem import ConvProblem
        from strategies import able, make_operands, whole_numbers

        nc.set_num_threads(8)
        for text in ("c1h1w1o1k1", "n0c1h1w1o1k1", "c3h2w2o5k1", "n2c1h3w3o1k3", "c512h2w2o5k1", "c2h1w13o33k1"):
            given = make_operands(ConvProblem.parse(text), whole_numbers)
            for name in able(given.problem):
                np.testing.assert_array_equal(given.conv(name), given.oracle(), err_msg=f"{text} {name}")
        print("equal")
        """,
        NUMBA_NUM_THREADS="8",
    )
    assert done.stdout == "equal\n"


@given(every_kind(), st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=50)
def test_the_position_in_a_batch_changes_no_bit(problem, seed, residual):
    assume(problem.n > 1)
    given_ = make_operands(problem, normals, seed, residual=residual, activation="silu")
    order = np.roll(np.arange(problem.n), 1)
    for name in ("auto", *able(problem, FAST)):
        layer = given_.layer(name)
        y = layer(given_.x, residual=given_.residual)
        moved = layer(given_.x[order], residual=given_.residual[order] if residual else None)
        assert bits(moved) == bits(y[order]), name
        if name != "auto":  # which may do one image another way than two
            alone = layer(given_.x[1], residual=given_.residual[1] if residual else None)
            assert bits(alone) == bits(y[1]), name


# --- layers and plans ---------------------------------------------------------------------------------------------


@given(operands(every_kind()), st.sampled_from(("auto", *NAMES)))
@settings(max_examples=50)
def test_a_layer_gives_what_the_function_gives_and_writes_nothing_else(given_, name):
    assume(name in ("auto", *able(given_.problem)))
    expected = given_.conv(name)
    shape, guard = given_.problem.output_shape, 64
    buffer = np.full(expected.size + 2 * guard, 777, expected.dtype)
    out = buffer[guard : guard + expected.size].reshape(shape)
    layer = given_.layer(name)
    for _ in range(2):
        assert layer(given_.x, residual=given_.residual, out=out) is out
        same(out, expected)
        assert np.all(buffer[:guard] == 777) and np.all(buffer[guard + expected.size :] == 777)


@given(
    operands(every_kind(layouts=st.just("channels_last"))), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20)
)
@settings(max_examples=60)
def test_pixels_may_lie_apart_in_memory(given_, x_gap, out_gap, residual_gap):
    # slices of the channels of wider tensors, as the parts of a concatenation are
    def apart(array, gap):
        wide = np.full((*array.shape[:-1], array.shape[-1] + gap), 777, array.dtype)
        part = wide[..., gap // 2 : gap // 2 + array.shape[-1]]
        part[...] = array
        return wide, part

    x = apart(given_.x, x_gap)[1]
    residual = None if given_.residual is None else apart(given_.residual, residual_gap)[1]
    expected = given_.oracle()
    for name in able(given_.problem, FAST):
        wide, out = apart(np.zeros_like(expected), out_gap)
        given_.plan(name).run(x, out, residual)
        same(np.ascontiguousarray(out), expected)
        assert np.count_nonzero(wide == 777) >= wide.size - out.size, f"{name} wrote between pixels"


@pytest.mark.parametrize("problem, name", pairs("n2c100h6w7o40k1", "n2c100h6w7o40k1g4", layouts=("cl",)))
def test_rows_that_collide_in_the_cache_may_lie_apart_too(problem, name):
    given_ = make_operands(problem, whole_numbers, residual=True)
    wide = np.full((2, 6, 7, 512), 777, np.float32)
    wide[..., 3:103] = given_.x
    out = np.zeros((2, 6, 7, 1024), np.float32)
    given_.plan(name).run(wide[..., 3:103], out[..., :40], given_.residual)
    same(np.ascontiguousarray(out[..., :40]), given_.oracle())


@pytest.mark.parametrize("problem, name", pairs("n2c5h4w1o6k1", layouts=("cl",)))
def test_axes_of_one_pixel_may_have_any_stride(problem, name):
    # NumPy gives a new axis the stride 0, which says nothing about where pixels lie
    given_ = make_operands(problem, whole_numbers)
    x = np.ascontiguousarray(given_.x[:, :, 0])[:, :, None]
    wide = np.zeros((2, 4, 1, 9), np.float32)
    given_.plan(name).run(x, wide[..., :6])
    same(np.ascontiguousarray(wide[..., :6]), given_.oracle())


@pytest.mark.parametrize("problem, name", pairs("n2c5h4w4o6k3p1", "n2c5h4w4o6k1", layouts=("cl",)))
@pytest.mark.parametrize("index", (np.s_[:, ::-1], np.s_[::-1, ::-1, ::-1], np.s_[:, ::2], np.s_[..., ::-1]), ids=str)
def test_a_plan_refuses_pixels_that_it_cannot_address(problem, name, index):
    x = np.zeros((2, 8 if index == np.s_[:, ::2] else 4, 4, 5), np.float32)[index]
    assert x.shape == problem.input_shape
    with pytest.raises(nc.ShapeError, match="strides"):
        make_operands(problem, whole_numbers).plan(name).run(x, np.empty(problem.output_shape, np.float32))


# --- sizes far from the usual ---------------------------------------------------------------------------------


def dot(given_):
    """One image without groups as a matrix product of patches in f64, for sizes that would keep the oracle busy."""
    p = given_.problem
    x = np.pad(first(given_.x, p.layout)[0], [(0, 0), *p.padding]).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, p.extent, (1, 2))
    windows = windows[:, :: p.stride[0], :: p.stride[1], :: p.dilation[0], :: p.dilation[1]]
    return np.einsum("chwij,ocij->ohw", windows, given_.weight.astype(np.float64), optimize=True)[None]


@pytest.mark.parametrize("text", ("c3000h3w3o20k3p1", "c4000h2w5o3k3p1", "c1500h4w4o5k3p1f64", "c20000h2w2o17k1"))
def test_a_patch_longer_than_the_workspace_is_cut(text):
    given_ = make_operands(ConvProblem.parse(text), whole_numbers)
    y = given_.conv("im2col")
    same(y, dot(given_).astype(y.dtype))


def test_a_cut_patch_takes_bias_residual_and_activation_once():
    problem = ConvProblem.parse("c3000h3w3o20k3p1bias")
    given_ = make_operands(problem, whole_numbers, residual=True, activation="relu")
    y = given_.conv("im2col")
    same(y, np.maximum(dot(given_) + given_.bias[:, None, None] + given_.residual, 0).astype(np.float32))


LARGE_DEPTHWISE = (
    "c33h40w36o33k31p15g33",
    "n2c17h20w33o17k13p6s2g17",
    "c20h14w14o20k29p14g20f64",
    "c16h30w41o16kh1kw31ph0pw7g16",
    "c16h9w9o32k13p12g16",
)


@pytest.mark.parametrize("problem, name", pairs(*LARGE_DEPTHWISE, layouts=("cf", "cl")))
def test_large_depthwise_kernels(problem, name):
    given_ = make_operands(problem, whole_numbers, bias=True)
    same(given_.conv(name), given_.oracle())


LARGE = ("c5h40w36o7k31p15", "c2h8w9o3k31p15", "c1h64w64o1kh1kw61ph0pw30", "c1h70w5o2kh61kw1ph30pw0")


@pytest.mark.parametrize("problem, name", pairs(*LARGE, layouts=("cf", "cl")))
def test_large_kernels(problem, name):
    given_ = make_operands(problem, whole_numbers)
    y = given_.conv(name)
    same(first(y, problem.layout), dot(given_).astype(y.dtype))


@pytest.mark.parametrize("problem, name", pairs("c6h5w5o20k3p50dil50", layouts=("cf", "cl")))
def test_taps_beyond_the_image_on_either_side_add_nothing(problem, name):
    # with a dilation of 50 only the tap in the middle of nine ever sees a 5 x 5 image
    given_ = make_operands(problem, whole_numbers)
    middle = nc.conv2d(given_.x, given_.weight[:, :, 1:2, 1:2], layout=problem.layout)
    same(given_.conv(name), middle)


@pytest.mark.parametrize("problem, name", pairs("n2c3h2w2o19k1p0_7s2bias"))
def test_outputs_that_see_only_padding_are_the_bias(problem, name):
    given_ = make_operands(problem, whole_numbers)
    y = given_.conv(name)
    expected = np.broadcast_to(given_.bias[:, None, None], y[..., 1:, 1:].shape)
    same(y[..., 1:, 1:], expected)


@pytest.mark.parametrize("name", able(ConvProblem.parse(f"c3h2w2o4k1p{1 << 28}s{1 << 28}"), FAST))
def test_padding_and_stride_of_hundreds_of_millions(name):
    # output pixels lie a stride apart, and just one of them meets the image
    far = 1 << 28
    x, weight = np.full((1, 3, 2, 2), 2, np.float32), np.ones((4, 3, 1, 1), np.float32)
    y = nc.conv2d(x, weight, stride=far, padding=far, algorithm=name)
    expected = np.zeros((1, 4, 3, 3), np.float32)
    expected[..., 1, 1] = 6
    same(y, expected)


@given(problems())
def test_im2col_needs_no_more_than_a_mebibyte_a_thread(problem):
    row = next(row for row in nc.explain(problem).rows if row.algorithm == "im2col")
    assert row.workspace_bytes <= 1 << 20


@pytest.mark.parametrize(
    "text",
    (
        "n8c512h14w14o512k3p1",
        "c64h224w224o64k3p1",
        "c3h1080w1920o32k7s2p3",
        "c100000h4w4o9k1",
        "c3h300w300o3k200f64",
        "c20000h9w9o1k3",
        "c64d16h56w56o64k3p1",
    ),
)
@pytest.mark.parametrize("layout", ("cf", "cl"))
def test_im2col_never_makes_the_whole_patch_matrix(text, layout):
    problem = ConvProblem.parse(text + layout)
    row = next(row for row in nc.explain(problem).rows if row.algorithm == "im2col")
    assert row.workspace_bytes <= 1 << 20


@given(every_kind())
@settings(max_examples=40)
def test_plans_say_what_explain_says(problem):
    given_ = make_operands(problem, whole_numbers)
    for row in nc.explain(problem).rows:
        if row.reason is None and row.algorithm in NAMES:
            plan = given_.plan(row.algorithm)
            assert plan.algorithm == row.algorithm
            assert row.workspace_bytes <= plan.workspace_bytes <= row.workspace_bytes + 63
            assert plan.plan_bytes == row.plan_bytes


# --- refusals --------------------------------------------------------------------------------------------------


@given(problems(axes=2))
@settings(max_examples=40)
def test_an_algorithm_that_refuses_raises_the_reason_that_explain_gives(problem):
    rows = nc.explain(problem).rows
    for name in {row.algorithm for row in rows} - set(able(problem)):
        with pytest.raises(nc.UnsupportedError) as caught:
            make_operands(problem, whole_numbers).conv(name)
        # variants of one algorithm may have different reasons
        assert any(row.reason in str(caught.value) for row in rows if row.algorithm == name)
        assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    "text, name, reason",
    (
        ("c3h8w8o4k3", "pointwise", "the kernel is not 1x1"),
        ("c1h2000w2000o1k3p1", "indirect", "its tables would take"),
    ),
)
def test_reasons(text, name, reason):
    problem = ConvProblem.parse(text)
    row = next(row for row in nc.explain(problem).rows if row.algorithm == name)
    assert reason in row.reason and not row.chosen
    with pytest.raises(nc.UnsupportedError, match=reason):
        choose(problem, make_operands(ConvProblem.parse("c1h1w1o1k1"), whole_numbers).epilogue, name)


def test_the_oracle_stands_last_and_is_chosen_only_where_all_others_refuse():
    assert ALGORITHMS[-1].name == "reference"
    for text in ("c1h1w1o1k1", "c1w1o1k1", "c3d4h4w4o4k3", "c3d4h4w4o3k3g3reflect"):
        assert nc.explain(text).rows[0].algorithm != "reference"


@given(every_kind())
def test_estimates_are_positive_and_pure(problem):
    for algorithm in ALGORITHMS:
        if algorithm.unsupported(problem, Epilogue(), machine()) is None:
            cost = algorithm.estimate(problem, machine())
            assert cost == algorithm.estimate(problem, machine())
            assert cost.seconds >= 0 and (cost.seconds > 0 or problem.n == 0)


def test_an_address_is_that_of_the_first_element():
    x = np.arange(60.0).reshape(3, 4, 5)
    read_only = np.frombuffer(b"numbers " * 4)
    for array in (x, x[1:, ::2, 3:], x[::-1], x.astype(np.float32).T, read_only, x.view(np.recarray), np.empty(0)):
        assert address(array) == array.ctypes.data


@pytest.mark.parametrize("rows, columns", ((37, 711), (711, 37), (5, 1501), (110, 71)))
@pytest.mark.parametrize("threads", (1, THREADS))
@pytest.mark.parametrize("together", (1, 4))
def test_matrices_are_transposed_some_lines_of_each_row_at_a_time(rows, columns, threads, together):
    x = np.arange(2.0 * rows * columns, dtype=np.float32).reshape(2, rows, columns)
    out = np.full((2, columns, rows), -1, np.float32)
    transposition = Transposition(2, rows, columns, np.float32)
    transposition._record["together"] = together
    run_shares(transposition.shares(1)._replace(rows=threads), address(x), address(out), 0, 0)
    np.testing.assert_array_equal(out, x.swapaxes(1, 2))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_large_results_start_with_a_cache_line(layout, rng):
    layer = nc.Conv2d(rng.standard_normal((40, 3, 1, 1)), layout=layout)
    for pixels in (3, 40, 41, 57):
        shape = (2, pixels, pixels, 3) if layout == "channels_last" else (2, 3, pixels, pixels)
        results = [layer(np.ones(shape)) for _ in range(4)]
        assert all(y.ctypes.data % 64 == 0 for y in results) or results[0].nbytes < 16 << 10
        assert all(y.flags.c_contiguous and y.flags.writeable for y in results)


@pytest.mark.parametrize(
    "text", ("c3h15w15o70k3p1", "n2c9h13w7o40k1", "c4h9w31o26k3s2p1g2", "c5h16w16o40k1", "c2w333o19k5p2f64")
)
@pytest.mark.parametrize("residual", (False, True))
def test_planes_beyond_the_caches_are_written_a_few_at_a_time(text, residual, monkeypatch):
    """Those of 16 by 16 pixels are streamed, the others end inside of a vector."""
    monkeypatch.setattr(geometry, "_KEPT_BYTES", 0)
    given_ = make_operands(ConvProblem.parse(text), whole_numbers, bias=True, residual=residual, activation="relu")
    for threads in (1, 2):
        with nc.num_threads(threads):
            np.testing.assert_array_equal(given_.conv("im2col"), given_.oracle())
