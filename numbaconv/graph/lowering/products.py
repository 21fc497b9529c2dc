"""Matrix products of computed operands, by NumPy's BLAS straight into the result; those with a constant are `Dense`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from numbaconv.errors import ShapeError
from numbaconv.graph.instructions import Host
from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.elementwise import combine
from numbaconv.graph.tensors import Tensor
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers


def _product(trace: Trace, node: Node, a: Value, b: Value, name: str) -> Tensor:
    """Emit a product of matrices, or of batches of them."""
    rows, columns = (() if len(a.shape) == 1 else (a.shape[-2],)), (() if len(b.shape) == 1 else (b.shape[-1],))
    inner = b.shape[-2] if len(b.shape) > 1 else b.shape[0]
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        batch = None
    if batch is None or a.shape[-1] != inner:
        raise ShapeError(f"operands of shapes {a.shape} and {b.shape} have no product")
    out = trace.new(name, (*batch, *rows, *columns), a.dtype)
    flops = 2.0 * prod(out.shape) * inner
    trace.emit(Host(node.op, node.name, (a, b), (out,), np.matmul, "BLAS of NumPy", into=True, flops=flops))
    return out


def _floats(a: Value, b: Value) -> bool:
    computed = isinstance(a, Tensor) or isinstance(b, Tensor)
    return computed and a.dtype in FLOATS and a.dtype == b.dtype and bool(a.shape and b.shape)


@lowers("MatMul")
def _matmul(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    a, b = operands
    return [_product(trace, node, a, b, node.outputs[0])] if _floats(a, b) else None


@lowers("Gemm")
def _gemm(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """alpha a b + beta c, either operand transposed."""
    a, b, c = (*operands, None)[:3]
    if not _floats(a, b):
        return None
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise ShapeError(f"operands have shapes {a.shape} and {b.shape}, Gemm takes matrices")
    a, b = (
        _transposed(value) if node.attributes.get(name, 0) else value for value, name in ((a, "transA"), (b, "transB"))
    )
    beta = node.attributes.get("beta", 1.0)
    addend = c is not None and beta != 0
    y = _product(trace, node, a, b, "" if addend else node.outputs[0])
    factors = ((y, node.attributes.get("alpha", 1.0)), (c if addend else None, beta))
    y, c = (
        value if value is None or factor == 1 else combine(trace, "multiply", value, np.asarray(factor, y.dtype), "")
        for value, factor in factors
    )
    return [combine(trace, "add", y, c, node.outputs[0]) if addend else y]


def _transposed(value: Value) -> Value:
    return value.T if isinstance(value, np.ndarray) else value.with_view(value.view.T)
