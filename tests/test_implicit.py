"""Implicit parameters: `Params`, `Grads`, `params`, and gradients by tensors looked up by identity."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import nn

import fluxtorch as Flux
from fluxtorch import (
    Chain,
    Dense,
    Grads,
    Layer,
    Params,
    gradient,
    layer,
    nt,
    params,
    pullback,
    relu,
    tanh,
    to,
    withgradient,
)
from fluxtorch.base import norm

t = torch.tensor


def ids(xs: Any) -> list[int]:
    return [id(x) for x in xs]


class TestParams:
    def test_set_operations(self) -> None:
        x, y, z = t([1.0, 2]), t([1.0]), t([3.0, 4])
        ps1, ps2, ps3 = Params([x, y]), Params([z]), Params([y, z])
        assert ids(ps1.union(ps2)) == ids([x, y, z]) == ids(ps1 | ps2) == ids(ps1.union(ps3))
        assert isinstance(ps1.union(ps2), Params) and ids(ps1) == ids([x, y])
        assert list(ps1.intersect(ps2)) == [] and ids(ps1.intersect(ps3)) == ids([y]) == ids(ps1 & ps3)
        assert ids(ps1 - ps3) == ids([x]) and ids(ps1 | [z]) == ids([x, y, z])
        assert ps1.issetequal([y, x]) and not ps1.issetequal([x]) and not ps1.issetequal(ps3)
        ps1 |= ps3
        assert ids(ps1) == ids([x, y, z])
        ps1.intersect_([z, x])
        assert ids(ps1) == ids([x, z])
        assert ids(Params([x]).union(ps2, [y])) == ids([x, z, y])

    def test_members(self) -> None:
        w, b = torch.rand(2, 3), torch.rand(2)
        ps = Params([w])
        assert w in ps and b not in ps and w.clone() not in ps and 3 not in ps
        ps.push_(b, w).push_(b)
        assert len(ps) == 2 and ps[0] is w and ps[1] is b and ps[-1] is b and ids(ps[0:2]) == ids([w, b])
        assert ps.delete_(w, torch.ones(1)) is ps and ids(ps) == ids([b])
        ps.push_(w)
        assert ids(ps) == ids([b, w])
        assert len(Params()) == len(Params(())) == len(Params([])) == 0
        assert ids(Params(ps)) == ids(ps) and ids(Params(x for x in [w])) == ids([w])

    def test_comparison(self) -> None:
        x, y = t([1.0, 2]), t([1.0])
        assert (
            Params([x, y]) == Params([x, y]) and Params([x, y]) != Params([y, x]) and Params([x]) != Params([x.clone()])
        )
        assert Params([x]) != [x]
        with pytest.raises(TypeError):
            hash(Params([x]))

    def test_equal_tensors_are_distinct(self) -> None:
        a, b = torch.ones(2), torch.ones(2)
        ps = Params([a, b, a])
        assert len(ps) == 2
        gs = gradient(lambda: (2 * a + 3 * b).sum(), ps)
        assert gs[a].tolist() == [2, 2] and gs[b].tolist() == [3, 3]

    def test_only_tensors(self) -> None:
        with pytest.raises(TypeError, match=r"got a Dense\(1 => 1\); those of a model are params\(model\)"):
            Params(Dense(1 | to | 1))  # type: ignore[arg-type]
        for bad in (1.0, [1.0], Dense(1 | to | 1), None):
            with pytest.raises(TypeError, match="Params holds tensors, by identity, and got"):
                Params([torch.ones(1), bad])
        ps = Params([torch.ones(1)])
        with pytest.raises(TypeError):
            ps.push_(torch.ones(1), 5)
        assert len(ps) == 1  # nothing was changed
        with pytest.raises(TypeError, match=r"as in Params\(\[W\]\), and got a 2×2 tensor"):
            Params(torch.ones(2, 2))

    def test_copying_values(self) -> None:
        x, y = torch.zeros(2), torch.zeros(1)
        assert Params([x, y]).copy_(t([1.0, 2, 3])) is not None
        assert x.tolist() == [1, 2] and y.tolist() == [3]
        m, s = torch.zeros(2, 3), t(0.0)
        Params([m, s]).copy_(torch.arange(7.0))
        assert m.tolist() == [[0, 2, 4], [1, 3, 5]] and s == 6  # column-major
        with pytest.raises(ValueError, match="vector of 7 elements, and got 6-element"):
            Params([m, s]).copy_(torch.arange(6.0))
        d = Dense(1 | to | 1)
        params(d).copy_(t([5.0, 6.0]))
        assert d.weight.item() == 5 and d.bias.item() == 6 and d.weight.requires_grad

    def test_changing_while_iterating(self) -> None:
        ps = Params([torch.ones(1), torch.ones(2)])
        for p in ps:
            ps.delete_(p)
        assert len(ps) == 0

    def test_printing(self) -> None:
        assert repr(Params([t([[1.0, 1.0]]), t([0.0])])) == "Params([[1.0 1.0], [0.0]])"

    def test_ids_are_not_used_again(self) -> None:
        ps = Params([torch.rand(3) for _ in range(50)])
        gs = gradient(lambda: sum(p.sum() for p in ps), ps)
        gc.collect()
        assert not any(torch.rand(3) in ps for _ in range(200)) and not any(torch.rand(3) in gs for _ in range(200))
        p = ps[0]
        ps.delete_(p)
        key = id(p)
        del p
        gc.collect()
        assert key in ids(gs)  # the gradients hold what they are by

    def test_copies_and_files(self) -> None:
        m = Dense(2 | to | 1)
        m2, ps2 = copy.deepcopy((m, params(m)))
        assert ids(ps2) == ids([m2.weight, m2.bias]) and m2.weight in ps2 and m.weight not in ps2
        ps3 = pickle.loads(pickle.dumps(params(m)))
        assert ps3[0] in ps3 and torch.equal(ps3[0], m.weight)
        gs = gradient(lambda: m(torch.ones(2)).sum(), params(m))
        m4, gs4 = copy.deepcopy((m, gs))
        assert gs4[m4.weight].tolist() == [[1, 1]] and m.weight not in gs4


class TestGrads:
    def make(self) -> tuple[torch.Tensor, torch.Tensor, Grads, Grads]:
        w, b = t([1.0, 2.0]), t([3.0, 4.0])
        gs3 = gradient(lambda: (w * t([1.0, 10.0])).sum(), Params([w, b]))  # None for b
        gs4 = gradient(lambda: (w * t([2.0, 3.0]) + b).sum(), Params([w, b]))
        return w, b, gs3, gs4

    def test_algebra(self) -> None:
        # A gradient that is None counts as zeros, as in Zygote.
        w, b, gs3, gs4 = self.make()
        for gs, dw, db in [
            (+gs3, [1, 10], [0, 0]),
            (-gs3, [-1, -10], [0, 0]),
            (gs3 + gs4, [3, 13], [1, 1]),
            (gs4 + gs3, [3, 13], [1, 1]),
            (gs3 - gs4, [-1, 7], [-1, -1]),
            (gs4 - gs3, [1, -7], [1, 1]),
            (2 * gs3, [2, 20], [0, 0]),
            (gs3 * 2, [2, 20], [0, 0]),
            (gs3 / 2, [0.5, 5], [0, 0]),
            (gs3 * t(2.0), [2, 20], [0, 0]),
            (gs4 + {w: torch.ones(2), b: None}, [3, 4], [1, 1]),
        ]:
            assert type(gs) is Grads and gs[w].tolist() == dw and gs[b].tolist() == db
        assert gs3[w].tolist() == [1, 10] and gs3[b] is None
        with pytest.raises(ValueError, match="different parameters"):
            gs4 + gradient(lambda: w.sum(), Params([w]))
        with pytest.raises(ValueError, match="different parameters"):
            gs4 + {w: torch.ones(2)}
        with pytest.raises(TypeError, match="added and subtracted"):
            gs3 * gs4
        with pytest.raises(TypeError):
            gs3 + 1

    def test_algebra_in_place(self) -> None:
        w, b, gs3, gs4 = self.make()
        first = gs3
        gs3 += gs4
        assert gs3 is first and first[w].tolist() == [3, 13] and first[b].tolist() == [1, 1]
        gs3 -= {w: torch.ones(2), b: torch.ones(2)}
        gs3 *= 4
        gs3 /= 2
        assert gs3 is first and first[w].tolist() == [4, 24] and first[b].tolist() == [0, 0]
        with pytest.raises(TypeError):
            gs3 += 1
        assert first[w].tolist() == [4, 24]

    def test_copies(self) -> None:
        w, b = t([1.0, 2.0]), t([3.0, 4.0])
        _, back = pullback(lambda: (w * t([5.0, 6.0])).sum(), Params([w]))
        g1, g2 = back(1), back(None)
        g3 = g1.copy()
        g1[w] = None
        assert g2[w] is None and g3[w].tolist() == [5, 6] and g1[w] is None
        m = torch.ones(2, 3)
        gs = gradient(lambda: m.sum() + w.sum(), Params([m, w, b]))
        x = torch.arange(10.0)
        assert gs.copy_(x) is gs and gs[m].tolist() == [[0, 2, 4], [1, 3, 5]]  # column-major
        x += 1
        assert gs[w].tolist() == [6, 7] and gs[b].tolist() == [8, 9] and m[0, 0] == 1
        with pytest.raises(ValueError, match="vector of 10 elements, and got 9-element"):
            gs.copy_(torch.ones(9))

    def test_merging(self) -> None:
        (w1, w2, w3), ps = [t([float(i)]) for i in range(3)], Params([])
        gs1, gs2, gs3 = (gradient(lambda w=w: (w * 2).sum(), ps | [w]) for w in (w1, w2, w3))
        again = gradient(lambda: (w1 * 7).sum(), Params([w1]))
        assert gs1.merge_(gs2) is gs1 and ids(gs1) == ids([w1, w2])
        gs1.merge_(gs3, again)
        assert ids(gs1) == ids([w1, w2, w3]) and [g.item() for g in gs1.values()] == [7, 2, 2] and len(gs2) == 1

    def test_order_of_the_parameters_does_not_matter(self) -> None:
        w, b, _, gs4 = self.make()
        other = gradient(lambda: (b * 5 + w * 7).sum(), Params([b, w]))
        assert (gs4 + other)[w].tolist() == [9, 10] and (gs4 + other)[b].tolist() == [6, 6]

    def test_map(self) -> None:
        w, b, gs3, gs4 = self.make()
        small = gs4.map(lambda g: g.clamp(-1, 1))
        assert small[w].tolist() == [1, 1] and gs4[w].tolist() == [2, 3]
        assert gs4.map_(lambda g, h: g + 10 * h, gs3) is gs4
        assert gs4[w].tolist() == [12, 103] and gs4[b].tolist() == [1, 1]
        assert gs3.map(lambda g: g + 1)[b].tolist() == [1, 1]
        assert gs3.map(lambda g: torch.zeros(2))[w].tolist() == [0, 0]
        with pytest.raises(ValueError):
            gs4.map(torch.add, gradient(lambda: w.sum(), Params([w])))

    def test_mapping(self) -> None:
        w, b, gs3, _ = self.make()
        assert len(gs3) == 2 and ids(gs3) == ids([w, b]) == ids(gs3.keys()) and list(gs3.values())[1] is None
        assert [(id(p), g is None) for p, g in gs3.items()] == [(id(w), False), (id(b), True)]
        assert w in gs3 and w.clone() not in gs3 and gs3.get(w.clone(), "none") == "none" and gs3.get(b, 5) is None
        for g in gs3.values():
            if g is not None:
                g.clamp_(max=5)
        assert gs3[w].tolist() == [1, 5]
        gs3[w] = t([7.0, 7.0])
        assert gs3[w].tolist() == [7, 7]
        with pytest.raises(KeyError):
            gs3[w.clone()] = 1
        assert repr(gs3) == "Grads(...)" and ids(gs3.params) == ids([w, b])

    def test_key_errors_say_why(self) -> None:
        w, _, gs3, _ = self.make()
        with pytest.raises(
            KeyError, match=r"this 2-element tensor of float32 was not among the parameters .* by identity"
        ):
            gs3[w.clone()]
        with pytest.raises(KeyError, match="by the tensor itself, not by 'w'"):
            gs3["w"]  # type: ignore[index]

    def test_params_changed_later(self) -> None:
        w, b = t([1.0]), t([2.0])
        ps = Params([w])
        gs = gradient(lambda: (w * b).sum(), ps)
        ps.push_(b).delete_(w)
        assert w in gs and b not in gs and len(gs) == 1 and ids(gs) == ids([w])


class TestGradient:
    def test_every_kind_of_tensor(self) -> None:
        plain, parameter, integers = t([1.0, 2.0]), nn.Parameter(t([3.0, 4.0])), t([5, 6])
        tracked = t([7.0, 8.0], requires_grad=True)
        nonleaf = t([1.0, 1.0], requires_grad=True) * 3
        view = torch.arange(4.0)[1:3]
        frozen = nn.Parameter(t([9.0, 9.0]), requires_grad=False)
        z = t([1 + 1j, 2])
        half = torch.ones(2, dtype=torch.float16)
        unused = torch.ones(3)
        ps = Params([plain, parameter, integers, tracked, nonleaf, view, frozen, z, half, unused])

        def loss() -> Any:
            x = plain * parameter * integers + tracked**2 + nonleaf**2 * view + frozen**3
            return x.sum() + (z * z.conj()).real.sum() + (half * 2).sum()

        for gs in (gradient(loss, ps), withgradient(loss, ps).grad, pullback(loss, ps)[1](1.0)):
            assert (
                gs[plain].tolist() == [15, 24] and gs[parameter].tolist() == [5, 12] and gs[integers].tolist() == [3, 8]
            )
            assert gs[tracked].tolist() == [14, 16] and gs[nonleaf].tolist() == [6, 12] and gs[view].tolist() == [9, 9]
            assert gs[frozen].tolist() == [243, 243] and gs[z].tolist() == [2 + 2j, 4] and gs[half].tolist() == [2, 2]
            assert gs[unused] is None and gs[half].dtype == torch.float16 and gs[integers].dtype == torch.float32
            assert not any(g.requires_grad for g in gs.values() if g is not None)
        assert (
            not plain.requires_grad
            and not view.requires_grad
            and not frozen.requires_grad
            and not integers.requires_grad
        )

    def test_found_wherever_it_is_used(self) -> None:
        for W in (t([2.0, 3.0]), nn.Parameter(t([2.0, 3.0])), t([2, 3]), t([1.0, 1.5], requires_grad=True) * 2):
            name = W
            holder = nt(w=(name,))

            def deeper(holder: Any = holder) -> Any:
                return lambda: holder.w[0] * 2

            inner = deeper()

            class M(nn.Module):
                def __init__(self, w: Any) -> None:
                    super().__init__()
                    vars(self)["w"] = w

                def forward(self, x: Any) -> Any:
                    return x * self.w

            m = M(W)
            for f, expected in [
                (lambda W=W: (W * W).sum(), [4, 6]),
                (lambda name=name: name.sum() * 3, [3, 3]),
                (lambda inner=inner: inner().sum(), [2, 2]),
                (lambda m=m: m(t([5.0, 7.0])).sum(), [5, 7]),
                (lambda W=W: torch.stack([W, W]).sum(), [2, 2]),
                (lambda W=W: torch.cat((W[:1], W[1:] * 4)).sum(), [1, 4]),
                (lambda W=W: torch.einsum("i,i->", W, t([1.0, 2.0])), [1, 2]),
                (lambda W=W: torch.nn.functional.linear(t([1.0, 2.0]), W.reshape(1, 2).float()).sum(), [1, 2]),
                (lambda W=W: sum(w * w for w in W), [4, 6]),
                (lambda W=W: W.mean(), [0.5, 0.5]),
                (lambda W=W: W.view(1, 2).T.sum() + W.view(2, 1)[0, 0], [2, 1]),
                (lambda W=W: torch.where(W > 2, W, 0).sum(), [0, 1]),
            ]:
                gs = gradient(f, Params([W]))
                assert gs[W].tolist() == expected, f

    def test_custom_functions(self) -> None:
        class Double(torch.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            def backward(ctx: Any, g: Any) -> Any:
                return g * 20

        for W in (
            t([2.0, 3.0]),
            nn.Parameter(t([2.0, 3.0])),
            t([1.0, 1.5], requires_grad=True) * 2,
            torch.arange(4.0)[2:],
        ):
            assert gradient(lambda W=W: Double.apply(W).sum(), Params([W]))[W].tolist() == [20, 20]

    def test_another_tensor_of_the_same_memory(self) -> None:
        W = torch.ones(2, 2)
        view = W.view(4)
        gs = gradient(lambda: view.sum() * 2, Params([W, view]))
        assert gs[W] is None and gs[view].tolist() == [2] * 4

    def test_unused_and_empty(self) -> None:
        w = torch.ones(2)
        assert gradient(lambda: t(1.0), Params([w]))[w] is None
        assert dict(gradient(lambda: w.sum(), Params())) == {}
        assert gradient(lambda: 1, Params([w]))[w] is None

    def test_zygote_numbers(self) -> None:
        w = [1.0]
        p = t(w)
        assert gradient(lambda: (p,)[0][0], Params([p]))[p].item() == 1
        pair = (torch.rand(2, 2), torch.rand(2, 2))
        assert gradient(lambda: pair[0].sum(), Params(pair))[pair[0]].tolist() == [[1, 1], [1, 1]]
        W, x = t([[1, 0], [0, 1]]), t([1, 2])
        y, gs = withgradient(lambda: (W @ x).sum(), Params([W]))
        assert y == 3 and gs[W].tolist() == [[1, 2], [1, 2]]

    def test_large_integers(self) -> None:
        table, ids_ = torch.rand(3, 2), t([2**24 + 1, 2])

        def f() -> Any:
            assert ids_.tolist() == [2**24 + 1, 2] and ids_[0].item() == 2**24 + 1 and ids_.dtype == torch.int64
            return table[ids_[1:]].sum()

        gs = gradient(f, Params([ids_, table]))
        assert gs[ids_] is None and gs[table].tolist() == [[0, 0], [0, 0], [1, 1]]

    def test_changing_parameters_outside(self) -> None:
        d = Dense(torch.ones(1, 2), False)
        ps = params(d)
        for _ in range(2):
            gs = gradient(lambda: (d(torch.ones(2)) ** 2).sum(), ps)
            for p in ps:
                p -= 0.1 * gs[p]
        assert torch.allclose(d.weight, torch.full((1, 2), 0.36)) and d.weight is ps[0]
        with pytest.raises(RuntimeError, match="while a gradient is taken"):
            gradient(lambda: d.weight.__isub__(1).sum(), ps)

    def test_a_tensor_that_is_no_parameter(self) -> None:
        w, v = t([1.0]), t([2.0], requires_grad=True)
        gs = gradient(lambda: (w * v).sum(), Params([w]))
        with pytest.raises(KeyError):
            gs[v]
        assert v.grad is None and v.requires_grad

    def test_value(self) -> None:
        w = t(3.0)
        r = withgradient(lambda: nt(loss=w * 2, kept=w), Params([w]))
        r.val.kept.add_(1)
        assert w == 3 and r.val.loss == 6 and r.grad[w] == 2


class TestParamsOf:
    def test_order(self) -> None:
        m = Chain(Dense(2 | to | 3, tanh), lambda x: x, Dense(3 | to | 1, bias=False))
        assert ids(params(m)) == ids([m[0].weight, m[0].bias, m[2].weight])
        assert ids(params(m[2], m, m)) == ids([m[2].weight, m[0].weight, m[0].bias])
        a, b = torch.ones(1), t([1, 2])
        assert ids(params(a, [b], {"k": a}, nt(m=m[2]))) == ids([a, b, m[2].weight])
        assert len(params(1, 2.5, "text", None, nn.ReLU(), t([True]))) == 0

    def test_what_is_not_trained(self) -> None:
        @layer(trainable=("W",))
        class Affine:
            def __init__(self) -> None:
                self.W, self.b = torch.ones(1), torch.ones(2)

        class Old(Layer):
            W: Any
            b: Any

            def trainable(self) -> Any:
                return (self.b,)

        a, o, bn = Affine(), Old(torch.ones(1), torch.ones(2)), nn.BatchNorm1d(2)
        assert (
            ids(params(a)) == ids([a.W])
            and ids(params(o)) == ids([o.b])
            and ids(params(bn)) == ids([bn.weight, bn.bias])
        )
        lin = nn.Linear(1, 1)
        lin.weight.requires_grad_(False)
        assert ids(params(lin)) == ids([lin.bias])

    def test_ties(self) -> None:
        d = Dense(1 | to | 1)
        m = Chain(d, d, Dense(d.weight, False))
        assert ids(params(m)) == ids([d.weight, d.bias])

    def test_closures(self) -> None:
        def dense(n: int, m: int, σ: Any = lambda x: x) -> Any:
            W, b = torch.randn(m, n), torch.zeros(m)
            return lambda x: σ(W @ x + b)

        def chain(*fs: Any) -> Any:
            def call(x: Any) -> Any:
                for f in fs:
                    x = f(x)
                return x

            return call

        model = chain(dense(2, 3, tanh), dense(3, 1))
        ps = params(model)
        assert [tuple(p.shape) for p in ps] == [(3, 2), (3,), (1, 3), (1,)]
        gs = gradient(lambda: model(torch.ones(2)).sum(), ps)
        assert gs[ps[3]].tolist() == [1] and all(g is not None for g in gs.values())

    def test_warnings(self) -> None:
        with pytest.warns(UserWarning, match="captures no local variables.*Global variables don't count") as record:
            assert len(params(lambda: t)) == 0
        assert record[0].filename == __file__
        with pytest.warns(UserWarning, match="list of numbers, which is no parameter"):
            assert len(params([1.0, 2.0])) == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            params(Chain(relu), relu and Dense(1 | to | 1), [torch.ones(1)], [])

    def test_iterators_and_params(self) -> None:
        m = nn.Linear(2, 1)
        assert ids(params(m.parameters())) == ids(m.parameters()) == ids(params(params(m)))
        assert ids(params(x for x in [m])) == ids(m.parameters())
        assert ids(params([params(m), torch.ones(1)]))[:2] == ids(m.parameters())

    def test_regularisation_inside(self) -> None:
        m = Chain(Dense(2 | to | 2, tanh), Dense(2 | to | 1))
        x = torch.randn(2)
        ps = params(m)
        gs = gradient(lambda: m(x).sum() + sum(norm(p) for p in params(m)), ps)
        gs2 = gradient(lambda: m(x).sum() + sum(norm(p) for p in ps), ps)
        for p in ps:
            (expected,) = torch.autograd.grad(
                m(x).sum() + (p.norm() if p.abs().sum() > 0 else 0 * p.sum()), p, allow_unused=True
            )
            found = gs[p].nan_to_num() if p.abs().sum() == 0 else gs[p]
            assert torch.allclose(found, expected) and torch.allclose(gs2[p].nan_to_num(), gs[p].nan_to_num())
        l2 = gradient(lambda: sum((p**2).sum() for p in Params(ps)), ps)
        assert all(torch.equal(l2[p], 2 * p) for p in ps)
        explicit = gradient(lambda m: sum((p**2).sum() for p in params(m)), m)[0]
        assert torch.equal(explicit.layers[0].weight, 2 * m[0].weight)
        w = t([3.0, 4.0])
        assert gradient(lambda: sum(norm(p) for p in params([w])), params([w]))[w].tolist() == pytest.approx([0.6, 0.8])

    def test_state_of_a_recurrent_layer(self) -> None:
        r = Flux.RNN(2 | to | 3)
        ps = params(r)
        assert len(ps) == 4
        gs = gradient(lambda: r(torch.ones(2)).sum(), ps)
        assert all(gs[p] is not None for p in ps)

    def test_files(self) -> None:
        m = Dense(2 | to | 1)
        file = io.BytesIO()
        torch.save({"weights": params(m)}, file)
        file.seek(0)
        (W, b) = torch.load(file)["weights"]
        assert torch.equal(W, m.weight) and torch.equal(b, m.bias)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["push", "delete", "union", "intersect"]), st.lists(st.integers(0, 5), max_size=4)),
        max_size=8,
    )
)
def test_params_against_a_list(steps: list[tuple[str, list[int]]]) -> None:
    pool = [torch.ones(1) for _ in range(6)]
    ps, model = Params(), list[int]()
    for step, chosen in steps:
        xs = [pool[i] for i in chosen]
        if step == "push":
            ps.push_(*xs)
            model += [i for i in dict.fromkeys(chosen) if i not in model]
        elif step == "delete":
            ps.delete_(*xs)
            model = [i for i in model if i not in chosen]
        elif step == "union":
            ps = ps | Params(xs)
            model += [i for i in dict.fromkeys(chosen) if i not in model]
        else:
            ps = ps & xs
            model = [i for i in model if i in chosen]
        assert ids(ps) == [id(pool[i]) for i in model] and all((x in ps) == (i in model) for i, x in enumerate(pool))


def test_gradients_under_their_older_name() -> None:
    W = torch.tensor([3.0])
    gs = gradient(lambda: (W**2).sum(), params(W))
    assert gs.grads[W] is gs[W] and gs[W].item() == 6
