"""Observations: how many there are in some data, and those at some places.

Data is an array, whose last axis counts observations; a list, string or range, by its elements (a
list of numbers is an array, a list of lists has a list at each place); a tuple, named tuple or dict
of data, side by side; or any object with methods `numobs()` and `getobs(i)`, where `i` is an int or a
list of ints. Of an object that only has a length and items, or of a torch `Dataset`, one item at a
time is asked for. Places count from 0, and -1 is the last.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.base import _is_array, _packed, _source
from fluxtorch.errors import DimensionMismatch
from fluxtorch.mlutils.show import size_and_type, type_name
from fluxtorch.namedtuples import NamedTuple

__all__ = ["ObsDim", "ObsView", "getobs", "numobs", "obsview", "randobs", "shuffleobs"]

Places: TypeAlias = "int | range | torch.Tensor"

SIDE_BY_SIDE = (tuple, dict, NamedTuple)


# ---------------------------------------------------------------- helpers


def mapped(f: Callable[[Any], Any], data: Any) -> Any:
    """`f` of each part of a tuple, dict or named tuple, in another of its kind."""
    if isinstance(data, NamedTuple):
        return NamedTuple.of({k: f(v) for k, v in vars(data).items()})
    if isinstance(data, dict):
        return {k: f(v) for k, v in data.items()}
    parts = [f(v) for v in data]
    return type(data)(*parts) if hasattr(data, "_fields") else tuple(parts)


def door(data: Any) -> Any:
    """`data` with arrays where Julia has some: for lists of numbers and NumPy arrays. A list of lists stays one."""
    if isinstance(data, SIDE_BY_SIDE):
        return mapped(door, data)
    if isinstance(data, list):
        return array(data) if data and isinstance(data[0], (int, float, complex)) else data
    if hasattr(data, "__array_interface__") and data.ndim == 1 and data.dtype.kind in "OSU":
        return data.tolist()
    return data if isinstance(data, range) else array(data)


def vector(xs: list[Any]) -> Any:
    """A list as it is, or as an array if it consists of numbers, as a comprehension gives in Julia."""
    packed = _packed(xs, torch.get_default_dtype()) if xs else None
    return xs if packed is None else packed


def listed(places: range | torch.Tensor) -> list[int]:
    return list(places) if isinstance(places, range) else places.tolist()


def seeded(f: Callable[..., Any]) -> Callable[..., Any]:
    """Lets `f(x, rng=rng)` be written as in Julia too: `f(rng, x)`."""

    @functools.wraps(f)
    def call(*args: Any, **kwargs: Any) -> Any:
        if args and isinstance(args[0], torch.Generator):
            return f(*args[1:], rng=args[0], **kwargs)
        return f(*args, **kwargs)

    return call


def positions(idx: Any, n: int) -> Places:
    """An index into `n` observations as an int, an ascending range or a vector of ints, all from 0 to n - 1."""
    if isinstance(idx, int) or getattr(idx, "ndim", 1) == 0:
        i = operator.index(idx)
        if not -n <= i < n:
            raise IndexError(f"there is no observation {i}: there are {n}, counted from 0")
        return i % n
    if isinstance(idx, slice):
        idx = range(n)[idx]
    if isinstance(idx, range):
        if not idx:
            return range(0)
        if idx.step > 0 and idx[0] >= 0 and idx[-1] < n:
            return idx
        idx = list(idx)
    try:
        places = torch.as_tensor(idx)
    except (TypeError, ValueError, RuntimeError):
        places = torch.empty(1)
    if places.numel() == 0:
        return range(0)
    if places.ndim != 1 or places.is_floating_point() or places.is_complex():
        raise TypeError(
            f"observations are chosen by a whole number, a slice or a list of these, but got {summary(idx)}"
        )
    if places.dtype == torch.bool:
        if len(places) != n:
            raise DimensionMismatch(f"a mask of {len(places)} can't choose among {n} observations")
        return places.nonzero().flatten()
    if places.device.type == "cpu":  # elsewhere the look would hold up the device
        low, high = places.min().item(), places.max().item()
        if low < -n or high >= n:
            wrong = high if high >= n else low
            raise IndexError(f"there is no observation {wrong}: there are {n}, counted from 0")
    return torch.where(places < 0, places + n, places).to(torch.int64)


def chosen(indices: Any, n: int) -> range | torch.Tensor:
    """`positions` of at least one axis; all for None."""
    places = range(n) if indices is None else positions(indices, n)
    return range(places, places + 1) if isinstance(places, int) else places


def within(places: range | torch.Tensor, idx: Places) -> Any:
    """The places at `idx` of `places`."""
    if isinstance(idx, int):
        return int(places[idx])
    if isinstance(idx, range):
        return places[idx.start : idx.stop : idx.step]
    return places.start + places.step * idx if isinstance(places, range) else places[idx.to(places.device)]


def along(x: Any, idx: Places, axis: int = -1) -> Any:
    """The slices of an array at `idx` of one axis: a view for an int and a range, a copy for a vector."""
    if x.ndim == 0:
        return x
    axis %= x.ndim
    dense = getattr(x, "layout", torch.strided) == torch.strided
    if isinstance(idx, range) and not dense:
        idx = torch.arange(idx.start, idx.stop, idx.step)
    if not isinstance(idx, torch.Tensor):
        place = slice(idx.start, idx.stop, idx.step) if isinstance(idx, range) else idx
        return x[(slice(None),) * axis + (place,)]
    if not isinstance(x, torch.Tensor):
        return x[(slice(None),) * axis + (idx,)]
    idx = idx.to(x.device, non_blocking=True)
    # The kernel is quick, and its result laid out as x is, only if it sees x from its slowest axis on.
    if dense and x.ndim > 1 and x.stride(0) < x.stride(-1):
        return reversed_axes(reversed_axes(x).index_select(x.ndim - 1 - axis, idx))
    return x.index_select(axis, idx)


def take(data: Any, idx: Places) -> Any:
    """The observations of `data`, which has come through the `door`, at places that are known to be there."""
    if isinstance(data, Container):
        return data._get(idx)
    if _is_array(data):
        return along(data, idx)
    if isinstance(data, SIDE_BY_SIDE):
        return mapped(lambda part: take(part, idx), data)
    if isinstance(data, range):
        return within(data, idx)
    if hasattr(data, "getobs"):
        return data.getobs(idx if isinstance(idx, int) else listed(idx))
    if hasattr(data, "iloc"):  # a table, whose items are its columns
        return data.iloc[idx if isinstance(idx, int) else listed(idx)]
    if hasattr(data, "__array_interface__"):  # text or dates, of which there is no tensor
        return data[..., idx if isinstance(idx, int) else listed(idx)]
    if isinstance(idx, int):
        return data[idx]
    if isinstance(data, (str, list)) and isinstance(idx, range):
        return data[idx.start : idx.stop : idx.step]
    items = [data[i] for i in listed(idx)]
    return "".join(items) if isinstance(data, str) else items if isinstance(data, list) else vector(items)


class Container:
    """Data that is made from other data: it has a length, can be indexed and gone through again and again."""

    def __len__(self) -> int:
        raise NotImplementedError

    def _get(self, idx: Places) -> Any:
        raise NotImplementedError

    def getobs(self, idx: Any = None) -> Any:
        return self._get(range(len(self)) if idx is None else positions(idx, len(self)))

    def __getitem__(self, idx: Any) -> Any:
        return self.getobs(idx)

    def __iter__(self) -> Iterator[Any]:
        return map(self._get, range(len(self)))

    def __repr__(self) -> str:
        return f"{len(self)}-element {type(self).__name__}"


# ---------------------------------------------------------------- the interface


def numobs(data: Any) -> int:
    """How many observations there are in `data`: along an array's last axis, or the length of anything else.

    Raises `DimensionMismatch` if the parts of a tuple, named tuple or dict disagree, `TypeError` if
    `data` has no length. MLUtils.jl's `numobs`.

    >>> numobs(torch.ones(6, 3)), numobs(["a", "b"]), numobs(nt(a=[1, 2, 3], b=torch.ones(6, 3)))
    (3, 2, 3)
    >>> numobs(([1, 2, 3, 4], torch.ones(6, 3)))
    Traceback (most recent call last):
        ...
    fluxtorch.errors.DimensionMismatch: All data containers must have the same number of observations. Here: 4, 3.
    """
    if _is_array(data) or hasattr(data, "__array_interface__"):
        return data.shape[-1] if data.ndim else 1
    if isinstance(data, SIDE_BY_SIDE):
        counts = [numobs(part) for part in (data.values() if isinstance(data, dict) else data)]
        if len(set(counts)) > 1:
            raise DimensionMismatch(
                f"All data containers must have the same number of observations. Here: {', '.join(map(str, counts))}."
            )
        return counts[0] if counts else 0
    if not isinstance(data, Container) and hasattr(data, "numobs"):
        return operator.index(data.numobs())
    try:
        return len(data)
    except TypeError:
        raise TypeError(f"data must have a length or a method numobs, but got {summary(data)}") from None


def getobs(data: Any, idx: Any = None) -> Any:
    """The observation of `data` at an int `idx`, or those at a range, slice, list or mask; all of them without `idx`.

    From an array `(…, N)` an int gives a view `(…,)`, a range or slice of `n` a view `(…, n)`, a
    list a copy `(…, n)`. A list or string gives its elements, a tuple, named tuple or dict one of
    its kind.

    Raises `IndexError` outside of the data, `DimensionMismatch` if the parts of a tuple disagree in
    length. MLUtils.jl's `getobs`.

    >>> x = nt(a=[1, 2, 3], b=[[1, 2, 3], [4, 5, 6]])
    >>> getobs(x, 1)
    (a = 2, b = [2, 5])
    >>> getobs(x, [0, 2])
    (a = [1, 3], b = [1 3; 4 6])
    >>> getobs("abcd", range(1, 3))
    'bc'
    """
    data = door(data)
    if isinstance(data, SIDE_BY_SIDE):
        numobs(data)
        return mapped(lambda part: getobs(part, idx), data)
    if idx is None:
        return data.getobs() if isinstance(data, Container) else data
    return take(data, positions(idx, numobs(data)))


class ObsDim:
    """The axis along which an array's observations lie, for `obsview`: `ObsDim(1)`. -1 is the last.

    >>> numobs(obsview(torch.ones(4, 5, 2), ObsDim(1)))
    5
    """

    def __init__(self, d: int | ObsDim) -> None:
        self.d: int = d.d if isinstance(d, ObsDim) else operator.index(d)

    def __repr__(self) -> str:
        return f"ObsDim({self.d})"


class ObsView(Container):
    """Those observations of `data` that stand at `indices` (all by default), fetched only when asked for.

    `getobs(view, i)` counts within the view, `view[i]` gives a smaller view, or the observation for
    an int. A view of a view goes to the data itself. Raises `IndexError` for indices outside of it.

    >>> v = ObsView(torch.arange(10.0).reshape(2, 5), range(1, 4))
    >>> numobs(v), getobs(v, [0, 2])
    (3, tensor([[1., 3.],
            [6., 8.]]))
    """

    def __init__(self, data: Any, indices: Any = None) -> None:
        data, places = door(data), chosen(indices, numobs(data))
        if isinstance(data, ObsView):
            data, places = data.data, within(data.indices, places)
        self.data: Any = data
        self.indices: range | torch.Tensor = places

    def __len__(self) -> int:
        return len(self.indices)

    def _get(self, idx: Places) -> Any:
        return take(self.data, within(self.indices, idx))

    def __getitem__(self, idx: Any) -> Any:
        return obsview(self.data, within(self.indices, positions(idx, len(self))))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ObsView):
            return NotImplemented
        same = NamedTuple.of({"data": self.data}) == NamedTuple.of({"data": other.data})
        return same and listed(self.indices) == listed(other.indices)

    __hash__ = None  # type: ignore[assignment]

    def _type_name(self) -> str:
        return f"ObsView{{{type_name(self.data)}, {type_name(self.indices)}}}"

    def __repr__(self) -> str:
        return f"ObsView(::{type_name(self.data)}, ::{type_name(self.indices)})\n {len(self)} observations"


class ArrayObsView(Container):
    """What `obsview` makes of an array and an `ObsDim`: its slices along that axis are the observations."""

    def __init__(self, data: Any, indices: Any, obsdim: int) -> None:
        if not _is_array(data) or not -data.ndim <= obsdim < data.ndim:
            raise IndexError(f"there is no axis {obsdim} in {summary(data)}")
        self.data, self.obsdim = data, obsdim
        self.indices = chosen(indices, data.shape[obsdim])

    def __len__(self) -> int:
        return len(self.indices)

    def _get(self, idx: Places) -> Any:
        return along(self.data, within(self.indices, idx), self.obsdim)

    def __repr__(self) -> str:
        return f"ArrayObsView({size_and_type(self.data)}, obsdim={self.obsdim}, numobs={len(self)})"


def obsview(data: Any, indices: Any = None, obsdim: ObsDim | None = None) -> Any:
    """The observations of `data` at `indices` (all by default), not copied where that can be helped.

    Of an array `(…, N)` a range or slice gives a view, a list a copy; a list, string or range gives
    another; a tuple, named tuple or dict is gone into; a class may have its own method
    `obsview(indices)`; the rest becomes an `ObsView`. With an `ObsDim` as the last argument, the
    observations are an array's slices along that axis.

    Raises `IndexError` outside of the data, `DimensionMismatch` if the parts of a tuple disagree in
    length. MLUtils.jl's `obsview`.

    >>> obsview(torch.tensor([[1, 2, 3], [4, 5, 6]]), range(0, 2))
    tensor([[1, 2],
            [4, 5]])
    >>> v = obsview(torch.ones(4, 5, 2), range(1, 3), ObsDim(1))
    >>> numobs(v), getobs(v, 0).shape
    (2, torch.Size([4, 2]))
    """
    if isinstance(indices, ObsDim):
        indices, obsdim = None, indices
    if obsdim is not None:
        return ArrayObsView(array(data), indices, obsdim.d)
    data = door(data)
    if isinstance(data, SIDE_BY_SIDE):
        numobs(data)
        return mapped(lambda part: obsview(part, indices), data)
    if _is_array(data) or isinstance(data, (list, str, range)):
        return getobs(data, indices)
    if hasattr(data, "obsview"):
        return data.obsview(indices)
    return getobs(data, indices) if isinstance(indices, int) else ObsView(data, indices)


@seeded
def shuffleobs(data: Any, *, rng: torch.Generator | None = None) -> Any:
    """`shuffleobs([rng], data)`: all observations of `data` in random order, the same one in each part of a tuple.

    As `obsview` of a random permutation. MLUtils.jl's `shuffleobs`.

    >>> x, y = shuffleobs((torch.arange(5), list("abcde")))
    >>> ["abcde"[i] for i in x] == y
    True
    """
    return obsview(data, torch.randperm(numobs(data), **_source(rng)))


@seeded
def randobs(data: Any, n: int | None = None, *, rng: torch.Generator | None = None) -> Any:
    """`randobs([rng], data, [n])`: an observation of `data` at random, or `n` of them, each drawn from all.

    Raises `ValueError` if there are none. MLUtils.jl's `randobs`.

    >>> randobs(["a", "a"]), randobs(torch.ones(4, 10), 3).shape
    ('a', torch.Size([4, 3]))
    """
    count = numobs(data)
    if count == 0:
        raise ValueError("there is no observation to pick")
    places = torch.randint(count, (1 if n is None else n,), **_source(rng))
    return getobs(data, places if n is not None else int(places))
