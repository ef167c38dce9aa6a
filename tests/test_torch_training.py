"""Training with what surrounds torch: processes, its DataLoader, metrics, Lightning, skorch, autocast, files."""

from __future__ import annotations

import copy
import datetime
import functools
import itertools
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, TensorDataset

import fluxtorch as Flux
from fluxtorch import (
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Dropout,
    f64,
    flatten,
    gradient,
    jacobian,
    loadmodel_,
    params,
    pullback,
    relu,
    setup,
    softmax,
    state,
    testmode_,
    to_torch,
    train_,
    trainables,
    trainmode_,
    trainstep_,
    update_,
    withgradient,
)
from fluxtorch.arrays import reversed_axes
from fluxtorch.functors import fleaves
from fluxtorch.losses import crossentropy, logitcrossentropy, mse
from fluxtorch.optimisers import (
    AccumGrad,
    Adam,
    AdamW,
    ClipGrad,
    ClipNorm,
    Descent,
    Momentum,
    Nesterov,
    OptimiserChain,
    WeightDecay,
)

to = Flux.to
testmode_.__test__ = False  # type: ignore[attr-defined]  # for pytest a name, not a test


def net(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return f64(Chain(Dense(3 | to | 4, torch.tanh), Dense(4 | to | 2)))


def data(n: int = 8, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    gen = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(k, n, generator=gen, dtype=torch.float64) for k in (3, 2))  # type: ignore[return-value]


def loss(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return mse(m(x), y)


def numbers(model: Any) -> list[torch.Tensor]:
    return [getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for p in trainables(model)]


def assert_same(xs: Any, ys: Any, **tolerance: float) -> None:
    for x, y in zip(xs, ys, strict=True):
        torch.testing.assert_close(x, y, **(tolerance or {"rtol": 1e-9, "atol": 1e-11}))


# -- several processes ----------------------------------------------------------------------------------
#
# Each function runs in both, with this process's part (x, y) of the joint batch; what it returns comes
# back to the tests, which compare it with one process on the joint batch.

STEPS = 3
OPTIONS: dict[str, dict[str, bool]] = {
    "plain": {},
    "bucket": {"gradient_as_bucket_view": True},
    "unused": {"find_unused_parameters": True},
    "static": {"static_graph": True},
}
RULES: dict[str, Any] = {
    "Adam": Adam(0.1),
    "Momentum": Momentum(0.1, 0.9),
    "Nesterov": Nesterov(0.1),
    "chain": OptimiserChain(ClipNorm(0.5), WeightDecay(0.01), AccumGrad(2), Adam(0.1)),
    "torch": functools.partial(torch.optim.AdamW, lr=0.1),
}


def by_torch(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    opt = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(STEPS):
        opt.zero_grad()
        loss(model, x, y).backward()
        opt.step()
    return numbers(model)


def by_flux(rule: Any, model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
    opt = setup(rule, model)
    for _ in range(STEPS):
        update_(opt, model, gradient(loss, model, x, y)[0])
    train_(loss, model, [(x, y)] * STEPS, opt)
    trainstep_(loss, model, (x, y), opt)
    assert all(p.grad is None for p in model.parameters())
    return numbers(model)


def spread() -> Any:
    from torch.distributed.fsdp import fully_shard

    model = net()
    for layer in model:
        fully_shard(layer)
    return fully_shard(model)


def same_gradients(model: Any, x: torch.Tensor, y: torch.Tensor) -> dict[str, list[torch.Tensor]]:
    """The joint gradient, in every way that there is to ask for it."""
    ps = params(model)
    gs = gradient(lambda: loss(model, x, y), ps)
    found = {
        "gradient": gradient(loss, model, x, y)[0],
        "withgradient": withgradient(lambda m: (loss(m, x, y), "more"), model).grad[0],
        "implicit": [gs[p] for p in ps],
    }
    # Kept while others are taken: no gradient lies in memory that torch uses again.
    gradient(lambda m: 5 * loss(m, x, y), model)
    return {name: numbers(found[name]) for name in found}


def ddp_gradients(x: torch.Tensor, y: torch.Tensor) -> Any:
    results: dict[str, Any] = {}
    for name, kwargs in OPTIONS.items():
        model = DistributedDataParallel(net(), **kwargs)
        results[name] = same_gradients(model, x, y)
        inner = model.module
        results[name]["captured"] = numbers(gradient(lambda m, model=model: loss(model, x, y), inner)[0])
        results[name]["in a chain"] = numbers(gradient(loss, Chain(model, torch.neg), x, -y)[0])
    return results


def ddp_leaves_grad_alone(x: torch.Tensor, y: torch.Tensor) -> None:
    for kwargs in OPTIONS.values():
        model, other = DistributedDataParallel(net(), **kwargs), net(5)
        loss(model, x, y).backward()
        mse(other(x), y).backward()
        every = [*model.parameters(), *other.parameters()]
        before = [p.grad.clone() for p in every]  # type: ignore[union-attr]
        gradient(lambda m, other=other: 3 * loss(m, x, y) + loss(other, x, y), model)
        assert_same([p.grad for p in every], before, rtol=0, atol=0)


def ddp_refuses(x: torch.Tensor, y: torch.Tensor) -> None:
    model = DistributedDataParallel(net())
    with pytest.raises(RuntimeError, match=r"under DistributedDataParallel.*another gradient"):
        gradient(lambda x: gradient(loss, model, x, y)[0].module.layers[0].weight.sum(), x)
    earlier = loss(model, x, y)
    with pytest.raises(RuntimeError, match="computed before the call"):
        gradient(lambda m: loss(m, x, y) + earlier, model)
    with pytest.raises(RuntimeError, match="use withgradient"):
        pullback(loss, model, x, y)
    with pytest.raises(RuntimeError, match="use withgradient"):
        jacobian(lambda m: m(x), model)
    assert all(p.grad is None for p in model.parameters())


def ddp_in_training(x: torch.Tensor, y: torch.Tensor) -> Any:
    model = functools.partial(DistributedDataParallel, net())
    results = {"torch": by_torch(model(), x, y)}
    for name, rule in RULES.items():
        results[name] = by_flux(rule, DistributedDataParallel(net()), x, y)
    whole = DistributedDataParallel(net())
    rule, ps = Momentum(0.1), params(whole)
    train_(lambda x, y: loss(whole, x, y), ps, [(x, y)] * STEPS, rule)
    results["implicit"] = numbers(whole)
    return results


def input_only(x: torch.Tensor, y: torch.Tensor) -> Any:
    return [gradient(lambda x, m=m: loss(m, x, y), x)[0] for m in (DistributedDataParallel(net()), spread())]


def fsdp_gradients(x: torch.Tensor, y: torch.Tensor) -> Any:
    model = spread()
    results = same_gradients(model, x, y)
    loss(model, x, y).backward()
    before = [p.grad.full_tensor() for p in model.parameters()]
    gradient(lambda m: 3 * loss(m, x, y), model)
    assert_same([p.grad.full_tensor() for p in model.parameters()], before, rtol=0, atol=0)
    return {"plain": results}


def fsdp_in_training(x: torch.Tensor, y: torch.Tensor) -> Any:
    return {"torch": by_torch(spread(), x, y)} | {name: by_flux(rule, spread(), x, y) for name, rule in RULES.items()}


CASES: list[Callable[..., Any]] = [
    ddp_gradients,
    ddp_leaves_grad_alone,
    ddp_refuses,
    ddp_in_training,
    fsdp_gradients,
    fsdp_in_training,
    input_only,
]


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    dist.init_process_group(
        "gloo", f"file://{folder}/meeting", datetime.timedelta(seconds=100), rank=rank, world_size=2
    )
    x, y = data()
    results = {case.__name__: case(x[:, rank::2], y[:, rank::2]) for case in CASES}
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    os._exit(0)  # torch 2.13 sometimes aborts while it clears gloo away, in plain programs too


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("needs torch.distributed with gloo")
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(process, (str(folder),), 2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


@pytest.mark.parametrize("case", ["ddp_gradients", "fsdp_gradients"])
def test_gradient_over_processes_is_that_of_the_joint_batch(both: list[dict[str, Any]], case: str) -> None:
    expected = numbers(gradient(loss, net(), *data())[0])
    for results in both:
        for ways in results[case].values():
            for found in ways.values():
                assert_same(found, expected)


@pytest.mark.parametrize("case", ["ddp_in_training", "fsdp_in_training"])
def test_training_over_processes_is_that_on_the_joint_batch(both: list[dict[str, Any]], case: str) -> None:
    x, y = data()
    expected = {"torch": by_torch(net(), x, y)} | {name: by_flux(rule, net(), x, y) for name, rule in RULES.items()}
    model = net()
    train_(loss, model, [(x, y)] * STEPS, setup(Momentum(0.1), model))
    expected["implicit"] = numbers(model)
    for results in both:
        for name, found in results[case].items():
            assert_same(found, expected[name])


def test_gradient_by_the_input_alone_stays_that_of_the_process(both: list[dict[str, Any]]) -> None:
    x, y = data()
    for rank, results in enumerate(both):
        mine = gradient(lambda x, rank=rank: loss(net(), x, y[:, rank::2]), x[:, rank::2])[0]
        assert_same(results["input_only"], [mine, mine])


def test_the_engine_is_an_ordinary_one_without_wrappers() -> None:
    # A graph that is alive makes gradient look out for wrappers; where there are none, .grad stays out of it.
    model, (x, y) = net(), data()
    alive = loss(model, x, y)
    seen = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(seen.append)
    assert_same(numbers(gradient(loss, model, x, y)[0]), torch.autograd.grad(alive, list(model.parameters())))
    assert not seen
    assert not torch.nn.modules.module._global_forward_pre_hooks


# -- torch's DataLoader ---------------------------------------------------------------------------------


class Rows(Dataset[Any]):
    """Observations as torch programs keep them; `kind` is what each comes as."""

    def __init__(self, kind: str, n: int = 10) -> None:
        self.kind, self.x, self.label = kind, torch.arange(3.0 * n).reshape(n, 3), torch.arange(n) % 2

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        x, label = self.x[i], int(self.label[i])
        return {"dict": {"x": x, "label": label}, "list": [x, label], "tuple": (x, label)}[self.kind]


def last_axis(items: list[Any]) -> Any:
    return Flux.batch([tuple(item) for item in items])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["dict", "list", "tuple"])
def test_batches_of_torch_s_loader(kind: str, workers: int) -> None:
    rows = Rows(kind)
    loader = DataLoader(rows, batch_size=4, collate_fn=last_axis if kind == "list" else Flux.batch, num_workers=workers)
    model, same = Chain(Dense(3 | to | 2)), Chain(Dense(3 | to | 2))
    loadmodel_(same, model)

    def by_dict(m: Any, d: dict[str, Any]) -> torch.Tensor:
        return by_tuple(m, d["x"], d["label"])

    def by_tuple(m: Any, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return logitcrossentropy(m(x), Flux.onehotbatch(label, [0, 1]))

    train_(by_dict if kind == "dict" else by_tuple, model, loader, setup(Descent(0.01), model))
    whole = Flux.DataLoader((rows.x.mT, rows.label), batchsize=4)
    train_(by_tuple, same, whole, setup(Descent(0.01), same))
    assert_same(numbers(model), numbers(same), rtol=1e-5, atol=1e-6)


def test_torch_s_own_batches_are_transposed_in_the_loss() -> None:
    rows = Rows("tuple")
    model, plain = Chain(Dense(3 | to | 1)), nn.Linear(3, 1)
    loadmodel_(model[0], Dense(plain.weight, plain.bias))
    loader = DataLoader(TensorDataset(rows.x, rows.x.sum(1, keepdim=True)), batch_size=5)
    train_(lambda m, d: mse(m(d[0].mT), d[1].mT), model, loader, setup(Descent(1e-4), model))
    opt = torch.optim.SGD(plain.parameters(), lr=1e-4)
    for x, y in loader:
        opt.zero_grad()
        nn.functional.mse_loss(plain(x), y).backward()
        opt.step()
    assert_same(numbers(model), [plain.weight, plain.bias], rtol=1e-5, atol=1e-6)
    # As a list, a batch isn't taken apart, and the message says so; one that isn't transposed doesn't fit.
    with pytest.raises(TypeError, match="is a list, which the loss gets as one argument"):
        train_(lambda m, x, y: mse(m(x.mT), y.mT), model, loader, setup(Descent(1e-4), model))
    with pytest.raises(Flux.DimensionMismatch, match="size"):
        train_(lambda m, d: mse(m(d[0]), d[1]), model, loader, setup(Descent(1e-4), model))


# -- metrics --------------------------------------------------------------------------------------------


class Accuracy:
    """What a metric of torchmetrics is, as far as a loop needs it."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.right = self.seen = 0

    def update(self, scores: torch.Tensor, labels: torch.Tensor) -> None:
        self.right += (scores.argmax(1) == labels).sum()
        self.seen += len(labels)

    def compute(self) -> Any:
        return self.right / self.seen


def of_torchmetrics() -> Any:
    return pytest.importorskip("torchmetrics.classification").MulticlassAccuracy(num_classes=4, average="micro")


@pytest.mark.parametrize("make", [Accuracy, of_torchmetrics])
def test_evaluation_with_a_metric(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    x, label = torch.randn(4, 50), torch.randint(4, (50,))
    model = Chain(Dense(torch.eye(4), False), Dropout(0.9), softmax)
    metric = make()
    for _ in range(2):
        with torch.no_grad():
            for xs, ys in Flux.DataLoader((x, label), batchsize=8):
                metric.update(model(xs).mT, ys)
        assert float(metric.compute()) == pytest.approx(float((x.argmax(0) == label).float().mean()))
        metric.reset()


# -- Lightning and skorch -------------------------------------------------------------------------------


class BatchFirst(nn.Sequential):
    """A Flux model for those who give and expect torch's order of axes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return reversed_axes(super().forward(reversed_axes(x)))


def test_batch_first_is_to_torch() -> None:
    torch.manual_seed(0)
    model = Chain(Conv((3, 3), 2 | to | 4, relu), BatchNorm(4), flatten, Dense(36 | to | 3))
    x = torch.randn(6, 2, 5, 5)
    torch.testing.assert_close(BatchFirst(model)(x), to_torch(model).eval()(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(BatchFirst(model.train())(x), to_torch(model).train()(x), rtol=1e-4, atol=1e-5)


def lightning() -> Any:
    try:
        import lightning
    except ImportError:
        return pytest.importorskip("pytorch_lightning")
    return lightning


@pytest.mark.filterwarnings("ignore")
def test_lightning(tmp_path: Path) -> None:
    L = lightning()
    rows = Rows("tuple", 40)
    pairs = TensorDataset(rows.x / 100, rows.x.sum(1, keepdim=True) / 100)
    seen = []

    class Lit(L.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Any, i: int) -> Any:
            seen.append(("train", self.model[1].active))
            return mse(self.model(batch[0]), batch[1])

        def validation_step(self, batch: Any, i: int) -> None:
            seen.append(("test", self.model[1].active))
            self.log("val", mse(self.model(batch[0]), batch[1]), batch_size=batch[1].shape[-1])

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.01)

    def model(p: float) -> Any:
        torch.manual_seed(0)
        return Chain(Dense(3 | to | 8, torch.tanh), Dropout(p), BatchNorm(8), Dense(8 | to | 1)).train()

    trained, by_hand = model(0.0), model(0.0)
    loader = DataLoader(pairs, 10, collate_fn=Flux.batch)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = L.Trainer(max_epochs=3, default_root_dir=tmp_path, **quiet)
    trainer.fit(Lit(trained), loader, loader)
    assert set(seen) == {("train", True), ("test", False)}

    opt = torch.optim.Adam(by_hand.parameters(), lr=0.01)
    for _, (x, y) in itertools.product(range(3), loader):
        opt.zero_grad()
        mse(by_hand(x), y).backward()
        opt.step()
    assert_same(by_hand.state_dict().values(), trained.state_dict().values(), rtol=1e-5, atol=1e-6)

    again = Lit(model(0.0))
    again.load_state_dict(torch.load(trainer.checkpoint_callback.best_model_path)["state_dict"])
    assert_same(trained.state_dict().values(), again.model.state_dict().values(), rtol=0, atol=0)


def test_modes_that_others_set_by_the_attribute() -> None:
    # Lightning puts back `training` after evaluation, module by module, without calling train().
    model = Chain(Dense(3 | to | 8), Dropout(0.5), BatchNorm(8)).train()
    before = {m: m.training for m in model.modules()}
    model.eval()
    for m, mode in before.items():
        m.training = mode
    assert [model[1].active, model[2].active] == [True, True]
    assert (model(torch.ones(3, 50))[:, 0] != model(torch.ones(3, 50))[:, 0]).any()
    settled = Dropout(0.5, active=False)
    assert not settled.training
    automatic = testmode_(Dropout(0.5), "auto")
    automatic.training = False
    automatic.training = True
    assert automatic.active is None and trainmode_(automatic).active is True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("adapt", [BatchFirst, to_torch])
def test_skorch(adapt: Callable[[Any], nn.Module]) -> None:
    skorch = pytest.importorskip("skorch")
    from sklearn.base import clone
    from sklearn.model_selection import cross_val_score

    rng = torch.Generator().manual_seed(0)
    X = torch.randn(200, 2, generator=rng).numpy()
    label = (X[:, 0] > X[:, 1]).astype("int64")
    torch.manual_seed(0)
    model = adapt(Chain(Dense(2 | to | 8, torch.tanh), BatchNorm(8), Dropout(0.1), Dense(8 | to | 2)))
    classifier = skorch.NeuralNetClassifier(
        model,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.05,
        max_epochs=20,
        batch_size=16,
        verbose=0,
    )
    assert cross_val_score(clone(classifier), X, label, cv=2).min() > 0.85
    classifier.fit(X, label)
    assert classifier.score(X, label) > 0.9
    assert classifier.predict_proba(X).shape == (200, 2)
    again = pickle.loads(pickle.dumps(classifier))
    assert (again.predict(X) == classifier.predict(X)).all()


# -- autocast, accumulation, clipping -------------------------------------------------------------------


def test_autocast_inside_the_loss() -> None:
    torch.manual_seed(0)
    model = Chain(Dense(3 | to | 8, torch.tanh), Dense(8 | to | 2))
    plain = to_torch(copy.deepcopy(model))
    x, y = (v.float() for v in data(32))
    kinds = set()

    def half(m: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = m(x)
        kinds.add(out.dtype)
        return mse(out.float(), y)

    opt = torch.optim.SGD(plain.parameters(), lr=0.1)
    for _ in range(5):
        opt.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = plain(x.mT)
        nn.functional.mse_loss(out.float(), y.mT).backward()
        opt.step()
    before = loss(model, x, y).item()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_(half, model, [(x, y)] * 5, setup(Descent(0.1), model))
    assert kinds == {torch.bfloat16}
    assert {g.dtype for g in trainables(gradient(half, model, x, y)[0])} == {torch.float32}
    # Weights are read in eight bits, so the two programs agree to about two digits of what they have moved.
    assert_same(numbers(model), plain.parameters(), rtol=0.02, atol=2e-3)
    assert loss(model, x, y).item() < 0.9 * before


@pytest.mark.parametrize("rule", [Adam(0.1), Momentum(0.1)])
def test_accumulated_gradients_are_those_of_one_big_batch(rule: Any) -> None:
    x, y = data(12)
    small, big = net(), net()
    parts = list(Flux.DataLoader((x, y), batchsize=3))
    train_(loss, small, parts * 3, setup(OptimiserChain(AccumGrad(4), rule), small))
    train_(loss, big, [(x, y)] * 3, setup(rule, big))
    assert_same(numbers(small), numbers(big))


def test_clipping_is_torch_s() -> None:
    x, y = data()
    model, plain = net(), net()
    grad = gradient(loss, model, x, y)[0]

    def stepped(clip: Callable[[list[nn.Parameter]], Any]) -> list[torch.Tensor]:
        m = copy.deepcopy(plain)
        loss(m, x, y).backward()
        clip(list(m.parameters()))
        torch.optim.SGD(m.parameters(), lr=0.1).step()
        return numbers(m)

    def ours(rule: Any, grad: Any = grad) -> list[torch.Tensor]:
        m = copy.deepcopy(plain)
        update_(setup(rule, m), m, grad)
        return numbers(m)

    # ClipNorm goes array by array, as in Flux, and torch's function by all of them.
    assert_same(
        ours(OptimiserChain(ClipNorm(0.1), Descent(0.1))),
        stepped(lambda ps: [nn.utils.clip_grad_norm_(p, 0.1) for p in ps]),
        rtol=1e-4,
        atol=1e-7,
    )
    assert_same(
        ours(OptimiserChain(ClipGrad(0.1), Descent(0.1))), stepped(lambda ps: nn.utils.clip_grad_value_(ps, 0.1))
    )
    total = nn.utils.get_total_norm(trainables(grad))
    assert total > 0.1
    for g in trainables(grad):
        g *= 0.1 / (total + 1e-6)
    assert_same(ours(Descent(0.1), grad), stepped(lambda ps: nn.utils.clip_grad_norm_(ps, 0.1)))


# -- files in the middle --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule",
    [
        Adam(0.01),
        OptimiserChain(AccumGrad(2), ClipNorm(1.0), AdamW(0.01)),
        functools.partial(torch.optim.AdamW, lr=0.01),
    ],
    ids=["Adam", "chain", "torch"],
)
def test_resumed_training_is_the_uninterrupted_one(rule: Any, tmp_path: Path) -> None:
    def build(seed: int) -> Any:
        torch.manual_seed(seed)
        return Chain(Dense(3 | to | 8, relu), BatchNorm(8), Dropout(0.5), Dense(8 | to | 2))

    batches = [tuple(v.float() for v in data(8, seed)) for seed in range(6)]
    model = build(0)
    opt = setup(rule, model)
    train_(loss, model, batches[:3], opt)
    saved = {"model": model.state_dict(), "opt": state(opt), "rng": torch.get_rng_state()}
    torch.save(saved, tmp_path / "checkpoint.pt")
    train_(loss, model, batches[3:], opt)

    resumed = build(1)
    opt2 = setup(rule, resumed)
    found = torch.load(tmp_path / "checkpoint.pt")
    resumed.load_state_dict(found["model"])
    loadmodel_(opt2, found["opt"])
    torch.set_rng_state(found["rng"])
    train_(loss, resumed, batches[3:], opt2)

    ours, theirs = resumed.state_dict(), model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert all(map(torch.equal, tensors(state(opt2)), tensors(state(opt))))


def tensors(x: Any) -> list[torch.Tensor]:
    return [v for v in fleaves(x) if isinstance(v, torch.Tensor)]


def test_cross_entropy_of_probabilities_trains_too() -> None:
    # The loop of a classifier, from torch's loader to a metric, in one piece.
    torch.manual_seed(0)
    x = torch.randn(60, 2)
    label = (x[:, 0] > x[:, 1]).long()
    model = Chain(Dense(2 | to | 8, torch.tanh), Dense(8 | to | 2), softmax)
    opt = setup(Adam(0.05), model)
    loader = DataLoader(list(zip(x, label, strict=True)), 20, shuffle=True, collate_fn=Flux.batch)
    for _ in range(20):
        train_(lambda m, x, y: crossentropy(m(x), Flux.onehotbatch(y, [0, 1])), model, loader, opt)
    metric = Accuracy()
    with torch.no_grad():
        for xs, ys in loader:
            metric.update(model(xs).mT, ys)
    assert metric.compute() > 0.9
