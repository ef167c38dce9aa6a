"""Data from other data, observation by observation: `mapobs`, `filterobs`, `groupobs`, `joinobs`."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch

from fluxtorch.mlutils.loader import DataLoader
from fluxtorch.mlutils.observations import Container, Places, door, getobs, listed, numobs, obsview, take, vector
from fluxtorch.mlutils.sequences import batch
from fluxtorch.mlutils.show import type_name
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.printing import show

__all__ = ["filterobs", "groupobs", "joinobs", "mapobs"]


class MappedData(Container):
    """What `mapobs` makes of a function."""

    def __init__(self, f: Callable[[Any], Any], data: Any, batched: str) -> None:
        self.f, self.data, self.batched = f, door(data), batched

    def __len__(self) -> int:
        return numobs(self.data)

    def _get(self, idx: Places) -> Any:
        if self.batched == "never" and not isinstance(idx, int):
            return vector([self.f(take(self.data, i)) for i in listed(idx)])
        if self.batched == "always" and isinstance(idx, int):
            return getobs(self.f(take(self.data, range(idx, idx + 1))), 0)
        return self.f(take(self.data, idx))

    def _type_name(self) -> str:
        return f"MLUtils.MappedData{{:{self.batched}, typeof({show(self.f)}), {type_name(self.data)}}}"

    def __repr__(self) -> str:
        return f"mapobs({show(self.f)}, {show(self.data)}; batched=:{self.batched})"


class NamedTupleData(Container):
    """What `mapobs` makes of a named tuple of functions: a field of it is the data mapped by that function."""

    def __init__(self, namedfs: NamedTuple, data: Any) -> None:
        self._namedfs, self._source = namedfs, door(data)

    def __len__(self) -> int:
        return numobs(self._source)

    def _get(self, idx: Places) -> Any:
        obs = take(self._source, idx)
        return NamedTuple.of({name: f(obs) for name, f in vars(self._namedfs).items()})

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return MappedData(getattr(self._namedfs, name), self._source, "auto")

    def __repr__(self) -> str:
        return f"mapobs({show(self._namedfs)}, {show(self._source)})"


class JoinedData(Container):
    """What `joinobs` gives."""

    def __init__(self, datas: tuple[Any, ...]) -> None:
        self.datas = tuple(map(door, datas))
        self.ends = list(itertools.accumulate(map(numobs, self.datas)))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def _get(self, idx: Places) -> Any:
        if not isinstance(idx, int):
            return vector([self._get(i) for i in listed(idx)])
        k = bisect.bisect_right(self.ends, idx)
        return take(self.datas[k], idx - (self.ends[k - 1] if k else 0))


def mapobs(f: Any, data: Any, *, batched: str = "auto") -> Any:
    """`data` with `f` applied to its observations, each time that they are asked for.

    `batched` says what `f` gets where several observations are asked for, or one:

    - "auto": `getobs(data, places)`, so all of them at once, or the one;
    - "never": one after the other, which gives a list;
    - "always": all of them at once, and a batch of one for a single one.

    A tuple of functions gives a tuple of such data; a named tuple of functions gives data whose
    observations are named tuples, and whose fields are data too. Of a `DataLoader` with a `collate`,
    `f` maps the batches, and the result is a `DataLoader`.

    Raises `ValueError` for another `batched`, or for a `DataLoader` without `collate` or without
    batches. MLUtils.jl's `mapobs`.

    >>> data = mapobs(lambda v: nt(c=v.a + v.b, d=v.a - v.b), nt(a=[1, 2, 3], b=[1, 2, 3]))
    >>> data[0], data[0:2]
    ((c = 2, d = 0), (c = [2, 4], d = [0, 0]))
    >>> data = mapobs(nt(x=sqrt, y=log), range(1, 11))
    >>> getobs(data, 3).x, getobs(data.x, 3)
    (2.0, 2.0)
    """
    if isinstance(data, DataLoader):
        return _mapped_loader(f, data)
    if batched not in ("auto", "never", "always"):
        raise ValueError(f'batched is "auto", "never" or "always", and not {batched!r}')
    if isinstance(f, NamedTuple):
        return NamedTupleData(f, data)
    if isinstance(f, tuple):
        return tuple(MappedData(g, data, batched) for g in f)
    return MappedData(f, data, batched)


def _mapped_loader(f: Callable[[Any], Any], d: DataLoader) -> DataLoader:
    if d.batchsize <= 0:
        raise ValueError("mapobs of a DataLoader needs batchsize > 0; or apply it to the data underneath")
    if d.collate is None:
        raise ValueError("mapobs of a DataLoader needs one with a collate; or apply it to the data underneath")
    old = batch if d.collate is True else d.collate
    collate = f if old is False else lambda xs: f(old(xs))
    return DataLoader(
        d.data,
        batchsize=d.batchsize,
        shuffle=d.shuffle,
        partial=d.partial,
        collate=collate,
        rng=d.rng,
        parallel=d.parallel,
        num_workers=d.num_workers,
        buffer=d.buffer,
    )


def filterobs(f: Callable[[Any], Any], data: Any) -> Any:
    """The observations of `data` for which `f` is true, as `obsview` gives them. MLUtils.jl's `filterobs`.

    >>> filterobs(lambda x: x > 5, range(1, 11))
    tensor([ 6,  7,  8,  9, 10])
    """
    data = door(data)
    return obsview(data, [i for i in range(numobs(data)) if f(take(data, i))])


def groupobs(f: Callable[[Any], Any], data: Any) -> dict[Any, Any]:
    """The observations of `data` that have the same `f`, together: a dict from it to what `obsview` gives of them.

    Where `f` gives an array, the dict has a tuple. MLUtils.jl's `groupobs`.

    >>> groupobs(lambda x: x > 0, range(-2, 3))
    {False: tensor([-2, -1,  0]), True: tensor([1, 2])}
    """
    data = door(data)
    groups: dict[Any, list[int]] = {}
    for i in range(numobs(data)):
        groups.setdefault(key(f(take(data, i))), []).append(i)
    return {group: obsview(data, places) for group, places in groups.items()}


def key(x: Any) -> Any:
    """`x` as a dict finds it by its value: an array or list, which it would know by identity or not at all, as a tuple.

    A number that comes out of an array is a Python number; all NaNs are one.
    """
    if isinstance(x, torch.Tensor):
        x = x.tolist()
    if isinstance(x, (list, tuple)):
        return tuple(map(key, x))
    return math.nan if isinstance(x, float) and x != x else x


def joinobs(*datas: Any) -> JoinedData:
    """The observations of all `datas`, one after the other. Several at once come as a list, numbers as an array.

    MLUtils.jl's `joinobs`.

    >>> data = joinobs(range(1, 6), range(6, 11))
    >>> data, data[5], data[4:6]
    (10-element JoinedData, 6, tensor([5, 6]))
    """
    return JoinedData(tuple(part for d in datas for part in (d.datas if isinstance(d, JoinedData) else (d,))))
