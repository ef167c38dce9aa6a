"""Stand-ins for what torch can't differentiate: Python's numbers, and arrays of integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from typing_extensions import Self

__all__ = ["Tracked", "untracked"]

# Operations after which whole numbers are still whole.
_WHOLE = frozenset(
    "add sub rsub mul neg abs positive pow floor_divide remainder sum prod max min amax amin maximum minimum "
    "__add__ __radd__ __sub__ __rsub__ __mul__ __rmul__ __neg__ __abs__ __pos__ __floordiv__ __rfloordiv__ __mod__ "
    "__rmod__ __pow__ __rpow__ __getitem__ view reshape permute transpose t flatten squeeze unsqueeze expand expand_as "
    "clone contiguous cat stack concat hstack vstack repeat flip roll movedim swapaxes index_select select narrow "
    "unbind split chunk detach diagonal ravel unflatten broadcast_to cumsum clamp clip square __get__".split()
)
# What must see the integers, because it would not fail on floats but answer otherwise.
_INTEGERS_FIRST = frozenset(
    "item tolist numpy __array__ __int__ __index__ __format__ __repr__ __str__ long int short type dtype "
    "is_floating_point bincount one_hot __and__ __or__ __xor__ __invert__ __lshift__ __rshift__".split()
)


class Tracked(torch.Tensor):
    """A number, or an array of integers, inside `gradient`: a float tensor with torch's graph, used as what it stands for.

    A number changes by rebinding (`n -= 1`) and an int is an index wherever it still is a whole
    number; an array of integers gives its integers to whatever takes no floats (indexing, embeddings).
    """

    number: bool
    whole: bool
    integers: torch.Tensor | None

    @classmethod
    def of(cls, x: torch.Tensor, number: bool, whole: bool, integers: torch.Tensor | None = None) -> Self:
        new = x.as_subclass(cls)
        new.number, new.whole, new.integers = number, whole, integers
        return new

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return cls._property(func, args)
        with torch._C.DisableTorchFunctionSubclass():
            if name in _INTEGERS_FIRST and isinstance(args[0], Tracked) and args[0].whole:
                return func(*_integers(args), **_integers(kwargs))
            try:
                result = func(*args, **kwargs)
            except (TypeError, IndexError, RuntimeError, ValueError):
                if not _any_whole(args, kwargs):
                    raise
                return func(*_integers(args), **_integers(kwargs))
        if not isinstance(result, (torch.Tensor, tuple, list)):
            return result
        operands = [a for a in _flat((args, kwargs)) if isinstance(a, torch.Tensor)]
        number = all(isinstance(a, Tracked) and a.number for a in operands)
        whole = name in _WHOLE and all(
            a.whole if isinstance(a, Tracked) else not isinstance(a, (float, complex, torch.Tensor))
            for a in _flat((args, kwargs))
        )
        if name in ("pow", "__pow__", "__rpow__") and whole:
            whole = all(not isinstance(a, (int, torch.Tensor)) or bool((a >= 0).all() if isinstance(a, torch.Tensor) else a >= 0) for a in args[1:])
        if not number and not whole:
            return result
        return _wrap(result, number, whole)

    @classmethod
    def _property(cls, func: Any, args: tuple[Any, ...]) -> Any:
        x = args[0]
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args)
        if isinstance(result, torch.dtype) and x.whole:
            return torch.int64
        return _wrap(result, x.number, x.whole) if isinstance(result, torch.Tensor) else result

    def __index__(self) -> int:
        if self.whole:
            with torch._C.DisableTorchFunctionSubclass():
                value = self.detach().item()
            if value == int(value):
                return int(value)
        raise TypeError("only a whole number can be an index")

    def __hash__(self) -> int:
        return id(self)


def _rebinding(name: str, plain: str) -> Any:
    def operation(self: Tracked, other: Any) -> Any:
        if self.number:
            return getattr(self, plain)(other)
        return getattr(torch.Tensor, name)(self, other)

    operation.__name__ = name
    return operation


# `n -= 1` gives a number a new value; the value that somebody else holds stays.
for _op in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow"):
    if hasattr(torch.Tensor, f"__i{_op}__"):
        setattr(Tracked, f"__i{_op}__", _rebinding(f"__i{_op}__", f"__{_op}__"))


def untracked(x: Any) -> Any:
    """`x` without its graph: a Python number where `x` stands for one, else a detached tensor."""
    if isinstance(x, Tracked):
        with torch._C.DisableTorchFunctionSubclass():
            if x.number:
                value = x.detach().item()
                return int(value) if x.whole and value == int(value) else value
            plain = x.detach().as_subclass(torch.Tensor)
            return plain.round().long() if x.whole else plain
    return x.detach()


def _wrap(x: Any, number: bool, whole: bool) -> Any:
    if isinstance(x, torch.Tensor):
        return Tracked.of(x, number and x.ndim == 0, whole) if x.is_floating_point() else x
    if type(x) in (tuple, list):
        return type(x)(_wrap(v, number, whole) for v in x)
    return x


def _flat(x: Any) -> list[Any]:
    if type(x) in (tuple, list):
        return [v for item in x for v in _flat(item)]
    return [v for item in x.values() for v in _flat(item)] if type(x) is dict else [x]


def _any_whole(*xs: Any) -> bool:
    return any(isinstance(x, Tracked) and x.whole for x in _flat(list(xs)))


def _integers(x: Any) -> Any:
    """`x` with the integers in the place of what stands for them."""
    if isinstance(x, Tracked):
        if not x.whole:
            return x.as_subclass(torch.Tensor)
        if x.integers is not None:
            return x.integers
        return untracked(x)
    if type(x) in (tuple, list):
        return type(x)(map(_integers, x))
    return {k: _integers(v) for k, v in x.items()} if type(x) is dict else x
