"""One transposed convolution as a frozen value, and what a layer knows of it without its input.

Input element i and tap k of an axis meet at u = i * stride + k * dilation, of which the result keeps the elements from
padding[0] on: element o of the result is u - padding[0].  All that computes it follows from this one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

from numbaconv.errors import ShapeError
from numbaconv.problem import ConvProblem
from numbaconv.sizes import BYTES_LIMIT, extent_of, integer, integers
from numbaconv.values import Batched, found_once


@dataclass(frozen=True)
class Geometry:
    """Everything but the input's size, checked; `c_in` and `c_out` are those of all groups."""

    c_in: int
    c_out: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    layout: str

    @classmethod
    def of(cls, weight_shape, stride, padding, output_padding, dilation, groups, layout) -> Geometry:
        """Check and complete what a user wrote."""
        if isinstance(padding, str):
            raise ShapeError(f"padding={padding!r} is a word; a transposed convolution takes integers or pairs of them")
        c_in, group_out, *kernel = weight_shape
        ones = (1,) * len(kernel)
        # the pointwise convolution whose adjoint this is, apart from the kernel, fits any image and knows most rules
        image = (1, *ones, group_out) if layout == "channels_last" else (1, group_out, *ones)
        probe = ConvProblem.of(
            image, (c_in, group_out, *ones), stride=stride, padding=padding, dilation=dilation, layout=layout
        )
        groups = integer("groups", groups, 1)
        if c_in % groups:
            raise ShapeError(f"groups={groups} does not divide c_in={c_in} of weight; it must")
        output_padding = integers("output_padding", output_padding, len(kernel), 0)
        for axis, (more, step, spread) in enumerate(zip(output_padding, probe.stride, probe.dilation)):
            if more >= max(step, spread):
                raise ShapeError(
                    f"output_padding={more} on axis {axis}, where stride={step} and dilation={spread}; it must be smaller than "
                    "one of them"
                )
        return cls(
            c_in, group_out * groups, tuple(kernel), probe.stride, probe.padding, output_padding, probe.dilation,
            groups, layout,
        )  # fmt: skip

    def problem(self, x_shape: Sequence[int], dtype: str, bias: bool) -> TransposedProblem:
        """The problem that a batched input of this shape poses."""
        n, c_in, *spatial = x_shape if self.layout == "channels_first" else (x_shape[0], x_shape[-1], *x_shape[1:-1])
        if c_in != self.c_in:
            raise ShapeError(f"x has {c_in} channels, but weight has c_in={self.c_in}; they must be equal")
        if 0 in spatial:
            raise ShapeError(f"x has shape {tuple(x_shape)}; only the batch may be empty")
        problem = TransposedProblem(
            n, c_in, self.c_out, tuple(spatial), self.kernel, self.stride, self.dilation, self.padding,
            self.output_padding, self.groups, dtype, self.layout, bias,
        )  # fmt: skip
        problem.check()
        return problem


@dataclass(frozen=True)
class TransposedProblem(Batched):
    """A batched transposed convolution over one, two or three spatial axes; `Geometry.problem` makes it, checked.

    Its fields are those of `ConvProblem`, but for `padding`, the elements that the result lacks before and after each axis, and
    `output_padding`, those that it has more at the end.
    """

    n: int
    c_in: int
    c_out: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    output_padding: tuple[int, ...]
    groups: int
    dtype: str
    layout: str
    bias: bool

    #: nothing is padded, so nothing is padded with anything else
    padding_mode: ClassVar[str] = "zeros"

    __hash__ = Batched.__hash__

    def check(self) -> None:
        """Raise `ShapeError` if nothing is left of the result, or if it could not be addressed."""
        for axis, size in enumerate(self.out_spatial):
            if size < 1:
                raise ShapeError(
                    f"x has {self.spatial[axis]} elements on axis {axis}, of which stride={self.stride[axis]}, "
                    f"padding={self.padding[axis]}, kernel={self.kernel[axis]} with dilation={self.dilation[axis]} and "
                    f"output_padding={self.output_padding[axis]} make an output of {size}; it must have at least 1"
                )
        nbytes = max(self.n, 1) * self.c_out * prod(self.out_spatial) * self.itemsize
        if nbytes >= BYTES_LIMIT:
            raise ShapeError(
                f"the output of shape {self.output_shape} takes {nbytes} bytes; it must take fewer than 2**63"
            )

    @found_once
    def extent(self) -> tuple[int, ...]:
        """Output elements from the first tap of the kernel to its last, an axis."""
        return extent_of(self.kernel, self.dilation)

    @found_once
    def out_spatial(self) -> tuple[int, ...]:
        """Output size, an axis: ``(size - 1) * stride - before - after + extent + output_padding``."""
        axes = zip(self.spatial, self.stride, self.padding, self.extent, self.output_padding)
        return tuple((size - 1) * step - sum(ends) + extent + more for size, step, ends, extent, more in axes)

    @property
    def flops(self) -> int:
        """Two a multiply-accumulate: every input element meets every tap of every output channel of its group."""
        return 2 * self.n * prod(self.spatial) * self.c_in * (self.c_out // self.groups) * self.taps

    @property
    def arithmetic_intensity(self) -> float:
        """`flops` a byte of input, weights and output moved once each."""
        weights = self.c_in * (self.c_out // self.groups) * self.taps
        moved = self.n * (self.c_in * prod(self.spatial) + self.c_out * prod(self.out_spatial)) + weights
        return self.flops / (moved * self.itemsize)

    def __str__(self) -> str:
        def sizes(values):
            return "x".join(map(str, values))

        parts = [f"n{self.n} {self.c_in} -> {self.c_out} channels {sizes(self.spatial)} -> {sizes(self.out_spatial)}"]
        parts += [f"kernel {sizes(self.kernel)}", f"stride {sizes(self.stride)}"]
        parts += [f"dilation {sizes(self.dilation)}"] if max(self.dilation) > 1 else []
        parts += [f"groups {self.groups}"] if self.groups > 1 else []
        return f"transposed {', '.join(parts)}, {self.dtype}, {self.layout}"
