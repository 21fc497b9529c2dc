"""One step of the recurrent cells LSTM and GRU: gates of one sequence, vector by vector."""

from __future__ import annotations

from numba import types
from numba.extending import intrinsic

from numbaconv.codegen.activations import ACTIVATIONS
from numbaconv.codegen.reduce import pointer, vectors_like
from numbaconv.codegen.rows import each_vector
from numbaconv.codegen.vector import Vectors, i64, offset


class _Gates:
    """Vectors of the gates, `count` elements apart: what x gives, what the last result gives, and functions of their sum."""

    def __init__(self, v: Vectors, load, count, from_x, from_h):
        self._v, self._load, self._from_x, self._from_h = v, load, from_x, from_h
        self._pitch = v.builder.mul(count, i64(v.itemsize))

    def _at(self, start, number: int):
        return self._load(offset(self._v.builder, start, self._v.builder.mul(self._pitch, i64(number))))

    def parts(self, number: int):
        return self._at(self._from_x, number), self._at(self._from_h, number)

    def activated(self, number: int, kind: str):
        v = self._v
        return ACTIVATIONS[kind](v, v.builder.fadd(*self.parts(number)), None, None)


def _cell(like, step):
    """An intrinsic's signature and code for `step(v, gates, load, store, state)`, which advances a run of elements."""

    def codegen(context, builder, signature, arguments):
        *addresses, count, _ = arguments
        out, state, from_x, from_h = (pointer(builder, address) for address in addresses)
        v = vectors_like(builder, like)

        def emit(load, store, mask, carried):
            step(v, _Gates(v, load, count, from_x, from_h), load, store, out, state)
            return []

        each_vector(v, count, [], emit, "cell")
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 5, like), codegen


@intrinsic
def lstm_cell(typingctx, out, state, from_x, from_h, count, like):
    """c = f c + i g and out = o tanh(c) for `count` elements of gates i, o, f and g; the state is c."""

    def step(v, gates, load, store, out, state):
        b = v.builder
        enter, leave, keep = (gates.activated(number, "sigmoid") for number in range(3))
        c = v.fma(keep, load(state), b.fmul(enter, gates.activated(3, "tanh")))
        store(c, state)
        store(b.fmul(leave, ACTIVATIONS["tanh"](v, c, None, None)), out)

    return _cell(like, step)


@intrinsic
def gru_cell(typingctx, out, state, from_x, from_h, count, like):
    """out = n + z (h - n), where n = tanh(x + r h'), for `count` elements of gates z, r and n; the state is the last result h."""

    def step(v, gates, load, store, out, state):
        b = v.builder
        z, r = (gates.activated(number, "sigmoid") for number in range(2))
        from_x, from_h = gates.parts(2)
        n = ACTIVATIONS["tanh"](v, v.fma(r, from_h, from_x), None, None)
        h = v.fma(z, b.fsub(load(state), n), n)
        store(h, state)
        store(h, out)

    return _cell(like, step)
