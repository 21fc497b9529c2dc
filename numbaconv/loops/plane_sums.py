"""Few planes as weighted sums of many: a stretch of each is read after the other, as long as memory likes to be read.

Sums of the stretch wait in the L1.  Panels of pixels, as GEMM would have them, take a vector or two of each plane at a time, and
nothing would use a panel again.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import fence
from numbaconv.codegen.plane_sums import TOGETHER, add_planes, finish_plane
from numbaconv.codegen.records import conv_record
from numbaconv.loops.gemm import VECTOR_BYTES
from numbaconv.loops.walk import share


def plane_sums_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share of stretches of all images and groups.  Workspace: sums of a stretch, a row for each output channel."""
    conv = conv_record(conv_address)
    size = conv.itemsize
    x_plane, out_plane = conv.in_pixels * size, conv.out_pixels * size
    first, last = share(conv.n * conv.groups * conv.tiles_per_line, part // column_parts, row_parts)
    for number in range(first, last):
        matrix, stretch = divmod(number, conv.tiles_per_line)
        at = stretch * conv.line
        pixels = min(conv.line, conv.out_pixels - at)
        source = x + matrix * conv.c_in * x_plane + at * size
        weights = conv.panels + matrix % conv.groups * conv.c_out * conv.patch_pitch
        channel = 0
        while channel < conv.c_in:
            together = TOGETHER if conv.c_in - channel >= TOGETHER else 1
            add_planes(
                together,
                workspace,
                conv.row_pitch,
                source,
                x_plane,
                weights,
                conv.patch_pitch,
                (conv.c_in - channel) * size,
                int(channel == 0),
                conv.c_out,
                pixels,
                alpha,
            )
            channel += together
            source += together * x_plane
            weights += together * size
        result = matrix * conv.c_out * out_plane + at * size
        for row in range(conv.c_out):
            c = out + result + row * out_plane
            origin = 0 if residual == 0 else residual + result + row * out_plane
            streamed = int(conv.streamed != 0 and c % VECTOR_BYTES == 0)
            finish_plane(workspace + row * conv.row_pitch, c, streamed, origin, pixels, conv.activation, alpha, beta)
    if conv.streamed != 0:
        fence()


plane_sums_share = NativeFunction(plane_sums_part, "plane_sums_share")
