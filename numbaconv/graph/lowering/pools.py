"""Pools over windows and over whole images, on channels-last pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from numbaconv.codegen.records import POOL
from numbaconv.codegen.reduce import NUMBERS
from numbaconv.graph import rows
from numbaconv.graph.instructions import Compiled
from numbaconv.graph.ir import Node
from numbaconv.graph.strided import WORTH_THREADS
from numbaconv.graph.tensors import Tensor, channels_last
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers
from numbaconv.graph.window import pooled
from numbaconv.loops.pool import pool_share
from numbaconv.loops.shares import Shares, share_address


class _Axis(NamedTuple):
    """What a window does along one axis, by the fields of the `POOL` record."""

    size: int
    out: int
    k: int
    stride: int
    dilation: int
    pad: int
    end: int

    @property
    def is_plain(self) -> bool:
        """Whether each result along it is that of one pixel."""
        return self.k == self.stride == 1 and self.pad == self.end == 0


_ONCE = _Axis(1, 1, 1, 1, 1, 0, 0)


@lowers("MaxPool", "AveragePool")
def _pool(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    if (
        not isinstance(x, Tensor)
        or x.dtype not in FLOATS
        or len(x.shape) > 5
        or len(list(filter(None, node.outputs))) > 1
    ):
        return None
    window, pads, counts = pooled(node, x.shape)
    x = trace.pixels(x)
    out = trace.new(node.outputs[0], (*x.shape[:2], *counts), x.dtype, channels_last)
    record = np.zeros((), POOL)
    mean = node.op == "AveragePool"
    record["operation"], record["mean"] = NUMBERS["sum" if mean else "maximum"], mean
    record["padded"] = node.attributes.get("count_include_pad", 0)
    n, channels, *sizes = x.shape
    axes = [_Axis(*axis) for axis in zip(sizes, counts, window.kernel, window.strides, window.dilations, *zip(*pads))]
    pitches = x.pitch(), out.pitch()
    if pitches == (channels, channels):
        # pixels along the last axes that windows do not reach across are further channels
        while len(axes) > 1 and axes[-1].is_plain:
            channels *= axes.pop().size
        if len(axes) < len(counts):
            pitches, axes = (channels, channels), [*axes, _ONCE]
    record["n"], record["channels"] = n, channels
    record["x_pixel"], record["out_pixel"] = (pitch * x.dtype.itemsize for pitch in pitches)
    for name, axis in zip("dhw", [_ONCE] * (3 - len(axes)) + axes):
        for field, value in zip(_Axis._fields, axis):
            record[f"{field}_{name}"] = value
    lines = int(record["n"] * record["out_d"] * record["out_h"])
    zero = x.dtype.type(0)

    def work(threads: int) -> Shares:
        parts = 1 if x.view.size < WORTH_THREADS else max(1, min(threads, lines))
        return Shares(share_address(pool_share, x.dtype), parts, 1, record.ctypes.data, 0, zero, zero, record)

    trace.emit(Compiled(node.op, node.name, (x,), out, work))
    return [out]


@lowers("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    (x,) = operands
    if not isinstance(x, Tensor) or x.dtype not in FLOATS or not x.view.size:
        return None
    mean = node.op == "GlobalAveragePool"
    return [rows.reduce(trace, "sum" if mean else "maximum", x, range(2, len(x.shape)), node.outputs[0], mean=mean)]
