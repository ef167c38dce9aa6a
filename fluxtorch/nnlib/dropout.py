"""Dropout as a function."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import array, summary

__all__ = ["dropout"]


def dropout(*args: Any, dims: int | Iterable[int] | None = None, rng: torch.Generator | None = None) -> torch.Tensor:
    """`dropout(x, p)`: each element of `x` becomes 0 with probability `p`, and else is divided by `1 - p`.

    With `dims`, the choice is made along those axes only, and is the same along the others. A
    `torch.Generator` may be given first, or as `rng`. Raises `ValueError` unless `0 ≤ p ≤ 1`.

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
    x, p = array(args[0]), args[1]
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"dropout expects an array, and got {summary(x)}")
    if not 0 <= p <= 1:
        raise ValueError(f"dropout expects 0 ≤ p ≤ 1, got p = {p}")
    if p == 0:
        return x
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(torch.get_default_dtype())
    if dims is None and rng is None:
        return F.dropout(x, float(p), training=True)
    chosen = set(range(x.ndim)) if dims is None else {d % x.ndim for d in ([dims] if isinstance(dims, int) else dims)}
    size = [n if d in chosen else 1 for d, n in enumerate(x.shape)]
    kept = torch.rand(size, generator=rng, device=x.device) >= p
    return torch.where(kept, x / (1 - p) if p < 1 else x, 0)
