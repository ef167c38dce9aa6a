"""Flux.Optimise: rules with a memory, the implicit style, and train_ with callbacks."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from fluxtorch import optimise, optimisers
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.namedtuples import nt
from fluxtorch.optimise import (
    ADAM,
    ADAMW,
    NADAM,
    OADAM,
    RADAM,
    SGD,
    ADADelta,
    ADAGrad,
    Adam,
    AdaMax,
    AMSGrad,
    ClipNorm,
    ClipValue,
    Descent,
    ExpDecay,
    InvDecay,
    Momentum,
    Nesterov,
    Optimiser,
    RMSProp,
    SignDecay,
    WeightDecay,
    apply_,
    epochs,
    skip,
    stop,
    train_,
    update_,
)
from fluxtorch.optimisers import AbstractRule, ClipGrad, OptimiserChain, setup
from fluxtorch.zygote import Grads, Params, gradient

RULES: list[AbstractRule] = [
    ADAMW(),
    ADAMW(0.01, (0.9, 0.9), 0.1),
    ADAGrad(0.1),
    AdaMax(),
    ADADelta(0.9),
    AMSGrad(),
    NADAM(),
    RADAM(),
    Descent(0.1),
    ADAM(),
    OADAM(),
    Nesterov(),
    RMSProp(),
    Momentum(),
    SignDecay(),
    ClipValue(0.5),
    Optimiser(WeightDecay(0.1), ClipValue(0.5), ADAM()),
    OptimiserChain(optimisers.WeightDecay(0.1), Momentum()),
]


def tensor(*numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def some(*sizes: tuple[int, ...]) -> list[torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.randn(size, generator=g, dtype=torch.float64) for size in sizes]


def test_older_names() -> None:
    assert (Adam, optimisers.NAdam, optimisers.RAdam, optimisers.OAdam) == (ADAM, NADAM, RADAM, OADAM)
    assert (ADAGrad, ADADelta, ADAMW) == (optimisers.AdaGrad, optimisers.AdaDelta, optimise.AdamW)
    assert WeightDecay().wd == 0
    assert optimisers.WeightDecay().lambda_ == 5e-4
    opt = ADAMW(0.1)
    opt[1].wd = 0.5
    opt[0].eta = 0.01
    assert repr(opt) == "Optimiser(Adam(0.01, (0.9, 0.999), 1.0e-8), WeightDecay(0.5))"


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_both_styles_take_the_same_steps(rule: AbstractRule) -> None:
    model = nt(W=some((3, 2))[0], bs=[*some((3,), (1,))], half=torch.ones(2))
    same = copy.deepcopy(model)
    ps = Params([same.W, *same.bs, same.half])
    state = setup(rule, model)
    for i in range(5):
        grads = [g.to(p.dtype) for g, p in zip(some((3, 2), (3,), (1,), (2,)), ps, strict=True)]
        gs: list[Any] = [g * (1 - 0.3 * i) for g in grads]
        gs[2] = None if i == 1 else gs[2]
        optimisers.update_(state, model, nt(W=gs[0], bs=gs[1:3], half=gs[3]))
        update_(rule, ps, Grads(gs, ps))
    torch.testing.assert_close([same.W, *same.bs, same.half], [model.W, *model.bs, model.half])


def test_a_rule_remembers_each_tensor() -> None:
    opt = Momentum(0.1, 0.5)
    a, b, never = tensor(1.0), tensor(1.0), tensor(1.0)
    update_(opt, a, tensor(1.0))
    update_(opt, a, tensor(0.0))
    update_(opt, b, tensor(1.0))
    assert (a.item(), b.item()) == pytest.approx((1 - 0.1 - 0.05, 0.9))
    opt.eta = 1.0
    update_(opt, b, tensor(1.0))
    assert b.item() == pytest.approx(0.9 - (0.05 + 1.0))
    assert opt == Momentum(1.0, 0.5)  # what it remembers is no field
    update_(copy.copy(opt), never, tensor(1.0))
    assert len(optimise._memory(opt)) == 2


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copied_or_saved_with_its_tensors_a_rule_goes_on(copied: Any) -> None:
    opt, W = Optimiser(ADAM(0.1), InvDecay(0.1), ExpDecay(1.0, 0.5, 2)), tensor(1.0, 2.0)
    for _ in range(3):
        update_(opt, W, tensor(1.0, -1.0))
    opt2, W2 = copied((opt, W))
    alone = copied(opt)
    for _ in range(3):
        update_(opt, W, tensor(1.0, -1.0))
        update_(opt2, W2, tensor(1.0, -1.0))
    assert torch.equal(W, W2)
    fresh, fresh2 = tensor(1.0), tensor(1.0)
    update_(alone, fresh, tensor(1.0))
    update_(copied(alone), fresh2, tensor(1.0))
    assert fresh < 1


def test_optimiser_is_a_list() -> None:
    opt = Optimiser(Momentum(0.1), WeightDecay(0.0))
    W = tensor(0.0)
    update_(opt, W, tensor(1.0))
    opt[1] = Descent(0.5)  # the other rule keeps what it remembers
    update_(opt, W, tensor(0.0))
    assert W.item() == pytest.approx(-0.1 - 0.5 * 0.09)
    opt.push_(ClipValue(0.0))
    update_(opt, W, tensor(100.0))
    assert W.item() == pytest.approx(-0.145)
    assert len(opt) == 3
    assert opt.os == list(opt) == [Momentum(0.1), Descent(0.5), ClipValue(0.0)]
    assert opt[:2] == Optimiser([Momentum(0.1), Descent(0.5)])


def test_exp_decay() -> None:
    o = ExpDecay(0.2, 0.5, 1, 1e-3)
    p = tensor(0.0)
    actual = [apply_(o, p, tensor(1.0)).item() for _ in range(8)]
    assert actual == [max(0.2 * 0.5**n, 1e-3) for n in range(1, 9)]

    o = ExpDecay(0.2, 0.5, 1, 1e-3, 4)
    actual = [apply_(o, p, tensor(1.0)).item() for _ in range(8)]
    assert actual == [max(0.2 * 0.5 ** max(n - 4, 0), 1e-3) for n in range(1, 9)]


def test_exp_decay_counts_steps_not_arrays() -> None:
    o = ExpDecay(0.1, 0.1, 100, 1e-4)
    ps = Params([tensor(0.0), tensor(0.0, 0.0)])
    gs = Grads([tensor(0.0), tensor(0.0, 0.0)], ps)
    decayed = []
    for t in range(1, 1001):
        before = o.eta
        update_(o, ps, gs)
        if o.eta != before:
            decayed.append(t)
    assert decayed == [100, 200, 300, 400]
    assert o.eta == o.clip


def test_exp_decay_scales_by_its_rate() -> None:
    o, w, flags = ExpDecay(0.1, 0.1, 10, 1e-4), tensor(0.0, 0.0, 0.0), []
    for g in some(*[(3,)] * 50):
        delta = apply_(o, w, g)
        flags.append(torch.equal(delta, g * o.eta))
    assert all(flags)
    assert o.eta == o.clip


def test_accumulated_gradients_have_no_step_yet() -> None:
    o, w = OptimiserChain(optimisers.AccumGrad(2), Descent(0.1)), tensor(1.0)
    assert apply_(o, w, tensor(1.0)) is None
    torch.testing.assert_close(apply_(o, w, tensor(3.0)), tensor(0.2))


def test_inv_decay() -> None:
    o, W = InvDecay(0.5), tensor(0.0)
    assert [apply_(o, W, tensor(6.0)).item() for _ in range(4)] == pytest.approx([4, 3, 2.4, 2])


def test_clipping() -> None:
    w, g = tensor(1.0, 2.0, 3.0), tensor(1000.0, -2000.0, 0.5)
    assert apply_(ClipValue(1.0), w, g).tolist() == [1, -1, 0.5]
    assert apply_(ClipNorm(1.0), w, g).norm().item() == pytest.approx(1)
    assert apply_(ClipNorm(1e6), w, g).tolist() == g.tolist()
    assert apply_(ClipNorm(1.0), w, tensor(0.0, 0.0, 0.0)).tolist() == [0, 0, 0]
    assert str(apply_(ClipNorm(1.0), w, tensor(5.0, math.nan, 1.0)).tolist()) == "[5.0, nan, 1.0]"
    assert str(apply_(ClipNorm(1.0), w, tensor(5.0, math.inf, 1.0)).tolist()) == "[0.0, nan, 0.0]"
    assert apply_(ClipNorm(1), w.half(), g.half()).dtype is torch.float16


def test_ada_belief() -> None:
    # Its ε is squared, so that the default is the same formula as the newer one's.
    W, W2 = tensor(1.0), tensor(1.0)
    new = optimisers.AdaBelief(epsilon=1e-6)
    state = setup(new, W2)
    old = optimise.AdaBelief(epsilon=1e-3)
    for g in (1.0, 0.5, -0.2):
        update_(old, W, tensor(g))
        optimisers.update_(state, W2, tensor(g))
    assert torch.equal(W, W2)
    assert setup(optimise.AdaBelief(), W).rule == optimisers.AdaBelief(epsilon=1e-8)  # as Flux.setup does


def test_setup_takes_them() -> None:
    x = tensor(1.0)
    for old, new in [
        (ClipValue(1), ClipGrad(1)),
        (ClipNorm(1), optimisers.ClipNorm(1)),
        (WeightDecay(0.1), optimisers.WeightDecay(0.1)),
        (Optimiser(WeightDecay(0.1), ADAM()), OptimiserChain(optimisers.WeightDecay(0.1), Adam())),
        (OptimiserChain(SignDecay(), ClipValue(1)), OptimiserChain(SignDecay(), ClipGrad(1))),
        (ADAMW(), optimisers.AdamW()),
    ]:
        rule = setup(old, x).rule
        assert type(rule) is type(new)
        assert rule == new
    assert setup(ADAM(), x).rule == Adam()

    class Mine(optimise.AbstractOptimiser):
        pass

    for old_style in (InvDecay(), ExpDecay(), Mine(), Optimiser(ADAM(), InvDecay()), Optimiser(Mine())):
        with pytest.raises(TypeError, match="does not know how to translate"):
            setup(old_style, x)


def test_a_rule_of_ones_own() -> None:
    class MyMomentum:  # the example in Flux 0.12's manual
        def __init__(self, eta: float, rho: float) -> None:
            self.eta, self.rho, self.velocity = eta, rho, {}

        def apply_(self, x: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
            v = self.velocity.setdefault(x, torch.zeros_like(x))
            v.mul_(self.rho).sub_(dx, alpha=self.eta)
            return dx.copy_(-v)

    class Listed(MyMomentum, optimise.AbstractOptimiser):
        pass

    for opt in (MyMomentum(0.1, 0.9), Listed(0.1, 0.9), Optimiser(ClipValue(10), Listed(0.1, 0.9))):
        W, W2 = tensor(1.0, 2.0), tensor(1.0, 2.0)
        same = Momentum(0.1, 0.9)
        g = tensor(3.0, -1.0)
        for _ in range(3):
            update_(opt, Params([W]), Grads([g], Params([W])))
            update_(same, W2, g)
        torch.testing.assert_close(W, W2)
        assert g.tolist() == [3, -1]


def test_update_of_one_array() -> None:
    w = tensor(*range(4)).reshape(2, 2)
    update_(Descent(0.1), w, torch.ones(2, 2))
    torch.testing.assert_close(w, tensor([0, 1], [2, 3]) - 0.1)
    update_(w, torch.ones(2, 2))  # Flux 0.12's update!(x, dx)
    torch.testing.assert_close(w, tensor([0, 1], [2, 3]) - 1.1)

    v = tensor(1.0, 2.0, 3.0)
    ps = Params([v])
    update_(Descent(0.1), ps, gradient(lambda: v[0], ps))
    torch.testing.assert_close(v, tensor(0.9, 2.0, 3.0))


def test_implicit_misuse_changes_nothing() -> None:
    W, b, n = tensor(1.0, 2.0), tensor(1.0), torch.tensor([1, 2])
    opt = Momentum()
    gs = Grads([tensor(1.0, 1.0), tensor(1.0)], Params([W, b]))
    for ps, grads, error in [
        (Params([W, b, tensor(1.0)]), gs, KeyError),
        (Params([W, b]), Grads([tensor(1.0, 1.0), tensor(1.0, 1.0)], Params([W, b])), DimensionMismatch),
        (Params([W, n]), Grads([tensor(1.0, 1.0), tensor(1.0, 1.0)], Params([W, n])), TypeError),
        (Params([W, b]), (nt(W=tensor(1.0, 1.0)),), TypeError),
        (Params([W, b]), nt(W=tensor(1.0, 1.0)), TypeError),
        (W, gs, TypeError),
        (nt(W=W), gs, TypeError),
        (nt(W=W), nt(W=tensor(1.0, 1.0)), TypeError),
    ]:
        with pytest.raises(error):
            update_(opt, ps, grads)
    assert (W.tolist(), b.tolist(), n.tolist()) == ([1, 2], [1], [1, 2])
    assert not optimise._memory(opt)
    with pytest.raises(TypeError, match="third argument"):
        update_(opt, W)


@pytest.mark.parametrize("make", [InvDecay, WeightDecay, lambda: ExpDecay(1.0), SignDecay])
def test_chains_learn(make: Any) -> None:
    w, target = some((4, 4), (4, 4))
    w = w.clone()
    opt, ps = Optimiser(make(), ADAM(0.02)), Params([w])
    for _ in range(400):
        update_(opt, ps, gradient(lambda: ((w - target) ** 2).mean(), ps))
    assert ((w - target) ** 2).mean() < 0.01


@pytest.mark.parametrize("make", [ADAM, RMSProp, RADAM, OADAM, ADAGrad, NADAM, optimise.AdaBelief])
def test_complex_numbers(make: Any) -> None:
    w = torch.zeros(1, dtype=torch.complex64)
    x = torch.ones(1, 1) * (1 + 1j)
    ps, opt, last = Params([w]), make(1e-2), math.inf

    def loss() -> torch.Tensor:
        return ((w * x - x.conj()).abs() ** 2).sum()

    for _ in range(10):
        assert loss() < last
        last = loss().item()
        update_(opt, ps, gradient(loss, ps))


def test_sgd() -> None:
    W, b = tensor(1.0).requires_grad_(), tensor(2.0).requires_grad_()
    opt = SGD(Params([W, b]), 0.1)
    (3 * W + b).sum().backward()
    opt()
    assert (W.item(), b.item()) == pytest.approx((0.7, 1.9))
    opt()
    assert (W.item(), b.item()) == pytest.approx((0.7, 1.9))
    train_(lambda x: (x * W).sum(), [1.0, 2.0], SGD([W], 0.1, decay=1.0))
    assert W.item() == pytest.approx(0.7 - 0.1 / 2 - 0.2 / 3)
    assert SGD(0.2) == Descent(0.2)


# -- train_ -----------------------------------------------------------------------------------------------


def test_train_with_callbacks() -> None:
    r, seen = some((3, 3))[0], []
    cb = [lambda: seen.append(r.sum().item()), lambda: ()]
    train_(lambda x: (r * r * x).sum(), Params([r]), [1.0, 2.0], Descent(), cb=cb)
    start = some((3, 3))[0]
    assert len(seen) == 2
    torch.testing.assert_close(r, start * (1 - 0.2) * (1 - 0.4))
    assert seen[0] == pytest.approx((start * 0.8).sum().item())
    train_(lambda x: (r * x).sum(), [r], [(1.0,)], Descent(), cb=lambda: seen.append(0))
    assert len(seen) == 3
    before = r.clone()
    train_(lambda x: (x * x).sum(), Params([r]), (r,), Descent())  # the datum is the parameter
    torch.testing.assert_close(r, 0.8 * before)


def test_stop_on_nan() -> None:
    weight, bias, count = tensor(0.0), tensor(0.0), 0

    def loss(i: int) -> Any:
        nonlocal count
        count += 1
        return (math.nan if i == 51 else 1.0) * (weight + bias).sum()

    calls: list[int] = []
    with pytest.raises(DomainError, match="Loss is nan on data item 50, stopping training"):
        train_(loss, Params([weight, bias]), range(1, 101), Descent(0.1), cb=lambda: calls.append(1))
    assert count == 51
    assert len(calls) == 50
    assert weight.item() == pytest.approx(-5)


def test_stop_and_skip() -> None:
    W = tensor(0.0)
    ps = Params([W])

    def until() -> None:
        if W >= 3:
            stop()

    train_(lambda x: -(W * x).sum(), ps, itertools.repeat(1.0), Descent(1), cb=until)
    assert W.item() == 3
    train_(lambda x: -(W * x).sum(), ps, itertools.repeat((1.0,)), Descent(1), cb=lambda: "stop")
    assert W.item() == 4

    def loss(x: float) -> torch.Tensor:
        if x < 0:
            skip()
        if x == 0:
            stop()
        return -(W * x).sum()

    train_(loss, ps, [1.0, -1.0, 2.0, 0.0, 5.0], Descent(1))
    assert W.item() == 7


def test_data_of_any_kind() -> None:
    W = tensor(0.0)

    def loss(x: float, y: float) -> torch.Tensor:
        return (W * x * y).sum()

    def pairs() -> Iterator[tuple[float, float]]:
        yield from [(1.0, 2.0), (3.0, 4.0)]

    for data in ([(1.0, 2.0), (3.0, 4.0)], zip([1.0, 3.0], [2.0, 4.0], strict=True), pairs()):
        W.zero_()
        train_(loss, Params([W]), data, Descent(1))
        assert W.item() == -14
    with pytest.warns(UserWarning, match="used up"):
        train_(loss, Params([W]), data, Descent(1))
    train_(loss, Params([W]), [], Descent(1))
    with pytest.raises(TypeError, match="data item 0 is a list"):
        train_(loss, Params([W]), [[1.0, 2.0]], Descent(1))
    with pytest.raises(TypeError, match=r"data is \[\(x, y\)\]"):
        train_(loss, Params([W]), (tensor(1.0), tensor(2.0)), Descent(1))
    with pytest.raises(TypeError, match="can't mix"):
        train_(loss, Params([W]), [(1.0, 2.0)], setup(Descent(1), W))
    with pytest.raises(TypeError, match="needs an optimiser"):
        train_(loss, Params([W]), [(1.0, 2.0)])


def test_epochs(capsys: pytest.CaptureFixture[str]) -> None:
    epochs(2, lambda: print("hello"))
    out, err = capsys.readouterr()
    assert out == "hello\nhello\n"
    assert err == "[ Info: Epoch 1\n[ Info: Epoch 2\n"
