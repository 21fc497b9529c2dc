"""Operators beside convolution against ONNX Runtime: the time of the step itself and of the whole run, in turns, on one thread.

    python -m bench.operators

A network runs channels-last, where a step reads what the one before has left; the whole run of a model with one operator
transposes its operand and its result, too.
"""

from __future__ import annotations

import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from numbaconv.graph import InferenceSession, SessionOptions

_WINDOW = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
_TWICE = (None, np.array([1, 1, 2, 2], np.float32))
_LSTM = {"hidden_size": 64, "direction": "bidirectional"}


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


_CHANNELS = _random(1, 96, 1, 1)
_ROW, _EIGHT = np.ones(120, np.float32), np.ones(8, np.float32)
_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
#: Operator, shape of x, further operands, attributes.
CASES = (
    ("MaxPool", (1, 64, 112, 112), (), _WINDOW),
    ("AveragePool", (1, 64, 112, 112), (), _WINDOW),
    ("GlobalAveragePool", (1, 1280, 7, 7), (), {}),
    ("GlobalAveragePool", (1, 64, 56, 56), (), {}),
    ("Resize", (1, 96, 40, 40), _TWICE, _NEAREST),
    ("Resize", (1, 96, 40, 40), _TWICE, {"mode": "linear"}),
    ("Softmax", (1, 1000), (), {}),
    ("Softmax", (1, 40, 6625), (), {}),
    ("Softmax", (1, 2, 96, 96, 96), (), {"axis": 1}),
    ("InstanceNormalization", (1, 8, 48, 48, 48), (_EIGHT, _EIGHT), {}),
    ("ArgMax", (1, 21, 128, 128), (), {"axis": 1}),
    ("Softplus", (1, 64, 56, 56), (), {}),
    ("LpNormalization", (1, 64, 56, 56), (), {"axis": 1}),
    ("Mul", (1, 96, 56, 56), (_CHANNELS,), {}),
    ("LayerNormalization", (40, 120), (_ROW, _ROW), {}),
    ("ReduceMean", (1, 64, 56, 56), (), {"axes": [2, 3]}),
    ("DepthToSpace", (1, 64, 64, 64), (), {"blocksize": 2}),
    ("LogSoftmax", (1, 40, 6625), (), {}),
    ("Softmax", (12, 197, 197), (), {}),
    ("Softmax", (192, 49, 49), (), {}),
    ("Exp", (1, 64, 56, 56), (), {}),
    ("LRN", (1, 192, 56, 56), (), {"size": 5}),
    ("LSTM", (40, 1, 128), (_random(2, 256, 128), _random(2, 256, 64), _random(2, 512)), _LSTM),
    ("MatMul", (12, 197, 64), (_random(12, 64, 197),), {}),
    ("MatMul", (12, 197, 197), (_random(12, 197, 64),), {}),
    ("MatMul", (192, 49, 32), (_random(192, 32, 49),), {}),
    ("MatMul", (192, 49, 49), (_random(192, 49, 32),), {}),
    ("MatMul", (8, 40, 15), (_random(8, 15, 40),), {}),
    ("MatMul", (64, 64), (_random(64, 64),), {}),
    ("MatMul", (512, 512), (_random(512, 512),), {}),
    ("MatMul", (1024, 1024), (_random(1024, 1024),), {}),
)
#: Those whose further operands are fed.
_FED = ("MatMul",)
_ROUNDS = 40


def model_of(op: str, shape: tuple[int, ...], constants, attributes) -> bytes:
    """A model of one operator."""
    names = [f"c{i}" if array is not None else "" for i, array in enumerate(constants)]
    arrays = {name: array for array, name in zip(constants, names) if name}
    shapes = {"x": shape} | ({name: array.shape for name, array in arrays.items()} if op in _FED else {})
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], ["y"], **attributes)],
        "operator",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, size) for name, size in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.INT64 if op == "ArgMax" else TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name not in shapes],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def measure(op: str, shape: tuple[int, ...], constants, attributes) -> tuple[float, float, float]:
    """Median seconds of our step, of our whole run, and of ONNX Runtime's."""
    model = model_of(op, shape, constants, attributes)
    feed = {"x": np.random.default_rng(1).random(shape, np.float32)}
    if op in _FED:
        feed |= {f"c{i}": array for i, array in enumerate(constants)}
    timed = InferenceSession(model, SessionOptions(1, enable_profiling=True))
    ours = InferenceSession(model, SessionOptions(1))
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    peer = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    rounds = []
    for _ in range(_ROUNDS):
        timed.run(None, feed)
        report = timed.report()
        # an operator may take several steps; one that is none of them is the longest copy
        step = sum(record.seconds for record in report if record.op == op) or max(record.seconds for record in report)
        marks = [time.perf_counter()]
        for session in (ours, peer):
            session.run(None, feed)
            marks.append(time.perf_counter())
        rounds.append((step, *np.diff(marks)))
    return tuple(np.median(rounds, axis=0))


def main() -> None:
    """Print a table."""
    print("| operator | x | step, us | whole run, us | ONNX Runtime, us | it over our step | over our run |")
    print("|---|---|---|---|---|---|---|")
    for op, shape, constants, attributes in CASES:
        step, whole, peer = measure(op, shape, constants, attributes)
        name = f"{op} {attributes['mode']}" if "mode" in attributes else op
        size = "x".join(map(str, shape))
        times = f"{step * 1e6:.0f} | {whole * 1e6:.0f} | {peer * 1e6:.0f}"
        print(f"| {name} | {size} | {times} | {peer / step:.1f} | {peer / whole:.1f} |")


if __name__ == "__main__":
    main()
