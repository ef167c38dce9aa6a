"""Recurrent cells and `Recur`, in the meaning that they have up to Flux 0.14: `cell(h, x) -> (h, y)`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.arrays import array, summary
from fluxtorch.base import identity, tanh
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import fcollect, fmap
from fluxtorch.initialisers import glorot_uniform, zeros32
from fluxtorch.layers.basic import act, at_most, match_eltype, reversed_axes, size_check, sizes, tensor_input, weights, whole
from fluxtorch.layers.layer import Layer, layer
from fluxtorch.layers.show import optional
from fluxtorch.printing import show
from fluxtorch.zygote.scope import scope, when_done

__all__ = ["GRU", "GRUCell", "LSTM", "LSTMCell", "RNN", "RNNCell", "Recur", "reset_", "truncate_"]

# How many steps of history a model may gather outside of `gradient` before it says so.
_LONG = 1000


@layer(expand=True, trainable=("cell",))
class Recur(Layer):
    """Keeps the state of a recurrent cell between calls: `Recur(cell, state)`, where `cell(h, x...)` gives `(h, y)`.

    `cell` is a cell of this module, whose first state is then `cell.state0` unless given, or any
    function. Called on an array `(features, batch, time)`, it goes through the times and gives
    `(features', batch, time)`; on anything else, it goes one step. `reset_` restores the first state.

    What `gradient` leaves as the state is a constant afterwards. Outside of it the state carries
    torch's graph, as in Tracker's days, except in test mode and under `torch.no_grad()`.

    >>> accum = lambda h, x: (h + x, x)
    >>> rnn = Recur(accum, 0)
    >>> rnn(2), rnn(3), rnn.state
    (2, 3, 5)
    >>> rnn = Recur(accum, zeros(torch.int64, 1, 1))
    >>> out = rnn(torch.arange(1, 11).reshape(1, 1, 10))
    >>> out.shape, rnn.state
    (torch.Size([1, 1, 10]), tensor([[55]]))
    """

    _unregistered = frozenset(("state",))

    cell: Any
    state: Any

    def __init__(self, cell: Any, *state: Any) -> None:
        if not callable(cell):
            raise TypeError(f"Recur expects a cell, a function of state and input, and got {show(cell)}")
        at_most("Recur", state, 1)
        if not state and not hasattr(cell, "state0"):
            raise TypeError(f"Recur needs a first state for {show(cell)}, as in Recur(cell, state)")
        self.cell = cell
        self.state = array(state[0]) if state else cell.state0
        self._first = None if hasattr(cell, "state0") else self.state
        self._scope: object | None = None
        self._steps = 0

    def __call__(self, *xs: Any) -> Any:
        x = array(xs[0]) if xs else None
        if isinstance(x, torch.Tensor) and x.ndim == 3 and len(xs) == 1:
            if x.shape[-1] == 0:
                raise DimensionMismatch(f"layer {self} expects at least one time step, but got {summary(x)}")
            return torch.stack([self._step(x_t) for x_t in x.unbind(-1)], -1)
        return self._step(*xs)

    def _step(self, *xs: Any) -> Any:
        here = scope()
        if here is not self._scope or not self.training:
            self._forget_history()
            self._scope = here
            if here is not None:
                when_done(self._forget_history)
        result = self.cell(self.state, *xs)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"the cell of {self} must give a pair, the new state and the output, and gave {summary(result)}")
        state, y = result
        if not self.training:
            state = _detached(state)
        object.__setattr__(self, "state", state)
        if here is None:
            self._watch_history()
        return y

    def _forget_history(self) -> None:
        object.__setattr__(self, "state", _detached(self.state))
        self._steps = 0

    def _watch_history(self) -> None:
        self._steps = self._steps + 1 if _has_history(self.state) else 0
        if self._steps == _LONG:
            warnings.warn(
                f"{self} has carried {_LONG} steps of history outside of gradient, and memory grows with each. "
                "To evaluate a model, call it under torch.no_grad() or after testmode_(m); "
                "to go on training on a long sequence, call truncate_(m) now and then.",
                stacklevel=4,
            )

    def reset(self) -> Any:
        if self._first is None:
            self.state = self.cell.state0
        else:
            # The model may have moved since then, which only its state has followed.
            self.state = _like(self._first, self.state)
        self._scope, self._steps = None, 0
        return self.state

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        before = getattr(self.cell, "state0", None)
        first = self.state is before or _same_objects(self.state, before)
        super()._apply(fn, recurse)
        self.state = self.cell.state0 if first else fmap(lambda v: fn(v) if isinstance(v, torch.Tensor) else v, self.state)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no part in the history of the original, and torch refuses to copy it.
        return {**vars(self), "state": _detached(self.state), "_scope": None}

    def __str__(self) -> str:
        return f"Recur({show(self.cell)})"


def _same_objects(a: Any, b: Any) -> bool:
    return isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b) and all(x is y for x, y in zip(a, b, strict=True))


def _detached(state: Any) -> Any:
    if isinstance(state, torch.Tensor):
        return state.detach() if state.grad_fn is not None else state
    if type(state) is tuple:
        return tuple([_detached(s) for s in state])
    if isinstance(state, (int, float, str, type(None))):
        return state
    return fmap(lambda v: v.detach() if isinstance(v, torch.Tensor) and v.grad_fn is not None else v, state)


def _has_history(state: Any) -> bool:
    if isinstance(state, torch.Tensor):
        return state.grad_fn is not None
    return isinstance(state, (tuple, list)) and any(map(_has_history, state))


def _like(first: Any, now: Any) -> Any:
    if isinstance(first, torch.Tensor) and isinstance(now, torch.Tensor):
        return first.to(now.device)
    if isinstance(first, tuple) and isinstance(now, tuple) and len(first) == len(now):
        return tuple(map(_like, first, now))
    return first


def _recurs(m: Any) -> list[Recur]:
    """Every `Recur` in a model, once."""
    return [x for x in fcollect(m) if isinstance(x, Recur)]


def reset_(m: Any) -> Any:
    """Restores the first state of every recurrent layer in `m`. For a single `Recur`, returns that state.

    >>> y = Recur(RNNCell(relu, torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1), torch.zeros(1, 1)))
    >>> y(torch.ones(1, 1)).detach(), y.state.detach()
    (tensor([[2.]]), tensor([[2.]]))
    >>> reset_(y).detach()
    tensor([[0.]])
    """
    states = [r.reset() for r in _recurs(m)]
    return states[0] if isinstance(m, Recur) else None


def truncate_(m: Any) -> None:
    """Makes the state of every recurrent layer in `m` a constant, so that gradients go no further back (Flux 0.8).

    >>> r = RNN(2 |to| 3)
    >>> _ = r(torch.ones(2))
    >>> r.state.requires_grad
    True
    >>> truncate_(r)
    >>> r.state.requires_grad
    False
    """
    for r in _recurs(m):
        r.state = _detached(r.state)
        r._steps = 0


def _linear(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    """`W * x .+ b` in torch's axis order, of element types that may differ, as Julia promotes them."""
    if x.dtype != W.dtype:
        both = torch.promote_types(x.dtype, W.dtype)
        x, W = x.to(both), W.to(both)
        b = b if b is None else b.to(both)
    return F.linear(x, W, b)


class _Cell(Layer):
    """What the cells share: weights for as many gates as the subclass has, and the checks of state and input."""

    _gates = 1

    @staticmethod
    def _arrays(
        name: str, args: tuple[Any, ...], init: Any, initb: Any, init_state: Any, gates: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        n, m, rest = sizes(name, args[0] if args else None, args[1:])
        at_most(name, rest, 0)
        whole(name, n, m)
        return init(gates * m, n), init(gates * m, m), initb(gates * m), init_state(m, 1)

    def _input(self, x: Any) -> torch.Tensor:
        x = tensor_input(self, x)
        if x.ndim > 2:
            raise DimensionMismatch(f"layer {self} expects a vector or a matrix, but got {summary(x)}")
        size_check(self, x, 0, self.Wi.shape[1])
        first = self.state0[0] if isinstance(self.state0, tuple) else self.state0
        return reversed_axes(match_eltype(self, first.dtype, x))

    def _state(self, h: Any) -> torch.Tensor:
        h = array(h)
        if not isinstance(h, torch.Tensor) or h.ndim not in (1, 2) or h.shape[0] != self.Wh.shape[1]:
            raise DimensionMismatch(f"layer {self} expects a state with size(h, 0) == {self.Wh.shape[1]}, but got {summary(h)}")
        return reversed_axes(h)

    def _output(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """The new state as output: of the input's shape, which may have no axis for the batch."""
        if x.ndim == 1 and h.ndim == 2:
            if h.shape[0] != 1:
                raise DimensionMismatch(
                    f"layer {self} has a state for a batch of {h.shape[0]} and got a single vector: call reset_ first"
                )
            return h[0]
        return reversed_axes(h)

    def _gate_sum(self, h: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        self._check_batches(h, x)
        return _linear(x, self.Wi, self.b) + _linear(h, self.Wh)

    def _check_batches(self, h: torch.Tensor, x: torch.Tensor) -> None:
        if x.ndim == 2 and h.ndim == 2 and h.shape[0] not in (1, x.shape[0]) and x.shape[0] != 1:
            raise DimensionMismatch(
                f"layer {self} has a state for a batch of {h.shape[0]} and got one of {x.shape[0]}: call reset_ first"
            )

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.Wi.shape[1]} => {self.Wi.shape[0] // self._gates})"


class RNNCell(_Cell):
    """The plainest cell: `h' = σ(Wi * x .+ Wh * h .+ b)`, which is also its output.

    `RNNCell(in |to| out, σ=tanh; init=glorot_uniform, initb=zeros32, init_state=zeros32)`, or
    `RNNCell(σ, Wi, Wh, b, state0)`. `cell(h, x)` takes `h` `(out,)` or `(out, N)` and `x` `(in,)` or
    `(in, N)`, and gives `(h', y)`. `Wi` is `(out, in)`, `Wh` `(out, out)`, `b` `(out,)`, `state0`
    `(out, 1)`. Raises `DimensionMismatch` for other sizes.

    >>> cell = RNNCell(torch.tanh, torch.ones(1, 2), torch.zeros(1, 1), torch.zeros(1), torch.zeros(1, 1))
    >>> h, y = cell(cell.state0, torch.tensor([0.5, 0.5]))
    >>> h.detach(), y.detach()
    (tensor([[0.7616]]), tensor([0.7616]))
    """

    σ: Any
    Wi: torch.Tensor
    Wh: torch.Tensor
    b: torch.Tensor
    state0: torch.Tensor

    def __init__(
        self,
        *args: Any,
        init: Callable[..., torch.Tensor] = glorot_uniform,
        initb: Callable[..., torch.Tensor] = zeros32,
        init_state: Callable[..., torch.Tensor] = zeros32,
    ) -> None:
        if len(args) == 5:
            σ, *arrays = args
            Wi, Wh, b, state0 = _given("RNNCell", arrays)
        else:
            n, m, rest = sizes("RNNCell", args[0] if args else None, args[1:])
            at_most("RNNCell", rest, 1)
            σ = rest[0] if rest else tanh
            Wi, Wh, b, state0 = self._arrays("RNNCell", ((n, m),), init, initb, init_state, 1)
        self.σ = act("RNNCell", σ)
        self.Wi, self.Wh, self.b, self.state0 = Wi, Wh, b, state0

    def __call__(self, h: Any, x: Any) -> tuple[torch.Tensor, torch.Tensor]:
        x, h = self._input(x), self._state(h)
        h = self.σ(self._gate_sum(h, x))
        return reversed_axes(h), self._output(h, x)

    def __str__(self) -> str:
        return super().__str__()[:-1] + optional((self.σ is not identity, f", {show(self.σ)}")) + ")"


def _given(name: str, arrays: Any) -> list[torch.Tensor]:
    found = [weights(name, a) for a in arrays]
    if any(a is None for a in found):
        raise TypeError(f"{name} expects arrays, and got {', '.join(map(summary, arrays))}")
    Wi, Wh = found[0], found[1]
    assert Wi is not None and Wh is not None
    if Wi.ndim != 2 or Wh.ndim != 2 or Wi.shape[0] != Wh.shape[0]:
        raise DimensionMismatch(f"{name} expects two matrices with as many rows, and got {summary(Wi)} and {summary(Wh)}")
    return found  # type: ignore[return-value]


class LSTMCell(_Cell):
    """Long short-term memory: `LSTMCell(in |to| out; init=glorot_uniform, initb=zeros32, init_state=zeros32)`.

    The gates input, forget, cell and output stand in this order in `Wi` `(4 * out, in)`, `Wh`
    `(4 * out, out)` and `b` `(4 * out,)`, whose forget part starts as 1. `state0` is a pair `(h, c)`,
    each `(out, 1)`. `cell((h, c), x)` gives `((h', c'), h')` with `c' = σ(f) .* c .+ σ(i) .* tanh(g)`
    and `h' = σ(o) .* tanh(c')`. `LSTMCell(Wi, Wh, b, state0)` takes the arrays.

    >>> LSTMCell(3 |to| 5)
    LSTMCell(3 => 5)    # 190 parameters
    >>> (h, c), y = LSTMCell(3 |to| 5)((torch.zeros(5), torch.zeros(5)), torch.ones(3))
    >>> y.shape, torch.equal(y, h)
    (torch.Size([5]), True)
    """

    _gates = 4

    Wi: torch.Tensor
    Wh: torch.Tensor
    b: torch.Tensor
    state0: Any

    def __init__(
        self,
        *args: Any,
        init: Callable[..., torch.Tensor] = glorot_uniform,
        initb: Callable[..., torch.Tensor] = zeros32,
        init_state: Callable[..., torch.Tensor] = zeros32,
    ) -> None:
        if len(args) == 4:
            Wi, Wh, b = _given("LSTMCell", args[:3])
            state0 = tuple(_given_state("LSTMCell", s) for s in args[3])
        else:
            Wi, Wh, b, h = self._arrays("LSTMCell", args, init, initb, init_state, 4)
            m = Wh.shape[1]
            b[m : 2 * m] = 1
            state0 = (h, init_state(m, 1))
        self.Wi, self.Wh, self.b, self.state0 = Wi, Wh, b, state0

    def __call__(self, hc: Any, x: Any) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
        if not isinstance(hc, tuple) or len(hc) != 2:
            raise TypeError(f"layer {self} expects a pair as its state, (h, c), and got {summary(hc)}")
        x, h, c = self._input(x), self._state(hc[0]), self._state(hc[1])
        i, f, g, o = self._gate_sum(h, x).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return (reversed_axes(h), reversed_axes(c)), self._output(h, x)


def _given_state(name: str, s: Any) -> torch.Tensor:
    found = weights(name, s)
    if found is None:
        raise TypeError(f"{name} expects arrays as its first state, and got {summary(s)}")
    return found


class GRUCell(_Cell):
    """Gated recurrent unit, as in version 1 of its paper: `GRUCell(in |to| out; init=glorot_uniform, initb=zeros32, init_state=zeros32)`.

    The gates reset, update and candidate stand in this order in `Wi` `(3 * out, in)`, `Wh`
    `(3 * out, out)` and `b` `(3 * out,)`. `cell(h, x)` gives `(h', h')` with `h̃ = tanh(gx₃ .+ r .* gh₃
    .+ b₃)` and `h' = (1 .- z) .* h̃ .+ z .* h`. `GRUCell(Wi, Wh, b, state0)` takes the arrays.
    Cho et al. 2014, https://arxiv.org/abs/1406.1078v1.

    >>> GRUCell(3 |to| 5)
    GRUCell(3 => 5)     # 140 parameters
    """

    _gates = 3

    Wi: torch.Tensor
    Wh: torch.Tensor
    b: torch.Tensor
    state0: torch.Tensor

    def __init__(
        self,
        *args: Any,
        init: Callable[..., torch.Tensor] = glorot_uniform,
        initb: Callable[..., torch.Tensor] = zeros32,
        init_state: Callable[..., torch.Tensor] = zeros32,
    ) -> None:
        if len(args) == 4:
            Wi, Wh, b, state0 = _given("GRUCell", args)
        else:
            Wi, Wh, b, state0 = self._arrays("GRUCell", args, init, initb, init_state, 3)
        self.Wi, self.Wh, self.b, self.state0 = Wi, Wh, b, state0

    def __call__(self, h: Any, x: Any) -> tuple[torch.Tensor, torch.Tensor]:
        x, h = self._input(x), self._state(h)
        self._check_batches(h, x)
        xr, xz, xn = _linear(x, self.Wi, self.b).chunk(3, -1)
        hr, hz, hn = _linear(h, self.Wh).chunk(3, -1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        h = (1 - z) * (xn + r * hn).tanh() + z * h
        return reversed_axes(h), self._output(h, x)


def RNN(*args: Any, **options: Any) -> Recur:
    """The plainest recurrent layer, `Recur(RNNCell(in |to| out, σ=tanh; ...))`.

    Takes `(in,)`, `(in, N)` or `(in, N, T)`, and gives the same with `out` for `in`; remembers its
    state between calls, until `reset_`. Raises `DimensionMismatch` where the batch changes without it.

    >>> RNN(3 |to| 5)
    Recur(
      RNNCell(3 => 5, tanh),                # 50 parameters
    )         # Total: 4 trainable arrays, 50 parameters,
              # plus 1 non-trainable, 5 parameters, summarysize 200 bytes.
    """
    return Recur(RNNCell(*args, **options))


def LSTM(*args: Any, **options: Any) -> Recur:
    """A long short-term memory layer, `Recur(LSTMCell(in |to| out; ...))`. Shapes and errors as for `RNN`.

    >>> l = LSTM(3 |to| 5)
    >>> l(rand32(3)).shape
    torch.Size([5])
    >>> _ = reset_(l)
    >>> l(rand32(3, 10)).shape, l(rand32(3, 10, 4)).shape
    (torch.Size([5, 10]), torch.Size([5, 10, 4]))
    """
    return Recur(LSTMCell(*args, **options))


def GRU(*args: Any, **options: Any) -> Recur:
    """A gated recurrent layer, `Recur(GRUCell(in |to| out; ...))`. Shapes and errors as for `RNN`.

    >>> GRU(3 |to| 5)(rand32(3, 10)).shape
    torch.Size([5, 10])
    """
    return Recur(GRUCell(*args, **options))
