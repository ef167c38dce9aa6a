"""Pooling by a norm."""

from __future__ import annotations

import math
from typing import Any

import torch

from fluxtorch.nnlib.conv import expand, meanpool
from fluxtorch.nnlib.operands import floats, tensor

__all__ = ["lpnormpool"]


def lpnormpool(x: Any, p: float, k: Any, *, pad: Any = 0, stride: Any = None) -> torch.Tensor:
    """`(∑ xᵢ^p)^(1 / p)` over each window of size `k` of `x`, `(W, H, C, N)`; `stride` is `k` unless given.

    `0 < p < Inf`. `x` has one to three spatial axes, `k` a number for each of them. `pad` is a
    number, one for each spatial axis, or begin and end of each in turn; it adds zeros. As in NNlib
    there is no absolute value: where a root has no real value the result is NaN, so `x` should not
    be negative unless `p` is even. Where all of a window is 0 the gradient is 0 (if `p ≠ 1`).

    Raises `ValueError` for another `p`, `DimensionMismatch` if the sizes don't fit. Gulcehre et
    al., "Learned-Norm Pooling", https://arxiv.org/abs/1311.1780.

    >>> x = torch.tensor([3.0, 4.0, 6.0, 8.0]).reshape(4, 1, 1)
    >>> lpnormpool(x, 2, (2,)).flatten()
    tensor([ 5., 10.])
    """
    if not 0 < p < math.inf:
        raise ValueError(f"lpnormpool expects 0 < p < Inf, and got p = {p}")
    x = floats(tensor("lpnormpool", x))
    total = meanpool(x**p, k, pad=pad, stride=stride) * math.prod(expand(x.ndim - 2, k))
    if p == 1:
        return total
    # The slope of a root is infinite at 0, and infinity times the slope 0 of the power would be NaN.
    empty = total == 0
    return torch.where(empty, 0, torch.where(empty, 1, total) ** (1 / p))
