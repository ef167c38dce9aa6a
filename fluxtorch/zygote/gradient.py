"""`gradient` and its kin, in both styles."""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.functors import fmap
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.zygote.explicit import explicit_gradient, explicit_pullback, explicit_withgradient
from fluxtorch.zygote.implicit import Grads, Params, implicit_gradient, implicit_pullback, implicit_withgradient
from fluxtorch.zygote.scope import differentiating, scope, within_gradient
from fluxtorch.zygote.tracked import float_of, zeros_of

__all__ = [
    "checkpointed",
    "diaghessian",
    "dropgrad",
    "gradient",
    "hessian",
    "hessian_reverse",
    "hook",
    "ignore",
    "ignore_derivatives",
    "jacobian",
    "non_differentiable",
    "pullback",
    "withgradient",
    "withjacobian",
]


def _params_among(f: Any, args: tuple[Any, ...], name: str) -> Params | None:
    if not callable(f):
        raise TypeError(f"{name} needs a function as its first argument, and got {summary(f)}")
    if len(args) == 1:
        return args[0] if type(args[0]) is Params else None
    if any(isinstance(arg, Params) for arg in args):
        raise TypeError(f"{name} takes either the arguments of the function or one Params, not both")
    return None


def gradient(f: Callable[..., Any], *args: Any) -> Any:
    """The gradient of `f(*args)`, a real number, by each argument, each in the shape of its argument.

    A number gives a float, a tensor a tensor of its size, a named tuple, a layer or any other
    structure the same structure of gradients, and None stands wherever there is nothing to
    differentiate. A list of numbers counts as an array. What `f` captures is constant, as is all that
    was computed before the call; a layer's parameters are what they are everywhere. Nests to any order.

    With a `Params` as the only argument, `f` takes none, and the result is a `Grads` with the
    gradient by each of those tensors.

    Raises `TypeError` if `f` doesn't return one real number; warns if it returns a plain float, which
    has no gradient.

    >>> gradient(lambda x: 3 * x**2 + 2 * x + 1, 2)
    (14.0,)
    >>> gradient(lambda x, y: ((x - y) ** 2).sum(), [2, 1], [2, 0])
    (tensor([0., 2.]), tensor([-0., -2.]))
    >>> W = torch.tensor([1.0, 2.0])
    >>> gradient(lambda: (W**2).sum(), Params([W]))[W]
    tensor([2., 4.])
    """
    ps = _params_among(f, args, "gradient")
    return explicit_gradient(f, args) if ps is None else implicit_gradient(f, ps)


def withgradient(f: Callable[..., Any], *args: Any) -> NamedTuple:
    """The value of `f(*args)` and its gradient, as `nt(val=…, grad=…)`.

    If `f` returns a tuple or named tuple, its first entry is what is differentiated and `val` is
    all of it. `val` carries no graph. With a `Params`, `grad` is a `Grads`. Raises as `gradient` does.

    >>> withgradient(lambda x, y: x / y, 1, 2)
    (val = 0.5, grad = (0.5, -0.25))
    """
    ps = _params_among(f, args, "withgradient")
    return explicit_withgradient(f, args) if ps is None else implicit_withgradient(f, ps)


def pullback(f: Callable[..., Any], *args: Any) -> tuple[Any, Callable[[Any], Any]]:
    """The value `y` of `f(*args)`, and a function from a seed like `y` to the gradient by each argument.

    The function may be called any number of times. With a `Params` it gives a `Grads`.

    >>> y, back = pullback(lambda x, y: x * y, 2.0, 3.0)
    >>> y, back(1.0), back(2.0)
    (6.0, (3.0, 2.0), (6.0, 4.0))
    """
    ps = _params_among(f, args, "pullback")
    return explicit_pullback(f, args) if ps is None else implicit_pullback(f, ps)


def jacobian(f: Callable[..., Any], *args: Any) -> Any:
    """The Jacobian of `f(*args)`, an array or a number, by each argument that is an array or a number.

    For `y` of `m` elements, an array of `n` elements gives an `(m, n)` matrix, both counted
    column-major, and a number a vector of `m`; any other argument gives None. With a `Params`, the
    result is a `Grads` of such matrices. Raises `TypeError` for a result that is no real array.

    >>> jacobian(lambda a, x: a**2 * x, [1.0, 2.0, 3.0], 1)
    (tensor([[2., 0., 0.],
            [0., 4., 0.],
            [0., 0., 6.]]), tensor([1., 4., 9.]))
    """
    return withjacobian(f, *args).grad


def withjacobian(f: Callable[..., Any], *args: Any) -> NamedTuple:
    """The value of `f(*args)` as a vector, and its Jacobian, as `nt(val=…, grad=…)`. See `jacobian`.

    >>> withjacobian(lambda x: torch.cumsum(x, 0), [1.0, 2.0])
    (val = [1.0, 3.0], grad = ([1.0 0.0; 1.0 1.0],))
    """
    ps = _params_among(f, args, "jacobian")

    def vectorised(*xs: Any) -> torch.Tensor:
        y = array(f(*xs))
        y = y if isinstance(y, torch.Tensor) else torch.as_tensor(y) if isinstance(y, (int, float)) else y
        if not isinstance(y, torch.Tensor) or y.is_complex():
            raise TypeError(
                f"jacobian needs a function that returns a real array or number, and it returned {summary(y)}"
            )
        return _vec(y)

    # The caller's own arrays, so that their sizes are those that the matrices get.
    xs = list(ps) if ps is not None else [array(arg) for arg in args]
    y, back = pullback(vectorised, ps) if ps is not None else pullback(vectorised, *xs)
    rows = [back(seed) for seed in torch.eye(len(y), dtype=float_of(y), device=y.device)]

    def matrix(i: int, x: Any) -> Any:
        found = [row[i] if ps is None else row[x] for row in rows]
        if _is_number(x):
            dtype = float_of(y).to_complex() if isinstance(x, complex) else float_of(y)
            return _stack([torch.as_tensor(0.0 if g is None else g, dtype=dtype) for g in found], (), dtype)
        if isinstance(x, torch.Tensor) and x.dtype != torch.bool:
            zero = zeros_of(x)
            return _stack([_vec(zero if g is None else g) for g in found], (x.numel(),), zero.dtype)
        return None

    matrices = [matrix(i, x) for i, x in enumerate(xs)]
    return NamedTuple.of({"val": y, "grad": tuple(matrices) if ps is None else Grads(matrices, ps.copy())})


def _stack(rows: list[torch.Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.stack(rows) if rows else torch.zeros((0, *shape), dtype=dtype)


def _is_number(x: Any) -> bool:
    """A number, or what stands for one inside another gradient."""
    return (isinstance(x, (int, float, complex)) and not isinstance(x, bool)) or getattr(x, "number", False)


def _vec(x: torch.Tensor) -> torch.Tensor:
    return reversed_axes(x).reshape(-1)


def hessian(f: Callable[[Any], Any], x: Any) -> Any:
    """The matrix of second derivatives of `f(x)`, a real number, by `x`, a number or an array of `n` elements.

    For an array the result is `(n, n)`, its elements counted column-major; for a number a float.

    >>> hessian(lambda x: x[0] * x[1], [1.0, 2.0])
    tensor([[0., 1.],
            [1., 0.]])
    >>> hessian(lambda x: x**3, 2)
    12.0
    """
    x = array(x)
    if _is_number(x) and not isinstance(x, complex):
        return _number_or_zero(gradient(lambda v: _partial(f, 0, v), x)[0])
    if isinstance(x, torch.Tensor):
        return jacobian(lambda v: _partial(f, 0, v), x)[0]
    raise TypeError(f"hessian needs a real number or an array of them, and got {summary(x)}")


def hessian_reverse(f: Callable[[Any], Any], x: Any) -> Any:
    """The same as `hessian`, under the name that Zygote.jl has for doing it in reverse mode twice.

    >>> hessian_reverse(lambda x: x**3, 2)
    12.0
    """
    return hessian(f, x)


def diaghessian(f: Callable[..., Any], *args: Any) -> tuple[Any, ...]:
    """The diagonal of the Hessian of `f(*args)`, a real number, by each argument, in that argument's shape.

    A number gives a float, anything but numbers and arrays None.

    >>> diaghessian(lambda x: (x**3).sum(), [[1.0, 2.0], [3.0, 4.0]])
    (tensor([[ 6., 12.],
            [18., 24.]]),)
    """

    def diagonal(i: int, x: Any) -> Any:
        def partial(v: Any) -> Any:
            return _partial(f, i, *args[:i], v, *args[i + 1 :])

        x = array(x)
        if isinstance(x, complex) or (isinstance(x, torch.Tensor) and x.is_complex()):
            raise TypeError(f"diaghessian needs real numbers and arrays of them, and got {summary(x)}")
        if _is_number(x):
            return _number_or_zero(gradient(partial, x)[0])
        if isinstance(x, torch.Tensor) and x.dtype != torch.bool:
            _, back = pullback(lambda v: _vec(partial(v)), x)
            zero = zeros_of(x)
            found = [back(seed)[0] for seed in torch.eye(x.numel(), dtype=zero.dtype, device=x.device)]
            flat = _stack([_vec(zero if g is None else g)[k] for k, g in enumerate(found)], (), zero.dtype)
            return reversed_axes(flat.reshape(x.shape[::-1]))
        return None

    return tuple(diagonal(i, x) for i, x in enumerate(args))


def _number_or_zero(grad: Any) -> Any:
    return 0.0 if grad is None else grad


def _partial(f: Callable[..., Any], i: int, *args: Any) -> Any:
    """The gradient of `f(*args)` by the argument `i`, zero where `f` doesn't depend on it."""
    grad = gradient(f, *args)[i]
    if grad is not None:
        return grad
    return torch.zeros((), dtype=torch.float64) if _is_number(args[i]) else zeros_of(args[i])


def ignore_derivatives(x: Any) -> Any:
    """Calls the function `x` without recording, or gives `x` itself cut from its graph: no gradient goes through.

    >>> gradient(lambda x: x * ignore_derivatives(lambda: x**2), 3.0)
    (9.0,)
    >>> gradient(lambda x: x * ignore_derivatives(x), 3.0)
    (3.0,)
    """
    if isinstance(x, (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial)):
        with torch.no_grad():
            x = x()
    return dropgrad(x)


ignore = ignore_derivatives


def dropgrad(x: Any) -> Any:
    """`x`, a number, a tensor or a structure of them, as a constant: no gradient goes through it.

    >>> gradient(lambda x: x * dropgrad(x), 3.0)
    (3.0,)
    """
    return fmap(lambda v: v.detach() if isinstance(v, torch.Tensor) else v, x)


def hook(f: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """`x`, whose gradient becomes `f` of what it would have been. Raises `TypeError` if `f` is no function.

    >>> gradient(lambda x: (2 * hook(torch.neg, x)).sum(), torch.ones(2))
    (tensor([-2., -2.]),)
    """
    if not callable(f):
        raise TypeError(f"hook needs a function of the gradient as its first argument, and got {summary(f)}")
    if not isinstance(x, torch.Tensor) or not x.requires_grad:
        return x
    y = x.view_as(x)
    y.register_hook(f)
    return y


def checkpointed(f: Callable[..., Any], *xs: Any) -> Any:
    """`f(*xs)`, keeping nothing for the gradient: the call is repeated then. Saves memory, costs time.

    Random numbers are the same the second time. `f` must not change anything else.

    >>> gradient(lambda x: checkpointed(lambda v: v**3, x), 2.0)
    (12.0,)
    """
    token, active = scope(), within_gradient()

    def again(*args: Any) -> Any:
        # On a GPU the repetition runs in a thread of torch's own, which knows of no gradient.
        if active and not within_gradient():
            with differentiating(token):
                return f(*args)
        return f(*args)

    return checkpoint(again, *xs, use_reentrant=False)


def non_differentiable(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` as a function whose result is a constant for `gradient` (a decorator).

    >>> @non_differentiable
    ... def scale(x):
    ...     return 10 * x
    >>> gradient(lambda x: x * scale(x), 2.0)
    (20.0,)
    """

    @functools.wraps(f)
    def constant(*args: Any, **kwargs: Any) -> Any:
        with torch.no_grad():
            return dropgrad(f(*args, **kwargs))

    return constant
