from __future__ import annotations

import copy
import io
import math
import pickle

import pytest
import torch
from torch import nn

from fluxtorch.base import identity, rand, tanh
from fluxtorch.devices import bf16, cpu, f16, f64, gpu
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import children
from fluxtorch.initialisers import ones32, rand32, randn32
from fluxtorch.layers import Chain, Conv, ConvTranspose, Dense, Layer, Scale
from fluxtorch.layers.layer import layer
from fluxtorch.layers.normalise import (
    AlphaDropout,
    BatchNorm,
    Dropout,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    WeightNorm,
    hasaffine,
    normalise,
    remove_weight_norms,
    reparametrize,
    testmode_,
    trainmode_,
)
from fluxtorch.namedtuples import nt
from fluxtorch.nnlib import dropout, relu, selu, sigmoid, within_gradient
from fluxtorch.optimisers import Descent
from fluxtorch.outputsize import outputsize
from fluxtorch.pairs import to
from fluxtorch.train import setup, update_
from fluxtorch.zygote import gradient, hessian_reverse, jacobian, pullback, withgradient
from fluxtorch.zygote.implicit import params


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


def rev(x):
    return x.permute(*reversed(range(x.ndim)))


def images(*size, dtype=torch.float32):
    return rev(torch.randn(size[::-1], dtype=dtype))


def training(f, *xs):
    """What `f` gives while a gradient is taken."""
    return pullback(f, *xs)[0]


def zeros_in(x):
    return int((x == 0).sum())


# -- modes ---------------------------------------------------------------------------------------------


def test_modes_of_the_manual():
    d = Dropout(0.3)
    assert repr(d) == "Dropout(0.3)"
    assert testmode_(d) is d and repr(d) == "Dropout(0.3, active=false)"
    assert trainmode_(d) is d and repr(d) == "Dropout(0.3, active=true)"
    assert testmode_(d, "auto") is d and repr(d) == "Dropout(0.3)"
    m = Chain(Dense(torch.ones(3, 2)), Dropout(0.4))
    x = torch.ones(2, 10_000)
    assert torch.equal(m(x), torch.full((3, 10_000), 2.0))
    assert (
        repr(trainmode_(m))
        == """Chain(
  Dense(2 => 3),                        # 9 parameters
  Dropout(0.4, active=true),
)"""
    )
    y = m(x).detach()
    close(y.unique(), [0.0, 2 / 0.6])
    close(y.mean(), 2.0, rtol=0, atol=0.05)
    close((y == 0).float().mean(), 0.4, rtol=0, atol=0.02)


def test_all_ways_to_set_a_mode():
    d, b = Dropout(0.5), BatchNorm(2)
    m = Chain(d, Chain(b))
    for change, want in (
        (lambda: testmode_(m), False),
        (lambda: testmode_(m, False), True),
        (lambda: testmode_(m, True), False),
        (lambda: trainmode_(m), True),
        (lambda: trainmode_(m, False), False),
        (lambda: m.train(), True),
        (lambda: m.eval(), False),
        (lambda: m.train(False), False),
        (lambda: nn.Sequential(m).train(), True),
        (lambda: testmode_(m, "auto"), None),
        (lambda: trainmode_(m), True),
        (lambda: trainmode_(m, "auto"), None),
        (lambda: testmode_(m), False),
        (lambda: testmode_(m, None), None),
        (lambda: testmode_(m), False),
        (lambda: trainmode_(m, mode="auto"), None),
        (lambda: trainmode_(m, None), None),
    ):
        change()
        assert d.active is want and b.active is want
    for make in (
        lambda a: Dropout(0.5, active=a),
        lambda a: AlphaDropout(0.5, active=a),
        lambda a: BatchNorm(2, active=a),
        lambda a: InstanceNorm(2, active=a),
        lambda a: GroupNorm(5, 5, active=a),
    ):
        assert make(True).active is True and make(False).active is False
        assert make(None).active is None and make("auto").active is None
        for wrong in ("something_else", 1):
            with pytest.raises(ValueError, match=r"active = .* is not accepted, must be true/false/nothing or 'auto'"):
                make(wrong)


def test_wrong_modes_change_nothing():
    m = trainmode_(Chain(Dropout(0.5), BatchNorm(2)))
    for wrong in ("automatic", 1, 0, "train", []):
        for set_mode in (testmode_, trainmode_):
            with pytest.raises(ValueError, match=r"mode = .* is not accepted, must be true/false/nothing or 'auto'"):
                set_mode(m, wrong)
            assert m[0].active is True and m[1].active is True


class Pairs(Layer):
    layers: object
    extra: object

    def __call__(self, x):
        return x


class Plain:
    """A user's own class that takes part by a method."""

    def __init__(self):
        self.testing = "untouched"

    def __call__(self, x):
        return x

    def testmode_(self, mode=True):
        self.testing = mode
        return self


def test_modes_reach_everything():
    ds = [Dropout(0.5) for _ in range(5)]
    own, module = Plain(), nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(2))
    m = Chain(Pairs([ds[0], ds[1]], nt(a=ds[2], b=(ds[3],))), own, module, Chain(ds[4]))
    testmode_(m)
    assert [d.active for d in ds] == [False] * 5 and own.testing is True
    assert not module.training and not module[0].training and not module[1].training
    trainmode_(m)
    assert [d.active for d in ds] == [True] * 5 and own.testing is False
    assert module.training and module[0].training
    testmode_(m, "auto")
    assert [d.active for d in ds] == [None] * 5 and own.testing is None
    pair = (Dropout(0.5), {"a": Dropout(0.5)})
    assert testmode_(pair) is pair and pair[1]["a"].active is False
    assert testmode_(3) == 3
    inner = Dropout(0.5)
    testmode_(Chain(lambda x: inner(x)))
    assert inner.active is False


def test_automatic_mode_is_while_a_gradient_is_taken():
    m, x = Dropout(0.5), torch.ones(1000)
    drops = lambda: zeros_in(m(x)) > 0  # noqa: E731
    seen = []

    def look(*_):
        seen.append(drops())
        return torch.tensor(0.0)

    w = torch.ones(1, requires_grad=True)
    assert not drops()
    gradient(look, 1.0)
    gradient(look, params(w))
    withgradient(look, m)
    pullback(look, 1.0)
    jacobian(lambda v: look() + v, torch.ones(2))
    gradient(lambda v: gradient(lambda u: look() + u * v, v)[0], 1.0)
    assert seen and all(seen)
    assert not drops() and not within_gradient()

    def fails(*_):
        seen.append(drops())
        raise ValueError("mine")

    for args in ((1.0,), (params(w),)):
        with pytest.raises(ValueError, match="mine"):
            gradient(fails, *args)
        with pytest.raises(ValueError, match="mine"):
            gradient(lambda v, args=args: gradient(fails, *args), 2.0)
        assert seen.pop() and not drops()
    # After an inner gradient the outer one still runs.
    gradient(lambda v: (gradient(lambda u: u * u, v)[0], look())[0] * v, 1.0)
    assert seen[-1]
    # Outside of `gradient` torch's own way needs to be told.
    w = torch.ones(1000, requires_grad=True)
    m(w).sum().backward()
    close(w.grad, torch.ones(1000))
    with torch.no_grad():
        assert gradient(look, 1.0) == (None,) and seen[-1]


def test_explicit_modes_override():
    x = torch.ones(1000)
    for make, acts in (
        (lambda: Dropout(0.5), lambda m, y: zeros_in(y) > 0),
        (lambda: AlphaDropout(0.5), lambda m, y: bool((y < 0).any())),
        (lambda: BatchNorm(2), lambda m, y: bool((m.μ != 0).any())),
        (lambda: InstanceNorm(2, track_stats=True), lambda m, y: bool((m.μ != 0).any())),
    ):
        x = torch.rand(5, 2, 100)
        m = testmode_(make())
        assert not acts(m, training(m, x)) and not acts(m, m(x))
        m = trainmode_(make())
        assert acts(m, m(x))
        m = trainmode_(make())
        assert acts(m, training(m, x))


# -- dropout -------------------------------------------------------------------------------------------


def generators():
    return [{}, {"rng": torch.Generator().manual_seed(3)}, {"dims": (0,)}]


@pytest.mark.parametrize("kws", generators(), ids=str)
def test_dropout_of_flux_s_tests(kws):
    for x in (torch.tensor([1 + 0j, 2 + 1j, 3 + 3j]), torch.tensor([1.0, 2.0, 3.0])):
        assert torch.equal(Dropout(0.1, **kws)(x), x)
        assert torch.equal(training(Dropout(0, **kws), x), x)
        assert torch.equal(training(Dropout(1, **kws), x), torch.zeros_like(x))
    x = rand(100)
    m = Dropout(0.9, **kws)
    assert zeros_in(training(m, x)) > 50
    testmode_(m, True)
    assert torch.equal(training(m, x), x)
    testmode_(m, False)
    assert zeros_in(training(m, x)) > 50
    assert zeros_in(training(Dropout(0.9, active=False, **kws), x)) == 0
    m = Chain(Dense(100, 100), Dropout(0.9, **kws))
    assert zeros_in(training(m, rand32(100))) > 50
    testmode_(m)
    assert zeros_in(training(m, rand32(100))) == 0
    m = trainmode_(Dropout(0.9, **kws))
    assert zeros_in(m(x)) > 50 and zeros_in(dropout(x, 0.9, **kws)) > 50 and zeros_in(dropout(x, 0, **kws)) == 0
    assert cpu(m).rng is m.rng


def test_numbers_of_nnlib():
    close(dropout(torch.ones(100, 100, 100, dtype=torch.bool), 0.45).mean(), 1.0, rtol=0, atol=1e-2)
    close(dropout(torch.full((1000,), math.pi), 0.2).unique(), [0.0, 5 * math.pi / 4])
    close(dropout(torch.full((10, 1000), 3), 0.3, dims=1).unique(), [0.0, 3 / 0.7])
    x = torch.cat([torch.ones(1000, 1), torch.zeros(1000, 1)], 1)
    dx = gradient(lambda x: 3 * dropout(x, 0.45).sum(), x)[0]
    assert (dx[:, 1] != 0).any()
    close(dx.unique(), [0.0, 3 / 0.55])
    x = rand32(3, 4)
    close(gradient(lambda x: dropout(x, 0).sum(), x)[0], torch.ones(3, 4))
    close(gradient(lambda x: dropout(x, 1).sum(), x)[0], torch.zeros(3, 4))
    close(hessian_reverse(lambda x: dropout(x, 0.5).sum(), torch.tensor([1.0, 2.0, 3.0])), torch.zeros(3, 3))
    close(hessian_reverse(lambda x: Dropout(0.5)(x).sum(), torch.tensor([1.0, 2.0, 3.0])), torch.zeros(3, 3))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("own", [False, True], ids=["default", "rng"])
def test_how_many_are_dropped(p, own):
    n, kws = 40_000, {"rng": torch.Generator().manual_seed(1)} if own else {}
    y = trainmode_(Dropout(p, **kws))(torch.full((200, 200), -2.0))
    close((y == 0).double().mean(), p, rtol=0, atol=5 * math.sqrt(p * (1 - p) / n))
    kept = y[y != 0]
    assert torch.equal(kept, torch.full_like(kept, kept[0].item() if len(kept) else 0.0))
    if p < 1:
        close(kept.mean(), -2 / (1 - p))
        close(y.mean(), -2.0, rtol=0, atol=10 * math.sqrt(p / (1 - p) / n))
    # Nothing is alike from row to row, or column to column.
    if 0 < p < 1:
        assert len(y.unique(dim=0)) > 190 and len(y.unique(dim=1)) > 190


@pytest.mark.parametrize("size", [(50,), (30, 20), (6, 7, 8, 9)])
@pytest.mark.parametrize("own", [False, True], ids=["default", "rng"])
def test_choices_along_axes(size, own):
    x = torch.rand(size) + 1
    for dims in (None, 0, -1, (0, len(size) - 1), [0], range(len(size))):
        kws = {"rng": torch.Generator().manual_seed(4)} if own else {}
        y = trainmode_(Dropout(0.5, dims=dims, **kws))(x)
        mask = y / x
        close(mask.unique(), [0.0, 2.0])
        axes = (
            range(len(size)) if dims is None else {d % len(size) for d in ([dims] if isinstance(dims, int) else dims)}
        )
        for d in range(len(size)):
            same = torch.equal(mask, mask.narrow(d, 0, 1).expand_as(mask))
            assert same == (d not in axes)


def test_whole_channels():
    y = trainmode_(Dropout(0.4, dims=(2, 3)))(ones32(5, 4, 30, 20))
    per_channel = y.sum((0, 1)) / 20
    close(per_channel.unique(), [0.0, 1 / 0.6])
    close((per_channel == 0).float().mean(), 0.4, rtol=0, atol=0.1)
    y = trainmode_(Dropout(0.5, dims=2))(ones32(5, 4, 30, 20))
    assert all(len(y[:, :, c].unique()) == 1 for c in range(30))


def test_random_numbers_can_be_had_again():
    x = torch.ones(100)
    one, two = (trainmode_(Dropout(0.5, rng=torch.Generator().manual_seed(7))) for _ in range(2))
    first, second = one(x), one(x)
    assert torch.equal(two(x), first) and torch.equal(two(x), second) and not torch.equal(first, second)
    state = torch.get_rng_state()
    one(x)
    assert torch.equal(torch.get_rng_state(), state)  # its own generator, not the common one
    rng = torch.Generator().manual_seed(7)
    assert torch.equal(dropout(rng, x, 0.5), first) and torch.equal(dropout(x, 0.5, rng=rng), second)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert other.rng is not one.rng and str(other) == str(one)
        assert torch.equal(other(x), copy.deepcopy(one)(x))
    plain = trainmode_(Dropout(0.5))
    torch.manual_seed(5)
    first = plain(x)
    torch.manual_seed(5)
    assert torch.equal(plain(x), first)


@pytest.mark.parametrize("kws", [{}, {"dims": 0}, {"rng": torch.Generator().manual_seed(3)}], ids=str)
def test_gradient_is_the_mask(kws):
    x, u = torch.randn(30, 20, dtype=torch.float64), torch.randn(30, 20, dtype=torch.float64)
    before = x.clone()
    y, back = pullback(Dropout(0.3, **kws), x)
    mask = back(torch.ones_like(x))[0]
    close(mask.unique(), [0.0, 1 / 0.7])
    close(y, x * mask)
    close(back(u)[0], u * mask)
    assert torch.equal(x, before)
    assert gradient(lambda m: m(x).sum(), Dropout(0.3, **kws)) == (None,)


def test_element_types_of_dropout():
    for x, kind in (
        (torch.arange(1, 100), torch.float32),
        (torch.ones(100, dtype=torch.bool), torch.float32),
        (torch.ones(100, dtype=torch.float16), torch.float16),
        (torch.ones(100, dtype=torch.bfloat16), torch.bfloat16),
        (torch.ones(100, dtype=torch.float64), torch.float64),
        (torch.ones(100, dtype=torch.complex64), torch.complex64),
    ):
        for m in (Dropout(0.5), Dropout(0.5, dims=0), Dropout(0.0)):
            assert m(x).dtype == trainmode_(m)(x).dtype == kind
    close(Dropout(0.5)([1, 2, 3]), [1.0, 2.0, 3.0])
    y, (dx,) = withgradient(lambda x: Dropout(0.5)(x).sum(), torch.arange(100))
    close((dx * torch.arange(100)).sum(), y)
    assert dropout([1.0, 2.0], 1).tolist() == [0.0, 0.0]
    assert torch.equal(dropout(torch.ones(9), 0.9, active=False), torch.ones(9))


def test_dropout_as_a_layer():
    m = Dropout(0.2, dims=(0, 2))
    assert (
        str(m) == "Dropout(0.2, dims=(0, 2))"
        and str(Dropout(1, dims=2, active=True)) == "Dropout(1, dims=2, active=true)"
    )
    assert str(Dropout(0.2, dims=range(2))) == "Dropout(0.2, dims=(0, 1))"
    assert list(children(m).keys()) == ["p", "dims", "active", "rng"]
    assert len(params(m)) == 0 and list(m.parameters()) == [] and m.state_dict() == {}
    m = trainmode_(Dropout(0.2))
    m.p = 1
    assert zeros_in(m(torch.ones(9))) == 9
    m.p = 2
    with pytest.raises(ValueError, match="dropout expects 0 ≤ p ≤ 1, got p = 2"):
        m(torch.ones(9))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Dropout(-0.1), ValueError, "Dropout expects 0 ≤ p ≤ 1, got p = -0.1"),
        (lambda: Dropout(2), ValueError, "Dropout expects 0 ≤ p ≤ 1, got p = 2"),
        (lambda: Dropout(math.nan), ValueError, "Dropout expects 0 ≤ p ≤ 1, got p = nan"),
        (lambda: Dropout("0.5"), TypeError, "Dropout expects a number as its probability, and got '0.5'"),
        (lambda: Dropout(True), TypeError, "Dropout expects a number as its probability, and got True"),
        (
            lambda: Dropout(0.5, dims=":"),
            TypeError,
            'Dropout expects an axis, or a tuple of them, as its dims, and got ":"',
        ),
        (lambda: Dropout(0.5, dims=(0, 1.5)), TypeError, "as its dims"),
        (lambda: Dropout(0.5, dims=True), TypeError, "as its dims"),
        (lambda: Dropout(0.5, rng=42), TypeError, "Dropout expects a torch.Generator as its rng, and got 42"),
        (lambda: Dropout(0.5)("x"), TypeError, r"layer Dropout\(0.5\) expects an array as input, but got 'x'"),
        (
            lambda: trainmode_(Dropout(0.5, dims=2))(torch.ones(3, 4)),
            IndexError,
            "dropout can't choose along axis 2 of a 3×4 tensor",
        ),
        (lambda: trainmode_(Dropout(0.5, dims=-3))(torch.ones(3, 4)), IndexError, "axis -3"),
        (lambda: dropout(torch.ones(3), -1), ValueError, "dropout expects 0 ≤ p ≤ 1"),
        (lambda: dropout(torch.ones(3), 2), ValueError, "dropout expects 0 ≤ p ≤ 1"),
        (lambda: dropout(torch.ones(3)), TypeError, r"as in dropout\(x, 0.5\)"),
        (lambda: dropout("x", 0.5), TypeError, "dropout expects an array, and got 'x'"),
    ],
)
def test_wrong_dropouts(make, error, match):
    with pytest.raises(error, match=match):
        make()


# -- batch-norm ----------------------------------------------------------------------------------------


def test_batchnorm_numbers_of_flux_s_tests():
    m = BatchNorm(2)
    x = torch.tensor([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]], dtype=torch.float64)
    assert len(params(m)) == 2
    assert m.β.tolist() == [0, 0] and m.γ.tolist() == [1, 1] and m.μ.tolist() == [0, 0] and m.σ2.tolist() == [1, 1]
    y = training(m, x)
    close(y, [[-1.22474, 0, 1.22474], [-1.22474, 0, 1.22474]], rtol=0, atol=1e-5)
    close(m.μ, [0.3, 0.4])
    close(m.σ2, [1.3, 1.3])
    close(m(x)[0, 0], (1 - 0.3) / math.sqrt(1.3), rtol=0, atol=1e-5)
    assert y.dtype == torch.float64 and m.μ.dtype == torch.float32
    m = BatchNorm(2, sigmoid)
    x = x.float()
    want = sigmoid((x - m.μ[:, None]) / (m.σ2[:, None] + m.ε).sqrt())
    close(m(x), want, rtol=0, atol=1e-7)
    assert len(params(BatchNorm(10))) == 2 and len(params(BatchNorm(10, affine=False))) == 0


def test_examples_of_the_manual():
    xs = rand(3, 3, 3, 2)
    m = trainmode_(BatchNorm(3))
    y = m(xs)
    close(y.std(), 1.0, rtol=0, atol=0.1)
    assert abs(y.std() - xs.std()) > 0.1


@pytest.mark.parametrize("size", [(3, 2, 1), (2, 3, 2, 1), (2, 2, 3, 2, 1), (2, 1, 2, 2, 2, 3)])
def test_every_size_is_a_matrix_with_more_columns(size):
    m, other = trainmode_(BatchNorm(2)), trainmode_(BatchNorm(2))
    x = rev(torch.arange(1.0, math.prod(size) + 1).reshape(size[::-1]))
    columns = x.movedim(-2, 0).reshape(2, -1)
    close(m(x).movedim(-2, 0).reshape(2, -1), other(columns))
    close(m.μ, other.μ)
    close(m.σ2, other.σ2)


KINDS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


@pytest.mark.parametrize("ndim", [2, 3, 4, 5])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
@pytest.mark.parametrize("λ", [None, tanh], ids=["identity", "tanh"])
def test_batchnorm_is_torch_s(ndim, affine, track, λ):
    kws = {"affine": affine, "momentum": 0.3, "eps": 1e-2}
    m = BatchNorm(3, *([λ] if λ else []), track_stats=track, **kws)
    module = KINDS[ndim](3, track_running_stats=track, **kws)
    if affine:
        for a, b in ((m.γ, module.weight), (m.β, module.bias)):
            a[...] = torch.randn(3)
            with torch.no_grad():
                b.copy_(a)
    for step in range(3):
        x = images(*(4, 3, 5)[: ndim - 2], 3, 6) * 3 + 1
        u = torch.randn_like(x)
        xr = rev(x).clone().requires_grad_()
        module.train(step < 2)
        yr = module(xr) if λ is None else λ(module(xr))
        module.zero_grad()
        (yr * rev(u)).sum().backward()
        if step == 2:
            testmode_(m)
        y, (dm, dx) = withgradient(lambda m, x, u=u: (m(x) * u).sum(), m, x)
        close(y, (yr * rev(u)).sum().detach(), rtol=1e-4, atol=1e-4)
        close(dx, rev(xr.grad), rtol=1e-4, atol=1e-5)
        if affine:
            close(dm.γ, module.weight.grad, rtol=1e-4, atol=1e-4)
            close(dm.β, module.bias.grad, rtol=1e-4, atol=1e-4)
            assert dm.μ is None and dm.ε is None and m.γ.grad is None
        else:
            assert dm is None and m.γ is None and m.β is None
        if track:
            close(m.μ, module.running_mean)
            close(m.σ2, module.running_var)
        else:
            assert m.μ is None and m.σ2 is None
    # Outside `gradient` it tests by itself.
    module.eval()
    testmode_(m, "auto")
    want = module(rev(x))
    close(m(x), rev(want if λ is None else λ(want)), rtol=1e-4, atol=1e-5)


def test_statistics_by_flux_s_formula():
    m = BatchNorm(2, momentum=0.25)
    μ, σ2 = torch.zeros(2), torch.ones(2)
    for size in ((2, 7), (3, 4, 2, 2), (5, 2, 3)):
        x = images(*size)
        gradient(lambda m, x=x: m(x).sum(), m)
        axes = [d for d in range(x.ndim) if d != x.ndim - 2]
        count = x.numel() / 2
        μ = 0.75 * μ + 0.25 * x.mean(axes)
        σ2 = 0.75 * σ2 + 0.25 * x.var(axes, correction=0) * count / (count - 1)
        close(m.μ, μ)
        close(m.σ2, σ2)


def test_when_statistics_follow():
    x = rand32(3, 2, 2)
    m = BatchNorm(2)
    was = lambda: (m.μ.clone(), m.σ2.clone())  # noqa: E731

    def moved(f):
        μ, σ2 = was()
        f()
        return not torch.equal(m.μ, μ) and not torch.equal(m.σ2, σ2)

    explicit = lambda: gradient(lambda m: m(x).sum(), m)  # noqa: E731
    implicit = lambda: gradient(lambda: m(x).sum(), params(m))  # noqa: E731
    for mode, outside, inside in (("auto", False, True), (True, False, False), (False, True, True)):
        testmode_(m, mode)
        assert moved(lambda: m(x)) is outside
        assert moved(explicit) is inside and moved(implicit) is inside
        with torch.no_grad():
            assert moved(lambda: m(x)) is outside
        with torch.inference_mode():
            assert moved(lambda: m(x)) is outside
    # Two calls in one gradient count twice, and the gradient is of both.
    m, x, y = BatchNorm(2), torch.randn(2, 5), torch.randn(2, 5)
    dm = gradient(lambda m: (m(x) ** 2).sum() + (m(y) ** 3).sum(), m)[0]
    close(m.μ, 0.9 * 0.1 * x.mean(1) + 0.1 * y.mean(1))
    apart = [gradient(f, m)[0].γ for f in (lambda m: (m(x) ** 2).sum(), lambda m: (m(y) ** 3).sum())]
    close(dm.γ, apart[0] + apart[1])
    m = BatchNorm(2)
    double = gradient(lambda m: (m(x.double()) ** 2).sum() + (m(y.double()) ** 3).sum(), m)[0]
    close(double.γ, dm.γ)
    close(m.μ, 0.9 * 0.1 * x.mean(1) + 0.1 * y.mean(1))


def test_single_values():
    for x in (torch.ones(2, 1), torch.ones(1, 1, 2, 1), torch.ones(2, 0)):
        m = BatchNorm(2)
        with pytest.raises(
            ValueError, match=r"layer BatchNorm\(2\) expects more than one value per channel in training"
        ):
            gradient(lambda m, x=x: m(x).sum(), m)
        assert m.μ.tolist() == [0, 0] and m.σ2.tolist() == [1, 1]
        assert m(x).shape == x.shape
    # One image has many values, and with no statistics to follow one value is enough.
    assert trainmode_(m)(torch.ones(2, 2, 2, 1)).shape == (2, 2, 2, 1)
    m = BatchNorm(2, track_stats=False)
    m.β[...] = torch.tensor([3.0, 4.0])
    close(m(torch.ones(2, 1)), [[3.0], [4.0]])
    close(gradient(lambda m: m(torch.ones(2, 1)).sum(), m)[0].β, [1.0, 1.0])


def test_mixed_types_promote():
    x = torch.randn(3, 8, dtype=torch.float64) + 2
    single, double = trainmode_(BatchNorm(3)), trainmode_(f64(BatchNorm(3)))
    for m in (single, double):
        for a in (m.γ, m.β):
            a[...] = torch.tensor([2.0, -1.0, 0.5])
    y = single(x)
    assert y.dtype == torch.float64 and single.μ.dtype == single.γ.dtype == torch.float32
    close(y, double(x))
    close(single.μ, double.μ.float())
    close(single.σ2, double.σ2.float())
    dm, dx = gradient(lambda m, x: (m(x) ** 3).sum(), single, x)
    want, dx2 = gradient(lambda m, x: (m(x) ** 3).sum(), double, x)
    assert dm.γ.dtype == torch.float32 and dx.dtype == torch.float64
    close(dm.γ, want.γ.float())
    close(dx, dx2)
    testmode_((single, double))
    close(single(x), double(x), rtol=1e-5, atol=1e-6)
    # Float32 input, Float64 layer; half and single; whole numbers; lists.
    y = double(x.float())
    assert y.dtype == torch.float64
    close(y, double(x), rtol=1e-5, atol=1e-6)
    trainmode_(single)
    y = single(x.half())
    assert y.dtype == torch.float32
    close(y, single(x.half().float()))
    whole = torch.tensor([[1, 3, 5], [2, 4, 6]])
    m = trainmode_(BatchNorm(2))
    close(m(whole), m(whole.float()))
    close(m(whole.tolist()), m(whole.float()))


@pytest.mark.parametrize(("convert", "kind", "tol"), [(f16, torch.float16, 1e-3), (bf16, torch.bfloat16, 1e-2)])
def test_half_precision(convert, kind, tol):
    x = torch.tensor([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]])
    for m in (BatchNorm(2, track_stats=False), BatchNorm(2, sigmoid), trainmode_(BatchNorm(2, tanh))):
        half = convert(m)
        y = half(convert(x))
        assert y.dtype == kind and half.γ.dtype == kind
        close(y.float(), m(x), rtol=0, atol=tol)
        if half.μ is not None:
            assert half.μ.dtype == kind
            close(half.μ.float(), m.μ, rtol=0, atol=tol)
            close(half.σ2.float(), m.σ2, rtol=0, atol=tol)
        assert gradient(lambda m: m(convert(x)).sum(), half)[0].γ.dtype == kind
    with torch.autocast("cpu", dtype=torch.bfloat16):
        m = Chain(Dense(2 | to | 2), BatchNorm(2))
        assert gradient(lambda m: m(x).sum(), m)[0].layers[1].γ.dtype == torch.float32
        assert m[1].μ.dtype == torch.float32 and (m[1].μ != 0).all()


def test_second_derivatives():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    m = BatchNorm(3)
    close(hessian_reverse(lambda x: m(x).sum(), x), torch.zeros(6, 6), rtol=0, atol=1e-4)
    x = torch.randn(2, 4, dtype=torch.float64)
    m = trainmode_(f64(BatchNorm(2, tanh, track_stats=False)))

    def penalty(x):
        return (gradient(lambda x: (m(x) ** 3).sum(), x)[0] ** 2).sum()

    def by_hand(x):
        y = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + m.ε).sqrt()
        return (torch.autograd.grad((y.tanh() ** 3).sum(), x, create_graph=True)[0] ** 2).sum()

    leaf = x.clone().requires_grad_()
    close(gradient(penalty, x)[0], torch.autograd.grad(by_hand(leaf), leaf)[0])
    assert torch.autograd.gradcheck(m, leaf)


def test_trained_by_torch():
    # A fresh model outside `gradient` carries torch's graph.
    m = Chain(Conv((3, 3), 1 | to | 4), BatchNorm(4, relu)).train()
    x = images(6, 6, 1, 5)
    m(x).square().mean().backward()
    assert m[1].γ.grad is not None and m[0].weight.grad is not None and (m[1].μ != 0).all()
    opt = torch.optim.SGD(m.parameters(), 0.1)
    before = m[1].γ.detach().clone()
    opt.step()
    assert not torch.equal(m[1].γ, before)


@pytest.mark.filterwarnings("ignore:No GPU")
def test_state_survives():
    m = testmode_(BatchNorm(3, relu, eps=1e-3, momentum=0.2))
    for a in (m.γ, m.β, m.μ, m.σ2):
        with torch.no_grad():
            a.copy_(torch.rand(3) + 0.5)
    x = torch.randn(3, 5)
    want = m(x)
    assert list(m.state_dict()) == ["β", "γ", "μ", "σ2"]
    assert [name for name, _ in m.named_parameters()] == ["β", "γ"] and len(list(m.buffers())) == 2
    fresh = testmode_(BatchNorm(3, relu, eps=1e-3, momentum=0.2))
    fresh.load_state_dict(m.state_dict())
    close(fresh(x), want)
    file = io.BytesIO()
    torch.save(m.state_dict(), file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=True)["σ2"], m.σ2)
    for other in (copy.deepcopy(m), pickle.loads(pickle.dumps(m)), cpu(m), cpu(gpu(m))):
        assert (other.ε, other.momentum, other.active, other.chs, other.λ) == (1e-3, 0.2, False, 3, relu)
        close(other(x), want)
    other = copy.deepcopy(m)
    trainmode_(other)(x)
    assert not torch.equal(other.μ, m.μ) and m.active is False
    for double in (f64(m), copy.deepcopy(m).to(torch.float64), copy.deepcopy(m).double()):
        assert {a.dtype for a in (double.γ, double.β, double.μ, double.σ2)} == {torch.float64}
        close(double(x.double()), want.double(), rtol=1e-5, atol=1e-6)
        before = double.μ.clone()
        trainmode_(double)(x.double())
        assert not torch.equal(double.μ, before)
    assert m.μ.dtype == torch.float32
    # Statistics that were loaded are those that are followed.
    moving = trainmode_(fresh)
    close(moving.μ, m.μ)
    moving(x)
    close(moving.μ, 0.8 * m.μ + 0.2 * x.mean(1))
    close(moving.state_dict()["μ"], moving.μ)


def test_options():
    m = BatchNorm(3, initβ=ones32, initγ=lambda n: torch.full((n,), 2.0), eps=1e-3, momentum=0.5)
    assert m.β.tolist() == [1] * 3 and m.γ.tolist() == [2] * 3 and m.ε == 1e-3 and m.momentum == 0.5
    assert (BatchNorm(3).ε, BatchNorm(3).momentum) == (1e-5, 0.1)
    assert BatchNorm(3, ϵ=1e-2).ε == 1e-2  # as it was called before Flux 0.13
    m = BatchNorm(3, affine=False)
    assert m.β is None and m.γ is None and m.affine is False and list(m.parameters()) == []
    # The switches may be thrown later.
    x = torch.randn(3, 9)
    m = BatchNorm(3, initβ=ones32)
    m.affine = m.track_stats = False
    close(m(x), BatchNorm(3, affine=False, track_stats=False)(x))
    trainmode_(m)(x)
    assert m.μ.tolist() == [0] * 3
    names = ["λ", "β", "γ", "μ", "σ2", "ε", "momentum", "affine", "track_stats", "active", "chs"]
    assert list(children(m).keys()) == names


@pytest.mark.parametrize(
    ("m", "want"),
    [
        (BatchNorm(2, relu), "BatchNorm(2, relu)  # 4 parameters, plus 4 non-trainable"),
        (BatchNorm(64, relu), "BatchNorm(64, relu)  # 128 parameters, plus 128 non-trainable"),
        (BatchNorm(3), "BatchNorm(3)        # 6 parameters, plus 6 non-trainable"),
        (BatchNorm(3, affine=False), "BatchNorm(3, affine=false)"),
        (BatchNorm(3, track_stats=False), "BatchNorm(3)        # 6 parameters"),
        (
            BatchNorm(3, tanh, affine=False, active=True),
            "BatchNorm(3, tanh, affine=false, active=true)",
        ),
        (testmode_(BatchNorm(3, sigmoid)), "BatchNorm(3, σ, active=false)  # 6 parameters, plus 6 non-trainable"),
    ],
    ids=str,
)
def test_printing(m, want):
    assert repr(m) == want
    assert str(m) == want.partition("  #")[0].rstrip()


def test_printing_in_a_chain():
    m = Chain(Chain(Dense(784 | to | 64), BatchNorm(64, relu)), Dense(64 | to | 10))
    lines = repr(m).splitlines()
    assert lines[3] == "    BatchNorm(64, relu),                # 128 parameters, plus 128"
    assert lines[-2].startswith(")         # Total: 6 trainable arrays, 51_018 parameters,")
    assert lines[-1].startswith("          # plus 2 non-trainable, 128 parameters, summarysize ")
    assert str(m) == "Chain(Chain(Dense(784 => 64), BatchNorm(64, relu)), Dense(64 => 10))"


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: BatchNorm(-1), ValueError, "BatchNorm expects sizes of at least 0, and got -1"),
        (lambda: BatchNorm(True), TypeError, "BatchNorm expects its sizes to be whole numbers, and got true"),
        (lambda: BatchNorm(2.0), TypeError, "BatchNorm expects its sizes to be whole numbers, and got 2.0"),
        (lambda: BatchNorm((2, 3)), TypeError, "BatchNorm expects its sizes to be whole numbers"),
        (lambda: BatchNorm(2, "relu"), TypeError, 'BatchNorm expects a function as its activation, and got "relu"'),
        (
            lambda: BatchNorm(2)(torch.ones(3, 5)),
            DimensionMismatch,
            r"layer BatchNorm\(2\) expects size\(input, 0\) == 2, but got 3×5 tensor of float32",
        ),
        (
            lambda: BatchNorm(3)(torch.ones(32, 32, 5, 1)),
            DimensionMismatch,
            r"layer BatchNorm\(3\) expects size\(input, 2\) == 3, but got 32×32×5×1 tensor",
        ),
        (
            lambda: BatchNorm(2)(torch.ones(2)),
            DimensionMismatch,
            r"expects ndims\(input\) >= 2, channels and batch, but got 2-element tensor",
        ),
        (lambda: BatchNorm(2)(torch.tensor(1.0)), DimensionMismatch, r"expects ndims\(input\) >= 2"),
        (lambda: BatchNorm(2)("x"), TypeError, r"layer BatchNorm\(2\) expects an array as input, but got 'x'"),
        (
            lambda: BatchNorm(2)(torch.ones(2, 3) * 1j),
            TypeError,
            "expects real numbers, but got 2×3 tensor of complex64",
        ),
    ],
)
def test_wrong_batchnorms(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_errors_leave_the_statistics():
    m = trainmode_(BatchNorm(2))
    for bad in (torch.ones(3, 5), torch.ones(2), torch.ones(2, 1), torch.ones(2, 3) * 1j):
        with pytest.raises((ValueError, TypeError)):
            m(bad)
        with pytest.raises((ValueError, TypeError)):
            gradient(lambda m, bad=bad: m(bad).sum(), m)
        assert m.μ.tolist() == [0, 0] and m.σ2.tolist() == [1, 1] and m.active is True


# -- alpha dropout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kws", [{}, {"rng": torch.Generator().manual_seed(3)}], ids=str)
def test_alpha_dropout_of_flux_s_tests(kws):
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    assert torch.equal(AlphaDropout(0.1, **kws)(x), x)
    assert torch.equal(training(AlphaDropout(0, **kws), x), x)
    assert torch.equal(training(AlphaDropout(1, **kws), x), torch.zeros_like(x))
    x = torch.randn(1000, dtype=torch.float64)
    m = AlphaDropout(0.5, **kws)
    y = training(m, x)
    close(y.mean(), 0.0, rtol=0, atol=0.2)
    close(y.var(), 1.0, rtol=0, atol=0.2)
    testmode_(m)
    assert torch.equal(training(m, x), x)
    testmode_(m, False)
    y = training(m, x)
    close(y.mean(), 0.0, rtol=0, atol=0.2)
    close(y.var(), 1.0, rtol=0, atol=0.2)
    assert 40 < training(m, torch.ones(10_000)).sum() / 100 < 130
    assert cpu(m).rng is m.rng
    m = trainmode_(Chain(Dense(1000 | to | 1000, selu), AlphaDropout(0.2, **kws)))
    x = randn32(1000, 1)
    close(m(x).std(), x.std(), rtol=0, atol=0.2)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_alpha_dropout_is_an_affine_map_of_what_is_kept(p):
    # The moments of the two values, for p drawn by hand: torch's own constants for `F.alpha_dropout`.
    α = -1.7580993408473766
    A = ((1 - p) * (1 + p * α**2)) ** -0.5
    x = torch.linspace(-2, 3, 40_000, dtype=torch.float64)
    m = AlphaDropout(p, rng=torch.Generator().manual_seed(1))
    y, back = pullback(m, x)
    dropped = back(torch.ones_like(x))[0] == 0
    close(dropped.double().mean(), p, rtol=0, atol=0.02)
    close(y[dropped].unique(), [A * α - A * α * p])
    close(y[~dropped], A * x[~dropped] - A * α * p)
    close(back(torch.ones_like(x))[0][~dropped].unique(), [A])
    torch.manual_seed(0)
    theirs = torch.nn.functional.alpha_dropout(x, p, training=True)
    close(torch.stack([y.mean(), y.std()]), torch.stack([theirs.mean(), theirs.std()]), rtol=0.1, atol=0.05)


def test_alpha_dropout_as_a_layer():
    for x, kind in (
        (torch.arange(1, 100), torch.float32),
        (torch.ones(100, dtype=torch.float16), torch.float16),
        (torch.ones(100, dtype=torch.bfloat16), torch.bfloat16),
        (torch.ones(100, dtype=torch.complex64), torch.complex64),
    ):
        for p in (0, 0.5, 1):
            assert AlphaDropout(p)(x).dtype == trainmode_(AlphaDropout(p))(x).dtype == kind
    m = trainmode_(AlphaDropout(0.5))
    assert not m(torch.ones(99) * math.inf).isnan().any()  # also where an infinity is dropped
    assert str(m) == repr(m) == "AlphaDropout(0.5)"
    assert list(children(m).keys()) == ["p", "active", "rng"] and len(params(m)) == 0
    one, two = (trainmode_(AlphaDropout(0.5, rng=torch.Generator().manual_seed(7))) for _ in range(2))
    assert torch.equal(one(torch.ones(99)), two(torch.ones(99)))
    close(hessian_reverse(lambda x: m(x).sum(), torch.ones(3)), torch.zeros(3, 3))
    for make, error, match in (
        (lambda: AlphaDropout(-0.1), ValueError, "AlphaDropout expects 0 ≤ p ≤ 1, got p = -0.1"),
        (lambda: AlphaDropout("0.5"), TypeError, "AlphaDropout expects a number as its probability, and got '0.5'"),
        (lambda: AlphaDropout(0.5, rng=42), TypeError, "AlphaDropout expects a torch.Generator as its rng, and got 42"),
        (lambda: m("x"), TypeError, r"layer AlphaDropout\(0.5\) expects an array as input, but got 'x'"),
    ):
        with pytest.raises(error, match=match):
            make()


# -- normalise and layer-norm ----------------------------------------------------------------------------


def test_normalise_numbers_of_the_manual():
    y = normalise([90, 100, 110, 130, 70])
    close(
        y,
        [-0.49999975000012503, 0.0, 0.49999975000012503, 1.499999250000375, -1.499999250000375],
        rtol=1e-15,
        atol=0,
    )
    assert y.dtype == torch.float64
    close(y.std(correction=0), 1.0, rtol=0, atol=1e-5)
    x = torch.randint(10, 101, (10, 10))
    close(normalise(x, dims=0).std(0, correction=0), torch.ones(10), rtol=0, atol=1e-5)
    x = images(3, 2, 2)
    assert torch.equal(normalise(x), normalise(x, dims=2)) and torch.equal(normalise(x), normalise(x, dims=-1))


def by_formula(x, dims, eps=1e-5):
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True).sqrt() + eps)


@pytest.mark.parametrize("dims", [0, 1, -1, (0, 1), (0, 2), range(2), None])
def test_normalise_by_its_formula(dims):
    x = torch.randn(4, 3, 5, dtype=torch.float64) * 3 + 1
    axes = tuple(range(3)) if dims is None else tuple(dims) if not isinstance(dims, int) else dims
    close(normalise(x, dims=dims), by_formula(x, axes))
    close(normalise(x, dims=dims, eps=0.5), by_formula(x, axes, 0.5))
    assert torch.equal(normalise(x, dims=dims, ϵ=0.5), normalise(x, dims=dims, eps=0.5))
    leaf = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: normalise(x, dims=dims, eps=0.1), leaf)
    assert torch.autograd.gradgradcheck(lambda x: normalise(x, dims=dims, eps=0.1), leaf)


def test_normalise_of_other_numbers():
    long = torch.randn(3, 30_000) * 3 + 1
    for x in (long, rev(long.T.contiguous())):
        close(normalise(x), by_formula(x.double(), 1).float(), rtol=1e-5, atol=1e-5)
    for kind in (torch.float16, torch.bfloat16):
        x = (torch.randn(50, 4) * 300).to(kind)
        y = normalise(x, dims=0)
        assert y.dtype == kind
        close(y.float(), by_formula(x.float(), 0), rtol=0, atol=1e-2)
    x = torch.randn(6, dtype=torch.complex128)
    close(normalise(x).abs().square().mean(), 1.0, rtol=0, atol=1e-4)
    assert torch.equal(normalise(torch.randn(2, 3), dims=()), torch.zeros(2, 3))
    # Where all are alike it's 0, and so is the gradient by its size.
    x = torch.full((2, 5), 7.0, requires_grad=True)
    y = normalise(x)
    assert torch.equal(y, torch.zeros(2, 5))
    close(torch.autograd.grad((y**2).sum(), x)[0], torch.zeros(2, 5))
    with pytest.raises(IndexError, match="there is no axis 2 in a 2×5 tensor"):
        normalise(x, dims=2)
    with pytest.raises(TypeError, match="normalise expects an array as input, but got 'x'"):
        normalise("x")


def test_layernorm_of_flux_s_tests():
    for size in ((2, 3), (2, 3, 4), (2, 3, 4, 5)):
        x = rand(*size)
        close(LayerNorm(2)(x), normalise(x, dims=0))
    x = rand(2)
    close(LayerNorm(2, tanh)(x), tanh(normalise(x, dims=0)))
    x = rand(2, 3, 4, 5)
    close(LayerNorm((2, 3))(x), normalise(x, dims=(0, 1)))
    close(LayerNorm(2, 3)(x), normalise(x, dims=(0, 1)))
    close(LayerNorm((2, 3, 4))(x), normalise(x, dims=range(3)))
    m = LayerNorm((2, 3, 4))
    assert hasaffine(m) and len(params(m)) == 2
    m = LayerNorm((2, 3, 4), affine=False)
    assert not hasaffine(m) and len(params(m)) == 0
    close(m(x), normalise(x, dims=range(3)))
    close(LayerNorm(2, tanh, affine=False)(x), tanh(normalise(x, dims=0)))
    xs = rand(3, 3, 3, 2)
    y = LayerNorm(3)(xs)
    close(y.std((0, 1, 2)), torch.ones(2), rtol=0, atol=0.1)
    assert not torch.equal(y.std((0, 1, 2)), xs.std((0, 1, 2)))
    m2 = LayerNorm(3, 2)
    assert m2(torch.randn(3, 2)).shape == outputsize(m2, (3, 2)) == (3, 2)


@pytest.mark.parametrize(("size", "n"), [((5, 7), 1), ((4, 3, 6), 2), ((2, 3, 4, 5), 3)])
def test_layernorm_is_torch_s_where_eps_is_none(size, n):
    m = f64(LayerNorm(*size[:n], relu, eps=1e-14))
    module = nn.LayerNorm(size[:n][::-1], eps=1e-28, dtype=torch.float64)
    m.diag.scale[...] = torch.randn(size[:n])
    m.diag.bias[...] = torch.randn(size[:n])
    with torch.no_grad():
        module.weight.copy_(rev(m.diag.scale))
        module.bias.copy_(rev(m.diag.bias))
    x, u = images(*size, dtype=torch.float64), images(*size, dtype=torch.float64)
    xr = rev(x).clone().requires_grad_()
    yr = relu(module(xr))
    (yr * rev(u)).sum().backward()
    dm, dx = gradient(lambda m, x: (m(x) * u).sum(), m, x)
    close(m(x), rev(yr.detach()))
    close(dx, rev(xr.grad))
    close(dm.diag.scale, rev(module.weight.grad))
    close(dm.diag.bias, rev(module.bias.grad))
    assert dm.ε is None and dm.size is None


def test_layernorm_adds_eps_to_the_deviation():
    x = torch.tensor([[1.0, 3.0], [3.0, 7.0]], dtype=torch.float64)
    close(LayerNorm(2, eps=1.0)(x), [[-0.5, -2 / 3], [0.5, 2 / 3]])
    close(LayerNorm(2, ϵ=1.0)(x), [[-0.5, -2 / 3], [0.5, 2 / 3]])
    assert torch.autograd.gradcheck(f64(LayerNorm(2, tanh, eps=0.3)), x.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(f64(LayerNorm(2, tanh, eps=0.3)), x.clone().requires_grad_())


def test_layernorm_as_a_layer():
    m = LayerNorm(2, 3, tanh)
    assert list(children(m).keys()) == ["λ", "diag", "ε", "size", "affine"]
    assert isinstance(m.diag, Scale) and m.size == (2, 3) and m.ε == 1e-5 and m.affine is True
    assert LayerNorm((2, 3), tanh).size == (2, 3) and LayerNorm(2, identity).size == (2,)
    assert list(m.state_dict()) == ["diag.scale", "diag.bias"]
    # Types as Julia has them.
    assert LayerNorm(2)(torch.ones(2, 5, dtype=torch.float64)).dtype == torch.float64
    assert LayerNorm(2)(torch.ones(2, 5, dtype=torch.float16)).dtype == torch.float32
    assert LayerNorm(2)(torch.ones(2, 5, dtype=torch.int64)).dtype == torch.float32
    close(LayerNorm(3)([1, 2, 3]), normalise(torch.tensor([1.0, 2.0, 3.0])))
    half = f16(Chain(LayerNorm(3), Dropout(0.1)))
    assert half(torch.ones(3, dtype=torch.float16)).dtype == torch.float16
    other = pickle.loads(pickle.dumps(m))
    x = torch.randn(2, 3, 5)
    close(other(x), m(x))
    # Without numbers to scale by, as in Flux, any input with enough axes will do.
    assert LayerNorm(7, affine=False)(torch.randn(3, 2)).shape == (3, 2)


class DividesByRoot(LayerNorm):
    def _normalised(self, x):
        xr = rev(x)
        return rev(torch.nn.functional.layer_norm(xr, self.size[::-1], eps=self.ε**2))


def test_layernorm_can_be_flux_016_s():
    x = torch.randn(4, 3, 6)
    m = DividesByRoot(4, 3, eps=0.5)
    want = (x - x.mean((0, 1))) / (x.var((0, 1), correction=0) + 0.25).sqrt()
    close(m(x), want)


# -- instance-norm and group-norm ------------------------------------------------------------------------


def counted(*size, dtype=torch.float32):
    """1, 2, 3, … in column-major order."""
    return rev(torch.arange(1.0, math.prod(size) + 1, dtype=dtype).reshape(size[::-1]))


def test_instancenorm_numbers_of_flux_s_tests():
    m = InstanceNorm(2, affine=True, track_stats=True)
    x = counted(3, 2, 2)
    assert len(params(m)) == 2 and m.β.tolist() == [0, 0] and m.γ.tolist() == [1, 1]
    y = training(m, x)
    close(m.μ, [0.5, 0.8])
    close(m.σ2, 0.1 * 1.5 * x.var(0, correction=0).mean(1) + 0.9)
    close(y, by_formula(x, 0), rtol=1e-4, atol=1e-4)
    close(m(x), (x - m.μ[:, None]) / (m.σ2[:, None] + 1e-5).sqrt(), rtol=0, atol=1e-5)
    m = InstanceNorm(2, sigmoid, affine=True, track_stats=True)
    x = counted(3, 2, 2, dtype=torch.float64)
    training(m, x)
    close(m(x), sigmoid((x - m.μ[:, None]) / (m.σ2[:, None] + m.ε).sqrt()), rtol=0, atol=1e-7)
    for m, n in ((InstanceNorm(2, sigmoid, affine=True), 2), (InstanceNorm(2, sigmoid), 0)):
        assert hasaffine(m) is (n > 0) and len(params(m)) == n
        want = sigmoid((x - x.mean(0, keepdim=True)) / (x.var(0, correction=0, keepdim=True) + m.ε).sqrt())
        close(m(x), want, rtol=0, atol=1e-7)
    xs = rand(3, 3, 3, 2)
    y = InstanceNorm(3)(xs)
    close(y.std((0, 1)), torch.ones(3, 2), rtol=0, atol=0.2)
    assert len(params(InstanceNorm(10))) == len(params(InstanceNorm(10, affine=False))) == 0
    # Higher ranks, and channels and images as more channels of a batch-norm.
    x = counted(5, 5, 3, 4, 2, 6)
    m = InstanceNorm(2, affine=True, track_stats=True)
    assert training(m, x).shape == x.shape and m.μ.shape == m.σ2.shape == (2,)
    bn = trainmode_(BatchNorm(12))
    close(
        trainmode_(InstanceNorm(2, affine=True))(x),
        rev(rev(bn(rev(rev(x).reshape(1, 12, 4, 3, 5, 5)))).reshape(rev(x).shape)),
    )


INSTANCE = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}


@pytest.mark.parametrize("ndim", [3, 4, 5])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("track", [True, False])
def test_instancenorm_is_torch_s(ndim, affine, track):
    kws = {"affine": affine, "momentum": 0.3, "eps": 1e-2}
    m = InstanceNorm(3, track_stats=track, **kws)
    module = INSTANCE[ndim](3, track_running_stats=track, **kws)
    if affine:
        for a, b in ((m.γ, module.weight), (m.β, module.bias)):
            a[...] = torch.randn(3)
            with torch.no_grad():
                b.copy_(a)
    for step in range(3):
        x = images(*(4, 3, 5)[: ndim - 2], 3, 6) * 3 + 1
        u = torch.randn_like(x)
        xr = rev(x).clone().requires_grad_()
        module.train(step < 2)
        module.zero_grad()
        yr = module(xr)
        (yr * rev(u)).sum().backward()
        if step == 2:
            testmode_(m)
        y, (dm, dx) = withgradient(lambda m, x, u=u: (m(x) * u).sum(), m, x)
        close(y, (yr * rev(u)).sum().detach(), rtol=1e-4, atol=1e-3)
        close(dx, rev(xr.grad), rtol=1e-4, atol=1e-4)
        if affine:
            close(dm.γ, module.weight.grad, rtol=1e-4, atol=1e-3)
            close(dm.β, module.bias.grad, rtol=1e-4, atol=1e-3)
        else:
            assert dm is None
        if track:
            close(m.μ, module.running_mean)
            close(m.σ2, module.running_var)


def test_groupnorm_numbers_of_flux_s_tests():
    m = GroupNorm(4, 2)
    x = counted(3, 4, 2)
    assert len(params(m)) == 2 and m.β.tolist() == [0] * 4 and m.γ.tolist() == [1] * 4
    assert m.μ is None and m.σ2 is None
    first = [
        [-1.4638476, 0.29276943, -1.4638476, 0.29276943],
        [-0.87830865, 0.87830853, -0.8783088, 0.8783083],
        [-0.29276967, 1.4638474, -0.2927699, 1.4638472],
    ]
    for y in (training(m, x), m(x)):
        close(y, torch.tensor([first, first]).permute(1, 2, 0), rtol=0, atol=1e-5)
    close(
        GroupNorm(4, 2, sigmoid)(x)[:, :, 0],
        [
            [0.18787955, 0.57267404, 0.18787955, 0.57267404],
            [0.2935284, 0.70647156, 0.29352835, 0.70647156],
            [0.42732593, 0.81212044, 0.42732587, 0.8121204],
        ],
        rtol=0,
        atol=1e-6,
    )
    # One channel in each group is instance-norm, and with one image batch-norm too.
    x = counted(2, 2, 3, 4, 5)
    close(trainmode_(InstanceNorm(4, affine=True))(x), GroupNorm(4, 4)(x))
    x = counted(2, 2, 3, 4, 1)
    close(trainmode_(BatchNorm(4))(x), trainmode_(GroupNorm(4, 4))(x))
    x = rand(3, 3, 4, 2)
    y = GroupNorm(4, 2)(x)
    close(y[:, :, :2, 0].std(), 1.0, rtol=0, atol=0.1)
    close(y[:, :, 2:, 1].std(), 1.0, rtol=0, atol=0.1)


@pytest.mark.parametrize("ndim", [2, 3, 4, 5, 6])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("G", [1, 3, 6])
def test_groupnorm_is_torch_s(ndim, affine, G):
    m, module = GroupNorm(6, G, affine=affine, eps=1e-2), nn.GroupNorm(G, 6, affine=affine, eps=1e-2)
    if affine:
        for a, b in ((m.γ, module.weight), (m.β, module.bias)):
            a[...] = torch.randn(6)
            with torch.no_grad():
                b.copy_(a)
    x = images(*(4, 3, 2, 2)[: ndim - 2], 6, 5) * 3 + 1
    u = torch.randn_like(x)
    xr = rev(x).clone().requires_grad_()
    yr = module(xr)
    (yr * rev(u)).sum().backward()
    close(m(x).detach(), rev(yr.detach()), rtol=1e-4, atol=1e-5)
    dm, dx = gradient(lambda m, x: (m(x) * u).sum(), m, x)
    close(dx, rev(xr.grad), rtol=1e-4, atol=1e-4)
    if affine:
        close(dm.γ, module.weight.grad, rtol=1e-4, atol=1e-4)
        close(dm.β, module.bias.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("m", [InstanceNorm(2, tanh, affine=True), GroupNorm(2, 1, tanh), GroupNorm(2, 2)], ids=str)
def test_derivatives_of_the_second_order(m):
    x = torch.randn(3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(f64(m), x)
    assert torch.autograd.gradgradcheck(f64(m), x)


def test_single_values_of_images():
    x = torch.randn(1, 2, 5)
    m = trainmode_(InstanceNorm(2, track_stats=True))
    with pytest.raises(ValueError, match="expects more than one value per channel in training"):
        m(x)
    assert m.μ.tolist() == [0, 0] and m.σ2.tolist() == [1, 1]
    for m in (InstanceNorm(2), trainmode_(InstanceNorm(2)), GroupNorm(2, 2)):
        close(m(x).detach(), torch.zeros(1, 2, 5), rtol=0, atol=1e-4)
    assert InstanceNorm(2, track_stats=True)(x).shape == (1, 2, 5)


def test_instances_and_groups_in_other_types():
    x = images(3, 4, 6, dtype=torch.float64) + 2
    for make in (lambda: InstanceNorm(4, affine=True, track_stats=True), lambda: GroupNorm(4, 2)):
        single, double = trainmode_(make()), trainmode_(f64(make()))
        y = single(x)
        assert y.dtype == torch.float64 and single.γ.dtype == torch.float32
        close(y, double(x))
        if single.μ is not None:
            assert single.μ.dtype == torch.float32
            close(single.μ, double.μ.float())
            close(single.σ2, double.σ2.float())
        assert single(x.half()).dtype == torch.float32
        assert f16(single)(x.half()).dtype == torch.float16
        whole = counted(3, 4, 2).long()
        close(make()(whole), make()(whole.float()))
        close(make()(whole.tolist()), make()(whole.float()))


@pytest.mark.parametrize(
    ("m", "want"),
    [
        (LayerNorm(3), "LayerNorm(3)        # 6 parameters"),
        (LayerNorm((2, 3), tanh), "LayerNorm(2, 3, tanh)  # 12 parameters"),
        (LayerNorm(2, 3, affine=False), "LayerNorm(2, 3, affine=false)"),
        (InstanceNorm(3), "InstanceNorm(3, affine=false)"),
        (
            InstanceNorm(3, relu, affine=True, track_stats=True),
            "InstanceNorm(3, relu)  # 6 parameters, plus 6 non-trainable",
        ),
        (InstanceNorm(3, active=True), "InstanceNorm(3, affine=false, active=true)"),
        (GroupNorm(4, 2), "GroupNorm(4, 2)     # 8 parameters"),
        (testmode_(GroupNorm(4, 2, relu, affine=False)), "GroupNorm(4, 2, relu, affine=false, active=false)"),
    ],
    ids=str,
)
def test_printing_of_the_others(m, want):
    assert repr(m) == want
    assert str(m) == want.partition("  #")[0].rstrip()


def test_fields_of_instances_and_groups():
    names = ["λ", "β", "γ", "μ", "σ2", "ε", "momentum", "affine", "track_stats", "active", "chs"]
    assert list(children(InstanceNorm(3)).keys()) == names
    assert list(children(GroupNorm(4, 2)).keys()) == ["G", *names]
    m = GroupNorm(4, 2, initβ=ones32, initγ=lambda n: torch.full((n,), 2.0), eps=1e-3, momentum=0.5)
    assert m.β.tolist() == [1] * 4 and m.γ.tolist() == [2] * 4 and m.ε == 1e-3 and m.momentum == 0.5
    assert InstanceNorm(3, ϵ=1e-2).ε == GroupNorm(3, 1, ϵ=1e-2).ε == 1e-2
    for m in (InstanceNorm(3, affine=True, track_stats=True), GroupNorm(3, 3)):
        for other in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
            assert str(other) == str(m) and other.γ is not m.γ


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: LayerNorm(), TypeError, r"as in LayerNorm\(3\)"),
        (lambda: LayerNorm(tanh), TypeError, r"as in LayerNorm\(3\)"),
        (lambda: LayerNorm(2.0), TypeError, "LayerNorm expects its sizes to be whole numbers, and got 2.0"),
        (lambda: LayerNorm(2, "relu"), TypeError, 'LayerNorm expects its sizes to be whole numbers, and got "relu"'),
        (lambda: LayerNorm(-1), ValueError, "LayerNorm expects sizes of at least 0"),
        (
            lambda: LayerNorm(2)(torch.ones(3, 5)),
            DimensionMismatch,
            r"layer LayerNorm\(2\) expects size\(input, 0\) == 2, but got 3×5 tensor of float32",
        ),
        (
            lambda: LayerNorm(2, 3)(torch.ones(2, 5)),
            DimensionMismatch,
            r"layer LayerNorm\(2, 3\) expects size\(input, 1\) == 3",
        ),
        (lambda: LayerNorm(2, 3)(torch.ones(2)), DimensionMismatch, r"expects ndims\(input\) > 1"),
        (lambda: LayerNorm(2, 3, affine=False)(torch.ones(2)), DimensionMismatch, r"expects ndims\(input\) > 1"),
        (lambda: LayerNorm(2)("x"), TypeError, "expects an array as input"),
        (
            lambda: InstanceNorm(3)(torch.ones(32, 32, 5, 1)),
            DimensionMismatch,
            r"layer InstanceNorm\(3, affine=false\) expects size\(input, 2\) == 3, but got 32×32×5×1 tensor",
        ),
        (
            lambda: InstanceNorm(3)(torch.ones(3, 5)),
            DimensionMismatch,
            r"expects ndims\(input\) >= 3, spatial axes, channels and batch, but got 3×5 tensor",
        ),
        (lambda: InstanceNorm(2)(torch.ones(3, 2, 3) * 1j), TypeError, "expects real numbers"),
        (lambda: GroupNorm(16, 4)(torch.ones(32, 32, 15, 4)), DimensionMismatch, r"size\(input, 2\) == 16"),
        (lambda: GroupNorm(4, 2)(torch.ones(4)), DimensionMismatch, r"ndims\(input\) >= 2"),
        (
            lambda: GroupNorm(4, 3),
            ValueError,
            r"The number of groups \(3\) must divide the number of channels \(4\)",
        ),
        (lambda: GroupNorm(4, 0), ValueError, r"The number of groups \(0\)"),
        (lambda: GroupNorm(4, 2.0), TypeError, "GroupNorm expects its sizes to be whole numbers, and got 2.0"),
        (lambda: hasaffine(Dense(2, 3)), TypeError, "hasaffine expects a normalisation layer, and got Dense"),
    ],
)
def test_wrong_use_of_the_others(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    ("m", "size"),
    [
        (AlphaDropout(0.1), (10, 10)),
        (LayerNorm(32), (32, 32, 3, 16)),
        (BatchNorm(3), (32, 32, 3, 16)),
        (InstanceNorm(3), (32, 32, 3, 16)),
        (InstanceNorm(3, track_stats=True), (32, 32, 3, 16)),
        (GroupNorm(16, 4), (32, 32, 16, 16)),
    ],
    ids=str,
)
def test_sizes_without_numbers(m, size):
    assert outputsize(m, size) == size
    assert outputsize(m, size[:-1], padbatch=True) == (*size[:-1], 1)


def test_hasaffine():
    assert hasaffine(BatchNorm(3)) and hasaffine(GroupNorm(2, 2)) and hasaffine(LayerNorm(3))
    assert not hasaffine(InstanceNorm(3)) and not hasaffine(BatchNorm(3, affine=False))


# -- weight-norm -----------------------------------------------------------------------------------------


def test_weightnorm_of_flux_s_tests():
    x = rand32(1, 3)
    mn = WeightNorm(Dense(1 | to | 2))
    m = remove_weight_norms(mn)
    assert type(m) is Dense
    close(m(x), mn(x))
    og = gradient(lambda m: m(x).sum(), m)[0]
    g = gradient(lambda mn: mn(x).sum(), mn)[0]
    close(g.layer.bias, og.bias)
    ε = torch.finfo(torch.float32).eps
    v = mn.layer.weight.detach()
    v = v / ((v**2).sum(1, keepdim=True) + ε).sqrt()
    close(og.weight * v, g.g)
    close(og.weight * mn.g.detach() - mn.g.detach() * g.g * v, g.layer.weight, rtol=0, atol=1e-6)
    c = Chain(
        WeightNorm(Conv((3,), 1 | to | 2)),
        Conv((3,), 2 | to | 2),
        WeightNorm(Conv((3,), 2 | to | 3)),
        lambda x: rev(rev(x).reshape(-1, 18)),
        WeightNorm(Dense(18, 4)),
        Dense(4, 1),
    )
    oc = remove_weight_norms(c)
    assert [type(f).__name__ for f in oc] == ["Conv", "Conv", "Conv", "function", "Dense", "Dense"]
    assert type(c[0]) is WeightNorm and type(c[4]) is WeightNorm
    x = rand32(12, 1, 1)
    close(c(x), oc(x))
    assert oc[1].weight is c[1].weight and oc[0].bias is c[0].layer.bias
    # What is left can be trained as ever.
    assert len(params(oc)) == 10 and all(p.is_leaf and p.requires_grad for p in params(oc))


@pytest.mark.parametrize(
    ("layer", "dims", "theirs"),
    [
        (Dense(5 | to | 3), -1, 0),
        (Dense(5 | to | 3), 0, 1),
        (Dense(5 | to | 3), None, None),
        (Conv((3, 2), 4 | to | 5), (0, 1, 2), -1),
        (ConvTranspose((3,), 4 | to | 5), (0, 1), -1),
    ],
    ids=str,
)
def test_weightnorm_is_torch_s(layer, dims, theirs):
    m = WeightNorm(layer, dims=dims)
    axes = tuple(range(layer.weight.ndim)) if dims is None else dims
    v = layer.weight.detach()
    close(m.g.detach(), torch.linalg.vector_norm(v, dim=axes, keepdim=True))
    v, g = torch.randn_like(v), torch.randn_like(m.g)
    m.g[...], layer.weight[...] = g, v
    v, g = v.requires_grad_(), g.requires_grad_()
    w = torch._weight_norm(v, g, -1 if theirs is None else theirs % v.ndim) if theirs is not None else g * v / v.norm()
    close(reparametrize(m).weight.detach(), w.detach())
    x = torch.randn(5, 2) if isinstance(layer, Dense) else images(*(6,) * (v.ndim - 2), 4, 2)
    want = torch.autograd.grad((with_weight(layer, w)(x) ** 2).sum(), (v, g))
    dm = gradient(lambda m: (m(x) ** 2).sum(), m)[0]
    close(dm.layer.weight, want[0], rtol=1e-4, atol=1e-4)
    close(dm.g, want[1], rtol=1e-4, atol=1e-4)
    double = f64(m)
    assert torch.autograd.gradcheck(lambda x: double(x), x.double().requires_grad_())


def with_weight(layer, w):
    return lambda x: torch.func.functional_call(layer, {"weight": w}, (x,))


@layer
class Affine:
    def __init__(self, W, b):
        self.W, self.b = W, b

    def __call__(self, x, times=1):
        return times * (self.W @ x) + self.b


def test_weightnorm_of_any_layer():
    torch_own, mine = nn.Linear(3, 2), Affine(torch.randn(2, 3), torch.randn(2, 1))
    x = torch.randn(3, 4)
    m = WeightNorm(mine, "W")
    close(m(x), mine(x))
    close(m(x, times=2), mine(x, times=2))
    close(WeightNorm(torch_own)(x.T), torch_own(x.T))
    each = WeightNorm(mine, "W", dims=())  # every number by itself
    close(each.g.detach(), mine.W.detach().abs())
    close(each(x), mine(x))
    assert gradient(lambda m: m(x).sum(), m)[0].layer.W is not None
    bn = trainmode_(WeightNorm(BatchNorm(3), "γ"))
    bn(x)
    assert (bn.layer.μ != 0).all()
    # It learns, with its two parts in the state that is saved.
    opt = setup(Descent(0.1), m)
    before = (m.g.detach().clone(), m.layer.W.detach().clone())
    g = gradient(lambda m: (m(x) ** 2).mean(), m)[0]
    was = (m(x) ** 2).mean()
    update_(opt, m, g)
    assert (m(x) ** 2).mean() < was
    assert not torch.equal(m.g, before[0]) and not torch.equal(m.layer.W, before[1])
    assert set(m.state_dict()) == {"g", "layer.W", "layer.b"}
    # It may be made of weights that are part of a computation.
    W = torch.randn(2, 3, requires_grad=True)
    y = WeightNorm(Dense(2 * W, False))(x).sum()
    close(torch.autograd.grad(y, W)[0], 2 * x.sum(1).expand(2, 3))


def test_printing_of_weightnorm():
    m = WeightNorm(Conv((3,), 1 | to | 2))
    assert (
        repr(Chain(m, WeightNorm(Conv((3,), 2 | to | 2))))
        == """Chain(
  WeightNorm(
    Conv((3,), 1 => 2),                 # 8 parameters
    3×1×1 Array{Float32,...},           # 3 parameters
    "weight",
    2,
  ),
  WeightNorm(
    Conv((3,), 2 => 2),                 # 14 parameters
    3×2×1 Array{Float32,...},           # 6 parameters
    "weight",
    2,
  ),
)                   # Total: 6 arrays, 31 parameters, 124 bytes."""
    )
    assert str(m) == 'WeightNorm(Conv((3,), 1 => 2), "weight"; dims=2)'
    assert list(children(m).keys()) == ["layer", "g", "which", "dims"]


def test_weightnorm_leaves_frozen_weights_frozen():
    d = Dense(3, 2)
    d.weight.requires_grad_(False)
    m = WeightNorm(d)
    m.g.requires_grad_(False)
    close(m(torch.ones(3)), d(torch.ones(3)))
    assert remove_weight_norms(m).weight.requires_grad is False


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: WeightNorm(Dense(1, 2), "weights"), ValueError, "`Dense` does not have field `weights`."),
        (lambda: WeightNorm(lambda x: x), ValueError, "does not have field `weight`."),
        (
            lambda: WeightNorm(Dense(1, 2), "bias"),
            ValueError,
            "`bias` field for .* is all zero, which will result in NaN",
        ),
        (lambda: WeightNorm(Dense(1, 2, bias=False), "bias"), ValueError, "`bias` field for .* is all zero"),
        (lambda: WeightNorm(Dense(1, 2), "σ"), ValueError, "`σ` field for .* is no array of numbers to train"),
        (lambda: WeightNorm(Dense(1, 2), dims=2), IndexError, "can't take norms along 2 of a 2×1 tensor"),
        (lambda: WeightNorm(Dense(1, 2), dims=(0, -3)), IndexError, r"can't take norms along \(0, -3\)"),
    ],
)
def test_wrong_weightnorms(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize(
    "m",
    [LayerNorm(4, relu), InstanceNorm(3, affine=True), GroupNorm(3, 3), WeightNorm(Dense(4, 2)), AlphaDropout(0.5)],
    ids=lambda m: type(m).__name__,
)
def test_compiles_in_one_piece(m):
    torch._dynamo.reset()
    x = images(4, 3, 5)
    close(torch.compile(m, fullgraph=True, backend="eager")(x), m(x))


@pytest.mark.parametrize("ndim", [2, 3, 4, 5])
def test_layout_is_never_changed(ndim):
    x = images(*(5, 4, 3)[: ndim - 2], 3, 6)
    instances = [InstanceNorm(3, affine=True), trainmode_(InstanceNorm(3, track_stats=True))] if ndim > 2 else []
    for m in (
        BatchNorm(3),
        trainmode_(BatchNorm(3, relu)),
        BatchNorm(3, affine=False),
        trainmode_(Dropout(0.5)),
        trainmode_(AlphaDropout(0.5)),
        LayerNorm(x.shape[0], relu),
        LayerNorm(tuple(x.shape[:-1]), affine=False),
        GroupNorm(3, 3),
        *instances,
    ):
        assert rev(m(x)).is_contiguous()
        assert rev(gradient(lambda x, m=m: (m(x) ** 2).sum(), x)[0]).is_contiguous()
    for dims in (0, ndim - 2, -1, (0, -1)):
        assert rev(trainmode_(Dropout(0.5, dims=dims))(x)).is_contiguous()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    x = images(4, 4, 3, 5)
    for m in (BatchNorm(3), BatchNorm(3, relu, affine=False)):
        on_gpu = gpu(m)
        close(training(on_gpu, gpu(x)).cpu(), training(m, x), rtol=1e-4, atol=1e-4)
        close(on_gpu.μ.cpu(), m.μ, rtol=1e-4, atol=1e-5)
        close(cpu(on_gpu)(x), m(x), rtol=1e-4, atol=1e-4)
    for m in (
        LayerNorm(4, 4),
        InstanceNorm(3, affine=True, track_stats=True),
        GroupNorm(3, 3, relu),
        WeightNorm(Dense(4, 2)),
    ):
        on_gpu = gpu(m)
        close(training(on_gpu, gpu(x)).cpu(), training(m, x), rtol=1e-4, atol=1e-4)
    y = trainmode_(AlphaDropout(0.5))(gpu(torch.randn(9999)))
    close(y.cpu().std(), 1.0, rtol=0, atol=0.05)
    half = f16(gpu(BatchNorm(3)))
    assert training(half, gpu(x).half()).dtype == torch.float16
    close(half.μ.float().cpu(), 0.1 * x.mean((0, 1, 3)), rtol=1e-2, atol=1e-3)
    for kws in ({}, {"dims": 2}, {"rng": torch.Generator("cuda").manual_seed(1)}):
        y = trainmode_(Dropout(0.5, **kws))(gpu(ones32(4, 4, 30, 5)))
        close(y.unique().cpu(), [0.0, 2.0])
        assert y.device.type == "cuda"


class TestLayerNormInGradient:
    """While a gradient is taken, LayerNorm with scale and bias goes through a function of its own."""

    @staticmethod
    def parts(m, x):
        return m.diag(normalise(x, dims=range(len(m.size)), eps=m.ε))

    @pytest.mark.parametrize("eps", [1e-5, 0.3])
    @pytest.mark.parametrize("size", [(5,), (4, 3), (1,)])
    def test_like_its_parts(self, size, eps):
        m = f64_layer(LayerNorm(*size, tanh, eps=eps))
        x = torch.randn(7, 2, *size[::-1], dtype=torch.float64).permute(*reversed(range(len(size) + 2)))
        x[..., 1, 1] = 0.5  # no deviation at all
        w = torch.randn_like(x)
        (gm, gx), (wm, wx) = (
            gradient(lambda m, x, f=f: (f(m, x) * w).sum(), m, x) for f in (LayerNorm.__call__, self.parts)
        )
        torch.testing.assert_close(gx, wx)
        torch.testing.assert_close(gm.diag.scale, wm.diag.scale)
        torch.testing.assert_close(gm.diag.bias, wm.diag.bias)
        torch.testing.assert_close(withgradient(lambda m: ((y := m(x)).sum(), y), m).val[1], self.parts(m, x).detach())

    @pytest.mark.parametrize("eps", [1e-5, 1e-12, 1e-30])
    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_any_deviation_in_float32(self, scale, eps):
        m, x = LayerNorm(6, eps=eps), torch.randn(6, 4) * scale
        x[:, 1] = 0  # no deviation at all
        loss = lambda m, x: (m(x) ** 3).sum()  # noqa: E731
        gm, gx = gradient(loss, m, x)
        wm, wx = gradient(loss, f64(m), x.double())
        assert gx.isfinite().all() and gx[:, 1].abs().max() == wx[:, 1].abs().max() == 0
        torch.testing.assert_close(gx.double(), wx, rtol=1e-3, atol=1e-4 / scale)
        torch.testing.assert_close(gm.diag.scale.double(), wm.diag.scale, rtol=1e-4, atol=1e-4)

    def test_without_epsilon_and_deviation_there_is_no_number(self):
        m = LayerNorm(2, eps=0)
        assert withgradient(lambda m: m(torch.ones(2, 3)).sum(), m).val.isnan()
        assert m(torch.ones(2, 3)).isnan().all()

    def test_finite_differences(self):
        m = f64_layer(LayerNorm(4, eps=0.1))
        x = torch.randn(4, 3, dtype=torch.float64)
        grad = gradient(lambda x: (m(x) ** 3).sum(), x)[0]
        for i in range(4):
            step = torch.zeros_like(x)
            step[i, 1] = 1e-6
            with torch.no_grad():
                slope = ((m(x + step) ** 3).sum() - (m(x - step) ** 3).sum()) / 2e-6
            assert grad[i, 1] == pytest.approx(slope.item(), rel=1e-6, abs=1e-8)

    def test_second_derivative(self):
        m = f64_layer(LayerNorm(3, eps=0.1))
        x = torch.randn(3, dtype=torch.float64)
        h = hessian_reverse(lambda x: (m(x) ** 3).sum(), x)
        torch.testing.assert_close(h, hessian_reverse(lambda x: (self.parts(m, x) ** 3).sum(), x))
        assert h.abs().max() > 0.1

    def test_frozen_scale_and_hooked_scale(self):
        m, x, seen = LayerNorm(3), torch.randn(3, 2), []
        m.diag.scale.requires_grad_(False)
        grads = gradient(lambda m, x: (m(x) ** 3).sum(), m, x)
        assert grads[0].diag.scale is None and grads[0].diag.bias.shape == (3,) and grads[1].abs().max() > 0
        m.diag.register_forward_hook(lambda *_: seen.append(1))
        gradient(lambda m: (m(x) ** 3).sum(), m)
        assert seen == [1]

    def test_vmap(self):
        m, xs = LayerNorm(3), torch.randn(4, 3, 2)
        grad = gradient(lambda m: (torch.vmap(m)(xs) ** 3).sum(), m)[0]
        want = gradient(lambda m: sum((m(x) ** 3).sum() for x in xs), m)[0]
        torch.testing.assert_close(grad.diag.scale, want.diag.scale)


def f64_layer(m):
    m = f64(m)
    with torch.no_grad():
        m.diag.scale.uniform_(0.5, 2)
        m.diag.bias.normal_()
    return m
