from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.glu import glu


def test_glu_by_the_tests_of_nnlib():
    x = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]]
    assert glu(x, 0).ceil().tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(DimensionMismatch, match="glu halves axis 1, but that of a 4×3 tensor of int64 is odd"):
        glu(x, 1)


def test_the_first_half_by_the_sigmoid_of_the_second():
    torch.manual_seed(0)
    x = torch.randn(4, 6, 2)
    torch.testing.assert_close(glu(x), x[:2] * torch.sigmoid(x[2:]))
    for dim in (1, 2, -1):
        torch.testing.assert_close(glu(x, dim), F.glu(x, dim))
    assert glu(x.half()).dtype == torch.float16


def test_gradients():
    torch.manual_seed(0)
    x = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(glu, x)
    assert gradgradcheck(glu, x)


def test_what_it_refuses():
    with pytest.raises(IndexError, match="axis 2"):
        glu([[1, 2]], 2)
    with pytest.raises(TypeError, match="takes an array, but got 3"):
        glu(3)
