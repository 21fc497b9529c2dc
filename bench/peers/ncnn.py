"""ncnn: a net of one layer, Winograd and packed layouts on as by default, half precision and bfloat16 off."""

import tempfile

import ncnn
import numpy as np

from bench.peers import Prepared, UnsupportedProblemError, output_padding

MAGIC = "7767517"
# An f32 weight blob begins with a zero word; the bias has no such tag.
F32_TAG = bytes(4)
REDUCED_PRECISION = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)


def version() -> str:
    return ncnn.__version__


def convolution(problem, operands, threads, variant, algorithm) -> Prepared:
    keys = {0: problem.c_out, **_geometry(problem)}
    return _net(problem, operands, threads, "Convolution", keys, operands.weight)


def transposed(problem, operands, threads, variant, algorithm) -> Prepared:
    if problem.groups > 1:
        raise UnsupportedProblemError("grouped Deconvolution is not measured")
    more = {18 + axis: amount for axis, amount in enumerate(output_padding(problem)[::-1])}
    keys = {0: problem.c_in, **_geometry(problem), **more}
    return _net(problem, operands, threads, "Deconvolution", keys, operands.weight.swapaxes(0, 1))


def _net(problem, operands, threads, layer, keys, weight) -> Prepared:
    if problem.n != 1:
        raise UnsupportedProblemError("ncnn runs single images")
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in REDUCED_PRECISION:
        setattr(net.opt, option, False)
    net.load_param_mem(_param(problem, layer, keys | {5: 1, 6: weight.size}))
    # The binding takes weights from a path only: load_model_mem wants text.
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(F32_TAG + weight.tobytes() + operands.bias.tobytes())
        file.flush()
        net.load_model(file.name)
    image = ncnn.Mat(operands.x[0])

    def call():
        # An extractor caches its results, so every run needs a new one; the net keeps the packed weights.
        extractor = net.create_extractor()
        extractor.input("x", image)
        return extractor.extract("y")[1]

    return Prepared(call, lambda: np.array(call())[None], keep=(operands,))


def _geometry(problem) -> dict[int, int]:
    """Numbered keys that all of ncnn's convolutions share: tens are axes, from the last."""
    keys = {}
    axes = zip(problem.kernel[::-1], problem.dilation[::-1], problem.stride[::-1], problem.padding[::-1])
    for axis, (kernel, dilation, stride, (before, after)) in enumerate(axes):
        keys |= {1 + 10 * axis: kernel, 2 + 10 * axis: dilation, 3 + 10 * axis: stride}
        keys |= {4 + 10 * axis: before, 15 + axis: after}
    return keys


def _param(problem, layer: str, keys: dict[int, int]) -> str:
    """The net as ncnn's text format."""
    axes = len(problem.kernel)
    if problem.groups > 1:
        layer, keys = f"{layer}DepthWise", keys | {7: problem.groups}
    if axes != 2:
        layer = f"{layer}{axes}D"
    settings = " ".join(f"{key}={value}" for key, value in keys.items())
    return f"{MAGIC}\n2 2\nInput x 0 1 x\n{layer} conv 1 1 x y {settings}\n"
