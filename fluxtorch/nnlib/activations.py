"""NNlib's activation functions.

Every one works element by element. It takes an array of any shape (a tensor, or a list of numbers)
and returns a tensor of that shape, or takes a plain Python number and returns a float. Float types
are kept; Integer and Bool arrays become torch's default one, save that `relu`, `relu6`, `hardtanh`
and `trelu` of integers are integers.

`σ`, `hardσ` and `logσ` are also called `sigmoid`, `hardsigmoid` and `logsigmoid`, and print under
the Greek name, as in Flux. Where a function has a parameter (`leakyrelu`'s `a`, say) it may be a
tensor too: its axes are lined up with `x`'s from the first one, and it gets a gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fluxtorch.arrays import array, summary
from fluxtorch.errors import DimensionMismatch

__all__ = [
    "celu",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardσ",
    "leakyrelu",
    "lisht",
    "logcosh",
    "logsigmoid",
    "logσ",
    "mish",
    "relu",
    "relu6",
    "rrelu",
    "selu",
    "sigmoid",
    "sigmoid_fast",
    "softplus",
    "softshrink",
    "softsign",
    "swish",
    "tanh_fast",
    "tanhshrink",
    "thresholdrelu",
    "trelu",
    "σ",
]

# torch's softplus is the identity above its `threshold`; the default, 20, is off by 2e-9 in Float64.
_SOFTPLUS_THRESHOLD = 50


def _lift(f: Callable[..., Any], x: Any, *params: Any) -> Any:
    """`f(x, *params)` for an `x` that is no float tensor: a number, a list, integers."""
    if isinstance(x, (bool, int, float)):
        y = f(torch.tensor(x, dtype=torch.float64), *params)
        if any(isinstance(p, Tensor) for p in params):
            return y
        return int(y) if f in _WHOLE and type(x) is int else y.item()
    x = array(x)
    if not isinstance(x, Tensor) or x.is_complex():
        raise TypeError(f"{f.__name__} takes a real number or an array of them, but got {summary(x)}")
    if x.is_floating_point():
        return f(x, *params)
    # Only what `gradient` differentiates by requires a gradient here; it must become floats, a number Python's.
    if f in _WHOLE and not x.requires_grad and x.dtype != torch.bool:
        return f(x.double(), *params).to(x.dtype)
    return f(x.to(torch.float64 if getattr(x, "number", False) else torch.get_default_dtype()), *params)


def _beside(x: Tensor, p: Any) -> Any:
    """`p`, if a tensor, as Julia's broadcasting would lay it beside `x`: lined up from the first axis."""
    if not isinstance(p, Tensor):
        return p
    if p.ndim > x.ndim or any(m not in (1, n) for m, n in zip(p.shape, x.shape, strict=False)):
        raise DimensionMismatch(f"the parameter, a {summary(p)}, doesn't line up with a {summary(x)} from axis 0")
    return p.to(x.dtype).reshape(p.shape + (1,) * (x.ndim - p.ndim))


def σ(x: Any) -> Any:
    """Sigmoid, `1 / (1 + exp(-x))`.

    >>> σ(0)
    0.5
    >>> σ(torch.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(σ, x)
    return torch.sigmoid(x)


def hardσ(x: Any) -> Any:
    """Sigmoid in three straight pieces, `max(0, min(1, (x + 3) / 6))`.

    >>> hardσ(torch.tensor([-4.0, 0.0, 1.5, 4.0]))
    tensor([0.0000, 0.5000, 0.7500, 1.0000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(hardσ, x)
    # Not F.hardsigmoid: its gradient is a Float32 number, and has no gradient itself.
    return F.hardtanh((x + 3) / 6, 0.0, 1.0)


def logσ(x: Any) -> Any:
    """`log(σ(x))` without overflow.

    >>> logσ(torch.tensor([-1000.0, 0.0, 1000.0]))
    tensor([-1.0000e+03, -6.9315e-01,  0.0000e+00])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(logσ, x)
    return F.logsigmoid(x)


def hardtanh(x: Any) -> Any:
    """Tanh in three straight pieces, `max(-1, min(1, x))`.

    Collobert, "Large Scale Machine Learning", 2004.

    >>> hardtanh(torch.tensor([-2.0, 0.5, 2.0]))
    tensor([-1.0000,  0.5000,  1.0000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(hardtanh, x)
    return F.hardtanh(x)


def relu(x: Any) -> Any:
    """Rectified linear unit, `max(0, x)`.

    >>> relu(torch.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(relu, x)
    return torch.relu(x)


def leakyrelu(x: Any, a: Any = 0.01) -> Any:
    """Leaky rectified linear unit, `x` where positive and `a * x` elsewhere.

    >>> leakyrelu(-10, 0.2)
    -2.0
    >>> leakyrelu(torch.tensor([-1.0, 2.0]))
    tensor([-0.0100,  2.0000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(leakyrelu, x, a)
    if isinstance(a, Tensor):
        return torch.where(x > 0, x, _beside(x, a) * x.clamp_max(0))
    return F.leaky_relu(x, a)


def relu6(x: Any) -> Any:
    """Rectified linear unit capped at 6, `min(max(0, x), 6)`.

    Krizhevsky, "Convolutional Deep Belief Networks on CIFAR-10", 2010.

    >>> relu6(torch.tensor([-1.0, 2.0, 10.0]))
    tensor([0., 2., 6.])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(relu6, x)
    return F.relu6(x)


def rrelu(x: Any, lo: Any = 1 / 8, hi: Any = 1 / 3) -> Any:
    """Randomised leaky rectified linear unit: `x` where positive and `a * x` elsewhere.

    A new `a` is drawn between `lo` and `hi` for each element of each call, in test mode too, from
    torch's global generator. Xu et al., https://arxiv.org/abs/1505.00853.

    >>> bool(-4 <= rrelu(-12.0) <= -1.5)
    True
    >>> rrelu(torch.tensor([0.0, 2.0]))
    tensor([0., 2.])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(rrelu, x, lo, hi)
    lo, hi = _beside(x, lo), _beside(x, hi)
    return torch.where(x > 0, x, x * (lo + (hi - lo) * torch.rand_like(x)))


def elu(x: Any, α: Any = 1) -> Any:
    """Exponential linear unit, `x` where positive and `α * (exp(x) - 1)` elsewhere.

    Clevert et al., https://arxiv.org/abs/1511.07289.

    >>> elu(torch.tensor([-10.0, 1.0]))
    tensor([-1.0000,  1.0000])
    >>> elu(torch.tensor([-10.0, 1.0]), 2)
    tensor([-1.9999,  1.0000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(elu, x, α)
    if not isinstance(α, Tensor) and α == 1:
        return F.elu(x)
    # Not F.elu: its slope at 0 is α.
    return torch.where(x >= 0, x, _beside(x, α) * torch.expm1(x.clamp_max(0)))


def gelu(x: Any) -> Any:
    """Gaussian error linear unit in its tanh form, `0.5x * (1 + tanh(√(2/π) * (x + 0.044715x³)))`.

    Hendrycks & Gimpel, https://arxiv.org/abs/1606.08415.

    >>> gelu(torch.tensor([-1.0, 1.0]))
    tensor([-0.1588,  0.8412])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(gelu, x)
    return F.gelu(x, approximate="tanh")


def swish(x: Any) -> Any:
    """Self-gated activation, `x * σ(x)`.

    Ramachandran et al., https://arxiv.org/abs/1710.05941.

    >>> swish(torch.tensor([-1.0, 1.0]))
    tensor([-0.2689,  0.7311])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(swish, x)
    return F.silu(x)


def hardswish(x: Any) -> Any:
    """`x * hardσ(x)`, swish made of a parabola between two straight pieces.

    Howard et al., https://arxiv.org/abs/1905.02244.

    >>> hardswish([-4, -2, 0, 2, 4])
    tensor([-0.0000, -0.3333,  0.0000,  1.6667,  4.0000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(hardswish, x)
    return F.hardswish(x)


def lisht(x: Any) -> Any:
    """Linearly scaled hyperbolic tangent, `x * tanh(x)`.

    Roy et al., https://arxiv.org/abs/1901.05894.

    >>> lisht(torch.tensor([-1.0, 1.0]))
    tensor([0.7616, 0.7616])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(lisht, x)
    return x * torch.tanh(x)


def selu(x: Any) -> Any:
    """Scaled exponential linear unit, `λ * elu(x, α)` with λ = 1.0507… and α = 1.6733….

    Klambauer et al., https://arxiv.org/abs/1706.02515.

    >>> selu(torch.tensor([-10.0, 1.0]))
    tensor([-1.7580,  1.0507])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(selu, x)
    return F.selu(x)


def celu(x: Any, α: Any = 1) -> Any:
    """Continuously differentiable exponential linear unit: `x` where positive, else `α * (exp(x/α) - 1)`.

    Barron, https://arxiv.org/abs/1704.07483.

    >>> celu(torch.tensor([-10.0, 1.0]), 0.5)
    tensor([-0.5000,  1.0000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(celu, x, α)
    if isinstance(α, Tensor):
        α = _beside(x, α)
        return torch.where(x >= 0, x, α * torch.expm1(x.clamp_max(0) / α))
    return F.celu(x, α)


def trelu(x: Any, theta: Any = 1) -> Any:
    """Thresholded rectified linear unit, `x` where above `theta` and 0 elsewhere. Also `thresholdrelu`.

    Konda et al., https://arxiv.org/abs/1402.3337.

    >>> trelu(torch.tensor([0.9, 1.0, 1.1]))
    tensor([0.0000, 0.0000, 1.1000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(trelu, x, theta)
    if isinstance(theta, Tensor):
        return x.masked_fill(x <= _beside(x, theta), 0)
    return F.threshold(x, theta, 0)


def softsign(x: Any) -> Any:
    """`x / (1 + |x|)`.

    Bergstra et al., "Quadratic Polynomials Learn Better Image Features", 2009.

    >>> softsign(torch.tensor([1.0, -100.0]))
    tensor([ 0.5000, -0.9901])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(softsign, x)
    return F.softsign(x)


def softplus(x: Any) -> Any:
    """`log(exp(x) + 1)` without overflow.

    Glorot et al., "Deep Sparse Rectifier Neural Networks", 2011.

    >>> softplus(torch.tensor([-1000.0, 0.0, 1000.0]))
    tensor([0.0000e+00, 6.9315e-01, 1.0000e+03])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(softplus, x)
    return F.softplus(x, threshold=_SOFTPLUS_THRESHOLD)


def logcosh(x: Any) -> Any:
    """`log(cosh(x))` without overflow.

    >>> logcosh(torch.tensor([-1.0, 0.0, 1.0]))
    tensor([0.4338, 0.0000, 0.4338])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(logcosh, x)
    return x + F.softplus(-2 * x, threshold=_SOFTPLUS_THRESHOLD) - math.log(2)


def mish(x: Any) -> Any:
    """`x * tanh(softplus(x))`.

    Misra, https://arxiv.org/abs/1908.08681.

    >>> mish(torch.tensor([-1.0, 1.0]))
    tensor([-0.3034,  0.8651])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(mish, x)
    # Not F.mish: its second derivative is NaN for large x.
    return x * torch.tanh(F.softplus(x, threshold=_SOFTPLUS_THRESHOLD))


def tanhshrink(x: Any) -> Any:
    """`x - tanh(x)`.

    >>> tanhshrink(torch.tensor([-10.0, 10.0]))
    tensor([-9.,  9.])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(tanhshrink, x)
    return F.tanhshrink(x)


def softshrink(x: Any, λ: Any = 0.5) -> Any:
    """`x` moved towards zero by `λ`, and 0 where it is within `λ` of it.

    >>> softshrink(torch.tensor([-10.0, 0.3, 10.0]))
    tensor([-9.5000,  0.0000,  9.5000])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(softshrink, x, λ)
    if isinstance(λ, Tensor):
        λ = _beside(x, λ)
        return torch.relu(x - λ) - torch.relu(-x - λ)
    return F.softshrink(x, λ)


def sigmoid_fast(x: Any) -> Any:
    """NNlib's less exact `σ`; here it has the speed and the digits of `σ`.

    >>> sigmoid_fast(torch.tensor([0.2]))
    tensor([0.5498])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(sigmoid_fast, x)
    return torch.sigmoid(x)


def tanh_fast(x: Any) -> Any:
    """NNlib's less exact `tanh`; here it has the speed and the digits of `tanh`.

    >>> tanh_fast(torch.tensor([0.5]))
    tensor([0.4621])
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        return _lift(tanh_fast, x)
    return torch.tanh(x)


sigmoid = σ
hardsigmoid = hardσ
logsigmoid = logσ
thresholdrelu = trelu

# What keeps integers as they are.
_WHOLE = (relu, relu6, hardtanh, trelu)
