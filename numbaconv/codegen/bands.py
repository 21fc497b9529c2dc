"""Matrix tiles for kernels that one channel has to itself: a row of the kernel is a banded matrix, from pixels to results.

    y[r, j] = sum_e x[r, e] w[e - stride j]

Each diagonal of it is one weight, so that a row of the right operand is the one above, moved by two elements: it is read from the
kernel's row alone, backwards, at addresses that fall (a Toeplitz matrix).  Names are like `f32_fp16x3_bands_4x1_amx`.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.amx import (
    COLUMNS,
    LEFT,
    ROW_BYTES,
    SUMS,
    TALL,
    Tiles,
    abreast_products,
    square_products,
    tall_products,
)
from numbaconv.codegen.halves import halves
from numbaconv.codegen.vector import BYTES, I64, Vectors, branch_to, counted_loop, i64, load_i64, offset

#: Bytes of a pair of weights, which every column moves by one.
PAIR_BYTES = 4
#: Bytes of a tap: where it reads the left operand, and the right one.
TAP_BYTES = 16

#: Types of `x, apart, step, low, taps, n_taps, bands, bands_apart, bands_step, bands_low, sums, height`.
_ARGUMENTS = [BYTES, I64, I64, I64, BYTES, I64, BYTES, I64, I64, I64, BYTES, I64]


def _emit(module, rows: int, columns: int, members: int) -> ir.Function:
    """See `band_tile`; so many rows and columns of one channel, or a register of each of several."""
    name = f"f32_{halves().name}x3_bands_{f'{members}x' if members > 1 else ''}{rows}x{columns}_amx"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _ARGUMENTS), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    x, apart, step, low, taps, n_taps, bands, bands_apart, bands_step, bands_low, sums, height = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    tiles = Tiles(Vectors(b, 4, COLUMNS))
    cells = [(i, j, SUMS[columns * i + j]) for i in range(rows * members) for j in range(columns)]

    def one_tap(tap, _):
        here = offset(b, taps, b.mul(tap, i64(TAP_BYTES)))
        left, right = load_i64(b, here, 0), load_i64(b, here, 1)

        def pixels(number, part):
            return offset(b, x, b.add(left, b.add(b.mul(apart, i64(number)), part))), step

        def weights(number, part):
            beside = b.mul(bands_apart, i64(number)) if members > 1 else i64(number * COLUMNS * PAIR_BYTES)
            return offset(b, bands, b.add(right, b.add(beside, b.mul(bands_low, i64(part))))), bands_step

        if members > 1:
            abreast_products(tiles, members, pixels, weights, low)
        elif rows > len(LEFT):
            tall_products(tiles, rows, pixels, weights, low)
        else:
            square_products(tiles, rows, columns, False, pixels, weights, low)
        return []

    for _, _, cell in cells:
        tiles.clear(cell)
    counted_loop(b, i64(0), n_taps, 1, [], one_tap, "tap")
    for i, j, cell in cells:
        at = b.add(b.mul(height, i64(2 * i * ROW_BYTES)), i64(j * ROW_BYTES))
        tiles.store(cell, offset(b, sums, at), i64(2 * ROW_BYTES))
    b.ret_void()
    return function


@intrinsic
def band_tile(
    typingctx,
    rows,
    columns,
    members,
    x,
    apart,
    step,
    low,
    taps,
    n_taps,
    bands,
    bands_apart,
    bands_step,
    bands_low,
    sums,
    height,
):
    """Sums of one or two registers of rows by one or two of columns, of up to `TALL` by one, or of one of each of `TALL` members,
    to `sums`: rows of 32 float32, `height` of each register or member after those of the one before.

    Row r of register i is at `x` + i `apart` + r `step` plus the left distance of a tap, its low parts `low` bytes after it; row r
    of the right operand at `bands` + r `bands_step` plus the right distance, its low parts `bands_low` bytes after it.  Members lie
    `apart` and `bands_apart` bytes apart.
    """

    def codegen(context, builder, signature, arguments):
        rows, columns, members, *rest = arguments
        operands = [builder.inttoptr(x, t) if t is BYTES else x for x, t in zip(rest, _ARGUMENTS)]

        def case(i, j, members=1):
            def call():
                builder.call(_emit(builder.module, i, j, members), operands)

            return call

        number = builder.add(builder.mul(builder.sub(rows, i64(1)), i64(2)), builder.sub(columns, i64(1)))
        cases = [case(i, j if i <= len(LEFT) else 1) for i in range(1, TALL + 1) for j in (1, 2)]
        number = builder.select(builder.icmp_signed(">", members, i64(1)), i64(len(cases)), number)
        branch_to(builder, number, [*cases, case(1, 1, TALL)])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 15), codegen


def _emit_pairs(module) -> ir.Function:
    """void(to, to_step, halves, halves_step, rows, count): see `pair_rows`."""
    name = "pairs_of_halves"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [BYTES, I64, BYTES, I64, I64, I64]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to, to_step, source, source_step, rows, count = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, COLUMNS)
    whole = b.and_(count, i64(-COLUMNS))
    mask = v.first_lanes(b.sub(count, whole))
    words = ir.VectorType(ir.IntType(16), COLUMNS)

    def pairs(source, i):
        at = offset(b, source, b.mul(i, i64(2)))
        first, second = (
            b.zext(b.load(b.bitcast(place, words.as_pointer()), align=2), v.integer)
            for place in (offset(b, at, i64(2)), at)
        )
        return b.bitcast(b.or_(first, b.shl(second, v.integers(16))), v.type)

    def one_row(_, places):
        to, source = places

        def vector(i, _):
            v.store(pairs(source, i), offset(b, to, b.mul(i, i64(PAIR_BYTES))))
            return []

        counted_loop(b, i64(0), whole, COLUMNS, [], vector, "vector")
        v.masked_store(pairs(source, whole), offset(b, to, b.mul(whole, i64(PAIR_BYTES))), mask)
        return [offset(b, to, to_step), offset(b, source, source_step)]

    counted_loop(b, i64(0), rows, 1, [to, source], one_row, "row")
    b.ret_void()
    return function


@intrinsic
def pair_rows(typingctx, to, to_step, halves, halves_step, rows, count):
    """`count` pairs a row of neighbouring halves, the second one first, to rows `to_step` bytes apart.

    After each row of halves, which lie `halves_step` bytes apart, up to 32 more bytes are read.
    """

    def codegen(context, builder, signature, arguments):
        to, to_step, halves, *rest = arguments
        operands = [builder.inttoptr(to, BYTES), to_step, builder.inttoptr(halves, BYTES), *rest]
        builder.call(_emit_pairs(builder.module), operands)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 6), codegen
