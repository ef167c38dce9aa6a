"""Flux.Train: `setup`, `update_` and `train_`, for both styles."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from fluxtorch import optimise
from fluxtorch.functors import fleaves
from fluxtorch.optimise import Watch, arguments, epochs, is_rule, loop, skip, stop, update_
from fluxtorch.optimisers import Leaf, setup
from fluxtorch.optimisers.interface import groups_of, leaves_at, step_all_
from fluxtorch.optimisers.interface import update_ as update_explicit_
from fluxtorch.zygote.explicit import collect, flat_withgradient
from fluxtorch.zygote.gradient import withgradient
from fluxtorch.zygote.implicit import Params

__all__ = ["epochs", "setup", "skip", "stop", "train_", "trainstep_", "trainstep_withgradient_", "update_"]


def train_(loss: Callable[..., Any], model: Any, data: Any, opt: Any = None, cb: Any = None) -> None:
    """Trains once through `data`: for each item `d`, one step by the gradient of the loss.

    - Explicit: `train_(loss, model, data, opt_state)`, with a state tree from `setup`; the loss is
      `loss(model, *d)` for a tuple `d`, else `loss(model, d)`. The model and the tree are changed in
      place. In the place of the tree a rule will do, with a warning if it has state, which is lost.
    - Implicit: `train_(loss, ps, data, rule, cb=…)`, with a `Params`; the loss is `loss(*d)` or
      `loss(d)`. `cb`, a function or a list of them, is called after each update.

    `data` is anything that can be iterated over. `stop()` in a loss or callback ends the training,
    `skip()` in a loss skips an update. If tqdm is installed, a terminal or notebook shows a bar after
    the first second, unless there are callbacks.

    Raises `DomainError` when the loss is NaN or infinite, before the update; `TypeError` where the
    two styles are mixed; `KeyboardInterrupt` for Ctrl-C, when the step that is running is done, and for
    a second one at once, unless it is updating. Warns if `data` is an iterator that gives nothing.

    >>> import torch.nn.functional as F
    >>> from fluxtorch.optimisers import Momentum
    >>> model = nt(weight=[[1.0, 1.0]], bias=[0.0])
    >>> opt_state = setup(Momentum(0.1), model)
    >>> x1, y1 = torch.tensor([0.2, -0.3]), torch.tensor([0.4])
    >>> def loss(m, x, y):
    ...     return (F.leaky_relu(m.weight @ x + m.bias) - y).abs().sum() * 100
    >>> train_(loss, model, [(x1, y1), (x1, y1)], opt_state)
    >>> model.bias
    tensor([10.1900])
    >>> opt_state
    (weight = Leaf(Momentum(0.1, 0.9), [-2.018 3.027]), bias = Leaf(Momentum(0.1, 0.9), [-10.09]))
    """
    if isinstance(model, Params) or opt is None:
        return optimise.train_(loss, model, data, opt, cb)
    if cb is not None:
        raise TypeError(
            "train_ with a model has no callbacks: for more control, write the loop with gradient and update_"
        )
    tree = _state_for(opt, model) if is_rule(opt) else opt
    take = _Step(loss, model, tree)
    warned = False

    def step(i: int, d: Any) -> None:
        nonlocal warned
        take(d, i)
        if take.idle and not warned:
            warned = True
            warnings.warn(
                "the loss doesn't depend on the model, so nothing is trained: does it use its first argument?",
                stacklevel=4,
            )

    return loop(step, data)


def trainstep_(loss: Callable[..., Any], model: Any, batch: Any, opt_state: Any) -> Any:
    """One step of training, in place, by the gradient of `loss(model, *batch)`; gives the loss before the step.

    A `batch` that isn't a tuple is passed as it is. If the loss is a tuple or named tuple, its first
    entry is what is differentiated, and all of it is given back. If the loss is NaN or infinite,
    there is no update.

    >>> from fluxtorch.optimisers import Descent
    >>> m = nt(w=[1.0, 2.0])
    >>> trainstep_(lambda m, x: (m.w * x).sum(), m, 3.0, setup(Descent(0.1), m))
    tensor(9.)
    >>> m
    (w = [0.7, 1.7],)
    """
    return _Step(loss, model, opt_state)(batch)


def trainstep_withgradient_(loss: Callable[..., Any], model: Any, batch: Any, opt_state: Any) -> tuple[Any, Any]:
    """Like `trainstep_`, but gives the loss and the gradient of the model.

    >>> from fluxtorch.optimisers import Descent
    >>> m = nt(w=[1.0, 2.0])
    >>> trainstep_withgradient_(lambda m, x: (m.w * x).sum(), m, 3.0, setup(Descent(0.1), m))
    (tensor(9.), (w = [3.0, 3.0],))
    """
    step = _Step(loss, model, opt_state)
    value = step(batch)
    return value, step.grad


class _Step:
    """One step of training after another: `step(batch)` gives the loss, with all that came with it.

    A loss that isn't finite raises `DomainError` if the step is that of a data `item`; else there is no update.
    """

    def __init__(self, loss: Callable[..., Any], model: Any, tree: Any) -> None:
        self._loss, self._model, self._tree = loss, model, tree
        self._place: Any = None
        self._grads: Any = ()
        self._watch = Watch()

    def __call__(self, batch: Any, item: int | None = None) -> Any:
        args, loss, watch = arguments(batch), self._loss, self._watch
        self._grads = None  # the memory of the last step's is free for this one's
        if not isinstance(self._model, nn.Module):
            value, (self._grads,) = withgradient(lambda m: watch.on(loss(m, *args)), self._model)
            xs = leaves = None
        else:
            value, place, xs, self._grads = flat_withgradient(lambda m: watch.on(loss(m, *args)), self._model)
            self._place, leaves = place, leaves_at(self._tree, place, len(xs))
        if item is not None:
            watch.check(value, item)
        elif not watch.finite(value):
            return value
        # The way of update_, without its walk: the gradients are known to fit.
        groups = None if leaves is None else groups_of(zip(leaves, xs or (), self._grads, strict=True))
        if groups is None:
            update_explicit_(self._tree, self._model, self.grad)
        else:
            step_all_(groups)
        return value

    @property
    def grad(self) -> Any:
        """The gradient of the last step, in the model's structure."""
        return collect(self._place, self._grads) if isinstance(self._model, nn.Module) else self._grads

    @property
    def idle(self) -> bool:
        """Did the loss of the last step not depend on the model?"""
        return self._grads is None or (type(self._grads) is tuple and all(g is None for g in self._grads))


def _state_for(rule: Any, model: Any) -> Any:
    tree = setup(rule, model)
    if any(leaf.state is not None for leaf in fleaves(tree, lambda v: isinstance(v, Leaf)) if isinstance(leaf, Leaf)):
        name = type(rule).__name__
        warnings.warn(
            f"{name} has state, which will be discarded after train_ finishes. "
            f"Please run opt = setup({name}(…), model) and pass this opt to train_.",
            stacklevel=3,
        )
    return tree
