from __future__ import annotations

import copy
import functools
import io
import math
import operator
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fluxtorch import base
from fluxtorch.base import cat, eachcol, hcat, vcat
from fluxtorch.devices import cpu, gpu
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import fleaves, fmap
from fluxtorch.layers import LSTM, Chain, Dense, RNNCell
from fluxtorch.losses import (
    crossentropy,
    focal_loss,
    kldivergence,
    label_smoothing,
    logitbinarycrossentropy,
    logitcrossentropy,
    mae,
    mse,
)
from fluxtorch.mlutils import batch, stack
from fluxtorch.namedtuples import nt
from fluxtorch.nnlib import logsoftmax, softmax
from fluxtorch.onehotarrays import OneHotArray, OneHotMatrix, OneHotVector, onecold, onehot, onehotbatch
from fluxtorch.pairs import to
from fluxtorch.printing import show
from fluxtorch.zygote import gradient, params


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def never_dense(monkeypatch):
    """Any step that would write the zeros out fails."""

    def refuse(*_, **__):
        raise AssertionError("made dense")

    monkeypatch.setattr(OneHotArray, "to_dense", refuse)


def bools(rows):
    return torch.tensor(rows, dtype=torch.bool)


def same(x, want):
    """`x` has the size and the numbers of `want`, and says so of itself in every way."""
    want = torch.as_tensor(want)
    assert x.shape == want.shape
    assert torch.equal(torch.tensor(x.tolist()).reshape(want.shape), want.to(torch.tensor(x.tolist()).dtype))


def is_onehot(x, kind=OneHotArray):
    return isinstance(x, kind)


ov = OneHotVector(6, 10)
ov2 = OneHotVector(6, 11)
om = OneHotMatrix([3, 9, 0, 3, 7], 10)
om2 = OneHotMatrix([3, 9, 0, 3, 7], 11)
oa = OneHotArray(
    torch.tensor([[0, 4, 9, 2, 2], [5, 5, 1, 0, 8], [3, 7, 6, 1, 9], [2, 0, 4, 4, 3], [1, 6, 8, 7, 5]]), 10
)


# ---------------------------------------------------------------- what one is


def test_it_stores_indices_and_the_number_of_labels():
    x = OneHotArray(torch.tensor([[1, 0], [2, 2]]), 3)
    assert x.indices.tolist() == [[1, 0], [2, 2]] and x.nlabels == 3
    assert x.shape == (3, 2, 2) and x.ndim == 3 and len(x) == 3 and x.numel() == 12
    assert x.dtype == torch.bool and x.device.type == "cpu" and not x.requires_grad
    assert base.size(x) == (3, 2, 2) and base.length(x) == 12
    want = [[[a == k for a in row] for row in [[1, 0], [2, 2]]] for k in range(3)]
    assert x.tolist() == want and x.to_dense().tolist() == want and np.asarray(x).tolist() == want
    assert type(x.to_dense()) is torch.Tensor


def test_kinds():
    assert (ov.shape, om.shape, oa.shape) == ((10,), (10, 5), (10, 5, 5))
    assert type(ov) is OneHotVector and type(om) is OneHotMatrix and type(oa) is OneHotArray
    assert type(OneHotArray(1, 3)) is OneHotVector and type(OneHotArray([1], 3)) is OneHotMatrix
    assert type(OneHotMatrix([[0, 1, 2], [1, 1, 0]], 3)) is OneHotArray  # as in Julia
    assert isinstance(om, torch.Tensor) and isinstance(om, OneHotArray)
    assert OneHotArray(np.array([1, 2], dtype=np.uint8), 3).indices.dtype == torch.int64
    assert torch.equal(OneHotMatrix(range(3), 3), torch.eye(3).bool())


def test_bad_indices():
    for indices in ([1, 3], [-1, 0], 3):
        with pytest.raises(IndexError, match="is not among 3 labels"):
            OneHotArray(indices, 3)
    for indices in ([1.0], True, "a", None):
        with pytest.raises(TypeError, match="whole numbers"):
            OneHotArray(indices, 3)
    with pytest.raises(TypeError):
        OneHotArray([1], 2.5)


def test_empty():
    x = onehotbatch([], "ab")
    assert x.shape == (2, 0) and is_onehot(x, OneHotMatrix) and x.to_dense().shape == (2, 0)
    assert onecold(x).shape == (0,) and (torch.ones(3, 2) @ x).shape == (3, 0)
    assert repr(x) == "2×0 OneHotMatrix(::Vector{UInt32}) with eltype Bool"


# ---------------------------------------------------------------- onehot, onehotbatch


def test_onehot_of_any_labels():
    for labels in (range(10, 31, 10), (10, 20, 30), [10, 20, 30], torch.tensor([10, 20, 30]), np.array([10, 20, 30])):
        same(onehot(20, labels), [False, True, False])
        same(onehot(40, labels, 20), [False, True, False])
        same(onehotbatch([20, 10], labels), bools([[0, 1], [1, 0], [0, 0]]))
        same(onehotbatch([40, 10], labels, 20), bools([[0, 1], [1, 0], [0, 0]]))
        same(onehotbatch(torch.tensor([40, 10]), labels, 20), bools([[0, 1], [1, 0], [0, 0]]))
    same(onehotbatch([10, 20], [30, 40, 50], 30), bools([[1, 1], [0, 0], [0, 0]]))
    same(onehot("b", "abc"), [False, True, False])
    same(onehot(None, [None, 1], 1), [True, False])
    same(onehot(torch.tensor(2), range(3)), [False, False, True])
    same(onehot("x", {"y": 1, "x": 2}), [False, True])


def test_onehotbatch_of_text():
    same(onehotbatch("abc", "abc"), torch.eye(3).bool())
    same(onehotbatch("zbc", ("a", "b", "c"), "a"), torch.eye(3).bool())
    same(onehotbatch(["b", "a", "c"], ["a", "b", "c"]), bools([[0, 1, 0], [1, 0, 0], [0, 0, 1]]))
    same(onehotbatch(np.array(["dog", "cat"]), ["cat", "dog"]), bools([[0, 1], [1, 0]]))
    same(onehotbatch((c for c in "ba"), "ab"), bools([[0, 1], [1, 0]]))


def test_onehotbatch_of_the_readme():
    m = onehotbatch([10, 20, 30, 10, 10], range(10, 41, 10))
    assert m.indices.tolist() == [0, 1, 2, 0, 0] and m.nlabels == 4
    assert (torch.rand(100, 4) @ m).shape == (100, 5)


def test_onehotbatch_of_numbers_in_a_range():
    for xs, labels in (([1, 3, 0, 4], range(0, 5)), ([[2, 3, 7, 4]], range(2, 8)), ([5, 1, 3], range(5, 0, -2))):
        slow = onehotbatch(xs, list(labels))
        for given in (
            xs,
            torch.tensor(xs),
            np.array(xs),
            torch.tensor(xs).float(),
            torch.tensor(xs, dtype=torch.uint8),
        ):
            x = onehotbatch(given, labels)
            assert torch.equal(x, slow) and x.indices.dtype == torch.int64
    assert onehotbatch(range(1, 4), range(1, 4)).indices.tolist() == [0, 1, 2]
    assert onehotbatch(torch.ones(3), range(1, 11)).indices.tolist() == [0, 0, 0]
    assert onehotbatch([True, False], range(2)).indices.tolist() == [1, 0]
    assert onehotbatch([7, 1, math.nan, 2.5], range(3), 2).indices.tolist() == [2, 1, 2, 2]


def test_onehotbatch_of_more_axes():
    x = onehotbatch([["a", "b"], ["c", "c"], ["b", "a"]], "abc")  # a Matrix{Char}
    assert x.shape == (3, 3, 2) and x.indices.tolist() == [[0, 1], [2, 2], [1, 0]]
    index = torch.randint(5, (4, 6))
    x = onehotbatch(index, range(5))
    assert x.shape == (5, 4, 6)
    for i in range(4):
        for j in range(6):
            assert torch.equal(x[:, i, j], onehot(index[i, j], range(5)))
    with pytest.raises(DimensionMismatch, match="lists of one length"):
        onehotbatch([["a", "b"], ["c"]], "abc")
    with pytest.raises(DimensionMismatch, match="lists of one length"):
        onehotbatch([["a", "b"], "c"], "abc")


def test_onehotbatch_of_bools_and_numbers():
    same(onehotbatch([True, False, True], [True, False]), bools([[1, 0, 1], [0, 1, 0]]))
    same(onehotbatch(torch.tensor([True, False]), (False, True)), bools([[0, 1], [1, 0]]))
    one = onehotbatch(1, range(1, 4))
    assert is_onehot(one, OneHotVector)
    same(hcat(one, one), bools([[1, 1], [0, 0], [0, 0]]))


def test_values_that_are_no_labels():
    with pytest.raises(ValueError, match="Value d is not in labels"):
        onehot("d", "abc")
    with pytest.raises(ValueError, match="Value e is not in labels"):
        onehot("d", ("a", "b", "c"), "e")
    with pytest.raises(ValueError, match="Value d not found in labels"):
        onehotbatch(["a", "d"], ["a", "b", "c"])
    with pytest.raises(ValueError, match="Default value e is not in labels"):
        onehotbatch(["a", "b"], ["a", "b", "c"], "e")
    for xs, bad in (([2, -1], "-1"), ([2, 5], "5"), ([2.0, 2.5], "2.5"), ([0.0, math.nan], "nan"), (["a"], "a")):
        with pytest.raises(ValueError, match=f"Value {bad} not found in labels"):
            onehotbatch(xs, range(0, 5))
    with pytest.raises(ValueError, match="Value 4 not found"):
        onehotbatch([0, 3, 4], range(0, 9, 3))


def test_labels_that_stand_there_twice():
    """The first one counts, as when a text's own letters have the stop sign among them."""
    assert onehot("a", ["b", "a", "a"]).indices.item() == 1 and onehot("a", "aba").shape == (3,)
    assert onehotbatch([1, True, 1.0], [0, 1, 1, 2]).indices.tolist() == [1, 1, 1]


def test_labels_that_are_none():
    with pytest.raises(TypeError, match="range\\(10\\)"):
        onehotbatch([1, 2], 10)
    with pytest.raises(TypeError, match="sorted\\(labels\\)"):
        onehot("a", {"a", "b"})


def test_labels_that_are_floats():
    floats = (0.0, -0.0, math.nan, -math.nan, math.inf, -math.inf)
    assert onecold(onehot(0.0, floats)) == 0
    assert onecold(onehot(-0.0, floats)) == 1
    assert onecold(onehot(math.nan, floats)) == 2
    assert onecold(onehot(math.inf, floats)) == 4
    assert onecold(onehot(2, [1.0, 2.0])) == 1  # isequal(2, 2.0)


# ---------------------------------------------------------------- onecold


def test_onecold():
    a = [1, 2, 5, 3.0]
    A = [[1, 20, 5], [2, 7, 6], [3, 9, 10], [2, 1, 14]]
    labels = ["A", "B", "C", "D"]
    assert onecold(a) == 2 and type(onecold(a)) is int
    assert onecold(A).tolist() == [2, 0, 3]
    for names in (labels, tuple(labels), "ABCD", np.array(labels)):
        assert onecold(a, names) == "C"
        assert onecold(A, names) == ["C", "A", "D"]
    assert onecold([False, True, False]) == 1
    assert onecold([0.3, 0.2, 0.5], ("a", "b", "c")) == "c"


def test_onecold_of_the_manual():
    rows = [
        [1, 0, 0, 1, 0, 1, 0, 1, 0, 0, 1],
        [0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0],
    ]
    oh = onehotbatch("abracadabra", "abcde", "e")
    same(oh, bools(rows))
    assert "".join(onecold(rows, "abcde")) == "".join(onecold(oh, "abcde")) == "abeacadabea"
    want = [
        [1, 4, 13, 1, 7, 1, 10, 1, 4, 13, 1],
        [2, 5, 14, 2, 8, 2, 11, 2, 5, 14, 2],
        [3, 6, 15, 3, 9, 3, 12, 3, 6, 15, 3],
    ]
    assert (base.reshape(range(1, 16), 3, 5) @ oh).tolist() == want


@pytest.mark.parametrize("data, labels", [(list("bac"), list("abc")), ([20, 10], (10, 20)), ([0.5, 0.25], [0.25, 0.5])])
def test_there_and_back(data, labels):
    back = onecold(onehotbatch(data, labels), labels)
    assert (back.tolist() if isinstance(back, torch.Tensor) else back) == data
    assert onecold(onehot(data[0], labels), labels) == data[0]


def test_onecold_labels_that_are_numbers_give_a_tensor():
    y = torch.tensor([[0.1, 0.7], [0.9, 0.3]])
    for labels in ([10, 20], (10, 20), range(10, 30, 10), torch.tensor([10, 20]), np.array([10, 20])):
        assert torch.equal(onecold(y, labels), torch.tensor([20, 10]))
        assert onecold(y[:, 0], labels) == 20 and not isinstance(onecold(y[:, 0], labels), torch.Tensor)
    assert torch.equal(onecold(y, [False, True]), torch.tensor([True, False]))
    assert torch.equal(onecold(y, range(5, 3, -1)), torch.tensor([4, 5]))


def test_onecold_of_more_axes():
    y = torch.rand(3, 2, 4)
    assert torch.equal(onecold(y), y.argmax(0))
    names = onecold(y, "abc")
    assert [["abc"[k] for k in row] for row in y.argmax(0).tolist()] == names
    x = onehotbatch(y.argmax(0), range(3))
    assert torch.equal(onecold(x), y.argmax(0)) and onecold(x, "abc") == names


def test_onecold_is_a_copy():
    x = onehotbatch([1, 2], range(3))
    onecold(x)[0] = 0
    assert x.indices.tolist() == [1, 2]


def test_onecold_of_the_wrong_things():
    for y in ([0.3, 0.2], [0.3, 0.2, 0.5, 0.99]):
        with pytest.raises(
            DimensionMismatch, match=f"onecold got 3 labels for a vector of length {len(y)}, these must agree"
        ):
            onecold(y, ("a", "b", "c"))
    with pytest.raises(DimensionMismatch, match=r"onecold got 3 labels for an array with size\(y, 0\) == 2"):
        onecold(torch.ones(2, 3), "abc")
    with pytest.raises(ValueError, match="NaN"):
        onecold([0.3, math.nan, 0.5], ("a", "b", "c"))
    for y in ("abc", 3, torch.tensor(3)):
        with pytest.raises(TypeError, match="onecold takes"):
            onecold(y)


def test_onecold_goes_by_the_first_of_equals():
    assert onecold([[1.0, 2.0], [1.0, 2.0]]).tolist() == [0, 0]
    assert onecold(bools([[0, 1], [1, 1]])).tolist() == [1, 0]


# ---------------------------------------------------------------- indexing and moving about


def dense_of(x):
    return x.to_dense() if isinstance(x, OneHotArray) else x


KEEP = [
    lambda x: x[:],
    lambda x: x[...],
    lambda x: x[:, 3],
    lambda x: x[:, -1],
    lambda x: x[:, 1:3],
    lambda x: x[:, 0:5:2],
    lambda x: x[:, 2:2],
    lambda x: x[..., 2:],
    lambda x: x[:, [0, 3]],
    lambda x: x[:, torch.tensor([[0, 3], [4, 4]])],
    lambda x: x[:, [True, False, True, False, False]],
    lambda x: x[:, bools([1, 0, 0, 0, 1])],
    lambda x: x[:, None],
    lambda x: x[None],
    lambda x: x[..., None],
    lambda x: x.index_select(1, torch.tensor([4, 4])),
    lambda x: x.narrow(1, 1, 2),
    lambda x: x.unsqueeze(0).squeeze(),
    lambda x: x.clone(),
    lambda x: x.contiguous(),
    lambda x: x.detach(),
    lambda x: x.to(torch.float32),
    lambda x: x.double(),
    lambda x: x.float().bool(),
    lambda x: x.t() if x.ndim == 2 else x.permute(2, 1, 0),
    lambda x: x.transpose(0, 1),
    lambda x: x.transpose(0, 1)[2],
    lambda x: x.transpose(0, 1)[[2, 0]],
    lambda x: x.transpose(0, 1)[1:3].transpose(0, 1),
    lambda x: x.movedim(0, -1),
    lambda x: x.movedim(0, -1).reshape(-1, 10),
    lambda x: x.movedim(0, -1).flatten(0, -2).t(),
    lambda x: x.reshape(10, -1),
    lambda x: x.unsqueeze(1).expand(10, 3, *x.shape[1:]),
    lambda x: base.reshape(x, 10, -1),
    lambda x: base.permutedims(x) if x.ndim == 2 else base.permutedims(x, (1, 0, 2)),
    lambda x: torch.cat([x, x], 1),
    lambda x: torch.stack([x, x], 0),
    lambda x: torch.stack([x, x], -1),
    lambda x: hcat(x, x),
    lambda x: cat(x, x, dims=2),
    lambda x: cat(x, x, dims=x.ndim),
    lambda x: x.repeat_interleave(2, 1),
    lambda x: copy.copy(x),
    lambda x: copy.deepcopy(x),
    lambda x: pickle.loads(pickle.dumps(x)),
]
LOSE = [
    lambda x: x[3],
    lambda x: x[-1],
    lambda x: x[2:5],
    lambda x: x[::2],
    lambda x: x[[1, 2]],
    lambda x: x[3, 1],
    lambda x: x[3, 1:4],
    lambda x: x[:, 1][2:],
    lambda x: x[[1, 2], [0, 4]],
    lambda x: x[x],
    lambda x: x.reshape(-1),
    lambda x: x.reshape(5, -1),
    lambda x: x.movedim(0, -1).reshape(10, -1),
    lambda x: base.vec(x),
    lambda x: base.reshape(x, 5, -1),
    lambda x: base.reshape(x, 50, -1),
    lambda x: vcat(x, x),
    lambda x: torch.cat([x, x.to_dense()], 1),
    lambda x: x.flip(0),
    lambda x: x.roll(1, 1),
    lambda x: x.diagonal(),
    lambda x: x.unfold(1, 2, 2),
    lambda x: x.repeat(2, *[1] * (x.ndim - 1)),
    lambda x: x.view(torch.uint8),
    lambda x: ~x,
    lambda x: x | x,
    lambda x: x == x,
    lambda x: x + 1,
    lambda x: 2 * x,
    lambda x: x * 0.5,
    lambda x: torch.where(x, 2.0, 3.0),
    lambda x: x.sum(),
    lambda x: x.sum(0),
    lambda x: x.sum(1),
    lambda x: x.sum(1, keepdim=True),
    lambda x: x.sum((0, 1)),
    lambda x: x.sum(tuple(range(1, x.ndim)), keepdim=True),
    lambda x: x.sum(tuple(range(1, x.ndim)), dtype=torch.float64),
    lambda x: x.sum(()),
    lambda x: x.float().sum(1),
    lambda x: x.t().sum(0) if x.ndim == 2 else x.sum(-1),
    lambda x: x.float().mean(1),
    lambda x: x.any(0),
    lambda x: x.max(0).values,
    lambda x: x.nonzero(),
    lambda x: x.int().argmax(0),
    lambda x: x.int().argmax(0, keepdim=True),
    lambda x: x.int().argmax(1),
    lambda x: x.int().argmax(),
    lambda x: base.argmax(x, dims=0),
    lambda x: base.argmax(x, dims=1),
    lambda x: base.mean(x, dims=1),
    lambda x: base.sum(x, dims=0),
    lambda x: torch.rand(3, *x.shape)[:, x].shape[0] * x,
    lambda x: torch.zeros(x.shape).masked_fill(x, 2.0),
    lambda x: torch.zeros(x.shape).index_put((x,), torch.ones(())),
    lambda x: torch.ones(x.shape) - x.int(),
    lambda x: torch.ones(x.shape).add_(x),
    lambda x: torch.zeros(x.shape, dtype=torch.bool).copy_(x),
]


def results(fs, x):
    for k, f in enumerate(fs):
        yield k, f(x), f(x.to_dense())


@pytest.mark.parametrize("x", [om, oa], ids=["matrix", "array"])
def test_what_stays_onehot(x):
    for k, got, want in results(KEEP, x):
        assert is_onehot(got), k
        assert got.dtype == want.dtype and torch.equal(got.to_dense(), want), k
        assert got.shape == want.shape and len(got) == len(want), k


@pytest.mark.parametrize("x", [om, oa], ids=["matrix", "array"])
def test_what_becomes_a_plain_tensor(x):
    for k, got, want in results(LOSE, x):
        assert type(got) is torch.Tensor, k
        assert got.dtype == want.dtype and torch.equal(got, want), k


def test_what_moves_columns_makes_nothing_dense(never_dense):
    for f in KEEP:
        assert is_onehot(f(om)) and is_onehot(f(oa))
    assert torch.equal(om, om.clone()) and not torch.equal(om, om2)
    assert om[3].tolist() == [True, False, False, True, False] and om[3, 1].tolist() is False
    assert (
        om.sum().item() == 5 and om.sum(0).tolist() == [1] * 5 and om.sum(1).tolist() == [1, 0, 0, 2, 0, 0, 0, 1, 0, 1]
    )
    assert base.argmax(om, dims=0).tolist() == [[3, 9, 0, 3, 7]] and onecold(om).tolist() == [3, 9, 0, 3, 7]


def test_indexing_of_a_vector():
    assert ov[6].item() is True and ov[2].item() is False and ov[-4].item() is True
    assert torch.equal(ov[:], ov) and ov[5:8].tolist() == [False, True, False]
    assert [bool(v) for v in ov] == ov.tolist()
    with pytest.raises(IndexError):
        ov[10]


def test_indexing_of_julias_tests():
    assert om[3, 3].item() is True and om[3, 2].item() is False
    assert torch.equal(om[:, 3], OneHotVector(om.indices[3], 10)) and type(om[:, 3]) is OneHotVector
    assert torch.equal(om[3, :], om.indices == 3)
    assert torch.equal(oa[:, 3, 3], OneHotVector(oa.indices[3, 3], 10))
    assert torch.equal(oa[3, :, 3], oa.indices[:, 3] == 3) and torch.equal(oa[3], oa.indices == 3)
    assert torch.equal(oa[:, 3, :], OneHotMatrix(oa.indices[3], 10)) and type(oa[:, 3, :]) is OneHotMatrix
    assert torch.equal(oa[:, :, 1:3].indices, oa.indices[:, 1:3])
    for bad in ((2, -6), (10, 0), (0, 0, 0)):
        with pytest.raises(IndexError):
            om[bad]


@pytest.mark.parametrize(
    "key",
    [
        (slice(None), [0, 1], [3, 4]),
        (slice(None), [0, 1]),
        (slice(None), slice(None), [0, 1, 1]),
        (slice(None), 2, [0, 1]),
        (slice(None), bools([[1, 0, 0, 0, 1]] * 5)),
        (slice(None), torch.tensor([[1], [2]]), torch.tensor([0, 1, 2])),
        (slice(None), slice(1, 4), None, bools([1, 0, 0, 0, 1])),
        (slice(None), [0, 1], None, [3, 4]),
        (slice(2, 4), [0, 1]),
        ([1, 2], slice(None), [0, 1]),
        ([1], 2),
        (..., [0, 2]),
    ],
)
def test_indexing_as_torch_does(key):
    got, want = oa[key], oa.to_dense()[key]
    assert got.shape == want.shape and torch.equal(dense_of(got), want)
    assert is_onehot(got) == (key[0] == slice(None) or key[0] is ...)
    for x, k in ((oa.permute(1, 2, 0), key[::-1]), (oa.permute(1, 0, 2), (key[1], slice(None), *key[2:]))):
        if len(key) > 2 or x.axis == 2:
            got, want = x[k], x.to_dense()[k]
            assert got.shape == want.shape and torch.equal(dense_of(got), want)


def test_bools_are_numbers_in_a_difference():
    x, ŷ = OneHotMatrix([1, 0], 2), torch.tensor([[0.5, 0.25], [0.5, 0.75]], requires_grad=True)
    assert (1 - x).tolist() == [[1, 0], [0, 1]] and (x - x).sum() == 0 and (-x).tolist() == [[0, -1], [-1, 0]]
    assert torch.equal(ŷ - x, ŷ - torch.tensor([[0.0, 1.0], [1.0, 0.0]])) and torch.equal(x - ŷ, -(ŷ - x))
    assert torch.autograd.grad(((ŷ - x) ** 2).sum(), ŷ)[0].tolist() == [[1, -1.5], [-1, 1.5]]
    d = torch.ones(2, 2)
    d -= x
    assert d.tolist() == [[1, 0], [0, 1]]


def test_labels_axis_of_size_one():
    x = onehotbatch([0, 0, 0], range(1))
    for f in (lambda x: x[0], lambda x: x.squeeze(), lambda x: x[..., None], lambda x: x.expand(4, 3), lambda x: x.T):
        assert torch.equal(dense_of(f(x)), f(x.to_dense()))


def test_columns():
    cs = eachcol(om)
    assert len(cs) == 5 and all(type(c) is OneHotVector for c in cs)
    assert [int(c.indices) for c in cs] == om.indices.tolist()
    assert all(torch.equal(row, want) for row, want in zip(om, om.to_dense(), strict=True))  # a tensor's own, by rows
    assert [type(x) for x in om.split(2, 1)] == [OneHotMatrix] * 3
    assert [onecold(c, "abcdefghij") for c in cs] == list("djadh")


def test_joining():
    assert torch.equal(hcat(ov, ov), OneHotMatrix([6, 6], 10)) and type(hcat(ov, ov)) is OneHotMatrix
    assert torch.equal(hcat(ov, om), OneHotMatrix([6, 3, 9, 0, 3, 7], 10))
    assert torch.equal(vcat(ov, ov2), vcat(ov.to_dense(), ov2.to_dense()))
    assert torch.equal(cat(ov, ov, dims=2).indices, torch.tensor([[6, 6]]))
    assert torch.equal(torch.stack([ov, ov, ov], 1), OneHotMatrix([6, 6, 6], 10))
    assert torch.equal(torch.stack([om, om], 2), cat(om, om, dims=2)) and type(cat(om, om, dims=2)) is OneHotArray
    assert torch.equal(vcat(om, om2), vcat(om.to_dense(), om2.to_dense()))
    αβγ = (onehot(0, range(3)), onehot("b", "abc"), onehot("z", ["a", "b", "c"], "c"))
    assert torch.equal(hcat(*αβγ), OneHotMatrix([0, 1, 2], 3))
    mixed = hcat(om, torch.ones(10, 1))
    assert mixed.dtype == torch.float32 and torch.equal(mixed[:, :5], om.to_dense().float())


def test_stacks_and_batches():
    for y in (stack([ov, ov, ov], dims=1), batch([ov, ov, ov]), functools.reduce(hcat, [ov, ov, ov])):
        assert type(y) is OneHotMatrix and y.indices.tolist() == [6, 6, 6]
    for y in (stack([om, om], dims=2), batch([om, om])):
        assert torch.equal(y, cat(om, om, dims=2)) and type(y) is OneHotArray
    assert type(functools.reduce(hcat, [om, om])) is OneHotMatrix
    for bad in ([om, om2], [ov, ov2]):
        with pytest.raises(DimensionMismatch):
            stack(bad, dims=bad[0].ndim)


def test_joining_other_numbers_of_labels():
    for f in (
        lambda: hcat(ov, ov2),
        lambda: hcat(om, om2),
        lambda: torch.cat([om, om2], 1),
        lambda: torch.stack([om, om2], 2),
    ):
        with pytest.raises(DimensionMismatch):
            f()


def test_reshape_of_a_vector():
    for y in (base.vec(ov), ov.reshape(-1), ov.flatten(), base.reshape(ov, 10), base.reshape(ov, 10, 1)[:, 0]):
        assert type(y) is OneHotVector and torch.equal(y, ov)
    assert torch.equal(base.reshape(ov, 5, 2), base.reshape(ov.to_dense(), 5, 2))
    assert OneHotVector(0, 1).reshape(()).item() is True


def test_reshape_in_julias_order():
    r = base.reshape(oa, 10, 25)
    assert type(r) is OneHotMatrix and torch.equal(r.indices, base.reshape(oa.indices, -1))
    assert torch.equal(hcat(r, r), base.reshape(cat(oa, oa, dims=2), 10, 50))
    assert torch.equal(onecold(r), base.vec(oa.indices))
    with pytest.raises(RuntimeError):
        oa.reshape(10, 3, -1)


def test_largest_element():
    assert base.argmax(ov) == 6 and type(base.argmax(ov)) is int
    for x in (om, oa, om.T):
        assert base.argmax(x) == base.argmax(x.to_dense())
        for d in range(x.ndim):
            assert torch.equal(base.argmax(x, dims=d), base.argmax(x.to_dense(), dims=d))


def test_functions_of_the_whole_array():
    for x in (ov, om, oa):
        dense = x.to_dense()
        for f in (softmax, logsoftmax):
            for v, numbers in ((x, dense.float()), (x.double(), dense.double())):
                torch.testing.assert_close(f(v), f(numbers))
                assert torch.equal(v, numbers)
        assert torch.equal(base.broadcast(base.identity, x), x)
        assert torch.equal(base.broadcast(lambda v: 2 * v, x), 2 * dense)
        assert torch.equal(base.broadcast(operator.add, x, 1), dense + 1) and torch.equal(base.abs(x), dense)
        torch.testing.assert_close(base.norm(x), base.norm(dense))
        assert base.sum(x) == base.sum(base.abs2, x) == x.indices.numel() and base.maximum(x).item() is True


def test_equality():
    x, y = onehotbatch("abc", "abc"), onehotbatch("abb", "abc")
    assert torch.equal(x, onehotbatch([1, 2, 3], range(1, 4))) and not torch.equal(x, y)
    assert torch.equal(x, x.to_dense()) and torch.equal(x.to_dense(), x)
    assert (x == y).tolist() == (x.to_dense() == y.to_dense()).tolist()
    assert nt(a=x) == nt(a=x.clone()) != nt(a=y)


# ---------------------------------------------------------------- it can't be changed


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.__setitem__((0, 0), True),
        lambda x: x.add_(1),
        lambda x: x.fill_(True),
        lambda x: x.copy_(x),
        lambda x: x[:, 0].zero_(),
        lambda x: x.t_(),
        lambda x: x.float().mul_(2),
        lambda x: torch.logical_not(x, out=x),
    ],
)
def test_no_change_in_place(change):
    x = onehotbatch([1, 0], range(2))
    with pytest.raises(TypeError, match="can't be changed"):
        change(x)
    assert x.indices.tolist() == [1, 0] and x.shape == (2, 2)


def test_assignment_operators_make_a_new_array():
    x = y = onehotbatch([1, 0], range(2))
    x = x + 1
    z = y
    z |= torch.tensor([[True, False], [False, False]])
    assert z.tolist() == [[True, True], [True, False]] and y.indices.tolist() == [1, 0]


def test_dense_copies_can_be_changed():
    x = onehotbatch([1, 0], range(2))
    for d in (x.to_dense(), x[0], x.T + 0):
        d.fill_(1)
    assert x.indices.tolist() == [1, 0]
    w = torch.ones(2, requires_grad=True)
    row = x.float()[0]
    row *= w
    assert torch.autograd.grad(row.sum(), w)[0].tolist() == [0, 1]


# ---------------------------------------------------------------- products

A = torch.tensor([[1, 3, 5], [2, 4, 6], [3, 6, 9]])
V = torch.tensor([1, 2, 3, 4, 5])


def test_matrix_times_vector():
    b1, b2, X = OneHotVector(0, 3), OneHotVector(2, 5), V[:, None]
    assert (A @ b1).tolist() == [1, 2, 3]
    assert (b1 @ A).tolist() == [1, 3, 5]
    assert (A.T @ b1).tolist() == [1, 3, 5]
    assert (V @ b2).item() == 3 and (X.T @ b2).tolist() == [3]
    assert torch.dot(b2.int(), V.int()).item() == 3
    assert torch.mv(A, b1).tolist() == [1, 2, 3]
    for A_, b in ((A, b2), (X, b1)):
        with pytest.raises(DimensionMismatch, match="Matrix column must correspond with OneHot size"):
            A_ @ b


def test_matrix_times_matrix():
    X = V[:, None]
    b1, b2, b3 = OneHotMatrix([0, 0, 1, 1], 3), OneHotMatrix([1, 3, 0, 2], 5), OneHotMatrix([0, 0, 1], 4)
    b4 = base.reshape(OneHotMatrix([[0, 1, 2], [1, 1, 0]], 3), 3, -1)
    assert is_onehot(b4)
    b5 = base.reshape(b4, 6, -1)
    b6 = base.reshape(OneHotMatrix([[0, 1, 1], [1, 1, 0]], 2), 3, -1)
    b7 = base.reshape(OneHotMatrix([[0, 1, 2], [0, 1, 2]], 3), 6, -1)
    assert not any(map(is_onehot, (b5, b6, b7)))
    zero = torch.zeros(3, 1, dtype=torch.int64)
    assert torch.equal(A @ b1, A[:, [0, 0, 1, 1]])
    assert torch.equal(b1.T @ A, b1.to_dense().long().T @ A)
    assert torch.equal(A.T @ b1, A.T @ b1.to_dense().long())
    assert torch.equal(A @ b3.T, A @ b3.to_dense().long().T)
    assert torch.equal(b3 @ A, b3.to_dense().long() @ A)
    assert torch.equal(X.T @ b2, X.T @ b2.to_dense().long())
    assert torch.equal(A @ b4, A[:, [0, 1, 1, 1, 2, 0]])
    # What is not one-hot is a plain Bool tensor, which torch multiplies as numbers only.
    assert torch.equal(A @ b5.T.long(), torch.cat([A[:, [0, 1, 2, 2]], A[:, [0]] + A[:, [1]], zero], 1))
    assert torch.equal(A @ b6.long(), torch.stack([A[:, 0], 2 * A[:, 1], A[:, 1], A[:, 0] + A[:, 1]], 1))
    assert torch.equal(A @ b7.T.long(), A[:, [0, 1, 2, 0, 1, 2]])
    for left, right in ((A, b1.T), (A, b2), (A, b2.T), (b1, A[:, :2])):
        with pytest.raises(DimensionMismatch, match="Matrix column must correspond with OneHot size"):
            left @ right


def test_onehot_times_onehot():
    y, ŷ = onehotbatch([0, 1, 1, 2], range(3)), onehotbatch([0, 1, 2, 2], range(3))
    assert (y @ ŷ.T).tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]  # a confusion matrix
    assert torch.equal(y @ base.transpose(ŷ), y @ ŷ.T)
    assert torch.equal(y.T @ ŷ, y.to_dense().long().T @ ŷ.to_dense().long())
    assert (onehot(1, range(3)) @ onehot(1, range(3))).item() == 1
    bits = bools([[1, 1, 0, 1]])
    assert (bits @ y.T).tolist() == [[1, 1, 1]]


def test_products_of_more_axes():
    W, x = torch.rand(2, 3), onehotbatch(torch.randint(3, (4, 5)), range(3))
    want = torch.einsum("ij,jkl->ikl", W, x.to_dense().float())
    torch.testing.assert_close(torch.einsum("ij,jkl->ikl", W, x.float()), want)
    torch.testing.assert_close(F.linear(x.permute(2, 1, 0).float(), W).permute(2, 1, 0), want)
    torch.testing.assert_close(torch.matmul(torch.rand(6, 2, 3), x[:, 0]).shape, torch.Size([6, 2, 5]))


@pytest.mark.parametrize(
    "f",
    [
        lambda W: W @ OneHotMatrix([2, 0, 0, 1], 3),
        lambda W: W @ OneHotVector(2, 3),
        lambda W: W.T @ OneHotMatrix([0, 1, 1], 2),
        lambda W: W @ OneHotMatrix([3, 0, 4], 6).T,
        lambda W: OneHotMatrix([1, 1, 0], 2).T @ W,
        lambda W: OneHotMatrix([3, 4], 6) @ W,
        lambda W: OneHotVector(1, 2) @ W,
        lambda W: F.linear(OneHotMatrix([2, 0, 0, 1], 3).double().t(), W, W[:, 0]),
        lambda W: torch.addmm(W[:, :1], W, OneHotMatrix([2, 0], 3), beta=2, alpha=3),
        lambda W: torch.outer(W[0], OneHotVector(1, 2)),
    ],
)
def test_products_are_differentiable_twice(f):
    W = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(f, W)
    assert torch.autograd.gradgradcheck(lambda W: f(W) ** 3, W)


def test_addmm_has_its_factors():
    b, W, x = torch.rand(2, 1), torch.rand(2, 3), OneHotMatrix([2, 0], 3)
    want = torch.addmm(b, W, x.to_dense().float(), beta=2, alpha=3)
    torch.testing.assert_close(torch.addmm(b, W, x, beta=2, alpha=3), want)


def test_a_large_vocabulary(never_dense):
    words = 50_000
    x = onehotbatch(torch.randint(words, (8, 30)), range(words))
    W = torch.rand(4, words)
    assert torch.equal(W @ x[:, 0], W[:, x.indices[0]])
    m = Chain(Dense(words | to | 4), softmax)
    out = m(x)
    assert out.shape == (4, 8, 30)
    torch.testing.assert_close(out[:, 2, 3], softmax(m[0].weight[:, x.indices[2, 3]] + m[0].bias))
    y = onehotbatch(torch.randint(4, (8, 30)), range(4))
    g = gradient(lambda m: crossentropy(m(x), y), m)[0].layers[0].weight
    used = x.indices.unique()
    assert g.shape == (4, words) and g[:, used].abs().sum() > 0
    assert g.abs().sum().item() == pytest.approx(g[:, used].abs().sum().item())
    table = Dense(3 | to | words)
    labels = onehotbatch(torch.randint(words, (6,)), range(words))
    assert gradient(lambda m: logitcrossentropy(m(torch.ones(3, 6)), labels), table)[0].bias.shape == (words,)


# ---------------------------------------------------------------- in layers and training


@pytest.mark.parametrize("x", [ov, om, oa], ids=["vector", "matrix", "array"])
def test_dense_of_onehot(x):
    m = Dense(10 | to | 4, torch.tanh)
    torch.testing.assert_close(m(x), m(x.to_dense().float()))
    with torch.inference_mode():
        torch.testing.assert_close(m(x), m(x.to_dense().float()))
    got, want = (gradient(lambda m, x: (m(x) ** 2).sum(), m, v) for v in (x, x.to_dense()))
    torch.testing.assert_close(got[0].weight, want[0].weight)
    torch.testing.assert_close(got[0].bias, want[0].bias)
    assert got[1] is None
    with pytest.raises(DimensionMismatch, match="layer Dense"):
        Dense(9 | to | 4)(x)


def test_recurrent_layers_of_onehot():
    text = onehotbatch([["a", "b"], ["c", "a"], ["b", "b"], ["a", "c"]], "abc")  # (3, steps, batch)
    sequence = text.permute(0, 2, 1)
    m = LSTM(3 | to | 2)
    got, want = [], []
    for v, ys in ((text, got), (text.to_dense().float(), want)):
        m.reset_()
        ys += [m(v[:, t]) for t in range(4)]
    torch.testing.assert_close(got, want)
    m.reset_()
    torch.testing.assert_close(m(sequence)[:, :, -1], want[-1])
    cell = RNNCell(3 | to | 2)
    torch.testing.assert_close(
        cell(torch.zeros(2), text[:, 0, 0])[1], cell(torch.zeros(2), torch.tensor([1.0, 0, 0]))[1]
    )


def test_both_styles_of_gradient():
    m, x, y = Dense(10 | to | 3), om, onehotbatch([0, 1, 2, 1, 0], range(3))
    explicit = gradient(lambda m, x, y: logitcrossentropy(m(x), y), m, x, y)
    assert explicit[1] is None and explicit[2] is None
    gs = gradient(lambda: logitcrossentropy(m(x), y), params(m))
    torch.testing.assert_close(gs[m.weight], explicit[0].weight)
    assert gradient(lambda W: gradient(lambda W: ((W @ x) ** 3).sum(), W)[0].sum(), torch.ones(1, 10))[0].tolist() == [
        [6, 0, 0, 12, 0, 0, 0, 6, 0, 6]
    ]


def test_gradients_by_integers():
    x = OneHotMatrix([2, 0, 2], 3)
    assert gradient(lambda v: (v @ x).sum(), [1, 2, 3])[0].tolist() == [1, 0, 2]
    W = torch.tensor([[1, 2, 3]])
    assert gradient(lambda: ((W @ x) ** 2).sum(), params([W]))[W].tolist() == [[2, 0, 12]]
    assert gradient(lambda a: (a * x).sum(), 2)[0] == 3


def test_accuracy_as_in_the_tutorials():
    ŷ = torch.tensor([[0.1, 0.7, 0.3], [0.9, 0.3, 0.7]])
    y = onehotbatch([True, False, False], [True, False])
    assert base.mean(onecold(ŷ) == onecold(y)).item() == pytest.approx(1 / 3)
    names = base.broadcast(operator.eq, onecold(y, ["yes", "no"]), ["yes", "no", "yes"])
    assert names == [True, True, False]


def test_functors_take_it_as_a_leaf():
    assert len(fleaves((om, [ov]))) == 2
    moved = fmap(lambda v: v[:, :2], nt(x=om))
    assert type(moved.x) is OneHotMatrix
    assert type(cpu({"x": om})["x"]) is OneHotMatrix


def test_files(tmp_path):
    file = io.BytesIO()
    torch.save({"x": oa, "y": om.T}, file)
    file.seek(0)
    back = torch.load(file, weights_only=True)
    assert torch.equal(back["x"], oa) and torch.equal(back["y"].to_dense(), om.T.to_dense())
    new = copy.deepcopy([om, om])
    assert new[0] is new[1] and new[0].indices.data_ptr() != om.indices.data_ptr()


def test_meta_device():
    x = om.to("meta")
    assert is_onehot(x, OneHotMatrix) and x.is_meta and (torch.empty(2, 10, device="meta") @ x).shape == (2, 5)
    assert repr(x) == "10×5 OneHotMatrix(::Vector{UInt32}) with eltype Bool"


def test_inference_mode():
    with torch.inference_mode():
        x = onehotbatch([1, 2, 0, 1], range(3))
        assert type(x.reshape(3, 2, 2)) is OneHotArray and type(x.float()) is OneHotMatrix
        assert torch.equal(A @ x, A[:, [1, 2, 0, 1]]) and torch.equal(x + 0, x.to_dense().long())
        assert type(x.transpose(0, 1).contiguous()) is OneHotArray


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (2, 3, 4)])
@pytest.mark.parametrize("agg", [torch.mean, sum, torch.sum, max, lambda x: x, lambda x: (x * x).mean()])
def test_cross_entropies_by_index(shape, agg, never_dense):
    index = torch.randint(5, shape)
    y, dense = OneHotArray(index, 5), F.one_hot(index, 5).movedim(-1, 0).bool()
    ŷ = torch.randn(5, *shape, dtype=torch.float64, requires_grad=True)
    for loss in (
        lambda ŷ, y: logitcrossentropy(ŷ, y, agg=agg),
        lambda ŷ, y: crossentropy(softmax(ŷ), y, agg=agg),
        lambda ŷ, y: crossentropy(softmax(ŷ), y, agg=agg, eps=0.1),
        lambda ŷ, y: logitcrossentropy(ŷ, y, agg=agg, dims=-1 - len(shape)),
    ):
        got, want = loss(ŷ, y), loss(ŷ, dense)
        assert got.shape == want.shape
        torch.testing.assert_close(got, want)
        gs = [torch.autograd.grad(v.sum(), ŷ)[0] for v in (got, want)]
        torch.testing.assert_close(*gs)


def test_cross_entropies_are_differentiable_twice():
    y = OneHotArray([[0, 2], [1, 1]], 3)
    ŷ = torch.rand(3, 2, 2, dtype=torch.float64, requires_grad=True)
    for loss in (logitcrossentropy, crossentropy):
        assert torch.autograd.gradgradcheck(lambda ŷ, loss=loss: loss(ŷ, y) ** 2, ŷ)


def test_cross_entropies_of_fluxs_tests():
    # ŷ = [.8 .2 .2; .1 .2 .1; .1 .6 .7] against the labels 1, 2, 3: -mean(log.([.8, .2, .7]))
    ŷ = torch.tensor([[0.8, 0.2, 0.2], [0.1, 0.2, 0.1], [0.1, 0.6, 0.7]], dtype=torch.float64)
    y = onehotbatch([1, 2, 3], range(1, 4))
    want = -(math.log(0.8) + math.log(0.2) + math.log(0.7)) / 3
    assert crossentropy(ŷ, y).item() == pytest.approx(want)
    assert logitcrossentropy(ŷ.log(), y).item() == pytest.approx(want)
    assert crossentropy(ŷ, y, eps=1e-6).item() == pytest.approx(
        -(math.log(0.8 + 1e-6) + math.log(0.2 + 1e-6) + math.log(0.7 + 1e-6)) / 3, rel=1e-12
    )
    # Flux's manual: label smoothing of onehotbatch([1, 1, 1, 0, 1, 0], 0:1)
    y = onehotbatch([1, 1, 1, 0, 1, 0], range(0, 2))
    y_smoothed = label_smoothing(y, 0.2)
    torch.testing.assert_close(
        y_smoothed, torch.tensor([[0.1, 0.1, 0.1, 0.9, 0.1, 0.9], [0.9, 0.9, 0.9, 0.1, 0.9, 0.1]])
    )
    y_sim = softmax(y * torch.log(torch.tensor(2.0)))
    torch.testing.assert_close(y_sim[0], torch.tensor([1, 1, 1, 2, 1, 2]) / 3)
    assert crossentropy(y_sim, y).item() < crossentropy(y_sim, y_smoothed).item()
    y_dis = torch.stack([y_sim[1], y_sim[0]])
    assert crossentropy(y_dis, y).item() > crossentropy(y_dis, y_smoothed).item()


def test_cross_entropy_of_the_manual():
    y_label = onehotbatch([0, 1, 2, 1, 0], range(0, 3))
    y_model = softmax(base.reshape(range(-7, 8), 3, 5) * 1.0)
    torch.testing.assert_close(y_model.sum(0), torch.ones(5))
    assert crossentropy(y_model, y_label).item() == pytest.approx(1.6076053, rel=1e-6)
    assert crossentropy(y_model, y_label, agg=sum).item() == pytest.approx(5 * 1.6076053, rel=1e-6)
    assert crossentropy(y_model, label_smoothing(y_label, 0.15)).item() == pytest.approx(1.5776052, rel=1e-6)
    logits = base.reshape(range(-7, 8), 3, 5)
    assert logitcrossentropy(logits, y_label).item() == pytest.approx(1.6076053, rel=1e-6)


def test_a_label_of_no_probability():
    ŷ = torch.tensor([[0.0, 1.0], [1.0, 0.0]], requires_grad=True)
    y = OneHotMatrix([1, 0], 2)
    loss = crossentropy(ŷ, y, eps=0)
    assert loss.item() == 0 and torch.autograd.grad(loss, ŷ)[0].isfinite().all()
    # Flux multiplies by a Bool, whose false is stronger than any infinity.
    masked = torch.tensor([[-math.inf, 0.0], [0.0, -math.inf]])
    assert logitcrossentropy(masked, y).item() == 0


def test_other_losses_see_the_dense_array():
    ŷ, y = softmax(torch.randn(4, 6)), onehotbatch(torch.randint(4, (6,)), range(4))
    for loss in (mse, mae, focal_loss, kldivergence, logitbinarycrossentropy):
        torch.testing.assert_close(loss(ŷ, y), loss(ŷ, y.to_dense()))
        torch.testing.assert_close(gradient(loss, ŷ, y)[0], gradient(loss, ŷ, y.to_dense())[0])
    for loss in (crossentropy, logitcrossentropy):
        for dims in (1, None, (0, 1)):
            torch.testing.assert_close(loss(ŷ, y, dims=dims), loss(ŷ, y.to_dense(), dims=dims))
        torch.testing.assert_close(loss(ŷ.T, y.T), loss(ŷ.T, y.to_dense().T))
        with pytest.raises(DimensionMismatch):
            loss(ŷ, y[:, :5])
        with pytest.raises(DimensionMismatch):
            loss(ŷ[:3], y)


# ---------------------------------------------------------------- printing


def test_display():
    assert repr(onehot("b", "abc")) == "3-element OneHotVector(::UInt32) with eltype Bool:\n ⋅\n 1\n ⋅"
    m = onehotbatch([10, 20, 30, 10, 10], range(10, 41, 10))
    rows = [" 1  ⋅  ⋅  1  1", " ⋅  1  ⋅  ⋅  ⋅", " ⋅  ⋅  1  ⋅  ⋅", " ⋅  ⋅  ⋅  ⋅  ⋅"]
    assert repr(m) == "\n".join(["4×5 OneHotMatrix(::Vector{UInt32}) with eltype Bool:", *rows])
    assert str(onehotbatch([1, 2, 3], range(1, 4))) == "Bool[1 0 0; 0 1 0; 0 0 1]"
    assert f"{onehot(1, range(3))}" == "Bool[0, 1, 0]"
    assert repr(onehot("b", "abc").float()) == "3-element OneHotVector(::UInt32) with eltype Float32:\n  ⋅\n 1.0\n  ⋅"
    assert repr(onehotbatch(list("bab"), list("abc"))) == (
        "3×3 OneHotMatrix(::Vector{UInt32}) with eltype Bool:\n ⋅  1  ⋅\n 1  ⋅  1\n ⋅  ⋅  ⋅"
    )
    αβγ = (onehot(0, range(3)), onehot("b", "abc"), onehot("z", ["a", "b", "c"], "c"))
    assert show(αβγ) == "(Bool[1, 0, 0], Bool[0, 1, 0], Bool[0, 0, 1])"
    x = OneHotMatrix([0, 1, 1], 2).T
    assert repr(x) == "3×2 transpose(OneHotMatrix(::Vector{UInt32})) with eltype Bool:\n 1  ⋅\n ⋅  1\n ⋅  1"


def test_display_of_more_axes():
    x = OneHotArray([[0, 1], [1, 1]], 2)
    assert repr(x) == (
        "2×2×2 OneHotArray(::Matrix{UInt32}) with eltype Bool:\n[:, :, 0] =\n 1  0\n 0  1\n\n[:, :, 1] =\n 0  0\n 1  1"
    )
    lines = repr(OneHotArray(torch.zeros(1, 20, 3, dtype=torch.int64), 2)).split("\n\n")
    assert lines[0].startswith("2×1×20×3 OneHotArray(::Array{UInt32, 3}) with eltype Bool:\n[:, :, 0, 0] =\n 1\n 0")
    assert lines[3] == "..." and lines[-1] == "[:, :, 19, 2] =\n 1\n 0" and len(lines) == 7


def test_display_of_the_logistic_regression_tutorial():
    classes = ["Iris-setosa", "Iris-versicolor", "Iris-virginica"]
    y = onehotbatch([name for name in classes for _ in range(50)], classes)
    assert repr(y) == (
        "3×150 OneHotMatrix(::Vector{UInt32}) with eltype Bool:\n"
        " 1  1  1  1  1  1  1  1  1  1  1  1  1  …  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅\n"
        " ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅     ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅\n"
        " ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅  ⋅     1  1  1  1  1  1  1  1  1  1  1  1"
    )


def test_display_of_what_the_screen_has_no_room_for():
    x = OneHotMatrix(torch.arange(60_000) % 50, 50)
    lines = repr(x).splitlines()
    assert lines[0] == "50×60000 OneHotMatrix(::Vector{UInt32}) with eltype Bool:"
    assert lines[1] == " 1" + "  ⋅" * 12 + "  …" + "  ⋅" * 12
    assert lines[2] == " ⋅  1" + "  ⋅" * 11 + "   " + "  ⋅" * 12
    assert lines[6].count("…") == 1 and len(lines) == 21
    assert lines[11].count("⋱") == 1 and lines[11].startswith(" ⋮" + " " * 14 + "⋮")
    assert lines[-1] == " ⋅" + "  ⋅" * 12 + "   " + "  ⋅" * 11 + "  1"
    assert all(len(line) <= 79 for line in lines)
    assert len(repr(x[:, :26]).splitlines()[1]) == 77 and "…" in repr(x[:, :27])
    assert "…" not in repr(x[:20, :26].T.float()) and len(repr(x[:, 0]).splitlines()) == 21


# ---------------------------------------------------------------- a GPU


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu():
    x = gpu(om)
    assert type(x) is OneHotMatrix and x.is_cuda and x.indices.is_cuda
    assert type(x[:, 1:3]) is OneHotMatrix and x[:, 1:3].indices.is_cuda and type(x[:, 1]) is OneHotVector
    assert x[2].is_cuda and torch.equal(x[2].cpu(), om[2]) and torch.equal(cpu(x), om)
    assert torch.equal(x.to_dense().cpu(), om.to_dense()) and (x + 1).is_cuda
    assert onecold(x).is_cuda and onecold(x, "abcdefghij") == onecold(om, "abcdefghij")
    assert repr(x) == repr(om)
    m, y = gpu(Dense(10 | to | 3)), gpu(onehotbatch([0, 1, 2, 1, 0], range(3)))
    torch.cuda.set_sync_debug_mode("error")
    try:
        g = gradient(lambda m: logitcrossentropy(m(x), y) + crossentropy(softmax(m(x)), y), m)[0]
        made = onehotbatch(x.indices, range(10))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert g.weight.is_cuda and torch.equal(made, x)
