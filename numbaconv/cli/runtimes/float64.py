"""The network in double precision: what results in single precision are to be held against.

The onnx package's reference evaluator runs it, operator by operator in NumPy, after weights and input have become doubles.  It
shares no code with any runtime that is measured.
"""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator


def version() -> str:
    """Of onnx."""
    return onnx.__version__


def load(model, feed, folder, threads):
    """The evaluator of the model with all of its single-precision numbers widened."""
    network = onnx.load(model)
    for function in network.functions:
        _widen(function.node)
    _widen_graph(network.graph)
    doubles = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feed.items()}
    evaluator, last = ReferenceEvaluator(network), []

    def call():
        last[:] = evaluator.run(None, doubles)

    return call, lambda: last


def _widen_graph(graph):
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    _widen(graph.node)


def _widen(nodes):
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            if attribute.HasField("g"):
                _widen_graph(attribute.g)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE


def _widen_tensor(tensor):
    if tensor.data_type == TensorProto.FLOAT:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
