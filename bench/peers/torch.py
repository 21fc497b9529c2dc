"""PyTorch, whose CPU convolutions are oneDNN's. Four ways in, because which is fastest depends on the layer.

channels_first, channels_last    F.conv2d on ordinary tensors of that memory format; weights are repacked every call
packed                           what torch.compile emits when it freezes a model: channels-last, weights packed once
mkldnn                           opaque tensors: weights packed once, input and output in oneDNN's own blocked layout
"""

import torch
import torch.nn.functional as F

from bench.peers import Prepared, UnsupportedProblemError, even_padding, output_padding

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}

# Entered for the life of the worker: a `with` around every call would be timed.
torch.inference_mode().__enter__()


def version() -> str:
    return torch.__version__


def convolution(problem, operands, threads, variant, algorithm) -> Prepared:
    torch.set_num_threads(threads)
    axes, padding = len(problem.kernel), even_padding(problem)
    if variant == "mkldnn" and axes != 2:
        raise UnsupportedProblemError("repacking of opaque weights is measured for 2-D only")
    x, weight = _in_format(problem, variant, operands.x, operands.weight)
    bias = torch.from_numpy(operands.bias)
    stride, dilation, groups = list(problem.stride), list(problem.dilation), problem.groups
    conv = CONV[axes]

    if variant == "mkldnn":
        weight = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), padding, stride, dilation, groups)
        x, bias = _as_in_mid_network(x), bias.to_mkldnn()

    if variant == "packed":
        weight = torch.ops.mkldnn._reorder_convolution_weight(weight, padding, stride, dilation, groups, list(x.shape))
        convolution = torch.ops.mkldnn._convolution_pointwise.default

        def call():
            return convolution(x, weight, bias, padding, stride, dilation, groups, "none", [], "")
    else:

        def call():
            return conv(x, weight, bias, stride, padding, dilation, groups)

    def result():
        return call().to_dense().numpy() if variant == "mkldnn" else call().numpy()

    return Prepared(call, result, keep=(operands,))


def transposed(problem, operands, threads, variant, algorithm) -> Prepared:
    torch.set_num_threads(threads)
    axes = len(problem.kernel)
    if variant == "packed" and axes != 2:
        raise UnsupportedProblemError("repacking of transposed weights is for 2-D only")
    x, weight = _in_format(problem, variant, operands.x, operands.weight)
    bias, groups = torch.from_numpy(operands.bias), problem.groups
    geometry = even_padding(problem), list(output_padding(problem)), list(problem.stride), list(problem.dilation)

    if variant == "packed":
        weight = torch.ops.mkldnn._reorder_convolution_transpose_weight(weight, *geometry, groups, list(x.shape))
        convolution = torch.ops.mkldnn._convolution_transpose_pointwise.default

        def call():
            return convolution(x, weight, bias, *geometry, groups, "none", [], "")
    else:
        (padding, more, stride, dilation), convolution = geometry, TRANSPOSED[axes]

        def call():
            return convolution(x, weight, bias, stride, padding, more, groups, dilation)

    return Prepared(call, lambda: call().numpy(), keep=(operands,))


def gradients(problem, operands, threads, variant, algorithm) -> Prepared:
    torch.set_num_threads(threads)
    x, weight, grad_out = _in_format(problem, variant, operands.x, operands.weight, operands.grad_out)
    none = [0] * len(problem.kernel)
    geometry = problem.stride, even_padding(problem), problem.dilation, False, none, problem.groups

    def call():
        return torch.ops.aten.convolution_backward(grad_out, x, weight, [problem.c_out], *geometry, [True, True, True])

    return Prepared(call, lambda: tuple(gradient.numpy() for gradient in call()), keep=(operands,))


def _in_format(problem, variant, *arrays) -> list[torch.Tensor]:
    """Tensors of the memory format that the variant takes. Raises UnsupportedProblemError where there is none."""
    tensors, axes = map(torch.from_numpy, arrays), len(problem.kernel)
    if variant in ("channels_first", "mkldnn"):
        return list(tensors)
    if axes not in LAST:
        raise UnsupportedProblemError("signals have no channels-last format")
    return [tensor.to(memory_format=LAST[axes]) for tensor in tensors]


def _as_in_mid_network(x: torch.Tensor) -> torch.Tensor:
    """`x` in the layout that a preceding oneDNN convolution would have left it in: the result of an identity 1x1."""
    channels = x.shape[1]
    identity = torch.eye(channels).reshape(channels, channels, 1, 1)
    return F.conv2d(x.to_mkldnn(), identity.to_mkldnn())
