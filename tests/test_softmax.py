from __future__ import annotations

import math

import pytest
import torch

from fluxtorch.layers import Chain, Conv, Dense, flatten
from fluxtorch.nnlib.softmax import logsoftmax, logsumexp, softmax
from fluxtorch.pairs import to

INF, NAN = math.inf, math.nan


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def close(x, y, **kws):
    torch.testing.assert_close(x, torch.as_tensor(y, dtype=x.dtype), **kws)


def test_softmax_of_the_manual():
    xs = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    close(softmax(xs), [0.09003057317038046, 0.24472847105479764, 0.6652409557748218])
    m = [[1, 2, 3], [2, 2, 2]]
    close(softmax(m), [[0.268941, 0.5, 0.731059], [0.731059, 0.5, 0.268941]], rtol=1e-5, atol=0)
    close(softmax(m, dims=1), [[0.0900306, 0.244728, 0.665241], [1 / 3] * 3], rtol=1e-5, atol=0)
    close(softmax(m, 1), softmax(m, dims=-1))
    close(softmax([0, 0]), [0.5, 0.5])
    close(softmax(range(1, 4)), softmax(xs))
    model = Chain(Conv((4, 4), 3 | to | 8, torch.tanh), flatten, Dense(8 | to | 7), softmax)
    y = model(torch.randn(4, 4, 3, 13))
    assert y.shape == (7, 13)
    close(y.sum(0), torch.ones(13))


def test_far_out_numbers():
    xs = torch.tensor([-100_000.0, -100_000.0], dtype=torch.float64)
    close(softmax(xs), [0.5, 0.5])
    close(logsoftmax(xs), [-math.log(2), -math.log(2)])
    close(logsoftmax([1.0, 2.0, 3000.0]), [-2999, -2998, 0])
    close(logsoftmax([[1.0, 2.0, 3.0], [1000.0, 2000.0, 3000.0]]), [[-999, -1998, -2997], [0, 0, 0]])
    close(logsumexp([1000.0, -1000.0]), 1000.0)
    close(logsumexp(torch.tensor([-1000.0, -1000.0], dtype=torch.float64)), -1000 + math.log(2))


# Worked out by NNlib's tests with PyTorch.
XS = [
    [-0.238639, 0.748142, -0.283194, -0.525461, -1.5348, -0.797842],
    [0.690384, 0.211427, 0.254794, -0.213572, -0.314174, -0.372663],
    [-1.146370, -0.577988, 0.718952, 0.919720, -0.620773, 0.929977],
]
DXS = [
    [0.237703, -0.621474, 0.448193, 0.546047, 0.564185, 0.632273],
    [-0.930163, 0.0519798, 0.0549979, 0.3799, -0.477112, 0.437428],
    [0.69246, 0.569494, -0.503191, -0.925947, -0.0870738, -1.0697],
]


def test_gradient_numbers_of_nnlib():
    x = torch.tensor(XS, dtype=torch.float64, requires_grad=True)
    close(torch.autograd.grad(logsoftmax(x).sum(), x)[0], DXS, rtol=2e-6, atol=2e-6)
    close(torch.autograd.grad(softmax(x).sum(), x)[0], torch.zeros(3, 6), rtol=0, atol=1e-12)
    x = torch.tensor([[1.0, 2.0, 3.0], [1000.0, 2000.0, 3000.0]], requires_grad=True)
    close(torch.autograd.grad(logsoftmax(x).sum(), x)[0], [[1, 1, 1], [-1, -1, -1]])


def test_infinity_and_nan():
    half = [[0.11920292, 0.0], [0.880797, 1.0]]
    close(softmax([[1.0, 2.0], [3.0, INF]]), half)
    close(softmax([[1.0, -INF], [3.0, INF]]), half)
    close(softmax([[1.0, INF], [3.0, INF]]), [[0.11920292, 0.5], [0.880797, 0.5]])
    close(softmax([[1.0, 2.0], [3.0, NAN]]), [[0.11920292, NAN], [0.880797, NAN]], equal_nan=True)
    close(softmax([[1.0, 2.0], [3.0, INF]], dims=1), [[0.26894143, 0.7310586], [0, 1]])
    close(softmax([[1.0, 2.0], [3.0, INF]], dims=None), [[0, 0], [0, 1]])
    close(softmax([[1.0, 2.0], [3.0, INF]], dims=(0, 1)), [[0, 0], [0, 1]])
    close(softmax([-INF, 0.0, 0.0]), [0, 0.5, 0.5])
    for m in ([[1.0, 2.0], [3.0, INF]], [[1.0, -INF], [3.0, INF]], [[1.0, INF], [3.0, INF]]):
        for dtype in (torch.float16, torch.float32, torch.float64):
            x = torch.tensor(m, dtype=dtype)
            close(logsoftmax(x).exp(), softmax(x), rtol=2e-3, atol=1e-6)
            assert torch.equal(x, torch.tensor(m, dtype=dtype))
    # exp(-Inf - -Inf) is NaN, in Julia too; one column leaves the other alone.
    x = [[-INF, 1.0], [-INF, 2.0]]
    close(softmax(x), [[NAN, 0.26894143], [NAN, 0.7310586]], equal_nan=True)
    close(logsoftmax(x), [[NAN, -1.31326169], [NAN, -0.31326169]], equal_nan=True)
    close(logsumexp(x, dims=0), [[-INF, 2.31326169]])
    close(logsumexp([1.0, INF]), INF)
    x = torch.tensor([[1.0, 2.0], [3.0, INF]], requires_grad=True)
    dx = torch.autograd.grad((softmax(x) * torch.tensor([[1.0, 2.0], [3.0, 4.0]])).sum(), x)[0]
    p = 0.880797
    close(dx, [[-2 * p * (1 - p), 0], [2 * p * (1 - p), 0]])


@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 4, 2), (130, 3), (130, 2, 3)])
@pytest.mark.parametrize("reverse", [False, True])
def test_along_every_axis(shape, reverse):
    x = torch.randn(shape[::-1] if reverse else shape, dtype=torch.float64)
    x = x.permute(*reversed(range(x.ndim))) if reverse else x
    choices = [*range(x.ndim), -1, -x.ndim, None, tuple(range(x.ndim))]
    if x.ndim == 3:
        choices += [(0, 2), (2, 0), (1, -1)]
    for dims in choices:
        axes = tuple(range(x.ndim)) if dims is None else dims
        e = x.exp()
        total = e.sum(axes, keepdim=True)
        close(softmax(x, dims=dims), e / total)
        close(logsoftmax(x, dims=dims), (e / total).log())
        want = total.log()
        close(logsumexp(x, dims=dims), want.reshape(()) if dims is None else want)


@pytest.mark.parametrize("f", [softmax, logsoftmax, logsumexp])
def test_dims(f):
    x = torch.randn(3, 4, 2)
    for dims in ([0, 2], range(0, 3, 2), (torch.tensor(0), 2), (-3, -1)):
        close(f(x, dims=dims), f(x, dims=(0, 2)))
    close(f(x, dims=torch.tensor(1)), f(x, dims=1))
    # No axis: each number by itself.
    y = f(x, dims=())
    close(y, x if f is logsumexp else torch.ones_like(x) if f is softmax else torch.zeros_like(x))
    for empty in (torch.ones(0, 3), torch.ones(3, 0)):
        assert f(empty, dims=(1, 0)).shape == ((1, 1) if f is logsumexp else empty.shape)
    for dims in ((0, 3), (-4,)):
        with pytest.raises(IndexError, match=rf"{f.__name__} got axis -?\d, which a 3×4×2 tensor .* doesn't have"):
            f(x, dims=dims)
    with pytest.raises(ValueError, match=f"{f.__name__} got an axis twice"):
        f(x, dims=(0, -3))
    with pytest.raises(TypeError, match="an axis must be a whole number, and is 'a'"):
        f(x, dims="a")


def test_logsumexp_keeps_the_axis():
    x = torch.randn(3, 4)
    assert logsumexp(x).shape == ()
    assert logsumexp(x, dims=0).shape == (1, 4)
    assert logsumexp(x, dims=(0, 1)).shape == (1, 1)
    close(logsumexp(x, dims=0), (x - logsoftmax(x, dims=0)).mean(0, keepdim=True))
    close(logsumexp([0, 0]), math.log(2))


@pytest.mark.parametrize("f", [softmax, logsoftmax, logsumexp])
def test_gradients(f):
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)[:, None]
    for dims in (None, 0, 1, (0, 1)):
        g = lambda x, dims=dims: f(x, dims=dims) * w  # noqa: E731
        assert torch.autograd.gradcheck(g, x)
        assert torch.autograd.gradgradcheck(lambda x, dims=dims: torch.sin(f(x, dims=dims)), x)


def test_gradient_of_a_long_axis():
    x = torch.randn(3, 120, dtype=torch.float64).T.requires_grad_(True)
    w = torch.randn(120, 3, dtype=torch.float64)
    for f, g in ((softmax, torch.softmax), (logsoftmax, torch.log_softmax)):
        close(torch.autograd.grad((f(x) * w).sum(), x)[0], torch.autograd.grad((g(x, 0) * w).sum(), x)[0])


@pytest.mark.parametrize("f", [softmax, logsoftmax, logsumexp])
def test_types(f):
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert f(torch.randn(3, 4).to(dtype)).dtype == dtype
    assert f(torch.tensor([1, 2])).dtype == torch.float32
    for x in (1.0, 2, torch.tensor(1.0)):
        with pytest.raises(TypeError, match=rf"`{f.__name__}\(x\)` called with a number, but it expects an array"):
            f(x)
    for x in ("abc", torch.ones(2, dtype=torch.complex64)):
        with pytest.raises(TypeError, match=f"{f.__name__} takes an array of real numbers, but got"):
            f(x)
    with pytest.raises(IndexError):
        f(torch.randn(3, 4), dims=2)
