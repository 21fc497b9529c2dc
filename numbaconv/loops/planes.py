"""im2col on channels-first tensors: a block of pixels is packed into panels, the weights are the rows, results go to planes.

Nothing is transposed: a panel holds `NR` neighbouring pixels of one tap and channel in each of its rows, which are runs of
the input where the stride is 1.  The bias is one more element of K, met by a row of ones.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_core, clear, fill_ones
from numbaconv.codegen.picked import pick
from numbaconv.codegen.records import call_record, conv_record
from numbaconv.loops.gemm import NV, ONE_BY_ONE, PANEL_ROW, TILE, VECTOR_BYTES
from numbaconv.loops.tables import ZEROS, first_tap, source
from numbaconv.loops.walk import CALL_BYTES, share

#: Pixels beside the image, times channels, up to which they are packed one by one, and those between them line by line.
BESIDE = 8


@njit
def pack_taps(conv, to, source, lines, taps, count, like):
    """`count` pixels of neighbouring taps of some lines of the kernel for all channels, or as many zeros where `source` is 0."""
    size, step = conv.itemsize, conv.stride_w
    plane, line, tap = conv.in_pixels * size, conv.dilation_h * conv.w_in * size, conv.dilation_w * size
    if source == 0:
        source, step, plane, line, tap = conv.zeros, 1, 0, 0, 0
    channel, row = conv.window * PANEL_ROW, conv.k_w * PANEL_ROW
    pick(NV, to, channel, row, PANEL_ROW, source, plane, line, tap, conv.c_in, lines, taps, count, step, like)


@njit
def row_at(conv, image, d, h):
    """Address of the input row that row `h` of slice `d` takes its values from; 0 for zeros."""
    d, h = source(conv.padding_mode, d, conv.d_in), source(conv.padding_mode, h, conv.h_in)
    return 0 if d < 0 or h < 0 else image + (d * conv.h_in + h) * conv.w_in * conv.itemsize


@njit
def pack_beside(conv, to, row, w, count, like):
    """`count` pixels of one tap for all channels, from column `w` on, that lie beyond an input row."""
    if conv.padding_mode == ZEROS or row == 0:
        pack_taps(conv, to, 0, 1, 1, count, like)
        return
    for _ in range(count):
        column = source(conv.padding_mode, w, conv.w_in)
        pack_taps(conv, to, row + column * conv.itemsize, 1, 1, 1, like)
        w += conv.stride_w
        to += conv.itemsize


@njit
def pack_pixels(conv, to, image, pixel, count, like):
    """All taps of `count` output pixels of one row, from number `pixel` on: all inside of the sides, or one that meets padding."""
    d, h, w = first_tap(conv, pixel)
    # the taps that are inside; of more pixels than one all are
    first = min(max(0, (conv.dilation_w - 1 - w) // conv.dilation_w), conv.k_w)
    last = conv.k_w if count > 1 else max(first, min(conv.k_w, (conv.w_in - 1 - w) // conv.dilation_w + 1))
    together = last - first == conv.k_w and h >= 0 and h + (conv.k_h - 1) * conv.dilation_h < conv.h_in
    lines = conv.k_h if together else 1
    for line in range(0, conv.k_d * conv.k_h, lines):
        k_d, k_h = divmod(line, conv.k_h)
        row = row_at(conv, image, d + k_d * conv.dilation_d, h + k_h * conv.dilation_h)
        if row == 0:
            pack_taps(conv, to, 0, lines, conv.k_w, count, like)
        else:
            inside = row + (w + first * conv.dilation_w) * conv.itemsize
            pack_taps(conv, to + first * PANEL_ROW, inside, lines, last - first, count, like)
            for number in range(conv.k_w - last + first):
                tap = number if number < first else number + last - first
                pack_beside(conv, to + tap * PANEL_ROW, row, w + tap * conv.dilation_w, 1, like)
        to += lines * conv.k_w * PANEL_ROW


@njit
def pack_segment(conv, to, image, pixel, count, like):
    """All taps of `count` output pixels of one row, from number `pixel` on."""
    w = pixel % conv.w_out * conv.stride_w - conv.pad_left
    last = w + (conv.k_w - 1) * conv.dilation_w
    before = min(count, max(0, (conv.stride_w - 1 - w) // conv.stride_w))
    inside = max(0, min(count, (conv.w_in - 1 - last) // conv.stride_w + 1) - before)
    if (count - inside) * conv.c_in > BESIDE:
        pack_by_tap(conv, to, image, pixel, count, like)
        return
    number = 0
    while number < count:
        pixels = inside if number == before and inside > 0 else 1
        pack_pixels(conv, to + number * conv.itemsize, image, pixel + number, pixels, like)
        number += pixels


@njit
def pack_by_tap(conv, to, image, pixel, count, like):
    """The same tap by tap, of which each has pixels before, inside and behind the image."""
    size, step = conv.itemsize, conv.stride_w
    d, h, w = first_tap(conv, pixel)
    for tap in range(conv.window):
        line, k_w = divmod(tap, conv.k_w)
        k_d, k_h = divmod(line, conv.k_h)
        first = w + k_w * conv.dilation_w
        row = row_at(conv, image, d + k_d * conv.dilation_d, h + k_h * conv.dilation_h)
        before, inside = count, 0
        if row != 0:
            before = min(count, max(0, (step - 1 - first) // step))
            inside = min(count - before, max(0, (conv.w_in - 1 - first) // step + 1 - before))
        after = count - before - inside
        if before > 0:
            pack_beside(conv, to, row, first, before, like)
        if inside > 0:
            pack_taps(conv, to + before * size, row + (first + before * step) * size, 1, 1, inside, like)
        if after > 0:
            pack_beside(conv, to + (count - after) * size, row, first + (count - after) * step, after, like)
        to += PANEL_ROW


@njit
def pack_panel(conv, to, image, first, last, like):
    """The panel of output pixels `first`..`last`: a row for each channel and tap, in the order of the weights, and one of ones."""
    size = conv.itemsize
    if last - first < PANEL_ROW // size:
        # lanes that are not stored must not hold denormal numbers by chance, which are slow to multiply
        clear(to, conv.k_block * (PANEL_ROW // size), like)
    unmoved = conv.stride_d == 1 and conv.stride_h == 1 and conv.stride_w == 1
    unmoved = unmoved and conv.pad_front == 0 and conv.pad_top == 0 and conv.pad_left == 0
    if conv.window == 1 and unmoved and conv.in_pixels == conv.out_pixels:
        pack_taps(conv, to, image + first * size, 1, 1, last - first, like)
    else:
        pixel = first
        while pixel < last:
            count = min(last - pixel, conv.w_out - pixel % conv.w_out)
            pack_segment(conv, to + (pixel - first) * size, image, pixel, count, like)
            pixel += count
    fill_ones(to + (conv.k_block - 1) * PANEL_ROW, last - first, like)


def planes_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record and the panels of a block."""
    conv = conv_record(conv_address)
    call = call_record(workspace)
    panels = workspace + CALL_BYTES
    size = conv.itemsize
    width = NV * (VECTOR_BYTES // size)
    plane = conv.out_pixels * size
    first_panel, last_panel = share(conv.n * conv.groups * conv.tiles_per_line, part // column_parts, row_parts)
    first_tile, last_tile = share(conv.column_block, part % column_parts, column_parts)
    call.tiles = conv.tiles + first_tile * 8 * TILE
    call.tile_count = last_tile - first_tile
    call.tiles_outside = conv.tiles_outside
    call.fetch = 0
    call.far_results = conv.far_results
    call.zeros = call.bias = conv.zeros
    call.k = conv.k_block
    call.panels = panels
    call.panel_bytes = conv.k_block * PANEL_ROW
    call.following = call.cold = 0
    call.c_pitch = call.residual_pitch = plane
    call.c_step = 1
    call.activation = conv.activation
    number = first_panel
    # Blocks of panels of one image and group: packed once, then met by the weights of all output channels.
    while number < last_panel:
        matrix, panel = divmod(number, conv.tiles_per_line)
        count = min(last_panel - number, conv.tiles_per_line - panel, conv.tile_block)
        first, end = panel * width, min((panel + count) * width, conv.out_pixels)
        image = x + matrix * conv.c_in * conv.in_pixels * size
        for i in range(count):
            start = first + i * width
            pack_panel(conv, panels + i * call.panel_bytes, image, start, min(start + width, end), alpha)
        call.a = conv.panels + matrix % conv.groups * conv.c_out * conv.patch_pitch
        call.columns = end - first
        at = matrix * conv.c_out * plane + first * size
        call.c = out + at
        call.streamed = int(conv.streamed != 0 and (call.c | plane) % VECTOR_BYTES == 0)
        if conv.streamed != 0 and call.streamed == 0:
            # lines that no vector fills come from memory first: asked for, and a few planes after the other
            call.far_results = 1
            call.tiles_outside = ONE_BY_ONE
        call.residual = 0 if residual == 0 else residual + at
        call_core(conv.core, workspace, alpha, beta)
        number += count


planes_share = NativeFunction(planes_part, "planes_share")
