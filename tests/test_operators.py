"""Operators beside convolution: compiled loops against NumPy's, wherever the operands lie in memory."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from numbaconv.errors import ConvError, ShapeError  # noqa: E402
from numbaconv.graph import InferenceSession, SessionOptions  # noqa: E402
from numbaconv.graph.ir import Node  # noqa: E402
from numbaconv.graph.operators import numpy_kernel  # noqa: E402

OPSET = 17
few = settings(max_examples=25)
kinds = st.sampled_from([np.float32, np.float64])
# whole vectors, four of them side by side, and what is left over
channels = st.sampled_from([1, 3, 16, 17, 64, 80, 131])


def whole_numbers(shape, kind=np.float32, seed=0):
    """Small integers, whose sums are exact."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(kind)


def session_of(node, kind, rank, constants=(), order=None, threads=1):
    """A session of one operator behind a Transpose: its operand lies in that order."""
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    operands = ["moved" if order else "x", *node.input[1:]]
    copy = helper.make_node(node.op_type, operands, node.output, name="tested")
    copy.attribute.extend(node.attribute)
    nodes = ([helper.make_node("Transpose", ["x"], ["moved"], perm=order)] if order else []) + [copy]
    graph = helper.make_graph(
        nodes,
        "tested",
        [helper.make_tensor_value_info("x", element, [None] * rank)],
        [helper.make_tensor_value_info(name, element, None) for name in node.output],
        [numpy_helper.from_array(array, name) for name, array in zip(node.input[1:], constants) if name],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return InferenceSession(model.SerializeToString(), SessionOptions(threads))


def run_chain(nodes, x):
    """What nodes make of x, which is the same on one thread and on two."""
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    ends = [helper.make_tensor_value_info("x", element, x.shape)], [helper.make_tensor_value_info("y", element, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "tested", *ends), opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8
    ).SerializeToString()
    one, two = (InferenceSession(model, SessionOptions(threads)).run(None, {"x": x})[0] for threads in (1, 2))
    assert np.array_equal(one, two, equal_nan=True), "bits depend on threads"
    return one


def agree(op, x, *constants, exact=True, **attributes):
    """Row-major and channels-last operands give what NumPy gives, on one thread and on two."""
    names = [f"c{i}" if array is not None else "" for i, array in enumerate(constants)]
    node = helper.make_node(op, ["x", *names], ["y"], **attributes)
    with np.errstate(all="ignore"):
        (expected,) = numpy_kernel(Node(op, ("x", *names), ("y",), attributes), OPSET)(x, *constants)
    rank = x.ndim
    last = (0, *range(2, rank), 1) if rank > 2 else tuple(reversed(range(rank)))
    for order in (None, [last.index(axis) for axis in range(rank)]):
        fed = x if order is None else np.ascontiguousarray(x.transpose(last))
        results = []
        for threads in (1, 2):
            session = session_of(node, x.dtype, rank, constants, order, threads)
            results.append(session.run(None, {"x": fed})[0])
        assert np.array_equal(*results, equal_nan=True), "bits depend on threads"
        # whole numbers are NumPy's to copy into the order that the caller asks for
        ran = {record.algorithm for record in session.report() if record.op != "Copy" or expected.dtype.kind == "f"}
        assert ran == {"compiled"}
        assert results[0].dtype == expected.dtype and results[0].shape == expected.shape
        tolerance = {"rtol": 0, "atol": 0} if exact else {"rtol": 1e-5, "atol": 1e-5}
        np.testing.assert_allclose(results[0], expected, **tolerance)


@st.composite
def windows(draw):
    rank = draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    extents = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    pads = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    sizes = [extent + draw(st.integers(0, 5)) for extent in extents]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    attributes = {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": draw(st.integers(0, 1))}
    return sizes, attributes, dilations


@few
@given(windows(), channels, kinds)
def test_the_largest_element_of_each_window(case, c, kind):
    sizes, attributes, dilations = case
    agree("MaxPool", whole_numbers((2, c, *sizes), kind), dilations=dilations, **attributes)


@few
@given(windows(), channels, st.integers(0, 1))
def test_the_mean_of_each_window(case, c, everywhere):
    sizes, attributes, _ = case
    agree("AveragePool", whole_numbers((2, c, *sizes)), count_include_pad=everywhere, **attributes)


@pytest.mark.parametrize("kernel, c", [([3, 1, 1], 1), ([3, 1, 1], 3), ([2, 3, 1], 1), ([1, 1, 1], 2)], ids=str)
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_windows_that_do_not_reach_across_the_last_axes(op, kernel, c):
    pads = [(k > 1) * 1 for k in kernel] * 2
    agree(op, whole_numbers((2, c, 7, 4, 5)), kernel_shape=kernel, pads=pads)
    agree(op, whole_numbers((2, c, 7, 4, 5)), kernel_shape=kernel, strides=[2, 1, 1])


@pytest.mark.parametrize("c", [1, 5, 16, 40])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_responses_of_neighbouring_channels(c, size):
    agree("LRN", whole_numbers((2, c, 3, 4)), exact=False, size=size, alpha=0.5, beta=0.6, bias=2.0)
    agree("LRN", whole_numbers((2, c, 3), np.float64), exact=False, size=size)


@pytest.mark.parametrize("power", [0.25, 0.5, 0.75, 1, 1.25, 2, 3, 4, -0.5, -1, -3])
def test_powers_that_are_products_of_roots(power):
    x = np.linspace(0.01, 40, 333, dtype=np.float32).reshape(1, 3, 111)
    agree("Pow", x, np.array(power, np.float32), exact=False)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("op, function, least, most", [("Exp", np.exp, -80, 88), ("Log", np.log, 1e-30, 1e30)])
def test_exponentials_and_logarithms_are_right_to_the_last_places(op, function, least, most, kind):
    numbers = np.geomspace(least, most, 4001) if least > 0 else np.linspace(least, most, 4001)
    x = np.append(numbers, np.linspace(0.5, 1.5, 999)).astype(kind)
    session = session_of(helper.make_node(op, ["x"], ["y"]), x.dtype, 1, (), None, 1)
    exact = function(x.astype(np.longdouble))
    distance = np.abs(session.run(None, {"x": x})[0] - exact)
    assert (distance <= 1.5 * np.spacing(np.abs(exact).astype(kind))).all()


def test_ends_of_exponentials_and_logarithms():
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, -1.0, 1e-42, 1000.0, -1000.0], np.float32)
    agree("Exp", x, exact=False)
    agree("Log", x, exact=False)


def test_a_pool_keeps_nan():
    x = whole_numbers((1, 20, 5, 5))
    x[0, 3, 2, 2] = np.nan
    agree("MaxPool", x, kernel_shape=[3, 3])
    agree("GlobalMaxPool", x)


REDUCTIONS = ["ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceSumSquare"]


@few
@given(st.data(), st.sampled_from(REDUCTIONS), st.integers(0, 1), kinds)
def test_reductions_over_any_axes(data, op, keepdims, kind):
    rank = data.draw(st.integers(1, 5))
    shape = [data.draw(st.sampled_from([1, 2, 3, 5, 70])) if i in (1, rank - 1) else 2 for i in range(rank)]
    axes = data.draw(st.lists(st.integers(0, rank - 1), min_size=1, unique=True))
    x = whole_numbers(shape, kind)
    if op == "ReduceSum":
        agree(op, x, np.array(axes), keepdims=keepdims)
    else:
        agree(op, x, axes=axes, keepdims=keepdims)


def test_means_and_norms_of_images():
    x = whole_numbers((2, 40, 9, 7))
    for op in ("ReduceMean", "ReduceL2", "ReduceProd"):
        agree(op, x if op != "ReduceProd" else np.sign(x), axes=[2, 3], exact=False)
    agree("GlobalAveragePool", x, exact=False)


@few
@given(channels, st.sampled_from(["Softmax", "LogSoftmax"]), st.integers(-3, 2), kinds)
def test_softmax_along_any_axis(c, op, axis, kind):
    agree(op, whole_numbers((3, c, 5), kind) * 3, axis=axis, exact=False)


@few
@given(
    st.sampled_from([1, 2, 3, 5, 8, 17, 63, 130]),
    st.sampled_from([(1, 1), (3, 5), (16, 17), (70, 33)]),
    st.sampled_from([1, 2]),
    st.sampled_from(["Sub", "Mul"]),
    st.booleans(),
    kinds,
)
def test_numbers_of_channels_meet_all_pixels(c, sizes, images, op, first, kind):
    """One for each channel, of all images or of each, on either side; pixels of few channels are taken many at a time."""
    x, numbers = whole_numbers((2, *sizes, c), kind), whole_numbers((images, c, 1, 1), kind, seed=1)
    moved = np.moveaxis(x, -1, 1)
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(numbers)),
        helper.make_node(op, ["c", "t"] if first else ["t", "c"], ["y"]),
    ]
    pair = (numbers, moved) if first else (moved, numbers)
    assert np.array_equal(run_chain(nodes, x), (np.subtract if op == "Sub" else np.multiply)(*pair))


def test_a_short_row_is_repeated_without_a_second_operand():
    x = whole_numbers(3)
    shape = helper.make_node("Constant", [], ["s"], value_ints=[1001, 3])
    expanded = run_chain([shape, helper.make_node("Expand", ["x", "s"], ["y"])], x)
    assert np.array_equal(expanded, np.broadcast_to(x, (1001, 3)))


@few
@given(channels, st.integers(-3, 2), st.integers(0, 1), kinds)
def test_the_first_largest_element_along_any_axis(c, axis, keepdims, kind):
    x = whole_numbers((3, c, 5), kind)
    agree("ArgMax", x, axis=axis, keepdims=keepdims)
    x[1, c // 2, 2] = np.nan
    agree("ArgMax", x, axis=axis, keepdims=keepdims)


@few
@given(channels, st.integers(-3, 2), st.integers(1, 2), kinds)
def test_vectors_of_length_1_along_any_axis(c, axis, p, kind):
    x = whole_numbers((3, c, 5), kind)
    x[1, :, 2] = 0
    agree("LpNormalization", x, axis=axis, p=p, exact=False)


def test_softplus_keeps_the_digits_of_small_results():
    for kind in (np.float32, np.float64):
        x = np.array([-700, -80, -30, -5, -1e-3, 0, 1e-3, 5, 80, np.inf, -np.inf, np.nan], kind)
        y = run_chain([helper.make_node("Softplus", ["x"], ["y"])], x)
        with np.errstate(invalid="ignore"):
            expected = np.logaddexp(0, x.astype(np.longdouble)).astype(kind)
        np.testing.assert_allclose(y, expected, rtol=4 * np.finfo(kind).eps, atol=np.finfo(kind).tiny)


@few
@given(
    st.integers(2, 5),
    st.sampled_from([(1,), (7,), (5, 9), (16, 16), (70, 33)]),
    st.integers(1, 2),
    kinds,
    st.booleans(),
)
def test_softmax_over_few_classes_of_pixels(classes, sizes, n, kind, inside):
    """Classes that are neighbours or planes, in the order of the operand inside of a network and in that asked for at its end."""
    x = whole_numbers((n, classes, *sizes), kind)
    if not inside:
        agree("Softmax", x, axis=1, exact=False)
        return
    nodes = [helper.make_node("Softmax", ["x"], ["s"], axis=1), helper.make_node("Neg", ["s"], ["y"])]
    e = np.exp(x - x.max(1, keepdims=True))
    np.testing.assert_allclose(run_chain(nodes, x), -e / e.sum(1, keepdims=True), rtol=1e-6)


def test_nan_stays_in_its_pixel():
    x = whole_numbers((2, 3, 5, 5))
    x[0, 0, 1, 1] = x[1, 2, 4, 4] = np.nan
    agree("Softmax", x, axis=1, exact=False)


@few
@given(st.integers(1, 6), st.sampled_from([1, 5, 16, 17, 64, 131]), st.integers(1, 3), kinds)
def test_pixels_of_few_channels_become_planes_and_planes_pixels(channels, pixels, n, kind):
    for shape in ((n, pixels, channels), (n, channels, pixels)):
        x = whole_numbers(shape, kind)
        assert np.array_equal(
            run_chain([helper.make_node("Transpose", ["x"], ["y"], perm=[0, 2, 1])], x), x.transpose(0, 2, 1)
        )


@pytest.mark.parametrize("shape", [(4, 33), (3000, 3)])
def test_softmax_of_large_numbers_does_not_overflow(shape):
    agree("Softmax", whole_numbers(shape) * 1000, axis=1, exact=False)


@few
@given(channels, st.booleans(), st.integers(1, 2))
def test_layer_normalization(c, biased, axis):
    x = whole_numbers((3, 4, c)) * 5
    scale = whole_numbers(x.shape[axis:], seed=1)
    operands = (scale, whole_numbers(scale.shape, seed=2)) if biased else (scale,)
    agree("LayerNormalization", x, *operands, axis=axis, exact=False)


@pytest.mark.parametrize("op", ["InstanceNormalization", "BatchNormalization"])
def test_normalization_of_channels(op):
    x = whole_numbers((2, 70, 6, 5))
    operands = [abs(whole_numbers(70, seed=i)) + 1 for i in range(2 if op == "InstanceNormalization" else 4)]
    session = session_of(helper.make_node(op, ["x", *"abcd"[: len(operands)]], ["y"]), x.dtype, 4, operands)
    (y,) = session.run(None, {"x": x})
    (expected,) = numpy_kernel(Node(op, ("x",), ("y",)), OPSET)(x, *operands)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@few
@given(
    st.sampled_from(["nearest", "linear", "cubic"]),
    st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]),
    st.lists(st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0]), min_size=1, max_size=3),
    channels,
)
def test_resize(mode, coordinates, factors, c):
    x = whole_numbers((2, c, *(4,) * len(factors)))
    scales = np.array([1, 1, *factors], np.float32)
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    agree("Resize", x, None, scales, exact=mode == "nearest", **attributes)


@few
@given(st.data(), st.sampled_from(["constant", "edge", "reflect"]), channels)
def test_padding(data, mode, c):
    x = whole_numbers((2, c, 5, 6))
    widths = [0, 0, 3, 4] if mode == "reflect" else [1, 2, 3, 4]
    pads = [data.draw(st.integers(-min(1, size), size)) for size in widths * 2]
    pads = [max(pad, 0) if x.shape[i % 4] < 3 else pad for i, pad in enumerate(pads)]
    agree("Pad", x, np.array(pads), mode=mode)


def test_blocks_and_tiles():
    x = whole_numbers((2, 36, 6, 4))
    for mode in ("DCR", "CRD"):
        agree("DepthToSpace", x, blocksize=2, mode=mode)
    agree("SpaceToDepth", x, blocksize=2)
    agree("Tile", x, np.array([1, 2, 1, 3]))
    agree("Expand", x[:, :1], np.array([2, 5, 6, 4]))


ALONE = {
    "Elu": {"alpha": 2.0}, "Selu": {}, "Celu": {"alpha": 0.5}, "Erf": {}, "Softsign": {}, "Softplus": {},
    "ThresholdedRelu": {"alpha": 0.5}, "Round": {}, "Neg": {}, "Reciprocal": {}, "Log": {},
}  # fmt: skip


@pytest.mark.parametrize("op, attributes", ALONE.items())
def test_functions_of_one_element(op, attributes):
    x = np.linspace(-30, 30, 401, dtype=np.float32).reshape(1, 1, 401)
    agree(op, x, exact=False, **attributes)


@pytest.mark.parametrize("c_out", [1, 3, 16])
@pytest.mark.parametrize("stride", [(2,), (2, 3), (1, 2, 2)])
def test_outputs_of_a_transposed_convolution_that_do_not_overlap(stride, c_out):
    """Those of one column of the input are computed side by side where their channels are few."""
    torch = pytest.importorskip("torch")
    x = whole_numbers((2, 5, *(4, 7, 3)[: len(stride)]))
    weight, bias = whole_numbers((5, c_out, *stride), seed=1), whole_numbers(c_out, seed=2)
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
        for name, array in (("w", weight), ("b", bias))
    ]
    convolution = helper.make_node("ConvTranspose", ["x", "w", "b"], ["c"], strides=stride, kernel_shape=stride)
    y = run_chain([*constants, convolution, helper.make_node("Relu", ["c"], ["y"])], x)
    judge = getattr(torch.nn.functional, f"conv_transpose{len(stride)}d")
    expected = judge(*map(torch.from_numpy, (x, weight, bias)), stride=stride).relu().numpy()
    assert np.array_equal(y, expected)


def test_products_of_computed_matrices():
    x = whole_numbers((2, 3, 4))
    node = helper.make_node("MatMul", ["x", "moved"], ["y"], name="tested")
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Transpose", ["x"], ["moved"], perm=[0, 2, 1]), node],
            "tested",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None] * 3)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    (y,) = InferenceSession(model.SerializeToString()).run(None, {"x": x})
    assert np.array_equal(y, x @ x.transpose(0, 2, 1))
    model.graph.node[0].attribute[0].ints[:] = [2, 1, 0]
    with pytest.raises(ShapeError, match="'tested'.*no product"):
        InferenceSession(model.SerializeToString()).run(None, {"x": x})


REFUSED = {
    "axes": ("ReduceMax", (), {"axes": [5]}, "axes"),
    "softmax": ("Softmax", (), {"axis": 7}, "axis 7"),
    "batch norm": ("BatchNormalization", (np.ones(3, np.float32),) * 4, {}, r"needs \(4,\)"),
    "layer norm": ("LayerNormalization", (np.ones(3, np.float32),), {}, "does not broadcast"),
    "blocks": ("DepthToSpace", (), {"blocksize": 3}, "blocksize 3"),
    "scales": ("Resize", (None, np.ones(3, np.float32)), {}, "3 entries"),
    "pads": ("Pad", (np.ones(3, np.int64),), {}, "3 entries"),
    "pool": ("MaxPool", (), {"kernel_shape": [9, 9]}, "do not fit"),
    "no stride": ("MaxPool", (), {"kernel_shape": [2, 2], "strides": [0, 1]}, "positive"),
    "index": ("Gather", (np.array(9),), {}, "index 9"),
    "sum": ("Add", (np.ones((7, 9, 11), np.float32),), {}, "cannot be broadcast"),
    "power": ("Pow", (np.ones((7, 9, 11), np.float32),), {}, "cannot be broadcast"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operands_that_contradict_are_refused_by_name(name):
    op, constants, attributes, message = REFUSED[name]
    names = [f"c{i}" if array is not None else "" for i, array in enumerate(constants)]
    node = helper.make_node(op, ["x", *names], ["y"], **attributes)
    with pytest.raises(ConvError, match=f"'tested'.*{message}") as caught:
        session_of(node, np.float32, 4, constants).run(None, {"x": whole_numbers((1, 4, 5, 5))})
    assert isinstance(caught.value, ShapeError)
