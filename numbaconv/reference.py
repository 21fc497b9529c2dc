"""The oracle: convolution as its definition reads, which every algorithm is judged by.

It wins where nothing else applies and never on speed.  This is the only scalar loop nest over a convolution.
"""

from __future__ import annotations

import numpy as np

from numbaconv.codegen.jit import njit
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.errors import ConvError, DTypeError, ShapeError
from numbaconv.problem import ConvProblem
from numbaconv.values import DTYPES

#: What NumPy calls the ways of padding that do not need zeros.
_NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def reference_conv(
    problem: ConvProblem,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    activation=None,
    *,
    accumulate: str | None = None,
) -> np.ndarray:
    """Convolve by definition: ``activation(conv(x, weight) + bias + residual)``.

    Taps that fall on padding are skipped rather than multiplied with zero, so an infinite weight does not
    turn padding into NaN; other modes than zeros pad a copy first.  Sums run over taps in row-major order, and over
    channels within a tap.

    Parameters
    ----------
    problem : ConvProblem
        Its `bias` need not be set for `bias` to be given here.
    x : ndarray
        ``problem.input_shape``, in the problem's layout and dtype.
    weight : ndarray
        ``problem.weight_shape``.
    bias : ndarray, optional
        ``(c_out,)``; required if ``problem.bias``.
    residual : ndarray, optional
        ``problem.output_shape``.
    activation : optional
        Anything that `Activation.of` reads.
    accumulate : {"f32", "f64"}, optional
        Type of sums, epilogue and result; default ``problem.dtype``.  With "f64" the result of an f32 problem is
        left unrounded, to measure errors against.

    Returns
    -------
    ndarray
        ``problem.output_shape``, contiguous.

    Raises
    ------
    ShapeError, DTypeError
        If an array does not have the problem's shape or dtype.
    ConvError
        If `activation` or `accumulate` is unknown.
    """
    if accumulate not in (None, *DTYPES):
        raise ConvError(f"accumulate={accumulate!r} is unknown; it must be None or one of {', '.join(DTYPES)}")
    if problem.bias and bias is None:
        raise ShapeError(f"bias was not given, but the problem {problem} has one of shape {(problem.c_out,)}")
    shapes = {
        "x": (x, problem.input_shape),
        "weight": (weight, problem.weight_shape),
        "bias": (bias, (problem.c_out,)),
        "residual": (residual, problem.output_shape),
    }
    for name, (array, shape) in shapes.items():
        if array is not None and array.shape != shape:
            raise ShapeError(f"{name} has the shape {array.shape}; the problem {problem} needs {shape}")
        if array is not None and array.dtype != problem.np_dtype:
            raise DTypeError(f"{name} has the dtype {array.dtype}; the problem {problem} needs {problem.np_dtype}")
    dtype = np.dtype(DTYPES[accumulate or problem.dtype])
    channels_last = problem.layout == "channels_last"
    if channels_last:
        x = np.moveaxis(x, -1, 1)
    axes, before = len(problem.spatial), tuple(before for before, _ in problem.padding)
    if problem.padding_mode != "zeros":
        x, before = np.pad(x, [(0, 0), (0, 0), *problem.padding], _NUMPY_MODES[problem.padding_mode]), (0,) * axes
    y = np.zeros((problem.n, problem.c_out, *_three(problem.out_spatial, 1)), dtype)
    _conv3d(
        np.ascontiguousarray(x, dtype).reshape(problem.n, problem.c_in, *_three(x.shape[2:], 1)),
        np.ascontiguousarray(weight, dtype).reshape(*weight.shape[:2], *_three(problem.kernel, 1)),
        _three(problem.stride, 1),
        _three(problem.dilation, 1),
        _three(before, 0),
        problem.groups,
        y,
    )
    y = y.reshape(*y.shape[:2], *y.shape[5 - axes :])
    if channels_last:
        y = np.moveaxis(y, 1, -1)
    epilogue = Epilogue(bias is not None, residual is not None, Activation.of(activation))
    return np.ascontiguousarray(epilogue.apply(y, bias, residual, layout=problem.layout))


def _three(values: tuple[int, ...], unit: int) -> tuple[int, int, int]:
    """`values` of one or two axes with `unit` for the leading axes that three would have."""
    return (unit,) * (3 - len(values)) + values


@njit(entry=True)
def _conv3d(x, weight, stride, dilation, before, groups, y):
    """Add to y (n, c_out, d, h, w) the convolution of x (n, c_in, d, h, w), all of one dtype and contiguous."""
    n, c_out, d_out, h_out, w_out = y.shape
    d_in, h_in, w_in = x.shape[2:]
    group_in, k_d, k_h, k_w = weight.shape[1:]
    group_out = c_out // groups
    # Outputs are independent of each other: images, channels, then positions in the order they are stored.
    for i in range(n):
        for o in range(c_out):
            first = o // group_out * group_in  # this group's first input channel
            for z_out in range(d_out):
                for y_out in range(h_out):
                    for x_out in range(w_out):
                        total = y[i, o, z_out, y_out, x_out]
                        # Taps, a plane, row and column at a time, leave as soon as they are in the padding.
                        for t_d in range(k_d):
                            z = z_out * stride[0] - before[0] + t_d * dilation[0]
                            if z < 0 or z >= d_in:
                                continue
                            for t_h in range(k_h):
                                v = y_out * stride[1] - before[1] + t_h * dilation[1]
                                if v < 0 or v >= h_in:
                                    continue
                                for t_w in range(k_w):
                                    u = x_out * stride[2] - before[2] + t_w * dilation[2]
                                    if u < 0 or u >= w_in:
                                        continue
                                    # Channels of the group, innermost: one tap's weights are read as a vector.
                                    for c in range(group_in):
                                        total += x[i, first + c, z, v, u] * weight[o, c, t_d, t_h, t_w]
                        y[i, o, z_out, y_out, x_out] = total
