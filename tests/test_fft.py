"""Convolution through spectra: PyTorch's results in float64, within the bound of the algorithm itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import Operands, make_operands, normals, operands, problems

import numbaconv as nc
from numbaconv.accuracy import DEFAULT, STRICT
from numbaconv.algorithms import fft
from numbaconv.algorithms.weights import Weights
from numbaconv.dispatch.select import best_compiled, choose, make_plan
from numbaconv.machine import machine
from numbaconv.problem import LAYOUTS, ConvProblem

NAME, ALGORITHM = fft.Fft.name, fft.Fft()
#: One block and several, kernels larger than the image, strides and dilations, groups, one channel a group, and signals.
PROBLEMS = (
    "n2c5h40w37o7k9p4", "c3h9w8o5k3p1", "c2h5w4o3k15p9", "n2c6h50w61o4kh11kw4s2p3g2", "c4h60w20o6k5dil3p2_5g2", "c6h33w70o6k7p3g6",
    "n3c4h20w30o8k6p1_0s3dil2g4", "c1h90w95o1k31p15", "c3w900o4k80p20", "n2c8w700o8k25s2dil3g8", "c1h1w1o1k1", "n0c3h9w9o2k3",
)  # fmt: skip


def run(given_: Operands, threads: int = 1) -> np.ndarray:
    """The result of a plan."""
    p = given_.problem
    plan = make_plan(p, given_.epilogue, Weights(given_.weight, given_.bias, p.groups), NAME, DEFAULT)
    out = np.full(p.output_shape, np.nan, p.np_dtype)
    plan.run(given_.x, out, given_.residual, threads=threads)
    return out


def error(y, exact) -> float:
    """Root mean square error, relative to that of the exact result."""
    return float(np.sqrt(np.mean((y - exact) ** 2)) / max(np.sqrt(np.mean(exact**2)), 1e-30)) if y.size else 0.0


@pytest.mark.parametrize("text", PROBLEMS)
@pytest.mark.parametrize("layout", ("cf", "cl"))
@pytest.mark.parametrize("dtype", ("f32", "f64"))
def test_results_are_those_of_the_oracle_within_the_bound(text, layout, dtype):
    problem = ConvProblem.parse(text + dtype + layout)
    given_ = make_operands(problem, normals, bias=True, residual=True, activation="relu")
    # in f64 the oracle rounds as well
    own = np.finfo(np.float64).eps * np.sqrt(problem.taps * problem.c_in)
    assert error(run(given_), given_.oracle(accumulate="f64")) <= ALGORITHM.rms_error(problem) + own


@given(
    operands(
        problems().filter(lambda p: p.dtype == "f32"), fill=normals, activations=(None, "relu", "silu", "hardswish")
    )
)
@settings(max_examples=25)
def test_any_problem_is_done(given_):
    exact = given_.oracle(accumulate="f64")
    y = run(given_)
    # sums that cancel leave less than what was transformed
    scale = np.sqrt(given_.problem.taps * given_.problem.c_in / given_.problem.groups)
    assert np.abs(y - exact).max(initial=0) <= 60 * np.finfo(y.dtype).eps * (scale + np.abs(exact).max(initial=0))


@pytest.mark.parametrize("text", ("n2c16h70w70o24k13p6", "c8w5000o8k301p150", "n2c12h60w64o12k21p10g12"))
def test_pytorch_agrees(text):
    torch = pytest.importorskip("torch")
    problem = ConvProblem.parse(text)
    given_ = make_operands(problem, normals)
    arrays = (torch.from_numpy(array).double() for array in (given_.x, given_.weight))
    function = (torch.nn.functional.conv1d, torch.nn.functional.conv2d)[len(problem.spatial) - 1]
    padding = tuple(before for before, _ in problem.padding)
    judged = function(*arrays, padding=padding, groups=problem.groups).numpy()
    assert error(run(given_), judged) <= ALGORITHM.rms_error(problem) <= DEFAULT.rms


@pytest.mark.parametrize("limit", (1, 1 << 20))
def test_bits_depend_neither_on_threads_nor_on_passes_nor_on_the_place_in_the_batch(limit, monkeypatch):
    given_ = make_operands(ConvProblem.parse("n5c6h50w44o9k7p3cl"), normals)
    monkeypatch.setattr(fft, "_lengths", lambda problem, on: (32, 30))
    expected = run(given_)
    monkeypatch.setattr(fft, "WORKSPACE_LIMIT", limit)
    np.testing.assert_array_equal(run(given_, threads=2), expected)
    alone = Operands(ConvProblem.parse("c6h50w44o9k7p3cl"), given_.x[3:4], given_.weight)
    np.testing.assert_array_equal(run(alone)[0], expected[3])


def test_blocks_and_their_memory_are_those_that_explain_tells(monkeypatch):
    problem = ConvProblem.parse("c3h300w280o4k9p4")
    on = machine()
    cost = ALGORITHM.estimate(problem, on)
    assert 0 < cost.staging_bytes <= fft.WORKSPACE_LIMIT
    taken = []
    original = fft.FftPlan._read

    def read(plan, x, numbers):
        blocks = original(plan, x, numbers)
        taken.append(blocks.nbytes)
        return blocks

    monkeypatch.setattr(fft.FftPlan, "_read", read)
    run(make_operands(problem, normals))
    assert taken and max(taken) <= cost.staging_bytes / 2


def test_a_layer_transforms_its_kernel_once_for_all_shapes(monkeypatch):
    made = []
    original = fft._Spectra.of
    monkeypatch.setattr(fft._Spectra, "of", lambda *arguments: made.append(1) or original(*arguments))
    layer = nc.Conv2d(np.ones((4, 3, 9, 9), np.float32), algorithm=NAME, accuracy=1e-4)
    monkeypatch.setattr(fft, "_lengths", lambda problem, on: (32, 32))
    for size in (40, 50, 40, 60):
        assert np.allclose(layer(np.ones((1, 3, size, size), np.float32)), 243, rtol=1e-5)
    assert len(made) == 1


def test_it_is_chosen_for_large_kernels_and_never_where_results_are_to_be_strict():
    large = "c32h128w128o32k63p31"
    assert nc.explain(large, accuracy=1e-5).rows[0].algorithm == NAME
    assert nc.explain("c32h128w128o32k3p1", accuracy=1e-5).rows[0].algorithm != NAME
    row = next(row for row in nc.explain(large, accuracy="strict").rows if row.algorithm == NAME)
    assert not STRICT.rms and "spreads NaN" in row.reason
    with pytest.raises(nc.UnsupportedError, match="spreads NaN"):
        nc.conv2d(np.ones((1, 1, 9, 9)), np.ones((1, 1, 3, 3)), algorithm=NAME, accuracy="strict")
    with pytest.raises(nc.UnsupportedError, match="gelu"):
        nc.conv2d(np.ones((1, 1, 9, 9)), np.ones((1, 1, 3, 3)), algorithm=NAME, activation="gelu", accuracy=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ("reflect", "replicate", "circular"))
def test_other_paddings_are_copied_around_the_input(layout, mode, monkeypatch, rng):
    # several passes read the first rows of the copy
    monkeypatch.setattr(fft, "WORKSPACE_LIMIT", 1)
    monkeypatch.setattr(fft, "_lengths", lambda problem, on: (16, 16))
    shape = (2, 4, 40, 44) if layout == "channels_first" else (2, 40, 44, 4)
    x, weight = normals(rng, shape, np.float32), normals(rng, (6, 4, 9, 9), np.float32)
    options = {"padding": 4, "padding_mode": mode, "layout": layout}
    expected = nc.conv2d(x, weight, **options, accuracy="strict")
    layer = nc.Conv2d(weight, **options, algorithm=NAME, accuracy=1e-4)
    out = np.empty_like(expected)
    for _ in range(2):  # the second call runs on addresses
        assert error(layer(x, out=out), expected) <= 1e-6


def test_volumes_are_done(rng):
    x, weight = normals(rng, (1, 3, 12, 14, 20), np.float32), normals(rng, (5, 3, 4, 3, 6), np.float32)
    options = {"padding": (1, 2, 3), "stride": (1, 2, 1)}
    y = nc.conv3d(x, weight, **options, algorithm=NAME, accuracy=1e-4)
    assert error(y, nc.conv3d(x, weight, **options, accuracy="strict")) <= 1e-6


def test_networks_hold_compiled_loops_only():
    problem = ConvProblem.parse("c32h128w128o32k63p31cl")
    epilogue = make_operands(ConvProblem.parse("c1h1w1o1k1"), normals).epilogue
    assert best_compiled(problem, epilogue, machine(), DEFAULT).algorithm.name != NAME
    assert choose(problem, epilogue, accuracy=DEFAULT).name == NAME


def test_pixels_may_lie_apart(rng):
    problem = ConvProblem.parse("c5h20w22o6k5p2cl")
    given_ = make_operands(problem, normals)
    wide = normals(rng, (1, 20, 22, 9), np.float32)
    wide[..., 2:7] = given_.x
    apart = Operands(problem, wide[..., 2:7], given_.weight)
    np.testing.assert_array_equal(run(apart), run(given_))


def test_spectra_beyond_any_memory_are_refused_and_those_kept_are_counted():
    """Spectra of kernels as large as a whole image, for each pair of channels."""
    with pytest.raises(nc.UnsupportedError, match="spectra of its kernels would take .* MiB, more than 1024"):
        nc.Conv2d(np.zeros((256, 2048, 3, 3), "f4"), dilation=18, padding=18, algorithm="fft", accuracy=1e-5).plan(
            (1, 2048, 33, 33)
        )
    for text in ("c3h20w21o5k7", "c6h20w21o6k7g6", "n2c8h20w9o12k5g4f64"):
        given_ = make_operands(ConvProblem.parse(text), normals)
        weights = Weights(given_.weight, given_.bias, given_.problem.groups)
        plan = make_plan(given_.problem, given_.epilogue, weights, NAME, DEFAULT)
        assert plan.plan_bytes == weights.form(plan._pack).nbytes
