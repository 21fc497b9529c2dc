"""When matrix tiles read the elements of K side by side, and where these lie in a block: see `codegen.patches`.

Cycles for a position, kernel row after kernel row, or of patches of `rows` kernel rows:

    3 registers steps product ASKEW
    3 registers ceil(K / 32) product + PIECE (rows + ceil(K / 32) - 1) + WHOLE ceil(K / 32)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from numbaconv.codegen.amx import DEPTH, ROWS
from numbaconv.codegen.patches import ENTRIES, PIECES, TOGETHER
from numbaconv.machine import Machine

#: How many times as long products take whose left operands lie askew to cache lines; bytes that other positions are multiples of.
_ASKEW, _STRAIGHT = 1.3, 32
#: Cycles of a run of neighbouring elements of a step, and of writing a step.
_PIECE, _WHOLE = 2.5, 3.0
#: Patches of more steps take so much of the L1 that products wait for it; measured.
_MOST_STEPS = 2
#: Bytes of what the table says of one step.
TABLE_BYTES = 8 * ENTRIES


def patch_steps(g: dict[str, int], steps: int, position_bytes: int, machine: Machine) -> int:
    """Steps of the patches that save time over so many `steps` of kernel rows; 0 where they do not."""
    rows, run = g["k_d"] * g["k_h"], g["k_w"] * g["c_in"]
    if rows * run > _MOST_STEPS * DEPTH or not positions_together(run, position_bytes):
        return 0
    pieces = _pieces(rows, run)
    if max(map(len, pieces)) > PIECES:
        return 0
    registers = -(-g.get("outputs", 1) * g["c_out"] // ROWS)
    step = 3 * registers * machine.rates.matrix / ROWS
    askew = _ASKEW if position_bytes % _STRAIGHT else 1.0
    return len(pieces) if len(pieces) * step + gathering(rows, len(pieces)) < steps * step * askew else 0


def positions_together(run: int, position_bytes: int) -> int:
    """How many positions have such a run in the same 64 bytes, of the numbers that there is code for; 0 for none of them."""
    fit = (2 * DEPTH - 2 * run) // position_bytes + 1
    return max((number for number in TOGETHER if number <= fit), default=0)


def gathering(rows: int, steps: int) -> float:
    """Cycles of a patch of so many kernel rows and steps."""
    return _PIECE * (rows + steps - 1) + _WHOLE * steps


def patch_table(rows: np.ndarray, run: int) -> np.ndarray:
    """What `gather_patches` reads of kernel rows of `run` elements that lie at such offsets."""
    pieces = _pieces(len(rows), run)
    table = np.zeros((len(pieces), ENTRIES), np.int64)
    for line, step in zip(table, pieces):
        line[0] = len(step)
        line[1 : 1 + np.size(step)] = np.ravel([(rows[number], *rest) for number, *rest in step])
    return table


@lru_cache(maxsize=256)
def _pieces(rows: int, run: int) -> tuple[tuple[tuple[int, int, int], ...], ...]:
    """For each step and each row that it has a part of: the row's number, which of its elements would be the first one of the step,
    and a bit for each element of the step that is in it.
    """

    def piece(first, number):
        begin, end = max(number * run - first, 0), min((number + 1) * run - first, DEPTH)
        return number, first - number * run, (1 << end) - (1 << begin)

    def pieces(first):
        return tuple(piece(first, number) for number in range(first // run, min(-(-(first + DEPTH) // run), rows)))

    return tuple(pieces(first) for first in range(0, rows * run, DEPTH))
