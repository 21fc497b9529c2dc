"""Resize and Upsample of channels-last pixels by tables of taps; other axes and element types stay with NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from numbaconv.codegen.records import RESAMPLE
from numbaconv.graph.instructions import Compiled
from numbaconv.graph.ir import Node
from numbaconv.graph.lowering.shapes import known
from numbaconv.graph.resampling import Taps, operands_of, tables
from numbaconv.graph.strided import WORTH_THREADS
from numbaconv.graph.tensors import Tensor, channels_last
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers
from numbaconv.loops.resample import resample_share
from numbaconv.loops.shares import Shares, share_address

_ONE = Taps(np.zeros((1, 1), np.int64), np.ones((1, 1)))


@lowers("Resize", "Upsample")
def _resize(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    x, opset = operands[0], trace.graph.opset
    where = operands_of(node.op, node.attributes, opset, operands[1:])
    if not isinstance(x, Tensor) or x.dtype not in FLOATS or not 3 <= len(x.shape) <= 5:
        return None
    if not all(known(value) for value in where):
        return None
    _, taps = tables(node.op, node.attributes, opset, x.shape, *where)
    whole = all(own.is_identity(size) for own, size in zip(taps[:2], x.shape))
    if not whole or any(own.outside is not None for own in taps):
        return None
    x = trace.pixels(x)
    shape = (*x.shape[:2], *(len(own.index) for own in taps[2:]))
    out = trace.new(node.outputs[0], shape, x.dtype, channels_last)
    record, kept = np.zeros((), RESAMPLE), []
    size = x.dtype.itemsize
    pixel = x.pitch() * size
    record["n"], record["channels"], record["out_pixel"] = x.shape[0], x.shape[1], out.pitch() * size
    record["x_image"] = prod(x.shape[2:]) * pixel
    missing = 5 - len(x.shape)
    lengths = (1,) * missing + x.shape[2:]
    for i, (axis, own) in enumerate(zip("dhw", [_ONE] * missing + taps[2:])):
        step = prod(lengths[i + 1 :]) * pixel
        arrays = np.ascontiguousarray(own.index * step), np.ascontiguousarray(own.weight, x.dtype)
        record[f"out_{axis}"], record[f"taps_{axis}"] = own.index.shape
        record[f"at_{axis}"], record[f"weight_{axis}"] = (array.ctypes.data for array in arrays)
        kept += arrays
    lines = int(record["n"] * record["out_d"] * record["out_h"])
    zero = x.dtype.type(0)

    def work(threads: int) -> Shares:
        parts = 1 if out.view.size < WORTH_THREADS else max(1, min(threads, lines))
        owner = record, kept
        return Shares(share_address(resample_share, x.dtype), parts, 1, record.ctypes.data, 0, zero, zero, owner)

    trace.emit(Compiled(node.op, node.name, (x,), out, work))
    return [out]
