"""Register tiles: `rows` pixels by `vectors` columns of accumulators that stay in registers over all taps and channels.

One generator serves every element type, instruction set and tile height; its functions are named like
`f32_gemm_12x2_avx512`: element type, operation, rows x vectors, instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import activate
from numbaconv.codegen.sliding import sliding_sums
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I64, NAMES, Vectors, branch_to, counted_loop, i64, load_i64, offset

#: K-steps in the unrolled loop: row pointers that do not fit the integer registers are then reloaded once in four steps.
UNROLL = 4

#: How far ahead of its use B is asked for, in bytes.  Weights that come from beyond the L2 gain 20 to 37 % (512 channels, 3x3
#: at 7 x 7), 7 % at 256 channels; weights in the L2 neither gain nor lose.
PREFETCH = 4096


@dataclass(frozen=True)
class TileSpec:
    """What one tile function is generated from.

    `operation` is "gemm" (rows of A are broadcast, element by element), "depthwise" (pixels are as wide as the tile and meet
    the weights lane by lane; see `codegen.sliding`) or "plane" (the same with rows of one plane for pixels: a tap is one
    weight for all lanes).  `panel_vectors` is the width of the packed weights, of which the
    tile computes the first `vectors`.  `record` is the length of a dense tap record in 64-bit integers: the weights' offset
    and one offset for each row of the largest tile.  `chunk` is how many taps of a run keep their weights in registers.
    """

    operation: str
    itemsize: int
    rows: int
    vectors: int
    panel_vectors: int
    lanes: int
    record: int
    chunk: int
    isa: str
    fma: bool

    @property
    def name(self) -> str:
        """Symbol of the tile."""
        return f"{NAMES[self.itemsize]}_{self.operation}_{self.rows}x{self.vectors}_{self.isa}"


def _arguments(scalar) -> list:
    """Types of a tile's arguments; `emit_tile` names them."""
    return [BYTES, BYTES, BYTES, I64, I64, BYTES, BYTES, I64, BYTES, BYTES, I64, I64, I64, scalar, scalar]


def emit_tile(module, spec: TileSpec):
    """Add the tile to an LLVM module and return the function.

    Arguments: base of A; a row of zeros for padding; tap or run records and their number; channels a tap, or the address of
    the runs' `WINDOW`; the packed panel; first element of C; bytes from row to row of C; bias or null; residual or null; bytes
    from row to row of the residual; columns to store (beyond the tile's width: all); activation code and its two scalars.
    """
    if (existing := module.globals.get(spec.name)) is not None:
        return existing
    scalar = ir.FloatType() if spec.itemsize == 4 else ir.DoubleType()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _arguments(scalar)), spec.name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(builder, spec.itemsize, spec.lanes, spec.fma)
    a, zeros, taps, n_taps, k, panel, c, c_pitch, bias, *rest = function.args
    if spec.operation == "plane":
        first = [v.splat(v.load_scalar(bias))] * (spec.rows * spec.vectors)
    else:
        # the packed bias is as wide as the panel; plans without a bias pass a row of zeros
        first = [v.load(offset(builder, bias, i64(j * v.nbytes))) for j in range(spec.vectors)] * spec.rows
    if spec.operation == "gemm":
        accumulators = _gemm_sums(v, spec, a, zeros, taps, n_taps, k, panel, first)
    else:
        window = builder.inttoptr(k, BYTES)
        shape = spec.rows, spec.vectors, spec.chunk
        one_weight = spec.operation == "plane"
        accumulators = sliding_sums(v, *shape, one_weight, a, taps, n_taps, window, panel, first)
    _Epilogue(v, spec, c, c_pitch, *rest).store(accumulators)
    return function


def _gemm_sums(v: Vectors, spec: TileSpec, a, zeros, taps, n_taps, k, panel, first) -> list:
    """Sum over taps; accumulators are listed row by row."""
    b = v.builder
    one_tap = _gemm_tap(v, spec, k)

    def body(tap, accumulators):
        record = offset(b, taps, b.mul(tap, i64(8 * spec.record)))
        weights = offset(b, panel, load_i64(b, record))
        rows = []
        for i in range(spec.rows):
            distance = load_i64(b, record, 1 + i)
            rows.append(b.select(b.icmp_signed("<", distance, i64(0)), zeros, offset(b, a, distance)))
        return one_tap(rows, weights, accumulators)

    return counted_loop(b, i64(0), n_taps, 1, first, body, "tap")


def _gemm_tap(v: Vectors, spec: TileSpec, k):
    """One tap of a dense tile: `k` channels, unrolled."""
    b = v.builder
    k_unrolled = b.and_(k, i64(-UNROLL))

    def one_tap(rows, weights, accumulators):
        def steps(count):
            def body(channel, accumulators):
                for step in range(count):
                    accumulators = _step(v, spec, rows, weights, channel, step, accumulators)
                return accumulators

            return body

        accumulators = counted_loop(b, i64(0), k_unrolled, UNROLL, accumulators, steps(UNROLL), "k")
        return counted_loop(b, k_unrolled, k, 1, accumulators, steps(1), "k.rest")

    return one_tap


def _step(v: Vectors, spec: TileSpec, rows, weights, channel, step: int, accumulators) -> list:
    """One channel: load `vectors` of B, then for every row broadcast one element of A and multiply."""
    b = v.builder
    b_row = offset(b, weights, b.mul(channel, i64(spec.panel_vectors * v.nbytes)))
    b_row = offset(b, b_row, i64(step * spec.panel_vectors * v.nbytes))
    for j in range(spec.vectors):
        v.prefetch(offset(b, b_row, i64(PREFETCH + j * v.nbytes)))
    columns = [v.load(offset(b, b_row, i64(j * v.nbytes))) for j in range(spec.vectors)]
    a_column = b.mul(channel, i64(v.itemsize))
    new = []
    for i, row in enumerate(rows):
        element = v.load_scalar(offset(b, offset(b, row, a_column), i64(step * v.itemsize)))
        broadcast = v.splat(element)
        new += [v.fma(broadcast, columns[j], accumulators[i * spec.vectors + j]) for j in range(spec.vectors)]
    return new


class _Epilogue:
    """What happens to accumulators before they are stored: residual, then activation; the bias is where sums start.

    A clamping activation (which includes none and the ReLUs) takes straight-line code: full tiles with and without a
    residual, partial ones under a mask; other activations go through a rolled loop over a copy of the accumulators on the stack.
    """

    def __init__(self, v, spec, c, c_pitch, residual, residual_pitch, columns, code, alpha, beta):
        self.v, self.spec = v, spec
        self.c, self.c_pitch, self.residual, self.residual_pitch = c, c_pitch, residual, residual_pitch
        self.columns, self.code, self.alpha, self.beta = columns, code, alpha, beta

    def store(self, accumulators) -> None:
        """Emit all paths and the function's return."""
        v, b, spec = self.v, self.v.builder, self.spec
        full = b.icmp_signed(">=", self.columns, i64(spec.vectors * v.lanes))
        clamp = b.icmp_signed("==", self.code, i64(0))
        no_residual = b.icmp_unsigned("==", b.ptrtoint(self.residual, I64), i64(0))
        fast, slow = b.append_basic_block("fast"), b.append_basic_block("slow")
        whole, partial = b.append_basic_block("whole"), b.append_basic_block("partial")
        plain, added = b.append_basic_block("plain"), b.append_basic_block("residual")
        # without a residual none is loaded, not even no lane of it: from null that costs hundreds of cycles
        plain_partial, added_partial = b.append_basic_block("plain.partial"), b.append_basic_block("residual.partial")
        b.cbranch(clamp, fast, slow)
        b.position_at_end(fast)
        b.cbranch(full, whole, partial)
        b.position_at_end(whole)
        b.cbranch(no_residual, plain, added)
        b.position_at_end(plain)
        self._store_straight(accumulators, False)
        b.position_at_end(added)
        self._store_straight(accumulators, True)
        b.position_at_end(partial)
        masks = [self._mask(j) for j in range(spec.vectors)]
        b.cbranch(no_residual, plain_partial, added_partial)
        b.position_at_end(plain_partial)
        self._store_straight(accumulators, False, masks)
        b.position_at_end(added_partial)
        self._store_straight(accumulators, True, masks)
        b.position_at_end(slow)
        self._store_rolled(accumulators, no_residual)

    def _mask(self, j: int):
        """Lanes of column vector `j` that are stored."""
        return self.v.first_lanes(self.v.builder.sub(self.columns, i64(j * self.v.lanes)))

    def _store_straight(self, accumulators, with_residual: bool, masks: list | None = None) -> None:
        v, b = self.v, self.v.builder
        low, high = v.splat(self.alpha), v.splat(self.beta)
        c, residual = self.c, self.residual
        for i in range(self.spec.rows):
            for j in range(self.spec.vectors):
                value = accumulators[i * self.spec.vectors + j]
                to, origin = (offset(b, pointer, i64(j * v.nbytes)) for pointer in (c, residual))
                if with_residual:
                    value = b.fadd(value, v.masked_load(origin, masks[j]) if masks else v.load(origin))
                value = v.minimum(high, v.maximum(low, value))
                if masks:
                    v.masked_store(value, to, masks[j])
                else:
                    v.store(value, to)
            c = offset(b, c, self.c_pitch)
            if with_residual:
                residual = offset(b, residual, self.residual_pitch)
        b.ret_void()

    def _store_rolled(self, accumulators, no_residual) -> None:
        v, b, spec = self.v, self.v.builder, self.spec
        # any address that is mapped, of which no lane is read
        origin = b.select(no_residual, self.c, self.residual)
        none = ir.Constant(v.mask_type, [0] * v.lanes)
        with b.goto_entry_block():
            copy = b.bitcast(b.alloca(v.type, size=spec.rows * spec.vectors), BYTES)
        for n, value in enumerate(accumulators):
            v.store(value, offset(b, copy, i64(n * v.nbytes)))

        def one_row(row, _):
            c = offset(b, self.c, b.mul(row, self.c_pitch))
            residual = offset(b, origin, b.mul(row, self.residual_pitch))
            for j in range(spec.vectors):
                stored = self._mask(j)
                read = b.select(no_residual, none, stored)
                value = v.load(offset(b, copy, b.add(b.mul(row, i64(spec.vectors * v.nbytes)), i64(j * v.nbytes))))
                value = b.fadd(value, v.masked_load(offset(b, residual, i64(j * v.nbytes)), read))
                value = activate(v, value, self.code, self.alpha, self.beta)
                v.masked_store(value, offset(b, c, i64(j * v.nbytes)), stored)
            return []

        counted_loop(b, i64(0), i64(spec.rows), 1, [], one_row, "store")
        b.ret_void()


OPERATIONS = ("gemm", "depthwise", "plane")


@intrinsic(prefer_literal=True)
def tile(
    typingctx,
    operation,
    rows,
    vectors,
    height,
    width,
    a,
    zeros,
    taps,
    n_taps,
    k,
    panel,
    c,
    c_pitch,
    bias,
    residual,
    residual_pitch,
    columns,
    code,
    alpha,
    beta,
):
    """Run the tile of `height` (1..rows) rows and `width` (1..vectors) vectors of one of `OPERATIONS`, given by its number.

    `operation`, `rows` and `vectors` are literals, since only literals keep Numba's disk cache working for generated code.
    Pointers are integers; see `emit_tile` for the rest.
    """
    signature = types.void(operation, rows, vectors, *[types.intp] * 15, alpha, beta)
    kind, size = OPERATIONS[operation.literal_value], alpha.bitwidth // 8
    tallest, widest = rows.literal_value, vectors.literal_value

    def codegen(context, builder, signature, arguments):
        height, width, *rest = arguments[3:]
        converted = [
            builder.inttoptr(value, wanted) if wanted is BYTES else value
            for value, wanted in zip(rest, _arguments(rest[-1].type))
        ]

        def run(m, n):
            return lambda: builder.call(emit_tile(builder.module, _spec(kind, size, m, n, tallest, widest)), converted)

        # numbered height by width
        case = builder.sub(builder.add(builder.mul(height, i64(widest)), width), i64(widest + 1))
        branch_to(builder, case, [run(m, n) for m in range(1, tallest + 1) for n in range(1, widest + 1)])
        return context.get_dummy_value()

    return signature, codegen


def _spec(kind: str, size: int, rows: int, vectors: int, tallest: int, widest: int) -> TileSpec:
    on = target()
    return TileSpec(kind, size, rows, vectors, widest, on.lanes(size), tallest + 1, on.chunk, on.isa, on.fma)
