"""A 1x1, a depthwise and a 1x1 convolution in turns on strips of rows, so that what lies between them never leaves the cache.

Each of the three is the loop nest that runs it alone, on a few rows.  The rows that neighbouring strips share are expanded once.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import call_share, copy, element
from numbaconv.codegen.records import bottleneck_record, conv_record
from numbaconv.loops.gemm import MR
from numbaconv.loops.walk import copy_record, share


@njit
def pointwise(function, record, pixels, x, out, residual, workspace, scalars, like):
    """The 1x1 convolution of a record, in which the strip's length is filled in: on so many pixels in a row."""
    conv = conv_record(record)
    conv.line = pixels
    conv.tiles_per_line = (pixels + MR - 1) // MR
    alpha, beta = element(scalars, like), element(scalars + conv.itemsize, like)
    call_share(function, 0, 1, 1, record, x, out, residual, workspace, alpha, beta)


@njit
def rows_under(b, start, stop):
    """The input rows, first and beyond the last, that rows `start`..`stop` of the depthwise result read."""
    first = start * b.stride_h - b.pad_top
    last = (stop - 1) * b.stride_h - b.pad_top + b.extent_h
    first = min(max(first, 0), b.h_in)
    return first, max(min(last, b.h_in), first)


@njit
def expand_rows(b, workspace, x_image, kept, first, last, scalars, size, like):
    """Put rows `first`..`last` of the first convolution's result at the start of their buffer.

    It starts with rows from number `kept[0]` up to `kept[1]`; those that are needed again are moved.
    """
    buffer = workspace + b.at_expanded
    base, end = kept
    done = min(max(end, first), last)
    if first > base and done > first:
        count = (done - first) * b.expanded_row // size
        copy(buffer, buffer + (first - base) * b.expanded_row, count, like)
    if last > done:
        pointwise(
            b.expand_function,
            workspace + b.at_expand,
            (last - done) * b.w_in,
            x_image + done * b.x_row,
            buffer + (done - first) * b.expanded_row,
            0,
            workspace + b.at_inner,
            scalars,
            like,
        )


def bottleneck_part(part, row_parts, column_parts, record, x, out, residual, workspace, alpha, beta):
    """One thread's share: strips, counted over all images.  Workspace: two records, that of the three, their results."""
    b = bottleneck_record(record)
    size = conv_record(b.depthwise).itemsize
    deep = workspace + b.at_deep
    copy_record(b.project, workspace + b.at_project)
    project = conv_record(workspace + b.at_project)
    project.streamed, project.far_results = b.streamed, b.far_results
    if b.expand != 0:
        copy_record(b.expand, workspace + b.at_expand)
    strips = b.n * b.strips
    first_strip, last_strip = share(strips, part, row_parts)
    kept = 0, 0
    for number in range(first_strip, last_strip):
        image, strip = divmod(number, b.strips)
        start, stop = share(b.h_out, strip, b.strips)
        source = x
        if b.expand != 0:
            if strip == 0:
                kept = 0, 0
            first, last = rows_under(b, start, stop)
            expand_rows(b, workspace, x + image * b.x_image, kept, first, last, b.scalars, size, alpha)
            kept = first, last
            # where row 0 of image 0 would be
            source = workspace + b.at_expanded - (image * b.h_in + first) * b.expanded_row
        call_share(
            b.depthwise_function,
            number,
            strips,
            1,
            b.depthwise,
            source,
            deep - (image * b.h_out + start) * b.deep_row,
            0,
            workspace + b.at_inner,
            element(b.scalars + 2 * size, alpha),
            element(b.scalars + 3 * size, alpha),
        )
        row = image * b.h_out + start
        pointwise(
            b.project_function,
            workspace + b.at_project,
            (stop - start) * b.w_out,
            deep,
            out + row * b.out_row,
            0 if residual == 0 else residual + row * b.residual_row,
            workspace + b.at_inner,
            b.scalars + 4 * size,
            alpha,
        )


bottleneck_share = NativeFunction(bottleneck_part, "bottleneck_share")
