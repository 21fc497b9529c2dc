"""The node tests of the `onnx` package: every operator against the arrays that its specification comes with."""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, numpy_helper  # noqa: E402
from onnx.backend.test.case import node as cases  # noqa: E402
from onnx.backend.test.loader import load_model_tests  # noqa: E402

from numbaconv.graph import InferenceSession  # noqa: E402

_TRAINING = "an optimiser or a loss, which training needs and inference does not"
_SEQUENCES = "sequences, optional values and control flow go to the reference, one value at a time"
_STRINGS = "strings and the operators of classical machine learning are no part of a CNN"
_LANGUAGE = "a layer of language models, which goes to the reference as a whole"
#: Files of node tests that are not run, and why.
OUT_OF_SCOPE = {
    **dict.fromkeys(["adagrad", "adam", "momentum"], _TRAINING),
    **dict.fromkeys(["negativeloglikelihoodloss", "softmax_cross_entropy_loss"], _TRAINING),
    **dict.fromkeys(["sequence_map", "sequenceinsert", "splittosequence"], _SEQUENCES),
    **dict.fromkeys(["optionalgetelement", "optionalhaselement", "if_", "loop", "scan", "identity"], _SEQUENCES),
    **dict.fromkeys(["string_concat", "string_split", "stringnormalizer", "regex_full_match"], _STRINGS),
    **dict.fromkeys(["tfidfvectorizer", "ai_onnx_ml"], _STRINGS),
    **dict.fromkeys(["attention", "flexattention", "linear_attention", "rotaryembedding"], _LANGUAGE),
    **dict.fromkeys(["causal_conv_with_state", "tensorscatter", "swiglu"], _LANGUAGE),
    **dict.fromkeys(["gru", "lstm", "rnn"], "recurrent layers go to the reference, whose tests these are"),
    "bernoulli": "random numbers are compared by their type alone",
    "stft": "the reference returns another shape than the specification's inference for real signals",
    "image_decoder": "decoding pictures needs Pillow and is done before a network runs",
    "conv": "run by test_session.py, with PyTorch's",
    "convtranspose": "run by test_session.py, with PyTorch's",
    "deformconv": "run by test_deformable.py",
}
#: Operators in scope that the reference may run: rare ones whose cost does not matter.
LEFT_TO_REFERENCE = {
    *("AffineGrid", "BlackmanWindow", "Col2Im", "ConvInteger", "DFT", "GridSample", "HammingWindow"),
    *("HannWindow", "MelWeightMatrix", "NonMaxSuppression", "QLinearConv", "QLinearMatMul", "RoiAlign", "Unique"),
    *("BitCast", "Dropout"),
    # in functions that are written out
    "If",
}
#: Element types that NumPy has; models of others (bfloat16, floats of 8 bits, integers of 2 and 4) go to the reference.
ELEMENTS = {
    *(TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BOOL),
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
}
FILES = [m.name for m in pkgutil.iter_modules(cases.__path__) if not m.name.startswith("_")]


def in_scope(model) -> bool:
    values = (*model.graph.input, *model.graph.output)
    # Range, written out as a function, is a Loop over scalars, which the reference stacks with an axis too many
    if any(node.op_type == "Loop" for node in model.graph.node):
        return False
    return all(value.type.tensor_type.elem_type in ELEMENTS for value in values)


def array_of(value) -> np.ndarray:
    return numpy_helper.to_array(value) if isinstance(value, TensorProto) else value


def run(model, inputs, outputs, rtol, atol):
    """The session gives these outputs, and the reference ran only what it may."""
    session = InferenceSession(model.SerializeToString())
    feed = {value.name: array_of(array) for value, array in zip(session.get_inputs(), inputs)}
    for result, expected in zip(session.run(None, feed), map(array_of, outputs), strict=True):
        assert result.shape == expected.shape and result.dtype == expected.dtype
        np.testing.assert_allclose(result, expected, rtol, atol)
    left = {record.op for record in session.report() if record.algorithm == "onnx reference"}
    assert left <= LEFT_TO_REFERENCE


def failures(named) -> list[str]:
    """Messages of the cases that fail, and so their names."""
    found = []
    for name, model, data_sets, rtol, atol in named:
        for inputs, outputs in data_sets:
            try:
                run(model, inputs, outputs, rtol, atol)
            except Exception as error:  # noqa: BLE001 - whatever it is, the other cases are still of interest
                found.append(f"{name}: {type(error).__name__}: {error}")
    return found


@pytest.mark.parametrize("file", sorted(set(FILES) - set(OUT_OF_SCOPE)))
def test_node_tests_pass(file):
    before = len(cases._NodeTestCases)
    with warnings.catch_warnings():  # the package computes some of its arrays with overflows
        warnings.simplefilter("ignore")
        importlib.import_module(f"{cases.__name__}.{file}")
    made = [case for case in cases._NodeTestCases[before:] if in_scope(case.model)]
    assert cases._NodeTestCases[before:], "the file has no cases, or something else has imported it"
    assert not failures((c.name, c.model, c.data_sets, c.rtol, c.atol) for c in made)


def test_exclusions_name_files():
    assert set(OUT_OF_SCOPE) <= set(FILES)


def files_of(folder: Path, kind: str) -> list[np.ndarray]:
    return [numpy_helper.to_array(onnx.load_tensor(file)) for file in sorted(folder.glob(f"{kind}_*.pb"))]


@pytest.mark.parametrize("kind", ["pytorch-converted", "pytorch-operator"])
def test_models_that_pytorch_exported(kind):
    def named():
        for case in load_model_tests(kind=kind):
            folder = Path(case.model_dir)
            data = folder / "test_data_set_0"
            if "Conv" not in case.name:
                arrays = files_of(data, "input"), files_of(data, "output")
                yield case.name, onnx.load(folder / "model.onnx"), [arrays], 1e-3, 1e-5

    assert not failures(named())
