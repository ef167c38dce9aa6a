from __future__ import annotations

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fluxtorch import base
from fluxtorch.base import maximum, mean, vec
from fluxtorch.devices import f64, gpu
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import children
from fluxtorch.initialisers import identity_init
from fluxtorch.layers import Chain, Dense
from fluxtorch.layers.embedding import Embedding, EmbeddingBag, _split_at
from fluxtorch.onehotarrays import OneHotMatrix, OneHotVector, onehot, onehotbatch
from fluxtorch.pairs import to
from fluxtorch.zygote import gradient
from fluxtorch.zygote.implicit import params

LETTERS = "abcdefghijklmnopqrstuvwxyz"
VOCAB, SIZE = 10, 4


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


# -- Embedding -------------------------------------------------------------------------------------------


def test_embedding_examples_of_the_manual():
    emb = Embedding(26 | to | 4, init=identity_init(gain=22))
    assert repr(emb) == "Embedding(26 => 4)  # 104 parameters" and str(emb) == "Embedding(26 => 4)"
    close(emb(1), [0.0, 22.0, 0.0, 0.0])
    y = emb([2, 0, 19, 13, 3, 14, 6])
    close(
        y,
        [
            [0.0, 22.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [22.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
            [0.0, 0.0, 0.0, 0.0, 22.0, 0.0, 0.0],
        ],
    )
    assert torch.equal(y, emb(onehotbatch("cat&dog", LETTERS, "n")))
    assert emb(torch.randint(0, 26, (10, 1, 12))).shape == (4, 10, 1, 12)


def test_embedding_of_flux_s_tests():
    m = Embedding(VOCAB, SIZE)
    W = m.weight.detach()
    assert W.shape == (SIZE, VOCAB) and W.dtype == torch.float32
    for i in (1, torch.tensor(1), OneHotVector(1, VOCAB), onehot(1, range(VOCAB)), torch.arange(VOCAB) == 1):
        assert torch.equal(m(i), W[:, 1])
    x = torch.randint(0, VOCAB, (3,))
    columns = torch.arange(VOCAB)[:, None] == x
    for i in (x, x.int(), x.tolist(), OneHotMatrix(x, VOCAB), columns, onehotbatch(x, range(VOCAB))):
        assert m(i).dtype == torch.float32
        close(m(i), W[:, x])
    close(m(range(2, 5)), W[:, 2:5])
    x = torch.randint(0, VOCAB, (3, 4))
    x3 = onehotbatch(x, range(VOCAB))
    assert x3.shape == (VOCAB, 3, 4)
    for i in (x, x.tolist(), x3, x3.to_dense()):
        close(m(i), W[:, x])
    for wrong in (OneHotVector(2, 1000), OneHotMatrix([1, 2], 1000), torch.ones(1000, dtype=torch.bool)):
        with pytest.raises(DimensionMismatch, match=r"layer Embedding\(10 => 4\) expects one-hot vectors of length 10"):
            m(wrong)
    # A Bool array that is not one-hot is multiplied, as in Flux.
    two = torch.zeros(VOCAB, dtype=torch.bool)
    two[[1, 3]] = True
    close(m(two), W[:, 1] + W[:, 3])
    # One-hot rows, a transposed array, are no one-hot columns.
    square = Embedding(3 | to | 2)
    close(
        square(OneHotMatrix([0, 0, 1], 3).T), square.weight.detach() @ OneHotMatrix([0, 0, 1], 3).T.to_dense().float()
    )


def test_embedding_is_torch_s():
    module = nn.Embedding(VOCAB, SIZE, dtype=torch.float64)
    m = Embedding(module.weight.detach().T)
    x = torch.randint(0, VOCAB, (5, 6))
    u = torch.randn(SIZE, 5, 6, dtype=torch.float64)
    # torch's features are last.
    close(m(x), module(x).detach().movedim(-1, 0))
    (module(x).movedim(-1, 0) * u).sum().backward()
    dW = gradient(lambda m: (m(x) * u).sum(), m)[0].weight
    close(dW, module.weight.grad.T)
    for i in (onehotbatch(x, range(VOCAB)), onehotbatch(x, range(VOCAB)).to_dense()):
        close(gradient(lambda m, i=i: (m(i) * u).sum(), m)[0].weight, dW)
    close(gradient(lambda: (m(x) * u).sum(), params(m))[m.weight], dW)
    m.weight.requires_grad_(False)
    W = torch.randn(SIZE, VOCAB, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda W: Embedding(2 * W)(x), W)
    assert torch.autograd.gradgradcheck(lambda W: Embedding(2 * W)(x) ** 2, W)


def test_embedding_as_a_layer():
    W = torch.randn(SIZE, VOCAB)
    m = Embedding(W)
    assert m.weight is W and list(children(m).keys()) == ["weight"] and list(m.state_dict()) == ["weight"]
    assert f64(m)([1, 2]).dtype == torch.float64
    close(pickle.loads(pickle.dumps(m))([1, 2]), m([1, 2]))
    # The vectors are each in one place in memory, column-major, and so is the gradient.
    m = Embedding(26 | to | 4)
    assert m.weight.t().is_contiguous() and m.weight.is_leaf
    tracked = Embedding(26 | to | 4, init=lambda *size: torch.ones(size, requires_grad=True))
    assert tracked.weight.is_leaf and tracked.weight.requires_grad
    assert vec(m.weight).data_ptr() == m.weight.data_ptr()
    assert gradient(lambda m: m([1, 2]).sum(), m)[0].weight.t().is_contiguous()
    m = Chain(Embedding(VOCAB | to | SIZE), Dense(SIZE | to | 2))
    assert m([[1, 2, 3], [4, 5, 6]]).shape == (2, 2, 3)
    # Rows that were not looked up have gradient 0.
    g = gradient(lambda m: m([1, 1, 3]).sum(), m)[0].layers[0].weight
    assert g.shape == (SIZE, VOCAB) and (g.abs().sum(0) != 0).tolist() == [i in (1, 3) for i in range(VOCAB)]
    close(g[:, 1], 2 * g[:, 3])


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (
            lambda: Embedding(5 | to | 3)(5),
            IndexError,
            r"layer Embedding\(5 => 3\) has indices from 0 to 4, and was given 5 to 5",
        ),
        (lambda: Embedding(5 | to | 3)(-1), IndexError, "was given -1 to -1"),
        (lambda: Embedding(5 | to | 3)([[0, 7], [1, -2]]), IndexError, "was given -2 to 7"),
        (
            lambda: Embedding(5 | to | 3)(1.0),
            TypeError,
            "expects whole numbers as indices, or one-hot vectors, but got 1.0",
        ),
        (lambda: Embedding(5 | to | 3)([1.0, 2.0]), TypeError, "but got 2-element tensor of float32"),
        (lambda: Embedding(5 | to | 3)("a"), TypeError, "but got 'a'"),
        (lambda: Embedding(5 | to | 3)(True), TypeError, "but got True"),
        (lambda: Embedding(5), TypeError, r"Embedding expects a pair of sizes"),
        (lambda: Embedding(5 | to | 3.0), TypeError, "whole numbers, and got 3.0"),
        (lambda: Embedding(5 | to | 3, torch.tanh), TypeError, "1 argument too many"),
        (lambda: Embedding(torch.ones(3)), DimensionMismatch, "Embedding expects a matrix of weights"),
    ],
)
def test_wrong_embeddings(make, error, match):
    with pytest.raises(error, match=match):
        make()


# -- EmbeddingBag ----------------------------------------------------------------------------------------


def test_bag_examples_of_the_manual():
    eb = EmbeddingBag(26 | to | 3, init=identity_init(gain=100))
    assert repr(eb) == "EmbeddingBag(26 => 3)  # 78 parameters" and str(eb) == "EmbeddingBag(26 => 3)"
    close(eb([1]), [0.0, 100.0, 0.0])
    close(eb([2, 2, 0]), [33.333332, 0.0, 66.666664])
    close(eb([[2, 0, 2], [1, 0]]), [[33.3333, 50.0], [0.0, 50.0], [66.6667, 0.0]], rtol=1e-5, atol=0)
    close(
        eb(torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3]])),
        [[100.0, 50.0, 50.0, 50.0], [0.0, 50.0, 0.0, 0.0], [0.0, 0.0, 50.0, 0.0]],
    )
    assert eb(torch.randint(0, 26, (10, 5, 5))).shape == (3, 5, 5)
    data = [10, 0, 11, 1, 12, 2, 13]
    close(eb(data, [0, 3]), [[33.3333, 0.0], [0.0, 25.0], [0.0, 25.0]], rtol=1e-5, atol=0)
    close(eb(torch.tensor(data), torch.tensor([0, 3])), eb(data, [0, 3]))
    close(eb(onehotbatch("bba", LETTERS)), [33.333332, 66.666664, 0.0])
    two = [onehotbatch("bba", LETTERS), onehotbatch("cc", LETTERS)]
    close(eb(two), [[33.3333, 0.0], [66.6667, 0.0], [0.0, 100.0]], rtol=1e-5, atol=0)
    close(eb(tuple(x.to_dense() for x in two)), eb(two))


@pytest.mark.parametrize("reduction", [base.sum, mean, maximum], ids=["sum", "mean", "maximum"])
def test_bags_of_flux_s_tests(reduction):
    eb = EmbeddingBag(VOCAB | to | SIZE, reduction)
    emb = Embedding(eb.weight)
    assert eb.weight.shape == (SIZE, VOCAB) and eb.weight is emb.weight
    x = torch.randint(0, VOCAB, (3,))
    assert eb(x).dtype == torch.float32 and eb(x).shape == (SIZE,)
    close(eb(x), reduction(emb(x), dims=1)[:, 0])
    close(eb([0, 2, 1, 3, 4, 6], [0, 2, 4]), eb([[0, 2], [1, 3], [4, 6]]))
    close(eb([0, 2, 1, 3, 4, 6], [0, 2, 4]), eb(torch.tensor([[0, 1, 4], [2, 3, 6]])))
    close(eb([0, 2, 1, 3, 4, 6], [0]), eb([[0, 2, 1, 3, 4, 6]]))
    close(eb(list(range(9)), list(range(9))), emb(range(9)))
    close(eb(list(range(9)), [0, 8]), eb([[*range(8)], [8]]))
    close(eb(list(range(10)), [0, 4, 5, 7]), eb([[0, 1, 2, 3], [4], [5, 6], [7, 8, 9]]))
    close(eb(list(range(10)), [0, 4, 5, 7]), eb([range(4), range(4, 5), range(5, 7), range(7, 10)]))
    bags = [torch.randint(0, VOCAB, (3,)) for _ in range(4)]
    close(eb(bags), torch.cat([reduction(emb(x), dims=1) for x in bags], 1))
    x = torch.randint(0, VOCAB, (3, 5))
    close(eb(x), eb(list(x.T)))
    i2 = torch.randint(0, VOCAB, (3,))
    close(eb(OneHotMatrix(i2, VOCAB)), eb(i2))
    x3 = torch.randint(0, VOCAB, (3, 5, 2))
    close(eb(onehotbatch(x3, range(VOCAB))), eb(x3))
    nested = [[x3[:, i, j].tolist() for j in range(2)] for i in range(5)]
    close(eb(nested), eb(x3))
    nested[0][0] = nested[0][0] * 2  # bags of different lengths
    assert eb(nested).shape == (SIZE, 5, 2)
    close(eb(nested)[:, 4, 1], eb(nested[4][1]))
    close(eb(nested)[:, 0, 1], eb(nested[0][1]))


@pytest.mark.parametrize(
    ("at", "want"),
    [
        ([0, 2, 5], [[1, 2], [3, 4, 5], [6, 7, 8, 9]]),
        ([*range(9)], [[1], [2], [3], [4], [5], [6], [7], [8], [9]]),
        ([0], [[1, 2, 3, 4, 5, 6, 7, 8, 9]]),
        ([0, 8], [[1, 2, 3, 4, 5, 6, 7, 8], [9]]),
    ],
)
def test_splits_of_flux_s_tests(at, want):
    assert [part.tolist() for part in _split_at(torch.arange(1, 10), at)] == want


def test_python_s_own_reductions():
    W = torch.randn(SIZE, VOCAB)
    for own, ours in ((sum, base.sum), (max, base.maximum), (min, base.minimum)):
        assert EmbeddingBag(W, own).reduction is ours
        close(EmbeddingBag(W, own)([[1, 2], [3]])[:, 0], ours(W[:, [1, 2]], dims=1)[:, 0])


def test_empty_bags():
    W = torch.randn(SIZE, VOCAB)
    assert EmbeddingBag(W)([[1, 2], []])[:, 1].isnan().all()
    assert EmbeddingBag(W, sum)([[1, 2], []])[:, 1].tolist() == [0] * SIZE


@pytest.mark.parametrize(("reduction", "mode"), [(base.sum, "sum"), (mean, "mean"), (maximum, "max")], ids=str)
def test_bags_are_torch_s(reduction, mode):
    eb = EmbeddingBag(torch.randn(SIZE, VOCAB, dtype=torch.float64), reduction)
    data, at = torch.randint(0, VOCAB, (12,)), torch.tensor([0, 3, 4, 9])
    W = eb.weight.detach().t().contiguous().requires_grad_()
    u = torch.randn(4, SIZE, dtype=torch.float64)
    y = F.embedding_bag(data, W, at, mode=mode)
    close(eb(data, at), y.detach().t())
    want = torch.autograd.grad((y * u).sum(), W)[0].t()
    close(gradient(lambda eb: (eb(data, at) * u.t()).sum(), eb)[0].weight, want)


def test_bags_as_a_layer():
    eb = EmbeddingBag(VOCAB | to | SIZE)
    assert eb.reduction is mean and list(children(eb).keys()) == ["weight", "reduction"]
    assert len(params(eb)) == 1 and list(eb.state_dict()) == ["weight"]
    W = torch.randn(SIZE, VOCAB)
    assert EmbeddingBag(W).weight is W and EmbeddingBag(W, maximum).reduction is maximum
    close(EmbeddingBag(W, lambda x, dims: x.prod(dims, keepdim=True))([1, 2]), W[:, 1] * W[:, 2])
    close(pickle.loads(pickle.dumps(eb))([1, 2]), eb([1, 2]))
    assert (
        repr(Chain(eb, Dense(SIZE | to | 2))).splitlines()[1]
        == "  EmbeddingBag(10 => 4),                # 40 parameters"
    )


@pytest.mark.parametrize(
    ("args", "error", "match"),
    [
        ((2,), TypeError, "EmbeddingBag expects an array of indices, not just one"),
        ((torch.tensor(2),), TypeError, "EmbeddingBag expects an array of indices, not just one"),
        ((OneHotVector(2, VOCAB),), TypeError, "not defined for a one-hot vector"),
        ((torch.arange(VOCAB) == 2,), TypeError, "not defined for a one-hot vector"),
        ((OneHotMatrix([1, 2], 1000),), DimensionMismatch, "expects one-hot vectors of length 10"),
        (([torch.ones(2, 2).int()],), TypeError, "expects vectors of indices as bags, but got a 2×2 tensor"),
        (([True, False],), TypeError, "EmbeddingBag expects an array of indices, not just one"),
        (([OneHotVector(1, VOCAB)],), TypeError, "expects vectors of indices as bags"),
        (([[1, 2], [30]],), IndexError, "has indices from 0 to 9, and was given 30 to 30"),
        (([1.0, 2.0],), TypeError, "expects whole numbers as indices"),
        (([0, 1, 2, 3, 4, 5], [1, 3]), ValueError, "the first position in `at` must be 0"),
        (([[0, 1], [2]], [0]), TypeError, "can cut a vector of indices only"),
        (([0, 1, 2], 0), TypeError, "must be a vector of whole numbers, and are 0"),
        (([0, 1, 2], [0, 1.5]), TypeError, "must be a vector of whole numbers"),
        (([0, 1, 2, 3, 4, 5], []), ValueError, "the first position in `at` must be 0"),
        (([0, 1, 2, 3, 4, 5], [0, 11]), ValueError, "must be less than the length of the data, 6"),
        (([0, 1, 2, 3, 4, 5], [0, 1, 1, 4]), ValueError, "must grow, with no duplicates"),
        (([0, 1, 2, 3, 4, 5], [0, 4, 1]), ValueError, "must grow, with no duplicates"),
    ],
    ids=str,
)
def test_wrong_bags(args, error, match):
    with pytest.raises(error, match=match):
        EmbeddingBag(VOCAB | to | SIZE)(*args)


def test_wrong_reductions():
    with pytest.raises(TypeError, match='EmbeddingBag expects a function as its reduction, and got "mean"'):
        EmbeddingBag(3 | to | 2, "mean")
    with pytest.raises(TypeError, match="1 argument too many"):
        EmbeddingBag(3 | to | 2, mean, mean)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu():
    m, x = Embedding(VOCAB | to | SIZE), torch.randint(0, VOCAB, (3, 4))
    close(gpu(m)(gpu(x)).cpu(), m(x))
    close(gpu(m)(2).cpu(), m(2))
    close(gpu(m)(gpu(onehotbatch(x, range(VOCAB)))).cpu(), m(x))
    eb = EmbeddingBag(m.weight)
    close(gpu(eb)(gpu(x)).cpu(), eb(x))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_indices_that_are_no_arrays_on_a_gpu():
    m, bags = gpu(Embedding(3, 4)), gpu(EmbeddingBag(3, 4))
    for x in range(2), [0, 1], 1:
        assert m(x).is_cuda
    assert bags([0, 1]).is_cuda and bags([[0, 1], [2]]).is_cuda
