"""Sliding windows, as convolution uses them, and their way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.conv import borders, dilations, expand
from fluxtorch.nnlib.operands import tensor, wholes

__all__ = ["fold", "unfold"]


def unfold(
    x: Any, kernel_size: Any, *, stride: Any = 1, pad: Any = 0, dilation: Any = 1, flipped: bool = True
) -> torch.Tensor:
    """The windows over which `conv` sums, as an array `(windows, window size, N)`.

    `x` is `(W, H, C, N)` with one to three spatial axes, `kernel_size` the size of a convolution's
    weight, `(w, h, C, out)`; the window size is `w * h * C`. The options are those of `conv`,
    except that windows stand as they are, and only with `flipped=False` reversed as `conv`'s.

    Raises `DimensionMismatch` if the sizes don't fit.

    >>> x = torch.tensor([100, 2, 3, 40, 5, 6, 700]).reshape(7, 1, 1)
    >>> unfold(x, (3, 1, 1), pad=1, stride=2)[:, :, 0]
    tensor([[  0, 100,   2],
            [  2,   3,  40],
            [ 40,   5,   6],
            [  6, 700,   0]])
    """
    return _unfold("unfold", tensor("unfold", x), kernel_size, stride, pad, dilation, flipped)


def fold(
    y: Any,
    output_size: Any,
    kernel_size: Any,
    *,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    flipped: bool = True,
) -> torch.Tensor:
    """The transpose of `unfold`: each number of each window added to the place that it came from.

    `y` is `(windows, window size, N)`, the result of `output_size`, `(W, H, C, N)`. The options are
    those of `unfold`. Divided by `fold(unfold(ones))` it is the inverse, where that is not 0.

    Raises `DimensionMismatch` if the sizes don't fit.

    >>> x = torch.tensor([100, 2, 3, 40, 5, 6, 700]).reshape(7, 1, 1)
    >>> fold(unfold(x, (3, 1, 1)), (7, 1, 1), (3, 1, 1)).flatten()
    tensor([100,   4,   9, 120,  15,  12, 700])
    """
    y, size = tensor("fold", y), wholes("output_size", output_size)
    if not 3 <= len(size) <= 5:
        raise DimensionMismatch(f"fold expects an output_size of one to three axes and two more, and got {size}")
    k = _kernel("fold", size, kernel_size)
    *spatial, channels, batch = size
    # Each place has a number, and the border, which F.pad fills with zeros, a place of its own before them.
    numbers = torch.arange(1, math.prod(spatial) + 1, device=y.device).reshape(1, 1, *spatial[::-1])
    places = _unfold("fold", reversed_axes(numbers), (*k, 1, 1), stride, pad, dilation, flipped)
    windows, length, _ = places.shape
    if y.shape != (windows, length * channels, batch):
        raise DimensionMismatch(
            f"fold expects an array of size {(windows, length * channels, batch)} for this output_size and "
            f"kernel_size, and got a {summary(y)}"
        )
    values = reversed_axes(y).reshape(batch, channels, length * windows)
    at = reversed_axes(places).reshape(-1).expand_as(values)
    sums = values.new_zeros(batch, channels, numbers.numel() + 1).scatter_add(-1, at, values)
    return reversed_axes(sums[..., 1:].reshape(batch, channels, *spatial[::-1]))


def _kernel(name: str, size: Sequence[int], kernel_size: Any) -> tuple[int, ...]:
    """The window's size, without channels, for an array of `size`."""
    kernel = wholes("kernel_size", kernel_size, 1)
    if len(kernel) != len(size) or kernel[-2] != size[-2]:
        raise DimensionMismatch(
            f"{name} expects a kernel_size (w, h, {size[-2]}, out) of {len(size)} numbers for an array of size "
            f"{tuple(size)}, and got {kernel}"
        )
    return kernel[:-2]


def _unfold(
    name: str, x: torch.Tensor, kernel_size: Any, stride: Any, pad: Any, dilation: Any, flipped: bool
) -> torch.Tensor:
    n = x.ndim - 2
    if not 1 <= n <= 3:
        raise DimensionMismatch(f"{name} expects one to three axes and two more, and got a {summary(x)}")
    k = _kernel(name, x.shape, kernel_size)
    steps, gaps = expand(n, stride, "stride"), dilations(dilation, k)
    y = F.pad(reversed_axes(x), borders(n, pad))
    for i in reversed(range(n)):
        axis, reach = n + 1 - i, (k[i] - 1) * gaps[i] + 1
        if y.shape[axis] < reach:
            raise DimensionMismatch(f"{name} can't fit a window of {reach} into axis {i} of a {summary(x)}, padded")
        y = y.unfold(axis, reach, steps[i])[..., :: gaps[i]]
    # Now (N, C, windows..., window...); copied once, while torch's own kernel is for images of floats only.
    window = range(n + 2, 2 * n + 2)
    y = (y if flipped else y.flip(*window)).permute(0, 1, *window, *range(2, n + 2))
    return reversed_axes(y.reshape(*y.shape[:1], y.shape[1] * math.prod(k), math.prod(y.shape[n + 2 :])))
