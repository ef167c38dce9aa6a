"""Reading from, and adding up at, places given by an array of indices."""

from __future__ import annotations

import builtins
import math
import operator
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fluxtorch import base
from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import element, floats, tensor, wholes
from fluxtorch.printing import show

__all__ = ["gather", "scatter"]

_OPERATIONS: dict[Callable[..., Any], str] = {
    **dict.fromkeys((operator.add, torch.add), "+"),
    **dict.fromkeys((operator.sub, torch.sub, torch.subtract), "-"),
    **dict.fromkeys((operator.mul, torch.mul, torch.multiply), "*"),
    **dict.fromkeys((operator.truediv, torch.div, torch.divide, torch.true_divide), "/"),
    **dict.fromkeys((builtins.max, base.max, torch.max, torch.maximum), "max"),
    **dict.fromkeys((builtins.min, base.min, torch.min, torch.minimum), "min"),
    **dict.fromkeys((base.mean, torch.mean, statistics.mean), "mean"),
}


def gather(src: Any, idx: Any, *more: Any) -> torch.Tensor:
    """The slices `src[..., idx[k]]` of `src` for each `k`, as `dst[..., k]`.

    `idx` is an array of whole numbers, of any shape, which count along the last axis of `src`; or a
    list (of lists) of tuples, one number for each of the last axes. `gather(src, i, j, ...)`, and a
    tuple of arrays as `idx`, give the numbers of those tuples array by array. For `src` `(a, b, n)`
    and `idx` `(k, l)` the result is `(a, b, k, l)`.

    Raises `IndexError` for an index that `src` doesn't have, `DimensionMismatch` for one with more
    numbers than `src` has axes. NNlib's manual, "Gather and scatter".

    >>> gather([1, 20, 300, 4000], [1, 3, 1])
    tensor([  20, 4000,   20])
    >>> gather([[1, 2, 3], [4, 5, 6]], [0, 2, 0, 2, 0])
    tensor([[1, 3, 1, 3, 1],
            [4, 6, 4, 6, 4]])
    >>> gather([[1, 2, 3], [4, 5, 6]], [(0, 0), (1, 2)])
    tensor([1, 6])
    """
    src = tensor("gather", src)
    places = _places("gather", (idx, *more) if more else idx, src.device)
    m = len(places)
    if m > src.ndim:
        raise DimensionMismatch(f"gather got indices of {m} numbers for a {summary(src)}")
    kept, size = src.shape[: src.ndim - m], src.shape[src.ndim - m :]
    try:
        if m == 1:  # index_select looks after its range, and the source may be long
            row = reversed_axes(places[0]).reshape(-1)
            rows = torch.where(row < 0, row + size[0], row)
        else:
            rows = _rows(places, size)
        taken = reversed_axes(src).reshape(math.prod(size), *kept[::-1]).index_select(0, rows)
    except IndexError:
        raise IndexError(f"gather got an index outside of the last {m} axes of a {summary(src)}") from None
    return reversed_axes(taken.reshape(*places[0].shape[::-1], *kept[::-1]))


def scatter(op: Callable[..., Any], src: Any, idx: Any, *, init: Any = None, dstsize: Any = None) -> torch.Tensor:
    """`dst[..., idx[k]] = op.(dst[..., idx[k]], src[..., k])` for each `k`, on a new array `dst`.

    `op` is `+`, `-`, `*`, `/` (`operator.add`, `torch.add` and so on), `max`, `min` or `mean`. `idx`
    is as in `gather`; `src` has its axes last, `(a, b, k, l)` for `idx` `(k, l)`. `dst` is full of
    `init`, by default what doesn't change the result: 0, 1, or the least or largest number for `max`
    and `min`. To a mean, `init` is added. `dstsize` is the size of `dst`, by default the axes of
    `src` before those of `idx` and then as many places as the largest index asks for, `(a, b, n)`.
    Of equal values, each gets the gradient of `max` and `min`, as in NNlib. Means and quotients
    of integers are floats.

    Raises `DimensionMismatch` if the sizes don't fit, `IndexError` for an index outside of `dst`
    and, without `dstsize`, for a negative one; `TypeError` for another `op`.

    >>> scatter(torch.add, [10, 100, 1000], [2, 0, 1])
    tensor([ 100, 1000,   10])
    >>> scatter(torch.add, [[1, 2, 3, 4], [5, 6, 7, 8]], [1, 0, 0, 4])
    tensor([[ 5,  1,  0,  0,  4],
            [13,  5,  0,  0,  8]])
    >>> scatter(torch.mul, [10, 200, 3000], [0, 3, 1], init=10, dstsize=6)
    tensor([  100, 30000,    10,  2000,    10,    10])
    """
    name = _operation(op)
    src = tensor("scatter", src)
    places = _places("scatter", idx, src.device)
    d = src.ndim - places[0].ndim
    if d < 0 or src.shape[d:] != places[0].shape:
        raise DimensionMismatch(
            f"scatter expects the source to have the axes of the indices last, and got a {summary(src)} "
            f"and indices of size {tuple(places[0].shape)}"
        )
    kept = tuple(src.shape[:d])
    if dstsize is None:
        size = _size(places)
    else:
        full = wholes("dstsize", dstsize)
        size = full[d:]
        if full[:d] != kept or len(size) != len(places):
            raise DimensionMismatch(
                f"scatter can't put a {summary(src)} into an array of size {full}: that must be {kept} "
                f"and then as many axes as an index has numbers, {len(places)}"
            )
    if name in ("/", "mean"):
        src = floats(src)
    elif src.dtype == torch.bool:
        src = src.long()
    start = _neutral(name, src.dtype) if init is None else element("scatter", init, src.dtype)
    try:
        rows = _rows(places, size)
    except IndexError:
        raise IndexError(
            f"scatter got an index outside of the last axes of an array of size {(*kept, *size)}"
        ) from None
    source = reversed_axes(src).reshape(rows.numel(), math.prod(kept))
    dst = source.new_full((math.prod(size), math.prod(kept)), start)
    return reversed_axes(_scattered(name, dst, source, rows).reshape(*size[::-1], *kept[::-1]))


def _scattered(name: str, dst: torch.Tensor, source: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """The rows of `source` put into those of `dst`."""
    if name in "+-":
        return dst.index_add(0, rows, source, alpha=1 if name == "+" else -1)
    if name == "mean":
        count = rows.new_zeros(dst.shape[0]).index_add(0, rows, torch.ones_like(rows))
        return dst + torch.zeros_like(dst).index_add(0, rows, source) / count.clamp(min=1)[:, None]
    at = rows[:, None].expand_as(source)
    if name == "*":
        return dst.scatter_reduce(0, at, source, "prod")
    if name == "/":
        return dst / torch.ones_like(dst).scatter_reduce(0, at, source, "prod")
    y = dst.scatter_reduce(0, at, source.detach(), "amax" if name == "max" else "amin")
    if not source.requires_grad:
        return y
    # torch would share the gradient out among equal values. This adds zeros, with a slope of 1 at each of them.
    zeros = source.clone()
    zeros.detach().zero_()
    return y.index_add(0, rows, torch.where(source == y.index_select(0, rows), zeros, 0))


def _operation(op: Any) -> str:
    try:
        return _OPERATIONS[op]
    except (KeyError, TypeError):
        raise TypeError(f"scatter knows +, -, *, /, max, min and mean, and got {show(op)}") from None


def _neutral(name: str, dtype: torch.dtype) -> Any:
    if name in ("max", "min"):
        if dtype.is_floating_point:
            return -math.inf if name == "max" else math.inf
        return torch.iinfo(dtype).min if name == "max" else torch.iinfo(dtype).max
    return int(name in "*/")


def _places(name: str, idx: Any, device: torch.device) -> tuple[torch.Tensor, ...]:
    """The indices as one array for each of their numbers, all of one shape."""
    first = idx
    while type(first) is list and first:
        first = first[0]
    if type(idx) is list and isinstance(first, tuple):
        given: Sequence[Any] = torch.tensor(idx).unbind(-1)
    else:
        given = [
            torch.tensor([], dtype=torch.int64) if type(i) is list and not i else array(i)
            for i in (idx if type(idx) is tuple else (idx,))
        ]
    for i in given:
        if not isinstance(i, torch.Tensor) or i.is_floating_point() or i.is_complex() or i.dtype == torch.bool:
            raise TypeError(f"{name} expects indices that are whole numbers, or tuples of them, and got {summary(i)}")
    if not given:
        raise TypeError(f"{name} expects indices of at least one number, and got {summary(idx)}")
    if any(i.shape != given[0].shape for i in given):
        raise DimensionMismatch(f"{name} got arrays of indices of different sizes: {', '.join(map(summary, given))}")
    return tuple(i.detach().to(device, torch.int64) for i in given)


def _size(places: tuple[torch.Tensor, ...]) -> tuple[int, ...]:
    """As many places along each axis as the largest index asks for."""
    if not places[0].numel():
        raise ValueError("scatter needs `dstsize` where there are no indices")
    limits = [tuple(map(int, i.aminmax())) for i in places]
    if any(least < 0 for least, _ in limits):
        raise IndexError("scatter needs `dstsize` where indices are negative: they count from the end")
    return tuple(most + 1 for _, most in limits)


def _rows(places: tuple[torch.Tensor, ...], size: Sequence[int]) -> torch.Tensor:
    """Which element of an array of `size` each index means, counted column-major; checks every number."""
    rows, step = torch.zeros((), dtype=torch.int64, device=places[0].device), 1
    for i, n in zip(places, size, strict=True):
        rows = rows + torch.arange(0, n * step, step, device=i.device)[reversed_axes(i).reshape(-1)]
        step *= n
    return rows
