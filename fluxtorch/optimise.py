"""Flux.Optimise: training in the implicit style, in which a rule itself remembers what it knows of each parameter.

The rules are those of `optimisers`, under their older names too, and those that Optimisers.jl hasn't.
A rule may be changed at any time (`opt.eta = 0.01`).
"""

from __future__ import annotations

import contextlib
import math
import operator
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from fluxtorch.arrays import summary
from fluxtorch.errors import DomainError
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.optimisers import interface, rules
from fluxtorch.optimisers.interface import fit
from fluxtorch.optimisers.rule import AbstractRule, Arrays, States
from fluxtorch.optimisers.rules import (
    AdaDelta,
    AdaGrad,
    Adam,
    AdaMax,
    AMSGrad,
    Descent,
    Momentum,
    NAdam,
    Nesterov,
    OAdam,
    OptimiserChain,
    RAdam,
    RMSProp,
    SignDecay,
)
from fluxtorch.optimisers.torch_optim import bare
from fluxtorch.zygote.explicit import first_of
from fluxtorch.zygote.gradient import withgradient
from fluxtorch.zygote.implicit import Grads, Params

__all__ = [
    "ADAM",
    "ADAMW",
    "NADAM",
    "OADAM",
    "RADAM",
    "SGD",
    "ADADelta",
    "ADAGrad",
    "AMSGrad",
    "AbstractOptimiser",
    "AdaBelief",
    "AdaDelta",
    "AdaGrad",
    "AdaMax",
    "Adam",
    "AdamW",
    "ClipNorm",
    "ClipValue",
    "Descent",
    "ExpDecay",
    "InvDecay",
    "Momentum",
    "NAdam",
    "Nesterov",
    "OAdam",
    "Optimiser",
    "RAdam",
    "RMSProp",
    "SignDecay",
    "WeightDecay",
    "apply_",
    "epochs",
    "skip",
    "stop",
    "train_",
    "update_",
]

ADAM, NADAM, RADAM, OADAM, ADAGrad, ADADelta = Adam, NAdam, RAdam, OAdam, AdaGrad, AdaDelta


class AbstractOptimiser:
    """The base class of rules of one's own in the old style: `apply_(x, dx)` gives what to subtract from `x`.

    Such a rule remembers by itself, and may write into `dx`, which is a copy. It works with `update_`
    and `train_` in the implicit style, and inside `Optimiser`.

    >>> class Half(AbstractOptimiser):
    ...     def apply_(self, x, dx):
    ...         return dx.mul_(0.5)
    >>> W = torch.ones(2)
    >>> update_(Half(), W, torch.ones(2))
    >>> W
    tensor([0.5000, 0.5000])
    """

    def apply_(self, x: torch.Tensor, dx: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError(f"{type(self).__name__} needs a method apply_(self, x, dx)")

    def init(self, x: torch.Tensor) -> None:
        return None

    def apply_all_(self, states: States, xs: Arrays, dxs: Arrays) -> tuple[States, States]:
        return states, [self.apply_(x, dx.clone()) for x, dx in zip(xs, dxs, strict=True)]

    def step_(self, states: States, xs: Arrays, dxs: Arrays) -> States:
        states, steps = self.apply_all_(states, xs, dxs)
        torch._foreach_sub_(xs, steps)
        return states


class _OldStyle(AbstractOptimiser):
    """Anything with such an `apply_`, of whatever class."""

    def __init__(self, rule: Any) -> None:
        self.apply_ = rule.apply_  # type: ignore[method-assign]


class AdaBelief(rules.AdaBelief):
    """AdaBelief, whose `ε` is given as its root: where `optimisers.AdaBelief` adds `ε`, this adds `ε²`.

    >>> from fluxtorch import optimise
    >>> optimise.AdaBelief()
    AdaBelief(0.001, (0.9, 0.999), 1.0e-8)
    """

    epsilon: float = 1e-8
    grouped = True

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return rules.AdaBelief(self.eta, self.beta, self.epsilon**2).apply_(state, x, dx)

    def explicit(self) -> AbstractRule:
        return rules.AdaBelief(self.eta, self.beta, self.epsilon)


class WeightDecay(rules.WeightDecay):
    """Adds `wd x` to the gradient. Unlike `optimisers.WeightDecay`, by default it does nothing.

    >>> from fluxtorch import optimise
    >>> opt = Optimiser(optimise.WeightDecay(1e-4), Adam())
    >>> opt[0].wd
    0.0001
    """

    def __init__(self, wd: float = 0) -> None:
        self.lambda_ = wd

    @property
    def wd(self) -> float:
        """The strength of the decay."""
        return self.lambda_

    @wd.setter
    def wd(self, value: float) -> None:
        self.lambda_ = value

    def explicit(self) -> AbstractRule:
        return rules.WeightDecay(self.lambda_)


class ClipValue(AbstractRule):
    """Keeps each number of the gradient between `-thresh` and `thresh`. `setup` makes it a `ClipGrad`.

    >>> from fluxtorch.optimise import apply_
    >>> apply_(ClipValue(1), torch.ones(2), torch.tensor([0.5, -3.0]))
    tensor([ 0.5000, -1.0000])
    """

    thresh: float
    grouped = True

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state, dx.clamp_max(self.thresh).clamp_min_(-self.thresh)

    def explicit(self) -> AbstractRule:
        return rules.ClipGrad(self.thresh)


class ClipNorm(AbstractRule):
    """Scales a gradient whose L2 norm is above `thresh` down to that norm, each array by itself; one with NaN stays.

    `setup` makes it the newer `ClipNorm`, which raises an error for NaN.

    >>> from fluxtorch import optimise
    >>> optimise.apply_(optimise.ClipNorm(5), torch.ones(2), torch.tensor([30.0, 40.0]))
    tensor([3., 4.])
    """

    thresh: float

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        norm = dx.norm()
        return state, dx / torch.where(norm > self.thresh, norm / self.thresh, 1.0)

    def explicit(self) -> AbstractRule:
        return rules.ClipNorm(self.thresh)


class _Schedule(AbstractRule):
    """A rule that counts steps, which no state tree holds."""

    def explicit(self) -> AbstractRule:
        raise TypeError(f"setup does not know how to translate the old-style implicit rule {self!r} to an explicit one")


class InvDecay(_Schedule):
    """Divides the `n`-th step of each array by `1 + γ n`; last in an `Optimiser`.

    >>> opt = Optimiser(Adam(1e-3), InvDecay(1e-2))
    >>> from fluxtorch.optimise import apply_
    >>> W = torch.ones(1)
    >>> apply_(InvDecay(1.0), W, torch.tensor([6.0]))
    tensor([3.])
    """

    gamma: float = 0.001
    grouped = True

    def init(self, x: torch.Tensor) -> int:
        return 1

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        return state + 1, dx.mul(1 / (1 + self.gamma * state))


class ExpDecay(_Schedule):
    """Multiplies by `η`, which itself is multiplied by `decay` every `decay_step` steps, down to `clip`.

    Steps up to the number `start` don't count. The field `step` is `decay_step`. With another rule
    that has a learning rate, `η` is best 1.

    >>> from fluxtorch.optimise import apply_
    >>> opt = ExpDecay(0.2, 0.5, 1, 1e-3)
    >>> W = torch.zeros(1)
    >>> [apply_(opt, W, torch.ones(1)).item() for _ in range(2)]
    [0.10000000149011612, 0.05000000074505806]
    """

    def __init__(
        self, eta: float = 0.001, decay: float = 0.1, decay_step: int = 1000, clip: float = 1e-4, start: int = 0
    ) -> None:
        self.eta, self.decay, self.step, self.clip, self.start = eta, decay, decay_step, clip, start

    def init(self, x: torch.Tensor) -> int:
        return 0

    def apply_(self, state: Any, x: Any, dx: Any) -> tuple[Any, Any]:
        raise TypeError("ExpDecay counts the steps of all arrays, and works only in the implicit style")

    def apply_all_(self, states: States, xs: Arrays, dxs: Arrays) -> tuple[States, States]:
        steps = []
        memory = _memory(self)
        for x, dx in zip(xs, dxs, strict=True):
            memory[id(x)][1] += 1
            if self._due(memory[id(x)][1]) and sum(self._due(n) for _, n in memory.values()) == 1:
                self.eta = max(self.eta * self.decay, self.clip)
            steps.append(dx * self.eta)
        return [memory[id(x)][1] for x in xs], steps

    def _due(self, n: int) -> bool:
        return n > self.start and n % self.step == 0


class Optimiser(OptimiserChain):
    """Rules one after the other, each given what the last one made of the gradient; a list that can be changed.

    >>> opt = Optimiser(ClipValue(1e-3), Adam(1e-3))
    >>> opt[1].eta = 0.1
    >>> opt.push_(InvDecay())
    Optimiser(ClipValue(0.001), Adam(0.1, (0.9, 0.999), 1.0e-8), InvDecay(0.001))
    """

    def __init__(self, *opts: Any) -> None:
        if len(opts) == 1 and type(opts[0]) in (list, tuple):
            opts = tuple(opts[0])
        super().__init__(*opts)

    @property
    def os(self) -> list[Any]:
        """The rules as a list."""
        return list(self.opts)

    def push_(self, *opts: Any) -> Optimiser:
        """Puts rules at the end; gives the same `Optimiser`."""
        self.opts = Optimiser(*self.opts, *opts).opts
        return self

    def __setitem__(self, i: int, opt: Any) -> None:
        opts = self.os
        opts[i] = opt
        self.opts = Optimiser(*opts).opts

    def explicit(self) -> AbstractRule:
        return OptimiserChain(*self.opts).explicit()


def AdamW(eta: float = 0.001, beta: tuple[float, float] = (0.9, 0.999), decay: float = 0) -> Optimiser:
    """Adam with weights that decay apart from it: `Optimiser(Adam(η, β), WeightDecay(decay))`.

    >>> from fluxtorch import optimise
    >>> optimise.AdamW(0.001, (0.89, 0.995), 0.1)
    Optimiser(Adam(0.001, (0.89, 0.995), 1.0e-8), WeightDecay(0.1))
    """
    return Optimiser(Adam(eta, beta), WeightDecay(decay))


ADAMW = AdamW


class _Updater:
    """A rule bound to parameters, which a call steps by the gradients that `back_` has left with them."""

    def __init__(self, params: Params, rule: AbstractRule) -> None:
        self.params, self.rule = params, rule

    def __call__(self) -> None:
        update_(self.rule, self.params, {x: x.grad for x in self.params})
        for x in self.params:
            x.grad = None


def SGD(params: Any, eta: float = 0.1, decay: float = 0.0) -> Any:
    """The oldest spelling of `Descent`: `opt = SGD(params(m), 0.1)`, for `train_(loss, data, opt)`.

    Or for `opt()`, after `back_` has left gradients with the parameters: it takes them away again.
    With `decay`, the rate falls as by `InvDecay(decay)`. Given a number, it is `Descent`.

    >>> SGD(0.1)
    Descent(0.1)
    """
    if isinstance(params, (int, float)):
        return Descent(params)
    rule = Optimiser(Descent(eta), InvDecay(decay)) if decay else Descent(eta)
    return _Updater(Params([params] if isinstance(params, torch.Tensor) else params), rule)


# -- what a rule remembers of each tensor -----------------------------------------------------------


def _memory(rule: AbstractRule) -> dict[int, list[Any]]:
    """Tensors, each with its state, by their identity; the tensor is held, so that its id can't be reused."""
    memory: dict[int, list[Any]] = vars(rule).setdefault("_memory", {})
    return memory


def _recall(rule: Any, x: torch.Tensor) -> Any:
    if isinstance(rule, OptimiserChain):
        return tuple(_recall(opt, x) for opt in rule.opts)
    if not isinstance(rule, AbstractRule):
        return None
    memory = _memory(rule)
    if id(x) not in memory:
        memory[id(x)] = [x, rule.init(x)]
    return memory[id(x)][1]


def _remember(rule: Any, x: torch.Tensor, state: Any) -> None:
    if isinstance(rule, OptimiserChain):
        for opt, s in zip(rule.opts, state, strict=True):
            _remember(opt, x, s)
    elif isinstance(rule, AbstractRule):
        _memory(rule)[id(x)][1] = state


def apply_(rule: Any, x: torch.Tensor, dx: torch.Tensor) -> torch.Tensor | None:
    """What `rule` would subtract from the tensor `x` for the gradient `dx`, of its size; `rule` remembers the step.

    None for nothing yet, as `AccumGrad` gives it.

    >>> from fluxtorch.optimise import apply_
    >>> apply_(Descent(0.1), torch.ones(2), torch.tensor([4.0, 5.0]))
    tensor([0.4000, 0.5000])
    """
    with torch.no_grad():
        states, steps = _rule(rule).apply_all_([_recall(rule, x)], [x], [fit(dx, x)])
        _remember(rule, x, states[0])
        return None if steps[0] is None else steps[0].clone()


def is_rule(opt: Any) -> bool:
    if isinstance(opt, (AbstractRule, AbstractOptimiser)):
        return True
    if isinstance(opt, (NamedTuple, type, torch.Tensor, torch.nn.Module)):
        return False
    return callable(getattr(opt, "apply_", None))


def _rule(opt: Any) -> Any:
    return opt if isinstance(opt, (AbstractRule, AbstractOptimiser)) else _OldStyle(opt)


def update_(opt: Any, model: Any, grad: Any = ...) -> Any:
    """One step of training, in whichever style the arguments are. What is trained is changed in place.

    - `update_(opt_state, model, grad)`, explicit: a state tree from `setup`, a model, and the gradient of the
      model alone. Gives `(opt_state, model)`, as `optimisers.update_` does, and raises what that raises.
    - `update_(rule, ps, gs)`, implicit: a rule, a `Params`, and the `Grads` of the same tensors.
    - `update_(rule, x, dx)`: a rule, one tensor, and its gradient.
    - `update_(x, dx)`: `x -= dx`.

    Where the gradient is None, nothing happens. Raises `TypeError`, with advice, where the styles are
    mixed, and `KeyError` for a parameter that `gs` is not by; then nothing is changed. The whole
    tuple that `gradient` gives is taken for its first entry, with a warning.

    >>> W = torch.tensor([1.0, 2.0])
    >>> update_(Descent(0.1), W, torch.ones(2))
    >>> W
    tensor([0.9000, 1.9000])
    """
    if type(opt) is type(grad) is NamedTuple and type(model) is not Params:  # the way of every step
        return interface.update_(opt, model, grad)
    if isinstance(opt, torch.Tensor) and grad is ...:
        with torch.no_grad():
            opt.sub_(fit(model, opt))
        return None
    if grad is ...:
        raise TypeError("update_ needs a gradient as its third argument")
    if is_rule(opt):
        return _update_implicit(opt, model, grad)
    if isinstance(model, Params) or isinstance(grad, Grads):
        raise TypeError(
            "can't mix explicit state with implicit Params and Grads: update_(state, model, grad) needs the model "
            "itself and its gradient, gradient(loss, model)[0]"
        )
    if type(grad) is tuple and grad and _whole_tuple(opt, grad):
        warnings.warn(
            "explicit update_(opt, model, grad) wants the gradient of the model alone, not the whole tuple from "
            "gradient(lambda m: loss(m, x, y), model). You probably want grads[0].",
            stacklevel=2,
        )
        grad = grad[0]
    return interface.update_(opt, model, grad)


def _whole_tuple(tree: Any, grad: tuple[Any, ...]) -> bool:
    tree = bare(tree)
    return type(tree) not in (tuple, list) or (len(grad) == 1 != len(tree))


def _update_implicit(opt: Any, model: Any, grad: Any) -> None:
    if isinstance(model, Params):
        if isinstance(grad, (tuple, NamedTuple)):
            raise TypeError(
                "can't mix implicit Params with explicit gradients!\n"
                "* For the implicit style, this needs update_(rule, ps, gs) with gs = gradient(lambda: loss(…), ps).\n"
                "* For the explicit style, update_(state, model, grad) needs the model, and state = setup(rule, model)."
            )
        pairs = [(x, grad[x]) for x in model]
    elif isinstance(model, torch.Tensor) and not isinstance(grad, (tuple, NamedTuple, Grads)):
        pairs = [(model, grad)]
    else:
        raise TypeError(
            "invalid input to update_:\n"
            "* For the implicit style, this needs update_(rule, ps, gs) with ps = params(model).\n"
            "* For the explicit style, update_(state, model, grad) needs state = setup(rule, model)."
        )
    groups: dict[Any, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for x, dx in pairs:
        if dx is not None:
            if not (x.is_floating_point() or x.is_complex()):
                raise TypeError(f"a {summary(x)} can't be updated: its numbers are whole")
            groups.setdefault((x.dtype, x.device), []).append((x, fit(dx, x)))
    with torch.no_grad():
        for group in groups.values():
            xs, dxs = zip(*group, strict=True)
            states = [_recall(opt, x) for x in xs]
            for x, state in zip(xs, _rule(opt).step_(states, xs, dxs), strict=True):
                _remember(opt, x, state)


# -- training -----------------------------------------------------------------------------------------


class StopException(Exception):
    """What `stop()` raises."""


class SkipException(Exception):
    """What `skip()` raises."""


def stop() -> None:
    """Ends the training that is running. For a callback (after that batch's update), or the loss (before it).

    >>> from itertools import repeat
    >>> W = torch.zeros(1)
    >>> train_(lambda x: -(W * x).sum(), Params([W]), repeat(1.0), Descent(1), cb=lambda: W > 2 and stop())
    >>> W
    tensor([3.])
    """
    raise StopException


def skip() -> None:
    """Skips the update by the batch at hand. For the loss; training goes on with the next batch."""
    raise SkipException


def epochs(n: int, f: Callable[[], Any]) -> None:
    """Calls `f()` `n` times, each after a line on stderr that says which epoch it is, counted from 1.

    >>> epochs(2, lambda: print("hello"))
    hello
    hello
    """
    for i in range(1, n + 1):
        print(f"[ Info: Epoch {i}", file=sys.stderr)
        f()


def arguments(d: Any) -> tuple[Any, ...]:
    """What a loss is called with for the data item `d`: the entries of a tuple, or the item itself."""
    return d if type(d) is tuple else (d,)


class Watch:
    """Looks whether the loss of a step is finite, in time for the update and without holding up a GPU."""

    def __init__(self) -> None:
        self._here: Any = None
        self._arrived: torch.cuda.Event | None = None

    def on(self, value: Any) -> Any:
        """`value`, what the loss function gives while the gradient is being taken."""
        loss, self._arrived = first_of(value), None
        if isinstance(loss, torch.Tensor) and loss.is_cuda and loss.ndim == 0:
            # Fetched while the GPU goes back: only the way there is waited for.
            self._here = torch.empty((), dtype=loss.dtype, pin_memory=True)
            self._here.copy_(loss.detach(), non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        return value

    def finite(self, value: Any) -> bool:
        """Is the loss in `value` neither NaN nor infinite?"""
        if self._arrived is None:
            loss = first_of(value)
            return math.isfinite(loss.item() if isinstance(loss, torch.Tensor) else loss)
        self._arrived.synchronize()
        return math.isfinite(self._here)

    def check(self, value: Any, i: int) -> None:
        """Raises `DomainError` if the loss in `value`, that of the data item `i`, is not finite."""
        if not self.finite(value):
            raise DomainError(f"Loss is {float(first_of(value))} on data item {i}, stopping training")


class _Patience:
    """Makes Ctrl-C wait for the end of a step that has begun, unless it comes twice; an update isn't broken off at all.

    In other threads than the main one, and where Ctrl-C doesn't mean `KeyboardInterrupt`, it does nothing.
    """

    def __init__(self) -> None:
        self.busy = self.asked = self._mine = False

    def __call__(self, number: int, frame: types.FrameType | None) -> None:
        if not self.busy or (self.asked and not _updates(frame)):
            self.asked = False
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> _Patience:
        standard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if standard and threading.current_thread() is threading.main_thread():
            self._mine = True
            signal.signal(signal.SIGINT, self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _updates(frame: types.FrameType | None) -> bool:
    """Are parameters and what rules know of them just being changed?"""
    while frame is not None:
        if frame.f_code in (interface.step_all_.__code__, interface.update_.__code__, _update_implicit.__code__):
            return True
        frame = frame.f_back
    return False


def _is_seen() -> bool:
    """Is there a terminal or a notebook to show a bar in?"""
    return "ipykernel" in sys.modules or (sys.stderr is not None and sys.stderr.isatty())


def _shown(items: Iterator[Any], data: Any) -> Iterator[Any]:
    """`items`; where tqdm is installed, with a bar for as long as they go on after the first second."""
    due, bar = time.monotonic() + 1, None
    try:
        for n, d in enumerate(items, 1):
            yield d
            if bar is not None:
                bar.update()
            elif time.monotonic() > due:
                bar, due = _bar(n, items, data), math.inf
    finally:
        if bar is not None:
            bar.close()


def _bar(n: int, items: Iterator[Any], data: Any) -> Any:
    """A bar that is at `n`, or None."""
    try:
        from tqdm.auto import tqdm  # type: ignore
    except ImportError:
        return None
    total = 0
    with contextlib.suppress(NotImplementedError):
        total = operator.length_hint(data)
    if total and items is data:  # an iterator tells what is left
        total += n
    # A notebook without widgets would get a line for each change.
    options = {} if sys.stderr.isatty() else {"disable": None}
    return tqdm(total=total or None, initial=n, leave=False, dynamic_ncols=True, **options)


def loop(step: Callable[[int, Any], None], data: Iterable[Any], cb: Any = None) -> None:
    """Calls `step(i, d)` for each item of `data`, and then the callbacks, until one of them says `stop()`.

    Without callbacks it shows how far it is. Ctrl-C ends it after the step.
    """
    callbacks = [] if cb is None else [cb] if callable(cb) else list(cb)
    items: Iterator[Any] = iter(data)
    shown = _shown(items, data) if not callbacks and _is_seen() else items
    i = -1
    with _Patience() as patience:
        try:
            for i, d in enumerate(shown):
                try:
                    patience.busy = True
                    try:
                        step(i, d)
                    finally:
                        patience.busy = False
                        if patience.asked:
                            raise KeyboardInterrupt
                    answers = [f() for f in callbacks]
                    if any(type(answer) is str and answer == "stop" for answer in answers):  # Flux 0.7's stop()
                        return
                except SkipException:
                    continue
                except TypeError as error:
                    hint = _hint(d, data)
                    if hint and "argument" in str(error):
                        raise TypeError(f"{error} (data item {i} {hint})") from error
                    raise
        except StopException:
            return
        finally:
            if shown is not items:
                shown.close()  # type: ignore[attr-defined]
    if i < 0 and items is data:
        warnings.warn(
            "data is an iterator without any element: was it used up by an earlier epoch? "
            "A zip or generator can be run through only once; pass list(zip(…)).",
            stacklevel=3,
        )


def _hint(d: Any, data: Any) -> str:
    if isinstance(d, list):
        return "is a list, which the loss gets as one argument: only a tuple, such as (x, y), is taken apart"
    if isinstance(data, tuple) and isinstance(d, torch.Tensor):
        return "is an array, which the loss gets as one argument: for one item (x, y), data is [(x, y)]"
    return ""


def train_(loss: Callable[..., Any], ps: Any, data: Any, opt: Any = None, cb: Any = None) -> None:
    """Steps the parameters `ps` once for each item `d` of `data`, by the gradient of `loss(*d)`.

    `ps` is a `Params`, or tensors to make one of; a `d` that isn't a tuple is passed as it is. `cb` is
    called after each update, or each of a list of functions; `stop()` and `skip()` work in it and in
    the loss. Raises `DomainError` when the loss is NaN or infinite, before the update. What it shows,
    and what Ctrl-C does, is as in `fluxtorch.train_`.

    >>> W = torch.tensor([2.0, 4.0])
    >>> train_(lambda x: (W * x).sum(), Params([W]), [1.0, 2.0], Descent(0.5))
    >>> W
    tensor([0.5000, 2.5000])
    """
    if opt is None and isinstance(data, _Updater):
        ps, data, opt = data.params, ps, data.rule
    if opt is None:
        raise TypeError(
            "train_ needs an optimiser: train_(loss, model, data, opt_state), or train_(loss, ps, data, rule)"
        )
    if not is_rule(opt):
        raise TypeError(
            "can't mix implicit Params with explicit state! With params(m), the last argument of train_ must be a rule "
            "such as Descent(0.1). But better to use the explicit style, in which m itself is the second argument."
        )
    parameters, watch = ps if isinstance(ps, Params) else Params(ps), Watch()

    def step(i: int, d: Any) -> None:
        args = arguments(d)
        value, grads = withgradient(lambda: watch.on(loss(*args)), parameters)
        watch.check(value, i)
        _update_implicit(opt, parameters, grads)

    loop(step, data, cb)
