"""`state`, `loadmodel_` and `loadparams_`: Flux's tests of loading, and what files and optimisers need."""

import functools
import io
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch.loading import loadmodel_, loadparams_, state
from fluxtorch.optimisers import AccumGrad, Leaf, Rprop


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
