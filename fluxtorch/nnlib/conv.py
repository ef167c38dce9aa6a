"""Convolution and pooling on arrays in Flux's order: `(W, H, C, N)`, with one to three spatial axes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import summary
from fluxtorch.errors import DimensionMismatch

__all__ = ["conv", "conv_transpose", "depthwiseconv", "expand", "maxpool", "meanpool", "spatial"]

_CONV: tuple[Callable[..., torch.Tensor], ...] = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED: tuple[Callable[..., torch.Tensor], ...] = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MAXPOOL: tuple[Callable[..., torch.Tensor], ...] = (F.max_pool1d, F.max_pool2d, F.max_pool3d)  # type: ignore[assignment]
_MEANPOOL: tuple[Callable[..., torch.Tensor], ...] = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


def expand(n: int, x: Any) -> tuple[int, ...]:
    """A number for each of `n` axes: `x` itself if it is a tuple, else `x` for all. Raises `ValueError` for another length.

    >>> expand(2, 3), expand(2, (1, 2))
    ((3, 3), (1, 2))
    """
    if isinstance(x, (tuple, list)):
        if len(x) != n:
            raise ValueError(f"expected {n} numbers, one for each axis, and got {tuple(x)}")
        return tuple(x)
    if not isinstance(x, int) or isinstance(x, bool):
        raise TypeError(f"expected a whole number or a tuple of {n}, and got {x!r}")
    return (x,) * n


def spatial(x: torch.Tensor) -> int:
    """The number of spatial axes of `x`. Raises `DimensionMismatch` unless it is one, two or three."""
    if not 3 <= x.ndim <= 5:
        raise DimensionMismatch(f"expected an array with 1 to 3 spatial axes, channels and batch, and got a {summary(x)}")
    return x.ndim - 2


def reversed_axes(x: torch.Tensor) -> torch.Tensor:
    return x.permute(*range(x.ndim)[::-1])


def borders(n: int, pad: Any) -> tuple[int, ...]:
    """`pad` as begin and end of each spatial axis in turn: from a number, a tuple of `n` or of `2n`."""
    if isinstance(pad, (tuple, list)) and len(pad) == 2 * n:
        return tuple(pad)
    return tuple(p for p in expand(n, pad) for _ in range(2))


def _padded(x: torch.Tensor, pad: tuple[int, ...], value: float = 0.0) -> tuple[torch.Tensor, tuple[int, ...]]:
    """`x`, in torch's order, with what the kernel can't pad by itself padded, and what the kernel shall pad."""
    if pad[::2] == pad[1::2]:
        return x, pad[::2][::-1]
    return F.pad(x, pad, value=value), (0,) * (len(pad) // 2)


def conv(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: Any = 1,
    pad: Any = 0,
    dilation: Any = 1,
    flipped: bool = False,
    groups: int = 1,
) -> torch.Tensor:
    """The convolution of `x`, `(W, H, Cin, N)`, with the kernel `w`, `(w, h, Cin ÷ groups, Cout)`: `(W', H', Cout, N)`.

    A true convolution, as in NNlib.jl; `flipped=True` makes it torch's cross-correlation. `pad` is a
    number, one for each spatial axis, or begin and end of each in turn. `bias` is `(Cout,)`.

    >>> x, w = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1), torch.tensor([1.0, 10.0]).reshape(2, 1, 1)
    >>> conv(x, w).flatten(), conv(x, w, flipped=True).flatten()
    (tensor([12., 23.]), tensor([21., 32.]))
    """
    n = spatial(x)
    w = reversed_axes(w if flipped else _flip(w, n))
    xr, padding = _padded(reversed_axes(x), borders(n, pad))
    stride, dilation = expand(n, stride)[::-1], expand(n, dilation)[::-1]
    return reversed_axes(_CONV[n - 1](xr, w, bias, stride, padding, dilation, groups))


def _flip(w: torch.Tensor, n: int) -> torch.Tensor:
    return w.flip(tuple(range(n))) if any(size > 1 for size in w.shape[:n]) else w


def conv_transpose(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    stride: Any = 1,
    pad: Any = 0,
    outpad: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> torch.Tensor:
    """The gradient of `conv` by its input, as a layer: `x` `(W, H, Cin, N)`, `w` `(w, h, Cout ÷ groups, Cin)`.

    `pad` takes from the borders of the result, `outpad` adds at the end of each spatial axis.

    >>> conv_transpose(torch.ones(2, 1, 1), torch.tensor([1.0, 10.0]).reshape(2, 1, 1)).flatten()
    tensor([10., 11.,  1.])
    """
    n = spatial(x)
    stride, dilation, outpad = (expand(n, v)[::-1] for v in (stride, dilation, outpad))
    pad = borders(n, pad)
    kernel = reversed_axes(_flip(w, n))
    call = _TRANSPOSED[n - 1]
    if pad[::2] == pad[1::2] and all(o < max(s, d) for o, s, d in zip(outpad, stride, dilation, strict=True)):
        y = call(reversed_axes(x), kernel, bias, stride, pad[::2][::-1], outpad, groups, dilation)
    else:
        # The kernel takes neither different borders nor a large outpad: cut, or add, afterwards.
        y = call(reversed_axes(x), kernel, None, stride, 0, 0, groups, dilation)
        ends = [v for i in range(n) for v in (-pad[2 * i], outpad[n - 1 - i] - pad[2 * i + 1])]
        y = F.pad(y, ends)
        y = y if bias is None else y + bias.reshape(-1, *(1,) * n)
    return reversed_axes(y)


def depthwiseconv(
    x: torch.Tensor, w: torch.Tensor, *, stride: Any = 1, pad: Any = 0, dilation: Any = 1, flipped: bool = False
) -> torch.Tensor:
    """A convolution of each channel by itself: `x` `(W, H, C, N)`, `w` `(w, h, multiplier, C)`; `C * multiplier` channels out.

    >>> x = torch.ones(2, 2, 1)
    >>> depthwiseconv(x, torch.tensor([[[1.0, 2.0]]])).flatten()
    tensor([1., 2., 1., 2.])
    """
    n = spatial(x)
    kernel = reversed_axes(reversed_axes(w).reshape(-1, 1, *w.shape[:n][::-1]))
    return conv(x, kernel, stride=stride, pad=pad, dilation=dilation, flipped=flipped, groups=w.shape[-1])


def maxpool(x: torch.Tensor, k: Any, *, stride: Any = None, pad: Any = 0) -> torch.Tensor:
    """The largest value in each window of size `k` of `x`, `(W, H, C, N)`; `stride` is `k` unless given.

    >>> maxpool(torch.arange(6.0).reshape(6, 1, 1), (2,)).flatten()
    tensor([1., 3., 5.])
    """
    n = spatial(x)
    size = expand(n, k)
    pad = borders(n, pad)
    xr, padding = reversed_axes(x), pad[::2][::-1]
    if pad[::2] != pad[1::2] or any(2 * p > s for p, s in zip(padding, size[::-1], strict=True)):
        # torch's kernel pads by at most half a window, and alike on both sides.
        xr, padding = F.pad(xr, pad, value=float("-inf")), (0,) * n
    return reversed_axes(_MAXPOOL[n - 1](xr, size[::-1], _stride(n, stride, size), padding))


def meanpool(x: torch.Tensor, k: Any, *, stride: Any = None, pad: Any = 0) -> torch.Tensor:
    """The mean of each window of size `k` of `x`, `(W, H, C, N)`, zeros beyond the border counted; `stride` is `k` unless given.

    >>> meanpool(torch.arange(6.0).reshape(6, 1, 1), (2,)).flatten()
    tensor([0.5000, 2.5000, 4.5000])
    """
    n = spatial(x)
    size = expand(n, k)
    pad = borders(n, pad)
    xr, padding = reversed_axes(x), pad[::2][::-1]
    if pad[::2] != pad[1::2] or any(2 * p > s for p, s in zip(padding, size[::-1], strict=True)):
        xr, padding = F.pad(xr, pad), (0,) * n
    return reversed_axes(_MEANPOOL[n - 1](xr, size[::-1], _stride(n, stride, size), padding))


def _stride(n: int, stride: Any, size: tuple[int, ...]) -> tuple[int, ...]:
    return (size if stride is None else expand(n, stride))[::-1]
