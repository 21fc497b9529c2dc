"""Products of matrices that are both computed: batches, vectors, transposed operands, and what tiles do to their sums."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("onnx")

from graphs import F32, F64, allocated, model_of, node, ops, optimised, random  # noqa: E402

import numbaconv as nc  # noqa: E402
from numbaconv.algorithms import MATMULS  # noqa: E402
from numbaconv.algorithms.matmul import MatmulPlan  # noqa: E402
from numbaconv.epilogue import Epilogue  # noqa: E402
from numbaconv.graph import InferenceSession, SessionOptions  # noqa: E402
from numbaconv.graph.batches import batch_of  # noqa: E402
from numbaconv.loops.shares import run_shares  # noqa: E402
from numbaconv.machine import machine  # noqa: E402
from numbaconv.problem import ConvProblem  # noqa: E402
from numbaconv.workspace import aligned  # noqa: E402

few = settings(max_examples=40)
KINDS = {F32: np.float32, F64: np.float64}
MATMUL = node("MatMul", "a b")


def whole(rng, *shape, dtype=np.float32):
    return rng.integers(-4, 5, shape).astype(dtype)


def session_of(*nodes, kind=F32, threads=0, opset=17, feed, **constants):
    (x, *others) = feed.items()
    inputs = {name: array.shape for name, array in others}
    model = model_of(*nodes, x=x[1].shape, kind=kind, opset=opset, inputs=inputs, **constants)
    model.graph.input[0].name = x[0]
    return InferenceSession(model.SerializeToString(), SessionOptions(threads))


def result(*nodes, feed, **options):
    """The only output, whose bits are the same on one thread and on two; all steps are compiled."""
    results = []
    for threads in (1, 2):
        session = session_of(*nodes, feed=feed, threads=threads, **options)
        results += session.run(None, feed)
    assert np.array_equal(*results, equal_nan=True), "bits depend on threads"
    assert not {row.algorithm for row in session.report()} & {"numpy", "BLAS of NumPy", "onnx reference"}
    return results[0], [row.op for row in session.report()]


@st.composite
def operands(draw):
    """Two arrays that have a product, and permutations that a Transpose before it applies to them."""
    m, k, n = (draw(st.integers(1, 40)) for _ in range(3))
    batch = draw(st.lists(st.integers(1, 4), max_size=3))
    rng, dtype = np.random.default_rng(draw(st.integers(0, 99))), draw(st.sampled_from([np.float32, np.float64]))
    made = []
    for shape, vector in (((m, k), (k,)), ((k, n), (k,))):
        if draw(st.integers(0, 5)) == 0:
            made.append((whole(rng, *vector, dtype=dtype), (0,)))
            continue
        own = [size if draw(st.booleans()) else 1 for size in batch[draw(st.integers(0, len(batch))) :]]
        shape = (*own, *shape)
        perm = draw(st.permutations(range(len(shape)))) if draw(st.booleans()) else tuple(range(len(shape)))
        made.append((whole(rng, *(shape[axis] for axis in np.argsort(perm)), dtype=dtype), tuple(perm)))
    return made


@few
@given(operands())
def test_products_are_those_of_numpy_however_operands_are_shaped_and_lie(pair):
    (a, turn_a), (b, turn_b) = pair
    nodes = node("Transpose", "a", "p", perm=turn_a), node("Transpose", "b", "q", perm=turn_b), node("MatMul", "p q")
    y, _ = result(*nodes, feed={"a": a, "b": b}, kind=F32 if a.dtype == np.float32 else F64)
    expected = np.matmul(a.transpose(turn_a), b.transpose(turn_b))
    assert y.shape == expected.shape
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_panels_and_rows_that_collide_in_the_l1(rng, kind):
    """K of 1024 rows a panel, of which not all stay in the L2, and rows 4 KiB apart, which are packed."""
    a, b = whole(rng, 45, 1024, dtype=KINDS[kind]), whole(rng, 1024, 700, dtype=KINDS[kind])
    y, _ = result(MATMUL, feed={"a": a, "b": b}, kind=kind)
    np.testing.assert_array_equal(y, a @ b)


@pytest.mark.parametrize("algorithm", MATMULS, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("turned", [False, True], ids=["columns", "rows"])
def test_every_algorithm_multiplies_batches_times_a_factor_and_adds(rng, algorithm, turned):
    """Matrices of very different size, each of which has a scale of its own where operands are split."""
    m, k, n = 50, 37, 70
    problem = ConvProblem.of((1, m, k), (n, k, 1), bias=False, layout="channels_last")
    if reason := algorithm.unsupported(problem, Epilogue(), machine()):
        pytest.skip(reason)
    sizes = np.array([2.0**-20, 1, 2.0**20], np.float32).reshape(3, 1, 1, 1)
    # with a gap, so that rows of the two that meet one matrix are not those of one product
    a = whole(rng, 3, 3, m, k)[:, ::2]
    b, addend = whole(rng, 3, 1, k, n) * sizes, whole(rng, 3, 1, 1, n) * sizes
    b = np.ascontiguousarray(b.swapaxes(-1, -2)).swapaxes(-1, -2) if turned else b
    expected = 0.25 * (a @ b) + addend
    views = a, np.broadcast_to(b, (3, 2, k, n)), expected, np.broadcast_to(addend, expected.shape)
    batch = batch_of(views)
    assert (batch.matrices, batch.products) == (3, 6)
    plan = MatmulPlan(
        algorithm, problem, Epilogue(residual=True), (k, n, 0), b.strides[-2:], batch.loops, 0.25, machine()
    )
    for threads in (1, 2):
        y, table = np.zeros_like(expected), np.array([b.ctypes.data, addend.ctypes.data])
        shares = plan.shares(threads)
        workspace = aligned(shares.pitch * shares.rows * shares.columns)
        run_shares(shares, a.ctypes.data, y.ctypes.data, table.ctypes.data, workspace.ctypes.data)
        np.testing.assert_array_equal(y, expected)


FUSED = {
    "a factor and a sum": ((node("Mul", "p half", "f"), node("Add", "f c")), (2, 3, 20, 30), ["MatMul+Add"]),
    "a divisor and one row": ((node("Div", "p four", "f"), node("Add", "c f")), (30,), ["MatMul+Add"]),
    "a sum and its activation": ((node("Add", "p c", "s"), node("Relu", "s")), (3, 20, 30), ["MatMul+Add+relu"]),
    "a column is copied": ((node("Add", "p c"),), (20, 1), ["Copy", "MatMul+Add"]),
    "a larger addend": ((node("Add", "p c", "s"), node("Relu", "s")), (5, 2, 3, 20, 30), ["MatMul", "Add+relu"]),
}


@pytest.mark.parametrize("case", FUSED)
def test_what_follows_a_product_is_applied_to_its_sums(rng, case):
    steps, shape, names = FUSED[case]
    a, b, c = whole(rng, 2, 3, 20, 8), whole(rng, 2, 3, 8, 30), whole(rng, *shape)
    y, made = result(node("MatMul", "a b", "p"), *steps, feed={"a": a, "b": b, "c": c}, half=0.5, four=4)
    factor = {"Mul": 0.5, "Div": 0.25}.get(steps[0].op_type, 1)
    expected = factor * (a @ b) + c
    np.testing.assert_array_equal(y, np.maximum(expected, 0) if steps[-1].op_type == "Relu" else expected)
    assert made == names


@pytest.mark.parametrize("c", [None, (5, 3), (3,), (5, 1), (1,), ()])
@pytest.mark.parametrize("known", [False, True], ids=["computed", "constant"])
def test_gemm(rng, c, known):
    a, b = whole(rng, 4, 5), whole(rng, 3, 4)
    attributes = {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 0.25}
    feed, addend = {"a": a, "b": b}, 0.0 if c is None else whole(rng, *c)
    constants = {"c": addend} if known and c is not None else {}
    feed |= {"c": addend} if not known and c is not None else {}
    y, _ = result(node("Gemm", "a b" if c is None else "a b c", **attributes), feed=feed, **constants)
    np.testing.assert_array_equal(y, 0.5 * (a.T @ b.T) + 0.25 * addend)


def test_operands_are_scaled_in_passing_and_heads_are_put_side_by_side(rng):
    """Attention's own reading and writing: factors of both operands, and a result that its Transpose finds as a view."""
    q, k, v = (whole(rng, 2, 9, 3, 4) for _ in range(3))
    heads = [node("Transpose", name, f"{name}h", perm=perm) for name, perm in
             (("q", (0, 2, 1, 3)), ("k", (0, 2, 3, 1)), ("v", (0, 2, 1, 3)))]  # fmt: skip
    steps = (
        node("Mul", "qh half", "qs"), node("Mul", "kh half", "ks"), node("MatMul", "qs ks", "s"), node("MatMul", "s vh", "o"),
        node("Transpose", "o", "t", perm=(0, 2, 1, 3)), node("Reshape", "t shape", "r"), node("Abs", "r"),
    )  # fmt: skip
    y, made = result(*heads, *steps, feed={"q": q, "k": k, "v": v}, half=0.5, shape=np.array([2, 9, 12]))
    scores = np.einsum("bqhc,bkhc->bhqk", q, k) / 4
    np.testing.assert_array_equal(y, np.abs(np.einsum("bhqk,bkhc->bqhc", scores, v).reshape(2, 9, 12)))
    assert made == ["MatMul", "MatMul", "Abs"]


def test_a_nan_stays_in_its_row_or_column(rng):
    a, b = whole(rng, 2, 20, 30), whole(rng, 2, 30, 40)
    a[0, 3, 5] = b[1, 7, 33] = np.nan
    y, _ = result(MATMUL, feed={"a": a, "b": b})
    expected = np.zeros(y.shape, bool)
    expected[0, 3] = expected[1, :, 33] = True
    np.testing.assert_array_equal(np.isnan(y), expected)


@pytest.mark.parametrize(
    "shapes", [((0, 3), (3, 4)), ((2, 3, 0), (0, 4)), ((3, 4), (4, 0)), ((0, 3, 2), (1, 2, 2))], ids=str
)
def test_empty_operands(shapes):
    a, b = (np.ones(shape, np.float32) for shape in shapes)
    c = np.full(np.matmul(a, b).shape, -2, np.float32)
    steps = node("MatMul", "a b", "p"), node("Add", "p c", "s"), node("Relu", "s")
    (y,) = session_of(*steps, feed={"a": a, "b": b, "c": c}).run(None, {"a": a, "b": b, "c": c})
    np.testing.assert_array_equal(y, np.maximum(np.matmul(a, b) + c, 0))


def test_integers_stay_with_numpy(rng):
    a, b = (rng.integers(-9, 9, (3, 3)) for _ in range(2))
    model = model_of(MATMUL, x=a.shape, kind=7, inputs={"b": b.shape})
    model.graph.input[0].name = "a"
    np.testing.assert_array_equal(InferenceSession(model.SerializeToString()).run(None, {"a": a, "b": b})[0], a @ b)


REFUSED = {
    "sizes of a Gemm": (node("Gemm", "a b"), (3, 4), (5, 6), None, r"\(3, 4\) and \(5, 6\) have no product"),
    "axes of a Gemm": (node("Gemm", "a b"), (2, 3, 4), (4, 5), None, "Gemm takes matrices"),
    "batches": (MATMUL, (2, 3, 4), (3, 4, 5), None, "cannot be broadcast"),
    "a number": (MATMUL, (), (3,), None, "numbers are no matrices"),
    "an addend": (node("Gemm", "a b c"), (3, 4), (4, 5), (9, 5), "cannot be broadcast"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_operands_that_contradict_each_other_are_refused(case):
    step, *shapes, message = REFUSED[case]
    feed = {name: np.ones(shape, np.float32) for name, shape in zip("abc", shapes) if shape is not None}
    ranks = {name: [None] * array.ndim for name, array in feed.items()}
    model = model_of(step, x=ranks.pop("a"), kind=F32, inputs=ranks)
    model.graph.input[0].name = "a"
    with pytest.raises(nc.ShapeError, match=message):
        InferenceSession(model.SerializeToString()).run(None, feed)


def test_a_warm_run_allocates_nothing(rng):
    a, b = whole(rng, 4, 64, 48), whole(rng, 4, 64, 48)
    session = session_of(node("Transpose", "b", "t", perm=(0, 2, 1)), node("MatMul", "a t"), feed={"a": a, "b": b})
    y = np.empty((4, 64, 64), np.float32)
    binding = session.io_binding()
    for name, array in (("a", a), ("b", b)):
        binding.bind_cpu_input(name, array)
    binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)
    assert allocated(lambda: session.run_with_iobinding(binding)) < 4096 < y.nbytes
    np.testing.assert_array_equal(y, a @ b.transpose(0, 2, 1))


#: Steps around a product, and the factor and the number of operands of what is left, or None where it is not fused.
PASSES = {
    "a factor after": ((node("MatMul", "x b", "p"), node("Mul", "p s")), 3.0, 2),
    "a factor before": ((node("Mul", "s x", "f"), node("MatMul", "f b")), 3.0, 2),
    "a number divided": ((node("MatMul", "x b", "p"), node("Div", "s p")), None, None),
    "a scaled sum": ((node("MatMul", "x b", "p"), node("Add", "p c", "a"), node("Mul", "a s")), None, None),
    "two sums": ((node("MatMul", "x b", "p"), node("Add", "p c", "a"), node("Add", "a c")), None, None),
    "read twice": ((node("MatMul", "x b", "p"), node("Mul", "p s", "f"), node("Add", "p f")), None, None),
    "a product of itself": ((node("Mul", "x s", "f"), node("MatMul", "f f")), None, None),
}


@pytest.mark.parametrize("case", PASSES)
def test_arithmetic_with_products_is_rewritten_into_what_it_equals(case):
    steps, alpha, count = PASSES[case]
    model = model_of(*steps, x=(3, 4, 4), inputs={"b": (4, 4), "c": (4,)}, s=3.0)
    graph = optimised(model)
    if alpha is None:
        assert len(ops(graph)) > 1
        return
    (product,) = graph.nodes
    assert (product.op, product.attributes["alpha"], len(product.inputs)) == ("Product", alpha, count)


def test_random_operands_come_as_near_as_the_accuracy_says(rng):
    """With the default accuracy, which matrix tiles may use."""
    a, b = random(300, 300, dtype=np.float32), random(300, 300, seed=1, dtype=np.float32)
    nc.set_accuracy(1e-5)
    try:
        y, _ = result(MATMUL, feed={"a": a, "b": b})
    finally:
        nc.set_accuracy("strict")
    exact = a.astype(np.float64) @ b
    assert np.sqrt(np.mean((y - exact) ** 2)) < 1e-5 * np.sqrt(np.mean(exact**2))


@pytest.mark.parametrize("shape", [(5, 1, 8), (1, 5, 8), (5, 1, 1, 8), (1, 1, 8), (8,)], ids=str)
def test_rows_of_a_constant_product_follow_one_another_however_many_axes_there_are(rng, shape):
    """An axis of length one could be taken for one of channels, which are neighbours in memory."""
    x, w, v, r = whole(rng, *shape), whole(rng, 8, 7), whole(rng, 7, 40), whole(rng, *shape[:-1], 40)
    steps = node("MatMul", "x w", "p"), node("MatMul", "p v", "q"), node("Add", "q r")
    y, made = result(*steps, feed={"x": x, "r": r}, w=w, v=v)
    np.testing.assert_array_equal(y, x @ w @ v + r)
    assert made == ["Dense", "Dense+Add"]
