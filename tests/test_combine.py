from __future__ import annotations

import math
import operator
import pickle

import pytest
import torch
from torch import nn

from fluxtorch.base import abs2, cat, cos, hcat, identity, log, rand, sin, sqrt, tanh, vcat, zeros
from fluxtorch.devices import f64
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import children, fmap
from fluxtorch.initialisers import ones32, rand32, randn32, zeros32
from fluxtorch.layers import Chain, Conv, Dense, Layer, layer
from fluxtorch.layers.combine import Bilinear, PairwiseFusion, Parallel, SkipConnection
from fluxtorch.namedtuples import NamedTuple, nt
from fluxtorch.nnlib import relu
from fluxtorch.onehotarrays import onehotbatch
from fluxtorch.optimisers import Descent
from fluxtorch.outputsize import outputsize
from fluxtorch.pairs import to
from fluxtorch.train import setup, update_
from fluxtorch.zygote import gradient
from fluxtorch.zygote.implicit import params

# Float64 as Julia's rand gives it meets Float32 layers here, as in Flux's own tests.
pytestmark = pytest.mark.filterwarnings("ignore:Layer with Float")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


def rev(x):
    return x.permute(*reversed(range(x.ndim)))


# -- SkipConnection --------------------------------------------------------------------------------------


def test_skip_connection_of_flux_s_tests():
    x = torch.randn(10, 10, 10, 10)
    assert torch.equal(SkipConnection(lambda x: zeros(*x.shape), operator.add)(x), x.double())
    x = randn32(10, 2)
    m = SkipConnection(Dense(10, 10), lambda a, b: cat(a, b, dims=1))
    close(m(x), torch.cat([m.layers(x), x], 1))
    # The first argument is what came through the layers.
    close(SkipConnection(lambda x: 2 * x, operator.sub)(torch.tensor([3.0])), [3.0])
    close(SkipConnection(lambda x: 2 * x, operator.truediv)([3.0, 4.0]), [2.0, 2.0])
    m = Conv((3, 3), 4 | to | 7, pad=(1, 1))
    assert m(ones32(5, 5, 4, 10)).shape == (5, 5, 7, 10)
    assert SkipConnection(m, lambda mx, x: cat(mx, x, dims=2))(ones32(5, 5, 4, 10)).shape == (5, 5, 11, 10)


def test_skip_connection_as_a_layer():
    m = SkipConnection(Chain(Dense(3 | to | 3, tanh), Dense(3 | to | 3)), operator.add)
    assert (
        repr(m)
        == """SkipConnection(
  Chain(
    Dense(3 => 3, tanh),                # 12 parameters
    Dense(3 => 3),                      # 12 parameters
  ),
  +,
)                   # Total: 4 arrays, 24 parameters, 96 bytes."""
    )
    assert str(m) == "SkipConnection(Chain(Dense(3 => 3, tanh), Dense(3 => 3)), +)"
    assert list(children(m).keys()) == ["layers", "connection"] and len(params(m)) == 4
    x = torch.randn(3, 5)
    dm, dx = gradient(lambda m, x: (m(x) ** 2).sum(), m, x)
    want = gradient(lambda f, x: ((f(x) + x) ** 2).sum(), m.layers, x)
    close(dx, want[1])
    close(dm.layers.layers[0].weight, want[0].layers[0].weight)
    assert dm.connection is None
    # The connection may be a layer, and is trained too.
    m = SkipConnection(Dense(10, 10), Bilinear(10, 10, 5))
    assert m(randn32(10, 9)).shape == (5, 9)
    assert gradient(lambda m: m(randn32(10, 9)).sum(), m)[0].connection.weight.shape == (5, 10, 10)
    for f in (3, None):
        with pytest.raises(TypeError, match="SkipConnection expects a layer and a function of two arguments, and got"):
            SkipConnection(identity, f)


# -- Parallel --------------------------------------------------------------------------------------------


def test_parallel_of_flux_s_tests():
    x = torch.randn(10, 10, 10, 10)
    assert torch.equal(Parallel(operator.add, lambda x: zeros(*x.shape), identity)(x), x.double())
    x = randn32(10, 2)
    assert Parallel(lambda a, b: cat(a, b, dims=1), Dense(10, 10), identity)(x).shape == (10, 4)
    m = Parallel(hcat, one=Dense(10, 10), two=identity)
    close(m(x), torch.cat([m["one"](x), x], 1))
    inputs = rand32(10), rand32(5), rand32(4)
    ds = Dense(10, 2), Dense(5, 2), Dense(4, 2)
    want = sum(f(x) for f, x in zip(ds, inputs, strict=True))
    for m in (Parallel(operator.add, *ds), Parallel(operator.add, a=ds[0], b=ds[1], c=ds[2])):
        close(m(inputs), want)
        close(m(*inputs), want)
    with pytest.raises(ValueError, match="Parallel with 2 sub-layers can take one input or 2 inputs, but got 3 inputs"):
        Parallel(operator.add, sin, cos)(1, 2, 3)
    assert math.isclose(Parallel(operator.add, sin, cos)(math.pi / 2), 1)


def test_parallel_examples_of_the_manual():
    model = Chain(
        Dense(3 | to | 5),
        Parallel(vcat, Dense(5 | to | 4), Chain(Dense(5 | to | 7), Dense(7 | to | 4))),
        Dense(8 | to | 17),
    )
    assert model(rand32(3)).shape == (17,)
    assert outputsize(model, (3,)) == (17,)
    model2 = Parallel(operator.add, α=Dense(10 | to | 2, tanh), β=Dense(5 | to | 2))
    assert (
        repr(model2)
        == """Parallel(
  +,
  α = Dense(10 => 2, tanh),             # 22 parameters
  β = Dense(5 => 2),                    # 12 parameters
)                   # Total: 4 arrays, 34 parameters, 136 bytes."""
    )
    assert str(model2) == "Parallel(+, α = Dense(10 => 2, tanh), β = Dense(5 => 2))"
    assert model2(rand32(10), rand32(5)).shape == (2,)
    assert model2["α"](rand32(10)).shape == (2,)
    assert model2["β"] is model2[1] is model2.layers.β


@pytest.mark.parametrize("kind", [Parallel, PairwiseFusion])
def test_names_and_slices(kind):
    m = kind(hcat, one=Dense(10, 10), two=identity, three=tanh)
    assert m[0] is m["one"] is m.layers.one and m[-1] is tanh and len(m) == 3
    assert list(m) == [m[0], identity, tanh] and list(m.keys()) == ["one", "two", "three"]
    for part in (m[0:2], m[[0, 1]], m[range(2)]):
        assert type(part) is kind and list(part.keys()) == ["one", "two"]
        assert part[0] is m[0] and part.connection is hcat
    assert list(m[::-1].keys()) == ["three", "two", "one"]
    unnamed = kind(hcat, m[0], identity, tanh)
    assert list(unnamed[1:]) == [identity, tanh] and list(unnamed.keys()) == [0, 1, 2]
    # `connection` is the name of the first argument itself.
    with pytest.raises(TypeError, match="multiple values for argument 'connection'"):
        kind(hcat, connection=Dense(10, 10), two=identity)
    with pytest.raises(ValueError, match=f"a {kind.__name__} layer cannot have a named sub-layer called"):
        kind(hcat, layers=Dense(10, 10), two=identity)
    # A rebuild keeps the names, and ϵ is found by the name that Python gives it.
    again = fmap(identity, m)
    assert list(again.keys()) == list(m.keys()) and again[0].weight is m[0].weight
    assert isinstance(kind(hcat, ϵ=identity).layers, NamedTuple) and kind(hcat, ϵ=identity)["ϵ"] is identity
    # The layers as one tuple or named tuple, as Julia's own constructor takes them.
    assert kind(hcat, (sin, cos))[1] is cos and kind(hcat, nt(a=sin, b=cos))["b"] is cos
    assert kind(hcat).layers == () and len(kind(hcat)) == 0
    with pytest.raises(TypeError, match=f"a {kind.__name__} has layers with names or without, not both"):
        kind(hcat, sin, b=cos)
    with pytest.raises(
        TypeError, match=f"{kind.__name__} takes a connection and layers, which are functions, and got 3"
    ):
        kind(hcat, sin, 3)
    with pytest.raises(TypeError, match="which are functions, and got 10 => 2"):
        kind(10 | to | 2, sin)


def test_parallel_in_trivial_cases():
    assert torch.equal(Parallel(vcat, x=log)(1), torch.tensor([0.0]))
    assert torch.equal(Parallel(vcat, log)(1), torch.tensor([0.0]))
    close(Parallel(hcat, lambda x: 1 / x)(2), [[0.5]])  # still calls the connection once
    assert Parallel(operator.add, abs)(-2) == 2
    x = torch.randn(3)
    close(Parallel(operator.add, tanh)((x,)), x.tanh())


def test_parallel_of_flux_0_16():
    p = Parallel(operator.add, abs2, sqrt)
    assert p(3, 4) == p((3, 4)) == 11 and p(4) == 18
    close(Parallel(hcat, lambda x: 1 / x)(1, 2, 4), [[1.0, 0.5, 0.25]])
    assert Parallel(operator.truediv, abs)(3, -4) == Parallel(operator.truediv, f=abs)((3, -4)) == 0.75
    close(Parallel(hcat, inv=lambda x: 1 / x)((1, 2, 4)), [[1.0, 0.5, 0.25]])
    assert p((4,)) == p(((4,),)) == 18 and p(((3, 4),)) == 11  # a tuple is always splatted
    for m in (p, p[:1]):
        for args in ((), ((),)):
            with pytest.raises(ValueError, match="but got 0 inputs"):
                m(*args)


def test_the_connection_is_called_once():
    count = 0

    def connection(*xs):
        nonlocal count
        count += 1
        return sum(xs)

    Parallel(connection, sin, cos, tanh)(1)
    assert count == 1
    Parallel(connection, sin, cos, tanh)(1, 2, 3)
    assert count == 2
    Parallel(connection, sin)(1)
    assert count == 3
    Parallel(connection, sin)(1, 2, 3)
    assert count == 4


def test_connections_of_any_number():
    fs = [lambda x, k=k: k * x for k in (2, 3, 5, 7)]
    x = torch.tensor([1.0, -1.0])
    for f, want in (
        (operator.add, [17, -17]),
        (torch.add, [17, -17]),
        (operator.mul, [210, 210]),
        (torch.mul, [210, 210]),
        (torch.maximum, [7, -2]),
        (torch.minimum, [2, -7]),
        (vcat, [2, -2, 3, -3, 5, -5, 7, -7]),
        (lambda *xs: len(xs), 4),
    ):
        y = Parallel(f, *fs)(x)
        assert y == want if isinstance(y, int) else torch.equal(y, torch.tensor(want, dtype=torch.float32))
    A, B, C = (torch.randn(n, n + 1) for n in (2, 3, 4))
    close(Parallel(operator.matmul, *[lambda x, M=M: M for M in (A, B, C)])(x), A @ B @ C)
    assert repr(Parallel(operator.add, sin, cos)) == "Parallel(+, sin, cos)"


def test_inputs_of_parallel():
    double = lambda x: 2 * x  # noqa: E731
    # A list is an array, a tuple is several inputs, and a layer may take anything else.
    close(Parallel(operator.add, double, identity)([1, 2]), [3, 6])
    close(Parallel(operator.add, double, identity)([1.0, 2.0], [10.0, 20.0]), [12.0, 24.0])
    close(Parallel(operator.add, double, identity)(([1.0, 2.0], [10.0, 20.0])), [12.0, 24.0])
    assert Parallel(lambda *xs: xs, double, identity)("ab") == ("abab", "ab")
    x = nt(a=torch.ones(2), b=torch.zeros(2))
    close(Parallel(vcat, lambda t: t.a, lambda t: t.b)(x), [1.0, 1.0, 0.0, 0.0])
    nested = Parallel(operator.add, Parallel(operator.mul, identity, identity), identity)
    assert nested((2, 3), 4) == 10
    for wrong in (((1, 2, 3),), (1, 2, 3)):
        with pytest.raises(ValueError, match="can take one input or 2 inputs, but got 3 inputs"):
            nested(*wrong)


class Input:
    def __init__(self, x):
        self.x = x

    def __rmatmul__(self, W):
        return W @ self.x


@layer
class L1:
    x: torch.Tensor

    def __call__(self, x):
        return self.x @ x.x


def test_inputs_that_are_no_arrays():
    """Flux's issue 1673."""
    par = Parallel(operator.add, L1(torch.rand(3, 3)), L1(torch.rand(3, 3)))
    ip, ip2 = nt(x=torch.rand(3, 3)), nt(x=torch.rand(3, 3))
    close(par(ip), par.layers[0](ip) + par.layers[1](ip))
    close(par(ip, ip2), par.layers[0](ip) + par.layers[1](ip2))
    gs = gradient(lambda par, *xs: par(*xs).sum(), par, ip, ip2)
    reg = gradient(lambda par, x, y: (par.layers[0].x @ x.x + par.layers[1].x @ y.x).sum(), par, ip, ip2)
    for a, b in zip(gs[0].layers, reg[0].layers, strict=True):
        close(a.x, b.x)
    close(gs[1].x, reg[1].x)
    close(gs[2].x, reg[2].x)
    own = Input(torch.rand(3, 3))
    close(Parallel(operator.add, L1(torch.eye(3)), L1(torch.eye(3)))(own), 2 * own.x)


def test_gradients_of_parallel():
    m = Parallel(vcat, α=Dense(3 | to | 2, tanh), β=Chain(Dense(3 | to | 4), Dense(4 | to | 1)), γ=identity)
    x = torch.randn(3, 5)
    dm, dx = gradient(lambda m, x: (m(x) ** 2).sum(), m, x)

    def by_hand(m, x):
        return (torch.cat([m["α"](x), m["β"](x), x]) ** 2).sum()

    want = gradient(by_hand, m, x)
    close(dx, want[1])
    close(dm.layers.α.weight, want[0].layers.α.weight)
    close(dm.layers.β.layers[1].bias, want[0].layers.β.layers[1].bias)
    assert dm.layers.γ is None and len(params(m)) == 6
    opt = setup(Descent(0.01), m)
    was = by_hand(m, x)
    update_(opt, m, dm)
    assert by_hand(m, x) < was
    # One layer at two places is one layer, with the whole gradient.
    d = Dense(3 | to | 2, bias=False)
    tied = Parallel(operator.add, d, d)
    assert len(params(tied)) == 1
    close(gradient(lambda: tied(x).sum(), params(tied))[d.weight], 2 * x.sum(1).expand(2, 3))
    other = pickle.loads(pickle.dumps(m[0:2]))
    assert list(other.keys()) == ["α", "β"]
    close(other(x), m[0:2](x))


# -- PairwiseFusion --------------------------------------------------------------------------------------


def test_pairwise_fusion_of_flux_s_tests():
    y = PairwiseFusion(operator.add, Dense(1, 30), Dense(30, 10))((rand(1, 10), rand32(30, 10)))
    assert len(y) == 2 and y[0].shape == (30, 10) and y[1].shape == (10, 10)
    y = PairwiseFusion(operator.add, Dense(1, 10), Dense(10, 1))(rand(1, 10))
    assert len(y) == 2 and y[0].shape == (10, 10) and y[1].shape == (1, 10)
    m = PairwiseFusion(vcat, lambda x: x + 1, lambda x: x + 2, lambda x: x**3)
    for y, want in (
        (m(2, 10, 20), (3, [5, 12], [125, 1728, 8000])),
        (m((2, 10, 20)), (3, [5, 12], [125, 1728, 8000])),
        (m(7), (8, [10, 9], [1000, 729, 343])),
    ):
        assert type(y) is tuple and y[0] == want[0]
        assert [v.tolist() for v in y[1:]] == list(want[1:])


def test_pairwise_fusion_as_a_layer():
    m = PairwiseFusion(operator.mul, a=Dense(3 | to | 4, tanh), b=Dense(4 | to | 2))
    assert (
        repr(m)
        == """PairwiseFusion(
  *,
  a = Dense(3 => 4, tanh),              # 16 parameters
  b = Dense(4 => 2),                    # 10 parameters
)                   # Total: 4 arrays, 26 parameters, 104 bytes."""
    )
    assert str(m) == "PairwiseFusion(*, a = Dense(3 => 4, tanh), b = Dense(4 => 2))"
    x, z = torch.randn(3, 5), torch.randn(4, 5)
    y1, y2 = m(x, z)
    close(y1, m["a"](x))
    close(y2, m["b"](m["a"](x) * z))
    dm, dx, dz = gradient(lambda m, x, z: sum((y**2).sum() for y in m((x, z))), m, x, z)
    want = gradient(lambda m, x, z: (m[0](x) ** 2).sum() + (m[1](m[0](x) * z) ** 2).sum(), m, x, z)
    close(dx, want[1])
    close(dz, want[2])
    close(dm.layers.a.weight, want[0].layers.a.weight)
    for wrong in ((x, z, z), ((x, z, z),), ((x,),)):
        n = 1 if wrong == ((x,),) else 3
        with pytest.raises(
            ValueError, match=f"PairwiseFusion with 2 sub-layers can take one input or 2 inputs, but got {n} inputs"
        ):
            m(*wrong)
    assert PairwiseFusion(operator.add, tanh)((torch.zeros(1),)) == (torch.zeros(1),)
    close(PairwiseFusion(operator.add, identity, identity)([1, 2])[1], [2, 4])


# -- Bilinear --------------------------------------------------------------------------------------------


def test_bilinear_of_flux_s_tests():
    b = Bilinear(10, 2, 3)
    assert torch.equal(b(zeros32(10, 9), zeros32(2, 9)), torch.zeros(3, 9))
    b = Bilinear(11, 11, 3)
    x = randn32(11, 7)
    assert b(x).shape == (3, 7)
    gs = gradient(lambda: (b(x) ** 2).sum(), params(b))
    assert gs[b.weight].shape == (3, 11, 11) and gs[b.bias].shape == (3,)
    b1 = Bilinear(torch.randn(3, 4, 5, dtype=torch.float64))
    assert b1.bias.dtype == torch.float64 and b1.bias.shape == (3,) and b1.σ is identity
    assert Bilinear(torch.randn(3, 4, 5), False).bias is False
    b3 = Bilinear(torch.randn(3, 4, 5).half(), True, tanh)
    assert b3.σ is tanh and b3.bias.dtype == torch.float16
    assert b3(torch.rand(4), torch.rand(5)).shape == (3,)
    b4 = Bilinear(3, 3, 7, bias=[1, 2, 3, 4, 5, 6, 7], init=zeros32)
    assert b4.bias.dtype == torch.float32
    close(b4(torch.randn(3, 2)), torch.arange(1.0, 8)[:, None].expand(7, 2))


def test_bilinear_examples_of_the_manual():
    x, y = randn32(5, 32), randn32(5, 32)
    B = Bilinear((5, 5) | to | 7)
    assert repr(B) == "Bilinear(5 => 7)    # 182 parameters"
    assert B(x).shape == (7, 32)
    assert torch.equal(B(x, y), B((x, y))) and torch.equal(B(x), B(x, x))
    sc = SkipConnection(
        Chain(Dense(5 | to | 20, tanh), Dense(20 | to | 9, tanh)), Bilinear((9, 5) | to | 3, bias=False)
    )
    assert sc(x).shape == (3, 32)
    m = Bilinear(rand(4, 8, 16), False, tanh)
    assert repr(m) == "Bilinear((8, 16) => 4, tanh; bias=false)  # 512 parameters"
    assert str(Bilinear(3 | to | 2, relu)) == "Bilinear(3 => 2, relu)"
    assert outputsize(Bilinear(3 | to | 10), (3, 4)) == (10, 4)
    chain = Chain(lambda x: (x, x), Bilinear(5 | to | 2))
    assert chain(x).shape == (2, 32)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("size", [(), (6,)])
def test_bilinear_is_torch_s(bias, given, size):
    module = nn.Bilinear(3, 4, 5, bias=bias, dtype=torch.float64)
    with torch.no_grad():
        if bias:
            module.bias.normal_()
        if given:
            m = Bilinear(module.weight.clone(), module.bias.clone() if bias else False)
        else:
            m = f64(Bilinear((3, 4) | to | 5, bias=bias))
            m.weight.copy_(module.weight)
            if bias:
                m.bias.copy_(module.bias)
    x, y, u = (torch.randn(n, *size, dtype=torch.float64) for n in (3, 4, 5))
    xr, yr = rev(x).clone().requires_grad_(), rev(y).clone().requires_grad_()
    z = module(xr, yr)
    close(m(x, y), rev(z.detach()))
    # By its definition, too.
    byhand = torch.einsum("oij,i...,j...->o...", m.weight, x, y)
    close(m(x, y), rev(rev(byhand) + m.bias) if bias else byhand)
    (z * rev(u)).sum().backward()
    dm, dx, dy = gradient(lambda m, x, y: (m(x, y) * u).sum(), m, x, y)
    close(dx, rev(xr.grad))
    close(dy, rev(yr.grad))
    close(dm.weight, module.weight.grad)
    if bias:
        close(dm.bias, module.bias.grad)
    else:
        assert dm.bias is None
    square = Bilinear(torch.randn(2, 3, 3, dtype=torch.float64), True, tanh)
    assert torch.autograd.gradcheck(square, x.requires_grad_()) and torch.autograd.gradgradcheck(square, x)


def test_bilinear_of_other_numbers():
    m = Bilinear((3, 2) | to | 4)
    x, y = onehotbatch("aba", "abc"), torch.randn(2, 3)
    close(m(x, y), m(x.to_dense().float(), y))
    assert m(torch.randn(3, 5).double(), torch.ones(2, 5).long()).dtype == torch.float32
    close(m([1, 2, 3], [4, 5]), m(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([4.0, 5.0])))
    assert list(children(m).keys()) == ["weight", "bias", "σ"]
    close(pickle.loads(pickle.dumps(m))(x, y), m(x, y))
    assert m(torch.ones(3, 0), torch.ones(2, 0)).shape == (4, 0)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: Bilinear(torch.rand(3)),
            DimensionMismatch,
            "Bilinear expects a 3-array of weights, and got a 3-element",
        ),
        (lambda: Bilinear(torch.rand(3, 4), False, tanh), DimensionMismatch, "Bilinear expects a 3-array of weights"),
        (
            lambda: Bilinear(torch.rand(3, 4, 5), torch.rand(6), tanh),
            DimensionMismatch,
            r"expected bias of size \(3,\)",
        ),
        (lambda: Bilinear(3), TypeError, r"Bilinear expects sizes, as in Bilinear\(\(5, 5\) \|to\| 7\), and got 3"),
        (lambda: Bilinear((3, 4, 5) | to | 2), TypeError, "whole numbers"),
        (lambda: Bilinear((3, 2.0) | to | 2), TypeError, "whole numbers, and got 2.0"),
        (lambda: Bilinear(3 | to | 2, "tanh"), TypeError, 'expects a function as its activation, and got "tanh"'),
        (lambda: Bilinear(3 | to | 2, tanh, True), TypeError, "1 argument too many"),
        (lambda: Bilinear(torch.rand(2, 3, 3), False, bias=[1.0, 2.0]), TypeError, "Bilinear got a bias twice"),
        (
            lambda: Bilinear((3, 4) | to | 2)(torch.ones(3, 2), torch.ones(3, 2)),
            DimensionMismatch,
            r"layer Bilinear\(\(3, 4\) => 2\) expects an input with size\(input, 0\) == 4, but got 3×2 tensor",
        ),
        (lambda: Bilinear(3 | to | 2)(torch.ones(4, 2)), DimensionMismatch, "== 3, but got 4×2 tensor"),
        (
            lambda: Bilinear(3 | to | 2)(torch.ones(3, 2), torch.ones(3, 1)),
            DimensionMismatch,
            "must agree on the number of columns, and are 3×2 tensor of float32 and 3×1 tensor of float32",
        ),
        (lambda: Bilinear(3 | to | 2)(torch.ones(3, 2), torch.ones(3)), DimensionMismatch, "must agree"),
        (lambda: Bilinear(3 | to | 2)(torch.ones(3, 2, 2)), DimensionMismatch, "but got 3×2×2 tensor"),
        (lambda: Bilinear(3 | to | 2)(1, 2, 3), TypeError, "takes one or two inputs, and got 3"),
        (lambda: Bilinear(3 | to | 2)(), TypeError, "takes one or two inputs, and got 0"),
        (lambda: Bilinear(3 | to | 2)("x"), TypeError, "expects an array as input"),
    ],
)
def test_wrong_bilinears(make, error, match):
    with pytest.raises(error, match=match):
        make()


class Wrapped(Layer):
    inner: object

    def __call__(self, x):
        return self.inner(x)


def test_combined_in_other_layers():
    m = Wrapped(Parallel(operator.add, Dense(2 | to | 2), SkipConnection(Dense(2 | to | 2), operator.add)))
    assert (
        repr(m)
        == """Wrapped(
  Parallel(
    +,
    Dense(2 => 2),                      # 6 parameters
    SkipConnection(
      Dense(2 => 2),                    # 6 parameters
      +,
    ),
  ),
)                   # Total: 4 arrays, 12 parameters, 48 bytes."""
    )
    assert len(list(m.parameters())) == 4
    assert set(m.state_dict()) >= {"inner.0.weight", "inner.1.layers.weight"}
