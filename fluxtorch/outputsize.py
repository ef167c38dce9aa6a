"""The size of a model's output, found without computing it."""

from __future__ import annotations

from typing import Any

import torch

from fluxtorch.arrays import summary
from fluxtorch.functors import fmap
from fluxtorch.layers.basic import Chain, Dense, Maxout, Scale, is_size, whole
from fluxtorch.layers.conv import Conv, ConvTranspose, CrossCor, MaxPool, MeanPool
from fluxtorch.layers.normalise import testmode_
from fluxtorch.zygote.tracked import untracked

__all__ = ["outdims", "outputsize"]


def outputsize(m: Any, *inputs: Any, padbatch: bool = False) -> tuple[int, ...]:
    """The size that `m` gives for an input of the size `inputs`, a tuple; nothing is computed.

    Of several sizes, or a tuple of them, `m` gets a tuple of as many inputs. With `padbatch`, an axis
    of size 1 for the batch is added to each. A tuple or list of layers is a `Chain`.

    Raises what `m` raises for inputs of these sizes, and `TypeError` if it doesn't give an array.

    >>> outputsize(Chain(Conv((3, 3), 3 |to| 16), Conv((3, 3), 16 |to| 32)), (10, 10, 3, 64))
    (6, 6, 32, 64)
    >>> outputsize(Dense(10 |to| 4), (10,), padbatch=True)
    (4, 1)
    >>> outputsize(Parallel(vcat, Dense(5 |to| 9), Dense(7 |to| 11)), (5, 64), (7, 64))
    (20, 64)
    """
    if len(inputs) == 1 and inputs[0] and isinstance(inputs[0], (tuple, list)) and all(map(_is_shape, inputs[0])):
        inputs = tuple(inputs[0])
    if not inputs:
        raise TypeError("outputsize expects the size of an input, as in outputsize(m, (28, 28, 1, 32))")
    for size in inputs:
        if not _is_shape(size):
            raise TypeError(f"outputsize expects sizes as tuples of whole numbers, and got {summary(size)}")
        whole("outputsize", *size)
    xs = tuple(torch.empty((*size, 1) if padbatch else tuple(size), device="meta") for size in inputs)
    m = Chain(*m) if isinstance(m, (tuple, list)) else m
    with torch.no_grad():
        y = testmode_(_on_meta(m))(xs if len(xs) > 1 else xs[0])
    if not isinstance(y, torch.Tensor):
        raise TypeError(f"outputsize needs a model that gives an array, and {summary(m)} gives {summary(y)}")
    return tuple(y.shape)


def _is_shape(x: Any) -> bool:
    return isinstance(x, (tuple, list)) and all(map(is_size, x))


def _on_meta(m: Any) -> Any:
    """A copy of `m` whose arrays have sizes but no contents."""
    return fmap(lambda v: untracked(v).to("meta") if isinstance(v, torch.Tensor) else v, (m,))[0]


def outdims(m: Any, isize: tuple[int, ...]) -> tuple[int, ...]:
    """The spatial size of the output of `m` for an input of spatial size `isize`; further axes are ignored (Flux 0.10).

    For `Chain`, `Dense`, `Scale`, `Maxout` and the convolutions and pools. Raises `TypeError` for anything else.

    >>> outdims(Chain(Conv((3, 3), 3 |to| 16), Conv((3, 3), 16 |to| 32)), (10, 10))
    (6, 6)
    >>> outdims(Dense(10, 5), (5, 2)), outdims(Dense(10, 5), (10,))
    ((5,), (5,))
    """
    if isinstance(m, Chain):
        for f in m:
            isize = outdims(f, isize)
        return isize
    if isinstance(m, Maxout):
        return outdims(m.layers[0], isize)
    if isinstance(m, Dense):
        return (m.weight.shape[0],)
    if isinstance(m, Scale):
        return (m.scale.numel(),)
    if isinstance(m, (Conv, ConvTranspose, CrossCor, MaxPool, MeanPool)):
        pools = isinstance(m, (MaxPool, MeanPool))
        n = len(m.k) if pools else m.weight.ndim - 2
        if len(isize) < n:
            raise TypeError(f"outdims of {m} needs a size of {n} axes, and got {tuple(isize)}")
        channels = 1
        if not pools:
            transposed = isinstance(m, ConvTranspose)
            channels = m.weight.shape[-1] if transposed else m.weight.shape[-2] * getattr(m, "groups", 1)
        return outputsize(m, (*isize[:n], channels, 1))[:n]
    raise TypeError(
        f"outdims knows Chain, Dense, Scale, Maxout, convolutions and pools, not {summary(m)}: try outputsize"
    )
