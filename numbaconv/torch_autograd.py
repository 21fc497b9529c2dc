"""Convolutions of PyTorch tensors on the CPU whose results and gradients numbaconv computes; needs PyTorch.

    from numbaconv.torch_autograd import conv2d

takes and gives tensors as `torch.nn.functional.conv2d` does, and stands in a graph of gradients like it.  Tensors are shared with
NumPy, not copied; those in PyTorch's channels-last format are computed channels-last, and so is their result.
"""

from __future__ import annotations

import numpy as np
import torch

from numbaconv import backward, functional, transposed
from numbaconv.errors import DTypeError


def conv1d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """`torch.nn.functional.conv1d` with integer padding."""
    return _convolve(1, False, x, weight, bias, stride, padding, dilation, groups)


def conv2d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """`torch.nn.functional.conv2d` with integer padding."""
    return _convolve(2, False, x, weight, bias, stride, padding, dilation, groups)


def conv3d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """`torch.nn.functional.conv3d` with integer padding."""
    return _convolve(3, False, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """`torch.nn.functional.conv_transpose1d`."""
    return _convolve(1, True, x, weight, bias, stride, padding, dilation, groups, output_padding)


def conv_transpose2d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """`torch.nn.functional.conv_transpose2d`."""
    return _convolve(2, True, x, weight, bias, stride, padding, dilation, groups, output_padding)


def conv_transpose3d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """`torch.nn.functional.conv_transpose3d`."""
    return _convolve(3, True, x, weight, bias, stride, padding, dilation, groups, output_padding)


_FUNCTIONS = {
    (1, True): transposed.conv_transpose1d,
    (2, True): transposed.conv_transpose2d,
    (3, True): transposed.conv_transpose3d,
    **{(axes, False): getattr(functional, f"conv{axes}d", None) for axes in (1, 2, 3)},
}


def _convolve(axes, is_transposed, x, weight, bias, stride, padding, dilation, groups, output_padding=0):
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if is_transposed:
        window["output_padding"] = output_padding
    return _Convolution.apply(x, weight, bias, _FUNCTIONS[axes, is_transposed], window, is_transposed)


class _Convolution(torch.autograd.Function):
    """A node of the graph of gradients."""

    @staticmethod
    def forward(ctx, x, weight, bias, function, window, is_transposed):
        window = window | {"layout": _layout(x)}
        ctx.window, ctx.is_transposed = window, is_transposed
        ctx.save_for_backward(x, weight)
        array = None if bias is None else _array("bias", bias)
        return _tensor(function(_pixels(x, "x", window), _array("weight", weight), array, **window), window)

    @staticmethod
    def backward(ctx, grad_output):
        x, weight = ctx.saved_tensors
        window = ctx.window | {"transposed": ctx.is_transposed}
        pixels = _pixels(grad_output, "grad_output", window)
        grads = [None] * 6
        if ctx.needs_input_grad[0]:
            shape = _pixels(x, "x", window).shape
            grads[0] = _tensor(backward.grad_input(pixels, _array("weight", weight), shape, **window), window)
        if ctx.needs_input_grad[1]:
            products = backward.grad_weight(pixels, _pixels(x, "x", window), tuple(weight.shape), **window)
            grads[1] = torch.from_numpy(products)
        if ctx.needs_input_grad[2]:
            channels = grad_output.ndim - weight.ndim + 1
            grads[2] = grad_output.sum([axis for axis in range(grad_output.ndim) if axis != channels])
        return tuple(grads)


def _layout(x) -> str:
    """How a batched tensor's pixels lie."""
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    last = x.ndim in formats and x.is_contiguous(memory_format=formats[x.ndim]) and not x.is_contiguous()
    return "channels_last" if last else "channels_first"


def _array(name: str, tensor) -> np.ndarray:
    """A tensor's memory as an array."""
    if tensor.device.type != "cpu" or tensor.dtype not in (torch.float32, torch.float64):
        raise DTypeError(
            f"{name} is a tensor of {tensor.dtype} on {tensor.device}; it must be float32 or float64 on the CPU"
        )
    return tensor.detach().numpy()


def _pixels(tensor, name: str, window: dict) -> np.ndarray:
    """An image's memory as an array in the window's layout."""
    array = _array(name, tensor)
    return np.moveaxis(array, 1, -1) if window["layout"] == "channels_last" else array


def _tensor(array: np.ndarray, window: dict):
    """An array in the window's layout as a tensor, whose channels come first by name."""
    return torch.from_numpy(np.moveaxis(array, -1, 1) if window["layout"] == "channels_last" else array)
