"""The attention layer of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from fluxtorch.arrays import reversed_axes
from fluxtorch.base import identity
from fluxtorch.initialisers import glorot_uniform
from fluxtorch.layers.basic import Dense, in_torch_order, is_size, is_watched, tensor_input, whole
from fluxtorch.layers.layer import Layer, layer
from fluxtorch.layers.normalise import Dropout, is_active
from fluxtorch.layers.show import optional
from fluxtorch.nnlib.attention import Attended, attention_reversed
from fluxtorch.printing import show

__all__ = ["MultiHeadAttention"]


@layer(expand=False)
class MultiHeadAttention(Layer):
    """Multi-head dot-product attention: `MultiHeadAttention(dims; nheads=8, bias=False, init, dropout_prob=0)`.

    `dims` is `(q_in, k_in, v_in) |to| (qk, v) |to| out`, the sizes of the inputs, of what is compared
    and averaged, and of the output; a single number stands for all of a tuple, or for all six.
    `bias` and `init` (`glorot_uniform`) are those of the four `Dense` layers, `dropout_prob` is for
    the scores.

    Called as `mha(q, k, v, bias=None; mask=None)`, on `(q_in, q_len, N)`, `(k_in, kv_len, N)` and
    `(v_in, kv_len, N)`; `mha(q, kv)` is `mha(q, kv, kv)`, `mha(q)` is `mha(q, q, q)`. Gives the tuple
    of the output `(out, q_len, N)` and the scores `(kv_len, q_len, nheads, N)`. `bias` and `mask` line
    up with the scores from the first axis: the one is added to them before the softmax, and where
    the other is False they are 0, as in `nnlib.make_causal_mask`.

    Raises `ValueError` if `nheads` doesn't divide `qk` and `v`, `DimensionMismatch` for inputs that
    don't fit. Vaswani et al. 2017, https://arxiv.org/abs/1706.03762.

    >>> mha = MultiHeadAttention(64, nheads=8)
    >>> mha
    MultiHeadAttention(64; nheads=8)  # 16_384 parameters
    >>> y, α = mha(rand32(64, 10, 32), rand32(64, 20, 32), rand32(64, 20, 32))
    >>> y.shape, α.shape
    (torch.Size([64, 10, 32]), torch.Size([20, 10, 8, 32]))
    >>> y, α = MultiHeadAttention(64 |to| 1024 |to| 1024, nheads=8)(rand32(64, 10, 32))
    >>> y.shape, α.shape
    (torch.Size([1024, 10, 32]), torch.Size([10, 10, 8, 32]))
    """

    nheads: int
    q_proj: Any
    k_proj: Any
    v_proj: Any
    attn_drop: Any
    out_proj: Any

    def __init__(
        self,
        dims: Any,
        *,
        nheads: int = 8,
        bias: bool = False,
        init: Callable[..., torch.Tensor] = glorot_uniform,
        dropout_prob: float = 0.0,
    ) -> None:
        q_in, k_in, v_in, qk, v, out = _sizes(dims)
        whole("MultiHeadAttention", nheads)
        for name, n in (("qk_dim", qk), ("v_dim", v)):
            if nheads < 1 or n % nheads:
                raise ValueError(f"{name} = {n} should be divisible by nheads = {nheads}")
        self.nheads = nheads
        self.q_proj = Dense(q_in, qk, bias=bias, init=init)
        self.k_proj = Dense(k_in, qk, bias=bias, init=init)
        self.v_proj = Dense(v_in, v, bias=bias, init=init)
        self.attn_drop = Dropout(dropout_prob)
        self.out_proj = Dense(v, out, bias=bias, init=init)

    def __call__(
        self, q_in: Any, k_in: Any = None, v_in: Any = None, bias: Any = None, *, mask: Any = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        k_in = q_in if k_in is None else k_in
        v_in = k_in if v_in is None else v_in
        qr = reversed_axes(tensor_input(self.q_proj, q_in))
        kr = qr if k_in is q_in else reversed_axes(tensor_input(self.k_proj, k_in))
        vr = kr if v_in is k_in else reversed_axes(tensor_input(self.v_proj, v_in))
        q, k, v = in_torch_order(self.q_proj, qr), in_torch_order(self.k_proj, kr), in_torch_order(self.v_proj, vr)
        drop = self.attn_drop
        if type(drop) is Dropout and not is_watched(drop) and not (drop.p and is_active(drop)):
            drop = identity
        y, scores = attention_reversed(q, k, v, bias, drop, mask, self.nheads)
        y = reversed_axes(in_torch_order(self.out_proj, y))
        if callable(scores) and not is_watched(self):  # who looks on expects a plain tuple
            return Attended(y, scores)
        return y, scores() if callable(scores) else scores

    def __str__(self) -> str:
        (qk, q_in), (_, k_in), (out, v) = (f.weight.shape for f in (self.q_proj, self.k_proj, self.out_proj))
        v_in = self.v_proj.weight.shape[1]
        inner: Any = qk if qk == v and q_in == k_in == v_in else (qk, v)
        inputs: Any = q_in if q_in == k_in == v_in else (q_in, k_in, v_in)
        same = q_in == k_in == v_in == qk == v == out
        return (
            f"MultiHeadAttention({q_in if same else f'{show(inputs)} => {show(inner)} => {out}'}; nheads={self.nheads}"
            + optional(
                (self.q_proj.bias is not False, ", bias=true"),
                (self.attn_drop.p != 0, f", dropout_prob={show(self.attn_drop.p)}"),
            )
            + ")"
        )


def _sizes(dims: Any) -> tuple[Any, ...]:
    """The sizes of the inputs (three), of what is compared and averaged, and of the output."""
    if is_size(dims):
        dims = (dims, (dims, dims))
    if isinstance(dims, tuple) and len(dims) == 2 and isinstance(dims[1], tuple) and len(dims[1]) == 2:
        inputs, (inner, out) = dims
        inputs = (inputs,) * 3 if is_size(inputs) else inputs
        inner = (inner,) * 2 if is_size(inner) else inner
        if isinstance(inputs, tuple) and isinstance(inner, tuple) and (len(inputs), len(inner)) == (3, 2):
            whole("MultiHeadAttention", *inputs, *inner, out)
            return (*inputs, *inner, out)
    raise TypeError(
        f"MultiHeadAttention expects sizes, as in 64 or (3, 4, 5) |to| (6, 7) |to| 8 or 64 |to| 64 |to| 8, "
        f"and got {show(dims)}"
    )
