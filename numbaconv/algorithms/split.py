"""Products of float32 in three of their halves, on machines with matrix tiles (AMX): five times the multiply-adds a cycle.

Wins on nearly every dense convolution whose accuracy may be 22 or 16 bits of each operand instead of 24.  The input is split a
block at a time, which the tiles then read in place for every tap; see `loops.split`.

    cycles = max(matrix products (m + 1) / 17,                        of registers: 3 a step, of m rows by 16 columns
                 FROM_L2 (lines of pixels and panels))                that tiles read for the first time
           + panels (TILE tiles + LINE lines)                        sums that are finished, of two registers a tile
           + SPLIT (blocks of 32 channels of a position)             input that is split
           + MISSED (x + out + ASKED_WEIGHTS weights passes) / far   from beyond the L2

The last is that of `algorithms.cost`; results that are asked for ahead count ASKED_RESULTS times their bytes.  `matrix` is the
machine's (`machine.Rates`): the unit is limited by power and by its loads, so that a product takes more than its 16 cycles.
"""

from __future__ import annotations

from math import ceil

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.matrix_tiles import (
    ASKED_WEIGHTS,
    INPUT_PART,
    LINE,
    SPLIT,
    TILE,
    MatrixTiles,
    blocks_of,
    fetching_cycles,
    lines_of_block,
    met_columns,
    positions_of_line,
    products_hide_operands,
    turned_lines,
)
from numbaconv.algorithms.split_panels import SplitPanels
from numbaconv.algorithms.split_patches import TABLE_BYTES, gathering, patch_steps, patch_table, positions_together
from numbaconv.algorithms.tiled import Cut, Operand
from numbaconv.codegen.amx import DEPTH, ROW_BYTES, ROWS, STEP_BYTES, SUMS_BYTES, TALL
from numbaconv.codegen.halves import LANES
from numbaconv.codegen.memory import LINE as CACHE_LINE
from numbaconv.codegen.rows_of_sums import WOVEN
from numbaconv.codegen.scales import INVERSE, SCALE_BYTES
from numbaconv.codegen.split_groups import WIDTHS
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.split import split_share
from numbaconv.loops.split_operand import pack_split_share
from numbaconv.machine import Machine
from numbaconv.workspace import ALIGNMENT, rounded

#: The part of the L2 that panels that tiles share may take.
_PANEL_PART = 4
#: The part that a block of pixels may take of which each is read once.
_APART_PART = 4
#: The part of a block whose patches are written down for each tile.
_PATCHED_PART = 8
#: What a block and a panel may take together, if both are to stay.
_TOGETHER = 0.8
#: Cycles to load the sums of a tile that are carried from chunk to chunk, and to store them.
_CARRIED = 600.0
#: Tiles of no more steps wait for the lines of results that they write, if those are not asked for.
_FEW_STEPS = 4
#: With fewer steps for each cache line of the input, lines that are asked for come no sooner, and stand in the way of others.
_STEPS_A_LINE = 3
#: Fewer elements of a kernel row's than this part of the wide form's steps, and the narrow form is taken.
_NARROW = 0.8
#: Bytes from pixel to pixel from which no prefetcher follows the part of each that belongs to one group; measured.
_APART = 256
#: Cycles to split a vector of a group's channels, and one of several groups; to start with a line of them; to store a result of
#: several that stand abreast.
_SPLIT_VECTOR, _SPLIT_GROUPS, _SPLIT_LINE, _STORED = 7.0, 6.0, 40.0, 3.0
#: The part of the time of transfers that is left where results are asked for ahead; fitted.
_ASKED_RESULTS = 0.4


class Split(MatrixTiles):
    """Blocks are lines of a slice; where a line is one pixel, as in signals and 1x1 kernels, pixels are lines."""

    share = split_share
    operand = Operand(pack_split_share, SCALE_BYTES, INVERSE, staged=True)

    def cut(self, g, machine):
        """Channels at once, unless chunks of them are wanted for a slice and a panel to stay in the L2: then the fewest.

        Sums must not depend on the batch, so that only the first slice of a block counts.  Those of many output channels, which
        would take too large a workspace from chunk to chunk, are not carried.
        """
        turned = turned_lines(g) or outputs_abreast(g)
        if turned:
            g = g | turned
        cut = self._cut(g, 1, machine)
        fields = cut.fields
        if not _stays(fields, 1, machine) and fields["block_pitch"] and not fields["scale_step"]:
            blocks = -(-g["c_in"] // DEPTH)
            cuts = (self._cut(g, chunks, machine) for chunks in range(2, blocks + 1) if blocks % chunks == 0)
            room = self.workspace_limit - self.head_bytes
            chunked = next((chunked for chunked in cuts if _stays(chunked.fields, 1, machine)), cut)
            cut = chunked if chunked.workspace_bytes <= room else cut
        return cut._replace(fields=turned | cut.fields) if turned else cut

    def _cut(self, g, chunks, machine):
        c_in = g["c_in"] if chunks == 1 else -(-g["c_in"] // DEPTH) // chunks * DEPTH
        stride_w, k_d, h_out, l2 = g["stride_w"], g["k_d"], g["h_out"], machine.l2
        steps, narrow = _steps(g, c_in)
        phases_h, reach_h = 1, 0
        if g["k_h"] > 1:
            phases_h, reach_h = g["stride_h"], (g["k_h"] - 1) * g["dilation_h"] // g["stride_h"]
        phases = 1 if narrow or g["k_w"] == 1 else stride_w
        positions, shared = positions_of_line(g)
        position_bytes = 2 * stride_w * c_in if narrow else ROW_BYTES
        patched = patch_steps(g, steps, position_bytes, machine) if narrow and g["groups"] == 1 else 0
        steps = patched or steps
        row_pitch, tail = positions * position_bytes, shared * position_bytes + 2 * ROW_BYTES
        blocks = 1 if narrow else -(-c_in // DEPTH)
        strips = 2 * k_d * blocks * phases_h * phases
        column_block = max(1, l2 // _PANEL_PART // (steps * STEP_BYTES))
        # large blocks save what neighbours share, and weights that come again; pixels that share neither are better in small ones
        apart = reach_h == 0 and positions == 1 and column_block >= g["panels_per_group"]
        room = l2 // (_PATCHED_PART if patched else _APART_PART if apart else INPUT_PART)
        together = TALL if g.get("outputs", 1) * g["c_out"] <= ROWS else 2
        gang = max(1, min(2 * ROWS // g["c_out"], g["groups"])) if narrow else 1
        lines = lines_of_block(
            h_out, reach_h, gang * strips * row_pitch, gang * strips * (tail + ALIGNMENT), room, machine
        )
        if gang < g["groups"]:
            # what others read and write beside it stays near for them
            row = g["stride_h"] * g["w_in"] * g["x_pixel"] + g.get("row_pixels", g["w_out"]) * g["out_pixel"]
            lines = min(lines, -(-h_out // -(-h_out * row // room)))
        phase_pitch = rounded((lines + reach_h) * row_pitch + tail)
        block_pitch = phases_h * phases * phase_pitch
        low = rounded(k_d * blocks * block_pitch)
        # registers reach beyond the last position
        member_pitch = rounded(2 * low + (together * ROWS + 1) * position_bytes + ROW_BYTES)
        scales = gang * member_pitch
        each = self.halves.scaled and g["window"] == 1
        # one for all, or the inverse of each position's
        unit_pitch = rounded(scales + (INVERSE + g["itemsize"] * lines * positions if each else SCALE_BYTES))
        units = 1
        if lines == h_out and chunks == 1:
            units = max(1, min(room // unit_pitch, g["n"] * g["d_out"]))
        total = (lines - 1) * positions + g["w_out"]
        registers = -(-total // ROWS)
        sums = together * ROWS * PANEL_ROW
        carried = 0 if chunks == 1 else -(-registers // together) * g["panels_per_group"] * sums
        woven = gang > 1 and g.get("outputs", 1) in WOVEN and g["outputs"] * g["c_out"] == ROWS
        # behind the block lie sums that wait, or patches
        waiting = carried + 2 * together * ROWS * patched * ROW_BYTES
        if woven:
            # all of a gang, in whole vectors
            column_block = max(column_block, gang)
            waiting = -(-gang // g["outputs"]) * g["outputs"] // 2 * SUMS_BYTES
        fields = {
            "line": h_out,
            "line_block": lines,
            "unit_block": units,
            "unit_pitch": unit_pitch,
            "reach_h": reach_h,
            "phases_h": phases_h,
            "phases": phases,
            "positions": positions,
            "shared": shared,
            "position_bytes": position_bytes,
            "row_pitch": row_pitch,
            "phase_pitch": phase_pitch,
            "block_pitch": 0 if narrow else block_pitch,
            "strip_pitch": blocks * block_pitch,
            "low": low,
            "scales": scales,
            "scale_step": g["itemsize"] if each else 0,
            "scaled": int(self.halves.scaled and not each),
            "chunks": chunks,
            "chunk": c_in,
            "sums_pitch": sums if carried else 0,
            "outputs": g.get("outputs", 1),
            "row_pixels": g.get("row_pixels", g["w_out"]),
            "registers": together,
            "gang": gang,
            "woven": int(woven),
            "member_pitch": member_pitch if gang > 1 else 0,
            "panel_step": g["c_out"] if gang > 1 else 2 * ROWS,
            "steps": steps,
            "patch_pitch": patched * ROW_BYTES,
            "patches_together": positions_together(g["k_w"] * g["c_in"], position_bytes) if patched else 0,
            "tile_height": -(-total // max(registers, 1)) or 1,
            "panel_bytes": chunks * steps * STEP_BYTES,
            "column_block": column_block if chunks == 1 else 1,
            # results that many products hide are not asked for
            "far_results": int(chunks * steps <= _FEW_STEPS and g["n"] * g["out_pixels"] * g["out_pixel"] > l2),
        }
        tables = steps * 8 + ROW_BYTES + patched * TABLE_BYTES
        return Cut(fields, units * unit_pitch + waiting, tables)

    def shares(self, g):
        """Lines of all images, panels of all groups or gangs of them."""
        lines, panels = super().shares(g)
        return lines, -(-panels // g["gang"])

    def loop_fields(self, g, machine):
        """What is asked for, and what a scale depends on."""
        asked = g["steps"] * g["panels_per_group"] >= _STEPS_A_LINE * g["x_pixel"] / CACHE_LINE
        # where splitting meets all numbers that count
        apart = g["k_w"] == 1 < g["stride_w"] or g["positions"] == g["k_h"] == 1 < g["stride_h"]
        return met_columns(g) | {
            # what the L2 keeps needs no asking for
            "fetch": int(asked and g["chunks"] == 1 and g["n"] * g["x_image"] > machine.l2 // INPUT_PART),
            "guessed": int(g["scaled"] and g["groups"] == 1 and not apart),
        }

    def tables(self, g, cut):
        g = g | cut.fields
        d, h, w = np.ix_(*(np.arange(g[f"k_{a}"], dtype=np.int64) for a in "dhw"))
        down, phase_h = np.divmod(h * g["dilation_h"], g["stride_h"])
        base = d * g["strip_pitch"] + phase_h * g["phases"] * g["phase_pitch"] + down * g["row_pitch"]
        if g["block_pitch"]:
            across, phase = np.divmod(w * g["dilation_w"], g["stride_w"])
            base = base + phase * g["phase_pitch"] + across * ROW_BYTES
            blocks = np.arange(-(-g["chunk"] // DEPTH)) * g["block_pitch"]
        elif g["patch_pitch"]:
            taps = np.arange(g["steps"]) * ROW_BYTES
            table = patch_table(base.ravel(), g["k_w"] * g["c_in"])
            return {"taps": np.concatenate((taps, table.ravel())), "tables": self.configuration(g)}
        else:
            base = base + 0 * w[..., :1]
            blocks = np.arange(-(-g["k_w"] * g["c_in"] // DEPTH)) * ROW_BYTES
        taps = np.ascontiguousarray((base[..., None] + blocks).reshape(-1))
        return {"taps": taps, "tables": self.configuration(g)}

    def operands(self, weights, g):
        run, chunk = (g["c_in"], g["chunk"]) if g["block_pitch"] else (g["c_in"] * g["k_w"],) * 2
        if g["patch_pitch"]:
            run = chunk = run * g["k_d"] * g["k_h"]
        form = SplitPanels(run, chunk, self.halves, g["outputs"], g["stride_w"] // g["outputs"])
        bias = weights.flat_bias if g["woven"] else weights.packed_bias
        if g["outputs"] > 1 and not g["woven"]:
            bias = np.pad(
                np.tile(bias[:, : g["c_out"]], g["outputs"]), ((0, 0), (0, bias.shape[1] - g["outputs"] * g["c_out"]))
            )
        return self.packed(weights.form(form)) | {"bias": bias}

    def gemm_cycles(self, g, machine):
        """Products of registers or their operands, and what each tile, row and line costs besides."""
        registers, height, met, c_out = _registers(g), g["tile_height"], _met(g), g["c_out"]
        halves, panels = -(-c_out // ROWS), -(-c_out // (2 * ROWS))
        products = (
            3 * registers * halves * g["chunks"] * g["steps"] * met * machine.rates.matrix * (height + 1) / (ROWS + 1)
        )
        reach = (g["k_w"] - 1) * g["dilation_w"] // g["stride_w"]
        if g["patch_pitch"]:
            products += registers * height * gathering(g["k_d"] * g["k_h"], g["steps"])
        elif not products_hide_operands(halves, reach):
            strips = g["k_d"] * g["k_h"] * met * g["position_bytes"] / ROW_BYTES
            if g["block_pitch"]:
                strips *= min(g["phases"], g["k_w"]) * -(-g["c_in"] // DEPTH)
            products = max(products, fetching_cycles(g, registers, halves, strips, reach))
        lines = g["line_block"] if g["positions"] > 1 else 0
        finished = -(-registers // g["registers"]) * (TILE + (g["chunks"] - 1) * _CARRIED) + lines * LINE
        if g["outputs"] > 1:
            finished += _STORED * g["line_block"] * g["row_pixels"] / (g["outputs"] if g["woven"] else 1)
        return blocks_of(g) * g["groups"] * (products + panels * finished)

    def extra_cycles(self, problem, g, machine):
        """Splitting: again for each slice of the kernel; narrow pixels of groups, which lie apart, one by one."""
        rows = g["phases_h"] * (g["line_block"] + g["reach_h"]) * g["k_d"]
        if g["block_pitch"]:
            line = SPLIT * g["phases"] * g["positions"] * -(-g["c_in"] // DEPTH)
        elif g["groups"] == 1:
            line = SPLIT * g["row_pitch"] / ROW_BYTES
        else:
            line = _SPLIT_LINE + _split_apart(g["c_in"]) * g["positions"] * g["stride_w"]
        return blocks_of(g) * g["groups"] * rows * line

    def far_cycles(self, g, machine):
        """Weights come again with each block, unless they stay, or with each tile, where a panel and a block do not fit together.

        They and the results of few steps are asked for ahead.  Lines of pixels that groups share take as long again.
        """
        n, panel_bytes, l2 = g["n"], g["panel_bytes"], machine.l2
        x, out = n * g["in_pixels"] * g["x_pixel"], n * g["out_pixels"] * g["out_pixel"]
        weights = g["groups"] * g["panels_per_group"] * panel_bytes
        near = x + out + weights
        if near <= l2 / 2:
            return 0.0
        # one stretch of memory after the other, which the hardware asks for ahead
        stretches = g["reach_h"] == 0 and g["positions"] == 1 and g["x_pixel"] == g["c_in"] * g["itemsize"]
        moved = (x * cost.FETCHED if stretches else x) + (out * _ASKED_RESULTS if g["far_results"] else out)
        if g["groups"] > 1:
            moved += _lines_apart(g)
        blocks = ceil(n * g["d_out"] / g["unit_block"]) * -(-g["line"] // g["line_block"])
        fetched = cost.fetched_bytes(weights, blocks, machine)
        if not _stays(g, g["unit_block"], machine):
            fetched += weights * blocks * (g["unit_block"] * -(-_registers(g) // 2) - 1)
        return cost.waiting_cycles(near, moved + ASKED_WEIGHTS * fetched, machine)

    def least_seconds(self, problem, machine):
        """Full registers of the taps that an average line meets; tiles are finished, and pixels split once."""
        g, rates = fields_of(problem), machine.rates
        c_in, c_out = g["c_in"], g["c_out"]
        registers, abreast, met = -(-c_out // ROWS), 1, 1.0
        if 2 * c_out <= ROWS and g["k_w"] > 1:
            # outputs that stand abreast read each element of a row once for all of them
            abreast = ROWS // c_out
            steps = max(1 / abreast, g["k_d"] * g["k_h"] * g["stride_w"] * c_in / DEPTH)
        else:
            steps, narrow = _steps(g, c_in)
            steps = -(-g["window"] * c_in // DEPTH) if narrow else steps
        if cost.much_padding(g):
            # the lines of a signal are its pixels
            lines_met = cost.columns_met(g) / g["k_w"] if g["h_in"] == g["k_h"] == 1 else cost.rows_met(g) / g["k_h"]
            met = cost.slices_met(g) / g["k_d"] * lines_met
        pixel = registers * (3 * steps * met * rates.matrix + TILE / 4 / abreast) / ROWS + SPLIT * c_in / DEPTH
        return g["n"] * g["out_pixels"] * g["groups"] * pixel / rates.clock


def _split_apart(c_in: int) -> float:
    """Cycles to split a group's channels of one pixel, together with those of others where these fill a vector."""
    if c_in > LANES:
        return SPLIT
    return _SPLIT_GROUPS * c_in / LANES if c_in in WIDTHS else _SPLIT_VECTOR


def _lines_apart(g: dict[str, int]) -> int:
    """Bytes of cache lines that groups use again or for themselves: not of narrow ones, or gangs that are stored together, whose
    channels are whole lines.
    """
    sides = (g["in_pixels"], g["x_pixel"], g["c_in"]), (g["out_pixels"], g["out_pixel"], g["c_out"])
    together = g["gang"] if g["woven"] else 1
    lines = 0
    for pixels, pitch, channels in sides:
        nbytes = together * channels * g["itemsize"]
        if pitch >= _APART and (g["block_pitch"] or nbytes % CACHE_LINE):
            lines += pixels * ceil(nbytes / CACHE_LINE)
    return g["n"] * ceil(g["groups"] / together) * lines * CACHE_LINE


def _stays(g: dict[str, int], units: int, machine: Machine) -> bool:
    """Whether the L2 keeps so many slices and what a chunk reads of a panel."""
    return units * g["unit_pitch"] + g["panel_bytes"] // g["chunks"] <= _TOGETHER * machine.l2


def _steps(g: dict[str, int], c_in: int) -> tuple[int, bool]:
    """How many a tile takes of so many channels, and whether it has the narrow form."""
    rows, k_w = g["k_d"] * g["k_h"], g["k_w"]
    wide = rows * k_w * -(-c_in // DEPTH)
    # narrow lines begin with the pixels of their padding, of which a remainder of a stride may have less than none
    if "outputs" in g:
        return rows * -(-k_w * c_in // DEPTH), True
    if c_in % DEPTH == 0 or k_w == 1 or g["dilation_w"] > 1 or g["d_out"] * g["h_out"] == 1 or g["pad_left"] < 0:
        return wide, False
    narrow = rows * -(-k_w * c_in // DEPTH)
    return (narrow, True) if narrow < _NARROW * wide else (wide, False)


def outputs_abreast(g: dict[str, int]) -> dict[str, int]:
    """Positions of several neighbouring output pixels each, where one's channels would leave most of a register's columns empty.

    As many as take the fewest steps in all: together they read a longer stretch of a kernel row.
    """
    stride, k_w, w_out = g["stride_w"], g["k_w"], g["w_out"]
    if k_w == 1 or g["dilation_w"] > 1 or g["d_out"] * g["h_out"] == 1 or g["pad_left"] < 0:
        return {}

    def steps(outputs):
        taps = (outputs - 1) * stride + k_w
        return -(-w_out // outputs) * g["k_d"] * g["k_h"] * -(-taps * g["c_in"] // DEPTH)

    outputs = min(range(1, min(ROWS // g["c_out"], w_out // 2) + 1), key=steps, default=1)
    if outputs == 1 or steps(outputs) > _NARROW * w_out * _steps(g, g["c_in"])[0]:
        return {}
    return {
        "w_out": -(-w_out // outputs), "k_w": (outputs - 1) * stride + k_w, "stride_w": outputs * stride,
        "row_pixels": w_out, "outputs": outputs,
    }  # fmt: skip


def _met(g: dict[str, int]) -> float:
    """The part of the steps that an average pair of registers meets; see `loops.split.steps_met`."""
    if g["patch_pitch"] or not cost.much_padding(g):
        return 1.0
    if g["k_d"] > 1:
        return cost.slices_met(g) / g["k_d"]
    span = min(-(-2 * g["tile_height"] // g["positions"]), g["h_out"])
    return min(cost.rows_met(g, span) / g["k_h"], 1.0)


def _registers(g: dict[str, int]) -> int:
    """Registers of rows that a block of lines fills."""
    return -(-((g["line_block"] - 1) * g["positions"] + g["w_out"]) // g["tile_height"])
