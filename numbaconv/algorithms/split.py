"""Products of float32 in three of bfloat16, on machines with matrix tiles (AMX): five times the multiply-adds a cycle.

Wins on nearly every dense convolution whose accuracy may be 16 bits of each operand instead of 24.  The input is split a block at a
time, which the tiles then read in place for every tap; see `loops.split`.

    cycles = MATRIX (steps x tiles) / FILLED + TILE tiles + finished rows + SPLIT (blocks of 32 channels that are split)
           + what comes from beyond the L2 (`cost.far_cycles`)
"""

from __future__ import annotations

from math import ceil

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import geometry
from numbaconv.algorithms.split_panels import SplitPanels
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.codegen.amx import COLUMNS, DEPTH, ROW_BYTES, ROWS, STEP_BYTES, configuration
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.split import SUMS_BYTES, split_share
from numbaconv.workspace import rounded

#: What LLVM calls the instructions that are needed.
_FEATURES = "amx-tile", "amx-bf16", "avx512bf16"
#: Bound of the error of a product, relative to it: what both operands lose, and the product of their low parts.
_ERROR = 5.5e-6
#: The parts of the L2 that a block of the input, and panels that tiles share, may take.
_INPUT_PART, _PANEL_PART = 3, 4
_WORKSPACE_LIMIT = 4 << 20
#: Tiles of no more steps wait for the lines of results that they write, if those are not asked for.
_FEW_STEPS = 4
#: Fewer elements of a kernel row's than this part of the wide form's steps, and the narrow form is taken.
_NARROW = 0.8
#: Cycles of one product of two registers; the part of the time that they run; of starting a tile; of finishing a row of a panel;
#: of splitting 32 channels of a pixel.
_MATRIX, _FILLED, _TILE, _ROW, _SPLIT = 16.0, 0.8, 60.0, 6.0, 9.0


class Split(TiledAlgorithm):
    """Blocks are lines of a slice; where a line is one pixel, as in signals and 1x1 kernels, pixels are lines."""

    name = "bf16x3"
    share = split_share
    head_bytes = SUMS_BYTES
    #: infinity minus infinity is what is left of an infinite operand, and narrow forms read pixels beside their taps
    local = False
    padding_modes = False
    workspace_limit = _WORKSPACE_LIMIT

    def rms_error(self, problem):
        """What two operands of 16 bits lose."""
        return _ERROR

    def unsupported(self, problem, epilogue, machine):
        if problem.dtype != "f32":
            return f"matrix tiles make no {problem.dtype}"
        if missing := [feature for feature in _FEATURES if not machine.has(feature)]:
            return f"the machine has no {missing[0]}"
        if TARGETS[machine.isa].columns(problem.itemsize) != 2 * COLUMNS:
            return f"panels of {machine.isa} are not two matrix tiles wide"
        return None

    def core(self, dtype):
        """There is none: tiles belong to the loop nest."""
        return 0

    def cut(self, g, machine):
        fields = _turned(g)
        g = g | fields
        stride_w, c_in = g["stride_w"], g["c_in"]
        reach_h, reach_w = (((g[f"k_{a}"] - 1) * g[f"dilation_{a}"]) // g[f"stride_{a}"] for a in "hw")
        fields |= {
            "line": g["h_out"],
            "reach_h": reach_h,
            "phases_h": g["stride_h"] if g["k_h"] > 1 else 1,
            "tile_height": ROWS,
        }
        wide_steps, narrow_steps = _steps(g)
        narrow = narrow_steps < _NARROW * wide_steps
        needed = g["w_out"] + reach_w
        if narrow:
            after = needed - -(-(g["w_in"] + g["pad_left"]) // stride_w)
            shared = max(min(reach_w, g["pad_left"] // stride_w, after), 0)
            fields |= {"phases": 1, "block_pitch": 0, "position_bytes": stride_w * c_in * 2}
        else:
            fields |= {"phases": stride_w if g["k_w"] > 1 else 1, "position_bytes": ROW_BYTES}
            # no more than what lies between lines, so that each output has a position of its own
            shared = reach_w
            for phase in range(fields["phases"]):
                before = max(-(-(g["pad_left"] - phase) // stride_w), 0)
                after = needed - -(-(g["w_in"] + g["pad_left"] - phase) // stride_w)
                shared = max(min(shared, before, after), 0)
        positions = needed - shared
        fields |= {"positions": positions, "shared": shared, "steps": narrow_steps if narrow else wide_steps}
        g = g | fields
        room = machine.l2 // _INPUT_PART
        lines = _lines(g, room)
        if lines < min(reach_h, g["line"]):
            # most of each block would be split for its neighbours, too
            lines = max(lines, min(reach_h, _lines(g, min(machine.l2, _WORKSPACE_LIMIT // 2))))
        block = _block(g, lines)
        unit_pitch = rounded(block.pop("bytes"))
        units = 1
        if lines == g["line"]:
            units = max(1, min(room // unit_pitch, g["n"] * g["d_out"]))
        total = (lines - 1) * positions + g["w_out"]
        registers = -(-total // ROWS)
        panel_bytes = g["steps"] * STEP_BYTES
        fields |= block | {
            "lines": g["d_out"],
            "line_block": lines,
            "unit_block": units,
            "unit_pitch": unit_pitch,
            "tile_height": max(-(-total // max(registers, 1)), 1),
            "panel_bytes": panel_bytes,
            "column_block": max(1, machine.l2 // _PANEL_PART // panel_bytes),
            "tiles_per_line": 1,
            # what the L2 keeps needs no asking for
            "fetch": int(g["n"] * g["x_image"] > machine.l2 // _INPUT_PART),
            # nor do results that many products hide
            "far_results": int(g["steps"] <= _FEW_STEPS and g["n"] * g["out_pixels"] * g["out_pixel"] > machine.l2),
            "tile_block": lines,
        }
        return Cut(fields, units * unit_pitch, g["steps"] * 8 + ROW_BYTES)

    def tables(self, g, cut):
        g = g | cut.fields
        d, h, w = np.ix_(*(np.arange(g[f"k_{a}"], dtype=np.int64) for a in "dhw"))
        down, phase_h = np.divmod(h * g["dilation_h"], g["stride_h"])
        base = d * g["strip_pitch"] + phase_h * g["phases"] * g["phase_pitch"] + down * g["row_pitch"]
        if g["block_pitch"]:
            across, phase = np.divmod(w * g["dilation_w"], g["stride_w"])
            base = base + phase * g["phase_pitch"] + across * ROW_BYTES
            blocks = np.arange(-(-g["c_in"] // DEPTH)) * g["block_pitch"]
        else:
            base = base + 0 * w[..., :1]
            blocks = np.arange(-(-g["k_w"] * g["c_in"] // DEPTH)) * ROW_BYTES
        taps = np.ascontiguousarray((base[..., None] + blocks).reshape(-1))
        config = np.frombuffer(configuration(g["tile_height"]), np.uint8).copy()
        return {"taps": taps, "tables": config}

    def operands(self, weights, g):
        run = g["c_in"] if g["block_pitch"] else g["c_in"] * g["k_w"]
        return {"panels": weights.form(SplitPanels(run)), "bias": weights.packed_bias}

    def functions(self, g, np_dtype):
        return {}

    def shares(self, g):
        """Lines of all images, panels of all groups."""
        return g["n"] * g["d_out"] * g["line"], g["groups"] * g["panels_per_group"]

    def zeros(self, g):
        """None are read."""
        return 0

    def gemm_cycles(self, g, machine):
        """Products of registers, and what each tile and row costs besides."""
        blocks = g["n"] * g["d_out"] * (g["line"] / g["line_block"])
        positions = (g["line_block"] - 1) * g["positions"] + g["w_out"]
        registers = ceil(positions / g["tile_height"])
        panels = g["c_out"] / (2 * ROWS)
        halves = ceil(2 * panels)
        product = _MATRIX * (g["tile_height"] + 1) / (ROWS + 1)
        products = 3 * registers * halves * g["steps"] * _met(g) * product / _FILLED
        tiles = ceil(registers / 2) * ceil(panels) * _TILE
        return blocks * g["groups"] * (products + tiles + positions * ceil(panels) * _ROW)

    def extra_cycles(self, problem, g, machine):
        """Splitting: again for each slice of the kernel."""
        blocks = g["n"] * g["d_out"] * (g["line"] / g["line_block"])
        rows = g["phases_h"] * (g["line_block"] + g["reach_h"]) * g["k_d"]
        stretches = g["positions"] * (
            g["phases"] * ceil(g["c_in"] / DEPTH) if g["block_pitch"] else g["position_bytes"] / ROW_BYTES
        )
        return blocks * g["groups"] * rows * stretches * _SPLIT

    def far_cycles(self, g, machine):
        """Weights come again with each block, unless they stay."""
        blocks = ceil(g["n"] * g["d_out"] / g["unit_block"]) * ceil(g["line"] / g["line_block"])
        weights = g["groups"] * g["panels_per_group"] * g["panel_bytes"]
        return cost.far_cycles(g, machine, weights, 1, blocks)

    def least_seconds(self, problem, machine):
        """Products of full registers, nothing lost."""
        g = geometry(problem)
        g |= _turned(g)
        pixels = g["n"] * g["out_pixels"] * g["groups"]
        cycles = pixels / ROWS * ceil(g["c_out"] / ROWS) * min(_steps(g)) * 3 * _MATRIX
        return cycles / machine.rates.clock


def _met(g: dict[str, int]) -> float:
    """The part of the steps that an average pair of registers meets; see `loops.split.steps_met`."""
    if g["k_d"] > 1:
        return cost.slices_met(g) / g["k_d"]
    span = min(ceil(2 * g["tile_height"] / g["positions"]), g["h_out"])
    return min(cost.rows_met(g, span) / g["k_h"], 1.0)


def _turned(g: dict[str, int]) -> dict[str, int]:
    """Lines of one pixel each, where rows meet neither one another nor padding: signals, and kernels of one pixel."""
    same = {"h_in": g["h_in"], "w_in": g["w_in"], "line_step": g["line_step"], "column_step": g["column_step"]}
    plain = all(
        g[f"k_{a}"] == g[f"stride_{a}"] == 1 and g[pad] == 0 for a, pad in (("d", "pad_front"), ("h", "pad_top"))
    )
    plain = plain and g["d_in"] == g["d_out"] and g["h_in"] == g["h_out"]
    if not plain:
        return same
    if g["h_in"] * g["d_in"] == 1:
        return {
            "h_in": g["w_in"], "h_out": g["w_out"], "k_h": g["k_w"], "stride_h": g["stride_w"],
            "dilation_h": g["dilation_w"], "pad_top": g["pad_left"], "line_step": g["column_step"],
            "w_in": 1, "w_out": 1, "k_w": 1, "stride_w": 1, "dilation_w": 1, "pad_left": 0, "column_step": 1,
        }  # fmt: skip
    every = g["line_step"] == g["w_out"] * g["column_step"] and g["slice_step"] == g["h_out"] * g["line_step"]
    if g["k_w"] == g["stride_w"] == 1 and g["w_in"] == g["w_out"] and g["pad_left"] == 0 and every:
        pixels, images = g["out_pixels"], 1
        if g["image_step"] == g["out_pixels"] * g["column_step"]:
            images = max(g["n"], 1)
        return {
            "n": g["n"] // images, "h_in": images * pixels, "h_out": images * pixels, "d_in": 1, "d_out": 1,
            "w_in": 1, "w_out": 1, "line_step": g["column_step"], "column_step": 1,
            "in_pixels": images * pixels, "out_pixels": images * pixels,
        }  # fmt: skip
    return same


def _steps(g: dict[str, int]) -> tuple[int, int]:
    """Steps of a wide and of a narrow form."""
    rows = g["k_d"] * g["k_h"]
    wide = rows * g["k_w"] * -(-g["c_in"] // DEPTH)
    if g["dilation_w"] > 1 or g["k_w"] == 1 or g["d_out"] * g["h_out"] == 1 or g["pad_left"] < 0:
        return wide, wide
    return wide, rows * -(-g["k_w"] * g["c_in"] // DEPTH)


def _lines(g: dict[str, int], room: int) -> int:
    """Lines of even blocks that fit so many bytes, at least one."""
    if _block(g, g["line"])["bytes"] <= room:
        return g["line"]
    fixed = _block(g, 0)["bytes"]
    # so many that what is rounded for one or the other does not count
    line = (_block(g, ROW_BYTES)["bytes"] - fixed) / ROW_BYTES
    lines = max(1, int((room - fixed) // line))
    return -(-g["line"] // -(-g["line"] // lines))


def _block(g: dict[str, int], lines: int) -> dict[str, int]:
    """Where things lie in the workspace for blocks of so many lines, and how many bytes they take."""
    wide = g["position_bytes"] == ROW_BYTES and "block_pitch" not in g
    row_pitch = g["positions"] * g["position_bytes"]
    tail = g["shared"] * g["position_bytes"] + 2 * ROW_BYTES
    phase_pitch = rounded((lines + g["reach_h"]) * row_pitch + tail)
    blocks = -(-g["c_in"] // DEPTH) if wide else 1
    block_pitch = g["phases_h"] * g["phases"] * phase_pitch
    low = rounded(g["k_d"] * blocks * block_pitch)
    # registers reach beyond the last position
    beyond = (2 * ROWS + 1) * g["position_bytes"] + ROW_BYTES
    return {
        "row_pitch": row_pitch,
        "phase_pitch": phase_pitch,
        "block_pitch": block_pitch if wide else 0,
        "strip_pitch": blocks * block_pitch,
        "low": low,
        "bytes": 2 * low + beyond,
    }
