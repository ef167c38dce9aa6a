"""Normalisation by the formula of Flux 0.15.0 to 0.16.10, which divides by √(σ² + ε²) and not by σ + ε."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import reversed_axes
from fluxtorch.base import Dims, _array, _axes, _real
from fluxtorch.layers.normalise import LayerNorm as OlderLayerNorm

__all__ = ["LayerNorm", "normalise"]


def normalise(x: Any, *, dims: Dims = -1, eps: float = 1e-5) -> torch.Tensor:
    """`(x - μ) / √(σ² + eps²)`, with the mean μ and the uncorrected variance σ² along `dims`.

    `x` is of any shape, the result of the same. `dims` is an axis or several, by default the last;
    None is all. Integers become Float64. Raises `IndexError` for an axis that isn't there.

    >>> normalise([1.0, 1.0001, 0.9999], eps=1e-4)
    tensor([ 0.0000,  0.7747, -0.7747])
    """
    x = _real(_array(x, "normalise"))
    axes = _axes(x, dims)
    if not axes:  # each number by itself, while torch would take all together
        return torch.zeros_like(x)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))  # halves are too coarse for statistics
    σ2, μ = torch.var_mean(wide, axes, correction=0, keepdim=True)
    return ((wide - μ) * torch.rsqrt(σ2 + eps**2)).to(x.dtype)


class LayerNorm(OlderLayerNorm):
    """Brings the features of each observation to mean 0 and variance 1: `LayerNorm(size..., λ=identity; affine, eps)`.

    Shapes and errors as for the root's `LayerNorm`. The features are divided by `√(σ² + eps²)`, with
    `eps=1e-5`; torch's kernel does it. Ba et al. 2016, https://arxiv.org/abs/1607.06450.

    >>> LayerNorm(3, relu)
    LayerNorm(3, relu)  # 6 parameters
    >>> LayerNorm(2, eps=1)([0.0, 2.0]).detach()
    tensor([-0.7071,  0.7071])
    """

    __init__ = OlderLayerNorm.__init__

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        n = len(self.size)
        if x.is_complex():
            return normalise(x, dims=range(n), eps=self.ε)
        return reversed_axes(F.layer_norm(reversed_axes(x), x.shape[:n][::-1], eps=self.ε**2))

    def _fused(self, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor | None:
        return None if x.is_complex() else F.layer_norm(x, scale.shape, scale, bias, eps=self.ε**2)
