"""Torch's own optimizers in the place of a rule: what `setup(torch.optim.AdamW, model)` gives."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from typing import Any

import torch

from fluxtorch.arrays import summary
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.functors import children
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.optimisers.rule import AbstractRule, Arrays, States, _like
from fluxtorch.printing import show

__all__ = ["TorchRule", "TorchTree", "bare", "fitting", "is_factory", "no_copy"]


class TorchRule(AbstractRule):
    """A torch optimizer, shared by all leaves of its state tree; it remembers by itself, so their state is None."""

    whole = True

    def __init__(self) -> None:
        self.optimizer: torch.optim.Optimizer

    def start(self, factory: Any, xs: list[torch.Tensor]) -> torch.optim.Optimizer:
        """Makes the optimizer of the tensors `xs`."""
        if not xs:
            raise ValueError("setup found no trainable parameters in this model")
        optimizer = factory(xs)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise TypeError(f"setup needs a function that makes a torch optimizer, and this made {summary(optimizer)}")
        if {id(p) for p in _parameters(optimizer)} != set(map(id, xs)):
            raise ValueError(
                f"the optimizer must be of all {len(xs)} arrays given to the function that makes it, and no others: "
                "freeze_ parts of the state tree that aren't to be trained"
            )
        closure = inspect.signature(optimizer.step).parameters.get("closure")
        if closure is not None and closure.default is closure.empty:
            raise TypeError(
                f"{type(optimizer).__name__} evaluates the loss by itself, which update_ can't offer: "
                "call its step(closure) in a loop of your own"
            )
        self.optimizer = optimizer
        return optimizer

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        ps = _parameters(self.optimizer)
        by_id, by_memory = {id(p): p for p in ps}, {_memory(p): p for p in ps}
        mine: list[Any] = [by_id.get(id(x), by_memory.get(_memory(x))) for x in xs]
        if any(p is None for p in mine):
            raise ValueError(
                f"{type(self.optimizer).__name__} was set up for other arrays than this model's: "
                "call setup again after copying or moving a model"
            )
        # Optimizers from elsewhere may write into gradients; torch's own don't.
        copies = not type(self.optimizer).__module__.startswith("torch.optim.")
        kept = [p.grad for p in ps]
        try:
            for p in ps:
                p.grad = None
            for x, dx in zip(mine, dxs, strict=True):
                # In the layout that backward() would give it: fused kernels go over memory as it lies.
                same = dx.stride() == x.stride() and not copies
                x.grad = dx.detach() if same else torch.empty_like(x).copy_(dx)
            self.optimizer.step()
        finally:
            for p, grad in zip(ps, kept, strict=True):
                p.grad = grad
        return states

    def changes(self, n: int, eta: Any = None, **fields: Any) -> list[tuple[dict[str, Any], str, Any]]:
        """What adjusting `n` leaves comes to: for each group of parameters, a name in it and its new value."""
        name, groups = type(self.optimizer).__name__, self.optimizer.param_groups
        if n < len(_parameters(self.optimizer)):
            raise ValueError(
                f"the hyper-parameters of {name} are not by array: adjust the whole state tree, or make groups of "
                "parameters in setup, and change those in opt.optimizer.param_groups"
            )
        if eta is not None:
            fields = {"lr": eta, **fields}
        new = []
        for group in groups:
            for key, value in fields.items():
                if key == "params" or key not in group:
                    raise TypeError(f"{name} has no {key}; it has {', '.join(k for k in group if k != 'params')}")
                value = _like(group[key], value, f"{name}'s {key}")
                if key == "lr" and value < 0:
                    raise DomainError(f"the learning rate cannot be negative, and is {value}")
                new.append((group, key, value))
        return new

    def __repr__(self) -> str:
        names = inspect.signature(type(self.optimizer)).parameters.keys() - {"params"}
        groups = [
            ", ".join(f"{k} = {show(v, compact=True)}" for k, v in group.items() if k in names and not _unset(v))
            for group in self.optimizer.param_groups
        ]
        return f"{type(self.optimizer).__name__}({'; '.join(groups)})"


class TorchTree:
    """The state tree of a torch optimizer, which is its attribute `optimizer`; else it answers as the tree itself.

    >>> from fluxtorch.optimisers import setup
    >>> opt = setup(lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9), NamedTuple(w=torch.ones(2), f=torch.tanh))
    >>> opt
    (w = Leaf(SGD(lr = 0.1, momentum = 0.9), nothing), f = ())
    >>> schedule = torch.optim.lr_scheduler.StepLR(opt.optimizer, 10)
    """

    def __init__(self, optimizer: torch.optim.Optimizer, tree: Any) -> None:
        self.optimizer, self._tree = optimizer, tree

    def functor(self) -> tuple[NamedTuple, Any]:
        sizes = tuple([tuple(p.shape) for p in _parameters(self.optimizer)])
        kind = type(self.optimizer).__name__
        return NamedTuple.of({"optimizer": kind, "sizes": sizes, "state": self.optimizer.state_dict()}), no_copy

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._tree, name)

    def __getitem__(self, key: Any) -> Any:
        return self._tree[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._tree)

    def __len__(self) -> int:
        return len(self._tree)

    def __repr__(self) -> str:
        return repr(self._tree)


def is_factory(rule: Any) -> bool:
    """Is `rule` a class of torch optimizers, or a function that may make one?"""
    if isinstance(rule, type):
        return issubclass(rule, torch.optim.Optimizer)
    if isinstance(rule, torch.optim.Optimizer):
        name = type(rule).__name__
        raise TypeError(
            f"setup makes the optimizer by itself: pass the class torch.optim.{name}, or a function of the "
            f"parameters, such as lambda ps: torch.optim.{name}(ps, lr=0.1)"
        )
    return callable(rule) and not isinstance(rule, torch.nn.Module) and not hasattr(rule, "apply_")


def bare(tree: Any) -> Any:
    """The structure of leaves that `tree` is, or stands for."""
    return tree._tree if type(tree) is TorchTree else tree


def fitting(tree: TorchTree, src: Any, at: str) -> dict[str, Any]:
    """A copy of the torch optimizer's state in `src`, another such tree or what `state` made of it, for `tree`."""
    mine, come = children(tree), children(src)
    if not isinstance(come, NamedTuple) or vars(come).keys() != vars(mine).keys():
        raise ValueError(f"Tried to load {summary(src)} into the state of a torch optimizer{at}")
    if come.optimizer != mine.optimizer:
        raise ValueError(f"Tried to load the state of {come.optimizer} into one of {mine.optimizer}{at}")
    if come.sizes != mine.sizes:
        raise DimensionMismatch(f"Tried to load a state for arrays of sizes {come.sizes} into one for {mine.sizes}{at}")
    new, groups = copy.deepcopy(come.state), mine.state["param_groups"]
    if [len(group["params"]) for group in new["param_groups"]] != [len(group["params"]) for group in groups]:
        raise ValueError(f"Tried to load a state with other groups of parameters{at}")
    for group, old in zip(new["param_groups"], groups, strict=True):
        # What is no plain data, such as a function, isn't in a state, and stays.
        group.update({k: old[k] for k, v in group.items() if type(v) is tuple and not v and k in old})
    return new  # type: ignore[no-any-return]


def no_copy(_: Any) -> Any:
    """Refuses what would need a second optimizer."""
    raise TypeError(
        "the state tree of a torch optimizer can't be copied or moved, as the optimizer is bound to its arrays: use "
        "update_ and adjust_, state(opt) to save it, and for a model that was moved elsewhere call setup again"
    )


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _memory(x: torch.Tensor) -> Any:
    return x.dtype, x.data_ptr(), x.shape, x.stride()


def _unset(value: Any) -> bool:
    """Is `value` None, false or zero, as most of torch's options are?"""
    return value is None or (isinstance(value, (bool, int, float)) and not value)
