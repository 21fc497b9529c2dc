"""Grouped convolution: whatever the width of groups, each lane of a tile meets the channels of its own group."""

import numpy as np
import pytest
from strategies import make_operands, whole_numbers

from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.grouped import Grouped
from numbaconv.algorithms.sliding import TILES, sliding_fields
from numbaconv.algorithms.weights import pack_turned
from numbaconv.codegen.sliding import KERNELS
from numbaconv.codegen.target import target
from numbaconv.machine import machine
from numbaconv.problem import ConvProblem

LANES = target().lanes(4)
#: Few kernels, since each has tiles of its own; other ones are among the random problems of `test_algorithms`.
WIDTHS = {
    "turned2": ("c40h7w9o40k3p1g20",),
    "turned4": ("n2c12h6w17o12k3p1g3",),
    "turned8": ("c40h9w8o40k3p1s2g5",),
    "broadcast": ("c64h6w9o64k3p1g2", "c12h5w9o128k3p1g2"),
    "blended": ("c48h6w9o48k3p1g2", "c10h9w8o80k3p1g2"),
    "strip": ("c9h7w9o9k3p1g3", "c8h5w6o24k3p1g8"),
}


def operation(problem: ConvProblem) -> str:
    g = geometry(problem)
    return Grouped().operation(g | sliding_fields(g, machine(), 1))


@pytest.mark.parametrize("text", [text for texts in WIDTHS.values() for text in texts])
def test_every_lane_meets_the_channels_of_its_own_group(text):
    given = make_operands(ConvProblem.parse(text + "cl"), whole_numbers, bias=True, residual=True, activation="relu6")
    np.testing.assert_array_equal(given.conv("grouped"), given.oracle())


@pytest.mark.skipif(LANES != 16, reason="which vectors hold which groups depends on their width")
@pytest.mark.parametrize("kind, text", [(kind, text) for kind, texts in WIDTHS.items() for text in texts])
def test_groups_are_read_in_place_where_a_vector_has_few_of_them(kind, text):
    assert operation(ConvProblem.parse(text + "cl")) == kind


@pytest.mark.parametrize("width", (2, 4, 8))
def test_sums_that_are_turned_between_passes_are_those_of_the_groups(width):
    groups = 3
    rng = np.random.default_rng(width)
    weight, x = (whole_numbers(rng, shape, np.float32) for shape in ((groups * width, width, 1, 1), (groups * width,)))
    packed = pack_turned(weight, groups)  # (panels, taps, passes, columns)
    passes = packed.transpose(2, 1, 0, 3).reshape(width, -1)[:, : groups * width]
    sums = np.zeros((groups, width), np.float32)
    for weights in passes:
        sums = np.roll(sums, -1, axis=1) + (weights * x).reshape(groups, width)
    expected = np.einsum("goc,gc->go", weight.reshape(groups, width, width), x.reshape(groups, width))
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("stride", (1, 2, 3))
@pytest.mark.parametrize("columns", range(8, 42))
def test_long_runs_are_pieces_of_two_lengths(columns, stride):
    problem = ConvProblem.parse(f"c1h50w50o1k{columns}s{stride}cl")
    piece = KERNELS[sliding_fields(geometry(problem), machine(), TILES, in_pieces=True)["kernel"]].piece
    assert (piece > 0) == (columns > 7 * stride)
    for run in {columns // stride, -(-columns // stride)} if piece else ():
        pieces = [piece] * (run - -(-run // piece) * (piece - 1)) + [piece - 1] * -(-run // piece)
        assert sum(pieces[: -(-run // piece)]) == run and piece <= target().piece


def test_slices_too_long_for_lines_stay_slices():
    """Of a kernel of one row and column: what one line's taps read would leave the caches between lines."""
    long, short, dense = (
        geometry(ConvProblem.parse(text))
        for text in (
            "c24d5h52w53o24kd3kh1kw1pd1ph0pw0g24cl",
            "c24d5h26w53o24kd3kh1kw1pd1ph0pw0g24cl",
            "c24d5h52w53o4kd3kh1kw1pd1ph0pw0cl",
        )
    )
    assert (long["d_in"], long["h_in"], long["w_in"]) == (5, 52, 53)
    assert (short["h_in"], short["w_in"]) == (5, 26 * 53) and (dense["h_in"], dense["w_in"]) == (5, 52 * 53)
    given = make_operands(ConvProblem.parse("c24d5h52w53o24kd3kh1kw1pd1ph0pw0g24cl"), whole_numbers, bias=True)
    np.testing.assert_array_equal(given.conv("depthwise"), given.oracle())
