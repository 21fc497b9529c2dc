"""The problems that gradients are: each is a convolution, a transposed one, or products of the two operands' pixels.

A convolution and its transposed one are adjoint, so the gradient of either with respect to its input is the other one; and both
have the same gradient with respect to the weights, with the roles of input and result exchanged.
"""

from __future__ import annotations

from numbaconv.problem import ConvProblem
from numbaconv.transposed.problem import TransposedProblem


def adjoint(p: ConvProblem) -> TransposedProblem:
    """The transposed convolution that leads from the result of a convolution to the size of its input."""
    axes = zip(p.padded, p.extent, p.stride)
    # what the last step of the kernel did not reach
    rest = tuple((size - extent) % step for size, extent, step in axes)
    return TransposedProblem(
        p.n, p.c_out, p.c_in, p.out_spatial, p.kernel, p.stride, p.dilation, p.padding, rest, p.groups, p.dtype,
        p.layout, False,
    )  # fmt: skip


def forward(t: TransposedProblem) -> ConvProblem:
    """The convolution that leads from the result of a transposed one to the size of its input.

    Elements of that result which no tap reaches, as output padding may make them, are left out of the padding after it, and where
    that does not do, its `spatial` is smaller than the result is.
    """
    sizes, padding = [], []
    for size, (before, after), more, step in zip(t.out_spatial, t.padding, t.output_padding, t.stride):
        spare = more if more >= step else 0
        padding.append((before, max(after - spare, 0)))
        sizes.append(size - max(spare - after, 0))
    return ConvProblem(
        t.n, t.c_out, t.c_in, tuple(sizes), t.kernel, t.stride, t.dilation, tuple(padding), t.groups, t.dtype, t.layout
    )
