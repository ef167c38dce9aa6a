from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

import fluxtorch.nnlib.activations as A
from fluxtorch.errors import DimensionMismatch
from fluxtorch.nnlib.activations import (
    celu,
    elu,
    gelu,
    hardsigmoid,
    hardswish,
    hardtanh,
    hardσ,
    leakyrelu,
    lisht,
    logcosh,
    logsigmoid,
    logσ,
    mish,
    relu,
    relu6,
    rrelu,
    selu,
    sigmoid,
    sigmoid_fast,
    softplus,
    softshrink,
    softsign,
    swish,
    tanh_fast,
    tanhshrink,
    thresholdrelu,
    trelu,
    σ,
)
from fluxtorch.zygote import gradient

UNARY = [
    σ,
    hardσ,
    logσ,
    hardtanh,
    relu,
    leakyrelu,
    relu6,
    elu,
    gelu,
    swish,
    hardswish,
    lisht,
    selu,
    celu,
    trelu,
    softsign,
    softplus,
    logcosh,
    mish,
    tanhshrink,
    softshrink,
    sigmoid_fast,
    tanh_fast,
]
ALL = [*UNARY, rrelu]
BINARY = [leakyrelu, elu, celu, trelu, softshrink]
WHOLE = [relu, relu6, hardtanh, trelu]
FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
by_name = pytest.mark.parametrize("f", UNARY, ids=lambda f: f.__name__)
all_by_name = pytest.mark.parametrize("f", ALL, ids=lambda f: f.__name__)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_every_name_is_there_and_prints_as_in_flux():
    assert {getattr(A, name) for name in A.__all__} == set(ALL)
    assert sigmoid is σ and hardsigmoid is hardσ and logsigmoid is logσ and thresholdrelu is trelu
    names = [f.__name__ for f in (sigmoid, hardsigmoid, logsigmoid, thresholdrelu, tanh_fast, sigmoid_fast, relu)]
    assert names == ["σ", "hardσ", "logσ", "trelu", "tanh_fast", "sigmoid_fast", "relu"]


# The numbers of NNlib's own tests, at 0, 1 and -1.
E1 = math.exp(-1)
NNLIB = {
    σ: (0.5, 1 / (1 + E1), E1 / (1 + E1)),
    hardσ: (0.5, 4 / 6, 2 / 6),
    logσ: (-math.log(2), math.log(1 / (1 + E1)), math.log(E1 / (1 + E1))),
    hardtanh: (0, 1, -1),
    relu: (0, 1, 0),
    leakyrelu: (0, 1, -0.01),
    relu6: (0, 1, 0),
    elu: (0, 1, E1 - 1),
    gelu: (0, 0.8411919906082768, -0.15880800939172324),
    swish: (0, 1 / (1 + E1), -E1 / (1 + E1)),
    hardswish: (0, 4 / 6, -2 / 6),
    lisht: (0, math.tanh(1), math.tanh(1)),
    selu: (0, 1.0507009873554805, 1.0507009873554805 * 1.6732632423543773 * (E1 - 1)),
    celu: (0, 1, E1 - 1),
    trelu: (0, 0, 0),
    softsign: (0, 0.5, -0.5),
    softplus: (math.log(2), math.log(math.e + 1), math.log(E1 + 1)),
    logcosh: (0, math.log(math.cosh(1)), math.log(math.cosh(1))),
    mish: (0, math.tanh(math.log(1 + math.e)), -math.tanh(math.log(1 + E1))),
    tanhshrink: (0, 0.23840584404423515, -0.23840584404423515),
    softshrink: (0, 0.5, -0.5),
    sigmoid_fast: (0.5, 1 / (1 + E1), E1 / (1 + E1)),
    tanh_fast: (0, math.tanh(1), -math.tanh(1)),
}


@by_name
def test_numbers_of_nnlib(f):
    at = [f(0.0), f(1.0), f(-1.0)]
    assert all(type(y) is float for y in at)
    assert at == pytest.approx(NNLIB[f], rel=1e-15, abs=1e-15)


@pytest.mark.parametrize(
    "got, want",
    [
        (lambda: leakyrelu(-10, 0.2), -2.0),
        (lambda: leakyrelu(-10, a=0.02), -0.2),
        (lambda: leakyrelu(0.4, 0.3), 0.4),
        (lambda: leakyrelu(-0.4, 0.3), -0.12),
        (lambda: relu6(10.0), 6.0),
        (lambda: elu(-10), -0.9999546000702375),
        (lambda: elu(-10, 2), -1.999909200140475),
        (lambda: elu(-10, α=2), -1.999909200140475),
        (lambda: elu(42), 42.0),
        (lambda: elu(-4), math.exp(-4) - 1),
        (lambda: mish(-5), -0.033576237730161704),
        (lambda: mish(9), 9 * math.tanh(math.log(1 + math.exp(9)))),
        (lambda: celu(42), 42.0),
        (lambda: celu(-10), -0.9999546000702375),
        (lambda: celu(-4, 0.5), 0.5 * (math.exp(-8) - 1)),
        (lambda: celu(-4, α=0.5), 0.5 * (math.exp(-8) - 1)),
        (lambda: selu(-10), -1.7580195),
        (lambda: softshrink(15.0, 5.0), 10.0),
        (lambda: softshrink(4.0, λ=5.0), 0.0),
        (lambda: softshrink(-15.0, 5.0), -10.0),
        (lambda: logcosh(1000.0) + math.log(2), 1000.0),
        (lambda: hardσ(0.3), 0.55),
        (lambda: hardtanh(10.0), 1.0),
        (lambda: lisht(2.5), 2.5 * math.tanh(2.5)),
        (lambda: trelu(0.5), 0.0),
        (lambda: trelu(1.0), 0.0),
        (lambda: trelu(1.1), 1.1),
        (lambda: trelu(0.9, 0.5), 0.9),
        (lambda: trelu(0.9, theta=0.5), 0.9),
        (lambda: softsign(100), 0.990099),
        (lambda: softplus(16), 16.0000001),
        (lambda: softplus(1e8), 1e8),
        (lambda: softplus(-1e8), 0.0),
        (lambda: σ(0.2), 0.5498339973124779),
        (lambda: hardσ(0.2), 0.5333333333),
        (lambda: tanh_fast(0.5), 0.46211715726),
        (lambda: relu(True), 1.0),
    ],
)
def test_numbers_of_the_manual(got, want):
    assert got() == pytest.approx(want, rel=1e-7, abs=1e-12)


def test_hardswish_of_the_manual():
    want = [0, 0, 0, -1 / 3, -1 / 3, 0, 2 / 3, 5 / 3, 3, 4, 5]
    torch.testing.assert_close(hardswish(range(-5, 6)), torch.tensor(want))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_faster_ones_of_nnlib(dtype):
    x = torch.cat([torch.arange(1e-6, 5, 1e-3), torch.arange(6, 200, 3), torch.tensor([1000, 1e6, math.inf])]).to(dtype)
    x = torch.cat([x, -x])
    five = {"rtol": 5 * torch.finfo(dtype).eps, "atol": 0}
    torch.testing.assert_close(tanh_fast(x), torch.tensor([math.tanh(v) for v in x.tolist()], dtype=dtype), **five)
    x = x[x > -80]  # beyond which NNlib's is 0
    want = [1 / (1 + math.exp(-v)) for v in x.tolist()]
    torch.testing.assert_close(sigmoid_fast(x), torch.tensor(want, dtype=dtype), **five)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "f, reference",
    [
        (σ, torch.sigmoid),
        (hardσ, F.hardsigmoid),
        (logσ, lambda x: -F.softplus(-x, threshold=500)),
        (leakyrelu, lambda x: torch.maximum(0.01 * x, x)),
        (lambda x: elu(x, 0.7), lambda x: F.elu(x, 0.7)),
        (gelu, lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        (swish, F.silu),
        (hardswish, F.hardswish),
        (selu, F.selu),
        (lambda x: celu(x, 0.7), lambda x: x.clamp_min(0) + (0.7 * torch.expm1(x / 0.7)).clamp_max(0)),
        (lambda x: trelu(x, 0.3), lambda x: x * (x > 0.3)),
        (logcosh, lambda x: torch.log(torch.cosh(x))),
        (mish, F.mish),
        (lambda x: softshrink(x, 0.2), lambda x: x.sign() * (x.abs() - 0.2).clamp_min(0)),
    ],
)
def test_like_torch(f, reference, dtype):
    x = torch.linspace(-8, 8, 203, dtype=dtype)
    torch.testing.assert_close(f(x), reference(x))


def test_softplus_is_exact_in_float64():
    x = torch.tensor([-50.0, 20.5, 30.0, 49.9, 50.1], dtype=torch.float64)
    want = [math.log1p(math.exp(v)) for v in x.tolist()]
    torch.testing.assert_close(softplus(x), torch.tensor(want, dtype=torch.float64), rtol=1e-15, atol=0)
    torch.testing.assert_close(logσ(-x), -torch.tensor(want, dtype=torch.float64), rtol=1e-15, atol=0)


@all_by_name
def test_element_types_and_shapes(f):
    for dtype in FLOATS:
        y = f(torch.randn(2, 3, 4).to(dtype))
        assert y.dtype == dtype and y.shape == (2, 3, 4)
    for dtype in (torch.int64, torch.int32, torch.uint8):
        assert f(torch.tensor([0, 1], dtype=dtype)).dtype == (dtype if f in WHOLE else torch.float32)
    assert f(torch.tensor([False, True])).dtype == torch.float32
    xs = [[0, 1], [2, 3]]
    torch.testing.assert_close(f(xs).float(), f(torch.tensor(xs, dtype=torch.float32)))
    assert f(torch.zeros(3, 0)).shape == (3, 0)
    assert f(torch.tensor(1.0)).shape == ()
    assert type(f(3)) is (int if f in WHOLE else float)
    assert type(f(3.0)) is type(f(True)) is float
    reversed_axes = torch.randn(4, 3, dtype=torch.float64).T
    if f is not rrelu:
        torch.testing.assert_close(f(reversed_axes), f(reversed_axes.contiguous()))


def test_integers_stay_what_they_are():
    assert [f(n) for f in WHOLE for n in (-4, 3, 9)] == [0, 3, 9, 0, 3, 6, -1, 1, 1, 0, 3, 9]
    assert relu([-(2**40), 2**40]).tolist() == [0, 2**40]
    assert trelu([1, 2, 3], 2).tolist() == [0, 0, 3]
    # A gradient is one of floats.
    assert gradient(lambda x: relu(x).sum(), [1, -2])[0].tolist() == [1, 0]
    assert gradient(relu, 3) == (1.0,)


@pytest.mark.parametrize("f", [*BINARY, rrelu], ids=lambda f: f.__name__)
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_parameter_changes_no_element_type(f, dtype):
    x = torch.tensor([-10.0, -1, 0, 1, 10], dtype=dtype)
    for p in (0.1, 1, torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64)):
        assert f(x, p).dtype == dtype
    assert type(f(-1, 1)) is (int if f is trelu else float)


@all_by_name
def test_nan_and_infinity(f):
    for dtype in FLOATS:
        nan, inf = torch.tensor(math.nan, dtype=dtype), torch.tensor(math.inf, dtype=dtype)
        assert f(nan).isnan()
        if f is not softsign:
            assert not f(inf).isnan()
        if f not in (softsign, gelu, swish, hardswish, logcosh, mish):
            assert not f(-inf).isnan()
    assert math.isnan(f(math.nan))
    for x in (math.inf, -math.inf):
        torch.testing.assert_close(torch.tensor(f(x)), f(torch.tensor(x)), equal_nan=True)


# Values at -1000 and 1000, then slopes there: all are on their asymptotes.
FAR_OUT = {
    σ: (0, 1, 0, 0),
    hardσ: (0, 1, 0, 0),
    logσ: (-1000, 0, 1, 0),
    hardtanh: (-1, 1, 0, 0),
    relu: (0, 1000, 0, 1),
    leakyrelu: (-10, 1000, 0.01, 1),
    relu6: (0, 6, 0, 0),
    elu: (-1, 1000, 0, 1),
    gelu: (0, 1000, 0, 1),
    swish: (0, 1000, 0, 1),
    hardswish: (0, 1000, 0, 1),
    lisht: (1000, 1000, -1, 1),
    selu: (-1.7580993, 1050.70099, 0, 1.0507009873554805),
    celu: (-1, 1000, 0, 1),
    trelu: (0, 1000, 0, 1),
    softsign: (-1000 / 1001, 1000 / 1001, 1 / 1001**2, 1 / 1001**2),
    softplus: (0, 1000, 0, 1),
    logcosh: (1000 - math.log(2), 1000 - math.log(2), -1, 1),
    mish: (0, 1000, 0, 1),
    tanhshrink: (-999, 999, 1, 1),
    softshrink: (-999.5, 999.5, 1, 1),
    sigmoid_fast: (0, 1, 0, 0),
    tanh_fast: (-1, 1, 0, 0),
}


@by_name
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_far_out_values_and_slopes(f, dtype):
    x = torch.tensor([-1000.0, 1000.0], dtype=dtype, requires_grad=True)
    y = f(x)
    torch.testing.assert_close(y.detach(), torch.tensor(FAR_OUT[f][:2], dtype=dtype))
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    torch.testing.assert_close(dx.detach(), torch.tensor(FAR_OUT[f][2:], dtype=dtype))
    if dtype != torch.float16 and dx.requires_grad:
        (d2x,) = torch.autograd.grad(dx.sum(), x, allow_unused=True)
        assert d2x is None or d2x.abs().max() < 1e-6


POINTS = [-4.3, -2.2, -0.9, -0.2, 0.1, 0.3, 1.2, 2.7, 5.5, 7.4]


@by_name
def test_gradients(f):
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(f, x, eps=1e-7)
    assert torch.autograd.gradgradcheck(f, x, eps=1e-7)


@pytest.mark.parametrize("p", [0.2, 0.7])
@pytest.mark.parametrize("f", BINARY, ids=lambda f: f.__name__)
def test_gradients_with_parameter(f, p):
    x = torch.tensor(POINTS, dtype=torch.float64, requires_grad=True) + 0.03
    a = torch.tensor(p, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: f(x, p), x, eps=1e-7)
    torch.testing.assert_close(f(x, a), f(x, p))
    torch.testing.assert_close(torch.autograd.grad(f(x, a).sum(), x)[0], torch.autograd.grad(f(x, p).sum(), x)[0])
    if f is not trelu:
        assert torch.autograd.gradcheck(f, (x, a), eps=1e-7)
        assert torch.autograd.gradgradcheck(f, (x, a), eps=1e-7)


@pytest.mark.parametrize("f", BINARY, ids=lambda f: f.__name__)
def test_tensor_parameter_lines_up_with_the_first_axis(f):
    x = torch.randn(2, 2, dtype=torch.float64)
    p = torch.tensor([0.1, 0.9])
    want = torch.stack([f(x[0], float(p[0])), f(x[1], float(p[1]))])
    assert f(x, p).dtype == torch.float64
    torch.testing.assert_close(f(x, p), want)
    for wrong in (torch.ones(3), torch.ones(1, 3), torch.ones(2, 2, 1)):
        with pytest.raises(DimensionMismatch, match="doesn't line up with a 2×2 tensor of float64 from axis 0"):
            f(x, wrong)


def test_tensor_parameter_of_a_number():
    a = torch.tensor(0.25, requires_grad=True)
    y = leakyrelu(-2.0, a)
    assert y.item() == -0.5
    assert torch.autograd.grad(y, a)[0].item() == -2.0
    y = leakyrelu(torch.tensor([math.inf, -2.0]), a)
    assert torch.autograd.grad(y.sum(), a)[0].item() == -2.0


@pytest.mark.parametrize(
    "f, slope",
    [(relu, 0), (leakyrelu, 0.01), (elu, 1), (celu, 1), (σ, 0.25), (softsign, 1), (tanh_fast, 1), (softshrink, 0)],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_slope_at_zero(f, slope):
    x = torch.zeros((), requires_grad=True)
    assert torch.autograd.grad(f(x), x)[0].item() == pytest.approx(slope)


def test_far_out_slopes_of_zygote_issue_758():
    x = torch.tensor([1_000.0, 10_000.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(selu(x).sum(), x)[0].tolist() == pytest.approx([1.0507009873554805] * 2, rel=1e-12)
    assert torch.autograd.grad(elu(x, 2).sum(), x)[0].tolist() == [1, 1]
    assert gradient(lambda xs: selu(xs).sum(), [1000, 10000])[0].tolist() == pytest.approx([1.0507009873554805] * 2)
    assert gradient(lambda xs: elu(xs, 2).sum(), [1000, 10000])[0].tolist() == [1, 1]
    assert gradient(selu, 1000) == (1.0507009873554805,)
    assert gradient(lambda x: elu(x, 2), 1000) == (1.0,)
    assert gradient(lambda x: elu(x, 2), -1)[0] == pytest.approx(2 * E1, rel=1e-15)


def test_the_slope_of_elu_at_zero_is_1_for_any_parameter():
    for α in (1, 2, torch.tensor(2.0)):
        assert gradient(lambda x, α=α: elu(x, α), 0.0) == (1.0,)


@by_name
def test_whole_numbers_have_the_gradient_of_floats(f):
    assert gradient(f, 2) == gradient(f, 2.0)
    assert gradient(f, -2) == gradient(f, -2.0)


def test_hardσ_is_flat_outside():
    x = torch.tensor([-5.0, 0.0, 5.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(hardσ(x).sum(), x)[0].tolist() == [0, 1 / 6, 0]


def test_rrelu_draws_each_slope_anew():
    x = torch.full((1000,), -12.0, requires_grad=True)
    y = rrelu(x)
    assert -4 <= y.min() < -3.9 and -1.6 < y.max() <= -1.5
    assert y.mean().item() == pytest.approx(-12 * (1 / 8 + 1 / 3) / 2, abs=0.1)
    (dx,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(dx * -12, y.detach())
    assert not torch.equal(rrelu(x), y)
    assert rrelu(x, 0.5, 0.5).tolist() == [-6.0] * 1000
    assert -0.2 <= rrelu(-0.4, 0.25, 0.5) <= -0.1
    assert -0.2 <= rrelu(-0.4, lo=0.25, hi=0.5) <= -0.1
    assert -1 / 3 <= rrelu(-1.0) <= -1 / 8
    assert rrelu(1.0) == 1.0
    assert torch.equal(rrelu(torch.tensor([2.0, 3.0])), torch.tensor([2.0, 3.0]))
    rows = torch.tensor([0.0, 1.0])
    assert rrelu(torch.full((2, 2), -1.0), rows, rows).tolist() == [[0, 0], [-1, -1]]
    ends = rrelu(torch.full((1000,), -10.0)).aminmax()
    assert -10 / 3 <= ends.min < -3.2 and -1.35 < ends.max <= -1.25


@all_by_name
def test_what_is_no_array_is_refused(f):
    for x in ("abc", None, ["a"], [1.0, [2.0]], torch.tensor([1j])):
        with pytest.raises(TypeError, match=f"{f.__name__} takes a real number or an array of them"):
            f(x)


@by_name
def test_input_is_left_alone(f):
    x = torch.tensor([-2.0, 2.0])
    f(x)
    assert x.tolist() == [-2, 2]
