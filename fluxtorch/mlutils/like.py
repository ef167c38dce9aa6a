"""New arrays like a given one: of its element type, on its device, of its size or another."""

from __future__ import annotations

from typing import Any

import torch

from fluxtorch.base import _array, _sizes, _typed, rand
from fluxtorch.mlutils.arrays import exact
from fluxtorch.mlutils.observations import seeded

__all__ = ["falses_like", "fill_like", "ones_like", "rand_like", "randn_like", "trues_like", "zeros_like"]


def _kind(x: Any, args: tuple[Any, ...]) -> tuple[torch.dtype, tuple[int, ...]]:
    """The element type and size that `args` ask for, those of `x` where they don't."""
    dtype, dims = _typed(args)
    return dtype or x.dtype, _sizes(dims) if dims else tuple(x.shape)


def fill_like(x: Any, val: Any, *args: Any) -> torch.Tensor:
    """`fill_like(x, val, [type], [dims])`: an array like `x`, every element of which is `val`.

    `dims` is a tuple or whole numbers. `val` is a number or a 0-d tensor, through which gradients
    flow. Raises `TypeError` for anything else, `ValueError` for a number that an array of this type
    can't hold, a broken one among integers. MLUtils.jl's `fill_like`.

    >>> fill_like(torch.ones(2), 1.5, (2, 3))
    tensor([[1.5000, 1.5000, 1.5000],
            [1.5000, 1.5000, 1.5000]])
    """
    x = _array(x, "fill_like")
    dtype, size = _kind(x, args)
    if isinstance(val, torch.Tensor) and val.ndim == 0 and (dtype.is_floating_point or dtype.is_complex):
        return val.to(x.device, dtype).expand(size).clone()
    if isinstance(x, torch.Tensor) and size == x.shape:  # in the memory layout of `x`
        return torch.full_like(x, exact(val, dtype), dtype=dtype)
    return torch.full(size, exact(val, dtype), dtype=dtype, device=x.device)


def ones_like(x: Any, *args: Any) -> torch.Tensor:
    """`ones_like(x, [type], [dims])`: an array of ones like `x`, else as `fill_like`.

    >>> ones_like([1, 2]), ones_like(torch.ones(2), torch.float64, (1, 2))
    (tensor([1, 1]), tensor([[1., 1.]], dtype=torch.float64))
    """
    return fill_like(x, 1, *args)


def zeros_like(x: Any, *args: Any) -> torch.Tensor:
    """`zeros_like(x, [type], [dims])`: an array of zeros like `x`, else as `fill_like`.

    >>> zeros_like([1, 2]), zeros_like(torch.ones(2), 3)
    (tensor([0, 0]), tensor([0., 0., 0.]))
    """
    return fill_like(x, 0, *args)


def trues_like(x: Any, *dims: Any) -> torch.Tensor:
    """`trues_like(x, [dims])`: an array of `True` like `x`.

    >>> trues_like([1, 2])
    tensor([True, True])
    """
    return fill_like(x, True, torch.bool, *dims)


def falses_like(x: Any, *dims: Any) -> torch.Tensor:
    """`falses_like(x, [dims])`: an array of `False` like `x`.

    >>> falses_like([1, 2], 1)
    tensor([False])
    """
    return fill_like(x, False, torch.bool, *dims)


@seeded
def rand_like(x: Any, *args: Any, rng: torch.Generator | None = None) -> torch.Tensor:
    """`rand_like([rng], x, [type], [dims])`: an array like `x` of random numbers, as `rand` gives them.

    A generator must be for the device of `x`. MLUtils.jl's `rand_like`.

    >>> rand_like(torch.ones(2), (3, 3)).shape
    torch.Size([3, 3])
    """
    x = _array(x, "rand_like")
    dtype, size = _kind(x, args)
    if dtype.is_floating_point and isinstance(x, torch.Tensor) and size == x.shape:  # in the memory layout of `x`
        return torch.empty_like(x, dtype=dtype, requires_grad=False).uniform_(generator=rng)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.rand(size, dtype=dtype, device=x.device, generator=rng)
    return rand(dtype, size, rng=rng).to(x.device)


@seeded
def randn_like(x: Any, *args: Any, rng: torch.Generator | None = None) -> torch.Tensor:
    """`randn_like([rng], x, [type], [dims])`: an array like `x` of normal random numbers, as `randn` gives them.

    A generator must be for the device of `x`. Raises `TypeError` for an array of integers. MLUtils.jl's
    `randn_like`.

    >>> randn_like(torch.ones(2), torch.float64).dtype
    torch.float64
    """
    x = _array(x, "randn_like")
    dtype, size = _kind(x, args)
    if not (dtype.is_floating_point or dtype.is_complex):
        raise TypeError(f"normal random numbers can't be elements of an array of {str(dtype).removeprefix('torch.')}")
    if isinstance(x, torch.Tensor) and size == x.shape:  # in the memory layout of `x`
        return torch.empty_like(x, dtype=dtype, requires_grad=False).normal_(generator=rng)
    return torch.randn(size, dtype=dtype, device=x.device, generator=rng)
