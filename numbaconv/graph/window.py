"""The sliding window that Conv, ConvTranspose and the pools share: ONNX attributes, completed and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper

from numbaconv.errors import ModelError, ShapeError
from numbaconv.graph.ir import Node

Pads = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Window:
    """The attributes of a window, with one entry an axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: Pads
    auto_pad: str
    group: int

    @classmethod
    def read(cls, attributes: Mapping[str, object], kernel: tuple[int, ...]) -> Window:
        """Complete the attributes of a node with ONNX's defaults for a kernel whose shape is `kernel`."""
        rank = len(kernel)
        declared = tuple(attributes.get("kernel_shape", kernel))
        if declared != kernel:
            raise ModelError(f"kernel_shape {list(declared)} differs from the weight's {list(kernel)}")
        auto_pad = attributes.get("auto_pad", "NOTSET")
        if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise ModelError(f"auto_pad {auto_pad!r} is not one of NOTSET, VALID, SAME_UPPER, SAME_LOWER")
        # ONNX lists pads as all starts, then all ends.
        flat = per_axis(attributes, "pads", 2 * rank, 0)
        return cls(
            kernel=kernel,
            strides=per_axis(attributes, "strides", rank, 1),
            dilations=per_axis(attributes, "dilations", rank, 1),
            pads=tuple(zip(flat[:rank], flat[rank:])),
            auto_pad=auto_pad,
            group=int(attributes.get("group", 1)),
        )

    @property
    def extents(self) -> tuple[int, ...]:
        """Input elements from the first tap to the last, holes included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations))

    def conv_pads(self, sizes: tuple[int, ...]) -> Pads:
        """Explicit padding of a Conv over an input with the spatial shape `sizes`."""
        if self.auto_pad == "NOTSET":
            return self.pads
        if self.auto_pad == "VALID":
            return ((0, 0),) * len(sizes)
        totals = (
            max((-(-size // stride) - 1) * stride + extent - size, 0)
            for size, stride, extent in zip(sizes, self.strides, self.extents)
        )
        return tuple(split(total, self.auto_pad) for total in totals)

    def transposed_pads(
        self, sizes: tuple[int, ...], growth: tuple[int, ...], output_shape: tuple[int, ...] | None
    ) -> tuple[Pads, tuple[int, ...]]:
        """Explicit padding and output padding of a ConvTranspose, by the formulas of its ONNX specification.

        An output that is larger than the input can reach gets its remainder as output padding, at the end.
        """
        if output_shape is None and self.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
            output_shape = tuple(size * stride for size, stride in zip(sizes, self.strides))
        if output_shape is None:
            return (self.pads if self.auto_pad == "NOTSET" else ((0, 0),) * len(sizes)), growth
        totals = [
            stride * (size - 1) + grown + extent - wanted
            for size, stride, grown, extent, wanted in zip(sizes, self.strides, growth, self.extents, output_shape)
        ]
        pads = tuple(split(max(total, 0), self.auto_pad) for total in totals)
        return pads, tuple(grown + max(-total, 0) for grown, total in zip(growth, totals))


def pooled(node: Node, shape: Sequence[int]) -> tuple[Window, Pads, tuple[int, ...]]:
    """The window of a pool over a tensor of that shape, its padding, and the spatial shape of the result."""
    sizes = tuple(shape[2:])
    window = Window.read(node.attributes, tuple(node.attributes["kernel_shape"]))
    if len(sizes) != len(window.kernel):
        raise ShapeError(
            f"x has shape {tuple(shape)}, kernel_shape {list(window.kernel)} needs {len(window.kernel) + 2} axes"
        )
    if any(value < 1 for value in (*window.kernel, *window.strides, *window.dilations)):
        raise ShapeError(
            f"kernel_shape {list(window.kernel)}, strides {list(window.strides)} and dilations {list(window.dilations)} "
            "must be positive"
        )
    pads = window.conv_pads(sizes)
    counts = []
    for size, (before, after), extent, stride in zip(sizes, pads, window.extents, window.strides):
        room = size + before + after - extent
        if room < 0:
            raise ShapeError(f"windows that span {window.extents} do not fit into {sizes} with pads {pads}")
        count = room // stride + 1
        # a last window that is cut off counts unless it would start behind the input
        if node.attributes.get("ceil_mode", 0) and room % stride and count * stride < size + before:
            count += 1
        counts.append(count)
    return window, pads, tuple(counts)


def split(total: int, auto_pad: str) -> tuple[int, int]:
    """Divide padding between start and end; the odd element goes to the end for SAME_UPPER, else to the start."""
    small = total // 2
    return (small, total - small) if auto_pad == "SAME_UPPER" else (total - small, small)


def plain_attributes(node: onnx.NodeProto) -> dict[str, object]:
    """The attributes of a node as Python values, strings decoded."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def per_axis(attributes: Mapping[str, object], name: str, length: int, default: int) -> tuple[int, ...]:
    """An attribute that is a list of `length` integers, `default` each where it is left out."""
    values = tuple(int(v) for v in attributes.get(name, [default] * length))
    if len(values) != length:
        raise ModelError(f"{name} {list(values)} has {len(values)} entries where {length} are needed")
    return values
