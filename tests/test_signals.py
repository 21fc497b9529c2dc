"""Convolution of signals, images and volumes: its algebra, SciPy's results, and what is refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from strategies import normals, whole_numbers

import numbaconv as nc
from numbaconv.loops import shares
from numbaconv.machine import Rates, machine
from numbaconv.signals import direct, spectral
from numbaconv.signals.operands import METHODS, MODES, pair

F32, F64, C64, C128 = np.float32, np.float64, np.complex64, np.complex128
#: Sizes on both sides of a vector and of a panel, of one block and of several, and kernels larger than the signal.
SIZES = (
    ((1,), (1,)), ((5,), (3,)), ((3,), (50,)), ((700,), (33,)), ((2500,), (600,)), ((7, 9), (3, 4)), ((33, 41), (5, 2)),
    ((20, 31), (1, 6)), ((20, 31), (7, 1)), ((3, 4), (7, 9)), ((4, 5, 6), (3, 2, 4)),
)  # fmt: skip
every_method = pytest.mark.parametrize("method", METHODS)
every_mode = pytest.mark.parametrize("mode", MODES)


def numbers(rng, shape, dtype, fill=whole_numbers):
    """Random numbers of a real or complex type."""
    if np.dtype(dtype).kind != "c":
        return fill(rng, shape, dtype)
    part = np.zeros((), dtype).real.dtype
    return (fill(rng, shape, part) + 1j * fill(rng, shape, part)).astype(dtype)


_AXES = st.integers(1, 3)


@st.composite
def operands(draw, axes=_AXES, count=2, dtypes=(F32, F64, C64, C128)):
    """Arrays of whole numbers with equally many axes, of one type."""
    ndim, dtype = draw(axes), draw(st.sampled_from(dtypes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    most = {1: 90, 2: 20, 3: 7}[ndim]
    return [numbers(rng, [draw(st.integers(1, most)) for _ in range(ndim)], dtype) for _ in range(count)]


def same(y, expected):
    np.testing.assert_array_equal(y, expected, strict=True)


def close(y, expected, units=50.0):
    """Equal up to so many units of rounding of the largest element."""
    assert y.shape == expected.shape and y.dtype == expected.dtype
    eps = np.finfo(y.dtype).eps
    assert np.abs(y - expected).max() <= units * eps * max(np.abs(expected).max(), eps)


# --- algebra --------------------------------------------------------------------------------------------------------


@given(operands())
@settings(max_examples=25)
def test_convolution_commutes(given_):
    f, g = given_
    same(nc.convolve(f, g, method="direct"), nc.convolve(g, f, method="direct"))


@given(operands(axes=st.integers(1, 2), count=3, dtypes=(F64, C128)))
@settings(max_examples=25)
def test_convolution_is_associative(given_):
    f, g, h = given_
    same(nc.convolve(nc.convolve(f, g), h, method="direct"), nc.convolve(f, nc.convolve(g, h), method="direct"))


@given(operands(), st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_convolution_distributes_over_sums_and_scalars_move_out(given_, seed):
    f, g = given_
    h = numbers(np.random.default_rng(seed), g.shape, g.dtype)
    a, b = g.dtype.type(3), g.dtype.type(-2)
    summed = a * nc.convolve(f, g, method="direct") + b * nc.convolve(f, h, method="direct")
    same(nc.convolve(f, a * g + b * h, method="direct"), summed)


@given(operands(count=1), st.data())
@settings(max_examples=25)
def test_a_delta_shifts_and_is_the_identity_at_zero(given_, data):
    (f,) = given_
    shape = tuple(data.draw(st.integers(1, 9)) for _ in f.shape)
    at = tuple(data.draw(st.integers(0, size - 1)) for size in shape)
    delta = np.zeros(shape, f.dtype)
    delta[at] = 1
    y = nc.convolve(f, delta, method="direct")
    inside = tuple(slice(first, first + size) for first, size in zip(at, f.shape))
    same(y[inside], f)
    assert np.count_nonzero(y) == np.count_nonzero(f)
    same(nc.convolve(f, np.ones((1,) * f.ndim, f.dtype), method="direct"), f)


@given(operands())
@settings(max_examples=25)
def test_the_spectrum_of_a_convolution_is_the_product_of_the_spectra(given_):
    f, g = given_
    y = nc.convolve(f, g)
    product = np.prod([np.fft.fftn(a, y.shape, range(a.ndim)) for a in (f, g)], axis=0)
    spectrum = np.fft.fftn(y)
    assert np.abs(spectrum - product).max() <= 1e-4 * max(np.abs(product).max(), 1)


@given(operands(dtypes=(F32, F64)), st.data())
@settings(max_examples=25)
def test_convolution_commutes_with_shifts(given_, data):
    f, g = given_
    margins = [(data.draw(st.integers(0, 9)), data.draw(st.integers(0, 9))) for _ in f.shape]
    same(nc.convolve(np.pad(f, margins), g, method="direct"), np.pad(nc.convolve(f, g, method="direct"), margins))


@given(operands())
@settings(max_examples=25)
def test_correlation_is_convolution_with_the_kernel_flipped_and_conjugated(given_):
    f, g = given_
    flipped = g[(slice(None, None, -1),) * g.ndim].conj()
    same(nc.correlate(f, g, method="direct"), nc.convolve(f, flipped, method="direct"))


# --- SciPy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtypes", ((F32, F32), (F64, F64), (C64, C64), (C128, F64), (F32, C64), (F32, F64)), ids=str)
@every_mode
def test_results_are_scipys(dtypes, mode, rng):
    for shapes in SIZES:
        f, g = (numbers(rng, shape, dtype) for shape, dtype in zip(shapes, dtypes))
        try:
            judged = signal.convolve(f, g, mode, "direct"), signal.correlate(f, g, mode, "direct")
        except ValueError:  # shapes of which neither holds the other
            continue
        same(nc.convolve(f, g, mode, "direct"), judged[0])
        same(nc.correlate(f, g, mode, "direct"), judged[1])
        for method in ("fft", "auto"):
            close(nc.convolve(f, g, mode, method), judged[0])
            close(nc.correlate(f, g, mode, method), judged[1])


@every_mode
@pytest.mark.parametrize("dtype", (np.uint8, np.int8, np.int32, np.uint64, np.bool_, np.float16))
@every_method
def test_other_types_are_scipys(mode, dtype, method, rng):
    f, g = rng.integers(0, 3, (9, 12)).astype(dtype), rng.integers(0, 3, (4, 5)).astype(dtype)
    # SciPy's loop over images refuses these two
    judge = F32 if dtype in (np.float16, np.bool_) else dtype
    judged = signal.convolve(f.astype(judge), g.astype(judge), mode, "direct").astype(dtype)
    (close if dtype is np.float16 else same)(nc.convolve(f, g, mode, method), judged)


def test_integers_wrap_around_as_numpys_do():
    f = np.full(40, 100, np.int8)
    same(nc.convolve(f, f), np.convolve(f, f))


@every_mode
@pytest.mark.parametrize("boundary, fillvalue", (("fill", 0), ("fill", 2.5), ("wrap", 0), ("symm", 0)))
@pytest.mark.parametrize("kernel", ((3, 5), (4, 6), (30, 2)))
def test_boundaries_are_those_of_convolve2d(mode, boundary, fillvalue, kernel, rng):
    if mode == "valid" and kernel[0] > 12:
        kernel = kernel[0], 20  # one must hold the other
    f, g = whole_numbers(rng, (12, 9), F64), whole_numbers(rng, kernel, F64)
    judged = signal.convolve2d(f, g, mode, boundary, fillvalue)
    same(nc.convolve(f, g, mode, "direct", boundary=boundary, fillvalue=fillvalue), judged)
    close(nc.convolve(f, g, mode, "fft", boundary=boundary, fillvalue=fillvalue), judged)
    # under a kernel of one row, each row is a signal
    rows = signal.convolve2d(f, g[:1], "same", boundary, fillvalue)
    same(nc.convolve(f[0], g[0], "same", "direct", boundary=boundary, fillvalue=fillvalue), rows[0])


@pytest.mark.parametrize("function", ("fftconvolve", "oaconvolve"))
@every_mode
@pytest.mark.parametrize("shapes, axes", (
    (((40, 50), (7, 8)), None), (((3, 200, 4), (1, 30, 4)), 1), (((5, 9, 70), (5, 4, 3)), (-1, 1)),
    (((2, 3, 4, 5), (2, 2, 3, 2)), None), (((40, 2, 3), (7, 1, 3)), 0),
))  # fmt: skip
def test_spectral_functions_are_scipys(function, mode, shapes, axes, rng):
    f, g = (normals(rng, shape, F64) for shape in shapes)
    ours = {"fftconvolve": nc.fft_convolve, "oaconvolve": nc.oaconvolve}[function]
    close(ours(f, g, mode, axes), getattr(signal, function)(f, g, mode, axes), 500)


@pytest.mark.parametrize("dtype", (F32, F64, C64))
@pytest.mark.parametrize("shape, axis", (((50,), -1), ((3, 700), 1), ((40, 3, 2), 0)))
@pytest.mark.parametrize("k", (1, 5, 90))
def test_fir_filters_are_those_of_lfilter(dtype, shape, axis, k, rng):
    x, taps = numbers(rng, shape, dtype), numbers(rng, (k,), dtype)
    judged = signal.lfilter(taps.astype(C128), 1, x.astype(C128), axis)
    close(nc.fir_filter(x, taps, axis), (judged if np.dtype(dtype).kind == "c" else judged.real).astype(dtype))


def test_a_filter_is_causal(rng):
    x, taps = normals(rng, (300,), F32), normals(rng, (40,), F32)
    changed = x.copy()
    changed[200:] += 1
    same(nc.fir_filter(changed, taps)[:200], nc.fir_filter(x, taps)[:200])


# --- how it is done -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, kernel", (((1 << 18,), (9,)), ((300, 310), (31, 29)), ((300, 310), (1, 60)), ((9, 40, 50), (3, 5, 4)))
)
def test_direct_sums_are_exact_and_their_bits_do_not_depend_on_threads(shape, kernel, rng):
    f, g = whole_numbers(rng, shape, F32), whole_numbers(rng, kernel, F32)
    same(nc.convolve(f, g, method="direct"), np.rint(signal.fftconvolve(f.astype(F64), g.astype(F64))).astype(F32))
    f, g = normals(rng, shape, F32), normals(rng, kernel, F32)
    results = []
    for threads in (1, 2):
        with nc.num_threads(threads):
            results.append([nc.convolve(f, g, method=method).tobytes() for method in ("direct", "fft")])
    assert results[0] == results[1]


def test_short_work_wakes_no_second_thread(monkeypatch, rng):
    entered = []
    monkeypatch.setattr(shares, "run_parallel", lambda *arguments: entered.append(arguments))
    small, large = ((normals(rng, (size, size), F32), normals(rng, (5, 5), F32)) for size in (200, 1000))
    with nc.num_threads(2):
        nc.convolve(*small, method="direct")
        assert not entered
        nc.convolve(*large, method="direct")
        assert entered


def test_kernels_take_turns_in_the_plans_of_one_shape(rng):
    f = whole_numbers(rng, (20, 30), F32)
    for _ in range(3):
        g = whole_numbers(rng, (3, 4), F32)
        same(nc.convolve(f, g), signal.convolve(f, g, method="direct"))
        line = whole_numbers(rng, (3000,), F32)
        same(nc.convolve(line, g.ravel(), method="direct"), np.convolve(line, g.ravel()))


def test_a_kernel_of_rank_one_is_a_row_and_a_column(rng):
    f = whole_numbers(rng, (400, 500), F32)
    column, row = whole_numbers(rng, (31,), F32), whole_numbers(rng, (27,), F32)
    column[7] = row[3] = 4
    separable = np.outer(column, row)
    shape = tuple(a + b - 1 for a, b in zip(f.shape, separable.shape))
    assert len(direct._ways(1, f.shape, separable, (0, 0), shape)) == 2
    other = separable.copy()
    other[0, 0] += 1
    assert len(direct._ways(1, f.shape, other, (0, 0), shape)) == 1
    for kernel in (separable, other):
        same(nc.convolve(f, kernel, method="direct"), np.rint(signal.fftconvolve(f.astype(F64), kernel)).astype(F32))
    assert direct.seconds(f[None], separable, (0, 0), shape) < direct.seconds(f[None], other, (0, 0), shape) / 2


#: Blocks of one signal, and rows of an image.
SHARED_SHAPES = ((1 << 17,), (600,)), ((1500, 700), (40, 41))


@given(st.data())
@settings(max_examples=20)
def test_blocks_join_without_a_seam(data):
    kernel = data.draw(st.integers(1, 40))
    size = data.draw(st.integers(kernel, 3000))
    rng = np.random.default_rng(size)
    f, g = normals(rng, (size,), F64), normals(rng, (kernel,), F64)
    length = 2 * data.draw(st.integers((kernel + 1) // 2, 80))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spectral, "_lengths", lambda *arguments: (length,))
        patched.setattr(spectral, "_SHARED", 0)
        for mode, threads in product(MODES, (1, 2)):
            with nc.num_threads(threads):
                close(nc.convolve(f, g, mode, "fft"), signal.convolve(f, g, mode, "direct"), 500)


def test_threads_share_blocks_and_rows(monkeypatch, rng):
    """And what goes wrong in one of them reaches the caller."""
    used = set()
    forward = spectral.fourier.forward
    cases = [(normals(rng, shape, F32), normals(rng, kernel, F32)) for shape, kernel in SHARED_SHAPES]
    expected = [nc.convolve(f, g, method="fft") for f, g in cases]
    monkeypatch.setattr(spectral, "_SHARED", 0)
    monkeypatch.setattr(
        spectral.fourier, "forward", lambda *arguments: (used.add(threading.get_ident()), forward(*arguments))[1]
    )
    with nc.num_threads(2):
        for (f, g), y in zip(cases, expected):
            used.clear()
            same(nc.convolve(f, g, method="fft"), y)
            assert used - {threading.get_ident()}
        monkeypatch.setattr(spectral, "_windows", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            nc.convolve(*cases[0], method="fft")


def test_the_method_follows_the_estimates(rng):
    signal_, short, long = np.ones(1 << 18, F32), np.ones(16, F32), np.ones(1 << 16, F32)
    assert nc.choose_method(signal_, short) == "direct"
    assert nc.choose_method(signal_, long) == "fft"
    assert nc.choose_method(signal_.astype(np.int16), short) == "direct"
    assert nc.choose_method(np.ones((2, 2, 2, 2)), np.ones((2, 2, 2, 2))) == "fft"
    method, seconds = nc.choose_method(np.ones(1000), np.ones(100), measure=True)
    assert set(seconds) == set(METHODS[1:]) and method == min(seconds, key=seconds.get)


def test_transforms_are_numpys_where_scipy_is_missing(python):
    done = python(
        """
        import sys
        sys.modules["scipy.fft"] = None
        import numpy as np
        import numbaconv as nc
        x, h = np.arange(3000, dtype=np.float32) % 7, np.arange(200, dtype=np.float32) % 5
        y = nc.convolve(x, h, method="fft")
        assert y.dtype == np.float32 and np.array_equal(np.rint(y), np.convolve(x, h)), y
        z = nc.convolve(x.reshape(50, 60), h.reshape(10, 20) * 1j, method="fft")
        assert z.dtype == np.complex64, z.dtype
        """
    )
    assert done.stdout == ""


# --- bad input ------------------------------------------------------------------------------------------------------

ONE, TWO = np.ones(5, F32), np.ones((4, 5), F32)


@pytest.mark.parametrize(
    "arguments, options, error, message",
    [
        ((ONE, np.ones(0, F32)), {}, nc.ShapeError, r"in2 has shape \(0,\)"),
        ((np.ones((3, 0)), TWO), {}, nc.ShapeError, r"in1 has shape \(3, 0\)"),
        ((3.0, ONE), {}, nc.ShapeError, r"in1 has shape \(\)"),
        ((TWO, ONE), {}, nc.ShapeError, r"in1 has shape \(4, 5\), in2 has shape \(5,\)"),
        ((TWO, ONE), {"boundary": "wrap"}, nc.ShapeError, r"in1 has shape \(4, 5\), in2 has shape \(5,\)"),
        ((TWO, np.ones((5, 4))), {"mode": "valid"}, nc.ShapeError, r"\(4, 5\).*\(5, 4\).*'valid'"),
        ((ONE, ONE), {"mode": "circular"}, nc.ConvError, r"mode='circular'.*'full'"),
        ((ONE, ONE), {"mode": 3}, nc.ConvError, r"mode=3"),
        ((ONE, ONE), {"method": "winograd"}, nc.ConvError, r"method='winograd'.*'direct'"),
        ((ONE, ONE), {"boundary": "reflect"}, nc.ConvError, r"boundary='reflect'.*'symm'"),
        ((ONE, ONE), {"boundary": "wrap", "fillvalue": 1}, nc.ConvError, r"fillvalue=1 with boundary='wrap'"),
        ((ONE, ONE), {"fillvalue": "1"}, nc.ConvError, r"fillvalue='1' is a str"),
        ((ONE, ONE), {"fillvalue": 1j}, nc.DTypeError, r"fillvalue=1j is complex, but in1 has dtype float32"),
        ((ONE, np.array(["a"])), {}, nc.DTypeError, r"in2 has dtype <U1"),
        ((ONE.astype(object), ONE), {}, nc.DTypeError, r"in1 has dtype object"),
        ((ONE.astype(np.longdouble), ONE), {}, nc.DTypeError, r"in1 has dtype float128"),
        ((np.full(5, 2**40), np.full(5, 2**40)), {}, nc.DTypeError, r"2\*\*53"),
        ((np.ones((2,) * 4), np.ones((2,) * 4)), {"method": "direct"}, nc.UnsupportedError, r"'direct' with 4 axes"),
    ],
)  # fmt: skip
def test_what_no_convolution_can_mean_is_refused(arguments, options, error, message):
    for function in (nc.convolve, nc.correlate):
        with pytest.raises(error, match=message):
            function(*arguments, **options)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: nc.fft_convolve(TWO, TWO, axes=2), r"axes=2 of an array of 2 axes"),
        (lambda: nc.fft_convolve(TWO, TWO, axes=(0, -2)), r"axes=\(0, -2\)"),
        (lambda: nc.oaconvolve(TWO, TWO, axes=()), r"axes=\(\)"),
        (lambda: nc.oaconvolve(TWO, TWO, axes="rows"), r"axes='rows'"),
        (lambda: nc.oaconvolve(TWO, np.ones((3, 5)), axes=1), r"along axis 0"),
        (lambda: nc.oaconvolve(TWO, ONE, axes=0), r"same number of axes"),
        (lambda: nc.fir_filter(TWO, TWO), r"taps has shape \(4, 5\)"),
        (lambda: nc.fir_filter(TWO, ONE, axis=2), r"axes=2"),
        (lambda: nc.fir_filter(np.ones((0, 3)), ONE), r"x has shape \(0, 3\)"),
    ],
)
def test_shapes_that_contradict_each_other_are_refused(call, message):
    with pytest.raises(nc.ShapeError, match=message):
        call()


def test_operands_are_not_written_to(rng):
    f, g = normals(rng, (60, 70), F32), normals(rng, (9, 8), F32)
    f.flags.writeable = g.flags.writeable = False
    before = f.copy(), g.copy()
    for method in METHODS:
        nc.convolve(f, g, method=method, boundary="wrap")
    same(f, before[0])
    same(g, before[1])


def test_strided_and_swapped_operands_are_taken(rng):
    f, g = whole_numbers(rng, (40, 60), F32), whole_numbers(rng, (6, 9), F32)
    expected = signal.convolve(f[::2, ::-3], g.T, method="direct")
    for method in METHODS:
        close(nc.convolve(f[::2, ::-3].astype(">f4"), g.T, method=method), expected)


@pytest.mark.parametrize("value", (np.nan, np.inf))
def test_direct_sums_keep_what_is_not_finite_in_its_place(value, rng):
    f, g = whole_numbers(rng, (30, 40), F32), np.ones((5, 7), F32)
    f[11, 13] = value
    y = nc.convolve(f, g, method="direct")
    place = np.zeros(y.shape, bool)
    place[11:16, 13:20] = True
    same(~np.isfinite(y), place)


@pytest.mark.parametrize("size, k, at", ((300, 20, 133), (300, 20, 0), (9000, 37, 4031), (2**18, 5, 2**17 + 5)))
def test_a_signals_direct_sums_keep_nan_in_its_place(size, k, at, rng):
    f = whole_numbers(rng, (size,), F32)
    f[at] = np.nan
    y = nc.convolve(f, whole_numbers(rng, (k,), F32), method="direct")
    same(np.flatnonzero(np.isnan(y)), np.arange(at, at + k))


def test_pairs_hold_only_what_results_depend_on():
    given_ = pair(np.ones((1, 100)), np.ones((1, 3)), "same")
    assert given_.x.shape == (1, 100) and given_.start == (1,)
    assert pair(np.ones((1, 3)), np.ones((1, 100)), "same").x.shape[1] < 100


def test_a_single_block_is_left_where_threads_could_share_several():
    # as if transforms beyond the L2 were as fast as inside
    on = replace(machine(), l2=1 << 20, rates=Rates(fourier_far=0.0))
    chosen = {n: spectral._lengths((n + 62,) * 2, (63, 63), (n + 62,) * 2, 4, on) for n in (250, 720)}
    assert chosen == {250: (320, 320), 720: (512, 800)}
