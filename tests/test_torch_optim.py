"""Torch's optimizers in setup: the same numbers as the same program written in torch alone, bit for bit."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau, StepLR

from fluxtorch import train
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.layers import Chain, Dense
from fluxtorch.loading import loadmodel_, state
from fluxtorch.namedtuples import nt
from fluxtorch.optimisers import Adam, Descent, adjust, adjust_, freeze_, setup, thaw_, update, update_
from fluxtorch.train import train_, trainstep_
from fluxtorch.zygote import gradient

optim = torch.optim
Factory = Callable[[Any], optim.Optimizer]

FACTORIES: dict[str, Factory] = {
    "SGD": optim.SGD,
    "momentum": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9),
    "nesterov": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "dampened, fused": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, dampening=0.5, fused=True),
    "Adam": optim.Adam,
    "AMSGrad, fused": lambda ps: optim.Adam(ps, lr=0.1, amsgrad=True, weight_decay=0.1, fused=True),
    "AdamW": lambda ps: optim.AdamW(ps, lr=0.1, maximize=True),
    "one by one": lambda ps: optim.AdamW(ps, lr=0.1, foreach=False),
    "RMSprop": lambda ps: optim.RMSprop(ps, lr=0.1, momentum=0.5, centered=True),
    "Adagrad": lambda ps: optim.Adagrad(ps, lr=0.1, lr_decay=0.1),
    "Adadelta": optim.Adadelta,
    "Adamax": optim.Adamax,
    "NAdam": optim.NAdam,
    "RAdam": lambda ps: optim.RAdam(ps, lr=0.1, betas=(0.8, 0.9)),
    "Rprop": optim.Rprop,
    "ASGD": optim.ASGD,
    "Adafactor": optim.Adafactor,
    "groups": lambda ps: optim.SGD([{"params": ps[:1], "lr": 0.1}, {"params": ps[1:]}], lr=0.01, momentum=0.9),
}


def make() -> Any:
    g = torch.Generator().manual_seed(0)
    return Chain(
        Dense(torch.randn(3, 2, generator=g), torch.randn(3, generator=g), torch.tanh),
        Dense(torch.randn(1, 3, generator=g), torch.zeros(1)),
    )


def batches(n: int, seed: int = 1) -> list[tuple[torch.Tensor, torch.Tensor]]:
    g = torch.Generator().manual_seed(seed)
    return [(torch.randn(2, 8, generator=g), torch.randn(1, 8, generator=g)) for _ in range(n)]


def loss(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return ((m(x) - y) ** 2).mean()


def by_hand(m: nn.Module, optimizer: optim.Optimizer, data: Any) -> None:
    for x, y in data:
        optimizer.zero_grad()
        loss(m, x, y).backward()
        optimizer.step()


def numbers(m: nn.Module) -> list[list[float]]:
    return [p.detach().flatten().tolist() for p in m.parameters()]


def everything(*things: Any) -> Any:
    """What they hold, to be compared later."""
    return copy.deepcopy([state(thing) for thing in things])


@pytest.mark.parametrize("make_optimizer", FACTORIES.values(), ids=FACTORIES)
def test_the_same_as_by_hand(make_optimizer: Factory) -> None:
    m, same, start = make(), make(), numbers(make())
    opt, optimizer = setup(make_optimizer, m), make_optimizer(list(same.parameters()))
    data = batches(7)
    for d in data[:2]:
        update_(opt, m, gradient(loss, m, *d)[0])
    train_(loss, m, data[2:5], opt)
    for d in data[5:]:
        trainstep_(loss, m, d, opt)
    by_hand(same, optimizer, data)
    assert numbers(m) == numbers(same) != start
    assert opt.optimizer.state_dict().keys() == optimizer.state_dict().keys()
    assert nt(s=opt.optimizer.state_dict()) == nt(s=optimizer.state_dict())


def test_muon_and_a_class_of_ones_own() -> None:
    class Greedy(optim.Optimizer):
        """As many are written: it changes the gradients that it finds, and counts its steps."""

        calls = 0

        def __init__(self, params: Any, lr: float = 0.1) -> None:
            super().__init__(params, {"lr": lr})

        @torch.no_grad()
        def step(self, closure: Any = None) -> None:
            self.calls += 1
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.add_(p.grad.mul_(group["lr"]), alpha=-1)

    m = nt(a=torch.ones(2), b=torch.ones(2, dtype=torch.float64), f=torch.tanh)
    opt, g = setup(Greedy, m), nt(a=torch.ones(2), b=torch.ones(2), f=None)
    update_(opt, m, g)
    assert g.a.tolist() == g.b.tolist() == [1, 1]
    assert m.a.tolist() == pytest.approx([0.9, 0.9])
    assert m.b.tolist() == pytest.approx([0.9, 0.9])
    assert opt.optimizer.calls == 1  # one step for all element types
    assert repr(opt) == ("(a = Leaf(Greedy(lr = 0.1), nothing), b = Leaf(Greedy(lr = 0.1), nothing), f = ())")

    w, same = torch.eye(3), torch.eye(3)
    opt, optimizer = setup(lambda ps: optim.Muon(ps, lr=0.1), [w]), optim.Muon([same], lr=0.1)
    for g2 in batches(3):
        grad = g2[0][:, :3].T @ g2[0][:, 3:6]
        update_(opt, [w], [grad])
        same.grad = grad
        optimizer.step()
    assert torch.equal(w, same)


@pytest.mark.parametrize("make_optimizer", FACTORIES.values(), ids=FACTORIES)
def test_gradients_are_neither_changed_nor_kept(make_optimizer: Factory) -> None:
    xs = [torch.ones(3, 2), torch.ones(3)]
    opt, grads = setup(make_optimizer, xs), [torch.full((3, 2), 0.5), torch.full((3,), 0.5)]
    for _ in range(3):
        update_(opt, xs, grads)
    assert all((g == 0.5).all() for g in grads)
    held = [v for s in opt.optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    assert not {v.data_ptr() for v in [*held, *xs]} & {g.data_ptr() for g in grads}


@pytest.mark.parametrize("fused", [False, True])
def test_memory_layout_of_the_gradient_does_not_matter(fused: bool) -> None:
    x, plain = torch.ones(4, 5), torch.ones(4, 5)
    g = torch.arange(20.0).reshape(4, 5)
    for p, grads in ((x, [g.T.clone().T, torch.ones(1, 5).expand(4, 5)]), (plain, [g, torch.ones(4, 5)])):
        opt = setup(lambda ps: optim.AdamW(ps, lr=0.1, fused=fused), p)
        for grad in grads:
            update_(opt, p, grad)
    assert torch.equal(x, plain)


def test_the_grad_attribute_is_the_users() -> None:
    m = make()
    opt = setup(lambda ps: optim.SGD(ps, lr=0.1), m)
    mine = torch.full((3, 2), 7.0)
    m[0].weight.grad = mine
    train_(loss, m, batches(3), opt)
    freeze_(opt)
    train_(loss, m, batches(3), opt)
    assert m[0].weight.grad is mine
    assert (mine == 7).all()
    assert all(p.grad is None for p in list(m.parameters())[1:])

    def fail(*args: Any) -> None:
        raise RuntimeError("no step today")

    thaw_(opt)
    opt.optimizer.register_step_pre_hook(fail)
    before = numbers(m)
    with pytest.raises(RuntimeError, match="no step today"):
        train_(loss, m, batches(1), opt)
    assert m[0].weight.grad is mine
    assert all(p.grad is None for p in list(m.parameters())[1:])
    assert numbers(m) == before


def test_ties_are_stepped_once_by_the_sum() -> None:
    w = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    m, p = nt(a=w, b=(w, torch.ones(2)), k=3), nn.Parameter(w.clone())
    q = nn.Parameter(torch.ones(2))
    opt, optimizer = setup(optim.Adam, m), optim.Adam([p, q])
    assert len(opt.optimizer.param_groups[0]["params"]) == 2
    x = torch.tensor([0.5, -2.0])
    for _ in range(3):
        update_(opt, m, gradient(lambda m: (m.a @ torch.tanh(m.b[0] @ x + m.b[1])).sum(), m)[0])
        optimizer.zero_grad()
        (p @ torch.tanh(p @ x + q)).sum().backward()
        optimizer.step()
    assert torch.equal(m.a, p)
    assert torch.equal(m.b[1], q)
    before = w.clone()
    update_(
        setup(lambda ps: optim.SGD(ps, lr=1.0), m), m, nt(a=torch.ones(2, 2), b=(2 * torch.ones(2, 2), None), k=None)
    )
    torch.testing.assert_close(w, before - 3)
    adjust_(opt, 0.1)
    assert opt.optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    "schedule",
    [
        lambda o: StepLR(o, 2, 0.5),
        lambda o: CosineAnnealingLR(o, 5),
        lambda o: OneCycleLR(o, max_lr=0.5, total_steps=8),
        lambda o: ReduceLROnPlateau(o, patience=1),
    ],
    ids=["StepLR", "CosineAnnealingLR", "OneCycleLR", "ReduceLROnPlateau"],
)
@pytest.mark.filterwarnings("error")
def test_schedulers(schedule: Any) -> None:
    m, same, data = make(), make(), batches(6)

    def factory(ps: Any) -> optim.Optimizer:
        return optim.SGD(ps, lr=0.1, momentum=0.9)

    opt, optimizer = setup(factory, m), factory(list(same.parameters()))
    one, other = schedule(opt.optimizer), schedule(optimizer)
    rates = []
    for d in data:
        trainstep_(loss, m, d, opt)
        by_hand(same, optimizer, [d])
        for s in (one, other):
            s.step(*([1.0] if isinstance(s, ReduceLROnPlateau) else []))
        rates.append(optimizer.param_groups[0]["lr"])
    assert numbers(m) == numbers(same)
    assert len(set(rates)) > 1


def test_freeze_and_thaw() -> None:
    m, same, data = make(), make(), batches(6)
    opt, optimizer = setup(optim.AdamW, m), optim.AdamW(same.parameters())
    freeze_(opt.layers[0])
    assert repr(opt.layers[0].bias).endswith(", nothing, frozen = true)")
    train_(loss, m, data[:3], opt)
    same[0].requires_grad_(False)
    by_hand(same, optimizer, data[:3])
    assert numbers(m) == numbers(same)
    assert numbers(m)[:2] == numbers(make())[:2]  # not decayed either
    thaw_(opt)
    same[0].requires_grad_(True)
    train_(loss, m, data[3:], opt)
    by_hand(same, optimizer, data[3:])
    assert numbers(m) == numbers(same)
    freeze_(opt)
    train_(loss, m, data, opt)
    assert numbers(m) == numbers(same)


def test_a_part_of_the_tree_and_trees_within_trees() -> None:
    m, same = make(), make()
    opt = setup(lambda ps: optim.SGD(ps, lr=0.1), m)
    g = gradient(loss, m, *batches(1)[0])[0]
    update_(opt.layers[1], m[1], g.layers[1])
    update_(setup(Descent(0.1), same[1]), same[1], g.layers[1])
    assert numbers(m)[:2] == numbers(make())[:2]
    torch.testing.assert_close(m[1].weight, same[1].weight)

    mixed = nt(enc=setup(optim.Adam, m[0]), dec=setup(Descent(0.1), m[1]))
    both = nt(enc=m[0], dec=m[1])
    update_(mixed, both, nt(enc=g.layers[0], dec=g.layers[1]))
    freeze_(mixed)
    assert mixed.enc.weight.frozen
    saved = everything(mixed)[0]
    other = nt(enc=setup(optim.Adam, m[0]), dec=setup(Descent(0.1), m[1]))
    assert other is loadmodel_(other, saved)
    assert nt(s=other.enc.optimizer.state_dict()) == nt(s=mixed.enc.optimizer.state_dict())


def test_transposes_are_tied() -> None:
    mat, p = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), nn.Parameter(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))
    m = nt(t=mat.T, m=mat)
    opt, optimizer = setup(optim.Adam, m), optim.Adam([p])
    g = torch.tensor([[1.0, -2, 3], [0, 1, 0]])
    for a, b in [(g.T, None), (None, g), (g.T, g)]:
        update_(opt, m, nt(t=a, m=b))
        p.grad = g * ((a is not None) + (b is not None))
        optimizer.step()
    assert torch.equal(m.m, p)
    assert torch.equal(m.t, p.T)


def test_adjust() -> None:
    m, same, data = make(), make(), batches(4)
    opt, optimizer = setup(optim.Adam, m), optim.Adam(same.parameters())
    train_(loss, m, data[:2], opt)
    by_hand(same, optimizer, data[:2])
    adjust_(opt, 0.25)
    adjust_(opt, betas=(0.8, 0.99), weight_decay=0.1)
    for group in optimizer.param_groups:
        group.update(lr=0.25, betas=(0.8, 0.99), weight_decay=0.1)
    train_(loss, m, data[2:], opt)
    by_hand(same, optimizer, data[2:])
    assert numbers(m) == numbers(same)
    assert repr(opt.layers[1].bias) == (
        "Leaf(Adam(lr = 0.25, betas = (0.8, 0.99), eps = 1.0e-8, weight_decay = 0.1), nothing)"
    )
    adjust_(opt, eta=0.5)
    assert opt.optimizer.param_groups[0]["lr"] == 0.5

    rate = torch.tensor(0.1)  # as compiled programs have it
    opt = setup(lambda ps: optim.Adam(ps, lr=rate, capturable=True), m)
    adjust_(opt, lr=0.5)
    assert opt.optimizer.param_groups[0]["lr"] is rate
    assert rate == 0.5

    opt = setup(FACTORIES["groups"], m)
    assert repr(opt.layers[0].σ) == "()"
    assert "SGD(lr = 0.1, momentum = 0.9; lr = 0.01, momentum = 0.9)" in repr(opt)
    adjust_(opt, 1)
    assert [group["lr"] for group in opt.optimizer.param_groups] == [1, 1]


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda opt: adjust_(opt, beta=(0.8, 0.9)), TypeError, "Adam has no beta; it has lr, betas, eps, weight_decay"),
        (lambda opt: adjust_(opt, 0.1, rho=0.9), TypeError, "no rho"),
        (lambda opt: adjust_(opt, params=[]), TypeError, "no params"),
        (lambda opt: adjust_(opt, -0.1), DomainError, "cannot be negative"),
        (lambda opt: adjust_(opt, weight_decay=0.1, lr="0.1"), TypeError, "Adam's lr must be a number"),
        (lambda opt: adjust_(opt, betas=0.9), TypeError, "Adam's betas must be 2 numbers"),
        (lambda opt: adjust_(opt), TypeError, "something to change"),
        (lambda opt: adjust_(opt.layers[0], 0.1), ValueError, "adjust the whole state tree"),
        (lambda opt: adjust(opt, 0.1), TypeError, "can't be copied"),
        (lambda opt: adjust(opt.layers, 0.1), TypeError, "can't be copied"),
        (lambda opt: update(opt, make(), gradient(loss, make(), *batches(1)[0])[0]), TypeError, "can't be copied"),
        (lambda opt: update_(opt, make(), gradient(loss, make(), *batches(1)[0])[0]), ValueError, "other arrays"),
        (lambda opt: update_(opt.layers, make().layers, ((None, None),) * 2), ValueError, "structure of the model"),
        (lambda opt: train_(loss, make(), batches(1), opt), ValueError, "set up for other arrays"),
        (lambda opt: freeze_(opt.optimizer), ValueError, "state tree"),
        (lambda opt: loadmodel_(opt, state(make())), ValueError, "state of a torch optimizer"),
        (lambda opt: loadmodel_(opt, state(setup(Adam(), make()))), ValueError, "state of a torch optimizer"),
        (lambda opt: loadmodel_(opt, None), ValueError, "state of a torch optimizer"),
        (lambda opt: loadmodel_(opt, state(setup(optim.NAdam, make()))), ValueError, "state of NAdam into one of Adam"),
        (lambda opt: loadmodel_(opt, state(setup(optim.Adam, make()[0]))), DimensionMismatch, "sizes"),
        (
            lambda opt: loadmodel_(
                opt, state(setup(lambda ps: optim.Adam([{"params": ps[:1]}, {"params": ps[1:]}]), make()))
            ),
            ValueError,
            "other groups",
        ),
    ],
)
def test_misuse_changes_nothing(wrong: Any, error: type[Exception], words: str) -> None:
    m = make()
    opt = setup(optim.Adam, m)
    train_(loss, m, batches(2), opt)
    before = everything(m, opt)
    with pytest.raises(error, match=words):
        wrong(opt)
    assert nt(v=everything(m, opt)) == nt(v=before)
    assert all(p.grad is None for p in m.parameters())


@pytest.mark.parametrize(
    ("rule", "error", "words"),
    [
        (optim.LBFGS, TypeError, "LBFGS evaluates the loss by itself"),
        (lambda ps: 3, TypeError, "this made 3"),
        (lambda ps: optim.SGD(ps[:1]), ValueError, "of all 4 arrays"),
        (lambda ps: optim.SGD([*ps, torch.ones(1)]), ValueError, "and no others"),
        (lambda ps: optim.SGD([p.detach() for p in ps]), ValueError, "of all 4 arrays"),
        (lambda ps: optim.SGD(ps, lr=-1), ValueError, "learning rate"),
        (optim.SGD([torch.ones(1)]), TypeError, r"pass the class torch\.optim\.SGD"),
        (nn.Linear, TypeError, "expected an optimisation rule"),
        (nn.Linear(1, 1), TypeError, "expected an optimisation rule"),
    ],
)
def test_no_optimizer(rule: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        setup(rule, make())


def test_nothing_to_train() -> None:
    with pytest.raises(ValueError, match="no trainable parameters"):
        setup(optim.Adam, (torch.tanh, 3))


@pytest.mark.parametrize("make_optimizer", FACTORIES.values(), ids=FACTORIES)
def test_a_checkpoint_resumes_exactly(make_optimizer: Factory) -> None:
    m, data = make(), batches(8)
    opt = setup(make_optimizer, m)
    schedule = StepLR(opt.optimizer, 1, 0.5)
    for d in data[:4]:
        trainstep_(loss, m, d, opt)
        schedule.step()
    file = io.BytesIO()
    torch.save({"model": state(m), "opt": state(opt), "schedule": schedule.state_dict()}, file)
    train_(loss, m, data[4:], opt)

    file.seek(0)
    saved = torch.load(file)
    m2 = make()
    opt2 = setup(make_optimizer, m2)
    rate = opt2.optimizer.param_groups[0]["lr"]
    schedule2 = StepLR(opt2.optimizer, 1, 0.5)
    assert loadmodel_(opt2, saved["opt"]) is opt2
    loadmodel_(m2, saved["model"])
    schedule2.load_state_dict(saved["schedule"])
    train_(loss, m2, data[4:], opt2)
    assert numbers(m2) == numbers(m)
    assert nt(s=opt2.optimizer.state_dict()) == nt(s=opt.optimizer.state_dict())
    assert opt2.optimizer.param_groups[0]["lr"] == rate / 16


def test_what_is_loaded_is_a_copy() -> None:
    m, m2 = make(), make()
    opt, opt2 = setup(optim.Adam, m), setup(optim.Adam, m2)
    train_(loss, m, batches(2), opt)
    loadmodel_(opt2, opt)
    loadmodel_(m2, m)
    before = everything(m2, opt2)
    train_(loss, m, batches(2), opt)
    assert nt(v=everything(m2, opt2)) == nt(v=before)
    train_(loss, m2, batches(2), opt2)
    assert numbers(m2) == numbers(m)


def test_options_that_are_no_plain_data_stay() -> None:
    class Custom(optim.SGD):
        pass

    def factory(ps: Any) -> optim.Optimizer:
        o = Custom(ps, lr=0.1)
        o.param_groups[0]["warm"] = torch.tanh
        return o

    m = make()
    opt = setup(factory, m)
    adjust_(opt, 0.5)
    opt2 = loadmodel_(setup(factory, m), state(opt))
    assert opt2.optimizer.param_groups[0]["warm"] is torch.tanh
    assert opt2.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_copied_with_its_model(copied: Any) -> None:
    m = nt(w=torch.ones(2, 2), b=[torch.zeros(2)])
    opt = setup(lambda ps: optim.Adam(ps, lr=0.1), m)

    def f(m: Any) -> torch.Tensor:
        return ((m.w @ torch.ones(2) + m.b[0]) ** 2).sum()

    update_(opt, m, gradient(f, m)[0])
    opt2, m2 = copied((opt, m))
    for t, v in ((opt, m), (opt2, m2)):
        update_(t, v, gradient(f, v)[0])
    assert m == m2
    with pytest.raises(ValueError, match="other arrays"):
        update_(opt2, m, gradient(f, m)[0])


def test_structures_of_any_kind() -> None:
    def factory(ps: Any) -> optim.Optimizer:
        return optim.SGD(ps, lr=1.0)

    x = torch.tensor([1.0, 2.0])
    opt = setup(factory, x)
    update_(opt, x, torch.ones(2))
    assert x.tolist() == [0, 1]
    assert not opt.frozen
    pair = (torch.ones(1), torch.ones(1))
    opt = setup(factory, pair)
    update_(opt, pair, (torch.ones(1), None))
    assert pair == (torch.zeros(1), torch.ones(1))
    assert len(opt) == len(list(opt)) == 2
    d = {"a": torch.ones(2), "n": 3}
    opt = setup(factory, d)
    train_(lambda m, k: (m["a"] * k).sum(), d, [1.0, 2.0], opt)
    assert d["a"].tolist() == [-2, -2]
    assert opt["n"] == ()
    with pytest.raises(AttributeError, match="no field 'nowhere'"):
        _ = setup(factory, nt(w=torch.ones(1))).nowhere
    with pytest.warns(UserWarning, match=r"grads\[0\]"):
        train.update_(setup(factory, x), x, gradient(lambda x: x.sum(), x))
