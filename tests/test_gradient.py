"""Gradients: Zygote 0.6.73's documented examples and tests, torch's own autograd, and finite differences."""

from __future__ import annotations

import cmath
import copy
import dataclasses
import functools
import math
import operator
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from torch import nn

import fluxtorch as Flux
from fluxtorch import BatchNorm, Chain, Dense, Dropout, Layer, NamedTuple, functor, nt, params, relu, tanh, to
from fluxtorch.base import sin
from fluxtorch.functors import fleaves
from fluxtorch.zygote import (
    Params,
    checkpointed,
    diaghessian,
    dropgrad,
    gradient,
    hessian,
    hessian_reverse,
    hook,
    ignore,
    ignore_derivatives,
    jacobian,
    non_differentiable,
    pullback,
    withgradient,
    within_gradient,
    withjacobian,
)

t = torch.tensor


def same(a: Any, b: Any, tol: float = 0.0) -> bool:
    """Equal in structure and kind, tensors and floats by their values."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.shape == b.shape and torch.allclose(a.to(b.dtype), b, atol=tol, rtol=tol, equal_nan=True)
    if isinstance(a, NamedTuple) and isinstance(b, NamedTuple):
        return list(vars(a)) == list(vars(b)) and all(same(x, y, tol) for x, y in zip(a, b, strict=True))
    if isinstance(a, (tuple, list)) and type(a) is type(b):
        return len(a) == len(b) and all(same(x, y, tol) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k], tol) for k in a)
    if isinstance(a, (int, float, complex)) and isinstance(b, (int, float, complex)):
        return cmath.isclose(a, b, rel_tol=tol, abs_tol=tol)
    return type(a) is type(b) and a == b


class Struct:
    """A plain class with fields."""

    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


functor(Struct)


class TestInterface:
    """The examples in the docstrings of Zygote's interface.jl."""

    def test_pullback(self) -> None:
        y, back = pullback(lambda a, b, c: a * b * c, 2.0, 3.0, 5.0)
        assert y == 30.0 and type(y) is float
        assert back(1.0) == (15.0, 10.0, 6.0)
        assert back(2.0) == (30.0, 20.0, 12.0)
        y, back = pullback(lambda x: [x, x], 1.0)
        assert y == [1.0, 1.0]
        assert back([1.0, 1.0]) == (2.0,)
        assert back([2.0, None]) == (2.0,)
        assert back(t([1.0, 1.0])) == (2.0,)
        assert back(None) == (None,)

    def test_gradient(self) -> None:
        assert gradient(lambda a, b, c: a * b * c, 2.0, 3.0, 5.0) == (15.0, 10.0, 6.0)
        assert same(gradient(lambda x: (x**2).sum(), [7.0, 11.0, 13.0]), (t([14.0, 22.0, 26.0]),))

        def f(x: Any, y: Any, d: Any) -> Any:
            p = x.shape[d]
            return (x**p + y).sum()

        assert same(gradient(f, [7, 11], 0, 0), (t([14.0, 22.0]), 2.0, None))

    def test_withgradient(self) -> None:
        y, grad = withgradient(operator.truediv, 1, 2)
        assert (y, grad) == (0.5, (0.5, -0.25)) and grad == gradient(operator.truediv, 1, 2)

        def aux(x: Any) -> Any:
            z = 1 / x
            return z.sum(), z

        assert same(
            withgradient(aux, [1, 2, 4]), nt(val=(t(1.75), t([1.0, 0.5, 0.25])), grad=(t([-1.0, -0.25, -0.0625]),))
        )
        r = withgradient(lambda x, y: nt(div=x / y, mul=x * y), 3.0, 4.0)
        assert r == nt(val=nt(div=0.75, mul=12.0), grad=(0.25, -0.1875))

    def test_implicit(self) -> None:
        w = t([3.0])
        r = withgradient(lambda: (w**2).sum(), Params([w]))
        assert r.val == 9.0 and repr(r.grad) == "Grads(...)" and r.grad[w].tolist() == [6.0]
        x, y, z = t([[1, 2, 3], [4, 5, 6]]), t([7, 8]), t([1, 10, 100])
        g = gradient(lambda: (x * y[:, None] * z).sum(), Params([x, y]))
        assert g[x].tolist() == [[7.0, 70.0, 700.0], [8.0, 80.0, 800.0]]
        assert z not in g

    def test_index_page(self) -> None:
        assert gradient(lambda x: 3 * x**2 + 2 * x + 1, 5) == (32.0,)
        assert gradient(lambda a, b: a * b, 2, 3) == (3.0, 2.0)

        def power(x: Any, n: int) -> Any:
            r = 1
            for _ in range(n):
                r *= x
            return r

        def power2(x: Any, n: int) -> Any:
            return 1 if n <= 0 else x * power2(x, n - 1)

        assert gradient(lambda x: power(x, 3), 5) == (75.0,) == gradient(lambda x: power2(x, 3), 5)
        d: dict[str, Any] = {}

        def through_dict(x: Any) -> Any:
            d["x"] = x
            return d["x"] * d["x"]

        assert gradient(through_dict, 5) == (10.0,)

        @functor
        class Point:
            def __init__(self, x: Any, y: Any) -> None:
                self.x, self.y = x, y

            def __add__(self, other: Any) -> Any:
                return Point(self.x + other.x, self.y + other.y)

        def dist(p: Any) -> Any:
            return (p.x**2 + p.y**2) ** 0.5

        (g,) = gradient(lambda a: dist(a + Point(3, 4)), Point(1, 2))
        assert g == nt(x=0.5547001962252291, y=0.8320502943378437)

    def test_fractions(self) -> None:
        assert gradient(lambda x: 3 * x**2 + 2 * x + 1, Fraction(1, 4)) == (3.5,)

    def test_adjoints_page(self) -> None:
        y, back = pullback(sin, 0.5)
        assert math.isclose(y, 0.479425538604203) and math.isclose(back(1)[0], 0.8775825618903728)
        point = Struct(x=1.0, y=2.0)
        (g,) = gradient(lambda p: (p.x**2 + p.y**2) ** 0.5, point)
        assert same(g, nt(x=0.4472135954999579, y=0.8944271909999159), 1e-12)
        assert gradient(lambda p: p.x, point) == (nt(x=1.0, y=None),)
        seen: list[Any] = []
        assert gradient(lambda a, b: hook(lambda g: (seen.append(g), g)[1], a) * b, 2, 3) == (3.0, 2.0)
        assert seen == [3.0]
        assert math.isclose(gradient(lambda x: checkpointed(sin, x), 1)[0], 0.5403023058681398)

    def test_limitations_page(self) -> None:
        def safe_sqrt(x: Any) -> Any:
            try:
                return x**0.5
            except ValueError:
                return 0.0

        assert gradient(safe_sqrt, 4.0) == (0.25,)
        assert gradient(lambda y: torch.empty_like(y).copy_(2 * y).sum(), torch.rand(3))[0].tolist() == [2, 2, 2]

    def test_polynomial_page(self) -> None:  # Flux 0.16's page on gradients and layers
        @functor
        class Poly3:
            def __init__(self, θ3: Any) -> None:
                self.θ3 = t(θ3, dtype=torch.float64)

            def __call__(self, x: Any) -> Any:
                return sum(c * x**k for k, c in enumerate(self.θ3))

        poly1, poly2 = Poly3([10, 1, 0.1]), Poly3([1, 0.5, 0])
        assert gradient(lambda x, y, z: x * y + z, 30, 40, 50) == (40.0, 30.0, 1.0)
        dp = nt(θ3=t([1.0, 5.0, 25.0]))
        assert same(gradient(lambda x, p: p(x), 5, poly1), (2.0, dp), 1e-12)
        assert same(withgradient(lambda x, p: p(x), 5.0, poly1), nt(val=t(17.5), grad=(2.0, dp)), 1e-12)
        poly4 = Flux.compose(poly2, poly1)
        (dx, g) = gradient(lambda x, f: f(x), 5, poly4)
        assert poly4(5) == 9.75 and math.isclose(dx, 1.0)
        assert same(g, nt(outer=nt(θ3=t([1.0, 17.5, 306.25])), inner=nt(θ3=t([0.5, 2.5, 12.5]))), 1e-12)
        θ = poly1.θ3
        assert gradient(lambda: poly1(5), Params([θ]))[θ].tolist() == [1, 5, 25]

    def test_linear_of_a_dict_and_of_a_struct(self) -> None:
        W, b, x = torch.rand(2, 5), torch.rand(2), torch.rand(5)
        for θ, get in (({"W": W, "b": b}, dict), (nt(W=W, b=b), vars), (Struct(W=W, b=b), vars)):
            (g,) = gradient(lambda θ, get=get: (get(θ)["W"] @ x + get(θ)["b"]).sum(), θ)
            assert type(g) is (dict if isinstance(θ, dict) else NamedTuple)
            assert torch.equal(g["W"], x.expand(2, 5)) and g["b"].tolist() == [1.0, 1.0]


class TestJacobians:
    """grad.jl's documentation, utils.jl's tests."""

    def test_jacobian(self) -> None:
        assert same(
            jacobian(lambda a: 100 * a[:3] ** 2, list(range(1, 8)))[0],
            torch.cat([torch.diag(t([200.0, 400.0, 600.0])), torch.zeros(3, 4)], 1),
        )
        a, x = jacobian(lambda a, x: a**2 * x, [1, 2, 3], 1)
        assert same((a, x), (torch.diag(t([2.0, 4.0, 6.0])), t([1.0, 4.0, 9.0])))
        a, d = jacobian(lambda a, d: a.prod(d), [[1, 2], [3, 4], [5, 6]], 1)
        assert a.tolist() == [[2, 0, 0, 1, 0, 0], [0, 4, 0, 0, 3, 0], [0, 0, 6, 0, 0, 5]] and d.tolist() == [0, 0, 0]
        a, s = jacobian(lambda a, s: a ** len(s), [1, 2, 3], "str")
        assert a.tolist() == [[3, 0, 0], [0, 12, 0], [0, 0, 27]] and s is None
        f = lambda a, t: (a * t[0]).sum() + t[1]  # noqa: E731
        a, none = jacobian(f, [1, 2, 3], (4, 5))
        assert a.tolist() == [[4, 4, 4]] and none is None
        assert same(gradient(f, [1, 2, 3], (4, 5)), (t([4.0, 4.0, 4.0]), (6.0, 1.0)))

    def test_jacobian_tests(self) -> None:
        assert jacobian(lambda x: x, [1, 2])[0].tolist() == [[1, 0], [0, 1]]
        assert withjacobian(lambda x: x, [1, 2]).val.tolist() == [1, 2]
        a, d = jacobian(lambda a, d: a.prod(d), [[1, 2], [3, 4]], 0)
        assert a.tolist() == [[3, 1, 0, 0], [0, 0, 4, 2]] and d.tolist() == [0, 0]
        f = lambda xs: torch.stack([x**3 if x > 0 else 0 * x for x in xs])  # noqa: E731
        assert jacobian(f, [1, 2, -3, 4, -5])[0].tolist() == torch.diag(t([3.0, 12, 0, 48, 0])).tolist()
        a, y = jacobian(lambda x, y: torch.stack([x, y]), t(math.pi), math.e)
        assert a.flatten().tolist() == [1, 0] and a.shape == (2, 1) and y.tolist() == [0, 1]
        for f in (lambda x: x, torch.sum):
            with pytest.raises(TypeError, match="real array or number, and it returned"):
                jacobian(f, [1, 2, 3 + 1j])
        x, y = t([1 + 1j, 2]), 3 + 4j
        f = lambda x, y: (x * y).abs() ** 2  # noqa: E731
        g, j = gradient(lambda x, y: f(x, y)[0], x, y), jacobian(f, x, y)
        assert torch.allclose(j[0][0], g[0]) and cmath.isclose(j[1][0].item(), g[1])

    def test_column_major(self) -> None:
        x = torch.randn(2, 3, dtype=torch.float64)
        A = torch.randn(4, 2, dtype=torch.float64)
        J = jacobian(lambda x: A @ x, x)[0]
        assert torch.allclose(J, torch.kron(torch.eye(3, dtype=torch.float64), A))
        z, (J,) = withjacobian(lambda x: x.T, x)
        assert torch.equal(z, x.flatten()) and torch.equal(J @ x.T.flatten(), x.flatten())

    def test_of_params(self) -> None:
        xs, ys = t([[1, 2], [3, 4]]), t([5, 7, 9])
        z, grad = withjacobian(lambda: ys[:2] + (xs**2).sum(), Params([xs, ys]))
        assert z.tolist() == [35, 37]
        assert grad[ys].tolist() == [[1, 0, 0], [0, 1, 0]] and grad[xs].tolist() == [[2, 6, 4, 8], [2, 6, 4, 8]]
        d = Dense(2 | to | 3)
        x = torch.randn(2)
        J = jacobian(lambda: d(x), params(d))
        assert J[d.bias].tolist() == torch.eye(3).tolist() and J[d.weight].shape == (3, 6)
        assert torch.allclose(J[d.weight], torch.kron(x[None], torch.eye(3)))

    def test_unused_and_empty(self) -> None:
        a, b, m = jacobian(lambda a, b, m: 2 * a, t([1.0, 2.0]), [5.0, 6.0, 7.0], Dense(1 | to | 1))
        assert a.tolist() == [[2, 0], [0, 2]] and b.tolist() == [[0, 0, 0], [0, 0, 0]] and m is None
        assert jacobian(lambda a: a[:0], t([1.0, 2.0]))[0].shape == (0, 2)
        assert jacobian(lambda a: t([1.0, 2.0]), t([1.0]))[0].tolist() == [[0], [0]]

    def test_val_is_no_alias(self) -> None:
        x = t([1.0, 2.0])
        v = withjacobian(lambda x: x, x).val
        v += 1
        assert x.tolist() == [1.0, 2.0]

    @pytest.mark.parametrize("hess", [hessian, hessian_reverse])
    def test_hessian(self, hess: Callable[..., Any]) -> None:
        assert hess(lambda x: x[0] * x[1], torch.randn(2)).tolist() == [[0, 1], [1, 0]]
        assert hess(lambda x: (x**3).sum(), [[1, 2], [3, 4]]).tolist() == torch.diag(t([6.0, 18, 12, 24])).tolist()
        assert math.isclose(hess(sin, math.pi / 2), -1)
        assert hess(lambda x: 3 * x, 2) == 0.0
        with pytest.raises(TypeError):
            hess(sin, 1j * math.pi)
        with pytest.raises(TypeError):
            hess(lambda x: x + 1j, math.pi)
        with pytest.raises(TypeError):
            hess(lambda x: x, torch.randn(2))
        with pytest.raises(TypeError, match="real number or an array"):
            hess(lambda x: x[0], (1, 2))

    def test_inside_a_gradient(self) -> None:
        assert gradient(lambda x: hessian(lambda y: y**3, x), 0.0) == (6.0,)
        assert gradient(lambda x: diaghessian(lambda y: y**3, x)[0], 0.0) == (6.0,)
        assert gradient(lambda x: hessian(lambda y: (y**3).sum(), x).sum(), t([0.0, 1.0]))[0].tolist() == [6, 6]
        assert gradient(lambda x: jacobian(lambda y: y**3 * t([1.0, 2.0]), x)[0].sum(), 2.0) == (36.0,)
        assert gradient(lambda x: jacobian(lambda y: y**3, x)[0].sum(), t([1.0, 2.0]))[0].tolist() == [6, 12]

    def test_hessian_of_a_complex_part(self) -> None:
        def f(v: Any) -> Any:
            c = torch.complex(v[:3], v[3:6])
            return (v[6:] * (c.abs() ** 2)).sum()

        expected = torch.zeros(9, 9)
        for i in range(3):
            for j, v in ((i, 7), (3 + i, 7)):
                expected[j, j] = 2 * (v + i)
            expected[i, 6 + i] = expected[6 + i, i] = 2 * (i + 1)
            expected[3 + i, 6 + i] = expected[6 + i, 3 + i] = 2 * (i + 4)
        assert torch.allclose(hessian(f, torch.arange(1.0, 10.0)), expected, atol=1e-4)

    def test_hessian_against_torch(self) -> None:
        x = torch.randn(5, dtype=torch.float64)
        f = lambda x: (x.sin() * x.roll(1)).sum().tanh()  # noqa: E731
        assert torch.allclose(hessian(f, x), torch.autograd.functional.hessian(f, x))
        assert torch.allclose(diaghessian(f, x)[0], torch.autograd.functional.hessian(f, x).diag())

    def test_diaghessian(self) -> None:
        assert diaghessian(lambda x: (x**3).sum(), [[1, 2], [3, 4]])[0].tolist() == [[6, 12], [18, 24]]
        a, b = diaghessian(lambda x, y: (x * y[:, None] * y).sum(), [[1, 22], [333, 4]], [0.5, 0.666])
        assert a.tolist() == [[0, 0], [0, 0]] and torch.allclose(b, t([2.0, 8.0]))
        assert same(diaghessian(torch.atan2, 1, 2), (-0.16, 0.16), 1e-12)
        h = hessian(lambda v: torch.atan2(v[0], v[1]), [1, 2])
        assert torch.allclose(h, t([[-0.16, -0.12], [-0.12, 0.16]]))
        d = diaghessian(lambda x: x[0] * x[1] ** 2, [1, math.pi])[0]
        assert d.tolist() == [0, 2]

    def test_diaghessian_tests(self) -> None:
        xs, y = torch.randn(2, 3, dtype=torch.float64), 0.7
        f = lambda xs, y: xs[0, 0] * ((xs ** t([1, 2, 3])).sum() + y**4)  # noqa: E731
        dx, dy = diaghessian(f, xs, y)
        H = hessian(lambda x: f(x, y), xs)
        assert dx.shape == xs.shape and torch.allclose(dx.T.flatten(), H.diag())
        assert math.isclose(dy, hessian(lambda y: f(xs, y), y))
        assert diaghessian(lambda x, s: x**2, 3.0, "s") == (2.0, None)
        for f, x in ((sin, 1j * math.pi), (lambda x: x + 1j, math.pi), (lambda x: x, torch.randn(2))):
            with pytest.raises(TypeError):
                diaghessian(f, x)


def sq(f: Callable[[Any], Any]) -> Any:
    return lambda x: gradient(f, x)[0]


class TestFeatures:
    """features.jl and gradcheck.jl, where they can be said in Python."""

    def test_basics(self) -> None:
        y, back = pullback(lambda x: x, 1)
        assert y == 1 and type(y) is int and back(2) == (2,)
        y, back = pullback(operator.mul, 2, 3)
        assert y == 6 and type(y) is int and back(4) == (12, 8)
        assert withgradient(operator.mul, 2, 3) == nt(val=6, grad=(3.0, 2.0))
        y, back = pullback(lambda x: (x * x).sum(), [1, 2, 3])
        assert y == 14 and back(1)[0].tolist() == [2, 4, 6]

    def test_numbers_change_by_rebinding(self) -> None:
        def power(x: Any, n: Any) -> Any:
            r = 1
            while n > 0:
                n -= 1
                r *= x
            return r

        def power_rec(x: Any, n: Any) -> Any:
            return 1 if n == 0 else x * power_rec(x, n - 1)

        assert gradient(power, 2, 3) == (12.0, None) == gradient(power_rec, 2, 3)

        def kept(x: Any) -> Any:
            y = x
            x *= 2
            x += 1
            x -= 3
            x /= 4
            x **= 2
            return x * y

        # ((2x - 2) / 4)**2 * x
        assert gradient(kept, 5.0) == (((2 * 5 - 2) / 4) ** 2 + 5 * 2 * (2 * 5 - 2) / 4 * 0.5,)

    def test_small_functions(self) -> None:
        assert gradient(lambda x: 1, 2) == (None,)
        assert gradient(lambda v: v[0] * v[1], (2, 3)) == ((3.0, 2.0),)
        assert gradient(lambda a, *b: a * b[0], 2, 3) == (3.0, 2.0)
        assert gradient(lambda x, *a: x, 1) == (1.0,) and gradient(lambda x, *a: x, 1, 1) == (1.0, None)
        mul = lambda a=1, b=2: a * b  # noqa: E731
        assert gradient(lambda a, b: mul(a=a, b=b), 2, 3) == (3.0, 2.0)
        assert gradient(lambda x: {"x": x}["x"] * x, 2) == (4.0,)
        assert gradient(lambda x: x * 2 if x > 0 else x * 3, 1) == (2.0,)
        assert gradient(lambda x: x.dtype.itemsize, torch.rand(3)) == (None,)
        assert gradient(lambda: 1) == ()

        def raising(x: Any) -> Any:
            raise Flux.DimensionMismatch("fubar")

        with pytest.raises(Flux.DimensionMismatch, match="fubar"):
            gradient(raising, 1)

    def test_product_of_a_loop(self) -> None:
        def product(xs: Any) -> Any:
            s = 1
            for x in xs:
                s *= x
            return s

        assert gradient(product, [1, 2, 3])[0].tolist() == [6, 3, 2]
        assert gradient(product, (1, 2, 3)) == ((6.0, 3.0, 2.0),)

    def test_nested(self) -> None:
        D = lambda f, x: gradient(f, x)[0]  # noqa: E731
        assert D(lambda x: D(sin, x), 0.5) == -math.sin(0.5)
        assert D(lambda x: x * D(lambda y: x + y, 1), 1) == 1
        assert D(lambda x: x * D(lambda y: x * y, 1), 4) == 8
        assert sq(sq(sin))(1.0) == -math.sin(1.0)
        assert sq(sq(sq(sin)))(1.0) == -math.cos(1.0)

    def test_within(self) -> None:
        f = lambda x: x**2 if within_gradient(x) else 2 * x**2  # noqa: E731
        assert gradient(lambda x: gradient(f, x)[0], 4) == (2.0,) and f(3) == 18

    def test_tuples_and_shapes(self) -> None:
        assert gradient(lambda x: x.shape[1], torch.ones(2, 2, 2)) == (None,)
        assert gradient(lambda x: sum(x.shape[:2]), torch.ones(2, 2, 2)) == (None,)
        assert gradient(lambda x, y, z: sum((x, y, z)[:2]), 7, 8.8, 9.9) == (1.0, 1.0, None)
        xs = [(1, 2, 3), (4, 5, 6)]
        assert gradient(lambda xs: sum(x[1] for x in xs), xs) == ([(None, 1.0, None)] * 2,)
        assert gradient(lambda xs: sum(x[1] * x[2] for x in xs), xs) == ([(None, 3.0, 2.0), (None, 6.0, 5.0)],)
        assert gradient(lambda xs: sum(x[0] ** 2 for x in xs), [(4, 3)] * 2) == ([(8.0, None)] * 2,)
        _, back = pullback(lambda x: tuple(x), [1, 2, 3])
        assert back((1, 1, 1))[0].tolist() == [1, 1, 1]

    def test_structs(self) -> None:
        assert gradient(lambda x: x.value**2 + x.value, Struct(value=3)) == (nt(value=7.0),)
        assert gradient(lambda x: x[0].x ** 2, (Struct(x=3.0),)) == ((nt(x=6.0),),)
        assert gradient(lambda x: x.x.x**3, Struct(x=Struct(x=4.0))) == (nt(x=nt(x=48.0)),)
        x4 = Struct(x=Struct(x=4.0))
        assert gradient(lambda x: x[1].x.x ** 3, [x4, x4]) == ([None, nt(x=nt(x=48.0))],)
        y1 = t([3.0])
        y2 = (Struct(x=y1),)
        assert same(gradient(lambda x: (x[0].x + x[0].x).sum() ** 3, y2), ((nt(x=t([216.0])),),))
        assert gradient(lambda: (y2[0].x + y2[0].x).sum() ** 3, Params([y1]))[y1].tolist() == [216.0]

    def test_named_tuples(self) -> None:
        assert gradient(lambda x: x.a, nt(a=1, b=2)) == (nt(a=1.0, b=None),)
        assert gradient(lambda x: x[0].a, [nt(a=1, b=2)]) == ([nt(a=1.0, b=None)],)
        assert gradient(lambda x: x[0].a, [nt(a=1, b=2), nt(a=3, b=4)]) == ([nt(a=1.0, b=None), None],)
        assert gradient(lambda x: x[0].a, [nt(a=1, b=2), "three"]) == ([nt(a=1.0, b=None), None],)

    def test_pairs_and_dicts(self) -> None:
        assert gradient(lambda x: 10 * (x | to | 2).first, 100) == (10.0,)
        assert gradient(lambda x: 10 * (x | to | 2).second, 100) == (None,)
        assert gradient(lambda d: {"x": d["x"]}["x"], {"x": 1.0, "y": 3.0}) == ({"x": 1.0, "y": None},)
        f = lambda **kw: kw["x"] * kw["z"]  # noqa: E731
        assert gradient(lambda d: f(**d), {"x": 3.0, "y": 4.0, "z": 2.3}) == ({"x": 2.3, "y": None, "z": 3.0},)
        assert gradient(lambda x: (lambda: x["y"])(), {"y": 0.4}) == ({"y": 1.0},)
        (g,) = gradient(lambda x: sum({i: i**x for i in range(1, 5)}.values()), 3)
        assert math.isclose(g, 123.93054835019153)
        p = gradient(lambda p: p.first * p.second, 3 | to | 4)[0]
        assert p == nt(first=4.0, second=3.0)

    def test_iterators(self) -> None:
        xs = [1, 10, 100]
        assert gradient(lambda xs: sum(x ** (i + 1) for i, x in enumerate(xs)), xs)[0].tolist() == [1, 20, 30000]
        g = gradient(lambda xs, ys: sum(x / y for x, y in zip(xs, ys, strict=False)), [10.0, 11.0], [1.0, 2.0, 4.0])[1]
        assert g.tolist() == [-10, -2.75, 0]
        even = lambda xs: sum(x**2 for x in xs if x % 2 == 0)  # noqa: E731
        assert gradient(even, [2, 3, 4, 5])[0].tolist() == [4, 0, 8, 0]
        pairs = gradient(lambda xs, ys: sum(x**2 + y for x in xs for y in ys), t([1.0, 2.0]), t([3.0, 4.0, 5.0]))
        assert pairs[0].tolist() == [6, 12] and pairs[1].tolist() == [2, 2, 2]

    def test_splats(self) -> None:
        assert gradient(lambda x: max(*x), [1, 2, 3])[0].tolist() == [0, 0, 1]
        assert gradient(lambda x: min(*x), (1, 2, 3)) == ((1.0, None, None),)
        assert gradient(lambda x: x.reshape(*[2, 2]).sum(), torch.rand(4))[0].tolist() == [1] * 4

    def test_accumulation(self) -> None:
        def net(x: Any) -> Any:
            xs = [x]
            for _ in range(9):
                xs.append(sum(xs))
            return xs[-1]

        assert torch.equal(gradient(lambda x: (net(x) ** 2).sum(), torch.ones(3, 3))[0], torch.full((3, 3), 131072.0))

    def test_broadcasting(self) -> None:
        f = lambda x, p: (x**p).prod()  # noqa: E731
        gt, gv = gradient(lambda x, p: f(x, torch.stack(p)), [3, 4], (1, 2)), gradient(f, [3, 4], [1, 2])
        assert torch.allclose(gt[0], gv[0]) and torch.allclose(t(gt[1]), gv[1])
        assert same(
            gradient(lambda x, y: ((x**2) + y[0]).sum(), [1, 2, 3], [4, 5]), (t([2.0, 4.0, 6.0]), t([3.0, 0.0]))
        )
        assert gradient(lambda x: (1 - (x > 0).int()).sum(), torch.randn(5)) == (None,)
        assert gradient(lambda x: (x - (x > 0).int()).sum(), torch.randn(5))[0].tolist() == [1] * 5
        x = t([1.0, 2.0, 4.0])
        assert torch.allclose(gradient(lambda x, p: (x**p).sum(), x, [1, -1, 2])[0], t([1, -0.25, 8.0]))
        assert torch.allclose(gradient(lambda x, p: (x**p).sum(), x, -1)[0], t([-1.0, -0.25, -0.0625]))
        assert same(gradient(lambda x, y: (x * y).sum(), [1, 2], 5), (t([5.0, 5.0]), 3.0))
        assert same(gradient(lambda x, y: (x / y).sum(), [1, 2], 5), (t([0.2, 0.2]), -0.12), 1e-6)
        x1 = torch.rand(3, 3)
        assert gradient(lambda x: (x == 0.5).sum(), x1) == (None,)
        assert torch.equal(gradient(lambda x: (x * (x == x.amax(0))).sum(), x1)[0], (x1 == x1.amax(0)).float())

    def test_second_order(self) -> None:
        f = lambda g: gradient(lambda x: gradient(g, x)[0].sum(), [1, 2])[0]  # noqa: E731
        assert torch.allclose(f(lambda y: (y**2).sum()), t([2.0, 2.0]))
        assert torch.allclose(f(lambda y: y.sin().sum()), t([-0.8414709848078965, -0.9092974268256817]))
        w, x = t([[1, 2, 3], [4, 5, 6.0]]), t([7.0, 8, 9])
        f1244 = lambda w, x: ((w @ x) ** 2).amax(0).sum()  # noqa: E731
        h = gradient(lambda w, x: (gradient(f1244, w, x)[1] ** 2).sum(), w, x)[1]
        assert torch.allclose(h, t([300608.0, 375760, 450912]))

    def test_powers(self) -> None:
        assert gradient(lambda x: x**2, -2) == (-4.0,) and gradient(lambda x: x**10, -1.0) == (-10.0,)
        assert math.isclose(gradient(lambda p: 2**p, 2)[0], 4 * math.log(2))
        assert gradient(lambda xs: (xs**10).sum(), [3, -1])[0].tolist() == [10 * 3**9, -10]
        assert cmath.isclose(gradient(lambda x: ((1 + 3j) * x**2).real, 5 + 7j)[0], -32 - 44j)
        (g,) = gradient(lambda p: ((1 + 3j) * (5 + 7j) ** p).real, 2)
        assert math.isclose(g, ((-234 + 2j) * cmath.log(5 - 7j)).real)

    def test_indexing(self) -> None:
        x, z = torch.rand(3), [0, 1, 2, 2]
        assert same(gradient(lambda x, z: torch.dot(torch.ones(4), x[z]), x, z), (t([1.0, 1.0, 2.0]), None))
        assert gradient(lambda x: (1 / x[0, :]).sum(), torch.ones(2, 2))[0].tolist() == [[-1, -1], [0, 0]]
        assert gradient(lambda p: (t([1.0, 0.0]) - p).sum(), [2, 3])[0].tolist() == [-1, -1]
        assert gradient(lambda x: (torch.stack([torch.ones(()), x]) + x).sum(), 4) == (3.0,)
        assert gradient(lambda x: x[:2][0], torch.ones(3))[0].tolist() == [1, 0, 0]

    def test_more_of_features(self) -> None:
        squares = gradient(lambda xs: sum([x ** (i + 1) for i, x in enumerate(xs)]), range(1, 6))[0]
        assert squares.tolist() == [1, 4, 27, 256, 3125]
        g = gradient(lambda xs, ys: sum([x / y for x, y in zip(xs, ys, strict=False)]), range(10, 15), range(1, 11))[1]
        assert torch.allclose(g, torch.cat([-torch.arange(10.0, 15) / torch.arange(1.0, 6) ** 2, torch.zeros(5)]))
        g = gradient(lambda xs, ys: sum([x**2 + y for x in xs for y in ys]), range(1, 11), range(3, 8))
        assert g[0].tolist() == list(range(10, 101, 10)) and g[1].tolist() == [10] * 5
        twice = lambda xs: sum(x ** (i + 1) + y for i, x in enumerate(xs.T.flatten()) for y in xs.flatten())  # noqa: E731
        assert gradient(twice, [[2, 3], [4, 5]])[0].tolist() == [[8, 112], [36, 2004]]
        assert gradient(lambda x: max(*x.flatten()), [[1, 2], [3, 4]])[0].tolist() == [[0, 0], [0, 1]]
        assert gradient(lambda x: sum([x @ x, *x]), torch.ones(3))[0].tolist() == [3, 3, 3]
        assert gradient(lambda x: Flux.base.broadcast(operator.add, x, torch.ones(2, 2)).sum(), (1, 2)) == ((2.0, 2.0),)
        assert gradient(lambda xs: sum(False if x < 2 else x**2 for x in xs), [1, 2, 3])[0].tolist() == [0, 4, 6]
        assert gradient(lambda x: (x + x[0]).sum(), [1, 2, 3])[0].tolist() == [4, 1, 1]
        points = [Struct(x=1.0), Struct(x=2.0)]
        g = gradient(lambda a, v: sum((p.x + v[i]).sum() for i, p in enumerate(a)), points, torch.randn(2, 2))
        assert g[0] == [nt(x=2.0)] * 2 and g[1].tolist() == [[1, 1], [1, 1]]
        g = gradient(lambda x: gradient(lambda y: ((2 * y.exp()).log() ** 2).sum(), x)[0].abs().sum(), [1, 2])[0]
        assert torch.allclose(g, t([2.0, 2.0]))
        assert same(gradient(lambda x: abs(x.x) ** 2 + 7 * x.x.real, Struct(x=1 + 1j)), (nt(x=9 + 2j),), 1e-12)
        assert gradient(lambda x: (x.x**2 + 1j * x.x).real, Struct(x=4)) == (nt(x=8.0),)
        assert gradient(lambda p: ((0.0 if within_gradient(p) else 0.2) * p).sum(), [1.0])[0].tolist() == [0]
        g = gradient(lambda x: sum(torch.linalg.norm(c) for c in x.T), torch.ones(3, 40))[0]
        assert torch.allclose(g, torch.full((3, 40), 0.5773502691896258))

    def test_derivatives_of_derivatives(self) -> None:  # utils.jl, where ForwardDiff does the inner one
        D = lambda f, x: gradient(f, x)[0]  # noqa: E731
        assert D(lambda x: D(lambda x: x**4, x), 7) == 4 * 3 * 7**2
        f = lambda x: torch.stack([2 * x[0] ** 2 + x[0], x[1] ** 2 * x[0]])  # noqa: E731
        x = [2.0, 3.2]
        for g, expected in [  # of [4a + 1, 0; b^2, 2ab]
            (lambda J: J.sum(), [4 + 2 * 3.2, 2 * 3.2 + 2 * 2]),
            (lambda J: (J**2).sum(), [8 * 9 + 8 * 2 * 3.2**2, 4 * 3.2**3 + 8 * 4 * 3.2]),
        ]:
            (dx,) = pullback(lambda x, g=g: g(jacobian(f, x)[0]), x)[1](1.0)
            assert torch.allclose(dx, t(expected))
        powers = lambda x: torch.stack([x, x**2, x**3])  # noqa: E731
        second = jacobian(lambda x: jacobian(powers, x)[0], math.pi)[0]
        assert torch.allclose(second, t([0, 2, 6 * math.pi], dtype=torch.float64))
        g = gradient(lambda y: D(lambda x: x.sum() * y.sum(), t([0.1]))[0], torch.rand(5))[0]
        assert g.tolist() == [1] * 5

    def test_literals(self) -> None:
        assert gradient(lambda x: torch.tensor([[1, x], [3, 4]]).sum(), 2) == (1.0,)
        assert gradient(lambda x: torch.tensor([[1.0, x], [x, 4]]).det(), 3.0) == (-6.0,)
        roots = gradient(lambda a, b, c, d: torch.tensor([[a, b], [c, d]]).sqrt().sum(), 1, 1, 1, 4)
        assert roots == (0.5, 0.5, 0.5, 0.25)
        assert gradient(lambda x: torch.full((3, 4), x).sum(), 2) == (12.0,)
        assert gradient(lambda x: torch.full_like(torch.ones(3), fill_value=x).sum(), 2) == (3.0,)
        assert gradient(lambda n: torch.full((n,), n).sum(), 5) == (5.0,)
        with pytest.raises(TypeError, match="must be Number"):  # torch itself; but never a silent None
            gradient(lambda x: torch.full((2,), x).sum(), 2.5)
        assert withgradient(lambda x: torch.tensor([1, x])[1], 7).val == 7

    def test_sums_of_functions(self) -> None:
        assert gradient(torch.sum, t([True, False, True])) == (None,)
        assert same(gradient(lambda x, y: sum(v * x for v in y), 1, [1, 1]), (2.0, t([1.0, 1.0])))
        assert gradient(lambda x: math.prod(x), (1, 2, 3)) == ((6.0, 3.0, 2.0),)
        assert gradient(lambda x: torch.linalg.det(x), torch.eye(2) * 2)[0].tolist() == [[2, 0], [0, 2]]
        assert gradient(lambda x: 1 / x.max(), [1.0, 2, 3])[0].tolist() == pytest.approx([0, 0, -1 / 9])
        for i, k in enumerate([1, 2, 0]):
            assert gradient(lambda v, i=i: v.sort().values[i], [3.0, 1, 2])[0][k] == 1

    def test_hooks(self) -> None:
        assert gradient(lambda a, b: hook(operator.neg, a) * b, 2, 3) == (-3.0, 2.0)
        with pytest.raises(TypeError, match="hook needs a function of the gradient as its first argument"):
            hook(torch.ones(2), operator.neg)
        assert hook(operator.neg, 3) == 3 and hook(operator.neg, torch.ones(2)).tolist() == [1, 1]

    def test_norm_keeps_the_type(self) -> None:
        for x in (torch.randn(2, 2), torch.randn(2, 2, dtype=torch.float64), torch.randn(2, 2, dtype=torch.complex64)):
            assert gradient(torch.linalg.norm, x)[0].dtype == x.dtype
        assert gradient(lambda x: x.sum(), t([1.0, 2.0], dtype=torch.bfloat16))[0].dtype == torch.bfloat16
        assert gradient(lambda x: x.sum(), t([1, 2], dtype=torch.int8))[0].dtype == torch.float32

    def test_unused_results(self) -> None:
        seen: list[float] = []

        def f(xs: Any) -> Any:
            for x in xs:
                seen.append(x.item())
            return 0

        assert gradient(f, [1.0, 2.0]) == (None,) and seen == [1.0, 2.0]
        assert gradient(lambda x: torch.ones(x.shape).sum(), torch.randn(5)) == (None,)
        assert gradient(lambda x: torch.rand(4).sum(), 1) == (None,)

    def test_iteration_to_a_fixed_point(self) -> None:
        def foo(z: Any) -> Any:
            x, y = 1.0, 1.0 + z
            while abs(x - y) > 1e-6:
                y, x = (x + y) / 2, y
            return y

        assert math.isclose(gradient(foo, 1024.0)[0], 2 / 3, rel_tol=1e-6)

    def test_threads_inside(self) -> None:
        def tasks(x: Any) -> Any:
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(x**2))
            thread.start()
            thread.join()
            return found[0]

        assert gradient(tasks, 5) == (10.0,)

    def test_two_functions_of_one_closure(self) -> None:
        m = Struct(W=torch.zeros(3, 3), b=torch.zeros(3))
        x, y = t([1.0, 2, 3]), t([-1.0, -2, -3])
        f = lambda m: ((y - (m.W @ x + m.b)) ** 2).sum() / 2  # noqa: E731
        assert gradient(f, m)[0].W.tolist() == [[1, 2, 3], [2, 4, 6], [3, 6, 9]]


class TestComplex:
    """complex.jl."""

    def test_basic(self) -> None:
        for f, x, expected in [
            (lambda x: (abs(x) * torch.exp(1j * x.angle())).real, 10 + 20j, 1),
            (lambda x: (x + 0.3j).imag, 0.3, 0),
            (lambda x: (x.conj() + 0.3j).imag, 0.3 + 0j, -1j),
            (lambda x: abs(x.imag + 0.3), 0.3 + 0j, 1j),
            (lambda x: (x * x.conj()).real, 0.3j, 0.6j),
            (lambda x: x.real, 2 + 3j, 1),
            (lambda x: x.real * x.imag + x.real, 2 + 3j, 4 + 2j),
            (lambda x: (x * x.real).abs() ** 2, 4 + 5j, 456 + 160j),
            (lambda x: (x + 2j).real, 3.0, 1),
            (lambda x: (x + 2j).imag, 3.0, 0),
        ]:
            assert cmath.isclose(gradient(f, x)[0], expected, abs_tol=1e-9)
        A = t([[1, 2j], [3j, 4]])
        assert torch.allclose(gradient(lambda x: torch.linalg.det(x).real, A)[0], t([[4, 3j], [2j, 1]]))

    def test_the_page_on_complex_numbers(self) -> None:
        def close(x: Any, y: Any) -> bool:
            return cmath.isclose(x, y, abs_tol=1e-12)

        z = 1 + 2j
        assert close(gradient(Flux.base.abs2, z)[0], 2 + 4j)
        assert close(gradient(lambda x: x.log().real, z)[0].conjugate(), 0.2 - 0.4j)
        assert close((-1j * gradient(lambda x: x.log().imag, z)[0]).conjugate(), 0.2 - 0.4j)
        assert close(gradient(lambda x: x.conjugate().log().real, z)[0].conjugate(), 0.2 - 0.4j)
        assert close((-1j * gradient(lambda x: x.conjugate().log().imag, z)[0]).conjugate(), -0.2 + 0.4j)

        def wirtinger(f: Any, x: Any) -> Any:
            _, back = pullback(f, x)
            (du,), (dv,) = back(1), back(1j)
            return (du.conjugate() + 1j * dv.conjugate()) / 2, (du + 1j * dv) / 2

        for f, expected in [(lambda x: 3 * x**2 + 2 * x + 1, (8 + 12j, 0)), (Flux.base.abs2, (1 - 2j, 1 + 2j))]:
            assert all(map(close, wirtinger(f, z), expected))

    def test_more(self) -> None:
        assert gradient(lambda x: (x.conjugate() + 0.3j).imag, 0.3) == (0.0,)
        assert gradient(lambda x: abs(x.imag + 0.3), 0.3) == (0.0,)
        assert gradient(lambda x: abs((1j * x) / 1j), 2) == (1.0,) and gradient(lambda x: abs(1j / (1j * x)), 2) == (
            -0.25,
        )
        A = t([[1, 2j], [3j, 4]])
        for f in (lambda x: torch.logdet(x).real, lambda x: torch.linalg.slogdet(x).logabsdet):
            assert torch.allclose(gradient(f, A)[0], t([[4, 3j], [2j, 1]]) / 10)
        (g,) = gradient(lambda x: x.exp().sum().imag, t([1 + 0j, 2, 3]))
        assert torch.allclose(g, 1j * t([1.0, 2, 3]).exp())
        assert gradient(lambda xs: sum(x.imag**2 for x in xs), [1 + 2j, 3])[0].tolist() == [4j, 0]
        gx, gy = pullback(lambda x, y: sum(abs(a * b) ** 2 for a, b in zip(x, y, strict=True)), [1, 2], [3j, 4j])[1](1)
        assert gx.dtype == torch.float32 and torch.allclose(gx, t([18.0, 64.0])) and torch.allclose(gy, t([6j, 32j]))

    def test_a_real_argument_has_a_real_gradient(self) -> None:
        (g,) = gradient(lambda x: (x * (1 + 2j)).exp().sum().imag, [1, 2, 3])
        z = [(1 + 2j) * cmath.exp((1 + 2j) * k) for k in (1, 2, 3)]
        assert g.dtype == torch.float32 and torch.allclose(g, t([v.imag for v in z]))

    @pytest.mark.parametrize(
        "f",
        [
            lambda z: z.real,
            lambda z: z.imag,
            lambda z: abs(z),
            lambda z: 3 * z.real**3 - 2 * z.imag**5,
            lambda z: (z.cos() * z.conj()).real,
            lambda z: (z**2 / (z + 1)).imag,
        ],
    )
    def test_against_differences(self, f: Callable[[Any], Any]) -> None:
        for z in (1.0 + 2.0j, -2.0 + math.pi * 1j):
            g, h = gradient(f, z)[0], 1e-6
            at = lambda d, z=z: float(f(t(z + d, dtype=torch.complex128)))  # noqa: E731
            expected = (at(h) - at(-h)) / (2 * h) + 1j * (at(1j * h) - at(-1j * h)) / (2 * h)
            assert abs(g - expected) < 1e-5 * max(1, abs(expected))

    def test_rebinding(self) -> None:
        def f(z: Any) -> Any:
            w = z
            z *= 1j
            return (w * z.conj()).imag

        assert cmath.isclose(gradient(f, 1 + 2j)[0], -2 - 4j)


class TestIntegers:
    """Python's ints and arrays of integers go on being what they are inside."""

    def test_an_int_is_an_int(self) -> None:
        def f(x: Any, n: Any) -> Any:
            assert x.shape[n - 3] == 6 and list(range(n)) == [0, 1, 2] and [0] * n == [0, 0, 0] and "ab" * n == "ababab"
            assert x[n] == 3 and len(x[:n]) == 3 and [5, 6, 7, 8][n] == 8 and (1, 2, 3, 4)[:n] == (1, 2, 3)
            assert (
                {3: "three"}[n] == "three" and n in {3, 4} and n in (1, 3) and n == 3 and (n != "3") and n is not None
            )
            assert (
                str(n) == "3"
                and f"{n:02d}" == "03"
                and repr(n) == "3"
                and int(n) == 3
                and bool(n)
                and hash(n) == hash(3)
            )
            assert n // 2 == 1 and n % 2 == 1 and divmod(n, 2) == (1, 1) and n << 1 == 6 and n >> 1 == 1 and n & 1 == 1
            assert (
                round(n) == 3
                and isinstance(round(n), int)
                and max(n, 2) == 3
                and sorted([n, 1])[0] == 1
                and abs(-n) == 3
            )
            assert (
                torch.arange(n).tolist() == [0, 1, 2] and torch.zeros(n, n).shape == (3, 3) and torch.eye(n).sum() == 3
            )
            assert (
                torch.linspace(0, 1, n).shape == (3,)
                and x.reshape(n, -1).shape == (3, 2)
                and x.split(n)[0].shape == (3,)
            )
            assert x.repeat(n).shape == (18,) and x.expand(n, 6).shape == (3, 6) and x.topk(n).values.sum() == 12
            assert torch.full((2,), n).dtype == torch.int64 and torch.tensor([n, 1]).dtype == torch.int64
            assert x.reshape(n, 2).sum(n - 2).shape == (3,) and x.reshape(n, 2).sum(dim=n - 3).shape == (2,)
            assert x[n, None].shape == (1,) and x[n:].shape == (3,) and x[..., n] == 3
            assert x.narrow(0, n, 2).tolist() == [3, 4] and x.unfold(0, n, n).shape == (2, 3) and math.gcd(n, 6) == 3
            while n > 0:
                n -= 1
            return x.sum() * (n + 1)

        assert same(gradient(f, torch.arange(6.0), 3), (torch.ones(6), 15.0))

    def test_none_if_nothing_came_of_it(self) -> None:
        assert same(gradient(lambda x, n: x[n], torch.arange(3.0), 1), (t([0.0, 1.0, 0.0]), None))
        assert same(gradient(lambda x, d: x.sum(d)[0], torch.ones(2, 2), 0), (t([[1.0, 0.0], [1.0, 0.0]]), None))

    def test_both_sides_of_a_call_with_a_dimension(self) -> None:
        # The array must not lose its gradient because the number is wanted as an int.
        x = [[1, 2], [3, 4]]
        for f in (
            lambda x, d: x.sum(d),
            lambda x, d: x.sum(dim=d),
            lambda x, d: x.cumsum(d)[-1],
            lambda x, d: x.amax(d),
        ):
            assert gradient(lambda x, d, f=f: f(x, d).sum(), x, 0)[0] is not None
        assert gradient(lambda x, d: (x.prod(d)).sum(), x, 0)[0].tolist() == [[3, 4], [1, 2]]

    def test_steps_are_constant(self) -> None:
        assert gradient(lambda x: x // 2 * x, 5) == (2.0,) and gradient(lambda x: x // 2 * x, 5.5) == (2.0,)
        assert gradient(lambda x: 7 // x, 2) == (None,)
        assert gradient(lambda x: (x // 2 * x).sum(), [5, 3])[0].tolist() == [2, 1]
        assert gradient(lambda x: x % 3, 5) == (1.0,) and gradient(lambda x: 7 % x, 2) == (-3.0,)
        assert gradient(lambda x: (7 % x).sum(), [2, 4])[0].tolist() == [-3, -1]
        assert gradient(lambda x: x >> 1, 5) == (None,)

    @pytest.mark.parametrize(
        "f",
        [
            lambda W, i: W[i],
            lambda W, i: F.embedding(i, W),
            lambda W, i: F.one_hot(i, 4).float() @ W,
            lambda W, i: W.index_select(0, i),
            lambda W, i: torch.stack([W[k] for k in i]),
            lambda W, i: torch.stack([W[k] for k in i.tolist()]),
            lambda W, i: W.gather(0, i[:, None].expand(2, 3)),
            lambda W, i: W.take_along_dim(i[:, None], 0),
            lambda W, i: nn.Embedding.from_pretrained(torch.eye(4))(i) @ W,
            lambda W, i: W[i.long()],
            lambda W, i: W[i.reshape(1, -1).squeeze(0)],
            lambda W, i: W[(i + 4) % 4],
            lambda W, i: W[torch.cat([i[:1], i[1:]])],
            lambda W, i: W[i.flip(0)].flip(0),
            lambda W, i: torch.zeros(2, 3).index_add(0, t([0, 1]), W[i]),
            lambda W, i: torch.zeros(4, 3).scatter_(0, i[:, None].expand(2, 3), torch.ones(2, 3)) * W,
        ],
    )
    def test_indices(self, f: Callable[..., Any]) -> None:
        W, i = torch.randn(4, 3), t([3, 1])
        grads = gradient(lambda W, i: (f(W, i) ** 2).sum(), W, i)
        expected = torch.zeros(4, 3)
        expected[i] = 2 * W[i]
        assert torch.allclose(grads[0], expected) and grads[1] is None

    def test_targets(self) -> None:
        logits, y = torch.randn(4, 5), t([0, 4, 2, 1])
        g = gradient(F.cross_entropy, logits, y)
        assert torch.allclose(g[0], (logits.softmax(1) - F.one_hot(y, 5)) / 4) and g[1] is None
        assert torch.allclose(gradient(lambda z, y: F.nll_loss(z.log_softmax(1), y), logits, y)[0], g[0], atol=1e-6)

    def test_scatter(self) -> None:
        g = gradient(lambda x, i: x.scatter(0, i, 2 * torch.ones(1, 4)).sum(), torch.ones(2, 4), [[1, 0, 1, 1]])
        assert g[0].tolist() == [[1, 0, 1, 1], [0, 1, 0, 0]]

    def test_large_ids_are_exact(self) -> None:
        ids = [2**24 + 1, 2**53 + 1]

        def f(i: Any) -> Any:
            assert i.tolist() == ids and i[0].item() == ids[0] and (i + 1).tolist() == [v + 1 for v in ids]
            assert (
                i.max().item() == ids[1] and i.flip(0)[0] == ids[1] and i[1:].item() == ids[1] and int(i[1]) == ids[1]
            )
            assert (i == t(ids)).all() and torch.equal(i, t(ids)) and i.unique().tolist() == ids
            return i.sum()

        assert gradient(f, ids)[0].tolist() == [1, 1]
        assert withgradient(lambda n: n + 0, 2**53 + 1).val == 2**53 + 1
        assert gradient(lambda n: n * 2, 10**30) == (2.0,)
        assert math.isclose(withgradient(lambda n: n**40, 3).val, 3**40)

    def test_arrays_of_integers_say_what_they_are(self) -> None:
        def f(x: Any) -> Any:
            assert x.dtype == torch.int64 and not x.is_floating_point() and not torch.is_floating_point(x)
            assert x.tolist() == [3, 2] and x[0].item() == 3 and type(x[0].item()) is int and len(x) == 2
            assert x.numpy().dtype == np.int64 and torch.zeros_like(x).dtype == torch.int64
            assert (x > 2).tolist() == [True, False] and x.argmax() == 0 and torch.bincount(x).tolist() == [0, 0, 1, 1]
            assert repr(x) == "tensor([3, 2])" and str(x) == "tensor([3, 2])" and x.new_zeros(1).dtype == torch.int64
            assert (
                (x / 2).tolist() == [1.5, 1.0]
                and x.float().dtype == torch.float32
                and x.double().dtype == torch.float64
            )
            assert [v.item() for v in x] == [3, 2] and (x << 1).tolist() == [6, 4] and x.requires_grad
            return (x * x).sum()

        assert gradient(f, [3, 2])[0].tolist() == [6, 4]

    def test_arithmetic(self) -> None:
        for f, expected in [
            (lambda x: x.mean(), [0.5, 0.5]),
            (lambda x: x.float().sum(), [1, 1]),
            (lambda x: x.norm(), [0.6, 0.8]),
            (lambda x: (t([[1.0, 2.0]]) @ x.float()).sum(), [1, 2]),
            (lambda x: (torch.ones(1, 2, dtype=torch.float64) @ x).sum(), [1, 1]),
            (lambda x: x @ x, [6, 8]),
            (lambda x: torch.where(x > 3, x * x, 0).sum(), [0, 8]),
            (lambda x: x[x > 3].sum(), [0, 1]),
            (lambda x: x.clamp(max=3).sum(), [1, 0]),
            (lambda x: torch.einsum("i,i->", x, x), [6, 8]),
            (lambda x: torch.cat([x, x[:1]]).sum(), [2, 1]),
            (lambda x: copy.deepcopy(x).sum(), [1, 1]),
            (lambda x: (2**x).sum(), [8 * math.log(2), 16 * math.log(2)]),
            (lambda x: x.sum() / x.numel(), [0.5, 0.5]),
            (lambda x: torch.sort(x, descending=True).values[0], [0, 1]),
            (lambda x: x.max(0).values, [0, 1]),
        ]:
            assert gradient(f, [3, 4])[0].tolist() == pytest.approx(expected)

    def test_in_place(self) -> None:
        def f(x: Any) -> Any:
            y = x * 2
            y += 1
            y[0] = 7
            y.mul_(2)
            assert y.tolist() == [14, 6]
            return (y**2).sum()

        assert gradient(f, [3, 1])[0].tolist() == [0, 48]
        x = t([3, 1])

        def change(v: Any) -> Any:
            v += 1
            return v.sum()

        with pytest.raises(RuntimeError, match="in-place"):
            gradient(change, x)
        assert x.tolist() == [3, 1]

        def fill(x: Any, i: Any) -> Any:
            y = torch.zeros(3)
            y[i] = 3 * x[i]
            return y.sum()

        assert same(gradient(fill, torch.ones(3), 1), (t([0.0, 3.0, 0.0]), None))

    def test_what_is_given_back(self) -> None:
        x = t([1, 2])
        r = withgradient(lambda x: (x.sum(), x, 2 * x, x[0]), x)
        assert same(r.val, (t(3), t([1, 2]), t([2, 4]), t(1))) and r.val[1] is not x and not r.val[0].requires_grad
        assert all(type(v) is torch.Tensor and v.dtype == torch.int64 for v in r.val)
        r.val[1].add_(1)
        assert x.tolist() == [1, 2]
        assert type(withgradient(lambda n: n * 2, 3).val) is int and type(withgradient(lambda n: n / 2, 3).val) is float

    def test_nested(self) -> None:
        d = sq
        assert d(d(lambda x: x**4))(2) == 48.0 and d(d(d(lambda x: x**4)))(2) == 48.0
        assert hessian(lambda x: (x**3).sum(), [1, 2]).tolist() == [[6, 0], [0, 12]]

    def test_layers_take_them(self) -> None:
        assert gradient(lambda x: Dense(torch.ones(1, 2))(x).sum(), [1, 2])[0].tolist() == [1, 1]
        m = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 1))
        g = gradient(lambda m, i: m(i).sum(), m, [4, 0, 4])
        assert g[1] is None and g[0][0].weight.abs().sum(1).ne(0).tolist() == [True, False, False, False, True]


class TestArguments:
    """Every gradient has the shape of its argument; None where there is nothing to differentiate."""

    def test_each_kind(self) -> None:
        @dataclasses.dataclass(frozen=True)
        class Data:
            a: Any
            n: int = 2

        model = Chain(Dense(2 | to | 1, tanh), relu)
        args = (
            1.5,
            t(2.0),
            t([3.0]),
            [4.0, 5.0],
            (6.0, t([7.0])),
            {"k": 8.0},
            nt(a=9.0, b="text"),
            Data(10.0),
            model,
            np.ones(2),
        )

        def f(a: Any, b: Any, c: Any, d: Any, e: Any, g: Any, h: Any, i: Any, m: Any, n: Any) -> Any:
            return a + b + c[0] + d[1] + e[1][0] + g["k"] + h.a + i.a + m(torch.ones(2))[0] + n.sum()

        grads = gradient(f, *args)
        assert grads[0] == 1.0 and type(grads[0]) is float
        assert grads[1].shape == () and grads[2].tolist() == [1] and grads[3].tolist() == [0, 1]
        assert same(grads[4], (None, t([1.0]))) and grads[5] == {"k": 1.0} and grads[6] == nt(a=1.0, b=None)
        assert grads[7] == nt(a=1.0, n=None) and grads[9].tolist() == [1, 1]
        g = grads[8]
        assert (
            list(vars(g)) == ["layers"] and list(vars(g.layers[0])) == ["weight", "bias", "σ"] and g.layers[1] is None
        )
        assert g.layers[0].weight.shape == (1, 2) and g.layers[0].σ is None

    def test_nothing_to_differentiate(self) -> None:
        m = Chain(Dense(2 | to | 1), Dense(2 | to | 1))
        x = torch.ones(2)
        g = gradient(lambda m: m[1](x).sum(), m)[0]
        assert g.layers[0] is None and g.layers[1].bias is not None
        assert gradient(lambda m: x.sum(), m) == (None,)
        none = gradient(
            lambda *_: x.sum(), True, "s", None, relu, len, (), [], {}, nt(), t([True]), torch.float32, ("a",), 2
        )
        assert none == (None,) * 13

    def test_frozen_and_buffers(self) -> None:
        m = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        m[0].weight.requires_grad_(False)
        g = gradient(lambda m: m(torch.randn(3, 2)).pow(3).sum(), m)[0]
        assert g[0].weight is None and g[0].bias is not None and g[1].running_mean is None and g[1].weight is not None
        assert list(vars(g)) == ["0", "1"]

    def test_captured_tensors_are_constants(self) -> None:
        w = t(3.0, requires_grad=True)
        x = t(2.0)
        assert gradient(lambda x: w * x * x.detach(), x) == (6.0,)
        assert gradient(lambda v: v * x, x) == (2.0,)  # x is captured too, and that is another place
        assert w.grad is None and x.grad is None

    def test_the_same_tensor_twice(self) -> None:
        x = t([2.0, 3.0])
        assert same(gradient(lambda a, b: (a * b * b).sum(), x, x), (x * x, 2 * x * x))
        assert same(gradient(lambda v: (v.a * v.b).sum(), nt(a=x, b=x)), (nt(a=x, b=x),))

    def test_tied(self) -> None:
        d = Dense(2 | to | 2)
        m = Chain(d, d)
        x = torch.randn(2)
        (g,) = gradient(lambda m: m(x).sum(), m)
        whole = torch.autograd.grad(m(x).sum(), [d.weight, d.bias])
        places = [v for v in g.layers if v is not None]
        assert torch.allclose(sum(p.weight for p in places), whole[0]) and torch.allclose(
            sum(p.bias for p in places), whole[1]
        )
        lin = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        lin[1].weight = lin[0].weight
        (g,) = gradient(lambda m: m(x).sum(), lin)
        assert torch.allclose(g[0].weight, torch.autograd.grad(lin(x).sum(), lin[0].weight)[0]) and g[1].weight is None
        both = gradient(lambda m, p: m(x).sum() + p.sum(), d, d.weight)
        assert (
            torch.allclose(both[0].weight, torch.autograd.grad(d(x).sum() + d.weight.sum(), d.weight)[0])
            and both[1] is None
        )

    def test_parameters_are_the_same_objects(self) -> None:
        m = Dense(2 | to | 1)
        w = m.weight
        seen: list[Any] = []
        gradient(lambda m, p: (seen.extend([m is m, m.weight is w, p is w]), m(torch.ones(2)).sum())[1], m, w)
        assert all(seen)

    def test_functions(self) -> None:
        def linear(W: Any) -> Any:
            return lambda x: W @ x

        f = linear(torch.ones(1, 2))
        assert same(gradient(lambda f: f(t([3.0, 4.0])).sum(), f), (nt(W=t([[3.0, 4.0]])),))
        assert same(
            gradient(lambda g: g(), functools.partial(torch.sum, t([1.0]))),
            (nt(func=None, args=(t([1.0]),), keywords=None),),
        )

        def power(w: Any) -> Any:
            def f(x: Any, n: int) -> Any:
                return x if n == 0 else w * f(x, n - 1)

            return f

        assert gradient(lambda f: f(1.0, 3), power(2.0)) == (nt(f=None, w=12.0),)

        def mutual(w: Any, v: Any) -> Any:
            even = lambda x, n: x if n == 0 else w * odd(x, n - 1)  # noqa: E731
            odd = lambda x, n: x if n == 0 else v * even(x, n - 1)  # noqa: E731
            return even

        (g,) = gradient(lambda f: f(1.0, 4), mutual(2.0, 3.0))
        assert g.w == 36.0 and g.odd.v == 24.0

    def test_functions_of_globals(self) -> None:
        uses: Any = eval("lambda: W.sum()", {"W": t([1.0])})
        with pytest.warns(
            UserWarning, match="no gradient by what the function <lambda> uses of global variables, W:"
        ) as record:
            assert gradient(lambda f: f(), uses) == (None,)
        assert record[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            gradient(lambda f, x: f(x), relu, 1.0)
            gradient(lambda f, x: f(x), lambda x: torch.sin(x), 1.0)

    def test_objects_that_change(self) -> None:
        @functor
        class Cell:
            def __init__(self) -> None:
                self.w, self.h, self.count, self.history = t([2.0]), t([0.0]), 0, None

            def __call__(self, x: Any) -> Any:
                self.h = self.w * x + self.h
                self.count += 1
                self.history = (self.h, "new")
                return self.h.sum()

        cell = Cell()
        w = cell.w
        for k in (1, 2, 3):
            (g,) = gradient(lambda c: c(3.0), cell)
            assert g.w.item() == 3 and cell.h.item() == 6 * k and cell.count == k and not cell.h.requires_grad
            assert type(cell.count) is int and cell.history[0].item() == 6 * k and not cell.history[0].requires_grad
        assert cell.w is w and not w.requires_grad
        assert withgradient(lambda c: c(3.0), cell).val == 24 and cell.count == 4
        pullback(lambda c: c(3.0), cell)
        assert cell.count == 5 and cell.h.item() == 30

        def fails(c: Any) -> Any:
            c(1.0)
            raise ValueError

        with pytest.raises(ValueError):
            gradient(fails, cell)
        assert cell.count == 5 and cell.h.item() == 30

    def test_dicts_and_lists_that_change(self) -> None:
        @dataclasses.dataclass(slots=True)
        class Slots:
            a: Any
            b: Any = 4.0

        def double(x: Any, set_: Any) -> Any:
            a, b = (x.a, x.b) if isinstance(x, Slots) else (x[0], x[1])
            set_(x, 2 * a)
            return 2 * a * b

        d: dict[Any, Any] = {0: 3.0, 1: 4.0, "t": (inner := [t([1.0])])}
        xs: list[Any] = [3.0, t(4.0)]
        o = Slots(3.0)
        assert gradient(lambda d: double(d, lambda d, a: d.update({0: a, "new": (a, "s")})), d)[0][0] == 8.0
        assert d == {0: 6.0, 1: 4.0, "t": inner, "new": (6.0, "s")} and type(d[0]) is float and d["t"] is inner
        assert gradient(lambda xs: double(xs, lambda xs, a: xs.insert(0, a)), xs)[0][0] == 8.0
        assert xs == [6.0, 3.0, 4.0] and not xs[2].requires_grad
        assert gradient(lambda o: double(o, lambda o, a: setattr(o, "a", a)), o) == (nt(a=8.0, b=6.0),)
        assert o == Slots(6.0) and type(o.a) is float
        seen: dict[str, Any] = {}
        assert withgradient(lambda d, x: d.setdefault("x", x * x), seen, 5).grad == (None, 10.0)
        assert seen == {"x": 25} and type(seen["x"]) is int
        gradient(lambda d: d.pop("x"), seen)
        assert seen == {}

    def test_keys_of_any_kind(self) -> None:
        d = {1: 2.0, (2, 3): t(4.0), None: 5, "s": "text"}
        (g,) = gradient(lambda d: d[1] * d[2, 3] * d[None], d)
        assert same(g, {1: 20.0, (2, 3): t(10.0), None: 8.0, "s": None})

    def test_lists_of_numbers_are_arrays(self) -> None:
        assert same(gradient(lambda x, y: ((x - y) ** 2).sum(), [2, 1], [2, 0]), (t([0.0, 2.0]), t([-0.0, -2.0])))
        assert same(gradient(lambda v: v.w.sum(), NamedTuple.of({"w": [1, 2]})), (nt(w=t([1.0, 1.0])),))
        ragged = gradient(lambda v: v[0].sum() + v[1][0], [[1.0, 2.0], [3.0]])[0]
        assert same(ragged, [t([1.0, 1.0]), t([1.0])])

    @pytest.mark.parametrize(
        "x",
        [
            torch.randn(3, 2).T,
            torch.randn(1).expand(4),
            torch.randn(6)[::2],
            torch.randn(2, 3)[:, 1],
            torch.randn(()),
            torch.randn(0),
        ],
    )
    def test_layouts(self, x: torch.Tensor) -> None:
        (g,) = gradient(lambda x: (x**3).sum(), x)
        assert g.shape == x.shape and torch.allclose(g, 3 * x**2) and not x.requires_grad

    def test_numpy_numbers(self) -> None:
        assert gradient(lambda x: x * x, np.float64(3.0)) == (6.0,)
        assert gradient(lambda x: (x * x).sum(), np.array([1, 2]))[0].tolist() == [2, 4]


class TestHistory:
    """What was computed before the call is a constant in it, even if torch remembers how."""

    def test_a_target_from_the_same_model(self) -> None:
        m = Chain(Dense(2 | to | 3, tanh), Dense(3 | to | 1))
        x = torch.randn(2, 5)
        target = 0.9 * m(x).abs()  # outside: carries torch's graph
        constant = target.detach()
        f = lambda m: ((m(x) - target) ** 2).mean()  # noqa: E731
        expected = gradient(lambda m: ((m(x) - constant) ** 2).mean(), m)
        for _ in range(3):  # and the graph of the target is not used up
            assert same(gradient(f, m), expected, 1e-6)
        assert same(withgradient(f, m).grad, expected, 1e-6)
        assert same(pullback(f, m)[1](1.0), expected, 1e-6)
        ps = params(m)
        gs = gradient(lambda: f(m), ps)
        assert same([gs[p] for p in ps], [expected[0].layers[i][k] for i in (0, 1) for k in (0, 1)], 1e-6)

    def test_a_ratio_to_old_probabilities(self) -> None:
        m = Dense(2 | to | 3)
        x = torch.randn(2)
        old = torch.log_softmax(m(x), 0)
        g = gradient(lambda m: (torch.log_softmax(m(x), 0) - old).exp()[0], m)[0]
        assert g.bias.abs().max() > 0.1

    def test_state_carried_by_hand(self) -> None:
        cell = Dense(2 | to | 2, tanh)
        state = torch.zeros(2)
        for _ in range(3):

            def f(m: Any) -> Any:
                nonlocal state
                state = m(state + 1)
                return state.sum()

            before = state.detach()
            (g,) = gradient(f, cell)
            expected = torch.autograd.grad(cell(before + 1).sum(), cell.bias)[0]
            assert torch.allclose(g.bias, expected)

    def test_the_loss_itself(self) -> None:
        m = Dense(1 | to | 1)
        y = m([1.0]).sum()
        with pytest.warns(
            UserWarning, match="loss was computed before, or in another thread, so it is a constant"
        ) as record:
            assert gradient(lambda m: y, m) == (None,)
        assert record[0].filename == __file__
        assert same(gradient(lambda m: y + m([2.0]).sum(), m)[0].weight, t([[2.0]]))

    def test_through_custom_functions_and_tuples(self) -> None:
        class Twice(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, a: Any, b: Any) -> Any:
                ctx.save_for_backward(a)
                return 2 * a * b, a + 0

            @staticmethod
            def backward(ctx: Any, g: Any, h: Any) -> Any:
                return g * 6 + h, None

        w = nn.Parameter(t([1.0, 2.0]))
        old = (w * w).sum()
        f = lambda m: Twice.apply(m["w"], t(3.0))[0].sum() * old + m["w"].split(1)[1].sum()  # noqa: E731
        assert gradient(f, {"w": w})[0]["w"].tolist() == [30, 31]
        f = lambda m: (m["w"] + old).sum() + (m["w"][:, None] * t([1.0, 2.0, 3.0])).sum()  # noqa: E731
        assert gradient(f, {"w": w})[0]["w"].tolist() == [7, 7]

    def test_is_looked_for_only_if_there_can_be_some(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def walk(*_: Any) -> Any:
            raise AssertionError("looked for")

        monkeypatch.setattr("fluxtorch.zygote.explicit.reaches_back", walk)
        m = Chain(Dense(2 | to | 3, tanh), nn.Linear(3, 1))
        f = lambda m: m(torch.ones(4, 2).T if isinstance(m, Dense) else torch.ones(2)).sum()  # noqa: E731
        for _ in range(3):
            assert gradient(f, m)[0].layers[1].bias.item() == 1
            assert gradient(lambda: f(m), params(m))[m[1].bias].item() == 1
            f(m)  # forgotten at once
        kept = m[0].weight.T
        with pytest.raises(AssertionError, match="looked for"):
            gradient(f, m)
        del kept
        assert gradient(f, m)[0].layers[1].bias.item() == 1

    def test_without_what_is_private_to_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        m = Chain(Dense(2 | to | 3, tanh), Dense(3 | to | 1))
        loss = lambda m: m(torch.ones(2, 4)).square().sum()  # noqa: E731
        quick = Flux.Functors.fleaves(gradient(loss, m))
        monkeypatch.setattr("fluxtorch.zygote.backward._engine", None)
        slow = Flux.Functors.fleaves(gradient(loss, m))
        assert [a is b is None or same(a, b) for a, b in zip(quick, slow, strict=True)] == [True] * 6

    def test_nested(self) -> None:
        w = nn.Parameter(t(3.0))

        def outer(m: Any) -> Any:
            h = m["w"] ** 2  # a constant for the inner gradient, not for the outer one
            return gradient(lambda m: m["w"] ** 2 * h, m)[0]["w"]

        assert gradient(outer, {"w": w})[0]["w"] == 6 * 3.0**2  # d/dw of 2 w * w**2

    @pytest.mark.parametrize(
        ("m", "x"),
        [
            (nn.Conv2d(2, 3, 3), torch.randn(2, 2, 6, 6)),
            (nn.BatchNorm1d(4), torch.randn(5, 4)),
            (nn.LSTM(3, 4, 2), torch.randn(5, 2, 3)),
            (nn.Embedding(5, 3), t([1, 2, 2])),
            (nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)), torch.randn(4, 3)),
            (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.PReLU()), torch.randn(4, 3)),
        ],
    )
    def test_kinds_of_layers(self, m: nn.Module, x: torch.Tensor) -> None:
        out = lambda m: m(x)[0] if isinstance(m, nn.LSTM) else m(x)  # noqa: E731
        h = out(m)

        def loss(m: Any, h: Any) -> Any:
            y = checkpointed(out, m)
            return ((y - h) ** 2).mean() + (out(m) * h).tanh().sum()

        def second(m: Any, h: Any) -> Any:
            (g,) = gradient(lambda m: loss(m, h), m)
            return sum((v**2).sum() for v in fleaves(g) if isinstance(v, torch.Tensor))

        for f in (loss, second):
            found, expected = gradient(lambda m, f=f: f(m, h), m), gradient(lambda m, f=f: f(m, h.detach()), m)
            assert same(found, expected, 1e-4)

    def test_a_member_computed_from_another(self) -> None:
        a = t([1.0, 2.0], requires_grad=True)
        b = a * 3
        gs = gradient(lambda: (b * b).sum() + a.sum(), Params([a, b]))
        assert gs[a].tolist() == [1, 1] and gs[b].tolist() == [6, 12]
        for _ in range(2):
            assert gradient(lambda: (b * b).sum(), Params([b]))[b].tolist() == [6, 12]
        with pytest.warns(UserWarning, match="computed before"):
            assert gradient(lambda: b.sum() * 2, Params([a]))[a] is None

    def test_recurrent_layers_need_no_care(self) -> None:
        r = Flux.RNN(2 | to | 2)
        x = torch.randn(2, 3)
        for _ in range(3):
            assert gradient(lambda m: m(x).sum(), r)[0] is not None
        r(x)
        assert gradient(lambda m: m(x).sum(), r)[0] is not None


class TestRestored:
    """Whatever a call switches is as it was afterwards, also when the function raises."""

    @pytest.mark.parametrize("fails", [False, True])
    def test_everything(self, fails: bool) -> None:
        m = Chain(Dense(2 | to | 2), Dropout(0.5), BatchNorm(2))
        x = torch.randn(2, 3)
        plain, frozen = t([1.0]), nn.Parameter(t([1.0]), requires_grad=False)
        inner = Chain(lambda x: x * plain)

        def f(*_: Any) -> Any:
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and within_gradient()
            y = (m(x) * plain).sum() + inner(x).sum()
            torch.set_grad_enabled(False)
            if fails:
                raise ValueError("on purpose")
            torch.set_grad_enabled(True)
            return y

        def state() -> Any:
            return (
                [(p.requires_grad, p.grad) for p in (*m.parameters(), plain, frozen)],
                [v.training for v in m.modules()],
                (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), within_gradient()),
                torch.overrides._len_torch_function_stack(),
            )

        calls: list[Callable[[], Any]] = [
            lambda: gradient(f, m, plain, frozen, inner, 2, [1, 2]),
            lambda: withgradient(f, m, plain),
            lambda: pullback(f, m, plain),
            lambda: gradient(f, Params([*m.parameters(), plain, t([1, 2])])),
            lambda: withgradient(f, Params([plain])),
            lambda: pullback(f, Params([plain])),
            lambda: jacobian(f, plain),
            lambda: hessian(f, plain),
        ]
        for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
            with context():
                for call in calls:
                    before = state()
                    if fails:
                        with pytest.raises(ValueError, match="on purpose"):
                            call()
                    else:
                        call()
                    assert state() == before

    def test_what_changes_in_place_is_told_how_to_be_written(self) -> None:
        def adds(x: Any) -> Any:
            y = x.exp()
            y += 1
            return y.sum()

        w = t([1.0])
        for call in (
            lambda: gradient(lambda x: x.mul_(2).sum(), w),
            lambda: gradient(adds, w),
            lambda: gradient(lambda x: gradient(adds, x)[0].sum(), w),
            lambda: gradient(lambda: adds(w), Params([w])),
        ):
            with pytest.raises(RuntimeError, match="place operation") as e:
                call()
            if hasattr(e.value, "__notes__"):
                (note,) = e.value.__notes__
                assert "write x = x + y for x += y" in note

    def test_no_grad_inside(self) -> None:
        def f(x: Any) -> Any:
            with torch.no_grad():
                y = 2 * x
                (g,) = gradient(lambda v: v**3, x)  # of which a gradient can be taken all the same
            return y * x + g

        assert gradient(f, 3.0) == (6.0 + 18.0,) and gradient(f, t(3.0)) == (24.0,)
        assert gradient(torch.no_grad()(lambda x: 2 * x), 3.0) == (None,)

    def test_a_bad_loss_restores_too(self) -> None:
        w = t([1.0])
        with pytest.raises(TypeError):
            gradient(lambda: w * 2, Params([w]))
        assert not w.requires_grad and not within_gradient()

    @pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
    def test_works_in_every_mode(self, mode: Any) -> None:
        m = Dense(torch.ones(1, 2), False)
        w = t([2.0])
        with mode():
            x = t([[3.0], [4.0]])  # in inference mode, a tensor that torch records nothing of
            assert gradient(lambda m: m(x).sum(), m)[0].weight.tolist() == [[3, 4]]
            assert gradient(lambda x: (x * x).sum(), x)[0].tolist() == [[6], [8]]
            assert gradient(lambda: (w * x).sum(), Params([w]))[w].tolist() == [7]
            v = t([5.0])
            assert gradient(lambda: (v * x).sum(), Params([v]))[v].tolist() == [7]
            assert hessian(lambda x: (x**2).sum(), x).tolist() == [[2, 0], [0, 2]]
            d = Dense(torch.ones(1, 2), False)
            assert gradient(lambda m: m(x).sum(), d)[0].weight.tolist() == [[3, 4]]
            y, back = pullback(lambda m: m(x), m)
            assert back([[1.0]])[0].weight.tolist() == [[3, 4]] and not y.requires_grad

    def test_grad_is_never_touched(self) -> None:
        m = Dense(2 | to | 1)
        m.bias.grad = t([5.0])
        x = t([1.0, 1.0], requires_grad=True)
        gradient(lambda m, x: m(x).sum(), m, x)
        gradient(lambda: m(x).sum(), params(m))
        assert m.bias.grad.tolist() == [5] and m.weight.grad is None and x.grad is None and x.requires_grad

    def test_graph_only_when_nested(self) -> None:
        m = Dense(2 | to | 1)
        assert not gradient(lambda m: m(torch.ones(2)).sum(), m)[0].weight.requires_grad
        seen: list[bool] = []

        def outer(x: Any) -> Any:
            (g,) = gradient(lambda v: (v**3).sum(), x)
            seen.append(g.requires_grad)
            return g.sum()

        assert gradient(outer, t([2.0]))[0].tolist() == [12] and seen == [True]

    def test_nothing_is_kept_alive(self) -> None:
        import gc
        import weakref

        class Big(torch.Tensor):
            pass

        x = torch.ones(3)
        refs: list[Any] = []

        def f(x: Any) -> Any:
            y = x * 2
            refs.append(weakref.ref(y))
            return y.sum()

        gradient(f, x)
        withgradient(f, x)
        gradient(lambda: f(x), Params([x]))
        gc.collect()
        assert all(r() is None for r in refs)


class TestModes:
    def test_automatic_layers_train_inside(self) -> None:
        m = Dropout(0.5)
        x = torch.ones(1000)
        seen = withgradient(lambda x: (m(x).sum(), m(x)), x).val[1]
        assert (seen == 0).any() and torch.equal(m(x), x)

    def test_checkpointed_dropout_draws_the_same(self) -> None:
        m = Dropout(0.5)
        x = torch.randn(200)
        calls: list[bool] = []

        def f(x: Any) -> Any:
            calls.append(within_gradient())
            return m(x) ** 2

        r = withgradient(lambda x: (lambda y: (y.sum(), y))(checkpointed(f, x)), x)
        assert torch.equal(r.grad[0] != 0, r.val[1] != 0) and (r.val[1] == 0).any() and calls == [True, True]
        y, back = pullback(lambda x: checkpointed(f, x), x)
        assert torch.equal(back(torch.ones(200))[0] != 0, y != 0) and calls == [True] * 4

    def test_checkpointed_batch_norm_trains_both_times(self) -> None:
        bn = BatchNorm(2)
        x = torch.randn(2, 8)
        expected = gradient(lambda m, x: (m(x) ** 3).sum(), BatchNorm(2), x)
        got = gradient(lambda m, x: checkpointed(lambda v: (m(v) ** 3).sum(), x), bn, x)
        assert same(got[1], expected[1], 1e-5) and same(got[0].γ, expected[0].γ, 1e-5)


class TestLosses:
    @pytest.mark.parametrize(
        ("loss", "names"),
        [
            (lambda x: x * t([1.0, 2.0]), "2-element tensor of float32; for an array of results there is jacobian"),
            (lambda x: x * t([1.0]), "1-element tensor of float32; for an array"),
            (lambda x: x * 1j, r"complex\); for an array"),
            (lambda x: None, "None"),
            (lambda x: "text", "'text'"),
            (lambda x: [x], "list"),
            (lambda x: {"a": 1}, "dict"),
            (lambda x: 2j, r"\(complex\)"),
            (lambda x: relu, "function relu"),
        ],
    )
    def test_what_is_no_loss(self, loss: Any, names: str) -> None:
        w = t(2.0)
        for call in (
            lambda: gradient(loss, 2.0),
            lambda: gradient(lambda: loss(w), Params([w])),
            lambda: withgradient(loss, 2.0),
        ):
            with pytest.raises(
                TypeError, match="gradient needs a loss that is one real number, and the function returned .*" + names
            ):
                call()
        with pytest.raises(TypeError, match="gradient needs a loss"):
            gradient(lambda x: (x, x), 2.0)
        with pytest.raises(TypeError, match="empty tuple"):
            withgradient(lambda x: (), 2.0)

    @pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad")
    def test_a_plain_float_warns(self) -> None:
        w = t(2.0)
        for call in (
            lambda: gradient(lambda x: float(x.detach()), w),
            lambda: gradient(lambda x: x.item(), w),
            lambda: gradient(math.sqrt, 2.0),
            lambda: withgradient(lambda x: np.float64(3), 2.0).grad,
            lambda: tuple(gradient(lambda: w.item(), Params([w])).values()),
        ):
            with pytest.warns(UserWarning, match="plain Python float, so there is nothing to differentiate") as record:
                assert call() == (None,)
            assert [r.filename for r in record if "plain Python float" in str(r.message)] == [__file__]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert gradient(lambda x: 1, 2) == (None,)
            gradient(lambda: 1.0)

    def test_no_function(self) -> None:
        with pytest.raises(
            TypeError, match="gradient needs a function as its first argument, and got 0-dimensional tensor"
        ):
            gradient(t(1.0), t(2.0))
        with pytest.raises(TypeError, match="not both"):
            gradient(lambda x: x, Params([]), 2)


class TestValues:
    def test_a_zero_dimensional_tensor_without_a_graph(self) -> None:
        m = Dense(2 | to | 1)
        v = withgradient(lambda m: m(torch.ones(2)).sum(), m).val
        assert isinstance(v, torch.Tensor) and v.shape == () and not v.requires_grad and v.grad_fn is None

    def test_numbers_for_numbers(self) -> None:
        assert (
            type(withgradient(lambda x: x * 2, 1.5).val) is float and type(withgradient(lambda x: x * 2, 1).val) is int
        )

    def test_no_alias_of_a_parameter(self) -> None:
        w = nn.Parameter(t(3.0))
        m = Dense(torch.ones(1, 1), False)
        for val in (
            withgradient(lambda: w, Params([w])).val,
            withgradient(lambda w: w, w).val,
            withgradient(lambda m: m.weight[0, 0], m).val,
            withgradient(lambda m: (m.weight.sum(), m.weight), m).val[1],
            withgradient(lambda m: (m.weight.sum(), m.weight.view(-1)), m).val[1],
            withgradient(lambda m: (m.weight.sum(), nt(a=[m.weight.detach()])), m).val[1].a[0],
            pullback(lambda m: m.weight, m)[0],
        ):
            assert not val.requires_grad
            val += 10
        assert w.item() == 3 and m.weight.item() == 1

    def test_structures(self) -> None:
        m = Dense(1 | to | 1)
        r = withgradient(lambda m: nt(loss=m(torch.ones(1)).sum(), model=m, note="x", n=3), m)
        assert r.val.model is m and r.val.note == "x" and r.val.n == 3 and not r.val.loss.requires_grad


class TestPullback:
    def test_structures(self) -> None:
        W, x = torch.randn(2, 3), torch.randn(3)
        y, back = pullback(lambda W, x: nt(a=W @ x, b=(x.sum(), {"c": W})), W, x)
        assert torch.allclose(y.a, W @ x) and not y.a.requires_grad
        dW, dx = back(nt(a=[1.0, 0.0], b=(2.0, {"c": torch.ones(2, 3)})))
        assert torch.allclose(dW, torch.stack([x + 1, torch.ones(3)])) and torch.allclose(dx, W[0] + 2)
        dW, dx = back(nt(a=None, b=(2.0, None)))
        assert dW is None and dx.tolist() == [2, 2, 2]
        assert back(None) == (None, None)
        assert torch.allclose(back(nt(a=[1.0, 0.0], b=None))[1], W[0])

    def test_many_times(self) -> None:
        x = torch.randn(4)
        _, back = pullback(torch.sin, x)
        for _ in range(3):
            assert torch.allclose(back(torch.ones(4))[0], x.cos())

    def test_seeds_that_are_no_numbers(self) -> None:
        with pytest.raises(TypeError, match="needs a seed like its result, 1-element tensor of float32, and got 'a'"):
            pullback(lambda x: 2 * x, [1.0])[1]("a")

    def test_wrong_seeds(self) -> None:
        _, back = pullback(lambda x: (x, 2 * x), torch.randn(2))
        for seed in ((torch.ones(3), None), (torch.ones(2), torch.ones(2), torch.ones(2)), (1.0, None)):
            with pytest.raises(TypeError, match="seed like its result"):
                back(seed)

    def test_of_a_model_and_params(self) -> None:
        d = Dense(torch.ones(1, 2), False)
        y, back = pullback(lambda m, x: m(x), d, [2.0, 3.0])
        assert y.tolist() == [5] and same(back([2.0]), (nt(weight=t([[4.0, 6.0]]), bias=None, σ=None), t([2.0, 2.0])))
        W, x = t([[1, 0], [0, 1]]), t([1, 2])
        y, back = pullback(lambda: W @ x, Params([W]))
        assert y.tolist() == [1, 2] and back([1, 1])[W].tolist() == [[1, 2], [1, 2]]
        assert back(None)[W] is None

    def test_inside_a_gradient(self) -> None:
        def f(x: Any) -> Any:
            _, back = pullback(lambda v: v**3, x)
            return back(1.0)[0]

        assert gradient(f, 2.0) == (12.0,)


class TestNesting:
    def test_over_models(self) -> None:
        m = Chain(Dense(2 | to | 3, tanh), Dense(3 | to | 1))
        x = torch.randn(2, dtype=torch.float32)

        def penalty(m: Any) -> Any:
            (g,) = gradient(lambda m: m(x).sum(), m)
            return sum((v**2).sum() for layer in g.layers for v in (layer.weight, layer.bias))

        (g,) = gradient(penalty, m)
        ps = [m[0].weight, m[0].bias, m[1].weight, m[1].bias]
        first = torch.autograd.grad(m(x).sum(), ps, create_graph=True)
        expected = torch.autograd.grad(sum((v**2).sum() for v in first), ps, allow_unused=True)
        for got, want in zip(
            [g.layers[0].weight, g.layers[0].bias, g.layers[1].weight, g.layers[1].bias], expected, strict=True
        ):
            assert (got is None and want is None) or torch.allclose(got, want)

    def test_input_gradient_of_a_model(self) -> None:
        m = Chain(Dense(2 | to | 3, tanh), Dense(3 | to | 1))
        x = torch.randn(2)
        (g,) = gradient(lambda m: (gradient(lambda x: m(x).sum(), x)[0] ** 2).sum(), m)
        v = x.clone().requires_grad_()
        (gx,) = torch.autograd.grad(m(v).sum(), v, create_graph=True)
        assert torch.allclose(g.layers[0].weight, torch.autograd.grad((gx**2).sum(), m[0].weight)[0])

    @pytest.mark.parametrize("x", [2.0, t(2.0), t([2.0])])
    def test_third_order(self, x: Any) -> None:
        d = lambda f: lambda x: (lambda g: g.sum() if isinstance(g, torch.Tensor) else g)(gradient(f, x)[0])  # noqa: E731
        f = lambda x: (x**5).sum() if isinstance(x, torch.Tensor) else x**5  # noqa: E731
        assert d(f)(x) == 80 and d(d(f))(x) == 160 and d(d(d(f)))(x) == 240

    def test_implicit_in_implicit(self) -> None:
        W, b = torch.ones(3, 3), torch.zeros(3)
        ps, r = Params([W, b]), torch.ones(3, 3)

        def f() -> Any:
            _, back = pullback(lambda: (W @ r + b[:, None]).sum(), ps)
            return back(1)[W].sum()

        assert gradient(f, ps)[W] is None  # it is linear
        f2 = lambda: (gradient(lambda: (W**3).sum(), ps)[W] ** 2).sum()  # noqa: E731
        assert gradient(f2, ps)[W].tolist() == [[36] * 3] * 3

    def test_explicit_in_implicit_and_back(self) -> None:
        w = t([2.0])
        assert gradient(lambda: gradient(lambda x: (w * x**2).sum(), t([3.0]))[0].sum(), Params([w]))[w].tolist() == [6]
        f = lambda x: gradient(lambda: (w**2 * x).sum(), Params([w]))[w].sum()  # noqa: E731
        assert gradient(f, t([5.0]))[0].tolist() == [4]

    def test_numbers_in_structures(self) -> None:
        f = lambda p: p.a**3 * p.b  # noqa: E731
        g = gradient(lambda p: gradient(f, p)[0].a, nt(a=2.0, b=5.0))
        assert g == (nt(a=60.0, b=12.0),)


class TestConstants:
    def test_ignore(self) -> None:
        assert gradient(lambda x: ignore(lambda: x * x), 1) == (None,)
        assert gradient(lambda x: x * ignore_derivatives(x), 3.0) == (3.0,)
        assert gradient(lambda x: x * ignore_derivatives(lambda: x**2), 3.0) == (9.0,)
        assert gradient(lambda x: x * dropgrad(nt(a=(x, "s"))).a[0], 3) == (3.0,)
        m = Dense(torch.ones(1, 1), False)
        assert gradient(lambda m: (m.weight * dropgrad(m).weight).sum(), m)[0].weight.tolist() == [[1]]
        assert ignore_derivatives(5) == 5 and dropgrad("s") == "s"

    def test_ignored_work_is_still_done_in_training_mode(self) -> None:
        assert gradient(lambda x: x * ignore(lambda: float(within_gradient())), 3.0) == (1.0,)

    def test_non_differentiable(self) -> None:
        @non_differentiable
        def scale(x: Any, *, by: Any = 10) -> Any:
            "It scales."
            return by * x

        assert gradient(lambda x: x * scale(x), 2.0) == (20.0,) and scale.__doc__ == "It scales."
        assert gradient(lambda x: (x * scale(x, by=3)).sum(), t([2.0]))[0].tolist() == [6]

    def test_checkpointed(self) -> None:
        calls: list[int] = []

        def counted(f: Any, k: int) -> Any:
            def g(*x: Any) -> Any:
                calls.append(k)
                return f(*x)

            return g

        f, g, h = counted(torch.sin, 1), counted(torch.cos, 2), counted(torch.exp, 3)
        y, back = pullback(lambda x: h(g(f(x))), 4.0)
        assert calls == [1, 2, 3] and back(1.0) and calls == [1, 2, 3]
        calls.clear()
        y2, back2 = pullback(lambda x: checkpointed(lambda v: h(g(f(v))), x), 4.0)
        assert y2 == y and calls == [1, 2, 3] and math.isclose(back2(1.0)[0], back(1.0)[0])
        assert calls == [1, 2, 3, 1, 2, 3] and back2(2.0)[0] == 2 * back(1.0)[0] and len(calls) == 9
        assert gradient(lambda x: checkpointed(lambda v: v**3, x), 2) == (12.0,)
        assert gradient(lambda x: gradient(lambda y: checkpointed(lambda v: v**3, y), x)[0], 2.0) == (12.0,)
        m = Dense(2 | to | 1)
        x = torch.randn(2)
        assert same(gradient(lambda m: checkpointed(m, x).sum(), m), gradient(lambda m: m(x).sum(), m), 1e-6)


class TestThreads:
    def test_work_done_in_threads_counts(self) -> None:
        m = Dense(2 | to | 1)
        with ThreadPoolExecutor(2) as pool:
            f = lambda m: sum(pool.map(lambda k: m(k * torch.ones(2)).sum(), range(3)))  # noqa: E731
            assert gradient(f, m)[0].bias.item() == 3 and gradient(f, m)[0].weight.tolist() == [[3, 3]]
            assert gradient(lambda: f(m), params(m))[m.bias].item() == 3

    def test_one_model_and_one_tensor_in_many_threads(self) -> None:
        m = Chain(Dense(3 | to | 4, tanh), Dropout(0.0), Dense(4 | to | 1))
        x, w = torch.randn(3, 5), torch.randn(3, 1)
        f = lambda m: (m(x * w) ** 2).sum()  # noqa: E731
        explicit = gradient(f, m)
        plain = gradient(lambda w: (m(x * w) ** 2).sum(), w)[0]
        errors: list[BaseException] = []

        def work(k: int) -> None:
            try:
                for i in range(60):
                    if (i + k) % 3 == 0:
                        assert same(gradient(f, m), explicit, 1e-5)
                    elif (i + k) % 3 == 1:
                        assert torch.allclose(gradient(lambda: (m(x * w) ** 2).sum(), Params([w]))[w], plain, atol=1e-5)
                    else:
                        with torch.no_grad():
                            assert torch.allclose(gradient(lambda w: (m(x * w) ** 2).sum(), w)[0], plain, atol=1e-5)
                            assert not torch.is_grad_enabled() and not within_gradient()
            except BaseException as e:
                errors.append(e)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors, errors[0]
        assert not w.requires_grad and not x.requires_grad


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestOnAGPU:
    """The same numbers as on the CPU, where torch goes back in threads of its own."""

    def test_everything(self) -> None:
        m = Chain(Dense(3 | to | 4, tanh), Dense(4 | to | 1))
        x, i = torch.randn(3, 5), t([0, 2, 2])
        target = m(x)

        def penalty(m: Any, x: Any) -> Any:
            (g,) = gradient(lambda m: ((m(x) - target.to(x.device)) ** 2).mean() + m(x).sum(), m)
            return sum((v**2).sum() for layer in g.layers for v in (layer.weight, layer.bias) if v is not None)

        functions: list[Callable[..., Any]] = [
            lambda m, x, i, c: (m(x) ** 2).sum() * c,
            lambda m, x, i, c: x[i].sum() * c + m(x).mean(),
            lambda m, x, i, c: penalty(m, x) * c,
            lambda m, x, i, c: checkpointed(m, x).sum() * c,
            lambda m, x, i, c: gradient(lambda v: (m(v) ** 3).sum(), x)[0].pow(2).sum() * c,
            lambda m, x, i, c: ((m(x) - target.to(x.device)) ** 2).sum() + c * gradient(lambda v: v**3, c)[0],
        ]
        for f in functions:
            here = gradient(f, m, x, i, 0.5)
            there = gradient(f, copy.deepcopy(m).cuda(), x.cuda(), i.cuda(), 0.5)
            assert same(Flux.cpu(there), here, 1e-4)
        w = torch.ones(3, device="cuda")
        ids = t([0, 2], device="cuda")
        assert gradient(lambda: (w**2)[ids].sum(), Params([w, ids]))[w].tolist() == [2, 0, 2]
        assert withgradient(lambda: w.sum(), Params([w])).val.is_cuda


# -- against finite differences and torch -----------------------------------------------------------

smooth = [torch.sin, torch.tanh, torch.exp, lambda x: x * x, lambda x: 1 / (2 + x * x), torch.sigmoid, lambda x: x - 3]
joins = [
    operator.add,
    operator.sub,
    operator.mul,
    lambda a, b: a / (2 + b * b),
    torch.maximum,
    lambda a, b: (a @ a) * b,
]


@st.composite
def programs(draw: Any) -> Callable[..., Any]:
    """A random function of two vectors and a number."""
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from(smooth), st.sampled_from(joins), st.integers(0, 9), st.integers(0, 9)), max_size=6
        )
    )

    def f(x: Any, y: Any, c: Any) -> Any:
        values = [x, y, x * c, y + c]
        for g, join, i, j in steps:
            values.append(join(g(values[i % len(values)] / 4), values[j % len(values)] / 4))
        return values[-1].sum() + values[0].prod() * c

    return f


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 1000))
def test_against_finite_differences(f: Any, seed: int) -> None:
    torch.manual_seed(seed)
    x, y = torch.rand(3, dtype=torch.float64) + 0.5, torch.rand(3, dtype=torch.float64) + 2
    c = 0.75
    grads = gradient(f, x, y, c)
    h = 1e-6
    for k, v in enumerate((x, y)):
        for i in range(3):
            d = torch.zeros(3, dtype=torch.float64)
            d[i] = h
            up, down = (
                [a + d if j == k else a for j, a in enumerate((x, y))],
                [a - d if j == k else a for j, a in enumerate((x, y))],
            )
            slope = (f(*up, c) - f(*down, c)) / (2 * h)
            found = 0.0 if grads[k] is None else grads[k][i]
            assert abs(slope - found) <= 1e-4 * max(1, abs(slope)), (v, i)
    slope = (f(x, y, c + h) - f(x, y, c - h)) / (2 * h)
    assert abs(slope - grads[2]) <= 1e-4 * max(1, abs(slope))


@settings(max_examples=40, deadline=None)
@given(programs(), st.integers(0, 1000))
def test_structure_makes_no_difference(f: Any, seed: int) -> None:
    torch.manual_seed(seed)
    x, y, c = torch.rand(3), torch.rand(3) + 2, 0.75
    x1, y1, c1 = gradient(f, x, y, c)
    packed = gradient(
        lambda v: f(v.a[0], v.b["y"], v.c.value), NamedTuple.of({"a": [x], "b": {"y": y}, "c": Struct(value=c)})
    )[0]
    assert same(packed.a[0], x1) and packed.c.value == c1
    assert y1 is None or same(packed.b["y"], y1)
    gs = gradient(lambda: f(x, y, c), Params([x, y]))
    assert same(gs[x], x1) and (gs[y] is None if y1 is None else same(gs[y], y1))
    assert torch.allclose(withgradient(f, x, y, c).val.float(), f(x, y, c))


@settings(max_examples=25, deadline=None)
@given(programs(), st.integers(0, 1000))
def test_second_derivatives_against_torch(f: Any, seed: int) -> None:
    torch.manual_seed(seed)
    x, y = torch.rand(3, dtype=torch.float64), torch.rand(3, dtype=torch.float64) + 2
    H = torch.autograd.functional.hessian(lambda x: f(x, y, 0.75), x)
    assert torch.allclose(hessian(lambda x: f(x, y, 0.75), x), H, rtol=1e-8, atol=1e-10)
    assert torch.allclose(diaghessian(f, x, y, 0.75)[0], H.diag(), rtol=1e-8, atol=1e-10)
    J = torch.autograd.functional.jacobian(lambda x: x * f(x, y, 0.75), x)
    assert torch.allclose(jacobian(lambda x: x * f(x, y, 0.75), x)[0], J)


@pytest.mark.parametrize(
    "layer",
    [Dense(3 | to | 2, tanh), Dense(3 | to | 2, relu, bias=False), Chain(Dense(3 | to | 4, tanh), Dense(4 | to | 2))],
)
def test_layers_against_torch(layer: Layer) -> None:
    layer = Flux.f64(layer)
    x = torch.randn(3, 5, dtype=torch.float64)
    ps = [p for p in layer.parameters()]
    expected = torch.autograd.grad((layer(x) ** 2).sum(), ps)
    gs = gradient(lambda: (layer(x) ** 2).sum(), params(layer))
    assert all(torch.allclose(gs[p], e) for p, e in zip(ps, expected, strict=True))
    v = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(layer, (v,))
    (dx,) = gradient(lambda x: (layer(x) ** 2).sum(), x)
    assert torch.allclose(dx, torch.autograd.grad((layer(v) ** 2).sum(), v)[0])


def test_fields_of_a_class_that_says_nothing_of_them() -> None:
    class Affine:
        def __init__(self) -> None:
            self.W = torch.ones(2, 2)

    with pytest.warns(UserWarning, match=r"what is in a Affine \(W\).*make the class a Layer"):
        assert gradient(lambda a: a.W.sum(), Affine()) == (None,)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradient(lambda x, f, t: (x**2).sum(), torch.ones(2), tanh, torch.float32)
