"""The example programs on handwritten digits, each beside the same program in plain torch: same weights, same steps."""

from __future__ import annotations

import gzip
import importlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fluxtorch as Flux
from fluxtorch import Chain, Dense, f64, randn, sigmoid, softmax, to, to_torch
from fluxtorch.mlutils import randn_like

for needed in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(needed)


@pytest.fixture
def program(example: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Imports an example by its name. Nothing is shuffled, so that both programs see the same batches."""
    monkeypatch.setattr(torch, "randperm", lambda n, **options: torch.arange(n))
    torch.manual_seed(0)
    return example


def pictures(split: str, size: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
    """The digits as a torch program has them, (N, 1, H, W), and their labels."""
    features, targets, _ = importlib.import_module("digits").digits(None, split, size)
    return features.permute(3, 2, 1, 0).contiguous(), targets


def percent(output: Tensor, y: Tensor) -> float:
    return 100 * (output.argmax(1) == y).float().mean().item()


def fit(model: nn.Module, opt: torch.optim.Optimizer, loss: Callable[..., Tensor], data: Any, epochs: int) -> float:
    """Trains as torch programs do, and gives the mean loss of the last epoch."""
    losses: list[float] = []
    for _ in range(epochs):
        losses = []
        for x, y in data:
            opt.zero_grad()
            value = loss(model(x), y)
            value.backward()
            opt.step()
            losses.append(value.item())
    return sum(losses) / len(losses)


def is_picture(path: str) -> bool:
    content = Path(path).read_bytes()
    return content[:4] == b"\x89PNG" and len(content) > 10_000


def test_mlp_digits(program: Any, tmp_path: Path) -> None:
    figures = program("mlp_digits").main(epochs=40, plot=str(tmp_path / "x.png"))

    torch.manual_seed(0)
    model = to_torch(Chain(Dense(64 | to | 32, sigmoid), Dense(32 | to | 10), softmax))
    x, y = pictures("train")
    opt = torch.optim.Adam(model.parameters(), lr=3e-4)
    data = list(zip(x.flatten(1).split(64), y.split(64), strict=True))
    loss = fit(model, opt, lambda p, y: F.nll_loss(torch.log(p), y), data, 40)
    x, y = pictures("test")

    assert figures["loss"] == pytest.approx(loss, rel=1e-3)
    assert figures["test accuracy"] == pytest.approx(percent(model(x.flatten(1)), y), abs=1)
    assert figures["accuracy before"] < 30 and figures["test accuracy"] > 80
    assert is_picture(figures["plot"])


def test_lenet(program: Any, tmp_path: Path, capsys: Any) -> None:
    lenet = program("lenet")
    figures = lenet.main(epochs=3, plot=str(tmp_path / "x.png"))

    torch.manual_seed(0)
    model = to_torch(lenet.LeNet())
    x, y = pictures("train", (28, 28))
    opt = torch.optim.Adam(model.parameters(), lr=3e-4, weight_decay=1e-2)
    fit(model, opt, F.cross_entropy, list(zip(x.split(32), y.split(32), strict=True)), 3)
    x, y = pictures("test", (28, 28))

    assert figures["test loss"] == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-3)
    assert figures["test accuracy"] == pytest.approx(percent(model(x), y), abs=1)
    assert figures["test accuracy before"] < 30 and figures["test accuracy"] > 70
    assert is_picture(figures["plot"])
    assert "lenet2(x1) ≈ lenet(x1): True" in capsys.readouterr().out


def test_vae(program: Any, tmp_path: Path) -> None:
    vae = program("vae")
    figures = vae.main(epochs=3, plot=str(tmp_path / "x.png"))

    torch.manual_seed(0)
    encoder, decoder = vae.Encoder(784, 10, 500), to_torch(vae.Decoder(784, 10, 500))
    layers = nn.ModuleList([to_torch(layer) for layer in (encoder.linear, encoder.μ, encoder.logσ)])

    def loss(x: Tensor) -> Tensor:
        h = layers[0](x)
        μ, logσ = layers[1](h), layers[2](h)
        drawn = decoder(μ + randn_like(logσ.T).T * logσ.exp())
        kl = 0.5 * ((2 * logσ).exp() + μ**2 - 1 - 2 * logσ).sum()
        return (kl + F.binary_cross_entropy_with_logits(drawn, x, reduction="sum")) / len(x)

    train, test = pictures("train", (28, 28))[0].flatten(1), pictures("test", (28, 28))[0].flatten(1)
    # AdamW's decay is multiplied by the learning rate in torch, and not in Flux 0.14.
    opt = torch.optim.AdamW([*layers.parameters(), *decoder.parameters()], lr=1e-3, weight_decay=0.1)
    with torch.no_grad():
        before = loss(test).item()
    for _ in range(3):
        for x in train.split(32):
            opt.zero_grad()
            loss(x).backward()
            opt.step()
        with torch.no_grad():
            after = loss(test).item()

    assert figures["test loss before"] == pytest.approx(before, rel=1e-5)
    assert figures["test loss"] == pytest.approx(after, rel=1e-4)
    assert figures["test loss"] < figures["test loss of the mean picture"] - 15
    assert figures["accuracy of the nearest code"] > 70
    assert is_picture(figures["plot"])


def test_dcgan(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In Float64, as a game of two soon makes much of what was rounded.
    monkeypatch.setattr(Flux, "cpu", f64)
    dcgan = program("dcgan")
    figures = dcgan.main(epochs=2, channels=8, plot=str(tmp_path / "x.png"))

    torch.manual_seed(0)
    for _ in range(36):
        randn(torch.float32, 100, 1)
    test_noise = randn(torch.float32, 100, 299).T.double()
    flux_dscr, flux_gen = dcgan.Discriminator(4, 8), dcgan.Generator(100, 4, 8)
    with torch.random.fork_rng():  # torch's own first weights are drawn, and thrown away
        slope = nn.LeakyReLU(0.2)
        dscr = nn.Sequential(
            nn.Conv2d(1, 8, 4, 2, 1), slope, nn.Dropout(0.25), nn.Conv2d(8, 16, 4, 2, 1), slope, nn.Dropout(0.25),
            nn.Flatten(), nn.Linear(256, 1),
        )  # fmt: skip
        gen = nn.Sequential(
            nn.Linear(100, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Unflatten(1, (32, 4, 4)),
            nn.ConvTranspose2d(32, 16, 5, 1, 2), nn.BatchNorm2d(16), nn.ReLU(),
            nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 4, 2, 1), nn.Tanh(),
        )  # fmt: skip
    for i, j in ((0, 0), (3, 3), (7, 7)):
        dscr[i].load_state_dict(to_torch(flux_dscr[j]).state_dict())
    for i, j in ((0, 0), (4, 3), (7, 5), (10, 7)):
        gen[i].load_state_dict(to_torch(flux_gen[j]).state_dict())
    dscr.double()
    gen.double()

    opt_dscr = torch.optim.Adam(dscr.parameters(), 2e-3, (0.5, 0.999))
    opt_gen = torch.optim.Adam(gen.parameters(), 2e-3, (0.5, 0.999))
    bce = F.binary_cross_entropy_with_logits
    real, fake = torch.ones(32, 1).double(), torch.zeros(32, 1).double()
    digits = 2 * pictures("train", (16, 16))[0].double() - 1
    for _ in range(2):
        losses = []
        for x in digits.split(32):
            gen.eval()
            with torch.no_grad():
                drawn = gen(randn_like(x, (100, 32)).T)
            opt_dscr.zero_grad()
            loss_dscr = bce(dscr(x), real[: len(x)]) + bce(dscr(drawn), fake)
            loss_dscr.backward()
            opt_dscr.step()
            gen.train()
            opt_gen.zero_grad()
            loss_gen = bce(dscr(gen(randn_like(x, (100, 32)).T)), real)
            loss_gen.backward()
            opt_gen.step()
            losses.append([loss_dscr.item(), loss_gen.item()])
    gen.eval()
    with torch.no_grad():
        off = torch.cdist(gen(test_noise).flatten(1), digits.flatten(1), p=1).min(1).values.mean().item() / 2
    means = torch.tensor(losses).mean(0).tolist()

    assert figures["discriminator loss"] == pytest.approx(means[0], rel=1e-4)
    assert figures["generator loss"] == pytest.approx(means[1], rel=1e-4)
    assert figures["pixels off the nearest digit"] == pytest.approx(off, rel=1e-4)
    assert figures["pixels off the nearest digit"] < 0.5 * figures["pixels off the nearest digit before"]
    assert is_picture(figures["plot"])


@pytest.mark.parametrize("name, options", [("mlp_digits", {}), ("dcgan", {"channels": 2})])
def test_with_mnist(name: str, options: dict[str, int], program: Any, tmp_path: Path) -> None:
    """Pictures of MNIST's size go through the programs, whose layers are then larger."""
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(idx(torch.randint(256, (80, 28, 28))))
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(idx(torch.arange(80) % 10))
    figures = program(name).main(epochs=1, data=str(tmp_path), plot=str(tmp_path / "x.png"), **options)
    assert is_picture(figures["plot"])


def idx(values: Tensor) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + bytes(
        values.flatten().int().tolist()
    )


@pytest.mark.parametrize("dash, zipped", [("-", True), (".", False)])
def test_mnist_files(program: Any, tmp_path: Path, dash: str, zipped: bool) -> None:
    images, labels = torch.arange(5 * 4 * 3).reshape(5, 4, 3), torch.tensor([3, 0, 9, 1, 1])
    for part, kind, values in (
        ("train", "images", images), ("train", "labels", labels),
        ("t10k", "images", images[1:] + 7), ("t10k", "labels", labels[1:]),
    ):  # fmt: skip
        name, content = f"{part}-{kind}{dash}idx{values.ndim}-ubyte", idx(values)
        (tmp_path / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    digits = program("digits").digits

    train, test = digits(str(tmp_path), "train"), digits(str(tmp_path), "test", size=(28, 28))
    assert train.features.shape == (3, 4, 1, 5) and train.targets.tolist() == labels.tolist()
    assert train.features[2, 1, 0, 4].item() == pytest.approx(images[4, 1, 2].item() / 255)
    assert test.features.shape == (3, 4, 1, 4) and test.targets.tolist() == [0, 9, 1, 1]
    assert test.features[0, 3, 0, 0].item() == pytest.approx((images[1, 3, 0].item() + 7) / 255)


def test_files_that_are_not_mnist(program: Any, tmp_path: Path) -> None:
    digits = program("digits").digits
    with pytest.raises(FileNotFoundError, match="no file train-images"):
        digits(str(tmp_path))
    image, label = tmp_path / "train-images-idx3-ubyte", tmp_path / "train-labels-idx1-ubyte"
    label.write_bytes(idx(torch.zeros(2)))
    for content, message in [
        (b"<html>not here</html>", "not an idx file"),
        (b"\0\0\x08", "not an idx file"),
        (idx(torch.zeros(2, 3, 4))[:-1], "23 bytes, where its head says 2 × 3 × 4"),
        (idx(torch.zeros(3, 3, 4)), "don't belong together"),
    ]:
        image.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            digits(str(tmp_path))
    with pytest.raises(ValueError, match='"train" and "test", not \'validation\''):
        digits(None, "validation")


def test_digits_are_upright(program: Any) -> None:
    """A seven has its bar above: the second axis counts downwards, as in MLDatasets."""
    features, targets, _ = program("digits").digits()
    seven, four = features[..., targets == 7].mean(-1)[:, :, 0], features[..., targets == 4].mean(-1)[:, :, 0]
    assert features.shape == (8, 8, 1, 1498) and features.max() == 1 and features.min() == 0
    assert seven[:, 0].mean() > 2 * four[:, 0].mean()
