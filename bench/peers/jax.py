"""JAX: programs that XLA compiled for the CPU, with all operands on the device and in float32.

channels_first, channels_last    lax.conv_general_dilated on NC... and N...C, weights as OI... and ...IO
fft                              jax.scipy.signal.fftconvolve, where the former is jax.scipy.signal.convolve
"""

import os

import numpy as np

from bench.peers import Prepared, UnsupportedProblemError, convolve_mode
from numbaconv.cli.workers import THREAD_VARIABLES, cores_of

# XLA makes a thread for each core that the process may use when it starts, and has no option that says how many.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, cores_of(0, int(os.environ.get(THREAD_VARIABLES[0], os.cpu_count() or 1))))

import jax  # noqa: E402 - it counts the cores
import jax.numpy as jnp  # noqa: E402
from jax import lax  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_default_matmul_precision", "highest")
# A call returns when it is done either way; without the detour through another thread small ones are faster.
jax.config.update("jax_cpu_enable_async_dispatch", False)

AXES = {1: "W", 2: "HW", 3: "DHW"}


def version() -> str:
    return jax.__version__


def convolution(problem, operands, threads, variant, algorithm) -> Prepared:
    convolve, images, kernels = _lowered(problem, variant)

    def forward(x, weight, bias):
        return convolve(x, weight) + _along_channels(bias, problem, variant)

    return _compiled(forward, images(operands.x), kernels(operands.weight), operands.bias, result=images.back)


def transposed(problem, operands, threads, variant, algorithm) -> Prepared:
    _, images, kernels = _lowered(problem, variant)
    if problem.groups > 1:
        raise UnsupportedProblemError("transposed in groups has no operator")
    letters = images.letters, kernels.letters, images.letters
    padding = [
        (extent - 1 - before, size + before - (out - 1) * stride - 1)
        for extent, (before, _), size, out, stride in zip(
            problem.extent, problem.padding, problem.spatial, problem.out_spatial, problem.stride
        )
    ]

    def forward(x, weight, bias):
        y = lax.conv_general_dilated(
            x, weight, [1] * len(padding), padding, problem.stride, problem.dilation, dimension_numbers=letters
        )
        return y + _along_channels(bias, problem, variant)

    # The adjoint's kernel is mirrored, and its channels change places: done once, as weights are packed once.
    weight = np.flip(operands.weight.swapaxes(0, 1), range(2, operands.weight.ndim))
    return _compiled(forward, images(operands.x), kernels(weight), operands.bias, result=images.back)


def gradients(problem, operands, threads, variant, algorithm) -> Prepared:
    convolve, images, kernels = _lowered(problem, variant)

    def backward(x, weight, grad_out):
        _, pull_back = jax.vjp(convolve, x, weight)
        return *pull_back(grad_out), grad_out.sum([axis for axis, name in enumerate(images.letters) if name != "C"])

    def result(arrays):
        grad_x, grad_weight, grad_bias = arrays
        return images.back(grad_x), kernels.back(grad_weight), np.asarray(grad_bias)

    operands = images(operands.x), kernels(operands.weight), images(operands.grad_out)
    return _compiled(backward, *operands, result=result)


def convolve(problem, operands, threads, variant, algorithm) -> Prepared:
    function = jax.scipy.signal.fftconvolve if variant == "fft" else jax.scipy.signal.convolve
    if variant != "fft" and operands.x.size * operands.weight.size > PATIENCE:
        raise UnsupportedProblemError("direct sums take too long")
    mode = convolve_mode(problem)
    return _compiled(lambda x, kernel: function(x, kernel, mode), operands.x, operands.weight, result=np.asarray)


#: Products beyond which direct sums of one channel are not waited for.
PATIENCE = 1e8


class _Axes:
    """A layout by its letters, as JAX has them: takes NumPy arrays whose axes are `first` to it, and back."""

    def __init__(self, first: str, letters: str):
        self.first, self.letters = first, letters

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array.transpose([self.first.index(letter) for letter in self.letters]))

    def back(self, array) -> np.ndarray:
        return np.asarray(array).transpose([self.letters.index(letter) for letter in self.first])


def _lowered(problem, layout):
    """The convolution of a problem as a function of input and weight, and the layouts of both."""
    space = AXES[len(problem.spatial)]
    last = layout == "channels_last"
    images = _Axes(f"NC{space}", f"N{space}C" if last else f"NC{space}")
    kernels = _Axes(f"OI{space}", f"{space}IO" if last else f"OI{space}")

    def convolve(x, weight):
        return lax.conv_general_dilated(
            x,
            weight,
            problem.stride,
            problem.padding,
            rhs_dilation=problem.dilation,
            dimension_numbers=(images.letters, kernels.letters, images.letters),
            feature_group_count=problem.groups,
        )

    return convolve, images, kernels


def _along_channels(bias, problem, layout):
    return bias if layout == "channels_last" else jnp.reshape(bias, (-1, *[1] * len(problem.spatial)))


def _compiled(function, *operands, result) -> Prepared:
    """`function` compiled for these operands; `result` makes NumPy arrays of what it returns."""
    operands = tuple(map(jax.device_put, operands))
    program = jax.jit(function).lower(*operands).compile()

    def call():
        return jax.block_until_ready(program(*operands))

    return Prepared(call, lambda: result(call()))
