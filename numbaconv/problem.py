"""One convolution as a frozen value: what is asked for, not how it is done.

The same value keys plans and measurements, names tests and benchmarks through its short string form,
and is checked once, where it is made, so that nothing below needs to doubt its sizes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from numbaconv.errors import ConvError, DTypeError, ShapeError
from numbaconv.sizes import BYTES_LIMIT, STEP_LIMIT, extent_of, integer, integers, pairs, worded_padding
from numbaconv.values import DTYPES, Batched, found_once

LAYOUTS: tuple[str, ...] = ("channels_first", "channels_last")
PADDING_MODES: tuple[str, ...] = ("zeros", "reflect", "replicate", "circular")


@dataclass(frozen=True)
class ConvProblem(Batched):
    """A batched cross-correlation over one, two or three spatial axes.

    Parameters
    ----------
    n, c_in, c_out : int
        Batch size (0 is allowed), input and output channels.
    spatial : tuple of int
        Input sizes, in the order d, h, w; its length is the number of axes.
    kernel, stride, dilation : tuple of int
        One value an axis.
    padding : tuple of (int, int)
        Elements before and after each axis, of the values that `padding_mode` says.
    groups : int
        Divides both `c_in` and `c_out`.
    dtype : {"f32", "f64"}
    layout : {"channels_first", "channels_last"}
        Of input and output; weights are always ``(c_out, c_in / groups, *kernel)``.
    bias : bool
        Whether one value a channel is added to the output.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What stands around the input: zeros, its mirror image about the outermost elements, these elements repeated, or its
        other end.

    Raises
    ------
    ShapeError
        If sizes contradict each other, the kernel does not fit the padded input, reflection or wrapping reaches further than the
        input does, or a tensor would take 2**63 bytes or more.
    ConvError
        If `padding_mode` is unknown.
    DTypeError
        If `dtype` is not supported.
    """

    n: int
    c_in: int
    c_out: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int = 1
    dtype: str = "f32"
    layout: str = "channels_first"
    bias: bool = False
    padding_mode: str = "zeros"

    __hash__ = Batched.__hash__

    def __post_init__(self) -> None:
        put = object.__setattr__  # the way into a frozen dataclass
        for name, least in (("n", 0), ("c_in", 1), ("c_out", 1), ("groups", 1)):
            put(self, name, integer(name, getattr(self, name), least))
        put(self, "spatial", integers("spatial", self.spatial, None, 1))
        axes = len(self.spatial)
        if not 1 <= axes <= 3:
            raise ShapeError(f"spatial={self.spatial} has {axes} axes; convolution has 1, 2 or 3 spatial axes")
        put(self, "kernel", integers("kernel", self.kernel, axes, 1))
        for name in ("stride", "dilation"):
            put(self, name, integers(name, getattr(self, name), axes, 1, STEP_LIMIT))
        put(self, "padding", pairs(self.padding, axes))
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise DTypeError(f"dtype={self.dtype!r} is not supported; it must be one of {', '.join(DTYPES)}")
        if not isinstance(self.layout, str) or self.layout not in LAYOUTS:
            raise ShapeError(f"layout={self.layout!r} is unknown; it must be one of {', '.join(LAYOUTS)}")
        if not isinstance(self.bias, (bool, np.bool_)):
            raise ShapeError(f"bias={self.bias!r} must be True or False: whether the problem has a bias")
        put(self, "bias", bool(self.bias))
        if not isinstance(self.padding_mode, str) or self.padding_mode not in PADDING_MODES:
            raise ConvError(
                f"padding_mode={self.padding_mode!r} is unknown; it must be one of {', '.join(map(repr, PADDING_MODES))}"
            )
        self._check_sizes()
        super().__post_init__()

    def _check_sizes(self) -> None:
        for name in ("c_in", "c_out"):
            if getattr(self, name) % self.groups:
                raise ShapeError(
                    f"groups={self.groups} does not divide {name}={getattr(self, name)}; groups must divide both"
                )
        for axis, (extent, size) in enumerate(zip(self.extent, self.padded, strict=True)):
            if extent > size:
                raise ShapeError(
                    f"kernel={self.kernel[axis]} with dilation={self.dilation[axis]} spans {extent} elements on axis "
                    f"{axis}, but the input has {self.spatial[axis]}, {size} with padding={self.padding[axis]}; "
                    "the kernel must fit into the padded input"
                )
        for axis, (size, ends) in enumerate(zip(self.spatial, self.padding, strict=True)):
            # mirrored elements exclude the outermost one, which is the mirror
            most = {"reflect": size - 1, "circular": size}.get(self.padding_mode)
            if most is not None and max(ends) > most:
                raise ShapeError(
                    f"padding={ends} on axis {axis} of {size} elements; with padding_mode={self.padding_mode!r} it must be at "
                    f"most {most}"
                )
        # An empty batch must not hide that one image is already too large to be addressed.
        n = max(self.n, 1)
        elements = {
            "padded input": n * self.c_in * prod(self.padded),
            "output": n * self.c_out * prod(self.out_spatial),
            "weight": prod(self.weight_shape),
        }
        for name, count in elements.items():
            if count * self.itemsize >= BYTES_LIMIT:
                raise ShapeError(
                    f"{name} of {count} {self.dtype} elements takes {count * self.itemsize} bytes; "
                    "a tensor must take fewer than 2**63 bytes"
                )

    @found_once
    def extent(self) -> tuple[int, ...]:
        """Input elements that the dilated kernel spans on each axis, ``dilation * (kernel - 1) + 1``."""
        return extent_of(self.kernel, self.dilation)

    @found_once
    def padded(self) -> tuple[int, ...]:
        """Input size with padding, an axis."""
        return tuple(before + size + after for size, (before, after) in zip(self.spatial, self.padding, strict=True))

    @found_once
    def out_spatial(self) -> tuple[int, ...]:
        """Output size, an axis: ``floor((padded - extent) / stride) + 1``."""
        return tuple((p - e) // s + 1 for p, e, s in zip(self.padded, self.extent, self.stride, strict=True))

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """``(c_out, c_in / groups, *kernel)`` in either layout."""
        return (self.c_out, self.c_in // self.groups, *self.kernel)

    @property
    def macs(self) -> int:
        """Multiplications of direct convolution; taps that fall on padding count too, as is customary."""
        return prod(self.output_shape) * (self.c_in // self.groups) * self.taps

    @property
    def flops(self) -> int:
        """Floating-point operations, 2 a multiply-accumulate."""
        return 2 * self.macs

    @property
    def parameters(self) -> int:
        """Weights, plus one bias a channel where the problem has one."""
        return prod(self.weight_shape) + self.bias * self.c_out

    @property
    def bytes(self) -> int:
        """Least memory traffic: input, parameters and output moved once each."""
        return (prod(self.input_shape) + self.parameters + prod(self.output_shape)) * self.itemsize

    @property
    def arithmetic_intensity(self) -> float:
        """`flops` a byte of `bytes`, the abscissa of a roofline."""
        return self.flops / self.bytes

    @classmethod
    def of(
        cls,
        x_shape: Sequence[int],
        weight_shape: Sequence[int],
        *,
        stride: int | Sequence[int] = 1,
        padding: int | str | Sequence[int | Sequence[int]] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        layout: str = "channels_first",
        dtype: str = "f32",
        bias: bool = False,
        padding_mode: str = "zeros",
    ) -> ConvProblem:
        """Make a problem from two shapes and PyTorch-style arguments.

        Parameters
        ----------
        x_shape : sequence of int
            Batched input shape, in `layout`.
        weight_shape : sequence of int
            ``(c_out, c_in / groups, *kernel)``.
        stride, dilation : int or sequence of int
            One for all axes, or one an axis.
        padding : int, sequence, or {"valid", "same", "full", "causal"}
            One int for all axes, or for each axis an int or a (before, after) pair.  "same" gives
            ceil(size / stride) outputs with the odd element after; "full" pads by the dilated kernel less one
            on both sides; "causal" (one axis only) puts all of that before.

        Raises
        ------
        ShapeError
            If arguments contradict each other; see also `ConvProblem`.
        DTypeError
            If `dtype` is not supported.
        """
        x_shape = integers("x.shape", x_shape, None, 0)
        weight_shape = integers("weight.shape", weight_shape, None, 1)
        axes = len(weight_shape) - 2
        if not 1 <= axes <= 3:
            raise ShapeError(
                f"weight.shape={weight_shape} has {len(weight_shape)} dimensions; "
                "(c_out, c_in / groups, *kernel) has 3, 4 or 5"
            )
        if len(x_shape) != axes + 2:
            raise ShapeError(
                f"x.shape={x_shape} has {len(x_shape)} dimensions, weight.shape={weight_shape} has "
                f"{len(weight_shape)}; batched x and weight must have equally many"
            )
        if not isinstance(layout, str) or layout not in LAYOUTS:
            raise ShapeError(f"layout={layout!r} is unknown; it must be one of {', '.join(LAYOUTS)}")
        first = layout == "channels_first"
        c_in, spatial = (x_shape[1], x_shape[2:]) if first else (x_shape[-1], x_shape[1:-1])
        groups = integer("groups", groups, 1)
        if weight_shape[1] * groups != c_in:
            raise ShapeError(
                f"weight.shape[1]={weight_shape[1]} times groups={groups} is {weight_shape[1] * groups}, but x has "
                f"{c_in} channels; the two must be equal"
            )
        kernel = weight_shape[2:]
        stride = integers("stride", stride, axes, 1, STEP_LIMIT)
        dilation = integers("dilation", dilation, axes, 1, STEP_LIMIT)
        if isinstance(padding, str):
            padding = worded_padding(padding, spatial, kernel, stride, dilation)
        return cls(
            x_shape[0], c_in, weight_shape[0], spatial, kernel, stride, dilation, pairs(padding, axes),
            groups, dtype, layout, bias, padding_mode,
        )  # fmt: skip

    @classmethod
    def parse(cls, text: str) -> ConvProblem:
        """Read the short form, such as ``"n1c64h56w56o64k3p1"``; the inverse of ``str``.

        Tokens come in any order: sizes ``n c d h w o`` (``o`` is c_out), ``k s p dil`` for all axes or, with
        ``d``, ``h`` or ``w`` appended, for one; a padding may be a pair, ``p1_2``; ``g``; ``f32|f64``;
        ``cf|cl``; ``bias``; ``reflect|replicate|circular``.  The axes are those of d, h, w that have a size.
        Defaults: n1 s1 p0 dil1 g1 f32 cf, no bias, padded with zeros.

        Raises
        ------
        ConvError
            If the text is malformed, repeats or lacks a token, or names an axis that it gives no size;
            `ShapeError` if it is well formed and breaks a rule of `ConvProblem`.
        """
        tokens = _tokens(text)
        axes = tuple(axis for axis in "dhw" if axis in tokens)
        if axes not in _AXES:
            raise ConvError(f"problem {text!r} gives sizes for axes {axes}; they must be w, h and w, or d, h and w")
        for name in ("c", "o"):
            if name not in tokens:
                raise ConvError(f"problem {text!r} lacks the token {name!r}; c, o, k and the sizes are required")

        def per_axis(name, default):
            return tuple(tokens.get(name + axis, tokens.get(name, default)) for axis in axes)

        for name in ("k", "s", "p", "dil"):
            given = [name + axis for axis in "dhw" if name + axis in tokens]
            for token in given:
                if token[-1] not in axes:
                    raise ConvError(f"problem {text!r} has {token!r} for an axis that it gives no size")
                if name in tokens:
                    raise ConvError(f"problem {text!r} has {token!r} besides {name!r}, which is for all axes")
        kernel = per_axis("k", None)
        if None in kernel:
            raise ConvError(f"problem {text!r} lacks the token {'k' + axes[kernel.index(None)]!r} or 'k'")
        return cls(
            tokens.get("n", 1), tokens["c"], tokens["o"], tuple(tokens[axis] for axis in axes), kernel,
            per_axis("s", 1), per_axis("dil", 1), per_axis("p", (0, 0)), tokens.get("g", 1),
            tokens.get("dtype", "f32"), tokens.get("layout", "channels_first"), "bias" in tokens,
            tokens.get("padding_mode", "zeros"),
        )  # fmt: skip

    def __str__(self) -> str:
        axes = _AXES[len(self.spatial) - 1]
        parts = ["" if self.n == 1 else f"n{self.n}", f"c{self.c_in}"]
        parts += [f"{axis}{size}" for axis, size in zip(axes, self.spatial, strict=True)]
        parts.append(f"o{self.c_out}")
        padding = [f"{before}" if before == after else f"{before}_{after}" for before, after in self.padding]
        for name, values, default in (
            ("k", self.kernel, None), ("s", self.stride, 1), ("p", padding, "0"), ("dil", self.dilation, 1),
        ):  # fmt: skip
            named = zip(axes, values, strict=True) if len(set(values)) > 1 else [("", values[0])]
            parts += [f"{name}{axis}{value}" for axis, value in named if value != default]
        parts.append("" if self.groups == 1 else f"g{self.groups}")
        parts.append("" if self.dtype == "f32" else self.dtype)
        parts.append("" if self.layout == "channels_first" else "cl")
        parts.append("bias" if self.bias else "")
        parts.append("" if self.padding_mode == "zeros" else self.padding_mode)
        return "".join(parts)


_AXES = (("w",), ("h", "w"), ("d", "h", "w"))
_TOKEN = re.compile(
    r"(?P<name>dil[dhw]?|[ksp][dhw]?|[ncdhwog])(?P<value>[0-9]+)(_(?P<after>[0-9]+))?|f32|f64|cf|cl|bias"
    r"|reflect|replicate|circular"
)
_WORDS = {
    "f32": ("dtype", "f32"), "f64": ("dtype", "f64"), "bias": ("bias", True),
    "cf": ("layout", "channels_first"), "cl": ("layout", "channels_last"),
    **{mode: ("padding_mode", mode) for mode in PADDING_MODES[1:]},
}  # fmt: skip


def _tokens(text: str) -> dict:
    """The tokens of a problem's short form, name to value; paddings become pairs."""
    if not isinstance(text, str):
        raise ConvError(f"a problem is parsed from a str, not from {text!r}")
    tokens, position = {}, 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ConvError(f"problem {text!r} is malformed from {text[position:]!r} on")
        token, name, after = match[0], match["name"], match["after"]
        if name is None:
            name, value = _WORDS[token]
        elif max(len(match["value"]), len(after or "")) > 19:
            raise ConvError(f"problem {text!r} has {token!r}; numbers must be below 2**63")
        elif name[0] == "p":
            value = (int(match["value"]), int(after or match["value"]))
        elif after is not None:
            raise ConvError(f"problem {text!r} has the pair {token!r}; only paddings are pairs")
        else:
            value = int(match["value"])
        if name in tokens:
            raise ConvError(f"problem {text!r} repeats {name!r} in {token!r}")
        tokens[name] = value
        position = match.end()
    return tokens
