"""Inside a chain images have their channels last in memory where a CPU is faster so: the same numbers, nothing else."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch.arrays import reversed_axes
from fluxtorch.layers import layout
from fluxtorch.layers.layout import for_convolution, is_channels_last

pytestmark = pytest.mark.skipif(not layout._has_onednn(), reason="torch has no oneDNN here")


def images(*size: int) -> torch.Tensor:
    return reversed_axes(torch.randn(*reversed(size)))


class Look(Layer):
    """Notes the layout of what passes by, and that of the gradient which comes back."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(is_channels_last(reversed_axes(x)))
        if x.requires_grad:
            x.register_hook(lambda g: self.seen.append(is_channels_last(reversed_axes(g))))
        return x


MODELS = {
    "pools and norms": lambda: (
        *(Conv((3, 3), 3 | to | 8, pad=1), BatchNorm(8, relu), MaxPool((2, 2)), Conv((3, 3), 8 | to | 6, tanh)),
        *(MeanPool((2, 2)), Dropout(0), Flux.flatten, Dense(54 | to | 4)),
    ),
    "one pool for all": lambda: (Conv((3, 3), 3 | to | 8, relu), GlobalMeanPool(), Flux.flatten, Dense(8 | to | 2)),
    "back to images": lambda: (Conv((2, 2), 3 | to | 8, stride=2), ConvTranspose((2, 2), 8 | to | 3, stride=2)),
    "depthwise": lambda: (Conv((1, 1), 3 | to | 4), DepthwiseConv((3, 3), 4 | to | 8, relu), InstanceNorm(8)),
    "more kernel than image": lambda: (
        *(Conv((3, 3), 3 | to | 8, relu, stride=4), Conv((4, 4), 8 | to | 64, relu), Conv((1, 1), 64 | to | 2)),
    ),
    "skipped": lambda: (
        Conv((3, 3), 3 | to | 4, pad=1),
        SkipConnection(Chain(Conv((3, 3), 4 | to | 4, relu, pad=1), BatchNorm(4)), lambda a, b: a + b),
        Upsample(2),
        Conv((3, 3), 4 | to | 2),
    ),
    "a function between": lambda: (Conv((3, 3), 3 | to | 4), lambda x: x**2, Conv((3, 3), 4 | to | 2), softmax),
}


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_same_numbers(name, columns, monkeypatch):
    torch.manual_seed(0)
    m, x = Chain(*MODELS[name]()), images(16, 16, 3, 5) if columns else torch.randn(16, 16, 3, 5)
    exact, x64 = f64(copy.deepcopy(m)), x.double()
    relaid = []
    plain = layout.for_convolution
    monkeypatch.setattr("fluxtorch.layers.conv.for_convolution", lambda *a: (relaid.append(y := plain(*a)), y)[1])

    def loss(m, x):
        y = m(x)
        return y.square().mean(), y

    got, want = withgradient(loss, m, x), withgradient(loss, exact, x64)
    assert any(map(is_channels_last, relaid))
    for a, b in zip(Flux.Functors.fleaves((got, m)), Flux.Functors.fleaves((want, exact)), strict=True):
        if isinstance(b, torch.Tensor):
            torch.testing.assert_close(a.double(), b.double(), rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(m(x).double(), exact(x64), rtol=1e-3, atol=1e-4)


def test_layout_there_and_back():
    look = [Look(), Look()]
    m = Chain(Conv((3, 3), 3 | to | 8, pad=1), look[0], Conv((3, 3), 8 | to | 4, relu), GlobalMeanPool(), look[1])
    gradient(lambda m: m(images(9, 9, 3, 4)).square().sum(), m)
    assert look[0].seen == [True, True]
    assert look[1].seen == [False, False]  # 1×1 images lie both ways


def test_what_leaves_says_how_its_gradient_comes(monkeypatch):
    said = []
    monkeypatch.setattr(layout, "_gradient_as", lambda x, layout: said.append(layout))
    m, x = Chain(Conv((3, 3), 3 | to | 8), Flux.flatten), images(9, 9, 3, 4)
    gradient(lambda m: m(x).sum(), m)
    gradient(lambda m: m[0:1](x).sum(), m)
    assert said == [torch.channels_last] * 2
    gradient(lambda x: m(x).sum(), x)  # and what comes in, as it came
    assert said[2:] == [torch.contiguous_format, torch.channels_last]
    with torch.no_grad():
        m(x)
    assert len(said) == 4


def test_large_kernels_of_small_images_have_rows():
    few, many = torch.randn(2, 8, 3, 3), torch.randn(20, 8, 3, 3)
    w = torch.randn(8, 8, 3, 3)
    assert for_convolution(few, w) is few
    y = for_convolution(many, w)
    assert is_channels_last(y) and torch.equal(y, many)
    back = for_convolution(y[:2], w)
    assert back.is_contiguous() and torch.equal(back, many[:2])
    alone = torch.randn(20, 1, 6, 6)
    y = for_convolution(alone, w)
    assert torch.equal(y, alone) and y.data_ptr() == alone.data_ptr() and y.stride(1) == 1


def test_nothing_stays_on_the_input():
    m = Chain(Conv((3, 3), 3 | to | 8), MaxPool((2, 2)))
    for x in (images(9, 9, 3, 4).requires_grad_(), reversed_axes(torch.randn(4, 3, 9, 9, requires_grad=True))):
        leaf = x if x.is_leaf else x._base
        m(x).sum().backward()
        assert not leaf._backward_hooks
        exact = f64(copy.deepcopy(m))
        (want,) = torch.autograd.grad(exact(x.double()).sum(), leaf)
        torch.testing.assert_close(leaf.grad, want, rtol=1e-4, atol=1e-4)


def test_second_derivative():
    torch.manual_seed(0)
    m = Chain(Conv((3, 3), 2 | to | 4, tanh, pad=1), MeanPool((2, 2)), Conv((2, 2), 4 | to | 1, tanh), Flux.flatten)
    x = images(6, 6, 2, 5)

    def penalty(m, x):
        return gradient(lambda x: m(x).square().sum(), x)[0].square().sum()

    got, want = gradient(penalty, m, x), gradient(penalty, f64(copy.deepcopy(m)), x.double())
    for a, b in zip(Flux.Functors.fleaves(got), Flux.Functors.fleaves(want), strict=True):
        assert (a is None) is (b is None)
        if b is not None:
            torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-4)


def test_torch_as_it_is_wherever_somebody_looks():
    m, x = Chain(Conv((3, 3), 3 | to | 8, relu), MaxPool((2, 2))), images(9, 9, 3, 4)
    w, rows = torch.randn(8, 3, 3, 3), reversed_axes(x)
    assert for_convolution(rows, w) is not rows
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert for_convolution(rows, w) is rows
        m(x)
    with forward_ad.dual_level():
        assert for_convolution(rows, w) is rows
    with FlopCounterMode(display=False):
        assert for_convolution(rows, w) is rows
    with torch.backends.mkldnn.flags(enabled=False):
        assert for_convolution(rows, w) is rows
    for other in (rows.double(), rows.half(), rows.to("meta"), rows[0]):
        assert for_convolution(other, w) is other
    for batch in (torch.randn(2, 9, 9, 3, 4), torch.randn(2, 4, 3, 9, 9).permute(0, 4, 3, 2, 1)):
        each = torch.func.vmap(m)(batch)
        torch.testing.assert_close(each, torch.stack([m(v) for v in batch]), rtol=1e-4, atol=1e-4)
    assert "channels_last" not in str(torch.export.export(m, (x,)).graph)
