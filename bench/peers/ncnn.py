"""ncnn: a net of one layer, Winograd and packed layouts on as by default, half precision and bfloat16 off."""

import tempfile

import ncnn
import numpy as np

from bench.peers import Prepared, UnsupportedProblemError

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


def prepare(problem, operands, threads, variant, algorithm) -> Prepared:
    if problem.n != 1 or len(problem.kernel) != 2:
        raise UnsupportedProblemError("ncnn runs single images; measured for 2-D only")
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in REDUCED_PRECISION:
        setattr(net.opt, option, False)
    net.load_param_mem(_param(problem, operands))
    # The binding takes weights from a path only: load_model_mem wants text.
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(F32_TAG + operands.weight.tobytes() + operands.bias.tobytes())
        file.flush()
        net.load_model(file.name)
    image = ncnn.Mat(operands.x[0])

    def call():
        # An extractor caches its results, so every run needs a new one; the net keeps the packed weights.
        extractor = net.create_extractor()
        extractor.input("x", image)
        return extractor.extract("y")[1]

    return Prepared(call, lambda: np.array(call())[None], keep=(operands,))


def _param(problem, operands) -> str:
    """The net as ncnn's text format; the numbered keys are those of its Convolution layer."""
    (k_h, k_w), (s_h, s_w), (d_h, d_w) = problem.kernel, problem.stride, problem.dilation
    (top, bottom), (left, right) = problem.padding
    keys = {0: problem.c_out, 1: k_w, 11: k_h, 2: d_w, 12: d_h, 3: s_w, 13: s_h}
    keys |= {4: left, 15: right, 14: top, 16: bottom, 5: 1, 6: operands.weight.size}
    layer = "Convolution"
    if problem.groups > 1:
        layer, keys = "ConvolutionDepthWise", keys | {7: problem.groups}
    settings = " ".join(f"{key}={value}" for key, value in keys.items())
    return f"{MAGIC}\n2 2\nInput x 0 1 x\n{layer} conv 1 1 x y {settings}\n"
