"""The core of depthwise tiles: down the lines of an output column one tile wide, so that the kernel's rows stay in the L1.

Dilation and stride are taken apart so that all taps of a run slide by one position: with stride s and dilation d of the
columns, outputs q = d / gcd(s, d) apart form a tile, the taps t = p, p + s / gcd, ... of each phase p form a run, and positions
are lcm(s, d) columns apart.

A *stretch* is a row of outputs that share their runs: one tile of an image, since the same runs serve all of its lines, and
several tiles of a signal, which has one line only and where finding the runs takes as long as a tile.
"""

from __future__ import annotations

import functools

from numbaconv.codegen.column import column
from numbaconv.codegen.expand import EXPANSION
from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.lanes import SLIDING
from numbaconv.codegen.memory import call_core, itemsize, put
from numbaconv.codegen.records import SLIDE, slide_record
from numbaconv.codegen.sliding import KERNELS, RUN
from numbaconv.codegen.target import target
from numbaconv.loops.gemm import NV, PANEL_ROW, VECTOR_BYTES

#: Pixels of the largest depthwise tile, and of one that is one vector wide.
PIXELS, TALL = target().pixels, target().tall
#: Taps whose weights it keeps in registers.
CHUNK = target().chunk
#: More positions than any tile has.
INSIDE = 1 << 30
#: A thread's workspace starts with its call record.
SLIDE_BYTES = SLIDE.itemsize
#: Bytes of the expansion record of one vector.
EXPANSION_BYTES = 8 * EXPANSION + VECTOR_BYTES


def _core(operation: str, kernel: int):
    """The core for tiles of an operation and of one of `KERNELS`, which are constants of the compiled code."""
    number = SLIDING.index(operation)
    rows, vectors = (TALL, 1) if KERNELS[kernel].piece else (PIXELS, NV)

    def core(address, alpha, beta):
        """Lines by panels of the `SLIDE` record at an address; kernel rows in padding are left out."""
        call = slide_record(address)
        lanes = VECTOR_BYTES // itemsize(alpha)
        # a panel that is not full is a column of its own
        full = call.columns // (NV * lanes)
        # Tiles narrower than a panel walk down all lines first, so that their part of the weights stays in the caches.
        for vector in range(0, NV, vectors):
            line = 0
            while line < call.lines:
                h = call.h + line * call.stride_h
                last_h = h + (call.k_h - 1) * call.dilation_h
                first, last, lines = 0, call.k_h, 1
                if h >= 0 and last_h < call.h_in:
                    # all lines whose kernel touches no padding at once
                    lines = min((call.h_in - 1 - last_h) // call.stride_h + 1, call.lines - line)
                else:
                    first = min(max(-(h // call.dilation_h), 0), last)
                    last = max(min((call.h_in - 1 - h) // call.dilation_h + 1, last), first)
                for panel in range(0, call.panel_count, max(full, 1)):
                    columns = call.columns - (panel * NV + vector) * lanes
                    if columns > 0:
                        column(
                            number,
                            kernel,
                            rows,
                            vectors,
                            call.height,
                            min(vectors, (columns + lanes - 1) // lanes),
                            call.bordered,
                            address,
                            call.a + line * call.a_line,
                            call.runs + first * call.runs_per_row * 8 * RUN,
                            (last - first) * call.runs_per_row,
                            call.c + line * call.c_line,
                            0 if call.residual == 0 else call.residual + line * call.residual_line,
                            panel,
                            full if panel < full else 1,
                            lines,
                            vector * VECTOR_BYTES,
                            columns,
                            alpha,
                            beta,
                        )
                line += lines

    return core


@functools.cache
def sliding_core(operation: str, kernel: int) -> NativeFunction:
    """The core for an operation and one of `KERNELS`, compiled when its address is first asked for."""
    return NativeFunction(_core(operation, kernel), operation)


@njit
def stretches_across(conv):
    """Stretches that cover an output row: even parts of it, `conv.out_step` each, of outputs so many columns apart."""
    longest = (conv.w_out + conv.out_step - 1) // conv.out_step
    return min(conv.out_step, conv.w_out) * ((longest + conv.stretch - 1) // conv.stretch)


@njit
def stretch_across(conv, number):
    """First output column of stretch `number` and how many it has, which may be 0 where the row's end cuts outputs off."""
    longest = (conv.w_out + conv.out_step - 1) // conv.out_step
    parts = (longest + conv.stretch - 1) // conv.stretch
    part, residue = divmod(number, min(conv.out_step, conv.w_out))
    length = (conv.w_out - residue + conv.out_step - 1) // conv.out_step
    first, last = part * longest // parts, min((part + 1) * longest // parts, length)
    return residue + first * conv.out_step, max(last - first, 0)


@njit
def long_pieces(conv, taps):
    """How many of a run's taps are in pieces of the longer kind."""
    if conv.piece == 0:
        return taps // CHUNK * CHUNK
    pieces = (taps + conv.piece - 1) // conv.piece
    return (taps - pieces * (conv.piece - 1)) * conv.piece


@njit
def put_runs(conv, address, runs, w_out, height, first_column, row, depth, pixel, turn, ring):
    """Run records of the `height` outputs from column `w_out`: kernel rows, their slices, phases.

    A starts at input column `first_column`; input rows lie `row` bytes apart, slices `depth`, columns `pixel`.  Rows are kept in a
    ring of `ring` rows, in which the kernel's first one is number `turn`.  Taps that meet no column of the input are left out.
    """
    call = slide_record(address)
    for phase in range(conv.phases):
        column = w_out * conv.stride_w - conv.pad_left + phase * conv.dilation_w
        first, taps = 0, (conv.k_w - phase + conv.hop - 1) // conv.hop
        if conv.kernel == 0:
            first = max(0, 1 - height - column // conv.step)
            taps = max(0, min(taps, (conv.w_in - 1 - column) // conv.step + 1) - first)
        column += first * conv.step
        begin = (-column + conv.step - 1) // conv.step
        end = (conv.w_in - column + conv.step - 1) // conv.step
        if call.bordered == 0:
            # whatever reads a strip, or stretches inside of the image, finds every position there
            begin, end = 0, INSIDE
        record = runs + phase * 8 * RUN
        for k_h in range(conv.k_h):
            place = (turn + k_h * conv.dilation_h) % ring * row + (column - first_column) * pixel
            for i in range(call.slices):
                tap = ((call.front + i) * conv.k_h + k_h) * conv.k_w + phase + first * conv.hop
                put(record, 0, place + i * depth)
                put(record, 1, tap * conv.c_in * PANEL_ROW)
                put(record, 2, taps)
                put(record, 3, long_pieces(conv, taps))
                put(record, 4, begin)
                put(record, 5, end)
                record += conv.phases * 8 * RUN


@njit
def columns_under(conv, number):
    """The input columns, first and beyond the last, that stretch `number` reads; those outside of the input are padding."""
    w_out, height = stretch_across(conv, number)
    reach = max(height - 1, 0) * conv.out_step * conv.stride_w
    first = w_out * conv.stride_w - conv.pad_left
    last = first + reach + (conv.k_w - 1) * conv.dilation_w + 1
    if conv.kernel == 0:
        # taps that meet no column of the input are left out
        return max(first, -reach), min(last, conv.w_in + reach)
    return first, last


@njit
def begin_slide(conv, address):
    """Fill in what the calls of one convolution have in common."""
    call = slide_record(address)
    call.weight = conv.hop * conv.c_in * PANEL_ROW
    call.channels = conv.c_in
    call.stride_h = conv.stride_h
    call.dilation_h = conv.dilation_h
    call.h_in = conv.h_in
    if conv.stretch > conv.pixels:
        # tiles of a signal stand for lines, none of which lies in padding
        call.stride_h, call.h_in = 1, conv.w_out
    call.k_h = conv.k_h
    call.panel_bytes = conv.panel_bytes
    call.c_line = conv.line_step * conv.out_pixel
    call.c_pitch = conv.out_step * conv.column_step * conv.out_pixel
    call.residual_line = conv.line_step * conv.residual_pixel
    call.residual_pitch = conv.out_step * conv.column_step * conv.residual_pixel
    call.activation = conv.activation
    call.runs_made = 0


@njit
def begin_slice(conv, address, d_out):
    """Let the next calls compute output slice `d_out`; returns the first input slice that they read."""
    call = slide_record(address)
    d = d_out * conv.stride_d - conv.pad_front
    front = max(0, (conv.dilation_d - 1 - d) // conv.dilation_d)
    call.front = front
    call.slices = max(0, min(conv.k_d, (conv.d_in - 1 - d) // conv.dilation_d + 1) - front)
    call.runs_per_row = call.slices * conv.phases
    return d + front * conv.dilation_d


@njit
def slide_panels(conv, address, first, last):
    """Let the next calls compute panels `first`..`last`."""
    call = slide_record(address)
    lanes = PANEL_ROW // conv.itemsize
    call.panels = conv.panels + first * conv.panel_bytes
    call.panel_count = last - first
    call.expansions = conv.tables + first * NV * EXPANSION_BYTES
    call.columns = min(conv.c_out, last * lanes) - first * lanes
    call.bias = conv.bias + first * PANEL_ROW


@njit
def slide(
    conv, address, w_out, height, line, lines, panel, a, row, pixel, runs, out_image, residual_image, alpha, beta
):
    """Compute the `height` outputs from column `w_out` of `lines` lines from number `line` of one image, from panel number
    `panel` on.

    `a` is where input row 0 is or would be; rows lie `row` bytes apart, columns `pixel`.  More outputs than a tile has are those
    of a signal, whose tiles share their runs and follow one another as lines of an image do.
    """
    call = slide_record(address)
    at, column = line * conv.line_step + w_out * conv.column_step, panel * PANEL_ROW
    call.position = conv.step * pixel
    call.lines = lines
    call.height = height
    call.h = line * conv.stride_h - conv.pad_top
    call.a = a + call.h * row
    call.a_line = conv.stride_h * row
    call.runs = runs
    call.c = out_image + at * conv.out_pixel + column
    call.residual = 0 if residual_image == 0 else residual_image + at * conv.residual_pixel + column
    rest = 0
    if height > conv.pixels:
        tiles = (height + conv.pixels - 1) // conv.pixels
        call.height = (height + tiles - 1) // tiles
        call.lines, rest = divmod(height, call.height)
        outputs = call.height * conv.out_step
        call.a_line = outputs * conv.stride_w * pixel
        call.c_line = outputs * conv.column_step * conv.out_pixel
        call.residual_line = outputs * conv.column_step * conv.residual_pixel
    if height > 0:
        call_core(conv.core, address, alpha, beta)
    if rest > 0:
        call.a += call.lines * call.a_line
        call.c += call.lines * call.c_line
        call.residual = 0 if residual_image == 0 else call.residual + call.lines * call.residual_line
        call.lines = 1
        call.height = rest
        call_core(conv.core, address, alpha, beta)
