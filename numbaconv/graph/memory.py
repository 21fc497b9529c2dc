"""Where the tensors of a program lie: lifetimes are known, so one arena holds them all, and operands that die are overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from numbaconv.graph.instructions import Instruction
from numbaconv.graph.tensors import Buffer, Place
from numbaconv.workspace import rounded


@dataclass(frozen=True)
class Arena:
    """Bytes of the arena, and of each buffer in it the distance from its start."""

    nbytes: int
    offsets: dict[Buffer, int]


def plan_arena(instructions: Sequence[Instruction]) -> Arena:
    """Share memory in place where that is legal, then place what remains, the largest first, at the lowest address that is free.

    Largest first is the "greedy by size" of Pisarchyk and Lee, "Efficient memory management for deep neural net inference" (2020).
    """
    lives = _lifetimes(instructions)
    for number, instruction in enumerate(instructions):
        _share_operand(instruction, number, lives)
    placed: list[tuple[int, int, tuple[int, int]]] = []
    offsets: dict[Buffer, int] = {}
    for buffer in sorted(lives, key=lambda buffer: -buffer.nbytes):
        first, last = lives[buffer]
        nbytes, at = rounded(max(buffer.nbytes, 1)), 0
        # those that live at the same time, in the order of their addresses
        for start, end, (begin, until) in sorted(placed):
            if begin <= last and first <= until:
                if at + nbytes <= start:
                    break
                at = max(at, end)
        placed.append((at, at + nbytes, (first, last)))
        offsets[buffer] = at
    return Arena(max((end for _, end, _ in placed), default=0), offsets)


def _lifetimes(instructions: Sequence[Instruction]) -> dict[Buffer, tuple[int, int]]:
    """First and last instruction that touch each buffer of the arena."""
    lives: dict[Buffer, tuple[int, int]] = {}
    for number, instruction in enumerate(instructions):
        for tensor in (*instruction.inputs, *instruction.outputs):
            buffer = tensor.buffer.root()
            if buffer.place is Place.ARENA:
                lives[buffer] = lives.get(buffer, (number, number))[0], number
    return lives


def _share_operand(instruction: Instruction, number: int, lives: dict[Buffer, tuple[int, int]]) -> None:
    """Let the output take over the memory of an operand that nothing reads later."""
    for index in instruction.in_place:
        operand, output = instruction.inputs[index], instruction.outputs[0]
        before, after = operand.buffer.root(), output.buffer.root()
        others = [tensor.buffer.root() for i, tensor in enumerate(instruction.inputs) if i != index]
        if (
            before in lives
            and after in lives
            and lives[before][1] == number == lives[after][0]
            and before not in others
            and before.nbytes == after.nbytes == output.view.nbytes
            and operand.dtype == output.dtype
            and operand.view.strides == output.view.strides
        ):
            after.shared = before
            lives[before] = lives[before][0], lives.pop(after)[1]
            return
