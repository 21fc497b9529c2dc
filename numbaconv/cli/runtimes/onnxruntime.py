"""ONNX Runtime with all of its optimisations and bound input."""

import onnxruntime as ort


def version() -> str:
    """Of onnxruntime."""
    return ort.__version__


def load(model, feed, folder, threads):
    """A session on its own threads, operators one after the other."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding), binding.copy_outputs_to_cpu
