"""Shapes and scales of arrays: `unsqueeze`, `stack`, `flatten`, `normalise`, `rpad_constant`, `topk` and their kin."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from numbers import Number
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.base import Dims, _along, _array, _axes, _is_array, _packed, _real, eachslice
from fluxtorch.errors import DimensionMismatch

__all__ = ["flatten", "normalise", "rescale", "rpad_constant", "stack", "topk", "unsqueeze", "unstack"]

_MISSING: Any = object()


def exact(val: Any, dtype: torch.dtype) -> Any:
    """The number `val`, unless an array of that type can't hold it; torch would cut off what doesn't fit."""
    val = val.item() if _is_array(val) and val.ndim == 0 else val
    if not isinstance(val, Number):
        raise TypeError(f"an array is filled up with a number, but got {summary(val)}")
    fits = dtype.is_complex or not isinstance(val, complex)
    if fits and not dtype.is_complex and not dtype.is_floating_point:
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        fits = not val % 1 and low <= val <= high  # type: ignore[operator]
    if not fits:
        raise ValueError(f"{val} can't be an element of an array of {str(dtype).removeprefix('torch.')}")
    return val


class _Unsqueeze:
    """What `unsqueeze(dims=d)` gives: a function of an array, to be put in a `Chain`."""

    def __init__(self, dims: int) -> None:
        self.dims = operator.index(dims)

    def __call__(self, x: Any) -> Any:
        return unsqueeze(x, self.dims)

    def __repr__(self) -> str:
        return f"unsqueeze(dims={self.dims})"


def unsqueeze(x: Any = _MISSING, dims: Any = _MISSING) -> Any:
    """`x` with an axis of size 1 put in at `dims`, from 0 to `ndims(x)`; -1 is a new last axis. A view.

    `unsqueeze(dims=d)`, or `unsqueeze(d)` as up to Flux 0.12, gives a function that does it, for a
    `Chain`. Raises `IndexError` for another axis. MLUtils.jl's `unsqueeze`.

    >>> unsqueeze([[1, 2], [3, 4]], dims=1).shape
    torch.Size([2, 1, 2])
    >>> unsqueeze(dims=1), unsqueeze(dims=1)(torch.ones(21, 22, 23)).shape
    (unsqueeze(dims=1), torch.Size([21, 1, 22, 23]))
    """
    if dims is _MISSING:
        x, dims = _MISSING, x
    if dims is _MISSING:
        raise TypeError("unsqueeze needs dims, the place of the new axis")
    if x is _MISSING:
        return _Unsqueeze(dims)
    x = _array(x, "unsqueeze")
    if not -x.ndim - 1 <= operator.index(dims) <= x.ndim:
        raise IndexError(f"a {summary(x)} can get a new axis at 0 to {x.ndim}, but not at {dims}")
    return torch.unsqueeze(x, dims)


def stack(xs: Any, dims: int | None = None) -> Any:
    """Arrays of one size `(…)` side by side in one array, along a new axis `dims`, by default the last.

    Element types are promoted. Raises `DimensionMismatch` if sizes differ, `ValueError` if there is
    none. Julia's `stack`; the second argument may be given by position, as up to Flux 0.12.

    >>> stack([[1, 2], [3, 4], [5, 6]])
    tensor([[1, 3, 5],
            [2, 4, 6]])
    >>> stack([[1, 2], [3, 4], [5, 6]], dims=0).shape
    torch.Size([3, 2])
    """
    if _is_array(xs):
        raise TypeError(f"stack takes a list of arrays, but got one: a {summary(xs)}")
    items = [array(x) for x in xs]
    if not items:
        raise ValueError("stack needs at least one array")
    packed = _packed(items, torch.get_default_dtype())
    if packed is not None and dims in (None, 0, -1):
        return packed
    for x in items:
        if _array(x, "stack").shape != items[0].shape:
            raise DimensionMismatch(f"stack needs arrays of one size, but got a {summary(items[0])} and a {summary(x)}")
    ndim = items[0].ndim
    axis = ndim if dims is None else operator.index(dims)
    if not -ndim - 1 <= axis <= ndim:
        raise IndexError(f"arrays of {ndim} axes can be stacked along axis 0 to {ndim}, but not along {dims}")
    axis %= ndim + 1
    if not all(isinstance(x, torch.Tensor) for x in items):
        return torch.stack(items, axis)
    return reversed_axes(torch.stack([reversed_axes(x) for x in items], ndim - axis))


def unstack(xs: Any, dims: int) -> list[Any]:
    """The slices of an array along axis `dims`, without that axis: a list of views. The inverse of `stack`.

    Raises `IndexError` for an axis that isn't there. MLUtils.jl's `unstack`; `dims` may be given by
    position, as up to Flux 0.12.

    >>> unstack([[1, 3, 5, 7], [2, 4, 6, 8]], dims=1)
    [tensor([1, 2]), tensor([3, 4]), tensor([5, 6]), tensor([7, 8])]
    """
    return eachslice(_array(xs, "unstack"), dims=dims)


def flatten(x: Any) -> Any:
    """An array `(a, b, …, N)` as `(a * b * …, N)`, column-major; a vector `(N,)` as `(1, N)`.

    A view wherever the memory allows it. MLUtils.jl's `flatten`.

    >>> flatten(torch.ones(3, 4, 5)).shape, flatten([1.0, 2.0]).shape
    (torch.Size([12, 5]), torch.Size([1, 2]))
    """
    x = _array(x, "flatten")
    if x.ndim == 0:
        return x.reshape(1, 1)
    return reversed_axes(reversed_axes(x).reshape(x.shape[-1], math.prod(x.shape[:-1])))


# Up to so many numbers torch's norm is as exact as its standard deviation, and it is many times faster.
_FEW = 10_000


def normalise(x: Any, *, dims: Dims = -1, eps: float = 1e-5, ε: float | None = None) -> torch.Tensor:
    """`(x - μ) / (σ + eps)`, with the mean μ and the uncorrected standard deviation σ along `dims`.

    `x` is of any shape, the result of the same. `dims` is an axis or several, by default the last;
    None is all. Integers become Float64. `ε` is what `eps` was called up to Flux 0.13.

    Raises `IndexError` for an axis that isn't there.

    >>> x = torch.tensor([90, 100, 110, 130, 70])
    >>> normalise(x)
    tensor([-0.5000,  0.0000,  0.5000,  1.5000, -1.5000], dtype=torch.float64)
    """
    try:
        x = _real(_array(x, "normalise"))
    except TypeError:
        raise TypeError(f"layer normalise expects an array as input, but got {summary(x)}") from None
    axes = _axes(x, dims)
    if not axes or not x.numel():  # each number by itself, while torch would take all together
        return x - x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # halves are too coarse for statistics
    n, centred = math.prod([x.shape[d] for d in axes]), wide - wide.mean(axes, keepdim=True)
    if n <= _FEW:
        σ = torch.linalg.vector_norm(centred, dim=axes, keepdim=True) / math.sqrt(n)
    else:
        σ = torch.std(wide, axes, correction=0, keepdim=True)
    return (centred * (1 / (σ + (eps if ε is None else ε)))).to(x.dtype)


def rescale(x: Any, *, dims: Dims = -1, eps: float = 1e-5, ε: float | None = None) -> Any:
    """`(x - min) / (max - min + eps)`, with the least and the largest element along `dims`: from 0 to almost 1.

    `x` is of any shape, the result of the same. `dims` is an axis or several, by default the last;
    None is all. Integers become Float64. MLUtils.jl's `rescale`; `ε` is its name of `eps`.

    >>> rescale([10.0, 20.0, 30.0])
    tensor([0.0000, 0.5000, 1.0000])
    """
    x = _real(_array(x, "rescale"))
    low = _along(lambda x, axes, keep: torch.amin(x, axes, keepdim=keep), x, dims)
    high = _along(lambda x, axes, keep: torch.amax(x, axes, keepdim=keep), x, dims)
    return (x - low) / (high - low + (eps if ε is None else ε))


def rpad_constant(x: Any, n: int | Iterable[int], val: Any = 0, *, dims: int | Iterable[int] | None = None) -> Any:
    """`x` filled up with `val` at the far end of the axes `dims` (None is all) until they are `n` long.

    `n` is one length or one for each of `dims`; an axis that is longer already stays. A list of
    anything but numbers is filled up as a list. Raises `DimensionMismatch` if there are not as many
    lengths as axes, `ValueError` for a number that an array of this type can't hold, a broken one
    among integers. MLUtils.jl's `rpad_constant`.

    >>> rpad_constant([1, 2], 4, -1), rpad_constant(["a"], 2, "_")
    (tensor([ 1,  2, -1, -1]), ['a', '_'])
    >>> rpad_constant([[1, 2], [3, 4]], (3, 4))
    tensor([[1, 2, 0, 0],
            [3, 4, 0, 0],
            [0, 0, 0, 0]])
    """
    x = array(x)
    ndim = 1 if isinstance(x, list) else _array(x, "rpad_constant").ndim
    axes = list(range(ndim)) if dims is None else list(dims) if isinstance(dims, Iterable) else [dims]
    lengths = list(map(operator.index, n if isinstance(n, Iterable) else [n] * len(axes)))
    if len(lengths) != len(axes):
        raise DimensionMismatch(f"rpad_constant got {len(lengths)} lengths for {len(axes)} axes")
    for d in axes:
        if not -ndim <= d < ndim:
            raise IndexError(f"there is no axis {d} in a {summary(x)}")
    if isinstance(x, list):
        return x + [val] * (lengths[0] - len(x))
    pads = [0] * (2 * ndim)
    for d, length in zip(axes, lengths, strict=True):
        pads[2 * (d % ndim) + 1] = max(length - x.shape[d], 0)
    return reversed_axes(F.pad(reversed_axes(x), pads, value=exact(val, x.dtype)))


def topk(x: Any, k: int, *, dims: int = 0, rev: bool = True) -> tuple[Any, Any]:
    """The `k` largest elements along axis `dims`, the largest first, and their places there, from 0.

    Both are of the size of `x` but for `k` along `dims`. With `rev=False`, the smallest, the
    smallest first. Of equals the first comes first. Raises `ValueError` unless 1 ≤ k ≤ the axis's
    length. MLUtils.jl's `topk`.

    >>> topk([5, 1, 4, 2, 3], 3)
    (tensor([5, 4, 3]), tensor([0, 2, 4]))
    """
    x = _array(x, "topk")
    if not -x.ndim <= dims < x.ndim:
        raise IndexError(f"there is no axis {dims} in a {summary(x)}")
    n = x.shape[dims]
    if not 1 <= operator.index(k) <= n:
        raise ValueError(f"k={k} must be in the range 1:size(x, {dims})={n}")
    values, places = torch.sort(x, dim=dims, descending=rev, stable=True)  # torch.topk may take any of equals
    return values.narrow(dims, 0, k), places.narrow(dims, 0, k)
