"""Depthwise convolution on planes: strips of zero-padded rows, stride and dilation taken apart, under tiles of a few rows.

A strip holds, for each phase of kernel rows, rows of positions; a row holds one run of positions for each phase of kernel
columns.  With stride s and dilation d, tap t = p + m s / gcd of phase p at output q meets position q + m d / gcd, which is
input p d + (position) s.  So all strides and dilations are walked alike, and padding is zeros that were written before.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_core, clear, get, itemsize
from numbaconv.codegen.records import PLANE, conv_record, plane_record
from numbaconv.codegen.strip import copy_rows
from numbaconv.codegen.target import target
from numbaconv.codegen.tile import plane_tile
from numbaconv.loops.gemm import NV, TILE, VECTOR_BYTES
from numbaconv.loops.walk import share
from numbaconv.workspace import rounded

#: Rows of the largest tile, and of those two vectors wide, which have the accumulators of a dense one.
ROWS, WIDE_ROWS = target().rows + 2, target().rows
#: A thread's workspace starts with its call record; strips start on a cache line.
PLANE_BYTES = rounded(PLANE.itemsize)


def _core(address, alpha, beta):
    """Tiles of a strip, by vectors across, as the `PLANE` record at an address tells."""
    call = plane_record(address)
    size = itemsize(alpha)
    lanes = VECTOR_BYTES // size
    for number in range(call.tile_count):
        record = call.tiles + number * 8 * TILE
        row = get(record, 0) * call.c_pitch
        for column in range(0, call.columns, NV * lanes):
            columns = call.columns - column
            plane_tile(
                ROWS,
                NV,
                get(record, 1),
                min(NV, (columns + lanes - 1) // lanes),
                call.a + get(record, 2) + column * size,
                get(record, 3),
                get(record, 4),
                address,
                call.weights,
                call.c + row + column * size,
                call.c_pitch,
                call.bias,
                0 if call.residual == 0 else call.residual + row + column * size,
                call.c_pitch,
                columns,
                call.activation,
                alpha,
                beta,
            )


strips_core = NativeFunction(_core, "planes")


@njit
def under(first, stride, size, count):
    """Of `count` positions, `stride` elements apart from element `first` on: how many lie before and inside of `size` elements."""
    before = min(count, max(0, (stride - 1 - first) // stride))
    inside = min(count - before, max(0, (size - 1 - first) // stride + 1 - before))
    return before, inside


@njit
def fill_strips(conv, strips, x, planes, first, lines, like):
    """Write the rows of some planes that `lines` output rows from number `first` read; padding columns stay as they are."""
    size = conv.itemsize
    plane = conv.h_in * conv.w_in * size
    rows = lines + conv.reach_h
    for phase_h in range(conv.phases_h):
        top = first * conv.stride_h - conv.pad_top + phase_h * conv.dilation_h
        before, inside = under(top, conv.stride_h, conv.h_in, rows)
        after = (before + inside) * conv.row_pitch
        to = strips + phase_h * conv.rows_pitch
        # a strip that holds all output rows keeps its padding from plane to plane
        if conv.tiles_per_line > 1:
            for i in range(planes):
                if before > 0:
                    clear(to + i * conv.strip_pitch, before * conv.row_pitch // size, like)
                if before + inside < rows:
                    clear(to + i * conv.strip_pitch + after, (rows * conv.row_pitch - after) // size, like)
        for phase in range(conv.phases):
            left = phase * conv.dilation_w - conv.pad_left
            skipped, columns = under(left, conv.stride_w, conv.w_in, conv.positions)
            start = before * conv.row_pitch + phase * conv.phase_pitch + skipped * size
            source = (top + before * conv.stride_h) * conv.w_in + left + skipped * conv.stride_w
            for i in range(planes):
                copy_rows(
                    to + i * conv.strip_pitch + start,
                    conv.row_pitch,
                    x + i * plane + source * size,
                    conv.stride_h * conv.w_in * size,
                    inside,
                    columns,
                    conv.stride_w,
                    like,
                )


def strips_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share of planes and strips.  Workspace: a call record, strips of a few planes."""
    conv = conv_record(conv_address)
    call = plane_record(workspace)
    strips = workspace + PLANE_BYTES
    in_plane = conv.h_in * conv.w_in * conv.itemsize
    out_plane = conv.h_out * conv.w_out * conv.itemsize
    first_plane, last_plane = share(conv.n * conv.groups, part // column_parts, row_parts)
    first_strip, last_strip = share(conv.tiles_per_line, part % column_parts, column_parts)
    clear(strips, (conv.strips * conv.strip_pitch + NV * VECTOR_BYTES) // conv.itemsize, alpha)
    call.position = conv.row_pitch
    call.weight = conv.hop_h * conv.k_w * conv.itemsize
    call.c_pitch = conv.w_out * conv.itemsize
    call.columns = conv.w_out
    call.activation = conv.activation
    # Strips are filled some planes ahead of the tiles that read them: a load over what two stores just wrote would wait.
    for block in range(first_plane, last_plane, conv.strips):
        planes = min(conv.strips, last_plane - block)
        # Strips down the planes, as many rows as the L1 holds.
        for number in range(first_strip, last_strip):
            tiles = min(conv.lines - number * conv.tile_block, conv.tile_block)
            call.tiles = conv.tiles + number * conv.tile_block * 8 * TILE
            call.tile_count = tiles
            end = call.tiles + (tiles - 1) * 8 * TILE
            first = get(call.tiles, 0)
            lines = get(end, 0) + get(end, 1) - first
            fill_strips(conv, strips, x + block * in_plane, planes, first, lines, alpha)
            for i in range(planes):
                plane = block + i
                call.a = strips + i * conv.strip_pitch
                call.weights = conv.panels + plane % conv.groups * conv.patch_pitch
                call.bias = call.weights + conv.k_h * conv.k_w * conv.itemsize
                call.c = out + plane * out_plane
                call.residual = 0 if residual == 0 else residual + plane * out_plane
                call_core(conv.core, workspace, alpha, beta)


strips_share = NativeFunction(strips_part, "strips_share")
