"""Inputs and outputs that stay bound to arrays between runs, with the names that ONNX Runtime gives this."""

from __future__ import annotations

import ctypes
from math import prod

import numpy as np

from numbaconv.errors import DTypeError, ModelError, ShapeError


class IOBinding:
    """Arrays of one session's inputs and outputs; `InferenceSession.run_with_iobinding` allocates nothing for bound outputs.

    Inputs are read where they are at each run; bound outputs are overwritten.
    """

    def __init__(self, inputs: list[str], outputs: list[str]):
        self._inputs, self._outputs = inputs, outputs
        self.feed: dict[str, np.ndarray] = {}
        self.out: dict[str, np.ndarray | None] = {}
        self._results: dict[str, np.ndarray] = {}

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        """Feed this array in all runs from now on."""
        if name not in self._inputs:
            raise ModelError(f"the model has no input {name!r}; its inputs are {self._inputs}")
        self.feed[name] = array

    def bind_input(self, name, device_type, device_id, element_type, shape, buffer_ptr) -> None:
        """Feed the memory at an address, which must stay valid, as an array of that type and shape."""
        _check_device(device_type)
        self.bind_cpu_input(name, _at(buffer_ptr, element_type, shape))

    def bind_output(
        self, name, device_type="cpu", device_id=0, element_type=None, shape=None, buffer_ptr=None, array=None
    ) -> None:
        """Ask for an output: in new memory, in the memory at an address, or in `array`."""
        if name not in self._outputs:
            raise ModelError(f"the model has no output {name!r}; its outputs are {self._outputs}")
        _check_device(device_type)
        if array is not None:
            flags = array.flags
            if not (flags.c_contiguous and flags.writeable and flags.aligned):
                raise ModelError(f"output {name!r} can only be bound to a contiguous, aligned and writable array")
        elif buffer_ptr is not None:
            array = _at(buffer_ptr, element_type, shape)
        self.out[name] = array

    def clear_binding_inputs(self) -> None:
        """Forget the inputs."""
        self.feed.clear()

    def clear_binding_outputs(self) -> None:
        """Forget the outputs."""
        self.out.clear()

    def keep(self, results: dict[str, np.ndarray]) -> None:
        """Remember what a run gave."""
        self._results = results

    def get_outputs(self) -> list[np.ndarray]:
        """The results of the last run, in the order in which the outputs were bound."""
        return [self._results[name] for name in self.out]

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        """The same; results are in the computer's memory already."""
        return self.get_outputs()


def check_output(name: str, array: np.ndarray, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise if an array cannot hold an output."""
    if array.dtype != dtype:
        raise DTypeError(f"output {name!r} is bound to an array of {array.dtype}, the result is {dtype}")
    if array.shape != shape:
        raise ShapeError(f"output {name!r} is bound to an array of shape {array.shape}, the result has shape {shape}")


def _check_device(device_type: str) -> None:
    if device_type != "cpu":
        raise ModelError(f"device_type={device_type!r} is not here; everything runs on the CPU")


def _at(address: int, element_type, shape) -> np.ndarray:
    dtype = np.dtype(element_type)
    memory = (ctypes.c_char * (prod(shape) * dtype.itemsize)).from_address(int(address))
    return np.frombuffer(memory, dtype).reshape(tuple(shape))
