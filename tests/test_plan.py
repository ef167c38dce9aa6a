"""What `gradient` and `train_` remember of a model between steps holds only as long as the model is the same."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from fluxtorch import *

X = torch.ones(2, 3)


def loss(m):
    return m(X).sum()


def expected(m):
    """The gradient by each parameter, from torch alone."""
    return torch.autograd.grad(loss(m), list(m.parameters()))


def check(m):
    """The gradient, by fluxtorch, after it has been taken before."""
    for _ in range(2):
        grad = gradient(loss, m)[0]
    found = [g for g in leaves_of(grad) if g is not None]
    wanted = expected(m)
    assert len(found) == len(wanted)
    for g, w in zip(found, wanted, strict=True):
        torch.testing.assert_close(g, w)
    return grad


def leaves_of(grad):
    return Functors.fleaves(grad)


def test_a_parameter_is_replaced():
    m = Chain(Dense(2, 3, tanh), Dense(3, 1))
    check(m)
    m[0].weight = torch.randn(3, 2)
    check(m)
    m[1].bias = False
    assert check(m).layers[1].bias is None


def test_a_layer_is_replaced():
    m = Chain(Dense(2, 3, tanh), Dense(3, 1))
    check(m)
    m.layers = (Dense(2, 3), Dense(3, 5), Dense(5, 1))
    assert len(check(m).layers) == 3
    m._modules["1"] = Dense(3, 5, relu, bias=False)
    assert check(m).layers[1].bias is None


def test_a_parameter_is_frozen_and_thawed():
    m = Chain(Dense(2, 3), Dense(3, 1))
    check(m)
    m[0].requires_grad_(False)
    grad = gradient(loss, m)[0]
    assert grad.layers[0] is None and grad.layers[1].bias is not None
    m[0].requires_grad_(True)
    check(m)


def test_an_activation_comes_to_capture_a_tensor():
    def scaled(a):
        return lambda x: a * x

    m = Chain(Dense(2, 3), Dense(3, 1))
    check(m)
    m[0].σ = scaled(torch.tensor([2.0]))
    for _ in range(2):
        assert gradient(loss, m)[0].layers[0].σ.a.shape == (1,)


def test_lists_may_grow():
    m = Chain([Dense(2, 3)])
    check(m)
    m.layers.append(Dense(3, 1))
    assert len(check(m).layers) == 2


def test_torch_modules_inside():
    m = Chain(Dense(2, 3), lambda x: x.t(), nn.Linear(3, 1))
    check(m)
    m[2].bias = None
    assert gradient(loss, m)[0].layers[2].bias is None


def test_copies_are_models_of_their_own():
    m = Chain(Dense(2, 3), Dense(3, 1))
    check(m)
    for other in (copy.deepcopy(m), f64(m)):
        assert leaves_of(gradient(lambda m: m(X.to(m[0].weight.dtype)).sum(), other)[0])
    check(m)


def test_two_models_at_once_and_twice_the_same():
    a, b = Dense(2, 1), Dense(2, 1)
    for _ in range(2):
        ga, gb = gradient(lambda a, b: 2 * loss(a) + loss(b), a, b)
        assert ga.bias.item() == 6 and gb.bias.item() == 3
        first, second = gradient(lambda a, b: loss(a) + loss(b), a, a)
        assert first.bias.item() == 6 and second is None


@pytest.mark.parametrize("change", ["none", "parameter", "frozen leaf", "tie"])
def test_train_is_the_loop_written_out(change):
    torch.manual_seed(0)
    m = Chain(Dense(2 | to | 3, tanh), Dense(3 | to | 1))
    if change == "tie":
        W = torch.randn(2, 2)
        m = Chain(Dense(W), Dense(W), Dense(2 | to | 1))
    n = copy.deepcopy(m)
    if change == "parameter":
        m[1].bias, n[1].bias = False, False
    s, t = setup(Adam(0.1), m), setup(Adam(0.1), n)
    if change == "frozen leaf":
        freeze_(s.layers[0])
        freeze_(t.layers[0])
    x, y = torch.randn(2, 8), torch.randn(1, 8)
    for _ in range(5):
        train_(lambda m, x, y: mse(m(x), y), m, [(x, y), (x, y)], s)
        for _ in range(2):
            update_(t, n, gradient(lambda n: mse(n(x), y), n)[0])
    for p, q in zip(m.parameters(), n.parameters(), strict=True):
        assert torch.equal(p, q)
    if change == "frozen leaf":
        assert s.layers[0].weight.state[2] == (0.9, 0.999)


def test_a_tree_of_another_model_is_refused():
    m = Chain(Dense(2 | to | 3), Dense(3 | to | 1))
    before = [p.clone() for p in m.parameters()]
    with pytest.raises(ValueError, match="state tree"):
        train_(lambda m, x: m(x).sum(), m, [(X,)], setup(Adam(), Chain(Dense(2 | to | 3))))
    assert all(torch.equal(p, q) for p, q in zip(before, m.parameters(), strict=True))


def test_a_gradient_by_several_arguments_steps_the_model():
    torch.manual_seed(0)
    m = Chain(Dense(3 | to | 4, tanh), Dense(4 | to | 2))
    other = copy.deepcopy(m)
    opt, plain = setup(Adam(), m), setup(Adam(), other)
    x, y = torch.rand(3, 5), torch.rand(2, 5)
    for _ in range(3):
        g, dx, _ = gradient(lambda m, x, y: mse(m(x), y), m, x, y)
        assert dx.shape == x.shape
        update_(opt, m, g)
        # A gradient that was rebuilt goes the long way.
        update_(plain, other, copy.deepcopy(gradient(lambda m: mse(m(x), y), other)[0]))
    torch.testing.assert_close(list(params(m)), list(params(other)), rtol=0, atol=0)


def test_what_a_gradient_knows_is_not_taken_for_another_models():
    m, twin = Dense(2 | to | 1), Dense(2 | to | 1)
    g = gradient(lambda m: m(torch.ones(2)).sum(), m)[0]
    gradient(lambda m: m(torch.ones(2)).sum(), twin)
    opt, before = setup(Descent(1.0), twin), twin.weight.detach().clone()
    update_(opt, twin, g)
    torch.testing.assert_close(twin.weight.detach(), before - 1)
    assert m.bias == 0
    twin.weight = torch.zeros(1, 2)  # another array in its place
    update_(setup(Descent(1.0), twin), twin, g)
    torch.testing.assert_close(twin.weight.detach(), -torch.ones(1, 2))


def test_one_model_under_two_trees_and_frozen_parts():
    m = Chain(Dense(2 | to | 2), Dense(2 | to | 1))
    first, second = setup(Descent(1.0), m), setup(Descent(10.0), m)
    x = torch.ones(2, 3)
    for tree, rate in ((first, 1), (second, 10), (first, 1)):
        before, g = m[1].bias.detach().clone(), gradient(lambda m: m(x).sum(), m)[0]
        update_(tree, m, g)
        torch.testing.assert_close(m[1].bias.detach(), before - rate * 3)
    freeze_(first.layers[1])
    before = m[1].bias.detach().clone(), m[0].bias.detach().clone()
    update_(first, m, gradient(lambda m: m(x).sum(), m)[0])
    assert torch.equal(m[1].bias, before[0]) and not torch.equal(m[0].bias, before[1])
    thaw_(first)
    adjust_(first, 0.5)
    before = m[1].bias.detach().clone()
    update_(first, m, gradient(lambda m: m(x).sum(), m)[0])
    torch.testing.assert_close(m[1].bias.detach(), before - 1.5)


def test_a_gradient_is_copied_and_saved_without_what_it_knows():
    m = Dense(2 | to | 1)
    g = gradient(lambda m: m(torch.ones(2)).sum(), m)[0]
    for other in (copy.copy(g), copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert other == g and not hasattr(other, "__flat__")
    file = io.BytesIO()
    torch.save(g, file)
    file.seek(0)
    assert torch.load(file) == g
