"""Reductions over axes of strided tensors: along runs of neighbouring elements that stay apart, or across them."""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import itemsize
from numbaconv.codegen.records import reduce_record
from numbaconv.codegen.reduce import reduce_across, reduce_along
from numbaconv.loops.walk import share


def reduce_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of results, a chunk of a run at a time."""
    r = reduce_record(record)
    size = itemsize(alpha)
    divisor = type(alpha)(r.divisor)
    chunks = (r.count + r.chunk - 1) // r.chunk
    first, last = share(r.m_0 * r.m_1 * r.m_2 * chunks, part, rows * columns)
    for piece in range(first, last):
        block, chunk = divmod(piece, chunks)
        rest, i_2 = divmod(block, r.m_2)
        i_0, i_1 = divmod(rest, r.m_1)
        start = chunk * r.chunk
        count = min(r.chunk, r.count - start)
        source = x + i_0 * r.x_m_0 + i_1 * r.x_m_1 + i_2 * r.x_m_2 + start * size
        to = out + i_0 * r.out_m_0 + i_1 * r.out_m_1 + i_2 * r.out_m_2 + start * size
        if r.across:
            reduce_across(r.operation, to, source, r.n_0, r.x_n_0, r.n_1, r.x_n_1, count, divisor)
        else:
            reduce_along(r.operation, to, source, r.n_0, r.x_n_0, r.n_1, r.x_n_1, r.n_2, r.x_n_2, count, divisor)


reduce_share = NativeFunction(reduce_part, "reduce_share")
