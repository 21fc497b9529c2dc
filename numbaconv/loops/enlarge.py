"""Images enlarged: whole, or only in the patches of a blocked im2col.

What a row or column of the large image takes of the small one stands in a table, one record a position.
"""

from __future__ import annotations

from numbaconv.codegen.jit import NativeFunction, njit
from numbaconv.codegen.memory import element, get, itemsize
from numbaconv.codegen.records import conv_record, enlarge_record, pack_record
from numbaconv.codegen.weighted import weighted_rows
from numbaconv.loops.gemm import tile_start
from numbaconv.loops.sampling import NUMBERS, add_pixel
from numbaconv.loops.walk import share

#: Bytes of a record: numbers of two neighbours, and the share of the second in float64.
PLACE_BYTES = 24


@njit
def pixels_at(rows, columns, h, w, w_in, spare, like):
    """Pixel numbers and weights of what the large image has at (h, w); returns how many there are."""
    rows += h * PLACE_BYTES
    columns += w * PLACE_BYTES
    top, bottom, down = get(rows, 0) * w_in, get(rows, 1) * w_in, element(rows + 16, 0.0)
    left, right, across = get(columns, 0), get(columns, 1), element(columns + 16, 0.0)
    entries = add_pixel(spare, 0, top + left, (1.0 - down) * (1.0 - across), like)
    entries = add_pixel(spare, entries, top + right, (1.0 - down) * across, like)
    entries = add_pixel(spare, entries, bottom + left, down * (1.0 - across), like)
    return add_pixel(spare, entries, bottom + right, down * across, like)


def enlarge_part(part, row_parts, column_parts, record, x, out, residual, workspace, alpha, beta):
    """One thread's share of the rows of the large images.  Workspace: numbers and weights of four neighbours."""
    e = enlarge_record(record)
    pixel = e.channels * itemsize(alpha)
    columns = e.places + e.h_out * PLACE_BYTES
    first, last = share(e.n * e.h_out, part, row_parts * column_parts)
    for number in range(first, last):
        image, h = divmod(number, e.h_out)
        to = out + number * e.w_out * pixel
        for w in range(e.w_out):
            weighted_rows(
                to + w * pixel,
                x + image * e.h_in * e.w_in * pixel,
                pixel,
                workspace,
                workspace + NUMBERS,
                pixels_at(e.places, columns, h, w, e.w_in, workspace, alpha),
                e.channels,
                alpha,
            )


enlarge_share = NativeFunction(enlarge_part, "enlarge_share")


def _enlarged(address, alpha, beta):
    """Pack patches of an enlarged image; height and width of the image stand before the tables in `conv.tables`."""
    pack = pack_record(address)
    conv = conv_record(pack.conv)
    h_in, w_in = get(conv.tables, 0), get(conv.tables, 1)
    rows = conv.tables + PLACE_BYTES
    columns = rows + conv.h_in * PLACE_BYTES
    image = pack.x + (pack.image * h_in * w_in) * conv.x_pixel + pack.group * conv.c_in * conv.itemsize
    to = pack.to
    for pixel in range(tile_start(conv, pack.first), tile_start(conv, pack.first + pack.count)):
        h_out, w_out = divmod(pixel, conv.w_out)
        row, k = to, pack.k_first
        # Tap by tap, as far as this piece of K goes.
        while k < pack.k_last:
            tap, channel = divmod(k, conv.c_in)
            channels = min(conv.c_in - channel, pack.k_last - k)
            k_h, k_w = divmod(tap, conv.k_w)
            h = h_out * conv.stride_h - conv.pad_top + k_h * conv.dilation_h
            w = w_out * conv.stride_w - conv.pad_left + k_w * conv.dilation_w
            entries = 0
            if 0 <= h < conv.h_in and 0 <= w < conv.w_in:
                entries = pixels_at(rows, columns, h, w, w_in, pack.spare, alpha)
            weighted_rows(
                row,
                image + channel * conv.itemsize,
                conv.x_pixel,
                pack.spare,
                pack.spare + NUMBERS,
                entries,
                channels,
                alpha,
            )
            row += channels * conv.itemsize
            k += channels
        to += conv.patch_pitch


enlarged = NativeFunction(_enlarged, "enlarged_samples")
