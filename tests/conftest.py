"""Profiles of Hypothesis, random numbers that repeat, and Python processes to look at from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

# before numbaconv reads it: which algorithm is chosen must not depend on how fast this machine happens to be
os.environ["NUMBACONV_CALIBRATE"] = "0"

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import numbaconv as nc
from numbaconv.algorithms import tiled
from numbaconv.graph import instructions

_SLOW_FIRST = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("ci", max_examples=150, deadline=None, derandomize=True, suppress_health_check=_SLOW_FIRST)
settings.register_profile("thorough", max_examples=3000, deadline=None, suppress_health_check=_SLOW_FIRST)
settings.load_profile("ci")  # pytest --hypothesis-profile=thorough looks further

# Most tests compare bits, so they hold all algorithms to direct sums; those of others say how exact they want theirs.
nc.set_accuracy("strict")

# Networks and layers of tests are small, and all of them are to be shared out.
instructions._SHARED = tiled._SHARED = 0.0

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def rng() -> np.random.Generator:
    """The same random numbers in every run."""
    return np.random.default_rng(20260101)


@pytest.fixture
def python(tmp_path):
    """Run a program in a process of its own and return what it prints; it must end well.

    The program finds the helpers of the tests; `package` is the folder that holds numbaconv, other keywords are
    environment variables.  Results are exact unless NUMBACONV_ACCURACY is given, and compiled code is kept in the usual place
    unless NUMBACONV_CACHE_DIR is.
    """

    def run(program: str, *arguments: str, package: Path = ROOT, **environment: str) -> subprocess.CompletedProcess:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("NUMBACONV_")}
        variables |= {
            "PYTHONPATH": os.pathsep.join([str(package), str(ROOT / "tests")]),
            "NUMBACONV_ACCURACY": "strict",
            "NUMBACONV_CALIBRATE": "0",
        }
        variables |= environment
        file = tmp_path / "program.py"
        file.write_text(textwrap.dedent(program), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, str(file), *arguments], env=variables, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
