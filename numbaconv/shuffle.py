"""Pixels and channels that change places: sub-pixel convolution's last step and its inverse, and ShuffleNet's between groups.

Shi et al., "Real-Time Single Image and Video Super-Resolution" (2016); Zhang et al., "ShuffleNet" (2017).
"""

from __future__ import annotations

import numpy as np

from numbaconv.errors import ShapeError
from numbaconv.problem import LAYOUTS, integer


def pixel_shuffle(x, factor, *, layout="channels_first") -> np.ndarray:
    """Move channels into space: (n, c * factor**2, h, w) becomes (n, c, h * factor, w * factor).

    Channel ``(i * factor + a) * factor + b`` becomes the pixels ``(h * factor + a, w * factor + b)`` of channel i, as in PyTorch
    and in ONNX's ``DepthToSpace`` of mode CRD.

    Parameters
    ----------
    x : array, (n, c * factor**2, h, w) or (n, h, w, c * factor**2) as `layout` says, or without n
        Any dtype.
    factor : int
        At least 1.
    layout : {"channels_first", "channels_last"}

    Returns
    -------
    ndarray
        A new contiguous array.

    Raises
    ------
    ShapeError
        If the channels are no multiple of factor**2, or another argument breaks a rule.
    """
    x, factor, axis = _image(x, layout), integer("factor", factor, 1), _channel_axis(layout)
    c = _divided(x, x.shape[axis], "channels", "factor**2", factor**2)
    if layout == "channels_first":
        *n, _, h, w = x.shape
        return _moved(x, (*n, c, factor, factor, h, w), (0, 3, 1, 4, 2), (*n, c, h * factor, w * factor))
    *n, h, w, _ = x.shape
    return _moved(x, (*n, h, w, c, factor, factor), (0, 3, 1, 4, 2), (*n, h * factor, w * factor, c))


def pixel_unshuffle(x, factor, *, layout="channels_first") -> np.ndarray:
    """Move space into channels, the inverse of `pixel_shuffle`: (n, c, h * factor, w * factor) becomes (n, c * factor**2, h, w).

    Parameters
    ----------
    x : array, (n, c, h * factor, w * factor) or (n, h * factor, w * factor, c) as `layout` says, or without n
        Any dtype.
    factor : int
        At least 1.
    layout : {"channels_first", "channels_last"}

    Returns
    -------
    ndarray
        A new contiguous array.

    Raises
    ------
    ShapeError
        If rows or columns are no multiple of the factor, or another argument breaks a rule.
    """
    x, factor = _image(x, layout), integer("factor", factor, 1)
    *n, c, h, w = x.shape if layout == "channels_first" else (*x.shape[:-3], x.shape[-1], *x.shape[-3:-1])
    h, w = (_divided(x, size, name, "factor", factor) for size, name in ((h, "rows"), (w, "columns")))
    if layout == "channels_first":
        return _moved(x, (*n, c, h, factor, w, factor), (0, 2, 4, 1, 3), (*n, c * factor**2, h, w))
    return _moved(x, (*n, h, factor, w, factor, c), (0, 2, 4, 1, 3), (*n, h, w, c * factor**2))


def channel_shuffle(x, groups, *, layout="channels_first") -> np.ndarray:
    """Deal channels out between groups: channel number i of group g becomes channel i * groups + g.

    Parameters
    ----------
    x : array, (n, c, *spatial) or (n, *spatial, c) as `layout` says
        Any dtype.
    groups : int
        Divides c.
    layout : {"channels_first", "channels_last"}

    Returns
    -------
    ndarray
        A new contiguous array of the same shape.

    Raises
    ------
    ShapeError
        If the channels are no multiple of the groups, or another argument breaks a rule.
    """
    _checked_layout(layout)
    x, groups = np.asarray(x), integer("groups", groups, 1)
    if x.ndim < 3:
        raise ShapeError(f"x has shape {x.shape}; it must have a batch, channels and at least one spatial axis")
    axis = 1 if layout == "channels_first" else x.ndim - 1
    each = _divided(x, x.shape[axis], "channels", "groups", groups)
    apart = x.reshape(*x.shape[:axis], groups, each, *x.shape[axis + 1 :])
    return np.ascontiguousarray(apart.swapaxes(axis, axis + 1)).reshape(x.shape)


def _moved(x: np.ndarray, apart: tuple[int, ...], order: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """`x` with its axes taken apart, the last five of them in another order, as an array of that shape."""
    before = len(apart) - len(order)
    order = (*range(before), *(before + axis for axis in order))
    return np.ascontiguousarray(x.reshape(apart).transpose(order)).reshape(shape)


def _checked_layout(layout) -> None:
    if not isinstance(layout, str) or layout not in LAYOUTS:
        raise ShapeError(f"layout={layout!r} is unknown; it must be one of {', '.join(LAYOUTS)}")


def _image(x, layout) -> np.ndarray:
    """`x` as an array with or without a batch."""
    _checked_layout(layout)
    x = np.asarray(x)
    if x.ndim not in (3, 4):
        raise ShapeError(f"x has shape {x.shape}; it must have 4 axes, or 3 without a batch")
    return x


def _channel_axis(layout: str) -> int:
    return -3 if layout == "channels_first" else -1


def _divided(x: np.ndarray, size: int, what: str, name: str, by: int) -> int:
    if size % by:
        raise ShapeError(f"x has shape {x.shape} and {size} {what}; {name}={by} must divide them")
    return size // by
