"""Compare transposed convolutions and gradients with the other runtimes, all of them in one process, in rounds that take turns.

python -m bench.adjoint --what gradients --threads 1 2 --rounds 7
"""

import argparse
import statistics
import time
from collections.abc import Callable
from math import prod

import numpy as np

MIN_TIME = 0.03
TOLERANCE = 1e-3


class Case:
    """A named transposed convolution with operands; its result is (n, c_out, *out)."""

    def __init__(self, name, c_in, c_out, spatial, kernel, stride, padding=0, groups=1, output_padding=0):
        self.name, self.axes = name, len(spatial)
        self.stride, self.padding, self.groups, self.output_padding = stride, padding, groups, output_padding
        rng = np.random.default_rng(1)
        self.x = rng.standard_normal((1, c_in, *spatial), np.float32)
        scale = np.float32((c_in // groups * prod((max(kernel / stride, 1),) * self.axes)) ** -0.5)
        self.weight = rng.standard_normal((c_in, c_out // groups, *(kernel,) * self.axes), np.float32) * scale
        self.bias = rng.standard_normal(c_out, np.float32)

    @property
    def flops(self) -> int:
        return 2 * prod(self.x.shape) * prod(self.weight.shape[1:])


#: Layers of networks that people run: DCGAN's generator, FCN's upsampling, U-Net's, and a vocoder's.
TRANSPOSED = [
    ("dcgan 100-1024 4x4", 100, 1024, (1, 1), 4, 1, 0),
    ("dcgan 1024-512 8x8", 1024, 512, (4, 4), 4, 2, 1),
    ("dcgan 512-256 16x16", 512, 256, (8, 8), 4, 2, 1),
    ("dcgan 256-128 32x32", 256, 128, (16, 16), 4, 2, 1),
    ("dcgan 128-3 64x64", 128, 3, (32, 32), 4, 2, 1),
    ("fcn 21-21 4x4s2", 21, 21, (34, 34), 4, 2, 0),
    ("fcn 21-21 16x16s8", 21, 21, (35, 35), 16, 8, 0),
    ("unet 1024-512 2x2s2", 1024, 512, (28, 28), 2, 2, 0),
    ("unet 512-256 2x2s2", 512, 256, (56, 56), 2, 2, 0),
    ("unet 256-128 2x2s2", 256, 128, (112, 112), 2, 2, 0),
    ("unet 128-64 2x2s2", 128, 64, (128, 128), 2, 2, 0),
    ("4x4s2 256-256 pose", 256, 256, (32, 24), 4, 2, 1),
    ("4x4s2 64-64", 64, 64, (64, 64), 4, 2, 1),
    ("vocoder 512-256 k16s8", 512, 256, (80,), 16, 8, 4),
    ("vocoder 256-128 k16s8", 256, 128, (640,), 16, 8, 4),
    ("vocoder 128-64 k4s2", 128, 64, (5120,), 4, 2, 1),
    ("unet3d 128-64 2x2x2s2", 128, 64, (16, 16, 16), 2, 2, 0),
]


def ours(case: Case, layout: str, threads: int) -> Callable[[], np.ndarray]:
    import numbaconv as nc

    nc.set_num_threads(threads)
    kind = (nc.ConvTranspose1d, nc.ConvTranspose2d, nc.ConvTranspose3d)[case.axes - 1]
    layer = kind(case.weight, case.bias, case.stride, case.padding, case.output_padding, case.groups, layout=layout)
    last = layout == "channels_last"
    x = np.ascontiguousarray(np.moveaxis(case.x, 1, -1)) if last else case.x
    out = layer(x)
    return lambda: np.moveaxis(layer(x, out=out), -1, 1) if last else layer(x, out=out)


def torch(case: Case, layout: str, threads: int) -> Callable[[], np.ndarray]:
    import torch as library

    library.set_num_threads(threads)
    x, weight, bias = map(library.from_numpy, (case.x, case.weight, case.bias))
    formats = {4: library.channels_last, 5: library.channels_last_3d}
    if layout == "channels_last":
        if x.ndim not in formats:
            raise NotImplementedError
        x, weight = (array.contiguous(memory_format=formats[x.ndim]) for array in (x, weight))
    function = getattr(library.nn.functional, f"conv_transpose{case.axes}d")

    def call():
        with library.inference_mode():
            return function(x, weight, bias, case.stride, case.padding, case.output_padding, case.groups).numpy()

    return call


def _model(case: Case) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    ones = (1,) * case.axes
    node = helper.make_node(
        "ConvTranspose", ["x", "weight", "bias"], ["y"], kernel_shape=case.weight.shape[2:], group=case.groups,
        strides=[case.stride] * case.axes, pads=[case.padding] * 2 * case.axes, dilations=ones,
        output_padding=[case.output_padding] * case.axes,
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "transposed", [helper.make_tensor_value_info("x", TensorProto.FLOAT, case.x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(case.weight, "weight"), numpy_helper.from_array(case.bias, "bias")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def onnxruntime(case: Case, layout: str, threads: int) -> Callable[[], np.ndarray]:
    import onnxruntime as library

    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0" if threads > 1 else "1")
    session = library.InferenceSession(_model(case), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": case.x})[0]


def openvino(case: Case, layout: str, threads: int) -> Callable[[], np.ndarray]:
    import openvino as library

    core = library.Core()
    model = core.read_model(_model(case))
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    tensor = library.Tensor(case.x, shared_memory=True)
    request.set_input_tensor(tensor)

    def call():
        request.infer()
        return request.get_output_tensor().data

    return call


class GradientCase:
    """A named problem with the gradient of its result; a result is (grad_x, grad_weight, grad_bias), channels-first."""

    def __init__(self, name, text):
        from numbaconv.problem import ConvProblem

        self.name, self.problem = name, ConvProblem.parse(text)
        rng = np.random.default_rng(1)
        shapes = self.problem.input_shape, self.problem.weight_shape, self.problem.output_shape
        self.x, self.weight, self.y = (rng.standard_normal(shape, np.float32) for shape in shapes)


#: Layers of networks that people train, in batches that two cores take.
GRADIENTS = [
    ("resnet stem", "n4c3h224w224o64k7s2p3"),
    ("resnet 56 3x3", "n8c64h56w56o64k3p1"),
    ("resnet 56 1x1", "n8c64h56w56o256k1"),
    ("resnet 28 3x3", "n8c128h28w28o128k3p1"),
    ("resnet 28 3x3s2", "n8c128h56w56o128k3s2p1"),
    ("resnet 14 3x3", "n8c256h14w14o256k3p1"),
    ("resnet 14 1x1s2", "n8c512h28w28o1024k1s2"),
    ("resnet 7 3x3", "n8c512h7w7o512k3p1"),
    ("resnet 7 1x1", "n8c2048h7w7o512k1"),
    ("unet 3x3", "n1c64h128w128o64k3p1"),
    ("dilated 3x3", "n2c128h28w28o128k3p2dil2"),
    ("resnext 32 groups", "n8c128h56w56o128k3p1g32"),
    ("mobilenet depthwise", "n8c96h56w56o96k3p1g96"),
    ("mobilenet depthwise s2", "n8c96h112w112o96k3s2p1g96"),
    ("lenet 5x5", "n32c6h14w14o16k5"),
    ("wavenet 1-D", "n4c64w4000o64k3p4dil4"),
]


def our_gradients(case: GradientCase, layout: str, threads: int) -> Callable[[], tuple]:
    import numbaconv as nc

    nc.set_num_threads(threads)
    p, last = case.problem, layout == "channels_last"
    x, y = (np.ascontiguousarray(np.moveaxis(a, 1, -1)) if last else a for a in (case.x, case.y))
    backward = (nc.conv1d_backward, nc.conv2d_backward, nc.conv3d_backward)[len(p.spatial) - 1]

    def call():
        grad_x, *others = backward(y, x, case.weight, p.stride, p.padding, p.dilation, p.groups, layout=layout)
        return (np.moveaxis(grad_x, -1, 1) if last else grad_x, *others)

    return call


def torch_gradients(case: GradientCase, layout: str, threads: int) -> Callable[[], tuple]:
    import torch as library

    library.set_num_threads(threads)
    p = case.problem
    x, weight, y = map(library.from_numpy, (case.x, case.weight, case.y))
    if layout == "channels_last":
        if x.ndim != 4:
            raise NotImplementedError
        x, weight, y = (array.contiguous(memory_format=library.channels_last) for array in (x, weight, y))
    padding, none = [before for before, _ in p.padding], [0] * len(p.spatial)
    arguments = [p.c_out], p.stride, padding, p.dilation, False, none, p.groups, [True, True, True]

    def call():
        return tuple(t.numpy() for t in library.ops.aten.convolution_backward(y, x, weight, *arguments))

    return call


#: What can be measured: cases, how to make one, and the runtimes with the layout of their operands.
KINDS = {
    "transposed": (
        TRANSPOSED,
        Case,
        {
            "ours cl": (ours, "channels_last"),
            "ours cf": (ours, "channels_first"),
            "torch cf": (torch, "channels_first"),
            "torch cl": (torch, "channels_last"),
            "onnxruntime": (onnxruntime, "channels_first"),
            "openvino": (openvino, "channels_first"),
        },
    ),
    "gradients": (
        GRADIENTS,
        GradientCase,
        {
            "ours cl": (our_gradients, "channels_last"),
            "ours cf": (our_gradients, "channels_first"),
            "torch cf": (torch_gradients, "channels_first"),
            "torch cl": (torch_gradients, "channels_last"),
        },
    ),
}


def check(name: str, found, expected) -> None:
    """Raise if a runtime's results are not those of the first."""
    for ours, theirs in zip(found, expected) if isinstance(found, tuple) else [(found, expected)]:
        if np.abs(ours - theirs).max() > TOLERANCE * np.abs(theirs).max():
            raise AssertionError(f"{name}: the results differ by {np.abs(ours - theirs).max()}")


def sample(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """The median seconds of calls that together take at least `MIN_TIME`."""
    call()
    seconds, end = [], time.perf_counter() + MIN_TIME
    while len(seconds) < 3 or time.perf_counter() < end:
        start = clock()
        call()
        seconds.append(clock() - start)
    return statistics.median(seconds)


def measure(calls: dict[str, Callable], rounds: int, threads: int) -> dict[str, float]:
    """Each runtime's median over rounds, in which all take turns.

    On one thread that is the time of the process alone, which other programs do not lengthen.
    """
    clock = time.process_time if threads == 1 else time.perf_counter
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(sample(call, clock))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.adjoint", description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=KINDS, default="transposed")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filter", default="", help="part of a layer's name")
    args = parser.parse_args()
    cases, make, runtimes = KINDS[args.what]
    for threads in args.threads:
        ratios = {"ours cl": [], "ours cf": []}
        title = f"{threads} thread(s), us"
        print(f"{title:<26}" + "".join(f"{name:>13}" for name in runtimes) + "   ratio cl    cf")
        for arguments in cases:
            if args.filter not in arguments[0]:
                continue
            case = make(*arguments)
            calls, expected = {}, None
            for name, (prepare, layout) in runtimes.items():
                try:
                    call = prepare(case, layout, threads)
                except (ImportError, NotImplementedError):
                    continue
                found = call()
                expected = found if expected is None else expected
                check(f"{case.name}, {name}", found, expected)
                calls[name] = call
            times = measure(calls, args.rounds, threads)
            best = min(seconds for name, seconds in times.items() if name not in ratios)
            for name, values in ratios.items():
                values.append(best / times[name])
            cells = "".join(f"{times[name] * 1e6:>13.1f}" if name in times else f"{'':>13}" for name in runtimes)
            print(f"{case.name:<26}{cells}{ratios['ours cl'][-1]:>11.2f}{ratios['ours cf'][-1]:>6.2f}", flush=True)
        for name, values in ratios.items():
            print(f"{name}: geometric mean {np.exp(np.log(values).mean()):.2f}, worst {min(values):.2f}")


if __name__ == "__main__":
    main()
