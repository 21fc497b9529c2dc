"""Machine code is kept between processes, follows its sources, and is what the instruction set allows."""

from __future__ import annotations

import importlib
import pickle
import re
import shutil
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
from strategies import FAST, bits, make_operands, normals, pairs, whole_numbers

import numbaconv
from numbaconv.algorithms import ALGORITHMS
from numbaconv.algorithms.layout import ChannelsFirst
from numbaconv.algorithms.weights import Weights
from numbaconv.codegen.linked import LinkedFunction
from numbaconv.codegen.target import TARGETS
from numbaconv.codegen.tile import UNROLL
from numbaconv.loops.gemm import MR
from numbaconv.loops.walk import share
from numbaconv.machine import VECTOR_BYTES, machine
from numbaconv.problem import LAYOUTS, ConvProblem
from numbaconv.workspace import aligned

PACKAGE = Path(numbaconv.__file__).resolve().parent
#: Counts compilations of our functions, as we and as Numba tell of them, while convolutions run.
COUNTING = """
    import hashlib
    import sys

    from numba.core import event

    import numpy as np
    import numbaconv as nc
    from numbaconv.codegen.jit import cache_folder, on_compile

    class Listener(event.Listener):
        count = 0

        def on_start(self, event):
            self.count += event.data["dispatcher"].py_func.__module__.startswith("numbaconv")

        def on_end(self, event):
            pass

    listener, ours = Listener(), []
    event.register("numba:compile", listener)
    rng, digest = np.random.default_rng(0), hashlib.sha256()
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 3, 20, 20), (5, 3, 3, 3)))
    with on_compile(lambda name, seconds: ours.append(name) if seconds is None else None):
        for threads in (1, 2):
            with nc.num_threads(threads):
                assert np.all(nc.conv2d(np.ones_like(x), np.ones_like(weight), algorithm="direct") == 27)
                digest.update(nc.conv2d(x, weight, algorithm="direct"))
    print(len(ours), listener.count, digest.hexdigest(), cache_folder(), "numba.np.linalg" in sys.modules)
"""


def counted(done):
    ours, numbas, digest, folder, ready = done.stdout.split()
    return int(ours), int(numbas), digest, folder, ready == "True"


def test_the_second_process_compiles_nothing_and_gives_the_same_bits(python, tmp_path):
    first = counted(python(COUNTING, NUMBACONV_CACHE_DIR=str(tmp_path / "kernels"), NUMBA_NUM_THREADS="2"))
    second = counted(python(COUNTING, NUMBACONV_CACHE_DIR=str(tmp_path / "kernels"), NUMBA_NUM_THREADS="2"))
    # Numba's event is of dispatchers only, ours of C functions too
    assert first[0] > first[1] > 0
    # nor does it make ready to compile
    assert first[4] and second == (0, 0, *first[2:4], False)
    assert Path(first[3]).is_relative_to(tmp_path)


def test_a_folder_that_cannot_be_written_costs_a_warning_only(python, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    done = python(COUNTING, NUMBACONV_CACHE_DIR=str(file / "kernels"), NUMBA_NUM_THREADS="2")
    ours, _, _, folder, _ = counted(done)
    assert ours > 0 and folder == "None"
    assert "NUMBACONV_CACHE_DIR" in done.stderr and str(file) in done.stderr
    assert file.read_text() == "not a folder"


def test_only_entry_points_are_machine_code(python, tmp_path):
    counted(python(COUNTING, NUMBACONV_CACHE_DIR=str(tmp_path), NUMBA_NUM_THREADS="2"))
    names = {tuple(file.name.split("-")[0].split(".")) for file in tmp_path.rglob("*.nbi")}
    assert ("packing", "pack_part") in names and ("packing", "pack_taps") not in names
    for module, name in names:
        assert not isinstance(getattr(importlib.import_module(f"numbaconv.loops.{module}"), name), LinkedFunction)


def test_python_is_refused_by_what_only_compiled_code_calls():
    for _ in range(2):
        with pytest.raises(TypeError, match="share is called by compiled functions only"):
            share(np.int64(10), np.int64(0), np.int64(2))


DIGEST = "from numbaconv.codegen.jit import source_digest; print(source_digest())"


def test_an_edited_generator_gets_a_folder_of_its_own(python, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "numbaconv", ignore=shutil.ignore_patterns("__pycache__"))
    digests = [python(DIGEST, package=tmp_path).stdout]
    assert digests[0] == python(DIGEST).stdout
    for source in ("codegen/vector.py", "loops/tables.py", "reference.py"):
        with open(tmp_path / "numbaconv" / source, "a", encoding="utf-8") as file:
            file.write("\n# changed\n")
        digests.append(python(DIGEST, package=tmp_path).stdout)
    with open(tmp_path / "numbaconv" / "layers.py", "a", encoding="utf-8") as file:
        file.write("\n# changed\n")  # no machine code comes from here
    assert len(set(digests)) == 4 and python(DIGEST, package=tmp_path).stdout == digests[-1]


def test_every_instruction_set_has_a_folder_of_its_own(python):
    asked = [python(DIGEST, NUMBACONV_ISA=isa).stdout for isa in NARROWER]
    assert len(set(asked)) == len(NARROWER)


def test_importing_the_package_needs_little_and_writes_nothing(python, tmp_path):
    done = python(
        """
        import sys
        import numba  # which brings SciPy where it finds it

        before = set(sys.modules)
        import numbaconv

        optional = {"onnx", "onnxruntime", "torch", "typer", "rich", "scipy", "PIL"}
        print(optional & (set(sys.modules) - before))
        """,
        NUMBACONV_CACHE_DIR=str(tmp_path / "kernels"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        HOME=str(tmp_path / "home"),
    )
    assert done.stdout == "set()\n" and done.stderr == ""
    assert not any((tmp_path / name).exists() for name in ("kernels", "cache", "home"))


# --- instructions ------------------------------------------------------------------------------------------------

REGISTERS = {"avx512": "zmm", "avx2": "ymm", "neon": "xmm", "generic": "xmm"}
X86 = machine().isa in ("avx512", "avx2") or "sse2" in machine().features
NARROWER = [isa for isa, size in VECTOR_BYTES.items() if size <= machine().vector_bytes]

EXACT = """
    import numpy as np
    import numbaconv as nc
    from numbaconv.machine import machine
    from strategies import ConvProblem, able, make_operands, whole_numbers, FAST

    done = {machine().isa}
    with nc.num_threads(1):
        for text in ("c5h9w11o37k3p1", "c7h13w5o18k1f64", "c6h5w5o6k3s2g3cl", "n2c37h9w14o37k3p1g37", "c7h13w5o6k1"):
            given = make_operands(ConvProblem.parse(text), whole_numbers, residual=True, activation="relu")
            for name in able(given.problem, FAST):
                np.testing.assert_array_equal(given.conv(name), given.oracle(), err_msg=f"{text} {name}")
                done.add(name)
        line, identity = np.linspace(-3, 3, 50, dtype=np.float32).reshape(1, 1, 50, 1), np.ones((1, 1, 1, 1), np.float32)
        for activation in ("gelu", "tanh", "silu"):
            call = {"layout": "channels_last", "activation": activation}
            expected = nc.conv2d(line, identity, algorithm="reference", **call)
            np.testing.assert_allclose(nc.conv2d(line, identity, algorithm="direct", **call), expected, 1e-5, 1e-6)
    print(*sorted(done))
"""


@pytest.mark.parametrize("isa", NARROWER)
def test_every_instruction_set_is_exact(isa, python):
    assert set(python(EXACT, NUMBACONV_ISA=isa).stdout.split()) == {isa, *FAST}


#: The cores' assembly, freshly compiled: a library that comes from the cache may have lost its text.
ASSEMBLY = """
    import sys

    from numba import types
    from numbaconv.codegen.sliding import KERNELS, Kernel
    from numbaconv.codegen.target import target
    from numbaconv.loops.gemm import gemm_core
    from numbaconv.loops.sliding import sliding_core

    kernels = Kernel(), Kernel(3, 1), Kernel(piece=target().piece)
    signature = types.void(types.intp, types.float32, types.float32)
    with open(sys.argv[1], "w") as file:
        for core in (gemm_core, *(sliding_core("depthwise", KERNELS.index(kernel)) for kernel in kernels)):
            file.write(core.compiled(signature)._library.get_asm_str())
"""


@pytest.fixture(scope="module")
def assemblies():
    return {}


@pytest.fixture
def assembly(assemblies, python, tmp_path):
    """The cores' assembly for an instruction set, each compiled once."""

    def text(isa: str) -> str:
        if isa not in assemblies:
            file = tmp_path / "core.s"
            python(ASSEMBLY, str(file), NUMBACONV_ISA=isa, NUMBACONV_CACHE_DIR=str(tmp_path / "kernels"))
            assemblies[isa] = file.read_text()
        return assemblies[isa]

    return text


def tiles(text: str, isa: str, operation: str = "gemm") -> dict[tuple[int, int], str]:
    """Bodies of an operation's float32 tiles, by rows and vectors."""
    parts = re.split(r"^_?([A-Za-z$][\w.$]*):", text, flags=re.MULTILINE)
    bodies = zip(parts[1::2], parts[2::2], strict=True)
    found = ((re.fullmatch(rf"f32_{operation}_(\d+)x(\d+)_{isa}", name), body) for name, body in bodies)
    return {tuple(map(int, name.groups())): body for name, body in found if name}


def loops(body: str) -> list[list[str]]:
    """Instructions from a label to the last jump back to it, of loops that hold no other."""
    labels, lines, jumps = {}, [], {}
    for line in map(str.strip, body.splitlines()):
        if label := re.match(r"(\.?L[\w$]+):", line):
            labels[label[1]] = len(lines)
        elif line and not line.startswith((".", "#")):
            jump = re.match(r"j\w+\s+(\S+)$", line)
            if jump and jump[1] in labels:
                jumps[labels[jump[1]]] = len(lines) + 1
            lines.append(line)
    inner = [(i, j) for i, j in jumps.items() if not any(i < m and n <= j for m, n in jumps.items())]
    return [lines[i:j] for i, j in inner]


def fused(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("vfmadd")]


@pytest.mark.skipif(not X86, reason="the names of registers are those of x86")
@pytest.mark.parametrize("isa", NARROWER)
def test_tiles_use_the_registers_of_the_instruction_set(isa, assembly):
    text, widest = "\n".join(tiles(assembly(isa), isa).values()), REGISTERS[isa]
    assert len(re.findall(rf"v?f?m(?:add|ul)\w*\s.*{widest}", text)) > 100
    wider = {"xmm": "[yz]mm", "ymm": "zmm", "zmm": None}[widest]
    assert wider is None or not re.search(rf"%{wider}\d", text)


@pytest.mark.skipif(not X86, reason="labels are read as x86 writes them")
@pytest.mark.parametrize("isa", NARROWER)
def test_tiles_of_every_size_are_named_by_type_operation_size_and_instruction_set(isa, assembly):
    rows, vectors, wide_rows = TARGETS[isa].rows, TARGETS[isa].vectors, TARGETS[isa].wide_rows
    # every height and width, so that no edge needs a loop of its own
    narrow = {(m, v) for m in range(1, rows + 1) for v in range(1, vectors + 1)}
    wide = {(m, v) for m in range(1, wide_rows + 1) for v in range(vectors + 1, 2 * vectors + 1)}
    assert set(tiles(assembly(isa), isa)) == narrow | wide
    pixels = TARGETS[isa].pixels
    depthwise = {(m, v) for m in range(1, pixels + 1) for v in range(1, vectors + 1)}
    assert set(tiles(assembly(isa), isa, "depthwise")) == depthwise
    if isa == "avx512":
        assert re.search(r"^f32_gemm_12x2_avx512:", assembly(isa), re.MULTILINE)


@pytest.mark.skipif(machine().isa not in ("avx512", "avx2"), reason="fused multiply-adds of x86")
@pytest.mark.parametrize(
    "isa, kind",
    [
        ("avx512", "gemm"),
        ("avx512", "wide"),
        ("avx512", "depthwise"),
        ("avx512", "depthwise_k3s1"),
        ("avx512", "depthwise_p7"),
        ("avx2", "gemm"),
        ("avx2", "depthwise"),
        ("avx2", "depthwise_k3s1"),
        ("avx2", "depthwise_p5"),
    ],
)
def test_the_hot_loop_keeps_its_accumulators_in_registers(isa, kind, assembly):
    if isa not in NARROWER:
        pytest.skip("this machine's vectors are narrower")
    on = TARGETS[isa]
    rows, vectors = {
        "gemm": (on.rows, on.vectors),
        "wide": (on.wide_rows, 2 * on.vectors),
        "depthwise": (on.pixels, on.vectors),
        "depthwise_k3s1": (on.pixels, on.vectors),
        f"depthwise_p{on.piece}": (on.tall, 1),
    }[kind]
    # tiles that know their kernel, or take its runs in pieces, look for padding
    form = isa + "_bordered" if "_" in kind else isa
    body = tiles(assembly(isa), form, "gemm" if kind == "wide" else kind)[rows, vectors]
    hot = max(loops(body), key=lambda lines: len(fused(lines)))
    # channels of a dense tile, taps of a run that slides over neighbouring pixels
    unrolled = {"depthwise": on.chunk, "depthwise_k3s1": 3, f"depthwise_p{on.piece}": on.piece}.get(kind, UNROLL)
    assert len(fused(hot)) == unrolled * rows * vectors
    assert all(REGISTERS[isa] in line for line in fused(hot))
    # rbp holds the address of a row where the function keeps no frame pointer
    framed = re.search(r"movq\s+%rsp, %rbp", body)
    stack = r"\(%r[sb]p[,)]" if framed else r"\(%rsp[,)]"
    spills = [line for line in hot if REGISTERS[isa] in line and re.search(stack, line)]
    # where tiles look for padding, sixteen registers do not hold weights and sums from branch to branch, at no cost that was found
    assert not spills or (isa, kind) == ("avx2", "depthwise_k3s1"), spills


@pytest.mark.skipif(machine().isa not in ("avx512", "avx2"), reason="vectors of x86")
@pytest.mark.parametrize("isa", [isa for isa in NARROWER if isa in ("avx512", "avx2")])
def test_a_run_loads_each_pixel_once_for_all_its_taps(isa, assembly):
    (rows, vectors), body = max(tiles(assembly(isa), isa, "depthwise").items())
    hot = max(loops(body), key=lambda lines: len(fused(lines)))
    taps = TARGETS[isa].chunk
    loads = [line for line in hot if REGISTERS[isa] in line and "(" in line]
    assert len(loads) == vectors * (taps + rows + taps - 1)


@pytest.mark.skipif(machine().isa not in ("avx512", "avx2"), reason="instructions of x86")
@pytest.mark.parametrize("isa", [isa for isa in NARROWER if isa in ("avx512", "avx2")])
def test_tall_tiles_ask_for_the_lines_of_results_and_residual(isa, assembly):
    on, found = TARGETS[isa], tiles(assembly(isa), isa)
    asked = len(re.findall(r"\tprefetch", found[on.rows, on.vectors]))
    assert asked == 2 * on.rows * -(-on.vectors * on.vector_bytes // 64)
    assert "\tprefetch" not in found[1, on.vectors]


# --- other machines, other processes -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ("im2col", "pointwise", "direct", "indirect"))
def test_results_beyond_the_l2_are_asked_for_and_stay_what_they_are(name):
    problem = ConvProblem.parse("n2c40h16w16o70k1cl")
    for residual in (False, True):
        given_ = make_operands(problem, whole_numbers, residual=residual)
        for l2 in (64 << 10, 64 << 20):
            out, plan = planned_on(replace(machine(), l2=l2), given_, name)
            np.testing.assert_array_equal(out, given_.oracle())
            assert plan._default.record["far_results"] == (l2 == 64 << 10)


def planned_on(on, given_, name) -> tuple[np.ndarray, object]:
    """The result of an algorithm that plans for the machine `on`, and its plan."""
    algorithm = next(algorithm for algorithm in ALGORITHMS if algorithm.name == name)
    problem = given_.problem
    inner = algorithm.plan(problem, Weights(given_.weight, given_.bias, problem.groups), given_.epilogue, on)
    plan = inner if algorithm.native(problem) else ChannelsFirst(inner, problem)
    out = np.full(problem.output_shape, np.nan, problem.np_dtype)
    plan.run(given_.x, out, given_.residual)
    return out, plan


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ("f32", "f64"))
def test_pointwise_packs_rows_that_collide_in_a_small_l1(dtype, layout):
    problem = ConvProblem.parse(f"n2c1024h13w11o40k1bias{dtype}{'cl' if layout == 'channels_last' else ''}")
    given_ = make_operands(problem, whole_numbers, residual=True, activation="relu")
    result, plan = planned_on(replace(machine(), l1=4096), given_, "pointwise")
    np.testing.assert_array_equal(result, given_.oracle())
    # at least one tile of rows, at most what a block may take
    assert MR * 1024 * problem.itemsize <= plan.workspace_bytes <= 1 << 20
    in_place = planned_on(replace(machine(), l1=1 << 20), given_, "pointwise")[1]
    assert in_place.workspace_bytes < MR * 1024 * problem.itemsize


SMALL_L2 = (
    "n2c32h17w19o100k3p1bias",  # several column blocks, several tile blocks
    "n2c96h15w15o100k1bias",
    "c70h23w21o90k1s2bias",
    "n2c40h23w23o40k3p1g40bias",
    "c48h19w19o140k3s2p1g2bias",
    "c260h9w9o70k3p1dil2bias",  # one panel of weights is larger than this L2
    # few channels: more lines, and longer ones, than a strip holds; strips beside blocks that lie inside of the input
    "n2c3h31w60o20k3p1bias",
    "c3h3w535o20k3p1bias",
    "c3h60w59o20kh3kw2ph1pw0s2bias",
    "n2c40d4h11w13o40k3p1g40bias",  # blocks of lines that are walked slice by slice
    "c24d5h11w13o24k3s2p1g8bias",
)


@pytest.mark.parametrize("problem, name", pairs(*SMALL_L2, layouts=("cf", "cl")))
def test_the_size_of_the_l2_changes_no_bit(problem, name):
    given_ = make_operands(problem, normals, residual=True, activation="relu")
    small, usual, large = (
        planned_on(replace(machine(), l2=l2), given_, name)[0] for l2 in (64 << 10, machine().l2, 64 << 20)
    )
    assert bits(small) == bits(usual) == bits(large)


@pytest.mark.parametrize("problem, name", pairs(*SMALL_L2, layouts=("cf", "cl")))
def test_blocks_of_a_small_l2_are_exact(problem, name):
    given_ = make_operands(problem, whole_numbers, residual=True, activation="relu")
    on = replace(machine(), l1=4096, l2=64 << 10)
    np.testing.assert_array_equal(planned_on(on, given_, name)[0], given_.oracle())


@pytest.mark.parametrize("activation", (None, "relu"))
@pytest.mark.parametrize(
    "problem, name", pairs("n2c16h17w19o64k3p1bias", "n2c96h16w16o128k1bias", layouts=("cf", "cl"))
)
def test_results_written_past_the_caches_have_the_same_bits(problem, name, activation):
    given_ = make_operands(problem, normals, activation=activation)
    algorithm = next(algorithm for algorithm in ALGORITHMS if algorithm.name == name)
    weights = Weights(given_.weight, given_.bias, problem.groups)
    results = set()
    for l2 in (64 << 10, 64 << 20):
        plan = algorithm.plan(problem, weights, given_.epilogue, replace(machine(), l2=l2))
        plan = plan if algorithm.native(problem) else ChannelsFirst(plan, problem)
        size = prod(problem.output_shape)
        memory = aligned((size + 1) * problem.itemsize).view(problem.np_dtype)
        for start in (0, 1):  # only aligned results can go past the caches
            out = memory[start : start + size].reshape(problem.output_shape)
            plan.run(given_.x, out)
            results.add(bits(out))
    assert len(results) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_pickled_layer_gives_the_same_bits(layout):
    text = "n2c9h13w11o20k3s2p1_2dil2g1bias" + ("cl" if layout == "channels_last" else "")
    given_ = make_operands(ConvProblem.parse(text), normals, residual=True, activation=("leaky_relu", 0.25))
    layer = given_.layer("indirect")
    expected = bits(layer(given_.x, residual=given_.residual))  # a layer with plans, which hold addresses
    again = pickle.loads(pickle.dumps(layer))
    assert again.plan(given_.x.shape).algorithm == "indirect"
    assert bits(again(given_.x, residual=given_.residual)) == expected
