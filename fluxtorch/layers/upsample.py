"""Layers that enlarge images: `Upsample` and `PixelShuffle`."""

from __future__ import annotations

from typing import Any

import torch

from fluxtorch.layers.basic import at_most, is_size, tensor_input
from fluxtorch.layers.layer import Layer
from fluxtorch.layers.show import optional
from fluxtorch.nnlib.upsampling import pixel_shuffle, upsample_bilinear, upsample_nearest, upsample_trilinear
from fluxtorch.printing import show

__all__ = ["PixelShuffle", "Upsample"]

_MODES = {"nearest": upsample_nearest, "bilinear": upsample_bilinear, "trilinear": upsample_trilinear}


class Upsample(Layer):
    """Enlarges all axes but the last two: `Upsample(mode="nearest"; scale)`, `Upsample(mode; size)`.

    `Upsample(scale, mode="nearest")` is another way to write it. Of an input `(W, H, C, N)`, `scale`
    multiplies the sizes of the axes before the channels: a number all of them, a tuple each by its
    own; `size`, a tuple, gives the sizes that they come to. The mode `"nearest"` repeats pixels, and
    takes whole numbers; `"bilinear"` and `"trilinear"` interpolate between them, with the outermost
    ones kept. `nnlib.upsample_nearest` and its kin do the work.

    Raises `ValueError` for another mode, or unless one of `scale` and `size` is given;
    `DimensionMismatch` for an input that they don't fit.

    >>> m = Upsample(scale=(2, 3))
    >>> m
    Upsample(:nearest, scale = (2, 3))
    >>> m(ones(2, 2, 1, 1)).shape
    torch.Size([4, 6, 1, 1])
    >>> Upsample("bilinear", size=(4, 5))(ones(2, 2, 1, 1)).shape
    torch.Size([4, 5, 1, 1])
    """

    mode: str
    scale: Any
    size: Any

    def __init__(self, *args: Any, mode: str = "nearest", scale: Any = None, size: Any = None) -> None:
        if args and not isinstance(args[0], str):
            if scale is not None:
                raise TypeError(f"Upsample got a scale twice: {show(args[0])} and {show(scale)}")
            scale, args = args[0], args[1:]
        at_most("Upsample", args, 1)
        mode = args[0] if args else mode
        if mode not in _MODES:
            raise ValueError(f"mode={show(mode)} is not supported, only {', '.join(map(show, _MODES))}.")
        if (scale is None) == (size is None):
            raise ValueError("Either scale or size should be specified (but not both).")
        self.mode, self.scale, self.size = mode, scale, size

    def __call__(self, x: Any) -> torch.Tensor:
        x, scale = tensor_input(self, x), self.scale
        if self.mode == "nearest" and is_size(scale):
            scale = (scale,) * (x.ndim - 2)
        return _MODES[self.mode](x, scale, size=self.size)

    def __str__(self) -> str:
        return (
            f"Upsample(:{self.mode}"
            + optional(
                (self.scale is not None, f", scale = {show(self.scale)}"),
                (self.size is not None, f", size = {show(self.size)}"),
            )
            + ")"
        )


class PixelShuffle(Layer):
    """Enlarges images `r` times with pixels from their channels: `PixelShuffle(r)`.

    Input `(W, H, r^2 * C, N)`, output `(r * W, r * H, C, N)`; with `d` spatial axes, `r^d * C` channels
    become `C`. See `nnlib.pixel_shuffle`. Shi et al. 2016, https://arxiv.org/abs/1609.05158.

    Raises `TypeError` or `ValueError` unless `r` is a whole number of at least 1, `DimensionMismatch`
    for channels that can't be divided so.

    >>> p = PixelShuffle(2)
    >>> xs = torch.tensor([1.1, 1.2, 1.3, 1.4, 2.1, 2.2, 2.3, 2.4]).reshape(2, 1, 4, 1)
    >>> p(xs)[:, :, 0, 0]
    tensor([[1.1000, 1.3000],
            [1.2000, 1.4000],
            [2.1000, 2.3000],
            [2.2000, 2.4000]])
    """

    r: int

    def __init__(self, r: int) -> None:
        if not is_size(r):
            raise TypeError(f"PixelShuffle expects a whole number, and got {show(r)}")
        if r < 1:
            raise ValueError(f"PixelShuffle expects a number of at least 1, and got {r}")
        self.r = r

    def __call__(self, x: Any) -> torch.Tensor:
        return pixel_shuffle(tensor_input(self, x), self.r)
