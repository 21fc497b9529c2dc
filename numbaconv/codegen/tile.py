"""Register tiles: `rows` pixels by `vectors` columns of accumulators that stay in registers over all taps and channels.

One generator serves every element type, instruction set and tile height; its functions are named like
`f32_gemm_12x2_avx512`: element type, operation, rows x vectors, instruction set.
"""

from __future__ import annotations

from dataclasses import dataclass

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.memory import LINE
from numbaconv.codegen.records import CALL
from numbaconv.codegen.sliding import sliding_sums
from numbaconv.codegen.stored import StoredTile
from numbaconv.codegen.target import target
from numbaconv.codegen.vector import BYTES, I64, NAMES, Vectors, branch_to, counted_loop, i64, load_i64, offset

#: K-steps in the unrolled loop: row pointers that do not fit the integer registers are then reloaded once in four steps.
UNROLL = 4


#: How far ahead of its use B is asked for, in bytes.  Weights that come from beyond the L2 gain 20 to 37 % (512 channels, 3x3 at
#: 7 x 7), 7 % at 256 channels; those in the L2 lose 2 %, and short panels more, next to which lie pages that nobody has.
AHEAD = 4096
#: Into how many parts the next panel is cut, each of which is asked for while one tile reads this panel.
FOLLOWING = 4

#: A dense tile: first row of C, height, byte offset of its A, address of its tap records, number of taps.
TILE = 5


@dataclass(frozen=True)
class TileSpec:
    """What one tile function is generated from.

    `operation` is "gemm" (rows of A are broadcast, element by element) or "plane" (rows of one plane are as wide as the tile and
    slide over one weight a tap; see `codegen.sliding`).  `panel_vectors` is the width of the packed weights, of which the tile
    computes the first `vectors`; a wider tile reads the next panel, too.  `record` is the length of a dense tap record in 64-bit
    integers: the weights' offset and one offset for each row of the largest tile.  `chunk` is how many taps of a run keep their
    weights in registers.  `tall` tiles do nearly all the work and have more ways to store.  One that asks `ahead` for weights is
    for those that come from beyond the L2.
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
    tall: bool
    ahead: bool = False

    @property
    def name(self) -> str:
        """Symbol of the tile."""
        # short tiles ask always or never: they have one form
        kind = "_ahead" if self.ahead and self.tall else ""
        return f"{NAMES[self.itemsize]}_{self.operation}_{self.rows}x{self.vectors}_{self.isa}{kind}"


def _arguments(spec: TileSpec) -> list:
    """Types of a tile's arguments; `_emit_dense` and `_emit_plane` name them."""
    scalar = ir.FloatType() if spec.itemsize == 4 else ir.DoubleType()
    if spec.operation == "gemm":
        return [BYTES, BYTES, I64, I64, I64, BYTES, I64, scalar, scalar]
    return [BYTES, BYTES, I64, BYTES, BYTES, BYTES, I64, BYTES, BYTES, I64, I64, I64, scalar, scalar]


def emit_tile(module, spec: TileSpec):
    """Add the tile to an LLVM module and return the function."""
    if (existing := module.globals.get(spec.name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _arguments(spec)), spec.name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(builder, spec.itemsize, spec.lanes, spec.fma)
    emit = _emit_dense if spec.operation == "gemm" else _emit_plane
    emit(v, spec, *function.args)
    builder.ret_void()
    return function


def _emit_plane(v, spec, a, runs, n_runs, window, weights, c, c_pitch, bias, residual, *rest) -> None:
    """One tile of a plane.

    Arguments: base of A; records of runs and their number; their `WINDOW`; the weights; first element of C; bytes from row to row
    of C; bias; residual or null; bytes from row to row of the residual; columns to store (beyond the tile's width: all);
    activation code and its two scalars.
    """
    first = [v.splat(v.load_scalar(bias))] * (spec.rows * spec.vectors)
    sums = sliding_sums(v, spec, a, runs, n_runs, window, weights, first)
    StoredTile(v, spec, c, c_pitch, i64(0), residual, *rest).store(sums)


def _emit_dense(v, spec, call, tiles, count, above, column, panel, following, alpha, beta) -> None:
    """Dense tiles of one height, one after another: the next one's first products need not wait for this one's last sums.

    Arguments: a `CALL` record; the `TILE` records and their number; which row of each is the first one here, and which column of C;
    the packed panel; bytes from it to the weights to ask for; the activation's two scalars.  All else is read from the record when
    it is needed: it would take registers that the sums need.
    """
    b = v.builder

    def one_tile(number, _):
        def field(name):
            return load_i64(b, call, CALL.names.index(name))

        def at(base, pitch, first_row):
            """Address of this tile's first element in a matrix, and bytes from row to row of the tile."""
            pitch, step = field(pitch), field("c_step")
            distance = b.add(b.mul(b.add(first_row, b.mul(above, step)), pitch), from_column)
            return offset(b, b.inttoptr(base, BYTES), distance), b.mul(step, pitch)

        tile = offset(b, tiles, b.mul(number, i64(8 * TILE)))
        row, from_a, taps, n_taps = (load_i64(b, tile, i) for i in (0, 2, 3, 4))
        a, zeros, bias = (b.inttoptr(field(name), BYTES) for name in ("a", "zeros", "bias"))
        from_column = b.mul(column, i64(v.itemsize))
        taps = b.inttoptr(taps, BYTES)
        row_taps = offset(b, taps, b.mul(above, i64(8)))
        one_tap = _gemm_tap(v, spec, field("k"), panel, field("panel_bytes"), following)
        first = _bias(v, spec, offset(b, bias, from_column))
        if spec.tall:
            with b.if_then(b.icmp_signed("!=", field("far_results"), i64(0))):
                _ask_for_rows(v, spec, *at(field("c"), "c_pitch", row), write=True)
                added = field("residual")
                with b.if_then(b.icmp_unsigned("!=", added, i64(0))):
                    _ask_for_rows(v, spec, *at(added, "residual_pitch", row))
        sums = _gemm_sums(v, spec, offset(b, a, from_a), zeros, taps, row_taps, n_taps, panel, one_tap, first)
        c, c_pitch = at(field("c"), "c_pitch", row)
        base = field("residual")
        residual, residual_pitch = at(base, "residual_pitch", row)
        residual = b.select(b.icmp_unsigned("==", base, i64(0)), ir.Constant(BYTES, None), residual)
        columns = b.sub(field("columns"), column)
        rest = residual, residual_pitch, columns, field("activation"), alpha, beta
        StoredTile(v, spec, c, c_pitch, field("streamed"), *rest).store(sums)
        return []

    counted_loop(b, i64(0), count, 1, [], one_tile, "tile")


def _ask_for_rows(v: Vectors, spec: TileSpec, rows, pitch, *, write: bool = False) -> None:
    """Ask for the rows that a tile reads or writes when its sums are done: stores that miss the L2 hold up the next tile's."""
    for _ in range(spec.rows):
        for byte in range(0, spec.vectors * v.nbytes, LINE):
            v.prefetch(offset(v.builder, rows, i64(byte)), write=write)
        rows = offset(v.builder, rows, pitch)


def _bias(v: Vectors, spec: TileSpec, bias) -> list:
    """What sums start from, row by row; the packed bias is as wide as the panel, and plans without one pass a row of zeros."""
    return [v.load(offset(v.builder, bias, i64(j * v.nbytes))) for j in range(spec.vectors)] * spec.rows


def _gemm_sums(v: Vectors, spec: TileSpec, a, zeros, taps, row_taps, n_taps, panel, one_tap, first) -> list:
    """Sum over taps; accumulators are listed row by row."""
    b = v.builder

    def body(tap, accumulators):
        at = b.mul(tap, i64(8 * spec.record))
        weights = offset(b, panel, load_i64(b, offset(b, taps, at)))
        record = offset(b, row_taps, at)
        rows = []
        for i in range(spec.rows):
            distance = load_i64(b, record, 1 + i)
            rows.append(b.select(b.icmp_signed("<", distance, i64(0)), zeros, offset(b, a, distance)))
        return one_tap(rows, weights, accumulators)

    return counted_loop(b, i64(0), n_taps, 1, first, body, "tap")


def _gemm_tap(v: Vectors, spec: TileSpec, k, panel, panel_bytes, following):
    """One tap of a dense tile: `k` channels, unrolled."""
    b = v.builder
    k_unrolled = b.and_(k, i64(-UNROLL))

    def one_tap(rows, weights, accumulators):
        def steps(count):
            def body(channel, accumulators):
                if spec.ahead and count > 1:
                    _ask_for_following(v, spec, panel, following, weights, channel)
                here = [offset(b, row, b.mul(channel, i64(v.itemsize))) for row in rows]
                b_rows = offset(b, weights, b.mul(channel, i64(spec.panel_vectors * v.nbytes)))
                for step in range(count):
                    accumulators = _step(v, spec, here, b_rows, panel_bytes, step, accumulators)
                return accumulators

            return body

        accumulators = counted_loop(b, i64(0), k_unrolled, UNROLL, accumulators, steps(UNROLL), "k")
        return counted_loop(b, k_unrolled, k, 1, accumulators, steps(1), "k.rest")

    return one_tap


def _ask_for_following(v: Vectors, spec: TileSpec, panel, distance, weights, channel) -> None:
    """Ask for weights that come next, `distance` bytes from the panel: one byte for every `FOLLOWING` that are read now."""
    b = v.builder
    row, panels = spec.panel_vectors * v.nbytes, max(1, spec.vectors // spec.panel_vectors)
    read = b.add(b.sub(b.ptrtoint(weights, I64), b.ptrtoint(panel, I64)), b.mul(channel, i64(row)))
    at = offset(b, panel, b.add(distance, b.udiv(read, i64(FOLLOWING // panels))))
    for line in range(0, UNROLL * row * panels // FOLLOWING, LINE):
        v.prefetch(offset(b, at, i64(line)), near=False)


def _step(v: Vectors, spec: TileSpec, rows, b_rows, panel_bytes, step: int, accumulators) -> list:
    """Channel number `step` of some: load `vectors` of B, then for every row broadcast one element of A and multiply."""
    b = v.builder
    b_row = offset(b, b_rows, i64(step * spec.panel_vectors * v.nbytes))
    own = range(min(spec.vectors, spec.panel_vectors))
    columns = [v.load(offset(b, b_row, i64(j * v.nbytes))) for j in own]
    if spec.vectors > spec.panel_vectors:
        b_row = offset(b, b_row, panel_bytes)
        columns += [v.load(offset(b, b_row, i64(j * v.nbytes))) for j in range(spec.vectors - spec.panel_vectors)]
    if spec.ahead and spec.vectors <= spec.panel_vectors:
        for j in own:
            v.prefetch(offset(b, b_row, i64(AHEAD + j * v.nbytes)))
    new = []
    for i, row in enumerate(rows):
        broadcast = v.splat(v.load_scalar(offset(b, row, i64(step * v.itemsize))))
        new += [v.fma(broadcast, columns[j], accumulators[i * spec.vectors + j]) for j in range(spec.vectors)]
    return new


@intrinsic(prefer_literal=True)
def dense_tiles(
    typingctx,
    rows,
    vectors,
    wide_rows,
    height,
    width,
    ahead,
    call,
    tiles,
    count,
    above,
    column,
    panel,
    following,
    alpha,
    beta,
):
    """Run `count` dense tiles, of which `height` rows and `width` vectors are computed; see `_emit_dense` for the rest.

    Tiles of one panel, up to `vectors` wide, have 1..rows rows; those of two panels, wider than that, 1..wide_rows.  Tall ones of
    whole panels may ask `ahead` for weights.  The first three numbers are literals, since only literals keep Numba's disk cache
    working for generated code.  Pointers are integers.
    """
    signature = types.void(rows, vectors, wide_rows, *[types.intp] * 10, alpha, beta)
    sizes = rows.literal_value, vectors.literal_value, wide_rows.literal_value

    def codegen(context, builder, signature, arguments):
        _switch(builder, "gemm", alpha.bitwidth // 8, sizes, *arguments[3:6], arguments[6:])
        return context.get_dummy_value()

    return signature, codegen


@intrinsic(prefer_literal=True)
def plane_tile(
    typingctx,
    rows,
    vectors,
    height,
    width,
    a,
    runs,
    n_runs,
    window,
    weights,
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
    """Run the tile of `height` rows and `width` vectors of a plane; see `_emit_plane` for the rest.

    The first two numbers are literals, as those of `dense_tiles`.
    """
    signature = types.void(rows, vectors, *[types.intp] * 14, alpha, beta)
    sizes = rows.literal_value, vectors.literal_value, 0

    def codegen(context, builder, signature, arguments):
        _switch(builder, "plane", alpha.bitwidth // 8, sizes, *arguments[2:4], i64(0), arguments[4:])
        return context.get_dummy_value()

    return signature, codegen


def _switch(builder, kind: str, size: int, sizes: tuple[int, int, int], height, width, special, arguments) -> None:
    """Call the tile of a height and a width among those that there are."""
    tallest, panel_vectors, tallest_wide = sizes

    def call(spec):
        wanted = _arguments(spec)
        pointers = [builder.inttoptr(x, t) if t is BYTES else x for x, t in zip(arguments, wanted)]
        builder.call(emit_tile(builder.module, spec), pointers)

    # without a jump through a table: numbered panel by panel, height by width, plain before special
    cases, numbers = [], {}
    for n in range(1, (2 * panel_vectors if tallest_wide else panel_vectors) + 1):
        for m in range(1, (tallest if n <= panel_vectors else tallest_wide) + 1):
            numbers[n] = numbers.get(n, len(cases))
            for bit in (False, True)[: 1 if kind == "plane" else 2]:
                spec = _spec(kind, size, m, n, tallest, panel_vectors, bit)
                cases.append(lambda spec=spec: call(spec))
    first = i64(0)
    for n in range(2, len(numbers) + 1):
        first = builder.select(builder.icmp_signed(">=", width, i64(n)), i64(numbers[n]), first)
    case = builder.sub(height, i64(1))
    if kind != "plane":
        special = builder.zext(builder.icmp_signed("!=", special, i64(0)), I64)
        case = builder.add(builder.shl(case, i64(1)), special)
    branch_to(builder, builder.add(first, case), cases)


def _spec(kind: str, size: int, rows: int, vectors: int, tallest: int, panel: int, special: bool) -> TileSpec:
    on = target()
    tall = kind == "gemm" and 2 * rows > (tallest if vectors <= panel else on.wide_rows)
    shape = size, rows, vectors, panel, on.lanes(size), tallest + 1, on.chunk
    # Tiles of so few sums wait for their multiply-adds, so that asking ahead costs them next to nothing, and they come in short
    # lists, past which weights stream: all but single rows, which gain nothing, do.  From beyond the L2, 2 to 4 rows gain 5 to
    # 11 %.
    few = kind == "gemm" and vectors == panel and 1 < rows <= on.hidden // vectors
    ahead = special and vectors % panel == 0 if tall else few
    return TileSpec(kind, *shape, on.isa, on.fma, tall, ahead)
