"""The example programs that learn from sequences: each learns as the same program in plain torch does."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fluxtorch import *

pytest.importorskip("matplotlib")
pytest.importorskip("tqdm")


def is_picture(file):
    return Path(file).read_bytes().startswith(b"\x89PNG") and Path(file).stat().st_size > 10_000


def linear(dense):
    module = nn.Linear(*reversed(dense.weight.shape))
    with torch.no_grad():
        module.weight.copy_(dense.weight)
        module.bias.copy_(dense.bias)
    return module


class Recurrent(nn.Module):
    """torch's LSTM on `(time, N, features)` with what Flux's has: one bias, and a first state that is trained."""

    def __init__(self, recur):
        super().__init__()
        cell = recur.cell
        m = cell.Wh.shape[1]
        self.rnn = nn.LSTM(cell.Wi.shape[1], m)
        self.h, self.c = nn.Parameter(torch.zeros(1, 1, m)), nn.Parameter(torch.zeros(1, 1, m))
        self.rnn.bias_hh_l0.requires_grad_(False)
        with torch.no_grad():
            self.rnn.weight_ih_l0.copy_(cell.Wi)
            self.rnn.weight_hh_l0.copy_(cell.Wh)
            self.rnn.bias_ih_l0.copy_(cell.b)
            self.rnn.bias_hh_l0.zero_()

    def forward(self, x):
        first = [s.expand(1, x.shape[1], -1).contiguous() for s in (self.h, self.c)]
        return self.rnn(x, tuple(first))[0]


# -- char_rnn ----------------------------------------------------------------------------------------


def strips(text, n, steps):
    """Input and answers in torch's manner: batches `(steps, n)` of places in the alphabet, that of the end last."""
    alphabet = {c: k for k, c in enumerate(dict.fromkeys(text + "¶"))}
    ids = torch.tensor([alphabet[c] for c in text])
    size = -(-(len(ids) - 1) // n)
    x, y = torch.full((2, size * n), len(alphabet) - 1)
    x[: len(ids) - 1], y[: len(ids) - 1] = ids[:-1], ids[1:]
    return x.reshape(n, size).T.split(steps), y.reshape(n, size).T.split(steps), len(alphabet)


def test_char_rnn(example, tmp_path):
    program, texts = example("char_rnn"), example("texts")
    text = texts.read()[:8001]
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    options = dict(epochs=4, batchsz=20, seqlen=20)
    torch.manual_seed(0)
    figures = program.main(data=str(tmp_path / "text.txt"), plot=str(tmp_path / "x.png"), **options)

    X, Y, N = strips(text, 20, 20)
    torch.manual_seed(0)
    order = torch.randperm(len(X)).tolist()
    split = int(0.95 * len(X))
    lstm1, lstm2, dense = program.build_model(N)
    model = nn.Sequential(Recurrent(lstm1), Recurrent(lstm2), linear(dense))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)

    def loss(k):
        logits = model(F.one_hot(X[k], N).float())
        return F.cross_entropy(logits.flatten(0, 1), Y[k].flatten(), reduction="sum") / X[k].shape[1]

    def per_letter():
        with torch.no_grad():
            return sum(loss(k).item() for k in order[split:]) / sum(len(X[k]) for k in order[split:])

    before = per_letter()
    for _ in range(4):
        for k in order[:split]:
            optimizer.zero_grad()
            loss(k).backward()
            optimizer.step()

    assert figures["loss before"] == pytest.approx(before, rel=1e-4)
    assert figures["loss after"] == pytest.approx(per_letter(), rel=0.005)
    # Which letters are frequent is not all that it has learned
    p = torch.bincount(torch.cat(Y).flatten()) / torch.cat(Y).numel()
    assert figures["loss after"] < -torch.special.xlogy(p, p).sum() - 0.3
    assert len(figures["sample"]) == 1001 and set(figures["sample"]) <= set(text) | {"¶"}
    assert is_picture(figures["plot"])


def test_answers_are_the_next_letters(example, monkeypatch):
    """Of any text, also one whose strips would be longer than those of its answers."""
    program = example("char_rnn")
    text = "".join(chr(97 + k * k % 23) for k in range(101))  # 101 = 20 * 5 + 1
    for data in text, text[:-3]:
        monkeypatch.setattr(program, "read", lambda _, data=data: data)
        Xs, Ys, _, alphabet = program.getdata(program.Args(batchsz=5, seqlen=7))
        for batches, letters in (Xs, data[:-1]), (Ys, data[1:]):
            strips = zip(*[onecold(x, alphabet) for batch in batches for x in batch], strict=True)
            assert "".join(map("".join, strips)).rstrip("¶") == letters


# -- gpt ---------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, mha):
        super().__init__()
        self.nheads = mha.nheads
        self.q, self.k, self.v, self.out = (
            nn.Parameter(p.weight.detach().clone()) for p in (mha.q_proj, mha.k_proj, mha.v_proj, mha.out_proj)
        )

    def forward(self, x):
        q, k, v = (F.linear(x, w).unflatten(-1, (self.nheads, -1)).transpose(1, 2) for w in (self.q, self.k, self.v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(y.transpose(1, 2).flatten(2), self.out)


class Transformer(nn.Module):
    """The same GPT on `(N, time)`, with the weights of one of Flux's."""

    def __init__(self, gpt):
        super().__init__()
        n = gpt.tok_embed.weight.shape[0]
        self.tokens = nn.Embedding.from_pretrained(gpt.tok_embed.weight.detach().T.clone(), freeze=False)
        self.positions = nn.Parameter(gpt.pos_embed.weight.detach().T.clone())
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.Sequential(nn.LayerNorm(n), Attention(block.mha)),
                    nn.Sequential(nn.LayerNorm(n), linear(block.mlp[1]), nn.GELU("tanh"), linear(block.mlp[2])),
                ]
            )
            for block in gpt.blocks
        )
        self.out = nn.Sequential(nn.LayerNorm(n), linear(gpt.output_layer))

    def forward(self, x):
        x = self.tokens(x) + self.positions[: x.shape[1]]
        for attention, perceptron in self.blocks:
            x = x + attention(x)
            x = x + perceptron(x)
        return self.out(x)


def test_gpt(example, tmp_path):
    program, texts = example("gpt"), example("texts")
    text = texts.read()[:55_000].replace("\n", " ")
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    saved = str(tmp_path / "gpt.pt")
    torch.manual_seed(0)
    figures = program.main(epochs=1, data=str(tmp_path / "text.txt"), checkpoint=saved, plot=str(tmp_path / "x.png"))

    alphabet = {c: k for k, c in enumerate(dict.fromkeys(text + "¶"))}
    ids = torch.tensor([alphabet[c] for c in text])
    B = (len(ids) - 1) // 64
    X, Y = ids[: 64 * B].reshape(B, 64).clone(), ids[1 : 64 * B + 1].reshape(B, 64)
    X[:, 0] = len(alphabet) - 1
    split = int(0.9 * B)
    torch.manual_seed(0)
    model = program.GPT(program.Args(), list(alphabet))
    order = [*DataLoader(range(split), batchsize=32, shuffle=True)]
    model = Transformer(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def loss(k):
        return F.cross_entropy(model(X[k]).flatten(0, 1), Y[k].flatten())

    test = range(split, B)
    with torch.no_grad():
        before = loss(test).item()
    for k in order:
        optimizer.zero_grad()
        loss(k).backward()
        optimizer.step()
    with torch.no_grad():
        after = loss(test).item()

    assert figures["loss before"] == pytest.approx(before, rel=1e-4)
    assert figures["loss after"] == pytest.approx(after, rel=0.005)
    assert figures["loss after"] < 3 < 4 < math.log(len(alphabet))
    assert is_picture(figures["plot"])

    _, loaded = program.load_model(saved)
    _, _, _, testX, testY = program.getdata(program.Args(data=str(tmp_path / "text.txt")))
    with torch.no_grad():
        assert program.loss(loaded, testX, testY).item() == pytest.approx(figures["loss after"], rel=1e-5)


# -- parity ------------------------------------------------------------------------------------------


def test_parity(example, tmp_path):
    program = example("parity")
    torch.manual_seed(0)
    figures = program.main(epochs=4, length=5, train_len=300, val_len=30, lr=5e-3, plot=str(tmp_path / "x.png"))

    torch.manual_seed(0)
    data, val = program.getdata(program.Args(length=5, train_len=300, val_len=30))
    scanner, encoder = program.build_model()
    scanner, encoder = Recurrent(scanner), linear(encoder)
    parameters = [p for p in [*scanner.parameters(), *encoder.parameters()] if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=5e-3)
    data, val = ([(F.one_hot(x.indices, 2).float()[:, None], y.indices) for x, y in d] for d in (data, val))

    def loss(x, y):
        return F.cross_entropy(encoder(scanner(x)[-1, 0]), y)

    def batch_loss():
        with torch.no_grad():
            return sum(loss(*d).item() for d in val) / len(val)

    before = batch_loss()
    for _ in range(4):
        for d in data:
            optimizer.zero_grad()
            loss(*d).backward()
            optimizer.step()

    assert figures["loss before"] == pytest.approx(before, rel=1e-4)
    assert figures["loss after"] == pytest.approx(batch_loss(), rel=0.02)
    assert figures["loss after"] < 0.05 < math.log(2)
    assert figures["right for 50 bits"] > 0.9
    assert figures["01, 10, 00, 11"] == "[1, 1, 0, 0]"
    assert is_picture(figures["plot"])


# -- autoregressive ----------------------------------------------------------------------------------


def test_autoregressive(example, tmp_path):
    program = example("autoregressive")
    figures = program.main(plot=str(tmp_path / "x.png"))

    torch.manual_seed(72)
    lstm1, lstm2, dense = program.build_model(program.Args())
    noise = torch.randn(750)
    model = nn.Sequential(Recurrent(lstm1), Recurrent(lstm2), linear(dense))
    series = [noise[0]]
    for t in range(1, 750):
        series.append(sum(a * x for a, x in zip((0.3, 0.2, -0.5), reversed(series), strict=False)) + noise[t])
    X, y = torch.stack(series[:-1]), torch.stack(series[1:])
    # Seventy per cent, of which the first four, and of the rest the first five, don't fill a sequence of ten
    train, test = ([v.reshape(-1, 10).T[..., None] for v in (X[a:b], y[a:b])] for a, b in ((4, 524), (529, 749)))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-3)

    def loss(x, y):
        return F.mse_loss(model(x)[1:], y[1:])

    def losses():
        return [loss(*data).item() for data in (train, test)]

    with torch.no_grad():
        before = losses()
    for _ in range(100):
        optimizer.zero_grad()
        loss(*train).backward()
        optimizer.step()
    with torch.no_grad():
        after = losses()

    assert [figures["train loss before"], figures["test loss before"]] == pytest.approx(before, rel=1e-4)
    assert [figures["train loss"], figures["test loss"]] == pytest.approx(after, rel=0.005)
    assert figures["test loss"] < 0.9 * figures["test loss of always 0"]
    assert figures["correlation with their forecasts"] > 0.7
    assert is_picture(figures["plot"])


def test_sequences_of_a_series(example):
    """Sequences of 3, each 2 after the one before, that end where the series ends."""
    program = example("autoregressive")
    assert [x.tolist() for x in program.batch_timeseries(torch.arange(8), 3, 2)] == [
        [[1, 3, 5]],
        [[2, 4, 6]],
        [[3, 5, 7]],
    ]
    with pytest.raises(ValueError, match="of 8 values, but is 9"):
        program.batch_timeseries(torch.arange(8), 9, 2)
