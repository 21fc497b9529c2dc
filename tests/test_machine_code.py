"""Machine code is kept between processes, follows its sources, and is what the instruction set allows."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import numbaconv
from numbaconv.machine import VECTOR_BYTES, machine

PACKAGE = Path(numbaconv.__file__).resolve().parent
#: Counts compilations of ours, and of anything at all, while two convolutions run.
COUNTING = """
    from numba.core import event

    import numpy as np
    import numbaconv as nc
    from numbaconv.codegen.jit import cache_folder, on_compile

    class Listener(event.Listener):
        count = 0

        def on_start(self, event):
            self.count += 1

        def on_end(self, event):
            pass

    listener, ours = Listener(), []
    event.register("numba:compile", listener)
    with on_compile(lambda name, seconds: ours.append(name) if seconds is None else None):
        for threads in (1, 2):
            with nc.num_threads(threads):
                x, weight = np.ones((1, 3, 20, 20), np.float32), np.ones((5, 3, 3, 3), np.float32)
                y = nc.conv2d(x, weight, algorithm="direct")
    assert y.shape == (1, 5, 18, 18) and np.all(y == 27)
    print(len(ours), listener.count, cache_folder())
"""


def counted(done):
    ours, all_, folder = done.stdout.split()
    return int(ours), int(all_), folder


def test_the_second_process_compiles_nothing(python, tmp_path):
    first = counted(python(COUNTING, NUMBACONV_CACHE_DIR=str(tmp_path / "kernels"), NUMBA_NUM_THREADS="2"))
    second = counted(python(COUNTING, NUMBACONV_CACHE_DIR=str(tmp_path / "kernels"), NUMBA_NUM_THREADS="2"))
    assert first[0] > 0 and first[1] > 0
    assert second == (0, 0, first[2])
    assert Path(first[2]).is_relative_to(tmp_path)


def test_a_folder_that_cannot_be_written_costs_a_warning_only(python, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a folder")
    done = python(COUNTING, NUMBACONV_CACHE_DIR=str(file / "kernels"), NUMBA_NUM_THREADS="2")
    ours, _, folder = counted(done)
    assert ours > 0 and folder == "None"
    assert "NUMBACONV_CACHE_DIR" in done.stderr and str(file) in done.stderr
    assert file.read_text() == "not a folder"


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
    assert python(DIGEST).stdout != python(DIGEST, NUMBACONV_ISA="generic").stdout


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

#: Exact sums on one thread, then the assembly of the GEMM core, which is freshly compiled since nothing is kept.
ASSEMBLY = """
    import sys

    import numpy as np
    from numba import types
    import numbaconv as nc
    from numbaconv.loops import gemm
    from strategies import ConvProblem, make_operands, whole_numbers

    for text in ("c5h9w11o37k3p1bias", "n2c6h5w5o6k3s2g3bias", "c13h4w13o70k1"):
        given = make_operands(ConvProblem.parse(text + "cl"), whole_numbers, residual=True, activation="relu")
        with nc.num_threads(1):
            np.testing.assert_array_equal(given.conv2d("direct"), given.oracle())
    for activation in ("gelu", "tanh", "silu"):
        given = make_operands(ConvProblem.parse("c2h1w50o3k1cl"), whole_numbers, activation=activation)
        with nc.num_threads(1):
            np.testing.assert_allclose(given.conv2d("direct"), given.oracle(), rtol=1e-5, atol=1e-6)

    core = gemm._cores["gemm"].compiled(types.void(types.intp, types.float32, types.float32))
    open(sys.argv[1], "w").write(core._library.get_asm_str())
"""
REGISTERS = {"avx512": "zmm", "avx2": "ymm", "neon": "xmm", "generic": "xmm"}
X86 = machine().isa in ("avx512", "avx2") or "sse2" in machine().features
NARROWER = [isa for isa, size in VECTOR_BYTES.items() if size <= machine().vector_bytes]


@pytest.fixture(scope="module")
def assemblies():
    return {}


def assembly(isa, assemblies, python, tmp_path) -> str:
    """The GEMM core's assembly; every instruction set is compiled once."""
    if isa not in assemblies:
        (tmp_path / "file").touch()
        folder = str(tmp_path / "file" / "kernels")
        python(ASSEMBLY, str(tmp_path / "core.s"), NUMBACONV_ISA=isa, NUMBACONV_CACHE_DIR=folder)
        assemblies[isa] = (tmp_path / "core.s").read_text()
    return assemblies[isa]


def functions(text: str) -> dict[str, str]:
    """The bodies of the tiles, by name."""
    parts = re.split(r"^([A-Za-z_.$][\w.$]*):", text, flags=re.MULTILINE)
    bodies, name = {}, None
    for label, body in zip(parts[1::2], parts[2::2], strict=True):
        if not label.startswith((".L", "L")):
            name = label
        bodies[name] = bodies.get(name, "") + f"{label}:{body}"
    return bodies


def loops(body: str) -> list[list[str]]:
    """Straight runs of instructions that jump back to their own start."""
    blocks = re.split(r"^(\.?L[\w$]+):.*$", body, flags=re.MULTILINE)
    found = []
    for label, block in zip(blocks[1::2], blocks[2::2], strict=True):
        lines = [
            line.strip() for line in block.splitlines() if line.strip() and not line.strip().startswith((".", "#"))
        ]
        jumps = [i for i, line in enumerate(lines) if re.match(rf"j\w+\s+{re.escape(label)}$", line)]
        if jumps:
            found.append(lines[: jumps[-1] + 1])
    return found


@pytest.mark.skipif(not X86, reason="the names of registers are those of x86")
@pytest.mark.parametrize("isa", NARROWER)
def test_the_core_is_exact_and_uses_the_registers_of_the_instruction_set(isa, assemblies, python, tmp_path):
    text = assembly(isa, assemblies, python, tmp_path)
    widest = REGISTERS[isa]
    tiles = "\n".join(body for name, body in functions(text).items() if re.search(rf"f32_gemm_\d+x\d+_{isa}$", name))
    assert len(re.findall(rf"v?f?m(?:add|ul)\w*\s.*{widest}", tiles)) > 100
    wider = {"xmm": "[yz]mm", "ymm": "zmm", "zmm": None}[widest]
    assert wider is None or not re.search(rf"%{wider}\d|\b{wider}\d", tiles)


@pytest.mark.skipif(not X86, reason="the names of registers are those of x86")
@pytest.mark.parametrize("isa", NARROWER)
def test_tiles_are_named_by_type_operation_size_and_instruction_set(isa, assemblies, python, tmp_path):
    names = set(re.findall(rf"\bf32_gemm_\w+_{isa}\b", assembly(isa, assemblies, python, tmp_path)))
    sizes = {tuple(map(int, re.fullmatch(rf"f32_gemm_(\d+)x(\d+)_{isa}", name).groups())) for name in names}
    rows, vectors = max(sizes)
    # every height and width, so that no edge needs a loop of its own
    assert sizes == {(m, v) for m in range(1, rows + 1) for v in range(1, vectors + 1)}
    if isa == "avx512":
        assert "f32_gemm_12x2_avx512" in names


@pytest.mark.skipif(machine().isa not in ("avx512", "avx2"), reason="fused multiply-adds of x86")
def test_the_hot_loop_keeps_its_accumulators_in_registers(assemblies, python, tmp_path):
    isa = machine().isa
    bodies = functions(assembly(isa, assemblies, python, tmp_path))
    tiles = {
        tuple(map(int, found.groups())): body
        for name, body in bodies.items()
        if (found := re.search(rf"f32_gemm_(\d+)x(\d+)_{isa}$", name))
    }
    (rows, vectors), body = max(tiles.items())

    def fused(lines):
        return [line for line in lines if line.startswith("vfmadd")]

    hot, vector = max(loops(body), key=lambda lines: len(fused(lines))), REGISTERS[isa]
    assert len(fused(hot)) % (rows * vectors) == 0 and len(fused(hot)) >= rows * vectors
    assert all(vector in line for line in fused(hot))
    spills = [line for line in hot if line.startswith("vmov") and vector in line and re.search(r"%rsp|\[rsp", line)]
    assert not spills, spills
