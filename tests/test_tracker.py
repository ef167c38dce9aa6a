"""Tracker 0.2, as Flux up to 0.9 used it: its tests, and Flux 0.8's page on it."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from fluxtorch import Chain, Dense, DomainError, Tracker, params, softmax, tanh, to, σ
from fluxtorch.base import norm, vcat
from fluxtorch.tracker import (
    Params,
    back_,
    checkpoint,
    data,
    forward,
    grad,
    gradient,
    hessian,
    hook,
    istracked,
    jacobian,
    param,
    update_,
    withgradient,
    zero_grad_,
)

t = torch.tensor


class TestDocumented:
    """Flux 0.8's manual: internals/tracker.md, models/basics.md."""

    def test_forward(self) -> None:
        assert gradient(operator.mul, 2, 3) == (3.0, 2.0)
        y, back = forward(operator.mul, 2, 3)
        assert y == 6 and back(1) == (3.0, 2.0)
        y, back = forward(operator.mul, [1, 2, 3], [4, 5, 6])
        assert y.tolist() == [4, 10, 18]
        da, db = back([1, 1, 1])
        assert da.tolist() == [4, 5, 6] and db.tolist() == [1, 2, 3]
        y, back = forward(lambda x: torch.stack([3 * x**2, 2 * x]), 5)
        assert back([1, 1]) == (32.0,)

    def test_in_place(self) -> None:
        a, b = param(2), param(3)
        c = a * b
        assert istracked(c) and c == 6
        back_(c)
        assert (grad(a), grad(b)) == (3, 2)

    def test_arrays(self) -> None:
        W, x = param([[1, 2], [3, 4]]), param([5, 6])
        y = W @ x
        assert data(y).tolist() == [17, 39] and not istracked(data(y))
        back_(y, [1, -1])
        assert W.grad.tolist() == [[5, 6], [-5, -6]] and x.grad.tolist() == [-2, -2]  # type: ignore[union-attr]

    def test_a_seed_for_all_elements(self) -> None:
        a, b = param([1, 2, 3]), param([3, 2, 1])
        c = a - b
        back_(c, 1)
        assert grad(a).tolist() == [1, 1, 1] and grad(b).tolist() == [-1, -1, -1]

    def test_basics_page(self) -> None:
        f = lambda x: 3 * x**2 + 2 * x + 1  # noqa: E731
        df = lambda x: gradient(f, x, nest=True)[0]  # noqa: E731
        d2f = lambda x: gradient(df, x, nest=True)[0]  # noqa: E731
        assert df(2) == 14.0 and d2f(2) == 6.0
        g = lambda W, b, x: W * x + b  # noqa: E731
        assert gradient(g, 2, 3, 4) == (4.0, 1.0, 2.0)
        W, b = param(2), param(3)
        f2 = lambda x: W * x + b  # noqa: E731
        grads = gradient(lambda: f2(4), Params([W, b]))
        assert grads[W] == 4 and grads[b] == 1

    def test_linear_regression(self) -> None:
        torch.manual_seed(0)
        W, b = param(torch.rand(2, 5)), param(torch.rand(2))
        x, y = torch.rand(5), torch.rand(2)
        loss = lambda: ((y - (W @ x + b)) ** 2).sum()  # noqa: E731
        before = loss().item()
        Δ = gradient(loss, Params([W, b]))[W]
        w = W
        assert update_(W, -0.1 * Δ) is w and loss().item() < before and istracked(W)


class TestTracker:
    """tracker.jl."""

    @pytest.mark.parametrize(
        ("f", "sizes"),
        [
            (lambda x, W, b: σ(W @ x + b), [(5,), (2, 5), (2,)]),
            (lambda w, x: w.T @ x, [(10, 2), (10,)]),
            (lambda w, x: w @ x.T, [(5, 5), (5, 5)]),
            (lambda x: x.sum((1, 2)), [(3, 4, 5)]),
            (lambda x: x.prod(1).prod(1), [(3, 4, 5)]),
            (lambda x: softmax(x, dims=0) * t([1.0, 2, 3])[:, None], [(3, 5)]),
            (torch.linalg.det, [(4, 4)]),
            (lambda x: torch.logdet(x @ x.T + torch.eye(4, dtype=x.dtype)), [(4, 4)]),
            (lambda x: x[1:2, 2:], [(4, 4)]),
            (lambda *x: torch.cat(x), [(5, 2), (3, 2), (8, 2)]),
            (lambda *x: torch.cat(x, 2), [(2, 5, 1), (2, 5, 3)]),
            (lambda x: x[[1, 2, 2]], [(3,)]),
            (lambda x: x.permute(2, 0, 1), [(4, 5, 6)]),
            (lambda x: x.flip(1), [(4, 5)]),
            (lambda x: x.repeat_interleave(2).repeat(3), [(5,)]),
            (torch.kron, [(5, 2), (3, 2)]),
            (torch.diag, [(3,)]),
            (lambda A, B: torch.linalg.solve(A @ A.T + torch.eye(5, dtype=A.dtype), B), [(5, 5), (5, 2)]),
            (lambda x: x.mean((0, 1)), [(2, 3, 4)]),
            (lambda x: x.amax((0, 1)), [(2, 3, 4)]),
            (lambda x: x.std(0, correction=0), [(5, 5)]),
            (torch.dot, [(5,), (5,)]),
            (norm, [(5,)]),
            (lambda x, w: F.conv2d(x, w), [(2, 3, 6, 6), (3, 3, 3, 3)]),
            (lambda x: F.max_pool2d(x, 2), [(1, 2, 6, 6)]),
        ],
    )
    def test_gradcheck(self, f: Any, sizes: list[tuple[int, ...]]) -> None:
        torch.manual_seed(1)
        xs = [torch.rand(size, dtype=torch.float64) for size in sizes]
        loss = lambda *xs: f(*xs).sin().sum()  # noqa: E731
        for x, g in zip(xs, gradient(loss, *xs), strict=True):
            d = torch.rand_like(x)
            up, down = ([x + s * 1e-6 * d if v is x else v for v in xs] for s in (1, -1))
            assert torch.allclose((loss(*up) - loss(*down)) / 2e-6, (g * d).sum(), rtol=1e-5, atol=1e-7)

    def test_equality_and_order(self) -> None:
        assert param(2) ** 2 == param(4) and param(2) ** 2 == 4 and param(2) ** 2 == 4
        assert (param([1, 2, 3]) < 2).tolist() == [True, False, False] and (param([1, 2, 3]) <= 2).tolist() == [
            True,
            True,
            False,
        ]
        assert torch.equal(param([1, 2, 3]) ** 2, param([1, 4, 9]))

    def test_tracked_wherever_one_is(self) -> None:
        assert (
            istracked(vcat(param([1, 2, 3]), 1))
            and istracked(vcat(1, param([1, 2, 3])))
            and istracked(vcat(param(1), 2))
        )
        assert not istracked(vcat(torch.rand(2))) and istracked(param([1]).reshape(1, -1))

    def test_intermediates(self) -> None:
        x = param([1])
        loss = ((x + x) ** 2).sum()
        back_(loss, once=False)
        assert grad(x).tolist() == [8]
        zero_grad_(x)
        back_(loss, once=False)
        assert grad(x).tolist() == [8]
        back_(loss)
        assert grad(x).tolist() == [16]  # it gathers
        with pytest.raises(RuntimeError):
            back_(loss)

    def test_of_itself(self) -> None:
        b = param(0.3)
        back_(b)
        assert grad(b) == 1

    def test_collect(self) -> None:
        x, y = param(2), param(3)
        xy = torch.stack([x, y])
        back_(xy[0] * xy[1])
        assert (grad(x), grad(y)) == (3, 2)
        assert gradient(lambda x, y: torch.stack([x, y]).prod(), 2, 3) == (3.0, 2.0)

    def test_hooks(self) -> None:
        x = param(2)
        back_(hook(operator.neg, x))
        assert grad(x) == -1

    def test_checkpointing(self) -> None:
        count = 0

        def mul(a: Any, b: Any) -> Any:
            nonlocal count
            count += 1
            return a * b

        assert gradient(lambda x: mul(5, x), 3)[0] == 5 and count == 1
        assert gradient(lambda x: checkpoint(mul, x, x), 3)[0] == 6 and count == 3

    def test_updates(self) -> None:
        xs = param([1, 2, 3])
        assert update_(xs, param([4, 5, 6])).tolist() == [5, 7, 9]
        x = param(3)
        update_(x, param(4))
        assert x == 7 and istracked(x) and x.is_leaf
        update_(x, 1)
        assert x == 8

    def test_params(self) -> None:
        W, x = param(torch.randn(5, 10)), torch.rand(10)
        dW = gradient(lambda W: (W @ x).sum(), W)[0]
        gs = gradient(lambda: (W @ x).sum(), Params([W]))
        assert torch.equal(gs[W], dW)


class TestOurs:
    def test_param(self) -> None:
        x = torch.ones(2)
        p = param(x)
        p.data += 1
        assert x.tolist() == [1, 1] and not x.requires_grad and p.is_leaf
        assert param(2).dtype == torch.float32 and param(t([1, 2], dtype=torch.float64)).dtype == torch.float64
        assert param(1 + 2j).is_complex()
        q = param(p)  # of a tracked one: a result, through which gradients go
        back_(q.sum())
        assert grad(p).tolist() == [1, 1]
        for bad in ("text", None, True, [1, "a"]):
            with pytest.raises(TypeError, match="param makes tracked numbers and arrays, and got"):
                param(bad)

    def test_zeros_for_what_is_not_used(self) -> None:
        g = gradient(lambda a, b, c, d: a.sum(), t([1.0]), t([[2.0, 3.0]]), 4, "s")
        assert g[1].tolist() == [[0, 0]] and g[2] == 0.0 and g[3] is None
        assert gradient(lambda a, b: a.sum(), t([1.0]), t([1j]))[1].dtype == torch.complex64
        assert gradient(lambda a, b: a.sum(), [1, 2], [3, 4])[1].tolist() == [0, 0]
        W, b = param([1.0]), param([2.0, 3.0])
        gs = gradient(lambda: W.sum(), Params([W, b]))
        assert gs[b].tolist() == [0, 0]

    def test_nest_outside(self) -> None:
        x = param(2.0)
        (g,) = gradient(lambda x: x**3, x, nest=True)
        assert istracked(g) and g == 12
        back_(g)
        assert grad(x) == 12
        assert not istracked(gradient(lambda x: x**3, x)[0]) and gradient(lambda x: x**3, 2.0, nest=True) == (12.0,)
        W = param([1.0, 2.0])
        (g,) = gradient(lambda x: (x * W).sum() ** 2, [1.0, 1.0], nest=True)
        assert g.tolist() == [6, 12]

    def test_back(self) -> None:
        back_(t(1.0))
        back_(5)
        x = param([1.0, 2.0])
        with pytest.raises(TypeError, match=r"back_ needs a seed.*2-element tensor"):
            back_(x * 2)
        with pytest.raises(ValueError, match="size of its result, 2-element tensor of float32, and got 1-element"):
            back_(x * 2, [1.0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            y = x * 2
            assert (
                grad(y).tolist() == [0, 0] and grad(x).tolist() == [0, 0] and grad(t(1.0)) is None and grad(3) is None
            )
            assert zero_grad_(y) is y

    @pytest.mark.parametrize(("f", "text"), [(torch.log, "infinite"), (torch.sqrt, "NaN")])
    def test_losses_that_are_none(self, f: Any, text: str) -> None:
        x = t(0.0 if f is torch.log else -1.0)
        for call in (
            lambda: gradient(f, x),
            lambda: gradient(lambda: f(x), Params([x])),
            lambda: back_(f(param(x))),
            lambda: gradient(f, param(x), nest=True),
        ):
            with pytest.raises(DomainError, match=text):
                call()

    def test_zero_grad_of_a_model(self) -> None:
        m = Chain(Dense(2 | to | 1, tanh), lambda x: x)
        back_(m(torch.ones(2)).sum())
        assert grad(m[0].weight).abs().sum() > 0
        assert zero_grad_(m) is m and all(grad(p).abs().sum() == 0 for p in params(m))
        back_(m(torch.ones(2)).sum())
        zero_grad_(params(m))
        assert grad(m[0].bias).item() == 0

    def test_update_errors(self) -> None:
        with pytest.raises(TypeError, match=r"numbers don't change; make it param\(3\)"):
            update_(3, 1)  # type: ignore[arg-type]
        W = param([1.0, 2.0])
        with pytest.raises(ValueError, match="2-element tensor of float32, and got 3-element"):
            update_(W, [1.0, 2.0, 3.0])
        assert update_(W, None).tolist() == [1, 2]
        back_(W.sum())
        assert grad(update_(W, [10.0, 20.0])).tolist() == [0, 0] and W.tolist() == [11, 22]

    def test_data_shares_memory(self) -> None:
        W = param([1.0])
        data(W).add_(1)
        assert W.item() == 2 and data([1]) == [1]

    def test_matrices_of_derivatives(self) -> None:
        assert jacobian(lambda x: x**2, [1.0, 2.0]).tolist() == [[2, 0], [0, 4]]
        assert hessian(lambda x: x[0] * x[1], [1.0, 2.0]).tolist() == [[0, 1], [1, 0]]
        assert withgradient(lambda x: x**2, 3.0) == Tracker.withgradient(lambda x: x**2, 3.0)
