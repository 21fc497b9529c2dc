"""The arithmetic of convolutions: sizes, receptive fields, costs, and two artefacts that follow from the numbers alone.

Sizes are those of Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016), along one axis; what a whole
problem costs is what its `ConvProblem` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from numbaconv.errors import ShapeError
from numbaconv.problem import ConvProblem, integer


class Window(NamedTuple):
    """One layer of a stack, along one axis."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    #: before the first element
    padding: int = 0


@dataclass(frozen=True)
class ReceptiveField:
    """What one output of a stack sees, in elements of the stack's input.

    Parameters
    ----------
    size : int
        Elements that it may depend on.
    jump : int
        Elements from one output's field to the next one's.
    start : int
        The first element of the first output's field; negative in padding.
    """

    size: int
    jump: int
    start: int

    @property
    def center(self) -> float:
        """The middle of the first output's field."""
        return self.start + (self.size - 1) / 2


@dataclass(frozen=True)
class Summary:
    """What is known of a problem before it runs; sizes an axis, memory in bytes.

    `im2col_bytes` are those of the whole patch matrix, which no algorithm here makes; `separable_ratio` is the cost of a depthwise
    and a pointwise layer in its place, for problems without groups.
    """

    output: tuple[int, ...]
    effective_kernel: tuple[int, ...]
    parameters: int
    macs: int
    flops: int
    bytes: int
    arithmetic_intensity: float
    im2col_bytes: int
    separable_ratio: float | None


def output_size(size: int, kernel: int, stride: int = 1, padding=0, dilation: int = 1) -> int:
    """Outputs along one axis: ``floor((size + before + after - dilation (kernel - 1) - 1) / stride) + 1``.

    Parameters
    ----------
    size, kernel, stride, dilation : int
        At least 1.
    padding : int, (before, after) or word
        As in `conv2d`.

    Raises
    ------
    ShapeError
        If a number is out of range, or the kernel does not fit.
    """
    padding = padding if isinstance(padding, (int, str)) else (padding,)
    problem = ConvProblem.of((1, 1, size), (1, 1, kernel), stride=stride, padding=padding, dilation=dilation)
    return problem.out_spatial[0]


def transposed_output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1, output_padding: int = 0
) -> int:
    """Outputs of a transposed convolution: ``(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1``.

    Raises
    ------
    ShapeError
        If a number is out of range, nothing is left, or `output_padding` is not below the larger of stride and dilation.
    """
    size, stride = integer("size", size, 1), integer("stride", stride, 1)
    dilation, padding = integer("dilation", dilation, 1), integer("padding", padding, 0)
    extra = integer("output_padding", output_padding, 0)
    if extra >= max(stride, dilation):
        raise ShapeError(f"output_padding={extra} must be below the larger of stride={stride} and dilation={dilation}")
    result = (size - 1) * stride - 2 * padding + effective_kernel(kernel, dilation) + extra
    if result < 1:
        raise ShapeError(f"padding={padding} leaves {result} outputs of size={size}, kernel={kernel}, stride={stride}")
    return result


def effective_kernel(kernel: int, dilation: int = 1) -> int:
    """Elements that a dilated kernel spans: ``dilation (kernel - 1) + 1``.

    Raises
    ------
    ShapeError
        If a number is below 1.
    """
    return integer("dilation", dilation, 1) * (integer("kernel", kernel, 1) - 1) + 1


def receptive_field(layers: Iterable) -> ReceptiveField:
    """The receptive field of a stack of convolutions or poolings along one axis, first layer first.

    Parameters
    ----------
    layers : sequence of Window, tuple or int
        (kernel, stride, dilation, padding), of which the last ones may be left out.

    Raises
    ------
    ShapeError
        If an entry is no layer, or a number is out of range.

    Notes
    -----
    A layer adds dilation (kernel - 1) jumps to the size, and multiplies the jump by its stride.

    Examples
    --------
    >>> receptive_field([3, 3, 3]).size
    7
    """
    size, jump, start = 1, 1, 0
    for layer in _windows(layers):
        start -= layer.padding * jump
        size += (effective_kernel(layer.kernel, layer.dilation) - 1) * jump
        jump *= layer.stride
    return ReceptiveField(size, jump, start)


def gridding(layers: Iterable) -> tuple[int, ...]:
    """Elements inside of a stack's receptive field that its output does not see: the gridding of dilated convolutions.

    Parameters
    ----------
    layers
        As in `receptive_field`.

    Returns
    -------
    tuple of int
        Places within the field, from 0 on; empty where there is no gridding.  Kernels of 3 with dilations 2, 2, 2 see every second
        element; 1, 2, 5 see all (Wang et al. 2018, "Understanding Convolution for Semantic Segmentation").

    Raises
    ------
    ShapeError
        As `receptive_field` does.
    """
    layers = _windows(layers)
    # bit i stands for element i of the field
    seen, jump = 1, 1
    for layer in layers:
        before, seen = seen, 0
        for tap in range(layer.kernel):
            seen |= before << tap * layer.dilation * jump
        jump *= layer.stride
    return tuple(place for place in range(receptive_field(layers).size) if not seen >> place & 1)


def checkerboard(kernel: int, stride: int, dilation: int = 1) -> tuple[int, ...]:
    """How many taps of a transposed convolution meet in each of `stride` neighbouring outputs.

    Where the numbers differ, even input gives a checkered output, unless the weights make up for it (Odena et al. 2016,
    "Deconvolution and Checkerboard Artifacts"): a stride that divides the kernel has none.

    Raises
    ------
    ShapeError
        If a number is below 1.
    """
    stride, dilation = integer("stride", stride, 1), integer("dilation", dilation, 1)
    phases = [tap * dilation % stride for tap in range(integer("kernel", kernel, 1))]
    return tuple(phases.count(phase) for phase in range(stride))


def parameters(c_in: int, c_out: int, kernel, groups: int = 1, bias: bool = True) -> int:
    """Weights and biases of a layer; `kernel` has one int an axis.

    Raises
    ------
    ShapeError
        If a number is out of range, or groups do not divide the channels.
    """
    kernel = tuple(kernel)
    ones = (1,) * len(kernel)
    padding = ((0, 0),) * len(kernel)
    return ConvProblem(1, c_in, c_out, kernel, kernel, ones, ones, padding, groups, bias=bias).parameters


def im2col_bytes(problem: ConvProblem) -> int:
    """Memory of the whole patch matrix: every output's input, once an output."""
    return problem.n * prod(problem.out_spatial) * problem.c_in * problem.taps * problem.itemsize


def separable_ratio(c_out: int, kernel) -> float:
    """Multiplications of a depthwise and a pointwise layer over those of a full one: ``1 / c_out + 1 / taps``.

    Raises
    ------
    ShapeError
        If a number is below 1.
    """
    taps = prod(integer("kernel", size, 1) for size in kernel)
    return 1 / integer("c_out", c_out, 1) + 1 / taps


def summary(problem: ConvProblem | str) -> Summary:
    """All of it for one problem.

    Parameters
    ----------
    problem : ConvProblem or str
        A string is parsed, such as "n1c64h56w56o64k3p1".

    Raises
    ------
    ConvError
        If the string is not a problem.
    """
    if not isinstance(problem, ConvProblem):
        problem = ConvProblem.parse(problem)
    ratio = separable_ratio(problem.c_out, problem.kernel) if problem.groups == 1 else None
    return Summary(
        problem.out_spatial,
        problem.extent,
        problem.parameters,
        problem.macs,
        problem.flops,
        problem.bytes,
        problem.arithmetic_intensity,
        im2col_bytes(problem),
        ratio,
    )


def _windows(layers: Iterable) -> list[Window]:
    found = []
    for layer in layers:
        try:
            window = Window(*layer) if isinstance(layer, tuple | list) else Window(layer)
        except TypeError:
            raise ShapeError(f"layer {layer!r} must be (kernel, stride, dilation, padding)") from None
        least = (1, 1, 1, 0)
        found.append(Window(*(integer(name, value, low) for name, value, low in zip(Window._fields, window, least))))
    return found
