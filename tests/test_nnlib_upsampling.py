from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch.base import reshape
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.upsampling import (
    pixel_shuffle,
    upsample_bilinear,
    upsample_linear,
    upsample_nearest,
    upsample_trilinear,
)
from fluxtorch.zygote import gradient

F64 = torch.float64
LINEAR = [upsample_linear, upsample_bilinear, upsample_trilinear]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


def image(rows, dtype=torch.float32):
    return torch.tensor(rows, dtype=dtype)[:, :, None, None]


def fourfold(rows):
    """An image in both channels of both items of a batch."""
    return image(rows).repeat(1, 1, 2, 2)


# ---------------------------------------------------------------- nearest


def test_nearest_of_the_manual():
    x = [[1, 2, 3], [4, 5, 6]]
    y = upsample_nearest(x, (2, 3))
    assert y.tolist() == [[1, 1, 1, 2, 2, 2, 3, 3, 3]] * 2 + [[4, 4, 4, 5, 5, 5, 6, 6, 6]] * 2
    assert torch.equal(y, upsample_nearest(x, size=(4, 9)))
    y = upsample_nearest(x, (2,))
    assert y.tolist() == [[1, 2, 3], [1, 2, 3], [4, 5, 6], [4, 5, 6]]
    assert torch.equal(y, upsample_nearest(x, size=(4,)))


def test_nearest_by_the_tests_of_nnlib():
    x = image([[1, 2], [3, 4]])
    assert upsample_nearest(x, (3, 3))[0, :, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]
    y = upsample_nearest(x, (2, 3))
    assert y.shape == (4, 6, 1, 1)
    assert torch.equal(y, upsample_nearest(x, size=(4, 6)))
    (g,) = gradient(lambda x: (upsample_nearest(x, (2, 3)) * y).sum(), x)
    assert g[:, :, 0, 0].tolist() == [[6, 12], [18, 24]]


def test_nearest_as_torch_does_it():
    x = torch.rand(2, 3, 5, 4)
    y = upsample_nearest(x.permute(3, 2, 1, 0), (3, 2)).permute(3, 2, 1, 0)
    assert torch.equal(y, F.interpolate(x, scale_factor=(2, 3)))
    assert y.is_contiguous()


def test_nearest_is_exact_for_large_scales():
    x = torch.arange(50.0).reshape(50, 1, 1)
    for s in (25, 49, 97, 1001):
        assert torch.equal(upsample_nearest(x, (s,))[:, 0, 0], x[:, 0, 0].repeat_interleave(s))


def test_nearest_gradients():
    x = torch.rand(2, 3, 2, dtype=F64, requires_grad=True)
    assert gradcheck(lambda x: upsample_nearest(x, (2, 3)), x)
    assert gradgradcheck(lambda x: upsample_nearest(x, size=(2, 3, 4)), x)


def test_nearest_refuses():
    x = image([[1, 2], [3, 4]])
    with pytest.raises(DimensionMismatch, match="along 5 axes"):
        upsample_nearest(x, (1, 2, 3, 4, 5))
    with pytest.raises(DimensionMismatch, match=r"can't make \(3, 4\) of a 2×2×1×1"):
        upsample_nearest(x, size=(3, 4))
    with pytest.raises(DimensionMismatch, match="along 0 axes"):
        upsample_nearest(x, ())
    with pytest.raises(TypeError, match="tuple with one number for each axis"):
        upsample_nearest(x, 2)
    with pytest.raises(ValueError, match="at least 1, and is 0"):
        upsample_nearest(x, (0,))
    with pytest.raises(TypeError, match=r"whole number, and is 1\.5"):
        upsample_nearest(x, (1.5,))
    for kws in ({}, {"scale": (2,), "size": (4,)}):
        with pytest.raises(TypeError, match="either a scale or a size"):
            upsample_nearest(x, **kws)


# ---------------------------------------------------------------- linear


def test_linear_by_the_tests_of_nnlib():
    x = torch.tensor([1.0, 2, 3, 4])[:, None, None].expand(4, 3, 1)
    y = torch.linspace(1, 4, 10)[:, None, None].expand(10, 3, 1)
    close(upsample_linear(x, 2.5), y)
    close(upsample_linear(x, (2.5,)), y)
    close(upsample_linear(x, size=10), y)
    close(upsample_linear(x, size=(10,)), y)


def test_bilinear_of_the_manual():
    x = image([[1, 2, 3], [4, 5, 6]])
    rows = torch.arange(1, 3.1, 0.25) + torch.arange(4)[:, None]
    y = upsample_bilinear(x, (2, 3))
    close(y[:, :, 0, 0], rows)
    assert torch.equal(y, upsample_bilinear(x, size=(4, 9)))
    y = upsample_bilinear(x, (2.5, 3.5))[:, :, 0, 0]
    assert y.shape == (5, 10)
    shown = [
        [1.0, 1.22222, 1.44444, 1.66667, 1.88889, 2.33333, 2.55556, 2.77778, 3.0],
        [1.75, 1.97222, 2.19444, 2.41667, 2.63889, 3.08333, 3.30556, 3.52778, 3.75],
        [2.5, 2.72222, 2.94444, 3.16667, 3.38889, 3.83333, 4.05556, 4.27778, 4.5],
        [3.25, 3.47222, 3.69444, 3.91667, 4.13889, 4.58333, 4.80556, 5.02778, 5.25],
        [4.0, 4.22222, 4.44444, 4.66667, 4.88889, 5.33333, 5.55556, 5.77778, 6.0],
    ]
    close(y[:, [0, 1, 2, 3, 4, 6, 7, 8, 9]], shown, atol=1e-5, rtol=0)


def test_bilinear_by_the_tests_of_nnlib():
    x = fourfold([[1, 2], [3, 4]])
    y = [
        [1, 4 / 3, 5 / 3, 2],
        [7 / 5, 26 / 15, 31 / 15, 12 / 5],
        [9 / 5, 32 / 15, 37 / 15, 14 / 5],
        [11 / 5, 38 / 15, 43 / 15, 16 / 5],
        [13 / 5, 44 / 15, 49 / 15, 18 / 5],
        [3, 10 / 3, 11 / 3, 4],
    ]
    close(upsample_bilinear(x, (3, 2)), fourfold(y))
    (g,) = gradient(lambda x: upsample_bilinear(x, size=(6, 4)).sum(), torch.ones(2, 2, 2, 1))
    close(g, torch.full((2, 2, 2, 1), 6))
    y = [[1 + i / 2 + j / 4 for j in range(5)] for i in range(5)]
    close(upsample_bilinear(x.double(), 2.5), fourfold(y))


def test_integers_are_rounded():
    y = upsample_bilinear(image([[1, 3], [3, 5]], torch.uint8), 1.5)
    assert y.dtype == torch.uint8
    assert y[:, :, 0, 0].tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]
    far = 2**40
    assert upsample_linear([[[far]], [[far + 4]]], size=3).flatten().tolist() == [far, far + 2, far + 4]
    assert gradient(lambda x: upsample_linear(x, size=3).sum(), [[[1]], [[2]]])[0].flatten().tolist() == [1.5, 1.5]


def test_trilinear_by_the_tests_of_nnlib():
    x = torch.tensor([1.0, 2, 3])[:, None, None].expand(3, 3, 3, 1, 1)
    y = upsample_trilinear(x, size=(5, 5, 5))
    close(y, torch.tensor([1, 1.5, 2, 2.5, 3])[:, None, None].expand(5, 5, 5, 1, 1))
    f = lambda x: upsample_trilinear(x, (2, 2, 2), align_corners=False).sum()  # noqa: E731
    close(gradient(f, torch.ones(4, 4, 4, 1, 1))[0], torch.full((4, 4, 4, 1, 1), 8))
    assert upsample_trilinear(x, (2.5, 3.5, math.pi)).shape == (7, 10, 9, 1, 1)


@pytest.mark.parametrize("align", [True, False])
def test_linear_as_torch_does_it(align):
    x = torch.rand(2, 3, 5, 4)
    y = upsample_bilinear(x.permute(3, 2, 1, 0), size=(7, 6), align_corners=align).permute(3, 2, 1, 0)
    assert torch.equal(y, F.interpolate(x, (6, 7), mode="bilinear", align_corners=align))
    assert y.is_contiguous()


def test_without_aligned_corners():
    # An output pixel i looks at (i + 1/2) * W / W' - 1/2, not beyond the first centre.
    y = upsample_linear(torch.tensor([0.0, 4.0, 8.0]).reshape(3, 1, 1), 2, align_corners=False)
    close(y.flatten(), [0, 1, 3, 5, 7, 8])


def test_the_same_size_is_the_same_array():
    x = torch.rand(3, 2, 1)
    assert upsample_linear(x, 1) is x
    assert upsample_linear(x, size=3) is x


@pytest.mark.parametrize("d", [1, 2, 3])
def test_complex_numbers(d):
    x = torch.randn(*(4, 8, 12)[:d], 1, 1, dtype=torch.complex64)
    for f, k, size in ((LINEAR[d - 1], 2, (8, 24, 48)[:d]), (upsample_nearest, (2,) * d, (8, 24, 48)[:d])):
        for kws in ({"scale": k}, {"size": size}):
            y = f(x, **kws)
            assert torch.equal(y.real, f(x.real, **kws))
            assert torch.equal(y.imag, f(x.imag, **kws))


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("align", [True, False])
def test_linear_gradients(d, align):
    x = torch.rand(*(2,) * d, 1, 1, dtype=F64, requires_grad=True)
    assert gradcheck(lambda x: upsample_linear(x, 1.5, align_corners=align), x)
    assert gradgradcheck(lambda x: upsample_linear(x, 1.5, align_corners=align), x)


def test_linear_refuses():
    x = torch.rand(2, 3, 1, 1)
    with pytest.raises(DimensionMismatch, match="expects 2 numbers"):
        upsample_bilinear(x, (2, 2, 2))
    with pytest.raises(DimensionMismatch, match="expects 2 numbers"):
        upsample_bilinear(x, size=4)
    with pytest.raises(DimensionMismatch, match="upsample_linear expects one to three axes"):
        upsample_linear(torch.rand(2, 3), 2)
    with pytest.raises(ValueError, match="size must be at least 1, and is 0"):
        upsample_bilinear(x, 0.1)
    with pytest.raises(TypeError, match=r"whole number, and is 4\.5"):
        upsample_bilinear(x, size=(4.5, 4))
    with pytest.raises(TypeError, match="either a scale or a size"):
        upsample_trilinear(torch.rand(2, 2, 2, 1, 1))


# ---------------------------------------------------------------- pixel_shuffle


def test_pixel_shuffle_of_the_manual():
    x = torch.tensor([[[10 * i + j + c / 10 for c in range(1, 5)] for j in (1, 2, 3)] for i in (1, 2)])[..., None]
    y = [
        [11.1, 11.3, 12.1, 12.3, 13.1, 13.3],
        [11.2, 11.4, 12.2, 12.4, 13.2, 13.4],
        [21.1, 21.3, 22.1, 22.3, 23.1, 23.3],
        [21.2, 21.4, 22.2, 22.4, 23.2, 23.4],
    ]
    close(pixel_shuffle(x, 2), image(y))
    x = torch.tensor([[i + c / 10 for c in range(1, 7)] for i in (1, 2, 3)])[..., None]
    y = [[i + (c + k) / 10 for c in (1, 3, 5)] for i in (1, 2, 3) for k in (0, 1)]
    close(pixel_shuffle(x, 2)[..., 0], y)


def test_pixel_shuffle_by_the_tests_of_nnlib():
    y = torch.tensor([[1, 9, 3, 11], [5, 13, 7, 15], [2, 10, 4, 12], [6, 14, 8, 16]])
    assert torch.equal(pixel_shuffle(reshape(range(1, 17), 2, 2, 4, 1), 2), y[:, :, None, None])
    z = pixel_shuffle(reshape(range(1, 33), 2, 2, 8, 1), 2)
    assert torch.equal(z, torch.stack([y, y + 16], 2)[..., None])
    x = reshape(range(1, 4 * 3 * 27 * 2 + 1), 4, 3, 27, 2)
    y = pixel_shuffle(x, 3)
    assert y.shape == (12, 9, 3, 2)
    assert torch.equal(y, torch.cat([pixel_shuffle(x[..., :1], 3), pixel_shuffle(x[..., 1:], 3)], 3))


def test_pixel_shuffle_as_torch_does_it():
    x = torch.rand(2, 18, 4, 5)
    y = pixel_shuffle(x.permute(3, 2, 1, 0), 3).permute(3, 2, 1, 0)
    assert torch.equal(y, F.pixel_shuffle(x, 3))
    assert y.is_contiguous()


@pytest.mark.parametrize("d", [1, 2, 3])
def test_pixel_shuffle_gradients(d):
    x = torch.rand(*(2, 1, 3)[:d], 2**d * 2, 2, dtype=F64, requires_grad=True)
    assert pixel_shuffle(x, 2).shape == (*(4, 2, 6)[:d], 2, 2)
    assert gradcheck(lambda x: pixel_shuffle(x, 2), x)
    assert gradgradcheck(lambda x: pixel_shuffle(x, 2), x[..., :1])


def test_pixel_shuffle_refuses():
    with pytest.raises(DimensionMismatch, match="at least three axes, and got a 2×4"):
        pixel_shuffle(torch.ones(2, 4), 2)
    with pytest.raises(DimensionMismatch, match="multiple of 4 channels, and got a 2×2×6×1"):
        pixel_shuffle(torch.ones(2, 2, 6, 1), 2)
    with pytest.raises(ValueError, match="at least 1"):
        pixel_shuffle(torch.ones(2, 2, 4, 1), 0)
