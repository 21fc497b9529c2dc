"""Gradients of convolution: derived problems on the same tiles."""

from __future__ import annotations

from numbaconv.backward.functions import (
    conv1d_backward,
    conv2d_backward,
    conv3d_backward,
    conv_transpose1d_backward,
    conv_transpose2d_backward,
    conv_transpose3d_backward,
    grad_input,
    grad_weight,
)

__all__ = [
    "conv1d_backward",
    "conv2d_backward",
    "conv3d_backward",
    "conv_transpose1d_backward",
    "conv_transpose2d_backward",
    "conv_transpose3d_backward",
    "grad_input",
    "grad_weight",
]
