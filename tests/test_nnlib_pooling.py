from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch.base import reshape
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.conv import meanpool
from fluxtorch.nnlib.pooling import lpnormpool

F64 = torch.float64

# By the tests of NNlib: the size of x, then p and options, the result, and the gradient by x for the result itself.
CASES = [
    ((5,), 4.5, {}, [2.019312856150994, 4.221163518110637], [0.17258020, 1.95252210, 1.27745012, 3.49646777, 0]),
    (
        (5,),
        3.0,
        {"stride": 1},
        [2.080083823051904, 3.2710663101885897, 4.497941445275415, 5.738793548317167],
        [0.48074986, 3.14584226, 4.75231171, 6.34522526, 4.35631632],
    ),
    ((5,), 2.0, {"pad": 1}, [1.0, 3.605551275463989, 6.4031242374328485], [1.0, 2.0, 3.0, 4.0, 5.0]),
    (
        (5, 4),
        2.5,
        {},
        [[8.71909, 24.9703], [11.7336, 28.3804]],
        [
            [0.33866, 4.97727, 7.30092, 12.8076],
            [0.957876, 6.27208, 8.31879, 14.0269],
            [1.51693, 6.6057, 8.79844, 14.3351],
            [2.33547, 7.8822, 9.83293, 15.5461],
            [0.0, 0.0, 0.0, 0.0],
        ],
    ),
    (
        (5, 4),
        1.5,
        {"stride": 1},
        [
            [11.1128, 23.134, 35.5704],
            [13.4219, 25.6082, 38.0707],
            [15.8033, 28.0907, 40.5735],
            [18.2249, 30.5795, 43.0782],
        ],
        [
            [3.33359, 19.9471, 35.7329, 23.8564],
            [9.89551, 44.627, 76.2257, 50.0307],
            [13.231, 50.9101, 82.5686, 53.2022],
            [16.4888, 57.223, 88.9133, 56.3742],
            [9.54591, 30.9869, 46.8371, 29.3524],
        ],
    ),
    (
        (5, 4),
        3.5,
        {"pad": 1},
        [[1.0, 11.3616, 16.0], [3.19158, 15.9662, 21.3545], [5.56869, 18.7771, 23.7903]],
        [
            [1.0, 2.30261, 10.4791, 16.0],
            [0.992125, 2.0321, 7.81903, 12.075],
            [2.73398, 2.83743, 9.5512, 13.9299],
            [2.43512, 2.98652, 9.0132, 13.5608],
            [4.25398, 3.8865, 10.7099, 15.4161],
        ],
    ),
]


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


@pytest.mark.parametrize(("size", "p", "kws", "y", "dx"), CASES)
def test_numbers_of_nnlib(size, p, kws, y, dx):
    n = len(size)
    x = reshape(torch.arange(1, math.prod(size) + 1, dtype=F64), *size, 1, 1).requires_grad_()
    close(lpnormpool(x, p, (1,) * n), x)
    result = lpnormpool(x, p, (2,) * n, **kws)
    close(result[..., 0, 0], y, atol=1e-3, rtol=0)
    (g,) = torch.autograd.grad(result, x, result.detach())
    close(g[..., 0, 0], dx, atol=1e-3, rtol=0)


def test_beside_meanpool():
    torch.manual_seed(0)
    x, k = torch.rand(6, 5, 2, 3), (3, 2)
    close(lpnormpool(x, 1, k) / 6, meanpool(x, k))
    close(lpnormpool(x, 2, k) ** 2 / 6, meanpool(x**2, k))
    close(lpnormpool(-x, 2, k), lpnormpool(x, 2, k))
    y = lpnormpool(x, 2.5, k, pad=(1, 0, 0, 1), stride=(1, 2))
    assert y.shape == (5, 3, 2, 3)
    close(y[0, 0], (x[:2, :2] ** 2.5).sum((0, 1)) ** 0.4)
    volume = torch.rand(2, 2, 2, 1, 1)
    close(lpnormpool(volume, 3, (2, 2, 2)).flatten(), (volume**3).sum()[None] ** (1 / 3))


def test_element_types():
    x = torch.tensor([3, 4])[:, None, None]
    assert lpnormpool(x, 2, (2,)).item() == 5
    assert lpnormpool(x.half(), 2, (2,)).dtype == torch.float16


@pytest.mark.parametrize("p", [1, 2, 3.5, 0.5])
def test_gradients(p):
    torch.manual_seed(0)
    x = torch.rand(3, 2, 1, 2, dtype=F64).add(0.5).requires_grad_()
    assert gradcheck(lambda x: lpnormpool(x, p, (2, 2), stride=1), x)
    assert gradgradcheck(lambda x: lpnormpool(x, p, (2,)), x[:, 0])


def test_a_window_of_zeros():
    for p, slope in ((1, 1), (2, 0), (2.5, 0)):
        x = torch.zeros(2, 1, 1, requires_grad=True)
        y = lpnormpool(x, p, (2,))
        assert y.item() == 0
        assert torch.autograd.grad(y.sum(), x)[0].flatten().tolist() == [slope, slope]


def test_what_it_refuses():
    x = torch.ones(4, 1, 1)
    for p in (0, -1, math.inf, math.nan):
        with pytest.raises(ValueError, match="expects 0 < p < Inf, and got p ="):
            lpnormpool(x, p, (2,))
    with pytest.raises(DimensionMismatch, match="window"):
        lpnormpool(x, 2, (2, 2))
    with pytest.raises(DimensionMismatch, match="window of 5 doesn't fit"):
        lpnormpool(x, 2, (5,))
    with pytest.raises(DimensionMismatch, match="spatial axes"):
        lpnormpool(torch.ones(4, 1), 2, (2,))
