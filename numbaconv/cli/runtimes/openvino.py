"""OpenVINO's CPU plugin, compiled for latency, with f32 forced: it takes bfloat16 by itself where the processor has it."""

import numpy as np
import openvino as ov


def version() -> str:
    """Of openvino."""
    return ov.__version__.split("-")[0]


def load(model, feed, folder, threads):
    """A request with the arrays of the feed as its tensors."""
    core = ov.Core()
    network = core.read_model(model)
    network.reshape({name: ov.PartialShape(array.shape) for name, array in feed.items()})
    config = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = core.compile_model(network, "CPU", config)
    request = compiled.create_infer_request()
    for name, array in feed.items():
        request.set_tensor(name, ov.Tensor(array, shared_memory=True))
    # infer() copies its outputs unless told to share
    return (
        lambda: request.infer(share_outputs=True),
        lambda: [np.array(request.get_output_tensor(i).data) for i in range(len(compiled.outputs))],
    )
