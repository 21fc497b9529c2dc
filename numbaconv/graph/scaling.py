"""Channels of tensors of pixels scaled and shifted in one pass, by constants or by moments over the pixels."""

from __future__ import annotations

from math import gcd, prod

import numpy as np

from numbaconv.codegen.records import SCALING
from numbaconv.codegen.target import target
from numbaconv.epilogue import IDENTITY, Activation
from numbaconv.graph.instructions import Compiled, fused_name
from numbaconv.graph.strided import WORTH_THREADS
from numbaconv.graph.tensors import Tensor, channels_last, row_major
from numbaconv.graph.trace import Trace
from numbaconv.loops.scaling import moments_share, scale_share
from numbaconv.loops.shares import Shares, share_address

#: Bytes of a piece, whose moments are summed while it stays in the L1, and of a run that is scaled at a time.
_PIECE, _RUN = 32 << 10, 4 << 10
#: Vectors that neighbouring pixels may fill together, so that none is filled in part.
_JOINED = 16


def scale(
    trace: Trace, x: Tensor, gain: np.ndarray, bias: np.ndarray, name: str, activation: Activation = IDENTITY
) -> Tensor:
    """Emit ``activation(x * gain + bias)`` with a gain and a bias for each channel of x, which has two axes or more."""
    x = trace.pixels(x)
    return _scaled(trace, x, None, _record(x, gain, bias), name, activation)


def standardize(
    trace: Trace,
    x: Tensor,
    groups: int,
    epsilon: float,
    name: str,
    gain: np.ndarray | None = None,
    bias: np.ndarray | None = None,
    activation: Activation = IDENTITY,
) -> Tensor:
    """Emit x with mean 0 and variance 1 over pixels and groups of channels, times gain plus bias of each channel, activated."""
    x = trace.pixels(x)
    made = record, _ = _record(x, gain, bias)
    channels, pixels = int(record["channels"]), int(record["pixels"])
    size, lanes = x.dtype.itemsize, target().lanes(x.dtype.itemsize)
    # neighbouring pixels without gaps fill whole vectors together
    joined = lanes // gcd(channels, lanes)
    if x.pitch() != channels or joined * channels > _JOINED * lanes:
        joined = 1
    rows, left = divmod(pixels, joined)
    width = joined * channels
    chunk = max(1, _PIECE // (width * size))
    pieces = -(-rows // chunk) + bool(left)
    fields = {
        "each": channels // groups, "joined": joined, "rows": rows, "chunk": chunk, "pieces": pieces,
        "moments": 2 * pieces * width * size, "epsilon": epsilon,
    }  # fmt: skip
    for field, value in fields.items():
        record[field] = value
    moments = trace.temporary((x.shape[0], pieces, 2, width), x.dtype, row_major)

    def work(threads: int) -> Shares:
        parts = _parts(x, threads, x.shape[0] * pieces)
        zero = x.dtype.type(0)
        return Shares(share_address(moments_share, x.dtype), parts, 1, record.ctypes.data, 0, zero, zero, made)

    trace.emit(Compiled(trace.node.op, trace.node.name, (x,), moments, work))
    return _scaled(trace, x, moments, made, name, activation)


def _record(x: Tensor, gain: np.ndarray | None, bias: np.ndarray | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """What the loops are told of x and its constants, and the arrays that hold these."""
    n, channels, *spatial = x.shape
    record, kept = np.zeros((), SCALING), []
    record["images"], record["pixels"], record["channels"] = n, prod(spatial), channels
    record["each"], record["x_pixel"] = channels, x.pitch() * x.dtype.itemsize
    for field, array in (("gain", gain), ("bias", bias)):
        if array is not None:
            kept.append(np.ascontiguousarray(array, x.dtype))
            record[field] = kept[-1].ctypes.data
    return record, kept


def _scaled(trace: Trace, x: Tensor, moments: Tensor | None, made, name: str, activation: Activation) -> Tensor:
    """Emit the pass that scales, shifts and activates, by `moments` where there are such."""
    record, _ = made
    out = trace.new(name, x.shape, x.dtype, channels_last)
    channels, pixels, size = int(record["channels"]), int(record["pixels"]), x.dtype.itemsize
    gaps = {x.pitch(), out.pitch()} != {channels}
    # as long as a few runs are left: their scales have to be laid out first
    run = 1 if gaps else max(1, min(_RUN // (channels * size), pixels // 8))
    record["out_pixel"], record["run"], record["activation"] = out.pitch() * size, run, activation.code
    alpha, beta = x.dtype.type(activation.alpha), x.dtype.type(activation.beta)

    def work(threads: int) -> Shares:
        parts = _parts(x, threads, x.shape[0] * -(-pixels // run))
        function = share_address(scale_share, x.dtype)
        return Shares(function, parts, 1, record.ctypes.data, 2 * run * channels * size, alpha, beta, made)

    inputs = (x,) if moments is None else (x, moments)
    op = fused_name(trace.node.op, None, activation)
    trace.emit(Compiled(op, trace.node.name, inputs, out, work, in_place=(0,)))
    return out


def _parts(x: Tensor, threads: int, most: int) -> int:
    return 1 if x.view.size < WORTH_THREADS else max(1, min(threads, most))
