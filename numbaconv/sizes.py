"""Sizes, strides and paddings as callers write them, read into tuples of integers."""

from __future__ import annotations

from operator import index

from numbaconv.errors import ShapeError

PADDING_WORDS: tuple[str, ...] = ("valid", "same", "full", "causal")

# Compiled loops hold sizes and byte offsets in int64; strides and dilations are multiplied with both.
BYTES_LIMIT = 2**63
STEP_LIMIT = 2**31


def integer(name: str, value, least: int, limit: int = BYTES_LIMIT) -> int:
    """`value` as an int in [least, limit); bools and floats are refused, since they are slips."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = index(value)
    except TypeError:
        raise ShapeError(f"{name}={value!r} is a {type(value).__name__}; it must be an integer") from None
    if not least <= number < limit:
        rule = f"at least {least}" if number < least else f"below 2**{limit.bit_length() - 1}"
        raise ShapeError(f"{name}={number} is out of range; it must be {rule}")
    return number


def integers(
    name: str, values, count: int | None, least: int, limit: int = BYTES_LIMIT, rule: str = "one an axis"
) -> tuple[int, ...]:
    """`values` as so many ints in [least, limit); one for all axes is repeated."""
    return tuple([integer(name, value, least, limit) for value in _sequence(name, values, count, rule)])


def _sequence(name: str, values, count: int | None, rule: str) -> tuple:
    """`values` as a tuple of `count`; a scalar is repeated, unless any count will do."""
    kind = type(values).__name__
    if isinstance(values, (str, bytes)):
        raise ShapeError(f"{name}={values!r} is a {kind}; it must be made of integers")
    try:
        values = tuple(values)
    except TypeError:
        if count is None:
            raise ShapeError(f"{name}={values!r} is a {kind}; it must be a sequence of integers") from None
        return (values,) * count
    if count is not None and len(values) != count:
        raise ShapeError(f"{name}={values} has {len(values)} entries where {count} are needed, {rule}")
    return values


def pairs(padding, axes: int) -> tuple[tuple[int, int], ...]:
    """`padding` as one (before, after) pair an axis."""
    entries = _sequence("padding", padding, axes, "one int or (before, after) pair an axis")
    return tuple([integers("padding", entry, 2, 0, rule="before and after") for entry in entries])


def extent_of(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Elements that a dilated kernel spans on each axis."""
    return tuple([d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)])


def worded_padding(word, spatial, kernel, stride, dilation) -> tuple[tuple[int, int], ...]:
    """The (before, after) pairs that "valid", "same", "full" or "causal" stand for."""
    extents = extent_of(kernel, dilation)
    if word == "causal" and len(spatial) != 1:
        raise ShapeError(f"padding='causal' with {len(spatial)} spatial axes; it is for 1-D convolution only")
    if word == "valid":
        return ((0, 0),) * len(spatial)
    if word in ("full", "causal"):
        return tuple((extent - 1, extent - 1 if word == "full" else 0) for extent in extents)
    if word == "same":
        totals = [
            max((-(-size // step) - 1) * step + extent - size, 0)
            for size, step, extent in zip(spatial, stride, extents, strict=True)
        ]
        return tuple((total // 2, total - total // 2) for total in totals)
    raise ShapeError(f"padding={word!r} is unknown; the words are {', '.join(PADDING_WORDS)}")
