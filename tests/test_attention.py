from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

import fluxtorch as Flux
from fluxtorch.devices import f64, gpu
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import children
from fluxtorch.initialisers import ones32
from fluxtorch.layers import Chain, Dense, Dropout, testmode_, trainmode_
from fluxtorch.layers.attention import MultiHeadAttention
from fluxtorch.nnlib.attention import make_causal_mask
from fluxtorch.pairs import to
from fluxtorch.zygote import gradient, pullback, withgradient
from fluxtorch.zygote.implicit import params


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


def rev(x):
    return x.permute(*reversed(range(x.ndim)))


def sequences(*size, dtype=torch.float32):
    return rev(torch.randn(size[::-1], dtype=dtype))


DIM, NHEADS, LEN, BATCH = 4, 2, 3, 5


@pytest.fixture
def mha():
    return MultiHeadAttention(DIM, nheads=NHEADS)


@pytest.fixture
def qkv():
    return [sequences(DIM, LEN, BATCH) for _ in range(3)]


def test_sizes_of_flux_s_tests(mha, qkv):
    y, α = mha(*qkv)
    assert y.dtype == α.dtype == torch.float32
    assert y.shape == (DIM, LEN, BATCH) and α.shape == (LEN, LEN, NHEADS, BATCH)
    close(α.sum(0), torch.ones(LEN, NHEADS, BATCH))
    y2, _ = MultiHeadAttention(4 | to | 10 | to | 5, nheads=NHEADS)(*qkv)
    assert y2.shape == (5, LEN, BATCH)


def test_fewer_inputs(mha, qkv):
    q, k, _ = qkv
    for one, other in ((mha(q), mha(q, q, q)), (mha(q, k), mha(q, k, k))):
        close(one[0], other[0])
        close(one[1], other[1])


def test_causal_mask(mha, qkv):
    q, k, v = qkv
    mask = make_causal_mask(q)
    for _, α in (mha(q, mask=mask), mha(q, k, mask=mask), mha(q, k, v, mask=mask)):
        assert (α[1, 0] == 0).all()
        close(α[:, :, 0, 0], α[:, :, 0, 0].triu())
        close(α.sum(0), torch.ones(LEN, NHEADS, BATCH))
    # The first output sees the first input only, and so on.
    longer = torch.cat([q, torch.randn(DIM, 2, BATCH)], 1)
    close(mha(longer, mask=make_causal_mask(longer))[0][:, :LEN], mha(q, mask=mask)[0])


def test_bias_that_is_a_causal_mask(mha, qkv):
    b = torch.zeros(LEN, LEN)
    b[torch.ones(LEN, LEN).triu().bool()] = torch.finfo(torch.float32).max
    _, α = mha(*qkv, b)
    assert (α[1, 0] == 0).all()
    close(α[:, :, 0, 0], α[:, :, 0, 0].triu())


def test_dims_in_every_form():
    for dims, printed, shapes in (
        ((3, 4, 5) | to | (6, 7) | to | 8, "(3, 4, 5) => (6, 7) => 8", [(6, 3), (6, 4), (7, 5), (8, 7)]),
        (3 | to | (6, 7) | to | 8, "3 => (6, 7) => 8", [(6, 3), (6, 3), (7, 3), (8, 7)]),
        (3 | to | 6 | to | 8, "3 => 6 => 8", [(6, 3), (6, 3), (6, 3), (8, 6)]),
        ((3, 4, 5) | to | 6 | to | 8, "(3, 4, 5) => (6, 6) => 8", [(6, 3), (6, 4), (6, 5), (8, 6)]),
        ((3, (6, 8)), "3 => 6 => 8", [(6, 3), (6, 3), (6, 3), (8, 6)]),
        (8, "8", [(8, 8)] * 4),
    ):
        m = MultiHeadAttention(dims, nheads=1)
        count = sum(a * b for a, b in shapes)
        assert str(m) == f"MultiHeadAttention({printed}; nheads=1)"
        assert repr(m) == f"{m}  # {count} parameters"
        assert [f.weight.shape for f in (m.q_proj, m.k_proj, m.v_proj, m.out_proj)] == shapes
        assert m.q_proj.bias is False
        inputs = [torch.randn(n, 2, 3) for n in (m.q_proj.weight.shape[1], *(s[1] for s in shapes[1:3]))]
        assert m(*inputs)[0].shape == (shapes[3][0], 2, 3)
    m = MultiHeadAttention(8, bias=True, dropout_prob=0.1, init=ones32)
    assert str(m) == "MultiHeadAttention(8; nheads=8, bias=true, dropout_prob=0.1)"
    assert len(params(m)) == 8 and (m.out_proj.weight == 1).all() and m.attn_drop.p == 0.1
    assert list(children(m).keys()) == ["nheads", "q_proj", "k_proj", "v_proj", "attn_drop", "out_proj"]
    assert isinstance(m.q_proj, Dense) and isinstance(m.attn_drop, Dropout)
    assert "\n  MultiHeadAttention(8; nheads=8),      # 256 parameters\n" in repr(
        Chain(MultiHeadAttention(8), lambda y: y[0])
    )


def twins(kdim, vdim, bias):
    """The same weights in Flux's layer and in torch's, whose in_proj holds three matrices if all sizes agree."""
    E, H = 8, 4
    m = f64(MultiHeadAttention((E, kdim or E, vdim or E) | to | E | to | E, nheads=H, bias=bias))
    module = nn.MultiheadAttention(E, H, bias=bias, kdim=kdim, vdim=vdim, dtype=torch.float64)
    with torch.no_grad():
        if bias:
            for f in (m.q_proj, m.k_proj, m.v_proj, m.out_proj):
                f.bias.normal_()
            module.in_proj_bias.copy_(torch.cat([m.q_proj.bias, m.k_proj.bias, m.v_proj.bias]))
            module.out_proj.bias.copy_(m.out_proj.bias)
        module.out_proj.weight.copy_(m.out_proj.weight)
        if module.in_proj_weight is None:
            for name in ("q", "k", "v"):
                getattr(module, f"{name}_proj_weight").copy_(getattr(m, f"{name}_proj").weight)
        else:
            module.in_proj_weight.copy_(torch.cat([m.q_proj.weight, m.k_proj.weight, m.v_proj.weight]))
    return m, module


@pytest.mark.parametrize(("kdim", "vdim"), [(None, None), (5, 6)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("masked", [None, "mask", "padding", "bias"])
def test_it_is_torch_s(kdim, vdim, bias, masked):
    m, module = twins(kdim, vdim, bias)
    q, k, v = (sequences(n, length, 3, dtype=torch.float64) for n, length in ((8, 4), (kdim or 8, 5), (vdim or 8, 5)))
    ours, theirs = {}, {}
    if masked == "mask":  # torch's says where not to look
        seen = torch.rand(5, 4) < 0.7
        seen[0] = True
        ours, theirs = {"mask": seen}, {"attn_mask": ~seen.t()}
    elif masked == "padding":
        seen = torch.arange(5)[:, None] < torch.tensor([5, 3, 1])
        ours, theirs = {"mask": seen.reshape(5, 1, 1, 3)}, {"key_padding_mask": ~seen.t()}
    elif masked == "bias":
        b = torch.randn(5, 4, dtype=torch.float64)
        ours, theirs = {"bias": b}, {"attn_mask": b.t()}

    # torch's is (length, batch, features).
    def by_torch(*xs):
        y, α = module(*(x.permute(1, 2, 0) for x in xs), average_attn_weights=False, **theirs)
        return y.permute(2, 0, 1), rev(α)

    def loss(f, q, k, v):
        y, α = f(q, k, v)
        return (y**3).sum() + (α**2).sum()

    y, α = m(q, k, v, **ours)
    want, scores = by_torch(q, k, v)
    close(y, want)
    close(α, scores)
    dm, *dxs = gradient(lambda m, *xs: loss(lambda *xs: m(*xs, **ours), *xs), m, q, k, v)
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    loss(by_torch, *leaves).backward()
    for dx, leaf in zip(dxs, leaves, strict=True):
        close(dx, leaf.grad)
    close(dm.out_proj.weight, module.out_proj.weight.grad)
    if module.in_proj_weight is not None:
        close(torch.cat([dm.q_proj.weight, dm.k_proj.weight, dm.v_proj.weight]), module.in_proj_weight.grad)
    else:
        close(dm.k_proj.weight, module.k_proj_weight.grad)
        close(dm.v_proj.weight, module.v_proj_weight.grad)
    if bias:
        close(torch.cat([dm.q_proj.bias, dm.k_proj.bias, dm.v_proj.bias]), module.in_proj_bias.grad)
        close(dm.out_proj.bias, module.out_proj.bias.grad)
    else:
        assert dm.q_proj.bias is None


def test_derivatives(mha):
    x = sequences(DIM, LEN, 1, dtype=torch.float64).requires_grad_()
    m = f64(mha)
    assert torch.autograd.gradcheck(m, x) and torch.autograd.gradgradcheck(m, x)


def test_dropout_of_the_scores(qkv):
    m = MultiHeadAttention(DIM, nheads=NHEADS, dropout_prob=0.5)
    plain = MultiHeadAttention(DIM, nheads=NHEADS)
    plain.load_state_dict(m.state_dict())
    q = sequences(DIM, 20, BATCH)
    y, α = plain(q)
    for run in (lambda: m(q), lambda: pullback(testmode_(m), q)[0]):
        close(run()[0], y)
        close(run()[1], α)
    testmode_(m, "auto")
    for run in (lambda: pullback(m, q)[0], lambda: trainmode_(m)(q)):
        y2, α2 = run()
        close((α2 / α).unique(), [0.0, 2.0])
        assert not torch.allclose(y2, y)
    assert repr(m) == "MultiHeadAttention(4; nheads=2, dropout_prob=0.5)  # 64 parameters"


@pytest.mark.filterwarnings("ignore:Layer with Float32 parameters")
def test_as_a_layer(mha, qkv):
    y, α = mha(*qkv)
    y2, α2 = pickle.loads(pickle.dumps(mha))(*qkv)
    assert torch.equal(y, y2) and torch.equal(α, α2)
    assert list(mha.state_dict()) == [f"{f}.weight" for f in ("q_proj", "k_proj", "v_proj", "out_proj")]
    # No batch axis, or two of them.
    q = qkv[0]
    close(mha(q[:, :, 0])[0], mha(q)[0][:, :, 0])
    close(mha(q[..., None])[0], mha(q)[0][..., None])
    assert mha(q.double())[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: MultiHeadAttention(10), ValueError, "qk_dim = 10 should be divisible by nheads = 8"),
        (
            lambda: MultiHeadAttention(3 | to | (8, 9) | to | 1),
            ValueError,
            "v_dim = 9 should be divisible by nheads = 8",
        ),
        (lambda: MultiHeadAttention(8, nheads=0), ValueError, "divisible by nheads = 0"),
        (lambda: MultiHeadAttention(8, nheads=2.0), TypeError, "whole numbers, and got 2.0"),
        (lambda: MultiHeadAttention(8 | to | 8), TypeError, r"MultiHeadAttention expects sizes, as in 64 or"),
        (lambda: MultiHeadAttention((3, 4) | to | 8 | to | 8), TypeError, "MultiHeadAttention expects sizes"),
        (lambda: MultiHeadAttention(8 | to | 8.0 | to | 8), TypeError, "MultiHeadAttention expects sizes"),
        (lambda: MultiHeadAttention(8 | to | 8 | to | 8.0), TypeError, "whole numbers, and got 8.0"),
        (lambda: MultiHeadAttention(8, dropout_prob=2), ValueError, "expects 0 ≤ p ≤ 1"),
        (
            lambda: MultiHeadAttention(8)(torch.ones(4, 2, 2)),
            DimensionMismatch,
            r"layer Dense\(8 => 8; bias=false\) expects size\(input, 0\) == 8",
        ),
        (
            lambda: MultiHeadAttention(8)(torch.ones(8, 2, 2), torch.ones(8, 3, 2), torch.ones(8, 4, 2)),
            DimensionMismatch,
            "key and value must be of the same length",
        ),
        (lambda: MultiHeadAttention(8)(torch.ones(8, 2, 2), torch.ones(8, 3, 1)), DimensionMismatch, "batch axes"),
        (
            lambda: MultiHeadAttention(8)(torch.ones(8, 2, 2), mask=torch.ones(2, 2)),
            TypeError,
            "the mask must be of Bool elements",
        ),
        (
            lambda: MultiHeadAttention(8)(torch.ones(8, 2, 2), mask=torch.ones(2, 3).bool()),
            DimensionMismatch,
            "doesn't line up with the scores",
        ),
    ],
)
def test_wrong_use(make, error, match):
    with pytest.raises(error, match=match):
        make()


class TestScoresOnDemand:
    """While a gradient is taken, the scores are computed when somebody looks at them."""

    def test_the_same_pair(self, mha, qkv):
        y, α = mha(*qkv)
        pairs = []
        gradient(lambda m: (pairs.append(m(*qkv)), m(*qkv)[0].sum())[1], mha)
        pair = pairs[0]
        assert isinstance(pair, tuple) and len(pair) == 2
        close(pair[0], y)
        close(pair[1], α)
        close(pair[-2], y)
        close(pair[-1], α)
        first, second = pair
        assert first is pair[0] and second is pair[1]
        assert [v.shape for v in (*pair, *pair[0:2], *(pair.__add__((α,))))] == [y.shape, α.shape] * 2 + [
            y.shape,
            α.shape,
            α.shape,
        ]

    def test_gradients_of_both(self, mha, qkv):
        mha, qkv = f64(mha), [x.double() for x in qkv]

        def loss(m, q):
            y, α = m(q, *qkv[1:])
            return (y**3).sum() + (α**3).sum()

        gm, gq = gradient(loss, mha, qkv[0])
        q = qkv[0].clone().requires_grad_()
        ps = [*mha.parameters(), q]
        want = torch.autograd.grad(loss(mha, q), ps)  # outside of gradient they are made at once
        for got, w in zip([*Flux.trainables(gm), gq], want, strict=True):
            close(got, w)

    def test_value_of_a_loss(self, mha, qkv):
        val = withgradient(lambda m: ((pair := m(*qkv))[0].sum(), pair), mha).val
        close(val[1][1], mha(*qkv)[1].detach())
        assert val[1][1].grad_fn is None

    def test_hooks_on_projections_and_other_projections(self):
        m, x, seen = MultiHeadAttention(4, nheads=2), torch.randn(4, 3, 2), []
        y = m(x)[0]
        for f in (m.q_proj, m.out_proj):
            f.register_forward_hook(lambda f, given, out: seen.append((given[0].shape, out.shape)))
        assert torch.equal(m(x)[0], y) and seen == [((4, 3, 2), (4, 3, 2))] * 2
        m.v_proj = lambda x: 2 * x
        W = m.out_proj.weight
        torch.testing.assert_close(m(x[:, :1])[0], torch.einsum("ij,jkl->ikl", W, 2 * x[:, :1]))

    def test_one_hot_input(self):
        m, x = MultiHeadAttention(4, nheads=2), Flux.onehotbatch([[0, 1, 2], [3, 2, 1]], range(4))
        for a, b in zip(m(x), m(x.to_dense(torch.float32)), strict=True):
            torch.testing.assert_close(a, b)

    def test_hooks_and_dropout(self, mha, qkv):
        seen = []
        handle = mha.register_forward_hook(lambda m, i, out: seen.append(type(out)))
        gradient(lambda m: m(*qkv)[0].sum(), mha)
        handle.remove()
        assert seen == [tuple]
        mha.attn_drop.p = 1.0
        y = withgradient(lambda m: ((out := m(*qkv)[0]).sum(), out), mha).val[1]
        close(y, torch.zeros_like(y))

    def test_second_derivative(self, mha, qkv):
        mha, qkv = f64(mha), [x.double() for x in qkv]

        def slope(q):
            return (gradient(lambda q: (mha(q, *qkv[1:])[0] ** 3).sum(), q)[0] ** 2).sum()

        q, step = qkv[0], torch.zeros_like(qkv[0])
        step[0, 1, 0] = 1e-6
        want = (slope(q + step) - slope(q - step)) / 2e-6
        assert gradient(slope, q)[0][0, 1, 0].item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu(mha, qkv):
    y, α = gpu(mha)(*map(gpu, qkv))
    close(y.cpu(), mha(*qkv)[0], rtol=1e-3, atol=1e-3)
    close(α.cpu(), mha(*qkv)[1], rtol=1e-3, atol=1e-3)


def test_the_pair_where_a_loss_should_be(mha, qkv):
    with pytest.raises(TypeError, match=r"returned a tuple of 2, of which it may be the first, \[0\]$"):
        gradient(lambda m: m(*qkv), mha)


def test_the_pair_goes_on_through_a_chain(mha, qkv):
    def total(y, α):
        return (y**2).sum() + (α**3).sum()

    q = qkv[0]
    want = gradient(lambda m: total(*m(q)), mha)[0]
    for rest in (Flux.Parallel(total, Flux.identity, Flux.identity), lambda pair: total(*pair)):
        got = gradient(lambda m, rest=rest: Chain(m, rest)(q), mha)[0]
        for a, b in zip(Flux.trainables(got), Flux.trainables(want), strict=True):
            close(a, b)
    through = gradient(lambda m: total(*Flux.Torch(nn.Identity())(m(q))), mha)[0]
    close(through.v_proj.weight, want.v_proj.weight)
