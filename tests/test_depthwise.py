"""How depthwise tiles walk an image: blocks of panels and lines, and lines that are loaded in the order of memory first."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strategies import bits, guarded, make_operands, normals, whole_numbers

from numbaconv.algorithms import sliding_blocks
from numbaconv.algorithms.depthwise import Depthwise
from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.sliding import TILES, sliding_fields
from numbaconv.algorithms.weights import Weights
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.sliding import PIXELS
from numbaconv.machine import Machine, machine
from numbaconv.problem import ConvProblem

#: Several panels that are and are not full, slices, batches, strides and dilations of slices, kernels that lie in padding.
CORNERS = (
    "n2c40d5h9w30o40k3p1g40", "c24d4h9w21o24k3p1sd1sh2sw2g24", "c20d9h5w7o20k3p2sd3g20", "c9d8h4w5o9k3sd2p0dild2g9",
    "n2c20h31w40o20k5p2g20", "c17h20w21o17k3p3dil3g17", "c33h2w3o33k3p3g33", "c16h9w1o16k3p1s2g16", "n3c48h1w1o48k3p1g48",
)  # fmt: skip
OWN_LAYOUTS = ("channels_last",)


def machine_of(**rates) -> Machine:
    """This machine, with an L2 and an L3 that are fast unless told otherwise."""
    return replace(machine(), rates=replace(machine().rates, **{"copy_bytes": 28.0, "far_bytes": 30.0} | rates))


def loaded(problem: ConvProblem, **rates) -> int:
    """Whether the loops are told to load lines first."""
    return blocks(problem, **rates)["fetch"]


def blocks(problem: ConvProblem, **rates) -> dict[str, int]:
    """What the loops are told."""
    return sliding_fields(geometry(problem), machine_of(**rates), TILES)


def plan_of(given_):
    """The plan for a problem as if it were large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding_blocks, "_LOADED", -1)
        patch.setattr(sliding_blocks, "_LOADED_IMAGES", -1)
        weights = Weights(given_.weight, given_.bias, given_.problem.groups)
        return Depthwise().plan(given_.problem, weights, given_.epilogue, machine_of())


@pytest.mark.parametrize("text", CORNERS)
@pytest.mark.parametrize("threads", (1, 2))
def test_loading_lines_first_changes_no_result(text, threads):
    given_ = make_operands(ConvProblem.parse(text + "cl"), whole_numbers, bias=True, residual=True)
    out = np.full(given_.problem.output_shape, np.nan, np.float32)
    plan_of(given_).run(given_.x, out, given_.residual, threads=threads)
    np.testing.assert_array_equal(out, given_.oracle())


def test_nothing_beside_tensors_is_loaded(python):
    assert int(python(guarded("test_depthwise", "[()]")).stdout) == 2 * len(CORNERS)


def abreast(panels: int, rest: str, **rates) -> int:
    """Panels of a block, of so many."""
    c = panels * PANEL_ROW // 4
    problem = ConvProblem.parse(f"c{c}{rest}o{c}g{c}cl")
    return Depthwise().cut(geometry(problem), machine_of(**rates)).fields["column_block"]


def test_the_l1_keeps_the_rows_that_lines_share():
    """With stride 2 more positions, and fewer panels, than without; whatever the image's size."""
    for side in (28, 112):
        plain, strided = (abreast(71, f"h{side}w{4 * PIXELS}k3p1s{stride}") for stride in (1, 2))
        for panels, stride in ((plain, 1), (strided, 2)):
            positions = (PIXELS - 1) * stride + 3
            panel = (positions * 3 + PIXELS + 9) * PANEL_ROW
            assert panels * panel <= machine().l1 < 2 * panels * panel
        assert strided < plain
    # what is left over of a pixel is no block of its own
    assert abreast(plain + 1, "h28w28k3p1") == plain + 1


@pytest.mark.parametrize(
    ("panels", "rest"),
    ((61, "h14w14k15p7"), (64, "h14w14k3p1"), (60, "w500k3p1"), (60, "h14w14k2p0s2")),
    ids=("many taps", "pages apart", "no line before", "no shared rows"),
)
def test_blocks_are_wide_where_no_rows_are_kept(panels, rest):
    kept = abreast(60, "h14w14k3p1")
    nbytes = (225 if "k15" in rest else 9) * PANEL_ROW
    assert abreast(panels, rest) > min(2 * kept, machine().l2 // 8 // nbytes)


def test_the_l1_matters_more_where_the_l2_is_slow_beside_multiply_adds():
    def both(panels, rest):
        return abreast(panels, rest), abreast(panels, rest, copy_bytes=14.0)

    kept = abreast(60, "h14w14k3p1")
    # what is left over of a pixel is a block of its own, or two are even
    assert both(kept + 2, "h14w14k3p1") == (kept + 2, -(-(kept + 2) // 2))
    # five columns hide no line of the L2, fifteen do
    wide, narrow = both(60, "h14w14k5p2")
    assert wide > kept > narrow
    assert len(set(both(60, "h14w14k15p7"))) == 1
    # some pixels in the same sets, and nearly all
    wide, narrow = both(16, "h14w14k3p1")
    assert wide > narrow
    assert len(set(both(32, "h14w14k3p1s2"))) == 1


def test_pixels_come_as_a_whole_where_what_is_far_is_slow_or_memory():
    far, near = "h70w70k3p1", "h5w5k3p1"
    assert abreast(100, far) < 20
    assert abreast(100, far, far_bytes=10.0) >= 28
    assert abreast(100, near, far_bytes=10.0) < 20
    # short pixels, whose lines are loaded in order
    some = 36 * 64 // PANEL_ROW
    assert abreast(some, "h40w40k3p1") < abreast(some, "h400w100k3p1") == some


def test_the_l2_holds_what_is_loaded_at_once_and_its_results():
    """Or three lines, where these are longer."""
    l2 = machine().l2
    for width in (150, 200, 600):
        row = width * 96 * 4
        for stride in (1, 2):
            lines = blocks(ConvProblem.parse(f"c96h600w{width}o96k3p1s{stride}g96cl"))["line_block"]
            nbytes = (lines * stride + 3 - stride) * row + lines * row // stride
            assert lines <= 3 or nbytes <= l2
            # even blocks may be a third smaller
            assert lines >= 3 and 2 * nbytes > l2


def test_volumes_are_loaded_in_the_blocks_that_they_have_anyway(monkeypatch):
    """Which half of the L2 holds: neighbouring slices share most of it."""
    volume, image = (ConvProblem.parse(text) for text in ("c54d13h80w80o54k3p1g54cl", "c54h1040w80o54k3p1g54cl"))
    monkeypatch.setattr(sliding_blocks, "_LOADED_IMAGES", 1 << 20)
    in_order = blocks(volume), blocks(image)
    monkeypatch.setattr(sliding_blocks, "_LOADED", 1 << 40)
    monkeypatch.setattr(sliding_blocks, "_LOADED_IMAGES", 1 << 40)
    assert [fields["fetch"] for fields in (*in_order, blocks(volume), blocks(image))] == [1, 1, 0, 0]
    assert in_order[0]["line_block"] == blocks(volume)["line_block"]
    assert in_order[1]["line_block"] <= blocks(image)["line_block"]


def test_tiles_that_read_long_runs_do_without():
    short, long = (ConvProblem.parse(f"c{c}h200w50o{c}k3p1g{c}cl") for c in (4500 // PIXELS, 5500 // PIXELS))
    assert (loaded(short), loaded(long)) == (1, 0)


def test_only_what_the_l3_may_not_keep_is_loaded_first():
    """And of signals nothing, whose tiles follow one another in memory."""
    large, small, signal = (
        ConvProblem.parse(text)
        for text in ("c96h224w224o96k3p1g96cl", "c96h56w56o96k3p1g96cl", "c64w99999o64k9p4g64cl")
    )
    assert (loaded(large), loaded(small), loaded(signal)) == (1, 0, 0)


def test_a_slow_l3_leaves_nothing_to_gain():
    for text in ("c96h224w224o96k3p1g96cl", "c54d13h80w80o54k3p1g54cl"):
        problem = ConvProblem.parse(text)
        fast, slow = blocks(problem), blocks(problem, far_bytes=8.0)
        assert (fast["fetch"], slow["fetch"]) == (1, 0) and slow["line_block"] >= fast["line_block"]


def test_large_layers_give_the_bits_of_small_ones():
    """Ten lines of a large image are those of an image of twelve."""
    large = make_operands(ConvProblem.parse("c96h160w160o96k3p1g96cl"), normals)
    few = ConvProblem.parse("c96h12w160o96k3p1g96cl")
    assert (loaded(large.problem), loaded(few)) == (1, 0)
    y, part = (np.empty(p.output_shape, np.float32) for p in (large.problem, few))
    for problem, x, out in ((large.problem, large.x, y), (few, np.ascontiguousarray(large.x[:, :12]), part)):
        Depthwise().plan(problem, Weights(large.weight, None, 96), large.epilogue, machine_of()).run(x, out, None)
    assert bits(y[:, :11]) == bits(part[:, :11])
