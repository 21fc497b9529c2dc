"""Matrix tiles: 2 x 2 blocks of 16 x 16 sums in AMX's tile registers, each product of two float32 made of three of their halves.

    a b = (a_high + a_low) (b_high + b_low) ~ a_high b_low + a_high b_high + a_low b_high

added up in float32; see `codegen.halves` for high and low parts (Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial
Intelligence Datatype For Higher-Precision Computations", 2019).  One instruction multiplies 16 rows of 32 elements by 16 columns
in 16 cycles, so three do in 48 what takes fused multiply-adds 256.

Functions are named like `f32_fp16x3_2x2_amx`: the tile registers of rows and of columns.  In `f32_fp16x3_planes_2x2_amx` the rows
are weights.  Where one register takes all columns, four of rows keep as many sums: a product's are there after 52 cycles.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.halves import halves
from numbaconv.codegen.memory import LINE
from numbaconv.codegen.vector import BYTES, I8, I64, Vectors, branch_to, counted_loop, i64, load_i64, offset

#: Rows of a tile register at most; columns of sums, and elements of K in pairs.
ROWS, COLUMNS, PAIRS = 16, 16, 16
#: Elements of K that one instruction adds up; bytes of a row of a register.
DEPTH, ROW_BYTES = 2 * PAIRS, 64
#: Bytes of packed weights that one step reads: two registers of high parts, two of low ones.
STEP_BYTES = 4 * ROWS * ROW_BYTES
#: Bytes of a tile configuration.
CONFIG_BYTES = 64

# which registers hold what
SUMS, LEFT, RIGHT = (0, 1, 2, 3), (4, 5), (6, 7)


#: Registers of rows beside one of columns.
TALL = len(SUMS)
#: Bytes of the sums of the largest tile: two registers' columns lie side by side.
SUMS_BYTES = TALL * ROWS * 2 * ROW_BYTES

#: Types of `x, apart, step, low, taps, n_taps, panel, sums, height, ask, lines, carried`.
_ARGUMENTS = [BYTES, I64, I64, I64, BYTES, I64, BYTES, BYTES, I64, BYTES, I64, I64]


def configuration(rows: int) -> bytes:
    """What `configure` reads: registers of sums and of the left operand have so many rows."""
    rows_of = [rows] * 6 + [PAIRS] * 2
    columns = b"".join(ROW_BYTES.to_bytes(2, "little") for _ in rows_of)
    return bytes([1, *[0] * 15]) + columns.ljust(32, b"\0") + bytes(rows_of).ljust(16, b"\0")


def _register(number: int) -> ir.Constant:
    return ir.Constant(I8, number)


class Tiles:
    """Instructions on tile registers."""

    def __init__(self, v: Vectors):
        self.v = v

    def clear(self, register: int) -> None:
        self.v.call("llvm.x86.tilezero", ir.VoidType(), _register(register))

    def load(self, register: int, pointer, step) -> None:
        self.v.call("llvm.x86.tileloadd64", ir.VoidType(), _register(register), pointer, step)

    def store(self, register: int, pointer, step) -> None:
        self.v.call("llvm.x86.tilestored64", ir.VoidType(), _register(register), pointer, step)

    def multiply(self, sums: int, left: int, right: int) -> None:
        self.v.call(halves().product, ir.VoidType(), *map(_register, (sums, left, right)))


def _emit(module, rows: int, columns: int, planes: bool) -> ir.Function:
    """void(x, apart, step, low, taps, n_taps, panel, sums, height, ask, lines, carried): see `matrix_tile` and the other one."""
    name = f"f32_{halves().name}x3_{'planes_' if planes else ''}{rows}x{columns}_amx"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _ARGUMENTS), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    x, apart, step, low, taps, n_taps, panel, sums, height, ask, lines, carried = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, COLUMNS)
    tiles = Tiles(v)
    cells = [(i, j, SUMS[columns * i + j]) for i in range(rows) for j in range(columns)]

    def ask_line(_, at):
        v.prefetch(*at, near=False)
        return [offset(b, *at, i64(LINE))]

    def one_tap(tap, places):
        here, asked = places
        distance = load_i64(b, offset(b, taps, b.mul(tap, i64(8))))

        def pixels(number, part):
            return offset(b, x, b.add(distance, b.add(b.mul(apart, i64(number)), part))), step

        def weights(number, part):
            return offset(b, here, i64((2 * part + number) * ROWS * ROW_BYTES)), i64(ROW_BYTES)

        if rows > len(LEFT):
            tall_products(tiles, rows, pixels, weights, low)
        else:
            square_products(tiles, rows, columns, planes, pixels, weights, low)
        return [offset(b, here, i64(STEP_BYTES)), *counted_loop(b, i64(0), lines, 1, [asked], ask_line, "ask")]

    def each_cell(move):
        for i, j, cell in cells:
            at = b.add(b.mul(height, i64(2 * i * ROW_BYTES)), i64(j * ROW_BYTES))
            move(cell, offset(b, sums, at), i64(2 * ROW_BYTES))

    with b.if_else(b.icmp_signed("!=", carried, i64(0))) as (then, otherwise):
        with then:
            each_cell(tiles.load)
        with otherwise:
            for _, _, cell in cells:
                tiles.clear(cell)
    counted_loop(b, i64(0), n_taps, 1, [panel, ask], one_tap, "tap")
    each_cell(tiles.store)
    b.ret_void()
    return function


def square_products(tiles: Tiles, rows: int, columns: int, planes: bool, pixels, weights, low) -> None:
    """Of up to two registers of rows by two of columns: small products first, each operand is loaded once."""
    left, right = LEFT[:rows], RIGHT[:columns]
    inputs, panels = (right, left) if planes else (left, right)

    def products(coming: dict[int, tuple]):
        """All products, and after the last one with a register what is coming into it: address and pitch."""

        def load(register):
            if register in coming:
                tiles.load(register, *coming[register])

        for i, row in enumerate(left):
            for j, column in enumerate(right):
                tiles.multiply(SUMS[columns * i + j], row, column)
                if i + 1 == rows:
                    load(column)
            load(row)

    def input_parts(part):
        return {register: pixels(number, part) for number, register in enumerate(inputs)}

    def panel_parts(part):
        return {register: weights(number, part) for number, register in enumerate(panels)}

    for register, place in (input_parts(i64(0)) | panel_parts(1)).items():
        tiles.load(register, *place)
    products(panel_parts(0))
    products(input_parts(low))
    products({})


def tall_products(tiles: Tiles, rows: int, pixels, weights, low) -> None:
    """Of more than two registers of rows by one of columns, whose parts have a register each: rows two at a time."""
    high_weights, low_weights = RIGHT
    tiles.load(low_weights, *weights(0, 1))
    tiles.load(high_weights, *weights(0, 0))
    for first in range(0, rows, len(LEFT)):
        cells = list(zip(range(first, rows), LEFT))
        for part, rights in ((i64(0), (low_weights, high_weights)), (low, (high_weights,))):
            for number, left in cells:
                tiles.load(left, *pixels(number, part))
            for right in rights:
                for number, left in cells:
                    tiles.multiply(SUMS[number], left, right)


def abreast_products(tiles: Tiles, members: int, pixels, weights, low) -> None:
    """The same of so many products of one register by one, two at a time."""
    for first in range(0, members, len(LEFT)):
        cells = list(zip(range(first, members), LEFT, RIGHT))

        def multiply(cells=cells):
            for number, left, right in cells:
                tiles.multiply(SUMS[number], left, right)

        for number, left, right in cells:
            tiles.load(left, *pixels(number, i64(0)))
            tiles.load(right, *weights(number, 1))
        multiply()
        for number, _, right in cells:
            tiles.load(right, *weights(number, 0))
        multiply()
        for number, left, _ in cells:
            tiles.load(left, *pixels(number, low))
        multiply()


def _call(builder, arguments, planes: bool) -> None:
    """Call the function for so many registers of rows and of columns."""
    rows, columns, *rest = arguments
    operands = [builder.inttoptr(x, t) if t is BYTES else x for x, t in zip(rest, _ARGUMENTS)]

    def case(i, j):
        def call():
            builder.call(_emit(builder.module, i, j, planes), operands)

        return call

    number = builder.add(builder.mul(builder.sub(rows, i64(1)), i64(2)), builder.sub(columns, i64(1)))
    cases = [case(i, j) for i in (1, 2) for j in (1, 2)]
    if not planes:
        # two columns have no more than two rows
        cases += [case(rows, 1) for rows in range(len(LEFT) + 1, TALL + 1) for _ in range(2)]
    branch_to(builder, number, cases)


@intrinsic
def matrix_tile(typingctx, rows, columns, x, apart, step, low, taps, n_taps, panel, sums, height, ask, lines, carried):
    """Sums of one or two registers of rows by one or two of columns, or of up to `TALL` by one, to `sums`: rows of 32 float32,
    `height` of each register after those of the one before.

    Row r of register i is at `x` + i `apart` + r `step` plus the byte offset of a tap, its low parts `low` bytes after it; `n_taps`
    offsets lie at `taps`.  The panel has `STEP_BYTES` a tap, see `loops.split_panels`.  With each tap `lines` cache lines are asked
    for, from address `ask` on.  Sums that are `carried` start from what is there.
    """

    def codegen(context, builder, signature, arguments):
        _call(builder, arguments, planes=False)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 14), codegen


@intrinsic
def matrix_tile_of_planes(
    typingctx, rows, columns, x, apart, step, low, taps, n_taps, panel, sums, height, ask, lines, carried
):
    """The same with the weights for rows and the input for columns: pair r of elements of K of 16 neighbouring positions is at
    `x` + j `apart` + r `step` plus a tap's offset.
    """

    def codegen(context, builder, signature, arguments):
        _call(builder, arguments, planes=True)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 14), codegen


@intrinsic
def configure(typingctx, address):
    """Give this thread's tile registers their shapes; see `configuration`."""

    def codegen(context, builder, signature, arguments):
        Vectors(builder, 4, COLUMNS).call("llvm.x86.ldtilecfg", ir.VoidType(), builder.inttoptr(arguments[0], BYTES))
        return context.get_dummy_value()

    return types.void(types.intp), codegen


@intrinsic
def release(typingctx):
    """Leave the tile registers: a thread that holds none is switched faster."""

    def codegen(context, builder, signature, arguments):
        Vectors(builder, 4, COLUMNS).call("llvm.x86.tilerelease", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), codegen
