"""Sliding tiles with their loops: down the lines of a column one tile wide, and across its panels of channels.

A tile of a small kernel takes as long as calling a function with all that it needs to know, so the loops are generated, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.expand import EXPANSION
from numbaconv.codegen.lanes import SLIDING, TABLED, field
from numbaconv.codegen.sliding import KERNELS, Kernel, sliding_sums
from numbaconv.codegen.stored import StoredTile
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, FLOATS, I64, NAMES, Vectors, branch_to, counted_loop, i64


@dataclass(frozen=True)
class ColumnSpec:
    """What one function is generated from: tiles of `rows` pixels by `vectors` vectors of channels, of panels `panel_vectors` wide.

    `operation` is one of `SLIDING` and `kernel` one of `KERNELS`.  Of a kernel that tiles do not know up to `chunk` taps keep their
    weights in registers.  `bordered` tiles touch padding at their sides.
    """

    operation: str
    kernel: Kernel
    itemsize: int
    rows: int
    vectors: int
    panel_vectors: int
    lanes: int
    chunk: int
    isa: str
    fma: bool
    bordered: bool
    tall: bool = False

    @property
    def name(self) -> str:
        """Symbol of the function, such as `f32_depthwise_k3s1_8x2_avx512`."""
        taps, hop, piece = self.kernel
        kernel = f"_k{taps}s{hop}" if taps else f"_p{piece}" if piece else ""
        border = "_bordered" if self.bordered else ""
        return f"{NAMES[self.itemsize]}_{self.operation}{kernel}_{self.rows}x{self.vectors}_{self.isa}{border}"


def emit_column(module, spec: ColumnSpec) -> ir.Function:
    """void(record, a, runs, n_runs, c, residual, first panel, panels, lines, byte of a panel, columns, alpha, beta).

    `lines` output rows by `panels` panels from the first one on, all with the same runs: `a`, `c` and `residual` are where the
    first of each finds its operands.  Of each panel the tile computes what starts at a `byte`, and stores `columns` of it.  The
    `SLIDE` record at `record` says the rest.
    """
    if (existing := module.globals.get(spec.name)) is not None:
        return existing
    scalar = FLOATS[spec.itemsize]
    kind = ir.FunctionType(ir.VoidType(), [BYTES, BYTES, BYTES, I64, BYTES, BYTES, *[I64] * 5, scalar, scalar])
    function = ir.Function(module, kind, spec.name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    record, a, runs, n_runs, c, residual, first_panel, panels, lines, byte, columns, alpha, beta = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, spec.itemsize, spec.lanes, spec.fma)

    def number(name: str):
        return field(v, record, name)

    def address(name: str):
        return b.inttoptr(number(name), BYTES)

    def moved(pointers, distances) -> list:
        return [b.gep(pointer, [distance]) for pointer, distance in zip(pointers, distances)]

    width, none = i64(spec.panel_vectors * v.nbytes), i64(0)
    # where there is no residual, its address stays null
    added = b.sext(b.icmp_unsigned("!=", b.ptrtoint(residual, I64), none), I64)
    # what is read through expansions starts at the pixel for all panels
    tabled = spec.operation in TABLED
    table = i64(spec.panel_vectors * (8 * EXPANSION + v.nbytes)) if tabled else none
    across = none if tabled else width, width, b.and_(added, width), width, number("panel_bytes"), table
    down = number("a_line"), number("c_line"), b.and_(added, number("residual_line"))
    shared = address("bias"), address("panels"), address("expansions")
    a, c, residual, *shared = moved([a, c, residual, *shared], [b.mul(first_panel, step) for step in across])
    # to the tile's vectors of a panel
    within = byte, byte, b.and_(added, byte), byte, byte, none
    a, c, residual, *shared = moved([a, c, residual, *shared], within)
    c_pitch, residual_pitch, code = number("c_pitch"), number("residual_pitch"), number("activation")

    def line(_, pointers):
        def panel(_, places):
            a, c, residual, bias, weights, expansion = places
            first = [v.load(b.gep(bias, [i64(j * v.nbytes)])) for j in range(spec.vectors)] * spec.rows
            sums = sliding_sums(v, spec, a, runs, n_runs, record, weights, first, spec.bordered, expansion, spec.kernel)
            StoredTile(v, spec, c, c_pitch, none, residual, residual_pitch, columns, code, alpha, beta).store(sums)
            return moved(places, across)

        counted_loop(b, none, panels, 1, [*pointers, *shared], panel, "panel")
        return moved(pointers, down)

    counted_loop(b, none, lines, 1, [a, c, residual], line, "line")
    b.ret_void()
    return function


@intrinsic(prefer_literal=True)
def column(
    typingctx,
    operation,
    kernel,
    rows,
    vectors,
    height,
    width,
    bordered,
    record,
    a,
    runs,
    n_runs,
    c,
    residual,
    panel,
    panels,
    lines,
    byte,
    columns,
    alpha,
    beta,
):
    """Run the column of tiles of `height` pixels and `width` vectors; `rows` and `vectors` are those of the largest.

    These two and the numbers of the operation and of the kernel are literals.  Pointers are integers; see `emit_column` for the
    rest.
    """
    signature = types.void(operation, kernel, rows, vectors, *[types.intp] * 14, alpha, beta)
    size, tallest, widest = alpha.bitwidth // 8, rows.literal_value, vectors.literal_value
    kind = SLIDING[operation.literal_value], KERNELS[kernel.literal_value]

    def codegen(context, builder, signature, arguments):
        height, width, bordered, record, a, runs, n_runs, c, residual, *rest = arguments[4:]
        pointers = [builder.inttoptr(value, BYTES) for value in (record, a, runs, c, residual)]
        converted = [*pointers[:3], n_runs, *pointers[3:], *rest]
        on = target()
        cases = []
        # without a jump through a table: numbered width by height, plain before bordered
        for n in range(1, widest + 1):
            for m in range(1, tallest + 1):
                for border in _borders(*kind):
                    shape = size, m, n, on.vectors, on.lanes(size), on.chunk, on.isa, on.fma
                    spec = ColumnSpec(*kind, *shape, border, 2 * m > tallest)
                    cases.append(lambda spec=spec: builder.call(emit_column(builder.module, spec), converted))
        number = builder.add(builder.mul(builder.sub(width, i64(1)), i64(tallest)), builder.sub(height, i64(1)))
        touches = builder.zext(builder.icmp_signed("!=", bordered, i64(0)), I64)
        branch_to(builder, builder.add(builder.shl(number, i64(1)), touches), cases)
        return context.get_dummy_value()

    return signature, codegen


def _borders(operation: str, kernel: Kernel) -> tuple[bool, bool]:
    """Whether tiles inside of the image and those at its sides look for padding.  Strips hold it."""
    if operation == "strip":
        return False, False
    # where it costs little there is one form only
    return operation in TABLED or kernel != KERNELS[0], True
