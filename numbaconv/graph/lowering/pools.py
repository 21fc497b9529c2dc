"""Pools over windows and over whole images, on channels-last pixels."""

from __future__ import annotations

from collections.abc import Sequence

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
    record["n"], record["channels"] = x.shape[:2]
    size = x.dtype.itemsize
    record["x_pixel"], record["out_pixel"] = x.pitch() * size, out.pitch() * size
    missing = 3 - len(counts)
    starts, ends = ([pad[side] for pad in pads] for side in (0, 1))
    fields = {
        "size": (1, x.shape[2:]),
        "out": (1, counts),
        "k": (1, window.kernel),
        "stride": (1, window.strides),
        "dilation": (1, window.dilations),
        "pad": (0, starts),
        "end": (0, ends),
    }
    for field, (usual, values) in fields.items():
        for axis, value in zip("dhw", (*(usual,) * missing, *values)):
            record[f"{field}_{axis}"] = value
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
