"""Winograd down the columns of tall depthwise kernels: transform, slide pieces of the kernel over tiles, transform back.

A column of m + r - 1 input rows becomes as many positions, which are channels of their own: of a pixel of an image whose rows are
tiles.  What is left of the kernel, a row for each piece of r taps, slides over it as any depthwise kernel does.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import call_core, call_share, clear, infinity
from numbaconv.codegen.records import BLOCK, block_record, conv_record
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.walk import RECORD_BYTES, copy_record, share

_BLOCK_BYTES = BLOCK.itemsize
#: What a thread's workspace starts with: a block record, and the record by which the input is transformed.
HEADER = _BLOCK_BYTES + RECORD_BYTES


def winograd_depthwise_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share: chunks of rows of tiles of all images, panels of channels.

    Workspace: block, record, tables, spare pixel, that of the inner convolution, transformed pixels, products.
    """
    conv, block, inward = conv_record(conv_address), block_record(workspace), workspace + _BLOCK_BYTES
    inner = conv_record(conv.inner)
    # tiles of the input: none that lie wholly in padding, and a column of them for each of the image
    copy_record(conv_address, inward)
    tiles = conv_record(inward)
    tiles.pad_top = conv.pad_top - conv.m_h * inner.pad_top
    tiles.pad_left = 0
    tiles.tiles_h, tiles.tiles_w = inner.h_in, conv.w_in
    block.slice = block.first_slot = 0
    block.slices = 1
    block.table = workspace + HEADER
    block.residual_table = block.table + 8 * conv.n_h
    block.spare = block.residual_table + 8 * conv.m_h
    block.data = workspace + conv.data_offset
    block.products = workspace + conv.product_offset
    block.x = x
    width = PANEL_ROW // conv.itemsize
    positions = conv.n_h * PANEL_ROW
    first_chunk, last_chunk = share(conv.n * conv.chunks, part // column_parts, row_parts)
    first_panel, last_panel = share(conv.panels_per_group, part % column_parts, column_parts)
    # lanes without a channel are computed, too: of what a whole panel leaves there, or of zeros
    if first_panel == conv.panels_per_group - 1 and conv.groups % width != 0:
        clear(block.data, (conv.product_offset - conv.data_offset) // conv.itemsize, alpha)
    for number in range(first_chunk, last_chunk):
        image, chunk = divmod(number, conv.chunks)
        # rows of tiles of the result, and those of the input that pieces of the kernel find under them
        top, bottom = share(inner.h_out, chunk, conv.chunks)
        first = max(top - inner.pad_top, 0)
        last = min(bottom - 1 + inner.k_h - inner.pad_top, inner.h_in)
        for panel in range(first_panel, last_panel):
            block.channel = panel * width
            block.channels = min(width, conv.groups - block.channel)
            block.conv = inward
            block.first, block.count = (image * inner.h_in + first) * conv.w_in, (last - first) * conv.w_in
            call_core(conv.input_transform, workspace, alpha, beta)
            call_share(
                conv.inner_function,
                chunk * conv.panels_per_group + panel,
                conv.chunks,
                conv.panels_per_group,
                conv.inner,
                block.data - first * conv.w_in * conv.data_pitch - panel * positions,
                block.products - top * conv.w_out * conv.product_pitch - panel * positions,
                0,
                workspace + conv.inner_bytes,
                -infinity(alpha),
                infinity(alpha),
            )
            block.conv = conv_address
            block.first, block.count = (image * inner.h_out + top) * conv.w_out, (bottom - top) * conv.w_out
            block.out = out + block.channel * conv.itemsize
            block.residual = 0 if residual == 0 else residual + block.channel * conv.itemsize
            call_core(conv.output_transform, workspace, alpha, beta)


winograd_depthwise_share = NativeFunction(winograd_depthwise_part, "winograd_depthwise_share")
