"""`BatchView`, `DataLoader` and `eachobs`: what MLUtils.jl and Flux test of them, and what must hold for any data."""

import collections
import itertools
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fluxtorch as Flux
from fluxtorch import Descent, DimensionMismatch, OneHotMatrix, cpu, cpu_device, nt, onehotbatch, params
from fluxtorch.base import sqrt
from fluxtorch.mlutils import (
    BatchView,
    DataLoader,
    ObsView,
    batchsize,
    eachobs,
    getobs,
    mapobs,
    numobs,
    obsview,
    shuffleobs,
)

X2 = torch.arange(1, 11).reshape(5, 2).T
Y2 = torch.arange(1, 6)
X = torch.rand(4, 15)
Y = [name for name in ("setosa", "versicolor", "virginica") for _ in range(5)]
FIRST_OF_X2 = [[[1, 3], [2, 4]], [[5, 7], [6, 8]], [[9], [10]]]


class Places:
    def numobs(self):
        return 15

    def getobs(self, i):
        return i if isinstance(i, int) else torch.tensor(i)


class Dataset(torch.utils.data.Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        if not 0 <= i < 5:
            raise IndexError(i)
        return torch.full((2, 3), float(i)), i


def same(a, b):
    return nt(a=a) == nt(a=b)


class TestBatchView:
    @pytest.mark.parametrize("data", [X, Y, (X, Y), nt(x=X, y=Y), {"x": X}, Places(), ObsView(X)])
    def test_batches(self, data):
        a = BatchView(data, batchsize=5)
        assert len(a) == numobs(a) == 3 and batchsize(a) == a.batchsize == 5
        for i, places in enumerate((range(0, 5), range(5, 10), range(10, 15))):
            assert same(a[i], getobs(data, places)) and same(getobs(a, i), a[i]) and same(a[i - 3], a[i])
        assert same(a[1:3], getobs(data, range(5, 15)))
        assert same(a[[0, 2]], getobs(data, [*range(5), *range(10, 15)])) and same(a[[0, 2, 0]], a[[0, 2]])
        assert same(getobs(a), getobs(data, range(15))) and same(list(a), [a[0], a[1], a[2]])
        for i in (3, -4):
            with pytest.raises(IndexError):
                a[i]
        assert same(getobs(obsview(a, range(1, 3)), 0), a[1]) and len(ObsView(a, [0, 2])) == 2

    @pytest.mark.parametrize(("partial", "n"), [(True, 4), (False, 3)])
    def test_partial(self, partial, n):
        a = BatchView([*range(1, 11)], batchsize=3, partial=partial)
        assert len(a) == n and [b.tolist() for b in a][:3] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
        a = BatchView(range(1, 13), batchsize=5, partial=partial)
        assert a[0] == range(1, 6) and a[1] == range(6, 11) and len(a) == n - 1

    def test_collate(self):
        assert BatchView(X, batchsize=2, collate=True)[0].shape == (4, 2)
        assert [x.shape for x in BatchView(X, batchsize=2, collate=False)[0]] == [(4,), (4,)]
        x, y = BatchView((X, Y), batchsize=2, collate=True)[0]
        assert torch.equal(x, X[:, :2]) and y == ["setosa", "setosa"]
        (x, y), _ = BatchView((X, Y), batchsize=2, collate=False)[0]
        assert torch.equal(x, X[:, 0]) and y == "setosa"

    def test_more_than_there_are(self):
        with pytest.warns(
            UserWarning, match="Number of observations less than batch-size, decreasing the batch-size to 15"
        ):
            a = BatchView(X, batchsize=16)
        assert len(a) == 1 and batchsize(a) == 15

    def test_bad_input(self):
        with pytest.raises(ValueError, match="batchsize=0"):
            BatchView(X, batchsize=0)
        with pytest.raises(TypeError, match="data must have a length"):
            BatchView(object())
        with pytest.raises(DimensionMismatch):
            BatchView((torch.rand(2, 10), torch.rand(9)))

    def test_printing(self):
        assert repr(BatchView([1, 2], batchsize=1)) == "BatchView([1, 2], batchsize=1, partial=true, collate=nothing)"


class TestDataLoader:
    @pytest.mark.parametrize(("partial", "n"), [(True, 3), (False, 2)])
    def test_kinds_of_data(self, partial, n):
        options = {"batchsize": 2, "partial": partial}
        xs = [torch.tensor(b) for b in FIRST_OF_X2[:n]]
        ys = list(Y2.split(2))[:n]
        assert len(DataLoader(X2, **options)) == n and same(list(DataLoader(X2, **options)), xs)
        assert same(list(DataLoader((X2,), **options)), [(x,) for x in xs])
        for loader in (DataLoader((X2, Y2), **options), DataLoader(X2, Y2, **options)):
            assert same(list(loader), list(zip(xs, ys, strict=True)))
        assert list(DataLoader(nt(x=X2, y=Y2), **options)) == [nt(x=x, y=y) for x, y in zip(xs, ys, strict=True)]
        assert same(list(DataLoader({"x": X2}, **options)), [{"x": x} for x in xs])
        assert same(list(DataLoader((X2, [1, 2, 3, 4, 5]), **options)), list(zip(xs, ys, strict=True)))
        assert same(list(DataLoader((X2.numpy(), Y2.numpy()), **options)), list(zip(xs, ys, strict=True)))

    def test_documented(self):
        x, y = torch.rand(10, 100), [chr(97 + i % 26) for i in range(100)]
        assert [b.shape for b in DataLoader(x, batchsize=2)] == [(10, 2)] * 50 and DataLoader(x, batchsize=2).data is x
        loader = DataLoader(nt(data=x, label=y), batchsize=5, shuffle=True)
        for _ in range(3):
            assert [(a.shape, len(b)) for a, b in loader] == [((10, 5), 5)] * 20
        assert isinstance(next(iter(loader)).label, list) and next(iter(loader)).label != y[:5]
        small = DataLoader(torch.zeros(10, 64, dtype=torch.int8), batchsize=30)
        assert [(b.shape, b.dtype) for b in small] == [((10, n), torch.int8) for n in (30, 30, 4)]
        assert next(iter(DataLoader(["a", "b", "c", "d"], batchsize=2, collate="".join))) == "ab"
        assert sum(b[0].item() for b in DataLoader(range(1, 11), shuffle=True)) == 55
        assert sum(b[0].item() for b in DataLoader(range(1, 11), batchsize=2)) == 25
        assert [b[0].item() for b in DataLoader(range(1, 1001), batchsize=2)] == list(range(1, 1001, 2))

    def test_the_default_is_batches_of_one(self):
        for x, y in DataLoader((torch.ones(2, 10), torch.full((10,), 5))):
            assert x.shape == (2, 1) and y.tolist() == [5]

    def test_ranges_strings_and_lists_of_anything(self):
        assert [b.tolist() for b in DataLoader(range(1, 6), batchsize=2)] == [[1, 2], [3, 4], [5]]
        assert sorted(b.item() for b in DataLoader(range(1, 11), shuffle=True)) == list(range(1, 11))
        assert list(DataLoader("abcde", batchsize=2)) == ["ab", "cd", "e"]
        assert sorted("".join(DataLoader("abcde", batchsize=2, shuffle=True))) == list("abcde")
        assert list(DataLoader([[1, 2], [3, 4], [5]], batchsize=2)) == [[[1, 2], [3, 4]], [[5]]]
        assert list(DataLoader([None, "a", (1, 2)], batchsize=2)) == [[None, "a"], [(1, 2)]]
        assert [b.tolist() for b in DataLoader(Places(), batchsize=2)][:2] == [[0, 1], [2, 3]]

    def test_batches_in_order_are_views(self):
        x = torch.zeros(3, 4, 6).permute(2, 1, 0)
        for b in DataLoader(x, batchsize=2):
            b += 1
            assert b.permute(2, 1, 0).is_contiguous() or b.shape[-1] == 2
        assert (x == 1).all()
        flux = torch.rand(6, 4).t()
        assert all(b.t().is_contiguous() for b in DataLoader(flux, batchsize=2))
        assert all(b.t().is_contiguous() for b in DataLoader(flux, batchsize=2, shuffle=True))

    def test_shuffle(self):
        x = torch.rand(2, 1000)
        seed = torch.Generator().manual_seed

        def first(**options):
            return next(iter(DataLoader(x, batchsize=2, shuffle=True, **options)))

        assert not torch.equal(first(), first())
        torch.manual_seed(17)
        one = first()
        torch.manual_seed(17)
        assert torch.equal(one, first()) and torch.equal(first(rng=seed(1)), first(rng=seed(1)))
        state = torch.random.get_rng_state()
        first(rng=seed(1))
        assert torch.equal(state, torch.random.get_rng_state())

    def test_shuffles_only_what_it_was_given(self):
        for data in (
            ObsView(range(100), range(90, 100)),
            ObsView(Places(), [3, 5, 7]),
            obsview(Places(), range(12, 15)),
        ):
            loader = DataLoader(data, batchsize=2, shuffle=True)
            expected = sorted(int(i) for i in ObsView(data))
            for _ in range(2):
                assert sorted(i for b in loader for i in b.tolist()) == expected
            assert sorted(int(i) for i in eachobs(data, shuffle=True)) == expected

    def test_two_at_a_time_do_not_disturb_each_other(self):
        loader = DataLoader([*range(1, 101)], shuffle=True)
        pairs = [(a.item(), b.item()) for a, b in zip(loader, loader, strict=True)]
        assert sorted(a for a, _ in pairs) == sorted(b for _, b in pairs) == list(range(1, 101))
        assert any(a != b for a, b in pairs)

    def test_collate(self):
        for b, places in zip(DataLoader(X, collate=False, batchsize=2), itertools.count(0, 2), strict=False):
            assert same(b, [X[:, i] for i in range(places, min(places + 2, 15))])
        for collate in (None, True):
            assert same(list(DataLoader(X, batchsize=2, collate=collate)), list(X.split(2, 1)))
            pairs = list(DataLoader((X, X), batchsize=2, collate=collate))
            assert same(pairs, [(b, b) for b in X.split(2, 1)])
        pairs = next(iter(DataLoader((X, X), batchsize=2, collate=False)))
        assert isinstance(pairs, list) and all(isinstance(p, tuple) for p in pairs)

        def glue(batch):
            return torch.stack([x for x, _ in batch], 1), "".join(y for _, y in batch)

        batches = list(DataLoader((torch.rand(10, 4), ["a", "b", "c", "d"]), batchsize=2, collate=glue))
        assert [(x.shape, y) for x, y in batches] == [((10, 2), "ab"), ((10, 2), "cd")]

    def test_torch_dataset(self):
        x, y = next(iter(DataLoader(Dataset(), batchsize=2, collate=True)))
        assert x.shape == (2, 3, 2) and x[0, 0].tolist() == [0, 1] and y.tolist() == [0, 1]
        assert [len(b) for b in DataLoader(Dataset(), batchsize=2)] == [2, 2, 1]
        assert [y for _, y in DataLoader(Dataset(), batchsize=-1)] == [0, 1, 2, 3, 4]

    def test_mapobs(self):
        x = torch.ones(3, 6)
        assert [b.item() for b in mapobs(lambda b: b[0].sum(), DataLoader(x, batchsize=2, collate=False))] == [3] * 3
        loader = mapobs(torch.sum, DataLoader(x, batchsize=2, collate=True, shuffle=True))
        assert [b.item() for b in loader] == [6] * 3 and loader.shuffle and len(loader) == 3
        assert list(mapobs(len, DataLoader("abc", batchsize=2, collate="".join))) == [2, 1]
        with pytest.raises(ValueError, match="needs one with a collate"):
            mapobs(len, DataLoader(x, batchsize=2))
        with pytest.raises(ValueError, match="needs batchsize > 0"):
            mapobs(len, DataLoader(x, batchsize=-1))

    def test_empty(self):
        for size in (0, -1):
            loader = DataLoader(torch.ones(3, 0), batchsize=size)
            assert len(loader) == 0 and list(loader) == []
        with pytest.warns(UserWarning, match="decreasing the batch-size to 0"):
            loader = DataLoader(torch.ones(3, 0), batchsize=2)
        assert len(loader) == 0 and list(loader) == [] and repr(loader).startswith("0-element DataLoader")

    def test_more_than_there_are(self):
        with pytest.warns(UserWarning, match="decreasing the batch-size to 5"):
            loader = DataLoader(X2, batchsize=8, partial=False, shuffle=True)
        assert loader.batchsize == 8
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert [b.shape for b in loader] == [(2, 5)]

    def test_bad_input(self):
        with pytest.raises(DimensionMismatch, match="same number of observations"):
            DataLoader((X2, Y2[:3]), batchsize=2)
        with pytest.raises(TypeError, match="zip"):
            DataLoader(zip([1], [2], strict=True))
        with pytest.raises(TypeError, match="needs data"):
            DataLoader()

        with pytest.raises(TypeError, match="collate is None, False, True or a function, but got 'join'"):
            DataLoader([1, 2, 3], collate="join")
        with pytest.raises(TypeError):
            DataLoader([1, 2, 3], batchsize=2.0)
        with pytest.raises(ValueError, match="both ask for worker processes"):
            DataLoader([1, 2, 3], parallel=True, num_workers=2)

    def test_devices(self):
        for data in (X2, (X2, Y2)):
            loader = DataLoader(data, batchsize=2)
            for moved in (cpu(loader), cpu_device()(loader)):
                assert isinstance(moved, DataLoader) and len(moved) == 3 and same(list(moved), list(loader))

    def test_one_hot_arrays(self):
        y = onehotbatch("abcb", "abc")
        loader = DataLoader((torch.ones(2, 4), y), batchsize=3)
        assert [type(b) for _, b in loader] == [OneHotMatrix, OneHotMatrix]
        kind = "Tuple{Matrix{Float32}, OneHotMatrix{UInt32, Vector{UInt32}}}"
        assert str(loader) == f"DataLoader(data::{kind}, batchsize=3)"
        assert repr(loader).endswith("(2×3 Matrix{Float32}, 3×3 OneHotMatrix(::Vector{UInt32}) with eltype Bool,)")
        for options in ({"buffer": True}, {"parallel": 1}, {"shuffle": True, "rng": torch.Generator()}):
            for places, b in DataLoader((y.indices, y), batchsize=2, **options):
                assert isinstance(b, OneHotMatrix) and torch.equal(b.indices, places)

    @pytest.mark.cuda
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
    def test_data_on_a_gpu(self):
        x = torch.rand(6, 4).t().cuda()
        for shuffle in (False, True):
            batches = list(DataLoader((x, list("abcdef")), batchsize=4, shuffle=shuffle))
            assert [b.device for b, _ in batches] == [x.device] * 2
            assert sorted("".join(c for _, y in batches for c in y)) == list("abcdef")
        assert all(b.is_cuda for b in Flux.gpu(DataLoader(torch.rand(2, 4), batchsize=2)))


class TestTraining:
    def test_of_flux(self):
        θ = torch.ones(2, dtype=torch.float64)
        x = torch.zeros(2, 10, dtype=torch.float64)
        loader = DataLoader(x)
        epochs = itertools.chain.from_iterable(itertools.repeat(loader, 10))
        Flux.train_(lambda x: ((x - θ[:, None]) ** 2).sum(), params([θ]), epochs, Descent(0.1))
        assert θ.norm() < 1e-4

    def test_of_flux_with_targets(self):
        θ = torch.zeros(2, dtype=torch.float64)
        data = torch.ones(2, 10, dtype=torch.float64), torch.full((10,), 2.0, dtype=torch.float64)
        epochs = itertools.chain.from_iterable(itertools.repeat(DataLoader(data), 10))
        Flux.train_(lambda x, y: ((y - x.T @ θ) ** 2).sum(), params([θ]), epochs, Descent(0.1))
        assert (θ - 1).norm() < 1e-10


class TestEachobs:
    def test_single_observations(self):
        assert same(list(eachobs(X)), list(X.unbind(1))) and same(list(eachobs(X, buffer=False)), list(X.unbind(1)))
        assert same(list(eachobs((X, Y)))[7], (X[:, 7], "versicolor"))
        assert len(eachobs(X)) == 15 and batchsize(eachobs(X)) == -1

    def test_batches(self):
        assert same(list(eachobs(X, batchsize=2)), list(X.split(2, 1)))

    def test_shuffled(self):
        fixed = eachobs(shuffleobs(range(1, 51)))
        assert same(list(fixed), list(fixed))
        for buffer in (False, True):
            again = eachobs(range(1, 51), shuffle=True, buffer=buffer)
            assert [x.item() for x in again] != [x.item() for x in again]

    @settings(deadline=None, max_examples=60)
    @given(
        n=st.integers(0, 12),
        size=st.integers(-1, 5),
        buffer=st.booleans(),
        collate=st.sampled_from([None, False, True]),
        shuffle=st.booleans(),
        partial=st.booleans(),
    )
    def test_every_observation_once(self, n, size, buffer, collate, shuffle, partial):
        x = torch.arange(2 * n).reshape(2, n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loader = DataLoader(
                (x, [str(i) for i in range(n)]),
                batchsize=size,
                buffer=buffer,
                collate=collate,
                shuffle=shuffle,
                partial=partial,
            )
        seen, count = [], 0
        for item in loader:
            count += 1
            if size > 0 and collate is not False:
                columns, names = item[0].T.tolist(), item[1]
                assert 1 <= len(columns) == len(names) <= size
            else:
                pairs = item if size > 0 else [item]
                columns, names = [c.tolist() for c, _ in pairs], [name for _, name in pairs]
            assert columns == [[int(name), int(name) + n] for name in names]
            seen += names
        assert count == len(loader)
        if not shuffle:
            assert seen == [str(i) for i in range(len(seen))]
        limit = min(size, n)
        left_out = n % limit if size > 0 and n and not partial else 0
        assert len(seen) == n - left_out and max(collections.Counter(seen).values(), default=1) == 1


class TestBuffer:
    def test_own(self):
        x = X.clone()
        for i, b in enumerate(eachobs(x, buffer=True)):
            assert torch.equal(b, X[:, i])
        pointers = {b.data_ptr() for b in eachobs(x, batchsize=2, buffer=True, partial=False, shuffle=True)}
        assert len(pointers) == 1 and torch.equal(x, X)

    def test_given(self):
        buffer = torch.zeros(4)
        assert all(b is buffer and torch.equal(b, X[:, i]) for i, b in enumerate(eachobs(X, buffer=buffer)))
        assert torch.equal(buffer, X[:, -1])
        buffer = torch.zeros(4, 2)
        for i, b in enumerate(eachobs(X, batchsize=2, buffer=buffer, partial=False)):
            assert b is buffer and torch.equal(b, X[:, 2 * i : 2 * i + 2])
        assert torch.equal(buffer, X[:, -3:-1])

    def test_parts_and_what_is_no_array(self):
        buffer = (torch.zeros(4, 5), [None] * 5)
        for i, (x, y) in enumerate(DataLoader((X, Y), batchsize=5, buffer=buffer)):
            assert x is buffer[0] and torch.equal(x, X[:, 5 * i : 5 * i + 5]) and y == Y[5 * i : 5 * i + 5]

    def test_numbers_are_not_overwritten(self):
        assert sorted(x.item() for x in list(eachobs(range(1, 51), buffer=True))) == list(range(1, 51))

    def test_collated_batches_are_new(self):
        for collate in (True, torch.stack):
            batches = list(DataLoader(X, batchsize=5, buffer=True, collate=collate))
            assert len({b.data_ptr() for b in batches}) == 3

        def shift_pair(xs):
            return torch.stack([x[..., :-1] for x in xs], -1), torch.stack([x[..., 1:] for x in xs], -1)

        t = torch.randn(8, 8, 4, 3, 5)
        a, b = next(iter(DataLoader(t, batchsize=2, partial=False, buffer=True, collate=shift_pair)))
        assert torch.equal(a, t[:, :, :, 0:2, 0:2]) and torch.equal(b, t[:, :, :, 1:3, 0:2])


class TestParallel:
    @pytest.mark.parametrize("workers", [{"parallel": 1}, {"parallel": True}, {"num_workers": 2}])
    def test_same_as_without(self, workers):
        data = nt(x=X, y=Y, d=mapobs(lambda x: 2 * x, X))
        for options in ({"batchsize": 4}, {"batchsize": 5, "collate": False}, {"batchsize": -1}):
            assert same(list(DataLoader(data, **workers, **options)), list(DataLoader(data, **options)))

    def test_collated_and_buffered(self):
        options = {"batchsize": 2, "buffer": True, "collate": True}
        assert same(list(DataLoader(X, parallel=1, **options)), list(DataLoader(X, **options)))
        loader = DataLoader(["a", "b", "c", "d"], batchsize=2, buffer=True, collate="".join, num_workers=1)
        assert list(loader) == ["ab", "cd"]

    def test_shuffled_anew(self):
        loader = DataLoader(range(1, 51), batchsize=5, parallel=1, shuffle=True, buffer=True)
        one, two = [[i for b in loader for i in b.tolist()] for _ in range(2)]
        assert one != two and sorted(one) == sorted(two) == list(range(1, 51)) and loader.parallel == 1

    def test_a_batch_does_not_bring_all_of_the_data(self):
        (b,) = itertools.islice(DataLoader(X, batchsize=5, parallel=1), 1)
        assert b.untyped_storage().nbytes() == 4 * 5 * 4

    @pytest.mark.parametrize("parallel", [False, 0, -3])
    def test_none(self, parallel):
        assert [b.data_ptr() for b in DataLoader(X, batchsize=15, parallel=parallel)] == [X.data_ptr()]

    def test_errors_come_through(self):
        with pytest.raises(ZeroDivisionError):
            list(DataLoader(mapobs(lambda x: 1 // 0, X), parallel=1))


class TestPrinting:
    def test_mlutils(self):
        x, y = X2.float(), Y2
        d = DataLoader((x, y), batchsize=3)
        assert str(d) == "DataLoader(data::Tuple{Matrix{Float32}, Vector{Int64}}, batchsize=3)"
        assert repr(d) == f"2-element {d}\n  with first element:\n  (2×3 Matrix{{Float32}}, 3-element Vector{{Int64}},)"
        d = DataLoader(nt(x=x, y=y), batchsize=2, partial=False)
        kind = "@NamedTuple{x::Matrix{Float32}, y::Vector{Int64}}"
        assert str(d) == f"DataLoader(data::{kind}, batchsize=2, partial=false)"
        first = "(; x = 2×2 Matrix{Float32}, y = 2-element Vector{Int64})"
        assert repr(d) == f"2-element {d}\n  with first element:\n  {first}"

    @pytest.mark.parametrize(
        ("data", "options", "shown"),
        [
            (X, {}, "data::Matrix{Float32}"),
            (
                X,
                {"parallel": 2, "shuffle": True, "collate": False},
                "data::Matrix{Float32}, parallel=2, shuffle=true, collate=false",
            ),
            (Y, {"collate": "".join}, "data::Vector{String}, collate=join"),
            (range(3), {"buffer": torch.ones(1)}, "data::UnitRange{Int64}, buffer::Vector{Float32}"),
            (range(0, 6, 2), {}, "data::StepRange{Int64, Int64}"),
            ("abc", {"batchsize": -1}, "data::String, batchsize=-1"),
            ([1, "a"], {}, "data::Vector{Any}"),
            ({"a": torch.ones(2, 1, 3)}, {}, "data::Dict{String, Array{Float32, 3}}"),
            (
                mapobs(sqrt, Y2),
                {"num_workers": 2},
                "data::MLUtils.MappedData{:auto, typeof(sqrt), Vector{Int64}}, num_workers=2",
            ),
            (ObsView(X, [1, 2]), {}, "data::ObsView{Matrix{Float32}, Vector{Int64}}"),
            (onehotbatch([[0, 1]], range(2)), {}, "data::OneHotArray{UInt32, 2, 3, Matrix{UInt32}}"),
            (Places(), {"rng": torch.Generator(), "parallel": 0}, "data::Places, rng=Generator()"),
        ],
    )
    def test_options(self, data, options, shown):
        assert str(DataLoader(data, **options)) == f"DataLoader({shown})"

    def test_looking_changes_nothing(self):
        loader = DataLoader(X, batchsize=5, shuffle=True)
        state = torch.random.get_rng_state()
        assert repr(loader).endswith("with first element:\n  4×5 Matrix{Float32}")
        assert torch.equal(state, torch.random.get_rng_state())
