"""Padding on arrays of any number of axes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import axes, element, tensor, wholes

__all__ = ["pad_circular", "pad_constant", "pad_reflect", "pad_repeat", "pad_symmetric", "pad_zeros"]

Dims: TypeAlias = "int | Sequence[int] | None"
Ends: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"


def pad_constant(x: Any, pad: Any, val: Any = 0, dims: Dims = None) -> torch.Tensor:
    """`x` with the number `val` put around it; every axis unless `dims` names an axis or several.

    `pad` is a number for both ends of each axis in `dims`, a tuple with one for each of them, or
    one with begin and end of each in turn. Takes an array of any shape, whose axes in `dims` grow.

    Raises `DimensionMismatch` for a `pad` of another length, `ValueError` for a negative one or a
    `val` that the array can't hold. NNlib's manual, "Padding".

    >>> r = [[1, 3], [2, 4]]
    >>> pad_constant(r, (1, 2, 3, 4), 8)
    tensor([[8, 8, 8, 8, 8, 8, 8, 8, 8],
            [8, 8, 8, 1, 3, 8, 8, 8, 8],
            [8, 8, 8, 2, 4, 8, 8, 8, 8],
            [8, 8, 8, 8, 8, 8, 8, 8, 8],
            [8, 8, 8, 8, 8, 8, 8, 8, 8]])
    >>> pad_constant(r, 1, dims=0)
    tensor([[0, 0],
            [1, 3],
            [2, 4],
            [0, 0]])
    """
    x = tensor("pad_constant", x)
    chosen = axes("pad_constant", x, range(x.ndim) if dims is None else dims)
    pad = wholes("pad", pad) if isinstance(pad, (tuple, list)) else wholes("pad", pad) * len(chosen)
    if len(pad) not in (len(chosen), 2 * len(chosen)):
        raise DimensionMismatch(
            f"could not parse padding {pad} and dims {chosen}: it takes a number for each axis, or two of them"
        )
    if len(pad) == len(chosen):
        pad = tuple(p for p in pad for _ in range(2))
    widths = [0] * (2 * x.ndim)
    for i, d in enumerate(chosen):
        widths[2 * d : 2 * d + 2] = pad[2 * i : 2 * i + 2]
    xr = reversed_axes(x)
    number = isinstance(val, torch.Tensor) and val.ndim == 0
    if not number and not isinstance(element("pad_constant", val, x.dtype), complex):
        return reversed_axes(F.pad(xr, widths, value=val))
    inside = F.pad(torch.ones_like(xr, dtype=torch.bool), widths)
    return reversed_axes(torch.where(inside, F.pad(xr, widths), val))


def pad_zeros(x: Any, pad: Any, dims: Dims = None) -> torch.Tensor:
    """`x` with zeros around it: `pad_constant(x, pad, 0; dims)`.

    >>> pad_zeros([1, 2], (1, 2))
    tensor([0, 1, 2, 0, 0])
    """
    return pad_constant(x, pad, 0, dims=dims)


def pad_repeat(x: Any, pad: Any, dims: Dims = None) -> torch.Tensor:
    """`x` with the values on its border repeated outwards.

    `pad` is a tuple of begin and end for each axis in `dims`, by default for the first axes; or a
    number for all of these ends, by default for all axes but the last two (channels and batch).
    Takes an array of any shape, whose axes in `dims` grow.

    Raises `DimensionMismatch` for a `pad` that doesn't fit `dims`, `ValueError` for a negative one.

    >>> pad_repeat([[1, 4, 7], [2, 5, 8], [3, 6, 9]], (1, 2, 3, 4))
    tensor([[1, 1, 1, 1, 4, 7, 7, 7, 7, 7],
            [1, 1, 1, 1, 4, 7, 7, 7, 7, 7],
            [2, 2, 2, 2, 5, 8, 8, 8, 8, 8],
            [3, 3, 3, 3, 6, 9, 9, 9, 9, 9],
            [3, 3, 3, 3, 6, 9, 9, 9, 9, 9],
            [3, 3, 3, 3, 6, 9, 9, 9, 9, 9]])
    """
    return _by_axis("pad_repeat", x, pad, dims, None, _copies)


def pad_reflect(x: Any, pad: Any, dims: Dims = None) -> torch.Tensor:
    """`x` mirrored at its outermost values, which are not repeated.

    `pad` and `dims` are as in `pad_repeat`; each must be less than the length of its axis.

    Raises `DimensionMismatch` for a `pad` that is longer or doesn't fit `dims`.

    >>> pad_reflect([[1, 4, 7], [2, 5, 8], [3, 6, 9]], (1, 2, 1, 2))
    tensor([[5, 2, 5, 8, 5, 2],
            [4, 1, 4, 7, 4, 1],
            [5, 2, 5, 8, 5, 2],
            [6, 3, 6, 9, 6, 3],
            [5, 2, 5, 8, 5, 2],
            [4, 1, 4, 7, 4, 1]])
    """
    return _by_axis("pad_reflect", x, pad, dims, 1, functools.partial(_mirrored, 1))


def pad_symmetric(x: Any, pad: Any, dims: Dims = None) -> torch.Tensor:
    """`x` mirrored at its border, so that the outermost values stand twice.

    `pad` and `dims` are as in `pad_repeat`; each must be at most the length of its axis.

    Raises `DimensionMismatch` for a `pad` that is longer or doesn't fit `dims`.

    >>> pad_symmetric([[1, 4, 7], [2, 5, 8], [3, 6, 9]], (1, 2, 1, 2))
    tensor([[1, 1, 4, 7, 7, 4],
            [1, 1, 4, 7, 7, 4],
            [2, 2, 5, 8, 8, 5],
            [3, 3, 6, 9, 9, 6],
            [3, 3, 6, 9, 9, 6],
            [2, 2, 5, 8, 8, 5]])
    """
    return _by_axis("pad_symmetric", x, pad, dims, 0, functools.partial(_mirrored, 0))


def pad_circular(x: Any, pad: Any, dims: Dims = None) -> torch.Tensor:
    """`x` continued at each end with the values of the opposite one, as if it were a ring.

    `pad` and `dims` are as in `pad_repeat`; each must be at most the length of its axis.

    Raises `DimensionMismatch` for a `pad` that is longer or doesn't fit `dims`.

    >>> pad_circular([[1, 4, 7], [2, 5, 8], [3, 6, 9]], (1, 2, 1, 2))
    tensor([[9, 3, 6, 9, 3, 6],
            [7, 1, 4, 7, 1, 4],
            [8, 2, 5, 8, 2, 5],
            [9, 3, 6, 9, 3, 6],
            [7, 1, 4, 7, 1, 4],
            [8, 2, 5, 8, 2, 5]])
    """
    return _by_axis("pad_circular", x, pad, dims, 0, _wrapped)


def _copies(x: torch.Tensor, d: int, low: int, high: int) -> Ends:
    def copies(i: int, count: int) -> torch.Tensor:
        return x.narrow(d, i, min(count, 1)).expand(*x.shape[:d], count, *x.shape[d + 1 :])

    return copies(0, low), copies(max(x.shape[d] - 1, 0), high)


def _mirrored(skip: int, x: torch.Tensor, d: int, low: int, high: int) -> Ends:
    n = x.shape[d]
    return x.narrow(d, min(skip, n), low).flip(d), x.narrow(d, max(n - skip - high, 0), high).flip(d)


def _wrapped(x: torch.Tensor, d: int, low: int, high: int) -> Ends:
    return x.narrow(d, x.shape[d] - low, low), x.narrow(d, 0, high)


def _by_axis(
    name: str,
    x: Any,
    pad: Any,
    dims: Dims,
    short: int | None,
    ends: Callable[[torch.Tensor, int, int, int], Ends],
) -> torch.Tensor:
    """`x` between its two `ends`, along one axis of `dims` after the other.

    Each is shorter than the axis by at least `short`; with None, of any length if there is something to repeat.
    """
    x = tensor(name, x)
    if isinstance(pad, (tuple, list)):
        pad = wholes("pad", pad)
        chosen = axes(name, x, range(len(pad) // 2) if dims is None else dims)
        if len(pad) != 2 * len(chosen):
            raise DimensionMismatch(f"{name} takes begin and end of each axis in dims {chosen}, but got {pad}")
    else:
        chosen = axes(name, x, range(x.ndim - 2) if dims is None else dims)
        pad = wholes("pad", pad) * (2 * len(chosen))
    y = reversed_axes(x)
    for i, d in enumerate(chosen):
        (low, high), n = pad[2 * i : 2 * i + 2], x.shape[d]
        if max(low, high) > 0 and (n == 0 if short is None else max(low, high) > n - short):
            raise DimensionMismatch(f"{name} can't add {max(low, high)} to axis {d} of a {summary(x)}: it is too short")
        before, after = ends(y, x.ndim - 1 - d, low, high)
        y = torch.cat((before, y, after), x.ndim - 1 - d)
    return reversed_axes(y)
