"""Convolutions for CPUs, compiled by Numba from Python that can be read."""

from __future__ import annotations

from numbaconv import arithmetic, filters
from numbaconv.accuracy import get_accuracy, set_accuracy
from numbaconv.backward import (
    conv1d_backward,
    conv2d_backward,
    conv3d_backward,
    conv_transpose1d_backward,
    conv_transpose2d_backward,
    conv_transpose3d_backward,
    grad_input,
    grad_weight,
)
from numbaconv.causal import CausalConv1d, StreamState
from numbaconv.deformable import DeformConv2d, deform_conv2d
from numbaconv.depthwise_separable import DepthwiseSeparableConv2d, depthwise_separable_conv2d
from numbaconv.dispatch.explain import explain
from numbaconv.errors import ConvError, DTypeError, ModelError, ShapeError, UnsupportedError
from numbaconv.functional import conv1d, conv2d, conv3d
from numbaconv.graph import InferenceSession
from numbaconv.graph_convolution import graph_conv
from numbaconv.layers import Conv1d, Conv2d, Conv3d, ConvLayer
from numbaconv.options import get_num_threads, num_threads, set_num_threads
from numbaconv.problem import ConvProblem
from numbaconv.resize import ResizeConv2d, resize_conv2d
from numbaconv.shuffle import channel_shuffle, pixel_shuffle, pixel_unshuffle
from numbaconv.signals import choose_method, convolve, correlate, fft_convolve, fir_filter, oaconvolve
from numbaconv.transposed import (
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)

__version__ = "0.1.0"
__all__ = [
    "CausalConv1d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvError",
    "ConvLayer",
    "ConvProblem",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "DTypeError",
    "DeformConv2d",
    "DepthwiseSeparableConv2d",
    "InferenceSession",
    "ModelError",
    "ResizeConv2d",
    "ShapeError",
    "StreamState",
    "UnsupportedError",
    "arithmetic",
    "channel_shuffle",
    "choose_method",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv3d",
    "conv3d_backward",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "convolve",
    "correlate",
    "deform_conv2d",
    "depthwise_separable_conv2d",
    "explain",
    "fft_convolve",
    "filters",
    "fir_filter",
    "get_accuracy",
    "get_num_threads",
    "grad_input",
    "grad_weight",
    "graph_conv",
    "num_threads",
    "oaconvolve",
    "pixel_shuffle",
    "pixel_unshuffle",
    "resize_conv2d",
    "set_accuracy",
    "set_num_threads",
]
