"""Changing a state tree between steps: its rules' fields, or which parts of it are frozen."""

from __future__ import annotations

from typing import Any

import torch

from fluxtorch.arrays import summary
from fluxtorch.functors import _items
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.optimisers.interface import Leaf, Transposed, copied
from fluxtorch.optimisers.rule import AbstractRule
from fluxtorch.optimisers.torch_optim import TorchRule, bare, no_copy

__all__ = ["adjust", "adjust_", "freeze_", "thaw_"]


def adjust_(tree: Any, eta: float | None = None, **fields: Any) -> None:
    """Changes the rules in the state tree `tree`, or in a part of one, and keeps their states.

    A number is the learning rate; other fields go by name: `adjust_(tree, beta=(0.8, 0.99))`. Rules
    inside a chain change too; those that don't have such a field stay as they are. In the tree of a
    torch optimizer, names are torch's (`lr`, `betas`), and one that it doesn't have is a `TypeError`.
    Raises `DomainError` for a negative learning rate, `ValueError` if `tree` is no state tree, or a
    part of a torch optimizer's, and `TypeError` if nothing is to be changed; then nothing is.

    >>> from fluxtorch.optimisers import Nesterov, setup
    >>> import torch
    >>> t = setup(Nesterov(), (torch.zeros(2), torch.tanh))
    >>> adjust_(t, 0.123)
    >>> t
    (Leaf(Nesterov(0.123, 0.9), [0.0, 0.0]), ())
    """
    fields = _fields(eta, fields)
    together: dict[int, list[Leaf]] = {}  # leaves that share a rule go on sharing one
    for leaf in _leaves(tree, "adjust_"):
        together.setdefault(id(leaf.rule), []).append(leaf)
    news: list[tuple[list[Leaf], AbstractRule]] = []
    changes: list[tuple[dict[str, Any], str, Any]] = []
    for leaves in together.values():
        rule = leaves[0].rule
        if isinstance(rule, TorchRule):
            changes += rule.changes(len(leaves), **fields)
        else:
            news.append((leaves, rule.adjusted(**fields)))
    for leaves, rule in news:
        for leaf in leaves:
            leaf.rule = rule
    for group, name, value in changes:
        if isinstance(group[name], torch.Tensor):  # compiled steps hold that very one
            group[name].fill_(value)
        else:
            group[name] = value


def adjust(tree: Any, eta: float | None = None, **fields: Any) -> Any:
    """Like `adjust_`, on a copy of a state tree, or of a rule. Gives the copy.

    >>> from fluxtorch.optimisers import Adam
    >>> adjust(Adam(), beta=(0.777, 0.909))
    Adam(0.001, (0.777, 0.909), 1.0e-8)
    """
    if isinstance(tree, AbstractRule):
        return tree.adjusted(**_fields(eta, fields))
    if any(isinstance(leaf.rule, TorchRule) for leaf in _leaves(tree, "adjust")):
        no_copy(tree)
    tree = copied(tree)
    adjust_(tree, eta, **fields)
    return tree


def _fields(eta: float | None, fields: dict[str, Any]) -> dict[str, Any]:
    if eta is not None:
        fields = {"eta": eta, **fields}
    if not fields:
        raise TypeError("adjust must be given something to change: a learning rate, or fields by name")
    return fields


def freeze_(tree: Any) -> None:
    """Keeps `update_` from changing the parameters of the state tree `tree`, or of a part of one, until `thaw_`.

    Only parameters: to keep the statistics of batch-norms too, put that part of the model in `testmode_`.

    Raises `ValueError` if `tree` is no state tree.

    >>> from fluxtorch.optimisers import Momentum, setup
    >>> import torch
    >>> t = setup(Momentum(), (torch.zeros(1), torch.zeros(2)))
    >>> freeze_(t[0])
    >>> t
    (Leaf(Momentum(0.01, 0.9), [0.0], frozen = true), Leaf(Momentum(0.01, 0.9), [0.0, 0.0]))
    """
    for leaf in _leaves(tree, "freeze_"):
        leaf.frozen = True


def thaw_(tree: Any) -> None:
    """Undoes `freeze_`, in the state tree `tree` or in a part of one. Raises `ValueError` if `tree` is no state tree.

    >>> from fluxtorch.optimisers import Momentum
    >>> import torch
    >>> t = [Leaf(Momentum(), torch.zeros(1), frozen=True)]
    >>> thaw_(t)
    >>> t
    [Leaf(Momentum(0.01, 0.9), [0.0])]
    """
    for leaf in _leaves(tree, "thaw_"):
        leaf.frozen = False


def _leaves(tree: Any, name: str) -> list[Leaf]:
    """The leaves of `tree`, each once."""
    found: dict[int, Leaf] = {}
    _find(tree, name, found)
    return list(found.values())


def _find(tree: Any, name: str, found: dict[int, Leaf]) -> None:
    tree = tree.parent if isinstance(tree, Transposed) else bare(tree)
    if isinstance(tree, Leaf):
        found[id(tree)] = tree
    elif type(tree) in (tuple, list, dict, NamedTuple):
        for _, kid in _items(tree):
            _find(kid, name, found)
    else:
        raise ValueError(
            f"{name} must not be applied to a model, only to the state tree from setup; got {summary(tree)}"
        )
