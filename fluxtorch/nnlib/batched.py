"""Products of many matrices at once: `(rows, columns, batch)`."""

from __future__ import annotations

from typing import Any

import torch

from fluxtorch.arrays import reversed_axes, summary
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.operands import alike, tensor

__all__ = ["batched_adjoint", "batched_mul", "batched_transpose", "batched_vec"]


def batched_mul(A: Any, B: Any) -> torch.Tensor:
    """The matrix products `A[:, :, k] @ B[:, :, k]` for each `k`, NNlib's `A ⊠ B`.

    `A` is `(m, n, K)`, `B` is `(n, p, K)`, the result `(m, p, K)`. Either may be a matrix or have
    one slice only, and is then used for every `k`. With more axes, `(m, n, k...)`, both have the
    same `k...`.

    Raises `DimensionMismatch` if the sizes don't fit.

    >>> A, B = torch.ones(2, 5, 17), torch.ones(5, 9, 17)
    >>> batched_mul(A, B).shape
    torch.Size([2, 9, 17])
    >>> batched_mul(torch.ones(16, 8), torch.ones(8, 4, 32)).shape
    torch.Size([16, 4, 32])
    """
    A, B = tensor("batched_mul", A), tensor("batched_mul", B)
    if min(A.ndim, B.ndim) < 2 or (A.ndim != B.ndim and max(A.ndim, B.ndim) > 3):
        raise _mismatch(A, B, "it takes two arrays of as many axes, or one of three axes and a matrix")
    if A.shape[1] != B.shape[0]:
        raise _mismatch(A, B, f"{A.shape[1]} columns meet {B.shape[0]} rows")
    if A.ndim == B.ndim and A.shape[2:] != B.shape[2:] and (A.ndim > 3 or 1 not in (A.shape[2], B.shape[2])):
        raise _mismatch(A, B, "their batch sizes differ")
    A, B = alike(A, B)
    # Reversed axes transpose each matrix too, and the product of transposes is the other way round.
    return reversed_axes(torch.matmul(reversed_axes(B), reversed_axes(A)))


def batched_vec(A: Any, B: Any) -> torch.Tensor:
    """The products `A[:, :, k] @ B[:, k]` of matrices and vectors for each `k`.

    `A` is `(m, n, K)`; `B` is `(n, K)`, or one vector `(n,)` for every `k`. The result is `(m, K)`.
    `batched_mul` would take the same `B` for one matrix.

    Raises `DimensionMismatch` if the sizes don't fit.

    >>> A, B, b = torch.ones(16, 8, 32), torch.ones(8, 32), torch.ones(8)
    >>> batched_vec(A, B).shape, batched_vec(A, b).shape
    (torch.Size([16, 32]), torch.Size([16, 32]))
    """
    A, B = tensor("batched_vec", A), tensor("batched_vec", B)
    if A.ndim != 3 or B.ndim not in (1, 2):
        raise _mismatch(A, B, "it takes an array of three axes and a matrix or a vector", "batched_vec")
    if A.shape[1] != B.shape[0]:
        raise _mismatch(A, B, f"{A.shape[1]} columns meet vectors of {B.shape[0]}", "batched_vec")
    if B.ndim == 2 and B.shape[1] not in (1, A.shape[2]):
        raise _mismatch(A, B, f"{A.shape[2]} matrices meet {B.shape[1]} vectors", "batched_vec")
    A, B = alike(A, B)
    vectors = reversed_axes(B).unsqueeze(-2)
    return reversed_axes(torch.matmul(vectors, reversed_axes(A)).squeeze(-2))


def batched_transpose(A: Any) -> torch.Tensor:
    """Each matrix `A[:, :, k]` transposed: `(m, n, K)` as `(n, m, K)`. A view.

    Raises `DimensionMismatch` unless `A` has three axes.

    >>> batched_transpose(torch.ones(2, 5, 17)).shape
    torch.Size([5, 2, 17])
    """
    return _matrices("batched_transpose", A).transpose(0, 1)


def batched_adjoint(A: Any) -> torch.Tensor:
    """Each matrix `A[:, :, k]` transposed and complex-conjugated: `(m, n, K)` as `(n, m, K)`. A view.

    Raises `DimensionMismatch` unless `A` has three axes.

    >>> batched_adjoint(torch.tensor([[[1 + 2j]], [[3j]]])).flatten()
    tensor([1.-2.j, 0.-3.j])
    """
    return _matrices("batched_adjoint", A).transpose(0, 1).conj()


def _matrices(name: str, A: Any) -> torch.Tensor:
    A = tensor(name, A)
    if A.ndim != 3:
        raise DimensionMismatch(f"{name} takes an array of three axes, but got a {summary(A)}")
    return A


def _mismatch(A: torch.Tensor, B: torch.Tensor, why: str, name: str = "batched_mul") -> DimensionMismatch:
    return DimensionMismatch(f"{name} can't multiply a {summary(A)} by a {summary(B)}: {why}")
