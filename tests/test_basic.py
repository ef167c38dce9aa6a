"""Dense, Scale, Chain, Maxout, activations, flatten: against torch.nn and Flux's documented numbers."""

import operator

import numpy
import pytest
import torch
import torch.nn.functional as F
import torch.nn.utils.prune
from torch import nn

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch.layers import basic


class TestDense:
    def test_equals_linear_forward_and_gradient(self):
        torch.manual_seed(0)
        d = Dense(5 | to | 3, tanh)
        lin = torch.nn.Linear(5, 3)
        lin.load_state_dict(d.state_dict())
        x = torch.randn(5, 7)
        torch.testing.assert_close(d(x), lin(x.t()).tanh().t())
        grad, dx = gradient(lambda m, x: (m(x) ** 2).sum(), d, x)
        xt = x.t().clone().requires_grad_()
        (lin(xt).tanh() ** 2).sum().backward()
        torch.testing.assert_close(grad.weight, lin.weight.grad)
        torch.testing.assert_close(grad.bias, lin.bias.grad)
        torch.testing.assert_close(dx, xt.grad.t())
        assert grad.σ is None

    @pytest.mark.parametrize("size", [(10,), (10, 4), (10, 2, 3), (10, 2, 3, 4), (10, 0)])
    def test_any_number_of_batch_axes(self, size):
        d, x = Dense(10 | to | 4), torch.randn(size)
        torch.testing.assert_close(
            d(x), torch.einsum("oi,i...->o...", d.weight, x) + d.bias.reshape(-1, *(1,) * (x.ndim - 1))
        )

    def test_constructors(self):
        assert Dense(10, 100).weight.shape == (100, 10) and Dense(10, 100).bias.shape == (100,)
        assert Dense(torch.rand(100, 10), torch.rand(100)).σ is identity
        assert Dense(torch.rand(100, 10), False, tanh).σ is tanh
        assert Dense(torch.rand(100, 10).half(), True).bias.dtype == torch.float16
        assert Dense(torch.rand(100, 10).half(), torch.rand(100)).bias.dtype == torch.float16
        assert Dense(3 | to | 4, bias=torch.arange(4.0)).bias.tolist() == [0, 1, 2, 3]
        assert Dense((3, 4)).weight.shape == (4, 3)
        assert torch.equal(Dense(2 | to | 3, init=ones32).weight, torch.ones(3, 2))
        for bias in (True, [1, 2, 3, 4]):
            assert Dense(3, 4, init=randn, bias=bias).bias.dtype == torch.float64
        whole = Dense(2 | to | 3, init=lambda *size: numpy.ones(size, dtype=int))  # floats, which can be trained
        assert whole.weight.dtype == torch.float32 and len(params(whole)) == 2
        assert Dense(numpy.prod([2, 5]) | to | numpy.int64(3)).weight.shape == (3, 10)

    def test_keywords_of_flux_up_to_0_12(self):
        d = Dense(2, 3, relu, initW=lambda *size: 7 * ones32(*size), initb=ones)
        assert torch.equal(d.W, torch.full((3, 2), 7.0))
        assert d.b.tolist() == [1, 1, 1] and d.b.dtype == torch.float32 and d.σ is relu
        assert Dense(2, 3, initb=ones, bias=False).bias is False
        x = torch.tensor([[1.0, 2.0]] * 10, dtype=torch.float64)
        assert Dense(10, 2, identity, initW=ones, initb=zeros)(x).tolist() == [[10, 20], [10, 20]]
        y = Maxout((lambda x: x, lambda x: 2 * x, lambda x: 0.5 * x))(x)  # the layers as one tuple
        assert torch.equal(y, 2 * x)
        assert str(Dense(3, 4, relu, bias=False)) == "Dense(3 => 4, relu; bias=false)"

    @pytest.mark.filterwarnings("ignore:Layer with Float32")
    def test_documented_numbers(self):
        assert torch.equal(Dense(10 | to | 2, init=ones32)(ones(10, 1)), torch.full((2, 1), 10.0))
        assert torch.equal(Dense(10 | to | 2, init=ones32)(ones(10, 2)), torch.full((2, 2), 10.0))
        y = Dense(10 | to | 2, init=ones32)(torch.stack([torch.ones(10), 2 * torch.ones(10)], 1))
        assert y.tolist() == [[10, 20], [10, 20]]
        assert Dense(10 | to | 2, init=ones32, bias=False)(torch.ones(10)).tolist() == [10, 10]
        y = Dense(ones(2, 5), False, tanh)(ones(5))
        torch.testing.assert_close(y, torch.full((2,), 0.9999092042625951, dtype=torch.float64))

    @pytest.mark.parametrize(
        ("make", "error", "message"),
        [
            (lambda: Dense(10, 9.5), TypeError, "pair of sizes"),
            (lambda: Dense(10 | to | 9.5), TypeError, "whole numbers, and got 9.5"),
            (lambda: Dense("10" | to | 5), TypeError, "whole numbers"),
            (lambda: Dense(True | to | 5), TypeError, "whole numbers"),
            (lambda: Dense(10 | to | -5), ValueError, "at least 0"),
            (lambda: Dense(10), TypeError, "pair of sizes"),
            (lambda: Dense(10 | to | 5, 3), TypeError, "function as its activation"),
            (lambda: Dense(10 | to | 5, relu, relu), TypeError, "1 argument too many"),
            (lambda: Dense(torch.ones(3)), DimensionMismatch, "matrix"),
            (lambda: Dense(torch.ones(3, 2), torch.ones(2)), DimensionMismatch, r"expected bias of size \(3,\)"),
            (lambda: Dense(10 | to | 5, bias="yes"), TypeError, "bias"),
            (lambda: Dense(torch.ones(3, 2), True, bias=False), TypeError, "Dense got a bias twice: true and false"),
            (
                lambda: Dense(3 | to | 2, init=lambda *size: torch.ones(size[::-1])),
                DimensionMismatch,
                r"init of Dense must give an array of size \(2, 3\), and gave 3×2 tensor of float32",
            ),
            (lambda: Dense(3 | to | 2, init=lambda *size: None), DimensionMismatch, "and gave None"),
            (lambda: Dense(torch.ones(5), torch.ones(5), tanh), DimensionMismatch, "matrix"),
        ],
    )
    def test_bad_constructor(self, make, error, message):
        with pytest.raises(error, match=message):
            make()

    def test_wrong_size_of_input(self):
        d = Dense(10 | to | 5)
        with pytest.raises(
            DimensionMismatch,
            match=r"layer Dense\(10 => 5\) expects size\(input, 0\) == 10, but got 3×10 tensor of float32",
        ):
            d(torch.ones(3, 10))
        with pytest.raises(DimensionMismatch, match="0-dimensional"):
            d(torch.tensor(1.0))
        with pytest.raises(TypeError, match="expects an array as input, but got 'text'"):
            d("text")
        with pytest.raises(TypeError, match="expects an array as input, but got 1"):
            Dense(1 | to | 5)(1)

    def test_type_matching_of_flux_s_tests(self):
        d1 = Dense(2 | to | 3)
        d2 = Dense(d1.weight, False)
        for x in (
            torch.randn(2, 4),
            torch.randn(2, 4).double(),
            torch.randint(-5, 6, (2, 4)),
            torch.rand(2, 4) > 0.5,
            onehotbatch([True, False, False, True, True], (True, False)),
        ):
            want = d1.weight @ torch.as_tensor(x).float()
            for d in (d1, d2):
                torch.testing.assert_close(d(x), want)
        z = torch.randn(2, 4, dtype=torch.complex64)  # passes unconverted
        for y in (d1(z), d2(z)):
            torch.testing.assert_close(y, torch.complex(d2(z.real), d2(z.imag)))

    def test_element_types(self):
        basic._warned.clear()
        d = Dense(2 | to | 1)
        with pytest.warns(UserWarning, match="Float32 parameters got Float64 input") as record:
            assert d(rand(2)).dtype == torch.float32
            d(rand(2))
        assert len(record) == 1
        assert d([1, 2]).dtype == torch.float32
        assert d(torch.tensor([True, False])).dtype == torch.float32
        assert f64(d)(torch.ones(2)).dtype == torch.float64
        dx = gradient(lambda x: d(x).sum(), rand(2))[0]
        assert dx.dtype == torch.float64

    def test_autocast_is_left_alone(self):
        d = Dense(4 | to | 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert Chain(d, d)(torch.ones(4, 2)).dtype == torch.bfloat16


class TestScale:
    def test_documented_numbers(self):
        assert Scale(2)([[1, 2, 3], [1, 2, 3]]).tolist() == [[1, 2, 3], [1, 2, 3]]
        b = Scale(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), False, abs2)
        assert str(b) == "Scale(1, 4, abs2; bias=false)"
        assert b([1, 10]).tolist() == [[1, 4, 9, 16], [100, 400, 900, 1600]]
        assert [p.tolist() for p in params(Scale(2))] == [[1, 1], [0, 0]]

    def test_axes_line_up_from_the_first(self):
        s = Scale(torch.tensor([1.0, 10.0]), torch.tensor([0.0, 1.0]))
        assert s(torch.ones(2, 2)).tolist() == [[1, 1], [11, 11]]
        assert s(torch.ones(2)).tolist() == [1, 11]
        assert Scale(2, 3, relu)(torch.ones(2, 3, 4)).shape == (2, 3, 4)
        assert gradient(lambda m: m(torch.ones(2, 3)).sum(), s)[0].bias.tolist() == [3, 3]

    def test_numbers_of_flux_s_tests(self):
        for s in (Scale(10), Scale(10, bias=False), Scale(10, tanh)):
            assert s(randn(10)).shape == s(randn(1)).shape == (10,)
        assert Scale(2)([[1, 2]]).tolist() == [[1, 2], [1, 2]]
        assert Scale(2)([1, 2]).tolist() == [1, 2]
        assert Scale(2, init=randn)([1, 2]).tolist() != [1, 2]
        assert Scale(2, bias=False)([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
        assert Scale(2, abs2, bias=False, init=ones)([[1, 2], [3, 4]]).tolist() == [[1, 4], [9, 16]]
        for s in (Scale(2), Scale(2, 3), Scale(2, 3, 4, bias=False)):
            assert s(rand(2, 3, 4)).shape == (2, 3, 4)
        assert Scale(2, 3, bias=False)(rand(2, 1, 4)).shape == (2, 3, 4)
        assert torch.equal(Scale(2, 3, tanh, bias=False, init=zeros)(rand(2, 1, 4)), zeros(2, 3, 4))

    def test_bad_input(self):
        with pytest.raises(DimensionMismatch, match="from the first"):
            Scale(3)(torch.ones(2, 3))
        for args in ((1.0,), (1.0, 2.0), (), (tanh,)):
            with pytest.raises(TypeError, match="Scale expects"):
                Scale(*args)
        with pytest.raises(RuntimeError, match="meta"):  # what torch can't do is not said to be the axes' fault
            Scale(3)(torch.ones(3, device="meta"))
        with pytest.raises(TypeError, match="sizes of its scale"):
            Scale()
        with pytest.raises(TypeError, match="whole numbers"):
            Scale(2.5)

    def test_diagonal(self):
        d = Flux.Diagonal(2)
        assert d.α is d.scale and d.β is d.bias
        assert d([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
        d = Flux.Diagonal(2, 3, initα=lambda *size: 5 * ones(*size), initβ=ones)
        assert d.α.dtype == torch.float64 and d(torch.ones(2, 3)).tolist() == [[6, 6, 6], [6, 6, 6]]
        α, β = torch.tensor([2.0, 3.0]), torch.tensor([1.0, 0.0])
        d = Flux.Diagonal(α, β)
        assert d.α is α and d([[1], [1]]).tolist() == [[3], [3]]
        assert Flux.Diagonal(10)(1).tolist() == [1] * 10 and Flux.Diagonal(2)(2.5).tolist() == [2.5] * 2
        with pytest.raises(TypeError, match="Diagonal expects its sizes to be whole numbers, and got tanh"):
            Flux.Diagonal(2, tanh)


class TestChain:
    def test_indexing(self):
        m = Chain(Dense(10 | to | 5, σ), Dense(5 | to | 2), softmax)
        assert m[0] is m.layers[0] and m[-1] is softmax and len(m) == 3 and list(m) == list(m.layers)
        assert isinstance(m[0:2], Chain) and list(m[0:2]) == [m[0], m[1]]
        assert list(m[[2, 0]]) == [softmax, m[0]]
        with pytest.raises(IndexError):
            m[3]

    def test_names(self):
        m = Chain(enc=Dense(10 | to | 5, tanh), dec=Dense(5 | to | 2))
        assert m["enc"] is m[0] is m.layers.enc and m[1:]["dec"] is m["dec"]
        assert list(m.keys()) == ["enc", "dec"]
        x = rand32(10, 3)
        torch.testing.assert_close(m(x), (m["dec"] @ m["enc"])(x))
        assert repr(m) == (
            "Chain(\n"
            "  enc = Dense(10 => 5, tanh),           # 55 parameters\n"
            "  dec = Dense(5 => 2),                  # 12 parameters\n"
            ")                   # Total: 4 arrays, 67 parameters, 268 bytes."
        )
        assert gradient(lambda m: m(x).sum(), m)[0].layers.dec.bias.tolist() == [3, 3]
        with pytest.raises(ValueError, match="cannot have a named layer called `layers`"):
            Chain(layers=Dense(1, 1))

    def test_several_inputs(self):
        """As in Flux 0.16: the first layer gets a tuple."""
        assert Chain(identity, identity)(1, 2, 3) == (1, 2, 3)
        assert Chain(identity, Parallel(operator.add, lambda x: 1 / x, abs2))(4, 5) == 25.25

    def test_rebuilding_keeps_names(self):
        m = Chain(first=Dense(10, 5, σ), second=Dense(5, 2))
        for other in (m[0:2], fmap(identity, m)):
            assert list(other.keys()) == ["first", "second"] and other[0].weight is m[0].weight
        for bad in (lambda: m["third"], lambda: Chain(relu)["first"]):
            with pytest.raises((KeyError, TypeError)):
                bad()

    def test_activations_of_flux_s_tests(self):
        x = torch.randn(10)
        one, two, three = activations(Chain(lambda x: x**2, lambda x: x - 3, lambda x: x.tan()), x)
        assert torch.equal(one, x**2) and torch.equal(two, x**2 - 3) and torch.equal(three, (x**2 - 3).tan())
        assert activations(Chain(identity, lambda x: "foo"), x)[1] == "foo"
        c = Chain(Dense(3, 5, relu, init=ones32), Dense(5, 1, relu, init=ones32))
        c2 = Chain(enc=c[0], dec=c[1])
        x = torch.ones(3)
        assert [a.tolist() for a in activations(c, x)] == [a.tolist() for a in activations(c2, x)] == [[3] * 5, [15]]
        for m in (c, c2):
            gs = gradient(lambda m=m: activations(m, x)[1][0], params(m))
            assert gs[c[0].weight].tolist() == [[1, 1, 1]] * 5 and gs[c[1].bias].tolist() == [1]

    def test_plain_functions_and_numbers(self):
        assert Chain(lambda x: x**2, lambda x: x + 1)(5) == 26
        assert activations(Chain(lambda x: x + 1, lambda x: x * 2, lambda x: x**3), 1) == (2, 4, 64)

    def test_empty(self):
        assert Chain()(3) == 3 and activations(Chain(), 3) == () and len(Chain()) == 0
        assert repr(Chain()) == "Chain()"
        assert gradient(lambda m, x: m(x), Chain(), 2.0) == (None, 1.0)

    def test_a_list_of_layers_is_one_field(self):
        m = Chain([Dense(2, 3), Dense(3, 1)])
        assert len(params(m)) == 4 and m(torch.ones(2)).shape == (1,)
        assert str(m) == "Chain([Dense(2 => 3), Dense(3 => 1)])"
        assert str(m[1:]) == "Chain([Dense(3 => 1)])"

    def test_a_list_of_layers_has_the_gradients_of_the_layers(self):
        m = Chain(Dense(3, 4, tanh, bias=False), Dense(4, 2))
        mv = Chain([m[0], m[1]])
        assert sum(p.numel() for p in params(m)) == sum(p.numel() for p in params(mv)) == 22
        x, y = torch.randn(3, 5), torch.rand(2, 5) > 0.5
        torch.testing.assert_close(m(x), mv(x))
        g, gv = (gradient(lambda m=m: Flux.logitcrossentropy(m(x), y), params(m)) for m in (m, mv))
        torch.testing.assert_close(g[m[0].weight], gv[mv[0].weight])
        torch.testing.assert_close(g[m[1].bias], gv[mv[1].bias])
        (flat, re), (flatv, rev) = Flux.destructure(m), Flux.destructure(mv)
        torch.testing.assert_close(flat, flatv)
        z = torch.rand(22)
        torch.testing.assert_close(re(z)[0].weight, rev(z)[0].weight)

    def test_second_derivatives(self):
        """Flux's issue with softmax, and NNlib's number 362, among them."""
        x = torch.tensor([1.0, 2.0, 3.0])
        m = Chain(Dense(3, 4, tanh, bias=False), Dense(4, 2))
        for f in (m, Chain([*m]), Chain(Dense(3, 4, tanh), Dense(4, 2), softmax, lambda p: p[:1])):
            f = f64(f)
            want = torch.autograd.functional.hessian(lambda x, f=f: f(x).sum(), x.double())
            torch.testing.assert_close(hessian(lambda x, f=f: f(x).sum(), x.double()), want)
            assert want.abs().max() > 1e-4
        m = Chain(Conv((3,), 2 | to | 3, tanh), Dense(2, 2))
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])[..., None] / 8
        want = torch.autograd.functional.hessian(lambda x: m(x).sum(), x)
        order = [i * 2 + j for j in range(2) for i in range(4)]
        torch.testing.assert_close(
            hessian(lambda x: m(x).sum(), x), want.reshape(8, 8)[order][:, order], rtol=1e-4, atol=1e-6
        )

    def test_wrong_sizes(self):
        with pytest.raises(DimensionMismatch, match=r"layer Dense\(2 => 1\)"):
            Chain(Dense(10, 5), Dense(2, 1))(rand32(10))

    def test_dense_layers_as_one_by_one_whatever_their_arrays_are(self):
        x = torch.randn(3, 5)
        frozen = Dense(torch.randn(4, 3), torch.arange(4))  # whole numbers: no parameter
        computed = nn.utils.parametrize.register_parametrization(Dense(4, 2), "bias", nn.Tanh())
        masked = nn.utils.prune.random_unstructured(Dense(4, 2), "bias", 0.5)
        for m in (Chain(frozen, computed), Chain(Dense(3, 4, bias=False), masked), Chain(Dense(3, 4, nn.ReLU()))):
            torch.testing.assert_close(m(x), activations(m, x)[-1])
        m = Chain(Dense(3, 4, tanh), Dense(4, 2))
        torch.testing.assert_close(m(x.double()), m(x))
        for f in (relu, σ, tanh_fast):
            with pytest.raises(TypeError, match="takes a real number"):
                Chain(Dense(torch.randn(2, 3).to(torch.complex64), True, f))(x.to(torch.complex64))
        assert m(x.to(torch.complex64)).dtype == torch.complex64 and m(torch.ones(3, 5).int()).dtype == torch.float32

    @pytest.mark.parametrize("bad", [3, "relu", None])
    def test_what_is_no_layer(self, bad):
        with pytest.raises(TypeError, match="takes layers and functions"):
            Chain(Dense(1, 1), bad)

    def test_layers_by_captured_tensors(self):
        def make():
            W = torch.ones(2, 2)
            return Chain(lambda x: W @ x, Dense(2, 1)), W

        m, W = make()
        assert len(params(m)) == 3
        grad = gradient(lambda m: m(torch.ones(2)).sum(), m)[0]
        torch.testing.assert_close(grad.layers[0].W, m[1].weight.detach().t().expand(2, 2))
        assert not W.requires_grad


class TestMaxout:
    def test_documented_numbers(self):
        m = Maxout(lambda x: abs2(x), lambda x: x * 3)
        assert m([[-2, -1, 0, 1, 2]]).tolist() == [[4, 1, 0, 3, 6]]
        assert Maxout(lambda: Dense(ones(2, 1), False), 2)(ones(1)).tolist() == [1, 1]

    def test_numbers_of_flux_s_tests(self):
        x = rand(40)
        assert torch.equal(Maxout(lambda: identity, 4)(x), x)
        assert torch.equal(Maxout(lambda x: x, lambda x: 2 * x, lambda x: 0.5 * x)(x), 2 * x)
        outer = lambda *w: lambda x: torch.tensor(w)[:, None] @ x  # noqa: E731
        y = Maxout(outer(0.5, 0.1), outer(0.2, 0.7))(torch.tensor([[3.0, 2.0]]))
        torch.testing.assert_close(y, torch.tensor([[1.5, 1.0], [2.1, 1.4]]))
        m = Maxout(lambda: Dense(32, 64), 4)
        assert len(params(m)) == 8 and m.over[0] is m.layers[0]

    def test_sizes_that_differ_line_up_from_the_first_axis(self):
        x = torch.tensor([[1.0, 9.0], [5.0, 2.0]])
        assert Maxout(identity, lambda x: 3 * x[:, 0] - 2)(x).tolist() == [[1, 9], [13, 13]]
        assert Maxout(lambda x: x[:1], identity)(x).tolist() == [[1, 9], [5, 9]]

    def test_gradient_goes_to_the_largest(self):
        m = Maxout(Dense([[1.0], [2.0]], False), Dense([[2.0], [1.0]], False))
        grad = gradient(lambda m: m(torch.ones(1)).sum(), m)[0]
        assert grad.layers[0].weight.tolist() == [[0], [1]] and grad.layers[1].weight.tolist() == [[1], [0]]

    def test_bad_input(self):
        for args in ((), (relu, 0), (3,), (relu, "x"), (lambda: 3, 2)):
            with pytest.raises(TypeError, match="Maxout needs at least one layer"):
                Maxout(*args)
        with pytest.raises(DimensionMismatch, match="lengths 3 and 2"):
            Maxout(Dense(2, 3), Dense(2, 2))(torch.ones(2))
        with pytest.raises(TypeError, match=r"layer Maxout\(relu, tanh\) expects an array as input, but got 3"):
            Maxout(relu, tanh)(3)


def test_flatten_is_column_major():
    x = torch.arange(24).reshape(2, 3, 4)
    y = flatten(x)
    assert y.shape == (6, 4)
    assert y[:, 0].tolist() == [x[i, j, 0].item() for j in range(3) for i in range(2)]
    z = torch.rand(4, 3, 2).permute(2, 1, 0)
    assert flatten(z).data_ptr() == z.data_ptr()


def test_an_image_network_equals_torch():
    torch.manual_seed(0)
    m = Chain(Conv((3, 3), 1 | to | 4, relu), MaxPool((2, 2)), flatten, Dense(36 | to | 3))
    x = torch.randn(8, 8, 1, 5)
    xt = x.permute(3, 2, 1, 0)
    h = F.conv2d(xt, m[0].weight.flip(0, 1).permute(3, 2, 1, 0), m[0].bias).relu()
    expected = F.linear(F.max_pool2d(h, 2).flatten(1), m[3].weight, m[3].bias)
    torch.testing.assert_close(m(x), expected.t())
