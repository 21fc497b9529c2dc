"""Matrix products, sums over named indices, determinants."""

from __future__ import annotations

import numpy as np

from numbaconv.graph.ir import Node
from numbaconv.graph.operators.registry import Function, computes, makes


@computes("MatMul")
def _matmul(a, b):
    return np.matmul(a, b)


@makes("Gemm")
def _gemm(node: Node, opset: int) -> Function:
    alpha, beta = node.attributes.get("alpha", 1.0), node.attributes.get("beta", 1.0)
    first, second = node.attributes.get("transA", 0), node.attributes.get("transB", 0)

    def run(a, b, c=None):
        y = np.matmul(a.T if first else a, b.T if second else b)
        y = y if alpha == 1 else y * alpha
        y = y if c is None else y + (c if beta == 1 else c * beta)
        return y.astype(a.dtype, copy=False)

    return run


@makes("Einsum")
def _einsum(node: Node, opset: int) -> Function:
    equation = node.attributes["equation"].replace(" ", "")
    return lambda *operands: np.einsum(equation, *operands, optimize=len(operands) > 1)


@computes("Det")
def _determinant(x):
    return np.linalg.det(x).astype(x.dtype)


@computes("MatMulInteger")
def _integer_product(a, b, a_zero=None, b_zero=None):
    a, b = a.astype(np.int32), b.astype(np.int32)
    if a_zero is not None:
        # one zero a row
        a = a - (a_zero.astype(np.int32)[..., None] if a_zero.ndim else a_zero.astype(np.int32))
    if b_zero is not None:
        b = b - b_zero.astype(np.int32)
    return np.matmul(a, b)
