"""PyTorch's graph of gradients through our convolutions."""

import numpy as np
import pytest

import numbaconv as nc

torch = pytest.importorskip("torch")

from numbaconv import torch_autograd  # noqa: E402 - needs PyTorch

RNG = np.random.default_rng(6)


@pytest.fixture(autouse=True)
def one_thread():
    """Results do not depend on threads, and two pools of them would wait for each other."""
    with nc.num_threads(1):
        yield


def integers(*shape):
    return torch.from_numpy(RNG.integers(-3, 4, shape).astype(np.float64))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    "function, weight_shape, window",
    [
        ("conv2d", (6, 2, 3, 2), {"stride": (2, 1), "padding": 1, "groups": 2}),
        ("conv_transpose2d", (4, 3, 3, 2), {"stride": 2, "padding": 1, "output_padding": 1, "groups": 2}),
    ],
)
def test_a_graph_through_them_has_the_gradients_of_torch(function, weight_shape, window, memory_format):
    operands = integers(2, 4, 7, 6).contiguous(memory_format=memory_format), integers(*weight_shape), integers(6)
    found = []
    for module in (torch.nn.functional, torch_autograd):
        leaves = [operand.clone().requires_grad_() for operand in operands]
        result = getattr(module, function)(*leaves, **window)
        (result**2).sum().backward()
        found.append([result.detach(), *(leaf.grad for leaf in leaves)])
    assert found[1][0].is_contiguous(memory_format=memory_format)
    for theirs, ours in zip(*found):
        assert torch.equal(theirs, ours)


@pytest.mark.parametrize("axes", [1, 3])
@pytest.mark.parametrize("batch", [(), (2,)])
def test_transposed_signals_and_volumes_have_gradients(axes, batch):
    operands = integers(*batch, 2, *(4,) * axes), integers(2, 3, *(3,) * axes), integers(3)
    found = []
    for module in (torch.nn.functional, torch_autograd):
        leaves = [operand.clone().requires_grad_() for operand in operands]
        (getattr(module, f"conv_transpose{axes}d")(*leaves, stride=2) ** 2).sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for theirs, ours in zip(*found):
        assert torch.equal(theirs, ours)


def test_only_the_gradients_that_are_asked_for_are_there():
    x, weight = integers(1, 2, 5, 5), integers(3, 2, 3, 3).requires_grad_()
    torch_autograd.conv2d(x, weight).sum().backward()
    assert x.grad is None and weight.grad.shape == weight.shape


def test_other_element_types_are_refused():
    with pytest.raises(nc.DTypeError, match="x is a tensor of torch.float16 on cpu"):
        torch_autograd.conv2d(integers(1, 2, 5, 5).half(), integers(3, 2, 3, 3))
