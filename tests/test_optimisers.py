"""Rules, state trees and what changes them; most numbers are those of Optimisers.jl's tests and docs."""

from __future__ import annotations

import copy
import math
import pickle
import types
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn

from fluxtorch import functors
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.functors import KeyPath
from fluxtorch.layers import Chain, Conv, Dense, flatten
from fluxtorch.namedtuples import nt
from fluxtorch.optimisers import (
    AbstractRule,
    AccumGrad,
    AdaBelief,
    AdaDelta,
    AdaGrad,
    Adam,
    AdaMax,
    AdamW,
    AMSGrad,
    ClipGrad,
    ClipNorm,
    Descent,
    Leaf,
    Lion,
    MixedPrecision,
    Momentum,
    NAdam,
    Nesterov,
    OAdam,
    OptimiserChain,
    RAdam,
    RMSProp,
    Rprop,
    SignDecay,
    WeightDecay,
    adjust,
    adjust_,
    apply_,
    freeze_,
    init,
    isnumeric,
    setup,
    thaw_,
    trainables,
    update,
    update_,
)
from fluxtorch.optimisers.rule import fields_of
from fluxtorch.pairs import to
from fluxtorch.zygote import gradient

SINGLE: list[AbstractRule] = [
    Descent(),
    Momentum(),
    Momentum(0.1, 0.0),
    Nesterov(),
    RMSProp(),
    RMSProp(centred=True),
    Rprop(),
    Adam(),
    Lion(),
    RAdam(),
    RAdam(beta=(0.9, 0.9)),
    AdaMax(),
    OAdam(),
    AdaGrad(),
    AdaDelta(),
    AMSGrad(),
    NAdam(),
    AdaBelief(),
    WeightDecay(),
    SignDecay(),
    ClipGrad(0.5),
    ClipNorm(0.5),
    ClipNorm(0.5, 1, throw=False),
]
CHAINS: list[AbstractRule] = [
    AdamW(),
    AdamW(0.01, lambda_=0.1),
    OptimiserChain(),
    OptimiserChain(SignDecay(0.001), Adam(0.001)),
    OptimiserChain(ClipNorm(), Adam(0.001)),
    OptimiserChain(ClipGrad(0.5), Momentum()),
    OptimiserChain(WeightDecay(), OAdam(), ClipGrad(1)),
    OptimiserChain(OptimiserChain(ClipGrad(0.5), Momentum(0.1)), WeightDecay(0.1)),
    OptimiserChain(AccumGrad(2), WeightDecay(0.1), Descent(0.1)),
    OptimiserChain(AccumGrad(3), Adam(0.1), WeightDecay(0.1)),
    MixedPrecision(torch.float64, Adam(0.1)),
]
RULES = SINGLE + CHAINS


def float64(*numbers: Any) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def some_arrays(dtype: torch.dtype) -> Callable[[], list[torch.Tensor]]:
    g = generator()
    return lambda: [
        torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in [(3, 2), (3,), (), (2, 1, 4), (0,)]
    ]


# -- the formulas --------------------------------------------------------------------------------------

X, GRADS = 1.5, [0.3, -0.2, 0.7, 0.7, -1.1, 0.05, 0.4]


def run(rule: AbstractRule, grads: list[float] = GRADS) -> float:
    x = float64(X)
    tree = setup(rule, x)
    for g in grads:
        update_(tree, x, float64(g))
    return x.item()


@pytest.mark.parametrize(
    ("rule", "theirs"),
    [
        (Descent(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        (Momentum(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8)),
        (Nesterov(0.1, 0.8), lambda p: torch.optim.SGD(p, 0.1, momentum=0.8, nesterov=True)),
        (RMSProp(0.1, 0.8, 1e-3), lambda p: torch.optim.RMSprop(p, 0.1, 0.8, 1e-3)),
        (RMSProp(0.1, 0.8, 1e-3, centred=True), lambda p: torch.optim.RMSprop(p, 0.1, 0.8, 1e-3, centered=True)),
        (Rprop(0.1), lambda p: torch.optim.Rprop(p, 0.1)),
        (Rprop(0.1, (0.4, 1.6), (0.06, 0.2)), lambda p: torch.optim.Rprop(p, 0.1, (0.4, 1.6), (0.06, 0.2))),
        (Adam(0.1, (0.8, 0.9), 1e-3), lambda p: torch.optim.Adam(p, 0.1, (0.8, 0.9), 1e-3)),
        (AdamW(0.1, (0.8, 0.9), 0.02), lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.9), weight_decay=0.02 / 0.1)),
        (OptimiserChain(WeightDecay(0.3), Adam(0.1)), lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.3)),
        (AdaGrad(0.1), lambda p: torch.optim.Adagrad(p, 0.1, initial_accumulator_value=1e-8, eps=1e-8)),
        (AdaDelta(0.8, 1e-3), lambda p: torch.optim.Adadelta(p, 1.0, 0.8, 1e-3)),
        (AdaMax(0.1, (0.8, 0.9)), lambda p: torch.optim.Adamax(p, 0.1, (0.8, 0.9))),  # differ in where ε is
    ],
    ids=lambda v: repr(v) if isinstance(v, AbstractRule) else "",
)
def test_same_steps_as_torch(rule: AbstractRule, theirs: Any) -> None:
    p = nn.Parameter(float64(X))
    optimiser = theirs([p])
    for g in GRADS:
        p.grad = float64(g)
        optimiser.step()
    assert run(rule) == pytest.approx(p.item(), rel=1e-7)


# Each formula once more, as Optimisers.jl writes it, for one float: what is left of the gradient g at step t.


def by_descent(o: Any, x: float, g: float, t: int, s: Any) -> float:
    return o.eta * g


def by_momentum(o: Any, x: float, g: float, t: int, s: Any) -> float:
    s.v = o.rho * s.v + o.eta * g
    return s.v


def by_nesterov(o: Any, x: float, g: float, t: int, s: Any) -> float:
    step = -(o.rho**2) * s.v + (1 + o.rho) * o.eta * g
    s.v = o.rho * s.v - o.eta * g
    return step


def by_rmsprop(o: Any, x: float, g: float, t: int, s: Any) -> float:
    s.v = o.rho * s.v + (1 - o.rho) * g**2
    s.m = o.rho * s.m + (1 - o.rho) * g if o.centred else 0.0
    return g * o.eta / (math.sqrt(s.v - s.m**2) + o.epsilon)


def by_rprop(o: Any, x: float, g: float, t: int, s: Any) -> float:
    s.w = o.eta if t == 1 else s.w
    if s.m * g > 0:
        s.w = min(s.w * o.ell[1], o.gamma[1])
    elif s.m * g < 0:
        s.w = max(s.w * o.ell[0], o.gamma[0])
    s.m = 0.0 if s.m * g < 0 else g
    return s.w * ((s.m > 0) - (s.m < 0))


def moments(o: Any, g: float, s: Any) -> None:
    (b1, b2) = o.beta
    s.m, s.v = b1 * s.m + (1 - b1) * g, b2 * s.v + (1 - b2) * g**2


def by_adam(o: Any, x: float, g: float, t: int, s: Any) -> float:
    moments(o, g, s)
    return s.m / (1 - o.beta[0] ** t) / (math.sqrt(s.v / (1 - o.beta[1] ** t)) + o.epsilon) * o.eta


def by_lion(o: Any, x: float, g: float, t: int, s: Any) -> float:
    b1, b2 = o.beta
    s.m = b2 * g + (1 - b2) * s.m
    return o.eta * math.copysign(1, (b2 - b1) * g + b1 * s.m)


def by_radam(o: Any, x: float, g: float, t: int, s: Any) -> float:
    moments(o, g, s)
    b1, b2 = o.beta
    limit = 2 / (1 - b2) - 1
    rho = limit - 2 * t * b2**t / (1 - b2**t)
    if rho <= 4:
        return s.m / (1 - b1**t) * o.eta
    r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
    return s.m / (1 - b1**t) / (math.sqrt(s.v / (1 - b2**t)) + o.epsilon) * o.eta * r


def by_adamax(o: Any, x: float, g: float, t: int, s: Any) -> float:
    s.m, s.v = o.beta[0] * s.m + (1 - o.beta[0]) * g, max(o.beta[1] * s.v, abs(g))
    return o.eta / (1 - o.beta[0] ** t) * s.m / (s.v + o.epsilon)


def by_oadam(o: Any, x: float, g: float, t: int, s: Any) -> float:
    before, s.w = s.w, by_adam(o, x, g, t, s)
    return 2 * s.w - before


def by_adagrad(o: Any, x: float, g: float, t: int, s: Any) -> float:
    s.v = (o.epsilon if t == 1 else s.v) + g**2
    return g * o.eta / (math.sqrt(s.v) + o.epsilon)


def by_adadelta(o: Any, x: float, g: float, t: int, s: Any) -> float:
    s.v = o.rho * s.v + (1 - o.rho) * g**2
    step = g * math.sqrt(s.w + o.epsilon) / math.sqrt(s.v + o.epsilon)
    s.w = o.rho * s.w + (1 - o.rho) * step**2
    return step


def by_amsgrad(o: Any, x: float, g: float, t: int, s: Any) -> float:
    if t == 1:
        s.m = s.v = s.w = o.epsilon
    moments(o, g, s)
    s.w = max(s.w, s.v)
    return o.eta * s.m / (math.sqrt(s.w) + o.epsilon)


def by_nadam(o: Any, x: float, g: float, t: int, s: Any) -> float:
    moments(o, g, s)
    b1, b2 = o.beta
    ahead = b1 * s.m / (1 - b1 * b1**t) + (1 - b1) * g / (1 - b1**t)
    return ahead / (math.sqrt(s.v * b2 / (1 - b2**t)) + o.epsilon) * o.eta


def by_adabelief(o: Any, x: float, g: float, t: int, s: Any) -> float:
    b1, b2 = o.beta
    s.m = b1 * s.m + (1 - b1) * g
    s.v = b2 * s.v + (1 - b2) * (g - s.m) ** 2 + o.epsilon
    return o.eta * s.m / (1 - b1**t) / (math.sqrt(s.v / (1 - b2**t)) + o.epsilon)


def by_accumgrad(o: Any, x: float, g: float, t: int, s: Any) -> float | None:
    s.m = g / o.n if t % o.n == 1 else s.m + g / o.n
    return s.m if t % o.n == 0 else None


FORMULAS: dict[type, Any] = {
    Descent: by_descent,
    Momentum: by_momentum,
    Nesterov: by_nesterov,
    RMSProp: by_rmsprop,
    Rprop: by_rprop,
    Adam: by_adam,
    Lion: by_lion,
    RAdam: by_radam,
    AdaMax: by_adamax,
    OAdam: by_oadam,
    AdaGrad: by_adagrad,
    AdaDelta: by_adadelta,
    AMSGrad: by_amsgrad,
    NAdam: by_nadam,
    AdaBelief: by_adabelief,
    AccumGrad: by_accumgrad,
    WeightDecay: lambda o, x, g, t, s: g + o.lambda_ * x,
    SignDecay: lambda o, x, g, t, s: g + o.lambda_ * ((x > 0) - (x < 0)),
    ClipGrad: lambda o, x, g, t, s: max(-o.delta, min(o.delta, g)),
    ClipNorm: lambda o, x, g, t, s: g * min(o.omega / abs(g), 1),
}


def by_hand(rule: Any, grads: list[float] = GRADS) -> float:
    rules = rule.opts if isinstance(rule, OptimiserChain) else [rule]
    states = [types.SimpleNamespace(m=0.0, v=0.0, w=0.0, t=0) for _ in rules]
    x = X
    for g in grads:
        step: float | None = g
        for o, s in zip(rules, states, strict=True):
            if step is not None:
                s.t += 1
                step = FORMULAS[type(o)](o, x, step, s.t, s)
        x -= step or 0.0
    return x


@pytest.mark.parametrize(
    "rule",
    [
        *[kind() for kind in FORMULAS if kind is not AccumGrad],
        RMSProp(centred=True),
        AdamW(),
        Descent(0.3),
        Momentum(0.3, 0.5),
        Nesterov(0.3, 0.5),
        RMSProp(0.1, 0.8, 0.1),
        RMSProp(0.1, 0.8, 0.1, centred=True),
        Rprop(0.1, (0.4, 1.6), (0.06, 0.2)),
        Adam(0.1, (0.8, 0.9), 0.1),
        Lion(0.1, (0.5, 1.0)),
        Lion(0.1, (0.9, 0.2)),
        RAdam(0.1, (0.8, 0.9), 0.1),  # after five steps rectified
        AdaMax(0.1, (0.8, 0.9), 0.1),
        OAdam(0.1, (0.8, 0.9), 0.1),
        AdaGrad(0.3, 0.1),
        AdaDelta(0.8, 0.1),
        AMSGrad(0.1, (0.8, 0.9), 0.1),
        AMSGrad(0.1, (0.8, 1.0), 0.1),
        NAdam(0.1, (0.8, 0.9), 0.1),
        AdaBelief(0.1, (0.8, 0.9), 0.1),
        AdamW(0.1, (0.8, 0.9), 0.3, 0.1),
        OptimiserChain(WeightDecay(0.3), Adam(0.1)),
        OptimiserChain(SignDecay(0.1), ClipGrad(0.5), Nesterov(0.1), ClipNorm(0.2)),
        OptimiserChain(AccumGrad(2), WeightDecay(0.1), Adam(0.1)),
        OptimiserChain(AccumGrad(3), AMSGrad(0.1)),
    ],
    ids=repr,
)
def test_the_formulas_for_one_float(rule: AbstractRule) -> None:
    assert run(rule) == pytest.approx(by_hand(rule), rel=1e-12, abs=0)


def test_numbers_after_three_steps() -> None:
    # x = 1 and g = 2, 1, -1 by hand: 1 - 0.1 * 2, and so on; 0.9 is what the earlier velocity keeps.
    for rule, x in [
        (Descent(0.1), 1 - 0.2 - 0.1 + 0.1),
        (Momentum(0.1), 1 - 0.2 - (0.18 + 0.1) - (0.252 - 0.1)),
        (Nesterov(0.1), 1 - 1.9 * 0.2 - (0.81 * 0.2 + 0.19) - (0.81 * 0.28 - 0.19)),
        (AdaMax(0.1, (0.5, 0.5)), 1 - 0.1 - 0.1 * (1.0 / 0.75) - 0.0),
        (Lion(0.1), 1 - 0.1 - 0.1 + 0.1),
        (Rprop(0.1), 1 - 0.1 - 0.12 - 0.0),
        (WeightDecay(0.1), ((1 * 0.9 - 2) * 0.9 - 1) * 0.9 + 1),
        (SignDecay(0.1), 1 - 2.1 - 0.9 + 1.1),
    ]:
        w = float64(1.0)
        tree = setup(rule, w)
        for g in (2.0, 1.0, -1.0):
            update_(tree, w, float64(g))
        assert w.item() == pytest.approx(x, abs=2e-9), rule


def test_states_are_those_of_optimisers_jl() -> None:
    x = float64(1, 2)
    for rule, text in [
        (Descent(), "nothing"),
        (Momentum(), "[0.0, 0.0]"),
        (RMSProp(), "([0.0, 0.0], false)"),
        (RMSProp(centred=True), "([0.0, 0.0], [0.0, 0.0])"),
        (Rprop(), "([0.0, 0.0], [0.001, 0.001])"),
        (Adam(), "([0.0, 0.0], [0.0, 0.0], (0.9, 0.999))"),
        (RAdam(), "([0.0, 0.0], [0.0, 0.0], (0.9, 0.999), 1)"),
        (OAdam(), "([0.0, 0.0], [0.0, 0.0], (0.5, 0.9), [0.0, 0.0])"),
        (AdaGrad(), "[1.0e-8, 1.0e-8]"),
        (AMSGrad(), "([1.0e-8, 1.0e-8], [1.0e-8, 1.0e-8], [1.0e-8, 1.0e-8])"),
        (AdaDelta(), "([0.0, 0.0], [0.0, 0.0])"),
        (OptimiserChain(ClipGrad(), Adam()), "(nothing, ([0.0, 0.0], [0.0, 0.0], (0.9, 0.999)))"),
        (AccumGrad(3), "([0.0, 0.0], 1)"),
        (MixedPrecision(torch.float64, Momentum()), "([1.0, 2.0], [0.0, 0.0])"),
    ]:
        assert repr(setup(rule, x)) == f"Leaf({rule!r}, {text})"
    tree = setup(Adam(), x)
    update_(tree, x, float64(1, 1))
    assert tree.state[2] == pytest.approx((0.81, 0.998001))


# -- several tensors at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_all_at_once_is_one_by_one(rule: AbstractRule, dtype: torch.dtype) -> None:
    new = some_arrays(dtype)
    xs = new()
    alone = [x.clone() for x in xs]
    states = [init(rule, x) for x in alone]
    tree = setup(rule, xs)
    for step in range(6):
        grads: list[Any] = new()
        if step == 2:
            grads[1] = None  # from here on that one is a step behind the others
        update_(tree, xs, grads)
        for i, g in enumerate(grads):
            if g is not None:
                states[i], dx = apply_(rule, states[i], alone[i], g)
                if dx is not None:
                    alone[i] -= dx
    torch.testing.assert_close(xs, alone)
    flat = [v for leaf in tree for v in functors.fleaves(leaf.state)]
    for v, w in zip(flat, [v for state in states for v in functors.fleaves(state)], strict=True):
        torch.testing.assert_close(v, w)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_memory_layout_does_not_matter(rule: AbstractRule) -> None:
    g = generator()
    base = torch.randn(4, 5, generator=g)
    grads = [torch.randn(4, 5, generator=g) for _ in range(3)]
    plain = base.clone()
    views = {
        "transposed": base.T.clone().T,
        "with gaps": torch.zeros(4, 10)[:, ::2].copy_(base),
        "gradient transposed": base.clone(),
    }
    tree = setup(rule, plain)
    for dx in grads:
        update_(tree, plain, dx)
    for name, x in views.items():
        tree = setup(rule, x)
        for dx in grads:
            update_(tree, x, dx.T.clone().T if "gradient" in name else dx)
        torch.testing.assert_close(x, plain, msg=name)


def test_a_model_that_changes_its_layout_after_setup() -> None:
    x, plain = torch.randn(2, 3, 4, 4, generator=generator()), None
    plain = x.clone()
    dx = torch.randn(2, 3, 4, 4, generator=generator())
    for target, again in [(x, True), (plain, False)]:
        p = nn.Parameter(target)
        tree = setup(Adam(), p)
        if again:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
        update_(tree, p, dx)
        x, plain = p.detach().contiguous(), x
    torch.testing.assert_close(x, plain)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_same_on_a_gpu(rule: AbstractRule) -> None:
    new = some_arrays(torch.float32)
    xs = new()
    on_gpu = [x.cuda() for x in xs]
    tree, tree_on_gpu = setup(rule, xs), setup(rule, on_gpu)
    for _ in range(4):
        grads = new()
        update_(tree, xs, grads)
        update_(tree_on_gpu, on_gpu, [g.cuda() for g in grads])
    torch.testing.assert_close([x.cpu() for x in on_gpu], xs)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_element_types_are_kept(rule: AbstractRule) -> None:
    m = (float64(1, 2), torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0], dtype=torch.float16))
    kept = [x.clone() for x in m]
    g = tuple(float64(1, 2) for _ in m)
    tree, m2 = update(setup(rule, m), m, g)
    assert [x.dtype for x in m2] == [x.dtype for x in m]
    if not isinstance(rule, MixedPrecision):
        for leaf, x in zip(tree, m, strict=True):
            assert {v.dtype for v in functors.fleaves(leaf.state) if isinstance(v, torch.Tensor)} <= {x.dtype}
    assert all(torch.equal(x, y) for x, y in zip(m, kept, strict=True))


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_gradient_is_left_alone(rule: AbstractRule) -> None:
    x = torch.randn(3, generator=generator())
    tree = setup(rule, x)
    grads = [torch.randn(3, generator=generator()) for _ in range(4)]
    kept = [g.clone() for g in grads]
    for g in grads:
        update_(tree, x, g)
    assert all(torch.equal(g, k) for g, k in zip(grads, kept, strict=True))
    owners = [g.data_ptr() for g in grads] + [x.data_ptr()]
    assert not any(v.data_ptr() in owners for v in functors.fleaves(tree.state) if isinstance(v, torch.Tensor))


@pytest.mark.parametrize("rule", [r for r in RULES if not isinstance(r, (WeightDecay, SignDecay))], ids=repr)
def test_a_copy_in_the_middle_goes_on_the_same(rule: AbstractRule) -> None:
    new = some_arrays(torch.float32)
    model: Any = nt(a=new(), σ=torch.tanh, d={"k": new()[0]})
    tree = setup(rule, model)
    g = nt(a=new(), σ=None, d={"k": new()[0]})
    update_(tree, model, g)
    tree2, model2 = copy.deepcopy((tree, model))
    tree3, model3 = pickle.loads(pickle.dumps((tree, model)))
    assert tree2 == tree == tree3
    for t, m in [(tree, model), (tree2, model2), (tree3, model3)]:
        update_(t, m, g)
        update_(t, m, g)
    assert model2 == model == model3
    assert tree2 == tree == tree3


@pytest.mark.parametrize(
    "rule",
    [
        Adam(1e-2),
        RMSProp(1e-2),
        RMSProp(1e-2, centred=True),
        RAdam(1e-2),
        OAdam(1e-2),
        AdaGrad(1e-2),
        AdaDelta(0.9, 1e-5),
        NAdam(1e-2),
        AdaBelief(1e-2),
        Descent(1e-2),
        Momentum(1e-2),
        Nesterov(1e-2),
        AdamW(1e-2),
    ],
    ids=repr,
)
def test_complex_numbers(rule: AbstractRule) -> None:
    # Flux.jl's issue 1776: learn conj(x) = w x.
    model = nt(w=torch.zeros(1, dtype=torch.complex128))
    x = torch.ones(1, 1, dtype=torch.complex128) * (1 + 1j)

    def loss(m: Any) -> torch.Tensor:
        return ((m.w * x - x.conj()).abs() ** 2).sum()

    assert loss(model).item() == pytest.approx(2.0)
    tree, last = setup(rule, model), math.inf
    for i in range(10):
        update_(tree, model, gradient(loss, model)[0])
        if not (isinstance(rule, (Momentum, Nesterov)) and i >= 8):
            assert loss(model).item() < last
            last = loss(model).item()
    assert loss(model).item() < 1.9


@pytest.mark.parametrize("rule", [r for r in RULES if not isinstance(r, (WeightDecay, SignDecay))], ids=repr)
def test_each_rule_finds_the_minimum(rule: AbstractRule) -> None:
    w, target = float64(2.0, -1.0, 0.5), float64(0.0, 1.0, 0.4)
    tree = setup(adjust(rule, 0.05) if not isinstance(rule, AdaDelta) else AdaDelta(0.9, 1e-4), w)
    before = (w - target).norm()
    for _ in range(400):
        update_(tree, w, w - target)
    assert (w - target).norm() < before / 2.5


# -- rules as values -----------------------------------------------------------------------------------


def test_printing() -> None:
    for rule, text in [
        (Descent(0.1), "Descent(0.1)"),
        (Momentum(0.1, 0.9), "Momentum(0.1, 0.9)"),
        (Momentum(1 / 30), "Momentum(0.0333333, 0.9)"),
        (Adam(), "Adam(0.001, (0.9, 0.999), 1.0e-8)"),
        (RMSProp(), "RMSProp(0.001, 0.9, 1.0e-8; centred = false)"),
        (ClipNorm(), "ClipNorm(10.0, 2.0, true)"),
        (AdaBelief(), "AdaBelief(0.001, (0.9, 0.999), 1.0e-16)"),
        (AdamW(), "OptimiserChain(Adam(0.001, (0.9, 0.999), 1.0e-8), WeightDecay(0.0))"),
        (WeightDecay(), "WeightDecay(0.0005)"),
        (AccumGrad(2), "AccumGrad(2)"),
        (MixedPrecision(torch.bfloat16, Descent()), "MixedPrecision{BFloat16, Descent}(Descent(0.1))"),
    ]:
        assert repr(rule) == str(rule) == text
    x = torch.zeros(1, 2)
    assert repr(Leaf(Momentum(0.1), x)) == "Leaf(Momentum(0.1, 0.9), [0.0 0.0])"
    assert repr(Leaf(Momentum(0.1), x, frozen=True)) == "Leaf(Momentum(0.1, 0.9), [0.0 0.0], frozen = true)"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Descent, (0.1,)),
        (Momentum, (0.01, 0.9)),
        (Nesterov, (0.001, 0.9)),
        (RMSProp, (0.001, 0.9, 1e-8, False)),
        (Rprop, (1e-3, (0.5, 1.2), (1e-6, 50.0))),
        *[(kind, (0.001, (0.9, 0.999), 1e-8)) for kind in (Adam, RAdam, AdaMax, AMSGrad, NAdam)],
        (Lion, (0.001, (0.9, 0.999))),
        (OAdam, (0.001, (0.5, 0.9), 1e-8)),
        (AdaGrad, (0.1, 1e-8)),
        (AdaDelta, (0.9, 1e-8)),
        (AdaBelief, (0.001, (0.9, 0.999), 1e-16)),
        (WeightDecay, (5e-4,)),
        (SignDecay, (1e-3,)),
        (ClipGrad, (10.0,)),
        (ClipNorm, (10.0, 2.0, True)),
    ],
)
def test_defaults(kind: Any, fields: tuple[Any, ...]) -> None:
    assert tuple(fields_of(kind()).values()) == fields
    by_position = kind(*fields[:3])  # the last of RMSProp and ClipNorm are keywords, in Julia too
    assert by_position == kind(**dict(zip(fields_of(kind()), fields, strict=True))) == kind()


def test_fields_and_equality() -> None:
    assert AdamW(0.1, (0.8, 0.9), 0.2, 1e-7) == AdamW(eta=0.1, beta=(0.8, 0.9), lambda_=0.2, epsilon=1e-7)
    assert AdamW(0.1, (0.8, 0.9), 0.2, 1e-7) == OptimiserChain(Adam(0.1, (0.8, 0.9), 1e-7), WeightDecay(0.2))
    assert AdamW() == OptimiserChain(Adam(), WeightDecay(0))
    assert Nesterov(rho=0.8, eta=0.1) == Nesterov(0.1, 0.8) != Nesterov(0.1)
    assert Momentum() != Nesterov(0.01)
    assert AdamW(lambda_=0.3).opts == (Adam(), WeightDecay(0.3))
    assert RMSProp(centered=True) == RMSProp(centred=True) != RMSProp()
    assert ClipNorm(1) == ClipNorm(1.0)
    assert len({Adam(), Adam()}) == 2  # hashed by identity: they can change
    o = Adam()
    o.eta /= 10
    assert o == Adam(1e-4)
    assert list(OptimiserChain(Adam(), Descent())) == [Adam(), Descent()]
    assert OptimiserChain(Adam(), Descent())[1:] == OptimiserChain(Descent())


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: Momentum(-0.1), DomainError),
        (lambda: RMSProp(-0.1), DomainError),
        (lambda: adjust(Adam(), -1), DomainError),
        (lambda: Adam(0.1, 0.9), TypeError),
        (lambda: Adam("0.1"), TypeError),
        (lambda: AccumGrad(0), ValueError),
        (lambda: AccumGrad(1.5), ValueError),
        (lambda: OptimiserChain(Adam), TypeError),
        (lambda: OptimiserChain(ClipGrad(), MixedPrecision(Adam())), ValueError),
        (lambda: setup(Adam, torch.ones(1)), TypeError),
        (lambda: MixedPrecision(), TypeError),  # type: ignore[call-overload]
        (lambda: MixedPrecision(0.1, Adam()), TypeError),  # type: ignore[call-overload]
        (lambda: setup(torch.ones(1), Adam()), TypeError),
        (lambda: adjust(RMSProp(), centred=True), ValueError),
        (lambda: adjust(Adam()), TypeError),
    ],
)
def test_bad_rules(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make()


def test_one_array_at_a_time() -> None:
    state = init(Momentum(), [1.0, 2.0])
    assert state.tolist() == [0, 0]
    _, step = apply_(Momentum(0.1), state, torch.ones(2), [4, 5])
    torch.testing.assert_close(step, torch.tensor([0.4, 0.5]))
    assert init(Descent(0.1), [1.0, 2, 3]) is None


def test_negative_descent_is_ascent() -> None:
    assert run(Descent(-0.1), [1.0]) == pytest.approx(X + 0.1)


def test_a_rule_of_ones_own() -> None:
    class DecayDescent(AbstractRule):
        eta: float = 0.1

        def init(self, x: torch.Tensor) -> int:
            return 1

        def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
            return state + 1, dx * (self.eta / state**0.5)

    assert repr(DecayDescent(eta=1)) == "DecayDescent(1.0)"
    x = float64(1.0)
    tree = setup(OptimiserChain(ClipGrad(2), DecayDescent(0.5)), nt(x=x, y=[torch.ones(2)]))
    for _ in range(4):
        update_(tree, nt(x=x, y=[torch.ones(2)]), nt(x=float64(2.0), y=[torch.ones(2)]))
    assert x.item() == pytest.approx(1 - sum(1 / math.sqrt(t) for t in (1, 2, 3, 4)))
    assert tree.x.state == (None, 5)
    adjust_(tree, 0.25)
    assert tree.y[0].rule.opts[1].eta == 0.25


def test_a_changed_formula_is_the_one_used() -> None:
    class Twice(Adam):
        def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
            return state, 2 * dx

    x = torch.zeros(2)
    update_(setup(Twice(), x), x, torch.ones(2))
    assert x.tolist() == [-2, -2]


def test_clipping() -> None:
    m = nt(α=(float64(0.0), torch.sin), γ=float64(0.1, 0.2, 0.3))
    _, m1 = update(setup(ClipGrad(13), m), m, nt(α=None, γ=[1, 10, 100]))
    torch.testing.assert_close(m.γ - m1.γ, float64(1, 10, 13))
    s2 = setup(ClipNorm(10), m)
    _, m2 = update(s2, m, nt(α=([0.1], None), γ=[1, 10, 100]))
    torch.testing.assert_close(m.α[0] - m2.α[0], float64(0.1))
    assert (m.γ - m2.γ).norm().item() == pytest.approx(10)
    with pytest.raises(DomainError, match=r"2\.0-norm nan, for array 3-element"):
        update(s2, m, nt(α=([0.1], None), γ=[1, 10, math.nan]))
    s3 = setup(ClipNorm(5, 1, throw=False), m)
    _, m3 = update(s3, m, nt(α=([0.1], None), γ=[1, 10, 100]))
    assert (m.γ - m3.γ).abs().sum().item() == pytest.approx(5)
    update_(s3, m, nt(α=None, γ=[1, 10, math.inf]))
    assert m.γ[2].isnan()


@pytest.mark.parametrize("p", [-math.inf, -3, -1, 0, 0.5, 1, 1.5, 2, 3, math.inf])
def test_clip_norm_of_any_order(p: float) -> None:
    xs = [torch.randn(10, 10, generator=generator()), torch.tensor([1.0, 2.0, -3.0, 4.0])]
    norms = [torch.linalg.vector_norm(x, p).item() for x in xs]
    _, steps = ClipNorm(1, p).apply_all_([None, None], xs, xs)
    for x, norm, step in zip(xs, norms, steps, strict=True):
        torch.testing.assert_close(step, x * min(1 / norm, 1))


@pytest.mark.parametrize("second", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "rule",
    [
        OptimiserChain(WeightDecay(0.1), ClipNorm(), Adam()),
        OptimiserChain(Momentum(), ClipNorm(), Adam()),
        OptimiserChain(OptimiserChain(AccumGrad(2), ClipNorm()), Adam()),
        OptimiserChain(AccumGrad(2), OAdam(), ClipNorm()),
        MixedPrecision(OptimiserChain(RMSProp(), ClipNorm())),
    ],
    ids=repr,
)
def test_a_bad_norm_changes_nothing(rule: AbstractRule, second: torch.dtype) -> None:
    m = [torch.ones(2), torch.ones(3, dtype=second)]
    tree = setup(rule, m)
    for _ in range(3):
        update_(tree, m, [torch.ones(2), torch.ones(3)])
    before = copy.deepcopy((m, tree))
    with pytest.raises(DomainError):
        update_(tree, m, [torch.ones(2), torch.full((3,), math.nan)])
    assert nt(v=(m, tree)) == nt(v=before)
    update_(tree, m, [torch.ones(2), torch.ones(3)])
    adjust_(tree[1], 0.1)  # two rules: two groups
    update_(tree, m, [torch.ones(2), torch.ones(3)])
    before = copy.deepcopy((m, tree))
    with pytest.raises(DomainError):
        for _ in range(2):
            update_(tree, m, [torch.full((2,), 0.5), torch.full((3,), math.inf)])
            before = copy.deepcopy((m, tree))
    assert nt(v=(m, tree)) == nt(v=before)


def test_chains() -> None:
    x, dx = float64(1, 10, 100), float64(1, 2, 3)

    def after(rule: AbstractRule, x: torch.Tensor = x, dx: torch.Tensor = dx) -> Any:
        return pytest.approx(update(setup(rule, x), x, dx)[1].tolist())

    assert after(WeightDecay(0.1)) == [1 - 0.1 - 1, 10 - 1 - 2, 100 - 10 - 3]
    assert after(SignDecay(0.1)) == [1 - 0.1 - 1, 10 - 0.1 - 2, 100 - 0.1 - 3]
    assert after(ClipGrad(2)) == [0, 8, 98]
    clip = OptimiserChain(ClipGrad(2), WeightDecay(0.1))
    for same in (clip, OptimiserChain(clip)):
        assert after(same) == [1 - 0.1 - 1, 10 - 1 - 2, 100 - 10 - 2]
    assert after(OptimiserChain(WeightDecay(0.1), ClipGrad(2))) == [1 - 1.1, 8, 98]
    assert after(OptimiserChain(Descent(0.1))) == [0.9, 9.8, 99.7]
    assert after(OptimiserChain()) == [0, 8, 97]
    assert after(SignDecay(0.1), float64(1, -10, 100), float64(3, 2, -1)) == [-2.1, -11.9, 100.9]
    model = (torch.zeros(3),)
    tree = setup(OptimiserChain(ClipGrad(1.0), Descent(0.1)), model)
    assert repr(tree) == "(Leaf(OptimiserChain(ClipGrad(1.0), Descent(0.1)), (nothing, nothing)),)"
    torch.testing.assert_close(update(tree, model, ([0.3, 1, 7],))[1], (torch.tensor([-0.03, -0.1, -0.1]),))


def test_accum_grad() -> None:
    m = nt(x=[1.0], y=[2.0])
    s = setup(OptimiserChain(AccumGrad(2), WeightDecay(0.01), Descent(0.1)), m)
    update_(s, m, nt(x=[33], y=[0]))
    assert m == nt(x=[1.0], y=[2.0])
    update_(s, m, nt(x=[0], y=[444]))
    torch.testing.assert_close((m.x, m.y), (torch.tensor([-0.651]), torch.tensor([-20.202002])))


def test_a_bad_gradient_does_not_spoil_the_mean() -> None:
    x = torch.zeros(2)
    s = setup(OptimiserChain(AccumGrad(2), ClipNorm(), Descent(1.0)), x)
    update_(s, x, torch.tensor([1.0, 2.0]))
    before = copy.deepcopy(s)
    with pytest.raises(DomainError):
        update_(s, x, torch.tensor([math.nan, 0.0]))
    assert s == before
    update_(s, x, torch.tensor([3.0, 0.0]))
    assert x.tolist() == [-2, -1]


def test_accum_grad_goes_on_after_each_round() -> None:
    g = torch.rand(4, 5, generator=generator())
    x = x0 = torch.rand(5, generator=generator())
    tree, xs = setup(OptimiserChain(AccumGrad(3), Descent(0.01)), x0), []
    for k in range(4):
        tree, x = update(tree, x, g[k])
        xs.append(x)
    torch.testing.assert_close(xs, [x0, x0, x0 - 0.01 * g[:3].sum(0) / 3, xs[2]])


def test_mixed_precision() -> None:
    x = torch.full((2,), 10.0, dtype=torch.float16)
    s = setup(MixedPrecision(Adam(1e-3)), x)
    assert s.state[0].dtype is s.state[1][0].dtype is torch.float32
    for _ in range(20):  # steps smaller than float16 can see at 10
        update_(s, x, torch.ones(2, dtype=torch.float16))
    assert s.state[0].tolist() == pytest.approx([9.98, 9.98], abs=1e-4)
    assert torch.equal(x, s.state[0].half())
    adjust_(s, 0.1)
    assert s.rule == MixedPrecision(torch.float32, Adam(0.1))


# -- trees ---------------------------------------------------------------------------------------------


def test_the_basics() -> None:
    m = (float64(1, 2),)
    s = setup(Descent(0.1), m)
    _, m2 = update(s, m, ([25, 33],))
    assert m[0].tolist() == [1, 2]
    torch.testing.assert_close(m2[0], float64(1 - 2.5, 2 - 3.3))
    s3, m3 = update_(s, m, ([25, 33],))
    assert s3 is s
    assert m3[0] is m[0]
    torch.testing.assert_close(m[0], m2[0])

    s5 = setup(Momentum(0.1), m)
    s6, _ = update(s5, m, ([25, 33],))
    torch.testing.assert_close(s6[0].state, float64(2.5, 3.3))
    assert s5[0].state.tolist() == [0, 0]
    state = s5[0].state
    s7, _ = update_(s5, m, ([25, 33],))
    assert s7[0] is s5[0]
    assert s7[0].state is state


def test_setup_mirrors_the_model() -> None:
    m = nt(x=torch.zeros(3), y=(True, False), z=torch.tanh, n=None, i=torch.tensor([1, 2]), k=2.5, l=[])
    assert repr(setup(Momentum(), m)) == (
        "(x = Leaf(Momentum(0.01, 0.9), [0.0, 0.0, 0.0]), y = ((), ()), z = (), n = (), i = (), k = (), l = [])"
    )
    with pytest.warns(UserWarning, match="setup found no trainable parameters in this model"):
        assert setup(Adam(), (torch.tanh, 3)) == ((), ())
    with pytest.raises(ValueError, match="mutable"):
        setup(Adam(), torch.zeros(1).expand(3))


def test_torch_modules() -> None:
    m = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh())
    m[0].bias.requires_grad_(False)
    tree = setup(Adam(), m)
    leaf = tree["0"].weight
    assert isinstance(leaf, Leaf)
    assert tree["0"].bias == ()
    assert tree["1"].running_mean == ()
    assert isinstance(tree["1"].bias, Leaf)
    assert tree["2"] == ()
    kept = m[0].weight.detach().clone()
    grad = gradient(lambda m: m(torch.randn(4, 2, generator=generator())).square().sum(), m)[0]
    update_(tree, m, grad)
    assert not torch.equal(m[0].weight, kept)
    assert m[0].weight.is_leaf
    assert m[0].weight.requires_grad
    assert m[0].weight.grad is None
    _, m2 = update(tree, m, grad)
    assert isinstance(m2[0].weight, nn.Parameter)
    assert not torch.equal(m2[0].weight, m[0].weight)


def test_dicts() -> None:
    d = {"a": float64(1, 2), "b": float64(3, 4), "c": 1}
    s = setup(AdamW(0.1), d)
    assert isinstance(s["a"], Leaf)
    assert s["c"] == ()
    _, d2 = update(s, d, gradient(lambda m: (m["a"] ** 2).sum(), d)[0])
    torch.testing.assert_close(d2, {"a": float64(0.9, 1.9), "b": float64(3, 4), "c": 1})
    e = {1: float64(1, 2), 2: {"a": nt(c=float64(3, 4)), "b": 1}}
    s = setup(AdamW(0.1), e)
    _, e2 = update(s, e, gradient(lambda d: d[2]["a"].c.sum(), e)[0])
    torch.testing.assert_close(e2[2]["a"].c, float64(2.9, 3.9))
    assert e2[1].tolist() == [1, 2]
    _, e3 = update(s, e, {2: {"a": nt(c=[1, 1])}})  # what isn't there has no gradient
    torch.testing.assert_close(e3[2]["a"].c, float64(2.9, 3.9))


def test_trainable_subsets() -> None:
    @functors.functor
    class TwoThirds:
        def __init__(self, a: Any, b: Any, c: Any) -> None:
            self.a, self.b, self.c = a, b, c

        def trainable(self) -> Any:
            return nt(a=self.a)

    m = TwoThirds(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]), TwoThirds(torch.ones(1), 1.0, torch.ones(1)))
    s = setup(Momentum(0.1, 0.9), m)
    assert isinstance(s.a, Leaf)
    assert s.b == s.c == ()
    _, m2 = update(s, m, nt(a=[2, 4], b=[1, 1], c=None))
    torch.testing.assert_close(m2.a, torch.tensor([0.8, 1.6]))
    assert m2.b.tolist() == [3, 4]
    assert trainables((m, m.c)) == [m.a, m.c.a]

    @dataclass
    class Pair:
        x: Any
        y: Any

    p = Pair(torch.ones(1), {"k": Pair(torch.ones(2), torch.tanh)})
    update_(setup(Descent(1.0), p), p, nt(x=None, y={"k": nt(x=[1, 2], y=None)}))
    assert p.x.tolist() == [1]
    assert p.y["k"].x.tolist() == [0, -1]


def test_ties() -> None:
    twice = float64(1, 2)
    m = (twice, (twice.clone(), twice))
    s = setup(Momentum(0.1), m)
    assert s[0] is s[1][1] is not s[1][0]
    _, m2 = update(s, m, ([3, 3], ([10, 10], [7, 7])))
    assert m2[0] is m2[1][1]
    torch.testing.assert_close(m2[0], m2[1][0])
    _, m3 = update(s, m, ([3, 3], None))
    torch.testing.assert_close(m3[0], float64(1, 2) - 0.3)
    _, m4 = update(s, m, (None, ([5, 5], [7, 7])))
    torch.testing.assert_close(m4[0], float64(1, 2) - 0.7)
    s5 = pickle.loads(pickle.dumps(s))
    assert s5[0] is s5[1][1]


def test_ties_by_name() -> None:
    thrice = torch.tensor([3.0])
    model = nt(a=nt(x=thrice, y=[4.0, 5, 6], z=True), b=(nt(m=(0, 1, thrice)),), c=nt(x=[7.0, 8], y=thrice))
    tree = setup(Momentum(0.1, 0.9), model)
    assert tree.a.x is tree.b[0].m[2] is tree.c.y
    adjust_(tree, 0.2)
    assert tree.a.x.rule == tree.a.y.rule == Momentum(0.2, 0.9)

    def loss(m: Any) -> Any:
        return sum((2 * x**2).sum() for x in (m.a.x, m.a.y, m.b[0].m[2], m.c.x, m.c.y))

    _, m2 = update(tree, model, gradient(loss, model)[0])
    assert m2.a.x is m2.b[0].m[2] is m2.c.y
    torch.testing.assert_close(m2.a.x, torch.tensor([3 - 0.2 * 3 * 12]))
    _, m3 = update(tree, model, gradient(lambda m: (2 * m.a.x**2 + 2 * m.c.y**2).sum(), model)[0])
    assert m3.a.x is m3.b[0].m[2] is m3.c.y
    torch.testing.assert_close(m3.a.x, torch.tensor([3 - 0.2 * 2 * 12]))


def test_transposes_are_tied() -> None:
    mat = float64([1, 2, 3], [4, 5, 6])
    model = nt(m=mat, f=torch.log, t=mat.T, v=float64(7, 8, 9))
    grad = gradient(lambda m: (m.m @ m.f(m.t @ float64(1, 0.1) + m.v)).square().sum(), model)[0]
    dm = grad.m + grad.t.T
    state = setup(Descent(0.1), model)
    assert state.t.parent is state.m
    assert repr(state.t) == "(parent = Leaf(Descent(0.1), nothing),)"
    _, m2 = update(state, model, grad)
    assert m2.t.data_ptr() == m2.m.data_ptr()
    torch.testing.assert_close((m2.m, m2.t), (mat - 0.1 * dm, (mat - 0.1 * dm).T))
    clipped = OptimiserChain(ClipGrad(10), Descent(0.1), ClipGrad(10))
    _, m2 = update(setup(clipped, model), model, grad)
    torch.testing.assert_close(m2.m, mat - 0.1 * dm.clamp(-10, 10))
    _, m2 = update(state, model, nt(m=None, f=None, t=[[1, 2], [3, 4], [5, 6]], v=None))
    torch.testing.assert_close(m2.m, mat - 0.1 * float64([1, 3, 5], [2, 4, 6]))
    torch.testing.assert_close(m2.t, m2.m.T)
    with pytest.raises(DimensionMismatch, match="for t is a 2×3"):
        update(state, model, nt(m=None, f=None, t=mat, v=None))

    three = nt(a=mat.T, b=mat, c=mat.T, d=4.0)
    grad = gradient(lambda m: (m.a @ (m.b @ (m.c @ float64(0.1, 1) + m.d) - m.d)).square().sum(), three)[0]
    state, before = setup(Adam(0.1), three), mat.clone()
    alone = before.clone()
    tree = setup(Adam(0.1), alone)
    for g in (grad, nt(a=None, b=grad.b, c=None, d=None), nt(a=None, b=None, c=grad.c, d=None)):
        update_(state, three, g)
        update_(tree, alone, sum(v if v.shape == mat.shape else v.T for v in (g.a, g.b, g.c) if v is not None))
    torch.testing.assert_close((three.a, three.b, three.c), (alone.T, alone, alone.T))
    freeze_(state.b)
    assert state.a.frozen
    adjust_(state.c, 0.5)
    assert state.a.rule.eta == 0.5

    square, images = float64([1, 2], [3, 4]), torch.randn(2, 1, 3, 4)
    for x, y, back in [(square, square.T, (1, 0)), (images, images.permute(3, 1, 0, 2), (2, 1, 3, 0))]:
        kept, g = x.clone(), torch.randn(y.shape, dtype=y.dtype)
        pair = setup(Momentum(1.0), [x, y])
        update_(pair, [x, y], [None, g])
        torch.testing.assert_close((kept - x, pair[0].state), (g.permute(back),) * 2)
    assert setup(Descent(), [square, square[:1], square.flatten()])[1:] == [Leaf(Descent(), None)] * 2  # not the same


def test_the_tied_autoencoder_of_the_manual() -> None:
    enc = Chain(Dense(40 | to | 20, torch.tanh), Dense(20 | to | 10))
    dec = Chain(Dense(enc[0].weight.T, True, torch.tanh), Dense(enc[1].weight.T, True, torch.tanh))
    model = Chain(enc=enc, dec=dec)
    st = setup(Adam(), model)
    assert st.layers.enc.layers[0].weight is st.layers.dec.layers[0].weight.parent
    update_(st, model, gradient(lambda m: m.layers.dec[0].weight.sum(), model)[0])
    assert torch.equal(enc[0].weight.T, dec[0].weight)


def test_freezing_and_adjusting_as_in_the_manual() -> None:
    x = torch.randn(28, 28, 1, 1, generator=generator())
    net = Chain(Conv((3, 3), 1 | to | 3, stride=2, bias=False), flatten, Dense(507 | to | 2, torch.relu))
    opt = setup(Momentum(), net)
    freeze_(opt.layers[2])
    assert repr(opt.layers[2].bias) == "Leaf(Momentum(0.01, 0.9), [0.0, 0.0], frozen = true)"
    update_(opt, net, gradient(lambda m: m(x).sum() + m[2].bias.sum(), net)[0])
    assert net[2].bias.tolist() == [0, 0]
    thaw_(opt)
    assert repr(opt.layers[2].bias) == "Leaf(Momentum(0.01, 0.9), [0.0, 0.0])"
    adjust_(opt, 0.03)
    adjust_(opt.layers[2], 0.04)
    adjust_(opt, rho=0.95)
    assert opt.layers[0].weight.rule == Momentum(0.03, 0.95)
    assert opt.layers[2].bias.rule == Momentum(0.04, 0.95)
    assert opt.layers[0].bias == ()


def test_adjusting_as_in_the_docstring() -> None:
    m = nt(vec=[0.5, 0.25], fun=torch.sin)
    st = setup(Nesterov(), m)
    assert repr(st) == "(vec = Leaf(Nesterov(0.001, 0.9), [0.0, 0.0]), fun = ())"
    st, m = update(st, m, nt(vec=[16, 88], fun=None))
    assert repr(st) == "(vec = Leaf(Nesterov(0.001, 0.9), [-0.016, -0.088]), fun = ())"
    adjust_(st, 0.123)
    assert repr(st) == "(vec = Leaf(Nesterov(0.123, 0.9), [-0.016, -0.088]), fun = ())"
    assert list(fields_of(Adam())) == ["eta", "beta", "epsilon"]
    st2 = setup(OptimiserChain(ClipGrad(), Adam()), m)
    state = "(nothing, ([0.0, 0.0], [0.0, 0.0], (0.9, 0.999)))"
    assert repr(st2.vec) == f"Leaf(OptimiserChain(ClipGrad(10.0), Adam(0.001, (0.9, 0.999), 1.0e-8)), {state})"
    assert repr(adjust(st2, beta=(0.777, 0.909), delta=11.1).vec) == (
        f"Leaf(OptimiserChain(ClipGrad(11.1), Adam(0.001, (0.777, 0.909), 1.0e-8)), {state})"
    )
    assert repr(adjust(st, beta="no such field")) == repr(st)


def test_update_as_in_the_docstring() -> None:
    m = nt(x=[1.0, 2.0], y=[4.0, 5.0])
    t = setup(Momentum(1 / 30, 0.9), m)
    assert repr(t.y) == "Leaf(Momentum(0.0333333, 0.9), [0.0, 0.0])"
    g = gradient(lambda m: ((m.x + m.y) ** 2).sum(), m)[0]
    assert g == nt(x=[10.0, 14.0], y=[10.0, 14.0])
    t2, m2 = update_(t, m, g)
    torch.testing.assert_close(
        (m2.x, m2.y), (torch.tensor([0.6666666, 1.5333333]), torch.tensor([3.6666667, 4.5333333]))
    )
    assert m2.x is m.x
    assert t == t2


def test_a_leaf_at_two_places_ties_them() -> None:
    model = nt(a=[1.0, 2.0], b=[1.0, 2.0], c=[1.0, 2.0], d=[1.0, 2.0])
    auto = setup(Momentum(0.1), model)
    assert auto.a is not auto.b
    trick = nt(a=auto.a, b=auto.a, c=auto.c, d=auto.d)
    for _ in range(2):
        update_(trick, model, nt(a=[3, 3], b=[7, 7], c=[3, 3], d=[10, 10]))
    torch.testing.assert_close(model.a, model.d)
    torch.testing.assert_close(model.b, model.d)
    assert not torch.allclose(model.a, model.c)


@pytest.mark.parametrize("in_place", [False, True])
def test_adjust(in_place: bool) -> None:
    def adjusted(tree: Any, *args: Any, **kwargs: Any) -> Any:
        if in_place:
            adjust_(tree, *args, **kwargs)
            return tree
        before = copy.deepcopy(tree)
        new = adjust(tree, *args, **kwargs)
        assert tree == before
        return new

    m = nt(α=(float64(0.0), torch.sin), γ=torch.tensor([4.0, 3.0, 2.0]))
    s = setup(Momentum(0.1, 0.9), m)
    s, m1 = update(s, m, nt(α=None, γ=[1, 10, 100]))
    torch.testing.assert_close(m.γ - m1.γ, torch.tensor([0.1, 1, 10]))
    s = adjusted(s, 0.2)
    assert s.γ.rule == s.α[0].rule == Momentum(0.2, 0.9)
    torch.testing.assert_close(s.γ.state, torch.tensor([0.1, 1, 10]))
    s = adjusted(s, eta=0.3, rho=0.7)
    assert s.γ.rule is s.α[0].rule  # and so are stepped together
    assert s.γ.rule == Momentum(0.3, 0.7)
    assert adjusted(s, zeta="this does nothing") == s
    assert adjusted(s.γ, 0.4).rule == Momentum(0.4, 0.7)
    with pytest.raises(DomainError):
        adjusted(s, -1)
    with pytest.raises(TypeError):
        adjusted(s)
    with pytest.raises(ValueError, match="state tree"):
        adjusted(m, 0.1)

    c = setup(OptimiserChain(ClipGrad(2), Adam()), m)
    c, _ = update(c, m, nt(α=None, γ=[1, 10, 100]))
    torch.testing.assert_close(c.γ.state[1][0], torch.tensor([0.1, 0.2, 0.2]))
    c = adjusted(c, 0.2)
    assert c.γ.rule == OptimiserChain(ClipGrad(2), Adam(0.2))
    c = adjusted(c, delta=2.5, beta=(0.777, 0.909))
    assert c.γ.rule == OptimiserChain(ClipGrad(2.5), Adam(0.2, (0.777, 0.909)))
    torch.testing.assert_close(c.γ.state[1][0], torch.tensor([0.1, 0.2, 0.2]))


def test_adjust_of_a_part_and_of_old_names() -> None:
    m = nt(enc=[1.0], dec=[1.0])
    s = setup(Adam(0.02), m)
    adjust_(s.enc, 0.03)
    assert (s.enc.rule.eta, s.dec.rule.eta) == (0.03, 0.02)
    update_(s, m, nt(enc=[1.0], dec=[1.0]))
    torch.testing.assert_close((m.enc, m.dec), (torch.tensor([0.97]), torch.tensor([0.98])))
    with pytest.warns(DeprecationWarning, match="lambda_"):
        assert adjust(WeightDecay(), gamma=0.1) == WeightDecay(0.1)


def test_beta_changed_on_the_way() -> None:
    # The powers are products of the β that were used, not of the last one: m / (1 - β₁β₁')….
    x = float64(0.0)
    s = setup(Adam(0.1, (0.9, 0.99), 0.0), x)
    update_(s, x, float64(1.0))
    adjust_(s, beta=(0.5, 0.9))
    update_(s, x, float64(2.0))
    m, v = 0.5 * 0.1 + 0.5 * 2, 0.9 * 0.01 + 0.1 * 4
    second = 0.1 * (m / (1 - 0.9 * 0.9)) / math.sqrt(v / (1 - 0.99 * 0.99))
    assert s.state[2] == pytest.approx((0.9 * 0.9 * 0.5, 0.99 * 0.99 * 0.9))
    assert x.item() == pytest.approx(-0.1 - second)


def test_freeze_and_thaw() -> None:
    m = nt(x=float64(1, 2), y=(float64(3, 4), torch.sin))
    st = setup(Descent(0.1), m)
    freeze_(st.y)
    g = nt(x=[1, 10], y=([100, 1000], None))
    st, m = update(st, m, g)
    torch.testing.assert_close((m.x, m.y[0]), (float64(0.9, 1.0), float64(3, 4)))
    st = adjust(st, 0.2)
    thaw_(st)
    st, m = update(st, m, g)
    torch.testing.assert_close((m.x, m.y[0]), (float64(0.7, -1.0), float64(-17, -196)))
    for f in (freeze_, thaw_):
        for wrong in (m, m.x, nn.Linear(1, 1)):
            with pytest.raises(ValueError, match="state tree"):
                f(wrong)

    m2 = nt(x=(float64(1.0), 2.0), y=float64(3.0))
    s = setup(Momentum(), m2)
    freeze_(s.x)
    update_(s, m2, nt(x=([math.pi], 10 * math.pi), y=float64(100 * math.pi)))
    assert repr(m2) == "(x = ([1.0], 2.0), y = [-0.14159265358979312])"
    assert repr(s) == (
        "(x = (Leaf(Momentum(0.01, 0.9), [0.0], frozen = true), ()), y = Leaf(Momentum(0.01, 0.9), [3.14159]))"
    )


def test_isnumeric() -> None:
    frozen = nn.Parameter(torch.ones(1), requires_grad=False)
    assert [
        isnumeric(x) for x in (torch.ones(()), torch.ones(2, dtype=torch.complex64), nn.Parameter(torch.ones(1)))
    ] == [True] * 3
    assert [isnumeric(x) for x in (torch.ones(2, dtype=torch.bool), frozen, 1.0, [1.0], None, torch.tanh)] == [
        False
    ] * 6


def test_trainables() -> None:
    m1, other, mat = float64(1, 2, 3), float64(4, 5, 6), torch.tensor([[4.0, 6], [5, 7]])
    m4 = nt(x=m1, y=m1, z=other)
    assert trainables(m1) == [m1]
    assert trainables(nt(x=m1, y=torch.sin, z=other)) == [m1, other]
    assert trainables(nt(a=m1, b=mat, c=[mat, m1])) == [m1, mat]
    assert trainables(m4, path=True) == [(KeyPath("x"), m1), (KeyPath("z"), other)]

    def loss(m: Any) -> Any:
        return sum((p**2).sum() for p in trainables(m))

    g = gradient(loss, nt(x=m1, y=torch.sin, z=other, n=2.0, i=torch.tensor([1, 2])))[0]
    assert g == nt(x=2 * m1, y=None, z=2 * other, n=None, i=None)
    second = gradient(lambda m: loss(gradient(loss, m)[0]), nt(w=[[1.0, 2], [3, 4]], b=[0.0, 0.0]))[0]
    assert second == nt(w=[[8.0, 16], [24, 32]], b=[0.0, 0.0])


# -- misuse changes nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grad", "error", "words"),
    [
        (nt(a=[1, 1], b=(None, [[1, 1]])), DimensionMismatch, r"for b\.1 is a 1×2 tensor"),
        (nt(a=[1, 1, 1], b=None), DimensionMismatch, "for a is a 3-element"),
        (nt(a=1.0, b=None), DimensionMismatch, "for a is a 0-dim"),
        (nt(a="x", b=None), ValueError, "for a must be an array"),
        (nt(a=torch.ones(2) * 1j, b=None), ValueError, "for a is complex"),
        (nt(a=[1, 1], b=([1, 1],)), ValueError, "1 entries for a tuple of 2"),
        (nt(a=[1, 1]), ValueError, "has no 'b'"),
        (nt(layers=[1, 1]), ValueError, "has no 'a'"),
        ((torch.ones(2),), ValueError, "has no 'a'"),
        (torch.ones(2), ValueError, "has no 'a'"),
    ],
)
def test_wrong_gradients(grad: Any, error: type[Exception], words: str) -> None:
    m = nt(a=[1.0, 2.0], b=(torch.tanh, torch.tensor([3.0, 4.0])))
    tree = setup(Adam(), m)
    before = copy.deepcopy((m, tree))
    with pytest.raises(error, match=words):
        update_(tree, m, grad)
    assert (m, tree) == before


def test_wrong_trees() -> None:
    m, other = nt(a=[1.0], b=[1.0]), nt(a=[1.0])
    tree = setup(Adam(), m)
    for wrong, grad in [(other, nt(a=[1.0], b=[1.0])), (nt(a=1.0, b=[1.0]), nt(a=[1.0], b=[1.0]))]:
        with pytest.raises(ValueError, match="state tree is not one for"):
            update_(tree, wrong, grad)
    with pytest.raises(TypeError, match="setup"):
        update_(Adam(), m, nt(a=[1.0], b=[1.0]))
    with pytest.raises(TypeError):
        update_(tree, m)  # type: ignore[call-arg]


def test_no_gradient_is_no_step() -> None:
    m = nt(a=[1.0], b=[1.0])
    tree = setup(Adam(), m)
    before = copy.deepcopy((m, tree))
    update_(tree, m, None)
    update_(tree, m, nt(a=None, b=None))
    assert (m, tree) == before


def test_integers_and_half_gradients_are_converted() -> None:
    x = torch.tensor([1.0, 2.0])
    tree = setup(Momentum(0.5), x)
    update_(tree, x, torch.tensor([2, 4]))
    update_(tree, x, torch.tensor([0.0, 0.0], dtype=torch.float16))
    update_(tree, x, torch.sparse_coo_tensor([[0]], [0.0], (2,), check_invariants=True))
    assert tree.state.dtype is torch.float32
    torch.testing.assert_close(x, torch.tensor([1 - 2.71, 2 - 5.42]))


def test_nothing_is_recorded() -> None:
    x = torch.ones(2, requires_grad=True)
    for rule in RULES:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = setup(rule, x)
            update_(tree, x, x.detach() * 2)
        assert x.is_leaf
        assert not any(v.requires_grad for v in functors.fleaves(tree.state) if isinstance(v, torch.Tensor))
