"""Implicit gradients: of a function without arguments, by the tensors of a `Params`, looked up by identity."""

from __future__ import annotations

import operator
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from typing_extensions import Self

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.functors import _items, isleaf, trainable
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.printing import show
from fluxtorch.zygote.explicit import Lifted, back_of, check_loss, first_of, value_of
from fluxtorch.zygote.scope import differentiating
from fluxtorch.zygote.tracked import Tracked, float_of, is_whole, zeros_of

__all__ = ["Grads", "Params", "params"]


class Params:
    """An ordered set of tensors by identity, to take implicit gradients by: `Params([W, b])`.

    Two tensors of equal values are two members; one tensor under two names is one. Has the operators
    of sets: `|`, `&`, `-`, `in`. Raises `TypeError` for a member that is no tensor.

    >>> W, b = torch.ones(1, 2), torch.zeros(1)
    >>> ps = Params([W, b])
    >>> W in ps, torch.ones(1, 2) in ps, len(ps)
    (True, False, 2)
    >>> ps
    Params([[1.0 1.0], [0.0]])
    """

    def __init__(self, xs: Iterable[torch.Tensor] = ()) -> None:
        # The tensors are held, so that no other can come to have the id of one of them.
        self._members: dict[int, torch.Tensor] = {}
        self.union_(xs)

    def __reduce__(self) -> Any:
        return Params, (list(self),)  # in a copy, or read from a file, the ids are others

    def push_(self, *xs: torch.Tensor) -> Self:
        """Adds tensors at the end; those already there stay where they are."""
        for x in xs:
            if not isinstance(x, torch.Tensor):
                raise TypeError(f"Params holds tensors, by identity, and got {summary(x)}")
        for x in xs:
            self._members.setdefault(id(x), x)
        return self

    def delete_(self, *xs: torch.Tensor) -> Self:
        """Takes tensors out; those that are no members are ignored."""
        for x in xs:
            self._members.pop(id(x), None)
        return self

    def union_(self, *others: Iterable[torch.Tensor]) -> Self:
        """Adds the tensors of `others`."""
        for other in others:
            if isinstance(other, torch.Tensor) or not isinstance(other, Iterable):
                hint = "" if isinstance(other, torch.Tensor) else "; those of a model are params(model)"
                raise TypeError(
                    f"Params takes a collection of tensors, as in Params([W]), and got a {summary(other)}{hint}"
                )
            self.push_(*other)
        return self

    def union(self, *others: Iterable[torch.Tensor]) -> Params:
        """These tensors and those of `others`."""
        return self.copy().union_(*others)

    def intersect_(self, *others: Iterable[torch.Tensor]) -> Self:
        """Keeps the tensors that are in each of `others`."""
        for other in others:
            kept = {id(x) for x in other}
            self._members = {key: x for key, x in self._members.items() if key in kept}
        return self

    def intersect(self, *others: Iterable[torch.Tensor]) -> Params:
        """The tensors that are here and in each of `others`."""
        return self.copy().intersect_(*others)

    def issetequal(self, other: Iterable[torch.Tensor]) -> bool:
        """True if `other` has the same tensors, in whatever order."""
        return self._members.keys() == {id(x) for x in other}

    def copy(self) -> Params:
        """Another set of the same tensors."""
        new = object.__new__(Params)
        new._members = dict(self._members)
        return new

    def copy_(self, x: torch.Tensor) -> Self:
        """Writes the vector `x` into the tensors, one after the other, column-major. Raises `ValueError` for sizes."""
        with torch.no_grad():
            for p, part in _parts(self, x):
                p.copy_(part)
        return self

    def __or__(self, other: Iterable[torch.Tensor]) -> Params:
        return self.union(other)

    def __and__(self, other: Iterable[torch.Tensor]) -> Params:
        return self.intersect(other)

    def __sub__(self, other: Iterable[torch.Tensor]) -> Params:
        return self.copy().delete_(*other)

    def __ior__(self, other: Iterable[torch.Tensor]) -> Self:
        return self.union_(other)

    def __contains__(self, x: Any) -> bool:
        return id(x) in self._members

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(list(self._members.values()))

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, i: int | slice) -> Any:
        return list(self._members.values())[i]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Params) and list(self._members) == list(other._members)

    __hash__ = None  # type: ignore[assignment]  # it can change

    def __repr__(self) -> str:
        return "Params([" + ", ".join(map(show, self)) + "])"


def _parts(ps: Params, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Each tensor of `ps` with its part of the vector `x`."""
    sizes = [p.numel() for p in ps]
    if x.shape != (sum(sizes),):
        raise ValueError(f"copy_ needs a vector of {sum(sizes)} elements, and got {summary(x)}")
    return [(p, reversed_axes(part.reshape(p.shape[::-1]))) for p, part in zip(ps, x.split(sizes), strict=True)]


class Grads(Mapping[torch.Tensor, Any]):
    """The result of an implicit gradient: `gs[W]` is the gradient by the tensor `W`, or None if `W` was not used.

    Iterates over the tensors in the order of their `Params`. Sums and differences go tensor by
    tensor, products and quotients take a number; a gradient that is None counts as zeros in them. Raises
    `KeyError` for a tensor that was not in the `Params`.

    >>> W = torch.tensor([3.0])
    >>> gs = gradient(lambda: (W**2).sum(), params(W))
    >>> gs[W], W in gs
    (tensor([6.]), True)
    >>> (2 * gs + gs)[W]
    tensor([18.])
    """

    def __init__(self, grads: Iterable[Any], params: Params) -> None:
        self.params = params
        self._grads = dict(zip(params._members, grads, strict=True))

    def __getitem__(self, x: torch.Tensor) -> Any:
        try:
            return self._grads[id(x)]
        except KeyError:
            if not isinstance(x, torch.Tensor):
                raise KeyError(f"gradients are looked up by the tensor itself, not by {summary(x)}") from None
            raise KeyError(
                f"this {summary(x)} was not among the parameters that the gradient was taken by; "
                "they are told apart by identity, so a copy or a view of one is another tensor"
            ) from None

    def __setitem__(self, x: torch.Tensor, grad: Any) -> None:
        self[x]
        self._grads[id(x)] = grad

    def __contains__(self, x: object) -> bool:
        return id(x) in self._grads

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(self.params)

    def __len__(self) -> int:
        return len(self._grads)

    @property
    def grads(self) -> Grads:
        """The gradients by their tensors: `gs` itself. Old programs say `gs.grads[W]`."""
        return self

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __reduce__(self) -> Any:
        return Grads, (list(self.values()), self.params)

    def copy(self) -> Grads:
        """Another `Grads` of the same gradients."""
        return Grads(self.values(), self.params.copy())

    def copy_(self, x: torch.Tensor) -> Self:
        """Replaces the gradients by the numbers in the vector `x`, column-major. Raises `ValueError` for sizes."""
        self._grads = {id(p): part.to(float_of(p), copy=True) for p, part in _parts(self.params, x)}
        return self

    def merge_(self, *others: Grads) -> Self:
        """Adds the tensors of `others` with their gradients, which replace those of tensors that are here too."""
        for other in others:
            self.params.union_(other.params)
            self._grads.update(other._grads)
        return self

    def map(self, f: Callable[..., Any], *others: Mapping[torch.Tensor, Any]) -> Grads:
        """New gradients `f(g, …)`, tensor by tensor; those that are None count as zeros."""
        for other in others:
            if not self.params.issetequal(other.keys()):
                raise ValueError("gradients by different parameters can't be combined")

        def of(p: torch.Tensor) -> Any:
            return f(*[zeros_of(p) if gs[p] is None else gs[p] for gs in (self, *others)])

        return Grads(map(of, self), self.params.copy())

    def map_(self, f: Callable[..., Any], *others: Mapping[torch.Tensor, Any]) -> Self:
        """The same in place: each gradient becomes `f(g, …)`."""
        return self._become(self.map(f, *others))

    def _become(self, other: Grads) -> Self:
        self._grads = other._grads
        return self

    def _with(self, f: Callable[[Any, Any], Any], other: Any) -> Grads:
        return self.map(f, other) if isinstance(other, Mapping) else NotImplemented

    def _scaled(self, f: Callable[[Any, Any], Any], c: Any) -> Grads:
        if isinstance(c, Grads):
            raise TypeError("gradients can be added and subtracted; multiply or divide them by a number")
        return self.map(lambda g: f(g, c))

    def __pos__(self) -> Grads:
        return self.map(operator.pos)

    def __neg__(self) -> Grads:
        return self.map(operator.neg)

    def __add__(self, other: Mapping[torch.Tensor, Any]) -> Grads:
        return self._with(operator.add, other)

    def __sub__(self, other: Mapping[torch.Tensor, Any]) -> Grads:
        return self._with(operator.sub, other)

    def __mul__(self, c: Any) -> Grads:
        return self._scaled(operator.mul, c)

    __rmul__ = __mul__

    def __truediv__(self, c: Any) -> Grads:
        return self._scaled(operator.truediv, c)

    def __iadd__(self, other: Mapping[torch.Tensor, Any]) -> Self:
        return self._become(self + other)

    def __isub__(self, other: Mapping[torch.Tensor, Any]) -> Self:
        return self._become(self - other)

    def __imul__(self, c: Any) -> Self:
        return self._become(self * c)

    def __itruediv__(self, c: Any) -> Self:
        return self._become(self / c)

    def __repr__(self) -> str:
        return "Grads(...)"


def params(*models: Any) -> Params:
    """The trainable tensors of models, layers, structures or iterators of tensors, or functions that capture some.

    Of a function they are all tensors that it captures, also those that are meant as constants. Numbers
    are ignored. A list of numbers is no tensor, so it can't be a parameter: nobody would
    hold the tensor to look its gradient up by. Warns if a function given captures nothing, because
    global variables don't count.

    >>> params(torch.ones(2), nt(a=torch.zeros(1), f=torch.tanh), 3)
    Params([[1.0, 1.0], [0.0]])
    """
    for model in models:
        if isinstance(model, types.FunctionType) and isleaf(model):
            warnings.warn(
                f"params({show(model)}): the function captures no local variables, so it has no parameters. "
                "Global variables don't count: make them locals of an enclosing function, or pass them to params.",
                stacklevel=2,
            )
        if isinstance(model, list) and model and all(type(v) in (int, float) for v in model):
            warnings.warn(
                "params was given a list of numbers, which is no parameter: "
                "make it a tensor that you hold, torch.tensor([…]).",
                stacklevel=2,
            )
    found = Params()
    # What was seen is held: children are made on the fly, and an id is theirs only while they live.
    _find(models, found, {})
    return found


def _find(x: Any, found: Params, seen: dict[int, Any]) -> None:
    if isinstance(x, torch.Tensor):
        if x.dtype != torch.bool and not (isinstance(x, nn.Parameter) and not x.requires_grad):
            found.push_(x)
    elif isinstance(x, (Params, Iterator)):
        for v in x:
            _find(v, found, seen)
    elif id(x) not in seen and not isleaf(x):
        seen[id(x)] = x
        for _, kid in _items(trainable(x)):
            _find(kid, found, seen)


def _follow(ps: Params) -> Lifted:
    """The tensors of `ps` as the leaves of a call."""
    lifted = Lifted()
    for p in ps:
        if is_whole(p):
            base = p.to(torch.get_default_dtype(), copy=True).requires_grad_()
            lifted.standins[id(p)] = (p, Tracked.of(base, False, p))
            lifted.add(base)
        else:
            lifted.add_known(p)
    return lifted


def implicit_gradient(f: Callable[[], Any], ps: Params) -> Grads:
    with differentiating() as call:
        lifted = _follow(ps)
        with lifted.following(call.inference):
            y = f()
            check_loss(y, lifted.leaves)
            return Grads(lifted.gradients(y, call), ps.copy())


def implicit_withgradient(f: Callable[[], Any], ps: Params) -> NamedTuple:
    with differentiating() as call:
        lifted = _follow(ps)
        with lifted.following(call.inference):
            y = f()
            loss = first_of(y)
            check_loss(loss, lifted.leaves)
            grads = Grads(lifted.gradients(loss, call), ps.copy())
            return NamedTuple.of({"val": value_of(y), "grad": grads})


def implicit_pullback(f: Callable[[], Any], ps: Params) -> tuple[Any, Callable[[Any], Grads]]:
    with differentiating() as call:
        lifted = _follow(ps)
        with lifted.following(call.inference):
            y = f()
        value = value_of(y)
        back = back_of(y, lifted, call)

    def pull(seed: Any) -> Grads:
        with differentiating():
            return Grads(back(seed), ps.copy())

    return value, pull


# `torch.load` builds nothing that it wasn't told of, and Flux 0.12's page on saving saves `params(m)`.
torch.serialization.add_safe_globals([Params])
