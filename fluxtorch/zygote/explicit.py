"""Gradients of functions of their arguments: a tuple with one entry per argument, each of its shape."""

from __future__ import annotations

import contextlib
import functools
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from fluxtorch.arrays import array, is_spread, summary
from fluxtorch.functors import (
    _child,
    _fill,
    _hollow,
    _is_object,
    _items,
    _like,
    _rule,
    _trained,
    _values,
    children,
    fleaves,
    fmap,
    isleaf,
)
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.zygote.backward import differentiate, is_wrapper, reaches_back
from fluxtorch.zygote.scope import differentiating, nested
from fluxtorch.zygote.tracked import Literals, Tracked, is_whole, raw, untracked

__all__ = [
    "Lifted",
    "back_of",
    "check_loss",
    "collect",
    "edges_of",
    "first_of",
    "is_planned",
    "lift",
    "module_map",
    "value_of",
]


class Lifted:
    """The tensors that a call differentiates by, in order, and what it must arrange for while the function runs."""

    __slots__ = ("above", "borrowed", "copies", "leaves", "numbers", "own", "plan", "seen", "standins", "wrappers")

    def __init__(self) -> None:
        self.leaves: list[torch.Tensor] = []
        # Tensors whose `requires_grad` is switched on meanwhile, and those that others stand in for.
        self.borrowed: list[torch.Tensor] = []
        self.standins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.numbers = False
        # Can nothing that was computed before the call lead to the leaves?
        self.own = True
        # Objects, dicts and lists, and what the function gets for them; and what was in both at first.
        self.copies: list[tuple[Any, Any, dict[Any, Any], dict[Any, Any]]] = []
        self.seen: set[int] = set()
        self.plan: _Plan | None = None
        self.above: dict[int, Any] = {}
        # Modules that ran and whose gradients are averaged or spread over processes, which is done in backward().
        self.wrappers: list[nn.Module] = []

    def add(self, x: torch.Tensor) -> int:
        self.leaves.append(x)
        return len(self.leaves) - 1

    def add_known(self, x: torch.Tensor) -> int | None:
        """Adds the caller's own tensor `x`; None if it is there already."""
        key = id(x)
        if key in self.seen:
            return None
        self.seen.add(key)
        self.own = self.own and _fresh(x) and not is_spread(x)
        if not x.requires_grad or type(x) is torch.Tensor or key in _borrowed or x.is_inference():
            if x.is_inference():
                self.standins[key] = (x, x := x.clone().requires_grad_())
            else:
                self.borrowed.append(x)
        self.leaves.append(x)
        return len(self.leaves) - 1

    def following(self, inference: bool) -> contextlib.AbstractContextManager[Any]:
        """In here, torch records what is done to the tensors."""
        if self.own and not (inference or self.borrowed or self.standins or self.numbers):
            return _nothing
        stack = contextlib.ExitStack()
        if self.borrowed:
            stack.enter_context(_Borrowed(self.borrowed))
        if inference or self.standins:
            stack.enter_context(_Swap(self.standins))
        if self.numbers:
            stack.enter_context(Literals())
        if not self.own:  # DistributedDataParallel holds the graph's ends
            stack.enter_context(register_module_forward_pre_hook(self._watch))
        return stack

    def _watch(self, module: nn.Module, _: Any) -> None:
        if is_wrapper(module):
            self.wrappers.append(module)

    def keep_changes(self) -> None:
        """Gives objects, dicts and lists what the function has put into their copies, as constants."""
        for x, copy, own, before in self.copies:
            after = _contents(copy)
            if len(after) == len(before) and all(after.get(k, self) is v for k, v in before.items()):
                continue
            first = {id(before[k]): v for k, v in own.items()}
            new = {k: first[id(v)] if id(v) in first else value_of(v) for k, v in after.items()}
            if isinstance(x, list):
                x[:] = new.values()
            elif isinstance(x, dict):
                x.clear()
                dict.update(x, new)
            else:
                for name, value in new.items():
                    if name not in own or value is not own[name]:
                        object.__setattr__(x, name, value)

    def gradients(self, y: Any, call: differentiating) -> Sequence[torch.Tensor | None]:
        """The gradient of the number `y` by each leaf."""
        before = self.before([y], call) if isinstance(y, torch.Tensor) else None
        grads = _gradients(y, self.leaves, before, self.wrappers)
        if before is not None and all(grad is None for grad in grads):
            warnings.warn(
                "the loss was computed before, or in another thread, so it is a constant here: every gradient is None. "
                "Compute it inside of the function that gradient is given.",
                stacklevel=4,
            )
        return grads

    def before(self, ys: list[torch.Tensor], call: differentiating) -> int | None:
        """The first operation of the call, if `ys` depend on earlier ones that may lead to the leaves."""
        # A gradient inside this one may have run on a GPU, in torch's own thread, whose numbers are others.
        if self.own or (call.held_another() and any(x.is_cuda for x in self.leaves)):
            return None
        return call.start if reaches_back(ys, call.start) else None


def _gradients(
    y: Any, leaves: Sequence[torch.Tensor], before: int | None = None, wrappers: Sequence[nn.Module] = ()
) -> Sequence[torch.Tensor | None]:
    """The gradient of the number `y` by each of `leaves`."""
    if not isinstance(y, torch.Tensor) or not y.requires_grad:
        return (None,) * len(leaves)
    return differentiate([y], leaves, before=before, wrappers=wrappers)


def _contents(x: Any) -> dict[Any, Any]:
    """What stands in an object, a dict or a list, by name, key or position."""
    if isinstance(x, (dict, list)):
        return dict(x if isinstance(x, dict) else enumerate(x))
    return vars(children(x)) | getattr(x, "__dict__", {})


_nothing = contextlib.nullcontext()

# How many hold a tensor inside of torch. (Private to torch; where there is none, it counts as held.)
_holders = getattr(torch.Tensor, "_use_count", lambda x: 2)


def _fresh(x: torch.Tensor) -> bool:
    """Is there no graph that leads to the tensor `x`? Its end, if there is one, holds the tensor."""
    return x.is_leaf and _holders(x) == 1


class _Number:
    """The place of a number's gradient, which is a number too."""

    __slots__ = ("leaf",)

    def __init__(self, leaf: int) -> None:
        self.leaf = leaf


def _branch(kids: Any, places: list[Any]) -> tuple[Any, list[Any]] | None:
    """The places of the gradients by `kids`; None if there are none."""
    for place in places:
        if place is not None:
            return kids, places
    return None


def lift(x: Any, to: Lifted) -> tuple[Any, Any]:
    """`x` with tracked stand-ins for its numbers and tensors, and the place of its gradient.

    Layers are passed as they are: they may change their state, and their parameters are what is
    tracked. A place is the number of a leaf, or None, or a pair of children and their places.
    """
    if isinstance(x, nn.Module):
        return x, _planned(x, to)
    x = array(x)
    if isinstance(x, torch.Tensor):
        return _lift_tensor(x, to)
    if isinstance(x, (int, float, complex)) and not isinstance(x, bool):
        to.numbers = True
        base = torch.tensor(x, dtype=torch.complex128 if isinstance(x, complex) else torch.float64, requires_grad=True)
        whole = torch.tensor(x) if isinstance(x, int) and -(2**63) <= x < 2**63 else None
        return Tracked.of(base, True, whole), _Number(to.add(base))
    rule = _rule(type(x))
    if rule is None:
        return lift(float(x), to) if isinstance(x, Fraction) else (x, None)
    if id(x) in to.above:
        return _hollow(x, to.above), None
    kids, rebuild = rule(x)
    to.above[id(x)] = None
    pairs = [lift(kid, to) for _, kid in _items(kids)]
    hollow = to.above.pop(id(x))
    where = _branch(kids, [place for _, place in pairs])
    if hollow is not None:
        return _fill(hollow, kids, [new for new, _ in pairs]), where
    same = all(new is kid for (new, _), (_, kid) in zip(pairs, _items(kids), strict=True))
    copy = x if same else rebuild(_like(kids, [new for new, _ in pairs]))
    if isinstance(x, (dict, list)) or _is_object(rebuild):
        to.copies.append((x, copy, _contents(x), _contents(copy)))
    return copy, where


def _lift_tensor(x: torch.Tensor, to: Lifted) -> tuple[Any, Any]:
    if x.dtype == torch.bool:
        return x, None
    if isinstance(x, Tracked):
        # Inside another gradient: an alias, so that this call's variable is its own.
        to.numbers = to.numbers or x.number
        alias = raw(x).view_as(raw(x))
        place: Any = to.add(alias)
        whole = None if x.graph is None else x
        return Tracked.of(alias, x.number, whole), _Number(place) if x.number else place
    if is_whole(x):
        base = x.to(torch.get_default_dtype(), copy=True).requires_grad_()
        return Tracked.of(base, False, x), to.add(base)
    if isinstance(x, nn.Parameter) and x.requires_grad and x.is_leaf:
        return x, to.add_known(x)
    if x.is_inference():
        x = x.clone()
    x = x.view_as(x) if x.requires_grad and nested() else x.detach().requires_grad_()
    return x, to.add(x)


def module_map(x: Any, to: Lifted) -> Any:
    """The places of the gradients by a layer's parameters: its fields with theirs, and so on down.

    What isn't trained (buffers, state, frozen parameters) has no gradient. A tied tensor has its
    whole gradient at its first place.
    """
    rule = _rule(type(x))
    if rule is None:
        return _parameter_place(x, to) if isinstance(x, torch.Tensor) else None
    if id(x) in to.above:
        return None
    kids = rule(x)[0]
    if type(kids) is tuple and not kids:
        return None
    to.above[id(x)] = None
    if is_wrapper(x):
        to.own = False
    chosen = _trained(x, kids)
    if chosen is kids or not isinstance(kids, NamedTuple):
        places = [module_map(kid, to) for kid in _values(chosen)]
    else:
        names = vars(chosen)
        places = [module_map(kid, to) if name in names else None for name, kid in vars(kids).items()]
    del to.above[id(x)]
    return _branch(kids, places)


class _Plan:
    """What `module_map` found in a model, for as long as nothing that it went through is replaced."""

    __slots__ = ("edges", "flags", "ids", "leaves", "model", "place")

    def __init__(
        self, x: nn.Module, edges: list[tuple[dict[str, Any], str, Any]], leaves: list[torch.Tensor], place: Any
    ) -> None:
        self.edges, self.leaves, self.place = edges, leaves, place
        key = id(x)
        self.model = weakref.ref(x, lambda _: _plans.pop(key, None))
        # Freezing a parameter, or thawing it, changes what there is to differentiate by.
        self.flags = [(x, x.requires_grad) for _, _, x in edges if isinstance(x, torch.Tensor)]
        self.ids = {id(x) for x in leaves}

    def placed(self) -> bool:
        """Is all still in its place?"""
        return all([table.get(key) is value for table, key, value in self.edges])

    def holds(self) -> bool:
        return self.placed() and all([x.requires_grad is flag for x, flag in self.flags])

    def collected(self, grads: Sequence[torch.Tensor | None]) -> Any:
        """The gradient of the model; it knows this plan, which spares `update_` a walk."""
        result = collect(self.place, grads)
        if type(result) is NamedTuple:
            object.__setattr__(result, "__flat__", (self, grads))
        return result


# By the identity of the model, whose end takes the plan along.
_plans: dict[int, _Plan] = {}


def _planned(x: nn.Module, to: Lifted) -> Any:
    """The same as `module_map`, without the walk if it was made before and nothing has changed since."""
    if to.leaves:
        return module_map(x, to)
    plan = _plans.get(id(x))
    if plan is not None and plan.holds():
        to.leaves, to.seen, to.plan = list(plan.leaves), set(plan.ids), plan
        to.own = all(map(_fresh, plan.leaves))
        return plan.place
    place = module_map(x, to)
    edges = None if to.borrowed or to.standins or any(map(is_spread, to.leaves)) else edges_of(x)
    if edges is not None:
        to.plan = _plans[id(x)] = _Plan(x, edges, list(to.leaves), place)
    return place


def _ready(args: tuple[Any, ...], call: differentiating) -> _Plan | None:
    """The plan of the model that is the only argument, if all is known of it and nothing is to be arranged for."""
    if len(args) != 1 or call.inference or not isinstance(args[0], nn.Module):
        return None
    plan = _plans.get(id(args[0]))
    ready = plan is not None and plan.holds() and all([x.is_leaf and _holders(x) == 1 for x in plan.leaves])
    return plan if ready else None


def is_planned(model: nn.Module, plan: Any) -> bool:
    """Is `plan` what is known of the model from its last gradient, and are its parameters the same as then?"""
    return _plans.get(id(model)) is plan is not None and plan.placed()


def edges_of(x: Any, trained: bool = True) -> list[tuple[dict[str, Any], str, Any]] | None:
    """Where each thing in a model (that is trained) is kept, as (table, key, thing); None if some may change unseen."""
    if isinstance(x, (tuple, NamedTuple)):
        kids, edges = list(x), []
    elif hasattr(type(x), "_edges"):
        edges = x._edges(trained)
        if edges is None:
            return None
        kids = list(_values(_trained(x, children(x)) if trained else children(x)))
    else:
        return [] if isleaf(x) else None
    for kid in kids:
        more = edges_of(kid, trained)
        if more is None:
            return None
        edges = edges + more
    return edges


def _parameter_place(x: torch.Tensor, to: Lifted) -> int | None:
    if (not x.requires_grad and (is_whole(x) or isinstance(x, nn.Parameter))) or isinstance(x, Tracked):
        return None
    return to.add_known(x)


def collect(place: Any, grads: Sequence[torch.Tensor | None]) -> Any:
    """The gradients at their places; None for a branch in which there is none."""
    if type(place) is not tuple:
        return None if place is None else grads[place] if type(place) is int else _number_gradient(grads[place.leaf])
    kids, places = place
    values, found = [], False
    for p in places:
        value = None if p is None else grads[p] if type(p) is int else collect(p, grads)
        found = found or value is not None
        values.append(value)
    return _like(kids, values) if found else None


def _collected(places: Sequence[Any], grads: Sequence[torch.Tensor | None], lifted: Lifted) -> tuple[Any, ...]:
    """The gradients of all arguments; that of a model with a plan comes from there."""
    plan = lifted.plan
    if plan is None:
        return tuple([collect(place, grads) for place in places])
    own = grads[: len(plan.leaves)]
    return tuple([plan.collected(own) if place is plan.place else collect(place, grads) for place in places])


def _number_gradient(grad: torch.Tensor | None) -> Any:
    if grad is None:
        return None
    return Tracked.of(grad, True) if nested() else grad.item()


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
        what = f"a tuple of {len(y)}, of which it may be the first, [0]" if isinstance(y, tuple) and y else summary(y)
        raise TypeError(
            f"gradient needs a loss that is one real number, and the function returned {what}"
            f"{' (complex)' if complex_ else ''}{hint}"
        )
    if leaves and isinstance(y, float):
        warnings.warn(
            "the function returned a plain Python float, so there is nothing to differentiate: every gradient is None. "
            "Was the loss made a number by float(), .item() or the math module?",
            stacklevel=4,
        )


def value_of(y: Any) -> Any:
    """What `withgradient` and `pullback` give back of a result: the same, cut from its graph and from parameters."""
    if nested():
        return y
    if isinstance(y, torch.Tensor):
        return _value(y)
    return fmap(lambda v: _value(v) if isinstance(v, torch.Tensor) else v, y, exclude=_is_value)


def _is_value(x: Any) -> bool:
    return isleaf(x) or isinstance(x, (nn.Module, types.FunctionType, types.MethodType, functools.partial))


def _value(y: torch.Tensor) -> Any:
    # Only a result of an operation is nobody else's; what may be a parameter or its view is copied.
    if (y.grad_fn is not None and y._base is None) or getattr(y, "number", False):
        return untracked(y)
    return untracked(y).clone()


# The tensors whose `requires_grad` is on for a while, with the number of calls in all threads that need it so.
_borrowed: dict[int, tuple[torch.Tensor, int]] = {}
_lock = threading.Lock()


class _Borrowed:
    """Inside, the tensors have `requires_grad` on; what was off goes off again with the last who borrowed it."""

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._tensors = list(tensors)

    def __enter__(self) -> None:
        with _lock:
            self._tensors = [x for x in self._tensors if not x.requires_grad or id(x) in _borrowed]
            for x in self._tensors:
                _, count = _borrowed.get(id(x), (x, 0))
                x.requires_grad_(True)
                _borrowed[id(x)] = (x, count + 1)

    def __exit__(self, *exc: Any) -> None:
        with _lock:
            for x in self._tensors:
                _, count = _borrowed.pop(id(x))
                if count > 1:
                    _borrowed[id(x)] = (x, count - 1)
                else:
                    x.requires_grad_(False)


class _Swap(TorchFunctionMode):
    """While active, torch sees stand-ins for tensors that can't be differentiated by themselves, or not in here."""

    def __init__(self, table: dict[int, tuple[torch.Tensor, torch.Tensor]]) -> None:
        super().__init__()
        self._table = table

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return func(*self._swapped(args), **(self._swapped(kwargs) if kwargs else {}))

    def _swapped(self, x: Any) -> Any:
        if isinstance(x, torch.Tensor):
            if id(x) in self._table:
                return self._table[id(x)][1]
            if x.is_inference():  # torch records nothing of those; a constant does the same
                self._table[id(x)] = (x, x.clone())
                return self._table[id(x)][1]
            return x
        if type(x) in (tuple, list):
            return type(x)(map(self._swapped, x))
        return {k: self._swapped(v) for k, v in x.items()} if type(x) is dict else x


def _lift_all(args: tuple[Any, ...]) -> tuple[Lifted, list[Any], list[Any]]:
    lifted = Lifted()
    inputs, places = [], []
    for arg in args:
        x, place = lift(arg, lifted)
        inputs.append(x)
        places.append(place)
        if place is None and isleaf(arg) and not isinstance(arg, (type, torch.Tensor)):
            _warn_of_hidden(arg)
    return lifted, inputs, places


def _warn_of_hidden(arg: Any) -> None:
    """Warns if the argument `arg`, by which there is no gradient, is known to hold tensors or layers."""
    if isinstance(arg, types.FunctionType):
        names = arg.__code__.co_names if arg.__closure__ is None else ()
        found = [name for name in names if isinstance(arg.__globals__.get(name), (torch.Tensor, nn.Module))]
        problem = (
            f"there is no gradient by what the function {arg.__name__} uses of global variables, "
            f"{', '.join(found)}: make them locals of an enclosing function, or arguments."
        )
    else:
        fields = getattr(arg, "__dict__", {})
        found = [name for name, v in fields.items() if isinstance(v, (torch.Tensor, nn.Module))]
        problem = (
            f"there is no gradient by what is in a {type(arg).__name__} ({', '.join(found)}): nothing says "
            "which of its fields count: make the class a Layer, or a dataclass, or put @layer before it."
        )
    if found:
        warnings.warn(problem, stacklevel=5)


def explicit_gradient(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, ...]:
    with differentiating() as call:
        plan = _ready(args, call)
        if plan is not None:
            y = f(*args)
            check_loss(y, plan.leaves)
            return (plan.collected(_gradients(y, plan.leaves)),)
        lifted, inputs, places = _lift_all(args)
        with lifted.following(call.inference):
            y = f(*inputs)
            lifted.keep_changes()
            check_loss(y, lifted.leaves)
            return _collected(places, lifted.gradients(y, call), lifted)


def explicit_withgradient(f: Callable[..., Any], args: tuple[Any, ...]) -> NamedTuple:
    with differentiating() as call:
        plan = _ready(args, call)
        if plan is not None:
            y = f(*args)
            loss = first_of(y)
            check_loss(loss, plan.leaves)
            grads = _gradients(loss, plan.leaves)
            return NamedTuple.of({"val": value_of(y), "grad": (plan.collected(grads),)})
        lifted, inputs, places = _lift_all(args)
        with lifted.following(call.inference):
            y = f(*inputs)
            lifted.keep_changes()
            loss = first_of(y)
            check_loss(loss, lifted.leaves)
            grads = lifted.gradients(loss, call)
            return NamedTuple.of({"val": value_of(y), "grad": _collected(places, grads, lifted)})


def flat_withgradient(f: Callable[[Any], Any], model: nn.Module) -> tuple[Any, Any, list[torch.Tensor], Any]:
    """The value of `f(model)`; the place of its gradient, the parameters that it is by, and the gradient by each."""
    with differentiating() as call:
        plan = _ready((model,), call)
        if plan is not None:
            y = f(model)
            loss = first_of(y)
            check_loss(loss, plan.leaves)
            return value_of(y), plan.place, plan.leaves, _gradients(loss, plan.leaves)
        lifted = Lifted()
        _, place = lift(model, lifted)
        with lifted.following(call.inference):
            y = f(model)
            loss = first_of(y)
            check_loss(loss, lifted.leaves)
            return value_of(y), place, lifted.leaves, lifted.gradients(loss, call)


def first_of(y: Any) -> Any:
    """The loss among what `f` returned: the first entry of a tuple or named tuple."""
    if isinstance(y, (tuple, NamedTuple)):
        if not len(y):
            raise TypeError("withgradient needs a loss, and the function returned an empty tuple")
        return y[0]
    return y


def explicit_pullback(f: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    with differentiating() as call:
        lifted, inputs, places = _lift_all(args)
        with lifted.following(call.inference):
            y = f(*inputs)
            lifted.keep_changes()
        value = value_of(y)
        back = back_of(y, lifted, call)

    def pull(seed: Any) -> tuple[Any, ...]:
        with differentiating():
            grads = back(seed)
            return tuple([collect(place, grads) for place in places])

    return value, pull


def back_of(y: Any, lifted: Lifted, call: differentiating) -> Callable[[Any], Sequence[torch.Tensor | None]]:
    """The function that takes a seed of `y`'s structure back to the gradients by the leaves."""
    if lifted.wrappers:
        raise RuntimeError(
            f"under {type(lifted.wrappers[0]).__name__}, torch combines the processes' gradients once, right after the "
            "forward call, so there is no pullback and no jacobian: use withgradient"
        )
    before = lifted.before([raw(v) for v in fleaves(y) if isinstance(v, torch.Tensor) and v.requires_grad], call)

    def back(seed: Any) -> Sequence[torch.Tensor | None]:
        outputs: list[torch.Tensor] = []
        seeds: list[torch.Tensor] = []
        _pair(y, seed, outputs, seeds)
        with lifted.following(False):
            return differentiate(outputs, lifted.leaves, seeds, keep=True, before=before)

    return back


def _pair(y: Any, seed: Any, outputs: list[torch.Tensor], seeds: list[torch.Tensor]) -> None:
    """Adds the tensors of `y` that can be differentiated to `outputs`, what belongs to each in `seed` to `seeds`."""
    if seed is None or y is None:
        return
    if isinstance(y, torch.Tensor):
        y = raw(y)
        seed = raw(array(seed))
        if not isinstance(seed, (torch.Tensor, int, float, complex)):
            raise TypeError(f"the pullback needs a seed like its result, {summary(y)}, and got {summary(seed)}")
        seed = torch.as_tensor(seed, device=y.device)
        seed = (seed.real if seed.is_complex() and not y.is_complex() else seed).to(y.dtype)
        if seed.shape != y.shape:
            raise TypeError(f"the pullback needs a seed like its result, {summary(y)}, and got {summary(seed)}")
        if y.requires_grad:
            outputs.append(y)
            seeds.append(seed)
    elif not isleaf(y):
        if isinstance(seed, torch.Tensor) and isinstance(y, (list, tuple)):
            seed = list(seed)
        if isinstance(seed, (list, tuple)) and len(seed) != len(children(y)):
            raise TypeError(f"the pullback needs a seed like its result, {summary(y)}, and got {summary(seed)}")
        for key, kid in _items(children(y)):
            _pair(kid, _child(seed, key, y), outputs, seeds)
