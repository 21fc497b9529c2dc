"""im2col on channels-first tensors: pixels are picked from planes for many taps at once, and tap by tap where many meet padding."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from strategies import guarded, make_operands, whole_numbers

from numbaconv.algorithms import planes
from numbaconv.algorithms.planes import Planes
from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.picked import STEPS
from numbaconv.loops.planes import BESIDE
from numbaconv.machine import machine
from numbaconv.problem import PADDING_MODES, ConvProblem

PLANES = Planes()
THREADS = numba.config.NUMBA_NUM_THREADS
#: Every step from column to column, whole and broken vectors, both ways to meet padding, dilation, volumes and signals.
CORNERS = (
    "c3h9w40o5k3", "c1h8w8o4k1", "n2c3h12w90o7k3p1s2", "c2h21w70o3k5s3", "c3h24w200o5k4s4", "c1w333o4k10s5", "c2w400o3k13s6",
    "c5h9w40o4k3p2", "c9h10w9o5k3p1s2", "c2h7w33o5k3p4dil2", "c1h20w21o5k7p6dil2s3", "c1h5w3o4k5p4", "c2d5h6w20o3k3p1",
    "n2c4d4h5w30o6k3s2g2", "c3h9w40o5k3p1f64", "c2h21w70o3k4p1s3f64", "c12h6w40o8k5p2g4", "c3h30w17o4k3p1s4f64",
)  # fmt: skip
#: Few and many channels beside an image, on all sides.
SIDES = (
    "c3h12w40o5k5p2",
    f"c{BESIDE}h12w40o5k5p2",
    "c2d4h5w34o3k3p1s2",
    "c2w50o3k5p4dil2",
    f"c{BESIDE + 1}h12w40o5k7p4s2",
)

OWN_LAYOUTS = ("channels_first",)


def plan_of(given_):
    """The plan for a problem."""
    weights = Weights(given_.weight, given_.bias, given_.problem.groups)
    return PLANES.plan(given_.problem, weights, given_.epilogue, machine())


def check(given_, threads=1):
    out = np.full(given_.problem.output_shape, np.nan, given_.x.dtype)
    plan_of(given_).run(given_.x, out, given_.residual, threads=threads)
    np.testing.assert_array_equal(out, given_.oracle(), strict=True)


@pytest.mark.parametrize("text", CORNERS)
@pytest.mark.parametrize("threads", range(1, THREADS + 1))
def test_corners_equal_the_oracle(text, threads):
    check(make_operands(ConvProblem.parse(text), whole_numbers, bias=True, residual=True), threads)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("text", SIDES)
def test_what_lies_beside_an_image_is_what_the_mode_says(text, mode):
    check(make_operands(ConvProblem.parse(f"{text}{'' if mode == 'zeros' else mode}"), whole_numbers, bias=True))


def test_nothing_beside_tensors_is_touched(python):
    assert int(python(guarded("test_planes", "[()]")).stdout) == 2 * len(CORNERS)


def packing(text: str) -> float:
    """Estimated cycles of packing a panel."""
    g = planes.fields_of(ConvProblem.parse(text))
    return planes._packing_cycles(g, g["window"] * g["c_in"], machine())


def test_packing_is_estimated_as_it_is_done():
    """Pixels beside the image cost little where few channels have few of them, and steps up to so many are picked in vectors."""
    plain = packing("c3h226w226o32k3")
    assert plain < packing("c3h224w224o32k3p1") < 1.3 * plain
    many = f"c{BESIDE + 1}h{{0}}w{{0}}o32k3{{1}}"
    assert packing(many.format(56, "p1")) > 1.1 * packing(many.format(58, ""))
    near, far = (packing(f"c3h320w320o32k{step}s{step}") / step**2 for step in (STEPS, STEPS + 1))
    assert 2 * near < far
