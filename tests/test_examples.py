"""The examples of the documentation do what they say."""

import importlib.util
from pathlib import Path

import pytest

import numbaconv as nc

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_lenet_learns_digits_from_our_gradients():
    pytest.importorskip("sklearn")
    with nc.num_threads(1):
        assert example("train_lenet").train(epochs=6, report=lambda line: None) >= 0.97
