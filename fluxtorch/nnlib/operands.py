"""What the functions of this room make of their arguments."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch

from fluxtorch.arrays import array, summary

__all__ = ["alike", "axes", "element", "floats", "tensor", "whole", "wholes"]


def tensor(name: str, x: Any) -> torch.Tensor:
    """`x` as a tensor, as which lists of numbers and ranges count; a `TypeError` that says `name` for anything else.

    >>> tensor("glu", [1, 2])
    tensor([1, 2])
    """
    x = array(x)
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} takes an array, but got {summary(x)}")
    # Only integers that `gradient` differentiates by ever require one; to torch's kernels they must be floats then.
    return floats(x) if x.requires_grad else x


def floats(x: torch.Tensor) -> torch.Tensor:
    """`x`, integers as torch's default float type.

    >>> floats(torch.tensor([1, 2]))
    tensor([1., 2.])
    """
    return x if x.is_floating_point() or x.is_complex() else x.to(torch.get_default_dtype())


def alike(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in one element type, that of Julia's promotion. Under autocast the kernels see to it themselves.

    >>> alike(torch.ones(1), torch.tensor([2]))
    (tensor([1.]), tensor([2.]))
    """
    if a.dtype == b.dtype or (not a.is_meta and torch.is_autocast_enabled(a.device.type)):  # meta has none
        return a, b
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype), b.to(dtype)


def whole(what: str, n: Any, least: int | None = 0) -> int:
    """`n` as an int; a `TypeError` if it is no whole number, a `ValueError` if it is below `least`.

    >>> whole("pad", 2)
    2
    """
    try:
        i = operator.index(n)
    except TypeError:
        raise TypeError(f"{what} must be a whole number, and is {summary(n)}") from None
    if least is not None and i < least:
        raise ValueError(f"{what} must be at least {least}, and is {i}")
    return i


def wholes(what: str, ns: Any, least: int | None = 0) -> tuple[int, ...]:
    """The whole numbers `ns`, or the one whole number, as a tuple.

    >>> wholes("size", (4, 9)), wholes("size", 4)
    ((4, 9), (4,))
    """
    return tuple(whole(what, n, least) for n in (ns if isinstance(ns, (tuple, list, range)) else (ns,)))


def axes(name: str, x: torch.Tensor, dims: int | Sequence[int]) -> tuple[int, ...]:
    """The axes `dims` of `x`, each counted from 0; an `IndexError` for one that `x` doesn't have.

    >>> axes("pad_zeros", torch.zeros(2, 3, 4), (0, -1))
    (0, 2)
    """
    chosen = wholes("an axis", dims, None)
    for d in chosen:
        if not -x.ndim <= d < x.ndim:
            raise IndexError(f"{name} got axis {d}, which a {summary(x)} doesn't have")
    chosen = tuple(d % x.ndim for d in chosen)
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"{name} got an axis twice, in dims {dims}")
    return chosen


def element(name: str, value: Any, dtype: torch.dtype) -> Any:
    """The number `value`, which must be one that an array of `dtype` can hold.

    >>> element("scatter", 10, torch.float32)
    10
    """
    if not isinstance(value, (int, float, complex)):
        raise TypeError(f"{name} takes a number to fill an array with, but got {summary(value)}")
    fits = dtype.is_complex or not isinstance(value, complex)
    if isinstance(value, (int, float)) and not (dtype.is_floating_point or dtype.is_complex):
        low, high = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
        fits = low <= value <= high and value == int(value)
    if not fits:
        raise ValueError(f"{name} can't put {value} into an array of {str(dtype).removeprefix('torch.')}")
    return value
