"""Convolution on a graph: every node takes a weighted sum over its neighbours and itself.

Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks" (2017).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from numbaconv.algorithms.weights import Weights
from numbaconv.arguments import NAMES, contiguous, operand, plain, result_array, shaped
from numbaconv.codegen.records import NEIGHBOURS
from numbaconv.dispatch.select import make_plan
from numbaconv.epilogue import Activation, Epilogue
from numbaconv.errors import ConvError, DTypeError, ShapeError
from numbaconv.loops.launch import usable_threads
from numbaconv.loops.ndarrays import address
from numbaconv.loops.neighbours import neighbours_share
from numbaconv.loops.shares import Shares, run_shares, share_address
from numbaconv.problem import ConvProblem

NORMALIZATIONS = ("symmetric", None)


class _Adjacency(NamedTuple):
    """A square sparse matrix in rows, checked: where rows start, columns and values of entries."""

    starts: np.ndarray
    indices: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, csr, nodes: int) -> _Adjacency:
        """Read (indptr, indices, data), or an object with these attributes, for so many nodes."""
        if isinstance(csr, (tuple, list)):
            if len(csr) != 3:
                raise ConvError(f"csr has {len(csr)} parts; it must be (indptr, indices, data)")
            parts = csr
        else:
            form, shape = getattr(csr, "format", "csr"), getattr(csr, "shape", (nodes, nodes))
            if form != "csr" or not all(hasattr(csr, name) for name in ("indptr", "indices", "data")):
                raise ConvError(
                    f"csr is a {type(csr).__name__} of format {form!r}; it must be (indptr, indices, data) or have these "
                    "attributes and hold rows, as scipy.sparse.csr_array does"
                )
            if tuple(shape) != (nodes, nodes):
                raise ShapeError(
                    f"csr has shape {tuple(shape)}, but x has {nodes} nodes; it must be ({nodes}, {nodes})"
                )
            parts = csr.indptr, csr.indices, csr.data
        starts, indices = (_integers(name, part) for name, part in zip(("indptr", "indices"), parts))
        values = np.ones(len(indices)) if parts[2] is None else np.asarray(parts[2])
        if values.dtype.kind not in "buif":
            raise DTypeError(f"data of csr has dtype {values.dtype}; it must be real numbers")
        if len(starts) != nodes + 1:
            raise ShapeError(
                f"indptr of csr has {len(starts)} entries; for the {nodes} nodes of x it must have {nodes + 1}"
            )
        if starts[0] != 0 or (np.diff(starts) < 0).any() or starts[-1] != len(indices):
            raise ConvError(
                f"indptr of csr must grow from 0 to the number of indices, {len(indices)}, and never shrink"
            )
        shaped("data of csr", values, indices.shape, "indices of csr")
        outside = (indices < 0) | (indices >= nodes)
        if outside.any():
            at = int(np.argmax(outside))
            raise ShapeError(
                f"indices[{at}]={indices[at]} of csr is out of range; it must be at least 0 and below {nodes}"
            )
        return cls(starts, indices, values.astype(np.float64))

    @property
    def rows(self) -> np.ndarray:
        """The row of each entry."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def plus_column(self, column: np.ndarray, value: float) -> _Adjacency:
        """One more entry at the end of each row."""
        nodes = len(self.starts) - 1
        starts = self.starts + np.arange(nodes + 1)
        added = np.zeros(starts[-1], bool)
        added[starts[1:] - 1] = True
        indices, values = np.empty(len(added), np.int64), np.empty(len(added))
        indices[added], values[added] = column, value
        indices[~added], values[~added] = self.indices, self.values
        return _Adjacency(starts, indices, values)

    def normalized(self) -> _Adjacency:
        """Each entry over the roots of the degrees of both its nodes."""
        rows = self.rows
        degrees = np.bincount(rows, self.values, len(self.starts) - 1).astype(np.float64)
        if (degrees < 0).any():
            at = int(np.argmax(degrees < 0))
            raise ConvError(f"node {at} has the degree {degrees[at]}; symmetric normalization takes its root, so it must not be "
                            "negative")  # fmt: skip
        # a node without edges takes nothing
        factors = np.divide(1.0, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
        return self._replace(values=self.values * factors[rows] * factors[self.indices])


def _integers(name: str, part) -> np.ndarray:
    array = np.asarray(part)
    if array.ndim != 1:
        raise ShapeError(f"{name} of csr has shape {array.shape}; it must have one axis")
    if array.dtype.kind not in "ui" and array.size:
        raise DTypeError(f"{name} of csr has dtype {array.dtype}; it must be integers")
    return array.astype(np.int64)


def graph_conv(
    x,
    csr,
    weight,
    bias=None,
    *,
    self_loops=True,
    normalization="symmetric",
    activation=None,
    out=None,
) -> np.ndarray:
    """Graph convolution: ``activation(D^-1/2 (A + I) D^-1/2 x weight + bias)``.

    Parameters
    ----------
    x : array, (nodes, c_in)
        float32 or float64; all arrays but those of `csr` have one dtype.
    csr : tuple (indptr, indices, data), or an object with these attributes such as ``scipy.sparse.csr_array``
        The adjacency matrix A: row i has the entries from ``indptr[i]`` to ``indptr[i + 1]``, in columns `indices`, with values
        `data`, or ones where that is None.  Entries of the same place add up.
    weight : array, (c_in, c_out)
        As in the formula.
    bias : array, (c_out,), optional
    self_loops : bool
        Whether the identity is added to A.
    normalization : {"symmetric", None}
        Whether entries are divided by the roots of the degrees of both nodes; D is diagonal with the sums of the rows of A + I.
    activation : None, str or tuple
        As for `Conv2d`.
    out : ndarray, (nodes, c_out), optional
        Where the result goes; it must not overlap `x`.

    Returns
    -------
    ndarray
        (nodes, c_out)

    Raises
    ------
    ShapeError
        If shapes do not fit, or an index is out of range.
    DTypeError
        If dtypes are mixed or are not those that are needed.
    ConvError
        If `csr` is malformed, a degree is negative, or another argument is unknown.

    Notes
    -----
    Neighbours are summed before or after the multiplication by `weight`, whichever has fewer channels.  The sum of a node has one
    order and one thread, so that results do not depend on the number of threads.
    """
    x = operand("x", x)
    if x.ndim != 2:
        raise ShapeError(f"x has shape {x.shape}; it must have 2 axes: (nodes, c_in)")
    weight = operand("weight", weight, x.dtype)
    if weight.ndim != 2 or 0 in weight.shape or weight.shape[0] != x.shape[1]:
        raise ShapeError(f"weight has shape {weight.shape}; it must be (c_in, c_out), and x has c_in={x.shape[1]}")
    if bias is not None:
        bias = shaped("bias", operand("bias", bias, x.dtype), weight.shape[1:], "c_out of weight")
    if not isinstance(self_loops, (bool, np.bool_)):
        raise ConvError(f"self_loops={self_loops!r} must be True or False")
    if not (normalization is None or isinstance(normalization, str)) or normalization not in NORMALIZATIONS:
        raise ConvError(f"normalization={normalization!r} is unknown; it must be one of {NORMALIZATIONS}")
    activation, nodes = Activation.of(activation), len(x)
    adjacency = _Adjacency.of(csr, nodes)
    shape, dtype = (nodes, weight.shape[1]), x.dtype.newbyteorder("=")
    result = np.empty(shape, dtype) if out is None else result_array(out, shape, dtype, {"x": x})
    if self_loops:
        adjacency = adjacency.plus_column(np.arange(nodes), 1.0)
    if normalization is not None:
        adjacency = adjacency.normalized()
    if nodes:
        target = result if plain(result) else np.empty(shape, dtype)
        x, weight, bias = contiguous(x), contiguous(weight), None if bias is None else contiguous(bias)
        if weight.shape[0] <= weight.shape[1]:
            _multiply(_summed(adjacency, x), weight, bias, activation, target)
        else:
            _multiply_first(adjacency, x, weight, bias, activation, target)
        if target is not result:
            result[...] = target
    return result


def _multiply_first(adjacency: _Adjacency, x, weight, bias, activation: Activation, out: np.ndarray) -> None:
    """Multiply, then sum neighbours; the bias is one more of them."""
    nodes = len(x)
    products = np.empty((nodes + 1, out.shape[1]), out.dtype)
    _multiply(x, weight, None, Activation.of(None), products[:nodes])
    if bias is not None:
        products[nodes] = bias
        adjacency = adjacency.plus_column(np.full(nodes, nodes), 1.0)
    _summed(adjacency, products, out)
    if not activation.is_identity:
        out[...] = activation.apply(out)


def _summed(adjacency: _Adjacency, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Weighted sums of the rows of `x`, one for each row of the matrix."""
    nodes, channels = len(adjacency.starts) - 1, x.shape[1]
    out = np.empty((nodes, channels), x.dtype) if out is None else out
    values = adjacency.values.astype(x.dtype)
    arrays = adjacency.starts, adjacency.indices, values
    record = np.array((nodes, *map(address, arrays), channels), NEIGHBOURS)
    zero, threads = x.dtype.type(0), min(usable_threads(), nodes)
    function = share_address(neighbours_share, x.dtype)
    work = Shares(function, threads, 1, record.ctypes.data, 0, zero, zero, (record, *arrays))
    run_shares(work, address(x), address(out), 0, 0)
    return out


def _multiply(x: np.ndarray, weight: np.ndarray, bias, activation: Activation, out: np.ndarray) -> None:
    """``activation(x weight + bias)`` as the 1x1 convolution of a signal with a sample for each node."""
    problem = ConvProblem.of(
        (1, *x.shape), (*weight.T.shape, 1), layout="channels_last", dtype=NAMES[x.dtype], bias=bias is not None
    )
    kernel = np.ascontiguousarray(weight.T)[:, :, None]
    make_plan(problem, Epilogue(bias is not None, False, activation), Weights(kernel, bias, 1)).run(x[None], out[None])
