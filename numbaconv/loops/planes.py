"""im2col on channels-first tensors: a block of pixels is packed into panels, the weights are the rows, results go to planes.

Nothing is transposed: a panel holds `NR` neighbouring pixels of one tap and channel in each of its rows, which are runs of
the input where the stride is 1.  The bias is one more element of K, met by a row of ones.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_core, call_record, clear, conv_record, fill_ones
from numbaconv.codegen.strip import copy_rows
from numbaconv.loops.gemm import NV, PANEL_ROW, TILE, VECTOR_BYTES
from numbaconv.loops.walk import CALL_BYTES, share


@njit
def pack_run(conv, to, source, before, inside, after, like):
    """One run of one tap for all channels: zeros, pixels, zeros; the kernel's rows of the panel lie between channels."""
    size = conv.itemsize
    pitch = conv.k_h * conv.k_w * PANEL_ROW
    plane = conv.h_in * conv.w_in * size
    copy_rows(to + before * size, pitch, source, plane, conv.c_in, inside, conv.stride_w, like)
    if before + after > 0:
        for _ in range(conv.c_in):
            if before > 0:
                clear(to, before, like)
            if after > 0:
                clear(to + (before + inside) * size, after, like)
            to += pitch


@njit
def pack_segment(conv, to, image, h_out, w_out, count, like):
    """All taps of `count` output pixels of one row, from (h_out, w_out)."""
    for k_h in range(conv.k_h):
        h = h_out * conv.stride_h - conv.pad_top + k_h * conv.dilation_h
        for k_w in range(conv.k_w):
            w = w_out * conv.stride_w - conv.pad_left + k_w * conv.dilation_w
            before, inside = count, 0
            if 0 <= h < conv.h_in:
                before = min(count, max(0, (conv.stride_w - 1 - w) // conv.stride_w))
                inside = min(count - before, max(0, (conv.w_in - 1 - w) // conv.stride_w + 1 - before))
            source = image + (h * conv.w_in + w + before * conv.stride_w) * conv.itemsize
            pack_run(conv, to, source, before, inside, count - before - inside, like)
            to += PANEL_ROW


@njit
def pack_panel(conv, to, image, first, last, like):
    """The panel of output pixels `first`..`last`: a row for each channel and tap, in the order of the weights, and one of ones."""
    size = conv.itemsize
    if last - first < PANEL_ROW // size:
        # lanes that are not stored must not hold denormal numbers by chance, which are slow to multiply
        clear(to, conv.k_block * (PANEL_ROW // size), like)
    pixels = conv.h_out * conv.w_out
    in_place = conv.stride_h == 1 and conv.stride_w == 1 and conv.pad_top == 0 and conv.pad_left == 0
    if conv.k_h * conv.k_w == 1 and in_place and conv.h_in * conv.w_in == pixels:
        pack_run(conv, to, image + first * size, 0, last - first, 0, like)
    else:
        pixel = first
        while pixel < last:
            h_out, w_out = divmod(pixel, conv.w_out)
            count = min(last - pixel, conv.w_out - w_out)
            pack_segment(conv, to + (pixel - first) * size, image, h_out, w_out, count, like)
            pixel += count
    fill_ones(to + (conv.k_block - 1) * PANEL_ROW, last - first, like)


def planes_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record and the panels of a block."""
    conv = conv_record(conv_address)
    call = call_record(workspace)
    panels = workspace + CALL_BYTES
    size = conv.itemsize
    width = NV * (VECTOR_BYTES // size)
    plane = conv.h_out * conv.w_out * size
    first_panel, last_panel = share(conv.n * conv.groups * conv.tiles_per_line, part // column_parts, row_parts)
    first_tile, last_tile = share(conv.column_block, part % column_parts, column_parts)
    call.tiles = conv.tiles + first_tile * 8 * TILE
    call.tile_count = last_tile - first_tile
    call.tiles_outside = conv.tiles_outside
    call.fetch = 0
    call.zeros = call.bias = conv.zeros
    call.k = conv.k_block
    call.panels = panels
    call.panel_bytes = conv.k_block * PANEL_ROW
    call.c_pitch = call.residual_pitch = plane
    call.activation = conv.activation
    number = first_panel
    # Blocks of panels of one image and group: packed once, then met by the weights of all output channels.
    while number < last_panel:
        matrix, panel = divmod(number, conv.tiles_per_line)
        count = min(last_panel - number, conv.tiles_per_line - panel, conv.tile_block)
        first, end = panel * width, min((panel + count) * width, conv.h_out * conv.w_out)
        image = x + matrix * conv.c_in * conv.h_in * conv.w_in * size
        for i in range(count):
            start = first + i * width
            pack_panel(conv, panels + i * call.panel_bytes, image, start, min(start + width, end), alpha)
        call.a = conv.panels + matrix % conv.groups * conv.c_out * conv.patch_pitch
        call.columns = end - first
        at = matrix * conv.c_out * plane + first * size
        call.c = out + at
        call.streamed = int(conv.streamed != 0 and (call.c | plane) % VECTOR_BYTES == 0)
        call.residual = 0 if residual == 0 else residual + at
        call_core(conv.core, workspace, alpha, beta)
        number += count


planes_share = NativeFunction(planes_part, "planes_share")
