"""Where an image's channels lie in memory: last, a CPU is faster, in what a `Chain` hands from layer to layer."""

from __future__ import annotations

import torch

from fluxtorch.layers.layer import is_eager

# All arrays here have torch's order of axes: (N, C, H, W).


def for_convolution(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """`x` in the layout in which a CPU is fastest with a convolution by `w` and what comes after.

    With channels last, pools and norms take a fraction of the time, and convolutions rather less. But the gradient
    by `w` is laid out so too, and turning it takes longer than that wins where there is more kernel than image.
    """
    if x.ndim != 4 or not (x.is_cpu and x.dtype is torch.float32 and _has_onednn() and is_eager(x)):
        return x
    n, c, *image = x.shape
    last = x.numel() >= w.numel()
    if last and c == 1:  # both layouts at once; which of them it is taken for depends on a stride that doesn't matter
        return x.reshape(n, *image, c).permute(0, 3, 1, 2)
    y = x.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    if y is not x and x.requires_grad and (last or is_channels_last(x)):
        _gradient_as(x, torch.contiguous_format if last else torch.channels_last)
    return y


def alike(x: torch.Tensor) -> torch.Tensor:
    """`x`, to which a gradient will come with its channels last if they are so in `x`.

    Kernels are slow where the two differ. For what is handed to a layer, or a function, that may not care.
    """
    if x.requires_grad and is_channels_last(x):
        _gradient_as(x, torch.channels_last)
    return x


def is_channels_last(x: torch.Tensor) -> bool:
    """Do the channels of the images `x` lie last in memory, and only so?"""
    if x.ndim != 4 or x.is_contiguous() or not x.is_cpu or not is_eager(x):
        return False
    return x.is_contiguous(memory_format=torch.channels_last)


def _gradient_as(x: torch.Tensor, layout: torch.memory_format) -> None:
    x.register_hook(lambda g: g.contiguous(memory_format=layout))


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and torch._C._get_mkldnn_enabled()
