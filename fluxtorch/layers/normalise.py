"""Layers that do one thing in training and another in testing: by themselves, unless told."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from fluxtorch.arrays import summary
from fluxtorch.base import identity
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import fcollect
from fluxtorch.initialisers import ones32, zeros32
from fluxtorch.layers.basic import act, is_size, size_check, tensor_input, whole
from fluxtorch.layers.layer import Layer, layer
from fluxtorch.layers.show import optional
from fluxtorch.nnlib.conv import reversed_axes
from fluxtorch.nnlib.dropout import dropout, probability
from fluxtorch.printing import show
from fluxtorch.zygote.scope import within_gradient

__all__ = ["BatchNorm", "Dropout", "testmode_", "trainmode_"]


def is_active(m: Any) -> bool:
    """Does a layer train now? As it was told by `trainmode_` or `testmode_`, else while `gradient` runs."""
    return within_gradient() if m.active is None else m.active


def _tidy_active(active: Any) -> bool | None:
    if active is None or isinstance(active, bool):
        return active
    if active == "auto":
        return None
    raise ValueError(f"active = {show(active)} is not accepted, must be true/false/nothing or 'auto'")


def testmode_(m: Any, mode: Any = True) -> Any:
    """Puts a layer, or all layers in a model, in test mode: no dropout, statistics as they were learned. Returns `m`.

    `mode="auto"` (or None) returns to the automatic mode, in which layers train exactly while
    `gradient` runs; `mode=False` is `trainmode_`. A class takes part by a method
    `testmode_(self, mode)`. Raises `ValueError` for any other mode.

    >>> d = Dropout(0.3)
    >>> testmode_(d)
    Dropout(0.3, active=false)
    >>> testmode_(d, "auto")
    Dropout(0.3)
    """
    inactive = _tidy_mode(mode)
    for x in fcollect(m):
        own = getattr(type(x), "testmode_", None)
        if own is not None:
            own(x, inactive)
        elif isinstance(x, nn.Module):
            x.training = not inactive  # what torch's own modules, and Recur, go by
            if isinstance(x, Layer) and "active" in x._field_names():
                x.active = None if inactive is None else not inactive  # type: ignore[assignment]
    return m


testmode_.__test__ = False  # type: ignore[attr-defined]  # pytest: no test, for all its name


def _tidy_mode(mode: Any) -> bool | None:
    if mode is None or isinstance(mode, bool):
        return mode
    if mode == "auto":
        return None
    raise ValueError(f"testmode_ accepts True, False, None or 'auto', and got {show(mode)}")


def trainmode_(m: Any, mode: Any = True) -> Any:
    """Puts a layer, or all layers in a model, in training mode; the opposite of `testmode_`. Returns `m`.

    `mode="auto"` or None return to the automatic mode.

    >>> trainmode_(Dropout(0.3))
    Dropout(0.3, active=true)
    """
    return testmode_(m, not mode if isinstance(mode, bool) else mode)


@layer(trainable=())
class Dropout(Layer):
    """In training sets elements to 0, with probability `p`, and divides the others by `1 - p`: `Dropout(p; dims, rng)`.

    Takes an array of any size, and gives one of the same. In testing it changes nothing. `dims`, a
    number or several, says along which axes to choose, the same for all along the others: `dims=2`
    drops whole channels of `(W, H, C, N)`. `rng` is a `torch.Generator`, `active` settles the mode.
    Srivastava et al. 2014, https://arxiv.org/abs/1207.0580.

    Raises `ValueError` unless `0 ≤ p ≤ 1`.

    >>> m = Chain(Dense(torch.ones(3, 2)), Dropout(0.4))
    >>> m(torch.ones(2, 1)).detach().flatten()
    tensor([2., 2., 2.])
    >>> trainmode_(Dropout(1))(torch.ones(3))
    tensor([0., 0., 0.])
    """

    p: float
    dims: Any
    active: bool | None  # type: ignore[assignment]
    rng: torch.Generator | None

    def __init__(self, p: float, *, dims: Any = None, active: Any = None, rng: torch.Generator | None = None) -> None:
        probability("Dropout", p)
        dims = tuple(dims) if isinstance(dims, (list, range)) else dims
        if dims is not None and not all(map(is_size, dims if isinstance(dims, tuple) else (dims,))):
            raise TypeError(f"Dropout expects an axis, or a tuple of them, as its dims, and got {show(dims)}")
        if rng is not None and not isinstance(rng, torch.Generator):
            raise TypeError(f"Dropout expects a torch.Generator as its rng, and got {show(rng)}")
        self.p, self.dims, self.active, self.rng = p, dims, _tidy_active(active), rng

    def __call__(self, x: Any) -> torch.Tensor:
        return dropout(tensor_input(self, x), self.p, dims=self.dims, active=is_active(self), rng=self.rng)

    def __str__(self) -> str:
        return (
            f"Dropout({show(self.p)}"
            + optional(
                (self.dims is not None, f", dims={show(self.dims)}"),
                (self.active is not None, f", active={show(self.active)}"),
            )
            + ")"
        )


def _promoted(x: torch.Tensor, *arrays: torch.Tensor | None) -> list[Any]:
    """All of them in the element type that they have together, as arrays of several have in Julia."""
    if not x.is_floating_point():
        x = x.to(torch.get_default_dtype())
    kinds = {x.dtype, *(a.dtype for a in arrays if a is not None)}
    if len(kinds) == 1 or torch.is_autocast_enabled(x.device.type):
        return [x, *arrays]
    dtype = functools.reduce(torch.promote_types, kinds)
    return [None if a is None else a.to(dtype) for a in (x, *arrays)]


@layer(trainable=("β", "γ"))
class BatchNorm(Layer):
    """Brings each channel of a batch to mean 0 and variance 1: `BatchNorm(channels, λ=identity; ...)`.

    Input `(C, N)` or `(…, C, N)`, output the same: each channel normalised over all other axes, then
    scaled by `γ` and shifted by `β` with `affine=True`, then `λ` of it. `initβ=zeros32` and
    `initγ=ones32` make those two; `eps=1e-5` (`ε` before Flux 0.13) is added to the variance.

    In training the statistics are the batch's, and with `track_stats=True` `μ` and `σ2` follow them:
    `μ = (1 - momentum) * μ + momentum * mean` with `momentum=0.1`, likewise `σ2` with the unbiased
    variance. In testing they are `μ` and `σ2`, or still the batch's. `active` settles the mode.
    Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167.

    Raises `DimensionMismatch` for an input with another number of channels, `ValueError` for one with
    a single value per channel, which has no unbiased variance to follow.

    >>> m = BatchNorm(2, relu)
    >>> m
    BatchNorm(2, relu)  # 4 parameters, plus 4 non-trainable
    >>> trainmode_(m)(torch.tensor([[1.0, 3.0], [5.0, 9.0]])).detach()
    tensor([[0.0000, 1.0000],
            [0.0000, 1.0000]])
    >>> m.μ
    tensor([0.2000, 0.7000])
    """

    λ: Any
    β: Any
    γ: Any
    μ: Any
    σ2: Any
    ε: float
    momentum: float
    affine: bool
    track_stats: bool
    active: bool | None  # type: ignore[assignment]
    chs: int

    def __init__(
        self,
        chs: int,
        λ: Any = identity,
        *,
        initβ: Callable[..., torch.Tensor] = zeros32,
        initγ: Callable[..., torch.Tensor] = ones32,
        affine: bool = True,
        track_stats: bool = True,
        active: Any = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
        ε: float | None = None,
    ) -> None:
        whole("BatchNorm", chs)
        self.λ = act("BatchNorm", λ)
        self.β, self.γ = (initβ(chs), initγ(chs)) if affine else (None, None)
        self.μ, self.σ2 = (zeros32(chs), ones32(chs)) if track_stats else (None, None)
        self.ε, self.momentum = eps if ε is None else ε, momentum
        self.affine, self.track_stats = affine, track_stats
        self.active, self.chs = _tidy_active(active), chs

    def __call__(self, x: Any) -> torch.Tensor:
        x = tensor_input(self, x)
        if x.ndim < 2:
            raise DimensionMismatch(f"layer {self} expects ndims(input) >= 2, channels and batch, but got {summary(x)}")
        size_check(self, x, x.ndim - 2, self.chs)
        if x.is_complex():
            raise TypeError(f"layer {self} expects real numbers, but got {summary(x)}")
        stats = (self.μ, self.σ2) if self.track_stats else (None, None)
        x, μ, σ2, γ, β = _promoted(x, *stats, *((self.γ, self.β) if self.affine else (None, None)))
        batch = is_active(self) or μ is None
        if batch and μ is not None and x.numel() <= self.chs:
            raise ValueError(f"layer {self} expects more than one value per channel in training, but got {summary(x)}")
        # F.batch_norm would refuse one value per channel even if nothing is tracked.
        y = torch.batch_norm(reversed_axes(x), γ, β, μ, σ2, batch, self.momentum, self.ε, torch.backends.cudnn.enabled)
        if batch and μ is not stats[0]:
            with torch.no_grad():
                self.μ.copy_(μ)
                self.σ2.copy_(σ2)
        return self.λ(reversed_axes(y))  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return (
            f"BatchNorm({self.chs}"
            + optional(
                (self.λ is not identity, f", {show(self.λ)}"),
                (not self.affine, ", affine=false"),
                (self.active is not None, f", active={show(self.active)}"),
            )
            + ")"
        )
