"""Gradients of convolutions and of transposed ones, as functions of arrays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from numbaconv.arguments import NAMES, contiguous, operand, shaped
from numbaconv.backward.run import ConvolutionGradients, TransposedGradients
from numbaconv.errors import ShapeError
from numbaconv.problem import ConvProblem, integer
from numbaconv.transposed.problem import Geometry


class _Call:
    """One call's arguments, checked: which gradients there are, and the gradient of the result in a batch."""

    def __init__(self, grad_output: np.ndarray, x_shape, weight_shape, window: dict, transposed: bool):
        weight_shape, x_shape = _sizes("weight_shape", weight_shape, 1), _sizes("x_shape", x_shape, 0)
        axes = len(weight_shape) - 2
        if not 1 <= axes <= 3:
            raise ShapeError(f"weight has shape {weight_shape}; it must have 3, 4 or 5 axes, two of them of channels")
        if len(x_shape) not in (axes + 1, axes + 2):
            raise ShapeError(
                f"x has shape {x_shape}; with weight of shape {weight_shape} it must have {axes + 2} axes, or {axes + 1} "
                "without a batch"
            )
        self.batched = len(x_shape) == axes + 2
        self.x_shape = x_shape if self.batched else (1, *x_shape)
        dtype = NAMES[grad_output.dtype.newbyteorder("=")]
        if transposed:
            problem = Geometry.of(weight_shape, **window).problem(self.x_shape, dtype, False)
            self.gradients = TransposedGradients(problem)
        else:
            problem = ConvProblem.of(self.x_shape, weight_shape, **window, dtype=dtype)
            self.gradients = ConvolutionGradients(problem)
        expected = problem.output_shape if self.batched else problem.output_shape[1:]
        shaped("grad_output", grad_output, expected, f"the result for x of shape {x_shape}")
        self.grad_output = contiguous(grad_output).reshape(problem.output_shape)

    def input(self, weight: np.ndarray) -> np.ndarray:
        result = self.gradients.input(self.grad_output, contiguous(weight))
        return result if self.batched else result[0]

    def weight_and_bias(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.gradients.weight_and_bias(self.grad_output, contiguous(x).reshape(self.x_shape))


def grad_input(
    grad_output,
    weight,
    x_shape: Sequence[int],
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    transposed=False,
    output_padding=0,
    layout="channels_first",
) -> np.ndarray:
    """The gradient of a convolution with respect to its input; the weight tells the number of axes, 1 to 3.

    It is the transposed convolution of `grad_output`, and that of a transposed one is the convolution.

    Parameters
    ----------
    grad_output : array
        The gradient with respect to the result: of its shape, in `layout`, batched if `x_shape` is; float32 or float64.
    weight : array, (c_out, c_in / groups, *kernel), or (c_in, c_out / groups, *kernel) if `transposed`
        The same dtype.
    x_shape : sequence of int
        The input's shape, with or without a batch, in `layout`.
    stride, padding, dilation, groups
        Those of the convolution, see `Conv2d`, or of the transposed one, see `ConvTranspose2d`; padding is zeros.
    transposed : bool
        Whether the convolution is a transposed one.
    output_padding : int, or one int an axis
        Of a transposed one.
    layout : {"channels_first", "channels_last"}

    Returns
    -------
    ndarray
        Of shape `x_shape`.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        If shapes contradict each other, dtypes are mixed, or an argument is unknown.
    """
    grad_output = operand("grad_output", grad_output)
    weight = operand("weight", weight, grad_output.dtype, "grad_output")
    window = _window(stride, padding, dilation, groups, layout, transposed, output_padding)
    return _Call(grad_output, x_shape, weight.shape, window, transposed).input(weight)


def grad_weight(
    grad_output,
    x,
    weight_shape: Sequence[int],
    stride=1,
    padding=0,
    dilation=1,
    groups=1,
    *,
    transposed=False,
    output_padding=0,
    layout="channels_first",
) -> np.ndarray:
    """The gradient of a convolution with respect to its weights; their shape tells the number of axes, 1 to 3.

    Each is a sum over all pixels of the batch, in an order that neither threads nor memory change.

    Parameters
    ----------
    grad_output : array
        The gradient with respect to the result: of its shape, in `layout`, batched if `x` is; float32 or float64.
    x : array, (n, c_in, *spatial) or (n, *spatial, c_in) as `layout` says, or without n
        The input of the convolution; the same dtype.
    weight_shape : sequence of int
        (c_out, c_in / groups, *kernel), or (c_in, c_out / groups, *kernel) if `transposed`.
    stride, padding, dilation, groups, transposed, output_padding, layout
        As for `grad_input`.

    Returns
    -------
    ndarray
        Of shape `weight_shape`.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        If shapes contradict each other, dtypes are mixed, or an argument is unknown.
    """
    grad_output = operand("grad_output", grad_output)
    x = operand("x", x, grad_output.dtype, "grad_output")
    window = _window(stride, padding, dilation, groups, layout, transposed, output_padding)
    return _Call(grad_output, x.shape, weight_shape, window, transposed).weight_and_bias(x)[0]


def _gradients(grad_output, x, weight, axes: int, transposed: bool, window: dict):
    """All three gradients of a convolution over that many axes."""
    grad_output = operand("grad_output", grad_output)
    x = operand("x", x, grad_output.dtype, "grad_output")
    weight = operand("weight", weight, grad_output.dtype, "grad_output")
    if weight.ndim != axes + 2:
        raise ShapeError(f"weight has shape {weight.shape}; it must have {axes + 2} axes, two of them of channels")
    call = _Call(grad_output, x.shape, weight.shape, window, transposed)
    return call.input(weight), *call.weight_and_bias(x)


def _backward_of(axes: int) -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The function that gives all gradients of a convolution over that many axes."""

    def backward(grad_output, x, weight, stride=1, padding=0, dilation=1, groups=1, *, layout="channels_first"):
        """The gradients of `conv{axes}d` with respect to input, weight and bias.

        Parameters
        ----------
        grad_output : array
            The gradient with respect to the result: of its shape, in `layout`, batched if `x` is.
        x, weight, stride, padding, dilation, groups, layout
            What the convolution was given; padding is zeros.

        Returns
        -------
        grad_x, grad_weight, grad_bias : ndarray
            Of the shapes of `x` and `weight`, and (c_out,).

        Raises
        ------
        ShapeError, DTypeError, ConvError
            If shapes contradict each other, dtypes are mixed, or an argument is unknown.
        """
        window = _window(stride, padding, dilation, groups, layout)
        return _gradients(grad_output, x, weight, axes, False, window)

    return _named(backward, f"conv{axes}d_backward", axes)


def _transposed_backward_of(axes: int) -> Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The function that gives all gradients of a transposed convolution over that many axes."""

    def backward(
        grad_output,
        x,
        weight,
        stride=1,
        padding=0,
        output_padding=0,
        groups=1,
        dilation=1,
        *,
        layout="channels_first",
    ):
        """The gradients of `conv_transpose{axes}d` with respect to input, weight and bias.

        Parameters
        ----------
        grad_output : array
            The gradient with respect to the result: of its shape, in `layout`, batched if `x` is.
        x, weight, stride, padding, output_padding, groups, dilation, layout
            What the transposed convolution was given.

        Returns
        -------
        grad_x, grad_weight, grad_bias : ndarray
            Of the shapes of `x` and `weight`, and (c_out,).

        Raises
        ------
        ShapeError, DTypeError, ConvError
            If shapes contradict each other, dtypes are mixed, or an argument is unknown.
        """
        window = _window(stride, padding, dilation, groups, layout, True, output_padding)
        return _gradients(grad_output, x, weight, axes, True, window)

    return _named(backward, f"conv_transpose{axes}d_backward", axes)


def _named(function: Callable, name: str, axes: int) -> Callable:
    function.__name__ = function.__qualname__ = name
    if function.__doc__ is not None:  # python -OO drops it
        function.__doc__ = function.__doc__.format(axes=axes)
    return function


def _window(stride, padding, dilation, groups, layout, transposed=False, output_padding=0) -> dict:
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "layout": layout}
    if transposed:
        return window | {"output_padding": output_padding}
    if np.any(output_padding):
        raise ShapeError(f"output_padding={output_padding!r} is for transposed convolutions only")
    return window


def _sizes(name: str, values, least: int) -> tuple[int, ...]:
    """`values` as a tuple of integers."""
    try:
        values = tuple(values)
    except TypeError:
        kind = type(values).__name__
        raise ShapeError(f"{name}={values!r} is a {kind}; it must be a sequence of integers") from None
    return tuple(integer(name, value, least) for value in values)


conv1d_backward, conv2d_backward, conv3d_backward = map(_backward_of, (1, 2, 3))
conv_transpose1d_backward, conv_transpose2d_backward, conv_transpose3d_backward = map(
    _transposed_backward_of, (1, 2, 3)
)
