"""The layers of Flux's `basic.jl`, and the checks and conversions that all layers share."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as torch_modules

from fluxtorch.arrays import array, reversed_axes, summary
from fluxtorch.base import broadcast, identity, tanh
from fluxtorch.errors import DimensionMismatch
from fluxtorch.initialisers import create_bias, glorot_uniform, ones32, zeros32
from fluxtorch.layers.layer import Layer, _Ref, layer
from fluxtorch.layers.layout import alike
from fluxtorch.layers.linear import linear
from fluxtorch.layers.show import optional
from fluxtorch.mlutils.arrays import flatten
from fluxtorch.namedtuples import NamedTuple, fold
from fluxtorch.nnlib import activations as activations_
from fluxtorch.printing import show

__all__ = ["Chain", "Dense", "Diagonal", "Maxout", "Scale", "activations", "flatten"]


def size_check(layer: Any, x: torch.Tensor, dim: int, n: int, order: str = "", fits: bool | None = None) -> None:
    """Raises `DimensionMismatch` in Flux's words unless `x` has `n` elements along `dim`.

    If `x` with its axes reversed would fit (that axis alone decides, unless `fits` says), the message says
    so, and what Flux's `order` of the axes is.
    """
    if dim >= x.ndim or dim < 0:
        raise DimensionMismatch(f"layer {layer} expects ndims(input) > {max(dim, 0)}, but got {summary(x)}")
    if x.shape[dim] != n:
        hint = reversal(x, order or _order(x, dim)) if x.shape[-1 - dim] == n and fits is not False else ""
        raise DimensionMismatch(f"layer {layer} expects size(input, {dim}) == {n}, but got {summary(x)}{hint}")


def reversal(x: torch.Tensor, order: str) -> str:
    """What to do about an array in torch's order of axes, as the end of an error message."""
    how = "transpose it, x.T" if x.ndim == 2 else f"reverse the axes, x.permute{(*reversed(range(x.ndim)),)}"
    return f": Flux's order is {order}, so {how}"


def _order(x: torch.Tensor, dim: int) -> str:
    """Flux's order of the axes of an array that has its features, or channels, along `dim`."""
    if dim == 0:
        return "(features, N)" if x.ndim == 2 else "(features, …, N)"
    return f"({', '.join('WHD'[: x.ndim - 2]) if x.ndim < 6 else '…'}, C, N)"


_warned: set[tuple[torch.dtype, torch.dtype]] = set()


def match_eltype(layer: Any, dtype: torch.dtype, x: torch.Tensor) -> torch.Tensor:
    """`x` in a layer's own element type. Warns once where that hides a slow program: Float64 into Float32."""
    if x.dtype == dtype or x.is_complex():
        return x
    if x.is_meta:  # the stand-in of `outputsize`, which autocast doesn't know and which no program is slow for
        return x.to(dtype)
    if torch.is_autocast_enabled(x.device.type):
        return x
    kinds = {torch.float64: torch.float32, torch.float32: torch.float16}
    if kinds.get(x.dtype) == dtype and (dtype, x.dtype) not in _warned:
        _warned.add((dtype, x.dtype))
        want, got = ("Float32", "Float64") if dtype == torch.float32 else ("Float16", "Float32")
        warnings.warn(
            f"Layer with {want} parameters got {got} input. The input will be converted, "
            f"but any earlier layers may be very slow. The layer is {layer}, its input a {summary(x)}.",
            stacklevel=5,
        )
    return x.to(dtype)


def tensor_input(layer: Any, x: Any) -> torch.Tensor:
    """The input of a layer as a tensor: a list of numbers is an array."""
    if not isinstance(x, torch.Tensor):
        x = array(x)
        if not isinstance(x, torch.Tensor):
            several = isinstance(x, list) and any(isinstance(v, torch.Tensor) for v in x)
            hint = ": several inputs go into a tuple" if several else ""
            raise TypeError(f"layer {layer} expects an array as input, but got {summary(x)}{hint}")
    return x


def sizes(layer: str, first: Any, rest: tuple[Any, ...]) -> tuple[Any, Any, tuple[Any, ...]]:
    """The two sides of `in => out`, in Flux's spelling or in that of Flux ≤ 0.12, and the other arguments."""
    if isinstance(first, tuple) and len(first) == 2:
        return first[0], first[1], rest
    if is_size(first) and rest and is_size(rest[0]):
        return first, rest[0], rest[1:]
    raise TypeError(f"{layer} expects a pair of sizes, as in {layer}(10 |to| 5), and got {show(first)}")


def whole(layer: str, *ns: Any) -> None:
    """Raises `TypeError` unless all of `ns` are whole numbers, `ValueError` if one is below 0."""
    for n in ns:
        if not is_size(n):
            raise TypeError(f"{layer} expects its sizes to be whole numbers, and got {show(n)}")
        if n < 0:
            raise ValueError(f"{layer} expects sizes of at least 0, and got {n}")


def is_size(x: Any) -> bool:
    return isinstance(x, numbers.Integral) and not isinstance(x, bool)


def weights(layer: str, x: Any) -> torch.Tensor | None:
    """`x` as an array of floating numbers, if it is an array; else None."""
    x = x if isinstance(x, numbers.Number) else array(x)  # NumPy's numbers would become arrays
    if not isinstance(x, torch.Tensor):
        return None
    return x if x.is_floating_point() or x.is_complex() else x.to(torch.get_default_dtype())


def initial(layer: str, init: Callable[..., Any], *size: int) -> torch.Tensor:
    """What `init` makes for weights of the given size."""
    w = weights(layer, init(*size))
    if w is None or tuple(w.shape) != size:
        raise DimensionMismatch(f"init of {layer} must give an array of size {size}, and gave {summary(w)}")
    return w


def at_most(layer: str, args: tuple[Any, ...], n: int) -> None:
    if len(args) > n:
        raise TypeError(f"{layer} got {len(args) - n} argument{'s' * (len(args) - n > 1)} too many: {show(args[n:])}")


def bias_and_act(layer: str, args: tuple[Any, ...], bias: Any, σ: Any = identity) -> tuple[Any, Any]:
    """The bias and the activation of a layer: the arguments that follow its weights, else what the keywords were."""
    at_most(layer, args, 2)
    if args and bias is not True:
        raise TypeError(f"{layer} got a bias twice: {show(args[0])} and {show(bias)}")
    b, σ = (*args, *(bias, σ)[len(args) :])
    return b, act(layer, σ)


def joined(layers: Any) -> str:
    """Layers on one line, with their names if they have any."""
    if isinstance(layers, NamedTuple):
        return ", ".join(f"{name} = {show(kid)}" for name, kid in vars(layers).items())
    text = ", ".join(map(show, layers))
    return f"[{text}]" if isinstance(layers, list) else text


def act(layer: str, σ: Any) -> Callable[..., Any]:
    """The activation `σ`, which must be a function."""
    if not callable(σ):
        raise TypeError(f"{layer} expects a function as its activation, and got {show(σ)}")
    return σ  # type: ignore[no-any-return]


class Layers(Layer):
    """What layers with a field `layers` share that can be indexed: `m[0]`, `m["name"]`, `m[0:2]`."""

    def _with(self, layers: Any) -> Any:
        """The same with other layers."""
        raise NotImplementedError

    def __getitem__(self, i: Any) -> Any:
        if not isinstance(i, (slice, list, range)):
            return self.layers[i]
        chosen = range(len(self))[i] if isinstance(i, slice) else i
        names = list(self.keys())
        if isinstance(self.layers, NamedTuple):
            return self._with(NamedTuple.of({names[k]: self.layers[k] for k in chosen}))
        return self._with(type(self.layers)(self.layers[k] for k in chosen))

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.layers)

    def keys(self) -> Any:
        """The names of the layers, or their positions."""
        return self.layers.keys() if isinstance(self.layers, NamedTuple) else range(len(self))


@layer(expand=True)
class Chain(Layers):
    """Layers and functions called one after the other: `Chain(layers...)`, or with names `Chain(name=layer, ...)`.

    `m[0]` is the first layer, `m[0:2]` a `Chain` of the first two, `m["name"]` or `m.layers.name`
    one by its name. A list of layers may be given instead, and stays one list. Without layers it
    is the identity. Of several inputs the first layer gets the tuple.

    Raises `ValueError` for a layer named `layers`, `TypeError` for one that can't be called.

    >>> Chain(lambda x: x**2, lambda x: x + 1)(5)
    26
    >>> m = Chain(enc=Dense(10 |to| 5, tanh), dec=Dense(5 |to| 2))
    >>> m["dec"] is m[1]
    True
    >>> print(m)
    Chain(enc = Dense(10 => 5, tanh), dec = Dense(5 => 2))
    """

    layers: Any

    def __init__(self, *layers: Any, **named: Any) -> None:
        if layers and named:
            raise TypeError("a Chain has layers with names or without, not both")
        if "layers" in named:
            raise ValueError("a Chain cannot have a named layer called `layers`")
        given: Any = layers
        if len(layers) == 1 and isinstance(layers[0], (list, tuple, NamedTuple)):
            given = layers[0]
        if named:
            given = NamedTuple.of({fold(name): f for name, f in named.items()})
        for f in given:
            if not callable(f):
                raise TypeError(f"a Chain takes layers and functions, and got {show(f)}")
        self.layers = given

    def __call__(self, x: Any, *more: Any) -> Any:
        x = (x, *more) if more else x
        xr = None  # in the place of x, the same with its axes in torch's order
        unseen, own = not _all_watched(), self.__dict__
        # The same as self.layers, which takes as long as a small layer's own Python.
        for f in own["_templates"].get("layers") or self.layers:
            if type(f) is _Ref:
                f = own[f.registry][f.key]
            if unseen and (f is flatten or "_reversed" in type(f).__dict__):
                given = reversed_axes(x) if xr is None and type(x) is torch.Tensor and x.ndim > 1 else xr
                if given is not None:
                    y = alike(given).flatten(1) if f is flatten else f._reversed(given)
                    if y is not None:
                        xr = y
                        continue
            if xr is not None:
                x, xr = reversed_axes(alike(xr)), None
            x = f(x)
        return x if xr is None else reversed_axes(alike(xr))

    def _with(self, layers: Any) -> Chain:
        return Chain(layers)

    def __str__(self) -> str:
        return f"Chain({joined(self.layers)})"


def activations(c: Any, x: Any) -> tuple[Any, ...]:
    """What each layer of the chain `c` gives, as a tuple, when `c` is called on `x`.

    >>> activations(Chain(lambda x: x + 1, lambda x: x * 2, lambda x: x**3), 1)
    (2, 4, 64)
    """
    results = []
    for f in c:
        x = f(x)
        results.append(x)
    return tuple(results)


# The activations that go element by element, so that they may be taken of an array with its axes reversed; two of them
# by the names under which torch has the same.
ELEMENTWISE: dict[int, Any] = {
    id(f): f
    for f in (
        *(identity, torch.tanh, torch.relu, F.relu, torch.sigmoid),
        *(activations_.σ, activations_.gelu, activations_.swish, activations_.mish, activations_.leakyrelu),
        *(activations_.elu, activations_.selu, activations_.celu, activations_.softplus, activations_.relu6),
        *(activations_.hardtanh, activations_.tanh_fast, activations_.sigmoid_fast),
    )
} | {id(tanh): torch.tanh, id(activations_.relu): torch.relu}
_GLOBAL_HOOKS = (
    torch_modules._global_forward_hooks,
    torch_modules._global_forward_pre_hooks,
    torch_modules._global_backward_hooks,
    torch_modules._global_backward_pre_hooks,
)


def _all_watched() -> bool:
    """Does more happen at a call of any module, by torch's global hooks, or is it compiled?"""
    return any(_GLOBAL_HOOKS) or torch.compiler.is_dynamo_compiling()


class Dense(Layer):
    """A fully connected layer, `σ(W * x .+ b)`: `Dense(in |to| out, σ=identity; bias=True, init=glorot_uniform)`.

    Input `(in,)`, `(in, N)` or `(in, a, …, N)`; output the same with `out` for `in`. `weight` is
    `init(out, in)`, `(out, in)`, and `bias` zeros, `(out,)`; `bias=False` leaves it out.
    `Dense(W, bias=True, σ=identity)` takes the arrays; `Dense(in, out, σ; initW=init, initb=zeros32)`
    is Flux ≤ 0.12's spelling. The input is converted to the element type of the weight.

    Raises `DimensionMismatch` for an input or bias of another size, `TypeError` for sizes that are
    not whole numbers.

    >>> model = Dense(5 |to| 2)
    >>> model
    Dense(5 => 2)       # 12 parameters
    >>> model(rand32(5, 6, 4, 64)).shape
    torch.Size([2, 6, 4, 64])
    >>> model2 = Dense(ones(2, 5), False, tanh)
    >>> model2
    Dense(5 => 2, tanh; bias=false)  # 10 parameters
    >>> model2(ones(5)).detach()
    tensor([0.9999, 0.9999], dtype=torch.float64)
    """

    weight: torch.Tensor
    bias: Any
    σ: Any

    def __init__(
        self,
        W: Any,
        *args: Any,
        bias: Any = True,
        init: Callable[..., torch.Tensor] = glorot_uniform,
        initW: Callable[..., torch.Tensor] | None = None,
        initb: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        given = weights("Dense", W)
        if given is not None:
            if given.ndim != 2:
                raise DimensionMismatch(f"Dense expects a matrix of weights, and got a {summary(given)}")
            bias, self.σ = bias_and_act("Dense", args, bias)
        else:
            n, m, args = sizes("Dense", W, args)
            whole("Dense", n, m)
            at_most("Dense", args, 1)
            given = initial("Dense", initW or init, m, n)
            bias = initb(m) if initb and bias is True else bias
            self.σ = act("Dense", *args) if args else identity
        self.weight = given
        self.bias = create_bias(given, bias, given.shape[0])

    @property
    def W(self) -> torch.Tensor:
        """The weight, as it was called before Flux 0.12."""
        return self.weight

    @property
    def b(self) -> Any:
        """The bias, as it was called before Flux 0.12."""
        return self.bias

    def __call__(self, x: Any) -> torch.Tensor:
        x = x if isinstance(x, torch.Tensor) else tensor_input(self, x)
        W, b = self.weight, self.bias
        if x.ndim == 0 or x.shape[0] != W.shape[1]:
            size_check(self, x, 0, W.shape[1])
        b = None if b is False else b
        if x.dtype != W.dtype:
            x = match_eltype(self, W.dtype, x)
            if x.is_complex():
                W, b = W.to(x.dtype), b if b is None else b.to(x.dtype)
        product = F.linear if torch.compiler.is_dynamo_compiling() else linear
        if x.ndim == 2:
            return self.σ(product(x.t(), W, b).t())
        return self.σ(reversed_axes(product(reversed_axes(x), W, b)))

    def _reversed(self, x: torch.Tensor) -> torch.Tensor | None:
        """What the layer does, in torch's order of axes; None if more is to be done, or it is watched."""
        found = plain_fields(self)
        if found is None:
            return None
        W, b, σ = found
        try:
            y = linear(x, W, b)
            return y if σ is identity else σ(y)
        except RuntimeError:  # of sizes or types, about which `__call__` has more to say
            return None

    def __str__(self) -> str:
        return f"Dense({self.weight.shape[1]} => {self.weight.shape[0]}{options(self)})"


def plain_fields(m: Layer) -> tuple[torch.Tensor, torch.Tensor | None, Callable[[torch.Tensor], torch.Tensor]] | None:
    """The weight, the bias and the activation of `m`, if it does with them what it does in any order of axes.

    None if one is no parameter, the activation doesn't go element by element, or more happens at a call.
    """
    own: dict[str, Any] = m.__dict__
    parameters, σ = own["_parameters"], ELEMENTWISE.get(id(own.get("σ")))
    W, b = parameters.get("weight"), parameters.get("bias")
    if W is None or (b is None and own.get("bias") is not False) or σ is None or has_hooks(m):
        return None
    return W, b, σ


def in_torch_order(f: Any, x: torch.Tensor) -> torch.Tensor:
    """What the layer `f` does with the array `x`, where both `x` and the result have torch's order of axes."""
    y = None
    if type(x) is torch.Tensor and "_reversed" in type(f).__dict__ and not _all_watched():
        y = f._reversed(x)
    return y if y is not None else reversed_axes(f(reversed_axes(x)))  # type: ignore[no-any-return]


def is_watched(m: Layer) -> bool:
    """Does more happen at a call of `m` than its forward: are there hooks, or is it compiled?"""
    return has_hooks(m) or _all_watched()


def has_hooks(m: nn.Module) -> bool:
    """Does more happen at a call of this very `m`?"""
    own = m.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or m._compiled_call_impl
    )


def options(m: Any) -> str:
    return optional((m.σ is not identity, f", {show(m.σ)}"), (m.bias is False, "; bias=false"))


class Scale(Layer):
    """An element-wise layer, `σ(scale .* x .+ bias)`: `Scale(sizes..., σ=identity; bias=True, init=ones32)`.

    Axes line up from the first, so `Scale(n)` takes `(n,)`, `(n, N)` or `(n, …)`; those of length 1
    are repeated, on either side, and so is a number. `Scale(scale, bias=True, σ=identity)` takes the arrays.

    Raises `DimensionMismatch` for an input or bias of another size, `TypeError` for sizes that are
    not whole numbers.

    >>> a = Scale(2)
    >>> a
    Scale(2)            # 4 parameters
    >>> a([[1, 2, 3], [1, 2, 3]]).detach()
    tensor([[1., 2., 3.],
            [1., 2., 3.]])
    >>> b = Scale(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), False, abs2)
    >>> b([1, 10]).detach().int()
    tensor([[   1,    4,    9,   16],
            [ 100,  400,  900, 1600]], dtype=torch.int32)
    """

    scale: torch.Tensor
    bias: Any
    σ: Any

    def __init__(self, *args: Any, bias: Any = True, init: Callable[..., torch.Tensor] = ones32) -> None:
        given = weights("Scale", args[0]) if args else None
        if given is not None:
            bias, self.σ = bias_and_act("Scale", args[1:], bias)
        else:
            *sizes, self.σ = args if args and callable(args[-1]) else (*args, identity)
            size = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple) else sizes
            if not size:
                raise TypeError("Scale expects the sizes of its scale, as in Scale(2)")
            whole("Scale", *size)
            given = initial("Scale", init, *size)
        self.scale = given
        self.bias = create_bias(given, bias, *given.shape)

    def __call__(self, x: Any) -> torch.Tensor:
        x = x if isinstance(x, (int, float)) else tensor_input(self, x)
        try:
            y = reversed_axes(self.scale) * (reversed_axes(x) if isinstance(x, torch.Tensor) else x)
        except RuntimeError:
            if all(n == m or 1 in (n, m) for n, m in zip(self.scale.shape, x.shape, strict=False)):
                raise
            problem = f"layer {self} can't scale a {summary(x)}: their axes line up from the first"
            raise DimensionMismatch(problem) from None
        if self.bias is not False:
            y = y + reversed_axes(self.bias)
        return self.σ(reversed_axes(y))

    @property
    def α(self) -> torch.Tensor:
        """The scale, as it was called in `Diagonal`."""
        return self.scale

    @property
    def β(self) -> Any:
        """The bias, as it was called in `Diagonal`."""
        return self.bias

    def __str__(self) -> str:
        return f"Scale({', '.join(map(str, self.scale.shape))}{options(self)})"


def Diagonal(*args: Any, initα: Callable[..., Any] = ones32, initβ: Callable[..., Any] = zeros32) -> Scale:
    """A `Scale` as Flux ≤ 0.12 has it: `Diagonal(sizes...; initα=ones32, initβ=zeros32)`, `Diagonal(α, β)`.

    >>> d = Diagonal(2, initβ=ones32)
    >>> d
    Scale(2)            # 4 parameters
    >>> d([[1, 2, 3], [1, 2, 3]]).detach()
    tensor([[2., 3., 4.],
            [2., 3., 4.]])
    """
    if args and weights("Diagonal", args[0]) is None:
        whole("Diagonal", *args)
        args = initα(*args), initβ(*args)
    return Scale(*args)


@layer(expand=True)
class Maxout(Layer):
    """The element-wise maximum of what several layers give for the same input: `Maxout(layers...)`, `Maxout(f, n)`.

    With a function `f` without arguments and a number, the layers are `f()`, called `n` times.
    Arrays of different sizes line up from the first axis, as in Julia. Goodfellow et al.,
    https://arxiv.org/abs/1302.4389. Raises `TypeError` without layers, `DimensionMismatch` if what
    they give doesn't line up.

    >>> m = Maxout(lambda x: abs2(x), lambda x: x * 3)
    >>> m([[-2, -1, 0, 1, 2]])
    tensor([[4, 1, 0, 3, 6]])
    >>> Maxout(lambda: Dense(5 |to| 7, tanh), 3)
    Maxout(
      Dense(5 => 7, tanh),                  # 42 parameters
      Dense(5 => 7, tanh),                  # 42 parameters
      Dense(5 => 7, tanh),                  # 42 parameters
    )                   # Total: 6 arrays, 126 parameters, 504 bytes.
    """

    layers: Any

    def __init__(self, *layers: Any) -> None:
        if len(layers) == 2 and is_size(layers[1]):
            layers = tuple(layers[0]() for _ in range(layers[1]))
        elif len(layers) == 1 and isinstance(layers[0], (tuple, list)):
            layers = tuple(layers[0])
        if not layers or not all(map(callable, layers)):
            raise TypeError(f"Maxout needs at least one layer, and only layers and functions, but got {show(layers)}")
        self.layers = layers

    @property
    def over(self) -> tuple[Any, ...]:
        """The layers, as they were called before Flux 0.13."""
        return self.layers  # type: ignore[no-any-return]

    def __call__(self, x: Any) -> torch.Tensor:
        x = tensor_input(self, x)
        first, *rest = self.layers
        y = first(x)
        for f in rest:
            z = f(x)
            y = torch.maximum(y, z) if y.shape == z.shape else broadcast(torch.maximum, y, z)
        return y  # type: ignore[no-any-return]

    def __str__(self) -> str:
        return f"Maxout({joined(self.layers)})"
