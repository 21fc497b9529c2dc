"""Register tiles: `rows` pixels by `vectors` columns of accumulators that stay in registers over all taps and channels.

One generator serves every element type, instruction set and tile height; its functions are named like
`f32_gemm_12x2_avx512`: element type, operation, rows x vectors, instruction set.
"""

from __future__ import annotations

from collections.abc import Callable
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


#: How far ahead of its use B is asked for, in bytes.  Weights that come from beyond the L2 gain 20 to 37 % (512 channels, 3x3 at
#: 7 x 7), 7 % at 256 channels; those in the L2 lose 2 %, and short panels more, next to which lie pages that nobody has.
AHEAD = 4096
#: Into how many parts the next panel is cut, each of which is asked for while one tile reads this panel.
FOLLOWING = 4


@dataclass(frozen=True)
class TileSpec:
    """What one tile function is generated from.

    `operation` is "gemm" (rows of A are broadcast, element by element), "depthwise" (pixels are as wide as the tile and meet
    the weights lane by lane; see `codegen.sliding`) or "plane" (the same with rows of one plane for pixels: a tap is one
    weight for all lanes).  `panel_vectors` is the width of the packed weights, of which the tile computes the first `vectors`;
    a wider tile reads the next panel, too.  `record` is the length of a dense tap record in 64-bit integers: the weights'
    offset and one offset for each row of the largest tile.  `chunk` is how many taps of a run keep their weights in registers.
    `tall` tiles do nearly all the work and have more ways to store.  One that asks `ahead` for weights is for those that come
    from beyond the L2.  A `bordered` depthwise tile touches padding at its sides.
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
    bordered: bool = False

    @property
    def name(self) -> str:
        """Symbol of the tile."""
        kind = "_ahead" if self.ahead else "_bordered" if self.bordered else ""
        return f"{NAMES[self.itemsize]}_{self.operation}_{self.rows}x{self.vectors}_{self.isa}{kind}"


def _arguments(scalar) -> list:
    """Types of a tile's arguments; `emit_tile` names them."""
    return [
        *[BYTES, BYTES, BYTES, I64, I64, I64, BYTES, I64, I64],
        *[BYTES, I64, I64, BYTES, BYTES, I64, I64, I64, scalar, scalar],
    ]


def emit_tile(module, spec: TileSpec):
    """Add the tile to an LLVM module and return the function.

    Arguments: base of A; a row of zeros for padding; tap or run records and their number; which of a tap's rows comes first;
    channels a tap, or the address of the runs' `WINDOW`; the packed panel; bytes from it to the next one, and to the weights to
    ask for; first element of C; bytes from row to row of C; whether C is streamed past the caches; bias or null; residual or null;
    bytes from row to row of the residual; columns to store (beyond the tile's width: all); activation code and its two scalars.
    """
    if (existing := module.globals.get(spec.name)) is not None:
        return existing
    scalar = ir.FloatType() if spec.itemsize == 4 else ir.DoubleType()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _arguments(scalar)), spec.name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(builder, spec.itemsize, spec.lanes, spec.fma)
    a, zeros, taps, n_taps, first_row, k, panel, panel_bytes, following, c, c_pitch, streamed, bias, *rest = (
        function.args
    )
    one_weight = spec.operation == "plane"
    if one_weight:
        first = [v.splat(v.load_scalar(bias))] * (spec.rows * spec.vectors)
    else:
        # the packed bias is as wide as the panel; plans without a bias pass a row of zeros
        first = [v.load(offset(builder, bias, i64(j * v.nbytes))) for j in range(spec.vectors)] * spec.rows
    if spec.operation == "gemm":
        row_taps = offset(builder, taps, builder.mul(first_row, i64(8)))
        one_tap = _gemm_tap(v, spec, k, panel, panel_bytes, following)
        accumulators = _gemm_sums(v, spec, a, zeros, taps, row_taps, n_taps, panel, one_tap, first)
    else:
        window = builder.inttoptr(k, BYTES)
        shape = spec.rows, spec.vectors, spec.chunk
        outside = zeros if spec.bordered else None
        accumulators = sliding_sums(v, *shape, one_weight, a, taps, n_taps, window, panel, first, outside)
    _Epilogue(v, spec, c, c_pitch, streamed, *rest).store(accumulators)
    return function


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
                for step in range(count):
                    accumulators = _step(v, spec, rows, weights, panel_bytes, channel, step, accumulators)
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
    for line in range(0, UNROLL * row * panels // FOLLOWING, 64):
        v.prefetch(offset(b, at, i64(line)), near=False)


def _step(v: Vectors, spec: TileSpec, rows, weights, panel_bytes, channel, step: int, accumulators) -> list:
    """One channel: load `vectors` of B, then for every row broadcast one element of A and multiply."""
    b = v.builder
    b_row = offset(b, weights, b.mul(channel, i64(spec.panel_vectors * v.nbytes)))
    b_row = offset(b, b_row, i64(step * spec.panel_vectors * v.nbytes))
    own = range(min(spec.vectors, spec.panel_vectors))
    columns = [v.load(offset(b, b_row, i64(j * v.nbytes))) for j in own]
    if spec.vectors > spec.panel_vectors:
        b_row = offset(b, b_row, panel_bytes)
        columns += [v.load(offset(b, b_row, i64(j * v.nbytes))) for j in range(spec.vectors - spec.panel_vectors)]
    if spec.ahead and spec.vectors <= spec.panel_vectors:
        for j in own:
            v.prefetch(offset(b, b_row, i64(AHEAD + j * v.nbytes)))
    a_column = b.mul(channel, i64(v.itemsize))
    new = []
    for i, row in enumerate(rows):
        element = v.load_scalar(offset(b, offset(b, row, a_column), i64(step * v.itemsize)))
        broadcast = v.splat(element)
        new += [v.fma(broadcast, columns[j], accumulators[i * spec.vectors + j]) for j in range(spec.vectors)]
    return new


class _Epilogue:
    """What happens to accumulators before they are stored: residual, then activation; the bias is where sums start.

    A clamping activation (which includes none and the ReLUs) takes straight-line code: full tiles with a residual, without, and
    streamed, partial ones under a mask; other activations go through a rolled loop over a copy of the accumulators on the stack.
    """

    def __init__(self, v, spec, c, c_pitch, streamed, residual, residual_pitch, columns, code, alpha, beta):
        self.v, self.spec, self.streamed = v, spec, streamed
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
        self._store_plain(accumulators)
        b.position_at_end(added)
        self._store_straight(accumulators, v.store, residual=True)
        b.position_at_end(partial)
        masks = [self._mask(j) for j in range(spec.vectors)]
        b.cbranch(no_residual, plain_partial, added_partial)
        b.position_at_end(plain_partial)
        self._store_masked(accumulators, masks, residual=False)
        b.position_at_end(added_partial)
        self._store_masked(accumulators, masks, residual=True)
        b.position_at_end(slow)
        self._store_rolled(accumulators, no_residual)

    def _mask(self, j: int):
        """Lanes of column vector `j` that are stored."""
        return self.v.first_lanes(self.v.builder.sub(self.columns, i64(j * self.v.lanes)))

    def _store_plain(self, accumulators) -> None:
        """Without a residual: clamped or not, streamed or not.  Two operations a vector saved count where K is short."""
        v, b = self.v, self.v.builder
        if not self.spec.tall:
            self._store_straight(accumulators, v.store)
            return
        infinity = ir.Constant(v.scalar, float("inf"))
        below = b.fcmp_ordered("==", self.alpha, ir.Constant(v.scalar, float("-inf")))
        unbounded = b.and_(below, b.fcmp_ordered("==", self.beta, infinity))
        streamed = b.icmp_signed("!=", self.streamed, i64(0))
        names = ("clamped", "clamped.streamed", "unbounded", "unbounded.streamed")
        blocks = [b.append_basic_block(name) for name in names]
        switch = b.switch(b.add(b.zext(streamed, I64), b.shl(b.zext(unbounded, I64), i64(1))), blocks[0])
        for number, block in enumerate(blocks):
            if number:
                switch.add_case(i64(number), block)
            b.position_at_end(block)
            self._store_straight(accumulators, v.stream if number & 1 else v.store, clamp=not number & 2)

    def _store_straight(self, accumulators, store: Callable, *, residual: bool = False, clamp: bool = True) -> None:
        def finish(value, to, origin, _):
            if residual:
                value = self.v.builder.fadd(value, self.v.load(origin))
            store(self._clamped(value) if clamp else value, to)

        self._each(accumulators, finish)

    def _store_masked(self, accumulators, masks: list, *, residual: bool) -> None:
        def finish(value, to, origin, j):
            if residual:
                value = self.v.builder.fadd(value, self.v.masked_load(origin, masks[j]))
            self.v.masked_store(self._clamped(value), to, masks[j])

        self._each(accumulators, finish)

    def _clamped(self, value):
        v = self.v
        return v.minimum(v.splat(self.beta), v.maximum(v.splat(self.alpha), value))

    def _each(self, accumulators, finish: Callable) -> None:
        """`finish(value, address in C, address in the residual, column vector)` for every accumulator, then return."""
        b, size = self.v.builder, self.v.nbytes
        c, residual = self.c, self.residual
        for i in range(self.spec.rows):
            for j in range(self.spec.vectors):
                to, origin = (offset(b, pointer, i64(j * size)) for pointer in (c, residual))
                finish(accumulators[i * self.spec.vectors + j], to, origin, j)
            c = offset(b, c, self.c_pitch)
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
    wide_rows,
    height,
    width,
    special,
    a,
    zeros,
    taps,
    n_taps,
    first_row,
    k,
    panel,
    panel_bytes,
    following,
    c,
    c_pitch,
    streamed,
    bias,
    residual,
    residual_pitch,
    columns,
    code,
    alpha,
    beta,
):
    """Run the tile of `height` rows and `width` vectors of one of `OPERATIONS`, given by its number.

    Tiles of one panel, up to `vectors` wide, have 1..rows rows; those of two panels, wider than that, 1..wide_rows.  What is
    `special` (not 0): tall dense ones of whole panels ask ahead for weights, depthwise ones touch padding.  These numbers and
    `operation` are literals, since only literals keep Numba's disk cache working for generated code.  Pointers are integers;
    see `emit_tile` for the rest.
    """
    signature = types.void(operation, rows, vectors, wide_rows, *[types.intp] * 20, alpha, beta)
    kind, size = OPERATIONS[operation.literal_value], alpha.bitwidth // 8
    tallest, panel_vectors, tallest_wide = rows.literal_value, vectors.literal_value, wide_rows.literal_value
    widest = 2 * panel_vectors if tallest_wide else panel_vectors

    def codegen(context, builder, signature, arguments):
        height, width, special, *rest = arguments[4:]
        converted = [
            builder.inttoptr(value, wanted) if wanted is BYTES else value
            for value, wanted in zip(rest, _arguments(rest[-1].type))
        ]
        # without a jump through a table: numbered panel by panel, height by width, plain before special
        cases, numbers = [], {}
        for n in range(1, widest + 1):
            for m in range(1, (tallest if n <= panel_vectors else tallest_wide) + 1):
                numbers[n] = numbers.get(n, len(cases))
                for bit in (False, True)[: 1 if kind == "plane" else 2]:
                    spec = _spec(kind, size, m, n, tallest, panel_vectors, bit)
                    cases.append(lambda spec=spec: builder.call(emit_tile(builder.module, spec), converted))
        first = i64(0)
        for n in range(2, widest + 1):
            first = builder.select(builder.icmp_signed(">=", width, i64(n)), i64(numbers[n]), first)
        case = builder.sub(height, i64(1))
        if kind != "plane":
            special = builder.zext(builder.icmp_signed("!=", special, i64(0)), I64)
            case = builder.add(builder.shl(case, i64(1)), special)
        branch_to(builder, builder.add(first, case), cases)
        return context.get_dummy_value()

    return signature, codegen


def _spec(kind: str, size: int, rows: int, vectors: int, tallest: int, panel: int, special: bool) -> TileSpec:
    on = target()
    tall = kind == "gemm" and 2 * rows > (tallest if vectors <= panel else on.wide_rows)
    ahead, bordered = special and tall and vectors % panel == 0, special and kind == "depthwise"
    shape = size, rows, vectors, panel, on.lanes(size), tallest + 1, on.chunk
    return TileSpec(kind, *shape, on.isa, on.fma, tall, ahead, bordered)
