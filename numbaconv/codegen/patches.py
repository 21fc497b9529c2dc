"""Patches of a block that was split: what a position meets, put side by side, so that one register has all of it."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.amx import DEPTH, ROW_BYTES
from numbaconv.codegen.halves import WORDS
from numbaconv.codegen.vector import BYTES, I32, I64, Vectors, branch_to, counted_loop, i64, load_i64, offset

#: Runs of neighbouring elements that a step of K has at most.
PIECES = 5
#: Positions whose patches are made of the same loads.
TOGETHER = 2, 4
#: Integers that a table has for a step: how many pieces; where each one's run begins, which of its elements comes first, and a bit
#: for each element of the step that it has.
_PIECE = 3
ENTRIES = 1 + _PIECE * PIECES

_ARGUMENTS = [BYTES, I64, I64, BYTES, I64, I64, BYTES, I64, I64, I64]


def _emit(module) -> ir.Function:
    """void(to, pitch, to_low, x, x_step, low, table, steps, count, together): see `gather_patches`."""
    name = "f32_gather_patches"
    if (existing := module.globals.get(name)) is not None:
        return existing
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), _ARGUMENTS), name)
    function.linkage = "internal"
    function.attributes.add("noinline")
    to, pitch, to_low, x, x_step, low, table, steps, count, together = function.args
    b = ir.IRBuilder(function.append_basic_block("entry"))
    v = Vectors(b, 4, DEPTH // 2)
    word, mask_type = WORDS.element, ir.VectorType(ir.IntType(1), DEPTH)

    def everywhere(number):
        first = b.insert_element(ir.Constant(WORDS, ir.Undefined), b.trunc(number, word), ir.Constant(I32, 0))
        return b.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, DEPTH), None))

    def load(pointer):
        return b.load(b.bitcast(pointer, WORDS.as_pointer()), align=2)

    def picked(row, order, mask, value):
        return b.select(mask, v.call("llvm.x86.avx512.permvar.hi.512", WORDS, row, order), value)

    def one_step(_, places):
        to, table = places

        def case(pieces, abreast):
            def patches():
                entries = [[load_i64(b, table, 1 + _PIECE * n + i) for i in range(_PIECE)] for n in range(pieces)]
                runs, firsts, bits = zip(*entries)
                masks = [b.bitcast(b.trunc(own, I32), mask_type) for own in bits]
                lanes, apart = ir.Constant(WORDS, list(range(DEPTH))), b.lshr(x_step, i64(1))
                orders = [
                    [b.add(lanes, everywhere(b.add(first, b.mul(apart, i64(i))))) for first in firsts]
                    for i in range(abreast)
                ]

                def positions(_, places):
                    to, x = places
                    for source, target in ((x, to), (offset(b, x, low), offset(b, to, to_low))):
                        rows = [load(offset(b, source, run)) for run in runs]
                        for i, own in enumerate(orders):
                            value = ir.Constant(WORDS, None)
                            for row, order, mask in zip(rows, own, masks):
                                value = picked(row, order, mask, value)
                            at = offset(b, target, b.mul(pitch, i64(i)))
                            b.store(value, b.bitcast(at, WORDS.as_pointer()), align=ROW_BYTES)
                    return [offset(b, place, b.mul(step, i64(abreast))) for place, step in ((to, pitch), (x, x_step))]

                counted_loop(b, i64(0), count, abreast, [to, x], positions, "positions")

            return patches

        many = b.zext(b.icmp_signed("==", together, i64(TOGETHER[1])), I64)
        number = b.add(b.mul(many, i64(PIECES)), b.sub(load_i64(b, table), i64(1)))
        branch_to(b, number, [case(pieces, abreast) for abreast in TOGETHER for pieces in range(1, PIECES + 1)])
        return [offset(b, to, i64(ROW_BYTES)), offset(b, table, i64(8 * ENTRIES))]

    counted_loop(b, i64(0), steps, 1, [to, table], one_step, "step")
    b.ret_void()
    return function


@intrinsic
def gather_patches(typingctx, to, pitch, to_low, x, x_step, low, table, steps, count, together):
    """High parts of `count` patches of `steps` x 32 elements, `pitch` bytes apart, from positions `x_step` bytes apart.

    Low parts lie `low` bytes after the high ones there and `to_low` here.  `together`, one of `TOGETHER`, says how many patches
    have their elements of a run in the 64 bytes from where the first one's begins; there has to be room for whole numbers of those.
    `table` has `ENTRIES` integers a step.  Elements in no run are zeros.
    """

    def codegen(context, builder, signature, arguments):
        operands = [builder.inttoptr(x, BYTES) if t is BYTES else x for x, t in zip(arguments, _ARGUMENTS)]
        builder.call(_emit(builder.module), operands)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 10), codegen
