"""Gradients of functions of their arguments: a tuple with one entry per argument, each of its shape."""

from __future__ import annotations

import dataclasses
import functools
import threading
import types
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from fluxtorch.arrays import array, summary
from fluxtorch.functors import _items, _like, children, fmap, functor, isleaf, trainable
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.zygote.scope import differentiating, nested
from fluxtorch.zygote.tracked import Tracked, untracked

__all__ = ["Lifted", "borrow", "check_loss", "collect", "differentiate", "is_scalar", "lift", "value_of"]


class Lifted:
    """The tensors to differentiate by, in order, and those whose `requires_grad` is switched on meanwhile."""

    __slots__ = ("above", "borrowed", "leaves", "seen")

    def __init__(self) -> None:
        self.leaves: list[torch.Tensor] = []
        self.borrowed: list[torch.Tensor] = []
        self.seen: set[int] = set()
        self.above: set[int] = set()

    def add(self, x: torch.Tensor) -> int:
        self.leaves.append(x)
        return len(self.leaves) - 1


@dataclasses.dataclass(frozen=True)
class _Number:
    """The place of a number's gradient, which is a number too."""

    leaf: int


def lift(x: Any, to: Lifted) -> tuple[Any, Any]:
    """`x` with tracked stand-ins for its numbers and tensors, and a map of where their gradients belong.

    Layers are passed as they are: they may change their state, and their parameters are what is
    tracked. The map has the structure of `x`, with the number of a leaf, or None, at each place.
    """
    if isinstance(x, nn.Module):
        return x, module_map(x, to)
    x = array(x)
    if isinstance(x, torch.Tensor):
        return _lift_tensor(x, to)
    if isinstance(x, (int, float, complex)) and not isinstance(x, bool):
        base = torch.tensor(x, dtype=torch.complex128 if isinstance(x, complex) else torch.float64, requires_grad=True)
        return Tracked.of(base, number=True, whole=isinstance(x, int)), _Number(to.add(base))
    if isleaf(x) or id(x) in to.above:
        return x, None
    kids, rebuild = functor(x)
    to.above.add(id(x))
    pairs = [lift(kid, to) for _, kid in _items(kids)]
    to.above.discard(id(x))
    where = _like(kids, [place for _, place in pairs])
    if all(new is kid for (new, _), (_, kid) in zip(pairs, _items(kids), strict=True)):
        return x, where
    return rebuild(_like(kids, [new for new, _ in pairs])), where


def _lift_tensor(x: torch.Tensor, to: Lifted) -> tuple[Any, Any]:
    if x.dtype == torch.bool:
        return x, None
    if isinstance(x, Tracked):
        # Inside another gradient: an alias, so that this call's variable is its own.
        alias = x.as_subclass(torch.Tensor).view_as(x)
        place: Any = to.add(alias)
        return Tracked.of(alias, x.number, x.whole, x.integers), _Number(place) if x.number else place
    if not (x.is_floating_point() or x.is_complex()):
        base = x.to(torch.get_default_dtype(), copy=True).requires_grad_()
        return Tracked.of(base, number=False, whole=True, integers=x.as_subclass(torch.Tensor)), to.add(base)
    if isinstance(x, nn.Parameter) and x.requires_grad and x.is_leaf:
        return x, _known(x, to)
    if x.is_inference():
        x = x.clone()
    if x.requires_grad and nested():
        x = x.view_as(x)
    else:
        x = x.detach().requires_grad_()
    return x, to.add(x)


def module_map(x: Any, to: Lifted) -> Any:
    """Where the gradients of a layer's parameters belong: a named tuple of its fields, and so on down.

    What isn't trained (buffers, state, frozen parameters) has no gradient. A tied tensor has its
    whole gradient at its first place.
    """
    if isinstance(x, torch.Tensor):
        if not (x.is_floating_point() or x.is_complex()) or isinstance(x, Tracked):
            return None
        if isinstance(x, nn.Parameter) and not x.requires_grad:
            return None
        if not x.requires_grad and x.is_leaf and not x.is_inference() and id(x) not in to.seen:
            to.borrowed.append(x)
        return _known(x, to)
    if isleaf(x) or id(x) in to.above:
        return None
    kids = children(x)
    chosen = trainable(x)
    to.above.add(id(x))
    if chosen is kids or not isinstance(kids, NamedTuple):
        values = [module_map(kid, to) for _, kid in _items(chosen)]
    else:
        names = chosen.keys()
        values = [module_map(kid, to) if name in names else None for name, kid in _items(kids)]
    to.above.discard(id(x))
    return _like(kids, values)


def _known(x: torch.Tensor, to: Lifted) -> int | None:
    if id(x) in to.seen:
        return None
    to.seen.add(id(x))
    return to.add(x)


def collect(where: Any, grads: list[torch.Tensor | None] | tuple[torch.Tensor | None, ...]) -> Any:
    """The gradients at their places; None for a branch in which there is none."""
    if where is None:
        return None
    if type(where) is int:
        return grads[where]
    if type(where) is _Number:
        grad = grads[where.leaf]
        if grad is None:
            return None
        if grad.is_complex():
            return Tracked.of(grad, number=True, whole=False) if grad.requires_grad else grad.item()
        return Tracked.of(grad, number=True, whole=False) if nested() else float(grad.detach())
    values = [collect(place, grads) for _, place in _items(where)]
    return None if all(value is None for value in values) else _like(where, values)


def differentiate(
    y: Any, leaves: list[torch.Tensor], seed: torch.Tensor | None = None, keep: bool = False
) -> tuple[torch.Tensor | None, ...]:
    """The gradient of the tensor `y`, seeded with `seed`, by each of `leaves`; None where `y` doesn't depend on one."""
    if not leaves or not isinstance(y, torch.Tensor) or not y.requires_grad:
        return (None,) * len(leaves)
    if isinstance(y, Tracked):
        y = y.as_subclass(torch.Tensor)
    again = nested()
    return torch.autograd.grad(
        y, leaves, seed, retain_graph=True if keep or again else None, create_graph=again, allow_unused=True
    )


def is_scalar(y: Any) -> bool:
    """Is `y` a real number, as a loss must be?"""
    if isinstance(y, torch.Tensor):
        return y.ndim == 0 and not y.is_complex()
    return isinstance(y, (int, float))


def check_loss(y: Any, leaves: list[torch.Tensor]) -> None:
    """Raises `TypeError` if `y` is no loss; warns if it was made a plain number, which has no gradient."""
    if not is_scalar(y):
        hint = "; for an array of results there is jacobian" if isinstance(y, torch.Tensor) else ""
        complex_ = isinstance(y, complex) or (isinstance(y, torch.Tensor) and y.is_complex())
        raise TypeError(
            f"gradient needs a loss that is one real number, and the function returned {summary(y)}"
            f"{' (complex)' if complex_ else ''}{hint}"
        )
    if leaves and type(y) is float:
        warnings.warn(
            "the function returned a plain Python float, so there is nothing to differentiate: every gradient is None. "
            "Was the loss made a number by float(), .item() or the math module?",
            stacklevel=4,
        )


def value_of(y: Any) -> Any:
    """What `withgradient` and `pullback` give back of `f`'s result: the same, cut from its graph and from parameters."""
    if nested():
        return y
    return fmap(lambda v: _value(v) if isinstance(v, torch.Tensor) else v, y, exclude=_is_value)


def _is_value(x: Any) -> bool:
    return isleaf(x) or isinstance(x, (nn.Module, types.FunctionType, types.MethodType, functools.partial))


def _value(y: torch.Tensor) -> Any:
    # Only a result of an operation is nobody else's; what may be a parameter or its view is copied.
    own = y.grad_fn is not None and y._base is None and not isinstance(y, Tracked)
    return untracked(y) if own or isinstance(y, Tracked) else y.detach().clone()


_borrowed: dict[int, tuple[torch.Tensor, int]] = {}
_lock = threading.Lock()


class borrow:
    """`with borrow(tensors):` has their `requires_grad` on, and off again after the last of those who borrowed them."""

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._tensors = list(tensors)

    def __enter__(self) -> None:
        if self._tensors:
            with _lock:
                for x in self._tensors:
                    _, count = _borrowed.get(id(x), (x, 0))
                    x.requires_grad_(True)
                    _borrowed[id(x)] = (x, count + 1)

    def __exit__(self, *exc: Any) -> None:
        if self._tensors:
            with _lock:
                for x in self._tensors:
                    _, count = _borrowed.pop(id(x))
                    if count > 1:
                        _borrowed[id(x)] = (x, count - 1)
                    else:
                        x.requires_grad_(False)


def explicit_gradient(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
    with differentiating():
        lifted, inputs, places = _lift_all(args)
        with borrow(lifted.borrowed):
            y = f(*inputs)
            check_loss(y, lifted.leaves)
            grads = differentiate(y, lifted.leaves)
            return tuple(collect(place, grads) for place in places)


def explicit_withgradient(f: Callable[..., Any], args: tuple[Any, ...]) -> NamedTuple:
    with differentiating():
        lifted, inputs, places = _lift_all(args)
        with borrow(lifted.borrowed):
            y = f(*inputs)
            loss = first_of(y)
            check_loss(loss, lifted.leaves)
            grads = differentiate(loss, lifted.leaves)
            return NamedTuple.of({"val": value_of(y), "grad": tuple(collect(place, grads) for place in places)})


def first_of(y: Any) -> Any:
    """The loss among what `f` returned: the first entry of a tuple or named tuple."""
    if isinstance(y, (tuple, NamedTuple)):
        if not len(y):
            raise TypeError("withgradient needs a loss, and the function returned an empty tuple")
        return y[0]
    return y


def explicit_pullback(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    with differentiating():
        lifted, inputs, places = _lift_all(args)
        with borrow(lifted.borrowed):
            y = f(*inputs)
        value = value_of(y)
    back = back_of(y, lifted.leaves, lifted.borrowed)
    return value, lambda seed: tuple(collect(place, back(seed)) for place in places)


def back_of(
    y: Any, leaves: list[torch.Tensor], borrowed: list[torch.Tensor]
) -> Callable[[Any], tuple[torch.Tensor | None, ...]]:
    """The function that takes a seed of `y`'s structure back to the gradients by `leaves`."""

    def back(seed: Any) -> tuple[torch.Tensor | None, ...]:
        outputs: list[torch.Tensor] = []
        seeds: list[torch.Tensor] = []

        def pair(out: Any, dout: Any) -> None:
            if dout is None or out is None:
                return
            if isinstance(out, torch.Tensor):
                dout = array(dout)
                out = out.as_subclass(torch.Tensor) if isinstance(out, Tracked) else out
                dout = torch.as_tensor(dout, dtype=out.dtype, device=out.device)
                if dout.shape != out.shape:
                    raise TypeError(f"the pullback needs a seed like its result, {summary(out)}, and got {summary(dout)}")
                if out.requires_grad:
                    outputs.append(out)
                    seeds.append(dout)
            elif not isleaf(out):
                if type(out) is list and isinstance(dout, torch.Tensor):
                    dout = list(dout)
                fmap(pair, out, dout, exclude=lambda v: isinstance(v, torch.Tensor) or isleaf(v), cache=None)

        if isinstance(seed, (list, tuple)) and isinstance(y, (list, tuple)):
            for out, dout in zip(y, seed, strict=True):
                pair(out, dout)
        else:
            pair(y, seed)
        if not outputs or not leaves:
            return (None,) * len(leaves)
        with differentiating(), borrow(borrowed):
            return torch.autograd.grad(
                outputs, leaves, seeds, retain_graph=True, create_graph=nested(), allow_unused=True
            )

    return back


def _lift_all(args: tuple[Any, ...]) -> tuple[Lifted, list[Any], list[Any]]:
    lifted = Lifted()
    pairs = [lift(arg, lifted) for arg in args]
    return lifted, [x for x, _ in pairs], [place for _, place in pairs]
