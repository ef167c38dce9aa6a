"""The door where data comes in: what Julia would write as an array literal becomes a tensor."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["array", "ints", "is_spread", "reversed_axes", "summary"]


def array(x: Any) -> Any:
    """A list of numbers (nested to any depth, if it is rectangular), a range or a NumPy array as a tensor.

    Anything else is given back as it is, a ragged list too. The element type is torch's: integers are
    int64, floats the default dtype.

    >>> array([2, 1]), array(range(3))
    (tensor([2, 1]), tensor([0, 1, 2]))
    >>> array([[1.0, 2.0], [3.0, 4.0]]).shape
    torch.Size([2, 2])
    >>> array(["five", [6, 7]])
    ['five', [6, 7]]
    """
    if type(x) is list:
        return x if _shape(x) is None else torch.tensor(x)
    if type(x) is range:
        return torch.arange(len(x)) * x.step + x.start
    if isinstance(x, (torch.Tensor, int, float, complex)) or not hasattr(x, "__array_interface__"):
        return x
    if x.__array_interface__["typestr"][1] not in "biufc":  # text, dates, objects
        return x
    try:
        return torch.as_tensor(x)
    except ValueError:  # torch can't step backwards through memory
        return torch.as_tensor(x.copy())


def _shape(x: Any) -> tuple[int, ...] | None:
    """The shape of a rectangular nested list of numbers, else None."""
    if isinstance(x, (bool, int, float, complex)) or (
        type(x).__module__ == "numpy" and getattr(x, "shape", None) == ()
    ):
        return ()
    if type(x) is not list or not x:
        return None
    first = _shape(x[0])
    if first is None or any(_shape(row) != first for row in x[1:]):
        return None
    return (len(x), *first)


def ints(x: Any) -> tuple[int, ...]:
    """A whole number, or several in a collection, as a tuple of ints. Raises `TypeError` for anything else.

    >>> ints(2), ints([0, 1])
    ((2,), (0, 1))
    """
    if isinstance(x, (range, tuple, list)):  # torch.compile doesn't get over the error below
        return tuple(map(operator.index, x))
    try:
        return (operator.index(x),)
    except TypeError:
        return tuple(map(operator.index, x if isinstance(x, Iterable) else (x,)))


def is_spread(x: torch.Tensor) -> bool:
    """Is `x` spread over processes (torch's `DTensor`, whose class takes half a second to import)?

    >>> is_spread(torch.ones(2))
    False
    """
    return hasattr(type(x), "device_mesh")


def reversed_axes(x: Any) -> Any:
    """`x` read in opposite axis order: what Flux and torch call the same array. A view.

    >>> reversed_axes(torch.zeros(28, 20, 3, 64)).shape
    torch.Size([64, 3, 20, 28])
    """
    n = x.ndim
    # torch.compile misreads range(…)[::-1].
    return x.t() if n == 2 else x.permute(tuple(range(n - 1, -1, -1)))


def summary(x: Any) -> str:
    """What `x` is, in a few words, for an error message.

    >>> summary(torch.ones(3, 4)), summary(torch.ones(3)), summary(2), summary(relu), summary((1, 2))
    ('3×4 tensor of float32', '3-element tensor of float32', '2', 'function relu', 'tuple: (1, 2)')
    """
    if isinstance(x, torch.Tensor):
        size = "×".join(map(str, x.shape)) if x.ndim > 1 else f"{x.numel()}-element" if x.ndim else "0-dimensional"
        return f"{size} tensor of {str(x.dtype).removeprefix('torch.')}"
    if isinstance(x, (bool, int, float, str, type(None))):
        return repr(x)
    if hasattr(x, "__name__"):
        return f"{type(x).__name__} {x.__name__}"
    text = str(x) if isinstance(x, nn.Module) else f"{type(x).__name__}: {x!r}"
    return " ".join(text.split())[:80]
