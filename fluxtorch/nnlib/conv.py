"""Convolution and pooling on arrays in Flux's order: `(W, H, C, N)`, with one to three spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import alike, tensor, whole

__all__ = [
    "borders",
    "conv",
    "conv_reversed",
    "conv_transpose",
    "depthwiseconv",
    "dilations",
    "expand",
    "maxpool",
    "maxpool_reversed",
    "meanpool",
    "meanpool_reversed",
]

Kernels: TypeAlias = "tuple[Callable[..., torch.Tensor], ...]"

_AXES = ((0,), (0, 1), (0, 1, 2))
_CONV: Kernels = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED: Kernels = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
_MAXPOOL: Kernels = (F.max_pool1d, F.max_pool2d, F.max_pool3d)  # type: ignore[assignment]
_MEANPOOL: Kernels = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)


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
            raise TypeError(f"{what} must be a whole number, or one for each axis, and is {x!r}")
        if least is not None and v < least:
            raise ValueError(f"{what} must be at least {least}, and is {x}")
    if len(xs) != n:
        raise DimensionMismatch(f"{what} must have {n} numbers, one for each axis, and is {xs}")
    return xs


def borders(n: int, pad: Any, least: int | None = 0) -> tuple[int, ...]:
    """`pad` as begin and end of each spatial axis in turn: from a number, a tuple of `n` or of `2n`."""
    if isinstance(pad, (tuple, list)):
        if len(pad) not in (n, 2 * n):
            raise DimensionMismatch(
                f"pad must have {n} numbers, or {2 * n} for begin and end of each axis, and is {pad}"
            )
        pad = [p for p in pad for _ in range(2)] if len(pad) == n else pad
    return expand(2 * n, pad, "pad", least)


def _spatial(name: str, x: Any) -> torch.Tensor:
    """`x` as a tensor with one to three spatial axes."""
    x = tensor(name, x)
    if not 3 <= x.ndim <= 5:
        raise DimensionMismatch(f"{name} expects arrays of 1 to 3 spatial axes and two more, and got a {summary(x)}")
    return x


def _operands(name: str, x: Any, w: Any, axis: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`x` and the kernel `w` with one element type; the channels of `x` must be `channels` times the `axis` of `w`."""
    x, w = _spatial(name, x), _spatial(name, w)
    if x.ndim != w.ndim:
        raise DimensionMismatch(
            f"{name} expects as many axes in both arrays, and got a {summary(x)} and a {summary(w)}"
        )
    if x.shape[-2] != w.shape[axis] * channels:
        raise DimensionMismatch(
            f"{name} expects {w.shape[axis] * channels} channels, as its kernel has, and got a {summary(x)}"
        )
    return alike(x, w)


def dilations(dilation: Any, k: Sequence[int]) -> tuple[int, ...]:
    """The dilation of each axis of a window of size `k`."""
    given = expand(len(k), dilation, "dilation", 0)
    if 0 in given:
        # A window of one has no gaps, and Flux takes 0 for them, which torch's kernels don't.
        given = expand(len(k), tuple(d or int(size == 1) for d, size in zip(given, k, strict=True)), "dilation")
    return given


def _check_window(x: torch.Tensor, k: Sequence[int], pad: tuple[int, ...], dilation: tuple[int, ...]) -> None:
    for i, (size, length) in enumerate(zip(k, x.shape, strict=False)):
        reach = (size - 1) * dilation[i]
        if length + pad[2 * i] + pad[2 * i + 1] <= reach:
            raise DimensionMismatch(
                f"a window of {reach + 1} doesn't fit into axis {i} of a {summary(x)} "
                f"padded by {pad[2 * i]} and {pad[2 * i + 1]}"
            )


def _flip(w: torch.Tensor, n: int) -> torch.Tensor:
    return w.flip(_AXES[n - 1]) if w.shape[:n].numel() != 1 else w


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
    x, w = _operands("conv", x, w, -2, whole("groups", groups, 1))
    if w.shape[-1] % groups:
        raise DimensionMismatch(f"conv can't divide {w.shape[-1]} output channels among {groups} groups")
    n = x.ndim - 2
    k = tuple(w.shape[:n])
    stride, pad, dilation = expand(n, stride, "stride"), borders(n, pad), dilations(dilation, k)
    _check_window(x, k, pad, dilation)
    kernel, xr, padding = reversed_axes(w if flipped else _flip(w, n)), reversed_axes(x), pad[::2][::-1]
    if pad[::2] != pad[1::2]:  # torch's kernel pads both ends of an axis alike
        xr, padding = F.pad(xr, pad), (0,) * n
    return reversed_axes(_CONV[n - 1](xr, kernel, bias, stride[::-1], padding, dilation[::-1], groups))


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

    `pad` takes from the borders of the result, `outpad` adds at the end of each spatial axis. The
    result is `(W', H', Cout, N)` with `W' = (W - 1) * stride + 1 + (w - 1) * dilation - pad + outpad`,
    where `pad` is both borders' together.

    >>> conv_transpose(torch.ones(2, 1, 1), torch.tensor([1.0, 10.0]).reshape(2, 1, 1)).flatten()
    tensor([10., 11.,  1.])
    """
    x, w = _operands("conv_transpose", x, w, -1, 1)
    n = x.ndim - 2
    stride, outpad = expand(n, stride, "stride"), expand(n, outpad, "outpad", 0)
    pad, dilation = borders(n, pad, None), dilations(dilation, w.shape[:n])
    for i in range(n):
        full = (x.shape[i] - 1) * stride[i] + 1 + (w.shape[i] - 1) * dilation[i] + outpad[i]
        if full <= pad[2 * i] + pad[2 * i + 1]:
            raise DimensionMismatch(
                f"pad {pad[2 * i : 2 * i + 2]} leaves nothing of the {full} along axis {i} of the result"
            )
    xr, kernel, call = reversed_axes(x), reversed_axes(_flip(w, n)), _TRANSPOSED[n - 1]
    fits = min(pad) >= 0 and all(o < max(s, d) for o, s, d in zip(outpad, stride, dilation, strict=True))
    stride, dilation = stride[::-1], dilation[::-1]
    if fits and pad[::2] == pad[1::2]:
        y = call(xr, kernel, bias, stride, pad[::2][::-1], outpad[::-1], groups, dilation)
    else:
        # The kernel takes no different or negative borders, no large outpad: cut, or add, afterwards.
        y = call(xr, kernel, None, stride, 0, 0, groups, dilation)
        y = F.pad(F.pad(y, [v for o in outpad for v in (0, o)]), [-p for p in pad])
        y = y if bias is None else y + bias.reshape(-1, *(1,) * n)
    return reversed_axes(y)


def depthwiseconv(
    x: torch.Tensor, w: torch.Tensor, *, stride: Any = 1, pad: Any = 0, dilation: Any = 1, flipped: bool = False
) -> torch.Tensor:
    """A convolution of each channel by itself: `x` `(W, H, C, N)`, `w` `(w, h, m, C)`; `C * m` channels out.

    The `m` results of a channel follow each other. Options as in `conv`.

    >>> x = torch.ones(2, 2, 1)
    >>> depthwiseconv(x, torch.tensor([[[1.0, 2.0]]])).flatten()
    tensor([1., 2., 1., 2.])
    """
    x, w = _operands("depthwiseconv", x, w, -1, 1)
    kernel = reversed_axes(reversed_axes(w).reshape(-1, 1, *w.shape[:-2][::-1]))
    return conv(x, kernel, stride=stride, pad=pad, dilation=dilation, flipped=flipped, groups=w.shape[-1])


def maxpool(x: torch.Tensor, k: Any, *, stride: Any = None, pad: Any = 0) -> torch.Tensor:
    """The largest value in each window of size `k` of `x`, `(W, H, C, N)`; `stride` is `k` unless given.

    `pad` is as in `conv`, and what it adds is the least number there is.

    >>> maxpool(torch.arange(6.0).reshape(6, 1, 1), (2,)).flatten()
    tensor([1., 3., 5.])
    """
    return _pool("maxpool", _MAXPOOL, x, k, stride, pad)


def meanpool(x: torch.Tensor, k: Any, *, stride: Any = None, pad: Any = 0) -> torch.Tensor:
    """The mean of each window of size `k` of `x`, `(W, H, C, N)`; `stride` is `k` unless given.

    `pad` is as in `conv`, and the zeros that it adds count in the mean. Integers give floats.

    >>> meanpool(torch.arange(6.0).reshape(6, 1, 1), (2,)).flatten()
    tensor([0.5000, 2.5000, 4.5000])
    """
    return _pool("meanpool", _MEANPOOL, x, k, stride, pad)


def _pool(name: str, kernels: Kernels, x: Any, k: Any, stride: Any, pad: Any) -> torch.Tensor:
    x = _spatial(name, x)
    if x.is_complex():
        raise TypeError(f"{name} takes an array of real numbers, but got a {summary(x)}")
    n, dtype, most = x.ndim - 2, x.dtype, kernels is _MAXPOOL
    k, pad = expand(n, k, "the window"), borders(n, pad)
    stride = k if stride is None else expand(n, stride, "stride")
    _check_window(x, k, pad, (1,) * n)
    if not x.is_floating_point():  # of integers, torch's kernels take few; the largest one stays what it is
        x = x.to(torch.float64 if most else torch.get_default_dtype())
    xr, padding = reversed_axes(x), pad[::2][::-1]
    if pad[::2] != pad[1::2] or any(2 * p > size for p, size in zip(pad[::2], k, strict=True)):
        # torch's kernel pads by at most half a window, and both ends of an axis alike.
        xr, padding = F.pad(xr, pad, value=_least(dtype) if most else 0), (0,) * n
    y = reversed_axes(kernels[n - 1](xr, k[::-1], stride[::-1], padding))
    return y.to(dtype) if most else y


def _least(dtype: torch.dtype) -> float:
    if dtype == torch.bool:
        return 0
    return torch.finfo(dtype).min if dtype.is_floating_point else torch.iinfo(dtype).min


# The same in torch's order of axes, for the fields of a layer in a chain; None where there is more to do. About sizes
# and types that don't fit, the functions above say more than torch does.


def conv_reversed(
    x: torch.Tensor,
    w: torch.Tensor,
    bias: torch.Tensor | None,
    stride: tuple[int, ...],
    pad: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> torch.Tensor | None:
    n = w.ndim - 2
    sides = _sides(pad, n)
    if sides is None:
        return None
    return _CONV[n - 1](x, reversed_axes(_flip(w, n)), bias, stride[::-1], sides[::-1], dilation[::-1], groups)


def maxpool_reversed(
    x: torch.Tensor, k: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]
) -> torch.Tensor | None:
    return _pool_reversed(_MAXPOOL, x, k, stride, pad)


def meanpool_reversed(
    x: torch.Tensor, k: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]
) -> torch.Tensor | None:
    return _pool_reversed(_MEANPOOL, x, k, stride, pad)


def _pool_reversed(
    kernels: Kernels, x: torch.Tensor, k: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]
) -> torch.Tensor | None:
    n = len(k)
    sides = _sides(pad, n)
    if sides is None or x.ndim != n + 2 or not x.is_floating_point():
        return None
    try:
        return kernels[n - 1](x, k[::-1], stride[::-1], sides[::-1])
    except RuntimeError:
        return None


def _sides(pad: tuple[int, ...], n: int) -> tuple[int, ...] | None:
    """What `pad` adds on either side of each of `n` axes, if that is the same."""
    return pad if len(pad) == n else pad[::2] if pad[::2] == pad[1::2] else None
