"""What a program does: instructions on tensors, compiled ones and those that run in Python between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np

from numbaconv.epilogue import Activation
from numbaconv.graph.tensors import Tensor
from numbaconv.loops.shares import Shares

#: Compiled work cut for a number of threads.
Work = Callable[[int], Shares]


#: Seconds on one thread from which a step is shared out: to start and to meet the others takes some 5 us.
_SHARED = 20e-6
#: Bytes a second that steps move of which no estimate says more.
_MOVED = 1e10


@dataclass(frozen=True, eq=False)
class Compiled:
    """One share-out of compiled work: `inputs` are x and, where there is one, the residual or second operand.

    Where they are `tabled`, work is given the address of a table of all but x instead, with a 0 at its end.
    `in_place` are those inputs whose memory the output may take over: each element is read before it is written.
    """

    op: str
    label: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    work: Work
    in_place: tuple[int, ...] = ()
    #: what runs, for whoever asks: an algorithm's name, and the convolution that it computes
    algorithm: str = "compiled"
    problem: str | None = None
    #: multiplications and additions, and an estimate of the seconds that they take on one thread
    flops: float = 0.0
    seconds: float | None = None
    tabled: bool = False

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """All tensors that are written."""
        return (self.output,)

    def worth(self, threads: int) -> int:
        """Threads that it is worth sharing out among, so many at most."""
        seconds = self.seconds
        if seconds is None:
            seconds = sum(prod(t.shape) * t.dtype.itemsize for t in (*self.inputs, self.output)) / _MOVED
        return threads if seconds >= _SHARED else 1


@dataclass(frozen=True, eq=False)
class Host:
    """A function of arrays: it takes the inputs (constants, tensors, None) and returns as many results as there are outputs.

    One that goes `into` its output takes that as the keyword `out` instead, as NumPy's own functions do.
    """

    op: str
    label: str
    operands: tuple[Tensor | np.ndarray | None, ...]
    outputs: tuple[Tensor, ...]
    function: Callable[..., Sequence[np.ndarray]]
    algorithm: str = "numpy"
    into: bool = False
    flops: float = 0.0
    in_place: tuple[int, ...] = field(default=(), init=False)
    problem: str | None = field(default=None, init=False)
    seconds: float | None = field(default=None, init=False)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The operands that are computed."""
        return tuple(operand for operand in self.operands if isinstance(operand, Tensor))


Instruction = Compiled | Host


def fused_name(op: str, residual: Tensor | None, activation: Activation) -> str:
    """An operator with what rides in its epilogue."""
    parts = op, "Add" if residual is not None else "", "" if activation.is_identity else str(activation)
    return "+".join(filter(None, parts))
