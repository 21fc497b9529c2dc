"""Pictures as inputs of networks: cropped, resized, and on the scale of numbers that the network was trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from numbaconv.errors import ConvError


@dataclass(frozen=True)
class Preparation:
    """What happens to a picture: `(pixel - mean) / std`, for pixels from 0 to 255, after a crop.

    `mean` and `std` have one number, or one for each channel.  `crop` is the share of the largest centred box of the input's
    proportions that is kept; None takes the whole picture and stretches it.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (255.0,)
    crop: float | None = None

    @classmethod
    def parse(cls, mean: str, std: str, crop: float | None) -> Preparation:
        """From numbers with commas between them.

        Raises
        ------
        ConvError
            A text is no list of numbers, a standard deviation is zero, or the crop is not in (0, 1].
        """
        if crop is not None and not 0 < crop <= 1:
            raise ConvError(f"--crop {crop:g} is not in (0, 1]")
        deviations = _numbers("--std", std)
        if 0 in deviations:
            raise ConvError(f"--std {std} divides by zero")
        return cls(_numbers("--mean", mean), deviations, crop)


def load_picture(path: Path, shape: Sequence[int | str | None], preparation: Preparation | None = None) -> np.ndarray:
    """A picture as an input of shape (1, channels, height, width), f32.

    Raises
    ------
    ConvError
        Pillow is missing or cannot read the file, the input is not a batch of gray or RGB images, or there are not as many
        means as channels.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise ConvError("pictures are read with Pillow: pip install 'numbaconv[cli]'") from error
    if len(shape) != 4 or shape[1] not in (1, 3):
        raise ConvError(f"{path}: an input of shape {shape} takes no picture; it must be (n, 1 or 3, height, width)")
    preparation, channels = preparation or Preparation(), shape[1]
    try:
        picture = Image.open(path).convert("L" if channels == 1 else "RGB")
    except UnidentifiedImageError as error:
        raise ConvError(f"{path} is no picture that Pillow can read") from error
    fixed = [size if isinstance(size, int) else None for size in shape[2:]]
    box = _box(picture.size, fixed, preparation.crop)
    height = fixed[0] or round(box[3] - box[1])
    width = fixed[1] or round(box[2] - box[0])
    resized = picture.resize((width, height), Image.Resampling.BICUBIC, box)
    pixels = np.asarray(resized, np.float32).reshape(height, width, channels)
    mean, std = (_per_channel(numbers, channels) for numbers in (preparation.mean, preparation.std))
    return np.ascontiguousarray(((pixels - mean) / std).transpose(2, 0, 1))[np.newaxis]


def _box(size: tuple[int, int], fixed: Sequence[int | None], crop: float | None) -> tuple[float, float, float, float]:
    """Left, upper, right and lower edge of what is kept of a picture of `size` (width, height)."""
    width, height = size
    if crop is None:
        return 0, 0, width, height
    # an input that takes any size has the picture's proportions
    aspect = fixed[1] / fixed[0] if all(fixed) else width / height
    kept = crop * min(width, height * aspect), crop * min(height, width / aspect)
    left, upper = (width - kept[0]) / 2, (height - kept[1]) / 2
    return left, upper, left + kept[0], upper + kept[1]


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not all(map(isfinite, numbers)):
        raise ConvError(f"{option} {text!r} is not a list of numbers such as 127 or 123.7,116.3,103.5")
    return numbers


def _per_channel(numbers: tuple[float, ...], channels: int) -> np.ndarray:
    if len(numbers) not in (1, channels):
        raise ConvError(f"{len(numbers)} numbers for --mean or --std do not fit {channels} channels")
    return np.asarray(numbers, np.float32)
