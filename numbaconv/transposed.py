"""Transposed convolution with its weights packed once: a GEMM on the engine's register tiles, and an overlap-add in the cache.

One block of input pixels at a time becomes columns, c_out * k_h * k_w numbers a pixel, which are added where they overlap and
written once.  The GEMM takes 2 c_in c_out k_h k_w operations a pixel.  What has to move is the input and the output,
c_in + c_out * stride**2 numbers a pixel, since columns stay in the L2: a text detector's layers (24 channels, 2x2, stride 2) are
bound by the cores' path to memory, networks with hundreds of channels by arithmetic.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from dataclasses import dataclass
from math import prod

import numpy as np

from numbaconv.algorithms.geometry import affine_tap
from numbaconv.algorithms.weights import row_pitch
from numbaconv.arguments import contiguous, operand, plain, result_array, shaped
from numbaconv.codegen.overlap import OVERLAP, RUN
from numbaconv.epilogue import Activation
from numbaconv.errors import ShapeError, UnsupportedError
from numbaconv.loops.gemm import MR, PANEL_ROW, TILE, VECTOR_BYTES, core_address, gemm_core
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.overlap_add import overlap_share
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.loops.walk import CALL_BYTES
from numbaconv.machine import Machine, machine
from numbaconv.options import options
from numbaconv.problem import LAYOUTS, ConvProblem, integer
from numbaconv.workspace import aligned, rounded, scratch

_BYTES_LIMIT = 2**63
#: Rows of weights whose columns are made at once, as long as that leaves one channel.
_CHUNK_ROWS = 8 * MR
#: The part of the L2 that packed pixels and columns may take where blocks share no input, and where they do: larger blocks
#: compute fewer columns twice, smaller ones give more threads work.
_APART, _SHARING = 8, 2
#: How many times that part one row of blocks may take before rows are cut, too, as those of long signals are.
_WIDE = 8
#: Strides up to here may pass the output's width; each remainder has its own sums.
_MANY_REMAINDERS = 4096


class ConvTranspose2d:
    """A 2-D transposed convolution layer, the adjoint of `Conv2d`: ``activation(conv_transpose(x, weight) + bias)``.

    Parameters
    ----------
    weight : array, (c_in, c_out / groups, k_h, k_w)
        float32 or float64, whatever `layout` says; copied and packed here.
    bias : array, (c_out,), optional
        The same dtype.
    stride, dilation : int or pair of int
        At least 1; rows first.
    padding : int, pair of int, or pair of (before, after)
        Rows and columns that the result lacks on each side: the padding of the convolution that this one is the adjoint of.
    output_padding : int or pair of int
        Rows and columns more at the end, since several sizes of image give a convolution's result the same size; smaller
        than stride or dilation.
    groups : int
        Divides c_in.
    layout : {"channels_first", "channels_last"}
        Of `x` and the result: (n, c, h, w) or (n, h, w, c).
    activation : None, str or tuple
        As for `Conv2d`.

    Raises
    ------
    ShapeError
        If a shape, stride, dilation, padding or group count breaks a rule.
    UnsupportedError
        At the call, if a stride of thousands is more than twice the width of the result.
    DTypeError
        If an array is neither float32 nor float64, or dtypes are mixed.
    ConvError
        If the activation is unknown.

    Notes
    -----
    Each element of the result adds its taps in row-major order of the kernel, in one thread: its bits depend neither on the
    number of threads nor on the position in the batch.  A layer may be called by several threads at once.
    """

    def __init__(
        self,
        weight,
        bias=None,
        stride=1,
        padding=0,
        output_padding=0,
        dilation=1,
        groups=1,
        *,
        layout="channels_first",
        activation=None,
    ):
        weight = operand("weight", weight)
        if weight.ndim != 4:
            raise ShapeError(f"weight has shape {weight.shape}; it must have 4 axes: (c_in, c_out / groups, k_h, k_w)")
        if 0 in weight.shape:
            raise ShapeError(f"weight has shape {weight.shape}; no axis may be empty")
        self.dtype, self.layout = weight.dtype.newbyteorder("="), layout
        self.activation = Activation.of(activation)
        self._geometry = _Geometry.of(weight, stride, padding, output_padding, dilation, groups, layout)
        c_out = self._geometry.c_out * self._geometry.groups
        if bias is not None:
            bias = shaped("bias", operand("bias", bias, weight.dtype, "weight"), (c_out,), "c_out of weight and groups")
        self._bias = np.zeros(c_out, self.dtype) if bias is None else contiguous(bias).copy()
        self._weight = _packed(contiguous(weight), self._geometry.groups)
        self._planned: OrderedDict[tuple[int, ...], _Plan] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, x, *, out=None) -> np.ndarray:
        """Convolve `x`.

        Parameters
        ----------
        x : array, (n, c_in, h, w) or (n, h, w, c_in) as `layout` says, or without n
            The dtype of the weights.
        out : ndarray of the result's shape, optional
            Where the result goes; it must not overlap `x`.  With a contiguous `out` and `x` a warm call allocates no array
            memory.

        Returns
        -------
        ndarray
            `out`, or a new contiguous array, with
            ``h_out = (h - 1) * stride - before - after + dilation * (k_h - 1) + 1 + output_padding``.

        Raises
        ------
        ShapeError
            If `x` or `out` has another shape, or no row or column of the result is left.
        DTypeError
            If dtypes are mixed.
        """
        x = operand("x", x, self.dtype, "weight")
        batched = x.ndim != 3
        if not batched:
            x = x[None]
        elif x.ndim != 4:
            raise ShapeError(f"x has shape {x.shape}; it must have 4 axes, or 3 without a batch")
        plan = self.plan(x.shape)
        shape = plan.output_shape if batched else plan.output_shape[1:]
        result = target = np.empty(shape, self.dtype) if out is None else result_array(out, shape, self.dtype, {"x": x})
        if not plain(result):
            target = np.empty(shape, self.dtype)
        plan.run(contiguous(x), target)
        if target is not result:
            result[...] = target
        return result

    def __reduce__(self):
        # plans hold addresses, so a copy in another process packs and plans afresh
        g = self._geometry
        rows = self._weight[..., : g.c_in].reshape(g.groups, g.c_out, -1, g.c_in).transpose(0, 3, 1, 2)
        weight = rows.reshape(g.groups * g.c_in, g.c_out, *g.kernel)
        arguments = weight, self._bias, g.stride, g.padding, g.output_padding, g.dilation, g.groups
        return functools.partial(ConvTranspose2d, layout=self.layout, activation=self.activation), arguments

    def output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the result for a batched input of this shape."""
        return self.plan(tuple(x_shape)).output_shape

    def plan(self, x_shape: tuple[int, ...]) -> _Plan:
        """What runs for a batched input of this shape."""
        with self._lock:
            plan = self._planned.get(x_shape)
            if plan is not None:
                self._planned.move_to_end(x_shape)
                return plan
        plan = _Plan(self._geometry, x_shape, self._weight, self._bias, self.activation, machine())
        with self._lock:
            self._planned[x_shape] = plan
            while len(self._planned) > options().plan_cache:
                self._planned.popitem(last=False)
        return plan


@dataclass(frozen=True)
class _Geometry:
    """What a layer knows without its input, checked; channels are those of one group."""

    c_in: int
    c_out: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[tuple[int, int], ...]
    output_padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    layout: str

    @classmethod
    def of(cls, weight, stride, padding, output_padding, dilation, groups, layout) -> _Geometry:
        """Check and complete what a user wrote."""
        if isinstance(padding, str):
            raise ShapeError(f"padding={padding!r} is a word; a transposed convolution takes integers or pairs of them")
        c_in, c_out, *kernel = weight.shape
        # the 1x1 convolution whose adjoint this is, apart from the kernel, fits any image and knows most rules
        probe = ConvProblem.of((1, c_out, 1, 1), (c_in, c_out, 1, 1), stride=stride, padding=padding, dilation=dilation)
        if not isinstance(layout, str) or layout not in LAYOUTS:
            raise ShapeError(f"layout={layout!r} is unknown; it must be one of {', '.join(LAYOUTS)}")
        groups = integer("groups", groups, 1)
        if c_in % groups:
            raise ShapeError(f"groups={groups} does not divide c_in={c_in} of weight; it must")
        output_padding = _two("output_padding", output_padding)
        for axis, (more, step, spread) in enumerate(zip(output_padding, probe.stride, probe.dilation)):
            if more >= max(step, spread):
                raise ShapeError(
                    f"output_padding={more} on axis {axis}, where stride={step} and dilation={spread}; it must be smaller than "
                    "one of them"
                )
        return cls(
            c_in // groups, c_out, tuple(kernel), probe.stride, probe.padding, output_padding, probe.dilation, groups, layout
        )  # fmt: skip

    @property
    def extent(self) -> tuple[int, ...]:
        """Output elements from the first tap of the kernel to its last."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation))

    def output_spatial(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Size of the result for that size of the input."""
        sizes = []
        for axis, (size, step, ends, span, more) in enumerate(
            zip(spatial, self.stride, self.padding, self.extent, self.output_padding)
        ):
            sizes.append((size - 1) * step - sum(ends) + span + more)
            if sizes[-1] < 1:
                raise ShapeError(
                    f"x has {size} elements on axis {axis}, of which stride={step}, padding={ends}, "
                    f"kernel={self.kernel[axis]} with dilation={self.dilation[axis]} and output_padding={more} make an output "
                    f"of {sizes[-1]}; it must have at least 1"
                )
        return tuple(sizes)


class _Plan:
    """A layer made ready for one shape of input; immutable."""

    def __init__(
        self,
        geometry: _Geometry,
        x_shape: tuple[int, ...],
        weight: np.ndarray,
        bias: np.ndarray,
        activation: Activation,
        on: Machine,
    ):
        first = geometry.layout == "channels_first"
        n, c_in, *spatial = x_shape if first else (x_shape[0], x_shape[3], *x_shape[1:3])
        if c_in != geometry.c_in * geometry.groups:
            raise ShapeError(
                f"x has {c_in} channels, but weight has c_in={geometry.c_in * geometry.groups}; they must be equal"
            )
        if 0 in spatial:
            raise ShapeError(f"x has shape {x_shape}; only the batch may be empty")
        out_spatial = geometry.output_spatial(spatial)
        c_out = geometry.c_out * geometry.groups
        self.output_shape = (n, c_out, *out_spatial) if first else (n, *out_spatial, c_out)
        nbytes = prod((max(n, 1), c_out, *out_spatial)) * weight.itemsize
        if nbytes >= _BYTES_LIMIT:
            raise ShapeError(
                f"the output of shape {self.output_shape} takes {nbytes} bytes; it must take fewer than 2**63"
            )
        fields = _sizes(geometry, n, spatial, out_spatial, weight.itemsize)
        if fields["stride_w"] > max(_MANY_REMAINDERS, 2 * out_spatial[1]):
            raise UnsupportedError(
                f"stride={geometry.stride[1]} is more than {_MANY_REMAINDERS} and twice the output's width of "
                f"{out_spatial[1]}, which is not built"
            )
        fields |= _blocks(fields, on)
        workspace, self._workspace_bytes = _workspace(fields)
        fields |= workspace
        fields["weight_pitch"] = weight.strides[1]
        # a row of zeros stands for the bias of columns
        self._zeros = np.zeros(fields["column_pitch"], np.uint8)
        self._tap = affine_tap(fields["weight_pitch"])
        self._weight, self._bias = weight, bias
        fields |= {
            "weight": weight.ctypes.data,
            "tap": self._tap.ctypes.data,
            "bias": bias.ctypes.data,
            "zeros": self._zeros.ctypes.data,
            "activation": activation.code,
            "core": core_address(gemm_core, bias.dtype),
        }
        self._record = np.zeros((), OVERLAP)
        for name in OVERLAP.names:
            self._record[name] = fields[name]
        self._address = self._record.ctypes.data
        self._items = n * prod(fields[name] for name in ("blocks_h", "blocks_w", "groups", "chunks"))
        # the type of these scalars selects the element type of the compiled loops
        scalar = bias.dtype.type
        self._scalars = scalar(activation.alpha), scalar(activation.beta)
        self._function = share_address(overlap_share, bias.dtype)

    def run(self, x: np.ndarray, out: np.ndarray) -> None:
        """Compute into `out`; both are contiguous."""
        threads = min(usable_threads(), self._items)
        if threads == 0:
            return
        run_shares(self.shares(threads), x.ctypes.data, out.ctypes.data, 0, scratch(self._workspace_bytes * threads))

    def shares(self, threads: int) -> Shares:
        """The work cut for so many threads."""
        parts = min(threads, self._items)
        return Shares(self._function, parts, 1, self._address, self._workspace_bytes, *self._scalars, self)


def _packed(weight: np.ndarray, groups: int) -> np.ndarray:
    """Weights as the rows of a GEMM's A: (c_out, k_h * k_w, c_in / groups), with a pitch at which rows do not collide in the L1."""
    c_in, c_out, k_h, k_w = weight.shape
    rows = weight.reshape(groups, c_in // groups, c_out, k_h * k_w).transpose(0, 2, 3, 1)
    nbytes = c_in // groups * weight.itemsize
    pitch = row_pitch(nbytes) if nbytes % 1024 == 0 else nbytes
    packed = aligned(prod(rows.shape[:3]) * pitch).view(weight.dtype).reshape(groups * c_out, k_h * k_w, -1)
    packed[..., : c_in // groups] = rows.reshape(groups * c_out, k_h * k_w, -1)
    return packed


def _sizes(g: _Geometry, n: int, spatial, out_spatial, itemsize: int) -> dict[str, int]:
    """Fields of the `OVERLAP` record that follow from the shapes alone."""
    (h_in, w_in), (h_out, w_out) = spatial, out_spatial
    # a single row meets no other: then the stride means nothing
    stride_h, stride_w = (step if size > 1 else 1 for size, step in zip(spatial, g.stride))
    fields = {
        "n": n,
        "h_in": h_in,
        "w_in": w_in,
        "c_in": g.c_in,
        "h_out": h_out,
        "w_out": w_out,
        "c_out": g.c_out,
        "groups": g.groups,
        "k_h": g.kernel[0],
        "k_w": g.kernel[1],
        "stride_h": stride_h,
        "stride_w": stride_w,
        "dilation_h": g.dilation[0],
        "dilation_w": g.dilation[1],
        "pad_top": g.padding[0][0],
        "pad_left": g.padding[1][0],
        "reach_h": (g.extent[0] - 1) // stride_h,
        "reach_w": (g.extent[1] - 1) // stride_w,
        "itemsize": itemsize,
    }
    for name, channels, (h, w) in (("x", g.c_in * g.groups, spatial), ("out", g.c_out * g.groups, out_spatial)):
        # one channel lies the same way in both layouts
        first = g.layout == "channels_first" or channels == 1
        fields |= {
            f"{name}_image": channels * h * w * itemsize,
            f"{name}_channel": (h * w if first else 1) * itemsize,
            f"{name}_row": (w if first else w * channels) * itemsize,
            f"{name}_pixel": (1 if first else channels) * itemsize,
        }
    return fields


def _phases(f: dict[str, int]) -> tuple[int, int]:
    """Outputs with one remainder by the stride, rows and columns."""
    return tuple(
        -(-(f[pad] + f[out]) // f[stride]) - f[pad] // f[stride]
        for pad, out, stride in (("pad_top", "h_out", "stride_h"), ("pad_left", "w_out", "stride_w"))
    )


def _blocks(f: dict[str, int], on: Machine) -> dict[str, int]:
    """How many blocks the rows and columns and how many chunks the channels are cut into; pure, whatever the threads."""
    rows, columns = _phases(f)
    taps = f["k_h"] * f["k_w"]
    chunk = min(max(_CHUNK_ROWS // taps, 1), f["c_out"])
    part = _SHARING if f["reach_h"] else _APART
    pixel_bytes = (f["c_in"] + chunk * taps) * f["itemsize"]
    pixels = max(on.l2 // part // pixel_bytes, PANEL_ROW // f["itemsize"])
    # a block that is lower than twice its reach would compute most columns again
    height, width = max(pixels // f["w_in"] - f["reach_h"], 2 * f["reach_h"], 1), columns
    if f["w_in"] * (f["reach_h"] + 1) > _WIDE * pixels:
        height = max(2 * f["reach_h"], 1)
        room = pixels // (height + f["reach_h"])
        width = max(room - f["reach_w"], 2 * f["reach_w"], VECTOR_BYTES // f["itemsize"])
    return {
        "blocks_h": -(-rows // height),
        "blocks_w": -(-columns // width),
        "chunks": -(-f["c_out"] // chunk),
    }


def _workspace(f: dict[str, int]) -> tuple[dict[str, int], int]:
    """Offsets and pitches of a thread's workspace, and its size, for the largest block and chunk."""
    taps, chunk = f["k_h"] * f["k_w"], -(-f["c_out"] // f["chunks"])
    rows, columns = (-(-total // f[name]) for total, name in zip(_phases(f), ("blocks_h", "blocks_w")))
    pixels = min(rows + f["reach_h"], f["h_in"]) * min(columns + f["reach_w"], f["w_in"])
    panels = -(-pixels * f["itemsize"] // PANEL_ROW)
    fields = {
        "column_pitch": row_pitch(panels * PANEL_ROW),
        "sum_pitch": row_pitch(columns * f["itemsize"]),
    }
    together = 1 if f["out_pixel"] == f["itemsize"] else chunk
    at = CALL_BYTES
    for name, nbytes in (
        ("at_tiles", -(-chunk * taps // MR) * 8 * TILE),
        ("at_runs", 8 * (f["stride_w"] + 1 + taps * RUN)),
        ("at_panels", panels * f["c_in"] * PANEL_ROW),
        ("at_columns", chunk * taps * fields["column_pitch"]),
        ("at_sums", together * f["stride_w"] * fields["sum_pitch"]),
    ):
        at = rounded(at)
        fields[name] = at
        at += nbytes
    return fields, rounded(at)


def _two(name: str, value) -> tuple[int, int]:
    """`value`, one for both axes or one each, as integers of at least 0."""
    values = value if isinstance(value, (tuple, list, np.ndarray)) else (value, value)
    if len(values) != 2:
        raise ShapeError(f"{name}={value!r} has {len(values)} entries where 2 are needed, one an axis")
    return tuple(integer(name, entry, 0) for entry in values)
