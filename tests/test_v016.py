from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

import fluxtorch
import fluxtorch.v016 as Flux
from fluxtorch import Chain, Dense, DimensionMismatch, Dropout, fmap, gradient, identity, layer, nt, onehotbatch, to

KINDS = [Flux.RNN, Flux.LSTM, Flux.GRU, Flux.GRUv3]
CELLS = [Flux.RNNCell, Flux.LSTMCell, Flux.GRUCell, Flux.GRUv3Cell]
OLD = [fluxtorch.RNNCell, fluxtorch.LSTMCell, fluxtorch.GRUCell, fluxtorch.GRUv3Cell]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def rand(*size: int) -> torch.Tensor:
    return torch.rand(size)


def first(state: Any) -> torch.Tensor:
    return state[0] if isinstance(state, tuple) else state


def flat(state: Any) -> list[torch.Tensor]:
    return list(state) if isinstance(state, tuple) else [state]


def randomised(rnn: Any) -> Any:
    """Zero biases would hide where they go."""
    with torch.no_grad():
        for p in rnn.parameters():
            p.copy_(torch.randn_like(p))
    return rnn


# -- what stands in the room -----------------------------------------------------------------------


def test_everything_else_is_the_same_object() -> None:
    own = {"GRU", "LSTM", "RNN", "GRUCell", "GRUv3", "GRUv3Cell", "LSTMCell", "RNNCell", "LayerNorm", "normalise"}
    for name in fluxtorch.__all__:
        assert (getattr(Flux, name) is getattr(fluxtorch, name)) == (name not in own), name
    assert Flux.losses is fluxtorch.losses and Flux.nnlib is fluxtorch.nnlib
    assert {"Recurrence", "initialstates", "Chain", "Losses"} <= set(dir(Flux)) & set(Flux.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = Flux.nonsense


def test_star_import() -> None:
    scope: dict[str, Any] = {}
    exec("from fluxtorch.v016 import *", scope)
    assert scope["LSTM"] is Flux.LSTM and scope["Chain"] is Chain and scope["Recurrence"] is Flux.Recurrence
    assert "sum" not in scope


# -- cells -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "arrays", "count", "text"),
    [
        (Flux.RNNCell(3 | to | 5), 3, 45, "RNNCell(3 => 5, tanh)"),
        (Flux.RNNCell(3 | to | 5, identity), 3, 45, "RNNCell(3 => 5, identity)"),
        (Flux.LSTMCell(3 | to | 5), 3, 180, "LSTMCell(3 => 5)"),
        (Flux.GRUCell(3 | to | 5), 3, 135, "GRUCell(3 => 5)"),
        (Flux.GRUv3Cell(3 | to | 5), 4, 160, "GRUv3Cell(3 => 5)"),
        (Flux.RNNCell(3 | to | 5, bias=False), 2, 40, "RNNCell(3 => 5, tanh)"),
        (Flux.LSTMCell(3 | to | 5, bias=False), 2, 160, "LSTMCell(3 => 5)"),
        (Flux.GRUCell(3 | to | 5, bias=False), 2, 120, "GRUCell(3 => 5)"),
        (Flux.RNN(4 | to | 6), 3, 66, "RNN(4 => 6, tanh)"),
        (Flux.LSTM(4, 6), 3, 264, "LSTM(4 => 6)"),
        (Flux.GRUv3(4 | to | 6, return_state=True), 4, 234, "GRUv3(4 => 6)"),
    ],
)
def test_parameters_and_printing(cell: Any, arrays: int, count: int, text: str) -> None:
    assert len(Flux.trainables(cell)) == arrays
    assert sum(x.numel() for x in Flux.trainables(cell)) == count
    assert str(cell) == text
    assert repr(cell) == f"{text:<18}  # {count} parameters"


@pytest.mark.parametrize("Cell", CELLS)
@pytest.mark.parametrize("bias", [True, False])
def test_starts_and_goes_on_from_zeros(Cell: Any, bias: bool) -> None:
    cell = Cell(3 | to | 5, bias=bias)
    state = Flux.initialstates(cell)
    for h in flat(state):
        assert torch.equal(h, torch.zeros(5))
    for x in rand(3), rand(3, 4):
        y, new = cell(x)
        assert y is first(new)
        assert y.shape == (5, *x.shape[1:])
        torch.testing.assert_close(y, cell(x, state)[0], rtol=0, atol=0)
    assert all(torch.equal(b, torch.zeros_like(b)) for b in [getattr(cell, "b", False)] if b is not False)


@pytest.mark.parametrize(("Cell", "Old"), list(zip(CELLS, OLD, strict=True)))
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch", [(), (4,)])
def test_same_numbers_as_the_older_cell(Cell: Any, Old: Any, bias: bool, batch: tuple[int, ...]) -> None:
    cell = randomised(Cell(3 | to | 5, bias=bias))
    old = Old(3 | to | 5)
    with torch.no_grad():
        old.Wi.copy_(cell.Wi)
        old.Wh.copy_(cell.Wh[: old.Wh.shape[0]])
        old.b.copy_(cell.b) if bias else old.b.zero_()
        if hasattr(old, "Wh_h̃"):
            old.Wh_h̃.copy_(cell.Wh_h̃)
    x, hs = rand(3, *batch), [rand(5, *batch) for _ in flat(Flux.initialstates(cell))]
    state = tuple(hs) if len(hs) > 1 else hs[0]
    y, new = cell(x, state)
    want, y_old = old(state, x)
    torch.testing.assert_close(y, y_old)
    for a, b in zip(flat(new), flat(want), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("Cell", CELLS)
def test_a_state_without_batch_serves_all_and_the_other_way_round(Cell: Any) -> None:
    cell = Cell(3 | to | 5)
    n = len(flat(Flux.initialstates(cell)))
    x, h = rand(3, 4), rand(5)
    state = (h,) * n if n > 1 else h
    wide = (h[:, None].expand(5, 4),) * n if n > 1 else h[:, None].expand(5, 4)
    torch.testing.assert_close(cell(x, state)[0], cell(x, wide)[0])
    one = cell(x[:, 0], wide)[0]
    assert one.shape == (5, 4)
    torch.testing.assert_close(one, cell(x[:, :1].expand(3, 4), wide)[0])
    torch.testing.assert_close(cell(x[:, :1], wide)[0], one)
    with pytest.raises(DimensionMismatch, match="batch of 4"):
        cell(rand(3, 2), wide)


@pytest.mark.parametrize("Cell", CELLS)
def test_gradients_by_loops_of_every_kind(Cell: Any) -> None:
    cell = randomised(fluxtorch.f64(Cell(3 | to | 5)))
    names = list(dict(cell.named_parameters()))
    xs = [torch.rand(3, 4, dtype=torch.float64) for _ in range(6)]
    states = [torch.rand(5, 4, dtype=torch.float64) for _ in flat(Flux.initialstates(cell))]

    def run(*arrays: torch.Tensor) -> torch.Tensor:
        ws, hs = arrays[: len(names)], arrays[len(names) :]
        state: Any = hs if len(hs) > 1 else hs[0]
        ys = []
        for x in xs:
            y, state = torch.func.functional_call(cell, dict(zip(names, ws, strict=True)), (x, state))
            ys.append(y)
        return (fluxtorch.stack(ys, dims=1) ** 2).mean()

    leaves = [p.detach().clone().requires_grad_() for p in cell.parameters()] + [h.requires_grad_() for h in states]
    assert torch.autograd.gradcheck(run, leaves)


def test_given_arrays_and_names() -> None:
    W, U, b = rand(20, 3), rand(20, 5), rand(20)
    cell = Flux.LSTMCell(W, U, b)
    assert cell.Wi is W and cell.Wh is U and cell.bias is b and cell.b is b
    assert list(Flux.state(cell).keys()) == ["Wi", "Wh", "bias"]
    assert list(Flux.state(Flux.GRUCell(3 | to | 5)).keys()) == ["Wi", "Wh", "b"]
    cell2 = Flux.RNNCell(3 | to | 5, init_kernel=Flux.ones32, init_recurrent_kernel=Flux.zeros32, bias=[1, 2, 3, 4, 5])
    torch.testing.assert_close(cell2(torch.zeros(3))[0], torch.tanh(torch.arange(1.0, 6.0)))
    assert Flux.GRUv3Cell(rand(15, 3), rand(15, 5), False, rand(5, 5))(rand(3))[0].shape == (5,)
    for Cell in CELLS:
        cell = Cell(3 | to | 5)
        Flux.loadmodel_(cell, fmap(lambda x: x * 0 if isinstance(x, torch.Tensor) else x, Flux.state(cell)))
        assert all(bool((p == 0).all()) for p in cell.parameters())


@pytest.mark.parametrize("Cell", CELLS)
def test_mistakes_with_cells(Cell: Any) -> None:
    cell = Cell(3 | to | 5)
    with pytest.raises(DimensionMismatch, match=r"expects size\(input, 0\) == 3, but got"):
        cell(rand(4))
    with pytest.raises(DimensionMismatch, match="vector or a matrix"):
        cell(rand(3, 4, 2))
    wrong = (rand(4), rand(4)) if Cell is Flux.LSTMCell else rand(4)
    with pytest.raises(DimensionMismatch, match=r"size\(h, 0\) == 5"):
        cell(rand(3), wrong)
    with pytest.raises(TypeError, match="array as input"):
        cell("abc")
    with pytest.raises(TypeError):
        Cell("3")
    with pytest.raises(DimensionMismatch, match="bias"):
        Cell(3 | to | 5, bias=[1.0])
    with pytest.raises(TypeError, match="initialstates"):
        Flux.initialstates(Dense(2 | to | 3))


def test_lstm_state_must_be_a_pair() -> None:
    with pytest.raises(TypeError, match="pair"):
        Flux.LSTMCell(3 | to | 5)(rand(3), rand(5))


def test_mixed_element_types_are_promoted() -> None:
    for Cell in CELLS:
        cell = Cell(3 | to | 5)
        assert cell(rand(3, 2).double())[0].dtype == torch.float64
        assert cell(torch.ones(3, 2, dtype=torch.int64))[0].dtype == torch.float32
        torch.testing.assert_close(cell([1, 0, 2])[0], cell(torch.tensor([1.0, 0.0, 2.0]))[0])


# -- whole sequences -------------------------------------------------------------------------------


def looped(rnn: Any, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
    ys = []
    for x_t in x.unbind(1):
        y, state = rnn.cell(x_t, state)
        ys.append(y)
    return torch.stack(ys, 1), state


@pytest.mark.parametrize(
    ("Kind", "args"), [*((Kind, ()) for Kind in KINDS), (Flux.RNN, (Flux.relu,)), (Flux.RNN, (Flux.sigmoid,))]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(2, 3), (2, 3, 1), (2, 3, 4), (2, 1, 4)])
def test_layer_is_its_cell_step_by_step(Kind: Any, args: Any, bias: bool, size: tuple[int, ...]) -> None:
    rnn = randomised(Kind(2 | to | 5, *args, return_state=True, bias=bias))
    x = rand(*size)
    states = [Flux.initialstates(rnn), fmap(lambda h: rand(5, *size[2:]), Flux.initialstates(rnn))]
    for given, state in [(None, states[0]), *((s, s) for s in states)]:
        y, last = rnn(x, given)
        want, want_last = looped(rnn, x, state)
        assert y.shape == (5, *size[1:])
        torch.testing.assert_close(y, want)
        for a, b in zip(flat(last), flat(want_last), strict=True):
            assert a.shape == (5, *size[2:])
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(Flux.Recurrence(rnn.cell)(x, given), y, rtol=0, atol=0)
        torch.testing.assert_close(Kind(rnn.cell)(x, given), y, rtol=0, atol=0)


@pytest.mark.parametrize("Kind", KINDS)
def test_state_of_a_batch_with_a_sequence_of_none(Kind: Any) -> None:
    rnn = Kind(2 | to | 4, return_state=True)
    x, state = rand(2, 3), fmap(lambda h: rand(4, 1), Flux.initialstates(rnn))
    y, last = rnn(x, state)
    assert y.shape == (4, 3, 1) and first(last).shape == (4, 1)
    torch.testing.assert_close(y, looped(rnn, x[..., None], state)[0])


@pytest.mark.parametrize("Kind", KINDS)
def test_gradient_through_the_kernel_is_that_of_the_loop(Kind: Any) -> None:
    rnn = randomised(Kind(2 | to | 4))
    x, h0 = rand(2, 3, 5), fmap(lambda h: rand(4), Flux.initialstates(rnn))

    def by_loop(m: Any, x: torch.Tensor, h0: Any) -> torch.Tensor:
        return (looped(m, x, h0)[0] ** 2).mean()

    def at_once(m: Any, x: torch.Tensor, h0: Any) -> torch.Tensor:
        return (m(x, h0) ** 2).mean()

    got, want = gradient(at_once, rnn, x, h0), gradient(by_loop, rnn, x, h0)
    torch.testing.assert_close(fluxtorch.functors.fleaves(got), fluxtorch.functors.fleaves(want))
    assert len(fluxtorch.functors.fleaves(want)) >= 5


@pytest.mark.parametrize(
    ("Kind", "make"), [(Flux.RNN, nn.RNN), (Flux.LSTM, nn.LSTM), (Flux.GRU, nn.GRU)], ids=["RNN", "LSTM", "GRU"]
)
def test_torch_has_the_same_numbers(Kind: Any, make: Any) -> None:
    theirs = make(2, 4, batch_first=True)
    ours = Kind(2 | to | 4)
    with torch.no_grad():
        theirs.bias_hh_l0.zero_()
    ours.cell.Wi, ours.cell.Wh = theirs.weight_ih_l0.detach(), theirs.weight_hh_l0.detach()
    setattr(ours.cell, "b" if Kind is Flux.GRU else "bias", theirs.bias_ih_l0.detach())
    x = rand(2, 3, 5)
    want, _ = theirs(x.permute(2, 1, 0))
    torch.testing.assert_close(ours(x), want.permute(2, 1, 0))


def test_recurrence_of_any_function() -> None:
    accum = Flux.Recurrence(lambda x, h: (h + x, h + x))
    x = torch.arange(1.0, 13.0).reshape(2, 3, 2)
    assert torch.equal(accum(x, torch.zeros(2, 2)), x.cumsum(1))
    with pytest.raises(TypeError, match="initialstates"):
        accum(x)
    with pytest.raises(TypeError, match="pair, the output and the new state"):
        Flux.Recurrence(lambda x, h: x)(x, 0)
    with pytest.raises(TypeError, match="expects a cell"):
        Flux.Recurrence(3)


def test_recurrence_of_a_cell_of_ones_own() -> None:
    @layer
    class Leaky:
        decay: torch.Tensor

        def initialstates(self) -> torch.Tensor:
            return torch.zeros(2)

        def __call__(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            h = self.decay * h + x
            return 10 * h, h

    rnn = Flux.Recurrence(Leaky(torch.tensor([0.5])), return_state=True)
    y, h = rnn(torch.ones(2, 3))
    torch.testing.assert_close(y.detach(), torch.tensor([[10.0, 15.0, 17.5]] * 2))
    torch.testing.assert_close(h.detach(), torch.tensor([1.75, 1.75]))
    assert Flux.initialstates(rnn).tolist() == [0.0, 0.0]
    (grad,) = gradient(lambda m: m(torch.ones(1, 2))[1].sum(), rnn)  # h = 0.5 + 1, for each of the two states
    torch.testing.assert_close(grad.cell.decay, torch.tensor([2.0]))


def test_hooks_on_a_cell_see_every_step() -> None:
    rnn, seen = Flux.LSTM(2 | to | 3), []
    plain = rnn(rand(2, 4))
    rnn.cell.register_forward_hook(lambda *_: seen.append(1))
    torch.manual_seed(0)
    assert rnn(rand(2, 4)).shape == plain.shape and len(seen) == 4


def test_copies_and_rebuilds_keep_return_state() -> None:
    rnn = Flux.GRU(2 | to | 3, return_state=True)
    x = rand(2, 4)
    for other in (copy.deepcopy(rnn), fmap(lambda p: p, rnn), fluxtorch.f64(rnn)):
        y, h = other(x)
        torch.testing.assert_close(y[:, -1], h)
    assert list(fluxtorch.functors.children(rnn).keys()) == ["cell"]


def test_model_with_a_learned_first_state_trains() -> None:
    class Model(Flux.Layer):
        rnn: Any
        h0: torch.Tensor

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x, self.h0)

    m = Model(Flux.RNN(2 | to | 4), torch.zeros(4))
    opt = Flux.setup(Flux.AdamW(1e-2), m)
    x, y = rand(2, 3, 5), 0.3 * rand(4, 3, 5)
    losses = []
    for _ in range(60):
        loss, grads = Flux.withgradient(lambda m: Flux.mse(m(x), y), m)
        Flux.update_(opt, m, grads[0])
        losses.append(float(loss))
    assert losses[-1] < 0.3 * losses[0]
    assert bool((m.h0 != 0).all())


def test_stacked_layers_in_a_chain() -> None:
    m = Chain(Flux.LSTM(3 | to | 5), Dropout(0.5), Flux.LSTM(5 | to | 5))
    assert m(rand(3, 4)).shape == (5, 4)
    grads = gradient(lambda m: m(rand(3, 4, 2)).sum(), m)[0]
    assert grads.layers[0].cell.Wh.shape == (20, 5)


def test_nothing_is_remembered_between_calls() -> None:
    for Kind in KINDS:
        rnn, x = Kind(2 | to | 3), rand(2, 3)
        assert torch.equal(rnn(x), rnn(x))


def test_one_hot_sequences() -> None:
    rnn = Flux.RNN(3 | to | 4)
    x = onehotbatch([0, 2, 1], range(3))
    torch.testing.assert_close(rnn(x), rnn(x.float()))
    torch.testing.assert_close(rnn.cell(x)[0], rnn.cell(x.float())[0])


def test_mistakes_with_layers() -> None:
    rnn = Flux.LSTM(2 | to | 3)
    with pytest.raises(DimensionMismatch, match=r"layer LSTM\(2 => 3\) expects features and at least one time step"):
        rnn(rand(2))
    with pytest.raises(DimensionMismatch, match="at least one time step"):
        rnn(rand(2, 0, 4))
    with pytest.raises(DimensionMismatch, match=r"layer LSTM\(2 => 3\) expects size\(input, 0\) == 2, but got 3×4"):
        rnn(rand(3, 4))
    with pytest.raises(DimensionMismatch, match="3 axes"):
        rnn(rand(2, 3, 4, 5))
    with pytest.raises(TypeError, match="unexpected keyword"):
        Flux.LSTM(2 | to | 3, init=Flux.zeros32)
    with pytest.raises(TypeError):
        Flux.LSTM(Flux.GRUCell(2 | to | 3))


# -- normalisation ---------------------------------------------------------------------------------


def by_hand(x: torch.Tensor, dims: Any, eps: float) -> torch.Tensor:
    μ = x.mean(dims, keepdim=True)
    σ2 = ((x - μ) ** 2).mean(dims, keepdim=True)
    return (x - μ) / (σ2 + eps**2).sqrt()


@pytest.mark.parametrize(("dims", "axes"), [(-1, -1), (0, 0), ((0, 1), (0, 1)), (None, (0, 1, 2))])
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_normalise(dims: Any, axes: Any, eps: float) -> None:
    x = rand(3, 4, 5)
    torch.testing.assert_close(Flux.normalise(x, dims=dims, eps=eps), by_hand(x, axes, eps))


def test_normalise_as_documented() -> None:
    y = Flux.normalise(torch.tensor([90, 100, 110, 130, 70]))
    want = [-0.4999999999999375, 0.0, 0.4999999999999375, 1.4999999999998124, -1.4999999999998124]
    torch.testing.assert_close(y, torch.tensor(want, dtype=torch.float64), rtol=1e-15, atol=0)


@pytest.mark.parametrize("size", [(3,), (3, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_layernorm(size: tuple[int, ...], affine: bool) -> None:
    m = Flux.LayerNorm(*size, Flux.relu, eps=0.3, affine=affine)
    if affine:
        randomised(m)
    x = rand(3, 4, 5)
    want = by_hand(x, tuple(range(len(size))), 0.3)
    if affine:
        tail = (...,) + (None,) * (3 - len(size))
        want = want * m.diag.scale[tail] + m.diag.bias[tail]
    torch.testing.assert_close(m(x), want.relu())
    assert isinstance(m, fluxtorch.LayerNorm) and str(m).startswith("LayerNorm(")
    assert not torch.allclose(m(x), fluxtorch.LayerNorm(*size, Flux.relu, eps=0.3, affine=affine)(x), atol=1e-3)


def test_layernorm_of_a_constant_is_zero_with_a_finite_gradient() -> None:
    m = Flux.LayerNorm(4)
    assert torch.equal(m(torch.full((4, 2), 3.0)), torch.zeros(4, 2))
    (g,) = gradient(lambda x: m(x)[0, 0], torch.full((4, 2), 3.0))
    torch.testing.assert_close(g[:, 0], torch.tensor([0.75, -0.25, -0.25, -0.25]) * 1e5)


def test_nt_of_fields_loads() -> None:
    cell = Flux.RNNCell(2 | to | 3)
    Flux.loadmodel_(cell, nt(σ=Flux.tanh, Wi=torch.ones(3, 2), Wh=torch.ones(3, 3), bias=torch.ones(3)))
    assert torch.equal(cell.bias, torch.ones(3))
