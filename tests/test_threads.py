"""Threads: how many are used, who may call at once, what a forked child does, and what a warm call allocates."""

from __future__ import annotations

import os
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numba
import numpy as np
import pytest
from strategies import FAST, able, bits, make_operands, normals, whole_numbers

import numbaconv as nc
from numbaconv.algorithms import tiled
from numbaconv.algorithms.pointwise import Pointwise
from numbaconv.algorithms.weights import Weights
from numbaconv.epilogue import Epilogue
from numbaconv.loops import launch
from numbaconv.loops.shares import even_grid
from numbaconv.machine import machine
from numbaconv.problem import LAYOUTS, ConvProblem

TEXT = "n2c20h30w31o40k3p1bias"
TWO = numba.config.NUMBA_NUM_THREADS >= 2
needs_two = pytest.mark.skipif(not TWO, reason="runs in a process of its own, which has two threads")


@pytest.mark.skipif(TWO, reason="Numba was started with two threads or more")
def test_a_process_with_two_threads_passes_what_needs_them(python):
    python(
        """
        import sys
        import pytest

        sys.exit(pytest.main(["-p", "no:cacheprovider", "-k", sys.argv[2], sys.argv[1]]))
        """,
        __file__,
        "layer_uses or own_mask or same_bits or warm_call",
        NUMBA_NUM_THREADS="2",
    )


def drivers_entered(monkeypatch):
    """How many threads each parallel region is entered with."""
    entered = []
    run = launch._run
    monkeypatch.setattr(
        launch, "_run", lambda driver, threads, arguments: (entered.append(threads), run(driver, threads, arguments))
    )
    return entered


# --- how many --------------------------------------------------------------------------------------------------


def test_one_thread_never_enters_the_parallel_layer(python):
    done = python(
        """
        import numba
        import numbaconv as nc
        from strategies import ConvProblem, FAST, able, make_operands, whole_numbers

        nc.set_num_threads(1)
        for text in ("c20h30w31o40k3p1", "c20h30w31o40k1cl"):
            given = make_operands(ConvProblem.parse(text), whole_numbers)
            for name in able(given.problem, FAST):
                assert (given.conv(name) == given.oracle()).all()
        try:
            print(numba.threading_layer())
        except ValueError:
            print("never")
        """
    )
    assert done.stdout == "never\n"


@pytest.mark.parametrize("variables, shown", (({}, launch.SPINS), ({"GOMP_SPINCOUNT": "77"}, "77")))
def test_threads_that_wait_spin_for_a_moment_only_unless_told_otherwise(variables, shown, python):
    program = """
        import os

        from numbaconv.loops.launch import start_threading_layer

        before = dict(os.environ)
        print(start_threading_layer())
        assert dict(os.environ) == before
    """
    assert_spins(python(program, NUMBA_NUM_THREADS="2", OMP_DISPLAY_ENV="verbose", **variables), shown)


def assert_spins(done, shown: str) -> None:
    if done.stdout != "omp\n" or "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("the threads are not those of GNU OpenMP")
    assert f"GOMP_SPINCOUNT = '{shown}'" in done.stderr


def test_a_layer_starts_threads_that_spin_for_a_moment_only(python):
    program = """
        import numpy as np

        import numbaconv as nc
        from numbaconv.loops.launch import threading_layer

        nc.set_num_threads(2)
        nc.conv2d(np.ones((1, 32, 40, 40), np.float32), np.ones((32, 32, 3, 3), np.float32), algorithm="im2col")
        print(threading_layer())
    """
    assert_spins(python(program, NUMBA_NUM_THREADS="2", OMP_DISPLAY_ENV="verbose"), launch.SPINS)


@needs_two
@pytest.mark.parametrize(
    "text, shared", (("c16h7w7o64k1cl", False), ("c64h7w7o64k1cf", False), ("c64h56w56o64k3p1cl", True))
)
def test_a_layer_uses_one_thread_for_work_that_takes_less_than_to_meet_another(text, shared, monkeypatch):
    monkeypatch.setattr(tiled, "_SHARED", 16e-6)
    given_ = make_operands(ConvProblem.parse(text), whole_numbers)
    layer, entered = given_.layer(), drivers_entered(monkeypatch)
    with nc.num_threads(2):
        np.testing.assert_array_equal(layer(given_.x), given_.oracle())
    assert bool(entered) == shared


@needs_two
def test_a_layer_uses_the_threads_that_are_set_when_it_is_called(monkeypatch):
    entered = drivers_entered(monkeypatch)
    given_ = make_operands(ConvProblem.parse(TEXT), whole_numbers)
    layer, expected = given_.layer(), given_.oracle()
    before = nc.get_num_threads()
    try:
        for threads in (2, 1, 2):
            nc.set_num_threads(threads)
            entered.clear()
            np.testing.assert_array_equal(layer(given_.x), expected)
            assert set(entered) == ({2} if threads == 2 else set())
            with nc.num_threads(1):
                entered.clear()
                layer(given_.x)
                assert not entered
    finally:
        nc.set_num_threads(before)


@needs_two
def test_the_callers_own_mask_of_numba_threads_is_left_alone():
    given_ = make_operands(ConvProblem.parse(TEXT), whole_numbers)
    before = numba.get_num_threads()
    try:
        for mask in (1, 2):
            numba.set_num_threads(mask)
            for threads in (1, 2):
                with nc.num_threads(threads):
                    given_.conv()
                assert numba.get_num_threads() == mask
    finally:
        numba.set_num_threads(before)


@needs_two
@pytest.mark.parametrize(
    "rows, columns, threads, grid",
    [
        (1225, 2, 2, (2, 1)), (289, 6, 2, (2, 1)), (49, 16, 2, (1, 2)), (17, 2, 2, (1, 2)), (17, 3, 2, (2, 1)),
        (3136, 2, 3, (3, 1)), (1, 5, 2, (1, 2)), (1, 1, 4, (1, 1)), (0, 3, 2, (0, 1)),
    ],
)  # fmt: skip
def test_work_is_shared_by_rows_unless_shares_of_columns_are_smaller(rows, columns, threads, grid):
    assert even_grid(rows, columns, threads) == grid


@needs_two
@pytest.mark.parametrize(
    "text, grid", (("c512h14w14o2048k1", (1, 2)), ("c64h28w28o64k1", (2, 1)), ("c2048h28w28o512k1", (2, 1)))
)
def test_weights_are_shared_out_where_they_are_large_beside_the_input(text, grid):
    assert even_grid(196, 16, 2, False) == (2, 1) and even_grid(196, 16, 2, True) == (1, 2)
    p = ConvProblem.parse(text + "cl")
    weights = Weights(np.zeros(p.weight_shape, np.float32), None, 1)
    work = Pointwise().plan(p, weights, Epilogue(), replace(machine(), l2=2 << 20)).shares(2)
    assert (work.rows, work.columns) == grid


@pytest.mark.parametrize("text", (TEXT, "n3c40h9w9o200k1", "c40h23w23o40k3p1g40"))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_thread_and_two_give_the_same_bits(text, layout):
    problem = ConvProblem.parse(text + ("cl" if layout == "channels_last" else ""))
    given_ = make_operands(problem, normals, residual=True, activation="silu")
    for name in able(problem, FAST):
        results = []
        for threads in (1, 2):
            with nc.num_threads(threads):
                results.append(bits(given_.conv(name)))
        assert results[0] == results[1], name


@pytest.mark.parametrize("name", able(ConvProblem.parse(TEXT), FAST))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_call_looks_once_at_the_number_of_threads(name, layout, monkeypatch):
    # another thread may change it at any moment, and the workspace must be as large as the parts that share it
    given_ = make_operands(ConvProblem.parse(TEXT + ("cl" if layout == "channels_last" else "")), whole_numbers)
    layer, expected, looks = given_.layer(name), given_.oracle(), []
    monkeypatch.setattr(launch, "get_num_threads", lambda: looks.append(name) or 1)
    np.testing.assert_array_equal(layer(given_.x), expected)
    assert looks == [name]


# --- several callers --------------------------------------------------------------------------------------------

MANY_CALLERS = """
    import sys
    from concurrent.futures import ThreadPoolExecutor

    import numba
    import numpy as np
    import numbaconv as nc
    from strategies import ConvProblem, make_operands, whole_numbers

    sys.setswitchinterval(1e-5)
    nc.set_num_threads(2)
    # one layer a layout, which meets three shapes
    texts = [f"n2c20h{h}w31o40k3p1bias{layout}" for h in (9, 10, 11) for layout in ("cf", "cl")]
    givens = [make_operands(ConvProblem.parse(text), whole_numbers) for text in texts]
    weight, bias = givens[0].weight, givens[0].bias
    expected = [nc.conv2d(g.x, weight, bias, padding=1, layout=g.problem.layout, algorithm="reference") for g in givens]
    layers = {name: nc.Conv2d(weight, bias, padding=1, layout=name) for name in ("channels_first", "channels_last")}

    def call(i):
        i %= len(givens)
        return np.array_equal(layers[givens[i].problem.layout](givens[i].x), expected[i])

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(call, range(300)))
    print(numba.threading_layer())
"""


@pytest.mark.parametrize("plans", ("1", "32"))
@pytest.mark.parametrize("layer", ("default", "workqueue"))
def test_several_threads_may_convolve_at_once(layer, plans, python):
    choice = {} if layer == "default" else {"NUMBA_THREADING_LAYER": layer}
    done = python(MANY_CALLERS, NUMBA_NUM_THREADS="2", NUMBACONV_PLAN_CACHE=plans, **choice)
    assert layer == "default" or done.stdout == f"{layer}\n"


def test_several_threads_may_call_one_layer():
    given_ = make_operands(ConvProblem.parse(TEXT), normals, activation="silu")
    layer = given_.layer()
    images = [
        np.random.default_rng(i).standard_normal((1 + i % 3, 20, 9 + i % 5, 31)).astype(np.float32) for i in range(12)
    ]
    expected = [bits(layer(x)) for x in images]
    start = threading.Barrier(4)

    def work(_):
        start.wait()
        return all(bits(layer(x)) == y for _ in range(10) for x, y in zip(images, expected))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
    finally:
        sys.setswitchinterval(interval)


def test_plans_may_be_forgotten_while_others_run(python):
    python(
        """
        import sys
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np
        import numbaconv as nc

        sys.setswitchinterval(1e-6)
        layer = nc.Conv2d(np.ones((4, 2, 3, 3), np.float32))

        def work(seed):
            for i in range(150):
                n = 1 + (seed + i) % 5
                assert (layer(np.ones((n, 2, 5, 4 + n), np.float32)) == 18).all()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        """,
        NUMBACONV_PLAN_CACHE="1",
    )


# --- a forked child -----------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("layer", ("default", "workqueue"))
def test_a_forked_child_convolves_after_its_parent_has(layer, python):
    choice = {} if layer == "default" else {"NUMBA_THREADING_LAYER": layer}
    done = python(
        """
        import multiprocessing

        import numpy as np
        import numbaconv as nc
        from strategies import ConvProblem, make_operands, whole_numbers

        nc.set_num_threads(2)
        givens = [make_operands(ConvProblem.parse(t), whole_numbers) for t in ("n2c20h30w31o40k3p1", "c20h9w9o8k1cl")]
        layers = [given.layer() for given in givens]
        expected = [given.oracle() for given in givens]

        def check(_=None):
            return all(np.array_equal(l(g.x), y) for l, g, y in zip(layers, givens, expected))

        assert check()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            assert pool.map_async(check, range(4)).get(60) == [True] * 4
        assert check()
        print("alive")
        """,
        NUMBA_NUM_THREADS="2",
        **choice,
    )
    assert done.stdout == "alive\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("layer", ("omp", "workqueue"))
def test_a_child_of_os_fork_computes_and_exits_well(layer, python):
    done = python(
        """
        import os

        import numba
        import numpy as np
        import numbaconv as nc
        from strategies import ConvProblem, make_operands, whole_numbers

        nc.set_num_threads(2)
        given = make_operands(ConvProblem.parse("n2c20h30w31o40k3p1bias"), whole_numbers)
        layer, expected = given.layer(), given.oracle()
        assert np.array_equal(layer(given.x), expected)
        print(numba.threading_layer(), flush=True)
        child = os.fork()
        if child == 0:
            # the old plan, and one for a shape that the parent has not met
            good = np.array_equal(layer(given.x), expected)
            good &= np.array_equal(layer(given.x[:1]), expected[:1])
            os._exit(0 if good else 3)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert np.array_equal(layer(given.x), expected)
        """,
        NUMBA_NUM_THREADS="2",
        NUMBA_THREADING_LAYER=layer,
    )
    assert done.stdout == f"{layer}\n"


# --- memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", (1, min(2, numba.config.NUMBA_NUM_THREADS)))
@pytest.mark.parametrize("residual", (False, True))
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ("auto", *able(ConvProblem.parse(TEXT), FAST)))
def test_a_warm_call_allocates_no_array(name, layout, residual, threads):
    problem = ConvProblem.parse(TEXT + ("cl" if layout == "channels_last" else ""))
    given_ = make_operands(problem, whole_numbers, residual=residual)
    layer, out = given_.layer(name), np.empty(problem.output_shape, np.float32)
    with nc.num_threads(threads):
        for _ in range(3):
            layer(given_.x, residual=given_.residual, out=out)
        tracemalloc.start()
        try:
            layer(given_.x, residual=given_.residual, out=out)
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            for _ in range(20):
                layer(given_.x, residual=given_.residual, out=out)
            peak = tracemalloc.get_traced_memory()[1] - before
            arrays = tracemalloc.take_snapshot().filter_traces(
                [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
            )
        finally:
            tracemalloc.stop()
    assert sum(trace.size for trace in arrays.traces) == 0
    # and none for a while: the smallest tensor has 148 KiB, what remains are Python's own small objects
    assert peak < 8192
