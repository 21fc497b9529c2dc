"""This project: weights packed once, the result written into a buffer of the caller's where the operation takes one."""

import numpy as np

import numbaconv as nc
from bench.operands import aligned
from bench.peers import Prepared, UnsupportedProblemError, convolve_mode, output_padding


def version() -> str:
    return getattr(nc, "__version__", "source tree")


def convolution(problem, operands, threads, variant, algorithm) -> Prepared:
    layer_of = getattr(nc, f"Conv{len(problem.kernel)}d")
    return _layer(layer_of, problem, operands, threads, variant, algorithm=algorithm or "auto")


def transposed(problem, operands, threads, variant, algorithm) -> Prepared:
    if algorithm:
        raise UnsupportedProblemError("a transposed convolution takes no algorithm")
    layer_of = getattr(nc, f"ConvTranspose{len(problem.kernel)}d")
    return _layer(layer_of, problem, operands, threads, variant, output_padding=output_padding(problem))


def _layer(layer_of, problem, operands, threads, layout, **options) -> Prepared:
    nc.set_num_threads(threads)
    last = layout == "channels_last"
    to_layout = (lambda a: np.moveaxis(a, 1, -1)) if last else (lambda a: a)
    try:
        layer = layer_of(
            operands.weight,
            operands.bias,
            stride=problem.stride,
            padding=problem.padding,
            dilation=problem.dilation,
            groups=problem.groups,
            layout=layout,
            **options,
        )
        x = aligned(to_layout(operands.x))
        out = aligned(np.zeros_like(to_layout(operands.expected), dtype=np.float32))
        layer(x, out=out)
    except nc.UnsupportedError as reason:
        raise UnsupportedProblemError(str(reason)) from reason
    return Prepared(lambda: layer(x, out=out), lambda: np.moveaxis(out, -1, 1) if last else out)


def gradients(problem, operands, threads, variant, algorithm) -> Prepared:
    if algorithm:
        raise UnsupportedProblemError("gradients take no algorithm")
    nc.set_num_threads(threads)
    last = variant == "channels_last"
    x, grad_out = (aligned(np.moveaxis(a, 1, -1)) if last else a for a in (operands.x, operands.grad_out))
    backward = getattr(nc, f"conv{len(problem.kernel)}d_backward")
    geometry = problem.stride, problem.padding, problem.dilation, problem.groups

    def call():
        return backward(grad_out, x, operands.weight, *geometry, layout=variant)

    def result():
        grad_x, *others = call()
        return (np.moveaxis(grad_x, -1, 1) if last else grad_x, *others)

    return Prepared(call, result)


def convolve(problem, operands, threads, variant, algorithm) -> Prepared:
    if algorithm:
        raise UnsupportedProblemError("`convolve` takes a method, not an algorithm")
    nc.set_num_threads(threads)
    mode = convolve_mode(problem)

    def call():
        return nc.convolve(operands.x, operands.weight, mode)

    return Prepared(call, call)
