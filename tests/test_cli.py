"""The command line: what each command prints, and one line with exit code 2 for what a user gets wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

typer = pytest.importorskip("typer")
pytest.importorskip("rich")

from typer.testing import CliRunner  # noqa: E402

from numbaconv.cli import networks  # noqa: E402
from numbaconv.cli.app import app  # noqa: E402
from numbaconv.cli.pictures import Preparation, load_picture  # noqa: E402
from numbaconv.cli.workers import Worker, WorkerError, cores_of  # noqa: E402


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


@pytest.fixture
def classifier(tmp_path):
    """(1, 3, 4, 4) images; the score of each channel is its mean, and the fourth is zero."""
    onnx = pytest.importorskip("onnx")
    w = onnx.numpy_helper.from_array(np.eye(4, 3, dtype=np.float32).reshape(4, 3, 1, 1), "w")
    x = onnx.helper.make_tensor_value_info("x", 1, [1, 3, "h", 4])
    y = onnx.helper.make_tensor_value_info("scores", 1, [1, 4])
    nodes = [
        onnx.helper.make_node("Conv", ["x", "w"], ["c"]),
        onnx.helper.make_node("GlobalAveragePool", ["c"], ["g"]),
        onnx.helper.make_node("Flatten", ["g"], ["scores"]),
    ]
    graph = onnx.helper.make_graph(nodes, "classifier", [x], [y], [w])
    path = tmp_path / "classifier.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def picture(tmp_path):
    """6 x 6 pixels: a border of red around 4 x 4 of (10, 30, 20)."""
    image = pytest.importorskip("PIL.Image")
    made = image.new("RGB", (6, 6), (255, 0, 0))
    made.paste((10, 30, 20), (1, 1, 5, 5))
    made.save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_run_names_the_best_classes_of_a_picture(classifier, picture, tmp_path):
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\nnothing\n")
    prepared = ("--image", picture, "--crop", 4 / 6, "--mean", "0,10,0", "--std", "10")
    document = invoke_json("run", classifier, *prepared, "--top", 3, "--labels", tmp_path / "labels.txt")
    assert [entry["label"] for entry in document["top"]] == ["green", "blue", "red"]
    assert [entry["index"] for entry in document["top"]] == [1, 2, 0]
    assert [entry["score"] for entry in document["top"]] == pytest.approx([2, 2, 1])
    printed = invoke("run", classifier, *prepared, "--labels", tmp_path / "labels.txt").stdout
    assert printed.index("green") < printed.index("blue") < printed.index("red") < printed.index("nothing")


def test_without_a_crop_all_of_a_picture_counts(classifier, picture):
    (best,) = invoke_json("run", classifier, "--image", picture, "--top", 1)["top"]
    assert best["index"] == 0 and best["label"] is None


def test_a_crop_has_the_proportions_of_the_input(tmp_path):
    image = pytest.importorskip("PIL.Image")
    made = image.new("L", (9, 4), 200)
    made.paste(50, (3, 0, 6, 4))
    made.save(tmp_path / "wide.png")
    cropped = load_picture(tmp_path / "wide.png", ["n", 1, 4, 3], Preparation.parse("50", "1", 1.0))
    assert cropped.shape == (1, 1, 4, 3) and not cropped.any()
    assert load_picture(tmp_path / "wide.png", ["n", 1, None, "w"]).shape == (1, 1, 4, 9)


def test_run_shows_where_the_time_goes(model, array, tmp_path):
    given = ("run", model, "--input", f"x={array}", "--profile")
    document = invoke_json(*given, "--profile-html", tmp_path / "steps.html")
    assert any(row["op"] == "Conv" and row["seconds"] > 0 for row in document["profile"])
    assert sum(row["share"] for row in document["profile"]) == pytest.approx(1)
    assert "<table>" in (tmp_path / "steps.html").read_text()
    printed = invoke(*given).stdout
    assert all(row["algorithm"] in printed for row in document["profile"])


def test_run_says_what_is_wrong_with_pictures_and_labels(model, classifier, picture, array, tmp_path):
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    given = ("run", classifier, "--image", picture)
    assert "3 lines, but there are 4 classes" in refused(*given, "--labels", tmp_path / "labels.txt")
    assert "absent.txt: no such file" in refused(*given, "--labels", tmp_path / "absent.txt")
    assert "no such file" in refused("run", classifier, "--image", tmp_path / "absent.png")
    assert "no output has the shape (1, n)" in refused("run", model, "--input", f"x={array}", "--top", 2)
    assert "--crop 2" in refused(*given, "--crop", 2)
    assert "--mean 'grey'" in refused(*given, "--mean", "grey")
    assert "divides by zero" in refused(*given, "--std", "1,0,1")
    assert "do not fit 3 channels" in refused(*given, "--mean", "1,2")


def test_bench_compares_runtimes_in_one_run(classifier):
    pytest.importorskip("onnxruntime")
    document = invoke_json(
        *("bench", "--model", classifier, "--peers", "onnxruntime", "--threads", 1, "--shape", "x=1x3x5x4"),
        *("--rounds", 2, "--min-time", 0, "--float64"),
    )
    assert document["shapes"] == {"x": [1, 3, 5, 4]} and not document["absent"]
    one = document["threads"]["1"]
    assert one["best_peer"] == "onnxruntime"
    ours, theirs = one["runtimes"]["numbaconv"], one["runtimes"]["onnxruntime"]
    assert one["best_peer_over_ours"] == pytest.approx(theirs["seconds"] / ours["seconds"])
    for measured in ours, theirs:
        assert len(measured["rounds"]) == 2 and measured["load_seconds"] > 0 and measured["refusal"] is None
        assert measured["difference"] < 1e-5 and measured["top1"] == 1
        assert 0 < measured["difference_float64"] < 1e-5
    # ours holds what the bare interpreter holds; the peer's process has no Numba in it
    assert ours["peak_bytes"] > document["bare_interpreter_bytes"] > 20e6


def test_bench_goes_on_without_what_is_not_installed(classifier, tmp_path, monkeypatch):
    (tmp_path / "ncnn.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    result = invoke("bench", "--model", classifier, "--peers", "ncnn", "--threads", 1, "--rounds", 1, "--min-time", 0)
    assert result.exit_code == 0, result.output
    assert "ncnn is absent: ImportError: not here" in result.stdout
    assert "classifier.onnx (x 1x3x1x4)" in result.stdout and "numbaconv" in result.stdout


def test_bench_says_what_is_wrong_with_its_arguments(classifier, array, tmp_path):
    assert "no peer 'tensorflow'" in refused("bench", "--model", classifier, "--peers", "tensorflow")
    assert "absent.onnx: no such file" in refused("bench", "--model", tmp_path / "absent.onnx")
    assert "no ONNX model" in refused("bench", "--model", array)
    assert "name=1x3x224x224" in refused("bench", "--model", classifier, "--shape", "x=1x3x0x4")
    assert "no input 'z'" in refused("bench", "--model", classifier, "--shape", "z=1x3x4x4")
    assert "expected shape [1, 3, 'h', 4]" in refused("bench", "--model", classifier, "--shape", "x=1x3x4x5")
    assert "1 or more" in refused("bench", "--model", classifier, "--threads", 0)


def test_a_worker_that_dies_is_replaced_and_says_why():
    script = (
        "import os, types; from numbaconv.cli.serving import serve;"
        "die = lambda request: os.write(2, b'out of luck') and os._exit(1);"
        "serve(lambda: types.SimpleNamespace(version='1', answer=die))"
    )
    worker = Worker("unlucky", [sys.executable, "-c", script], 1)
    first = worker.process.pid
    try:
        with pytest.raises(WorkerError, match="out of luck"):
            worker.request(load="anything")
        assert worker.process.pid != first and worker.version == "1"
    finally:
        worker.close()


def test_a_rounds_workers_run_on_the_same_cores_and_other_rounds_on_others():
    script = (
        "import os, threading, time, types; from numbaconv.cli.serving import serve;"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start();"
        "own = lambda request: {'cores': [sorted(os.sched_getaffinity(int(t))) for t in os.listdir('/proc/self/task')]};"
        "serve(lambda: types.SimpleNamespace(version='1', answer=own))"
    )
    cores = sorted(os.sched_getaffinity(0))
    assert [cores_of(number, 1) for number in range(len(cores))] == [[core] for core in cores]
    assert sorted(cores_of(1, len(cores) + 1)) == cores
    worker = Worker("settled", [sys.executable, "-c", script], 1)
    try:
        for core in cores[:2]:
            worker.settle([core])
            answer = worker.request(where="")["cores"]
            assert len(answer) > 1 and answer == [[core]] * len(answer)
    finally:
        worker.close()


_TWO_OF_THREE_THREADS_WORK = """
import os, threading, time, types
from concurrent.futures import ThreadPoolExecutor
from numbaconv.cli.serving import serve

def work():
    end = time.thread_time() + 0.03
    while time.thread_time() < end:
        pass
    return threading.get_native_id()

idle = threading.Thread(target=time.sleep, args=(60,), daemon=True)
idle.start()
pool = ThreadPoolExecutor(1)

def answer(request):
    other = pool.submit(work)
    threads = work(), other.result(), idle.native_id
    return {"cores": [sorted(os.sched_getaffinity(thread)) for thread in threads]}

serve(lambda: types.SimpleNamespace(version="1", answer=answer))
"""


@pytest.mark.skipif(len(cores_of(0, 2)) < 2, reason="needs two cores")
def test_threads_that_work_get_a_core_each():
    cores = cores_of(0, 2)
    worker = Worker("two of three", [sys.executable, "-c", _TWO_OF_THREE_THREADS_WORK], 2)
    try:
        worker.settle(cores)
        worker.request(work="")
        worker.settle(cores)
        *busy, idle = worker.request(work="")["cores"]
        assert sorted(busy) == [[core] for core in sorted(cores)] and idle == sorted(cores)
    finally:
        worker.close()


def test_a_result_that_is_not_a_number_is_different():
    right = [np.array([[1.0, -4.0]])]
    assert networks.difference([np.array([[1.0, -3.0]])], right) == 0.25
    assert networks.is_wrong(networks.Measurement(difference=networks.difference([right[0] * np.nan], right)))
    assert networks.is_wrong(networks.Measurement(difference=networks.difference([right[0][:, :1]], right)))
    assert not networks.is_wrong(networks.Measurement(difference=networks.difference(right, right)))


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
        assert model["numbaconv"] > 0 and model["onnxruntime"] > 0 and sum(model["layers"].values()) > 20


def test_the_demo_refuses_what_is_no_picture(tmp_path):
    pytest.importorskip("rapidocr_onnxruntime")
    (tmp_path / "text.png").write_text("no picture")
    assert "absent.png: no such file" in refused("demo", "--image", tmp_path / "absent.png")
    assert "no picture" in refused("demo", "--image", tmp_path / "text.png")
