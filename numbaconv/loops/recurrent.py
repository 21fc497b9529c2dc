"""Recurrent layers: step after step, the last results of all sequences times a matrix, and a cell for each sequence.

What the input gives to the gates does not depend on results and is there already, for all steps.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_share, copy, itemsize
from numbaconv.codegen.records import recurrent_record
from numbaconv.codegen.recurrent import gru_cell, lstm_cell
from numbaconv.loops.walk import share


@njit
def run_direction(r, number, x, out, workspace, alpha, beta):
    """All steps of one direction.  Workspace: states, gates, that of the matrix product."""
    row = r.hidden * itemsize(alpha)
    gates, inner = workspace + r.at_gates, workspace + r.at_inner
    copy(workspace, r.initial_state + number * r.n * row, r.n * r.hidden, alpha)
    last = r.initial + number * r.n * r.out_row
    for turn in range(r.steps):
        step = r.steps - 1 - turn if number >= r.backward else turn
        to = out + step * r.out_step + number * r.out_direction
        call_share(r.function, 0, 1, 1, r.conv + number * r.conv_step, last, gates, 0, inner, alpha, beta)
        for sequence in range(r.n):
            given = x + step * r.x_step + number * r.x_direction + sequence * r.x_row
            state, made = workspace + sequence * row, gates + sequence * r.gates * row
            if r.lstm != 0:
                lstm_cell(to + sequence * r.out_row, state, given, made, r.hidden, alpha)
            else:
                gru_cell(to + sequence * r.out_row, state, given, made, r.hidden, alpha)
        last = to


def recurrent_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of directions."""
    r = recurrent_record(record)
    first, end = share(r.directions, part, rows * columns)
    for number in range(first, end):
        run_direction(r, number, x, out, workspace, alpha, beta)


recurrent_share = NativeFunction(recurrent_part, "recurrent_share")
