"""The loop nest of depthwise tiles: columns of tiles walked down the image, in place or over an expanded strip of the input.

A strip holds, for each pixel and each channel of a group, a vector whose lane j is that channel of the group of output channel
j, with zeros where the kernel reaches into padding.  Each input row is expanded once, just before tiles first read it.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.expand import expand
from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import clear, load_lines
from numbaconv.codegen.records import conv_record, slide_record
from numbaconv.codegen.sliding import RUN
from numbaconv.loops.gemm import NV, PANEL_ROW, VECTOR_BYTES
from numbaconv.loops.sliding import (
    EXPANSION_BYTES,
    SLIDE_BYTES,
    begin_slice,
    begin_slide,
    columns_under,
    put_runs,
    slide,
    slide_panels,
    stretch_across,
    stretches_across,
)
from numbaconv.loops.walk import share


@njit
def expand_rows(conv, panel, source, strip, row, rows, first, last, like):
    """Expand columns `first`..`last`, but for padding, of `rows` input rows from `source` on into the strip's rows at `strip`.

    The strip's rows lie `row` bytes apart.
    """
    begin, end = max(first, 0), min(last, conv.w_in)
    lanes = VECTOR_BYTES // conv.itemsize
    vectors = min(NV, (conv.c_out + lanes - 1) // lanes - panel * NV)
    for vector in range(vectors):
        expand(
            strip + (begin - first) * PANEL_ROW + vector * VECTOR_BYTES,
            source + begin * conv.x_pixel,
            rows,
            conv.w_in * conv.x_pixel,
            row,
            end - begin,
            conv.x_pixel,
            PANEL_ROW,
            (last - first) * PANEL_ROW,
            conv.strip_channels,
            conv.tables + (panel * NV + vector) * EXPANSION_BYTES,
            like,
        )


@njit
def clear_padding(conv, strip, rows, first, last, like):
    """Write zeros to the columns of a strip that are padding; expanding never touches them."""
    pixel = PANEL_ROW // conv.itemsize
    for _ in range(rows * conv.k_d * conv.strip_channels):
        if first < 0:
            clear(strip, min(-first, last - first) * pixel, like)
        if last > conv.w_in:
            begin = max(conv.w_in, first)
            clear(strip + (begin - first) * PANEL_ROW, (last - begin) * pixel, like)
        strip += (last - first) * PANEL_ROW


@njit
def never_around(conv):
    """More rows than any kernel reaches over: a ring that is none."""
    return conv.k_h * conv.dilation_h


@njit
def through_strip(
    conv,
    address,
    stretch,
    stretches,
    h_out,
    count,
    first_panel,
    last_panel,
    image,
    out_image,
    residual_image,
    alpha,
    beta,
):
    """`count` lines of a block of panels across `stretches` stretches from number `stretch`.

    Workspace: call and run records, strip.
    """
    call = slide_record(address)
    run_bytes = conv.k_d * conv.k_h * conv.phases * 8 * RUN
    runs = address + SLIDE_BYTES
    # vectors of the strip start on cache lines
    strip = (runs + max(conv.turns, 1) * conv.tile_block * run_bytes + 63) // 64 * 64
    first, last = columns_under(conv, stretch)
    for number in range(stretch + 1, stretch + stretches):
        left, right = columns_under(conv, number)
        first, last = min(first, left), max(last, right)
    # the runs of a strip take the place of those that were made
    call.runs_made = 0
    # what lies in padding is zero, and left out where lanes are channels of the input and a tile has its runs for itself
    call.bordered = int(conv.own_channels != 0 and conv.stretch <= conv.pixels and (first < 0 or last > conv.w_in))
    call.plane = (last - first) * PANEL_ROW
    depth = conv.strip_channels * call.plane
    row = conv.k_d * depth
    ring = conv.ring if conv.turns > 0 else never_around(conv)
    for turn in range(max(conv.turns, 1)):
        for number in range(stretches):
            w_out, height = stretch_across(conv, stretch + number)
            to = runs + (turn * stretches + number) * run_bytes
            put_runs(conv, address, to, w_out, height, first, row, depth, np.int64(PANEL_ROW), turn, ring)
    clear_padding(conv, strip, min(conv.ring, conv.h_in), first, last, alpha)
    # Panels one by one, since each is expanded for itself.
    for panel in range(first_panel, last_panel):
        slide_panels(conv, address, panel, panel + 1)
        # As many lines as a strip that is no ring has rows for: the next one repeats the rows that their kernels share.
        for start in range(h_out, h_out + count, conv.strip_lines):
            stop = min(start + conv.strip_lines, h_out + count)
            h_first = max(start * conv.stride_h - conv.pad_top, 0)
            done = h_first
            # A few lines at a time, so that tiles find the rows just expanded in the L1.
            for line in range(start, stop, conv.walk_lines):
                lines = min(conv.walk_lines, stop - line)
                h_top = line * conv.stride_h - conv.pad_top
                h_end = min(h_top + (lines - 1) * conv.stride_h + (conv.k_h - 1) * conv.dilation_h + 1, conv.h_in)
                h = max(done, h_top)
                # All new rows at once, but for those that a ring wraps around.
                while h < h_end:
                    place = (h - h_first) % conv.ring
                    rows = min(h_end - h, conv.ring - place)
                    # Slices side by side: the kernel's rows of all of them are in a row of the strip.
                    for i in range(call.slices):
                        source = image + (i * conv.dilation_d * conv.h_in + h) * conv.w_in * conv.x_pixel
                        to = strip + place * row + i * depth
                        expand_rows(conv, panel, source, to, row, rows, first, last, alpha)
                    h += rows
                done = max(done, h_end)
                turn, a = 0, strip - h_first * row
                if conv.turns > 0:
                    turn, a = (h_top - h_first) % conv.turns, strip - h_top * row
                # Tiles side by side share the columns between them.
                for number in range(stretches):
                    to = runs + (turn * stretches + number) * run_bytes
                    w_out, height = stretch_across(conv, stretch + number)
                    slide(
                        conv,
                        address,
                        w_out,
                        height,
                        line,
                        lines,
                        panel,
                        a,
                        row,
                        PANEL_ROW,
                        to,
                        out_image,
                        residual_image,
                        alpha,
                        beta,
                    )


@njit
def lines_in_place(conv, address, image, d, h_out, count):
    """How many of `count` lines from number `h_out` on may read the same panels in place, and how many panels these are.

    Tiles read whole vectors.  Where channels do not fill them, the last panel of a pixel ends in the next one, which the tensor's
    last rows do not have.
    """
    if conv.read_in_place == 0:
        return count, 0
    if conv.own_channels == 0 or conv.c_out * conv.itemsize % VECTOR_BYTES == 0:
        return count, conv.panels_per_group
    row = conv.w_in * conv.x_pixel
    last = d + max(slide_record(address).slices - 1, 0) * conv.dilation_d
    room = (conv.n - image) * conv.x_image - last * conv.h_in * row - VECTOR_BYTES
    # rows of the last slice that is read, and the lines whose kernel ends there
    rows = min(room // row, conv.h_in)
    safe = (rows - 1 - (conv.k_h - 1) * conv.dilation_h + conv.pad_top) // conv.stride_h + 1 - h_out
    if rows == conv.h_in:
        safe = count
    if safe > 0:
        return min(count, safe), conv.panels_per_group
    return count, conv.panels_per_group - 1


@njit
def in_place(
    conv, address, number, h_out, count, first_panel, last_panel, image, out_image, residual_image, alpha, beta
):
    """`count` lines of a block of panels across stretch `number`, which skips padding at its sides."""
    runs = address + SLIDE_BYTES
    row = conv.w_in * conv.x_pixel
    w_out, outputs = stretch_across(conv, number)
    first, last = columns_under(conv, number)
    call = slide_record(address)
    call.bordered = int(first < 0 or last > conv.w_in)
    slide_panels(conv, address, first_panel, last_panel)
    # where panels of groups find their channels the expansions tell
    a = image + conv.own_channels * first_panel * PANEL_ROW
    # All at once, unless the runs have to say which positions of each tile are padding.
    most = conv.pixels if call.bordered != 0 else conv.stretch
    for done in range(0, outputs, most):
        column, height = w_out + done * conv.out_step, min(most, outputs - done)
        # The same runs serve all panels, and nearly all slices.
        made = 1 + (column * conv.k_d + call.front) * (conv.k_d + 1) + call.slices
        if call.runs_made != made:
            call.runs_made = made
            put_runs(
                conv,
                address,
                runs,
                column,
                height,
                np.int64(0),
                row,
                conv.dilation_d * conv.h_in * row,
                conv.x_pixel,
                np.int64(0),
                conv.h_in + conv.k_h * conv.dilation_h,
            )
        slide(
            conv,
            address,
            column,
            height,
            h_out,
            count,
            first_panel,
            a,
            row,
            conv.x_pixel,
            runs,
            out_image,
            residual_image,
            alpha,
            beta,
        )


@njit
def load_in_order(conv, x, out, residual, d_out, h_out, count, fresh):
    """Load what `count` lines of an output slice of an image are the first to read, and where their results go.

    Of short runs of many rows, which tiles read, hardware does not see the next ones coming; of long ones it does.  All slices of
    the kernel are `fresh`, or those that the output slice before did not read.
    """
    top = h_out * conv.stride_h - conv.pad_top
    first = max(top, 0)
    last = min(top + (count - 1) * conv.stride_h + (conv.k_h - 1) * conv.dilation_h + 1, conv.h_in)
    new = conv.k_d if fresh else min(conv.k_d, (conv.stride_d + conv.dilation_d - 1) // conv.dilation_d)
    # up to the last pixel, behind which there may be nothing
    pixels, rows = count * conv.w_out - 1, (last - first) * conv.w_in - 1
    for k in range(conv.k_d - new, conv.k_d):
        d = d_out * conv.stride_d - conv.pad_front + k * conv.dilation_d
        if 0 <= d < conv.d_in:
            load_lines(x + (d * conv.h_in + first) * conv.w_in * conv.x_pixel, rows * conv.x_pixel)
    if conv.column_step == 1:
        at = d_out * conv.slice_step + h_out * conv.line_step
        load_lines(out + at * conv.out_pixel, pixels * conv.out_pixel)
        if residual != 0:
            load_lines(residual + at * conv.residual_pixel, pixels * conv.residual_pixel)


@njit
def slice_lines(conv, workspace, image, d_out, h_out, count, panel, panel_end, x, out, residual, alpha, beta):
    """`count` lines of one slice of an image, for a block of panels, by stretches across."""
    d = begin_slice(conv, workspace, d_out)
    x_image = x + image * conv.x_image + d * conv.h_in * conv.w_in * conv.x_pixel
    pixel = image * conv.image_step + d_out * conv.slice_step
    out_image = out + pixel * conv.out_pixel
    residual_image = 0 if residual == 0 else residual + pixel * conv.residual_pixel
    across = stretches_across(conv)
    stop = h_out + count
    while h_out < stop:
        count, panels_in_place = lines_in_place(conv, workspace, image, d, h_out, stop - h_out)
        for stretch in range(0, across, conv.tile_block):
            first, last = columns_under(conv, stretch)
            start = panel
            inside = first >= 0 and last <= conv.w_in
            if (inside or conv.bordered != 0) and panel < panels_in_place:
                start = min(panel_end, panels_in_place)
                in_place(
                    conv,
                    workspace,
                    stretch,
                    h_out,
                    count,
                    panel,
                    start,
                    x_image,
                    out_image,
                    residual_image,
                    alpha,
                    beta,
                )
            if start < panel_end:
                through_strip(
                    conv,
                    workspace,
                    stretch,
                    min(conv.tile_block, across - stretch),
                    h_out,
                    count,
                    start,
                    panel_end,
                    x_image,
                    out_image,
                    residual_image,
                    alpha,
                    beta,
                )
        h_out += count


@njit
def grouped_part(part, row_parts, column_parts, conv_address, x, out, residual, workspace, alpha, beta):
    """One thread's share.  Workspace: a call record, run records of a block of tiles, a strip."""
    conv = conv_record(conv_address)
    first_line, last_line = share(conv.n * conv.d_out * conv.h_out, part // column_parts, row_parts)
    first_panel, last_panel = share(conv.panels_per_group, part % column_parts, column_parts)
    begin_slide(conv, workspace)
    line = first_line
    # Blocks of lines outside: the kernel's slices, so many lines high, stay in the L2 from slice to slice.
    while line < last_line:
        image, number = divmod(line, conv.d_out * conv.h_out)
        h_first = number // (conv.d_out * conv.line_block) * conv.line_block
        height = min(conv.line_block, conv.h_out - h_first)
        begin = line - (number - conv.d_out * h_first)
        end = min(begin + conv.d_out * height, last_line)
        # Lines of one slice at a time.
        while line < end:
            d_out, h = divmod(line - begin, height)
            count = min(end - line, height - h)
            if conv.fetch != 0 and last_panel - first_panel == conv.panels_per_group:
                pixel = image * conv.image_step
                load_in_order(
                    conv,
                    x + image * conv.x_image,
                    out + pixel * conv.out_pixel,
                    0 if residual == 0 else residual + pixel * conv.residual_pixel,
                    d_out,
                    h_first + h,
                    count,
                    line == begin or line == first_line,
                )
            # Blocks of channels inside: the kernel's rows, one block of tiles wide, stay in the L1 on the way down.
            for panel in range(first_panel, last_panel, conv.column_block):
                slice_lines(
                    conv,
                    workspace,
                    image,
                    d_out,
                    h_first + h,
                    count,
                    panel,
                    min(panel + conv.column_block, last_panel),
                    x,
                    out,
                    residual,
                    alpha,
                    beta,
                )
            line += count


grouped_share = NativeFunction(grouped_part.py_func, "grouped_share")
