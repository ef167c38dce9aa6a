from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import fluxtorch as Flux
from fluxtorch.base import identity, ones, rand, randn, tanh, zeros
from fluxtorch.devices import f32, f64, gpu
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import children
from fluxtorch.initialisers import ones32, rand32, zeros32
from fluxtorch.layers import (
    BatchNorm,
    Chain,
    Conv,
    ConvTranspose,
    CrossCor,
    Dense,
    DepthwiseConv,
    Dropout,
    MaxPool,
    MeanPool,
    SamePad,
    activations,
    convfilter,
    depthwiseconvfilter,
    flatten,
)
from fluxtorch.layers.conv import AdaptiveMaxPool, AdaptiveMeanPool, GlobalMaxPool, GlobalMeanPool
from fluxtorch.nnlib import conv, depthwiseconv, maxpool, meanpool, relu, sigmoid, softmax
from fluxtorch.nnlib.conv import conv_transpose
from fluxtorch.outputsize import outputsize
from fluxtorch.pairs import to
from fluxtorch.zygote import gradient, withgradient
from fluxtorch.zygote.implicit import params

CONVS = (Conv, ConvTranspose, CrossCor, DepthwiseConv)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


def rev(x):
    return x.permute(*reversed(range(x.ndim)))


def images(*size, dtype=torch.float32):
    """Random numbers in Flux's axis order, in the memory that torch's kernels like."""
    return rev(torch.randn(size[::-1], dtype=dtype))


def counting(*size):
    """1, 2, 3, … column-major, with channels and batch of one."""
    return rev(torch.arange(1.0, math.prod(size) + 1, dtype=torch.float64).reshape(1, 1, *size[::-1]))


def column_major(numbers, *size):
    return rev(torch.tensor([float(v) for v in numbers.split()], dtype=torch.float64).reshape(size[::-1])).tolist()


# -- numbers of NNlib's tests ------------------------------------------------------------------------

CONV_NUMBERS = {
    1: {
        "y_pad": [1, 4, 7, 10, 13, 10],
        "y_dil": [5, 8, 11],
        "y_flip": [5, 8, 11, 14],
        "dx": [8, 18, 27, 36, 13],
        "dx_stride": [8, 4, 20, 10, 0],
        "dx_pad": [9, 18, 27, 36, 33],
        "dx_dil": [10, 16, 27, 8, 11],
        "dx_flip": [5, 18, 27, 36, 28],
        "dw": [134, 100],
        "dw_stride": [48, 34],
        "dw_pad": [135, 150],
        "dw_dil": [102, 54],
        "dw_flip": [110, 148],
    },
    2: {
        "y_pad": [
            [1, 9, 29, 49, 48],
            [4, 29, 79, 129, 115],
            [7, 39, 89, 139, 122],
            [10, 49, 99, 149, 129],
            [13, 59, 109, 159, 136],
            [10, 40, 70, 100, 80],
        ],
        "y_dil": [[48, 98], [58, 108], [68, 118]],
        "y_flip": [[51, 101, 151], [61, 111, 161], [71, 121, 171], [81, 131, 181]],
        "dx": [
            [116, 374, 674, 258],
            [243, 700, 1200, 407],
            [313, 800, 1300, 437],
            [383, 900, 1400, 467],
            [177, 386, 586, 159],
        ],
        "dx_stride": [[116, 58, 516, 258], [87, 29, 387, 129], [196, 98, 596, 298], [147, 49, 447, 149], [0, 0, 0, 0]],
        "dx_pad": [
            [152, 470, 850, 911],
            [261, 700, 1200, 1240],
            [340, 800, 1300, 1319],
            [419, 900, 1400, 1398],
            [370, 746, 1126, 1087],
        ],
        "dx_dil": [
            [192, 392, 96, 196],
            [232, 432, 116, 216],
            [416, 766, 184, 334],
            [174, 324, 58, 108],
            [204, 354, 68, 118],
        ],
        "dx_flip": [
            [51, 254, 454, 453],
            [163, 700, 1200, 1087],
            [193, 800, 1300, 1157],
            [223, 900, 1400, 1227],
            [162, 586, 886, 724],
        ],
        "dw": [[17378, 11738], [16250, 10610]],
        "dw_stride": [[5668, 3888], [5312, 3532]],
        "dw_pad": [[18670, 22550], [19850, 23430]],
        "dw_dil": [[8632, 3652], [7636, 2656]],
        "dw_flip": [[12590, 19550], [13982, 20942]],
    },
    3: {
        "y_dil": column_major("608 644 680 788 824 860", 3, 2, 1),
        "y_flip": column_major(
            "686 722 758 794 866 902 938 974 1046 1082 1118 1154 1406 1442 1478 1514 1586 1622 1658 1694 1766 "
            "1802 1838 1874",
            *(4, 3, 2),
        ),
        "dx_stride": column_major(
            "2576 2254 3152 2758 0 1932 1610 2364 1970 0 5456 4774 6032 5278 0 4092 3410 4524 3770 0 1288 966 "
            "1576 1182 0 644 322 788 394 0 2728 2046 3016 2262 0 1364 682 1508 754 0 0 0 0 0 0 0 0 0 0 0 0 0 "
            "0 0 0 0 0 0 0 0",
            *(5, 4, 3),
        ),
        "dw": column_major("1058184 1036200 948264 926280 618504 596520 508584 486600", 2, 2, 2),
        "dw_stride": column_major("74760 72608 64000 61848 31720 29568 20960 18808", 2, 2, 2),
        "dw_pad": column_major("1260550 1308050 1403270 1449230 1737310 1775890 1832590 1867310", 2, 2, 2),
        "dw_dil": column_major("250320 241512 206280 197472 74160 65352 30120 21312", 2, 2, 2),
        "dw_flip": column_major("639480 670200 793080 823800 1253880 1284600 1407480 1438200", 2, 2, 2),
    },
}


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_convolution_numbers_of_nnlib(rank):
    want = CONV_NUMBERS[rank]
    x, w = counting(*(5, 4, 3)[:rank]), counting(*(2,) * rank)
    options = {
        "": {},
        "_stride": {"stride": 2},
        "_pad": {"pad": 1},
        "_dil": {"dilation": 2},
        "_flip": {"flipped": True},
    }
    for name, kws in options.items():
        if "y" + name in want:
            close(conv(x, w, **kws)[..., 0, 0], want["y" + name])
            close(depthwiseconv(x, w, **kws)[..., 0, 0], want["y" + name])
        # What flows back from `y` itself.
        dx, dw = gradient(lambda x, w, kws=kws: (conv(x, w, **kws) ** 2).sum() / 2, x, w)
        if "dx" + name in want:
            close(dx[..., 0, 0], want["dx" + name])
        close(dw[..., 0, 0], want["dw" + name], rtol=1e-5, atol=0)
    if "y_pad" in want:
        y = torch.tensor(want["y_pad"], dtype=torch.float64)
        close(conv(x, w)[..., 0, 0], y[(slice(1, -1),) * rank])
        close(conv(x, w, stride=2)[..., 0, 0], y[(slice(1, -1, 2),) * rank])
        close(conv_transpose(conv(x, w), w)[..., 0, 0], want["dx"])
        close(conv_transpose(conv(x, w, dilation=2), w, dilation=2)[..., 0, 0], want["dx_dil"])
        close(conv_transpose(conv(x, w, pad=1), w, pad=1)[..., 0, 0], want["dx_pad"])


def test_conv_sizes_of_nnlib():
    x, w, w1 = rand(10, 10, 3, 10), rand(2, 2, 3, 16), rand(3, 4, 3, 16)
    assert conv(x, w).shape == (9, 9, 16, 10)
    assert conv(x, w, stride=(2, 2), pad=(2, 2)).shape == (7, 7, 16, 10)
    assert conv(x, w1, stride=(1, 2), pad=(2, 3)).shape == (12, 7, 16, 10)
    assert conv(x, w, stride=(1, 2), pad=(2, 3), dilation=(2, 2)).shape == (12, 7, 16, 10)
    assert conv(x, w, stride=(1, 2), pad=(2, 3), dilation=(2, 2), flipped=True).shape == (12, 7, 16, 10)
    w, w1 = rand(2, 2, 3, 3), rand(3, 4, 3, 3)
    assert depthwiseconv(x, w).shape == (9, 9, 9, 10)
    assert depthwiseconv(x, w, stride=(2, 2), pad=(2, 2)).shape == (7, 7, 9, 10)
    assert depthwiseconv(x, w1, stride=(1, 2), pad=(2, 3)).shape == (12, 7, 9, 10)
    assert depthwiseconv(x, w1, stride=(1, 2), pad=(2, 3), dilation=(2, 2), flipped=True).shape == (10, 5, 9, 10)
    assert conv(randn(5, 4, 1, 1), randn(1, 2, 1, 1), pad=(1, 2, 3, 4)).shape[:2] == (8, 10)


def test_groups_are_convolutions_side_by_side():
    x, w = images(6, 6, 20, 2), images(3, 3, 4, 15)
    y, (dx, dw) = withgradient(lambda x, w: (conv(x, w, groups=5) ** 2).sum(), x, w)
    total = torch.zeros(())
    for i in range(5):
        a, b = x[:, :, 4 * i : 4 * i + 4], w[..., 3 * i : 3 * i + 3]
        part, (da, db) = withgradient(lambda a, b: (conv(a, b) ** 2).sum(), a, b)
        total = total + part
        close(dx[:, :, 4 * i : 4 * i + 4], da, rtol=1e-4, atol=1e-4)
        close(dw[..., 3 * i : 3 * i + 3], db, rtol=1e-4, atol=1e-4)
    close(y, total)


def test_depthwise_results_of_a_channel_follow_each_other():
    x, w = images(6, 5, 3, 2, dtype=torch.float64), images(2, 3, 4, 3, dtype=torch.float64)
    y = depthwiseconv(x, w, stride=(1, 2), pad=(1, 0), dilation=(2, 1))
    for c in range(3):
        for m in range(4):
            alone = conv(x[:, :, c : c + 1], w[:, :, m : m + 1, c : c + 1], stride=(1, 2), pad=(1, 0), dilation=(2, 1))
            close(y[:, :, 4 * c + m], alone[:, :, 0])


def plainly(x, w, s, d, begin, end):
    """A convolution as it is defined, on lists."""
    x = [0.0] * begin + x + [0.0] * end
    reach = (len(w) - 1) * d
    return [sum(x[i + reach - k * d] * w[k] for k in range(len(w))) for i in range(0, len(x) - reach, s)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_one_axis_by_definition(data):
    whole = lambda a, b: data.draw(st.integers(a, b))  # noqa: E731
    n, k, s, d, begin, end = whole(1, 9), whole(1, 4), whole(1, 3), whole(1, 3), whole(0, 4), whole(0, 4)
    x, w = torch.randn(n, 1, 1, dtype=torch.float64), torch.randn(k, 1, 1, dtype=torch.float64)
    kws = {"stride": s, "dilation": d, "pad": (begin, end)}
    if n + begin + end <= (k - 1) * d:
        with pytest.raises(DimensionMismatch, match=f"a window of {(k - 1) * d + 1} doesn't fit into axis 0"):
            conv(x, w, **kws)
        return
    y = conv(x, w, **kws)
    close(y.flatten(), plainly(x.flatten().tolist(), w.flatten().tolist(), s, d, begin, end))
    # The transposed convolution is the adjoint of the convolution.
    v = torch.randn_like(y)
    left = n + begin + end - 1 - (k - 1) * d - (len(y) - 1) * s
    back = conv_transpose(v, w, outpad=left, **kws)
    assert back.shape == x.shape
    close((back * x).sum(), (v * y).sum())


# -- layers against torch.nn ---------------------------------------------------------------------------

SPECS = [
    {},
    {"stride": 2},
    {"stride": (2, 1, 3)},
    {"dilation": 2},
    {"dilation": (1, 2, 1), "stride": (2, 2, 1)},
    {"pad": 1},
    {"pad": (1, 0, 2)},
    {"pad": (2, 0, 1, 3, 0, 1)},
    {"pad": SamePad()},
    {"pad": SamePad(), "stride": 2, "dilation": (2, 1, 1)},
    {"groups": 2},
    {"groups": 2, "pad": (0, 1, 1, 0, 2, 2), "stride": 2},
    {"bias": False},
    {"bias": False, "pad": (0, 1, 1, 0, 2, 2)},
    {"σ": tanh},
    {"σ": relu, "groups": 2, "stride": (1, 2, 1), "pad": 1},
]
KERNEL = (3, 2, 4)


def cut(spec, n):
    """A spec for three axes, for the first `n`."""
    short = {key: v[: len(v) * n // 3] if isinstance(v, tuple) else v for key, v in spec.items()}
    return short, (short.pop("σ"),) if "σ" in short else ()


def each(x, n):
    return x if isinstance(x, tuple) else (x,) * n


def with_borders(pad, n):
    return each(pad, 2 * n) if len(each(pad, 2 * n)) == 2 * n else tuple(p for p in pad for _ in range(2))


def compare(layer, module, before, after, x):
    """The layer and torch's module agree: in what they give, and in every gradient."""
    y = layer(x)
    u = torch.randn_like(y)
    xr = rev(x).detach().clone().requires_grad_()
    yr = layer.σ(after(module(before(xr))))
    close(y, rev(yr), rtol=1e-5, atol=1e-5)
    (yr * rev(u)).sum().backward()
    dm, dx = gradient(lambda m, x: (m(x) * u).sum(), layer, x)
    close(dx, rev(xr.grad), rtol=1e-5, atol=1e-5)
    dw = rev(module.weight.grad)
    n = dw.ndim - 2
    close(dm.weight, dw if isinstance(layer, CrossCor) else dw.flip(tuple(range(n))), rtol=1e-4, atol=1e-4)
    if layer.bias is False:
        assert dm.bias is None
    else:
        close(dm.bias, module.bias.grad, rtol=1e-5, atol=1e-4)
    others = [name for name in list(dm.keys()) if name not in ("weight", "bias")]
    assert all(dm[name] is None for name in others)
    assert layer.weight.grad is None


def load(module, layer):
    n = layer.weight.ndim - 2
    kernel = layer.weight if isinstance(layer, CrossCor) else layer.weight.flip(tuple(range(n)))
    with torch.no_grad():
        module.weight.copy_(rev(kernel))
        if layer.bias is not False:
            layer.bias.copy_(torch.randn_like(layer.bias))
            module.bias.copy_(layer.bias)
    return module


BOTH = [(kind, spec) for spec in SPECS for kind in (Conv, CrossCor) if kind is Conv or "groups" not in spec]


@pytest.mark.parametrize(("kind", "spec"), BOTH, ids=range(len(BOTH)))
@pytest.mark.parametrize("n", [1, 2, 3])
def test_conv_is_torch_s(kind, n, spec):
    kws, σ = cut(spec, n)
    layer = kind(KERNEL[:n], 4 | to | 6, *σ, **kws)
    options = {name: each(getattr(layer, name), n)[::-1] for name in ("stride", "dilation")}
    module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[n - 1](
        4, 6, KERNEL[:n][::-1], groups=kws.get("groups", 1), bias=layer.bias is not False, **options
    )
    before = lambda x: F.pad(x, with_borders(layer.pad, n))  # noqa: E731
    compare(layer, load(module, layer), before, lambda y: y, images(*(7, 8, 9)[:n], 4, 2))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "spec", [*SPECS, {"outpad": 1, "stride": 2}, {"outpad": (0, 1, 2), "stride": 3, "pad": 1}], ids=str
)
def test_conv_transpose_is_torch_s(n, spec):
    kws, σ = cut(spec, n)
    layer = ConvTranspose(KERNEL[:n], 4 | to | 6, *σ, **kws)
    module = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[n - 1](
        4,
        6,
        KERNEL[:n][::-1],
        stride=layer.stride[::-1],
        dilation=layer.dilation[::-1],
        groups=layer.groups,
        bias=layer.bias is not False,
        output_padding=layer.outpad[::-1],
    )
    pad = with_borders(layer.pad, n)
    compare(
        layer, load(module, layer), lambda x: x, lambda y: F.pad(y, [-p for p in pad]), images(*(3, 4, 3)[:n], 4, 2)
    )


def test_outpad_beyond_the_stride_adds_zeros_and_bias():
    layer = ConvTranspose(torch.ones(2, 1, 1), torch.tensor([5.0]), outpad=2)
    close(layer(torch.tensor([1.0, 2.0]).reshape(2, 1, 1)).detach().flatten(), [6.0, 8.0, 7.0, 5.0, 5.0])
    # What pad takes away comes back first.
    layer = ConvTranspose(torch.ones(2, 1, 1), False, outpad=2, pad=(1, 1))
    close(layer(torch.tensor([1.0, 2.0]).reshape(2, 1, 1)).detach().flatten(), [3.0, 2.0, 0.0])


@pytest.mark.parametrize("kind", [Conv, CrossCor, ConvTranspose])
def test_second_derivatives(kind):
    m = f64(kind((2, 3), 2 | to | 2, tanh, stride=(1, 2), pad=(1, 0, 1, 1), dilation=(2, 1)))
    x = images(3, 4, 2, 1, dtype=torch.float64)
    options = {k: getattr(m, k) for k in ("stride", "pad", "dilation", "outpad") if hasattr(m, k)}
    options |= {"flipped": True} if kind is CrossCor else {}
    f = conv_transpose if kind is ConvTranspose else conv

    def call(x, w, b):
        return f(x, w, b, **options).tanh()

    inputs = [v.detach().clone().requires_grad_() for v in (x, m.weight, m.bias)]
    assert torch.autograd.gradcheck(call, inputs)
    assert torch.autograd.gradgradcheck(call, inputs)
    once = lambda x: (gradient(lambda x: (m(x) ** 2).sum(), x)[0] ** 2).sum()  # noqa: E731
    inner = inputs[0]
    slope = torch.autograd.grad((m(inner) ** 2).sum(), inner, create_graph=True)[0]
    close(gradient(once, x)[0], torch.autograd.grad((slope**2).sum(), inner)[0])


# -- Flux's own examples ---------------------------------------------------------------------------------


def test_examples_of_the_manual():
    xs = rand32(100, 100, 3, 2)
    layer = Conv((2, 2), 3 | to | 7, pad=SamePad())
    assert repr(layer) == "Conv((2, 2), 3 => 7, pad=(1, 0, 1, 0))  # 91 parameters"
    assert layer(xs).shape == (100, 100, 7, 2)
    assert Conv((2, 2), 3 | to | 7)(xs).shape == (99, 99, 7, 2)
    layer = Conv((5, 5), 3 | to | 7, stride=2, pad=SamePad())
    assert repr(layer) == "Conv((5, 5), 3 => 7, pad=2, stride=2)  # 532 parameters"
    assert layer(xs).shape == (50, 50, 7, 2)
    layer = Conv((5, 5), 3 | to | 7, relu, bias=False)
    assert repr(layer) == "Conv((5, 5), 3 => 7, relu, bias=false)  # 525 parameters"
    assert layer(xs).shape == (96, 96, 7, 2)
    assert Conv((5, 5), 3 | to | 7, stride=2)(xs).shape == (48, 48, 7, 2)
    assert Conv((1, 1), 3 | to | 7, pad=(20, 10, 0, 0))(xs).shape == (130, 100, 7, 2)
    assert Conv((5, 5), 3 | to | 7, stride=2, dilation=4)(xs).shape == (42, 42, 7, 2)
    layer = ConvTranspose((5, 5), 3 | to | 7, relu)
    assert repr(layer) == "ConvTranspose((5, 5), 3 => 7, relu)  # 532 parameters"
    assert layer(xs).shape == (104, 104, 7, 2)
    assert ConvTranspose((5, 5), 3 | to | 7, stride=2)(xs).shape == (203, 203, 7, 2)
    assert ConvTranspose((5, 5), 3 | to | 7, stride=2, outpad=1)(xs).shape == (204, 204, 7, 2)
    assert ConvTranspose((5, 5), 3 | to | 7, stride=3, pad=SamePad())(xs).shape == (300, 300, 7, 2)
    layer = DepthwiseConv((5, 5), 3 | to | 6, relu, bias=False)
    assert repr(layer) == "Conv((5, 5), 3 => 6, relu, groups=3, bias=false)  # 150 parameters"
    assert layer(xs).shape == (96, 96, 6, 2)
    assert DepthwiseConv((5, 5), 3 | to | 9, stride=2, pad=2)(xs).shape == (50, 50, 9, 2)
    layer = CrossCor((5, 5), 3 | to | 6, relu, bias=False)
    assert repr(layer) == "CrossCor((5, 5), 3 => 6, relu, bias=false)  # 450 parameters"
    assert layer(xs).shape == (96, 96, 6, 2)
    assert CrossCor((5, 5), 3 | to | 7, stride=3, pad=(2, 0))(xs).shape == (34, 32, 7, 2)


def test_given_arrays():
    weight = rand(3, 4, 5)
    layer = Conv(weight, zeros(5), sigmoid)
    assert repr(layer) == "Conv((3,), 4 => 5, σ)  # 65 parameters"
    assert layer(randn(100, 4, 64)).shape == (98, 5, 64)
    assert len(params(layer)) == 2
    assert layer.weight is weight
    layer = ConvTranspose(weight, zeros(4), sigmoid)
    assert repr(layer) == "ConvTranspose((3,), 5 => 4, σ)  # 64 parameters"
    assert layer(randn(100, 5, 64)).shape == (102, 4, 64)
    assert len(params(layer)) == 2
    layer = CrossCor(rand(3, 4, 5), zeros(5), relu)
    assert repr(layer) == "CrossCor((3,), 4 => 5, relu)  # 65 parameters"
    assert layer(randn(100, 4, 64)).shape == (98, 5, 64)
    # As a list, and whole numbers.
    layer = Conv([[[1]], [[10]]], False)
    close(layer(torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)).detach().flatten(), [12.0, 23.0])


def test_bias_of_ones():
    layer = Conv(ones32(2, 2, 1, 3), ones32(3))
    y = layer(zeros32(28, 28, 1, 1))
    assert y.sum() == y.numel()


@pytest.mark.parametrize("move", [identity, f32, f64], ids=["identity", "f32", "f64"])
def test_no_bias(move):
    layer = move(Conv((2, 2), 1 | to | 3, bias=False))
    x = zeros32(28, 28, 1, 1)
    assert layer.bias is False and layer(x).sum() == 0
    ps = params(layer)
    assert list(ps) == [layer.weight]
    gs = gradient(lambda: layer(x).sum(), ps)
    close(gs[layer.weight], torch.zeros(2, 2, 1, 3))
    # What only a bias could learn is not learned.
    target = 2 * ones32(27, 27, 3, 1)
    for _ in range(5):
        g = gradient(lambda: ((layer(x) - target) ** 2).mean(), ps)[layer.weight]
        layer.weight -= 0.1 * g
    assert ((layer(x) - target) ** 2).mean() == 4


def test_cnn():
    m = Chain(
        Conv((2, 2), 1 | to | 16, relu),
        MaxPool((2, 2)),
        Conv((2, 2), 16 | to | 8, relu),
        MaxPool((2, 2)),
        flatten,
        Dense(288, 10),
        softmax,
    )
    assert m(zeros32(28, 28, 1, 5)).shape == (10, 5)
    assert (
        repr(m)
        == """Chain(
  Conv((2, 2), 1 => 16, relu),          # 80 parameters
  MaxPool((2, 2)),
  Conv((2, 2), 16 => 8, relu),          # 520 parameters
  MaxPool((2, 2)),
  flatten,
  Dense(288 => 10),                     # 2_890 parameters
  softmax,
)                   # Total: 6 arrays, 3_490 parameters, 13.633 KiB."""
    )


def test_grouped_sizes():
    for k, size, want in (
        ((3,), (28,), (26,)),
        ((3, 3), (28, 28), (26, 26)),
        ((3, 4, 5), (10, 11, 12), (8, 8, 8)),
    ):
        layer = Conv(k, 100 | to | 25, groups=5)
        assert layer.weight.shape == (*k, 20, 25)
        assert layer(rand32(*size, 100, 2)).shape == (*want, 25, 2)


def test_asymmetric_padding():
    layer = Conv((3, 3), 1 | to | 1, relu, pad=(0, 1, 1, 2))
    layer.weight[...] = 1.0
    layer.bias[...] = 0.0
    y = layer(ones32(28, 28, 1, 1))[:, :, 0, 0]
    assert y.shape == (27, 29)
    found = y[0, 0], y[1, 1], y[-1, 0], y[0, -1], y[0, -2], y[-1, -1]
    assert [v.item() for v in found] == [6.0, 9.0, 4.0, 3.0, 6.0, 2.0]


def test_window_that_is_no_square():
    x = zeros32(7, 7, 1, 1)
    x[3, 3, 0, 0] = 1
    for k, where in (((3, 3), (slice(1, -1),) * 2), ((3, 1), (slice(1, -1), 3)), ((1, 3), (3, slice(1, -1)))):
        layer = Conv(k, 1 | to | 1)
        y = layer(x)[:, :, 0, 0]
        want = torch.zeros_like(y)
        want[where] = layer.weight[:, :, 0, 0].squeeze()
        close(y, want)
    assert Conv((6, 1), 1 | to | 1, sigmoid)(rand32(10, 10, 1, 1)).shape == (5, 10, 1, 1)


def test_cross_correlation():
    x, w = rand32(28, 28, 1, 1), rand32(2, 2, 1, 1)
    layer = CrossCor(w, [0.0])
    close(layer(x)[0, 0, 0, 0], (w * x[:2, :2]).sum(), rtol=1e-6, atol=0)
    flipped = Conv(w.flip(0, 1), [0.0])
    close(layer(x), flipped(x))
    assert not torch.allclose(layer(x), Conv(w, [0.0])(x))


def test_depthwise():
    x = rand32(28, 28, 3, 5)
    assert DepthwiseConv((2, 2), 3 | to | 15)(x).shape == (27, 27, 15, 5)
    assert DepthwiseConv((2, 3), 3 | to | 9)(x).shape == (27, 26, 9, 5)
    layer = DepthwiseConv((2, 3), 3 | to | 9, bias=False)
    assert layer.bias is False and layer(x).shape == (27, 26, 9, 5)
    close(layer(x), depthwiseconv(x, layer.weight.reshape(2, 3, 3, 3).transpose(2, 3)))
    with pytest.raises(ValueError, match="Output channel dimension must be divisible by groups: 10 by 3"):
        DepthwiseConv((2, 2), 3 | to | 10)


def test_depthwise_of_given_weights():
    # Flux reads the two last axes as one, column-major, with as many groups as the last but one is long.
    w = rand32(3, 2, 4)
    layer = DepthwiseConv(w)
    assert str(layer) == "Conv((3,), 2 => 8, groups=2)"
    for j in range(8):
        close(layer.weight[:, 0, j], w[:, j % 2, j // 2])
    w = rev(torch.rand(6, 5, 4, 3, 2))
    layer = DepthwiseConv(w, rand(30))
    assert layer.weight.data_ptr() == w.data_ptr()
    assert layer.bias.shape == (30,) and layer.bias.dtype == torch.float32


@pytest.mark.parametrize("kind", [Conv, CrossCor, ConvTranspose])
def test_the_keyword_weight_of_flux_0_11_and_0_12(kind):
    w, b = rand32(3, 2, 2), rand32(2)
    want = kind(w, b, tanh, stride=2)
    for m in (
        kind(weight=w, bias=b, activation=tanh, stride=2),
        kind((3,), 2 | to | 2, tanh, weight=w, bias=b, stride=2),
    ):
        assert m.weight is w and m.bias is b and str(m) == str(want)
        x = images(7, 2, 3)
        close(m(x), want(x))
    assert kind(weight=w, bias=False).bias is False and kind(weight=w).bias.tolist() == [0, 0]


def test_depthwise_of_older_flux():
    # Flux 0.8: as many channels out as in, if it is one number.
    assert str(DepthwiseConv((2, 3), 3, relu)) == "Conv((2, 3), 3 => 3, relu, groups=3)"
    # Flux ≤ 0.12: the last axis of the weight is `in`, and the results of a channel follow each other.
    w, x = depthwiseconvfilter((3, 2), 2 | to | 6), images(6, 5, 2, 3)
    for m in (
        DepthwiseConv(weight=w, bias=False, stride=2),
        DepthwiseConv((3, 2), 2 | to | 6, weight=w, bias=False, stride=2),
    ):
        assert str(m) == "Conv((3, 2), 2 => 6, stride=2, groups=2, bias=false)"
        close(m(x), depthwiseconv(x, w, stride=2))


def test_transposed():
    x = zeros32(5, 5, 1, 1)
    y = Conv((3, 3), 1 | to | 1)(x)
    assert (
        ConvTranspose((3, 3), 1 | to | 1)(y).shape == ConvTranspose((3, 3), 1 | to | 1, bias=False)(y).shape == x.shape
    )
    x = images(10, 10, 2, 3)
    m1, m2 = (ConvTranspose((3, 3), 2 | to | 4, pad=SamePad(), groups=g) for g in (1, 2))
    assert m1.weight.shape == (3, 3, 4, 2) and m2.weight.shape == (3, 3, 2, 2)
    assert m1(x).shape == m2(x).shape == (10, 10, 4, 3)
    gs = gradient(lambda: m2(x).sum(), params(m2))
    close(gs[m2.bias], torch.full((4,), 300.0))
    for k, size, ch, g in (
        ((3,), (10,), 2 | to | 4, 2),
        ((3, 5), (10, 11), 4 | to | 4, 4),
        ((3, 5, 3), (10, 11, 12), 3 | to | 6, 3),
    ):
        m = ConvTranspose(k, ch, pad=SamePad(), groups=g)
        assert m(images(*size, ch[0], 2)).shape == (*size, ch[1], 2)
        assert m.weight.numel() == math.prod(k) * ch[0] * ch[1] // g
    assert str(ConvTranspose((3, 3), 2 | to | 4, groups=2)) == "ConvTranspose((3, 3), 2 => 4, groups=2)"


def test_outpad():
    x = images(10, 11, 3, 2)
    assert ConvTranspose((3, 5), 3 | to | 6, stride=3)(x).shape[:2] == (30, 35)
    assert ConvTranspose((3, 5), 3 | to | 6, stride=3, outpad=(1, 0))(x).shape[:2] == (31, 35)
    x = images(5, 6, 7, 3, 2)
    one, two = (ConvTranspose((3, 5, 3), 3 | to | 6, stride=3, **kws)(x) for kws in ({}, {"outpad": (1, 0, 1)}))
    assert [b - a for a, b in zip(one.shape, two.shape, strict=True)] == [1, 0, 1, 0, 0]


@pytest.mark.parametrize("kind", CONVS)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_pad_of_each_axis(kind, n):
    x, pad = ones32(*(8,) * n, 1, 1), tuple(range(1, n + 1))
    m = kind((3,) * n, 1 | to | 1, pad=pad)
    both = kind(m.weight, m.bias, pad=tuple(p for p in pad for _ in range(2)))
    assert m.pad == pad
    close(m(x), both(x))


@pytest.mark.parametrize("kind", CONVS)
@pytest.mark.parametrize("k", [(1,), (2,), (3,), (4, 5), (6, 7, 8)])
def test_same_pad(kind, k):
    size = tuple(a + 3 for a in k)
    x = ones32(*size, 1, 1)
    assert kind(k, 1 | to | 1, pad=SamePad())(x).shape == x.shape
    assert kind(k, 1 | to | 1, pad=SamePad(), dilation=tuple(a // 2 for a in k))(x).shape == x.shape
    y = kind(k, 1 | to | 1, pad=SamePad(), stride=3)(x)
    assert y.shape[:-2] == tuple(3 * a if kind is ConvTranspose else -(-a // 3) for a in size)
    if kind is not ConvTranspose:
        y = (MaxPool if kind is Conv else MeanPool)(k, pad=SamePad())(x)
        assert y.shape[:-2] == tuple(-(-a // b) for a, b in zip(size, k, strict=True))


def test_same_pad_of_a_transpose_wider_than_its_window():
    # Nothing reaches the places between: Flux pads by a negative number there.
    m = ConvTranspose(torch.tensor([2.0]).reshape(1, 1, 1), torch.tensor([1.0]), stride=3, pad=SamePad())
    assert m.pad == (-1, -1)
    close(m(torch.tensor([1.0, 5.0]).reshape(2, 1, 1)).detach().flatten(), [1.0, 3.0, 1.0, 1.0, 11.0, 1.0])


@pytest.mark.parametrize(
    ("m", "given", "want"),
    [
        (Conv((3, 3), 3 | to | 16), (10, 10, 3, 1), (8, 8, 16, 1)),
        (Conv((3, 3), 3 | to | 16, stride=2), (5, 5, 3, 1), (2, 2, 16, 1)),
        (Conv((3, 3), 3 | to | 16, stride=2, pad=3), (5, 5, 3, 1), (5, 5, 16, 1)),
        (Conv((3, 3), 3 | to | 16, stride=2, pad=3, dilation=2), (5, 5, 3, 9), (4, 4, 16, 9)),
        (ConvTranspose((3, 3), 3 | to | 16), (8, 8, 3, 1), (10, 10, 16, 1)),
        (ConvTranspose((3, 3), 3 | to | 16, stride=2), (2, 2, 3, 1), (5, 5, 16, 1)),
        (ConvTranspose((3, 3), 3 | to | 16, stride=2, pad=3), (5, 5, 3, 1), (5, 5, 16, 1)),
        (ConvTranspose((3, 3), 3 | to | 16, stride=2, pad=3, dilation=2), (4, 4, 3, 1), (5, 5, 16, 1)),
        (DepthwiseConv((3, 3), 3 | to | 6, stride=2, pad=3, dilation=2), (5, 5, 3, 1), (4, 4, 6, 1)),
        (CrossCor((3, 3), 3 | to | 16, stride=2, pad=3, dilation=2), (5, 5, 3, 1), (4, 4, 16, 1)),
        (MaxPool((2, 2)), (10, 10, 3, 1), (5, 5, 3, 1)),
        (MaxPool((2, 2), stride=1), (5, 5, 4, 1), (4, 4, 4, 1)),
        (MaxPool((2, 2), stride=2, pad=3), (5, 5, 2, 1), (5, 5, 2, 1)),
        (MeanPool((2, 2), stride=1), (5, 5, 4, 1), (4, 4, 4, 1)),
        (MeanPool((2, 2), stride=2, pad=3), (5, 5, 2, 1), (5, 5, 2, 1)),
    ],
    ids=str,
)
def test_sizes(m, given, want):
    assert m(rand32(*given)).shape == want


# -- arrays of the layers --------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Layer with Float32 parameters got Float64 input")
def test_element_types():
    assert Conv((5, 5), 10 | to | 20, identity, init=randn).bias.dtype == torch.float64
    for kind in CONVS:
        assert kind(rand(2, 3, 4)).bias.dtype == torch.float64
        assert kind(rand(2, 3, 4, 5), False).bias is False
        with pytest.raises(DimensionMismatch, match="expected bias of size"):
            kind(rand(2, 3, 4), rand(6))
    layer = Conv(rand(2, 3, 4, 5, 6), list(range(1, 7)))
    close(layer.bias, torch.arange(1.0, 7.0))
    assert layer.bias.dtype == torch.float64
    for layer in (
        Conv((3,), 2 | to | 4, relu),
        CrossCor((3,), 2 | to | 1, relu),
        ConvTranspose((3,), 2 | to | 4, relu),
    ):
        x = rand(10, 2, 5)
        assert x.dtype == torch.float64 and layer(x).dtype == torch.float32
        close(layer(x), layer(x.float()))
        whole = torch.randint(-3, 4, (10, 2, 5))
        close(layer(whole), layer(whole.float()))
        close(layer(whole.tolist()), layer(whole.float()))
        assert copy.deepcopy(layer).to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", [Conv, CrossCor, ConvTranspose])
def test_complex_input(kind):
    m, z = kind((2, 2), 1 | to | 2, bias=[1.0, 2.0]), torch.randn(3, 3, 1, 2, dtype=torch.complex64)
    alone = kind(m.weight, False)
    close(m(z), torch.complex(m(z.real), alone(z.imag)))


def test_mixed_types_promote():
    x, w = images(4, 4, 2, 2), images(2, 2, 1, 4, dtype=torch.float64)
    y = conv(x, w, groups=2)
    assert y.dtype == torch.float64
    close(y, conv(x.double(), w, groups=2))
    close(conv_transpose(x, w[..., :2]), conv_transpose(x.double(), w[..., :2]))
    z, ones_ = torch.randn(4, 2, 1, dtype=torch.complex64), torch.ones(2, 2, 1)
    y = conv(z, ones_)
    assert y.dtype == torch.complex64
    close(y, torch.complex(conv(z.real, ones_), conv(z.imag, ones_)))
    x = rev(torch.arange(1.0, 5.0) + 1j * torch.arange(2.0, 6.0)).reshape(1, 4, 1)
    w = rev(torch.arange(3.0, 7.0) + 1j * torch.arange(4.0, 8.0)).reshape(1, 4, 1)
    close(conv(x, w).flatten(), (x * w).sum().reshape(1))


def test_filters():
    assert convfilter((3,), 4 | to | 8).shape == (3, 4, 8)
    assert convfilter((3, 3), 4 | to | 8, groups=2).shape == (3, 3, 2, 8)
    assert depthwiseconvfilter((3, 3), 4 | to | 8).shape == (3, 3, 2, 4)
    close(convfilter((2, 2), 1 | to | 3, init=ones), ones(2, 2, 1, 3))
    close(depthwiseconvfilter((2,), 3 | to | 3, init=ones), ones(2, 1, 3))
    for f in (convfilter, depthwiseconvfilter):
        with pytest.raises(TypeError, match=f"{f.__name__} expects a pair of channels"):
            f((2, 2), 3)
        with pytest.raises(TypeError, match=f"{f.__name__} expects a tuple of whole numbers for its window"):
            f(3, 3 | to | 3)
    with pytest.raises(ValueError, match="Output channel dimension must be divisible"):
        depthwiseconvfilter((2,), 3 | to | 4)


def test_fields_and_old_names():
    layer = Conv((3, 3), 2 | to | 4, relu, stride=(1, 2), pad=(1, 0), dilation=2, groups=2)
    assert list(children(layer).keys()) == ["σ", "weight", "bias", "stride", "pad", "dilation", "groups"]
    assert list(children(ConvTranspose((2,), 1 | to | 1)).keys())[4:6] == ["pad", "outpad"]
    assert (layer.σ, layer.stride, layer.pad, layer.dilation, layer.groups) == (relu, (1, 2), (1, 0), (2, 2), 2)
    assert layer.W is layer.weight and layer.b is layer.bias
    assert list(layer.state_dict()) == ["weight", "bias"]
    assert [type(p) for p in layer.parameters()] == [type(layer.weight)] * 2
    x = images(8, 8, 2, 1)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), f32(f64(layer))):
        assert str(other) == str(layer) and other.weight is not layer.weight
        close(other(x), layer(x))
    fresh = Conv((3, 3), 2 | to | 4, relu, stride=(1, 2), pad=(1, 0), dilation=2, groups=2)
    fresh.load_state_dict(layer.state_dict())
    close(fresh(x), layer(x))
    assert layer.to(torch.float64).bias.dtype == torch.float64


def test_a_layer_made_inside_gradient():
    x, w = images(5, 2, 1), rand32(3, 2, 1)
    for kind, want in ((Conv, conv), (CrossCor, lambda x, w: conv(x, w, flipped=True))):
        close(
            gradient(lambda w, kind=kind: (kind(w, False)(x) ** 2).sum(), w)[0],
            gradient(lambda w, want=want: (want(x, w) ** 2).sum(), w)[0],
        )


@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
def test_numbers_of_channels(kind):
    for k, ch, groups in (
        ((3,), 2 | to | 4, 1),
        ((5, 6), 2 | to | 4, 2),
        ((1, 2, 3), 3 | to | 6, 3),
        ((6,), 8 | to | 4, 4),
        ((3, 2), 10 | to | 15, 5),
    ):
        m = kind(k, ch, groups=groups)
        assert f"{k}, {ch[0]} => {ch[1]}" in str(m)
        last = (ch[1] // groups, ch[0]) if kind is ConvTranspose else (ch[0] // groups, ch[1])
        assert m.weight.shape == (*k, *last) and m.bias.shape == (ch[1],)
        assert m(rand32(*(7,) * len(k), ch[0], 1)).shape[-2:] == (ch[1], 1)


# -- printing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "want"),
    [
        (Conv((3,), 1 | to | 2), "Conv((3,), 1 => 2)"),
        (Conv((2, 3), 4 | to | 5, pad=6, stride=7), "Conv((2, 3), 4 => 5, pad=6, stride=7)"),
        (Conv((2, 2), 1 | to | 1, sigmoid, pad=(1, 0)), "Conv((2, 2), 1 => 1, σ, pad=(1, 0))"),
        (Conv((2, 2), 1 | to | 1, pad=(1, 1)), "Conv((2, 2), 1 => 1, pad=1)"),
        (
            Conv((2, 2), 1 | to | 1, stride=(1, 2), dilation=(2, 1)),
            "Conv((2, 2), 1 => 1, stride=(1, 2), dilation=(2, 1))",
        ),
        (
            Conv((1, 1), 4 | to | 8, tanh, pad=(1, 2, 3, 4), stride=2, dilation=3, groups=2, bias=False),
            "Conv((1, 1), 4 => 8, tanh, pad=(1, 2, 3, 4), stride=2, dilation=3, groups=2, bias=false)",
        ),
        (CrossCor((3, 3, 3), 1 | to | 2, relu, bias=False), "CrossCor((3, 3, 3), 1 => 2, relu, bias=false)"),
        (ConvTranspose((3,), 1 | to | 2, stride=2, outpad=1), "ConvTranspose((3,), 1 => 2, stride=2, outpad=(1,))"),
        (
            ConvTranspose((3, 3), 2 | to | 4, relu, stride=2, outpad=(1, 0), groups=2, bias=False),
            "ConvTranspose((3, 3), 2 => 4, relu, stride=2, groups=2, bias=false, outpad=(1, 0))",
        ),
        (MaxPool((2, 3)), "MaxPool((2, 3))"),
        (MaxPool((2, 2), stride=2), "MaxPool((2, 2))"),
        (MaxPool((5,), pad=2, stride=(3,)), "MaxPool((5,), pad=2, stride=3)"),
        (MeanPool((5, 5), pad=SamePad(), stride=(1, 2)), "MeanPool((5, 5), pad=2, stride=(1, 2))"),
        (MeanPool((2, 2), pad=SamePad()), "MeanPool((2, 2), pad=(1, 0, 1, 0))"),
    ],
)
def test_printing(layer, want):
    assert str(layer) == want
    counts = sum(p.numel() for p in params(layer))
    assert repr(layer) == (f"{want}  # {counts} parameters" if counts else want)


def test_printing_in_a_chain():
    m = Chain(Conv((5, 5), 3 | to | 7, pad=SamePad()), MaxPool((5, 5), pad=SamePad()))
    assert (
        repr(m)
        == """Chain(
  Conv((5, 5), 3 => 7, pad=2),          # 532 parameters
  MaxPool((5, 5), pad=2),
)"""
    )
    m = Chain(Conv((5, 5), 3 | to | 7), MeanPool((5, 5), pad=SamePad()))
    assert str(m) == "Chain(Conv((5, 5), 3 => 7), MeanPool((5, 5), pad=2))"
    assert repr(m).splitlines()[1:3] == [
        "  Conv((5, 5), 3 => 7),                 # 532 parameters",
        "  MeanPool((5, 5), pad=2),",
    ]
    m = Chain(ConvTranspose((3, 3), 2 | to | 4, relu, stride=2, outpad=(1, 0), groups=2), Conv(zeros32(1, 1, 4, 1)))
    assert (
        repr(m).splitlines()[1]
        == "  ConvTranspose((3, 3), 2 => 4, relu, stride=2, groups=2, outpad=(1, 0)),  # 40 parameters"
    )
    assert repr(m).splitlines()[2] == "  Conv((1, 1), 4 => 1),                 # 5 parameters  (all zero)"
    assert repr(SamePad()) == "SamePad()"


# -- bad input -----------------------------------------------------------------------------------------

WRONG = [
    (
        lambda: Conv(3, 3 | to | 7),
        TypeError,
        r"Conv expects a tuple of whole numbers for its window, as in \(3, 3\), and got 3",
    ),
    (lambda: Conv([3, 3], 3 | to | 7), TypeError, r"Conv expects a tuple .* got \[3, 3\]"),
    (lambda: DepthwiseConv([3, 3], 3 | to | 6), TypeError, r"expects a tuple .* got \[3, 3\]"),
    (lambda: Conv((3, True), 3 | to | 7), TypeError, "Conv expects a tuple of whole numbers"),
    (lambda: Conv((3, 1.0), 3 | to | 7), TypeError, "Conv expects a tuple of whole numbers"),
    (lambda: Conv((), 3 | to | 7), TypeError, "Conv expects a tuple of whole numbers"),
    (
        lambda: Conv((3, 0), 3 | to | 7),
        ValueError,
        r"a window of one to three numbers, each at least 1, and got \(3, 0\)",
    ),
    (lambda: CrossCor((-3, 3), 3 | to | 7), ValueError, "CrossCor expects a window"),
    (lambda: ConvTranspose((1, 1, 1, 1), 3 | to | 7), ValueError, "ConvTranspose expects a window of one to three"),
    (
        lambda: Conv((3, 3)),
        TypeError,
        r"Conv expects a window and a pair of channels, as in Conv\(\(3, 3\), 3 \|to\| 7\)",
    ),
    (lambda: DepthwiseConv((3, 3)), TypeError, "DepthwiseConv expects a window and a pair of channels"),
    (lambda: Conv((3, 3), 3, 7), TypeError, r"Conv expects a pair of channels, as in 3 \|to\| 7, and got 3"),
    (lambda: ConvTranspose((3, 3), 3), TypeError, "ConvTranspose expects a pair of channels"),
    (lambda: DepthwiseConv((3, 3), 3.0), TypeError, "DepthwiseConv expects a pair of channels"),
    (lambda: Conv(), TypeError, "Conv expects a window and a pair of channels"),
    (lambda: DepthwiseConv(), TypeError, "DepthwiseConv expects a window and a pair of channels"),
    (lambda: Conv(weight="W"), TypeError, 'Conv expects a tuple of whole numbers .* got "W"'),
    (lambda: DepthwiseConv((3,), 2, weight="W"), TypeError, 'Conv expects a tuple of whole numbers .* got "W"'),
    (lambda: Conv(torch.ones(2, 1, 1), [1.0], bias=False), TypeError, "Conv got a bias twice"),
    (lambda: Conv(weight=torch.ones(2, 1, 1), activation=3), TypeError, "Conv expects a function as its activation"),
    (lambda: Conv((3, 3), 3 | to | True), TypeError, "Conv expects its sizes to be whole numbers, and got true"),
    (lambda: Conv((3, 3), 3 | to | 7.0), TypeError, "Conv expects its sizes to be whole numbers, and got 7.0"),
    (lambda: Conv((3, 3), -3 | to | 7), ValueError, "Conv expects sizes of at least 0, and got -3"),
    (lambda: Conv((3, 3), 3 | to | 7, relu, 2), TypeError, "Conv got 1 argument too many: "),
    (lambda: Conv((3, 3), 3 | to | 7, "relu"), TypeError, 'Conv expects a function as its activation, and got "relu"'),
    (
        lambda: Conv((2, 2), 3 | to | 10, groups=2),
        ValueError,
        "Input channel dimension must be divisible by groups: 3 by 2",
    ),
    (
        lambda: Conv((2, 2), 2 | to | 9, groups=2),
        ValueError,
        "Output channel dimension must be divisible by groups: 9 by 2",
    ),
    (
        lambda: Conv(torch.ones(2, 2, 9), groups=2),
        ValueError,
        "Output channel dimension must be divisible by groups: 9 by 2",
    ),
    (lambda: ConvTranspose(torch.ones(2, 2, 9), groups=2), ValueError, "Input channel dimension must be divisible"),
    (lambda: Conv((2, 2), 2 | to | 9, groups=0), ValueError, "groups must be at least 1, and is 0"),
    (lambda: Conv((2, 2), 2 | to | 9, groups=True), TypeError, "groups must be a whole number, and is true"),
    (lambda: Conv(torch.ones(2, 2, 9), groups=None), TypeError, "groups must be a whole number"),
    (lambda: Conv((3, 3), 1 | to | 1, stride=0), ValueError, "stride must be at least 1, and is 0"),
    (lambda: Conv((3, 3), 1 | to | 1, stride=(1, -1)), ValueError, r"stride must be at least 1, and is \(1, -1\)"),
    (
        lambda: Conv((3, 3), 1 | to | 1, stride=True),
        TypeError,
        "stride must be a whole number, or one for each axis, and is True",
    ),
    (
        lambda: Conv((3, 3), 1 | to | 1, stride=(1, 2, 3)),
        DimensionMismatch,
        r"stride must have 2 numbers.* and is \(1, 2, 3\)",
    ),
    (lambda: Conv((3, 3), 1 | to | 1, dilation=0), ValueError, "dilation must be at least 1"),
    (lambda: Conv((3, 3), 1 | to | 1, dilation=-1), ValueError, "dilation must be at least 0"),
    (lambda: Conv((3, 3), 1 | to | 1, dilation=(1, 1.5)), TypeError, "dilation must be a whole number"),
    (lambda: Conv((3, 3), 1 | to | 1, pad=-1), ValueError, "pad must be at least 0, and is -1"),
    (
        lambda: Conv((3, 3), 1 | to | 1, pad=(1, 2, 3)),
        DimensionMismatch,
        "pad must have 2 numbers, or 4 for begin and end",
    ),
    (
        lambda: Conv((3, 3), 1 | to | 1, pad="same"),
        TypeError,
        "pad must be a whole number, or one for each axis, and is 'same'",
    ),
    (lambda: Conv((3, 3), 1 | to | 1, pad=(True, 1)), TypeError, "pad must be a whole number"),
    (lambda: ConvTranspose((3, 3), 1 | to | 1, outpad=-1), ValueError, "outpad must be at least 0, and is -1"),
    (lambda: Conv((3, 3), 1 | to | 2, bias=[1.0]), DimensionMismatch, r"expected bias of size \(2,\), got size \(1,\)"),
    (lambda: Conv((3, 3), 1 | to | 2, bias=None), TypeError, "bias must be True, False or an array"),
    (lambda: Conv(torch.ones(2, 2)), DimensionMismatch, "Conv expects weights with 3 to 5 axes, and got a 2×2 tensor"),
    (lambda: DepthwiseConv(torch.ones(2)), DimensionMismatch, "DepthwiseConv expects weights with 3 to 5 axes"),
    (lambda: MaxPool(2), TypeError, "MaxPool expects a tuple of whole numbers for its window"),
    (lambda: MaxPool([2, 2]), TypeError, "MaxPool expects a tuple of whole numbers for its window"),
    (lambda: MeanPool((2, 0)), ValueError, "MeanPool expects a window"),
    (lambda: MeanPool((2, 2), stride=(2,)), DimensionMismatch, "stride must have 2 numbers"),
    (lambda: MaxPool((2, 2), pad=(1, 2, 3)), DimensionMismatch, "pad must have 2 numbers"),
]


@pytest.mark.parametrize(("make", "error", "match"), WRONG, ids=range(len(WRONG)))
def test_wrong_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_wrong_inputs():
    layer = Conv((3, 3), 3 | to | 7)
    before = copy.deepcopy(layer.state_dict())
    x = rand32(8, 8, 3, 2)
    for bad, match in (
        (x[..., 0], r"layer Conv\(\(3, 3\), 3 => 7\) expects ndims\(input\) == 4, but got 8×8×3 tensor of float32"),
        (
            x[:, :, :2],
            r"layer Conv\(\(3, 3\), 3 => 7\) expects size\(input, 2\) == 3, but got 8×8×2×2 tensor of float32",
        ),
        (rev(x), r"expects size\(input, 2\) == 3"),
        (x[:2], "a window of 3 doesn't fit into axis 0 of a 2×8×3×2 tensor of float32 padded by 0 and 0"),
    ):
        with pytest.raises(DimensionMismatch, match=match):
            layer(bad)
        with pytest.raises(DimensionMismatch, match=match):
            gradient(lambda m, bad=bad: m(bad).sum(), layer)
    with pytest.raises(TypeError, match="expects an array as input, but got 'image'"):
        layer("image")
    assert layer(x).shape == (6, 6, 7, 2)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])
    grouped = Conv((3, 3), 4 | to | 4, groups=2)
    with pytest.raises(DimensionMismatch, match=r"expects size\(input, 2\) == 4"):
        grouped(x[:, :, :2])
    with pytest.raises(DimensionMismatch, match=r"ConvTranspose\(\(3,\), 2 => 4\) expects size\(input, 1\) == 2"):
        ConvTranspose((3,), 2 | to | 4)(rand32(8, 4, 1))
    with pytest.raises(DimensionMismatch, match="leaves nothing of the 4 along axis 0 of the result"):
        ConvTranspose((3,), 2 | to | 4, pad=2)(rand32(2, 2, 1))
    with pytest.raises(DimensionMismatch, match="a window of 5 doesn't fit into axis 1"):
        Conv((1, 3), 1 | to | 1, dilation=2)(rand32(4, 4, 1, 1))
    for pool in (MaxPool((2, 2)), MeanPool((2, 2))):
        with pytest.raises(DimensionMismatch, match=r"Pool\(\(2, 2\)\) expects ndims\(input\) == 4, but got 8×8×3"):
            pool(x[..., 0])
        with pytest.raises(DimensionMismatch, match="a window of 2 doesn't fit into axis 1"):
            pool(x[:, :1])


def test_wrong_arguments_of_the_functions():
    x, w = rand32(8, 3, 2), rand32(3, 3, 4)
    for call, error, match in (
        (lambda: conv(x, w[:, :2]), DimensionMismatch, "conv expects 2 channels, as its kernel has, and got a 8×3×2"),
        (lambda: conv(x, w[..., None]), DimensionMismatch, "as many axes in both arrays"),
        (lambda: conv(x[0], w), DimensionMismatch, "conv expects arrays of 1 to 3 spatial axes"),
        (lambda: conv("x", w), TypeError, "conv takes an array, but got 'x'"),
        (lambda: conv(x, w, pad=(1, 2, 3)), DimensionMismatch, "pad must have 1 numbers, or 2"),
        (lambda: conv_transpose(x, w), DimensionMismatch, "conv_transpose expects 4 channels"),
        (lambda: depthwiseconv(x, w), DimensionMismatch, "expects 4 channels"),
        (lambda: maxpool(x, (2, 2)), DimensionMismatch, "the window must have 1 numbers"),
        (lambda: meanpool(x, (2,), stride=0), ValueError, "stride must be at least 1"),
        (lambda: maxpool(x[0, 0], (2,)), DimensionMismatch, "maxpool expects arrays of 1 to 3 spatial axes"),
    ):
        with pytest.raises(error, match=match):
            call()


# -- memory layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("batch", [1, 3])
def test_layout_is_never_changed(n, channels, batch):
    x = images(*(9, 8, 7)[:n], channels, batch)
    assert rev(x).is_contiguous()
    k, ch = (3, 2, 2)[:n], channels | to | 4
    for m in (
        Conv(k, ch),
        Conv(k, ch, relu, pad=1, stride=2),
        Conv(k, ch, bias=False, pad=tuple(range(2 * n))),
        Conv(k, ch, groups=channels, dilation=2),
        Conv((1,) * n, ch),
        CrossCor(k, ch, tanh),
        ConvTranspose(k, ch, stride=2),
        ConvTranspose(k, ch, pad=(0, 1, 1, 0, 2, 1)[: 2 * n], groups=channels),
        MaxPool(k),
        MaxPool(k, pad=tuple(range(2 * n)), stride=1),
        MeanPool(k),
        MeanPool(k, pad=tuple(range(2 * n))),
    ):
        assert rev(m(x)).is_contiguous(), m
        if isinstance(m, (Conv, CrossCor, ConvTranspose)):
            assert rev(m.weight).is_contiguous(), m
            dm, dx = gradient(lambda m, x: (m(x) ** 2).sum(), m, x)
            assert rev(dx).is_contiguous() and rev(dm.weight).is_contiguous(), m


class Ops(TorchDispatchMode):
    """The names of the operations that torch runs."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__.split(".")[0])
        return func(*args, **(kwargs or {}))


def test_nothing_is_copied():
    x = images(9, 8, 4, 3)
    for m, want in (
        (Conv((3, 2), 4 | to | 4, pad=1), ["flip", "convolution"]),
        (Conv((1, 1), 4 | to | 4, bias=False), ["convolution"]),
        (CrossCor((3, 2), 4 | to | 4), ["convolution"]),
        (CrossCor((3, 2), 4 | to | 4, pad=(1, 0, 0, 0)), ["constant_pad_nd", "convolution"]),
        (ConvTranspose((3, 2), 4 | to | 4, stride=2, outpad=1), ["flip", "convolution"]),
        (MaxPool((2, 2), pad=1), ["max_pool2d_with_indices"]),
        (MeanPool((2, 2), pad=1), ["avg_pool2d"]),
    ):
        with torch.no_grad(), Ops() as ops:
            m(x)
        assert [name for name in ops.names if name != "permute"] == want


def test_compiles_in_one_piece():
    layers = (
        Conv((3, 2), 2 | to | 4, relu, pad=(1, 0, 1, 0)),
        MaxPool((2, 2), pad=(1, 0, 0, 0)),
        ConvTranspose((2, 2), 4 | to | 1, stride=2),
    )
    x = images(8, 8, 2, 2)
    with torch.no_grad():
        close(torch.compile(Chain(*layers), backend="eager", fullgraph=True)(x), Chain(*layers)(x))


# -- pooling -------------------------------------------------------------------------------------------

POOL_NUMBERS = {
    (maxpool, 1): {
        "y": [2, 4],
        "y_nostride": [2, 3, 4, 5],
        "y_pad": [1, 3, 5],
        "dx": [0, 2, 0, 4, 0],
        "dx_nostride": [0, 2, 3, 4, 5],
        "dx_pad": [1, 0, 3, 0, 5],
    },
    (maxpool, 2): {
        "y": [[7, 17], [9, 19]],
        "y_nostride": [[7, 12, 17], [8, 13, 18], [9, 14, 19], [10, 15, 20]],
        "y_pad": [[1, 11, 16], [3, 13, 18], [5, 15, 20]],
        "dx": [[0, 0, 0, 0], [0, 7, 0, 17], [0, 0, 0, 0], [0, 9, 0, 19], [0, 0, 0, 0]],
        "dx_nostride": [[0, 0, 0, 0], [0, 7, 12, 17], [0, 8, 13, 18], [0, 9, 14, 19], [0, 10, 15, 20]],
        "dx_pad": [[1, 0, 11, 16], [0, 0, 0, 0], [3, 0, 13, 18], [0, 0, 0, 0], [5, 0, 15, 20]],
    },
    (maxpool, 3): {
        "y": column_major("27 29 37 39", 2, 2, 1),
        "y_pad": column_major("1 3 5 11 13 15 16 18 20 41 43 45 51 53 55 56 58 60", 3, 3, 2),
        "dx_pad": column_major(
            "1 0 3 0 5 0 0 0 0 0 11 0 13 0 15 16 0 18 0 20 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 41 0 43 0 "
            "45 0 0 0 0 0 51 0 53 0 55 56 0 58 0 60",
            *(5, 4, 3),
        ),
    },
    (meanpool, 1): {
        "y": [1.5, 3.5],
        "y_nostride": [1.5, 2.5, 3.5, 4.5],
        "y_pad": [0.5, 2.5, 4.5],
        "dx": [0.75, 0.75, 1.75, 1.75, 0.0],
        "dx_nostride": [0.75, 2.0, 3.0, 4.0, 2.25],
        "dx_pad": [0.25, 1.25, 1.25, 2.25, 2.25],
    },
    (meanpool, 2): {
        "y": [[4, 14], [6, 16]],
        "y_nostride": [[4, 9, 14], [5, 10, 15], [6, 11, 16], [7, 12, 17]],
        "y_pad": [[0.25, 4.25, 4], [1.25, 10, 8.75], [2.25, 12, 9.75]],
        "dx": [[1, 1, 3.5, 3.5], [1, 1, 3.5, 3.5], [1.5, 1.5, 4, 4], [1.5, 1.5, 4, 4], [0, 0, 0, 0]],
        "dx_nostride": [
            [1, 3.25, 5.75, 3.5],
            [2.25, 7, 12, 7.25],
            [2.75, 8, 13, 7.75],
            [3.25, 9, 14, 8.25],
            [1.75, 4.75, 7.25, 4.25],
        ],
        "dx_pad": [
            [0.0625, 1.0625, 1.0625, 1],
            [0.3125, 2.5, 2.5, 2.1875],
            [0.3125, 2.5, 2.5, 2.1875],
            [0.5625, 3, 3, 2.4375],
            [0.5625, 3, 3, 2.4375],
        ],
    },
    (meanpool, 3): {
        "y": column_major("14 16 24 26", 2, 2, 1),
        "y_pad": column_major(
            "0.125 0.625 1.125 2.125 5 6 2 4.375 4.875 7.75 16.25 17.25 19.25 40 42 11.5 23.75 24.75",
            *(3, 3, 2),
        ),
        "dx": column_major(
            "1.75 1.75 2 2 0 1.75 1.75 2 2 0 3 3 3.25 3.25 0 3 3 3.25 3.25 0 1.75 1.75 2 2 0 1.75 1.75 2 2 0 "
            "3 3 3.25 3.25 0 3 3 3.25 3.25 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0",
            *(5, 4, 3),
        ),
    },
}


@pytest.mark.parametrize("pool", [maxpool, meanpool])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_pooling_numbers_of_nnlib(pool, rank):
    want, x, k = POOL_NUMBERS[pool, rank], counting(*(5, 4, 3)[:rank]), (2,) * rank
    assert torch.equal(pool(x, (1,) * rank), x)
    layer = MaxPool if pool is maxpool else MeanPool
    for name, kws in {"": {}, "_nostride": {"stride": 1}, "_pad": {"pad": 1}}.items():
        if "y" + name in want:
            close(pool(x, k, **kws)[..., 0, 0], want["y" + name])
            assert torch.equal(layer(k, **kws)(x), pool(x, k, **kws))
        if "dx" + name in want:
            dx = gradient(lambda x, kws=kws: (pool(x, k, **kws) ** 2).sum() / 2, x)[0]
            close(dx[..., 0, 0], want["dx" + name])


def test_more_pooling_numbers_of_nnlib():
    x = torch.tensor([0.0299635, 0.233456, 0.596161, 0.161514, 0.0094027], dtype=torch.float64).reshape(5, 1, 1)
    for k, s, p, most, mean in (
        (2, 1, 0, [0, 1, 2, 1, 0], [0.5, 1, 1, 1, 0.5]),
        (2, 1, 1, [1, 1, 2, 1, 1], [1, 1, 1, 1, 1]),
        (3, 1, 1, [0, 1, 3, 1, 0], [2 / 3, 1, 1, 1, 2 / 3]),
        (3, 2, 1, [0, 1, 1, 1, 0], [1 / 3, 2 / 3, 1 / 3, 2 / 3, 1 / 3]),
    ):
        for pool, want in ((maxpool, most), (meanpool, mean)):
            dx = gradient(lambda x, pool=pool, k=k, s=s, p=p: pool(x, (k,), stride=s, pad=p).sum(), x)[0]
            close(dx.flatten(), want)
    dx = gradient(lambda x: maxpool(x, (2, 2), pad=1, stride=2).sum(), counting(3, 3))[0]
    close(dx[:, :, 0, 0], [[1, 0, 1], [0, 0, 0], [1, 0, 1]])
    x = rand(10, 10, 3, 10)
    for pool in (maxpool, meanpool):
        assert pool(x, (2, 2)).shape == (5, 5, 3, 10)
        assert pool(x, (2, 2), pad=(1, 1), stride=(2, 2)).shape == (6, 6, 3, 10)


@pytest.mark.parametrize("kind", [MaxPool, MeanPool])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize(
    "kws",
    [{}, {"stride": (1, 2, 3)}, {"pad": 1}, {"pad": (1, 0, 2)}, {"pad": (2, 0, 1, 3, 0, 1)}, {"pad": 2, "stride": 1}],
    ids=str,
)
def test_pools_are_torch_s(kind, n, kws):
    kws, _ = cut(kws, n)
    m = kind((2, 3, 4)[:n], **kws)
    x = images(*(7, 8, 6)[:n], 3, 2)
    pad = with_borders(m.pad, n)
    fill, kernels = (-1e30, "max_pool") if kind is MaxPool else (0.0, "avg_pool")
    xr = rev(x).detach().clone().requires_grad_()
    yr = getattr(F, f"{kernels}{n}d")(F.pad(xr, pad, value=fill), m.k[::-1], m.stride[::-1])
    # A window of padding only gives the least number there is.
    y = torch.where(m(x) < -1e30, -1e30, m(x))
    close(y, rev(yr))
    u = torch.randn_like(yr)
    dx = gradient(lambda m, x: (m(x) * rev(u)).sum(), m, x)[1]
    close(dx, rev(torch.autograd.grad((yr * u).sum(), xr)[0]))


def test_pools_of_other_numbers():
    x = torch.arange(8).reshape(8, 1, 1)
    close(maxpool(x, (2,)).flatten(), torch.tensor([1.0, 3.0, 5.0, 7.0]))
    close(maxpool(x - 9, (3,), pad=(2, 0)).flatten(), torch.tensor([-9.0, -6.0, -3.0]))
    close(gradient(lambda x: (MaxPool((2,))(x) ** 2).sum(), x)[0].flatten(), [0, 2, 0, 6, 0, 10, 0, 14])
    close(MeanPool((2,))(x).flatten(), torch.tensor([0.5, 2.5, 4.5, 6.5]))
    close(MeanPool((2,))([[[0]], [[1]]]).flatten(), torch.tensor([0.5]))
    close(gradient(lambda x: (MeanPool((2,))(x) ** 2).sum(), x)[0].flatten(), [0.5, 0.5, 2.5, 2.5, 4.5, 4.5, 6.5, 6.5])
    # Of equal numbers the first has the gradient.
    dx = gradient(lambda x: maxpool(x, (2, 2)).sum(), ones32(4, 2, 1, 1))[0]
    close(dx[:, :, 0, 0], [[1, 0], [0, 0], [1, 0], [0, 0]])
    for dtype in (torch.float64, torch.bfloat16):
        y = MaxPool((2, 2), pad=(3, 0))(rand32(4, 4, 1, 1).to(dtype))
        assert y.dtype == dtype and y[0, 0] == torch.finfo(dtype).min
    assert len(params(MaxPool((2,)))) == 0
    assert gradient(lambda m: m(ones32(4, 1, 1)).sum(), MaxPool((2,))) == (None,)


# -- adaptive and global pools -------------------------------------------------------------------------


def test_adaptive_pools_of_flux_s_tests():
    x, y = images(10, 10, 3, 2), images(20, 20, 3, 2)
    for kind, pool in ((AdaptiveMaxPool, maxpool), (AdaptiveMeanPool, meanpool)):
        close(kind((5, 5))(x), pool(x, (2, 2)))
        close(kind((10, 5))(y), pool(y, (2, 4)))
        assert outputsize(kind((2, 2)), (10, 10, 3, 1)) == (2, 2, 3, 1)
    xs = images(100, 100, 3, 5)
    close(MaxPool((4, 4))(xs), AdaptiveMaxPool((25, 25))(xs))
    close(MeanPool((4, 4))(xs), AdaptiveMeanPool((25, 25))(xs))
    assert AdaptiveMaxPool((25, 25))(xs).shape == (25, 25, 3, 5)


@pytest.mark.parametrize("out", [(1,), (2,), (3,), (4,), (7,), (2, 3), (3, 7), (2, 3, 1)])
def test_adaptive_windows_by_flux_s_formula(out):
    """All windows of an axis are equally long, unlike torch's, which agree only where `out` divides it."""
    n = len(out)
    x = images(*(7, 8, 3)[:n], 2, 3, dtype=torch.float64)
    want_max, want_mean = torch.empty(*out, 2, 3).double(), torch.empty(*out, 2, 3).double()
    for place in torch.cartesian_prod(*map(torch.arange, out)).reshape(-1, n).tolist():
        window = x
        for d, (i, o) in enumerate(zip(place, out, strict=True)):
            stride = x.shape[d] // o
            window = window.narrow(d, i * stride, x.shape[d] - (o - 1) * stride)
        want_max[tuple(place)] = window.amax(tuple(range(n)))
        want_mean[tuple(place)] = window.mean(tuple(range(n)))
    close(AdaptiveMaxPool(out)(x), want_max)
    close(AdaptiveMeanPool(out)(x), want_mean)
    theirs = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)[n - 1](rev(x), out[::-1])
    if all(size % o == 0 for size, o in zip(x.shape, out, strict=False)):
        close(AdaptiveMeanPool(out)(x), rev(theirs))
    u = torch.randn_like(want_mean)
    for m in (AdaptiveMeanPool(out), AdaptiveMaxPool(out)):
        leaf = x.clone().requires_grad_()
        assert torch.autograd.gradcheck(lambda v, m=m: (m(v) * u).sum(), leaf, fast_mode=True)


def test_global_pools_of_the_manual():
    xs = rand32(100, 100, 3, 5)
    for kind in (GlobalMaxPool, GlobalMeanPool):
        m = Chain(Conv((3, 3), 3 | to | 7), kind())
        assert m(xs).shape == (1, 1, 7, 5)
        assert kind()(rand(3, 5, 7)).shape == (1, 5, 7)
        assert outputsize(kind(), (10, 10, 3, 1)) == (1, 1, 3, 1)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_global_pools_are_one_window(n):
    x = images(*(3, 4, 2, 5)[:n], 6, 7)
    axes = tuple(range(n))
    close(GlobalMaxPool()(x), x.amax(axes, keepdim=True))
    close(GlobalMeanPool()(x), x.mean(axes, keepdim=True))
    if n < 4:
        close(GlobalMaxPool()(x), MaxPool(tuple(x.shape[:n]))(x))
        close(GlobalMeanPool()(x), MeanPool(tuple(x.shape[:n]))(x))
    double = images(*(2, 2, 2, 1)[:n], 2, 2, dtype=torch.float64).requires_grad_()
    for m in (GlobalMaxPool(), GlobalMeanPool()):
        assert torch.autograd.gradcheck(m, double) and torch.autograd.gradgradcheck(m, double)
        assert rev(m(x)).is_contiguous()
        assert m(x.half()).dtype == torch.float16
        close(m(x.long()), m(x.long().float()))
        # As the windowed pool does, of equal numbers the first has the gradient.
    dx = gradient(lambda x: GlobalMaxPool()(x).sum(), torch.ones_like(x))[0]
    want = torch.zeros_like(x)
    want[(0,) * n] = 1
    close(dx, want)
    if n < 4:
        close(gradient(lambda x: MaxPool(tuple(x.shape[:n]))(x).sum(), torch.ones_like(x))[0], want)


def test_more_pools_are_printed():
    assert repr(AdaptiveMaxPool((2, 3))) == str(AdaptiveMaxPool((2, 3))) == "AdaptiveMaxPool((2, 3))"
    assert repr(AdaptiveMeanPool((2,))) == "AdaptiveMeanPool((2,))"
    assert repr(GlobalMaxPool()) == "GlobalMaxPool()" and str(GlobalMeanPool()) == "GlobalMeanPool()"
    assert "\n  GlobalMeanPool(),\n" in repr(Chain(Conv((3, 3), 3 | to | 7), GlobalMeanPool(), flatten))
    assert children(AdaptiveMaxPool((2, 3))).out == (2, 3) and len(children(GlobalMaxPool())) == 0
    for m in (AdaptiveMaxPool((2, 3)), GlobalMaxPool()):
        x = images(4, 6, 2, 1)
        close(pickle.loads(pickle.dumps(m))(x), m(x))
        assert str(f64(m)) == str(m)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: AdaptiveMaxPool(5), TypeError, r"AdaptiveMaxPool expects a tuple of whole numbers .* got 5"),
        (lambda: AdaptiveMeanPool((0,)), ValueError, "each at least 1"),
        (
            lambda: AdaptiveMaxPool((5, 5))(torch.ones(10, 3, 2)),
            DimensionMismatch,
            r"layer AdaptiveMaxPool\(\(5, 5\)\) expects ndims\(input\) == 4, but got 10×3×2 tensor of float32",
        ),
        (
            lambda: AdaptiveMeanPool((5, 5))(torch.ones(10, 4, 3, 2)),
            DimensionMismatch,
            "can't make an image larger, but got 10×4×3×2 tensor",
        ),
        (
            lambda: GlobalMaxPool()(torch.ones(3, 2)),
            DimensionMismatch,
            r"layer GlobalMaxPool\(\) expects spatial axes, channels and batch, but got 3×2 tensor",
        ),
        (lambda: GlobalMeanPool()(torch.ones(0, 3, 2)), DimensionMismatch, "got 0×3×2 tensor"),
        (lambda: GlobalMeanPool()("x"), TypeError, "expects an array as input"),
    ],
)
def test_wrong_use_of_more_pools(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("kind", CONVS)
def test_on_a_gpu(kind):
    m, x = kind((2, 2), 2 | to | 4, tanh, pad=(1, 0, 1, 0)), images(9, 8, 2, 3)
    close(gpu(m)(gpu(x)).cpu(), m(x), rtol=1e-3, atol=1e-3)
    dm, dg = gradient(lambda m: m(x).sum(), m)[0], gradient(lambda m: m(gpu(x)).sum(), gpu(m))[0]
    close(dg.weight.cpu(), dm.weight, rtol=1e-2, atol=1e-2)
    close(gpu(MaxPool((2, 2)))(gpu(x)).cpu(), MaxPool((2, 2))(x))


@pytest.mark.parametrize(
    "layers, size",
    [
        ((Conv((3, 3), 2 | to | 4, relu), MaxPool((2, 2)), Flux.flatten, Dense(36 | to | 3)), (8, 8, 2, 5)),
        ((Conv((3, 2), 2 | to | 4, stride=(2, 1), pad=(1, 0)), MeanPool((2, 3), stride=1, pad=1)), (8, 7, 2, 5)),
        ((Conv((2, 2), 2 | to | 4, pad=(1, 0, 0, 1)), MaxPool((2, 2), pad=(1, 0, 0, 0))), (5, 5, 2, 5)),
        ((Conv((2, 2), 2 | to | 4, pad=SamePad(), dilation=2), MaxPool((2, 2), pad=1)), (6, 6, 2, 5)),
        ((Conv((3,), 4 | to | 6, groups=2, bias=False), MaxPool((2,))), (9, 4, 5)),
        ((Conv((1, 2, 2), 1 | to | 2, tanh), MeanPool((1, 2, 2))), (3, 5, 5, 1, 2)),
        ((Conv((2, 2), 2 | to | 4, softmax), MaxPool((2, 2)), CrossCor((2, 2), 4 | to | 1)), (6, 6, 2, 5)),
        ((Dense(4 | to | 3, relu), Dense(3 | to | 2), Flux.flatten), (4, 3, 5)),
        ((MaxPool((3, 3), pad=2, stride=2), MeanPool((2, 2))), (7, 7, 2, 5)),
        (
            (Conv((3, 3), 2 | to | 4), BatchNorm(4, relu), Dropout(0), Flux.flatten, BatchNorm(64, affine=False)),
            (6, 6, 2, 5),
        ),
        ((BatchNorm(2, softmax, track_stats=False), Conv((3, 3), 2 | to | 4), Dropout(1, dims=2)), (6, 6, 2, 5)),
    ],
)
def test_in_a_chain_as_one_by_one(layers, size):
    m, x = Chain(*layers), torch.randn(*size)
    torch.testing.assert_close(m(x), activations(m, x)[-1])
    got = gradient(lambda m, x: (m(x) ** 2).sum(), m, x)
    want = gradient(lambda m, x: (activations(m, x)[-1] ** 2).sum(), m, x)
    torch.testing.assert_close(got[1], want[1], rtol=1e-4, atol=1e-4)
    for a, b in zip(Flux.trainables(got[0]), Flux.trainables(want[0]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_statistics_and_choices_in_a_chain():
    m, x = Chain(Conv((1, 1), 2 | to | 3), BatchNorm(3), Dropout(0.5)), torch.randn(4, 5, 2, 6)
    alone = copy.deepcopy(m)
    y = withgradient(lambda m: ((y := m(x)).sum(), y), m).val[1]
    z = withgradient(lambda m: ((z := m[1](m[0](x))).sum(), z), alone).val[1]
    assert set((y / z).round(decimals=4).unique().tolist()) == {0.0, 2.0}
    torch.testing.assert_close(m[1].μ, alone[1].μ)
    torch.testing.assert_close(m[1].σ2, alone[1].σ2)
    assert m[1].μ.abs().max() > 0
    torch.testing.assert_close(m(x), activations(m, x)[-1])  # test mode
    generator = [torch.Generator().manual_seed(1) for _ in range(2)]
    chosen = Chain(Dropout(0.5, rng=generator[0], active=True)), Dropout(0.5, rng=generator[1], active=True)
    assert torch.equal(*[f(x) for f in chosen])


@pytest.mark.parametrize(
    "m, x",
    [
        (Chain(BatchNorm(3)), torch.ones(5, 5, 2, 1)),
        (Chain(BatchNorm(3)), torch.ones(3)),
        (Chain(Conv((3, 3), 2 | to | 4)), torch.ones(2, 5, 2, 1)),
        (Chain(Conv((3, 3), 2 | to | 4)), torch.ones(5, 5, 3, 1)),
        (Chain(Conv((3, 3), 2 | to | 4)), torch.ones(5, 5, 2)),
        (Chain(MaxPool((3, 3))), torch.ones(5, 2, 2, 1)),
        (Chain(MaxPool((3, 3))), torch.ones(5, 5, 2)),
        (Chain(Conv((1, 1), 2 | to | 4), Conv((1, 1), 3 | to | 4)), torch.ones(5, 5, 2, 1)),
    ],
)
def test_errors_in_a_chain_are_those_of_the_layer(m, x):
    with pytest.raises(DimensionMismatch) as alone:
        activations(m, x)
    with pytest.raises(DimensionMismatch) as chained:
        m(x)
    assert str(chained.value) == str(alone.value)
