"""Products of two operands lane by lane, summed over pixels: the gradient of kernels that have their channels to themselves.

A tile holds the sums of a few taps by a few vectors of channels in registers while the pixels pass by, so that each pixel of the
second operand is loaded once for all of them.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I64, Vectors, branch_to, counted_loop, i64, load_i64, offset


def _emit(module, like: Vectors, rows: int, vectors: int) -> ir.Function:
    """void(c, its pitch, columns, x, offsets, its two steps, y, its two steps, lines, pixels) for a tile of a fixed size."""
    name = f"numbaconv_lanewise_{rows}x{vectors}_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    kind = [BYTES, I64, I64, BYTES, BYTES, I64, I64, BYTES, *[I64] * 4]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), kind), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    c, c_pitch, columns, x, offsets, x_line, x_pixel, y, y_line, y_pixel, lines, pixels = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes, like.fused)
    distances = [load_i64(b, offsets, row) for row in range(rows)]
    places = [i64(j * v.nbytes) for j in range(vectors)]

    def pixel(_, carried):
        x, y, *sums = carried
        factors = [v.load(offset(b, y, place)) for place in places]
        new = []
        for row, distance in enumerate(distances):
            here = offset(b, x, distance)
            for j, place in enumerate(places):
                new.append(v.fma(v.load(offset(b, here, place)), factors[j], sums[row * vectors + j]))
        return [offset(b, x, x_pixel), offset(b, y, y_pixel), *new]

    def line(_, carried):
        x, y, *sums = carried
        _, _, *sums = counted_loop(b, i64(0), pixels, 1, [x, y, *sums], pixel, "pixel")
        return [offset(b, x, x_line), offset(b, y, y_line), *sums]

    first = [v.constant(0.0)] * (rows * vectors)
    _, _, *sums = counted_loop(b, i64(0), lines, 1, [x, y, *first], line, "line")
    masks = [v.first_lanes(b.sub(columns, i64(j * v.lanes))) for j in range(vectors)]
    for row in range(rows):
        for j, (place, mask) in enumerate(zip(places, masks)):
            to = offset(b, offset(b, c, b.mul(c_pitch, i64(row))), place)
            v.masked_store(b.fadd(v.masked_load(to, mask), sums[row * vectors + j]), to, mask)
    b.ret_void()
    return function


@intrinsic(prefer_literal=True)
def add_lanewise(
    typingctx,
    tallest,
    widest,
    rows,
    vectors,
    c,
    c_pitch,
    columns,
    x,
    offsets,
    x_line,
    x_pixel,
    y,
    y_line,
    y_pixel,
    lines,
    pixels,
    like,
):
    """c[row, lane] += sum over lines and pixels of x[line, pixel, offset of the row][lane] * y[line, pixel][lane].

    `tallest` and `widest` are literals, the largest `rows` and `vectors`; `offsets` is the address of one distance in bytes a row.
    Vectors of x and y are read whole, of c the first `columns` lanes of the tile are added to.
    """
    if not (isinstance(tallest, types.IntegerLiteral) and isinstance(widest, types.IntegerLiteral)):
        return None

    def codegen(context, builder, signature, arguments):
        rows, vectors, c, c_pitch, columns, x, offsets, x_line, x_pixel, y, *rest, _ = arguments[2:]
        size = like.bitwidth // 8
        v = Vectors(builder, size, target().lanes(size), target().fma)
        c, x, offsets, y = (builder.inttoptr(value, BYTES) for value in (c, x, offsets, y))
        converted = [c, c_pitch, columns, x, offsets, x_line, x_pixel, y, *rest]
        height = tallest.literal_value
        cases = [
            lambda m=m, n=n: builder.call(_emit(builder.module, v, m, n), converted)
            for n in range(1, widest.literal_value + 1)
            for m in range(1, height + 1)
        ]
        number = builder.add(builder.mul(builder.sub(vectors, i64(1)), i64(height)), builder.sub(rows, i64(1)))
        branch_to(builder, number, cases)
        return context.get_dummy_value()

    return types.void(tallest, widest, *(types.intp,) * 14, like), codegen
