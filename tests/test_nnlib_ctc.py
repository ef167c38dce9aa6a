from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck

from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.ctc import ctc_loss
from fluxtorch.zygote import gradient

F64 = torch.float64


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


@pytest.mark.parametrize(
    ("x", "loss", "grad"),
    [
        (
            [[1, 2, 3], [2, 1, 1], [3, 3, 2]],
            3.6990738275138035,
            [[-0.317671, -0.427729, 0.665241], [0.244728, -0.0196172, -0.829811], [0.0729422, 0.447346, 0.16457]],
        ),
        (
            [[-3, 12, 8, 15], [4, 20, -2, 20], [8, -33, 6, 5]],
            8.02519869363453,
            [
                [-2.29294774655333e-06, -0.999662657278862, 1.75500863563993e-06, 0.00669284889063],
                [0.017985914969696, 0.999662657278861, -1.9907078755387e-06, -0.006693150917307],
                [-0.01798362202195, -2.52019580677916e-20, 2.35699239251042e-07, 3.02026677058789e-07],
            ],
        ),
    ],
)
def test_numbers_of_flux(x, loss, grad):
    x = torch.tensor(x, dtype=F64)
    close(ctc_loss(x, [0, 1]), loss)
    close(gradient(ctc_loss, x, [0, 1])[0], grad, rtol=1e-5, atol=1e-5)
    close(ctc_loss(x, torch.tensor([0, 1], dtype=torch.int32)), loss)


def test_the_sum_over_all_paths():
    # The definition: every path of classes that reads as the labels once repeats and then blanks are left out.
    torch.manual_seed(0)
    for classes, time, labels in [(3, 4, [0, 1]), (3, 5, [1, 1]), (2, 3, []), (4, 4, [2, 0, 1]), (3, 3, [0])]:
        x = torch.randn(classes, time, dtype=F64)
        p = x.softmax(0)
        total = 0.0
        for path in itertools.product(range(classes), repeat=time):
            read = [c for c, _ in itertools.groupby(path) if c != classes - 1]
            if read == labels:
                total += math.prod(float(p[c, t]) for t, c in enumerate(path))
        close(ctc_loss(x, labels), -math.log(total))


def test_gradients():
    torch.manual_seed(0)
    x = torch.rand(10, 50, dtype=F64, requires_grad=True)
    y = torch.randint(9, (30,))
    # The kernel treats its input as free; only together with logsoftmax is its gradient one.
    assert gradcheck(lambda x: ctc_loss(x, y), x, fast_mode=True)


def test_too_many_labels():
    assert ctc_loss(torch.ones(3, 2), [0, 0, 0]) == math.inf
    assert ctc_loss(torch.ones(3, 2), [0, 0]) == math.inf  # a blank must stand between


def test_element_types():
    x = torch.tensor([[1, 2, 3], [2, 1, 1], [3, 3, 2]])
    close(ctc_loss(x, [0, 1]), 3.6990738)
    close(ctc_loss(x.half(), [0, 1]), 3.6990738)
    assert ctc_loss(x.double(), [0, 1]).dtype == F64


def test_what_it_refuses():
    x = torch.ones(3, 4)
    for bad in ([2], [3], [-1], [0, 100]):
        with pytest.raises(ValueError, match="labels from 0 to 1, as class 2, the last, is the blank"):
            ctc_loss(x, bad)
    for bad in ([0.0], [True]):
        with pytest.raises(TypeError, match="whole numbers"):
            ctc_loss(x, bad)
    for a, b in ((torch.ones(3), [0]), (x[None], [0]), (x, [[0]]), (torch.ones(3, 0), [0])):
        with pytest.raises(DimensionMismatch, match=r"a matrix \(classes, time\) and a vector of labels"):
            ctc_loss(a, b)
