from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch.base import reshape
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.attention import dot_product_attention, dot_product_attention_scores, make_causal_mask

F64 = torch.float64


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


@pytest.mark.parametrize("batch", [(), (1,), (2,), (2, 1, 3)])
@pytest.mark.parametrize("nheads", [1, 3, 5])
def test_batch_sizes(batch, nheads):
    q, k, v = torch.rand(15, 3, *batch), torch.rand(15, 4, *batch), torch.rand(15, 4, *batch)
    y, α = dot_product_attention(q, k, v, nheads=nheads)
    assert y.dtype == torch.float32
    assert y.shape == (15, 3, *batch)
    assert α.shape == (4, 3, nheads, *batch)
    close(α.sum(0), torch.ones(3, nheads, *batch))
    for i in range(math.prod(batch)):  # each item of the batch by itself
        at = torch.unravel_index(torch.tensor(i), batch) if batch else ()
        y1, α1 = dot_product_attention(*(x[(..., *at)] for x in (q, k, v)), nheads=nheads)
        close(y[(..., *at)], y1)
        close(α[(..., *at)], α1)


def test_scores_alone():
    q = reshape(torch.arange(1, 25, dtype=F64), 4, 2, 3, 1) / 24
    α = dot_product_attention_scores(q, q)
    q2 = reshape(q, 8, 3, 1)
    close(α, dot_product_attention(q2, q2, q2, nheads=2)[1])


def test_specific_results():
    q = reshape(torch.arange(1, 13, dtype=F64), 4, 3, 1) / 12
    y, α = dot_product_attention(q, q, q, nheads=2)
    ytrue = [0.429754, 0.513087, 0.613791, 0.697125, 0.46431, 0.547644, 0.647876, 0.73121]
    ytrue += [0.49773, 0.581064, 0.680455, 0.763788]
    αtrue = [0.313896, 0.332948, 0.353157, 0.264431, 0.328206, 0.407362, 0.219215, 0.31838, 0.462405]
    αtrue += [0.288691, 0.331243, 0.380066, 0.241239, 0.323893, 0.434868, 0.198438, 0.311761, 0.489801]
    close(y, reshape(torch.tensor(ytrue), 4, 3, 1), atol=1e-5, rtol=0)
    close(α, reshape(torch.tensor(αtrue), 3, 3, 2, 1), atol=1e-5, rtol=0)


def test_as_torch_does_it():
    q, k, v = torch.rand(2, 5, 12), torch.rand(2, 7, 12), torch.rand(2, 7, 6)
    mask = torch.rand(5, 7) > 0.3
    mask[:, 0] = True
    heads = [x.unflatten(-1, (3, -1)).transpose(1, 2) for x in (q, k, v)]
    y, _ = dot_product_attention(*(x.permute(2, 1, 0) for x in (q, k, v)), mask=mask.T, nheads=3)
    expected = F.scaled_dot_product_attention(*heads, attn_mask=mask).transpose(1, 2).flatten(2)
    close(y.permute(2, 1, 0), expected)
    assert y.permute(2, 1, 0).is_contiguous()


def test_mask():
    q, k = torch.rand(4, 2, 3, 1), torch.rand(4, 2, 5, 1)
    mask = torch.rand(5, 3) > 0.5
    mask[0] = True
    α = dot_product_attention_scores(q, k, mask=mask)
    for head in range(2):
        assert torch.equal(α[:, :, head, 0] > 0, mask)
    one_per_head = torch.rand(5, 1, 2) > 0.5
    one_per_head[0] = True
    α = dot_product_attention_scores(q, k, mask=one_per_head)
    assert torch.equal(α[:, :, :, 0] > 0, one_per_head.expand(5, 3, 2))
    assert dot_product_attention_scores(q, k, mask=torch.zeros(5, 3, dtype=torch.bool)).isnan().all()


def test_causal_mask():
    x = torch.rand(4, 2, 3, 1)
    mask = make_causal_mask(x, dims=2)
    assert mask.tolist() == [[True, True, True], [False, True, True], [False, False, True]]
    α = dot_product_attention_scores(x, x, mask=mask)
    for head in range(2):
        assert torch.equal(α[:, :, head, 0] > 0, mask)
    assert torch.equal(make_causal_mask(torch.ones(7, 3)), mask)
    assert torch.equal(make_causal_mask(torch.ones(3, 7), 0), mask)
    # What comes later changes nothing before.
    later = x.clone()
    later[:, :, 2] += 1
    y, z = (dot_product_attention_scores(x, x, mask=mask) for x in (x, later))
    assert torch.equal(y[:, :2], z[:, :2])


def test_bias():
    q, k, bias = torch.rand(4, 5, 1), torch.rand(4, 3, 1), torch.randn(3, 5)
    y, α = dot_product_attention(q, k, k, bias, nheads=2)
    assert α.shape == (3, 5, 2, 1)
    assert y.shape == (4, 5, 1)
    halves = [slice(0, 2), slice(2, 4)]
    for head, half in enumerate(halves):
        logits = k[half, :, 0].T @ q[half, :, 0] / math.sqrt(2) + bias
        close(α[:, :, head, 0], logits.softmax(0))
        close(y[half, :, 0], k[half, :, 0] @ logits.softmax(0))
    # It lines up from the first axis, in a square too.
    keys = torch.tensor([0.0, 100.0, 0.0, 0.0, 0.0])
    _, α = dot_product_attention(q, q, q, keys)
    close(α[1], torch.ones(5, 1, 1))


def test_a_batch_with_two_axes_is_one_to_the_bias():
    q, bias = torch.rand(4, 3, 2, 5), torch.randn(3, 3, 1, 10)
    _, α = dot_product_attention(q, q, q, bias)
    one = reshape(q, 4, 3, 10)
    close(reshape(α, 3, 3, 1, 10), dot_product_attention(one, one, one, bias)[1])


def test_dropout():
    q = torch.rand(10, 10, 10)
    seen = []

    def fdrop(α):
        seen.append(α.shape)
        return α * (torch.rand_like(α) > 0.5) * 2

    y, α = dot_product_attention(q, q, q, nheads=2, fdrop=fdrop)
    assert seen == [(10, 10, 2, 10)]
    assert 0.4 < (α > 0).float().mean() < 0.6
    close(y[:5, :, 3], q[:5, :, 3] @ α[:, :, 0, 3])


def test_infinite_logits_share_the_score():
    q, k = torch.tensor([[math.inf]]), torch.tensor([[1.0, 2.0, -1.0]])
    _, α = dot_product_attention(q, k, k)
    assert α.flatten().tolist() == [0.5, 0.5, 0]


def test_gradients():
    q = torch.rand(4, 3, 1, dtype=F64, requires_grad=True)
    k, v = (torch.rand(4, 2, 1, dtype=F64, requires_grad=True) for _ in range(2))
    bias = torch.randn(2, 3, dtype=F64, requires_grad=True)
    assert gradcheck(lambda *xs: dot_product_attention(*xs, nheads=2), (q, k, v, bias))
    mask = torch.tensor([[True, False, True], [True, True, True]])
    assert gradgradcheck(
        lambda *xs: dot_product_attention(*xs, nheads=2, mask=mask)[0], (q, k, v, bias), fast_mode=True
    )


def test_mixed_element_types():
    q, k, v = torch.rand(4, 3), torch.rand(4, 2, dtype=F64), torch.rand(4, 2)
    y, α = dot_product_attention(q, k, v)
    assert y.dtype == α.dtype == F64
    assert dot_product_attention([[1, 2]], [[1, 2]], [[1, 2]])[0].shape == (1, 2)


def test_what_does_not_fit():
    x = torch.ones
    for q, k, v, kws, why in [
        (x(4, 2), x(3, 2), x(3, 2), {}, "query and key must have as many features"),
        (x(4, 2), x(4, 3), x(4, 2), {}, "key and value must be of the same length"),
        (x(4, 2, 1), x(4, 2, 2), x(4, 2, 2), {}, "batch axes must be the same"),
        (x(4, 2, 1), x(4, 2), x(4, 2), {}, "as many axes"),
        (x(4), x(4), x(4), {}, "as many axes"),
        (x(4, 2), x(4, 2), x(6, 2), {"nheads": 4}, "divisible by nheads, 4"),
        (x(4, 2), x(4, 3), x(4, 3), {"mask": x(2, 3).bool()}, r"the mask, a 2×3 .* the scores, \(3, 2, 1, 1\)"),
    ]:
        with pytest.raises(DimensionMismatch, match=why):
            dot_product_attention(q, k, v, **kws)
    with pytest.raises(DimensionMismatch, match="the bias, a 2×3 tensor"):
        dot_product_attention(x(4, 2), x(4, 3), x(4, 3), x(2, 3))
    with pytest.raises(TypeError, match="the mask must be of Bool elements"):
        dot_product_attention(x(4, 2), x(4, 2), x(4, 2), mask=x(2, 2))
    with pytest.raises(DimensionMismatch, match="differ in length only"):
        dot_product_attention_scores(x(4, 2, 3, 1), x(4, 1, 3, 1))
    with pytest.raises(IndexError, match="axis 2"):
        make_causal_mask(x(4, 2), dims=2)
