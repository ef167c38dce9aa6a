from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch.base import reshape
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.batched import batched_mul
from fluxtorch.nnlib.conv import conv
from fluxtorch.nnlib.unfold import fold, unfold

F64 = torch.float64
X = torch.tensor([100, 2, 3, 40, 5, 6, 700])[:, None, None]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y):
    torch.testing.assert_close(x, y)


def test_unfold_of_the_manual():
    w = torch.tensor([1, 0, -1])[:, None, None]
    kws = {"pad": 1, "stride": 2, "flipped": True}
    z = unfold(X, w.shape, **kws)
    assert z[:, :, 0].tolist() == [[0, 100, 2], [2, 3, 40], [40, 5, 6], [6, 700, 0]]
    assert batched_mul(z, w).flatten().tolist() == [-2, -38, 34, 6]
    assert conv(X, w, **kws).flatten().tolist() == [-2, -38, 34, 6]


def test_fold_of_the_manual():
    y = unfold(X, (3, 1, 1))
    assert y[:, :, 0].tolist() == [[100, 2, 3], [2, 3, 40], [3, 40, 5], [40, 5, 6], [5, 6, 700]]
    z = fold(y, X.shape, (3, 1, 1))
    assert z.flatten().tolist() == [100, 4, 9, 120, 15, 12, 700]
    divisor = fold(unfold(torch.ones(X.shape), (3, 1, 1)), X.shape, (3, 1, 1))
    assert divisor.flatten().tolist() == [1, 2, 3, 3, 3, 2, 1]
    assert (z / divisor).flatten().tolist() == [100, 2, 3, 40, 5, 6, 700]


def test_sizes_by_the_tests_of_nnlib():
    x, size = torch.rand(16, 16, 3, 10), (5, 5, 3, 2)
    assert unfold(x, size).shape == (144, 75, 10)
    assert unfold(x, size, pad=2).shape == (256, 75, 10)
    assert unfold(x, size, stride=2).shape == (36, 75, 10)
    assert unfold(x, size, dilation=2).shape == (64, 75, 10)


OPTIONS = [
    {},
    {"pad": 1, "stride": 2},
    {"pad": (2, 0, 1, 1, 0, 1), "dilation": 2},
    {"stride": (1, 2, 3), "pad": (1, 0, 2)},
]


def cut(kws, d):
    return {k: v[: len(v) * d // 3] if isinstance(v, tuple) else v for k, v in kws.items()}


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kws", OPTIONS)
@pytest.mark.parametrize("flipped", [True, False])
def test_windows_are_those_of_conv(d, kws, flipped):
    kws = cut(kws, d)
    x, w = torch.rand(*(7, 8, 6)[:d], 2, 3, dtype=F64), torch.rand(*(3, 2, 1)[:d], 2, 4, dtype=F64)
    z = batched_mul(unfold(x, w.shape, flipped=flipped, **kws), reshape(w, -1, 4))
    y = conv(x, w, flipped=flipped, **kws)
    close(z, reshape(y, -1, 4, 3))


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("kws", OPTIONS)
@pytest.mark.parametrize("flipped", [True, False])
def test_fold_is_the_transpose(d, kws, flipped):
    kws = {**cut(kws, d), "flipped": flipped}
    x, size = torch.rand(*(7, 8, 6)[:d], 2, 3, dtype=F64, requires_grad=True), (*(3, 2, 1)[:d], 2, 1)
    y = unfold(x, size, **kws)
    Δ = torch.rand_like(y)
    close(fold(Δ, x.shape, size, **kws), torch.autograd.grad(y, x, Δ)[0])


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_fold_is_the_inverse_but_for_a_divisor(d, stride):
    x, size = torch.rand(*(8,) * d, 3, 2, dtype=F64), (*(3,) * d, 3, 3)
    there_and_back = lambda x: fold(unfold(x, size, pad=1, stride=stride), x.shape, size, pad=1, stride=stride)  # noqa: E731
    close(there_and_back(x) / there_and_back(torch.ones_like(x)), x)


def test_images_as_torch_does_it():
    x = torch.rand(2, 3, 6, 7)
    y = unfold(x.permute(3, 2, 1, 0), (3, 2, 3, 1), pad=1, stride=2).permute(2, 1, 0)
    assert torch.equal(y, F.unfold(x, (2, 3), padding=1, stride=2))
    assert y.is_contiguous()
    z = fold(y.permute(2, 1, 0), (7, 6, 3, 2), (3, 2, 3, 1), pad=1, stride=2).permute(3, 2, 1, 0)
    close(z, F.fold(y, (6, 7), (2, 3), padding=1, stride=2))


def test_element_types_stay():
    for dtype in (torch.int64, torch.float16, torch.complex64):
        x = torch.ones(4, 1, 1).to(dtype)
        assert unfold(x, (2, 1, 1)).dtype == dtype
        assert fold(unfold(x, (2, 1, 1)), (4, 1, 1), (2, 1, 1)).dtype == dtype


@pytest.mark.parametrize("d", [1, 2, 3])
def test_gradients(d):
    x, size = torch.rand(*(3, 4, 2)[:d], 2, 1, dtype=F64, requires_grad=True), (*(2,) * d, 2, 1)
    assert gradcheck(lambda x: unfold(x, size, pad=1), x)
    assert gradgradcheck(lambda x: unfold(x, size), x)
    y = unfold(x, size).detach().requires_grad_()
    assert gradcheck(lambda y: fold(y, x.shape, size), y)
    assert gradgradcheck(lambda y: fold(y, x.shape, size), y)


def test_what_does_not_fit():
    one = torch.ones
    with pytest.raises(DimensionMismatch, match="unfold can't fit a window of 4 into axis 0 of a 3×1×1"):
        unfold(one(3, 1, 1), (4, 1, 1))
    with pytest.raises(DimensionMismatch, match="window of 5 into axis 1 of a 9×4×1×1"):
        unfold(one(9, 4, 1, 1), (3, 3, 1, 1), dilation=2)
    for size in ((2, 1, 1), (2,), (2, 2, 2, 1)):
        with pytest.raises(DimensionMismatch, match=r"kernel_size \(w, h, 2, out\) of 3 numbers"):
            unfold(one(3, 2, 1), size)
        with pytest.raises(DimensionMismatch, match=r"kernel_size \(w, h, 2, out\) of 3 numbers"):
            fold(one(2, 4, 1), (3, 2, 1), size)
    with pytest.raises(DimensionMismatch, match="one to three axes and two more"):
        unfold(one(3, 2), (2, 2))
    with pytest.raises(DimensionMismatch, match="output_size of one to three axes"):
        fold(one(3, 2, 1), (3, 2), (2, 2))
    with pytest.raises(DimensionMismatch, match=r"array of size \(2, 2, 1\) .*, and got a 3×2×1"):
        fold(one(3, 2, 1), (3, 1, 1), (2, 1, 1))
    with pytest.raises(DimensionMismatch, match="pad must have 1"):
        unfold(one(3, 1, 1), (2, 1, 1), pad=(1, 2, 3))
