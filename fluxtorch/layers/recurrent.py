"""Recurrent cells and `Recur`, in the meaning that they have up to Flux 0.14: `cell(h, x) -> (h, y)`."""

from __future__ import annotations

import functools
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.base import identity, tanh
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import fcollect, fleaves, fmap
from fluxtorch.initialisers import glorot_uniform, zeros32
from fluxtorch.layers.basic import (
    act,
    at_most,
    has_hooks,
    match_eltype,
    size_check,
    sizes,
    tensor_input,
    weights,
    whole,
)
from fluxtorch.layers.layer import Layer, layer
from fluxtorch.layers.lstm_step import lstm_step
from fluxtorch.layers.show import optional
from fluxtorch.nnlib.activations import relu
from fluxtorch.onehotarrays import OneHotArray
from fluxtorch.printing import show
from fluxtorch.zygote.explicit import edges_of
from fluxtorch.zygote.gradient import dropgrad
from fluxtorch.zygote.scope import nested, scope, when_done
from fluxtorch.zygote.tracked import Tracked, untracked

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "GRUv3", "GRUv3Cell", "LSTMCell", "RNNCell", "Recur", "reset_", "truncate_"]

# How many steps of history a model may gather outside of `gradient` before it says so.
_LONG = 1000
# Where a state is from that was found in torch's inference mode, and can't be used outside of it.
_INFERENCE = -1


@layer(expand=True, trainable=("cell",))
class Recur(Layer):
    """Keeps the state of a recurrent cell between calls: `Recur(cell, state)`, where `cell(h, x...)` gives `(h, y)`.

    `cell` is a cell of this module, whose first state is then `cell.state0` unless given, or any
    function. Called on an array `(features, batch, time)`, it goes through the times and gives
    `(features', batch, time)`; on anything else, it goes one step. `reset_` restores the first state.

    What `gradient` leaves as the state is a constant afterwards, and so is inside what it finds. Outside
    of it the state carries torch's graph, as in Tracker's days, except in test mode and under `torch.no_grad()`.

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
        # A fresh state is looked up where it starts, so that it is that very tensor, whatever becomes of the model.
        vars(self).update(_first=None, _state=None, _fresh=True, _scope=None, _steps=0, _said=False)
        self._here()
        if not hasattr(cell, "state0"):
            vars(self)["_first"] = array(state[0])
        if state:
            self.state = state[0]

    @property  # type: ignore[no-redef]
    def state(self) -> Any:
        state = self._now()
        if type(state) is _Rows:
            state = vars(self)["_state"] = _columns(state)
        return state

    @state.setter
    def state(self, state: Any) -> None:
        self._here()
        state = array(state)
        fresh = _same(state, self._start())
        first = vars(self)["_first"] if fresh else _moved(vars(self)["_first"], state)
        vars(self).update(_first=first, _state=None if fresh else state, _fresh=fresh, _steps=0)

    def _now(self) -> Any:
        """The state, which may be in rows."""
        self._here()
        return self._start() if vars(self)["_fresh"] else vars(self)["_state"]

    def _start(self) -> Any:
        return getattr(self.cell, "state0", vars(self)["_first"])

    def _here(self) -> None:
        """Makes a state from outside this `gradient` call a constant, and sees to it that it leaves the call as one."""
        here = scope() or (_INFERENCE if torch.is_inference_mode_enabled() else None)
        if here != vars(self)["_scope"]:
            self._settle(here, False)
            if here is not None:
                when_done(lambda: self._settle(None, True))

    def _settle(self, here: int | None, leaves: bool) -> None:
        first, state = vars(self)["_first"], vars(self)["_state"]
        vars(self).update(_first=_constant(first), _state=_constant(state, leaves), _scope=here, _steps=0)

    def __call__(self, *xs: Any) -> Any:
        xs = tuple([array(x) for x in xs])
        state, steps = self._now(), 1
        if len(xs) == 1 and isinstance(xs[0], Tensor) and xs[0].ndim == 3:
            steps = xs[0].shape[2]
            state, y = self._fold(state, xs[0])
            y = reversed_axes(y)
        else:
            state, y = self._step(state, *xs)
        self._keep(state, steps)
        return y

    def _reversed(self, x: Tensor) -> Tensor | None:
        """Its steps for an array, in torch's order of axes; None if more is to be done, or this layer is watched."""
        if has_hooks(self):
            return None
        if x.ndim == 3:
            state, y = self._fold(self._now(), reversed_axes(x))
            self._keep(state, x.shape[0])
            return y
        mine, here = self.__dict__, scope()
        if here is None or here != mine["_scope"]:
            self._here()
        cell, state = self._modules.get("cell"), mine["_state"]
        if type(state) is not _Rows or not _is_known(cell):  # the first step begins with a state in columns
            return None
        ps: Any = cell._parameters  # type: ignore[union-attr]
        Wi, Wh, b = ps.get("Wi"), ps.get("Wh"), ps.get("b")
        if Wi is None or Wh is None or b is None:
            return None
        # What would be repeated, or promoted, in silence; of any other size or type torch says that it doesn't fit.
        if b.ndim != 1 or x.shape[0] != state[0].shape[0] or x.dtype is not Wi.dtype:
            return None
        try:
            state = _Rows(cell._one(x, state, Wi, Wh, b))  # type: ignore[union-attr,operator]
        except RuntimeError:
            return None
        if here is None:
            self._keep(state, 1)
        else:
            mine["_state"] = state
        return state[0]

    def _keep(self, state: Any, steps: int) -> None:
        mine = vars(self)
        if mine["_scope"] is None:
            if not self.training:
                state = _constant(state)
            self._watch(state, steps)
        mine["_state"], mine["_fresh"] = state, False

    def _step(self, state: Any, *xs: Any) -> tuple[Any, Any]:
        cell = self.cell
        if len(xs) == 1 and _is_known(cell):
            return cell._advance(state, xs[0])  # type: ignore[no-any-return]
        result = cell(_columns(state), *xs)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(
                f"the cell of {self} must give a pair, the new state and the output, and gave {summary(result)}"
            )
        return result

    def _fold(self, state: Any, x: Tensor) -> tuple[Any, Tensor]:
        """The state after all steps through `(features, batch, time)`, and the outputs in torch's order of axes."""
        if x.shape[2] == 0:
            raise DimensionMismatch(f"layer {self} expects at least one time step, but got {summary(x)}")
        kernel = self.cell._kernel() if _is_known(self.cell) else None
        if kernel is not None and not (x.is_cuda and nested()):  # cuDNN's can't be differentiated twice
            return self.cell._run(kernel, state, x)  # type: ignore[no-any-return]
        ys = []
        for x_t in x.unbind(2):
            state, y = self._step(state, x_t)
            ys.append(reversed_axes(torch.as_tensor(y)))
        return state, torch.stack(ys)

    def _watch(self, state: Any, steps: int) -> None:
        mine = vars(self)
        mine["_steps"] = mine["_steps"] + steps if _has_history(state) else 0
        if mine["_steps"] >= _LONG and not mine["_said"]:
            mine["_said"] = True
            warnings.warn(
                f"{self} has carried {_LONG} steps of history outside of gradient, and memory grows with each. "
                "To evaluate a model, call it under torch.no_grad() or after testmode_(m); "
                "to go on training on a long sequence, call truncate_(m) now and then.",
                stacklevel=7,
            )

    @property
    def init(self) -> Any:
        """The first state, as it was called before Flux 0.12."""
        return self._start()

    def reset_(self) -> Any:
        """Restores the first state, and returns it."""
        vars(self).update(_state=None, _fresh=True, _steps=0)
        self._here()
        return self._start()

    def truncate_(self) -> None:
        """Makes the state a constant."""
        self.state = dropgrad(self.state)

    def _refreshed(self, name: str) -> Any:
        # The state is no buffer, even where it is a list.
        return self.state if name == "state" else super()._refreshed(name)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        mine = vars(self)
        for name, old in ("_first", mine["_first"]), ("_state", _columns(mine["_state"])):
            mine[name] = fmap(lambda v: fn(v) if isinstance(v, Tensor) else v, old)
        return self

    def __getstate__(self) -> dict[str, Any]:
        # A copy has no part in the history of the original, and torch refuses to copy it.
        mine: dict[str, Any] = super().__getstate__()  # type: ignore[assignment]
        state = _constant(_columns(mine["_state"]))
        return {**mine, "_first": _constant(mine["_first"]), "_state": state, "_scope": None}

    def __str__(self) -> str:
        return f"Recur({show(self.cell)})"


class _Rows(tuple[Tensor, ...]):
    """The arrays of a state with a row for each of the batch, as torch's kernels have them.

    A `Recur` keeps its state so until somebody looks at it: the transposing would be a tenth of the time.
    """


def _columns(state: Any) -> Any:
    if type(state) is not _Rows:
        return state
    return _state([h.t() for h in state])


def _state(parts: list[Tensor]) -> Any:
    """The arrays of a state as cells take them: one by itself, several as a tuple."""
    return tuple(parts) if len(parts) > 1 else parts[0]


def _same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    these, those = fleaves(a), fleaves(b)
    return len(these) == len(those) and all(x is y for x, y in zip(these, those, strict=True))


def _moved(first: Any, state: Any) -> Any:
    """A first state of no layer's, where and as a model has it whose other state became `state`."""
    like = next((v for v in fleaves(state) if isinstance(v, Tensor)), None)
    if like is None or first is None:
        return first

    def move(v: Any) -> Any:
        if not isinstance(v, Tensor):
            return v
        return v.to(like.device, like.dtype if v.is_floating_point() and like.is_floating_point() else v.dtype)

    return fmap(move, first)


def _constant(state: Any, leaves: bool = False) -> Any:
    """`state` without a history; with `leaves`, nor is it what gradients are taken by, unless it is a parameter."""
    if isinstance(state, Tensor):
        if isinstance(state, Tracked):
            return untracked(state)
        if state.grad_fn is not None or (leaves and state.requires_grad and not isinstance(state, nn.Parameter)):
            return state.detach()
        return state.clone() if state.is_inference() and not torch.is_inference_mode_enabled() else state
    if type(state) in (tuple, _Rows):
        return type(state)([_constant(s, leaves) for s in state])
    return state if state is None else fmap(lambda v: _constant(v, leaves) if isinstance(v, Tensor) else v, state)


def _has_history(state: Any) -> bool:
    if isinstance(state, Tensor):
        return state.grad_fn is not None
    if isinstance(state, tuple):
        return any(map(_has_history, state))
    return any(isinstance(v, Tensor) and v.grad_fn is not None for v in fleaves(state))


def reset_(m: Any) -> Any:
    """Restores the first state of every recurrent layer in `m`. For a single `Recur`, returns that state.

    A class takes part by a method `reset_(self)`.

    >>> y = Recur(RNNCell(relu, torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1), torch.zeros(1, 1)))
    >>> y(torch.ones(1, 1)).detach(), y.state.detach()
    (tensor([[2.]]), tensor([[2.]]))
    >>> reset_(y).detach()
    tensor([[0.]])
    """
    states = [type(x).reset_(x) for x in _stateful(m, "reset_")]
    return states[0] if isinstance(m, Recur) else None


def truncate_(m: Any) -> None:
    """Makes the state of every recurrent layer in `m` a constant, so that gradients go no further back (Flux 0.8).

    A class takes part by a method `truncate_(self)`.

    >>> r = RNN(2 |to| 3)
    >>> _ = r(torch.ones(2))
    >>> r.state.requires_grad
    True
    >>> truncate_(r)
    >>> r.state.requires_grad
    False
    """
    for x in _stateful(m, "truncate_"):
        type(x).truncate_(x)


# What was found in a model: where its parts are kept, as (table, key, part), and those parts.
_found: weakref.WeakKeyDictionary[Layer, tuple[list[tuple[dict[str, Any], str, Any]], list[Any]]]
_found = weakref.WeakKeyDictionary()


def _stateful(m: Any, method: str) -> list[Any]:
    """The parts of `m` that have the method, without a walk where they are known and nothing was replaced since."""
    if not isinstance(m, Layer):
        return [x for x in fcollect(m) if hasattr(type(x), method)]
    edges, parts = _found.get(m, (None, []))
    if edges is None or not all([table.get(key) is part for table, key, part in edges]):
        edges, parts = edges_of(m, trained=False), [x for x in fcollect(m) if x is not m and _has_state(x)]
        if edges is None:
            _found.pop(m, None)
        else:
            _found[m] = [edge for edge in edges if not isinstance(edge[2], Tensor)], parts
    return [x for x in (m, *parts) if hasattr(type(x), method)]


def _has_state(x: Any) -> bool:
    return hasattr(type(x), "reset_") or hasattr(type(x), "truncate_")


class _Cell(Layer):
    """What the cells share: the checks of weights, states and inputs, and their form for torch's kernels."""

    _gates = (1, 1)
    # What to do about a state that doesn't fit.
    _remedy = ": call reset_ first"

    @property
    def h(self) -> Tensor:
        """The first hidden state, as it was called before Flux 0.12."""
        return fleaves(self.state0)[0]  # type: ignore[no-any-return]

    def _checked(self, *given: Any) -> list[Any]:
        """`Wi`, `Wh`, `b` (or False) and first states as arrays, if they are arrays that fit together."""
        name = type(self).__name__
        found: list[Any] = [a if i == 2 and a is False else weights(name, a) for i, a in enumerate(given)]
        if any(a is None for a in found):
            raise TypeError(f"{name} expects arrays, and got {', '.join(map(summary, given))}")
        Wi, Wh, b, *hs = found
        m = Wh.shape[-1] if Wh.ndim == 2 else -1
        rows, hidden = self._gates[0] * m, self._gates[1] * m
        fits = b is False or b.shape in ((rows,), (rows, 1))
        if Wi.ndim != 2 or Wi.shape[0] != rows or Wh.shape[0] != hidden or not fits:
            raise DimensionMismatch(
                f"{name} expects Wi of size ({self._gates[0]} * out, in), Wh ({self._gates[1]} * out, out) and "
                f"b ({self._gates[0]} * out,), and got {', '.join(map(summary, (Wi, Wh, b)))}"
            )
        for h in hs:
            if h.ndim not in (1, 2) or h.shape[0] != m:
                raise DimensionMismatch(f"{name} expects a first state of size ({m}, 1), and got a {summary(h)}")
        return found

    def _parts(self, h: Any) -> tuple[Any, ...]:
        """The arrays of a state."""
        return (array(h),)

    def _operands(self, h: Any, x: Tensor, axes: int = 2) -> list[Tensor]:
        """Input and state with a row for each of the batch, `Wi`, `Wh` and `b`, all of one element type.

        The state gets as many axes as an input may have.
        """
        Wi, Wh, b = self.Wi, self.Wh, self.b
        if isinstance(x, OneHotArray):  # once, for each operation on it would make it so
            x = x.to_dense(Wi.dtype)
        shape = x.shape
        if not shape or shape[0] != Wi.shape[1]:
            order = "" if len(shape) < 3 else "(features, batch, time), not (time, batch, features)"
            size_check(self, x, 0, Wi.shape[1], order, len(shape) <= axes)
        if len(shape) > axes:
            raise DimensionMismatch(f"layer {self} expects a vector or a matrix, but got {summary(x)}")
        n, m = shape[1] if len(shape) > 1 else 1, Wh.shape[1]
        found = [x[None] if len(shape) == 1 else reversed_axes(x)]
        for v in h if type(h) is _Rows else [self._rows(v, m) for v in self._parts(h)]:
            if v.shape[0] not in (1, n):
                raise DimensionMismatch(
                    f"layer {self} has a state for a batch of {v.shape[0]} and got {summary(x)}{self._remedy}"
                )
            found.append(v.expand(1, n, m) if axes > 2 else v if v.shape[0] == n else v.expand(n, m))
        found += Wi, Wh, Wi.new_zeros(Wi.shape[0]) if b is False else b if b.ndim == 1 else b[:, 0]
        dtype = Wi.dtype
        for v in found:
            if v.dtype is not dtype:
                return self._promoted(*found)
        return found

    def _rows(self, h: Any, m: int) -> Tensor:
        if not isinstance(h, Tensor) or h.ndim not in (1, 2) or h.shape[0] != m:
            raise DimensionMismatch(f"layer {self} expects a state with size(h, 0) == {m}, but got {summary(h)}")
        return h.t() if h.ndim == 2 else h[None]

    def _promoted(self, x: Tensor, *others: Tensor) -> list[Tensor]:
        """The input in the element type of the first state, then all in what Julia's arithmetic makes of them."""
        return _promote([match_eltype(self, fleaves(self.state0)[0].dtype, x), *others])

    def _one(self, x: Tensor, hs: list[Tensor], Wi: Tensor, Wh: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        """One step, all in rows."""
        raise NotImplementedError

    def _kernel(self) -> Any:
        """What torch has for all steps at once, if anything."""
        return None

    def _advance(self, h: Any, x: Any) -> tuple[_Rows, Tensor]:
        """One step from a state in columns or in rows: the next one in rows, and the output."""
        x = tensor_input(self, x)
        x_, *hs, Wi, Wh, b = self._operands(h, x)
        new = _Rows(self._one(x_, hs, Wi, Wh, b))
        return new, new[0][0] if x.ndim == 1 else new[0].t()

    def _run(self, kernel: Any, h: Any, x: Tensor) -> tuple[_Rows, Tensor]:
        """What `_fold` gives, by one of torch's kernels."""
        x, *hs, Wi, Wh, b = self._operands(h, x, axes=3)
        arrays = [Wi, Wh, b, torch.zeros_like(b)]
        if x.is_cuda:  # cuDNN wants them in one piece of memory
            parts = torch.cat([a.reshape(-1) for a in arrays]).split_with_sizes([a.numel() for a in arrays])
            arrays = [part.view(a.shape) for part, a in zip(parts, arrays, strict=True)]
        hs = [h.contiguous() for h in hs]
        y, *hs = kernel(x, hs if len(hs) > 1 else hs[0], arrays, True, 1, 0.0, torch.is_grad_enabled(), False, False)
        return _Rows([h[0] for h in hs]), y

    def __call__(self, h: Any, x: Any) -> tuple[Any, Tensor]:
        x = tensor_input(self, x)
        new, y = self._advance(h, x)
        # A state that is a vector stays one.
        found = [v[0] if x.ndim == old.ndim == 1 else v.t() for v, old in zip(new, self._parts(h), strict=True)]
        return _state(found), y

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.Wi.shape[1]} => {self.Wh.shape[1]})"


def _promote(arrays: list[Tensor]) -> list[Tensor]:
    """All of them in the element type that they have together."""
    dtype = functools.reduce(torch.promote_types, [v.dtype for v in arrays])
    return [v.to(dtype) for v in arrays]


def _is_known(cell: Any, *kinds: type) -> bool:
    """Is `cell` one of this module (or of these kinds), which nobody has changed or watches at every step?"""
    return type(cell) in (kinds or (LSTMCell, GRUCell, RNNCell, GRUv3Cell)) and not has_hooks(cell)


def _sizes(name: str, args: tuple[Any, ...], extra: int = 0) -> tuple[int, int, tuple[Any, ...]]:
    n, m, rest = sizes(name, args[0] if args else None, args[1:])
    at_most(name, rest, extra)
    whole(name, n, m)
    return n, m, rest


def _no_bias(b: Tensor) -> Tensor | None:
    """The second bias of torch's cells, which Flux's don't have: only on the CPU may it be left out."""
    return None if b.is_cpu else torch.zeros_like(b)


class _RNN(_Cell):
    def _one(self, x: Tensor, hs: list[Tensor], Wi: Tensor, Wh: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        if self.σ in (tanh, torch.tanh):
            return (torch.rnn_tanh_cell(x, hs[0], Wi, Wh, b, _no_bias(b)),)
        return (self.σ(torch.addmm(F.linear(x, Wi, b), hs[0], Wh.t()).t()).t(),)

    def _kernel(self) -> Any:
        return torch.rnn_tanh if self.σ in (tanh, torch.tanh) else torch.rnn_relu if self.σ is relu else None

    def __str__(self) -> str:
        return super().__str__()[:-1] + optional((self.σ is not identity, f", {show(self.σ)}")) + ")"


class _LSTM(_Cell):
    _gates = (4, 4)

    @property
    def c(self) -> Tensor:
        """The first state of the cell, as it was called before Flux 0.12."""
        return self.state0[1]  # type: ignore[no-any-return]

    def _parts(self, h: Any) -> tuple[Any, ...]:
        if not isinstance(h, tuple) or len(h) != 2:
            raise _no_pair(f"layer {self}", h)
        return array(h[0]), array(h[1])

    def _one(self, x: Tensor, hs: list[Tensor], Wi: Tensor, Wh: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return lstm_step(x, hs, Wi, Wh, b) or torch.lstm_cell(x, hs, Wi, Wh, b, _no_bias(b))

    def _kernel(self) -> Any:
        return torch.lstm


def _no_pair(who: str, h: Any) -> TypeError:
    return TypeError(f"{who} expects a pair as its state, (h, c), and got {summary(h)}")


class _GRU(_Cell):
    _gates = (3, 3)

    def _one(self, x: Tensor, hs: list[Tensor], Wi: Tensor, Wh: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return (torch.gru_cell(x, hs[0], Wi, Wh, b, _no_bias(b)),)

    def _kernel(self) -> Any:
        return torch.gru


class _GRUv3(_Cell):
    _gates = (3, 2)

    def _checked(self, Wi: Any, Wh: Any, b: Any, *others: Any) -> list[Any]:
        Wi, Wh, b, V, *hs = super()._checked(Wi, Wh, b, *others)
        if V.shape != (Wh.shape[1], Wh.shape[1]):
            raise DimensionMismatch(f"{type(self).__name__} expects Wh_h̃ of size (out, out), and got {summary(V)}")
        return [Wi, Wh, b, V, *hs]

    def _one(self, x: Tensor, hs: list[Tensor], Wi: Tensor, Wh: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        found = [x, *hs, Wi, Wh, b, self.Wh_h̃]
        x, h, Wi, Wh, b, V = found if found[-1].dtype is x.dtype else _promote(found)
        m = V.shape[0]
        gates, candidate = F.linear(x, Wi, b).split_with_sizes([2 * m, m], -1)
        r, z = torch.addmm(gates, h, Wh[: 2 * m].t()).sigmoid().chunk(2, -1)
        h̃ = torch.addmm(candidate, r * h, V.t()).tanh()
        return ((1 - z) * h̃ + z * h,)


class RNNCell(_RNN):
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
    Wi: Tensor
    Wh: Tensor
    b: Tensor
    state0: Tensor

    def __init__(
        self,
        *args: Any,
        init: Callable[..., Tensor] = glorot_uniform,
        initb: Callable[..., Tensor] = zeros32,
        init_state: Callable[..., Tensor] = zeros32,
    ) -> None:
        if len(args) == 5:
            σ, *arrays = args
        else:
            n, m, rest = _sizes("RNNCell", args, 1)
            σ = rest[0] if rest else tanh
            arrays = [init(m, n), init(m, m), initb(m), init_state(m, 1)]
        self.σ = act("RNNCell", σ)
        self.Wi, self.Wh, self.b, self.state0 = self._checked(*arrays)


class LSTMCell(_LSTM):
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

    Wi: Tensor
    Wh: Tensor
    b: Tensor
    state0: Any

    def __init__(
        self,
        *args: Any,
        init: Callable[..., Tensor] = glorot_uniform,
        initb: Callable[..., Tensor] = zeros32,
        init_state: Callable[..., Tensor] = zeros32,
    ) -> None:
        if len(args) == 4:
            Wi, Wh, b, state0 = args
            if not isinstance(state0, tuple) or len(state0) != 2:
                raise _no_pair("LSTMCell", state0)
        else:
            n, m, _ = _sizes("LSTMCell", args)
            Wi, Wh, b, state0 = init(4 * m, n), init(4 * m, m), initb(4 * m), (init_state(m, 1), init_state(m, 1))
            with torch.no_grad():
                b[m : 2 * m] = 1
        self.Wi, self.Wh, self.b, *state0 = self._checked(Wi, Wh, b, *state0)
        self.state0 = tuple(state0)


class GRUCell(_GRU):
    """Gated recurrent unit, v1: `GRUCell(in |to| out; init=glorot_uniform, initb=zeros32, init_state=zeros32)`.

    The gates reset, update and candidate stand in this order in `Wi` `(3 * out, in)`, `Wh`
    `(3 * out, out)` and `b` `(3 * out,)`. `cell(h, x)` gives `(h', h')` with `h̃ = tanh(gx₃ .+ r .* gh₃
    .+ b₃)` and `h' = (1 .- z) .* h̃ .+ z .* h`. `GRUCell(Wi, Wh, b, state0)` takes the arrays.
    Cho et al. 2014, https://arxiv.org/abs/1406.1078v1.

    >>> GRUCell(3 |to| 5)
    GRUCell(3 => 5)     # 140 parameters
    """

    Wi: Tensor
    Wh: Tensor
    b: Tensor
    state0: Tensor

    def __init__(
        self,
        *args: Any,
        init: Callable[..., Tensor] = glorot_uniform,
        initb: Callable[..., Tensor] = zeros32,
        init_state: Callable[..., Tensor] = zeros32,
    ) -> None:
        if len(args) != 4:
            n, m, _ = _sizes("GRUCell", args)
            args = (init(3 * m, n), init(3 * m, m), initb(3 * m), init_state(m, 1))
        self.Wi, self.Wh, self.b, self.state0 = self._checked(*args)


class GRUv3Cell(_GRUv3):
    """Gated recurrent unit, v3: `GRUv3Cell(in |to| out; init=glorot_uniform, initb=zeros32, init_state=zeros32)`.

    As `GRUCell`, but the reset gate comes before the product: `h̃ = tanh(gx₃ .+ Wh_h̃ * (r .* h) .+ b₃)`,
    so `Wh` is `(2 * out, out)` and `Wh_h̃` `(out, out)`. `GRUv3Cell(Wi, Wh, b, Wh_h̃, state0)` takes the
    arrays. Cho et al. 2014, https://arxiv.org/abs/1406.1078v3.

    >>> GRUv3Cell(3 |to| 5)
    GRUv3Cell(3 => 5)   # 140 parameters
    """

    Wi: Tensor
    Wh: Tensor
    b: Tensor
    Wh_h̃: Tensor
    state0: Tensor

    def __init__(
        self,
        *args: Any,
        init: Callable[..., Tensor] = glorot_uniform,
        initb: Callable[..., Tensor] = zeros32,
        init_state: Callable[..., Tensor] = zeros32,
    ) -> None:
        if len(args) != 5:
            n, m, _ = _sizes("GRUv3Cell", args)
            args = (init(3 * m, n), init(2 * m, m), initb(3 * m), init(m, m), init_state(m, 1))
        self.Wi, self.Wh, self.b, self.Wh_h̃, self.state0 = self._checked(*args)


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


def GRUv3(*args: Any, **options: Any) -> Recur:
    """A gated recurrent layer of the newer kind, `Recur(GRUv3Cell(in |to| out; ...))`. Shapes and errors as for `RNN`.

    >>> GRUv3(3 |to| 5)(rand32(3, 10)).shape
    torch.Size([5, 10])
    """
    return Recur(GRUv3Cell(*args, **options))
