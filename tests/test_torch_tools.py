"""A model is an `nn.Module`: what torch's own tools make of it, and what they need of it."""

import copy
import io
import operator
import pickle
import shutil
import threading

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector, prune, vector_to_parameters
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization, remove_parametrizations
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import fluxtorch as Flux
import fluxtorch.v016 as Flux016
from fluxtorch import *
from fluxtorch.arrays import reversed_axes
from fluxtorch.functors import children, fleaves, fmap
from fluxtorch.layers.layer import Parameter


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    torch._dynamo.reset()


def close(a, b, atol=1e-5):
    if isinstance(a, tuple):
        assert len(a) == len(b)
        return [close(u, v, atol) for u, v in zip(a, b, strict=True)]
    return torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def mlp():
    return Chain(Dense(3 | to | 4, tanh), Dense(4 | to | 2))


def net():
    return Chain(
        enc=Chain(Conv((3, 3), 2 | to | 4, relu, pad=1), BatchNorm(4, relu), MaxPool((2, 2))),
        flat=flatten,
        drop=Dropout(0.5),
        body=SkipConnection(Chain(Dense(24 | to | 24, tanh), LayerNorm(24)), operator.add),
        heads=Parallel(vcat, Dense(24 | to | 3), Dense(24 | to | 4, bias=False)),
        last=Dense(7 | to | 2),
    )


def plain():
    """`net` as one writes it in torch, with the same parameters."""

    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.f, self.g, self.h = nn.Linear(24, 24), nn.Linear(24, 3), nn.Linear(24, 4, bias=False)

        def forward(self, x):
            y = torch.tanh(self.f(x))
            y = (y - y.mean(-1, keepdim=True)) / (y.std(-1, keepdim=True, correction=0) + 1e-5)
            return torch.cat([self.g(y + x), self.h(y + x)], -1)

    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        Body(),
        nn.Linear(7, 2),
    )


def twins():
    m, p = net(), plain()
    with torch.no_grad():
        p[0].weight.copy_(reversed_axes(m[0][0].weight.flip(0, 1)))
        for layer, dense in (p[7].f, m[3].layers[0]), (p[7].g, m[4][0]), (p[7].h, m[4][1]), (p[8], m[5]):
            layer.weight.copy_(dense.weight)
        for q in p.parameters():
            if q.ndim == 1 and q is not p[2].weight:
                q.zero_()
    return m, p


def images(n=4):
    return torch.randn(6, 4, 2, n)


NAMES = [
    *("enc.0.weight", "enc.0.bias", "enc.1.β", "enc.1.γ", "enc.1.μ", "enc.1.σ2"),
    *("body.layers.0.weight", "body.layers.0.bias", "body.layers.1.diag.scale", "body.layers.1.diag.bias"),
    *("heads.0.weight", "heads.0.bias", "heads.1.weight", "last.weight", "last.bias"),
]


class TestNames:
    def test_modules(self):
        m = net()
        assert [name for name, _ in m.named_children()] == ["enc", "drop", "body", "heads", "last"]
        names = [name for name, _ in m.named_modules()]
        assert names[:6] == ["", "enc", "enc.0", "enc.1", "enc.2", "drop"]
        assert "body.layers.1.diag" in names and "heads.1" in names
        assert m.get_submodule("enc.1") is m["enc"][1]
        assert m.get_parameter("last.weight") is m["last"].weight
        assert m.get_buffer("enc.1.μ") is m["enc"][1].μ
        assert list(m.children())[-1] is m[5]

    def test_sizes(self):
        assert sum(p.numel() for p in mlp().parameters()) == 3 * 4 + 4 + 4 * 2 + 2
        assert [b.shape for b in net().buffers()] == [(4,), (4,)]

    def test_a_submodule_is_exchanged(self):
        m = mlp()
        m.set_submodule("1", Dense(4 | to | 7))
        assert print_of(m) == "Chain(Dense(3 => 4, tanh), Dense(4 => 7))"
        assert m(torch.ones(3, 2)).shape == (7, 2)

    def test_in_torch_containers(self):
        s = nn.Sequential(Dense(3 | to | 4), nn.Identity(), Dense(4 | to | 2))
        assert list(s.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
        g = gradient(lambda s: s(torch.ones(3, 5)).sum(), s)[0]
        close(g["2"].bias, torch.full((2,), 5.0))


def print_of(m):
    return str(m)


class TestState:
    def test_round_trip(self):
        m, n, x = net(), net(), images()
        trainmode_(m)(x)
        assert list(m.state_dict()) == NAMES
        n.load_state_dict(m.state_dict(), strict=True)
        assert m[0][1].μ.any()
        close(testmode_(n)(x), testmode_(m)(x), 0)

    def test_keys_are_strict(self):
        m, state = net(), net().state_dict()
        del state["enc.1.μ"]
        state["more"] = torch.ones(1)
        with pytest.raises(RuntimeError, match=r'Missing.*"enc.1.μ"[\s\S]*Unexpected.*"more"'):
            m.load_state_dict(state)
        found = m.load_state_dict(state, strict=False)
        assert found.missing_keys == ["enc.1.μ"] and found.unexpected_keys == ["more"]

    def test_names_of_nn_sequential(self):
        s, m = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)), Chain(Dense(3, 4), tanh, Dense(4, 2))
        m.load_state_dict(s.state_dict())
        x = torch.randn(3, 5)
        close(m(x), s(x.T).T)

    def test_after_to(self):
        m, n = net().to(torch.float64), net()
        n.load_state_dict(m.state_dict())
        assert n[5].weight.dtype == torch.float32
        close(n[5].weight.double(), m[5].weight)
        n.load_state_dict(m.state_dict(), assign=True)
        assert n[5].weight.dtype == n[0][1].μ.dtype == torch.float64
        assert type(n[5].weight) is Parameter and n[5].weight.requires_grad

    def test_in_a_file(self):
        file, m, n = io.BytesIO(), net(), net()
        torch.save(m.state_dict(), file)
        file.seek(0)
        n.load_state_dict(torch.load(file, weights_only=True))
        assert all(map(torch.equal, n.state_dict().values(), m.state_dict().values()))

    def test_copies(self):
        m, x = testmode_(net()), images()
        other = copy.deepcopy(m)
        close(other(x), m(x), 0)
        assert not {id(p) for p in m.parameters()} & {id(p) for p in other.parameters()}
        k = Chain(Dense(3 | to | 4, relu), BatchNorm(4))
        x = torch.randn(3, 5)
        close(pickle.loads(pickle.dumps(k))(x), k(x), 0)
        file = io.BytesIO()
        torch.save(k, file)
        file.seek(0)
        close(torch.load(file, weights_only=False)(x), k(x), 0)


class TestTraining:
    @pytest.mark.parametrize("active", [True, False])
    def test_as_the_same_program_in_torch(self, active):
        m, p = twins()
        m[2].p = p[6].p = 0.0
        m.train(active), p.train(active)
        for _ in range(3):
            x = images()
            ours, theirs = m(x), p(reversed_axes(x))
            close(reversed_axes(ours), theirs)
            ours.pow(2).mean().backward(), theirs.pow(2).mean().backward()
        close(reversed_axes(m[0][0].weight.grad.flip(0, 1)), p[0].weight.grad)
        close(m[5].weight.grad, p[8].weight.grad)
        close((m[0][1].μ, m[0][1].σ2), (p[2].running_mean, p[2].running_var))
        assert bool(m[0][1].μ.any()) is active

    def test_dropout_as_in_torch(self):
        m, p, x = Dropout(0.5).train(), nn.Dropout(0.5), torch.randn(5, 7)
        torch.manual_seed(1)
        ours = m(x)
        torch.manual_seed(1)
        close(ours, p(x), 0)
        close(m.eval()(x), x, 0)

    def test_modes(self):
        m = net()
        assert m[2].active is None and m.training
        m.eval()
        assert m[2].active is m[0][1].active is False and not m[2].training
        m.train()
        assert m[2].active is m[0][1].active is True and m[2].training
        testmode_(m, "auto")
        assert m[2].active is m[0][1].active is None and m[2].training

    def test_eval_holds_inside_gradient_and_train_outside(self):
        d, x = Dropout(0.5), torch.ones(1000)
        assert not bool((d(x) == 0).any())
        assert bool((gradient(lambda x: d(x).sum(), x)[0] == 0).any())
        d.eval()
        assert not bool((gradient(lambda x: d(x).sum(), x)[0] == 0).any())
        d.train()
        assert bool((d(x) == 0).any())

    def test_optimizer_and_scheduler(self):
        m, x = net(), images()
        opt = torch.optim.AdamW(m.parameters(), lr=0.01)
        sched = torch.optim.lr_scheduler.StepLR(opt, 1, 0.5)
        m.train()
        losses = []
        for _ in range(15):
            opt.zero_grad()
            loss = m(x).pow(2).mean()
            loss.backward()
            opt.step()
            losses.append(loss.item())
        sched.step()
        assert losses[-1] < losses[0] / 3
        assert opt.param_groups[0]["lr"] == 0.005
        other = torch.optim.AdamW(copy.deepcopy(m).parameters())
        other.load_state_dict(opt.state_dict())
        assert len(other.state) == 13

    def test_same_steps_as_in_torch(self):
        m, s = mlp(), nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        m.load_state_dict({k.replace("2.", "1."): v for k, v in s.state_dict().items()})
        x = torch.randn(3, 5)
        opts = [torch.optim.Adam(k.parameters(), lr=0.1) for k in (m, s)]
        for _ in range(3):
            for opt, y in zip(opts, (m(x), s(x.T)), strict=True):
                opt.zero_grad()
                y.pow(2).mean().backward()
                opt.step()
        close(m[1].weight, s[2].weight)

    def test_parameter_groups(self):
        m = net()
        groups = [{"params": m["enc"].parameters(), "lr": 0.1}, {"params": m["last"].parameters()}]
        opt = torch.optim.SGD(groups, lr=0.01, momentum=0.9)
        m(images()).sum().backward()
        before = m["last"].bias.detach().clone()
        opt.step()
        close(m["last"].bias, before - 0.01 * m["last"].bias.grad)

    def test_faster_kernels_are_chosen(self):
        from torch.optim.optimizer import _foreach_supported_types

        assert Parameter in _foreach_supported_types

    def test_frozen(self):
        m = mlp().requires_grad_(False)
        m[1].requires_grad_(True)
        m(torch.ones(3, 2)).sum().backward()
        assert m[0].weight.grad is None and m[1].weight.grad is not None
        g = gradient(lambda m: m(torch.ones(3, 2)).sum(), m)[0]
        assert g.layers[0] is None and g.layers[1].bias is not None

    def test_initialisers(self):
        m = net()

        def start(layer):
            if isinstance(layer, Dense):
                nn.init.kaiming_uniform_(layer.weight)
                if layer.bias is not False:
                    nn.init.constant_(layer.bias, 0.5)

        m.apply(start)
        assert m[5].bias.tolist() == [0.5, 0.5] and m[4][1].bias is False
        nn.init.orthogonal_(m[5].weight)
        close(m[5].weight @ m[5].weight.T, torch.eye(2))
        w = m[0][0].weight
        torch.manual_seed(3)
        nn.init.kaiming_normal_(reversed_axes(w.data))  # which counts what comes in by torch's axes
        torch.manual_seed(3)
        close(reversed_axes(w), nn.init.kaiming_normal_(torch.empty(4, 2, 3, 3)))


class TestConversions:
    def test_types(self):
        m, x = net(), images()
        for convert, dtype in (
            (lambda: m.half(), torch.float16),
            (lambda: m.bfloat16(), torch.bfloat16),
            (lambda: m.double(), torch.float64),
            (lambda: m.to(torch.float32), torch.float32),
            (lambda: m.to("cpu", torch.float64), torch.float64),
        ):
            W = m[5].weight
            assert convert() is m and m[5].weight is W
            assert {v.dtype for v in m.state_dict().values()} == {dtype}
            assert m(x.to(dtype)).dtype == dtype

    def test_meta(self):
        m, n, x = net(), testmode_(net()), images()
        assert m.to("meta")(x.to("meta")).shape == (2, 4)
        assert m.to_empty(device="cpu") is m
        assert {type(p) for p in m.parameters()} == {Parameter}
        m.load_state_dict(n.state_dict())
        close(testmode_(m)(x), n(x), 0)
        W = m[5].weight
        W -= W
        assert not m[5].weight.any()

    def test_made_on_meta(self):
        with torch.device("meta"):
            m = net()
        assert {v.device.type for v in m.state_dict().values()} == {"meta"}
        n = testmode_(net())
        m.load_state_dict(n.state_dict(), assign=True)
        close(testmode_(m)(images()), n(images()), 10)

    def test_a_parameter_of_a_parameter(self):
        W = mlp()[0].weight
        P = nn.Parameter(W)
        assert P.data_ptr() == W.data_ptr() and P is not W and P.requires_grad
        assert type(W.detach()) is torch.Tensor


class TestHooks:
    def test_in_order(self):
        m, seen = mlp(), []
        handles = [
            m[0].register_forward_pre_hook(lambda *_: seen.append("before")),
            m[0].register_forward_hook(lambda *_: seen.append("after")),
            m[0].register_full_backward_pre_hook(lambda *_: seen.append("back")),
            m[0].register_full_backward_hook(lambda _, gx, gy: seen.append(gy[0].shape)),
        ]
        m(torch.ones(3, 5)).sum().backward()
        assert seen == ["before", "after", "back", (4, 5)]
        gradient(lambda m: m(torch.ones(3, 5)).sum(), m)
        assert seen[4:] == seen[:4]
        for handle in handles:
            handle.remove()
        m(torch.ones(3, 5))
        assert len(seen) == 8

    def test_of_all_modules(self):
        m, seen = net(), []
        hook = nn.modules.module.register_module_forward_hook(lambda m, x, y: seen.append(type(m).__name__))
        try:
            m(images())
        finally:
            hook.remove()
        assert seen == (
            "Conv BatchNorm MaxPool Chain Dropout Dense Scale LayerNorm Chain SkipConnection Dense Dense Parallel "
            "Dense Chain".split()
        )

    def test_change_what_they_see(self):
        m, x = mlp(), torch.randn(3, 5)
        y = m(x)
        m[1].register_forward_hook(lambda m, x, y: 2 * y)
        m.register_forward_pre_hook(lambda m, x: (-x[0],))
        m[1].bias.register_hook(lambda g: g * 0)
        close(m(-x), 2 * y)
        assert not gradient(lambda m: m(x).sum(), m)[0].layers[1].bias.any()

    def test_when_called_by_super(self):
        class Twice(Dense):
            def __call__(self, x):
                return 2 * super().__call__(x)

        d, seen = Twice(3 | to | 2), []
        d.register_forward_hook(lambda *_: seen.append(1))
        x = torch.randn(3, 5)
        close(d(x), 2 * Dense(d.weight, d.bias)(x))
        assert seen == [1]

    def test_two_bases(self):
        class A(Layer):
            def __call__(self, x):
                return x + 1

        class B(Layer):
            def __call__(self, x):
                return 10 * x

        class C(A, B):
            pass

        class D(A, B):
            def __call__(self, x):
                return A.__call__(self, x) + super(A, self).__call__(x)

        assert (A()(2), B()(2), C()(2), D()(2)) == (3, 20, 3, 23)


class TestFunctional:
    def test_call_and_gradient(self):
        m, x = testmode_(net()), images()
        p, b = dict(m.named_parameters()), dict(m.named_buffers())
        close(functional_call(m, (p, b), (x,)), m(x), 0)
        zero = {k: torch.zeros_like(v) for k, v in p.items()}
        assert not functional_call(m, (zero, b), (x,)).any()
        found = grad(lambda p: functional_call(m, (p, b), (x,)).pow(2).sum())(p)
        close(found["last.weight"], gradient(lambda m: m(x).pow(2).sum(), m)[0].layers.last.weight)

    def test_gradient_of_each_sample(self):
        m, x = testmode_(net()), images()
        p, b = {k: v.detach() for k, v in m.named_parameters()}, dict(m.named_buffers())

        def loss(p, x):
            return functional_call(m, (p, b), (x[..., None],)).pow(2).sum()

        each = vmap(grad(loss), in_dims=(None, -1))(p, x)
        whole = gradient(lambda m: m(x).pow(2).sum(), m)[0]
        close(each["enc.0.weight"].sum(0), whole.layers.enc.layers[0].weight, 1e-3)
        one = gradient(lambda m: m(x[..., 2:3]).pow(2).sum(), m)[0]
        close(each["last.bias"][2], one.layers.last.bias)

    @pytest.mark.parametrize(
        "layer",
        [
            *(Dense(6 | to | 2, tanh), Scale(6), LayerNorm(6), Bilinear(6 | to | 2), Embedding(7 | to | 3)),
            *(Maxout(Dense(6, 2), Dense(6, 2)), Conv((3, 3), 2 | to | 4, pad=1), ConvTranspose((3, 3), 2 | to | 4)),
            *(BatchNorm(2), GroupNorm(2, 2), InstanceNorm(2, affine=True), MultiHeadAttention(6, nheads=2)),
        ],
        ids=lambda m: type(m).__name__,
    )
    def test_ensemble(self, layer):
        kind = type(layer)
        x = torch.randn(6, 4, 2, 4) if kind in (Conv, ConvTranspose, BatchNorm, GroupNorm, InstanceNorm) else None
        x = torch.tensor([1, 2]) if kind is Embedding else torch.randn(6, 5, 3) if kind is MultiHeadAttention else x
        x = torch.randn(6, 5) if x is None else x
        models = [layer, fmap(lambda v: v * 2 if isinstance(v, torch.Tensor) else v, layer)]
        p, b = stack_module_state(models)
        base = copy.deepcopy(layer).to("meta")
        ys = vmap(lambda p, b: functional_call(base, (p, b), (x,)))(p, b)
        for i, m in enumerate(models):
            close(tuple(y[i] for y in ys) if isinstance(ys, tuple) else ys[i], m(x))

    def test_random_choices(self):
        d, xs = trainmode_(Dropout(0.5)), torch.ones(3, 500)
        same, different = (vmap(d, randomness=kind)(xs) for kind in ("same", "different"))
        close(same[0], same[1], 0)
        assert not torch.equal(different[0], different[1])


class TestUtils:
    def test_clipping(self):
        m = net()
        (1000 * m(images())).pow(2).sum().backward()
        before = clip_grad_norm_(m.parameters(), 1.0)
        close(before, torch.tensor(before.item()))
        close(torch.stack([p.grad.norm() for p in m.parameters()]).norm(), torch.tensor(1.0))
        clip_grad_value_(m.parameters(), 0.01)
        assert max(p.grad.abs().max() for p in m.parameters()) <= 0.01

    def test_as_a_vector(self):
        m, n, x = testmode_(net()), testmode_(net()), images()
        v = parameters_to_vector(m.parameters())
        assert v.requires_grad and v.shape == (sum(p.numel() for p in m.parameters()),)
        vector_to_parameters(v.detach(), n.parameters())
        close(n(x), m(x))
        g = torch.autograd.grad(v.pow(2).sum(), m[0][0].weight)[0]
        close(g, 2 * m[0][0].weight.detach())

    def test_weight_norm(self):
        m, x = mlp(), torch.randn(3, 5)
        y = m(x)
        weight_norm(m[0])
        close(m(x), y)
        names = ["0.bias", "0.parametrizations.weight.original0", "0.parametrizations.weight.original1"]
        assert list(m.state_dict())[:3] == names and isinstance(m[0], Dense)
        assert repr(m).splitlines()[1] == "  Dense(3 => 4, tanh),                  # 20 parameters"
        m(x).pow(2).sum().backward()
        g = gradient(lambda m: m(x).pow(2).sum(), m)[0].layers[0]
        original = m[0].parametrizations.weight
        close(g.parametrizations.weight.original0, original.original0.grad)
        close(g.parametrizations.weight.original1, original.original1.grad)
        assert len(params(m)) == 5
        close(f64(m)(x.double()), y.double())

        opt = setup(Descent(0.1), m)
        before = original.original1.detach().clone()
        train_(lambda m, x: m(x).pow(2).sum(), m, [(x,)], opt)
        close(original.original1, before - 0.1 * original.original1.grad)
        y = m(x)
        remove_parametrizations(m[0], "weight")
        assert type(m[0]) is Dense and type(m[0].weight) is Parameter
        close(m(x), y)

    def test_weight_norm_counts_axes_as_flux(self):
        ours, theirs = CrossCor((3, 3), 2 | to | 4), nn.Conv2d(2, 4, 3)
        theirs.weight.data, theirs.bias.data = reversed_axes(ours.weight.detach()), ours.bias.detach()
        weight_norm(ours, dim=3), weight_norm(theirs)
        close(ours.parametrizations.weight.original0.flatten(), theirs.parametrizations.weight.original0.flatten())

    def test_spectral_norm(self):
        ours, theirs = CrossCor((3, 3), 2 | to | 4), nn.Conv2d(2, 4, 3)
        theirs.weight.data, theirs.bias.data = reversed_axes(ours.weight.detach()), ours.bias.detach()
        spectral_norm(ours, dim=3, n_power_iterations=100), spectral_norm(theirs, n_power_iterations=100)
        x = images()
        close(reversed_axes(ours.eval()(x)), theirs.eval()(reversed_axes(x)), 1e-4)
        g = gradient(lambda m: m(x).sum(), ours)[0].parametrizations.weight
        assert g.original.shape == (3, 3, 2, 4) and g["0"] is None

    def test_a_parametrization_of_ones_own(self):
        class Symmetric(nn.Module):
            def forward(self, W):
                return W.triu() + W.triu(1).mT

        d, x = Dense(3 | to | 3), torch.randn(3, 5)
        register_parametrization(d, "weight", Symmetric())
        close(d.weight, d.weight.T, 0)
        g = gradient(lambda d: d(x).sum(), d)[0]
        assert g.parametrizations.weight.original[2, 0] == 0 and list(vars(g)) == ["bias", "σ", "parametrizations"]
        close(f32(f64(d))(x), d(x))
        b = BatchNorm(3)
        register_parametrization(b, "γ", nn.Softplus())
        assert len(params(b)) == 2 and b.γ.shape == (3,)

    def test_prune(self):
        m, x = mlp(), torch.randn(3, 5)
        prune.l1_unstructured(m[0], "weight", amount=0.5)
        zero = m[0].weight == 0
        assert zero.sum() == 6
        assert list(m.state_dict()) == ["0.bias", "0.weight_orig", "0.weight_mask", "1.weight", "1.bias"]
        assert all(p.is_leaf for p in m.parameters())
        m(x).pow(2).sum().backward()
        g = gradient(lambda m: m(x).pow(2).sum(), m)[0]
        close(g.layers[0].weight_orig, m[0].weight_orig.grad)
        assert g.layers[0].weight_mask is None and not g.layers[0].weight_orig[zero].any()
        torch.optim.SGD(m.parameters(), 0.1).step()
        before, y = m[0].weight_orig.detach().clone(), m(x)
        assert bool((m[0].weight[zero] == 0).all())
        close(f64(m)(x.double()), y.double())
        close(f64(m)[0].weight, m[0].weight.double())
        opt = setup(Descent(0.1), m)
        g = gradient(lambda m: m(x).pow(2).sum(), m)[0]
        update_(opt, m, g)
        close(m[0].weight_orig, before - 0.1 * g.layers[0].weight_orig)
        y = m(x)
        prune.remove(m[0], "weight")
        assert list(m.state_dict()) == ["0.bias", "0.weight", "1.weight", "1.bias"]
        assert type(m[0].weight) is Parameter and bool((m[0].weight[zero] == 0).all())
        close(m(x), y)

    def test_prune_a_convolution(self):
        c, x = Conv((3, 3), 2 | to | 4), images()
        y = c(x)
        c.weight = c.weight.detach().contiguous()
        close(c(x), y)
        prune.l1_unstructured(c, "weight", 0.5)
        assert (c.weight == 0).sum() == 36 and not torch.allclose(c(x), y)

    def test_what_torch_adds_is_a_child(self):
        d, x = Dense(3 | to | 2), torch.randn(3, 5)
        d.register_parameter("scale", nn.Parameter(torch.tensor(2.0)))
        d.register_buffer("count", torch.zeros(()))
        assert list(vars(children(d))) == ["weight", "bias", "σ", "scale", "count"]
        assert list(vars(Flux.trainable(d))) == ["weight", "bias", "σ", "scale"]
        close(gradient(lambda d: (d(x) * d.scale).sum(), d)[0].scale, d(x).sum())
        other = f64(d)
        assert (other.scale.dtype, other.count.dtype) == (torch.float64, torch.float64)
        assert list(other.state_dict()) == list(d.state_dict()) and other.scale.requires_grad

    def test_checkpoint(self):
        m, x = trainmode_(net()), images()
        n = copy.deepcopy(m)
        for model, call in (m, lambda m, x: m(x)), (n, lambda m, x: checkpoint(m, x, use_reentrant=False)):
            torch.manual_seed(5)
            call(model, x).pow(2).sum().backward()
        for p, q in zip(m.parameters(), n.parameters(), strict=True):
            close(p.grad, q.grad)
        c, x = mlp(), torch.randn(3, 5)
        close(checkpoint_sequential(list(c), 2, x, use_reentrant=False), c(x))
        close(
            gradient(lambda m: checkpoint(m, x, use_reentrant=False).sum(), c)[0].layers[0].weight,
            gradient(lambda m: m(x).sum(), c)[0].layers[0].weight,
        )

    def test_profiler(self):
        m = mlp()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as p:
            m(torch.ones(3, 5)).sum().backward()
        assert "aten::linear" in {e.key for e in p.key_averages()}


class TestAutocast:
    def test_gradient_after_another_call(self):
        m, x = mlp(), torch.randn(3, 5)
        opt = setup(Descent(0.1), m)
        with torch.autocast("cpu", torch.bfloat16):  # which keeps the weights that it has converted
            before = m(x)
            g = gradient(lambda m: m(x).float().sum(), m)[0]
            update_(opt, m, g)
            assert not torch.equal(m(x), before)
        assert g.layers[0].weight is not None

    def test_kinds(self):
        m, kinds = trainmode_(net()), {}
        for name, layer in m.named_modules():
            layer.register_forward_hook(lambda m, x, y, name=name: kinds.update({name: y.dtype}))
        with torch.autocast("cpu", torch.bfloat16):
            y = m(images())
            loss = y.float().pow(2).mean()
        loss.backward()
        half = ["enc.0", "enc.1", "enc.2", "drop", "body.layers.0", "heads.0", "heads.1", "last"]
        assert {kinds[name] for name in half} == {torch.bfloat16}
        assert {p.grad.dtype for p in m.parameters()} == {torch.float32}

    @pytest.mark.parametrize(
        ("layer", "size"),
        [
            (Dense(3 | to | 4, relu), (3, 5)),
            (Conv((3, 3), 2 | to | 4, pad=1), (6, 4, 2, 3)),
            (CrossCor((3, 3), 2 | to | 4), (6, 4, 2, 3)),
            (ConvTranspose((3, 3), 2 | to | 4), (6, 4, 2, 3)),
            (MultiHeadAttention(8, nheads=2), (8, 5, 2)),
            (Torch(nn.Linear(3, 4)), (3, 5)),
            (WeightNorm(Dense(3 | to | 4)), (3, 5)),
            (RNN(3 | to | 4), (3, 5)),
            (LSTM(3 | to | 4), (3, 5, 2)),
        ],
        ids=lambda v: type(v).__name__,
    )
    def test_layers_leave_it_alone(self, layer, size):
        x = torch.randn(size)

        def first(y):
            return y[0] if isinstance(y, tuple) else y

        for dtype in torch.float32, torch.bfloat16:
            reset_(layer)
            with torch.autocast("cpu", torch.bfloat16):
                y = first(layer(x.to(dtype)))
                g = gradient(lambda m: first(m(x)).float().sum(), layer)[0]
            assert y.dtype == torch.bfloat16
            assert {v.dtype for v in fleaves(g) if isinstance(v, torch.Tensor)} == {torch.float32}

    def test_grad_scaler(self):
        m, x = mlp(), torch.randn(3, 5)
        n = copy.deepcopy(m)
        scaler, opt = torch.amp.GradScaler("cpu", init_scale=1024.0), torch.optim.SGD(m.parameters(), 0.1)
        scaler.scale(m(x).pow(2).mean()).backward()
        close(m[1].bias.grad, 1024 * gradient(lambda m: m(x).pow(2).mean(), n)[0].layers[1].bias, 1e-2)
        scaler.unscale_(opt)
        clip_grad_norm_(m.parameters(), 1e9)
        scaler.step(opt)
        scaler.update()
        train_(lambda m, x: m(x).pow(2).mean(), n, [(x,)], setup(Descent(0.1), n))
        close(m[1].weight, n[1].weight)


def compiled(m, **options):
    return torch.compile(m, backend="aot_eager", fullgraph=True, **options)


IMAGE, ROWS = (6, 4, 2, 3), (3, 5)
LAYERS = {
    "dense": (lambda: mlp(), ROWS),
    "dense of a vector": (lambda: Dense(3 | to | 4, tanh), (3,)),
    "scale": (lambda: Scale(3, tanh), ROWS),
    "conv": (lambda: Conv((2, 2), 2 | to | 4, relu, pad=SamePad()), IMAGE),
    "crosscor": (lambda: CrossCor((3,), 2 | to | 4, relu, stride=2), (6, 2, 3)),
    "convtranspose": (lambda: ConvTranspose((3, 3), 2 | to | 4, stride=2, outpad=1), IMAGE),
    "pools": (lambda: Chain(MaxPool((2, 2)), MeanPool((1, 2)), GlobalMeanPool(), flatten), IMAGE),
    "adaptive": (lambda: Chain(AdaptiveMaxPool((3, 2)), AdaptiveMeanPool((2, 2)), GlobalMaxPool()), IMAGE),
    "batchnorm": (lambda: BatchNorm(3, relu), ROWS),
    "batchnorm of images": (lambda: BatchNorm(2, relu), IMAGE),
    "layernorm": (lambda: LayerNorm(3, relu), ROWS),
    "groupnorm": (lambda: GroupNorm(2, 2, relu), IMAGE),
    "instancenorm": (lambda: InstanceNorm(2, relu, affine=True, track_stats=True), IMAGE),
    "dropout": (lambda: Chain(Dropout(0.5), Dropout(0.5, dims=0)), ROWS),
    "alphadropout": (lambda: AlphaDropout(0.5), ROWS),
    "embedding": (lambda: Embedding(5 | to | 3), None),
    "skip": (lambda: SkipConnection(Dense(3 | to | 3, relu), operator.add), ROWS),
    "parallel": (lambda: Parallel(vcat, a=Dense(3 | to | 3, relu), b=Dense(3 | to | 2)), ROWS),
    "maxout": (lambda: Maxout(Dense(3 | to | 3), Dense(3 | to | 3)), ROWS),
    "attention": (lambda: MultiHeadAttention(8, nheads=2, dropout_prob=0.3), (8, 5, 2)),
    "upsample": (lambda: Chain(Upsample(scale=(2, 2)), Upsample("bilinear", scale=2)), IMAGE),
    "activations": (lambda: Chain(relu, gelu, softplus, mish, swish, σ, elu, logsoftmax, softmax), ROWS),
    "torch": (lambda: Torch(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))), ROWS),
    "weightnorm": (lambda: WeightNorm(Dense(3 | to | 4)), ROWS),
    "composed": (lambda: Dense(4 | to | 2) @ Dense(3 | to | 4), ROWS),
}


class TestCompile:
    @pytest.mark.parametrize("name", LAYERS)
    def test_as_eager(self, name):
        if name == "parallel" and torch.__version__ < "2.12":
            pytest.skip("torch 2.11 can't trace the fields of a named tuple")
        make, size = LAYERS[name]
        m = make()
        x = torch.tensor([[1, 2], [0, 4]]) if size is None else torch.randn(size)
        for mode in None, True, False:
            torch._dynamo.reset()
            m = m if mode is None else m.train(mode)
            n = copy.deepcopy(m)
            fast = compiled(n)
            results = []
            for model in m, fast:
                torch.manual_seed(1)
                y = model(x)
                results.append(y)
                y = y[0] if isinstance(y, tuple) else y
                if y.requires_grad:
                    y.pow(2).sum().backward()
            close(*results)
            close(tuple(m.buffers()), tuple(n.buffers()))
            for p, q in zip(m.parameters(), n.parameters(), strict=True):
                close(p.grad, q.grad, 1e-4)  # torch 2.11 compiles batch-norm to other roundings
                p.grad = None

    def test_training_in_torch(self):
        m, x = Chain(Dense(3 | to | 4), BatchNorm(4, relu), Dense(4 | to | 2)).train(), torch.randn(3, 9)
        n = copy.deepcopy(m)
        for model in m, compiled(n):
            opt = torch.optim.SGD(model.parameters(), 0.1)
            for _ in range(3):
                opt.zero_grad()
                model(x).pow(2).mean().backward()
                opt.step()
        for p, q in zip(m.state_dict().values(), n.state_dict().values(), strict=True):
            close(p, q)
        assert m[1].μ.any()

    def test_one_graph_for_any_batch(self):
        fast = compiled(mlp(), dynamic=True)
        for n in 2, 3, 7:
            assert fast(torch.ones(3, n)).shape == (2, n)

    def test_gradients(self):
        m, x, y = mlp(), torch.randn(3, 8), torch.randn(2, 8)

        def loss(m, x, y):
            return mse(m(x), y)

        fast = compiled(m)
        slow, quick = gradient(loss, m, x, y), gradient(loss, fast, x, y)
        close(quick[0]._orig_mod.layers[0].weight, slow[0].layers[0].weight)
        close(quick[1:], slow[1:])
        found = withgradient(lambda m: loss(m, x, y), fast)
        close(found.val, loss(m, x, y).detach())
        close(found.grad[0]._orig_mod.layers[1].bias, slow[0].layers[1].bias)
        ps = params(fast)
        gs = gradient(lambda: loss(fast, x, y), ps)
        close(tuple(gs[p] for p in ps), tuple(gradient(lambda: loss(m, x, y), ps)[p] for p in ps))
        step = torch.compile(lambda m: loss(m, x, y), backend="aot_eager", fullgraph=True)
        close(gradient(step, m)[0].layers[0].weight, slow[0].layers[0].weight)

    def test_training_in_flux(self):
        m = Chain(Dense(3 | to | 4, tanh), BatchNorm(4), Dense(4 | to | 2))
        n, x, y = copy.deepcopy(m), torch.randn(3, 8), torch.randn(2, 8)
        fast = compiled(n)

        def loss(m, x, y):
            return mse(m(x), y)

        close(fast(x), m(x))  # once outside of gradient, where BatchNorm is in test mode
        for model in m, fast:
            opt = setup(Adam(0.1), model)
            train_(loss, model, [(x, y)] * 3, opt)
            update_(opt, model, gradient(loss, model, x, y)[0])
        for p, q in zip(m.state_dict().values(), n.state_dict().values(), strict=True):
            close(p, q)
        close(fast(x), m(x))

    @pytest.mark.parametrize("thread", [False, True])
    @pytest.mark.parametrize("first", ["outside", "inside"])
    def test_automatic_mode(self, first, thread):
        fast, x = compiled(Chain(Dense(3 | to | 4), Dropout(0.5))), torch.randn(3, 500)
        found = {"outside": [], "inside": []}

        def run(m):
            y = m(x)
            found["inside" if Flux.within_gradient() else "outside"].append((y == 0).float().mean().item())
            return y.sum()

        def several():
            for where in (first, "outside", "inside", "outside"):
                run(fast) if where == "outside" else gradient(run, fast)

        if thread:
            worker = threading.Thread(target=several)
            worker.start()
            worker.join()
        else:
            several()
        assert set(found["outside"]) == {0.0} and all(0.4 < share < 0.6 for share in found["inside"])

    def test_modes(self):
        m, x = Chain(Dense(3 | to | 4), Dropout(0.5)), torch.randn(3, 100)
        fast = compiled(m)

        def zeros():
            return bool((fast(x) == 0).any())

        assert not zeros()
        fast.train()
        assert zeros()
        fast.eval()
        assert not zeros()
        trainmode_(fast)
        assert zeros()
        testmode_(fast, "auto")
        assert not zeros() and m[1].active is None

    def test_torch_modules_in_their_automatic_mode(self):
        m, x = Torch(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))), torch.randn(3, 9)
        n = copy.deepcopy(m)
        for model in m, compiled(n):
            model(x)
            gradient(lambda m: m(x).sum(), model)
            model(x)
        assert n.module[1].training and n.module[1].num_batches_tracked == 1
        close(n.module[1].running_mean, m.module[1].running_mean)

    def test_in_place(self):
        m, x = mlp(), torch.randn(3, 5)
        y = m(x)
        m.compile(backend="aot_eager", fullgraph=True)
        close(m(x), y)
        g = gradient(lambda m: m(x).sum(), m)[0]
        close(g.layers[1].bias, torch.full((2,), 5.0))
        for other in f64(m), copy.deepcopy(m).double():
            assert other(x.double()).dtype == torch.float64
        r = LSTM(3 | to | 4)
        r.compile(backend="eager")
        close(pickle.loads(pickle.dumps(r))(x), r(x))

    def test_rebuilt(self):
        m, x = mlp(), torch.randn(3, 5)
        fast = compiled(m)
        close(fast(x), m(x))
        double = f64(fast)
        close(double(x.double()), m(x).double())
        assert type(double) is type(fast) and double._orig_mod[0].weight.dtype == torch.float64

    def test_many_models_do_not_share_a_limit(self):
        for make in (
            *(lambda: Dense(3 | to | 3), lambda: Scale(3), lambda: LayerNorm(3), lambda: BatchNorm(3)),
            *(lambda: Maxout(tanh), lambda: Dropout(0.5), lambda: Chain(tanh), lambda: Torch(nn.Identity())),
            *(lambda: SkipConnection(tanh, operator.add), lambda: Parallel(vcat, tanh), lambda: AlphaDropout(0.5)),
        ):
            m, x = make(), torch.randn(3, 5)
            close(torch.compile(m, backend="eager", fullgraph=True)(x), m(x))

    def test_recurrent_layers_with_breaks(self):
        m, x = Chain(LSTM(3 | to | 4), Dense(4 | to | 2)), torch.randn(3, 5)
        n = copy.deepcopy(m)
        fast = torch.compile(n, backend="eager")

        def loss(m):
            return m(x).sum() + m(x).pow(2).sum()

        a, b = gradient(loss, m)[0], gradient(loss, fast)[0]._orig_mod
        close(a.layers[0].cell.Wi, b.layers[0].cell.Wi)
        reset_(m), reset_(fast)
        close((m(x), m(x)), (fast(x), fast(x)))

    @pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
    def test_inductor(self):
        m, x = Chain(Dense(3 | to | 4, relu), BatchNorm(4), Dense(4 | to | 2)), torch.randn(3, 9)
        n = copy.deepcopy(m)
        fast = torch.compile(n)
        close(fast(x), m(x))

        def loss(m):
            return m(x).pow(2).mean()

        close(gradient(loss, fast)[0]._orig_mod.layers[0].weight, gradient(loss, m)[0].layers[0].weight)
        close(n[1].μ, m[1].μ)


class TestExport:
    def test_export(self):
        m, x = testmode_(net()), images()
        program = torch.export.export(m, (x,), dynamic_shapes=({3: torch.export.Dim("n", min=2, max=64)},))
        assert sorted(program.state_dict) == sorted(NAMES)
        file = io.BytesIO()
        torch.export.save(program, file)
        file.seek(0)
        for found in program, torch.export.load(file):
            for n in 2, 9:
                x = images(n)
                close(found.module()(x), m(x))

    @pytest.mark.parametrize("name", ["attention", "convtranspose", "upsample", "parallel", "torch", "weightnorm"])
    def test_layers(self, name):
        make, size = LAYERS[name]
        m, x = testmode_(make()), torch.randn(size)
        last, many = {x.ndim - 1: torch.export.Dim.DYNAMIC}, name in ("parallel", "torch", "weightnorm")
        program = torch.export.export(m, (x,), dynamic_shapes=((last,) if many else last,))
        x = torch.cat([x, x], -1)
        close(program.module()(x), m(x))

    @pytest.mark.filterwarnings("ignore")
    def test_trace(self):
        m = testmode_(net())
        traced = torch.jit.trace(m, images())
        x = images(9)
        close(traced(x), m(x))
        file = io.BytesIO()
        torch.jit.save(torch.jit.freeze(traced.eval()), file)
        file.seek(0)
        close(torch.jit.load(file)(x), m(x))

    def test_layers_as_leaves_of_fx(self):
        class Leaves(torch.fx.Tracer):
            def is_leaf_module(self, m, name):
                return isinstance(m, Layer)

        s, x = nn.Sequential(Dense(3 | to | 4, tanh), nn.ReLU(), Dense(4 | to | 2)), torch.randn(3, 5)
        found = torch.fx.GraphModule(s, Leaves().trace(s))
        assert [node.op for node in found.graph.nodes].count("call_module") == 2
        close(found(x), s(x))

    def test_make_fx(self):
        m, x = testmode_(net()), images()
        p = {k: v.detach() for k, v in m.state_dict().items()}

        def call(p, x):
            return functional_call(m, p, (x,))

        close(torch.fx.experimental.proxy_tensor.make_fx(call)(p, x)(p, x), m(x))

    @pytest.mark.filterwarnings("ignore")
    def test_onnx(self, capsys):
        pytest.importorskip("onnxscript")
        reference = pytest.importorskip("onnx.reference")
        m, x = testmode_(Chain(Dense(3 | to | 4, relu), BatchNorm(4), Dense(4 | to | 2))), torch.randn(3, 5)
        model = torch.onnx.export(m, (x,), dynamo=True).model_proto
        (y,) = reference.ReferenceEvaluator(model).run(None, {model.graph.input[0].name: x.numpy()})
        close(torch.from_numpy(y), m(x).detach())


def size(x):
    return "×".join(map(str, x.shape))


class TestOtherOrder:
    """A batch in torch's order of axes."""

    @pytest.mark.parametrize(
        ("m", "shape", "order", "how"),
        [
            (lambda: Dense(10 | to | 5), (3, 10), "(features, N)", "transpose it, x.T"),
            (lambda: Dense(10 | to | 5), (3, 4, 10), "(features, …, N)", "reverse the axes, x.permute(2, 1, 0)"),
            (lambda: LayerNorm(10), (3, 10), "(features, N)", "transpose it, x.T"),
            (lambda: LayerNorm(3, 4), (9, 4, 3), "(features, …, N)", "reverse the axes, x.permute(2, 1, 0)"),
            (lambda: Bilinear(10 | to | 5), (3, 10), "(features, N)", "transpose it, x.T"),
            (
                lambda: Conv((3, 3), 3 | to | 7),
                (64, 3, 32, 32),
                "(W, H, C, N)",
                "reverse the axes, x.permute(3, 2, 1, 0)",
            ),
            (
                lambda: ConvTranspose((3, 3, 3), 3 | to | 7),
                (8, 3, 4, 5, 6),
                "(W, H, D, C, N)",
                "reverse the axes, x.permute(4, 3, 2, 1, 0)",
            ),
            (lambda: BatchNorm(3), (64, 3), "(features, N)", "transpose it, x.T"),
            (lambda: BatchNorm(3), (64, 3, 32, 32), "(W, H, C, N)", "reverse the axes, x.permute(3, 2, 1, 0)"),
            (lambda: GroupNorm(4, 2), (64, 4, 8, 8), "(W, H, C, N)", "reverse the axes, x.permute(3, 2, 1, 0)"),
            (lambda: RNN(3 | to | 4), (5, 3), "(features, N)", "transpose it, x.T"),
            (lambda: GRUv3(3 | to | 4), (5, 3), "(features, N)", "transpose it, x.T"),
            (
                lambda: LSTM(3 | to | 4),
                (7, 5, 3),
                "(features, batch, time), not (time, batch, features)",
                "reverse the axes, x.permute(2, 1, 0)",
            ),
            (
                lambda: Flux016.LSTM(3 | to | 4),
                (5, 7, 3),
                "(features, time, batch), not (batch, time, features)",
                "reverse the axes, x.permute(2, 1, 0)",
            ),
            (
                lambda: MultiHeadAttention(8, nheads=2),
                (2, 5, 8),
                "(features, …, N)",
                "reverse the axes, x.permute(2, 1, 0)",
            ),
        ],
    )
    def test_says_how_to_turn_it(self, m, shape, order, how):
        m, x = m(), torch.randn(shape)
        with pytest.raises(DimensionMismatch) as caught:
            m(x)
        assert str(caught.value).endswith(f"but got {size(x)} tensor of float32: Flux's order is {order}, so {how}")
        m(x.permute(*reversed(range(x.ndim))))

    @pytest.mark.parametrize(
        ("m", "shape"),
        [
            (lambda: Dense(10 | to | 5), (3, 7)),
            (lambda: Dense(10 | to | 5), (3,)),
            (lambda: Dense(10 | to | 5), (3, 10, 4)),
            (lambda: Conv((3, 3), 3 | to | 7), (64, 5, 32, 32)),
            (lambda: Conv((3, 3), 3 | to | 7), (64, 3, 32, 2)),
            (lambda: Conv((3, 3), 3 | to | 7), (3, 32, 32)),
            (lambda: BatchNorm(3), (64, 3, 5)),
            (lambda: BatchNorm(3), (4, 5)),
            (lambda: LayerNorm(3, 4), (9, 5, 3)),
            (lambda: RNN(3 | to | 4), (5, 4)),
            (lambda: GRU(3 | to | 4), (7, 5, 2)),
            (lambda: MultiHeadAttention(8, nheads=2), (5, 2)),
        ],
    )
    def test_says_nothing_where_that_would_not_fit(self, m, shape):
        x = torch.randn(shape)
        m = m()
        try:
            m(x)
        except DimensionMismatch as e:
            assert "order" not in str(e)
        else:
            assert x.shape == (64, 3, 5)  # has the channels where Flux has them

    def test_padding_counts(self):
        with pytest.raises(DimensionMismatch, match="reverse the axes"):
            Conv((3, 3), 3 | to | 7, pad=1)(torch.randn(64, 3, 2, 2))
