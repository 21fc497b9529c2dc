"""Deformable convolution: against its definition in float64, against ONNX's node tests, and for offsets that point anywhere."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import bits, normals, problems, whole_numbers

import numbaconv as nc
from numbaconv.problem import ConvProblem


def by_definition(p, x, offset, weight, bias=None, mask=None, offset_groups=1):
    """The sums in float64, channels first: every pixel is the mask's share of four neighbours, zeros stand around the image."""
    h_out, w_out = p.out_spatial
    n, taps, per_offset = p.n, p.taps, p.c_in // offset_groups
    offset = offset.astype(np.float64).reshape(n, offset_groups, taps, 2, h_out, w_out)
    mask = np.ones((n, offset_groups, taps, h_out, w_out)) if mask is None else mask.astype(np.float64)
    mask = mask.reshape(n, offset_groups, taps, h_out, w_out)
    around = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    samples = np.zeros((n, p.c_in, taps, h_out, w_out))
    for image, group, tap in np.ndindex(n, offset_groups, taps):
        k_h, k_w = divmod(tap, p.kernel[1])
        h = (
            np.arange(h_out)[:, None] * p.stride[0]
            - p.padding[0][0]
            + k_h * p.dilation[0]
            + offset[image, group, tap, 0]
        )
        w = np.arange(w_out) * p.stride[1] - p.padding[1][0] + k_w * p.dilation[1] + offset[image, group, tap, 1]
        inside = (h > -1) & (h < p.spatial[0]) & (w > -1) & (w < p.spatial[1])
        h, w = np.where(inside, h, 0), np.where(inside, w, 0)
        top, left = np.floor(h).astype(int), np.floor(w).astype(int)
        channels = slice(group * per_offset, (group + 1) * per_offset)
        for down in (0, 1):
            for right in (0, 1):
                share = (1 - abs(h - top - down)) * (1 - abs(w - left - right)) * inside * mask[image, group, tap]
                samples[image, channels, tap] += share * around[image, channels][:, top + down + 1, left + right + 1]
    samples = samples.reshape(n, p.groups, p.c_in // p.groups, taps, h_out, w_out)
    kernels = weight.astype(np.float64).reshape(p.groups, p.c_out // p.groups, p.c_in // p.groups, taps)
    y = np.einsum("ngcthw,goct->ngohw", samples, kernels).reshape(n, p.c_out, h_out, w_out)
    return y if bias is None else y + bias[:, None, None]


def to_layout(array, layout):
    """A channels-first array in that layout."""
    return array if array is None or layout == "channels_first" else np.ascontiguousarray(np.moveaxis(array, 1, -1))


def deformed(p, x, offset, weight, bias=None, mask=None, **options):
    """The result of the public function for channels-first operands, channels first."""
    y = nc.deform_conv2d(
        to_layout(x, p.layout), to_layout(offset, p.layout), weight, bias, p.stride, p.padding, p.dilation,
        to_layout(mask, p.layout), layout=p.layout, **options,
    )  # fmt: skip
    return y if p.layout == "channels_first" else np.moveaxis(y, -1, 1)


def operands(p, fill, offset_groups, seed=0, spread=3):
    """x, offset, weight, bias and mask, channels first; offsets are quarters of pixels, so that whole numbers stay exact."""
    rng = np.random.default_rng(seed)
    per_tap = offset_groups * p.taps
    x = fill(rng, (p.n, p.c_in, *p.spatial), p.np_dtype)
    weight, bias = fill(rng, p.weight_shape, p.np_dtype), fill(rng, (p.c_out,), p.np_dtype)
    offset = (rng.integers(-4 * spread, 4 * spread + 1, (p.n, 2 * per_tap, *p.out_spatial)) / 4).astype(p.np_dtype)
    mask = (rng.integers(0, 5, (p.n, per_tap, *p.out_spatial)) / 4).astype(p.np_dtype)
    return x, offset, weight, bias, mask


@st.composite
def cases(draw):
    """A small problem, and how many offset groups its channels have."""
    p = draw(problems(kernels=st.integers(1, 3)).filter(lambda p: p.macs < 300_000 and p.padded[0] < 40))
    return p, draw(st.sampled_from([groups for groups in (1, 2, 3, 5, p.c_in) if p.c_in % groups == 0]))


@given(cases(), st.booleans(), st.booleans(), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_whole_numbers_a_quarter_of_a_pixel_apart_are_exact(case, with_mask, with_bias, seed):
    p, groups = case
    x, offset, weight, bias, mask = operands(p, whole_numbers, groups, seed)
    bias, mask = bias if with_bias else None, mask if with_mask else None
    y = deformed(p, x, offset, weight, bias, mask)
    assert y.dtype == p.np_dtype
    np.testing.assert_array_equal(y, by_definition(p, x, offset, weight, bias, mask, groups))


@pytest.mark.parametrize("text", ["c24h9w11o20k3p1s2g2f32cf", "c24h9w11o20k3p1s2g2f64cl", "c3000h5w4o3k3p1dil2f32cl"])
def test_sums_are_as_exact_as_those_of_other_convolutions(text):
    """The last one has patches too long for the workspace, which are cut along K."""
    p = ConvProblem.parse(text)
    x, _, weight, bias, _ = operands(p, normals, 3)
    rng = np.random.default_rng(5)
    offset, mask = (rng.standard_normal((p.n, c * p.taps, *p.out_spatial)).astype(p.np_dtype) for c in (6, 3))
    y, judged = deformed(p, x, offset, weight, bias, mask), by_definition(p, x, offset, weight, bias, mask, 3)
    scale = np.sqrt(np.mean(judged**2))
    assert np.max(np.abs(y - judged)) < 60 * np.finfo(p.np_dtype).eps * scale


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_without_offsets_it_is_the_ordinary_convolution(layout, rng):
    x, weight = whole_numbers(rng, (2, 11, 10, 11), "f4"), whole_numbers(rng, (5, 11, 3, 2), "f4")
    p = ConvProblem.of(x.shape, weight.shape, padding=1, stride=(1, 2))
    shape = (2, 12, *p.out_spatial)
    x, offset = to_layout(x, layout), to_layout(np.zeros(shape, "f4"), layout)
    y = nc.deform_conv2d(x, offset, weight, None, (1, 2), 1, layout=layout, activation="relu")
    np.testing.assert_array_equal(
        y, nc.conv2d(x, weight, None, (1, 2), 1, layout=layout, activation="relu", algorithm="reference")
    )


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_an_offset_of_whole_pixels_moves_the_image(layout, rng):
    x, weight = whole_numbers(rng, (1, 6, 9, 9), "f4"), whole_numbers(rng, (4, 6, 3, 3), "f4")
    offset = np.zeros((1, 18, 7, 7), "f4")
    offset[:, 0::2], offset[:, 1::2] = 2, -1
    moved = np.zeros_like(x)
    moved[:, :, :-2, 1:] = x[:, :, 2:, :-1]
    p = ConvProblem.of(x.shape, weight.shape)
    y = nc.deform_conv2d(*(to_layout(a, layout) for a in (x, offset)), weight, layout=layout)
    np.testing.assert_array_equal(y, to_layout(nc.conv2d(moved, weight), layout))
    assert p.output_shape == (1, 4, 7, 7)


def onnx_cases():
    """ONNX's own node tests of DeformConv, which importing their module makes."""
    pytest.importorskip("onnx.backend.test.case.node.deformconv")
    from onnx.backend.test.case import node

    return [case for case in node._NodeTestCases if "deform_conv" in case.name]


@pytest.mark.parametrize("case", onnx_cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("constant", [False, True], ids=["computed", "constant"])
def test_a_session_runs_it_here(case, constant):
    ((inputs, (judged,)),) = case.data_sets
    onnx = pytest.importorskip("onnx")
    model = onnx.load_model_from_string(case.model.SerializeToString())
    feed = dict(zip([value.name for value in model.graph.input], inputs))
    if constant:
        kept = [value for value in model.graph.input if value.name not in ("W", "B")]
        model.graph.initializer.extend(onnx.numpy_helper.from_array(feed.pop(n), n) for n in ("W", "B") if n in feed)
        del model.graph.input[:]
        model.graph.input.extend(kept)
    session = nc.InferenceSession(model.SerializeToString())
    np.testing.assert_allclose(session.run(None, feed)[0], judged, rtol=1e-5, atol=1e-6)
    assert [record.algorithm for record in session.report() if record.op == "DeformConv"] == ["deformable"]


@pytest.mark.parametrize("case", onnx_cases(), ids=lambda case: case.name)
def test_onnx_agrees(case):
    (node,) = case.model.graph.node
    attributes = {a.name: list(a.ints) or a.i for a in node.attribute}
    ((inputs, (judged,)),) = case.data_sets
    named = dict(zip([name for name in node.input if name], inputs))
    arrays = [named.get(name) if name else None for name in node.input]
    x, weight, offset, bias, mask = arrays + [None] * (5 - len(arrays))
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    y = nc.deform_conv2d(
        x, offset, weight, bias, attributes.get("strides", 1), ((top, bottom), (left, right)),
        attributes.get("dilations", 1), mask,
    )  # fmt: skip
    np.testing.assert_allclose(y, judged, rtol=1e-5, atol=1e-6)


HUGE = [np.inf, -np.inf, 1e30, -1e30, 2.0**31, -(2.0**63), 3e9]


@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
@pytest.mark.parametrize("value", HUGE)
def test_offsets_far_beyond_the_image_find_zeros(value, layout, rng):
    p = ConvProblem.of((1, 5, 6, 7), (4, 5, 3, 3), padding=1)
    x, offset, weight, bias, mask = operands(p, whole_numbers, 1)
    far = rng.random(offset.shape) < 0.3
    near = by_definition(p, x, np.where(far, 1e3, offset), weight, bias, mask)
    y = nc.deform_conv2d(
        to_layout(x, layout), to_layout(np.where(far, np.float32(value), offset), layout), weight, bias, padding=1,
        mask=to_layout(mask, layout), layout=layout,
    )  # fmt: skip
    np.testing.assert_array_equal(y, to_layout(near.astype("f4"), layout))


@pytest.mark.parametrize("where", ["row", "column", "mask", "mask of what lies beyond the image"])
def test_a_sample_at_nan_is_nan_and_no_other(where):
    p = ConvProblem.of((2, 6, 6, 7), (4, 6, 3, 3), padding=1)
    x, offset, weight, bias, mask = operands(p, whole_numbers, 2)
    if where.startswith("mask"):
        mask[1, 9 + 4, 2, 3] = np.nan
        offset[1, 2 * (9 + 4), 2, 3] = 0.5 if where == "mask" else 1e3
    else:
        offset[1, 2 * (9 + 4) + (where == "column"), 2, 3] = np.nan
    y = nc.deform_conv2d(x, offset, weight, bias, padding=1, mask=mask)
    judged = np.zeros(y.shape, bool)
    judged[1, :, 2, 3] = True
    np.testing.assert_array_equal(np.isnan(y), judged)


def test_bits_depend_neither_on_threads_nor_on_the_batch_nor_on_out():
    p = ConvProblem.parse("n3c20h13w14o40k3p1cl")
    x, offset, weight, bias, mask = (to_layout(a, p.layout) if a.ndim == 4 else a for a in operands(p, normals, 2))
    weight = np.moveaxis(weight, -1, 1)
    layer = nc.DeformConv2d(weight, bias, padding=1, layout=p.layout, activation="silu")
    residual = x[..., :1] * np.ones(40, "f4")
    with nc.num_threads(1):
        alone = layer(x, offset, mask, residual=residual)
    out = residual.copy()
    with nc.num_threads(2):
        assert layer(x, offset, mask, residual=out, out=out) is out
    single = layer(x[2], offset[2], mask[2], residual=residual[2])
    again = pickle.loads(pickle.dumps(layer))(x, offset, mask, residual=residual)
    assert bits(alone) == bits(out) == bits(again) and bits(single) == bits(alone[2])


def test_strided_operands_are_copied_once():
    p = ConvProblem.parse("n2c6h8w9o4k3")
    x, offset, weight, bias, mask = operands(p, whole_numbers, 1)
    spread = [np.repeat(a, 2, axis=-1)[..., ::2] for a in (x, offset, weight, bias, mask)]
    out = np.zeros((2, 4, 6, 14), "f4")[..., ::2]
    layer = nc.DeformConv2d(spread[2], spread[3])
    np.testing.assert_array_equal(
        layer(spread[0], spread[1], spread[4], out=out), nc.deform_conv2d(x, offset, weight, bias, mask=mask)
    )


F32 = np.float32
X, WEIGHT, OFFSET, MASK = (np.ones(shape, F32) for shape in ((2, 6, 7, 8), (4, 3, 3, 3), (2, 36, 5, 6), (2, 18, 5, 6)))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"offset": OFFSET[:, :20]}, nc.ShapeError, r"offset has shape \(2, 20, 5, 6\).*18 channels"),
        ({"offset": OFFSET[:, :17]}, nc.ShapeError, r"offset has shape \(2, 17, 5, 6\)"),
        ({"offset": OFFSET[:, :0]}, nc.ShapeError, r"offset has shape \(2, 0, 5, 6\)"),
        ({"offset": OFFSET[:1]}, nc.ShapeError, r"offset has shape \(1, 36, 5, 6\)"),
        ({"offset": OFFSET[0]}, nc.ShapeError, r"offset has shape \(36, 5, 6\)"),
        ({"offset": OFFSET[..., :5]}, nc.ShapeError, r"offset has shape \(2, 36, 5, 5\)"),
        ({"offset": np.ones((2, 72, 5, 6), F32), "mask": None}, nc.ShapeError, r"which must divide the 6 channels"),
        ({"offset": OFFSET.astype("f8")}, nc.DTypeError, r"offset has dtype float64"),
        ({"offset": None}, nc.DTypeError, r"offset"),
        ({"mask": MASK[:, :9]}, nc.ShapeError, r"mask has shape \(2, 9, 5, 6\).*\(2, 18, 5, 6\)"),
        ({"mask": MASK.astype("f8")}, nc.DTypeError, r"mask has dtype float64"),
        ({"x": X[0, 0]}, nc.ShapeError, r"x has shape \(7, 8\)"),
        ({"x": X[:, :5]}, nc.ShapeError, r"x has 5 channels"),
        ({"x": X.astype(int)}, nc.DTypeError, r"x has dtype int64"),
        ({"weight": WEIGHT[0]}, nc.ShapeError, r"weight has shape \(3, 3, 3\)"),
        ({"bias": np.ones(3, F32)}, nc.ShapeError, r"bias has shape \(3,\)"),
        ({"stride": 0}, nc.ShapeError, r"stride=0"),
        ({"layout": "NHWC"}, nc.ShapeError, r"layout='NHWC'"),
        ({"activation": "swash"}, nc.ConvError, r"activation='swash'"),
        ({"residual": X}, nc.ShapeError, r"residual has shape"),
        ({"out": X}, nc.ShapeError, r"out has shape"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message):
    call = {"x": X, "offset": OFFSET, "weight": WEIGHT, "mask": MASK} | change
    with pytest.raises(error, match=message):
        nc.deform_conv2d(**call)


def test_the_result_must_not_overlap_an_operand():
    x, offset = np.ones((1, 9, 5, 5), F32), np.zeros((1, 18, 5, 5), F32)
    layer = nc.DeformConv2d(np.ones((9, 9, 3, 3), F32), padding=1)
    for out in (x, offset[:, :9]):
        with pytest.raises(nc.ConvError, match="out shares memory with"):
            layer(x, offset, out=out)


@pytest.mark.parametrize("groups", [0, 1.5, "2", None, True])
def test_group_counts_are_checked_at_once(groups):
    with pytest.raises(nc.ShapeError, match="groups="):
        nc.DeformConv2d(WEIGHT, groups=groups)
