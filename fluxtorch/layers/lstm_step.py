"""A step of an LSTM whose products for the gradient by its weights are made once for all steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fluxtorch.layers.layer import PLAIN, is_eager
from fluxtorch.layers.linear import linear
from fluxtorch.zygote.later import put_off, wish
from fluxtorch.zygote.scope import outermost

_KINDS = (torch.float32, torch.float64)
_sigmoid_back: Any = torch.ops.aten.sigmoid_backward.default
_tanh_back: Any = torch.ops.aten.tanh_backward.default


def lstm_step(x: Tensor, state: Sequence[Tensor], Wi: Tensor, Wh: Tensor, b: Tensor) -> tuple[Tensor, ...] | None:
    """What `torch.lstm_cell` gives, on a CPU inside of a plain gradient; None where that isn't for these arrays."""
    h, c = state
    if not (outermost() and type(x) is type(h) is type(c) is Tensor and x.is_cpu and x.dtype in _KINDS):
        return None
    if not (type(Wi) in PLAIN and type(Wh) in PLAIN and type(b) in PLAIN and torch.is_grad_enabled() and is_eager(x)):
        return None
    wish()
    return _apply(x, h, c, Wi, Wh, b)  # type: ignore[no-any-return]


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, c: Tensor, Wi: Tensor, Wh: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        gates = torch.addmm(torch.addmm(b, x, Wi.t()), h, Wh.t())
        i, f, g, o = gates.chunk(4, 1)
        i.sigmoid_(), f.sigmoid_(), g.tanh_(), o.sigmoid_()
        new = torch.addcmul(f * c, i, g)
        t = new.tanh()
        ctx.save_for_backward(x, h, c, Wi, Wh, b, gates, t)
        return o * t, new

    @staticmethod
    def backward(ctx: Any, dh: Any, dc: Any) -> Any:
        x, h, c, Wi, Wh, b, gates, t = ctx.saved_tensors
        to_x, to_h, to_c, *to_weights = ctx.needs_input_grad
        i, f, g, o = gates.chunk(4, 1)
        again = torch.is_grad_enabled()
        if again:  # a derivative of this in turn goes through what the gates come from
            i, f, g, o = torch.addmm(torch.addmm(b, x, Wi.t()), h, Wh.t()).chunk(4, 1)
            i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
            t = torch.addcmul(f * c, i, g).tanh()
        dc = dc + _tanh_back(dh * o, t)
        parts = _sigmoid_back(dc * g, i), _sigmoid_back(dc * c, f), _tanh_back(dc * i, g), _sigmoid_back(dh * t, o)
        d = torch.cat(parts, 1)
        dx = d @ Wi if to_x else None
        before = d @ Wh if to_h else None, dc * f if to_c else None
        if not again and put_off(linear, (Wi, Wh, b), d, x, h):
            return dx, *before, None, None, None
        products = (d.t() @ x, d.t() @ h, d.sum(0))
        return dx, *before, *[p if needed else None for p, needed in zip(products, to_weights, strict=True)]


# Without a look for wrappers of torch.func's at each step, of which there are none here.
_apply: Any = super(torch.autograd.Function, _Step).apply
