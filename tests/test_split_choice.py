"""Matrix tiles as a value: when they are refused and chosen, and where a cut puts what the tiles read.  Needs no such tiles."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import every_kind, problems

import numbaconv as nc
from numbaconv.accuracy import STRICT, Accuracy
from numbaconv.algorithms.bottleneck import Bottleneck
from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.pointwise import Pointwise
from numbaconv.algorithms.split import Split
from numbaconv.algorithms.split_planes import SplitPlanes
from numbaconv.codegen.amx import ROW_BYTES, ROWS
from numbaconv.codegen.halves import BFLOAT16, FLOAT16, halves_of
from numbaconv.codegen.target import TARGETS
from numbaconv.dispatch.select import best, rank
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.machine import machine
from numbaconv.problem import ConvProblem

SPLIT, PLANES = Split(FLOAT16), SplitPlanes(FLOAT16)
FEATURES, OLDER = "amx-fp16,amx-tile", "amx-bf16,amx-tile,avx512bf16"
#: This machine as if it had matrix tiles, and with a cache that holds next to nothing.
TILES = replace(machine(), isa="avx512", vector_bytes=64, features=FEATURES, l2=2 << 20)
TINY = replace(TILES, l2=1 << 10)
USUAL = Accuracy.of(1e-5)
BIG = ConvProblem.parse("c256h56w56o256k1cl")
#: Panels have another width where Numba generates other vectors, and so have estimates.
whole_panels = pytest.mark.skipif(
    PANEL_ROW != TARGETS["avx512"].vectors * 64, reason="the vectors are not those of AVX-512, nor are panels"
)


def refusal(problem=BIG, on=TILES):
    return SPLIT.unsupported(problem, Epilogue(), on)


def row(accuracy, on=TILES, problem=BIG, name=SPLIT.name):
    """What the ranking says of them."""
    return next(c for c in rank(problem, Epilogue(), on, Accuracy.of(accuracy)) if c.algorithm.name == name)


# --- refusals and choice ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", FEATURES.split(","))
def test_a_machine_that_lacks_an_instruction_is_told_which(missing):
    left = ",".join(feature for feature in FEATURES.split(",") if feature != missing)
    assert refusal() is None
    assert refusal(on=replace(TILES, features=left)) == f"the machine has no {missing}"


def test_float64_is_refused():
    assert refusal(replace(BIG, dtype="f64")) == "matrix tiles make no f64"


@pytest.mark.parametrize("isa", sorted(set(TARGETS) - {"avx512"}))
def test_vectors_that_are_asked_to_be_narrower_have_panels_that_do_not_fit_the_tiles(isa):
    assert refusal(on=replace(TILES, isa=isa)) == f"panels of {isa} are not two matrix tiles wide"


def test_pixels_that_do_not_fill_a_tile_are_left_to_float32():
    for text, few in (
        ("c512w1o512k1cl", True),
        ("c64h3w5o64k3p1cl", True),
        ("c64h4w4o64k3p1cl", False),
        ("n16c512w1o512k1cl", False),
    ):
        reason = refusal(ConvProblem.parse(text), on=TILES)
        assert (reason == "there are fewer pixels than a matrix tile has rows") == few


def test_only_who_can_spare_their_rounding_errors_gets_them():
    assert row(1e-5).reason is None and row(1e-6).reason is None
    assert "spreads NaN" in row("strict").reason
    assert "exceeds 1.0e-07" in row(1e-7).reason and "3.0e-07" in row(1e-7).reason
    older = replace(TILES, features=OLDER)
    assert row(1e-5, older, name="bf16x3").reason is None
    assert "5.5e-06 exceeds 1.0e-06" in row(1e-6, older, name="bf16x3").reason


def test_bfloat16_is_for_machines_that_do_not_multiply_float16():
    bfloats, older = Split(BFLOAT16), replace(TILES, features=OLDER)
    both = replace(TILES, features=f"{FEATURES},{OLDER}")
    assert (
        halves_of(both) is FLOAT16 and halves_of(older) is BFLOAT16 and halves_of(replace(TILES, features="")) is None
    )
    assert bfloats.unsupported(BIG, Epilogue(), older) is None
    assert (
        bfloats.unsupported(BIG, Epilogue(), both)
        == "the machine's matrix tiles multiply fp16, which is as fast and more exact"
    )
    assert refusal(on=both) is None and refusal(on=older) == "the machine has no amx-fp16"


def test_lines_that_no_workspace_holds_are_refused():
    wide = ConvProblem.parse("c512h3w20000o8k3cl")
    assert "its workspace would take" in row(1e-5, problem=wide).reason
    assert row(1e-5, problem=replace(wide, spatial=(20000, 3))).reason is None


@whole_panels
@pytest.mark.parametrize(
    "text", ("c256h56w56o256k1cl", "c512h7w7o512k3p1cl", "c128h56w56o128k3s2p1cl", "c256w4000o256k9cl")
)
def test_large_dense_layers_run_on_them_by_default(text):
    problem = ConvProblem.parse(text)
    assert best(problem, Epilogue(), TILES, USUAL).algorithm.name == SPLIT.name
    for accuracy, on in ((STRICT, TILES), (Accuracy(1e-7), TILES), (USUAL, replace(TILES, features=""))):
        assert best(problem, Epilogue(), on, accuracy).algorithm.name != SPLIT.name


@whole_panels
def test_planes_are_read_where_that_is_cheaper_than_transposing():
    for text, expected in (
        ("c64h56w56o256k1", PLANES), ("c256h28w28o512k1s2", PLANES), ("c3h224w224o64k7s2p3", PLANES),
        ("c512h28w28o512k3p1", SPLIT), ("c64h56w56o256k1cl", SPLIT),
    ):  # fmt: skip
        chosen = best(ConvProblem.parse(text), Epilogue(), TILES, USUAL)
        assert type(chosen.algorithm) is type(expected), text
        assert (chosen.cost.staging_bytes > 0) == (expected is SPLIT and not text.endswith("cl"))


def test_planes_refuse_what_no_vector_follows():
    assert PLANES.unsupported(BIG, Epilogue(), TILES) == "planes are those of channels-first tensors"
    for stride, reason in ((2, None), (3, "no vector follows strides of 3")):
        strided = replace(BIG, layout="channels_first", stride=(4, stride))
        assert PLANES.unsupported(strided, Epilogue(), TILES) == reason


def test_planes_of_few_channels_are_read_as_patches():
    for text, steps in (
        ("c3h9w9o8k7", 5),
        ("c3h9w9o8k3", 1),
        ("c32h9w9o8k3", 9),
        ("c33h9w9o8k1", 2),
        ("c64h9w9o64k3", 18),
    ):
        g = geometry(ConvProblem.parse(text), planes=True)
        assert PLANES.cut(g, TILES).fields["steps"] == steps, text


@whole_panels
def test_strips_have_them_where_the_accuracy_allows():
    texts = "c64h40w40o256k1cl", "c256h40w40o256k3p1g256cl", "c256h40w40o64k1cl"
    chain = [ConvProblem.parse(text) for text in texts]
    for accuracy, on, expected in ((USUAL, TILES, Split), (STRICT, TILES, Pointwise), (USUAL, machine(), None)):
        if expected is None:
            expected = Split if halves_of(on) else Pointwise
        block = Bottleneck(*chain, accuracy)
        assert all(isinstance(block.dense(p, on), expected) for p in (chain[0], chain[2]))


@given(every_kind(), st.sampled_from((TILES, TINY)))
@settings(max_examples=50)
def test_estimates_are_pure_and_not_below_their_bound(problem, on):
    problem = replace(problem, dtype="f32", padding_mode="zeros")
    cost, least = SPLIT.estimate(problem, on), SPLIT.least_seconds(problem, on)
    assert cost == SPLIT.estimate(problem, on) and cost.workspace_bytes > 0
    # none for outputs that meet padding only
    assert 0 <= least <= cost.seconds * (1 + 1e-9)
    assert SPLIT.least_seconds(BIG, on) > 0.2 * SPLIT.estimate(BIG, TILES).seconds


def test_the_bound_of_a_large_layer_is_most_of_its_estimate():
    assert SPLIT.least_seconds(BIG, TILES) > 0.5 * SPLIT.estimate(BIG, TILES).seconds


def cut_of(algorithm, text):
    """The geometry with its cut."""
    g = geometry(ConvProblem.parse(text), planes=algorithm.reads_planes)
    return g | algorithm.cut(g, TILES).fields


@whole_panels
def test_taps_that_lie_far_apart_leave_operands_to_wait_for():
    # as many steps, of 1.3 times as many positions, since lines have longer paddings
    near, far = (PLANES.gemm_cycles(cut_of(PLANES, f"c32h16w128o8kh1kw9pw{4 * d}dil{d}"), TILES) for d in (1, 12))
    assert far > 1.5 * near


def test_outputs_stand_abreast_where_few_channels_leave_room():
    for text, outputs in (
        ("c8h9w20o8k3cl", 2), ("c16h9w20o16k3g2cl", 2), ("c16h9w20o16k3g4cl", 4), ("c64h20w20o3k9cl", 4),
        ("c16h9w20o16k3s2g4cl", 3),
        # no room, no neighbour, nothing shared, taps apart
        ("c64h9w20o9k3cl", 1), ("c64h9w3o8k3cl", 1), ("c64h9w20o8k1cl", 1), ("c8h9w20o8k3dil2cl", 1), ("c96h9w20o8k3s3cl", 1),
    ):  # fmt: skip
        g = geometry(ConvProblem.parse(text))
        fields = SPLIT.cut(g, TILES).fields
        assert fields["outputs"] == outputs and fields["row_pixels"] in (1, g["w_out"])
        assert fields["registers"] == 4 and outputs * g["c_out"] <= ROWS


@whole_panels
def test_narrow_pixels_of_groups_are_split_one_by_one():
    alone, grouped = (
        SPLIT.extra_cycles(None, cut_of(SPLIT, text), TILES) for text in ("c5h56w56o8k3p1cl", "c15h56w56o24k3p1g3cl")
    )
    assert grouped > 2 * 3 * alone


@whole_panels
def test_strided_pixels_take_longer_to_split():
    every, second = (PLANES.extra_cycles(None, cut_of(PLANES, f"c64h1w{64 * s}o64k1s{s}"), TILES) for s in (1, 2))
    assert second > 1.3 * every


@whole_panels
def test_rows_of_planes_from_beyond_the_l2_come_by_the_line():
    pixels, planes = (
        algorithm.far_cycles(cut_of(algorithm, f"c656h71w71o32k3s2p1{layout}"), TILES)
        for algorithm, layout in ((SPLIT, "cl"), (PLANES, "cf"))
    )
    assert planes > 2 * pixels


def test_explain_tells_why_they_are_refused():
    shown = next(r for r in nc.explain(BIG, accuracy="strict").rows if r.algorithm == SPLIT.name)
    assert shown.reason == (refusal(on=machine()) or "spreads NaN and infinity beyond their place")


# --- where things lie ---------------------------------------------------------------------------------------------


@st.composite
def blocks(draw):
    """Geometry and cut of a problem on a machine, whose cache may hold one line."""
    problem = replace(draw(st.sampled_from((1, 2, 2, 3)).flatmap(lambda axes: problems(axes=axes))), dtype="f32")
    g = geometry(problem)
    return g, SPLIT.cut(g, draw(st.sampled_from((TILES, TINY))))


def pixel_read(g, output, tap):
    """The input pixel that an output meets with a tap, or None where that is padding."""
    axes = zip(output, tap, ("d", "h", "w"), ("pad_front", "pad_top", "pad_left"))
    pixel = tuple(o * g[f"stride_{a}"] + t * g[f"dilation_{a}"] - g[pad] for o, t, a, pad in axes)
    return pixel if all(0 <= at < g[f"{a}_in"] for at, a in zip(pixel, "dhw")) else None


@given(blocks(), st.integers(0, 2**32 - 1).map(Random))
@settings(max_examples=100)
def test_taps_that_read_the_same_place_of_a_block_read_the_same_pixel(block, random):
    g, cut = block
    taps = SPLIT.tables(g, cut)["taps"]
    g |= cut.fields
    assert len(taps) == g["steps"]
    wide, pixel = g["block_pitch"] > 0, 2 * g["c_in"]
    taps = taps.reshape(g["k_d"], g["k_h"], g["k_w"] if wide else 1, -1)
    held, slice_ = {}, random.randrange(g["d_out"])
    for _ in range(200):
        output = slice_, random.randrange(g["line_block"]), random.randrange(g["w_out"])
        tap = tuple(random.randrange(g[f"k_{axis}"]) for axis in "dhw")
        part = random.randrange(taps.shape[-1]) if wide else 0
        place = (output[1] * g["positions"] + output[2]) * g["position_bytes"]
        place += int(taps[(*tap, part)] if wide else taps[(*tap[:2], 0, 0)] + tap[2] * pixel)
        assert 0 <= place <= g["low"] - (ROW_BYTES if wide else pixel)
        read = pixel_read(g, output, tap)
        assert held.setdefault(place, read and (*read, part)) == (read and (*read, part))


@given(blocks())
@settings(max_examples=100)
def test_each_output_of_a_block_has_a_row_of_its_own_inside_of_the_workspace(block):
    g, cut = block
    last = int(SPLIT.tables(g, cut)["taps"].max(initial=0))
    g |= cut.fields
    assert g["positions"] >= g["w_out"] and 1 <= g["tile_height"] <= ROWS
    # the last registers reach beyond the block
    rows = -(-((g["line_block"] - 1) * g["positions"] + g["w_out"]) // g["tile_height"]) * g["tile_height"]
    assert g["low"] + last + (rows - 1) * g["position_bytes"] + ROW_BYTES <= cut.workspace_bytes


def test_blocks_are_as_many_lines_as_the_cache_holds():
    problem = ConvProblem.parse("c64h56w56o64k3p1cl")
    for l2, most in ((1 << 10, 1), (1 << 20, 55), (16 << 20, 56)):
        lines = SPLIT.cut(geometry(problem), replace(TILES, l2=l2)).fields["line_block"]
        assert 1 <= lines <= most
    # rows so short that a line more takes no cache line more
    short = geometry(ConvProblem.parse("c1h100000w3o5k3p1cl"))
    cut = SPLIT.cut(short, TILES)
    assert 1 < cut.fields["line_block"] < 100000 and cut.workspace_bytes <= TILES.l2


def test_signals_and_kernels_of_one_pixel_have_lines_of_one_pixel():
    for text, lines in (("c9w50o8k5p2cl", 50), ("n3c9h5w7o8k1cl", 3 * 35), ("n3c9d2h5w7o8k1cl", 3 * 70)):
        fields = SPLIT.cut(geometry(ConvProblem.parse(text)), TILES).fields
        assert (fields["line"], fields["w_out"], fields["positions"]) == (lines, 1, 1)
    strided = SPLIT.cut(geometry(ConvProblem.parse("n3c9h5w7o8k1s2cl")), TILES).fields
    assert (strided["line"], strided["positions"]) == (3, 4)


def test_kernel_rows_of_few_channels_are_read_as_one_run():
    for text, steps in (("c3h9w9o9k7cl", 7), ("c32h9w9o9k3cl", 9), ("c3h13w13o8k7dil2cl", 49), ("c33h9w9o9k3cl", 12)):
        fields = SPLIT.cut(geometry(ConvProblem.parse(text)), TILES).fields
        assert fields["steps"] == steps and (fields["block_pitch"] == 0) == (steps in (7, 12))
