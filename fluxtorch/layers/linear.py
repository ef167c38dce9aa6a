"""The product of a fully connected layer, by the faster of the two libraries that torch has for it on a CPU."""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F

from fluxtorch.layers.layer import PLAIN, is_eager
from fluxtorch.zygote.backward import TRIED

# Multiplications for each thread below which the more that oneDNN needs to get going, some 30 µs, isn't made good.
_WORTH = 1 << 22


def linear(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
    """`torch.nn.functional.linear`; where torch has it from MKL, and MKL is slow, large ones are oneDNN's.

    MKL leaves AVX-512 unused on AMD's processors, and takes twice as long there. Not for `torch.compile`.
    """
    if x.numel() * W.shape[0] < _WORTH * torch.get_num_threads():
        return F.linear(x, W, b)
    if not (_onednn_is_faster() and _fit(x, W, b)):
        return F.linear(x, W, b)
    x = x.contiguous()
    return _Linear.apply(x, W, b) if torch.is_grad_enabled() else _product(x, W, b)  # type: ignore[no-any-return]


def _product(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise.default(x, W, b, "none", [], "")  # type: ignore[no-any-return]


@functools.cache
def _onednn_is_faster() -> bool:
    return (
        TRIED
        and torch.backends.mkl.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.cpu.get_capabilities()["cpu_name"].startswith("AMD")
    )


def _fit(x: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None) -> bool:
    """Are these plain arrays of Float32 that fit each other, in the layouts that oneDNN is asked for?"""
    for v in (x, W) if b is None else (x, W, b):
        if not (type(v) in PLAIN and v.is_cpu and v.dtype is torch.float32 and v.layout is torch.strided):
            return False
    if W.ndim != 2 or not (W.is_contiguous() or W.t().is_contiguous()):
        return False
    m, n = W.shape
    return (
        x.shape[-1] == n
        and (b is None or (b.shape == (m,) and b.is_contiguous()))
        and min(x.numel() // n, m, n) >= 4  # thinner ones wait for memory, whoever multiplies
        and torch._C._get_mkldnn_enabled()
        and is_eager(x)
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, W: torch.Tensor, b: torch.Tensor | None) -> torch.Tensor:
        ctx.save_for_backward(x, W)
        return _product(x, W, b)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, W = ctx.saved_tensors
        # Where this is differentiated in turn, or something looks on, it takes operations that know how.
        product = linear if torch.is_grad_enabled() or not is_eager(g) else _product
        to_x, to_W, to_b = ctx.needs_input_grad
        dW = dx = None
        rows, of_rows = (g, x) if g.ndim == 2 else (g.flatten(0, -2), x.flatten(0, -2))
        if to_W and g.numel() > x.numel() + 2 * W.numel():  # what comes first is copied, and so is what is turned
            dW = product(of_rows.t(), rows.contiguous().t(), None).t().contiguous()
        elif to_W:
            dW = product(rows.t(), of_rows.t(), None)
        if to_x:  # last, so that those copies are gone
            dx = product(g, W.t(), None)
        return dx, dW, rows.sum(0) if to_b else None
