"""Pointwise (1x1) convolution: one GEMM whose rows are the pixels, in place.  Wins on every 1x1 that it fits."""

from __future__ import annotations

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import (
    affine_tap,
    column_blocks,
    image_lines,
    interior_taps,
    row_block,
    row_lines,
    rows_collide,
    table_bytes,
    tile_block,
    tile_list_bytes,
)
from numbaconv.algorithms.tiled import Cut, Operand, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.codegen.target import target
from numbaconv.loops.gemm import MR
from numbaconv.loops.packing import pack_share
from numbaconv.loops.tables import CORNERS


class Pointwise(TiledAlgorithm):
    """Rows are packed only where they collide; strided and padded problems address each row through a table of one tap."""

    name = "pointwise"
    operand = Operand(pack_share)
    floors = (cost.least_seconds, cost.least_core_seconds)

    def unsupported(self, problem, epilogue, machine):
        if problem.taps != 1:
            return "the kernel is not 1x1"
        return super().unsupported(problem, epilogue, machine)

    def cut(self, g, machine):
        columns = column_blocks(g, machine) | {"fetch": int(_asked(g))}
        if not _affine(g):
            lines = row_lines(g)
            block = tile_block(g, lines, machine, tables=True)
            fields = columns | lines | {"tile_block": block, "patch_pitch": 0}
            return Cut(fields, tile_list_bytes(block) + CORNERS + block * table_bytes(g), table_bytes(g))
        # all images are one line of pixels
        images = max(g["n"], 1)
        one = {"n": min(g["n"], 1)} | {name: images * g[name] for name in ("d_in", "d_out", "in_pixels", "out_pixels")}
        lines = one | image_lines(g | one)
        # rows of several groups are read a part at a time and stay where they are
        if g["groups"] > 1 or not rows_collide(g, machine):
            block = tile_block(g, lines, machine, tables=False)
            return Cut(
                columns | lines | {"tile_block": block, "patch_pitch": g["x_pixel"]},
                tile_list_bytes(block),
                table_bytes(g),
            )
        pitch = row_pitch(g["c_in"] * g["itemsize"])
        block = row_block(lines, machine, pitch)
        fields = columns | lines | {"tile_block": block, "patch_pitch": pitch, "fetch": 0}
        return Cut(fields, tile_list_bytes(block) + block * MR * pitch, table_bytes(g))

    def tables(self, g, cut):
        return {"taps": affine_tap(g["patch_pitch"]) if g["patch_pitch"] else interior_taps(g)}

    def far_cycles(self, g, machine):
        """Less where rows are asked for ahead."""
        return super().far_cycles(g, machine) * (cost.FETCHED if g["fetch"] else 1.0)

    def least_extra(self, least, machine):
        """The tile list, as if rows were asked for ahead."""
        return least.pixels / MR * cost.LISTED - (1 - cost.FETCHED) * least.far

    def extra_cycles(self, problem, g, machine):
        """The tile list; a copy of the rows where they collide, for each column block."""
        listed = cost.tile_count(g) * cost.LISTED
        if g["patch_pitch"] in (0, g["x_pixel"]):
            return listed
        column_blocks = -(-g["panels_per_group"] // g["column_block"])
        return listed + column_blocks * cost.packing_cycles(g, 1, machine.rates)


def _asked(g) -> bool:
    """Whether rows are asked for ahead: from memory they are, unless hardware does it; from the L3 that gains nothing."""
    followed = 0 < target().followed <= g["c_in"] * g["itemsize"]
    return not followed and g["n"] * (g["x_image"] + g["out_pixels"] * g["out_pixel"]) > cost.L3_SHARE


def _affine(g) -> bool:
    """Whether output pixel i reads input pixel i."""
    return (
        g["stride_d"] == g["stride_h"] == g["stride_w"] == 1
        and g["out_pixels"] == g["in_pixels"]
        and not (g["pad_front"] or g["pad_top"] or g["pad_left"])
    )
