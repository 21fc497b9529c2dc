"""The gradient of a convolution's weights as one GEMM, whose K is all pixels; see `loops.gradient`."""

from __future__ import annotations

from dataclasses import replace
from math import gcd, prod

import numpy as np

from numbaconv.algorithms.weights import row_pitch
from numbaconv.codegen.records import GRADIENT
from numbaconv.loops.gemm import MR, PANEL_ROW, TAP, TILE, core_address, gemm_core
from numbaconv.loops.gradient import gradient_share
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.ndarrays import address
from numbaconv.loops.shares import Shares, even_grid, run_shares, share_address
from numbaconv.loops.transpose import Transposition
from numbaconv.loops.walk import CALL_BYTES
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded, scratch, view

#: Pixels of a block: sums wait in memory between blocks, which costs next to nothing above so many.
_PIXELS = 384
#: The part of the L2 that the planes of a block may take.
_PLANES_PART = 4


class Products:
    """A problem made ready; so many groups are multiplied `together`, of whose products each keeps its own block."""

    def __init__(self, problem: ConvProblem, together: int, machine: Machine):
        self._problem, self._together = problem, together
        dense = replace(problem, groups=problem.groups // together)
        fields = pixel_fields(dense)
        fields |= _block(fields, machine)
        self._panels = fields["panels"]
        self._taps = _taps(fields)
        self._zeros = np.zeros(fields["panels"] * PANEL_ROW, np.uint8)
        self._ones = np.ones(PANEL_ROW // problem.itemsize, problem.np_dtype)
        fields |= {
            "taps": self._taps.ctypes.data,
            "zeros": self._zeros.ctypes.data,
            "ones": self._ones.ctypes.data,
            "at_sums": rounded(prod(dense.weight_shape) * problem.itemsize),
            "core": core_address(gemm_core, problem.np_dtype),
        }
        self._record = record_of(fields)
        self._function = share_address(gradient_share, problem.np_dtype)
        self._own_bytes = rounded(fields["at_planes"] + fields["slices"] * fields["chunk"] * fields["plane_pitch"])
        self._shape = dense.weight_shape
        # products have a row for each weight of an output channel
        rows = fields["c_in"] * problem.taps
        self._products_bytes = fields["at_sums"]
        self._turn = Transposition(dense.groups, rows, fields["c_out"], problem.np_dtype)

    def gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(c_out, c_in / groups, *kernel) and (c_out,) from contiguous x and the gradient of the result."""
        p, zero, threads = self._problem, self._problem.np_dtype.type(0), usable_threads()
        result = np.empty(self._shape, p.np_dtype)
        sums = rounded(p.c_out * p.itemsize)
        products = scratch(self._products_bytes + sums + self._own_bytes * threads)
        grid = even_grid(p.c_in, self._panels, threads)
        work = Shares(self._function, *grid, self._record.ctypes.data, self._own_bytes, zero, zero, self)
        run_shares(work, address(x), address(y), products, products + self._products_bytes + sums)
        bias = view(products + self._products_bytes, (p.c_out,), p.np_dtype).copy()
        run_shares(self._turn.shares(threads), products, address(result), 0, 0)
        if self._together == 1:
            return result, bias
        # of a cluster, every group's own block is kept
        shape = p.groups // self._together, self._together, p.c_out // p.groups, self._together, *p.weight_shape[1:]
        own = np.arange(self._together)
        return result.reshape(shape)[:, own, :, own].swapaxes(0, 1).reshape(p.weight_shape), bias


def record_of(fields: dict[str, int]) -> np.ndarray:
    """A `GRADIENT` record with these fields; those of another loop nest are 0."""
    record = np.zeros((), GRADIENT)
    for name in GRADIENT.names:
        record[name] = fields.get(name, 0)
    return record


def pixel_fields(p: ConvProblem) -> dict[str, int]:
    """Fields of the `GRADIENT` record that follow from the problem; channels are those of one group."""
    size, first = p.itemsize, p.layout == "channels_first"
    fields = {"n": p.n, "groups": p.groups, "itemsize": size}
    fields |= {"c_in": p.c_in // p.groups, "c_out": p.c_out // p.groups}
    padding = tuple(before for before, _ in p.padding)
    for names, values, unit in (
        ("d_in h_in w_in", p.spatial, 1),
        ("d_out h_out w_out", p.out_spatial, 1),
        ("k_d k_h k_w", p.kernel, 1),
        ("stride_d stride_h stride_w", p.stride, 1),
        ("dilation_d dilation_h dilation_w", p.dilation, 1),
        ("pad_front pad_top pad_left", padding, 0),
    ):
        fields |= zip(names.split(), (unit,) * (3 - len(values)) + tuple(values))
    for name, channels, pixels in (("x", p.c_in, prod(p.spatial)), ("y", p.c_out, prod(p.out_spatial))):
        # one channel lies the same way in both layouts
        planes = first or channels == 1
        fields |= {
            f"{name}_image": channels * pixels * size,
            f"{name}_channel": (pixels if planes else 1) * size,
            f"{name}_pixel": (1 if planes else channels) * size,
        }
    if p.taps == 1 and all(step == 1 for step in p.stride) and not any(map(any, p.padding)):
        # all lines are one, to be cut anew where they are too long or too short
        pixels = prod(p.spatial)
        line = max(size for size in range(1, min(_PIXELS, pixels) + 1) if pixels % size == 0)
        if line >= fields["w_out"]:
            fields |= {
                "d_in": 1,
                "d_out": 1,
                "h_in": pixels // line,
                "h_out": pixels // line,
                "w_in": line,
                "w_out": line,
            }
    return fields


def _block(f: dict[str, int], machine: Machine) -> dict[str, int]:
    """How the work is cut: lines and slices of a block, channels of a chunk; and where everything lies in the workspace."""
    size = f["itemsize"]
    blocks = -(-f["h_out"] // max(1, _PIXELS // f["w_out"]))
    lines = -(-f["h_out"] // blocks)
    slices = max(1, min(f["n"] * f["d_out"], _PIXELS // (lines * f["w_out"]))) if blocks == 1 else 1
    reach = (f["k_w"] - 1) * f["dilation_w"]
    positions = f["w_out"] + reach // f["stride_w"]
    phases = min(f["stride_w"], reach + 1)
    rows = (lines - 1) * f["stride_h"] + (f["k_h"] - 1) * f["dilation_h"] + 1
    row = phases * positions * size
    plane = row_pitch(f["k_d"] * rows * row)
    chunk = max(1, min(f["c_in"], machine.l2 // _PLANES_PART // (slices * plane)))
    window = f["k_d"] * f["k_h"] * f["k_w"]
    panels = -(-f["c_out"] * size // PANEL_ROW)
    panel = slices * lines * f["w_out"] * PANEL_ROW
    at_tiles = rounded(CALL_BYTES)
    at_panels = rounded(at_tiles + -(-chunk * window // MR) * 8 * TILE)
    return {
        "slices": slices, "lines": lines, "chunk": chunk, "rows": rows, "phases": phases, "positions": positions,
        "phase_pitch": positions * size, "row_pitch": row, "depth_pitch": rows * row, "plane_pitch": plane,
        "panel_bytes": panel, "panels": panels,
        "pattern_bytes": slices * lines * 8 * TAP, "patterns": window // gcd(window, MR),
        "at_tiles": at_tiles, "at_panels": at_panels, "at_planes": at_panels + panels * panel,
    }  # fmt: skip


def _taps(f: dict[str, int]) -> np.ndarray:
    """Tap records of a block, (patterns, slices, lines, TAP): tiles start at any tap of a channel, and a line is a tap."""
    window, size = f["k_d"] * f["k_h"] * f["k_w"], f["itemsize"]
    channel, tap = np.divmod(np.arange(f["patterns"])[:, None] * MR % window + np.arange(MR), window)
    k_d, k_h, k_w = np.unravel_index(tap, (f["k_d"], f["k_h"], f["k_w"]))
    position, phase = np.divmod(k_w * f["dilation_w"], f["stride_w"])
    rows = channel * f["plane_pitch"] + k_d * f["depth_pitch"] + k_h * f["dilation_h"] * f["row_pitch"]
    rows += phase * f["phase_pitch"] + position * size
    part, line = np.arange(f["slices"])[:, None, None], np.arange(f["lines"])[:, None]
    taps = np.empty((f["patterns"], f["slices"], f["lines"], TAP), np.int64)
    taps[..., :1] = (part * f["lines"] + line) * f["w_out"] * PANEL_ROW
    lines = part * f["chunk"] * f["plane_pitch"] + line * f["stride_h"] * f["row_pitch"]
    taps[..., 1:] = rows[:, None, None] + lines
    return taps
