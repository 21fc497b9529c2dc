"""OpenVINO's CPU plugin: one convolution compiled for latency in f32, with the caller's buffers as its tensors.

channels_last declares that the operands arrive as NHWC, which spares the plugin a reorder on most layers.
"""

from functools import partial

import numpy as np
import openvino as ov
from openvino import opset13 as ops

from bench.operands import aligned
from bench.peers import Prepared, output_padding


def version() -> str:
    return ov.__version__.split("-")[0]


def convolution(problem, operands, threads, variant, algorithm) -> Prepared:
    operators = ops.convolution, ops.group_convolution
    return _request(_model(problem, operands, *operators), problem, operands, threads, variant)


def transposed(problem, operands, threads, variant, algorithm) -> Prepared:
    operators = (
        partial(operator, output_padding=list(output_padding(problem)))
        for operator in (ops.convolution_backprop_data, ops.group_convolution_backprop_data)
    )
    return _request(_model(problem, operands, *operators), problem, operands, threads, variant)


def _request(model: ov.Model, problem, operands, threads, variant) -> Prepared:
    last = variant == "channels_last"
    if last:
        model = _with_channels_last_ends(model, "DHW"[-len(problem.kernel) :])
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    to_layout = (lambda a: np.moveaxis(a, 1, -1)) if last else (lambda a: a)
    x = aligned(to_layout(operands.x))
    out = aligned(np.zeros_like(to_layout(operands.expected), dtype=np.float32))
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    request.set_output_tensor(ov.Tensor(out, shared_memory=True))

    def call():
        # infer() copies its outputs unless told to share; start_async() and wait() cost 30 us more on small layers.
        return request.infer(share_outputs=True)

    return Prepared(call, lambda: np.moveaxis(out, -1, 1) if last else out, keep=(x, out))


def _model(problem, operands, dense, grouped) -> ov.Model:
    """One of two operators, as there are groups or not, and a bias."""
    x = ops.parameter(operands.x.shape, np.float32)
    before, after = map(list, zip(*problem.padding))
    geometry = {"pads_begin": before, "pads_end": after, "dilations": list(problem.dilation)}
    operator, weight = dense, operands.weight
    if problem.groups > 1:
        g = problem.groups
        operator, weight = grouped, weight.reshape(g, problem.c_out // g, *weight.shape[1:])
    y = operator(x, ops.constant(weight), list(problem.stride), **geometry)
    bias = operands.bias.reshape(1, -1, *[1] * len(problem.kernel))
    return ov.Model([ops.add(y, ops.constant(bias))], [x], "conv")


def _with_channels_last_ends(model: ov.Model, axes: str) -> ov.Model:
    ends = ov.preprocess.PrePostProcessor(model)
    for end in (ends.input(), ends.output()):
        end.tensor().set_layout(ov.Layout(f"N{axes}C"))
        end.model().set_layout(ov.Layout(f"NC{axes}"))
    return ends.build()
