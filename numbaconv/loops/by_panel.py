"""Depthwise convolution of channels-first tensors, a panel of channels at a time: transposed, convolved and transposed back
while it stays in the caches.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import clear
from numbaconv.codegen.records import conv_record
from numbaconv.loops.gemm import PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.grouped import grouped_part
from numbaconv.loops.transpose import transpose_strip
from numbaconv.loops.walk import share


@njit
def to_pixels(planes, block, channels, pixels, size, like):
    """Transpose contiguous planes to pixels `PANEL_ROW` bytes apart."""
    for first in range(0, pixels, VECTOR_BYTES // size):
        transpose_strip(planes, pixels * size, block, np.int64(PANEL_ROW), channels, first, pixels, like)


@njit
def to_planes(block, planes, channels, pixels, size, like):
    """Transpose pixels `PANEL_ROW` bytes apart to contiguous planes."""
    for first in range(0, channels, VECTOR_BYTES // size):
        transpose_strip(block, np.int64(PANEL_ROW), planes, pixels * size, pixels, first, channels, like)


def by_panel_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share of images and panels.  Workspace: that of one panel's convolution, then its x, residual and result.

    The record is that of one image whose pixels lie `PANEL_ROW` bytes apart.
    """
    conv = conv_record(conv_address)
    size = conv.itemsize
    pixels, out_pixels = conv.in_pixels, conv.out_pixels
    width = PANEL_ROW // size
    x_block = workspace + conv.inner_bytes
    residual_block = x_block + pixels * PANEL_ROW
    out_block = residual_block + out_pixels * PANEL_ROW
    first_image, last_image = share(conv.images, part // column_parts, row_parts)
    first_panel, last_panel = share(conv.panels_per_group, part % column_parts, column_parts)
    # lanes without a channel are computed, too
    clear(x_block, pixels * width, alpha)
    for image in range(first_image, last_image):
        for panel in range(first_panel, last_panel):
            first = panel * width
            channels = min(width, conv.c_out - first)
            plane = image * conv.c_out + first
            to_pixels(x + plane * pixels * size, x_block, channels, pixels, size, alpha)
            inner_residual = 0
            if residual != 0:
                to_pixels(residual + plane * out_pixels * size, residual_block, channels, out_pixels, size, alpha)
                inner_residual = residual_block - panel * PANEL_ROW
            grouped_part(
                panel,
                np.int64(1),
                conv.panels_per_group,
                conv_address,
                x_block - panel * PANEL_ROW,
                out_block - panel * PANEL_ROW,
                inner_residual,
                workspace,
                alpha,
                beta,
            )
            to_planes(out_block, out + plane * out_pixels * size, channels, out_pixels, size, alpha)


by_panel_share = NativeFunction(by_panel_part, "by_panel_share")
