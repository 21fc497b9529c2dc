"""The package is built in layers, each of which knows only those below it; its sources are parsed here, not imported."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import numbaconv
from numbaconv.algorithms import ALGORITHMS

PACKAGE = Path(numbaconv.__file__).resolve().parent
#: A layer imports from itself and from those before it.  `__init__` is the public interface, a facade of those before it.
LAYERS = (
    "memo", "errors", "options", "values", "accuracy", "sizes", "problem", "arithmetic", "epilogue", "machine", "codegen",
    "workspace", "loops", "reference", "fourier", "algorithms", "dispatch", "arguments", "described", "signals", "filters",
    "separable", "base_layer", "layers", "graph_convolution", "resize", "shuffle", "causal", "depthwise_separable",
    "deformable", "transposed", "backward", "functional", "graph", "__init__", "torch_autograd", "cli", "__main__",
)  # fmt: skip
#: Optional dependencies, and those of tests: none is needed for a convolution.
OPTIONAL = ("onnx", "onnxruntime", "torch", "typer", "rich", "scipy", "PIL", "matplotlib")
NAMES = {algorithm.name for algorithm in ALGORITHMS}
#: "depthwise" is also an operation of register tiles, which knows nothing of algorithms; two are SciPy's words for methods.
OTHER_MEANINGS = {"codegen": {"depthwise"}, "loops": {"depthwise"}, "signals": {"direct", "fft"}, "filters": {"direct"}}
LONGEST = 450

FILES = sorted(PACKAGE.rglob("*.py"))
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def layer_of(path: Path) -> str:
    """The name of a file's layer: its folder inside the package, or its own name where it is in none."""
    top = path.relative_to(PACKAGE).parts[0]
    return top.removesuffix(".py")


def at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when a module is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from at_import(child)


def file_of(name: str) -> Path | None:
    """The file of a module of the package by its dotted name, or None if there is no such module."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported(nodes) -> list[str]:
    """Dotted names of the modules that these nodes import, where `from package import module` is the module."""
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                names.append(inner if file_of(inner) else node.module)
    return names


def imported_files(path: Path) -> set[Path]:
    """Files of the package that a module imports when it is imported."""
    names = imported(at_import(parsed(path)))
    return {file_of(name) for name in names if name.split(".")[0] == "numbaconv"}


def test_every_file_has_a_layer_and_every_layer_a_file():
    assert {layer_of(path) for path in FILES} == set(LAYERS)


@every_file
def test_imports_point_one_way(path):
    rank = LAYERS.index(layer_of(path))
    above = [file for file in imported_files(path) if LAYERS.index(layer_of(file)) > rank]
    assert not above, f"{layer_of(path)} may import only from {', '.join(LAYERS[: rank + 1])}"


def test_no_modules_import_each_other():
    TopologicalSorter({path: imported_files(path) - {path} for path in FILES}).prepare()


@every_file
def test_only_the_code_generator_knows_llvm(path):
    modules = {name.split(".")[0] for name in imported(ast.walk(parsed(path)))}
    assert "llvmlite" not in modules or layer_of(path) == "codegen"


def docstrings(tree: ast.Module) -> set[int]:
    """Identities of the constants that document something."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, owners) and node.body and isinstance(node.body[0], ast.Expr)
    }


@every_file
def test_an_algorithm_is_named_in_its_own_package_only(path):
    if layer_of(path) == "algorithms":
        return
    tree, allowed = parsed(path), OTHER_MEANINGS.get(layer_of(path), set())
    documentation = docstrings(tree)
    named = [
        f"line {node.lineno}: {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value in NAMES - allowed
        and id(node) not in documentation
    ]
    assert not named


@every_file
def test_no_module_is_too_long_to_be_read(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST


@every_file
def test_modules_and_their_public_names_are_documented(path):
    tree = parsed(path)
    public = [
        node
        for node in tree.body
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
    ]
    assert ast.get_docstring(tree), "the module has no docstring"
    assert not [node.name for node in public if not ast.get_docstring(node)]


@pytest.mark.parametrize("name", numbaconv.__all__)
def test_the_public_interface_is_documented_to_its_methods(name):
    value = getattr(numbaconv, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value):
        own = {key: member for key, member in vars(value).items() if not key.startswith("_")}
        documentable = (inspect.isroutine, inspect.isdatadescriptor)
        members = {key: member for key, member in own.items() if any(kind(member) for kind in documentable)}
        assert not [key for key, member in members.items() if not inspect.getdoc(member)]


@every_file
def test_no_file_refers_to_what_is_not_shipped(path):
    assert "shared/" not in path.read_text(encoding="utf-8")


def test_importing_the_package_needs_nothing_optional_and_writes_nothing(python, tmp_path):
    folder = tmp_path / "cache"
    done = python(
        f"""
        import sys
        import numba  # which takes SciPy where it is installed
        before = set(sys.modules)
        import numbaconv
        print(*sorted({{name.split(".")[0] for name in set(sys.modules) - before}} & set({OPTIONAL!r})))
        """,
        NUMBACONV_CACHE_DIR=str(folder),
    )
    assert done.stdout.split() == []
    assert not folder.exists()
