from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch.base import reshape
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.padding import pad_circular, pad_constant, pad_reflect, pad_repeat, pad_symmetric, pad_zeros
from fluxtorch.zygote import gradient

R = reshape(range(1, 10), 3, 3)
OTHERS = [pad_repeat, pad_reflect, pad_symmetric, pad_circular]


def is_(x, y):
    assert x.tolist() == y


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_pad_constant_of_the_manual():
    r = reshape(range(1, 5), 2, 2)
    is_(
        pad_constant(r, (1, 2, 3, 4), 8),
        [
            [8, 8, 8, 8, 8, 8, 8, 8, 8],
            [8, 8, 8, 1, 3, 8, 8, 8, 8],
            [8, 8, 8, 2, 4, 8, 8, 8, 8],
            [8, 8, 8, 8, 8, 8, 8, 8, 8],
            [8, 8, 8, 8, 8, 8, 8, 8, 8],
        ],
    )
    is_(pad_constant(r, 1, 8), [[8, 8, 8, 8], [8, 1, 3, 8], [8, 2, 4, 8], [8, 8, 8, 8]])
    r = reshape(range(1, 28), 3, 3, 3)
    y = pad_constant(r, (2, 1), dims=0)
    is_(y[:, :, 0], [[0, 0, 0], [0, 0, 0], [1, 4, 7], [2, 5, 8], [3, 6, 9], [0, 0, 0]])
    is_(y[:, :, 1], [[0, 0, 0], [0, 0, 0], [10, 13, 16], [11, 14, 17], [12, 15, 18], [0, 0, 0]])
    is_(y[:, :, 2], [[0, 0, 0], [0, 0, 0], [19, 22, 25], [20, 23, 26], [21, 24, 27], [0, 0, 0]])
    with pytest.raises(DimensionMismatch, match=r"could not parse padding \(2, 1, 3\) and dims \(0, 1\)"):
        pad_constant(r, (2, 1, 3), dims=(0, 1))


def test_pad_constant_by_the_tests_of_nnlib():
    x = torch.rand(2, 2, 2)
    y = pad_constant(x, (3, 2, 4))
    assert y.shape == (8, 6, 10)
    assert torch.equal(y[3:5, 2:4, 4:6], x)
    assert y.count_nonzero() == x.count_nonzero()
    assert torch.equal(y, pad_zeros(x, (3, 2, 4)))
    assert torch.equal(pad_zeros(x, 2), pad_zeros(x, (2, 2, 2)))
    y = pad_constant(x, (3, 2, 4, 5), 1.2, dims=(0, 2))
    assert y.shape == (7, 2, 11)
    assert torch.equal(y[3:5, :, 4:6], x)
    y[3:5, :, 4:6] = 1.2
    assert (y == 1.2).all()
    assert torch.equal(pad_constant(x, (2, 2, 2, 2), 1.2, dims=(0, 2)), pad_constant(x, 2, 1.2, dims=(0, 2)))
    assert torch.equal(pad_constant(x, 1, dims=range(2)), pad_constant(x, 1, dims=(0, 1)))
    assert pad_constant(x, 1, dims=0).shape == (4, 2, 2)
    assert pad_constant(torch.ones(2, 3, 4), (1, 3), dims=(0, -1)).shape == (4, 3, 10)
    is_(pad_zeros([5, 6], (1, 2)), [0, 5, 6, 0, 0])


@pytest.mark.parametrize(
    ("pad", "dims", "ends"),
    [
        ((1, 2, 3, 4, 5, 6), (0, 1, 2), [(1, 2), (3, 4), (5, 6), (0, 0)]),
        ((1, 3), (0, 2), [(1, 1), (0, 0), (3, 3), (0, 0)]),
        (1, (0, 1, 2), [(1, 1), (1, 1), (1, 1), (0, 0)]),
        (3, None, [(3, 3), (3, 3)]),
        ((1, 0), 0, [(1, 0), (0, 0)]),
    ],
)
def test_what_pad_and_dims_mean_by_the_tests_of_nnlib(pad, dims, ends):
    x = torch.ones((1,) * len(ends))
    y = pad_zeros(x, pad, dims=dims)
    assert y.shape == tuple(begin + 1 + end for begin, end in ends)
    assert y.sum() == y[tuple(begin for begin, _ in ends)] == 1


def test_axes_in_any_order_keep_their_own_padding():
    x = torch.rand(2, 3, 4)
    assert torch.equal(pad_zeros(x, (1, 2, 3, 4), dims=(2, 0)), pad_zeros(x, (3, 4, 1, 2), dims=(0, 2)))
    for pad in OTHERS:
        assert torch.equal(pad(x, (1, 0, 0, 1), dims=(2, 0)), pad(x, (0, 1, 1, 0), dims=(0, 2)))


def test_pad_repeat_of_the_manual():
    is_(
        pad_repeat(R, (1, 2, 3, 4)),
        [
            [1, 1, 1, 1, 4, 7, 7, 7, 7, 7],
            [1, 1, 1, 1, 4, 7, 7, 7, 7, 7],
            [2, 2, 2, 2, 5, 8, 8, 8, 8, 8],
            [3, 3, 3, 3, 6, 9, 9, 9, 9, 9],
            [3, 3, 3, 3, 6, 9, 9, 9, 9, 9],
            [3, 3, 3, 3, 6, 9, 9, 9, 9, 9],
        ],
    )
    is_(pad_repeat(R, (1, 2)), [[1, 4, 7], [1, 4, 7], [2, 5, 8], [3, 6, 9], [3, 6, 9], [3, 6, 9]])
    is_(pad_repeat(R, (2, 2), dims=1), [[1, 1, 1, 4, 7, 7, 7], [2, 2, 2, 5, 8, 8, 8], [3, 3, 3, 6, 9, 9, 9]])
    x = torch.rand(2, 2, 2)
    y = pad_repeat(x, (3, 2, 4, 5))
    assert y.shape == (7, 11, 2)
    assert torch.equal(y[3:5, 4:6], x)
    y = pad_repeat(x, (3, 2, 4, 5), dims=(0, 2))
    assert y.shape == (7, 2, 11)
    assert torch.equal(y[3:5, :, 4:6], x)


def test_pad_reflect_of_the_manual():
    is_(
        pad_reflect(R, (1, 2, 1, 2)),
        [
            [5, 2, 5, 8, 5, 2],
            [4, 1, 4, 7, 4, 1],
            [5, 2, 5, 8, 5, 2],
            [6, 3, 6, 9, 6, 3],
            [5, 2, 5, 8, 5, 2],
            [4, 1, 4, 7, 4, 1],
        ],
    )
    is_(pad_reflect(R, (2, 2), dims=1), [[7, 4, 1, 4, 7, 4, 1], [8, 5, 2, 5, 8, 5, 2], [9, 6, 3, 6, 9, 6, 3]])
    nine, eight, seven = [9, 6, 3, 6, 9, 6, 3], [8, 5, 2, 5, 8, 5, 2], [7, 4, 1, 4, 7, 4, 1]
    is_(pad_reflect(R, (2, 2, 2, 2)), [nine, eight, seven, eight, nine, eight, seven])
    x = R[:, :, None, None]
    is_(
        pad_reflect(x, (1, 0, 1, 0), dims=range(2))[:, :, 0, 0],
        [[5, 2, 5, 8], [4, 1, 4, 7], [5, 2, 5, 8], [6, 3, 6, 9]],
    )
    is_(
        pad_reflect(x, (0, 1, 0, 1), dims=range(2))[:, :, 0, 0],
        [[1, 4, 7, 4], [2, 5, 8, 5], [3, 6, 9, 6], [2, 5, 8, 5]],
    )


def test_pad_symmetric_of_the_manual():
    is_(
        pad_symmetric(R, (1, 2, 1, 2)),
        [
            [1, 1, 4, 7, 7, 4],
            [1, 1, 4, 7, 7, 4],
            [2, 2, 5, 8, 8, 5],
            [3, 3, 6, 9, 9, 6],
            [3, 3, 6, 9, 9, 6],
            [2, 2, 5, 8, 8, 5],
        ],
    )
    four, five, six = [4, 1, 1, 4, 7, 7, 4], [5, 2, 2, 5, 8, 8, 5], [6, 3, 3, 6, 9, 9, 6]
    is_(pad_symmetric(R, (2, 2), dims=1), [four, five, six])
    is_(pad_symmetric(R, (2, 2, 2, 2)), [five, four, four, five, six, six, five])
    x = R[:, :, None, None]
    is_(
        pad_symmetric(x, (1, 0, 1, 0), dims=range(2))[:, :, 0, 0],
        [[1, 1, 4, 7], [1, 1, 4, 7], [2, 2, 5, 8], [3, 3, 6, 9]],
    )
    is_(
        pad_symmetric(x, (0, 1, 0, 1), dims=range(2))[:, :, 0, 0],
        [[1, 4, 7, 7], [2, 5, 8, 8], [3, 6, 9, 9], [3, 6, 9, 9]],
    )


def test_pad_circular_of_the_manual():
    is_(
        pad_circular(R, (1, 2, 1, 2)),
        [
            [9, 3, 6, 9, 3, 6],
            [7, 1, 4, 7, 1, 4],
            [8, 2, 5, 8, 2, 5],
            [9, 3, 6, 9, 3, 6],
            [7, 1, 4, 7, 1, 4],
            [8, 2, 5, 8, 2, 5],
        ],
    )
    four, five, six = [4, 7, 1, 4, 7, 1, 4], [5, 8, 2, 5, 8, 2, 5], [6, 9, 3, 6, 9, 3, 6]
    is_(pad_circular(R, (2, 2), dims=1), [four, five, six])
    is_(pad_circular(R, (2, 2, 2, 2)), [five, six, four, five, six, four, five])


@pytest.mark.parametrize("pad", OTHERS)
def test_a_number_pads_both_ends_of_all_axes_but_the_last_two(pad):
    x = torch.rand(4, 4, 4)
    assert torch.equal(pad(x, (2, 2, 2, 2), dims=(0, 2)), pad(x, 2, dims=(0, 2)))
    assert torch.equal(pad(x, 2), pad(x, (2, 2)))
    assert torch.equal(pad(x, 3, dims=1), pad(x, (3, 3), dims=1))
    assert torch.equal(pad(x[0], 2), x[0])


@pytest.mark.parametrize(
    ("pad", "mode"), [(pad_repeat, "replicate"), (pad_reflect, "reflect"), (pad_circular, "circular")]
)
def test_images_as_torch_pads_them(pad, mode):
    x = torch.rand(2, 3, 6, 5)
    y = pad(x.permute(3, 2, 1, 0), (1, 2, 3, 4)).permute(3, 2, 1, 0)
    assert torch.equal(y, F.pad(x, (1, 2, 3, 4), mode))
    assert y.is_contiguous()


def test_element_types_stay():
    for dtype in (torch.bool, torch.uint8, torch.float16, torch.complex64):
        x = torch.ones(2, 3).to(dtype)
        assert pad_constant(x, 1).dtype == dtype
        assert all(pad(x, (1, 1)).dtype == dtype for pad in OTHERS)
    assert pad_constant([1j], 1, 2j).tolist() == [2j, 1j, 2j]


@pytest.mark.parametrize("pad", [pad_zeros, *OTHERS])
def test_gradients(pad):
    x = torch.rand(3, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: pad(x, (2, 1, 0, 2), dims=(0, 1)), x)
    assert gradgradcheck(lambda x: pad(x, (2, 1), dims=1), x[:, :, 0])
    assert gradient(lambda x: pad(x, (1, 0)).sum(), [1, 2])[0] is not None


def test_the_filling_number_has_a_gradient():
    dx, dval = gradient(lambda x, v: (pad_constant(x, (1, 2), v) ** 2).sum(), [1.0, 2.0], 5.0)
    assert dx.tolist() == [2, 4]
    assert dval == 30


def test_what_does_not_fit():
    x = torch.ones(3, 4)
    with pytest.raises(DimensionMismatch, match="can't add 3 to axis 0 of a 3×4 tensor"):
        pad_reflect(x, (0, 3))
    with pytest.raises(DimensionMismatch, match="can't add 4 to axis 0"):
        pad_symmetric(x, (4, 0))
    with pytest.raises(DimensionMismatch, match="can't add 5 to axis 1"):
        pad_circular(x, (0, 5), dims=1)
    with pytest.raises(DimensionMismatch, match="can't add 1 to axis 0 of a 0-element"):
        pad_repeat(torch.ones(0), (1, 0))
    assert pad_repeat(torch.ones(1), (0, 5)).tolist() == [1] * 6
    with pytest.raises(DimensionMismatch, match="begin and end of each axis"):
        pad_repeat(x, (1, 2, 3))
    for pad in [pad_zeros, *OTHERS]:
        with pytest.raises(ValueError, match="at least 0, and is -1"):
            pad(x, (-1, 2))
        with pytest.raises(IndexError, match="axis 2, which a 3×4 tensor"):
            pad(x, (1, 1), dims=2)
        with pytest.raises(ValueError, match="twice"):
            pad(x, (1, 1, 1, 1), dims=(0, -2))
        with pytest.raises(TypeError, match="takes an array"):
            pad(3, 1)
    with pytest.raises(TypeError, match=r"whole number, and is 1\.5"):
        pad_zeros(x, 1.5)
    with pytest.raises(TypeError, match="an axis must be a whole number, and is 'a'"):
        pad_zeros(x, 1, dims="a")
    with pytest.raises(DimensionMismatch, match="could not parse padding"):
        pad_zeros(torch.ones(1, 1, 1, 1), (1, 2, 3, 4, 5), dims=(0, 1, 2))


@pytest.mark.parametrize(("x", "val"), [([1], 0.5), ([1], float("inf")), ([True], 2), ([1.0], 1j)])
def test_a_number_that_the_array_cannot_hold(x, val):
    with pytest.raises(ValueError, match="can't put"):
        pad_constant(x, 1, val)
    for wrong in ("0", torch.ones(2)):
        with pytest.raises(TypeError, match="number to fill"):
            pad_constant(x, 1, wrong)
