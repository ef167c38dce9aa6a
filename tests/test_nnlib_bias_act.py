from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import fluxtorch.nnlib.activations as activations
from fluxtorch.base import identity
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib import within_gradient
from fluxtorch.nnlib.bias_act import bias_act_
from fluxtorch.zygote import gradient, withgradient

F64 = torch.float64
FUNCTIONS = [identity, torch.tanh, *(getattr(activations, f) for f in activations.__all__ if f != "rrelu")]
FUNCTIONS += [lambda x: x, lambda x: 1 / (x**2 + 2), lambda x: activations.leakyrelu(x, 0.33)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y):
    torch.testing.assert_close(x, y)


@pytest.mark.parametrize("σ", FUNCTIONS)
def test_every_activation(σ):
    x, b = torch.randn(3, 4, dtype=F64), torch.randn(3, dtype=F64)
    close(bias_act_(σ, x.clone(), b), σ(x + b[:, None]))
    close(bias_act_(σ, x.clone(), False), σ(x))
    x.requires_grad_(), b.requires_grad_()
    assert gradcheck(lambda x, b: bias_act_(σ, x, b), (x, b))
    assert gradcheck(lambda x: bias_act_(σ, x, False), x)


def test_axes_line_up_from_the_first():
    x, b = torch.zeros(3, 3), torch.tensor([1.0, 2.0, 3.0])
    assert bias_act_(identity, x, b).tolist() == [[1, 1, 1], [2, 2, 2], [3, 3, 3]]
    x = torch.zeros(2, 2, 3, 2)
    y = bias_act_(identity, x, b[None, None])
    assert y[1, 0, :, 1].tolist() == [1, 2, 3]
    assert bias_act_(identity, [1, 2], [10, 20]).tolist() == [11, 22]
    assert bias_act_(identity, torch.zeros(2), 0.5).tolist() == [0.5, 0.5]


def test_it_overwrites():
    x = torch.rand(3, 4)
    assert bias_act_(identity, x, False) is x
    for σ in (torch.tanh, identity, torch.relu):
        for b in (torch.randn(3, dtype=F64), False):
            x = torch.randn(3, 4)
            expected = σ(x + (0 if b is False else b.float()[:, None]))
            y = bias_act_(σ, x, b)
            assert y is x
            assert y.dtype == torch.float32
            close(x, expected)


def test_it_does_not_overwrite_integers():
    x = torch.randint(-3, 4, (3, 4))
    before = x.clone()
    y = bias_act_(identity, x, [1, 0, -1])
    assert y.tolist() == (x + torch.tensor([[1], [0], [-1]])).tolist()
    assert bias_act_(activations.tanh_fast, x, False).is_floating_point()
    assert torch.equal(x, before)


def test_it_does_not_overwrite_what_a_gradient_needs():
    x, w, b = torch.randn(3, 4), torch.ones(3, 4, requires_grad=True), torch.ones(3, requires_grad=True)
    before = x.clone()
    y = bias_act_(torch.relu, x, b)  # the bias is trained
    y.sum().backward()
    assert torch.equal(x, before)
    y = bias_act_(lambda x: x * w, x, False)  # something in the activation is trained
    y.sum().backward()
    close(w.grad, before)
    assert torch.equal(x, before)
    with torch.no_grad():
        bias_act_(torch.relu, w, False)  # a parameter, though nothing is recorded
    assert torch.equal(w, torch.ones(3, 4))
    gradient(lambda a: bias_act_(torch.relu, x, False).sum() + a, 1.0)
    assert torch.equal(x, before)
    shared = torch.ones(1).expand(3)
    assert bias_act_(torch.relu, shared, [1, 2, 3]).tolist() == [2, 3, 4]
    assert shared.tolist() == [1, 1, 1]


def test_gradients_of_gradients():
    x, b = torch.randn(3, 2, dtype=F64, requires_grad=True), torch.randn(3, dtype=F64, requires_grad=True)
    for σ in (torch.tanh, activations.swish, lambda y: (y / 3) ** 3):
        assert gradgradcheck(lambda x, b, σ=σ: bias_act_(σ, x, b), (x, b))


def test_no_bias_has_no_gradient():
    x = torch.randn(3, 4)
    for b in (False, torch.tensor([True, False, True])):
        assert gradient(lambda b: bias_act_(torch.relu, x.clone(), b).sum(), b) == (None,)


def test_within_gradient():
    assert within_gradient([1.0]) is False
    assert gradient(lambda x: within_gradient(x) * x, 2.0) == (1.0,)
    val, (grad,) = withgradient(lambda x: 10 * x if within_gradient(x) else x, 1.0)
    assert (val, grad) == (10, 10)
    # Unlike Zygote's, it sees through `any`.
    val, grads = withgradient(lambda x, y: x * y if any(map(within_gradient, (x, y))) else x / y, 2.0, 3.0)
    assert val == 6 and grads == (3, 2)


def test_what_it_refuses():
    for x in (torch.rand(3), [1, 2, 3]):
        for b in (True, None, "b"):
            with pytest.raises(TypeError, match=f"array as its bias, or False, but got {b!r}"):
                bias_act_(identity, x, b)
    x = torch.rand(3, 4)
    before = x.clone()
    for b in (torch.ones(4), torch.ones(1, 3), torch.ones(3, 4, 1), torch.ones(1, 4, 2)):
        with pytest.raises(DimensionMismatch, match="doesn't line up with a 3×4 tensor of float32 from the first axis"):
            bias_act_(torch.relu, x, b)
    assert torch.equal(x, before)
    with pytest.raises(TypeError, match="takes an array"):
        bias_act_(identity, 3, False)
