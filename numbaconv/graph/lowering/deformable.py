"""DeformConv: a call of the layer between compiled steps, since its loops want offsets and mask beside the input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from numbaconv.deformable import DeformConv2d
from numbaconv.graph.instructions import Host
from numbaconv.graph.ir import Node
from numbaconv.graph.trace import FLOATS, Trace, Value, lowers
from numbaconv.graph.window import Window


@lowers("DeformConv")
def deform_conv(trace: Trace, node: Node, operands: Sequence[Value]) -> Sequence[Value] | None:
    """A host step for images; weights that are computed are packed in each run."""
    x, weight, offset, bias, mask = (*operands, None, None)[:5]
    if len(weight.shape) != 4 or weight.dtype not in FLOATS:
        return None
    window = Window.read(node.attributes, weight.shape[2:])

    def layer_of(weight, bias):
        return DeformConv2d(weight, bias, window.strides, window.pads, window.dilations, window.group)

    if isinstance(weight, np.ndarray) and (bias is None or isinstance(bias, np.ndarray)):
        layer = trace.store.get(("layer", node.outputs), lambda: layer_of(weight, bias))
        shape, given = layer.problem(x.shape).output_shape, (x, offset, mask)

        def run(x, offset, mask=None):
            return (layer(x, offset, mask),)

    else:
        shape = layer_of(np.zeros(weight.shape, weight.dtype), None).problem(x.shape).output_shape
        given = x, offset, mask, weight, bias

        def run(x, offset, mask, weight, bias=None):
            return (layer_of(weight, bias)(x, offset, mask),)

    out = trace.new(node.outputs[0], shape, x.dtype)
    trace.emit(Host(node.op, node.name, given, (out,), run, algorithm="deformable"))
    return [out]
