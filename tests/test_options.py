"""The environment is read in one place, and thread counts are a process's, or a thread's while it asks so."""

import threading
from pathlib import Path

import numba
import pytest

from numbaconv import options as module
from numbaconv.errors import ConvError
from numbaconv.machine import machine
from numbaconv.options import Options, get_num_threads, num_threads, set_num_threads


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """Undo what a test sets, and pretend that Numba started eight threads."""
    monkeypatch.setattr(module, "_process_threads", None)
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 8)
    monkeypatch.setattr(module, "options", lambda: Options())
    module._default_threads.cache_clear()
    yield
    module._default_threads.cache_clear()


def test_an_empty_environment_leaves_the_defaults():
    assert Options.read({}) == Options(isa=None, cache_dir=None, num_threads=None, plan_cache=32, calibrate=True)
    assert Options.read({"NUMBACONV_ISA": "", "NUMBACONV_NUM_THREADS": ""}) == Options()


def test_every_variable_is_read():
    environ = {
        "NUMBACONV_ISA": "avx2",
        "NUMBACONV_CACHE_DIR": "/somewhere",
        "NUMBACONV_NUM_THREADS": "3",
        "NUMBACONV_PLAN_CACHE": "16",
        "NUMBACONV_ACCURACY": "1e-4",
        "NUMBACONV_CALIBRATE": "0",
    }
    assert Options.read(environ) == Options("avx2", Path("/somewhere"), 3, 16, 1e-4, False)
    assert Options.read({"NUMBACONV_ACCURACY": "strict"}).accuracy == "strict"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("NUMBACONV_ISA", "sse9", "avx512, avx2, neon, generic"),
        ("NUMBACONV_NUM_THREADS", "0", "at least 1"),
        ("NUMBACONV_NUM_THREADS", "two", "integer"),
        ("NUMBACONV_NUM_THREADS", "9", "NUMBA_NUM_THREADS=8"),
        ("NUMBACONV_PLAN_CACHE", "-1", "at least 1"),
        ("NUMBACONV_PLAN_CACHE", "1.5", "integer"),
        ("NUMBACONV_ACCURACY", "-1e-5", "positive"),
        ("NUMBACONV_ACCURACY", "exact", "'strict'"),
        ("NUMBACONV_CALIBRATE", "yes", "0 or 1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_variable_and_rule(name, value, rule):
    with pytest.raises(ConvError) as caught:
        Options.read({name: value})
    for word in (name, value, rule):
        assert word in str(caught.value)


def test_threads_are_the_usable_cores_until_someone_says_otherwise():
    assert get_num_threads() == min(machine().usable_cores, 8)


def test_the_default_does_not_exceed_what_numba_started(monkeypatch):
    monkeypatch.setattr(numba.config, "NUMBA_NUM_THREADS", 1)
    assert get_num_threads() == 1


def test_the_environment_sets_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(module, "options", lambda: Options(num_threads=5))
    assert get_num_threads() == 5
    set_num_threads(3)
    assert get_num_threads() == 3


def test_blocks_nest_and_restore_even_after_an_error():
    set_num_threads(4)
    with num_threads(2):
        with pytest.raises(RuntimeError), num_threads(1):
            assert get_num_threads() == 1
            raise RuntimeError
        assert get_num_threads() == 2
        set_num_threads(3)  # the process's count, which the block hides
        assert get_num_threads() == 2
    assert get_num_threads() == 3


def test_a_block_is_not_seen_by_other_threads():
    set_num_threads(4)
    seen = []
    with num_threads(1):
        thread = threading.Thread(target=lambda: seen.append(get_num_threads()))
        thread.start()
        thread.join()
    assert seen == [4]


@pytest.mark.parametrize(
    ("n", "rule"),
    [
        (0, "below 1"),
        (-2, "below 1"),
        (1.0, "integer"),
        (True, "integer"),
        ("2", "integer"),
        (9, "NUMBA_NUM_THREADS=8"),
    ],
)
def test_a_number_of_threads_out_of_range_is_refused(n, rule):
    for ask in (set_num_threads, lambda n: num_threads(n).__enter__()):
        with pytest.raises(ConvError, match=f"n={n!r}.*{rule}"):
            ask(n)
    assert get_num_threads() == min(machine().usable_cores, 8)
