"""Flux's loss functions.

All take the prediction `ŷ` first and the target `y` second: two arrays of one size (tensors, lists
of numbers, ranges), or an array and a number that stands for a whole array of it. Trailing axes of length 1
may be missing, as in Julia; any other difference of size raises `DimensionMismatch`, where plain
broadcasting would give a wrong loss in silence. Integer and Bool targets are promoted, mixed float
types too.

`agg` makes one number of the elements, or of the columns: the mean unless another function is given.
`agg=sum`, `agg=identity` or `agg=lambda x: torch.mean(w * x)` are the usual others, and Python's
own `sum`, `min`, `max` mean those of the whole array. `eps` keeps logarithms finite and is the
machine epsilon of `ŷ`'s element type if not given. The keywords' older names `ϵ`, `δ`, `β` and `γ`
are understood too.

A one-hot `y` of `onehotbatch` reaches the cross entropies as indices, so that of each column of `ŷ`
only the one number counts that its label picks.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxtorch import base
from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.nnlib.ctc import ctc_loss
from fluxtorch.nnlib.softmax import Dims, along
from fluxtorch.onehotarrays import OneHotArray

__all__ = [
    "binary_focal_loss",
    "binarycrossentropy",
    "crossentropy",
    "ctc_loss",
    "dice_coeff_loss",
    "focal_loss",
    "hinge",
    "hinge_loss",
    "huber_loss",
    "kldivergence",
    "label_smoothing",
    "logitbinarycrossentropy",
    "logitcrossentropy",
    "mae",
    "mse",
    "msle",
    "poisson",
    "poisson_loss",
    "siamese_contrastive_loss",
    "squared_hinge",
    "squared_hinge_loss",
    "tversky_loss",
]

P = ParamSpec("P")
Agg = Callable[[Any], Any]

_WHOLE_ARRAY: dict[Any, Agg] = {builtins.sum: torch.sum, builtins.min: torch.min, builtins.max: torch.max}
_GREEK = {"ε": "eps", "ϵ": "eps", "δ": "delta", "β": "beta", "γ": "gamma"}


def _older(f: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """`f`, its keywords under their Greek names of Flux ≤ 0.12 too."""

    @wraps(f)
    def loss(*args: P.args, **kws: P.kwargs) -> Tensor:
        return f(*args, **{_GREEK.get(k, k): v for k, v in kws.items()})  # type: ignore[arg-type]

    return loss


def mae(ŷ: Any, y: Any, *, agg: Agg = torch.mean) -> Tensor:
    """Mean absolute error, `agg(abs.(ŷ .- y))`.

    >>> mae([1.1, 1.9, 3.1], range(1, 4))
    tensor(0.1000)
    """
    ŷ, y = _match(ŷ, y)
    return _aggregate(agg, (ŷ - y).abs())


def mse(ŷ: Any, y: Any, *, agg: Agg = torch.mean) -> Tensor:
    """Mean square error, `agg((ŷ .- y) .^ 2)`.

    >>> mse([1.1, 1.9, 3.1], [1, 2, 3])
    tensor(0.0100)
    """
    ŷ, y = _match(ŷ, y)
    if ŷ.is_complex():
        return _aggregate(agg, (ŷ - y).abs().square())
    return _reduce(F.mse_loss, agg, ŷ, y)


@_older
def msle(ŷ: Any, y: Any, *, agg: Agg = torch.mean, eps: float | None = None) -> Tensor:
    """Mean square error of logarithms, `agg(log.((ŷ .+ eps) ./ (y .+ eps)) .^ 2)`.

    It punishes a prediction that is too low more than one that is as much too high.

    >>> msle([1.1, 2.2, 3.3], [1, 2, 3])
    tensor(0.0091)
    >>> msle([0.9, 1.8, 2.7], [1, 2, 3])
    tensor(0.0111)
    """
    ŷ, y, eps = _match_eps(ŷ, y, eps)
    return _aggregate(agg, torch.log((ŷ + eps) / (y + eps)).square())


@_older
def huber_loss(ŷ: Any, y: Any, *, agg: Agg = torch.mean, delta: float = 1) -> Tensor:
    """Huber's loss: `0.5d²` where `d = |ŷ - y|` is below `delta`, and `delta * (d - 0.5delta)` elsewhere.

    >>> huber_loss([3.0], [1.0])
    tensor(1.5000)
    >>> huber_loss([3.0], [1.0], delta=4)
    tensor(2.)
    """
    ŷ, y = _match(ŷ, y)
    if isinstance(delta, Tensor) or delta <= 0:  # which torch's own doesn't take
        d = (ŷ - y).abs()
        return _aggregate(agg, torch.where(d < delta, 0.5 * d * d, delta * (d - 0.5 * delta)))
    return _reduce(F.huber_loss, agg, ŷ, y, delta=delta)


def label_smoothing(y: Any, α: float, *, dims: int | None = 0) -> Any:
    """Labels made less certain, as a target for the cross entropies.

    `α`, between 0 and 1, says by how much. `y` is one-hot along its first axis (`dims=0`, the
    default): the result is `y .* (1 - α) .+ α / size(y, 0)`. With `dims=None` each number of `y`
    is the label of two classes by itself, and the result is `y .* (1 - α) .+ α / 2`; Flux, which
    counts axes from 1, writes `dims=0` for this. The result has `y`'s shape.

    Raises `ValueError` for any other `α` or `dims`.

    >>> label_smoothing([[0, 1], [1, 0]], 0.2)
    tensor([[0.1000, 0.9000],
            [0.9000, 0.1000]])
    >>> label_smoothing([1, 0], 0.1, dims=None)
    tensor([0.9500, 0.0500])
    """
    if not 0 < α < 1:
        raise ValueError(f"α must be between 0 and 1, but it is {α}")
    if dims not in (0, None):
        raise ValueError(f"`dims` should be either 0 or None, but it is {dims}")
    y = array(y)
    classes = 2 if dims is None else y.shape[0] if getattr(y, "ndim", 0) else 1
    return y * (1 - α) + α / classes


@_older
def crossentropy(
    ŷ: Any, y: Any, *, dims: Dims = 0, agg: Agg = torch.mean, eps: float | None = None, weight: Any = None
) -> Tensor:
    """Cross entropy of probabilities, `agg(-sum(y .* log.(ŷ .+ eps); dims))`.

    `ŷ` and `y` are `(classes, batch…)`, and sum to 1 along `dims` (an axis or several, None for all),
    which is the first axis by default and is kept with length 1 for `agg`. `weight`, which Flux ≤ 0.11
    has, is a factor of the terms: a number, or one for each class. `logitcrossentropy` is the more
    exact one after a softmax.

    >>> ŷ = torch.tensor([[0.1, 0.8], [0.9, 0.2]])
    >>> crossentropy(ŷ, [[0, 1], [1, 0]])
    tensor(0.1643)
    >>> crossentropy(ŷ, [[0, 1], [1, 0]], agg=sum)
    tensor(0.3285)
    """
    ŷ, y, eps = _match_eps(ŷ, y, eps)
    if weight is None and _is_onehot(y, dims):
        return _aggregate(agg, -torch.log(ŷ.gather(0, y.indices.unsqueeze(0)) + eps))
    return _aggregate(agg, -base.sum(_weighted(_xlogy(y, ŷ, eps), weight), dims=dims))


def logitcrossentropy(ŷ: Any, y: Any, *, dims: Dims = 0, agg: Agg = torch.mean, weight: Any = None) -> Tensor:
    """`crossentropy(softmax(ŷ; dims), y)`, more exactly: `agg(-sum(y .* logsoftmax(ŷ; dims); dims))`.

    `ŷ` and `y` are `(classes, batch…)`; `dims` and `weight` as in `crossentropy`. Where a Bool `y` is
    false, `ŷ` may be -Inf.

    >>> logitcrossentropy([[-1000.0, 3.0], [1000.0, 2.0]], [[0, 1], [1, 0]])
    tensor(0.1566)
    """
    if isinstance(y, OneHotArray) and _is_plain(ŷ, y) and dims == 0 and agg is torch.mean and weight is None:
        if ŷ.ndim == 2:
            return F.cross_entropy(ŷ.t(), y.indices)  # what training asks for, without detours
        return F.cross_entropy(reversed_axes(ŷ).reshape(-1, ŷ.shape[0]), reversed_axes(y.indices).reshape(-1))
    y = array(y)
    bools = isinstance(y, Tensor) and y.dtype == torch.bool
    ŷ, y = _match(ŷ, y)
    if weight is None and _is_onehot(y, dims):
        # Both with their axes in opposite order, which is how torch's kernel wants them.
        rows, labels = reversed_axes(ŷ), reversed_axes(y.indices)
        each = F.cross_entropy(rows.reshape(-1, rows.shape[-1]), labels.reshape(-1), reduction="none")
        return _aggregate(agg, reversed_axes(each.reshape(labels.shape)).unsqueeze(0))
    terms = along(torch.log_softmax, ŷ, dims)
    # In Julia, false times -Inf is 0; of any other 0 it is NaN.
    terms = terms.masked_fill(y == 0, 0) if bools else y * terms
    return _aggregate(agg, -base.sum(_weighted(terms, weight), dims=dims))


@_older
def binarycrossentropy(ŷ: Any, y: Any, *, agg: Agg = torch.mean, eps: float | None = None) -> Tensor:
    """Cross entropy of the probability of one class, `agg(-y*log(ŷ + eps) - (1 - y)*log(1 - ŷ + eps))`.

    `ŷ` and `y` have any one shape. `logitbinarycrossentropy` is the more exact one after a sigmoid.

    >>> binarycrossentropy([0.9, 0.2, 0.7], [True, False, True])
    tensor(0.2284)
    """
    ŷ, y, eps = _match_eps(ŷ, y, eps)
    return _aggregate(agg, -_xlogy(y, ŷ, eps) - _xlogy(1 - y, 1 - ŷ, eps))


def logitbinarycrossentropy(ŷ: Any, y: Any, *, agg: Agg = torch.mean) -> Tensor:
    """`binarycrossentropy(σ(ŷ), y)`, more exactly: `agg((1 - y) * ŷ - logσ(ŷ))`.

    `ŷ` and `y` have any one shape.

    >>> logitbinarycrossentropy([2.0, -1.0, 3.14159], [True, False, True])
    tensor(0.1608)
    """
    ŷ, y = _match(ŷ, y)
    return _reduce(F.binary_cross_entropy_with_logits, agg, ŷ, y)


@_older
def kldivergence(ŷ: Any, y: Any, *, dims: Dims = 0, agg: Agg = torch.mean, eps: float | None = None) -> Tensor:
    """Kullback-Leibler divergence of the distribution `ŷ` from `y`: 0 if they are equal, else positive.

    `agg(sum(y .* log.(y); dims)) + crossentropy(ŷ, y; dims, agg, eps)`, of arrays `(classes, batch…)`.

    >>> kldivergence([[0.5, 0.5], [0.5, 0.5]], [[1, 0], [0, 1]])
    tensor(0.6931)
    """
    ŷ, y, eps = _match_eps(ŷ, y, eps)
    return _aggregate(agg, base.sum(_xlogy(y, y), dims=dims)) + crossentropy(ŷ, y, dims=dims, agg=agg, eps=eps)


def poisson_loss(ŷ: Any, y: Any, *, agg: Agg = torch.mean) -> Tensor:
    """Negative log likelihood of the counts `y` if Poisson's distribution with mean `ŷ` gave them.

    `agg(ŷ .- y .* log.(ŷ))`, the constant `log(y!)` left out; `ŷ` and `y` have any one shape.

    >>> poisson_loss([1, 3, 3], [1, 2, 3])
    tensor(0.5023)
    """
    ŷ, y = _match(ŷ, y)
    return _aggregate(agg, ŷ - _xlogy(y, ŷ))


def hinge_loss(ŷ: Any, y: Any, *, agg: Agg = torch.mean) -> Tensor:
    """Hinge loss of labels `y` that are 1 or -1, `agg(max.(0, 1 .- ŷ .* y))`.

    `ŷ` and `y` have any one shape.

    >>> hinge_loss([0.1, 0.3, 1, 1.5], [1, -1, 1, 1])
    tensor(0.5500)
    """
    ŷ, y = _match(ŷ, y)
    return _aggregate(agg, (1 - ŷ * y).clamp_min(0))  # whose slope at 0 is Flux's 1


def squared_hinge_loss(ŷ: Any, y: Any, *, agg: Agg = torch.mean) -> Tensor:
    """Squared hinge loss of labels `y` that are 1 or -1, `agg(max.(0, 1 .- ŷ .* y) .^ 2)`.

    `ŷ` and `y` have any one shape.

    >>> squared_hinge_loss([0.1, 0.3, 1, 1.5], [1, -1, 1, 1])
    tensor(0.6250)
    """
    ŷ, y = _match(ŷ, y)
    return _aggregate(agg, torch.relu(1 - ŷ * y).square())


def dice_coeff_loss(ŷ: Any, y: Any, *, smooth: float = 1) -> Tensor:
    """One minus the dice coefficient, for image segmentation; V-Net, https://arxiv.org/abs/1606.04797.

    `1 - (2sum(ŷ .* y) + smooth) / (sum(ŷ .^ 2) + sum(y .^ 2) + smooth)`; `ŷ` and `y` have any one shape.

    >>> dice_coeff_loss([1.1, 2.1, 3.1], [1, 2, 3])
    tensor(0.0010)
    """
    ŷ, y = _match(ŷ, y)
    return 1 - (2 * (y * ŷ).sum() + smooth) / (y.square().sum() + ŷ.square().sum() + smooth)


@_older
def tversky_loss(ŷ: Any, y: Any, *, beta: float = 0.7) -> Tensor:
    """Tversky's loss for unbalanced data, https://arxiv.org/abs/1706.05721.

    `1 - (sum(y .* ŷ) + 1) / (sum(y .* ŷ + β*(1 .- y) .* ŷ + (1 - β)*y .* (1 .- ŷ)) + 1)`, so `beta`
    is the weight of false positives here, as in Flux's code. `ŷ` and `y` have any one shape.

    >>> tversky_loss([0.9, 0.2, 0.7], [1, 0, 1])
    tensor(0.0909)
    """
    ŷ, y = _match(ŷ, y)
    both = (y * ŷ).sum()
    return 1 - (both + 1) / (both + beta * ((1 - y) * ŷ).sum() + (1 - beta) * (y * (1 - ŷ)).sum() + 1)


@_older
def binary_focal_loss(ŷ: Any, y: Any, *, agg: Agg = torch.mean, gamma: float = 2, eps: float | None = None) -> Tensor:
    """Focal loss of the probability of one class, https://arxiv.org/abs/1708.02002.

    `agg(-(1 .- p) .^ gamma .* log.(p))`, where `p` is the probability given to the true label. With
    `gamma=0` it is `binarycrossentropy`. `ŷ` and `y` have any one shape.

    >>> binary_focal_loss([[0.268941, 0.5, 0.268941], [0.731059, 0.5, 0.731059]], [[0, 1, 0], [1, 0, 1]])
    tensor(0.0729)
    """
    ŷ, y, eps = _match_eps(ŷ, y, eps)
    ŷ = ŷ + eps
    p = y * ŷ + (1 - y) * (1 - ŷ)
    return _aggregate(agg, -_power(1 - p, gamma) * torch.log(p))


@_older
def focal_loss(
    ŷ: Any, y: Any, *, dims: Dims = 0, agg: Agg = torch.mean, gamma: float = 2, eps: float | None = None
) -> Tensor:
    """Focal loss, a cross entropy that looks at hard examples first; https://arxiv.org/abs/1708.02002.

    `agg(sum(-y .* (1 .- ŷ) .^ gamma .* log.(ŷ); dims))`, with `eps` added to `ŷ`. With `gamma=0` it
    is `crossentropy`. `ŷ` and `y` are `(classes, batch…)`, and `ŷ` is a softmax's output.

    >>> focal_loss([[0.4, 0.2], [0.5, 0.5], [0.1, 0.3]], [[1, 0], [0, 0], [0, 1]])
    tensor(0.4599)
    """
    ŷ, y, eps = _match_eps(ŷ, y, eps)
    return _aggregate(agg, -base.sum(_power(1 - (ŷ + eps), gamma) * _xlogy(y, ŷ, eps), dims=dims))


def siamese_contrastive_loss(ŷ: Any, y: Any, *, agg: Agg = torch.mean, margin: float = 1) -> Tensor:
    """Contrastive loss of distances `ŷ` between pairs that are alike (`y` is 0) or not (`y` is 1).

    `agg((1 .- y) .* ŷ .^ 2 .+ y .* max.(0, margin .- ŷ) .^ 2)`; Hadsell et al. 2006. `ŷ` and `y` have
    any one shape.

    Raises `DomainError` for a negative `margin`.

    >>> siamese_contrastive_loss([0.5, 1.5, 2.5], [1, 2, 3])
    tensor(-4.8333)
    """
    ŷ, y = _match(ŷ, y)
    if margin < 0:
        raise DomainError(f"Margin must be non-negative, but it is {margin}")
    return _aggregate(agg, (1 - y) * ŷ.square() + y * torch.relu(margin - ŷ).square())


def _is_plain(ŷ: Any, y: OneHotArray) -> TypeGuard[Tensor]:
    """Is `ŷ` an array of floats of the size of `y`, whose vectors along the first axis are one-hot?"""
    return isinstance(ŷ, Tensor) and ŷ.is_floating_point() and ŷ.ndim > 1 and ŷ.shape == y.shape and y.axis == 0


def _is_onehot(y: Tensor, dims: Dims) -> TypeGuard[OneHotArray]:
    """Is `y` one-hot along `dims`?"""
    return isinstance(y, OneHotArray) and y.axis == 0 and dims in (0, (0,), -y.ndim)


def _match(ŷ: Any, y: Any) -> tuple[Tensor, Tensor]:
    """Prediction and target as tensors of one float type and one shape."""
    if not (isinstance(ŷ, Tensor) and isinstance(y, Tensor)):
        ŷ, y = _tensors(array(ŷ), array(y))
    if ŷ.dtype != y.dtype or not (ŷ.is_floating_point() or ŷ.is_complex()):
        dtype = _float(torch.promote_types(ŷ.dtype, y.dtype))
        ŷ, y = ŷ.to(dtype), y.to(dtype)
    return (ŷ, y) if ŷ.shape == y.shape else _same_shape(ŷ, y)


def _match_eps(ŷ: Any, y: Any, eps: float | None) -> tuple[Tensor, Tensor, float]:
    """`_match` and the `eps` to use, which is that of the type that ŷ came in."""
    ŷ = array(ŷ)
    own = ŷ.dtype if isinstance(ŷ, Tensor) and ŷ.is_floating_point() else None
    ŷ, y = _match(ŷ, y)
    return ŷ, y, torch.finfo(own or ŷ.dtype).eps if eps is None else eps


def _tensors(ŷ: Any, y: Any) -> tuple[Tensor, Tensor]:
    for x in (ŷ, y):
        if not isinstance(x, (Tensor, bool, int, float, complex)):
            raise TypeError(f"a loss function takes numbers and arrays of numbers, but got {summary(x)}")
    return _beside(y, ŷ), _beside(ŷ, y)


def _beside(other: Any, x: Any) -> Tensor:
    """`x`, or a number as a tensor of the type that `other` has: Float64 beside another number."""
    if isinstance(x, Tensor):
        return x
    dtype = _float(other.dtype) if isinstance(other, Tensor) else torch.float64
    if isinstance(x, complex):
        dtype = torch.promote_types(dtype, torch.complex32)
    # Not torch.tensor, which would wait for a GPU.
    return torch.full((), x, dtype=dtype, device=other.device if isinstance(other, Tensor) else None)


def _float(dtype: torch.dtype) -> torch.dtype:
    return dtype if dtype.is_floating_point or dtype.is_complex else torch.get_default_dtype()


def _same_shape(ŷ: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if ŷ.ndim == 0 or y.ndim == 0:
        ŷ, y = torch.broadcast_tensors(ŷ, y)
        return ŷ, y
    axes = max(ŷ.ndim, y.ndim)
    long, short = (*ŷ.shape, *[1] * (axes - ŷ.ndim)), (*y.shape, *[1] * (axes - y.ndim))
    if long != short:
        raise DimensionMismatch(f"loss function expects size(ŷ) = {tuple(ŷ.shape)} to match size(y) = {tuple(y.shape)}")
    return ŷ.reshape(long), y.reshape(long)


def _aggregate(agg: Agg, x: Tensor) -> Tensor:
    return _WHOLE_ARRAY.get(agg, agg)(x)


def _reduce(kernel: Callable[..., Tensor], agg: Agg, *args: Tensor, **kws: Any) -> Tensor:
    """One of torch's own losses, which take the mean faster than a step after them."""
    if agg is torch.mean:
        # What a layer gives has its axes in opposite order in memory, against which torch's kernel goes back slowly.
        in_memory = args if args[0].is_contiguous() else [reversed_axes(x) for x in args]
        return kernel(*in_memory, **kws)
    return _aggregate(agg, kernel(*args, reduction="none", **kws))


def _weighted(x: Tensor, weight: Any) -> Tensor:
    return x if weight is None else base.broadcast(operator.mul, x, weight)


def _xlogy(x: Tensor, y: Tensor, eps: float = 0) -> Tensor:
    """`x .* log.(y .+ eps)`, and 0 with a gradient of 0 where `x` and `y + eps` are both 0."""
    if eps:
        y = y + eps
    if eps < torch.finfo(y.dtype).tiny:
        y = y.masked_fill((x == 0) & (y == 0), 1)
    return torch.xlogy(x, y)


def _power(x: Tensor, γ: float) -> Tensor:
    """`x .^ γ` of a probability that `eps` may have pushed below 0, where only whole powers are real."""
    return x**γ if γ % 1 == 0 else x.clamp_min(0) ** γ


hinge = hinge_loss
squared_hinge = squared_hinge_loss
poisson = poisson_loss
