"""Deformable convolution, versions 1 and 2: every tap looks where an offset of its own says, between pixels if need be.

Dai et al., "Deformable Convolutional Networks" (2017); Zhu et al., "Deformable ConvNets v2" (2018), which adds the mask.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from numbaconv.algorithms.deformable import Deformable, DeformablePlan
from numbaconv.arguments import contiguous, operand, plain, result_array, shaped
from numbaconv.described import described
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.epilogue import Epilogue
from numbaconv.errors import ShapeError
from numbaconv.layers import ConvLayer
from numbaconv.problem import ConvProblem


class DeformConv2d(ConvLayer):
    """A deformable convolution layer: ``activation(deform_conv(x, offset, weight, mask) + bias + residual)``.

    Parameters
    ----------
    weight : array, (c_out, c_in / groups, k_h, k_w)
        float32 or float64, whatever `layout` says; copied and packed here.
    bias : array, (c_out,), optional
        The same dtype.
    stride, padding, dilation, groups, layout, activation
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
    Conventions are those of ``torchvision.ops.deform_conv2d`` and ONNX's ``DeformConv``.  A sample is the bilinear interpolation of
    the four pixels around it, where pixels beyond the borders are zero.  A sample at NaN, or with NaN as its mask, is NaN, and so
    are the outputs that add it; an infinite or huge offset points beyond the image, where everything is zero.
    """

    axes = 2

    def __init__(
        self,
        weight,
        bias=None,
        stride=1,
        padding=0,
        dilation=1,
        groups=1,
        *,
        layout="channels_first",
        activation=None,
    ):
        super().__init__(
            weight, bias, stride, padding, dilation, groups, layout=layout, activation=activation, accuracy="strict"
        )

    def __reduce__(self):
        # plans hold addresses, so a copy in another process packs and plans afresh
        geometry = {name: self._geometry[name] for name in ("stride", "padding", "dilation", "groups", "layout")}
        return functools.partial(DeformConv2d, **geometry, activation=self.activation), self._weights.unpacked()

    def _make_plan(self, x_shape, residual, accuracy):
        problem = self.problem(x_shape)
        inner = Deformable().plan(
            dataclasses.replace(problem, layout="channels_last"),
            self._weights,
            Epilogue(problem.bias, residual, self.activation),
            calibrated_machine(),
        )
        return DeformablePlan(inner, problem), problem.output_shape

    def __call__(self, x, offset, mask=None, *, residual=None, out=None) -> np.ndarray:
        """Convolve `x`.

        Parameters
        ----------
        x : array, (n, c_in, h, w) or (n, h, w, c_in) as `layout` says, or without n
            The dtype of the weights.
        offset : array, (n, 2 * offset_groups * k_h * k_w, h_out, w_out), or with channels last
            How many rows and columns further each tap looks: channels are ordered (offset group, k_h, k_w, (row, column)).  The
            number of offset groups follows; each is used by c_in / offset_groups neighbouring channels.
        mask : array, (n, offset_groups * k_h * k_w, h_out, w_out), or with channels last, optional
            What each sample is multiplied by (version 2).
        residual : array of the result's shape, optional
            Added before the activation.
        out : ndarray of the result's shape, optional
            Where the result goes; it may be `residual` itself but must not overlap other operands.

        Returns
        -------
        ndarray
            `out`, or a new contiguous array.

        Raises
        ------
        ShapeError, DTypeError
            If an array has another shape or dtype than the layer or the result asks for.
        """
        given = {"x": x, "offset": offset, "mask": mask, "residual": residual}
        optional = ("mask", "residual")
        arrays = {
            name: operand(name, value, self.dtype, "weight")
            for name, value in given.items()
            if not (value is None and name in optional)
        }
        x, offset = arrays["x"], arrays["offset"]
        if x.ndim not in (3, 4):
            raise ShapeError(f"x has shape {x.shape}; it must have 4 axes, or 3 without a batch")
        batched = x.ndim == 4
        found = self._find(x.shape if batched else (1, *x.shape), residual is not None)
        shape = found.output_shape if batched else found.output_shape[1:]
        groups = self._offset_groups(offset, shape, found.plan.problem)
        if mask is not None:
            shaped("mask", arrays["mask"], self._per_tap(shape, groups), "one a tap and offset group")
        if residual is not None:
            shaped("residual", arrays["residual"], shape, "the result")
        result = np.empty(shape, self.dtype) if out is None else result_array(out, shape, self.dtype, arrays)
        target = result if plain(result) else np.empty(shape, self.dtype)
        # only now, when nothing can be refused any more, is memory taken for copies
        arrays = {name: contiguous(array) if batched else contiguous(array)[None] for name, array in arrays.items()}
        found.plan.run(
            arrays["x"],
            arrays["offset"],
            arrays.get("mask"),
            groups,
            target if batched else target[None],
            arrays.get("residual"),
        )
        if target is not result:
            result[...] = target
        return result

    def _per_tap(self, shape: tuple[int, ...], channels: int) -> tuple[int, ...]:
        """The shape of what holds so many numbers for each tap and pixel of a result of that shape."""
        channels *= self._weights.taps
        if self.layout == "channels_first":
            return (*shape[:-3], channels, *shape[-2:])
        return (*shape[:-1], channels)

    def _offset_groups(self, offset: np.ndarray, shape: tuple[int, ...], problem: ConvProblem) -> int:
        """How many offset groups there are, from the channels of a well-formed `offset`."""
        axis = -3 if self.layout == "channels_first" else -1
        channels = offset.shape[axis] if offset.ndim == len(shape) else 0
        groups = channels // (2 * problem.taps)
        if groups < 1 or offset.shape != self._per_tap(shape, 2 * groups) or problem.c_in % groups:
            raise ShapeError(
                f"offset has shape {offset.shape}; for a result of shape {shape} and a kernel of {problem.kernel} it must be "
                f"{self._per_tap(shape, 2)} or have a multiple of its {2 * problem.taps} channels, as many times as offset "
                f"groups, which must divide the {problem.c_in} channels of x"
            )
        return groups


@described(DeformConv2d)
def deform_conv2d(
    x,
    offset,
    weight,
    bias=None,
    stride=1,
    padding=0,
    dilation=1,
    mask=None,
    *,
    layout="channels_first",
    activation=None,
    residual=None,
    out=None,
) -> np.ndarray:
    """Deformable convolution as ``torchvision.ops.deform_conv2d`` computes it, with an epilogue.

    Parameters
    ----------
    {x}
    offset : array, (n, 2 * offset_groups * k_h * k_w, h_out, w_out), or with channels last
        See `DeformConv2d`.
    weight : array, (c_out, c_in / groups, k_h, k_w)
        Whatever the layout; the number of groups follows.
    bias : array, (c_out,), optional
    stride, padding, dilation, layout, activation
        See `Conv2d`.
    mask : array, (n, offset_groups * k_h * k_w, h_out, w_out), or with channels last, optional
        What each sample is multiplied by (version 2).
    {residual}
    {out}

    Returns
    -------
    ndarray
        (n, c_out, h_out, w_out) or (n, h_out, w_out, c_out), sizes as for `conv2d`.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        See `{layer}`.
    """
    x = operand("x", x)
    weight = operand("weight", weight, x.dtype)
    channels = x.shape[-3 if layout == "channels_first" else -1] if x.ndim in (3, 4) else 0
    groups = channels // weight.shape[1] if weight.ndim == 4 and weight.shape[1] else 1
    layer = DeformConv2d(
        weight, bias, stride, padding, dilation, max(groups, 1), layout=layout, activation=activation
    )  # fmt: skip
    return layer(x, offset, mask, residual=residual, out=out)
