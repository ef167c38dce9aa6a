"""Batches of observations: `BatchView`, an indexable row of them, and `DataLoader`, to go through epoch by epoch."""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.utils.data

from fluxtorch.arrays import summary
from fluxtorch.base import _source
from fluxtorch.functors import fmap
from fluxtorch.mlutils.observations import (
    SIDE_BY_SIDE,
    Container,
    ObsView,
    Places,
    door,
    listed,
    mapped,
    numobs,
    take,
    vector,
)
from fluxtorch.mlutils.sequences import batch
from fluxtorch.mlutils.show import size_and_type, type_name
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.printing import show

__all__ = ["BatchView", "DataLoader", "batchsize", "eachobs"]

Collate = bool | Callable[[Any], Any] | None


class BatchView(Container):
    """The observations of `data` as a row of batches of `batchsize`, made only when asked for.

    `view[i]` is a batch, `view[range(…)]` the observations of several in one. With `partial=False`
    a last batch that isn't full is left out. `collate` says how a batch is made:

    - None: `getobs(data, places)`, a view where the data is an array;
    - False: the list of its observations;
    - True: `batch` of that list;
    - a function: that function of the list. A list of numbers is an array, here as everywhere.

    With fewer observations than `batchsize`, warns and makes one batch of them. Raises
    `DimensionMismatch` if the parts of `data` disagree in length, `ValueError` if `batchsize` is less
    than 1, `TypeError` for another `collate`, `IndexError` for a batch that isn't there. MLUtils.jl's
    `BatchView`.

    >>> view = BatchView(torch.arange(10), batchsize=3)
    >>> len(view), view[0], view[-1]
    (4, tensor([0, 1, 2]), tensor([9]))
    """

    def __init__(self, data: Any, batchsize: int = 1, *, partial: bool = True, collate: Collate = None) -> None:
        if operator.index(batchsize) < 1:
            raise ValueError(f"batches hold 1 observation or more, but batchsize={batchsize}")
        if not (collate is None or isinstance(collate, bool) or callable(collate)):
            raise TypeError(f"collate is None, False, True or a function, but got {summary(collate)}")
        n = numobs(data)
        if n < batchsize:
            warnings.warn(
                f"Number of observations less than batch-size, decreasing the batch-size to {n}", stacklevel=2
            )
        self.data = door(data)
        self.batchsize, self.partial, self.collate = min(batchsize, n), partial, collate
        self.count = 0 if n == 0 else -(-n // self.batchsize) if partial else n // self.batchsize

    def __len__(self) -> int:
        return self.count

    def _range(self, i: int) -> range:
        return range(i * self.batchsize, min((i + 1) * self.batchsize, numobs(self.data)))

    def _get(self, idx: Places) -> Any:
        if isinstance(idx, int):
            places: range | torch.Tensor = self._range(idx)
        elif isinstance(idx, range) and idx.step == 1:
            places = range(self._range(idx.start).start, self._range(idx[-1]).stop) if idx else range(0)
        else:
            places = torch.tensor([place for i in dict.fromkeys(listed(idx)) for place in self._range(i)])
        if self.collate is None:
            return take(self.data, places)
        observations = vector([take(self.data, i) for i in listed(places)])
        if self.collate is False:
            return observations
        return batch(observations) if self.collate is True else self.collate(observations)

    def __repr__(self) -> str:
        options = f"batchsize={self.batchsize}, partial={show(self.partial)}, collate={show(self.collate)}"
        return f"BatchView({show(self.data)}, {options})"


def batchsize(data: Any) -> int:
    """How many observations there are in each batch of a `BatchView` or `DataLoader`, but maybe the last.

    >>> batchsize(BatchView(torch.ones(4, 150), batchsize=30))
    30
    """
    return data.batchsize


class DataLoader:
    """Goes through `data` in batches of `batchsize` observations, as often as one likes.

    `data` is anything that `numobs` takes: an array `(…, N)` gives arrays `(…, batchsize)`, a tuple,
    named tuple or dict gives its kind; `DataLoader(x, y)`, as up to Flux 0.10, is
    `DataLoader((x, y))`. The field `data` keeps it. `len` is the number of batches.

    - `batchsize`: 1; with 0 or less, single observations, without a batch's axis.
    - `shuffle`: False; with True, in a new random order each time.
    - `partial`: True; with False, a last batch that isn't full is left out.
    - `collate`: None; how a batch is made, see `BatchView`. `collate=True` suits a torch `Dataset`.
    - `rng`: the `torch.Generator` to shuffle with; torch's own by default.
    - `parallel`: False; with True, or a number of them, worker processes of `torch.utils.data` make
      the batches, which come in order all the same. `num_workers`, a number, means the same here.
    - `buffer`: False; with True, or arrays given for it, every batch of that size is written into the
      same arrays, and so is good only until the next one. Not with a `collate` that makes new arrays.

    Without shuffling, a batch of an array is a view. Raises `DimensionMismatch` if the parts of `data`
    disagree in length, `ValueError` for both `parallel` and `num_workers`; warns if there are fewer
    observations than `batchsize`. MLUtils.jl's `DataLoader`.

    >>> loader = DataLoader(nt(x=torch.ones(2, 10), y=list("abcdefghij")), batchsize=3)
    >>> loader
    4-element DataLoader(data::@NamedTuple{x::Matrix{Float32}, y::Vector{String}}, batchsize=3)
      with first element:
      (; x = 2×3 Matrix{Float32}, y = 3-element Vector{String})
    >>> for x, y in loader:
    ...     print(tuple(x.shape), y)
    (2, 3) ['a', 'b', 'c']
    (2, 3) ['d', 'e', 'f']
    (2, 3) ['g', 'h', 'i']
    (2, 1) ['j']
    """

    def __init__(
        self,
        *data: Any,
        batchsize: int = 1,
        shuffle: bool = False,
        partial: bool = True,
        collate: Collate = None,
        rng: torch.Generator | None = None,
        parallel: bool | int = False,
        num_workers: int = 0,
        buffer: Any = False,
    ) -> None:
        if not data:
            raise TypeError("DataLoader needs data")
        if num_workers > 0 and (parallel is True or parallel > 0):
            raise ValueError("parallel and num_workers both ask for worker processes: give one of them")
        self.data = data[0] if len(data) == 1 else data
        self.batchsize, self.shuffle, self.partial, self.collate = batchsize, shuffle, partial, collate
        self.rng, self.parallel, self.num_workers, self.buffer = rng, parallel, num_workers, buffer
        self._f: Callable[[Any], Any] | None = None
        observations = ObsView(_collected(door(self.data)))
        self._data: BatchView | ObsView = observations
        if batchsize > 0:
            self._data = BatchView(observations, batchsize, partial=partial, collate=collate)

    def __len__(self) -> int:
        return len(self._data)

    def _epoch(self) -> BatchView | ObsView:
        """The data, in a new order if it is shuffled."""
        if not self.shuffle:
            return self._data
        old = self._data.data if isinstance(self._data, BatchView) else self._data
        new = ObsView(old, torch.randperm(len(old), **_source(self.rng)))
        if not isinstance(self._data, BatchView):
            return new
        view = copy.copy(self._data)
        view.data = new
        return view

    def _followed(self, f: Callable[[Any], Any], data: Any) -> DataLoader:
        """A loader like this one, with `f` of each batch, made here and not by a worker, and another field `data`.

        It has no buffer: `f` may still be reading when the next batch would be written there.
        """
        new, before = copy.copy(self), self._f
        new.data, new.buffer, new._f = data, False, f if before is None else lambda batch: f(before(batch))
        return new

    def __iter__(self) -> Iterator[Any]:
        epoch: Any = self._epoch()
        workers = torch.get_num_threads() if self.parallel is True else max(self.parallel, self.num_workers)
        if workers > 0:
            epoch = torch.utils.data.DataLoader(epoch, batch_size=None, num_workers=workers, collate_fn=_own)
        if self.buffer is not False and self.collate in (None, False):
            epoch = _buffered(epoch, self.buffer)
        return iter(epoch) if self._f is None else map(self._f, epoch)

    def __str__(self) -> str:
        options = {
            "parallel": (self.parallel, False),
            "num_workers": (self.num_workers, 0),
            "shuffle": (self.shuffle, False),
            "batchsize": (self.batchsize, 1),
            "partial": (self.partial, True),
            "collate": (self.collate, None),
        }
        shown = [f", {name}={show(value)}" for name, (value, default) in options.items() if value != default]
        buffer = "" if self.buffer is False else f", buffer::{type_name(self.buffer)}"
        rng = "" if self.rng is None else ", rng=Generator()"
        return f"DataLoader(data::{type_name(self.data)}{buffer}{''.join(shown)}{rng})"

    def __repr__(self) -> str:
        head = f"{len(self)}-element {self}"
        if not len(self):
            return head
        # Not an element of a shuffled epoch: to look at a loader must not change what it gives next.
        first = self._data.getobs(0)
        return f"{head}\n  with first element:\n  {_expanded(first if self._f is None else self._f(first))}"


def _collected(data: Any) -> Any:
    """Ranges as arrays: batches are for reckoning with."""
    if isinstance(data, SIDE_BY_SIDE):
        return mapped(_collected, data)
    return torch.arange(data.start, data.stop, data.step) if isinstance(data, range) else data


def _expanded(x: Any) -> str:
    if isinstance(x, NamedTuple):
        return "(; " + ", ".join(f"{k} = {_expanded(v)}" for k, v in vars(x).items()) + ")"
    return "(" + ", ".join(map(_expanded, x)) + ",)" if isinstance(x, tuple) else size_and_type(x)


def _own(batch: Any) -> Any:
    """A batch without the rest of the data: a worker would send all of the memory that a view is a part of."""

    def own(x: Any) -> Any:
        shared = isinstance(x, torch.Tensor) and x.untyped_storage().nbytes() > x.numel() * x.element_size()
        return x.clone() if shared else x

    return fmap(own, batch)


def _buffered(epoch: Iterable[Any], buffer: Any) -> Iterator[Any]:
    for obs in epoch:
        if buffer is True:
            buffer = fmap(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, obs)
        yield fmap(_written, obs, buffer)


def _written(x: Any, buffer: Any) -> Any:
    """`x` written into `buffer`, where that is a plain array of its size; a 0-d array stands for a number."""
    plain = isinstance(x, torch.Tensor) and type(buffer) is torch.Tensor and buffer.layout == torch.strided
    return buffer.copy_(x) if plain and x.ndim and x.shape == buffer.shape else x


def eachobs(data: Any, *, batchsize: int = -1, **options: Any) -> DataLoader:
    """A `DataLoader` that gives single observations unless a `batchsize` is given; it takes the same keywords.

    >>> [tuple(x.shape) for x in eachobs(torch.ones(4, 2))], len(eachobs(torch.ones(4, 100), batchsize=10))
    ([(4,), (4,)], 10)
    """
    return DataLoader(data, batchsize=batchsize, **options)
