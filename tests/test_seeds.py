"""Four pages of Flux's manual, of four versions, cell by cell, with the values that they print."""

import operator
from functools import reduce

import pytest
import torch

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch import base
from fluxtorch.base import norm


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def add(a, b):
    return broadcast(operator.add, a, b)


def polynomial(x):
    return 3 * x**2 + 2 * x + 1


def squares(x, y):
    return base.sum((x - y) ** 2)


def assert_equal(x, values):
    torch.testing.assert_close(x, torch.tensor(values), check_dtype=False, rtol=0, atol=1e-6)


class TestGradientsAndLayers:
    """How Flux Works: Gradients and Layers (0.14)."""

    t = nt(a=[2, 1], b=[2, 0], c=tanh)

    def test_derivatives(self):
        def df(x):
            return gradient(polynomial, x)[0]

        def d2f(x):
            return gradient(df, x)[0]

        assert df(2) == 14.0 and type(df(2)) is float
        assert d2f(2) == 6.0 and type(d2f(2)) is float

    def test_two_arguments(self):
        dx, dy = gradient(squares, [2, 1], [2, 0])
        assert_equal(dx, [0.0, 2.0])
        assert_equal(dy, [-0.0, -2.0])
        assert torch.signbit(dy[0])

    def test_named_tuple(self):
        def g(x):
            return base.sum(abs2, x.a - x.b)

        assert g(self.t) == 1
        dg = gradient(g, self.t)[0]
        assert repr(dg) == "(a = [0.0, 2.0], b = [-0.0, -2.0], c = nothing)"
        assert_equal(dg.a, [0.0, 2.0])
        assert dg.c is None

    def test_two_arguments_of_which_one_is_a_named_tuple(self):
        def do(x, y):
            z = x.a / y
            return base.sum(abs2, z - x.b)

        for f in (lambda x, y: base.sum(abs2, x.a / y - x.b), do):
            dt, dy = gradient(f, self.t, [1, 2])
            assert repr(dt) == "(a = [0.0, 0.5], b = [-0.0, -1.0], c = nothing)"
            assert_equal(dy, [-0.0, -0.25])

    def test_withgradient(self):
        result = Flux.withgradient(lambda x: base.sum(abs2, x.a - x.b), self.t)
        assert repr(result) == "(val = 1, grad = ((a = [0.0, 2.0], b = [-0.0, -2.0], c = nothing),))"
        assert result.val == 1

    def test_linear_regression(self):
        def loss(W, b, x, y):
            return base.sum((y - add(W @ x, b)) ** 2)

        x, y, W, b = rand(5), rand(2), rand(2, 5), rand(2)
        before = loss(W, b, x, y)
        dW, db = gradient(lambda W, b: loss(W, b, x, y), W, b)
        residual = add(W @ x, b) - y
        torch.testing.assert_close(dW, 2 * torch.outer(residual, x))
        torch.testing.assert_close(db, 2 * residual)
        W -= 0.1 * dW
        assert loss(W, b, x, y) < before

    def test_layers_by_hand(self):
        W1, b1, W2, b2 = rand(3, 5), rand(3), rand(2, 3), rand(2)
        x = rand(5)
        y = add(W2 @ sigmoid(add(W1 @ x, b1)), b2)
        torch.testing.assert_close(y, W2 @ torch.sigmoid(W1 @ x + b1) + b2)

    def test_layers_from_closures(self):
        def linear(n_in, n_out):
            W, b = randn(n_out, n_in), randn(n_out)
            return lambda x: add(W @ x, b)

        linear1, linear2 = linear(5, 3), linear(3, 2)
        y = linear2(sigmoid(linear1(rand(5))))
        assert y.shape == (2,)
        assert closure(linear1).W.shape == (3, 5)
        assert len(params(linear1, linear2)) == 4

    def test_a_struct(self):
        class Affine:
            def __init__(self, W, b):
                self.W, self.b = W, b

            def __call__(self, x):
                return add(self.W @ x, self.b)

        a = Affine(randn(5, 10), zeros(5))
        x = rand(10)
        torch.testing.assert_close(a(x), a.W @ x)
        assert len(params(a)) == 0  # Flux doesn't know yet to look inside it
        Flux.layer(Affine)
        assert [p is q for p, q in zip(params(a), (a.W, a.b), strict=True)] == [True, True]
        assert_equal(gradient(lambda m: base.sum(m(x)), a)[0].b, [1.0] * 5)

        def affine(pair, bias=True, init=glorot_uniform):
            n_in, n_out = pair
            W = init(n_out, n_in)
            return Affine(W, Flux.create_bias(W, bias, n_out))

        b = gpu(affine(3 | to | 1, bias=False))
        assert b.b is False and len(params(b)) == 1
        assert b(rand(torch.float32, 3)).shape == (1,)

    def test_stacking(self):
        layers = [Dense(10 | to | 5, relu), Dense(5 | to | 2), softmax]
        x = rand(10)
        folded = foldl(lambda x, m: m(x), layers, init=x)
        assert folded.shape == (2,)
        torch.testing.assert_close(folded.sum(), torch.tensor(1.0))
        torch.testing.assert_close(Chain(*layers)(x), folded)
        assert folded.dtype == torch.float32

        m = Dense(5 | to | 2) @ Dense(10 | to | 5, σ)
        torch.testing.assert_close(m(x), m.outer(m.inner(x)))
        assert Chain(lambda x: x**2, lambda x: x + 1)(5) == 26


class TestModelBuilding:
    """Model-Building Basics (0.10)."""

    def test_params(self):
        x, y = torch.tensor([2, 1]), torch.tensor([2, 0])
        gs = gradient(lambda: squares(x, y), params(x, y))
        assert_equal(gs[x], [0.0, 2.0])
        assert_equal(gs[y], [0.0, -2.0])

    def test_linear_regression(self):
        W, b, x, y = rand(2, 5), rand(2), rand(5), rand(2)

        def loss(x, y):
            return base.sum((y - add(W @ x, b)) ** 2)

        before = loss(x, y)
        gs = gradient(lambda: loss(x, y), params(W, b))
        torch.testing.assert_close(gs[b], 2 * (W @ x + b - y))
        W -= 0.1 * gs[W]
        assert loss(x, y) < before
        assert not W.requires_grad

    def test_dense_by_numbers(self):
        layers = [Dense(10, 5, σ), Dense(5, 2), softmax]
        x = rand(10)
        torch.testing.assert_close(Chain(*layers)(x), foldl(lambda x, m: m(x), layers, init=x))
        assert str(Dense(5, 2) @ Dense(10, 5, σ)) == "Dense(5 => 2) ∘ Dense(10 => 5, σ)"
        assert Chain(lambda x: x**2, lambda x: x + 1)(5) == 26

    def test_functor(self):
        class Affine:
            def __init__(self, n_in, n_out):
                self.W, self.b = randn(n_out, n_in), randn(n_out)

        Flux.functor(Affine)
        assert len(params(Affine(10, 5))) == 2

    def test_outdims(self):
        m = Chain(Conv((3, 3), 3 | to | 16), Conv((3, 3), 16 | to | 32))
        assert Flux.outdims(m, (10, 10)) == (6, 6)
        m = Dense(10, 5)
        assert Flux.outdims(m, (5, 2)) == (5,)
        assert Flux.outdims(m, (10,)) == (5,)
        m = Conv((3, 3), 3 | to | 16)
        assert Flux.outdims(m, (10, 10)) == (8, 8)
        assert Flux.outdims(m, (10, 10, 1, 3)) == (8, 8)

    @pytest.mark.parametrize(
        ("layer", "size"),
        [
            (lambda: Flux.Diagonal(7), (7,)),
            (lambda: Maxout(lambda: Dense(5, 3), 2), (3,)),
            (lambda: ConvTranspose((3, 3), 1 | to | 2, stride=2), (21, 21)),
            (lambda: DepthwiseConv((3, 3), 2 | to | 4), (8, 8)),
            (lambda: CrossCor((3, 3), 1 | to | 2, pad=1), (10, 10)),
            (lambda: MaxPool((2, 2)), (5, 5)),
            (lambda: MeanPool((3, 3), stride=1), (8, 8)),
        ],
    )
    def test_outdims_of_every_layer_on_the_page(self, layer, size):
        assert Flux.outdims(layer(), (10, 10)) == size


class TestTracker:
    """A notebook of Flux 0.8."""

    def test_derivatives(self):
        def df(x):
            return Tracker.gradient(polynomial, x, nest=True)[0]

        def d2f(x):
            return Tracker.gradient(df, x, nest=True)[0]

        assert df(2) == 14.0
        assert d2f(2) == 6.0
        assert Tracker.gradient(lambda W, b, x: W * x + b, 2, 3, 4) == (4.0, 1.0, 2.0)

    def test_param(self):
        W, b = Flux.param(2), Flux.param(3)
        grads = Tracker.gradient(lambda: W * 4 + b, Flux.params(W, b))
        assert grads[W] == 4.0
        assert grads[b] == 1.0

    def test_linear_regression(self):
        from fluxtorch.tracker import update_

        W, b, x, y = Flux.param(rand(2, 5)), Flux.param(rand(2)), rand(5), rand(2)

        def loss(x, y):
            return base.sum((y - add(W @ x, b)) ** 2)

        gs = Tracker.gradient(lambda: loss(x, y), params(W, b))
        assert repr(gs) == "Grads(...)"
        before = loss(x, y)
        Δ = gs[W]
        old = Tracker.data(W).clone()
        update_(W, -0.1 * Δ)
        torch.testing.assert_close(Tracker.data(W), old - 0.1 * Δ)
        assert loss(x, y) < before

    def test_layers(self):
        def linear(n_in, n_out):
            W, b = Flux.param(randn(n_out, n_in)), Flux.param(randn(n_out))
            return lambda x: add(W @ x, b)

        linear1, linear2 = linear(5, 3), linear(3, 2)
        y = linear2(σ(linear1(rand(5))))
        assert y.shape == (2,) and Tracker.istracked(y)
        assert closure(linear1).b.shape == (3,)

    def test_stacking(self):
        x = rand(10)
        layers = [Dense(10, 5, σ), Dense(5, 2), softmax]
        y = reduce(lambda x, m0: m0(x), layers, x)
        assert y.dtype == torch.float32 and Tracker.istracked(y)
        torch.testing.assert_close(y.sum().detach(), torch.tensor(1.0))
        assert (Dense(5, 2) @ Dense(10, 5, σ))(x).shape == (2,)
        assert Chain(lambda x: x**2, lambda x: x + 1)(5) == 26

    def test_recurrence(self):
        Wxh, Whh, b = randn(5, 10), randn(5, 5), randn(5)

        def rnn(h, x):
            h = tanh(add(add(Wxh @ x, Whh @ h), b))
            return h, h

        x, h = rand(10), rand(5)
        h1, y1 = rnn(h, x)
        torch.testing.assert_close(h1, torch.tanh(Wxh @ x + Whh @ h + b))
        _, y2 = rnn(h1, x)
        assert not torch.allclose(y1, y2)

        rnn2 = Flux.RNNCell(10, 5)
        h3, y3 = rnn2(rand(5), rand(10))
        assert h3.shape == y3.shape == (5,)
        assert Tracker.istracked(y3)

        m5 = Flux.Recur(rnn, h)
        torch.testing.assert_close(m5(x), y1)
        torch.testing.assert_close(m5(x), y2)
        torch.testing.assert_close(m5.state, y2)
        assert str(RNN(10, 5)) == "Recur(RNNCell(10 => 5, tanh))"

        seq = [rand(10) for _ in range(10)]
        ys = [m5(x) for x in seq]
        assert len(ys) == 10 and all(y.shape == (5,) for y in ys)

    def test_truncate_and_reset(self):
        m51 = Chain(LSTM(10, 15), Dense(15, 5))
        seq = [rand(10) for _ in range(10)]
        first = [m51(x).detach() for x in seq]
        assert all(y.shape == (5,) for y in first)
        kept = [s.detach().clone() for s in m51[0].state]
        assert m51[0].state[0].requires_grad
        Flux.truncate_(m51)
        assert not m51[0].state[0].requires_grad
        for s, k in zip(m51[0].state, kept, strict=True):
            assert torch.equal(s, k)
        assert not torch.allclose(m51(seq[0]), first[0])
        Flux.reset_(m51)
        torch.testing.assert_close(m51(seq[0]).detach(), first[0])

    def test_regularisation(self):
        m6 = Dense(10, 5)

        def loss(x, y):
            return Flux.crossentropy(softmax(m6(x)), y)

        def penalty():
            return norm(m6.W) + norm(m6.b)

        x, y = rand(10), rand(5)
        torch.testing.assert_close(
            loss(x, y) + penalty() - loss(x, y), m6.weight.norm() + m6.bias.norm(), check_dtype=False
        )
        assert [p.shape for p in Flux.params(m6)] == [(5, 10), (5,)]
        total = base.sum(norm, Flux.params(m6))
        torch.testing.assert_close(total, penalty())
        gs = gradient(lambda: base.sum(norm, Flux.params(m6)), params(m6))
        torch.testing.assert_close(gs[m6.W], m6.weight.detach() / m6.weight.norm().detach())

        m7 = Chain(Dense(28**2, 128, relu), Dense(128, 32, relu), Dense(32, 10), softmax)
        value = Flux.crossentropy(m7(rand(28**2)), rand(10)) + base.sum(norm, Flux.params(m7))
        assert value.ndim == 0 and torch.isfinite(value)

        c = Chain(Dense(10, 5, σ), Dense(5, 2), softmax)
        c_reg = activations(c, x)
        assert [a.shape for a in c_reg] == [(5,), (2,), (2,)]
        torch.testing.assert_close(c_reg[2], c(x))


class TestOverview:
    """Flux Overview, the 4x + 2 page (0.12, 0.13)."""

    def test_page(self):
        x_train, x_test = hcat(*range(0, 6)), hcat(*range(6, 11))
        y_train, y_test = 4 * x_train + 2, 4 * x_test + 2
        assert x_train.tolist() == [[0, 1, 2, 3, 4, 5]] and x_test.tolist() == [[6, 7, 8, 9, 10]]
        assert y_train.tolist() == [[2, 6, 10, 14, 18, 22]] and y_test.tolist() == [[26, 30, 34, 38, 42]]

        predict = Dense(1, 1)
        assert str(predict) == "Dense(1 => 1)"
        assert predict.weight.shape == (1, 1) and predict.weight.dtype == torch.float32
        assert_equal(predict.bias.detach(), [0.0])
        torch.testing.assert_close(predict(x_train), predict.weight * x_train)

        def loss(x, y):
            return Flux.Losses.mse(predict(x), y)

        before = loss(x_train, y_train)
        opt = Descent()
        data = [(x_train, y_train)]
        parameters = params(predict)
        assert (predict.weight in parameters, predict.bias in parameters) == (True, True)

        W, b = predict.weight.item(), predict.bias.item()
        residuals = [(W * x + b) - (4 * x + 2) for x in range(6)]
        Flux.train_(loss, parameters, data, opt)
        dW = 2 * sum(r * x for r, x in zip(residuals, range(6), strict=True)) / 6
        assert predict.weight.item() == pytest.approx(W - 0.1 * dW, rel=1e-5)
        assert loss(x_train, y_train) < before or abs(W - 4) < 1e-3

        for _ in range(200):
            Flux.train_(loss, parameters, data, opt)
        assert abs(predict.weight.item() - 4) < 0.1
        assert abs(predict.bias.item() - 2) < 0.5
        torch.testing.assert_close(predict(x_test).detach(), y_test.float(), rtol=0.02, atol=0.5)
