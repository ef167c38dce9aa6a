"""Enlarging arrays."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import tensor, whole, wholes

__all__ = ["pixel_shuffle", "upsample_bilinear", "upsample_linear", "upsample_nearest", "upsample_trilinear"]

_MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}


def upsample_nearest(x: Any, scale: Any = None, *, size: Any = None) -> torch.Tensor:
    """`x` with each element repeated: along the first axes, as often as `scale`, a tuple, says for each of them.

    Instead, `size` gives the lengths that these axes come to. `x` is an array of any shape.

    Raises `DimensionMismatch` if `x` has fewer axes or a `size` is no multiple of its own.

    >>> upsample_nearest([[1, 2, 3], [4, 5, 6]], (2, 3))
    tensor([[1, 1, 1, 2, 2, 2, 3, 3, 3],
            [1, 1, 1, 2, 2, 2, 3, 3, 3],
            [4, 4, 4, 5, 5, 5, 6, 6, 6],
            [4, 4, 4, 5, 5, 5, 6, 6, 6]])
    >>> upsample_nearest([[1, 2, 3], [4, 5, 6]], size=(4,)).shape
    torch.Size([4, 3])
    """
    x = tensor("upsample_nearest", x)
    given = _either("upsample_nearest", scale, size)
    if not isinstance(given, (tuple, list)):
        raise TypeError(f"upsample_nearest expects a tuple with one number for each axis, and got {summary(given)}")
    times = wholes("size" if scale is None else "scale", given, 1)
    if not 1 <= len(times) <= x.ndim:
        raise DimensionMismatch(f"can't upsample a {summary(x)} along {len(times)} axes")
    if scale is None:
        if any(n == 0 or t % n for t, n in zip(times, x.shape, strict=False)):
            raise DimensionMismatch(f"upsample_nearest can't make {times} of a {summary(x)}: it takes a multiple")
        times = tuple(t // n for t, n in zip(times, x.shape, strict=False))
    # F.interpolate takes few element types and finds its pixels by rounded division.
    n, xr = len(times), reversed_axes(x)
    for i in range(n):  # from the last axis of the reversed array, which is the first one here
        xr = xr.unsqueeze(xr.ndim - 2 * i)
    copies = [t for i in reversed(range(n)) for t in (x.shape[i], times[i])]
    lengths = [t * m for t, m in zip(times, x.shape, strict=False)]
    rest = x.shape[n:][::-1]
    return reversed_axes(xr.expand(*rest, *copies).reshape(*rest, *lengths[::-1]))


def upsample_linear(x: Any, scale: Any = None, *, size: Any = None, align_corners: bool = True) -> torch.Tensor:
    """`x` enlarged by linear interpolation, along all axes but the last two.

    `x` is `(W, C, N)`, `(W, H, C, N)` or `(W, H, D, C, N)`. `scale` is a number, or a tuple with one
    for each of `W`, `H`, `D`, of which `floor(scale * W)` is the new length; instead, `size` gives
    the new lengths. With `align_corners` the centres of the outermost pixels stay where they were.
    Integers are rounded.

    Raises `DimensionMismatch` if the sizes don't fit.

    >>> upsample_linear(torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1), 5 / 3).flatten()
    tensor([1.0000, 1.5000, 2.0000, 2.5000, 3.0000])
    """
    return _interpolated("upsample_linear", x, scale, size, align_corners)


def upsample_bilinear(x: Any, scale: Any = None, *, size: Any = None, align_corners: bool = True) -> torch.Tensor:
    """`upsample_linear` for images, `(W, H, C, N)`.

    >>> x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]).reshape(2, 3, 1, 1)
    >>> upsample_bilinear(x, (2, 3))[:, :, 0, 0]
    tensor([[1.0000, 1.2500, 1.5000, 1.7500, 2.0000, 2.2500, 2.5000, 2.7500, 3.0000],
            [2.0000, 2.2500, 2.5000, 2.7500, 3.0000, 3.2500, 3.5000, 3.7500, 4.0000],
            [3.0000, 3.2500, 3.5000, 3.7500, 4.0000, 4.2500, 4.5000, 4.7500, 5.0000],
            [4.0000, 4.2500, 4.5000, 4.7500, 5.0000, 5.2500, 5.5000, 5.7500, 6.0000]])
    """
    return _interpolated("upsample_bilinear", x, scale, size, align_corners)


def upsample_trilinear(x: Any, scale: Any = None, *, size: Any = None, align_corners: bool = True) -> torch.Tensor:
    """`upsample_linear` for volumes, `(W, H, D, C, N)`.

    >>> upsample_trilinear(torch.ones(2, 2, 2, 1, 1), (2, 3, 4)).shape
    torch.Size([4, 6, 8, 1, 1])
    """
    return _interpolated("upsample_trilinear", x, scale, size, align_corners)


def _interpolated(name: str, x: Any, scale: Any, size: Any, align_corners: bool) -> torch.Tensor:
    x = tensor(name, x)
    n = x.ndim - 2
    if x.ndim not in _MODES:
        raise DimensionMismatch(f"{name} expects one to three axes and two more, and got a {summary(x)}")
    given = _either(name, scale, size)
    numbers = tuple(given) if isinstance(given, (tuple, list)) else (given,) * (n if size is None else 1)
    if len(numbers) != n:
        raise DimensionMismatch(f"{name} expects {n} numbers, one for each axis to enlarge, and got {numbers}")
    if size is None:
        numbers = tuple(math.floor(s * m) for s, m in zip(numbers, x.shape, strict=False))
    lengths = wholes("the size", numbers, 1)
    if lengths == tuple(x.shape[:n]):
        return x
    if x.is_complex():
        parts = (_interpolated(name, part, None, lengths, align_corners) for part in (x.real, x.imag))
        return torch.complex(*parts)
    if not x.is_floating_point():
        y = _interpolated(name, x.double(), None, lengths, align_corners)
        return y.round().to(x.dtype)
    return reversed_axes(
        F.interpolate(reversed_axes(x), lengths[::-1], mode=_MODES[x.ndim], align_corners=align_corners)
    )


def _either(name: str, scale: Any, size: Any) -> Any:
    if (scale is None) == (size is None):
        raise TypeError(f"{name} takes either a scale or a size")
    return size if scale is None else scale


def pixel_shuffle(x: Any, r: int) -> torch.Tensor:
    """Images enlarged `r` times with pixels from their channels: `(W, H, r^2 * C, N)` as `(r * W, r * H, C, N)`.

    With `d` spatial axes, in general, `r^d * C` channels become `C`; the first ones of them go
    along the first axis. Shi et al., "Real-Time Single Image and Video Super-Resolution", 2016,
    https://arxiv.org/abs/1609.05158.

    Raises `DimensionMismatch` if the channels can't be divided so.

    >>> y = torch.tensor([[1.1, 1.2, 1.3, 1.4], [2.1, 2.2, 2.3, 2.4]]).reshape(2, 4, 1)
    >>> pixel_shuffle(y, 2)[:, :, 0]
    tensor([[1.1000, 1.3000],
            [1.2000, 1.4000],
            [2.1000, 2.3000],
            [2.2000, 2.4000]])
    """
    x, r = tensor("pixel_shuffle", x), whole("r", r, 1)
    d = x.ndim - 2
    if d < 1:
        raise DimensionMismatch(f"pixel_shuffle expects at least three axes, and got a {summary(x)}")
    if x.shape[d] % r**d:
        raise DimensionMismatch(f"pixel_shuffle by {r} expects a multiple of {r**d} channels, and got a {summary(x)}")
    # F.pixel_shuffle is for images only, and slower.
    batch, channels, spatial = x.shape[-1], x.shape[d] // r**d, x.shape[:d][::-1]
    split = reversed_axes(x).reshape(batch, channels, *(r,) * d, *spatial)
    interleaved = split.permute(0, 1, *(axis for i in range(d) for axis in (2 + d + i, 2 + i)))
    return reversed_axes(interleaved.reshape(batch, channels, *(n * r for n in spatial)))
