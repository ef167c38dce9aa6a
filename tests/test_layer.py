"""`Layer` and `@layer`: fields, constructors, what torch sees, what rebuilding keeps."""

import copy
import dataclasses
import io
import operator
import pickle

import pytest
import torch
from torch import nn

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch.functors import children


class Affine(Layer):
    W: torch.Tensor
    b: torch.Tensor
    σ: object = torch.tanh

    def __call__(self, x):
        return self.σ(self.W @ x + self.b)


class Blocks(Layer):
    first: Dense
    rest: list
    states: tuple
    table: dict


def blocks():
    return Blocks(
        Dense(2, 2), [Dense(2, 2), Dense(2, 1)], ((torch.ones(2), torch.zeros(2)), "text"), {"a": torch.ones(3)}
    )


class TestConstructor:
    def test_by_position_name_and_default(self):
        a = Affine(torch.ones(1, 2), b=torch.zeros(1))
        assert a.σ is torch.tanh
        assert Affine(torch.ones(1, 2), torch.zeros(1), relu).σ is relu
        assert list(children(a).keys()) == ["W", "b", "σ"]

    @pytest.mark.parametrize(
        ("args", "kwargs", "message"),
        [
            ((), {}, "missing its fields W, b"),
            ((1, 2, 3, 4), {}, r"takes 3 fields \(W, b, σ\), and got 4"),
            ((1, 2), {"c": 3}, "'c': it has W, b, σ"),
            ((1, 2), {"W": 3}, "'W': twice"),
        ],
    )
    def test_wrong_arguments(self, args, kwargs, message):
        with pytest.raises(TypeError, match=message):
            Affine(*args, **kwargs)

    def test_own_init_needs_no_super(self):
        class Own(Layer):
            W: torch.Tensor

            def __init__(self, n):
                self.W = torch.ones(n)

        assert Own(3).W.shape == (3,)
        assert isinstance(Own(3).W, nn.Parameter)

    def test_own_init_may_call_super(self):
        class Base(Layer):
            W: torch.Tensor

        class Derived(Base):
            b: torch.Tensor

            def __init__(self, n):
                super().__init__(torch.ones(n))
                self.b = torch.zeros(n)

        d = Derived(2)
        assert [name for name, _ in d.named_parameters()] == ["W", "b"]

    def test_field_that_init_forgot(self):
        class Forgetful(Layer):
            W: torch.Tensor

            def __init__(self):
                pass

        with pytest.raises(AttributeError, match="no value for its field 'W'"):
            params(Forgetful())

    @pytest.mark.parametrize("name", ["children", "type", "float", "half", "train", "parameters", "forward"])
    def test_field_that_hides_a_method_of_module(self, name):
        with pytest.raises(TypeError, match=rf"field '{name}'.*nn\.Module\.{name}"):
            type("Bad", (Layer,), {"__annotations__": {name: object}})

        class Loose(Layer):
            def __init__(self):
                setattr(self, name, 1)

        with pytest.raises(TypeError, match=f"'{name}'"):
            Loose()

    def test_fields_of_a_class_without_annotations_are_what_init_sets(self):
        class Loose(Layer):
            def __init__(self):
                self.b = torch.ones(1)
                self.a = Dense(1, 1)
                self._hidden = torch.ones(1)

        assert list(children(Loose()).keys()) == ["b", "a"]

    def test_greek_names_are_folded(self):
        m = BatchNorm(2)
        assert m.ϵ == m.ε == 1e-5
        assert getattr(m, "ϵ") == 1e-5  # noqa: B009
        assert children(m)["ϵ"] == 1e-5
        setattr(m, "ϵ", 1.0)  # noqa: B010
        assert m.ε == 1.0


class TestRegistration:
    def test_floats_become_parameters_layers_submodules_and_the_rest_stays(self):
        a = Affine(torch.ones(1, 2), torch.tensor([1, 2]))
        assert [name for name, _ in a.named_parameters()] == ["W"]
        assert [name for name, _ in a.named_buffers()] == ["b"]
        assert [name for name, _ in Chain(a, relu).named_children()] == ["0"]

    def test_a_list_of_floats_is_an_array(self):
        assert torch.equal(Affine([[1.0, 2.0]], [0.0]).W, torch.tensor([[1.0, 2.0]]))

    def test_the_very_tensor_is_the_parameter(self):
        W = torch.ones(2, 3)
        d, e = Dense(W, False), Dense(W, False)
        assert d.weight is W and e.weight is W
        gs = gradient(lambda: (d(torch.ones(3)) + e(torch.ones(3))).sum(), params(d, e))
        assert len(gs) == 1
        assert torch.equal(gs[W], torch.full((2, 3), 2.0))

    def test_nested_fields_are_seen_by_torch_and_by_functors(self):
        m = blocks()
        names = ["first.weight", "rest_0.weight", "rest_1.weight", "states_0_0", "states_0_1", "table_a"]
        assert set(names) <= set(dict(m.named_parameters()))
        assert len(params(m)) == 9
        assert m.states[1] == "text"
        assert len(list(m.to(torch.float64).parameters())) == 9
        assert all(p.dtype == torch.float64 for p in params(m))

    def test_a_list_may_grow(self):
        m = blocks()
        m.rest.append(Dense(1, 1))
        assert len(params(m)) == 11
        assert m.to(torch.float64).rest[-1].weight.dtype == torch.float64
        assert "rest_2.weight" in m.state_dict()

    def test_entries_of_layers_are_named_as_in_sequential(self):
        chain = Chain(Dense(3 | to | 2, relu), relu, Dense(2 | to | 1))
        sequential = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
        chain.load_state_dict(sequential.state_dict())
        x = torch.randn(3, 4)
        torch.testing.assert_close(
            chain(x), nn.Sequential(sequential[0], nn.ReLU(), nn.ReLU(), sequential[2])(x.t()).t()
        )
        assert list(Chain(enc=Dense(1, 1), train=Dense(1, 1)).state_dict()) == [
            "enc.weight", "enc.bias", "layers_train.weight", "layers_train.bias",
        ]  # fmt: skip

    def test_parameters_change_in_place_outside_gradient(self):
        d = Dense(2, 1)
        W = d.weight
        d.weight[...] = torch.ones(1, 2)
        d.weight -= 0.5
        d.weight *= 4
        d.weight[0, 1] = 7
        assert d.weight is W and W.tolist() == [[2.0, 7.0]]
        with pytest.raises(RuntimeError, match="in place while a gradient"):
            gradient(lambda m: m.weight.__isub__(1).sum(), d)
        assert W.tolist() == [[2.0, 7.0]]

    def test_parts_of_parameters_change_in_place(self):
        d = Dense(torch.ones(2, 3))
        W = d.weight
        W[0, 1] += 5
        W[1] -= torch.ones(3)
        W[:, 0] *= 3
        W[..., 2] /= 2
        W[:1, :2] **= 2
        W[0, 1] //= 7
        W[0, 0] %= 4
        W[[0], [2]] += 1
        with torch.no_grad():
            W[1, 1] += 4
        assert W.tolist() == [[1, 5, 1.5], [0, 4, 0]] and d.weight is W and W.is_leaf and W.requires_grad

    def test_a_part_is_a_tensor_with_a_graph(self):
        d = Dense(torch.ones(2, 3))
        part = row = d.weight[0]
        row += 1  # a new array, as in Julia
        assert part.tolist() == [1, 1, 1] and row.tolist() == [2, 2, 2]
        (row**2).sum().backward()
        assert d.weight.grad.tolist() == [[4, 4, 4], [0, 0, 0]] and d.weight.tolist() == [[1, 1, 1]] * 2
        assert repr(part) == "tensor([1., 1., 1.], grad_fn=<SelectBackward0>)" and type(part * 1) is torch.Tensor
        assert type(pickle.loads(pickle.dumps(part))) is torch.Tensor
        file = io.BytesIO()
        torch.save(part, file)
        file.seek(0)
        assert torch.load(file).tolist() == [1, 1, 1]

        def loss(d):
            h = d.weight[0]
            h += d.bias[0]
            return h.sum()

        assert gradient(loss, d)[0].bias.tolist() == [3, 0]
        with pytest.raises(RuntimeError, match="can't be changed in place while a gradient is taken"):
            gradient(lambda d: operator.setitem(d.weight, 0, operator.iadd(d.weight[0], 1)), d)
        assert torch.compile(lambda x: d.weight[0] * x, backend="eager", fullgraph=True)(2).tolist() == [2, 2, 2]

    def test_a_parameter_may_be_replaced(self):
        d = Dense(2, 1)
        d.weight = torch.ones(1, 3)
        assert d(torch.ones(3)).item() == 3
        d.bias = False
        assert [name for name, _ in d.named_parameters()] == ["weight"]

    def test_old_field_names(self):
        d = Dense(2, 1)
        assert d.W is d.weight and d.b is d.bias
        c = Conv((3, 3), 1 | to | 2)
        assert c.W is c.weight and c.b is c.bias

    def test_hooks_run(self):
        seen = []
        d = Dense(2, 1)
        d.register_forward_hook(lambda m, args, out: seen.append(out.shape))
        Chain(d)(torch.ones(2))
        assert seen == [(1,)]

    def test_super_call(self):
        class Double(Dense):
            def __call__(self, x):
                return 2 * super().__call__(x)

        d = Double(torch.ones(1, 2), False)
        assert d(torch.ones(2)).item() == 4

    def test_torch_train_and_eval_settle_the_mode(self):
        m = Chain(Dropout(0.5), BatchNorm(2))
        m.train()
        assert (m[0].active, m[1].active) == (True, True)
        m.eval()
        assert (m[0].active, m[1].active) == (False, False)
        testmode_(m, "auto")
        assert (m[0].active, m[1].active) == (None, None)


class TestLayerDecorator:
    def test_plain_class(self):
        @layer
        class Plain:
            """What it says."""

            def __init__(self, n):
                self.W, self.n, self.f = torch.ones(n, n), n, Dense(n, n)

            def __call__(self, x):
                return self.f(self.W @ x)

        p = Plain(2)
        assert isinstance(p, nn.Module) and Plain.__doc__ == "What it says." and Plain.__name__ == "Plain"
        assert [name for name, _ in p.named_parameters()] == ["W", "f.weight", "f.bias"]
        assert p(torch.ones(2)).shape == (2,)
        grad = gradient(lambda m: m(torch.ones(2)).sum(), p)[0]
        assert grad.n is None and grad.W.shape == (2, 2) and grad.f.bias.tolist() == [1.0, 1.0]

    def test_annotated_class_gets_a_constructor(self):
        @layer
        class Struct:
            a: object
            b: object = 3

        assert (Struct(1).a, Struct(1).b, Struct(b=1, a=2).b) == (1, 3, 1)

    def test_dataclass(self):
        @layer
        @dataclasses.dataclass
        class Data:
            W: torch.Tensor
            n: int = 2

        d = Data(torch.ones(1))
        assert isinstance(d.W, nn.Parameter) and d.n == 2
        assert d == d and hash(d)
        assert repr(d) == "Data([1.0], 2)      # 1 parameters"

    def test_after_the_fact(self):
        class Late:
            def __init__(self, W):
                self.W = W

        early = Late(torch.ones(2))
        Flux.layer(Late)
        assert len(params(early)) == 1
        assert gradient(lambda m: (m.W**2).sum(), early)[0].W.tolist() == [2.0, 2.0]
        assert repr(early) == "Late([1.0, 1.0])    # 2 parameters"

    def test_trainable(self):
        @layer(trainable=("W",))
        class Half:
            def __init__(self):
                self.W, self.b = torch.ones(2), torch.ones(3)

        h = Half()
        assert [p is h.W for p in params(h)] == [True]
        assert [name for name, _ in h.named_buffers()] == ["b"]
        grad = gradient(lambda m: m.W.sum() + m.b.sum(), h)[0]
        assert grad.b is None and grad.W.tolist() == [1.0, 1.0]
        assert repr(h) == "Half([1.0, 1.0], [1.0, 1.0, 1.0])  # 2 parameters, plus 3 non-trainable"

    def test_order_of_what_is_trained(self):
        @layer(trainable=("c", "a"))
        class Three(Layer):
            a: object
            b: object
            c: object

        m = Three([1.0], [2.0], [3.0])
        # By field, as Optimisers.trainables and destructure go; `params` goes as `trainable` says.
        assert [p.item() for p in trainables(m)] == [1, 3] and [p.item() for p in params(m)] == [3, 1]
        flat, re = destructure(m)
        assert flat.tolist() == [1, 3] and re([10.0, 30.0]).c.item() == 30
        assert gradient(lambda m: (m.a + 2 * m.b + 3 * m.c).sum(), m) == (nt(a=[1.0], b=None, c=[3.0]),)

    def test_trainable_method(self):
        class Own(Layer):
            a: torch.Tensor
            b: torch.Tensor

            def trainable(self):
                return nt(a=self.a)

        assert len(params(Own(torch.ones(1), torch.ones(1)))) == 1

    def test_bad_arguments(self):
        with pytest.raises(TypeError, match="needs a class"):
            layer(Dense(1, 1))
        with pytest.raises(TypeError, match="fields W, b, σ"):
            layer(Affine, trainable=("V",))

    def test_expand(self):
        @layer(expand=False)
        class Closed(Layer):
            inner: object

        assert repr(Closed(Dense(1, 2))) == "Closed(Dense(1 => 2))  # 4 parameters"

        class Open(Layer):
            inner: object
            n: int

        assert repr(Open(Dense(1, 2), 3)) == (
            "Open(\n  Dense(1 => 2),                        # 4 parameters\n  3,\n)"
        )  # fmt: skip


def test_treelike():
    class Old:
        def __init__(self):
            self.W, self.b = torch.ones(2), torch.zeros(2)

    assert treelike(Old, ("W",)) is Old and list(vars(children(Old()))) == ["W"]
    assert treelike(Old) is Old and list(vars(children(Old()))) == ["W", "b"]
    with pytest.raises(TypeError, match="treelike needs a class, and got 3"):
        treelike(3)


class TestRebuilding:
    def test_init_is_not_run(self):
        runs = []

        class Counts(Layer):
            W: torch.Tensor

            def __init__(self, n):
                runs.append(n)
                self.W = torch.ones(n)

        c = f64(Counts(2))
        assert runs == [2] and c.W.dtype == torch.float64 and isinstance(c.W, nn.Parameter)

    def test_ties_survive(self):
        W = torch.ones(2, 2)
        m = Chain(Dense(W), Dense(W))
        for copied in (f64(m), copy.deepcopy(m), pickle.loads(pickle.dumps(m)), fmap(lambda x: x, m)):
            assert copied[0].weight is copied[1].weight
            assert len(params(copied)) == 3

    def test_frozen_stays_frozen(self):
        d = Dense(2, 1)
        d.bias.requires_grad_(False)
        assert not f64(d).bias.requires_grad and f64(d).weight.requires_grad
        assert len(params(d)) == 1
        assert gradient(lambda m: m(torch.ones(2)).sum(), d)[0].bias is None

    def test_graph_goes_through_a_rebuild(self):
        d = Dense(torch.ones(1, 2), False)
        flat = torch.tensor([3.0, 4.0])

        def loss(v):
            return fmap(lambda x: v.reshape(1, 2) if isinstance(x, torch.Tensor) else x, d)(
                torch.tensor([1.0, 10.0])
            ).sum()

        assert gradient(loss, flat)[0].tolist() == [1.0, 10.0]

    def test_modes_hooks_and_other_attributes_are_kept(self):
        m = Chain(Dense(1, 1), Dropout(0.5))
        testmode_(m)
        m.note = "mine"
        seen = []
        m.register_forward_hook(lambda *_: seen.append(1))
        copied = f64(m)
        copied(torch.ones(1, dtype=torch.float64))
        assert seen == [1] and copied[1].active is False and copied.note == "mine" and not copied.training

    def test_nested_fields(self):
        m = f64(blocks())
        assert m.rest[0].weight.dtype == m.states[0][0].dtype == m.table["a"].dtype == torch.float64
        assert len(dict(m.named_parameters())) == 9
        m2 = copy.deepcopy(m)
        assert dict(m2.named_parameters())["table_a"] is m2.table["a"]

    def test_state_dict_through_a_file(self):
        m = blocks()
        file = io.BytesIO()
        torch.save(m.state_dict(), file)
        file.seek(0)
        other = blocks()
        other.load_state_dict(torch.load(file))
        assert torch.equal(other.first.weight, m.first.weight)

    def test_functional_call(self):
        m = Chain(Dense(2, 1), Chain(Dense(1, 1)))
        zeros = {k: torch.zeros_like(v) for k, v in m.state_dict().items()}
        assert torch.func.functional_call(m, zeros, torch.ones(2)).item() == 0
        cell = LSTM(2, 3)
        names = dict(cell.named_parameters())
        assert (
            torch.func.functional_call(cell, {k: torch.zeros_like(v) for k, v in names.items()}, torch.ones(2))
            .abs()
            .sum()
            == 0
        )


class TestCompose:
    def test_matmul_with_functions(self):
        d = Dense(torch.ones(1, 2), False)
        x = torch.tensor([-3.0, 1.0])
        assert (relu @ d)(x).item() == 0
        assert (d @ relu)(x).item() == 1
        assert (d @ relu).outer is d and (d @ relu).inner is relu
        assert isinstance(d @ relu, nn.Module) and len(params(relu @ d)) == 1

    def test_compose_anything(self):
        f = compose(lambda x: x + 1, lambda x: 2 * x, lambda x: x**2)
        assert f(3) == 19
        assert compose(relu) is relu
        with pytest.raises(TypeError, match="needs functions, and got relu, 3"):
            compose(relu, 3)


class TestNewWeights:
    def test_a_step_written_as_an_assignment(self):
        m = Dense(2 | to | 3)
        old, g = m.weight.detach().clone(), gradient(lambda m: m(torch.ones(2)).sum(), m)[0]
        m.weight = m.weight - 0.1 * g.weight
        assert m.weight.is_leaf and m.weight.requires_grad
        torch.testing.assert_close(m.weight.detach(), old - 0.1 * g.weight)
        torch.testing.assert_close(copy.deepcopy(m).weight, m.weight)

    def test_weights_that_depend_on_others_keep_their_graph(self):
        m, θ = Dense(2 | to | 3, bias=False), torch.ones(3, 2, requires_grad=True)
        m.weight = 2 * θ
        m(torch.ones(2)).sum().backward()
        assert torch.equal(θ.grad, torch.full((3, 2), 2.0))

    def test_inside_gradient_it_is_differentiated(self):
        m, seen = Dense(torch.ones(1, 1), False), []

        def loss(m):
            m.weight = m.weight**2
            seen.append(m.weight.grad_fn is not None)
            return 3 * m(torch.ones(1)).sum()

        gradient(loss, m)
        assert seen == [True]
