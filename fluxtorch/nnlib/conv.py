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


def expand(n: int, x: Any, what: str = "it", least: int | None = 1) -> tuple[int, ...]:
    """A whole number for each of `n` axes: those of the tuple `x`, or the number `x` for all.

    Raises `DimensionMismatch` for a tuple of another length, `TypeError` for what are no whole
    numbers, `ValueError` for one below `least`; the message says `what` it is.

    >>> expand(2, 3), expand(2, (1, 2))
    ((3, 3), (1, 2))
    """
    xs = tuple(x) if isinstance(x, (tuple, list)) else (x,) * n
    for v in xs:
        if not isinstance(v, int) or isinstance(v, bool):
            raise TypeError(f"{what} must be a whole number, or a tuple of {n}, and is {x!r}")
        if least is not None and v < least:
            raise ValueError(f"{what} must be at least {least}, and is {x}")
    if len(xs) != n:
        raise DimensionMismatch(f"{what} must have {n} numbers, one for each axis, and is {xs}")
    return xs


def borders(n: int, pad: Any, least: int | None = 0) -> tuple[int, ...]:
    """`pad` as begin and end of each spatial axis in turn: from a number, a tuple of `n` or of `2n`."""
    if isinstance(pad, (tuple, list)) and len(pad) == n:
        pad = tuple(p for p in pad for _ in range(2))
    return expand(2 * n, pad, "pad", least)


def reversed_axes(x: torch.Tensor) -> torch.Tensor:
    return x.permute(*range(x.ndim)[::-1])


def _spatial(name: str, x: Any) -> torch.Tensor:
    """`x` as a tensor with one to three spatial axes."""
    x = array(x)
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} expects arrays, and got {summary(x)}")
    if not 3 <= x.ndim <= 5:
        raise DimensionMismatch(f"{name} expects arrays of 1 to 3 spatial axes and two more, and got a {summary(x)}")
    return x


def _operands(name: str, x: Any, w: Any, axis: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`x` and the kernel `w` with one element type; the channels of `x` must be `channels` times the `axis` of `w`."""
    x, w = _spatial(name, x), _spatial(name, w)
    if x.ndim != w.ndim:
        raise DimensionMismatch(f"{name} expects as many axes in both arrays, and got a {summary(x)} and a {summary(w)}")
    if x.shape[-2] != w.shape[axis] * channels:
        raise DimensionMismatch(
            f"{name} expects {w.shape[axis] * channels} channels for a kernel of size {tuple(w.shape)}, and got a {summary(x)}"
        )
    if x.dtype != w.dtype and not torch.is_autocast_enabled(x.device.type):
        dtype = torch.promote_types(x.dtype, w.dtype)
        x, w = x.to(dtype), w.to(dtype)
    return x, w


def _dilation(n: int, dilation: Any, k: torch.Size) -> tuple[int, ...]:
    # Between the elements of a window of one there is nothing, and Flux takes 0 for it.
    return tuple(max(d, int(size == 1)) for d, size in zip(expand(n, dilation, "dilation", 0), k, strict=False))


def _check_window(x: torch.Tensor, k: Sequence[int], pad: tuple[int, ...], dilation: tuple[int, ...]) -> None:
    for i, (size, d) in enumerate(zip(k, dilation, strict=False)):
        if x.shape[i] + pad[2 * i] + pad[2 * i + 1] <= (size - 1) * d:
            raise DimensionMismatch(
                f"a window of {(size - 1) * d + 1} doesn't fit into axis {i} of a {summary(x)} "
                f"padded by {pad[2 * i]} and {pad[2 * i + 1]}"
            )


def _flip(w: torch.Tensor, n: int) -> torch.Tensor:
    return w.flip(tuple(range(n))) if any(size > 1 for size in w.shape[:n]) else w


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
