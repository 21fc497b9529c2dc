"""The gradient of the weights of narrow groups, lane by lane; see `loops.lanewise_gradient`.

Dense tiles multiply all channels of a vector's groups with one another and keep what belongs together; here nothing is multiplied
in vain, but x is spread over the lanes first, once for all taps.
"""

from __future__ import annotations

from math import prod

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.grouped import EXPAND
from numbaconv.algorithms.sliding import expansions
from numbaconv.backward.products import pixel_fields, record_of
from numbaconv.codegen.target import target
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.lanewise_gradient import lanewise_share
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.ndarrays import address
from numbaconv.loops.shares import Shares, even_grid, run_shares, share_address
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded, scratch

#: The part of the L2 that x, y and the strip of a block may take, and the most that the strip under one pixel may.
_BLOCK_PART, _STRIP_LIMIT = 2, 4 << 20
#: Vectors of channels times segments that threads find to share, where there are so many blocks.
_PIECES = 16


class LanewiseProducts:
    """A problem made ready whose groups are narrower than a vector."""

    def __init__(self, problem: ConvProblem, machine: Machine):
        self._problem = problem
        fields = _fields(problem)
        fields |= _block(problem, fields, machine)
        self._segments, self._vectors = fields["segments"], fields["vectors"]
        self._own_bytes = fields["at_planes"] + fields["strip"]
        self._expansions, self._taps = expansions(fields, target().isa), _distances(fields)
        self._zeros, self._ones = np.zeros(1, np.int64), np.ones(PANEL_ROW // problem.itemsize, problem.np_dtype)
        fields |= {
            "expansions": self._expansions.ctypes.data,
            "taps": self._taps.ctypes.data,
            "zeros": self._zeros.ctypes.data,
            "ones": self._ones.ctypes.data,
            "at_sums": len(self._taps) * problem.c_out * problem.itemsize,
        }
        self._record = record_of(fields)
        self._function = share_address(lanewise_share, problem.np_dtype)

    def gradients(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(c_out, c_in / groups, *kernel) and (c_out,) from contiguous x and the gradient of the result."""
        p, zero, threads = self._problem, self._problem.np_dtype.type(0), usable_threads()
        products = np.empty((self._segments, len(self._taps) + 1, p.c_out), p.np_dtype)
        grid = even_grid(self._segments, self._vectors, threads)
        work = Shares(self._function, *grid, self._record.ctypes.data, self._own_bytes, zero, zero, self)
        run_shares(work, address(x), address(y), address(products), scratch(self._own_bytes * threads))
        products = products.sum(axis=0)
        return np.ascontiguousarray(products[:-1].T).reshape(p.weight_shape), products[-1].copy()


def wins(p: ConvProblem, together: int) -> bool:
    """Whether this takes less than dense tiles on which so many groups are multiplied `together`.

        cycles a pixel = vectors x c_in / groups (taps / FMA + EXPAND stride)           lane by lane
                         clusters x vectors of one x its c_in x taps / FMA              on dense tiles

    Kernels that reach so far that a strip would be large are left to those.
    """
    if _sizes(_fields(p), 1, 1)["strip"] > _STRIP_LIMIT:
        return False
    lanes = VECTOR_BYTES // p.itemsize
    c_in, c_out = p.c_in // p.groups, p.c_out // p.groups
    lanewise = -(-p.c_out // lanes) * c_in * (p.taps / cost.FMA + EXPAND * prod(p.stride))
    return lanewise < p.groups * -(-together * c_out // lanes) * c_in * p.taps / cost.FMA


def _fields(p: ConvProblem) -> dict[str, int]:
    """Fields of the `GRADIENT` record that follow from the problem; to the loops all groups are one."""
    fields = pixel_fields(p)
    group_out, lanes = fields["c_out"], VECTOR_BYTES // p.itemsize
    planes = p.layout == "channels_first" and p.c_in > 1
    return fields | {
        "groups": 1,
        "c_out": p.c_out,
        "group_out": group_out,
        "panels_per_group": -(-p.c_out * p.itemsize // PANEL_ROW),
        "vectors": -(-p.c_out // lanes),
        "in_place": int(fields["y_channel"] == p.itemsize and p.c_out % lanes == 0),
        # the most channels that the groups of one vector have
        "staged": ((lanes + group_out - 2) // group_out + 1) * fields["c_in"] if planes else 0,
    }


def _sizes(f: dict[str, int], lines: int, columns: int) -> dict[str, int]:
    """Pitches and bytes of the strip under so many lines and columns of y, and where things lie in the workspace."""
    rows, width = (
        (count - 1) * f[f"stride_{axis}"] + (f[f"k_{axis}"] - 1) * f[f"dilation_{axis}"] + 1
        for axis, count in (("h", lines), ("w", columns))
    )
    row = width * PANEL_ROW
    packed = 0 if f["in_place"] else rounded(lines * columns * PANEL_ROW)
    # pixels are read in two whole vectors
    staging = rounded((width + 1) * f["staged"] * f["itemsize"] + 2 * VECTOR_BYTES) if f["staged"] else 0
    return {
        "row_pitch": row, "depth_pitch": rows * row, "plane_pitch": f["k_d"] * rows * row,
        "at_panels": 0, "at_staging": packed, "at_planes": packed + staging,
        "strip": f["c_in"] * f["k_d"] * rows * row,
    }  # fmt: skip


def _block(p: ConvProblem, f: dict[str, int], machine: Machine) -> dict[str, int]:
    """How the work is cut: into blocks of lines, of columns where a line does not fit, and segments of blocks."""

    def fits(lines: int, columns: int) -> bool:
        sizes = _sizes(f, lines, columns)
        pixels = sizes["plane_pitch"] // PANEL_ROW
        tensors = (pixels * p.c_in + lines * columns * p.c_out) * p.itemsize
        return tensors + sizes["strip"] <= machine.l2 // _BLOCK_PART

    blocks_h = blocks_w = 1
    while blocks_h < f["h_out"] and not fits(-(-f["h_out"] // blocks_h), f["w_out"]):
        blocks_h += 1
    lines = -(-f["h_out"] // blocks_h)
    # pieces of a line shorter than the kernel would mostly read what the next ones read again
    reach = (f["k_w"] - 1) * f["dilation_w"] // f["stride_w"] + 1
    while blocks_w * 2 * reach < f["w_out"] and not fits(lines, -(-f["w_out"] // blocks_w)):
        blocks_w *= 2
    blocks = f["n"] * f["d_out"] * blocks_h * blocks_w
    segments = max(1, min(blocks, _PIECES // f["vectors"]))
    cut = {"blocks_h": blocks_h, "blocks_w": blocks_w, "segments": segments}
    return cut | _sizes(f, lines, -(-f["w_out"] // blocks_w))


def _distances(f: dict[str, int]) -> np.ndarray:
    """Where the channels of a group and the taps lie in the strip: bytes from its first pixel, in the order of the weights."""
    steps = (
        (f["c_in"], f["plane_pitch"]),
        (f["k_d"], f["depth_pitch"]),
        (f["k_h"], f["dilation_h"] * f["row_pitch"]),
        (f["k_w"], f["dilation_w"] * PANEL_ROW),
    )
    distances = np.zeros(1, np.int64)
    for count, step in steps:
        distances = np.add.outer(distances, np.arange(count, dtype=np.int64) * step).ravel()
    return distances
