"""The numbers of NNlib's tests of convolution and pooling that test_conv.py, with the layers, leaves out."""

from __future__ import annotations

import math

import pytest
import torch

from fluxtorch.base import reshape
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib import conv, depthwiseconv, lpnormpool, maxpool, meanpool
from fluxtorch.nnlib.conv import conv_transpose
from fluxtorch.zygote import gradient

F64 = torch.float64


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


def counting(*size):
    """1, 2, 3, … column-major, with channels and batch of one."""
    return reshape(torch.arange(1, math.prod(size) + 1, dtype=F64), *size, 1, 1)


def column_major(numbers, *size):
    return reshape(torch.tensor([float(v) for v in numbers.split()], dtype=F64), *size)


# -- convolution ---------------------------------------------------------------------------------------

CONV = {
    "y_pad": (
        "1 4 7 10 13 10 9 29 39 49 59 40 29 79 89 99 109 70 49 129 139 149 159 100 48 115 122 129 136 80 26 80 94 "
        "108 122 80 126 322 358 394 430 260 206 502 538 574 610 360 286 682 718 754 790 460 220 502 524 546 568 320 "
        "146 360 374 388 402 240 446 1042 1078 1114 1150 660 526 1222 1258 1294 1330 760 606 1402 1438 1474 1510 "
        "860 420 942 964 986 1008 560 205 456 467 478 489 270 517 1133 1159 1185 1211 660 577 1263 1289 1315 1341 "
        "730 637 1393 1419 1445 1471 800 392 847 862 877 892 480"
    ),
    "dx": (
        "2576 5118 5658 6198 3010 5948 11576 12512 13448 6420 8468 16256 17192 18128 8580 4092 7718 8114 8510 3950 "
        "9624 18316 19108 19900 9340 18680 34992 36288 37584 17320 22280 41472 42768 44064 20200 9776 17756 18260 "
        "18764 8340 4168 7438 7690 7942 3450 6972 11896 12256 12616 5140 8052 13696 14056 14416 5860 2804 4278 4386 "
        "4494 1510"
    ),
    "dx_pad": (
        "4220 6343 7116 7889 6550 8490 12276 13312 14348 11606 12350 17456 18492 19528 15546 11989 16664 17469 "
        "18274 14333 16200 22628 23616 24604 19392 25336 34992 36288 37584 29320 30216 41472 42768 44064 34200 "
        "26236 35664 36652 37640 28940 22816 30831 31636 32441 24794 32522 43668 44704 45740 34742 36462 48848 "
        "49884 50920 38602 29501 39264 40037 40810 30733"
    ),
    "dx_dil": (
        "4864 5152 9696 4508 4760 6304 6592 12396 5768 6020 3648 3864 7120 3220 3400 4728 4944 9100 4120 4300 0 0 0 "
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 2432 2576 4544 1932 2040 3152 3296 5804 2472 2580 1216 1288 1968 644 680 "
        "1576 1648 2508 824 860"
    ),
    "dx_flip": (
        "686 2094 2202 2310 1588 2924 7544 7904 8264 5124 3644 9344 9704 10064 6204 3138 7430 7682 7934 4616 4836 "
        "11980 12484 12988 7792 14936 34992 36288 37584 21640 17816 41472 42768 44064 25240 12620 28412 29204 29996 "
        "16728 7030 15646 16042 16438 9084 17772 38968 39904 40840 22276 19932 43648 44584 45520 24796 12362 26742 "
        "27282 27822 14992"
    ),
}

OPTIONS = {"": {}, "_pad": {"pad": 1}, "_dil": {"dilation": 2}, "_flip": {"flipped": True}}


@pytest.mark.parametrize("f", [conv, depthwiseconv])
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_convolution_of_volumes(f, dtype):
    x, w = counting(5, 4, 3).to(dtype), counting(2, 2, 2).to(dtype)
    y = column_major(CONV["y_pad"], 6, 5, 4)
    close(f(x, w, pad=1)[..., 0, 0], y)
    close(f(x, w)[..., 0, 0], y[1:-1, 1:-1, 1:-1])
    close(f(x, w, stride=2)[..., 0, 0], y[1:-1:2, 1:-1:2, 1:-1:2])
    for name, kws in OPTIONS.items():  # what flows back from `y` itself
        dx = gradient(lambda x, kws=kws: (f(x, w, **kws) ** 2).sum() / 2, x)[0]
        close(dx[..., 0, 0], column_major(CONV["dx" + name], 5, 4, 3))


def test_complex_convolution():
    x = torch.tensor([1 + 2j, 2 + 3j, 3 + 4j, 4 + 5j], dtype=torch.complex128).reshape(1, 4, 1).requires_grad_()
    w = torch.tensor([3 + 4j, 4 + 5j, 5 + 6j, 6 + 7j], dtype=torch.complex128).reshape(1, 4, 1).requires_grad_()
    y = conv(x, w)
    close(y.detach(), (x * w).sum().detach().reshape(1, 1, 1))
    dx, dw = torch.autograd.grad(y, (x, w), y.detach())
    close(dx, (y * w.conj()).detach())
    close(dw, (y * x.conj()).detach())
    assert conv(x, w, pad=(1, 2)).shape == (4, 1, 1)


def test_a_real_depthwise_convolution():
    x, w = torch.tensor([[[1.0], [2.0]]]), reshape(torch.arange(1.0, 7), 3, 1, 2)
    close(depthwiseconv(x, w, pad=1).flatten(), [2.0, 10.0])


@pytest.mark.parametrize(("f", "w"), [(conv, torch.ones(1, 2, 3, 4)), (depthwiseconv, torch.ones(1, 2, 4, 3))])
def test_sizes_and_options(f, w):
    x, channels = torch.ones(5, 4, 3, 2), 4 if f is conv else 12
    for kws, size in (
        ({}, (5, 3)),
        ({"stride": 2, "dilation": 2, "pad": 3, "flipped": True}, (6, 4)),
        ({"stride": (1, 2), "dilation": (1, 2), "pad": (0, 1)}, (5, 2)),
        ({"pad": (1, 2, 3, 4)}, (8, 10)),
    ):
        assert f(x, w, **kws).shape == (*size, channels, 2)
    for kws in (
        *({"stride": s} for s in ((1,), (1, 1, 1))),
        *({"pad": p} for p in ((1, 1, 1), (1, 1, 1, 1, 1))),
        *({"dilation": d} for d in ((1,), (1, 1, 1), (1, 5))),
    ):
        with pytest.raises(DimensionMismatch):
            f(x, w, **kws)
    with pytest.raises(DimensionMismatch, match=rf"^{f.__name__} expects 1 channels, as its kernel has"):
        f(x, w[:, :, :1] if f is conv else w[..., :1])


def test_groups():
    x, w = torch.rand(10, 10, 32, 8), torch.rand(2, 2, 16, 4, dtype=F64)
    for kws in ({}, {"stride": 2, "pad": 2}, {"stride": (1, 2), "pad": (2, 3), "dilation": 2, "flipped": True}):
        y = conv(x, w, groups=2, **kws)
        assert y.dtype == F64
        close(y.float(), conv(x, w.float(), groups=2, **kws))
    with pytest.raises(DimensionMismatch, match="conv expects 16 channels"):
        conv(x, w)
    with pytest.raises(DimensionMismatch, match="conv can't divide 3 output channels among 2 groups"):
        conv(x, w[..., :3], groups=2)
    with pytest.raises(ValueError, match="groups must be at least 1, and is 0"):
        conv(x, w, groups=0)
    with pytest.raises(TypeError, match=r"groups must be a whole number, and is 2\.0"):
        conv(x, w, groups=2.0)


def test_borders_may_reach_into_what_outpad_adds():
    x = torch.tensor([2.0]).reshape(1, 1, 1)
    for pad, y in (((0, 0), [2, 0, 0]), ((1, 1), [0]), ((2, 0), [0]), ((0, 2), [2]), ((0, 1), [2, 0])):
        close(conv_transpose(x, torch.ones(1, 1, 1), stride=3, pad=pad, outpad=2).flatten(), torch.tensor(y))


def test_convolution_of_integers():
    x, w = torch.arange(4).reshape(4, 1, 1), torch.tensor([1, 10]).reshape(2, 1, 1)
    y = conv(x, w, pad=(1, 0))
    assert y.dtype == torch.int64 and y.flatten().tolist() == [0, 1, 12, 23]
    dx = gradient(lambda x: conv(x, w).sum(), x)[0]
    assert dx.flatten().tolist() == [10, 11, 11, 1]


# -- pooling -------------------------------------------------------------------------------------------

MAXPOOL = {
    "y_nostride": "27 28 29 30 32 33 34 35 37 38 39 40 47 48 49 50 52 53 54 55 57 58 59 60",
    "dx": (
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 27 0 29 0 0 0 0 0 0 0 37 0 39 0 0 0 0 0 0 0 0 0 0 0 0 "
        "0 0 0 0 0 0 0 0 0"
    ),
    "dx_nostride": (
        "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 27 28 29 30 0 32 33 34 35 0 37 38 39 40 0 0 0 0 0 0 47 "
        "48 49 50 0 52 53 54 55 0 57 58 59 60"
    ),
}

MEANPOOL = {
    "y_nostride": "14 15 16 17 19 20 21 22 24 25 26 27 34 35 36 37 39 40 41 42 44 45 46 47",
    "dx_nostride": (
        "1.75 3.625 3.875 4.125 2.125 4.125 8.5 9 9.5 4.875 5.375 11 11.5 12 6.125 3 6.125 6.375 6.625 3.375 6 "
        "12.25 12.75 13.25 6.75 13.25 27 28 29 14.75 15.75 32 33 34 17.25 8.5 17.25 17.75 18.25 9.25 4.25 8.625 "
        "8.875 9.125 4.625 9.125 18.5 19 19.5 9.875 10.375 21 21.5 22 11.125 5.5 11.125 11.375 11.625 5.875"
    ),
    "dx_pad": (
        "0.015625 0.078125 0.078125 0.140625 0.140625 0.265625 0.625 0.625 0.75 0.75 0.265625 0.625 0.625 0.75 0.75 "
        "0.25 0.546875 0.546875 0.609375 0.609375 0.96875 2.03125 2.03125 2.15625 2.15625 2.40625 5 5 5.25 5.25 "
        "2.40625 5 5 5.25 5.25 1.4375 2.96875 2.96875 3.09375 3.09375 0.96875 2.03125 2.03125 2.15625 2.15625 "
        "2.40625 5 5 5.25 5.25 2.40625 5 5 5.25 5.25 1.4375 2.96875 2.96875 3.09375 3.09375"
    ),
}


@pytest.mark.parametrize(("pool", "numbers"), [(maxpool, MAXPOOL), (meanpool, MEANPOOL)])
def test_pooling_of_volumes(pool, numbers):
    x = counting(5, 4, 3)
    close(pool(x, (2, 2, 2), stride=1)[..., 0, 0], column_major(numbers["y_nostride"], 4, 3, 2))
    for name, kws in {"": {}, "_nostride": {"stride": 1}, "_pad": {"pad": 1}}.items():
        if "dx" + name in numbers:
            dx = gradient(lambda x, kws=kws: (pool(x, (2, 2, 2), **kws) ** 2).sum() / 2, x)[0]
            close(dx[..., 0, 0], column_major(numbers["dx" + name], 5, 4, 3))


# Made by finite differences, for the sum of the result.
IMAGE = column_major(
    "0.0299635 0.389984 0.0830242 0.425287 0.473724 0.233456 0.235158 0.483759 0.53451 0.571418 0.596161 "
    "0.579525 0.914904 0.0405225 0.558427 0.161514 0.301893 0.253871 0.729861 0.552183 0.0094027 0.561358 "
    "0.820061 0.403925 0.561624",
    5,
    5,
)
VOLUME = column_major(
    "0.82584 0.798798 0.716898 0.261484 0.416818 0.131608 0.320672 0.258469 0.92668 0.344556 0.24453 0.121916 "
    "0.471931 0.79681 0.288568 0.0685961 0.73934 0.164918 0.116848 0.525431 0.16631 0.790875 0.359845 0.0402844 "
    "0.525109 0.444085 0.0653075 0.846814 0.0223458 0.469671 0.804886 0.84876 0.709245 0.576722 0.640221 "
    "0.953795 0.325828 0.405659 0.28811 0.1316 0.715952 0.770104 0.129229 0.94538 0.719116 0.259131 0.97571 "
    "0.705337",
    4,
    4,
    3,
)
SLOPES = [
    ((2, 2), 1, 0, "0 1 0 0 0 0 0 1 1 2 2 0 4 0 0 0 0 0 2 0 0 1 2 0 0", [[0.5, 1, 1, 1, 0.5]] * 2),
    ((2, 2), 1, 1, "1 3 0 1 2 1 0 1 1 4 4 0 4 0 1 1 0 0 2 0 1 2 4 0 3", [[1] * 5] * 2),
    ((3, 3), 1, 1, "0 1 0 0 0 0 0 1 1 3 3 0 9 0 0 0 0 0 3 0 0 1 3 0 0", [[2 / 3, 1, 1, 1, 2 / 3]] * 2),
    ((3, 3), 2, 1, "0 1 0 0 0 0 0 0 1 1 1 0 1 0 0 0 0 0 2 0 0 1 1 0 0", [[1 / 3, 2 / 3, 1 / 3, 2 / 3, 1 / 3]] * 2),
    (
        (2, 2, 2),
        1,
        0,
        "1 1 1 0 0 0 0 0 2 0 0 0 0 0 0 0 0 0 0 0 0 5 0 0 0 0 0 1 0 0 1 1 0 0 0 1 0 0 0 0 0 1 0 1 0 0 2 0",
        [*[[0.5, 1, 1, 0.5]] * 2, [0.5, 1, 0.5]],
    ),
    (
        (2, 2, 2),
        1,
        1,
        "8 4 4 2 0 0 1 1 8 1 0 1 2 4 2 1 3 0 0 2 0 5 0 0 0 0 0 2 0 0 2 5 4 0 3 8 0 0 0 0 2 4 0 6 6 0 8 1",
        [*[[1] * 4] * 2, [1] * 3],
    ),
    (
        (3, 3, 2),
        1,
        1,
        "4 3 3 0 0 0 1 0 12 0 0 0 0 2 1 0 0 0 0 0 0 5 0 0 0 0 0 2 0 0 0 4 2 0 0 8 0 0 0 0 0 5 0 0 0 0 12 0",
        [*[[2 / 3, 1, 1, 2 / 3]] * 2, [1] * 3],
    ),
    (
        (3, 3, 2),
        2,
        1,
        "1 1 0 0 0 0 0 0 1 0 0 0 0 1 0 0 0 0 0 0 0 2 0 0 0 0 0 0 0 0 0 0 0 0 0 1 0 0 0 0 0 0 0 0 0 0 1 0",
        [*[[1 / 3, 2 / 3, 1 / 3, 1 / 3]] * 2, [0.5] * 3],
    ),
]


@pytest.mark.parametrize(("k", "stride", "pad", "most", "mean"), SLOPES)
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=str)
def test_slopes_of_pools(k, stride, pad, most, mean, dtype):
    x = (IMAGE if len(k) == 2 else VOLUME)[..., None, None].to(dtype)
    kws = {"stride": stride, "pad": pad}
    dx = gradient(lambda x: maxpool(x, k, **kws).sum(), x)[0]
    close(dx[..., 0, 0], column_major(most, *x.shape[:-2]))
    dx = gradient(lambda x: meanpool(x, k, **kws).sum(), x)[0]
    for n, slopes in enumerate(mean):  # a mean's slopes are products of those along each axis
        dx = dx / torch.tensor(slopes, dtype=dtype).reshape(-1, *(1,) * (x.ndim - 1 - n))
    close(dx, torch.ones_like(x))


def test_issues_of_nnlib():
    # 210: borders of one end only
    x = torch.rand(5, 2, 1, 3)
    assert maxpool(x, (2, 1), pad=1, stride=1).shape == (6, 4, 1, 3)
    assert maxpool(x, (2, 1), pad=(1, 0, 0, 0), stride=1).shape == (5, 2, 1, 3)
    # 229: the zeros of a border count in the mean
    y = meanpool(-torch.ones(4, 4, 1, 1), (2, 2), pad=1)
    close(y[..., 0, 0], [[-0.25, -0.5, -0.25], [-0.5, -1, -0.5], [-0.25, -0.5, -0.25]])
    # 484
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None, None]
    assert maxpool(x, (2, 2)).item() == 4 and meanpool(x, (2, 2)).item() == 2.5
    close(gradient(lambda x: maxpool(x, (2, 2)).sum(), x)[0][..., 0, 0], [[0, 0], [0, 1]])
    close(gradient(lambda x: meanpool(x, (2, 2)).sum(), x)[0], torch.full_like(x, 0.25))


def test_element_types_of_pools():
    for dtype in (torch.bool, torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16, F64):
        for size, k in (((1, 1), (1, 1)), ((1, 2), (1, 2)), ((2, 1), (2, 1)), ((2, 2), (1, 2))):
            x = torch.ones(*size, 1, 1).to(dtype)
            y, floats = maxpool(x, k), dtype if dtype.is_floating_point else torch.float32
            assert y.dtype == dtype and y.all()
            assert meanpool(x, k).dtype == lpnormpool(x, 2, k).dtype == floats
    # The largest integer is none that was rounded; a window of nothing but border has the least there is.
    x = torch.tensor([2**24 + 1, -(2**40) - 1, -7, -8]).reshape(4, 1, 1)
    assert maxpool(x, (2,)).flatten().tolist() == [2**24 + 1, -7]
    assert maxpool(x, (2,), pad=(2, 0)).flatten().tolist() == [-(2**63), 2**24 + 1, -7]
    assert maxpool(x.clamp(0).to(torch.uint8), (3,), pad=(3, 0)).flatten().tolist() == [0, 1]
    assert gradient(lambda x: maxpool(x, (2,)).sum(), [[[1]], [[5]]])[0].flatten().tolist() == [0, 1]
    for pool in (maxpool, meanpool):
        with pytest.raises(TypeError, match=f"{pool.__name__} takes an array of real numbers, but got a 2×1×1"):
            pool(torch.ones(2, 1, 1, dtype=torch.complex64), (2,))
