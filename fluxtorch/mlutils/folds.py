"""Parts of data: `splitobs`, folds, and resampling by class."""

from __future__ import annotations

import collections
import itertools
from numbers import Integral, Real
from typing import Any

import torch

from fluxtorch.base import _is_array, _source, vec
from fluxtorch.errors import DimensionMismatch
from fluxtorch.mlutils.observations import door, numobs, obsview, seeded, within
from fluxtorch.mlutils.transforms import MappedData, key

__all__ = [
    "frequencies",
    "group_counts",
    "group_indices",
    "kfolds",
    "leavepout",
    "oversample",
    "splitobs",
    "timeseries_kfolds",
    "undersample",
]


# ---------------------------------------------------------------- classes


def _labels(x: Any) -> list[Any]:
    """The elements of an array or another collection, as a dict can look them up."""
    x = door(x)
    return list(map(key, vec(x).tolist() if _is_array(x) else x))


def group_counts(x: Any) -> dict[Any, int]:
    """How often each element of `x` is there, in the order in which they first are.

    Arrays, lists and strings; an array or a list that is an element counts as a tuple. MLUtils.jl's
    `group_counts`, Flux's `frequencies`.

    >>> group_counts(["a", "b", "b"])
    {'a': 1, 'b': 2}
    """
    return dict(collections.Counter(_labels(x)))


frequencies = group_counts


def group_indices(x: Any) -> dict[Any, list[int]]:
    """The places, from 0, where each element of the vector or list `x` is, in the order in which they first are.

    Raises `DimensionMismatch` for an array of more axes. MLUtils.jl's `group_indices`.

    >>> group_indices(["yes", "no", "maybe", "yes"])
    {'yes': [0, 3], 'no': [1], 'maybe': [2]}
    """
    x = door(x)
    if _is_array(x) and x.ndim != 1:
        raise DimensionMismatch(f"group_indices takes a vector, but got an array of {x.ndim} axes")
    groups: dict[Any, list[int]] = {}
    for i, label in enumerate(_labels(x)):
        groups.setdefault(label, []).append(i)
    return groups


# ---------------------------------------------------------------- splits


def _count(data: Any) -> int:
    """How many places there are to split: those of `data`, or `data` itself."""
    return int(data) if isinstance(data, Integral) else numobs(data)


def _cuts(n: int, at: tuple[float, ...]) -> list[range]:
    """`range(n)` in `len(at) + 1` parts, of the sizes to which those fractions come when rounded one by one."""
    parts, start, left = [], 0, n
    for fraction in at:
        # What is left is rounded, not the whole: a part is never larger than that.
        share = fraction * n / left if left else fraction
        if not 0 <= share <= 1 + 1e-9:  # 0.44 and 0.56 are all of it, whatever floats say
            raise ValueError('the parameter "at" must be in interval (0, 1), and a tuple adds up to no more than that')
        size = min(round(left * share), left)
        parts.append(range(start, start + size))
        start, left = start + size, left - size
    return [*parts, range(start, n)]


def _fractions(n: int, at: Any) -> tuple[float, ...]:
    given = tuple(at) if isinstance(at, (tuple, list)) else (at,)
    if all(isinstance(a, Integral) for a in given):
        return tuple(int(a) / n if n else 0.0 for a in given)
    if all(isinstance(a, Real) and not isinstance(a, Integral) for a in given):
        return tuple(map(float, given))
    raise TypeError(f"at is made up of fractions (floats) or of counts (ints), but got {at}")


def _permutation(n: int, shuffle: bool, rng: torch.Generator | None) -> range | torch.Tensor:
    return torch.randperm(n, **_source(rng)) if shuffle else range(n)


def _reordered(order: range | torch.Tensor, places: range | list[int]) -> range | torch.Tensor:
    return within(order, places if isinstance(places, range) else torch.tensor(places, dtype=torch.int64))


def _stratum_labels(stratified: Any, n: int, order: range | torch.Tensor) -> list[Any]:
    labels = _labels(stratified)
    if len(labels) != n:
        raise DimensionMismatch(f"`stratified` must have the same length as the data ({len(labels)} != {n})")
    return [labels[i] for i in order]


@seeded
def splitobs(
    data: Any, *, at: Any, shuffle: bool = False, stratified: Any = None, rng: torch.Generator | None = None
) -> tuple[Any, ...]:
    """`splitobs([rng], data; at)`: `data` in two parts or more, one after the other, as `obsview` gives them.

    `at` is the first part's share, from 0.0 to 1.0, or, if it is an int, its number of observations;
    or a tuple of these for all parts but the last. Of an int `data` the places are split. With
    `shuffle=True` the observations are put in random order first. With `stratified`, a label for
    each observation, every part gets the same share of each label.

    Raises `ValueError` if `at` is less than nothing or more than all, `DimensionMismatch` unless
    there are as many labels as observations, `TypeError` for shares and numbers mixed. MLUtils.jl's
    `splitobs`.

    >>> splitobs(100, at=0.7), splitobs(100, at=(0.1, 0.4))
    ((range(0, 70), range(70, 100)), (range(0, 10), range(10, 50), range(50, 100)))
    >>> splitobs(range(1, 11), at=0.5, stratified=[0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    (tensor([1, 2, 5, 6, 7]), tensor([ 3,  4,  8,  9, 10]))
    """
    n = _count(data)
    data = range(n) if isinstance(data, Integral) else data
    fractions, order = _fractions(n, at), _permutation(n, shuffle, rng)
    if stratified is None:
        return tuple(obsview(data, _reordered(order, part)) for part in _cuts(n, fractions))
    parts: list[list[int]] = [[] for _ in range(len(fractions) + 1)]
    for places in group_indices(_stratum_labels(stratified, n, order)).values():
        for part, cut in zip(parts, _cuts(len(places), fractions), strict=True):
            part.extend(places[cut.start : cut.stop])
    return tuple(obsview(data, _reordered(order, part)) for part in parts)


# ---------------------------------------------------------------- folds


def _folds(n: int, k: int, of: str = "") -> list[range]:
    """`range(n)` in k parts; the first ones are larger by 1 where that must be."""
    if not 2 <= k <= n:
        raise ValueError(f"k={k} must be within 2:{max(2, n)}{of}")
    ends = [0, *itertools.accumulate(n // k + (i < n % k) for i in range(k))]
    return [range(a, b) for a, b in itertools.pairwise(ends)]


def _stratified_folds(labels: list[Any], k: int) -> list[list[int]]:
    val: list[list[int]] = [[] for _ in range(k)]
    for label, places in group_indices(labels).items():
        folds = _folds(len(places), k, f" for stratified kfolds (label {label} has {len(places)} observations)")
        for part, fold in zip(val, folds, strict=True):
            part.extend(places[fold.start : fold.stop])
    return [sorted(part) for part in val]


def _others(n: int, val: range | list[int]) -> list[int]:
    left_out = set(val)
    return [i for i in range(n) if i not in left_out]


def _pairs(data: Any, order: range | torch.Tensor, val: Any, train: Any = None) -> MappedData:
    """The folds of `data`, each made when it is asked for, so that only one is in memory."""

    def fold(i: int) -> tuple[Any, Any]:
        rest = _others(len(order), val[i]) if train is None else train[i]
        return obsview(data, _reordered(order, rest)), obsview(data, _reordered(order, val[i]))

    return MappedData(fold, range(len(val)), "never")


@seeded
def kfolds(
    data: Any, k: int = 5, *, shuffle: bool = False, stratified: Any = None, rng: torch.Generator | None = None
) -> Any:
    """`kfolds([rng], data, k = 5)`: k pairs (train, val), each observation in one `val` and in the other `train`s.

    The `val`s are runs of neighbours; with `shuffle=True` they are drawn at random; with
    `stratified`, a label for each observation, each has the same share of every label. The pairs are
    made when they are asked for, can be gone through again and indexed. For an int, two lists: the
    places of the `train`s, and those of the `val`s.

    Raises `ValueError` unless 2 ≤ k ≤ the number of observations (of each label, if stratified),
    `DimensionMismatch` unless there are as many labels as observations. MLUtils.jl's `kfolds`.

    >>> train, val = kfolds(10, 5)
    >>> train[1], val[1]
    ([0, 1, 4, 5, 6, 7, 8, 9], range(2, 4))
    >>> [(len(x), v) for (x, _), (_, v) in kfolds((torch.arange(6), list("abcdef")), k=3)]
    [(4, ['a', 'b']), (4, ['c', 'd']), (4, ['e', 'f'])]
    """
    n = _count(data)
    if isinstance(data, Integral):
        val = _folds(n, k)
        return [_others(n, v) for v in val], val
    order = _permutation(n, shuffle, rng)
    if stratified is None:
        return _pairs(data, order, _folds(n, k))
    return _pairs(data, order, _stratified_folds(_stratum_labels(stratified, n, order), k))


def leavepout(data: Any, p: int = 1) -> Any:
    """`kfolds` with so many folds that about `p` observations are in each `val`; p or p + 1, to be exact.

    Raises `ValueError` unless 1 ≤ p ≤ half the number of observations. MLUtils.jl's `leavepout`.

    >>> leavepout(10, 2)[1]
    [range(0, 2), range(2, 4), range(4, 6), range(6, 8), range(8, 10)]
    """
    n = _count(data)
    if not 1 <= p <= n // 2:
        raise ValueError(f"p={p} must be within 1:{n // 2}")
    return kfolds(data, n // p)


def timeseries_kfolds(data: Any, *, k: int = 5, gap: int = 0, max_train_size: int | None = None) -> Any:
    """k pairs (train, val) in which `val` comes after `train`.

    The `val`s are the last k runs of n ÷ (k + 1) observations. `train` is all that comes before,
    without `gap` observations next to `val`, and no more than the last `max_train_size` of it. The
    pairs are like those of `kfolds`; for an int, two lists of ranges.

    Raises `ValueError` if there are too few observations for k, `gap` and `max_train_size`, or these
    make no sense. MLUtils.jl's `timeseries_kfolds`.

    >>> timeseries_kfolds(10, k=3)
    ([range(0, 4), range(0, 6), range(0, 8)], [range(4, 6), range(6, 8), range(8, 10)])
    """
    n = _count(data)
    if not 2 <= k <= n - 1:
        raise ValueError(f"k={k} must be within 2:{max(2, n - 1)}")
    if gap < 0:
        raise ValueError(f"gap={gap} must be non-negative")
    if max_train_size is not None and max_train_size < 1:
        raise ValueError(f"max_train_size={max_train_size} must be positive")
    size = n // (k + 1)
    if size < 1:
        raise ValueError(f"not enough observations ({n}) for k={k} folds")
    val = [range(n - (k - i) * size, n - (k - i - 1) * size) for i in range(k)]
    ends = [v.start - gap for v in val]
    if ends[0] < 1:
        raise ValueError(f"gap={gap} is too large for k={k} folds")
    train = [range(0 if max_train_size is None else max(0, end - max_train_size), end) for end in ends]
    return (train, val) if isinstance(data, Integral) else _pairs(data, range(n), val, train)


# ---------------------------------------------------------------- resampling


def _some(places: list[int], count: int, shuffle: bool, rng: torch.Generator | None) -> list[int]:
    order = torch.randperm(len(places), **_source(rng)).tolist() if shuffle else range(count)
    return [places[i] for i in order[:count]]


def _resampled(
    data: Any, classes: Any, places: list[int], shuffle: bool, rng: torch.Generator | None
) -> tuple[Any, Any]:
    places = _some(places, len(places), shuffle, rng)
    return obsview(data, places), obsview(classes, places)


def _with_classes(data: Any, classes: Any) -> tuple[Any, dict[Any, list[int]]]:
    groups = group_indices(classes)
    n, m = numobs(data), numobs(classes)
    if n != m:
        raise DimensionMismatch(f"there must be a class for each observation, but there are {n} and {m} classes")
    if not groups:
        raise ValueError("there is no observation to sample from")
    return n, groups


@seeded
def oversample(
    data: Any, classes: Any = None, *, fraction: float = 1, shuffle: bool = True, rng: torch.Generator | None = None
) -> tuple[Any, ...]:
    """`oversample([rng], data, classes)`: all observations, and those of the smaller classes again.

    As often as it takes for every class to have at least `fraction` times as many as the largest.
    The result is shuffled; with `shuffle=False` the repeated ones are at the end, class by class,
    the first of each. `classes` has a label for each observation. Returns data and classes; without
    `classes`, the last part of the tuple `data` has them, and the result is such a tuple.

    Raises `DimensionMismatch` unless there are as many classes as observations. MLUtils.jl's
    `oversample`.

    >>> oversample(range(1, 7), ["a", "b", "b", "b", "b", "a"], shuffle=False)
    (tensor([1, 2, 3, 4, 5, 6, 1, 6]), ['a', 'b', 'b', 'b', 'b', 'a', 'a', 'a'])
    """
    if classes is None:
        x, y = oversample(_features(data), data[-1], fraction=fraction, shuffle=shuffle, rng=rng)
        return (*x, y)
    n, groups = _with_classes(data, classes)
    wanted = round(fraction * max(map(len, groups.values())))
    places = list(range(n))
    for group in groups.values():
        missing = wanted - len(group)
        while missing > len(group):
            places += group
            missing -= len(group)
        if missing > 0:
            places += _some(group, missing, shuffle, rng)
    return _resampled(data, classes, places, shuffle, rng)


@seeded
def undersample(
    data: Any, classes: Any = None, *, shuffle: bool = True, rng: torch.Generator | None = None
) -> tuple[Any, ...]:
    """`undersample([rng], data, classes)`: of each class as many observations as the smallest has, none twice.

    They are drawn at random and shuffled; with `shuffle=False` they are the first ones, in their own
    order. `classes` has a label for each observation. Returns data and classes; without `classes`,
    the last part of the tuple `data` has them, and the result is such a tuple.

    Raises `DimensionMismatch` unless there are as many classes as observations. MLUtils.jl's
    `undersample`.

    >>> undersample(range(1, 7), ["a", "b", "b", "b", "b", "a"], shuffle=False)
    (tensor([1, 2, 3, 6]), ['a', 'b', 'b', 'a'])
    """
    if classes is None:
        x, y = undersample(_features(data), data[-1], shuffle=shuffle, rng=rng)
        return (*x, y)
    _, groups = _with_classes(data, classes)
    count = min(map(len, groups.values()))
    places = [i for group in groups.values() for i in _some(group, count, shuffle, rng)]
    return _resampled(data, classes, places if shuffle else sorted(places), shuffle, rng)


def _features(data: Any) -> tuple[Any, ...]:
    if not isinstance(data, tuple) or len(data) < 2:
        raise TypeError("give the classes, or data as a tuple whose last part they are")
    return data[:-1]
