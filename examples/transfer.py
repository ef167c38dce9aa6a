"""Transfer learning: a ResNet from torch that knows printed letters learns handwritten digits from a few of each.

Follows tutorials/transfer_learning of the Flux model zoo (Flux 0.14): a container of images, a new last layer on a
ResNet-18, 🐢 training by gradients of the whole model, 🐇 training of what is new alone. There the ResNet is
Metalhead's, trained on photographs, and the images are of cats, dogs and pandas, 224×224. Here it is written in
torch.nn, a quarter as wide, and trained in torch on the letters of matplotlib's fonts; the new images are those of
scikit-learn's digits, enlarged from 8×8 to 32×32. Both take seconds and need no network. `--data FILE` takes a
pretrained resnet18 of torchvision instead: its state_dict, as the layers have the same names.

Run: python examples/transfer.py [--epochs 20] [--shots 5] [--gpu] [--data FILE] [--plot transfer.png]
"""

from collections import OrderedDict
from copy import deepcopy
from time import perf_counter

import matplotlib.pyplot as plt
import numpy as np
import torch
from digits import digits
from program import progress, run, save
from torch import nn
from torch.nn import functional as F

import fluxtorch as Flux
from fluxtorch import *
from fluxtorch import base

# -- A model that someone has trained in torch -------------------------------------------------------
# This part is torch alone: images are (N, C, H, W).


class BasicBlock(nn.Module):
    """Two convolutions, and a way past them."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


def resnet18(width, classes):
    """ResNet-18 with `width` channels in its first layers (torchvision's has 64) and torchvision's names."""
    layers = OrderedDict(
        conv1=nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False),
        bn1=nn.BatchNorm2d(width),
        relu=nn.ReLU(),
        maxpool=nn.MaxPool2d(3, stride=2, padding=1),
    )
    channels = width
    for i in range(4):
        wide = width * 2**i
        layers[f"layer{i + 1}"] = nn.Sequential(
            BasicBlock(channels, wide, stride=1 if i == 0 else 2), BasicBlock(wide, wide, stride=1)
        )
        channels = wide
    layers.update(avgpool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(channels, classes))
    return nn.Sequential(layers)


alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"  # and those small letters that aren't small capitals


def letters():
    """The alphabet in sixteen typefaces, (592, 1, 32, 32), and the number of each letter."""
    faces = [
        {"family": family, "style": style, "weight": weight}
        for family in ("DejaVu Sans", "DejaVu Serif", "DejaVu Sans Mono", "STIXGeneral")
        for style in ("normal", "italic")
        for weight in ("normal", "bold")
    ]
    rows, columns = len(faces), len(alphabet)
    page = plt.figure(figsize=(columns * 0.32, rows * 0.32), dpi=100)
    for row, face in enumerate(faces):
        for column, letter in enumerate(alphabet):
            at = (column + 0.5) / columns, 1 - (row + 0.5) / rows
            page.text(*at, letter, size=22, ha="center", va="center_baseline", **face)
    page.canvas.draw()
    ink = 1 - torch.tensor(np.asarray(page.canvas.buffer_rgba()))[:, :, 0] / 255
    plt.close(page)
    pictures = ink.reshape(rows, 32, columns, 32).transpose(1, 2).reshape(-1, 1, 32, 32)
    return pictures, torch.arange(columns).repeat(rows)


def scrawl(x):
    """Letters turned, slanted and moved a little, and as coarse as the digits are."""
    n = len(x)
    turn = torch.cat([0.9 * torch.eye(2) + 0.15 * torch.randn(n, 2, 2), 0.1 * torch.randn(n, 2, 1)], 2)
    x = F.grid_sample(x, F.affine_grid(turn, x.shape, align_corners=False), align_corners=False)
    x = F.interpolate(F.avg_pool2d(x, 4), size=(32, 32), mode="bilinear", align_corners=True)
    return (x - mu[:, None, None]) / sigma[:, None, None]


def pretrain(resnet, steps, device):
    pictures, labels = letters()
    resnet = device(resnet)
    opt = torch.optim.Adam(resnet.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=4e-3, total_steps=steps)
    for _ in progress(range(steps), "letters"):
        some = torch.randint(len(pictures), (64,))
        loss = F.cross_entropy(resnet(device(scrawl(pictures[some]))), device(labels[some]))
        opt.zero_grad()
        loss.backward()
        opt.step()
        schedule.step()
    return resnet


# -- Data --------------------------------------------------------------------------------------------

im_size = (32, 32)
mu = torch.tensor([0.485, 0.456, 0.406])
sigma = torch.tensor([0.229, 0.224, 0.225])


class ImageContainer:
    """Images that are made when asked for. A length and single observations are all that `DataLoader` needs."""

    def __init__(self, data, places):
        self.data, self.places = data, places

    def __len__(self):
        return len(self.places)

    def __getitem__(self, idx):
        place = self.places[idx]
        img = upsample_bilinear(self.data.features[:, :, :, [place]], size=im_size)[:, :, :, 0]
        img = cat(img, img, img, dims=2)  # three colours
        img = (img - mu) / sigma
        return img, self.data.targets[place]


def few(targets, shots):
    """The places of `shots` examples of each digit, from all over, as they lie in the order of who wrote them."""
    places = [(targets == digit).nonzero()[:, 0] for digit in range(10)]
    return cat(*[p[torch.linspace(0, len(p) - 1, shots).long()] for p in places], dims=0)


# -- Training ----------------------------------------------------------------------------------------


@torch.no_grad()
def eval_f(m, deval):
    good = 0
    count = 0
    for x, y in deval:
        good += base.sum(onecold(m(x)) == y)
        count += length(y)
    return (good / count).item()


# 🐢 mode: the gradient of the whole model


def train_epoch_(model, opt, dtrain):
    for x, y in dtrain:
        grads = gradient(lambda m: Flux.Losses.logitcrossentropy(m(x), onehotbatch(y, range(10))), model)
        Flux.update_(opt, model, grads[0])


# 🐇 mode: outside of gradient, the body runs once and remembers nothing


def train_tail_epoch_(m_infer, m_tune, opt, dtrain):
    for x, y in dtrain:
        with torch.no_grad():
            infer = m_infer(x)
        grads = gradient(lambda m: Flux.Losses.logitcrossentropy(m(infer), onehotbatch(y, range(10))), m_tune)
        Flux.update_(opt, m_tune, grads[0])


def train(what, epochs, train_epoch_, m, deval):
    """Calls `train_epoch_` so often. Gives how right `m` is after each, and the seconds that an epoch takes."""
    accuracies, seconds = [], 0.0
    for epoch in progress(range(1, epochs + 1), what):
        start = perf_counter()
        train_epoch_()
        seconds += (perf_counter() - start) / epochs
        accuracies.append(eval_f(m, deval))
        if epoch % 5 == 0 or epoch == epochs:
            print(f"{what}, epoch {epoch}: eval {accuracies[-1]:.3f}")
    return accuracies, seconds


def main(
    epochs: int = 20,
    gpu: bool = False,
    data: str | None = None,
    plot: str = "transfer.png",
    shots: int = 5,
    steps: int = 400,
) -> dict:
    device = Flux.gpu if gpu else cpu
    batchsize = 16

    train_digits, test_digits = digits(split="train"), digits(split="test")
    imgs = ImageContainer(train_digits, few(train_digits.targets, shots))
    dtrain = device(DataLoader(imgs, batchsize=batchsize, shuffle=True, collate=True))
    every = ImageContainer(test_digits, range(length(test_digits.targets)))
    deval = list(device(DataLoader(every, batchsize=100, collate=True)))  # asked for often, so made once

    # Load a pretrained model
    knows = "letters" if data is None else "photographs"
    if data is None:
        resnet = pretrain(resnet18(width=16, classes=len(alphabet)), steps, device)
    else:
        resnet = resnet18(width=64, classes=1000)
        resnet.load_state_dict(torch.load(data, weights_only=True))
    m = device(from_torch(resnet))
    print(repr(m))
    n = size(m[-1].weight, 1)
    tail = lambda: Chain(AdaptiveMeanPool((1, 1)), Flux.flatten, Dense(n |to| 10))

    # What the few images alone can teach
    fresh = device(Chain(from_torch(resnet18(n // 8, 10))[:-3], tail()))
    opt = Flux.setup(Adam(1e-3), fresh)
    scratch, _ = train("from scratch", 2 * epochs, lambda: train_epoch_(fresh, opt, dtrain), fresh, deval)

    # 🐇: the pretrained body is left alone
    m_infer = m[:-3]
    m_tune = device(tail())
    m_tot = Chain(deepcopy(m_infer), deepcopy(m_tune))
    opt = Flux.setup(Adam(3e-3), m_tune)
    step = lambda: train_tail_epoch_(m_infer, m_tune, opt, dtrain)
    _, rabbit = train("🐇 new layer", epochs, step, Chain(m_infer, m_tune), deval)

    # 🐢: the same by freezing it. Its BatchNorms would still follow the batches, as their statistics aren't parameters.
    opt = Flux.setup(Adam(3e-3), m_tot)
    Flux.freeze_(opt.layers[0])
    testmode_(m_tot[0])
    head, turtle = train("🐢 new layer", epochs, lambda: train_epoch_(m_tot, opt, dtrain), m_tot, deval)

    # Fine-tune: now all of it, in smaller steps
    Flux.thaw_(opt)
    Flux.adjust_(opt, 3e-4)
    tuned, _ = train("🐢 fine-tuned", epochs, lambda: train_epoch_(m_tot, opt, dtrain), m_tot, deval)

    return {
        "accuracy from scratch": scratch[-1],
        "accuracy with a new layer": head[-1],
        "accuracy fine-tuned": tuned[-1],
        "🐇 seconds per epoch": rabbit,
        "🐢 seconds per epoch": turtle,
        "picture": save(picture(knows, shots, scratch, head + tuned, m_infer, m_tot, deval), plot),
    }


# -- Plot --------------------------------------------------------------------------------------------


@torch.no_grad()
def picture(knows, shots, scratch, transferred, m_infer, m_tot, deval):
    x, y = (cat(*parts, dims=-1) for parts in zip(*deval, strict=True))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")

    known = scrawl(letters()[0][::49])[:12, 0] if knows == "letters" else torch.zeros(0, 32, 32)
    shown = torch.linspace(0, length(y) - 1, 36 - len(known)).long()
    truth, answers = cpu(y[shown]), cpu(onecold(m_tot(x[..., shown]), range(10)))
    tiles = torch.cat([known, cpu(x[:, :, 0, shown]).permute(2, 1, 0)])
    tiles = F.pad(tiles, (8, 2, 8, 2), value=tiles.min().item()).reshape(6, 6, 42, 42)
    left.imshow(tiles.transpose(1, 2).reshape(252, 252).numpy(), cmap="gray_r")
    for i, answer in enumerate(answers, start=len(known)):
        row, column = divmod(i, 6)
        color = "green" if answer == truth[i - len(known)] else "red"
        left.text(42 * column + 1, 42 * row + 1, answer.item(), color=color, weight="bold", va="top")
    left.set(title=("letters that it knew; " if len(known) else "") + "digits and its answers", xticks=[], yticks=[])

    epochs = range(1, len(scratch) + 1)
    middle.plot(epochs, transferred, label=f"pretrained on {knows}")
    middle.plot(epochs, scratch, label="from scratch")
    middle.axvline(len(scratch) / 2 + 0.5, color="gray", ls=":")
    middle.text(len(scratch) / 2 + 0.8, 0.95, "thaw_", color="gray")
    middle.set(title=f"test accuracy, from {shots} examples of each digit", xlabel="epoch", ylim=(0, 1))
    middle.grid(alpha=0.3)
    middle.legend(loc="lower right")

    # The two directions in which the body's outputs differ most
    features = flatten(GlobalMeanPool()(m_infer(x)))
    features = features - mean(features, dims=1)
    directions = torch.linalg.svd(features, full_matrices=False).U[:, :2]
    places = cpu(directions.T @ features).numpy()
    dots = right.scatter(*places, c=cpu(y).numpy(), cmap="tab10", vmin=-0.5, vmax=9.5, s=14)
    figure.colorbar(dots, ax=right, ticks=range(10), label="digit")
    right.set(title=f"digits, as the body that knows {knows} sees them", xticks=[], yticks=[])
    return figure


if __name__ == "__main__":
    run(main)
