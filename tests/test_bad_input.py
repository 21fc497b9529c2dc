"""What no convolution can mean raises an error that names the argument and its values; what one can mean is accepted."""

from __future__ import annotations

import tracemalloc
import warnings

import numba
import numpy as np
import pytest
from strategies import NAMES, NON_FINITE, Operands, kinds, make_operands, normals, pairs, whole_numbers

import numbaconv as nc
from numbaconv.loops.ndarrays import expected, operands_at
from numbaconv.problem import LAYOUTS, ConvProblem

F32, F64 = np.float32, np.float64
#: One problem for each algorithm, among them all that there are.
EACH = ("n2c4h7w8o6k3p1bias", "n2c4h5w6o6k1bias", "n2c6h5w6o6k3p1g6bias")
EACH_ALGORITHM = pairs(*EACH, names=NAMES, layouts=("cf", "cl"))
#: Bytes that an error message and its traceback may take, but no tensor.
LITTLE = 2**20
#: Bytes that no machine has.
REFUSED = 2**50


def ones(*shape, dtype=F32):
    return np.ones(shape, dtype)


@pytest.fixture
def given_() -> Operands:
    """Operands whose result is exact: x (2, 4, 7, 8), weight (6, 4, 3, 3), bias, residual (2, 6, 7, 8)."""
    return make_operands(ConvProblem.parse(EACH[0]), whole_numbers, residual=True)


def test_every_algorithm_takes_part():
    assert {parameter.values[1] for parameter in EACH_ALGORITHM} == set(NAMES)


# --- geometry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": ones(4, 5)}, r"x has shape \(4, 5\)"),
        ({"x": ones(1, 1, 4, 5, 5)}, r"x has shape \(1, 1, 4, 5, 5\)"),
        ({"x": F32(1.0)}, r"x has shape \(\)"),
        ({"weight": ones(6, 4, 3)}, r"weight has shape \(6, 4, 3\)"),
        ({"weight": ones(6, 4, 3, 3, 3)}, r"weight has shape \(6, 4, 3, 3, 3\)"),
        ({"bias": ones(6, 1)}, r"bias has shape \(6, 1\).*\(6,\)"),
        ({"bias": ones(5)}, r"bias has shape \(5,\).*\(6,\)"),
        ({"bias": F32(1.0)}, r"bias has shape \(\).*\(6,\)"),
        ({"x": ones(2, 3, 7, 8)}, r"weight\.shape\[1\]=4 times groups=1 is 4, but x has 3 channels"),
        ({"x": ones(2, 7, 8, 4)}, r"weight\.shape\[1\]=4 times groups=1 is 4, but x has 7 channels"),
        ({"layout": "channels_last"}, r"weight\.shape\[1\]=4 times groups=1 is 4, but x has 8 channels"),
        ({"groups": 2}, r"weight\.shape\[1\]=4 times groups=2 is 8, but x has 4 channels"),
        ({"weight": ones(6, 1, 3, 3), "groups": 4}, r"groups=4 does not divide c_out=6"),
        ({"groups": 0}, r"groups=0 is out of range; it must be at least 1"),
        ({"groups": -2}, r"groups=-2"),
        ({"groups": 2.0}, r"groups=2\.0 is a float"),
        ({"groups": True}, r"groups=True is a bool"),
        ({"groups": "1"}, r"groups='1' is a str"),
        ({"groups": None}, r"groups=None is a NoneType"),
        ({"x": ones(2, 4, 2, 8)}, r"kernel=3 with dilation=1 spans 3 .* axis 0.* has 2, 2 with padding=\(0, 0\)"),
        ({"dilation": (1, 4)}, r"kernel=3 with dilation=4 spans 9 .* axis 1.* has 8, 8 with padding=\(0, 0\)"),
        ({"dilation": 9, "padding": 5}, r"kernel=3 with dilation=9 spans 19 .* axis 0.* has 7, 17"),
        ({"stride": 0}, r"stride=0 is out of range; it must be at least 1"),
        ({"stride": (1, -1)}, r"stride=-1 is out of range"),
        ({"stride": (1, 2, 3)}, r"stride=\(1, 2, 3\) has 3 entries where 2 are needed"),
        ({"stride": ()}, r"stride=\(\) has 0 entries"),
        ({"stride": 1.0}, r"stride=1\.0 is a float"),
        ({"stride": (1, np.float32(2))}, r"stride=.*2\.0.* is a float32"),
        ({"stride": True}, r"stride=True is a bool"),
        ({"stride": np.bool_(True)}, r"stride=.*True.* is a bool"),
        ({"stride": "same"}, r"stride='same' is a str"),
        ({"stride": None}, r"stride=None is a NoneType"),
        ({"stride": 2**31}, r"stride=2147483648 is out of range; it must be below 2\*\*31"),
        ({"dilation": 0}, r"dilation=0"),
        ({"dilation": (-3, 1)}, r"dilation=-3"),
        ({"dilation": 1.5}, r"dilation=1\.5 is a float"),
        ({"dilation": (True, 1)}, r"dilation=True is a bool"),
        ({"dilation": 2**63}, r"dilation=9223372036854775808"),
        ({"padding": -1}, r"padding=-1 is out of range; it must be at least 0"),
        ({"padding": ((0, 0), (0, -2))}, r"padding=-2"),
        ({"padding": 0.5}, r"padding=0\.5 is a float"),
        ({"padding": (True, 0)}, r"padding=True is a bool"),
        ({"padding": (1, 1, 1)}, r"padding=\(1, 1, 1\) has 3 entries"),
        ({"padding": ((1, 1, 1), 0)}, r"padding=\(1, 1, 1\) has 3 entries.*before and after"),
        ({"padding": None}, r"padding=None"),
        ({"padding": "SAME"}, r"padding='SAME' is unknown"),
        ({"padding": ("same", 1)}, r"padding='same'"),
        ({"padding": "causal"}, r"padding='causal' with 2 spatial axes"),
        ({"layout": "NCHW"}, r"layout='NCHW' is unknown"),
        ({"layout": None}, r"layout=None is unknown"),
        ({"weight": ones(0, 4, 3, 3)}, r"weight has shape \(0, 4, 3, 3\)"),
        ({"weight": ones(6, 4, 0, 3)}, r"weight has shape \(6, 4, 0, 3\)"),
        ({"x": ones(2, 0, 7, 8), "weight": ones(6, 0, 3, 3)}, r"weight has shape \(6, 0, 3, 3\)"),
        ({"x": ones(2, 0, 7, 8)}, r"x has 0 channels"),
        ({"x": ones(2, 4, 0, 8), "padding": 2}, r"spatial=0 is out of range"),
        ({"x": ones(2, 4, 7, 0), "padding": 2}, r"spatial=0 is out of range"),
        ({"residual": ones(2, 6, 7, 8)}, r"residual has shape \(2, 6, 7, 8\).*\(2, 6, 5, 6\)"),
        ({"residual": ones(6, 5, 6)}, r"residual has shape \(6, 5, 6\).*\(2, 6, 5, 6\)"),
        ({"residual": F32(1.0)}, r"residual has shape \(\)"),
        ({"out": ones(2, 6, 5, 7)}, r"out has shape \(2, 6, 5, 7\).*\(2, 6, 5, 6\)"),
        ({"out": ones(6, 5, 6)}, r"out has shape \(6, 5, 6\)"),
        ({"x": ones(4, 7, 8), "out": ones(1, 6, 5, 6)}, r"out has shape \(1, 6, 5, 6\).*\(6, 5, 6\)"),
    ],
)
def test_geometry_that_breaks_a_rule_is_named(arguments, message):
    arguments = {"x": ones(2, 4, 7, 8), "weight": ones(6, 4, 3, 3)} | arguments
    with pytest.raises(nc.ShapeError, match=message):
        nc.conv2d(**arguments)


@pytest.mark.parametrize(
    "arguments", [{"stride": 0}, {"padding": -1}, {"dilation": 2.0}, {"groups": 4}, {"padding": "x"}]
)
def test_a_layer_refuses_at_once_what_no_image_could_mend(arguments):
    with pytest.raises(nc.ShapeError, match=next(iter(arguments))):
        nc.Conv2d(ones(6, 1, 3, 3), **arguments)


@pytest.mark.parametrize("stride", [np.int64(2), np.array([2, 2]), [2, 2], (np.uint8(2), 2)])
def test_integers_of_any_kind_are_integers(stride, given_):
    expected = nc.conv2d(given_.x, given_.weight, stride=2)
    assert np.array_equal(nc.conv2d(given_.x, given_.weight, stride=stride), expected)


# --- words -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"algorithm": "im2row"}, r"algorithm='im2row' is unknown"),
        ({"algorithm": ""}, r"algorithm='' is unknown"),
        ({"algorithm": None}, r"algorithm=None is unknown"),
        ({"activation": "mish"}, r"activation='mish' is unknown"),
        ({"activation": 3}, r"activation=3 is unknown"),
        ({"activation": ("clip", 1.0)}, r"activation=\('clip', 1\.0\)"),
        ({"activation": ("clip", 2.0, 1.0)}, r"\('clip', 2\.0, 1\.0\) has lo > hi"),
        ({"activation": ("leaky_relu", np.nan)}, r"alpha=nan"),
        ({"activation": {}}, r"activation=\{\} is unknown"),
        ({"padding_mode": "mirror"}, r"padding_mode='mirror' is unknown"),
        ({"padding_mode": None}, r"padding_mode=None is unknown"),
    ],
)
def test_words_that_are_unknown_are_named(arguments, message):
    with pytest.raises(nc.ConvError, match=message):
        nc.conv2d(ones(1, 4, 5, 5), ones(6, 4, 3, 3), **arguments)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("axes", (1, 2, 3))
@pytest.mark.parametrize("mode, most", [("reflect", 3), ("circular", 4)])
def test_no_more_is_mirrored_or_wrapped_around_than_the_input_has(mode, most, axes, layout):
    function = (nc.conv1d, nc.conv2d, nc.conv3d)[axes - 1]
    x = ones(*((1, 2, *(9,) * (axes - 1), 4) if layout == "channels_first" else (1, *(9,) * (axes - 1), 4, 2)))
    weight = ones(3, 2, *(1,) * (axes - 1), 3)

    def run(before, after):
        ends = ((0, 0),) * (axes - 1) + ((before, after),)
        return function(x, weight, padding=ends, padding_mode=mode, layout=layout)

    assert run(most, most).size
    for ends in ((most + 1, 0), (0, most + 1)):
        with pytest.raises(
            nc.ShapeError, match=rf"padding=\({ends[0]}, {ends[1]}\) on axis {axes - 1} of 4 .* at most {most}"
        ):
            run(*ends)


@pytest.mark.parametrize("axes", (1, 2, 3))
def test_operands_with_another_number_of_axes_are_refused(axes):
    function = (nc.conv1d, nc.conv2d, nc.conv3d)[axes - 1]
    x, weight = ones(1, 4, *(5,) * axes), ones(6, 4, *(3,) * axes)
    assert function(x, weight).ndim == axes + 2 and function(x[0], weight).ndim == axes + 1
    for other in (ones(1, 4, *(5,) * (axes + 1)), ones(*(5,) * axes)):
        with pytest.raises(nc.ShapeError, match=rf"x has shape .* must have {axes + 2} axes, or {axes + 1} without"):
            function(other, weight)
    for other in (ones(6, 4, *(3,) * (axes + 1)), ones(6, 4, *(3,) * (axes - 1))):
        with pytest.raises(nc.ShapeError, match=rf"weight has shape .* must have {axes + 2} axes"):
            function(x, other)


def test_only_signals_are_padded_causally():
    assert nc.conv1d(ones(1, 4, 5), ones(6, 4, 3), padding="causal").shape == (1, 6, 5)
    for function, axes in ((nc.conv2d, 2), (nc.conv3d, 3)):
        with pytest.raises(nc.ShapeError, match="padding='causal' with"):
            function(ones(1, 4, *(5,) * axes), ones(6, 4, *(3,) * axes), padding="causal")


def test_an_algorithm_that_was_asked_for_never_gives_way_silently():
    problem = ConvProblem.parse("c4h5w5o6k3")
    reason = next(row.reason for row in nc.explain(problem).rows if row.algorithm == "pointwise")
    assert reason
    with pytest.raises(nc.UnsupportedError, match=f"algorithm='pointwise' cannot do {problem}: {reason}"):
        nc.conv2d(ones(1, 4, 5, 5), ones(6, 4, 3, 3), algorithm="pointwise")


@pytest.mark.parametrize("count", [0, -1, 1.0, True, "2", None, numba.config.NUMBA_NUM_THREADS + 1])
def test_at_least_one_thread_computes_and_no_more_than_there_are(count):
    before = nc.get_num_threads()
    with pytest.raises(nc.ConvError, match=f"n={count!r}"):
        nc.set_num_threads(count)
    with pytest.raises(nc.ConvError, match=f"n={count!r}"), nc.num_threads(count):
        pass
    assert nc.get_num_threads() == before


# --- element types ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x", "weight", "bias", "residual", "out"])
@pytest.mark.parametrize("dtype", ["int32", "float16", "complex64", "object", "bool", "longdouble", "<U4", "M8[s]"])
def test_element_types_other_than_two_are_refused(name, dtype, given_):
    arguments = {"x": given_.x, "weight": given_.weight, "bias": given_.bias, "padding": 1}
    shape = given_.problem.output_shape if name in ("residual", "out") else arguments[name].shape
    with pytest.raises(nc.DTypeError, match=f"{name} has dtype {np.dtype(dtype)}".replace("[", r"\[")):
        nc.conv2d(**(arguments | {name: np.zeros(shape, dtype)}))


@pytest.mark.parametrize("name", ["weight", "bias", "residual", "out"])
@pytest.mark.parametrize("dtypes", [(F32, F64), (F64, F32)])
def test_element_types_are_not_mixed(name, dtypes, given_):
    most, one = dtypes
    arrays = {"x": given_.x, "weight": given_.weight, "bias": given_.bias, "residual": given_.residual}
    arrays["out"] = np.empty(given_.problem.output_shape)
    arrays = {key: value.astype(one if key == name else most) for key, value in arrays.items()}
    with pytest.raises(nc.DTypeError, match=f"{name} has dtype {np.dtype(one)}.*{np.dtype(most)}"):
        nc.conv2d(**arrays, padding=1)


@pytest.mark.parametrize(
    "value, message",
    [
        ([[1.0, 2.0], [3.0]], r"x is a list that is no array"),
        (None, r"x has dtype object"),
        ([[[[1, 2], [3, 4]]]], r"x has dtype int64"),
        ("image", r"x has dtype <U5"),
    ],
)
def test_what_is_no_array_of_floats_is_refused(value, message):
    with pytest.raises(nc.ConvError, match=message):
        nc.conv2d(value, ones(1, 1, 1, 1, dtype=F64))


def test_nested_lists_of_floats_are_arrays_of_float64():
    y = nc.conv2d([[[[1.0, 2.0], [3.0, 4.0]]]], [[[[1.0, 10.0]]]], [0.5], residual=[[[[1.0], [2.0]]]])
    assert y.dtype == F64 and y.tolist() == [[[[22.5], [45.5]]]]


# --- arrays as they lie in memory ------------------------------------------------------------------------------


def _spaced(array):
    view = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, array.dtype)[..., ::2]
    view[...] = array
    return view


def _misaligned(array):
    view = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    return view


def _read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


class _Subclass(np.ndarray):
    pass


WRITABLE = {
    "with gaps between elements": _spaced,
    "Fortran-ordered": lambda array: np.array(array, order="F"),
    "from its last element to its first": lambda array: np.flip(np.flip(array).copy()),
    "backwards along rows": lambda array: np.flip(np.flip(array, -1).copy(), -1),
    "byte-swapped": lambda array: array.astype(array.dtype.newbyteorder()),
    "misaligned": _misaligned,
    "misaligned and byte-swapped": lambda array: _misaligned(array.astype(array.dtype.newbyteorder())),
    "a subclass": lambda array: array.copy().view(_Subclass),
}
ANY = WRITABLE | {"read-only": _read_only, "read-only with gaps": lambda array: _read_only(_spaced(array))}


def laid(ways):
    return pytest.mark.parametrize("lay", [pytest.param(lay, id=name) for name, lay in ways.items()])


@laid(ANY)
@pytest.mark.parametrize("problem, name", pairs(*EACH, "n2c4h7w8o6k3p1f64bias", layouts=("cf", "cl")))
def test_operands_may_lie_in_memory_as_they_like_and_stay_as_they_are(problem, name, lay):
    given_ = make_operands(problem, whole_numbers, residual=True, activation="relu")
    plain = given_.x, given_.weight, given_.bias, given_.residual
    arrays = [lay(array) for array in plain]
    y = Operands(problem, *arrays, "relu").conv(name)
    assert np.array_equal(y, given_.oracle())
    assert type(y) is np.ndarray and y.dtype == problem.np_dtype and y.flags.c_contiguous and y.flags.aligned
    for array, before in zip(arrays, plain, strict=True):
        assert np.array_equal(array, before)


def test_one_image_may_stand_for_a_batch(given_):
    one, problem = given_.x[:1], given_.problem
    y = nc.conv2d(np.broadcast_to(one, given_.x.shape), given_.weight, padding=1)
    assert np.array_equal(y, nc.conv2d(np.repeat(one, problem.n, 0), given_.weight, padding=1))


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_keeps_its_own_weights(name):
    problem = next(parameter.values[0] for parameter in EACH_ALGORITHM if parameter.values[1] == name)
    given_ = make_operands(problem, whole_numbers)
    expected, layer = given_.oracle(), given_.layer(name)
    given_.weight[...] = given_.bias[...] = np.nan
    assert np.array_equal(layer(given_.x), expected)


# --- where the result goes -------------------------------------------------------------------------------------


@laid(WRITABLE)
@pytest.mark.parametrize("problem, name", EACH_ALGORITHM)
def test_a_result_goes_where_it_is_asked_for(problem, name, lay):
    given_ = make_operands(problem, whole_numbers, residual=True)
    out = lay(np.full(problem.output_shape, np.nan, problem.np_dtype))
    assert given_.conv(name, out=out) is out
    assert np.array_equal(out, given_.oracle())


def test_gaps_between_results_stay_as_they_are(given_):
    memory = np.full((2, 6, 7, 16), 7, F32)
    given_.conv(out=memory[..., 1::2])
    assert np.array_equal(memory[..., 1::2], given_.oracle()) and np.all(memory[..., ::2] == 7)


@laid({"contiguous": np.copy} | WRITABLE)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("problem, name", EACH_ALGORITHM)
def test_the_residual_may_be_the_result(problem, name, batched, lay):
    given_ = make_operands(problem, whole_numbers, residual=True, activation="relu")
    x, residual, expected = (a if batched else a[0] for a in (given_.x, given_.residual, given_.oracle()))
    out = lay(residual)
    assert given_.layer(name)(x, residual=out, out=out) is out
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("out", [[[0.0]], float, "out", 1.0, memoryview(bytearray(8))])
def test_results_are_written_into_arrays_only(out, given_):
    with pytest.raises(nc.ConvError, match=f"out is a {type(out).__name__}; it must be a NumPy array"):
        given_.conv(out=out)


def test_results_are_not_written_into_what_is_read_only(given_):
    with pytest.raises(nc.ConvError, match=r"out of shape \(2, 6, 7, 8\) is read-only"):
        given_.conv(out=_read_only(given_.residual))


SAME = ConvProblem.parse("n2c4h6w6o4k3p1")  # whose result is as large as its input


def _same_memory(memory, size):
    return memory[:size], memory[:size]


def _partly(memory, size):
    return memory[:size], memory[size - 1 : 2 * size - 1]


def _partly_before(memory, size):
    return memory[size - 1 : 2 * size - 1], memory[:size]


def _out_with_gaps(memory, size):
    return memory[:size], memory[: 2 * size : 2]


def _both_with_gaps(memory, size):
    return memory[: 2 * size : 2], memory[: 2 * size : 2]


def _input_backwards(memory, size):
    return memory[size - 1 :: -1][:size], memory[:size]


@pytest.mark.parametrize(
    "overlap", [_same_memory, _partly, _partly_before, _out_with_gaps, _both_with_gaps, _input_backwards]
)
def test_the_result_must_not_overlap_the_input(overlap):
    given_ = make_operands(SAME, whole_numbers)
    size, memory = given_.x.size, np.zeros(2 * given_.x.size, F32)
    x, out = (part.reshape(given_.x.shape) for part in overlap(memory, size))
    assert np.shares_memory(x, memory) and np.shares_memory(out, memory)
    x[...] = given_.x
    before = memory.copy()
    with pytest.raises(nc.ConvError, match="out shares memory with x"):
        given_.layer()(x, out=out)
    assert np.array_equal(memory, before)


def test_the_result_must_not_overlap_the_residual_in_part(given_):
    size, shape = given_.residual.size, given_.residual.shape
    memory = np.zeros(2 * size, F32)
    residual, out = memory[:size].reshape(shape), memory[1 : size + 1].reshape(shape)
    with pytest.raises(nc.ConvError, match="out shares memory with residual"):
        given_.layer()(given_.x, residual=residual, out=out)


def test_results_between_the_elements_of_the_input_do_not_overlap_it():
    given_ = make_operands(SAME, whole_numbers)
    memory = np.empty((*SAME.input_shape, 2), F32)
    x, out = memory[..., 0], memory[..., 1]
    x[...] = given_.x
    given_.layer()(x, out=out)
    assert np.array_equal(out, given_.oracle()) and np.array_equal(x, given_.x)


# --- sizes -----------------------------------------------------------------------------------------------------


def assert_raises_before_memory_is_taken(call, errors, message=None):
    tracemalloc.start()
    try:
        with pytest.raises(errors, match=message):
            call()
        # a refused request is counted as if it had been granted; all that could never be granted are multiples of this
        assert tracemalloc.get_traced_memory()[1] % REFUSED < LITTLE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "padding, message",
    [
        (2**62, r"padded input of .* takes .* bytes; a tensor must take fewer than 2\*\*63 bytes"),
        (2**63 - 1, r"2\*\*63"),
        (2**31, r"2\*\*63"),
        (((2**62, 2**62), (0, 0)), r"2\*\*63"),
        (2**63, r"padding=9223372036854775808 is out of range"),
        (10**30, r"padding=1000000000000000000000000000000 is out of range"),
    ],
)
@pytest.mark.parametrize("n", [0, 1])
def test_padding_beyond_all_memory_is_refused(padding, message, n):
    assert_raises_before_memory_is_taken(
        lambda: nc.conv2d(ones(n, 1, 4, 4), ones(1, 1, 3, 3), padding=padding), nc.ShapeError, message
    )


def _image(shape):
    return {"x": np.broadcast_to(F32(1), shape), "weight": ones(8, 1, 1, 1)}


def _kernel(shape):
    return {"x": ones(1, 1, 4, 4), "weight": np.broadcast_to(F32(1), shape)}


# Operands that take no memory as they are: one element seen many times.  Copies of them could not be made.
@pytest.mark.parametrize(
    "arguments",
    [
        _image((2**20, 1, 2**20, 2**20)),
        _image((1, 1, 2**30, 2**30)),
        _image((1, 2**60, 1, 1)),
        _kernel((2**60, 1, 1, 1)),
        _kernel((2**30, 2**30, 1, 1)),
        _kernel((1, 1, 2**30, 2**30)),
        {"x": ones(1, 1, 4, 4), "weight": ones(1, 1, 1, 1), "residual": np.broadcast_to(F32(1), (1, 1, 2**30, 2**30))},
    ],
)
def test_sizes_beyond_all_memory_raise_before_memory_is_taken(arguments):
    assert_raises_before_memory_is_taken(lambda: nc.conv2d(**arguments), (nc.ConvError, MemoryError))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"x": np.broadcast_to(F32(1), (2**24, 1, 1, 1)), "padding": 2**20}, r"padded input of .* takes .* bytes"),
        ({"x": np.broadcast_to(F32(1), (2**22, 4, 1, 1))}, r"x has 4 channels"),
        ({"x": ones(4, 1, 5, 5), "residual": np.broadcast_to(F32(1), (2**20, 1, 5, 5))}, r"residual has shape"),
        ({"x": ones(4, 1, 5, 5), "bias": np.broadcast_to(F32(1), 2**24)}, r"bias has shape"),
    ],
    ids=["overflow", "channels", "residual", "bias"],
)
def test_operands_are_checked_before_they_are_copied(arguments, message):
    arguments = {"weight": ones(1, 1, 1, 1)} | arguments
    assert_raises_before_memory_is_taken(lambda: nc.conv2d(**arguments), nc.ConvError, message)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ("auto", *NAMES))
def test_a_result_too_large_for_memory_raises_before_memory_is_taken(name, layout):
    problem = ConvProblem.parse("c1h1w1o1k1p16777216_16777215" + ("cl" if layout == "channels_last" else ""))
    layer, refusals = (
        make_operands(problem, whole_numbers).layer(name),
        (nc.UnsupportedError, nc.ShapeError, MemoryError),
    )
    # what compiles takes memory, too
    with pytest.raises(refusals):
        layer(ones(1, 1, 1, 1))
    assert_raises_before_memory_is_taken(lambda: layer(ones(1, 1, 1, 1)), refusals)


@pytest.mark.parametrize("problem, name", EACH_ALGORITHM)
def test_an_empty_batch_gives_an_empty_result(problem, name):
    given_ = make_operands(problem, whole_numbers, residual=True, activation="silu")
    layer = given_.layer(name)
    out = np.empty((0, *problem.output_shape[1:]), F32)
    y = layer(given_.x[:0], residual=given_.residual[:0])
    assert y.shape == out.shape and y.dtype == F32
    assert layer(given_.x[:0], out=out) is out
    assert np.array_equal(layer(given_.x, residual=given_.residual).shape, problem.output_shape)


# --- after an error, and numbers that are none -----------------------------------------------------------------

BAD_CALLS = {
    "rank": (lambda g: {"x": g.x[0, 0]}, nc.ShapeError),
    "channels": (lambda g: {"x": g.x[:, :3]}, nc.ShapeError),
    "empty axis": (lambda g: {"x": g.x[:, :, :0]}, nc.ShapeError),
    "element type": (lambda g: {"x": g.x.astype(np.int32)}, nc.DTypeError),
    "mixed types": (lambda g: {"x": g.x.astype(F64)}, nc.DTypeError),
    "no array": (lambda g: {"x": [[1.0], []]}, nc.ConvError),
    "residual's shape": (lambda g: {"residual": g.residual[:1]}, nc.ShapeError),
    "residual's type": (lambda g: {"residual": g.residual.astype(F64)}, nc.DTypeError),
    "result's shape": (lambda g: {"out": np.empty(3, F32)}, nc.ShapeError),
    "result's type": (lambda g: {"out": np.empty(g.residual.shape, F64)}, nc.DTypeError),
    "result read-only": (lambda g: {"out": _read_only(g.residual)}, nc.ConvError),
    "result no array": (lambda g: {"out": "out"}, nc.ConvError),
    "overlap": (lambda g: {"out": np.lib.stride_tricks.as_strided(g.x, g.residual.shape, g.x.strides)}, nc.ConvError),
    "too large": (lambda g: {"x": np.broadcast_to(F32(1), (2**30, 4, 2**14, 2**14))}, (nc.ConvError, MemoryError)),
}


@pytest.mark.parametrize("bad, error", [pytest.param(*call, id=name) for name, call in BAD_CALLS.items()])
@pytest.mark.parametrize("name", ["auto", "direct", "im2col"])
def test_after_an_error_the_layer_still_convolves(name, bad, error, given_):
    layer, expected = given_.layer(name), given_.oracle()
    for _ in range(2):
        with pytest.raises(error):
            layer(**({"x": given_.x, "residual": given_.residual} | bad(given_)))
        assert np.array_equal(layer(given_.x, residual=given_.residual), expected)


def test_after_a_refusal_the_layer_still_convolves():
    layer = nc.Conv2d(ones(1, 1, 3, 3), padding=1, algorithm="indirect")
    with pytest.raises(nc.UnsupportedError, match="algorithm='indirect' cannot do c1h2000w2000o1k3p1: its tables"):
        layer(ones(1, 1, 2000, 2000))
    assert np.array_equal(layer(ones(1, 1, 2, 2)), np.full((1, 1, 2, 2), 4, F32))


@pytest.mark.parametrize("value", [*NON_FINITE, np.finfo(F32).max, 1e-45])
@pytest.mark.parametrize("problem, name", EACH_ALGORITHM)
def test_numbers_beyond_all_bounds_pass_as_in_the_definition(problem, name, value):
    given_ = make_operands(problem, normals)
    given_.x[0] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y = given_.layer(name)(given_.x)
    with np.errstate(all="ignore"):
        expected = given_.oracle()
    assert np.all(np.isfinite(y[1])), "the other image knows nothing of it"
    if abs(value) != np.finfo(F32).max:  # sums of such numbers overflow or not, as their order has it
        assert np.array_equal(kinds(y), kinds(expected))


@pytest.mark.parametrize("activation", ["relu", "silu", "hardswish", "sigmoid", "hardsigmoid", "tanh", "gelu"])
@pytest.mark.parametrize("name", ["direct", "im2col"])
def test_not_a_number_stays_so_through_every_activation(activation, name, given_):
    given_.x[...] = np.nan
    y = nc.conv2d(given_.x, given_.weight, activation=activation, algorithm=name)
    assert np.all(np.isnan(y))


@pytest.mark.parametrize(
    "x", (None, [[1.0]], "image", np.ones((1, 3, 5, 5)), np.ones((1, 3, 4, 5), np.float32)), ids=repr
)
def test_a_layer_that_has_run_refuses_what_a_new_one_refuses(x):
    weight, good = np.ones((2, 3, 1, 1), np.float32), np.ones((1, 3, 5, 5), np.float32)
    warm, out = nc.Conv2d(weight), np.empty((1, 2, 5, 5), np.float32)
    warm(good, out=out)
    with pytest.raises(nc.ConvError) as refused:
        nc.Conv2d(weight)(x, out=out)
    with pytest.raises(nc.ConvError) as again:
        warm(x, out=out)
    assert str(again.value) == str(refused.value)
    np.testing.assert_array_equal(warm(good, out=out), np.full_like(out, 3))


class _Subclass(np.ndarray):
    """An array that is not quite one."""


def _at(x, out, residual=None):
    """What compiled code finds of operands that should be (2, 3, 5) and a result of (2, 4, 5), by their addresses."""
    wanted = expected(np.dtype(F32), (2, 3, 5), (2, 4, 5))
    return operands_at(wanted.ctypes.data, id(x), id(out), 0 if residual is None else id(residual))


def test_compiled_code_finds_the_data_of_arrays():
    x, out, residual = ones(2, 3, 5), ones(2, 4, 5), ones(2, 4, 5)
    assert _at(x, out) == (x.ctypes.data, out.ctypes.data, 0)
    assert _at(x, out, residual) == (x.ctypes.data, out.ctypes.data, residual.ctypes.data)
    assert _at(x, out, out) == (x.ctypes.data, out.ctypes.data, out.ctypes.data)
    neighbours = ones(70)
    x, out = neighbours[:30].reshape(2, 3, 5), neighbours[30:].reshape(2, 4, 5)
    x.flags.writeable = False
    assert _at(x, out) == (x.ctypes.data, out.ctypes.data, 0)


@pytest.mark.parametrize(
    "make",
    [
        lambda *shape: np.ones(shape).tolist(),
        lambda *shape: None,
        lambda *shape: ones(*shape).view(_Subclass),
        lambda *shape: ones(*shape, dtype=F64),
        lambda *shape: ones(*shape, dtype=np.int32),
        lambda *shape: ones(*shape).astype(">f4"),
        lambda *shape: ones(*shape, 1),
        lambda *shape: ones(*shape[1:]),
        lambda *shape: ones(*shape[:2], 6),
        lambda *shape: ones(3, *shape[1:]),
        lambda *shape: ones(*shape[::-1]).T,
        lambda *shape: ones(*shape, 2)[..., 0],
        lambda *shape: _misaligned(ones(*shape)),
    ],
)
def test_compiled_code_refuses_other_objects(make):
    x, out = ones(2, 3, 5), ones(2, 4, 5)
    assert _at(make(2, 3, 5), out) == (0, 0, 0)
    assert _at(x, make(2, 4, 5)) == (0, 0, 0)
    # where there is no residual its address is 0
    other = make(2, 4, 5)
    assert other is None or _at(x, out, other) == (0, 0, 0)


def test_compiled_code_refuses_to_write_what_is_read_only_or_overlaps():
    x, out, memory = ones(2, 3, 5), ones(2, 4, 5), ones(80)
    assert _at(x, _read_only(out)) == (0, 0, 0)
    parts = [memory[first : first + size].reshape(2, -1, 5) for first, size in ((0, 30), (29, 40), (39, 30), (30, 40))]
    assert _at(parts[0], parts[1]) == _at(parts[2], parts[1]) == (0, 0, 0)
    assert _at(x, parts[1], parts[3]) == _at(x, parts[3], parts[1]) == (0, 0, 0)
