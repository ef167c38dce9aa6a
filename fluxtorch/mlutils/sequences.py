"""Putting observations together and apart: `batch`, `batchseq`, `chunk`, `slidingwindow` and their kin."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable
from typing import Any

import torch

from fluxtorch.arrays import array, summary
from fluxtorch.base import _array, _is_array, eachslice, vec
from fluxtorch.errors import DimensionMismatch
from fluxtorch.mlutils.arrays import rpad_constant, stack
from fluxtorch.mlutils.observations import (
    Container,
    ObsDim,
    Places,
    along,
    door,
    listed,
    numobs,
    obsview,
    take,
    vector,
)
from fluxtorch.mlutils.show import size_and_type
from fluxtorch.namedtuples import NamedTuple

__all__ = ["batch", "batch_sequence", "batchseq", "chunk", "slidingwindow", "unbatch"]


_LISTS = (list, tuple, range, torch.Tensor)


def batch(xs: Any) -> Any:
    """Observations as one array with a new last axis: N arrays `(…)` give `(…, N)`, N numbers a vector `(N,)`.

    Tuples, named tuples and dicts are batched field by field (a named tuple's fields come out
    sorted, as in Julia); lists of anything but numbers element by element; other things stay a list.

    Raises `ValueError` if there is nothing or if keys differ, `DimensionMismatch` if sizes do.
    MLUtils.jl's `batch`.

    >>> batch([[1, 2, 3], [4, 5, 6]])
    tensor([[1, 4],
            [2, 5],
            [3, 6]])
    >>> batch([nt(a=[1, 2], b=[3, 4]), nt(a=[5, 6], b=[7, 8])])
    (a = [1 5; 2 6], b = [3 7; 4 8])
    """
    if _is_array(xs):
        return vec(xs)
    xs = [array(x) for x in xs]
    if not xs:
        raise ValueError("batch needs at least one observation: the input should be non-empty")
    first = xs[0]
    if isinstance(first, (NamedTuple, dict)):
        keys = set(first.keys())
        if any(not isinstance(x, (NamedTuple, dict)) or set(x.keys()) != keys for x in xs):
            kind = "dicts" if isinstance(first, dict) else "named tuples"
            raise ValueError(f"Cannot batch {kind} with different keys")
        fields = {k: batch([x[k] for x in xs]) for k in (first if isinstance(first, dict) else sorted(keys))}
        return fields if isinstance(first, dict) else NamedTuple.of(fields)
    if isinstance(first, (tuple, list)):
        if any(not isinstance(x, (tuple, list)) or len(x) != len(first) for x in xs):
            raise DimensionMismatch(f"Cannot batch {type(first).__name__}s with different lengths")
        rows = [[x[i] for x in xs] for i in range(len(first))]
        if isinstance(first, list):
            return rows
        return type(first)(*map(batch, rows)) if hasattr(first, "_fields") else tuple(map(batch, rows))
    return stack(xs) if _is_array(first) and first.ndim else vector(xs)


def unbatch(x: Any) -> Any:
    """The slices of an array `(…, N)` along its last axis, a list of N views `(…)`: the reverse of `batch`.

    A vector, or a list of anything but numbers, stays as it is. MLUtils.jl's `unbatch`.

    >>> unbatch([[1, 3, 5, 7], [2, 4, 6, 8]])
    [tensor([1, 2]), tensor([3, 4]), tensor([5, 6]), tensor([7, 8])]
    """
    x = array(x)
    if isinstance(x, list) or _array(x, "unbatch").ndim < 2:
        return x
    return eachslice(x, dims=-1)


def batchseq(xs: Any, val: Any = 0, n: int | None = None) -> list[Any]:
    """N sequences as one of batches of N: a list, as long as the longest of them; the others are filled up with `val`.

    Sequences that are arrays `(…, L)` give batches `(…, N)`, strings and lists give what `batch`
    makes of their elements, as do numbers filled up with None. With `n`, the list is `n` long.

    Raises `DimensionMismatch` if the elements don't fit, `ValueError` if there is no sequence.
    MLUtils.jl's `batchseq`.

    >>> batchseq([[1, 2, 3], [4, 5]], 0)
    [tensor([1, 4]), tensor([2, 5]), tensor([3, 0])]
    >>> batchseq(["abc", "de"], "_")
    [['a', 'd'], ['b', 'e'], ['c', '_']]
    """
    xs = [array(x) for x in xs]
    if val is not None and all(_is_array(x) for x in xs):
        xs = batch_sequence(xs, pad=val)
        xs = xs if n is None else rpad_constant(xs, n, val, dims=-2)
        return eachslice(xs, dims=-2)[:n]
    xs = [eachslice(x, dims=-1) if _is_array(x) else x for x in xs]
    steps: Iterable[Any] = itertools.zip_longest(*xs, fillvalue=val)
    if n is not None:
        steps = itertools.islice(itertools.chain(steps, itertools.repeat((val,) * len(xs))), n)
    return [batch(list(step)) for step in steps]


def batch_sequence(xs: Any, *, pad: Any = 0) -> Any:
    """N sequences, arrays `(…, L)` of several lengths, as one array `(…, Lmax, N)`, filled up with `pad`.

    Raises `DimensionMismatch` if they differ in any axis but the last, `ValueError` if there is
    none. MLUtils.jl's `batch_sequence`.

    >>> batch_sequence([[1, 2, 3], [10, 20]])
    tensor([[ 1, 10],
            [ 2, 20],
            [ 3,  0]])
    """
    xs = [_array(x, "batch_sequence") for x in xs]
    if not xs:
        raise ValueError("batch_sequence needs at least one sequence")
    for x in xs:
        if x.ndim == 0 or x.shape[:-1] != xs[0].shape[:-1]:
            raise DimensionMismatch(
                f"Array dimensions do not match: sequences of a {summary(xs[0])} and of a {summary(x)}"
            )
    longest = max(x.shape[-1] for x in xs)
    return stack([rpad_constant(x, longest, pad, dims=-1) for x in xs])


def chunk(x: Any, n: Any = None, *, size: Any = None, dims: int | None = None, npartitions: int | None = None) -> Any:
    """`x` in `n` parts, or in parts of `size`, the last one shorter if need be. A list of views.

    An array is cut along axis `dims`, by default the last; a list of numbers is an array. Any other
    list, a string or a range is cut into its slices. `size` may be a list with the size of each
    part. `n` may be a sorted list that tells of each place which part it belongs to, from 0;
    `npartitions` is their number then, if the last ones are empty.

    Raises `ValueError` unless just one of `n` and `size` is given and is 1 or more, if the sizes
    don't add up, or if the list isn't sorted. MLUtils.jl's `chunk`.

    >>> chunk([*range(1, 11)], 3)
    [tensor([1, 2, 3, 4]), tensor([5, 6, 7, 8]), tensor([ 9, 10])]
    >>> chunk("abcde", size=2), chunk(range(1, 7), size=[2, 4])
    (['ab', 'cd', 'e'], [range(1, 3), range(3, 7)])
    >>> [tuple(c.shape) for c in chunk(torch.ones(5, 4), 2, dims=0)]
    [(3, 4), (2, 4)]
    >>> [tuple(c.shape) for c in chunk(torch.ones(2, 5), [0, 1, 1, 2, 2])]
    [(2, 1), (2, 2), (2, 2)]
    """
    if (n is None) == (size is None):
        raise ValueError("chunk takes either the number of parts or their size")
    x = door(x) if dims is None else array(x)
    if not _is_array(x) and dims not in (None, 0, -1):
        raise IndexError(f"a {type(x).__name__} has no axis {dims}")
    axis = -1 if dims is None else dims
    if _is_array(x) and not -x.ndim <= axis < x.ndim:
        raise IndexError(f"there is no axis {axis} in a {summary(x)}")
    length = x.shape[axis] if _is_array(x) else len(x)
    if npartitions is not None and not isinstance(n, _LISTS):
        raise TypeError("npartitions goes with a list that tells of each place which part it belongs to")
    if isinstance(n, _LISTS):
        size = _sizes_of_parts(n, npartitions)
    elif size is None:
        if operator.index(n) < 1:
            raise ValueError(f"chunk needs 1 part or more, but got n={n}")
        size = max(-(-length // n), 1)
    if isinstance(size, _LISTS):
        sizes = size.tolist() if isinstance(size, torch.Tensor) else list(size)
        cuts = [0, *itertools.accumulate(sizes)]
        if cuts[-1] != length or any(k < 0 for k in sizes):
            raise ValueError(
                f"The sum of the sizes must be equal to {length}, the length of the dimension; got {sizes}."
            )
    else:
        if operator.index(size) < 1:
            raise ValueError(f"chunk needs parts of 1 or more, but got size={size}")
        cuts = [*range(0, length, size), length]
    parts = [range(a, b) for a, b in itertools.pairwise(cuts)]
    return [along(x, part, axis) if _is_array(x) else x[part.start : part.stop] for part in parts]


def _sizes_of_parts(places: Any, npartitions: int | None) -> list[int]:
    """How many times 0, 1, … stand in a sorted list."""
    numbers = places.tolist() if isinstance(places, torch.Tensor) else list(places)
    if numbers != sorted(numbers):
        raise ValueError("partition_idxs must be sorted")
    count = (numbers[-1] + 1 if numbers else 0) if npartitions is None else npartitions
    if numbers and not 0 <= numbers[0] <= numbers[-1] < count:
        raise ValueError(f"partition_idxs must be from 0 to {count - 1}, but are {numbers[0]} to {numbers[-1]}")
    sizes = [0] * count
    for k in numbers:
        sizes[k] += 1
    return sizes


class SlidingWindow(Container):
    """What `slidingwindow` gives: its observations are runs of `size` observations of `data`."""

    def __init__(self, data: Any, size: int, stride: int, obsdim: int | None) -> None:
        self.data, self.size, self.stride, self.obsdim = data, size, stride, obsdim

    def __len__(self) -> int:
        return (numobs(self.data) - self.size) // self.stride + 1

    def _get(self, idx: Places) -> Any:
        if isinstance(idx, int):
            return take(self.data, range(idx * self.stride, idx * self.stride + self.size))
        return [self._get(i) for i in listed(idx)]

    def __repr__(self) -> str:
        axis = "" if self.obsdim is None else f", obsdim={self.obsdim}"
        data = self.data if self.obsdim is None else self.data.data
        return f"slidingwindow({size_and_type(data)}, size={self.size}, stride={self.stride}{axis})"


def slidingwindow(data: Any, *, size: int, stride: int = 1, obsdim: int | None = None) -> SlidingWindow:
    """Every run of `size` neighbouring observations of `data`, each starting `stride` after the one before.

    A container: `s[i]` is a window, `s[[0, 2]]` a list of them; windows are views. What is left at
    the end is not reached. Observations lie along axis `obsdim` of an array, by default the last.

    Raises `ValueError` if `size` or `stride` is less than 1, or if there are fewer observations
    than `size`. MLUtils.jl's `slidingwindow`.

    >>> s = slidingwindow(range(11, 31), size=6, stride=3)
    >>> s
    slidingwindow(20-element UnitRange{Int64}, size=6, stride=3)
    >>> list(s)
    [range(11, 17), range(14, 20), range(17, 23), range(20, 26), range(23, 29)]
    """
    if size < 1:
        raise ValueError(f"Specified window size must be strictly greater than 0. Actual: {size}")
    if stride < 1:
        raise ValueError(f"Specified stride must be strictly greater than 0. Actual: {stride}")
    data = door(data) if obsdim is None else obsview(data, ObsDim(obsdim))
    if size > numobs(data):
        raise ValueError(f"Specified window size is too large for the given number of observations: {numobs(data)}")
    return SlidingWindow(data, size, stride, obsdim)
