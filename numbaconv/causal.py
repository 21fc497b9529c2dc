"""Causal convolution of signals that arrive in pieces: each output sees its own input and those before it, never the future.

Van den Oord et al., "WaveNet" (2016); states that are kept between samples: Le Paine et al., "Fast WaveNet Generation" (2016).
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from numbaconv.accuracy import STRICT
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.arguments import NAMES, operand, plain, result_array
from numbaconv.base_layer import BaseLayer
from numbaconv.dispatch.select import choose, make_plan
from numbaconv.epilogue import Epilogue
from numbaconv.errors import ShapeError, UnsupportedError
from numbaconv.layers import ConvLayer
from numbaconv.problem import ConvProblem

#: Length of the signals that the algorithm is chosen for, so long that no other length makes it refuse; it then stays, since
#: another one may round otherwise.
_LONG = 1 << 24
#: Samples besides the history that a state has room for: longer chunks are taken in pieces of so many.
_ROOM = 4096


class CausalConv1d(ConvLayer):
    """A causal convolution layer over signals, whole or in chunks: ``activation(conv(x, weight) + bias)``.

    Parameters
    ----------
    weight : array, (c_out, c_in / groups, k)
        float32 or float64, whatever `layout` says; copied and packed here.
    bias : array, (c_out,), optional
        The same dtype.
    stride, dilation, groups : int
        At least 1.
    layout : {"channels_first", "channels_last"}
        Of `x` and the result: (n, c, length) or (n, length, c).
    activation : None, str or tuple
        As for `Conv2d`.

    Raises
    ------
    ShapeError
        If a shape, stride, dilation or group count breaks a rule.
    DTypeError
        If an array is neither float32 nor float64, or dtypes are mixed.
    ConvError
        If the activation is unknown.

    Notes
    -----
    Output number i is the sum over taps t of ``weight[..., t] * x[i * stride - (k - 1 - t) * dilation]``, where zeros stand before
    the signal; a signal of length l has ceil(l / stride) outputs.  Products are added directly by one algorithm, the same for
    signals of all lengths, so that for finite weights a `stream` gives the very bits of the whole signal, however it is cut.
    """

    axes = 1

    def __init__(
        self,
        weight,
        bias=None,
        stride=1,
        dilation=1,
        groups=1,
        *,
        layout="channels_first",
        activation=None,
    ):
        super().__init__(
            weight, bias, stride, "causal", dilation, groups, layout=layout, activation=activation, accuracy="strict"
        )
        if bias is not None:
            # adding the zeros before the signal would turn -0.0 into 0.0, leaving them out would not
            self._weights.bias += 0
        self.channels = self._weights.shape[1] * self._weights.groups
        long = self._problem_last((1, _LONG, self.channels), "causal")
        self.stride, self.history = long.stride[0], long.extent[0] - 1
        self._epilogue = Epilogue(long.bias, False, self.activation)
        self._one = choose(long, self._epilogue, accuracy=STRICT).name
        self._windows = _Windows(self)

    def __reduce__(self):
        # plans hold addresses, so a copy in another process packs and plans afresh
        geometry = {name: self._geometry[name] for name in ("stride", "dilation", "groups", "layout")}
        return functools.partial(CausalConv1d, **geometry, activation=self.activation), self._weights.unpacked()

    def _problem_last(self, x_shape: tuple[int, ...], padding) -> ConvProblem:
        """The problem of channels-last signals of this shape."""
        geometry = dict(self._geometry, padding=padding, layout="channels_last")
        bias = self._weights.bias is not None
        return ConvProblem.of(x_shape, self._weights.shape, **geometry, dtype=NAMES[self.dtype], bias=bias)

    def _plan_last(self, problem: ConvProblem):
        """The plan of a channels-last problem, always by the same algorithm."""
        return make_plan(problem, self._epilogue, self._weights, self._one, STRICT)

    def _make_plan(self, x_shape, residual, accuracy):
        if residual:
            raise UnsupportedError("residual is given; a causal layer adds none, since a stream has none to add")
        problem = self.problem(x_shape)
        plan = self._plan_last(dataclasses.replace(problem, layout="channels_last"))
        return ChannelsFirst(plan, problem) if self.layout == "channels_first" else plan, problem.output_shape

    def stream(self) -> StreamState:
        """A new signal that arrives in chunks; see `StreamState`."""
        return StreamState(self)


class _Windows(BaseLayer):
    """The layer on stretches of one channels-last signal that begin with all the history they need."""

    axes = 1

    def __init__(self, layer: CausalConv1d):
        super().__init__(layer.dtype, "strict")
        self._layer = layer

    def _make_plan(self, x_shape, residual, accuracy):
        problem = self._layer._problem_last(x_shape, 0)
        return self._layer._plan_last(problem), problem.output_shape


class StreamState:
    """What a `CausalConv1d` has to remember of a signal, or of a batch of them, to go on with the next chunk.

    Made by `CausalConv1d.stream`.  Not to be used by several threads at once.
    """

    def __init__(self, layer: CausalConv1d):
        self._layer = layer
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next chunk begins a new signal, or a batch of another size."""
        #: samples so far
        self.position = 0
        self._buffer: np.ndarray | None = None
        self._batched, self._end = False, 0

    def copy(self) -> StreamState:
        """A state that goes on from here by itself."""
        other = StreamState(self._layer)
        other.__dict__ |= self.__dict__
        other._buffer = None if self._buffer is None else self._buffer.copy()
        return other

    def __call__(self, chunk, *, out=None) -> np.ndarray:
        """Take the next samples and return the outputs that they complete.

        Parameters
        ----------
        chunk : array, (n, c_in, length) or (n, length, c_in) as the layer's layout says, or without n
            Any length, zero included; n stays what it was in the first chunk.
        out : ndarray of the result's shape, optional
            Where the result goes; it must not overlap `chunk`.

        Returns
        -------
        ndarray
            (n, c_out, new) or (n, new, c_out), where all results together are ``layer(whole signal)``, bit for bit.

        Raises
        ------
        ShapeError
            If the chunk's channels are not the layer's, or its batch is not that of the chunks before.
        DTypeError
            If its dtype is not the layer's.
        """
        layer = self._layer
        chunk = operand("chunk", chunk, layer.dtype, "weight")
        last = self._checked(chunk)
        length = last.shape[1]
        first = -self.position % layer.stride
        count = -(-(length - first) // layer.stride) if length > first else 0
        shape = (last.shape[0], count, layer._weights.shape[0])
        if layer.layout == "channels_first":
            shape = (shape[0], shape[2], shape[1])
        shape = shape if chunk.ndim == 3 else shape[1:]
        result = (
            np.empty(shape, layer.dtype) if out is None else result_array(out, shape, layer.dtype, {"chunk": chunk})
        )
        self._remember_batch(chunk)
        target = result if layer.layout == "channels_last" else result.swapaxes(-1, -2)
        target = target if chunk.ndim == 3 else target[None]
        done = 0
        for start in range(0, length, _ROOM):
            done += self._take(last[:, start : start + _ROOM], target[:, done:])
        return result

    def _checked(self, chunk: np.ndarray) -> np.ndarray:
        """The chunk as (n, length, c_in), if it fits the layer and the chunks before."""
        layer = self._layer
        if chunk.ndim not in (2, 3):
            raise ShapeError(f"chunk has shape {chunk.shape}; it must have 3 axes, or 2 without a batch")
        batched = chunk if chunk.ndim == 3 else chunk[None]
        last = batched if layer.layout == "channels_last" else batched.swapaxes(1, 2)
        if last.shape[2] != layer.channels:
            raise ShapeError(
                f"chunk has shape {chunk.shape} and {last.shape[2]} channels; the layer takes {layer.channels}"
            )
        if self._buffer is not None and (len(last), chunk.ndim == 3) != (len(self._buffer), self._batched):
            before = f"a batch of {len(self._buffer)}" if self._batched else "no batch"
            raise ShapeError(f"chunk has shape {chunk.shape}, but the chunks before had {before}; `reset` starts anew")
        return last

    def _remember_batch(self, chunk: np.ndarray) -> None:
        """Make room for signals like this one; zeros stand before them."""
        if self._buffer is None:
            layer = self._layer
            self._batched = chunk.ndim == 3
            n = len(chunk) if self._batched else 1
            # twice the history, so that it is moved to the front once in so many samples
            self._buffer = np.zeros((n, 2 * layer.history + _ROOM, layer.channels), layer.dtype)
            self._end = layer.history

    def _take(self, samples: np.ndarray, target: np.ndarray) -> int:
        """Compute what at most `_ROOM` samples complete into the start of `target`, and return how many outputs that is."""
        layer, length = self._layer, samples.shape[1]
        if self._end + length > self._buffer.shape[1]:
            self._buffer[:, : layer.history] = self._buffer[:, self._end - layer.history : self._end]
            self._end = layer.history
        begin, self._end = self._end, self._end + length
        self._buffer[:, begin : self._end] = samples
        first = -self.position % layer.stride
        self.position += length
        count = -(-(length - first) // layer.stride) if length > first else 0
        if count:
            start = begin - layer.history + first
            stop = start + (count - 1) * layer.stride + layer.history + 1
            for signal, results in zip(self._buffer, target):
                self._convolve(signal[None, start:stop], results[None, :count])
        return count

    def _convolve(self, window: np.ndarray, results: np.ndarray) -> None:
        if plain(results):
            self._layer._windows(window, out=results)
        else:
            results[...] = self._layer._windows(window)
