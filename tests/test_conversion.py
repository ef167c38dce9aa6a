from __future__ import annotations

import io
import operator
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fluxtorch as Flux
import fluxtorch.v016 as Flux016
from fluxtorch import (
    AlphaDropout,
    BatchNorm,
    Bilinear,
    Chain,
    Conv,
    ConvTranspose,
    CrossCor,
    Dense,
    Dropout,
    Embedding,
    EmbeddingBag,
    GlobalMaxPool,
    GlobalMeanPool,
    GroupNorm,
    InstanceNorm,
    Layer,
    LayerNorm,
    Maxout,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Parallel,
    PixelShuffle,
    Recur,
    SamePad,
    Scale,
    SkipConnection,
    Torch,
    Upsample,
    from_torch,
    gradient,
    identity,
    maximum,
    params,
    setup,
    testmode_,
    to,
    to_torch,
    train_,
    trainmode_,
    update_,
    vcat,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def reverse(x: Any) -> Any:
    if isinstance(x, torch.Tensor):
        return x.permute(*reversed(range(x.ndim)))
    return tuple(map(reverse, x)) if isinstance(x, tuple) else x


def stirred(m: nn.Module) -> nn.Module:
    """Zero biases and unit scales would hide where they go."""
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(0.5 * torch.randn_like(p))
        for name, b in m.named_buffers():
            if b.is_floating_point():
                b.copy_(torch.rand_like(b) + 0.5 * ("var" in name or "σ" in name))
    return m


def first(x: Any) -> torch.Tensor:
    return x[0] if isinstance(x, tuple) else x


def storages(m: nn.Module) -> set[int]:
    return {x.untyped_storage().data_ptr() for x in (*m.parameters(), *m.buffers())}


# -- Torch -----------------------------------------------------------------------------------------


def test_torch_reverses_what_goes_in_and_out() -> None:
    conv = nn.Conv2d(3, 4, 3)
    x = torch.rand(8, 7, 3, 2)
    torch.testing.assert_close(Torch(conv)(x), reverse(conv(reverse(x))))
    assert Torch(nn.Identity())(x).data_ptr() == x.data_ptr()
    lstm = nn.LSTM(3, 5, batch_first=True)
    y, (h, c) = Torch(lstm)(torch.ones(3, 7, 2))
    assert y.shape == (5, 7, 2) and h.shape == c.shape == (5, 2, 1)


def test_torch_passes_nested_and_named_arguments() -> None:
    class Odd(nn.Module):
        def forward(self, xs: Any, *, mask: torch.Tensor, how: str) -> Any:
            return {"sum": xs[0] + xs[1]["y"], "mask": mask, "how": how, "none": None}

    x, y, mask = torch.rand(2, 3), torch.rand(2, 3), torch.rand(4, 5, 6)
    out = Torch(Odd())((x, {"y": y}), mask=mask, how="well")
    torch.testing.assert_close(out["sum"], x + y)
    assert torch.equal(out["mask"], mask) and out["how"] == "well" and out["none"] is None
    assert torch.equal(Torch(nn.Identity())([1.0, 2.0]), torch.tensor([1.0, 2.0]))


def test_torch_within_a_chain_trains() -> None:
    m = Chain(Torch(nn.Linear(2, 8)), Flux.tanh, Dense(8 | to | 1))
    assert len(params(m)) == 4
    x, y = torch.rand(2, 64), torch.rand(1, 64)
    grads = gradient(lambda m: Flux.mse(m(x), y), m)[0]
    w = m[0].module.weight
    want = torch.autograd.grad(((m(x) - y) ** 2).mean(), w)[0]
    torch.testing.assert_close(grads.layers[0].module.weight, want)
    before = Flux.mse(m(x), y)
    opt = setup(Flux.Adam(0.01), m)
    update_(opt, m, grads)
    for _ in range(50):
        train_(lambda m, x, y: Flux.mse(m(x), y), m, [(x, y)], opt)
    assert Flux.mse(m(x), y) < before / 2
    gs = gradient(lambda: Flux.mse(m(x), y), params(m))
    assert gs[w].shape == w.shape


def test_torch_is_in_test_mode_outside_gradient() -> None:
    m = Torch(nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3)))
    x = torch.rand(3, 8)
    torch.testing.assert_close(m(x), x / (1 + 1e-5) ** 0.5)
    assert m.module.training and m.module[0].training  # as it was before
    seen = []
    m.module[0].register_forward_hook(lambda *_: seen.append(m.module[0].training))
    gradient(lambda x: m(x).sum(), x)
    m(x)
    m.module[0].eval()
    gradient(lambda x: m(x).sum(), x)  # what is in test mode by itself stays so
    assert seen == [True, False, False]
    assert bool((m.module[1].running_mean != 0).all())


def test_torch_settled_modes() -> None:
    m = Chain(Torch(nn.Dropout(0.5)))
    x = torch.ones(1000)
    trainmode_(m)
    assert bool((m(x) == 0).any())
    testmode_(m)
    assert bool((gradient(lambda x: m(x).sum(), x)[0] == 1).all())
    testmode_(m, "auto")
    assert bool((m(x) == 1).all())
    m.train()
    assert bool((m(x) == 0).any())
    m.eval()
    assert bool((m(x) == 1).all())


def test_torch_shows_its_module() -> None:
    assert str(Torch(nn.Linear(3, 4))) == "Torch(Linear(in_features=3, out_features=4, bias=True))"
    assert repr(Torch(nn.Sequential(nn.Linear(3, 4)))) == "Torch(Sequential(…))  # 16 parameters"
    assert len(Torch(nn.Linear(3, 4)).state_dict()) == 2


@pytest.mark.parametrize("wrong", [3, nn.Linear, "x", torch.relu])
def test_torch_takes_modules_only(wrong: Any) -> None:
    with pytest.raises(TypeError, match="Torch expects a torch module"):
        Torch(wrong)


def test_torch_with_a_packed_sequence() -> None:
    rnn = nn.RNN(3, 4)
    packed = nn.utils.rnn.pack_sequence([torch.rand(3, 3), torch.rand(2, 3)])
    assert torch.equal(Torch(rnn)(packed)[0].data, rnn(packed)[0].data)


# -- single modules, there and back ----------------------------------------------------------------

images = (2, 3, 9, 8)
MODULES: list[tuple[nn.Module, tuple[int, ...], str]] = [
    (nn.Linear(3, 4), (5, 3), "Dense(3 => 4)"),
    (nn.Linear(3, 4, bias=False), (2, 5, 3), "Dense(3 => 4; bias=false)"),
    (nn.Conv1d(3, 4, 3, stride=2), (2, 3, 9), "Conv((3,), 3 => 4, stride=2)"),
    (nn.Conv2d(3, 4, (3, 2)), images, "Conv((2, 3), 3 => 4)"),
    (nn.Conv2d(3, 6, 3, groups=3, bias=False), images, "Conv((3, 3), 3 => 6, groups=3, bias=false)"),
    (
        nn.Conv2d(3, 4, 3, stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        images,
        "Conv((3, 3), 3 => 4, pad=(0, 1), stride=(1, 2), dilation=(2, 1))",
    ),
    (nn.Conv2d(3, 4, 4, padding="same"), images, "Conv((4, 4), 3 => 4, pad=(1, 2, 1, 2))"),
    (nn.Conv2d(3, 4, 4, padding="valid"), images, "Conv((4, 4), 3 => 4)"),
    (nn.Conv3d(3, 4, (1, 2, 3)), (2, 3, 4, 5, 6), "Conv((3, 2, 1), 3 => 4)"),
    (
        nn.ConvTranspose1d(3, 4, 3, stride=2, output_padding=1),
        (2, 3, 9),
        "ConvTranspose((3,), 3 => 4, stride=2, outpad=(1,))",
    ),
    (
        nn.ConvTranspose2d(3, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=3),
        images,
        "ConvTranspose((2, 3), 3 => 6, pad=(0, 1), stride=(1, 2), groups=3)",
    ),
    (nn.MaxPool1d(3), (2, 3, 9), "MaxPool((3,))"),
    (nn.MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0)), images, "MaxPool((2, 3), pad=(0, 1), stride=(2, 1))"),
    (nn.AvgPool2d(3, padding=1), images, "MeanPool((3, 3), pad=1)"),
    (nn.AvgPool3d(2), (2, 3, 4, 5, 6), "MeanPool((2, 2, 2))"),
    (nn.AdaptiveAvgPool2d(1), images, "GlobalMeanPool()"),
    (nn.AdaptiveMaxPool2d((1, 1)), images, "GlobalMaxPool()"),
    (nn.BatchNorm1d(3), (5, 3), "BatchNorm(3)"),
    (nn.BatchNorm2d(3, eps=0.1, momentum=0.3, affine=False), images, "BatchNorm(3, affine=false)"),
    (nn.BatchNorm2d(3, track_running_stats=False), images, "BatchNorm(3)"),
    (nn.InstanceNorm2d(3), images, "InstanceNorm(3, affine=false)"),
    (nn.InstanceNorm1d(3, affine=True, track_running_stats=True), (2, 3, 9), "InstanceNorm(3)"),
    (nn.GroupNorm(2, 4), (2, 4, 5, 6), "GroupNorm(4, 2)"),
    (nn.LayerNorm(3), (5, 3), "LayerNorm(3)"),
    (nn.LayerNorm((3, 4), eps=0.1), (5, 3, 4), "LayerNorm(4, 3)"),
    (nn.LayerNorm(3, elementwise_affine=False), (5, 3), "LayerNorm(3, affine=false)"),
    (nn.Bilinear(3, 4, 5), (7, 3), "Bilinear((3, 4) => 5)"),
    (nn.Dropout(0.3), (5, 3), "Dropout(0.3)"),
    (nn.Dropout2d(0.3), images, "Dropout(0.3, dims=(2, 3))"),
    (nn.AlphaDropout(0.3), (5, 3), "AlphaDropout(0.3)"),
    (nn.Upsample(scale_factor=2), images, "Upsample(:nearest, scale = 2)"),
    (nn.Upsample(scale_factor=(2, 3)), images, "Upsample(:nearest, scale = (3, 2))"),
    (
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        images,
        "Upsample(:bilinear, scale = (2.0, 2.0))",
    ),
    (nn.Upsample((5, 7), mode="bilinear", align_corners=True), images, "Upsample(:bilinear, size = (7, 5))"),
    (nn.PixelShuffle(2), (2, 12, 3, 4), "PixelShuffle(2)"),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("module", "size", "text"), MODULES, ids=lambda v: v if isinstance(v, str) else "")
def test_module_there_and_back(module: nn.Module, size: tuple[int, ...], text: str) -> None:
    module = stirred(module).eval()
    layer = from_torch(module)
    assert str(layer) == text
    xs = [torch.randn(size)]
    if isinstance(module, nn.Bilinear):
        xs.append(torch.randn(size[0], 4))
    want = module(*xs)
    torch.testing.assert_close(layer(*map(reverse, xs)), reverse(want))
    if text.startswith(("BatchNorm", "InstanceNorm", "Global")) and len(size) > 3:
        back = to_torch(Chain(Conv(nn.init.dirac_(torch.empty(3, 3, 1, 1)).permute(3, 2, 1, 0), False), layer)).eval()
        torch.testing.assert_close(back(*xs), want)
        back = back[1]
    else:
        back = to_torch(layer).eval()
        torch.testing.assert_close(back(*xs), want)
    state = back.state_dict()
    for k, v in module.state_dict().items():
        if type(back) is type(module) and k != "num_batches_tracked":
            torch.testing.assert_close(state[k], v, rtol=0, atol=0)


@pytest.mark.parametrize(("module", "size", "text"), MODULES, ids=lambda v: v if isinstance(v, str) else "")
def test_memory_is_shared_and_the_module_untouched(module: nn.Module, size: tuple[int, ...], text: str) -> None:
    classes = {name: type(p) for name, p in module.named_parameters()}
    layer = from_torch(module)
    assert {name: type(p) for name, p in module.named_parameters()} == classes
    if "Conv" not in text:  # whose kernels are flipped
        assert storages(layer) <= storages(module)
        assert storages(layer) <= storages(to_torch(layer))
        assert len(storages(layer)) == sum(b.ndim > 0 for b in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize(
    "m",
    [
        nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.GELU("tanh"), nn.ReLU6(), nn.ELU(), nn.SELU(), nn.CELU(), nn.LeakyReLU(),
        nn.SiLU(), nn.Mish(), nn.Softplus(), nn.Softsign(), nn.LogSigmoid(), nn.Hardtanh(), nn.Hardsigmoid(),
        nn.Hardswish(), nn.Tanhshrink(), nn.Softshrink(),
    ],
    ids=repr,
)  # fmt: skip
def test_activations(m: nn.Module) -> None:
    x = torch.linspace(-25, 25, 101).reshape(1, 101)
    f = from_torch(m)
    assert not isinstance(f, nn.Module)
    torch.testing.assert_close(f(x), m(x))
    assert repr(to_torch(Chain(f))) == repr(m)
    folded = from_torch(nn.Sequential(nn.Linear(1, 1), m))
    assert len(folded) == 1 and folded[0].σ is f
    assert [type(k) for k in to_torch(folded)] == [nn.Linear, type(m)]


@pytest.mark.parametrize(
    ("m", "size"),
    [
        (nn.GELU(), (4, 3)),
        (nn.LeakyReLU(0.2), (4, 3)),
        (nn.ELU(0.5), (4, 3)),
        (nn.PReLU(), (4, 3)),
        (nn.Softmax(1), (4, 3)),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), images),
        (nn.MaxPool2d(3, ceil_mode=True), images),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), images),
        (nn.AdaptiveAvgPool2d(3), images),
        (nn.BatchNorm1d(3, momentum=None), (4, 3)),
        (nn.LayerNorm(3, bias=False), (4, 3)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), images),
        (nn.Upsample(scale_factor=1.5), images),
        (nn.Flatten(2), images),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    ],
    ids=lambda v: type(v).__name__,
)
def test_the_rest_is_wrapped(m: nn.Module, size: tuple[int, ...]) -> None:
    x = torch.randn(size)
    f = from_torch(m)
    assert isinstance(f, Torch) and f.module is m
    m.eval()
    torch.testing.assert_close(f(reverse(x)), reverse(m(x)))
    assert to_torch(f) is m
    assert isinstance(from_torch(nn.Sequential(nn.Identity(), m))[1], Torch)


def test_softmax_over_the_features() -> None:
    x = torch.randn(4, 3)
    for m in nn.Softmax(-1), nn.LogSoftmax(-1):
        f = from_torch(m)
        assert not isinstance(f, Torch)
        torch.testing.assert_close(f(x.t()).t(), m(x))
        assert repr(to_torch(Chain(f))) == repr(m)


def test_embeddings() -> None:
    ids = torch.tensor([[1, 2, 3], [4, 0, 2]])
    m = nn.Embedding(5, 4)
    e = from_torch(m)
    assert isinstance(e, Embedding)
    torch.testing.assert_close(e(ids.t()), reverse(m(ids)))
    torch.testing.assert_close(to_torch(e)(ids), m(ids))
    for mode in "mean", "sum", "max":
        bag = nn.EmbeddingBag(5, 4, mode=mode)
        b = from_torch(bag)
        assert isinstance(b, EmbeddingBag)
        torch.testing.assert_close(b(ids.t()), bag(ids).t())
        torch.testing.assert_close(to_torch(b)(ids), bag(ids))
    assert isinstance(from_torch(nn.Embedding(5, 4, padding_idx=0)), Torch)
    with pytest.raises(TypeError, match="no reduction by"):
        to_torch(EmbeddingBag(5 | to | 4, Flux.minimum))


# -- recurrent modules and attention ---------------------------------------------------------------


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "dropout": 0.3}, {"bias": False}])
def test_recurrent_modules(kind: Any, batch_first: bool, options: Any) -> None:
    module = stirred(kind(3, 4, batch_first=batch_first, **options)).eval()
    if kind is nn.GRU and options.get("bias", True):
        assert isinstance(from_torch(module), Torch)  # torch's second bias has no place in Flux's
        with torch.no_grad():
            for k in range(module.num_layers):
                getattr(module, f"bias_hh_l{k}")[8:] = 0
    layer = from_torch(module)
    assert not isinstance(layer, Torch)
    x = torch.randn(5, 6, 3)
    torch.testing.assert_close(layer(reverse(x)), reverse(module(x)[0]))
    back = to_torch(layer).eval()
    torch.testing.assert_close(back(x), module(x)[0])
    torch.testing.assert_close(back(x), module(x)[0])  # from the first state again


def test_relu_and_odd_recurrent_modules() -> None:
    m = nn.RNN(3, 4, nonlinearity="relu")
    assert str(from_torch(m)) == "Recur(RNNCell(3 => 4, relu))"
    x = torch.randn(5, 6, 3)
    torch.testing.assert_close(to_torch(from_torch(m))(x), m(x)[0])
    for odd in nn.LSTM(3, 4, bidirectional=True), nn.LSTM(3, 4, proj_size=2):
        assert isinstance(from_torch(odd), Torch)
    with pytest.raises(TypeError, match="no recurrent module with σ"):
        to_torch(Flux.RNN(3 | to | 4, Flux.σ))
    with pytest.raises(TypeError, match="no such recurrent module"):
        to_torch(Flux.GRUv3(3 | to | 4))
    with pytest.raises(TypeError, match="no such recurrent module"):
        to_torch(Recur(lambda h, x: (h, x), 0))


def test_recurrent_modules_of_a_sequential_keep_their_tuple() -> None:
    class Outputs(nn.Module):
        def forward(self, x: Any) -> torch.Tensor:
            return x[0]

    m = nn.Sequential(nn.Embedding(7, 3), nn.LSTM(3, 4, batch_first=True), Outputs(), nn.Linear(4, 7))
    f = from_torch(m)
    ids = torch.randint(7, (2, 5))
    torch.testing.assert_close(f(ids.t()), reverse(m(ids)))
    torch.testing.assert_close(to_torch(f)(ids), m(ids))


@pytest.mark.parametrize("Kind", [Flux.RNN, Flux.LSTM, Flux.GRU])
def test_a_learned_first_state_goes_along(Kind: Any) -> None:
    layer = stirred(Kind(3 | to | 4))
    x = torch.randn(3, 6, 5)  # features, batch, time
    want = layer(x)
    torch.testing.assert_close(to_torch(layer)(reverse(x)), reverse(want))
    with pytest.raises(AssertionError, match="expected a sequence"):
        to_torch(layer)(torch.randn(6, 3))


def test_newer_recurrent_layers_give_their_state_if_they_did() -> None:
    for pair in False, True:
        layer = Flux016.LSTM(3 | to | 4, return_state=pair)
        x = torch.randn(3, 5, 6)
        got = to_torch(layer)(reverse(x))
        torch.testing.assert_close(first(got), reverse(first(layer(x))))
        assert isinstance(got, tuple) == pair
    y = to_torch(Flux016.Recurrence(Flux016.GRUCell(3 | to | 4)))(reverse(x))
    assert y.shape == (6, 5, 4)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"kdim": 5, "vdim": 7}])
def test_attention(bias: bool, sizes: Any) -> None:
    module = stirred(nn.MultiheadAttention(8, 2, bias=bias, batch_first=True, **sizes)).eval()
    layer = from_torch(module)
    assert isinstance(layer, MultiHeadAttention)
    q, k, v = torch.randn(3, 4, 8), torch.randn(3, 6, sizes.get("kdim", 8)), torch.randn(3, 6, sizes.get("vdim", 8))
    want, scores = module(q, k, v)
    y, α = layer(*map(reverse, (q, k, v)))
    torch.testing.assert_close(y, reverse(want))
    torch.testing.assert_close(α.mean(2), reverse(scores))
    back = to_torch(layer).eval()
    torch.testing.assert_close(back(q, k, v)[0], want)
    assert isinstance(from_torch(nn.MultiheadAttention(8, 2)), Torch)
    with pytest.raises(TypeError, match="as many features"):
        to_torch(MultiHeadAttention(8 | to | 4 | to | 8, nheads=2))


# -- whole models ----------------------------------------------------------------------------------


class Block(nn.Module):
    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.down = (
            nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout)) if stride > 1 else None
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.down is None else self.down(x)))


def resnet18(width: int = 8) -> nn.Sequential:
    def stage(cin: int, cout: int, stride: int) -> nn.Sequential:
        return nn.Sequential(Block(cin, cout, stride), Block(cout, cout, 1))

    w = width
    return nn.Sequential(
        nn.Conv2d(3, w, 7, 2, 3, bias=False),
        nn.BatchNorm2d(w),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        stage(w, w, 1),
        stage(w, 2 * w, 2),
        stage(2 * w, 4 * w, 2),
        stage(4 * w, 8 * w, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8 * w, 10),
    )


class LanguageModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 8, 2, batch_first=True)
        self.head = nn.Linear(8, 11)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(ids))[0])


def lenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def mlp() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 3), nn.Softmax(-1)
    )


WHOLE = [
    (mlp, (5, 4), None),
    (lenet, (2, 1, 28, 28), None),
    (resnet18, (2, 3, 33, 40), None),
    (LanguageModel, (2, 7), 11),
    (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8), None),
]


@pytest.mark.parametrize(("make", "size", "high"), WHOLE, ids=["mlp", "lenet", "resnet18", "lm", "transformer"])
def test_models_there_and_back(make: Any, size: tuple[int, ...], high: int | None) -> None:
    module = stirred(make())
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(0.3)
    module.eval()
    x = torch.randn(size) if high is None else torch.randint(high, size)
    want = module(x)
    model = from_torch(module)
    torch.testing.assert_close(model(reverse(x)), reverse(want))
    back = to_torch(model).eval()
    torch.testing.assert_close(back(x), want)
    assert not any(type(m).__module__.startswith("fluxtorch") for m in back.modules())
    assert all(type(p) is nn.Parameter for p in back.parameters())
    again = from_torch(back)
    torch.testing.assert_close(again(reverse(x)), reverse(want))


def test_lenet_in_print() -> None:
    assert repr(from_torch(lenet())) == textwrap.dedent("""\
        Chain(
          Conv((5, 5), 1 => 6, relu),           # 156 parameters
          MaxPool((2, 2)),
          Conv((5, 5), 6 => 16, relu),          # 2_416 parameters
          MaxPool((2, 2)),
          flatten,
          Dense(256 => 120, relu),              # 30_840 parameters
          Dense(120 => 84, relu),               # 10_164 parameters
          Dense(84 => 10),                      # 850 parameters
        )                   # Total: 10 arrays, 44_426 parameters, 173.539 KiB.""")


def test_gradients_agree() -> None:
    module = lenet()
    model = from_torch(module)
    x = torch.randn(2, 1, 28, 28)
    g = gradient(lambda m: (m(reverse(x)) ** 2).sum(), model)[0]
    want = torch.autograd.grad((module(x) ** 2).sum(), list(module.parameters()))
    torch.testing.assert_close(reverse(g.layers[0].weight).flip((2, 3)), want[0])
    torch.testing.assert_close(g.layers[7].weight, want[-2])


def test_training_the_layers_trains_the_module() -> None:
    module = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    model = from_torch(module)
    x, y = torch.rand(2, 64), torch.rand(1, 64)
    opt = setup(Flux.Descent(0.1), model)
    train_(lambda m, x, y: Flux.mse(m(x), y), model, [(x, y)] * 20, opt)
    torch.testing.assert_close(module(x.t()).t(), model(x))


def test_a_flux_model_there_and_back() -> None:
    model = Chain(
        CrossCor((3, 3), 2 | to | 4, Flux.relu, pad=(1, 0, 1, 1)),
        BatchNorm(4, Flux.leakyrelu),
        SkipConnection(Conv((3, 3), 4 | to | 4, Flux.tanh, pad=SamePad()), operator.add),
        MaxPool((3, 3), pad=(1, 0, 1, 0)),
        MeanPool((2, 2), pad=SamePad()),
        Parallel(vcat, Chain(GlobalMeanPool(), Flux.flatten), Chain(GlobalMaxPool(), Flux.flatten, Dense(4 | to | 3))),
        Maxout(lambda: Dense(7 | to | 5, Flux.σ), 3),
        Parallel(operator.mul, a=Dense(5 | to | 5), b=identity, c=Dense(5 | to | 5)),
        Dropout(0.3),
        Flux.softmax,
    )
    testmode_(stirred(model))
    x = torch.randn(11, 12, 2, 3)
    back = to_torch(model).eval()
    torch.testing.assert_close(back(reverse(x)), reverse(model(x)))


def test_names_are_kept() -> None:
    named = Chain(enc=Dense(3 | to | 4, Flux.relu), act=Flux.tanh, dec=Dense(4 | to | 2))
    m = to_torch(named)
    assert list(m._modules) == ["enc", "act", "dec"]
    x = torch.randn(5, 3)
    torch.testing.assert_close(m(x).t(), named(x.t()))
    again = from_torch(m)
    assert str(again) == "Chain(enc = Chain(Dense(3 => 4, relu)), act = tanh, dec = Dense(4 => 2))"


def test_layernorm_of_older_flux_warns() -> None:
    m = stirred(Chain(LayerNorm(3, Flux.relu)))
    x = torch.randn(3, 5)
    with pytest.warns(UserWarning, match=r"divides by σ \+ ε"):
        back = to_torch(m)
    torch.testing.assert_close(back(x.t()).t(), m(x), rtol=1e-4, atol=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        to_torch(Flux016.LayerNorm(3))


def test_what_is_shared_stays_shared() -> None:
    shared = nn.Linear(3, 3)
    model = from_torch(nn.Sequential(shared, nn.ReLU(), shared, nn.Tanh()))
    assert str(model) == "Chain(Dense(3 => 3), relu, Dense(3 => 3), tanh)" and model[0] is model[2]
    a, b = nn.Linear(3, 3), nn.Linear(3, 3)
    b.weight = a.weight
    model = from_torch(nn.Sequential(a, b))
    assert model[0].weight is model[1].weight
    back = to_torch(model)
    assert back[0].weight is back[1].weight


def test_frozen_parameters_stay_frozen() -> None:
    m = nn.Linear(3, 4)
    m.weight.requires_grad_(False)
    d = from_torch(m)
    assert not d.weight.requires_grad and d.bias.requires_grad
    assert not to_torch(d).weight.requires_grad


def test_lists_and_dicts_of_modules() -> None:
    assert [str(f) for f in from_torch(nn.ModuleList([nn.Linear(2, 3), nn.ReLU()]))] == [
        "Dense(2 => 3)",
        str(Flux.relu),
    ]
    assert str(from_torch(nn.ModuleDict({"a": nn.Linear(2, 3)}))["a"]) == "Dense(2 => 3)"


def test_a_hook_keeps_a_module_as_it_is() -> None:
    m = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    seen = []
    m[1].register_forward_hook(lambda *_: seen.append(1))
    f = from_torch(m)
    assert isinstance(f[0], Dense) and isinstance(f[1], Torch)
    f(torch.ones(2))
    assert seen == [1]
    assert isinstance(from_torch(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3))), Torch)


def test_flux_layers_pass_unchanged() -> None:
    d = Dense(2 | to | 3)
    assert from_torch(d) is d
    assert from_torch(nn.Sequential(d))[0] is d


def test_loads_where_fluxtorch_is_not_installed(tmp_path: Path) -> None:
    model = Chain(
        Conv((3, 3), 1 | to | 2, Flux.relu), BatchNorm(2), GlobalMeanPool(), Flux.flatten,
        SkipConnection(Dense(2 | to | 2, Flux.swish), operator.add), Dense(2 | to | 3),
    )  # fmt: skip
    x = torch.randn(5, 6, 1, 2)
    testmode_(model)
    torch.save({"module": to_torch(model).eval(), "x": reverse(x), "y": reverse(model(x)).detach()}, tmp_path / "m.pt")
    program = f"""
        import sys, torch
        class Refuse:
            def find_spec(self, name, *args):
                if name.split(".")[0] == "fluxtorch":
                    raise ImportError("fluxtorch is not installed")
        sys.meta_path.insert(0, Refuse())
        found = torch.load({str(tmp_path / "m.pt")!r}, weights_only=False)
        torch.testing.assert_close(found["module"](found["x"]), found["y"])
        assert "fluxtorch" not in sys.modules
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)], check=True)


def test_state_dict_of_a_converted_model_fits_the_original() -> None:
    module = lenet()
    back = to_torch(from_torch(module))
    file = io.BytesIO()
    torch.save(back.state_dict(), file)
    file.seek(0)
    fresh = lenet()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(1, 1, 28, 28)
    torch.testing.assert_close(fresh(x), module(x))


# -- mistakes --------------------------------------------------------------------------------------


def test_mistakes_from_torch() -> None:
    with pytest.raises(TypeError, match="from_torch expects a torch module"):
        from_torch(torch.relu)
    with pytest.raises(ValueError, match=r"LazyLinear '1.0' has no weight yet"):
        from_torch(nn.Sequential(nn.Identity(), nn.Sequential(nn.LazyLinear(3))))
    e, d = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
    d.weight = e.weight
    with pytest.raises(ValueError, match=r"a weight of '1' is that of '0' too"):
        from_torch(nn.Sequential(e, d))
    e.weight.requires_grad_(False)
    assert len(from_torch(nn.Sequential(e, d))) == 2


class Own(Layer):
    d: Any

    def __call__(self, x: Any) -> Any:
        return self.d(x) + 1


class Able(Own):
    def to_torch(self) -> nn.Module:
        return to_torch(self.d)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            Own(Dense(2 | to | 3)),
            r"model\[1\], Own\(Dense\(2 => 3\)\): it has a call of its own; give it a method to_torch",
        ),
        (lambda x: x, r"model\[1\], .*: torch.nn has no module for this function"),
        (Dense(2 | to | 3, lambda x: x), "the activation of model"),
        (Scale(3), r"model\[1\], Scale\(3\): torch.nn has no such module"),
        (nn.Linear(2, 3), "works in Flux's axis order; wrap it in Torch"),
        (ConvTranspose((3,), 1 | to | 1, pad=(1, 0)), "same padding on both sides"),
        (Dropout(0.3, dims=0), "dropout along no such axes"),
        (SkipConnection(identity, lambda a, b: a), "a connection must be"),
        (3, "torch.nn has no module for this function"),
    ],
)
def test_what_torch_has_nothing_for_is_named(part: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        to_torch(Chain(identity, part) if callable(part) else part)


def test_classes_of_ones_own_take_part_by_a_method() -> None:
    m = to_torch(Chain(Able(Dense(2 | to | 3)), Flux.relu))
    assert [type(k) for k in m] == [nn.Linear, nn.ReLU]


def test_ties_that_torch_cannot_have_are_refused() -> None:
    W = torch.rand(3, 5)
    with pytest.raises(TypeError, match="shares an array with"):
        to_torch(Chain(Embedding(W), Dense(W)))


def test_norms_and_pools_by_themselves_refuse_images() -> None:
    for layer in BatchNorm(3), InstanceNorm(3), GlobalMeanPool():
        with pytest.raises((ValueError, RuntimeError)):
            to_torch(layer)(torch.rand(2, 3, 5, 6))


def test_unused_kinds_there_and_back() -> None:
    assert isinstance(to_torch(AlphaDropout(0.2)), nn.AlphaDropout)
    assert isinstance(to_torch(Upsample(2)), nn.Upsample)
    assert isinstance(to_torch(PixelShuffle(2)), nn.PixelShuffle)
    assert isinstance(to_torch(Bilinear(2 | to | 3)), nn.Bilinear)
    assert isinstance(to_torch(GroupNorm(4, 2)), nn.GroupNorm)
    assert to_torch(EmbeddingBag(5 | to | 2, maximum)).mode == "max"
    assert isinstance(to_torch(identity), nn.Identity)


@pytest.mark.parametrize("pool", [Flux.AdaptiveMeanPool((1, 1)), Flux.AdaptiveMaxPool((1, 1))])
def test_an_adaptive_pool_to_one_cell(pool):
    m, x = Chain(Conv((3, 3), 2 | to | 4), pool, Flux.flatten), torch.randn(9, 7, 2, 5)
    torch.testing.assert_close(to_torch(m)(x.permute(3, 2, 1, 0)).T, m(x))
    with pytest.raises(TypeError, match="the same only for one in all"):
        to_torch(Chain(type(pool)((2, 1))))
