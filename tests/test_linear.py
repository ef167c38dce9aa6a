"""Large products of Dense are oneDNN's where MKL is slower: the same numbers, and torch's own if somebody looks."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from fluxtorch import *
from fluxtorch.layers import linear as products
from fluxtorch.layers.linear import linear

pytestmark = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch has no oneDNN here")


@pytest.fixture(autouse=True)
def count(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has products of any size made by oneDNN, and counts them."""
    calls = []

    def product(*args: Any, plain: Any = products._product) -> torch.Tensor:
        calls.append(args)
        return plain(*args)

    monkeypatch.setattr(products, "_WORTH", 0)
    monkeypatch.setattr(products, "_onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "_product", product)
    return lambda: len(calls)


LAYOUTS = {
    "rows": lambda *size: torch.randn(*size),
    "columns": lambda *size: torch.randn(*reversed(size)).permute(*reversed(range(len(size)))),
    "parts": lambda *size: torch.randn(*[2 * n for n in size])[tuple(slice(1, None, 2) for _ in size)],
    "one repeated": lambda *size: torch.randn(*(1,) * (len(size) - 1), size[-1]).expand(*size),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(6,), (4, 5), (2, 3, 2), (9, 30)])
@pytest.mark.parametrize("of_x", LAYOUTS)
@pytest.mark.parametrize("of_w", ["rows", "columns"])
def test_as_torch(of_w, of_x, batch, bias, count):
    torch.manual_seed(0)
    n, m = (4, 20) if batch == (9, 30) else (7, 8)
    W = LAYOUTS[of_w](m, n).requires_grad_()
    x = LAYOUTS[of_x](*batch, n).requires_grad_()
    ps = [x, W] + ([torch.randn(m).requires_grad_()] if bias else [])
    y, same = linear(*ps), F.linear(*ps)
    torch.testing.assert_close(y, same)
    assert count() == 1
    for seed in (torch.randn(*batch, m), LAYOUTS["columns"](*batch, m), torch.ones(()).expand(*batch, m)):
        grads, others = (torch.autograd.grad(v, ps, seed, create_graph=True) for v in (y, same))
        torch.testing.assert_close(grads, others, rtol=1e-4, atol=1e-4)
        twice, other = (torch.autograd.grad(sum((g**2).sum() for g in gs), ps[:2]) for gs in (grads, others))
        torch.testing.assert_close(twice, other, rtol=1e-4, atol=1e-2)
    assert count() > 3


def test_only_what_is_needed(count):
    W, x = torch.randn(8, 7, requires_grad=True), torch.randn(5, 7)
    torch.autograd.grad(linear(x, W).sum(), W)
    assert count() == 2  # none for the gradient by x
    with torch.no_grad():
        y = linear(x, W)
    assert count() == 3 and not y.requires_grad


def test_second_derivative_by_a_gradient_within(count):
    torch.manual_seed(0)
    m, x = Dense(7 | to | 8, tanh), torch.randn(7, 5)

    def penalty(m):
        return (gradient(lambda x: m(x).square().sum(), x)[0] ** 2).sum()

    grad = gradient(penalty, m)[0]
    assert count()
    x = x.detach().requires_grad_()
    y = torch.tanh(m.weight @ x + m.bias[:, None]).square().sum()
    (inner,) = torch.autograd.grad(y, x, create_graph=True)
    torch.testing.assert_close((grad.weight, grad.bias), torch.autograd.grad((inner**2).sum(), [m.weight, m.bias]))


def test_model_trains_as_in_torch(count):
    torch.manual_seed(0)
    m = Chain(Dense(6 | to | 12, relu), Dense(12 | to | 5))
    theirs = to_torch(m)
    x, y = torch.randn(6, 9), onehotbatch(torch.randint(5, (9,)), range(5))
    grads = gradient(lambda m: logitcrossentropy(m(x), y), m)[0]
    assert count() == 5  # two, and on the way back three: the first layer's input needs none
    F.cross_entropy(theirs(x.T), y.indices).backward()
    linears = [f for f in theirs.modules() if isinstance(f, torch.nn.Linear)]
    for g, layer in zip(grads.layers, linears, strict=True):
        torch.testing.assert_close((g.weight, g.bias), (layer.weight.grad, layer.bias.grad))


class Own(torch.Tensor):
    pass


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore:TF32")
def test_torch_as_it_is_wherever_that_shows(count):
    torch.manual_seed(0)
    m, x = Dense(7 | to | 8), torch.randn(7, 5)
    W, b, rows = m.weight, m.bias, x.T.contiguous()
    expected = F.linear(rows, W, b).T

    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert m(x).dtype == torch.bfloat16
    per_column = torch.func.vmap(lambda v: linear(v, W, b))(torch.randn(3, 5, 7))
    assert per_column.shape == (3, 5, 8)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(m(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    torch.testing.assert_close(tangent, (W @ torch.ones_like(x)).detach())
    with FlopCounterMode(display=False) as flops:
        m(x)
    assert flops.get_total_flops() == 2 * 5 * 7 * 8
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(m(x), expected)
    traced = torch.jit.trace(m, x, check_trace=False)
    torch.jit.save(traced, file := io.BytesIO())
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(x), expected)
    assert "linear.default" in str(torch.export.export(m, (x,)).graph)
    torch.testing.assert_close(f64(m)(x.double()), expected.double())
    assert isinstance(linear(rows.as_subclass(Own), W, b), Own)
    assert linear(rows.to("meta"), W.to("meta"), b.to("meta")).is_meta
    torch.testing.assert_close(linear(rows, W, torch.ones(1)), F.linear(rows, W, torch.ones(1)))
    torch.testing.assert_close(linear(rows, W.to_sparse(), None), rows @ W.T)
    assert count() == 0


@pytest.mark.parametrize("layer", [lambda: Dense(8 | to | 5), lambda: Chain(Dense(8 | to | 5)), lambda: LayerNorm(8)])
def test_gradient_in_inference_mode(layer):
    torch.manual_seed(0)
    with torch.inference_mode():
        m, x = layer(), torch.randn(8, 7)
        got = gradient(lambda m: m(x).square().sum(), m)[0]
    torch.manual_seed(0)
    m, x = layer(), torch.randn(8, 7)
    want = gradient(lambda m: m(x).square().sum(), m)[0]
    for a, b in zip(Functors.fleaves(got), Functors.fleaves(want), strict=True):
        if b is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_gradients_of_many_seeds_at_once():
    x, W = torch.randn(5, 7), torch.randn(8, 7, requires_grad=True)
    seeds = torch.randn(3, 5, 8)
    (together,) = torch.autograd.grad(linear(x, W), W, seeds, is_grads_batched=True)
    torch.testing.assert_close(together, torch.einsum("sbo,bi->soi", seeds, x))


def test_wrong_sizes_are_the_layer_s_to_explain():
    m = Chain(Dense(7 | to | 8), Dense(9 | to | 3))
    with pytest.raises(DimensionMismatch, match=r"Dense\(9 => 3\).*size\(input, 0\) == 9, but got 8×5"):
        m(torch.randn(7, 5))


@pytest.mark.parametrize("name, asked", [("Intel Xeon 6980P", False), ("AMD EPYC 9755", True)])
def test_which_processors(name, asked, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert products._onednn_is_faster.__wrapped__() is asked
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert not products._onednn_is_faster.__wrapped__()


def test_small_products_stay_with_torch(count, monkeypatch):
    monkeypatch.setattr(products, "_WORTH", 1 << 22)
    Dense(7 | to | 8)(torch.randn(7, 5))
    assert count() == 0
