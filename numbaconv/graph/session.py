"""A model that runs, with the call signatures of ONNX Runtime's session."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numba
import numpy as np

from numbaconv import options
from numbaconv.algorithms.cost import L3_SHARE
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.errors import ModelError
from numbaconv.graph.binding import IOBinding
from numbaconv.graph.feeds import random_feed
from numbaconv.graph.report import ProgramReport

if TYPE_CHECKING:
    from numbaconv.graph.executable import Trail
    from numbaconv.graph.model import ModelMetadata, Value


@dataclass
class SessionOptions:
    """The settings of ONNX Runtime's `SessionOptions` that mean something here; its own objects are taken as well.

    Attributes
    ----------
    intra_op_num_threads : int
        Threads of the session; 0 means those of `numbaconv.set_num_threads`.
    enable_profiling : bool
        Note the seconds of every node in each run, for `InferenceSession.report`.
    """

    intra_op_num_threads: int = 0
    enable_profiling: bool = False


@dataclass(frozen=True)
class NodeRecord:
    """What one node ran: `problem` for convolutions, `seconds` of the last run where profiling is on."""

    name: str
    op: str
    problem: str | None
    algorithm: str | None
    seconds: float | None


class InferenceSession:
    """An ONNX model, planned once and run any number of times, by any number of threads.

    Parameters
    ----------
    path_or_bytes : path or bytes
        A model file or its content.  Data that a model keeps in other files is looked for next to it.
    sess_options : SessionOptions, optional
        Ours or ONNX Runtime's.
    providers, provider_options, **ignored
        Accepted so that calls written for ONNX Runtime work; everything runs on the CPU.

    Raises
    ------
    FileNotFoundError
        The model file is not there.
    ModelError
        The model is damaged, uses an operator that cannot be run, or the `onnx` package is missing.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike | bytes,
        sess_options: SessionOptions | None = None,
        providers: Sequence | None = None,
        provider_options: Sequence[Mapping] | None = None,
        **ignored,
    ):
        try:
            from numbaconv.graph import host, ir, model
            from numbaconv.graph.executable import Executable
            from numbaconv.graph.passes import optimise, pack_weights, weight_bytes
            from numbaconv.graph.trace import Store
        except ModuleNotFoundError as error:
            if (error.name or "").split(".")[0] != "onnx":
                raise
            raise ModelError("models are read with the onnx package: pip install 'numbaconv[onnx]'") from error
        self._options = SessionOptions() if sess_options is None else sess_options
        with self._threads():
            proto = model.read_model(path_or_bytes)
            self._metadata = model.metadata(proto)
            graph, store = ir.read_graph(proto), Store(calibrated_machine())
            # from here on the weights of the file are needed in the graph only, and then only in the nodes that pack them
            del proto
            host.check(graph, store)
            self._inputs, self._outputs = graph.inputs, graph.outputs
            graph = pack_weights(optimise(graph))
            # whatever a layer's own weights take, they have left the caches when its turn comes again
            store.machine = replace(store.machine, weights_kept=weight_bytes(graph) <= L3_SHARE)
            self._executable = Executable(graph, store)
            self._executable.prepare()
        self._trail: Trail = []

    def get_inputs(self) -> list[Value]:
        """The inputs, each with `name`, `shape` and a `type` such as "tensor(float)"."""
        return list(self._inputs)

    def get_outputs(self) -> list[Value]:
        """The outputs, likewise."""
        return list(self._outputs)

    def get_modelmeta(self) -> ModelMetadata:
        """The model's description of itself, such as `producer_name` and `custom_metadata_map`."""
        return self._metadata

    def get_session_options(self) -> SessionOptions:
        """The options that the session was made with."""
        return self._options

    def get_providers(self) -> list[str]:
        """Where the model runs."""
        return ["CPUExecutionProvider"]

    def run(
        self,
        output_names: Sequence[str] | None,
        input_feed: Mapping[str, np.ndarray],
        run_options: object | None = None,
    ) -> list[np.ndarray]:
        """Run the model.

        Parameters
        ----------
        output_names : list of str, optional
            The outputs to return, in this order; all of them where it is None or empty.
        input_feed : mapping of str to numpy.ndarray
            One array for each input.
        run_options
            Accepted and not used.

        Returns
        -------
        list of numpy.ndarray
            Fresh arrays, which later runs do not touch.

        Raises
        ------
        ModelError
            An input is missing, a name is unknown, or an operator failed.
        ShapeError, DTypeError
            An array does not fit what the model declares for the input of its name.
        """
        known = [value.name for value in self._outputs]
        for name in output_names or ():
            if name not in known:
                raise ModelError(f"the model has no output {name!r}; its outputs are {known}")
        results = self._run(input_feed, {})
        return [results[name] for name in output_names or known]

    def _run(
        self, input_feed: Mapping[str, np.ndarray], out: Mapping[str, np.ndarray], timed: bool = False
    ) -> dict[str, np.ndarray]:
        feed = self._checked(input_feed)
        _check_overlap(feed, out)
        trail: Trail = []
        timed = timed or bool(getattr(self._options, "enable_profiling", False))
        with self._threads():
            results = self._executable.run(feed, out, trail, timed)
        self._trail = trail
        return results

    def io_binding(self) -> IOBinding:
        """A binding of arrays to inputs and outputs, for `run_with_iobinding`."""
        return IOBinding([value.name for value in self._inputs], [value.name for value in self._outputs])

    def run_with_iobinding(self, iobinding: IOBinding, run_options: object | None = None) -> None:
        """Run on bound arrays; with arrays bound to all outputs nothing is allocated."""
        out = {name: array for name, array in iobinding.out.items() if array is not None}
        iobinding.keep(self._run(iobinding.feed, out))

    def explain(self, input_feed: Mapping[str, np.ndarray] | None = None, repeat: int = 10) -> ProgramReport:
        """The program for one set of input shapes, and how long each of its steps takes.

        Parameters
        ----------
        input_feed : mapping of str to numpy.ndarray, optional
            As for `run`; by default random numbers of the declared shapes, with 1 for every free dimension.
        repeat : int
            How often each step is timed; the median counts.

        Returns
        -------
        ProgramReport
            One row a step; prints as a table, and writes itself as HTML or PNG.
        """
        feed = random_feed(self._inputs) if input_feed is None else input_feed
        rounds = []
        for _ in range(max(1, repeat) + 1):
            self._run(feed, {}, timed=True)
            rounds.append([second for _, seconds in self._trail for second in seconds])
        instructions = [i for part, _ in self._trail for i in part]
        # the first round compiles
        seconds = np.median(rounds[1:], axis=0).tolist()
        shapes = ", ".join(f"{name} {'x'.join(map(str, np.shape(array)))}" for name, array in feed.items())
        return ProgramReport.of(f"{self._metadata.graph_name} ({shapes})", instructions, seconds)

    def report(self) -> list[NodeRecord]:
        """What the last run did, a record an instruction, in the order in which they ran."""
        return [
            NodeRecord(i.label, i.op, i.problem, i.algorithm, None if seconds is None else seconds[number])
            for instructions, seconds in self._trail
            for number, i in enumerate(instructions)
        ]

    def layers_by_algorithm(self, ops: Sequence[str] = ("Conv", "ConvTranspose")) -> dict[str, int]:
        """How many layers each algorithm ran in the last run, the most frequent first."""
        return dict(Counter(str(r.algorithm) for r in self.report() if r.op.partition("+")[0] in ops).most_common())

    def _threads(self):
        # ONNX Runtime's options say 0 for "decide yourself", and may ask for more threads than Numba has started.
        wanted = min(getattr(self._options, "intra_op_num_threads", 0), numba.config.NUMBA_NUM_THREADS)
        return options.num_threads(wanted if wanted > 0 else options.get_num_threads())

    def _checked(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        inputs = {value.name: value for value in self._inputs}
        for name in feed:
            if name not in inputs:
                raise ModelError(f"the model has no input {name!r}; its inputs are {list(inputs)}")
        checked = {}
        for name, value in inputs.items():
            if name not in feed:
                raise ModelError(f"input {name!r} is missing; fed were {list(feed)}")
            array = feed[name]
            if value.type.startswith("tensor"):
                array = array if isinstance(array, np.ndarray) else np.asarray(array, value.dtype)
                value.check(array)
                # programs read memory: native numbers, one after the other
                array = np.require(array, array.dtype.newbyteorder("="), ("C", "A"))
            checked[name] = array
        return checked


def _check_overlap(feed: Mapping[str, np.ndarray], out: Mapping[str, np.ndarray]) -> None:
    """Raise if a bound output would overwrite an input or another output."""
    taken = [(f"input {name!r}", value) for name, value in feed.items() if isinstance(value, np.ndarray)] if out else []
    for name, array in out.items():
        for other, value in taken:
            if np.may_share_memory(array, value):
                raise ModelError(f"output {name!r} is bound to memory that overlaps {other}")
        taken.append((f"output {name!r}", array))
