"""Layers that combine others: `SkipConnection`, `Parallel`, `PairwiseFusion`, and the two-input layer `Bilinear`."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import torch

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.base import identity
from fluxtorch.errors import DimensionMismatch
from fluxtorch.initialisers import create_bias, glorot_uniform
from fluxtorch.layers.basic import (
    Layers,
    act,
    at_most,
    bias_and_act,
    initial,
    is_size,
    joined,
    match_eltype,
    options,
    reversal,
    tensor_input,
    weights,
    whole,
)
from fluxtorch.layers.layer import Layer, layer
from fluxtorch.namedtuples import NamedTuple, fold
from fluxtorch.nnlib.attention import Attended
from fluxtorch.printing import show

__all__ = ["Bilinear", "PairwiseFusion", "Parallel", "SkipConnection"]

# Functions of two arguments that stand, as in Julia, for any number of them.
_ANY_NUMBER = (operator.add, operator.mul, operator.matmul, torch.add, torch.mul, torch.maximum, torch.minimum)


def _are_several(x: Any) -> bool:
    """Is `x` a tuple of inputs, also that of an attention layer, and not one input?"""
    return type(x) is tuple or type(x) is Attended


def _connected(connection: Callable[..., Any], ys: list[Any]) -> Any:
    if any(connection is f for f in _ANY_NUMBER) and len(ys) != 2:
        return functools.reduce(connection, ys) if ys else connection()
    return connection(*ys)


@layer(expand=True)
class SkipConnection(Layer):
    """`connection(layers(x), x)`: a shortcut past a layer or `Chain`, `SkipConnection(layers, connection)`.

    With `operator.add` as the connection it is a residual block.

    >>> m = Conv((3, 3), 4 |to| 7, pad=(1, 1))
    >>> sm = SkipConnection(m, lambda mx, x: cat(mx, x, dims=2))
    >>> sm(ones32(5, 5, 4, 10)).shape
    torch.Size([5, 5, 11, 10])
    """

    layers: Any
    connection: Any

    def __init__(self, layers: Any, connection: Callable[[Any, Any], Any]) -> None:
        for f in (layers, connection):
            if not callable(f):
                raise TypeError(f"SkipConnection expects a layer and a function of two arguments, and got {show(f)}")
        self.layers, self.connection = layers, connection

    def __call__(self, x: Any) -> Any:
        x = array(x)
        return self.connection(self.layers(x), x)

    def __str__(self) -> str:
        return f"SkipConnection({show(self.layers)}, {show(self.connection)})"


class _Branches(Layers):
    """What `Parallel` and `PairwiseFusion` share: a connection, and layers with or without names."""

    def __init__(self, connection: Callable[..., Any], *layers: Any, **named: Any) -> None:
        name = type(self).__name__
        if {"layers", "connection"} & named.keys():
            raise ValueError(f"a {name} layer cannot have a named sub-layer called `connection` or `layers`")
        if layers and named:
            raise TypeError(f"a {name} has layers with names or without, not both")
        given: Any = layers
        if len(layers) == 1 and isinstance(layers[0], (tuple, NamedTuple)):
            given = layers[0]
        if named:
            given = NamedTuple.of({fold(key): f for key, f in named.items()})
        for f in (connection, *given):
            if not callable(f):
                raise TypeError(f"{name} takes a connection and layers, which are functions, and got {show(f)}")
        self.connection, self.layers = connection, given

    def _with(self, layers: Any) -> Any:
        return type(self)(self.connection, layers)

    def _wrong(self, n: int) -> ValueError:
        name, of = type(self).__name__, len(self)
        return ValueError(f"{name} with {of} sub-layers can take one input or {of} inputs, but got {n} inputs")

    def __str__(self) -> str:
        return f"{type(self).__name__}({show(self.connection)}, {joined(self.layers)})"


@layer(expand=True)
class Parallel(_Branches):
    """`connection(f(x), g(x), …)` for layers `f, g, …`: `Parallel(connection, layers...)`, or with names.

    Given as many inputs as layers, or a tuple of them, each layer gets its own; a single layer gets
    one after the other. `operator.add` and its like take any number of branches. `m[0]` and
    `m["name"]` are layers, `m[0:2]` a `Parallel`.

    Raises `ValueError` for another number of inputs.

    >>> model2 = Parallel(operator.add, α=Dense(10 |to| 2, tanh), β=Dense(5 |to| 2))
    >>> model2
    Parallel(
      +,
      α = Dense(10 => 2, tanh),             # 22 parameters
      β = Dense(5 => 2),                    # 12 parameters
    )                   # Total: 4 arrays, 34 parameters, 136 bytes.
    >>> model2(rand32(10), rand32(5)).shape
    torch.Size([2])
    >>> model2["β"] is model2[1]
    True
    """

    connection: Any
    layers: Any

    def __call__(self, *xs: Any) -> Any:
        while len(xs) == 1 and _are_several(xs[0]):
            xs = tuple(xs[0])
        inputs, layers = tuple(map(array, xs)), tuple(self.layers)
        if len(inputs) == 1:
            inputs = inputs * len(layers)
        elif len(layers) == 1 and inputs:
            layers = layers * len(inputs)
        elif len(inputs) != len(layers):
            raise self._wrong(len(inputs))
        return _connected(self.connection, [f(x) for f, x in zip(layers, inputs, strict=True)])


@layer(expand=True)
class PairwiseFusion(_Branches):
    """Layers that each take what the one before gave, fused with an input: `PairwiseFusion(connection, layers...)`.

    Of inputs `(x1, x2, …)`, one for each layer: `y1 = f1(x1)`, `y2 = f2(connection(y1, x2))`, and so
    on. With one input, it is fused in at every step. Gives the tuple of the outputs `(y1, y2, …)`.
    Raises `ValueError` for another number of inputs.

    >>> m = PairwiseFusion(operator.add, lambda x: 10 * x, lambda x: 2 * x)
    >>> m((1, 2)), m(1)
    ((10, 24), (10, 22))
    """

    connection: Any
    layers: Any

    def __call__(self, *xs: Any) -> Any:
        single = len(xs) == 1 and not _are_several(xs[0])
        inputs = xs * len(self) if single else xs[0] if len(xs) == 1 else xs
        if len(inputs) != len(self):
            raise self._wrong(len(inputs))
        ys: list[Any] = []
        for i, (f, x) in enumerate(zip(self.layers, map(array, inputs), strict=True)):
            ys.append(f(self.connection(ys[-1], x) if i else x))
        return tuple(ys)


class Bilinear(Layer):
    """A layer of two inputs, `z[i] = σ(x' * W[i, :, :] * y + b[i])`: `Bilinear((in1, in2) |to| out, σ; bias, init)`.

    Inputs `(in1,)` and `(in2,)`, or `(in1, N)` and `(in2, N)`, also as a tuple; a single input counts
    twice. Output `(out,)` or `(out, N)`. `weight` is `init(out, in1, in2)`; `Bilinear(in |to| out)` has
    inputs of one size, and `Bilinear(W, bias, σ)` takes the arrays.

    Raises `DimensionMismatch` for inputs of other sizes.

    >>> B = Bilinear((5, 5) |to| 7)
    >>> B
    Bilinear(5 => 7)    # 182 parameters
    >>> x, y = rand32(5, 32), rand32(5, 32)
    >>> B(x).shape, torch.equal(B(x, y), B((x, y)))
    (torch.Size([7, 32]), True)
    >>> Bilinear(rand(4, 8, 16), False, tanh)
    Bilinear((8, 16) => 4, tanh; bias=false)  # 512 parameters
    """

    weight: torch.Tensor
    bias: Any
    σ: Any

    def __init__(
        self, W: Any, *args: Any, bias: Any = True, init: Callable[..., torch.Tensor] = glorot_uniform
    ) -> None:
        given = weights("Bilinear", W)
        if given is not None:
            if given.ndim != 3:
                raise DimensionMismatch(f"Bilinear expects a 3-array of weights, and got a {summary(given)}")
            bias, self.σ = bias_and_act("Bilinear", args, bias)
        else:
            if is_size(W) and len(args) >= 2 and is_size(args[0]):  # Bilinear(in1, in2, out), up to Flux 0.12
                W, args = ((W, args[0]), args[1]), args[2:]
            if not isinstance(W, tuple) or len(W) != 2:
                raise TypeError(f"Bilinear expects sizes, as in Bilinear((5, 5) |to| 7), and got {show(W)}")
            n, m = W
            n1, n2 = n if isinstance(n, tuple) and len(n) == 2 else (n, n)
            whole("Bilinear", n1, n2, m)
            at_most("Bilinear", args, 1)
            given = initial("Bilinear", init, m, n1, n2)
            self.σ = act("Bilinear", *args) if args else identity
        self.weight = given
        self.bias = create_bias(given, bias, given.shape[0])

    def __call__(self, *xs: Any) -> torch.Tensor:
        if len(xs) == 1 and _are_several(xs[0]):
            xs = xs[0]
        if len(xs) not in (1, 2):
            raise TypeError(f"layer {self} takes one or two inputs, and got {len(xs)}")
        W = self.weight
        x, y = (match_eltype(self, W.dtype, tensor_input(self, v)) for v in (xs[0], xs[-1]))
        for v, n in ((x, W.shape[1]), (y, W.shape[2])):
            if v.ndim not in (1, 2) or v.shape[0] != n:
                hint = reversal(v, "(features, N)") if v.ndim == 2 and v.shape[1] == n else ""
                raise DimensionMismatch(
                    f"layer {self} expects an input with size(input, 0) == {n}, but got {summary(v)}{hint}"
                )
        if x.shape[1:] != y.shape[1:]:
            raise DimensionMismatch(
                f"the inputs of {self} must agree on the number of columns, and are {summary(x)} and {summary(y)}"
            )
        xr, yr = (reversed_axes(v) if v.ndim == 2 else v[None] for v in (x, y))
        m, n1, n2 = W.shape
        # As Flux does it, which takes two large products where torch's bilinear takes many small ones.
        Wy = (yr @ reversed_axes(W).reshape(n2, n1 * m)).reshape(-1, n1, m)
        z = torch.matmul(xr.unsqueeze(1), Wy).squeeze(1)
        z = z if self.bias is False else z + self.bias
        return self.σ(reversed_axes(z) if x.ndim == 2 else z[0])

    def __str__(self) -> str:
        m, n1, n2 = self.weight.shape
        return f"Bilinear({n1 if n1 == n2 else show((n1, n2))} => {m}{options(self)})"
