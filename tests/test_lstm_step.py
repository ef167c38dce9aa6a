"""An LSTM's steps one by one put their products by the weights off: the same gradients in every way to ask for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch.layers import lstm_step as steps
from fluxtorch.zygote import later


@pytest.fixture(autouse=True)
def count(monkeypatch: pytest.MonkeyPatch) -> Any:
    """How many steps put something off, or couldn't."""
    said = []
    plain = steps.put_off
    monkeypatch.setattr(steps, "put_off", lambda *args: (said.append(plain(*args)), said[-1])[1])
    yield lambda: (said.count(True), said.count(False))
    assert later._local.kept is None


def model() -> Any:
    torch.manual_seed(0)
    return f64(Chain(LSTM(3 | to | 4), LSTM(4 | to | 2), Dense(2 | to | 1)))


def batches(n: int = 5, batch: int = 6) -> list[torch.Tensor]:
    torch.manual_seed(1)
    return list(torch.randn(n, batch, 3, dtype=torch.float64).mT)


def loss(m: Any, xs: Any) -> torch.Tensor:
    reset_(m)
    return torch.stack([m(x) for x in xs]).square().sum()


def wanted(m: Any, xs: Any) -> list[torch.Tensor]:
    """The gradient by `m.parameters()`, by torch alone."""
    hs = [[v.T.expand(xs[0].shape[1], -1) for v in m[k].cell.state0] for k in (0, 1)]
    total = 0
    for x in xs:
        y = x.T
        for k in (0, 1):
            cell = m[k].cell
            hs[k] = torch.lstm_cell(y, hs[k], cell.Wi, cell.Wh, cell.b, None)
            y = hs[k][0]
        total = total + F.linear(y, m[2].weight, m[2].bias).square().sum()
    return list(torch.autograd.grad(total, list(m.parameters())))


def wanted_of(m: Any, xs: Any, *ps: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(loss(m, xs), ps)


class Same(torch.autograd.Function):
    """What it is given, for the sake of another way back."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


def found(grad: Any) -> list[torch.Tensor]:
    return [g for g in Flux.Functors.fleaves(grad) if isinstance(g, torch.Tensor)]


def test_explicit_and_again(count):
    m, xs = model(), batches()
    for _ in range(2):
        torch.testing.assert_close(found(gradient(lambda m: loss(m, xs), m)[0]), wanted(m, xs))
    assert count() == (20, 0)
    torch.testing.assert_close(found(withgradient(lambda m: loss(m, xs), m).grad[0]), wanted(m, xs))
    torch.testing.assert_close(withgradient(lambda m: loss(m, xs), m).val, loss(m, xs).detach())


def test_implicit_and_other_arguments(count):
    m, xs = model(), batches()
    ps = params(m)
    gs = gradient(lambda: loss(m, xs), ps)
    torch.testing.assert_close([gs[p] for p in m.parameters()], wanted(m, xs))
    assert count() == (10, 0)
    x = torch.stack(xs)
    dm, dx = gradient(loss, m, x)
    torch.testing.assert_close(found(dm), wanted(m, xs))
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(dx, torch.autograd.grad(loss(m, leaf), leaf)[0])


def test_training_as_in_torch(count):
    m, xs = model(), batches()
    other = copy.deepcopy(m)
    opt = torch.optim.Adam(other.parameters(), lr=0.01)
    state = setup(Adam(0.01), m)
    for _ in range(3):
        train_(loss, m, [(xs,)], state)
        for p, g in zip(other.parameters(), wanted(other, xs), strict=True):
            p.grad = g
        opt.step()
    torch.testing.assert_close(list(m.parameters()), list(other.parameters()))
    assert count() == (30, 0)


def test_by_some_of_the_parameters(count):
    m, xs = model(), batches()
    want = dict(zip([n for n, _ in m.named_parameters()], wanted(m, xs), strict=True))
    cell = m[0].cell
    gs = gradient(lambda: loss(m, xs), params(cell.Wh))
    torch.testing.assert_close(gs[cell.Wh], want[next(n for n, p in m.named_parameters() if p is cell.Wh)])
    cell.b.requires_grad_(False)
    got = gradient(lambda m: loss(m, xs), m)[0].layers[0].cell
    torch.testing.assert_close((got.Wi, got.Wh), tuple(wanted_of(m, xs, cell.Wi, cell.Wh)))
    assert got.b is None


def test_weights_used_elsewhere_too(count):
    m, xs = model(), batches()
    cell = m[0].cell

    def both(m: Any) -> torch.Tensor:
        return loss(m, xs) + (m[0].cell.Wi ** 3).sum() + m[0].cell.b.square().sum()

    torch.testing.assert_close(found(gradient(both, m)[0]), list(torch.autograd.grad(both(m), list(m.parameters()))))
    assert count()[0] and cell.Wi.grad is None


def test_who_hooked_a_weight_sees_its_whole_gradient(count):
    m, xs = model(), batches()
    seen = []
    handle = m[0].cell.Wi.register_hook(lambda g: seen.append(g) or 2 * g)
    got = gradient(lambda m: loss(m, xs), m)[0].layers[0].cell.Wi
    handle.remove()
    (want,) = wanted_of(m, xs, m[0].cell.Wi)
    torch.testing.assert_close(got, 2 * want)
    torch.testing.assert_close(sum(seen), want)


def test_further_derivatives(count):
    m, xs = model(), batches(3)

    def penalty(m: Any) -> torch.Tensor:
        return gradient(lambda x: loss(m, [x, *xs[1:]]), xs[0])[0].square().sum()

    def by_hand(m: Any, again: bool) -> torch.Tensor:
        x = xs[0].clone().requires_grad_()
        return torch.autograd.grad(loss(m, [x, *xs[1:]]), x, create_graph=again)[0].square().sum()

    want = torch.autograd.grad(by_hand(m, True), list(m.parameters()), allow_unused=True)
    for f in (penalty, lambda m: by_hand(m, True)):  # the second in a gradient that doesn't know
        got = gradient(f, m)[0]
        for g, w in zip(found(got), [w for w in want if w is not None], strict=True):
            torch.testing.assert_close(g, w)


def test_a_way_back_of_somebody_s_own_within(count):
    m, xs = model(), batches()
    inner = []

    class Own(Same):
        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            with torch.enable_grad():
                y = loss(other, xs)
            inner.extend(torch.autograd.grad(y, list(other.parameters())))
            return g

    other = copy.deepcopy(m)
    got = gradient(lambda m: Own.apply(loss(m, xs)), m)[0]
    torch.testing.assert_close(found(got), wanted(m, xs))
    torch.testing.assert_close(inner, wanted(m, xs))
    inner.clear()
    other = m  # the same weights in both
    torch.testing.assert_close(found(gradient(lambda m: Own.apply(loss(m, xs)), m)[0]), wanted(m, xs))
    torch.testing.assert_close(inner, wanted(m, xs))


def test_pullback_jacobian_and_backward(count):
    m, xs = model(), batches()
    _, back = pullback(lambda m: loss(m, xs), m)
    torch.testing.assert_close(found(back(1.0)[0]), wanted(m, xs))
    torch.testing.assert_close(found(back(2.0)[0]), [2 * g for g in wanted(m, xs)])

    def left(m: Any) -> torch.Tensor:
        y = loss(m, xs)
        y.backward(retain_graph=True)
        return y

    got = gradient(left, m)[0]
    torch.testing.assert_close([p.grad for p in m.parameters()], wanted(m, xs))
    torch.testing.assert_close(found(got), wanted(m, xs))


def test_what_came_before_is_constant(count):
    m, xs = model(), batches()
    kept = (m[0].cell.Wi * 2).sum()  # a graph that leads to the weights
    got = gradient(lambda m: loss(m, xs) + kept, m)[0]
    torch.testing.assert_close(found(got), wanted(m, xs))


def test_an_error_on_the_way_leaves_nothing(count):
    m, xs = model(), batches()

    class Broken(Same):
        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            raise ArithmeticError("broken")

    def broken(m: Any) -> torch.Tensor:
        reset_(m)
        return m(Broken.apply(m(xs[0])).repeat(3, 1)).sum()

    with pytest.raises(ArithmeticError):
        gradient(broken, m)
    torch.testing.assert_close(found(gradient(lambda m: loss(m, xs), m)[0]), wanted(m, xs))


def test_vectors_and_a_wrong_size(count):
    m = model()
    xs = [x[:, 0] for x in batches()]
    torch.testing.assert_close(found(gradient(lambda m: loss(m, xs), m)[0]), wanted(m, [x[:, None] for x in xs]))
    with pytest.raises(DimensionMismatch, match="batch of 6"):
        gradient(lambda m: loss(m, [*batches(1), *batches(1, 4)]), m)
