"""How register tiles end: accumulators meet the residual and the activation, and are stored."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from numbaconv.codegen.activations import activate
from numbaconv.codegen.vector import BYTES, I64, Vectors, counted_loop, i64, lanes_between, offset


class StoredTile:
    """What happens to accumulators before they are stored: residual, then activation; the bias is where sums start.

    A clamping activation (which includes none and the ReLUs) takes straight-line code: full tiles with a residual, without, and
    streamed, partial ones under a mask; other activations go through a function that loops over a copy of the accumulators on the
    stack.  Of columns that do not start with the `first` one, only the lanes from there on are stored.
    """

    def __init__(self, v, spec, c, c_pitch, streamed, residual, residual_pitch, columns, code, alpha, beta, first=None):
        self.v, self.spec, self.streamed, self.first = v, spec, streamed, first
        self.c, self.c_pitch, self.residual, self.residual_pitch = c, c_pitch, residual, residual_pitch
        self.columns, self.code, self.alpha, self.beta = columns, code, alpha, beta

    def store(self, accumulators) -> None:
        """Emit all paths, which meet again."""
        v, b, spec = self.v, self.v.builder, self.spec
        self.stored = b.append_basic_block("stored")
        full = b.icmp_signed(">=", self.columns, i64(spec.vectors * v.lanes))
        if self.first is not None:
            full = ir.Constant(full.type, 0)
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
        b.position_at_end(self.stored)

    def _mask(self, j: int):
        """Lanes of column vector `j` that are stored."""
        before = i64(j * self.v.lanes)
        if self.first is None:
            return self.v.first_lanes(self.v.builder.sub(self.columns, before))
        return lanes_between(self.v, *(self.v.builder.sub(bound, before) for bound in (self.first, self.columns)))

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
        clamped = self._clamp() if clamp else lambda value: value
        self._each(
            accumulators,
            residual,
            lambda origin, _: self.v.load(origin),
            lambda value, to, _: store(clamped(value), to),
        )

    def _store_masked(self, accumulators, masks: list, *, residual: bool) -> None:
        v, clamped = self.v, self._clamp()

        def load(origin, j):
            return v.masked_load(origin, masks[j])

        self._each(accumulators, residual, load, lambda value, to, j: v.masked_store(clamped(value), to, masks[j]))

    def _clamp(self) -> Callable:
        """The clamp between bounds that are made vectors here."""
        v, low, high = self.v, self.v.splat(self.alpha), self.v.splat(self.beta)
        return lambda value: v.minimum(high, v.maximum(low, value))

    def _each(self, accumulators, residual: bool, load: Callable, store: Callable) -> None:
        """`store(value, address in C, column vector)` of every accumulator, plus what `load(address, column vector)` finds."""
        b, size = self.v.builder, self.v.nbytes
        c, origins = self.c, self.residual
        for i in range(self.spec.rows):
            for j in range(self.spec.vectors):
                value = accumulators[i * self.spec.vectors + j]
                if residual:
                    value = b.fadd(value, load(offset(b, origins, i64(j * size)), j))
                store(value, offset(b, c, i64(j * size)), j)
            c = offset(b, c, self.c_pitch)
            if residual:
                origins = offset(b, origins, self.residual_pitch)
        b.branch(self.stored)

    def _store_rolled(self, accumulators, no_residual) -> None:
        v, b, spec = self.v, self.v.builder, self.spec
        with b.goto_entry_block():
            copy = b.bitcast(b.alloca(v.type, size=spec.rows * spec.vectors), BYTES)
        for n, value in enumerate(accumulators):
            v.store(value, offset(b, copy, i64(n * v.nbytes)))
        # any address that is mapped, of which no lane is read
        origin = b.select(no_residual, self.c, self.residual)
        read = b.select(no_residual, i64(0), self.columns)
        finish = _emit_activation(b.module, v, spec.vectors)
        first = i64(0) if self.first is None else self.first
        pitches = self.c, self.c_pitch, origin, self.residual_pitch
        b.call(
            finish,
            [copy, i64(spec.rows), *pitches, first, read, self.columns, self.code, self.alpha, self.beta],
        )
        b.branch(self.stored)


def _emit_activation(module, like: Vectors, vectors: int) -> ir.Function:
    """void(sums, rows, C, its pitch, residual, its pitch, the first column, the end of those that it has and of those to store,
    activation code, its scalars).

    One function for tiles of all heights, since activations other than clamps are rare and long.
    """
    name = f"numbaconv_activate_rows_{vectors}_{like.suffix}"
    if (existing := module.globals.get(name)) is not None:
        return existing
    integers = [BYTES, I64, BYTES, I64, BYTES, I64, I64, I64, I64, I64]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [*integers, like.scalar, like.scalar]), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    sums, rows, c, c_pitch, residual, residual_pitch, begin, read, stored, code, alpha, beta = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, like.itemsize, like.lanes)

    def one_row(_, places):
        sums, c, residual = places
        for j in range(vectors):
            at, before = i64(j * v.nbytes), i64(j * v.lanes)
            reads, stores = (lanes_between(v, b.sub(begin, before), b.sub(end, before)) for end in (read, stored))
            value = b.fadd(v.load(offset(b, sums, at)), v.masked_load(offset(b, residual, at), reads))
            v.masked_store(activate(v, value, code, alpha, beta), offset(b, c, at), stores)
        steps = i64(vectors * v.nbytes), c_pitch, residual_pitch
        return [offset(b, place, step) for place, step in zip(places, steps)]

    counted_loop(b, i64(0), rows, 1, [sums, c, residual], one_row, "row")
    b.ret_void()
    return function
