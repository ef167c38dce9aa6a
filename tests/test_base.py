"""Base, Random, Statistics and LinearAlgebra names: Julia's meaning, and what silently goes wrong without it."""

from __future__ import annotations

import builtins
import doctest
import functools
import itertools
import math
import operator
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from fluxtorch import base
from fluxtorch.errors import DimensionMismatch, DomainError
from fluxtorch.namedtuples import nt
from fluxtorch.pairs import Pair
from fluxtorch.zygote import gradient

t = torch.tensor
f64 = torch.float64


def close(a, b, **how):
    torch.testing.assert_close(a, b, **how)


def leaf(*shape, start=1.0):
    """Distinct Float64 numbers that are tracked."""
    x = torch.arange(start, start + math.prod(shape), dtype=f64).reshape(shape)
    return x.requires_grad_()


class Params:
    """As the implicit style's: an iterable of tensors, and no sequence."""

    def __init__(self, *tensors):
        self.order = tensors

    def __iter__(self):
        return iter(self.order)


def mse(a, b):
    return ((a - b) ** 2).mean()


def test_doctests():
    assert doctest.testmod(base).failed == 0


def test_exported_hides_no_builtin():
    hidden = set(base.__all__) - set(base.EXPORTED)
    assert hidden == {"abs", "max", "min", "round", "sum"}
    assert all(callable(getattr(base, name)) and getattr(base, name).__name__ == name for name in base.__all__)


# ---------------------------------------------------------------- element-wise


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sqrt", "sin", "cos"])
def test_elementwise(name):
    f = getattr(base, name)
    x = t([0.25, 1.0, 2.5], dtype=f64)
    close(f(x), getattr(torch, name)(x))
    close(f([[0.25], [2.0]]), getattr(torch, name)(t([[0.25], [2.0]])))
    close(f(np.array([0.5])), getattr(torch, name)(t([0.5], dtype=f64)))
    close(f(range(1, 3)), getattr(torch, name)(t([1.0, 2.0])))
    assert f(2) == getattr(math, name)(2) and type(f(2)) is float
    assert f(1 + 2j) == pytest.approx(getattr(torch, name)(t(1 + 2j, dtype=torch.complex128)).item())
    assert gradcheck(f, x.clone().requires_grad_())


def test_limits_of_numbers_are_julias():
    assert base.exp(1000) == math.inf and base.exp(-math.inf) == 0.0
    assert base.log(0) == -math.inf and base.log(0.0) == -math.inf and math.isnan(base.log(math.nan))
    assert base.log(-1 + 0j) == pytest.approx(math.pi * 1j)
    for f in (base.log, base.sqrt):
        with pytest.raises(DomainError, match=rf"{f.__name__}\(-1\)"):
            f(-1)
        assert f(t([-1.0, 1.0])).isnan().tolist() == [True, False]


def test_abs_abs2():
    assert base.abs(-3) == 3 and base.abs([-1.5, 2.0]).tolist() == [1.5, 2.0]
    assert base.abs2(-3) == 9 and type(base.abs2(-3)) is int
    assert base.abs2([3, -2]).tolist() == [9, 4] and base.abs2(t([1, -2])).dtype == torch.int64
    z = t([3 + 4j, 1j])
    close(base.abs2(z), t([25.0, 1.0]))
    assert base.abs([True, False]).tolist() == [True, False] and base.abs(range(-1, 2)).tolist() == [1, 0, 1]
    assert gradgradcheck(base.abs2, leaf(3))


def test_round():
    assert base.round(2.5) == 2.0 and type(base.round(2.5)) is float and base.round(3) == 3
    assert base.round(-1.2345, digits=2) == -1.23
    close(base.round(t([0.5, 1.5, -2.345]), digits=0), t([0.0, 2.0, -2.0]))
    close(base.round(t([0.126, 1.5], dtype=f64), digits=2), t([0.13, 1.5], dtype=f64))
    assert base.round([1, 2]).tolist() == [1, 2]


def test_min_max():
    close(base.max(t([-1.0, 3.0]), 0), t([0.0, 3.0]))
    close(base.min(t([1.0, 5.0]), t([[0.0, 9.0], [7.0, 1.0]])), t([[0.0, 1.0], [5.0, 1.0]]))
    assert base.max(1, 2.5) == 2.5 and base.min(3, 1, 2) == 1
    assert base.max(t([math.nan, 1.0]), t([1.0, math.nan])).isnan().all()
    assert base.min(t([math.nan, 1.0]), t([1.0, math.nan])).isnan().all()
    assert math.isnan(base.max(math.nan, 1.0)) and math.isnan(base.min(1.0, math.nan))
    with pytest.raises(TypeError, match=r"maximum\(x\)"):
        base.max([1, 2])


def test_min_max_gradient_at_a_tie_is_julias():
    x = torch.zeros(2, requires_grad=True)
    y = torch.zeros(2, requires_grad=True)
    close(torch.autograd.grad(base.max(x, 0).sum(), x)[0], t([0.0, 0.0]))
    dx, dy = torch.autograd.grad(base.max(x, y).sum(), (x, y))
    assert dx.tolist() == [0, 0] and dy.tolist() == [1, 1]
    dx, dy = torch.autograd.grad(base.min(x, y).sum(), (x, y))
    assert dx.tolist() == [1, 1] and dy.tolist() == [0, 0]


# ---------------------------------------------------------------- broadcast


def by_index(f, *xs):
    """Julia's broadcast by explicit indices, the first axis fastest."""
    ndim = builtins.max(x.ndim for x in xs)
    xs = [x.reshape(*x.shape, *[1] * (ndim - x.ndim)) for x in xs]
    shape = [next((x.shape[d] for x in xs if x.shape[d] != 1), 1) for d in range(ndim)]
    out = torch.empty(shape, dtype=functools.reduce(torch.promote_types, (x.dtype for x in xs)))
    for reverse in itertools.product(*map(range, reversed(shape))):
        place = tuple(reversed(reverse))
        out[place] = f(*(x[tuple(i if x.shape[d] > 1 else 0 for d, i in enumerate(place))].item() for x in xs))
    return out


@st.composite
def fitting(draw):
    """Two or three arrays whose sizes line up from the first axis."""
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    sizes = [shape]
    for _ in range(draw(st.integers(1, 2))):
        cut = shape[: draw(st.integers(1, len(shape)))]
        sizes.append([draw(st.sampled_from([1, n])) for n in cut])
    sizes = draw(st.permutations(sizes))
    kinds = st.sampled_from([f64, torch.float32, torch.int64])
    return [torch.randint(-5, 6, size).to(draw(kinds)) for size in sizes]


def plain(*xs):
    """Works on numbers only."""
    x = xs[0]
    return builtins.sum(xs) if x > 0 else x


@settings(max_examples=60, deadline=None)
@given(fitting())
def test_broadcast_against_indices(xs):
    def polynomial(*xs):
        return functools.reduce(lambda a, b: 2 * a - b, xs)

    promoted = functools.reduce(torch.promote_types, (x.dtype for x in xs))
    close(base.broadcast(polynomial, *xs), by_index(polynomial, *xs), check_dtype=False)
    assert base.broadcast(polynomial, *xs).dtype == promoted
    close(base.broadcast(plain, *xs), by_index(plain, *xs), check_dtype=False)


def test_broadcast_lines_up_from_the_first_axis():
    # Where batch = features torch's own + raises nothing and is wrong.
    y, b = t([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]), t([10.0, 20, 30])
    right = t([[11.0, 12, 13], [24, 25, 26], [37, 38, 39]])
    assert not torch.equal(y + b, right)
    close(base.broadcast(operator.add, y, b), right)
    close(base.broadcast(operator.add, y[:, 0], b), t([11.0, 24, 37]))
    close(base.broadcast(operator.add, y[:, :2], [10, 20, 30]), right[:, :2])
    images = torch.zeros(3, 2, 2, 4)
    close(base.broadcast(operator.add, images, b)[:, 1, 0, 3], b)
    tokens, places = torch.zeros(2, 3, 3), t([[1.0, 2, 3], [4, 5, 6]])
    close(base.broadcast(operator.add, tokens, places)[:, :, 2], places)


def test_broadcast_outer():
    close(base.broadcast(operator.mul, [1, 2, 3], base.permutedims([1, 10])), t([[1, 10], [2, 20], [3, 30]]))


def test_broadcast_sizes_that_do_not_fit():
    for f in (operator.add, plain):
        with pytest.raises(DimensionMismatch, match=r"lengths 2 and 3, from sizes \(4, 2\) and \(4, 3\)"):
            base.broadcast(f, torch.ones(4, 2), torch.ones(4, 3))
    with pytest.raises(DimensionMismatch):  # torch takes this one
        base.broadcast(operator.add, torch.ones(2, 3), torch.ones(3))
    with pytest.raises(DimensionMismatch, match="lengths 2 and 3"):
        base.broadcast(mse, [torch.ones(1)] * 2, [torch.ones(1)] * 3)
    with pytest.raises(DimensionMismatch):
        base.broadcast(operator.add, torch.ones(0), torch.ones(3))


def test_broadcast_numbers_stand_for_all():
    x = t([1.0, -2.0])
    close(base.broadcast(operator.sub, 1, x), t([0.0, 3.0]))
    close(base.broadcast(operator.mul, x, t(3.0)), t([3.0, -6.0]))
    assert base.broadcast(operator.add, 1, 2) == 3
    close(base.broadcast(operator.add, t(1.0), 2), t(3.0))
    for number in (0.1, t(0.1, dtype=f64)):
        close(base.broadcast(torch.maximum, x.double(), number), t([1.0, 0.1], dtype=f64), rtol=0, atol=0)
    assert base.broadcast(torch.maximum, x, 0.1).dtype == torch.float32


def test_broadcast_lists_go_element_by_element():
    ps, ys = [t([1.0, 2.0]), t([3.0])], [t([1.0, 4.0]), t([0.0])]
    assert base.broadcast(mse, ps, ys) == [t(2.0), t(9.0)]
    assert type(base.broadcast(mse, ps, ys)) is list
    assert base.broadcast(operator.eq, ["a", "b", "c"], ["a", "x", "c"]) == [True, False, True]
    close(base.mean(base.broadcast(operator.eq, ["a", "b", "c"], ["a", "x", "c"])), t(2 / 3, dtype=f64))
    assert base.broadcast(operator.eq, ["a", "b"], "b") == [False, True]
    assert base.broadcast(operator.eq, ["a", "b"], ["b"]) == [False, True]
    for got, want in zip(base.broadcast(operator.add, ps, 1), ([2.0, 3.0], [4.0]), strict=True):
        close(got, t(want))
    for got, want in zip(base.broadcast(operator.mul, ps, t([2.0, 10.0])), ([2.0, 4.0], [30.0]), strict=True):
        close(got, t(want))
    close(base.broadcast(lambda v, w: v.sum() * w, ps, t([2.0, 10.0])), t([6.0, 30.0]))
    assert base.broadcast(len, []) == []


def test_broadcast_ragged_rows_are_arrays():
    # Python's + would chain the lists.
    got = base.broadcast(operator.add, [[1, 2], [3]], [[10, 20], [30]])
    assert [v.tolist() for v in got] == [[11, 22], [33]]


def test_broadcast_list_against_matrix_is_nested():
    got = base.broadcast(lambda name, k: name * k, ["a", "b"], [[1, 2, 3], [0, 1, 2]])
    assert got == [["a", "aa", "aaa"], ["", "b", "bb"]]
    assert base.broadcast(lambda k: "xyz"[k], t([[0, 1], [2, 0]])) == [["x", "y"], ["z", "x"]]


def test_broadcast_scalars_that_are_no_numbers():
    class Shift(torch.nn.Module):
        def forward(self, x):
            return x + 1

    call = lambda m, x: m(x)  # noqa: E731
    close(base.broadcast(call, Shift(), t([1.0, 2.0])), t([2.0, 3.0]))
    chain = torch.nn.Sequential(Shift(), Shift())  # iterable, yet a function
    assert [v.item() for v in base.broadcast(call, chain, [t(1.0), t(2.0)])] == [3, 4]
    assert base.broadcast(lambda x, none: none, ["a"], None) == [None]
    close(base.broadcast(lambda x, kind: x.to(kind), t([1, 2]), f64), t([1.0, 2.0], dtype=f64))
    close(base.broadcast(lambda x, p: x * p.first, t([1, 2]), Pair(3, 4)), t([3, 6]))
    for mapping in ({"a": 1}, nt(a=1)):
        with pytest.raises(TypeError, match="can't broadcast over"):
            base.broadcast(operator.add, mapping, 1)


def test_broadcast_tuples():
    assert base.broadcast(operator.add, (1, 2), 10) == (11, 12)
    close(base.broadcast(operator.add, (1, 2), t([10.0, 20.0])), t([11.0, 22.0]))
    assert base.broadcast(operator.eq, ("a", "b"), ["a", "c"]) == [True, False]
    # A tuple of one is Julia's Ref: its array is not lined up.
    table = t([5.0, 6.0, 7.0])
    close(base.broadcast(lambda k, table: table[k], [2, 0, 1], (table,)), t([7.0, 5.0, 6.0]))
    rows = base.broadcast(operator.add, t([1.0, 2.0, 3.0]), (table,))
    assert [r.tolist() for r in rows] == [[6, 7, 8], [7, 8, 9], [8, 9, 10]]


def test_broadcast_iterables():
    assert base.broadcast(lambda p: p[0] + p[1], zip("ab", "cd", strict=True)) == ["ac", "bd"]
    close(base.broadcast(operator.mul, range(3), 2), t([0, 2, 4]))
    close(base.broadcast(operator.mul, (k for k in (1, 2)), 2), t([2, 4]))
    assert [v.item() for v in base.broadcast(base.norm, Params(t([3.0, 4.0]), t([1.0])))] == [5, 1]
    close(base.broadcast(operator.add, np.array([1.0, 2.0]), 1), t([2.0, 3.0], dtype=f64))


def test_broadcast_of_a_reduction_is_per_element():
    # mse of the whole would be one number.
    a, b = t([[1.0, 2.0], [3.0, 4.0]]), t([0.0, 1.0])
    close(base.broadcast(mse, a, b), t([[1.0, 4.0], [4.0, 9.0]]))
    close(base.broadcast(base.norm, t([-3.0, 4.0])), t([3.0, 4.0]))


def test_broadcast_plain_functions():
    vocabulary = {0: "zero", 1: "one"}
    assert base.broadcast(vocabulary.get, t([1, 0, 2])) == ["one", "zero", None]
    fizz = lambda k: "Fizz" if k % 3 == 0 else str(k)  # noqa: E731
    assert base.broadcast(fizz, range(1, 4)) == ["1", "2", "Fizz"]
    close(base.broadcast(math.sqrt, t([4.0, 9.0], dtype=f64)), t([2.0, 3.0], dtype=f64))
    close(base.broadcast(lambda x: x > 0 and x < 2, t([1.0, 3.0])), t([True, False]))
    close(base.broadcast(lambda x: 1 if x > 0 else 0.5, t([1.0, -1.0])), t([1.0, 0.5]))
    assert base.broadcast(plain, torch.zeros(0, 2), torch.zeros(0)).shape == (0, 2)
    assert base.broadcast(lambda x: 7, t([1.0, 2.0])).tolist() == [7, 7]


def test_broadcast_goes_column_by_column():
    seen = []

    def f(x):
        seen.append(float(x))
        return "done"

    base.broadcast(lambda x: f(x) if x > 0 else None, t([[1.0, 2.0], [3.0, 4.0]]))
    assert seen == [1, 3, 2, 4]


def test_broadcast_errors_of_f_arrive():
    def f(x):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        base.broadcast(f, torch.ones(2))


def test_broadcast_gradients():
    def leaky(x, w):
        return w * x if x > 0 else 0.1 * x * w * w

    x = t([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]], dtype=f64, requires_grad=True)
    w = t([2.0, 3.0], dtype=f64, requires_grad=True)
    for f in (operator.mul, leaky):
        assert gradcheck(lambda x, w, f=f: base.broadcast(f, x, w), (x, w))
        assert gradgradcheck(lambda x, w, f=f: base.broadcast(f, x, w), (x, w))
    (dw,) = torch.autograd.grad(base.broadcast(operator.add, x, w).sum(), w)
    assert dw.tolist() == [3, 3]
    losses = base.broadcast(mse, [x, w], [0.0, 1.0])
    (dw,) = torch.autograd.grad(base.sum(losses), w)
    close(dw, t([1.0, 2.0], dtype=f64))


def test_broadcast_on_meta():
    x, b = torch.empty(3, 4, device="meta"), torch.empty(3, device="meta")
    for f in (operator.add, plain):
        y = base.broadcast(f, x, b)
        assert y.shape == (3, 4) and y.is_meta and y.dtype == torch.float32


def test_broadcast_under_transforms():
    add = functools.partial(base.broadcast, operator.add)
    close(torch.vmap(add)(torch.ones(2, 3, 4), torch.ones(2, 3)), torch.full((2, 3, 4), 2.0))
    close(torch.func.grad(lambda b: add(torch.ones(3, 4), b).sum())(torch.ones(3)), t([4.0, 4, 4]))


# ---------------------------------------------------------------- reductions


REDUCTIONS = {
    "sum": np.sum,
    "mean": np.mean,
    "maximum": np.max,
    "minimum": np.min,
    "std": functools.partial(np.std, ddof=1),
    "var": functools.partial(np.var, ddof=1),
}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 3), min_size=1, max_size=4), st.data())
def test_reductions_against_numpy(shape, data):
    x = torch.randint(-4, 5, shape).double()
    dims = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    some_negative = tuple(d - data.draw(st.sampled_from([0, len(shape)])) for d in dims)
    for name, reference in REDUCTIONS.items():
        f = getattr(base, name)
        expected = torch.as_tensor(reference(x.numpy(), axis=dims, keepdims=True))
        close(f(x, dims=dims), expected)
        close(f(x, dims=some_negative), expected)
        close(f(x.clone().requires_grad_(), dims=dims).detach(), expected)
        close(f(x), torch.as_tensor(reference(x.numpy()), dtype=f64))
        if len(dims) == 1:
            close(f(x, dims=dims[0]), expected)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_are_differentiable(name):
    f = getattr(base, name)
    x = t([[1.0, 5.0, 2.5], [-3.0, 0.5, 4.0]], dtype=f64, requires_grad=True)
    for dims in (None, 0, (0, 1), range(0, 2)):
        assert gradcheck(lambda x, dims=dims: f(x, dims=dims), x)
        assert gradgradcheck(lambda x, dims=dims: f(x, dims=dims), x)


def test_reductions_keep_the_axis():
    x = torch.ones(3, 4)
    assert base.sum(x, dims=0).shape == (1, 4) and base.sum(x, dims=1).shape == (3, 1)
    assert base.sum(x, dims=(0, 1)).shape == (1, 1) and base.sum(x).shape == ()
    assert base.sum(x, dims=()).tolist() == x.tolist()  # torch takes () for all axes
    assert base.maximum(x, dims=()).tolist() == x.tolist() and base.mean([1, 2], dims=()).tolist() == [1, 2]
    close(base.sum(x) / base.length(x), t(1.0))  # len would say 3


def test_reductions_refuse_axes_that_are_not_there():
    for f in (base.sum, base.mean, base.maximum, base.var):
        with pytest.raises(
            IndexError, match=r"no axis 2 in a 3×4 tensor of float32: axes count from 0; the last axis is 1"
        ):
            f(torch.ones(3, 4), dims=2)
    with pytest.raises(IndexError):
        base.sum(t(1.0), dims=0)
    with pytest.raises(TypeError, match=r"dims=…"):
        base.sum(torch.ones(2), 0)
    with pytest.raises(TypeError, match="no dims"):
        base.sum((1, 2), dims=0)


@pytest.mark.parametrize(
    "f",
    [
        *(lambda x, d, name=name: getattr(base, name)(x, dims=d) for name in REDUCTIONS),
        lambda x, d: base.sum(base.abs2, x, dims=(0, d)),
        lambda x, d: base.var(x, dims=d, mean=base.mean(x, dims=d)),
        lambda x, d: base.findmin(x, dims=d)[0],
        lambda x, d: x * base.argmax(x, dims=d),
        lambda x, d: base.size(x, d) * base.permutedims(x, (d, 0)),
        lambda x, d: base.cat(*base.eachslice(x, dims=d), dims=d),
        lambda x, d: base.reshape(x, d, -1) * base.ones(torch.float32, d, 1),
        lambda x, d: base.partition(x, d)[0] * base.rand(torch.Generator().manual_seed(0), torch.float32, d),
        lambda x, d: base.round(x, digits=d),
    ],
)
def test_whole_numbers_of_any_kind(f):
    """Inside of `gradient` an int is a tensor."""
    x = t([[1.0, 5.0, 2.5], [-3.0, 0.5, 4.0]])
    want = f(x, 1)
    for d in (t(1), np.int64(1)):
        close(f(x, d), want)
    by_d, by_x = gradient(lambda d, x: (f(x, d) * want).sum(), 1, x)
    assert by_d is None
    close(by_x, gradient(lambda x: (f(x, 1) * want).sum(), x)[0])


def test_axes_that_are_none():
    for dims in (1.5, "a", (0, 1.5), t(0.5)):
        with pytest.raises(TypeError):
            base.sum(torch.ones(2, 3), dims=dims)


def test_element_types_of_reductions():
    assert base.sum(t([True, True])).item() == 2 and base.sum(t([True, True])).dtype == torch.int64
    assert base.sum(t([[True, True]]), dims=0).tolist() == [[1, 1]]
    assert base.sum(t([1, 2])).dtype == torch.int64 and base.sum(t([1.0])).dtype == torch.float32
    assert base.sum((True, True, False)) == 2 and type(base.sum((True,))) is int
    assert base.sum([t(True), t(True)]).item() == 2  # torch's own + of bools is or
    assert base.mean(t([1, 2])).dtype == f64 and base.mean(t([1.0])).dtype == torch.float32
    assert base.std(t([1, 3])).item() == math.sqrt(2) and base.maximum(t([False, True])).item() is True


def test_sum_and_mean_of_collections():
    w = leaf(2)
    assert base.sum([]) == 0 and base.sum(()) == 0 and base.sum(iter(())) == 0
    assert base.sum([1, 2, 3]).item() == 6 and base.sum((1, 2.5)) == 3.5 and base.sum(k for k in (1, 2)) == 3
    assert base.sum(range(1, 4)).item() == 6 and base.sum({"a": 1, "b": 2}) == 3 and base.sum({1: 5}.values()) == 5
    assert base.sum(5) == 5 and base.mean(5) == 5
    close(base.sum([w, w]), 2 * w)
    assert base.mean([True, False, True]).item() == 2 / 3 and base.mean(b for b in (True, False)) == 0.5
    assert base.mean([t(1), t(2)]).item() == 1.5 and base.mean([t(True), t(False)]).dtype == f64
    for collection in ([w[0], w[1]], (w[0], w[1]), (v for v in w), {"a": w[0], "b": w[1]}, nt(a=w[0], b=w[1])):
        (dw,) = torch.autograd.grad(base.mean(collection), w)
        assert dw.tolist() == [0.5, 0.5]
    for bad in (base.mean, base.maximum, base.minimum):
        with pytest.raises(ValueError, match="empty collection"):
            bad([])
    with pytest.raises(ValueError, match="empty array"):
        base.maximum(torch.ones(0, 2))
    assert base.maximum(torch.ones(0, 2), dims=1).shape == (0, 1)


def test_sum_of_arrays_of_several_sizes_is_refused():
    for collection in ([torch.ones(3), torch.ones(3, 3)], (1, torch.ones(2)), [torch.ones(2), 1], [[1, 2], [3]]):
        with pytest.raises(DimensionMismatch, match="can't add arrays of sizes"):
            base.sum(collection)
    with pytest.raises(TypeError, match="can't add"):
        base.sum(["a", "b"])


def test_sum_with_function():
    x = t([[1.0, -2.0], [3.0, -4.0]], dtype=f64, requires_grad=True)
    assert base.sum(base.abs2, x).item() == 30 and base.sum(base.abs, x).item() == 10
    close(base.sum(base.abs2, x, dims=0), t([[10.0, 20.0]], dtype=f64))
    close(base.mean(base.abs2, x, dims=1), t([[2.5], [12.5]], dtype=f64))
    assert base.maximum(base.abs, x).item() == 4 and base.minimum(base.abs, x).item() == 1
    relu = lambda v: v if v > 0 else 0  # noqa: E731
    assert base.sum(relu, x).item() == 4 and base.mean(relu, x).item() == 1
    assert gradcheck(lambda x: base.sum(relu, x), x)
    assert base.sum(lambda v: 1, x).item() == 4
    assert base.sum(math.sqrt, t([4.0, 9.0])).item() == 5
    assert base.sum(abs, (-1, 2)) == 3 and base.sum(base.abs2, [3, 4]).item() == 25 and base.sum(base.abs2, -3) == 9
    assert base.sum(lambda v: v.sum(), ([1, 2], [3])).item() == 6  # the lists are arrays there
    assert base.sum(lambda p: p[0] * p[1], zip([1, 2], [3, 4], strict=True)) == 11
    assert base.sum(base.abs2, t(3.0)).item() == 9
    assert base.sum(base.norm, t([3.0, -4.0])).item() == 7


def test_sum_norm_of_params():
    W, b = leaf(2, 2), torch.zeros(3, dtype=f64, requires_grad=True)
    penalty = base.sum(base.norm, Params(W, b))
    assert penalty.item() == pytest.approx(math.sqrt(30))
    dW, db = torch.autograd.grad(penalty, (W, b))
    close(dW, (W / W.norm()).detach())
    assert db.tolist() == [0, 0, 0]
    assert base.sum(lambda x: base.sum(base.abs2, x), Params(W, b)).item() == 30
    assert base.sum(base.norm, Params()) == 0


def test_equal_extremes_give_the_gradient_to_the_first():
    x = t([[0.0, 7.0], [7.0, 7.0]], requires_grad=True)
    (dx,) = torch.autograd.grad(base.maximum(x), x)
    assert dx.tolist() == [[0, 0], [1, 0]]  # the first one down the columns
    (dx,) = torch.autograd.grad(base.maximum(x, dims=1).sum(), x)
    assert dx.tolist() == [[0, 1], [1, 0]]
    (dx,) = torch.autograd.grad(base.minimum(-x), x)
    assert dx.tolist() == [[0, 0], [-1, 0]]
    a, b = leaf(1)[0], leaf(1)[0]
    for f in (base.maximum, base.minimum):
        da, db = torch.autograd.grad(f([a, b]), (a, b), allow_unused=True)
        assert da == 1 and not db


def test_extremes():
    assert base.maximum([[1, 9], [3, 4]]).item() == 9 and base.minimum((4, 2, 8)) == 2
    assert math.isnan(base.maximum(t([1.0, math.nan]))) and math.isnan(base.maximum((1.0, math.nan, 2.0)))
    assert math.isnan(base.minimum((math.nan, 1.0)))
    assert base.maximum(["a", "c", "b"]) == "c"
    with pytest.raises(TypeError, match="compares numbers"):
        base.maximum([torch.ones(2), torch.zeros(3)])


def test_var_std():
    x = t([[1.0, 2.0, 4.0], [3.0, 8.0, 9.0]], dtype=f64)
    for values in ([1, 2, 4], (1, 2, 4), (v for v in (1, 2, 4)), range(1, 6), [t(1.0), t(4.0)]):
        values = list(values)
        assert base.var(iter(values)).item() == pytest.approx(statistics.variance(map(float, values)))
        assert base.std(values, corrected=False).item() == pytest.approx(statistics.pstdev(map(float, values)))
    m = base.mean(x, dims=1)
    for corrected in (True, False):
        for known in (m, m[:, 0]):
            close(base.var(x, dims=1, mean=known, corrected=corrected), base.var(x, dims=1, corrected=corrected))
        close(base.std(x, mean=base.mean(x), corrected=corrected), base.std(x, corrected=corrected))
    close(base.var(x, mean=0, corrected=False), (x**2).mean())
    with pytest.raises(DimensionMismatch):
        base.var(x, dims=1, mean=torch.ones(3))
    with pytest.raises(DimensionMismatch, match="doesn't fit"):
        base.var(x[:, 0], mean=torch.ones(2, 2))
    z = t([1 + 1j, 3 - 1j])
    close(base.var(z, mean=base.mean(z)), base.var(z))
    flat = torch.ones(3, requires_grad=True)
    assert torch.autograd.grad(base.std(flat), flat)[0].tolist() == [0, 0, 0]


def test_argmax():
    assert base.argmax([1, 5, 5]) == 1 and type(base.argmax(t([1.0, 2.0]))) is int
    assert base.argmax([[1, 7], [7, 0]]) == (1, 0)  # first down the columns
    assert base.argmax([False, True, True]) == 1 and base.argmax((3, 1)) == 0 and base.argmax(range(3)) == 2
    x = torch.zeros(2, 3, 4)
    x[1, 2, 3] = 1
    assert base.argmax(x) == (1, 2, 3) and x[base.argmax(x)] == 1
    onehot = t([[True, False, False], [False, False, True], [False, True, False]])
    assert base.argmax(onehot, dims=0).tolist() == [[0, 2, 1]]
    assert base.argmax(onehot, dims=-1).tolist() == [[0], [2], [1]]
    assert base.argmax([1.0, math.nan, 2.0]) == 1
    assert base.argmax([t(1.0), t(3.0)]) == 1
    assert base.argmax(abs, [1, -3, 3]) == -3 and base.argmax(len, ["a", "bb", "cc"]) == "bb"
    assert base.argmax(lambda v: -v, t([3.0, 1.0])).item() == 1
    with pytest.raises(ValueError, match="empty"):
        base.argmax(torch.ones(0))
    with pytest.raises(ValueError, match="empty"):
        base.argmax(abs, [])
    with pytest.raises(TypeError, match="dims=…"):
        base.argmax([1, 2], 0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=2, max_size=3))
def test_argmax_against_numpy(shape):
    x = torch.randint(0, 3, shape)
    assert base.argmax(x) == np.unravel_index(np.argmax(x.numpy().ravel("F")), shape, order="F")
    for d in range(len(shape)):
        assert base.argmax(x, dims=d).tolist() == np.argmax(x.numpy(), axis=d, keepdims=True).tolist()


def test_findmin():
    value, place = base.findmin([[3, 1], [1, 2]])
    assert value.item() == 1 and place == (1, 0)
    value, place = base.findmin(t([[3.0, 1.0], [0.0, 2.0]]), dims=0)
    assert value.tolist() == [[0, 1]] and place.tolist() == [[1, 0]]


# ---------------------------------------------------------------- making arrays


@pytest.mark.parametrize("f", [base.rand, base.randn, base.zeros, base.ones])
def test_making_arrays(f):
    assert f(2, 3).shape == (2, 3) and f(2, 3).dtype == f64
    assert f(torch.float32, 2, 3).dtype == torch.float32 and f(torch.float32, (2, 3)).shape == (2, 3)
    assert f(torch.ones(2, 3).shape).shape == (2, 3) and f(t(2), np.int64(3)).shape == (2, 3)
    assert f(torch.float32, ()).shape == () and f(0, 2).shape == (0, 2)
    with pytest.raises(TypeError, match="whole numbers"):
        f(2.0, 3)


def test_zeros_ones():
    assert base.zeros((1, 2)).tolist() == [[0, 0]] and base.ones((1, 2)).tolist() == [[1, 1]]
    assert base.zeros().shape == () and base.ones(torch.bool, 2).tolist() == [True, True]


@pytest.mark.parametrize("f", [base.rand, base.randn])
def test_random_generators(f):
    def seeded():
        return torch.Generator().manual_seed(1)

    close(f(seeded(), 2, 3), f(2, 3, rng=seeded()))
    close(f(seeded(), torch.float32, 4), f(torch.float32, 4, rng=seeded()))
    assert f(seeded()) == f(rng=seeded()) and type(f()) is float and type(f(torch.float32)) is float
    before = torch.get_rng_state()
    f(seeded(), 3)
    assert torch.equal(before, torch.get_rng_state())


def test_random_numbers_are_of_their_distribution():
    rng = torch.Generator().manual_seed(0)
    u, n = base.rand(rng, 20000), base.randn(rng, 20000)
    assert u.min() >= 0 and u.max() < 1 and abs(u.mean() - 0.5) < 0.01 and abs(u.var() - 1 / 12) < 0.003
    assert abs(n.mean()) < 0.03 and abs(n.var() - 1) < 0.05
    assert set(base.rand(rng, torch.bool, 50).tolist()) == {True, False}
    small = base.rand(rng, torch.int8, 20000)
    assert small.dtype == torch.int8 and small.min() == -128 and small.max() == 127
    assert base.rand(rng, torch.int64, 9).dtype == torch.int64


def test_rand_picks():
    rng = torch.Generator().manual_seed(0)
    assert {base.rand(rng, range(1, 7)) for _ in range(100)} == set(range(1, 7))
    assert {base.rand(rng, [0.1, 0.2]) for _ in range(50)} == {0.1, 0.2}
    assert {base.rand(rng, (2, 3)) for _ in range(50)} == {2, 3}  # Julia's own example
    assert {base.rand(rng, "ab") for _ in range(50)} == {"a", "b"}
    dice = base.rand(rng, range(1, 7), 4, 50)
    assert dice.shape == (4, 50) and set(dice.flatten().tolist()) == set(range(1, 7))
    assert base.rand(rng, [0.5, 1.5], (2, 2)).dtype == torch.float32
    words = base.rand(rng, ["x", "y"], 2, 3)
    assert len(words) == 2 and all(len(row) == 3 and set(row) <= {"x", "y"} for row in words)
    x = leaf(2, 2)
    assert base.rand(rng, x).shape == () and base.rand(rng, x, 5).shape == (5,)
    (dx,) = torch.autograd.grad(base.rand(rng, x, 5).sum(), x)
    assert dx.sum() == 5
    with pytest.raises(ValueError, match="empty"):
        base.rand([])


# ---------------------------------------------------------------- shapes


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_reshape_against_numpy(shape, data):
    x = torch.arange(math.prod(shape)).reshape(shape)
    factors = list(data.draw(st.permutations(shape)))
    if len(factors) > 1 and data.draw(st.booleans()):
        factors[:2] = [factors[0] * factors[1]]
    expected = torch.as_tensor(x.numpy().reshape(factors, order="F").copy())
    close(base.reshape(x, *factors), expected)
    free = data.draw(st.integers(0, len(factors) - 1))
    close(base.reshape(x, tuple(-1 if k == free else n for k, n in enumerate(factors))), expected)
    close(base.vec(x), torch.as_tensor(x.numpy().ravel("F").copy()))


def test_reshape_is_column_major():
    x = base.reshape(range(1, 7), 2, 3)
    assert x.tolist() == [[1, 3, 5], [2, 4, 6]]  # torch's own fills rows
    assert base.vec(x).tolist() == [1, 2, 3, 4, 5, 6]
    assert base.vec(range(5, 0, -2)).tolist() == [5, 3, 1] and base.vec(range(3, 1)).shape == (0,)
    assert base.reshape([[1, 2], [3, 4]], 4, 1)[:, 0].tolist() == [1, 3, 2, 4]
    assert gradcheck(lambda x: base.reshape(x, 3, -1), leaf(2, 6))


def test_reshape_is_a_view_on_flux_memory():
    x = torch.randn(5, 4, 3, 2).permute(3, 2, 1, 0)
    for y in (base.reshape(x, -1, 5), base.vec(x), base.reshape(x, 6, 20), base.reshape(x, 2, 1, 3, 4, 5)):
        assert y.data_ptr() == x.data_ptr() and y._is_view()


def test_reshape_that_does_not_fit():
    for dims in ((4,), (-1, 4), (-1, 0)):
        with pytest.raises(DimensionMismatch, match="must be consistent with array length 6"):
            base.reshape(torch.ones(2, 3), *dims)
    for dims in ((-1, -1), (-2, -3)):
        with pytest.raises(DimensionMismatch, match="one of them"):
            base.reshape(torch.ones(2, 3), *dims)
    with pytest.raises(TypeError, match="takes an array"):
        base.reshape("abc", 3)
    assert base.reshape(torch.ones(0, 3), 3, -1).shape == (3, 0) and base.reshape(torch.ones(1), ()).shape == ()


def test_size_length():
    x = torch.ones(3, 4)
    assert base.size(x) == (3, 4) and type(base.size(x)) is tuple
    assert base.size(x, 1) == 4 and base.size(x, -1) == 4 and base.size(x, 0, 1) == (3, 4)
    assert base.size(t([1.0, 2.0]), 1) == 1  # one column
    assert base.size([[1, 2, 3]]) == (1, 3) and base.size(["a", "b"]) == (2,) and base.size(3.5) == ()
    with pytest.raises(IndexError):
        base.size(x, -3)
    assert base.length(x) == 12 and len(x) == 3
    assert base.length([[1, 2], [3, 4]]) == 4 and base.length(["a", "b"]) == 2 and base.length(range(5)) == 5
    assert base.length(t(1.0)) == 1 and base.length(7) == 1 and base.length({"a": 1}) == 1


def test_only():
    x = leaf(1, 1)
    assert torch.autograd.grad(base.only(x), x)[0].tolist() == [[1]]
    assert base.only([5]).item() == 5 and base.only(("a",)) == "a" and base.only(k for k in "z") == "z"
    assert base.only(3) == 3
    for bad in (torch.ones(2), [], ["a", "b"], torch.ones(0), itertools.count()):
        with pytest.raises(ValueError, match="exactly one"):
            base.only(bad)


def test_transpose_permutedims():
    x = leaf(2, 3)
    assert torch.equal(base.transpose(x), x.T) and torch.equal(base.permutedims(x), x.T)
    assert base.transpose([1, 2, 3]).tolist() == [[1, 2, 3]] and base.permutedims([1, 2]).tolist() == [[1, 2]]
    y = torch.randn(2, 3, 4)
    close(base.permutedims(y, (2, 0, 1)), y.permute(2, 0, 1))
    close(base.permutedims(y, (-1, 0, 1)), y.permute(2, 0, 1))
    assert base.transpose(4) == 4
    onehot = t([[True, False], [False, True]])
    close(torch.ones(3, 2) @ base.transpose(onehot).float(), torch.ones(3, 2))
    for bad in ((0, 1), (0, 1, 1), (1, 2, 3)):
        with pytest.raises(DimensionMismatch, match="not a permutation"):
            base.permutedims(y, bad)
    for f in (base.transpose, base.permutedims):
        with pytest.raises(DimensionMismatch, match="vector or a matrix"):
            f(y)


def test_slices():
    x = leaf(2, 3)
    columns = base.eachcol(x)
    assert [c.tolist() for c in columns] == [[1, 4], [2, 5], [3, 6]]
    close(base.hcat(*columns), x)
    (dx,) = torch.autograd.grad(base.sum(c[0] for c in columns), x)
    assert dx.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert [c.tolist() for c in base.eachcol([1, 2])] == [[1, 2]]
    assert [bool(c[0] ^ c[1]) for c in base.eachcol(t([[True, True], [True, False]]))] == [False, True]
    plain = torch.zeros(2, 2)
    base.eachcol(plain)[1][...] = 1
    assert plain.tolist() == [[0, 1], [0, 1]]
    y = torch.randn(2, 3, 4)
    for d in (0, 1, 2, -1):
        close(torch.stack(base.eachslice(y, dims=d), d), y)
    with pytest.raises(DimensionMismatch, match="eachcol takes a matrix"):
        base.eachcol(y)
    with pytest.raises(IndexError):
        base.eachslice(y, dims=3)


def test_partition():
    assert base.partition([1, 2, 3, 4, 5], 2) == [[1, 2], [3, 4], [5]]
    runs = base.partition(range(10), 4)
    assert list(runs) == list(runs) == [range(0, 4), range(4, 8), range(8, 10)]  # not spent by the first pass
    x = t([[1.0, 2.0], [3.0, 4.0]])
    assert [c.tolist() for c in base.partition(x, 3)] == [[1, 3, 2], [4]]
    first = next(iter(base.partition(itertools.count(), 3)))
    assert first == [0, 1, 2]
    assert list(base.partition((k for k in range(3)), 2)) == [[0, 1], [2]]
    assert base.partition({1: 0, 2: 0, 3: 0}.keys(), 2) == [[1, 2], [3]] and base.partition([], 2) == []
    losses = [1.0, 3.0, 5.0]
    assert base.broadcast(base.mean, base.partition(losses, 2)) == [t(2.0), t(5.0)]
    with pytest.raises(ValueError, match="1 or more"):
        base.partition([1], 0)


def test_foldl():
    assert base.foldl(operator.sub, [10, 1, 2]) == 7 and base.foldl(operator.add, "abc") == "abc"
    layers = [torch.nn.Linear(2, 3), torch.relu, torch.nn.Linear(3, 1)]
    x = torch.randn(5, 2)
    close(base.foldl(lambda x, m: m(x), layers, init=x), layers[2](torch.relu(layers[0](x))))
    assert base.foldl(lambda a, b: 10 * a + b, [[1, 2], [3, 4]], init=0).tolist() == [13, 24]
    assert base.foldl(lambda a, b: 10 * a + b, t([[1, 2], [3, 4]])).item() == 1324
    assert base.foldl(operator.add, [], init=None) is None
    with pytest.raises(ValueError, match="init"):
        base.foldl(operator.add, [])


# ---------------------------------------------------------------- putting together


def test_hcat_of_the_overview():
    x = base.hcat(*range(0, 6))
    assert x.shape == (1, 6) and x.tolist() == [[0, 1, 2, 3, 4, 5]] and x.dtype == torch.int64
    assert base.hcat(*(k / 10 for k in range(-30, 31))).shape == (1, 61)


def test_hcat_vcat_cat():
    v, w, M = t([1.0, 2.0]), t([3.0, 4.0]), t([[5.0, 6.0], [7.0, 8.0]])
    assert base.hcat(v, w).tolist() == [[1, 3], [2, 4]]
    assert base.hcat(v, M).tolist() == [[1, 5, 6], [2, 7, 8]]
    assert base.vcat(v, w).tolist() == [1, 2, 3, 4] and base.vcat(1, v, 2).tolist() == [1, 1, 2, 2]
    assert base.vcat(v, M[:, :1]).tolist() == [[1], [2], [5], [7]]
    assert base.vcat(M, [[0, 0]]).tolist() == [[5, 6], [7, 8], [0, 0]]
    assert base.hcat(1, [[2, 3]]).tolist() == [[1, 2, 3]] and base.vcat(1).tolist() == [1]
    images = [torch.full((2, 3), float(k)) for k in range(4)]
    stacked = base.cat(*images, dims=2)
    assert stacked.shape == (2, 3, 4) and stacked[0, 0].tolist() == [0, 1, 2, 3]
    close(base.cat(stacked, images[0], dims=2)[..., 4], images[0])
    assert base.cat(M, M, dims=-1).shape == (2, 4) and base.cat(v, w, dims=1).tolist() == [[1, 3], [2, 4]]
    assert gradcheck(lambda a, b: base.hcat(a, 1.5, b), (leaf(1), leaf(1, 2)))


def test_joining_promotes():
    assert base.vcat(t([1, 2]), t([0.5], dtype=f64)).dtype == f64
    assert base.vcat(t([True]), t([2])).tolist() == [1, 2]
    assert base.vcat(t([1.0]), 2).dtype == torch.float32 and base.vcat(1, 0.5).dtype == torch.float32
    close(base.vcat(t([1.0], dtype=f64), 0.1), t([1.0, 0.1], dtype=f64), rtol=0, atol=0)
    assert base.hcat(t(1.0, dtype=f64), t([[1.0]])).dtype == torch.float32  # as a number would
    assert base.hcat(t(1), t(0.5, dtype=f64)).dtype == f64


def test_joining_what_does_not_fit():
    with pytest.raises(DimensionMismatch, match=r"hcat .* axis 1, and got \(2, 1\) and \(3, 1\)"):
        base.hcat(torch.ones(2), torch.ones(3))
    with pytest.raises(DimensionMismatch):
        base.vcat(torch.ones(2), torch.ones(2, 2))
    with pytest.raises(DimensionMismatch):  # torch drops it without a word
        base.vcat(torch.ones(0), torch.ones(2, 2))
    with pytest.raises(TypeError, match="numbers and arrays"):
        base.hcat(torch.ones(2), "a")
    for f in (base.hcat, base.vcat):
        with pytest.raises(ValueError, match="at least one"):
            f()


def test_vcat_of_other_lists():
    assert base.vcat(["a"], ["b", "c"]) == ["a", "b", "c"]
    x = torch.ones(2)
    assert base.vcat([], [(x, 1)]) == [(x, 1)]


# ---------------------------------------------------------------- LinearAlgebra


def test_dot():
    assert base.dot([1, 2, 3], [4, 5, 6]).item() == 32 and base.dot(2, 3) == 6
    assert base.dot(t([[1.0, 2.0], [3.0, 4.0]]), t([[1.0, 0.0], [0.0, 1.0]])).item() == 5
    assert base.dot(t([[1.0, 2.0], [3.0, 4.0]]), t([1.0, 10.0, 100.0, 1000.0])).item() == 1 + 30 + 200 + 4000
    assert base.dot(t([1j]), t([1j])).item() == 1 and base.dot(1j, 1j) == 1
    assert base.dot([True, True], [True, False]).item() == 1
    assert base.dot(t([1, 2]), t([0.5, 0.5], dtype=f64)).dtype == f64
    with pytest.raises(DimensionMismatch, match="lengths 3 and 1"):  # torch would stretch the one
        base.dot(torch.ones(3), torch.ones(1))
    assert gradgradcheck(base.dot, (leaf(3), leaf(3)))


def test_norm():
    x = t([[3.0, -4.0], [0.0, 12.0]], dtype=f64)
    assert base.norm(x).item() == 13 and base.norm(x, 1).item() == 19 and base.norm(x, math.inf).item() == 12
    assert (
        base.norm(x, 0).item() == 3
        and base.norm([3, 4]).dtype == f64
        and base.norm(t([True, True])).item() == math.sqrt(2)
    )
    assert base.norm(-2) == 2.0 and base.norm(3 + 4j) == 5 and base.norm((3, 4)) == 5.0 and base.norm(()) == 0.0
    assert base.norm((x, [1.0], 0.0), 1).item() == 20
    assert base.norm([t([3.0]), (t([[4.0]]), {"a": t([12.0])})]).item() == 13
    assert gradcheck(base.norm, leaf(2, 3)) and gradgradcheck(base.norm, leaf(2, 3))


@pytest.mark.parametrize("p", [1, 1.5, 2, 3, math.inf])
def test_norm_gradient_at_zero(p):
    x, y = torch.zeros(3, requires_grad=True), torch.zeros(2, requires_grad=True)
    for penalty in (base.norm(x, p) + 0 * y.sum(), base.norm([x, y], p), base.sum(lambda v: base.norm(v, p), [x, y])):
        for g in torch.autograd.grad(penalty + 0 * x.sum(), (x, y)):
            assert g.tolist() == [0] * len(g)


# ---------------------------------------------------------------- the tutorials' own lines


def test_logistic_regression_lines():
    def custom_softmax(x):
        return base.broadcast(operator.truediv, base.exp(x), base.sum(base.exp(x), dims=0))

    y = custom_softmax(torch.randn(3, 3, dtype=f64))  # as many classes as samples: torch lines them up alike
    close(base.sum(y, dims=0), torch.ones(1, 3, dtype=f64))
    onehot = t([[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    classes = ["setosa", "versicolor", "virginica"]
    onecold = base.broadcast(lambda k: classes[k], base.vec(base.argmax(onehot, dims=0)))
    assert onecold == ["setosa", "virginica", "versicolor"]
    accuracy = base.mean(base.broadcast(operator.eq, onecold, ["setosa", "setosa", "versicolor"]))
    assert accuracy.item() == 2 / 3


def test_linear_regression_lines():
    W, b = t([[3.0]]), t([2.0])
    x = base.hcat(*range(-3, 4)).float()
    y = base.broadcast(operator.add, W @ x, b)
    assert y.tolist() == [[-7, -4, -1, 2, 5, 8, 11]]
    noisy = x * base.reshape(base.rand(torch.float32, 7), (1, 7))
    assert noisy.shape == (1, 7) and noisy.dtype == torch.float32
    loss = base.sum((y - x) ** 2) / base.length(x)
    assert loss.item() == pytest.approx(sum((2 * k + 2) ** 2 for k in range(-3, 4)) / 7)


def test_mean_of_what_compares_whole_lists():
    with pytest.raises(TypeError, match="whether all is equal; broadcast"):
        base.mean([1, 2] == [1, 3])
    assert base.mean(base.broadcast(operator.eq, [1, 2], [1, 3])) == 0.5
