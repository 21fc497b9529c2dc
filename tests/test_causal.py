"""Causal convolution: no output sees the future, and a signal in chunks gives the bits of the whole one, however it is cut."""

from __future__ import annotations

import pickle
import runpy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import bits, normals, whole_numbers

import numbaconv as nc
from numbaconv import causal

EXAMPLE = Path(__file__).resolve().parent.parent / "docs" / "examples" / "wavenet_generate.py"
LAYOUTS = ("channels_first", "channels_last")


def by_definition(x, weight, bias, stride, dilation, groups):
    """The sums of the definition for (n, c, length), one tap after the other."""
    n, c_in, length = x.shape
    c_out, per_group, k = weight.shape
    before = dilation * (k - 1)
    padded = np.concatenate([np.zeros((n, c_in, before), x.dtype), x], axis=2)
    y = np.zeros((n, groups, c_out // groups, -(-length // stride)), x.dtype)
    for tap in range(k):
        seen = padded[:, :, tap * dilation : tap * dilation + length : stride].reshape(n, groups, per_group, -1)
        y += np.einsum("ngcl,goc->ngol", seen, weight[..., tap].reshape(groups, -1, per_group))
    y = y.reshape(n, c_out, -1)
    return y if bias is None else y + bias[:, None]


@st.composite
def cases(draw):
    """(weight shape, stride, dilation, groups, layout, dtype) of layers of all kinds: dense, grouped, depthwise, 1x1."""
    groups = draw(st.sampled_from((1, 1, 2, 5)))
    c_in, c_out = draw(st.integers(1, 40 // groups)), draw(st.integers(1, 40 // groups))
    if draw(st.booleans()):
        groups, c_in, c_out = draw(st.integers(2, 40)), 1, draw(st.sampled_from((1, 1, 2)))
    weight = (c_out * groups, c_in, draw(st.integers(1, 9)))
    stride, dilation = draw(st.sampled_from((1, 1, 1, 2, 3, 7))), draw(st.integers(1, 9))
    return weight, stride, dilation, groups, draw(st.sampled_from(LAYOUTS)), draw(st.sampled_from(("f4", "f8")))


def make(case, fill, seed=0, n=2, length=60, activation=None):
    """A layer, and a signal in its layout."""
    shape, stride, dilation, groups, layout, dtype = case
    rng = np.random.default_rng(seed)
    weight, bias = fill(rng, shape, dtype), fill(rng, shape[:1], dtype)
    layer = nc.CausalConv1d(weight, bias, stride, dilation, groups, layout=layout, activation=activation)
    x = fill(rng, (n, shape[1] * groups, length), dtype)
    return layer, x if layout == "channels_first" else np.ascontiguousarray(x.swapaxes(1, 2))


def in_chunks(state, x, lengths, axis):
    """All results of a signal cut into chunks of these lengths, one after the other, and the rest."""
    ends = np.minimum(np.cumsum(lengths), x.shape[axis])
    return np.concatenate([state(chunk) for chunk in np.split(x, ends, axis)], axis)


@given(cases(), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_whole_numbers_are_exact(case, seed):
    (_, stride, dilation, groups, layout, _) = case
    layer, x = make(case, whole_numbers, seed)
    weight, bias = layer._weights.unpacked()
    y, first = layer(x), x if layout == "channels_first" else x.swapaxes(1, 2)
    judged = by_definition(first, weight, bias, stride, dilation, groups)
    np.testing.assert_array_equal(y if layout == "channels_first" else y.swapaxes(1, 2), judged)


@given(cases(), st.lists(st.integers(0, 20), max_size=12), st.sampled_from((None, "tanh")), st.integers(0, 99))
@settings(max_examples=60)
def test_chunks_of_any_size_give_the_bits_of_the_whole_signal(case, lengths, activation, seed):
    layer, x = make(case, normals, seed, activation=activation)
    axis = 2 if layer.layout == "channels_first" else 1
    state = layer.stream()
    assert bits(in_chunks(state, x, lengths, axis)) == bits(layer(x))
    assert state.position == x.shape[axis]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(24, 12, 3), (20, 1, 5), (8, 20, 1)])
def test_sample_by_sample_without_a_batch(layout, shape):
    layer, x = make((shape, 1, 4, 20 if shape[1] == 1 else 1, layout, "f4"), normals, n=1)
    axis = 2 if layout == "channels_first" else 1
    state, whole = layer.stream(), layer(x)
    samples = [state(x[0].take([i], axis - 1)) for i in range(x.shape[axis])]
    assert bits(np.concatenate(samples, axis - 1)) == bits(whole[0])


def test_long_chunks_are_taken_in_pieces_and_old_samples_make_room(monkeypatch):
    monkeypatch.setattr(causal, "_ROOM", 16)
    layer, x = make(((7, 5, 4), 3, 6, 1, "channels_last", "f4"), normals, length=500)
    state = layer.stream()
    assert bits(in_chunks(state, x, [3, 200, 0, 1, 17], 1)) == bits(layer(x))
    assert state._buffer.shape[1] == 2 * 18 + 16


@given(cases(), st.integers(1, 59), st.integers(0, 99))
@settings(max_examples=40)
def test_changing_the_future_changes_no_past_output(case, now, seed):
    layer, x = make(case, normals, seed)
    axis = 2 if layer.layout == "channels_first" else 1
    changed = x.copy()
    np.moveaxis(changed, axis, 0)[now:] = np.nan
    past = -(-now // layer.stride)
    before, after = (np.ascontiguousarray(np.moveaxis(layer(a), axis, 0)[:past]) for a in (x, changed))
    assert bits(before) == bits(after)


def test_the_algorithm_does_not_depend_on_the_length(rng):
    """Indirect tables would be too large for a long signal, and another algorithm may round otherwise."""
    layer = nc.CausalConv1d(normals(rng, (64, 64, 3), "f4"), dilation=4, layout="channels_last")
    assert len({layer.plan((1, length, 64)).algorithm for length in (1, 100, 4096, 4_000_000)}) == 1


def test_states_are_copied_and_reset(rng):
    layer, x = make(((6, 4, 3), 2, 2, 1, "channels_first", "f4"), normals, n=1)
    state = layer.stream()
    state(x[..., :7])
    twin = state.copy()
    expected = state(x[..., 7:])
    twin(np.zeros_like(x[..., :3]))
    again = layer.stream()
    again(x[..., :7])
    other = again.copy()
    assert bits(again(x[..., 7:])) == bits(expected) == bits(other(x[..., 7:]))
    again.reset()
    assert again.position == 0 and bits(again(x[0])) == bits(layer(x[0]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_go_into_out(layout, rng):
    layer, x = make(((6, 4, 3), 1, 2, 1, layout, "f4"), normals, n=2, length=12)
    expected = layer(x)
    for out in (np.zeros_like(expected), np.zeros_like(np.repeat(expected, 2, -1))[..., ::2]):
        assert layer.stream()(x, out=out) is out
        np.testing.assert_array_equal(out, expected)
    assert bits(pickle.loads(pickle.dumps(layer))(x)) == bits(expected)


def test_zero_length_chunks_give_nothing_and_change_nothing():
    layer, x = make(((6, 4, 3), 2, 2, 1, "channels_last", "f4"), normals)
    state = layer.stream()
    for _ in range(2):
        assert state(x[:, :0]).shape == (2, 0, 6)
    assert bits(state(x)) == bits(layer(x))
    assert state(x[:, :0]).shape == (2, 0, 6)


def test_minus_zero_as_a_bias_is_zero():
    """Where all taps of a tile but one lie before the signal they are left out, but not in the samples that a stream keeps."""
    layer = nc.CausalConv1d(np.ones((1, 1, 3), "f4"), np.array([-0.0], "f4"), dilation=20)
    x = np.full((1, 30), -0.0, "f4")
    state = layer.stream()
    assert bits(np.concatenate([state(x[:, :5]), state(x[:, 5:])], 1)) == bits(layer(x))


WEIGHT = np.ones((6, 4, 3), "f4")


@pytest.mark.parametrize(
    ("chunk", "error", "message"),
    [
        (np.ones((2, 5, 9), "f4"), nc.ShapeError, r"chunk has shape \(2, 5, 9\) and 5 channels; the layer takes 4"),
        (np.ones((5, 9), "f4"), nc.ShapeError, r"chunk has shape \(5, 9\) and 5 channels"),
        (np.ones((2, 5, 0), "f4"), nc.ShapeError, r"5 channels"),
        (np.ones(9, "f4"), nc.ShapeError, r"chunk has shape \(9,\); it must have 3 axes"),
        (
            np.ones((3, 4, 9), "f4"),
            nc.ShapeError,
            r"chunk has shape \(3, 4, 9\), but the chunks before had a batch of 2",
        ),
        (np.ones((4, 9), "f4"), nc.ShapeError, r"but the chunks before had a batch of 2"),
        (np.ones((2, 4, 9), "f8"), nc.DTypeError, r"chunk has dtype float64"),
    ],
)
def test_chunks_that_do_not_fit_are_refused_and_leave_the_state_as_it_was(chunk, error, message):
    layer = nc.CausalConv1d(WEIGHT)
    x = np.arange(2 * 4 * 9, dtype="f4").reshape(2, 4, 9)
    state = layer.stream()
    begun = state(x[..., :5])
    with pytest.raises(error, match=message):
        state(chunk)
    assert bits(np.concatenate([begun, state(x[..., 5:])], 2)) == bits(layer(x))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weight": WEIGHT[0]}, nc.ShapeError, r"weight has shape \(4, 3\)"),
        ({"weight": WEIGHT[:0]}, nc.ShapeError, r"no axis may be empty"),
        ({"bias": np.ones(5, "f4")}, nc.ShapeError, r"bias has shape \(5,\)"),
        ({"stride": 0}, nc.ShapeError, r"stride=0"),
        ({"dilation": 0}, nc.ShapeError, r"dilation=0"),
        ({"groups": 4}, nc.ShapeError, r"groups=4 does not divide c_out=6"),
        ({"groups": 0}, nc.ShapeError, r"groups=0"),
        ({"layout": "NCL"}, nc.ShapeError, r"layout='NCL'"),
        ({"activation": "swash"}, nc.ConvError, r"activation='swash'"),
    ],
)
def test_layers_that_no_signal_fits_are_refused(change, error, message):
    with pytest.raises(error, match=message):
        nc.CausalConv1d(**({"weight": WEIGHT} | change))


def test_signals_that_do_not_fit_are_refused():
    layer = nc.CausalConv1d(WEIGHT)
    for x, error, message in (
        (np.ones((2, 5, 9), "f4"), nc.ShapeError, "5 channels"),
        (np.ones((2, 4, 0), "f4"), nc.ShapeError, "spatial=0"),
        (np.ones((2, 4, 9)), nc.DTypeError, "x has dtype float64"),
    ):
        with pytest.raises(error, match=message):
            layer(x)
    with pytest.raises(nc.UnsupportedError, match="residual"):
        layer(np.ones((2, 4, 9), "f4"), residual=np.ones((2, 6, 9), "f4"))


def test_a_dilated_stack_generates_sample_by_sample_what_it_gives_for_the_whole_signal(capsys):
    example = runpy.run_path(str(EXAMPLE))
    network = example["WaveNet"](channels=8, dilations=(1, 2, 4, 8))
    signal = example["generate"](network, 60)
    step = network.stream()
    samples = [step(signal[i : i + 1]) for i in range(60)]
    assert np.ptp(signal) > 0.1 and bits(np.concatenate(samples)) == bits(network(signal))
    assert example["main"](40) and "whole signal: True" in capsys.readouterr().out
