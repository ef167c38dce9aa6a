"""The gated linear unit."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import axes, floats, tensor

__all__ = ["glu"]


def glu(x: Any, dim: int = 0) -> torch.Tensor:
    """`a * σ(b)`, where `a` and `b` are the two halves of `x` along the axis `dim`.

    `x` is an array of any shape, the result has half its length along `dim`. Dauphin et al.,
    "Language Modeling with Gated Convolutional Networks", https://arxiv.org/abs/1612.08083.

    Raises `DimensionMismatch` if that length is odd.

    >>> glu([[1.0, 2.0], [0.0, 1000.0]])
    tensor([[0.5000, 2.0000]])
    """
    x = tensor("glu", x)
    (axis,) = axes("glu", x, dim)
    if x.shape[axis] % 2:
        raise DimensionMismatch(f"glu halves axis {axis}, but that of a {summary(x)} is odd")
    return reversed_axes(F.glu(reversed_axes(floats(x)), x.ndim - 1 - axis))
