"""Convolutions drawn at random, the operands for them, and the three ways in which they are computed.

Sizes are small, so that an example takes milliseconds, and lie on both sides of every vector, tile and panel.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import strategies as st

import numbaconv as nc
from numbaconv.algorithms import ALGORITHMS
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.select import make_plan
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.problem import LAYOUTS, PADDING_MODES, ConvProblem
from numbaconv.reference import reference_conv

#: Algorithms that add products directly; whole numbers pass through them without error.
NAMES = tuple(algorithm.name for algorithm in ALGORITHMS if algorithm.local)
FAST = NAMES[:-1]  # all but the oracle itself
#: Multiplications of one example: a few milliseconds of the oracle.
MOST_MACS = 1_500_000

PIECEWISE_LINEAR = (None, "relu", "relu6", ("clip", -5.0, 9.0), ("clip", 2.5, 2.5), ("leaky_relu", 0.25))
TRANSCENDENTAL = ("silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "gelu")


_KERNELS = st.integers(1, 7)
_LAYOUTS = st.sampled_from(LAYOUTS)
#: How much larger than the kernel an input is at the most, by the number of its axes.
_ROOM = {1: 80, 2: 16, 3: 5}


@st.composite
def problems(
    draw, *, axes=2, kernels=_KERNELS, layouts=_LAYOUTS, depthwise=False, narrow=False, modes=PADDING_MODES[:1]
) -> ConvProblem:
    """Problems of one to three axes: kernels 1 to 7, strides and dilations to 4, 1 to 70 channels, 0 to 3 images.

    Volumes, their kernels and their padding are smaller, and axes along which the kernel has one tap are frequent.
    A `depthwise` one has a channel a group, and `narrow` groups have few channels: odd numbers of them, and multiples of the
    input's.
    """
    if axes == 3:
        kernels = st.sampled_from((1, 1, 2, 3, 3)) if kernels is _KERNELS else kernels
    most_padding = 9 if axes < 3 else 3
    kernel = tuple(draw(kernels) for _ in range(axes))
    stride, dilation = (tuple(draw(st.integers(1, 4)) for _ in range(axes)) for _ in range(2))
    # paddings larger than the kernel make outputs that see nothing else
    ends = st.integers(0, most_padding)
    padding = tuple((draw(ends), draw(ends)) for _ in range(axes))
    mode = draw(st.sampled_from(modes))
    spatial = []
    for k, d, (before, after) in zip(kernel, dilation, padding, strict=True):
        least = max(1, d * (k - 1) + 1 - before - after)
        if mode != "zeros":
            least = max(least, before + (mode == "reflect"), after + (mode == "reflect"))
        spatial.append(least + draw(st.integers(0, _ROOM[axes])))
    groups = draw(st.sampled_from((1, 1, 1, 1, 2, 3, 5, 8)))
    # the edges of vectors and panels, besides all that lies between
    per_group = st.one_of(st.integers(1, 70 // groups), st.sampled_from([c for c in _EDGES if c <= 70 // groups]))
    c_in, c_out = draw(per_group), draw(per_group)
    if depthwise:
        groups, c_in, c_out = draw(st.integers(2, 70)), 1, 1
    elif narrow:
        c_in, c_out = draw(st.sampled_from(_WIDTHS)), draw(st.sampled_from(_WIDTHS))
        groups = draw(st.integers(2, max(2, 70 // max(c_in, c_out))))
    n = draw(st.sampled_from((1, 1, 1, 2, 2, 3, 0)))
    dtype, layout, bias = draw(st.sampled_from(("f32", "f32", "f64"))), draw(layouts), draw(st.booleans())

    def problem():
        channels = c_in * groups, c_out * groups
        return ConvProblem(n, *channels, spatial, kernel, stride, dilation, padding, groups, dtype, layout, bias, mode)

    while problem().macs > MOST_MACS:
        if n > 1:
            n = 1
        elif groups > 2 and (depthwise or narrow):
            groups = (groups + 1) // 2
        elif c_in >= c_out:
            c_in = (c_in + 1) // 2
        else:
            c_out = (c_out + 1) // 2
    return problem()


#: Channels of narrow groups: one and its multiples, odd ones that straddle vectors, and more than a vector may spread over.
_WIDTHS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 15, 20)
_EDGES = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 70)


@dataclass(frozen=True)
class Operands:
    """Arrays and activation of one call, with the residual in the layout of the result."""

    problem: ConvProblem
    x: np.ndarray
    weight: np.ndarray
    bias: np.ndarray | None = None
    residual: np.ndarray | None = None
    activation: object = None

    @property
    def epilogue(self) -> Epilogue:
        return Epilogue(self.bias is not None, self.residual is not None, Activation.of(self.activation))

    def oracle(self, **options) -> np.ndarray:
        """The result by definition."""
        return reference_conv(self.problem, self.x, self.weight, self.bias, self.residual, self.activation, **options)

    def conv(self, algorithm: str = "auto", **options) -> np.ndarray:
        """The result of the public function; `options` replace the problem's own."""
        p = self.problem
        call = {"activation": self.activation, "residual": self.residual, "algorithm": algorithm}
        return conv_of(p)(self.x, self.weight, self.bias, **(geometry_of(p) | call | options))

    def layer(self, algorithm: str = "auto") -> nc.ConvLayer:
        """A layer with these weights."""
        p = self.problem
        make = LAYERS[len(p.spatial)]
        return make(self.weight, self.bias, **geometry_of(p), activation=self.activation, algorithm=algorithm)

    def plan(self, algorithm: str = "auto"):
        """A plan below the public interface, where pixel pitches are known."""
        return make_plan(self.problem, self.epilogue, Weights(self.weight, self.bias, self.problem.groups), algorithm)

    def planned(self, algorithm: str = "auto") -> np.ndarray:
        """The result of such a plan."""
        out = np.full(self.problem.output_shape, np.nan, self.problem.np_dtype)
        self.plan(algorithm).run(self.x, out, self.residual)
        return out


FUNCTIONS = {1: nc.conv1d, 2: nc.conv2d, 3: nc.conv3d}
LAYERS = {1: nc.Conv1d, 2: nc.Conv2d, 3: nc.Conv3d}


def conv_of(problem: ConvProblem):
    """The public function for a problem's number of axes."""
    return FUNCTIONS[len(problem.spatial)]


def geometry_of(problem: ConvProblem) -> dict:
    """The arguments of the public interface that a problem stands for."""
    names = ("stride", "padding", "dilation", "groups", "padding_mode", "layout")
    return {name: getattr(problem, name) for name in names}


def every_kind(**options):
    """Problems of images with zeros around them, and of signals, volumes and the other ways of padding."""
    modes = PADDING_MODES[:1] * 2 + PADDING_MODES
    return st.sampled_from((2, 2, 1, 3)).flatmap(lambda axes: problems(axes=axes, modes=modes, **options))


def whole_numbers(rng, shape, dtype) -> np.ndarray:
    """Floats from -3 to 3 whose sums of products are exact in any order, in f32 up to a million terms."""
    return rng.integers(-3, 4, shape).astype(dtype)


def normals(rng, shape, dtype) -> np.ndarray:
    """Floats whose sums depend on their order."""
    return rng.standard_normal(shape).astype(dtype)


def make_operands(problem, fill, seed=0, *, bias=None, residual=False, activation=None) -> Operands:
    """Operands of a problem from a seed; `bias` is the problem's own wish unless told."""
    rng = np.random.default_rng(seed)
    dtype = problem.np_dtype
    x, weight = fill(rng, problem.input_shape, dtype), fill(rng, problem.weight_shape, dtype)
    bias = fill(rng, (problem.c_out,), dtype) if (problem.bias if bias is None else bias) else None
    return Operands(problem, x, weight, bias, fill(rng, problem.output_shape, dtype) if residual else None, activation)


@st.composite
def operands(draw, problem=None, fill=whole_numbers, activations=PIECEWISE_LINEAR) -> Operands:
    """Operands of a drawn problem, with and without bias and residual, under one of the activations."""
    return make_operands(
        draw(problems() if problem is None else problem),
        fill,
        draw(st.integers(0, 2**32 - 1)),
        residual=draw(st.booleans()),
        activation=draw(st.sampled_from(activations)),
    )


def able(problem: ConvProblem, names=NAMES) -> list[str]:
    """Names of the algorithms that do this problem."""
    return [row.algorithm for row in nc.explain(problem).rows if row.reason is None and row.algorithm in names]


def pairs(*texts: str, names=FAST, layouts=("cf",)) -> list:
    """Every problem with every algorithm that does it, as parameters of a test."""
    problems = [ConvProblem.parse(text + layout) for text in texts for layout in layouts]
    return [pytest.param(p, name, id=f"{p}-{name}") for p in problems for name in names if name in able(p)]


def bits(array: np.ndarray) -> bytes:
    """What an array holds, where 0.0 and -0.0 are different and NaN equals itself."""
    return array.tobytes()


def first(array, layout):
    """The array in channels-first order, contiguous."""
    return array if layout == "channels_first" else np.ascontiguousarray(np.moveaxis(array, -1, 1))


def assert_close(y, judged, given_):
    """Two sums of the same products, in whatever order: sqrt(terms) + 4 units of rounding of the sum of magnitudes."""
    p = given_.problem
    magnitude = reference_conv(p, *(None if a is None else np.abs(a) for a in (given_.x, given_.weight, given_.bias)))
    terms = p.taps * p.c_in // p.groups
    tolerance = (np.sqrt(terms) + 4) * np.finfo(p.np_dtype).eps * first(magnitude, p.layout)
    assert y.shape == judged.shape and y.dtype == judged.dtype
    assert np.all(np.abs(y - judged) <= tolerance), f"{np.max(np.abs(y - judged) / tolerance)} times the tolerance"


def assert_rounded(y, given_, rms_error):
    """Errors are rounding errors: their root mean square is a small multiple of the bound for sums of this size.

    A problem has few outputs, which may cancel by chance, hence the size that independent operands would give and the factor.
    The activations here stretch nothing by more than a tenth.
    """
    p = given_.problem
    exact = given_.oracle(accumulate="f64") if p.dtype == "f32" else given_.oracle()
    variance = reference_conv(replace(p, bias=False), given_.x**2, given_.weight**2)
    size = np.sqrt(variance.max(initial=0)) + 1
    eps = np.finfo(p.np_dtype).eps
    assert y.shape == exact.shape and y.dtype == p.np_dtype
    largest = np.abs(y - exact).max(initial=0)
    scale = size * max(rms_error, eps) + 8 * eps * np.abs(exact).max(initial=0)
    assert largest <= 8 * scale, f"{largest / scale} times the scale"


NON_FINITE = (np.nan, np.inf, -np.inf)


def kinds(y):
    """Where an array is NaN, plus and minus infinity."""
    return np.stack([np.isnan(y), np.isposinf(y), np.isneginf(y)])


_GUARDED = """
    import ctypes
    import mmap

    import numpy as np
    from strategies import LAYOUTS, make_operands, whole_numbers
    from {module} import *
    from test_split import parsed
    MODULE_LAYOUTS = globals().get("OWN_LAYOUTS", LAYOUTS)
    judge = globals().get("assert_equal", np.testing.assert_array_equal)

    libc, page = ctypes.CDLL(None), mmap.PAGESIZE

    def between_pages(array, at_end):
        size = -(-array.nbytes // page) * page
        memory = mmap.mmap(-1, size + 2 * page)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        for guard in (address, address + page + size):
            assert libc.mprotect(ctypes.c_void_p(guard), page, mmap.PROT_READ & 0) == 0
        start = page + (size - array.nbytes if at_end else 0)
        placed = np.frombuffer(memory, np.uint8)[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed

    count = 0
    for problem in (parsed(text, layout) for text in CORNERS for layout in MODULE_LAYOUTS):
        given = make_operands(problem, whole_numbers, bias=True, residual=True)
        if 0 in given.x.shape or given.problem.padding_mode != "zeros":
            continue
        expected = given.oracle()
        for options in {options}:
            plan = plan_of(given, *options)
            for at_end in (False, True):
                # a workspace of NaN, whatever its type
                workspace = between_pages(np.full(plan.scratch_bytes(1), 0xFF, np.uint8), at_end)
                x, out, residual = (between_pages(a, at_end) for a in (given.x, np.full_like(expected, 777), given.residual))
                plan.run(x, out, residual, workspace=workspace.ctypes.data, threads=1)
                judge(out, expected, err_msg=str(problem))
                count += 1
    print(count)
"""


def guarded(module: str, options: str) -> str:
    """A script that runs the plans of a module's `CORNERS` on operands that end or begin where pages may not be touched.

    `options` is what `plan_of` takes besides them, once for each plan, as Python.  A module whose results are rounded says how near
    they have to be by an `assert_equal` of its own.
    """
    return _GUARDED.format(module=module, options=options)
