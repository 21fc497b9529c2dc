"""Products of float32 in three of their halves, on machines with matrix tiles (AMX): five times the multiply-adds a cycle.

What both layouts share: when they apply, lines of blocks, and what tiles cost.  Halves are float16 where tiles multiply those, else
bfloat16; see `codegen.halves`.
"""

from __future__ import annotations

from functools import lru_cache
from math import prod

import numpy as np

from numbaconv.algorithms.split_panels import UNIT_BYTES
from numbaconv.algorithms.tiled import TiledAlgorithm
from numbaconv.codegen.amx import COLUMNS, ROWS, SUMS_BYTES, configuration
from numbaconv.codegen.halves import Halves, halves_of
from numbaconv.codegen.memory import LINE as LINE_BYTES
from numbaconv.codegen.target import TARGETS
from numbaconv.machine import Machine

#: The part of the L2 that a block of the input may take.
INPUT_PART = 2
#: What a block may take where that holds fewer lines than a part of those that a kernel reaches over.
_MOST_INPUT, _FEW_LINES = 0.7, 4
#: Cycles of starting and finishing a tile of a panel; of finishing one of its lines; of splitting 32 channels of a pixel.  Fitted.
TILE, LINE, SPLIT = 160.0, 60.0, 16.0
#: Cycles of a line of operands that comes from the L2, where products do not hide it; measured, with few output channels and taps
#: that lie far apart.
_FROM_L2 = 2.0
#: Panels of no more bytes stay in the L1 from tile to tile.
_NEAR_PANEL = 24 << 10
#: Cache lines of 32 elements of a position in two halves.
_POSITION_LINES = 2
#: The part of the time of transfers that is left where weights are asked for ahead.  Fitted, too.
ASKED_WEIGHTS = 0.65


class MatrixTiles(TiledAlgorithm):
    """Base of those whose tiles belong to the loop nest, for one kind of halves."""

    head_bytes = SUMS_BYTES
    #: infinity minus infinity is what is left of an infinite operand, and narrow forms read pixels beside their taps
    local = False
    padding_modes = False
    floors = ()
    workspace_limit = 4 << 20

    def __init__(self, halves: Halves):
        self.halves, self.name = halves, f"{halves.name}x3"

    def rms_error(self, problem):
        """What both operands lose, and the product of their low parts."""
        return self.halves.error

    def unavailable(self, machine):
        return _unavailable(self, machine)

    def unsupported(self, problem, epilogue, machine):
        if problem.dtype != "f32":
            return f"matrix tiles make no {problem.dtype}"
        if reason := self.unavailable(machine):
            return reason
        if problem.n * prod(problem.out_spatial) < ROWS:
            return "there are fewer pixels than a matrix tile has rows"
        return None

    def core(self, dtype):
        """There is none: tiles belong to the loop nest."""
        return 0

    def functions(self, g, np_dtype):
        return {}

    def shares(self, g):
        """Lines of all images, panels of all groups."""
        return g["n"] * g["d_out"] * g["line"], g["groups"] * g["panels_per_group"]

    def zeros(self, g):
        """None are read."""
        return 0

    def packed(self, form: np.ndarray) -> dict[str, np.ndarray]:
        """Where the records find a form of `algorithms.split_panels`: panels, and the inverse of their scale."""
        return {"unit": form[:UNIT_BYTES], "panels": form[UNIT_BYTES:]}

    def configuration(self, g: dict[str, int]) -> np.ndarray:
        """What the tile registers are given their shapes from."""
        return np.frombuffer(configuration(g["tile_height"]), np.uint8).copy()


def met_columns(g: dict[str, int]) -> dict[str, int]:
    """The columns between the first and the last that any tap meets: numbers that a scale depends on."""
    first = -g["pad_left"]
    last = first + (g["w_out"] - 1) * g["stride_w"] + (g["k_w"] - 1) * g["dilation_w"]
    if g["k_w"] == 1:
        # the nearest inside that are whole strides away
        first += -(-max(-first, 0) // g["stride_w"]) * g["stride_w"]
        last -= -(-max(last + 1 - g["w_in"], 0) // g["stride_w"]) * g["stride_w"]
    first, last = max(first, 0), min(last + 1, g["w_in"])
    return {"met_first": first, "met_last": max(first, last)}


@lru_cache(maxsize=16)  # asked for with every problem
def _unavailable(algorithm: MatrixTiles, machine: Machine) -> str | None:
    """Why a machine does no problem in this way, or None."""
    if missing := [feature for feature in algorithm.halves.features if not machine.has(feature)]:
        return f"the machine has no {missing[0]}"
    if (better := halves_of(machine)) is not algorithm.halves:
        return f"the machine's matrix tiles multiply {better.name}, which is as fast and more exact"
    if TARGETS[machine.isa].columns(4) != 2 * COLUMNS:
        return f"panels of {machine.isa} are not two matrix tiles wide"
    return None


def turned_lines(g: dict[str, int], planes: bool = False) -> dict[str, int]:
    """Lines of one pixel each, where rows meet neither one another nor padding: signals, and kernels of one pixel.

    Images follow one another, too, unless other channels' `planes` lie between them.
    """
    alone = g["k_d"] * g["k_h"] * g["stride_d"] * g["stride_h"] == 1 and g["pad_front"] == g["pad_top"] == 0
    if not alone or g["d_in"] != g["d_out"] or g["h_in"] != g["h_out"]:
        return {}
    if g["h_in"] * g["d_in"] == 1:
        return {
            "h_in": g["w_in"], "h_out": g["w_out"], "k_h": g["k_w"], "stride_h": g["stride_w"],
            "dilation_h": g["dilation_w"], "pad_top": g["pad_left"], "line_step": g["column_step"],
            "w_in": 1, "w_out": 1, "k_w": 1, "stride_w": 1, "dilation_w": 1, "pad_left": 0, "column_step": 1,
        }  # fmt: skip
    every = g["line_step"] == g["w_out"] * g["column_step"] and g["slice_step"] == g["h_out"] * g["line_step"]
    if g["k_w"] == g["stride_w"] == 1 and g["w_in"] == g["w_out"] and g["pad_left"] == 0 and every:
        pixels, images = g["out_pixels"], 1
        if not planes and g["image_step"] == g["out_pixels"] * g["column_step"]:
            images = max(g["n"], 1)
        return {
            "n": g["n"] // images, "h_in": images * pixels, "h_out": images * pixels, "d_in": 1, "d_out": 1,
            "w_in": 1, "w_out": 1, "line_step": g["column_step"], "column_step": 1,
            "in_pixels": images * pixels, "out_pixels": images * pixels,
        }  # fmt: skip
    return {}


def positions_of_line(g: dict[str, int]) -> tuple[int, int]:
    """Positions of a line, and how many of them it shares with the next one: no more than what lies between lines, so that each
    output has a position of its own.
    """
    reach = (g["k_w"] - 1) * g["dilation_w"] // g["stride_w"]
    if not reach:
        return g["w_out"], 0
    needed = g["w_out"] + reach
    # in whichever phase there is least padding
    before, after = g["pad_left"] // g["stride_w"], needed + -(g["w_in"] + g["pad_left"]) // g["stride_w"]
    shared = max(min(reach, before, after), 0)
    return needed - shared, shared


def products_hide_operands(halves: int, reach: int) -> bool:
    """Whether tiles of so many registers of output channels need no `fetching_cycles`: taps reach over so many positions."""
    return halves > 1 and reach <= 2 * COLUMNS


def fetching_cycles(g: dict[str, int], registers: int, halves: int, strips: float, reach: int) -> float:
    """Cycles that operands of so many registers of positions and of output channels take from the L2 for a block: for each tile
    the positions that it reaches in so many strips, and the weights of a panel.
    """
    lines = -(-halves // 2) * strips * (2 * COLUMNS + reach) * _POSITION_LINES
    if g["panel_bytes"] > _NEAR_PANEL:
        lines += halves * g["panel_bytes"] / (2 * LINE_BYTES)
    return -(-registers // 2) * lines * _FROM_L2


def lines_of_block(total: int, reach: int, line_bytes: int, fixed_bytes: int, room: int, machine: Machine) -> int:
    """Lines of a block, blocks as even as can be; a few more than `room` holds where kernels reach over many others."""
    fit = (room - fixed_bytes) // line_bytes - reach
    if fit >= total:
        return total
    if _FEW_LINES * max(1, fit) < min(reach, total):
        fit = min(total, (int(_MOST_INPUT * machine.l2) - fixed_bytes) // line_bytes - reach)
    return -(-total // -(-total // max(1, fit)))


def blocks_of(g: dict[str, int]) -> float:
    """Blocks of lines of all slices and images."""
    return g["n"] * g["d_out"] * g["line"] / g["line_block"]
