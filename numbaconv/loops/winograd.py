"""Winograd: transform a block of tiles, multiply position by position on the GEMM core, transform back.

A block's transformed pixels (positions, slices, tiles, channels) and products (positions, slices, tiles, columns) stay in the L2.
An image has one slice; of a volume, the slices of the kernel are taps of the products, whose sums are transformed once.  A kernel
that is too wide for any F is cut into pieces as wide as a tile: the tiles of a line are slices then, and the pieces their taps.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_core, copy, infinity, put
from numbaconv.codegen.records import BLOCK, block_record, call_record, conv_record
from numbaconv.loops.gemm import MR, NV, PANEL_ROW, TAP, TILE, VECTOR_BYTES
from numbaconv.loops.tables import ZEROS
from numbaconv.loops.transforms import slots_of
from numbaconv.loops.walk import CALL_BYTES, share

#: What a thread's workspace starts with: a call record and a block record.
HEADER = CALL_BYTES + BLOCK.itemsize


@njit
def slice_taps(conv, taps, count):
    """Tap records of the kernel's slices for rows of a block of `count` tiles."""
    k = conv.kernel_block if conv.kernel_block != 0 else conv.stride_h * conv.stride_w * conv.c_in
    for tap in range(conv.k_d):
        put(taps, 0, tap * k * PANEL_ROW)
        for row in range(MR):
            put(taps, 1 + row, (tap * conv.dilation_d * count + row) * conv.data_pitch)
        taps += 8 * TAP


@njit
def taps_inside(conv, d_out):
    """The kernel's slices, first and beyond the last, that output slice `d_out` finds inside of the input."""
    if conv.padding_mode != ZEROS:
        return 0, conv.k_d
    d = d_out * conv.stride_d - conv.pad_front
    first = max(0, (conv.dilation_d - 1 - d) // conv.dilation_d)
    return first, max(first, min(conv.k_d, (conv.d_in - 1 - d) // conv.dilation_d + 1))


@njit
def slice_tiles(conv, block, tiles, taps):
    """Tile list of a block's rows, in tiles of even height; returns its length.

    Neighbouring slices that see the same of the kernel are one run of rows where their input slices follow one another.
    """
    total, number = 0, 0
    while number < block.slices:
        first, last = taps_inside(conv, block.slice + number)
        end = number + 1
        while end < block.slices and conv.stride_d == 1 and taps_inside(conv, block.slice + end) == (first, last):
            end += 1
        rows = (end - number) * block.count
        count = (rows + MR - 1) // MR
        for i in range(count):
            start, stop = share(rows, i, count)
            put(tiles, 0, number * block.count + start)
            put(tiles, 1, stop - start)
            put(tiles, 2, (number * conv.stride_d * block.count + start) * conv.data_pitch)
            put(tiles, 3, taps + first * 8 * TAP)
            put(tiles, 4, last - first)
            tiles += 8 * TILE
        total += count
        number = end
    return total


@njit
def keep_slots(conv, block, before, like):
    """Move the transformed slices that a block shares with the one before it, which began at output slice `before`; how many."""
    shift = (block.slice - before) * conv.stride_d
    kept = max(0, slots_of(conv, block.slice - before) - shift)
    nbytes = block.count * conv.data_pitch
    for position in range(conv.n_h * conv.n_w):
        data = block.data + position * conv.data_position
        copy(data, data + shift * nbytes, kept * nbytes // conv.itemsize, like)
    return kept


@njit
def first_channel(conv, column):
    """The output channel that panel number `column`, counted over all groups, starts with."""
    group, panel = divmod(column, conv.panels_per_group)
    return group * conv.c_out + panel * NV * (VECTOR_BYTES // conv.itemsize)


@njit
def multiply(conv, workspace, panel, channel, k, count, kernels, kernel_position, like):
    """Products of the columns in the call record with `count` channels of a group, from number `k` on: a call a position.

    The columns start with panel number `panel`, counted over all groups, and products with output channel `channel`; the first
    position's kernels lie at `kernels`.
    """
    call, block = call_record(workspace), block_record(workspace + CALL_BYTES)
    group, positions = panel // conv.panels_per_group, conv.n_h * conv.n_w
    call.a = block.data + (group * conv.c_in + k - block.channel) * conv.itemsize
    call.c = block.products + (first_channel(conv, panel) - channel) * conv.itemsize
    call.k = count
    call.panels = kernels
    for position in range(positions):
        # the same panels of the next position
        call.following = 0 if position + 1 == positions else call.panels + kernel_position
        # sums so far
        call.residual = 0 if k == 0 else call.c
        call_core(conv.core, workspace, -infinity(like), infinity(like))
        call.a += conv.data_position
        call.c += conv.product_position
        call.panels += kernel_position


@njit
def transform_and_multiply(conv, workspace, panel, channel, k_first, k_last, like):
    """The same for a panel of kernels as they are: transformed block by block, which the L2 holds until they are multiplied."""
    block = block_record(workspace + CALL_BYTES)
    end = min(k_last, conv.c_in)
    # Phases of the stride are sets of channels, as they are of the transformed pixels.
    for phase in range(conv.stride_h * conv.stride_w):
        for first in range(k_first, end, conv.kernel_block):
            block.phase = phase
            block.count_k = min(conv.kernel_block, end - first)
            block.taps = conv.panels + panel * conv.panel_bytes + first * PANEL_ROW
            call_core(conv.kernel_transform, workspace + CALL_BYTES, like, like)
            k = phase * conv.c_in + first
            multiply(conv, workspace, panel, channel, k, block.count_k, block.kernels, conv.kernel_position, like)


@njit
def multiply_all(conv, workspace, first, last, k_first, k_last, like):
    """Products of panels `first`..`last`, counted over all groups."""
    call = call_record(workspace)
    lanes = VECTOR_BYTES // conv.itemsize
    channel = first_channel(conv, first)
    first_group, last_group = first // conv.panels_per_group, (last - 1) // conv.panels_per_group
    step = last - first if conv.kernel_block == 0 else 1
    panel = first
    # Panels of one group: all of them, or one of which the kernels are transformed.
    while panel < last:
        group = panel // conv.panels_per_group
        stop = min(panel + step, last, (group + 1) * conv.panels_per_group)
        columns = min(first_channel(conv, stop - 1) + NV * lanes, (group + 1) * conv.c_out) - first_channel(conv, panel)
        # rows of products have room up to a whole vector, unless another group follows
        call.columns = (columns + lanes - 1) // lanes * lanes if first_group == last_group else columns
        if conv.kernel_block == 0:
            kernel_position = conv.panels_per_group * conv.panel_bytes
            before = group * (conv.n_h * conv.n_w - 1) * kernel_position
            kernels = conv.panels + before + panel * conv.panel_bytes + k_first * PANEL_ROW
            multiply(conv, workspace, panel, channel, k_first, k_last - k_first, kernels, kernel_position, like)
        else:
            transform_and_multiply(conv, workspace, panel, channel, k_first, k_last, like)
        panel = stop


@njit
def winograd_block(conv, workspace, first_column, last_column, x, out, residual, alpha, beta):
    """All columns of a share for the tiles in the block record."""
    block = block_record(workspace + CALL_BYTES)
    k = conv.stride_h * conv.stride_w * conv.c_in
    transformed = -1
    # Column blocks: their products stay in the L2 until they are transformed.
    for column in range(first_column, last_column, conv.column_block):
        last = min(column + conv.column_block, last_column)
        first_group, last_group = column // conv.panels_per_group, (last - 1) // conv.panels_per_group
        # Blocks of K where not all channels fit the workspace; sums so far are the next one's residual.
        for k_first in range(0, k, conv.k_block):
            k_last = min(k, k_first + conv.k_block)
            block.channel = first_group * conv.c_in + k_first
            block.channels = (last_group - first_group + 1) * conv.c_in
            if conv.k_block < k:
                block.channels = k_last - k_first
            if transformed != block.channel:
                transformed = block.channel
                block.x = x
                call_core(conv.input_transform, workspace + CALL_BYTES, alpha, beta)
            multiply_all(conv, workspace, column, last, k_first, k_last, alpha)
        block.channel = first_channel(conv, column)
        end = min(first_channel(conv, last - 1) + NV * (VECTOR_BYTES // conv.itemsize), (last_group + 1) * conv.c_out)
        block.channels = end - block.channel
        block.out = out + block.channel * conv.itemsize
        block.residual = 0 if residual == 0 else residual + block.channel * conv.itemsize
        call_core(conv.output_transform, workspace + CALL_BYTES, alpha, beta)


def winograd_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.

    Workspace: call, block, tap records, tile list, tables, spare pixel, transformed pixels, products, transformed kernels.
    """
    conv = conv_record(conv_address)
    call, block = call_record(workspace), block_record(workspace + CALL_BYTES)
    positions, pixels = conv.n_h * conv.n_w, conv.m_h * conv.m_w
    block.conv = conv_address
    taps = workspace + HEADER
    call.tiles = taps + conv.k_d * 8 * TAP
    block.table = call.tiles + conv.block_slices * ((conv.tile_block + MR - 1) // MR) * 8 * TILE
    block.residual_table = block.table + 8 * positions
    block.spare = block.residual_table + 8 * pixels
    block.data = workspace + conv.data_offset
    block.products = block.data + positions * conv.data_position
    block.kernels = workspace + conv.kernel_offset
    call.zeros = call.bias = conv.zeros
    call.panel_bytes = conv.panel_bytes
    call.cold = conv.cold
    call.c_pitch = call.residual_pitch = conv.product_pitch
    call.c_step = 1
    call.activation = 0
    call.tiles_outside = conv.tiles_outside
    call.streamed = call.far_results = call.fetch = 0
    first_block, last_block = share(conv.lines, part // column_parts, row_parts)
    first_column, last_column = share(conv.groups * conv.panels_per_group, part % column_parts, column_parts)
    total = conv.n * conv.tiles_h * conv.tiles_w
    for number in range(first_block, last_block):
        # Tiles outside, slices inside: the next block finds the slices that the two share transformed already.
        which, chunk = divmod(number, conv.chunks)
        block.first, end = share(total, which, conv.lines // conv.chunks)
        before = block.slice
        block.slice, slice_end = share(conv.d_out, chunk, conv.chunks)
        block.count, block.slices = end - block.first, slice_end - block.slice
        slice_taps(conv, taps, block.count)
        call.tile_count = slice_tiles(conv, block, call.tiles, taps)
        block.first_slot = 0
        if conv.keeps != 0 and number > first_block and chunk > 0:
            block.first_slot = keep_slots(conv, block, before, alpha)
        winograd_block(conv, workspace, first_column, last_column, x, out, residual, alpha, beta)


winograd_share = NativeFunction(winograd_part, "winograd_share")
