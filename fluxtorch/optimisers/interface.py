"""State trees: `setup` makes one in the shape of a model, `update_` steps by it."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from fluxtorch.arrays import array, summary
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.functors import KeyPath, _items, _like, children, fmap, trainable
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.optimisers.rule import AbstractRule, explicit
from fluxtorch.optimisers.torch_optim import TorchRule, TorchTree, bare, is_factory
from fluxtorch.printing import show
from fluxtorch.zygote.explicit import is_planned
from fluxtorch.zygote.tracked import Tracked

__all__ = ["Leaf", "isnumeric", "setup", "trainables", "update", "update_"]


@dataclasses.dataclass(eq=False, repr=False)
class Leaf:
    """A rule with its state for one tensor of a model; a tensor at several places has one leaf at all of them.

    At the place of a transposed view of that tensor, such as `W.T`, the leaf is the tree's `parent`.

    >>> from fluxtorch.optimisers import Momentum
    >>> Leaf(Momentum(0.1, 0.9), torch.zeros(1, 2))
    Leaf(Momentum(0.1, 0.9), [0.0 0.0])
    """

    rule: AbstractRule
    state: Any
    frozen: bool = False

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Leaf):
            return NotImplemented
        return NamedTuple.of(vars(self)) == NamedTuple.of(vars(other))

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"Leaf({self.rule!r}, {show(self.state, compact=True)}{', frozen = true' if self.frozen else ''})"


@dataclasses.dataclass(eq=False, repr=False)
class Transposed:
    """In the place of a tensor whose memory has its leaf elsewhere: `parent` is that leaf, by the tensor's `axes`."""

    parent: Leaf
    axes: tuple[int, ...]

    def __repr__(self) -> str:
        return f"(parent = {self.parent!r},)"


def isnumeric(x: Any) -> bool:
    """True for what training changes: a tensor of real or complex numbers, not a parameter with `requires_grad` off.

    >>> isnumeric(torch.ones(2)), isnumeric(torch.tensor([1, 2])), isnumeric(1.0)
    (True, False, False)
    """
    if not isinstance(x, torch.Tensor) or not (x.is_floating_point() or x.is_complex()):
        return False
    if isinstance(x, nn.Parameter):
        return x.requires_grad
    # Inside gradient, numbers have stand-ins.
    return not (isinstance(x, Tracked) and x.number)


def setup(rule: Any, model: Any) -> Any:
    """The state tree of `rule` for `model`: its structure, with a `Leaf` for each array to be trained, else `()`.

    `model` is a layer, an array, or any structure of them. The tree is what `update_` needs, and what
    it changes. Warns if there is nothing to train. Raises `TypeError` for what is no rule, and
    `ValueError` for an array that can't be changed in place because its numbers share their memory.

    In the place of a rule, `torch.optim.AdamW` or any other class of torch's optimizers will do, or a
    function that makes one of a list of tensors: `lambda ps: torch.optim.SGD(ps, lr=0.1)`. It is then
    the tree's attribute `optimizer`, to which a `torch.optim.lr_scheduler` may be attached; it sees
    gradients only during a step, and leaves those in `.grad` alone. `adjust_` takes its own names
    (`lr`), and only the whole tree; `update` and `adjust`, which would copy it, raise `TypeError`.

    >>> from fluxtorch.optimisers import Momentum
    >>> setup(Momentum(), NamedTuple(x=torch.zeros(3), y=(True, False), z=torch.tanh))
    (x = Leaf(Momentum(0.01, 0.9), [0.0, 0.0, 0.0]), y = ((), ()), z = ())
    """
    leaves: dict[Any, tuple[Any, Leaf]] = {}
    if is_factory(rule):
        theirs = TorchRule()
        tree = _setup(theirs, model, leaves, set())
        return TorchTree(theirs.start(rule, [x for x, _ in leaves.values()]), tree)
    tree = _setup(explicit(rule), model, leaves, set())
    if not leaves:
        warnings.warn("setup found no trainable parameters in this model", stacklevel=2)
    return tree


def _setup(rule: AbstractRule, x: Any, leaves: dict[Any, tuple[Any, Leaf]], above: set[int]) -> Any:
    if isnumeric(x):
        memory = _memory(x)
        if memory not in leaves:
            if any(step == 0 and n > 1 for step, n in zip(x.stride(), x.shape, strict=True)):
                raise ValueError(
                    f"the model must be fully mutable, and a {summary(x)} in it has numbers that share their memory"
                )
            with torch.no_grad():
                leaves[memory] = x, Leaf(rule, rule.init(x))
        first, leaf = leaves[memory]
        if first.shape == x.shape and first.stride() == x.stride():
            return leaf
        return Transposed(leaf, _axes(first, x))
    if id(x) in above:
        return ()
    above.add(id(x))
    kids = _trainable(x)
    tree = _like(kids, [_setup(rule, kid, leaves, above) for _, kid in _items(kids)])
    above.discard(id(x))
    return tree


def _memory(x: torch.Tensor) -> Any:
    """The same for a tensor and for a transposed view of it."""
    if x.numel() == 0 or x.layout is not torch.strided or x.data_ptr() == 0:
        return id(x)
    return x.dtype, x.data_ptr(), x.ndim, tuple([(x.stride(i), x.shape[i]) for i in _order(x) if x.shape[i] > 1])


def _order(x: torch.Tensor) -> list[int]:
    """The axes of `x` as its memory has them; those of one entry are last."""
    return sorted(range(x.ndim), key=lambda i: (x.shape[i] == 1, -x.stride()[i]))


def _axes(x: torch.Tensor, y: torch.Tensor) -> tuple[int, ...]:
    """The axes of `y`, a transposed view of `x`, as `x` has them: by these, `permute` makes `x` of `y`."""
    return tuple([axis for _, axis in sorted(zip(_order(x), _order(y), strict=True))])


def _trainable(x: Any) -> Any:
    """The children of `x`, with None in the place of those that aren't trained."""
    kids, chosen = children(x), trainable(x)
    if isinstance(kids, (NamedTuple, dict)):
        chosen = dict(_items(chosen))
        return _like(kids, [chosen.get(key) for key, _ in _items(kids)])
    return chosen


def update_(tree: Any, model: Any, grad: Any) -> tuple[Any, Any]:
    """Steps by the gradient `grad` of `model`, both changed in place: the arrays in `model` and the states in `tree`.

    `tree` comes from `setup(rule, model)`, and `grad` has the structure of `model`, with None where
    there is no gradient: nothing happens there, nor where the tree is frozen. An array at several
    places is stepped once, by the sum of its gradients. Gives `(tree, model)`.

    Raises `DimensionMismatch` for a gradient of another size than its array, `ValueError` for one of
    another structure than the model, before anything is changed.

    >>> from fluxtorch.optimisers import Descent
    >>> m = NamedTuple(x=[1.0, 2.0, 3.0], y=torch.tanh)
    >>> t = setup(Descent(0.1), m)
    >>> update_(t, m, NamedTuple(x=[1, 1, 1], y=None))[1]
    (x = [0.9, 1.9, 2.9], y = tanh)
    """
    known = _known(tree, model, grad)
    if known is not None:
        step_all_(known)
        return tree, model
    found: dict[int, list[Any]] = {}
    ties: list[tuple[torch.Tensor, torch.Tensor]] = []
    _pair(tree, model, grad, model, found, ties)
    with torch.no_grad():
        before = [x.clone() for x, _ in ties]
        step_all_(groups_of(found.values()))
        for (x, other), old in zip(ties, before, strict=True):
            other.add_(x - old)
    return tree, model


def _known(tree: Any, model: Any, grad: Any) -> Any:
    """The groups for `step_all_`, without a walk, where `grad` is just what `gradient` gave of this very model."""
    if type(grad) is not NamedTuple or type(tree) is not NamedTuple or not isinstance(model, nn.Module):
        return None
    if not hasattr(grad, "__flat__"):
        return None
    plan: Any
    plan, grads = grad.__flat__
    if not is_planned(model, plan):
        return None
    leaves = leaves_at(tree, plan.place, len(plan.leaves))
    return None if leaves is None else groups_of(zip(leaves, plan.leaves, grads, strict=True))


def groups_of(entries: Iterable[Any]) -> Any:
    """The leaves, the tensors and the gradients together that one kernel can take, of all there is to step.

    None if a gradient isn't in one piece of memory.
    """
    groups: dict[Any, tuple[list[Leaf], list[torch.Tensor], list[torch.Tensor]]] = {}
    for leaf, x, dx in entries:
        if dx is None or leaf.frozen:
            continue
        if dx.layout is not torch.strided:
            return None
        rule = leaf.rule
        # Of the gradient, which is as the tensor in this, since torch asks more of what is a Parameter.
        key = id(rule) if rule.whole else (id(rule), dx.dtype, dx.device)
        group = groups.get(key)
        if group is None:
            groups[key] = group = [], [], []
        leaves, xs, dxs = group
        leaves.append(leaf)
        xs.append(x)
        dxs.append(dx)
    return list(groups.values())


def leaves_at(tree: Any, place: Any, n: int) -> list[Leaf] | None:
    """The leaf for each of the `n` parameters that the gradients at `place` are by; None if `tree` isn't for them.

    The tree keeps the answer for as long as it is asked for the same place.
    """
    tree = bare(tree)
    known, leaves = getattr(tree, "__flat__", (None, None))
    if known is not place or place is None:
        leaves = _leaves_at(tree, place, n)
        if type(tree) is NamedTuple:
            object.__setattr__(tree, "__flat__", (place, leaves))
    return leaves


def _leaves_at(tree: Any, place: Any, n: int) -> list[Leaf] | None:
    found: list[Any] = [None] * n
    if not _locate(tree, place, found) or any(leaf is None for leaf in found) or len(set(map(id, found))) < n:
        return None
    return found


def _locate(tree: Any, place: Any, found: list[Any]) -> bool:
    """Puts the leaves of `tree` into `found`, by the numbers at `place`; is the one shaped as the other?"""
    if place is None:
        return True
    if type(place) is int:
        found[place] = tree
        return type(tree) is Leaf
    kids = list(vars(tree).values()) if type(tree) is NamedTuple else tree
    if not isinstance(kids, (tuple, list)) or len(kids) != len(place[1]):
        return False
    return all(_locate(kid, p, found) for kid, p in zip(kids, place[1], strict=True))


def step_all_(groups: list[Any]) -> None:
    """Steps the leaves and tensors by the gradients of each group, all those at once.

    When a rule refuses one of the gradients, nothing is changed.
    """
    recording = torch.is_grad_enabled()
    torch._C._set_grad_enabled(False)  # torch.no_grad() takes a microsecond
    before: list[Any] = []
    try:
        if any([leaves[0].rule.may_raise(late=len(groups) == 1) for leaves, _, _ in groups]):
            pairs = [pair for leaves, xs, _ in groups for pair in zip(leaves, xs, strict=True)]
            before = [(leaf, copied(leaf.state), x, x.clone()) for leaf, x in pairs]
        for leaves, xs, dxs in groups:
            states = [leaf.state for leaf in leaves]
            _check_device(states[0], xs[0])
            for leaf, state in zip(leaves, leaves[0].rule.step_(states, xs, dxs), strict=True):
                leaf.state = state
    except DomainError:
        for leaf, state, x, old in before:
            leaf.state = state
            x.copy_(old)
        raise
    finally:
        torch._C._set_grad_enabled(recording)


def _check_device(state: Any, x: torch.Tensor) -> bool:
    """Raises `ValueError` if the first tensor in `state` is on another device than `x`; was there one?"""
    if isinstance(state, torch.Tensor):
        if state.device != x.device:
            raise ValueError(
                f"the optimiser's state is on {state.device} and the model on {x.device}: "
                "call setup after moving the model, or move the state tree too"
            )
        return True
    if type(state) is tuple:
        for s in state:
            if _check_device(s, x):
                return True
    return False


def _pair(tree: Any, x: Any, grad: Any, model: Any, found: dict[int, list[Any]], ties: list[Any]) -> None:
    """Puts a leaf, its tensor and the sum of its gradients into `found`, for each leaf of `tree` that has one."""
    if grad is None:
        return
    tree = bare(tree)
    if type(tree) is Leaf:
        if tree.frozen:
            return
        if not isinstance(x, torch.Tensor):
            raise _mismatch(tree, x)
        dx = fit(grad, x, model)
        entry = found.get(id(tree))
        if entry is None:
            found[id(tree)] = [tree, x, dx]
        else:
            entry[2] = entry[2] + dx
            if entry[1].data_ptr() != x.data_ptr() and all(x is not other for _, other in ties):
                ties.append((entry[1], x))
        return
    if type(tree) is Transposed and isinstance(x, torch.Tensor):
        dx = fit(grad, x, model).permute(tree.axes)
        return _pair(tree.parent, x.permute(tree.axes), dx, model, found, ties)
    if type(tree) is tuple and not tree:
        return
    kids = x if type(x) is NamedTuple else children(x)
    kind = type(tree)
    if kind is NamedTuple or kind is dict:
        trees = vars(tree) if kind is NamedTuple else tree
        xs = vars(kids) if type(kids) is NamedTuple else kids
        grads = (
            vars(grad) if type(grad) is NamedTuple else grad if isinstance(grad, dict) else dict(_items(children(grad)))
        )
        if xs.keys() != trees.keys():
            raise _mismatch(tree, x)
        for key, t in trees.items():
            if type(t) is tuple and not t:
                continue
            if key not in grads:
                if kind is dict:
                    continue
                raise ValueError(f"the gradient needs the structure of the model, and has no {key!r}: None is for none")
            _pair(t, xs[key], grads[key], model, found, ties)
    elif kind is not tuple and kind is not list:
        raise TypeError(f"update_ needs a state tree, from setup(rule, model), and got {summary(tree)}")
    else:
        entries = grad if isinstance(grad, (tuple, list)) else tuple(children(grad))
        if len(kids) != len(tree):
            raise _mismatch(tree, x)
        if len(entries) != len(tree):
            raise ValueError(
                f"the gradient needs the structure of the model, and has {len(entries)} entries for a "
                f"{type(x).__name__} of {len(tree)}: None is for none"
            )
        for t, kid, g in zip(tree, kids, entries, strict=True):
            _pair(t, kid, g, model, found, ties)


def _mismatch(tree: Any, x: Any) -> ValueError:
    where = show(tree)
    return ValueError(
        f"the state tree is not one for this model: {where[:80]}{'…' * (len(where) > 80)} doesn't go with {summary(x)}"
    )


def fit(dx: Any, x: torch.Tensor, model: Any = None) -> Any:
    """The gradient `dx` in the element type of `x`. Raises `DimensionMismatch` if it has not the size of `x`."""
    if not isinstance(dx, torch.Tensor):
        dx = array(dx)
        if isinstance(dx, (int, float, complex)):
            dx = torch.as_tensor(dx, device=x.device)
        if not isinstance(dx, torch.Tensor):
            raise ValueError(
                f"the gradient{_place(x, model)} must be an array like the parameter, {summary(x)}, "
                f"and is {summary(dx)}"
            )
    if dx.shape != x.shape:
        raise DimensionMismatch(
            f"the gradient{_place(x, model)} is a {summary(dx)}, and the parameter is a {summary(x)}"
        )
    if dx.dtype is not x.dtype:
        if dx.is_complex() and not x.is_complex():
            raise ValueError(f"the gradient{_place(x, model)} is complex, and the parameter is a {summary(x)}")
        dx = dx.to(x.dtype)
    if dx.layout is not torch.strided:
        dx = dx.to_dense()
    if dx.device != x.device:
        raise ValueError(f"the gradient{_place(x, model)} is on {dx.device} and the parameter on {x.device}")
    return dx


def _place(x: torch.Tensor, model: Any) -> str:
    path = next((path for path, p in trainables(model, path=True) if p is x), KeyPath())
    return f" for {path}" if len(path) else ""


def update(tree: Any, model: Any, grad: Any) -> tuple[Any, Any]:
    """Like `update_`, on copies of `tree` and `model`, which are left as they are. Gives the copies.

    >>> from fluxtorch.optimisers import Momentum
    >>> m = (torch.tensor([1.0, 2.0]),)
    >>> t2, m2 = update(setup(Momentum(0.1), m), m, ([25, 33],))
    >>> m2, m
    ((tensor([-1.5000, -1.3000]),), (tensor([1., 2.]),))
    """
    return update_(copied(tree), copied(model), grad)


def copied(x: Any) -> Any:
    """`x` with copies of its tensors in their places; what is tied stays tied."""
    copies: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}

    def copy(v: Any) -> Any:
        if not isinstance(v, torch.Tensor):
            return v
        first, new = copies.setdefault(_memory(v), (v, v.detach().clone()))
        if first is not v:
            new = new.detach().permute(_axes(v, first))
        return (
            nn.Parameter(new, v.requires_grad) if isinstance(v, nn.Parameter) else new.requires_grad_(v.requires_grad)
        )

    return fmap(copy, x)


def trainables(x: Any, path: bool = False) -> list[Any]:
    """The arrays in `x` that are trained, each once, from left to right; with `path`, each after its `KeyPath`.

    Inside `gradient` this is differentiated like the model itself.

    >>> trainables(NamedTuple(a=[1.0, 2.0], b=({"c": torch.tensor([3.0])}, 5.0)))
    [tensor([1., 2.]), tensor([3.])]
    >>> trainables(({"c": torch.tensor([3.0])},), path=True)
    [(KeyPath(0, "c"), tensor([3.]))]
    """
    found: dict[int, tuple[KeyPath, Any]] = {}
    _find(x, KeyPath(), (), found, [])
    return list(found.values()) if path else [p for _, p in found.values()]


def _find(
    x: Any, where: KeyPath, above: tuple[int, ...], found: dict[int, tuple[KeyPath, Any]], alive: list[Any]
) -> None:
    if isnumeric(x):
        found.setdefault(id(x), (where, x))
    elif id(x) not in above:
        kids = _trainable(x)  # in the order of the fields
        alive.append(kids)  # children are made on the fly; an id is theirs only while they live
        for key, kid in _items(kids):
            _find(kid, KeyPath(where, key), (*above, id(x)), found, alive)
