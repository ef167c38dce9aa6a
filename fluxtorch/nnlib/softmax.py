"""NNlib's softmax and its relatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.nnlib.operands import axes

__all__ = ["logsoftmax", "logsumexp", "softmax"]

Dims: TypeAlias = "int | Sequence[int] | None"

# From about this length on torch's kernel for the last axis is the faster one, up to six times, if that is
# the inner one in memory; if not, it is up to ten times slower.
_LONG_AXIS = 100


def softmax(x: Any, dims: Dims = 0) -> Tensor:
    """`exp.(x) ./ sum(exp.(x); dims)` without overflow: positive numbers that sum to 1 along `dims`.

    Takes and returns an array of any shape, `(features, batch)` as a rule. `dims` is an axis, a
    tuple of them, or `None` for all at once. Where `x` holds `+Inf` the result is 1 there and 0 at
    finite numbers, shared equally if there are several; it is NaN where all of `x` is `-Inf`.

    Raises `TypeError` for a number, `IndexError` for an axis that `x` doesn't have.

    >>> softmax([1, 2, 3])
    tensor([0.0900, 0.2447, 0.6652])
    >>> softmax([[1, 2, 3], [2, 2, 2]])
    tensor([[0.2689, 0.5000, 0.7311],
            [0.7311, 0.5000, 0.2689]])
    >>> softmax([[1, 2, 3], [2, 2, 2]], dims=1)
    tensor([[0.0900, 0.2447, 0.6652],
            [0.3333, 0.3333, 0.3333]])
    """
    return along(torch.softmax, _without_inf(_array(x, "softmax")), dims)


def logsoftmax(x: Any, dims: Dims = 0) -> Tensor:
    """`log.(softmax(x; dims))`, more exactly than in two steps.

    Takes and returns an array of any shape; `dims` as in `softmax`. Beside `+Inf`, finite numbers
    give the lowest finite number of the element type.

    Raises `TypeError` for a number.

    >>> logsoftmax([1.0, 2.0, 3000.0])
    tensor([-2999., -2998.,     0.])
    """
    return along(torch.log_softmax, _without_inf(_array(x, "logsoftmax")), dims)


def logsumexp(x: Any, dims: Dims = None) -> Tensor:
    """`log.(sum(exp.(x); dims))` without overflow.

    Takes an array of any shape. Without `dims` the result is a 0-dimensional tensor; with an axis
    or a tuple of axes those are kept, with length 1.

    Raises `TypeError` for a number.

    >>> logsumexp([0.0, 1.0])
    tensor(1.3133)
    >>> logsumexp([[0.0, 1.0], [0.0, 1.0]], dims=0)
    tensor([[0.6931, 1.6931]])
    """
    x = _array(x, "logsumexp")
    chosen = tuple(range(x.ndim)) if dims is None else axes("logsumexp", x, dims)
    # To torch, no axes are all of them.
    return torch.logsumexp(x, chosen, keepdim=dims is not None) if chosen else x.clone()


def along(kernel: Callable[[Tensor, int], Tensor], x: Tensor, dims: Dims) -> Tensor:
    """torch's `kernel(x, axis)`, such as `torch.softmax`, for `dims` as Julia takes them."""
    if isinstance(dims, int):
        if dims in (0, -x.ndim) and x.shape[0] >= _LONG_AXIS and x.stride(0) < x.stride(-1):
            return reversed_axes(kernel(reversed_axes(x), -1))
        return kernel(x, dims)
    chosen = tuple(range(x.ndim)) if dims is None else axes(kernel.__name__.replace("_", ""), x, dims)
    last = tuple(range(-len(chosen), 0))
    moved = x.movedim(chosen, last)
    kept, summed = moved.shape[: x.ndim - len(chosen)], moved.shape[x.ndim - len(chosen) :]
    return kernel(moved.reshape(*kept, math.prod(summed)), -1).reshape(moved.shape).movedim(last, chosen)


def _array(x: Any, name: str) -> Tensor:
    x = array(x)
    if isinstance(x, (bool, int, float)) or (isinstance(x, Tensor) and x.ndim == 0):
        raise TypeError(
            f"`{name}(x)` called with a number, but it expects an array: it must see all numbers of an axis together"
        )
    if not isinstance(x, Tensor) or x.is_complex():
        raise TypeError(f"{name} takes an array of real numbers, but got {summary(x)}")
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


def _without_inf(x: Tensor) -> Tensor:
    """A copy of `x` with its largest finite number for `+Inf`, for which torch's kernels would give NaN."""
    x = x + 0  # which makes a one-hot array dense, as clone() doesn't
    # Out of autograd's sight: the gradient of a softmax needs its output only, and a clamp's own costs as much.
    x.detach().clamp_max_(torch.finfo(x.dtype).max)
    return x
