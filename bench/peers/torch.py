"""PyTorch, whose CPU convolutions are oneDNN's. Four ways in, because which is fastest depends on the layer.

channels_first, channels_last    F.conv2d on ordinary tensors of that memory format; weights are repacked every call
packed                           what torch.compile emits when it freezes a model: channels-last, weights packed once
mkldnn                           opaque tensors: weights packed once, input and output in oneDNN's own blocked layout
"""

import torch
import torch.nn.functional as F

from bench.peers import Prepared, UnsupportedProblemError

CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
LAST = {2: torch.channels_last, 3: torch.channels_last_3d}

# Entered for the life of the worker: a `with` around every call would be timed.
torch.inference_mode().__enter__()


def version() -> str:
    return torch.__version__


def prepare(problem, operands, threads, variant, algorithm) -> Prepared:
    torch.set_num_threads(threads)
    if any(before != after for before, after in problem.padding):
        raise UnsupportedProblemError("one padding value an axis")
    axes = len(problem.kernel)
    if variant == "mkldnn" and axes != 2:
        raise UnsupportedProblemError("repacking of opaque weights is measured for 2-D only")
    if variant != "channels_first" and axes not in LAST:
        raise UnsupportedProblemError("signals have no channels-last format")
    x, weight, bias = map(torch.from_numpy, (operands.x, operands.weight, operands.bias))
    padding = [before for before, _ in problem.padding]
    stride, dilation, groups = list(problem.stride), list(problem.dilation), problem.groups
    conv = CONV[axes]

    if variant == "channels_last":
        x, weight = x.to(memory_format=LAST[axes]), weight.to(memory_format=LAST[axes])
    elif variant == "mkldnn":
        weight = torch._C._nn.mkldnn_reorder_conv2d_weight(weight.to_mkldnn(), padding, stride, dilation, groups)
        x, bias = _as_in_mid_network(x), bias.to_mkldnn()

    if variant == "packed":
        x = x.to(memory_format=LAST[axes])
        weight = weight.to(memory_format=LAST[axes])
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


def _as_in_mid_network(x: torch.Tensor) -> torch.Tensor:
    """`x` in the layout that a preceding oneDNN convolution would have left it in: the result of an identity 1x1."""
    channels = x.shape[1]
    identity = torch.eye(channels).reshape(channels, channels, 1, 1)
    return F.conv2d(x.to_mkldnn(), identity.to_mkldnn())
