"""Transposed convolution, the adjoint of convolution: layers, and functions of arrays."""

from __future__ import annotations

from numbaconv.transposed.functional import conv_transpose1d, conv_transpose2d, conv_transpose3d
from numbaconv.transposed.layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeLayer

__all__ = [
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "ConvTransposeLayer",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
]
