"""Small models to rewrite, and an evaluator of what passes make of them."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from numbaconv.graph.ir import Node, read_graph
from numbaconv.graph.passes import optimise
from numbaconv.graph.reference import ReferenceKernel

F32, F64, F16, I64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.INT64
IMAGE = (2, 4, 6, 5)


def node(op, inputs, outputs="y", **attributes):
    """A node whose operands are written with spaces between them, "-" for one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), **attributes)


def random(*shape, seed=0, dtype=np.float64):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def model_of(*nodes, x=IMAGE, kind=F64, opset=17, outputs=("y",), inputs=None, **constants):
    """A model that reads `x` (and further `inputs`, names to shapes) and constants given by name.

    Lists and numbers become constants of the type of `x` as they are; arrays keep theirs.
    """
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    arrays = {k: v if isinstance(v, np.ndarray) else np.array(v, dtype) for k, v in constants.items()}
    shapes = {"x": x, **(inputs or {})}
    graph = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(graph, feed):
    """The outputs of a graph, by the reference operators and, for what passes make, by their definitions."""
    values = {"": None, **graph.constants, **feed}
    for step in graph.nodes:
        operands = [values[name] for name in step.inputs]
        if step.op in ("Conv", "ConvTranspose"):
            results = [epilogue(step, operands, convolve(step, graph.opsets, *operands[:3]))]
        elif step.op == "Dense":
            y = operands[0] @ operands[1].T
            results = [epilogue(step, operands, y if len(operands) < 3 or operands[2] is None else y + operands[2])]
        elif step.op == "Product":
            results = [product(step, *operands)]
        elif step.op == "Activation":
            results = [step.attributes["activation"].apply(operands[0])]
        elif step.op == "LayerNormalization":
            results = [layer_norm(*operands, **step.attributes)]
        else:
            results = ReferenceKernel(step, graph.opsets)(*(values[name] for name in (*step.inputs, *step.captured)))
            if "activation" in step.attributes:
                results = [epilogue(step, (), *results)]
        values.update(zip(filter(None, step.outputs), results))
    return [values[value.name] for value in graph.outputs]


def product(step, a, b, addend=0):
    a, b = (m.T if step.attributes.get(name) else m for m, name in ((a, "transA"), (b, "transB")))
    return epilogue(step, (), step.attributes["alpha"] * (a @ b) + addend)


def convolve(step, opsets, x, weight, bias=None):
    """Group after group, since the reference's transposed convolution knows only one."""
    attributes = {k: v for k, v in step.attributes.items() if k not in ("activation", "group")}
    kernel = ReferenceKernel(Node(step.op, ("x", "w"), ("y",), attributes), opsets)
    groups = step.attributes.get("group", 1)
    parts = zip(np.split(x, groups, axis=1), np.split(weight, groups))
    y = np.concatenate([kernel(*part)[0] for part in parts], axis=1)
    return y if bias is None else y + bias.reshape(-1, *(1,) * (x.ndim - 2))


def epilogue(step, operands, y):
    if len(operands) > 3:
        y = y + operands[3]
    activation = step.attributes.get("activation")
    return y if activation is None else activation.apply(y)


def layer_norm(x, scale, bias=0.0, *, axis, epsilon):
    axes = tuple(range(axis, 0))
    centred = x - x.mean(axes, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axes, keepdims=True) + epsilon) * scale + bias


def allocated(run):
    """The most bytes that calls held which allocated anew after some that warmed up."""
    for _ in range(3):
        run()
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        for _ in range(5):
            run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def optimised(model, *, x=None, tolerance=1e-12, judge=None):
    """The graph after all passes; it computes what the model does, by the reference or another judge, under the same names."""
    feed = {}
    for seed, info in enumerate(model.graph.input):
        kind = info.type.tensor_type
        shape = [d.dim_value or 3 for d in kind.shape.dim]
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        feed[info.name] = (random(*shape, seed=seed + 1) * 3).astype(dtype)
    if x is not None:
        feed["x"] = x
    before = read_graph(model)
    graph = optimise(before)
    with np.errstate(all="ignore"):
        wanted = judge(before, feed) if judge else ReferenceEvaluator(model).run(None, feed)
        results = run(graph, feed)
    assert [value.name for value in graph.outputs] == [value.name for value in before.outputs]
    for result, expected in zip(results, wanted, strict=True):
        assert result.shape == expected.shape and result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance)
    return graph


def ops(graph):
    return [step.op for step in graph.nodes]


def only(graph):
    """The one node that is left."""
    assert len(graph.nodes) == 1, ops(graph)
    return graph.nodes[0]


def activation_of(graph):
    return only(graph).attributes["activation"]


#: A convolution of `IMAGE` that keeps its size, and the parameters of a batch norm after it.
WEIGHT = random(4, 4, 3, 3)
CONV = node("Conv", "x w", "c", pads=[1, 1, 1, 1])
STATISTICS = {"s": random(4), "b": random(4, seed=1), "m": random(4, seed=2), "v": np.abs(random(4, seed=3))}

#: Numbers that activations are spelled with.
NUMBERS = {
    "zero": 0.0,
    "one": 1.0,
    "three": 3.0,
    "six": 6.0,
    "sixth": 1 / 6,
    "half": 0.5,
    "root": 2**0.5,
    "unroot": 0.5**0.5,
}
