"""Recurrent cells and layers in the meaning that they have since Flux 0.16: `cell(x, state) -> (y, state)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from fluxtorch.arrays import array, summary
from fluxtorch.base import tanh
from fluxtorch.errors import DimensionMismatch
from fluxtorch.initialisers import create_bias, glorot_uniform
from fluxtorch.layers.basic import act, size_check, tensor_input
from fluxtorch.layers.layer import Layer, layer
from fluxtorch.layers.recurrent import _GRU, _LSTM, _RNN, _Cell, _GRUv3, _is_known, _promote, _Rows, _sizes, _state
from fluxtorch.mlutils.arrays import stack
from fluxtorch.printing import show
from fluxtorch.zygote.scope import nested

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "GRUv3",
    "GRUv3Cell",
    "LSTMCell",
    "RNNCell",
    "Recurrence",
    "initialstates",
]


class _Step(_Cell):
    """What the cells share: a call with the input first, from zeros unless a state is given."""

    _remedy = ""

    def __call__(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:  # type: ignore[override]
        x, state = self._fitted(tensor_input(self, x), state, 1)
        rows, _ = self._advance(state, x)
        state = _unrolled(rows, x.ndim > 1)
        return state[0] if isinstance(state, tuple) else state, state

    def initialstates(self) -> Any:
        """The first state, zeros."""
        return self.Wh.new_zeros(self.Wh.shape[1])

    def _fitted(self, x: Tensor, state: Any, axes: int) -> tuple[Tensor, Any]:
        """An input of so many axes, and of the state's batch if it has none; the state, or the first one."""
        state = self.initialstates() if state is None else state
        batches = [h.shape[1] for h in self._parts(state) if isinstance(h, Tensor) and h.ndim == 2]
        if batches and x.ndim == axes:
            x = x.unsqueeze(-1)
        if batches and x.ndim == axes + 1 and x.shape[-1] == 1:
            x = x.expand(*x.shape[:-1], max(batches))
        return x, state

    def _promoted(self, *arrays: Tensor) -> list[Tensor]:
        return _promote(list(arrays))


class _Gated(_Step):
    """The cells with gates, whose fields are `Wi`, `Wh`, a bias and, for one, another array for the state."""

    def __init__(
        self,
        *args: Any,
        init_kernel: Callable[..., Tensor] = glorot_uniform,
        init_recurrent_kernel: Callable[..., Tensor] = glorot_uniform,
        bias: Any = True,
    ) -> None:
        names = self._field_names()
        if len(args) != len(names):
            n, m, _ = _sizes(type(self).__name__, args)
            rows = self._gates[0] * m
            Wi, Wh = init_kernel(rows, n), init_recurrent_kernel(rows, m)
            args = (Wi, Wh, create_bias(Wi, bias, rows), *(init_recurrent_kernel(m, m) for _ in names[3:]))
        for name, value in zip(names, self._checked(*args), strict=True):
            setattr(self, name, value)


def _unrolled(rows: _Rows, batch: bool) -> Any:
    """A state in columns, or as vectors where there is no batch."""
    return _state([h.t() if batch else h[0] for h in rows])


def initialstates(rnn: Any) -> Any:
    """The state in which a recurrent cell or layer starts: zeros `(out,)`, for `LSTM` a pair of them.

    A class takes part by a method `initialstates(self)`; anything else raises `TypeError`. Flux ≥ 0.15.

    >>> initialstates(LSTMCell(3 |to| 2))
    (tensor([0., 0.]), tensor([0., 0.]))
    """
    if not hasattr(type(rnn), "initialstates"):
        raise TypeError(f"{show(rnn)} has no method initialstates(self): give it a first state")
    return type(rnn).initialstates(rnn)


class RNNCell(_Step, _RNN):
    """One step of the plainest recurrence: `h' = σ(Wi * x .+ Wh * h .+ bias)`, which is both output and state.

    `RNNCell(in |to| out, σ=tanh; init_kernel=glorot_uniform, init_recurrent_kernel=glorot_uniform,
    bias=True)`, or `RNNCell(σ, Wi, Wh, bias)`. `cell(x, h)` takes `x` `(in,)` or `(in, N)` and `h`
    `(out,)` or `(out, N)`, by default zeros, and gives `(h', h')`. `Wi` is `(out, in)`, `Wh` `(out,
    out)`, `bias` zeros `(out,)` or `False`. Raises `DimensionMismatch` for other sizes.

    >>> cell = RNNCell(tanh, torch.ones(1, 2), torch.ones(1, 1), torch.zeros(1))
    >>> y, h = cell(torch.tensor([0.5, 0.5]))
    >>> y, h = cell(torch.tensor([0.5, 0.5]), h)
    >>> y is h, y.detach()
    (True, tensor([0.9427]))
    """

    σ: Any
    Wi: Tensor
    Wh: Tensor
    bias: Any

    def __init__(
        self,
        *args: Any,
        init_kernel: Callable[..., Tensor] = glorot_uniform,
        init_recurrent_kernel: Callable[..., Tensor] = glorot_uniform,
        bias: Any = True,
    ) -> None:
        if len(args) == 4:
            σ, Wi, Wh, bias = args
        else:
            n, m, rest = _sizes("RNNCell", args, 1)
            σ = rest[0] if rest else tanh
            Wi, Wh = init_kernel(m, n), init_recurrent_kernel(m, m)
            bias = create_bias(Wi, bias, m)
        self.σ = act("RNNCell", σ)
        self.Wi, self.Wh, self.bias = self._checked(Wi, Wh, bias)

    @property
    def b(self) -> Any:
        """The bias, as it is called up to Flux 0.14."""
        return self.bias

    def __str__(self) -> str:
        return f"RNNCell({self.Wi.shape[1]} => {self.Wh.shape[1]}, {show(self.σ)})"


class LSTMCell(_Gated, _LSTM):
    """One step of long short-term memory: `cell(x, (h, c))` gives `(h', (h', c'))`.

    `LSTMCell(in |to| out; init_kernel=glorot_uniform, init_recurrent_kernel=glorot_uniform,
    bias=True)`, or `LSTMCell(Wi, Wh, bias)`. `x` is `(in,)` or `(in, N)`, `h` and `c` `(out,)` or
    `(out, N)`, by default zeros. The gates input, forget, cell and output stand in this order in
    `Wi` `(4 * out, in)`, `Wh` `(4 * out, out)` and `bias`, zeros `(4 * out,)` or `False`; `c' = σ(f)
    .* c .+ σ(i) .* tanh(g)` and `h' = σ(o) .* tanh(c')`. Raises `DimensionMismatch` for other sizes.

    >>> l = LSTMCell(3 |to| 5)
    >>> l
    LSTMCell(3 => 5)    # 180 parameters
    >>> y, (h, c) = l(rand32(3, 4), (zeros32(5), zeros32(5)))
    >>> y.shape
    torch.Size([5, 4])
    """

    Wi: Tensor
    Wh: Tensor
    bias: Any

    __init__ = _Gated.__init__

    @property
    def b(self) -> Any:
        """The bias, as it is called up to Flux 0.14."""
        return self.bias

    def initialstates(self) -> Any:
        """The first state, a pair of zeros."""
        return super().initialstates(), super().initialstates()


class GRUCell(_Gated, _GRU):
    """One step of a gated recurrent unit, v1: `cell(x, h)` gives `(h', h')`.

    `GRUCell(in |to| out; init_kernel=glorot_uniform, init_recurrent_kernel=glorot_uniform,
    bias=True)`, or `GRUCell(Wi, Wh, b)`. `x` is `(in,)` or `(in, N)`, `h` `(out,)` or `(out, N)`, by
    default zeros. The gates reset, update and candidate stand in this order in `Wi` `(3 * out, in)`,
    `Wh` `(3 * out, out)` and `b`, zeros `(3 * out,)` or `False`; `h̃ = tanh(gx₃ .+ r .* gh₃ .+ b₃)`
    and `h' = (1 .- z) .* h̃ .+ z .* h`. Raises `DimensionMismatch` for other sizes. Cho et al. 2014,
    https://arxiv.org/abs/1406.1078v1.

    >>> GRUCell(3 |to| 5)
    GRUCell(3 => 5)     # 135 parameters
    """

    Wi: Tensor
    Wh: Tensor
    b: Any

    __init__ = _Gated.__init__


class GRUv3Cell(_Gated, _GRUv3):
    """One step of a gated recurrent unit, v3: as `GRUCell`, with the reset gate before the product.

    `GRUv3Cell(in |to| out; init_kernel=glorot_uniform, init_recurrent_kernel=glorot_uniform,
    bias=True)`, or `GRUv3Cell(Wi, Wh, b, Wh_h̃)`, all as in `GRUCell` but for `Wh_h̃`, which is `(out,
    out)`: `h̃ = tanh(gx₃ .+ Wh_h̃ * (r .* h) .+ b₃)`. The last third of `Wh` takes no part. Shapes and
    errors as for `GRUCell`. Cho et al. 2014, https://arxiv.org/abs/1406.1078v3.

    >>> y, h = GRUv3Cell(3 |to| 5)(rand32(3, 4))
    >>> y.shape
    torch.Size([5, 4])
    """

    _gates = (3, 3)

    Wi: Tensor
    Wh: Tensor
    b: Any
    Wh_h̃: Tensor

    __init__ = _Gated.__init__


@layer(expand=True)
class Recurrence(Layer):
    """Makes a layer for whole sequences of a cell: `Recurrence(cell; return_state=False)`.

    `rnn(x, state)` takes `x` `(in, len)` or `(in, len, N)` and calls `y, state = cell(x_t, state)` at
    each time, from `initialstates(cell)` if no state is given. It gives the outputs, `(out, len)` or
    `(out, len, N)`; with `return_state=True`, the pair of them and the last state. `cell` is a cell of
    this module, or any function of input and state. Raises `DimensionMismatch` for an input without
    times. Flux ≥ 0.16.

    >>> Recurrence(RNNCell(2 |to| 3))
    Recurrence(
      RNNCell(2 => 3, tanh),                # 18 parameters
    )                   # Total: 3 arrays, 18 parameters, 72 bytes.
    >>> accum = Recurrence(lambda x, h: (h + x, h + x), return_state=True)
    >>> accum([[1.0, 2.0, 3.0]], [0.0])
    (tensor([[1., 3., 6.]]), tensor([6.]))
    """

    cell: Any

    def __init__(self, cell: Any, *, return_state: bool = False) -> None:
        if not callable(cell):
            raise TypeError(f"{type(self).__name__} expects a cell, a function of input and state, not {show(cell)}")
        self.cell = cell
        self._return_state = return_state

    def initialstates(self) -> Any:
        """The first state of the cell."""
        return initialstates(self.cell)

    def __call__(self, x: Any, state: Any = None) -> Any:
        x = tensor_input(self, x)
        if x.ndim < 2 or x.shape[1] == 0:
            raise DimensionMismatch(f"layer {self} expects features and at least one time step, but got {summary(x)}")
        scan = self._scan_known if _is_known(self.cell, *_KINDS) else self._scan
        y, state = scan(x, array(state))
        return (y, state) if self._return_state else y

    def _scan(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        state, ys = initialstates(self.cell) if state is None else state, []
        for x_t in x.unbind(1):
            result = self.cell(x_t, state)
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(
                    f"the cell of {self} must give a pair, the output and the new state, and gave {summary(result)}"
                )
            y, state = result
            ys.append(torch.as_tensor(y))
        return stack(ys, 1), state

    def _scan_known(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same by torch's kernel for all times at once, if there is one."""
        cell = self.cell
        if x.ndim > 3:
            raise DimensionMismatch(f"layer {self} expects a matrix or an array of 3 axes, but got {summary(x)}")
        order = "(features, time, batch), not (batch, time, features)" if x.ndim == 3 else "(features, time)"
        size_check(self, x, 0, cell.Wi.shape[1], order)
        x, state = cell._fitted(x, state, 2)
        kernel = cell._kernel()
        if kernel is None or (x.is_cuda and nested()):  # cuDNN's can't be differentiated twice
            ys = []
            for x_t in x.unbind(1):
                state, y = cell._advance(state, x_t)
                ys.append(y)
            return stack(ys, 1), _unrolled(state, x.ndim > 2)
        rows, y = cell._run(kernel, state, x.transpose(1, 2) if x.ndim > 2 else x[:, None])
        return y.permute(2, 0, 1) if x.ndim > 2 else y[:, 0].t(), _unrolled(rows, x.ndim > 2)


_KINDS = (RNNCell, LSTMCell, GRUCell, GRUv3Cell)


class _Whole(Recurrence):
    """A standard cell and its `Recurrence`, under one name."""

    _expand = False
    _kind: ClassVar[type]

    def __init__(self, *args: Any, return_state: bool = False, **options: Any) -> None:
        given = len(args) == 1 and not options and isinstance(args[0], self._kind)
        super().__init__(args[0] if given else self._kind(*args, **options), return_state=return_state)

    def __str__(self) -> str:
        return str(self.cell).replace("Cell", "", 1)


class RNN(_Whole):
    """The plainest recurrent layer, over whole sequences: `RNN(in |to| out, σ=tanh; return_state=False, ...)`.

    The other keywords are those of `RNNCell`; `RNN(cell)` takes one. `rnn(x, h)` takes `x` `(in, len)`
    or `(in, len, N)` and `h` `(out,)` or `(out, N)`, by default zeros, and gives the state after each
    time, `(out, len)` or `(out, len, N)`; with `return_state=True`, the pair of that and the last one.
    No state is kept between calls. Raises `DimensionMismatch` for other sizes.

    >>> rnn = RNN(4 |to| 6)
    >>> rnn
    RNN(4 => 6, tanh)   # 66 parameters
    >>> rnn(rand32(4, 3, 5), zeros32(6, 5)).shape
    torch.Size([6, 3, 5])
    """

    _kind = RNNCell
    __init__ = _Whole.__init__


class LSTM(_Whole):
    """Long short-term memory over whole sequences: `LSTM(in |to| out; return_state=False, ...)`.

    The other keywords are those of `LSTMCell`; `LSTM(cell)` takes one. `lstm(x, (h, c))` takes `x`
    `(in, len)` or `(in, len, N)` and a pair of states `(out,)` or `(out, N)`, by default zeros. Output
    and errors as for `RNN`, and the last state is a pair too.

    >>> y, (h, c) = LSTM(2 |to| 3, return_state=True)(rand32(2, 4, 5))
    >>> y.shape, h.shape, torch.equal(y[:, -1], h)
    (torch.Size([3, 4, 5]), torch.Size([3, 5]), True)
    """

    _kind = LSTMCell
    __init__ = _Whole.__init__


class GRU(_Whole):
    """A gated recurrent layer, v1, over whole sequences: `GRU(in |to| out; return_state=False, ...)`.

    The other keywords are those of `GRUCell`; `GRU(cell)` takes one. Shapes and errors as for `RNN`.

    >>> GRU(2 |to| 3)(rand32(2, 4, 5), zeros32(3)).shape
    torch.Size([3, 4, 5])
    """

    _kind = GRUCell
    __init__ = _Whole.__init__


class GRUv3(_Whole):
    """A gated recurrent layer, v3, over whole sequences: `GRUv3(in |to| out; return_state=False, ...)`.

    The other keywords are those of `GRUv3Cell`; `GRUv3(cell)` takes one. Shapes and errors as for `RNN`.

    >>> GRUv3(2 |to| 3)(rand32(2, 4)).shape
    torch.Size([3, 4])
    """

    _kind = GRUv3Cell
    __init__ = _Whole.__init__
