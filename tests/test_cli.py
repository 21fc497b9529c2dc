"""The command line: what each command prints, and one line with exit code 2 for what a user gets wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

typer = pytest.importorskip("typer")
pytest.importorskip("rich")

from typer.testing import CliRunner  # noqa: E402

from numbaconv.cli.app import app  # noqa: E402


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def invoke_json(*arguments):
    """The one document that a command prints."""
    result = invoke(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def refused(*arguments):
    """The one line that a command prints before it leaves with code 2."""
    result = invoke(*arguments)
    assert result.exit_code == 2 and not result.stdout
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def model(tmp_path):
    """conv(x, w) with one 1x1 filter that sums three channels, over images of a fixed size."""
    onnx = pytest.importorskip("onnx")
    w = onnx.numpy_helper.from_array(np.ones((1, 3, 1, 1), np.float32), "w")
    values = [onnx.helper.make_tensor_value_info(name, 1, [1, c, 4, 6]) for name, c in (("x", 3), ("out/y", 1))]
    node = onnx.helper.make_node("Conv", ["x", "w"], ["out/y"])
    graph = onnx.helper.make_graph([node], "sum", values[:1], values[1:], [w])
    path = tmp_path / "sum.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def array(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((1, 3, 4, 6), np.float32))
    return path


def test_explain_prints_every_algorithm():
    document = invoke_json("explain", "n1c64h56w56o64k3p1")
    chosen = [row["algorithm"] for row in document["algorithms"] if row["chosen"]]
    assert len(chosen) == 1
    printed = invoke("explain", "n1c64h56w56o64k3p1").stdout
    for row in document["algorithms"]:
        assert row["algorithm"] in printed
        assert row["reason"] or row["seconds"] > 0


def test_explain_counts_what_a_problem_takes():
    text = "c128h56w56o256k3p1"
    found = invoke_json("explain", text)["arithmetic"]
    assert (found["macs"], found["parameters"], found["output"]) == (924_844_032, 294_912, [56, 56])
    assert found["im2col_bytes"] == 56 * 56 * 128 * 9 * 4
    printed = invoke("explain", text).stdout
    for word in ("924.844 M", "294,912", "56 x 56", "0.115 of the MACs"):
        assert word in printed
    assert "separable" not in invoke("explain", "c8h9w9o8k3g8").stdout


def test_explain_refuses_what_is_no_problem():
    assert "nonsense" in refused("explain", "nonsense")


def test_info_describes_the_machine():
    document = invoke_json("info")
    assert document["machine"]["isa"] in ("avx512", "avx2", "neon", "generic")
    assert document["threads"] >= 1 and document["versions"]["numba"]
    assert document["machine"]["isa"] in invoke("info").stdout


def test_run_shows_and_writes_the_outputs(model, array, tmp_path):
    document = invoke_json("run", model, "--input", f"x={array}", "--output-dir", tmp_path / "new" / "out")
    (output,) = document["outputs"]
    assert (output["name"], output["min"], output["max"]) == ("out/y", 3, 3)
    assert sum(document["layers"].values()) == 1 and document["seconds"] > 0
    (written,) = (tmp_path / "new" / "out").iterdir()
    assert np.load(written).tolist() == np.full((1, 1, 4, 6), 3.0).tolist()
    assert "out/y" in invoke("run", model, "--input", f"x={array}", "--repeat", 2, "--threads", 1).stdout


def test_run_takes_a_picture_at_the_size_that_the_model_fixes(model, tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (30, 20), (255, 0, 51)).save(tmp_path / "picture.png")
    (output,) = invoke_json("run", model, "--input", f"x={tmp_path / 'picture.png'}")["outputs"]
    assert output["mean"] == pytest.approx(1.2)
    (tmp_path / "text.png").write_text("no picture")
    assert "no picture" in refused("run", model, "--input", f"x={tmp_path / 'text.png'}")


def test_run_says_what_is_wrong_with_its_inputs(model, array, tmp_path):
    (tmp_path / "text.npy").write_text("no array")
    np.save(tmp_path / "small.npy", np.ones((1, 3, 4, 5), np.float32))
    assert "absent.onnx: no such file" in refused("run", tmp_path / "absent.onnx")
    assert "no ONNX model" in refused("run", array)
    assert "'x' is missing" in refused("run", model)
    assert "name=file" in refused("run", model, "--input", "x")
    assert "no input 'z'" in refused("run", model, "--input", f"z={array}")
    assert "absent.npy: no such file" in refused("run", model, "--input", f"x={tmp_path / 'absent.npy'}")
    assert "no .npy file" in refused("run", model, "--input", f"x={tmp_path / 'text.npy'}")
    assert "expected shape [1, 3, 4, 6]" in refused("run", model, "--input", f"x={tmp_path / 'small.npy'}")
    assert "below 1" in refused("run", model, "--input", f"x={array}", "--threads", 0)


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "numbaconv", "--help"], check=True, capture_output=True, text=True)
    assert "explain" in done.stdout


def test_missing_packages_are_named():
    script = "import sys; sys.modules['typer'] = None; from numbaconv.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'numbaconv[cli]'" in done.stderr


def test_the_demo_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)
    assert "rapidocr" in refused("demo")


def test_the_demo_reads_what_onnxruntime_reads():
    pytest.importorskip("rapidocr_onnxruntime")
    pytest.importorskip("skimage")
    document = invoke_json("demo", "--repeat", 1, "--threads", 1)
    assert document["identical"] and any("segmentation" in line for line in document["text"])
    assert [model["model"] for model in document["models"]] == ["detection", "orientation", "recognition"]
    for model in document["models"]:
        assert model["max_difference"] < 1e-3
        assert model["numbaconv"] > 0 and model["onnxruntime"] > 0 and sum(model["layers"].values()) > 30


def test_the_demo_refuses_what_is_no_picture(tmp_path):
    pytest.importorskip("rapidocr_onnxruntime")
    (tmp_path / "text.png").write_text("no picture")
    assert "absent.png: no such file" in refused("demo", "--image", tmp_path / "absent.png")
    assert "no picture" in refused("demo", "--image", tmp_path / "text.png")
