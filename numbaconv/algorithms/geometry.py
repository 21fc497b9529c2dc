"""The integers that loops need of a problem, and how output pixels are cut into lines, tiles and blocks.  Pure."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from math import gcd, prod

import numpy as np

from numbaconv.codegen.records import CONV
from numbaconv.loops.gemm import MR, PANEL_ROW, TAP, TILE, WIDE_ROWS
from numbaconv.machine import Machine
from numbaconv.memo import said_last
from numbaconv.problem import PADDING_MODES, ConvProblem

#: Slices of so many bytes stay slices where channels have kernels to themselves; measured with 150 KB to 1.2 MB.
_LINE_BYTES = 1 << 18
#: Below this filling of tiles it is better to cut the image as one line than row by row.
_FULL = 0.85
#: The parts of the L2 that a block's input and a column block's weights may take; the rest is output and what streams by.
_INPUT_PART, _WEIGHT_PART = 4, 2
#: An input that takes no more than this part of the L2 is one block, so that all tiles share each panel when it comes.
_WHOLE_PART = 2
#: Results of so many bytes are gone from all caches when somebody reads them.  Smaller ones wait in the L3 for the next layer,
#: which reads them from there more than twice as fast as from memory (24 against 9 GB/s where this was measured).
_KEPT_BYTES = 12 << 20
#: Where weights take less than this part of the L2, the core walks tiles outside and panels inside.
_TILES_OUTSIDE_PART = 4
_NO_PADDING = (0, 0)
#: The most that a block's patches or packed rows may take, and its tap tables.
WORKSPACE_LIMIT = 1 << 20
_TABLE_LIMIT = 1 << 18


def geometry(problem: ConvProblem, pitches: tuple[int, int, int] | None = None, planes: bool = False) -> dict[str, int]:
    """Fields of the `CONV` record that follow from the problem alone.

    `pitches` are the elements from pixel to pixel of x, out and residual; by default pixels follow one another.  `planes` tells
    that the loops read channels-first tensors.
    """
    return _fields(problem, pitches, planes) if pitches else shared_fields(problem, planes).copy()


def shared_fields(problem: ConvProblem, planes: bool) -> dict[str, int]:
    """The same of pixels that follow one another, to be read only."""
    # only volumes are cut otherwise where channels are planes
    return _fields(problem, None, True) if planes and len(problem.spatial) == 3 else fields_of(problem)


def _fields(problem: ConvProblem, pitches: tuple[int, int, int] | None, planes: bool) -> dict[str, int]:
    size, x_channels, out_channels = problem.itemsize, problem.c_in, problem.c_out
    x_pitch, out_pitch, residual_pitch = pitches or (x_channels, out_channels, out_channels)
    if len(problem.spatial) == 3:
        problem = folded(problem, planes)
    # a signal is an image of height 1, and an image a volume of depth 1
    d_in = d_out = k_d = stride_d = dilation_d = 1
    slices = rows = _NO_PADDING
    if len(problem.spatial) == 2:
        h_in, w_in = problem.spatial
        h_out, w_out = problem.out_spatial
        k_h, k_w = problem.kernel
        stride_h, stride_w = problem.stride
        dilation_h, dilation_w = problem.dilation
        rows, columns = problem.padding
    elif len(problem.spatial) == 1:
        h_in = h_out = k_h = stride_h = dilation_h = 1
        (w_in,), (w_out,), (k_w,) = problem.spatial, problem.out_spatial, problem.kernel
        (stride_w,), (dilation_w,), (columns,) = problem.stride, problem.dilation, problem.padding
    else:
        d_in, h_in, w_in = problem.spatial
        d_out, h_out, w_out = problem.out_spatial
        k_d, k_h, k_w = problem.kernel
        stride_d, stride_h, stride_w = problem.stride
        dilation_d, dilation_h, dilation_w = problem.dilation
        slices, rows, columns = problem.padding
    groups = problem.groups
    c_in, c_out = x_channels // groups, out_channels // groups
    in_pixels, line_pixels = d_in * h_in * w_in, h_out * w_out
    out_pixels, window = d_out * line_pixels, k_d * k_h * k_w
    return {
        "n": problem.n,
        "d_in": d_in,
        "h_in": h_in,
        "w_in": w_in,
        "in_pixels": in_pixels,
        "c_in": c_in,
        "d_out": d_out,
        "h_out": h_out,
        "w_out": w_out,
        "out_pixels": out_pixels,
        "c_out": c_out,
        "groups": groups,
        "k_d": k_d,
        "k_h": k_h,
        "k_w": k_w,
        "window": window,
        "stride_d": stride_d,
        "stride_h": stride_h,
        "stride_w": stride_w,
        "dilation_d": dilation_d,
        "dilation_h": dilation_h,
        "dilation_w": dilation_w,
        "pad_front": slices[0],
        "pad_top": rows[0],
        "pad_left": columns[0],
        "padding_mode": PADDING_MODES.index(problem.padding_mode),
        "x_pixel": x_pitch * size,
        "x_image": in_pixels * x_pitch * size,
        "out_pixel": out_pitch * size,
        "residual_pixel": residual_pitch * size,
        "out_step": 1,
        "image_step": out_pixels,
        "slice_step": line_pixels,
        "line_step": w_out,
        "column_step": 1,
        "itemsize": size,
        "k_block": c_in,
        "panel_bytes": window * c_in * PANEL_ROW,
        "panels_per_group": -(-c_out * size // PANEL_ROW),
    }


#: Those of pixels that lie as most do, to be read only: all algorithms ask for them while a problem is ranked.
fields_of = said_last(partial(_fields, pitches=None, planes=False))


def folded(problem: ConvProblem, planes: bool = False) -> ConvProblem:
    """The same convolution of fewer axes where three are more than it needs: pixels lie in memory as before.

    Neighbouring axes along which the kernel has one tap, stride 1 and no padding are one axis, and slices that do not meet are
    images of their own, unless other channels' `planes` lie between them.
    """
    if len(problem.spatial) < 3 or not isinstance(problem, ConvProblem):
        # parts of other problems lie in memory as those say
        return problem
    return _folded_volume(problem, planes)


@lru_cache(maxsize=64)
def _folded_volume(problem: ConvProblem, planes: bool) -> ConvProblem:
    plain = [
        kernel == stride == 1 and ends == (0, 0)
        for kernel, stride, ends in zip(problem.kernel, problem.stride, problem.padding)
    ]
    if plain[0] and not planes:
        return replace(problem, n=problem.n * problem.spatial[0], **_axes(problem, ((1,), (2,))))
    if plain[1] and plain[2] and (planes or not _long_lines(problem)):
        return replace(problem, **_axes(problem, ((0,), (1, 2))))
    if plain[0] and plain[1]:
        return replace(problem, **_axes(problem, ((0, 1), (2,))))
    return problem


def _long_lines(problem: ConvProblem) -> bool:
    """Whether channels have kernels to themselves, which do little with a pixel, and slices as lines would leave the caches between
    one tap and the next.
    """
    slice_bytes = prod(problem.spatial[1:]) * problem.c_in * problem.itemsize
    return 1 < problem.groups == problem.c_in and slice_bytes > _LINE_BYTES


def _axes(problem: ConvProblem, kept: tuple[tuple[int, ...], ...]) -> dict[str, tuple]:
    """Fields of the problem with the axes `kept`, each made of one axis or several plain ones."""
    fields = {
        name: tuple(getattr(problem, name)[axes[0]] for axes in kept)
        for name in ("kernel", "stride", "dilation", "padding")
    }
    return fields | {"spatial": tuple(prod(problem.spatial[axis] for axis in axes) for axes in kept)}


def results(g: dict[str, int], machine: Machine) -> dict[str, int]:
    """Whether results are written past the caches, which saves reading their lines first: nothing would keep them; and whether
    their lines, which the L2 does not keep, are asked for before they are written."""
    nbytes = g["n"] * g["out_pixels"] * g["out_pixel"]
    streamed = nbytes > _KEPT_BYTES
    return {"streamed": int(streamed), "far_results": int(nbytes > 2 * machine.l2 and not streamed)}


def record(fields: dict[str, int]) -> np.ndarray:
    """A `CONV` record with these fields."""
    conv = np.zeros((), CONV)
    for name, value in fields.items():
        conv[name] = value
    return conv


def row_lines(g: dict[str, int]) -> dict[str, int]:
    """Tiles that stay inside one output row where rows fill them, so that tiles away from padding share one tap table."""
    parts = -(-g["w_out"] // MR)
    row = {"lines": g["d_out"] * g["h_out"], "line": g["w_out"]}
    if reaches_far(g):
        choices = (parts, -(-g["w_out"] // WIDE_ROWS))
        return row | {"tiles_per_line": min(choices, key=lambda n: _met_taps(g, n))}
    if g["w_out"] >= _FULL * MR * parts:
        return row | {"tiles_per_line": parts}
    return image_lines(g)


def reaches_far(g: dict[str, int]) -> bool:
    """Whether taps lie so far apart that tiles as short as the wide ones skip many of them in padding."""
    return 0 < WIDE_ROWS <= g["dilation_w"] and g["k_w"] > 1 and g["w_out"] >= WIDE_ROWS and g["panels_per_group"] > 1


def _met_taps(g: dict[str, int], parts: int) -> int:
    """Pixels times taps of a kernel row that tiles compute where a row is cut into `parts`: a tap skips a tile as a whole."""
    met, starts = 0, [part * g["w_out"] // parts for part in range(parts + 1)]
    for tap in range(g["k_w"]):
        before = g["pad_left"] - tap * g["dilation_w"]
        first, last = -(-before // g["stride_w"]), (g["w_in"] - 1 + before) // g["stride_w"]
        met += sum(stop - start for start, stop in zip(starts, starts[1:]) if start <= last and stop > first)
    return met


def image_lines(g: dict[str, int]) -> dict[str, int]:
    """All pixels of an image as one line."""
    pixels = g["out_pixels"]
    return {"lines": 1, "line": pixels, "tiles_per_line": -(-pixels // MR)}


def column_blocks(g: dict[str, int], machine: Machine) -> dict[str, int]:
    """Panels whose weights fit their part of the L2, and whether all of a group's fit so well that tiles go outside."""
    return {
        "column_block": max(1, machine.l2 // _WEIGHT_PART // g["panel_bytes"]),
        "tiles_outside": int(weights_stay(g, machine)),
    }


def weights_stay(g: dict[str, int], machine: Machine) -> bool:
    """Whether the weights of a group stay in the L2 from tile to tile."""
    return g["panels_per_group"] * g["panel_bytes"] <= machine.l2 // _TILES_OUTSIDE_PART


def rows_collide(g: dict[str, int], machine: Machine, rows: int = MR) -> bool:
    """Whether so many rows of a tile, read where they lie, fall into so few sets of the L1 that they evict one another.

    Addresses 4 KiB apart share a set, and the L1 has as many ways as it has pages of 4 KiB.
    """
    return rows * gcd(g["stride_w"] * g["x_pixel"], 4096) // 4096 > machine.l1 // 4096


def tile_block(g: dict[str, int], lines: dict[str, int], machine: Machine, tables: bool) -> int:
    """Tiles of a block: what they read fits its part of the L2; with `tables`, their tap tables fit the workspace."""
    read = MR * g["stride_d"] * g["stride_h"] * g["stride_w"] * g["x_pixel"]
    tiles = lines["lines"] * lines["tiles_per_line"]
    fit = tiles
    if tiles * read > machine.l2 // _WHOLE_PART:
        fit = max(1, machine.l2 // _INPUT_PART // read)
    if tables and fit * table_bytes(g) > _TABLE_LIMIT:
        fit = max(1, _TABLE_LIMIT // table_bytes(g))
    return fit if fit < tiles else tiles or 1


def row_block(lines: dict[str, int], machine: Machine, pitch: int) -> int:
    """Tiles of a block whose rows are packed, `pitch` bytes each: they fit their part of the L2 and the workspace."""
    room = min(WORKSPACE_LIMIT - 8192, machine.l2 // _INPUT_PART)
    return max(1, min(room // (MR * (pitch + 8 * TILE)), lines["lines"] * lines["tiles_per_line"]))


def table_bytes(g: dict[str, int]) -> int:
    """Bytes of the tap records of one tile."""
    return g["window"] * 8 * TAP


def tile_list_bytes(tiles: int) -> int:
    """Bytes of a tile list."""
    return tiles * 8 * TILE


def interior_taps(g: dict[str, int]) -> np.ndarray:
    """Tap records of a tile that touches no padding, relative to its first tap; see `loops.tables`."""
    k_w, row = (np.arange(n, dtype=np.int64) for n in (g["k_w"], MR))
    first = (_kernel_rows(g) + k_w * g["dilation_w"]).reshape(-1, 1) * g["x_pixel"]
    records = np.empty((len(first), TAP), np.int64)
    records[:, 0] = np.arange(len(first)) * g["c_in"] * PANEL_ROW
    records[:, 1:] = first + row * g["stride_w"] * g["x_pixel"]
    return records


def run_taps(g: dict[str, int], row: int, plane: int) -> np.ndarray:
    """Tap records of a tile whose taps are whole kernel rows: input rows lie `row` bytes apart, the kernel's slices `plane`."""
    k_d, k_h, column = (np.arange(n, dtype=np.int64) for n in (g["k_d"], g["k_h"], MR))
    rows = (k_d[:, None] * plane + k_h * g["dilation_h"] * row).reshape(-1, 1)
    run = g["k_w"] * g["c_in"]
    records = np.empty((len(rows), TAP), np.int64)
    records[:, 0] = np.arange(len(rows)) * run * PANEL_ROW
    records[:, 1:] = rows + column * g["stride_w"] * g["c_in"] * g["itemsize"]
    return records


def _kernel_rows(g: dict[str, int]) -> np.ndarray:
    """(k_d k_h, 1): distances in pixels of the kernel's rows from its first one."""
    k_d, k_h = (np.arange(n, dtype=np.int64) for n in (g["k_d"], g["k_h"]))
    slices = k_d[:, None] * g["dilation_d"] * g["h_in"]
    return ((slices + k_h * g["dilation_h"]) * g["w_in"]).reshape(-1, 1)


def affine_tap(pitch: int) -> np.ndarray:
    """The one tap record of tiles whose rows lie `pitch` bytes apart."""
    return np.array([0, *(row * pitch for row in range(MR))], np.int64)
