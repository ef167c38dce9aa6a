"""Dropout as a function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import array, ints, summary

__all__ = ["dropout", "probability"]


def dropout(
    *args: Any, dims: int | Iterable[int] | None = None, active: bool = True, rng: torch.Generator | None = None
) -> torch.Tensor:
    """`dropout(x, p)`: each element of `x` becomes 0 with probability `p`, and else is divided by `1 - p`.

    The result has the size of `x`; integers become floats. With `dims`, the choice is made along
    those axes only, and is the same along the others. A `torch.Generator` may be given first, or as
    `rng`. `active=False` changes nothing, as in Flux 0.12.

    Raises `ValueError` unless `0 ≤ p ≤ 1`, `IndexError` for an axis that `x` doesn't have.

    >>> dropout(torch.ones(2, 3), 0)
    tensor([[1., 1., 1.],
            [1., 1., 1.]])
    >>> sorted(set(dropout(torch.ones(1000), 0.2).tolist()))
    [0.0, 1.25]
    """
    if args and isinstance(args[0], torch.Generator):
        rng, *args = args  # type: ignore[assignment]
    if len(args) != 2:
        raise TypeError("dropout expects an array and a probability, as in dropout(x, 0.5)")
    x = array(args[0])
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"dropout expects an array, and got {summary(x)}")
    p = probability("dropout", args[1])
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(torch.get_default_dtype())
    if p == 0 or not active:
        return x
    if dims is None and rng is None and not x.is_complex():
        return F.dropout(x, p, training=True)
    kept = torch.rand(_choices(x, dims), generator=rng, device=x.device) >= p
    # In this order the result has the memory layout of `x`.
    return x * (kept.to(x.dtype) * (1 / (1 - p) if p < 1 else 0))


def probability(name: str, p: Any) -> float:
    """`p` as a float, which must be a number between 0 and 1."""
    if isinstance(p, bool) or not hasattr(p, "__float__"):
        raise TypeError(f"{name} expects a number as its probability, and got {summary(p)}")
    if not 0 <= p <= 1:
        raise ValueError(f"{name} expects 0 ≤ p ≤ 1, got p = {p}")
    return float(p)


def _choices(x: torch.Tensor, dims: int | Iterable[int] | None) -> list[int]:
    """The size of the array of random choices for `x`."""
    axes = range(x.ndim) if dims is None else ints(dims)
    for d in axes:
        if not -x.ndim <= d < x.ndim:
            raise IndexError(f"dropout can't choose along axis {d} of a {summary(x)}")
    chosen = {d % x.ndim for d in axes}
    return [n if d in chosen else 1 for d, n in enumerate(x.shape)]
