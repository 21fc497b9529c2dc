"""How much of an image depthwise tiles walk at a time: panels abreast, lines of a block, rows of a strip.

Tiles walk down the lines of a block, one tile wide and some panels abreast, slice by slice and column by column.
"""

from __future__ import annotations

from math import gcd
from typing import NamedTuple

from numbaconv.codegen.sliding import RUN
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.machine import Machine
from numbaconv.workspace import ALIGNMENT

#: Weights that are walked through for each tile take so many times the L1 at most, or this part of the L2.
_NEAR_WEIGHTS, _WEIGHTS_PART = 2, 4


class _Walk(NamedTuple):
    """How tiles walk beside an L2 of some speed: multiply-adds for each pixel of a row that hide that it comes from there; how many
    times as many pixels as the L1 has room for in the sets that they share leave none of them there; the part of a pixel's panels
    from which on they are one block.
    """

    hidden: float
    collide: float
    whole: float


#: Bytes that are copied in the L2 in a cycle from which on it is fast beside multiply-adds, and what is measured with such a one
#: (two cycles of Zen 4 a line, one multiply-add a cycle) and with another (a Xeon, two multiply-adds a cycle).
_FAST_COPY = 20.0
_FAST, _SLOW = _Walk(hidden=3.0, collide=1.0, whole=0.6), _Walk(hidden=6.0, collide=3.0, whole=0.85)
#: Bytes that come from beyond the L2 in a cycle, below which pixels come as a whole, and nothing is loaded ahead of tiles: their
#: own loads take all that such an L3 gives.
_SLOW_FAR = 16.0
#: The part of the L2 that the lines under a block may take, in all slices of the kernel, and the rows that it has at least:
#: measured with lines of 100 to 600 KB and kernels of 3 to 7 rows, on which 16 lines take 0.4 to 0.9 of the time of one or two.
_BLOCK_PART, _FEWEST_ROWS = 2, 20
#: Volumes and images of so many bytes are loaded in order before tiles read and write them, which takes 0.5 to 0.9 of the time
#: with what comes from memory, and 1.05 to 1.3 where the L3 keeps it, 1.3 to 1.45 from a slow one; by so many times the L2 at most.
#: From so many bytes under a tile on, what tiles read is in order by itself.
_LOADED, _LOADED_IMAGES, _LOADED_PART, _LONG_RUN = 8 << 20, 16 << 20, 2, 20 << 10
#: Lines of a block that is loaded in order, at the least: fewer repeat the rows that neighbouring blocks share too often.
_FEWEST_LOADED = 3


def panels_abreast(g: dict[str, int], machine: Machine, fields: dict[str, int]) -> int:
    """Panels of a block: so many that the rows which a line shares with the next stay in the L1; all, if these are nearly all.

    Where no rows are shared, the L1 cannot keep them, or multiply-adds hide that they come from the L2 again, as many as the L2
    holds weights for: long runs of channels are read in order.  Pixels that come from memory, or from an L3 that is slow, come as
    a whole as far as weights are near.
    """
    longest = -(-g["w_out"] // fields["out_step"])
    outputs = -(-longest // -(-longest // fields["pixels"])) if longest else 1
    hop = g["stride_w"] // gcd(g["stride_w"], g["dilation_w"])
    positions = min(g["w_in"], (outputs - 1) * hop + g["k_w"])
    span = min((g["k_h"] - 1) * g["dilation_h"] + 1, g["h_in"])
    pixels = positions * span * g["k_d"]
    many = machine.l2 // _WEIGHTS_PART // fields["panel_bytes"]
    walk = _FAST if machine.rates.copy_bytes >= _FAST_COPY else _SLOW
    hidden = positions * walk.hidden < outputs * g["k_w"] * g["c_in"]
    # a page holds each set of the L1 once
    collide = pixels > walk.collide * (machine.l1 // gcd(g["x_pixel"], 4096))
    if hidden or collide or span <= g["stride_h"]:
        return many
    block = machine.l1 // ((pixels + outputs) * PANEL_ROW + fields["panel_bytes"])
    if block >= walk.whole * fields["panels_per_group"]:
        return fields["panels_per_group"]
    far = g["in_pixels"] * g["x_pixel"] > machine.l2 // 2
    if (far and _slow(machine)) or fields["fetch"]:
        return max(block, _NEAR_WEIGHTS * machine.l1 // fields["panel_bytes"])
    return block


def _slow(machine: Machine) -> bool:
    """Whether what comes from beyond the L2 is slow."""
    return machine.rates.far_bytes < _SLOW_FAR


def line_block(g: dict[str, int], machine: Machine, panel_by_panel: bool) -> int:
    """Lines of a block that is walked slice by slice and column by column.

    What the kernel's slices have under it stays in the L2 meanwhile, so that each input slice comes from beyond it once, and its
    rows lie in so few pages that walking down misses no entry of the TLB.  Where lines are so long that the L2 keeps next to none,
    blocks are as many as stay in the TLB at least, since neighbouring blocks read the rows that their kernels share twice.  Strips
    of images would repeat rows from block to block.  Wide kernels, whose weights are many, are taken `panel_by_panel`: of a pixel
    only one panel counts.
    """
    if g["d_out"] == g["d_in"] == 1 and g["c_in"] > 1:
        return max(g["h_out"], 1)
    slices = min(g["k_d"], g["d_in"])
    pixel = min(PANEL_ROW, g["x_pixel"]) if panel_by_panel else g["x_pixel"]
    rows = max(machine.l2 // _BLOCK_PART // (slices * g["w_in"] * pixel), _FEWEST_ROWS // slices)
    lines = max(1, (rows - (g["k_h"] - 1) * g["dilation_h"] - 1) // g["stride_h"] + 1)
    return even(lines, g["h_out"])


def lines_in_order(g: dict[str, int], machine: Machine, pixels: int, lines: int) -> int:
    """Lines of a block whose lines are loaded in the order of memory before tiles of so many `pixels` walk it; 0 for no loading.

    As many as the L2 holds with the slice that is loaded for them, and no more than `lines`, which do without loading.
    """
    tensors = g["n"] * (g["x_image"] + g["out_pixels"] * g["out_pixel"])
    small = tensors <= (_LOADED if g["k_d"] > 1 else _LOADED_IMAGES)
    if small or _slow(machine) or pixels * g["stride_w"] * g["x_pixel"] > _LONG_RUN:
        return 0
    row, shared = g["w_in"] * g["x_pixel"], (g["k_h"] - 1) * g["dilation_h"] + 1 - g["stride_h"]
    line = g["stride_h"] * row + g["w_out"] * g["out_pixel"]
    lines = even(min(lines, max((machine.l2 - shared * row) // line, _FEWEST_LOADED)), g["h_out"])
    rows = min(lines * g["stride_h"] + shared, g["h_in"])
    return lines if rows * row < _LOADED_PART * machine.l2 else 0


def even(lines: int, count: int) -> int:
    """So many lines of `count`, or less, that blocks are even."""
    return -(-count // -(-count // lines))


def strip_fields(g: dict[str, int], machine: Machine, tiles: int, room: int) -> tuple[dict[str, int], int]:
    """Fields of the `CONV` record for strips under `tiles` tiles, of `room` bytes if they can, and all their bytes."""
    parts = -(-tiles // g["out_step"])
    outputs = parts * g["stretch"] * g["out_step"]
    width = (outputs - 1) * g["stride_w"] + (g["k_w"] - 1) * g["dilation_w"] + 1
    if not g["kernel"]:
        width = min(width, g["w_in"] + 2 * (g["stretch"] - 1) * g["out_step"] * g["stride_w"])
    row = width * g["k_d"] * g["strip_channels"] * PANEL_ROW
    under = (g["k_h"] - 1) * g["dilation_h"] + 1

    def lines(nbytes):
        return max(1, min((nbytes // row - under) // g["stride_h"] + 1, g["h_out"]))

    def rows(count):
        return min(g["h_in"], (count - 1) * g["stride_h"] + under)

    walk = lines(machine.l1 // 2)
    if walk > 1 or under * tiles * run_bytes(g) > room:
        strip = lines(room)
        fields = {"strip_lines": strip, "walk_lines": walk, "ring": rows(strip), "turns": 0}
    else:
        # a ring of rows stays in the L1, while new rows of a long strip would come from the L2 before they are written
        fields = {"strip_lines": max(g["h_out"], 1), "walk_lines": 1, "ring": under, "turns": under}
    nbytes = max(fields["turns"], 1) * tiles * run_bytes(g) + min(fields["ring"], g["h_in"]) * row + ALIGNMENT
    return fields | {"tile_block": tiles}, nbytes


def run_bytes(g: dict[str, int]) -> int:
    """Bytes of the run records of one tile."""
    return g["k_d"] * g["k_h"] * g["phases"] * 8 * RUN
