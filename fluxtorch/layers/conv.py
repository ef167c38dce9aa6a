"""Convolutional layers and pools, on images `(W, H, C, N)` and their kin with one or three spatial axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.base import identity
from fluxtorch.errors import DimensionMismatch
from fluxtorch.initialisers import create_bias, glorot_uniform
from fluxtorch.layers.basic import (
    act,
    at_most,
    bias_and_act,
    has_hooks,
    initial,
    is_size,
    match_eltype,
    plain_fields,
    size_check,
    tensor_input,
    weights,
    whole,
)
from fluxtorch.layers.layer import Layer
from fluxtorch.layers.layout import for_convolution
from fluxtorch.layers.show import optional
from fluxtorch.nnlib.conv import (
    borders,
    conv,
    conv_reversed,
    conv_transpose,
    dilations,
    expand,
    maxpool,
    maxpool_reversed,
    meanpool,
    meanpool_reversed,
)
from fluxtorch.printing import show

__all__ = [
    "AdaptiveMaxPool",
    "AdaptiveMeanPool",
    "Conv",
    "ConvTranspose",
    "CrossCor",
    "DepthwiseConv",
    "GlobalMaxPool",
    "GlobalMeanPool",
    "MaxPool",
    "MeanPool",
    "SamePad",
    "convfilter",
    "depthwiseconvfilter",
]


class SamePad:
    """Given as `pad=SamePad()`: the padding for which the output is as large as the input, divided by the stride.

    >>> Conv((2, 2), 3 |to| 7, pad=SamePad())
    Conv((2, 2), 3 => 7, pad=(1, 0, 1, 0))  # 91 parameters
    """

    def __repr__(self) -> str:
        return "SamePad()"


def calc_padding(pad: Any, k: Sequence[int], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """`pad` as it is kept: one number for each axis if it was given so, else begin and end of each."""
    if isinstance(pad, SamePad) or pad is SamePad:
        total = [(size - 1) * d for size, d in zip(k, dilation, strict=True)]
        return tuple(half for t in total for half in (-(-t // 2), t // 2))
    full = borders(len(k), pad)
    return tuple(pad) if isinstance(pad, (tuple, list)) else full


def convfilter(
    filter: tuple[int, ...], ch: Any, *, init: Callable[..., torch.Tensor] = glorot_uniform, groups: int = 1
) -> torch.Tensor:
    """A kernel for `Conv`: `init(*filter, in ÷ groups, out)` for `ch = in |to| out`.

    Raises `ValueError` if `groups` doesn't divide both numbers of channels.

    >>> convfilter((3, 3), 4 |to| 8, groups=2).shape
    torch.Size([3, 3, 2, 8])
    """
    cin, cout = _channels("convfilter", ch)
    _check_groups(groups, cin, cout)
    return initial("convfilter", init, *_window("convfilter", filter), cin // groups, cout)


def depthwiseconvfilter(
    filter: tuple[int, ...], ch: Any, *, init: Callable[..., torch.Tensor] = glorot_uniform
) -> torch.Tensor:
    """A kernel for `depthwiseconv`: `init(*filter, out ÷ in, in)` for `ch = in |to| out`, as Flux 0.12 has it.

    Raises `ValueError` if `in` doesn't divide `out`.

    >>> depthwiseconvfilter((3, 3), 4 |to| 8).shape
    torch.Size([3, 3, 2, 4])
    """
    cin, cout = _channels("depthwiseconvfilter", ch)
    _check_groups(cin, cin, cout)
    return initial("depthwiseconvfilter", init, *_window("depthwiseconvfilter", filter), cout // cin, cin)


def _check_groups(groups: Any, cin: int, cout: int) -> None:
    if not is_size(groups):
        raise TypeError(f"groups must be a whole number, and is {show(groups)}")
    if groups < 1:
        raise ValueError(f"groups must be at least 1, and is {groups}")
    for side, n in (("Input", cin), ("Output", cout)):
        if n % groups:
            raise ValueError(f"{side} channel dimension must be divisible by groups: {n} by {groups}")


def _channels(layer: str, ch: Any) -> tuple[int, int]:
    if not isinstance(ch, tuple) or len(ch) != 2:
        raise TypeError(f"{layer} expects a pair of channels, as in 3 |to| 7, and got {show(ch)}")
    whole(layer, *ch)
    return ch


def _window(layer: str, k: Any) -> tuple[int, ...]:
    if not isinstance(k, tuple) or not k or not all(map(is_size, k)):
        raise TypeError(f"{layer} expects a tuple of whole numbers for its window, as in (3, 3), and got {show(k)}")
    if min(k) < 1 or len(k) > 3:
        raise ValueError(f"{layer} expects a window of one to three numbers, each at least 1, and got {show(k)}")
    return tuple(map(int, k))


def _given(layer: str, k: Any) -> torch.Tensor | None:
    """The weights, if `k` is an array."""
    # A flat list of numbers is rather a window that should have been a tuple.
    w = None if isinstance(k, list) and all(map(is_size, k)) else weights(layer, k)
    if w is not None and not 3 <= w.ndim <= 5:
        raise DimensionMismatch(f"{layer} expects weights with 3 to 5 axes, and got a {summary(w)}")
    return w


def _conv_arguments(
    layer: str,
    args: tuple[Any, ...],
    bias: Any,
    weight: Any,
    activation: Any,
    make: Callable[[tuple[int, ...], Any], torch.Tensor],
) -> tuple[torch.Tensor, Any, Any]:
    """Weight, bias and activation, from `(weight, bias, σ)` or from `(filter, in => out, σ)`.

    Flux 0.11 takes weights by the keyword `weight` too, with `activation`; Flux 0.12 beside a filter and channels.
    """
    if weight is not None:
        at_most(layer, args, 3)
        args, bias = (weight, bias, args[2] if len(args) > 2 else activation), True
    w = _given(layer, args[0]) if args else None
    if w is not None:
        return w, *bias_and_act(layer, args[1:], bias, activation)
    window = _window(layer, args[0]) if args else ()
    if len(args) < 2:
        raise TypeError(f"{layer} expects a window and a pair of channels, as in {layer}((3, 3), 3 |to| 7)")
    channels = _channels(layer, args[1])
    at_most(layer, args[2:], 1)
    return make(window, channels), bias, act(layer, args[2] if len(args) > 2 else activation)


class _Convolution(Layer):
    """What the convolutional layers share: the names that their arrays had, and the check of the input."""

    @property
    def W(self) -> torch.Tensor:
        return self.weight  # type: ignore[no-any-return]

    @property
    def b(self) -> Any:
        return self.bias

    def _input(self, x: Any, cin: int) -> torch.Tensor:
        x = tensor_input(self, x)
        w = self.weight
        if x.ndim != w.ndim:
            raise DimensionMismatch(f"layer {self} expects ndims(input) == {w.ndim}, but got {summary(x)}")
        if x.shape[-2] != cin:
            size_check(self, x, x.ndim - 2, cin, fits=self._covers(x.shape[:1:-1]))
        return match_eltype(self, w.dtype, x)

    def _covers(self, size: Sequence[int]) -> bool:
        """Does the window fit into an image of this size?"""
        w, pad = self.weight, borders(len(size), self.pad)
        return all(n + pad[2 * i] + pad[2 * i + 1] > (w.shape[i] - 1) * self.dilation[i] for i, n in enumerate(size))

    def _bias(self, x: torch.Tensor) -> torch.Tensor | None:
        if self.bias is False:
            return None
        return self.bias.to(x.dtype) if x.is_complex() else self.bias  # type: ignore[no-any-return]

    def _shown(self, cin: int, cout: int) -> str:
        n = self.weight.ndim - 2
        groups = getattr(self, "groups", 1)
        return f"{type(self).__name__}({show(tuple(self.weight.shape[:n]))}, {cin} => {cout}" + optional(
            (self.σ is not identity, f", {show(self.σ)}"),
            (any(self.pad), f", pad={_maybe_tuple(self.pad)}"),
            (any(s != 1 for s in self.stride), f", stride={_maybe_tuple(self.stride)}"),
            (any(d != 1 for d in self.dilation), f", dilation={_maybe_tuple(self.dilation)}"),
            (groups != 1, f", groups={groups}"),
            (self.bias is False, ", bias=false"),
        )


def _maybe_tuple(x: tuple[int, ...]) -> str:
    return str(x[0]) if len(set(x)) == 1 else show(x)


class Conv(_Convolution):
    """A convolution, `Conv(filter, in |to| out, σ=identity; stride=1, pad=0, dilation=1, groups=1, bias=True, init)`.

    Input `(W, H, in, N)`, output `(W', H', out, N)`, with as many spatial axes as `filter` has
    numbers, one to three. `weight` is `(w, h, in ÷ groups, out)`, `bias` `(out,)`. `stride` and
    `dilation` are a number or one for each axis; `pad` also begin and end of each in turn, or
    `SamePad()`. `weight` is `init(...)` with `init=glorot_uniform`, `bias` zeros, none with
    `bias=False`, or an array. `Conv(weight, bias=True, σ=identity; ...)` takes the arrays, as do
    Flux 0.11's `Conv(; weight, bias=True, activation=identity, ...)` and Flux 0.12's keyword `weight`
    of the first form. A true convolution: the kernel is flipped, unlike torch's and `CrossCor`'s.

    Raises `DimensionMismatch` for an input of another size, or smaller than the window; `ValueError` if
    `groups` doesn't divide the channels.

    >>> xs = rand32(100, 100, 3, 50)
    >>> layer = Conv((5, 5), 3 |to| 7, relu, bias=False)
    >>> layer
    Conv((5, 5), 3 => 7, relu, bias=false)  # 525 parameters
    >>> layer(xs).shape
    torch.Size([96, 96, 7, 50])
    >>> Conv((1, 1), 3 |to| 7, pad=(20, 10, 0, 0))(xs).shape
    torch.Size([130, 100, 7, 50])
    """

    σ: Callable[..., torch.Tensor]
    weight: torch.Tensor
    bias: Any
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def __init__(
        self,
        *args: Any,
        init: Callable[..., torch.Tensor] = glorot_uniform,
        stride: Any = 1,
        pad: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: Any = True,
        weight: Any = None,
        activation: Callable[..., Any] = identity,
    ) -> None:
        def make(k: tuple[int, ...], ch: Any) -> torch.Tensor:
            return convfilter(k, ch, init=init, groups=groups)

        w, b, σ = _conv_arguments("Conv", args, bias, weight, activation, make)
        _check_groups(groups, 0, w.shape[-1])
        n = w.ndim - 2
        self.σ, self.weight = σ, w
        self.bias = create_bias(w, b, w.shape[-1])
        self.stride, self.dilation = expand(n, stride, "stride"), dilations(dilation, w.shape[:n])
        self.pad = calc_padding(pad, w.shape[:n], self.dilation)
        self.groups = groups

    def __call__(self, x: Any) -> torch.Tensor:
        x = self._input(x, self.weight.shape[-2] * self.groups)
        b, stride, pad, dilation = self._bias(x), self.stride, self.pad, self.dilation
        return self.σ(conv(x, self.weight, b, stride=stride, pad=pad, dilation=dilation, groups=self.groups))

    def _reversed(self, x: torch.Tensor) -> torch.Tensor | None:
        """What the layer does, in torch's order of axes; None if more is to be done, or it is watched."""
        found = plain_fields(self)
        if found is None or x.ndim != found[0].ndim:
            return None
        w, b, σ = found
        try:
            y = conv_reversed(for_convolution(x, w), w, b, self.stride, self.pad, self.dilation, self.groups)
            return None if y is None else σ(y)
        except RuntimeError:  # of sizes or types, about which `__call__` has more to say
            return None

    def __str__(self) -> str:
        return self._shown(self.weight.shape[-2] * self.groups, self.weight.shape[-1]) + ")"


class CrossCor(_Convolution):
    """A convolution that doesn't flip its kernel, like torch's: `CrossCor(filter, in |to| out, σ=identity; ...)`.

    Arguments, shapes and errors are those of `Conv`, but for `groups`, which it doesn't have.

    >>> CrossCor((5, 5), 3 |to| 7, stride=3, pad=(2, 0))(rand32(100, 100, 3, 50)).shape
    torch.Size([34, 32, 7, 50])
    """

    σ: Callable[..., torch.Tensor]
    weight: torch.Tensor
    bias: Any
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    def __init__(
        self,
        *args: Any,
        init: Callable[..., torch.Tensor] = glorot_uniform,
        stride: Any = 1,
        pad: Any = 0,
        dilation: Any = 1,
        bias: Any = True,
        weight: Any = None,
        activation: Callable[..., Any] = identity,
    ) -> None:
        def make(k: tuple[int, ...], ch: Any) -> torch.Tensor:
            return convfilter(k, ch, init=init)

        w, b, σ = _conv_arguments("CrossCor", args, bias, weight, activation, make)
        n = w.ndim - 2
        self.σ, self.weight = σ, w
        self.bias = create_bias(w, b, w.shape[-1])
        self.stride, self.dilation = expand(n, stride, "stride"), dilations(dilation, w.shape[:n])
        self.pad = calc_padding(pad, w.shape[:n], self.dilation)

    def __call__(self, x: Any) -> torch.Tensor:
        x = self._input(x, self.weight.shape[-2])
        b, stride, pad, dilation = self._bias(x), self.stride, self.pad, self.dilation
        return self.σ(conv(x, self.weight, b, stride=stride, pad=pad, dilation=dilation, flipped=True))

    def __str__(self) -> str:
        return self._shown(self.weight.shape[-2], self.weight.shape[-1]) + ")"


class ConvTranspose(_Convolution):
    """A transposed convolution: `ConvTranspose(filter, in |to| out, σ=identity; outpad=0, ...)`, else as `Conv`.

    Input `(W, H, in, N)`, output `(W', H', out, N)` with `W' = (W - 1) * stride + 1 + (w - 1) *
    dilation - pad + outpad`, where `pad` is both borders' together. `weight` is `(w, h, out ÷ groups,
    in)`. With `pad=SamePad()` the output is the input's size times the stride. `outpad` adds at the
    ends of the output.

    >>> layer = ConvTranspose((5, 5), 3 |to| 7, relu)
    >>> layer
    ConvTranspose((5, 5), 3 => 7, relu)  # 532 parameters
    >>> layer(rand32(100, 100, 3, 50)).shape
    torch.Size([104, 104, 7, 50])
    """

    σ: Callable[..., torch.Tensor]
    weight: torch.Tensor
    bias: Any
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    outpad: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def __init__(
        self,
        *args: Any,
        init: Callable[..., torch.Tensor] = glorot_uniform,
        stride: Any = 1,
        pad: Any = 0,
        outpad: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: Any = True,
        weight: Any = None,
        activation: Callable[..., Any] = identity,
    ) -> None:
        def make(k: tuple[int, ...], ch: Any) -> torch.Tensor:
            return convfilter(k, ch[::-1], init=init, groups=groups)

        w, b, σ = _conv_arguments("ConvTranspose", args, bias, weight, activation, make)
        _check_groups(groups, w.shape[-1], 0)
        n = w.ndim - 2
        self.σ, self.weight = σ, w
        self.bias = create_bias(w, b, w.shape[-2] * groups)
        self.stride, self.dilation = expand(n, stride, "stride"), dilations(dilation, w.shape[:n])
        same = isinstance(pad, SamePad) or pad is SamePad
        size = tuple(k - s + 1 for k, s in zip(w.shape[:n], self.stride, strict=True)) if same else w.shape[:n]
        self.pad = calc_padding(pad, size, self.dilation)
        self.outpad = expand(n, outpad, "outpad", 0)
        self.groups = groups

    def _covers(self, size: Sequence[int]) -> bool:
        return True

    def __call__(self, x: Any) -> torch.Tensor:
        x = self._input(x, self.weight.shape[-1])
        options = {"stride": self.stride, "pad": self.pad, "outpad": self.outpad, "dilation": self.dilation}
        return self.σ(conv_transpose(x, self.weight, self._bias(x), groups=self.groups, **options))

    def __str__(self) -> str:
        shown = self._shown(self.weight.shape[-1], self.weight.shape[-2] * self.groups)
        return shown + optional((any(self.outpad), f", outpad={show(self.outpad)}")) + ")"


def DepthwiseConv(*args: Any, weight: Any = None, **options: Any) -> Conv:
    """A `Conv` with as many groups as input channels: `DepthwiseConv(filter, in |to| out, σ=identity; ...)`.

    `DepthwiseConv(weight, bias=True, σ=identity; ...)` takes a weight `(w, h, in, multiplier)`, whose
    kernels in the order of a Julia array's memory go to the output channels one by one. The keyword
    `weight` takes it as Flux ≤ 0.12 has it, `(w, h, multiplier, in)`; `in` alone, as in Flux 0.8, is
    `in |to| in`.

    >>> DepthwiseConv((5, 5), 3 |to| 6, relu, bias=False)
    Conv((5, 5), 3 => 6, relu, groups=3, bias=false)  # 150 parameters
    """
    old = weight is not None
    w = _given("DepthwiseConv", weight if old else args[0]) if old or args else None
    if w is not None:
        flat = reversed_axes(reversed_axes(w).reshape(-1, 1, *w.shape[:-2][::-1]))
        if old:
            return Conv(*args, weight=flat, groups=w.shape[-1], **options)
        return Conv(flat, *args[1:], groups=w.shape[-2], **options)
    if len(args) < 2:
        raise TypeError("DepthwiseConv expects a window and a pair of channels, as in DepthwiseConv((3, 3), 3 |to| 6)")
    k, ch, *σ = args
    ch = _channels("DepthwiseConv", (ch, ch) if is_size(ch) else ch)
    return Conv(k, ch, *σ, weight=weight, groups=ch[0], **options)


class _Pool(Layer):
    k: tuple[int, ...]
    pad: tuple[int, ...]
    stride: tuple[int, ...]

    def __init__(self, k: Any, *, pad: Any = 0, stride: Any = None) -> None:
        self.k = _window(type(self).__name__, k)
        self.stride = self.k if stride is None else expand(len(self.k), stride, "stride")
        self.pad = calc_padding(pad, self.k, (1,) * len(self.k))

    def _checked(self, x: Any) -> torch.Tensor:
        x = tensor_input(self, x)
        if x.ndim != len(self.k) + 2:
            raise DimensionMismatch(f"layer {self} expects ndims(input) == {len(self.k) + 2}, but got {summary(x)}")
        return x

    def __str__(self) -> str:
        return (
            f"{type(self).__name__}({show(self.k)}"
            + optional(
                (any(self.pad), f", pad={_maybe_tuple(self.pad)}"),
                (self.stride != self.k, f", stride={_maybe_tuple(self.stride)}"),
            )
            + ")"
        )


class MaxPool(_Pool):
    """The largest value in each window: `MaxPool(window; pad=0, stride=window)`, on `(W, H, C, N)`.

    `window` has one number for each spatial axis; `pad` is as in `Conv`.

    >>> layer = MaxPool((5,), pad=2, stride=(3,))
    >>> layer
    MaxPool((5,), pad=2, stride=3)
    >>> layer(rand32(100, 7, 50)).shape
    torch.Size([34, 7, 50])
    """

    def __call__(self, x: Any) -> torch.Tensor:
        return maxpool(self._checked(x), self.k, stride=self.stride, pad=self.pad)

    def _reversed(self, x: torch.Tensor) -> torch.Tensor | None:
        return None if has_hooks(self) else maxpool_reversed(x, self.k, self.stride, self.pad)


class MeanPool(_Pool):
    """The mean of each window: `MeanPool(window; pad=0, stride=window)`, on `(W, H, C, N)`.

    `window` has one number for each spatial axis; `pad` is as in `Conv`, and its zeros count.

    >>> MeanPool((5, 5), pad=SamePad())(rand32(96, 96, 7, 50)).shape
    torch.Size([20, 20, 7, 50])
    """

    def __call__(self, x: Any) -> torch.Tensor:
        return meanpool(self._checked(x), self.k, stride=self.stride, pad=self.pad)

    def _reversed(self, x: torch.Tensor) -> torch.Tensor | None:
        return None if has_hooks(self) else meanpool_reversed(x, self.k, self.stride, self.pad)


class _AdaptivePool(Layer):
    out: tuple[int, ...]

    def __init__(self, out: tuple[int, ...]) -> None:
        self.out = _window(type(self).__name__, out)

    def _pooled(self, x: Any, pool: Callable[..., torch.Tensor]) -> torch.Tensor:
        x, n = tensor_input(self, x), len(self.out)
        if x.ndim != n + 2:
            raise DimensionMismatch(f"layer {self} expects ndims(input) == {n + 2}, but got {summary(x)}")
        stride = tuple(size // out for size, out in zip(x.shape, self.out, strict=False))
        if 0 in stride:
            raise DimensionMismatch(f"layer {self} can't make an image larger, but got {summary(x)}")
        # Windows of one size that may overlap, unlike those of torch's adaptive pools.
        k = tuple(size - (out - 1) * s for size, out, s in zip(x.shape, self.out, stride, strict=False))
        return pool(x, k, stride=stride)

    def __str__(self) -> str:
        return f"{type(self).__name__}({show(self.out)})"


class AdaptiveMaxPool(_AdaptivePool):
    """The largest value in each of as many windows as the tuple `out` says: `AdaptiveMaxPool(out)`, on `(W, H, C, N)`.

    `out` has a number for each spatial axis; output `(out..., C, N)`. The windows along an axis of
    length `n` start at every `n ÷ out`, and are long enough to reach its end.

    Raises `DimensionMismatch` for an input with another number of axes, or smaller than `out`.

    >>> xs = rand32(100, 100, 3, 50)
    >>> AdaptiveMaxPool((25, 25))(xs).shape
    torch.Size([25, 25, 3, 50])
    >>> torch.equal(MaxPool((4, 4))(xs), AdaptiveMaxPool((25, 25))(xs))
    True
    """

    def __call__(self, x: Any) -> torch.Tensor:
        return self._pooled(x, maxpool)


class AdaptiveMeanPool(_AdaptivePool):
    """The mean of each of as many windows as the tuple `out` says: `AdaptiveMeanPool(out)`, on `(W, H, C, N)`.

    Windows and errors are those of `AdaptiveMaxPool`.

    >>> AdaptiveMeanPool((2,))(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])[:, None, None]).flatten()
    tensor([2., 4.])
    """

    def __call__(self, x: Any) -> torch.Tensor:
        return self._pooled(x, meanpool)


def _images(layer: Any, x: Any) -> torch.Tensor:
    """`x`, `(…, C, N)`, reversed with all its spatial axes as one, `(N, C, length)`; integers as floats."""
    x = tensor_input(layer, x)
    if x.ndim < 3 or 0 in x.shape[:-2]:
        raise DimensionMismatch(f"layer {layer} expects spatial axes, channels and batch, but got {summary(x)}")
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    return reversed_axes(x).flatten(2)


def _ones_before(y: torch.Tensor, n: int) -> torch.Tensor:
    """`y`, `(N, C)`, as the array of `n` axes `(1, …, 1, C, N)`."""
    return reversed_axes(y.reshape(*y.shape, *(1,) * (n - 2)))


class GlobalMaxPool(Layer):
    """The largest value of each channel: `GlobalMaxPool()`, of `(W, H, C, N)` gives `(1, 1, C, N)`.

    For any number of spatial axes, at least one; raises `DimensionMismatch` without.

    >>> m = Chain(Conv((3, 3), 3 |to| 7), GlobalMaxPool())
    >>> m(rand32(100, 100, 3, 50)).shape
    torch.Size([1, 1, 7, 50])
    >>> GlobalMaxPool()(rand(3, 5, 7)).shape
    torch.Size([1, 5, 7])
    """

    def __call__(self, x: Any) -> torch.Tensor:
        images = _images(self, x)
        return _ones_before(images.max(-1).values, len(x.shape))


class GlobalMeanPool(Layer):
    """The mean of each channel: `GlobalMeanPool()`, of `(W, H, C, N)` gives `(1, 1, C, N)`.

    For any number of spatial axes, at least one; raises `DimensionMismatch` without.

    >>> GlobalMeanPool()(torch.arange(6.0).reshape(2, 3, 1, 1))
    tensor([[[[2.5000]]]])
    """

    def __call__(self, x: Any) -> torch.Tensor:
        images = _images(self, x)
        return _ones_before(images.mean(-1), len(x.shape))
