"""A computed matrix as the right operand of matrix tiles: packed as any other, then split; all of it has one scale, or none."""

from __future__ import annotations

from numbaconv.codegen.amx import COLUMNS
from numbaconv.codegen.jit import NativeFunction
from numbaconv.codegen.memory import clear, put_element
from numbaconv.codegen.packing import packing_record
from numbaconv.codegen.scales import BIAS, INVERSE, SCALE_BYTES, halves_have_a_range, largest_exponent, put_scale
from numbaconv.loops.gemm import PANEL_ROW
from numbaconv.loops.packing import pack_pieces
from numbaconv.loops.scales import exponent_that_fills
from numbaconv.loops.split_panels import pack_split


def pack_split_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """Put a scale at `out`, its inverse times `alpha` behind it, and then panels; the workspace takes a row of zeros and panels."""
    p = packing_record(record)
    pack_pieces(p, workspace + PANEL_ROW, x, 0, 1, type(alpha)(1))
    exponent = BIAS
    if halves_have_a_range():
        if p.column_step == p.itemsize:
            largest = largest_exponent(x, p.k_step, p.k, p.columns)
        else:
            largest = largest_exponent(x, p.column_step, p.columns, p.k)
        exponent = exponent_that_fills(largest)
    put_element(out + INVERSE, alpha)
    put_scale(out, exponent, out + INVERSE)
    clear(workspace, 2 * COLUMNS, alpha)
    # with one tap, chunks of channels lie as all of them do
    pack_split(out + SCALE_BYTES, workspace + PANEL_ROW, p.panels, p.k, p.k, p.k, workspace, out)


pack_split_share = NativeFunction(pack_split_part, "pack_split_share")
