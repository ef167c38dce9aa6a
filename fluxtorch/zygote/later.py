"""Products for the gradient by weights that many small operations share, put off until all can be made at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch

__all__ = ["put_off", "together", "wish", "wished"]


class _Local(threading.local):
    wished = False
    kept: _Kept | None = None


_local = _Local()


class _Kept:
    """What was put off on one way back, by the leaves of that."""

    def __init__(self, leaves: Sequence[torch.Tensor]) -> None:
        # Whoever hooked a tensor is to see the whole of its gradient.
        self.at = {id(x): i for i, x in enumerate(leaves) if not x._backward_hooks}
        self.task: int | None = None
        self.products: dict[tuple[int, ...], tuple[Callable[..., torch.Tensor], list[tuple[torch.Tensor, ...]]]] = {}

    def begin(self, _: Any) -> None:
        self.task = torch._C._current_graph_task_id()  # type: ignore[attr-defined]

    def added_to(self, grads: Sequence[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
        """The gradients by the leaves with what was put off."""
        sums = list(grads)
        for key, (product, steps) in self.products.items():
            d, *inputs = (torch.cat(column) for column in zip(*steps, strict=True))
            for w, x in zip(key, (*inputs, None), strict=True):
                i = self.at[w]
                more, before = d.sum(0) if x is None else product(d.t(), x.t()), sums[i]
                sums[i] = more if before is None else before + more
        return tuple(sums)


def wish() -> None:
    """Says that the operations of this thread's gradient have products to put off."""
    _local.wished = True


def wished() -> bool:
    """Has any operation said so since the last time this was asked?"""
    if not _local.wished:
        return False
    _local.wished = False
    return True


def put_off(
    product: Callable[..., torch.Tensor], weights: Sequence[torch.Tensor], d: torch.Tensor, *inputs: torch.Tensor
) -> bool:
    """Puts off `product(d', x')` for each of `inputs` and the weights it belongs to; `sum(d)` for the last, the bias.

    False where that can't be: on another way back than that of the gradient, or by weights that it isn't by.
    """
    kept = _local.kept
    if kept is None or kept.task != torch._C._current_graph_task_id():  # type: ignore[attr-defined]
        return False
    key = tuple(map(id, weights))
    if key not in kept.products:
        if not kept.at.keys() >= set(key):
            return False
        kept.products[key] = product, []
    kept.products[key][1].append((d, *inputs))
    return True


def together(
    run: Callable[[], Sequence[torch.Tensor | None]], y: torch.Tensor, leaves: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor | None]:
    """The gradient of `y` by `leaves` that `run` finds, and what was put off on the way."""
    kept, outer = _Kept(leaves), _local.kept
    hook = y.register_hook(kept.begin)
    _local.kept = kept
    try:
        grads = run()
    finally:
        _local.kept = outer
        hook.remove()
    with torch.no_grad():
        return kept.added_to(grads)
