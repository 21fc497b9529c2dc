"""Graph convolution: against dense matrices in float64, for graphs of all kinds, and for adjacencies that are none."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import bits, normals, whole_numbers

import numbaconv as nc


def dense(csr, nodes):
    """The matrix of a CSR triple; entries of the same place add up."""
    indptr, indices, data = csr
    matrix = np.zeros((nodes, nodes))
    np.add.at(matrix, (np.repeat(np.arange(nodes), np.diff(indptr)), indices), 1.0 if data is None else data)
    return matrix


def by_definition(x, csr, weight, bias=None, self_loops=True, normalization="symmetric"):
    """The formula of Kipf and Welling with dense matrices in float64."""
    matrix = dense(csr, len(x)) + self_loops * np.eye(len(x))
    if normalization:
        degrees = matrix.sum(axis=1)
        roots = np.array([d**-0.5 if d > 0 else 0.0 for d in degrees])
        matrix = roots[:, None] * matrix * roots
    y = matrix @ x.astype(np.float64) @ weight.astype(np.float64)
    return y if bias is None else y + bias


def random_csr(rng, nodes, entries):
    """A graph of so many entries with values from 1 to 4, some of them in the same place; some rows may be empty."""
    rows = np.sort(rng.integers(0, nodes, entries))
    indptr = np.searchsorted(rows, np.arange(nodes + 1))
    return indptr, rng.integers(0, nodes, entries), rng.integers(1, 5, entries)


@given(
    st.integers(1, 40), st.integers(0, 120), st.integers(1, 70), st.integers(1, 70), st.sampled_from(("f4", "f8")),
    st.booleans(), st.booleans(), st.integers(0, 2**32 - 1),
)  # fmt: skip
@settings(max_examples=60)
def test_whole_numbers_without_normalization_are_exact(nodes, entries, c_in, c_out, dtype, self_loops, with_bias, seed):
    rng = np.random.default_rng(seed)
    x, weight = whole_numbers(rng, (nodes, c_in), dtype), whole_numbers(rng, (c_in, c_out), dtype)
    bias = whole_numbers(rng, (c_out,), dtype) if with_bias else None
    csr = random_csr(rng, nodes, entries)
    y = nc.graph_conv(x, csr, weight, bias, self_loops=self_loops, normalization=None, activation="relu")
    assert y.dtype == x.dtype
    judged = by_definition(x, csr, weight, bias, self_loops, None)
    np.testing.assert_array_equal(y, np.maximum(judged, 0))


@pytest.mark.parametrize("channels", [(5, 33), (33, 5), (16, 16)])
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("f4", 2e-6), ("f8", 1e-14)])
def test_symmetric_normalization_equals_the_dense_formula(channels, self_loops, dtype, tolerance, rng):
    x, weight = normals(rng, (60, channels[0]), dtype), normals(rng, channels, dtype)
    bias = normals(rng, channels[1:], dtype)
    csr = random_csr(rng, 60, 200)
    judged = by_definition(x, csr, weight, bias, self_loops)
    y = nc.graph_conv(x, csr, weight, bias, self_loops=self_loops)
    assert np.abs(y - judged).max() < 10 * tolerance * np.sqrt(np.mean(judged**2))


def test_nodes_without_edges_take_themselves_or_nothing():
    empty = np.zeros(4, int), np.zeros(0, int), np.zeros(0)
    x, weight = np.arange(6.0).reshape(3, 2), np.eye(2)
    np.testing.assert_array_equal(nc.graph_conv(x, empty, weight), x)
    np.testing.assert_array_equal(nc.graph_conv(x, empty, weight, self_loops=False), 0 * x)


def test_a_relabelled_graph_gives_relabelled_results(rng):
    """Equivariance under permutations, exact where sums are."""
    x, weight = whole_numbers(rng, (30, 7), "f8"), whole_numbers(rng, (7, 9), "f8")
    indptr, indices, data = random_csr(rng, 30, 90)
    order = rng.permutation(30)
    place = np.argsort(order)
    rows = [(place[indices[indptr[i] : indptr[i + 1]]], data[indptr[i] : indptr[i + 1]]) for i in order]
    moved = np.cumsum([0, *(len(columns) for columns, _ in rows)]), *(np.concatenate(part) for part in zip(*rows))
    y = nc.graph_conv(x, (indptr, indices, data), weight, normalization=None)
    np.testing.assert_array_equal(nc.graph_conv(x[order], moved, weight, normalization=None), y[order])


def test_scipy_matrices_and_anything_like_them_are_taken(rng):
    sparse = pytest.importorskip("scipy.sparse")
    x, weight = normals(rng, (20, 6), "f4"), normals(rng, (6, 6), "f4")
    csr = random_csr(rng, 20, 50)
    judged = nc.graph_conv(x, csr, weight)
    named = SimpleNamespace(**dict(zip(("indptr", "indices", "data"), csr)))
    assert bits(nc.graph_conv(x, named, weight)) == bits(judged)
    for kind in (sparse.csr_array, sparse.csr_matrix):
        matrix = kind((csr[2].astype("f4"), csr[1], csr[0]), shape=(20, 20))
        assert bits(nc.graph_conv(x, matrix, weight)) == bits(judged)
    with pytest.raises(nc.ConvError, match="format 'csc'"):
        nc.graph_conv(x, matrix.tocsc(), weight)
    with pytest.raises(nc.ShapeError, match=r"csr has shape \(20, 21\)"):
        nc.graph_conv(x, kind((csr[2], csr[1], csr[0]), shape=(20, 21)), weight)


@pytest.mark.parametrize("channels", [(8, 40), (40, 8)])
def test_bits_do_not_depend_on_threads_or_on_where_the_result_goes(channels, rng):
    x, weight, bias = (
        normals(rng, (300, channels[0]), "f4"),
        normals(rng, channels, "f4"),
        normals(rng, channels[1:], "f4"),
    )
    # one node has most of the entries, so that shares are cut unevenly
    csr = random_csr(rng, 300, 500)
    csr = csr[0] + 400 * (np.arange(301) > 7), np.insert(csr[1], [csr[0][8]] * 400, 5), None
    with nc.num_threads(1):
        alone = nc.graph_conv(x, csr, weight, bias, activation="silu")
    with nc.num_threads(2):
        assert bits(nc.graph_conv(x, csr, weight, bias, activation="silu")) == bits(alone)
    out = np.zeros((300, 2 * channels[1]), "f4")[:, ::2]
    strided = np.repeat(x, 2, axis=1)[:, ::2]
    assert nc.graph_conv(strided, csr, weight, bias, activation="silu", out=out) is out
    np.testing.assert_array_equal(out, alone)


def test_a_graph_without_nodes_gives_nothing():
    nothing = np.zeros(1, int), np.zeros(0, int), None
    assert nc.graph_conv(np.ones((0, 3)), nothing, np.ones((3, 5))).shape == (0, 5)


X, WEIGHT = np.ones((4, 3), "f4"), np.ones((3, 5), "f4")
INDPTR, INDICES, DATA = np.array([0, 1, 3, 3, 4]), np.array([1, 0, 3, 2]), np.ones(4)


def csr(indptr=INDPTR, indices=INDICES, data=DATA):
    return indptr, indices, data


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"csr": csr(indices=np.array([1, 0, 4, 2]))},
            nc.ShapeError,
            r"indices\[2\]=4 of csr is out of range.*below 4",
        ),
        ({"csr": csr(indices=np.array([1, 0, -1, 2]))}, nc.ShapeError, r"indices\[2\]=-1 of csr is out of range"),
        ({"csr": csr(indices=np.array([1, 0, 2**62, 2]))}, nc.ShapeError, r"out of range"),
        ({"csr": csr(indices=np.array([1, 0, 2**63, 2], "u8"))}, nc.ShapeError, r"out of range"),
        ({"csr": csr(indices=np.ones(4))}, nc.DTypeError, r"indices of csr has dtype float64"),
        ({"csr": csr(indices=INDICES[None])}, nc.ShapeError, r"indices of csr has shape \(1, 4\)"),
        ({"csr": csr(indptr=INDPTR[:-1])}, nc.ShapeError, r"indptr of csr has 4 entries.*must have 5"),
        ({"csr": csr(indptr=np.array([0, 3, 1, 3, 4]))}, nc.ConvError, r"never shrink"),
        ({"csr": csr(indptr=np.array([1, 1, 3, 3, 4]))}, nc.ConvError, r"grow from 0"),
        ({"csr": csr(indptr=np.array([0, 1, 3, 3, 5]))}, nc.ConvError, r"number of indices, 4"),
        ({"csr": csr(data=np.ones(3))}, nc.ShapeError, r"data of csr has shape \(3,\)"),
        ({"csr": csr(data=1j * DATA)}, nc.DTypeError, r"data of csr has dtype complex128"),
        ({"csr": csr(data=-2 * DATA)}, nc.ConvError, r"node 0 has the degree -1\.0"),
        ({"csr": csr()[:2]}, nc.ConvError, r"csr has 2 parts"),
        ({"csr": np.ones((4, 4))}, nc.ConvError, r"csr is a ndarray"),
        ({"csr": None}, nc.ConvError, r"csr is a NoneType"),
        ({"x": X[None]}, nc.ShapeError, r"x has shape \(1, 4, 3\)"),
        ({"x": X.astype(int)}, nc.DTypeError, r"x has dtype int64"),
        ({"weight": WEIGHT.T}, nc.ShapeError, r"weight has shape \(5, 3\).*c_in=3"),
        ({"weight": WEIGHT.astype("f8")}, nc.DTypeError, r"weight has dtype float64"),
        ({"bias": np.ones(3, "f4")}, nc.ShapeError, r"bias has shape \(3,\)"),
        ({"normalization": "row"}, nc.ConvError, r"normalization='row'"),
        ({"self_loops": 1}, nc.ConvError, r"self_loops=1"),
        ({"activation": "swash"}, nc.ConvError, r"activation='swash'"),
        ({"out": X}, nc.ShapeError, r"out has shape"),
    ],
)
def test_what_is_no_graph_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        nc.graph_conv(**({"x": X, "csr": csr(), "weight": WEIGHT} | change))
