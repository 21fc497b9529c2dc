"""ncnn: the model converted by pnnx, half precision and bfloat16 off, else default options."""

import os
import subprocess
import sys
from importlib.util import find_spec

import ncnn
import numpy as np

_REDUCED_PRECISION = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
)


def version() -> str:
    """Of ncnn."""
    return ncnn.__version__


def convert(model, feed, folder):
    """Write `network.ncnn.param` and `.bin` into the folder, unless another worker has."""
    if any(array.dtype != np.float32 or array.ndim < 2 or array.shape[0] != 1 for array in feed.values()):
        raise NotImplementedError("ncnn runs single images of float32")
    parameters = os.path.join(folder, "network.ncnn.param")
    if os.path.exists(parameters):
        return
    if find_spec("pnnx") is None:
        raise NotImplementedError("the model is converted with pnnx, which is not installed")
    # pnnx writes next to the model that it is given
    os.symlink(model, os.path.join(folder, "network.onnx"))
    shapes = ",".join(f"[{','.join(map(str, array.shape))}]f32" for array in feed.values())
    # in a process of its own: the package imports torch
    program = [sys.executable, "-c", "import pnnx; pnnx.pnnx()"]
    done = subprocess.run(
        [*program, "network.onnx", f"inputshape={shapes}", "fp16=0"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode or not os.path.exists(parameters):
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise NotImplementedError(f"pnnx cannot convert it: {(said or [f'exit status {done.returncode}'])[0]}")


def load(model, feed, folder, threads):
    """A net with the converted network; pnnx calls inputs in0, in1, and so on, and outputs likewise."""
    net = ncnn.Net()
    net.opt.num_threads = threads
    for option in _REDUCED_PRECISION:
        setattr(net.opt, option, False)
    if net.load_param(os.path.join(folder, "network.ncnn.param")):
        raise NotImplementedError("ncnn cannot load what pnnx made of it: it has layers that ncnn lacks")
    net.load_model(os.path.join(folder, "network.ncnn.bin"))
    images = {f"in{number}": ncnn.Mat(array[0]) for number, array in enumerate(feed.values())}
    names = sorted(net.output_names(), key=lambda name: int(name.removeprefix("out")))
    last = []

    def call():
        # An extractor caches its results, so every run needs a new one; the net keeps the packed weights.
        extractor = net.create_extractor()
        for name, image in images.items():
            extractor.input(name, image)
        last[:] = [extractor.extract(name)[1] for name in names]

    return call, lambda: [np.array(mat)[np.newaxis] for mat in last]
