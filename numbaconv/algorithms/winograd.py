"""Winograd convolution: F(m, r) down and across, 2 to 5 times fewer multiplications than the definition asks for.

Wins on kernels of 3 and more taps with enough channels, unless the transformed weights are too large for the time that the
image takes.  A dilated kernel is an ordinary one on interleaved sets of pixels; a strided one is the sum of ordinary
ones over the phases of its stride, that of a volume the sum over its slices, and a wide one that over pieces of m taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod, sqrt

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.geometry import folded
from numbaconv.algorithms.tiled import Cut, TiledAlgorithm
from numbaconv.algorithms.weights import row_pitch
from numbaconv.algorithms.winograd_form import SIZES, Form, form, refusal
from numbaconv.codegen.cook_toom import transforms
from numbaconv.codegen.target import TARGETS
from numbaconv.loops.gemm import MR, PANEL_ROW, TAP, TILE, VECTOR_BYTES
from numbaconv.loops.transforms import transform_addresses
from numbaconv.loops.winograd import HEADER, winograd_share
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.values import DTYPES
from numbaconv.workspace import aligned, rounded

#: The most that a thread's workspace may take, and the part of it and of the L2 that a block aims at.
WORKSPACE_LIMIT = 4 << 20
_L2_PART = 0.3
#: More bytes than this of transformed pixels are split by channels.
_SPLIT = WORKSPACE_LIMIT // 2
#: Panels of products that are made before they are transformed, and rows that a block has at the least where they exist.
_COLUMN_BLOCK, _ROWS = 4, 2 * MR
#: Where all weights take less than this part of the L2, they stay there from block to block.
_WEIGHT_PART = 2
_SAFETY = 1.25
#: Cycles to call the core, and to find the pixels of a tile; measured.
_CALL, _TILE = 150.0, 100.0
#: How much longer it takes where the phases of a stride make long rows of few tiles; measured.
_STRIDED = 1.15
#: How much longer transforms take where vectors of channels cross cache lines; measured.
_APART = 1.9
#: The part of the weights' transfer that nothing hides, where they are asked for ahead and where they are not; measured.
_WAITED, _UNFETCHED = 0.45, 0.7
_EPS = {name: float(np.finfo(dtype).eps) for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class _Pack:
    """Packs weights for F(m_h, r_h) by F(m_w, r_w) over a stride's phases: (groups, positions, panels, summed phases c_in, NR).

    What is `summed` are the slices of the kernel, or `pieces` of its rows.

    G w G^T is computed in float64 and rounded once.
    """

    m_h: int
    m_w: int
    stride_h: int
    stride_w: int
    kernel: tuple[int, int, int]
    pieces: int

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        c_out, c_in = weight.shape[0] // groups, weight.shape[1]
        k_d, k_h, k_w = self.kernel
        weight = weight.reshape(*weight.shape[:2], *self.kernel)
        r_h, r_w = -(-k_h // self.stride_h), -(-k_w // self.stride_w)
        if self.pieces > 1:
            r_w = self.m_w
        summed = k_d * self.pieces
        kernel = np.kron(_matrix(self.m_h, r_h), _matrix(self.m_w, r_w))
        columns = PANEL_ROW // weight.itemsize
        panels, k = -(-c_out // columns), summed * self.stride_h * self.stride_w * c_in
        shape = (groups, len(kernel), panels, k, columns)
        packed = aligned(int(np.prod(shape)) * weight.itemsize).view(weight.dtype).reshape(shape)
        padded = np.zeros((columns, c_in, k_d, r_h * self.stride_h, self.pieces * r_w * self.stride_w))
        for group in range(groups):
            for panel in range(panels):
                first = group * c_out + panel * columns
                part = weight[first : min(first + columns, (group + 1) * c_out)]
                padded[...] = 0
                padded[: len(part), :, :, :k_h, :k_w] = part
                # (column, channel, slice, tap, phase, piece, tap, phase)
                # -> (slice, piece, phase, phase, channel, tap, tap, column)
                phases = padded.reshape(
                    columns, c_in, k_d, r_h, self.stride_h, self.pieces, r_w, self.stride_w
                ).transpose(2, 5, 4, 7, 1, 3, 6, 0)
                # a small product for each row of the panel, which BLAS leaves to this thread
                packed[group, :, panel] = (kernel @ phases.reshape(k, r_h * r_w, columns)).transpose(1, 0, 2)
        return packed


def _matrix(m: int, r: int) -> np.ndarray:
    return np.array([[float(x) for x in row] for row in transforms(m, r).kernel])


class Winograd(TiledAlgorithm):
    """F(m x m, r x r), with r the taps a phase of the stride has; an axis without taps to save keeps one output a tile."""

    name = "winograd"
    share = winograd_share
    head_bytes = HEADER
    #: a NaN or infinity reaches all outputs of the tiles that read it
    local = False
    workspace_limit = WORKSPACE_LIMIT

    def __init__(self, m: int):
        self.m = m

    def variant(self, problem):
        """The sizes of F."""
        problem = folded(problem)
        outputs, taps = (
            "x".join(map(str, sizes)) for sizes in zip(*form(self.m, problem.kernel, problem.stride).sizes)
        )
        return f"F({outputs}, {taps})"

    def rms_error(self, problem):
        """Rounding of a sum of K products, amplified down and across; `SAFETY` covers what differs between problems.

            SAFETY eps / 2 (0.7 + 0.3 sqrt(K)) amplification(m_h, r_h) amplification(m_w, r_w)

        For independent operands around zero; the two constants are fitted to K from 4 to 1024.
        """
        problem = folded(problem)
        sizes = form(self.m, problem.kernel, problem.stride)
        k = problem.c_in // problem.groups * prod(problem.stride[-2:]) * prod(problem.kernel[:-2]) * sizes.pieces
        return _SAFETY * _EPS[problem.dtype] / 2 * (0.7 + 0.3 * sqrt(k)) * sizes.amplification

    def unsupported(self, problem, epilogue, machine):
        problem = folded(problem)
        return refusal(self.m, problem.kernel, problem.stride, problem.dilation, problem.groups > 1)

    def cut(self, g, machine):
        fields = self._tiles(g)
        if fields["tile_step"]:
            g = g | fields
        positions = fields["n_h"] * fields["n_w"]
        k = g["stride_h"] * g["stride_w"] * g["c_in"]
        panels = g["groups"] * g["panels_per_group"]
        column_block, k_block = _column_block(g), k
        if positions * _split_bytes(g, k) > _SPLIT:
            # all columns at once, so that each block of channels is transformed once
            column_block = panels
            k_block = max(1, _SPLIT // (positions * _ROWS * g["itemsize"]))
        # a block may begin within one group and end within another
        groups = min(g["groups"], (column_block + g["panels_per_group"] - 2) // g["panels_per_group"] + 1)
        channels = k_block if g["groups"] == 1 else groups * g["c_in"]
        data_pitch = row_pitch(channels * g["itemsize"])
        product_pitch = row_pitch(column_block * PANEL_ROW)
        total = g["n"] * fields["tiles_h"] * fields["tiles_w"]
        chunks, slices, slots, rows = _slices(g, int(_L2_PART * machine.l2) // positions, data_pitch, product_pitch)
        blocks = -(-total // max(-(-_ROWS // slices), rows if slices > 1 else rows // MR * MR))
        # an even number is easy to share
        blocks += blocks > 1 and blocks % 2
        rows = -(-total // max(blocks, 1))
        tile_list = (g["k_d"] * TAP + slices * -(-rows // MR) * TILE + positions + fields["m_h"] * fields["m_w"]) * 8
        head = HEADER + tile_list + column_block * PANEL_ROW
        fields |= {
            "lines": blocks * chunks,
            "chunks": chunks,
            "block_slices": slices,
            # a block that transforms all channels at once leaves its slices to the next one
            "keeps": int(g["groups"] == 1 and k_block == k),
            "tile_block": rows,
            "column_block": column_block,
            "k_block": k_block,
            "panel_bytes": g["k_d"] * k * PANEL_ROW,
            # weights that stay in the L2 need no prefetching, so that tiles may span two panels
            "tiles_outside": int(panels * positions * g["k_d"] * k * PANEL_ROW < machine.l2 // _WEIGHT_PART),
            "data_offset": rounded(head),
            "data_pitch": data_pitch,
            "data_position": _odd_lines(slots * rows * data_pitch),
            "product_pitch": product_pitch,
            "product_position": _odd_lines(slices * rows * product_pitch),
        }
        workspace = (
            fields["data_offset"]
            - HEADER
            + positions * (fields["data_position"] + fields["product_position"])
            + VECTOR_BYTES
        )
        return Cut(fields, workspace, 8 * (positions + 2 * fields["m_h"] * fields["m_w"]))

    def _tiles(self, g: dict[str, int]) -> dict[str, int]:
        """Sizes of F and the number of tiles along each axis."""
        sizes = self._form_of(g)
        (m_h, r_h), (m_w, r_w) = sizes.sizes
        dilation_h, dilation_w = _dilation(g)
        tiles_h, tiles_w, slices = sizes.tiles(g["h_out"], g["w_out"], dilation_h, dilation_w)
        fields = {
            "m_h": m_h, "n_h": m_h + r_h - 1, "dilation_h": dilation_h, "tiles_h": tiles_h,
            "m_w": m_w, "n_w": m_w + r_w - 1, "dilation_w": dilation_w, "tiles_w": tiles_w,
            "tile_step": 0,
        }  # fmt: skip
        if sizes.pieces > 1:
            # each slice is as far from the next one as a piece of the kernel is
            fields |= {
                "tile_step": m_w * dilation_w, "k_d": sizes.pieces, "d_out": slices, "d_in": slices + sizes.pieces - 1,
            }  # fmt: skip
        return fields

    def _form_of(self, g: dict[str, int]) -> Form:
        return form(self.m, (g["k_h"], g["k_w"]), (g["stride_h"], g["stride_w"]))

    def tables(self, g, cut):
        step_h, step_w = g["stride_h"] * g["dilation_h"], g["stride_w"] * g["dilation_w"]
        return {
            "input_table": _offsets(g["n_h"], step_h * g["w_in"], g["n_w"], step_w) * g["x_pixel"],
            "output_table": _offsets(g["m_h"], g["dilation_h"] * g["w_out"], g["m_w"], g["dilation_w"])
            * g["out_pixel"],
            "residual_table": _offsets(g["m_h"], g["dilation_h"] * g["w_out"], g["m_w"], g["dilation_w"])
            * g["residual_pixel"],
        }

    def operands(self, weights, g):
        k_d, pieces = (1, g["k_d"]) if g["tile_step"] else (g["k_d"], 1)
        pack = _Pack(g["m_h"], g["m_w"], g["stride_h"], g["stride_w"], (k_d, g["k_h"], g["k_w"]), pieces)
        return {"panels": weights.form(pack), "bias": weights.flat_bias}

    def functions(self, g, np_dtype):
        r_h, r_w = g["n_h"] - g["m_h"] + 1, g["n_w"] - g["m_w"] + 1
        scatter, gather = transform_addresses(g["m_h"], r_h, g["m_w"], r_w, np_dtype)
        return super().functions(g, np_dtype) | {"input_transform": scatter, "output_transform": gather}

    def shares(self, g):
        """Blocks of tiles, panels of all groups."""
        return g["lines"], g["groups"] * g["panels_per_group"]

    def zeros(self, g):
        """What stands for pixels outside of the input, of the residual, and for the core's bias."""
        return max(g["data_pitch"], g["product_pitch"])

    def gemm_cycles(self, g, machine):
        """The core's tiles of one tap, position by position, a call each; finding the pixels of each tile; and transforms."""
        positions = g["n_h"] * g["n_w"]
        tiles = g["n"] * g["tiles_h"] * g["tiles_w"]
        row_tiles = g["lines"] * -(-g["tile_block"] * g["block_slices"] // MR)
        height = tiles * g["d_out"] / max(row_tiles, 1)
        column_blocks = -(-g["groups"] * g["panels_per_group"] // g["column_block"])
        products = row_tiles * g["groups"] * _products(g, height, machine)
        calls = g["lines"] * max(g["groups"], column_blocks)
        # groups are transformed block by block, a whole pixel only once
        rounds = column_blocks if g["groups"] > 1 else 1, column_blocks
        slices = self._slices_transformed(g), g["d_out"]
        sizes = self._form_of(g)
        each = zip(slices, rounds, _vectors(g, g["column_block"], machine), (sizes.input_cycles, sizes.output_cycles))
        apart = _apart(g)
        moved = sum(count * (_TILE * times + vectors * one * apart) for count, times, vectors, one in each)
        return (positions * (products + calls * _CALL) + tiles * moved) * _strided(g)

    def least_seconds(self, problem, machine):
        """Register tiles as high and blocks as large as they can be, a transform of each tile, and weights once a block."""
        if problem.c_in == problem.groups > 1:
            # nothing is summed: to store the products takes longer than other algorithms do in all
            least = cost.least_work(problem, machine)
            return least.pixels * problem.groups * least.stored / machine.rates.clock
        return _least_cycles(problem, machine)[self.m] / machine.rates.clock

    def far_cycles(self, g, machine):
        """Blocks of tiles are outside: weights that do not fit the L2 come once each, partly while others are multiplied.

        What a block takes beyond half of the L2 is written and read beyond it.
        """
        positions = g["n_h"] * g["n_w"]
        nbytes = positions * g["groups"] * g["panels_per_group"] * g["panel_bytes"]
        block = positions * (g["data_position"] + g["product_position"])
        rounds = g["lines"] * -(-g["panel_bytes"] // g["k_d"] // PANEL_ROW // g["k_block"])
        spilled = rounds * 2 * max(block - machine.l2 // 2, 0) / machine.rates.far_bytes
        return spilled + _waited(g) * cost.far_cycles(g, machine, nbytes, 1, g["lines"], block)

    def extra_cycles(self, problem, g, machine):
        """Nothing."""
        return 0.0

    def _slices_transformed(self, g) -> int:
        """Input slices that are transformed for a tile, those that neighbouring blocks do not share more than once."""
        if g["keeps"]:
            return min(_slots(g, g["d_out"]), g["d_in"])
        return min(_slots(g, g["block_slices"]), g["d_in"]) * g["chunks"]


@lru_cache(maxsize=16)
def _least_cycles(problem: ConvProblem, machine: Machine) -> dict[int, float]:
    """A lower bound of the cycles by m; all sizes share most of it."""
    work = cost.least_work(problem, machine)
    g, summed, groups, stored = work.g, _slices_summed(work.g), work.g["groups"], work.stored
    kernel, stride = (g["k_h"], g["k_w"]), (g["stride_h"], g["stride_w"])
    phases, panels = stride[0] * stride[1], g["panels_per_group"]
    k, column_block = phases * g["c_in"], _column_block(g)
    multiplied = summed * (work.multiply * k + machine.rates.tap * panels)
    weight_bytes = groups * panels * g["panel_bytes"] * phases // (kernel[0] * kernel[1])
    column_blocks, row_bytes = -(-groups * panels // column_block), k * g["itemsize"] + column_block * PANEL_ROW
    split_bytes = _split_bytes(g, k)
    half, room = machine.l2 // 2, _L2_PART * machine.l2
    extent = g["h_out"], g["w_out"], *_dilation(g)
    # a slice of the output takes at least one of the input
    images = g["n"] * min(g["d_in"], g["d_out"])
    vectors_in, vectors_out = _vectors(g, column_block, machine)
    far, apart = cost.far_cycles(g, machine, 0, 1, 1), _apart(g)
    found = {}
    for m in SIZES:
        sizes = form(m, kernel, stride)
        if not sizes.known:
            continue
        positions, pieces, (down, across, slices) = sizes.positions, sizes.pieces, sizes.tiles(*extent)
        tiles = images * down * across * slices
        if positions * split_bytes > _SPLIT:
            rounds, rows = 1, room / _SPLIT * _ROWS
        else:
            rounds, rows = column_blocks, room / positions / row_bytes
        blocks = max(1.0, tiles / max(_ROWS, rows)) if g["d_out"] == slices == 1 else 1.0
        calls = blocks * max(groups, rounds)
        moved = apart * (vectors_in * sizes.input_cycles + vectors_out * sizes.output_cycles)
        moved += _TILE * (rounds + (rounds if groups > 1 else 1))
        cycles = positions * (groups * tiles * (pieces * multiplied + stored) + calls * _CALL) + tiles * moved
        fetched = positions * pieces * weight_bytes
        waited = cost.far_cycles(g, machine, fetched, 1, blocks) if fetched > half else far
        found[m] = cycles * (_STRIDED if phases > 1 else 1.0) + _waited(g) * waited
    return found


def _split_bytes(g: dict[str, int], k: int) -> int:
    """Bytes a position of the fewest rows with all channels, where these may be split."""
    return _ROWS * k * g["itemsize"] if g["groups"] == g["stride_h"] * g["stride_w"] == 1 else 0


def _column_block(g: dict[str, int]) -> int:
    """Panels of products that are made before they are transformed."""
    if g["groups"] > 1 and g["c_out"] * g["itemsize"] % VECTOR_BYTES:
        # groups that do not end with a vector are multiplied alone, so that their last one may be whole
        return min(_COLUMN_BLOCK, g["panels_per_group"])
    return min(_COLUMN_BLOCK, g["groups"] * g["panels_per_group"])


def _dilation(g: dict[str, int]) -> tuple[int, int]:
    """Without taps beside one another there is nothing to interleave."""
    return g["dilation_h"] if g["k_h"] > 1 else 1, g["dilation_w"] if g["k_w"] > 1 else 1


def _products(g: dict[str, int], height: float, machine: Machine) -> float:
    """Cycles of the core's tiles of `height` rows at one position."""
    taps = _slices_summed(g)
    k = taps * g["stride_h"] * g["stride_w"] * g["c_in"]
    return cost.panels_cycles(k, height, g["c_out"], taps, g["itemsize"], machine)


def _slices_summed(g: dict[str, int]) -> float:
    return g["k_d"] if g["padding_mode"] or g["k_d"] == 1 else cost.slices_met(g)


def _vectors(g: dict[str, int], column_block: int, machine: Machine) -> tuple[int, int]:
    """Vectors of channels that are transformed, of the input and of the output; those of a block of columns fill whole ones."""
    lanes = TARGETS[machine.isa].lanes(g["itemsize"])
    groups, c_out = g["groups"], g["c_out"]
    if groups == 1:
        return -(-g["stride_h"] * g["stride_w"] * g["c_in"] // lanes), -(-c_out // lanes)
    # groups in a block that holds some of them in whole, or the one that it is a part of
    together = max(1, column_block // g["panels_per_group"])
    vectors_out = -(-groups * c_out // lanes) if together > 1 else groups * -(-c_out // lanes)
    return -(-groups // together) * -(-together * g["c_in"] // lanes), vectors_out


def _waited(g: dict[str, int]) -> float:
    """The part of the weights' transfer that nothing hides: tiles of one vector do not ask for them ahead."""
    return _UNFETCHED if g["c_out"] * g["itemsize"] <= VECTOR_BYTES else _WAITED


def _apart(g: dict[str, int]) -> float:
    """How much longer transforms take where the channels of a group do not begin with a vector."""
    lines = g["c_in"] * g["itemsize"] % VECTOR_BYTES or g["c_out"] * g["itemsize"] % VECTOR_BYTES
    return _APART if g["groups"] > 1 and lines else 1.0


def _strided(g: dict[str, int]) -> float:
    return _STRIDED if g["stride_h"] * g["stride_w"] > 1 else 1.0


def _slots(g: dict[str, int], slices: int) -> int:
    """Input slices under so many neighbouring output slices."""
    return (slices - 1) * g["stride_d"] + (g["k_d"] - 1) * g["dilation_d"] + 1


def _slices(g: dict[str, int], room: int, data_pitch: int, product_pitch: int) -> tuple[int, int, int, int]:
    """(chunks, output slices of each at the most, input slices under them, tiles that fit `room`): few chunks, since neighbouring
    slices share input, but such that there is room for half a register tile.
    """

    def tiles(slices):
        return room // (_slots(g, slices) * data_pitch + slices * product_pitch)

    slices = g["d_out"]
    while slices > 1 and 2 * tiles(slices) < MR:
        slices = -(-slices // 2)
    chunks = -(-g["d_out"] // slices)
    slices = -(-g["d_out"] // chunks)
    return chunks, slices, _slots(g, slices), tiles(slices)


def _odd_lines(nbytes: int) -> int:
    """At least so many bytes in an odd number of cache lines, so that positions fall into different sets of the L1."""
    return nbytes // 128 * 128 + (64 if nbytes % 128 <= 64 else 192)


def _offsets(rows: int, row_step: int, columns: int, column_step: int) -> np.ndarray:
    """Distances in pixels of a grid from its first pixel, row by row."""
    grid = np.arange(rows)[:, None] * row_step + np.arange(columns) * column_step
    return np.ascontiguousarray(grid.reshape(-1), np.int64)
