"""`state`, `loadmodel_` and `loadparams_`: Flux's tests of loading, and what files and optimisers need."""

import functools
import io
import os
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch.loading import load_checkpoint_, loadmodel_, loadparams_, save_checkpoint, state
from fluxtorch.optimise import AbstractOptimiser
from fluxtorch.optimisers import AccumGrad, Leaf, MixedPrecision, Rprop


class Both(Layer):
    """Stands in for `Parallel(+, …)`."""

    layers: tuple

    def __call__(self, x):
        return sum(f(x) for f in self.layers)


def through_file(x):
    file = io.BytesIO()
    torch.save(x, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def everything(m):
    """All arrays in `m`, as they are now."""
    return [v.detach().clone() for v in Flux.functors.fleaves(m) if isinstance(v, torch.Tensor)]


def same(xs, ys):
    return len(xs) == len(ys) and all(map(torch.equal, xs, ys))


# -- loadmodel_ --------------------------------------------------------------------------------------


def test_parameters_are_copied_in_place_and_functions_kept():
    m1 = Chain(Dense(10, 5), Dense(5, 2, relu))
    m2 = Chain(Dense(10, 5), Dense(5, 2))
    held = list(params(m1))
    assert loadmodel_(m1, m2) is m1
    assert same(everything(m1), everything(m2))
    assert all(a is b for a, b in zip(held, params(m1), strict=True))
    assert all(a is not b for a, b in zip(params(m1), params(m2), strict=True))
    assert all(p.requires_grad and p.is_leaf for p in params(m1))
    assert m1[1].σ is relu


def test_nested_structures_and_absent_bias():
    m5 = Chain(Dense(10, 5), Both((Dense(ones32(2, 5), False), Dense(5, 2))))
    m6 = Chain(Dense(10, 5), Both((Dense(5, 2), Dense(5, 2))))
    loadmodel_(m5, m6)
    assert torch.equal(m5[0].weight, m6[0].weight)
    assert torch.equal(m5[1].layers[0].weight, m6[1].layers[0].weight)
    assert m5[1].layers[0].bias is False


def test_mismatches_raise_in_flux_words_and_change_nothing():
    m1 = Chain(Dense(10, 5), Dense(5, 2, relu))
    before = everything(m1)
    for src, error, words in (
        (Chain(Conv((3, 3), 3 | to | 16), Dense(5, 2)), ValueError, r"the structures do not match \(at layers.0\)\.$"),
        (
            Chain(Dense(10, 5), Both((Dense(5, 2), Dense(5, 2)))),
            ValueError,
            r"Tried to load \(layers\) into \(weight, bias, σ\)",
        ),
        (
            Chain(Dense(10, 6), Dense(6, 2)),
            DimensionMismatch,
            r"Tried to load size \(6, 10\) array into size \(5, 10\)",
        ),
        (Chain(Dense(10, 5), Dense(5, 3)), DimensionMismatch, r"Tried to load size \(3, 5\) array into size \(2, 5\)"),
        (Chain(Dense(10, 5)), ValueError, r"Tried to load range\(0, 1\) into range\(0, 2\)"),
        (
            Dense(10, 5),
            ValueError,
            r"Tried to load \(weight, bias, σ\) into \(layers\) but the structures do not match\.$",
        ),
        (None, ValueError, "structures do not match"),
    ):
        with pytest.raises(error, match=words):
            loadmodel_(m1, src)
        assert same(everything(m1), before)


def test_leaves_that_are_no_arrays():
    dst = nt(w=torch.ones(2), n=3, s="text", f=tanh, z=None, flag=True)
    loadmodel_(dst, nt(w=[5, 6], n=4, s="other", f=(), z=1, flag=False))
    assert dst == nt(w=torch.tensor([5.0, 6.0]), n=3, s="text", f=tanh, z=None, flag=True)
    for src, words in (
        (nt(dst, w=None), "Tried to copy None into an array destination; this is not allowed"),
        (nt(dst, w=1.5), "Tried to copy 1.5 into an array destination"),
        (nt(dst, w=()), "into an array destination"),
        (nt(dst, w=True), "Cannot copy boolean parameter == true to non-zero parameter"),
        (nt(dst, n=torch.ones(1)), "Tried to copy an array to 3; this is not allowed"),
        (nt(dst, z=torch.ones(1)), r"Tried to copy an array to None; this is not allowed \(at z\)"),
        (nt(dst, flag=torch.ones(1)), "Cannot copy non-zero parameter to boolean parameter == true"),
    ):
        with pytest.raises(ValueError, match=words):
            loadmodel_(dst, src)
    loadmodel_(dst, nt(dst, w=False))
    assert not dst.w.any()


def test_normalisation_and_dropout():
    m1 = Chain(Conv((3, 3), 3 | to | 16), BatchNorm(16), Flux.flatten, Dropout(0.2))
    m2 = Chain(Conv((3, 3), 3 | to | 16), BatchNorm(16), lambda x: x.reshape(-1, x.shape[-1]), Dropout(0.1))
    m2[1].μ.copy_(torch.rand(16))
    loadmodel_(m1, m2)
    assert torch.equal(m1[1].μ, m2[1].μ)
    assert m1[2] is Flux.flatten
    assert m1[3].p == 0.2


def test_a_bigger_model_from_a_chain_of_a_list():
    def layers(p, window):
        return [
            Dropout(p),
            Conv((3, 3), 1 | to | 32, relu),
            BatchNorm(32, relu),
            MaxPool(window),
            Dropout(p),
            Conv((3, 3), 32 | to | 16, relu),
            Dropout(p),
            MaxPool(window),
            Dropout(p),
            Conv((3, 3), 16 | to | 10, relu),
            Dropout(p),
            lambda x: reshape(x, -1, x.shape[3]),
            Dropout(p),
            Dense(90, 10),
            softmax,
        ]

    chain1, chain2 = Chain(*layers(0.2, (2, 2))), Chain(layers(0.1, (3, 3)))
    chain2[2].μ.fill_(5.0)
    chain2[2].σ2.fill_(2.0)
    testmode_(chain2)
    loadmodel_(chain1, chain2)
    for dst, src in zip(chain1, chain2, strict=True):
        if isinstance(dst, Dropout):
            assert dst.p == 0.2
        elif isinstance(dst, MaxPool):
            assert dst.k == (2, 2)
        elif isinstance(dst, Conv | Dense):
            assert torch.equal(dst.weight, src.weight)
            assert torch.equal(dst.bias, src.bias)
        elif isinstance(dst, BatchNorm):
            assert torch.equal(dst.μ, src.μ)
            assert torch.equal(dst.σ2, src.σ2)
            assert dst.active is None

    chain1[13].weight[...] = 1.0
    chain1[2].μ.fill_(3.0)
    chain1[1].bias[...] = 5.0
    loadmodel_(chain2[13], chain1[13])
    loadmodel_(chain2[2], chain1[2])
    assert torch.equal(chain2[13].weight, chain1[13].weight)
    assert torch.equal(chain2[2].μ, chain1[2].μ)
    assert not torch.equal(chain2[1].bias, chain1[1].bias)


def test_shared_weights():
    def tied():
        shared = Dense(10 | to | 10)
        return Chain(shared, Dense(shared.weight))

    m1, m2 = tied(), tied()
    loadmodel_(m1, m2)
    assert m1[0].weight is m1[1].weight
    assert torch.equal(m1[0].weight, m2[1].weight)
    before = everything(m1)
    with pytest.raises(ValueError, match="tied destination parameters with untied and mismatched sources"):
        loadmodel_(m1, Chain(Dense(10 | to | 10), Dense(10 | to | 10)))
    assert same(everything(m1), before)
    # a whole layer twice
    d = Dense(2 | to | 2)
    loadmodel_(Chain(d, d), Chain(Dense(ones(2, 2)), Dense(ones(2, 2))))
    assert d.weight.tolist() == [[1, 1], [1, 1]]


def test_shared_bias_with_an_absent_source():
    b = zeros32(5)
    m1 = Chain(Dense(10 | to | 5, bias=b), Dense(5 | to | 5, bias=b))
    m2 = Chain(Dense(10 | to | 5, bias=zeros32(5)), Dense(5 | to | 5, bias=False))
    loadmodel_(m1, m2)
    assert m1[0].bias is m1[1].bias
    assert not m1[0].bias.any()
    m2[0].bias[...] = 1
    with pytest.raises(ValueError, match="tied parameter with boolean source at some nodes"):
        loadmodel_(m1, m2)
    assert not m1[0].bias.any()


def test_filter():
    m1 = Chain(Dense(10, 5), Dense(5, 2, relu))
    m2 = Chain(Dense(10, 5), Dropout(0.2), Dense(5, 2))
    m3 = Chain(Dense(10, 5), Dense(5, 2, relu))
    loadmodel_(m1, m2, filter=lambda x: not isinstance(x, Dropout))
    assert same(everything(m1), everything(m2))
    loadmodel_(m2, m3, filter=lambda x: not isinstance(x, Dropout))
    assert same(everything(m3), everything(m2))
    with pytest.raises(ValueError, match="structures do not match"):
        loadmodel_(m1, m2)


def test_absent_bias():
    m0 = Chain(Dense(2 | to | 3, bias=False, init=ones32), Dense(3 | to | 1))
    m1 = Chain(Dense(2 | to | 3, bias=randn32(3)), Dense(3 | to | 1))
    m2 = Chain(Dense(torch.tensor([[1.0, 2], [3, 4], [5, 6]]), torch.tensor([7.0, 8, 9])), Dense(3 | to | 1))
    loadmodel_(m1, m2)
    assert m1[0].bias.tolist() == [7, 8, 9]
    assert m1[0].weight.sum() == 21
    loadmodel_(m1, m0)
    assert not m1[0].bias.any()
    assert m1[0].weight.sum() == 6
    loadmodel_(m0, m2)
    assert m0[0].bias is False
    assert m0[0].weight.sum() == 21


def test_element_types_are_those_of_the_destination_and_nothing_is_lost_in_silence():
    d = Dense(2 | to | 1)
    loadmodel_(d, nt(weight=np.array([[1.5, 2.5]]), bias=torch.tensor([3]), σ=()))
    assert d.weight.dtype == d.bias.dtype == torch.float32
    assert d.weight.tolist() == [[1.5, 2.5]]
    assert d.bias.tolist() == [3]
    for dst, src in (
        (torch.tensor([1, 2]), torch.tensor([0.5, 2])),
        (torch.tensor([1.0, 2]), torch.tensor([1j, 2])),
        (torch.tensor([1], dtype=torch.int8), torch.tensor([300])),
    ):
        before = dst.clone()
        with pytest.raises(ValueError, match="can't hold its values"):
            loadmodel_((dst,), (src,))
        assert torch.equal(dst, before)
    dst = (torch.tensor([1, 2]), torch.ones(2))
    loadmodel_(dst, (torch.tensor([3.0, 4]), torch.tensor([1 + 0j, 2])))
    assert same(dst, (torch.tensor([3, 4]), torch.tensor([1.0, 2])))
    with pytest.raises(ValueError, match="share their memory"):
        loadmodel_((torch.ones(2), torch.zeros(1).expand(2)), (torch.zeros(2), torch.ones(2)))


def test_a_cell_from_a_named_tuple():
    cell = Flux.RNNCell(2 | to | 1)
    Wi, Wh, b = ones(1, 2), ones(1, 1), torch.tensor([2.0])
    loadmodel_(cell, nt(σ=tanh, Wh=Wh, Wi=Wi, b=b, state0=zeros(1, 1)))  # by name, in whatever order
    assert cell(cell.state0, torch.ones(2))[1].item() == pytest.approx(np.tanh(4))
    with pytest.raises(ValueError, match=r"Tried to load \(σ, Wi, Wh, bias\) into \(σ, Wi, Wh, b, state0\)"):
        loadmodel_(cell, nt(σ=tanh, Wi=Wi, Wh=Wh, bias=b))


# -- state -------------------------------------------------------------------------------------------


def test_state_has_the_structure_and_the_arrays_of_the_model():
    m1 = Chain(Dense(10, 5), Both((Dense(ones32(2, 5), False), Dense(5 | to | 2))))
    m2 = Chain(Dense(10, 5), Both((Dense(zeros32(2, 5), ones32(2)), Dense(5 | to | 2))))
    s = state(m1)
    assert isinstance(s, NamedTuple)
    assert list(s.keys()) == ["layers"]
    assert type(s.layers) is tuple
    assert len(s.layers) == 2
    assert s.layers[0].weight is m1[0].weight
    assert s.layers[0].σ == ()
    assert s.layers[1].layers[0].weight is m1[1].layers[0].weight
    loadmodel_(m2, s)
    assert torch.equal(m2[0].weight, m1[0].weight)
    assert not m2[1].layers[0].bias.any()


def test_state_shows_as_in_the_manual():
    m1 = Chain(Dense(1, 2, tanh, init=ones), Dense(2, 1, init=ones))
    assert repr(state(m1)) == (
        "(layers = ((weight = [1.0; 1.0;;], bias = [0.0, 0.0], σ = ()), (weight = [1.0 1.0], bias = [0.0], σ = ())),)"
    )
    assert repr(state(BatchNorm(1))) == (
        "(λ = (), β = [0.0], γ = [1.0], μ = [0.0], σ2 = [1.0], ε = 1.0e-5, momentum = 0.1, "
        "affine = true, track_stats = true, active = nothing, chs = 1)"
    )


def test_what_is_no_state_becomes_an_empty_tuple():
    X, Y = ones32(3, 2), zeros32(2, 2)
    assert state((1, tanh)) == (1, ())
    assert state(nt(a=1, b=tanh)) == nt(a=1, b=())
    assert state({"a": 1, "b": tanh}) == {"a": 1, "b": ()}
    s = state({"a": 1, "b": nt(c=X, d=(Y, 1, (tanh,)), e=torch.sin), "f": {}, "g": [], "h": b"x"})
    assert s["b"].c is X
    assert s["b"].d[0] is Y
    assert s["b"].d[1:] == (1, ((),))
    assert (s["b"].e, s["f"], s["g"], s["h"]) == ((), {}, [], ())


def test_saved_types_are_kept():
    m = nt(
        num=1,
        cnum=complex(1.2, 2),
        str="hello",
        arr=[1, 2, 3],
        bool=True,
        dict={"a": 1, "b": 2},
        tup=(1, 2, 3),
        nth=None,
    )
    assert state(m) == m
    assert through_file(state(m)) == m


def test_active_state_and_statistics():
    m3 = trainmode_(Chain(Dense(10, 5), Dropout(0.2), Dense(5, 2), BatchNorm(2)))
    s = state(m3)
    assert s.layers[1].active is True
    assert s.layers[1].p == 0.2
    assert s.layers[3].λ == ()
    for k in ("β", "γ", "μ", "σ2", "ϵ", "momentum", "affine", "track_stats", "active", "chs"):
        assert s.layers[3][k] is getattr(m3[3], k)


def test_numbers_of_other_libraries_are_made_plain():
    s = state((np.float64(0.5), np.float32(0.5), np.arange(2)))
    assert type(s[0]) is float
    p, q, a = through_file(s)
    assert (p, q, a.tolist()) == (0.5, torch.tensor(0.5), [0, 1])


def test_functions_are_state_as_far_as_they_hold_arrays():
    w, n = torch.ones(2), 3
    holds = state((lambda x: w * x, lambda x: n * x, functools.partial(torch.mul, w), functools.partial(max, 2)))
    assert holds[0].w is w
    assert holds[1] == ()
    assert holds[2].args[0] is w
    assert holds[3] == ()

    def again(x):
        return again(w * x)

    assert state(again) == nt(again=(), w=w)
    dst = Chain(lambda x: w * x, lambda x: n * x)
    loadmodel_(dst, state(Chain((lambda w: lambda x: w * x)(torch.tensor([5.0, 6.0])), tanh)))
    assert w.tolist() == [5, 6]


def test_through_a_file_and_cpu():
    def model():
        return Chain(Conv((2, 2), 1 | to | 2), BatchNorm(2), flatten, lambda v: v, Dense(8 | to | 3), nn.ReLU())

    m1, m2 = model(), model()
    x = rand32(3, 3, 1, 4)
    gradient(lambda m: m(x).sum(), m1)  # moves the statistics
    s = cpu(state(m1))
    loaded = through_file({"model_state": s, "epoch": 3})["model_state"]
    assert type(loaded) is NamedTuple
    loadmodel_(m2, loaded)
    assert same(everything(m1), everything(m2))
    with torch.no_grad():
        assert torch.equal(m1(x), m2(x))


def test_torch_modules_inside():
    def model():
        return Chain(Dense(2 | to | 3), nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))

    m1, m2 = model(), model()
    m1[1][1](torch.rand(5, 3))
    assert m1[1][1].num_batches_tracked == 1
    loadmodel_(m2, through_file(state(m1)))
    assert all(torch.equal(v, m1.state_dict()[k]) for k, v in m2.state_dict().items())
    with pytest.raises(DimensionMismatch, match=r"layers\.1\.0\.weight"):
        loadmodel_(m2, Chain(Dense(2 | to | 3), nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))))


def test_lists_dicts_and_ties_survive():
    w = torch.ones(2)
    dst = {"a": [w, {"b": torch.zeros(1)}], "c": (w,)}
    loaded = through_file(state({"c": (torch.tensor([3.0, 4]),), "a": [torch.tensor([3.0, 4]), {"b": torch.ones(1)}]}))
    loadmodel_(dst, loaded)
    assert w.tolist() == [3, 4]
    assert dst["a"][1]["b"].tolist() == [1]
    s = through_file(state((w, [w])))
    assert s[0] is s[1][0]


def test_loading_leaves_gradients_alone():
    m = Dense(2 | to | 1)
    m.weight.requires_grad_(False)
    loadmodel_(m, Dense(ones(1, 2)))
    assert not m.weight.requires_grad
    assert m.weight.grad_fn is None
    assert m.weight.tolist() == [[1, 1]]


# -- recurrent state ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RNN, GRU, LSTM])
def test_the_state_of_a_recurrent_layer(kind):
    m1, m2 = kind(2 | to | 3), kind(2 | to | 3)
    x = rand32(2, 4)
    with torch.no_grad():
        m1(x)
    loadmodel_(m2, through_file(state(m1)))
    y2 = m2(x)
    assert torch.allclose(m1(x), y2)
    before = y2.detach().clone()
    loadmodel_(m2, kind(2 | to | 3))  # a fresh one: back to its first state, which is the cell's own
    assert torch.equal(y2, before)  # what the layer gave is the caller's
    assert m2.state is m2.cell.state0 or all(a is b for a, b in zip(m2.state, m2.cell.state0, strict=True))
    y = m2(x)
    reset_(m2)
    assert torch.equal(y, m2(x))


def test_the_state_of_a_recurrent_layer_is_checked():
    m = RNN(2 | to | 3)
    before = everything(m)
    with pytest.raises(DimensionMismatch, match=r"Tried to load size \(4, 1\) array into size \(3, 1\)"):
        loadmodel_(m, nt(cell=state(m.cell), state=torch.zeros(4, 1)))
    with pytest.raises(ValueError, match="into an array destination"):
        loadmodel_(m, nt(cell=state(Flux.RNNCell(2 | to | 3)), state=None))
    assert same(everything(m), before)
    r = Recur(lambda h, x: (h + x, x), 0)
    loadmodel_(r, nt(cell=(), state=5))
    assert r.state == 5
    assert reset_(r) == 0


# -- optimisers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Momentum(),
        Adam(0.01),
        RAdam(),
        AMSGrad(),
        Rprop(),
        RMSProp(centred=True),
        OptimiserChain(ClipNorm(1), Adam(), AccumGrad(2)),
        Descent(),
    ],
)
def test_training_goes_on_where_it_stopped(rule):
    x, y = rand32(3, 8), rand32(2, 8)

    def loss(m):
        return Flux.Losses.mse(m(x), y)

    def step(m, opt, n):
        for _ in range(n):
            update_(opt, m, gradient(loss, m)[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m1, m2 = Chain(Dense(3 | to | 4, tanh), Dense(4 | to | 2)), Chain(Dense(3 | to | 4, tanh), Dense(4 | to | 2))
        opt1, opt2 = setup(rule, m1), setup(rule, m2)
        step(m1, opt1, 3)
        saved = through_file({"model": state(m1), "opt": state(opt1)})
        loadmodel_(m2, saved["model"])
        assert loadmodel_(opt2, saved["opt"]) is opt2
        assert opt2 == opt1
        step(m1, opt1, 3)
        step(m2, opt2, 3)
    assert same(everything(m1), everything(m2))


def test_a_loaded_state_tree_keeps_rules_and_shares_nothing():
    m = (torch.ones(2), tanh)
    opt1, opt2 = setup(Momentum(0.1), m), setup(Momentum(0.5), m)
    update_(opt1, m, (torch.ones(2), None))
    freeze_(opt2)
    leaf = opt2[0]
    loadmodel_(opt2, opt1)
    assert opt2[0] is leaf
    assert leaf == Leaf(Momentum(0.5), opt1[0].state, frozen=True)
    leaf.state.zero_()
    assert opt1[0].state.any()


def test_a_state_tree_for_another_model_or_rule():
    m = nt(w=torch.ones(2))
    tree = setup(Adam(), m)
    before = [v.clone() for v in tree.w.state[:2]]
    for other in (
        setup(Momentum(), m),
        setup(Adam(), nt(v=torch.ones(2))),
        setup(Adam(), nt(w=torch.ones(3))),
        Dense(2 | to | 1),
    ):
        with pytest.raises(ValueError, match="Tried to"):
            loadmodel_(tree, state(other))
    assert same(before, tree.w.state[:2])


def test_state_trees_with_ties():
    w = torch.ones(2)
    one, two = setup(Momentum(), (w, w)), setup(Momentum(), (w, w))
    one[0].state.fill_(3)
    loadmodel_(two, through_file(state(one)))
    assert two[0] is two[1]
    assert two[0].state.tolist() == [3, 3]
    with pytest.raises(ValueError, match="tied destination"):
        loadmodel_(two, (one[0], setup(Momentum(), w)))


# -- loadparams_ -------------------------------------------------------------------------------------


def ls(n, m):
    return torch.arange(1.0, n * m + 1).reshape(m, n).t()


def dl(nin, nout, bias):
    return Dense(ls(nout, nin), bias(nout))


def dm(bias):
    return Chain(dl(3, 5, bias), dl(5, 4, bias), dl(4, 3, bias))


def nobias(_):
    return False


def assert_dense(m, bias):
    for l1, l2 in zip(m, dm(bias), strict=True):
        assert torch.equal(l1.weight, l2.weight)
        assert l1.bias is False if l2.bias is False else torch.equal(l1.bias, l2.bias)


@pytest.mark.parametrize("bias", [zeros32, nobias])
def test_loadparams_of_itself(bias):
    m = dm(bias)
    loadparams_(m, params(m))
    assert_dense(m, bias)


@pytest.mark.parametrize(
    ("b1", "b2", "expected"), [(zeros32, ones32, ones32), (ones32, nobias, zeros32), (nobias, ones32, nobias)]
)
def test_loadparams_with_and_without_bias(b1, b2, expected):
    def arrays(layer):
        return [layer.weight, zeros32(len(layer.weight)) if layer.bias is False else layer.bias]

    m1, m2 = dm(b1), dm(b2)
    loadparams_(m1, [x.weight for x in m2] if b1 is nobias else [a for x in m2 for a in arrays(x)])
    assert_dense(m1, expected)


def test_loadparams_checks_before_it_copies():
    m = Chain(Dense(2 | to | 3), Dense(3 | to | 1))
    before = everything(m)
    with pytest.raises(ValueError, match=r"Expected param size \(1, 3\), got \(3, 1\)"):
        loadparams_(m, [torch.ones(3, 2), torch.ones(3), torch.ones(3, 1)])
    with pytest.raises(ValueError, match=r"Expected param size \(3,\), got False"):
        loadparams_(m, [torch.ones(3, 2), False])
    assert same(everything(m), before)
    with pytest.warns(UserWarning, match="got 2 arrays for a model with 4 parameters, and loads the first 2"):
        loadparams_(m, (x for x in (np.ones((3, 2)), [1, 2, 3])))
    assert m[0].weight.sum() == 6
    assert m[0].bias.tolist() == [1, 2, 3]
    held = list(params(m))
    loadparams_(params(m), through_file(params(m)))
    assert all(a is b for a, b in zip(held, params(m), strict=True))


# -- checkpoints -------------------------------------------------------------------------------------


IMAGES, LABELS = torch.rand(6, 6, 1, 12), torch.arange(12) % 3
SEQUENCES, NUMBERS = torch.rand(2, 4, 5, 3), torch.rand(3, 4, 5, 3)


def convolutional():
    rng = torch.Generator().manual_seed(5)
    layers = (
        Conv((3, 3), 1 | to | 2, relu),
        BatchNorm(2),
        Dropout(0.3),
        flatten,
        Dropout(0.3, rng=rng),
        Dense(32 | to | 3),
    )
    return Chain(*layers)


def loss_of_images(m, x, y):
    return Flux.logitcrossentropy(m(x), onehotbatch(y, range(3)))


def recurrent():
    return Chain(LSTM(2 | to | 3), Dropout(0.2), GRU(3 | to | 3))


def loss_of_sequences(m, x, y):
    return mse(m(x), y)


class Run:
    """A program that trains, and may be stopped and started between epochs. `style` makes the optimiser of a model."""

    def __init__(self, make, loss, data, style):
        torch.manual_seed(0)
        random.seed(0)
        self.model, self.loss = make(), loss
        self.opt, self.more = style(self.model)
        self.rng = torch.Generator().manual_seed(1)
        self.data = DataLoader(data, batchsize=3 if len(data[1].shape) == 1 else 1, shuffle=True, rng=self.rng)
        self.things = {"model": self.model, "opt": self.opt, "rng": self.rng, **self.more}

    def epochs(self, n):
        for _ in range(n):
            for d in self.data:
                d = d if d[1].ndim == 1 else (d[0][..., 0], d[1][..., 0])
                if random.random() < 0.2:
                    continue
                if isinstance(self.opt, Flux.optimisers.AbstractRule):
                    train_(lambda x, y: self.loss(self.model, x, y), params(self.model), [d], self.opt)
                else:
                    train_(self.loss, self.model, [d], self.opt)
            for scheduler in self.more.values():
                scheduler.step()


def explicit(rule):
    return lambda m: (setup(rule(), m), {})


def adjusted(m):
    opt = setup(OptimiserChain(ClipNorm(1), Adam(0.1)), m)
    adjust_(opt.layers[0], 0.03)
    return opt, {}


def torchs(m):
    opt = setup(lambda ps: torch.optim.AdamW(ps, lr=0.02, amsgrad=True), m)
    return opt, {"scheduler": torch.optim.lr_scheduler.MultiStepLR(opt.optimizer, [1, 3], gamma=0.5)}


STYLES = {
    "Adam": explicit(lambda: Adam(0.02)),
    "chain": explicit(lambda: OptimiserChain(AccumGrad(3), ClipNorm(1), AdamW(0.02, lambda_=0.01))),
    "RAdam": explicit(lambda: RAdam(0.02)),
    "mixed": explicit(lambda: MixedPrecision(torch.float64, Nesterov(0.02))),
    "adjusted": adjusted,
    "torch": torchs,
    "implicit ADAM": lambda m: (ADAM(0.02), {}),
    "implicit chain": lambda m: (Optimiser(ClipValue(0.5), RMSProp(), InvDecay(0.1)), {}),
    "implicit decay": lambda m: (Optimiser(Momentum(1), ExpDecay(0.02, 0.5, 3, 1e-4)), {}),
}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)
@pytest.mark.parametrize(
    "program",
    [(convolutional, loss_of_images, (IMAGES, LABELS)), (recurrent, loss_of_sequences, (SEQUENCES, NUMBERS))],
    ids=["images", "sequences"],
)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(program, style, tmp_path):
    whole = Run(*program, style)
    whole.epochs(2)
    save_checkpoint(tmp_path / "run.pt", epoch=2, **whole.things)
    whole.epochs(2)
    resumed = Run(*program, style)
    resumed.epochs(1)  # whatever else the new program has done
    assert load_checkpoint_(tmp_path / "run.pt", **resumed.things) == nt(epoch=2)
    resumed.epochs(2)
    assert same(everything(whole.model), everything(resumed.model))
    assert [repr(x) for x in (whole.model, whole.opt)] == [repr(x) for x in (resumed.model, resumed.opt)]
    assert torch.equal(torch.rand(3, generator=whole.rng), torch.rand(3, generator=resumed.rng))


def test_random_numbers_go_on(tmp_path):
    def numbers():
        return torch.rand(3).tolist(), random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn()

    numbers()
    save_checkpoint(tmp_path / "c.pt")
    first = numbers()
    assert numbers() != first
    assert load_checkpoint_(tmp_path / "c.pt") == nt()
    assert numbers() == first


def test_what_training_changed_in_a_state_tree_comes_back(tmp_path):
    m = nt(a=torch.ones(2), b=torch.ones(2), c=torch.ones(3))
    one, two = setup(Adam(0.1), m), setup(Adam(0.1), m)
    adjust_(one.a, 0.5)
    adjust_(one.b, beta=(0.5, 0.9))
    freeze_(one.c)
    save_checkpoint(tmp_path / "c.pt", opt=one)
    load_checkpoint_(tmp_path / "c.pt", opt=two)
    assert two == one
    adjust_(one, 0.01)
    save_checkpoint(tmp_path / "c.pt", opt=one)
    three = setup(Adam(0.1), m)
    rule = three.a.rule
    load_checkpoint_(tmp_path / "c.pt", opt=three)
    assert three == one
    assert rule == Adam(0.1)
    assert three.a.rule is three.c.rule is not three.b.rule  # one kernel for each


def test_ties_and_states_of_any_batch(tmp_path):
    def make():
        shared = Dense(3 | to | 3)
        return Chain(shared, Dense(shared.weight), RNN(3 | to | 2))

    one, two = make(), make()
    with torch.no_grad():
        one(rand32(3, 7))
    save_checkpoint(tmp_path / "c.pt", pair=(one, setup(Momentum(), one)))
    load_checkpoint_(tmp_path / "c.pt", pair=(two, setup(Momentum(), two)))
    assert two[0].weight is two[1].weight
    assert same(everything(one), everything(two))
    assert two[2].state.shape == (2, 7)


def test_the_program_says_modes_and_numbers(tmp_path):
    one, two = Chain(Dropout(0.1), BatchNorm(2)), Chain(Dropout(0.2), BatchNorm(2))
    trainmode_(one)
    one(rand32(2, 4))
    save_checkpoint(tmp_path / "c.pt", model=one)
    load_checkpoint_(tmp_path / "c.pt", model=two)
    assert (two[0].p, two[0].active, two[1].active) == (0.2, None, None)
    assert torch.equal(two[1].μ, one[1].μ)


def test_plain_data_comes_back_as_it_was(tmp_path):
    more = {
        "epoch": 7,
        "losses": [0.5, 0.25],
        "best": {"loss": 0.25, "at": (1, None)},
        "text": "x",
        "w": torch.ones(2),
    }
    save_checkpoint(tmp_path / "c.pt", **more, ps=params(Dense(2 | to | 1)))
    found = load_checkpoint_(str(tmp_path / "c.pt"))
    assert all(type(found[k]) is type(more[k]) for k in more)
    assert NamedTuple.of({k: found[k] for k in more}) == NamedTuple.of(more)
    assert [p.shape for p in found.ps] == [(1, 2), (1,)]


def test_a_checkpoint_is_a_dict_of_states(tmp_path):
    one, two = Dense(2 | to | 1), Dense(2 | to | 1)
    save_checkpoint(tmp_path / "c.pt", model=one)
    loadmodel_(two, torch.load(tmp_path / "c.pt")["model"])
    assert same(everything(one), everything(two))


def test_an_implicit_rule_remembers_by_its_arrays(tmp_path):
    W, b, other = torch.ones(2), torch.ones(1), torch.ones(3)
    opt = Momentum(0.1)
    for x in W, b:
        update_(opt, x, torch.ones_like(x))
    save_checkpoint(tmp_path / "c.pt", ps=Params([W, b]), opt=opt)
    V, c = torch.zeros(2), torch.zeros(1)
    new = Momentum(0.5)
    for x in V, other:
        update_(new, x, torch.ones_like(x))
    load_checkpoint_(tmp_path / "c.pt", ps=Params([V, c]), opt=new)
    assert new == Momentum(0.1)
    for x in V, c, W, b:
        update_(new if x is V or x is c else opt, x, torch.zeros_like(x))
    assert same((V, c), (W, b))
    before = other.clone()
    update_(new, other, torch.zeros(3))
    assert torch.allclose(before - other, torch.full((3,), 0.45))  # what it knew of others, it knows
    with pytest.raises(ValueError, match=r"not those arrays \(at opt\)"):
        load_checkpoint_(tmp_path / "c.pt", opt=new)
    with pytest.warns(UserWarning, match="opt remembers 1 arrays that aren't among what is saved") as found:
        save_checkpoint(tmp_path / "c.pt", ps=[W], opt=opt)
    assert found[0].filename == __file__


class Half(AbstractOptimiser):
    def __init__(self):
        self.steps = 0

    def apply_(self, x, dx):
        self.steps += 1
        return dx.mul_(0.5)


class Kept(Half):
    def state_dict(self):
        return {"steps": self.steps}

    def load_state_dict(self, d):
        self.steps = d["steps"]


def test_what_can_not_be_saved_is_refused(tmp_path):
    for thing, words in (
        (relu, "holds nothing that can be saved"),
        (Half(), "Half.*holds nothing"),
        (Optimiser(Half(), Momentum()), "x has a Half, which remembers in a way of its own"),
        (DataLoader(torch.ones(3), batchsize=1), "DataLoader.*holds nothing"),
        ({1, 2}, "holds nothing"),
    ):
        with pytest.raises(TypeError, match=words):
            save_checkpoint(tmp_path / "c.pt", x=thing)
    with pytest.raises(ValueError, match="give this thing another name"):
        save_checkpoint(tmp_path / "c.pt", fluxtorch=1)
    assert os.listdir(tmp_path) == []
    one, two = Kept(), Kept()
    one.apply_(None, torch.ones(1))
    save_checkpoint(tmp_path / "c.pt", empty=(), none=None, opt=one)
    assert load_checkpoint_(tmp_path / "c.pt", opt=two) == nt(empty=(), none=None)
    assert two.steps == 1


def test_a_checkpoint_of_something_else_changes_nothing(tmp_path):
    file = tmp_path / "c.pt"
    m, g = Dense(2 | to | 1), torch.Generator()
    opt, implicit = setup(Momentum(), m), Momentum()
    save_checkpoint(file, model=m, opt=opt, implicit=implicit, g=g, epoch=1)
    other = Dense(2 | to | 1)
    before = everything(other)
    for things, error, words in (
        ({"modell": other}, ValueError, "has no 'modell': it has model, opt, implicit, g, epoch"),
        ({"model": other, "epoch": 0}, TypeError, "epoch is 0, which can't be changed in place"),
        (
            {"model": Dense(2 | to | 2)},
            DimensionMismatch,
            r"size \(1, 2\) array into size \(2, 2\) \(at model.weight\)",
        ),
        ({"model": other, "opt": setup(Nesterov(), other)}, ValueError, r"the rule Momentum into Nesterov \(at opt\)"),
        ({"model": other, "implicit": Nesterov()}, ValueError, r"Tried to load Momentum into Nesterov \(at implicit\)"),
        ({"model": other, "opt": setup(Momentum(), Chain(other))}, ValueError, "the structures do not match"),
        ({"model": opt}, ValueError, "the structures do not match"),
        ({"model": other, "g": Dropout(0.1, rng=g)}, ValueError, "do not match|into"),
        ({"model": nt(model=other, g=g)}, ValueError, "do not match"),
    ):
        rng = torch.get_rng_state()
        with pytest.raises(error, match=words):
            load_checkpoint_(file, **things)
        assert same(everything(other), before)
        assert torch.equal(torch.get_rng_state(), rng)
    save_checkpoint(file, model=Chain(Dense(2 | to | 1), Dropout(0.1, rng=g)))
    with pytest.raises(ValueError, match=r"Tried to load Generator \(cpu\) into nothing"):
        load_checkpoint_(file, model=Chain(Dense(2 | to | 1), Dropout(0.1)))


def test_files_that_are_no_checkpoints(tmp_path):
    file = tmp_path / "c.pt"
    with pytest.raises(FileNotFoundError, match=r"c\.pt"):
        load_checkpoint_(file)
    save_checkpoint(file, w=torch.ones(1000))
    whole = file.read_bytes()
    for content in (b"", b"some text", whole[:500], whole[:-30]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"c\.pt is no checkpoint, or not a whole one"):
            load_checkpoint_(file)
    for data in (torch.ones(2), {"model": 1}, state(Dense(2 | to | 1))):
        torch.save(data, file)
        with pytest.raises(ValueError, match=r"c\.pt is no checkpoint of save_checkpoint's"):
            load_checkpoint_(file)
    torch.save({"fluxtorch": {"version": 99}}, file)
    with pytest.raises(ValueError, match="another version"):
        load_checkpoint_(file)


@pytest.mark.parametrize("at", ["torch.save", "os.fsync", "os.replace"])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, at):
    file = tmp_path / "c.pt"
    save_checkpoint(file, epoch=1)

    def fail(*args):
        if at == "torch.save":
            args[1].write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(at, fail)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(file, epoch=2)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["c.pt"]
    assert load_checkpoint_(file).epoch == 1


def test_a_link_goes_on_being_one(tmp_path):
    (tmp_path / "real").mkdir()
    save_checkpoint(tmp_path / "real" / "c.pt", epoch=1)
    (tmp_path / "latest.pt").symlink_to(tmp_path / "real" / "c.pt")
    save_checkpoint(tmp_path / "latest.pt", epoch=2)
    assert (tmp_path / "latest.pt").is_symlink()
    assert load_checkpoint_(tmp_path / "real" / "c.pt").epoch == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_run_on_a_gpu(tmp_path):
    def make():
        model = gpu(Chain(Dense(2 | to | 3, tanh), Dropout(0.5), LSTM(3 | to | 2)))
        return model, setup(Adam(), model), torch.Generator("cuda")

    def train(model, opt, rng):
        x = torch.rand(2, 4, device="cuda", generator=rng)
        train_(lambda m, x: m(x).sum(), model, [x] * 3, opt)
        return [*everything(model), torch.rand(3, device="cuda")]

    one, two = make(), make()
    train(*one)
    save_checkpoint(tmp_path / "c.pt", run=one)
    first = train(*one)
    load_checkpoint_(tmp_path / "c.pt", run=two)
    assert all(torch.allclose(a, b) for a, b in zip(first, train(*two), strict=True))
    loaded = torch.load(tmp_path / "c.pt", map_location="cpu")["run"]
    assert loadmodel_(cpu(two[0]), loaded[0])[0].weight.device.type == "cpu"


# -- safetensors -------------------------------------------------------------------------------------


def test_safetensors(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")

    def make():
        tied = Dense(3 | to | 3)
        return Chain(
            enc=Conv((2, 2), 1 | to | 3), norm=BatchNorm(3), r=Chain(tied, Dense(tied.weight)), e=Embedding(4 | to | 3)
        )

    one, two = make(), make()
    gradient(lambda m: m.layers.norm(m.layers.enc(rand32(3, 3, 1, 2))).sum(), one)
    safetensors.save_model(one, tmp_path / "m.safetensors")
    assert safetensors.load_model(two, tmp_path / "m.safetensors") == (set(), [])
    assert same(everything(one), everything(two))
    assert two.layers.r[0].weight is two.layers.r[1].weight
    assert not two.layers.enc.weight.is_contiguous() or two.layers.enc.weight.ndim < 2
    names = safetensors.load_file(tmp_path / "m.safetensors")
    assert {"enc.weight", "norm.β", "norm.μ", "e.weight"} <= names.keys()
