"""`outputsize`; `autosize`: Flux's tests of its macro, and what a function in its place has to get right."""

import functools
import itertools
import math
import operator

import pytest
import torch

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch import base
from fluxtorch.autosize import LazyLayer, autosize
from fluxtorch.layers.combine import Bilinear, Parallel, SkipConnection
from fluxtorch.layers.embedding import Embedding


def sizes(m):
    return [tuple(p.shape) for p in params(m)]


def block(n, m):
    return Chain(Dense(n | to | m, relu), Dense(m | to | n))


def joining(mx, x):
    return base.cat(mx, x, dims=2)


BASIC = [
    (Chain(Conv((3, 3), 3 | to | 16), Conv((3, 3), 16 | to | 32)), (10, 10, 3, 1), (6, 6, 32, 1)),
    (Chain(Dense(10, 8, σ), Dense(8, 5), Dense(5, 2)), (10, 30), (2, 30)),
    (Flux.Scale(10), (10, 1), (10, 1)),
    (Maxout(lambda: Conv((3, 3), 3 | to | 16), 2), (10, 10, 3, 1), (8, 8, 16, 1)),
    (Maxout(lambda: Dense(5 | to | 7, tanh), 3), (5, 11), (7, 11)),
    (flatten, (5, 5, 3, 10), (75, 10)),
    (Flux.unsqueeze(dims=2), (5, 7, 13), (5, 7, 1, 13)),
    (Bilinear(10, 10, 7), (10,), (7,)),
    (Bilinear(10, 10, 7), (10, 32), (7, 32)),
    (Chain(Conv((3, 3), 3 | to | 16), BatchNorm(16), flatten, Dense(1024, 10)), (10, 10, 3, 50), (10, 50)),
    (SkipConnection(Conv((3, 3), 3 | to | 16, pad=1), joining), (10, 10, 3, 1), (10, 10, 19, 1)),
    (Parallel(joining, Conv((3, 3), 3 | to | 16, pad=1), identity), (10, 10, 3, 1), (10, 10, 19, 1)),
    (Conv((3, 3), 3 | to | 16, stride=2), (5, 5, 3, 1), (2, 2, 16, 1)),
    (Conv((3, 3), 3 | to | 16, stride=2, pad=3, dilation=2), (5, 5, 3, 100), (4, 4, 16, 100)),
    (ConvTranspose((3, 3), 3 | to | 16, stride=2, pad=3, dilation=2), (4, 4, 3, 1), (5, 5, 16, 1)),
    (DepthwiseConv((3, 3), 3 | to | 6), (10, 10, 3, 1), (8, 8, 6, 1)),
    (DepthwiseConv((3, 3), 3 | to | 6, stride=2, pad=3), (5, 5, 3, 1), (5, 5, 6, 1)),
    (CrossCor((3, 3), 3 | to | 16, stride=2, pad=3), (5, 5, 3, 1), (5, 5, 16, 1)),
    (MaxPool((2, 2), stride=2, pad=3), (5, 5, 2, 1), (5, 5, 2, 1)),
    (MeanPool((2, 2)), (10, 10, 3, 1), (5, 5, 3, 1)),
    (Dropout(0.1), (10, 10), (10, 10)),
    (AlphaDropout(0.1), (10, 10), (10, 10)),
    (Flux.LayerNorm(32), (32, 32, 3, 16), (32, 32, 3, 16)),
    (BatchNorm(3), (32, 32, 3, 16), (32, 32, 3, 16)),
    (Flux.InstanceNorm(3), (32, 32, 3, 16), (32, 32, 3, 16)),
    (Flux.GroupNorm(16, 4), (32, 32, 16, 16), (32, 32, 16, 16)),
    (RNN(2 | to | 3), (2, 4), (3, 4)),
]


@pytest.mark.parametrize(("m", "size", "want"), BASIC, ids=range(len(BASIC)))
def test_outputsizes_of_flux_s_tests(m, size, want):
    assert outputsize(m, size) == want
    if size[-1] == 1:
        assert outputsize(m, size[:-1], padbatch=True) == want


ACTIVATIONS = (
    "celu elu gelu hardsigmoid hardtanh leakyrelu lisht logcosh logσ mish relu relu6 rrelu selu σ softplus softshrink "
    "softsign swish tanhshrink trelu"
).split()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_outputsizes_of_activations(name):
    assert outputsize(Dense(10, 5, getattr(Flux, name)), (10, 1)) == (5, 1)


def test_outputsizes_of_several_inputs():
    par = Parallel(vcat, Dense(2, 4, relu), Dense(3, 6, relu))
    for m, n in ((par, 10), (Chain(par, Dense(10, 13, tanh), softmax), 13)):
        assert outputsize(m, (2,), (3,)) == outputsize(m, ((2,), (3,))) == (n,)
        assert outputsize(m, (2,), (3,), padbatch=True) == outputsize(m, ((2,), (3,)), padbatch=True) == (n, 1)
        assert outputsize(m, (2, 7), (3, 7)) == (n, 7)
    assert outputsize(Dense(2, 4), ((2, 7),)) == (4, 7)
    # The model gets them as a tuple, always.
    assert outputsize(lambda xs: xs[1], (2,), (3,)) == (3,)
    with pytest.raises(TypeError, match="positional argument"):
        outputsize(lambda x, y: x, (2,), (3,))


def test_outputsizes_of_lists_of_layers():
    for kind in (list, tuple):
        assert outputsize(kind([Dense(10 | to | 4), Dense(4 | to | 2)]), (10, 1)) == (2, 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("convert", [f16, f64])
def test_outputsizes_of_other_element_types(convert):
    m = convert(Chain(Conv((3, 3), 1 | to | 2, relu), BatchNorm(2), GlobalMeanPool(), flatten, Dense(2 | to | 3)))
    assert outputsize(m, (5, 5, 1, 4)) == (3, 4)
    assert outputsize(convert(Bilinear(3 | to | 2)), (3, 4)) == (2, 4)
    for m in (BatchNorm(4), Flux.GroupNorm(4, 2), Flux.LayerNorm(5), RNN(5 | to | 5)):
        assert outputsize(convert(m), (5, 4, 2)) == (5, 4, 2)


def test_errors_of_outputsize():
    for m, size, words in (
        (Dense(10, 5), (5, 2), r"layer Dense\(10 => 5\) expects size\(input, 0\) == 10, but got 5×2 tensor"),
        (Chain(Dense(10, 8, σ), Dense(8, 4), Dense(5, 2)), (10,), r"layer Dense\(5 => 2\)"),
        (
            Chain(Conv((3, 3), 3 | to | 16), relu),
            (10, 10, 7, 64),
            r"layer Conv\(\(3, 3\), 3 => 16\) expects size\(input, 2\) == 3, but got 10×10×7×64 tensor of float32",
        ),
        (Conv((3, 3), 3 | to | 16), (5, 5, 2), r"expects ndims\(input\) == 4"),
        (BatchNorm(3), (32, 32, 5, 1), "BatchNorm"),
        (Flux.InstanceNorm(3), (32, 32, 5, 1), "InstanceNorm"),
        (Flux.GroupNorm(16, 4), (32, 32, 15, 4), "GroupNorm"),
    ):
        with pytest.raises(DimensionMismatch, match=words):
            outputsize(m, size)
    for args, words in (
        ((), "expects the size of an input"),
        ((3,), "sizes as tuples of whole numbers, and got 3"),
        (((3, 1.5),), "sizes as tuples of whole numbers"),
        (((3, 1), 3), "sizes as tuples of whole numbers, and got 3"),
    ):
        with pytest.raises(TypeError, match=words):
            outputsize(Dense(3, 2), *args)
    with pytest.raises(ValueError, match="at least 0, and got -1"):
        outputsize(Dense(3, 2), (3, -1))
    with pytest.raises(TypeError, match="needs a model that gives an array, and function <lambda> gives 3"):
        outputsize(lambda x: 3, (3, 1))


def test_make_model_of_the_manual():
    def make_model(width, height, inchannels=1, nclasses=10, *, layer_config=(16, 16, 32, 64)):
        conv_layers = [Conv((5, 5), inchannels | to | layer_config[0], relu, pad=SamePad())]
        for inch, outch in itertools.pairwise(layer_config):
            conv_layers.append(Conv((3, 3), inch | to | outch, sigmoid, stride=2))
        conv_outsize = outputsize(conv_layers, (width, height, inchannels), padbatch=True)
        inferred = autosize(
            (width, height, inchannels, 1), lambda _: Chain(*conv_layers, Flux.flatten, Dense(_ | to | nclasses))
        )
        return Chain(*conv_layers, Flux.flatten, Dense(math.prod(conv_outsize) | to | nclasses)), inferred

    for m in make_model(28, 28, 3, layer_config=[9, 17, 33, 65]):
        assert outputsize(m, (28, 28, 3, 42)) == (10, 42) == m(randn32(28, 28, 3, 42)).shape
    m = autosize(
        (28, 28, 1, 32),
        lambda _: Chain(Conv((3, 3), _ | to | 5, relu, stride=2), Flux.flatten, Dense(_ | to | 10)),
    )
    assert str(m[-1]) == "Dense(845 => 10)"
    assert outputsize(m[0], (28, 28, 1, 32)) == (13, 13, 5, 32)


def test_outdims_of_flux_0_10():
    assert outdims(Flux.Diagonal(10), (10,)) == (10,)
    m = Maxout(lambda: Conv((3, 3), 3 | to | 16), 2)
    assert outdims(m, (10, 10)) == (8, 8)
    wide = {"stride": 2, "pad": 3, "dilation": 2}
    for kind, out in ((Conv, 16), (DepthwiseConv, 6), (CrossCor, 16)):
        for kws, size, want in (
            ({}, (10, 10), (8, 8)),
            ({"stride": 2}, (5, 5), (2, 2)),
            ({"stride": 2, "pad": 3}, (5, 5), (5, 5)),
            (wide, (5, 5), (4, 4)),
        ):
            assert outdims(kind((3, 3), 3 | to | out, **kws), size) == want
    for kws, size, want in (
        ({}, (8, 8), (10, 10)),
        ({"stride": 2}, (2, 2), (5, 5)),
        ({"stride": 2, "pad": 3}, (5, 5), (5, 5)),
        (wide, (4, 4), (5, 5)),
    ):
        assert outdims(ConvTranspose((3, 3), 3 | to | 16, **kws), size) == want
    for kind in (MaxPool, MeanPool):
        assert outdims(kind((2, 2)), (10, 10)) == outdims(kind((2, 2), stride=2, pad=3), (5, 5)) == (5, 5)
        assert outdims(kind((2, 2), stride=1), (5, 5)) == (4, 4)
    with pytest.raises(TypeError, match="try outputsize"):  # Flux 0.10 doesn't know them either
        outdims(GlobalMaxPool(), (10, 10))


def test_dense():
    m = autosize((3,), lambda _: Dense(_ | to | 4))
    assert type(m) is Dense
    assert m(randn32(3)).shape == (4,)
    m = autosize((3, 1), lambda _: Chain(Dense(_, 4), Dense(4 | to | 10), softmax))
    assert m(randn32(3, 5)).shape == (10, 5)
    assert m[2] is softmax
    m = autosize((2, 3, 4, 5), lambda _: Dense(_ | to | 10))  # by axis 0
    assert m(randn32(2, 3, 4, 5)).shape == (10, 3, 4, 5)


def test_arithmetic():
    assert sizes(autosize((9,), lambda _: Dense(_ | to | _ // 2)))[0] == (4, 9)
    for f, n in (
        (lambda _: Dense(_ | to | 2 * _ + 1), 19),
        (lambda _: Dense(_ | to | -(1 - _) % 5), 3),
        (lambda _: Dense(_ | to | max(_, 20)), 20),
        (lambda _: Dense(_ | to | int(_ / 2)), 4),
        (lambda _: Dense(_ | to | math.ceil(_**0.5 + 0.5)), 4),
        (lambda _: Dense(_ | to | operator.add(_, 1)), 10),
        (lambda _: Dense(_ | to | min(*[_, 5, 7])), 5),
    ):
        m = autosize((9,), f)
        assert m.weight.shape == (n, 9)
        assert type(m.weight.shape[0]) is int


def test_names_and_closures():
    for f in (
        lambda _: Chain(one=Dense(_ | to | 4), two=softmax),
        lambda _: Chain(nt(one=Dense(_ | to | 4), two=softmax)),
    ):
        m = autosize((3,), f)
        assert m(randn32(3)).shape == (4,)
        assert m["two"] is softmax
    assert autosize((3, 1), lambda _: Chain(c=Dense(_ | to | 2, sigmoid), b=BatchNorm(_, affine=False)))(
        randn32(3, 32)
    ).shape == (2, 32)
    m = autosize((3, 45), lambda _: Maxout(lambda: Dense(_ | to | 6, tanh), 2))
    assert m(randn32(3, 45)).shape == (6, 45)
    assert m.layers[0] is not m.layers[1]


def test_several_inputs_and_branches():
    m = autosize(
        (3,),
        lambda _: Chain(
            SkipConnection(Dense(_ | to | 4), Parallel(vcat, Dense(_ | to | 5), Dense(_ | to | 6))), Flux.Scale(_)
        ),
    )
    assert m(randn32(3)).shape == (11,)
    assert sizes(m)[::2] == [(4, 3), (5, 4), (6, 3), (11,)]
    m = autosize(((2,), (3,)), lambda _: Parallel(operator.add, Dense(_ | to | 4), Dense(_ | to | 4)))
    assert sizes(m)[::2] == [(4, 2), (4, 3)]
    assert m.connection is operator.add
    assert autosize((3,), lambda _: Bilinear(_ | to | 10))(randn32(3)).shape == (10,)
    assert autosize((3, 1), lambda _: Bilinear(_ | to | 10))(randn32(3, 4)).shape == (10, 4)
    m = autosize((3,), lambda _: SkipConnection(Dense(_ | to | _), Bilinear(_ | to | 10)))  # which gets two inputs
    assert m(randn32(3, 4)).shape == (10, 4)
    m = autosize(((3, 5), (4, 5)), lambda _: Bilinear((_, 4) | to | 10))  # by the first of them
    assert m.weight.shape == (10, 3, 4)
    m = autosize((3,), lambda _: Bilinear((_, 3) | to | 10))  # which Flux can't
    assert m(randn32(3), randn32(3)).shape == (10,)


def test_layers_that_go_by_the_first_axis():
    assert sizes(autosize((3, 4, 5), lambda _: RNN(_ | to | 2)))[0] == (2, 3)
    assert sizes(autosize((3, 4, 5), lambda _: Flux.LSTM(_ | to | _)))[0] == (12, 3)

    class Norm(Layer):
        diag: object

        def __init__(self, *size):
            self.diag = Scale(*size)

        @staticmethod
        def autosizefor(x):
            return x.shape[0]

        def __call__(self, x):
            return self.diag(x)

    assert autosize((3, 4, 5), lambda _: Norm(_))(rand32(3, 6, 7)).shape == (3, 6, 7)
    assert sizes(autosize((3, 3, 10), lambda _: Norm(_, _))) == [(3, 3), (3, 3)]
    if hasattr(Flux, "LayerNorm"):
        assert sizes(autosize((3, 4, 5), lambda _: Flux.LayerNorm(_))) == [(3,), (3,)]
    assert autosize((7, 5), lambda _: Chain(lambda x: x.long(), Embedding(_ | to | 10))).layers[1].weight.shape == (
        10,
        7,
    )


def test_the_example_of_the_manual():
    img = [28, 28]
    m = autosize(
        (*img, 1, 32),
        lambda _: Chain(
            Chain(
                c=Conv((3, 3), _ | to | 5, stride=2, pad=SamePad()), p=MeanPool((3, 3)), b=BatchNorm(_), f=Flux.flatten
            ),
            Dense(_ | to | _ // 4, relu, init=Flux.rand32),
            SkipConnection(Dense(_ | to | _, relu), operator.add),
            Dense(_ | to | 10),
        ),
    )
    assert repr(m) == (
        "Chain(\n"
        "  Chain(\n"
        "    c = Conv((3, 3), 1 => 5, pad=1, stride=2),  # 50 parameters\n"
        "    p = MeanPool((3, 3)),\n"
        "    b = BatchNorm(5),                   # 10 parameters, plus 10\n"
        "    f = flatten,\n"
        "  ),\n"
        "  Dense(80 => 20, relu),                # 1_620 parameters\n"
        "  SkipConnection(\n"
        "    Dense(20 => 20, relu),              # 420 parameters\n"
        "    +,\n"
        "  ),\n"
        "  Dense(20 => 10),                      # 210 parameters\n"
        ")         # Total: 10 trainable arrays, 2_310 parameters,\n"
        "          # plus 2 non-trainable, 10 parameters, summarysize 9.062 KiB."
    )
    assert outputsize(m, (28, 28, 1, 32)) == (10, 32)
    assert m(randn32(28, 28, 1, 32)).shape == (10, 32)
    assert m[1].weight.detach().min() >= 0  # rand32


def test_the_result_is_a_model_like_any_other():
    m = autosize(
        (3, 1), lambda _: Chain(Dense(_ | to | 4, tanh), lambda x: relu(x), LSTM(_ | to | 5), Dense(_ | to | 1))
    )
    assert not any(isinstance(x, LazyLayer) for x in Flux.functors.fcollect(m))
    assert len(m.state_dict()) == 9
    assert all(p.device.type == "cpu" and p.requires_grad and p.is_leaf for p in params(m))
    assert m[0].σ is tanh
    assert m[1].__globals__ is globals()
    assert m[2].state is m[2].cell.state0 or m[2].state[0] is m[2].cell.state0[0]  # nothing has run through it
    x = rand32(3, 4)
    opt = setup(Adam(), m)
    (grad,) = gradient(lambda m: m(x).sum(), m)
    update_(opt, m, grad)
    assert grad.layers[0].weight.shape == (4, 3)


def test_random_numbers_are_those_of_the_model_itself():
    torch.manual_seed(3)
    m1 = autosize((3, 1), lambda _: Chain(Dense(_ | to | 4), Dense(_ | to | 2)))
    torch.manual_seed(3)
    m2 = Chain(Dense(3 | to | 4), Dense(4 | to | 2))
    assert all(torch.equal(p, q) for p, q in zip(params(m1), params(m2), strict=True))


def test_statistics_are_untouched_and_modes_kept():
    m = autosize((3, 8), lambda _: trainmode_bn(_))
    assert m.active is True
    assert m.μ.tolist() == [0, 0, 0]


def trainmode_bn(n):
    return trainmode_(BatchNorm(n))


def test_functions_that_make_layers():
    # `_` is one number for the whole call, as in Julia, not one for each layer in it
    m = autosize((3, 1), lambda _: Chain(Dense(_ | to | 7), block(_, 5), Dense(_ | to | 1)))
    assert sizes(m)[::2] == [(7, 3), (5, 7), (7, 5), (1, 7)]

    def make_affine(n, m):
        W, b = torch.ones(m, n), torch.zeros(m)
        return Affine(W, b)

    class Affine(Layer):
        W: torch.Tensor
        b: torch.Tensor

        @classmethod
        def square(cls, n):
            return cls(torch.ones(n, n), torch.zeros(n))

        def __call__(self, x):
            return bias(self.W @ x, self.b)

    def bias(x, b):
        return x + b[:, None]

    m = autosize((3, 2), lambda _: Chain(make_affine(_, 5), Affine.square(_), Dense(_ | to | 1)))
    assert sizes(m)[::2] == [(5, 3), (5, 5), (1, 5)]
    partial = functools.partial(Dense, bias=False)
    assert sizes(autosize((3,), lambda _: partial(_ | to | 2))) == [(2, 3)]
    assert sizes(autosize((3,), functools.partial(Scale, bias=False))) == [(3,)]

    @Flux.layer
    class Plain:
        def __init__(self, n):
            self.w = torch.ones(int(math.sqrt(n)), n)

        def __call__(self, x):
            return self.w @ x

    assert sizes(autosize((9, 2), Plain)) == [(3, 9)]
    assert sizes(autosize((9, 2), lambda _: Plain(n=_))) == [(3, 9)]


def test_comprehensions_functions_and_conditions():
    m = autosize((3, 1), lambda _: Chain(*[Dense(_ | to | k) for k in (5, 6)], *(Dense(_ | to | k) for k in [7])))
    assert sizes(m)[::2] == [(5, 3), (6, 5), (7, 6)]

    def model(_):
        d = Dense(_ | to | 4)
        d2 = Dense(_ | to | 4)
        return Chain(Chain([d, tanh]), lambda x, d2=d2: d2(x) + x)

    m = autosize((3, 1), model)
    assert sizes(m) == [(4, 3), (4,)]
    assert m[1].__defaults__[0].weight.shape == (4, 4)


def test_layers_that_were_there_before():
    known = Dense(4 | to | 5)
    m = autosize((3, 1), lambda _: Chain(Dense(_ | to | 4), known, Dense(_ | to | 2)))
    assert m[1] is known
    assert sizes(m)[::2] == [(4, 3), (5, 4), (2, 5)]
    assert autosize((4, 1), lambda _: known) is known
    with pytest.raises(DimensionMismatch, match="layer Dense"):
        autosize((3, 1), lambda _: known)


def test_ties():
    def model(_):
        d = Dense(_ | to | _)
        return Chain(d, d, lambda x: d(x))

    m = autosize((3, 1), model)
    assert m[0] is m[1]
    assert sizes(m) == [(3, 3), (3,)]
    assert closure(m[2]).d is m[0]


def test_composed_functions():
    m = autosize((3, 1), lambda _: relu @ Dense(_ | to | 2) @ Dense(_ | to | 4))
    assert sizes(m)[::2] == [(2, 4), (4, 3)]
    assert repr(m) == "relu ∘ Dense(4 => 2) ∘ Dense(3 => 4)"
    assert m.outer.outer is relu


def test_layers_in_lists_and_dicts():
    class Split(Layer):
        paths: list
        more: dict

        def __call__(self, x):
            return vcat(*[f(x) for f in self.paths], *[f(x) for f in self.more.values()])

    m = autosize(
        (3, 1),
        lambda _: Chain(Split([Dense(_ | to | 2), Dense(_ | to | 5)], {"a": Dense(_ | to | 1)}), Dense(_ | to | 1)),
    )
    assert sizes(m)[::2] == [(2, 3), (5, 3), (1, 3), (1, 8)]
    assert type(m[0].paths) is list
    assert len(list(m.parameters())) == 8


def test_what_is_not_allowed():
    for f, words in (
        (lambda _: f64(Dense(_ | to | 2)), r"LazyLayer\(Dense\(_ => 2\)\) has no arrays yet"),
        (lambda _: params(Chain(Dense(_ | to | 2))), "has no arrays yet"),
        (lambda _: _, "a function that gives a model"),
        (lambda _: 3, "a function that gives a model"),
        (lambda _: Chain(lambda x: x[:_]), "doesn't expect an underscore here"),
        (lambda _: Dense(_ | to | (2 if _ > 3 else 1)), r"doesn't expect an underscore here: \(_ > 3\)"),
        (lambda _: Chain(*[Dense(_ | to | 1) for _ in _]), "doesn't expect an underscore here: _"),
        (lambda _: nt(make=block).make(_, 2), "whole numbers"),
        (5, "must be a function of _"),
    ):
        with pytest.raises(TypeError, match=words):
            autosize((3, 1), f)
    for size in (3, (3.0,), None, ((3,), 3)):
        with pytest.raises(TypeError, match="must be a tuple, the size of the input"):
            autosize(size, lambda _: Dense(_ | to | 2))

    class First(Layer):
        a: object
        b: object

        def __call__(self, x):
            return self.a(x)

    with pytest.raises(ValueError, match=r"no input has reached LazyLayer\(Dense\(_ => 4\)\)"):
        autosize((3, 1), lambda _: First(Dense(_ | to | 2), Dense(_ | to | 4)))
    with pytest.raises(DimensionMismatch):
        autosize((3, 1), lambda _: Chain(Dense(_ | to | 2), Dense(3 | to | 2)))
    with pytest.raises(ValueError, match="σ"):
        autosize((3, 1), lambda _: Chain(raises_with(_)))


def raises_with(n):
    raise ValueError(f"σ of {n}")


def test_names_are_left_as_they_are():
    before = dict(globals())
    autosize((3, 1), lambda _: block(_, 2))
    assert globals() == before
