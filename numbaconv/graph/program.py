"""A traced graph made ready to run: the arena, and a table of steps that one compiled loop walks."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass

import numpy as np

from numbaconv.codegen.records import STEP
from numbaconv.errors import ConvError, ModelError
from numbaconv.graph.binding import check_output
from numbaconv.graph.instructions import Compiled, Host, Instruction
from numbaconv.graph.memory import plan_arena
from numbaconv.graph.tensors import Place, Tensor
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.ndarrays import address
from numbaconv.loops.shares import run_steps
from numbaconv.workspace import aligned, fresh, rounded

_WORDS = STEP.itemsize // 8
_FIELDS = {name: index for index, name in enumerate(STEP.names)}


class Program:
    """Instructions for one set of input shapes; any number of threads may run it.

    Parameters
    ----------
    instructions : sequence of Instruction
    results : mapping of str to Tensor or ndarray
        What the caller asked for: tensors in memory of the caller, or arrays that are known without running.
    """

    def __init__(self, instructions: Sequence[Instruction], results: Mapping[str, Tensor | np.ndarray]):
        self.instructions = tuple(instructions)
        self.results = dict(results)
        self.arena = plan_arena(self.instructions)
        self._free: defaultdict[int, list[_Bound]] = defaultdict(list)

    def bind(self) -> None:
        """Make a copy ready for the threads that are set now: kernels are compiled and weights packed."""
        threads = usable_threads()
        self._free[threads].append(_Bound(self, threads))

    def run(
        self,
        feed: Mapping[str, np.ndarray],
        out: Mapping[str, np.ndarray] | None = None,
        seconds: MutableSequence[float] | None = None,
    ) -> dict[str, np.ndarray]:
        """Results by name, in fresh arrays or in those of `out`; `seconds` receives the time of each instruction.

        Arrays are contiguous, aligned and of the shapes that the program was traced for.
        """
        out = out or {}
        results = {}
        for name, known in self.results.items():
            given = out.get(name)
            if given is not None:
                check_output(name, given, known.shape, known.dtype)
            if isinstance(known, Tensor):
                results[name] = fresh(known.shape, known.dtype) if given is None else given
            elif given is None:
                results[name] = known.copy()
            else:
                np.copyto(given, known)
                results[name] = given
        threads = usable_threads()
        free = self._free[threads]
        try:
            bound = free.pop()
        except IndexError:
            bound = _Bound(self, threads)
        try:
            bound.run(feed, results, seconds)
        finally:
            free.append(bound)
        return results


@dataclass(frozen=True)
class _Stretch:
    """Neighbouring compiled instructions of one element type."""

    first: int
    count: int
    like: np.floating


class _Bound:
    """A program with memory of its own, for a number of threads; one run at a time."""

    def __init__(self, program: Program, threads: int):
        self._threads = threads
        self._offsets = program.arena.offsets
        self._instructions = program.instructions
        works = [i.work(i.worth(threads)) if isinstance(i, Compiled) else None for i in program.instructions]
        workspace = max((work.pitch * work.rows * work.columns for work in works if work), default=0)
        start = rounded(program.arena.nbytes)
        self._memory = aligned(start + workspace)
        self._base = self._memory.ctypes.data
        self._keep = works
        # behind the steps, tables of operands, each with a 0 at its end
        tables = [len(i.inputs) if isinstance(i, Compiled) and i.tabled else 0 for i in program.instructions]
        self._words = np.zeros(len(works) * _WORDS + sum(tables), np.int64)
        self._steps = self._words[: len(works) * _WORDS].view(STEP)
        self._address = self._words.ctypes.data
        #: for each array of the caller, the words that hold its address, and what to add to it
        self._patches: defaultdict[tuple[Place, str], list[tuple[int, int]]] = defaultdict(list)
        table = len(works) * _WORDS
        for number, (instruction, work) in enumerate(zip(program.instructions, works)):
            if work is not None:
                self._fill(number, instruction, work, self._base + start, table)
            table += tables[number]
        self._stretches = self._cut(works)

    def _fill(self, number: int, instruction: Compiled, work, workspace: int, table: int) -> None:
        step, words = self._steps[number], number * _WORDS
        for name in ("function", "rows", "columns", "record", "pitch", "alpha", "beta"):
            step[name] = getattr(work, name)
        step["workspace"] = workspace
        x, *others = instruction.inputs
        self._place(x, words + _FIELDS["x"])
        self._place(instruction.output, words + _FIELDS["out"])
        if instruction.tabled:
            step["residual"] = self._address + 8 * table
        for place, tensor in enumerate(others, table if instruction.tabled else words + _FIELDS["residual"]):
            self._place(tensor, place)

    def _place(self, tensor: Tensor, word: int) -> None:
        """Put the address of a tensor into a word, now or, where it is one of the caller's, in each run."""
        buffer = tensor.buffer.root()
        if buffer.place in (Place.INPUT, Place.OUTPUT):
            self._patches[buffer.place, buffer.name].append((word, tensor.start))
        elif buffer.place is Place.CONSTANT:
            self._words[word] = buffer.array.ctypes.data + tensor.start
        else:
            self._words[word] = self._base + self._offsets[buffer] + tensor.start

    def _cut(self, works) -> list[_Stretch | int]:
        """Compiled stretches, and the numbers of host steps between them."""
        stretches: list[_Stretch | int] = []
        for number, work in enumerate(works):
            if work is None:
                stretches.append(number)
                continue
            last = stretches[-1] if stretches else None
            if isinstance(last, _Stretch) and last.like.dtype == work.alpha.dtype:
                stretches[-1] = _Stretch(last.first, last.count + 1, last.like)
            else:
                stretches.append(_Stretch(number, 1, work.alpha.dtype.type(0)))
        return stretches

    def run(self, feed: Mapping[str, np.ndarray], results: Mapping[str, np.ndarray], seconds) -> None:
        """Run all steps on the caller's arrays."""
        external = {Place.INPUT: feed, Place.OUTPUT: results}
        for (place, name), words in self._patches.items():
            first = address(external[place][name])
            for word, start in words:
                self._words[word] = first + start
        for stretch in self._stretches:
            if isinstance(stretch, int):
                began = time.perf_counter()
                self._host(self._instructions[stretch], external)
                if seconds is not None:
                    seconds.append(time.perf_counter() - began)
            elif seconds is None:
                run_steps(self._address + stretch.first * STEP.itemsize, stretch.count, stretch.like, self._threads)
            else:
                for number in range(stretch.first, stretch.first + stretch.count):
                    began = time.perf_counter()
                    run_steps(self._address + number * STEP.itemsize, 1, stretch.like, self._threads)
                    seconds.append(time.perf_counter() - began)

    def _host(self, instruction: Host, external: Mapping[Place, Mapping[str, np.ndarray]]) -> None:
        operands = [
            self._array(operand, external) if isinstance(operand, Tensor) else operand
            for operand in instruction.operands
        ]
        try:
            # operators such as Log meet numbers outside of their domain on the way to results that are right
            with np.errstate(all="ignore"):
                if instruction.into:
                    instruction.function(*operands, out=self._array(instruction.outputs[0], external))
                    return
                results = instruction.function(*operands)
            for tensor, result in zip(instruction.outputs, results, strict=True):
                np.copyto(self._array(tensor, external), result, casting="no")
        except ConvError as error:
            raise type(error)(f"node {instruction.label!r} ({instruction.op}): {error}") from error
        except MemoryError:
            raise
        except Exception as error:
            raise ModelError(
                f"node {instruction.label!r} ({instruction.op}) failed: {type(error).__name__}: {error}"
            ) from error

    def _array(self, tensor: Tensor, external: Mapping[Place, Mapping[str, np.ndarray]]) -> np.ndarray:
        """The elements of a tensor in this copy of the program."""
        buffer = tensor.buffer.root()
        if buffer.place in (Place.INPUT, Place.OUTPUT):
            base, start = external[buffer.place][buffer.name], tensor.start
        elif buffer.place is Place.CONSTANT:
            base, start = buffer.array, tensor.start
        else:
            base, start = self._memory, self._offsets[buffer] + tensor.start
        memory = base.reshape(-1).view(np.uint8) if base.flags.c_contiguous else base
        return np.ndarray(tensor.shape, tensor.dtype, memory, start, tensor.view.strides)
