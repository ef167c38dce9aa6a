from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import fluxtorch.losses as L
from fluxtorch import base
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.losses import (
    binary_focal_loss,
    binarycrossentropy,
    crossentropy,
    dice_coeff_loss,
    focal_loss,
    hinge_loss,
    huber_loss,
    kldivergence,
    label_smoothing,
    logitbinarycrossentropy,
    logitcrossentropy,
    mae,
    mse,
    msle,
    poisson_loss,
    siamese_contrastive_loss,
    squared_hinge_loss,
    tversky_loss,
)
from fluxtorch.onehotarrays import onehotbatch
from fluxtorch.zygote import gradient

LOSSES = [
    binary_focal_loss,
    binarycrossentropy,
    crossentropy,
    dice_coeff_loss,
    focal_loss,
    hinge_loss,
    huber_loss,
    kldivergence,
    logitbinarycrossentropy,
    logitcrossentropy,
    mae,
    mse,
    msle,
    poisson_loss,
    siamese_contrastive_loss,
    squared_hinge_loss,
    tversky_loss,
]
WITH_AGG = [f for f in LOSSES if f not in (dice_coeff_loss, tversky_loss)]
WITH_DIMS = [crossentropy, focal_loss, kldivergence, logitcrossentropy]
WITH_EPS = [binary_focal_loss, binarycrossentropy, crossentropy, focal_loss, kldivergence, msle]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def by_name(losses):
    return pytest.mark.parametrize("loss", losses, ids=lambda f: f.__name__)


def t(x):
    return torch.tensor(x, dtype=torch.float64)


def onehot(labels, classes):
    """A Bool array of one column per label, as Flux's onehotbatch."""
    return F.one_hot(torch.tensor(labels), classes).T.bool()


def columns(first, last, rows):
    """`reshape(first:last, rows, :)`, filled by columns as in Julia."""
    return torch.arange(first, last + 1).reshape(-1, rows).T.float()


def check(got, want, rel=1e-6):
    assert got.shape == ()
    assert got.item() == pytest.approx(want, rel=rel, abs=1e-12)


def test_older_names():
    assert L.hinge is hinge_loss and L.squared_hinge is squared_hinge_loss and L.poisson is poisson_loss
    assert set(L.__all__) == {f.__name__ for f in LOSSES} | {
        "ctc_loss",
        "label_smoothing",
        "hinge",
        "squared_hinge",
        "poisson",
    }


# The numbers of Flux's manual.

Y_MODEL = t([1.1, 1.9, 3.1])
ONE_TO_3 = range(1, 4)
MANUAL = [
    (lambda: mae(Y_MODEL, ONE_TO_3), 0.10000000000000009),
    (lambda: mse(Y_MODEL, ONE_TO_3), 0.010000000000000018),
    (lambda: msle(torch.tensor([1.1, 2.2, 3.3]), ONE_TO_3), 0.009084041),
    (lambda: msle(torch.tensor([0.9, 1.8, 2.7]), ONE_TO_3), 0.011100831),
    (lambda: huber_loss(t([1.1, 2.1, 3.1]), ONE_TO_3), 0.005000000000000009),
    (lambda: huber_loss(t([1.1, 2.1, 3.1]), ONE_TO_3, delta=0.05), 0.003750000000000005),
    (lambda: poisson_loss(torch.tensor([1, 3, 3]), ONE_TO_3), 0.5023128522198171),
    (lambda: hinge_loss(t([0.1, 0.3, 1, 1.5]), [1, -1, 1, 1]), 0.55),
    (lambda: squared_hinge_loss(t([0.1, 0.3, 1, 1.5]), [1, -1, 1, 1]), 0.625),
    (lambda: dice_coeff_loss(t([1.1, 2.1, 3.1]), ONE_TO_3), 0.000992391663909964),
    (lambda: 1 - dice_coeff_loss(t([1.1, 2.1, 3.1]), ONE_TO_3), 0.99900760833609),
    (lambda: siamese_contrastive_loss(t([0.5, 1.5, 2.5]), ONE_TO_3), -4.833333333333333),
    (lambda: siamese_contrastive_loss(t([0.5, 1.5, 2.5]), ONE_TO_3, margin=2), -4.0),
]


# Flux 0.10's manual, with `softmax([-1.1491, 0.8619, 0.3127])` and the labels `[1, 1, 0]`.
LOGITS = t([-1.1491, 0.8619, 0.3127])
BINARY = [1.424397097347566, 0.35231664672364077, 0.8616703662235441]
MANUAL += [
    (lambda: mse([0, 2], [1, 1]), 1),
    (lambda: crossentropy(torch.softmax(LOGITS, 0), [1, 1, 0], eps=0), 3.085467254747739),
    (lambda: logitcrossentropy(LOGITS, [1, 1, 0]), 3.085467254747738),
]


@pytest.mark.parametrize("got, want", MANUAL)
def test_numbers_of_the_manual(got, want):
    check(got(), want)


def test_crossentropy_of_the_manual():
    y = onehot([0, 1, 2, 1, 0], 3)
    ŷ = torch.softmax(columns(-7, 7, 3), 0)
    check(crossentropy(ŷ, y), 1.6076053)
    check(crossentropy(ŷ, y, agg=sum), 5 * 1.6076053)
    smooth = label_smoothing(y, 0.15)
    torch.testing.assert_close(smooth, y * 0.85 + 0.05)
    check(crossentropy(ŷ, smooth), 1.5776052)
    check(focal_loss(ŷ, y), 1.1277571935622628, rel=1e-5)
    check(focal_loss(ŷ, y, gamma=0), crossentropy(ŷ, y).item())


def test_logitcrossentropy_of_the_manual():
    y = onehot([0, 1, 2, 0, 1, 0, 0], 3)
    ŷ = torch.tensor([*range(-9, 1), *range(10), 7.5]).reshape(7, 3).T
    check(logitcrossentropy(ŷ, y), 1.5791205)
    check(crossentropy(torch.softmax(ŷ, 0), y), 1.5791197)


def test_binarycrossentropy_of_the_manual():
    y = torch.tensor([True, False, True])
    ŷ = torch.softmax(torch.tensor([[1.0, 3, 4], [2, 3, 5]]), 0)
    check(binarycrossentropy(ŷ[1], y), 0.43989)
    check(crossentropy(ŷ, onehot([1, 0, 1], 2)), 0.43989)
    logits = torch.tensor([2, -1, math.pi])
    check(logitbinarycrossentropy(logits, y), 0.160832)
    check(binarycrossentropy(torch.sigmoid(logits), y), 0.16083185)


def test_binary_crossentropies_of_each_number():
    """Flux ≤ 0.11 has `binarycrossentropy.(σ.(ŷ), y)`, of numbers."""
    want = t(BINARY)
    torch.testing.assert_close(base.broadcast(binarycrossentropy, torch.sigmoid(LOGITS), [1, 1, 0]), want)
    torch.testing.assert_close(base.broadcast(logitbinarycrossentropy, LOGITS, [1, 1, 0]), want)


def test_kldivergence_of_the_manual():
    p1, p2 = torch.tensor([[1, 0], [0, 1]]), torch.full((2, 2), 0.5, dtype=torch.float64)
    check(kldivergence(p2, p1), math.log(2))
    check(kldivergence(p2, p1, agg=sum), 2 * math.log(2))
    check(kldivergence(p2, p2, eps=0), 0)
    check(kldivergence(p2, p2), -2e-16)
    assert kldivergence(p1, p2, eps=0).item() == math.inf
    check(kldivergence(p1, p2), 17.3, rel=3e-3)


def test_label_smoothing_of_the_manual():
    y = onehot([1, 1, 1, 0, 1, 0], 2)
    smooth = label_smoothing(y, 0.2)
    torch.testing.assert_close(smooth, torch.tensor([[0.1, 0.1, 0.1, 0.9, 0.1, 0.9], [0.9, 0.9, 0.9, 0.1, 0.9, 0.1]]))
    similar = torch.softmax(y * math.log(2), 0)
    other = similar.flip(0)
    assert crossentropy(similar, y) < crossentropy(similar, smooth)
    assert crossentropy(other, y) > crossentropy(other, smooth)


# The numbers of Flux's tests.

Y4, Ŷ4 = t([1, 1, 0, 0]), t([0.9, 0.1, 0.1, 0.9])
ROW3, ROW4 = torch.tensor([[1, 2, 3]]), torch.tensor([[1, 2, 3, 4]])
P, Q = t([[0.1, 0.2, 0.3]]), t([[0.4, 0.5, 0.6]])
D, DHAT = t([[1.0, 0.5, 0.3, 2.4]]), t([[0, 1.4, 0.5, 1.2]])
FOCAL = (t([[0.268941, 0.5, 0.268941], [0.731059, 0.5, 0.731059]]), torch.tensor([[0, 1, 0], [1, 0, 1]]))
S, SHAT = torch.tensor([[1, 0], [0, 0], [0, 1]]), t([[0.4, 0.2], [0.5, 0.5], [0.1, 0.3]])
S1 = torch.tensor([[1, 0, 0, 0, 1], [0, 1, 0, 1, 0], [0, 0, 1, 0, 0]])
S1HAT = torch.softmax(columns(-7, 7, 3), 0)
S2, S2HAT = torch.tensor([1, 0, 0, 1, 1]), t([0.6, 0.4, 0.1, 0.2, 0.7])
TESTS = [
    (lambda: mse(Ŷ4, Y4), (0.1**2 + 0.9**2) / 2),
    (lambda: mse(0 + 0j, 1 + 1j), 2),
    (lambda: mae(Ŷ4, Y4), 1 / 2),
    (lambda: huber_loss(Ŷ4, Y4), 0.20500000000000002),
    (lambda: msle(t([345.0, 332.0, 789.0]), t([123.0, 456.0, 789.0])), 0.38813985859136585),
    (lambda: kldivergence(t([[4.0, 5.0, 6.0]]), ROW3), -1.7661057888493457),
    (lambda: kldivergence(t([[1, 2, 3]]), ROW3), 0),
    (lambda: hinge_loss(t([[5.0, 6.0, 7.0, 8.0]]), ROW4), 0),
    (lambda: hinge_loss(ROW4, 0.5 * ROW4), 0.125),
    (lambda: squared_hinge_loss(t([[5.0, 6.0, 7.0, 8.0]]), ROW4), 0),
    (lambda: squared_hinge_loss(ROW4, 0.5 * ROW4), 0.0625),
    (lambda: poisson_loss(Q, P), 0.6278353988097339),
    (lambda: poisson_loss(P, P), 0.5044459776946685),
    (lambda: dice_coeff_loss(DHAT, D), 0.2799999999999999),
    (lambda: dice_coeff_loss(D, D), 0.0),
    (lambda: tversky_loss(DHAT, D), -0.06772009029345383),
    (lambda: tversky_loss(DHAT, D, beta=0.8), -0.09490740740740744),
    (lambda: tversky_loss(D, D), -0.5576923076923075),
    (lambda: binary_focal_loss(*FOCAL), 0.0728675615927385),
    (lambda: binary_focal_loss(t([[0.6, 0.3], [0.4, 0.7]]), [[1, 0], [0, 1]]), 0.05691642237852222),
    (lambda: binary_focal_loss(*FOCAL, gamma=0.0) - binarycrossentropy(*FOCAL), 0),
    (lambda: focal_loss(SHAT, S), 0.45990566879720157),
    (lambda: siamese_contrastive_loss(SHAT, S), 0.2333333333333333),
    (lambda: siamese_contrastive_loss(SHAT, S, margin=0.5), 0.10000000000000002),
    (lambda: siamese_contrastive_loss(SHAT, S, margin=1.5), 0.5333333333333333),
    (lambda: siamese_contrastive_loss(S1HAT, S1), 0.32554644),
    (lambda: siamese_contrastive_loss(S1HAT, S1, margin=0.5), 0.16271012),
    (lambda: siamese_contrastive_loss(S1HAT, S1, margin=1.5), 0.6532292),
    (lambda: siamese_contrastive_loss(S, S), 0.0),
    (lambda: siamese_contrastive_loss(S1, S1), 0.0),
    (lambda: siamese_contrastive_loss(SHAT, S, margin=0), 0.09166666666666667),
    (lambda: siamese_contrastive_loss(S1HAT, S1, margin=0), 0.13161165),
    (lambda: siamese_contrastive_loss(S2HAT, S2), 0.21200000000000005),
    (lambda: siamese_contrastive_loss(S2HAT, S2HAT), 0.18800000000000003),
    (lambda: binarycrossentropy(t([0.1, 0.2, 0.9]), 1), -sum(map(math.log, [0.1, 0.2, 0.9])) / 3),
]


@pytest.mark.parametrize("got, want", TESTS)
def test_numbers_of_flux(got, want):
    check(got(), want)


def test_crossentropies_of_flux():
    y = onehot([1, 1, 0, 0], 2)
    ŷ = t([[0.1, 0.9], [0.9, 0.1], [0.9, 0.1], [0.1, 0.9]]).T
    v = math.log(0.1 / 0.9)
    logits = t([[v, 0.0], [0.0, v], [0.0, v], [v, 0.0]]).T
    check(crossentropy(ŷ, y), 1.203972804325936)
    check(crossentropy(ŷ, label_smoothing(y, 0.1)), 1.2039728043259348)
    check(logitcrossentropy(logits, y), 1.203972804325936)
    lossvalue = 1.203972804325936
    for weight, want in (([1, 1], lossvalue), ([0.5, 0.5], lossvalue / 2), ([2, 0.5], 1.5049660054074199)):
        for labels in (y, onehotbatch([1, 1, 0, 0], range(2))):
            check(crossentropy(ŷ, labels, weight=weight), want)
            check(logitcrossentropy(logits, labels, weight=t(weight)), want)
    check(logitcrossentropy(logits, y, weight=2), 2 * lossvalue)
    with pytest.raises(DimensionMismatch, match="lengths 2 and 4"):  # which are the weights of classes, not of columns
        crossentropy(ŷ, y, weight=[1, 1, 1, 1])
    yl, ylp, logylp = onehot([1], 2), t([[0.9], [0.1]]), t([[0.0], [v]])
    yls = t([[0.1], [0.9]])
    check(crossentropy(ylp, yl), -math.log(0.1))
    check(crossentropy(ylp, label_smoothing(yl, 0.2)), -(yls * ylp.log()).sum().item())
    check(logitcrossentropy(logylp, label_smoothing(yl, 0.2)), -(yls * logylp.log_softmax(0)).sum().item())
    check(crossentropy(t([0.1, 0.0, 0.9]), t([0.1, 0.0, 0.9])), crossentropy(t([0.1, 0.9]), t([0.1, 0.9])).item())
    check(kldivergence(t([0.1, 0.0, 0.9]), t([0.1, 0.0, 0.9])), kldivergence(t([0.1, 0.9]), t([0.1, 0.9])).item())
    ya = onehot([1, 1, 1, 0, 0], 2)
    for y in (ya, onehotbatch([1, 1, 1, 0, 0], range(2))):
        assert crossentropy(y.float(), y, eps=0) == 0 and crossentropy(y, y, eps=0) == 0


def test_binary_crossentropies_of_flux():
    x, y = torch.randn(3, dtype=torch.float64), torch.rand(3, dtype=torch.float64)
    p = torch.sigmoid(x)
    smooth = label_smoothing(y, 0.2, dims=None)
    torch.testing.assert_close(smooth, y * 0.8 + 0.1)
    want = -smooth * p.log() - (1 - smooth) * (1 - p).log()
    torch.testing.assert_close(binarycrossentropy(p, smooth, eps=0, agg=lambda x: x), want)
    torch.testing.assert_close(binarycrossentropy(p, smooth, eps=0), want.mean())
    torch.testing.assert_close(logitbinarycrossentropy(x, smooth), want.mean())
    assert logitbinarycrossentropy(t([1000.0, -1000.0]), [0, 1]).item() == 1000


def test_label_smoothing():
    y = onehot([1], 2)
    torch.testing.assert_close(label_smoothing(y, 0.2), torch.tensor([[0.1], [0.9]]))
    torch.testing.assert_close(label_smoothing(y, 0.2, dims=None), label_smoothing(y.float(), 0.2))
    assert label_smoothing(1, 0.2, dims=None) == pytest.approx(0.9)
    torch.testing.assert_close(label_smoothing(t([1, 0, 0, 0]), 0.1), t([0.925, 0.025, 0.025, 0.025]))
    assert label_smoothing(torch.tensor([1.0, 0.0], dtype=torch.float16), 0.1).dtype == torch.float16
    for α in (1.2, 0.0, 1, -0.1):
        with pytest.raises(ValueError, match="α must be between 0 and 1"):
            label_smoothing([0.0, 1.0], α)
    for dims in (1, -1, 2):
        with pytest.raises(ValueError, match="`dims` should be either 0 or None"):
            label_smoothing([[0.0, 1.0], [1.0, 0.0]], 0.1, dims=dims)


# Against torch's own.


@pytest.mark.parametrize(
    "loss, reference",
    [
        (mse, F.mse_loss),
        (mae, F.l1_loss),
        (lambda x, y: huber_loss(x, y, delta=0.3), lambda x, y: F.huber_loss(x, y, delta=0.3)),
        (logitbinarycrossentropy, F.binary_cross_entropy_with_logits),
        (lambda x, y: binarycrossentropy(x, y, eps=0), F.binary_cross_entropy),
        (logitcrossentropy, lambda x, y: F.cross_entropy(x.T, y.T)),
        (lambda x, y: kldivergence(x, y, eps=0), lambda x, y: F.kl_div(x.T.log(), y.T, reduction="batchmean")),
        (poisson_loss, lambda x, y: F.poisson_nll_loss(x, y, log_input=False, eps=0)),
    ],
)
def test_values_and_gradients_like_torch(loss, reference):
    x = torch.rand(4, 7, dtype=torch.float64, requires_grad=True)
    y = torch.softmax(torch.randn(4, 7, dtype=torch.float64), 0)
    got, want = loss(x, y), reference(x, y)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, x), torch.autograd.grad(want, x))


@by_name(LOSSES)
def test_gradients(loss):
    ŷ = torch.softmax(torch.randn(3, 4, dtype=torch.float64), 0).requires_grad_(True)
    y = torch.softmax(torch.randn(3, 4, dtype=torch.float64), 0).requires_grad_(True)
    assert torch.autograd.gradcheck(loss, (ŷ, y))
    assert torch.autograd.gradgradcheck(loss, (ŷ, y))


@by_name(WITH_EPS)
def test_gradients_at_zero(loss):
    """At ŷ = y = 0, where the formulas say 0 * log(0), values and gradients are finite without `eps` too."""
    ŷ, y = t([[0.0, 0.3], [1.0, 0.7]]), t([[0.0, 0.3], [1.0, 0.7]])
    ŷ.requires_grad_(True)
    for eps in (None, 0) if loss in (crossentropy, binarycrossentropy, kldivergence) else (None,):
        value = loss(ŷ, y, eps=eps)
        assert value.isfinite()
        assert torch.autograd.grad(value, ŷ)[0].isfinite().all()


def test_zero_times_log_zero():
    ŷ = t([0.0, 1.0]).requires_grad_(True)
    y = t([0.0, 1.0]).requires_grad_(True)
    assert crossentropy(ŷ, y, eps=0).item() == 0
    assert torch.autograd.grad(crossentropy(ŷ, y, eps=0), (ŷ, y))[0].tolist() == [0, -1]
    assert torch.autograd.grad(crossentropy(t([0.5, 0.5]), y, eps=0), y)[0].tolist() == pytest.approx(
        [math.log(2), math.log(2)]
    )
    assert torch.autograd.grad(poisson_loss(ŷ, y, agg=sum), ŷ)[0].tolist() == [1, 0]
    assert kldivergence(ŷ, y, eps=0).item() == 0
    assert torch.autograd.grad(kldivergence(ŷ, y), ŷ)[0].isfinite().all()
    assert crossentropy(t([0.0, 1.0]), [1, 0], eps=0).item() == math.inf
    assert crossentropy(t([math.nan, 1.0]), [0, 1], eps=0).isnan()
    half = torch.tensor([0.0, 1.0], dtype=torch.float16)
    assert crossentropy(half, half, eps=1e-12).item() == 0


def test_infinities_beside_a_zero():
    """Julia's `xlogy(0, Inf)` is 0, and its `false * -Inf`; its `0 * -Inf` is NaN."""
    check(poisson_loss(t([math.inf, 1.0]), t([0.0, 1.0]), agg=min), 1)
    check(crossentropy(t([math.inf, 1.0]), [0, 1]), 0)
    masked = t([[-math.inf, 0.0], [0.0, -math.inf], [0.0, 0.0]]).requires_grad_()
    for y in ([[False, True], [True, False], [False, False]], onehotbatch([1, 0], range(3)).to_dense()):
        for dims in (0, 1):
            loss = logitcrossentropy(masked.T if dims else masked, torch.as_tensor(y).T if dims else y, dims=dims)
            check(loss, math.log(2))
            assert torch.autograd.grad(loss, masked)[0].tolist() == [[0, -0.25], [-0.25, 0], [0.25, 0.25]]
    assert logitcrossentropy(masked, [[0, 1], [1, 0], [0, 0]]).isnan()


def test_focal_loss_of_a_sure_prediction():
    """`eps` pushes a probability of 1 over 1, where a fractional `gamma` would give NaN."""
    ŷ = t([[1.0], [0.0]]).requires_grad_(True)
    for gamma in (0, 1, 2, 2.0, 1.5):
        loss = focal_loss(ŷ, [[1], [0]], gamma=gamma)
        assert loss.item() == pytest.approx(0, abs=1e-12)
        assert torch.autograd.grad(loss, ŷ)[0].isfinite().all()
        assert binary_focal_loss(t([1.0]), [1], gamma=gamma).item() == pytest.approx(0, abs=1e-12)


# agg, dims, eps


@by_name(WITH_AGG)
def test_agg(loss):
    ŷ, y = torch.softmax(torch.randn(3, 5), 0), torch.softmax(torch.randn(3, 5), 0)
    elements = loss(ŷ, y, agg=lambda x: x)
    if loss is not kldivergence:
        assert elements.shape == ((1, 5) if loss in WITH_DIMS else (3, 5))
        torch.testing.assert_close(loss(ŷ, y, agg=min), elements.min())
        torch.testing.assert_close(loss(ŷ, y, agg=max), elements.max())
        assert loss(ŷ, y, agg=torch.numel) == elements.numel()
    for agg, want in (
        (torch.mean, elements.mean()),
        (sum, elements.sum()),
        (torch.sum, elements.sum()),
        (lambda x: torch.mean(2 * x), 2 * elements.mean()),
        (base.mean, elements.mean()),
        (base.sum, elements.sum()),
        (lambda x: base.sum(x, dims=1), elements.sum(1, keepdim=True)),
    ):
        torch.testing.assert_close(loss(ŷ, y, agg=agg), want)
    torch.testing.assert_close(loss(ŷ, y), elements.mean())
    with pytest.raises(TypeError):
        loss(ŷ, y, sum)


@by_name(WITH_DIMS)
def test_dims(loss):
    ŷ = torch.softmax(torch.randn(2, 3, 4, dtype=torch.float64), 1)
    y = torch.softmax(torch.randn(2, 3, 4, dtype=torch.float64), 1)
    want = loss(ŷ.movedim(1, 0), y.movedim(1, 0))
    torch.testing.assert_close(loss(ŷ, y, dims=1), want)
    for dims in (-2, (1,), torch.tensor(1)):
        torch.testing.assert_close(loss(ŷ, y, dims=dims), want)
    by_gradient = gradient(lambda d, ŷ: loss(ŷ, y, dims=d), 1, ŷ)  # where an int is a tensor
    torch.testing.assert_close(by_gradient, (None, gradient(lambda ŷ: loss(ŷ, y, dims=1), ŷ)[0]))
    assert not torch.isclose(loss(ŷ, y), want)
    both = loss(ŷ, y, dims=(0, 1), agg=lambda x: x)
    assert both.shape == (1, 1, 4)
    torch.testing.assert_close(both.flatten(), loss(ŷ.flatten(0, 1), y.flatten(0, 1), agg=lambda x: x).flatten())
    for dims in ([0, 1], range(2)):
        torch.testing.assert_close(loss(ŷ, y, dims=dims, agg=lambda x: x), both)
    whole = loss(ŷ, y, dims=None, agg=lambda x: x)
    torch.testing.assert_close(whole, loss(ŷ.flatten(), y.flatten()))
    for dims, error in ((3, IndexError), (1.5, TypeError)):
        with pytest.raises(error, match=r"no axis 3|out of range|whole number|as an integer"):
            loss(ŷ, y, dims=dims)


def test_eps_is_that_of_the_prediction():
    y = [1.0]
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        zero = torch.zeros(1, dtype=dtype)
        want = -math.log(torch.finfo(dtype).eps)
        assert crossentropy(zero, y).item() == pytest.approx(want, rel=1e-2)
    single = torch.zeros(1)
    assert crossentropy(single, t([1.0])).item() == pytest.approx(-math.log(2.0**-23))
    assert crossentropy(single, t([1.0])).dtype == torch.float64
    assert crossentropy(single, y, eps=0.01).item() == pytest.approx(-math.log(0.01))
    assert msle(single, t([1.0]), eps=1).item() == pytest.approx(math.log(2) ** 2)


def test_greek_keywords():
    x, y = torch.rand(3, 2), torch.rand(3, 2)
    assert torch.equal(huber_loss(x, y, δ=0.1), huber_loss(x, y, delta=0.1))
    assert torch.equal(tversky_loss(x, y, β=0.3), tversky_loss(x, y, beta=0.3))
    assert torch.equal(focal_loss(x, y, γ=3, ϵ=0.1), focal_loss(x, y, gamma=3, eps=0.1))
    assert torch.equal(binary_focal_loss(x, y, γ=3), binary_focal_loss(x, y, gamma=3))
    for loss in (crossentropy, binarycrossentropy, kldivergence, msle):
        assert torch.equal(loss(x, y, ϵ=0.1), loss(x, y, eps=0.1))
        assert torch.equal(loss(x, y, **{"ϵ": 0.1}), loss(x, y, eps=0.1))
    with pytest.raises(TypeError, match="unexpected keyword argument 'weight'"):
        mse(x, y, weight=2)


# Sizes and types


@by_name(LOSSES)
def test_sizes_that_differ(loss):
    for a, b in (((2,), (1, 2)), ((1, 2), (2,)), ((3,), (4,)), ((3, 2), (2, 3)), ((3, 2), (3, 1)), ((3,), (3, 3))):
        with pytest.raises(DimensionMismatch) as e:
            loss(torch.rand(a), torch.rand(b))
        assert str(e.value) == f"loss function expects size(ŷ) = {a} to match size(y) = {b}"
    with pytest.raises(DimensionMismatch, match=r"size\(ŷ\) = \(3,\) to match size\(y\) = \(2,\)"):
        loss([0.1, 0.2, 0.3], [1, 0])


@by_name(LOSSES)
def test_missing_axes_of_length_1_at_the_end(loss):
    ŷ, y = torch.rand(4), torch.rand(4)
    want = loss(ŷ, y)
    torch.testing.assert_close(loss(ŷ, y[:, None]), want)
    torch.testing.assert_close(loss(ŷ[:, None, None], y), want)


@by_name(LOSSES)
def test_numbers_and_lists(loss):
    ŷ = torch.rand(4, dtype=torch.float64)
    for one in (1, 1.0, True, torch.tensor(1)):
        torch.testing.assert_close(loss(ŷ, one), loss(ŷ, torch.ones(4)))
    assert loss(torch.rand(3), 0.5).dtype == torch.float32
    if loss not in WITH_DIMS:
        torch.testing.assert_close(loss(0.3, 1), loss(t([0.3]), t([1])))
    torch.testing.assert_close(loss([0.2, 0.8], [0, 1]), loss(torch.tensor([0.2, 0.8]), torch.tensor([False, True])))
    for bad in ("abc", None, [1.0, [2.0]]):
        with pytest.raises(TypeError, match="a loss function takes numbers and arrays of numbers"):
            loss(ŷ, bad)


@by_name(LOSSES)
def test_element_types(loss):
    for dtype in (torch.float16, torch.float32, torch.float64):
        ŷ, y = torch.rand(2, 3).to(dtype).requires_grad_(True), torch.rand(2, 3).to(dtype)
        value = loss(ŷ, y)
        assert value.dtype == dtype and value.shape == ()
        assert torch.autograd.grad(value, ŷ)[0].dtype == dtype
        for target in (torch.tensor([[0, 1, 1], [1, 0, 0]]), torch.tensor([[False, True, True], [True, False, False]])):
            assert loss(ŷ, target).dtype == dtype
            torch.testing.assert_close(loss(ŷ, target), loss(ŷ, target.to(dtype)))
    ŷ, y = torch.rand(2, 3), torch.rand(2, 3, dtype=torch.float64)
    assert loss(ŷ, y).dtype == torch.float64 and loss(y, ŷ).dtype == torch.float64
    assert loss(torch.tensor([1, 1]), torch.tensor([1, 0])).dtype == torch.float32


def test_mse_of_complex_numbers():
    x = torch.tensor([1 + 1j, 2.0], requires_grad=True)
    loss = mse(x, torch.zeros(2))
    assert loss.item() == pytest.approx(3) and not loss.is_complex()
    assert torch.autograd.grad(loss, x)[0].tolist() == pytest.approx([1 + 1j, 2])


def test_huber_turns_at_delta():
    got = huber_loss(t([0.5, 1.0, 3.0, -3.0]), 0, agg=lambda x: x)
    assert got.tolist() == [0.125, 0.5, 2.5, 2.5]
    assert huber_loss(t([3.0]), 0, delta=2).item() == 4
    assert huber_loss(t([3.0]), 0, delta=0).item() == 0
    x, delta = t([0.5, 1.25, 3.0, -3.0]).requires_grad_(), t(1.25).requires_grad_()
    torch.testing.assert_close(huber_loss(x, 0, delta=delta), huber_loss(x, 0, delta=1.25))
    assert torch.autograd.gradcheck(lambda x, delta: huber_loss(x, 0.1, delta=delta), (x, delta))


def test_hinge_losses_of_single_numbers():
    for loss in (hinge_loss, squared_hinge_loss):
        assert loss(0.1, 1) != 0 and loss(1.5, 1) == 0 and loss(0.3, -1) != 0


def test_hinge_slope_at_the_hinge():
    # Zygote's `max(0, x)` gives the gradient of a tie to `x`.
    assert gradient(hinge_loss, [1.0], [1])[0].tolist() == [-1]
    assert gradient(squared_hinge_loss, [1.0], [1])[0].tolist() == [0]


def test_dice_smooth():
    assert dice_coeff_loss(t([1.0, 0.0]), [0, 1], smooth=0).item() == 1
    assert dice_coeff_loss(t([1.0, 0.0]), [0, 1]).item() == pytest.approx(2 / 3)


def test_negative_margin():
    for margin in (-0.5, -1):
        with pytest.raises(DomainError, match=f"Margin must be non-negative, but it is {margin}"):
            siamese_contrastive_loss(SHAT, S, margin=margin)
