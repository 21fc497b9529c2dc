"""Conv and ConvTranspose nodes on our layers: ONNX attributes in, packed weights out.

Our layers are two-dimensional, so a signal is convolved as an image of height 1.  A constant weight is packed once;
only padding that depends on the input's size (auto_pad, output_shape) can ask for a second layer, which is kept too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from numbaconv.errors import ShapeError
from numbaconv.graph.reference import ReferenceKernel
from numbaconv.graph.window import Pads, Window, per_axis, plain_attributes
from numbaconv.layers import Conv2d
from numbaconv.transposed import ConvTranspose2d

#: Element types that our layers compute in; others stay with the reference operator.
DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def runs_on_layers(weight: np.ndarray) -> bool:
    """Whether a weight of this rank and element type is one that our layers take."""
    return weight.ndim in (3, 4) and weight.dtype in DTYPES


class ConvolutionKernel:
    """A Conv or ConvTranspose node.

    Parameters
    ----------
    node : onnx.NodeProto
    reference : ReferenceKernel
        Runs the calls that our layers do not take: three spatial axes, or another element type.
    weight, bias : numpy.ndarray, optional
        Their values where they are constant; a node whose weight is computed gets a layer for each call.
    """

    def __init__(
        self,
        node: onnx.NodeProto,
        reference: ReferenceKernel,
        weight: np.ndarray | None = None,
        bias: np.ndarray | None = None,
    ):
        self._transposed = node.op_type == "ConvTranspose"
        self._attributes = plain_attributes(node)
        self._reference = reference
        self._prepared = None if weight is None else _Layers(self._attributes, self._transposed, weight, bias)
        self._last: tuple[Conv2d | ConvTranspose2d | None, tuple[int, ...]] | None = None
        self.inputs = tuple(node.input) if weight is None else (node.input[0],)

    @property
    def problem(self) -> str | None:
        """The convolution that the last call computed; a transposed one has no such form."""
        layer, shape = self._last or (None, ())
        return None if layer is None or self._transposed else str(layer.problem(shape))

    @property
    def algorithm(self) -> str | None:
        """The algorithm that the last call ran, None before the first."""
        if self._last is None:
            return None
        layer, shape = self._last
        if layer is None:
            return self._reference.algorithm
        return "transposed" if self._transposed else layer.plan(shape).algorithm

    def __call__(self, x, weight=None, bias=None) -> Sequence[np.ndarray]:
        layers = self._prepared
        if layers is None:
            if not runs_on_layers(weight) or x.dtype not in DTYPES:
                self._last = (None, x.shape)
                return self._reference(x, weight, bias)
            layers = _Layers(self._attributes, self._transposed, weight, bias)
        if x.ndim != layers.rank:
            raise ShapeError(f"x has shape {x.shape}, but the weight needs {layers.rank} dimensions")
        layer, image = layers.find(x.shape[2:]), _lift(x)
        y = layer(image)
        self._last = (layer, image.shape)
        return (y if x.ndim == 4 else y[:, :, 0],)


class _Layers:
    """The layers of one weight, by what of the node's geometry depends on the size of the input.

    That is nothing for most nodes.  Their one layer is made at once, so that errors show when the model is loaded.
    """

    def __init__(self, attributes: Mapping[str, object], transposed: bool, weight: np.ndarray, bias: np.ndarray | None):
        self.rank = weight.ndim
        self._weight, self._bias = _lift(weight), bias
        self._window = Window.read(attributes, weight.shape[2:])
        self._growth = per_axis(attributes, "output_padding", len(self._window.kernel), 0) if transposed else None
        self._wanted = attributes.get("output_shape") if transposed else None
        self._made: dict[object, Conv2d | ConvTranspose2d] = {}
        if not self._window.auto_pad.startswith("SAME") and self._wanted is None:
            self.find(self._window.kernel)
            self._weight = self._bias = None  # the layer has packed them

    def find(self, sizes: tuple[int, ...]) -> Conv2d | ConvTranspose2d:
        """The layer for inputs with the spatial shape `sizes`."""
        if self._growth is None:
            geometry = self._window.conv_pads(sizes), None
        else:
            geometry = self._window.transposed_pads(sizes, self._growth, self._wanted)
        layer = self._made.get(geometry)
        if layer is None:
            layer = self._made[geometry] = self._make(*geometry)
        return layer

    def _make(self, pads: Pads, growth: tuple[int, ...] | None) -> Conv2d | ConvTranspose2d:
        # A signal becomes an image of height 1, whose own axis neither steps nor is padded.
        missing = 4 - self.rank
        geometry = {
            "stride": (1,) * missing + self._window.strides,
            "padding": ((0, 0),) * missing + pads,
            "dilation": (1,) * missing + self._window.dilations,
            "groups": self._window.group,
        }
        if growth is None:
            return Conv2d(self._weight, self._bias, **geometry)
        return ConvTranspose2d(self._weight, self._bias, output_padding=(0,) * missing + growth, **geometry)


def _lift(array: np.ndarray) -> np.ndarray:
    return array if array.ndim == 4 else array[:, :, np.newaxis]
