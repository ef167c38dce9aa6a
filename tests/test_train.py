"""setup, update_ and train_ of Flux.Train; numbers are those of Flux's docs and tests."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fluxtorch import optimise
from fluxtorch.errors import DomainError
from fluxtorch.namedtuples import NamedTuple, nt
from fluxtorch.optimise import ADAM, InvDecay, Optimiser
from fluxtorch.optimisers import (
    AdaBelief,
    AdaGrad,
    Adam,
    AdaMax,
    AdamW,
    Descent,
    Momentum,
    NAdam,
    Nesterov,
    OAdam,
    OptimiserChain,
    RAdam,
    RMSProp,
    WeightDecay,
    trainables,
)
from fluxtorch.train import setup, skip, stop, train_, trainstep_, trainstep_withgradient_, update_
from fluxtorch.zygote import Params, gradient, params


def tensor(*numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def affine(m: Any, x: torch.Tensor) -> torch.Tensor:
    return m.weight @ x + m.bias


def test_example_of_setup() -> None:
    model = nt(weight=tensor([1.0, 1.0]), bias=tensor(0.0), σ=F.leaky_relu)
    opt_state = setup(Momentum(0.1), model)
    assert repr(opt_state) == (
        "(weight = Leaf(Momentum(0.1, 0.9), [0.0 0.0]), bias = Leaf(Momentum(0.1, 0.9), [0.0]), σ = ())"
    )
    x1, y1 = tensor(0.2, -0.3), tensor(0.4)

    def loss(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (m.σ(affine(m, x)) - y).abs().sum() * 100

    train_(loss, model, [(x1, y1), (x1, y1)], opt_state)
    assert model.bias.item() == pytest.approx(10.19)
    assert repr(opt_state) == (
        "(weight = Leaf(Momentum(0.1, 0.9), [-2.018 3.027]), bias = Leaf(Momentum(0.1, 0.9), [-10.09]), σ = ())"
    )


@pytest.mark.parametrize(
    "rule",
    [
        AdamW(0.05),
        AdaGrad(0.3),
        AdaMax(0.05),
        NAdam(0.05),
        RAdam(0.1),
        Descent(0.3),
        Adam(0.05),
        OAdam(0.03),
        AdaBelief(0.05),
        Nesterov(0.1),
        RMSProp(0.01),
        Momentum(0.1),
        ADAM(0.05),
        Optimiser(ADAM(0.05)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("splat", [True, False])
def test_training_learns(rule: Any, splat: bool) -> None:
    g = generator()
    w = torch.randn(4, 4, generator=g, dtype=torch.float64)
    model = nt(weight=torch.randn(4, 4, generator=g, dtype=torch.float64), bias=tensor(0.0, 0.0, 0.0, 0.0), ignore=None)

    def loss(m: Any, x: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(affine(m, x), w @ x)

    start = loss(model, torch.ones(4, dtype=torch.float64)).item()
    xs = (torch.rand(4, generator=g, dtype=torch.float64) for _ in range(400))
    train_(loss, model, ((x,) for x in xs) if splat else xs, setup(rule, model))
    assert loss(model, torch.rand(4, generator=g, dtype=torch.float64)).item() < 0.05 * start


def test_a_rule_without_setup() -> None:
    model = nt(w=tensor(1.0))

    def loss(m: Any, x: float) -> torch.Tensor:
        return (m.w * x).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_(loss, model, [1.0, 2.0], Descent(0.1))
        train_(loss, model, [1.0], optimise.Descent(0.1))
    assert model.w.item() == pytest.approx(1 - 0.4)
    for rule in (Adam(), ADAM(), OptimiserChain(Descent(0.1)), Optimiser(Descent(0.1))):
        with pytest.warns(UserWarning, match="has state, which will be discarded") as found:
            train_(loss, model, [1.0, 1.0], rule)
        assert len(found) == 1
        assert found[0].filename == __file__
    with pytest.raises(TypeError, match="does not know how to translate"):
        train_(loss, model, [1.0], Optimiser(ADAM(), InvDecay()))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_stop_on_a_loss_that_is_not_finite(bad: float) -> None:
    model, count = nt(w=tensor(0.0)), 0
    opt = setup(Momentum(0.1, 0.0), model)
    before: Any = None

    def loss(m: Any, i: int) -> torch.Tensor:
        nonlocal count, before
        count += 1
        if i == 51:
            before = copy.deepcopy((model, opt))
        return m.w.sum() + (bad if i == 51 else 0.0)

    with pytest.raises(DomainError, match=rf"Loss is {bad} on data item 50, stopping training") as error:
        train_(loss, model, [(i,) for i in range(1, 101)], opt)
    assert error.value.args
    assert count == 51
    assert model.w.item() == pytest.approx(-5)
    assert (model, opt) == before


def test_both_styles_are_not_mixed() -> None:
    model = nt(w=tensor(1.0))
    ps = Params([model.w])

    def loss(m: Any, x: float) -> torch.Tensor:
        return (m.w * x).sum()

    state = setup(Adam(), model)
    with pytest.raises(TypeError, match="can't mix implicit Params with explicit state"):
        train_(loss, ps, [(1.0,)], state)
    with pytest.raises(TypeError, match="no callbacks"):
        train_(loss, model, [(1.0,)], state, cb=lambda: print("this should not be printed"))
    with pytest.raises(TypeError, match="needs an optimiser"):
        train_(loss, model, [(1.0,)])
    with pytest.raises(TypeError, match="setup"):
        train_(loss, model, [(1.0,)], 0.1)
    with pytest.raises(TypeError, match="data item 0 is a list"):
        train_(lambda m, x, y: (m.w * x * y).sum(), model, [[1.0, 1.0]], state)
    assert model.w.item() == 1
    train_(lambda x: (model.w * x).sum(), ps, [1.0, 2.0], Descent(0.1), cb=lambda: None)
    assert model.w.item() == pytest.approx(0.7)


def test_update_in_both_styles() -> None:
    g = generator()
    m = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    x = torch.rand(2, generator=g)

    def y() -> float:
        with torch.no_grad():
            return m(x).item()

    ys = [y()]
    ps = Params(m.parameters())
    implicit = gradient(lambda: m(x).sum(), ps)
    explicit = gradient(lambda m: m(x).sum(), m)
    for model, grads in [(m, implicit), (ps, explicit), (ps, explicit[0]), (m, explicit), (m, explicit[0])]:
        with pytest.raises(TypeError, match="update_"):
            update_(Adam(), model, grads)
    s = setup(Adam(), m)
    for model, grads in [(m, implicit), (ps, implicit), (ps, explicit[0])]:
        with pytest.raises(TypeError, match="can't mix"):
            update_(s, model, grads)
    assert y() == ys[0]

    update_(Adam(), ps, implicit)
    ys.append(y())
    with pytest.warns(UserWarning, match=r"You probably want grads\[0\]") as found:
        assert update_(s, m, explicit) == (s, m)
    assert found[0].filename == __file__
    ys.append(y())
    update_(s, m, explicit[0])
    ys.append(y())
    update_(setup(optimise.Adam(), m), m, explicit[0])
    ys.append(y())
    assert ys == sorted(ys, reverse=True)
    assert len(set(ys)) == 5


def test_whole_tuples_of_gradients() -> None:
    for model in (torch.ones(2), nt(a=torch.ones(2)), [torch.ones(2), torch.ones(2)]):
        tree = setup(Descent(1.0), model)
        grads = gradient(lambda m: m.sum() if isinstance(m, torch.Tensor) else m[0].sum(), model)
        with pytest.warns(UserWarning, match=r"grads\[0\]"):
            update_(tree, model, grads)
        assert (model if isinstance(model, torch.Tensor) else model[0]).tolist() == [0, 0]
    w = [torch.eye(2), 2 * torch.eye(2)]  # the loop in the manual's "Composing Optimisers"
    opt_state = setup(OptimiserChain(WeightDecay(1e-4), Descent()), w)
    with pytest.warns(UserWarning, match=r"grads\[0\]"):
        update_(opt_state, w, gradient(lambda w: F.mse_loss(w[0] @ torch.ones(2), w[1] @ torch.ones(2)), w))
    torch.testing.assert_close(w[0], (1 - 1e-5) * torch.eye(2) + 0.1)
    pair = (torch.ones(1), torch.ones(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        update_(setup(Descent(1.0), pair), pair, gradient(lambda p: (p[0] * p[1]).sum(), pair)[0])
    assert pair == (torch.zeros(1), torch.zeros(1))


def test_weight_decay_is_l2_regularisation() -> None:
    g = generator()
    start = nt(weight=torch.randn(2, 3, generator=g), bias=torch.zeros(2, 1))
    data = [(torch.randn(3, 5, generator=g), torch.randn(2, 5, generator=g)) for _ in range(10)]

    def loss(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(torch.tanh(affine(m, x)), y)

    def regularised(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return loss(m, x, y) + 0.33 * ((m.weight**2).sum() / 2 + (m.bias**2).sum() / 2)

    def by(collect: Any) -> Any:
        return lambda m, x, y: loss(m, x, y) + 0.33 * sum((p**2).sum() / 2 for p in collect(m))

    model = copy.deepcopy(start)
    train_(regularised, model, data, setup(Adam(0.1), model))
    assert not torch.allclose(model.weight, start.weight)
    for same, rule in [
        (by(params), Adam(0.1)),
        (by(trainables), Adam(0.1)),
        (loss, OptimiserChain(WeightDecay(0.33), Adam(0.1))),
    ]:
        other = copy.deepcopy(start)
        train_(same, other, data, setup(rule, other))
        torch.testing.assert_close((model.weight, model.bias), (other.weight, other.bias))


def test_stop_and_skip_in_the_explicit_style() -> None:
    model = nt(w=tensor(0.0))

    def loss(m: Any, x: float) -> Any:
        if x == 2:
            skip()
        if x == 4:
            stop()
        return -(m.w * x).sum()

    train_(loss, model, itertools.count(1.0), Descent(1))
    assert model.w.item() == 1 + 3


def test_data_that_gives_nothing() -> None:
    model = nt(w=tensor(1.0))
    data = zip([1.0], [2.0], strict=True)
    opt = setup(Descent(0.1), model)
    train_(lambda m, x, y: (m.w * x * y).sum(), model, data, opt)
    with pytest.warns(UserWarning, match="used up") as found:
        train_(lambda m, x, y: (m.w * x * y).sum(), model, data, opt)
    assert found[0].filename == __file__
    with pytest.warns(UserWarning, match="doesn't depend on the model"):
        train_(lambda m, x: (model.w * x).sum(), model, [1.0], opt)
    assert model.w.item() == pytest.approx(0.8)


# -- trainstep_, of Flux 0.16 ------------------------------------------------------------------------------


def make() -> tuple[Any, torch.Tensor, torch.Tensor]:
    g = generator()
    model = nt(weight=torch.randn(2, 3, generator=g), bias=torch.zeros(2, 1))
    return model, torch.randn(3, 5, generator=g), torch.randn(2, 5, generator=g)


def mse(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(torch.tanh(affine(m, x)), y)


def test_trainstep() -> None:
    model, x, y = make()
    opt = setup(Momentum(0.1), model)
    before, w0 = mse(model, x, y), model.weight.clone()
    value = trainstep_(mse, model, (x, y), opt)
    torch.testing.assert_close(value, before)
    assert not value.requires_grad
    assert not torch.equal(model.weight, w0)
    torch.testing.assert_close(w0 - model.weight, opt.weight.state)
    assert trainstep_(lambda m, x: (m.weight @ x).sum(), model, x, opt).ndim == 0  # what is no tuple is one argument

    model, x, y = make()
    value, grad = trainstep_withgradient_(mse, model, (x, y), setup(Descent(1.0), model))
    torch.testing.assert_close(value, before)
    torch.testing.assert_close(grad.weight, w0 - model.weight)


def test_trainstep_skips_what_is_not_finite() -> None:
    model, x, _ = make()
    opt = setup(Adam(), model)
    before = copy.deepcopy((model, opt))
    assert trainstep_(lambda m, x: math.nan * m.weight.sum(), model, (x,), opt).isnan()
    assert (model, opt) == before


@pytest.mark.parametrize("wrap", [lambda loss, p: (loss, p), lambda loss, p: nt(loss=loss, pred=p)])
def test_trainstep_gives_back_all_that_the_loss_gave(wrap: Any) -> None:
    (model, x, y), (ref, _, _) = make(), make()
    prediction, before = torch.tanh(affine(model, x)), mse(model, x, y)
    opt, ref_opt = setup(Momentum(0.1), model), setup(Momentum(0.1), ref)

    def loss(m: Any, x: torch.Tensor, y: torch.Tensor) -> Any:
        p = torch.tanh(affine(m, x))
        return wrap(F.mse_loss(p, y), p)

    value = trainstep_(loss, model, (x, y), opt)
    assert isinstance(value, (tuple, NamedTuple))
    torch.testing.assert_close((value[0], value[1]), (before, prediction))
    trainstep_(mse, ref, (x, y), ref_opt)
    torch.testing.assert_close(model.weight, ref.weight)
    value, grad = trainstep_withgradient_(loss, model, (x, y), opt)
    assert grad.weight.shape == model.weight.shape
    train_(loss, ref, [(x, y)], ref_opt)
    torch.testing.assert_close(model.weight, ref.weight)


def test_train_is_a_loop_of_steps() -> None:
    (a, x, y), (b, _, _), (c, _, _) = make(), make(), make()
    data = [(x * k, y) for k in (1.0, -0.5, 2.0, 0.1)]
    opts = [setup(Adam(0.05), m) for m in (a, b, c)]
    train_(mse, a, data, opts[0])
    for d in data:
        trainstep_(mse, b, d, opts[1])
        update_(opts[2], c, gradient(mse, c, *d)[0])
    assert a == b == c
    assert opts[0] == opts[1] == opts[2]
