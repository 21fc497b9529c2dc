"""Vectors of floats as LLVM values: loads, stores, masks, broadcasts and counted loops, for any element type and lane count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir
from numba.core import cgutils

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
BYTES = I8.as_pointer()
FLOATS = {4: ir.FloatType(), 8: ir.DoubleType()}
NAMES = {4: "f32", 8: "f64"}


def i64(value: int) -> ir.Constant:
    """A 64-bit constant."""
    return ir.Constant(I64, value)


def offset(builder, pointer, nbytes):
    """`pointer` moved by a number of bytes."""
    return builder.gep(pointer, [nbytes])


def load_i64(builder, pointer, index: int = 0):
    """The 64-bit integer number `index` behind `pointer`."""
    slot = offset(builder, pointer, i64(8 * index)) if index else pointer
    return builder.load(builder.bitcast(slot, I64.as_pointer()), align=8)


class Vectors:
    """Operations on vectors of one element size and lane count, emitted into a builder."""

    def __init__(self, builder, itemsize: int, lanes: int, fused: bool = True):
        self.builder, self.itemsize, self.lanes = builder, itemsize, lanes
        self.scalar = FLOATS[itemsize]
        self.type = ir.VectorType(self.scalar, lanes)
        self.integer = ir.VectorType(ir.IntType(8 * itemsize), lanes)
        self.mask_type = ir.VectorType(I1, lanes)
        self.suffix = f"v{lanes}{NAMES[itemsize]}"
        self.fused = fused

    @property
    def nbytes(self) -> int:
        """Bytes of one vector."""
        return self.lanes * self.itemsize

    def constant(self, value: float):
        """The same number in every lane."""
        return ir.Constant(self.type, [ir.Constant(self.scalar, float(value))] * self.lanes)

    def integers(self, value: int):
        """The same integer in every lane, of the element's width."""
        return ir.Constant(self.integer, [value] * self.lanes)

    def splat(self, scalar):
        """Broadcast a scalar, a float or an integer of the elements' width, to all lanes."""
        builder = self.builder
        undefined = ir.Constant(ir.VectorType(scalar.type, self.lanes), ir.Undefined)
        first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, self.lanes), None))

    def load_scalar(self, pointer):
        """One element."""
        return self.builder.load(self.builder.bitcast(pointer, self.scalar.as_pointer()), align=self.itemsize)

    def load(self, pointer):
        """One vector, aligned to its elements only."""
        return self.builder.load(self.builder.bitcast(pointer, self.type.as_pointer()), align=self.itemsize)

    def load_integers(self, pointer):
        """One vector of integers of the elements' width."""
        return self.builder.load(self.builder.bitcast(pointer, self.integer.as_pointer()), align=self.itemsize)

    def store(self, vector, pointer):
        """Write one vector, aligned to its elements only."""
        self.builder.store(vector, self.builder.bitcast(pointer, self.type.as_pointer()), align=self.itemsize)

    def stream(self, vector, pointer) -> None:
        """Write one vector, aligned to its size, past the caches: its lines are not read first."""
        store = self.builder.store(vector, self.builder.bitcast(pointer, self.type.as_pointer()), align=self.nbytes)
        store.set_metadata("nontemporal", self.builder.module.add_metadata([ir.Constant(I32, 1)]))

    def intrinsic(self, name: str, *arguments):
        """Call the LLVM intrinsic `llvm.<name>` that works lane by lane on our vectors."""
        return self.call(f"llvm.{name}.{self.suffix}", self.type, *arguments)

    def call(self, symbol: str, result, *arguments):
        """Call a function of the module by its name."""
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, function_type, symbol), arguments)

    @property
    def scales(self) -> bool:
        """Whether there is an instruction for `times_power_of_two`: AVX-512 has one."""
        return self.nbytes == 64

    def times_power_of_two(self, x, n):
        """x * 2**n for whole n, to infinity and to zero at the ends of the range."""
        everywhere, current = ir.Constant(ir.IntType(max(self.lanes, 8)), -1), ir.Constant(I32, 4)
        name = {4: "ps", 8: "pd"}[self.itemsize]
        return self.call(f"llvm.x86.avx512.mask.scalef.{name}.512", self.type, x, n, x, everywhere, current)

    def fma(self, a, b, c):
        """a * b + c, in one rounding where the machine has the instruction."""
        return self.intrinsic("fma" if self.fused else "fmuladd", a, b, c)

    def maximum(self, bound, value):
        """The larger one; a NaN in `value` stays (x86's max returns its second operand, and so does this select)."""
        return self.builder.select(self.builder.fcmp_ordered(">", bound, value), bound, value)

    def minimum(self, bound, value):
        """The smaller one; a NaN in `value` stays."""
        return self.builder.select(self.builder.fcmp_ordered("<", bound, value), bound, value)

    def larger_magnitude(self, x, y):
        """The larger magnitude, lane by lane; a number rather than a NaN.  AVX-512 has an instruction for it."""
        wanted, current = ir.Constant(I32, 0b1011), ir.Constant(I32, 4)
        everywhere = ir.Constant(ir.IntType(self.lanes), -1)
        return self.call("llvm.x86.avx512.mask.range.ps.512", self.type, x, y, wanted, x, everywhere, current)

    def first_lanes(self, count):
        """Mask of the lanes below `count`, a 64-bit integer that may be negative or too large."""
        builder = self.builder
        lane = ir.Constant(ir.VectorType(I32, self.lanes), list(range(self.lanes)))
        limit = builder.insert_element(
            ir.Constant(lane.type, ir.Undefined), builder.trunc(count, I32), ir.Constant(I32, 0)
        )
        limit = builder.shuffle_vector(limit, limit, ir.Constant(lane.type, [0] * self.lanes))
        return builder.icmp_signed("<", lane, limit)

    def prefetch(self, pointer, near: bool = True, *, write: bool = False) -> None:
        """Ask for the cache line behind a pointer, which may lie outside of all arrays: into the L1, or no nearer than the L2, to
        be read or to be written."""
        access, keep, data = (ir.Constant(I32, n) for n in (int(write), 3 if near else 2, 1))
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, access, keep, data)

    def masked_load(self, pointer, mask):
        """Lanes where the mask is false are zero and their memory is not touched."""
        typed = self.builder.bitcast(pointer, self.type.as_pointer())
        return self.call(
            f"llvm.masked.load.{self.suffix}.p0",
            self.type,
            typed,
            ir.Constant(I32, self.itemsize),
            mask,
            self.constant(0.0),
        )

    def masked_store(self, vector, pointer, mask):
        """Lanes where the mask is false leave their memory alone."""
        typed = self.builder.bitcast(pointer, self.type.as_pointer())
        self.call(
            f"llvm.masked.store.{self.suffix}.p0", ir.VoidType(), vector, typed, ir.Constant(I32, self.itemsize), mask
        )


def lanes_between(v: Vectors, begin, end):
    """Mask of the lanes from `begin` to below `end`, 64-bit integers that may be negative or too large."""
    return v.builder.and_(v.first_lanes(end), v.builder.not_(v.first_lanes(begin)))


def counted_loop(builder, start, stop, step: int, carried: Sequence, body: Callable, name: str) -> list:
    """`for i in range(start, stop, step): carried = body(i, carried)` with all carried values in registers.

    Tested at the bottom, guarded at the top; `body` may open blocks of its own.  Returns the values after the loop.
    """
    entry = builder.block
    loop, done = builder.append_basic_block(name), builder.append_basic_block(name + ".end")
    builder.cbranch(builder.icmp_signed("<", start, stop), loop, done)
    builder.position_at_end(loop)
    index = builder.phi(I64)
    values = [builder.phi(value.type) for value in carried]
    new = body(index, values)
    following = builder.add(index, i64(step))
    latch = builder.block
    builder.cbranch(builder.icmp_signed("<", following, stop), loop, done)
    index.add_incoming(start, entry)
    index.add_incoming(following, latch)
    builder.position_at_end(done)
    results = [builder.phi(value.type) for value in carried]
    for before, phi, after, result in zip(carried, values, new, results):
        phi.add_incoming(before, entry)
        phi.add_incoming(after, latch)
        result.add_incoming(before, entry)
        result.add_incoming(after, latch)
    return results


def values_if(builder, condition, values: list, emit: Callable[[list], list]) -> list:
    """`emit(values)` where a condition holds, or the values as they are; without a condition it always holds."""
    if condition is None:
        return emit(values)
    before, then, done = builder.block, builder.append_basic_block("then"), builder.append_basic_block("then.done")
    builder.cbranch(condition, then, done)
    builder.position_at_end(then)
    new = emit(values)
    after = builder.block
    builder.branch(done)
    builder.position_at_end(done)
    results = []
    for value, changed in zip(values, new):
        if changed is not value:
            phi = builder.phi(value.type)
            phi.add_incoming(value, before)
            phi.add_incoming(changed, after)
            changed = phi
        results.append(changed)
    return results


def _halved(builder, number, cases: Sequence[Callable[[], None]]) -> None:
    """Emit code that finds `number` among the cases by halving; each of them ends its block.

    A jump through a table would be predicted badly or, under some mitigations, not at all, which costs as much as a small tile's
    arithmetic.
    """

    def emit(first: int, last: int) -> None:
        if last - first == 1:
            cases[first]()
            return
        middle = (first + last) // 2
        low, high = builder.append_basic_block(f"below.{middle}"), builder.append_basic_block(f"from.{middle}")
        builder.cbranch(builder.icmp_signed("<", number, i64(middle)), low, high)
        for block, bounds in ((low, (first, middle)), (high, (middle, last))):
            builder.position_at_end(block)
            emit(*bounds)

    emit(0, len(cases))


def branch_to(builder, number, cases: Sequence[Callable[[], None]]) -> None:
    """Run `cases[number]()` for a number in their range."""
    done = builder.append_basic_block("cases.done")

    def case(emit):
        def run():
            emit()
            builder.branch(done)

        return run

    _halved(builder, number, [case(emit) for emit in cases])
    builder.position_at_end(done)


def values_between(builder, first, last, values: list, steps: Sequence[Callable[[list], list]]) -> list:
    """The values after `steps[first]` to the one before `steps[last]`, at least one: straight-line code that is entered and left
    in its middle.
    """
    blocks = [builder.append_basic_block(f"step.{number}") for number in range(len(steps))]
    done = builder.append_basic_block("steps.done")
    entries: dict[int, ir.Block] = {}
    exits: list[tuple[ir.Block, list]] = []

    def enter(number: int):
        def run():
            entries[number] = builder.block
            builder.branch(blocks[number])

        return run

    _halved(builder, first, [enter(number) for number in range(len(steps))])
    for number, (block, step) in enumerate(zip(blocks, steps)):
        builder.position_at_end(block)
        entered = [builder.phi(value.type) for value in values]
        for block_before, incoming in [(entries[number], values), *exits[-1:]]:
            for phi, value in zip(entered, incoming):
                phi.add_incoming(value, block_before)
        new = step(entered)
        exits.append((builder.block, new))
        if number + 1 < len(steps):
            builder.cbranch(builder.icmp_signed("==", last, i64(number + 1)), done, blocks[number + 1])
        else:
            builder.branch(done)
    builder.position_at_end(done)
    results = [builder.phi(value.type) for value in values]
    for block, new in exits:
        for phi, value in zip(results, new):
            phi.add_incoming(value, block)
    return results
