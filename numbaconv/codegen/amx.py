"""Matrix tiles: 2 x 2 blocks of 16 x 16 sums in AMX's tile registers, each product of two float32 made of three of bfloat16.

    a b = (a_high + a_low) (b_high + b_low) ~ a_high b_low + a_high b_high + a_low b_high

where a_high is a rounded to bfloat16 and a_low what is left of it, rounded again: 16 bits of each operand, added up in float32
(Henry, Tang and Heinecke, "Leveraging the bfloat16 Artificial Intelligence Datatype For Higher-Precision Computations", 2019).
One instruction multiplies 16 rows of 32 elements by 16 columns in 16 cycles, so three do in 48 what takes fused multiply-adds 256.

Functions are named like `f32_bf16x3_2x2_amx`: the tile registers of rows and of columns.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.memory import LINE
from numbaconv.codegen.vector import BYTES, I8, I64, Vectors, branch_to, counted_loop, i64, load_i64, offset

#: Rows of a tile register at most; columns of sums, and elements of K in pairs.
ROWS, COLUMNS, PAIRS = 16, 16, 16
#: Elements of K that one instruction adds up; bytes of a row of a register.
DEPTH, ROW_BYTES = 2 * PAIRS, 64
#: Bytes of the operand of columns that one step reads: two registers of high parts, two of low ones.
STEP_BYTES = 4 * ROWS * ROW_BYTES
#: Bytes of a tile configuration.
CONFIG_BYTES = 64

# which registers hold what
_SUMS, _LEFT, _RIGHT = (0, 1, 2, 3), (4, 5), (6, 7)


#: Types of `a_0, a_1, step, low, taps, n_taps, panel, sums, height, ask, lines`.
_ARGUMENTS = [BYTES, BYTES, I64, I64, BYTES, I64, BYTES, BYTES, I64, BYTES, I64]


def configuration(rows: int) -> bytes:
    """What `configure` reads: registers of sums and of the left operand have so many rows."""
    rows_of = [rows] * 6 + [PAIRS] * 2
    columns = b"".join(ROW_BYTES.to_bytes(2, "little") for _ in rows_of)
    return bytes([1, *[0] * 15]) + columns.ljust(32, b"\0") + bytes(rows_of).ljust(16, b"\0")


def _register(number: int) -> ir.Constant:
    return ir.Constant(I8, number)


class _Tiles:
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
        self.v.call("llvm.x86.tdpbf16ps", ir.VoidType(), *map(_register, (sums, left, right)))


def _emit(module, rows: int, columns: int) -> ir.Function:
    """void(a_0, a_1, step, low, taps, n_taps, panel, sums, height, ask, lines): see `matrix_tile`."""
    name = f"f32_bf16x3_{rows}x{columns}_amx"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _ARGUMENTS), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    a_0, a_1, step, low, taps, n_taps, panel, sums, height, ask, lines = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, COLUMNS)
    tiles = _Tiles(v)
    cells = [(i, j, _SUMS[2 * i + j]) for i in range(rows) for j in range(columns)]

    def products():
        for i, j, cell in cells:
            tiles.multiply(cell, _LEFT[i], _RIGHT[j])

    def ask_line(_, at):
        v.prefetch(*at, near=False)
        return [offset(b, *at, i64(LINE))]

    def one_tap(tap, carried):
        weights, asked = carried
        distance = load_i64(b, offset(b, taps, b.mul(tap, i64(8))))
        left = [offset(b, a, distance) for a in (a_0, a_1)[:rows]]

        def load_left(extra):
            for i, a in enumerate(left):
                tiles.load(_LEFT[i], offset(b, a, extra) if extra is not None else a, step)

        def load_right(part):
            for j in range(columns):
                at = i64((2 * part + j) * ROWS * ROW_BYTES)
                tiles.load(_RIGHT[j], offset(b, weights, at), i64(ROW_BYTES))

        # small products first; each operand is loaded once
        load_left(None)
        load_right(1)
        products()
        load_right(0)
        products()
        load_left(low)
        products()
        return [offset(b, weights, i64(STEP_BYTES)), *counted_loop(b, i64(0), lines, 1, [asked], ask_line, "ask")]

    for _, _, cell in cells:
        tiles.clear(cell)
    counted_loop(b, i64(0), n_taps, 1, [panel, ask], one_tap, "tap")
    pitch = i64(2 * ROW_BYTES)
    for i, j, cell in cells:
        at = b.add(b.mul(height, i64(2 * i * ROW_BYTES)), i64(j * ROW_BYTES))
        tiles.store(cell, offset(b, sums, at), pitch)
    b.ret_void()
    return function


@intrinsic
def matrix_tile(typingctx, rows, columns, a_0, a_1, step, low, taps, n_taps, panel, sums, height, ask, lines):
    """Sums of one or two registers of rows by one or two of columns, to `sums`: rows of 32 float32, those of the second register
    after the `height` rows of the first.

    Row r of register i is at `a_i` + r `step` plus the byte offset of a tap, its low parts `low` bytes after it; `n_taps` offsets
    lie at `taps`.  The panel has `STEP_BYTES` a tap, see `loops.split_panels`.  With each tap so many `lines` are asked for, from
    address `ask` on.
    """

    def codegen(context, builder, signature, arguments):
        rows, columns, *rest = arguments
        operands = [builder.inttoptr(x, t) if t is BYTES else x for x, t in zip(rest, _ARGUMENTS)]

        def case(i, j):
            def call():
                builder.call(_emit(builder.module, i, j), operands)

            return call

        number = builder.add(builder.mul(builder.sub(rows, i64(1)), i64(2)), builder.sub(columns, i64(1)))
        branch_to(builder, number, [case(i, j) for i in (1, 2) for j in (1, 2)])
        return context.get_dummy_value()

    return types.void(*[types.intp] * 13), codegen


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
