"""The way back: torch's gradient of a result by chosen tensors, in which what was computed before is constant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn.parallel import DistributedDataParallel
from torch.torch_version import TorchVersion

from fluxtorch.zygote.later import together, wished
from fluxtorch.zygote.scope import nested
from fluxtorch.zygote.tracked import raw

# What is private to torch is asked for only in versions in which that was tried.
TRIED = TorchVersion(torch.__version__) < "2.14"
# What torch.autograd.grad calls once it is sure of what is known here, and has made its settings known to the threads
# of a GPU.
_engine: Any = torch.autograd.Variable._execution_engine if TRIED else None

__all__ = ["TRIED", "differentiate", "ends", "is_wrapper", "reaches_back"]


def reaches_back(ys: Sequence[torch.Tensor], start: int) -> bool:
    """Was any of the operations behind `ys` done before operation number `start` of this thread?"""
    stack = [y.grad_fn for y in ys if y.grad_fn is not None]
    seen = set(stack)
    while stack:
        node = stack.pop()
        if node._sequence_nr() < start:  # a leaf has the greatest number there is
            return True
        for behind, _ in node.next_functions:
            if behind is not None and behind not in seen:
                seen.add(behind)
                stack.append(behind)
    return False


def differentiate(
    ys: Sequence[torch.Tensor],
    leaves: Sequence[torch.Tensor],
    seeds: Sequence[torch.Tensor] | None = None,
    keep: bool = False,
    before: int | None = None,
    wrappers: Sequence[torch.nn.Module] = (),
) -> Sequence[torch.Tensor | None]:
    """The gradient of `ys`, seeded with `seeds`, by each of `leaves`; None where they don't depend on one.

    With `before`, whatever was computed earlier than that operation counts as constant, even if
    torch remembers how it came from `leaves`. With `wrappers`, modules that `is_wrapper` tells of,
    the gradient is what they make of it in `backward()`. Raises `RuntimeError` where they can't.
    """
    if not leaves or not ys:
        return (None,) * len(leaves)
    again = nested()
    plain = seeds is None and before is None and not wrappers
    if plain and len(ys) == 1 and type(ys[0]) is torch.Tensor and _engine is not None and ys[0].is_cpu:
        y = ys[0]
        # At the end: a leaf on which the loss doesn't depend is no error, and nothing goes into any `.grad`.
        way = (y,), (torch.ones_like(y),), keep or again, again, tuple(leaves), True, False
        if keep or again or not wished():
            return _engine.run_backward(*way)  # type: ignore[no-any-return]
        return together(lambda: _engine.run_backward(*way), y, leaves)
    ys = [raw(y) for y in ys]
    if wrappers:
        if again or before is not None or not all(leaf.is_leaf for leaf in leaves):
            raise RuntimeError(
                f"under {type(wrappers[0]).__name__}, torch combines the processes' gradients in backward(), which "
                "can neither be inside of another gradient nor stop at what was computed before the call"
            )
        return _by_backward(ys, leaves, seeds, wrappers)
    if before is not None:
        return _by_new_operations(ys, leaves, seeds, again, before)
    return torch.autograd.grad(
        ys, leaves, seeds, retain_graph=True if keep or again else None, create_graph=again, allow_unused=True
    )


def is_wrapper(module: Any) -> bool:
    """Does `module` make something else of its parameters' gradients, once `backward()` has put them into `.grad`?"""
    if isinstance(module, DistributedDataParallel):
        return True
    # What fully_shard has changed, and what came before it, are known by a method: to import them takes half a second.
    return hasattr(type(module), "set_requires_gradient_sync") or hasattr(type(module), "summon_full_params")


def _by_backward(
    ys: list[torch.Tensor],
    leaves: Sequence[torch.Tensor],
    seeds: Sequence[torch.Tensor] | None,
    wrappers: Sequence[torch.nn.Module],
) -> Sequence[torch.Tensor | None]:
    shared = any(getattr(module, "gradient_as_bucket_view", False) for module in wrappers)

    def own(grad: torch.Tensor | None) -> torch.Tensor | None:
        return grad.clone() if shared and grad is not None else grad

    known = {id(x): x for x in (*ends(ys), *leaves)}
    kept = [(x, x.grad, own(x.grad)) for x in known.values()]
    try:
        for x, _, _ in kept:
            x.grad = None
        torch.autograd.backward(ys, seeds)
        return tuple([own(x.grad) for x in leaves])
    finally:
        for x, grad, copy in kept:
            x.grad = grad
            if (
                grad is not None and copy is not None and copy is not grad
            ):  # what was there lies in the memory that the next gradient goes through
                grad.copy_(copy)


def ends(ys: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The tensors into whose `.grad` the gradient of `ys` would go."""
    stack = [get_gradient_edge(y).node for y in ys]
    seen = set(stack)
    while stack:
        for behind, _ in stack.pop().next_functions:
            if behind is not None and behind not in seen:
                seen.add(behind)
                stack.append(behind)
    return [node.variable for node in seen if hasattr(node, "variable")]


def _by_new_operations(
    ys: list[torch.Tensor],
    leaves: Sequence[torch.Tensor],
    seeds: Sequence[torch.Tensor] | None,
    again: bool,
    start: int,
) -> Sequence[torch.Tensor | None]:
    # torch's engine goes wherever a leaf can be reached. So it is asked for the gradients at the last
    # new operations before the leaves, and those operations are taken back one by one.
    number = {get_gradient_edge(leaf)[:2]: i for i, leaf in enumerate(leaves)}
    totals: list[torch.Tensor | None] = [None] * len(leaves)

    def add(i: int, grad: torch.Tensor | None) -> None:
        if grad is not None:
            grad = grad.sum_to_size(leaves[i].shape).to(leaves[i].dtype)
            before = totals[i]
            totals[i] = grad if before is None else before + grad

    outputs: dict[Any, set[int]] = {}
    last: dict[Any, list[tuple[int, int]]] = {}
    stack: list[Any] = []

    def reach(node: Any, output: int) -> None:
        if node._sequence_nr() >= start:
            if node not in outputs:
                stack.append(node)
            outputs.setdefault(node, set()).add(output)

    for y, seed in zip(ys, seeds or [torch.ones_like(y) for y in ys], strict=True):
        edge = get_gradient_edge(y)[:2]
        if edge in number:
            add(number[edge], seed)
        else:
            reach(*edge)
    while stack:
        node = stack.pop()
        for slot, (behind, output) in enumerate(node.next_functions):
            if (behind, output) in number:
                last.setdefault(node, []).append((slot, number[behind, output]))
            elif behind is not None:
                reach(behind, output)
    edges = [GradientEdge(node, output) for node in last for output in sorted(outputs[node])]
    if not edges:
        return tuple(totals)
    found = torch.autograd.grad(ys, edges, seeds, retain_graph=True, create_graph=again, allow_unused=True)
    at = {edge[:2]: grad for edge, grad in zip(edges, found, strict=True)}
    with torch.set_grad_enabled(again):
        for node, slots in last.items():
            grads = _taken_back(node, [at.get((node, k)) for k in range(len(node._input_metadata))])
            for slot, i in slots:
                add(i, grads[slot])
    return tuple(totals)


def _taken_back(node: Any, grads: list[torch.Tensor | None]) -> Sequence[torch.Tensor | None]:
    if all(grad is None for grad in grads):
        return [None] * len(node.next_functions)
    if hasattr(node, "apply"):  # a torch.autograd.Function, which expects zeros for None
        like = node._input_metadata
        given = [
            torch.zeros(m.shape, dtype=m.dtype, device=m.device) if g is None else g
            for g, m in zip(grads, like, strict=True)
        ]
        result = node.apply(*given)
    else:
        result = node(*grads)
    return result if isinstance(result, tuple) else (result,)
