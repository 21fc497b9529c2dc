"""Products of matrices that are both computed, as 1x1 convolutions whose weights are new in each run: rows of A are pixels.

Any algorithm may multiply that can pack its weights in a loop nest (`Operand`); see `loops.matmul`.

    cycles = products (those of the 1x1 convolution + SPLIT_PRODUCT where operands are split)
           + bytes of B (1, or STAGED) / transpose_bytes                 packing
           + MISSED (1, or STREAM) bytes of all operands / far           from beyond the L2, as in `algorithms.cost`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import numpy as np

from numbaconv.algorithms import cost
from numbaconv.algorithms.addressed import Pitches
from numbaconv.algorithms.split_panels import UNIT_BYTES
from numbaconv.algorithms.tiled import TiledAlgorithm
from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.packing import PACKING
from numbaconv.codegen.records import MATMUL
from numbaconv.epilogue import Epilogue
from numbaconv.loops.gemm import MR, PANEL_ROW
from numbaconv.loops.matmul import HEAD_BYTES, matmul_share
from numbaconv.loops.shares import Shares, even_grid, share_address
from numbaconv.machine import Machine
from numbaconv.problem import ConvProblem
from numbaconv.workspace import rounded

#: Packing a matrix that is split, too, over packing it; and cycles of a product of which both operands are split, besides.
#: Measured with 192 products of 49 x 32 x 49, 12 of 197 x 64 x 197 and one of 512 x 512 x 512.
_STAGED, _SPLIT_PRODUCT = 2.3, 4000.0


class ComputedMatrix(Weights):
    """Weights of a 1x1 convolution, (c_out, c_in, 1), that are not known before a loop nest packs them."""

    def __init__(self, problem: ConvProblem):
        super().__init__(np.broadcast_to(problem.np_dtype.type(0), problem.weight_shape), None, 1, own=True)

    @cached_property
    def panels(self) -> np.ndarray:
        """None are there yet."""
        return np.empty(0, self.dtype)

    def form(self, pack) -> np.ndarray:
        """Nor are forms; what lies before their panels is not read."""
        return np.empty(UNIT_BYTES, np.uint8)


class MatmulPlan:
    """A batch of products, made ready for one algorithm.

    Parameters
    ----------
    algorithm : TiledAlgorithm
        One that has an `operand`.
    problem : ConvProblem
        One product of (m, k) and (k, n): a 1x1 convolution, channels-last, of m pixels in a line, k to n channels.
    epilogue : Epilogue
    pitches : tuple of int
        Elements from row to row of A, C and the residual; elements of a row are neighbours.
    b_steps : tuple of int
        Bytes from row to row and from column to column of B, one of which is the element's size.
    batch : mapping of str to int
        Fields of the `MATMUL` record: how many products there are, and how far apart their operands lie.
    factor : float
        What products are multiplied by.
    """

    def __init__(
        self,
        algorithm: TiledAlgorithm,
        problem: ConvProblem,
        epilogue: Epilogue,
        pitches: Pitches,
        b_steps: tuple[int, int],
        batch: Mapping[str, int],
        factor: float,
        machine: Machine,
    ):
        # panels are packed just before they are read
        machine, operand = replace(machine, weights_kept=True), algorithm.operand
        plan = algorithm.plan(problem, ComputedMatrix(problem), epilogue, machine)
        self._one = plan.shares(1, pitches)
        conv = self._one.owner.record
        panels, panel_bytes = int(conv["panels_per_group"]), int(conv["panel_bytes"])
        block = min(panels, int(conv["column_block"]))
        k, n = problem.c_in, problem.c_out
        self._packing = np.array((1, 0, panels, n, k, 1, 0, b_steps[1], b_steps[0], 0, problem.itemsize), PACKING)
        at_panels = rounded(HEAD_BYTES)
        at_inner = at_panels + rounded(operand.head + block * panel_bytes)
        fields = {
            **batch,
            "panels": panels,
            "panel_block": block,
            "packer": share_address(operand.packer, problem.np_dtype),
            "packing": self._packing.ctypes.data,
            "function": self._one.function,
            "conv": self._one.record,
            "head": operand.head,
            "unit": operand.unit,
            "at_panels": at_panels,
            "at_inner": at_inner,
            "factor": factor,
        }
        self._record = np.zeros((), MATMUL)
        for name, value in fields.items():
            self._record[name] = value
        # a row of zeros, and panels as they are before they are split
        staged = PANEL_ROW + block * k * PANEL_ROW if operand.staged else 0
        self._workspace = rounded(at_inner + max(self._one.pitch, staged))
        self._function = share_address(matmul_share, problem.np_dtype)
        self._units = batch["distinct_0"] * batch["distinct_1"] * panels
        self._tiles = -(-problem.spatial[0] // MR)

    def shares(self, threads: int) -> Shares:
        """The work cut for so many threads: panels, or else rows."""
        columns, rows = even_grid(self._units, self._tiles, threads)
        one = self._one
        record = self._record.ctypes.data
        return Shares(self._function, rows, columns, record, self._workspace, one.alpha, one.beta, self)


def batch_seconds(
    algorithm: TiledAlgorithm, one: float, problem: ConvProblem, matrices: int, products: int, machine: Machine
) -> float:
    """Estimate of so many products that take `one` each alone, in the L2, where `matrices` matrices B are packed for them."""
    p, staged = problem, algorithm.operand.staged
    size, pixels = p.itemsize, p.spatial[0]
    packed = matrices * p.c_in * p.c_out * size
    cycles = packed * (_STAGED if staged else 1) / machine.rates.transpose_bytes
    moved = packed + products * pixels * (p.c_in + p.c_out) * size
    # what is split first is waited for; tiles that read rows where they lie wait for a part
    cycles += cost.waiting_cycles(moved, moved * (1.0 if staged else cost.STREAM), machine)
    return products * one + (cycles + products * _SPLIT_PRODUCT * staged) / machine.rates.clock
