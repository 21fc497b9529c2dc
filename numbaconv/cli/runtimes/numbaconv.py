"""This package: a session with bound input."""

import numbaconv
from numbaconv.graph import SessionOptions


def version() -> str:
    """Of numbaconv."""
    return numbaconv.__version__


def load(model, feed, folder, threads):
    """A session on its own threads."""
    session = numbaconv.InferenceSession(model, SessionOptions(intra_op_num_threads=threads))
    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding), binding.copy_outputs_to_cpu
