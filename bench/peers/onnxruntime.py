"""ONNX Runtime: a model of one Conv or ConvTranspose node, bound to preallocated input and output.

all         the default optimisations; Conv runs in blocked NCHWc, and the reorders at both ends are part of the model
extended    without that layout transformation, which is faster where the reorders are not amortised
"""

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from bench.operands import aligned
from bench.peers import Prepared, output_padding

OPSET, IR_VERSION = 13, 8
LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
}


def version() -> str:
    return ort.__version__


def convolution(problem, operands, threads, variant, algorithm) -> Prepared:
    return _session(_model(problem, operands, "Conv"), operands, threads, variant)


def transposed(problem, operands, threads, variant, algorithm) -> Prepared:
    model = _model(problem, operands, "ConvTranspose", output_padding=output_padding(problem))
    return _session(model, operands, threads, variant)


def _session(model: bytes, operands, threads, variant) -> Prepared:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = LEVELS[variant]
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    out = aligned(np.zeros(operands.expected.shape, np.float32))
    # OrtValues share the arrays' memory, so both stay aligned and nothing is copied per run.
    x_value, y_value = ort.OrtValue.ortvalue_from_numpy(operands.x), ort.OrtValue.ortvalue_from_numpy(out)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x_value)
    binding.bind_ortvalue_output("y", y_value)
    return Prepared(lambda: session.run_with_iobinding(binding), y_value.numpy, keep=(operands, x_value, out))


def _model(problem, operands, operator: str, **attributes) -> bytes:
    before, after = zip(*problem.padding)
    node = helper.make_node(
        operator,
        ["x", "weight", "bias"],
        ["y"],
        kernel_shape=problem.kernel,
        strides=problem.stride,
        dilations=problem.dilation,
        pads=[*before, *after],
        group=problem.groups,
        **attributes,
    )
    graph = helper.make_graph(
        [node],
        "conv",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, operands.x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, operands.expected.shape)],
        [numpy_helper.from_array(operands.weight, "weight"), numpy_helper.from_array(operands.bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    return model.SerializeToString()
