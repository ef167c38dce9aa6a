"""What an optimisation rule is, and how one formula for one tensor runs on many at once."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from typing_extensions import Self, dataclass_transform

from fluxtorch.arrays import array, summary
from fluxtorch.errors import DomainError
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.printing import show

__all__ = ["AbstractRule", "Tensors", "apply_", "explicit", "fields_of", "init", "split"]

# Of several tensors: their states, and they themselves.
States: TypeAlias = "list[Any] | tuple[Any, ...]"
Arrays: TypeAlias = "list[torch.Tensor] | tuple[torch.Tensor, ...]"


@dataclass_transform(eq_default=False)
class AbstractRule:
    """The base class of optimisation rules: `init` makes the state for a tensor, `apply_` makes a gradient a step.

    A subclass lists its fields with their defaults, and gets a constructor from them, which takes
    them by position or by name. Where the default is a float, or a tuple of floats, so is the field.
    Rules compare by their fields; a field may be assigned to at any time.

    Raises `DomainError` for a negative `eta`, `TypeError` for a field that is no number where the
    default is one.

    >>> class DecayDescent(AbstractRule):
    ...     eta: float = 0.1
    ...
    ...     def init(self, x):
    ...         return 1
    ...
    ...     def apply_(self, state, x, dx):
    ...         return state + 1, dx * (self.eta / state**0.5)
    >>> DecayDescent(1)
    DecayDescent(1.0)
    >>> DecayDescent().apply_(4, None, torch.tensor([20.0]))
    (5, tensor([1.]))
    """

    # Does `apply_` do with only such methods of a tensor as `Tensors` has too?
    grouped = False
    # Does `step_` take tensors of several element types and devices together?
    whole = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if inspect.get_annotations(cls):
            dataclasses.dataclass(eq=False, repr=False)(cls)
        if "apply_" in vars(cls):  # a parent's shortcuts belong to the parent's formula
            for name in ("grouped", "apply_all_", "step_"):
                if name not in vars(cls):
                    setattr(cls, name, getattr(AbstractRule, name))

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            name = f"{type(self).__name__}'s {field.name}"
            setattr(self, field.name, _like(field.default, getattr(self, field.name), name))
        if getattr(self, "eta", 0.0) < 0:
            raise DomainError(f"the learning rate cannot be negative, and is {self.eta}")  # type: ignore[attr-defined]

    def init(self, x: torch.Tensor) -> Any:
        """The state for the tensor `x` before its first step; None for a rule that remembers nothing."""
        return None

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        """The next state, and what to subtract from `x`, for the gradient `dx`; None in its place means no step.

        May change the tensors in `state`, not `x` and not `dx`.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method apply_(self, state, x, dx)")

    def apply_all_(self, states: States, xs: Arrays, dxs: Arrays) -> tuple[States, States]:
        """`apply_` for several tensors, of one element type and on one device."""
        if not self.grouped or dxs[0].is_complex():
            pairs = [self.apply_(*args) for args in zip(states, xs, dxs, strict=True)]
            return [state for state, _ in pairs], [dx for _, dx in pairs]
        new: list[Any] = [None] * len(xs)
        steps: list[Any] = [None] * len(xs)
        for part in split(states):
            state, dx = self.apply_(
                _gather([states[i] for i in part]), Tensors([xs[i] for i in part]), Tensors([dxs[i] for i in part])
            )
            for i, s, step in zip(part, _scatter(state, len(part)), _scatter(dx, len(part)), strict=True):
                new[i], steps[i] = s, step
        return new, steps

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        """Changes the tensors `xs`, of one element type and on one device, in place; gives their next states."""
        states, steps = self.apply_all_(states, xs, dxs)
        given = [i for i, step in enumerate(steps) if step is not None]
        if given:
            torch._foreach_sub_([xs[i] for i in given], [steps[i] for i in given])
        return states

    def may_raise(self, late: bool) -> bool:
        """Does the rule refuse some gradients: with `late`, only after it has changed something?"""
        return False

    def explicit(self) -> AbstractRule:
        """The rule that `setup` puts into the state tree for this one."""
        return self

    def adjusted(self, **fields: Any) -> Self:
        """A copy in which those of `fields` that the rule has are changed; others are ignored, as in Flux."""
        new = copy.copy(self)
        for name in fields.keys() & fields_of(self).keys():
            setattr(new, name, fields[name])
        if dataclasses.is_dataclass(new):
            new.__post_init__()
        return new

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AbstractRule):
            return NotImplemented
        return type(self) is type(other) and NamedTuple.of(fields_of(self)) == NamedTuple.of(fields_of(other))

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(show(value, compact=True) for value in fields_of(self).values())})"

    # What the implicit style remembers is kept under `_memory`, by the identity of tensors. Copied or
    # saved together with the tensors, it is theirs again; a shallow copy starts afresh.

    def __copy__(self) -> Self:
        new = object.__new__(type(self))
        new.__dict__.update({name: value for name, value in vars(self).items() if name != "_memory"})
        return new

    def __getstate__(self) -> dict[str, Any]:
        state = dict(vars(self))
        if "_memory" in state:
            state["_memory"] = list(state["_memory"].values())
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_memory" in state:
            self.__dict__["_memory"] = {id(entry[0]): entry for entry in state["_memory"]}


def fields_of(rule: AbstractRule) -> dict[str, Any]:
    """The fields of `rule` by name."""
    return {name: value for name, value in vars(rule).items() if not name.startswith("_")}


def init(rule: AbstractRule, x: torch.Tensor) -> Any:
    """The state of `rule` for the tensor `x` before the first step, in tensors of `x`'s size; None if it needs none.

    >>> from fluxtorch.optimisers import Descent, Momentum
    >>> init(Descent(), torch.ones(2)), init(Momentum(), [1.0, 2.0])
    (None, tensor([0., 0.]))
    """
    return rule.init(array(x))


def apply_(rule: AbstractRule, state: Any, x: torch.Tensor, dx: torch.Tensor) -> tuple[Any, Any]:
    """The next state of `rule`, and what it would subtract from the tensor `x` for the gradient `dx`, of the same size.

    May write into `state`; neither `x` nor `dx` is changed.

    >>> from fluxtorch.optimisers import Descent
    >>> apply_(Descent(0.1), None, torch.tensor([1.0, 2.0, 3.0]), [4, 5, 6])
    (None, tensor([0.4000, 0.5000, 0.6000]))
    """
    x, dx = array(x), array(dx)
    with torch.no_grad():
        return rule.apply_(state, x, dx.to(x.dtype))


def explicit(rule: Any) -> AbstractRule:
    """`rule` as what a state tree holds. Raises `TypeError` for what is no rule, or has no such form."""
    if isinstance(rule, AbstractRule):
        return rule.explicit()
    if isinstance(rule, type) and hasattr(rule, "apply_"):
        raise TypeError(f"expected a rule, such as {rule.__name__}(), and got the class {rule.__name__} itself")
    if callable(getattr(rule, "apply_", None)):
        raise TypeError(
            f"setup does not know how to translate the old-style implicit rule {rule!r} "
            "to an explicit one: that is a class with AbstractRule as its base"
        )
    raise TypeError(f"expected an optimisation rule such as Adam(), and got {summary(rule)}")


class Tensors:
    """Several tensors with the methods of one: `ts.mul_(2)` is one call of torch's for all of them."""

    __slots__ = ("tensors",)

    def __init__(self, tensors: Any) -> None:
        self.tensors = tensors

    def conj(self) -> Tensors:
        return self  # complex ones go one by one

    def sgn(self) -> Tensors:
        return Tensors(torch._foreach_sign(self.tensors))

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _method(function: Callable[..., Any]) -> Callable[..., Tensors]:
    def method(ts: Tensors, *args: Any, **kwargs: Any) -> Tensors:
        result = function(ts.tensors, *[a.tensors if type(a) is Tensors else a for a in args], **kwargs)
        return ts if result is None else Tensors(result)

    return method


_names = (
    "abs add add_ addcmul addcmul_ clamp_max clamp_min_ copy_ div div_ lerp_ maximum mul mul_ norm sqrt sqrt_ sub sub_"
)
for _name in _names.split():
    setattr(Tensors, _name, _method(getattr(torch, f"_foreach_{_name}")))


def split(states: States) -> Iterator[list[int]]:
    """The positions of states in groups, of which each agrees in all that is no tensor."""
    groups: dict[Any, list[int]] = {}
    for i, state in enumerate(states):
        groups.setdefault(_numbers(state), []).append(i)
    return iter(groups.values())


def _numbers(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return None
    return tuple(map(_numbers, state)) if type(state) is tuple else state


def _gather(states: States) -> Any:
    """Many states as one, whose tensors are `Tensors`."""
    first = states[0]
    if isinstance(first, torch.Tensor):
        return Tensors(states)
    return tuple(map(_gather, zip(*states, strict=True))) if type(first) is tuple else first


def _scatter(state: Any, n: int) -> States:
    """The opposite of `_gather`."""
    if type(state) is Tensors:
        return list(state.tensors)
    if type(state) is tuple and state:
        return list(zip(*[_scatter(s, n) for s in state], strict=True))
    return [state] * n


def _like(default: Any, value: Any, name: str) -> Any:
    """`value` as a float, or as a tuple of floats, where `default` is one."""
    if type(default) is tuple and all(type(d) is float for d in default):
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(default):
            raise TypeError(f"{name} must be {len(default)} numbers, such as {show(default)}, and is {show(value)}")
        return tuple(_like(d, v, name) for d, v in zip(default, value, strict=True))
    if type(default) is not float:
        return value
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, and is {show(value)}")
    return float(value)
