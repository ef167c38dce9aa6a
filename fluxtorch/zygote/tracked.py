"""Stand-ins for what torch can't differentiate: Python's numbers, and arrays of integers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from typing_extensions import Self

__all__ = ["Literals", "Tracked", "float_of", "is_whole", "raw", "untracked", "zeros_of"]

# Properties of torch's graph, which integers have none of.
_OF_THE_GRAPH = frozenset(("requires_grad", "grad_fn", "grad", "is_leaf", "retains_grad", "_base", "output_nr"))
# Step functions, for which torch has no derivative.
_STEPS = frozenset(
    ("floor_divide", *(f"__{op}__" for op in ("floordiv", "rfloordiv", "lshift", "rshift", "rlshift", "rrshift")))
)
# torch has no derivative of these by the divisor.
_REMAINDERS = frozenset(("remainder", "__mod__", "__rmod__"))
_OPERATORS = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_IN_PLACE = frozenset(f"__i{op}__" for op in (*_OPERATORS, "and", "or", "xor", "lshift", "rshift"))
_FAILURES = (TypeError, IndexError, RuntimeError, ValueError)


class Tracked(torch.Tensor):
    """A number, or an array of integers, inside `gradient`.

    Whole numbers are what they are (an index, a size, a key; `x.dtype` is int64), and carry with
    them the float tensor `graph`, which the operations on them are done to as well. Any other number
    is a float tensor with torch's graph itself. A number changes by rebinding: `n -= 1`.
    """

    number: bool
    graph: torch.Tensor | None

    @classmethod
    def of(cls, graph: torch.Tensor, number: bool, integers: torch.Tensor | None = None) -> Self:
        """A stand-in with the graph of `graph`, for the number, or the array, `integers` if they are whole."""
        if number and integers is not None and not -(2.0**63) <= graph.item() < 2.0**63:
            integers = None
        new = (graph if integers is None else integers).as_subclass(cls)
        new.number, new.graph = number, None if integers is None else graph
        return new

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            return _call(func, args, kwargs or {})

    def __iter__(self) -> Any:
        return iter(self.unbind(0))

    def __divmod__(self, other: Any) -> tuple[Any, Any]:
        return self // other, self % other

    def __round__(self, ndigits: int | None = None) -> Any:
        return round(untracked(self)) if self.number and ndigits is None else torch.round(self, decimals=ndigits or 0)

    def conjugate(self) -> Any:
        return self.conj()

    @property
    def imag(self) -> Any:  # type: ignore[override]  # of a real number, where torch has none
        return torch.imag(self) if self.is_complex() else 0 * self

    def __deepcopy__(self, memo: Any) -> Any:
        return self.clone()

    def __hash__(self) -> int:
        return hash(untracked(self)) if self.number else id(self)


def _rebinding(op: str) -> Any:
    def operation(self: Tracked, other: Any) -> Any:
        return getattr(self, f"__{op}__")(other) if self.number else getattr(torch.Tensor, f"__i{op}__")(self, other)

    return operation


# `n -= 1` gives a number a new value; the value that somebody else holds stays.
for _op in _OPERATORS:
    if hasattr(torch.Tensor, f"__i{_op}__"):
        setattr(Tracked, f"__i{_op}__", _rebinding(_op))


def is_whole(x: torch.Tensor) -> bool:
    """Is `x` an array of integers or bools?"""
    return not (x.is_floating_point() or x.is_complex())


def float_of(x: torch.Tensor) -> torch.dtype:
    """The element type of a gradient by the array `x`."""
    return torch.get_default_dtype() if is_whole(x) else x.dtype


def zeros_of(x: torch.Tensor) -> torch.Tensor:
    """The gradient by `x` of what doesn't depend on it."""
    return torch.zeros(x.shape, dtype=float_of(x), device=x.device)


def raw(x: Any) -> Any:
    """The tensor with torch's graph for which `x` stands; anything else as it is."""
    if not isinstance(x, Tracked):
        return x
    return x.as_subclass(torch.Tensor) if x.graph is None else x.graph


def untracked(x: Any) -> Any:
    """`x` without its graph: a Python number where `x` stands for one, else a detached tensor."""
    if not isinstance(x, Tracked):
        return x.detach()
    with torch._C.DisableTorchFunctionSubclass():
        return x.item() if x.number else x.detach().as_subclass(torch.Tensor)


def _call(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = func.__self__.__name__  # type: ignore[attr-defined]
    operands = [x for x in _flat((args, kwargs)) if isinstance(x, torch.Tensor)]
    number = all(isinstance(x, Tracked) and x.number for x in operands)
    if name in ("__repr__", "__format__"):
        return (repr if name == "__repr__" else format)(untracked(args[0]), *args[1:])
    if name in _IN_PLACE or name == "__setitem__" or (name.endswith("_") and not name.endswith("__")):
        return _in_place(func, args, kwargs, operands)
    integers = None
    if name not in _OF_THE_GRAPH and all(map(is_whole, operands)):
        try:
            integers = func(*args, **kwargs)
        except _FAILURES:
            pass  # such as the mean, which integers don't have
        else:
            if not any(isinstance(x, torch.Tensor) for x in _flat(integers)):
                return integers  # item, shape, dtype and the like
    if name in _REMAINDERS:
        a, b = map(_graph, args[::-1] if name == "__rmod__" else args)
        return _wrapped(a - (_detached(a) // _detached(b)) * b, number, integers)
    kinds = [x.dtype for x in operands if not is_whole(x)] or [torch.get_default_dtype()]

    def of_one_kind(x: Any) -> Any:  # as a product of matrices wants them
        return _graph(x).to(kinds[0]) if isinstance(x, torch.Tensor) and is_whole(x) and x.dtype != torch.bool else x

    views = [_detached_graph] if name in _STEPS else [_graph, of_one_kind, _graph_of_array, _itself]
    try:
        result = _attempt(func, args, kwargs, *views)
    except _FAILURES:
        if integers is None:
            raise
        result = integers.double() if number and isinstance(integers, torch.Tensor) else integers
    return _wrapped(result, number, integers)


def _attempt(func: Callable[..., Any], args: Any, kwargs: Any, *views: Callable[[Any], Any]) -> Any:
    """`func` of the first view of its arguments that it takes."""
    error: Exception | None = None
    for view in views:
        try:
            return func(*_each(view, args), **_each(view, kwargs))
        except _FAILURES as e:
            error = error or e
    raise error or AssertionError


def _in_place(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], operands: list[torch.Tensor]
) -> Any:
    target = args[0]
    if not isinstance(target, Tracked):
        return _attempt(func, args, kwargs, _graph, _graph_of_array, _itself)
    result = _attempt(func, args, kwargs, _graph, _graph_of_array)
    if target.graph is None:
        return result
    func(*_each(_plain, args), **_each(_plain, kwargs))
    return target if isinstance(result, torch.Tensor) else result


def _graph(x: Any) -> Any:
    return x.graph if isinstance(x, Tracked) and x.graph is not None else x


def _detached(x: Any) -> Any:
    return x.detach() if isinstance(x, torch.Tensor) else x


def _detached_graph(x: Any) -> Any:
    return _detached(_graph(x))


def _itself(x: Any) -> Any:
    return x.item() if isinstance(x, Tracked) and x.number and x.graph is not None else x


def _graph_of_array(x: Any) -> Any:
    return _itself(x) if isinstance(x, Tracked) and x.number else _graph(x)


def _plain(x: Any) -> Any:
    return x.detach() if isinstance(x, Tracked) and x.graph is None else x


def _wrapped(x: Any, number: bool, integers: Any) -> Any:
    """The result `x` of an operation, with the integers that it stands for if they are known."""
    if isinstance(x, torch.Tensor):
        whole = integers if isinstance(integers, torch.Tensor) and is_whole(integers) else None
        if is_whole(x):
            return x if whole is None else whole
        if number and x.ndim == 0:
            return Tracked.of(x, True, None if whole is None or whole.dtype == torch.bool else whole)
        if whole is None:
            return x.as_subclass(torch.Tensor) if isinstance(x, Tracked) else x
        return Tracked.of(x, False, whole) if x.requires_grad else whole
    if isinstance(x, (tuple, list)) and (type(x) in (tuple, list) or hasattr(type(x), "n_sequence_fields")):
        parts = integers if integers is not None else [None] * len(x)
        return type(x)([_wrapped(v, number, i) for v, i in zip(x, parts, strict=True)])
    return x


def _flat(x: Any) -> list[Any]:
    if type(x) is dict:
        x = tuple(x.values())
    if isinstance(x, (tuple, list)):
        return [v for item in x for v in _flat(item)]
    return [x.start, x.stop, x.step] if type(x) is slice else [x]


def _each(f: Callable[[Any], Any], x: Any) -> Any:
    """`x`, the arguments of a call, with `f` applied to each of them, in lists, tuples, dicts and slices too."""
    if type(x) in (tuple, list):
        return type(x)([_each(f, v) for v in x])
    if type(x) is dict:
        return {k: _each(f, v) for k, v in x.items()}
    return slice(f(x.start), f(x.stop), f(x.step)) if type(x) is slice else f(x)


class Literals(TorchFunctionMode):
    """While active, an array written down with numbers of `gradient` in it keeps their graph: `tensor([1, x])`."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "tensor" and any(isinstance(x, Tracked) for x in _flat(args[:1])):
            like = func(_each(lambda x: untracked(x) if isinstance(x, Tracked) else x, args[0]), **kwargs)
            stacked = _stacked(args[0], torch.get_default_dtype() if is_whole(like) else like.dtype, like.device)
            return Tracked.of(raw(stacked), False, like) if is_whole(like) else stacked
        if name in ("full", "full_like", "new_full") and isinstance(
            value := kwargs.get("fill_value", args[-1]), Tracked
        ):
            given = {k: 1 if x is value else x for k, x in kwargs.items()}
            return func(*[1 if x is value else x for x in args], **given) * value
        return func(*args, **kwargs)


def _stacked(x: Any, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The numbers `x`, in nested lists, as an array of floats."""
    if isinstance(x, (list, tuple)):
        return torch.stack([_stacked(v, dtype, device) for v in x])
    return raw(x).to(device, dtype) if isinstance(x, torch.Tensor) else torch.tensor(x, dtype=dtype, device=device)
