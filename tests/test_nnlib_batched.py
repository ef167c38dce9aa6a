from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.batched import batched_adjoint, batched_mul, batched_transpose, batched_vec


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y):
    torch.testing.assert_close(x, y)


def slices(A, B):
    """Julia's loop over the slices."""
    n = max(A.shape[2], B.shape[2])
    return torch.stack([A[:, :, k % A.shape[2]] @ B[:, :, k % B.shape[2]] for k in range(n)], 2)


def randn(*size, dtype=torch.float64):
    return torch.randn(*size, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_products_of_slices(dtype):
    A, B, C = randn(7, 5, 3, dtype=dtype), randn(5, 7, 3, dtype=dtype), randn(7, 6, 3, dtype=dtype)
    close(batched_mul(A, B), slices(A, B))
    At, Bt = A.permute(1, 0, 2), B.permute(1, 0, 2)
    close(batched_mul(batched_transpose(A), batched_transpose(B)), slices(At, Bt))
    close(batched_mul(batched_transpose(A), C), slices(At, C))
    close(batched_mul(batched_adjoint(A), C), slices(At.conj(), C))
    close(batched_mul(A, batched_adjoint(A)), slices(A, At.conj()))


def test_one_slice_for_all():
    A, B, D = randn(4, 3, 2), randn(3, 5, 1), randn(1, 3, 4)
    assert batched_mul(A, B).shape == (4, 5, 2)
    close(batched_mul(A, B), slices(A, B))
    close(batched_mul(B.permute(1, 0, 2), A.permute(1, 0, 2)), slices(B.permute(1, 0, 2), A.permute(1, 0, 2)))
    assert batched_mul(B[:2].permute(1, 0, 2), B[:2]).shape == (5, 5, 1)
    M = randn(3, 5)
    close(batched_mul(A, M), slices(A, M[:, :, None]))
    close(batched_mul(M.T, D.permute(1, 0, 2)), slices(M.T[:, :, None], D.permute(1, 0, 2)))
    close(batched_mul(M.T, M), M.T @ M)


def test_sizes_of_the_manual():
    one = torch.ones
    A = one(2, 5, 17)
    assert batched_mul(A, one(5, 9, 17)).shape == (2, 9, 17)
    assert batched_adjoint(A).shape == (5, 2, 17)
    assert batched_mul(A, batched_adjoint(one(9, 5, 17))).shape == (2, 9, 17)
    assert batched_mul(A, one(5, 9, 1)).shape == (2, 9, 17)
    assert batched_mul(one(16, 8, 32), one(8, 4)).shape == (16, 4, 32)
    assert batched_mul(one(16, 8), one(8, 4, 32)).shape == (16, 4, 32)
    assert batched_vec(one(16, 8, 32), one(8, 32)).shape == (16, 32)
    assert batched_vec(one(16, 8, 32), one(8)).shape == (16, 32)


def test_more_batch_axes():
    A, B = randn(2, 3, 4, 5), randn(3, 6, 4, 5)
    C = batched_mul(A, B)
    assert C.shape == (2, 6, 4, 5)
    close(C[:, :, 2, 3], A[:, :, 2, 3] @ B[:, :, 2, 3])


def test_vectors():
    A, M, v = randn(3, 4, 5), randn(4, 5), randn(4)
    close(batched_vec(A, M), torch.stack([A[:, :, k] @ M[:, k] for k in range(5)], 1))
    close(batched_vec(A, v), torch.stack([A[:, :, k] @ v for k in range(5)], 1))
    close(batched_vec(A, v[:, None]), batched_vec(A, v))


def test_mixed_element_types():
    A = torch.randint(99, (7, 5, 3))
    B = torch.randint(99, (5, 7, 3))
    assert torch.equal(batched_mul(A, B), slices(A, B))
    C = randn(5, 7, 3, dtype=torch.complex64)
    close(batched_mul(A, C), slices(A.to(C.dtype), C))
    assert batched_mul(A.float(), B.double()).dtype == torch.float64
    assert batched_vec(A, randn(5)).dtype == torch.float64


def test_views():
    A = randn(2, 3, 4, dtype=torch.complex128)
    for f in (batched_transpose, batched_adjoint):
        assert f(A).data_ptr() == A.data_ptr()
        assert torch.equal(f(f(A)), A)
        assert f(f(A)).stride() == A.stride()
    assert torch.equal(batched_adjoint(A), batched_transpose(A).conj())
    assert torch.equal(batched_transpose(A), A.permute(1, 0, 2))


def test_gradients():
    A, B = randn(3, 2, 2).requires_grad_(), randn(2, 4, 2).requires_grad_()
    assert gradcheck(batched_mul, (A, B))
    assert gradgradcheck(batched_mul, (A, B))
    assert gradcheck(batched_mul, (A, B[:, :, :1]))
    assert gradcheck(batched_mul, (A[:, :, 0], B))
    assert gradcheck(lambda A, B: batched_mul(batched_adjoint(A), batched_transpose(B)), (A[:2], B.permute(1, 0, 2)))
    assert gradcheck(batched_vec, (A, B[:, 0]))
    assert gradcheck(batched_vec, (A, B[:, 0, 0]))


def test_sizes_that_do_not_fit():
    one = torch.ones
    with pytest.raises(DimensionMismatch, match="batch sizes differ"):
        batched_mul(one(2, 2, 2), one(2, 2, 10))
    with pytest.raises(DimensionMismatch, match="2 columns meet 10 rows"):
        batched_mul(one(2, 2, 2), one(10, 2, 2))
    with pytest.raises(DimensionMismatch, match="batch sizes differ"):
        batched_mul(one(2, 2, 3, 2), one(2, 2, 3, 1))
    with pytest.raises(DimensionMismatch, match="as many axes"):
        batched_mul(one(2, 2, 3, 2), one(2, 2, 2))
    with pytest.raises(DimensionMismatch, match="as many axes"):
        batched_mul(one(2, 2, 3), one(2))
    with pytest.raises(DimensionMismatch, match="4 matrices meet 3 vectors"):
        batched_vec(one(2, 2, 4), one(2, 3))
    with pytest.raises(DimensionMismatch, match="2 columns meet vectors of 3"):
        batched_vec(one(2, 2, 4), one(3))
    with pytest.raises(DimensionMismatch, match="matrix or a vector"):
        batched_vec(one(2, 2), one(2))
    for f in (batched_transpose, batched_adjoint):
        with pytest.raises(DimensionMismatch, match="three axes"):
            f(one(2, 2))
    with pytest.raises(TypeError, match="takes an array"):
        batched_mul(2, one(2, 2))
