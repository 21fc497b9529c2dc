"""Operations on elements of strided tensors, one operand or two: blocks are walked in memory order of the result."""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.elementwise import elementwise_block
from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import copy, itemsize
from numbaconv.codegen.records import elementwise_record
from numbaconv.loops.walk import share


@njit
def repeat(run, count, times, like):
    """Make `times` copies, one after another, of the `count` elements at an address; the first is there already."""
    filled, total = count, count * times
    while filled < total:
        copy(run + filled * itemsize(like), run, min(filled, total - filled), like)
        filled += filled


def elementwise_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share; `x` and `residual` are the operands."""
    e = elementwise_record(record)
    size = itemsize(alpha)
    parts = rows * columns
    first, last = share(e.n_0 * e.n_1 * e.n_2, part, parts) if e.split == 0 else (0, e.n_0 * e.n_1 * e.n_2)
    row, row_end = share(e.rows, part, parts) if e.split == 1 else (0, e.rows)
    start, end = share(e.count, part, parts) if e.split == 2 else (0, e.count)
    joined = e.joined * e.count
    for block in range(first, last):
        rest, i_2 = divmod(block, e.n_2)
        i_0, i_1 = divmod(rest, e.n_1)
        a = x + i_0 * e.a_0 + i_1 * e.a_1 + i_2 * e.a_2 + row * e.a_row + start * e.a_step
        b = residual + i_0 * e.b_0 + i_1 * e.b_1 + i_2 * e.b_2 + row * e.b_row + start * e.b_step
        to = out + i_0 * e.out_0 + i_1 * e.out_1 + i_2 * e.out_2 + row * e.out_row + start * size
        count, whole, left = end - start, row_end - row, np.int64(0)
        out_row, a_row, b_row = e.out_row, e.a_row, e.b_row
        if e.joined > 1:
            if a_row == 0:
                copy(workspace, a, e.count, alpha)
                repeat(workspace, e.count, e.joined, alpha)
                a = workspace
            # functions of one operand have no second one
            if b_row == 0 and residual != 0:
                spare = workspace + joined * size
                copy(spare, b, e.count, alpha)
                repeat(spare, e.count, e.joined, alpha)
                b = spare
            count, whole, left = joined, whole // e.joined, whole % e.joined * e.count
            out_row, a_row, b_row = out_row * e.joined, a_row * e.joined, b_row * e.joined
        # Long rows, then what is left of one: the operation is compiled once for both.
        for height, width in ((whole, count), (np.int64(1), left)):
            if height * width:
                elementwise_block(
                    e.operation, to, out_row, a, a_row, e.a_step, b, b_row, e.b_step, height, width, alpha, beta
                )
            to, a, b = to + height * out_row, a + height * a_row, b + height * b_row


elementwise_share = NativeFunction(elementwise_part, "elementwise_share")
