"""Kinds of convolution that have no peer among the runtimes of `bench.compare`, each against its own measure.

    python -m bench.kinds deformable separable resize stream graph --threads 1

Deformable: share of the FMA peak.  Separable: the two or three steps over the fused strips, on the blocks of MobileNet and
MobileNetV2, channels-last.  Resize: PyTorch's two steps, where it is installed.  Stream: microseconds a sample.  Graph: SciPy's
sparse product and NumPy's dense one.  What is compared runs in turns, and medians count; on one thread those of the thread's own
time, in which the turns of other programs are missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

import numbaconv as nc
from bench import peak
from numbaconv.accuracy import Accuracy
from numbaconv.algorithms.bottleneck import BottleneckPlan, Stage
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.calibration import calibrated_machine
from numbaconv.dispatch.fusion import StepsPlan
from numbaconv.epilogue import IDENTITY, Activation
from numbaconv.problem import ConvProblem

_RNG = np.random.default_rng(0)


def normals(*shape: int) -> np.ndarray:
    """Random float32 numbers."""
    return _RNG.standard_normal(shape, np.float32)


def in_turns(calls: dict[str, Callable], rounds: int, threads: int) -> dict[str, float]:
    """Median seconds of each call."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = clock()
            call()
            times[name].append(clock() - begin)
    return {name: float(np.median(values)) for name, values in times.items()}


def deformable(threads: int, rounds: int) -> None:
    """3x3, 256 -> 256 on 56 x 56, one offset group, with a mask and without."""
    weight, x = normals(256, 256, 3, 3), normals(1, 56, 56, 256)
    offset, mask, out = 2 * normals(1, 56, 56, 18), normals(1, 56, 56, 9), np.empty((1, 56, 56, 256), np.float32)
    layer = nc.DeformConv2d(weight, padding=1, layout="channels_last")
    bound = peak.prepare(None, None, threads, "", None)
    calls = {
        "peak": bound.call,
        "v1": lambda: layer(x, offset, out=out),
        "v2": lambda: layer(x, offset, mask, out=out),
    }
    seconds = in_turns(calls, rounds, threads)
    flops = 2 * 56 * 56 * 256 * 256 * 9
    best = bound.flops / seconds["peak"]
    for name in ("v1", "v2"):
        speed = flops / seconds[name]
        print(f"deformable {name}: {speed / 1e9:.0f} GFLOP/s, {speed / best:.2f} of the peak of {best / 1e9:.0f}")


#: (image, c_in, hidden, c_out, stride, residual); MobileNet's have no expansion.
MOBILENETV2 = (
    (112, 32, 32, 16, 1, False), (112, 16, 96, 24, 2, False), (56, 24, 144, 24, 1, True), (56, 24, 144, 32, 2, False),
    (28, 32, 192, 32, 1, True), (28, 32, 192, 64, 2, False), (14, 64, 384, 64, 1, True), (14, 64, 384, 96, 1, False),
    (14, 96, 576, 96, 1, True), (14, 96, 576, 160, 2, False), (7, 160, 960, 160, 1, True), (7, 160, 960, 320, 1, False),
)  # fmt: skip
MOBILENET = tuple(
    (size, c_in, c_in, c_out, stride, False)
    for size, c_in, c_out, stride in (
        (112, 32, 64, 1), (112, 64, 128, 2), (56, 128, 128, 1), (56, 128, 256, 2), (28, 256, 256, 1), (28, 256, 512, 2),
        (14, 512, 512, 1), (14, 512, 1024, 2), (7, 1024, 1024, 1),
    )
)  # fmt: skip


def _stage(text: str, activation: Activation) -> Stage:
    p = ConvProblem.parse(text + "clbias")
    weight = normals(*p.weight_shape) / np.float32(np.sqrt(p.taps * p.c_in / p.groups))
    return Stage(p, Weights(weight, normals(p.c_out), p.groups), activation)


def block(size: int, c_in: int, hidden: int, c_out: int, stride: int) -> list[Stage | None]:
    """The stages of a block with relu6 before its last convolution."""
    relu6, out = Activation.of("relu6"), -(-size // stride)
    expand = None if hidden == c_in else _stage(f"c{c_in}h{size}w{size}o{hidden}k1", relu6)
    depthwise = _stage(f"c{hidden}h{size}w{size}o{hidden}k3s{stride}p1g{hidden}", relu6)
    return [expand, depthwise, _stage(f"c{hidden}h{out}w{out}o{c_out}k1", IDENTITY)]


def separable(threads: int, rounds: int) -> None:
    """Steps over strips; above 1 strips are faster."""
    for name, shapes in (("MobileNetV2", MOBILENETV2), ("MobileNet", MOBILENET)):
        ratios = []
        for *shape, residual in shapes:
            stages = block(*shape)
            present = tuple(stage for stage in stages if stage)
            strips = BottleneckPlan(*stages, residual, calibrated_machine(), Accuracy.of(None))
            steps = StepsPlan(present, residual, None)
            x, out = normals(*present[0].problem.input_shape), normals(*present[-1].problem.output_shape)
            added = normals(*out.shape) if residual else None
            arrays = x, out, added, None, threads
            calls = {plan.algorithm: partial(plan.run, *arrays) for plan in (strips, steps)}
            seconds = in_turns(calls, rounds, threads)
            ratios.append(seconds["steps"] / seconds["strips"])
            told = " -> ".join(f"{p.c_in}" for p in (stage.problem for stage in present))
            print(
                f"{name} {shape[0]:4} {told:>18} -> {shape[3]:<4} stride {shape[4]}  steps {seconds['steps'] * 1e6:7.0f} us  "
                f"strips {seconds['strips'] * 1e6:7.0f} us  {ratios[-1]:.2f}"
            )
        print(f"{name}: geometric mean {np.exp(np.mean(np.log(ratios))):.2f}, least {min(ratios):.2f}")


def resize(threads: int, rounds: int) -> None:
    """Twice as large, then 3x3: all ways, and PyTorch's two steps."""
    try:
        import torch
    except ImportError:
        torch = None
    for c_in, c_out, size in ((64, 64, 28), (128, 64, 56), (256, 128, 14), (32, 16, 112)):
        x, weight = normals(1, size, size, c_in), normals(c_out, c_in, 3, 3)
        for mode in ("nearest", "bilinear"):
            ways = ("auto", "sampled", "enlarged", "folded") if mode == "nearest" else ("auto", "sampled", "enlarged")
            call = {"scale": 2, "padding": 1, "mode": mode, "layout": "channels_last"}
            layers = {way: nc.ResizeConv2d(weight, **call, algorithm=way) for way in ways}
            calls = {way: partial(layer, x) for way, layer in layers.items()}
            if torch is not None:
                torch.set_num_threads(threads)
                image, kernel = (
                    torch.from_numpy(array).contiguous(memory_format=torch.channels_last)
                    for array in (np.moveaxis(x, -1, 1), weight)
                )
                calls["torch"] = partial(_two_steps, torch.nn.functional, image, kernel, mode)
            seconds = in_turns(calls, rounds, threads)
            chosen = layers["auto"].plan(x.shape).algorithm
            told = "  ".join(f"{way} {value * 1e6:.0f} us" for way, value in seconds.items())
            print(f"resize {c_in} -> {c_out} at {size}, {mode}: {told}  ({chosen} chosen)")


def _two_steps(functional, x, weight, mode: str):
    return functional.conv2d(functional.interpolate(x, scale_factor=2, mode=mode), weight, padding=1)


def stream(threads: int, rounds: int) -> None:
    """One sample of a dilated causal layer with 64 channels."""
    for dilation in (1, 512):
        layer = nc.CausalConv1d(normals(64, 64, 2), dilation=dilation, layout="channels_last")
        state, sample, out = layer.stream(), normals(1, 64), np.empty((1, 64), np.float32)
        seconds = in_turns({"sample": partial(state, sample, out=out)}, 100 * rounds, threads)["sample"]
        print(f"stream, dilation {dilation}: {seconds * 1e6:.1f} us a sample")


def graph(threads: int, rounds: int) -> None:
    """20,000 nodes with ten neighbours each, 128 -> 64 channels."""
    from scipy import sparse

    nodes = 20_000
    csr = sparse.csr_array(
        sparse.random_array((nodes, nodes), density=10 / nodes, format="csr", rng=_RNG, dtype=np.float32)
    )
    x, weight = normals(nodes, 128), normals(128, 64)
    seconds = in_turns(
        {"ours": lambda: nc.graph_conv(x, csr, weight), "scipy": lambda: csr @ (x @ weight)}, rounds, threads
    )
    print(
        f"graph: {seconds['ours'] * 1e3:.1f} ms with normalization; SciPy and NumPy {seconds['scipy'] * 1e3:.1f} ms without"
    )


KINDS = {kind.__name__: kind for kind in (deformable, separable, resize, stream, graph)}


def main() -> None:
    """Run the kinds that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", default=list(KINDS), help=", ".join(KINDS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")
    with nc.num_threads(options.threads):
        for kind in options.kinds:
            KINDS[kind](options.threads, options.rounds)


if __name__ == "__main__":
    main()
