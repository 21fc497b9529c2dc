"""Weights into panels: B of the GEMM core, from wherever a kernel's numbers lie in memory.

    packed[group, panel, tap, k, column] = weight[group, panel NR + column, k, tap], zero beyond the last column

Columns, channels and taps of the source may lie any distance apart, which is how reversed kernels and those whose channels
are exchanged are packed without a copy in between.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.packing import PACKING, pack_rows, packing_record
from numbaconv.codegen.rows import run_affine
from numbaconv.codegen.transpose import transpose_block
from numbaconv.loops.gemm import NV, PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.loops.walk import share

#: Bytes below which a second thread costs more than it saves.
_WORTH_THREADS = 1 << 16
#: Input channels of one piece of work.
_CHANNELS = 16


@njit
def pack_taps(p, to, source, columns, first, last, like):
    """Channels `first`..`last` of one vector of columns whose taps are neighbours, in whichever direction."""
    lanes = VECTOR_BYTES // p.itemsize
    tap_pitch = p.k * PANEL_ROW
    if p.tap_step < 0:
        source += (p.taps - 1) * p.tap_step
        to += (p.taps - 1) * tap_pitch
        tap_pitch = -tap_pitch
    for channel in range(first, last):
        for tap in range(0, p.taps, lanes):
            transpose_block(
                source + channel * p.k_step + tap * p.itemsize, p.column_step,
                to + channel * PANEL_ROW + tap * tap_pitch, tap_pitch, columns, min(lanes, p.taps - tap), like,
            )  # fmt: skip


@njit
def pack_channels(p, to, source, columns, first, last, like):
    """As `pack_taps` where channels are neighbours, or columns."""
    lanes = VECTOR_BYTES // p.itemsize
    for tap in range(p.taps):
        here, there = source + tap * p.tap_step, to + tap * p.k * PANEL_ROW
        if p.column_step == p.itemsize:
            pack_rows(
                there + first * PANEL_ROW, PANEL_ROW, here + first * p.k_step, p.k_step, last - first, columns, like
            )
            continue
        for channel in range(first, last, lanes):
            transpose_block(
                here + channel * p.k_step, p.column_step, there + channel * PANEL_ROW, PANEL_ROW, columns,
                min(lanes, last - channel), like,
            )  # fmt: skip


@njit
def pack_piece(p, to, x, block, number, factor):
    """Block number `block` of the channels of one panel, counted over all groups, times `factor`."""
    lanes = VECTOR_BYTES // p.itemsize
    group, panel = divmod(number, p.panels)
    first, last = block * _CHANNELS, min((block + 1) * _CHANNELS, p.k)
    to += number * p.taps * p.k * PANEL_ROW
    zero = type(factor)(0)
    for vector in range(NV):
        column = ((p.first + panel) * NV + vector) * lanes
        count = min(lanes, p.columns - column)
        here = to + vector * VECTOR_BYTES
        if count < lanes:
            for tap in range(p.taps):
                pack_rows(here + (tap * p.k + first) * PANEL_ROW, PANEL_ROW, x, 0, last - first, np.int64(0), factor)
        if count <= 0:
            continue
        source = x + group * p.group_step + column * p.column_step
        if p.taps > 1 and abs(p.tap_step) == p.itemsize:
            pack_taps(p, here, source, count, first, last, factor)
        else:
            pack_channels(p, here, source, count, first, last, factor)
    if factor != 1:
        for tap in range(p.taps):
            here = to + (tap * p.k + first) * PANEL_ROW
            run_affine(here, here, 0, 0, (last - first) * NV * lanes, zero, factor, zero)


@njit
def pack_pieces(p, to, x, part, parts, factor):
    """Part number `part` of the panels of all groups, a few channels at a time."""
    panels, blocks = p.groups * p.panels, (p.k + _CHANNELS - 1) // _CHANNELS
    begin, end = share(panels * blocks, part, parts)
    for item in range(begin, end):
        # what lies closest together is walked inside, so that memory is read in its order
        block, number = divmod(item, panels)
        if p.column_step > p.k_step:
            number, block = divmod(item, blocks)
        pack_piece(p, to, x, block, number, factor)


def pack_part(part, rows, columns, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of the panels of all groups: numbers times `alpha`."""
    pack_pieces(packing_record(record), out, x, part, rows * columns, alpha)


pack_share = NativeFunction(pack_part, "pack_weights_share")


def pack_panels(packed: np.ndarray, weight: np.ndarray) -> None:
    """Fill (groups, panels, taps, c_in, NR), contiguous, from (groups, columns, c_in, taps) of any strides.

    Along one of the last three axes neighbours must lie beside one another in memory.
    """
    groups, panels, taps, k, _ = packed.shape
    if weight.itemsize not in map(abs, weight.strides[1:]):
        weight = np.ascontiguousarray(weight)
    record = np.array((groups, 0, panels, weight.shape[1], k, taps, *weight.strides, weight.itemsize), PACKING)
    threads = usable_threads() if packed.nbytes >= _WORTH_THREADS else 1
    zero, one = weight.dtype.type(0), weight.dtype.type(1)
    parts = min(threads, groups * panels * -(-k // _CHANNELS))
    function = share_address(pack_share, weight.dtype)
    work = Shares(function, parts, 1, record.ctypes.data, 0, one, zero, record)
    run_shares(work, weight.ctypes.data, packed.ctypes.data, 0, 0)
