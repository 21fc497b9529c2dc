"""Conv, ConvTranspose and Dense on the engine: weights packed once a session, plans made for the shapes of a program."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from numbaconv.algorithms.base import LoopNestPlan
from numbaconv.algorithms.weights import Weights
from numbaconv.arguments import NAMES
from numbaconv.dispatch.select import best_compiled
from numbaconv.epilogue import IDENTITY, Epilogue
from numbaconv.errors import DTypeError, ModelError, ShapeError
from numbaconv.functional import conv1d, conv2d, conv3d
from numbaconv.graph.instructions import Compiled, Host, fused_name
from numbaconv.graph.ir import Graph, Node
from numbaconv.graph.lowering.elementwise import activate, combine
from numbaconv.graph.tensors import Tensor, channels_last, row_major
from numbaconv.graph.trace import CHECKS, FLOATS, Trace, Value, lowers
from numbaconv.graph.window import Window, per_axis
from numbaconv.loops.gemm import VECTOR_BYTES
from numbaconv.loops.shares import Shares
from numbaconv.problem import ConvProblem
from numbaconv.transposed import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, ConvTransposeLayer


def _operands(node: Node, operands: Sequence[Value]) -> tuple[Value, Value, Value, Value]:
    x, weight, bias, residual = (*operands, None, None)[:4]
    return x, weight, bias, residual


def check_window(graph: Graph, node: Node) -> None:
    """A window that contradicts a constant weight."""
    weight = graph.constants.get(node.operand(1))
    if weight is not None and weight.ndim > 2:
        Window.read(node.attributes, weight.shape[2:])


def check_numbers(graph: Graph, node: Node) -> None:
    """Constant operands that hold a NaN: every result would be one."""
    for name in node.inputs[1:]:
        constant = graph.constants.get(name)
        if constant is not None and constant.size and constant.dtype in FLOATS and np.isnan(constant.min()):
            raise ModelError(f"the weight {name!r} holds NaN")


def _check_convolution(graph: Graph, node: Node) -> None:
    check_window(graph, node)
    check_numbers(graph, node)


CHECKS |= {
    "Conv": _check_convolution,
    "ConvTranspose": _check_convolution,
    "Gemm": check_numbers,
    "MatMul": check_numbers,
}


@lowers("Conv")
def conv(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """A convolution with its epilogue; with a computed weight it becomes a host step."""
    x, weight, bias, residual = _operands(node, operands)
    if "weights" not in node.attributes:
        if weight.dtype not in FLOATS or x.dtype not in FLOATS or len(weight.shape) not in (3, 4, 5):
            return None
        _check_rank(x.shape, weight.shape)
        return _computed_weight(trace, node, x, weight, bias, _geometry(node, x.shape, weight.shape))
    problem = pose(node, x.shape, x.dtype)
    result = (problem.n, problem.c_out, *problem.out_spatial)
    return [convolve(trace, node, problem, trace.pixels(x), residual, result, channels_last)]


def pose(node: Node, shape: tuple[int, ...], dtype: np.dtype) -> ConvProblem:
    """The problem that a Conv node with packed weights poses for an input of that shape."""
    weights: Weights = node.attributes["weights"]
    _check_dtype(dtype, weights)
    _check_rank(shape, weights.shape)
    n, c_in, *spatial = shape
    return ConvProblem.of(
        (n, *spatial, c_in),
        weights.shape,
        **_geometry(node, shape, weights.shape),
        dtype=NAMES[weights.dtype],
        bias=weights.bias is not None,
        layout="channels_last",
    )


def _check_rank(shape: tuple[int, ...], weight: tuple[int, ...]) -> None:
    if len(shape) != len(weight):
        raise ShapeError(f"x has shape {shape}, but the weight needs {len(weight)} dimensions")


def _check_dtype(dtype: np.dtype, weights: Weights) -> None:
    if dtype != weights.dtype:
        raise DTypeError(f"x is {dtype}, but the weight is {weights.dtype}")


def _geometry(node: Node, shape: tuple[int, ...], weight: tuple[int, ...]) -> dict[str, object]:
    window = Window.read(node.attributes, weight[2:])
    return {
        "stride": window.strides,
        "padding": window.conv_pads(shape[2:]),
        "dilation": window.dilations,
        "groups": window.group,
    }


@lowers("Dense")
def dense(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    """A matrix product over the last axis: a 1x1 convolution of as many pixels as there are rows."""
    x, _, _, residual = _operands(node, operands)
    weights: Weights = node.attributes["weights"]
    _check_dtype(x.dtype, weights)
    c_out, c_in, _ = weights.shape
    if not x.shape or x.shape[-1] != c_in:
        raise ShapeError(f"x has shape {x.shape}, but the weight takes {c_in} elements in the last axis")
    problem = ConvProblem.of(
        (1, prod(x.shape[:-1]), c_in),
        weights.shape,
        dtype=NAMES[x.dtype],
        bias=weights.bias is not None,
        layout="channels_last",
    )
    return [convolve(trace, node, problem, trace.ordered(x, row_major), residual, (*x.shape[:-1], c_out), row_major)]


def convolve(
    trace: Trace, node: Node, problem: ConvProblem, x: Tensor, residual: Value, shape: tuple[int, ...], order
) -> Tensor:
    """Emit one convolution; a residual of another shape is added in a step of its own, and the activation then, too."""
    activation = node.attributes.get("activation", IDENTITY)
    fused = residual is not None and residual.shape == shape
    if residual is not None and not fused:
        partial = _emit(trace, node, problem, x, None, IDENTITY, trace.temporary(shape, x.dtype, order), order)
        total = combine(trace, "add", partial, residual, "" if not activation.is_identity else node.outputs[0])
        return total if activation.is_identity else activate(trace, total, activation, node.outputs[0])
    if fused:
        residual = trace.pixels(residual) if order is channels_last else trace.ordered(residual, row_major)
    return _emit(
        trace, node, problem, x, residual, activation, trace.new(node.outputs[0], shape, x.dtype, order), order
    )


def _emit(trace, node, problem, x, residual, activation, out, order) -> Tensor:
    epilogue = Epilogue(problem.bias, residual is not None, activation)
    candidate, weights = best_compiled(problem, epilogue, trace.store.machine), node.attributes["weights"]
    made = []

    def work(threads: int) -> Shares:
        if not made:
            made.append(candidate.algorithm.plan(problem, weights, epilogue, trace.store.machine))
        pitches = tuple(_pitch(tensor, channels, order) for tensor, channels in (
            (x, problem.c_in), (out, problem.c_out), (residual, problem.c_out)))  # fmt: skip
        shares = made[0].shares(threads, pitches)
        if trace.store.final:
            weights.release()
        return shares

    trace.emit(
        Compiled(
            fused_name(node.op, residual, activation),
            node.name,
            (x,) if residual is None else (x, residual),
            out,
            work,
            in_place=() if residual is None else (1,),
            algorithm=candidate.label(problem),
            problem=str(problem),
            flops=problem.flops,
            seconds=candidate.cost.seconds,
        )
    )
    return out


def _pitch(tensor: Tensor | None, channels: int, order) -> int:
    """Elements from pixel to pixel; row-major matrices have none between their rows."""
    if tensor is None or order is row_major:
        return channels
    return tensor.pitch()


def _computed_weight(trace: Trace, node: Node, x, weight, bias, geometry) -> Sequence[Value]:
    """A convolution whose weight is known only when it runs: packed in each run."""
    convolution = _FUNCTIONS[len(weight.shape)]
    problem = ConvProblem.of(x.shape, weight.shape, **geometry, dtype=NAMES[x.dtype])

    def run(x, weight, bias=None):
        return (convolution(x, weight, bias, **geometry),)

    out = trace.new(node.outputs[0], problem.output_shape, x.dtype)
    trace.emit(Host(node.op, node.name, (x, weight, bias), (out,), run, algorithm="packed in each run"))
    return [out]


@lowers("ConvTranspose")
def conv_transpose(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """A transposed convolution, channels-last."""
    x, weight, bias, _ = _operands(node, operands)
    kind = _TRANSPOSED.get(len(weight.shape))
    if weight.dtype not in FLOATS or x.dtype not in FLOATS or kind is None:
        return None
    _check_rank(x.shape, weight.shape)
    rank = len(weight.shape)
    window = Window.read(node.attributes, weight.shape[2:])
    growth = per_axis(node.attributes, "output_padding", rank - 2, 0)
    pads, growth = window.transposed_pads(x.shape[2:], growth, node.attributes.get("output_shape"))
    geometry = {
        "stride": window.strides,
        "padding": pads,
        "output_padding": growth,
        "dilation": window.dilations,
        "groups": window.group,
    }
    if not isinstance(weight, np.ndarray) or not (bias is None or isinstance(bias, np.ndarray)):
        shape = kind(np.zeros(weight.shape, weight.dtype), None, **geometry).output_shape(x.shape)
        out = trace.new(node.outputs[0], shape, x.dtype)

        def run(x, weight, bias=None):
            return (kind(weight, bias, **geometry)(x),)

        trace.emit(Host(node.op, node.name, (x, weight, bias), (out,), run, algorithm="packed in each run"))
        return [out]
    activation, c_out = node.attributes.get("activation", IDENTITY), weight.shape[1] * window.group
    weight, bias, geometry = _side_by_side(weight, bias, geometry)
    layer = trace.store.get(
        ("layer", node.outputs, pads, growth),
        lambda: kind(
            weight, bias, **geometry, layout="channels_last", activation=activation,
            # direct sums are one loop nest, as a step has to be
            accuracy="strict",
        ),
    )  # fmt: skip
    return [_transpose_step(trace, node, layer, trace.ordered(x, channels_last), c_out)]


def _side_by_side(weight: np.ndarray, bias: np.ndarray | None, geometry: dict[str, object]):
    """Weight, bias and geometry where the outputs of one column of the input are channels of one output.

    They are neighbours in memory and meet no other column where the kernel is as long as the stride; few channels then fill
    more of a vector.
    """
    step, last = weight.shape[-1], {name: value[-1] for name, value in geometry.items() if name != "groups"}
    alone = geometry["groups"] == 1 and last["dilation"] == 1 and last["stride"] == step
    narrow = weight.shape[1] * weight.itemsize < VECTOR_BYTES
    if not (alone and narrow) or step == 1 or any(last["padding"]) or last["output_padding"]:
        return weight, bias, geometry
    c_in, c_out, *kernel = weight.shape
    weight = np.moveaxis(weight, -1, 1).reshape(c_in, step * c_out, *kernel[:-1], 1)
    bias = None if bias is None else np.tile(bias, step)
    return weight, bias, {**geometry, "stride": (*geometry["stride"][:-1], 1)}


def _transpose_step(trace: Trace, node: Node, layer: ConvTransposeLayer, x: Tensor, c_out: int) -> Tensor:
    """Emit a transposed convolution of a tensor without gaps, whose layer may have several outputs side by side."""
    n, c_in, *spatial = x.shape
    plan = layer.plan((n, *spatial, c_in))
    n, *spatial, channels = layer.output_shape((n, *spatial, c_in))
    spatial[-1] *= channels // c_out
    order = channels_last(len(x.shape))
    out = trace.new(node.outputs[0], (n, c_out, *spatial), x.dtype, channels_last)
    name = fused_name(node.op, None, layer.activation)
    if not isinstance(plan, LoopNestPlan):
        back = np.argsort(order)

        def run(x):
            return (layer(x.transpose(order)).reshape(n, *spatial, c_out).transpose(back),)

        trace.emit(Host(name, node.name, (x,), (out,), run, algorithm=plan.algorithm))
        return out
    # the result has no gaps, whatever it will be a slice of
    target = out if out.is_dense(order) else trace.temporary(out.shape, x.dtype, channels_last)
    trace.emit(
        Compiled(
            name,
            node.name,
            (x,),
            target,
            lambda threads: plan.shares(threads, (c_in, channels, channels)),
            algorithm=plan.algorithm,
            flops=layer.problem((x.shape[0], *x.shape[2:], c_in)).flops,
        )
    )
    if target is not out:
        trace.copy(target, out)
    return out


#: Functions and layers by the axes of their weights.
_FUNCTIONS = {3: conv1d, 4: conv2d, 5: conv3d}
_TRANSPOSED = {3: ConvTranspose1d, 4: ConvTranspose2d, 5: ConvTranspose3d}
