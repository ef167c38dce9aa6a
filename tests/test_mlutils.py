"""MLUtils.jl: the numbers of its documentation and tests, with axes and places counted from 0."""

import math
import operator
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from fluxtorch import Chain, Conv, DimensionMismatch, SamePad, gradient, nt, onehotbatch, to
from fluxtorch.base import log, sqrt
from fluxtorch.mlutils import *
from fluxtorch.mlutils import frequencies


def reversed_memory(*size):
    """An array as Flux's layers give it: column-major."""
    return torch.rand(*size[::-1]).permute(*range(len(size))[::-1])


def column_major(n, *size):
    """Julia's `reshape(1:n, size...)`."""
    return torch.arange(1, n + 1).reshape(size[::-1]).permute(*range(len(size))[::-1])


X = torch.rand(4, 15)
XX = reversed_memory(20, 30, 15)
XXX = torch.rand(3, 20, 30, 15)
y = [name for name in ("setosa", "versicolor", "virginica") for _ in range(5)]
Y1 = torch.arange(1, 16)
X1 = Y1.repeat(10, 1)


class Places:
    """Julia's `CustomType`: has `numobs` and `getobs`, and neither length nor items."""

    def numobs(self):
        return 15

    def getobs(self, i):
        assert type(i) is int or all(type(k) is int for k in i)
        return i if isinstance(i, int) else torch.tensor(i)


class Items:
    """A dataset that is asked for one item at a time."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        assert type(i) is int
        return 10 * i


class Table:
    """As much of a data frame as is needed: its length is of rows, its items are columns."""

    class At:
        def __getitem__(self, i):
            return ("rows", i)

    iloc = At()

    def __len__(self):
        return 3

    def __getitem__(self, name):
        raise KeyError(name)


class TestNumobs:
    @pytest.mark.parametrize(
        ("data", "n"),
        [
            ([1, 2, 3], 3),
            (torch.ones(3, 2), 2),
            ([[1, 2], [3, 4], [5, 6]], 3),
            (XXX, 15),
            (y, 15),
            ("héllo", 5),
            (range(11, 31), 20),
            ((X, y), 15),
            (nt(a=[1, 2, 3], b=torch.rand(6, 3)), 3),
            ({"a": [1, 2, 3], "b": torch.rand(6, 3)}, 3),
            ((nt(a=X), {"b": (XX, y)}), 15),
            ((), 0),
            ([], 0),
            (torch.tensor(3), 1),
            (np.ones((2, 7)), 7),
            (Places(), 15),
            (Items(), 10),
            (Table(), 3),
        ],
    )
    def test_counts(self, data, n):
        assert numobs(data) == n

    @pytest.mark.parametrize(
        "data", [(X, XX, torch.rand(100)), (X, X.T), nt(a=[1, 2, 3, 4], b=torch.rand(6, 3)), {"a": [1], "b": [1, 2]}]
    )
    def test_parts_must_agree(self, data):
        with pytest.raises(DimensionMismatch, match="All data containers must have the same number of observations"):
            numobs(data)
        for f in (lambda d: getobs(d, 0), obsview, ObsView, shuffleobs, BatchView, DataLoader):
            with pytest.raises(DimensionMismatch):
                f(data)

    def test_what_has_no_length(self):
        with pytest.raises(TypeError, match="data must have a length or a method numobs, but got zip"):
            numobs(zip([1], [2], strict=True))
        with pytest.raises(TypeError, match="but got 5"):
            numobs(5)


class TestGetobs:
    @pytest.mark.parametrize("x", [X, XX, XXX, Y1])
    @pytest.mark.parametrize("i", [1, range(15), range(1, 10), range(0, 15, 4), [1, 4, 6], [1, 0], [2, 2], []])
    def test_arrays(self, x, i):
        assert torch.equal(getobs(x, i), x[..., torch.tensor(i, dtype=torch.int64)])

    def test_documented(self):
        data = torch.tensor([[1, 2], [3, 4], [5, 6]])
        assert numobs(data) == 2 and getobs(data, 0).tolist() == [1, 3, 5]
        data = nt(x=torch.ones(2, 3), y=[1, 2, 3])
        assert getobs(data, 1) == nt(x=[1.0, 1.0], y=torch.tensor(2))
        b = torch.rand(6, 3)
        assert getobs(nt(a=[1, 2, 3], b=b), [0, 2]) == nt(a=[1, 3], b=b[:, [0, 2]])
        assert getobs({"a": [1, 2, 3], "b": b}, 1)["b"].tolist() == b[:, 1].tolist()

    def test_other_containers(self):
        assert getobs(y, range(4, 7)) == ["setosa", "versicolor", "versicolor"]
        assert getobs(y, [14, 0]) == ["virginica", "setosa"] and getobs(y, -1) == "virginica"
        assert getobs("abcd", 1) == "b" and getobs("abcd", [3, 0]) == "da" and getobs("abcd", slice(1, None)) == "bcd"
        assert getobs(range(1, 11), range(0, 2)) == range(1, 3) and getobs(range(1, 11), [0, 9]).tolist() == [1, 10]
        assert getobs([[1, 2], [3, 4]], 0) == [1, 2] and getobs([[1], ["a"]], [1, 0]) == [["a"], [1]]
        assert getobs((X, y), 5)[1] == "versicolor" and getobs((), 10) == ()
        assert getobs(Places(), [3, 5]).tolist() == [3, 5] and getobs(Places(), range(2)).tolist() == [0, 1]
        assert getobs(Items(), 3) == 30 and getobs(Items(), [3, -1]).tolist() == [30, 90]
        assert getobs(Table(), range(1, 3)) == ("rows", [1, 2])
        assert torch.equal(getobs(np.arange(6.0).reshape(2, 3), 1), torch.tensor([1.0, 4.0], dtype=torch.float64))
        assert getobs(np.array(["a", "b"]), 1) == "b"
        assert getobs(torch.tensor(3), 0) == 3
        for i in (1, range(1, 3)):
            with pytest.raises(IndexError):
                getobs(torch.tensor(3), i)

    def test_arrays_that_are_no_tensors_have_their_observations_last_too(self):
        names = np.array([["a", "b", "c"], ["d", "e", "f"]])
        assert getobs(names, 1).tolist() == ["b", "e"] and getobs(names, [2, 0]).tolist() == [["c", "a"], ["f", "d"]]
        assert [b.shape for b in DataLoader(names, batchsize=2)] == [(2, 2), (2, 1)]
        days = np.array(["2020-01-01", "2020-01-02"], dtype="datetime64[D]")
        assert getobs(days, 1) == days[1] and getobs(days, range(1, 2)).tolist() == days[1:].tolist()

    def test_a_list_of_numbers_is_of_one_type_however_it_is_cut(self):
        assert getobs([0.5, 1, 2], range(1, 3)).dtype == torch.float32
        assert BatchView([0.5, 1, 2], batchsize=2)[1].dtype == torch.float32

    def test_masks(self):
        assert getobs([1, 2, 3], [True, False, True]).tolist() == [1, 3]
        assert getobs(list("abc"), torch.tensor([False, True, True])) == ["b", "c"]
        with pytest.raises(DimensionMismatch, match="a mask of 2 can't choose among 3 observations"):
            getobs([1, 2, 3], [True, False])

    def test_negative_places_count_from_the_end(self):
        assert torch.equal(getobs(X, [-1, 0]), X[:, [14, 0]]) and torch.equal(getobs(X, slice(-3, None)), X[:, 12:])
        assert torch.equal(getobs(X, range(-2, 0)), X[:, 13:]) and torch.equal(
            getobs(X, slice(None, None, -1)), X.flip(1)
        )

    @pytest.mark.parametrize("i", [15, -16, range(1, 16), range(-16, 2), [0, 9, 17], [0, -17], torch.tensor([15])])
    @pytest.mark.parametrize("data", [X, y, (X, y), Places(), "a" * 15, range(15), XXX])
    def test_bounds(self, data, i):
        with pytest.raises(IndexError, match="there is no observation"):
            getobs(data, i)
        with pytest.raises(IndexError):
            ObsView(data, i)

    @pytest.mark.parametrize("i", [1.0, [0.5], "a", [[0, 1]], ["a"], {1: 2}])
    def test_what_is_no_place(self, i):
        with pytest.raises(TypeError):
            getobs(X, i)

    def test_ranges_are_views_and_lists_are_copies(self):
        x = torch.zeros(2, 6)
        for i in (1, range(1, 3), slice(0, None, 2)):
            getobs(x, i).fill_(1)
        assert x[0].tolist() == [1, 1, 1, 0, 1, 0]
        getobs(x, [0, 1]).fill_(7)
        assert x.max() == 1

    @pytest.mark.parametrize("x", [torch.rand(3, 4, 5), reversed_memory(3, 4, 5)])
    def test_copies_keep_the_memory_layout(self, x):
        order = sorted(range(3), key=x.stride)
        got = getobs(x, [4, 0, 2])
        assert sorted(range(3), key=got.stride) == order and torch.equal(got, x[..., [4, 0, 2]])

    def test_gradients(self):
        for x in (torch.rand(2, 5, dtype=torch.float64), reversed_memory(2, 5).double()):
            x.requires_grad_()
            for i in (1, range(1, 3), [0, 0, 3]):
                assert torch.autograd.gradcheck(lambda x, i=i: getobs(x, i), x)

    def test_sparse(self):
        x = torch.rand(4, 6).to_sparse()
        for i in (2, range(1, 4), [0, 5], [3, 1]):
            assert torch.equal(getobs(x, i).to_dense(), x.to_dense()[:, i])
        assert numobs(x) == 6


class TestObsView:
    @pytest.mark.parametrize("data", [X, XX, y, (X, y), (XXX, XX, X, y), Places(), Items()])
    def test_as_a_container(self, data):
        n = numobs(data)
        v = ObsView(data)
        assert v.indices == range(n) and len(v) == numobs(v) == n
        for i in (0, n - 1, range(1, 5), [1, 3]):
            assert nt(a=getobs(v, i)) == nt(a=getobs(data, i))
        assert ObsView(v) == v and ObsView(v, range(n)) == v and ObsView(data) == v != ObsView(data, range(n - 1))
        assert nt(a=list(v)) == nt(a=[getobs(data, i) for i in range(n)])
        with pytest.raises(IndexError):
            v[n]
        assert nt(a=getobs(v)) == nt(a=getobs(data, range(n)))

    def test_places_are_those_of_the_view(self):
        v = ObsView(X, range(4, 12))
        assert torch.equal(getobs(v), X[:, 4:12]) and len(v) == 8 and v.data is X
        assert torch.equal(v[1:5], X[:, 5:9]) and torch.equal(v[[1, 0]], X[:, [5, 4]]) and torch.equal(v[0], X[:, 4])
        assert torch.equal(getobs(v, [2, 0, 3]), X[:, [6, 4, 7]])
        w = ObsView(ObsView(Places(), [3, 7, 9, 1]), [2, 0])
        assert isinstance(w.data, Places) and w.indices.tolist() == [9, 3] and getobs(w, 1) == 3
        assert getobs(ObsView(y, 0)) == ["setosa"]
        assert isinstance(ObsView(Places())[1:3], ObsView) and getobs(ObsView(Places())[1:3]).tolist() == [1, 2]

    def test_documented_iteration(self):
        for i, x in enumerate(ObsView(X1)):
            assert (x == i + 1).all()

    def test_printing(self):
        assert repr(ObsView(X, range(8))) == "ObsView(::Matrix{Float32}, ::UnitRange{Int64})\n 8 observations"
        assert repr(ObsView(y, [1, 2])) == "ObsView(::Vector{String}, ::Vector{Int64})\n 2 observations"


class TestObsview:
    def test_arrays_are_viewed(self):
        x = torch.tensor([[1, 2, 3], [4, 5, 6]])
        v = obsview(x, range(0, 2))
        assert v.tolist() == [[1, 2], [4, 5]] and v.data_ptr() == x.data_ptr()
        assert obsview(x, [0, 2]).tolist() == [[1, 3], [4, 6]] and obsview(x) is x

    def test_tuples_are_gone_into_and_the_rest_is_wrapped(self):
        a, b = obsview((X, y), range(5, 8))
        assert torch.equal(a, X[:, 5:8]) and b == y[5:8]
        assert obsview({"b": y}, [0])["b"] == ["setosa"]
        v = obsview(Places(), [1, 2])
        assert isinstance(v, ObsView) and getobs(v, 1) == 2 and obsview(Places(), 3) == 3

    def test_a_class_may_have_its_own(self):
        class Mine(Places):
            def obsview(self, indices):
                return ("mine", indices)

        assert obsview(Mine(), range(3)) == ("mine", range(3))

    def test_obsdim(self):
        x = torch.rand(2, 3, 4)
        for d in range(3):
            v = obsview(x, ObsDim(d))
            assert numobs(v) == x.shape[d]
            assert torch.equal(getobs(v, 1), x.select(d, 1)) and torch.equal(v[0:2], x.narrow(d, 0, 2))
            assert torch.equal(getobs(v, [1, 0]), x.index_select(d, torch.tensor([1, 0])))
        x = torch.rand(4, 5, 2)
        v = obsview(x, range(1, 3), ObsDim(1))
        assert numobs(v) == 2 and torch.equal(getobs(v, 0), x[:, 1]) and torch.equal(getobs(v, slice(0, 2)), x[:, 1:3])
        assert repr(v) == "ArrayObsView(4×5×2 Array{Float32, 3}, obsdim=1, numobs=2)"
        assert numobs(obsview(x, ObsDim(-2))) == 5 and ObsDim(ObsDim(2)).d == 2
        data = column_major(24, 3, 4, 2)
        assert getobs(obsview(data, ObsDim(1)), 0).tolist() == [[1, 13], [2, 14], [3, 15]]
        with pytest.raises(IndexError):
            obsview(x, ObsDim(3))
        assert [tuple(b.shape) for b in DataLoader(obsview(x, ObsDim(1)), batchsize=2)] == [
            (4, 2, 2),
            (4, 2, 2),
            (4, 1, 2),
        ]


class TestRandomOrder:
    def test_shuffleobs(self):
        assert shuffleobs(Y1).sum() == 120 and shuffleobs(X).shape == X.shape
        x1, y1, z1 = shuffleobs((X1, Y1, X1))
        assert x1.sum(1).tolist() == z1.sum(1).tolist() == [120] * 10 and y1.sum() == 120
        assert (x1 == y1).all() and (z1 == y1).all()
        a, b = (
            shuffleobs(torch.Generator().manual_seed(42), (X, y)),
            shuffleobs((X, y), rng=torch.Generator().manual_seed(42)),
        )
        assert torch.equal(a[0], b[0]) and a[1] == b[1]
        assert sorted(getobs(shuffleobs(Places())).tolist()) == list(range(15))
        x1, y1 = shuffleobs((X1.to_sparse(), Y1.to_sparse()))
        assert x1.to_dense().sum(1).tolist() == [120] * 10 and y1.to_dense().sum() == 120
        assert (x1.to_dense() == y1.to_dense()).all()

    def test_randobs(self):
        columns = X[:, :4].T.tolist()
        assert randobs(X[:, :4]).tolist() in columns
        picked = randobs(X[:, :4], 2)
        assert picked.shape == (4, 2) and all(c in columns for c in picked.T.tolist())
        seed = torch.Generator().manual_seed
        assert torch.equal(randobs(seed(0), X), randobs(seed(0), X))
        assert torch.equal(randobs(seed(0), X, 3), randobs(seed(0), X, 3)) and randobs(y, 2)[0] in y
        with pytest.raises(ValueError, match="no observation"):
            randobs([])

    def test_every_observation_can_be_drawn(self):
        assert set(randobs(list("abc"), 200)) == set("abc")


class TestSplitobs:
    @pytest.mark.parametrize(
        ("n", "at", "parts"),
        [
            (10, 0.7, (range(0, 7), range(7, 10))),
            (10, 0.5, (range(0, 5), range(5, 10))),
            (10, (0.5, 0.3), (range(0, 5), range(5, 8), range(8, 10))),
            (100, 0.7, (range(0, 70), range(70, 100))),
            (100, (0.1, 0.4), (range(0, 10), range(10, 50), range(50, 100))),
            (10, (), (range(0, 10),)),
            (10, 1, (range(0, 1), range(1, 10))),
            (10, 1.0, (range(0, 10), range(10, 10))),
            (100, (0.44, 0.56), (range(0, 44), range(44, 100), range(100, 100))),
        ],
    )
    def test_places(self, n, at, parts):
        assert splitobs(n, at=at) == parts

    @pytest.mark.parametrize(
        ("at", "sizes"), [(0.7, (105, 45)), ((0.2, 0.3), (30, 45, 75)), ((0.1, 0.2, 0.3), (15, 30, 45, 60))]
    )
    def test_sizes_of_150(self, at, sizes):
        parts = splitobs(150, at=at)
        assert tuple(map(numobs, parts)) == sizes and [i for p in parts for i in p] == list(range(150))

    @pytest.mark.parametrize("data", [X, XX, XXX, y, (X, y), (XXX, XX, X, y), Places(), torch.rand(15)])
    def test_data(self, data):
        def sizes(at):
            return tuple(map(numobs, splitobs(data, at=at)))

        assert sizes(10) == sizes(0.7) == (10, 5) and sizes(0.6) == (9, 6)
        assert sizes((0.2, 0.3)) == (3, 4, 8) and sizes((0.11, 0.2, 0.3)) == sizes((2, 3, 4)) == (2, 3, 4, 6)

    @pytest.mark.parametrize("at", [0.1, (0.2, 0.1), (0.1, 0.4, 0.2)])
    def test_none_lost(self, at):
        assert sum(int(p.sum()) for p in splitobs(X1, at=at)) == 1200
        assert sum(sum(p) for p in splitobs(150, at=at)) == 11325 - 150

    def test_documented(self):
        a, b = splitobs(column_major(100, 1, 100), at=0.7)
        assert a[0].tolist() == list(range(1, 71)) and b[0].tolist() == list(range(71, 101))
        data = nt(x=torch.ones(2, 10), n=range(1, 11))
        assert [p.n for p in splitobs(data, at=(0.5, 0.3))] == [range(1, 6), range(6, 9), range(9, 11)]
        assert [tuple(p.x.shape) for p in splitobs(data, at=(0.5, 0.3))] == [(2, 5), (2, 3), (2, 2)]
        _, test = splitobs((torch.arange(1.0, 101).reshape(1, -1), range(101, 201)), at=0.7, shuffle=True)
        assert (test[0][0] + 100 == test[1]).all() and numobs(test) == 30
        a, b = splitobs(range(1, 11), at=0.5, stratified=[0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
        assert a.tolist() == [1, 2, 5, 6, 7] and b.tolist() == [3, 4, 8, 9, 10]

    def test_first_part_is_a_view(self):
        a, b = splitobs(X, at=0.1)
        assert torch.equal(a, X[:, :2]) and a.data_ptr() == X.data_ptr() and torch.equal(b, X[:, 2:])

    def test_numbers_of_numpy(self):
        assert splitobs(np.int64(10), at=np.float32(0.5)) == splitobs(10, at=np.int64(5)) == (range(5), range(5, 10))
        assert kfolds(np.int64(10), 5) == kfolds(10, np.int64(5)) == leavepout(np.int64(10), 2)
        assert timeseries_kfolds(np.int64(10), k=3) == timeseries_kfolds(10, k=3)

    def test_shuffle(self):
        seed = torch.Generator().manual_seed
        a, b = splitobs(seed(1234), range(100), at=3, shuffle=True)
        assert torch.equal(a, splitobs(range(100), at=3, shuffle=True, rng=seed(1234))[0])
        assert sorted([*a.tolist(), *b.tolist()]) == list(range(100)) and a.tolist() != [0, 1, 2]

    @pytest.mark.parametrize(
        ("at", "first", "second"),
        [
            (0.5, [0, 0, 1, 1, 1], [0, 0, 1, 1, 1]),
            (0.25, [0, 1, 1], [0, 0, 0, 1, 1, 1, 1]),
            (0.0, [], [0, 0, 0, 0, 1, 1, 1, 1, 1, 1]),
            (1.0, [0, 0, 0, 0, 1, 1, 1, 1, 1, 1], []),
        ],
    )
    def test_stratified(self, at, first, second):
        data = nt(a=torch.zeros(2, 10), b=[0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
        a, b = splitobs(data, at=at, stratified=data.b)
        assert a.b.tolist() == first and b.b.tolist() == second and a.a.shape == (2, len(first))
        a, b = splitobs(data, at=at, stratified=data.b, shuffle=True)
        assert sorted(a.b.tolist()) == first and sorted(b.b.tolist()) == second

    def test_bad_input(self):
        with pytest.raises(ValueError, match="must be in interval"):
            splitobs(10, at=1.5)
        with pytest.raises(ValueError, match="must be in interval"):
            splitobs(10, at=11)
        with pytest.raises(ValueError, match="must be in interval"):
            splitobs(10, at=(0.5, 0.6))
        for at in ((1, 0.5), "half", torch.tensor(0.5)):
            with pytest.raises(TypeError, match="fractions"):
                splitobs(10, at=at)
        with pytest.raises(DimensionMismatch, match="must have the same length"):
            splitobs(10, at=0.5, stratified=[0, 1])

    @given(n=st.integers(0, 60), at=st.lists(st.integers(0, 12), max_size=4))
    def test_counts_are_kept_to(self, n, at):
        if sum(at) <= n:
            parts = splitobs(n, at=tuple(at))
            assert [len(p) for p in parts] == [*at, n - sum(at)]
            assert [i for p in parts for i in p] == list(range(n))


class TestFolds:
    def test_documented(self):
        train, val = kfolds(10, 5)
        assert val == [range(0, 2), range(2, 4), range(4, 6), range(6, 8), range(8, 10)]
        assert train == [[i for i in range(10) if i not in v] for v in val]
        assert leavepout(10, 2) == (train, val) and leavepout(15) == kfolds(15, k=15) and kfolds(15) == kfolds(15, 5)

    @given(n=st.integers(2, 60), k=st.integers(2, 60))
    def test_every_place_once(self, n, k):
        if k > n:
            with pytest.raises(ValueError, match=f"must be within 2:{n}"):
                kfolds(n, k)
            return
        train, val = kfolds(n, k)
        assert [i for v in val for i in v] == list(range(n)) and {len(v) for v in val} <= {n // k, n // k + 1}
        assert all(sorted([*t, *v]) == list(range(n)) for t, v in zip(train, val, strict=True))

    def test_data(self):
        folds = kfolds((range(1, 16), torch.arange(11, 26)), k=5)
        assert len(folds) == 5
        for _ in range(2):  # not spent after the first time
            for (xtr, ytr), (xval, yval) in folds:
                assert len(xtr) == len(ytr) == 12 and len(xval) == len(yval) == 3
                assert sorted([*xtr.tolist(), *xval]) == list(range(1, 16))
                assert sorted([*ytr.tolist(), *yval.tolist()]) == list(range(11, 26))
        assert folds[1][1][0] == range(4, 7) and len(folds[0:2]) == 2
        with pytest.raises(IndexError):
            folds[5]

    def test_shuffle(self):
        seed = torch.Generator().manual_seed
        folds = kfolds(seed(42), range(1, 16), k=5, shuffle=True)
        assert sorted(i for _, v in folds for i in v.tolist()) == list(range(1, 16))
        assert [v.tolist() for _, v in folds] != [list(v) for _, v in kfolds(range(1, 16), 5)]
        assert all(sorted([*t.tolist(), *v.tolist()]) == list(range(1, 16)) for t, v in folds)
        again = kfolds(range(1, 16), k=5, shuffle=True, rng=seed(42))
        assert [v.tolist() for _, v in again] == [v.tolist() for _, v in folds]

    @pytest.mark.parametrize("shuffle", [False, True])
    def test_stratified(self, shuffle):
        labels = torch.tensor([0] * 10 + [1] * 20)
        x = torch.arange(30)
        seen = []
        for train, val in kfolds(x, k=5, stratified=labels, shuffle=shuffle):
            assert labels[val].tolist().count(0) == 2 and labels[val].tolist().count(1) == 4
            assert sorted([*train.tolist(), *val.tolist()]) == list(range(30))
            seen += val.tolist()
        assert sorted(seen) == list(range(30))
        with pytest.raises(DimensionMismatch, match=r"must have the same length as the data \(5 != 30\)"):
            kfolds(x, k=5, stratified=labels[:5])
        with pytest.raises(ValueError, match=r"label 0 has 3 observations"):
            kfolds(x, k=5, stratified=[0] * 3 + [1] * 27)

    def test_leavepout(self):
        def val(folds):
            return [list(v) for _, v in folds]

        data = range(1, 16)
        assert val(leavepout(data)) == val(kfolds(data, 15)) and val(leavepout(data, p=5)) == val(kfolds(data, 3))
        assert len(leavepout(torch.arange(30_000))) == 30_000  # whose folds, all at once, would fill the memory
        for p in (0, 8):
            with pytest.raises(ValueError, match="must be within 1:7"):
                leavepout(data, p)

    def test_timeseries(self):
        def ranges(*pairs):
            return [range(a - 1, b) for a, b in pairs]

        train, val = timeseries_kfolds(10, k=3)
        assert train == ranges((1, 4), (1, 6), (1, 8)) and val == ranges((5, 6), (7, 8), (9, 10))
        assert timeseries_kfolds(10, k=3, gap=1) == (ranges((1, 3), (1, 5), (1, 7)), val)
        assert timeseries_kfolds(10, k=3, max_train_size=2)[0] == ranges((3, 4), (5, 6), (7, 8))
        train, val = timeseries_kfolds(12, k=3, gap=1, max_train_size=2)
        assert train == ranges((1, 2), (4, 5), (7, 8)) and val == ranges((4, 6), (7, 9), (10, 12))
        for (xtr, ytr), (xval, yval) in timeseries_kfolds((range(1, 11), torch.arange(11, 21)), k=3):
            assert max(xtr) < min(xval) and ytr.max() < yval.min()

    @pytest.mark.parametrize(
        ("n", "options"),
        [
            (10, {"k": 1}),
            (10, {"k": 10}),
            (3, {"k": 3}),
            (10, {"k": 3, "gap": 10}),
            (10, {"k": 3, "gap": -1}),
            (10, {"k": 3, "max_train_size": 0}),
            (4, {"k": 3, "gap": 1}),
        ],
    )
    def test_timeseries_bad_input(self, n, options):
        with pytest.raises(ValueError):
            timeseries_kfolds(n, **options)


CLASSES = ["a", "c", "c", "a", "b"]
OTHER_CLASSES = ["c", "c", "c", "a", "b"]


class TestResampling:
    x = torch.rand(2, 5)

    def test_group(self):
        assert group_counts(["a", "b", "b"]) == frequencies("abb") == {"a": 1, "b": 2}
        assert group_counts(torch.tensor([[2, 1], [2, 2]])) == {2: 3, 1: 1}
        assert group_counts(["a", "b", "b", "c", "b"])["b"] == 3
        assert group_indices(["yes", "no", "maybe", "yes"]) == {"yes": [0, 3], "no": [1], "maybe": [2]}
        assert (
            group_indices([0, 1, 0, 1, 1]) == group_indices(torch.tensor([0, 1, 0, 1, 1])) == {0: [0, 2], 1: [1, 3, 4]}
        )
        assert group_counts([torch.tensor(1), torch.tensor(1)]) == {1: 2}
        # As in a dictionary of Julia's, arrays are the same if their elements are, and so are all NaNs.
        assert group_counts([[1, 2], [1, 2], torch.tensor([2, 1])]) == {(1, 2): 2, (2, 1): 1}
        assert list(group_counts(torch.tensor([math.nan, 1, math.nan])).values()) == [2, 1]
        assert group_indices([math.nan, 1, -math.nan, float("nan")]) == {math.nan: [0, 2, 3], 1: [1]}
        with pytest.raises(DimensionMismatch):
            group_indices(torch.ones(2, 2))

    def test_oversample(self):
        xo, yo = oversample((self.x, CLASSES), fraction=1, shuffle=False)
        assert nt(a=oversample((self.x, CLASSES), CLASSES, shuffle=False)[0]) == nt(a=(xo, yo))
        assert nt(a=oversample(self.x, CLASSES, shuffle=False)) == nt(a=(xo, yo))
        assert xo.shape == (2, 6) and torch.equal(xo[:, :5], self.x) and torch.equal(xo[:, 5], xo[:, 4])
        assert yo == [*CLASSES, "b"]
        (xo, yo), classes = oversample((self.x, CLASSES), OTHER_CLASSES, shuffle=False)
        assert classes == [*OTHER_CLASSES, "a", "a", "b", "b"] and yo == [*CLASSES, "a", "a", "b", "b"]
        assert torch.equal(xo, self.x[:, [0, 1, 2, 3, 4, 3, 3, 4, 4]])
        xo, yo = oversample(list(range(1, 7)), ["a", "b", "b", "b", "b", "a"], shuffle=False)
        assert yo == ["a", "b", "b", "b", "b", "a", "a", "a"] and xo.tolist() == [1, 2, 3, 4, 5, 6, 1, 6]

    def test_oversample_shuffled(self):
        seed = torch.Generator().manual_seed
        x, labels = torch.arange(6), ["a", "b", "b", "b", "b", "a"]
        xo, yo = oversample(seed(0), x, labels)
        assert yo.count("a") == yo.count("b") == 4 and all(labels[i] == c for i, c in zip(xo, yo, strict=True))
        assert set(xo.tolist()) == set(range(6)) and torch.equal(xo, oversample(x, labels, rng=seed(0))[0])
        assert group_counts(oversample(x, labels, fraction=0.75)[1]) == {"a": 3, "b": 4}

    def test_undersample(self):
        xo, yo = undersample((self.x, CLASSES), shuffle=False)
        assert torch.equal(xo, self.x[:, [0, 1, 4]]) and yo == ["a", "c", "b"]
        (xo, yo), _ = undersample((self.x, CLASSES), OTHER_CLASSES, shuffle=False)
        assert xo.shape == (2, 3) and torch.equal(xo[:, 1:], self.x[:, 3:]) and len(yo) == 3
        xo, yo = undersample(list(range(1, 7)), ["a", "b", "b", "b", "b", "a"], shuffle=False)
        assert xo.tolist() == [1, 2, 3, 6] and yo == ["a", "b", "b", "a"]
        xo, yo = undersample(torch.arange(6), ["a", "b", "b", "b", "b", "a"])
        assert group_counts(yo) == {"a": 2, "b": 2} and len(set(xo.tolist())) == 4

    def test_bad_input(self):
        for f in (oversample, undersample):
            with pytest.raises(DimensionMismatch, match="a class for each observation"):
                f(self.x, CLASSES[:3])
            with pytest.raises(TypeError, match="give the classes"):
                f(self.x)


class TestTransforms:
    def test_mapobs(self):
        data = mapobs(operator.neg, range(1, 11))
        assert getobs(data, 7) == -8 and len(data) == numobs(data) == 10
        assert getobs(mapobs((operator.neg, lambda x: 2 * x), range(1, 11)), 7) == (-8, 16)
        assert mapobs(lambda x: 2 * x, [*range(1, 11)])[:].tolist() == [*range(2, 22, 2)]
        assert getobs(mapobs(lambda x: x**2, [1, 2, 3, 4]), range(4)).tolist() == [1, 4, 9, 16]
        assert repr(mapobs(sqrt, [1, 2])) == "mapobs(sqrt, [1, 2]; batched=:auto)"

    def test_named_tuple_of_functions(self):
        data = mapobs(nt(x=sqrt, y=log), range(1, 11))
        assert getobs(data, 9) == nt(x=math.sqrt(10), y=math.log(10)) and getobs(data.x, 9) == math.sqrt(10)
        assert getobs(data, 3) == nt(x=2.0, y=1.3862943611198906) and numobs(data) == 10
        with pytest.raises(AttributeError, match="no field 'z'"):
            data.z  # noqa: B018

    @pytest.mark.parametrize("batched", ["auto", "always", "never"])
    def test_batched(self, batched):
        seen = []

        def f(x):
            seen.append(x.a.ndim)
            return nt(c=2 * x.a)

        data = mapobs(f, nt(a=[*range(1, 11)]), batched=batched)
        assert data[0] == nt(c=torch.tensor(2))
        assert seen == [1 if batched == "always" else 0]
        two = data[0:2]
        if batched == "never":
            assert two == [nt(c=torch.tensor(2)), nt(c=torch.tensor(4))] and seen == [0, 0, 0]
        else:
            assert two == nt(c=[2, 4]) and seen[1:] == [1]

    def test_bad_batched(self):
        with pytest.raises(ValueError, match="'sometimes'"):
            mapobs(sqrt, [1], batched="sometimes")

    def test_filterobs_and_groupobs(self):
        assert filterobs(lambda x: x > 5, range(1, 11)).tolist() == [6, 7, 8, 9, 10]
        assert numobs(filterobs(lambda o: o[1] == "setosa", (X, y))) == 5
        groups = groupobs(lambda x: x > 0, range(-10, 11))
        assert {k: len(v) for k, v in groups.items()} == {False: 11, True: 10}
        groups = groupobs(lambda x: x % 2 == 0, torch.arange(1, 7))
        assert groups[True].tolist() == [2, 4, 6] and list(groups) == [False, True]
        assert list(groupobs(lambda o: o[1], (X, y))) == ["setosa", "versicolor", "virginica"]
        groups = groupobs(lambda o: o[1], (Y1[:4], onehotbatch("abab", "ab")))
        assert {k: v[0].tolist() for k, v in groups.items()} == {(True, False): [1, 3], (False, True): [2, 4]}

    def test_joinobs(self):
        assert getobs(joinobs(range(1, 11), range(11, 21)), 14) == 15
        data = joinobs(range(1, 6), range(6, 11))
        assert data[4:6].tolist() == [5, 6] and data[-1] == 10
        data = joinobs(torch.ones(2, 3), torch.zeros(2, 3))
        assert [x.tolist() for x in data[2:4]] == [[1.0, 1.0], [0.0, 0.0]]
        d1, d2, d3 = range(1, 11), range(11, 21), range(21, 31)
        data = joinobs(joinobs(d1, d2), d3)
        assert data.datas == (d1, d2, d3) and len(data) == 30 and getobs(data, 24) == 25
        data = joinobs(range(1, 6), torch.ones(2, 3))
        assert data[2] == 3 and data[5].tolist() == [1.0, 1.0]
        assert repr(joinobs(d1, d2)) == "20-element JoinedData"
        assert getobs(joinobs([1, 2, 3], [4, 5]), range(5)).tolist() == [1, 2, 3, 4, 5]
        with pytest.raises(IndexError):
            data[8]

    def test_pipeline(self):
        train, test = splitobs(shuffleobs((X1.float(), Y1)), at=0.8)
        scaled = mapobs(lambda d: (d[0] * 10, d[1]), train)
        batches = list(eachobs(scaled, batchsize=5))
        assert [numobs(b) for b in batches] == [5, 5, 2] and numobs(test) == 3
        assert all((b[0] == 10 * b[1]).all() for b in batches)


class TestSlidingWindow:
    def test_documented(self):
        s = slidingwindow(range(11, 31), size=6)
        assert repr(s) == "slidingwindow(20-element UnitRange{Int64}, size=6, stride=1)"
        assert s[0] == range(11, 17) and s[1] == range(12, 18) and getobs(s, [0, 1]) == [range(11, 17), range(12, 18)]
        s = slidingwindow(range(11, 31), size=6, stride=3)
        assert list(s) == [range(11, 17), range(14, 20), range(17, 23), range(20, 26), range(23, 29)]
        s = slidingwindow(range(1, 11), size=3, stride=2)
        assert [list(w) for w in s] == [[1, 2, 3], [3, 4, 5], [5, 6, 7], [7, 8, 9]]

    def test_lengths(self):
        assert len(slidingwindow(range(20), size=5)) == 16
        s = slidingwindow(range(1, 21), size=5, stride=3)
        assert len(s) == 6 and list(s) == [range(a, a + 5) for a in (1, 4, 7, 10, 13, 16)]

    def test_arrays(self):
        s = slidingwindow(column_major(18, 3, 6), size=2)
        assert [w.tolist() for w in s[0:2]] == [[[1, 4], [2, 5], [3, 6]], [[4, 7], [5, 8], [6, 9]]] and len(s) == 5
        x = torch.rand(2, 6, 4)
        s = slidingwindow(x, size=2, obsdim=1)
        assert len(s) == 5 and all(torch.equal(s[i], x[:, i : i + 2]) for i in range(4))
        assert repr(s) == "slidingwindow(2×6×4 Array{Float32, 3}, size=2, stride=1, obsdim=1)"
        assert [numobs(w) for w in DataLoader(slidingwindow("abcdef", size=3), batchsize=-1)] == [3] * 4

    @pytest.mark.parametrize(("size", "stride"), [(0, 1), (2, 0), (21, 1)])
    def test_bad_input(self, size, stride):
        with pytest.raises(ValueError, match="Specified"):
            slidingwindow(range(20), size=size, stride=stride)


class TestBatch:
    def test_documented(self):
        assert batch([[1, 2, 3], [4, 5, 6]]).tolist() == [[1, 4], [2, 5], [3, 6]]
        assert batch([[1, 2], [3, 4], [5, 6]]).tolist() == [[1, 3, 5], [2, 4, 6]]
        assert [v.tolist() for v in unbatch([[1, 3, 5, 7], [2, 4, 6, 8]])] == [[1, 2], [3, 4], [5, 6], [7, 8]]
        fields = batch([nt(a=[1, 2], b=[3, 4]), nt(a=[5, 6], b=[7, 8])])
        assert fields == nt(a=[[1, 5], [2, 6]], b=[[3, 7], [4, 8]])

    def test_arrays(self):
        stacked = torch.tensor([[8, 9, 3, 5], [9, 6, 6, 9], [9, 1, 7, 2], [7, 4, 10, 6]])
        unstacked = [[8, 9, 9, 7], [9, 6, 1, 4], [3, 6, 7, 10], [5, 9, 2, 6]]
        assert [v.tolist() for v in unbatch(stacked)] == unstacked and torch.equal(batch(unstacked), stacked)
        assert batch([1, 2, 3]).tolist() == unbatch([1, 2, 3]).tolist() == [1, 2, 3]
        assert torch.equal(batch(torch.ones(2) for _ in range(3)), torch.ones(2, 3))
        assert batch(torch.tensor([1, 2])).tolist() == [1, 2] and unbatch(["a"]) == ["a"]
        assert batch([torch.rand(4, 5)] * 3).shape == (4, 5, 3)
        assert batch([torch.tensor(1.0), 2]).tolist() == [1.0, 2.0]

    def test_tuples_and_dicts(self):
        assert nt(a=batch([(1, 2), (3, 4)])) == nt(a=(torch.tensor([1, 3]), torch.tensor([2, 4])))
        x, z = batch([([1, 2], [3, 4]), ([5, 6], [7, 8])])
        assert x.tolist() == [[1, 5], [2, 6]] and z.tolist() == [[3, 7], [4, 8]]
        assert batch([nt(a=1, b=2), nt(b=4, a=3)]) == nt(a=[1, 3], b=[2, 4])
        assert list(batch([nt(y=1, x="a")]).keys()) == ["x", "y"]
        assert {k: v.tolist() for k, v in batch([{"a": 1, "b": 2}, {"b": 4, "a": 3}]).items()} == {
            "a": [1, 3],
            "b": [2, 4],
        }
        assert batch([{"a": [1, 2]}, {"a": [5, 6]}])["a"].tolist() == [[1, 5], [2, 6]]

    def test_other_things(self):
        assert batch("ab") == ["a", "b"] and batch([None, "a"]) == [None, "a"]
        assert batch([["a", "b", "c"], ["d", "e", "f"]]) == [["a", "d"], ["b", "e"], ["c", "f"]]

    def test_bad_input(self):
        with pytest.raises(ValueError, match="should be non-empty"):
            batch([])
        with pytest.raises(ValueError, match="different keys"):
            batch([nt(a=1), nt(b=1)])
        with pytest.raises(ValueError, match="different keys"):
            batch([{"a": 1}, {"a": 1, "b": 2}])
        with pytest.raises(DimensionMismatch, match="different lengths"):
            batch([(1, 2), (1,)])
        with pytest.raises(DimensionMismatch, match="one size"):
            batch([[1, 2], [1]])
        with pytest.raises(TypeError, match="stack takes an array, but got 3"):
            batch([[1, 2], 3])

    def test_gradient(self):
        xs = [torch.rand(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
        assert torch.autograd.gradcheck(lambda *xs: batch(xs), xs)
        assert torch.autograd.gradgradcheck(lambda *xs: batch_sequence(xs) ** 2, xs)

    @given(st.lists(st.lists(st.integers(-5, 5), min_size=2, max_size=2), min_size=1, max_size=5))
    def test_unbatch_is_the_inverse(self, xs):
        assert [v.tolist() for v in unbatch(batch(xs))] == xs


class TestSequences:
    def test_batchseq(self):
        assert [b.tolist() for b in batchseq([[1, 2, 3], [4, 5]], 0)] == [[1, 4], [2, 5], [3, 0]]
        assert [b.tolist() for b in batchseq([[1, 2, 3], [4, 5]], -1)] == [[1, 4], [2, 5], [3, -1]]
        ones, zeros = torch.ones(3), torch.zeros(3)
        steps = batchseq([[ones, ones, ones], [zeros, zeros]], [-1, -1, -1])
        assert [s.tolist() for s in steps] == [[[1, 0]] * 3, [[1, 0]] * 3, [[1, -1]] * 3] and steps[
            2
        ].dtype == torch.float32
        steps = batchseq([torch.ones(2, 4), torch.zeros(2, 3), torch.ones(2, 2)])
        assert [s.tolist() for s in steps] == [[[1, 0, 1]] * 2] * 2 + [[[1, 0, 0]] * 2] * 2
        for n, steps in ((1, [[1, 4]]), (4, [[1, 4], [2, 5], [3, 0], [0, 0]])):
            assert [b.tolist() for b in batchseq([[1, 2, 3], [4, 5]], 0, n)] == steps
            assert batchseq([["1", "2", "3"], ["4", "5"]], "0", n) == [list(map(str, step)) for step in steps]

    def test_batchseq_of_anything(self):
        assert batchseq(["abc", "de"], "_") == [["a", "d"], ["b", "e"], ["c", "_"]]
        assert batchseq(chunk("abcdefgh", 3), "_") == [["a", "d", "g"], ["b", "e", "h"], ["c", "f", "_"]]
        assert batchseq([["x", None], ["y"]], "pad") == [["x", "y"], [None, "pad"]]
        assert batchseq([[1, 2], [3]], None)[1] == [2, None]  # the default up to Flux 0.12
        steps = batchseq([column_major(4, 2, 2), [torch.tensor([5, 6])]], [0, 0])
        assert [s.tolist() for s in steps] == [[[1, 5], [2, 6]], [[3, 0], [4, 0]]]

    def test_batch_sequence(self):
        seqs = batch_sequence([[1, 2, 3], [10, 20]])
        assert seqs.tolist() == [[1, 10], [2, 20], [3, 0]] and seqs.dtype == torch.int64
        seqs = batch_sequence((torch.ones(2, 3), torch.full((2, 5), 2.0)), pad=-1)
        assert seqs[:, :, 0].tolist() == [[1, 1, 1, -1, -1]] * 2 and seqs[:, :, 1].tolist() == [[2] * 5] * 2
        seqs = batch_sequence((torch.ones(2, 1), torch.full((2, 3), 2.0)), pad=-1)
        assert seqs[:, :, 0].tolist() == [[1, -1, -1]] * 2 and seqs[:, :, 1].tolist() == [[2, 2, 2]] * 2
        assert batch_sequence([[1, 2], [0.5]]).tolist() == [[1, 0.5], [2, 0]]

    def test_bad_input(self):
        with pytest.raises(DimensionMismatch, match="Array dimensions do not match"):
            batch_sequence([torch.ones(2, 3), torch.ones(3, 3)])
        with pytest.raises(ValueError, match="at least one"):
            batch_sequence([])
        with pytest.raises(ValueError, match="at least one"):
            batchseq([])
        with pytest.raises(ValueError, match=r"0\.5 can't be an element of an array of int64"):
            batchseq([[1, 2], [3]], 0.5)


class TestChunk:
    def test_documented(self):
        assert chunk(range(1, 11), 3) == [range(1, 5), range(5, 9), range(9, 11)]
        assert chunk(range(1, 11), size=2) == [range(a, a + 2) for a in (1, 3, 5, 7, 9)]
        assert chunk(range(1, 7), size=[2, 4]) == [range(1, 3), range(3, 7)]
        assert chunk(range(1, 11), size=3) == [range(1, 4), range(4, 7), range(7, 10), range(10, 11)]
        assert [c.tolist() for c in chunk([*range(1, 11)], 3)] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]
        x = column_major(20, 5, 4)
        a, b = chunk(x, 2, dims=0)
        assert a.tolist() == [[1, 6, 11, 16], [2, 7, 12, 17], [3, 8, 13, 18]]
        assert b.tolist() == [[4, 9, 14, 19], [5, 10, 15, 20]]
        _, b = chunk(x, size=2, dims=1)
        assert b.tolist() == [[11, 16], [12, 17], [13, 18], [14, 19], [15, 20]]
        assert [c.tolist() for c in chunk(x, 2)] == [c.tolist() for c in chunk(x, size=2, dims=1)]
        assert [c.tolist() for c in chunk(torch.arange(1, 11).reshape(5, 2), size=2, dims=0)] == [
            [[1, 2], [3, 4]],
            [[5, 6], [7, 8]],
            [[9, 10]],
        ]
        a, b = chunk(column_major(10, 5, 2), dims=0, size=(1, 4))
        assert a.tolist() == [[1, 6]] and b.tolist() == [[2, 7], [3, 8], [4, 9], [5, 10]]

    def test_by_partition(self):
        parts = chunk(column_major(10, 2, 5), [0, 1, 1, 2, 2])
        assert [p.tolist() for p in parts] == [[[1], [2]], [[3, 5], [4, 6]], [[7, 9], [8, 10]]]
        x = column_major(15, 3, 5)
        parts = chunk(x, [0, 0, 2, 2, 3])
        assert [p.shape[1] for p in parts] == [2, 0, 2, 1] and parts[2].tolist() == [[7, 10], [8, 11], [9, 12]]
        assert parts[0].tolist() == [[1, 4], [2, 5], [3, 6]] and parts[3].tolist() == [[13], [14], [15]]
        assert [p.shape[1] for p in chunk(x, torch.tensor([0, 0, 2, 2, 3]), npartitions=5)] == [2, 0, 2, 1, 0]
        a, b = chunk(x, [0, 0, 1], dims=0)
        assert a.tolist() == [[1, 4, 7, 10, 13], [2, 5, 8, 11, 14]] and b.tolist() == [[3, 6, 9, 12, 15]]

    def test_other_things(self):
        assert chunk("abcdefg", 3) == ["abc", "def", "g"] and chunk(["a", None, 1], size=2) == [["a", None], [1]]
        assert chunk([[1, 2], [3, 4], [5, 6]], 3) == [[[1, 2]], [[3, 4]], [[5, 6]]]
        assert [c.tolist() for c in chunk([[1, 2], [3, 4]], 2, dims=1)] == [[[1], [3]], [[2], [4]]]
        assert chunk([], 2) == [] and len(chunk(torch.arange(10), 6)) == 5

    def test_views_and_gradients(self):
        x = torch.zeros(2, 4)
        chunk(x, 2)[1].fill_(1)
        assert x[0].tolist() == [0, 0, 1, 1]
        for options in ({"n": 3}, {"size": (1, 4), "dims": 0}):
            x = torch.rand(5, 4, dtype=torch.float64, requires_grad=True)
            assert torch.autograd.gradcheck(lambda x, o=options: [c**2 for c in chunk(x, **o)], x)
            assert torch.autograd.gradgradcheck(lambda x, o=options: [c**2 for c in chunk(x, **o)], x)

    def test_bad_input(self):
        with pytest.raises(ValueError, match="must be sorted"):
            chunk(range(3), [1, 0, 1])
        with pytest.raises(ValueError, match="The sum of the sizes must be equal to 6, the length of the dimension"):
            chunk(range(6), size=[2, 3])
        with pytest.raises(ValueError, match="from 0 to 1"):
            chunk(range(3), [0, 1, 2], npartitions=2)
        with pytest.raises(TypeError, match="npartitions goes with a list"):
            chunk(range(3), 2, npartitions=2)
        for options in ({}, {"n": 2, "size": 2}, {"n": 0}, {"size": 0}, {"n": [-1, 0, 0]}):
            with pytest.raises(ValueError):
                chunk(range(3), **options)
        with pytest.raises(IndexError):
            chunk(torch.ones(2, 2), 2, dims=2)
        with pytest.raises(IndexError):
            chunk("abc", 2, dims=1)

    @given(n=st.integers(1, 30), parts=st.integers(1, 12))
    def test_put_together_again(self, n, parts):
        xs = chunk(torch.arange(n), parts)
        assert torch.equal(torch.cat(xs), torch.arange(n)) and len(xs) <= parts
        assert {len(x) for x in xs[:-1]} <= {-(-n // parts)}


class TestShapes:
    def test_unsqueeze(self):
        x = torch.randn(2, 3, 2)
        for d, size in enumerate([(1, 2, 3, 2), (2, 1, 3, 2), (2, 3, 1, 2), (2, 3, 2, 1)]):
            assert torch.equal(unsqueeze(x, dims=d), x.reshape(size)) and unsqueeze(x, d).shape == size
            assert unsqueeze(dims=d)(x).shape == unsqueeze(d)(x).shape == size
        assert unsqueeze([[1, 2], [3, 4]], dims=1)[:, :, 1].tolist() == [[2], [4]]
        assert unsqueeze(torch.ones(21, 22, 23), dims=-1).shape == (21, 22, 23, 1)
        m = Chain(unsqueeze(2), unsqueeze(3), Conv((3, 3), 1 | to | 7, pad=SamePad()))
        assert m(torch.rand(10, 10)).shape == (10, 10, 7, 1)
        m = Chain(unsqueeze(2), unsqueeze(dims=3))
        assert m(torch.ones(10, 10)).shape == (10, 10, 1, 1) and str(m) == "Chain(unsqueeze(dims=2), unsqueeze(dims=3))"

    def test_unsqueeze_bad_input(self):
        with pytest.raises(IndexError, match="can get a new axis at 0 to 2, but not at 3"):
            unsqueeze(torch.rand(2, 2), dims=3)
        with pytest.raises(TypeError, match="needs dims"):
            unsqueeze()
        with pytest.raises(TypeError, match="unsqueeze takes an array"):
            unsqueeze(["a"], dims=0)

    def test_stack(self):
        xs = [[1, 2], [3, 4], [5, 6]]
        assert stack(xs, 0).tolist() == xs and stack(xs, dims=0).tolist() == xs
        assert stack(xs).tolist() == stack(xs, dims=1).tolist() == [[1, 3, 5], [2, 4, 6]]
        x = torch.randn(3, 3)
        assert stack([x, x], dims=1).shape == (3, 2, 3) and torch.equal(stack([x, x], 1)[:, 1], x)
        assert stack([[1]] * 10000, dims=0).shape == (10000, 1) and stack([[1]] * 10000, dims=1).shape == (1, 10000)
        assert stack([1, 2]).tolist() == [1, 2] and stack([[1], [0.5]]).tolist() == [[1.0, 0.5]]
        x = [reversed_memory(2, 3), reversed_memory(2, 3)]
        for d in (0, 1, 2, -1, -3):
            assert torch.equal(stack(x, dims=d), torch.stack(x, d))
        assert stack(x).permute(2, 1, 0).is_contiguous()

    @pytest.mark.parametrize("f", [unsqueeze, unstack, lambda x, dims: stack([x, 2 * x], dims)])
    def test_gradients(self, f):
        x = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
        for d in (0, 1):
            assert torch.autograd.gradcheck(lambda x, d=d: f(x, dims=d), x)

    def test_stack_bad_input(self):
        with pytest.raises(DimensionMismatch, match="stack needs arrays of one size"):
            stack([[1, 2], [1]])
        with pytest.raises(IndexError):
            stack([[1, 2]], dims=2)
        with pytest.raises(ValueError, match="at least one"):
            stack([])
        with pytest.raises(TypeError):
            stack(torch.ones(2, 2))

    def test_unstack(self):
        stacked = torch.tensor([[8, 9, 3, 5], [9, 6, 6, 9], [9, 1, 7, 2], [7, 4, 10, 6]])
        unstacked = [[8, 9, 9, 7], [9, 6, 1, 4], [3, 6, 7, 10], [5, 9, 2, 6]]
        assert [v.tolist() for v in unstack(stacked, dims=1)] == [v.tolist() for v in unstack(stacked, 1)] == unstacked
        assert torch.equal(stack(unstacked, dims=1), stacked) and torch.equal(stack(unstack(stacked, 0), 0), stacked)
        assert [v.tolist() for v in unstack([[1, 3, 5, 7], [2, 4, 6, 8]], dims=1)] == [[1, 2], [3, 4], [5, 6], [7, 8]]
        assert gradient(lambda x: (unstack(x, 1)[0] ** 2).sum(), torch.ones(2, 2))[0].tolist() == [[2, 0], [2, 0]]

    def test_flatten(self):
        x = reversed_memory(10, 10, 3, 2)
        assert flatten(x).shape == (300, 2) and flatten(x).data_ptr() == x.data_ptr()
        assert flatten(column_major(12, 2, 3, 2)).tolist() == column_major(12, 6, 2).tolist()
        assert flatten(torch.rand(3, 4, 5)).shape == (12, 5) and flatten([1.0, 2.0]).shape == (1, 2)
        assert flatten(torch.ones(3, 4, 0)).shape == (12, 0) and flatten(torch.ones(0, 4, 2)).shape == (0, 2)

    def test_rpad_constant(self):
        assert rpad_constant([1, 2], 4, -1).tolist() == [1, 2, -1, -1] and rpad_constant([1, 2, 3], 2).tolist() == [
            1,
            2,
            3,
        ]
        x = [[1, 2], [3, 4]]
        assert rpad_constant(x, 4, dims=0).tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]
        assert rpad_constant(x, 4).tolist() == [[1, 2, 0, 0], [3, 4, 0, 0], [0] * 4, [0] * 4]
        assert rpad_constant(x, (3, 4)).tolist() == [[1, 2, 0, 0], [3, 4, 0, 0], [0] * 4]
        assert rpad_constant(x, (3, 4), dims=(1, 0)).shape == (4, 3) and rpad_constant(x, 3, dims=-1).shape == (2, 3)
        assert rpad_constant(["a"], 3, "_") == ["a", "_", "_"] and rpad_constant([1, 2], 3, 5.0).dtype == torch.int64
        with pytest.raises(DimensionMismatch, match="3 lengths for 2 axes"):
            rpad_constant(x, (1, 2, 3))
        with pytest.raises(IndexError):
            rpad_constant(x, 3, dims=2)
        with pytest.raises(ValueError, match="can't be an element"):
            rpad_constant([1, 2], 3, 0.5)
        with pytest.raises(TypeError, match="float"):
            rpad_constant([1, 2], 3.5)


class TestScales:
    def test_normalise_of_flux(self):
        x = normalise([90, 100, 110, 130, 70])
        expected = [-0.49999975000012503, 0.0, 0.49999975000012503, 1.499999250000375, -1.499999250000375]
        assert_close(x, torch.tensor(expected, dtype=torch.float64), rtol=1e-15, atol=0)

    def test_normalise(self):
        x = torch.randn(3, 2, 2)
        assert torch.equal(normalise(x), normalise(x, dims=2))
        x = torch.randn(3, 4)
        z = normalise(x, dims=0, ε=0)
        assert_close(z.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
        assert_close(z.std(0, correction=0), torch.ones(4), atol=1e-5, rtol=0)
        assert_close(normalise(x, dims=None, eps=0.5), (x - x.mean()) / (x.std(correction=0) + 0.5))
        assert normalise(torch.ones(2, 2)).tolist() == [[0, 0], [0, 0]]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert normalise(torch.ones(2, 0)).shape == (2, 0) and normalise(torch.ones(0, 2)).shape == (0, 2)
        assert gradient(lambda x: normalise(x, dims=()).sum(), torch.ones(2))[0].tolist() == [0, 0]

    def test_rescale(self):
        x = torch.randn(3, 2, 2)
        assert torch.equal(rescale(x), rescale(x, dims=2))
        z = rescale(torch.randn(3, 4), dims=0, ε=0)
        assert z.amin(0).tolist() == [0] * 4 and z.amax(0).tolist() == [1] * 4
        assert_close(rescale([10, 20, 30], eps=10), torch.tensor([0, 1 / 3, 2 / 3], dtype=torch.float64))

    @pytest.mark.parametrize("f", [normalise, rescale])
    def test_gradients(self, f):
        x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: f(x, dims=(0, 1)), x) and torch.autograd.gradgradcheck(f, x)
        assert gradient(lambda x: (f(x) ** 2).sum(), torch.ones(2, 3))[0].isfinite().all()
        with pytest.raises(IndexError):
            f(x, dims=2)

    def test_topk(self):
        x = torch.tensor([[1, 8, 3], [6, 2, 5], [4, 9, 7]])
        values, places = topk(x, 2, dims=1)
        assert values.tolist() == [[8, 3], [6, 5], [9, 7]] and places.tolist() == [[1, 2], [0, 2], [1, 2]]
        assert [v.tolist() for v in topk([5, 1, 4, 2, 3], 3)] == [[5, 4, 3], [0, 2, 4]]
        assert [v.tolist() for v in topk([5, 1, 4, 2, 3], 2, rev=False)] == [[1, 2], [1, 3]]
        assert topk([1, 2, 2, 2, 1] * 10, 3)[1].tolist() == [1, 2, 3]
        x = torch.randn(6, 8)
        for d in (0, 1):
            for rev in (True, False):
                values, places = topk(x, 3, dims=d, rev=rev)
                assert torch.equal(values, torch.topk(x, 3, d, largest=rev)[0])
                assert torch.equal(x.gather(d, places), values)

    def test_topk_gradient(self):
        x = torch.tensor([[1.0, 5.0], [3.0, 2.0], [2.0, 4.0]])
        grad = gradient(lambda x: (topk(x, 2)[0] ** 2).sum(), x)[0]
        assert grad.tolist() == [[0, 10], [6, 0], [4, 8]]

    @pytest.mark.parametrize("k", [0, 4])
    def test_topk_bad_input(self, k):
        with pytest.raises(ValueError, match=f"k={k} must be in the range"):
            topk([1, 2, 3], k)
        with pytest.raises(TypeError, match="float"):
            topk([1, 2, 3], k + 0.5)


class TestLike:
    x = torch.rand(2, 3).half()

    @pytest.mark.parametrize(
        ("f", "val"), [(ones_like, 1), (zeros_like, 0), (lambda x, *a: fill_like(x, 2.2, *a), 2.2)]
    )
    def test_filled(self, f, val):
        assert torch.equal(f(self.x, (2, 4, 2)), torch.full((2, 4, 2), val, dtype=torch.float16))
        assert torch.equal(f(self.x), torch.full((2, 3), val, dtype=torch.float16))
        assert torch.equal(f(self.x, torch.float64), torch.full((2, 3), val, dtype=torch.float64))
        assert torch.equal(f(self.x, torch.float32, 4), torch.full((4,), val)) and f([1.5], 2, 3).shape == (2, 3)
        assert f(reversed_memory(3, 4)).stride() == (1, 3)

    def test_bools(self):
        assert trues_like(self.x, (2, 4, 2)).dtype == torch.bool and trues_like(self.x, (2, 4, 2)).all()
        assert falses_like(self.x).shape == (2, 3) and not falses_like(self.x).any()

    @pytest.mark.parametrize(("f", "draw"), [(rand_like, torch.rand), (randn_like, torch.randn)])
    def test_random(self, f, draw):
        seed = torch.Generator().manual_seed
        for z in (f(seed(42), self.x, (2, 4, 2)), f(self.x, (2, 4, 2), rng=seed(42))):
            assert torch.equal(z, draw(2, 4, 2, dtype=torch.float16, generator=seed(42)))
        assert f(self.x, torch.float64).dtype == torch.float64 and f(self.x, 5).shape == (5,)

    def test_random_integers(self):
        assert rand_like([1, 2, 3]).dtype == torch.int64 and rand_like([True], 5).dtype == torch.bool
        with pytest.raises(TypeError, match="normal random numbers can't be elements of an array of int64"):
            randn_like([1, 2])

    def test_gradient_of_the_value(self):
        x = torch.rand(5)
        g = gradient(lambda x, v: (fill_like(x, v, (2, 4, 2)) * 3).sum(), x, torch.tensor(2.0))
        assert g[0] is None and g[1] == 48

    def test_a_value_that_does_not_fit(self):
        for x, val in (([1, 2], 1.5), ([1, 2], torch.tensor(1.5)), ([1], math.nan), ([1.0], 1j), ([True], 2)):
            with pytest.raises(ValueError, match="can't be an element of an array of"):
                fill_like(x, val)
        for val in (-1, 256):
            for f in (fill_like, lambda x, v: rpad_constant(x, 4, v)):
                with pytest.raises(ValueError, match=f"{val} can't be an element of an array of uint8"):
                    f(torch.tensor([1, 2], dtype=torch.uint8), val)
        for val in (torch.ones(3), "a", None):
            with pytest.raises(TypeError, match="an array is filled up with a number, but got"):
                fill_like(torch.ones(2, 3), val)
        assert fill_like([1, 2], torch.tensor(2.0)).tolist() == fill_like([1, 2], 2.0).tolist() == [2, 2]


@pytest.mark.parametrize("like", [rand_like, randn_like])
def test_random_arrays_keep_the_order_in_memory(like):
    x = torch.ones(4, 3).T
    torch.manual_seed(1)
    y = like(x)
    torch.manual_seed(1)
    assert y.stride() == x.stride() and torch.equal(y.T, like(x.T.contiguous()))
    assert torch.equal(like(x, rng=torch.Generator().manual_seed(1)), like(x, rng=torch.Generator().manual_seed(1)))
