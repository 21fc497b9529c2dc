"""How Winograd's tiles are cut into blocks whose transformed pixels and products stay in the L2."""

from __future__ import annotations

from numbaconv.algorithms.cost import L3_SHARE
from numbaconv.loops.gemm import MR, PANEL_ROW, VECTOR_BYTES

#: The most that a thread's workspace may take, and the part of it and of the L2 that a block aims at.
WORKSPACE_LIMIT = 4 << 20
L2_PART = 0.3
#: The same where kernels are transformed on the way, since that is done once a block, and the part that as many kernels take.
L2_PART_ON_THE_WAY, _KERNEL_PART = 0.65, 0.15
#: More bytes than this of transformed pixels are split by channels.
SPLIT = WORKSPACE_LIMIT // 2
#: Panels of products that are made before they are transformed, and rows that a block has at the least where they exist.
_COLUMN_BLOCK, ROWS = 4, 2 * MR
#: Kernels of more bytes than the L3 keeps come from memory for each block: blocks are as large as the workspace then, whatever
#: the L2 is, with so many panels of products.
FAR_COLUMNS, FAR_ROOM = 2, WORKSPACE_LIMIT - (1 << 16)


def columns_together(g: dict[str, int]) -> int:
    """Panels of products that are made before they are transformed."""
    if g["groups"] > 1 and g["c_out"] * g["itemsize"] % VECTOR_BYTES:
        # groups that do not end with a vector are multiplied alone, so that their last one may be whole
        return min(_COLUMN_BLOCK, g["panels_per_group"])
    return min(_COLUMN_BLOCK, g["groups"] * g["panels_per_group"])


def in_large_blocks(g: dict[str, int], positions: int, k: int) -> bool:
    """Whether transformed kernels of images come from memory, and at least a tile's rows fit the workspace."""
    flat = g["groups"] == g["k_d"] == g["d_out"] == 1
    kernels = positions * g["panels_per_group"] * k * PANEL_ROW
    return flat and kernels > L3_SHARE and MR * far_row_bytes(g, positions, k) < FAR_ROOM


def far_row_bytes(g: dict[str, int], positions: int, k: int) -> int:
    """What a tile of such a block takes at the least: its transformed pixels and its products."""
    return positions * (k * g["itemsize"] + FAR_COLUMNS * PANEL_ROW)


def split_bytes(g: dict[str, int], k: int) -> int:
    """Bytes a position of the fewest rows with all channels, where these may be split."""
    return ROWS * k * g["itemsize"] if g["groups"] == g["stride_h"] * g["stride_w"] == 1 else 0


def dilations(g: dict[str, int]) -> tuple[int, int]:
    """Without taps beside one another there is nothing to interleave."""
    return g["dilation_h"] if g["k_h"] > 1 else 1, g["dilation_w"] if g["k_w"] > 1 else 1


def slots(g: dict[str, int], slices: int) -> int:
    """Input slices under so many neighbouring output slices."""
    return (slices - 1) * g["stride_d"] + (g["k_d"] - 1) * g["dilation_d"] + 1


def cut_slices(g: dict[str, int], room: int, data_pitch: int, product_pitch: int) -> tuple[int, int, int, int]:
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


def kernel_block(slices: int, positions: int, channels: int, l2: int) -> dict[str, int]:
    """How kernels are transformed on the way: channels at a time, of `channels` that are multiplied together, and the bytes of a
    position of them.
    """
    channel_bytes = slices * PANEL_ROW
    fit = max(1, int(_KERNEL_PART * l2) // (positions * channel_bytes))
    block = -(-channels // -(-channels // fit))
    return {"kernel_block": block, "kernel_position": odd_lines(block * channel_bytes)}


def odd_lines(nbytes: int) -> int:
    """At least so many bytes in an odd number of cache lines, so that positions fall into different sets of the L1."""
    return nbytes // 128 * 128 + (64 if nbytes % 128 <= 64 else 192)
