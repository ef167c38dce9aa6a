from __future__ import annotations

import copy
import gc
import io
import operator
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fluxtorch import (
    GRU,
    LSTM,
    RNN,
    Chain,
    Dense,
    Descent,
    DimensionMismatch,
    Dropout,
    GRUCell,
    Layer,
    LSTMCell,
    Maxout,
    Params,
    Recur,
    RNNCell,
    Tracker,
    broadcast,
    cpu,
    f16,
    f64,
    gradient,
    hessian,
    identity,
    jacobian,
    layer,
    mse,
    nt,
    outputsize,
    params,
    pullback,
    rand,
    reset_,
    setup,
    testmode_,
    to,
    train_,
    trainmode_,
    truncate_,
    withgradient,
)
from fluxtorch.functors import fcollect, fleaves, fmap
from fluxtorch.layers.recurrent import GRUv3, GRUv3Cell
from fluxtorch.nnlib import relu
from fluxtorch.zygote import within_gradient

KINDS = [RNN, LSTM, GRU, GRUv3]
TORCH = [(RNN, nn.RNN), (LSTM, nn.LSTM), (GRU, nn.GRU)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def tensors(x: Any) -> list[torch.Tensor]:
    return [v for v in fleaves(x) if isinstance(v, torch.Tensor)]


def is_constant(state: Any) -> bool:
    return not any(v.requires_grad for v in tensors(state))


def values(state: Any) -> list[torch.Tensor]:
    return [v.detach().clone() for v in tensors(state)]


def close(a: Any, b: Any, **how: Any) -> None:
    torch.testing.assert_close([v.detach() for v in tensors(a)], [v.detach() for v in tensors(b)], **how)


def first_states(m: Any) -> tuple[torch.Tensor, ...]:
    s = m.cell.state0
    return s if isinstance(s, tuple) else (s,)


def starts_fresh(m: Any) -> bool:
    """Is the state the very first state, tensor by tensor?"""
    return all(a is b for a, b in zip(tensors(m.state), first_states(m), strict=True))


def randomised(m: Any) -> Any:
    """`m` with biases and first states that are no zeros."""
    for p in m.parameters():
        p[...] = torch.randn(p.shape, dtype=p.dtype) * 0.5
    return m


def twin(m: Any, kind: Any) -> Any:
    """The torch module with the weights of `m`."""
    n, k = m.cell.Wi.shape[1], m.cell.Wh.shape[1]
    t = kind(n, k).to(m.cell.Wi.dtype)
    with torch.no_grad():
        t.weight_ih_l0.copy_(m.cell.Wi)
        t.weight_hh_l0.copy_(m.cell.Wh)
        t.bias_ih_l0.copy_(m.cell.b)
        t.bias_hh_l0.zero_()
    return t


def torch_state(m: Any, n: int) -> Any:
    hs = tuple(h.detach().t().expand(n, -1)[None].contiguous() for h in first_states(m))
    return hs if len(hs) == 2 else hs[0]


def graph_size(x: torch.Tensor) -> int:
    seen, stack = set(), [x.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in seen:
            seen.add(node)
            stack += [f for f, _ in node.next_functions]
    return len(seen)


# -- the numbers of Flux's docs and tests ------------------------------------------------------------


def accum(h: Any, x: Any) -> Any:
    return h + x, x


def test_running_total_of_numbers() -> None:
    rnn = Recur(accum, 0)
    assert str(rnn) == repr(rnn) == "Recur(accum)"
    assert (rnn(2), rnn(3), rnn.state) == (2, 3, 5)
    assert [rnn(i) for i in range(1, 11)] == list(range(1, 11))
    assert rnn.state == 60
    assert reset_(rnn) == 0 and rnn.state == 0


def test_running_total_of_arrays() -> None:
    rnn = Recur(accum, torch.zeros(1, 1, dtype=torch.int64))
    assert rnn([2]).tolist() == [2]
    assert rnn([3]).tolist() == [3]
    assert rnn.state.tolist() == [[5]]
    out = rnn(torch.arange(1, 11).reshape(1, 1, 10))
    assert out.tolist() == [[list(range(1, 11))]]
    assert rnn.state.tolist() == [[60]]
    assert rnn.state.dtype == torch.int64
    reset_(rnn)
    assert rnn.state.tolist() == [[0]]
    rnn([[list(range(1, 11))]])
    assert rnn.state.tolist() == [[55]]


def test_reset_returns_to_the_cells_first_state() -> None:
    def array(v: float) -> torch.Tensor:
        return torch.full((1, 1), v, dtype=torch.float64)

    y = Recur(RNNCell(relu, array(1), array(0), array(1), array(0)), array(1))
    assert y.state.tolist() == [[1.0]]
    assert y(array(1)).tolist() == [[2.0]]
    assert y.state.tolist() == [[2.0]]
    assert reset_(y).tolist() == [[0.0]]
    assert y.state is y.cell.state0
    assert y.state.dtype == torch.float64


def filled_rnn() -> Any:
    m = Recur(RNNCell(1, 1, identity))
    m.cell.Wi[...] = 5.0
    m.cell.Wh[...] = 4.0
    m.cell.b[...] = 0.0
    m.cell.state0[...] = 7.0
    return m


@pytest.mark.parametrize("whole", [False, True])
def test_gradients_of_an_rnn_in_both_styles(whole: bool) -> None:
    m, xs = filled_rnn(), [[2.0], [3.0]]

    def loss(m: Any) -> Any:
        return m([[[2.0, 3.0]]])[:, :, 1].sum() if whole else [m(x) for x in xs][1].sum()

    reset_(m)
    ps = params(m)
    val, gs = withgradient(lambda: loss(m), ps)
    assert len(ps) == 4
    assert val == 4 * (4 * 7 + 2 * 5) + 3 * 5
    assert [gs[p].item() for p in ps] == [11, 66, 5, 16]
    reset_(m)
    val, (grad,) = withgradient(loss, m)
    assert val == 167
    assert grad.state is None and grad.cell.σ is None
    assert [grad.cell[k].item() for k in ("Wi", "Wh", "b", "state0")] == [11, 66, 5, 16]


@pytest.mark.parametrize("size", [(2,), (2, 1), None])
def test_backpropagation_through_time_is_that_of_the_formula(size: Any) -> None:
    m = randomised(RNN(2 | to | 3))
    c = m.cell
    if size is None:
        x = torch.rand(2, 1, 3)
        seq = list(x.unbind(2))
        loss: Callable[[], Any] = lambda: m(x)[:, :, 2].sum()  # noqa: E731
    else:
        seq = [torch.rand(size) for _ in range(3)]
        loss = lambda: [m(s) for s in seq][2].sum()  # noqa: E731
    gs = gradient(loss, params(m))

    def formula(Wh: torch.Tensor) -> torch.Tensor:
        h, b = c.state0, c.b[:, None]
        for s in seq:
            h = torch.tanh(c.Wi @ s.reshape(2, 1) + Wh @ h + b)
        return torch.sum(h)

    torch.testing.assert_close(gs[c.Wh], gradient(formula, c.Wh.detach())[0])


@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind: Any) -> None:
    for m in (kind(3 | to | 5), kind(3, 5), kind((3, 5))):
        for size, out in (((3,), (5,)), ((3, 1), (5, 1)), ((3, 1, 2), (5, 1, 2))):
            assert m(torch.rand(size)).shape == out
            assert m(torch.rand(size)).shape == out
            assert all(s.shape == (5, 1) for s in tensors(m.state))
        reset_(m)
        assert m(torch.rand(3, 10)).shape == (5, 10)
        assert all(s.shape == (5, 10) for s in tensors(m.state))


def test_arrays_of_other_element_types() -> None:
    def ints(*size: int) -> torch.Tensor:
        return torch.randint(1, 20, size)

    cells = [
        RNNCell(torch.tanh, rand(5, 3), ints(5, 5), rand(5), rand(5, 1)),
        LSTMCell(rand(20, 3), ints(20, 5), rand(20), (rand(5, 1), rand(5, 1))),
        GRUCell(rand(15, 3), ints(15, 5), rand(15), rand(5, 1)),
        GRUv3Cell(rand(15, 3), ints(10, 5), rand(15), ints(5, 5), rand(5, 1)),
    ]
    for m in map(Recur, cells):
        for size, out in (((3,), (5,)), ((3, 1), (5, 1)), ((3, 1, 2), (5, 1, 2))):
            y = m(rand(*size))
            assert y.shape == out and y.dtype == torch.float64
            reset_(m)


@pytest.mark.parametrize("kind", KINDS)
def test_input_becomes_the_layers_element_type(kind: Any) -> None:
    for size in ((2, 4), (2, 4, 3)):
        m = kind(2 | to | 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = m(rand(*size))
        assert y.dtype == torch.float32
        assert all(s.dtype == torch.float32 for s in tensors(m.state))
        reset_(m)
        assert outputsize(m, size) == tuple(y.shape)
        assert starts_fresh(m)


def test_forget_gate_starts_open_and_states_at_zero() -> None:
    c = LSTMCell(3 | to | 2)
    assert c.b.tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert [s.tolist() for s in c.state0] == [[[0], [0]], [[0], [0]]]
    ones = lambda *size: torch.ones(size)  # noqa: E731
    m = LSTM(3 | to | 2, init=ones, initb=ones, init_state=ones)
    assert all((p == 1).all() for p in m.parameters())
    assert [tuple(p.shape) for p in params(m)] == [(8, 3), (8, 2), (8,), (2, 1), (2, 1)]
    assert [tuple(p.shape) for p in params(GRUv3(3 | to | 2))] == [(6, 3), (4, 2), (6,), (2, 2), (2, 1)]


def test_printing() -> None:
    assert repr(RNN(3 | to | 5)) == (
        "Recur(\n"
        "  RNNCell(3 => 5, tanh),                # 50 parameters\n"
        ")         # Total: 4 trainable arrays, 50 parameters,\n"
        "          # plus 1 non-trainable, 5 parameters, summarysize 200 bytes."
    )
    assert repr(LSTM(3 | to | 5)) == (
        "Recur(\n"
        "  LSTMCell(3 => 5),                     # 190 parameters\n"
        ")         # Total: 5 trainable arrays, 190 parameters,\n"
        "          # plus 2 non-trainable, 10 parameters, summarysize 760 bytes."
    )
    assert repr(GRU(3 | to | 5)) == (
        "Recur(\n"
        "  GRUCell(3 => 5),                      # 140 parameters\n"
        ")         # Total: 4 trainable arrays, 140 parameters,\n"
        "          # plus 1 non-trainable, 5 parameters, summarysize 560 bytes."
    )
    assert repr(GRUv3(3 | to | 5)) == (
        "Recur(\n"
        "  GRUv3Cell(3 => 5),                    # 140 parameters\n"
        ")         # Total: 5 trainable arrays, 140 parameters,\n"
        "          # plus 1 non-trainable, 5 parameters, summarysize 560 bytes."
    )
    assert str(RNN(3 | to | 5, relu)) == "Recur(RNNCell(3 => 5, relu))"
    assert str(RNN(3 | to | 5, identity)) == "Recur(RNNCell(3 => 5))"
    assert str(Chain(GRU(2 | to | 3), Dense(3 | to | 1))) == "Chain(Recur(GRUCell(2 => 3)), Dense(3 => 1))"


def test_the_guide_on_recurrence() -> None:
    """A cell of arrays, a state given to `Recur`, a warm-up, and two batches that go on from each other."""
    Wxh, Whh, b = torch.randn(5, 2), torch.randn(5, 5), torch.randn(5)

    def rnn_cell(h: Any, x: Any) -> Any:
        h = torch.tanh(broadcast(operator.add, Wxh @ x + Whh @ h, b))
        return h, h

    x, h = torch.rand(2), torch.rand(5)
    mine, its = Recur(rnn_cell, h), Recur(RNNCell(torch.tanh, Wxh, Whh, b, torch.zeros(5, 1)), h)
    for _ in range(3):
        h, y = rnn_cell(h, x)
        torch.testing.assert_close(mine(x), y)
        torch.testing.assert_close(its(x).detach(), y)
    h, y = rnn_cell(torch.rand(5, 4), torch.rand(2, 4))
    assert h.shape == y.shape == (5, 4)

    m = Chain(RNN(2 | to | 5), Dense(5 | to | 1))
    assert repr(m) == (
        "Chain(\n"
        "  Recur(\n"
        "    RNNCell(2 => 5, tanh),              # 45 parameters\n"
        "  ),\n"
        "  Dense(5 => 1),                        # 6 parameters\n"
        ")         # Total: 6 trainable arrays, 51 parameters,\n"
        "          # plus 1 non-trainable, 5 parameters, summarysize 204 bytes."
    )

    def loss(m: Any, x: Any, y: Any) -> Any:
        return sum(mse(m(xi), yi) for xi, yi in zip(x, y, strict=True))

    xs, ys = torch.rand(7, 2).unbind(), torch.rand(6, 1).unbind()
    other = copy.deepcopy(m)
    for n, train in ((m, True), (other, False)):
        n(xs[0])
        opt = setup(Descent(0.0), n)
        if train:
            train_(loss, n, [(xs[1:4], ys[:3]), (xs[4:], ys[3:])], opt)
        else:
            loss(n, xs[1:], ys)
    assert is_constant(m[0].state)
    close(m[0].state, other[0].state)


# -- the numbers of torch ----------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "torch_kind"), TORCH)
@pytest.mark.parametrize("layout", ["vectors", "batches", "whole", "recorded nowhere", "hooked"])
def test_equals_torch(kind: Any, torch_kind: Any, layout: str) -> None:
    n = 1 if layout == "vectors" else 4
    m = randomised(kind(3 | to | 5))
    t = twin(m, torch_kind)
    if layout == "hooked":  # goes step by step
        m.cell.register_forward_hook(lambda *_: None)
    x = torch.randn(3, n, 6)
    weight = torch.randn(5, n, 6)

    def run(m: Any, x: torch.Tensor) -> Any:
        if layout == "vectors":
            return torch.stack([m(v[:, 0]) for v in x.unbind(2)], 1)[:, None]
        if layout == "batches":
            return torch.stack([m(v) for v in x.unbind(2)], 2)
        return m(x)

    if layout == "recorded nowhere":
        with torch.no_grad():
            y = run(m, x)
    else:
        (grad, dx) = gradient(lambda m, x: (weight * run(m, x)).sum(), m, x)
        reset_(m)
        y = run(m, x)

    tx = x.permute(2, 1, 0).clone().requires_grad_()
    start = torch_state(m, n)
    starts = [h.requires_grad_() for h in (start if isinstance(start, tuple) else (start,))]
    ty, last = t(tx, start)
    torch.testing.assert_close(y, ty.permute(2, 1, 0), check_stride=False)
    close(m.state, [h[0].t() for h in (last if isinstance(last, tuple) else (last,))])
    if layout != "recorded nowhere":
        (ty.permute(2, 1, 0) * weight).sum().backward()
        torch.testing.assert_close(dx.permute(2, 1, 0), tx.grad, atol=1e-5, rtol=1e-4)
        g = grad.cell
        for mine, its in ((g.Wi, t.weight_ih_l0), (g.Wh, t.weight_hh_l0), (g.b, t.bias_ih_l0)):
            torch.testing.assert_close(mine, its.grad, atol=1e-5, rtol=1e-4)
        for mine, h in zip(tensors(g.state0), starts, strict=True):
            torch.testing.assert_close(mine, h.grad[0].sum(0)[:, None], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("σ", [relu, torch.tanh, torch.sigmoid])
def test_rnn_with_any_activation(σ: Any, whole: bool) -> None:
    m = randomised(RNN(3 | to | 5, σ))
    c, x = m.cell, torch.randn(3, 4, 6)
    h = c.state0
    for x_t in x.unbind(2):
        h = σ(c.Wi @ x_t + c.Wh @ h + c.b[:, None])
    y = m(x)[:, :, -1] if whole else [m(x_t) for x_t in x.unbind(2)][-1]
    torch.testing.assert_close(y, h, check_stride=False)
    torch.testing.assert_close(m.state, h, check_stride=False)


def test_activation_sees_features_first() -> None:
    m = RNN(3 | to | 5, lambda v: v.softmax(0))
    torch.testing.assert_close(m(torch.randn(3, 4)).sum(0), torch.ones(4))


def test_gru_v3_is_its_formula() -> None:
    m = randomised(GRUv3(3 | to | 5))
    c, h = m.cell, m.cell.state0
    b = c.b[:, None]
    for x in torch.randn(4, 3, 2):
        gx = (c.Wi @ x).split(5)
        r = torch.sigmoid(gx[0] + c.Wh[:5] @ h + b[:5])
        z = torch.sigmoid(gx[1] + c.Wh[5:] @ h + b[5:10])
        h = (1 - z) * torch.tanh(gx[2] + getattr(c, "Wh_h̃") @ (r * h) + b[10:]) + z * h  # noqa: B009
        torch.testing.assert_close(m(x), h, check_stride=False)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_array_is_step_by_step(kind: Any) -> None:
    m = randomised(kind(3 | to | 5))
    n = copy.deepcopy(m)
    for x in torch.randn(2, 3, 4, 6):  # the second continues from the first
        torch.testing.assert_close(m(x), torch.stack([n(x_t) for x_t in x.unbind(2)], 2), check_stride=False)
        close(m.state, n.state)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_and_inputs_in_any_memory_order(kind: Any) -> None:
    m = randomised(kind(2 | to | 3))
    n = copy.deepcopy(m)
    for name in ("Wi", "Wh"):
        setattr(n.cell, name, getattr(m.cell, name).detach().t().clone().t())
    x = torch.randn(2, 4, 5)
    y = m(x)
    for whole in (True, False):
        reset_(n)
        run = n(x.permute(2, 0, 1).clone().permute(1, 2, 0)) if whole else torch.stack([n(v) for v in x.unbind(2)], 2)
        torch.testing.assert_close(run, y, check_stride=False)


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_to_second_order(kind: Any) -> None:
    m = randomised(f64(kind(2 | to | 2)))
    names = [name for name, _ in m.named_parameters()]

    def f(x: torch.Tensor, *ps: torch.Tensor) -> Any:
        return torch.func.functional_call(m, dict(zip(names, ps, strict=True)), (x,))

    def fresh(*args: torch.Tensor) -> Any:
        reset_(m)
        return f(*args)

    for size in ((2, 3, 2), (2, 3), (2,)):
        args = [rand(*size).requires_grad_(), *[p.detach().clone().requires_grad_() for p in m.parameters()]]
        assert torch.autograd.gradcheck(fresh, args)
        assert torch.autograd.gradgradcheck(fresh, args)


@pytest.mark.parametrize("kind", KINDS)
def test_nested_gradient_of_a_whole_array(kind: Any) -> None:
    m = randomised(kind(2 | to | 3))
    x = torch.randn(2, 4, 3)

    def penalty(run: Any) -> Any:
        def outer(m: Any) -> Any:
            reset_(m)
            return (gradient(lambda x: (run(m, x) ** 2).sum(), x)[0] ** 2).sum()

        return gradient(outer, m)[0]

    by_steps = penalty(lambda m, x: torch.stack([m(v) for v in x.unbind(2)], 2))
    close(penalty(lambda m, x: m(x)), by_steps, atol=1e-4, rtol=1e-4)
    assert is_constant(m.state)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_on_a_gpu(kind: Any) -> None:
    m = randomised(kind(3 | to | 5))
    x = torch.randn(3, 4, 6)
    n, x_gpu = copy.deepcopy(m).cuda(), x.cuda()
    for steps in (False, True):
        run = (lambda m, x: torch.stack([m(v) for v in x.unbind(2)], 2)) if steps else (lambda m, x: m(x))
        reset_([m, n])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            one = gradient(lambda m, x: (run(m, x) ** 2).sum(), n, x_gpu)  # noqa: B023
        other = gradient(lambda m, x: (run(m, x) ** 2).sum(), m, x)  # noqa: B023
        close(cpu(one), other, atol=1e-4, rtol=1e-3)
        close(cpu(n.state), m.state, atol=1e-4, rtol=1e-3)
        second = gradient(lambda x: gradient(lambda x: (run(n, x) ** 2).sum(), x)[0].sum(), x_gpu)[0]  # noqa: B023
        assert second.shape == x.shape


# -- state and gradients -----------------------------------------------------------------------------


def char_rnn() -> Any:
    return Chain(LSTM(10 | to | 15), Dense(15 | to | 5))


def test_any_number_of_gradients_without_reset() -> None:
    m = char_rnn()
    x = torch.randn(10, 3)
    sizes, alive = [], []

    def loss(m: Any) -> Any:
        hidden = m[0](x)
        total = (m[1](hidden) ** 2).sum()
        sizes.append(graph_size(total))
        alive.append(weakref.ref(hidden))
        return total

    counts = []
    before = values(m[0].state)
    for i in range(30):
        gradient(loss, m)
        assert is_constant(m[0].state)
        if i in (3, 29):
            gc.collect()
            counts.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
    assert not torch.equal(values(m[0].state)[0], before[0])
    assert len(set(sizes[1:])) == 1
    assert counts[1] <= counts[0]  # what earlier tests left may go
    assert all(ref() is None for ref in alive)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole", [False, True])
def test_state_goes_on_but_its_history_does_not(kind: Any, whole: bool) -> None:
    m = randomised(kind(2 | to | 3))
    xs = torch.randn(3, 2, 4, 2)

    def run(m: Any, x: torch.Tensor) -> Any:
        return m(x) if whole else [m(v) for v in x.unbind(2)][-1]

    n = copy.deepcopy(m)
    for x in xs:
        mine = gradient(lambda m: (run(m, x) ** 2).sum(), m)[0]  # noqa: B023
        # The same by hand: the state found is a constant from the second time on.
        its = gradient(lambda m: (run(m, x) ** 2).sum(), n)[0]  # noqa: B023
        after = fmap(lambda v: v.detach() if isinstance(v, torch.Tensor) else v, n.state)
        close(mine, its)
        close(m.state, after)
        n.state = after


def forms() -> list[tuple[str, Callable[[Any, Any], Any]]]:
    return [
        ("gradient", lambda f, m: gradient(f, m)),
        ("withgradient", lambda f, m: withgradient(f, m)),
        ("implicit gradient", lambda f, m: gradient(lambda: f(m), params(m))),
        ("implicit withgradient", lambda f, m: withgradient(lambda: f(m), params(m))),
        ("pullback", lambda f, m: [(lambda back: (back(1.0), back(2.0)))(pullback(f, m)[1])]),
        (
            "implicit pullback",
            lambda f, m: [(lambda back: (back(1.0), back(2.0)))(pullback(lambda: f(m), params(m))[1])],
        ),
        ("nested", lambda f, m: gradient(lambda c: c * tensors(gradient(lambda m: c * f(m), m)[0])[0].sum(), 2.0)),
        ("jacobian", lambda f, m: jacobian(lambda x: x * f(m), torch.ones(2))),
        ("hessian", lambda f, m: hessian(lambda x: (x**2).sum() * f(m), torch.ones(2))),
        ("Tracker", lambda f, m: Tracker.gradient(lambda: f(m), params(m))),
        ("by the input", lambda f, m: gradient(lambda x: f(m) * x.sum(), torch.ones(2))),
    ]


@pytest.mark.parametrize("form", [f for _, f in forms()], ids=[name for name, _ in forms()])
def test_no_second_time_through_a_graph(form: Any) -> None:
    m = char_rnn()
    x = torch.randn(10, 3)
    x3 = torch.randn(10, 3, 4)
    for _ in range(3):
        form(lambda m: (m(x) ** 2).sum() + (m(x3) ** 2).sum(), m)
        assert is_constant(m[0].state)
    gradient(lambda m: (m(x) ** 2).sum(), m)


def test_different_forms_in_turn() -> None:
    m = char_rnn()
    x = torch.randn(10, 3)
    backs = []
    for _ in range(2):
        for _, form in forms():
            form(lambda m: (m(x) ** 2).sum(), m)
            backs.append(pullback(lambda m: (m(x) ** 2).sum(), m)[1])
    first = [values(back(1.0)) for back in backs]
    again = [values(back(1.0)) for back in reversed(backs)][::-1]
    for one, other in zip(first, again, strict=True):
        torch.testing.assert_close(one, other)


def test_state_of_an_outer_gradient_stays_part_of_it() -> None:
    m = Recur(lambda h, x: (h * x, h * x), 1.0)

    def outer(x: Any) -> Any:
        a = m(x)  # x
        b = gradient(lambda y: m(y), x)[0]  # d(x * y)/dy = x
        return a * b + m(x)  # x^2 + x^3

    assert gradient(outer, 3.0) == (2 * 3 + 3 * 9,)
    assert m.state == 27.0 and type(m.state) is float


def test_state_from_outside_is_a_constant_inside() -> None:
    m = randomised(RNN(2 | to | 3))
    x = torch.randn(2)
    y = m(x)
    assert y.requires_grad and not is_constant(m.state)
    held = m.state
    h = m.state.detach()
    grad = gradient(lambda m: m(x).sum(), m)[0].cell
    assert grad.state0 is None
    fixed = m.cell.Wi @ x[:, None] + m.cell.b[:, None]
    by_hand = gradient(lambda Wh: torch.tanh(fixed + Wh @ h).sum(), m.cell.Wh.detach())[0]
    torch.testing.assert_close(grad.Wh, by_hand)
    # What was computed outside before keeps its own graph.
    held.sum().backward()
    y.sum().detach()


def test_reading_a_state_inside_finds_a_constant() -> None:
    m, n = randomised(RNN(2 | to | 3)), randomised(RNN(2 | to | 3))
    x = torch.randn(2)
    m(x)

    def loss(m: Any) -> Any:
        n.state = m.state
        return n(x).sum() + m.state.sum()

    assert gradient(loss, m) == (None,)
    assert gradient(loss, m) == (None,)


@pytest.mark.parametrize("kind", KINDS)
def test_state_handed_over_inside_carries_gradients(kind: Any) -> None:
    encoder, decoder = randomised(kind(2 | to | 3)), randomised(kind(2 | to | 3))
    x, y = torch.randn(2, 4, 3), torch.randn(2, 4, 3)

    def loss(encoder: Any) -> Any:
        reset_((encoder, decoder))
        encoder(x)
        decoder.state = encoder.state
        return (decoder(y) ** 2).sum()

    for _ in range(2):
        grad = gradient(loss, encoder)[0].cell
        assert is_constant(decoder.state) and is_constant(encoder.state)
    p = encoder.cell.Wi
    eps = torch.zeros_like(p)
    eps[1, 1] = 1e-2
    with torch.no_grad():
        p += eps
        up = loss(encoder)
        p -= 2 * eps
        down = loss(encoder)
        p += eps
    torch.testing.assert_close(grad.Wi[1, 1], (up - down) / 2e-2, rtol=2e-2, atol=1e-3)


def test_layers_made_of_arguments() -> None:
    Wi, Wh, b = torch.randn(3, 2), torch.randn(3, 3), torch.randn(3)
    x = torch.randn(2)

    def loss(h0: torch.Tensor, scale: float) -> Any:
        m = Recur(RNNCell(torch.tanh, Wi, Wh * scale, b, h0 * scale))
        made.append(m)
        n = Recur(lambda h, x: (h * x, h * x), h0 * 2)
        made.append(n)
        return m(x).sum() + n(1.5).sum()

    made: list[Any] = []
    h0 = torch.randn(3, 1)
    dh0, dscale = gradient(loss, h0, 2.0)
    z = torch.tanh(Wi @ x[:, None] + 4 * Wh @ h0 + b[:, None])
    torch.testing.assert_close(dh0, 4 * Wh.t() @ (1 - z**2) + 3)
    assert dscale == pytest.approx(((1 - z**2) * (4 * Wh @ h0)).sum().item(), rel=1e-4)
    assert is_constant(made[1].state)
    reset_(made[1])
    assert is_constant(made[1].state)
    torch.testing.assert_close(made[1].state, 2 * h0)


def test_after_an_error_nothing_hangs_on() -> None:
    m = Chain(Dropout(0.5), char_rnn())
    W = torch.ones(1)
    x = torch.randn(10, 3)

    def broken(m: Any, W: Any) -> Any:
        m(x)
        m(W * x)
        raise RuntimeError("halfway")

    attempts: list[Callable[[], Any]] = [
        lambda: gradient(broken, m, W),
        lambda: gradient(lambda: broken(m, W), Params([W, *params(m)])),
    ]
    for attempt in attempts:
        with pytest.raises(RuntimeError, match="halfway"):
            attempt()
        assert is_constant(m[1][0].state)
        assert not W.requires_grad and not within_gradient()
        torch.testing.assert_close(m[0](x), x)
        gradient(lambda m: m(x).sum(), m)
    with pytest.raises(DimensionMismatch):
        gradient(lambda m: m(x).sum() + m(x[:, :2]).sum(), m)
    assert is_constant(m[1][0].state)
    gradient(lambda m: m(x).sum(), m)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_input_changes_no_state(kind: Any) -> None:
    m = kind(2 | to | 3)
    with pytest.raises(DimensionMismatch):
        m(torch.randn(3, 4))
    assert starts_fresh(m)
    m(torch.randn(2, 4))
    before = values(m.state)
    for bad in (torch.randn(3, 4), torch.randn(2, 5), torch.randn(2, 5, 3), torch.randn(3, 4, 3), torch.randn(2, 4, 0)):
        with pytest.raises(DimensionMismatch):
            m(bad)
        torch.testing.assert_close(values(m.state), before, rtol=0, atol=0)


def test_an_error_midway_in_an_array_leaves_the_state() -> None:
    def cell(h: Any, x: Any) -> Any:
        if x.sum() > 2:
            raise ValueError("too much")
        return h + x, x

    m = Recur(cell, torch.zeros(1, 1))
    with pytest.raises(ValueError, match="too much"):
        m([[[1.0, 2.0, 3.0]]])
    assert m.state.tolist() == [[0.0]]


def test_torch_style_outside() -> None:
    for kind in KINDS:
        for x in (torch.randn(2, 4), torch.randn(2, 4, 3)):
            m = randomised(kind(2 | to | 3))
            n = copy.deepcopy(m)
            (m(x) ** 2).sum().backward()
            grad = gradient(lambda m: (m(x) ** 2).sum(), n)[0].cell  # noqa: B023
            assert all(p.grad is not None for p in m.parameters())
            close([p.grad for p in m.parameters()], [g for g in tensors(grad) if g is not None])
            assert all(p.grad is None for p in n.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_torch_style_by_the_state_itself(kind: Any) -> None:
    m = randomised(kind(2 | to | 3))
    for x in (torch.randn(2, 4), torch.randn(2), torch.randn(2, 4, 3)):
        reset_(m)
        m(x)
        before = tensors(m.state)
        assert all(a is b for a, b in zip(before, tensors(m.state), strict=True))
        found = torch.autograd.grad(m(x).sum() + sum(s.sum() for s in tensors(m.state)), before)
        assert all(g.abs().sum() > 0 for g in found)


def test_torch_style_goes_on_after_truncation() -> None:
    m = randomised(LSTM(2 | to | 3))
    optimiser = torch.optim.SGD(m.parameters(), 0.1)
    for _ in range(3):
        optimiser.zero_grad()
        (m(torch.randn(2, 4)) ** 2).sum().backward()
        optimiser.step()
        before = values(m.state)
        assert not is_constant(m.state)
        truncate_(m)
        assert is_constant(m.state)
        torch.testing.assert_close(values(m.state), before, rtol=0, atol=0)


def test_truncation_as_in_flux_0_8() -> None:
    m = Chain(RNN(1, 2), Dense(2, 1))
    randomised(m)
    for t in range(3):
        Tracker.back_((m([1.0]) ** 2).sum())
        for p in params(m):
            if t == 0 or p is not m[0].cell.state0:
                assert Tracker.grad(p).abs().sum() > 0
            Tracker.update_(p, -0.01 * Tracker.grad(p))
        truncate_(m)
    # Of a fresh state too: it is data from then on, until reset_.
    reset_(m)
    truncate_(m)
    assert is_constant(m[0].state)
    assert gradient(lambda m: m([1.0]).sum(), m)[0].layers[0].cell.state0 is None
    reset_(m)
    assert gradient(lambda m: m([1.0]).sum(), m)[0].layers[0].cell.state0 is not None


def test_truncation_inside_a_gradient() -> None:
    m = Recur(lambda h, x: (h * x, h * x), 1.0)

    def loss(x: Any) -> Any:
        m(x)
        truncate_(m)
        return m(x)

    assert gradient(loss, 3.0) == (3.0,)
    assert m.state == 9.0


# -- evaluation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["testmode_", "eval", "no_grad", "inference_mode"])
def test_evaluation_keeps_no_history(kind: Any, how: str) -> None:
    m = Chain(kind(2 | to | 3), Dense(3 | to | 1))
    x = torch.randn(2, 4)
    m(x)
    if how == "testmode_":
        testmode_(m)
    elif how == "eval":
        m.eval()
    context = {"no_grad": torch.no_grad, "inference_mode": torch.inference_mode}.get(how, torch.enable_grad)
    with context():
        for _ in range(3):
            m(x)
            assert is_constant(m[0].state)
        m(torch.randn(2, 4, 3))
        assert is_constant(m[0].state)
    trainmode_(m)
    m(x).sum().backward()  # on from that state
    m[0].state = fmap(lambda v: v.detach(), m[0].state)
    gradient(lambda m: m(x).sum(), m)
    assert is_constant(m[0].state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(2, 4), (2, 4, 3)])
def test_state_of_inference_mode_can_be_trained_on(kind: Any, size: Any) -> None:
    m, x = kind(2 | to | 3), torch.randn(size)

    def loss(m: Any) -> Any:
        return m(x).sum()

    with torch.inference_mode():
        m(x)
    copied = copy.deepcopy(m)
    gradient(loss, m)
    with torch.inference_mode():
        m(x)
        gradient(loss, m)
        m(x)
    m(x).sum().backward()
    gradient(loss, copied)
    with torch.inference_mode():
        m(x)
    truncate_(m)
    loss(m).backward()


@pytest.mark.parametrize("kind", KINDS)
def test_test_mode_changes_no_gradient(kind: Any) -> None:
    m = randomised(kind(2 | to | 3))
    x = torch.randn(2, 4, 5)

    def steps(m: Any, x: torch.Tensor) -> Any:
        return [m(v) for v in x.unbind(2)][-1].sum()

    expected = gradient(steps, m, x)
    testmode_(m)
    for loss in (steps, lambda m, x: m(x)[:, :, -1].sum()):
        reset_(m)
        found = gradient(loss, m, x)
        close(found, expected)
        assert is_constant(m.state)
    # In torch's style, one call on a whole array has all of its own history, as nn.LSTM has.
    reset_(m)
    leaf = x.clone().requires_grad_()
    m(leaf)[:, :, -1].sum().backward()
    torch.testing.assert_close(leaf.grad, expected[1])


def test_modes_reach_every_recurrent_layer() -> None:
    m = nested_model()
    recurs = [x for x in m.modules() if isinstance(x, Recur)]
    testmode_(m)
    assert not any(r.training for r in recurs)
    testmode_(m, "auto")
    assert all(r.training for r in recurs)


def test_long_history_is_said_once() -> None:
    m = Chain(RNN(1 | to | 1), Dense(1 | to | 1))
    x = torch.ones(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(999):
            m(x)
        assert not caught
        for _ in range(1500):
            m(x)
        reset_(m)
        m(torch.ones(1, 1, 1200))
    assert len(caught) == 1
    message = str(caught[0].message)
    assert all(
        name in message for name in ("Recur(RNNCell(1 => 1, tanh))", "truncate_", "testmode_", "no_grad", "1000")
    )


def test_whole_arrays_count_by_their_times() -> None:
    m = GRU(1 | to | 1)
    m(torch.ones(1, 1, 999))
    with pytest.warns(UserWarning, match="truncate_"):
        m(torch.ones(1, 1))


def test_no_warning_where_history_stays_short() -> None:
    m = RNN(1 | to | 1)
    x, x3 = torch.ones(1), torch.ones(1, 1, 600)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with torch.no_grad():
            m(x3), m(x3)
        testmode_(m)
        m(x3), m(x3)
        trainmode_(m)
        for forget in (reset_, truncate_, reset_):
            m(x3), m(x)
            forget(m)
        for _ in range(3):
            gradient(lambda m: m(x3).sum(), m)
            m(x3)
        reset_(m)
        m(x3)
        gradient(lambda m: m(x).sum(), m)
        m(x3)
        Recur(accum, 0.0)(torch.ones(1, 1, 2000))


# -- the first state ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_first_state_is_a_parameter_and_that_very_tensor(kind: Any) -> None:
    m = kind(2 | to | 3)
    assert starts_fresh(m)
    assert all(s in params(m) for s in first_states(m))
    m(torch.randn(2))
    assert not starts_fresh(m)
    reset_(m)
    assert starts_fresh(m)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("size", [(2,), (2, 4), (2, 4, 3)])
def test_gradient_by_the_first_state(kind: Any, inside: bool, size: Any) -> None:
    m = randomised(f64(kind(2 | to | 3)))
    x, weight = rand(*size), rand(3, *size[1:])

    def loss(m: Any) -> Any:
        if inside:
            reset_(m)
        return (weight * m(x)).sum() + sum((s**2).sum() for s in tensors(m.state))

    if inside:
        m(x)
    explicit = tensors(gradient(loss, m)[0].cell.state0)
    reset_(m)
    if inside:
        m(x)
    gs = gradient(lambda: loss(m), params(m))
    for s, g in zip(first_states(m), explicit, strict=True):
        torch.testing.assert_close(gs[s], g)
        for i in range(3):
            vals = []
            for eps in (1e-6, -1e-6):
                step = torch.zeros_like(s).index_fill_(0, torch.tensor(i), eps)
                s += step
                reset_(m)
                with torch.no_grad():
                    vals.append(loss(m))
                s -= step
            torch.testing.assert_close(g[i, 0], (vals[0] - vals[1]) / 2e-6, rtol=1e-5, atol=1e-7)


def test_first_state_is_trained() -> None:
    m = randomised(RNN(1 | to | 1))
    reset_(m)
    before = m.cell.state0.item()
    grad = gradient(lambda m: m([1.0]).sum(), m)[0]
    m.cell.state0 -= 0.1 * grad.cell.state0
    assert m.cell.state0.item() != before
    assert reset_(m).item() == m.cell.state0.item()


def test_first_state_that_is_replaced() -> None:
    m = RNN(2 | to | 3)
    new = torch.ones(3, 1)
    m.load_state_dict({**m.state_dict(), "cell.state0": new}, assign=True)
    assert starts_fresh(m) and m.state.tolist() == [[1.0]] * 3
    m.cell.state0 = torch.full((3, 1), 2.0)
    assert starts_fresh(m) and m.state.tolist() == [[2.0]] * 3


@pytest.mark.parametrize("kind", KINDS)
def test_first_state_as_a_vector_or_for_a_batch(kind: Any) -> None:
    m = kind(2 | to | 3, init_state=lambda n, _: torch.zeros(n))
    assert m(torch.ones(2)).shape == (3,)
    state, y = m.cell(m.cell.state0, torch.ones(2))
    assert y.shape == (3,) and all(s.shape == (3,) for s in tensors(state))
    assert m(torch.ones(2, 4)).shape == (3, 4)
    reset_(m)
    assert m(torch.ones(2, 4, 2)).shape == (3, 4, 2)
    assert gradient(lambda m: (reset_(m), m(torch.ones(2)).sum())[1], m)[0].cell.Wi.shape == m.cell.Wi.shape
    m = kind(2 | to | 3, init_state=lambda n, _: torch.zeros(n, 4))
    assert m(torch.ones(2, 4)).shape == (3, 4)


# -- copies ------------------------------------------------------------------------------------------


def pickled(m: Any) -> Any:
    return pickle.loads(pickle.dumps(m))


def saved(m: Any) -> Any:
    file = io.BytesIO()
    torch.save(m, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [
    copy.deepcopy,
    pickled,
    saved,
    lambda m: copy.deepcopy(m).to(torch.float64),
    f64,
    lambda m: fmap(lambda v: v.detach().clone() if isinstance(v, torch.Tensor) else v, m),
]


@pytest.mark.parametrize("copied", COPIES, ids=["deepcopy", "pickle", "save", "to", "f64", "fmap"])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_are_whole_and_apart(kind: Any, copied: Any) -> None:
    m = randomised(kind(2 | to | 3))
    x = torch.randn(2, 4)
    fresh = copied(m)
    dtype = fresh.cell.Wi.dtype
    assert starts_fresh(fresh) and fresh.cell.state0 is not m.cell.state0
    assert isinstance(first_states(fresh)[0], nn.Parameter)
    close(fresh.state, m.state, check_dtype=False)
    y = m(x).detach()
    torch.testing.assert_close(fresh(x.to(dtype)).detach(), y, check_dtype=False, check_stride=False)
    assert not is_constant(m.state)  # outside, with a history
    later = copied(m)
    state = values(m.state)
    close(later.state, state, check_dtype=False)
    assert all(s.dtype == dtype for s in tensors(later.state))
    later(x.to(dtype))
    gradient(lambda m: m(x.to(dtype)).sum(), later)
    torch.testing.assert_close(values(m.state), state, rtol=0, atol=0)
    for p in later.parameters():
        p[...] = 0
    assert all(p.abs().sum() > 0 for p in m.parameters())
    reset_(later)
    assert starts_fresh(later) and all(s.abs().sum() == 0 for s in first_states(later))
    m.cell.state0  # noqa: B018
    m(x).sum().backward()


@pytest.mark.parametrize("kind", KINDS)
def test_module_conversions_in_place(kind: Any) -> None:
    for overwrite in (False, True):
        torch.__future__.set_overwrite_module_params_on_conversion(overwrite)
        try:
            m = kind(2 | to | 3)
            both = Chain(m, Recur(m.cell))
            both.to(torch.float64)
            assert starts_fresh(both[0]) and starts_fresh(both[1])
            assert all(p.dtype == torch.float64 for p in both.parameters())
            m(rand(2, 4))
            both.float()
            assert starts_fresh(both[1])
            assert all(s.dtype == torch.float32 and s.shape == (3, 4) for s in tensors(m.state))
            gradient(lambda m: m(torch.randn(2, 4)).sum(), m)
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)


@pytest.mark.parametrize("kind", KINDS)
def test_state_dict_has_the_parameters_only(kind: Any) -> None:
    m, n = randomised(kind(2 | to | 3)), kind(2 | to | 3)
    keys = set(m.state_dict())
    m(torch.randn(2, 4))
    assert set(m.state_dict()) == keys and all(k.startswith("cell.") for k in keys)
    assert len(keys) == len(list(m.parameters())) == len(params(m))
    n.load_state_dict(m.state_dict())
    assert starts_fresh(n)
    reset_(m)
    x = torch.randn(2, 4)
    torch.testing.assert_close(n(x), m(x))


def test_cpu_shares_what_is_there() -> None:
    m = RNN(2 | to | 3)
    n = cpu(m)
    assert starts_fresh(n) and n.cell.Wi is m.cell.Wi


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision(kind: Any) -> None:
    m = f16(kind(2 | to | 3))
    assert starts_fresh(m)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert m(torch.randn(2, 4)).dtype == torch.float16
        reset_(m)
        assert m(torch.randn(2, 4, 3)).dtype == torch.float16


def test_state_of_a_function_follows_its_model() -> None:
    moves: list[Callable[[Any], Any]] = [lambda m: m.to(torch.float64), f64]
    for move in moves:
        m = Recur(lambda h, x: (h + x, h), torch.zeros(2))
        m = move(m)
        assert m.state.dtype == torch.float64
        m(torch.ones(2, dtype=torch.float64))
        assert reset_(m).dtype == torch.float64
        m = Recur(lambda h, x: (h + x, h), torch.zeros(2))
        m(torch.ones(2))
        m = move(m)
        assert m.state.dtype == torch.float64 and m.state.tolist() == [1, 1]
        assert reset_(m).dtype == torch.float64 and m.state.tolist() == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_two_models_of_one_cell(kind: Any) -> None:
    m = randomised(kind(2 | to | 3))
    a, b = Recur(m.cell), Recur(m.cell)
    x = torch.randn(2)
    a(x)
    assert starts_fresh(b)
    torch.testing.assert_close(b(x), copy.deepcopy(m)(x))
    reset_(a)
    assert not starts_fresh(b)
    both = (a, b)
    assert len(params(both)) == len(params(m))
    reset_(both)
    grads = gradient(lambda ms: ms[0](x).sum() + 2 * ms[1](x).sum(), both)[0]
    single = gradient(lambda m: m(x).sum(), copy.deepcopy(m))[0]
    assert grads[1] is None  # tied: the whole gradient stands at the first place
    torch.testing.assert_close(grads[0].cell.Wi, 3 * single.cell.Wi)
    tied = copy.deepcopy(Chain(a, b))
    assert tied[0].cell is tied[1].cell and tied[0].cell is not m.cell


# -- any function as a cell --------------------------------------------------------------------------


def test_numbers_in_gradients() -> None:
    m = Recur(accum, 0)
    assert gradient(lambda x: m(x) * m.state, 3.0) == (6.0,)
    assert m.state == 3.0 and type(m.state) is float
    m = Recur(lambda h, x: (x, h * x), 2)
    assert gradient(lambda x: m(x), 3) == (2.0,)
    assert m.state == 3 and type(m.state) is int
    assert gradient(lambda x: m(x), 5.0) == (3.0,)
    m = Recur(lambda h, x: (x, x.sum()), torch.zeros(2))
    x = torch.ones(2)
    gradient(lambda x: m(x), x)
    assert is_constant(m.state)
    m = Recur(accum, torch.zeros(1, 1, dtype=torch.int64))
    assert gradient(lambda x: (m(x) ** 2).sum(), [[[1, 2, 3]]])[0].tolist() == [[[2.0, 4.0, 6.0]]]
    assert m.state.tolist() == [[6]] and is_constant(m.state)


def test_several_inputs() -> None:
    m = Recur(lambda h, x, y: (h + x * y, h), 1)
    assert (m(2, 3), m(4, 5), m.state) == (1, 7, 27)
    m = Recur(lambda h, x, y: (h + x * y, h), torch.zeros(2))
    m([1.0, 2.0], [3.0, 4.0])
    assert m.state.tolist() == [3, 8]
    x3 = torch.ones(1, 2, 3)
    m = Recur(lambda h, x, y: (h + 1, x + y), 0)
    assert m(x3, x3).shape == x3.shape and m.state == 1  # only a single array is gone through


def test_a_closure_is_trained() -> None:
    def make() -> Any:
        W, V, h0 = torch.randn(3, 2), torch.randn(3, 3), torch.zeros(3)

        def cell(h: Any, x: Any) -> Any:
            h = torch.tanh(W @ x + V @ h)
            return h, h

        return Recur(cell, h0), W, V

    m, W, V = make()
    model = Chain(m, Dense(3 | to | 1))
    xs = torch.randn(4, 2)
    assert W in params(model) and V in params(model)

    def loss(model: Any) -> Any:
        return sum((model(x) ** 2).sum() for x in xs)

    grad = gradient(loss, model)[0].layers[0].cell
    reset_(model)
    gs = gradient(lambda: loss(model), params(model))
    torch.testing.assert_close(grad.W, gs[W])
    torch.testing.assert_close(grad.V, gs[V])
    assert not W.requires_grad and is_constant(m.state)

    def by_hand(W: Any, V: Any) -> Any:
        h, total = torch.zeros(3), 0
        for x in xs:
            h = torch.tanh(W @ x + V @ h)
            total = total + (model[1](h) ** 2).sum()
        return total

    for mine, its in zip((grad.W, grad.V), gradient(by_hand, W, V), strict=True):
        torch.testing.assert_close(mine, its)


def test_a_layer_as_a_cell() -> None:
    class MyCell(Layer):
        W: Any
        state0: Any

        def __call__(self, h: Any, x: Any) -> Any:
            (a, b), c = h
            a = torch.tanh(self.W @ x + a)
            return ((a, b + a), [c[0] + 1]), a

    cell = MyCell(torch.randn(2, 2), ((torch.randn(2), torch.zeros(2)), [torch.zeros(1)]))
    m = Recur(cell)
    x = torch.randn(2)

    def is_first(m: Any) -> bool:
        return all(a is b for a, b in zip(tensors(m.state), tensors(m.cell.state0), strict=True))

    assert is_first(m) and len(params(m)) == 4
    grad = gradient(lambda m: (m(x), m(x))[1].sum(), m)[0].cell
    assert grad.state0[0][0].abs().sum() > 0
    assert is_constant(m.state) and not is_first(m)
    assert not list(m.buffers())
    assert m.state[1][0].item() == 2
    for move in (copy.deepcopy, f64, lambda m: m.to(torch.float64)):
        n = move(m)
        n(x.to(n.cell.W.dtype))
        assert n.state[1][0].item() == 3 or n is m
        reset_(n)
        assert is_first(n)
    x = x.double()
    gradient(lambda m: m(x).sum(), m)
    m(x)
    copy.deepcopy(m)


@pytest.mark.parametrize("wrap", [lambda v: [v], lambda v: {"h": v}, lambda v: nt(h=v)])
def test_a_state_of_any_structure(wrap: Any) -> None:
    W = torch.ones(2, requires_grad=True)

    def cell(h: Any, x: Any) -> Any:
        (v,) = tensors(h)
        return wrap(W * v + x), v

    m = Recur(cell, wrap(torch.zeros(2)))
    model = Chain(m)
    x = torch.ones(2)
    for _ in range(2):
        model(x)
    assert tensors(m.state)[0].tolist() == [2, 2] and not is_constant(m.state)
    assert params(model) == Params([W]) and not model.state_dict()
    copied = copy.deepcopy(model)
    assert is_constant(copied[0].state) and tensors(copied[0].state)[0].tolist() == [2, 2]
    for _ in range(2):
        assert gradient(lambda m: (m(x), m(x))[1].sum(), model)[0] is not None
        assert is_constant(m.state)
    model(x)
    truncate_(model)
    assert is_constant(m.state)
    reset_(model)
    assert tensors(m.state)[0].tolist() == [0, 0]
    with pytest.warns(UserWarning, match="1000 steps"):
        for _ in range(1000):
            model(x)


def test_a_class_with_its_own_reset() -> None:
    @layer
    class Counter:
        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, x: Any) -> Any:
            self.n += 1
            return x

        def reset_(self) -> None:
            self.n = 0

        def truncate_(self) -> None:
            self.n = -1

    m = Chain(Counter(0), RNN(1 | to | 1))
    m([1.0])
    assert m[0].n == 1
    truncate_(m)
    assert m[0].n == -1
    reset_(m)
    assert m[0].n == 0 and starts_fresh(m[1])


def nested_model() -> Any:
    def make() -> Any:
        inner = RNN(3 | to | 3)
        return lambda x: inner(x) + 1

    return Chain(
        LSTM(2 | to | 3),
        Maxout(GRU(3 | to | 3), GRUv3(3 | to | 3)),
        make(),
        Dense(3 | to | 3) @ RNN(3 | to | 3),
        RNN(3 | to | 1),
    )


def test_every_recurrent_layer_in_a_model_is_reached() -> None:
    m = nested_model()
    recurs = [x for x in fcollect(m) if isinstance(x, Recur)]
    assert len(recurs) == 6
    x = torch.randn(2, 4)
    y = m(x)
    m(x)
    assert not any(is_constant(r.state) for r in recurs)
    truncate_(m)
    assert all(is_constant(r.state) for r in recurs)
    assert reset_(m) is None
    assert all(starts_fresh(r) for r in recurs)
    torch.testing.assert_close(m(x), y)
    reset_(nt(a=[m], b=None))
    assert all(starts_fresh(r) for r in recurs)
    testmode_(m)
    m(x)
    assert all(is_constant(r.state) for r in recurs)
    trainmode_(m)
    for _ in range(3):
        gradient(lambda m: m(x).sum(), m)


def test_stacked_and_shared_layers() -> None:
    r = RNN(2 | to | 2)
    m = Chain(r, r)
    m(torch.ones(2))
    assert len(params(m)) == 4
    reset_(m)
    assert starts_fresh(r)
    for _ in range(2):
        gradient(lambda m: m(torch.ones(2)).sum(), m)


# -- element types -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(2,), (2, 4), (2, 4, 3)])
def test_a_state_of_another_element_type_is_promoted(kind: Any, size: Any) -> None:
    m = randomised(kind(2 | to | 3))
    x = torch.randn(size)
    start = fmap(lambda v: v.detach().double() + 0.25, m.cell.state0)
    exact = f64(m)
    m.state, exact.state = start, start
    y = m(x)
    assert y.dtype == torch.float64 and all(s.dtype == torch.float64 for s in tensors(m.state))
    torch.testing.assert_close(y, exact(x.double()), rtol=1e-6, atol=1e-6, check_stride=False)
    m.state = start
    grad = gradient(lambda m: m(x).sum(), m)[0].cell
    assert grad.Wi.dtype == torch.float32 and grad.Wi.abs().sum() > 0
    assert is_constant(m.state)


def test_the_input_is_converted_to_the_element_type_of_the_first_state() -> None:
    c = RNNCell(identity, torch.ones(1, 1), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1, dtype=torch.float64))
    third = torch.tensor([[1 / 3]], dtype=torch.float64)
    h, y = c(c.state0, third)
    assert h.dtype == y.dtype == torch.float64
    assert y.item() == 1 / 3
    h, y = RNN(1 | to | 1).cell(torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1, dtype=torch.int64))
    assert y.dtype == torch.float32


def test_one_weight_of_another_element_type() -> None:
    for kind in KINDS:
        for name in ("Wi", "Wh", "b", *(["Wh_h̃"] if kind is GRUv3 else [])):
            m = randomised(kind(2 | to | 3))
            exact = f64(m)
            setattr(m.cell, name, getattr(exact.cell, name).detach().clone())
            x = torch.randn(2, 4)
            y = m(x)
            assert y.dtype == torch.float64
            torch.testing.assert_close(y, exact(x.double()), rtol=1e-5, atol=1e-6, check_stride=False)


def test_half_of_a_pair_may_differ() -> None:
    c = LSTM(2 | to | 3).cell
    (_, k), y = c((torch.zeros(3, 1), torch.ones(3, 1, dtype=torch.float64)), torch.ones(2))
    assert k.dtype == torch.float64 and y.shape == (3,)


def test_lists_and_numpy_arrays_are_arrays() -> None:
    np = pytest.importorskip("numpy")
    m = RNN(2 | to | 3)
    a = m([1.0, 2.0])
    reset_(m)
    b = m(np.array([1.0, 2.0], dtype=np.float32))
    torch.testing.assert_close(a, b)
    m.state = [[0.0], [0.0], [0.0]]
    torch.testing.assert_close(m([1, 2]), a)
    h, y = m.cell([0.0, 0.0, 0.0], [1.0, 2.0])
    assert h.shape == y.shape == (3,)


def test_autocast() -> None:
    for kind in KINDS:
        for x in (torch.randn(2, 4), torch.randn(2, 4, 3)):
            m = randomised(kind(2 | to | 3))
            y = m(x)
            reset_(m)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                low = m(x)
                m(x)
            torch.testing.assert_close(low.float(), y, atol=0.05, rtol=0.05, check_stride=False)
            gradient(lambda m: m(x).sum(), m)  # noqa: B023


# -- misuse ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_batch_is_an_error(kind: Any) -> None:
    m = kind(3 | to | 5)
    m(torch.randn(3))
    m(torch.randn(3, 10))  # a state for one serves a batch
    for size in ((3,), (3, 1), (3, 9), (3, 11), (3, 1, 2), (3, 9, 2)):
        with pytest.raises(DimensionMismatch, match=r"state for a batch of 10 .*reset_"):
            m(torch.randn(size))
    reset_(m)
    m(torch.randn(3, 9, 2))
    for size in ((3, 0), (3, 0, 2)):
        reset_(m)
        assert m(torch.randn(size)).shape == (5, *size[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_sizes_are_errors_in_flux_words(kind: Any) -> None:
    m = kind(3 | to | 5)
    for size in ((4,), (4, 2), (4, 2, 2)):
        with pytest.raises(
            DimensionMismatch, match=r"layer \w+Cell\(3 => 5.*\) expects size\(input, 0\) == 3, but got"
        ):
            m(torch.randn(size))
    for x in (torch.randn(3, 2, 2, 2), torch.tensor(1.0)):
        with pytest.raises(DimensionMismatch):
            m(x)
    with pytest.raises(DimensionMismatch, match="vector or a matrix"):
        m.cell(m.state, torch.randn(3, 2, 2))
    for bad in ("text", None, 3):
        with pytest.raises(TypeError, match="expects an array"):
            m(bad)
    with pytest.raises(DimensionMismatch, match="time step"):
        m(torch.randn(3, 2, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_of_the_wrong_size_is_an_error(kind: Any) -> None:
    m = kind(3 | to | 5)
    for bad in (torch.zeros(4, 1), torch.zeros(1, 5), torch.zeros(5, 1, 1), torch.zeros(()), 0.0, None):
        m.state = (bad, bad) if kind is LSTM else bad
        for x in (torch.randn(3), torch.randn(3, 2, 2)):
            with pytest.raises(DimensionMismatch, match=r"expects a state with size\(h, 0\) == 5"):
                m(x)


def test_an_lstm_needs_a_pair() -> None:
    m = LSTM(3 | to | 5)
    for bad in (torch.zeros(5, 1), (torch.zeros(5, 1),), None):
        m.state = bad
        for x in (torch.randn(3), torch.randn(3, 2, 2)):
            with pytest.raises(TypeError, match=r"pair as its state, \(h, c\)"):
                m(x)
    with pytest.raises(DimensionMismatch, match="batch of 2"):
        m.cell((torch.zeros(5, 1), torch.zeros(5, 2)), torch.randn(3, 4))
    with pytest.raises(TypeError, match="pair"):
        LSTMCell(torch.ones(4, 1), torch.ones(4, 1), torch.ones(4), torch.ones(1, 1))


def test_a_cell_must_give_a_pair() -> None:
    for result in (1, (1, 2, 3), [1, 2], None):
        m = Recur(lambda h, x, result=result: result, 0)
        for x in (1, torch.ones(1, 1, 2)):
            with pytest.raises(TypeError, match="must give a pair"):
                m(x)
        assert m.state == 0


def test_bad_constructions() -> None:
    with pytest.raises(TypeError, match="first state"):
        Recur(accum)
    with pytest.raises(TypeError, match="first state"):
        Recur(Dense(2 | to | 2))
    with pytest.raises(TypeError, match="expects a cell"):
        Recur(3, 0)
    with pytest.raises(TypeError, match="too many"):
        Recur(accum, 0, 1)
    kind: Any
    for kind in (*KINDS, RNNCell, LSTMCell, GRUCell, GRUv3Cell):
        for bad in ((), (3,), (3.5 | to | 2,), ("a", "b"), (True | to | 2,), (2 | to | 3 | to | 4,)):
            with pytest.raises(TypeError):
                kind(*bad)
        with pytest.raises(ValueError, match="at least 0"):
            kind(-1 | to | 2)
    for kind in (LSTM, GRU, GRUv3):
        with pytest.raises(TypeError, match="too many"):
            kind(2 | to | 3, relu)
    with pytest.raises(TypeError, match="activation"):
        RNN(2 | to | 3, "relu")


@pytest.mark.parametrize(("cell", "g", "h"), [(RNNCell, 1, 1), (LSTMCell, 4, 4), (GRUCell, 3, 3), (GRUv3Cell, 3, 2)])
def test_arrays_that_do_not_fit(cell: Any, g: int, h: int) -> None:
    def make(Wi: Any = (g * 5, 3), Wh: Any = (h * 5, 5), b: Any = (g * 5,), s: Any = (5, 1), V: Any = (5, 5)) -> Any:
        arrays = [torch.zeros(v) if isinstance(v, tuple) else v for v in (Wi, Wh, b, V, s)]
        state = (arrays[4], arrays[4]) if cell is LSTMCell else arrays[4]
        before = (relu,) if cell is RNNCell else ()
        middle = (arrays[3],) if cell is GRUv3Cell else ()
        return cell(*before, *arrays[:3], *middle, state)

    assert make()(make().state0, torch.ones(3))[1].shape == (5,)
    assert make(b=(g * 5, 1))(make().state0, torch.ones(3, 2))[1].shape == (5, 2)
    wrong: list[Any] = [
        {"Wi": (g * 5 + 1, 3)},
        {"Wi": (g * 5,)},
        {"Wh": (h * 5, 4)},
        {"Wh": (5,)},
        {"b": (5 * g + 1,)},
        {"b": (5 * g, 2)},
    ]
    wrong += [{"s": (4, 1)}, {"s": ()}]
    if cell is GRUv3Cell:
        wrong += [{"V": (5, 4)}, {"V": (4, 5)}, {"V": (5,)}]
    for bad in wrong:
        with pytest.raises(DimensionMismatch, match=cell.__name__):
            make(**bad)
    with pytest.raises(TypeError, match="expects arrays"):
        make(Wh="no array")


# -- threads -----------------------------------------------------------------------------------------


def test_two_threads_take_gradients_of_two_models() -> None:
    models = [randomised(char_rnn()) for _ in range(2)]
    inputs = [torch.randn(20, 10, 3) for _ in models]

    def train(m: Any, xs: torch.Tensor, barrier: Any = None) -> list[Any]:
        found = []
        for x in xs:
            if barrier is not None:
                barrier.wait(10)
            val, (grad,) = withgradient(lambda m: (m(x) ** 2).sum() + (m(x) ** 2).sum(), m)  # noqa: B023
            assert is_constant(m[0].state)
            found.append((val, values(grad)))
        return found

    expected = [train(copy.deepcopy(m), xs) for m, xs in zip(models, inputs, strict=True)]
    barrier = threading.Barrier(2)
    results: list[Any] = [None, None]

    def work(i: int) -> None:
        results[i] = train(models[i], inputs[i], barrier)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for found, wanted in zip(results, expected, strict=True):
        assert found is not None
        for (val, grads), (val2, grads2) in zip(found, wanted, strict=True):
            torch.testing.assert_close(val, val2)
            torch.testing.assert_close(grads, grads2)


# -- torch's tools -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_hooks_on_a_cell_see_every_step(kind: Any) -> None:
    m = randomised(kind(2 | to | 3))
    x = torch.randn(2, 4, 5)
    y = m(x)
    reset_(m)
    calls: list[Any] = []
    m.cell.register_forward_hook(lambda *args: calls.append(args))
    torch.testing.assert_close(m(x), y, check_stride=False)
    assert len(calls) == 5


def test_a_subclass_of_a_cell_is_asked() -> None:
    class Doubled(LSTMCell):
        def __call__(self, hc: Any, x: Any) -> Any:
            hc, y = super().__call__(hc, x)
            return hc, 2 * y

    cell: Any = Doubled
    c = cell(2 | to | 3)
    m, n = Recur(c), Recur(LSTMCell(c.Wi, c.Wh, c.b, c.state0))
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(m(x), 2 * n(x), check_stride=False)
    assert str(m) == "Recur(Doubled(2 => 3))"


def test_output_of_an_array_has_torchs_memory_order() -> None:
    x = torch.randn(6, 4, 2).permute(2, 1, 0)
    for m in (*(kind(2 | to | 3) for kind in KINDS), Recur(accum, torch.zeros(2, 4))):
        assert m(x).permute(2, 1, 0).is_contiguous()


def test_names_of_the_first_state_before_flux_012() -> None:
    for kind in KINDS:
        r = kind(2 | to | 3)
        first = tensors(r.cell.state0)
        r(torch.ones(2))
        assert r.cell.h is first[0] and tensors(r.init)[0] is first[0]
    r = LSTM(2 | to | 3)
    assert r.cell.c is r.cell.state0[1] and r.init[1] is r.cell.c


def test_reset_and_truncate_find_what_was_replaced() -> None:
    def moved(r: Any) -> bool:
        return not torch.equal(r.state, r.cell.state0)

    m = Chain(RNN(2 | to | 3), Dense(3 | to | 2), Chain(RNN(2 | to | 2)))
    for k in range(3):
        m(torch.ones(2))
        recurs = [m[0], m[2][0]]
        assert all(map(moved, recurs))
        truncate_(m)
        assert not any(r.state.requires_grad for r in recurs)
        reset_(m)
        assert not any(map(moved, recurs))
        if k == 0:
            m[2].layers = (RNN(2 | to | 2),)  # deep below
        else:
            m.layers = (RNN(2 | to | 3), *m.layers[1:])
    hidden = RNN(2 | to | 2)
    m = Chain(RNN(2 | to | 2), lambda x: hidden(x))  # a function may come to hold anything
    m(torch.ones(2, 1))
    reset_(m)
    hidden = RNN(2 | to | 2)
    m(torch.ones(2, 1))
    assert moved(hidden) and moved(m[0])
    reset_(m)
    assert not moved(hidden) and not moved(m[0])


def test_what_reset_remembers_does_not_keep_a_model() -> None:
    m = Chain(RNN(2 | to | 3), Dense(3 | to | 2))
    reset_(m)
    gone = weakref.ref(m)
    del m
    gc.collect()
    assert gone() is None
