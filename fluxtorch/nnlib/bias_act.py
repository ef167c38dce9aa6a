"""Bias and activation in one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import tensor
from fluxtorch.zygote.scope import within_gradient

__all__ = ["bias_act_"]


def bias_act_(σ: Callable[[Any], Any], x: Any, b: Any) -> torch.Tensor:
    """`x .= σ.(x .+ b)`: returns the result, and writes it into `x` where no gradient can suffer from that.

    `x` is an array of any shape. `b` has axes of the same lengths or of length 1, lined up with
    those of `x` from the first; `False` stands for no bias. Only floats are written into, and not
    while anything here is being differentiated; the result then has the element type of `x`.

    Raises `DimensionMismatch` if `b` doesn't fit, `TypeError` for a `b` that is `True`.

    >>> x = torch.tensor([[1.0, -2.0], [3.0, -4.0]])
    >>> bias_act_(torch.relu, x, [10, 0])
    tensor([[11.,  8.],
            [ 3.,  0.]])
    >>> x
    tensor([[11.,  8.],
            [ 3.,  0.]])
    """
    x, b = tensor("bias_act_", x), array(b)
    if b is True or not isinstance(b, (torch.Tensor, int, float, complex)):
        raise TypeError(f"bias_act_ takes an array as its bias, or False, but got {summary(b)}")
    y = σ(x if b is False else _biased(x, b))
    if not x.is_floating_point() or y.shape != x.shape:
        return y
    if y.requires_grad or x.requires_grad or within_gradient() or not _writable(x):
        return y.to(x.dtype)
    return x if y is x else x.copy_(y)


def _biased(x: torch.Tensor, b: Any) -> torch.Tensor:
    if isinstance(b, torch.Tensor) and (
        b.ndim > x.ndim or any(m not in (1, n) for m, n in zip(b.shape, x.shape, strict=False))
    ):
        raise DimensionMismatch(f"the bias, a {summary(b)}, doesn't line up with a {summary(x)} from the first axis")
    # Axes that b lacks at its end are leading ones when reversed, which torch adds by itself.
    return reversed_axes(reversed_axes(x) + (reversed_axes(b) if isinstance(b, torch.Tensor) else b))


def _writable(x: torch.Tensor) -> bool:
    """Has each element its own place in memory?"""
    return all(step != 0 or n <= 1 for n, step in zip(x.shape, x.stride(), strict=True))
