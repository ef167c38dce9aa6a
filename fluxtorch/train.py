"""Flux.Train: `setup`, `update_` and `train_`, for both styles."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from fluxtorch import optimise
from fluxtorch.functors import fleaves
from fluxtorch.optimise import arguments, check_finite, epochs, is_rule, loop, skip, stop, update_
from fluxtorch.optimisers import Leaf, setup
from fluxtorch.optimisers.interface import update_ as update_explicit_
from fluxtorch.zygote.explicit import first_of
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
    `skip()` in a loss skips an update.

    Raises `DomainError` when the loss is NaN or infinite, before the update; `TypeError` where the
    two styles are mixed. Warns if `data` is an iterator that gives nothing.

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
    warned = False

    def step(i: int, d: Any) -> None:
        nonlocal warned
        _, grad = _step(loss, model, d, tree, i)
        if grad is None and not warned:
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
    return _step(loss, model, batch, opt_state)[0]


def trainstep_withgradient_(loss: Callable[..., Any], model: Any, batch: Any, opt_state: Any) -> tuple[Any, Any]:
    """Like `trainstep_`, but gives the loss and the gradient of the model.

    >>> from fluxtorch.optimisers import Descent
    >>> m = nt(w=[1.0, 2.0])
    >>> trainstep_withgradient_(lambda m, x: (m.w * x).sum(), m, 3.0, setup(Descent(0.1), m))
    (tensor(9.), (w = [3.0, 3.0],))
    """
    return _step(loss, model, batch, opt_state)


def _step(loss: Callable[..., Any], model: Any, d: Any, tree: Any, item: int | None = None) -> tuple[Any, Any]:
    """The loss, with all that came with it, and its gradient, by which `model` and `tree` have been stepped.

    A loss that isn't finite raises `DomainError` for the data item `item`; without one, it makes no step.
    """
    args = arguments(d)
    value, (grad,) = withgradient(lambda m: loss(m, *args), model)
    if item is not None:
        check_finite(value, item)
    if item is not None or math.isfinite(first_of(value)):
        update_explicit_(tree, model, grad)
    return value, grad


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
