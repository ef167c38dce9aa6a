"""`destructure` and `modules`: the tests of Optimisers.jl and Flux, and second derivatives on top."""

import io
import operator

import pytest
import torch
from torch import nn

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch.base import abs2, sum


def f64s(*xs):
    return torch.tensor(xs, dtype=torch.float64)


class Foo:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def trainable(self):
        return nt(y=self.y, x=self.x)


class TwoThirds:
    def __init__(self, a, b, c):
        self.a, self.b, self.c = a, b, c

    def trainable(self):
        return nt(a=self.a)


functor(Foo)
functor(TwoThirds, ("a", "c"))

m1 = f64s(1, 2, 3)
m2 = (f64s(1, 2, 3), f64s(4, 5, 6))
m3 = nt(x=m1, y=torch.sin, z=f64s(4, 5, 6))
m4 = nt(x=m1, y=m1, z=f64s(4, 5, 6))
m5 = nt(a=(m3, True), b=(m1, False), c=(m4, True))
m6 = nt(a=m1, b=torch.tensor([4.0 + 1j], dtype=torch.complex128), c=m1)
m7 = TwoThirds((torch.sin, f64s(1, 2, 3)), (torch.cos, f64s(4, 5, 6)), (torch.tan, f64s(7, 8, 9)))
m8 = [Foo(m1, m1), nt(a=True, b=Foo(f64s(4), False), c=()), [[f64s(5)]]]
mat = torch.tensor([[4.0, 6.0], [5.0, 7.0]])
m9 = nt(a=m1, b=mat, c=(mat, m1))


@pytest.mark.parametrize(
    ("m", "expected"),
    [
        (m1, [1, 2, 3]),
        (m2, [1, 2, 3, 4, 5, 6]),
        (m3, [1, 2, 3, 4, 5, 6]),
        (m4, [1, 2, 3, 4, 5, 6]),
        (m5, [1, 2, 3, 4, 5, 6, 4, 5, 6]),
        (m6, [1, 2, 3, 4 + 1j]),
        (m7, [1, 2, 3]),
        (m8, [1, 2, 3, 4, 5]),
        (m9, [1, 2, 3, 4, 5, 6, 7]),
        ((None, torch.tensor([[1, 2], [3, 4]]), (3, torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 4)), [1, 3, 2, 4]),
    ],
)
def test_flatten(m, expected):
    flat, re = destructure(m)
    assert flat.tolist() == expected
    assert len(re) == len(expected)
    assert not flat.requires_grad


def test_flat_is_a_copy_in_the_common_type():
    assert destructure(m1)[0].dtype == torch.float64
    assert destructure(m9)[0].dtype == torch.float64
    assert destructure(m6)[0].dtype == torch.complex128
    assert (
        destructure((torch.ones(1, dtype=torch.float16), torch.ones(1, dtype=torch.bfloat16)))[0].dtype == torch.float32
    )
    x = torch.ones(2)
    destructure(x)[0].zero_()
    destructure((x,))[0].zero_()
    assert x.tolist() == [1, 1]


def test_rebuild():
    assert destructure(m1)[1]([7, 8, 9]).tolist() == [7, 8, 9]
    assert [v.tolist() for v in destructure(m2)[1](range_(4, 9))] == [[4, 5, 6], [7, 8, 9]]
    r3 = destructure(m3)[1](range_(4, 9))
    assert r3 == nt(x=f64s(4, 5, 6), y=torch.sin, z=f64s(7, 8, 9))
    assert r3.x.dtype == torch.float64
    r4 = destructure(m4)[1](range_(4, 9))
    assert r4.x is r4.y
    assert r4 == nt(x=f64s(4, 5, 6), y=f64s(4, 5, 6), z=f64s(7, 8, 9))
    r5 = destructure(m5)[1](range_(1, 9).flip(0))
    assert r5.a[0].x is r5.b[0]
    assert r5.b[1] is False
    r6 = destructure(m6)[1](torch.tensor([4 + 1j, 5 + 2j, 6 + 3j, 7 + 4j]))
    assert r6.a.dtype == torch.float64
    assert r6.a.tolist() == [4, 5, 6]
    assert r6.a is r6.c
    assert r6.b.tolist() == [7 + 4j]
    r7 = destructure(m7)[1]([10, 20, 30])
    assert (r7.a[0], r7.a[1].tolist()) == (torch.sin, [10, 20, 30])
    assert r7.b is m7.b
    assert (r7.c[0], r7.c[1].tolist()) == (torch.tan, [7, 8, 9])
    r8 = destructure(m8)[1](range_(1, 5))
    assert r8[0].x is r8[0].y
    assert r8[1].b.y is False
    assert r8[2][0][0].tolist() == [5]
    r9 = destructure(m9)[1](10 * range_(1, 7))
    assert r9.b is r9.c[0]
    assert r9.b.dtype == torch.float32
    assert r9.b.tolist() == [[40, 60], [50, 70]]


def range_(a, b):
    return torch.arange(float(a), b + 1)


def test_where_it_lives():
    assert Flux.optimisers.destructure is Flux.Optimisers.destructure is Flux.destructure is destructure
    v, re = Flux.optimisers.destructure(torch.ones(2))
    assert isinstance(re, Flux.Restructure) and re(v).tolist() == [1, 1]


def test_wrong_lengths():
    re = destructure(m7)[1]
    for n in (2, 4):
        with pytest.raises(DimensionMismatch, match=f"Rebuild expected a vector of length 3, got {n}"):
            re(torch.ones(n))
    for wrong, got in ((torch.ones(3, 1), "3×1 tensor"), (3, "3"), (None, "None"), (["a"], "list")):
        with pytest.raises(TypeError, match=f"expected a vector of length 3, got {got}"):
            re(wrong)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'flat'"):
        re()


def test_show():
    m = Chain(Dense(10 | to | 5, relu), Dense(5 | to | 2), softmax)
    for x, text in (
        (m, "Restructure(Chain, ..., 67)"),
        (m[0].weight, "Restructure(Array, ..., 50)"),
        (m2, "Restructure(Tuple, ..., 6)"),
        (m3, "Restructure(NamedTuple, ..., 6)"),
    ):
        assert repr(destructure(x)[1]) == text


def test_the_manual():
    model = Chain(Dense(torch.tensor([[0.5, 1.5]]), torch.zeros(1), tanh), Dense(torch.tensor([[-1.5]])))
    flat, rebuild = destructure(model)
    assert flat.tolist() == [0.5, 1.5, 0, -1.5, 0]
    assert repr(rebuild(torch.zeros(5))) == (
        "Chain(\n"
        "  Dense(2 => 1, tanh),                  # 3 parameters  (all zero)\n"
        "  Dense(1 => 1),                        # 2 parameters  (all zero)\n"
        ")                   # Total: 4 arrays, 5 parameters, 20 bytes."
    )
    x = torch.rand(2, 16)
    grad = gradient(lambda m: abs2(m(x)).sum(), model)

    def loss(v):
        return abs2(rebuild(v)(x)).sum()

    flat_grad = gradient(loss, flat)[0]
    assert torch.allclose(flat_grad, destructure(grad)[0])
    assert repr(destructure(grad)[1]) == "Restructure(Tuple, ..., 5)"
    assert torch.allclose(hessian(loss, flat), torch.autograd.functional.hessian(loss, flat), atol=1e-5)
    assert torch.allclose(rebuild(x, flat), model(x))
    assert [p.shape for p in trainables(model)] == [(1, 2), (1,), (1, 1), (1,)]


def test_the_rebuilt_model_is_one_to_train_and_shares_nothing_that_is_trained():
    m = Chain(Conv((2, 2), 1 | to | 3), BatchNorm(3), flatten, Dense(12 | to | 2))
    x = rand32(3, 3, 1, 4)
    flat, re = destructure(m)
    before = flat.clone()
    new = re(flat)
    assert torch.equal(new(x), m(x))
    assert len(params(new)) == len(params(m))
    assert all(p.is_leaf and p.requires_grad and isinstance(p, Flux.Parameter) for p in params(new))
    assert new[1].μ is m[1].μ
    assert new[0].weight.stride() == m[0].weight.stride()
    opt = setup(Descent(0.1), new)
    update_(opt, new, gradient(lambda m: abs2(m(x)).sum(), new)[0])
    assert torch.equal(flat, before)
    assert torch.equal(destructure(m)[0], flat)
    assert not torch.equal(destructure(new)[0], flat)


def test_without_gradients_nothing_is_shared_with_a_vector_that_has_one():
    _, re = destructure(Dense(2 | to | 1))
    flat = torch.zeros(3, requires_grad=True)
    with torch.no_grad():
        m = re(flat)
        m.weight += 1
    assert flat.tolist() == [0, 0, 0]
    re(flat)(torch.ones(2)).sum().backward()  # torch's own way
    assert flat.grad.tolist() == [1, 1, 1]


def test_frozen_parameters_are_left_out():
    m = Dense(2 | to | 1)
    m.weight.requires_grad_(False)
    flat, re = destructure(m)
    assert flat.tolist() == [0]
    assert re([5]).weight is m.weight
    assert re([5]).bias.tolist() == [5]


def test_a_model_that_has_got_other_arrays_since():
    m = Dense(2 | to | 1)
    flat, re = destructure(m)
    m.weight = torch.ones(1, 2)
    with pytest.raises(ValueError, match="other arrays"):
        re(flat)


def test_torch_modules():
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    flat, re = destructure(net)
    assert len(flat) == 15
    assert flat[:6].tolist() == net[0].weight.t().flatten().tolist()
    x = torch.rand(4, 2)
    net.eval()
    assert torch.equal(re(flat)(x), net(x))
    assert gradient(lambda v: re(v)(x).sum(), flat)[0].shape == (15,)


# -- gradients ---------------------------------------------------------------------------------------


def test_gradient_of_flatten():
    assert gradient(lambda m: destructure(m)[0][0], m1)[0].tolist() == [1, 0, 0]
    assert [g.tolist() for g in gradient(lambda m: destructure(m)[0][1], m2)[0]] == [[0, 1, 0], [0, 0, 0]]
    g = gradient(lambda m: destructure(m)[0][2], (m1, m1))[0]
    assert g[0].tolist() == [0, 0, 1]
    assert g[1] is None
    assert gradient(lambda m: destructure(m)[0][0], m3)[0] == nt(x=f64s(1, 0, 0), y=None, z=f64s(0, 0, 0))
    assert gradient(lambda m: destructure(m)[0][1], m4)[0] == nt(x=f64s(0, 1, 0), y=None, z=f64s(0, 0, 0))
    g5 = gradient(lambda m: destructure(m)[0][2], m5)[0]
    assert g5.a[0].x.tolist() == [0, 0, 1]
    assert g5.a[1] is None
    g6 = gradient(lambda m: destructure(m)[0][3].imag, m6)[0]
    assert g6.a.tolist() == [0, 0, 0]
    assert g6.a.dtype == torch.float64
    assert g6.b.tolist() == [1j]
    g8 = gradient(lambda m: abs2(destructure(m)[0]).sum(), m8)[0]
    assert sum(v for v in (g8[0].x, g8[0].y) if v is not None).tolist() == [2, 4, 6]
    assert g8[1].b.x.tolist() == [8]
    assert g8[2][0][0].tolist() == [10]
    g9 = gradient(lambda m: destructure(m)[0].sqrt().sum(), m9)[0]
    assert g9.c is None
    assert torch.allclose(g9.b, 0.5 / mat.sqrt())


def test_views_made_inside_are_arrays_of_their_own():
    x = f64s(1, 2, 3)
    for make, expected in (
        (lambda v: (v[:2], v[:2]), [4, 8, 0]),
        (lambda v: nt(a=v[1:], b=(v[1:], v)), [2, 12, 18]),
    ):
        (g,) = gradient(lambda v, make=make: abs2(destructure(make(v))[0]).sum(), x)
        assert g.tolist() == expected


def test_gradient_of_flatten_by_a_model():
    m = Chain(Dense(2 | to | 3), Dense(3 | to | 1, bias=False))
    (g,) = gradient(lambda m: abs2(destructure(m)[0]).sum(), m)
    assert torch.equal(g.layers[0].weight, 2 * m[0].weight.detach())
    assert torch.equal(g.layers[1].weight, 2 * m[1].weight.detach())
    gs = gradient(lambda: destructure(m)[0].sum(), params(m))
    assert all(torch.equal(gs[p], torch.ones_like(p)) for p in params(m))
    d = Dense(2 | to | 2)
    tied = Chain(d, d)
    (g,) = gradient(lambda m: abs2(destructure(m)[0]).sum(), tied)
    assert torch.equal(g.layers[0].weight, 2 * d.weight.detach())
    assert g.layers[1] is None


def test_second_derivative_of_flatten():
    v, w = f64s(1, 2, 3), f64s(4, 5, 6)

    def squares(make):
        return gradient(lambda v: abs2(gradient(lambda m: abs2(destructure(m)[0]).sum(), make(v))[0][0]).sum(), v)[0]

    assert squares(lambda v: (v, w)).tolist() == [8, 16, 24]
    assert squares(lambda v: nt(x=v, y=torch.sin, z=w)).tolist() == [8, 16, 24]
    cube = gradient(lambda v: gradient(lambda m: destructure(m)[0].sum() ** 3, (v, w))[0][0].sum(), v)[0]
    assert cube.tolist() == [378, 378, 378]


def test_gradient_of_rebuild():
    def by(f, re):
        return gradient(lambda v: f(re(v)), torch.rand(len(re), dtype=torch.float64))[0]

    def re(m):
        return destructure(m)[1]

    assert by(lambda m: m[0], re(m1)).tolist() == [1, 0, 0]
    assert by(lambda m: m[0][1], re(m2)).tolist() == [0, 1, 0, 0, 0, 0]
    assert by(lambda m: m.x[2], re(m3)).tolist() == [0, 0, 1, 0, 0, 0]
    assert by(lambda m: m.z[0], re(m3)).tolist() == [0, 0, 0, 1, 0, 0]
    assert by(lambda m: m.x[0], re(m4)).tolist() == [1, 0, 0, 0, 0, 0]
    assert by(lambda m: m.y[1], re(m4)).tolist() == [0, 1, 0, 0, 0, 0]
    assert by(lambda m: m.x[0] + 2 * m.y[1] + 3 * m.z[2], re(m4)).tolist() == [1, 2, 0, 0, 0, 3]
    assert by(lambda m: m.a[1][2], re(m7)).tolist() == [0, 0, 1]
    assert by(lambda m: m.b[1][1], re(m7)) is None
    assert by(lambda m: m.c[1][0], re(m7)) is None
    v8, re8 = destructure(m8)
    assert gradient(lambda x: abs2(re8(x)[0].y).sum(), v8)[0].tolist() == [2, 4, 6, 0, 0]
    assert gradient(lambda x: re8(x)[2][0][0][0] ** 2, v8)[0].tolist() == [0, 0, 0, 0, 10]
    assert gradient(lambda x: abs2(re(m9)(x).c[0]).sum(), list(range(1, 8)))[0].tolist() == [0, 0, 0, 8, 10, 12, 14]


def test_second_derivative_of_rebuild():
    _, re2 = destructure(m2)
    y = f64s(1, 2, 3, 4, 5, 6)
    g = gradient(lambda y: abs2(gradient(lambda x: abs2(re2(x)[0]).sum(), y)[0]).sum(), y)[0]
    assert g.tolist() == [8, 16, 24, 0, 0, 0]
    re = destructure(nt(a=torch.rand(2, 2, dtype=torch.float64), b=torch.rand(3, 1, 2, dtype=torch.float64)))[1]
    v = torch.rand(10, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda v: (re(v).a ** 3).sum() * re(v).b.sin().sum(), (v,))


def test_flux_issue_1826():
    v, re = destructure(nt(x=f64s(1, 2), y=f64s(3, 4, 5)))
    zero = torch.zeros_like(v)
    assert gradient(lambda w: 5 * re(w).x.sum() + 7 * re(w)[1].sum(), zero)[0].tolist() == [5, 5, 7, 7, 7]
    assert gradient(lambda w: re(w).x.sum(), zero)[0].tolist() == [1, 1, 0, 0, 0]

    sh = f64s(7, 7)
    v, re = destructure(nt(x=sh, y=f64s(3, 4), z=sh))
    assert v.tolist() == [7, 7, 3, 4]
    assert re([1, 10, 100, 1000]) == nt(x=f64s(1, 10), y=f64s(100, 1000), z=f64s(1, 10))
    zero = torch.zeros_like(v)
    for f, expected in (
        (lambda m: 3 * m.x.sum() + 13 * m.z.sum(), [16, 16, 0, 0]),
        (lambda m: 4 * (m.x.sum() + m.z.sum()), [8, 8, 0, 0]),
        (lambda m: 4 * (m.x.sum() + m.y.sum()) + 13 * m.z.sum(), [17, 17, 4, 4]),
    ):
        assert gradient(lambda w, f=f: f(re(w)), zero)[0].tolist() == expected


def test_pullback_of_rebuild():
    _, re = destructure(nt(x=torch.tensor([1.0, 2]), y=torch.tensor([3.0, 4, 5])))
    _, back = pullback(re, torch.ones(5))
    assert back(nt(x=None, y=[10, 20, 30]))[0].dtype == torch.float32
    assert back(nt(x=None, y=[10.0, 20, 30]))[0].tolist() == [0, 0, 10, 20, 30]
    assert torch.allclose(back(nt(x=[1.2, 3.4], y=[5.0, 6, 7]))[0], torch.tensor([1.2, 3.4, 5, 6, 7]))


def test_empty():
    m0 = (None, ..., isinstance)
    flat, re = destructure(m0)
    assert flat.shape == (0,)
    assert re(torch.empty(0)) is m0
    with pytest.raises(DimensionMismatch):
        re([1.0])
    halves = [
        nt(x=None, y=0),
        nt(x=torch.tensor([1, 2], dtype=torch.float16), y=torch.tensor([3], dtype=torch.float16)),
    ]
    both = torch.cat([destructure(halves[0])[0], destructure(halves[1])[0]])
    assert both.dtype == torch.float16
    assert torch.equal(both, destructure(halves)[0])
    for m in (("a", "beta"), (3, 4)):
        y, back = pullback(lambda x: destructure(x)[0].sum(), m)
        assert y == 0
        assert back(1)[0] is None


def dm(bias):
    def ls(n, m):
        return torch.arange(1.0, n * m + 1).reshape(m, n).t()

    return Chain(*[Dense(ls(o, i), bias(o)) for i, o in ((3, 5), (5, 4), (4, 3))])


@pytest.mark.parametrize("bias", [zeros32, lambda _: False])
def test_flux_models(bias):
    m = dm(bias)
    p, re = destructure(m)
    for l1, l2 in zip(re(p), m, strict=True):
        assert torch.equal(l1.weight, l2.weight)
        assert l1.bias is False if l2.bias is False else torch.equal(l1.bias, l2.bias)
    x = rand32(3, 1)
    dm_ = gradient(lambda m: m(x).sum(), m)[0]
    dp = gradient(lambda θ: re(θ)(x).sum(), p)[0]
    assert torch.allclose(dp, destructure(dm_)[0])


def test_flux_issue_1601_of_a_layer_that_is_not_used():
    class TwoDenses(Layer):
        dense: Dense
        dense2: Dense

        def __call__(self, x):
            return self.dense(x)

    p, re = destructure(TwoDenses(Dense(3, 1), Dense(3, 2)))
    _, back = pullback(lambda x, p: re(p)(x), [1.0, 2.0, 3.0], p)
    dx, dp = back([4.0])
    assert len(dp) == len(p) == 12
    assert torch.allclose(dx, 4 * p[:3])
    assert dp.tolist() == [4, 8, 12, 4, 0, 0, 0, 0, 0, 0, 0, 0]


def test_flux_issue_1727_of_batch_normalisation():
    p, re = destructure(BatchNorm(3))
    assert len(p) == 6
    x = rand32(3, 4)
    _, back = pullback(lambda x, p: vec(re(p)(x)), x, p)
    dx, dp = back(torch.ones(12))
    assert dx.shape == x.shape
    assert dp[:3].tolist() == [4, 4, 4]
    assert torch.allclose(dp[3:], torch.zeros(3), atol=1e-5)


def test_flux_issue_1826_of_one_of_several_outputs():
    class Split(Layer):
        paths: tuple

        def __call__(self, x):
            return tuple(f(x) for f in self.paths)

    model = Chain(Dense(5, 11), Split((Dense(11, 3), Dense(11, 7))))
    x, (p, re) = rand32(5, 13), destructure(model)
    dp = gradient(lambda p: abs2(re(p)(x)[0]).sum(), p)[0]
    whole = gradient(lambda m: abs2(m(x)[0]).sum(), model)[0]
    assert whole.layers[1].paths[1] is None
    assert torch.allclose(dp, torch.cat([destructure(whole)[0], torch.zeros(84)]), rtol=1e-4, atol=1e-4)


def test_flux_issue_1767_of_shared_layers():
    class Model(Layer):
        a: Dense
        b: Dense

        def __call__(self, x):
            return self.a(x) + self.b(x)

    d = Dense(1, 1)
    x = rand32(1, 1)
    model = Model(d, d)
    g1 = gradient(lambda: model(x).sum(), params(model))
    p, re = destructure(model)
    assert len(p) == 2
    m = re(p)
    assert m.a is m.b
    g2 = gradient(lambda p: re(p)(x).sum(), p)[0]
    assert torch.allclose(g2, torch.cat([g1[d.weight][0], g1[d.bias]]))


@pytest.mark.parametrize("kind", [RNN, LSTM, GRU])
def test_the_first_state_of_a_recurrent_layer_is_differentiated(kind):
    m = kind(2 | to | 3)
    x = rand32(2, 4, 5)
    p, re = destructure(m)
    dp = gradient(lambda v: re(v)(x).sum(), p)[0]
    reset_(m)
    dm_ = gradient(lambda m: m(x).sum(), m)[0]
    assert torch.allclose(dp, destructure(dm_)[0], atol=1e-6)
    assert dp[-3:].all()


# -- modules -----------------------------------------------------------------------------------------


def test_modules():
    c, norm = Conv((2, 3), 4 | to | 5, pad=6, stride=7), LayerNorm(8)
    skip = SkipConnection(c, operator.add)
    m = Chain(skip, norm)
    found = modules(m)
    assert len(found) == 6
    assert found[0] is m
    assert found[1] == (skip, norm)
    assert found[2] is skip
    assert found[3] is c
    assert found[4] is norm
    assert found[5] is norm.diag
    assert len(modules(Parallel(Bilinear((2, 2) | to | 2, torch.sin), Dense(2, 2, torch.abs), Dense(2, 2, abs2)))) == 5
    found = modules(Chain(Dense(2, 3), BatchNorm(3), LSTM(3, 4)))
    assert len(found) == 6
    assert isinstance(found[-1], Flux.LSTMCell)
    d = Dense(2, 2)
    m = Chain([d, d])
    assert [id(x) for x in modules(m)] == [id(m), id(m.layers), id(d)]
    net = nn.Sequential(nn.Linear(1, 1))
    assert modules(net) == [net, net[0]]


def test_a_class_in_a_model_is_a_leaf_and_stays_what_it_is():
    class Made(Layer):
        kind: type
        made: Dense

    m = Made(Dense, Dense(2, 1))
    assert modules(m) == [m, m.made] and modules(Dense) == []
    assert destructure(Dense)[0].tolist() == [] and len(destructure(m)[0]) == 3
    assert state(m).kind == () and testmode_(m) is m
    assert len(params(m)) == len(params(Dense(2, 1))) == 2


def test_a_penalty_over_modules():
    m = Chain(Chain(Dense(3, 2), BatchNorm(2, relu)), Dense(2, 1))

    def penalty(m):
        return sum(abs2(x.weight).sum() for x in modules(m) if isinstance(x, Dense))

    (g,) = gradient(penalty, m)
    assert torch.equal(g.layers[0].layers[0].weight, 2 * m[0][0].weight.detach())
    assert g.layers[0].layers[0].bias is None


def test_through_a_file():
    file = io.BytesIO()
    flat, re = destructure(Dense(2 | to | 1))
    torch.save(flat, file)
    file.seek(0)
    assert torch.equal(destructure(re(torch.load(file)))[0], flat)
