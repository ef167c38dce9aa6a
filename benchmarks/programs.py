"""The programs that are timed: each the same network, on the same data, in torch and in fluxtorch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fluxtorch as Flux
from fluxtorch import (
    BatchNorm,
    Chain,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Layer,
    LayerNorm,
    MaxPool,
    MultiHeadAttention,
    gelu,
    logitcrossentropy,
    mean,
    onehotbatch,
    relu,
    reset_,
    tanh,
    to,
)


@dataclass
class Program:
    """A network in both, each with its loss of one batch."""

    name: str
    theirs: nn.Module
    their_loss: Callable[[nn.Module], Tensor]
    ours: Any
    our_loss: Callable[[Any], Tensor]


MLPS = [
    ("MLP 2-3-2, 64", (2, 3, 2), 64),
    ("MLP 784-128-10, 64", (784, 128, 10), 64),
    ("MLP 784-1024-10, 256", (784, 1024, 10), 256),
]


def classifier(
    name: str, theirs: nn.Module, ours: Any, shape: tuple[int, ...], classes: int, batch: int, device: str
) -> Program:
    x = torch.randn(batch, *shape, device=device)
    labels = torch.randint(classes, (batch,), device=device)
    xt, y = x.permute(*reversed(range(x.ndim))), onehotbatch(labels, range(classes))
    return Program(name, theirs, lambda m: F.cross_entropy(m(x), labels), ours, lambda m: logitcrossentropy(m(xt), y))


def mlp(name: str, sizes: tuple[int, int, int], batch: int, device: str) -> Program:
    n, hidden, classes = sizes
    theirs = nn.Sequential(nn.Linear(n, hidden), nn.Tanh() if n == 2 else nn.ReLU(), nn.Linear(hidden, classes))
    ours = Chain(Dense(n | to | hidden, tanh if n == 2 else relu), Dense(hidden | to | classes))
    return classifier(name, theirs, ours, (n,), classes, batch, device)


def lenet(device: str) -> Program:
    theirs = nn.Sequential(
        nn.Conv2d(1, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )
    ours = Chain(
        Conv((5, 5), 1 | to | 6, relu),
        MaxPool((2, 2)),
        Conv((5, 5), 6 | to | 16, relu),
        MaxPool((2, 2)),
        Flux.flatten,
        Dense(256 | to | 120, relu),
        Dense(120 | to | 84, relu),
        Dense(84 | to | 10),
    )
    return classifier("LeNet, 28×28×1, 64", theirs, ours, (1, 28, 28), 10, 64, device)


def vgg(device: str) -> Program:
    def their_block(n: int, m: int) -> list[nn.Module]:
        return [nn.Conv2d(n, m, 3, padding=1), nn.BatchNorm2d(m), nn.ReLU()]

    def our_block(n: int, m: int) -> list[Any]:
        return [Conv((3, 3), n | to | m, pad=1), BatchNorm(m, relu)]

    theirs = nn.Sequential(
        *their_block(3, 32),
        *their_block(32, 32),
        nn.MaxPool2d(2),
        *their_block(32, 64),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 64, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 10),
    )
    ours = Chain(
        *our_block(3, 32),
        *our_block(32, 32),
        MaxPool((2, 2)),
        *our_block(32, 64),
        MaxPool((2, 2)),
        Flux.flatten,
        Dense(64 * 64 | to | 256, relu),
        Dropout(0.5),
        Dense(256 | to | 10),
    )
    return classifier("VGG, 32×32×3, 32", theirs, ours, (3, 32, 32), 10, 32, device)


class TheirRecurrent(nn.Module):
    def __init__(self, n: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(n, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x)
        return self.head(y)


def lstm(device: str, steps: int = 50, batch: int = 32) -> Program:
    x = torch.randn(steps, batch, 32, device=device)
    labels = torch.randint(10, (steps, batch), device=device)
    xt, y = x.permute(2, 1, 0), onehotbatch(labels.t(), range(10))

    def our_loss(m: Any) -> Tensor:
        reset_(m)
        return logitcrossentropy(m(xt), y)

    return Program(
        "LSTM, 32–64, 50 steps, 32",
        TheirRecurrent(32, 64, 10),
        lambda m: F.cross_entropy(m(x).flatten(0, 1), labels.flatten()),
        Chain(Flux.LSTM(32 | to | 64), Dense(64 | to | 10)),
        our_loss,
    )


def char_rnn(device: str, steps: int = 50, batch: int = 32, symbols: int = 65) -> Program:
    text = torch.randint(symbols, (steps + 1, batch), device=device)
    now, after = text[:-1], text[1:]
    x, y = onehotbatch(now.t(), range(symbols)), onehotbatch(after.t(), range(symbols))

    def their_loss(m: nn.Module) -> Tensor:
        logits = m(F.one_hot(now, symbols).float())
        return F.cross_entropy(logits.flatten(0, 1), after.flatten())

    def our_loss(m: Any) -> Tensor:
        reset_(m)
        return logitcrossentropy(m(x), y)

    ours = Chain(Flux.LSTM(symbols | to | 128), Dense(128 | to | symbols))
    return Program("char-RNN, 65–128, 50 steps, 32", TheirRecurrent(symbols, 128, symbols), their_loss, ours, our_loss)


class TheirBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class OurBlock(Layer):
    norm1: Any
    attention: Any
    norm2: Any
    mlp: Any

    def __call__(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))[0]
        return x + self.mlp(self.norm2(x))


def transformer(device: str, width: int = 128, heads: int = 4, tokens: int = 64, batch: int = 16) -> Program:
    x, target = torch.randn(2, batch, tokens, width, device=device)
    xt, y = x.permute(2, 1, 0), target.permute(2, 1, 0)
    ours = OurBlock(
        LayerNorm(width),
        MultiHeadAttention(width, nheads=heads, bias=True),
        LayerNorm(width),
        Chain(Dense(width | to | 4 * width, gelu), Dense(4 * width | to | width)),
    )
    return Program(
        "transformer block, 128, 4 heads, 64 tokens, 16",
        TheirBlock(width, heads),
        lambda m: F.mse_loss(m(x), target),
        ours,
        lambda m: Flux.mse(m(xt), y),
    )


class TheirWords(nn.Module):
    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words, width)
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.table(ids).mean(1))


def words(device: str, vocabulary: int = 50_000, width: int = 64, length: int = 20, batch: int = 64) -> Program:
    ids = torch.randint(vocabulary, (batch, length), device=device)
    labels = torch.randint(2, (batch,), device=device)
    idst, y = ids.t(), onehotbatch(labels, range(2))
    ours = Chain(
        Embedding(vocabulary | to | width),
        lambda x: mean(x, dims=1).squeeze(1),
        Dense(width | to | width, relu),
        Dense(width | to | 2),
    )
    return Program(
        "embedding, 50 000 words, 20, 64",
        TheirWords(vocabulary, width),
        lambda m: F.cross_entropy(m(ids), labels),
        ours,
        lambda m: logitcrossentropy(m(idst), y),
    )


def programs(device: str) -> list[Program]:
    """All of them, on `device`."""
    made = [
        *(mlp(*sizes, device) for sizes in MLPS),
        *(make(device) for make in (lenet, vgg, lstm, transformer, char_rnn, words)),
    ]
    for program in made:
        program.theirs = program.theirs.to(device)
        program.ours = program.ours.to(device)
    return made


def mapped(device: str, steps: int = 50, batch: int = 32) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """A list of vectors mapped one by one through a recurrent model, forward and backward: in torch, in fluxtorch."""
    xs = list(torch.randn(steps, batch, 32, device=device).unbind())
    xts = [x.t() for x in xs]
    cell, head = nn.LSTMCell(32, 64).to(device), nn.Linear(64, 10).to(device)
    m = Chain(Flux.LSTM(32 | to | 64), Dense(64 | to | 10)).to(device)

    def theirs() -> Tensor:
        state = None
        ys = []
        for x in xs:
            state = cell(x, state)
            ys.append(head(state[0]))
        loss = torch.stack(ys).square().mean()
        cell.zero_grad()
        head.zero_grad()
        loss.backward()
        return loss

    def ours() -> Tensor:
        def loss(m: Any) -> Tensor:
            reset_(m)
            return torch.stack([m(x) for x in xts]).square().mean()

        return Flux.withgradient(loss, m).val

    return theirs, ours
