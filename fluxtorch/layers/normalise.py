"""Normalisation and dropout: layers that do one thing in training and another in testing, by themselves unless told."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.base import abs2, identity
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import children, fcollect, fmap, functor
from fluxtorch.initialisers import ones32, zeros32
from fluxtorch.layers.basic import (
    ELEMENTWISE,
    Scale,
    act,
    has_hooks,
    is_size,
    is_watched,
    size_check,
    tensor_input,
    whole,
)
from fluxtorch.layers.layer import PLAIN, Layer, is_eager, layer
from fluxtorch.layers.show import optional
from fluxtorch.mlutils.arrays import normalise
from fluxtorch.namedtuples import NamedTuple, fold
from fluxtorch.nnlib.dropout import dropout, probability
from fluxtorch.printing import show
from fluxtorch.zygote.scope import nested, within_gradient

__all__ = [
    "AlphaDropout",
    "BatchNorm",
    "Dropout",
    "GroupNorm",
    "InstanceNorm",
    "LayerNorm",
    "WeightNorm",
    "hasaffine",
    "normalise",
    "remove_weight_norms",
    "testmode_",
    "trainmode_",
]


def is_active(m: Any) -> bool:
    """Does a layer train now? As it was told by `trainmode_` or `testmode_`, else while `gradient` runs."""
    return within_gradient() if m.active is None else m.active


def _tidy(name: str, mode: Any) -> bool | None:
    if mode is None or isinstance(mode, bool):
        return mode
    if mode == "auto":
        return None
    raise ValueError(f"{name} = {show(mode)} is not accepted, must be true/false/nothing or 'auto'")


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
    inactive = _tidy("mode", mode)
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
        self.p, self.dims, self.active, self.rng = p, dims, _tidy("active", active), _generator("Dropout", rng)

    def __call__(self, x: Any) -> torch.Tensor:
        return dropout(tensor_input(self, x), self.p, dims=self.dims, active=is_active(self), rng=self.rng)

    def _reversed(self, x: torch.Tensor) -> torch.Tensor | None:
        if self.dims is not None or self.rng is not None or has_hooks(self):
            return None
        return dropout(x, self.p, active=is_active(self))

    def __str__(self) -> str:
        return (
            f"Dropout({show(self.p)}"
            + optional(
                (self.dims is not None, f", dims={show(self.dims)}"),
                (self.active is not None, f", active={show(self.active)}"),
            )
            + ")"
        )


def _generator(layer: str, rng: Any) -> torch.Generator | None:
    if rng is not None and not isinstance(rng, torch.Generator):
        raise TypeError(f"{layer} expects a torch.Generator as its rng, and got {show(rng)}")
    return rng


@layer(trainable=())
class AlphaDropout(Layer):
    """Dropout that keeps mean 0 and variance 1, for networks with `selu`: `AlphaDropout(p; rng)`.

    Takes an array of any size, and gives one of the same. In training an element becomes, with
    probability `p`, `α = -1.7581`, the least value of `selu`; then all are scaled by `A = 1 / √((1 -
    p) * (1 + p * α²))` and shifted by `-A * p * α`. In testing it changes nothing. `rng` is a
    `torch.Generator`, `active` settles the mode. Klambauer et al. 2017, https://arxiv.org/abs/1706.02515.

    Raises `ValueError` unless `0 ≤ p ≤ 1`.

    >>> m = AlphaDropout(0.2, rng=torch.Generator().manual_seed(0))
    >>> y = trainmode_(m)(torch.randn(10_000, generator=m.rng))
    >>> abs(y.mean()) < 0.05, abs(y.std() - 1) < 0.05
    (tensor(True), tensor(True))
    """

    p: float
    active: bool | None  # type: ignore[assignment]
    rng: torch.Generator | None

    def __init__(self, p: float, *, rng: torch.Generator | None = None, active: Any = None) -> None:
        probability("AlphaDropout", p)
        self.p, self.active, self.rng = p, _tidy("active", active), _generator("AlphaDropout", rng)

    def __call__(self, x: Any) -> torch.Tensor:
        x, p = tensor_input(self, x), probability("AlphaDropout", self.p)
        if not (x.is_floating_point() or x.is_complex()):
            x = x.to(torch.get_default_dtype())
        if p == 0 or not is_active(self):
            return x
        if p == 1:
            return torch.sign(x) * 0 if x.is_floating_point() else x * 0
        α = -1.7580993408473766
        A = 1 / math.sqrt((1 - p) * (1 + p * α**2))
        # Single precision, since random halves are too coarse; the result has the memory layout of `x`.
        noise = torch.empty_like(x, dtype=torch.float32).uniform_(generator=self.rng)
        return A * torch.where(noise > p, x, α) - A * α * p

    def __str__(self) -> str:
        return f"AlphaDropout({show(self.p)})"


@layer(expand=False)
class LayerNorm(Layer):
    """Brings the features of each observation to mean 0 and deviation 1: `LayerNorm(size..., λ=identity; affine, eps)`.

    Input `(size..., …)`, output the same: `normalise`d along as many first axes as `size` has
    numbers, then, with `affine=True`, scaled and shifted by `diag`, a `Scale(size...)`, then `λ` of
    it. As in Flux 0.14, `eps=1e-5` is added to the deviation, not to the variance. Ba et al. 2016,
    https://arxiv.org/abs/1607.06450.

    Raises `DimensionMismatch` for an input of another size; without `affine`, only if it lacks axes.

    >>> m = LayerNorm(3, relu)
    >>> m
    LayerNorm(3, relu)  # 6 parameters
    >>> m(torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])).detach()
    tensor([[0.0000, 0.0000],
            [0.0000, 0.0000],
            [1.2247, 1.2247]])
    """

    λ: Any
    diag: Any
    ε: float
    size: tuple[int, ...]
    affine: bool

    def __init__(self, *size: Any, affine: bool = True, eps: float = 1e-5, ε: float | None = None) -> None:
        λ: Any = identity
        if size and callable(size[-1]):
            size, λ = size[:-1], size[-1]
        if len(size) == 1 and isinstance(size[0], tuple):
            size = tuple(size[0])
        if not size:
            raise TypeError("LayerNorm expects the sizes of what it normalises, as in LayerNorm(3)")
        whole("LayerNorm", *size)
        self.λ = λ
        self.diag = Scale(*size, λ) if affine else λ
        self.ε, self.size, self.affine = eps if ε is None else ε, size, affine

    def __call__(self, x: Any) -> torch.Tensor:
        x = tensor_input(self, x)
        if x.shape[: len(self.size)] != self.size:
            fits = x.shape[: -len(self.size) - 1 : -1] == self.size
            for dim, n in enumerate(self.size):
                size_check(self, x, dim, n if self.affine or dim >= x.ndim else x.shape[dim], fits=fits)
        x = x if x.is_floating_point() or x.is_complex() else x.to(torch.get_default_dtype())
        diag = self.diag
        if type(diag) is Scale and diag.scale.shape == self.size and diag.bias is not False and not is_watched(diag):
            arrays = [v if v.ndim < 2 else reversed_axes(v) for v in (x, diag.scale, diag.bias)]
            if all([type(v) in PLAIN and v.dtype is x.dtype for v in arrays]):
                y = self._fused(*arrays)
                if y is not None:
                    return diag.σ(reversed_axes(y))  # type: ignore[no-any-return]
        return diag(self._normalised(x))  # type: ignore[no-any-return]

    # Both by themselves for Flux 0.16, which divides by √(σ² + ε²).

    def _normalised(self, x: torch.Tensor) -> torch.Tensor:
        return normalise(x, dims=range(len(self.size)), eps=self.ε)

    def _fused(self, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor) -> torch.Tensor | None:
        """Normalised, scaled and shifted in one go, in torch's order of axes; None where that isn't for `x`."""
        if x.dtype not in (torch.float32, torch.float64) or not (self.ε and within_gradient()) or nested():
            return None
        if not x.numel() or not is_eager(x):
            return None
        return _Normalised.apply(x, scale, bias, self.ε)  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return (
            f"LayerNorm({', '.join(map(str, self.size))}"
            + optional((self.λ is not identity, f", {show(self.λ)}"), (not self.affine, ", affine=false"))
            + ")"
        )


class _Normalised(torch.autograd.Function):
    """`(x - μ) / (σ + ε) * scale + bias` along the last axes, those of `scale`. Beside `x`, μ and 1 / σ are kept."""

    # With a setup_context by itself, torch would read the signature at each call, which takes as long as the kernels.
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor, ε: float) -> torch.Tensor:
        y, μ, rσ = torch.native_layer_norm(x, scale.shape, scale, torch.zeros_like(bias), torch.finfo(x.dtype).tiny)
        ctx.save_for_backward(x, scale, bias, μ, rσ)
        ctx.ε = ε
        return torch.addcmul(bias, y, _shrinking(rσ, ε))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Any) -> Any:
        x, scale, bias, μ, rσ = ctx.saved_tensors
        r = _shrinking(rσ, ctx.ε).mul_(rσ)
        mask = list(ctx.needs_input_grad[:3])
        dx, dscale, dbias = torch.ops.aten.native_layer_norm_backward(g, x, scale.shape, μ, r, scale, bias, mask)
        if mask[0]:
            # Torch's kernel takes 1 / r for √(σ² + ε), which changes with x otherwise than σ + ε does. Beginning with
            # q, which is 0 where σ is, no product is too large.
            centred = x - μ
            q = torch.mv((g * centred).reshape(-1, scale.numel()), scale.reshape(-1)).view_as(r)
            dx.addcmul_(centred, q.mul_(r).mul_(r).mul_(r).mul_(rσ), value=-ctx.ε / scale.numel())
        return dx, dscale, dbias, None


def _shrinking(rσ: torch.Tensor, ε: float) -> torch.Tensor:
    """`σ / (σ + ε)`, from `1 / σ`."""
    return rσ.mul(ε).add_(1).reciprocal_()


def hasaffine(m: Any) -> bool:
    """Has a normalisation layer scale and shift to train? Raises `TypeError` for any other layer.

    >>> hasaffine(BatchNorm(3)), hasaffine(InstanceNorm(3))
    (True, False)
    """
    if not isinstance(m, (BatchNorm, InstanceNorm, LayerNorm, GroupNorm)):
        raise TypeError(f"hasaffine expects a normalisation layer, and got {summary(m)}")
    return m.affine


def _promoted(x: torch.Tensor, *arrays: torch.Tensor | None) -> list[Any]:
    """All of them in the element type that they have together, as arrays of several have in Julia."""
    if not x.is_floating_point():
        x = x.to(torch.get_default_dtype())
    kinds = {x.dtype, *(a.dtype for a in arrays if a is not None)}
    if len(kinds) == 1 or (not x.is_meta and torch.is_autocast_enabled(x.device.type)):  # meta has none
        return [x, *arrays]
    dtype = functools.reduce(torch.promote_types, kinds)
    return [None if a is None else a.to(dtype) for a in (x, *arrays)]


def _set_up(
    m: Any,
    chs: int,
    λ: Any,
    initβ: Callable[..., torch.Tensor],
    initγ: Callable[..., torch.Tensor],
    affine: bool,
    track_stats: bool,
    active: Any,
    eps: float,
    momentum: float,
) -> None:
    """Sets the fields that the layers which normalise channels have in common."""
    name = type(m).__name__
    whole(name, chs)
    m.λ = act(name, λ)
    m.β, m.γ = (initβ(chs), initγ(chs)) if affine else (None, None)
    m.μ, m.σ2 = (zeros32(chs), ones32(chs)) if track_stats else (None, None)
    m.ε, m.momentum = eps, momentum
    m.affine, m.track_stats = affine, track_stats
    m.active, m.chs = _tidy("active", active), chs


def _forward(m: Any, x: Any, kernel: Callable[..., torch.Tensor], by_image: bool = False) -> torch.Tensor:
    """A layer's `kernel`, torch's, with its parameters and with its statistics or the batch's.

    The batch's are those of each channel, `by_image` in each image by itself.
    """
    x = tensor_input(m, x)
    if x.ndim < 2 + by_image:
        axes = "spatial axes, channels and batch" if by_image else "channels and batch"
        raise DimensionMismatch(f"layer {m} expects ndims(input) >= {2 + by_image}, {axes}, but got {summary(x)}")
    size_check(m, x, x.ndim - 2, m.chs)
    if x.is_complex():
        raise TypeError(f"layer {m} expects real numbers, but got {summary(x)}")
    return m.λ(reversed_axes(_normed(m, reversed_axes(x), kernel, by_image)))  # type: ignore[no-any-return]


def _normed(m: Any, x: torch.Tensor, kernel: Callable[..., torch.Tensor], by_image: bool) -> torch.Tensor:
    """The same in torch's order of axes, for an `x` that fits, and without the activation."""
    stats = (m.μ, m.σ2) if m.track_stats else (None, None)
    x, μ, σ2, γ, β = _promoted(x, *stats, *((m.γ, m.β) if m.affine else (None, None)))
    batch = is_active(m) or μ is None
    if batch and μ is not None and x.numel() <= m.chs * (x.shape[0] if by_image else 1):
        given = summary(reversed_axes(x))
        raise ValueError(f"layer {m} expects more than one value per channel in training, but got {given}")
    # torch.nn.functional would refuse one value per channel even if nothing is tracked.
    y = kernel(x, γ, β, μ, σ2, batch, m.momentum, m.ε, torch.backends.cudnn.enabled)
    if batch and μ is not stats[0]:
        with torch.no_grad():
            m.μ.copy_(μ)
            m.σ2.copy_(σ2)
    return y


def _shown(m: Any, sizes: str) -> str:
    return (
        f"{type(m).__name__}({sizes}"
        + optional(
            (m.λ is not identity, f", {show(m.λ)}"),
            (not m.affine, ", affine=false"),
            (m.active is not None, f", active={show(m.active)}"),
        )
        + ")"
    )


@layer(trainable=("β", "γ"))
class _Tracking(Layer):
    """The layers that normalise channels and may follow their statistics: the fields."""

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


class BatchNorm(_Tracking):
    """Brings each channel of a batch to mean 0 and variance 1: `BatchNorm(channels, λ=identity; ...)`.

    Input `(C, N)` or `(…, C, N)`, output the same: each channel normalised over all other axes, then
    scaled by `γ` and shifted by `β` with `affine=True`, then `λ` of it. `initβ=zeros32` and
    `initγ=ones32` make those two; `eps=1e-5` (`ε` up to Flux 0.13) is added to the variance.

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
        eps = eps if ε is None else ε
        _set_up(self, chs, λ, initβ, initγ, affine, track_stats, active, eps, momentum)

    def __call__(self, x: Any) -> torch.Tensor:
        return _forward(self, x, torch.batch_norm)

    def _reversed(self, x: torch.Tensor) -> torch.Tensor | None:
        """What the layer does, in torch's order of axes; None if more is to be done, or it is watched."""
        λ = ELEMENTWISE.get(id(self.λ))
        if λ is None or has_hooks(self) or x.shape[1] != self.chs or x.is_complex():
            return None
        return λ(_normed(self, x, torch.batch_norm, False))  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return _shown(self, f"{self.chs}")


class InstanceNorm(_Tracking):
    """Brings each channel of each image to mean 0 and variance 1: `InstanceNorm(channels, λ=identity; ...)`.

    Input `(…, C, N)` with at least one axis before the channels, output the same. Options and their
    defaults are those of `BatchNorm`, but for `affine=False` and `track_stats=False` (both `True`
    before Flux 0.12). With `track_stats=True`, `μ` and `σ2` follow the means over the batch of the
    images' statistics. Ulyanov et al. 2016, https://arxiv.org/abs/1607.08022.

    Raises `DimensionMismatch` for an input with another number of channels, or fewer axes;
    `ValueError` where statistics are to follow a single value per image.

    >>> m = InstanceNorm(1)
    >>> m
    InstanceNorm(1, affine=false)
    >>> m(torch.tensor([[1.0, 10.0], [3.0, 30.0]])[:, None, :])[:, 0, :]
    tensor([[-1.0000, -1.0000],
            [ 1.0000,  1.0000]])
    """

    def __init__(
        self,
        chs: int,
        λ: Any = identity,
        *,
        initβ: Callable[..., torch.Tensor] = zeros32,
        initγ: Callable[..., torch.Tensor] = ones32,
        affine: bool = False,
        track_stats: bool = False,
        active: Any = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
        ε: float | None = None,
    ) -> None:
        eps = eps if ε is None else ε
        _set_up(self, chs, λ, initβ, initγ, affine, track_stats, active, eps, momentum)

    def __call__(self, x: Any) -> torch.Tensor:
        return _forward(self, x, torch.instance_norm, by_image=True)

    def __str__(self) -> str:
        return _shown(self, f"{self.chs}")


@layer(trainable=("β", "γ"))
class GroupNorm(Layer):
    """Brings groups of channels of each image to mean 0 and variance 1: `GroupNorm(channels, G, λ=identity; ...)`.

    Input `(…, C, N)`, output the same. The `C` channels make `G` groups of neighbours, each
    normalised over its channels and the axes before them; then, with `affine=True`, each channel is
    scaled by `γ` and shifted by `β`, then `λ` of it. `initβ`, `initγ` and `eps` are as in
    `BatchNorm`; there are no statistics to follow, so `momentum` and `active` change nothing. Wu &
    He 2018, https://arxiv.org/abs/1803.08494.

    Raises `ValueError` if `G` doesn't divide `C`, `DimensionMismatch` for an input with another
    number of channels.

    >>> m = GroupNorm(4, 2)
    >>> m
    GroupNorm(4, 2)     # 8 parameters
    >>> m(torch.tensor([[1.0, 3.0, 10.0, 30.0]]).reshape(1, 4, 1)).detach().flatten()
    tensor([-1.0000,  1.0000, -1.0000,  1.0000])
    """

    G: int
    λ: Any
    β: Any
    γ: Any
    μ: None
    σ2: None
    ε: float
    momentum: float
    affine: bool
    track_stats: bool
    active: bool | None  # type: ignore[assignment]
    chs: int

    def __init__(
        self,
        chs: int,
        G: int,
        λ: Any = identity,
        *,
        initβ: Callable[..., torch.Tensor] = zeros32,
        initγ: Callable[..., torch.Tensor] = ones32,
        affine: bool = True,
        active: Any = None,
        eps: float = 1e-5,
        momentum: float = 0.1,
        ε: float | None = None,
    ) -> None:
        whole("GroupNorm", chs, G)
        if G < 1 or chs % G:
            raise ValueError(f"The number of groups ({G}) must divide the number of channels ({chs})")
        eps = eps if ε is None else ε
        _set_up(self, chs, λ, initβ, initγ, affine, False, active, eps, momentum)
        self.G = G

    def __call__(self, x: Any) -> torch.Tensor:
        def kernel(x: torch.Tensor, γ: Any, β: Any, *rest: Any) -> torch.Tensor:
            return torch.group_norm(x, self.G, γ, β, self.ε, rest[-1])

        return _forward(self, x, kernel)

    def __str__(self) -> str:
        return _shown(self, f"{self.chs}, {self.G}")


class WeightNorm(Layer):
    """A layer whose weight is trained as length and direction: `WeightNorm(layer, which="weight"; dims=-1)`.

    The layer's array `which` becomes the direction `v`, and `g`, which starts as its norm along
    `dims` (an axis, a tuple of them, None for all), is of its size with those axes of length 1: the
    layer computes with `g * v / ‖v‖`, at first the same as before. `remove_weight_norms` goes back.
    Salimans & Kingma 2016, https://arxiv.org/abs/1602.07868.

    Raises `ValueError` if the layer has no such array, or one that is all zero; `IndexError` for an
    axis that it doesn't have.

    >>> c = Conv((3,), 1 |to| 2)
    >>> wc = WeightNorm(c, "weight")
    >>> wc
    WeightNorm(
      Conv((3,), 1 => 2),                   # 8 parameters
      3×1×1 Array{Float32,...},             # 3 parameters
      "weight",
      2,
    )                   # Total: 3 arrays, 11 parameters, 44 bytes.
    >>> x = ones32(12, 1, 1)
    >>> torch.allclose(c(x), wc(x))
    True
    """

    layer: Any
    g: torch.Tensor
    which: str
    dims: Any

    def __init__(self, layer: Any, which: str = "weight", *, dims: Any = -1) -> None:
        kids, which = children(layer), fold(which)
        if not isinstance(kids, NamedTuple) or which not in vars(kids):
            raise ValueError(f"`{type(layer).__name__}` does not have field `{which}`.")
        v = kids[which]
        if v is None or isinstance(v, bool) or (isinstance(v, torch.Tensor) and not v.is_meta and not v.any()):
            raise ValueError(f"`{which}` field for `{layer}` is all zero, which will result in NaN.")
        if not isinstance(v, torch.Tensor) or not (v.is_floating_point() or v.is_complex()):
            raise ValueError(f"`{which}` field for `{layer}` is no array of numbers to train, but {summary(v)}")
        axes = range(v.ndim) if dims is None else (dims,) if is_size(dims) else tuple(dims)
        if not all(is_size(d) and -v.ndim <= d < v.ndim for d in axes):
            raise IndexError(f"WeightNorm can't take norms along {show(dims)} of a {summary(v)}")
        axes = tuple(d % v.ndim for d in axes)
        self.layer, self.which, self.dims = layer, which, axes[0] if is_size(dims) else axes
        # A new parameter, unless the weight itself is part of some computation.
        self.g = _norm(v.detach() if v.is_leaf else v, axes)

    def __call__(self, *xs: Any, **options: Any) -> Any:
        if isinstance(self.layer, nn.Module):  # the same as below, faster
            return torch.func.functional_call(self.layer, {self.which: _weight(self)}, xs, options)
        return reparametrize(self)(*xs, **options)

    def __str__(self) -> str:
        return f'WeightNorm({show(self.layer)}, "{self.which}"; dims={show(self.dims)})'


def _norm(v: torch.Tensor, dims: Any) -> torch.Tensor:
    n2 = abs2(v) if dims == () else abs2(v).sum(dims, keepdim=True)  # torch takes no axes for all
    return torch.sqrt(n2 + torch.finfo(v.dtype).eps)


def _weight(wn: WeightNorm) -> torch.Tensor:
    v = getattr(wn.layer, wn.which)
    return wn.g * v / _norm(v, wn.dims)


def reparametrize(wn: WeightNorm) -> Any:
    """The layer in a `WeightNorm`, with the weight that its length and direction give."""
    kids, rebuild = functor(wn.layer)
    return rebuild(NamedTuple.of({**vars(kids), wn.which: _weight(wn)}))


def remove_weight_norms(m: Any) -> Any:
    """The model `m` with the layer itself, and the weight that it uses, in the place of every `WeightNorm`.

    All other arrays are the same ones as in `m`.

    >>> model = Chain(WeightNorm(Conv((3,), 1 |to| 2)), WeightNorm(Conv((3,), 2 |to| 2)))
    >>> remove_weight_norms(model)
    Chain(
      Conv((3,), 1 => 2),                   # 8 parameters
      Conv((3,), 2 => 2),                   # 14 parameters
    )                   # Total: 4 arrays, 22 parameters, 88 bytes.
    """
    with torch.no_grad():  # the new weights are parameters, not results
        return fmap(reparametrize, m, exclude=lambda x: isinstance(x, WeightNorm))
