"""How tiles are cut into blocks whose transformed pixels and products stay in the L2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from numbaconv.algorithms.cost import L3_SHARE
from numbaconv.algorithms.weights import row_pitch
from numbaconv.loops.gemm import MR, PANEL_ROW, TAP, TILE, VECTOR_BYTES
from numbaconv.loops.winograd import HEADER
from numbaconv.machine import Machine
from numbaconv.workspace import rounded

#: The most that a thread's workspace may take, and the part of it and of the L2 that a block aims at.
WORKSPACE_LIMIT = 4 << 20
L2_PART = 0.3
#: The same where kernels are transformed on the way, since that is done once a block, and the part that as many kernels take.
_L2_PART_ON_THE_WAY, _KERNEL_PART = 0.65, 0.15
#: More bytes than this of transformed pixels are split by channels.
_SPLIT = WORKSPACE_LIMIT // 2
#: Panels of products that are made before they are transformed, and rows that a block has at the least where they exist.
_COLUMN_BLOCK, _ROWS = 4, 2 * MR
#: Kernels of more bytes than the L3 keeps come from memory for each block: blocks are as large as the workspace then, whatever
#: the L2 is, with so many panels of products.
_FAR_COLUMNS, FAR_ROOM = 2, WORKSPACE_LIMIT - (1 << 16)


class TileForm(Protocol):
    """What the cost of a tile follows from: its products, and outputs, and cycles a vector of channels takes in and out."""

    positions: int
    outputs: int
    input_cycles: float
    output_cycles: float


@dataclass(slots=True)  # as fast to read as can be
class Grid:
    """The geometry that the products of a problem have, and tiles of this form, of all images and down and across one; and the
    fields in which that is not the problem's own.
    """

    g: dict[str, int]
    form: TileForm
    tiles: int
    tiles_h: int
    tiles_w: int
    changed: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Blocks:
    """So many blocks of at most `rows` tiles, in `chunks` of `slices` of the output each, which lie over `under` of the input.

    `column_block` panels of products are made before they are transformed, of `k_block` channels at a time; a block that `keeps`
    transforms all channels at once and leaves its slices to the next one.  Pitches and positions are bytes from row to row, and
    from position to position, of transformed pixels (`data`) and products.  `kernel_block` channels of kernels are transformed at
    a time, a position of `kernel_position` bytes, or none, if that was done before.
    """

    blocks: int
    rows: int
    chunks: int
    slices: int
    under: int
    column_block: int
    k_block: int
    keeps: bool
    data_pitch: int
    data_position: int
    product_pitch: int
    product_position: int
    kernel_block: int = 0
    kernel_position: int = 0

    def data_offset(self, grid: Grid) -> int:
        """Bytes of a workspace before transformed pixels."""
        lists = grid.g["k_d"] * TAP + self.slices * -(-self.rows // MR) * TILE + grid.form.positions + grid.form.outputs
        return rounded(HEADER + 8 * lists + self.column_block * PANEL_ROW)

    def kernel_offset(self, grid: Grid) -> int:
        """Bytes before kernels that are transformed on the way."""
        return rounded(self._end(grid))

    def workspace_bytes(self, grid: Grid) -> int:
        """Bytes beside `loops.winograd.HEADER`."""
        if self.kernel_block:
            return self.kernel_offset(grid) + grid.form.positions * self.kernel_position - HEADER
        return self._end(grid) - HEADER

    def _end(self, grid: Grid) -> int:
        each = self.data_position + self.product_position
        return self.data_offset(grid) + grid.form.positions * each + VECTOR_BYTES


def cut_tiles(grid: Grid, machine: Machine, part: float, may_be_far: bool, transformed: bool = True) -> Blocks:
    """Blocks that aim at this part of the L2, or are as large as the workspace where they `may_be_far` larger; for kernels that are
    `transformed` already or on the way.
    """
    g, tiles, positions = grid.g, grid.tiles, grid.form.positions
    groups, panels_per_group, itemsize, c_in = g["groups"], g["panels_per_group"], g["itemsize"], g["c_in"]
    k, panels = g["stride_h"] * g["stride_w"] * c_in, groups * panels_per_group
    column_block, k_block = columns_together(g), k
    far = False
    # kernels that no cache keeps, of images of which at least a register tile's rows fit the workspace
    if positions * panels_per_group * k * PANEL_ROW > L3_SHARE and may_be_far and transformed:
        far = groups == g["k_d"] == g["d_out"] == 1 and MR * far_row_bytes(positions, k * itemsize) < FAR_ROOM
    if far:
        column_block = min(_FAR_COLUMNS, panels)
    elif groups == 1 and k == c_in and positions * _ROWS * k * itemsize > _SPLIT:
        # all columns at once, so that each block of channels is transformed once
        column_block = panels
        most = max(1, _SPLIT // (positions * _ROWS * itemsize))
        k_block = -(-k // -(-k // most))
    channels = k_block
    if groups > 1:
        # a block may begin within one group and end within another
        channels = min(groups, (column_block + panels_per_group - 2) // panels_per_group + 1) * c_in
    data_pitch, product_pitch = row_pitch(channels * itemsize), row_pitch(column_block * PANEL_ROW)
    room = FAR_ROOM if far else int((part if transformed else _L2_PART_ON_THE_WAY) * machine.l2)
    if g["d_out"] == 1:
        chunks, slices, under = 1, 1, slots(g, 1)
        rows, least = room // positions // (under * data_pitch + product_pitch), _ROWS
        if not far:
            rows = rows // MR * MR
    else:
        chunks, slices, under, rows = _cut_slices(g, room // positions, data_pitch, product_pitch)
        least = -(-_ROWS // slices)
    blocks = -(-tiles // (rows if far or rows > least else least))
    if blocks > 1 and not far:
        # an even number is easy to share; of far blocks, threads share columns
        blocks += blocks % 2
    rows = -(-tiles // blocks) if blocks else 0
    kernels = (0, 0) if transformed else _kernel_block(g["k_d"], positions, min(k_block, c_in), machine.l2)
    return Blocks(
        blocks, rows, chunks, slices, under, column_block, k_block, groups == 1 and k_block == k,
        data_pitch, _odd_lines(under * rows * data_pitch), product_pitch, _odd_lines(slices * rows * product_pitch), *kernels,
    )  # fmt: skip


def columns_together(g: dict[str, int]) -> int:
    """Panels of products that are made before they are transformed."""
    if g["groups"] > 1 and g["c_out"] * g["itemsize"] % VECTOR_BYTES:
        # groups that do not end with a vector are multiplied alone, so that their last one may be whole
        return min(_COLUMN_BLOCK, g["panels_per_group"])
    panels = g["groups"] * g["panels_per_group"]
    return panels if panels < _COLUMN_BLOCK else _COLUMN_BLOCK


def far_row_bytes(positions: int, pixel_bytes: int) -> int:
    """What a tile takes at the least of blocks as large as the workspace: its transformed pixels and its products."""
    return positions * (pixel_bytes + _FAR_COLUMNS * PANEL_ROW)


def dilations(g: dict[str, int]) -> tuple[int, int]:
    """Without taps beside one another there is nothing to interleave."""
    return g["dilation_h"] if g["k_h"] > 1 else 1, g["dilation_w"] if g["k_w"] > 1 else 1


def slots(g: dict[str, int], slices: int) -> int:
    """Input slices under so many neighbouring output slices."""
    return (slices - 1) * g["stride_d"] + (g["k_d"] - 1) * g["dilation_d"] + 1


def _cut_slices(g: dict[str, int], room: int, data_pitch: int, product_pitch: int) -> tuple[int, int, int, int]:
    """(chunks, output slices of each at the most, input slices under them, tiles that fit `room`): few chunks, since neighbouring
    slices share input, but such that there is room for half a register tile.
    """

    def tiles(slices):
        return room // (slots(g, slices) * data_pitch + slices * product_pitch)

    slices = g["d_out"]
    while slices > 1 and 2 * tiles(slices) < MR:
        slices = -(-slices // 2)
    chunks = -(-g["d_out"] // slices)
    slices = -(-g["d_out"] // chunks)
    return chunks, slices, slots(g, slices), tiles(slices)


def _kernel_block(slices: int, positions: int, channels: int, l2: int) -> tuple[int, int]:
    """How kernels are transformed on the way: channels at a time, of `channels` that are multiplied together, and the bytes of a
    position of them.
    """
    channel_bytes = slices * PANEL_ROW
    fit = max(1, int(_KERNEL_PART * l2) // (positions * channel_bytes))
    block = -(-channels // -(-channels // fit))
    return block, _odd_lines(block * channel_bytes)


def _odd_lines(nbytes: int) -> int:
    """At least so many bytes in an odd number of cache lines, so that positions fall into different sets of the L1."""
    return (nbytes + 63) // 128 * 128 + 64
