"""Float32 products out of three of their halves, where machines have matrix tiles: exact on whole numbers, errors in their bound.

The halves are those that the machine's tiles multiply; `-amx-fp16` among NUMBA_CPU_FEATURES leaves bfloat16.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import (
    NON_FINITE,
    PIECEWISE_LINEAR,
    TRANSCENDENTAL,
    bits,
    every_kind,
    guarded,
    kinds,
    make_operands,
    normals,
    operands,
    whole_numbers,
)

import numbaconv as nc
from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import tiled
from numbaconv.algorithms.bottleneck import Bottleneck, BottleneckPlan, Stage
from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.padded import PaddedCopy, posed_to
from numbaconv.algorithms.split import Split
from numbaconv.algorithms.split_planes import SplitPlanes
from numbaconv.algorithms.tiled import TiledPlan
from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.amx import TALL
from numbaconv.codegen.halves import FLOAT16, halves_of
from numbaconv.codegen.jit import cache_folder
from numbaconv.codegen.patches import TOGETHER
from numbaconv.codegen.rows_of_sums import WOVEN
from numbaconv.epilogue import IDENTITY, Activation, Epilogue
from numbaconv.machine import machine
from numbaconv.problem import LAYOUTS, ConvProblem
from numbaconv.reference import reference_conv
from numbaconv.workspace import aligned, scratch

HALVES = halves_of(machine()) or FLOAT16
SPLIT, PLANES = Split(HALVES), SplitPlanes(HALVES)
REFUSED = SPLIT.unsupported(ConvProblem.parse("c1h9w9o1k1"), Epilogue(), machine())
pytestmark = pytest.mark.skipif(REFUSED is not None, reason=f"these run on matrix tiles, but {REFUSED}")

THREADS = numba.config.NUMBA_NUM_THREADS
USUAL = 1e-5
#: Bits of a half.
BITS = {"fp16": 11, "bf16": 8}[HALVES.name]
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
#: A cache that holds so little that a block is a line, and panels come one by one; one of blocks of a few lines; and one that
#: holds those and a panel if channels come in chunks.
TINY, SMALL, CHUNKS = (replace(machine(), l2=nbytes) for nbytes in (1 << 10, 12 << 10, 1 << 17))
MACHINES = machine(), TINY, SMALL, CHUNKS
CHUNKED = (
    "n2c160h9w11o40k3p2dil2", "c320h7w8o70k3p1s2", "c150h9w8o33k3p1", "n2c128d3h5w6o33kd2kh3kw3pd0ph1pw1", "n2c192h6w7o48k3p1g2",
    "n2c288w40o33k5p4dil2", "n3c96h4w5o33k3p1",
)  # fmt: skip
#: Channels in blocks, and kernel rows as runs, for each kind of line: of an image, of one pixel, of all images.
CORNERS = (
    "c1h1w1o1k1", "n0c8h8w8o8k3p1", "c3h1w1o5k3p1", "n3c20h5w7o33k1", "n2c70h5w7o34k1g2", "c40h9w8o31k1s2", "n2c8h4w4o70k1p2_1s3",
    "n2c17h9w11o65k3p1", "c33h8w9o40k3p1s2", "c64h7w6o32k3p2dil2", "c48h9w9o48k3p1g3", "n2c9h13w12o16k5s4p2dil2",
    "c3h30w31o20k7s2p3", "n2c5h9w8o33k3p2", "c1h40w3o5k3p1", "c10h6w5o64k3p1g2",
    # more zeros than the kernel reaches, on one side or both; kernels that end before the input begins
    "c6h3w2o9k2p9", "c40h3w2o9k2p9_0", "c40h2w3o9k3p0_9s2", "n2c8h9w2o5k4s4ph2pw9_0", "n2c64h9w2o5k4s4ph2pw9_0", "c3h2w1o5k1p1_0s2",
    "n3c33h14w1o17kh1kw1sh3sw1ph1_2pw0",
    # outputs one pixel wide
    "c15h4w2o15k1s2", "c9h3w9o64kh1kw2sw4ph3_5pw0", "c33h5w3o8kh3kw2sh2sw3ph1pw0", "c6h7w1o8k3p1", "n3c31h6w3o16k2s4",
    # outputs side by side: of groups, with rests of lines, of gangs and of tiles; strides; rows and slices of few
    "n2c40h6w9o20k3p1g5", "c36h9w17o36k3p1g9", "n2c22h9w8o22k3p1g2", "c16h9w18o16k3p1s2g4", "c64h5w19o5k5p2", "c3h70w31o2k3p1",
    "n2c24h9w15o24k3p1g3", "c40h7w13o40k5p2g5", "c16h6w10o32k3p1g4", "c24h5w6o24kh1kw3ph0pw1g12",
    "c20d3h5w9o12k3p1g4", "c33h7w9o16k3p1", "c40h30w4o16k1", "c6h20w21o6k4p2_1s3g2",
    # patches of one step and of two, made two and four at a time of up to five kernel rows, for rows of one and of four registers
    "n2c3h17w19o33k3p1s2", "c3h12w13o40k4s4", "c1h9w21o48k5p2", "n2c2d4h6w9o24k2", "c1h9w20o8k3p1", "c4h11w9o40k3p1",
    # signals, and volumes whose slices are taps or images of their own
    "n2c17w50o33k3p1", "c40w90o20k5p4dil2s3", "c3w200o40k9p4g1", "c5d4h7w6o7k3p1", "n2c17d5h9w9o33k3p1sd2sh1sw1",
    "c9d7h8w8o20kd3kh3kw3p2_1dild2dilh1dilw1", "n2c33d3h4w5o40k3p3s2", "c40d3h4w5o9kd1kh3kw3pd0ph1pw1", "n2c20d3h4w5o9k1",
    "c8h7w9o8k3p2reflect", "c40d3h7w6o8k3p1replicate", "c8h5w9o8k3p1s2circular", "n2c5w40o6k5p4_0reflect",
    *CHUNKED,
)  # fmt: skip


def plan_of(given_, on=None):
    """The plan for a problem in its own layout, and with its own padding."""
    p = given_.problem
    algorithm = SPLIT if PLANES.unsupported(p, given_.epilogue, machine()) else PLANES
    posed = posed_to(algorithm, p)
    plan = algorithm.plan(posed, Weights(given_.weight, given_.bias, p.groups), given_.epilogue, on or machine())
    plan = plan if algorithm.native(p) else ChannelsFirst(plan, posed)
    return plan if posed is p else PaddedCopy(plan, p)


def run(plan, given_, threads=1):
    out = np.full(given_.problem.output_shape, np.nan, np.float32)
    plan.run(given_.x, out, given_.residual, threads=threads)
    return out


def parsed(text, layout="channels_last"):
    return replace(ConvProblem.parse(text), layout=layout)


def both_parts(given_, name):
    """Whole numbers of which those of one operand need both halves, and those of the other do not: products are exact."""
    return replace(given_, **{name: getattr(given_, name) * (2 ** (BITS - 1) + 1)})


# --- exact on whole numbers ---------------------------------------------------------------------------------------


@given(
    operands(every_kind().map(lambda p: replace(p, dtype="f32"))),
    st.sampled_from(("x", "weight")),
    st.sampled_from(MACHINES),
    st.integers(1, min(THREADS, 2)),
)
@settings(max_examples=300)
def test_they_equal_the_oracle_on_whole_numbers(given_, large, on, threads):
    given_ = both_parts(given_, large)
    np.testing.assert_array_equal(run(plan_of(given_, on), given_, threads), given_.oracle(), strict=True)


@every_layout
@pytest.mark.parametrize("text", CORNERS)
def test_corners_equal_the_oracle(text, layout):
    whole = make_operands(parsed(text, layout), whole_numbers, bias=True, residual=True, activation="relu")
    for large in ("x", "weight"):
        given_ = both_parts(whole, large)
        for on in MACHINES:
            np.testing.assert_array_equal(run(plan_of(given_, on), given_), given_.oracle(), strict=True)


def test_the_machines_cut_in_different_ways():
    g = geometry(parsed("n2c17h9w11o65k3p1"))
    whole, tiny, small, _ = (SPLIT.cut(g, on).fields for on in MACHINES)
    assert whole["line_block"] == 9 > small["line_block"] > tiny["line_block"] == 1
    assert tiny["column_block"] == 1 < g["panels_per_group"] <= whole["column_block"]
    for text in CHUNKED:
        chunks = [SPLIT.cut(geometry(parsed(text)), on).fields["chunks"] for on in (machine(), CHUNKS)]
        assert chunks[0] == 1 < chunks[1]
    # sums of so many output channels would not fit the workspace from chunk to chunk
    large = parsed("c768h65w65o2048k5p2")
    assert SPLIT.cut(geometry(large), replace(machine(), l2=2 << 20)).fields["chunks"] == 1
    assert SPLIT.too_large(SPLIT.estimate(large, replace(machine(), l2=2 << 20))) is None


def test_corners_have_all_kinds_of_patches():
    cuts = [SPLIT.cut(geometry(parsed(text)), machine()).fields for text in CORNERS]
    patched = [fields for fields in cuts if fields["patch_pitch"] > 0]
    assert {fields["steps"] for fields in patched} == {1, 2}
    assert {fields["patches_together"] for fields in patched} == set(TOGETHER)
    assert {fields["registers"] for fields in patched} == {2, TALL}
    assert any(
        fields["position_bytes"] % 32 and not fields["patch_pitch"] and not fields["block_pitch"] for fields in cuts
    )
    assert {(fields["woven"], fields["outputs"]) for fields in cuts} >= {
        (0, 1),
        (0, 2),
        *((1, groups) for groups in WOVEN),
    }


@every_layout
@pytest.mark.parametrize("activation", PIECEWISE_LINEAR + TRANSCENDENTAL, ids=str)
def test_every_activation_follows_bias_and_residual(activation, layout):
    given_ = make_operands(
        parsed("c5h6w7o37k3p1", layout), whole_numbers, bias=True, residual=True, activation=activation
    )
    linear = reference_conv(given_.problem, given_.x, given_.weight, given_.bias, given_.residual)
    tolerance = 0 if activation in PIECEWISE_LINEAR else 8 * np.finfo(np.float32).eps * np.maximum(1, np.abs(linear))
    assert np.all(np.abs(run(plan_of(given_), given_) - given_.oracle(accumulate="f64")) <= tolerance)


@every_layout
def test_results_may_be_written_past_the_caches(monkeypatch, layout):
    monkeypatch.setattr(tiled, "results", lambda g, machine: {"streamed": 1})
    texts = "c20h6w7o64k3p1", "c3h6w7o96k3p1", "n2c40h5w7o32k1", "c20h6w7o40k3p1", "c20h6w7o33k3p1", "c5h4w32o9k3p1"
    for text in texts:
        # results that meet a residual are not streamed
        given_ = make_operands(parsed(text, layout), whole_numbers, bias=True)
        plan, expected = plan_of(given_), given_.oracle()
        # where rows are whole vectors at multiples of a cache line, and a few bytes beside
        for beside in (0, 4):
            out = aligned(expected.nbytes + 64)[beside : beside + expected.nbytes].view(np.float32)
            out = out.reshape(expected.shape)
            plan.run(given_.x, out, threads=1)
            np.testing.assert_array_equal(out, expected)


class _Apart(Split):
    """Outputs lie apart in the result, as those of a remainder do that a stride of a transposed convolution leaves."""

    def __init__(self, **steps):
        super().__init__(HALVES)
        self.steps = steps

    def cut(self, g, machine):
        cut = super().cut(g | self.steps, machine)
        return cut._replace(fields=self.steps | cut.fields)


#: Of results of 6 x 5 pixels: every other row and third column of larger ones; and every third pixel, every other image.
ROWS_APART = _Apart(image_step=180, slice_step=180, line_step=30, column_step=3), (2, 6, 2, 5, 3), np.s_[:, :, 0, :, 0]
IMAGES_APART = _Apart(image_step=180, slice_step=90, line_step=15, column_step=3), (2, 2, 6, 5, 3), np.s_[:, 0, :, :, 0]


@pytest.mark.parametrize("apart", (ROWS_APART, IMAGES_APART), ids=("rows", "images"))
@pytest.mark.parametrize("text", ("n2c7h6w5o40k3p1", "n2c40h6w5o7k3p1", "n2c40h6w5o40k1"))
def test_outputs_may_lie_steps_apart(text, apart):
    algorithm, shape, part = apart
    given_ = make_operands(parsed(text), whole_numbers, bias=True)
    p = given_.problem
    for on in MACHINES:
        plan = TiledPlan(algorithm, p, Weights(given_.weight, given_.bias, 1), given_.epilogue, on)
        out = np.full((*shape, p.c_out), 777, np.float32)
        plan.run_at(given_.x.ctypes.data, out.ctypes.data, 0, scratch(plan.scratch_bytes(1)), 1)
        np.testing.assert_array_equal(out[part], given_.oracle())
        assert np.count_nonzero(out == 777) >= out.size - given_.oracle().size


@every_layout
@pytest.mark.parametrize("text", ("c20h6w7o40k3p1", "c3h6w7o40k3p1"))
def test_new_weights_reach_the_tiles(text, layout):
    first, second = (make_operands(parsed(text, layout), whole_numbers, seed) for seed in (1, 2))
    weights = Weights(first.weight, None, 1)
    plan = (PLANES if layout == "channels_first" else SPLIT).plan(first.problem, weights, first.epilogue, machine())
    np.testing.assert_array_equal(run(plan, first), first.oracle())
    weights.replace(second.weight)
    np.testing.assert_array_equal(run(plan, second), second.oracle())


# --- errors -------------------------------------------------------------------------------------------------------


def assert_within_bound(y, given_):
    """Each operand misses half a bit of its parts, and the product of the low parts one of both; sums are rounded as sums are.

    Scaled operands miss a bit of what their scale is for, besides.
    """
    p = given_.problem
    exact = given_.oracle(accumulate="f64")
    given_ = replace(given_, **{a: np.abs(getattr(given_, a)) for a in ("x", "weight")}, activation=None)
    size = reference_conv(replace(p, bias=False), given_.x, given_.weight)
    around = reference_conv(
        replace(p, bias=False), np.full_like(given_.x, np.abs(given_.x).max(initial=0)), given_.weight
    )
    terms = p.taps * p.c_in // p.groups + 4
    eps = np.finfo(np.float32).eps
    # the activations here stretch nothing by more than a tenth
    tolerance = 1.1 * (2.0 ** (1 - 2 * BITS) + np.sqrt(terms) * eps) * size + 8 * eps * np.maximum(np.abs(exact), size)
    tolerance += 2.0**-25 * around if HALVES.scaled else 0
    assert y.shape == exact.shape and y.dtype == np.float32
    assert np.all(np.abs(y - exact) <= tolerance + 8 * eps), np.max(np.abs(y - exact) / tolerance)


@given(operands(every_kind().map(lambda p: replace(p, dtype="f32")), normals, PIECEWISE_LINEAR + TRANSCENDENTAL))
@settings(max_examples=50)
def test_errors_are_those_of_two_halves_an_operand(given_):
    assert_within_bound(run(plan_of(given_), given_), given_)


def relative_error(y, exact):
    """Root mean square of the error over that of the result."""
    return np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))


@pytest.mark.parametrize(
    "text", ("c4h24w24o32k3", "c32h24w24o32k3", "c256h24w24o32k1", "c256h12w12o32k3", "c3h30w30o32k7s2")
)
@pytest.mark.parametrize("x_scale, weight_scale", ((1, 1), (1e30, 1e-30), (1e-30, 1e3), (1e30, 1e3), (1e-15, 1e-15)))
def test_the_stated_error_is_a_bound_and_not_a_loose_one(text, x_scale, weight_scale):
    given_ = make_operands(parsed(text), normals)
    given_ = replace(given_, x=given_.x * np.float32(x_scale), weight=given_.weight * np.float32(weight_scale))
    exact = given_.oracle(accumulate="f64")
    error = relative_error(run(plan_of(given_), given_), exact)
    # float32's own rounding is part of it
    assert 0.3 * HALVES.error < error <= HALVES.error


# --- numbers at the end of what there is --------------------------------------------------------------------------

SPOILED = "n2c8h9w10o20k3p1", "n2c40h9w10o33k3p1", "n2c40w60o33k3p1", "n2c20h7w8o40k1", "c40h9w10o33k3p1s2"


@pytest.mark.parametrize("value", NON_FINITE)
@pytest.mark.parametrize("text", SPOILED)
def test_what_is_not_finite_reaches_all_outputs_that_direct_sums_spoil(text, value):
    given_ = make_operands(parsed(text), normals, bias=True)
    p = given_.problem
    x, weight = given_.x.copy(), given_.weight.copy()
    x[0, ..., 5, 3] = x[(0,) * (x.ndim - 1)] = value
    weight[7, 2, ..., 0] = value
    for changed in ({"x": x}, {"weight": weight}):
        spoiled = replace(given_, **changed)
        y, direct = run(plan_of(spoiled), spoiled), spoiled.oracle()
        hit = ~np.isfinite(direct)
        assert np.isnan(y[hit]).all() and 0 < hit.sum() < hit.size
        if "x" in changed and SPLIT.cut(geometry(p), machine()).fields["block_pitch"]:
            # channels in blocks: pixels beside a kernel are not looked at; weights meet the zeros of padding, too
            np.testing.assert_array_equal(np.isnan(y), hit)
        beside = ~np.isnan(y)
        assert bits(y[beside]) == bits(run(plan_of(given_), given_)[beside])
        assert not ("x" in changed and np.isnan(y[p.n // 2 :]).any() and p.n > 1)


@pytest.mark.parametrize("bit_pattern", (0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0xFF80FFFF))
def test_every_nan_stays_one(bit_pattern):
    given_ = make_operands(parsed("c40h3w4o33k1"), whole_numbers)
    nan = np.uint32(bit_pattern).view(np.float32)
    x, weight = given_.x.copy(), given_.weight.copy()
    x[0, 1, 2, 17], weight[32, 39] = nan, nan
    for changed in ({"x": x}, {"weight": weight}):
        spoiled = replace(given_, **changed)
        np.testing.assert_array_equal(kinds(run(plan_of(spoiled), spoiled)), kinds(spoiled.oracle()))


def test_large_numbers_stay_and_denormal_ones_vanish():
    given_ = make_operands(parsed("c32h4w5o32k1"), whole_numbers)
    identity = np.eye(32, dtype=np.float32).reshape(32, 32, 1, 1)
    # bfloat16 rounds the last ones up to infinity, and has no low parts of the smallest
    last = np.finfo(np.float32).max if HALVES.scaled else np.uint32(0x7F7F7FFF).view(np.float32)
    for value in (3.3e38, last, 1.2e-37, 0.0):
        full = replace(given_, x=np.full_like(given_.x, value), weight=identity)
        np.testing.assert_allclose(run(plan_of(full), full), full.x, rtol=2e-5 if value > 1 or HALVES.scaled else 5e-3)
    for value in (1e-39, 1e-45):
        small = replace(given_, x=np.full_like(given_.x, value), weight=identity)
        assert np.all(np.abs(run(plan_of(small), small)) <= value)


# --- the same bits, nothing beside --------------------------------------------------------------------------------

MANY = (
    "n3c20h14w15o70k3p1",
    "n3c8h9w11o40k3p1s2",
    "n3c70h7w9o100k1",
    "n3c40w90o33k3p1",
    "n2c20d3h5w6o33k3p1",
    "n2c48h9w9o96k3p1g3",
    "n2c44h9w9o44k3p1g11",
)


@every_layout
@pytest.mark.parametrize("text", MANY)
def test_neither_threads_nor_blocks_nor_the_batch_change_a_bit(text, layout):
    given_ = make_operands(parsed(text, layout), normals, bias=True, residual=True, activation="silu")
    one = run(plan_of(given_), given_)
    for on in MACHINES:
        for threads in range(1, THREADS + 1):
            assert bits(run(plan_of(given_, on), given_, threads)) == bits(one)
    alone = replace(
        given_, problem=replace(given_.problem, n=1), x=given_.x[1:2].copy(), residual=given_.residual[1:2].copy()
    )
    assert bits(run(plan_of(alone), alone)) == bits(one[1:2])


@pytest.mark.parametrize("text", CHUNKED)
def test_nor_do_they_where_channels_come_in_chunks(text):
    given_ = make_operands(replace(parsed(text), n=2), normals, bias=True, residual=True, activation="silu")
    one = run(plan_of(given_, CHUNKS), given_)
    for threads in range(2, THREADS + 1):
        assert bits(run(plan_of(given_, CHUNKS), given_, threads)) == bits(one)
    alone = replace(
        given_, problem=replace(given_.problem, n=1), x=given_.x[1:2].copy(), residual=given_.residual[1:2].copy()
    )
    assert bits(run(plan_of(alone, CHUNKS), alone)) == bits(one[1:2])


@pytest.mark.parametrize(
    "text", ("n2c20h9w10o37k3p1", "n2c5h8w9o40k3p1s2", "n2c40h5w6o33k1", "c40w50o20k5p2", "n2c96h5w6o66k3p1g3")
)
def test_pixels_may_lie_apart_and_nothing_is_written_between_them(text):
    given_ = make_operands(parsed(text), normals, residual=True)
    plan, p = plan_of(given_), given_.problem
    wide_x = np.full((p.n, *p.spatial, p.c_in + 9), np.nan, np.float32)
    wide_x[..., 4:-5] = given_.x
    wide_r = np.full((*p.output_shape[:-1], p.c_out + 5), np.nan, np.float32)
    wide_r[..., 5:] = given_.residual
    wide_out = np.full((*p.output_shape[:-1], p.c_out + 7), 777, np.float32)
    plan.run(wide_x[..., 4:-5], wide_out[..., 3:-4], wide_r[..., 5:], threads=1)
    np.testing.assert_array_equal(wide_out[..., 3:-4], run(plan, given_))
    assert np.all(wide_out[..., :3] == 777) and np.all(wide_out[..., -4:] == 777)


def test_nothing_is_read_or_written_beside_tensors_and_workspace(python):
    assert int(python(guarded("test_split", "[(on,) for on in MACHINES]")).stdout) > 300


# --- those who use it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layer_runs_it_in_either_layout_and_without_a_batch(layout):
    given_ = make_operands(parsed("n2c20h13w14o24k3p1", layout), whole_numbers, bias=True, activation="relu")
    layer = nc.Conv2d(
        given_.weight, given_.bias, padding=1, activation="relu", algorithm=SPLIT.name, accuracy=USUAL, layout=layout
    )
    assert layer.plan(given_.x.shape).algorithm == SPLIT.name
    np.testing.assert_array_equal(layer(given_.x), given_.oracle())
    np.testing.assert_array_equal(layer(given_.x[1]), given_.oracle()[1])
    with pytest.raises(nc.UnsupportedError, match="spreads NaN"):
        given_.conv(SPLIT.name, accuracy="strict")


def test_a_large_dense_layer_runs_it_unless_told_otherwise(rng):
    x, weight = normals(rng, (1, 28, 28, 256), np.float32), normals(rng, (256, 256, 1, 1), np.float32)
    y, direct = (nc.Conv2d(weight, layout="channels_last", accuracy=accuracy) for accuracy in (USUAL, "strict"))
    assert y.plan(x.shape).algorithm == SPLIT.name != direct.plan(x.shape).algorithm
    assert 0 < relative_error(y(x), direct(x)) <= 2 * HALVES.error


INVERTED = "n2c64h20w21o128k1cl", "n2c128h20w21o128k3s2p1g128cl", "n2c128h10w11o48k1cl"


@pytest.mark.parametrize("fill", (whole_numbers, normals))
@pytest.mark.parametrize("on", (machine(), SMALL), ids=("few strips", "many strips"))
def test_strips_are_the_three_steps(fill, on):
    accuracy, rng = Accuracy.of(USUAL), np.random.default_rng(3)
    chain = [replace(ConvProblem.parse(text), bias=True) for text in INVERTED]
    activations = Activation.of("relu6"), Activation.of("relu"), IDENTITY
    pairs = [(fill(rng, p.weight_shape, p.np_dtype), fill(rng, (p.c_out,), p.np_dtype)) for p in chain]
    x, residual = (fill(rng, shape, np.float32) for shape in (chain[0].input_shape, chain[-1].output_shape))
    stages = [Stage(p, Weights(*pair, p.groups), a) for p, pair, a in zip(chain, pairs, activations)]
    block = Bottleneck(*chain, accuracy)
    assert isinstance(block.dense(block.strip(on).expand, on), Split)
    plan = BottleneckPlan(*stages, True, on, accuracy)
    results = []
    for threads in range(1, THREADS + 1):
        results.append(np.full(chain[-1].output_shape, np.nan, np.float32))
        plan.run(x, results[-1], residual, threads=threads)
    assert len({bits(y) for y in results}) == 1
    judged = x
    for p, pair, activation in zip(chain, pairs, activations):
        judged = reference_conv(p, judged, *pair, residual if p is chain[-1] else None, activation)
    if fill is whole_numbers:
        np.testing.assert_array_equal(results[0], judged)
    else:
        assert 0 < relative_error(results[0], judged) <= USUAL


def test_pytorch_agrees(rng):
    torch = pytest.importorskip("torch")
    for shape, groups, options in (
        ((48, 32, 3, 3), 1, {"padding": 1}),
        ((48, 32, 3, 3), 1, {"padding": 3, "dilation": 3}),
        ((40, 32, 5, 5), 1, {"padding": 2, "stride": 2}),
        ((64, 16, 1, 1), 2, {}),
        ((20, 32, 1, 7), 1, {"padding": (0, 3)}),
    ):
        x, weight = normals(rng, (2, 32, 25, 26), np.float32), normals(rng, shape, np.float32)
        y = nc.conv2d(x, weight, **options, groups=groups, algorithm=SPLIT.name, accuracy=USUAL)
        judged = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight), **options, groups=groups).numpy()
        assert relative_error(y, judged) <= 2 * HALVES.error


@pytest.mark.skipif(cache_folder() is None, reason="compiled kernels are kept nowhere")
def test_a_second_process_finds_them_compiled(python):
    given_ = make_operands(parsed("c20h6w7o40k3p1"), whole_numbers)
    run(plan_of(given_), given_)
    done = python(
        """
        from numbaconv.codegen.jit import on_compile
        from strategies import make_operands, whole_numbers
        from test_split import parsed, plan_of, run

        given, compiled = make_operands(parsed("c20h6w7o40k3p1"), whole_numbers), []
        with on_compile(lambda name, seconds: compiled.append(name)):
            y = run(plan_of(given), given)
        print(compiled, (y == given.oracle()).all())
        """,
        NUMBACONV_CACHE_DIR=str(Path(cache_folder()).parent),
    )
    assert done.stdout == "[] True\n"
