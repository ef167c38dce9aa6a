"""Sampling of images at given places."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import alike, floats, tensor

__all__ = ["grid_sample"]


def grid_sample(input: Any, grid: Any, *, padding_mode: str = "zeros") -> torch.Tensor:
    """The values of images at the places that `grid` gives, interpolated bilinearly.

    `input` is `(W_in, H_in, C, N)`, `grid` `(2, W_out, H_out, N)`, the result `(W_out, H_out, C, N)`.
    `grid[0]` counts along the first axis of `input` and `grid[1]` along the second, from -1, the
    centre of the first pixel, to 1, that of the last one. Outside of that, `padding_mode="zeros"`
    gives zeros and `"border"` the nearest pixel at the border.

    Raises `DimensionMismatch` if the sizes don't fit, `ValueError` for another mode.

    >>> x = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).reshape(2, 2, 1, 1)
    >>> grid = torch.tensor([[-3.0, 0.0, 1.0], [-1.0, -1.0, -1.0]]).reshape(2, 3, 1, 1)
    >>> grid_sample(x, grid).flatten(), grid_sample(x, grid, padding_mode="border").flatten()
    (tensor([0.0000, 1.5000, 2.0000]), tensor([1.0000, 1.5000, 2.0000]))
    """
    x, at = tensor("grid_sample", input), tensor("grid_sample", grid)
    if padding_mode not in ("zeros", "border"):
        raise ValueError(f'grid_sample expects padding_mode "zeros" or "border", and got {padding_mode!r}')
    if x.ndim != 4 or at.ndim != 4 or at.shape[0] != 2 or at.shape[3] != x.shape[3]:
        raise DimensionMismatch(
            f"grid_sample expects an input (W, H, C, N) and a grid (2, W, H, N), and got a {summary(x)} "
            f"and a {summary(at)}"
        )
    x = floats(x)
    values, places = alike(reversed_axes(x), reversed_axes(floats(at)))
    y = F.grid_sample(values, places, mode="bilinear", padding_mode=padding_mode, align_corners=True)
    return reversed_axes(y).to(x.dtype)
