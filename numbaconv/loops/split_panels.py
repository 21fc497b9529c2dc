"""Panels of weights, split into high and low parts and put into the order of matrix tiles."""

from __future__ import annotations

from numbaconv.codegen.amx import COLUMNS, DEPTH, PAIRS, ROW_BYTES, ROWS, STEP_BYTES
from numbaconv.codegen.jit import njit
from numbaconv.codegen.split import split_pair, split_pixels
from numbaconv.loops.gemm import PANEL_ROW


@njit(entry=True)
def pack_split(to, panels, count, k, run, chunk, zeros, scale):
    """`count` panels of `k` rows in runs of so many, chunk by chunk of all runs.

    A row of zeros stands for what fills up the last step of a run.
    """
    register = PAIRS * ROW_BYTES
    for _ in range(count):
        for begin in range(0, run, chunk):
            for first in range(0, k, run):
                for start in range(begin, min(begin + chunk, run), DEPTH):
                    for pair in range(PAIRS):
                        number = start + 2 * pair
                        for half in range(2):
                            at = panels + (first + number) * PANEL_ROW + half * 4 * COLUMNS
                            even = at if number < run else zeros
                            odd = at + PANEL_ROW if number + 1 < run else zeros
                            split_pair(to + half * register + pair * ROW_BYTES, 2 * register, even, odd, scale)
                    to += STEP_BYTES
        panels += k * PANEL_ROW


@njit(entry=True)
def pack_split_rows(to, rows, groups, c_out, height, taps, run, scale):
    """Rows of (taps, run) elements to two registers of `height` of them a panel; what has no row there is zero already."""
    register = ROWS * ROW_BYTES
    blocks = (run + DEPTH - 1) // DEPTH
    for _ in range(groups):
        for first in range(0, c_out, 2 * height):
            for row in range(min(2 * height, c_out - first)):
                half, place = divmod(row, height)
                at = to + half * register + place * ROW_BYTES
                split_pixels(at, STEP_BYTES, 2 * register, taps * STEP_BYTES, rows, run * 4, taps, run, scale)
                rows += taps * run * 4
            to += taps * blocks * STEP_BYTES


@njit(entry=True)
def split_run(to, low, x, count, scale):
    """Halves of `count` neighbouring numbers, up to a whole step; low parts lie `low` bytes behind the high ones."""
    split_pixels(to, ROW_BYTES, low, ROW_BYTES, x, 0, 1, count, scale)
