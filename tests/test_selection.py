"""Selection is a pure function of problem and machine; what is measured of a machine is kept and never doubted twice."""

from __future__ import annotations

import json
import logging
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import every_kind

from numbaconv.accuracy import DEFAULT, STRICT, Accuracy
from numbaconv.algorithms import ALGORITHMS, cost, layout
from numbaconv.algorithms.cost import met
from numbaconv.algorithms.geometry import geometry, rows_collide
from numbaconv.algorithms.padded import posed_to
from numbaconv.codegen.jit import on_compile
from numbaconv.dispatch import calibration, explain, select
from numbaconv.dispatch.select import best, rank
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.machine import Machine, Rates, machine
from numbaconv.problem import ConvProblem

GROUPED = next(algorithm for algorithm in ALGORITHMS if algorithm.name == "grouped")
PLAIN = Epilogue(False, False, Activation.of(None))
#: What a machine with matrix tiles has besides.
MATRIX = "amx-tile,amx-bf16,amx-fp16,avx512bf16,avx512fp16"
HERE = replace(machine(), l1=48 << 10, l2=2 << 20, l3=32 << 20)


def seconds(text: str, on: Machine = HERE) -> dict[str, float]:
    """Estimates by algorithm."""
    return {c.algorithm.name: c.cost.seconds for c in rank(ConvProblem.parse(text), PLAIN, on, STRICT) if c.cost}


@given(
    size=st.integers(1, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 13),
    padding=st.tuples(st.integers(0, 30), st.integers(0, 30)),
)
def test_taps_inside_are_those_that_counting_finds(size, kernel, stride, dilation, padding):
    out = (size + sum(padding) - dilation * (kernel - 1) - 1) // stride + 1
    if out < 1:
        return
    inside = sum(0 <= o * stride - padding[0] + k * dilation < size for o in range(out) for k in range(kernel))
    assert met(size, out, kernel, stride, dilation, padding[0], 1.0) == pytest.approx(inside / out)


def test_taps_that_lie_in_padding_cost_nothing():
    inside, mostly_outside = seconds("n1c256h33w33o256k3p2dil2cl"), seconds("n1c256h33w33o256k3p18dil18cl")
    assert mostly_outside["direct"] < 0.7 * inside["direct"]


@pytest.mark.parametrize("text", ("c128h56w56o128k31p15g128cl", "c512h14w14o512k27p13g512cl", "c64h28w28o64k9p4g64cl"))
def test_long_runs_take_longer_in_strips_than_in_pieces(text):
    estimates = seconds(text)
    assert estimates["depthwise"] < estimates["grouped"]


#: Layers of networks, whose estimates are closer to one another than those of the small problems of `every_kind`.
LAYERS = st.builds(
    "c{}h{}w{}o{}k{}s{}p{}g{}{}".format, st.sampled_from((16, 48, 256, 768)), *2 * [st.integers(9, 60)],
    st.sampled_from((16, 96, 512)),
    st.sampled_from((1, 3, 7)), st.integers(1, 2), st.integers(0, 3), st.sampled_from((1, 8, 16)), st.sampled_from(("cf", "cl")),
).map(ConvProblem.parse)  # fmt: skip
CHANNELWISE = st.builds(
    "c{0}h{1}w{2}o{0}k{3}s{4}p{5}g{0}{6}".format, st.sampled_from((1, 16, 48, 256)), *2 * [st.integers(9, 60)],
    st.sampled_from((1, 3, 9)), st.integers(1, 2), st.integers(0, 4), st.sampled_from(("cf", "cl")),
).map(ConvProblem.parse)  # fmt: skip


@given(
    st.one_of(LAYERS, CHANNELWISE, every_kind()),
    st.sampled_from((DEFAULT, STRICT, Accuracy(1e-3))),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=200)
def test_the_best_is_the_first_of_the_ranking_but_for_a_tie(problem, accuracy, residual, weights_kept):
    epilogue, on = replace(PLAIN, residual=residual), replace(HERE, weights_kept=weights_kept)
    found, ranked = best(problem, epilogue, on, accuracy), rank(problem, epilogue, on, accuracy)
    assert found in ranked and found.cost is not None
    assert (1 - cost.TIE) * found.cost.seconds <= ranked[0].cost.seconds


@given(
    st.one_of(LAYERS, CHANNELWISE, every_kind()),
    st.sampled_from((HERE, replace(HERE, features=f"{HERE.features},{MATRIX}"))),
)
@settings(max_examples=300)
def test_no_estimate_is_less_than_its_lower_bound(problem, on):
    for algorithm in ALGORITHMS:
        posed = posed_to(algorithm, problem)
        if algorithm.unsupported(posed, PLAIN, on) is None:
            seconds = algorithm.estimate(posed, on).seconds * (1 + 1e-12)
            assert algorithm.least_seconds(posed, on) <= seconds
            assert all(floor(problem, on) <= seconds for floor in algorithm.floors)


@given(st.one_of(LAYERS, CHANNELWISE, every_kind()))
@settings(max_examples=200)
def test_a_layout_that_is_followed_is_one_that_the_algorithm_names(problem):
    """Bounds reckon with transposition around all others, and algorithms that name another one only are not asked."""
    for algorithm in ALGORITHMS:
        posed = posed_to(algorithm, problem)
        if algorithm.unsupported(posed, PLAIN, HERE) is None:
            assert problem.layout in algorithm.layouts or not algorithm.native(posed), algorithm.name
            assert algorithm.native(posed) or "channels_last" in algorithm.layouts, algorithm.name


@pytest.mark.parametrize("residual", (False, True))
def test_transposition_is_priced_with_the_residual(residual):
    """Whatever was asked before: 64 channels in, 64 out, and as many of a residual."""
    problem = ConvProblem.parse("c64h28w28o64k3p1")
    other = replace(problem, c_out=32)
    for asked in (problem, other, problem):
        seconds, nbytes = layout.transposing(residual)(asked, HERE)
        assert nbytes == 28 * 28 * 4 * (64 + asked.c_out * (1 + residual))
        assert seconds > layout.transposing(False)(asked, HERE)[0] or not residual


def test_no_other_is_looked_at_for_a_tie(monkeypatch):
    asked = [(ConvProblem.parse(f"c{c}h{h}w{h}o{c}k{k}p{k // 2}cl"), PLAIN, HERE, DEFAULT)
             for c in (16, 64, 96) for h in (7, 20, 35) for k in (1, 3)]  # fmt: skip
    firsts = [rank(*one)[0] for one in asked]
    monkeypatch.setattr(select, "TIE", 0.6)
    found = [select.best.__wrapped__(*one) for one in asked]
    assert found != firsts
    for one, candidate in zip(asked, found):
        ranked = rank(*one)
        assert 0.4 * candidate.cost.seconds <= ranked[0].cost.seconds
        # the one that is taken is the one that is marked, wherever it stands
        rows = explain.rows_of(one[0], ranked, candidate.algorithm)
        assert [row.label for row in rows if row.chosen] == [candidate.label(one[0])]
        assert [row.seconds for row in rows if row.reason is None] == [c.cost.seconds for c in ranked if c.cost]


@given(st.one_of(LAYERS, CHANNELWISE, every_kind()), st.sampled_from((None, "strict", 1e-3)))
@settings(max_examples=50)
def test_what_is_explained_as_chosen_is_taken(problem, accuracy):
    (chosen,) = (row for row in explain.explain(problem, accuracy=accuracy).rows if row.chosen)
    epilogue = Epilogue(problem.bias, False, Activation.of(None))
    taken = select.choose(problem, epilogue, accuracy=Accuracy.of(accuracy))
    assert (chosen.algorithm, chosen.variant) == (taken.name, taken.variant(problem))


def test_another_size_takes_the_place_of_one_that_is_not_exact_enough(monkeypatch):
    problem = ConvProblem.parse("c256h28w28o256k3p1cl")
    # where there are matrix tiles, they win
    here = replace(HERE, features=",".join(name for name in HERE.features.split(",") if not name.startswith("amx-")))
    first = best(problem, PLAIN, here, DEFAULT).algorithm
    assert first.m == first.floors[-1].leader(problem, here)
    monkeypatch.setattr(type(first), "rms_error", lambda self, problem: float(self is first))
    found, ranked = (ask(problem, PLAIN, here, DEFAULT) for ask in (select.best.__wrapped__, rank))
    assert isinstance(found.algorithm, type(first)) and found.algorithm is not first
    assert (1 - cost.TIE) * found.cost.seconds <= ranked[0].cost.seconds


@pytest.mark.parametrize(
    ("text", "grouping"),
    (
        ("c1h9w9o1k3", "single"), ("c1h9w9o2k3", "dense"), ("c8h9w9o1k3", "dense"), ("c8h9w9o8k3g2", "groups"),
        ("c8h9w9o8k3g8", "channelwise"), ("c8h9w9o16k3g8", "groups"), ("c16h9w9o8k3g8", "groups"),
    ),
)  # fmt: skip
def test_groupings(text, grouping):
    assert ConvProblem.parse(text).grouping == grouping


def test_few_estimates_are_made_for_the_best(monkeypatch):
    priced, estimated = [], select._priced
    monkeypatch.setattr(select, "_priced", lambda *args: priced.append(args[0]) or estimated(*args))
    best(ConvProblem.parse("c64h57w56o64k3p1cl"), PLAIN, HERE, DEFAULT)
    assert 1 <= len(priced) <= 3


def test_weights_that_meet_padding_only_are_not_read():
    g = geometry(ConvProblem.parse("c8w9o32k64p40cl"))
    # 26 outputs, of which number o reads pixel o + t - 40 at tap t
    met_at_all = sum(any(0 <= o + t - 40 < 9 for o in range(26)) for t in range(64))
    assert cost.weights_read(g, 3) == pytest.approx(3 * g["panel_bytes"] * met_at_all / 64)


def test_an_estimate_grows_with_the_work():
    for name, estimate in seconds("n1c64h56w56o64k3p1cl").items():
        assert estimate < seconds("n2c64h56w56o64k3p1cl")[name]
        assert estimate < seconds("n1c64h56w56o128k3p1cl")[name]


def test_operands_beyond_the_l2_cost_more_where_it_is_smaller():
    small = replace(HERE, l2=256 << 10)
    for name in ("direct", "indirect"):
        text = "n1c512h7w7o512k3p1cl"
        assert seconds(text, small)[name] > seconds(text, replace(HERE, l2=64 << 20))[name]


def test_a_panel_beyond_the_l2_comes_again_for_each_tile():
    text = "c832h35w16o16k5p2cl"
    panel = geometry(ConvProblem.parse(text))["panel_bytes"]
    fits, does_not = (seconds(text, replace(HERE, l2=nbytes))["direct"] for nbytes in (panel, panel - 1))
    assert does_not > 1.3 * fits


def test_rows_that_share_sets_of_the_l1_are_packed_where_it_has_few_ways():
    """Addresses 4 KiB apart share a set, of which the L1 has as many ways as pages."""
    few, many = (replace(HERE, l1=nbytes) for nbytes in (2 << 12, 64 << 12))
    for text in ("c1024h14w14o256k1cl", "c1000h14w14o256k1cl"):
        for name in ("direct", "indirect"):
            slower = seconds(text, few)[name] / seconds(text, many)[name]
            assert (slower > 1.02) == ("1024" in text)
    # patches are packed at a pitch that does not
    assert seconds("c1024h14w14o256k1cl", few)["im2col"] == seconds("c1024h14w14o256k1cl", many)["im2col"]


def test_results_that_are_written_past_the_caches_are_waited_for_half_as_long():
    # so many pixels of 256 bytes fill the 12 MiB that the L3 would keep; with the next one all of them leave
    for name in ("direct", "pointwise", "im2col"):
        kept, streamed = (seconds(f"c8w{pixels}o64k1cl")[name] for pixels in (48 << 10, (48 << 10) + 1))
        assert streamed < kept


def test_results_that_are_not_aligned_are_not_written_past_the_caches():
    # 12 MiB lie between these
    kept, beyond = (seconds(f"c8w{pixels}o63k1cl")["direct"] for pixels in (49_000, 50_000))
    assert beyond > kept
    # nor are planes of an odd number of pixels
    even, odd = (seconds(f"c1h571w{width}o64k3")["im2col"] for width in (578, 579))
    assert odd > 1.05 * even


def test_pixels_are_picked_one_by_one_only_as_far_as_there_are_any():
    # a panel holds all nine of stride 4, and each of its rows is a run of three
    picked, shuffled = (seconds(f"c752h10w10o30k1s{stride}")["im2col"] for stride in (4, 2))
    assert picked < shuffled


def test_panels_that_the_l1_does_not_keep_come_again_for_each_tile():
    near, far = (GROUPED.near_cycles(ConvProblem.parse(f"c768w4096o768k{k}g16cl"), HERE) / k for k in (14, 140))
    assert far > 1.3 * near


def test_transposing_small_tensors_costs_its_calls():
    apart = {layout: seconds(f"c16h4w4o16k1{layout}")["direct"] for layout in ("cf", "cl")}
    assert (apart["cf"] - apart["cl"]) * HERE.rates.clock > 10_000
    # one pixel is the same in both layouts
    assert seconds("c16h1w1o16k1cf")["direct"] == seconds("c16h1w1o16k1cl")["direct"]


def test_a_faster_clock_scales_every_estimate_alike():
    fast = replace(HERE, rates=replace(HERE.rates, clock=2 * HERE.rates.clock))
    slow_times, fast_times = seconds("n1c64h56w56o64k3p1cf"), seconds("n1c64h56w56o64k3p1cf", fast)
    del slow_times["reference"]
    for name, time_ in slow_times.items():
        assert fast_times[name] == pytest.approx(time_ / 2)


def test_choosing_for_a_new_shape_compiles_and_measures_nothing(monkeypatch):
    compiled = []
    monkeypatch.setattr(calibration, "measured_rates", lambda on: pytest.fail("measured"))
    with on_compile(lambda name, seconds: compiled.append(name)):
        for h in range(20, 60):
            best(ConvProblem.parse(f"n1c64h{h}w56o64k3p1"), PLAIN, HERE, DEFAULT)
    assert not compiled


@pytest.fixture
def measured(monkeypatch):
    """Count the measurements, which return rates that nobody else has."""
    calls = []

    def measure(on):
        calls.append(on)
        return Rates(clock=1.2e9 + len(calls))

    monkeypatch.setattr(calibration, "measured_rates", measure)
    return calls


def test_rates_are_measured_once_and_read_ever_after(tmp_path, measured):
    first, second = (calibration.kept_rates(tmp_path, HERE) for _ in range(2))
    assert first == second == Rates(clock=1.2e9 + 1)
    assert len(measured) == 1
    assert [path.name for path in tmp_path.iterdir()] == [next(tmp_path.glob("rates-*.json")).name]


def test_the_process_that_writes_first_decides_for_all(tmp_path, monkeypatch):
    def measure(on):
        # another process is faster
        if not list(tmp_path.glob("rates-*.json")):
            monkeypatch.setattr(calibration, "measured_rates", lambda on: Rates(clock=5.0))
            calibration.kept_rates(tmp_path, on)
        return Rates(clock=6.0)

    monkeypatch.setattr(calibration, "measured_rates", measure)
    assert calibration.kept_rates(tmp_path, HERE).clock == 5.0


def test_another_kind_of_machine_has_rates_of_its_own(tmp_path, measured):
    calibration.kept_rates(tmp_path, HERE)
    calibration.kept_rates(tmp_path, replace(HERE, l2=1 << 20))
    assert len(measured) == 2
    calibration.kept_rates(tmp_path, replace(HERE, affinity=1, quota=1.5))
    assert len(measured) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps({"clock": "fast"})])
def test_a_spoilt_file_is_named_and_rates_are_assumed(tmp_path, measured, caplog, text):
    calibration.kept_rates(tmp_path, HERE)
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    with caplog.at_level(logging.WARNING, "numbaconv"):
        assert calibration.kept_rates(tmp_path, HERE) == Rates()
    assert "assumed" in caplog.text


def test_a_folder_that_cannot_be_written_only_warns(tmp_path, measured, caplog):
    with caplog.at_level(logging.WARNING, "numbaconv"):
        assert calibration.kept_rates(tmp_path / "absent", HERE) == Rates()
    assert "assumed" in caplog.text


def test_measured_rates_are_within_what_is_credible():
    rates, assumed = calibration.measured_rates(machine()), Rates()
    for field in fields(Rates):
        assert 0.3 <= getattr(rates, field.name) / getattr(assumed, field.name) <= 3.1


@pytest.mark.parametrize("rate, far", [(1.0, 0.35), (0.6, 0.2), (2.0, 0.9)])
def test_rates_of_transforms_are_those_that_yield_what_was_measured(rate, far):
    near_by, far_by = (rate * (1 + far * doublings) for doublings in (0.3, 2.4))
    found = calibration._fourier_rates(near_by, far_by, 0.3, 2.4)
    assert found == pytest.approx({"fourier": rate, "fourier_far": far}, rel=0.02)


def test_rates_are_assumed_where_the_environment_says_so(python):
    program = """
        from numbaconv.dispatch.calibration import calibrated_machine
        from numbaconv.machine import machine
        print(calibrated_machine() == machine())
        """
    assert python(program, NUMBACONV_CALIBRATE="0").stdout.split() == ["True"]


def test_two_processes_reckon_with_the_same_rates(python, tmp_path):
    program = """
        from numbaconv.dispatch.calibration import calibrated_machine
        print(calibrated_machine().rates)
        """
    first, second = (python(program, NUMBACONV_CALIBRATE="1", NUMBACONV_CACHE_DIR=str(tmp_path)) for _ in range(2))
    assert first.stdout == second.stdout


def test_short_tiles_do_not_evict_their_own_rows():
    """Of 12 rows 8 KiB apart an L1 of 8 ways keeps 8, and all of 6."""
    on, g = replace(HERE, l1=8 << 12), geometry(ConvProblem.parse("c2048h33w33o256k3p18dil18cl"))
    assert rows_collide(g, on, 12) and not rows_collide(g, on, 6)
    cut = {"lines": 33, "line": 33, "tiles_outside": 0, "k_block": 2048, "patch_pitch": 0}
    high, low = (cost.gemm_cycles(g | cut | {"tiles_per_line": n}, on) for n in (3, 6))
    assert low < high
