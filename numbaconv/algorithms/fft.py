"""Convolution as products of spectra: the larger the kernel, the more it saves, whatever the number of taps.

Blocks of input that overlap by the kernel are transformed, multiplied frequency by frequency, and transformed back (overlap-save).
At one frequency channels are summed as a matrix product of complex numbers; with real and imaginary parts side by side it is a
real one of twice the size, so all frequencies together are one grouped 1x1 convolution on the tiles of `algorithms.pointwise`.

    cycles = blocks x (transforms of c_in and of c_out channels (`fourier.cycles`) + fourier (elements MOVED + rows ROW + BLOCK))
           + frequencies x groups x tiles of the core, of 2 c_in by 2 c_out         or, for one channel a group, elements TIMES
           + bytes of spectra that come from beyond the L2 a pass / far x passes
           + fourier CALL

A strided convolution is one of stride 1 of which not all is kept, and a dilated kernel has zeros between its taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import log2, prod, sqrt

import numpy as np

from numbaconv import fourier
from numbaconv.algorithms import cost
from numbaconv.algorithms.addressed import AddressedPlan, Pitches
from numbaconv.algorithms.base import Cost
from numbaconv.algorithms.geometry import fields_of
from numbaconv.algorithms.pointwise import Pointwise
from numbaconv.algorithms.tiled import TiledPlan
from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.target import TARGETS
from numbaconv.epilogue import IDENTITY, Epilogue
from numbaconv.loops.gemm import MR, PANEL_ROW
from numbaconv.machine import Machine
from numbaconv.problem import LAYOUTS, ConvProblem
from numbaconv.sizes import extent_of
from numbaconv.values import GROUPINGS
from numbaconv.workspace import view

#: What the blocks of one pass, their spectra and products may take: enough that spectra of weights are read few times.
WORKSPACE_LIMIT = 32 << 20
#: Cycles an element, and a row of a channel, to bring blocks in and out, and an element to multiply spectra one channel at a time;
#: for a block and for a call, what Python and NumPy take.  Fitted to 874 layers of which a block has 4 to 8192 elements a row.
_MOVED, _ROW, _TIMES, _BLOCK, _CALL = 3.0, 34.0, 2.0, 20_000.0, 200_000.0
#: Lengths of blocks to choose from, in kernels; kernels of so few taps are never worth it, and neither is choosing for them.
_TIMES_KERNEL, _FEW_TAPS = (2, 4, 8), 25
#: The most that spectra of kernels may take; to pack them takes some times as much for a moment.
_SPECTRA_LIMIT = 1 << 30
#: Rounding errors of three transforms and a sum, in units of eps; fitted to images from 20 to 10^5 wide and sums from 1 to 512.
_TRANSFORM, _SUM = 0.4, 0.2
_SAFETY = 1.4


@dataclass(frozen=True)
class _Spectra:
    """Packs the conjugate spectra of kernels for transforms of some lengths."""

    lengths: tuple[int, ...]
    dilation: tuple[int, ...]

    def of(self, weight: np.ndarray, groups: int) -> np.ndarray:
        """(frequencies, groups, c_out / groups, c_in / groups), complex."""
        kernel = weight.shape[2:]
        apart = np.zeros(weight.shape[:2] + extent_of(kernel, self.dilation), weight.dtype)
        apart[(..., *(slice(None, None, step) for step in self.dilation))] = weight
        spectrum = fourier.forward(apart, self.lengths, range(2, weight.ndim)).conj()
        return np.moveaxis(spectrum.reshape(groups, -1, weight.shape[1], _frequencies(self.lengths)), -1, 0)

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        """Panels of a 1x1 kernel with a group for each frequency and group, whose channels are real and imaginary parts in turn."""
        spectrum = self.of(weight, groups)
        real = np.empty((*spectrum.shape[:3], 2, spectrum.shape[3], 2), weight.dtype)
        real[..., 0, :, 0] = real[..., 1, :, 1] = spectrum.real
        real[..., 1, :, 0] = spectrum.imag
        real[..., 0, :, 1] = -spectrum.imag
        pairs = len(spectrum) * groups
        return Weights(real.reshape(pairs * 2 * spectrum.shape[2], 2 * spectrum.shape[3], 1), None, pairs).panels


@dataclass(frozen=True)
class _Single(_Spectra):
    """The same for groups of one input channel, which are multiplied as they are: (frequencies, groups, c_out / groups)."""

    def __call__(self, weight: np.ndarray, groups: int) -> np.ndarray:
        return np.ascontiguousarray(self.of(weight, groups)[..., 0])


class _Products(Pointwise):
    """The grouped 1x1 convolution that multiplies spectra, with weights packed from the convolution's own."""

    def __init__(self, pack: _Spectra):
        self._pack = pack

    def operands(self, weights, g):
        panels = weights.form(self._pack)
        return {"panels": panels, "bias": np.zeros((*panels.shape[:2], panels.shape[-1]), panels.dtype)}


def _least_seconds(problem: ConvProblem, machine: Machine) -> float:
    """The call, and moving and multiplying as many elements of each channel as there are at least."""
    rates, c_in, c_out = machine.rates, problem.c_in, problem.c_out
    each = rates.fourier * (c_in + c_out) * _least_moved(problem) + _products(problem, machine)
    return (rates.fourier * _CALL + _elements(problem) * each) / rates.clock


def _least_moved(problem: ConvProblem) -> float:
    """Cycles to bring an element in or out, in rows as long as blocks have at the most: a power of two beyond so many kernels."""
    longest = _TIMES_KERNEL[2 if problem.taps >= _FEW_TAPS else 1] * problem.extent[-1]
    return _MOVED + _ROW / (2 * longest)


def _products(problem: ConvProblem, machine: Machine) -> float:
    """Cycles of the products for an element of each channel: half a frequency, or more, of complex numbers."""
    return 2 * _pairs(problem) * problem.itemsize / TARGETS[machine.isa].vector_bytes / cost.FMA


def _pairs(problem: ConvProblem) -> int:
    """Channels in times channels out of all groups, whose spectra are multiplied and summed; none where nothing is summed."""
    return problem.c_in // problem.groups * problem.c_out if problem.c_in > problem.groups else 0


def _elements(problem: ConvProblem) -> int:
    """Elements of a channel that blocks have at the least: one for each output, and those between strides that kernels meet."""
    g = fields_of(problem)
    outputs = g["n"] * g["out_pixels"]
    strided = g["stride_d"] * g["stride_h"] * g["stride_w"] > 1
    return outputs * prod(map(min, problem.stride, problem.extent)) if strided else outputs


class Fft:
    """Real transforms of NumPy or SciPy around the register tiles."""

    name = "fft"
    #: a NaN or infinity reaches all outputs of the blocks that read it
    local = False
    repacked = False
    #: other paddings than zeros are copied around the input first
    padding_modes = False
    compiled = False
    layouts = LAYOUTS
    groupings = GROUPINGS
    floors = (_least_seconds,)

    def variant(self, problem: ConvProblem) -> str:
        """There is one form only."""
        return ""

    def native(self, problem: ConvProblem) -> bool:
        """Blocks are copied out of either layout."""
        return True

    def too_large(self, cost: Cost) -> str | None:
        """Blocks go in passes, but all spectra of kernels are kept."""
        if cost.plan_bytes > _SPECTRA_LIMIT:
            return (
                f"the spectra of its kernels would take {cost.plan_bytes >> 20} MiB, more than {_SPECTRA_LIMIT >> 20}"
            )
        return None

    def unavailable(self, machine: Machine) -> str | None:
        """NumPy runs everywhere."""
        return None

    def unsupported(self, problem: ConvProblem, epilogue: Epilogue, machine: Machine) -> str | None:
        """What tiles do to their results is left to NumPy here, which has no error function."""
        return "gelu is computed in tiles only" if epilogue.activation.kind == "gelu" else None

    def rms_error(self, problem: ConvProblem) -> float:
        """Rounding in the transforms, and of a sum over channels.

            SAFETY eps (TRANSFORM sqrt(log2(elements of a transform)) + SUM sqrt(K))

        For independent operands around zero, and K channels of a group.
        """
        elements = prod(size + extent for size, extent in zip(problem.padded, problem.extent))
        return _SAFETY * problem.eps * (_TRANSFORM * sqrt(log2(elements)) + _SUM * sqrt(problem.c_in // problem.groups))

    def least_seconds(self, problem: ConvProblem, machine: Machine) -> float:
        """The call; for each element of a block, as there is at least half a frequency for it, its part of the transforms and of
        the products; and spectra of kernels of the shortest transforms."""
        p, rates = problem, machine.rates
        channels, transformed = p.c_in + p.c_out, log2(max(p.taps, 2)) * fourier.BUTTERFLY * p.itemsize / 4
        each = rates.fourier * channels * (_least_moved(p) + transformed) + _products(p, machine)
        shortest = _TIMES_KERNEL[0 if p.taps >= _FEW_TAPS else 1]
        elements = prod(min(out, shortest * extent) for out, extent in zip(p.out_spatial, p.extent))
        spectra = elements * 2 * _pairs(p) * p.itemsize
        far = spectra / rates.far_bytes if spectra > machine.l2 / 2 else 0.0
        return (rates.fourier * _CALL + _elements(p) * each + far) / rates.clock

    def estimate(self, problem: ConvProblem, machine: Machine) -> Cost:
        """The formula above, and the blocks of one pass, which all threads share."""
        lengths = _lengths(problem, machine)
        cut = _Cut(problem, lengths, problem.n)
        return Cost(
            _cycles(cut, machine) / machine.rates.clock,
            0,
            cut.kernel_bytes,
            staging_bytes=cut.together * cut.block_bytes,
        )

    def plan(self, problem: ConvProblem, weights: Weights, epilogue: Epilogue, machine: Machine) -> FftPlan:
        """Transform the weights, unless another plan of these lengths has."""
        return FftPlan(_Cut(problem, _lengths(problem, machine), problem.n), weights, epilogue, machine)


class _Cut:
    """A problem in blocks whose transforms have some lengths."""

    def __init__(self, problem: ConvProblem, lengths: tuple[int, ...], n: int):
        self.problem, self.lengths = problem, lengths
        #: outputs of a block, an axis, and inputs from one block to the next
        self.outputs = tuple((n - e) // s + 1 for n, e, s in zip(lengths, problem.extent, problem.stride))
        self.steps = tuple(count * s for count, s in zip(self.outputs, problem.stride))
        self.grid = tuple(-(-size // count) for size, count in zip(problem.out_spatial, self.outputs))
        self.blocks = n * prod(self.grid)
        self.frequencies = _frequencies(lengths)
        # blocks as real numbers and as spectra, which take as much
        channels = problem.c_in + problem.c_out
        self.block_bytes = 2 * channels * prod((*lengths[:-1], lengths[-1] + 2)) * problem.itemsize
        self.together = max(1, min(self.blocks, WORKSPACE_LIMIT // self.block_bytes))

    @property
    def kernel_bytes(self) -> int:
        """Bytes of the spectra of all kernels: of products, real and imaginary parts stand twice in panels, which are whole."""
        p = self.problem
        if self.single:
            return 2 * self.frequencies * p.c_out * p.itemsize
        panels = -(-2 * p.c_out // p.groups * p.itemsize // PANEL_ROW)
        return self.frequencies * p.groups * panels * PANEL_ROW * 2 * p.c_in // p.groups

    @property
    def single(self) -> bool:
        """Whether nothing is summed over channels."""
        return self.problem.c_in == self.problem.groups

    def products(self, blocks: int) -> ConvProblem:
        """What multiplies the spectra of so many blocks."""
        p = self.problem
        channels = (2 * self.frequencies * c for c in (p.c_in, p.c_out))
        groups = self.frequencies * p.groups
        return ConvProblem(1, *channels, (blocks,), (1,), (1,), (1,), ((0, 0),), groups, p.dtype, "channels_last")


def _every(count: int, step: int) -> slice:
    """The first `count` elements that lie `step` apart."""
    return slice(0, (count - 1) * step + 1, step)


def _frequencies(lengths: tuple[int, ...]) -> int:
    return prod(lengths[:-1]) * (lengths[-1] // 2 + 1)


@lru_cache(maxsize=512)
def _lengths(problem: ConvProblem, machine: Machine) -> tuple[int, ...]:
    """Lengths that are estimated to take the least time: as many kernels along all axes, up to a power of two, or the whole input.

    They are those of one image, so that the size of a batch changes no bit.
    """
    reached = [(out - 1) * s + e for out, s, e in zip(problem.out_spatial, problem.stride, problem.extent)]
    choices = []
    for times in _TIMES_KERNEL if problem.taps >= _FEW_TAPS else _TIMES_KERNEL[1:2]:
        wanted = [1 << (times * extent - 1).bit_length() for extent in problem.extent]
        lengths = tuple(size if size < more else fourier.good_length(more) for size, more in zip(wanted, reached))
        if lengths not in choices:
            choices.append(lengths)
    if len(choices) == 1:
        return choices[0]
    return min(choices, key=lambda lengths: _cycles(_Cut(problem, lengths, 1), machine))


def _cycles(cut: _Cut, machine: Machine) -> float:
    p, lengths = cut.problem, cut.lengths
    channels, size = p.c_in + p.c_out, p.itemsize
    blocks = fourier.cycles(lengths, channels, size, machine)
    blocks += machine.rates.fourier * (channels * prod(lengths[:-1]) * (lengths[-1] * _MOVED + _ROW) + _BLOCK)
    passes = max(1, -(-cut.blocks // cut.together))
    spectra = cut.kernel_bytes
    if cut.single:
        multiplied = cut.blocks * cut.frequencies * p.c_out * _TIMES * size / 4
    else:
        panels = cost.panels_of(2 * p.c_out // p.groups, size, machine.isa)
        rows = cut.blocks / passes
        tiles = max(1, -(-int(rows) // MR))
        tile = cost.panels_cycles(2 * p.c_in // p.groups, rows / tiles, panels, 1.0, machine.rates)
        multiplied = passes * tiles * cut.frequencies * p.groups * tile
    far = passes * spectra * (cost.BEYOND_L3 if spectra > cost.L3_SHARE else 1) if spectra > machine.l2 / 2 else 0
    return machine.rates.fourier * _CALL + cut.blocks * blocks + multiplied + far / machine.rates.far_bytes


class FftPlan(AddressedPlan):
    """Blocks of all images, as many at a time as `WORKSPACE_LIMIT` is for; NumPy allocates them."""

    algorithm = Fft.name

    def __init__(self, cut: _Cut, weights: Weights, epilogue: Epilogue, machine: Machine):
        self.problem, self.epilogue = cut.problem, epilogue
        self.gaps = cut.problem.layout == "channels_last"
        self._cut, self._weights, self.plan_bytes = cut, weights, cut.kernel_bytes
        self._pack = (_Single if cut.single else _Spectra)(cut.lengths, cut.problem.dilation)
        weights.form(self._pack)
        between = Epilogue(False, False, IDENTITY)
        # of the last pass may be fewer blocks
        counts = set() if cut.single else {cut.together, cut.blocks % cut.together} - {0}
        self._plans = {
            count: TiledPlan(_Products(self._pack), cut.products(count), weights, between, machine) for count in counts
        }
        self.workspace_bytes = max((plan.workspace_bytes for plan in self._plans.values()), default=0)

    def scratch_bytes(self, threads: int, pitches: Pitches | None = None) -> int:
        """Bytes of workspace that the products of spectra need on so many threads."""
        return self.workspace_bytes * threads

    def run_at(
        self, x: int, out: int, residual: int, workspace: int, threads: int, pitches: Pitches | None = None
    ) -> None:
        """As `run`, on addresses."""
        p, cut = self.problem, self._cut
        x_pitch, out_pitch, residual_pitch = pitches or (p.c_in, p.c_out, p.c_out)
        x, out = self._pixels(x, p.c_in, p.spatial, x_pitch), self._pixels(out, p.c_out, p.out_spatial, out_pitch)
        added = self._pixels(residual, p.c_out, p.out_spatial, residual_pitch) if residual else None
        axes = range(1, 1 + len(cut.lengths))
        rows = (slice(None), *map(_every, cut.outputs[:-1], p.stride))
        numbers = list(product(range(p.n), *map(range, cut.grid)))
        # Blocks of all images, in passes that fit the workspace.
        for first in range(0, len(numbers), cut.together):
            now = numbers[first : first + cut.together]
            spectra = fourier.forward(self._read(x, now), cut.lengths, axes, threads)
            products = self._multiply(spectra, workspace, threads)
            self._write(fourier.inverse(products, cut.lengths, axes, True, threads, rows), now, out, added)

    def _pixels(self, at: int, channels: int, spatial: tuple[int, ...], pitch: int) -> np.ndarray:
        """(n, *spatial, channels): the tensor at an address, in either layout."""
        p = self.problem
        if p.layout == "channels_first":
            return np.moveaxis(view(at, (p.n, channels, *spatial), p.np_dtype), 1, -1)
        return view(at, (p.n, *spatial, pitch), p.np_dtype)[..., :channels]

    def _read(self, x: np.ndarray, numbers: list[tuple[int, ...]]) -> np.ndarray:
        """(blocks, *lengths, c_in): blocks of input, zero where they lie in padding."""
        cut = self._cut
        blocks = np.zeros((len(numbers), *cut.lengths, x.shape[-1]), x.dtype)
        for block, (image, *place) in zip(blocks, numbers):
            source, target = [], []
            sizes = zip(place, cut.steps, cut.lengths, self.problem.padding, self.problem.spatial)
            for number, step, length, (before, _), size in sizes:
                start = number * step - before
                low, high = max(start, 0), max(min(start + length, size), 0)
                source.append(slice(low, high))
                target.append(slice(low - start, max(high, low) - start))
            block[tuple(target)] = x[(image, *source)]
        return blocks

    def _multiply(self, spectra: np.ndarray, workspace: int, threads: int) -> np.ndarray:
        """(blocks, *frequencies, c_out)."""
        shape = (*spectra.shape[:-1], self.problem.c_out)
        if self._cut.single:
            packed = self._weights.form(self._pack)
            return (spectra.reshape(len(spectra), -1, self.problem.groups, 1) * packed).reshape(shape)
        products = np.empty(shape, spectra.dtype)
        real = (array.view(products.real.dtype).reshape(1, len(spectra), -1) for array in (spectra, products))
        self._plans[len(spectra)].run(*real, workspace=workspace, threads=threads)
        return products

    def _write(self, blocks: np.ndarray, numbers: list[tuple[int, ...]], out, residual) -> None:
        """Keep the outputs that a block has in whole, with bias, residual and activation; of rows no others are left."""
        cut, activation = self._cut, self.epilogue.activation
        for block, (image, *place) in zip(blocks, numbers):
            kept, target = [], [image]
            strides = *(1,) * (len(place) - 1), self.problem.stride[-1]
            for number, count, stride, size in zip(place, cut.outputs, strides, self.problem.out_spatial):
                first = number * count
                count = min(count, size - first)
                target.append(slice(first, first + count))
                kept.append(_every(count, stride))
            y, at = block[tuple(kept)], tuple(target)
            if self._weights.bias is not None:
                y = y + self._weights.bias
            if residual is not None:
                y = y + residual[at]
            out[at] = y if activation.is_identity else activation.apply(y)
