"""Winograd: exact matrices, errors within the stated bound, and everything that holds for the other algorithms."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from strategies import (
    NON_FINITE,
    PIECEWISE_LINEAR,
    TRANSCENDENTAL,
    assert_rounded,
    bits,
    kinds,
    make_operands,
    normals,
    problems,
)

import numbaconv as nc
from numbaconv.accuracy import DEFAULT
from numbaconv.algorithms import ALGORITHMS, winograd_blocks
from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.weights import Weights
from numbaconv.algorithms.winograd import Winograd
from numbaconv.codegen.cook_toom import MAX_POINTS, construct, transforms
from numbaconv.codegen.linear import program
from numbaconv.dispatch.select import best
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.machine import Rates, machine
from numbaconv.problem import ConvProblem

THREADS = numba.config.NUMBA_NUM_THREADS
VARIANTS = {algorithm.m: algorithm for algorithm in ALGORITHMS if algorithm.name == "winograd"}
#: The same for weights that are kept as they are, whose kernels are transformed on the way.
ON_THE_WAY = {m: Winograd(m, forms=(False,)) for m in VARIANTS}
#: The one of these that problems besides 3x3 are tried with, each of which compiles a transform of its own.
M = 4
SIZES = [(m, r) for m in range(1, 9) for r in range(1, 9) if m + r - 1 <= MAX_POINTS and (m, r) not in ((1, 2), (2, 1))]
#: Sets of tiles, phases, groups, images without a whole tile, K in several pieces, and outputs beyond every tile.
CORNERS = (
    "c3h1w1o5k3p1", "n3c17h5w9o33kh3kw1ph1", "c16h4w9o40kh1kw5pw2", "c20h13w12o20k3p7dil7", "c8h3w3o9k3p9dil9",
    "n2c12h9w11o20k5s2p2", "c4h12w12o8k5s3p1", "c30h7w7o50k3p1g5", "c70h6w6o66k3p1g2", "n0c8h8w8o8k3", "c9h9w9o7k4p3_0f64",
    "c1800h5w4o10k3p1", "n2c33h6w7o130k3p1", "c5h20w3o6kh2kw3p1s2",
    # signals, volumes whose slices are taps, images of their own or rows; in chunks that share slices
    "n2c17w50o33k3p1", "c5w40o6k5p4dil2", "c5d4h7w6o7k3p1", "n2c17d5h9w9o33k3p1sd2sh1sw1",
    "c9d7h8w8o20kd3kh3kw3p2_1dild2dilh1dilw1", "c9d7h8w8o12k3s2p1", "c8d3h8w8o8kd1kh3kw3pd0ph1pw1", "c8d8h3w3o8kd3kh1kw1pd1ph0pw0",
    "c10d4h5w6o20k3p1g5", "c40d60h5w5o20k3p1", "c300d3h4w4o10k3p1", "c3d2h6w6o8k3p3f64",
    # kernels in pieces: more than one tile and phase, one output, dilated sets that end early, rows of an image
    "c5w60o7k11p5", "n2c9w77o33k15p7dil3", "c6w90o6k21s2p10", "c16h6w40o20kh3kw12ph1pw6", "c30w64o30k13p6g3", "c17w33o9k31p15f64",
    "c8w40o8k13p6reflect",
    "c8h7w9o8k3p2reflect", "c8d3h7w6o8k3p1reflect", "c8h5w9o8k3p1s2circular", "c8d3h4w5o8k3p2replicate",
)  # fmt: skip


def plan_of(given_, m, variants=VARIANTS):
    """The plan of one F."""
    algorithm, p = variants[m], given_.problem
    plan = algorithm.plan(p, Weights(given_.weight, given_.bias, p.groups), given_.epilogue, machine())
    return plan if algorithm.native(p) else ChannelsFirst(plan, p)


def run(plan, given_, threads=1):
    out = np.full(given_.problem.output_shape, np.nan, given_.problem.np_dtype)
    plan.run(given_.x, out, given_.residual, threads=threads)
    return out


def assert_within_bound(y, given_, m):
    """Rounding errors of F's size."""
    assert_rounded(y, given_, VARIANTS[m].rms_error(given_.problem))


# --- the construction -------------------------------------------------------------------------------------------


def interpret(program_, values):
    """Run a straight-line program in exact arithmetic."""
    values = list(values)
    for name, *operands in program_.operations:
        if name == "add":
            values.append(values[operands[0]] + values[operands[1]])
        elif name == "sub":
            values.append(values[operands[0]] - values[operands[1]])
        elif name == "mul":
            values.append(operands[0] * values[operands[1]])
        else:
            values.append(operands[0] * values[operands[1]] + values[operands[2]])
    return [Fraction(0) if i is None else values[i] for i in program_.outputs]


@pytest.mark.parametrize("m, r", SIZES)
def test_transforms_give_the_correlation_exactly(m, r, rng):
    t = transforms(m, r)
    data = [Fraction(int(x)) for x in rng.integers(-9, 10, m + r - 1)]
    kernel = [Fraction(int(x)) for x in rng.integers(-9, 10, r)]
    transformed = [sum(g * w for g, w in zip(row, kernel)) for row in t.kernel]
    products = [u * v for u, v in zip(transformed, interpret(program(t.input), data))]
    expected = [sum(data[i + j] * kernel[j] for j in range(r)) for i in range(m)]
    assert interpret(program(t.output), products) == expected


@pytest.mark.parametrize("m, r", SIZES)
def test_programs_are_products_with_their_matrix_in_fewer_operations(m, r, rng):
    t = transforms(m, r)
    for matrix in (t.input, t.output):
        values = [Fraction(int(x)) for x in rng.integers(-9, 10, len(matrix[0]))]
        compiled = program(matrix)
        assert interpret(compiled, values) == [sum(a * x for a, x in zip(row, values)) for row in matrix]
        # a multiplication or fused multiply-add an entry is what a row alone would take
        assert len(compiled.operations) <= sum(map(bool, sum(matrix, ())))


def test_pairs_of_points_share_their_halves():
    # 36 multiplications and additions row by row
    assert len(program(transforms(4, 3).input).operations) == 12
    assert len(program(transforms(4, 3).output).operations) <= 13


@pytest.mark.parametrize("points", ((0, 1), (0, 1, 1), (0, 1, -1, 2, 3)))
def test_points_that_do_not_determine_a_polynomial_are_refused(points):
    with pytest.raises(ValueError, match="different points"):
        construct(2, 3, tuple(map(Fraction, points)))


# --- errors -----------------------------------------------------------------------------------------------------


@st.composite
def square_problems(draw) -> ConvProblem:
    """Problems of 3x3 kernels, with one stride for both axes: every size of F is compiled for itself, and corners have others."""
    problem, stride = draw(problems(kernels=st.just(3))), draw(st.sampled_from((1, 1, 2)))
    dense = replace(problem, stride=(stride, stride), dilation=problem.dilation if stride == 1 else (1, 1))
    return dense if stride == 1 or dense.groups == 1 else replace(dense, stride=(1, 1))


@pytest.mark.parametrize("m", VARIANTS)
@given(problem=square_problems(), data=st.data())
@examples(max_examples=40)
def test_every_variant_is_within_its_bound_of_the_oracle(m, problem, data):
    assert VARIANTS[m].unsupported(problem, None, machine()) is None
    seed, residual = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.booleans())
    activation = data.draw(st.sampled_from(PIECEWISE_LINEAR + TRANSCENDENTAL))
    given_ = make_operands(problem, normals, seed, residual=residual, activation=activation)
    variants = data.draw(st.sampled_from((VARIANTS, ON_THE_WAY)))
    assert_within_bound(run(plan_of(given_, m, variants), given_), given_, m)


@pytest.mark.parametrize("m", VARIANTS)
@pytest.mark.parametrize("text", CORNERS)
def test_corners_are_within_their_bound(text, m):
    problem = ConvProblem.parse(text + ("cf" if m % 2 else "cl"))
    if (reason := VARIANTS[m].unsupported(problem, None, machine())) is not None:
        assert "points" in reason
        return
    given_ = make_operands(problem, normals, bias=True, residual=True, activation="relu")
    for variants in (VARIANTS, ON_THE_WAY) if m == M else (VARIANTS,):
        assert_within_bound(run(plan_of(given_, m, variants), given_), given_, m)


def relative_error(y, exact):
    """Root mean square of the error over that of the result."""
    return np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2))


@pytest.mark.parametrize("kernel", ("k2", "k3", "k4", "k5", "kh1kw3", "kh5kw1", "kh1kw7", "k3s2", "k5s2"))
@pytest.mark.parametrize("c_in", (4, 32, 256))
def test_the_stated_error_is_a_bound_and_not_a_loose_one(kernel, c_in):
    problem = ConvProblem.parse(f"c{c_in}h24w24o32{kernel}cl")
    given_ = make_operands(problem, normals)
    wide = {name: a.astype(np.float64) for name, a in (("x", given_.x), ("weight", given_.weight))}
    exact = nc.conv2d(**wide, stride=problem.stride, layout="channels_last")
    for m, algorithm in VARIANTS.items():
        if algorithm.unsupported(problem, given_.epilogue, machine()) is None:
            error = relative_error(run(plan_of(given_, m), given_), exact)
            assert 0.3 * algorithm.rms_error(problem) < error <= algorithm.rms_error(problem), m
            if m == M:
                # rounded more often, but summed in pieces
                error = relative_error(run(plan_of(given_, m, ON_THE_WAY), given_), exact)
                assert 0.2 * algorithm.rms_error(problem) < error <= algorithm.rms_error(problem)


# --- kernels that are transformed on the way --------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, cold",
    (("c256h14w14o256k3p1cl", True), ("c512h7w7o512k3p1cl", True), ("c64h56w56o64k3p1cl", False)),
)
def test_weights_that_come_from_memory_are_transformed_on_the_way_where_few_tiles_meet_them(text, cold):
    g = geometry(ConvProblem.parse(text))
    for kept, expected in ((True, False), (False, cold)):
        on = replace(machine(), l2=2 << 20, rates=Rates(far_bytes=4.6), weights_kept=kept)
        cut = VARIANTS[M].cut(g, on)
        assert (cut.fields["kernel_block"] > 0) == expected


def test_they_are_read_where_direct_sums_find_them():
    given_ = make_operands(ConvProblem.parse("c40h9w9o70k3p1cl"), normals)
    weights = Weights(given_.weight, given_.bias, 1)
    plan = ON_THE_WAY[M].plan(given_.problem, weights, given_.epilogue, machine())
    before = run(plan, given_)
    changed = replace(given_, weight=normals(np.random.default_rng(5), given_.weight.shape, np.float32))
    weights.replace(changed.weight)
    after = run(plan, given_)
    assert_within_bound(before, given_, M)
    assert_within_bound(after, changed, M)
    assert plan._default.record["panels"] == weights.panels.ctypes.data


# --- the budget -------------------------------------------------------------------------------------------------


BIG = ConvProblem.parse("c64h56w56o64k3p1cl")


def winograd_rows(accuracy):
    return [row for row in nc.explain(BIG, accuracy=accuracy).rows if row.algorithm == "winograd"]


def test_by_default_a_dense_layer_runs_as_winograd_where_no_matrix_tiles_are():
    here = replace(machine(), features="")
    assert best(BIG, Epilogue(), here, DEFAULT).algorithm.name == "winograd"


def test_a_budget_excludes_variants_that_cannot_meet_it():
    for accuracy in (1e-5, 2e-6, 1e-6, 5e-7, 1e-9):
        for row in winograd_rows(accuracy):
            m = int(row.variant[2])
            assert (row.reason is None) == (VARIANTS[m].rms_error(BIG) <= accuracy)
            assert row.reason is None or "exceeds" in row.reason
    assert not any(row.reason is None for row in winograd_rows(1e-9))


def test_strict_excludes_them_all():
    assert all("NaN" in row.reason for row in winograd_rows("strict"))
    with pytest.raises(nc.UnsupportedError, match="NaN"):
        make_operands(BIG, normals).conv("winograd", accuracy="strict")


def test_the_budget_of_the_process_holds_for_layers_without_their_own(rng):
    x, weight = normals(rng, (1, 56, 56, 64), np.float32), normals(rng, (64, 64, 3, 3), np.float32)
    free = nc.Conv2d(weight, padding=1, layout="channels_last")
    own = nc.Conv2d(weight, padding=1, layout="channels_last", accuracy="strict")
    before = nc.get_accuracy()
    try:
        nc.set_accuracy()
        assert nc.get_accuracy() == 1e-5
        fastest = next(row.algorithm for row in nc.explain(BIG, accuracy=1e-5).rows if row.chosen)
        assert (free.plan(x.shape).algorithm, own.plan(x.shape).algorithm) == (fastest, "indirect")
        close = free(x)
        nc.set_accuracy("strict")
        assert nc.get_accuracy() == "strict" and free.plan(x.shape).algorithm == "indirect"
        assert bits(free(x)) == bits(own(x)) != bits(close)
    finally:
        nc.set_accuracy(before)


@pytest.mark.parametrize("accuracy", (0, -1e-5, float("nan"), float("inf"), "loose", True, [1e-5]))
def test_a_budget_that_means_nothing_is_refused(accuracy):
    before = nc.get_accuracy()
    for call in (
        nc.set_accuracy,
        lambda a: nc.explain(BIG, accuracy=a),
        lambda a: nc.Conv2d(np.ones((1, 1, 3, 3), "f4"), accuracy=a),
    ):
        with pytest.raises(nc.ConvError, match="accuracy="):
            call(accuracy)
    assert nc.get_accuracy() == before


@pytest.mark.parametrize("value", NON_FINITE)
def test_strict_keeps_non_finite_values_in_their_place_and_winograd_near_it(value, rng):
    x, weight = normals(rng, (1, 24, 24, 16), np.float32), normals(rng, (16, 16, 3, 3), np.float32)
    x[0, 11, 12, 3] = value
    direct = nc.conv2d(x, weight, padding=1, layout="channels_last", algorithm="direct")
    strict = nc.conv2d(x, weight, padding=1, layout="channels_last", accuracy="strict")
    np.testing.assert_array_equal(kinds(strict), kinds(direct))
    for m in VARIANTS:
        given_ = replace(make_operands(ConvProblem.parse("c16h24w24o16k3p1cl"), normals), x=x, weight=weight)
        hit = ~np.isfinite(run(plan_of(given_, m), given_)).all(-1)[0]
        rows, columns = np.nonzero(hit)
        # all outputs that the value belongs to, and nothing that shares no tile with them
        assert hit[10:13, 11:14].all()
        assert rows.min() > 10 - 2 * m and rows.max() < 13 + 2 * m
        assert columns.min() > 11 - 2 * m and columns.max() < 14 + 2 * m


# --- what holds for all algorithms -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", CORNERS + ("n3c20h30w31o40k3p1", "c40h14w14o130k3p1", "n2c24h9w9o200k5p2"))
def test_neither_threads_nor_the_batch_change_a_bit(text):
    for m, variants in (*((m, VARIANTS) for m in VARIANTS), (M, ON_THE_WAY)):
        given_ = make_operands(ConvProblem.parse(text + "cl"), normals, residual=True, activation="silu")
        if variants[m].unsupported(given_.problem, given_.epilogue, machine()) is not None:
            continue
        plan = plan_of(given_, m, variants)
        one = run(plan, given_)
        for threads in range(2, THREADS + 1):
            assert bits(run(plan, given_, threads)) == bits(one)
        if given_.problem.n > 1:
            alone = replace(
                given_,
                problem=replace(given_.problem, n=1),
                x=given_.x[1:2].copy(),
                residual=given_.residual[1:2].copy(),
            )
            assert bits(run(plan_of(alone, m, variants), alone)) == bits(one[1:2])


@pytest.mark.parametrize(
    "text",
    ("c16h20w18o40k3p1", "n3c40h23w14o130k3p1", "c20h13w12o70k3p7dil7", "n2c12h9w11o20k5s2p2", "c9h40w5o9k3p1f64"),
)
@pytest.mark.parametrize("rows", (13, 40))
def test_blocks_for_kernels_from_memory_change_no_bit(text, rows, monkeypatch):
    given_ = make_operands(ConvProblem.parse(text + "cl"), normals, residual=True, activation="relu")
    for m, algorithm in VARIANTS.items():
        expected, g = run(plan_of(given_, m), given_), geometry(given_.problem)
        fields = algorithm.cut(g, machine()).fields
        row = (
            fields["n_h"] * fields["n_w"] * (g["stride_h"] * g["stride_w"] * g["c_in"] * g["itemsize"] + 2 * PANEL_ROW)
        )
        with monkeypatch.context() as patch:
            patch.setattr(winograd_blocks, "L3_SHARE", 0)
            patch.setattr(winograd_blocks, "FAR_ROOM", rows * (row + fields["n_h"] * fields["n_w"] * 192))
            large = algorithm.cut(g, machine()).fields
            assert large["column_block"] == min(2, g["panels_per_group"])
            for threads in range(1, THREADS + 1):
                assert bits(run(plan_of(given_, m), given_, threads)) == bits(expected)


def test_several_blocks_are_easy_to_share():
    counts = {
        algorithm.cut(geometry(ConvProblem.parse(f"c{c}h{h}w{h}o{c}k3p1cl")), machine()).fields["lines"]
        for algorithm in VARIANTS.values() for c in (16, 64, 128) for h in (7, 14, 28, 56)
    }  # fmt: skip
    assert len(counts) > 2 and all(count == 1 or count % 2 == 0 for count in counts)


def test_kernels_from_memory_come_for_as_few_blocks_as_the_workspace_allows():
    def blocks(text):
        g = geometry(ConvProblem.parse(text))
        fields = VARIANTS[4].cut(g, machine()).fields
        return fields["lines"], fields["column_block"], fields["k_block"]

    assert blocks("c1024h30w30o1024k3cl") == (2, 2, 1024)
    assert blocks("c512h28w28o512k3p1cl")[1:] == (2, 512)
    # in the L3, and so many channels that a tile's rows do not fit
    assert blocks("c128h56w56o128k3p1cl")[1] == 4
    assert blocks("c8192h30w30o64k3p1cl")[2] < 8192


@pytest.mark.parametrize(
    "text", ("n2c20h9w10o37k3p1", "c18h11w12o40k3p2dil2", "n2c12h9w11o20k5s2p2", "c48h8w8o48k3p1g3")
)
def test_pixels_may_lie_apart_and_nothing_is_written_between_them(text):
    for m in VARIANTS:
        given_ = make_operands(ConvProblem.parse(text + "cl"), normals, residual=True)
        plan, p = plan_of(given_, m), given_.problem
        wide_x = np.full((p.n, *p.spatial, p.c_in + 9), np.nan, np.float32)
        wide_x[..., 4:-5] = given_.x
        wide_r = np.full((*p.output_shape[:-1], p.c_out + 5), np.nan, np.float32)
        wide_r[..., 5:] = given_.residual
        wide_out = np.full((*p.output_shape[:-1], p.c_out + 7), 777, np.float32)
        plan.run(wide_x[..., 4:-5], wide_out[..., 3:-4], wide_r[..., 5:], threads=1)
        np.testing.assert_array_equal(wide_out[..., 3:-4], run(plan, given_))
        assert np.all(wide_out[..., :3] == 777) and np.all(wide_out[..., -4:] == 777)


def test_a_layer_runs_it_in_either_layout_and_without_a_batch(rng):
    x, weight, bias = (normals(rng, shape, np.float32) for shape in ((20, 13, 14), (24, 20, 3, 3), (24,)))
    layer = nc.Conv2d(weight, bias, padding=1, activation="relu", algorithm="winograd", accuracy=1e-5)
    last = nc.Conv2d(
        weight, bias, padding=1, activation="relu", algorithm="winograd", accuracy=1e-5, layout="channels_last"
    )
    y = layer(x)
    assert layer.plan((1, 20, 13, 14)).algorithm == "winograd"
    np.testing.assert_array_equal(y, np.moveaxis(last(np.ascontiguousarray(np.moveaxis(x, 0, -1))), -1, 0))
    np.testing.assert_allclose(y, nc.conv2d(x, weight, bias, padding=1, activation="relu"), atol=1e-4)


@pytest.mark.parametrize(
    "text",
    (
        "c64h56w56o64k3p1",
        "c512h28w28o512k3p1",
        "c1024h30w30o1024k3",
        "c2048h33w33o256k3p12dil12",
        "n32c256h14w14o256k3p1",
        "c96h35w35o96k5p2",
    ),
)
def test_workspace_is_four_mebibytes_a_thread_at_most(text):
    for row in nc.explain(text, accuracy=1.0).rows:
        assert row.reason is not None or row.workspace_bytes <= 4 << 20


def test_pytorch_agrees(rng):
    torch = pytest.importorskip("torch")
    for shape, groups, options in (
        ((48, 32, 3, 3), 1, {"padding": 1}),
        ((48, 32, 3, 3), 1, {"padding": 3, "dilation": 3}),
        ((40, 32, 5, 5), 1, {"padding": 2, "stride": 2}),
        ((64, 16, 3, 3), 2, {"padding": 1}),
        ((20, 32, 1, 7), 1, {"padding": (0, 3)}),
    ):
        x, weight = normals(rng, (2, 32, 25, 26), np.float32), normals(rng, shape, np.float32)
        y = nc.conv2d(x, weight, **options, groups=groups, algorithm="winograd", accuracy=1e-5)
        judged = torch.nn.functional.conv2d(torch.tensor(x), torch.tensor(weight), **options, groups=groups).numpy()
        assert np.sqrt(np.mean((y - judged) ** 2) / np.mean(judged**2)) < 1e-5


@pytest.mark.parametrize(
    "volume, image",
    (
        ("c64d30h8w8o64kd3kh1kw1pd1ph0pw0", "c64h30w64o64kh3kw1ph1pw0"),
        ("c64d2h9w9o64kd1kh3kw3pd0ph1pw1", "n2c64h9w9o64k3p1"),
    ),
)
def test_a_volume_of_fewer_axes_errs_like_an_image(volume, image):
    for m, algorithm in VARIANTS.items():
        errors = [algorithm.rms_error(ConvProblem.parse(text + "cl")) for text in (volume, image)]
        assert errors[0] == errors[1] > ConvProblem.parse(image).eps / 4, m
