from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn

from fluxtorch.base import ones
from fluxtorch.devices import f64
from fluxtorch.errors import DimensionMismatch
from fluxtorch.functors import children
from fluxtorch.layers import Chain, Conv
from fluxtorch.layers.upsample import PixelShuffle, Upsample
from fluxtorch.nnlib.upsampling import upsample_bilinear
from fluxtorch.outputsize import outputsize
from fluxtorch.pairs import to
from fluxtorch.zygote import gradient
from fluxtorch.zygote.implicit import params


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


def rev(x):
    return x.permute(*reversed(range(x.ndim)))


def images(*size, dtype=torch.float32):
    return rev(torch.randn(size[::-1], dtype=dtype))


def test_examples_of_the_manual():
    m = Upsample(scale=(2, 3))
    assert repr(m) == str(m) == "Upsample(:nearest, scale = (2, 3))"
    assert torch.equal(m(ones(2, 2, 1, 1)), ones(4, 6, 1, 1))
    m = Upsample("bilinear", size=(4, 5))
    assert repr(m) == str(m) == "Upsample(:bilinear, size = (4, 5))"
    close(m(ones(2, 2, 1, 1)), ones(4, 5, 1, 1))


@pytest.mark.parametrize(
    ("m", "size", "want"),
    [
        (Upsample("bilinear", scale=(2, 3)), (3, 4, 2, 3), (6, 12, 2, 3)),
        (Upsample("bilinear", scale=3), (3, 4, 2, 3), (9, 12, 2, 3)),
        (Upsample("bilinear", size=(4, 6)), (3, 4, 2, 3), (4, 6, 2, 3)),
        (Upsample("bilinear", scale=(2.5, 1.5)), (3, 4, 2, 3), (7, 6, 2, 3)),
        (Upsample("trilinear", scale=(2, 3, 2)), (3, 4, 2, 3, 4), (6, 12, 4, 3, 4)),
        (Upsample("trilinear", scale=3), (3, 4, 2, 3, 4), (9, 12, 6, 3, 4)),
        (Upsample("trilinear", size=(4, 6, 4)), (3, 4, 2, 3, 4), (4, 6, 4, 3, 4)),
        (Upsample("nearest", scale=(2,)), (3, 2, 3), (6, 2, 3)),
        (Upsample("nearest", scale=(2, 3)), (3, 4, 2, 3), (6, 12, 2, 3)),
        (Upsample("nearest", scale=(2,)), (3, 4, 2, 3), (6, 4, 2, 3)),
        (Upsample("nearest", scale=2), (3, 4, 2, 3), (6, 8, 2, 3)),
        (Upsample("nearest", size=(6, 8)), (3, 4, 2, 3), (6, 8, 2, 3)),
        (Upsample(2), (3, 4, 2, 3), (6, 8, 2, 3)),
        (Upsample(3), (2, 3, 4, 5, 1, 1), (6, 9, 12, 15, 1, 1)),
        (PixelShuffle(2), (3, 18, 3), (6, 9, 3)),
        (PixelShuffle(3), (3, 4, 18, 3), (9, 12, 2, 3)),
        (PixelShuffle(2), (3, 4, 5, 8, 3), (6, 8, 10, 1, 3)),
    ],
    ids=str,
)
def test_sizes_of_flux_s_tests(m, size, want):
    x = images(*size)
    y = m(x)
    assert y.shape == want and y.dtype == torch.float32 and rev(y).is_contiguous()
    assert outputsize(m, size) == want
    assert m(x.double()).dtype == torch.float64
    assert len(params(m)) == 0 and gradient(lambda m: m(x).sum(), m) == (None,)
    close(pickle.loads(pickle.dumps(m))(x), y)
    assert str(f64(m)) == str(m)


@pytest.mark.parametrize(
    ("m", "module", "size"),
    [
        (Upsample(2), nn.Upsample(scale_factor=2), (5, 2, 3)),
        (Upsample((2, 3)), nn.Upsample(scale_factor=(3, 2)), (3, 4, 2, 3)),
        (Upsample(size=(6, 8)), nn.Upsample((8, 6)), (3, 4, 2, 3)),
        (
            Upsample(2, "bilinear"),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
            (3, 4, 2, 3),
        ),
        (
            Upsample(mode="bilinear", size=(5, 3)),
            nn.Upsample((3, 5), mode="bilinear", align_corners=True),
            (3, 4, 2, 3),
        ),
        (
            Upsample("trilinear", scale=(2, 1, 3)),
            nn.Upsample(scale_factor=(3, 1, 2), mode="trilinear", align_corners=True),
            (3, 4, 2, 3, 2),
        ),
        (PixelShuffle(3), nn.PixelShuffle(3), (3, 4, 18, 2)),
    ],
    ids=str,
)
def test_they_are_torch_s(m, module, size):
    x = images(*size)
    xr = rev(x).clone().requires_grad_()
    yr = module(xr)
    y = m(x)
    close(y, rev(yr.detach()))
    u = torch.randn_like(y)
    dx = gradient(lambda x: (m(x) * u).sum(), x)[0]
    close(dx, rev(torch.autograd.grad((yr * rev(u)).sum(), xr)[0]))
    assert torch.autograd.gradcheck(m, x.double()[:2, ..., :1].requires_grad_())


def test_all_ways_to_write_it():
    x = images(3, 4, 2, 3)
    close(Upsample(2)(x), Upsample(scale=2)(x))
    close(Upsample(2)(x), x.repeat_interleave(2, 0).repeat_interleave(2, 1))
    for m in (Upsample(2, "bilinear"), Upsample("bilinear", scale=2), Upsample(mode="bilinear", scale=2)):
        assert repr(m) == "Upsample(:bilinear, scale = 2)"
        close(m(x), upsample_bilinear(x, 2))
    m = Upsample((2, 3))
    assert (m.mode, m.scale, m.size) == ("nearest", (2, 3), None)
    assert list(children(m).keys()) == ["mode", "scale", "size"]
    assert repr(Upsample("trilinear", size=(4, 6, 4))) == "Upsample(:trilinear, size = (4, 6, 4))"
    m = Chain(Conv((3, 3), 1 | to | 4, pad=1), PixelShuffle(2), Upsample(2))
    assert "\n  PixelShuffle(2),\n  Upsample(:nearest, scale = 2),\n" in repr(m)
    assert m(images(5, 6, 1, 2)).shape == (20, 24, 1, 2)


def test_pixel_shuffle_numbers_of_the_manual():
    p = PixelShuffle(2)
    assert repr(p) == str(p) == "PixelShuffle(2)" and p.r == 2

    def numbers(factor, columns):
        row, col, channel = torch.meshgrid(
            torch.arange(1.0, 3), torch.arange(1.0, columns + 1), torch.arange(1.0, 5), indexing="ij"
        )
        return (factor * row + col + channel / 10)[..., None]

    close(
        p(numbers(2, 2))[:, :, 0, 0],
        [[3.1, 3.3, 4.1, 4.3], [3.2, 3.4, 4.2, 4.4], [5.1, 5.3, 6.1, 6.3], [5.2, 5.4, 6.2, 6.4]],
    )
    close(
        p(numbers(3, 3))[:, :, 0, 0],
        [
            [4.1, 4.3, 5.1, 5.3, 6.1, 6.3],
            [4.2, 4.4, 5.2, 5.4, 6.2, 6.4],
            [7.1, 7.3, 8.1, 8.3, 9.1, 9.3],
            [7.2, 7.4, 8.2, 8.4, 9.2, 9.4],
        ],
    )


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Upsample(), ValueError, r"Either scale or size should be specified \(but not both\)"),
        (lambda: Upsample(scale=2, size=(3, 3)), ValueError, r"Either scale or size"),
        (lambda: Upsample("bicubic", scale=2), ValueError, 'mode="bicubic" is not supported'),
        (lambda: Upsample(2, "linear"), ValueError, 'mode="linear" is not supported'),
        (lambda: Upsample(2, scale=3), TypeError, "Upsample got a scale twice: 2 and 3"),
        (lambda: Upsample(2, "nearest", 3), TypeError, "1 argument too many"),
        (lambda: Upsample(2.5)(torch.ones(2, 2, 1, 1)), TypeError, "expects a tuple"),
        (lambda: Upsample(size=(3, 4))(torch.ones(2, 2, 1, 1)), DimensionMismatch, "can't make"),
        (lambda: Upsample("bilinear", scale=(2, 2))(torch.ones(2, 1, 1)), DimensionMismatch, "expects 1 numbers"),
        (lambda: Upsample("bilinear", scale=2)(torch.ones(2, 1)), DimensionMismatch, "expects one to three axes"),
        (lambda: Upsample(2)("x"), TypeError, "expects an array as input, but got 'x'"),
        (lambda: PixelShuffle(2.0), TypeError, "PixelShuffle expects a whole number, and got 2.0"),
        (lambda: PixelShuffle(0), ValueError, "PixelShuffle expects a number of at least 1, and got 0"),
        (lambda: PixelShuffle(2)(torch.ones(2, 2, 6, 1)), DimensionMismatch, "expects a multiple of 4 channels"),
    ],
)
def test_wrong_use(make, error, match):
    with pytest.raises(error, match=match):
        make()
