"""Named filters for pictures: edges, blurs and effects, on grey (h, w) or colour (h, w, c), in integers or floats.

Every result has the picture's shape.  Weights of blurs add up to one, and those of an edge detector to one on either side of the
edge, so that what comes out has the units of what went in.  Filters that keep a picture a picture (`gaussian`, `box`, `sharpen`,
`emboss`, and the strength of edges) keep its type: integers are rounded and end at the type's limits.  Those whose results have a
sign (`laplacian`, and edges along one axis) give floats, float32 for integers of up to 16 bits and else float64.

Beyond its edges a picture goes on as `mode` says, in the words of `scipy.ndimage`: "reflect" (d c b a | a b c d), "mirror" (d c b |
a b c d), "nearest" (a a a | a b c d), "wrap" (b c d | a b c d) or "constant", with `cval`.
"""

from __future__ import annotations

from math import exp, inf
from numbers import Real

import numpy as np

from numbaconv.errors import ConvError, DTypeError, ShapeError
from numbaconv.signals.functional import filtered
from numbaconv.signals.operands import array_of, one_of

#: How a picture goes on beyond its edges, and NumPy's word for it.
_MODES = {"reflect": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap", "constant": "constant"}
#: Flipped when it is laid on: the neighbour after, minus the one before.
_DIFFERENCE = (1.0, 0.0, -1.0)


def sobel(image, axis=None, *, mode="reflect", cval=0.0) -> np.ndarray:
    """Edges by the Sobel operator: a difference along one axis, smoothed by (1, 2, 1) / 4 along the other.

    Parameters
    ----------
    image : array, (h, w) or (h, w, c)
        Integers or floats.
    axis : {0, 1}, optional
        The axis along which differences are taken: 0 finds horizontal edges, 1 vertical ones.  By default the strength of edges of
        all directions, ``sqrt((d0^2 + d1^2) / 2)``.
    mode, cval
        How the picture goes on beyond its edges, see the module.

    Returns
    -------
    ndarray
        A step of height s gives s on both sides: a quarter of what `scipy.ndimage.sobel` gives, and what skimage does.  Signed
        floats with `axis`; without it, the picture's own type, within its range.

    Raises
    ------
    ShapeError
        If the picture is empty or has other than two or three axes.
    DTypeError
        If it holds other than integers or floats.
    ConvError
        If `axis`, `mode` or `cval` is none of those.
    """
    return _edges(image, axis, (0.25, 0.5, 0.25), mode, cval)


def prewitt(image, axis=None, *, mode="reflect", cval=0.0) -> np.ndarray:
    """Edges by the Prewitt operator: as `sobel`, smoothed by (1, 1, 1) / 3; a third of what `scipy.ndimage.prewitt` gives."""
    return _edges(image, axis, (1 / 3, 1 / 3, 1 / 3), mode, cval)


def laplacian(image, *, diagonals=False, mode="reflect", cval=0.0) -> np.ndarray:
    """The sum of second differences along both axes, as `scipy.ndimage.laplace`; with `diagonals` along these, too.

    Parameters
    ----------
    image, mode, cval
        As in `sobel`.
    diagonals : bool
        Whether all eight neighbours count, instead of four.

    Returns
    -------
    ndarray
        Signed floats: neighbours minus the pixel itself as often as there are neighbours.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        As in `sobel`.
    """
    corner = 1.0 if diagonals else 0.0
    kernel = np.array([[corner, 1, corner], [1, -4 - 4 * corner, 1], [corner, 1, corner]])
    return _planes(image, [kernel], mode, cval)[0]


def gaussian(image, sigma=1.0, *, truncate=4.0, mode="reflect", cval=0.0) -> np.ndarray:
    """Blur with a Gaussian of standard deviation `sigma` pixels, cut off at `truncate` deviations, as `scipy.ndimage`.

    Parameters
    ----------
    image, mode, cval
        As in `sobel`.
    sigma : float or pair of float
        Above 0; one for both axes, or one an axis.
    truncate : float
        Above 0.

    Returns
    -------
    ndarray
        Of the picture's type; its mean brightness stays.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        As in `sobel`; `ConvError` also if a number is not above 0 and finite.
    """
    sigmas = tuple(sigma) if isinstance(sigma, (tuple, list, np.ndarray)) else (sigma, sigma)
    if len(sigmas) != 2:
        raise ConvError(f"sigma={sigma!r} has {len(sigmas)} entries; it must be one number or a pair")
    truncate = _positive("truncate", truncate)
    column, row = (_bell(_positive("sigma", deviation), truncate) for deviation in sigmas)
    return _restored(image, _planes(image, [np.outer(column, row)], mode, cval)[0])


def box(image, size=3, *, mode="reflect", cval=0.0) -> np.ndarray:
    """The mean over a window of `size` pixels, or (rows, columns), as `scipy.ndimage.uniform_filter`.

    Parameters
    ----------
    image, mode, cval
        As in `sobel`.
    size : int or pair of int
        At least 1.  Of an even window the additional pixel lies before.

    Returns
    -------
    ndarray
        Of the picture's type.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        As in `sobel`; `ConvError` also if a size is no integer of at least 1.
    """
    sizes = tuple(size) if isinstance(size, (tuple, list)) else (size, size)
    if len(sizes) != 2 or any(not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1 for n in sizes):
        raise ConvError(f"size={size!r} must be an integer of at least 1, or a pair of them")
    return _restored(image, _planes(image, [np.full(sizes, 1 / (sizes[0] * sizes[1]))], mode, cval)[0])


def sharpen(image, amount=1.0, *, mode="reflect", cval=0.0) -> np.ndarray:
    """The picture minus `amount` times its `laplacian`: 5 in the middle and -1 at the four neighbours for an amount of 1.

    Parameters
    ----------
    image, mode, cval
        As in `sobel`.
    amount : float
        0 leaves the picture alone.

    Returns
    -------
    ndarray
        Of the picture's type; even areas stay as they are.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        As in `sobel`; `ConvError` also if `amount` is no finite number.
    """
    amount = _number("amount", amount)
    kernel = np.array([[0, -amount, 0], [-amount, 1 + 4 * amount, -amount], [0, -amount, 0]])
    return _restored(image, _planes(image, [kernel], mode, cval)[0])


def emboss(image, *, mode="reflect", cval=0.0) -> np.ndarray:
    """A relief lit from the upper left: the picture plus its slope along the diagonal.

    The weights are ((-2, -1, 0), (-1, 1, 1), (0, 1, 2)), which add up to one: even areas stay as they are.

    Parameters
    ----------
    image, mode, cval
        As in `sobel`.

    Returns
    -------
    ndarray
        Of the picture's type.

    Raises
    ------
    ShapeError, DTypeError, ConvError
        As in `sobel`.
    """
    kernel = np.array([[-2.0, -1, 0], [-1, 1, 1], [0, 1, 2]])
    # a kernel is laid on as it is written, and convolution flips it
    return _restored(image, _planes(image, [kernel[::-1, ::-1]], mode, cval)[0])


def _edges(image, axis, smoothing: tuple[float, ...], mode, cval) -> np.ndarray:
    if axis not in (None, 0, 1) or isinstance(axis, bool):
        raise ConvError(f"axis={axis!r} must be 0, 1 or None")
    kernels = [np.outer(_DIFFERENCE, smoothing), np.outer(smoothing, _DIFFERENCE)]
    if axis is not None:
        return _planes(image, [kernels[axis]], mode, cval)[0]
    down, across = _planes(image, kernels, mode, cval)
    return _restored(image, np.sqrt((down * down + across * across) / 2))


def _planes(image, kernels: list[np.ndarray], mode, cval) -> list[np.ndarray]:
    """The picture convolved with each of some kernels, channel by channel, in floats."""
    image = array_of("image", image)
    if image.ndim not in (2, 3):
        raise ShapeError(f"image has shape {image.shape}; it must be (h, w) or (h, w, c)")
    if image.dtype.kind not in "iuf":
        raise DTypeError(f"image has dtype {image.dtype}; it must hold integers or floats")
    one_of("mode", mode, _MODES)
    cval = _number("cval", cval)
    exact = image.dtype.itemsize <= (2 if image.dtype.kind in "iu" else 4)
    precision = np.dtype(np.float32 if exact else np.float64)
    planes = np.moveaxis(image[..., None] if image.ndim == 2 else image, -1, 0).astype(precision)
    results = []
    for kernel in kernels:
        # an even window reaches further back
        margins = [(k // 2, (k - 1) // 2) for k in kernel.shape]
        options = {"constant_values": cval} if mode == "constant" else {}
        padded = np.pad(planes, [(0, 0), *margins], _MODES[mode], **options)
        start = [k - 1 for k in kernel.shape]
        y = filtered(padded, kernel.astype(precision), start, planes.shape[1:], "direct")
        results.append(y[0] if image.ndim == 2 else np.ascontiguousarray(np.moveaxis(y, 0, -1)))
    return results


def _restored(image, y: np.ndarray) -> np.ndarray:
    """In the picture's type: integers are rounded, and end at its limits."""
    dtype = np.asarray(image).dtype
    if dtype.kind == "f":
        return y.astype(dtype, copy=False)
    limits = np.iinfo(dtype)
    # the largest 64-bit integers have no float; the next one below is in range
    highest = np.nextafter(y.dtype.type(limits.max), y.dtype.type(0)) if limits.bits == 64 else limits.max
    return np.clip(np.rint(y), limits.min, highest).astype(dtype)


def _bell(sigma: float, truncate: float) -> np.ndarray:
    """Weights of a Gaussian, which add up to one."""
    radius = int(truncate * sigma + 0.5)
    weights = np.array([exp(-0.5 * (at / sigma) ** 2) for at in range(-radius, radius + 1)])
    return weights / weights.sum()


def _number(name: str, value) -> float:
    if not isinstance(value, Real) or isinstance(value, bool) or not -inf < value < inf:
        raise ConvError(f"{name}={value!r} must be a finite number")
    return float(value)


def _positive(name: str, value) -> float:
    if _number(name, value) <= 0:
        raise ConvError(f"{name}={value!r} must be above 0")
    return float(value)
