"""What a session says about its program, and runs on arrays that stay bound."""

from __future__ import annotations

import sys

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from graphs import allocated  # noqa: E402
from onnx import helper, numpy_helper  # noqa: E402

import numbaconv as nc  # noqa: E402

SHAPE = (1, 3, 24, 24)


def network(shape=SHAPE) -> bytes:
    """A strided convolution with ReLU, whose result is delivered, and a convolution of that; names that HTML has to escape."""
    rng = np.random.default_rng(5)
    weights = {
        name: numpy_helper.from_array(rng.integers(-3, 4, size).astype(np.float32), name)
        for name, size in (("w", (16, 3, 3, 3)), ("v", (8, 16, 1, 1)))
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first <b>&</b>", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["y"], "second"),
    ]
    x = helper.make_tensor_value_info("x", 1, shape)
    outputs = [helper.make_tensor_value_info(name, 1, None) for name in ("y", "r")]
    graph = helper.make_graph(nodes, "net", [x], outputs, list(weights.values()))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def session():
    return nc.InferenceSession(network())


@pytest.fixture
def x(rng):
    return rng.integers(-3, 4, SHAPE).astype(np.float32)


@pytest.fixture
def bound(session, x):
    """A binding of `x` and of an array for each output, with those arrays."""
    outputs = {name: np.empty_like(array) for name, array in zip("yr", session.run(None, {"x": x}))}
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    for name, array in outputs.items():
        binding.bind_output(name, array=array)
    return binding, outputs


def test_a_report_has_a_row_for_each_step(session, x):
    report = session.explain({"x": x}, repeat=2)
    convolutions = [row for row in report.rows if row.op.startswith("Conv")]
    assert [row.node for row in convolutions] == ["first <b>&</b>", "second"]
    assert [row.shape for row in convolutions] == [(1, 16, 12, 12), (1, 8, 12, 12)]
    assert [row.flops for row in convolutions] == [2 * 144 * 16 * 27, 2 * 144 * 8 * 16]
    assert all(row.estimate > 0 and row.problem and row.algorithm for row in convolutions)
    assert all(row.seconds > 0 for row in report.rows)
    assert sum(row.share for row in report.rows) == pytest.approx(1)
    assert report.seconds == pytest.approx(sum(row.seconds for row in report.rows))


def test_a_report_prints_as_a_table(session):
    report = session.explain(repeat=1)
    headline, head, *lines = str(report).splitlines()
    assert headline == report.headline and "x 1x3x24x24" in headline
    assert head.split() == ["op", "output", "algorithm", "estimate", "measured", "GFLOP/s", "share", "node"]
    assert len(lines) == len(report.rows)
    for line, row in zip(lines, report.rows):
        assert line.startswith(row.op) and line.endswith(row.node) and f"{row.share:.1%}" in line


def test_explaining_takes_free_dimensions_as_one_and_needs_to_know_their_number():
    session = nc.InferenceSession(network(("n", 3, "h", 7)))
    assert "x 1x3x1x7" in session.explain(repeat=1).headline
    shapeless = nc.InferenceSession(network(None))
    with pytest.raises(nc.ModelError, match="'x'.*no declared shape"):
        shapeless.explain()
    assert shapeless.explain({"x": np.ones(SHAPE, np.float32)}, repeat=1).rows


def test_a_page_shows_every_step_and_escapes_names(session, tmp_path):
    report = session.explain(repeat=1)
    report.to_html(tmp_path / "steps.html")
    page = (tmp_path / "steps.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == len(report.rows) + 1
    assert "first &lt;b&gt;&amp;&lt;/b&gt;" in page and "<b>" not in page
    # the longest step has the longest bar
    assert page.count("width:160.0px") == 1


def test_a_chart_grows_with_the_number_of_steps(session, tmp_path):
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    report = session.explain(repeat=1)
    heights = []
    for times in (1, 5):
        long = type(report)(report.title, report.rows * times)
        long.to_png(tmp_path / "steps.png")
        with image.open(tmp_path / "steps.png") as chart:
            assert chart.format == "PNG"
            heights.append(chart.height)
    assert heights[1] - heights[0] == pytest.approx(0.17 * 110 * 4 * len(report.rows), abs=2)


def test_a_chart_without_matplotlib_says_what_to_install(session, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(nc.ConvError, match="pip install matplotlib"):
        session.explain(repeat=1).to_png(tmp_path / "steps.png")
    assert not (tmp_path / "steps.png").exists()


def test_bound_outputs_are_overwritten_with_what_run_returns(session, x, bound):
    binding, outputs = bound
    session.run_with_iobinding(binding)
    for array, given, expected in zip(binding.get_outputs(), outputs.values(), session.run(None, {"x": x})):
        assert array is given
        np.testing.assert_array_equal(array, expected)
    x *= 2  # the binding reads the array again at each run; without a bias, all results double
    doubled = [2 * array for array in binding.get_outputs()]
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(binding.copy_outputs_to_cpu()[0], doubled[0])
    np.testing.assert_array_equal(outputs["r"], doubled[1])


def test_outputs_that_are_bound_to_no_array_are_new_in_each_run(session, x):
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    binding.bind_output("y")
    session.run_with_iobinding(binding)
    (first,) = binding.get_outputs()
    session.run_with_iobinding(binding)
    (second,) = binding.get_outputs()
    assert not np.may_share_memory(first, second)
    np.testing.assert_array_equal(first, second)


def test_memory_can_be_bound_by_its_address(session, x):
    expected = session.run(["y"], {"x": x})[0]
    y = np.empty_like(expected)
    binding = session.io_binding()
    binding.bind_input("x", "cpu", 0, np.float32, x.shape, x.ctypes.data)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(y, expected)


def test_a_warm_run_on_bound_arrays_allocates_nothing(session, bound):
    binding, outputs = bound
    # dictionaries and tuples of a call; the smaller output alone would be more
    assert allocated(lambda: session.run_with_iobinding(binding)) < 4096 < outputs["y"].nbytes


@pytest.mark.parametrize(
    "array, error, message",
    [
        (np.empty((1, 8, 12, 11), np.float32), nc.ShapeError, r"\(1, 8, 12, 11\).*\(1, 8, 12, 12\)"),
        (np.empty((1, 8, 12, 12), np.float64), nc.DTypeError, "float64.*float32"),
    ],
)
def test_arrays_that_cannot_hold_an_output_are_refused(session, x, bound, array, error, message):
    binding, outputs = bound
    binding.bind_output("y", array=array)
    with pytest.raises(error, match=f"'y'.*{message}"):
        session.run_with_iobinding(binding)
    binding.bind_output("y", array=outputs["y"])
    session.run_with_iobinding(binding)
    np.testing.assert_array_equal(outputs["y"], session.run(["y"], {"x": x})[0])


def test_an_output_may_not_lie_in_an_input(session):
    memory = np.ones(3 * 24 * 24 + 100, np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input("x", memory[: 3 * 24 * 24].reshape(SHAPE))
    binding.bind_output("y", array=memory[-8 * 144 :].reshape(1, 8, 12, 12))
    with pytest.raises(nc.ModelError, match="'y'.*overlaps input 'x'"):
        session.run_with_iobinding(binding)
    assert (memory == 1).all()


def test_binding_checks_names_devices_and_memory(session, x):
    binding = session.io_binding()
    with pytest.raises(nc.ModelError, match="no input 'z'.*'x'"):
        binding.bind_cpu_input("z", x)
    with pytest.raises(nc.ModelError, match="no output 'z'.*'y', 'r'"):
        binding.bind_output("z")
    with pytest.raises(nc.ModelError, match="cuda"):
        binding.bind_output("y", "cuda")
    locked = np.empty((1, 8, 12, 12), np.float32)
    locked.flags.writeable = False
    for unusable in (locked, np.empty((1, 12, 12, 8), np.float32).transpose(0, 3, 1, 2)):
        with pytest.raises(nc.ModelError, match="'y'.*contiguous, aligned and writable"):
            binding.bind_output("y", array=unusable)


def test_what_is_forgotten_is_not_fed(session, bound):
    binding, _ = bound
    binding.clear_binding_inputs()
    with pytest.raises(nc.ModelError, match="'x' is missing"):
        session.run_with_iobinding(binding)
    binding.clear_binding_outputs()
    assert binding.get_outputs() == []


def test_two_outputs_may_not_share_memory(session, x):
    binding = session.io_binding()
    binding.bind_cpu_input("x", x)
    memory = np.empty(16 * 144, np.float32)
    binding.bind_output("y", array=memory[: 8 * 144].reshape(1, 8, 12, 12))
    binding.bind_output("r", array=memory.reshape(1, 16, 12, 12))
    with pytest.raises(nc.ModelError, match="'r'.*overlaps output 'y'"):
        session.run_with_iobinding(binding)
