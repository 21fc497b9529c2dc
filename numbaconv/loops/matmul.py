"""Batches of products of matrices that are both computed: B is packed a few panels at a time, and the loop nest of a 1x1
convolution multiplies, whose pixels are the rows of A.

Some matrices A may meet the same B, which is packed once for them.  Threads share out panels, so that none is packed twice, and
rows where panels are too few.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import call_share, get
from numbaconv.codegen.packing import PACKING, packing_record
from numbaconv.codegen.records import conv_record, matmul_record
from numbaconv.loops.gemm import NV, PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.walk import RECORD_BYTES, copy_record, share

#: What a thread's workspace starts with: the records of both functions, in which it fills in what they are to do.
HEAD_BYTES = RECORD_BYTES + PACKING.itemsize


def matmul_part(part, row_parts, column_parts, record, x, out, operands, workspace, alpha, beta):
    """One thread's share; `operands` is the address of those of B and of the residual, which is 0 where there is none."""
    m = matmul_record(record)
    b, residual = get(operands, 0), get(operands, 1)
    whole, conv = conv_record(m.conv), conv_record(workspace)
    copy_record(m.conv, workspace)
    packing = workspace + RECORD_BYTES
    given, p = packing_record(m.packing), packing_record(packing)
    p.groups, p.columns, p.k, p.taps, p.itemsize = given.groups, given.columns, given.k, given.taps, given.itemsize
    p.group_step, p.column_step, p.k_step, p.tap_step = (
        given.group_step,
        given.column_step,
        given.k_step,
        given.tap_step,
    )
    panels, inner = workspace + m.at_panels, workspace + m.at_inner
    conv.panels, conv.unit = panels + m.head, panels + m.unit
    columns = NV * (VECTOR_BYTES // whole.itemsize)
    first, last = share(m.distinct_0 * m.distinct_1 * m.panels, part % column_parts, column_parts)
    # Panels outside, as many as stay in the L2 while the rows of all matrices A pass by that meet them.
    while first < last:
        matrix, panel = divmod(first, m.panels)
        count = min(m.panel_block, m.panels - panel, last - first)
        i, j = divmod(matrix, m.distinct_1)
        p.first, p.panels = panel, count
        call_share(
            m.packer, 0, 1, 1, packing, b + i * m.b_0 + j * m.b_1, panels, 0, inner, type(alpha)(m.factor), alpha
        )
        conv.panels_per_group = count
        conv.c_out = min(whole.c_out - panel * columns, count * columns)
        conv.bias = whole.bias + panel * PANEL_ROW
        a, c = x + i * m.a_0 + j * m.a_1, out + i * m.c_0 + j * m.c_1 + panel * PANEL_ROW
        addend = residual + i * m.residual_0 + j * m.residual_1 + panel * PANEL_ROW
        for number in range(m.alike):
            call_share(
                m.function,
                part // column_parts,
                row_parts,
                1,
                workspace,
                a + number * m.a_alike,
                c + number * m.c_alike,
                0 if residual == 0 else addend + number * m.residual_alike,
                inner,
                alpha,
                beta,
            )
        first += count


matmul_share = NativeFunction(matmul_part, "matmul_share")
