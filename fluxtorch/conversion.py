"""Models from torch and back: `from_torch` makes Flux layers of torch modules, `to_torch` the reverse."""

from __future__ import annotations

import copy
import functools
import operator
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from fluxtorch import base
from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.base import identity, maximum, mean, vcat
from fluxtorch.layers import recurrent, recurrent016
from fluxtorch.layers.attention import MultiHeadAttention
from fluxtorch.layers.basic import Chain, Dense, Maxout, has_hooks
from fluxtorch.layers.combine import Bilinear, Parallel, SkipConnection
from fluxtorch.layers.conv import (
    AdaptiveMaxPool,
    AdaptiveMeanPool,
    Conv,
    ConvTranspose,
    CrossCor,
    GlobalMaxPool,
    GlobalMeanPool,
    MaxPool,
    MeanPool,
)
from fluxtorch.layers.embedding import Embedding, EmbeddingBag
from fluxtorch.layers.layer import Layer
from fluxtorch.layers.normalise import AlphaDropout, BatchNorm, Dropout, GroupNorm, InstanceNorm, LayerNorm
from fluxtorch.layers.normalise016 import LayerNorm as LayerNorm016
from fluxtorch.layers.torch_module import Torch
from fluxtorch.layers.upsample import PixelShuffle, Upsample
from fluxtorch.mlutils.arrays import flatten
from fluxtorch.namedtuples import NamedTuple
from fluxtorch.nnlib import activations as act
from fluxtorch.nnlib.conv import borders
from fluxtorch.nnlib.softmax import logsoftmax, softmax
from fluxtorch.printing import show

__all__ = ["from_torch", "to_torch"]

# torch's modules that do, as they are here, what a function of Flux does.
_ACTIVATIONS: tuple[tuple[nn.Module, Callable[..., Any]], ...] = (
    (nn.ReLU(), act.relu),
    (nn.Sigmoid(), act.σ),
    (nn.Tanh(), base.tanh),
    (nn.GELU("tanh"), act.gelu),
    (nn.ReLU6(), act.relu6),
    (nn.ELU(), act.elu),
    (nn.SELU(), act.selu),
    (nn.CELU(), act.celu),
    (nn.LeakyReLU(), act.leakyrelu),
    (nn.SiLU(), act.swish),
    (nn.Mish(), act.mish),
    (nn.Softplus(), act.softplus),
    (nn.Softsign(), act.softsign),
    (nn.LogSigmoid(), act.logσ),
    (nn.Hardtanh(), act.hardtanh),
    (nn.Hardsigmoid(), act.hardσ),
    (nn.Hardswish(), act.hardswish),
    (nn.Tanhshrink(), act.tanhshrink),
    (nn.Softshrink(), act.softshrink),
)
_FUNCTIONS: tuple[tuple[nn.Module, Callable[..., Any]], ...] = (
    *_ACTIVATIONS,
    (nn.Softmax(-1), softmax),
    (nn.LogSoftmax(-1), logsoftmax),
    (nn.Flatten(), flatten),
    (nn.Identity(), identity),
)
# What torch calls the same.
_ALIASES = {
    torch.relu: act.relu,
    F.relu: act.relu,
    torch.tanh: base.tanh,
    act.tanh_fast: base.tanh,
    torch.sigmoid: act.σ,
    act.sigmoid_fast: act.σ,
}


def _unaliased(f: Any) -> Any:
    """Flux's own function where `f` is another name for it; by identity, as not all can be hashed."""
    return next((known for alias, known in _ALIASES.items() if alias is f), f)


def _settings(m: nn.Module) -> dict[str, Any]:
    return {k: v for k, v in vars(m).items() if k[0] != "_" and k not in ("training", "inplace")}


def _function(m: nn.Module) -> Callable[..., Any] | None:
    """The function of Flux that does what the module `m` does."""
    for known, f in _FUNCTIONS:
        if type(m) is type(known) and _settings(m) == _settings(known):
            return f
    return None


# -- from torch ------------------------------------------------------------------------------------


def from_torch(module: nn.Module) -> Any:
    """The torch module `module` as a Flux layer, with the same outputs in Flux's axis order and the same memory.

    `Sequential` becomes a `Chain`, in which an activation joins the layer before it; `Linear` a
    `Dense`; convolutions, pools, norms with their running statistics, embeddings, dropout,
    upsampling, `Flatten` and activations what they are called in Flux; lists of modules, lists. Of a
    convolution's kernel there is a flipped copy; all other arrays share the module's memory, and the
    module itself stays as it was. What has no exact counterpart, such as a class with a `forward` of
    its own, is wrapped in `Torch`; so are recurrent modules and attention within a `Sequential`,
    where the next module expects the tuple that they give.

    By themselves, those two become Flux's layers, and are called in Flux's way: a recurrent module
    `Recur`s of cells, whose output comes without the state, or with `batch_first` those of Flux
    0.16, on `(features, time, N)`; `MultiheadAttention(…, batch_first=True)` a `MultiHeadAttention`,
    which gives the scores of each head. Dropout and norms go by Flux's automatic mode.

    Raises `TypeError` for anything but a module, `ValueError`, naming the submodule, for one without
    weights yet, or with a weight that is tied to another's of a kind that keeps it otherwise.

    >>> from torch import nn
    >>> m = from_torch(nn.Sequential(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(864, 10)))
    >>> m
    Chain(
      Conv((5, 5), 1 => 6, relu),           # 156 parameters
      MaxPool((2, 2)),
      flatten,
      Dense(864 => 10),                     # 8_650 parameters
    )                   # Total: 4 arrays, 8_806 parameters, 34.398 KiB.
    >>> m(rand32(28, 28, 1, 3)).shape
    torch.Size([10, 3])
    """
    if isinstance(module, Layer):
        return module
    if not isinstance(module, nn.Module):
        raise TypeError(f"from_torch expects a torch module, and got {summary(module)}")
    for name, p in (*module.named_parameters(), *module.named_buffers()):
        if isinstance(p, (nn.UninitializedParameter, nn.UninitializedBuffer)):
            path, _, leaf = name.rpartition(".")
            kind = type(module.get_submodule(path)).__name__
            raise ValueError(f"from_torch: {kind} {path!r} has no {leaf} yet: call the model once before")
    reader = _Reader(module)
    if type(module) in _WITH_STATE and not has_hooks(module):
        found = _WITH_STATE[type(module)](module, reader.array)
        return reader.wrapped(module, "") if found is None else found
    return reader.layer(module, "")


class _Reader:
    """One reading of a torch model: what is shared in it is shared in the layers made of it."""

    def __init__(self, root: nn.Module) -> None:
        self.layers: dict[int, Any] = {}
        self.arrays: dict[tuple[int, int], tuple[str, str, Tensor]] = {}
        self.places = Counter(id(m) for _, m in root.named_modules(remove_duplicate=False))
        self.path = ""

    def layer(self, m: nn.Module, path: str) -> Any:
        if id(m) not in self.layers:
            self.layers[id(m)] = self._made(m, path)
        return self.layers[id(m)]

    def _made(self, m: nn.Module, path: str) -> Any:
        if isinstance(m, Layer):
            return m
        if has_hooks(m):
            return self.wrapped(m, path)
        if type(m) is nn.Sequential:
            return self._chain(m, path)
        if type(m) in (nn.ModuleList, nn.ModuleDict):
            kids = [
                self.layer(kid, f"{path}.{name}".lstrip(".")) for name, kid in m._modules.items() if kid is not None
            ]
            return kids if type(m) is nn.ModuleList else dict(zip(m._modules, kids, strict=True))
        self.path = path
        found = _function(m)
        if found is None and type(m) in _READERS:
            found = _READERS[type(m)](m, self.array)
        return self.wrapped(m, path) if found is None else found

    def wrapped(self, m: nn.Module, path: str) -> Torch:
        for name, p in m.named_parameters(prefix=path):
            self._note(p, 0, name.rpartition(".")[0], "torch", p)
        return Torch(m)

    def array(self, p: Tensor | None, how: Callable[[Tensor], Tensor] = identity, part: int = 0) -> Any:
        """A parameter that shares the memory of torch's `p`, or of a part of it, as `how` shows it; False for None."""
        if p is None:
            return False
        known = self.arrays.get((id(p), part))
        if known is not None and known[1] == how.__name__:
            return known[2]
        new = nn.Parameter(how(p.detach()), requires_grad=p.requires_grad)
        return self._note(p, part, self.path, how.__name__, new)

    def _note(self, p: Tensor, part: int, path: str, how: str, new: Tensor) -> Tensor:
        at, as_kept, _ = self.arrays.setdefault((id(p), part), (path, how, new))
        if as_kept != how and p.requires_grad:
            raise ValueError(
                f"from_torch: a weight of {path!r} is that of {at!r} too, and Flux's layers keep it in another "
                "form each, so that it would no longer be one: keep the whole model, as Torch(module)"
            )
        return new

    def _chain(self, m: nn.Sequential, path: str) -> Any:
        names: list[str] = []
        found: list[Any] = []
        foldable = None  # the field of the last layer that awaits an activation
        for name, kid in m._modules.items():
            if kid is None:
                continue
            f = self.layer(kid, f"{path}.{name}".lstrip("."))
            if foldable and any(f is known for _, known in _ACTIVATIONS):
                setattr(found[-1], foldable, f)
                foldable = None
                continue
            names.append(name)
            found.append(f)
            once = isinstance(f, Layer) and f is not kid and self.places[id(kid)] == self.places[id(m)] == 1
            foldable = next((field for field in ("σ", "λ") if once and getattr(f, field, None) is identity), None)
            if isinstance(f, LayerNorm):  # which keeps it in a layer of its own
                foldable = None
        if all(name.isdigit() for name in names) or not all(name.isidentifier() for name in names) or "layers" in names:
            return Chain(*found)
        return Chain(NamedTuple.of(dict(zip(names, found, strict=True))))


def _pair_of(x: Any, n: int) -> tuple[int, ...]:
    """A number for each of the axes, in Flux's order."""
    return tuple(x)[::-1] if isinstance(x, (tuple, list)) else (x,) * n


def _read_conv(m: Any, array: Any) -> Any:
    n = m.weight.ndim - 2
    if m.padding_mode != "zeros":
        return None
    if m.padding == "same":
        total = [d * (k - 1) for d, k in zip(_pair_of(m.dilation, n), _pair_of(m.kernel_size, n), strict=True)]
        pad = tuple(half for t in total for half in (t // 2, t - t // 2))
    else:
        pad = (0,) * n if m.padding == "valid" else _pair_of(m.padding, n)
    options = {"stride": _pair_of(m.stride, n), "pad": pad, "dilation": _pair_of(m.dilation, n), "groups": m.groups}
    if m.transposed:
        options["outpad"] = _pair_of(m.output_padding, n)
    return (ConvTranspose if m.transposed else Conv)(array(m.weight, _flipped), array(m.bias), **options)


def _flipped(w: Tensor) -> Tensor:
    return reversed_axes(w.flip(tuple(range(2, w.ndim))))


def _read_pool(m: Any, array: Any) -> Any:
    n = int(type(m).__name__[-2])
    maximal = "Max" in type(m).__name__
    plain = m.dilation in (1, (1,) * n) and not m.return_indices if maximal else m.count_include_pad
    if m.ceil_mode or not plain or getattr(m, "divisor_override", None) is not None:
        return None
    return (MaxPool if maximal else MeanPool)(
        _pair_of(m.kernel_size, n), pad=_pair_of(m.padding, n), stride=_pair_of(m.stride, n)
    )


def _read_adaptive(m: Any, array: Any) -> Any:
    # Elsewhere Flux's windows and torch's are the same only for some images.
    if _pair_of(m.output_size, 1) not in ((1,), (1, 1), (1, 1, 1)) or getattr(m, "return_indices", False):
        return None
    return (GlobalMaxPool if "Max" in type(m).__name__ else GlobalMeanPool)()


def _read_norm(m: Any, array: Any) -> Any:
    if m.momentum is None or (m.affine and m.bias is None):
        return None
    kind = BatchNorm if "Batch" in type(m).__name__ else InstanceNorm
    layer = kind(m.num_features, eps=m.eps, momentum=m.momentum, affine=m.affine, track_stats=m.track_running_stats)
    if m.affine:
        layer.γ, layer.β = array(m.weight), array(m.bias)
    if m.track_running_stats:
        layer.μ, layer.σ2 = m.running_mean, m.running_var
    return layer


def _read_groupnorm(m: nn.GroupNorm, array: Any) -> Any:
    layer = GroupNorm(m.num_channels, m.num_groups, eps=m.eps, affine=m.affine)
    if m.affine:
        layer.γ, layer.β = array(m.weight), array(m.bias)
    return layer


def _read_layernorm(m: nn.LayerNorm, array: Any) -> Any:
    if m.elementwise_affine and m.bias is None:
        return None
    # √(σ² + ε), which is what torch has under the root, as the formula of Flux 0.16 has it.
    layer = LayerNorm016(*m.normalized_shape[::-1], eps=m.eps**0.5, affine=m.elementwise_affine)
    if m.elementwise_affine:
        layer.diag.scale, layer.diag.bias = array(m.weight, reversed_axes), array(m.bias, reversed_axes)
    return layer


def _read_embedding(m: Any, array: Any) -> Any:
    if m.padding_idx is not None or m.max_norm is not None or m.scale_grad_by_freq or m.sparse:
        return None
    weight = array(m.weight, reversed_axes)
    if type(m) is nn.Embedding:
        return Embedding(weight)
    if m.include_last_offset:
        return None
    return EmbeddingBag(weight, {"mean": mean, "sum": base.sum, "max": maximum}[m.mode])


def _read_upsample(m: nn.Upsample, array: Any) -> Any:
    given: Any = m.size if m.scale_factor is None else m.scale_factor
    if m.mode == "nearest":
        scale = given[::-1] if isinstance(given, tuple) else (given,)
        if m.scale_factor is None or not all(float(s).is_integer() for s in scale):
            return None
        whole = tuple(map(int, scale))
        return Upsample(whole if isinstance(given, tuple) else whole[0])
    axes = {"bilinear": 2, "trilinear": 3}.get(m.mode)
    if axes is None or not m.align_corners:
        return None
    given = _pair_of(given, axes)
    return Upsample(m.mode, size=given) if m.scale_factor is None else Upsample(m.mode, scale=given)


def _read_dropout(m: Any, array: Any) -> Any:
    n = type(m).__name__[-2:-1]
    return Dropout(m.p, dims=(int(n), int(n) + 1) if n.isdigit() else None)


def _read_rnn(m: Any, array: Any) -> Any:
    kind = type(m).__name__
    layers = range(m.num_layers)
    if m.bidirectional or m.proj_size or (kind == "GRU" and m.bias and any(_own_bias(m, k) for k in layers)):
        return None

    def cell(k: int, room: Any) -> Any:
        Wi, Wh = array(getattr(m, f"weight_ih_l{k}")), array(getattr(m, f"weight_hh_l{k}"))
        b: Any = False
        if m.bias:
            both = getattr(m, f"bias_ih_l{k}").detach() + getattr(m, f"bias_hh_l{k}").detach()
            b = nn.Parameter(both, requires_grad=m.bias_ih_l0.requires_grad)
        σ = (act.relu if m.nonlinearity == "relu" else base.tanh,) if kind == "RNN" else ()
        zero = torch.zeros(m.hidden_size, 1, dtype=Wi.dtype, device=Wi.device)
        first = () if room is recurrent016 else ((zero, zero.clone()),) if kind == "LSTM" else (zero,)
        return getattr(room, f"{kind}Cell")(*σ, Wi, Wh, b, *first)

    def layer(k: int) -> Any:
        if m.batch_first:
            return getattr(recurrent016, kind)(cell(k, recurrent016))
        return recurrent.Recur(cell(k, recurrent))

    found = [layer(k) for k in layers]
    if m.dropout:
        found = [f for f in found for f in (f, Dropout(m.dropout))][:-1]
    return found[0] if len(found) == 1 else Chain(*found)


def _own_bias(m: Any, k: int) -> bool:
    """Has torch's GRU a bias within the reset gate, which Flux's has not?"""
    return bool(getattr(m, f"bias_hh_l{k}")[2 * m.hidden_size :].any())


def _read_attention(m: nn.MultiheadAttention, array: Any) -> Any:
    if not m.batch_first or m.bias_k is not None or m.add_zero_attn:
        return None
    dims = ((m.embed_dim, m.kdim, m.vdim), (m.embed_dim, m.embed_dim))
    layer = MultiHeadAttention(dims, nheads=m.num_heads, dropout_prob=m.dropout)
    for i, name in enumerate(("q", "k", "v")):
        own = getattr(m, f"{name}_proj_weight")
        weight = array(m.in_proj_weight, _THIRDS[i], i) if own is None else array(own)
        setattr(layer, f"{name}_proj", Dense(weight, array(m.in_proj_bias, _THIRDS[i], i)))
    layer.out_proj = Dense(array(m.out_proj.weight), array(m.out_proj.bias))
    return layer


_THIRDS: tuple[Callable[[Tensor], Tensor], ...] = tuple(lambda w, i=i: w.chunk(3)[i] for i in range(3))  # type: ignore[misc]

_READERS: dict[type, Callable[[Any, Any], Any]] = {
    nn.Linear: lambda m, array: Dense(array(m.weight), array(m.bias)),
    nn.Bilinear: lambda m, array: Bilinear(array(m.weight), array(m.bias)),
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), _read_conv),
    **dict.fromkeys((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _read_conv),
    **dict.fromkeys((nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d), _read_pool),
    **dict.fromkeys((nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), _read_adaptive),
    **dict.fromkeys((nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d), _read_adaptive),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _read_norm),
    **dict.fromkeys((nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d), _read_norm),
    nn.GroupNorm: _read_groupnorm,
    nn.LayerNorm: _read_layernorm,
    **dict.fromkeys((nn.Embedding, nn.EmbeddingBag), _read_embedding),
    **dict.fromkeys((nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d), _read_dropout),
    nn.AlphaDropout: lambda m, array: AlphaDropout(m.p),
    nn.Upsample: _read_upsample,
    nn.PixelShuffle: lambda m, array: PixelShuffle(m.upscale_factor),
}
# What gives a tuple in torch, and is called otherwise in Flux.
_WITH_STATE: dict[type, Callable[[Any, Any], Any]] = {
    **dict.fromkeys((nn.RNN, nn.LSTM, nn.GRU), _read_rnn),
    nn.MultiheadAttention: _read_attention,
}


# -- to torch --------------------------------------------------------------------------------------


def to_torch(model: Any) -> nn.Module:
    """The model `model` as plain `torch.nn` modules, which load where fluxtorch isn't installed.

    They take and give arrays in torch's axis order, `(N, features)` or `(N, C, H, W)`, and share the
    model's memory, except for a convolution's kernel, of which there is a flipped copy. A `Chain`
    becomes a `Sequential`, a layer with an activation two modules of it; `SkipConnection`, `Parallel`
    and `Maxout` a `torch.fx.GraphModule`, and so do recurrent layers: they take whole sequences, `(time,
    N, features)`, or `(N, time, features)` from Flux 0.16's, and start each anew from the first state.
    `Torch(module)` gives its module back. A class of one's own takes part by a method
    `to_torch(self)`.

    Norms and pools go by the number of spatial axes of the convolution before them; without one, they
    are those for `(N, C)` and `(N, C, L)`. torch has nothing that divides by σ + ε, as `LayerNorm` does
    up to Flux 0.14: what stands for it differs by about ε, and there is a warning.

    Raises `TypeError`, naming the part of the model, for a layer or function that torch has nothing for.

    >>> to_torch(Chain(Conv((3, 3), 1 |to| 4, relu, pad=1), GlobalMeanPool(), flatten, Dense(4 |to| 2)))
    Sequential(
      (0): Conv2d(1, 4, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1))
      (1): ReLU()
      (2): AdaptiveAvgPool2d(output_size=1)
      (3): Flatten(start_dim=1, end_dim=-1)
      (4): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    return _joined(_Writer().modules(model, "model"))


def _joined(modules: list[nn.Module]) -> nn.Module:
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules) if modules else nn.Identity()


class _Writer:
    """One writing of torch modules: what the layers share, they share, and a convolution settles the axes of a norm."""

    def __init__(self) -> None:
        self.axes = 1
        self.arrays: dict[int, tuple[str, str, nn.Parameter]] = {}
        self.path = ""

    def modules(self, m: Any, path: str) -> list[nn.Module]:
        """The modules that do, one after the other, what `m` does."""
        if callable(getattr(type(m), "to_torch", None)):
            return [m.to_torch()]
        if isinstance(m, Chain):
            return self._chain(m, path)
        self.path = path
        if type(m) in _WRITERS:
            return _WRITERS[type(m)](self, m)
        if isinstance(m, nn.Module):
            if not isinstance(m, Layer) and (_function(m) is not None or type(m) is nn.Dropout):
                return [m]
            why = (
                "it has a call of its own; give it a method to_torch(self)"
                if isinstance(m, Layer) and not type(m).__module__.startswith("fluxtorch.")
                else "torch.nn has no such module"
                if isinstance(m, Layer)
                else "within a Flux model it works in Flux's axis order; wrap it in Torch(…) for torch's"
            )
            raise self.refusal(m, why)
        return self.function(m, path)

    def function(self, f: Any, path: str) -> list[nn.Module]:
        """The module for an activation or another function, none for `identity`."""
        self.path = path
        f = _unaliased(f)
        if f is identity:
            return []
        for module, known in _FUNCTIONS:
            if known is f:
                return [copy.deepcopy(module)]
        raise self.refusal(
            f, "torch.nn has no module for this function; Torch(module), with a module that does it, can be converted"
        )

    def refusal(self, what: Any, why: str) -> TypeError:
        return TypeError(f"to_torch can't convert {self.path}, {show(what)}: {why}")

    def array(self, p: Tensor, how: Callable[[Tensor], Tensor] = identity) -> nn.Parameter:
        """A parameter that shares the memory of the layer's `p`, as `how` shows it."""
        new = nn.Parameter(how(p.detach()), requires_grad=p.requires_grad)
        at, as_kept, kept = self.arrays.setdefault(id(p), (self.path, how.__name__, new))
        if as_kept != how.__name__:
            raise TypeError(
                f"to_torch: {self.path} shares an array with {at}, and torch's modules keep it in another form each"
            )
        return kept

    def fill(self, module: nn.Module, **arrays: Tensor | None) -> Any:
        """`module`, made without memory of its own, with these arrays."""
        for name, value in arrays.items():
            setattr(module, name, value)
        return module

    def _chain(self, m: Chain, path: str) -> list[nn.Module]:
        if not isinstance(m.layers, NamedTuple):
            found = [module for i, f in enumerate(m.layers) for module in self.modules(f, f"{path}[{i}]")]
            return [_joined(found)] if len(found) != 1 else found
        named = {name: _joined(self.modules(f, f"{path}.{name}")) for name, f in vars(m.layers).items()}
        return [nn.Sequential(OrderedDict(named))]


def _unfilled(kind: Any, *args: Any, **options: Any) -> Any:
    return kind(*args, device="meta", **options)


def _and(w: _Writer, module: nn.Module, σ: Any) -> list[nn.Module]:
    return [module, *w.function(σ, f"the activation of {w.path}")]


def _bias(w: _Writer, b: Any) -> nn.Parameter | None:
    return None if b is False else w.array(b)


def _write_dense(w: _Writer, m: Dense) -> list[nn.Module]:
    module = _unfilled(nn.Linear, m.weight.shape[1], m.weight.shape[0], bias=m.bias is not False)
    return _and(w, w.fill(module, weight=w.array(m.weight), bias=_bias(w, m.bias)), m.σ)


def _write_bilinear(w: _Writer, m: Bilinear) -> list[nn.Module]:
    module = _unfilled(nn.Bilinear, *m.weight.shape[1:], m.weight.shape[0], bias=m.bias is not False)
    return _and(w, w.fill(module, weight=w.array(m.weight), bias=_bias(w, m.bias)), m.σ)


def _write_conv(w: _Writer, m: Any) -> list[nn.Module]:
    n = w.axes = m.weight.ndim - 2
    turned = isinstance(m, ConvTranspose)
    groups = getattr(m, "groups", 1)
    cin, cout = (
        (m.weight.shape[-1], m.weight.shape[-2] * groups)
        if turned
        else (m.weight.shape[-2] * groups, m.weight.shape[-1])
    )
    pad, before = _padding(n, m.pad, 0)
    if turned and before:
        raise w.refusal(m, "torch's transposed convolutions have the same padding on both sides")
    options = {"stride": m.stride[::-1], "padding": pad, "dilation": m.dilation[::-1], "groups": groups}
    if turned:
        options["output_padding"] = m.outpad[::-1]
    kind = getattr(nn, f"Conv{'Transpose' if turned else ''}{n}d")
    module = _unfilled(kind, cin, cout, tuple(m.weight.shape[:n])[::-1], bias=m.bias is not False, **options)
    how = reversed_axes if isinstance(m, CrossCor) else _unflipped
    return [*before, *_and(w, w.fill(module, weight=w.array(m.weight, how), bias=_bias(w, m.bias)), m.σ)]


def _unflipped(w: Tensor) -> Tensor:
    return reversed_axes(w.flip(tuple(range(w.ndim - 2))))


def _padding(
    n: int, pad: tuple[int, ...], value: float, k: tuple[int, ...] | None = None
) -> tuple[Any, list[nn.Module]]:
    """The padding of a torch module of `n` axes, and what stands before it where it has no such padding."""
    full = borders(n, pad)
    sides = full[::2]
    if sides == full[1::2] and (k is None or all(2 * p <= size for p, size in zip(sides, k, strict=True))):
        return sides[::-1], []
    return 0, [getattr(nn, f"ConstantPad{n}d")(full, value)]


def _write_pool(w: _Writer, m: Any) -> list[nn.Module]:
    n = w.axes = len(m.k)
    maximal = isinstance(m, MaxPool)
    pad, before = _padding(n, m.pad, -torch.inf if maximal else 0.0, m.k)
    kind = getattr(nn, f"{'Max' if maximal else 'Avg'}Pool{n}d")
    return [*before, kind(m.k[::-1], stride=m.stride[::-1], padding=pad)]


def _write_global(w: _Writer, m: Any) -> list[nn.Module]:
    kind = "Max" if isinstance(m, (GlobalMaxPool, AdaptiveMaxPool)) else "Avg"
    return [getattr(nn, f"Adaptive{kind}Pool{w.axes}d")(1)]


def _write_adaptive(w: _Writer, m: AdaptiveMaxPool | AdaptiveMeanPool) -> list[nn.Module]:
    if set(m.out) != {1}:
        raise w.refusal(m, "its windows and those of torch's adaptive pools are the same only for one in all")
    w.axes = len(m.out)
    return _write_global(w, m)


def _write_norm(w: _Writer, m: Any) -> list[nn.Module]:
    kind = getattr(nn, f"{type(m).__name__}{w.axes}d")
    options = {"eps": m.ε, "momentum": m.momentum, "affine": m.affine, "track_running_stats": m.track_stats}
    module = _unfilled(kind, m.chs, **options)
    if m.affine:
        w.fill(module, weight=w.array(m.γ), bias=w.array(m.β))
    if m.track_stats:
        w.fill(module, running_mean=m.μ, running_var=m.σ2, num_batches_tracked=torch.tensor(0))
    return _and(w, module, m.λ)


def _write_groupnorm(w: _Writer, m: GroupNorm) -> list[nn.Module]:
    module = _unfilled(nn.GroupNorm, m.G, m.chs, eps=m.ε, affine=m.affine)
    if m.affine:
        w.fill(module, weight=w.array(m.γ), bias=w.array(m.β))
    return _and(w, module, m.λ)


def _write_layernorm(w: _Writer, m: LayerNorm) -> list[nn.Module]:
    exact = isinstance(m, LayerNorm016)
    if not exact:
        warnings.warn(
            f"to_torch: {w.path}, {m}, divides by σ + ε, and torch by √(σ² + ε): numbers differ by about ε. "
            "fluxtorch.v016.LayerNorm has torch's formula.",
            stacklevel=6,
        )
    # The same as Flux where σ is 1, and no more than about ε off elsewhere.
    eps = m.ε**2 if exact else 2 * m.ε + m.ε**2
    module = _unfilled(nn.LayerNorm, m.size[::-1], eps=eps, elementwise_affine=m.affine)
    if m.affine:
        w.fill(module, weight=w.array(m.diag.scale, reversed_axes), bias=w.array(m.diag.bias, reversed_axes))
    return _and(w, module, m.λ)


def _write_dropout(w: _Writer, m: Dropout) -> list[nn.Module]:
    if m.dims is None:
        return [nn.Dropout(m.p)]
    for n in (1, 2, 3):
        if m.dims == (n, n + 1):
            return [getattr(nn, f"Dropout{n}d")(m.p)]
    raise w.refusal(m, "torch.nn has dropout along no such axes")


def _write_embedding(w: _Writer, m: Any) -> list[nn.Module]:
    n, size = m.weight.shape[::-1]
    weight = w.array(m.weight, reversed_axes)
    if isinstance(m, Embedding):
        return [w.fill(_unfilled(nn.Embedding, n, size), weight=weight)]
    mode = {mean: "mean", base.sum: "sum", maximum: "max"}.get(m.reduction)
    if mode is None:
        raise w.refusal(m, f"torch's bags know no reduction by {show(m.reduction)}")
    return [w.fill(_unfilled(nn.EmbeddingBag, n, size, mode=mode), weight=weight)]


def _write_upsample(w: _Writer, m: Upsample) -> list[nn.Module]:
    if m.mode != "nearest":
        return [nn.Upsample(_turned(m.size), _turned(m.scale), m.mode, align_corners=True)]
    return [nn.Upsample(_turned(m.size), _turned(m.scale))]


def _turned(x: Any) -> Any:
    return x[::-1] if isinstance(x, tuple) else x


def _write_attention(w: _Writer, m: MultiHeadAttention) -> list[nn.Module]:
    parts = m.q_proj, m.k_proj, m.v_proj
    size = m.q_proj.weight.shape[1]
    if {part.weight.shape[0] for part in parts} != {size} or m.out_proj.weight.shape != (size, size):
        raise w.refusal(m, "torch's attention has as many features within and without as its query")
    options = {"dropout": float(m.attn_drop.p), "bias": m.q_proj.bias is not False, "batch_first": True}
    kdim, vdim = m.k_proj.weight.shape[1], m.v_proj.weight.shape[1]
    module = _unfilled(nn.MultiheadAttention, size, m.nheads, kdim=kdim, vdim=vdim, **options)
    if kdim == vdim == size:
        w.fill(module, in_proj_weight=nn.Parameter(torch.cat([part.weight.detach() for part in parts])))
    else:
        w.fill(module, **{f"{name}_proj_weight": w.array(f.weight) for name, f in zip("qkv", parts, strict=True)})
    if options["bias"]:
        w.fill(module, in_proj_bias=nn.Parameter(torch.cat([part.bias.detach() for part in parts])))
    w.fill(module.out_proj, weight=w.array(m.out_proj.weight), bias=_bias(w, m.out_proj.bias))
    return [module]


def _write_recur(w: _Writer, m: recurrent.Recur) -> list[nn.Module]:
    if type(m.cell) not in (recurrent.RNNCell, recurrent.LSTMCell, recurrent.GRUCell):
        raise w.refusal(m, "torch.nn has no such recurrent module")
    return [_recurrent(w, m.cell, batch_first=False, pair=False)]


def _write_whole(w: _Writer, m: recurrent016.Recurrence) -> list[nn.Module]:
    if type(m.cell) not in (recurrent016.RNNCell, recurrent016.LSTMCell, recurrent016.GRUCell):
        raise w.refusal(m, "torch.nn has no such recurrent module")
    return [_recurrent(w, m.cell, batch_first=True, pair=m._return_state)]


def _recurrent(w: _Writer, cell: Any, batch_first: bool, pair: bool) -> nn.Module:
    kind = type(cell).__name__.removesuffix("Cell")
    options: dict[str, Any] = {"batch_first": batch_first, "bias": cell.b is not False}
    if kind == "RNN":
        σ = _unaliased(cell.σ)
        if σ not in (base.tanh, act.relu):
            raise w.refusal(cell, f"torch.nn has no recurrent module with {show(cell.σ)}")
        options["nonlinearity"] = "tanh" if σ is base.tanh else "relu"
    module = _unfilled(getattr(nn, kind), cell.Wi.shape[1], cell.Wh.shape[1], **options)
    w.fill(module, weight_ih_l0=w.array(cell.Wi), weight_hh_l0=w.array(cell.Wh))
    if options["bias"]:
        b = w.array(cell.b, torch.flatten)
        w.fill(module, bias_ih_l0=b, bias_hh_l0=nn.Parameter(torch.zeros_like(b)))
    states = getattr(cell, "state0", ())
    return _from_first(module, states if isinstance(states, tuple) else (states,), batch_first, pair)


def _from_first(module: nn.Module, states: tuple[Tensor, ...], batch_first: bool, pair: bool) -> nn.Module:
    """A module that gives the outputs of torch's recurrent `module`, from these states on."""
    graph, root = fx.Graph(), nn.Module()
    root.rnn = module
    x = graph.placeholder("x")
    if not batch_first:
        three = graph.call_function(operator.eq, (graph.call_method("dim", (x,)), 3))
        graph.call_function(torch._assert, (three, "expected a sequence of size (time, batch, features)"))
    given: tuple[Any, ...] = (x,)
    if any(bool(h.any()) for h in states):
        n, hs = graph.call_method("size", (x, 1)), []
        for i, h in enumerate(states):
            setattr(root, f"state{i}", nn.Parameter(h.detach().t()[None]))
            hs.append(graph.call_method("expand", (graph.get_attr(f"state{i}"), 1, n, h.shape[0])))
        hs = [graph.call_method("contiguous", (h,)) for h in hs]
        given = (x, hs[0] if len(hs) == 1 else tuple(hs))
    result = graph.call_module("rnn", given)
    graph.output(result if pair else graph.call_function(operator.getitem, (result, 0)))
    return fx.GraphModule(root, graph)


_CONNECTIONS: tuple[tuple[Callable[..., Any], Callable[..., Any]], ...] = (
    (operator.add, torch.add),
    (torch.add, torch.add),
    (operator.mul, torch.mul),
    (torch.mul, torch.mul),
    (torch.maximum, torch.maximum),
    (torch.minimum, torch.minimum),
)


def _connected(w: _Writer, graph: fx.Graph, connection: Any, ys: list[Any]) -> Any:
    if connection is vcat:
        return graph.call_function(torch.cat, (ys, -1))
    for known, f in _CONNECTIONS:
        if known is connection:
            return functools.reduce(lambda a, b: graph.call_function(f, (a, b)), ys)
    raise w.refusal(connection, "a connection must be +, *, maximum, minimum or vcat")


def _branches(w: _Writer, m: Any, layers: Any, connection: Any, skip: bool = False) -> list[nn.Module]:
    """A module that gives its input to all the layers, and connects what they give (and the input, for a `skip`)."""
    path, axes = w.path, w.axes
    graph, root = fx.Graph(), nn.Module()
    x, ys = graph.placeholder("x"), []
    named = vars(layers).items() if isinstance(layers, NamedTuple) else ((str(i), f) for i, f in enumerate(layers))
    for name, f in named:
        w.axes = axes
        root.add_module(f"branch_{name}", _joined(w.modules(f, f"{path}.layers[{name}]")))
        ys.append(graph.call_module(f"branch_{name}", (x,)))
    w.path = path
    graph.output(_connected(w, graph, connection, [*ys, x] if skip else ys))
    return [fx.GraphModule(root, graph)]


_WRITERS: dict[type, Callable[[_Writer, Any], list[nn.Module]]] = {
    Torch: lambda w, m: [m.module],
    Dense: _write_dense,
    Maxout: lambda w, m: _branches(w, m, m.layers, torch.maximum),
    Bilinear: _write_bilinear,
    SkipConnection: lambda w, m: _branches(w, m, (m.layers,), m.connection, skip=True),
    Parallel: lambda w, m: _branches(w, m, m.layers, m.connection),
    **dict.fromkeys((Conv, CrossCor, ConvTranspose), _write_conv),
    **dict.fromkeys((MaxPool, MeanPool), _write_pool),
    **dict.fromkeys((GlobalMaxPool, GlobalMeanPool), _write_global),
    **dict.fromkeys((AdaptiveMaxPool, AdaptiveMeanPool), _write_adaptive),
    **dict.fromkeys((BatchNorm, InstanceNorm), _write_norm),
    GroupNorm: _write_groupnorm,
    **dict.fromkeys((LayerNorm, LayerNorm016), _write_layernorm),
    Dropout: _write_dropout,
    AlphaDropout: lambda w, m: [nn.AlphaDropout(m.p)],
    **dict.fromkeys((Embedding, EmbeddingBag), _write_embedding),
    Upsample: _write_upsample,
    PixelShuffle: lambda w, m: [nn.PixelShuffle(m.r)],
    MultiHeadAttention: _write_attention,
    recurrent.Recur: _write_recur,
    **dict.fromkeys((recurrent016.Recurrence, recurrent016.RNN, recurrent016.LSTM, recurrent016.GRU), _write_whole),
}
