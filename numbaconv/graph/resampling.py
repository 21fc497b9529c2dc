"""Resize as tables: along each axis, which elements an output element is a weighted sum of.

The attributes are ONNX's: how output positions map to input positions, and how weights follow from the distance to those.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from numbaconv.errors import ModelError, ShapeError

#: Where output element i lies in the input, given the scale, the input's size, and that of the output as a fraction and cut off.
_COORDINATES: dict[str, Callable] = {
    "half_pixel": lambda i, scale, size, out, whole: (i + 0.5) / scale - 0.5,
    "pytorch_half_pixel": lambda i, scale, size, out, whole: (i + 0.5) / scale - 0.5 if whole > 1 else i * 0.0,
    "half_pixel_symmetric": lambda i, scale, size, out, whole: size / 2 * (1 - whole / out) + (i + 0.5) / scale - 0.5,
    "asymmetric": lambda i, scale, size, out, whole: i / scale,
    "align_corners": lambda i, scale, size, out, whole: i * (size - 1) / (out - 1) if out != 1 else i * 0.0,
}

_ROUNDING = {
    "round_prefer_floor": lambda at: np.ceil(at - 0.5),
    "round_prefer_ceil": lambda at: np.floor(at + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class Taps:
    """For each output element along an axis, the elements that it is made from and their weights, both (out, taps)."""

    index: np.ndarray
    weight: np.ndarray
    #: output elements that lie outside of the input and get a constant instead, or None
    outside: np.ndarray | None = None

    def is_identity(self, size: int) -> bool:
        """Whether an axis of that length stays as it is."""
        return (
            self.index.shape == (size, 1)
            and self.outside is None
            and bool((self.index[:, 0] == np.arange(size)).all() and (self.weight == 1).all())
        )


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys, "Cubic convolution interpolation for digital image processing" (1981)."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@dataclass(frozen=True)
class Sampling:
    """The attributes of a Resize or Upsample node."""

    mode: str
    coordinates: str
    rounding: str
    cubic: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float

    @classmethod
    def read(cls, op: str, attributes: Mapping[str, object], opset: int) -> Sampling:
        """Complete the attributes of a node; before opset 11, positions are counted from the corner and cut off."""
        old = op == "Upsample" or opset < 11
        mode = attributes.get("mode", "nearest")
        sampling = cls(
            # Upsample of opset 1 and 7 wrote it out
            mode={"bilinear": "linear"}.get(mode, mode),
            coordinates="asymmetric" if old else attributes.get("coordinate_transformation_mode", "half_pixel"),
            rounding="floor" if old else attributes.get("nearest_mode", "round_prefer_floor"),
            cubic=attributes.get("cubic_coeff_a", -0.75),
            exclude_outside=bool(attributes.get("exclude_outside", 0)),
            antialias=bool(attributes.get("antialias", 0)),
            extrapolation=attributes.get("extrapolation_value", 0.0),
        )
        for name, value, known in (
            ("mode", sampling.mode, ("nearest", "linear", "cubic")),
            ("coordinate_transformation_mode", sampling.coordinates, (*_COORDINATES, "tf_crop_and_resize")),
            ("nearest_mode", sampling.rounding, tuple(_ROUNDING)),
        ):
            if value not in known:
                raise ModelError(f"{name} {value!r} is not one of {', '.join(known)}")
        return sampling

    def taps(self, size: int, out: int, scale: float, roi: tuple[float, float] = (0.0, 1.0)) -> Taps:
        """The taps along an axis of `size` elements that becomes one of `out`."""
        at, outside = self._positions(size, out, scale, roi)
        if self.mode == "nearest":
            index = np.clip(_ROUNDING[self.rounding](at), 0, size - 1).astype(np.int64)
            return Taps(index[:, None], np.ones((out, 1)), outside)
        reach = 1 if self.mode == "linear" else 2
        # a filter that is spread over all the elements that one output element stands for
        spread = min(scale, 1.0) if self.antialias else 1.0
        first = int(np.floor(-reach / spread)) + 1
        left = np.floor(at)
        steps = np.arange(first, 2 - first)
        index = left[:, None] + steps
        distance = (index - at[:, None]) * spread
        weight = _triangle(distance) if self.mode == "linear" else _cubic(distance, self.cubic)
        if self.exclude_outside:
            weight = np.where((index >= 0) & (index < size), weight, 0.0)
        if self.exclude_outside or self.antialias:
            weight = weight / weight.sum(1, keepdims=True)
        used = weight.any(0)
        used[0] |= not used.any()
        return Taps(np.clip(index, 0, size - 1).astype(np.int64)[:, used], weight[:, used], outside)

    def _positions(self, size: int, out: int, scale: float, roi: tuple[float, float]):
        i = np.arange(out, dtype=np.float64)
        # the specification counts with the length before it is rounded
        length = scale * size
        if self.coordinates != "tf_crop_and_resize":
            return _COORDINATES[self.coordinates](i, scale, size, length, out), None
        start, end = roi
        if length == 1:
            at = np.full(out, (end - start) * (size - 1) / 2)
        else:
            at = i * (end - start) * (size - 1) / (length - 1)
        at = at + start * (size - 1)
        outside = (at < 0) | (at > size - 1)
        return at, outside if outside.any() else None


def operands_of(op: str, attributes: Mapping[str, object], opset: int, operands: Sequence) -> tuple:
    """roi, scales and sizes of a node of any opset, from its operands behind x."""
    if op == "Upsample" and opset < 9:
        scales = attributes.get("scales")
        if scales is None:
            scales = (1.0, 1.0, attributes["height_scale"], attributes["width_scale"])
        return None, np.asarray(scales, np.float32), None
    if op == "Upsample" or opset < 11:
        return None, operands[0], None
    return (*operands, None, None, None)[:3]


def resized(
    shape: Sequence[int], attributes: Mapping[str, object], scales: np.ndarray | None, sizes: np.ndarray | None
) -> tuple[list[int], list[float]]:
    """The shape of the result and the scale of each axis."""
    rank = len(shape)
    axes = attributes.get("axes") or range(rank)
    axes = [int(axis) % rank for axis in axes]
    given = sizes if sizes is not None and sizes.size else scales
    if given is None or given.size != len(axes):
        entries = 0 if given is None else given.size
        raise ShapeError(f"scales or sizes have {entries} entries, x of shape {tuple(shape)} needs {len(axes)}")
    if (given <= 0).any():
        raise ShapeError(f"scales or sizes {given.tolist()} must be positive")
    out, scale = list(shape), [1.0] * rank
    if given is scales:
        for axis, value in zip(axes, scales):
            out[axis], scale[axis] = int(np.floor(shape[axis] * value)), float(value)
        return out, scale
    policy = attributes.get("keep_aspect_ratio_policy", "stretch")
    ratios = [int(wanted) / shape[axis] for axis, wanted in zip(axes, sizes)]
    if policy != "stretch":
        ratios = [(min if policy == "not_larger" else max)(ratios)] * len(axes)
    for axis, wanted, ratio in zip(axes, sizes, ratios):
        out[axis] = int(wanted) if policy == "stretch" else int(np.floor(ratio * shape[axis] + 0.5))
        scale[axis] = ratio
    return out, scale


def tables(
    op: str, attributes: Mapping[str, object], opset: int, shape: Sequence[int], roi, scales, sizes
) -> tuple[Sampling, list[Taps]]:
    """The taps of each axis for a tensor of that shape."""
    sampling = Sampling.read(op, attributes, opset)
    out, scale = resized(shape, attributes, scales, sizes)
    rank = len(shape)
    axes = [int(axis) % rank for axis in attributes.get("axes") or range(rank)]
    regions = [(0.0, 1.0)] * rank
    if roi is not None and roi.size == 2 * len(axes):
        for i, axis in enumerate(axes):
            regions[axis] = float(roi[i]), float(roi[i + len(axes)])
    made = [sampling.taps(*numbers) for numbers in zip(shape, out, scale, regions)]
    return sampling, made


def resample(x: np.ndarray, sampling: Sampling, taps: Sequence[Taps]) -> np.ndarray:
    """The resampling of an array, one axis after the other."""
    y = x
    floats = x.dtype.kind == "f"
    for axis in reversed(range(x.ndim)):
        own = taps[axis]
        if own.is_identity(y.shape[axis]):
            continue
        if own.index.shape[1] == 1 and (own.weight == 1).all():
            y = y.take(own.index[:, 0], axis)
            continue
        weight = own.weight.astype(x.dtype if floats else np.float64)
        shape = (-1,) + (1,) * (x.ndim - 1 - axis)
        y = sum(y.take(own.index[:, k], axis) * weight[:, k].reshape(shape) for k in range(weight.shape[1]))
    for axis, own in enumerate(taps):
        if own.outside is not None:
            y = y.copy() if y is x else y
            y[(slice(None),) * axis + (own.outside,)] = sampling.extrapolation
    if y.dtype == x.dtype:
        return y
    # integers are rounded, and what a cubic overshoots by does not wrap
    info = np.iinfo(x.dtype)
    return np.clip(np.rint(y), info.min, info.max).astype(x.dtype)
