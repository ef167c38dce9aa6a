from __future__ import annotations

import builtins
import math
import operator

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch import base
from fluxtorch.base import mean, reshape
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.gather_scatter import gather, scatter
from fluxtorch.zygote import gradient

F64 = torch.float64
IDX = torch.tensor([[0, 1, 2, 3], [3, 1, 0, 2], [2, 4, 4, 2]])
# The same as a list of tuples, and as a tuple of arrays.
INDICES = [IDX, IDX.to(torch.int8), [[(i,) for i in row] for row in IDX.tolist()], (IDX,)]
OPS = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "max": max,
    "min": min,
    "mean": mean,
}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype))


# ---------------------------------------------------------------- gather


def test_gather_of_the_manual():
    assert gather([1, 20, 300, 4000], [1, 3, 1]).tolist() == [20, 4000, 20]
    assert gather([[1, 2, 3], [4, 5, 6]], [0, 2, 0, 2, 0]).tolist() == [[1, 3, 1, 3, 1], [4, 6, 4, 6, 4]]
    src = reshape(range(1, 16), 3, 5)
    assert gather(src, [0, 1], [1, 3]).tolist() == [4, 11]
    assert gather(src, ([0, 1], [1, 3])).tolist() == [4, 11]
    assert gather(src, [0, 1]).tolist() == gather(src, range(2)).tolist() == [[1, 4], [2, 5], [3, 6]]
    assert gather(range(10, 15), range(4, 0, -2)).tolist() == [14, 12]


def test_gather_by_whole_numbers():
    src = torch.tensor([3.0, 4, 5, 6, 7])
    y = [[3, 4, 5, 6], [6, 4, 3, 5], [5, 7, 7, 5]]
    for idx in INDICES:
        assert gather(src, idx).tolist() == y
    assert gather(src, IDX[:, :, None]).tolist() == torch.tensor(y)[:, :, None].tolist()
    y = gather([[3, 5, 7], [4, 6, 8]], [[0, 1, 2], [1, 1, 0], [2, 0, 2]])
    assert y[:, :, 0].tolist() == [[3, 5, 7], [4, 6, 8]]
    assert y[:, :, 1].tolist() == [[5, 5, 3], [6, 6, 4]]
    assert y[:, :, 2].tolist() == [[7, 3, 7], [8, 4, 8]]


def test_gather_by_tuples():
    src = [[3, 5, 7], [4, 6, 8]]
    assert gather(src, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]).tolist() == [3, 5, 7, 4, 6, 8]
    src, i, j = torch.rand(2, 3, 4), torch.randint(3, (6, 5)), torch.randint(4, (6, 5))
    tuples = [[(int(a), int(b)) for a, b in zip(*rows, strict=True)] for rows in zip(i, j, strict=True)]
    y = gather(src, tuples)
    assert y.shape == (2, 6, 5)
    assert torch.equal(y, src[:, i, j])
    assert torch.equal(y, gather(src, i, j))


def test_the_last_is_minus_one():
    assert gather([1, 2, 3], [-1, 0, -3]).tolist() == [3, 1, 1]
    assert gather([[1, 2, 3], [4, 5, 6]], [(-1, -2)]).tolist() == [5]


def test_gather_nothing():
    assert gather([1, 2], []).shape == (0,)
    assert gather(torch.ones(0, 3), [0, 1]).shape == (0, 2)


def test_gather_keeps_the_layout():
    src = torch.rand(5, 3, 4).permute(2, 1, 0)
    assert gather(src, IDX).permute(3, 2, 1, 0).is_contiguous()


def test_gather_gradients():
    src = torch.rand(2, 3, 5, dtype=F64, requires_grad=True)
    assert gradcheck(lambda x: gather(x, IDX), src)
    assert gradcheck(lambda x: gather(x, [(0, 1), (2, 4), (0, 1)]), src)
    assert gradgradcheck(lambda x: gather(x, [0, 2, 0]), src[0, :2])
    ds, di = gradient(lambda s, i: gather(s, i).sum(), [3, 4, 5, 6, 7], IDX.tolist())
    assert ds.tolist() == [2, 2, 4, 2, 2]
    assert di is None


def test_indices_that_gather_refuses():
    for bad in ([2], [-3], [(2,)], [(-3,)]):
        with pytest.raises(IndexError, match="outside"):
            gather([1, 2], bad)
    with pytest.raises(IndexError, match="outside of the last 2 axes of a 2×3"):
        gather([[1, 2, 3], [4, 5, 6]], [(0, 3)])
    for bad in ([0.0], [True], "a", [[0], [0, 1]], None, ()):
        with pytest.raises(TypeError, match="indices"):
            gather([1, 2], bad)
    with pytest.raises(DimensionMismatch, match="2 numbers"):
        gather([1, 2], [(0, 0)])
    with pytest.raises(DimensionMismatch, match="different sizes"):
        gather([[1, 2]], [0, 0], [0])
    with pytest.raises(TypeError, match="takes an array"):
        gather(1, [0])


# ---------------------------------------------------------------- scatter


def test_scatter_of_the_manual():
    assert scatter(operator.add, [10, 100, 1000], [2, 0, 1]).tolist() == [100, 1000, 10]
    y = scatter(operator.add, [[1, 2, 3, 4], [5, 6, 7, 8]], [1, 0, 0, 4])
    assert y.tolist() == [[5, 1, 0, 0, 4], [13, 5, 0, 0, 8]]
    y = scatter(operator.mul, [10, 200, 3000], [0, 3, 1], init=10, dstsize=6)
    assert y.tolist() == [100, 30000, 10, 2000, 10, 10]


SRC0 = torch.arange(1, 5).expand(3, 4)
SRC1 = torch.tensor([1, 2])[:, None, None] * SRC0
# By the tests of NNlib.
RESULTS = {
    ("+", 0): [4, 4, 12, 5, 5],
    ("+", 1): [[4, 4, 12, 5, 5], [8, 8, 24, 10, 10]],
    ("-", 0): [-4, -4, -12, -5, -5],
    ("-", 1): [[-4, -4, -12, -5, -5], [-8, -8, -24, -10, -10]],
    ("max", 0): [3, 2, 4, 4, 3],
    ("max", 1): [[3, 2, 4, 4, 3], [6, 4, 8, 8, 6]],
    ("min", 0): [1, 2, 1, 1, 2],
    ("min", 1): [[1, 2, 1, 1, 2], [2, 4, 2, 2, 4]],
    ("*", 0): [3, 4, 48, 4, 6],
    ("*", 1): [[3, 4, 48, 4, 6], [12, 16, 768, 16, 24]],
    ("/", 0): [1 / 3, 1 / 4, 1 / 48, 1 / 4, 1 / 6],
    ("/", 1): [[1 / 3, 1 / 4, 1 / 48, 1 / 4, 1 / 6], [1 / 12, 1 / 16, 1 / 768, 1 / 16, 1 / 24]],
    ("mean", 0): [2, 2, 3, 2.5, 2.5],
    ("mean", 1): [[2, 2, 3, 2.5, 2.5], [4, 4, 6, 5, 5]],
}


@pytest.mark.parametrize(("op", "dims"), RESULTS)
def test_every_reduction(op, dims):
    src, y = (SRC0, SRC1)[dims], RESULTS[op, dims]
    for idx in INDICES:
        for dtype in (torch.int64, torch.int32, torch.float16, torch.float32, F64):
            result = scatter(OPS[op], src.to(dtype), idx)
            assert result.dtype == (dtype if op not in "/mean" or dtype.is_floating_point else torch.float32)
            close(result, y)


@pytest.mark.parametrize(
    ("op", "results"),
    [
        ("+", [5, 6, 9, 8, 9]),
        ("-", [1, 2, 1, 4, 5]),
        ("max", [3, 4, 5, 6, 7]),
        ("min", [1, 1, 1, 1, 1]),
        ("*", [3, 4, 5, 6, 7]),
        ("/", [0.75, 1, 0.3125, 1.5, 1.75]),
        ("mean", [4, 5, 6, 7, 8]),
    ],
)
def test_a_number_to_begin_with(op, results):
    # NNlib's results of `scatter!` into [3, 4, 5, 6, 7].
    src = torch.full((3, 4), 2.0 if op == "/" else 1.0)
    assert [scatter(OPS[op], src, IDX, init=3 + i)[i].item() for i in range(5)] == results


def test_places_that_nothing_is_put_into():
    idx = [1, 1]
    for op, least in (("+", 0), ("-", 0), ("*", 1), ("/", 1), ("mean", 0), ("max", -math.inf), ("min", math.inf)):
        y = scatter(OPS[op], [2.0, 4.0], idx, dstsize=3)
        assert y[0] == y[2] == least
        assert scatter(OPS[op], [2.0, 4.0], idx, dstsize=(3,), init=8)[0] == 8
    assert scatter(max, [2, 4], idx)[0] == torch.iinfo(torch.int64).min
    assert scatter(min, torch.tensor([2, 4], dtype=torch.int8), idx)[0] == 127


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("+", [torch.add]),
        ("-", [torch.sub, torch.subtract]),
        ("*", [torch.mul, torch.multiply]),
        ("/", [torch.div, torch.divide, torch.true_divide]),
        ("max", [builtins.max, base.max, torch.max, torch.maximum]),
        ("min", [builtins.min, base.min, torch.min, torch.minimum]),
        ("mean", [base.mean, torch.mean]),
    ],
)
def test_the_names_of_an_operation(name, others):
    for op in others:
        close(scatter(op, SRC1.double(), IDX), RESULTS[name, 1])


def test_scatter_by_tuples():
    src, idx = torch.rand(2, 3), [(0, 1), (2, 0), (0, 1)]
    y = scatter(operator.add, src, idx)
    assert y.shape == (2, 3, 2)
    close(y[:, 0, 1], src[:, 0] + src[:, 2])
    close(y[:, 2, 0], src[:, 1])
    assert y.sum().isclose(src.sum())
    assert torch.equal(y, scatter(operator.add, src, ([0, 2, 0], [1, 0, 1])))
    assert scatter(operator.add, src, idx, dstsize=(2, 4, 5)).shape == (2, 4, 5)


@pytest.mark.parametrize(
    ("idx", "size"),
    [
        ([0, 1, 2, 3, 4, 5], (6,)),
        ([(2, 3, 4), (0, 1, 2), (1, 2, 8)], (3, 4, 9)),
        ([[(2, 3, 4), (0, 1, 2), (1, 2, 8)], [(3, 5, 1), (4, 2, 1), (3, 3, 3)]], (5, 6, 9)),
        (range(3), (3,)),
    ],
)
def test_the_size_that_indices_ask_for(idx, size):
    src = torch.ones(2, *((2, 3) if len(idx) == 2 else (len(idx),)))
    assert scatter(operator.add, src, idx).shape == (2, *size)


def test_scatter_undoes_gather():
    src = torch.rand(4, 3, 5)
    idx = torch.randperm(5)
    assert torch.equal(scatter(operator.add, gather(src, idx), idx), src)
    i, j = torch.arange(15) // 5, torch.arange(15) % 5
    assert torch.equal(scatter(max, gather(src, i, j), (i, j)), src)


def test_a_mean_counts_further_than_halves_can():
    src = torch.zeros(5000, dtype=torch.float16)
    src[7] = 5000
    assert scatter(mean, src, torch.zeros(5000, dtype=torch.int64)).item() == 1


def test_infinite_and_missing_numbers():
    src = torch.tensor([math.inf, math.inf, math.nan, 1.0, 0.0], requires_grad=True)
    y = scatter(max, src, [0, 0, 1, 1, 2])
    assert y[0] == math.inf
    assert y[1].isnan()
    assert y[2] == 0
    (g,) = torch.autograd.grad(y[::2].sum(), src)
    assert g.tolist() == [1, 1, 0, 0, 1]


def test_dstsize():
    idx, src = [1, 1, 2, 3, 3], torch.ones(3, 5, dtype=F64, requires_grad=True)
    y = scatter(operator.add, src, idx, dstsize=(3, 6))
    assert y.tolist() == [[0, 2, 1, 2, 0, 0]] * 3
    assert gradcheck(lambda x: scatter(operator.add, x, idx, dstsize=(3, 6)), src)
    assert scatter(operator.add, [1, 2], [-1, 0], dstsize=4).tolist() == [2, 0, 0, 1]
    nothing = torch.ones(0, dtype=torch.int64)
    assert scatter(operator.add, torch.ones(2, 0), nothing, dstsize=(2, 3)).tolist() == [[0, 0, 0]] * 2
    assert scatter(mean, torch.ones(0, 2), [0, 0]).shape == (0, 1)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("kept", [(), (2,)])
def test_scatter_gradients(op, kept):
    src = torch.rand(*kept, 3, 4, dtype=F64).add(0.5).requires_grad_()
    assert gradcheck(lambda x: scatter(OPS[op], x, IDX), src)
    assert gradcheck(lambda x: scatter(OPS[op], x, IDX, init=2, dstsize=(*kept, 6)), src)
    small = src[..., 0].detach().requires_grad_()
    assert gradgradcheck(lambda x: scatter(OPS[op], x, [0, 1, 0]), small)


def test_each_of_equal_values_gets_the_gradient():
    # (src .== gather(dst, idx)) .* gather(Δ, idx)
    for op in (max, min):
        src = SRC1.double().requires_grad_()
        y = scatter(op, src, IDX)
        Δ = torch.rand_like(y)
        (g,) = torch.autograd.grad(y, src, Δ)
        close(g, (src == gather(y, IDX)) * gather(Δ, IDX))
    assert gradient(lambda x: scatter(max, x, [0, 0, 0, 1]).sum(), [2.0, 1.0, 2.0, 7.0])[0].tolist() == [1, 0, 1, 1]
    assert gradient(lambda x: scatter(max, x, [0, 0], init=9).sum(), [2.0, 1.0])[0].tolist() == [0, 0]


@pytest.mark.parametrize("op", OPS)
def test_a_list_of_integers_has_a_gradient(op):
    src = [[1, 2, 1], [3, 4, 5]]
    g = gradient(lambda x: (scatter(OPS[op], x, [0, 1, 0]) ** 2).sum(), src)[0]
    close(g, gradient(lambda x: (scatter(OPS[op], x, [0, 1, 0]) ** 2).sum(), torch.tensor(src, dtype=F64))[0])


def test_a_zero_among_the_factors():
    g = gradient(lambda x: scatter(operator.mul, x, [0, 0, 1, 1]).sum(), [0.0, 3.0, 0.0, 0.0])[0]
    assert g.tolist() == [3, 0, 0, 0]


def test_what_scatter_refuses():
    add = operator.add
    with pytest.raises(TypeError, match=r"knows \+, -, \*, /, max, min and mean, and got pow"):
        scatter(pow, [1, 2], [0, 1])
    with pytest.raises(TypeError, match="knows"):
        scatter([], [1, 2], [0, 1])
    with pytest.raises(DimensionMismatch, match="axes of the indices last"):
        scatter(add, [1, 2, 3], [0, 1])
    with pytest.raises(DimensionMismatch, match="axes of the indices last"):
        scatter(add, torch.ones(2, 3, 4), torch.zeros(3, 5, dtype=torch.int64))
    with pytest.raises(DimensionMismatch, match="axes of the indices last"):
        scatter(add, [1, 2], [[0, 1]])
    for size in ((2, 7), 7, (1, 7, 7)):
        with pytest.raises(DimensionMismatch, match="into an array of size"):
            scatter(add, [[1, 2]], [0, 1], dstsize=size)
    with pytest.raises(IndexError, match="outside"):
        scatter(max, [1, 2], [4, 0], dstsize=4)
    with pytest.raises(IndexError, match="outside"):
        scatter(add, [1, 2], [(0, 2), (0, 0)], dstsize=(4, 2))
    with pytest.raises(IndexError, match="needs `dstsize` where indices are negative"):
        scatter(add, [1, 2], [-1, 0])
    with pytest.raises(ValueError, match="needs `dstsize`"):
        scatter(add, torch.ones(0), torch.ones(0, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"can't put 0.5 into an array of int64"):
        scatter(add, [1, 2], [0, 1], init=0.5)
    with pytest.raises(TypeError, match="number to fill"):
        scatter(add, [1, 2], [0, 1], init=torch.ones(2))
