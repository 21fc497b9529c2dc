"""Operations on elements of strided tensors, one operand or two: blocks are walked in memory order of the result."""

from __future__ import annotations

from numbaconv.codegen.elementwise import elementwise_block
from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import itemsize
from numbaconv.codegen.records import elementwise_record
from numbaconv.loops.walk import share


def elementwise_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share; `x` and `residual` are the operands."""
    e = elementwise_record(record)
    size = itemsize(alpha)
    parts = rows * columns
    first, last = share(e.n_0 * e.n_1 * e.n_2, part, parts) if e.split == 0 else (0, e.n_0 * e.n_1 * e.n_2)
    row, row_end = share(e.rows, part, parts) if e.split == 1 else (0, e.rows)
    start, end = share(e.count, part, parts) if e.split == 2 else (0, e.count)
    a = x + row * e.a_row + start * e.a_step
    b = residual + row * e.b_row + start * e.b_step
    to = out + row * e.out_row + start * size
    for block in range(first, last):
        rest, i_2 = divmod(block, e.n_2)
        i_0, i_1 = divmod(rest, e.n_1)
        elementwise_block(
            e.operation,
            to + i_0 * e.out_0 + i_1 * e.out_1 + i_2 * e.out_2,
            e.out_row,
            a + i_0 * e.a_0 + i_1 * e.a_1 + i_2 * e.a_2,
            e.a_row,
            e.a_step,
            b + i_0 * e.b_0 + i_1 * e.b_1 + i_2 * e.b_2,
            e.b_row,
            e.b_step,
            row_end - row,
            end - start,
            alpha,
            beta,
        )


elementwise_share = NativeFunction(elementwise_part, "elementwise_share")
