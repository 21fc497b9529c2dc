"""Matrix products of computed operands on the engine's tiles; those with a constant matrix are `Dense`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.accuracy import Accuracy
from numbaconv.algorithms import MATMULS
from numbaconv.algorithms.matmul import MatmulPlan, batch_seconds
from numbaconv.arguments import NAMES
from numbaconv.dispatch.select import Candidate, rank
from numbaconv.epilogue import IDENTITY, Activation, Epilogue
from numbaconv.errors import DTypeError, ShapeError
from numbaconv.graph.batches import Batch, batch_of
from numbaconv.graph.instructions import Compiled, fused_name
from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.elementwise import activate, broadcast_shape, combine
from numbaconv.graph.tensors import Tensor, row_major
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers
from numbaconv.loops.shares import Shares
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem


@lowers("MatMul")
def _matmul(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    a, b = operands
    return [_product(trace, node, a, b)] if _floats(a, b) else None


@lowers("Gemm")
def _gemm(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """alpha a b + beta c, either operand transposed."""
    a, b, c = (*operands, None)[:3]
    if not _floats(a, b):
        return None
    beta = node.attributes.get("beta", 1.0)
    if c is not None and beta != 1:
        c = combine(trace, "multiply", c, np.asarray(beta, a.dtype), "") if beta != 0 else None
    return [_product(trace, node, *_matrices(node, a, b), c)]


@lowers("Product")
def _fused(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value]:
    a, b, addend = (*operands, None)[:3]
    if a.dtype != b.dtype or a.dtype not in FLOATS:
        raise DTypeError(f"operands of types {a.dtype} and {b.dtype} have no product")
    if "transA" in node.attributes:
        a, b = _matrices(node, a, b)
    return [_product(trace, node, a, b, addend, node.attributes.get("activation", IDENTITY))]


def _floats(a: Value, b: Value) -> bool:
    computed = isinstance(a, Tensor) or isinstance(b, Tensor)
    return computed and a.dtype in FLOATS and a.dtype == b.dtype and bool(a.shape and b.shape)


def _matrices(node: Node, a: Value, b: Value) -> list[Value]:
    """The operands of a Gemm as they are multiplied."""
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ShapeError(f"operands have shapes {a.shape} and {b.shape}, Gemm takes matrices")
    return [
        _transposed(value) if node.attributes.get(name, 0) else value for value, name in ((a, "transA"), (b, "transB"))
    ]


def _transposed(value: Value) -> Value:
    return value.T if isinstance(value, np.ndarray) else value.with_view(value.view.T)


def _product(
    trace: Trace, node: Node, a: Value, b: Value, addend: Value = None, activation: Activation = IDENTITY
) -> Value:
    """Emit a batch of products of matrices; vectors are matrices of one row or one column."""
    shape, name = _result_shape(a.shape, b.shape), node.outputs[0]
    alpha = node.attributes.get("alpha", 1.0)
    if a.shape[-1] == 0:
        return _rest(trace, np.zeros(shape, a.dtype), addend, activation, name)
    if addend is not None and broadcast_shape(shape, addend.shape) != shape:
        product = _emit(trace, node, (a, b), trace.new("", shape, a.dtype), IDENTITY, alpha)
        return _rest(trace, product, addend, activation, name)
    out = trace.new(name, shape, a.dtype, trace.order_read(name))
    return _emit(trace, node, (a, b) if addend is None else (a, b, addend), out, activation, alpha)


def _result_shape(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    if not a or not b:
        raise ShapeError(f"operands of shapes {a} and {b} have no product: numbers are no matrices")
    rows, columns = (() if len(a) == 1 else (a[-2],)), (() if len(b) == 1 else (b[-1],))
    if a[-1] != b[-2 if len(b) > 1 else 0]:
        raise ShapeError(f"operands of shapes {a} and {b} have no product")
    return (*broadcast_shape(a[:-2], b[:-2]), *rows, *columns)


def _rest(trace: Trace, product: Value, addend: Value, activation: Activation, name: str) -> Value:
    """What follows a product, as steps of its own."""
    if addend is not None:
        product = combine(trace, "add", product, addend, name if activation.is_identity else "")
    return product if activation.is_identity else activate(trace, trace.tensor(product), activation, name)


def _emit(
    trace: Trace, node: Node, operands: Sequence[Value], out: Tensor, activation: Activation, alpha: float
) -> Tensor:
    """Emit alpha a b + addend into a tensor, with operands copied that lie otherwise than tiles read them."""
    if not out.view.size:
        return out
    a, b, *addend = (trace.tensor(value) for value in operands)
    vectors = len(a.shape) == 1, len(b.shape) == 1
    a = a.with_view(a.view[None]) if vectors[0] else a
    b = b.with_view(b.view[:, None]) if vectors[1] else b
    target = out.with_view(_as_matrices(out.view, *vectors))
    addend = [t.with_view(_as_matrices(np.broadcast_to(t.view, out.shape), *vectors)) for t in addend]
    if target.view.shape[-2] == 1 and _has_rows(b.view.swapaxes(-1, -2)):
        # one row times a matrix whose columns lie in memory as rows do: nothing needs to be packed of that
        a, b, target, *addend = (t.with_view(t.view.swapaxes(-1, -2)) for t in (b, a, target, *addend))
    a = a if _has_rows(a.view) else trace.ordered(a, row_major)
    b = b if _has_rows(b.view) or _has_rows(b.view.swapaxes(-1, -2)) else trace.ordered(b, row_major)
    addend = [t if _has_rows(t.view, 0) else trace.ordered(t, row_major) for t in addend]
    batch = batch_of(_views(a, b, target, *addend))
    if batch is None:
        # more loops than there are: one batch of matrices that all lie apart
        a, b = (trace.ordered(t.with_view(_broadcast(t.view, target.shape)), row_major) for t in (a, b))
        addend = [trace.ordered(t, row_major) for t in addend]
        dense = trace.temporary(target.shape, out.dtype, row_major)
        _multiply(trace, node, (a, b, *addend), dense, batch_of(_views(a, b, dense, *addend)), activation, alpha)
        trace.copy(dense, target)
    else:
        _multiply(trace, node, (a, b, *addend), target, batch, activation, alpha)
    return out


def _as_matrices(view: np.ndarray, row: bool, column: bool) -> np.ndarray:
    """A result with the axes that those of vectors have lost."""
    view = view[..., None] if column else view
    return view[..., None, :] if row else view


def _has_rows(view: np.ndarray, least: int | None = None) -> bool:
    """Whether elements of a row are neighbours, and rows at least as far apart as they are long, or `least` bytes."""
    *_, rows, columns = view.shape
    least = columns * view.itemsize if least is None else least
    return (columns == 1 or view.strides[-1] == view.itemsize) and (rows == 1 or view.strides[-2] >= least)


def _broadcast(view: np.ndarray, result: tuple[int, ...]) -> np.ndarray:
    """One matrix for each of the result's."""
    return np.broadcast_to(view, (*result[:-2], *view.shape[-2:]))


def _views(a: Tensor, b: Tensor, out: Tensor, addend: Tensor | None = None) -> list[np.ndarray]:
    views = _broadcast(a.view, out.shape), _broadcast(b.view, out.shape), out.view
    return [*views, (out if addend is None else addend).view]


def _multiply(
    trace: Trace, node: Node, inputs: Sequence[Tensor], out: Tensor, batch: Batch, activation: Activation, alpha: float
) -> None:
    """Emit a batch of products by the algorithm that is estimated to be fastest."""
    _, b, *addend = inputs
    (k, n), size = b.shape[-2:], out.dtype.itemsize
    problem = ConvProblem.of((1, batch.m, k), (n, k, 1), dtype=NAMES[out.dtype], bias=False, layout="channels_last")
    epilogue, machine = Epilogue(False, bool(addend), activation), trace.store.machine
    candidate, seconds = _best(problem, epilogue, batch, machine)
    # where there is one row, or a column of one element, its distance from the next one means nothing
    pitches = tuple(step // size if batch.m > 1 else length for step, length in zip(batch.rows, (k, n, n), strict=True))
    b_steps = b.view.strides[-2:]
    if size not in b_steps:
        b_steps = (b_steps[0], size) if n == 1 else (size, b_steps[1])
    made: list[MatmulPlan] = []

    def work(threads: int) -> Shares:
        if not made:
            plan = MatmulPlan(candidate.algorithm, problem, epilogue, pitches, b_steps, batch.loops, alpha, machine)
            made.append(plan)
        return made[0].shares(threads)

    trace.emit(
        Compiled(
            fused_name("MatMul" if node.op == "Product" else node.op, *(addend or [None]), activation),
            node.name,
            tuple(inputs),
            out,
            work,
            in_place=(2,) if addend else (),
            algorithm=candidate.label(problem),
            problem=str(problem) if batch.products == 1 else f"{batch.products} x {problem}",
            flops=batch.products * problem.flops,
            seconds=seconds,
            tabled=True,
        )
    )


def _best(problem: ConvProblem, epilogue: Epilogue, batch: Batch, machine: Machine) -> tuple[Candidate, float]:
    """The algorithm that does all products soonest, and seconds."""
    candidates = (c for c in rank(problem, epilogue, machine, Accuracy.of(None), MATMULS) if c.cost is not None)
    batches = batch.matrices, batch.products
    timed = [(batch_seconds(c.algorithm, c.cost.seconds, problem, *batches, machine), c) for c in candidates]
    seconds, candidate = min(timed, key=lambda pair: pair[0])
    return candidate, seconds
