from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.sampling import grid_sample
from fluxtorch.zygote import gradient

F64 = torch.float64


def grid(*rows):
    """`(2, W, H, 1)` of H rows of W places `(x, y)`."""
    return torch.tensor(rows, dtype=F64).permute(2, 1, 0)[..., None]


def test_grid_sample_of_the_manual():
    x = torch.tensor([[1.0, 3.0], [2.0, 4.0]], dtype=F64)[:, :, None, None]
    places = grid([(-3, -1), (0, -1), (1, -1)], [(-1, 1), (0, 1), (3, 1)])
    y = grid_sample(x, places, padding_mode="zeros")
    assert y.shape == (3, 2, 1, 1)
    assert y[:, :, 0, 0].tolist() == [[0, 3], [1.5, 3.5], [2, 0]]
    assert torch.equal(y, grid_sample(x, places))
    y = grid_sample(x, places, padding_mode="border")
    assert y[:, :, 0, 0].tolist() == [[1, 3], [1.5, 3.5], [2, 4]]


@pytest.mark.parametrize(
    ("mode", "dgrid"), [("zeros", [[[0, 0], [-0.5, 0]], [[0, -0.5], [-0.5, -0.5]]]), ("border", [[[0, 0]] * 2] * 2)]
)
def test_known_gradients(mode, dgrid):
    # By the tests of NNlib; corners count as outside.
    x = torch.ones(2, 2, 1, 1, dtype=F64)
    corners = grid([(-1, -1), (1, -1)], [(-1, 1), (1, 1)])
    assert torch.equal(grid_sample(x, corners, padding_mode=mode), x)
    dx, dg = gradient(lambda x, g: grid_sample(x, g, padding_mode=mode).sum(), x, corners)
    assert torch.equal(dx, x)
    assert torch.equal(dg, grid(*dgrid))


def test_out_of_bounds():
    x = torch.ones(2, 2, 1, 1, dtype=F64)
    places = grid([(-3, -1), (0, -1), (3, -1)], [(-1, 3), (0, 1), (1, 3)])
    assert grid_sample(x, places)[:, :, 0, 0].tolist() == [[0, 0], [1, 1], [0, 0]]
    assert torch.equal(grid_sample(x, places, padding_mode="border"), torch.ones(3, 2, 1, 1, dtype=F64))


def test_axes_of_images_that_are_not_square():
    torch.manual_seed(0)
    x, g = torch.rand(3, 2, 5, 4), torch.rand(3, 6, 7, 2) * 3 - 1.5
    for mode in ("zeros", "border"):
        y = grid_sample(x.permute(3, 2, 1, 0), g.permute(3, 2, 1, 0), padding_mode=mode)
        assert y.shape == (7, 6, 2, 3)
        expected = F.grid_sample(x, g, padding_mode=mode, align_corners=True)
        assert torch.equal(y.permute(3, 2, 1, 0), expected)
    # The first number counts along the first axis, from its first element to its last.
    x = torch.arange(5.0)[:, None, None, None].expand(5, 3, 1, 1)
    places = torch.tensor([[-1.0, 0.25, 1.0], [0.3, -0.7, 0.1]])[:, :, None, None]
    torch.testing.assert_close(grid_sample(x, places).flatten(), torch.tensor([0, 2.5, 4]))


@pytest.mark.parametrize("mode", ["zeros", "border"])
def test_gradients(mode):
    torch.manual_seed(0)
    x = torch.rand(3, 4, 2, 2, dtype=F64, requires_grad=True)
    g = (torch.rand(2, 2, 3, 2, dtype=F64) * 1.6 - 0.8).requires_grad_()
    assert gradcheck(lambda x, g: grid_sample(x, g, padding_mode=mode), (x, g))
    if torch.__version__ >= "2.12":  # before, torch's kernel had no second derivative
        assert gradgradcheck(lambda x, g: grid_sample(x, g, padding_mode=mode), (x, g[:, :1, :1]), fast_mode=True)


def test_element_types():
    places = grid([(-1, -1), (0.5, 0)])
    assert grid_sample(torch.ones(2, 2, 1, 1), places).dtype == torch.float32
    assert grid_sample(torch.ones(2, 2, 1, 1, dtype=torch.int64), places)[1, 0, 0, 0] == 1


def test_what_does_not_fit():
    x = torch.ones(2, 2, 1, 1)
    for shape in ((2, 2, 2, 2), (3, 2, 2, 1), (2, 2, 2)):
        with pytest.raises(DimensionMismatch, match=r"an input \(W, H, C, N\) and a grid"):
            grid_sample(x, torch.ones(shape))
    with pytest.raises(ValueError, match="'reflection'"):
        grid_sample(x, torch.ones(2, 2, 2, 1), padding_mode="reflection")
