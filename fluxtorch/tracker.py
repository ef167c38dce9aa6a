"""Tracker.jl, which differentiated for Flux up to 0.9: tracked arrays are torch's own that require a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fluxtorch.arrays import array, summary
from fluxtorch.errors import DomainError
from fluxtorch.functors import fleaves
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.zygote import gradient as _gradient
from fluxtorch.zygote import hessian as _hessian
from fluxtorch.zygote import hook as _hook
from fluxtorch.zygote import jacobian as _jacobian
from fluxtorch.zygote import pullback as _pullback
from fluxtorch.zygote import withgradient as _withgradient
from fluxtorch.zygote.gradient import checkpointed
from fluxtorch.zygote.implicit import Grads, Params
from fluxtorch.zygote.scope import differentiating
from fluxtorch.zygote.tracked import zeros_of

__all__ = [
    "Grads",
    "Params",
    "back_",
    "checkpoint",
    "data",
    "forward",
    "grad",
    "gradient",
    "hessian",
    "hook",
    "istracked",
    "jacobian",
    "param",
    "update_",
    "withgradient",
    "zero_grad_",
]

checkpoint = checkpointed
forward = _pullback
hessian = _hessian
hook = _hook


def param(x: Any) -> torch.Tensor:
    """A number or an array as a tracked one: a new tensor, of floats, that requires a gradient.

    A number becomes a 0-d tensor. Of what is tracked already, it is a result. Raises `TypeError` for
    anything else.

    >>> param(2), param([1, 2])
    (tensor(2., requires_grad=True), tensor([1., 2.], requires_grad=True))
    """
    x = array(x)
    if isinstance(x, (int, float, complex)) and not isinstance(x, bool):
        x = torch.tensor(x)
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"param makes tracked numbers and arrays, and got {summary(x)}")
    if not (x.is_floating_point() or x.is_complex()):
        x = x.to(torch.get_default_dtype())
    return x.clone().requires_grad_()


def gradient(f: Callable[..., Any], *args: Any, nest: bool = False) -> Any:
    """The gradient of `f(*args)` by each argument; of `f()` by the tensors of a `Params`.

    With `nest=True` the result can be differentiated again: inside another `gradient` it always
    can; outside, it is tracked where an argument is. What `f` doesn't use has a gradient of zeros, as
    in Tracker. Raises `DomainError` for a loss that is NaN or infinite. See `fluxtorch.gradient` for
    shapes and other errors.

    >>> Tracker.gradient(lambda W, b, x: W * x + b, 2, 3, 4)
    (4.0, 1.0, 2.0)
    >>> df = lambda x: Tracker.gradient(lambda x: 3 * x**2 + 2 * x + 1, x, nest=True)[0]
    >>> df(2), Tracker.gradient(df, 2, nest=True)
    (14.0, (6.0,))
    """

    def loss(*xs: Any) -> Any:
        return _finite(f(*xs))

    if nest and any(isinstance(arg, torch.Tensor) and arg.requires_grad for arg in args):
        with differentiating():
            grads = _gradient(loss, *args)
    else:
        grads = _gradient(loss, *args)
    if isinstance(grads, Grads):
        return Grads([zeros_of(x) if g is None else g for x, g in grads.items()], grads.params)
    return tuple(_zero(x) if g is None else g for x, g in zip(args, grads, strict=True))


def _finite(y: Any) -> Any:
    if isinstance(y, torch.Tensor) and y.ndim == 0 and not torch.isfinite(y):
        raise DomainError("Loss is NaN" if torch.isnan(y) else "Loss is infinite")
    return y


def _zero(x: Any) -> Any:
    x = array(x)
    if isinstance(x, torch.Tensor):
        return zeros_of(x)
    return 0.0 if isinstance(x, (int, float)) and not isinstance(x, bool) else None


def withgradient(f: Callable[..., Any], *args: Any) -> NamedTuple:
    """The value of `f(*args)` and its gradient, as `nt(val=…, grad=…)`. See `fluxtorch.withgradient`.

    >>> Tracker.withgradient(lambda x: x**2, 3.0)
    (val = 9.0, grad = (6.0,))
    """
    return _withgradient(f, *args)


def jacobian(f: Callable[[Any], Any], x: Any) -> torch.Tensor:
    """The matrix of derivatives of the vector `f(x)` by the vector `x`: `(len(f(x)), len(x))`.

    >>> Tracker.jacobian(lambda x: x**2, [1.0, 2.0])
    tensor([[2., 0.],
            [0., 4.]])
    """
    return _jacobian(f, x)[0]  # type: ignore[no-any-return]


def istracked(x: Any) -> bool:
    """True for a tensor whose operations are recorded.

    >>> Tracker.istracked(param(2)), Tracker.istracked(2)
    (True, False)
    """
    return isinstance(x, torch.Tensor) and x.requires_grad


def data(x: Any) -> Any:
    """What is inside a tracked array (the same memory, not tracked); anything else as it is.

    >>> Tracker.data(param(2)), Tracker.data("text")
    (tensor(2.), 'text')
    """
    return x.detach() if isinstance(x, torch.Tensor) else x


def back_(y: Any, seed: Any = None, *, once: bool = True) -> None:
    """Adds the gradient of `y`, seeded with `seed` (1 for a number), to that of every tracked array behind it.

    A number as the seed of an array counts for each element. With `once=False` it can be done again for
    the same `y`. Raises `TypeError` for an array without a seed, `ValueError` for a seed of another size,
    `DomainError` for a number that is NaN or infinite.

    >>> x = param([3.0])
    >>> Tracker.back_((x**2).sum())
    >>> Tracker.grad(x)
    tensor([6.])
    """
    if not istracked(y):
        return
    if seed is None and y.ndim:
        raise TypeError(f"back_ needs a seed, an array of the size of its result, for a {summary(y)}")
    if seed is not None:
        seed = torch.as_tensor(array(seed), dtype=y.dtype, device=y.device)
        if seed.ndim and seed.shape != y.shape:
            raise ValueError(f"back_ needs a seed of the size of its result, {summary(y)}, and got {summary(seed)}")
        seed = seed.expand_as(y)
    _finite(y).backward(seed, retain_graph=not once)


def grad(x: Any) -> Any:
    """The gradient that `back_` has gathered for a tracked array: zeros before; None for what isn't tracked.

    >>> Tracker.grad(param([1.0, 2.0]))
    tensor([0., 0.])
    """
    if not istracked(x):
        return None
    gathered = x.grad if x.is_leaf or x.retains_grad else None  # torch warns where it gathers none
    return torch.zeros_like(x.detach()) if gathered is None else gathered


def zero_grad_(x: Any) -> Any:
    """Sets the gradient gathered for a tracked array, or for every one in a structure, to zero. Returns `x`.

    >>> x = param([3.0])
    >>> Tracker.back_((x**2).sum())
    >>> grad(Tracker.zero_grad_(x))
    tensor([0.])
    """

    for v in fleaves(list(x) if isinstance(x, Params) else x):
        if isinstance(v, torch.Tensor) and v.is_leaf and v.grad is not None:
            v.grad = torch.zeros_like(v.grad)
    return x


def update_(x: torch.Tensor, delta: Any) -> torch.Tensor:
    """Adds `delta` to the tracked array `x` in place and sets its gathered gradient to zero; returns `x`.

    This is Tracker's `update!(W, Δ)`, which adds: for a step downhill, `update_(W, -0.1 * Δ)`.
    Raises `TypeError` for what isn't a tensor, `ValueError` for a `delta` of another size.

    >>> W = param([1.0, 2.0])
    >>> Tracker.update_(W, [10.0, 20.0])
    tensor([11., 22.], requires_grad=True)
    """
    delta = data(array(delta))
    if not isinstance(x, torch.Tensor):
        hint = f": numbers don't change; make it param({x})" if isinstance(x, (int, float)) else ""
        raise TypeError(f"update_ changes a tracked array in place, and got {summary(x)}{hint}")
    if isinstance(delta, torch.Tensor) and delta.shape != x.shape:
        raise ValueError(f"update_ needs a change of the size of the array, {summary(x)}, and got {summary(delta)}")
    if delta is not None:
        with torch.no_grad():
            x.add_(delta)
    return zero_grad_(x)  # type: ignore[no-any-return]
